/*
 * adopt.c
 *		A database whose identity is of another storage: taking the node's place, or giving it up.
 *
 * WHAT: concord.adopt_node() binds the identity a copied, restored or upgraded database holds to
 * the storage it is on now; concord.leave_cluster() erases it, by force also on a member.
 *
 * PROMISE: at most one storage speaks for a node.  The map names it (system identifier, database,
 * generation), a change of it is a change of the map, and whoever else held the identity becomes
 * "removed" when it hears of that map, or asks with the older generation.
 *
 * INVARIANTS
 * D1 Only the database that the node's address reaches may take its place: the address the
 *    authority's map has, or a new one given with the call if the old one does not reach the
 *    living node any more.  So a copy made beside a living node cannot replace it by mistake.
 *    The authority looks, not the copy, whose map may be old.
 * D2 A generation grows with each adoption and is never given twice: it is decided by the
 *    authority under the map's lock.
 * D3 An authority that comes back from a backup may have an old map.  Before it adopts itself it
 *    asks the other nodes for theirs and takes the newest; if one does not answer, its next epoch
 *    leaves a gap, so that no epoch is used for two different maps.
 *
 * What is left when something dies: until the authority has committed, nothing.  After that the
 * map names the new storage while the database is still detached: adopt_node() again finds it so
 * and only attaches.
 */
#include "postgres.h"

#include "base/settings.h"
#include "cluster/room.h"
#include "miscadmin.h"
#include "utils/builtins.h"

/* D3: more changes than anybody makes between a backup and its restore */
#define EPOCH_GAP "1000000"

/* Who wants to be which node. */
typedef struct Claim
{
	pg_uuid_t	cluster;
	int			node_id;
	int			generation;		/* of the identity it holds */
	char	   *system_identifier;
	char	   *database;
	List	   *options;		/* new address, NIL = as in the map */
	char	   *mapping_role;	/* with a new address that names a user */
	char	   *mapping_user;	/* NULL = mapping unchanged */
} Claim;

PG_FUNCTION_INFO_V1(concord_adopt_node);
PG_FUNCTION_INFO_V1(concord_adopt_here);
PG_FUNCTION_INFO_V1(concord_leave_cluster);

static const ConcordMap *
require_detached(void)
{
	const ConcordMap *map = concord_map();

	if (map->membership == CONCORD_MEMBER)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is node \"%s\" already", NameStr(map->self_name)),
				 errdetail("Only a detached database can be adopted.")));
	if (map->membership != CONCORD_DETACHED)
		(void) concord_map_member();	/* says why */
	if (concord_map_node(map, map->self) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is a copy of one that had not joined its cluster yet"),
				 errhint("Call concord.leave_cluster(), then add it as a new node.")));
	return map;
}

static bool
is_claimant(const ConcordProbe *probe, const Claim *claim)
{
	return strcmp(probe->system_identifier, claim->system_identifier) == 0 &&
		strcmp(probe->database, claim->database) == 0;
}

static void
check_not_alive(const ConcordProbe *probe, const Claim *claim, const char *name)
{
	if (probe->cluster != NULL && strcmp(probe->cluster, concord_uuid_text(&claim->cluster)) == 0 &&
		probe->node_id == claim->node_id && strcmp(probe->membership, "member") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" is alive at its address, in another database", name),
				 errhint("If this is a copy for other purposes, call concord.leave_cluster(). If it is to take the node's place, stop the node first.")));
}

/* D1 */
static void
check_claim(const ConcordNode *node, const Claim *claim)
{
	char	   *name = pstrdup(NameStr(node->name));
	ConcordLink *old = claim->options != NIL ? concord_node_link(node, name, NIL, NULL) : NULL;
	ConcordLink *link = concord_node_link(node, name, claim->options, claim->mapping_user);
	ConcordProbe *probe;

	if (old != NULL)
	{
		/* gone, or somebody else's by now: both are fine */
		probe = concord_probe_quietly(old);
		if (probe != NULL && !is_claimant(probe, claim))
			check_not_alive(probe, claim, name);
		concord_link_close(old);
	}

	probe = concord_probe(link, name);
	concord_link_close(link);
	if (!is_claimant(probe, claim))
	{
		check_not_alive(probe, claim, name);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the address of node \"%s\" reaches another database than the one to be adopted",
						name),
				 errdetail_internal("%s", concord_probe_describe(probe)),
				 errhint("Call concord.adopt_node with the connection string by which every node reaches it.")));
	}
	concord_check_server(probe, name);
}

/* A map that came from another node, if it is of this cluster and newer. */
static bool
is_newer(const ConcordReply *reply, const char *cluster, int64 epoch)
{
	return reply != NULL && reply->ok && reply->nrows == 1 && reply->ncols == 3 &&
		concord_reply_value(reply, 0, 0) != NULL && concord_reply_value(reply, 0, 1) != NULL &&
		strcmp(concord_reply_value(reply, 0, 0), cluster) == 0 &&
		strtoll(concord_reply_value(reply, 0, 1), NULL, 10) > epoch;
}

/* D3: returns false if a node did not answer. */
static bool
catch_up(const ConcordMap *map)
{
	Oid			role = concord_node_role_oid(false);
	char	   *cluster = concord_uuid_text(&map->cluster_id);
	int64		epoch = map->epoch;
	const char *newest = NULL;
	bool		complete = true;
	int			n = 0;
	ConcordLink **links = palloc0(map->nnodes * sizeof(ConcordLink *));
	ConcordReply **replies;

	for (int i = 0; i < map->nnodes; i++)
	{
		const ConcordNode *node = &map->nodes[i];

		if (node->node_id == map->self)
			continue;
		if (concord_has_mapping(node->serverid, role, true))
			links[n++] = concord_link_open(NameStr(node->name),
										   concord_server_options(node->serverid, role, true));
		else
			complete = false;
	}
	replies = concord_ask_all(links, n,
							  "SELECT m->>'cluster', m->>'epoch', m FROM concord._get_map() m", 0,
							  NULL,
							  TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														  concord_connect_timeout_ms));
	for (int i = 0; i < n; i++)
	{
		if (replies[i] == NULL || !replies[i]->ok)
			complete = false;
		else if (is_newer(replies[i], cluster, epoch))
		{
			epoch = strtoll(concord_reply_value(replies[i], 0, 1), NULL, 10);
			newest = concord_reply_value(replies[i], 0, 2);
		}
		concord_link_close(links[i]);
	}

	(void) concord_owner_call("SELECT concord._lock_identity()", 0, NULL);
	if (newest != NULL)
		(void) concord_owner_call("SELECT concord._store_map($1::jsonb)", 1, &newest);
	if (!complete)
		ereport(WARNING,
				(errmsg("not every node could be asked for its map"),
				 errdetail("If this database comes from a backup, changes of nodes and slots made since may be missing."),
				 errhint("Compare concord.nodes and concord.slots on all nodes.")));
	return complete;
}

/* Stores the claim in the map; returns the new generation. */
static char *
grant_claim(const Claim *claim, const char *epoch_gap)
{
	const char *params[8] = {
		psprintf("%d", claim->node_id), psprintf("%d", claim->generation),
		claim->system_identifier, claim->database,
		claim->options != NIL ? concord_list_to_array(claim->options) : NULL,
		claim->mapping_role, claim->mapping_user, epoch_gap
	};

	return concord_owner_call("SELECT concord._adopted($1::int, $2::int, $3::bigint, $4::oid,"
							  " $5::text[], $6::name, $7, $8::bigint)", 8, params);
}

/* This database is the authority's: the change is made right here. */
static char *
adopt_authority(const ConcordMap *map, const Claim *claim)
{
	const char *epoch_gap;

	check_claim(concord_map_node(map, map->self), claim);
	epoch_gap = catch_up(map) ? "0" : EPOCH_GAP;
	(void) concord_owner_call("SELECT concord._lock_map()", 0, NULL);
	return grant_claim(claim, epoch_gap);
}

/* Asks the authority; *newer_map receives the resulting map, or NULL. */
static char *
adopt_elsewhere(const ConcordMap *map, const Claim *claim, const char **newer_map)
{
	const char *params[8] = {
		concord_uuid_text(&claim->cluster), psprintf("%d", claim->node_id),
		psprintf("%d", claim->generation), claim->system_identifier, claim->database,
		claim->options != NIL ? concord_list_to_array(claim->options) : NULL,
		claim->mapping_role, claim->mapping_user
	};
	ConcordLink *link = concord_authority_link(map);
	ConcordReply *reply;
	char	   *generation;

	reply = concord_link_call(link, "SELECT concord._adopt($1, $2, $3, $4, $5, $6, $7, $8)", 8,
							  params, concord_forward_timeout_ms());
	concord_reply_check(link, reply);
	generation = concord_reply_value(reply, 0, 0);

	reply = concord_link_call(link, "SELECT concord._get_map()", 0, NULL,
							  concord_connect_timeout_ms);
	*newer_map = reply->ok && reply->nrows == 1 ? concord_reply_value(reply, 0, 0) : NULL;
	concord_link_close(link);
	return generation;
}

Datum
concord_adopt_node(PG_FUNCTION_ARGS)
{
	const char *what = "concord.adopt_node()";
	const ConcordMap *map;
	Claim		claim = {.options = NIL};
	bool		given_user;
	const char *newer_map = NULL;
	const char *params[3];

	concord_require_writable(what);
	concord_require_superuser(what);
	if (!PG_ARGISNULL(0))
	{
		claim.options = concord_address_parse(concord_arg_text(fcinfo, 0, "conninfo"),
											  &claim.mapping_user, &given_user);
		if (!given_user)
			claim.mapping_user = NULL;
	}
	claim.mapping_role = GetUserNameFromId(GetUserId(), false);
	map = require_detached();
	claim.cluster = map->cluster_id;
	claim.node_id = map->self;
	claim.generation = map->self_generation;
	claim.system_identifier = concord_system_identifier();
	claim.database = concord_database_oid();

	if (map->self == map->authority)
		params[0] = adopt_authority(map, &claim);
	else
	{
		concord_no_block(what);
		params[0] = adopt_elsewhere(map, &claim, &newer_map);
	}
	params[1] = claim.system_identifier;
	params[2] = claim.database;
	(void) concord_owner_call("SELECT concord._attach($1::int, $2::bigint, $3::oid)", 3, params);
	if (newer_map != NULL)
		(void) concord_owner_call("SELECT concord._apply_map($1::jsonb, true)", 1,
								  &newer_map);
	PG_RETURN_INT32(atoi(params[0]));
}

/* _adopt(): the same on the authority, sent by the database to be adopted. */
Datum
concord_adopt_here(PG_FUNCTION_ARGS)
{
	const char *names[5] = {"cluster", "node_id", "generation", "system_identifier", "database"};
	const ConcordMap *map;
	const ConcordNode *node;
	Claim		claim = {.options = NIL};
	const char *where[2];
	char	   *known;

	concord_require_writable("concord.adopt_node()");
	concord_require_superuser("concord.adopt_node()");
	for (int i = 0; i < 5; i++)
		concord_arg_not_null(fcinfo, i, names[i]);
	claim.cluster = *PG_GETARG_UUID_P(0);
	claim.node_id = PG_GETARG_INT32(1);
	claim.generation = PG_GETARG_INT32(2);
	claim.system_identifier = psprintf(INT64_FORMAT, PG_GETARG_INT64(3));
	claim.database = psprintf("%u", PG_GETARG_OID(4));
	if (!PG_ARGISNULL(5))
		claim.options = concord_options_checked(PG_GETARG_DATUM(5));
	claim.mapping_role = concord_arg_name(fcinfo, 6, "mapping_role");
	claim.mapping_user = PG_ARGISNULL(7) ? NULL : concord_arg_text(fcinfo, 7, "mapping_user");

	map = concord_map_member();
	if (memcmp(&map->cluster_id, &claim.cluster, sizeof(pg_uuid_t)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is a member of another cluster")));
	node = concord_map_node(map, claim.node_id);
	if (node == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("node %d is not in the cluster", claim.node_id),
				 errhint("Call concord.leave_cluster(), then add the database as a new node.")));
	where[0] = claim.system_identifier;
	where[1] = claim.database;
	known = concord_owner_call("SELECT concord._node_on($1::bigint, $2::oid)", 2, where);
	if (known != NULL && strcmp(known, NameStr(node->name)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("this database is already node \"%s\" of the cluster", known)));

	check_claim(node, &claim);	/* before the lock: the network is asked */
	(void) concord_lock_map();
	PG_RETURN_INT32(atoi(grant_claim(&claim, "0")));
}

/* What leaving by force leaves to be done elsewhere. */
static void
warn_of_rest(const ConcordMap *map)
{
	const char *name = NameStr(map->self_name);

	if (map->nnodes <= 1)
		return;
	if (concord_is_authority(map))
		ereport(WARNING,
				(errmsg("the other nodes still list node \"%s\", their cluster's authority", name),
				 errdetail("Nobody can change their map any more."),
				 errhint("Call concord.leave_cluster(force => true) on each of them.")));
	else
		ereport(WARNING,
				(errmsg("the other nodes still list node \"%s\"", name),
				 errhint("Call concord.remove_node(%s, force => true) on one of them.",
						 quote_literal_cstr(name))));
}

Datum
concord_leave_cluster(PG_FUNCTION_ARGS)
{
	const ConcordMap *map;

	concord_require_writable("concord.leave_cluster()");
	concord_arg_not_null(fcinfo, 0, "force");
	if (PG_GETARG_BOOL(0))
		concord_require_superuser("concord.leave_cluster() with force");
	map = concord_map();
	if (map->membership == CONCORD_NO_MEMBER)
		(void) concord_map_member();	/* says so */
	if (map->membership == CONCORD_MEMBER && !PG_GETARG_BOOL(0))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" is a member of its cluster", NameStr(map->self_name)),
				 errhint("Use concord.remove_node, so that the other nodes know; or, if the cluster's authority is gone for good, concord.leave_cluster(force => true).")));
	if (map->membership == CONCORD_MEMBER)
		warn_of_rest(map);
	(void) concord_owner_call("SELECT concord._forget()", 0, NULL);
	PG_RETURN_VOID();
}
