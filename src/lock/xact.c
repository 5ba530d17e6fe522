/*
 * xact.c
 *		Transaction locks: xact_lock() and try_xact_lock().
 *
 * WHAT: an advisory lock of PostgreSQL's on the node that owns the slot of the lock's name, taken
 * inside the caller's transaction there: its branch, or, on the owner itself, the transaction.
 *
 * PROMISE: from the function's return to the end of the transaction no other transaction of the
 * cluster holds the lock, or, if it is shared, none holds it exclusively.  Who gets it next sees
 * what the transaction wrote, on all nodes (but see WHAT IT DOES NOT DO).
 *
 * INVARIANTS
 * X1 The lock is taken under the slot's shared lock, after it was found that the slot is still this
 *    node's.  So there is one place for a name at a time: a slot moves only when nobody holds a
 *    lock in it.
 * X2 A branch that holds a lock is bound to the transaction's outcome like one that has written
 *    (hello.c H4, peer/branch.c B6, commit/coordinator.c): PREPARE asks whether the lock is still
 *    held, and keeps it until the outcome is known there.
 * X3 The lock manager identifies a lock by a 64-bit hash of its name, in a space of its own
 *    (base/locktags.h): no application's advisory lock is ever in the way.  Two names of one hash
 *    are one lock.  That is harmless, but for waiting and for a deadlock that 40P01 ends; among a
 *    million locks held at one time on one node it has a chance of 1 in 37 million.
 *
 * LOCKS: the slot's, then the name's.  Both end with the transaction or the savepoint in which they
 * were taken.  Being ordinary waits in an ordinary lock table, they are seen by both deadlock
 * detectors, obey lock_timeout and cancel requests, and need two entries there.
 *
 * COST: one round trip to another node, to which BEGIN is added when it is the transaction's first
 * there; none on the owner.  At COMMIT see commit/coordinator.c.
 *
 * WHAT IF
 *	- a node of the transaction dies before COMMIT: it cannot commit (08006), and its locks on other
 *	  nodes are released when it ends.
 *	- the caller's session or node dies: its locks elsewhere are released when the other nodes
 *	  notice, or, where they were prepared, with the outcome.
 *
 * WHAT IT DOES NOT DO: wait for a participant that has not answered COMMIT PREPARED within
 * concord.commit_timeout (with concord.commit_wait = off, for any): such a node shows the
 * transaction's effects later, and the lock may have been given to others by then.  The same holds
 * for locks on a node where the transaction has also written, which end with that node's part.
 */
#include "postgres.h"

#include "base/errors.h"
#include "base/locktags.h"
#include "base/shmem.h"
#include "catalog/pg_type.h"
#include "cluster/room.h"
#include "lock/lock.h"
#include "shard/shard.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(concord_xact_lock);
PG_FUNCTION_INFO_V1(concord_try_xact_lock);
PG_FUNCTION_INFO_V1(concord_xact_lock_here);

/* A row if the lock was taken: rows are counted. */
#define LOCK_SQL "SELECT WHERE concord._xact_lock($1, $2, $3)"

typedef struct Request
{
	text	   *name;
	int			slot;
	bool		shared;
	bool		wait;
} Request;

/* Takes the lock on this node: 1, 0 if it cannot be had without waiting, -1 if the slot moved. */
static int64
take_here(void *arg)
{
	const Request *request = arg;
	LOCKTAG		tag;
	ConcordSlotHold hold = concord_slot_hold(request->slot, request->wait); /* X1 */

	if (hold == CONCORD_SLOT_BUSY)
		return 0;
	if (hold == CONCORD_SLOT_HELD)
	{
		concord_locktag(&tag, CONCORD_LOCKTAG_XACT, concord_lock_hash(request->name));
		if (LockAcquire(&tag, request->shared ? ShareLock : ExclusiveLock, false,
						!request->wait) != LOCKACQUIRE_NOT_AVAIL)
		{
			concord_hello_holds();	/* X2 */
			return 1;
		}
	}
	concord_slot_release(request->slot);
	return hold == CONCORD_SLOT_HELD ? 0 : -1;
}

/* Takes the lock where it lies. */
static bool
take(FunctionCallInfo fcinfo, const char *what, bool wait)
{
	Request		request;
	Datum		values[3];
	bool		nulls[3] = {false};
	Oid			types[3] = {TEXTOID, BOOLOID, BOOLOID};
	ConcordParams params = {.n = 3, .values = values, .nulls = nulls, .types = types};

	concord_require_preload();
	PreventCommandDuringRecovery(what);
	request.name = concord_lock_name(fcinfo, 0);
	request.shared = concord_lock_shared(fcinfo, 1);
	request.wait = wait;
	request.slot = concord_lock_slot(request.name);
	values[0] = PointerGetDatum(request.name);
	values[1] = BoolGetDatum(request.shared);
	values[2] = BoolGetDatum(wait);
	return concord_route_to_slot(request.slot, LOCK_SQL, &params, take_here, &request) > 0;
}

/* xact_lock(name text, mode text) */
Datum
concord_xact_lock(PG_FUNCTION_ARGS)
{
	(void) take(fcinfo, "concord.xact_lock()", true);
	PG_RETURN_VOID();
}

/* try_xact_lock(name text, mode text) -> boolean */
Datum
concord_try_xact_lock(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(take(fcinfo, "concord.try_xact_lock()", false));
}

/* _xact_lock(name text, shared boolean, wait boolean) -> boolean: on the owner */
Datum
concord_xact_lock_here(PG_FUNCTION_ARGS)
{
	Request		request;
	int64		taken;

	concord_require_preload();
	PreventCommandDuringRecovery("concord._xact_lock()");
	request.name = concord_lock_name(fcinfo, 0);
	request.shared = PG_GETARG_BOOL(1);
	request.wait = PG_GETARG_BOOL(2);
	request.slot = concord_lock_slot(request.name);
	taken = take_here(&request);
	if (taken < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONCORD_STALE_MAP),
				 errmsg("slot %d is not on this node", request.slot),
				 errhint("Repeat the transaction.")));
	PG_RETURN_BOOL(taken > 0);
}
