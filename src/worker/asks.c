/*
 * asks.c
 *		The worker's links to the peers and the questions asked over them.
 *
 * WHAT: one link a peer, used for everything the worker asks, one question at a time.  All links
 * and the latch are in one wait event set, so a peer that is slow or silent delays nobody.
 *
 * STATES of a peer (function on the edge)
 *		CLOSED --open_link (not before retry_at)--> CONNECTING --advance_peer--> IDLE
 *		IDLE --send_next--> ASKED --advance_peer--> IDLE
 *		CONNECTING, ASKED --deadline passed, link failed: link_failed--> CLOSED
 *		IDLE --peer closed it: link_failed; options changed: refresh_peer--> CLOSED
 *
 * INVARIANTS
 * A1 Every question and every connection attempt has a deadline.
 * A2 No transaction is open while a link is sent to, advanced or waited for.
 * A3 Peers are freed in concord_asks_sync() only, which runs as a duty, never while the
 *    events of a wait are dealt with: these point to peers.
 * A4 The wait event set is built anew before the next wait whenever a socket may have been
 *    closed or replaced: libpq does so only while it connects.
 *
 * MEMORY: a link lives in its peer's link_context, which is reset to close it; answers live in
 * the cycle's context.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/settings.h"
#include "cluster/copies.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"
#include "worker/clock.h"
#include "worker/duty.h"

#define RECONNECT_MIN_MS	100
#define RECONNECT_MAX_MS	5000
#define RECONNECT_NEEDED_MS	500	/* a branch is in doubt until the peer answers */
#define LONGEST_WAIT_MS		60000
#define EVENTS_AT_ONCE		64

static const ConcordAskKind ask_kinds[CONCORD_ASKS] = {
	[CONCORD_ASK_HEARTBEAT] = {"heartbeat", concord_heartbeat_send, concord_heartbeat_answer},
	[CONCORD_ASK_COPY] = {"replica", concord_copy_send, concord_copy_answer},
	[CONCORD_ASK_MAP] = {"map", concord_map_send, concord_map_answer},
	[CONCORD_ASK_JOIN_OUTCOME] = {"join", concord_join_send, concord_join_answer},
	[CONCORD_ASK_OUTCOMES] = {"outcomes", concord_outcomes_send, concord_outcomes_answer},
	[CONCORD_ASK_PREPARED] = {"prepared", concord_prepared_send, concord_prepared_answer},
};

static WaitEventSet *wait_set = NULL;
static bool wait_set_stale = true;	/* A4 */

static int
connect_timeout_ms(void)
{
	return concord_connect_timeout_ms;
}

static int
answer_timeout_ms(void)
{
	return Max(concord_down_after_ms, 1000);
}

static void
close_link(ConcordWorkerPeer *peer)
{
	MemoryContextReset(peer->link_context);
	peer->link = NULL;
	peer->connected = false;
	peer->set_position = -1;
	peer->asked = CONCORD_ASK_NONE;
	peer->wanted = 0;
	peer->deadline = 0;
	wait_set_stale = true;
}

static void
link_failed(ConcordWorkerPeer *peer, const char *reason, bool refused)
{
	bool		was_connected = peer->connected;
	bool		map_asked = peer->asked == CONCORD_ASK_MAP ||
		(peer->wanted & (1 << CONCORD_ASK_MAP)) != 0;

	close_link(peer);
	peer->failures++;
	/* what broke is tried again at once: a peer's administrator may have ended just our session */
	peer->retry_at = concord_clock_ms();
	if (!was_connected || peer->failures > 1)
		peer->retry_at += concord_backoff_ms(peer->failures, RECONNECT_MIN_MS,
											 concord_resolve_needs(peer) ? RECONNECT_NEEDED_MS :
											 RECONNECT_MAX_MS);
	if (map_asked)
		concord_map_ask_failed(peer);
	if (concord_is_replica(peer))
		concord_copy_lost(peer);
	concord_heartbeat_failed(peer, reason, refused);
}

/* The link ended with a reply that says why.  If it was never made, nobody let us in. */
static void
link_lost(ConcordWorkerPeer *peer)
{
	ConcordReply *reply = concord_link_take(peer->link);
	const char *reason = "connection lost";

	if (reply != NULL)
		reason = reply->detail != NULL ? reply->detail : reply->message;
	link_failed(peer, reason, !peer->connected);
}

/* Takes what arrived on a peer's link as far as it goes. */
static void
advance_peer(void *arg)
{
	ConcordWorkerPeer *peer = arg;
	ConcordReply *reply;
	ConcordAsk	asked;

	if (peer->link == NULL)
		return;
	switch (concord_link_advance(peer->link))
	{
		case CONCORD_LINK_CONNECTING:
			wait_set_stale = true;	/* A4 */
			break;
		case CONCORD_LINK_IDLE:
			if (peer->connected)
				break;
			peer->connected = true;
			peer->deadline = 0;
			wait_set_stale = true;
			if (ConcordWorker.membership == CONCORD_MEMBER)
				concord_ask(peer, concord_is_replica(peer) ? CONCORD_ASK_COPY :
							CONCORD_ASK_HEARTBEAT);
			concord_duty_hurry(CONCORD_DUTY_RESOLVE);
			break;
		case CONCORD_LINK_BUSY:
			break;
		case CONCORD_LINK_ANSWERED:
			reply = concord_link_take(peer->link);
			if (reply->connection_lost)
			{
				link_failed(peer, reply->message, false);
				break;
			}
			asked = peer->asked;
			peer->asked = CONCORD_ASK_NONE;
			peer->deadline = 0;
			peer->failures = 0;
			ask_kinds[asked].answer(peer, reply);
			break;
		case CONCORD_LINK_FAILED:
			link_lost(peer);
			break;
	}
}

void
concord_ask(ConcordWorkerPeer *peer, ConcordAsk ask)
{
	if (concord_ask_possible(peer))
		peer->wanted |= 1 << ask;
}

bool
concord_ask_possible(const ConcordWorkerPeer *peer)
{
	return peer->connected;
}

static void
send_next(ConcordWorkerPeer *peer)
{
	for (int ask = CONCORD_ASK_NONE + 1; ask < CONCORD_ASKS; ask++)
	{
		if ((peer->wanted & (1 << ask)) == 0)
			continue;
		peer->wanted &= ~(1 << ask);
		peer->asked_at_us = concord_clock_us();
		peer->sent_us = concord_copy_clock_us();
		ask_kinds[ask].send(peer);
		peer->asked = ask;
		peer->deadline = concord_clock_ms() + answer_timeout_ms();
		return;
	}
}

static void
open_link(ConcordWorkerPeer *peer)
{
	MemoryContext old = MemoryContextSwitchTo(peer->link_context);

	peer->deadline = concord_clock_ms() + connect_timeout_ms();
	peer->link = concord_link_open(peer->name, peer->options);
	MemoryContextSwitchTo(old);
	wait_set_stale = true;
	advance_peer(peer);
}

/* While joining only the authority is asked; the others do not know this node yet. */
static bool
is_of_use(const ConcordWorkerPeer *peer)
{
	return ConcordWorker.membership == CONCORD_MEMBER || peer->node_id == ConcordWorker.authority;
}

/* One peer's share of concord_asks_serve(). */
static int64
serve_peer(ConcordWorkerPeer *peer)
{
	int64		now = concord_clock_ms();

	if (!is_of_use(peer))
	{
		if (peer->link != NULL)
			close_link(peer);
		return PG_INT64_MAX;
	}
	if (peer->link != NULL && peer->deadline != 0 && peer->deadline <= now)	/* A1 */
		link_failed(peer, psprintf("no answer within %d ms",
								   peer->connected ? answer_timeout_ms() : connect_timeout_ms()),
					false);
	if (peer->link == NULL && peer->options != NIL && peer->retry_at <= now)
		open_link(peer);
	if (peer->link == NULL)
		return peer->options != NIL ? peer->retry_at : PG_INT64_MAX;
	if (peer->connected && peer->asked == CONCORD_ASK_NONE)
		send_next(peer);
	return peer->deadline != 0 ? peer->deadline : PG_INT64_MAX;
}

int64
concord_asks_serve(void)
{
	int64		next = PG_INT64_MAX;
	ListCell   *lc;

	foreach(lc, ConcordWorker.peers)
	{
		int64		wish = serve_peer(lfirst(lc));

		next = Min(next, wish);
	}
	return next;
}

/* A4 */
static void
build_wait_set(void)
{
	MemoryContext old = MemoryContextSwitchTo(ConcordWorker.context);
	ListCell   *lc;

	if (wait_set != NULL)
		FreeWaitEventSet(wait_set);
	wait_set = NULL;
	wait_set = concord_create_lasting_wait_set(list_length(ConcordWorker.peers) + 2);
	MemoryContextSwitchTo(old);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	foreach(lc, ConcordWorker.peers)
	{
		ConcordWorkerPeer *peer = lfirst(lc);
		pgsocket	socket;

		peer->set_position = -1;
		if (peer->link == NULL)
			continue;
		socket = concord_link_socket(peer->link, &peer->set_events);
		if (socket != PGINVALID_SOCKET && peer->set_events != 0)
			peer->set_position = AddWaitEventToSet(wait_set, peer->set_events, socket, NULL, peer);
	}
	wait_set_stale = false;
}

static void
update_wait_set(void)
{
	ListCell   *lc;

	if (wait_set == NULL || wait_set_stale)
	{
		build_wait_set();
		return;
	}
	foreach(lc, ConcordWorker.peers)
	{
		ConcordWorkerPeer *peer = lfirst(lc);
		int			events;

		if (peer->set_position < 0)
			continue;
		(void) concord_link_socket(peer->link, &events);
		if (events != peer->set_events && events != 0)
		{
			ModifyWaitEvent(wait_set, peer->set_position, events, NULL);
			peer->set_events = events;
		}
	}
}

void
concord_asks_wait(int64 until)
{
	static uint32 wait_event = 0;
	WaitEvent	events[EVENTS_AT_ONCE];
	int64		timeout = until - concord_clock_ms();
	int			n;

	if (wait_event == 0)
		wait_event = concord_wait_event("ConcordWorkerMain");
	Assert(!IsTransactionState());	/* A2 */
	update_wait_set();
	timeout = Max(0, Min(timeout, LONGEST_WAIT_MS));
	n = WaitEventSetWait(wait_set, (long) timeout, events, EVENTS_AT_ONCE, wait_event);
	for (int i = 0; i < n; i++)
	{
		if (events[i].events & WL_LATCH_SET)
		{
			/* somebody changed the map, heard of a newer one, or has a request */
			ResetLatch(MyLatch);
			concord_duty_hurry(CONCORD_DUTY_SYNC);
			concord_duty_hurry(CONCORD_DUTY_MAP);
			concord_duty_hurry(CONCORD_DUTY_RESOLVE);
			concord_duty_hurry(CONCORD_DUTY_FORGET);
			concord_duty_hurry(CONCORD_DUTY_REGISTRAR);
		}
		else if (events[i].user_data != NULL)
		{
			ConcordWorkerPeer *peer = events[i].user_data;

			concord_guarded(ask_kinds[peer->asked].name, advance_peer, peer);
		}
	}
}

static ConcordWorkerPeer *
add_peer(int node_id)
{
	MemoryContext old = MemoryContextSwitchTo(ConcordWorker.context);
	ConcordWorkerPeer *peer = palloc0(sizeof(ConcordWorkerPeer));

	peer->node_id = node_id;
	peer->set_position = -1;
	peer->options_context = AllocSetContextCreate(ConcordWorker.context, "concord peer options",
												  ALLOCSET_SMALL_SIZES);
	peer->link_context = AllocSetContextCreate(ConcordWorker.context, "concord peer link",
											   ALLOCSET_SMALL_SIZES);
	peer->heard_at = concord_clock_ms();
	ConcordWorker.peers = lappend(ConcordWorker.peers, peer);
	MemoryContextSwitchTo(old);
	return peer;
}

static void
drop_peer(ConcordWorkerPeer *peer)
{
	close_link(peer);
	MemoryContextDelete(peer->link_context);
	MemoryContextDelete(peer->options_context);
	ConcordWorker.peers = list_delete_ptr(ConcordWorker.peers, peer);
	pfree(peer);
}

ConcordWorkerPeer *
concord_worker_peer(int node_id)
{
	ListCell   *lc;

	foreach(lc, ConcordWorker.peers)
	{
		ConcordWorkerPeer *peer = lfirst(lc);

		if (peer->node_id == node_id)
			return peer;
	}
	return NULL;
}

static ConcordWorkerPeer *
find_or_add(int node_id, const NameData *name)
{
	ConcordWorkerPeer *peer = concord_worker_peer(node_id);

	if (peer == NULL)
		peer = add_peer(node_id);
	strlcpy(peer->name, NameStr(*name), NAMEDATALEN);
	return peer;
}

/* The map is not touched between its reading and its copying: nothing here opens a relation. */
void
concord_asks_sync(const ConcordMap *map)
{
	int		   *keep = palloc((map->nnodes + map->nreplicas + 1) * sizeof(int));
	int			nkeep = 0;
	List	   *old = list_copy(ConcordWorker.peers);
	ListCell   *lc;

	for (int i = 0; i < map->nnodes; i++)
	{
		const ConcordNode *node = &map->nodes[i];

		if (node->node_id == map->self)
			continue;
		keep[nkeep++] = node->node_id;
		find_or_add(node->node_id, &node->name)->serverid = node->serverid;
	}
	for (int i = 0; i < map->nreplicas; i++)
	{
		const ConcordReplica *replica = &map->replicas[i];
		const ConcordNode *node = concord_map_node(map, replica->node_id);
		ConcordWorkerPeer *peer;

		if (node == NULL)
			continue;
		keep[nkeep++] = -replica->replica_id;
		peer = find_or_add(-replica->replica_id, &replica->name);
		peer->copy_of = node->node_id;
		peer->generation = node->generation;
		peer->logical = replica->logical;
	}
	foreach(lc, old)
	{
		ConcordWorkerPeer *peer = lfirst(lc);
		bool		kept = false;

		for (int i = 0; i < nkeep && !kept; i++)
			kept = keep[i] == peer->node_id;
		if (!kept)
			drop_peer(peer);
	}

	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	concord_shmem_forget_peers(MyDatabaseId, keep, nkeep);
	LWLockRelease(ConcordShared->lock);
}

static bool
same_options(List *a, List *b)
{
	ListCell   *la;
	ListCell   *lb;

	if (list_length(a) != list_length(b))
		return false;
	forboth(la, a, lb, b)
		if (strcmp(lfirst(la), lfirst(lb)) != 0)
			return false;
	return true;
}

static List *
read_options(const ConcordWorkerPeer *peer)
{
	Oid			role = get_role_oid(concord_node_role, false);
	const ConcordMap *map;
	const ConcordReplica *replica;

	if (!concord_is_replica(peer))
		return concord_server_options(peer->serverid, role, true);
	map = concord_map();
	replica = concord_map_replica(map, -peer->node_id);
	if (replica == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("replica \"%s\" does not exist", peer->name)));
	return concord_replica_options(map, replica, role, true);
}

/* Reads how to reach a peer; a link made otherwise is closed. */
static void
refresh_peer(void *arg)
{
	ConcordWorkerPeer *peer = arg;
	List	   *options;
	List	   *kept = NIL;
	MemoryContext old;
	ListCell   *lc;

	concord_work_begin("reading connection options");
	options = read_options(peer);
	if (!same_options(options, peer->options))
	{
		close_link(peer);
		peer->options = NIL;
		MemoryContextReset(peer->options_context);
		old = MemoryContextSwitchTo(peer->options_context);
		foreach(lc, options)
			kept = lappend(kept, pstrdup(lfirst(lc)));
		MemoryContextSwitchTo(old);
		peer->options = kept;
		/* what failed, failed by the old ones: it is asked at once */
		peer->failures = 0;
		peer->refusals = 0;
		peer->quiet_until = 0;
		peer->retry_at = concord_clock_ms();
	}
	concord_work_commit();
}

void
concord_asks_refresh(void)
{
	ListCell   *lc;

	foreach(lc, ConcordWorker.peers)
	{
		ConcordWorkerPeer *peer = lfirst(lc);
		char	   *why = concord_attempt(refresh_peer, peer);

		if (why == NULL)
			continue;
		/* no mapping, no role: it cannot be asked, and the nodes view says why */
		if (peer->link != NULL)
			close_link(peer);
		peer->options = NIL;
		MemoryContextReset(peer->options_context);
		concord_heartbeat_failed(peer, why, true);
	}
}
