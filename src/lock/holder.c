/*
 * holder.c
 *		Lease locks from a session's side: lock, acquire, try_lock, unlock, and what a session does
 *		when it loses one.
 *
 * WHAT: a session remembers which locks it has and how often it took each; that, and no more.  A
 * request is an entry in shared memory (table.h) that the registrar carries out; the session waits
 * on its latch until the entry says what became of it.
 *
 * PROMISE: a lock that was returned is in the register under this session's name, was granted while
 * the node's lease was valid, and is given back when the session ends, however it ends.  A session
 * whose lock was lost cannot commit any more before it has let go of it.
 *
 * INVARIANTS
 * H1 An entry that is given up, by an error, a cancel, a timeout, the end of the session, is left
 *	  to the registrar (LEAVING) before anything else happens: nobody gets a lock for a request
 *	  that nobody waits for any more.
 * H2 The commit of a transaction that has written, here or on other nodes, looks at the end of the
 *	  lease on the same clock that the lease is counted on, before anything is prepared or decided.
 *	  So as long as a session has locks, no statement of its commits by itself on another node
 *	  (concord_commit_guarded).
 * H3 What is taken is no part of the transaction: a rollback gives nothing back.
 * H4 A lock that was waited for under a snapshot that stays (REPEATABLE READ) is given back with
 *	  40001: what it protects may have changed since that snapshot.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/errors.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "cluster/copies.h"
#include "cluster/room.h"
#include "commit/deadlock.h"
#include "funcapi.h"
#include "lock/lock.h"
#include "lock/table.h"
#include "miscadmin.h"
#include "peer/peer.h"
#include "quorum/desk.h"
#include "shard/shard.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define ANSWER_MIN_MS 100		/* that the acceptors are given, however short the wait */
#define HOLD_MIN_MS 10
#define HOLD_MAX_MS (24 * 60 * 60 * 1000.0)

PG_FUNCTION_INFO_V1(concord_lock);
PG_FUNCTION_INFO_V1(concord_acquire);
PG_FUNCTION_INFO_V1(concord_try_lock);
PG_FUNCTION_INFO_V1(concord_unlock);
PG_FUNCTION_INFO_V1(concord_unlock_all);
PG_FUNCTION_INFO_V1(concord_lock_remaining);
PG_FUNCTION_INFO_V1(concord_lock_news);

/* A lock that this session has, or had and lost */
typedef struct Held
{
	dlist_node	node;
	ConcordHolding *entry;
	uint64		serial;
	int			count;			/* how often it was taken */
	int			name_len;
	char		name[CONCORD_NAME_MAX + 1];
} Held;

static dlist_head held = DLIST_STATIC_INIT(held);
static bool exit_registered = false;
static ProcessUtility_hook_type previous_utility = NULL;

/* ---------------------------------------------------------------- entries */

/* Leaves an entry to the registrar (H1); pid: who wants to know when it is free, 0: nobody. */
static void
leave(ConcordHolding *entry, uint64 serial, int pid)
{
	LWLockAcquire(ConcordHoldings->lock, LW_EXCLUSIVE);
	if (entry->serial == serial && entry->state != CONCORD_HOLDING_FREE)
	{
		entry->state = CONCORD_HOLDING_LEAVING;
		entry->pid = pid;
		concord_holding_queue(entry);
	}
	LWLockRelease(ConcordHoldings->lock);
	(void) concord_desk_poke(MyDatabaseId);
}

static void
forget(Held *mine)
{
	dlist_delete(&mine->node);
	pfree(mine);
	concord_commit_guarded = !dlist_is_empty(&held);
}

/* Also what it waits for: the end of a session raises nothing that could be caught. */
static void
leave_at_exit(int code, Datum arg)
{
	(void) code;
	(void) arg;
	LWLockAcquire(ConcordHoldings->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ConcordHoldings->size; i++)
	{
		ConcordHolding *entry = &ConcordHoldings->entries[i];

		if (entry->state == CONCORD_HOLDING_FREE || entry->pid != MyProcPid)
			continue;
		entry->state = CONCORD_HOLDING_LEAVING;
		entry->pid = 0;
		concord_holding_queue(entry);
	}
	LWLockRelease(ConcordHoldings->lock);
	(void) concord_desk_poke(MyDatabaseId);
}

static ConcordHolding *
ask(const char *name, int name_len, bool shared, bool may_wait, int64 hold_us, uint64 *serial)
{
	ConcordHolding *entry = NULL;

	if (!exit_registered)
		before_shmem_exit(leave_at_exit, (Datum) 0);
	exit_registered = true;
	LWLockAcquire(ConcordHoldings->lock, LW_EXCLUSIVE);
	if (!dlist_is_empty(&ConcordHoldings->free) &&
		concord_holding_database(MyDatabaseId, true) != NULL)
	{
		entry = dlist_container(ConcordHolding, node,
								dlist_pop_head_node(&ConcordHoldings->free));
		memset(entry, 0, sizeof(*entry));
		entry->state = CONCORD_HOLDING_ASKED;
		entry->dboid = MyDatabaseId;
		entry->pid = MyProcPid;
		entry->procno = concord_my_procno();
		entry->role = GetUserId();
		strlcpy(entry->application, application_name != NULL ? application_name : "",
				sizeof(entry->application));
		entry->serial = *serial = ++ConcordHoldings->last_serial;
		entry->mode = shared ? CONCORD_LOCK_SHARED : CONCORD_LOCK_EXCLUSIVE;
		entry->may_wait = may_wait;
		entry->on_loss = concord_on_lock_loss;
		entry->hold_us = hold_us;
		entry->asked_us = concord_copy_clock_us();
		entry->asked_at = GetCurrentTimestamp();
		entry->name_len = name_len;
		memcpy(entry->name, name, name_len);
		concord_holding_queue(entry);
	}
	LWLockRelease(ConcordHoldings->lock);
	if (entry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("too many lease locks on this server"),
				 errhint("You might need to increase concord.max_locks.")));
	return entry;
}

static ConcordHolding
look(const ConcordHolding *entry)
{
	ConcordHolding copy;

	LWLockAcquire(ConcordHoldings->lock, LW_SHARED);
	memcpy(&copy, entry, sizeof(copy));
	LWLockRelease(ConcordHoldings->lock);
	return copy;
}

/* E2 of table.h: for how many us a lock of that lease may still be relied on */
static int64
left_us(const ConcordHolding *entry)
{
	ConcordHoldingDatabase *database;
	int64		now_us = concord_copy_clock_us();
	int64		left = 0;

	LWLockAcquire(ConcordHoldings->lock, LW_SHARED);
	database = concord_holding_database(MyDatabaseId, false);
	if (database != NULL && entry->state == CONCORD_HOLDING_HELD &&
		database->lease == entry->lease && database->lease_from_us <= now_us)
	{
		left = database->lease_until_us - now_us;
		if (entry->until_us > 0)
			left = Min(left, entry->until_us - now_us);
	}
	LWLockRelease(ConcordHoldings->lock);
	return Max(left, 0);
}

static Held *
find_held(const char *name, int name_len)
{
	dlist_iter	iter;

	dlist_foreach(iter, &held)
	{
		Held	   *mine = dlist_container(Held, node, iter.cur);

		if (mine->name_len == name_len && memcmp(mine->name, name, name_len) == 0)
			return mine;
	}
	return NULL;
}

/* ---------------------------------------------------------------- waiting */

pg_noreturn static void
throw_lost(const char *name, int name_len)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONCORD_LOCK_LOST),
			 errmsg("lock \"%.*s\" was lost", name_len, name),
			 errdetail("Its lease is over; another session may have been granted the lock since."),
			 errhint("Roll back, and give it back with concord.unlock() before taking it again.")));
}

pg_noreturn static void
throw_not_granted(const char *name, int name_len)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("lock \"%.*s\" was not granted in time", name_len, name)));
}

pg_noreturn static void
throw_late(const ConcordHolding *entry, const char *name, int name_len)
{
	concord_count(CONCORD_COUNT_LOCK_TIMEOUTS);
	if (entry->state != CONCORD_HOLDING_WAITING && concord_desk_registrar(MyDatabaseId) == 0)
		concord_desk_no_registrar();
	if (entry->state != CONCORD_HOLDING_WAITING)
		ereport(ERROR,
				(errcode(ERRCODE_CONCORD_NO_MAJORITY),
				 errmsg("no majority of the acceptors answered for lock \"%.*s\"", name_len, name),
				 errdetail("The request is taken back as soon as a majority answers."),
				 errhint("View concord.acceptors tells which nodes they are.")));
	throw_not_granted(name, name_len);
}

pg_noreturn static void
throw_refused(ConcordLockResult result, const char *name, int name_len)
{
	if (result == CONCORD_LOCK_FULL)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many sessions hold or wait for lock \"%.*s\"", name_len, name),
				 errdetail("At most %d can.", CONCORD_LOCK_REQUESTS)));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("lock \"%.*s\" is shared with other sessions", name_len, name),
			 errdetail("This session holds it in mode shared, and cannot get it exclusive while others do too."),
			 errhint("Give it back with concord.unlock(), and take it in mode exclusive.")));
}

/* How long a session that waits since then may do so; wait_ms < 0: no limit. */
static int64
limit_of(const ConcordHolding *entry, int64 start, int64 wait_ms)
{
	int64		limit = wait_ms < 0 ? PG_INT64_MAX : wait_ms;
	int64		asked = Max(entry->asked_us / 1000, start) - start;

	if (entry->state == CONCORD_HOLDING_WAITING)
		return limit;
	/* nobody has answered yet: that is not to last for ever, nor to be given no time */
	asked += concord_register_timeout_ms;
	return entry->may_wait ? Min(Max(limit, ANSWER_MIN_MS), asked) : asked;
}

/*
 * Waits until the entry has another state than asked or waiting (or the upgrade is decided).
 * Returns what it was like then.  wait_ms < 0: no limit.
 */
static ConcordHolding
await(ConcordHolding *entry, uint64 serial, int64 wait_ms, bool upgrade)
{
	int64		start = concord_copy_clock_us() / 1000;
	int64		want_at = concord_deadlock_timeout_ms;

	if (!concord_desk_poke(MyDatabaseId))
		concord_poke_worker(MyDatabaseId);
	for (;;)
	{
		ConcordHolding copy = look(entry);
		int64		passed = concord_copy_clock_us() / 1000 - start;
		int64		limit = limit_of(&copy, start, wait_ms);

		if (copy.serial != serial)
			elog(ERROR, "a request for a lock has vanished");
		if (upgrade ? !copy.upgrade || copy.state != CONCORD_HOLDING_HELD :
			copy.state != CONCORD_HOLDING_ASKED && copy.state != CONCORD_HOLDING_WAITING)
			return copy;
		if (copy.state == CONCORD_HOLDING_WAITING && passed >= want_at)
		{
			concord_deadlock_want();
			want_at = passed + concord_deadlock_timeout_ms;
		}
		if (copy.deadlock)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_DEADLOCK_DETECTED),
					 errmsg("deadlock detected"),
					 errdetail("This session waited for lock \"%.*s\" in a cycle of waits between nodes.",
							   copy.name_len, copy.name)));
		if (passed >= limit)
			throw_late(&copy, copy.name, copy.name_len);
		if (concord_desk_registrar(MyDatabaseId) == 0)
			concord_poke_worker(MyDatabaseId);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT,
						 (long) Min(limit - passed, copy.state == CONCORD_HOLDING_WAITING ?
									Max(want_at - passed, 1) : 500),
						 concord_wait_event("ConcordLock"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* ---------------------------------------------------------------- taking and giving back */

static Held *
remember(ConcordHolding *entry, uint64 serial, const char *name, int name_len)
{
	Held	   *mine = MemoryContextAllocZero(TopMemoryContext, sizeof(Held));

	mine->entry = entry;
	mine->serial = serial;
	mine->count = 1;
	mine->name_len = name_len;
	memcpy(mine->name, name, name_len);
	dlist_push_head(&held, &mine->node);
	concord_commit_guarded = true;
	return mine;
}

/* Takes it once more; 0 if it cannot be made exclusive without an error. */
static int64
take_again(Held *mine, bool shared, bool may_wait)
{
	ConcordHolding copy = look(mine->entry);

	if (copy.serial != mine->serial || left_us(&copy) == 0)
		throw_lost(mine->name, mine->name_len);
	if (!shared && copy.mode == CONCORD_LOCK_SHARED)
	{
		LWLockAcquire(ConcordHoldings->lock, LW_EXCLUSIVE);
		mine->entry->upgrade = true;
		concord_holding_queue(mine->entry);
		LWLockRelease(ConcordHoldings->lock);
		copy = await(mine->entry, mine->serial, -1, true);
		if (copy.state != CONCORD_HOLDING_HELD)
			throw_lost(mine->name, mine->name_len);
		if (copy.mode != CONCORD_LOCK_EXCLUSIVE)
		{
			if (!may_wait)
				return 0;
			throw_refused(copy.result, mine->name, mine->name_len);
		}
	}
	mine->count++;
	return copy.fence;
}

/* Returns the fence; 0: not without waiting.  *waited: somebody else had the lock before. */
static int64
take(const char *name, int name_len, bool shared, bool may_wait, int64 wait_ms, int64 hold_us,
	 bool *waited)
{
	Held	   *mine = find_held(name, name_len);
	ConcordHolding *volatile entry;
	ConcordHolding copy;
	uint64		serial;

	*waited = false;
	if (mine != NULL)
		return take_again(mine, shared, may_wait);
	entry = ask(name, name_len, shared, may_wait, hold_us, &serial);
	PG_TRY();
	{
		copy = await(entry, serial, wait_ms, false);
	}
	PG_CATCH();
	{
		leave(entry, serial, 0);	/* H1 */
		PG_RE_THROW();
	}
	PG_END_TRY();
	*waited = copy.waited;
	if (copy.state == CONCORD_HOLDING_HELD)
	{
		(void) remember(entry, serial, name, name_len);
		concord_count(CONCORD_COUNT_LOCKS);
		if (*waited)
			concord_count(CONCORD_COUNT_LOCK_WAITS);
		return copy.fence;
	}
	leave(entry, serial, 0);
	if (copy.state == CONCORD_HOLDING_REFUSED && copy.result == CONCORD_LOCK_BUSY)
		return 0;
	if (copy.state == CONCORD_HOLDING_LOST)
		throw_lost(name, name_len);
	throw_refused(copy.result, name, name_len);
}

/* Waits until the registrar has given it back, not for ever. */
static void
await_freed(ConcordHolding *entry, uint64 serial)
{
	int64		until = concord_copy_clock_us() / 1000 + concord_register_timeout_ms;

	for (;;)
	{
		ConcordHolding copy = look(entry);
		int64		left = until - concord_copy_clock_us() / 1000;

		if (copy.serial != serial || copy.state == CONCORD_HOLDING_FREE)
			return;
		if (left <= 0)
		{
			ereport(WARNING,
					(errcode(ERRCODE_CONCORD_NO_MAJORITY),
					 errmsg("no majority of the acceptors has confirmed yet that lock \"%.*s\" was given back",
							copy.name_len, copy.name),
					 errdetail("It is given back as soon as one answers.")));
			leave(entry, serial, 0);
			return;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT,
						 (long) Min(left, 500), concord_wait_event("ConcordUnlock"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
give_back(Held *mine)
{
	ConcordHolding *entry = mine->entry;
	uint64		serial = mine->serial;

	forget(mine);
	leave(entry, serial, MyProcPid);
	await_freed(entry, serial);
}

bool
concord_holds_locks(void)
{
	return !dlist_is_empty(&held);
}

int
concord_held_locks(uint64 after, ConcordHeldLock **list)
{
	dlist_iter	iter;
	int			n = 0;
	int			size = 8;

	*list = palloc(size * sizeof(ConcordHeldLock));
	dlist_foreach(iter, &held)
	{
		Held	   *mine = dlist_container(Held, node, iter.cur);

		if (mine->serial <= after)
			continue;
		if (n == size)
		{
			size *= 2;
			*list = repalloc(*list, size * sizeof(ConcordHeldLock));
		}
		(*list)[n].serial = mine->serial;
		(*list)[n].name = cstring_to_text_with_len(mine->name, mine->name_len);
		(*list)[n++].fence = look(mine->entry).fence;
	}
	return n;
}

/* ---------------------------------------------------------------- a transaction's end */

/* H2 */
static void
check_held(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &held)
	{
		Held	   *mine = dlist_container(Held, node, iter.cur);
		ConcordHolding copy = look(mine->entry);

		if (copy.serial != mine->serial || left_us(&copy) == 0)
			throw_lost(mine->name, mine->name_len);
	}
}

static void
holder_callback(XactEvent event, void *arg)
{
	(void) arg;
	if ((event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE) &&
		!dlist_is_empty(&held) &&
		(TransactionIdIsValid(GetTopTransactionIdIfAny()) || concord_branches_writing() > 0))
		check_held();
}

/* DISCARD ALL gives back, as it does with advisory locks. */
static void
holder_utility(PlannedStmt *statement, const char *text, bool read_only_tree,
			   ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *env,
			   DestReceiver *dest, QueryCompletion *completion)
{
	bool		discard = IsA(statement->utilityStmt, DiscardStmt) &&
		castNode(DiscardStmt, statement->utilityStmt)->target == DISCARD_ALL;

	if (previous_utility)
		previous_utility(statement, text, read_only_tree, context, params, env, dest, completion);
	else
		standard_ProcessUtility(statement, text, read_only_tree, context, params, env, dest,
								completion);
	while (discard && !dlist_is_empty(&held))
		give_back(dlist_head_element(Held, node, &held));
}

void
concord_holder_init(void)
{
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = holder_utility;
	RegisterXactCallback(holder_callback, NULL);
	concord_lock_views_init();
	concord_guard_init();
}

/* ---------------------------------------------------------------- SQL */

static double
interval_ms(const Interval *interval)
{
	/* an interval's months are thirty days, as in interval comparison */
	return interval->time / 1000.0 +
		(interval->day + interval->month * 30.0) * SECS_PER_DAY * 1000.0;
}

/* -1: no limit */
static int64
wait_argument(FunctionCallInfo fcinfo, int i)
{
	double		ms;

	if (PG_ARGISNULL(i))
		return LockTimeout > 0 ? LockTimeout : -1;
	ms = interval_ms(PG_GETARG_INTERVAL_P(i));
	if (ms < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("wait must not be negative"),
				 errhint("concord.try_lock() does not wait at all.")));
	return (int64) Min(ceil(ms), (double) INT_MAX);
}

static int64
lease_argument(FunctionCallInfo fcinfo, int i)
{
	double		ms;

	if (PG_ARGISNULL(i))
		return 0;
	ms = interval_ms(PG_GETARG_INTERVAL_P(i));
	if (ms < HOLD_MIN_MS || ms > HOLD_MAX_MS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease must be between 10 milliseconds and 1 day")));
	return (int64) (ms * 1000);
}

typedef struct LockArguments
{
	char	   *name;
	int			name_len;
	bool		shared;
	int64		wait_ms;
	int64		hold_us;
} LockArguments;

static LockArguments
read_arguments(FunctionCallInfo fcinfo, bool with_wait)
{
	LockArguments a = {.wait_ms = -1};
	text	   *name = concord_lock_name(fcinfo, 0);

	a.name = VARDATA_ANY(name);
	a.name_len = (int) VARSIZE_ANY_EXHDR(name);
	a.shared = concord_lock_shared(fcinfo, 1);
	if (with_wait)
	{
		a.wait_ms = wait_argument(fcinfo, 2);
		a.hold_us = lease_argument(fcinfo, 3);
	}
	return a;
}

/* Takes the lock as the arguments say, or raises an error. */
static int64
take_or_throw(const LockArguments *a, bool *waited)
{
	int64		fence = take(a->name, a->name_len, a->shared, a->wait_ms != 0, a->wait_ms,
							 a->hold_us, waited);

	if (fence == 0)
		throw_not_granted(a->name, a->name_len);
	return fence;
}

/* lock(name, mode, wait, lease) -> fence */
Datum
concord_lock(PG_FUNCTION_ARGS)
{
	LockArguments a = read_arguments(fcinfo, true);
	bool		waited;
	int64		fence;

	concord_require_writable("concord.lock()");
	(void) concord_map_member();
	fence = take_or_throw(&a, &waited);
	if (waited && IsolationUsesXactSnapshot() && FirstSnapshotSet)
	{
		give_back(find_held(a.name, a.name_len));
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the snapshot was taken before lock \"%.*s\" was granted", a.name_len,
						a.name),
				 errdetail("The lock was given back."),
				 errhint("Repeat the transaction, or take the lock with CALL concord.acquire() before it.")));
	}
	PG_RETURN_INT64(fence);
}

Datum
concord_try_lock(PG_FUNCTION_ARGS)
{
	LockArguments a = read_arguments(fcinfo, false);
	bool		waited;
	int64		fence;

	concord_require_writable("concord.try_lock()");
	(void) concord_map_member();
	fence = take(a.name, a.name_len, a.shared, false, -1, 0, &waited);
	if (fence == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(fence);
}

/* Is the CALL of this procedure all that its transaction does? */
static bool
called_alone(FunctionCallInfo fcinfo)
{
	PlannedStmt *statement;

	if (IsTransactionBlock() || ActivePortal == NULL || list_length(ActivePortal->stmts) != 1)
		return false;
	statement = linitial_node(PlannedStmt, ActivePortal->stmts);
	return statement->utilityStmt != NULL && IsA(statement->utilityStmt, CallStmt) &&
		castNode(CallStmt, statement->utilityStmt)->funcexpr->funcid == fcinfo->flinfo->fn_oid;
}

/* The snapshot that the portal has taken for CALL is given back; any other is refused. */
static void
give_back_snapshot(FunctionCallInfo fcinfo)
{
	Portal		portal = ActivePortal;

	if (IsolationUsesXactSnapshot() && FirstSnapshotSet && !called_alone(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("concord.acquire() cannot be called in a transaction whose snapshot stays"),
				 errhint("Call it before BEGIN: the lock is the session's.")));
	if (!ActiveSnapshotSet())
		return;
	if (portal == NULL || portal->portalSnapshot != GetActiveSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("concord.acquire() must not be called within a query or a function"),
				 errhint("Use concord.lock() there.")));
	PopActiveSnapshot();
	portal->portalSnapshot = NULL;
	if (portal->holdSnapshot != NULL)
	{
		UnregisterSnapshotFromOwner(portal->holdSnapshot, portal->resowner);
		portal->holdSnapshot = NULL;
	}
}

/* acquire(name, mode, wait, lease, INOUT fence) */
Datum
concord_acquire(PG_FUNCTION_ARGS)
{
	LockArguments a = read_arguments(fcinfo, true);
	bool		waited;
	TupleDesc	desc;
	Datum		value;
	bool		null = false;

	concord_require_writable("concord.acquire()");
	(void) concord_map_member();
	give_back_snapshot(fcinfo);
	value = Int64GetDatum(take_or_throw(&a, &waited));
	EnsurePortalSnapshotExists();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), &value, &null)));
}

Datum
concord_unlock(PG_FUNCTION_ARGS)
{
	text	   *name = concord_lock_name(fcinfo, 0);
	Held	   *mine = find_held(VARDATA_ANY(name), (int) VARSIZE_ANY_EXHDR(name));

	concord_require_preload();
	if (mine == NULL)
	{
		ereport(WARNING,
				(errmsg("you don't own lock \"%s\"", text_to_cstring(name))));
		PG_RETURN_BOOL(false);
	}
	if (--mine->count == 0)
		give_back(mine);
	PG_RETURN_BOOL(true);
}

Datum
concord_unlock_all(PG_FUNCTION_ARGS)
{
	int			n = 0;

	(void) fcinfo;
	concord_require_preload();
	while (!dlist_is_empty(&held))
	{
		n++;
		give_back(dlist_head_element(Held, node, &held));
	}
	PG_RETURN_INT32(n);
}

Datum
concord_lock_remaining(PG_FUNCTION_ARGS)
{
	text	   *name = concord_lock_name(fcinfo, 0);
	Held	   *mine = find_held(VARDATA_ANY(name), (int) VARSIZE_ANY_EXHDR(name));
	ConcordHolding copy;
	Interval   *left;

	concord_require_preload();
	if (mine == NULL)
		PG_RETURN_NULL();
	copy = look(mine->entry);
	left = palloc0(sizeof(Interval));
	left->time = copy.serial == mine->serial ? left_us(&copy) : 0;
	PG_RETURN_INTERVAL_P(left);
}

/* _lock_news(bytea): from the registrar of the node that has granted a lock to a session here */
Datum
concord_lock_news(PG_FUNCTION_ARGS)
{
	bytea	   *bytes = PG_GETARG_BYTEA_PP(0);
	ConcordReader r = {(unsigned char *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), 0, false};
	ConcordHoldingDatabase *database;
	size_t		name_len;
	const char *name = concord_get_name(&r, &name_len);
	int64		version = (int64) concord_get(&r, 8);
	size_t		len = r.len - r.at;
	const unsigned char *value = concord_get_bytes(&r, len);

	concord_require_preload();
	concord_require_node_role();
	if (r.failed || name_len > CONCORD_NAME_MAX || len > CONCORD_NEWS_BYTES || version < 0)
		concord_quorum_malformed();
	LWLockAcquire(ConcordHoldings->lock, LW_EXCLUSIVE);
	database = concord_holding_database(MyDatabaseId, false);
	if (database != NULL && database->nnews == CONCORD_NEWS)
		database->news_lost = true;
	else if (database != NULL)
	{
		ConcordLockNews *news = &database->news[database->nnews++];

		news->version = version;
		news->name_len = (int) name_len;
		news->len = (int) len;
		memcpy(news->name, name, name_len);
		memcpy(news->value, value, len);
	}
	LWLockRelease(ConcordHoldings->lock);
	(void) concord_desk_poke(MyDatabaseId);
	PG_RETURN_VOID();
}
