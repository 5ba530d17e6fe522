/*
 * hello.c
 *		The peer's side of routed statements: who is asking, with which map, and has the branch
 *		written.
 *
 * WHAT: concord._hello() is the first statement of a peer's session and comes again when the
 * caller's map has changed.  From then on three hooks watch the session's statements.
 *
 * INVARIANTS
 * H1 Nothing runs for a caller that means another node: cluster, node id and protocol are
 *    compared first, in the same flush as the statement, which an error skips.
 * H2 A statement runs only if every slot this node has lost was lost in a map the caller knew
 *    (told epoch >= lost_epoch); else PC001, and the caller refreshes its map.  A map that
 *    changed in other ways is no reason.
 * H3 A node with an older map than the caller's fetches it before it answers, so it never
 *    refuses or accepts by an older map than the caller's.
 * H4 The answer of the statement that gave the branch a transaction id carries
 *    concord.branch_state = writing (GUC_REPORT, sent before ReadyForQuery); it is reset
 *    with the transaction.  That of one which took a transaction lock carries "locking"; it is set
 *    where the lock is taken, so that it is reset with the savepoint that releases the lock.
 *
 * H5 What the caller told with its settings (search_path, formats, the default characteristics of
 *    transactions) holds at the start of each transaction, whatever an earlier statement of the
 *    session has set with set_config() or in a function: a transaction that ends puts it back,
 *    since a statement without BEGIN is planned before anything of ours is called.
 * H6 A SELECT outside of a transaction block does not commit what it wrote: it is refused (25P01)
 *    if it has taken a transaction id, and its sender repeats it in a block (statement.c, W4).
 * H7 What is prepared belongs to the session's own user, whatever role the branch has taken, since
 *    only the owner can finish it.  The role is left when PREPARE TRANSACTION itself has run what
 *    is deferred, which is thus done by the role that caused it.
 *
 * H8 On a logical copy a peer's session only reads: its transactions are read-only, whatever it has
 *    set, and one that has taken a transaction id nevertheless fails (25006, upon which the
 *    caller asks the primary).  There is no map, so there is no stale one; what the caller demands
 *    by a token is waited for.  When the database is no copy of that node any more, it is refused.
 *
 * A session that never said hello pays one test of a boolean per statement.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/errors.h"
#include "base/fault.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "shard/shard.h"
#include "storage/latch.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#define SETTINGS_PREFIX "SELECT pg_catalog.set_config('search_path', $1, false)"
#define HELLO_PREFIX "SELECT concord._hello("

/* Is this session a peer's, and with which map was it last told to work? 0 = a new hello is due. */
static bool peer_session = false;
static int64 told_epoch = 0;
static int	copy_of = 0;			/* H8: the node, on a logical copy */

/* H5: the settings the caller tells, and their values as told last; NULL = not told yet */
static const char *const told_names[] = {
	"search_path", "TimeZone", "DateStyle", "IntervalStyle", "extra_float_digits", "lock_timeout",
	"concord.track", "concord.wait_timeout",
	"default_transaction_isolation", "default_transaction_read_only",
	"default_transaction_deferrable"
};
static char *told_values[lengthof(told_names)];

static ExecutorStart_hook_type previous_start = NULL;
static ExecutorRun_hook_type previous_run = NULL;
static ExecutorFinish_hook_type previous_finish = NULL;
static ProcessUtility_hook_type previous_utility = NULL;

PG_FUNCTION_INFO_V1(concord_hello);

static void
refuse_stale(int64 lost_epoch)
{
	int64		told = told_epoch;

	told_epoch = 0;				/* the caller will say hello again */
	ereport(ERROR,
			(errcode(ERRCODE_CONCORD_STALE_MAP),
			 errmsg("the caller's cluster map is too old"),
			 errdetail("It has epoch " INT64_FORMAT ", but this node gave slots away at epoch " INT64_FORMAT ".",
					   told, lost_epoch),
			 errhint("Repeat the transaction.")));
}

static void
check_identity(const ConcordMap *map, const pg_uuid_t *cluster, int from_node, int to_node,
			   int protocol)
{
	/* this version speaks the first protocol only; the next one will speak both */
	if (protocol != CONCORD_PROTOCOL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("protocol %d is not spoken here", protocol),
				 errdetail("This node speaks protocol %d.", CONCORD_PROTOCOL),
				 errhint("Update the extension on all nodes.")));
	if (map->membership == CONCORD_DETACHED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the database reached is a detached copy of a node"),
				 errhint("Call concord.adopt_node() there, or correct the node's address with concord.set_node.")));
	if ((map->membership != CONCORD_MEMBER && map->membership != CONCORD_JOINING &&
		 map->membership != CONCORD_COPY) ||
		memcmp(cluster->data, map->cluster_id.data, UUID_LEN) != 0 || map->self != to_node)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the database reached is not node %d of the caller's cluster", to_node),
				 errdetail("The call came from node %d.", from_node),
				 errhint("Was the database recreated, or the node's address changed? See concord.check_cluster().")));
}

/*
 * _hello(cluster uuid, from_node int, to_node int, protocol int, epoch bigint) -> int: this
 * session's process id.
 */
Datum
concord_hello(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *cluster = PG_GETARG_UUID_P(0);
	int			from_node = PG_GETARG_INT32(1);
	int			to_node = PG_GETARG_INT32(2);
	int			protocol = PG_GETARG_INT32(3);
	int64		epoch = PG_GETARG_INT64(4);
	const ConcordMap *map;

	concord_require_preload();
	told_epoch = 0;
	map = concord_map();
	check_identity(map, cluster, from_node, to_node, protocol);	/* H1 */
	copy_of = map->membership == CONCORD_COPY ? map->self : 0;
	if (copy_of != 0)
	{
		/* H8 */
	}
	else if (map->epoch < epoch && RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_CONCORD_STALE_MAP),
				 errmsg("this standby has an older cluster map than the caller"),
				 errdetail("It has epoch " INT64_FORMAT ", the caller " INT64_FORMAT ".",
						   map->epoch, epoch),
				 errhint("It follows as soon as it has replayed what its primary has.")));
	else if (map->epoch < epoch || map->membership == CONCORD_JOINING)	/* H3 */
	{
		if (!concord_map_await(epoch, from_node, concord_connect_timeout_ms))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("this node could not fetch cluster map " INT64_FORMAT " in time",
							epoch),
					 errhint("Is its maintenance worker running? See concord.check_cluster().")));
		map = concord_map();
		check_identity(map, cluster, from_node, to_node, protocol);
	}
	peer_session = true;
	told_epoch = epoch;
	if (epoch < map->lost_epoch)	/* H2 */
		refuse_stale(map->lost_epoch);

	/*
	 * When the caller vanishes while a statement runs here, notice it.  The variable is set
	 * directly, since a SET would be undone with the branch.
	 */
	if (client_connection_check_interval == 0 && WaitEventSetCanReportClosed())
		client_connection_check_interval = 1000;
	PG_RETURN_INT32(MyProcPid);
}

bool
concord_hello_said(void)
{
	return peer_session;
}

/* ------------------------------------------------------------------ hooks */

static void
check_stale(const char *source)
{
	const ConcordMap *map;

	if (!IsTransactionState() || IsAbortedTransactionBlockState())
		return;
	if (source != NULL && strncmp(source, HELLO_PREFIX, sizeof(HELLO_PREFIX) - 1) == 0)
		return;					/* it brings the newer epoch */
	/* locks held and plans cached accept none; nothing is done when none are pending */
	AcceptInvalidationMessages();
	map = concord_map();
	if (told_epoch < map->lost_epoch || told_epoch == 0)
		refuse_stale(map->lost_epoch);
	if (copy_of == 0)
		return;
	if (map->membership != CONCORD_COPY || map->self != copy_of)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is not a logical copy of node %d any more", copy_of)));
	XactReadOnly = true;		/* H8: until the transaction ends */
}

static bool
has_written(void)
{
	return TransactionIdIsValid(GetTopTransactionIdIfAny()) || concord_peer_wrote();
}

static void
report_state(const char *state)
{
	(void) set_config_option("concord.branch_state", state, PGC_INTERNAL, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, WARNING, false);
}

/* H4; outside of a block it would be reset before it could be reported. */
void
concord_hello_holds(void)
{
	if (peer_session && IsTransactionBlock() && strstr(concord_branch_state, "locking") == NULL)
		report_state(concord_branch_state[0] == '\0' ? "locking" : "writing locking");
}

static void
report_writing(void)
{
	bool		locking = concord_branch_state[0] == 'l';

	if ((concord_branch_state[0] != '\0' && !locking) || !IsTransactionBlock() ||
		IsInParallelMode())
		return;
	if (has_written())
		report_state(locking ? "writing locking" : "writing");
	else if (concord_branches_bound() > 0)
		concord_hello_holds();	/* in a branch of its own */
}

/* H6 */
static void
refuse_to_write(const QueryDesc *query)
{
	if (copy_of != 0 && TransactionIdIsValid(GetTopTransactionIdIfAny()))	/* H8 */
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot write on a logical copy of node %d", copy_of)));
	if (query->operation == CMD_SELECT && !IsTransactionBlock() && ActivePortal != NULL &&
		ActivePortal->queryDesc == query && has_written())
		ereport(ERROR,
				(errcode(ERRCODE_NO_ACTIVE_SQL_TRANSACTION),
				 errmsg("a SELECT that writes must be in a transaction block")));
}

/* The caller has just told its settings: keep them. */
static void
keep_settings(const char *source)
{
	if (source == NULL || strncmp(source, SETTINGS_PREFIX, sizeof(SETTINGS_PREFIX) - 1) != 0)
		return;
	for (int i = 0; i < (int) lengthof(told_names); i++)
	{
		if (told_values[i] != NULL)
			pfree(told_values[i]);
		told_values[i] = MemoryContextStrdup(TopMemoryContext,
											 GetConfigOption(told_names[i], false, false));
	}
}

/* H5 */
static void
restore_settings(void)
{
	for (int i = 0; i < (int) lengthof(told_names); i++)
		if (told_values[i] != NULL &&
			strcmp(told_values[i], GetConfigOption(told_names[i], false, false)) != 0)
			SetConfigOption(told_names[i], told_values[i], PGC_USERSET, PGC_S_SESSION);
}

/* H7 */
static void
leave_role(void)
{
	if (GetUserId() != GetSessionUserId())
		(void) set_config_option("role", "none", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true,
								 ERROR, false);
}

static void
hello_xact_callback(XactEvent event, void *arg)
{
	if (!peer_session)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			restore_settings();
			concord_fault("participant_before_commit");
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (copy_of != 0)	/* H8 */
				ereport(ERROR,
						(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
						 errmsg("cannot prepare a transaction on a logical copy")));
			restore_settings();
			leave_role();
			concord_fault("participant_before_prepare");
			break;
		case XACT_EVENT_COMMIT:
			concord_fault("participant_after_commit");
			break;
		default:
			break;
	}
}

static void
hello_executor_start(QueryDesc *query, int eflags)
{
	if (peer_session)
	{
		check_stale(query->sourceText);
		concord_fault("participant_statement");
	}
	if (previous_start)
		previous_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
}

/* 18 took away the last argument */
#if PG_VERSION_NUM >= 180000
#define RUN_PARAMETERS QueryDesc *query, ScanDirection direction, uint64 count
#define RUN_ARGUMENTS query, direction, count
#else
#define RUN_PARAMETERS QueryDesc *query, ScanDirection direction, uint64 count, bool execute_once
#define RUN_ARGUMENTS query, direction, count, execute_once
#endif

static void
call_executor_run(RUN_PARAMETERS)
{
	if (previous_run)
		previous_run(RUN_ARGUMENTS);
	else
		standard_ExecutorRun(RUN_ARGUMENTS);
}

/* The next three are called after concord_style_enter(). */
static void
run_in_style(RUN_PARAMETERS)
{
	DestReceiver *dest = query->dest;

	query->dest = concord_style_receiver(dest);
	PG_TRY();
	{
		call_executor_run(RUN_ARGUMENTS);
	}
	PG_FINALLY();
	{
		query->dest = dest;
		concord_style_leave();
	}
	PG_END_TRY();
}

static void
hello_executor_run(RUN_PARAMETERS)
{
	if (peer_session && concord_style_enter())
		run_in_style(RUN_ARGUMENTS);
	else
		call_executor_run(RUN_ARGUMENTS);
	if (peer_session)
	{
		report_writing();
		refuse_to_write(query);
	}
}

static void
call_executor_finish(QueryDesc *query)
{
	if (previous_finish)
		previous_finish(query);
	else
		standard_ExecutorFinish(query);
}

static void
finish_in_style(QueryDesc *query)
{
	PG_TRY();
	{
		call_executor_finish(query);
	}
	PG_CATCH();
	{
		concord_style_leave();
		PG_RE_THROW();
	}
	PG_END_TRY();
	concord_style_leave();
}

static void
hello_executor_finish(QueryDesc *query)
{
	if (peer_session && concord_style_enter())
		finish_in_style(query);
	else
		call_executor_finish(query);
	if (peer_session)
	{
		report_writing();
		keep_settings(query->sourceText);
	}
}

static void
fault_before_control(TransactionStmt *statement)
{
	if (statement->kind == TRANS_STMT_COMMIT_PREPARED)
		concord_fault("participant_before_commit_prepared");
	else if (statement->kind == TRANS_STMT_ROLLBACK_PREPARED)
		concord_fault("participant_before_rollback_prepared");
}

/* PREPARE itself takes effect after the utility hook, when the command ends. */
static void
fault_after_control(TransactionStmt *statement)
{
	if (statement->kind == TRANS_STMT_COMMIT_PREPARED)
		concord_fault("participant_after_commit_prepared");
	else if (statement->kind == TRANS_STMT_ROLLBACK_PREPARED)
		concord_fault("participant_after_rollback_prepared");
}

static void
call_utility(PlannedStmt *statement, const char *source, bool read_only_tree,
			 ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
			 DestReceiver *dest, QueryCompletion *completion)
{
	if (previous_utility)
		previous_utility(statement, source, read_only_tree, context, params, environment, dest,
						 completion);
	else
		standard_ProcessUtility(statement, source, read_only_tree, context, params, environment,
								dest, completion);
}

static void
utility_in_style(PlannedStmt *statement, const char *source, bool read_only_tree,
				 ProcessUtilityContext context, ParamListInfo params,
				 QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	PG_TRY();
	{
		call_utility(statement, source, read_only_tree, context, params, environment, dest,
					 completion);
	}
	PG_CATCH();
	{
		concord_style_leave();
		PG_RE_THROW();
	}
	PG_END_TRY();
	concord_style_leave();
}

static void
hello_utility(PlannedStmt *statement, const char *source, bool read_only_tree,
			  ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
			  DestReceiver *dest, QueryCompletion *completion)
{
	bool		control = IsA(statement->utilityStmt, TransactionStmt);

	if (peer_session && !control)
		check_stale(source);
	if (peer_session && control)
		fault_before_control((TransactionStmt *) statement->utilityStmt);
	if (peer_session && concord_style_enter())
		utility_in_style(statement, source, read_only_tree, context, params, environment, dest,
						 completion);
	else
		call_utility(statement, source, read_only_tree, context, params, environment, dest,
					 completion);
	if (peer_session && !control && IsTransactionState())
		report_writing();
	if (peer_session && control)
		fault_after_control((TransactionStmt *) statement->utilityStmt);
}

void
concord_shard_init(void)
{
	previous_start = ExecutorStart_hook;
	ExecutorStart_hook = hello_executor_start;
	previous_run = ExecutorRun_hook;
	ExecutorRun_hook = hello_executor_run;
	previous_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = hello_executor_finish;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = hello_utility;
	RegisterXactCallback(hello_xact_callback, NULL);
}
