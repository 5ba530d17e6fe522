/*
 * branch.c
 *		The remote transaction of each peer, and how it follows the local one.
 *
 * WHAT: the steps of a branch's life.  In which order they are taken at COMMIT is the commit room's
 * business (src/commit/coordinator.c); until then, and on abort, the branch just follows.
 *
 * INVARIANTS
 * B1 A branch has the isolation level, read-only and deferrable state of the local transaction:
 *    BEGIN says them unless they are the defaults that the peer's session was told.
 * B2 The peer's savepoints s2 .. s<saved_level> stand for the local nest levels 2 ..
 *    saved_level.  Levels above release_to were released locally; their RELEASE travels with
 *    the next statement.
 * B3 wrote is set by the peer's own report (concord.branch_state, in the answer of the statement):
 *    the branch has a transaction id.  A branch without one has written nothing, so losing
 *    the answer to its COMMIT means nothing, and it is not awaited.
 * B4 Nothing raises while aborting or after the decision: what cannot be ended in time is
 *    closed.  The peer rolls back what was open; what was prepared is finished by its resolver.
 * B5 The answer to PREPARE is consumed before anything else is said about that gid on the
 *    connection; if it cannot be, the connection is closed.
 * B6 holds is set by the same report: the branch has a transaction lock (src/lock/xact.c), which
 *    excludes others until the transaction's writes are to be seen.  So if anything was written
 *    anywhere, it votes like a writer, and is finished after those that hold none.  If nothing was,
 *    its COMMIT is awaited all the same: the lock is free when COMMIT returns.
 *
 * COST: BEGIN travels with the first statement; PREPARE TRANSACTION, COMMIT PREPARED and COMMIT are
 * a flush of one command each.  What PREPARE needs beside is done by the peer (shard/hello.c, H7).
 *
 * WHAT IF
 *	- this backend dies: sockets close, peers roll back all that was neither committed nor prepared.
 *	- the peer dies before COMMIT or PREPARE: 08006 here, nothing is committed anywhere.
 *	- the answer to a one-phase COMMIT, or to a statement that commits by itself (statement.c), is
 *	  lost: 08007; the write is there or not, and nothing else depends on it.
 *	- a cancel arrives while a one-phase COMMIT is unanswered: it is held back until the answer
 *	  or the cleanup timeout, so that the client is never told "canceled" about what was committed.
 *	- a serializable reader's COMMIT fails: it is awaited, and its 40001 is raised before
 *	  anything is decided.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "base/errors.h"
#include "base/settings.h"
#include "miscadmin.h"
#include "peer/conn.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* Is there any branch or running statement?  Lets other transactions pass at no cost. */
static bool any_branch = false;

void		(*concord_first_branch_hook) (void) = NULL;

/* The running transaction's client was told about SERIALIZABLE over several nodes. */
static bool serializable_warned = false;

/* W3: interrupts are held until the transaction ends. */
static bool interrupts_held = false;

/* Called before a statement starts: from now on the transaction's end concerns us. */
void
concord_branch_in_use(void)
{
	if (!any_branch && concord_first_branch_hook != NULL)
		concord_first_branch_hook();
	any_branch = true;
}

/* W3: a statement that commits by itself has done so, only the local transaction's end is left. */
void
concord_branch_hold_interrupts(void)
{
	HOLD_INTERRUPTS();
	interrupts_held = true;
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

/* SERIALIZABLE holds on each node by itself: say so when a second node comes in. */
void
concord_branch_warn(void)
{
	dlist_iter	iter;
	bool		second = TransactionIdIsValid(GetTopTransactionIdIfAny());

	if (XactIsoLevel != XACT_SERIALIZABLE)
		return;
	dlist_foreach(iter, &concord_conns)
		if (dlist_container(ConcordConn, node, iter.cur)->branch == CONCORD_BRANCH_OPEN)
			second = true;
	if (!second || (serializable_warned && !concord_strict_serializable))
		return;
	serializable_warned = true;
	ereport(concord_strict_serializable ? ERROR : WARNING,
			(errcode(concord_strict_serializable ? ERRCODE_FEATURE_NOT_SUPPORTED : ERRCODE_WARNING),
			 errmsg("SERIALIZABLE holds on each node by itself"),
			 errdetail("The transaction uses more than one node."),
			 errhint("Lock what must not change between nodes.")));
}

/* B1 */
static void
send_begin(ConcordConn *conn)
{
	char		sql[100] = "BEGIN";

	/* with its settings the session was told these defaults */
	if (!conn->settings.known || XactIsoLevel != XACT_READ_COMMITTED || XactReadOnly ||
		XactDeferrable)
		snprintf(sql, sizeof(sql), "BEGIN ISOLATION LEVEL %s, %s, %s", isolation_name(),
				 XactReadOnly || conn->replica_id != 0 ? "READ ONLY" : "READ WRITE",
				 XactDeferrable ? "DEFERRABLE" : "NOT DEFERRABLE");
	concord_conn_repeated(conn, CMD_CONTROL, sql);
	conn->branch = CONCORD_BRANCH_OPEN;
	conn->begin_level = GetCurrentTransactionNestLevel();
	conn->saved_level = conn->release_to = 1;
	conn->read_only = XactReadOnly || conn->replica_id != 0;
	conn->wrote = conn->holds = false;
	conn->guarded = 0;
	conn->begun_now = true;
	conn->commit_tag[0] = '\0';
	concord_error_free(&conn->commit_error);
}

char	   *(*concord_branch_guard_hook) (uint64 *done) = NULL;

/* Queues what brings the branch to the local transaction's state (B1, B2). */
void
concord_branch_begin(ConcordConn *conn)
{
	int			level = GetCurrentTransactionNestLevel();
	char		sql[64];

	if (conn->branch == CONCORD_BRANCH_NONE)
	{
		send_begin(conn);
		concord_conn_send_floor(conn);
	}
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
	if (concord_branch_guard_hook != NULL && !conn->read_only && !XactReadOnly)
	{
		char	   *guard = concord_branch_guard_hook(&conn->guarded);

		if (guard != NULL)
			concord_conn_control(conn, CMD_CONTROL, guard);
	}
	if (XactReadOnly && !conn->read_only)
	{
		concord_conn_control(conn, CMD_CONTROL, "SET TRANSACTION READ ONLY");
		conn->read_only = true;
	}
}

/* -------------------------------------------------------------- what there is */

bool
concord_branches_any(void)
{
	return any_branch;
}

bool
concord_branch_on(int node_id)
{
	bool		found = false;
	dlist_iter	iter;

	dlist_foreach(iter, &concord_conns)
	{
		const ConcordConn *conn = dlist_container(ConcordConn, node, iter.cur);

		if (conn->node_id == node_id && conn->replica_id == 0 &&
			conn->branch != CONCORD_BRANCH_NONE)
			found = true;
	}
	return found;
}

int
concord_branch_copy(int node_id, const char **floor)
{
	int			replica_id = 0;
	dlist_iter	iter;

	*floor = NULL;
	dlist_foreach(iter, &concord_conns)
	{
		const ConcordConn *conn = dlist_container(ConcordConn, node, iter.cur);

		if (conn->node_id != node_id || conn->replica_id == 0 ||
			conn->branch != CONCORD_BRANCH_OPEN)
			continue;
		replica_id = conn->replica_id;
		*floor = conn->told_floor;
	}
	return replica_id;
}

bool
concord_peer_wrote(void)
{
	return concord_branches_writing() > 0;
}

static bool
is_bound(const ConcordConn *conn)
{
	return conn->wrote || conn->holds;
}

static int
count_branches(bool holding_too)
{
	int			n = 0;
	dlist_iter	iter;

	if (!any_branch)
		return 0;
	dlist_foreach(iter, &concord_conns)
	{
		const ConcordConn *conn = dlist_container(ConcordConn, node, iter.cur);

		if (holding_too ? is_bound(conn) : conn->wrote)
			n++;
	}
	return n;
}

int
concord_branches_writing(void)
{
	return count_branches(false);
}

int
concord_branches_bound(void)
{
	return count_branches(true);
}

static void
refuse_lost_writer(ConcordConn *conn)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("connection to node \"%s\" was lost during the transaction", conn->name),
			 conn->wrote ? errdetail("What the transaction had written there was rolled back.") :
			 errdetail("The locks that the transaction held there were released.")));
}

ConcordConn **
concord_branches(bool bound, int *n)
{
	ConcordConn **result = NULL;
	int			size = 0;
	dlist_iter	iter;

	*n = 0;
	dlist_foreach(iter, &concord_conns)
	{
		ConcordConn *conn = dlist_container(ConcordConn, node, iter.cur);

		if (conn->branch == CONCORD_BRANCH_LOST && is_bound(conn))
			refuse_lost_writer(conn);
		if (conn->branch != CONCORD_BRANCH_OPEN || is_bound(conn) != bound)
			continue;
		if (*n == size)
		{
			size = Max(8, size * 2);
			result = result == NULL ? palloc(size * sizeof(ConcordConn *)) :
				repalloc(result, size * sizeof(ConcordConn *));
		}
		result[(*n)++] = conn;
	}
	return result;
}

int
concord_branch_node(ConcordConn *conn)
{
	return conn->node_id;
}

/* -------------------------------------------------------------- commit */

static void
send_commit(ConcordConn *conn)
{
	conn->flushes++;
	conn->token_is_new = false;
	concord_conn_repeated(conn, CMD_COMMIT, "COMMIT");
	concord_conn_sync(conn);
	if (!conn->lost)
		(void) PQflush(conn->pg);
}

/* 08007 */
void
concord_branch_outcome_unknown(ConcordConn *conn)
{
	char	   *detail = conn->error.detail != NULL ? pstrdup(conn->error.detail) : NULL;

	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
			 errmsg("it is not known whether the transaction was committed on node \"%s\"",
					conn->name),
			 detail != NULL ? errdetail_internal("%s", detail) :
			 errdetail("The node did not answer in time."),
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

		if (interrupted == 0 && INTERRUPTS_PENDING_CONDITION() &&
			(QueryCancelPending || ProcDiePending))
			interrupted = GetCurrentTimestamp();
		now = interrupted != 0 || concord_statement_deadline_ms > 0 ? GetCurrentTimestamp() : start;
		if (interrupted != 0 &&
			now >= TimestampTzPlusMilliseconds(interrupted, concord_cleanup_timeout_ms))
			concord_branch_outcome_unknown(conn);
		if (concord_statement_deadline_ms > 0 &&
			now >= TimestampTzPlusMilliseconds(start, concord_statement_deadline_ms))
			concord_branch_outcome_unknown(conn);
		if (concord_statement_deadline_ms > 0)
			timeout_ms = Min(timeout_ms, concord_statement_deadline_ms);
		concord_conn_wait(&conn, 1, timeout_ms);
		concord_conn_advance(conn);
	}
}

/* The peer refused COMMIT and has rolled the branch back: there is nothing left to end. */
static void
ended_by_peer(ConcordConn *conn)
{
	conn->branch = CONCORD_BRANCH_NONE;
	conn->wrote = conn->holds = false;
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
		concord_branch_outcome_unknown(conn);
	if (conn->lost && conn->commit_tag[0] == '\0')
		concord_conn_throw(conn, &conn->error);
	if (strcmp(conn->commit_tag, "COMMIT") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_TRANSACTION_ROLLBACK),
				 errmsg("node \"%s\" rolled the transaction back", conn->name)));
	concord_conn_pass_token(conn, CONCORD_PEER_DONE);
}

void
concord_branch_end_reader(ConcordConn *conn)
{
	send_commit(conn);
	if (XactIsoLevel == XACT_SERIALIZABLE)
		commit_and_check(conn);
	conn->branch = CONCORD_BRANCH_NONE; /* B3 */
}

void
concord_branch_commit(ConcordConn *conn)
{
	send_commit(conn);
	commit_and_check(conn);
	conn->branch = CONCORD_BRANCH_NONE;
}

void
concord_branches_release(ConcordConn **conns, int n)
{
	for (int i = 0; i < n; i++)
		send_commit(conns[i]);
	for (int i = 0; i < n; i++)
	{
		commit_and_check(conns[i]);
		conns[i]->branch = CONCORD_BRANCH_NONE;
	}
}

/* -------------------------------------------------------------- two phases */

static void
send_prepare(ConcordConn *conn, const char *gid)
{
	char	   *sql = psprintf("PREPARE TRANSACTION %s", quote_literal_cstr(gid));

	strlcpy(conn->gid, gid, sizeof(conn->gid));
	conn->flushes++;
	conn->answered = false;
	conn->started_at = 0;
	conn->branch = CONCORD_BRANCH_PREPARING;
	concord_conn_control(conn, CMD_PREPARE_BRANCH, sql);
	concord_conn_sync(conn);
	if (!conn->lost)
		(void) PQflush(conn->pg);
	pfree(sql);
}

void
concord_branches_prepare(ConcordConn **conns, char (*gids)[CONCORD_GID_SIZE], int n)
{
	for (int i = 0; i < n; i++)
		send_prepare(conns[i], gids[i]);
	concord_conn_await(conns, n);
	/* the first error ended the wait: the others may not have answered */
	for (int i = 0; i < n; i++)
		if (conns[i]->error.message != NULL)
			concord_conn_throw(conns[i], &conns[i]->error);
	for (int i = 0; i < n; i++)
	{
		if (conns[i]->branch != CONCORD_BRANCH_PREPARED)
			ereport(ERROR,
					(errcode(ERRCODE_TRANSACTION_ROLLBACK),
					 errmsg("node \"%s\" rolled the transaction back", conns[i]->name)));
	}
}

static void
send_finish(ConcordConn *conn, ConcordCommandKind kind, const char *verb)
{
	char		sql[CONCORD_GID_SIZE + 32];

	/* a gid is made of letters, digits, colons and hyphens */
	snprintf(sql, sizeof(sql), "%s PREPARED '%s'", verb, conn->gid);
	conn->flushes++;
	conn->answered = false;
	conn->token_is_new = false;
	concord_conn_control(conn, kind, sql);
	concord_conn_sync(conn);
	if (!conn->lost)
		(void) PQflush(conn->pg);
}

/* Did phase two reach the peer?  Its resolver may have been faster (42704), or is at it (55000). */
static bool
is_finished(ConcordConn *conn)
{
	return !conn->lost && conn->queue_length == 0 &&
		(conn->commit_error.message == NULL ||
		 conn->commit_error.sqlstate == ERRCODE_UNDEFINED_OBJECT ||
		 conn->commit_error.sqlstate == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE);
}

/* Puts the branches that hold locks last; returns how many hold none. */
static int
holders_last(ConcordConn **conns, int n)
{
	int			without = 0;

	for (int i = 0; i < n; i++)
	{
		ConcordConn *conn = conns[i];

		if (conn->holds)
			continue;
		conns[i] = conns[without];
		conns[without++] = conn;
	}
	return without;
}

static void
send_and_drain(ConcordConn **conns, int n, int wait_ms, TimestampTz until)
{
	for (int i = 0; i < n; i++)
		if (!conns[i]->lost && conns[i]->pg != NULL)
			send_finish(conns[i], CMD_COMMIT_PREPARED, "COMMIT");
	if (wait_ms > 0 && n > 0)
		concord_conn_drain(conns, n, until);
}

int
concord_branches_finish(ConcordConn **conns, int n, int wait_ms, const char **first,
						const char **why)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait_ms);
	int			without = holders_last(conns, n);
	int			unfinished = 0;

	/* B6: who gets the lock next shall see what was written under it */
	send_and_drain(conns, without, wait_ms, until);
	send_and_drain(conns + without, n - without, wait_ms, until);
	for (int i = 0; i < n; i++)
	{
		ConcordConn *conn = conns[i];

		if (wait_ms > 0 && !is_finished(conn))
		{
			if (unfinished++ == 0)
			{
				*first = conn->name;
				*why = conn->lost && conn->error.detail != NULL ? conn->error.detail :
					conn->commit_error.message != NULL ? conn->commit_error.message :
					"It has not answered in time.";
			}
			/* C3: what it answers later must not be taken for something else */
			conn->invalidated = true;
		}
		else
		{
			concord_error_free(&conn->commit_error);
			if (wait_ms > 0)
				concord_conn_pass_token(conn, CONCORD_PEER_DONE);
		}
		conn->branch = CONCORD_BRANCH_NONE;
	}
	return unfinished;
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
	else if ((conn->query != NULL && !conn->answered) || conn->branch == CONCORD_BRANCH_PREPARING)
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
	else if (conn->branch == CONCORD_BRANCH_PREPARED && conn->pg != NULL)
		send_finish(conn, CMD_ROLLBACK, "ROLLBACK");
	conn->branch = CONCORD_BRANCH_NONE;
	conn->wrote = conn->holds = false;
	conn->settings.known = false;
}

static void
end_of_transaction(bool commit)
{
	dlist_iter	iter;

	any_branch = false;
	serializable_warned = false;
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
		conn->wrote = conn->holds = false;
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
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has used other nodes"),
					 errhint("Use COMMIT.")));
			break;
		case XACT_EVENT_COMMIT:
			if (interrupts_held)
				RESUME_INTERRUPTS();
			interrupts_held = false;
			end_of_transaction(true);
			break;
		case XACT_EVENT_ABORT:
			interrupts_held = false;	/* the error has let go of them */
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
		conn->guarded = 0;
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
concord_peer_init(void)
{
	/* before the commit room's, so that it is called after it: first phase two, then rest */
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
