/*
 * hold.h
 *		Utility commands that need a database free of workers.  Private to this room.
 */
#ifndef CONCORD_WORKER_HOLD_H
#define CONCORD_WORKER_HOLD_H

extern void concord_hold_init(void);	/* from concord_worker_init(): hook and callback */

#endif							/* CONCORD_WORKER_HOLD_H */
