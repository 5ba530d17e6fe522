/*
 * views.c
 *		What any node can tell about the distributed transactions of all.
 *
 * WHAT: concord.transactions, concord.transaction_stats and concord.transaction_outcome().
 *
 * PROMISE: each answers within concord.view_timeout and the time of a local query, whatever the
 * other nodes do; one that does not answer is a row of NULLs, or the outcome unknown with a NOTICE.
 * Works on a standby, which has no transactions of its own and asks its primary like any other
 * node.
 *
 * INVARIANTS
 * V1 committed and aborted are said only if a node says so, from its records (outcome.c).
 * V2 Nodes are asked as concord.node_role, which sees everything; what the caller may see is
 *    decided here.
 * V3 The nodes answer at different moments: a branch may be shown in doubt that has just been
 *    finished.
 *
 * What is left when something dies: nothing; all of this only reads.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "cluster/room.h"
#include "commit/commit.h"
#include "commit/resolver.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(concord_transaction_outcome);
PG_FUNCTION_INFO_V1(concord_transactions_here);
PG_FUNCTION_INFO_V1(concord_cluster_transactions);
PG_FUNCTION_INFO_V1(concord_transaction_stats);

/* Columns of _transactions(); all text, as they come from a peer, NULL for unknown. */
enum
{
	TX_GID, TX_PARTICIPANTS, TX_STATE, TX_AGE, TX_LABEL, TX_PID, TX_ROLE, TX_COLUMNS
};

typedef struct Row
{
	int			node_id;
	char	   *values[TX_COLUMNS];
	ConcordGid	gid;
	ConcordGidForm form;
} Row;

static const char *const STATE_PREPARED = "prepared";
static const char *const STATE_IN_DOUBT = "in doubt";

/* ------------------------------------------------------------- this node's */

static const char *
state_name(ConcordTxnState state)
{
	switch (state)
	{
		case CONCORD_TXN_PREPARING:
			return "preparing";
		case CONCORD_TXN_DECIDED:
			return "committing";
		case CONCORD_TXN_FINISHING:
			return "finishing";
		default:
			return "running";
	}
}

static char *
age_text(TimestampTz since)
{
	Datum		now = TimestampTzGetDatum(GetCurrentTimestamp());
	Datum		age = DirectFunctionCall2(timestamp_mi, now, TimestampTzGetDatum(since));

	return DatumGetCString(DirectFunctionCall1(interval_out, age));
}

static char *
participants_text(const int16 *participants, int n)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < n; i++)
		appendStringInfo(&text, "%s%d", i == 0 ? "{" : ",", participants[i]);
	appendStringInfoString(&text, n == 0 ? "{}" : "}");
	return text.data;
}

static char *
role_name(Oid role)
{
	return OidIsValid(role) ? GetUserNameFromId(role, true) : NULL;
}

/* The row of one copied entry; the role is read after, and may be another's by then. */
static Row *
session_row(const ConcordMap *map, const ConcordSession *session, int procno)
{
	Row		   *row = palloc0(sizeof(Row));
	char		text[CONCORD_GID_SIZE];

	row->node_id = map->self;
	memcpy(row->gid.cluster, map->cluster_id.data, sizeof(row->gid.cluster));
	row->gid.coordinator = map->self;
	row->gid.incarnation = ConcordShared->incarnation;
	row->gid.serial = session->serial;
	row->gid.protocol = CONCORD_PROTOCOL_2PC;
	row->form = CONCORD_GID_TRANSACTION;
	(void) concord_gid_format_transaction(&row->gid, text);
	row->values[TX_GID] = pstrdup(text);
	row->values[TX_PARTICIPANTS] = participants_text(session->participants,
													 session->nparticipants);
	row->values[TX_STATE] = pstrdup(state_name(session->state));
	row->values[TX_AGE] = age_text(session->started_at);
	row->values[TX_LABEL] = session->label[0] != '\0' ? pstrdup(session->label) : NULL;
	row->values[TX_PID] = psprintf("%d", session->pid);
	row->values[TX_ROLE] = role_name(ProcGlobal->allProcs[procno].roleId);
	return row;
}

static List *
own_sessions(const ConcordMap *map)
{
	List	   *rows = NIL;

	for (int i = 0; ConcordSessions != NULL && i < concord_sessions_count(); i++)
	{
		ConcordSession session;

		LWLockAcquire(ConcordSessionsLock, LW_SHARED);
		session = ConcordSessions[i];
		LWLockRelease(ConcordSessionsLock);
		if (session.pid != 0 && session.dboid == MyDatabaseId &&
			session.state != CONCORD_TXN_NONE && session.serial != 0)
			rows = lappend(rows, session_row(map, &session, i));
	}
	return rows;
}

/* Branches and sessions of this node; it must be a primary. */
static List *
own_rows(const ConcordMap *map)
{
	List	   *rows = own_sessions(map);
	int			self = map->self;
	ListCell   *lc;

	foreach(lc, concord_prepared_list(map))
	{
		const ConcordPrepared *branch = lfirst(lc);
		Row		   *row = palloc0(sizeof(Row));
		int16		participant = (int16) self;

		row->node_id = self;
		row->gid = branch->gid;
		row->form = CONCORD_GID_BRANCH;
		row->values[TX_GID] = pstrdup(branch->text);
		row->values[TX_PARTICIPANTS] = participants_text(&participant, 1);
		row->values[TX_STATE] = pstrdup(STATE_PREPARED);
		row->values[TX_AGE] = age_text(branch->prepared_at);
		row->values[TX_ROLE] = role_name(branch->owner);
		rows = lappend(rows, row);
	}
	return rows;
}

Datum
concord_transactions_here(PG_FUNCTION_ARGS)
{
	static const Oid types[TX_COLUMNS] = {TEXTOID, INT4ARRAYOID, TEXTOID, INTERVALOID, TEXTOID,
	INT4OID, TEXTOID};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *lc;

	concord_require_preload();
	concord_require_node_role();
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("the server is a standby"),
				 errdetail("A node is asked at its primary.")));
	AcceptInvalidationMessages();
	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, own_rows(concord_map_member()))
	{
		Row		   *row = lfirst(lc);
		Datum		values[TX_COLUMNS];
		bool		nulls[TX_COLUMNS];

		for (int i = 0; i < TX_COLUMNS; i++)
		{
			nulls[i] = row->values[i] == NULL;
			values[i] = nulls[i] ? (Datum) 0 : concord_text_input(row->values[i], types[i]);
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* ------------------------------------------------------------- all nodes' */

/* Takes a peer's rows; returns false if it has not answered well. */
static bool
add_reply(List **rows, int node_id, const ConcordReply *reply)
{
	if (reply == NULL || !reply->ok || reply->ncols != TX_COLUMNS)
		return false;
	for (int r = 0; r < reply->nrows; r++)
	{
		Row		   *row = palloc0(sizeof(Row));

		row->node_id = node_id;
		for (int i = 0; i < TX_COLUMNS; i++)
			row->values[i] = concord_reply_value(reply, r, i);
		if (row->values[TX_GID] != NULL)
			row->form = concord_gid_parse(row->values[TX_GID], strlen(row->values[TX_GID]),
										  &row->gid);
		if (row->form != CONCORD_GID_FOREIGN)
			*rows = lappend(*rows, row);
	}
	return true;
}

static bool
is_live(List *rows, const ConcordGid *gid)
{
	ListCell   *lc;

	foreach(lc, rows)
	{
		const Row  *row = lfirst(lc);

		if (row->form == CONCORD_GID_TRANSACTION &&
			concord_gid_same_transaction(&row->gid, gid))
			return true;
	}
	return false;
}

static char *
name_of(const ConcordMap *map, int node_id)
{
	const ConcordNode *node = concord_map_node(map, node_id);

	return node != NULL ? pstrdup(NameStr(node->name)) : psprintf("%d", node_id);
}

/* node ids as _transactions() writes them, as an array of names */
static Datum
names_of(const ConcordMap *map, const char *ids)
{
	ArrayType  *array = DatumGetArrayTypeP(concord_text_input(ids, INT4ARRAYOID));
	Datum	   *elements;
	int			n;

	deconstruct_array(array, INT4OID, sizeof(int32), true, TYPALIGN_INT, &elements, NULL, &n);
	for (int i = 0; i < n; i++)
		elements[i] = DirectFunctionCall1(namein,
										  CStringGetDatum(name_of(map,
																  DatumGetInt32(elements[i]))));
	return PointerGetDatum(construct_array(elements, n, NAMEOID, NAMEDATALEN, false,
										   TYPALIGN_CHAR));
}

/* V2 */
static bool
may_see_details(const ConcordMap *map, const Row *row)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) ||
		(row->node_id == map->self && row->values[TX_ROLE] != NULL &&
		 strcmp(row->values[TX_ROLE], GetUserNameFromId(GetUserId(), false)) == 0);
}

static void
put_text(Datum *value, bool *isnull, const char *text, Oid type)
{
	*isnull = text == NULL;
	*value = text == NULL ? (Datum) 0 : concord_text_input(text, type);
}

static void
put_row(ReturnSetInfo *rsinfo, const ConcordMap *map, const Row *row, List *all)
{
	bool		details = may_see_details(map, row);
	const char *state = row->values[TX_STATE];
	Datum		values[9];
	bool		nulls[9] = {false};

	if (row->form == CONCORD_GID_BRANCH)
		state = is_live(all, &row->gid) ? STATE_PREPARED : STATE_IN_DOUBT;
	put_text(&values[0], &nulls[0], name_of(map, row->node_id), NAMEOID);
	put_text(&values[1], &nulls[1], row->values[TX_GID], TEXTOID);
	put_text(&values[2], &nulls[2], name_of(map, row->gid.coordinator), NAMEOID);
	nulls[3] = row->values[TX_PARTICIPANTS] == NULL;
	values[3] = nulls[3] ? (Datum) 0 : names_of(map, row->values[TX_PARTICIPANTS]);
	put_text(&values[4], &nulls[4], state, TEXTOID);
	put_text(&values[5], &nulls[5], row->values[TX_AGE], INTERVALOID);
	put_text(&values[6], &nulls[6], details ? row->values[TX_LABEL] : NULL, TEXTOID);
	put_text(&values[7], &nulls[7], details ? row->values[TX_PID] : NULL, INT4OID);
	put_text(&values[8], &nulls[8], details ? row->values[TX_ROLE] : NULL, TEXTOID);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static void
put_silent(ReturnSetInfo *rsinfo, const char *name)
{
	Datum		values[9] = {DirectFunctionCall1(namein, CStringGetDatum(name))};
	bool		nulls[9];

	memset(nulls, true, sizeof(nulls));
	nulls[0] = false;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
concord_cluster_transactions(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		standby = RecoveryInProgress();
	const ConcordMap *map;
	ConcordLink **links;
	ConcordReply **replies;
	char	  **names;
	int		   *ids;
	int			n;
	List	   *rows = NIL;
	ListCell   *lc;

	concord_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	AcceptInvalidationMessages();
	map = concord_map();
	if (map->membership != CONCORD_MEMBER)
		return (Datum) 0;
	n = concord_view_links(map, 0, standby ? NIL : list_make1_int(map->self), &links, &names, &ids);
	replies = concord_view_ask(links, n, "SELECT gid, participants, state, age, label, pid, role"
						" FROM concord._transactions()", 0, NULL, concord_view_deadline());
	if (!standby)
		rows = own_rows(concord_map());
	for (int i = 0; i < n; i++)
		if (!add_reply(&rows, ids[i], replies[i]))
			put_silent(rsinfo, names[i]);
	map = concord_map();
	foreach(lc, rows)
		put_row(rsinfo, map, lfirst(lc), rows);
	return (Datum) 0;
}

/* ------------------------------------------------------------- outcome */

/* V1: of two answers, the one that says more. */
static ConcordVerdict
better(ConcordVerdict a, const char *answer)
{
	static const ConcordVerdict order[] = {CONCORD_VERDICT_COMMIT, CONCORD_VERDICT_WAIT,
	CONCORD_VERDICT_ABORT};

	for (int i = 0; i < (int) lengthof(order); i++)
	{
		if (a == order[i])
			return a;
		if (strcmp(answer, concord_verdict_name(order[i])) == 0)
			return order[i];
	}
	return CONCORD_VERDICT_UNKNOWN;
}

static void
tell_silent(const char *name, const ConcordReply *reply)
{
	ereport(NOTICE,
			(errmsg("node \"%s\" has not answered", name),
			 reply == NULL ? errdetail("It was not reached within %d ms.",
									   concord_view_timeout_ms) :
			 reply->ok ? 0 : errdetail_internal("%s", reply->detail != NULL ? reply->detail :
												reply->message)));
}

/*
 * Asks one node (0: all) but those in skip, this one too.  Who does not answer is told in a
 * NOTICE, and sets *silent.
 */
static ConcordVerdict
ask_outcome(int only, List *skip, const char *text, TimestampTz until, bool *silent)
{
	ConcordVerdict verdict = CONCORD_VERDICT_UNKNOWN;
	int			self = concord_map()->self;
	ConcordLink **links;
	ConcordReply **replies;
	char	  **names;
	int		   *ids;
	int			n;

	if (!RecoveryInProgress())
	{
		if ((only == 0 || only == self) && !list_member_int(skip, self))
			verdict = better(verdict, concord_outcome_local(text));
		skip = lappend_int(list_copy(skip), self);
	}
	n = concord_view_links(concord_map(), only, skip, &links, &names, &ids);
	replies = concord_view_ask(links, n, "SELECT concord._outcome($1)", 1, &text, until);
	for (int i = 0; i < n; i++)
	{
		const ConcordReply *reply = replies[i];

		if (reply != NULL && reply->ok && reply->nrows == 1 && reply->ncols == 1 &&
			concord_reply_value(reply, 0, 0) != NULL)
			verdict = better(verdict, concord_reply_value(reply, 0, 0));
		else
		{
			tell_silent(names[i], reply);
			*silent = true;
		}
	}
	return verdict;
}

Datum
concord_transaction_outcome(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const ConcordMap *map;
	ConcordGid	gid;
	ConcordVerdict verdict = CONCORD_VERDICT_UNKNOWN;
	TimestampTz until = concord_view_deadline();
	bool		silent = false;
	bool		is_label;

	AcceptInvalidationMessages();
	map = concord_map_member();
	is_label = concord_gid_parse(name, strlen(name), &gid) == CONCORD_GID_FOREIGN;
	if (is_label && concord_label_check(name, strlen(name)) != CONCORD_LABEL_GOOD)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is neither a global transaction id nor a transaction label",
						name)));
	if (is_label)
		verdict = ask_outcome(0, NIL, name, until, &silent);
	else if (memcmp(gid.cluster, map->cluster_id.data, sizeof(gid.cluster)) == 0)
	{
		if (concord_map_node(map, gid.coordinator) != NULL)
			verdict = ask_outcome(gid.coordinator, NIL, name, until, &silent);
		if (verdict == CONCORD_VERDICT_UNKNOWN && !silent)
			verdict = ask_outcome(0, list_make1_int(gid.coordinator), name, until, &silent);
	}
	return CStringGetTextDatum(concord_verdict_name(verdict));
}

/* ------------------------------------------------------------- counters */

Datum
concord_transaction_stats(PG_FUNCTION_ARGS)
{
	static const ConcordCounter counters[] = {
		CONCORD_COUNT_COMMITTED_1PC, CONCORD_COUNT_COMMITTED_2PC, CONCORD_COUNT_ABORTED,
		CONCORD_COUNT_UNFINISHED, CONCORD_COUNT_RECOVERED, CONCORD_COUNT_FORCED,
	CONCORD_COUNT_DEADLOCKS};

	return concord_counters_row(fcinfo, counters, lengthof(counters));
}
