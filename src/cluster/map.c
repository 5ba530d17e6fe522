/*
 * map.c
 *		This backend's copy of the cluster's map, and how it learns of changes.
 *
 * WHAT: concord_map() answers from memory.  The tables local_node, map_state, map_node,
 * map_replica and followed are read again after anybody changed them.
 *
 * PROMISE: a map returned is one that was committed as a whole (or is this transaction's own
 * uncommitted one): all tables are read with one snapshot.  It is at least as new as the newest
 * change whose invalidation this backend has accepted.
 *
 * INVARIANTS
 * M1 Whoever changes one of the tables calls concord._map_changed() in the same transaction,
 *    after the change: it invalidates map_state's relcache entry, which every backend's callback
 *    (and a standby's) hears of when the change commits, and this backend at once.
 * M2 current is replaced only inside concord_map() and concord_map_refresh(), so a pointer lives
 *    until the next call.
 * M3 The shared entry's map_epoch is told after the commit, never before, and after the
 *    invalidations were sent and the locks released, so that the worker, woken by it, finds
 *    everything new (servers and user mappings, too).  It is a hint: waiters read the tables.
 *
 * LOCKS: AccessShare on the tables while reading; ConcordShared->lock alone at commit.
 *
 * MEMORY: one context under TopMemoryContext per copy; an error while reading leaves the old copy,
 * marked invalid.
 *
 * A crash loses the copy and the hint, nothing else.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "base/shmem.h"
#include "catalog/namespace.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "cluster/follow.h"
#include "cluster/room.h"
#include "commands/extension.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "peer/peer.h"
#include "storage/condition_variable.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

/* Columns of the tables, as cluster.sql declares them. */
enum
{
	LOCAL_SINGLETON, LOCAL_CLUSTER, LOCAL_NODE_ID, LOCAL_NODE, LOCAL_GENERATION,
	LOCAL_SYSTEM, LOCAL_DATABASE, LOCAL_STATE, LOCAL_NONCE, LOCAL_COLUMNS
};
enum
{
	STATE_SINGLETON, STATE_EPOCH, STATE_LOST_EPOCH, STATE_AUTHORITY, STATE_NEXT_ID,
	STATE_NEXT_REPLICA, STATE_SLOTS, STATE_COLUMNS
};
enum
{
	NODE_ID, NODE_NAME, NODE_OPTIONS, NODE_ZONE, NODE_WEIGHT, NODE_GENERATION, NODE_SYSTEM,
	NODE_DATABASE, NODE_NONCE, NODE_MAPPING_ROLE, NODE_MAPPING_USER, NODE_COLUMNS
};
enum
{
	REPLICA_ID, REPLICA_NAME, REPLICA_NODE, REPLICA_OPTIONS, REPLICA_KIND, REPLICA_COLUMNS
};
enum
{
	FOLLOWED_SINGLETON, FOLLOWED_CLUSTER, FOLLOWED_NODE_ID, FOLLOWED_NODE, FOLLOWED_GENERATION,
	FOLLOWED_SYSTEM, FOLLOWED_DATABASE, FOLLOWED_SUBSCRIPTION, FOLLOWED_PUBLISHER_SYSTEM,
	FOLLOWED_PUBLISHER_DATABASE, FOLLOWED_TIMELINE, FOLLOWED_HISTORY, FOLLOWED_PARTED,
	FOLLOWED_COLUMNS
};
#define MOST_COLUMNS FOLLOWED_COLUMNS

#define WAIT_SLICE_MS 1000

enum
{
	TABLE_LOCAL, TABLE_STATE, TABLE_NODE, TABLE_REPLICA, TABLE_FOLLOWED, TABLES
};

static const char *const table_names[TABLES] = {
	"local_node", "map_state", "map_node", "map_replica", "followed"
};
static const int table_columns[TABLES] = {
	LOCAL_COLUMNS, STATE_COLUMNS, NODE_COLUMNS, REPLICA_COLUMNS, FOLLOWED_COLUMNS
};

/* How many there is memory for while a map is read. */
typedef struct Room
{
	int			nodes;
	int			replicas;
} Room;

static const ConcordMap no_map = {.membership = CONCORD_NO_MEMBER};

static Oid	table_oids[TABLES];	/* valid while tables_known */
static bool tables_known = false;
static MemoryContext current_context = NULL;
static ConcordMap *current = NULL;
static bool current_valid = false;
static bool invalidated = false;	/* heard while reading */

static bool map_changed = false;	/* by this transaction */
static bool cluster_created = false;	/* likewise */
static bool to_be_told = false;	/* committed a change, M3 */
static int64 committed_epoch = 0;	/* read at PRE_COMMIT for COMMIT */
static bool committed_member = false;

PG_FUNCTION_INFO_V1(concord_map_changed);

static void
map_relcache_callback(Datum arg, Oid relid)
{
	(void) arg;
	if (!tables_known)
	{
		invalidated = true;
		return;
	}
	if (relid == InvalidOid)
		tables_known = false;
	for (int i = 0; i < TABLES && tables_known; i++)
		if (table_oids[i] == relid)
			tables_known = false;
	if (!tables_known)
	{
		current_valid = false;
		invalidated = true;
	}
}

/*
 * Finds the extension's tables.  They must belong to it: on a database without it, somebody's own
 * schema "concord" may hold tables of any shape.
 */
static bool
find_tables(void)
{
	Oid			schema = get_namespace_oid("concord", true);
	Oid			extension;

	if (!OidIsValid(schema))
		return false;
	extension = get_extension_oid("pg_concord", true);
	if (!OidIsValid(extension))
		return false;
	for (int i = 0; i < TABLES; i++)
	{
		table_oids[i] = get_relname_relid(table_names[i], schema);
		if (!OidIsValid(table_oids[i]) ||
			getExtensionOfObject(RelationRelationId, table_oids[i]) != extension)
			return false;
	}
	return true;
}

static const char *
node_name_of(Datum value)
{
	return NameStr(*DatumGetName(value));
}

/* I1 of identity.c */
static bool
is_here(Datum system, Datum database)
{
	return (uint64) DatumGetInt64(system) == GetSystemIdentifier() &&
		DatumGetObjectId(database) == MyDatabaseId;
}

static void
read_local(ConcordMap *map, const Datum *values)
{
	char	   *state = TextDatumGetCString(values[LOCAL_STATE]);
	bool		here = is_here(values[LOCAL_SYSTEM], values[LOCAL_DATABASE]);

	map->cluster_id = *DatumGetUUIDP(values[LOCAL_CLUSTER]);
	map->self = DatumGetInt32(values[LOCAL_NODE_ID]);
	map->self_generation = DatumGetInt32(values[LOCAL_GENERATION]);
	namestrcpy(&map->self_name, node_name_of(values[LOCAL_NODE]));
	if (strcmp(state, "removed") == 0)
		map->membership = CONCORD_REMOVED;
	else if (!here)
		map->membership = CONCORD_DETACHED;
	else if (strcmp(state, "joining") == 0)
		map->membership = CONCORD_JOINING;
	else
		map->membership = CONCORD_MEMBER;
}

static void
read_state(ConcordMap *map, const Datum *values)
{
	bytea	   *slots = DatumGetByteaPP(values[STATE_SLOTS]);
	const uint8 *bytes = (const uint8 *) VARDATA_ANY(slots);

	if (VARSIZE_ANY_EXHDR(slots) != CONCORD_SLOTS * 2)
		elog(ERROR, "map has %d bytes of slots", (int) VARSIZE_ANY_EXHDR(slots));
	map->epoch = DatumGetInt64(values[STATE_EPOCH]);
	map->lost_epoch = DatumGetInt64(values[STATE_LOST_EPOCH]);
	map->authority = DatumGetInt32(values[STATE_AUTHORITY]);
	for (int slot = 0; slot < CONCORD_SLOTS; slot++)
		map->owner[slot] = (int16) ((bytes[2 * slot] << 8) | bytes[2 * slot + 1]);
	if ((Pointer) slots != DatumGetPointer(values[STATE_SLOTS]))
		pfree(slots);
}

static void
read_node(ConcordMap *map, const Datum *values, Room *room, MemoryContext context)
{
	ConcordNode *node;

	if (map->nnodes == room->nodes)
	{
		room->nodes *= 2;
		map->nodes = repalloc(map->nodes, room->nodes * sizeof(ConcordNode));
	}
	node = &map->nodes[map->nnodes++];
	memset(node, 0, sizeof(*node));
	node->node_id = DatumGetInt32(values[NODE_ID]);
	namestrcpy(&node->name, node_name_of(values[NODE_NAME]));
	node->weight = DatumGetFloat4(values[NODE_WEIGHT]);
	node->generation = DatumGetInt32(values[NODE_GENERATION]);
	node->zone = MemoryContextStrdup(context, TextDatumGetCString(values[NODE_ZONE]));
	node->serverid = get_foreign_server_oid(NameStr(node->name), true);
}

static void
read_replica(ConcordMap *map, const Datum *values, Room *room, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	ConcordReplica *replica;

	if (map->nreplicas == room->replicas)
	{
		room->replicas *= 2;
		map->replicas = repalloc(map->replicas, room->replicas * sizeof(ConcordReplica));
	}
	replica = &map->replicas[map->nreplicas++];
	memset(replica, 0, sizeof(*replica));
	replica->replica_id = DatumGetInt32(values[REPLICA_ID]);
	replica->node_id = DatumGetInt32(values[REPLICA_NODE]);
	namestrcpy(&replica->name, node_name_of(values[REPLICA_NAME]));
	replica->options = concord_array_to_list(values[REPLICA_OPTIONS]);
	replica->logical = strcmp(TextDatumGetCString(values[REPLICA_KIND]), "logical") == 0;
	MemoryContextSwitchTo(old);
}

/* An identity, also a former one, goes before; what was made on another storage is no copy. */
static void
read_followed(ConcordMap *map, const Datum *values, MemoryContext context)
{
	ConcordFollowed *followed = &map->followed;
	Datum	   *history;
	int			n;

	if (map->membership != CONCORD_NO_MEMBER ||
		!is_here(values[FOLLOWED_SYSTEM], values[FOLLOWED_DATABASE]))
		return;
	map->membership = CONCORD_COPY;
	map->cluster_id = *DatumGetUUIDP(values[FOLLOWED_CLUSTER]);
	map->self = DatumGetInt32(values[FOLLOWED_NODE_ID]);
	map->self_generation = DatumGetInt32(values[FOLLOWED_GENERATION]);
	namestrcpy(&map->self_name, node_name_of(values[FOLLOWED_NODE]));
	followed->subscription = DatumGetObjectId(values[FOLLOWED_SUBSCRIPTION]);
	followed->timeline = (uint32) DatumGetInt64(values[FOLLOWED_TIMELINE]);
	followed->parted = DatumGetBool(values[FOLLOWED_PARTED]);
	deconstruct_array(DatumGetArrayTypeP(values[FOLLOWED_HISTORY]), INT8OID, sizeof(int64),
					  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &history, NULL, &n);
	followed->history = MemoryContextAlloc(context, Max(n, 1) * sizeof(ConcordTimeline));
	for (int i = 0; i + 1 < n; i += 2)
	{
		followed->history[followed->nhistory].timeline = (uint32) DatumGetInt64(history[i]);
		followed->history[followed->nhistory++].end = (uint64) DatumGetInt64(history[i + 1]);
	}
}

static void
read_table(Oid relid, int table, Snapshot snapshot, ConcordMap *map, Room *room,
		   MemoryContext context)
{
	Relation	rel = table_open(relid, AccessShareLock);
	SysScanDesc scan;
	HeapTuple	tuple;
	Datum		values[MOST_COLUMNS];
	bool		nulls[MOST_COLUMNS];

	if (RelationGetDescr(rel)->natts != table_columns[table])
		elog(ERROR, "table concord.%s has an unexpected shape", table_names[table]);
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		if (table == TABLE_LOCAL)
			read_local(map, values);
		else if (table == TABLE_STATE)
			read_state(map, values);
		else if (table == TABLE_NODE)
			read_node(map, values, room, context);
		else if (table == TABLE_REPLICA)
			read_replica(map, values, room, context);
		else
			read_followed(map, values, context);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

bool
concord_identity_is_table(Oid relid)
{
	char	   *name = get_rel_name(relid);
	Oid			extension;

	if (name == NULL || strcmp(name, table_names[TABLE_LOCAL]) != 0)
		return false;
	extension = get_extension_oid("pg_concord", true);
	return OidIsValid(extension) &&
		getExtensionOfObject(RelationRelationId, relid) == extension;
}

ConcordMembership
concord_identity_read(Oid relid)
{
	ConcordMap	map = {.membership = CONCORD_NO_MEMBER};
	Snapshot	snapshot = RegisterSnapshot(GetCatalogSnapshot(relid));

	read_table(relid, TABLE_LOCAL, snapshot, &map, NULL, CurrentMemoryContext);
	UnregisterSnapshot(snapshot);
	return map.membership;
}

static int
compare_nodes(const void *a, const void *b)
{
	return ((const ConcordNode *) a)->node_id - ((const ConcordNode *) b)->node_id;
}

static int
compare_replicas(const void *a, const void *b)
{
	const ConcordReplica *one = a;
	const ConcordReplica *other = b;

	return one->node_id != other->node_id ? one->node_id - other->node_id :
		one->replica_id - other->replica_id;
}

/* Reads all tables with one snapshot (PROMISE) into the context. */
static ConcordMap *
read_map(MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	ConcordMap *map = palloc0(sizeof(ConcordMap));
	Room		room = {8, 8};
	Snapshot	snapshot;

	map->nodes = palloc(room.nodes * sizeof(ConcordNode));
	map->replicas = palloc(room.replicas * sizeof(ConcordReplica));
	snapshot = RegisterSnapshot(GetCatalogSnapshot(table_oids[TABLE_LOCAL]));
	for (int table = 0; table < TABLES; table++)
		read_table(table_oids[table], table, snapshot, map, &room, context);
	UnregisterSnapshot(snapshot);

	qsort(map->nodes, map->nnodes, sizeof(ConcordNode), compare_nodes);
	qsort(map->replicas, map->nreplicas, sizeof(ConcordReplica), compare_replicas);
	for (int slot = 0; slot < CONCORD_SLOTS; slot++)
	{
		ConcordNode *node = unconstify(ConcordNode *, concord_map_node(map, map->owner[slot]));

		if (node != NULL)
			node->nslots++;
	}
	MemoryContextSwitchTo(old);
	return map;
}

const ConcordMap *
concord_map_refresh(void)
{
	MemoryContext context;
	ConcordMap *map;

	Assert(IsTransactionState());
	current_valid = false;

	/* born under the transaction, so that an error frees it */
	context = AllocSetContextCreate(CurrentMemoryContext, "pg_concord map",
									ALLOCSET_DEFAULT_SIZES);
	for (int attempt = 0;; attempt++)
	{
		invalidated = false;
		if (!tables_known)
			tables_known = find_tables();
		if (!tables_known)
		{
			MemoryContextDelete(context);
			return &no_map;
		}
		map = read_map(context);
		if (!invalidated || attempt == 3)
			break;
		MemoryContextReset(context);
	}

	MemoryContextSetParent(context, TopMemoryContext);
	if (current_context != NULL)
		MemoryContextDelete(current_context);	/* M2 */
	current_context = context;
	current = map;
	current_valid = !invalidated;
	if (map->membership != CONCORD_NO_MEMBER)
		concord_peer_set_local_name(NameStr(map->self_name));
	return current;
}

const ConcordMap *
concord_map(void)
{
	if (likely(current_valid))
		return current;
	return concord_map_refresh();
}

const ConcordMap *
concord_map_member(void)
{
	const ConcordMap *map;

	concord_require_preload();
	map = concord_map();
	if (likely(map->membership == CONCORD_MEMBER))
		return map;

	switch (map->membership)
	{
		case CONCORD_JOINING:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("this database is still joining its cluster"),
					 errhint("It becomes a member when it has heard from the node that runs concord.add_node; concord.leave_cluster() gives up.")));
			break;
		case CONCORD_REMOVED:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("this node was removed from its cluster"),
					 errhint("Add it again with concord.add_node on a member, or create a cluster with concord.create_cluster.")));
			break;
		case CONCORD_COPY:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("this database is a logical copy of node \"%s\"",
							NameStr(map->self_name)),
					 errdetail("Only session tokens, and reads that the cluster's nodes route to it, work here."),
					 errhint("Use a node of the cluster. concord.remove_replica on one of them, or concord.leave_cluster() here, ends it.")));
			break;
		case CONCORD_DETACHED:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("this database is detached from its cluster"),
					 errdetail("Its identity, node \"%s\", belongs to another storage: this is a copy, a restored or an upgraded database.",
							   NameStr(map->self_name)),
					 errhint("Call concord.adopt_node() if it takes that node's place, or concord.leave_cluster() to erase the identity.")));
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("this database is not a member of a cluster"),
					 errhint("Create one with concord.create_cluster, or add this database with concord.add_node on a member.")));
	}
	return NULL;				/* not reached */
}

const ConcordNode *
concord_map_node(const ConcordMap *map, int node_id)
{
	int			low = 0;
	int			high = map->nnodes - 1;

	while (low <= high)
	{
		int			middle = (low + high) / 2;

		if (map->nodes[middle].node_id == node_id)
			return &map->nodes[middle];
		if (map->nodes[middle].node_id < node_id)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return NULL;
}

const ConcordNode *
concord_map_node_named(const ConcordMap *map, const char *name)
{
	for (int i = 0; i < map->nnodes; i++)
		if (strcmp(NameStr(map->nodes[i].name), name) == 0)
			return &map->nodes[i];
	return NULL;
}

const ConcordNode *
concord_map_node_required(const ConcordMap *map, const char *name)
{
	const ConcordNode *node = concord_map_node_named(map, name);

	if (node == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("node \"%s\" does not exist", name)));
	return node;
}

const ConcordReplica *
concord_map_replica(const ConcordMap *map, int replica_id)
{
	for (int i = 0; i < map->nreplicas; i++)
		if (map->replicas[i].replica_id == replica_id)
			return &map->replicas[i];
	return NULL;
}

const ConcordReplica *
concord_map_replicas_of(const ConcordMap *map, int node_id, int *n)
{
	int			first = 0;

	while (first < map->nreplicas && map->replicas[first].node_id < node_id)
		first++;
	*n = 0;
	while (first + *n < map->nreplicas && map->replicas[first + *n].node_id == node_id)
		(*n)++;
	return *n > 0 ? &map->replicas[first] : NULL;
}

/* Notes in shared memory that a newer map is wanted; returns the database's entry or NULL. */
static ConcordDatabase *
want_epoch(int64 epoch, int from_node)
{
	ConcordDatabase *entry;

	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	entry = concord_shmem_database(MyDatabaseId, true);
	if (entry != NULL && entry->wanted_epoch < epoch)
	{
		entry->wanted_epoch = epoch;
		entry->wanted_from = from_node;
	}
	LWLockRelease(ConcordShared->lock);
	concord_poke_worker(MyDatabaseId);
	return entry;
}

void
concord_map_want(int64 epoch, int from_node)
{
	(void) want_epoch(epoch, from_node);
}

bool
concord_map_await(int64 epoch, int from_node, int timeout_ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
	static uint32 wait_event = 0;
	const ConcordMap *map;
	bool		believed;
	ConcordDatabase *entry;
	bool		arrived;

	if (wait_event == 0)
		wait_event = concord_wait_event("ConcordMap");
	concord_require_preload();
	AcceptInvalidationMessages();
	map = concord_map();
	if (map->epoch >= epoch)
		return true;

	/*
	 * Anybody may have claimed it, in a hello.  The authority, which makes no change while a newer
	 * map is known, does not note it: it hears the same from a heartbeat if it is true.
	 */
	believed = map->membership != CONCORD_MEMBER || !concord_is_authority(map);
	entry = want_epoch(believed ? epoch : 0, from_node);
	if (entry == NULL)
		return false;
	ConditionVariablePrepareToSleep(&entry->map_cv);
	/* M3: whoever is woken reads the tables, whatever invalidations have come */
	while (!(arrived = concord_map_refresh()->epoch >= epoch))
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		if (left <= 0)
			break;
		(void) ConditionVariableTimedSleep(&entry->map_cv, Min(left, WAIT_SLICE_MS),
										   wait_event);
	}
	ConditionVariableCancelSleep();
	return arrived;
}

/* M1: the SQL function every change ends with */
Datum
concord_map_changed(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	if (!tables_known)
		tables_known = find_tables();
	if (tables_known)
		CacheInvalidateRelcacheByRelid(table_oids[TABLE_STATE]);
	current_valid = false;
	map_changed = true;
	PG_RETURN_VOID();
}

void
concord_map_created(void)
{
	cluster_created = true;
}

bool
concord_map_changed_here(void)
{
	return map_changed;
}

static void
before_commit(void)
{
	const ConcordMap *map = concord_map_refresh();

	committed_member = map->membership == CONCORD_MEMBER || map->membership == CONCORD_JOINING;
	committed_epoch = map->epoch;
}

/* M3: errors are not allowed here */
static void
tell_change(void)
{
	ConcordDatabase *entry;

	if (ConcordShared == NULL)
		return;
	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	entry = concord_shmem_database(MyDatabaseId, committed_member);
	if (entry != NULL)
	{
		/* what was wanted of a former cluster has no meaning for the next one */
		if (!committed_member || cluster_created)
			entry->wanted_epoch = entry->map_epoch = 0;
		if (committed_member && entry->map_epoch < committed_epoch)
			entry->map_epoch = committed_epoch;
	}
	LWLockRelease(ConcordShared->lock);
	if (entry != NULL)
		ConditionVariableBroadcast(&entry->map_cv);
	concord_poke_worker(MyDatabaseId);
	concord_poke_launcher();
}

static void
map_xact_callback(XactEvent event, void *arg)
{
	(void) arg;
	if (!map_changed)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			before_commit();
			break;
		case XACT_EVENT_COMMIT:
			map_changed = false;
			current_valid = false;
			to_be_told = true;
			break;
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has changed the cluster's map")));
			break;
		case XACT_EVENT_ABORT:
			map_changed = false;
			cluster_created = false;
			current_valid = false;
			break;
		default:
			break;
	}
}

/* M3: the one hook that comes after the invalidations */
static void
map_release_callback(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg)
{
	(void) is_commit;
	(void) arg;
	if (!to_be_told || phase != RESOURCE_RELEASE_AFTER_LOCKS || !is_top_level)
		return;
	to_be_told = false;
	tell_change();
	cluster_created = false;
}

void
concord_cluster_init(void)
{
	RegisterResourceReleaseCallback(map_release_callback, NULL);
	CacheRegisterRelcacheCallback(map_relcache_callback, (Datum) 0);
	RegisterXactCallback(map_xact_callback, NULL);
	concord_authority_init();
	concord_identity_init();
	concord_follow_init();
}
