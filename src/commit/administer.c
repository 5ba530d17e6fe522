/*
 * administer.c
 *		What administrators can do about transactions in doubt, and the poke that everybody can
 *		give.
 *
 * WHAT: a peer's session that ends between PREPARE and COMMIT PREPARED pokes by itself.
 * resolve_transactions() and _forget_decisions() ask the maintenance worker for what it
 * would do by itself a little later, and wait.  force_transaction() stores an order that the
 * worker carries out.
 *
 * PROMISE: an order is stored and committed before it is carried out, by whoever is the worker
 * then: it is never done without a record, and never lost when something dies in between.  What was
 * rolled back was not ordered.
 *
 * INVARIANTS
 * D1 Branches are finished by the worker alone, never in a user's transaction: COMMIT PREPARED is
 *    not undone by its ROLLBACK.
 * D2 A request is a number that grows; the worker does all that were made before it looked.
 *    Two who request at once are served together; one that is lost with a crash has nobody left
 *    who waits for it.
 * D3 An order stays in concord.forced: a branch that a failover of this node shows as prepared
 *    again is finished as before.  An order for it is never replaced by the other one.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "cluster/room.h"
#include "commit/resolver.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define WAIT_SLICE_MS 100
/* deleting a day's decisions in batches may take a while */
#define FORGET_TIMEOUT_MS 60000

PG_FUNCTION_INFO_V1(concord_resolve_transactions);
PG_FUNCTION_INFO_V1(concord_force_transaction);
PG_FUNCTION_INFO_V1(concord_forget_decisions);

/* A copy of what the worker tells. */
typedef struct Progress
{
	bool		exists;
	bool		worker;
	uint64		resolve_done;
	uint64		resolved;
	uint64		forget_done;
	int64		forgotten;
} Progress;

static bool poke_at_commit = false;

static ConditionVariable *
read_progress(Progress *progress)
{
	ConcordDatabase *entry;

	memset(progress, 0, sizeof(*progress));
	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	entry = concord_shmem_database(MyDatabaseId, false);
	if (entry != NULL)
	{
		progress->exists = true;
		progress->worker = entry->state == CONCORD_WORKER_RUNNING;
		progress->resolve_done = entry->resolve_done;
		progress->resolved = entry->resolved;
		progress->forget_done = entry->forget_done;
		progress->forgotten = entry->forgotten;
	}
	LWLockRelease(ConcordShared->lock);
	return entry != NULL ? &entry->work_cv : NULL;
}

/* D2: returns the request's number, 0 when there is no worker to be expected. */
static uint64
request_resolve(void)
{
	ConcordDatabase *entry;
	uint64		number = 0;

	if (ConcordShared == NULL)
		return 0;
	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	entry = concord_shmem_database(MyDatabaseId, false);
	if (entry != NULL)
		number = ++entry->resolve_wanted;
	LWLockRelease(ConcordShared->lock);
	concord_poke_worker(MyDatabaseId);
	return number;
}

void
concord_resolver_poke(void)
{
	(void) request_resolve();
}

static uint64
request_forget(int64 retention_us)
{
	ConcordDatabase *entry;
	uint64		number = 0;

	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	entry = concord_shmem_database(MyDatabaseId, false);
	if (entry != NULL)
	{
		number = ++entry->forget_wanted;
		entry->forget_retention_us = retention_us;
	}
	LWLockRelease(ConcordShared->lock);
	concord_poke_worker(MyDatabaseId);
	return number;
}

static void
require_worker(void)
{
	Progress	progress;

	(void) read_progress(&progress);
	if (!progress.worker)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the maintenance worker of this database does not run"),
				 errhint("concord.check_cluster() tells more.")));
}

/* Waits until the request is done, or the time is over. */
static bool
await_request(bool forget, uint64 number, int timeout_ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
	Progress	progress;
	ConditionVariable *cv = read_progress(&progress);
	bool		done = false;

	if (cv == NULL)
		return false;
	ConditionVariablePrepareToSleep(cv);
	for (;;)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		(void) read_progress(&progress);
		done = (forget ? progress.forget_done : progress.resolve_done) >= number;
		if (done || left <= 0 || !progress.exists)
			break;
		(void) ConditionVariableTimedSleep(cv, Min(left, WAIT_SLICE_MS),
										   concord_wait_event("ConcordResolve"));
	}
	ConditionVariableCancelSleep();
	return done;
}

Datum
concord_resolve_transactions(PG_FUNCTION_ARGS)
{
	Progress	before;
	Progress	after;

	(void) fcinfo;
	concord_require_writable("concord.resolve_transactions()");
	(void) concord_map_member();
	require_worker();
	(void) read_progress(&before);
	(void) await_request(false, request_resolve(), concord_view_timeout_ms);
	(void) read_progress(&after);
	PG_RETURN_INT32((int32) (after.resolved - before.resolved));
}

Datum
concord_forget_decisions(PG_FUNCTION_ARGS)
{
	Interval   *retention = PG_GETARG_INTERVAL_P(0);
	int64		us = retention->time +
		((int64) retention->month * DAYS_PER_MONTH + retention->day) * USECS_PER_DAY;
	Progress	progress;

	concord_require_writable("concord._forget_decisions()");
	(void) concord_map_member();
	require_worker();
	if (!await_request(true, request_forget(Max(us, 0)), FORGET_TIMEOUT_MS))
		PG_RETURN_NULL();
	(void) read_progress(&progress);
	if (progress.forgotten < 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(progress.forgotten);
}

/* ------------------------------------------------------------- orders */

static void
poke_after_commit(XactEvent event, void *arg)
{
	(void) arg;
	if (!poke_at_commit)
		return;
	if (event == XACT_EVENT_COMMIT)
		concord_resolver_poke();
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		poke_at_commit = false;
}

/* ------------------------------------------------------------- sessions that end */

/* A peer's session has prepared a branch here, and has not been asked to finish it yet. */
static bool branch_prepared = false;

/* Its coordinator may have gone with it: the resolver does not have to wait for it any more. */
static void
poke_at_exit(int code, Datum arg)
{
	(void) arg;
	(void) code;
	if (branch_prepared)
		concord_resolver_poke();
}

static void
watch_prepared(XactEvent event, void *arg)
{
	static bool registered = false;

	(void) arg;
	/* the next transaction is COMMIT PREPARED, or its coordinator has left the branch to others */
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		branch_prepared = false;
	if (event != XACT_EVENT_PREPARE || strncmp(application_name, "concord/", 8) != 0)
		return;
	branch_prepared = true;
	if (!registered)
		before_shmem_exit(poke_at_exit, (Datum) 0);
	registered = true;
}

void
concord_administer_init(void)
{
	RegisterXactCallback(watch_prepared, NULL);
}

static void
check_order(const char *text, const char *outcome, ConcordGid *gid)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to call %s", "concord.force_transaction()")));
	if (strcmp(outcome, "commit") != 0 && strcmp(outcome, "abort") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid outcome \"%s\"", outcome),
				 errhint("It is commit or abort.")));
	if (concord_gid_parse(text, strlen(text), gid) == CONCORD_GID_FOREIGN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a global transaction id", text)));
}

/* D3: stores one order; 42710 if there is the other one. */
static void
store_order(const char *gid, const char *outcome)
{
	const char *params[3] = {gid, outcome, GetUserNameFromId(GetSessionUserId(), false)};
	char	   *stored;

	(void) concord_owner_call("INSERT INTO concord.forced VALUES"
							  " ($1, $2, $3::pg_catalog.name, pg_catalog.clock_timestamp())"
							  " ON CONFLICT DO NOTHING", 3, params);
	stored = concord_owner_call("SELECT f.outcome FROM concord.forced f"
								" WHERE f.gid OPERATOR(pg_catalog.=) $1", 1, params);
	if (stored == NULL || strcmp(stored, outcome) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("branch \"%s\" was already forced", gid),
				 stored == NULL ? 0 : errdetail("The outcome decided then is %s.", stored)));
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("branch \"%s\" is forced: %s", gid, outcome),
			 errdetail("Other nodes may end the same transaction otherwise.")));
}

Datum
concord_force_transaction(PG_FUNCTION_ARGS)
{
	static bool registered = false;
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *outcome = text_to_cstring(PG_GETARG_TEXT_PP(1));
	ConcordGid	gid;
	bool		whole;
	int			found = 0;
	ListCell   *lc;

	concord_require_writable("concord.force_transaction()");
	check_order(name, outcome, &gid);
	whole = gid.participant == 0;
	foreach(lc, concord_prepared_list(concord_map_member()))
	{
		const ConcordPrepared *branch = lfirst(lc);

		if (whole ? !concord_gid_same_transaction(&branch->gid, &gid) :
			strcmp(branch->text, name) != 0)
			continue;
		found++;
		store_order(branch->text, outcome);
	}
	if (found == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no branch of transaction \"%s\" is prepared on this node", name),
				 errhint("concord.transactions shows where there is one.")));

	if (!registered)
		RegisterXactCallback(poke_after_commit, NULL);
	registered = true;
	poke_at_commit = true;		/* D1 */
	PG_RETURN_VOID();
}
