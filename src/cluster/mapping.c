/*
 * mapping.c
 *		User mappings of the nodes' servers: which remote user, with which secret, a role is.
 *
 * WHAT: concord.map_user() sets a role's mapping on every node for every node; _put_mappings()
 * gives a new node's server the mappings that this node's own server has.
 *
 * PROMISE: a secret goes from map_user's argument into pg_user_mapping, and to other nodes as a
 * parameter over the caller's own connections, whose servers were told before not to log
 * parameters.  It is in no statement's text, no message, no table of ours and no map.  What a
 * role was mapped to lasts: nodes added later are mapped like this node's own server.
 *
 * What is left when something dies: this node's mappings are one transaction; each other node's
 * is one there.  A node that was missed is a row in the result, and the same call again does no
 * harm.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/settings.h"
#include "catalog/pg_user_mapping.h"
#include "cluster/room.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(concord_put_mappings);
PG_FUNCTION_INFO_V1(concord_map_user);
PG_FUNCTION_INFO_V1(concord_map_user_here);

/* One mapping, read from the catalog. */
typedef struct Mapping
{
	Oid			role;			/* InvalidOid: PUBLIC */
	List	   *options;		/* of DefElem */
} Mapping;

bool
concord_has_mapping(Oid serverid, Oid userid, bool for_protocol)
{
	return OidIsValid(serverid) &&
		(SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid),
							   ObjectIdGetDatum(serverid)) ||
		 (!for_protocol &&
		  SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
								ObjectIdGetDatum(serverid))));
}

List *
concord_mapping_options(Oid serverid, Oid userid, bool for_protocol)
{
	/* the server's come first: a certificate that stands there is the node's, not the mapping's */
	return list_copy_tail(concord_server_options(serverid, userid, for_protocol),
						  list_length(GetForeignServer(serverid)->options));
}

List *
concord_replica_options(const ConcordMap *map, const ConcordReplica *replica, Oid userid,
						bool for_protocol)
{
	const ConcordNode *node = concord_map_node(map, replica->node_id);
	List	   *result = NIL;
	ListCell   *lc;

	/* the map may be gone when the catalogs were looked into */
	foreach(lc, replica->options)
		result = lappend(result, pstrdup(lfirst(lc)));
	if (node == NULL || !OidIsValid(node->serverid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the map does not hold the node of replica \"%s\"",
						NameStr(replica->name))));
	return list_concat(result, concord_mapping_options(node->serverid, userid, for_protocol));
}

static RoleSpec *
role_spec(const char *role)
{
	RoleSpec   *spec = makeNode(RoleSpec);

	spec->roletype = strcmp(role, "public") == 0 ? ROLESPEC_PUBLIC : ROLESPEC_CSTRING;
	if (spec->roletype == ROLESPEC_CSTRING)
		spec->rolename = pstrdup(role);
	spec->location = -1;
	return spec;
}

/*
 * Sets a mapping to exactly these options.  Called as the servers' owner; the nodes are built
 * here, because a statement's text would carry the secret into error contexts and statistics.
 */
static void
set_mapping(const char *server, const char *role, Oid roleid, List *options)
{
	CreateUserMappingStmt *create = makeNode(CreateUserMappingStmt);

	if (SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(roleid),
							  ObjectIdGetDatum(get_foreign_server_oid(server, false))))
	{
		DropUserMappingStmt *drop = makeNode(DropUserMappingStmt);

		drop->user = role_spec(role);
		drop->servername = pstrdup(server);
		RemoveUserMapping(drop);
		CommandCounterIncrement();
	}
	create->user = role_spec(role);
	create->servername = pstrdup(server);
	create->options = copyObject(options);
	CreateUserMapping(create);
	CommandCounterIncrement();
}

static DefElem *
option_of(const char *keyword, const char *value)
{
	return makeDefElem(pstrdup(keyword), (Node *) makeString(pstrdup(value)), -1);
}

static const char *
option_value(List *options, const char *keyword)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, keyword) == 0)
			return defGetString(def);
	}
	return NULL;
}

/* All mappings of a server, as List of Mapping *. */
static List *
mappings_of(Oid serverid)
{
	Relation	rel = table_open(UserMappingRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	List	   *result = NIL;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_user_mapping form = (Form_pg_user_mapping) GETSTRUCT(tuple);
		Mapping    *mapping;
		Datum		options;
		bool		isnull;

		if (form->umserver != serverid)
			continue;
		mapping = palloc0(sizeof(Mapping));
		mapping->role = form->umuser;
		options = heap_getattr(tuple, Anum_pg_user_mapping_umoptions, RelationGetDescr(rel),
							   &isnull);
		if (!isnull)
			mapping->options = untransformRelOptions(options);
		result = lappend(result, mapping);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/*
 * The mapping of the role that added the node: the user it named, with its secret from here if
 * the user is the same.
 */
static void
put_adder(const char *server, Oid serverid, const char *role, const char *user, List *own,
		  bool replace_user)
{
	Oid			roleid = get_role_oid(role, true);
	List	   *options = list_make1(option_of("user", user));
	ListCell   *lc;

	if (!OidIsValid(roleid) ||
		(concord_has_mapping(serverid, roleid, true) && !replace_user))
		return;
	foreach(lc, own)
	{
		Mapping    *mapping = lfirst(lc);
		const char *own_user = option_value(mapping->options, "user");

		if (mapping->role == roleid && own_user != NULL && strcmp(own_user, user) == 0)
			options = mapping->options;
	}
	set_mapping(server, role, roleid, options);
}

/*
 * _put_mappings(server, own_server, mapping_role, mapping_user, replace_user): see cluster.sql.
 * Existing mappings are left alone, but the adder's when its user was changed.
 */
Datum
concord_put_mappings(PG_FUNCTION_ARGS)
{
	char	   *server = concord_arg_name(fcinfo, 0, "server");
	char	   *adder = concord_arg_name(fcinfo, 2, "mapping_role");
	char	   *user = concord_arg_text(fcinfo, 3, "mapping_user");
	Oid			serverid = get_foreign_server_oid(server, false);
	Oid			own_server = InvalidOid;
	Oid			node_role = concord_node_role_oid(false);
	List	   *own = NIL;
	ListCell   *lc;

	if (!PG_ARGISNULL(1))
		own_server = get_foreign_server_oid(NameStr(*PG_GETARG_NAME(1)), true);
	if (OidIsValid(own_server) && own_server != serverid)
		own = mappings_of(own_server);

	put_adder(server, serverid, adder, user, own, PG_GETARG_BOOL(4));
	foreach(lc, own)
	{
		Mapping    *mapping = lfirst(lc);

		if (!concord_has_mapping(serverid, mapping->role, true))
			set_mapping(server, OidIsValid(mapping->role) ?
						GetUserNameFromId(mapping->role, false) : "public",
						mapping->role, mapping->options);
	}
	if (!concord_has_mapping(serverid, node_role, true))
		set_mapping(server, concord_node_role, node_role,
					list_make2(option_of("user", concord_node_role),
							   option_of("password_required", "false")));
	PG_RETURN_VOID();
}

/*
 * The options of map_user() as DefElems, the user added.  Everything that a mapping's options can
 * be refused for is found here, before another node is asked: 22023, HV00D, 42710.  No value is
 * shown, and nothing at all of a malformed option.
 */
static List *
parse_options(List *options, const char *role)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, options)
	{
		char	   *keyword = pstrdup(lfirst(lc));
		char	   *equals = strchr(keyword, '=');

		if (equals == NULL || equals == keyword)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("malformed user mapping option"),
					 errhint("Give options as keyword=value.")));
		*equals = '\0';
		if (!concord_option_allowed(keyword, true))
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("invalid option \"%s\"", keyword),
					 errhint("A user mapping takes user, password, sslcert, sslkey, sslpassword, passfile and password_required.")));
		if (option_value(result, keyword) != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("option \"%s\" is given more than once", keyword)));
		result = lappend(result, option_of(keyword, equals + 1));
		if (strcmp(keyword, "password_required") == 0)
			(void) defGetBoolean(llast(result));
	}
	if (option_value(result, "user") == NULL && strcmp(role, "public") != 0)
		result = lappend(result, option_of("user", role));
	return result;
}

static Oid
mapped_role(const char *role)
{
	return strcmp(role, "public") == 0 ? InvalidOid : get_role_oid(role, false);
}

/*
 * Maps a role on this node for all nodes of the map.  The locks keep a node from being added
 * meanwhile, whose server would take the mapping as it was before.
 */
static void
map_user_here(const char *role, List *options)
{
	Oid			roleid = mapped_role(role);
	List	   *parsed = parse_options(options, role);
	const ConcordMap *map;
	char	  **servers;
	int			n;

	(void) concord_owner_call("SELECT concord._lock_identity()", 0, NULL);
	(void) concord_owner_call("SELECT concord._lock_map()", 0, NULL);
	(void) concord_map_refresh();
	map = concord_map_member();
	n = map->nnodes;
	servers = palloc(n * sizeof(char *));
	for (int i = 0; i < n; i++)
		servers[i] = pstrdup(NameStr(map->nodes[i].name));
	for (int i = 0; i < n; i++)
	{
		ConcordOwnerScope scope;
		const char *params[2] = {servers[i], psprintf("%u", roleid)};

		concord_owner_begin(&scope);
		set_mapping(servers[i], role, roleid, parsed);
		concord_owner_end(&scope);
		(void) concord_owner_call("SELECT concord._grant_usage($1::name, $2::oid)", 2, params);
	}
	/* the worker looks at once how to reach the nodes now */
	(void) concord_owner_call("SELECT concord._map_changed()", 0, NULL);
}

static void
map_user_elsewhere(ReturnSetInfo *rsinfo, const ConcordMap *map, const char *role, List *options)
{
	/* before anything secret is sent: also what auto_explain would write down */
	static const char *const quiet =
		"SELECT pg_catalog.set_config('log_parameter_max_length', '0', false),"
		" pg_catalog.set_config('log_parameter_max_length_on_error', '0', false),"
		" pg_catalog.set_config('auto_explain.log_parameter_max_length', '0', false)";
	const char *params[2] = {role, concord_list_to_array(options)};
	ConcordAskedNodes *nodes = concord_ask_nodes(rsinfo, map);

	concord_ask_more(rsinfo, nodes, quiet, 0, NULL);
	concord_ask_more(rsinfo, nodes, "SELECT concord._map_user($1, $2)", 2, params);
	concord_ask_done(rsinfo, nodes);
}

Datum
concord_map_user(PG_FUNCTION_ARGS)
{
	const char *what = "concord.map_user()";
	ErrorContextCallback hide;
	const ConcordMap *map;
	char	   *role;
	List	   *options;

	concord_hide_statement(&hide);
	concord_require_writable(what);
	concord_require_superuser(what);
	role = concord_arg_name(fcinfo, 0, "role");
	concord_arg_not_null(fcinfo, 1, "options");
	options = concord_array_to_list(PG_GETARG_DATUM(1));
	map = concord_map_member();
	if (map->nnodes > 1)
		concord_no_block(what);

	/* what is wrong with the arguments is an error before anybody is asked */
	(void) mapped_role(role);
	(void) parse_options(options, role);

	/* others first: no lock is held here while they take theirs */
	InitMaterializedSRF(fcinfo, 0);
	map_user_elsewhere((ReturnSetInfo *) fcinfo->resultinfo, map, role, options);
	map_user_here(role, options);
	concord_put_status((ReturnSetInfo *) fcinfo->resultinfo,
					   NameStr(concord_map_member()->self_name), true, NULL);
	concord_show_statement(&hide);
	return (Datum) 0;
}

/* _map_user(role, options): sent by another node's map_user(). */
Datum
concord_map_user_here(PG_FUNCTION_ARGS)
{
	ErrorContextCallback hide;
	char	   *role;

	concord_hide_statement(&hide);
	concord_require_writable("concord.map_user()");
	concord_require_superuser("concord.map_user()");
	role = concord_arg_name(fcinfo, 0, "role");
	concord_arg_not_null(fcinfo, 1, "options");
	map_user_here(role, concord_array_to_list(PG_GETARG_DATUM(1)));
	concord_show_statement(&hide);
	PG_RETURN_VOID();
}
