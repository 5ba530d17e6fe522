/*
 * member.c
 *		Creating a cluster, removing a node, changing what the map says of one.
 *
 * WHAT: concord.create_cluster(), remove_node(), set_node(), and the view of a node's address that
 * these share.  add_node() is in join.c.
 *
 * PROMISE: as authority.c.  create_cluster() stores an address only after a connection through it
 * has reached this very database; set_node() only after it has reached the node's.
 *
 * What is left when something dies: each is one local transaction here (or, forwarded, one on the
 * authority): all or nothing.  A removed node that could not be told keeps its old map until it
 * asks the authority, which answers that it is not in the cluster; the other nodes do not talk to
 * it any more.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "base/compat.h"
#include "base/settings.h"
#include "cluster/room.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/wait_event.h"

#define ACCEPTORS_POLL_MS 50

PG_FUNCTION_INFO_V1(concord_create_cluster);
PG_FUNCTION_INFO_V1(concord_remove_node);
PG_FUNCTION_INFO_V1(concord_set_node);
PG_FUNCTION_INFO_V1(concord_set_node_here);

/* 55000 unless this database may become a cluster's first node. */
static void
check_no_identity(void)
{
	const ConcordMap *map = concord_map();

	if (map->membership == CONCORD_NO_MEMBER || map->membership == CONCORD_REMOVED)
		return;
	if (map->membership != CONCORD_MEMBER)
		(void) concord_map_member();	/* says why */
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this database is already a member of a cluster"),
			 errdetail("It is node \"%s\" of cluster %s.", NameStr(map->self_name),
					   concord_uuid_text(&map->cluster_id))));
}

Datum
concord_create_cluster(PG_FUNCTION_ARGS)
{
	const char *what = "concord.create_cluster()";
	char	   *name;
	List	   *options;
	char	   *user;
	bool		given_user;
	ConcordLink *link;
	ConcordProbe *probe;
	const char *params[6];
	char	   *cluster;

	concord_require_writable(what);
	concord_require_superuser(what);
	name = concord_arg_name(fcinfo, 0, "node_name");
	concord_check_name("node", name);
	options = concord_address_parse(concord_arg_text(fcinfo, 1, "conninfo"), &user, &given_user);
	check_no_identity();

	link = concord_address_link(name, options, user);
	probe = concord_probe(link, name);
	concord_link_close(link);
	if (!concord_probe_is_self(probe))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the connection string reaches another database than this one"),
				 errhint("It must be the address by which every node, this one included, reaches this database.")));
	concord_check_server(probe, name);

	params[0] = name;
	params[1] = concord_list_to_array(options);
	params[2] = concord_system_identifier();
	params[3] = concord_database_oid();
	params[4] = GetUserNameFromId(GetUserId(), false);
	params[5] = user;
	cluster = concord_owner_call("SELECT concord._create_cluster($1::name, $2::text[], $3::bigint,"
								 " $4::oid, $5::name, $6)", 6, params);
	concord_map_created();
	PG_RETURN_DATUM(DirectFunctionCall1(uuid_in, CStringGetDatum(cluster)));
}

/* On the authority, with the map locked. */
static void
remove_node_here(const ConcordMap *map, const char *name, bool force)
{
	const ConcordNode *node = concord_map_node_required(map, name);
	int16		owner[CONCORD_SLOTS];
	const char *params[2];

	if (map->nnodes == 1)
	{
		/* the last one: nothing is left that could be told */
		(void) concord_owner_call("SELECT concord._forget()", 0, NULL);
		return;
	}
	if (node->node_id == map->authority)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot remove node \"%s\" because it is the cluster's authority", name),
				 errhint("Remove the other nodes first.")));
	if (node->nslots > 0 && !force)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot remove node \"%s\" because it owns slots", name),
				 errdetail("It owns %d slots.", node->nslots),
				 errhint("Drain it with concord.set_node(.., weight => 0) and concord.rebalance(), or use force, which loses them.")));

	memcpy(owner, map->owner, sizeof(owner));
	for (int slot = 0; slot < CONCORD_SLOTS; slot++)
		if (owner[slot] == node->node_id)
			owner[slot] = CONCORD_SLOT_LOST;
	params[0] = psprintf("%d", node->node_id);
	params[1] = concord_owners_hex(owner);
	(void) concord_owner_call("SELECT concord._delete_node($1::int, pg_catalog.decode($2, 'hex'))",
							  2, params);
}

/* Whoever holds a branch of it could not learn how it ended.  Nodes that are away are not seen. */
static void
check_no_branches(const char *name)
{
	const char *count;

	count = concord_owner_call("SELECT pg_catalog.count(*) FROM concord.transactions t"
							   " WHERE t.state OPERATOR(pg_catalog.=)"
							   " ANY ('{prepared,in doubt}'::pg_catalog.text[])"
							   " AND $1::pg_catalog.name OPERATOR(pg_catalog.=)"
							   " ANY (ARRAY[t.node, t.coordinator])", 1, &name);
	if (strcmp(count, "0") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot remove node \"%s\" because transactions of it are prepared",
						name),
				 errdetail("There are %s prepared branches on it, or of transactions that it coordinates.",
						   count),
				 errhint("See concord.transactions. Wait until they are finished, or use force, after which they may have to be finished with concord.force_transaction().")));
}

/*
 * Without it the acceptors that are left might be no majority any more, for ever: when the set is
 * being changed already, as after another removal.  That takes a moment.
 */
static void
check_acceptors(const char *name)
{
	for (int waited = 0;; waited += ACCEPTORS_POLL_MS)
	{
		const char *suffice = concord_owner_call("SELECT concord._acceptors_suffice($1::name)",
												 1, &name);

		if (strcmp(suffice, "t") == 0)
			return;
		if (waited >= concord_register_timeout_ms)
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 ACCEPTORS_POLL_MS, concord_wait_event("ConcordAcceptors"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("cannot remove node \"%s\" because no majority of the acceptors would be left",
					name),
			 errdetail("It is one of the nodes that keep the registers, and others of them are gone or being exchanged."),
			 errhint("Try again when concord.acceptors shows no change under way, or use force, which may lose all registers.")));
}

Datum
concord_remove_node(PG_FUNCTION_ARGS)
{
	const char *what = "concord.remove_node()";
	const ConcordMap *map;
	const char *params[2];
	bool		self;

	concord_require_writable(what);
	params[0] = concord_arg_name(fcinfo, 0, "node_name");
	concord_arg_not_null(fcinfo, 1, "force");
	params[1] = PG_GETARG_BOOL(1) ? "true" : "false";

	map = concord_map_member();
	if (concord_is_authority(map))
	{
		/* the network is asked before the lock is taken */
		if (!PG_GETARG_BOOL(1) && map->nnodes > 1)
		{
			check_no_branches(params[0]);
			check_acceptors(params[0]);
		}
		concord_settle_map();
		(void) concord_owner_call("SELECT concord._lock_identity()", 0, NULL);
		remove_node_here(concord_lock_map(), params[0], PG_GETARG_BOOL(1));
		PG_RETURN_VOID();
	}
	self = strcmp(params[0], NameStr(map->self_name)) == 0;
	(void) concord_forward(map, what, "SELECT concord.remove_node($1, $2)", 2, params, !self);
	if (self)
		(void) concord_owner_call("SELECT concord._removed()", 0, NULL);
	PG_RETURN_VOID();
}

/*
 * 55000 unless an address reaches the node's database: the one the map knows, or one that holds
 * the node's identity and waits to be adopted.
 */
static void
check_address(const ConcordNode *node, const char *cluster, List *options, const char *user)
{
	char	   *name = pstrdup(NameStr(node->name));
	int			node_id = node->node_id;
	ConcordLink *link;
	ConcordProbe *probe;
	char	   *known;
	const char *where[2];

	link = concord_node_link(node, name, options, user);
	probe = concord_probe(link, name);
	concord_link_close(link);

	where[0] = probe->system_identifier;
	where[1] = probe->database;
	known = concord_owner_call("SELECT concord._node_on($1::bigint, $2::oid)", 2, where);
	if (known != NULL && strcmp(known, name) == 0)
		return;
	if (strcmp(probe->membership, "detached") == 0 && probe->node_id == node_id &&
		strcmp(probe->cluster, cluster) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the connection string does not reach the database of node \"%s\"", name),
			 errdetail_internal("%s", concord_probe_describe(probe))));
}

static void
set_node_here(const char *name, List *options, char *zone, char *weight, const char *mapping_role,
			  const char *mapping_user)
{
	const ConcordMap *map = concord_map_member();
	const char *params[6];

	/* the network is asked before the lock is taken */
	if (options != NIL)
		check_address(concord_map_node_required(map, name), concord_uuid_text(&map->cluster_id),
					  options, mapping_user);
	params[0] = psprintf("%d", concord_map_node_required(concord_lock_map(), name)->node_id);
	params[1] = options != NIL ? concord_list_to_array(options) : NULL;
	params[2] = zone;
	params[3] = weight;
	params[4] = mapping_role;
	params[5] = mapping_user;
	(void) concord_owner_call("SELECT concord._update_node($1::int, $2::text[], $3, $4::real,"
							  " $5::name, $6)", 6, params);
}

/* Arguments 2 and 3 of both functions below. */
static char *
weight_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(3))
		return NULL;
	concord_check_weight(PG_GETARG_FLOAT4(3));
	return psprintf("%.9g", PG_GETARG_FLOAT4(3));
}

Datum
concord_set_node(PG_FUNCTION_ARGS)
{
	const char *what = "concord.set_node()";
	const ConcordMap *map;
	char	   *name;
	List	   *options = NIL;
	char	   *user = NULL;
	bool		given_user = false;
	char	   *zone;
	char	   *weight;
	const char *params[6];

	concord_require_writable(what);
	name = concord_arg_name(fcinfo, 0, "node_name");
	zone = PG_ARGISNULL(2) ? NULL : concord_arg_text(fcinfo, 2, "zone");
	weight = weight_argument(fcinfo);
	if (!PG_ARGISNULL(1))
	{
		concord_require_superuser("concord.set_node() with a connection string");
		options = concord_address_parse(concord_arg_text(fcinfo, 1, "conninfo"), &user,
										&given_user);
	}
	if (!given_user)
		user = NULL;

	map = concord_map_member();
	(void) concord_map_node_required(map, name);
	params[0] = name;
	params[1] = options != NIL ? concord_list_to_array(options) : NULL;
	params[2] = zone;
	params[3] = weight;
	params[4] = GetUserNameFromId(GetUserId(), false);
	params[5] = user;
	if (concord_is_authority(map))
		set_node_here(name, options, zone, weight, params[4], user);
	else if (options == NIL)	/* needs no more than EXECUTE on set_node there */
		(void) concord_forward(map, what, "SELECT concord.set_node($1, $2, $3, $4)", 4, params,
							   true);
	else
		(void) concord_forward(map, what, "SELECT concord._set_node($1, $2, $3, $4, $5, $6)", 6,
							   params, true);
	PG_RETURN_VOID();
}

/* The same, sent by another node. */
Datum
concord_set_node_here(PG_FUNCTION_ARGS)
{
	List	   *options = NIL;

	concord_require_writable("concord.set_node()");
	if (!PG_ARGISNULL(1))
	{
		concord_require_superuser("concord.set_node() with a connection string");
		options = concord_options_checked(PG_GETARG_DATUM(1));
	}
	set_node_here(concord_arg_name(fcinfo, 0, "node_name"), options,
				  PG_ARGISNULL(2) ? NULL : concord_arg_text(fcinfo, 2, "zone"),
				  weight_argument(fcinfo), concord_arg_name(fcinfo, 4, "mapping_role"),
				  PG_ARGISNULL(5) ? NULL : concord_arg_text(fcinfo, 5, "mapping_user"));
	PG_RETURN_VOID();
}
