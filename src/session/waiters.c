/*
 * waiters.c
 *		Sessions that wait until this server has applied a position.
 *
 * WHAT: on a standby, whoever waits puts itself into a heap in shared memory, ordered by LSN, and
 * sleeps on its latch.  The startup process looks, after each commit record it has applied, whether
 * the heap's first wants no more than that, and sets the latches of those who do.
 *
 * HOW THE STARTUP PROCESS IS REACHED: its table of resource managers is this process's copy of
 * RmgrTable; _PG_init(), run in the postmaster, puts a function before the transaction manager's
 * redo, as pg_concord is preloaded.  The replay position in PostgreSQL's shared memory moves only
 * after redo has returned, so the function publishes its own (applied).
 *
 * ON A LOGICAL COPY the process that applies the subscription calls concord_followed_hook, which
 * wakes likewise; positions are then those of the node's WAL, and applied is not involved.  The
 * heap may hold waiters of several databases, each with another node's positions: who is woken in
 * vain waits on.  A position with an xid is never reached there: the id is another server's.
 *
 * COST when nobody waits: one store, one barrier and one load for each commit record applied.
 *
 * INVARIANTS
 * W1 No wake-up is lost: the waiter stores what it wants, then looks at what is applied; the
 *    startup process stores what is applied, then looks at what is wanted; a full barrier lies
 *    between the two on both sides.
 * W2 applied is the end of a commit record whose effects every new snapshot sees.  The startup
 *    process alone writes it: no logical copy's position is ever in it.
 * W3 A waiter is in the heap only while its backend is in concord_wait_for(); an error, a cancel
 *    and the process's end take it out.
 * W4 Nothing depends on being woken: a waiter looks again by itself, soon at first and at last
 *    every POLL_MAX_MS.  That also ends waits for positions that are no commit's, for a prepared
 *    branch on a primary, and after a promotion.
 *
 * LOCKS: the tranche "pg_concord waiters" protects heap and array; a leaf, held for the time of
 * taking out the woken.  Latches are set under it: a waiter's slot is then still its own.
 *
 * A crash of the server starts from an empty heap.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "base/compat.h"
#include "base/shmem.h"
#include "cluster/follow.h"
#include "lib/pairingheap.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "session/session.h"
#include "session/waiters.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#define POLL_MIN_MS 10			/* W4: doubled each time ... */
#define POLL_MAX_MS 1000		/* ... up to this */
#define POLL_BRANCH_MS 5		/* for the end of a prepared branch */

typedef struct Waiter
{
	pairingheap_node node;
	bool		queued;			/* in the heap: set by its backend, cleared by who takes it out */
	XLogRecPtr	wanted;
	ConcordWaiterView shown;	/* pid 0: not waiting; written by its backend */
} Waiter;

typedef struct Waiters
{
	LWLock	   *lock;
	pg_atomic_uint64 applied;	/* W1, W2: written by the startup process */
	pg_atomic_uint64 wanted;	/* the heap's first, PG_UINT64_MAX = nobody waits */
	pairingheap heap;
	Waiter		waiters[FLEXIBLE_ARRAY_MEMBER];
} Waiters;

static Waiters *waiters = NULL;
static bool exit_registered = false;
static void (*xact_redo_before) (XLogReaderState *record) = NULL;
static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static int
compare_waiters(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	XLogRecPtr	left = pairingheap_const_container(Waiter, node, a)->wanted;
	XLogRecPtr	right = pairingheap_const_container(Waiter, node, b)->wanted;

	/* the first is the greatest for the heap: least LSN */
	return left < right ? 1 : left > right ? -1 : 0;
}

static Size
waiters_size(void)
{
	return add_size(offsetof(Waiters, waiters), mul_size(sizeof(Waiter), MaxBackends));
}

static void
waiters_request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(waiters_size());
	RequestNamedLWLockTranche("pg_concord waiters", 1);
}

static void
waiters_startup(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	waiters = ShmemInitStruct("pg_concord waiters", waiters_size(), &found);
	if (!found)
	{
		memset(waiters, 0, waiters_size());
		waiters->lock = &GetNamedLWLockTranche("pg_concord waiters")->lock;
		pg_atomic_init_u64(&waiters->applied, 0);
		pg_atomic_init_u64(&waiters->wanted, PG_UINT64_MAX);
		waiters->heap.ph_compare = compare_waiters;
	}
	LWLockRelease(AddinShmemInitLock);
}

XLogRecPtr
concord_applied(void)
{
	return waiters == NULL ? InvalidXLogRecPtr : pg_atomic_read_u64(&waiters->applied);
}

/* The lock is held exclusively. */
static void
publish_wanted(void)
{
	uint64		wanted = PG_UINT64_MAX;

	if (!pairingheap_is_empty(&waiters->heap))
		wanted = pairingheap_container(Waiter, node, pairingheap_first(&waiters->heap))->wanted;
	pg_atomic_write_u64(&waiters->wanted, wanted);
}

/* ------------------------------------------------------------ startup process */

static void
wake(XLogRecPtr applied)
{
	LWLockAcquire(waiters->lock, LW_EXCLUSIVE);
	while (!pairingheap_is_empty(&waiters->heap))
	{
		Waiter	   *first = pairingheap_container(Waiter, node, pairingheap_first(&waiters->heap));

		if (first->wanted > applied)
			break;
		(void) pairingheap_remove_first(&waiters->heap);
		first->queued = false;
		SetLatch(concord_procno_latch(first - waiters->waiters));
	}
	publish_wanted();
	LWLockRelease(waiters->lock);
}

static void
xact_redo_and_wake(XLogReaderState *record)
{
	uint8		what = XLogRecGetInfo(record) & XLOG_XACT_OPMASK;

	xact_redo_before(record);
	if (what != XLOG_XACT_COMMIT && what != XLOG_XACT_COMMIT_PREPARED)
		return;
	pg_atomic_write_u64(&waiters->applied, record->EndRecPtr);	/* W2 */
	pg_memory_barrier();		/* W1 */
	if (pg_atomic_read_u64(&waiters->wanted) <= record->EndRecPtr)
		wake(record->EndRecPtr);
}

/* A logical copy's: it has stored what is applied. */
static void
followed_and_wake(XLogRecPtr visible)
{
	pg_memory_barrier();		/* W1 */
	if (pg_atomic_read_u64(&waiters->wanted) <= visible)
		wake(visible);
}

void
concord_waiters_init(void)
{
	concord_followed_hook = followed_and_wake;
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = waiters_request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = waiters_startup;
	xact_redo_before = RmgrTable[RM_XACT_ID].rm_redo;
	RmgrTable[RM_XACT_ID].rm_redo = xact_redo_and_wake;
}

/* ------------------------------------------------------------------ waiters */

static void
leave(void)
{
	Waiter	   *me = &waiters->waiters[concord_my_procno()];

	LWLockAcquire(waiters->lock, LW_EXCLUSIVE);
	if (me->queued)
	{
		pairingheap_remove(&waiters->heap, &me->node);
		me->queued = false;
		publish_wanted();
	}
	memset(&me->shown, 0, sizeof(me->shown));
	LWLockRelease(waiters->lock);
}

static void
leave_at_exit(int code, Datum arg)
{
	leave();
}

/*
 * Enters (again); a position with an xid wants to be woken by any commit, but where it is never
 * reached, by none.
 */
static void
enter(const ConcordPosition *position, bool for_branch, bool hopeless, TimestampTz since,
	  int timeout_ms)
{
	Waiter	   *me = &waiters->waiters[concord_my_procno()];

	LWLockAcquire(waiters->lock, LW_EXCLUSIVE);
	if (me->queued)
		pairingheap_remove(&waiters->heap, &me->node);
	me->wanted = for_branch ? 0 : position->xid != 0 && hopeless ? PG_UINT64_MAX : position->lsn;
	me->queued = true;
	pairingheap_add(&waiters->heap, &me->node);
	me->shown.pid = MyProcPid;
	me->shown.dboid = MyDatabaseId;
	me->shown.role = GetUserId();
	me->shown.timeline = position->timeline;
	me->shown.lsn = position->lsn;
	me->shown.xid = position->xid;
	me->shown.since = since;
	me->shown.timeout_ms = timeout_ms;
	publish_wanted();
	LWLockRelease(waiters->lock);
	pg_memory_barrier();		/* W1 */
}

/* Has the prepared branch with this transaction id ended, as this server sees it? */
static bool
branch_ended(uint64 xid)
{
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());

	/* forged, or taken back by a crash: nobody can tell here */
	if (xid >= next)
		return false;
	/* so old that its 32 bits may mean another one by now */
	if (next - xid > PG_INT32_MAX / 2)
		return true;
	return !TransactionIdIsInProgress((TransactionId) xid);
}

/*
 * Judges the token's positions of this node.  AHEAD without *branch: the position was not
 * reached; with it: it was, but its branch has not ended.
 */
static ConcordReach
judge(const ConcordMap *map, const ConcordToken *token, int *which, bool *branch)
{
	ConcordServer server;
	ConcordReach verdict;

	*branch = false;
	concord_standing(map, &server);
	verdict = concord_token_judge(token, &server, which);
	if (verdict != CONCORD_REACHED)
		return verdict;
	for (int i = 0; i < token->n; i++)
	{
		const ConcordPosition *position = &token->positions[i];

		if (position->node != server.node || position->xid == 0)
			continue;
		*branch = map->membership != CONCORD_COPY;
		if (*branch && branch_ended(position->xid))
			continue;
		*which = i;
		return CONCORD_AHEAD;
	}
	*branch = false;
	return CONCORD_REACHED;
}

static ConcordWaitResult
result_of(ConcordReach verdict)
{
	switch (verdict)
	{
		case CONCORD_REACHED:
			return CONCORD_WAIT_REACHED;
		case CONCORD_LEFT_BEHIND:
			return CONCORD_WAIT_LEFT_BEHIND;
		case CONCORD_LOST:
			return CONCORD_WAIT_LOST;
		default:
			return CONCORD_WAIT_TIMEOUT;
	}
}

ConcordWaitResult
concord_look(const ConcordMap *map, const ConcordToken *token, int *which)
{
	bool		branch;

	return result_of(judge(map, token, which, &branch));
}

static int64
elapsed_ms(instr_time start)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return (int64) INSTR_TIME_GET_MILLISEC(now);
}

static ConcordReach
wait_in_heap(const ConcordMap *map, const ConcordToken *token, int timeout_ms, int *which)
{
	static uint32 wait_event = 0;
	TimestampTz since = GetCurrentTimestamp();
	instr_time	start;
	ConcordReach verdict;
	bool		branch;
	long		poll_ms = POLL_MIN_MS;

	if (wait_event == 0)
		wait_event = concord_wait_event("ConcordToken");
	INSTR_TIME_SET_CURRENT(start);
	while ((verdict = judge(map, token, which, &branch)) == CONCORD_AHEAD)
	{
		long		left = branch ? POLL_BRANCH_MS : poll_ms;

		if (timeout_ms >= 0)
		{
			int64		remaining = timeout_ms - elapsed_ms(start);

			if (remaining <= 0)
				break;
			left = Min(left, remaining);
		}
		enter(&token->positions[*which], branch, map->membership == CONCORD_COPY, since,
			  timeout_ms);
		if (judge(map, token, which, &branch) != CONCORD_AHEAD)	/* W1 */
			continue;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, left,
						 wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		poll_ms = Min(poll_ms * 2, POLL_MAX_MS);
	}
	return verdict;
}

ConcordWaitResult
concord_wait_for(const ConcordMap *map, const ConcordToken *token, int timeout_ms, int *which)
{
	bool		branch;
	ConcordReach verdict = judge(map, token, which, &branch);

	if (verdict != CONCORD_AHEAD || timeout_ms == 0)
		return result_of(verdict);

	/* a catalog snapshot would hold back what is waited for */
	InvalidateCatalogSnapshot();
	if (!exit_registered)
		before_shmem_exit(leave_at_exit, (Datum) 0);
	exit_registered = true;
	PG_TRY();
	{
		verdict = wait_in_heap(map, token, timeout_ms, which);
	}
	PG_FINALLY();
	{
		leave();				/* W3 */
	}
	PG_END_TRY();
	return result_of(verdict);
}

ConcordWaiterView *
concord_waiters(int *n)
{
	ConcordWaiterView *views = palloc(Max(MaxBackends, 1) * sizeof(ConcordWaiterView));

	*n = 0;
	LWLockAcquire(waiters->lock, LW_SHARED);
	for (int i = 0; i < MaxBackends; i++)
		if (waiters->waiters[i].shown.pid != 0)
			views[(*n)++] = waiters->waiters[i].shown;
	LWLockRelease(waiters->lock);
	return views;
}
