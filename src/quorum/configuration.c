/*
 * configuration.c
 *		Who the acceptors are, as far as this node has heard.
 *
 * WHAT: concord.configuration holds the newest set (core/register.h: ConcordConfig) that reached
 * this node.  The set of version n + 1 is the first value of the register "c:n", which is read and
 * written under the set of version n only.  So there is one of each version (R8), whoever changes
 * it, and however many try; and what one set has decided is never looked at through another.
 *
 * INVARIANTS
 * G1 Only what was read from such a register, or made with the cluster, is stored and told.
 * G2 What is stored has a version that only grows within a cluster.
 * G3 A node that has an old set, or none, is slow but not wrong: acceptors refuse an old set (R8),
 *	  and whoever is refused, or not answered, asks all nodes for what they have heard.
 * G4 A set is stored, and flushed, before it is used: when acceptors refuse the old one, and so
 *	  the register that decided, somebody must still know the new one.
 *
 * What a crash leaves: an older set, see G3.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/shmem.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "cluster/room.h"
#include "funcapi.h"
#include "quorum/quorum.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define COLUMN_CLUSTER 1
#define COLUMN_VERSION 2
#define COLUMN_BODY 3
#define COLUMNS 3

PG_FUNCTION_INFO_V1(concord_configuration_here);
PG_FUNCTION_INFO_V1(concord_learn_configuration);
PG_FUNCTION_INFO_V1(concord_found_configuration);
PG_FUNCTION_INFO_V1(concord_acceptors_here);
PG_FUNCTION_INFO_V1(concord_acceptors_suffice);

static bytea *
to_bytes(const ConcordConfig *config)
{
	bytea	   *bytes = palloc(VARHDRSZ + CONCORD_CONFIG_SIZE);
	ConcordWriter w = {(unsigned char *) VARDATA(bytes), CONCORD_CONFIG_SIZE, 0, false};

	concord_put_config(&w, config);
	Assert(!w.full);
	SET_VARSIZE(bytes, VARHDRSZ + w.len);
	return bytes;
}

static bool
from_bytes(bytea *bytes, ConcordConfig *config)
{
	ConcordReader r = {(unsigned char *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), 0, false};

	concord_get_config(&r, config);
	return concord_get_end(&r);
}

static Relation
open_configuration(LOCKMODE mode)
{
	return table_open(get_relname_relid("configuration", get_namespace_oid("concord", false)),
					  mode);
}

/* Its row, of whatever cluster; NULL if there is none. */
static HeapTuple
read_row(Relation rel, const ConcordMap *map, ConcordConfig *config)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	HeapTuple	tuple = systable_getnext(scan);

	memset(config, 0, sizeof(*config));
	if (HeapTupleIsValid(tuple))
	{
		Datum		values[COLUMNS];
		bool		nulls[COLUMNS];

		tuple = heap_copytuple(tuple);
		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		if (memcmp(DatumGetUUIDP(values[COLUMN_CLUSTER - 1]), &map->cluster_id, UUID_LEN) == 0 &&
			!from_bytes(DatumGetByteaPP(values[COLUMN_BODY - 1]), config))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("table \"concord.configuration\" is damaged")));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	return tuple;
}

bool
concord_configuration_read(ConcordConfig *config)
{
	Relation	rel = open_configuration(AccessShareLock);

	(void) read_row(rel, concord_map_member(), config);
	table_close(rel, AccessShareLock);
	return config->version > 0;
}

bool
concord_configuration_store(const ConcordConfig *config)
{
	const ConcordMap *map = concord_map_member();
	/* one writer at a time, readers are not hindered */
	Relation	rel = open_configuration(ShareRowExclusiveLock);
	ConcordConfig known;
	HeapTuple	old = read_row(rel, map, &known);
	bool		newer = config->version > known.version;	/* G2 */

	concord_quorum_flush();		/* G4 */
	if (newer)
	{
		Datum		values[COLUMNS];
		bool		nulls[COLUMNS] = {false};
		HeapTuple	tuple;

		values[COLUMN_CLUSTER - 1] = UUIDPGetDatum(&map->cluster_id);
		values[COLUMN_VERSION - 1] = Int64GetDatum((int64) config->version);
		values[COLUMN_BODY - 1] = PointerGetDatum(to_bytes(config));
		tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
		if (old == NULL)
			CatalogTupleInsert(rel, tuple);
		else
			CatalogTupleUpdate(rel, &old->t_self, tuple);
		CommandCounterIncrement();
	}
	table_close(rel, NoLock);
	return newer;
}

Datum
concord_configuration_here(PG_FUNCTION_ARGS)
{
	const ConcordMap *map;
	ConcordConfig config;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false};

	concord_require_preload();
	concord_require_node_role();
	map = concord_map_member();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = UUIDPGetDatum(&map->cluster_id);
	nulls[1] = !concord_configuration_read(&config);
	values[1] = nulls[1] ? (Datum) 0 : PointerGetDatum(to_bytes(&config));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

Datum
concord_learn_configuration(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *cluster = PG_GETARG_UUID_P(0);
	ConcordConfig config;

	concord_require_writable("concord._learn_configuration()");
	concord_require_node_role();
	if (memcmp(&concord_map_member()->cluster_id, cluster, UUID_LEN) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is a member of another cluster")));
	if (!from_bytes(PG_GETARG_BYTEA_PP(1), &config))
		concord_quorum_malformed();
	PG_RETURN_BOOL(concord_configuration_store(&config));
}

/* From concord._create_cluster(): the first set, of version 1. */
Datum
concord_found_configuration(PG_FUNCTION_ARGS)
{
	ConcordAcceptorId id;
	ConcordConfig config;

	(void) fcinfo;
	concord_require_writable("concord._found_configuration()");
	concord_require_superuser("concord._found_configuration()");
	id = concord_acceptor_identity(true);
	if (!concord_config_first(&config, 1, &id, 1))
		elog(ERROR, "could not make the first set of acceptors");
	(void) concord_configuration_store(&config);
	PG_RETURN_VOID();
}

Datum
concord_acceptors_here(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ConcordConfig config;

	AcceptInvalidationMessages();
	InitMaterializedSRF(fcinfo, 0);
	if (concord_map()->membership != CONCORD_MEMBER || !concord_configuration_read(&config))
		PG_RETURN_VOID();
	for (int i = 0; i < config.n; i++)
	{
		bool		in_old = (config.old_set & (UINT32_C(1) << i)) != 0;
		bool		in_new = (config.new_set & (UINT32_C(1) << i)) != 0;
		Datum		values[5];
		bool		nulls[5] = {false};

		values[0] = Int32GetDatum(config.acceptor[i].node);
		values[1] = Int32GetDatum(config.acceptor[i].generation);
		values[2] = BoolGetDatum(!in_old);
		values[3] = BoolGetDatum(config.new_set != 0 && !in_new);
		values[4] = Int64GetDatum((int64) config.version);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	PG_RETURN_VOID();
}

Datum
concord_acceptors_suffice(PG_FUNCTION_ARGS)
{
	const char *removed = NameStr(*PG_GETARG_NAME(0));
	const ConcordMap *map;
	ConcordConfig config;
	uint32		left = 0;
	bool		matters = false;

	concord_require_preload();
	map = concord_map_member();
	if (!concord_configuration_read(&config))
		PG_RETURN_BOOL(true);
	for (int i = 0; i < config.n; i++)
		for (int k = 0; k < map->nnodes; k++)
		{
			if (map->nodes[k].node_id != config.acceptor[i].node)
				continue;
			if (strcmp(NameStr(map->nodes[k].name), removed) != 0)
				left |= UINT32_C(1) << i;
			else if (map->nodes[k].node_id != map->authority)	/* it is refused anyway */
				matters = true;
		}
	PG_RETURN_BOOL(!matters || concord_config_quorum(&config, left));
}
