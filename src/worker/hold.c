/*
 * hold.c
 *		Keeps workers out of the way of commands that want a database to themselves.
 *
 * WHAT: DROP DATABASE, ALTER DATABASE RENAME TO and SET TABLESPACE, and CREATE DATABASE with the
 * database as its template fail when anybody is connected to it.  Our worker always is, and so are
 * the peers' workers (visitors.c): for these commands they are told to go, and come back after.
 *
 * PROMISE: when the command starts, no session of pg_concord's own traffic is in the database,
 * unless one could not be ended within HOLD_TIMEOUT_MS; then the command runs all the same and
 * PostgreSQL's own check decides.  A role that may not run the command disturbs nobody.
 *
 * What it does NOT do: end users' sessions, also those that other nodes keep open for them.
 *
 * INVARIANTS
 * H1 The hold lasts until the end of the transaction, not of the command: only then does the
 *    launcher see the new state of pg_database, and only then is the lock gone on which a worker
 *    would wait while it connects.  A command that fails gives it back at once.
 * H2 Whatever ends the transaction ends the hold: commit, prepare, abort, and a FATAL exit, which
 *    aborts first.  For what is none of these the launcher frees holds of pids that are gone.
 * H3 Holds are taken before any lock of the command's own, and are waited for only
 *    HOLD_TIMEOUT_MS: two commands that hold each other's database do not wait for ever.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/wait_event.h"
#include "worker/clock.h"
#include "worker/entry.h"
#include "worker/hold.h"
#include "worker/visitors.h"

#define HOLD_TIMEOUT_MS		10000
#define HOLD_POLL_MS		10

static ProcessUtility_hook_type previous_utility_hook = NULL;
static bool holding = false;
static Oid	dropped_database = InvalidOid;
static bool database_altered = false;

static char *
option_string(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, name) == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return NULL;
}

/* The database the command wants free of others, or NULL. */
static const char *
wanted_database(Node *command, bool top_level)
{
	/* in a transaction block these are refused anyway, all but RENAME */
	bool		can_run = top_level && !IsTransactionBlock();

	if (IsA(command, DropdbStmt) && can_run)
		return castNode(DropdbStmt, command)->dbname;
	if (IsA(command, CreatedbStmt) && can_run)
		return option_string(castNode(CreatedbStmt, command)->options, "template");
	if (IsA(command, AlterDatabaseStmt) && can_run &&
		option_string(castNode(AlterDatabaseStmt, command)->options, "tablespace") != NULL)
		return castNode(AlterDatabaseStmt, command)->dbname;
	if (IsA(command, RenameStmt) &&
		castNode(RenameStmt, command)->renameType == OBJECT_DATABASE)
		return castNode(RenameStmt, command)->subname;
	return NULL;
}

/* Waits a little for whatever is still in the database, or for whoever else holds it. */
static void
wait_a_little(Oid dboid, ConcordEntryHold state, int64 left_ms)
{
	ConditionVariable *cv = concord_entry_cv(dboid);
	ConcordEntryView view;

	if (cv == NULL)
		return;
	ConditionVariablePrepareToSleep(cv);
	concord_entry_view(dboid, &view);
	if (state == CONCORD_HOLD_CLEAR ||
		(state == CONCORD_HOLD_TAKEN ? view.held_by != 0 : view.worker_pid != 0))
		ConditionVariableTimedSleep(cv, Min(left_ms, HOLD_POLL_MS),
									concord_wait_event("ConcordHold"));
	ConditionVariableCancelSleep();
}

/*
 * Takes the hold and waits until our worker and other nodes' protocol sessions have gone.
 * Raises only on cancel; the caller then gives the hold back.
 */
static void
hold_database(Oid dboid)
{
	int64		until = concord_clock_ms() + HOLD_TIMEOUT_MS;

	holding = true;
	for (;;)
	{
		ConcordEntryHold state = concord_entry_hold(dboid);
		int			visitors = 0;
		int64		left = until - concord_clock_ms();

		if (state == CONCORD_HOLD_CLEAR || state == CONCORD_HOLD_LEAVING)
			visitors = concord_visitors_end(dboid);
		if (left <= 0 || state == CONCORD_HOLD_NO_ENTRY ||
			(state == CONCORD_HOLD_CLEAR && visitors == 0))
			break;
		wait_a_little(dboid, state, left);
	}
}

static void
release_holds(void)
{
	if (!holding)
		return;
	holding = false;
	concord_entry_release(MyProcPid);
}

/* H1, H2 */
static void
at_transaction_end(XactEvent event, void *arg)
{
	(void) arg;
	if (!holding && !database_altered)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (OidIsValid(dropped_database))
				concord_entry_forget(dropped_database, true);
			if (database_altered)
				concord_poke_launcher();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			break;
		default:
			return;
	}
	dropped_database = InvalidOid;
	database_altered = false;
	release_holds();
}

static void
run_command(PlannedStmt *pstmt, const char *query, bool read_only_tree,
			ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
			DestReceiver *dest, QueryCompletion *completion)
{
	if (previous_utility_hook)
		previous_utility_hook(pstmt, query, read_only_tree, context, params, environment,
							  dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, environment,
								dest, completion);
}

static void
concord_worker_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
					   ProcessUtilityContext context, ParamListInfo params,
					   QueryEnvironment *environment, DestReceiver *dest,
					   QueryCompletion *completion)
{
	Node	   *command = pstmt->utilityStmt;
	const char *name = NULL;
	Oid			dboid = InvalidOid;

	if (ConcordShared != NULL && IsUnderPostmaster && !RecoveryInProgress())
		name = wanted_database(command, context == PROCESS_UTILITY_TOPLEVEL);
	if (name != NULL)
		dboid = get_database_oid(name, true);
	/* of the current database only a copy can be made; the rest is refused */
	if (dboid == MyDatabaseId && !IsA(command, CreatedbStmt))
		dboid = InvalidOid;

	if (!OidIsValid(dboid) || !concord_owns_database(dboid, GetUserId()))
		run_command(pstmt, query, read_only_tree, context, params, environment, dest, completion);
	else
	{
		PG_TRY();
		{
			hold_database(dboid);
			run_command(pstmt, query, read_only_tree, context, params, environment, dest,
						completion);
			if (IsA(command, DropdbStmt))
				dropped_database = dboid;
		}
		PG_CATCH();
		{
			release_holds();
			PG_RE_THROW();
		}
		PG_END_TRY();
	}

	/* whether a database may be connected to, or is a template, decides whether it has a worker */
	if (IsA(command, AlterDatabaseStmt) && ConcordShared != NULL)
		database_altered = true;
}

void
concord_hold_init(void)
{
	previous_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = concord_worker_utility;
	concord_visitors_init();
	RegisterXactCallback(at_transaction_end, NULL);
}
