/*
 * owner.c
 *		How the room's C reaches its tables, and the checks its entry points begin with.
 *
 * PROMISE: a statement run here has the rights of the extension's owner and nothing of the
 * caller's but the transaction.  The user is switched back by concord_owner_end(), or by
 * PostgreSQL itself when an error ends the (sub)transaction.  No text here holds a value the user
 * gave: values travel as parameters.
 */
#include "postgres.h"

#include <math.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "cluster/room.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

/* Reads pg_extension's row, of which no cache exists. */
static bool
read_extension(Oid *owner, char **version)
{
	Oid			extension = get_extension_oid("pg_concord", true);
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;

		*owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
		*version = TextDatumGetCString(heap_getattr(tuple, Anum_pg_extension_extversion,
													RelationGetDescr(rel), &isnull));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

char *
concord_extension_version(void)
{
	Oid			owner;
	char	   *version;

	return read_extension(&owner, &version) ? version : pstrdup("");
}

Oid
concord_extension_owner(void)
{
	Oid			owner;
	char	   *version;

	if (!read_extension(&owner, &version))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"pg_concord\" is not installed in this database")));
	return owner;
}

void
concord_owner_begin(ConcordOwnerScope *scope)
{
	Oid			owner = concord_extension_owner();

	GetUserIdAndSecContext(&scope->userid, &scope->sec_context);
	SetUserIdAndSecContext(owner, scope->sec_context | SECURITY_LOCAL_USERID_CHANGE);
}

void
concord_owner_end(const ConcordOwnerScope *scope)
{
	SetUserIdAndSecContext(scope->userid, scope->sec_context);
}

char *
concord_owner_call(const char *sql, int nparams, const char *const *params)
{
	MemoryContext caller = CurrentMemoryContext;
	ConcordOwnerScope scope;
	Oid		   *types = palloc(Max(nparams, 1) * sizeof(Oid));
	Datum	   *values = palloc0(Max(nparams, 1) * sizeof(Datum));
	char	   *nulls = palloc0(nparams + 1);
	char	   *result = NULL;

	for (int i = 0; i < nparams; i++)
	{
		types[i] = TEXTOID;
		nulls[i] = params[i] == NULL ? 'n' : ' ';
		if (params[i] != NULL)
			values[i] = CStringGetTextDatum(params[i]);
	}

	concord_owner_begin(&scope);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(sql, nparams, types, values, nulls, false, 0) < 0)
		elog(ERROR, "could not execute \"%s\"", sql);
	if (SPI_processed > 0 && SPI_tuptable != NULL)
	{
		result = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		if (result != NULL)
			result = MemoryContextStrdup(caller, result);
	}
	SPI_finish();
	concord_owner_end(&scope);
	return result;
}

void
concord_require_writable(const char *what)
{
	AcceptInvalidationMessages();
	concord_require_preload();
	PreventCommandDuringRecovery(what);
	PreventCommandIfReadOnly(what);
	PreventCommandIfParallelMode(what);
}

void
concord_require_superuser(const char *what)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to call %s", what)));
}

Oid
concord_node_role_oid(bool missing_ok)
{
	return get_role_oid(concord_node_role, missing_ok);
}

void
concord_require_node_role(void)
{
	if (!superuser() && GetUserId() != concord_node_role_oid(true))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only role \"%s\" may call this function", concord_node_role),
				 errdetail("It is part of the protocol between nodes.")));
}

void
concord_arg_not_null(FunctionCallInfo fcinfo, int i, const char *name)
{
	if (PG_ARGISNULL(i))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

char *
concord_arg_name(FunctionCallInfo fcinfo, int i, const char *name)
{
	concord_arg_not_null(fcinfo, i, name);
	return pstrdup(NameStr(*PG_GETARG_NAME(i)));
}

char *
concord_arg_text(FunctionCallInfo fcinfo, int i, const char *name)
{
	concord_arg_not_null(fcinfo, i, name);
	return text_to_cstring(PG_GETARG_TEXT_PP(i));
}

/*
 * A name becomes a foreign server's, and stands in application_name between slashes and in the
 * server's log: so no slash, no control character, no white space at its ends.
 */
void
concord_check_name(const char *kind, const char *name)
{
	size_t		length = strlen(name);
	const char *why = NULL;

	if (length == 0)
		why = "A name must not be empty.";
	else if (name[0] == ' ' || name[length - 1] == ' ')
		why = "A name must not begin or end with a space.";
	for (size_t i = 0; i < length && why == NULL; i++)
	{
		if ((unsigned char) name[i] < 0x20 || name[i] == 0x7f)
			why = "A name must not contain control characters.";
		else if (name[i] == '/')
			why = "A name must not contain a slash.";
	}
	if (why != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid %s name", kind),
				 errdetail_internal("%s", why)));
}

void
concord_check_weight(float weight)
{
	if (isnan(weight) || isinf(weight) || weight < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("weight must be a finite number and not negative"),
				 errhint("A node's share of the slots is proportional to its weight; 0 drains it.")));
}

char *
concord_list_to_array(List *options)
{
	int			n = list_length(options);
	Datum	   *elements = palloc(Max(n, 1) * sizeof(Datum));
	ListCell   *lc;
	int			i = 0;

	foreach(lc, options)
		elements[i++] = CStringGetTextDatum(lfirst(lc));
	return OidOutputFunctionCall(F_ARRAY_OUT,
								 PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false,
																 TYPALIGN_INT)));
}

List *
concord_array_to_list(Datum array)
{
	ArrayType  *arr = DatumGetArrayTypeP(array);
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	List	   *result = NIL;

	deconstruct_array(arr, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("an option must not be null")));
		result = lappend(result, TextDatumGetCString(elements[i]));
	}
	return result;
}
