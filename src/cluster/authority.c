/*
 * authority.c
 *		Where a change of the map is made: here, or at the authority on the caller's behalf.
 *
 * WHAT: the first node of a cluster is its authority.  Each map-changing function runs there, in
 * a transaction that holds the lock on map_state's row, so that changes are one after the other
 * and epochs are dense.  Called on another node, the function sends itself to the authority as
 * the caller's own mapping.
 *
 * PROMISE: when such a function returns on the authority, the change is part of the caller's
 * transaction. When it returns on another node, the change is committed, and this node has it, or
 * a WARNING said that it is still on its way.
 *
 * INVARIANTS
 * A1 Only a session connected to a database that says it is the authority of this very cluster is
 *    sent a change.
 * A2 An epoch is given out only under the lock on map_state, by adding one.
 * A3 A change sent elsewhere commits there by itself; so it is refused inside a transaction
 *    block, whose ROLLBACK could not undo it.
 * A4 No epoch is given out while a newer one is known.  Only a former self of the authority can
 *    have made that one: its storage has gone back since (a restored backup, a promoted standby
 *    that lost changes), and its next epoch would be another map's already.  After a start it may
 *    not have heard yet; so the first change of a transaction asks all members for theirs.  One
 *    that is away and the only one with the newer map goes unnoticed until it is back; its map
 *    then wins if it is still the newer one, and is found by check_cluster() if not.
 *
 * What is lost at each step of a forwarded change: before the statement is sent, nothing was done
 * (08006); after it, the change may or may not have been made (08007, and concord.nodes tells);
 * after the answer, only the wait for the new map can fail, which is a WARNING: the worker
 * fetches it by itself.  The authority is told how long the caller waits, so that it gives up
 * before the caller does, and notices when the caller is gone (_forwarded()).
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "base/compat.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "cluster/room.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"

/* A forwarded add_node waits for up to four answers one after the other; a margin for the lock. */
#define FORWARD_TIMEOUTS 6

PG_FUNCTION_INFO_V1(concord_forwarded);

static bool members_asked = false;	/* in this transaction (A4) */

/* What the authority is told: how long it may take. */
static int
forward_limit_ms(void)
{
	return Min(concord_connect_timeout_ms, INT_MAX / (FORWARD_TIMEOUTS + 1)) * FORWARD_TIMEOUTS;
}

/* How long its answer is waited for, so that it is the one that gives up first. */
int
concord_forward_timeout_ms(void)
{
	return forward_limit_ms() / FORWARD_TIMEOUTS * (FORWARD_TIMEOUTS + 1);
}

void
concord_no_block(const char *what)
{
	if (IsTransactionBlock() || IsSubTransaction())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot run inside a transaction block on this node", what),
				 errdetail("It commits on another node by itself."),
				 errhint("Call it outside a transaction block.")));
}

pg_noreturn static void
authority_unreachable(const char *authority, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("cluster map cannot be changed: authority node \"%s\" is not reachable",
					authority),
			 detail != NULL ? errdetail_internal("%s", detail) : 0,
			 errhint("Everything but changes of nodes and slots works without it.")));
}

ConcordLink *
concord_authority_link(const ConcordMap *map)
{
	const ConcordNode *node = concord_map_node(map, map->authority);
	char	   *name;
	char	   *cluster = concord_uuid_text(&map->cluster_id);
	int			authority = map->authority;
	const char *timeout = psprintf("%d", forward_limit_ms());
	ConcordLink *link;
	ConcordReply *reply;

	if (node == NULL || !OidIsValid(node->serverid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the map does not hold the authority's address")));
	name = pstrdup(NameStr(node->name));
	link = concord_link_open(name, concord_server_options(node->serverid, GetUserId(), false));

	/* A1 */
	reply = concord_link_call(link,
							  "SELECT cluster, node_id, membership, concord._forwarded($1)"
							  " FROM concord._probe()",
							  1, &timeout, concord_connect_timeout_ms);
	if (!reply->ok && reply->connection_lost)
		authority_unreachable(name, reply->detail);
	concord_reply_check(link, reply);
	if (reply->nrows != 1 || reply->ncols != 4 ||
		concord_reply_value(reply, 0, 0) == NULL ||
		strcmp(concord_reply_value(reply, 0, 0), cluster) != 0 ||
		atoi(concord_reply_value(reply, 0, 1)) != authority ||
		strcmp(concord_reply_value(reply, 0, 2), "member") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cluster map cannot be changed: the address of authority node \"%s\" reaches another database",
						name)));
	return link;
}

/* Waits for the map that a forwarded change resulted in. */
static void
await_result(ConcordLink *link, int authority)
{
	ConcordReply *reply = concord_link_call(link, "SELECT concord._map_epoch()", 0, NULL,
											concord_connect_timeout_ms);

	if (reply->ok && reply->nrows == 1 && concord_reply_value(reply, 0, 0) != NULL &&
		concord_map_await(strtoll(concord_reply_value(reply, 0, 0), NULL, 10), authority,
						  concord_connect_timeout_ms))
		return;
	ereport(WARNING,
			(errmsg("the change is made, but this node does not have the new map yet"),
			 errhint("Its worker fetches it; concord.check_cluster() shows the epochs.")));
}

char *
concord_forward(const ConcordMap *map, const char *what, const char *sql, int nparams,
				const char *const *params, bool await)
{
	int			authority = map->authority;
	char	   *name = pstrdup(NameStr(concord_map_node(map, authority)->name));
	ConcordLink *link;
	ConcordReply *reply;
	char	   *result;

	concord_no_block(what);		/* A3 */
	link = concord_authority_link(map);
	reply = concord_link_call(link, sql, nparams, params,
							  concord_forward_timeout_ms());
	if (!reply->ok && reply->connection_lost)
		ereport(ERROR,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("the answer of authority node \"%s\" was lost", name),
				 errdetail("The change may or may not have been made."),
				 errhint("Look at concord.nodes and concord.slots before trying again.")));
	concord_reply_check(link, reply);
	result = reply->nrows > 0 && reply->ncols > 0 ? concord_reply_value(reply, 0, 0) : NULL;
	if (await)
		await_result(link, authority);
	concord_link_close(link);
	return result;
}

/*
 * _forwarded(timeout_ms): tells this session that its next statements are another node's.  It
 * sets nothing a client could not set.
 */
Datum
concord_forwarded(PG_FUNCTION_ARGS)
{
	int			timeout_ms = Max(PG_GETARG_INT32(0), 2);

	(void) set_config_option("statement_timeout", psprintf("%d", timeout_ms), PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SET, true, 0, false);
	(void) set_config_option("lock_timeout", psprintf("%d", timeout_ms / 2), PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SET, true, 0, false);
	/* changes wait for each other; whoever waited wants to see what the other did */
	(void) set_config_option("default_transaction_isolation", "read committed", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SET, true, 0, false);
	if (WaitEventSetCanReportClosed())
		(void) set_config_option("client_connection_check_interval", "1000", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SET, true, 0, false);
	PG_RETURN_VOID();
}

static void
note_newer(ConcordNewer *newest, int64 epoch, int node_id)
{
	if (epoch <= newest->epoch)
		return;
	newest->epoch = epoch;
	newest->node_id = node_id;
}

static bool
is_among(int node_id, const int *ids)
{
	while (ids != NULL && *ids != 0)
		if (*ids++ == node_id)
			return true;
	return false;
}

ConcordNewer
concord_heard_newer(const ConcordMap *map, const int *but)
{
	ConcordNewer newest = {map->epoch, map->self};
	ConcordDatabase *entry;

	/* heartbeats note it there; on the authority nobody else does (concord_map_await()) */
	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	entry = concord_shmem_database(MyDatabaseId, false);
	if (entry != NULL && !is_among(entry->wanted_from, but))
		note_newer(&newest, entry->wanted_epoch, entry->wanted_from);
	LWLockRelease(ConcordShared->lock);
	return newest;
}

/* The epoch of a member's answer; -1 if it is none, or not the member's. */
static int64
answered_epoch(const ConcordReply *reply, const char *cluster, int node_id)
{
	if (reply == NULL || !reply->ok || reply->nrows != 1 || reply->ncols != 4)
		return -1;
	for (int col = 0; col < 4; col++)
		if (concord_reply_value(reply, 0, col) == NULL)
			return -1;
	if (strcmp(concord_reply_value(reply, 0, 0), cluster) != 0 ||
		atoi(concord_reply_value(reply, 0, 1)) != node_id ||
		strcmp(concord_reply_value(reply, 0, 2), "member") != 0)
		return -1;
	return strtoll(concord_reply_value(reply, 0, 3), NULL, 10);
}

/*
 * Asks all members at once for their epochs; answered receives the ids of those that answered,
 * then 0.  Takes concord.view_timeout at most.
 */
static ConcordNewer
ask_members(const ConcordMap *map, int *answered)
{
	Oid			role = concord_node_role_oid(true);
	char	   *cluster = concord_uuid_text(&map->cluster_id);
	ConcordNewer newest = {map->epoch, map->self};
	ConcordLink **links = palloc0(map->nnodes * sizeof(ConcordLink *));
	int		   *ids = palloc0(map->nnodes * sizeof(int));
	ConcordReply **replies;
	int			n = 0;

	for (int i = 0; i < map->nnodes; i++)
	{
		const ConcordNode *node = &map->nodes[i];

		if (node->node_id == map->self || !concord_has_mapping(node->serverid, role, true))
			continue;
		ids[n] = node->node_id;
		links[n++] = concord_link_open(NameStr(node->name),
									   concord_server_options(node->serverid, role, true));
	}
	replies = concord_ask_all(links, n,
							  "SELECT cluster, node_id, membership, concord._map_epoch()"
							  " FROM concord._probe()", 0, NULL,
							  TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														  concord_view_timeout_ms));
	for (int i = 0; i < n; i++)
	{
		int64		epoch = answered_epoch(replies[i], cluster, ids[i]);

		if (epoch >= 0)
			*answered++ = ids[i];
		note_newer(&newest, epoch, ids[i]);
		concord_link_close(links[i]);
	}
	*answered = 0;
	return newest;
}

/* A4 */
pg_noreturn static void
refuse_change(const ConcordMap *map, const ConcordNewer *newer)
{
	const ConcordNode *node = newer->node_id == map->self ? NULL :
		concord_map_node(map, newer->node_id);

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cluster map cannot be changed: another node has a newer one than its authority"),
			 errdetail("%s has epoch " INT64_FORMAT ", this node " INT64_FORMAT ".",
					   node != NULL ? psprintf("Node \"%s\"", NameStr(node->name)) :
					   "A node that is not in this map", newer->epoch, map->epoch),
			 errhint("The storage of this server has gone back, as by restoring a backup. It fetches the newer map by itself from a node it can reach; if there is none, call concord.send_map() on the node that has it.")));
}

void
concord_settle_map(void)
{
	const ConcordMap *map = concord_map_refresh();
	ConcordNewer asked;
	ConcordNewer newest;
	int		   *answered;

	if (map->membership != CONCORD_MEMBER || !concord_is_authority(map) || members_asked)
		return;
	answered = palloc((map->nnodes + 1) * sizeof(int));
	asked = ask_members(map, answered);
	map = concord_map_refresh();
	if (asked.epoch > map->epoch)
	{
		concord_map_want(asked.epoch, asked.node_id);
		(void) concord_map_await(asked.epoch, asked.node_id, concord_connect_timeout_ms);
		map = concord_map_refresh();
		if (map->membership != CONCORD_MEMBER)
			return;				/* the newer map does not hold this node */
	}

	/* what others are said to have, unless they have just told otherwise */
	newest = concord_heard_newer(map, answered);
	note_newer(&newest, asked.epoch, asked.node_id);
	if (newest.epoch > map->epoch)
		refuse_change(map, &newest);
	members_asked = true;
}

static void
settle_xact_callback(XactEvent event, void *arg)
{
	(void) event;
	(void) arg;
	members_asked = false;
}

void
concord_authority_init(void)
{
	RegisterXactCallback(settle_xact_callback, NULL);
}

const ConcordMap *
concord_lock_map(void)
{
	const ConcordMap *map;

	concord_settle_map();		/* A4; before the lock, since it waits for others */
	(void) concord_owner_call("SELECT concord._lock_map()", 0, NULL);
	map = concord_map_refresh();
	if (map->membership != CONCORD_MEMBER)
		return concord_map_member();	/* says why */
	if (!concord_is_authority(map))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this node is not the cluster's authority")));
	return map;
}

char *
concord_owners_hex(const int16 owner[CONCORD_SLOTS])
{
	StringInfoData hex;

	initStringInfo(&hex);
	for (int slot = 0; slot < CONCORD_SLOTS; slot++)
		appendStringInfo(&hex, "%04x", (unsigned int) (uint16) owner[slot]);
	return hex.data;
}

void
concord_store_owners(const int16 owner[CONCORD_SLOTS])
{
	const char *hex = concord_owners_hex(owner);

	(void) concord_owner_call("SELECT concord._change_map(pg_catalog.decode($1, 'hex'))", 1,
							  &hex);	/* A2 */
}

ConcordReply **
concord_ask_all(ConcordLink **links, int n, const char *sql, int nparams,
				const char *const *params, TimestampTz until)
{
	ConcordReply **replies = palloc0(Max(n, 1) * sizeof(ConcordReply *));

	for (int i = 0; i < n; i++)
		concord_link_send(links[i], sql, nparams, params);
	while (n > 0 && concord_link_wait(links, n, until) > 0 && GetCurrentTimestamp() < until)
		;
	for (int i = 0; i < n; i++)
		replies[i] = concord_link_take(links[i]);
	return replies;
}
