/*
 * peer.c
 *		Users' statements on other nodes: start, finish, and what can be seen of the connections.
 *
 * See statement.c for what one statement sends, branch.c for its transaction, conn.c for bounds.
 *
 * WHEN A PEER IS SILENT: a wait ends with the answer, the loss of the connection (keepalives and
 * tcp_user_timeout find a vanished host within 30 s), concord.statement_deadline, an interrupt
 * (cancel, statement_timeout, termination), or when the worker has declared the node down:
 * heartbeats travel on their own connection, so a long statement on a healthy node is never
 * given up.  A statement that commits by itself is not just given up, for it may be committed by
 * then: it is cancelled, and its answer, or its missing answer, is what the caller is told.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "base/errors.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "peer/conn.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define HEALTH_CHECK_MS 1000
#define SOON_MS			10		/* one answer is waited for before all the others are */

void		(*concord_writing_hook) (void) = NULL;
void		(*concord_peer_token_hook) (const ConcordConn *conn, ConcordPeerEvent event,
										const char *token) = NULL;

ConcordConn *
concord_peer_start(const ConcordTarget *target, const ConcordRemoteQuery *query,
				   const ConcordSink *sink, int source)
{
	ConcordConn *conn;

	concord_require_preload();
	conn = concord_conn_get(target, GetUserId());
	if (conn->branch == CONCORD_BRANCH_LOST)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("connection to node \"%s\" was lost during the transaction", conn->name)));
	if (conn->query != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("the connection to node \"%s\" is in use", conn->name),
				 errdetail("A statement of this session is still running there.")));

	if (conn->branch == CONCORD_BRANCH_NONE)
		concord_branch_warn();
	conn->target = target;
	conn->query = query;
	conn->sink = sink;
	conn->source = source;
	conn->described = conn->answered = conn->any_answer = false;
	conn->begun_now = false;
	conn->whole = CONCORD_PART;
	conn->replan = false;
	conn->attempts = 0;
	conn->rows = 0;
	conn->started_at = 0;
	conn->reused = conn->pg != NULL;
	if (conn->pg == NULL)
		concord_conn_open(conn);
	else
		concord_conn_send_query(conn, target);
	return conn;
}

static bool
peer_is_down(ConcordConn *conn)
{
	/* one aligned word, written by the worker: no lock needed for a hint */
	return conn->shared != NULL && conn->shared->health == CONCORD_DOWN;
}

/*
 * The answer to a statement that commits by itself is waited for no longer: stops it on the peer.
 * Returns if it was committed all the same or the peer's error tells why it was not; raises 08007
 * if neither can be found out (W2).
 */
static void
stop_whole(ConcordConn *conn)
{
	if (concord_conn_quiesce(conn))
		return;
	concord_conn_close(conn);	/* C3 */
	concord_branch_outcome_unknown(conn);
}

/* The running statement is the first thing done, or to be done, in the branch there. */
static bool
nothing_before(const ConcordConn *conn)
{
	return conn->begun_now || conn->branch == CONCORD_BRANCH_NONE;
}

static void
give_up(ConcordConn *conn, int timeout_ms)
{
	bool		connected = conn->connected;

	if (conn->replica_id != 0 && nothing_before(conn))
	{
		concord_conn_lost(conn);
		return;					/* another copy will do (copy_refused) */
	}
	if (conn->whole == CONCORD_WHOLE_WRITE)
	{
		stop_whole(conn);
		if (conn->error.message == NULL)
			return;
	}
	ereport(ERROR,
			(errcode(connected ? ERRCODE_CONNECTION_FAILURE :
					 ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
			 errmsg("node \"%s\" is not reachable", conn->name),
			 timeout_ms > 0 ? errdetail("It did not answer within %d ms.", timeout_ms) :
			 errdetail("It does not answer heartbeats.")));
}

/*
 * Raises when a connection has been waited for long enough, unless it turns out that its statement
 * has committed by itself.
 */
static void
check_deadline(ConcordConn *conn, TimestampTz now, bool waited)
{
	int			limit = conn->connected ? concord_statement_deadline_ms :
		concord_connect_timeout_ms;

	if (conn->started_at == 0)
		conn->started_at = now;
	if (limit > 0 && now >= TimestampTzPlusMilliseconds(conn->started_at, limit))
		give_up(conn, limit);
	/* a node that is down for the worker gets one more second: it may just be back */
	if (waited && peer_is_down(conn) &&
		now >= TimestampTzPlusMilliseconds(conn->started_at, HEALTH_CHECK_MS))
		give_up(conn, 0);
}

static int
advance_all(ConcordConn **conns, int n)
{
	int			waiting = 0;

	for (int i = 0; i < n; i++)
	{
		if (!conns[i]->answered)
			concord_conn_advance(conns[i]);
		if (conns[i]->notices != NIL)
			concord_conn_emit_notices(conns[i]);
		if (!conns[i]->answered)
			waiting++;
		else if (conns[i]->error.message != NULL)
			return 0;			/* no need to wait for the others */
	}
	return waiting;
}

static bool
all_connected(ConcordConn **conns, int n)
{
	for (int i = 0; i < n; i++)
		if (!conns[i]->connected && !conns[i]->answered)
			return false;
	return true;
}

/*
 * Waits until something comes from one of the unanswered connections. The usual case is that all
 * answers come soon and all are needed: then it is cheaper to wait for one after the other.
 */
static void
wait_for_any(ConcordConn **conns, int n, long timeout_ms, bool soon)
{
	ConcordConn *first = NULL;
	int			unanswered = 0;

	for (int i = 0; i < n; i++)
		if (!conns[i]->answered && unanswered++ == 0)
			first = conns[i];
	if (unanswered == 1)
		concord_conn_wait(&first, 1, timeout_ms);
	else if (soon && first->connected)
		concord_conn_wait(&first, 1, Min(timeout_ms, SOON_MS));
	else
		concord_conn_wait(conns, n, timeout_ms);
}

/* Was something sent to all of them?  Then the first thing to do is to wait, not to look. */
static bool
all_were_sent(ConcordConn **conns, int n)
{
	for (int i = 0; i < n; i++)
		if (!conns[i]->connected || conns[i]->answered)
			return false;
	return n > 0;
}

/* A cancel request that comes meanwhile ends it, but stays pending for a whole statement (W3). */
static void
wait_interruptibly(ConcordConn **conns, int n, long timeout_ms, bool soon)
{
	bool		whole = conns[0]->whole == CONCORD_WHOLE_WRITE;

	if (whole)
		HOLD_CANCEL_INTERRUPTS();
	CHECK_FOR_INTERRUPTS();
	wait_for_any(conns, n, timeout_ms, soon);
	CHECK_FOR_INTERRUPTS();
	if (whole)
		RESUME_CANCEL_INTERRUPTS();
	if (whole && QueryCancelPending)
		stop_whole(conns[0]);
}

/* until_sent: only until every statement is on its way */
static void
wait_for_answers(ConcordConn **conns, int n, bool until_sent)
{
	bool		waited = false;

	while ((!waited && all_were_sent(conns, n)) || advance_all(conns, n) > 0)
	{
		long		timeout_ms = HEALTH_CHECK_MS;

		if (until_sent && all_connected(conns, n))
			break;
		if (waited || !conns[0]->connected || concord_statement_deadline_ms > 0)
		{
			TimestampTz now = GetCurrentTimestamp();

			for (int i = 0; i < n; i++)
				if (!conns[i]->answered)
					check_deadline(conns[i], now, waited);
		}
		if (concord_statement_deadline_ms > 0)
			timeout_ms = Min(timeout_ms, concord_statement_deadline_ms);
		timeout_ms = Min(timeout_ms, concord_connect_timeout_ms);
		if (!conns[0]->answered || n > 1)
			wait_interruptibly(conns, n, timeout_ms, !waited);
		waited = true;
	}
}

/* The same for one statement that commits by itself: then, what it means for the transaction. */
static void
wait_for_whole(ConcordConn *conn)
{
	wait_for_answers(&conn, 1, false);
	if (conn->whole != CONCORD_WHOLE_WRITE)
		return;					/* sent again, over a new connection, with BEGIN */
	if (conn->lost && (conn->completed || !conn->ended))
		concord_branch_outcome_unknown(conn);	/* W2 */
	if (conn->error.message != NULL)
	{
		/* perhaps the peer was cancelled since we are */
		CHECK_FOR_INTERRUPTS();
		return;
	}
	concord_branch_hold_interrupts();
	/* the tag tells; the peer's report of its transaction id ends with its transaction */
	if (conn->rows > 0)
		concord_count(CONCORD_COUNT_COMMITTED_1PC);
}

/*
 * All failed with "stale map" or did not fail, and nothing had been done in their branches before?
 */
static bool
may_start_again(ConcordConn **conns, int n)
{
	bool		stale = false;

	for (int i = 0; i < n; i++)
	{
		if (!conns[i]->begun_now)
			return false;
		if (conns[i]->error.message != NULL)
		{
			if (conns[i]->error.sqlstate != ERRCODE_CONCORD_STALE_MAP || conns[i]->lost)
				return false;
			stale = true;
		}
	}
	return stale;
}

/* Starting over rolls all their branches back: nothing that was done before may be in them. */
static bool
nothing_before_all(ConcordConn **conns, int n)
{
	for (int i = 0; i < n; i++)
		if (!nothing_before(conns[i]))
			return false;
	return true;
}

/* W4; a replica cannot write at all */
static bool
refused_to_write(ConcordConn *conn, ConcordConn **conns, int n)
{
	if (conn->replica_id != 0 && !conn->lost &&
		conn->error.sqlstate == ERRCODE_READ_ONLY_SQL_TRANSACTION)
		return nothing_before_all(conns, n);
	return conn->whole == CONCORD_WHOLE_READ && !conn->lost &&
		conn->error.sqlstate == ERRCODE_NO_ACTIVE_SQL_TRANSACTION;
}

/* Did the failed one, a copy, not answer for a reason that another copy may not have? */
static bool
copy_refused(ConcordConn *failed, ConcordConn **conns, int n)
{
	int			sqlstate = failed->error.sqlstate;

	if (failed->replica_id == 0 || !nothing_before_all(conns, n))
		return false;
	/* bounded: the copy has gone back, as after a restart; no token's business */
	if (sqlstate == ERRCODE_CONCORD_NOT_REACHED)
		return concord_consistency == CONCORD_BOUNDED ||
			concord_on_timeout != CONCORD_ON_TIMEOUT_ERROR;
	return failed->lost || sqlstate == ERRCODE_CONCORD_STALE_MAP ||
		sqlstate == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE ||	/* hello: not what it was */
		sqlstate == ERRCODE_T_R_SERIALIZATION_FAILURE ||	/* a conflict with replay */
		sqlstate == ERRCODE_ADMIN_SHUTDOWN || sqlstate == ERRCODE_CRASH_SHUTDOWN ||
		sqlstate == ERRCODE_CANNOT_CONNECT_NOW;
}

static void
start_over(ConcordConn **conns, int n)
{
	for (int i = 0; i < n; i++)
	{
		ConcordConn *conn = conns[i];

		conn->sink = NULL;
		if (conn->lost)
		{
			concord_conn_close(conn);
			concord_error_free(&conn->error);
			conn->lost = false;
			conn->branch = CONCORD_BRANCH_NONE;
			continue;
		}
		if (!conn->answered && !concord_conn_quiesce(conn))
			concord_conn_close(conn);
		concord_error_free(&conn->error);
		conn->told_epoch = 0;
		concord_branch_rollback(conn);
		concord_conn_forget_statement(conn);
	}
}

/* A plan whose result type changed: plan anew, once, if the branch holds nothing else. */
static bool
plan_again(ConcordConn *conn)
{
	const ConcordTarget *target = conn->target;
	const ConcordRemoteQuery *query = conn->query;
	const ConcordSink *sink = conn->sink;
	ConcordPrepared *entry;

	if (!conn->replan || conn->lost)
		return false;
	entry = conn->prepared == NULL ? NULL :
		hash_search(conn->prepared, &query->hash, HASH_FIND, NULL);
	if (entry != NULL)
		entry->replan = true;
	if (!conn->begun_now || conn->attempts > 0 || conn->described)
		return false;

	concord_error_free(&conn->error);
	concord_branch_rollback(conn);
	conn->attempts++;
	conn->answered = conn->any_answer = conn->replan = false;
	conn->target = target;
	conn->query = query;
	conn->sink = sink;
	concord_conn_send_query(conn, target);
	return true;
}

/* Waits for the answers to what was sent without a statement: PREPARE. Can be interrupted. */
void
concord_conn_await(ConcordConn **conns, int n)
{
	wait_for_answers(conns, n, false);
}

void
concord_peer_sent(ConcordConn **conns, int n)
{
	if (!all_connected(conns, n))
		wait_for_answers(conns, n, true);
}

ConcordFinish
concord_peer_finish(ConcordConn **conns, int n)
{
	ConcordConn *failed;

	do
	{
		if (n == 1 && conns[0]->whole == CONCORD_WHOLE_WRITE)
			wait_for_whole(conns[0]);
		else
			wait_for_answers(conns, n, false);
		failed = NULL;
		for (int i = 0; i < n && failed == NULL; i++)
			if (conns[i]->error.message != NULL)
				failed = conns[i];
	} while (failed != NULL && plan_again(failed));

	if (failed != NULL)
	{
		if (copy_refused(failed, conns, n))
		{
			bool		late = failed->error.sqlstate == ERRCODE_CONCORD_NOT_REACHED &&
				concord_consistency != CONCORD_BOUNDED;

			start_over(conns, n);
			return late ? CONCORD_REFUSED_LATE : CONCORD_REFUSED_COPY;
		}
		if (refused_to_write(failed, conns, n))
		{
			start_over(conns, n);
			return CONCORD_REFUSED_WRITE;
		}
		if (may_start_again(conns, n))
		{
			start_over(conns, n);
			return CONCORD_REFUSED_STALE;
		}
		concord_conn_throw(failed, &failed->error);
	}
	for (int i = 0; i < n; i++)
	{
		concord_conn_forget_statement(conns[i]);
		if ((conns[i]->wrote || conns[i]->holds) && concord_writing_hook != NULL)
			concord_writing_hook();
	}
	return CONCORD_FINISHED;
}

int64
concord_peer_rows(ConcordConn *conn)
{
	return conn->rows;
}

/* ---------------------------------------------------------------- types */

typedef struct TypeEntry
{
	Oid			local;			/* key */
	Oid			remote;
} TypeEntry;

static void
type_describe(void *arg, int source, int ncols, const Oid *types, const char *const *names)
{
}

static void
type_row(void *arg, int source, int ncols, char *const *values, const int *lengths)
{
	if (values[0] != NULL)
		*(Oid *) arg = (Oid) strtoul(values[0], NULL, 10);
}

Oid
concord_peer_type(const ConcordTarget *target, Oid type)
{
	ConcordConn *conn;
	TypeEntry  *entry;
	Oid			remote = InvalidOid;
	ConcordSink sink = {type_describe, type_row, &remote};
	const char *values[1];
	ConcordRemoteQuery query = {
		.sql = "SELECT pg_catalog.to_regtype($1)::pg_catalog.oid",
		.nparams = 1, .values = values, .wants_rows = true
	};

	if (type < FirstGenbkiObjectId)
		return type;			/* the same everywhere */
	conn = concord_conn_get(target, GetUserId());
	if (conn->types != NULL && conn->pg != NULL)
	{
		entry = hash_search(conn->types, &type, HASH_FIND, NULL);
		if (entry != NULL)
			return entry->remote;
	}

	values[0] = format_type_extended(type, -1, FORMAT_TYPE_FORCE_QUALIFY);
	query.hash = concord_query_hash(query.sql, 0, NULL);
	conn = concord_peer_start(target, &query, &sink, 0);
	if (concord_peer_finish(&conn, 1) != CONCORD_FINISHED)
		return InvalidOid;		/* stale map: the statement itself will find out */
	if (!OidIsValid(remote))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("type %s does not exist on node \"%s\"", values[0], target->name)));
	if (conn->types == NULL)
	{
		HASHCTL		info = {
			.keysize = sizeof(Oid), .entrysize = sizeof(TypeEntry), .hcxt = conn->context
		};

		conn->types = hash_create("pg_concord types", 16, &info,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(conn->types, &type, HASH_ENTER, NULL);
	entry->remote = remote;
	return remote;
}

/* --------------------------------------------------------------- SQL */

PG_FUNCTION_INFO_V1(concord_connections);
PG_FUNCTION_INFO_V1(concord_close_connections);

/* _connections(): one row for each connection of this session. */
Datum
concord_connections(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	dlist_iter	iter;

	InitMaterializedSRF(fcinfo, 0);
	dlist_foreach(iter, &concord_conns)
	{
		ConcordConn *conn = dlist_container(ConcordConn, node, iter.cur);
		Datum		values[8];
		bool		nulls[8] = {false};

		if (conn->pg == NULL || !conn->connected || conn->reaped)
			continue;
		values[0] = DirectFunctionCall1(namein, CStringGetDatum(conn->name));
		values[1] = ObjectIdGetDatum(conn->userid);
		values[2] = CStringGetTextDatum(conn->branch == CONCORD_BRANCH_NONE ? "idle" :
										conn->wrote ? "writing" : "in transaction");
		values[3] = Int32GetDatum(conn->backend_pid);
		nulls[3] = conn->backend_pid == 0;
		values[4] = TimestampTzGetDatum(conn->opened_at);
		values[5] = TimestampTzGetDatum(conn->idle_since);
		nulls[5] = conn->idle_since == 0;
		values[6] = Int32GetDatum(conn->nprepared);
		values[7] = BoolGetDatum(!conn->invalidated);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* close_connections(node name): closes this session's resting connections. */
Datum
concord_close_connections(PG_FUNCTION_ARGS)
{
	const char *name = PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));
	int			closed = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &concord_conns)
	{
		ConcordConn *conn = dlist_container(ConcordConn, node, iter.cur);

		if (conn->pg == NULL || (name != NULL && strcmp(name, conn->name) != 0))
			continue;
		if (conn->branch != CONCORD_BRANCH_NONE || conn->query != NULL)
		{
			ereport(WARNING,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("the connection to node \"%s\" is part of the running transaction",
							conn->name)));
			continue;
		}
		concord_conn_close(conn);
		closed++;
	}
	PG_RETURN_INT32(closed);
}
