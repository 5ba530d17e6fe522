/*
 * branch.c
 *		The remote transaction of each peer, and how it follows the local one.
 *
 * PROMISE: what a transaction wrote on a peer is committed there if and only if the local COMMIT
 * succeeds, or the client is told 08007 (the answer was lost: unknown).  Until atomic commit
 * over several nodes exists a transaction may write on one node only; the second is refused
 * with 0A000 as soon as the peer's report shows it, at the latest before COMMIT is sent to anybody.
 *
 * INVARIANTS
 * B1 A branch has the isolation level, read-only and deferrable state of the local transaction.
 * B2 The peer's savepoints s2 .. s<saved_level> stand for the local nest levels 2 ..
 *    saved_level.  Levels above release_to were released locally; their RELEASE travels with
 *    the next statement.
 * B3 wrote is set by the peer's own report (concord.branch_state, in the answer of the statement):
 *    the branch has a transaction id.  A branch without one has written nothing, so losing
 *    the answer to its COMMIT means nothing, and it is not awaited.
 * B4 At most one of the branches and the local transaction has written when COMMIT is sent.  If
 *    it is a branch, its COMMIT is the decision: the local transaction has nothing that could
 *    fail to follow.
 * B5 Nothing raises while aborting: what cannot be rolled back in time is closed, and the peer
 *    rolls back.
 *
 * WHAT IF
 *	- this backend dies: sockets close, peers roll back all that was not committed (B4: one at
 *	  most is).
 *	- the peer dies before COMMIT: 08006 here, nothing is committed anywhere.
 *	- the answer to the writer's COMMIT is lost: 08007; the write is there or not, and nothing
 *	  else depends on it.
 *	- a cancel arrives while COMMIT is unanswered: it is held back until the answer or the
 *	  cleanup timeout, so that the client is never told "canceled" about what was committed.
 *	- a serializable reader's COMMIT fails: it is awaited, and its 40001 is raised before the
 *	  writer's is sent.
 *	- NOTIFY, the one local effect without a prior transaction id, is queued after the peer's
 *	  COMMIT: if that fails (full queue) the client sees an error although the peer has committed.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "base/errors.h"
#include "base/settings.h"
#include "miscadmin.h"
#include "peer/conn.h"
#include "utils/memutils.h"

/* Is there any branch or running statement?  Lets other transactions pass at no cost. */
static bool any_branch = false;

/* Called before a statement starts: from now on the transaction's end concerns us. */
void
concord_branch_in_use(void)
{
	any_branch = true;
}

/* -------------------------------------------------------------- begin */

static const char *
isolation_name(void)
{
	switch (XactIsoLevel)
	{
		case XACT_SERIALIZABLE:
			return "SERIALIZABLE";
		case XACT_REPEATABLE_READ:
			return "REPEATABLE READ";
		default:
			return "READ COMMITTED";
	}
}

static void
send_begin(ConcordConn *conn)
{
	char		sql[100];

	snprintf(sql, sizeof(sql), "BEGIN ISOLATION LEVEL %s, %s, %s", isolation_name(),
			 XactReadOnly ? "READ ONLY" : "READ WRITE",
			 XactDeferrable ? "DEFERRABLE" : "NOT DEFERRABLE");
	concord_conn_repeated(conn, CMD_CONTROL, sql);
	conn->branch = CONCORD_BRANCH_OPEN;
	conn->begin_level = GetCurrentTransactionNestLevel();
	conn->saved_level = conn->release_to = 1;
	conn->read_only = XactReadOnly;
	conn->wrote = false;
	conn->begun_now = true;
	conn->commit_tag[0] = '\0';
	concord_error_free(&conn->commit_error);
}

/* Queues what brings the branch to the local transaction's state (B1, B2). */
void
concord_branch_begin(ConcordConn *conn)
{
	int			level = GetCurrentTransactionNestLevel();
	char		sql[64];

	if (conn->branch == CONCORD_BRANCH_NONE)
		send_begin(conn);
	if (conn->release_to < conn->saved_level)
	{
		snprintf(sql, sizeof(sql), "RELEASE SAVEPOINT s%d", conn->release_to + 1);
		concord_conn_control(conn, CMD_CONTROL, sql);
		conn->saved_level = conn->release_to;
	}
	while (conn->saved_level < level)
	{
		snprintf(sql, sizeof(sql), "SAVEPOINT s%d", ++conn->saved_level);
		concord_conn_control(conn, CMD_CONTROL, sql);
	}
	conn->release_to = conn->saved_level;
	if (XactReadOnly && !conn->read_only)
	{
		concord_conn_control(conn, CMD_CONTROL, "SET TRANSACTION READ ONLY");
		conn->read_only = true;
	}
}

/* -------------------------------------------------------------- writers */

/* B4, as early as it can be known. */
void
concord_peer_check_writers(void)
{
	const char *first = NULL;
	dlist_iter	iter;

	if (!any_branch)
		return;
	dlist_foreach(iter, &concord_conns)
	{
		ConcordConn *conn = dlist_container(ConcordConn, node, iter.cur);

		if (conn->branch == CONCORD_BRANCH_NONE || !conn->wrote)
			continue;
		if (first != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a transaction cannot write on more than one node yet"),
					 errdetail("It has written on node \"%s\" and on node \"%s\".",
							   first, conn->name),
					 errhint("Use one transaction for each node.")));
		first = conn->name;
	}
	if (first != NULL && TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a transaction cannot write on more than one node yet"),
				 errdetail("It has written on this node and on node \"%s\".", first),
				 errhint("Use one transaction for each node.")));
}

bool
concord_peer_wrote(void)
{
	dlist_iter	iter;

	if (any_branch)
		dlist_foreach(iter, &concord_conns)
			if (dlist_container(ConcordConn, node, iter.cur)->wrote)
				return true;
	return false;
}

/* -------------------------------------------------------------- commit */

static void
send_commit(ConcordConn *conn)
{
	conn->flushes++;
	concord_conn_repeated(conn, CMD_COMMIT, "COMMIT");
	concord_conn_sync(conn);
	if (!conn->lost)
		(void) PQflush(conn->pg);
}

static void
outcome_unknown(ConcordConn *conn)
{
	char	   *detail = conn->error.detail != NULL ? pstrdup(conn->error.detail) : NULL;

	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
			 errmsg("it is not known whether the transaction was committed on node \"%s\"",
					conn->name),
			 detail != NULL ? errdetail_internal("%s", detail) :
			 errdetail("The node did not answer COMMIT in time."),
			 errhint("Look for the transaction's effects before repeating it.")));
}

/* Waits for the answer to COMMIT; interrupts only shorten the wait. */
static void
await_commit(ConcordConn *conn)
{
	TimestampTz start = GetCurrentTimestamp();
	TimestampTz interrupted = 0;

	while (!conn->lost && conn->queue_length > 0)
	{
		TimestampTz now;
		long		timeout_ms = 1000;

		concord_conn_advance(conn);
		if (conn->lost || conn->queue_length == 0)
			break;
		if (interrupted == 0 && INTERRUPTS_PENDING_CONDITION() &&
			(QueryCancelPending || ProcDiePending))
			interrupted = GetCurrentTimestamp();
		now = interrupted != 0 || concord_statement_deadline_ms > 0 ? GetCurrentTimestamp() : start;
		if (interrupted != 0 &&
			now >= TimestampTzPlusMilliseconds(interrupted, concord_cleanup_timeout_ms))
			outcome_unknown(conn);
		if (concord_statement_deadline_ms > 0 &&
			now >= TimestampTzPlusMilliseconds(start, concord_statement_deadline_ms))
			outcome_unknown(conn);
		if (concord_statement_deadline_ms > 0)
			timeout_ms = Min(timeout_ms, concord_statement_deadline_ms);
		concord_conn_wait(&conn, 1, timeout_ms);
	}
}

/* The peer refused COMMIT and has rolled the branch back: there is nothing left to end. */
static void
ended_by_peer(ConcordConn *conn)
{
	conn->branch = CONCORD_BRANCH_NONE;
	conn->wrote = false;
	conn->settings.known = false;
}

static void
commit_and_check(ConcordConn *conn)
{
	await_commit(conn);
	concord_conn_emit_notices(conn);
	if (conn->commit_error.message != NULL ||
		(conn->commit_tag[0] != '\0' && strcmp(conn->commit_tag, "COMMIT") != 0))
		ended_by_peer(conn);
	if (conn->commit_error.message != NULL)
		concord_conn_throw(conn, &conn->commit_error);
	if (conn->lost && conn->wrote && conn->commit_tag[0] == '\0')
		outcome_unknown(conn);
	if (conn->lost && conn->commit_tag[0] == '\0')
		concord_conn_throw(conn, &conn->error);
	if (strcmp(conn->commit_tag, "COMMIT") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_TRANSACTION_ROLLBACK),
				 errmsg("node \"%s\" rolled the transaction back", conn->name)));
}

static void
check_lost(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &concord_conns)
	{
		ConcordConn *conn = dlist_container(ConcordConn, node, iter.cur);

		if (conn->branch == CONCORD_BRANCH_LOST && conn->wrote)
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("connection to node \"%s\" was lost during the transaction",
							conn->name),
					 errdetail("What the transaction had written there was rolled back.")));
	}
}

static void
pre_commit(void)
{
	ConcordConn *writer = NULL;
	dlist_iter	iter;

	check_lost();
	concord_peer_check_writers();

	dlist_foreach(iter, &concord_conns)
	{
		ConcordConn *conn = dlist_container(ConcordConn, node, iter.cur);

		if (conn->branch != CONCORD_BRANCH_OPEN)
			continue;
		if (conn->wrote)
		{
			writer = conn;
			continue;
		}
		send_commit(conn);
		if (XactIsoLevel == XACT_SERIALIZABLE)
			commit_and_check(conn);
		conn->branch = CONCORD_BRANCH_NONE; /* B3 */
	}
	if (writer != NULL)
	{
		send_commit(writer);
		commit_and_check(writer);
		writer->branch = CONCORD_BRANCH_NONE;
	}
}

/* -------------------------------------------------------------- abort */

/* Ends the running statement, if any; false when the connection had to be closed. */
static bool
settle(ConcordConn *conn)
{
	bool		usable = true;

	conn->sink = NULL;
	if (conn->result != NULL)
		PQclear(conn->result);
	conn->result = NULL;
	if (conn->pg == NULL || !conn->connected || conn->lost)
		usable = false;
	else if (conn->query != NULL && !conn->answered)
		usable = concord_conn_quiesce(conn);
	/* COMMIT was sent and its answer is not here: the state is changing, never reuse (C3) */
	if (usable && conn->branch == CONCORD_BRANCH_OPEN && conn->queue_length > 0 &&
		conn->queue[conn->queue_head].kind == CMD_COMMIT)
		usable = false;
	concord_conn_drop_notices(conn);
	concord_error_free(&conn->error);
	concord_error_free(&conn->commit_error);
	concord_conn_forget_statement(conn);
	if (!usable)
		concord_conn_close(conn);
	conn->lost = false;
	return usable;
}

/* Rolls the whole branch back without waiting for the answer. */
void
concord_branch_rollback(ConcordConn *conn)
{
	if (conn->branch == CONCORD_BRANCH_OPEN && conn->pg != NULL)
	{
		concord_conn_control(conn, CMD_ROLLBACK, "ROLLBACK");
		concord_conn_sync(conn);
		(void) PQflush(conn->pg);
	}
	conn->branch = CONCORD_BRANCH_NONE;
	conn->wrote = false;
	conn->settings.known = false;
}

static void
end_of_transaction(bool commit)
{
	dlist_iter	iter;

	any_branch = false;
	dlist_foreach(iter, &concord_conns)
	{
		ConcordConn *conn = dlist_container(ConcordConn, node, iter.cur);

		if (conn->pg == NULL && conn->branch == CONCORD_BRANCH_NONE)
		{
			concord_conn_forget_statement(conn);
			continue;
		}
		if (conn->idle)
			continue;
		if (!commit && settle(conn))
			concord_branch_rollback(conn);
		conn->branch = CONCORD_BRANCH_NONE;
		conn->wrote = false;
		concord_conn_forget_statement(conn);
		concord_conn_drop_notices(conn);
		if (conn->pg == NULL)
			continue;
		if (conn->lost || conn->invalidated || concord_conn_wanted_by_others(conn))
			concord_conn_close(conn);
		else
			concord_conn_rest(conn);
	}
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (!any_branch)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			pre_commit();
			break;
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has used other nodes"),
					 errhint("Use COMMIT.")));
			break;
		case XACT_EVENT_COMMIT:
			end_of_transaction(true);
			break;
		case XACT_EVENT_ABORT:
			end_of_transaction(false);
			break;
		default:
			break;
	}
}

/* -------------------------------------------------------------- savepoints */

static void
subtransaction_aborted(ConcordConn *conn, int level)
{
	bool		whole = conn->begin_level >= level;
	char		sql[80];

	if (!settle(conn) || conn->branch == CONCORD_BRANCH_LOST)
	{
		/* what was written there before this subtransaction is lost with it */
		conn->branch = whole || conn->branch == CONCORD_BRANCH_NONE ?
			CONCORD_BRANCH_NONE : CONCORD_BRANCH_LOST;
		return;
	}
	if (conn->branch != CONCORD_BRANCH_OPEN)
		return;
	if (whole)
	{
		concord_branch_rollback(conn);
		return;
	}
	if (conn->release_to >= level && conn->saved_level >= level)
	{
		snprintf(sql, sizeof(sql), "ROLLBACK TO SAVEPOINT s%d", level);
		concord_conn_control(conn, CMD_ROLLBACK, sql);
		snprintf(sql, sizeof(sql), "RELEASE SAVEPOINT s%d", level);
		concord_conn_control(conn, CMD_CONTROL, sql);
		concord_conn_sync(conn);
		(void) PQflush(conn->pg);
		conn->saved_level = conn->release_to = level - 1;
		conn->settings.known = false;
	}
}

static void
subtransaction_committed(ConcordConn *conn, int level)
{
	conn->release_to = Min(conn->release_to, level - 1);
	conn->begin_level = Min(conn->begin_level, level - 1);
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	dlist_iter	iter;

	if (!any_branch || (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB))
		return;
	dlist_foreach(iter, &concord_conns)
	{
		ConcordConn *conn = dlist_container(ConcordConn, node, iter.cur);

		if (conn->branch == CONCORD_BRANCH_NONE && conn->query == NULL)
			continue;
		/* the peer's READ ONLY, if set inside, ends with the level as ours does */
		conn->read_only = conn->read_only && XactReadOnly;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			subtransaction_committed(conn, level);
		else
			subtransaction_aborted(conn, level);
	}
}

void
concord_branch_register(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
