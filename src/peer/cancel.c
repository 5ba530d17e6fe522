/*
 * cancel.c
 *		Stops what runs on a peer and drains its answers, within the cleanup timeout.
 *
 * WHAT: called while a (sub)transaction aborts with a statement unanswered.  The request goes
 * over a connection of its own as pg_cancel_backend(): libpq 15 has only the blocking PQcancel(),
 * which waits without bound for a stopped server, and a pooler between the nodes would
 * misdirect it; the peer's process id is what the peer's own hello said (until its first answer,
 * what the connection's start said).
 *
 * A backend ignores a cancel while it reads its next command, which it does between the parts
 * of one flush, so the request is repeated until the answers are complete.
 *
 * PROMISE: returns within concord.cleanup_timeout; true only when every answer was consumed, so
 * that the connection is where we think it is.  Otherwise the caller closes it, and
 * the peer notices within a second (client_connection_check_interval, set by hello) and rolls back.
 *
 * Interrupts are held while aborting; poll(2) is used because a wait event set may raise.
 */
#include "postgres.h"

#include <poll.h>

#include "base/settings.h"
#include "miscadmin.h"
#include "peer/conn.h"
#include "peer/link.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#define MAX_POLLED 64			/* the others are looked at when one of these moved */

#define CANCEL_SQL "SELECT pg_catalog.pg_cancel_backend($1::pg_catalog.int4)"
#define FIRST_INTERVAL_MS 50
#define MAX_INTERVAL_MS 1000

static ConcordLink *
send_request(ConcordConn *conn)
{
	char		pid[16];
	const char *params[1] = {pid};
	List	   *options = list_copy(conn->options);
	ConcordLink *link;
	int			pid_of_peer = conn->backend_pid != 0 ? conn->backend_pid : PQbackendPID(conn->pg);

	/* the answer to hello may still be with the peer: it sends what it has at the SYNC */
	if (pid_of_peer == 0)
		return NULL;
	/* no name look-up while aborting: libpq would do it without a bound */
	if (PQhostaddr(conn->pg) != NULL && PQhostaddr(conn->pg)[0] != '\0')
		options = lappend(options, psprintf("hostaddr=%s", PQhostaddr(conn->pg)));
	snprintf(pid, sizeof(pid), "%d", pid_of_peer);
	link = concord_link_open(conn->name, options);
	concord_link_send(link, CANCEL_SQL, 1, params);
	return link;
}

/*
 * Repeats the request when the last one was answered and nothing has come of it.  Returns the time
 * until the next, in milliseconds, or -1 when there is none to come.
 */
static long
repeat_request(ConcordConn *conn, ConcordLink **link, TimestampTz *next, long *interval_ms)
{
	char		pid[16];
	const char *params[1] = {pid};
	TimestampTz now = GetCurrentTimestamp();

	if (*link == NULL)
		return -1;
	switch (concord_link_advance(*link))
	{
		case CONCORD_LINK_FAILED:
			concord_link_close(*link);
			*link = NULL;
			return -1;
		case CONCORD_LINK_ANSWERED:
			(void) concord_link_take(*link);
			*next = TimestampTzPlusMilliseconds(now, *interval_ms);
			*interval_ms = Min(*interval_ms * 2, MAX_INTERVAL_MS);
			break;
		case CONCORD_LINK_IDLE:
			if (now < *next)
				break;
			snprintf(pid, sizeof(pid), "%d",
					 conn->backend_pid != 0 ? conn->backend_pid : PQbackendPID(conn->pg));
			concord_link_send(*link, CANCEL_SQL, 1, params);
			return -1;
		default:
			return -1;
	}
	return Max(1, TimestampDifferenceMilliseconds(now, *next));
}

static void
poll_both(ConcordConn *conn, ConcordLink *link, long timeout_ms)
{
	struct pollfd pfd[2];
	int			n = 1;
	int			events;

	pfd[0].fd = PQsocket(conn->pg);
	pfd[0].events = POLLIN | (PQflush(conn->pg) > 0 ? POLLOUT : 0);
	pfd[0].revents = 0;
	if (link != NULL && (pfd[1].fd = concord_link_socket(link, &events)) != PGINVALID_SOCKET)
	{
		pfd[1].events = (events & WL_SOCKET_WRITEABLE ? POLLOUT : 0) |
			(events & WL_SOCKET_READABLE ? POLLIN : 0);
		pfd[1].revents = 0;
		n = 2;
	}
	(void) poll(pfd, n, (int) timeout_ms);
}

bool
concord_conn_quiesce(ConcordConn *conn)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													concord_cleanup_timeout_ms);
	ConcordLink *link = NULL;
	TimestampTz next = 0;
	long		interval_ms = FIRST_INTERVAL_MS;

	/* a session that ends does not wait for its peers: they notice */
	if (ProcDiePending || proc_exit_inprogress)
		return false;
	conn->attempts = 1;			/* no retry from here */
	concord_conn_advance(conn);
	if (!conn->lost && conn->queue_length > 0)
		link = send_request(conn);
	while (!conn->lost && conn->queue_length > 0)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		long		repeat_ms;

		if (left <= 0)
			break;
		repeat_ms = repeat_request(conn, &link, &next, &interval_ms);
		poll_both(conn, link, repeat_ms > 0 ? Min(left, repeat_ms) : left);
		concord_conn_advance(conn);
	}
	if (link != NULL)
		concord_link_close(link);
	return !conn->lost && conn->queue_length == 0;
}

/*
 * Consumes the answers of all connections until none is missing or the time is over; a pending
 * termination or cancel shortens it to the cleanup timeout.  Never raises: used after the decision.
 */
void
concord_conn_drain(ConcordConn **conns, int n, TimestampTz until)
{
	struct pollfd pfd[MAX_POLLED];	/* no allocation that could fail here */
	ConcordConn *polled[MAX_POLLED];
	int			waiting = 0;
	bool		interrupted = false;

	for (;;)
	{
		long		left;

		/* what was just sent cannot be answered yet: the first look is after the first wait */
		for (int i = 0; i < waiting; i++)
			if (pfd[i].revents != 0)
				concord_conn_advance(polled[i]);
		waiting = 0;
		for (int i = 0; i < n && waiting < MAX_POLLED; i++)
		{
			ConcordConn *conn = conns[i];

			if (conn->lost || conn->pg == NULL || conn->queue_length == 0)
				continue;
			polled[waiting] = conn;
			pfd[waiting].fd = PQsocket(conn->pg);
			pfd[waiting].events = POLLIN | (PQflush(conn->pg) > 0 ? POLLOUT : 0);
			pfd[waiting++].revents = 0;
		}
		if (waiting == 0)
			break;
		if (!interrupted && (ProcDiePending || QueryCancelPending))
		{
			interrupted = true;
			until = Min(until, TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														   concord_cleanup_timeout_ms));
		}
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		if (left <= 0)
			break;
		(void) poll(pfd, waiting, (int) Min(left, 1000));
	}
}
