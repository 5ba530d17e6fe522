/*
 * lock.h
 *		Locks on names, and fences.
 *
 * WHAT: transaction locks (xact.c), which end with a transaction, are locks of PostgreSQL's lock
 * manager on the node that owns the name's slot.  Fences (fence.c) are numbers that a lock's holder
 * shows where the data is written, so that a holder who has lost his lock is refused.
 */
#ifndef CONCORD_LOCK_LOCK_H
#define CONCORD_LOCK_LOCK_H

#include "fmgr.h"

/* ---- names.c: arguments that all functions of this room have ---- */

/*
 * A lock's name: any text of 1 to CONCORD_NAME_MAX bytes.  22004 when it is NULL, 22023 when
 * it is not such a text.
 */
extern text *concord_lock_name(FunctionCallInfo fcinfo, int i);

/* Its 64-bit hash, hashtextextended(name, 0), by which the lock manager knows it. */
extern uint64 concord_lock_hash(const text *name);

/* Its slot: slot(name). */
extern int	concord_lock_slot(text *name);

/* 'exclusive' or 'shared': is it shared?  22004 when it is NULL, else 22023. */
extern bool concord_lock_shared(FunctionCallInfo fcinfo, int i);

/* ---- fence.c ---- */

/*
 * Checks a fence of a lock in the running transaction, as check_fence() does: PC005 if it has been
 * superseded.  The name is checked already; raises 22023 for a fence that is not positive, 25006,
 * 55000, and what an UPDATE may raise.
 */
extern void concord_fence_check(text *name, int64 fence);

/* ---- holder.c: what this session holds, for guard.c ---- */

typedef struct ConcordHeldLock
{
	uint64		serial;			/* grows with each lock that is taken */
	text	   *name;
	int64		fence;
} ConcordHeldLock;

/* Does the session hold any lease lock (or did, and has not let go of it)? */
extern bool concord_holds_locks(void);
/* Those taken after that one; palloc'd; returns how many. */
extern int	concord_held_locks(uint64 after, ConcordHeldLock **list);

/* ---- from _PG_init() ---- */

extern void concord_holder_init(void);
extern void concord_lock_views_init(void);
extern void concord_guard_init(void);
extern void concord_holdings_init(void);	/* with preload: shared memory */

#endif							/* CONCORD_LOCK_LOCK_H */
