/*
 * identity.c
 *		Who this database is, told to others, and kept from being dropped by accident.
 *
 * WHAT: concord._probe() describes this database to whoever connects to it; concord_probe() asks
 * another. The hook refuses DROP EXTENSION on a member.
 *
 * INVARIANTS
 * I1 An identity (row of local_node) is good only on the storage it was given to: system
 *    identifier and database OID. Anywhere else the database is detached: it does not speak for
 *    its node (map.c decides that, from one place).
 * I2 The extension is not dropped while the database is an attached or joining member.  DROP
 *    EXTENSION is refused as a statement, before PostgreSQL complains of user mappings that
 *    depend on it; every other way there (DROP SCHEMA, DROP OWNED) is refused when it comes to
 *    the table local_node.  That one reads the table alone: other objects of the extension are
 *    gone by then.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "cluster/room.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/uuid.h"

static object_access_hook_type previous_object_access_hook = NULL;
static ProcessUtility_hook_type previous_utility_hook = NULL;

PG_FUNCTION_INFO_V1(concord_probe_sql);

const char *
concord_membership_name(ConcordMembership membership)
{
	switch (membership)
	{
		case CONCORD_NO_MEMBER:
			return "none";
		case CONCORD_JOINING:
			return "joining";
		case CONCORD_MEMBER:
			return "member";
		case CONCORD_REMOVED:
			return "removed";
		case CONCORD_COPY:
			return "copy";
		case CONCORD_DETACHED:
			return "detached";
	}
	return "unknown";
}

char *
concord_system_identifier(void)
{
	return psprintf(INT64_FORMAT, (int64) GetSystemIdentifier());
}

char *
concord_database_oid(void)
{
	return psprintf("%u", MyDatabaseId);
}

char *
concord_uuid_text(const pg_uuid_t *uuid)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(uuid)));
}

/*
 * _probe(): one row about this database; open to everybody, it holds nothing that
 * pg_control_system(), pg_database and the settings do not show.  Works on standbys and without
 * the preload.
 */
Datum
concord_probe_sql(PG_FUNCTION_ARGS)
{
	const ConcordMap *map;
	bool		known;
	TupleDesc	desc;
	Datum		values[16];
	bool		nulls[16] = {false};

	AcceptInvalidationMessages();
	map = concord_map();
	known = map->membership != CONCORD_NO_MEMBER;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);
	if (desc->natts != lengthof(values))
		elog(ERROR, "concord._probe() has an unexpected shape");

	values[0] = CStringGetTextDatum(CONCORD_VERSION);
	values[1] = CStringGetTextDatum(concord_extension_version());
	values[2] = Int32GetDatum(CONCORD_PROTOCOL);
	values[3] = BoolGetDatum(ConcordShared != NULL);
	values[4] = BoolGetDatum(superuser());
	values[5] = BoolGetDatum(RecoveryInProgress());
	values[6] = BoolGetDatum(XactReadOnly);
	values[7] = Int32GetDatum(max_prepared_xacts);
	values[8] = Int64GetDatum((int64) GetSystemIdentifier());
	values[9] = ObjectIdGetDatum(MyDatabaseId);
	values[10] = CStringGetTextDatum(GetDatabaseEncodingName());
	values[11] = CStringGetTextDatum(concord_node_role);
	values[12] = CStringGetTextDatum(concord_membership_name(map->membership));
	nulls[13] = nulls[14] = nulls[15] = !known;
	if (known)
	{
		values[13] = UUIDPGetDatum(&map->cluster_id);
		values[14] = Int32GetDatum(map->self);
		values[15] = NameGetDatum(&map->self_name);
	}
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

/* PostgreSQL's words for "there is no such function" are not what the user needs. */
static void
check_installed(const ConcordReply *reply, const char *name)
{
	if (!reply->ok && (reply->sqlstate == ERRCODE_UNDEFINED_FUNCTION ||
					   reply->sqlstate == ERRCODE_INVALID_SCHEMA_NAME))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"pg_concord\" is not installed on node \"%s\"", name),
				 errhint("Run CREATE EXTENSION pg_concord in that database.")));
}

static ConcordReply *
ask_probe(ConcordLink *link)
{
	return concord_link_call(link,
							 "SELECT version, extversion, protocol, preloaded::int, superuser::int,"
							 " in_recovery::int, read_only::int, max_prepared, system_identifier,"
							 " database, encoding, node_role, membership, cluster, node_id, node"
							 " FROM concord._probe()",
							 0, NULL, concord_connect_timeout_ms);
}

/* NULL if the answer is not what _probe() returns. */
static ConcordProbe *
read_probe(const ConcordReply *reply)
{
	ConcordProbe *probe = palloc0(sizeof(ConcordProbe));

	if (reply->nrows != 1 || reply->ncols != 16)
		return NULL;
	for (int col = 0; col < 13; col++)
		if (concord_reply_value(reply, 0, col) == NULL)
			return NULL;
#define FIELD(col) concord_reply_value(reply, 0, col)
	probe->version = FIELD(0);
	probe->extversion = FIELD(1);
	probe->protocol = atoi(FIELD(2));
	probe->preloaded = FIELD(3)[0] == '1';
	probe->superuser = FIELD(4)[0] == '1';
	probe->in_recovery = FIELD(5)[0] == '1';
	probe->read_only = FIELD(6)[0] == '1';
	probe->max_prepared = atoi(FIELD(7));
	probe->system_identifier = FIELD(8);
	probe->database = FIELD(9);
	probe->encoding = FIELD(10);
	probe->node_role = FIELD(11);
	probe->membership = FIELD(12);
	probe->cluster = FIELD(13);
	probe->node_id = FIELD(14) != NULL ? atoi(FIELD(14)) : 0;
	probe->node = FIELD(15) != NULL ? FIELD(15) : "";
#undef FIELD
	return probe;
}

ConcordProbe *
concord_probe(ConcordLink *link, const char *name)
{
	ConcordReply *reply = ask_probe(link);
	ConcordProbe *probe;

	check_installed(reply, name);
	concord_reply_check(link, reply);
	probe = read_probe(reply);
	if (probe == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" does not describe itself in a way known here", name),
				 errhint("Compare the versions of pg_concord.")));
	return probe;
}

ConcordProbe *
concord_probe_quietly(ConcordLink *link)
{
	ConcordReply *reply = ask_probe(link);

	return reply->ok ? read_probe(reply) : NULL;
}

bool
concord_probe_is_self(const ConcordProbe *probe)
{
	return strcmp(probe->system_identifier, concord_system_identifier()) == 0 &&
		strcmp(probe->database, concord_database_oid()) == 0;
}

char *
concord_probe_describe(const ConcordProbe *probe)
{
	if (probe->cluster == NULL)
		return pstrdup("It belongs to no cluster.");
	return psprintf("Its identity is node \"%s\" of cluster %s (%s).", probe->node,
					probe->cluster, probe->membership);
}

/* I2 */
static void
refuse_drop(ConcordMembership membership)
{
	if (membership == CONCORD_MEMBER || membership == CONCORD_JOINING)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot drop extension \"pg_concord\" because this database is a member of a cluster"),
				 errhint("Call concord.remove_node for it first, or concord.leave_cluster() if it is still joining.")));
}

static void
identity_object_access(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	if (previous_object_access_hook)
		previous_object_access_hook(access, classId, objectId, subId, arg);
	if (access == OAT_DROP && classId == RelationRelationId && subId == 0 &&
		concord_identity_is_table(objectId))
		refuse_drop(concord_identity_read(objectId));
}

static bool
drops_extension(const Node *statement)
{
	ListCell   *lc;

	if (!IsA(statement, DropStmt) || ((const DropStmt *) statement)->removeType != OBJECT_EXTENSION)
		return false;
	foreach(lc, ((const DropStmt *) statement)->objects)
		if (strcmp(strVal(lfirst(lc)), "pg_concord") == 0)
			return true;
	return false;
}

static void
identity_utility(PlannedStmt *statement, const char *source, bool read_only_tree,
				 ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
				 DestReceiver *dest, QueryCompletion *completion)
{
	if (drops_extension(statement->utilityStmt))
	{
		AcceptInvalidationMessages();
		refuse_drop(concord_map()->membership);
	}
	if (previous_utility_hook)
		previous_utility_hook(statement, source, read_only_tree, context, params, environment,
							  dest, completion);
	else
		standard_ProcessUtility(statement, source, read_only_tree, context, params, environment,
								dest, completion);
}

void
concord_identity_init(void)
{
	previous_object_access_hook = object_access_hook;
	object_access_hook = identity_object_access;
	previous_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = identity_utility;
}
