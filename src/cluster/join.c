/*
 * join.c
 *		Adding a node: both sides of it.
 *
 * WHAT: concord.add_node() examines the database to be added, has it store an intent (_join), and
 * puts it into the map.
 *
 * PROMISE: a database is a member if and only if the authority's committed map holds it with the
 * nonce of its intent. Everything that can be wrong with it is found before anything is changed
 * anywhere.
 *
 * STATES of the new database (local_node.state)
 *		none, removed --_join()--> joining
 *			the intent, with a nonce and the map as it was, is committed there
 *		joining --_apply_map() of a map that holds node id and nonce--> member
 *		joining --_join_finish('aborted')--> none
 *			the authority has no such nonce, and no change is running there
 *		joining --_join() of the same cluster--> joining, with the new nonce
 *		member --_join() of the same cluster, whose newer map does not hold it--> joining
 *			it was removed and added again before it had heard of the former
 *		joining --leave_cluster()--> none, by hand
 *
 * What is left when something dies or an answer is lost
 *		before _join() commits: nothing anywhere.
 *		_join() committed, the authority's transaction not: it rolls back (by the user, by an
 *			error here, by a crash, or because the answer to _join() was lost).  The new database
 *			asks _join_outcome(nonce), hears "aborted" and forgets.  While the authority's
 *			transaction still runs it hears "in progress": that transaction holds the map's lock
 *			from before _join() to its end.
 *		authority committed, the new database down: it is told of the map when it returns, by
 *			heartbeats of both sides.
 *		the new database lost for good in between: the map holds a node that never answers;
 *			remove_node() removes it, since it owns no slots.
 *		another node has a foreign server of the new node's name: that node cannot apply the map
 *			until it is renamed; its log and check_cluster() (epoch) say so.
 *
 * LOCKS: on the authority, the map's lock from before _join() to the end of the transaction, so
 * two add_node run one after the other; on the new database, the identity's lock within _join().
 * The network is waited for under the map's lock, at most a few times concord.connect_timeout.
 */
#include "postgres.h"

#include <limits.h>

#include "access/twophase.h"
#include "base/settings.h"
#include "cluster/room.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"

/* A node as add_node() was told of it. */
typedef struct NewNode
{
	char	   *name;
	List	   *options;
	char	   *zone;
	float		weight;
	char	   *mapping_role;
	char	   *mapping_user;
} NewNode;

PG_FUNCTION_INFO_V1(concord_add_node);
PG_FUNCTION_INFO_V1(concord_add_node_here);
PG_FUNCTION_INFO_V1(concord_join);

/* What a database must be like to become a node, whoever asks. */
void
concord_check_server(const ConcordProbe *probe, const char *name)
{
	if (!probe->preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_concord is not loaded on the server of node \"%s\"", name),
				 errhint("Add pg_concord to shared_preload_libraries there and restart the server.")));
	/* this protocol and the previous one */
	if (probe->protocol < Max(CONCORD_PROTOCOL - 1, 1) || probe->protocol > CONCORD_PROTOCOL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("node \"%s\" speaks protocol %d, this node speaks %d", name,
						probe->protocol, CONCORD_PROTOCOL),
				 errdetail("It runs pg_concord %s, this node %s.", probe->version,
						   CONCORD_VERSION)));
	if (strcmp(probe->version, probe->extversion) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"pg_concord\" on node \"%s\" is version %s, its library %s",
						name, probe->extversion, probe->version),
				 errhint("Run ALTER EXTENSION pg_concord UPDATE in that database, or restart its server with the matching library.")));
	if (probe->max_prepared <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("max_prepared_transactions is 0 on the server of node \"%s\"", name),
				 errhint("Set it to at least max_connections there and restart the server.")));
}

/*
 * 55000 unless the database has no identity, or one that may be replaced by this cluster's: an
 * intent to join it, or a membership that this map does not have any more.
 */
static void
check_no_member(const ConcordProbe *probe, const char *name, const char *cluster)
{
	const char *hint;

	if (probe->cluster == NULL || strcmp(probe->membership, "removed") == 0)
		return;
	if (strcmp(probe->cluster, cluster) == 0 &&
		(strcmp(probe->membership, "joining") == 0 ||
		 (strcmp(probe->membership, "member") == 0 &&
		  concord_map_node(concord_map_member(), probe->node_id) == NULL)))
		return;
	if (strcmp(probe->membership, "detached") == 0)
		hint = "Call concord.leave_cluster() there first, or concord.adopt_node() if it is to take that node's place.";
	else if (strcmp(probe->membership, "joining") == 0)
		hint = "Wait until it has joined, or call concord.leave_cluster() there.";
	else if (strcmp(probe->membership, "copy") == 0)
		hint = "It is a logical copy: call concord.remove_replica for it first.";
	else
		hint = "Remove it from its cluster with concord.remove_node first.";
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the database of node \"%s\" is already a member of a cluster", name),
			 errdetail_internal("%s", concord_probe_describe(probe)),
			 errhint("%s", hint)));
}

/* Is the database a known node's, by system identifier and OID? */
static void
check_not_known(const ConcordProbe *probe)
{
	const char *params[2] = {probe->system_identifier, probe->database};
	char	   *known;

	known = concord_owner_call("SELECT concord._node_on($1::bigint, $2::oid)", 2, params);

	if (known != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("this database is already node \"%s\" of the cluster", known),
				 errdetail("System identifier and database are the same.")));
}

static void
check_candidate(const ConcordProbe *probe, const NewNode *new_node, const char *cluster)
{
	const char *name = new_node->name;

	if (probe->in_recovery)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the server of node \"%s\" is a standby", name),
				 errhint("Add its primary, or use concord.add_replica.")));
	check_not_known(probe);
	concord_check_server(probe, name);
	if (probe->read_only)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("transactions on node \"%s\" are read-only", name),
				 errhint("Look at default_transaction_read_only there.")));
	check_no_member(probe, name, cluster);
	if (!probe->superuser)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" is not a superuser on node \"%s\"",
						new_node->mapping_user, name),
				 errhint("Name a superuser of that server in the connection string.")));
	if (strcmp(probe->encoding, GetDatabaseEncodingName()) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("encoding of node \"%s\" is %s, the cluster's is %s", name, probe->encoding,
						GetDatabaseEncodingName()),
				 errdetail("The same text would be different keys.")));
	if (strcmp(probe->node_role, concord_node_role) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("concord.node_role is \"%s\" on node \"%s\", here it is \"%s\"",
						probe->node_role, name, concord_node_role)));
}

/*
 * Can the protocol role reach the new node from here, and is it the node meant?  If not, the node
 * would never become a member: better an error now.
 */
static void
check_protocol_way(const ConcordMap *map, const NewNode *new_node, const char *cluster, int node_id)
{
	const ConcordNode *own = concord_map_node(map, map->self);
	List	   *options;
	ConcordLink *link;
	ConcordReply *reply;
	const char *params[6] = {
		cluster, psprintf("%d", map->self), psprintf("%d", node_id),
		psprintf("%d", CONCORD_PROTOCOL), psprintf(INT64_FORMAT, map->epoch),
		psprintf("%d", map->self_generation)
	};

	options = concord_mapping_options(own->serverid, concord_node_role_oid(false), true);
	options = list_concat_copy(new_node->options, options);
	link = concord_link_open(new_node->name, options);
	reply = concord_link_call(link,
							  "SELECT node_id FROM concord._heartbeat($1, $2, $3, $4, $5, $6)", 6,
							  params, concord_connect_timeout_ms);
	if (!reply->ok)
		ereport(ERROR,
				(errcode(reply->sqlstate),
				 errmsg("node \"%s\" does not answer to role \"%s\"", new_node->name,
						concord_node_role),
				 errdetail("%s%s%s", reply->message, reply->detail ? ": " : "",
						   reply->detail ? reply->detail : ""),
				 errhint("Let that role connect from this server (pg_hba.conf there), with a password file or a certificate if need be: no user mapping can hold its password before the node has joined.")));
	concord_link_close(link);
}

static int
add_node_here(NewNode *new_node)
{
	char	   *cluster = concord_uuid_text(&concord_map_member()->cluster_id);
	const char *name = new_node->name;
	ConcordLink *link;
	ConcordReply *reply;
	ConcordProbe *probe;
	const ConcordMap *map;
	const char *join[6];
	const char *row[10];
	char	   *nonce;
	char	   *node_id;

	(void) concord_owner_call("SELECT concord._check_name_free($1::name)", 1, &name);
	link = concord_address_link(name, new_node->options, new_node->mapping_user);
	probe = concord_probe(link, name);
	check_candidate(probe, new_node, cluster);

	map = concord_lock_map();
	(void) concord_owner_call("SELECT concord._check_name_free($1::name)", 1, &name);
	check_not_known(probe);
	node_id = concord_owner_call("SELECT concord._next_node_id()", 0, NULL);
	nonce = concord_owner_call("SELECT pg_catalog.gen_random_uuid()", 0, NULL);

	join[0] = cluster;
	join[1] = psprintf("%d", CONCORD_PROTOCOL);
	join[2] = node_id;
	join[3] = name;
	join[4] = nonce;
	join[5] = concord_owner_call("SELECT concord._map_json()", 0, NULL);
	/* the new node opens a connection to this one in the course of it */
	reply = concord_link_call(link, "SELECT concord._join($1, $2, $3, $4, $5, $6)", 6, join,
							  Min(concord_connect_timeout_ms, INT_MAX / 2) * 2);
	concord_reply_check(link, reply);
	concord_link_close(link);
	check_protocol_way(map, new_node, cluster, atoi(node_id));

	row[0] = node_id;
	row[1] = name;
	row[2] = concord_list_to_array(new_node->options);
	row[3] = new_node->zone;
	row[4] = psprintf("%.9g", new_node->weight);
	row[5] = probe->system_identifier;
	row[6] = probe->database;
	row[7] = nonce;
	row[8] = new_node->mapping_role;
	row[9] = new_node->mapping_user;
	(void) concord_owner_call("SELECT concord._insert_node($1::int, $2::name, $3::text[], $4,"
							  " $5::real, $6::bigint, $7::oid, $8::uuid, $9::name, $10)", 10, row);
	return atoi(node_id);
}

Datum
concord_add_node(PG_FUNCTION_ARGS)
{
	const char *what = "concord.add_node()";
	NewNode		new_node;
	const ConcordMap *map;
	bool		given_user;
	const char *params[6];

	concord_require_writable(what);
	concord_require_superuser(what);
	new_node.name = concord_arg_name(fcinfo, 0, "node_name");
	concord_check_name("node", new_node.name);
	new_node.zone = concord_arg_text(fcinfo, 2, "zone");
	concord_arg_not_null(fcinfo, 3, "weight");
	new_node.weight = PG_GETARG_FLOAT4(3);
	concord_check_weight(new_node.weight);
	new_node.options = concord_address_parse(concord_arg_text(fcinfo, 1, "conninfo"),
											 &new_node.mapping_user, &given_user);
	new_node.mapping_role = GetUserNameFromId(GetUserId(), false);

	map = concord_map_member();
	if (concord_is_authority(map))
		PG_RETURN_INT32(add_node_here(&new_node));

	params[0] = new_node.name;
	params[1] = concord_list_to_array(new_node.options);
	params[2] = new_node.zone;
	params[3] = psprintf("%.9g", new_node.weight);
	params[4] = new_node.mapping_role;
	params[5] = new_node.mapping_user;
	PG_RETURN_INT32(atoi(concord_forward(map, what,
										 "SELECT concord._add_node($1, $2, $3, $4, $5, $6)",
										 6, params, true)));
}

/* The same, sent by another node. */
Datum
concord_add_node_here(PG_FUNCTION_ARGS)
{
	NewNode		new_node;

	concord_require_writable("concord.add_node()");
	concord_require_superuser("concord.add_node()");
	new_node.name = concord_arg_name(fcinfo, 0, "node_name");
	concord_check_name("node", new_node.name);
	concord_arg_not_null(fcinfo, 1, "options");
	new_node.options = concord_options_checked(PG_GETARG_DATUM(1));
	new_node.zone = concord_arg_text(fcinfo, 2, "zone");
	concord_arg_not_null(fcinfo, 3, "weight");
	new_node.weight = PG_GETARG_FLOAT4(3);
	concord_check_weight(new_node.weight);
	new_node.mapping_role = concord_arg_name(fcinfo, 4, "mapping_role");
	new_node.mapping_user = concord_arg_text(fcinfo, 5, "mapping_user");
	PG_RETURN_INT32(add_node_here(&new_node));
}

/* Can the authority be reached from here as the protocol role? */
static void
check_way_back(const char *cluster)
{
	const ConcordMap *map = concord_map_refresh();
	const ConcordNode *authority = concord_map_node(map, map->authority);
	char	   *name = pstrdup(NameStr(authority->name));
	int			authority_id = map->authority;
	ConcordLink *link;
	ConcordReply *reply;

	link = concord_link_open(name, concord_server_options(authority->serverid,
														  concord_node_role_oid(false), true));
	reply = concord_link_call(link, "SELECT cluster, node_id FROM concord._probe()", 0, NULL,
							  concord_connect_timeout_ms);
	if (!reply->ok)
		ereport(ERROR,
				(errcode(reply->sqlstate),
				 errmsg("the new node cannot reach authority node \"%s\" as role \"%s\"", name,
						concord_node_role),
				 errdetail("%s%s%s", reply->message, reply->detail ? ": " : "",
						   reply->detail ? reply->detail : ""),
				 errhint("Let that role connect to the authority from there (pg_hba.conf), by the address the map has for it, with a password file or a certificate if need be: no user mapping can hold its password before the node has joined.")));
	if (reply->nrows != 1 || concord_reply_value(reply, 0, 0) == NULL ||
		strcmp(concord_reply_value(reply, 0, 0), cluster) != 0 ||
		atoi(concord_reply_value(reply, 0, 1)) != authority_id)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("from the new node, the address of authority node \"%s\" reaches another database",
						name),
				 errhint("Give the authority an address that means the same everywhere, with concord.set_node.")));
	concord_link_close(link);
}

/*
 * _join(cluster, protocol, node_id, node_name, nonce, map): called by the authority's add_node()
 * here, on the database to be added.  Leaves nothing behind on error.
 */
Datum
concord_join(PG_FUNCTION_ARGS)
{
	const char *names[6] = {"cluster", "protocol", "node_id", "node_name", "nonce", "map"};
	const char *params[7];
	int			protocol;

	concord_require_writable("concord._join()");
	concord_require_superuser("concord._join()");
	for (int i = 0; i < 6; i++)
		concord_arg_not_null(fcinfo, i, names[i]);
	protocol = PG_GETARG_INT32(1);
	if (protocol < Max(CONCORD_PROTOCOL - 1, 1) || protocol > CONCORD_PROTOCOL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the cluster speaks protocol %d, this node speaks %d", protocol,
						CONCORD_PROTOCOL)));
	if (max_prepared_xacts <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("max_prepared_transactions is 0")));

	params[0] = concord_uuid_text(PG_GETARG_UUID_P(0));
	params[1] = psprintf("%d", PG_GETARG_INT32(2));
	params[2] = concord_arg_name(fcinfo, 3, "node_name");
	params[3] = concord_uuid_text(PG_GETARG_UUID_P(4));
	params[4] = DatumGetCString(DirectFunctionCall1(jsonb_out, PG_GETARG_DATUM(5)));
	params[5] = concord_system_identifier();
	params[6] = concord_database_oid();
	(void) concord_owner_call("SELECT concord._store_join($1::uuid, $2::int, $3::name, $4::uuid,"
							  " $5::jsonb, $6::bigint, $7::oid)", 7, params);
	check_way_back(params[0]);
	PG_RETURN_VOID();
}
