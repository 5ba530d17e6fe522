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
#include "base/settings.h"
#include "cluster/room.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"

/* A forwarded add_node waits for up to four answers one after the other; a margin for the lock. */
#define FORWARD_TIMEOUTS 6

PG_FUNCTION_INFO_V1(concord_forwarded);

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

static void pg_attribute_noreturn()
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

const ConcordMap *
concord_lock_map(void)
{
	const ConcordMap *map;

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
