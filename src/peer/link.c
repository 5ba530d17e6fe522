/*
 * link.c
 *		A private connection to one peer, driven without blocking.
 *
 * WHAT: carries what is not part of a user's transaction: heartbeats, map fetches, membership
 * calls, the doctor's questions.
 *
 * STATES (function on the edge):
 *		CONNECTING --advance--> IDLE or, when a statement is queued, BUSY
 *		IDLE --send--> BUSY --advance--> ANSWERED --take--> IDLE
 *		any --advance (connection lost, refused)--> FAILED (stays so)
 *
 * MEMORY: a link lives in the context current at open; a reset callback of that context closes
 * the socket, so an ERROR in the caller leaks nothing.
 *
 * What a crash leaves: the peer sees the socket close and rolls back; each statement sent here is
 * a transaction of its own and is written so that repeating it is harmless.
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/settings.h"
#include "miscadmin.h"
#include "peer/link.h"
#include "peer/wire.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

struct ConcordLink
{
	MemoryContext context;
	MemoryContextCallback on_reset;
	ConcordLinkState state;
	char	   *name;
	PGconn	   *conn;			/* NULL when it could not even be started */
	PostgresPollingStatusType poll;	/* CONNECTING */
	bool		was_connected;
	bool		timed_out;
	int			timeout_ms;		/* of the call that timed out */
	const char *why;			/* conn is NULL: the reason */

	char	   *sql;			/* queued until connected */
	int			nparams;
	char	  **params;

	const char *bytes_sql;		/* of send_bytes(); NULL: never called */
	bool		bytes_prepared;
	bool		bytes_asked;	/* what was sent last is its PREPARE or it */
	void	   *bytes;			/* queued until it is prepared, else NULL */
	size_t		nbytes;

	TimestampTz sent_at;
	TimestampTz received_at;
	PGresult   *result;			/* ANSWERED; or the FATAL error that ended the connection */
};

static void
link_release(void *arg)
{
	ConcordLink *link = arg;

	if (link->result != NULL)
		PQclear(link->result);
	link->result = NULL;
	if (link->conn != NULL)
		concord_wire_close(link->conn);
	link->conn = NULL;
}

ConcordLink *
concord_link_open(const char *name, List *options)
{
	ConcordLink *link = palloc0(sizeof(ConcordLink));

	link->context = CurrentMemoryContext;
	link->name = pstrdup(name);
	link->on_reset.func = link_release;
	link->on_reset.arg = link;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &link->on_reset);

	link->conn = concord_wire_open(options, &link->why);
	link->poll = PGRES_POLLING_WRITING;
	link->state = link->conn == NULL || PQstatus(link->conn) == CONNECTION_BAD ?
		CONCORD_LINK_FAILED : CONCORD_LINK_CONNECTING;
	return link;
}

void
concord_link_close(ConcordLink *link)
{
	link_release(link);
	link->state = CONCORD_LINK_FAILED;
	link->why = "it was closed";
}

#define BYTES_STATEMENT "concord_bytes"

/* First PREPARE, whose answer brings us here again. */
static void
send_bytes_queued(ConcordLink *link)
{
	const char *params[1] = {link->bytes};
	int			lengths[1] = {(int) link->nbytes};
	int			formats[1] = {1};

	link->bytes_asked = true;
	link->sent_at = GetCurrentTimestamp();
	link->state = CONCORD_LINK_BUSY;
	if (!link->bytes_prepared)
	{
		if (PQsendPrepare(link->conn, BYTES_STATEMENT, link->bytes_sql, 0, NULL) == 0)
			link->state = CONCORD_LINK_FAILED;
		return;
	}
	if (PQsendQueryPrepared(link->conn, BYTES_STATEMENT, 1, params, lengths, formats, 1) == 0)
		link->state = CONCORD_LINK_FAILED;
	pfree(link->bytes);
	link->bytes = NULL;
}

static void
send_queued(ConcordLink *link)
{
	if (link->bytes != NULL)
	{
		send_bytes_queued(link);
		return;
	}
	link->bytes_asked = false;
	if (PQsendQueryParams(link->conn, link->sql, link->nparams, NULL,
						  (const char *const *) link->params, NULL, NULL, 0) == 0)
		link->state = CONCORD_LINK_FAILED;
	else
		link->state = CONCORD_LINK_BUSY;
	link->sent_at = GetCurrentTimestamp();

	/* libpq has its own copy: a link may live as long as the worker */
	for (int i = 0; i < link->nparams; i++)
		if (link->params[i] != NULL)
			pfree(link->params[i]);
	pfree(link->params);
	pfree(link->sql);
	link->params = NULL;
	link->sql = NULL;
}

/* False if the link has failed: take() says why. */
static bool
check_sendable(ConcordLink *link)
{
	if (link->state == CONCORD_LINK_FAILED)
		return false;
	if (link->state != CONCORD_LINK_IDLE &&
		!(link->state == CONCORD_LINK_CONNECTING && link->sql == NULL && link->bytes == NULL))
		elog(ERROR, "link to node \"%s\" is busy", link->name);
	return true;
}

void
concord_link_send_bytes(ConcordLink *link, const char *sql, const void *data, size_t len)
{
	if (!check_sendable(link))
		return;
	Assert(link->bytes_sql == NULL || strcmp(link->bytes_sql, sql) == 0);
	link->bytes_sql = sql;
	link->bytes = MemoryContextAllocHuge(link->context, Max(len, 1));
	memcpy(link->bytes, data, len);
	link->nbytes = len;
	if (link->state == CONCORD_LINK_IDLE)
		send_queued(link);
}

void
concord_link_send(ConcordLink *link, const char *sql, int nparams, const char *const *params)
{
	MemoryContext old;

	if (!check_sendable(link))
		return;
	old = MemoryContextSwitchTo(link->context);
	link->sql = pstrdup(sql);
	link->nparams = nparams;
	link->params = palloc0(Max(nparams, 1) * sizeof(char *));
	for (int i = 0; i < nparams; i++)
		link->params[i] = params[i] != NULL ? pstrdup(params[i]) : NULL;
	MemoryContextSwitchTo(old);

	if (link->state == CONCORD_LINK_IDLE)
		send_queued(link);
}

static void
advance_connecting(ConcordLink *link)
{
	/* libpq must not be asked before its socket is ready */
	if (!concord_wire_ready(link->conn, link->poll))
		return;
	link->poll = PQconnectPoll(link->conn);
	if (link->poll == PGRES_POLLING_FAILED)
		link->state = CONCORD_LINK_FAILED;
	else if (link->poll == PGRES_POLLING_OK)
	{
		link->was_connected = true;
		link->state = CONCORD_LINK_IDLE;
		if (link->sql != NULL || link->bytes != NULL)
			send_queued(link);
	}
}

static void
advance_busy(ConcordLink *link)
{
	PGresult   *result;

	/* a FATAL message of the peer may still be readable: PQgetResult below returns it */
	(void) PQflush(link->conn);
	(void) PQconsumeInput(link->conn);
	while (PQstatus(link->conn) == CONNECTION_BAD || !PQisBusy(link->conn))
	{
		result = PQgetResult(link->conn);
		if (result == NULL)
			break;
		/* one statement: the last result is the one, an error beats it */
		if (link->result != NULL)
			PQclear(link->result);
		link->result = result;
		if (PQresultStatus(result) == PGRES_COPY_IN || PQresultStatus(result) == PGRES_COPY_OUT ||
			PQresultStatus(result) == PGRES_COPY_BOTH)
		{
			link->state = CONCORD_LINK_FAILED;
			return;
		}
	}
	if (PQstatus(link->conn) == CONNECTION_BAD)
		link->state = CONCORD_LINK_FAILED;
	if (link->state == CONCORD_LINK_BUSY && !PQisBusy(link->conn))
	{
		/* prepared: now what was to be sent */
		if (link->bytes != NULL && link->bytes_asked &&
			PQresultStatus(link->result) == PGRES_COMMAND_OK)
		{
			PQclear(link->result);
			link->result = NULL;
			link->bytes_prepared = true;
			send_bytes_queued(link);
			return;
		}
		if (link->bytes != NULL)
			pfree(link->bytes);
		link->bytes = NULL;
		link->received_at = GetCurrentTimestamp();
		link->state = CONCORD_LINK_ANSWERED;
	}
}

ConcordLinkState
concord_link_advance(ConcordLink *link)
{
	if (link->state == CONCORD_LINK_CONNECTING)
		advance_connecting(link);
	if (link->state == CONCORD_LINK_BUSY)
		advance_busy(link);
	else if (link->state == CONCORD_LINK_IDLE &&
			 (PQconsumeInput(link->conn) == 0 || PQstatus(link->conn) == CONNECTION_BAD))
		link->state = CONCORD_LINK_FAILED;	/* closed by the peer while idle */
	return link->state;
}

pgsocket
concord_link_socket(ConcordLink *link, int *events)
{
	pgsocket	sock;

	*events = 0;
	if (link->conn == NULL || link->state == CONCORD_LINK_FAILED)
		return PGINVALID_SOCKET;
	sock = PQsocket(link->conn);
	if (sock < 0)
		return PGINVALID_SOCKET;

	if (link->state == CONCORD_LINK_CONNECTING)
		*events = link->poll == PGRES_POLLING_READING ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE;
	else
	{
		*events = WL_SOCKET_READABLE;
		if (link->state == CONCORD_LINK_BUSY && PQflush(link->conn) > 0)
			*events |= WL_SOCKET_WRITEABLE;
	}
	return sock;
}

/* Advances all links; returns how many are unfinished. */
static int
count_unfinished(ConcordLink **links, int n)
{
	int			unfinished = 0;

	for (int i = 0; i < n; i++)
	{
		ConcordLinkState state = concord_link_advance(links[i]);

		if (state == CONCORD_LINK_CONNECTING || state == CONCORD_LINK_BUSY)
			unfinished++;
	}
	return unfinished;
}

static void
wait_once(ConcordLink **links, int n, long timeout_ms)
{
	WaitEventSet *set = concord_create_wait_set(n + 2);
	WaitEvent	event;

	PG_TRY();
	{
		AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		for (int i = 0; i < n; i++)
		{
			int			events;
			pgsocket	sock = concord_link_socket(links[i], &events);

			if (sock != PGINVALID_SOCKET && links[i]->state != CONCORD_LINK_IDLE &&
				links[i]->state != CONCORD_LINK_ANSWERED)
				AddWaitEventToSet(set, events, sock, NULL, NULL);
		}
		if (WaitEventSetWait(set, timeout_ms, &event, 1,
							 concord_wait_event("ConcordPeerCall")) == 1 &&
			event.events == WL_LATCH_SET)
			ResetLatch(MyLatch);
	}
	PG_FINALLY();
	{
		FreeWaitEventSet(set);
	}
	PG_END_TRY();
	CHECK_FOR_INTERRUPTS();
}

int
concord_link_wait(ConcordLink **links, int n, TimestampTz until)
{
	int			unfinished = count_unfinished(links, n);
	long		timeout_ms = -1;

	CHECK_FOR_INTERRUPTS();
	if (unfinished == 0)
		return 0;
	if (until != 0)
	{
		timeout_ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		if (timeout_ms <= 0)
			return unfinished;
	}
	wait_once(links, n, timeout_ms);
	return count_unfinished(links, n);
}

static void
reply_failed(ConcordLink *link, ConcordReply *reply)
{
	reply->connection_lost = true;
	reply->sqlstate = link->was_connected ? ERRCODE_CONNECTION_FAILURE :
		ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION;
	if (link->timed_out)
	{
		reply->message = psprintf("node \"%s\" is not reachable", link->name);
		reply->detail = psprintf("It did not answer within %d ms.", link->timeout_ms);
		return;
	}
	reply->message = psprintf(link->was_connected ? "connection to node \"%s\" was lost" :
							  "node \"%s\" is not reachable", link->name);
	if (link->conn == NULL)
		reply->detail = pstrdup(link->why);
	else
		reply->detail = concord_wire_conn_error(link->conn);
}

static void
reply_answered(ConcordLink *link, ConcordReply *reply)
{
	PGresult   *result = link->result;

	reply->ok = PQresultStatus(result) == PGRES_TUPLES_OK ||
		PQresultStatus(result) == PGRES_COMMAND_OK;
	if (!reply->ok)
	{
		ConcordRemoteError error;

		concord_wire_error(result, &error);
		reply->sqlstate = error.sqlstate;
		reply->message = error.message;
		reply->detail = error.detail;
		reply->hint = error.hint;
		return;
	}
	reply->nrows = PQntuples(result);
	reply->ncols = PQnfields(result);
	if (link->bytes_asked)
	{
		if (reply->nrows == 1 && reply->ncols == 1)
			reply->length = PQgetlength(result, 0, 0);
		reply->values = palloc(sizeof(char *));
		reply->values[0] = MemoryContextAllocHuge(CurrentMemoryContext, Max(reply->length, 1));
		memcpy(reply->values[0], PQgetvalue(result, 0, 0), reply->length);
		return;
	}
	reply->values = palloc0(Max(1, reply->nrows * reply->ncols) * sizeof(char *));
	for (int row = 0; row < reply->nrows; row++)
		for (int col = 0; col < reply->ncols; col++)
			if (!PQgetisnull(result, row, col))
				concord_reply_value(reply, row, col) = pstrdup(PQgetvalue(result, row, col));
}

ConcordReply *
concord_link_take(ConcordLink *link)
{
	ConcordReply *reply;

	if (link->state != CONCORD_LINK_ANSWERED && link->state != CONCORD_LINK_FAILED)
		return NULL;

	reply = palloc0(sizeof(ConcordReply));
	reply->sent_at = link->sent_at;
	reply->received_at = link->received_at;
	if (link->state == CONCORD_LINK_ANSWERED && link->result == NULL)
		link->state = CONCORD_LINK_FAILED;
	if (link->state == CONCORD_LINK_FAILED)
	{
		reply_failed(link, reply);
		return reply;
	}
	reply_answered(link, reply);
	PQclear(link->result);
	link->result = NULL;
	link->state = CONCORD_LINK_IDLE;
	return reply;
}

ConcordReply *
concord_link_call(ConcordLink *link, const char *sql, int nparams, const char *const *params,
				  int timeout_ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);

	concord_link_send(link, sql, nparams, params);
	while (concord_link_wait(&link, 1, until) > 0)
	{
		if (GetCurrentTimestamp() >= until)
		{
			link->timed_out = true;
			link->timeout_ms = timeout_ms;
			link->state = CONCORD_LINK_FAILED;
		}
	}
	return concord_link_take(link);
}

void
concord_reply_check(ConcordLink *link, ConcordReply *reply)
{
	if (reply->ok)
		return;
	ereport(ERROR,
			(errcode(reply->sqlstate),
			 errmsg_internal("%s", reply->message),
			 reply->detail ? errdetail_internal("%s", reply->detail) : 0,
			 reply->hint ? errhint("%s", reply->hint) : 0,
			 reply->connection_lost ? 0 : errcontext("remote call on node \"%s\"", link->name)));
}
