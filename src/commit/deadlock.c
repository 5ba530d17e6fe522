/*
 * deadlock.c
 *		Deadlocks between nodes: who notices that he waits, and what a victim is told.
 *
 * See deadlock.h for the whole.  Here are
 *	- the timer of sessions that take part in distributed transactions;
 *	- the start of a database's detector by the launcher;
 *	- the text of the victim's error.  The error itself is raised by the lock manager, in the
 *	  victim's own process, as for a deadlock within one server: so it is 40P01 wherever a lock
 *	  can be waited for, in EXCEPTION blocks, while parsing and at COMMIT too.  It only knows
 *	  nothing of nodes.
 *
 * THE TIMER is started with a transaction's first branch, and in a branch's session with its BEGIN
 * or, without one, with its statement.
 * Its handler starts it again as long as a transaction runs, and an error stops it with all other
 * timers, so a ROLLBACK TO starts it, too.  It runs in a signal handler: it reads its own
 * process's entry, and sets a flag and a latch.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "commit/deadlock.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "peer/peer.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#define PEER_PREFIX			"concord/"
#define BIRTH_TIMEOUT_MS	10000	/* a detector that never came to life is started again */

ConcordDeadlocks *ConcordDeadlockShared = NULL;

static TimeoutId watch_timer;
static ConcordDetector *detector = NULL;	/* this database's */
static bool watching = false;	/* this session has a timer */
static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;
static emit_log_hook_type previous_emit_log = NULL;
static ExecutorRun_hook_type previous_run = NULL;
static ProcessUtility_hook_type previous_utility = NULL;

/* --------------------------------------------------------- shared memory */

static Size
shared_size(void)
{
	return add_size(offsetof(ConcordDeadlocks, watched),
					mul_size(sizeof(ConcordWatched), MaxBackends));
}

static void
deadlock_request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche("pg_concord deadlocks", 1);
}

static void
deadlock_startup(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	ConcordDeadlockShared = ShmemInitStruct("pg_concord deadlocks", shared_size(), &found);
	if (!found)
	{
		memset(ConcordDeadlockShared, 0, shared_size());
		ConcordDeadlockShared->lock = &(GetNamedLWLockTranche("pg_concord deadlocks"))->lock;
		for (int i = 0; i < CONCORD_MAX_DATABASES; i++)
		{
			ConcordDeadlockShared->detectors[i].procno = -1;
			pg_atomic_init_u32(&ConcordDeadlockShared->detectors[i].wanted, 0);
		}
	}
	LWLockRelease(AddinShmemInitLock);
}

ConcordWatched *
concord_watched(int procno)
{
	ConcordWatched *watched = &ConcordDeadlockShared->watched[procno];
	PGPROC	   *proc = &ProcGlobal->allProcs[procno];

	return watched->pid != 0 && watched->pid == proc->pid &&
		LocalTransactionIdIsValid(watched->lxid) && watched->lxid == concord_proc_lxid(proc) ?
		watched : NULL;
}

/* ------------------------------------------------------------- the timer */

static void
want_detector(void)
{
	int			procno = detector->procno;

	pg_atomic_write_u32(&detector->wanted, 1);
	pg_memory_barrier();
	if (procno < 0)
		procno = ConcordShared->launcher_procno;
	/* whoever has that latch by now only wakes for nothing */
	if (procno >= 0)
		SetLatch(concord_procno_latch(procno));
}

/* Signal handler. */
static void
watch_timer_fired(void)
{
	int			again_ms = concord_deadlock_timeout_ms;

	if (MyProc == NULL || !LocalTransactionIdIsValid(concord_proc_lxid(MyProc)))
		return;					/* the next transaction starts it again */
	if (MyProc->waitLock != NULL && detector != NULL)
	{
		int64		waited_ms = (GetCurrentTimestamp() -
								 (TimestampTz) pg_atomic_read_u64(&MyProc->waitStart)) / 1000;

		if (waited_ms >= concord_deadlock_timeout_ms)
			want_detector();
		else
			again_ms = Max(1, concord_deadlock_timeout_ms - (int) Max(waited_ms, 0));
	}
	enable_timeout_after(watch_timer, again_ms);
}

/* This database's entry; NULL when the table is full. */
static ConcordDetector *
find_detector(void)
{
	ConcordDetector *found = NULL;

	LWLockAcquire(ConcordDeadlockShared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < CONCORD_MAX_DATABASES; i++)
	{
		ConcordDetector *candidate = &ConcordDeadlockShared->detectors[i];

		if (candidate->dboid == MyDatabaseId)
		{
			found = candidate;
			break;
		}
		/* an entry nobody uses now: its sessions, if there are any, find another at next BEGIN */
		if (candidate->pid == 0 && candidate->started_at == 0 &&
			(found == NULL || (OidIsValid(found->dboid) && !OidIsValid(candidate->dboid))))
			found = candidate;
	}
	if (found != NULL && found->dboid != MyDatabaseId)
	{
		found->dboid = MyDatabaseId;
		pg_atomic_write_u32(&found->wanted, 0);
	}
	LWLockRelease(ConcordDeadlockShared->lock);
	return found;
}

void
concord_deadlock_want(void)
{
	if (ConcordDeadlockShared == NULL)
		return;
	if (detector == NULL || detector->dboid != MyDatabaseId)
		detector = find_detector();
	if (detector != NULL)
		want_detector();
}

/* Enters the running transaction and starts the timer, if it does not run. */
static void
watch(const char *coordinator, int coordinator_pid)
{
	ConcordWatched *mine = &ConcordDeadlockShared->watched[concord_my_procno()];

	if (!watching)
		watch_timer = RegisterTimeout(USER_TIMEOUT, watch_timer_fired);
	watching = true;
	if (detector == NULL || detector->dboid != MyDatabaseId)
		detector = find_detector();

	mine->victim_pid = 0;		/* of an earlier transaction: another error came first */
	mine->lxid = InvalidLocalTransactionId;
	pg_write_barrier();
	mine->pid = MyProcPid;
	mine->started_at = GetCurrentTransactionStartTimestamp();
	strlcpy(mine->coordinator, coordinator, NAMEDATALEN);
	mine->coordinator_pid = coordinator_pid;
	pg_write_barrier();
	mine->lxid = concord_proc_lxid(MyProc);

	if (!get_timeout_active(watch_timer))
		enable_timeout_after(watch_timer, concord_deadlock_timeout_ms);
}

/* The transaction's first branch: unless it is a branch itself, this is the coordinator. */
static void
watch_coordinator(void)
{
	if (ConcordDeadlockShared != NULL && concord_watched(concord_my_procno()) == NULL)
		watch("", 0);
}

/* A transaction begins in a session that another node's session has opened (D1), if it is one. */
static void
watch_branch(void)
{
	const char *name = application_name + strlen(PEER_PREFIX);
	const char *slash;
	char		node[NAMEDATALEN];

	if (strncmp(application_name, PEER_PREFIX, strlen(PEER_PREFIX)) != 0 ||
		ConcordDeadlockShared == NULL)
		return;
	slash = strrchr(name, '/');
	if (slash == NULL || slash == name || slash - name >= NAMEDATALEN || atoi(slash + 1) <= 0)
		return;
	memcpy(node, name, slash - name);
	node[slash - name] = '\0';
	watch(node, atoi(slash + 1));
}

static void
watch_subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent,
					   void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && watching && !proc_exit_inprogress &&
		concord_watched(concord_my_procno()) != NULL && !get_timeout_active(watch_timer))
		enable_timeout_after(watch_timer, concord_deadlock_timeout_ms);
}

/* ----------------------------------------------------- the victim's error */

/* What this process was told about the wait that was ended, once; NULL when nothing. */
static const char *
take_victim_detail(void)
{
	ConcordWatched *mine;

	if (ConcordDeadlockShared == NULL || MyProc == NULL || concord_my_procno() >= MaxBackends)
		return NULL;
	mine = &ConcordDeadlockShared->watched[concord_my_procno()];
	if (mine->victim_pid != MyProcPid)
		return NULL;
	mine->victim_pid = 0;
	return mine->victim_detail;
}

#define VICTIM_MESSAGE "deadlock detected among nodes"
#define VICTIM_HINT "Repeat the transaction."

/* Within a statement: before any EXCEPTION block sees the error. */
static void
describe_to_handlers(void *arg)
{
	const char *detail;

	if (geterrcode() != ERRCODE_T_R_DEADLOCK_DETECTED)
		return;
	detail = take_victim_detail();
	if (detail == NULL)
		return;
	errmsg(VICTIM_MESSAGE);
	errdetail_internal("%s", detail);
	errdetail_log("%s", detail);
	errhint(VICTIM_HINT);
}

/*
 * Anywhere else, as in the parser: on its way to log and client.  With log_min_messages above ERROR
 * it does not come this way; then the client sees PostgreSQL's own words for 40P01.
 */
static void
describe_to_client(ErrorData *edata)
{
	if (edata->elevel >= ERROR && edata->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED)
	{
		const char *detail = take_victim_detail();

		if (detail != NULL)
		{
			edata->message = MemoryContextStrdup(edata->assoc_context, VICTIM_MESSAGE);
			edata->detail = MemoryContextStrdup(edata->assoc_context, detail);
			edata->detail_log = NULL;
			edata->hint = MemoryContextStrdup(edata->assoc_context, VICTIM_HINT);
		}
	}
	if (previous_emit_log)
		previous_emit_log(edata);
}

static void
run_statement(QueryDesc *query, ScanDirection direction, uint64 count, bool execute_once)
{
	if (!IsTransactionBlock() && ConcordDeadlockShared != NULL &&
		concord_watched(concord_my_procno()) == NULL)
		watch_branch();
#if PG_VERSION_NUM >= 180000
	if (previous_run)
		previous_run(query, direction, count);
	else
		standard_ExecutorRun(query, direction, count);
#else
	if (previous_run)
		previous_run(query, direction, count, execute_once);
	else
		standard_ExecutorRun(query, direction, count, execute_once);
#endif
}

static void
run_described(QueryDesc *query, ScanDirection direction, uint64 count, bool execute_once)
{
	ErrorContextCallback callback = {error_context_stack, describe_to_handlers, NULL};

	error_context_stack = &callback;
	run_statement(query, direction, count, execute_once);
	error_context_stack = callback.previous;
}

#if PG_VERSION_NUM >= 180000
static void
deadlock_executor_run(QueryDesc *query, ScanDirection direction, uint64 count)
{
	if (watching)
		run_described(query, direction, count, true);
	else
		run_statement(query, direction, count, true);
}
#else
static void
deadlock_executor_run(QueryDesc *query, ScanDirection direction, uint64 count, bool execute_once)
{
	if (watching)
		run_described(query, direction, count, execute_once);
	else
		run_statement(query, direction, count, execute_once);
}
#endif

static void
deadlock_utility(PlannedStmt *statement, const char *source, bool read_only_tree,
				 ProcessUtilityContext context, ParamListInfo params,
				 QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	ErrorContextCallback callback = {error_context_stack, describe_to_handlers, NULL};

	if (IsA(statement->utilityStmt, TransactionStmt))
	{
		TransactionStmtKind kind = ((TransactionStmt *) statement->utilityStmt)->kind;

		if (kind == TRANS_STMT_BEGIN || kind == TRANS_STMT_START)
			watch_branch();
	}
	if (watching)
		error_context_stack = &callback;
	if (previous_utility)
		previous_utility(statement, source, read_only_tree, context, params, environment, dest,
						 completion);
	else
		standard_ProcessUtility(statement, source, read_only_tree, context, params, environment,
								dest, completion);
	error_context_stack = callback.previous;
}

/* ---------------------------------------------------------- the launcher */

static bool
is_held(Oid dboid)
{
	ConcordDatabase *entry;
	bool		held;

	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	entry = concord_shmem_database(dboid, false);
	held = entry != NULL && entry->held_by != 0;
	LWLockRelease(ConcordShared->lock);
	return held;
}

static bool
start_detector(Oid dboid)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_name, BGW_MAXLEN, "pg_concord deadlock detector");
	snprintf(worker.bgw_type, BGW_MAXLEN, "pg_concord deadlock detector");
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "pg_concord");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "concord_detector_main");
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(dboid);
	return RegisterDynamicBackgroundWorker(&worker, NULL);
}

/* For the doctor. */
static void
note_no_slot(Oid dboid, bool no_slot)
{
	ConcordDatabase *entry;

	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	entry = concord_shmem_database(dboid, false);
	if (entry != NULL)
		entry->no_detector_slot = no_slot;
	LWLockRelease(ConcordShared->lock);
}

void
concord_deadlock_serve(void)
{
	static bool no_slot_logged = false;

	for (int i = 0; i < CONCORD_MAX_DATABASES; i++)
	{
		ConcordDetector *wanted = &ConcordDeadlockShared->detectors[i];
		TimestampTz now;
		Oid			dboid = InvalidOid;

		if (pg_atomic_read_u32(&wanted->wanted) == 0)
			continue;
		now = GetCurrentTimestamp();
		LWLockAcquire(ConcordDeadlockShared->lock, LW_EXCLUSIVE);
		if (wanted->pid == 0 &&
			now >= TimestampTzPlusMilliseconds(wanted->started_at, BIRTH_TIMEOUT_MS))
		{
			dboid = wanted->dboid;
			wanted->started_at = now;
		}
		LWLockRelease(ConcordDeadlockShared->lock);
		if (!OidIsValid(dboid))
			continue;
		if (!is_held(dboid) && start_detector(dboid))
		{
			no_slot_logged = false;
			note_no_slot(dboid, false);
			continue;
		}
		/* the next timer asks again */
		LWLockAcquire(ConcordDeadlockShared->lock, LW_EXCLUSIVE);
		wanted->started_at = 0;
		LWLockRelease(ConcordDeadlockShared->lock);
		if (!is_held(dboid))
			note_no_slot(dboid, true);
		if (!is_held(dboid) && !no_slot_logged)
		{
			no_slot_logged = true;
			ereport(LOG,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("no free worker slot for the deadlock detector"),
					 errdetail("Deadlocks between nodes are not broken until there is one."),
					 errhint("Consider increasing the configuration parameter \"%s\".",
							 "max_worker_processes")));
		}
	}
}

void
concord_deadlock_init(void)
{
	previous_emit_log = emit_log_hook;
	emit_log_hook = describe_to_client;
	previous_run = ExecutorRun_hook;
	ExecutorRun_hook = deadlock_executor_run;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = deadlock_utility;
	concord_first_branch_hook = watch_coordinator;
	RegisterSubXactCallback(watch_subxact_callback, NULL);

	if (process_shared_preload_libraries_in_progress)
	{
		previous_request_hook = shmem_request_hook;
		shmem_request_hook = deadlock_request;
		previous_startup_hook = shmem_startup_hook;
		shmem_startup_hook = deadlock_startup;
	}
}
