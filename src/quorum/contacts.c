/*
 * contacts.c
 *		The registrar's connections to the nodes, and what it asks over them.
 *
 * WHAT: one connection to each node, opened when there is something to ask.  One question at a time
 * is under way on it: a call, or a batch of requests to the node's acceptor, made of whatever is to
 * be sent by then (proposals.c).  So the busier the registrar, the bigger the batch.
 *
 * STATES of a contact (function on the edge)
 *		CLOSED --open_link (not before retry_at)--> CONNECTING --advance--> IDLE
 *		IDLE --send_next: a call, or a batch--> BUSY --advance: take_reply--> IDLE
 *		any --deadline passed, link failed: link_failed--> CLOSED
 *
 * INVARIANTS
 * Y1 Every question and connection attempt has a deadline; an answer that is too long in coming
 *	  closes the link, so it cannot be taken for another one's.
 * Y2 No transaction is open while a link is sent to, advanced or waited for.
 * Y3 A call is answered once, with NULL if it was given up, never from within the call itself.
 *
 * What a crash leaves: the peers see sockets close; each question is a transaction of its own and
 * can be repeated.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/settings.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "quorum/engine.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#define STEPS_SQL "SELECT concord._registers($1)"
#define SETTINGS_SQL \
	"SELECT pg_catalog.set_config('synchronous_commit', 'local', false), " \
	"pg_catalog.set_config('concord.track', 'off', false)"
#define RECONNECT_MIN_MS 50
#define RECONNECT_MAX_MS 2000
#define LONGEST_WAIT_MS 60000
#define EVENTS 16				/* taken at a time; those left come with the next wait */

typedef struct Call
{
	dlist_node	node;
	const char *sql;
	int			nparams;
	char	  **params;
	int64		deadline;
	ConcordCallDone done;
	void	   *arg;
} Call;

typedef struct Contact
{
	int			node_id;
	NameData	name;
	Oid			serverid;
	char	   *zone;
	dlist_node	node;
	bool		listed;			/* in the map, or an acceptor */
	MemoryContext context;		/* of the link */
	ConcordLink *link;			/* NULL when closed */
	bool		connected;
	int64		retry_at;
	int			failures;		/* in a row */
	int64		deadline;		/* of what is under way; 0 = nothing is */
	dlist_head	calls;
	Call	   *calling;		/* under way */
	ConcordSent *sent;			/* under way; NULL = none */
	int			nsent;
	int			set_position;
	int			set_events;
	int			looks;			/* how often its socket is to be read before the next wait */
} Contact;

static dlist_head nodes;		/* of Contact */
static int	nnodes;
static WaitEventSet *wait_set;
static bool wait_set_stale = true;

static Contact *
find_node(int node_id)
{
	dlist_iter	iter;

	dlist_foreach(iter, &nodes)
	{
		Contact	   *node = dlist_container(Contact, node, iter.cur);

		if (node->node_id == node_id)
			return node;
	}
	return NULL;
}

static Contact *
add_node(int node_id)
{
	MemoryContext old = MemoryContextSwitchTo(ConcordQuorumContext);
	Contact	   *node = palloc0(sizeof(Contact));

	node->node_id = node_id;
	node->set_position = -1;
	node->context = AllocSetContextCreate(ConcordQuorumContext, "concord contact",
										  ALLOCSET_SMALL_SIZES);
	dlist_init(&node->calls);
	dlist_push_tail(&nodes, &node->node);
	nnodes++;
	MemoryContextSwitchTo(old);
	return node;
}

static void
free_call(Call *call)
{
	for (int i = 0; i < call->nparams; i++)
		if (call->params[i] != NULL)
			pfree(call->params[i]);
	pfree(call->params);
	pfree(call);
}

static void
end_call(Contact *node, Call *call, ConcordReply *reply)
{
	if (call->done != NULL)
		call->done(node->node_id, reply, call->arg);
	free_call(call);
}

/* What was under way is not answered any more. */
static void
close_link(Contact *node)
{
	ConcordSent *sent = node->sent;
	int			nsent = node->nsent;
	Call	   *call = node->calling;

	MemoryContextReset(node->context);
	node->link = NULL;
	node->connected = false;
	node->looks = 0;
	node->set_position = -1;
	node->deadline = 0;
	node->sent = NULL;
	node->calling = NULL;
	wait_set_stale = true;
	if (sent != NULL)
		concord_batch_lost(sent, nsent);
	if (call != NULL)
		end_call(node, call, NULL);
}

static void
link_failed(Contact *node)
{
	close_link(node);
	node->failures++;
	node->retry_at = concord_quorum_ms() +
		Min(RECONNECT_MAX_MS, RECONNECT_MIN_MS * (int64) node->failures * node->failures);
}

static void
drop_node(Contact *node)
{
	close_link(node);
	while (!dlist_is_empty(&node->calls))
		end_call(node, dlist_container(Call, node, dlist_pop_head_node(&node->calls)), NULL);
	dlist_delete(&node->node);
	MemoryContextDelete(node->context);
	nnodes--;
	pfree(node);
}

void
concord_quorum_call(int node_id, const char *sql, int nparams, const char *const *params,
					int timeout_ms, ConcordCallDone done, void *arg)
{
	MemoryContext old = MemoryContextSwitchTo(ConcordQuorumContext);
	Call	   *call = palloc0(sizeof(Call));
	Contact	   *node = find_node(node_id);

	call->sql = sql;
	call->nparams = nparams;
	call->params = palloc0(Max(nparams, 1) * sizeof(char *));
	for (int i = 0; i < nparams; i++)
		call->params[i] = params[i] != NULL ? pstrdup(params[i]) : NULL;
	call->done = done;
	call->arg = arg;
	call->deadline = concord_quorum_ms() + timeout_ms;
	if (node == NULL)
	{
		/* not in the map any more: nobody answers (Y3: at its deadline) */
		node = add_node(node_id);
		node->retry_at = PG_INT64_MAX;
	}
	dlist_push_tail(&node->calls, &call->node);
	MemoryContextSwitchTo(old);
}

/* Options are read when they are needed: what was changed meanwhile counts. */
static List *
read_options(const Contact *node)
{
	List	   *options = NIL;
	List	   *kept = NIL;
	MemoryContext old;
	ListCell   *lc;

	StartTransactionCommand();
	AcceptInvalidationMessages();
	PG_TRY();
	{
		options = concord_server_options(node->serverid, get_role_oid(concord_node_role, false),
										 true);
	}
	PG_CATCH();
	{
		/* no mapping, no role, no server: the doctor and the nodes view say why */
		MemoryContextSwitchTo(ConcordTurnContext);
		FlushErrorState();
		AbortCurrentTransaction();
		MemoryContextSwitchTo(ConcordTurnContext);
		return NIL;
	}
	PG_END_TRY();
	old = MemoryContextSwitchTo(node->context);
	foreach(lc, options)
		kept = lappend(kept, pstrdup(lfirst(lc)));
	MemoryContextSwitchTo(old);
	CommitTransactionCommand();
	MemoryContextSwitchTo(ConcordTurnContext);
	return kept;
}

static void
open_link(Contact *node)
{
	List	   *options = read_options(node);
	MemoryContext old;

	if (options == NIL)
	{
		link_failed(node);
		return;
	}
	old = MemoryContextSwitchTo(node->context);
	node->deadline = concord_quorum_ms() + concord_connect_timeout_ms;
	node->link = concord_link_open(NameStr(node->name), options);
	MemoryContextSwitchTo(old);
	wait_set_stale = true;
}

static void
take_reply(Contact *node)
{
	ConcordReply *reply = concord_link_take(node->link);
	Call	   *call = node->calling;
	ConcordSent *sent;

	node->deadline = 0;
	if (reply->connection_lost)
	{
		link_failed(node);
		return;
	}
	if (call != NULL)
	{
		node->calling = NULL;
		node->failures = 0;
		end_call(node, call, reply);
		return;
	}
	if (!reply->ok)
	{
		ereport(DEBUG1,
				(errmsg_internal("node \"%s\" refuses to be asked as an acceptor: %s",
								 NameStr(node->name), reply->message)));
		/* not a member, a standby, overloaded: nothing was stored.  As if it had not answered */
		link_failed(node);
		return;
	}
	node->failures = 0;
	sent = node->sent;
	node->sent = NULL;
	if (!concord_batch_answered(sent, node->nsent, reply))
	{
		ereport(LOG,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("node \"%s\" sent a malformed answer as an acceptor",
						NameStr(node->name))));
		link_failed(node);
	}
}

static void
send_batch(Contact *node)
{
	size_t		len;
	unsigned char *bytes = concord_batch_make(node->node_id, &len, &node->sent, &node->nsent);

	node->deadline = concord_quorum_ms() + Max(concord_down_after_ms, 1000);
	concord_link_send_bytes(node->link, STEPS_SQL, bytes, len);
	pfree(bytes);
}

static void
send_next(Contact *node)
{
	if (!dlist_is_empty(&node->calls))
	{
		Call	   *call = dlist_container(Call, node, dlist_pop_head_node(&node->calls));

		node->calling = call;
		node->deadline = call->deadline;
		concord_link_send(node->link, call->sql, call->nparams,
						  (const char *const *) call->params);
	}
	else if (concord_batch_wanted(node->node_id))
		send_batch(node);
}

static void
advance(Contact *node)
{
	int			looks = node->looks;

	if (node->link == NULL || (node->connected && looks == 0))
		return;
	node->looks = 0;
	switch (concord_link_advance(node->link))
	{
		case CONCORD_LINK_CONNECTING:
			wait_set_stale = true;
			break;
		case CONCORD_LINK_IDLE:
			if (!node->connected)
			{
				node->connected = true;
				node->deadline = 0;
				wait_set_stale = true;
				/* once, not with each batch; what it does not know it does without */
				concord_quorum_call(node->node_id, SETTINGS_SQL, 0, NULL,
									concord_connect_timeout_ms, NULL, NULL);
			}
			break;
		case CONCORD_LINK_BUSY:
			node->looks = looks > 0 ? looks - 1 : 0;
			break;
		case CONCORD_LINK_ANSWERED:
			node->connected = true;
			take_reply(node);
			break;
		case CONCORD_LINK_FAILED:
			link_failed(node);
			break;
	}
}

/*
 * Returns when it wants to be looked at again.  It takes no answers: what they make another node's
 * contact send would have to wait for the next turn.
 */
static int64
serve_node(Contact *node)
{
	int64		now = concord_quorum_ms();
	dlist_mutable_iter iter;
	int64		next = PG_INT64_MAX;

	if (node->link != NULL && node->deadline != 0 && node->deadline <= now) /* Y1 */
		link_failed(node);
	dlist_foreach_modify(iter, &node->calls)
	{
		Call	   *call = dlist_container(Call, node, iter.cur);

		if (call->deadline > now)
		{
			next = Min(next, call->deadline);
			continue;
		}
		dlist_delete(&call->node);
		end_call(node, call, NULL);
	}
	if (node->link == NULL)
	{
		if (dlist_is_empty(&node->calls) && !concord_batch_wanted(node->node_id))
			return next;
		if (node->retry_at > now)
			return Min(next, node->retry_at);
		open_link(node);
		advance(node);
	}
	if (node->link != NULL && node->connected && node->calling == NULL && node->sent == NULL)
		send_next(node);
	return node->deadline != 0 ? Min(next, node->deadline) : next;
}

void
concord_contacts_sync(const ConcordMap *map)
{
	dlist_iter	iter;
	dlist_mutable_iter miter;

	dlist_foreach(iter, &nodes)
		dlist_container(Contact, node, iter.cur)->listed = false;
	for (int i = 0; i < map->nnodes; i++)
	{
		Contact	   *node = find_node(map->nodes[i].node_id);

		if (node == NULL)
			node = add_node(map->nodes[i].node_id);
		node->name = map->nodes[i].name;
		node->serverid = map->nodes[i].serverid;
		node->listed = true;
		if (node->zone != NULL)
			pfree(node->zone);
		node->zone = MemoryContextStrdup(ConcordQuorumContext, map->nodes[i].zone);
		if (node->retry_at == PG_INT64_MAX)
			node->retry_at = 0;
	}
	dlist_foreach_modify(miter, &nodes)
	{
		Contact	   *node = dlist_container(Contact, node, miter.cur);

		if (!node->listed)
			drop_node(node);
	}
}

int
concord_quorum_nodes(ConcordQuorumNode **list)
{
	dlist_iter	iter;
	int			n = 0;

	*list = MemoryContextAlloc(ConcordTurnContext, Max(nnodes, 1) * sizeof(ConcordQuorumNode));
	dlist_foreach(iter, &nodes)
	{
		Contact	   *node = dlist_container(Contact, node, iter.cur);
		ConcordCopyHealth health;

		if (!node->listed)
			continue;
		(*list)[n].node_id = node->node_id;
		(*list)[n].zone = node->zone;
		(*list)[n].reachable = node->node_id == concord_quorum_self() ||
			(concord_copy_health(node->node_id, &health) && health.health == CONCORD_UP);
		n++;
	}
	return n;
}

const char *
concord_quorum_node_name(int node_id)
{
	Contact	   *node = find_node(node_id);

	return node != NULL && NameStr(node->name)[0] != '\0' ? NameStr(node->name) :
		psprintf("node %d", node_id);
}

static void
build_wait_set(void)
{
	MemoryContext old = MemoryContextSwitchTo(ConcordQuorumContext);
	dlist_iter	iter;

	if (wait_set != NULL)
		FreeWaitEventSet(wait_set);
	wait_set = concord_create_lasting_wait_set(nnodes + 2);
	MemoryContextSwitchTo(old);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	dlist_foreach(iter, &nodes)
	{
		Contact	   *node = dlist_container(Contact, node, iter.cur);
		pgsocket	socket;

		node->set_position = -1;
		if (node->link == NULL)
			continue;
		socket = concord_link_socket(node->link, &node->set_events);
		if (socket != PGINVALID_SOCKET && node->set_events != 0)
			node->set_position = AddWaitEventToSet(wait_set, node->set_events, socket, NULL, node);
	}
	wait_set_stale = false;
}

/* False if a link has failed while it was sent to: there is nothing to wait for then. */
static bool
update_wait_set(void)
{
	dlist_iter	iter;
	bool		all_well = true;

	if (wait_set == NULL || wait_set_stale)
		build_wait_set();
	dlist_foreach(iter, &nodes)
	{
		Contact	   *node = dlist_container(Contact, node, iter.cur);
		int			events;

		if (node->link == NULL)
			continue;
		if (concord_link_socket(node->link, &events) == PGINVALID_SOCKET)
		{
			node->looks = 1;
			all_well = false;
		}
		if (node->set_position >= 0 && events != node->set_events && events != 0)
		{
			ModifyWaitEvent(wait_set, node->set_position, events, NULL);
			node->set_events = events;
		}
	}
	return all_well;
}

/* A latch that is set hides what the sockets have: answers that may be there are looked for. */
static void
expect_answers(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &nodes)
	{
		Contact	   *node = dlist_container(Contact, node, iter.cur);

		if (node->sent != NULL || node->calling != NULL)
			node->looks = 1;
	}
}

void
concord_quorum_wait(int64 until)
{
	static uint32 wait_event = 0;
	WaitEvent	events[EVENTS];
	int			n;
	int64		timeout = Max(0, Min(until - concord_quorum_ms(), LONGEST_WAIT_MS));

	if (wait_event == 0)
		wait_event = concord_wait_event("ConcordRegistrarMain");
	if (!update_wait_set())
		timeout = 0;
	n = WaitEventSetWait(wait_set, (long) timeout, events, EVENTS, wait_event);
	if (timeout == 0)
		ResetLatch(MyLatch);
	for (int i = 0; i < n; i++)
	{
		if (events[i].events & WL_LATCH_SET)
		{
			ResetLatch(MyLatch);
			expect_answers();
		}
		else if (events[i].user_data != NULL)
			((Contact *) events[i].user_data)->looks = 2;	/* TLS may have more than it shows */
	}
}

void
concord_contacts_advance(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &nodes)
		advance(dlist_container(Contact, node, iter.cur));
}

int64
concord_contacts_serve(void)
{
	int64		next = PG_INT64_MAX;
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &nodes)
	{
		int64		wish = serve_node(dlist_container(Contact, node, iter.cur));

		next = Min(next, wish);
	}
	return next;
}

void
concord_contacts_begin(void)
{
	dlist_init(&nodes);
}
