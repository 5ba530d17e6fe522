/*
 * fdw.c
 *		The validator of the data wrapper pg_concord.
 *
 * WHAT: decides which options may stand on a node's server and in a user mapping.
 *
 * PROMISE: no secret on a server (everybody can read its options), and nothing in a user mapping
 * that would lend the server's own credentials or files to a role that is no superuser.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "cluster/room.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(concord_fdw_validator);

static void
check_mapping_option(DefElem *def)
{
	if (superuser())
		return;
	if (strcmp(def->defname, "password_required") == 0 && !defGetBoolean(def))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only a superuser may set password_required to false")));
	if (strcmp(def->defname, "sslcert") == 0 || strcmp(def->defname, "sslkey") == 0 ||
		strcmp(def->defname, "passfile") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only a superuser may set user mapping option \"%s\"", def->defname),
				 errdetail("It names a file of the server.")));
}

static int
hint_of(Oid catalog)
{
	if (catalog == ForeignServerRelationId)
		return errhint("A server takes libpq options; user and password belong into a user mapping.");
	if (catalog == UserMappingRelationId)
		return errhint("A user mapping takes user, password, sslcert, sslkey, sslpassword, passfile and password_required.");
	return 0;
}

Datum
concord_fdw_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);
		bool		allowed = (catalog == ForeignServerRelationId &&
							   concord_option_allowed(def->defname, false)) ||
			(catalog == UserMappingRelationId && concord_option_allowed(def->defname, true));

		if (!allowed)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("invalid option \"%s\"", def->defname),
					 hint_of(catalog)));
		if (catalog == UserMappingRelationId)
			check_mapping_option(def);
	}
	PG_RETURN_VOID();
}
