/*
 * stopping.h
 *		Is the server about to stop?
 */
#ifndef CONCORD_STOPPING_H
#define CONCORD_STOPPING_H

/*
 * A smart shutdown waits until all clients have gone, and tells nobody; but the postmaster writes
 * it into postmaster.pid, which is read here: not for a place that is passed often.
 */
extern bool concord_postmaster_is_stopping(void);

#endif							/* CONCORD_STOPPING_H */
