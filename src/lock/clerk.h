/*
 * clerk.h
 *		The registrar's part of lease locks.
 */
#ifndef CONCORD_LOCK_CLERK_H
#define CONCORD_LOCK_CLERK_H

#include "core/lock.h"
#include "postgres.h"

/* ---- for worker/registrar.c ---- */

extern void concord_clerk_begin(MemoryContext context);

/* One turn; returns when it wants the next one at the latest (concord_quorum_ms()). */
extern int64 concord_clerk_turn(void);

/* ---- keeper.c: this node's lease, and what is known of others'.  Private to this room. ---- */

extern void concord_keeper_begin(MemoryContext context);

/* wanted: somebody holds or waits.  Returns when it wants the next turn. */
extern int64 concord_keeper_turn(bool wanted);

/* The number of the lease under which requests are made; 0 while there is none that is valid. */
extern uint64 concord_keeper_lease(void);

/* Is that lease kept, and valid now (L11)? */
extern bool concord_keeper_valid(uint64 lease);

/* Is that lease of this node over for ever? */
extern bool concord_keeper_over(uint64 lease);

/*
 * What is known of a node's lease, to be dropped by; NULL: nothing yet.  From now on it is watched,
 * as long as this is called at least every CONCORD_WATCH_MS.
 */
#define CONCORD_WATCH_MS 5000
extern const ConcordLeaseValue *concord_keeper_watch(int node);

/* Grows when one of these may say something else than before. */
extern uint64 concord_keeper_changes(void);

#endif							/* CONCORD_LOCK_CLERK_H */
