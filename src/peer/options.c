/*
 * options.c
 *		From connection strings, foreign servers and user mappings to libpq options.
 *
 * PROMISE: no secret passes through a place that others can read.  A password is refused in a
 * connection string (it would stand in the map, on every node, and in the log of the statement
 * that gave it); it belongs into a user mapping, a password file or a certificate.  No message
 * here shows a value.
 *
 * INVARIANTS
 * O1 Users' connections: the role needs USAGE on the server, and unless it is a superuser, or a
 *    superuser set password_required 'false' on its mapping, the mapping must hold a password
 *    (checked here before, and by pool.c after connecting that it was used).  Otherwise the
 *    operating system user's own credentials (peer, trust, password file, certificate) would be
 *    lent to everybody.
 * O2 Protocol traffic takes the protocol role's own mapping, never PUBLIC's.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "peer/link.h"
#include "peer/wire.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

static bool
is_one_of(const char *keyword, const char *const *list)
{
	for (; *list != NULL; list++)
		if (strcmp(*list, keyword) == 0)
			return true;
	return false;
}

bool
concord_option_allowed(const char *keyword, bool in_mapping)
{
	static const char *const mapping_only[] = {"user", "password", "sslpassword", NULL};
	static const char *const mapping_too[] = {"sslcert", "sslkey", "passfile", NULL};
	static const char *const ours[] = {
		"client_encoding", "application_name", "fallback_application_name", "replication", NULL
	};
	PQconninfoOption *known;
	bool		exists = false;

	if (in_mapping)
		return strcmp(keyword, "password_required") == 0 ||
			is_one_of(keyword, mapping_only) || is_one_of(keyword, mapping_too);
	if (is_one_of(keyword, mapping_only) || is_one_of(keyword, ours))
		return false;

	known = PQconndefaults();
	if (known == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	for (PQconninfoOption *option = known; option->keyword != NULL; option++)
		if (strcmp(option->keyword, keyword) == 0 &&
			strchr(option->dispchar, 'D') == NULL && strchr(option->dispchar, '*') == NULL)
			exists = true;
	PQconninfoFree(known);
	return exists;
}

List *
concord_conninfo_parse(const char *conninfo, char **user)
{
	char	   *error = NULL;
	PQconninfoOption *parsed = PQconninfoParse(conninfo, &error);
	List	   *result = NIL;
	const char *refused = NULL;

	*user = NULL;
	if (parsed == NULL)
	{
		/* libpq's message may quote a part of the string, and that part may be a password */
		PQfreemem(error);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid connection string"),
				 errhint("Use the form \"host=... port=... dbname=...\" or a postgresql:// URI.")));
	}

	for (PQconninfoOption *option = parsed; option->keyword != NULL; option++)
	{
		if (option->val == NULL)
			continue;
		if (strcmp(option->keyword, "user") == 0)
			*user = pstrdup(option->val);
		else if (!concord_option_allowed(option->keyword, false))
			refused = pstrdup(option->keyword);
		else
			result = lappend(result, psprintf("%s=%s", option->keyword, option->val));
	}
	PQconninfoFree(parsed);

	if (refused != NULL &&
		(strcmp(refused, "password") == 0 || strcmp(refused, "sslpassword") == 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a connection string must not contain a password"),
				 errhint("Use a password file, a certificate, or a user mapping (concord.map_user).")));
	if (refused != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("connection option \"%s\" cannot be set for a node", refused)));
	return result;
}

/* The mapping of exactly this role, or NULL. */
static HeapTuple
own_mapping(Oid serverid, Oid userid)
{
	HeapTuple	tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid),
										ObjectIdGetDatum(serverid));

	return HeapTupleIsValid(tuple) ? tuple : NULL;
}

static List *
append_options(List *result, List *definitions)
{
	ListCell   *lc;

	foreach(lc, definitions)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, "password_required") != 0)
			result = lappend(result, psprintf("%s=%s", def->defname, defGetString(def)));
	}
	return result;
}

/* O1: does this role have to bring a password of its own? */
static bool
password_is_required(Oid userid, List *mapping_options)
{
	ListCell   *lc;

	if (superuser_arg(userid))
		return false;
	foreach(lc, mapping_options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, "password_required") == 0)
			return defGetBoolean(def);
	}
	return true;
}

bool
concord_password_required(Oid serverid, Oid userid)
{
	return password_is_required(userid, GetUserMapping(userid, serverid)->options);
}

List *
concord_copy_options(const List *address, Oid serverid, Oid userid)
{
	List	   *options = concord_server_options(serverid, userid, false);
	List	   *result = list_copy(address);

	/* the server's options come first: a copy has its own in their place */
	return list_concat(result, list_copy_tail(options,
											  list_length(GetForeignServer(serverid)->options)));
}

List *
concord_server_options(Oid serverid, Oid userid, bool for_protocol)
{
	ForeignServer *server = GetForeignServer(serverid);
	HeapTuple	own = own_mapping(serverid, userid);
	HeapTuple	fallback = NULL;
	UserMapping *mapping;
	bool		has_password = false;
	ListCell   *lc;

	if (own == NULL && !for_protocol)
		fallback = own_mapping(serverid, InvalidOid);
	if (own == NULL && fallback == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\" has no user mapping for node \"%s\"",
						GetUserNameFromId(userid, false), server->servername),
				 errhint("Let a superuser call concord.map_user.")));
	ReleaseSysCache(own != NULL ? own : fallback);
	mapping = GetUserMapping(userid, serverid);

	if (!for_protocol)
	{
		AclResult	acl;

#if PG_VERSION_NUM >= 160000
		acl = object_aclcheck(ForeignServerRelationId, serverid, userid, ACL_USAGE);
#else
		acl = pg_foreign_server_aclcheck(serverid, userid, ACL_USAGE);
#endif
		if (acl != ACLCHECK_OK)
			aclcheck_error(acl, OBJECT_FOREIGN_SERVER, server->servername);

		foreach(lc, mapping->options)
		{
			DefElem    *def = lfirst_node(DefElem, lc);

			if (strcmp(def->defname, "password") == 0 && defGetString(def)[0] != '\0')
				has_password = true;
		}
		if (!has_password && password_is_required(userid, mapping->options))
			ereport(ERROR,
					(errcode(ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED),
					 errmsg("password is required"),
					 errdetail("Non-superusers must provide a password in their user mapping for node \"%s\".",
							   server->servername),
					 errhint("Let a superuser call concord.map_user.")));
	}
	return append_options(append_options(NIL, server->options), mapping->options);
}
