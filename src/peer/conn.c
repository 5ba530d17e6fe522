/*
 * conn.c
 *		Cached connections to peers: opening, bounding, resting, closing.
 *
 * WHAT: each backend keeps one connection per (node, local role), opened at first use and reused
 * by later transactions.
 *
 * BOUNDS: all sessions of a database together have at most concord.max_peer_connections open
 * connections to a peer (counted in shared memory), so that a full house here cannot fill up
 * the peer.  Who finds none free waits, at most concord.connect_timeout, then gets 53300.  While
 * somebody waits, sessions give their connection back at the end of their transaction; an idle
 * session gives it back within a second (its timer looks once a second), and any idle
 * connection is closed after concord.connection_idle_timeout.  The maintenance worker's own
 * connections are not counted.
 *
 * C4: the timer's handler runs in a signal handler, also while the backend waits for its client.
 * It does nothing but shutdown(2) of a resting connection's socket and an atomic decrement; the
 * peer then sees the end of the session, and we find the connection reaped at its next use.
 *
 * A crash of this backend: the kernel closes the sockets, the peers roll back; a postmaster
 * restart starts the counters from zero.
 */
#include "postgres.h"

#include <sys/socket.h>

#include "access/xact.h"
#include "base/compat.h"
#include "base/errors.h"
#include "base/settings.h"
#include "catalog/pg_foreign_server.h"
#include "miscadmin.h"
#include "peer/conn.h"
#include "peer/link.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/wait_event.h"

#define MAX_CONNECTIONS		512 /* per backend */
#define IDLE_CHECK_MS		1000
#define CAPACITY_CHECK_MS	100

dlist_head	concord_conns = DLIST_STATIC_INIT(concord_conns);

static MemoryContext peer_context;
static ConcordConn *volatile resting[MAX_CONNECTIONS];	/* for the timer's handler */
static volatile int nresting = 0;	/* high-water mark */
static TimeoutId idle_timer;
static bool initialized = false;

/* ------------------------------------------------------------------ idle */

/* Signal handler: see C4. */
static void
idle_timer_fired(void)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		more = false;

	for (int i = 0; i < nresting; i++)
	{
		ConcordConn *conn = resting[i];

		if (conn == NULL || !conn->idle || conn->reaped)
			continue;
		if (pg_atomic_read_u32(&conn->shared->waiters) > 0 ||
			(concord_idle_timeout_ms > 0 &&
			 now >= conn->idle_since + concord_idle_timeout_ms * INT64CONST(1000)))
		{
			conn->reaped = true;
			shutdown(PQsocket(conn->pg), SHUT_RDWR);
			pg_atomic_fetch_sub_u32(&conn->shared->connections, 1);
		}
		else
			more = true;
	}
	if (more)
		enable_timeout_after(idle_timer, IDLE_CHECK_MS);
}

bool
concord_conn_wanted_by_others(ConcordConn *conn)
{
	return conn->shared != NULL && pg_atomic_read_u32(&conn->shared->waiters) > 0;
}

/* The transaction is over and the connection may rest until the next. */
void
concord_conn_rest(ConcordConn *conn)
{
	conn->idle_since = GetCurrentStatementStartTimestamp();
	conn->idle = true;
	if (!get_timeout_active(idle_timer))
		enable_timeout_after(idle_timer, IDLE_CHECK_MS);
}

/* ---------------------------------------------------------------- bounds */

static ConcordPeer *
shared_peer(int node_id)
{
	ConcordPeer *peer;

	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	peer = concord_shmem_peer(MyDatabaseId, node_id, true);
	if (peer != NULL)
		pg_atomic_fetch_add_u32(&peer->waiters, 1); /* keeps the entry */
	LWLockRelease(ConcordShared->lock);
	if (peer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many peers in this server"),
				 errdetail("There is room for %d peers of all databases together.",
						   CONCORD_MAX_PEERS)));
	return peer;
}

static bool
try_count(ConcordPeer *peer)
{
	uint32		now = pg_atomic_read_u32(&peer->connections);

	while (concord_max_peer_connections < 0 || now < (uint32) concord_max_peer_connections)
		if (pg_atomic_compare_exchange_u32(&peer->connections, &now, now + 1))
			return true;
	return false;
}

/* Takes a place that was given back to the waiters. */
static bool
take_grant(ConcordPeer *peer)
{
	uint32		granted = pg_atomic_read_u32(&peer->granted);

	while (granted > 0)
		if (pg_atomic_compare_exchange_u32(&peer->granted, &granted, granted - 1))
			return true;
	return false;
}

/* The last waiter is gone: what was granted is free again. */
static void
stop_waiting(ConcordPeer *peer)
{
	if (pg_atomic_sub_fetch_u32(&peer->waiters, 1) == 0)
		while (take_grant(peer))
			pg_atomic_fetch_sub_u32(&peer->connections, 1);
}

/* Closes another resting connection of this very backend to the same node, if there is one. */
static bool
give_up_own(ConcordConn *except)
{
	dlist_iter	iter;

	dlist_foreach(iter, &concord_conns)
	{
		ConcordConn *conn = dlist_container(ConcordConn, node, iter.cur);

		if (conn != except && conn->node_id == except->node_id &&
			conn->replica_id == except->replica_id && conn->idle && conn->pg != NULL)
		{
			concord_conn_close(conn);
			return true;
		}
	}
	return false;
}

/* Takes one of the connections this database may have to the node, waiting if it must. */
static void
take_capacity(ConcordConn *conn)
{
	ConcordPeer *peer = shared_peer(conn->replica_id != 0 ? -conn->replica_id : conn->node_id);
	TimestampTz until = 0;		/* set: this session is in the queue */
	bool		may_take = pg_atomic_read_u32(&peer->waiters) == 1; /* nobody else */
	volatile bool counted = false;

	PG_TRY();
	{
		/*
		 * Who comes while others wait queues behind them, and what is handed to the waiters is
		 * for the one that was woken for it, the first in the queue.
		 */
		while (!(counted = (may_take && take_grant(peer)) ||
				 ((may_take || until != 0) && try_count(peer))))
		{
			TimestampTz now = GetCurrentTimestamp();

			if (give_up_own(conn))
				continue;
			if (until == 0)
			{
				until = TimestampTzPlusMilliseconds(now, concord_connect_timeout_ms);
				ConditionVariablePrepareToSleep(&peer->conn_cv);
				continue;
			}
			if (now >= until)
				ereport(ERROR,
						(errcode(ERRCODE_TOO_MANY_CONNECTIONS),
						 errmsg("too many connections to node \"%s\"", conn->name),
						 errdetail("All %d connections that this node may have are in use.",
								   concord_max_peer_connections),
						 errhint("Increase concord.max_peer_connections, or shorten transactions.")));
			/*
			 * Reaped connections do not signal, so look again now and then.  A wake-up may be lost
			 * with the one it was meant for: who has waited for long takes what lies there.
			 */
			may_take = !ConditionVariableTimedSleep(&peer->conn_cv, CAPACITY_CHECK_MS,
													concord_wait_event("ConcordPeerCapacity")) ||
				now >= until - concord_connect_timeout_ms * INT64CONST(500);
		}
	}
	PG_FINALLY();
	{
		ConditionVariableCancelSleep();
		stop_waiting(peer);
	}
	PG_END_TRY();
	if (counted)
		conn->shared = peer;
}

static void
return_capacity(ConcordConn *conn)
{
	ConcordPeer *peer = conn->shared;

	if (peer == NULL)
		return;
	conn->shared = NULL;
	if (conn->reaped)
		return;					/* the timer has given it back */
	if (pg_atomic_read_u32(&peer->waiters) == 0)
	{
		pg_atomic_fetch_sub_u32(&peer->connections, 1);
		return;
	}
	/* handed to the waiters, so that no newcomer takes it before the one that is woken */
	pg_atomic_fetch_add_u32(&peer->waiters, 1);
	pg_atomic_fetch_add_u32(&peer->granted, 1);
	ConditionVariableSignal(&peer->conn_cv);
	stop_waiting(peer);			/* if they have all left meanwhile, it is free */
}

/* --------------------------------------------------------------- life */

static void
mark_invalid(Datum arg, int cacheid, uint32 hashvalue)
{
	dlist_iter	iter;

	dlist_foreach(iter, &concord_conns)
		dlist_container(ConcordConn, node, iter.cur)->invalidated = true;
}

static void
close_all_at_exit(int code, Datum arg)
{
	dlist_iter	iter;

	dlist_foreach(iter, &concord_conns)
		concord_conn_close(dlist_container(ConcordConn, node, iter.cur));
}

static void
initialize(void)
{
	if (initialized)
		return;
	peer_context = AllocSetContextCreate(TopMemoryContext, "pg_concord peer",
										 ALLOCSET_DEFAULT_SIZES);
	idle_timer = RegisterTimeout(USER_TIMEOUT, idle_timer_fired);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, mark_invalid, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, mark_invalid, (Datum) 0);
	before_shmem_exit(close_all_at_exit, (Datum) 0);
	initialized = true;
}

static ConcordConn *
conn_create(const ConcordTarget *target, Oid userid)
{
	MemoryContext context = AllocSetContextCreate(peer_context, "pg_concord connection",
												  ALLOCSET_DEFAULT_SIZES);
	ConcordConn *conn = MemoryContextAllocZero(context, sizeof(ConcordConn));
	int			slot;

	for (slot = 0; slot < MAX_CONNECTIONS && resting[slot] != NULL; slot++)
		;
	if (slot == MAX_CONNECTIONS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many peer connections in this session")));
	conn->context = context;
	conn->serverid = target->serverid;
	conn->userid = userid;
	conn->replica_id = target->replica_id;
	dlist_push_tail(&concord_conns, &conn->node);
	resting[slot] = conn;
	if (slot >= nresting)
		nresting = slot + 1;
	return conn;
}

/* A replica's address is known from the map alone: the connection keeps what it is opened with. */
static void
keep_address(ConcordConn *conn, const ConcordTarget *target)
{
	MemoryContext old;

	if (conn->replica_id == 0 || conn->pg != NULL)
		return;
	old = MemoryContextSwitchTo(conn->context);
	list_free_deep(conn->address);
	conn->address = NIL;
	for (int i = 0; i < list_length(target->address); i++)
		conn->address = lappend(conn->address, pstrdup(list_nth(target->address, i)));
	MemoryContextSwitchTo(old);
}

/*
 * This role's connection to the node, connected and alive as far as can be told without
 * waiting, or closed (then concord_conn_open() is next).  A connection with an open branch is
 * returned as it is.
 */
ConcordConn *
concord_conn_get(const ConcordTarget *target, Oid userid)
{
	ConcordConn *conn = NULL;
	dlist_iter	iter;

	initialize();
	concord_branch_in_use();
	dlist_foreach(iter, &concord_conns)
	{
		ConcordConn *candidate = dlist_container(ConcordConn, node, iter.cur);

		if (candidate->serverid == target->serverid && candidate->userid == userid &&
			candidate->replica_id == target->replica_id)
		{
			conn = candidate;
			break;
		}
	}
	if (conn == NULL)
		conn = conn_create(target, userid);

	conn->node_id = target->node_id;
	strlcpy(conn->name, target->name, NAMEDATALEN);
	strlcpy(conn->cluster, target->cluster, sizeof(conn->cluster));
	conn->self = target->self;

	if (conn->branch != CONCORD_BRANCH_NONE)
		return conn;
	keep_address(conn, target);
	conn->idle = false;			/* C4: from here on the timer leaves it alone */
	pg_compiler_barrier();
	if (conn->pg != NULL && (conn->reaped || conn->invalidated || !concord_conn_alive(conn)))
		concord_conn_close(conn);
	return conn;
}

/*
 * Did the peer close it, or is it in a state we do not know?  Consumes answers that came late (C2).
 */
bool
concord_conn_alive(ConcordConn *conn)
{
	if (!conn->connected || PQstatus(conn->pg) != CONNECTION_OK)
		return false;
	if (conn->queue_length > 0)
		concord_conn_advance(conn);
	if (conn->lost || conn->pg == NULL)
		return false;
	/* also behind late answers: the end of the connection */
	if (concord_wire_ready(conn->pg, PGRES_POLLING_READING))
	{
		if (PQconsumeInput(conn->pg) == 0)
			return false;
		/* notices or parameter reports; a FATAL message shows as a closed connection next */
		if (conn->queue_length == 0)
			(void) PQisBusy(conn->pg);
		else
			concord_conn_advance(conn);
		if (conn->lost || PQconsumeInput(conn->pg) == 0)
			return false;
	}
	return PQstatus(conn->pg) == CONNECTION_OK &&
		conn->branch == CONCORD_BRANCH_NONE && conn->error.message == NULL;
}

void
concord_conn_open(ConcordConn *conn)
{
	MemoryContext old;
	List	   *options;
	const char *why;

	Assert(conn->pg == NULL);
	options = conn->replica_id != 0 ?
		concord_copy_options(conn->address, conn->serverid, conn->userid) :
		concord_server_options(conn->serverid, conn->userid, false);
	if (conn->shared == NULL)
		take_capacity(conn);

	old = MemoryContextSwitchTo(conn->context);
	list_free_deep(conn->options);
	conn->options = NIL;
	for (int i = 0; i < list_length(options); i++)
		conn->options = lappend(conn->options, pstrdup(list_nth(options, i)));
	conn->reaped = false;
	conn->invalidated = false;
	conn->connected = false;
	conn->told_epoch = 0;
	conn->backend_pid = 0;
	conn->settings.known = false;
	conn->queue_length = conn->queue_head = 0;
	concord_error_free(&conn->error);
	concord_error_free(&conn->commit_error);
	conn->lost = false;
	conn->started_at = GetCurrentTimestamp();
	conn->pg = concord_wire_open(conn->options, &why);
	MemoryContextSwitchTo(old);

	if (conn->pg == NULL)
	{
		return_capacity(conn);
		if (conn->replica_id != 0)
		{
			concord_conn_lost(conn);
			return;				/* another copy will do */
		}
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("could not connect to node \"%s\"", conn->name),
				 errdetail_internal("%s", why)));
	}
	conn->poll = PGRES_POLLING_WRITING;
}

/* Never raises. Statements prepared there and types looked up there are forgotten. */
void
concord_conn_close(ConcordConn *conn)
{
	conn->idle = false;
	pg_compiler_barrier();
	if (conn->result != NULL)
		PQclear(conn->result);
	conn->result = NULL;
	if (conn->set != NULL)
		FreeWaitEventSet(conn->set);
	conn->set = NULL;
	if (conn->pg != NULL)
		concord_wire_close(conn->pg);
	conn->pg = NULL;
	conn->connected = false;
	conn->queue_length = 0;
	concord_conn_forget_tokens(conn);
	return_capacity(conn);
	concord_conn_drop_notices(conn);
	concord_conn_forget_statement(conn);
	if (conn->prepared != NULL)
		hash_destroy(conn->prepared);
	if (conn->types != NULL)
		hash_destroy(conn->types);
	conn->prepared = conn->types = NULL;
	conn->nprepared = 0;
	dlist_init(&conn->prepared_lru);
}

/* ------------------------------------------------------------------ waiting */

static uint32
wanted_events(ConcordConn *conn)
{
	if (!conn->connected)
		return conn->poll == PGRES_POLLING_READING ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE;
	return PQflush(conn->pg) > 0 ? WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE : WL_SOCKET_READABLE;
}

static void
wait_many(ConcordConn **conns, int n, long timeout_ms)
{
	WaitEventSet *set = concord_create_wait_set(n + 2);
	WaitEvent	event;

	PG_TRY();
	{
		AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		for (int i = 0; i < n; i++)
			if (conns[i]->pg != NULL && !conns[i]->answered && PQsocket(conns[i]->pg) >= 0)
				AddWaitEventToSet(set, wanted_events(conns[i]), PQsocket(conns[i]->pg), NULL, NULL);
		if (WaitEventSetWait(set, timeout_ms, &event, 1,
							 concord_wait_event("ConcordPeerAnswer")) == 1 &&
			event.events == WL_LATCH_SET)
			ResetLatch(MyLatch);
	}
	PG_FINALLY();
	{
		FreeWaitEventSet(set);
	}
	PG_END_TRY();
}

/* A connected connection keeps its own set: one system call per wait on the hot path. */
static void
wait_one(ConcordConn *conn, long timeout_ms)
{
	uint32		events = wanted_events(conn);
	WaitEvent	event;

	if (conn->set == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(conn->context);

		conn->set = concord_create_lasting_wait_set(3);
		MemoryContextSwitchTo(old);
		AddWaitEventToSet(conn->set, events, PQsocket(conn->pg), NULL, NULL);
		AddWaitEventToSet(conn->set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(conn->set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		conn->set_events = events;
	}
	else if (conn->set_events != events)
	{
		ModifyWaitEvent(conn->set, 0, events, NULL);
		conn->set_events = events;
	}
	if (WaitEventSetWait(conn->set, timeout_ms, &event, 1,
						 concord_wait_event("ConcordPeerAnswer")) == 1 &&
		event.events == WL_LATCH_SET)
		ResetLatch(MyLatch);
}

/*
 * Waits for news from any unanswered connection, the latch, or the timeout (-1 = none).  Does
 * not look at interrupts.
 */
void
concord_conn_wait(ConcordConn **conns, int n, long timeout_ms)
{
	if (n == 1 && conns[0]->connected)
		wait_one(conns[0], timeout_ms);
	else
		wait_many(conns, n, timeout_ms);
}
