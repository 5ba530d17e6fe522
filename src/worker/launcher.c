/*
 * launcher.c
 *		Finds the databases that are members of a cluster and keeps a worker running in each.
 *
 * WHAT: one process a server, connected to no database.  It knows from pg_database which
 * databases there are; whether one is a member only a process connected to it can tell.  So it
 * starts a worker in one database after the other; the worker looks, ends at once where there
 * is nothing to do, and otherwise stays as the database's maintenance worker.
 *
 * PROMISE: an attached member that may be connected to gets a worker within a second of the
 * commit that made it one, and again after its worker ended for whatever reason, later with
 * each failure in a row (RETRY_MIN_MS to RETRY_MAX_MS).  Nothing here is needed for
 * correctness: a server without a launcher lacks only upkeep, and the doctor says so.
 *
 * STATES of a database in the launcher's own table
 *		unknown --start_worker--> started --reap (it stays: RUNNING)--> started
 *		started --reap (it ended: not a member)--> looked --rescan--> unknown
 *		started --reap (it ended otherwise)--> unknown, not before next_start
 *
 * INVARIANTS
 * L1 At most one look is under way, unless one takes longer than LOOK_PATIENCE_MS (it waits for a
 *    lock on its database): then others get their turn.
 * L2 The launcher's table is only a memory.  A new launcher finds running workers by their entries
 *    and looks at everything else again.
 *
 * An ERROR ends the launcher; the postmaster starts another after RESTART_SECONDS.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "catalog/pg_database.h"
#include "commit/deadlock.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/clock.h"
#include "worker/entry.h"
#include "worker/hold.h"
#include "worker/worker.h"

#define RESTART_SECONDS		5
#define SCAN_INTERVAL_MS	60000	/* for databases that appeared without a word */
#define LOOK_PATIENCE_MS	10000
#define BIRTH_TIMEOUT_MS	30000	/* a worker of a former launcher that never came to life */
#define RETRY_MIN_MS		1000
#define RETRY_MAX_MS		60000
#define NO_SLOT_RETRY_MS	5000
#define HOLD_CHECK_MS		1000

/* pg_database.datconnlimit of a database whose DROP was interrupted */
#define INVALID_DATABASE	(-2)

typedef struct LauncherDatabase
{
	Oid			dboid;			/* hash key */
	char		name[NAMEDATALEN];
	bool		present;		/* seen by the last scan */
	bool		looked;			/* its worker found no member */
	bool		started;		/* a worker was started and is not known to have ended */
	bool		look_again;		/* what it finds may be out of date: rescan came meanwhile */
	bool		was_held;		/* when last looked at: pg_database is read before it is started */
	BackgroundWorkerHandle *handle; /* NULL: none, or started by a former launcher */
	int64		started_at;
	int64		next_start;		/* not before */
	int			failures;		/* in a row */
} LauncherDatabase;

static HTAB *databases;
static Oid	looking_at = InvalidOid;	/* L1 */
static int64 next_scan = 0;
static bool no_slot_logged = false;
static bool full_logged = false;

static LauncherDatabase *
remember(Oid dboid, const char *name)
{
	bool		found;
	LauncherDatabase *db = hash_search(databases, &dboid, HASH_ENTER, &found);

	if (!found)
	{
		memset(db, 0, sizeof(*db));
		db->dboid = dboid;
	}
	if (name != NULL)
		strlcpy(db->name, name, NAMEDATALEN);
	return db;
}

/*
 * Forgets databases that are gone, and the entries of those that are no members.  A worker in a
 * database that may not have one (a template, say) is told to go.
 */
static void
sweep(void)
{
	HASH_SEQ_STATUS iterator;
	LauncherDatabase *db;

	hash_seq_init(&iterator, databases);
	while ((db = hash_seq_search(&iterator)) != NULL)
	{
		if (db->present)
		{
			if (db->looked)
				concord_entry_forget(db->dboid, false);
		}
		else if (db->started)
			concord_entry_stop_worker(db->dboid);
		else
		{
			concord_entry_forget(db->dboid, false);
			hash_search(databases, &db->dboid, HASH_REMOVE, NULL);
		}
	}
}

/* Reads pg_database: which databases may have a worker. */
static void
scan_databases(void)
{
	HASH_SEQ_STATUS iterator;
	LauncherDatabase *db;
	Relation	relation;
	TableScanDesc scan;
	HeapTuple	tuple;

	hash_seq_init(&iterator, databases);
	while ((db = hash_seq_search(&iterator)) != NULL)
		db->present = false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	pgstat_report_activity(STATE_RUNNING, "scanning pg_database");
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(relation, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (form->datallowconn && !form->datistemplate && form->datconnlimit != INVALID_DATABASE)
			remember(form->oid, NameStr(form->datname))->present = true;
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	CommitTransactionCommand();
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);

	next_scan = concord_clock_ms() + SCAN_INTERVAL_MS;
	sweep();
}

/* A worker of ours has ended: what did it find, and when is it to be started again? */
static void
worker_ended(LauncherDatabase *db, const ConcordEntryView *view)
{
	int64		now = concord_clock_ms();

	if (db->handle != NULL)
		pfree(db->handle);
	db->handle = NULL;
	db->started = false;
	db->was_held = view->held_by != 0;
	db->next_start = now;
	if (looking_at == db->dboid)
		looking_at = InvalidOid;

	if (!view->exists || view->retry_at == 0)
		next_scan = now;		/* it was held, and perhaps dropped or renamed */
	else if (view->retry_at == DT_NOEND)
	{
		db->looked = !db->look_again;
		db->failures = 0;
		concord_entry_forget(db->dboid, false);
	}
	else if (view->held_by == 0)
	{
		if (now - db->started_at >= RETRY_MAX_MS)
			db->failures = 0;
		db->failures++;
		db->next_start = now + concord_backoff_ms(db->failures, RETRY_MIN_MS, RETRY_MAX_MS);
		concord_entry_start_failed(db->dboid, false,
								   TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
															   db->next_start - now));
	}
	if (!db->present)
		next_scan = now;		/* have it swept */
}

/*
 * Has the worker ended?  Its entry says so first, but its slot is free only when the postmaster
 * knows too, and then wakes us.  Workers of a former launcher have but their entry.
 */
static bool
has_ended(LauncherDatabase *db, ConcordEntryView *view)
{
	pid_t		pid;
	bool		gone;

	concord_entry_view(db->dboid, view);
	if (db->handle != NULL)
		gone = GetBackgroundWorkerPid(db->handle, &pid) == BGWH_STOPPED;
	else
		gone = view->state == CONCORD_WORKER_NONE ||
			(view->worker_pid == 0 && concord_clock_ms() - db->started_at > BIRTH_TIMEOUT_MS);
	if (gone && view->state == CONCORD_WORKER_STARTING && view->worker_pid == 0)
	{
		/* it never came to life */
		concord_entry_start_failed(db->dboid, false, GetCurrentTimestamp());
		concord_entry_view(db->dboid, view);
	}
	return gone && view->state == CONCORD_WORKER_NONE;
}

static void
reap_workers(void)
{
	HASH_SEQ_STATUS iterator;
	LauncherDatabase *db;

	hash_seq_init(&iterator, databases);
	while ((db = hash_seq_search(&iterator)) != NULL)
	{
		ConcordEntryView view;

		if (!db->started)
			continue;
		if (has_ended(db, &view))
			worker_ended(db, &view);
		else if (looking_at == db->dboid &&
				 (view.state == CONCORD_WORKER_RUNNING ||
				  concord_clock_ms() - db->started_at > LOOK_PATIENCE_MS))
			looking_at = InvalidOid;
	}
}

/* H2: frees what is held by backends that no longer exist.  Returns whether anything is held. */
static bool
release_dead_holds(void)
{
	int			pids[CONCORD_MAX_DATABASES];
	int			n = concord_entry_holders(pids);

	for (int i = 0; i < n; i++)
		if (BackendPidGetProc(pids[i]) == NULL)
			concord_entry_release(pids[i]);
	return n > 0;
}

/* Somebody committed a change of membership: everything without a worker is looked at again. */
static void
take_rescan(void)
{
	HASH_SEQ_STATUS iterator;
	LauncherDatabase *db;
	bool		rescan;

	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	rescan = ConcordShared->rescan;
	ConcordShared->rescan = false;
	LWLockRelease(ConcordShared->lock);
	if (!rescan)
		return;

	hash_seq_init(&iterator, databases);
	while ((db = hash_seq_search(&iterator)) != NULL)
	{
		db->look_again = db->started;
		if (db->started)
			continue;
		db->looked = false;
		db->failures = 0;
		db->next_start = 0;
	}
	next_scan = 0;
}

/* Asks the postmaster for the worker of a database whose entry is STARTING. */
static bool
register_worker(LauncherDatabase *db)
{
	BackgroundWorker worker;
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	bool		registered;

	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_name, BGW_MAXLEN, "pg_concord worker: %s", db->name);
	snprintf(worker.bgw_type, BGW_MAXLEN, "pg_concord worker");
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "pg_concord");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "concord_worker_main");
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(db->dboid);
	worker.bgw_notify_pid = MyProcPid;
	registered = RegisterDynamicBackgroundWorker(&worker, &db->handle);
	MemoryContextSwitchTo(old);
	return registered;
}

/* No worker slot is free: said once, shown by the doctor, tried again. */
static void
no_slot(LauncherDatabase *db)
{
	db->next_start = concord_clock_ms() + NO_SLOT_RETRY_MS;
	concord_entry_start_failed(db->dboid, true,
							   TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														   NO_SLOT_RETRY_MS));
	if (!no_slot_logged)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no free worker slot for database \"%s\"", db->name),
				 errdetail("The cluster's upkeep is not done there until there is one."),
				 errhint("Consider increasing the configuration parameter \"%s\".",
						 "max_worker_processes")));
	no_slot_logged = true;
}

static void
start_worker(LauncherDatabase *db)
{
	db->started_at = concord_clock_ms();
	switch (concord_entry_start(db->dboid))
	{
		case CONCORD_START_HELD:
			return;
		case CONCORD_START_NO_ENTRY:
			db->next_start = db->started_at + SCAN_INTERVAL_MS;
			if (!full_logged)
				ereport(LOG,
						(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						 errmsg("pg_concord cannot look after database \"%s\"", db->name),
						 errdetail("A server can have at most %d member databases.",
								   CONCORD_MAX_DATABASES)));
			full_logged = true;
			return;
		case CONCORD_START_EXISTS:	/* L2 */
			db->started = true;
			return;
		case CONCORD_START_GRANTED:
			break;
	}
	if (!register_worker(db))
	{
		no_slot(db);
		return;
	}
	no_slot_logged = false;
	db->started = true;
	db->look_again = false;
	looking_at = db->dboid;
}

/*
 * Starts the next worker that is due.  Databases with an entry, where a member was or where a
 * membership was just committed, go before the others.
 */
static void
start_next(void)
{
	HASH_SEQ_STATUS iterator;
	LauncherDatabase *db;
	LauncherDatabase *next = NULL;
	bool		next_is_known = false;

	if (OidIsValid(looking_at))
		return;
	hash_seq_init(&iterator, databases);
	while ((db = hash_seq_search(&iterator)) != NULL)
	{
		ConcordEntryView view;

		if (!db->present || db->looked || db->started || db->next_start > concord_clock_ms())
			continue;
		concord_entry_view(db->dboid, &view);
		if (view.held_by != 0)
		{
			db->was_held = true;
			continue;
		}
		if (db->was_held)
		{
			db->was_held = false;
			next_scan = 0;
			continue;
		}
		if (next == NULL || (view.exists && !next_is_known))
		{
			next = db;
			next_is_known = view.exists;
		}
	}
	if (next != NULL)
		start_worker(next);
}

/* When is there something to do without being woken? */
static long
time_to_sleep(bool held)
{
	int64		now = concord_clock_ms();
	int64		until = next_scan;
	HASH_SEQ_STATUS iterator;
	LauncherDatabase *db;

	if (held)
		until = Min(until, now + HOLD_CHECK_MS);
	hash_seq_init(&iterator, databases);
	while ((db = hash_seq_search(&iterator)) != NULL)
	{
		if (db->dboid == looking_at)
			until = Min(until, db->started_at + LOOK_PATIENCE_MS + 1);
		else if (db->started && db->handle == NULL)
			until = Min(until, now + HOLD_CHECK_MS);
		else if (db->present && !db->started && !db->looked)
			until = Min(until, OidIsValid(looking_at) || held ?
						now + HOLD_CHECK_MS : db->next_start);
	}
	return (long) Max(until - now, 0);
}

static void
launcher_exit(int code, Datum arg)
{
	(void) code;
	(void) arg;
	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	if (ConcordShared->launcher_pid == MyProcPid)
	{
		ConcordShared->launcher_pid = 0;
		ConcordShared->launcher_procno = -1;
	}
	LWLockRelease(ConcordShared->lock);
}

/* Sets up the process and finds workers that outlived a former launcher (L2). */
static void
launcher_begin(void)
{
	HASHCTL		info;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, SIG_IGN);	/* there is never anything to cancel */
	BackgroundWorkerUnblockSignals();

	on_shmem_exit(launcher_exit, (Datum) 0);
	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	ConcordShared->launcher_pid = MyProcPid;
	ConcordShared->launcher_procno = concord_my_procno();
	LWLockRelease(ConcordShared->lock);

	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_activity(STATE_IDLE, NULL);

	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(Oid);
	info.entrysize = sizeof(LauncherDatabase);
	databases = hash_create("pg_concord databases", 64, &info, HASH_ELEM | HASH_BLOBS);
	for (int i = 0; i < CONCORD_MAX_DATABASES; i++)
	{
		Oid			dboid;
		ConcordEntryView view;
		LauncherDatabase *db;

		LWLockAcquire(ConcordShared->lock, LW_SHARED);
		dboid = ConcordShared->databases[i].dboid;
		LWLockRelease(ConcordShared->lock);
		concord_entry_view(dboid, &view);
		if (!OidIsValid(dboid) || view.state == CONCORD_WORKER_NONE)
			continue;
		db = remember(dboid, NULL);
		db->started = true;
		db->started_at = concord_clock_ms();
	}
}

void
concord_launcher_main(Datum arg)
{
	(void) arg;
	launcher_begin();
	for (;;)
	{
		bool		held;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}

		held = release_dead_holds();
		reap_workers();
		take_rescan();
		if (next_scan <= concord_clock_ms())
			scan_databases();
		start_next();
		concord_deadlock_serve();

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 time_to_sleep(held), concord_wait_event("ConcordLauncherMain"));
	}
}

void
concord_worker_init(void)
{
	BackgroundWorker launcher;

	concord_hold_init();

	memset(&launcher, 0, sizeof(launcher));
	snprintf(launcher.bgw_name, BGW_MAXLEN, "pg_concord launcher");
	snprintf(launcher.bgw_type, BGW_MAXLEN, "pg_concord launcher");
	snprintf(launcher.bgw_library_name, BGW_MAXLEN, "pg_concord");
	snprintf(launcher.bgw_function_name, BGW_MAXLEN, "concord_launcher_main");
	launcher.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	launcher.bgw_start_time = BgWorkerStart_RecoveryFinished;
	launcher.bgw_restart_time = RESTART_SECONDS;
	RegisterBackgroundWorker(&launcher);
}
