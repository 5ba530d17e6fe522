/*
 * wait_edges.c
 *		Deadlocks between nodes: what a node answers the detectors, and does for them.
 *
 * WHAT: _wait_edges() describes who waits for whom in this server's lock table, and whose
 * transactions that are.  _give_up() ends one of these waits with a deadlock's error.
 *
 * See deadlock.h for the whole.  A server answers for all of its databases, since its lock table
 * is one: two nodes of one server answer alike, and the detector takes one answer (it knows the
 * server by its incarnation).
 *
 * A WAIT is named process/began/lock/mode: the same name is the same wait.  Edges that follow from
 * others are left out, or a queue of n would have n * n of them: who waits behind somebody does
 * not name those that he waits for himself, at the same lock.
 *
 * HOW A WAIT IS ENDED: as the lock manager's own detector ends one, which was written so that it
 * might take somebody else's process out of the queue: RemoveFromWaitQueue() under the lock's
 * partition lock, then the latch.  The process finds itself refused and raises the error.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/shmem.h"
#include "cluster/room.h"
#include "commit/commit.h"
#include "commit/deadlock.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(concord_wait_edges);
PG_FUNCTION_INFO_V1(concord_give_up);

/* Columns of _wait_edges() */
enum
{
	COL_KIND,					/* server, session, wait */
	COL_INCARNATION,			/* server */
	COL_PID,					/* session; wait: who waits */
	COL_WAIT,					/* wait: its name */
	COL_LOCK,					/* wait: for people */
	COL_BLOCKER,				/* wait: process it waits for, or ... */
	COL_GID,					/* ... the prepared branch */
	COL_COORDINATOR,			/* session: node and ...; wait: the blocker's node, NULL = this */
	COL_COORDINATOR_PID,		/* ... process of the transaction it is a branch of */
	COL_STARTED,				/* session: its transaction's, microseconds since 2000 */
	COL_AGE,					/* session: microseconds by this server's clock */
	COL_SERIAL,					/* session: of the gid it coordinates */
	COLUMNS
};

void		(*concord_lease_waits_hook) (ConcordPutWait put, void *arg) = NULL;
int			(*concord_lease_give_up_hook) (const char *wait, int *pid) = NULL;

typedef struct Answer
{
	ReturnSetInfo *rsinfo;
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS];
	bool	   *involved;		/* [MaxBackends] waits, or is waited for */
	List	   *prepared;		/* of Prepared *, read when first needed */
	bool		prepared_read;
} Answer;

typedef struct Prepared
{
	TransactionId xid;
	char	   *gid;
} Prepared;

static void
start_row(Answer *answer, const char *kind)
{
	memset(answer->nulls, true, sizeof(answer->nulls));
	answer->values[COL_KIND] = CStringGetTextDatum(kind);
	answer->nulls[COL_KIND] = false;
}

static void
set(Answer *answer, int column, Datum value)
{
	answer->values[column] = value;
	answer->nulls[column] = false;
}

static void
put_row(Answer *answer)
{
	tuplestore_putvalues(answer->rsinfo->setResult, answer->rsinfo->setDesc, answer->values,
						 answer->nulls);
}

/* ------------------------------------------------------------------ waits */

static char *
wait_name(int pid, TimestampTz began, const LOCKTAG *tag, LOCKMODE mode)
{
	return psprintf("%d/" INT64_FORMAT "/%x.%x.%x.%x.%x.%x/%d", pid, began, tag->locktag_field1,
					tag->locktag_field2, tag->locktag_field3, tag->locktag_field4,
					tag->locktag_type, tag->locktag_lockmethodid, mode);
}

static bool
parse_wait_name(const char *name, int *pid, TimestampTz *began, LOCKTAG *tag, LOCKMODE *mode)
{
	long long	began_us;
	unsigned int field[6];

	memset(tag, 0, sizeof(*tag));
	if (sscanf(name, "%d/%lld/%x.%x.%x.%x.%x.%x/%d", pid, &began_us, &field[0], &field[1],
			   &field[2], &field[3], &field[4], &field[5], mode) != 9)
		return false;
	*began = began_us;
	tag->locktag_field1 = field[0];
	tag->locktag_field2 = field[1];
	tag->locktag_field3 = field[2];
	tag->locktag_field4 = (uint16) field[3];
	tag->locktag_type = (uint8) field[4];
	tag->locktag_lockmethodid = (uint8) field[5];
	return tag->locktag_lockmethodid == DEFAULT_LOCKMETHOD ||
		tag->locktag_lockmethodid == USER_LOCKMETHOD;
}

static void
read_prepared(Answer *answer)
{
	MemoryContext caller = CurrentMemoryContext;

	answer->prepared_read = true;
	SPI_connect();
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute("SELECT transaction, gid FROM pg_catalog.pg_prepared_xact()", true, 0) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not list prepared transactions");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext spi = MemoryContextSwitchTo(caller);
		Prepared   *prepared = palloc(sizeof(Prepared));
		bool		isnull;

		prepared->xid = DatumGetTransactionId(SPI_getbinval(SPI_tuptable->vals[i],
															SPI_tuptable->tupdesc, 1, &isnull));
		prepared->gid = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2);
		prepared->gid = MemoryContextStrdup(caller, prepared->gid);
		answer->prepared = lappend(answer->prepared, prepared);
		MemoryContextSwitchTo(spi);
	}
	PopActiveSnapshot();
	SPI_finish();
}

/* The gid of the prepared transaction that has this lock; NULL if it is gone by now. */
static const char *
prepared_gid(Answer *answer, const LockInstanceData *lock)
{
	VirtualTransactionId vxid = concord_lock_vxid(lock);
	TransactionId xid;
	bool		more;
	ListCell   *lc;

	/* after a restart the number of the transaction itself stands in its place */
	if (VirtualTransactionIdIsRecoveredPreparedXact(vxid))
		xid = (TransactionId) vxid.localTransactionId;
	else
		xid = TwoPhaseGetXidByVirtualXID(vxid, &more);
	if (!answer->prepared_read)
		read_prepared(answer);
	foreach(lc, answer->prepared)
		if (((Prepared *) lfirst(lc))->xid == xid)
			return ((Prepared *) lfirst(lc))->gid;
	return NULL;
}

static void
involve(Answer *answer, int pid)
{
	PGPROC	   *proc = BackendPidGetProc(pid);
	int			procno = proc == NULL ? MaxBackends : (int) (proc - ProcGlobal->allProcs);

	if (procno < MaxBackends)
		answer->involved[procno] = true;
}

static void
put_wait(Answer *answer, const LockInstanceData *waiter, TimestampTz began,
		 const LockInstanceData *blocker)
{
	StringInfoData lock;
	const char *gid = NULL;

	if (blocker->leaderPid == 0 && (gid = prepared_gid(answer, blocker)) == NULL)
		return;
	initStringInfo(&lock);
	appendStringInfo(&lock, "%s on ",
					 GetLockmodeName(waiter->locktag.locktag_lockmethodid, waiter->waitLockMode));
	DescribeLockTag(&lock, &waiter->locktag);

	start_row(answer, "wait");
	set(answer, COL_PID, Int32GetDatum(waiter->leaderPid));
	set(answer, COL_WAIT, CStringGetTextDatum(wait_name(waiter->pid, began, &waiter->locktag,
														waiter->waitLockMode)));
	set(answer, COL_LOCK, CStringGetTextDatum(lock.data));
	if (gid != NULL)
		set(answer, COL_GID, CStringGetTextDatum(gid));
	else
		set(answer, COL_BLOCKER, Int32GetDatum(blocker->leaderPid));
	put_row(answer);
	involve(answer, waiter->leaderPid);
	if (gid == NULL)
		involve(answer, blocker->leaderPid);
}

static const LockInstanceData *
find_instance(const LockInstanceData *instances, int n, int pid)
{
	for (int i = 0; i < n; i++)
		if (instances[i].pid == pid)
			return &instances[i];
	return NULL;
}

/* Whom one process waits for: the same rules as pg_blocking_pids(), less what follows. */
static void
put_waits_of(Answer *answer, const BlockedProcsData *data, const BlockedProcData *blocked)
{
	const LockInstanceData *instances = &data->locks[blocked->first_lock];
	const int  *ahead = &data->waiter_pids[blocked->first_waiter];
	const LockInstanceData *waiter = find_instance(instances, blocked->num_locks, blocked->pid);
	PGPROC	   *proc = BackendPidGetProc(blocked->pid);
	const LOCKMASK *conflicts;
	LOCKMASK	named = 0;		/* what those named wait for, too */
	TimestampTz began;

	/*
	 * The moment is read after the lock's partition was left: if it is another wait's by now, this
	 * one is over, and the name is nobody's.
	 */
	if (waiter == NULL || proc == NULL)
		return;
	began = (TimestampTz) pg_atomic_read_u64(&proc->waitStart);
	conflicts = GetLockTagsMethodTable(&waiter->locktag)->conflictTab;

	/* from the nearest on: who is further ahead is often waited for by who is nearer */
	for (int i = blocked->num_waiters - 1; i >= 0; i--)
	{
		const LockInstanceData *other = find_instance(instances, blocked->num_locks, ahead[i]);

		if (other == NULL || other->leaderPid == waiter->leaderPid ||
			!(conflicts[waiter->waitLockMode] & LOCKBIT_ON(other->waitLockMode)) ||
			(named & LOCKBIT_ON(other->waitLockMode)))
			continue;
		put_wait(answer, waiter, began, other);
		named |= conflicts[other->waitLockMode];
	}
	for (int i = 0; i < blocked->num_locks; i++)
	{
		const LockInstanceData *other = &instances[i];

		if (other != waiter && other->leaderPid != waiter->leaderPid &&
			(conflicts[waiter->waitLockMode] & other->holdMask) && !(named & other->holdMask))
			put_wait(answer, waiter, began, other);
	}
}

static void
put_waits(Answer *answer)
{
	List	   *leaders = NIL;
	ListCell   *lc;

	for (int i = 0; i < MaxBackends; i++)
	{
		/* a look without a lock: whoever waits long is seen */
		PGPROC	   *proc = &ProcGlobal->allProcs[i];
		PGPROC	   *leader = proc->lockGroupLeader;

		if (proc->pid != 0 && proc->waitLock != NULL)
			leaders = list_append_unique_int(leaders, leader != NULL ? leader->pid : proc->pid);
	}
	foreach(lc, leaders)
	{
		BlockedProcsData *data;

		CHECK_FOR_INTERRUPTS();
		data = GetBlockerStatusData(lfirst_int(lc));
		for (int i = 0; i < data->nprocs; i++)
			put_waits_of(answer, data, &data->procs[i]);
	}
}

/* ------------------------------------------------------- waits for lease locks */

static void
put_lease_wait(int pid, const char *wait, const char *lock, int blocker_node, int blocker_pid,
			   void *arg)
{
	Answer	   *answer = arg;
	const ConcordMap *map = concord_map();
	const ConcordNode *node = concord_map_node(map, blocker_node);

	if (node == NULL)
		return;
	start_row(answer, "wait");
	set(answer, COL_PID, Int32GetDatum(-pid));
	set(answer, COL_WAIT, CStringGetTextDatum(wait));
	set(answer, COL_LOCK, CStringGetTextDatum(lock));
	set(answer, COL_BLOCKER, Int32GetDatum(blocker_pid));
	if (blocker_node != map->self)
		set(answer, COL_COORDINATOR, CStringGetTextDatum(NameStr(node->name)));
	put_row(answer);
	start_row(answer, "session");
	set(answer, COL_PID, Int32GetDatum(-pid));
	set(answer, COL_STARTED, Int64GetDatum(0));
	set(answer, COL_AGE, Int64GetDatum(0));
	set(answer, COL_COORDINATOR, CStringGetTextDatum(NameStr(map->self_name)));
	set(answer, COL_COORDINATOR_PID, Int32GetDatum(pid));
	put_row(answer);
	involve(answer, pid);
}

/* --------------------------------------------------------------- sessions */

static void
put_session(Answer *answer, int pid, TimestampTz started)
{
	start_row(answer, "session");
	set(answer, COL_PID, Int32GetDatum(pid));
	set(answer, COL_STARTED, Int64GetDatum(started));
	set(answer, COL_AGE, Int64GetDatum(started == 0 ? 0 : GetCurrentTimestamp() - started));
}

/* The number of the gid that a session coordinates, 0 = none. */
static uint64
serial_of(int procno, int pid)
{
	uint64		serial = 0;

	LWLockAcquire(ConcordSessionsLock, LW_SHARED);
	if (ConcordSessions[procno].pid == pid && ConcordSessions[procno].state != CONCORD_TXN_NONE)
		serial = ConcordSessions[procno].serial;
	LWLockRelease(ConcordSessionsLock);
	return serial;
}

/* Transactions with branches, branches, and whoever else waits or is waited for. */
static void
put_sessions(Answer *answer)
{
	int			nbackends = pgstat_fetch_stat_numbackends();

	for (int i = 0; i < MaxBackends; i++)
	{
		const ConcordWatched *watched = concord_watched(i);
		uint64		serial;

		if (watched == NULL)
			continue;
		serial = serial_of(i, watched->pid);
		put_session(answer, watched->pid, watched->started_at);
		if (watched->coordinator[0] != '\0')
		{
			set(answer, COL_COORDINATOR, CStringGetTextDatum(watched->coordinator));
			set(answer, COL_COORDINATOR_PID, Int32GetDatum(watched->coordinator_pid));
		}
		if (serial != 0)
			set(answer, COL_SERIAL, Int64GetDatum((int64) serial));
		put_row(answer);
		answer->involved[i] = false;
	}
	for (int n = 1; n <= nbackends; n++)
	{
		const PgBackendStatus *status = concord_backend_status(n);
		PGPROC	   *proc = BackendPidGetProc(status->st_procpid);
		int			procno = proc == NULL ? MaxBackends : (int) (proc - ProcGlobal->allProcs);

		if (procno < MaxBackends && answer->involved[procno])
		{
			put_session(answer, status->st_procpid, status->st_xact_start_timestamp);
			put_row(answer);
		}
	}
}

/* _wait_edges(): see commit/deadlock.sql for the columns. */
Datum
concord_wait_edges(PG_FUNCTION_ARGS)
{
	Answer		answer = {.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo};

	concord_require_preload();
	concord_require_node_role();
	(void) concord_map_member();
	InitMaterializedSRF(fcinfo, 0);
	answer.involved = palloc0(MaxBackends * sizeof(bool));

	start_row(&answer, "server");
	set(&answer, COL_INCARNATION,
		CStringGetTextDatum(psprintf("%016llx", (unsigned long long) ConcordShared->incarnation)));
	put_row(&answer);
	put_waits(&answer);
	if (concord_lease_waits_hook != NULL)
		concord_lease_waits_hook(put_lease_wait, &answer);
	put_sessions(&answer);
	return (Datum) 0;
}

/* ---------------------------------------------------------------- giving up */

/* Ends the wait if it is still the same (D4); the detail is for the error it becomes. */
static bool
end_wait(int pid, TimestampTz began, const LOCKTAG *tag, LOCKMODE mode, const char *detail)
{
	uint32		hash = LockTagHashCode(tag);
	LWLock	   *partition = LockHashPartitionLock(hash);
	PGPROC	   *proc = BackendPidGetProc(pid);
	int			procno = proc == NULL ? MaxBackends : (int) (proc - ProcGlobal->allProcs);
	bool		same;

	if (procno >= MaxBackends)
		return false;
	LWLockAcquire(partition, LW_EXCLUSIVE);

	/*
	 * A process that waits for this lock cannot stop waiting, nor end, while we hold its
	 * partition; one that waits for another lock has another tag.
	 */
	same = proc->pid == pid && proc->waitLock != NULL &&
		proc->waitStatus == PROC_WAIT_STATUS_WAITING && proc->waitLockMode == mode &&
		memcmp(&proc->waitLock->tag, tag, sizeof(LOCKTAG)) == 0 &&
		(TimestampTz) pg_atomic_read_u64(&proc->waitStart) == began;
	if (same)
	{
		ConcordWatched *victim = &ConcordDeadlockShared->watched[procno];

		strlcpy(victim->victim_detail, detail, sizeof(victim->victim_detail));
		victim->victim_pid = pid;
		RemoveFromWaitQueue(proc, hash);
		SetLatch(&proc->procLatch);
	}
	LWLockRelease(partition);
	return same;
}

/* Of a lease lock.  The error is raised by who waits, with the detail that is put here before. */
static bool
end_lease_wait(const char *wait, const char *detail)
{
	int			pid;
	int			procno = concord_lease_give_up_hook != NULL ?
		concord_lease_give_up_hook(wait, &pid) : -1;
	ConcordWatched *victim;

	if (procno < 0 || procno >= MaxBackends)
		return false;
	victim = &ConcordDeadlockShared->watched[procno];
	strlcpy(victim->victim_detail, detail, sizeof(victim->victim_detail));
	victim->victim_pid = pid;
	SetLatch(concord_procno_latch(procno));
	return true;
}

/* _give_up(wait text, detail text) -> boolean */
Datum
concord_give_up(PG_FUNCTION_ARGS)
{
	char	   *wait = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *detail = text_to_cstring(PG_GETARG_TEXT_PP(1));
	bool		lease = strncmp(wait, CONCORD_LEASE_WAIT, strlen(CONCORD_LEASE_WAIT)) == 0;
	int			pid;
	TimestampTz began;
	LOCKTAG		tag;
	LOCKMODE	mode;

	concord_require_preload();
	concord_require_node_role();
	(void) concord_map_member();
	if (!lease && !parse_wait_name(wait, &pid, &began, &tag, &mode))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid name of a wait")));
	detail[pg_mbcliplen(detail, (int) strlen(detail), CONCORD_VICTIM_DETAIL - 1)] = '\0';
	if (lease ? !end_lease_wait(wait, detail) : !end_wait(pid, began, &tag, mode, detail))
		PG_RETURN_BOOL(false);
	concord_count(CONCORD_COUNT_DEADLOCKS);
	PG_RETURN_BOOL(true);
}
