/*
 * replica.c
 *		Replicas of nodes in the map.
 *
 * WHAT: concord.add_replica() and remove_replica().  A replica is a physical standby that users
 * may read from, which holds a copy of its node's identity; or a logical copy, a database of no
 * cluster with one subscription to the node (follow.c).  It is reached with the node's user
 * mappings.  What is known of it afterwards is copies.c's matter.
 *
 * PROMISE: as authority.c; a replica is stored only after a connection through its address has
 * reached a standby of that very node, or a database that is connected to the node's by exactly
 * one subscription: the node names the slots that are in use, and the copy's apply worker has met
 * the node's server, database and timeline.
 *
 * What a lost answer or an error leaves: a database that believes to be a copy and is not in the
 * map (add_replica), or the other way round (remove_replica).  The first can be added again, or
 * leave; the second cannot serve, as the view replicas says, and can be removed again.
 */
#include "postgres.h"

#include "base/settings.h"
#include "cluster/room.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(concord_add_replica);
PG_FUNCTION_INFO_V1(concord_add_replica_here);
PG_FUNCTION_INFO_V1(concord_remove_replica);

/* 55000 unless it is a standby of the node. */
static void
check_standby(const char *node, const ConcordProbe *probe, const char *known)
{
	if (known == NULL || strcmp(known, node) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the connection string does not reach a copy of node \"%s\"", node),
				 errdetail("System identifier or database differ.")));
	if (!probe->in_recovery)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the connection string reaches the primary of node \"%s\", not a standby",
						node)));
}

/* What must be true of a database that could be a logical copy; the rest it finds out itself. */
static void
check_subscriber(const ConcordMap *map, const ConcordNode *node, const ConcordProbe *probe,
				 const char *replica)
{
	bool		same = probe->cluster != NULL && strcmp(probe->membership, "copy") == 0 &&
		strcmp(probe->cluster, concord_uuid_text(&map->cluster_id)) == 0 &&
		probe->node_id == node->node_id;

	if (probe->cluster != NULL && !same)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the database of replica \"%s\" belongs to a cluster already", replica),
				 errdetail_internal("%s", concord_probe_describe(probe)),
				 errhint("A logical copy is a database of no cluster.")));
	if (!probe->preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_concord is not loaded on the server of replica \"%s\"", replica),
				 errhint("Add pg_concord to shared_preload_libraries there and restart the server.")));
	if (probe->protocol != CONCORD_PROTOCOL || strcmp(probe->version, probe->extversion) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("replica \"%s\" runs another version of pg_concord", replica),
				 errdetail("Its library is version %s, its extension %s, this node's %s.",
						   probe->version, probe->extversion, CONCORD_VERSION)));
	if (!probe->superuser)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the role used for replica \"%s\" is not a superuser there", replica),
				 errhint("Name a superuser of that server in the connection string.")));
	if (strcmp(probe->node_role, concord_node_role) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("concord.node_role is \"%s\" on replica \"%s\", here it is \"%s\"",
						probe->node_role, replica, concord_node_role)));
}

/* What the node says of itself to its subscribers. */
static char *
ask_publisher(const ConcordMap *map, const ConcordNode *node)
{
	static const char sql[] = "SELECT concord._publisher()";
	ConcordLink *link;
	ConcordReply *reply;

	if (node->node_id == map->self)
		return concord_owner_call(sql, 0, NULL);
	link = concord_node_link(node, NameStr(node->name), NIL, NULL);
	reply = concord_link_call(link, sql, 0, NULL, concord_connect_timeout_ms);
	concord_reply_check(link, reply);
	concord_link_close(link);
	return reply->nrows == 1 ? concord_reply_value(reply, 0, 0) : NULL;
}

static void
add_replica_here(const char *node_name, const char *replica, List *options, const char *user)
{
	const ConcordMap *map;
	const ConcordNode *node;
	ConcordLink *link;
	ConcordProbe *probe;
	const char *params[5];
	const char *known;
	char	   *publisher = NULL;

	(void) concord_owner_call("SELECT concord._check_name_free($1::name)", 1, &replica);
	link = concord_node_link(concord_map_node_required(concord_map_member(), node_name), replica,
							 options, user);
	probe = concord_probe(link, replica);
	params[0] = probe->system_identifier;
	params[1] = probe->database;
	known = concord_owner_call("SELECT concord._node_on($1::bigint, $2::oid)", 2, params);
	map = concord_map_member();
	node = concord_map_node_required(map, node_name);
	if (probe->in_recovery || known != NULL)
		check_standby(node_name, probe, known);
	else
	{
		check_subscriber(map, node, probe, replica);
		publisher = ask_publisher(map, node);
	}

	map = concord_lock_map();
	node = concord_map_node_required(map, node_name);
	if (publisher != NULL)
	{
		ConcordReply *reply;

		params[0] = concord_uuid_text(&map->cluster_id);
		params[1] = psprintf("%d", node->node_id);
		params[2] = node_name;
		params[3] = psprintf("%d", node->generation);
		params[4] = publisher;
		reply = concord_link_call(link, "SELECT concord._follow($1, $2, $3, $4, $5)", 5, params,
								  concord_connect_timeout_ms);
		concord_reply_check(link, reply);
	}
	concord_link_close(link);
	params[0] = replica;
	params[1] = psprintf("%d", concord_map_node_required(concord_map(), node_name)->node_id);
	params[2] = concord_list_to_array(options);
	params[3] = publisher != NULL ? "logical" : "physical";
	(void) concord_owner_call("SELECT concord._check_name_free($1::name)", 1, &replica);
	(void) concord_owner_call("SELECT concord._insert_replica($1::name, $2::int, $3::text[], $4)",
							  4, params);
}

Datum
concord_add_replica(PG_FUNCTION_ARGS)
{
	const char *what = "concord.add_replica()";
	const ConcordMap *map;
	List	   *options;
	char	   *user;
	bool		given_user;
	const char *params[4];

	concord_require_writable(what);
	concord_require_superuser(what);
	params[0] = concord_arg_name(fcinfo, 0, "node_name");
	params[1] = concord_arg_name(fcinfo, 1, "replica_name");
	concord_check_name("replica", params[1]);
	options = concord_address_parse(concord_arg_text(fcinfo, 2, "conninfo"), &user, &given_user);
	params[2] = concord_list_to_array(options);
	params[3] = given_user ? user : NULL;

	map = concord_map_member();
	(void) concord_map_node_required(map, params[0]);
	if (concord_is_authority(map))
		add_replica_here(params[0], params[1], options, params[3]);
	else
		(void) concord_forward(map, what, "SELECT concord._add_replica($1, $2, $3, $4)", 4, params,
							   true);
	PG_RETURN_VOID();
}

/* The same, sent by another node. */
Datum
concord_add_replica_here(PG_FUNCTION_ARGS)
{
	char	   *replica;

	concord_require_writable("concord.add_replica()");
	concord_require_superuser("concord.add_replica()");
	replica = concord_arg_name(fcinfo, 1, "replica_name");
	concord_check_name("replica", replica);
	concord_arg_not_null(fcinfo, 2, "options");
	add_replica_here(concord_arg_name(fcinfo, 0, "node_name"), replica,
					 concord_options_checked(PG_GETARG_DATUM(2)),
					 PG_ARGISNULL(3) ? NULL : concord_arg_text(fcinfo, 3, "mapping_user"));
	PG_RETURN_VOID();
}

/* A logical copy is told, as the protocol's role; what is in the way is a WARNING. */
static void
unfollow(const ConcordMap *map, const char *name)
{
	Oid			role = concord_node_role_oid(true);
	const char *params[2];
	ConcordLink *link;
	ConcordReply *reply;

	for (int i = 0; i < map->nreplicas; i++)
	{
		const ConcordReplica *replica = &map->replicas[i];

		if (!replica->logical || strcmp(NameStr(replica->name), name) != 0)
			continue;
		params[0] = concord_uuid_text(&map->cluster_id);
		params[1] = psprintf("%d", replica->node_id);
		link = concord_link_open(name, concord_replica_options(map, replica, role, true));
		reply = concord_link_call(link, "SELECT concord._unfollow($1, $2)", 2, params,
								  concord_connect_timeout_ms);
		if (!reply->ok)
			ereport(WARNING,
					(errmsg("replica \"%s\" could not be told that it is none any more", name),
					 errdetail_internal("%s", reply->message),
					 errhint("Call concord.leave_cluster() there.")));
		concord_link_close(link);
		return;
	}
}

Datum
concord_remove_replica(PG_FUNCTION_ARGS)
{
	const char *what = "concord.remove_replica()";
	const ConcordMap *map;
	const char *replica;

	concord_require_writable(what);
	replica = concord_arg_name(fcinfo, 0, "replica_name");
	map = concord_map_member();
	if (concord_is_authority(map))
	{
		unfollow(concord_lock_map(), replica);
		(void) concord_owner_call("SELECT concord._delete_replica($1::name)", 1, &replica);
	}
	else
		(void) concord_forward(map, what, "SELECT concord.remove_replica($1)", 1, &replica, true);
	PG_RETURN_VOID();
}
