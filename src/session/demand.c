/*
 * demand.c
 *		Setting concord.token makes what follows see at least that.
 *
 * PROMISE: when a statement that set a token has succeeded, every snapshot that this session takes
 * afterwards on this server sees all that the token says of this server's node; or, with
 * concord.on_timeout = stale, the session was let go on without.  A write that is not in this
 * server's WAL and never will be is an error (PC003), whatever concord.on_timeout says.
 *
 * WHERE IT WAITS.  Under a snapshot, a wait on a standby can hold back the very replay it waits
 * for; so can a lock on a relation.  Each form waits where neither is held, or is refused (25001):
 *
 *		SET [LOCAL] concord.token = ...		in the utility hook, before it takes effect
 *		set_config(), on its own			at PRE_COMMIT of its implicit transaction
 *		a start-up option					when the first statement is parsed; the snapshot taken
 *											for that is given back and taken anew
 *		CALL concord.wait(...)				in the procedure, which gives back the snapshot that was
 *											taken for the call
 *
 * INVARIANTS
 * D1 Never half honoured: between a set_config() and its wait nothing else runs (25001).
 * D2 In a REPEATABLE READ or SERIALIZABLE transaction that has its snapshot, a token is refused
 *    even if it is reached by now: the snapshot may be older.
 * D3 While it waits the session has no snapshot and holds no lock on a relation.  One exception: a
 *    start-up option waits with the locks of parsing one statement; a replay that conflicts with
 *    them ends the wait by cancelling it (max_standby_streaming_delay).
 * D4 An error leaves concord.token as it was.
 * D5 A session can always get rid of its token: RESET and DISCARD ALL leave it without one, even if
 *    it was started with one, and an empty token is never waited for.
 *
 * WHAT IT DOES NOT DO: see other nodes.  Their positions stay in the token for statements routed
 * there, and for whoever gets the token next.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/parallel.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "base/errors.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "cluster/room.h"
#include "commands/defrem.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/analyze.h"
#include "session/session.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/pg_lsn.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

static bool in_set = false;		/* the utility hook has waited: concord.token takes its value */
static bool checked = false;	/* the value to be assigned next is a user's */
static bool due_at_commit = false;	/* set by set_config(): to be waited for */
static bool due_at_parse = false;	/* set by a start-up option */

static ProcessUtility_hook_type previous_utility = NULL;
static ExecutorStart_hook_type previous_start = NULL;
static post_parse_analyze_hook_type previous_parse = NULL;

PG_FUNCTION_INFO_V1(concord_wait);
PG_FUNCTION_INFO_V1(concord_covers);
PG_FUNCTION_INFO_V1(concord_token_sql);
PG_FUNCTION_INFO_V1(concord_token_waits);
PG_FUNCTION_INFO_V1(concord_session_stats);

/* ---------------------------------------------------------------- reading */

static void
throw_malformed(ConcordTokenError error, size_t offset, size_t length)
{
	ConcordTokenComplaint complaint;

	concord_token_complain(error, offset, length, &complaint);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg_internal("%s", complaint.message),
			 errdetail_internal("%s", complaint.detail),
			 complaint.hint != NULL ? errhint("%s", complaint.hint) : 0));
}

/* The first position whose node the map does not have, or NULL; a logical copy has no map. */
static const ConcordPosition *
unknown_node(const ConcordToken *token, const ConcordMap *map)
{
	if (map->membership == CONCORD_COPY)
		return NULL;
	for (int i = 0; i < token->n; i++)
		if (concord_map_node(map, token->positions[i].node) == NULL)
			return &token->positions[i];
	return NULL;
}

/* Reads a token into static memory and checks it; nodes may be unknown. */
static ConcordToken *
read_token(const char *text, const ConcordMap **map)
{
	static ConcordPosition positions[CONCORD_TOKEN_POSITIONS];
	static ConcordToken token;
	size_t		offset = 0;
	ConcordTokenError error;

	token.max = CONCORD_TOKEN_POSITIONS;
	token.positions = positions;
	error = concord_token_parse(text, strlen(text), &token, &offset);
	if (error != CONCORD_TOKEN_OK)
		throw_malformed(error, offset, strlen(text));
	AcceptInvalidationMessages();
	*map = concord_map();
	if ((*map)->membership != CONCORD_COPY)
		*map = concord_map_member();
	if (memcmp(token.cluster, (*map)->cluster_id.data, UUID_LEN) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("session token is of another cluster")));
	return &token;
}

ConcordToken *
concord_token_read(const char *text, const ConcordMap **map)
{
	ConcordToken *token = read_token(text, map);
	const ConcordPosition *unknown = unknown_node(token, *map);

	if (unknown != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("session token names node %d, which does not exist", unknown->node),
				 errdetail("The node was removed from the cluster, or is not known here yet."),
				 errhint("RESET concord.token goes on without the token.")));
	return token;
}

/* ----------------------------------------------------------------- refusals */

static void
refuse(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 errmsg("cannot wait for a session token here"),
			 errdetail_internal("%s", detail),
			 errhint("Set concord.token before the first query of the transaction, or outside of one.")));
}

/* D2 */
static void
refuse_fixed_snapshot(void)
{
	if (FirstSnapshotSet && IsolationUsesXactSnapshot())
		refuse("The transaction has taken its snapshot, which may be older than the token.");
}

static bool
holds_relation_lock(void)
{
	bool		held;

	LWLockAcquire(&MyProc->fpInfoLock, LW_SHARED);
	held = concord_fast_path_locks();
	LWLockRelease(&MyProc->fpInfoLock);
	for (int partition = 0; partition < NUM_LOCK_PARTITIONS && !held; partition++)
	{
		LWLock	   *lock = LockHashPartitionLockByIndex(partition);

		LWLockAcquire(lock, LW_SHARED);
		for (PROCLOCK *mine = concord_next_lock(partition, NULL); mine != NULL && !held;
			 mine = concord_next_lock(partition, mine))
			held = mine->tag.myLock->tag.locktag_type == LOCKTAG_RELATION;
		LWLockRelease(lock);
	}
	return held;
}

/* D3 */
static void
refuse_snapshots(void)
{
	InvalidateCatalogSnapshot();
	if (ActiveSnapshotSet())
		refuse("A query is running.");
	if (TransactionIdIsValid(MyProc->xmin))
		refuse("The transaction has a snapshot in use (an open cursor?).");
}

static void
refuse_locks(void)
{
	if (holds_relation_lock())
		refuse("The transaction holds locks on tables, which can keep the server from applying what is waited for.");
}

/* ------------------------------------------------------------------ outcomes */

static char *
position_text(const ConcordPosition *position)
{
	return psprintf("%X/%X on timeline %u", LSN_FORMAT_ARGS((XLogRecPtr) position->lsn),
					position->timeline);
}

static const char *
option_of(Oid serverid, const char *name)
{
	ListCell   *lc;

	foreach(lc, GetForeignServer(serverid)->options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, name) == 0)
			return defGetString(option);
	}
	return NULL;
}

/* Says where the node's primary is, for a session that reads on a copy. */
static char *
where_to_go(const ConcordMap *map)
{
	const ConcordNode *node = concord_map_node(map, map->self);
	const char *host = NULL;
	const char *port = NULL;

	if (node != NULL && OidIsValid(node->serverid))
	{
		host = option_of(node->serverid, "host");
		port = option_of(node->serverid, "port");
	}
	if (host == NULL)
		return psprintf("Read on the primary of node \"%s\".", NameStr(map->self_name));
	return psprintf("Read on the primary of node \"%s\" (host %s, port %s).",
					NameStr(map->self_name), host, port == NULL ? "5432" : port);
}

static void
throw_lost(const ConcordMap *map, const ConcordPosition *position)
{
	ConcordServer server;

	concord_count(CONCORD_COUNT_TOKEN_LOST);
	concord_standing(map, &server);
	if (position->generation < server.generation)
		ereport(ERROR,
				(errcode(ERRCODE_CONCORD_WRITE_LOST),
				 errmsg("a write of this session cannot be found on node \"%s\" any more",
						NameStr(map->self_name)),
				 errdetail("The token was given in generation %d of the node's storage, which is now in generation %d: it was restored, upgraded or adopted since.",
						   position->generation, server.generation),
				 errhint("Check what is there; RESET concord.token goes on without the token.")));
	ereport(ERROR,
			(errcode(ERRCODE_CONCORD_WRITE_LOST),
			 errmsg("a write of this session was lost on node \"%s\"", NameStr(map->self_name)),
			 errdetail("The token has %s, but this server is at %X/%X on timeline %u, which does not contain it.",
					   position_text(position), LSN_FORMAT_ARGS((XLogRecPtr) server.lsn),
					   server.timeline),
			 errhint("Repeat the write; RESET concord.token goes on without the token.")));
}

static void
throw_not_reached(const ConcordMap *map, const ConcordPosition *position, bool left_behind)
{
	ConcordServer server;

	concord_standing(map, &server);
	ereport(ERROR,
			(errcode(ERRCODE_CONCORD_NOT_REACHED),
			 left_behind ?
			 errmsg("this server of node \"%s\" was left behind by the session's token",
					NameStr(map->self_name)) :
			 errmsg("this server of node \"%s\" has not reached the session's token in time",
					NameStr(map->self_name)),
			 errdetail("The token has %s; this server is at %X/%X on timeline %u.",
					   position_text(position), LSN_FORMAT_ARGS((XLogRecPtr) server.lsn),
					   server.timeline),
			 left_behind ?
			 errhint("Another server has taken the node's place; do not use this one any more.") :
			 concord_on_timeout == CONCORD_ON_TIMEOUT_PRIMARY ?
			 errhint("%s", where_to_go(map)) :
			 errhint("Repeat it, raise concord.wait_timeout, or read elsewhere; see concord.on_timeout.")));
}

/* What concord.on_timeout says of a wait that has ended. */
static void
conclude(const ConcordMap *map, const ConcordToken *token, ConcordWaitResult result, int which)
{
	if (result == CONCORD_WAIT_REACHED)
		return;
	if (result == CONCORD_WAIT_LOST)
		throw_lost(map, &token->positions[which]);
	concord_count(CONCORD_COUNT_TOKEN_TIMEOUTS);
	if (concord_on_timeout == CONCORD_ON_TIMEOUT_STALE)
	{
		concord_count(CONCORD_COUNT_TOKEN_STALE);
		return;
	}
	throw_not_reached(map, &token->positions[which], result == CONCORD_WAIT_LEFT_BEHIND);
}

/* Waits for a token, and deals with the outcome; locks: whether D3 looks at them. */
static void
demand(const char *text, bool look_at_locks)
{
	const ConcordMap *map;
	ConcordToken *token = concord_token_read(text, &map);
	ConcordWaitResult result;
	int			which;

	result = concord_look(map, token, &which);
	if (result == CONCORD_WAIT_TIMEOUT && concord_wait_timeout_ms > 0)
	{
		refuse_snapshots();
		if (look_at_locks)
			refuse_locks();
		concord_count(CONCORD_COUNT_TOKEN_WAITS);
		result = concord_wait_for(map, token, concord_wait_timeout_ms, &which);
	}
	conclude(map, token, result, which);
}

/* ------------------------------------------------------------------- setting */

static bool
check_value(const char *value, bool at_start)
{
	if (in_set || at_start || !IsTransactionState())
	{
		checked = true;
		return true;
	}
	if (IsTransactionBlock() || IsSubTransaction())
	{
		GUC_check_errcode(ERRCODE_ACTIVE_SQL_TRANSACTION);
		GUC_check_errmsg("cannot wait for a session token inside a transaction");
		GUC_check_errhint("Use SET LOCAL before the transaction's first query, or CALL concord.wait(token).");
		return false;
	}
	checked = true;
	return true;
}

static void
assign_value(const char *value)
{
	bool		by_user = checked;

	checked = false;
	if (concord_token_own || in_set || !by_user || IsParallelWorker())
		return;
	if (value[0] == '\0')
		due_at_commit = due_at_parse = false;
	else if (IsNormalProcessingMode())
		due_at_commit = true;
	else
		due_at_parse = true;
}

static void
refuse_in_between(void)
{
	if (due_at_commit)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("a session token set by set_config must be all of its transaction"),
				 errdetail("It is waited for at the end of the statement, so nothing may run in between."),
				 errhint("Send it on its own, or use CALL concord.wait(token).")));
}

static bool
sets_token(const Node *statement)
{
	return IsA(statement, VariableSetStmt) &&
		((const VariableSetStmt *) statement)->kind == VAR_SET_VALUE &&
		pg_strcasecmp(((const VariableSetStmt *) statement)->name, "concord.token") == 0;
}

/* Does the statement give up the session's token? */
static bool
resets_token(const Node *statement, bool *local)
{
	const VariableSetStmt *set = (const VariableSetStmt *) statement;

	*local = false;
	if (IsA(statement, DiscardStmt))
		return ((const DiscardStmt *) statement)->target == DISCARD_ALL;
	if (!IsA(statement, VariableSetStmt))
		return false;
	*local = set->is_local;
	return set->kind == VAR_RESET_ALL ||
		((set->kind == VAR_RESET || set->kind == VAR_SET_DEFAULT) &&
		 pg_strcasecmp(set->name, "concord.token") == 0);
}

/* D5: what PostgreSQL has reset to is a start-up option's token, if there was one. */
static void
blank_token(bool local)
{
	if (concord_token[0] != '\0')
		(void) set_config_option("concord.token", "", PGC_USERSET, PGC_S_SESSION,
								 local ? GUC_ACTION_LOCAL : GUC_ACTION_SET, true, 0, false);
}

/* Waits before SET concord.token takes effect (D4). */
static void
demand_of_set(VariableSetStmt *statement, ProcessUtilityContext context)
{
	char	   *value = ExtractSetVariableArgs(statement);

	if (value == NULL || value[0] == '\0')
		return;
	concord_require_preload();
	if (context != PROCESS_UTILITY_TOPLEVEL || ActiveSnapshotSet())
		refuse("It is set by a function or procedure.");
	refuse_fixed_snapshot();
	demand(value, true);
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
session_utility(PlannedStmt *statement, const char *source, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	Node	   *command = statement->utilityStmt;

	if (IsA(command, TransactionStmt))
		concord_track_command((TransactionStmt *) command);
	else
		refuse_in_between();	/* D1 */
	if (!sets_token(command))
	{
		bool		local;
		bool		resets = resets_token(command, &local);

		call_utility(statement, source, read_only_tree, context, params, environment, dest,
					 completion);
		if (resets)
			blank_token(local);
		return;
	}
	demand_of_set((VariableSetStmt *) command, context);
	in_set = true;
	PG_TRY();
	{
		call_utility(statement, source, read_only_tree, context, params, environment, dest,
					 completion);
	}
	PG_FINALLY();
	{
		in_set = checked = false;
	}
	PG_END_TRY();
}

static void
session_executor_start(QueryDesc *query, int eflags)
{
	refuse_in_between();		/* D1 */
	if (previous_start)
		previous_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
}

/* A start-up option is waited for when the first statement is parsed. */
static void
demand_of_start(void)
{
	bool		snapshot = ActiveSnapshotSet();

	if (snapshot)
		PopActiveSnapshot();
	if (FirstSnapshotSet && IsolationUsesXactSnapshot())
	{
		/* the snapshot stays what it is: wait, and let the client repeat the statement */
		demand(concord_token, false);
		due_at_parse = false;
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the snapshot was taken before the session's token was reached"),
				 errhint("Repeat the transaction.")));
	}
	demand(concord_token, false);
	due_at_parse = false;
	if (snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
}

static void
session_parse(ParseState *pstate, Query *query, JumbleState *jumble)
{
	if (previous_parse)
		previous_parse(pstate, query, jumble);
	/* D5; undone, the token is there again, and still due */
	if (due_at_parse && concord_token[0] != '\0' && !IsAbortedTransactionBlockState() &&
		!(query->utilityStmt != NULL &&
		  (IsA(query->utilityStmt, VariableSetStmt) || IsA(query->utilityStmt, DiscardStmt))))
		demand_of_start();
}

static void
session_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT && due_at_commit)
	{
		due_at_commit = false;
		if (concord_token[0] != '\0')	/* D5 */
			demand(concord_token, true);
	}
	else if (event == XACT_EVENT_ABORT)
		due_at_commit = checked = in_set = concord_token_own = false;
}

void
concord_session_init(void)
{
	concord_token_check_hook = check_value;
	concord_token_assign_hook = assign_value;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = session_utility;
	previous_start = ExecutorStart_hook;
	ExecutorStart_hook = session_executor_start;
	previous_parse = post_parse_analyze_hook;
	post_parse_analyze_hook = session_parse;
	RegisterXactCallback(session_callback, NULL);
	concord_waiters_init();
	concord_levels_init();
}

/* --------------------------------------------------------------------- SQL */

/* token() -> text: concord.token, NULL when the session has none. */
Datum
concord_token_sql(PG_FUNCTION_ARGS)
{
	concord_require_preload();
	if (concord_token[0] == '\0')
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(concord_token));
}

/* covers(token text) -> boolean: has this server reached it? */
Datum
concord_covers(PG_FUNCTION_ARGS)
{
	const ConcordMap *map;
	ConcordToken *token;
	int			which;

	concord_require_preload();
	token = concord_token_read(text_to_cstring(PG_GETARG_TEXT_PP(0)), &map);
	PG_RETURN_BOOL(concord_look(map, token, &which) == CONCORD_WAIT_REACHED);
}

/*
 * D3 for CALL: gives back the snapshot that the portal has taken for the call, and no other.
 */
static void
give_back_snapshot(void)
{
	Portal		portal = ActivePortal;

	refuse_fixed_snapshot();
	if (ActiveSnapshotSet())
	{
		if (portal == NULL || portal->portalSnapshot != GetActiveSnapshot())
			refuse("concord.wait was called within a query or a function.");
		PopActiveSnapshot();
		portal->portalSnapshot = NULL;
		if (ActiveSnapshotSet())
		{
			EnsurePortalSnapshotExists();
			refuse("concord.wait was called within a query or a function.");
		}
	}
	if (portal != NULL && portal->holdSnapshot != NULL)
	{
		UnregisterSnapshotFromOwner(portal->holdSnapshot, portal->resowner);
		portal->holdSnapshot = NULL;
	}
}

static int
timeout_of(const Interval *interval)
{
	Interval	copy = *interval;
	double		ms;

	/* an interval's months are thirty days, as in interval comparison */
	ms = copy.time / 1000.0 + (copy.day + copy.month * 30.0) * SECS_PER_DAY * 1000.0;
	if (ms < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the timeout must not be negative")));
	return ms > INT_MAX ? INT_MAX : (int) ceil(ms);
}

static Datum
wait_answer(FunctionCallInfo fcinfo, const char *answer)
{
	TupleDesc	desc;
	Datum		value = CStringGetTextDatum(answer);
	bool		null = false;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), &value, &null));
}

/* wait(token text, timeout interval, INOUT result text) */
Datum
concord_wait(PG_FUNCTION_ARGS)
{
	const char *answer = "unknown node";
	const ConcordMap *map;
	ConcordToken *token;
	int			timeout_ms = concord_wait_timeout_ms;
	ConcordWaitResult result;
	int			which;

	concord_require_preload();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("the token must not be null")));
	if (!PG_ARGISNULL(1))
		timeout_ms = timeout_of(PG_GETARG_INTERVAL_P(1));

	token = read_token(text_to_cstring(PG_GETARG_TEXT_PP(0)), &map);
	if (unknown_node(token, map) != NULL)
		return wait_answer(fcinfo, answer);
	give_back_snapshot();
	result = concord_look(map, token, &which);
	if (result == CONCORD_WAIT_TIMEOUT && timeout_ms > 0)
	{
		refuse_snapshots();
		refuse_locks();
		concord_count(CONCORD_COUNT_TOKEN_WAITS);
		result = concord_wait_for(map, token, timeout_ms, &which);
	}
	EnsurePortalSnapshotExists();
	switch (result)
	{
		case CONCORD_WAIT_REACHED:
			answer = "reached";
			break;
		case CONCORD_WAIT_TIMEOUT:
		case CONCORD_WAIT_LEFT_BEHIND:
			concord_count(CONCORD_COUNT_TOKEN_TIMEOUTS);
			answer = "timeout";
			break;
		case CONCORD_WAIT_LOST:
			concord_count(CONCORD_COUNT_TOKEN_LOST);
			answer = "lost";
			break;
	}
	return wait_answer(fcinfo, answer);
}

/* _token_waits(): who waits on this server. */
Datum
concord_token_waits(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ConcordWaiterView *views;
	int			n;

	concord_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	views = concord_waiters(&n);
	for (int i = 0; i < n; i++)
	{
		Datum		values[7];
		bool		nulls[7] = {false};

		if (views[i].dboid != MyDatabaseId)
			continue;
		values[0] = Int32GetDatum(views[i].pid);
		values[1] = ObjectIdGetDatum(views[i].role);
		values[2] = Int64GetDatum(views[i].timeline);
		values[3] = LSNGetDatum(views[i].lsn);
		values[4] = BoolGetDatum(views[i].xid != 0);
		values[5] = TimestampTzGetDatum(views[i].since);
		values[6] = Int32GetDatum(views[i].timeout_ms);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* _session_stats(): one row of this database's counters. */
Datum
concord_session_stats(PG_FUNCTION_ARGS)
{
	static const ConcordCounter counters[] = {
		CONCORD_COUNT_TOKEN_WAITS, CONCORD_COUNT_TOKEN_TIMEOUTS, CONCORD_COUNT_TOKEN_STALE,
		CONCORD_COUNT_TOKEN_LOST, CONCORD_COUNT_READS_REPLICA, CONCORD_COUNT_READS_PRIMARY,
		CONCORD_COUNT_READS_AGAIN
	};

	return concord_counters_row(fcinfo, counters, lengthof(counters));
}
