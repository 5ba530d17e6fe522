/*
 * replica.c
 *		Replicas of nodes in the map.
 *
 * WHAT: concord.add_replica() and remove_replica().  A replica is a physical standby that users
 * may read from; it has no identity of its own (it holds a copy of its node's) and is reached
 * with the node's user mappings.  What is known of it afterwards is copies.c's matter.
 *
 * PROMISE: as authority.c; a replica is stored only after a connection through its address has
 * reached a standby of that very node.
 */
#include "postgres.h"

#include "cluster/room.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(concord_add_replica);
PG_FUNCTION_INFO_V1(concord_add_replica_here);
PG_FUNCTION_INFO_V1(concord_remove_replica);

static void
check_standby(const ConcordNode *node, const char *replica, List *options, const char *user)
{
	char	   *name = pstrdup(NameStr(node->name));
	ConcordLink *link;
	ConcordProbe *probe;
	const char *where[2];
	char	   *known;

	link = concord_node_link(node, replica, options, user);
	probe = concord_probe(link, replica);
	concord_link_close(link);

	where[0] = probe->system_identifier;
	where[1] = probe->database;
	known = concord_owner_call("SELECT concord._node_on($1::bigint, $2::oid)", 2, where);
	if (known == NULL || strcmp(known, name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the connection string does not reach a copy of node \"%s\"", name),
				 errdetail("System identifier or database differ.")));
	if (!probe->in_recovery)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the connection string reaches the primary of node \"%s\", not a standby",
						name)));
}

static void
add_replica_here(const char *node_name, const char *replica, List *options, const char *user)
{
	const char *params[3];

	(void) concord_owner_call("SELECT concord._check_name_free($1::name)", 1, &replica);
	check_standby(concord_map_node_required(concord_map_member(), node_name), replica, options,
				  user);
	params[0] = replica;
	params[1] = psprintf("%d", concord_map_node_required(concord_lock_map(), node_name)->node_id);
	params[2] = concord_list_to_array(options);
	(void) concord_owner_call("SELECT concord._check_name_free($1::name)", 1, &replica);
	(void) concord_owner_call("SELECT concord._insert_replica($1::name, $2::int, $3::text[])", 3,
							  params);
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
		(void) concord_lock_map();
		(void) concord_owner_call("SELECT concord._delete_replica($1::name)", 1, &replica);
	}
	else
		(void) concord_forward(map, what, "SELECT concord.remove_replica($1)", 1, &replica, true);
	PG_RETURN_VOID();
}
