/*
 * visitors.h
 *		Other nodes' protocol sessions in a database that is held.  Private to this room.
 */
#ifndef CONCORD_WORKER_VISITORS_H
#define CONCORD_WORKER_VISITORS_H

#include "postgres.h"

/*
 * Tells the protocol sessions in a database to go; returns how many are still there or may be
 * about to enter.  The caller holds the database (concord_entry_hold).
 */
extern int	concord_visitors_end(Oid dboid);

extern void concord_visitors_init(void);	/* from concord_worker_init(): the hook */

#endif							/* CONCORD_WORKER_VISITORS_H */
