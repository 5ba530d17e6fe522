/*
 * acceptor.c
 *		This node as an acceptor of registers: loads what is stored, takes core's steps, stores.
 *
 * PROMISE: R3 of core/register.h, an answer is believed only after every state that it tells or
 * follows from was flushed.  The asker takes an answer for complete when the transaction that made
 * it has ended (ReadyForQuery), and that transaction flushes its commit record whatever
 * synchronous_commit says.  What it read was committed, so flushed, before: a commit becomes
 * visible after its flush.
 *
 * INVARIANTS
 * A1 A step that may store holds its register's lock, and the acceptor's own in shared mode, to
 *	  the end of its transaction; one that changes the acceptor itself (a newer configuration, a
 *	  floor, an identity, the list of names) holds that one exclusively.  Both are PostgreSQL's
 *	  own heavyweight locks, released after the commit is visible.
 * A2 Locks are taken in one order: the acceptor's, then registers by name.  So two batches do not
 *	  wait for each other in a circle.
 * A3 An identity is bound to cluster, node id, generation, timeline and base backup.  If one of
 *	  these is another now, the storage may have gone back: it is another acceptor, and knows
 *	  nothing (R10).  Not seen: files of a stopped server put back on the same timeline.
 * A4 No standby is waited for: it would be another acceptor after its promotion.
 * A5 What is read is read with a snapshot taken under the lock, whatever the isolation level.
 *
 * LOCK TAGS (base/locktags.h): key 0 is the acceptor's, the hash of a name a register's.  Names of
 * one hash share a lock, which costs time only; within a batch they are taken once.
 *
 * What a crash leaves: the transaction, or nothing of it.  An asker that has lost the answer asks
 * again; every request can be repeated.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "base/fault.h"
#include "base/locktags.h"
#include "base/settings.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "cluster/room.h"
#include "common/hashfn.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "quorum/quorum.h"
#include "storage/fd.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define PROTOCOL 1				/* of the bytes that _registers() takes */

/* columns */
#define ACCEPTOR_CLUSTER 1
#define ACCEPTOR_NODE 2
#define ACCEPTOR_GENERATION 3
#define ACCEPTOR_LINEAGE 4
#define ACCEPTOR_TIMELINE 5
#define ACCEPTOR_BACKUP 6
#define ACCEPTOR_CONFIG 7
#define ACCEPTOR_BALLOT_FLOOR 8
#define ACCEPTOR_VERSION_FLOOR 9
#define ACCEPTOR_COLUMNS 9
#define REGISTER_NAME 1
#define REGISTER_STATE 2
#define REGISTER_VALUE 3
#define REGISTER_COLUMNS 3

/* One request of a batch */
typedef struct BatchItem
{
	const char *name;			/* not terminated; NULL: it concerns the acceptor */
	size_t		name_len;
	ConcordRequest request;
	ConcordAnswer answer;
	List	   *names;			/* of ENLIST: all registers, text * */
} BatchItem;

/* A stored register as it was loaded */
typedef struct Loaded
{
	ConcordRegister reg;
	bool		exists;
	ItemPointerData tid;
} Loaded;

PG_FUNCTION_INFO_V1(concord_registers);
PG_FUNCTION_INFO_V1(concord_acceptor_here);

void
concord_quorum_malformed(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("malformed message between acceptors of registers"),
			 errhint("All nodes must run versions of pg_concord that can talk to each other.")));
}

/* ---------------------------------------------------------------- locks */

static void
lock_tag(uint64 key, LOCKMODE mode)
{
	LOCKTAG		tag;

	concord_locktag(&tag, CONCORD_LOCKTAG_REGISTER, key);
	(void) LockAcquire(&tag, mode, false, false);
}

static uint64
name_key(const char *name, size_t len)
{
	uint64		key = hash_bytes_extended((const unsigned char *) name, (int) len, 0);

	return key != 0 ? key : 1;	/* 0 is the acceptor's */
}

/* ---------------------------------------------------------------- storage */

static Relation
open_table(const char *name, LOCKMODE mode)
{
	return table_open(get_relname_relid(name, get_namespace_oid("concord", false)), mode);
}

/*
 * What the server was last restored from; its recovery leaves the label under this name, and it
 * does not change while the server runs.
 */
static const char *
backup_label(void)
{
	static char *label = NULL;

	if (label == NULL)
	{
		FILE	   *file = AllocateFile("backup_label.old", PG_BINARY_R);
		unsigned char text[8192];
		size_t		len = 0;

		if (file == NULL && errno != ENOENT)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not open file \"%s\": %m", "backup_label.old")));
		if (file != NULL)
		{
			len = fread(text, 1, sizeof(text), file);
			if (ferror(file))
				ereport(ERROR,
						(errcode_for_file_access(),
						 errmsg("could not read file \"%s\": %m", "backup_label.old")));
			FreeFile(file);
		}
		label = MemoryContextStrdup(TopMemoryContext, len == 0 ? "" :
									psprintf(UINT64_FORMAT,
											 hash_bytes_extended(text, (int) len, 0)));
	}
	return label;
}

static void
read_ballot(Datum datum, ConcordBallot *ballot)
{
	bytea	   *bytes = DatumGetByteaPP(datum);
	ConcordReader r = {(unsigned char *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), 0, false};

	concord_get_ballot(&r, ballot);
	if (!concord_get_end(&r))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("table \"concord.acceptor\" is damaged")));
}

/* A3.  False if there is none, or it is of other storage. */
static bool
read_acceptor(Relation rel, const ConcordMap *map, ConcordAcceptor *acceptor, HeapTuple *tuple)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());	/* A5 */
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	HeapTuple	found = systable_getnext(scan);
	bool		ours;
	bool		same = false;

	*tuple = NULL;
	memset(acceptor, 0, sizeof(*acceptor));
	if (HeapTupleIsValid(found))
	{
		Datum		values[ACCEPTOR_COLUMNS];
		bool		nulls[ACCEPTOR_COLUMNS];

		*tuple = heap_copytuple(found);
		heap_deform_tuple(*tuple, RelationGetDescr(rel), values, nulls);
		acceptor->id.node = DatumGetInt32(values[ACCEPTOR_NODE - 1]);
		acceptor->id.generation = DatumGetInt32(values[ACCEPTOR_GENERATION - 1]);
		acceptor->id.lineage = (uint64) DatumGetInt64(values[ACCEPTOR_LINEAGE - 1]);
		ours = memcmp(DatumGetUUIDP(values[ACCEPTOR_CLUSTER - 1]), &map->cluster_id,
					  UUID_LEN) == 0;
		same = ours && acceptor->id.node == map->self &&
			acceptor->id.generation == map->self_generation &&
			DatumGetInt32(values[ACCEPTOR_TIMELINE - 1]) == (int32) GetWALInsertionTimeLine() &&
			strcmp(TextDatumGetCString(values[ACCEPTOR_BACKUP - 1]), backup_label()) == 0;
		acceptor->config = (uint64) DatumGetInt64(values[ACCEPTOR_CONFIG - 1]);
		read_ballot(values[ACCEPTOR_BALLOT_FLOOR - 1], &acceptor->ballot_floor);
		acceptor->version_floor = DatumGetInt64(values[ACCEPTOR_VERSION_FLOOR - 1]);
		if (!ours)				/* configurations of another cluster */
			memset(acceptor, 0, sizeof(*acceptor));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	return same;
}

static void
write_acceptor(Relation rel, const ConcordMap *map, const ConcordAcceptor *acceptor,
			   HeapTuple old)
{
	Datum		values[ACCEPTOR_COLUMNS];
	bool		nulls[ACCEPTOR_COLUMNS] = {false};
	bytea	   *floor = palloc(VARHDRSZ + CONCORD_BALLOT_SIZE);
	ConcordWriter w = {(unsigned char *) VARDATA(floor), CONCORD_BALLOT_SIZE, 0, false};
	HeapTuple	tuple;

	concord_put_ballot(&w, &acceptor->ballot_floor);
	SET_VARSIZE(floor, VARHDRSZ + w.len);
	values[ACCEPTOR_CLUSTER - 1] = UUIDPGetDatum(&map->cluster_id);
	values[ACCEPTOR_NODE - 1] = Int32GetDatum(acceptor->id.node);
	values[ACCEPTOR_GENERATION - 1] = Int32GetDatum(acceptor->id.generation);
	values[ACCEPTOR_LINEAGE - 1] = Int64GetDatum((int64) acceptor->id.lineage);
	values[ACCEPTOR_TIMELINE - 1] = Int32GetDatum((int32) GetWALInsertionTimeLine());
	values[ACCEPTOR_BACKUP - 1] = CStringGetTextDatum(backup_label());
	values[ACCEPTOR_CONFIG - 1] = Int64GetDatum((int64) acceptor->config);
	values[ACCEPTOR_BALLOT_FLOOR - 1] = PointerGetDatum(floor);
	values[ACCEPTOR_VERSION_FLOOR - 1] = Int64GetDatum(acceptor->version_floor);
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	if (old == NULL)
		CatalogTupleInsert(rel, tuple);
	else
		CatalogTupleUpdate(rel, &old->t_self, tuple);
	CommandCounterIncrement();
}

static void
delete_registers(void)
{
	Relation	rel = open_table("register", RowExclusiveLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		CHECK_FOR_INTERRUPTS();
		CatalogTupleDelete(rel, &tuple->t_self);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, RowExclusiveLock);
	CommandCounterIncrement();
}

/*
 * Deletes the registers that decided configurations (configuration.c, G1) of versions below one
 * that this acceptor has seen: it refuses whatever is asked of them (R8).
 */
static void
delete_decisions(Relation rel, uint64 version)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Datum		bounds[2] = {CStringGetTextDatum(CONCORD_PREFIX_CONFIGURATION),
	CStringGetTextDatum("c;")};	/* the next one after the prefix */
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyEntryInitialize(&keys[0], 0, REGISTER_NAME, BTGreaterEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXT_GE, bounds[0]);
	ScanKeyEntryInitialize(&keys[1], 0, REGISTER_NAME, BTLessStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXT_LT, bounds[1]);
	scan = systable_beginscan(rel,
							  get_relname_relid("register_pkey", RelationGetNamespace(rel)),
							  true, snapshot, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		char	   *name = TextDatumGetCString(heap_getattr(tuple, REGISTER_NAME,
															RelationGetDescr(rel), &isnull));

		if (strtoull(name + strlen(CONCORD_PREFIX_CONFIGURATION), NULL, 10) < version)
			CatalogTupleDelete(rel, &tuple->t_self);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	CommandCounterIncrement();
}

/* R10; the acceptor's lock is held exclusively. */
static void
renew(Relation rel, const ConcordMap *map, ConcordAcceptor *acceptor, HeapTuple old)
{
	ConcordAcceptorId id = {.node = map->self,.generation = map->self_generation};

	if (!pg_strong_random(&id.lineage, sizeof(id.lineage)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random identity")));
	concord_acceptor_renew(acceptor, &id);
	delete_registers();
	write_acceptor(rel, map, acceptor, old);
}

/* The acceptor as it is under a lock of this mode; exclusive if it had to be made first. */
static HeapTuple
load_acceptor(Relation rel, const ConcordMap *map, ConcordAcceptor *acceptor, LOCKMODE mode)
{
	HeapTuple	tuple;

	lock_tag(0, mode);
	if (read_acceptor(rel, map, acceptor, &tuple))
		return tuple;
	if (mode != ExclusiveLock)
		return NULL;			/* the caller comes back with more */
	renew(rel, map, acceptor, tuple);
	if (!read_acceptor(rel, map, acceptor, &tuple))
		elog(ERROR, "could not find the acceptor that was just made");
	return tuple;
}

static SysScanDesc
find_register(Relation rel, const char *name, size_t len, Snapshot snapshot)
{
	ScanKeyData key;
	Datum		datum = PointerGetDatum(cstring_to_text_with_len(name, (int) len));

	ScanKeyEntryInitialize(&key, 0, REGISTER_NAME, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, datum);
	return systable_beginscan(rel,
							  get_relname_relid("register_pkey", RelationGetNamespace(rel)),
							  true, snapshot, 1, &key);
}

static void
load_register(Relation rel, const char *name, size_t len, Loaded *loaded)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());	/* A5 */
	SysScanDesc scan = find_register(rel, name, len, snapshot);
	HeapTuple	tuple = systable_getnext(scan);

	memset(loaded, 0, sizeof(*loaded));
	if (HeapTupleIsValid(tuple))
	{
		Datum		values[REGISTER_COLUMNS];
		bool		nulls[REGISTER_COLUMNS];
		bytea	   *state;
		ConcordReader r;

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		state = DatumGetByteaPP(values[REGISTER_STATE - 1]);
		r = (ConcordReader) {(unsigned char *) VARDATA_ANY(state), VARSIZE_ANY_EXHDR(state), 0,
			false};
		concord_get_register(&r, &loaded->reg);
		if (!nulls[REGISTER_VALUE - 1])
		{
			bytea	   *value = DatumGetByteaPCopy(values[REGISTER_VALUE - 1]);

			loaded->reg.value.data = VARDATA(value);
			if (loaded->reg.value.len != VARSIZE(value) - VARHDRSZ)
				r.failed = true;
		}
		else if (loaded->reg.value.len > 0)
			r.failed = true;
		if (!concord_get_end(&r))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("a row of table \"concord.register\" is damaged")));
		loaded->exists = true;
		loaded->tid = tuple->t_self;
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
}

static void
store_register(Relation rel, const char *name, size_t len, const Loaded *loaded)
{
	Datum		values[REGISTER_COLUMNS];
	bool		nulls[REGISTER_COLUMNS] = {false};
	bytea	   *state = palloc(VARHDRSZ + CONCORD_REGISTER_SIZE);
	ConcordWriter w = {(unsigned char *) VARDATA(state), CONCORD_REGISTER_SIZE, 0, false};
	const ConcordValue *value = &loaded->reg.value;
	HeapTuple	tuple;
	ItemPointerData tid = loaded->tid;

	concord_put_register(&w, &loaded->reg);
	Assert(!w.full);
	SET_VARSIZE(state, VARHDRSZ + w.len);
	values[REGISTER_NAME - 1] = PointerGetDatum(cstring_to_text_with_len(name, (int) len));
	values[REGISTER_STATE - 1] = PointerGetDatum(state);
	nulls[REGISTER_VALUE - 1] = value->len == 0;
	values[REGISTER_VALUE - 1] = (Datum) 0;
	if (value->len > 0)
	{
		bytea	   *bytes = palloc(VARHDRSZ + value->len);

		memcpy(VARDATA(bytes), value->data, value->len);
		SET_VARSIZE(bytes, VARHDRSZ + value->len);
		values[REGISTER_VALUE - 1] = PointerGetDatum(bytes);
	}
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	if (loaded->exists)
		CatalogTupleUpdate(rel, &tid, tuple);
	else
		CatalogTupleInsert(rel, tuple);
	CommandCounterIncrement();
}

/* ---------------------------------------------------------------- a batch */

static bool
of_acceptor(const ConcordRequest *request)
{
	return request->kind == CONCORD_REQUEST_ENLIST || request->kind == CONCORD_REQUEST_RAISE;
}

/* May this request change the acceptor itself, or must it see all names? */
static bool
needs_exclusive(const ConcordAcceptor *acceptor, const ConcordRequest *request)
{
	return of_acceptor(request) || request->kind == CONCORD_REQUEST_ERASE ||
		request->config > acceptor->config;
}

static BatchItem *
read_batch(bytea *bytes, int *n)
{
	ConcordReader r = {(unsigned char *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), 0, false};
	BatchItem	   *items;

	if (concord_get(&r, 1) != PROTOCOL)
		concord_quorum_malformed();
	*n = (int) concord_get(&r, 2);
	items = palloc0(Max(*n, 1) * sizeof(BatchItem));
	for (int i = 0; i < *n; i++)
	{
		concord_get_request(&r, &items[i].request);
		if (!r.failed && !of_acceptor(&items[i].request))
			items[i].name = concord_get_name(&r, &items[i].name_len);
		if (r.failed)
			concord_quorum_malformed();
	}
	if (!concord_get_end(&r))
		concord_quorum_malformed();
	return items;
}

static int
compare_keys(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return x < y ? -1 : x > y;
}

/* A1, A2.  LOOK reads one committed state, which needs no lock. */
static void
lock_registers(const BatchItem *items, int n)
{
	uint64	   *keys = palloc(Max(n, 1) * sizeof(uint64));
	int			nkeys = 0;

	for (int i = 0; i < n; i++)
		if (items[i].name != NULL && items[i].request.kind != CONCORD_REQUEST_LOOK)
			keys[nkeys++] = name_key(items[i].name, items[i].name_len);
	qsort(keys, nkeys, sizeof(uint64), compare_keys);
	for (int i = 0; i < nkeys; i++)
		if (i == 0 || keys[i] != keys[i - 1])
			lock_tag(keys[i], ExclusiveLock);
	pfree(keys);
}

static List *
list_names(void)
{
	Relation	rel = open_table("register", AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	List	   *names = NIL;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		names = lappend(names, DatumGetTextPCopy(heap_getattr(tuple, REGISTER_NAME,
															  RelationGetDescr(rel), &isnull)));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return names;
}

/* Returns whether the acceptor itself was changed. */
static bool
take_step(Relation registers, ConcordAcceptor *acceptor, BatchItem *item)
{
	Loaded		loaded;
	unsigned int effects;

	if (item->name == NULL)
	{
		effects = concord_acceptor_step(acceptor, NULL, &item->request, &item->answer);
		if (item->answer.kind == CONCORD_ANSWER_ENLISTED)
			item->names = list_names();
		return (effects & CONCORD_STORE_ACCEPTOR) != 0;
	}
	load_register(registers, item->name, item->name_len, &loaded);
	effects = concord_acceptor_step(acceptor, &loaded.reg, &item->request, &item->answer);
	if (effects & CONCORD_STORE_REGISTER)
		store_register(registers, item->name, item->name_len, &loaded);
	if ((effects & CONCORD_DELETE_REGISTER) && loaded.exists)
	{
		CatalogTupleDelete(registers, &loaded.tid);
		CommandCounterIncrement();
	}
	return (effects & CONCORD_STORE_ACCEPTOR) != 0;
}

static bytea *
write_answers(const BatchItem *items, int n)
{
	size_t		size = 16 + CONCORD_CONFIG_SIZE;
	bytea	   *bytes;
	ConcordWriter w;
	ConcordConfig config;
	bool		stale = false;
	ListCell   *lc;

	for (int i = 0; i < n; i++)
	{
		size += CONCORD_ANSWER_SIZE + items[i].answer.value.len + 4;
		foreach(lc, items[i].names)
			size += 2 + VARSIZE_ANY_EXHDR((text *) lfirst(lc));
		stale = stale || items[i].answer.kind == CONCORD_ANSWER_STALE;
	}
	bytes = palloc_extended(VARHDRSZ + size, MCXT_ALLOC_HUGE);
	w = (ConcordWriter) {(unsigned char *) VARDATA(bytes), size, 0, false};
	concord_put(&w, PROTOCOL, 1);
	concord_put(&w, (uint64) n, 2);
	for (int i = 0; i < n; i++)
	{
		concord_put_answer(&w, &items[i].answer);
		if (items[i].answer.kind != CONCORD_ANSWER_ENLISTED)
			continue;
		concord_put(&w, (uint64) list_length(items[i].names), 4);
		foreach(lc, items[i].names)
			concord_put_name(&w, VARDATA_ANY((text *) lfirst(lc)),
							 VARSIZE_ANY_EXHDR((text *) lfirst(lc)));
	}
	/* whoever has an old set is given the newest that is known here */
	if (stale && concord_configuration_read(&config))
	{
		concord_put(&w, 1, 1);
		concord_put_config(&w, &config);
	}
	else
		concord_put(&w, 0, 1);
	Assert(!w.full);
	if (w.len > MaxAllocSize - VARHDRSZ)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("there are too many registers to list")));
	SET_VARSIZE(bytes, VARHDRSZ + w.len);
	return bytes;
}

/*
 * Whoever asked has gone when this takes long, see contacts.c: what is asked shall not pile up
 * behind a lock on the tables.
 */
static void
bound_waiting(void)
{
	int			limit = Max(concord_down_after_ms, 1000);

	if (LockTimeout == 0 || LockTimeout > limit)
		(void) set_config_option("lock_timeout", psprintf("%d", limit), PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, ERROR, false);
}

/* A4, and R3: the commit is flushed here, nowhere else, and whatever the role's settings are */
void
concord_quorum_flush(void)
{
	if (synchronous_commit > SYNCHRONOUS_COMMIT_LOCAL_FLUSH)
		(void) set_config_option("synchronous_commit", "local", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, ERROR, false);
	ForceSyncCommit();
}

#ifdef CONCORD_FAULTS
static bool answering = false;

static void
after_flush(XactEvent event, void *arg)
{
	(void) arg;
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	if (event == XACT_EVENT_COMMIT && answering)
		concord_fault("acceptor_after_flush");
	answering = false;
}

static void
watch_flush(void)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(after_flush, NULL);
	registered = answering = true;
}
#endif

/* What the acceptor's lock must be held in for a batch (A1). */
static LOCKMODE
mode_for(const ConcordAcceptor *acceptor, const BatchItem *items, int n)
{
	for (int i = 0; i < n; i++)
		if (needs_exclusive(acceptor, &items[i].request))
			return ExclusiveLock;
	return ShareLock;
}

Datum
concord_registers(PG_FUNCTION_ARGS)
{
	bytea	   *bytes = PG_GETARG_BYTEA_PP(0);
	const ConcordMap *map;
	Relation	rel;
	Relation	registers;
	ConcordAcceptor acceptor;
	HeapTuple	tuple;
	BatchItem	   *items;
	int			n;
	LOCKMODE	mode = ShareLock;
	uint64		config;
	bool		changed = false;
	static uint64 known_config = 0; /* when this process looked last; 0: it has to look */

	concord_require_writable("concord._registers()");
	concord_require_node_role();
	map = concord_map_member();
	items = read_batch(bytes, &n);
	bound_waiting();

	/* what needs more is found before the lock: what is known becomes older only when renewed */
	rel = open_table("acceptor", RowExclusiveLock);
	acceptor.config = known_config;
	known_config = 0;
	if (acceptor.config == 0 && !read_acceptor(rel, map, &acceptor, &tuple))
		mode = ExclusiveLock;
	if (mode == ShareLock)
		mode = mode_for(&acceptor, items, n);
	tuple = load_acceptor(rel, map, &acceptor, mode);
	if (tuple == NULL || (mode == ShareLock && mode_for(&acceptor, items, n) != mode))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the acceptor has just been renewed")));
	lock_registers(items, n);
	registers = open_table("register", RowExclusiveLock);
	concord_quorum_flush();

	config = acceptor.config;
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (take_step(registers, &acceptor, &items[i]))
			changed = true;
	}
	Assert(!changed || mode == ExclusiveLock);
	if (changed)
		write_acceptor(rel, map, &acceptor, tuple);
	if (acceptor.config > config)
		delete_decisions(registers, acceptor.config);
	concord_fault("acceptor_before_answer");
#ifdef CONCORD_FAULTS
	watch_flush();
#endif
	bytes = write_answers(items, n);
	table_close(registers, NoLock);
	table_close(rel, NoLock);
	if (!changed)
		known_config = acceptor.config; /* committed, as it was read under the lock */
	PG_RETURN_BYTEA_P(bytes);
}

/* ---------------------------------------------------------------- what is left over */

/* What is stored of a register, from a row; false if there is a value, which is most often. */
static bool
is_leftover(HeapTuple tuple, TupleDesc desc, ConcordRegister *reg)
{
	bool		isnull;
	bytea	   *state;
	ConcordReader r;

	(void) heap_getattr(tuple, REGISTER_VALUE, desc, &isnull);
	if (!isnull)
		return false;
	state = DatumGetByteaPP(heap_getattr(tuple, REGISTER_STATE, desc, &isnull));
	r = (ConcordReader) {(unsigned char *) VARDATA_ANY(state), VARSIZE_ANY_EXHDR(state), 0, false};
	concord_get_register(&r, reg);
	return concord_get_end(&r) && reg->value.kind != CONCORD_VALUE_SET;
}

void
concord_acceptor_leftovers(int max, List **tombstones, List **blanks)
{
	Relation	rel = open_table("register", AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	HeapTuple	tuple;

	*tombstones = *blanks = NIL;
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		ConcordRegister reg;
		bool		isnull;
		List	  **list;

		CHECK_FOR_INTERRUPTS();
		if (!is_leftover(tuple, RelationGetDescr(rel), &reg))
			continue;
		list = reg.accepted.counter > 0 ? tombstones : blanks;
		if (list_length(*list) < max)
			*list = lappend(*list, TextDatumGetCString(heap_getattr(tuple, REGISTER_NAME,
																	RelationGetDescr(rel),
																	&isnull)));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

void
concord_acceptor_forget_blanks(List *names)
{
	const ConcordMap *map = concord_map_member();
	Relation	rel = open_table("acceptor", RowExclusiveLock);
	Relation	registers = open_table("register", RowExclusiveLock);
	ConcordAcceptor acceptor;
	HeapTuple	tuple;
	bool		changed = false;
	ListCell   *lc;

	concord_quorum_flush();
	/* A1: whoever steps holds this one in shared mode, so the registers' own are not needed */
	tuple = load_acceptor(rel, map, &acceptor, ExclusiveLock);
	foreach(lc, names)
	{
		const char *name = lfirst(lc);
		Loaded		loaded;

		load_register(registers, name, strlen(name), &loaded);
		if (!loaded.exists || concord_acceptor_forget(&acceptor, &loaded.reg) == 0)
			continue;
		CatalogTupleDelete(registers, &loaded.tid);
		CommandCounterIncrement();
		changed = true;
	}
	if (changed)
		write_acceptor(rel, map, &acceptor, tuple);
	table_close(registers, NoLock);
	table_close(rel, NoLock);
}

/* ---------------------------------------------------------------- identity */

static bool
is_acceptor(const ConcordConfig *config, const ConcordAcceptorId *id)
{
	for (int i = 0; i < config->n; i++)
		if (concord_acceptor_same(&config->acceptor[i], id))
			return true;
	return false;
}

/*
 * B3 of membership.c: refuses to throw away what an acceptor has promised, or one that was
 * addressed under a set that this node has not heard of, so that it may be one.
 */
static void
check_renewal(const ConcordAcceptor *acceptor)
{
	ConcordConfig config;

	if (concord_configuration_read(&config) && is_acceptor(&config, &acceptor->id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("this node is one of the acceptors")));
	if (acceptor->config > config.version)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("this node has not heard of the newest set of acceptors")));
}

ConcordAcceptorId
concord_acceptor_identity(bool anew)
{
	const ConcordMap *map = concord_map_member();
	Relation	rel = open_table("acceptor", RowExclusiveLock);
	ConcordAcceptor acceptor;
	HeapTuple	tuple;

	/* the one that is there is read without a lock: nobody waits because of a question */
	if (anew || !read_acceptor(rel, map, &acceptor, &tuple))
	{
		concord_quorum_flush();
		tuple = load_acceptor(rel, map, &acceptor, ExclusiveLock);
		if (anew)
		{
			check_renewal(&acceptor);
			renew(rel, map, &acceptor, tuple);
		}
	}
	table_close(rel, NoLock);
	return acceptor.id;
}

Datum
concord_acceptor_here(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *cluster = PG_GETARG_UUID_P(0);
	ConcordAcceptorId id;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false};

	concord_require_writable("concord._acceptor()");
	concord_require_node_role();
	if (memcmp(&concord_map_member()->cluster_id, cluster, UUID_LEN) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is a member of another cluster")));
	id = concord_acceptor_identity(PG_GETARG_BOOL(1));
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int32GetDatum(id.generation);
	values[1] = Int64GetDatum((int64) id.lineage);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
