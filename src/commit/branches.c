/*
 * branches.c
 *		What is prepared in this database on behalf of coordinators.
 *
 * WHAT: lists pg_prepared_xact() for the resolver, for the coordinators that want to delete
 * decisions (_prepared), and for the view transactions.
 *
 * PROMISE: the list holds what was prepared before the call and is not finished after it.  A
 * transaction of another database, another cluster or another participant is never in it (P6),
 * nor one whose gid we would not have written ourselves.
 *
 * INVARIANTS
 * B1 A branch that was prepared before the question is in the answer to _prepared(), or finished:
 *    recovery has ended before a session can ask.  A standby does not answer.
 *
 * What is left when something dies: nothing; this only reads.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/shmem.h"
#include "catalog/pg_type.h"
#include "cluster/room.h"
#include "commit/resolver.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"

PG_FUNCTION_INFO_V1(concord_prepared);

/* Our operators are named: the caller's search_path is in force. */
static const char *const list_sql =
	"SELECT p.gid, p.prepared, p.ownerid, f.outcome"
	" FROM pg_catalog.pg_prepared_xact() p"
	" LEFT JOIN concord.forced f ON f.gid OPERATOR(pg_catalog.=) p.gid"
	" WHERE p.dbid OPERATOR(pg_catalog.=) $1 AND pg_catalog.starts_with(p.gid, $2)"
	" ORDER BY p.prepared USING OPERATOR(pg_catalog.<)";

/* One row of that; NULL if it is not ours. */
static ConcordPrepared *
read_row(const pg_uuid_t *cluster, int self, HeapTuple row, TupleDesc desc)
{
	ConcordPrepared *result;
	ConcordGid	gid;
	bool		isnull;
	char	   *text = SPI_getvalue(row, desc, 1);
	char	   *forced = SPI_getvalue(row, desc, 4);

	if (concord_gid_parse(text, strlen(text), &gid) != CONCORD_GID_BRANCH ||
		memcmp(gid.cluster, cluster->data, sizeof(gid.cluster)) != 0 || gid.participant != self)
		return NULL;
	result = SPI_palloc(sizeof(ConcordPrepared));
	strlcpy(result->text, text, sizeof(result->text));
	result->gid = gid;
	result->prepared_at = DatumGetTimestampTz(SPI_getbinval(row, desc, 2, &isnull));
	result->owner = DatumGetObjectId(SPI_getbinval(row, desc, 3, &isnull));
	result->forced = forced != NULL;
	result->forced_commit = forced != NULL && strcmp(forced, "commit") == 0;
	return result;
}

List *
concord_prepared_list(const ConcordMap *map)
{
	MemoryContext caller = CurrentMemoryContext;
	/* the map may be read again below */
	pg_uuid_t	cluster = map->cluster_id;
	int			self = map->self;
	Oid			types[2] = {OIDOID, TEXTOID};
	Datum		values[2] = {ObjectIdGetDatum(MyDatabaseId),
	CStringGetTextDatum(CONCORD_GID_PREFIX)};
	ConcordOwnerScope scope;
	List	   *result = NIL;

	concord_owner_begin(&scope);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(list_sql, 2, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list prepared transactions");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		ConcordPrepared *branch = read_row(&cluster, self, SPI_tuptable->vals[i],
										   SPI_tuptable->tupdesc);
		MemoryContext old;

		if (branch == NULL)
			continue;
		old = MemoryContextSwitchTo(caller);
		result = lappend(result, branch);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	concord_owner_end(&scope);
	return result;
}

List *
concord_prepared_needs(const ConcordMap *map, int coordinator)
{
	List	   *needs = NIL;
	ListCell   *lc;

	foreach(lc, concord_prepared_list(map))
	{
		const ConcordPrepared *branch = lfirst(lc);
		ConcordNeeded *need = NULL;
		ListCell   *known;

		if (branch->gid.coordinator != coordinator)
			continue;
		foreach(known, needs)
			if (((ConcordNeeded *) lfirst(known))->incarnation == branch->gid.incarnation)
				need = lfirst(known);
		if (need == NULL)
		{
			need = palloc(sizeof(ConcordNeeded));
			need->incarnation = branch->gid.incarnation;
			need->serial = branch->gid.serial;
			needs = lappend(needs, need);
		}
		need->serial = Min(need->serial, branch->gid.serial);
	}
	return needs;
}

Datum
concord_prepared(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const pg_uuid_t *cluster = PG_GETARG_UUID_P(0);
	const ConcordMap *map;
	ListCell   *lc;

	concord_require_preload();
	concord_require_node_role();
	if (RecoveryInProgress())	/* B1 */
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("the server is a standby"),
				 errdetail("A node is asked at its primary.")));
	AcceptInvalidationMessages();
	map = concord_map_member();
	if (memcmp(cluster, &map->cluster_id, sizeof(pg_uuid_t)) != 0 ||
		map->self != PG_GETARG_INT32(1))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is not node %d of cluster %s", PG_GETARG_INT32(1),
						concord_uuid_text(cluster))));
	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, concord_prepared_needs(map, PG_GETARG_INT32(2)))
	{
		const ConcordNeeded *need = lfirst(lc);
		Datum		values[2] = {Int64GetDatum((int64) need->incarnation),
		Int64GetDatum((int64) need->serial)};
		bool		nulls[2] = {false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
