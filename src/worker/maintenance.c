/*
 * maintenance.c
 *		The maintenance worker of one member database: its process, loop and duties.
 *
 * WHAT: looks whether the database is an attached member of a cluster (or joining one) and ends if
 * it is not.  Else it stays, and in each turn of its loop runs the duties that are due, serves
 * the links to the peers, and waits for the latch, a peer's answer or the next duty.
 *
 * PROMISE: no duty stops another: an ERROR is logged, the transaction aborted, and the duty tried
 * again later, later each time.  No peer is waited for: what is asked over the network is
 * answered in a later turn.  No local lock is waited for longer than LOCK_TIMEOUT_MS.
 *
 * INVARIANTS
 * M1 A duty runs outside a transaction and opens its own; it is over when the duty returns.
 * M2 The worker is the bootstrap superuser and runs only this extension's functions, with a
 *    search_path of pg_catalog, whatever the database's settings say.
 * M3 CHECK_FOR_INTERRUPTS runs in each turn, so SIGTERM ends the process, and barriers and a
 *    shutdown are never held up by it.
 *
 * MEMORY: ConcordWorker.context for what lasts, ConcordWorker.cycle_context is reset each turn.
 *
 * What a crash leaves: nothing of the worker's own; the launcher starts it again.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/settings.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "peer/peer.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/uuid.h"
#include "utils/wait_event.h"
#include "worker/clock.h"
#include "worker/duty.h"
#include "worker/entry.h"
#include "worker/worker.h"

#define LOCK_TIMEOUT		"500ms"
#define SYNC_INTERVAL_MS	5000
#define MAP_INTERVAL_MS		1000
#define JOIN_INTERVAL_MS	1000
#define SHUTDOWN_INTERVAL_MS	1000
#define RESOLVE_INTERVAL_MS	1000
#define FORGET_INTERVAL_MS	60000
#define REGISTRAR_INTERVAL_MS	1000
#define RETRY_MAX_MS		60000
#define FAILED_TURN_MS		1000

typedef struct ConcordDuty
{
	const char *name;
	void		(*run) (void *unused);
	int			(*interval_ms) (void);
	int64		due;			/* concord_clock_ms() */
	int			failures;		/* in a row */
} ConcordDuty;

static void duty_sync(void *unused);

static int
sync_interval_ms(void)
{
	return SYNC_INTERVAL_MS;
}

static int
heartbeat_interval_ms(void)
{
	return concord_heartbeat_interval_ms;
}

/* fine enough to see a silence in time */
static int
health_interval_ms(void)
{
	return Max(10, Min(concord_suspect_after_ms, concord_down_after_ms) / 4);
}

static int
map_interval_ms(void)
{
	return MAP_INTERVAL_MS;
}

static int
join_interval_ms(void)
{
	return JOIN_INTERVAL_MS;
}

static int
shutdown_interval_ms(void)
{
	return SHUTDOWN_INTERVAL_MS;
}

static int
resolve_interval_ms(void)
{
	return RESOLVE_INTERVAL_MS;
}

static int
forget_interval_ms(void)
{
	return FORGET_INTERVAL_MS;
}

static int
registrar_interval_ms(void)
{
	return REGISTRAR_INTERVAL_MS;
}

static ConcordDuty duties[CONCORD_DUTIES] = {
	[CONCORD_DUTY_SYNC] = {"sync", duty_sync, sync_interval_ms, 0, 0},
	[CONCORD_DUTY_HEARTBEAT] = {"heartbeat", concord_duty_heartbeat, heartbeat_interval_ms, 0, 0},
	[CONCORD_DUTY_HEALTH] = {"health", concord_duty_health, health_interval_ms, 0, 0},
	[CONCORD_DUTY_MAP] = {"map", concord_duty_map, map_interval_ms, 0, 0},
	[CONCORD_DUTY_JOIN] = {"join", concord_duty_join, join_interval_ms, 0, 0},
	[CONCORD_DUTY_SHUTDOWN] = {"shutdown", concord_duty_shutdown, shutdown_interval_ms, 0, 0},
	[CONCORD_DUTY_RESOLVE] = {"resolve", concord_duty_resolve, resolve_interval_ms, 0, 0},
	[CONCORD_DUTY_FORGET] = {"forget", concord_duty_forget, forget_interval_ms, 0, 0},
	[CONCORD_DUTY_REGISTRAR] = {"registrar", concord_duty_registrar, registrar_interval_ms, 0, 0},
};

ConcordWorkerSelf ConcordWorker;

void
concord_duty_hurry(ConcordDutyId duty)
{
	duties[duty].due = 0;
}

void
concord_duty_at(ConcordDutyId duty, int64 at)
{
	duties[duty].due = at;
}

ErrorData *
concord_catch(void (*function) (void *arg), void *arg)
{
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		function(arg);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		disable_all_timeouts(false);
		QueryCancelPending = false;
		MemoryContextSwitchTo(ConcordWorker.cycle_context);
		error = CopyErrorData();
		FlushErrorState();
		if (IsTransactionState())
			AbortCurrentTransaction();
		pgstat_report_wait_end();
		pgstat_report_activity(STATE_IDLE, NULL);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(ConcordWorker.cycle_context);
	return error;
}

char *
concord_attempt(void (*function) (void *arg), void *arg)
{
	ErrorData  *error = concord_catch(function, arg);

	return error != NULL ? error->message : NULL;
}

bool
concord_guarded(const char *what, void (*function) (void *arg), void *arg)
{
	ErrorData  *error = concord_catch(function, arg);

	if (error == NULL)
		return true;
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("pg_concord worker could not do its duty \"%s\": %s", what, error->message),
			 error->detail != NULL ? errdetail_internal("%s", error->detail) : 0,
			 error->hint != NULL ? errhint("%s", error->hint) : 0,
			 error->context != NULL ? errcontext("%s", error->context) : 0));
	return false;
}

void
concord_work_begin(const char *activity)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, activity);
}

void
concord_work_commit(void)
{
	CommitTransactionCommand();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextSwitchTo(ConcordWorker.cycle_context);
}

char *
concord_work_call(const char *sql, int nparams, const char *const *params)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			types[4];
	Datum		values[4];
	char	   *result = NULL;

	Assert(nparams <= (int) lengthof(types));
	concord_work_begin(sql);
	for (int i = 0; i < nparams; i++)
	{
		types[i] = TEXTOID;
		values[i] = CStringGetTextDatum(params[i]);
	}
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_with_args(sql, nparams, types, values, NULL, false, 1) < 0)
		elog(ERROR, "statement of the worker's own failed: %s", sql);
	if (SPI_tuptable != NULL && SPI_processed > 0)
	{
		char	   *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

		if (value != NULL)
			result = MemoryContextStrdup(caller, value);
	}
	PopActiveSnapshot();
	SPI_finish();
	concord_work_commit();
	MemoryContextSwitchTo(caller);
	return result;
}

/* Nothing to look after here (any more): the launcher looks again when that changes. */
static void
leave_database(void)
{
	concord_entry_not_member(MyDatabaseId);
	proc_exit(0);
}

/* Takes over what the map says of this node.  Returns whether it is another cluster's. */
static bool
copy_self(const ConcordMap *map)
{
	char	   *cluster = DatumGetCString(DirectFunctionCall1(uuid_out,
															  UUIDPGetDatum(&map->cluster_id)));
	bool		changed = strcmp(ConcordWorker.cluster, cluster) != 0;

	ConcordWorker.membership = map->membership;
	strlcpy(ConcordWorker.cluster, cluster, sizeof(ConcordWorker.cluster));
	ConcordWorker.node_id = map->self;
	ConcordWorker.generation = map->self_generation;
	ConcordWorker.authority = map->authority;
	ConcordWorker.epoch = map->epoch;
	concord_peer_set_local_name(NameStr(map->self_name));
	return changed;
}

static void
read_join_nonce(void)
{
	char	   *nonce = NULL;

	if (ConcordWorker.membership == CONCORD_JOINING)
		nonce = concord_work_call("SELECT join_nonce FROM concord.local_node", 0, NULL);
	strlcpy(ConcordWorker.join_nonce, nonce != NULL ? nonce : "",
			sizeof(ConcordWorker.join_nonce));
}

/*
 * Reads identity and map again.  A database that is not a member ends the worker.  A new epoch is
 * told to the peers at once.
 */
static void
duty_sync(void *unused)
{
	int64		old_epoch = ConcordWorker.epoch;
	const ConcordMap *map;
	bool		new_cluster;

	(void) unused;
	concord_work_begin("reading the map");
	map = concord_map_refresh();
	if (map->membership != CONCORD_MEMBER && map->membership != CONCORD_JOINING)
	{
		concord_work_commit();
		leave_database();
	}
	new_cluster = copy_self(map);
	concord_asks_sync(map);
	concord_work_commit();

	concord_entry_run(MyDatabaseId, ConcordWorker.epoch, new_cluster);
	read_join_nonce();
	concord_asks_refresh();
	if (ConcordWorker.epoch != old_epoch)
		concord_duty_hurry(CONCORD_DUTY_HEARTBEAT);
}

/* Runs what is due; returns when the next one is. */
static int64
run_duties(void)
{
	int64		next = PG_INT64_MAX;

	for (int i = 0; i < CONCORD_DUTIES; i++)
	{
		ConcordDuty *duty = &duties[i];
		int64		interval = duty->interval_ms();
		int64		now = concord_clock_ms();

		/* also when a reload made the interval shorter */
		if (duty->failures == 0)
			duty->due = Min(duty->due, now + interval);
		if (duty->due <= now)
		{
			duty->due = now + interval;
			if (concord_guarded(duty->name, duty->run, NULL))
				duty->failures = 0;
			else
			{
				duty->failures++;
				duty->due = concord_clock_ms() +
					concord_backoff_ms(duty->failures, Max(interval, 1000), RETRY_MAX_MS);
			}
		}
		next = Min(next, duty->due);
	}
	return next;
}

static void
turn(void *unused)
{
	int64		next;
	int64		next_ask;

	(void) unused;
	CHECK_FOR_INTERRUPTS();		/* M3 */
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	next = run_duties();
	next_ask = concord_asks_serve();
	concord_asks_wait(Min(next, next_ask));
}

/* M2 */
void
concord_pin_settings(void)
{
	static const char *const pinned[][2] = {
		{"role", "none"},
		{"search_path", "pg_catalog, pg_temp"},
		{"session_replication_role", "origin"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", LOCK_TIMEOUT},
		{"transaction_timeout", "0"},	/* where it exists: from 17 on */
		/* what it stores can be fetched again: it does not wait for a standby */
		{"synchronous_commit", "local"},
	};

	for (int i = 0; i < (int) lengthof(pinned); i++)
		if (GetConfigOption(pinned[i][0], true, false) != NULL)
			SetConfigOption(pinned[i][0], pinned[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

static void
worker_exit(int code, Datum arg)
{
	(void) code;
	concord_registrar_end();
	concord_entry_leave(DatumGetObjectId(arg));
}

void
concord_worker_main(Datum arg)
{
	Oid			dboid = DatumGetObjectId(arg);

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	/* registered before InitPostgres does its own, so run after the ProcArray was left (E1) */
	on_shmem_exit(worker_exit, arg);
	if (!concord_entry_claim(dboid))
		proc_exit(0);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(dboid, InvalidOid, 0);
	concord_pin_settings();
	pgstat_report_activity(STATE_IDLE, NULL);

	ConcordWorker.context = AllocSetContextCreate(TopMemoryContext, "concord worker",
												  ALLOCSET_DEFAULT_SIZES);
	ConcordWorker.cycle_context = AllocSetContextCreate(ConcordWorker.context,
														"concord worker cycle",
														ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(ConcordWorker.cycle_context);
	if (!concord_guarded(duties[CONCORD_DUTY_SYNC].name, duty_sync, NULL))
		proc_exit(1);			/* the launcher tries again, later each time */
	for (;;)
	{
		MemoryContextReset(ConcordWorker.cycle_context);
		MemoryContextSwitchTo(ConcordWorker.cycle_context);
		if (!concord_guarded("turn", turn, NULL))
			(void) WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, FAILED_TURN_MS,
							 concord_wait_event("ConcordWorkerFailed"));
	}
}
