/*
 * follow.c
 *		Logical copies: how far a subscription has brought its node's commits to this database.
 *
 * WHAT: a database that add_replica() has made a copy of a node has a row in concord.followed:
 * whose copy, by which subscription, on which timeline of the node it was synchronised.  How far it
 * is is told by the process that applies the subscription, which has this library loaded like all.
 *
 * PROMISE: when concord_followed_standing() tells an LSN, every snapshot taken afterwards shows, in
 * the tables of the subscription, all that was committed and published on the node before it.
 *
 * WHY NOT WHAT POSTGRESQL SHOWS.  The origin's progress (pg_replication_origin_status) moves while
 * the commit record is written, before other snapshots show the transaction: who reads it then
 * believes too early.  And nothing shows which timeline the publisher was on.  So the apply worker
 * itself says here
 *		- the end of a commit of the publisher's, when what it did here has become visible
 *		  (XACT_EVENT_COMMIT), and the origin's progress when it begins;
 *		- the end of WAL told by a keepalive, when it asks for the next message: this moves
 *		  when what was committed concerns no published table (pg_stat_subscription's
 *		  latest_end_lsn);
 *		- to whom it is connected, before it lets the stream begin.
 * The last two are seen by wrapping libpqwalreceiver's table of functions in that process.
 *
 * WHY A KEEPALIVE'S END IS SAFE.  The publisher decodes in the order of WAL and sends a transaction
 * when it comes to its commit record; a keepalive tells how far it has decoded, and comes
 * after all that was sent before.  The apply worker carries messages out one after the other.  A
 * keepalive in the middle of a transaction still tells a place before its commit record.
 *		streaming = on: what is not committed yet waits in a file; applied at its commit.
 *		streaming = parallel (16): the parts of one transaction may be applied at the side, but the
 *			leader waits at its commit until it has ended there; that process tells of it too.
 *		two_phase = on: PREPARE and COMMIT PREPARED are each carried out in their place.
 * Transaction ids are the publisher's and say nothing here: a token's position with one is never
 * reached on a copy, since nobody here knows which branch is meant (waiters.c).
 *
 * INVARIANTS
 * F1 An LSN counts only on the timeline on which the copy was synchronised.  Whatever else the
 *    subscription is connected to (another timeline or server, a standby, another database)
 *    parts the copy from its node, for good: durably in the row, and in shared memory, before
 *    anything of it is applied.  PostgreSQL lets a subscription go on at the LSN it had reached,
 *    which means another place on another timeline: there may be a gap.  So that subscription is
 *    not taken again, also after _unfollow(), unless by hand (leave_cluster()).
 * F2 While a table of the subscription is not synchronised nothing counts, nor when the
 *    subscription is gone.  A disabled one counts as far as it has come.
 * F3 Shared memory is read in this order: progress, then who was met.  It is written in the other.
 * F4 Without an entry no apply worker of this subscription has begun since the server was started:
 *    the origin's progress, as recovered, is then visible.  The first that it does is to tell it.
 * F5 An apply worker is never kept from its work but when it cannot be found out or written down
 *    whom a copy's has met (F1).
 *
 * LOCKS: the tranche "pg_concord follow" protects the array of entries; a leaf.  The table followed
 * (SHARE ROW EXCLUSIVE) is locked by whoever changes the row, before it looks at the entry or after
 * it has written it.
 *
 * WHAT IT DOES NOT SEE: tables that are not in the subscription, row filters and column lists;
 * ALTER SUBSCRIPTION SKIP, origins and slots moved by hand, local writes; what was there before
 * a subscription made with copy_data = false.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/timeline.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "base/settings.h"
#include "catalog/pg_subscription.h"
#include "catalog/pg_subscription_rel.h"
#include "catalog/pg_type.h"
#include "cluster/follow.h"
#include "cluster/room.h"
#include "commands/extension.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "replication/origin.h"
#include "replication/walreceiver.h"
#include "replication/worker_internal.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* A keepalive: 'k', end of WAL, time, whether an answer is wanted. */
#define KEEPALIVE_SIZE (1 + 8 + 8 + 1)

/* A subscription of this server that was applied since its start. */
typedef struct Entry
{
	Oid			subscription;
	RepOriginId origin;
	bool		parted;			/* F1 */
	int			pid;			/* of the apply worker, when it is connected */
	uint64		system;			/* whom it met; timeline 0: nobody yet */
	Oid			database;		/* 0: not on a primary */
	TimeLineID	timeline;
	pg_atomic_uint64 visible;	/* raised by the processes that apply, without the lock */
} Entry;

typedef struct Entries
{
	LWLock	   *lock;
	bool		full;			/* there was no room for one: F4 does not hold */
	int			n;
	int			max;
	Entry		entries[FLEXIBLE_ARRAY_MEMBER];
} Entries;

typedef enum SubscriptionState
{
	SUBSCRIPTION_GONE,
	SUBSCRIPTION_UNREADY,		/* a table is not synchronised */
	SUBSCRIPTION_DISABLED,
	SUBSCRIPTION_ENABLED
} SubscriptionState;

void		(*concord_followed_hook) (XLogRecPtr visible) = NULL;

static Entries *entries = NULL;
static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

/* the state of the subscription looked at last, until an invalidation */
static Oid	state_of = InvalidOid;
static SubscriptionState state;
static uint32 invalidations = 0;

/* In a process that applies */
static Entry *mine = NULL;
static XLogRecPtr told_end = InvalidXLogRecPtr;	/* by the keepalive that is being dealt with */
static struct
{
	uint64		system;
	TimeLineID	timeline;
	bool		told;			/* which database it is, and that it is a primary */
	Oid			database;
}			met;				/* whom it has connected to */
static WalReceiverFunctionsType original;
static WalReceiverFunctionsType wrapped;

PG_FUNCTION_INFO_V1(concord_timelines);
PG_FUNCTION_INFO_V1(concord_follow);
PG_FUNCTION_INFO_V1(concord_unfollow);

/* ------------------------------------------------------------ shared memory */

static int
room_for_entries(void)
{
	return Max(64, 2 * concord_max_origins());
}

static Size
entries_size(void)
{
	return add_size(offsetof(Entries, entries), mul_size(sizeof(Entry), room_for_entries()));
}

static void
follow_request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(entries_size());
	RequestNamedLWLockTranche("pg_concord follow", 1);
}

static void
follow_startup(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	entries = ShmemInitStruct("pg_concord follow", entries_size(), &found);
	if (!found)
	{
		memset(entries, 0, entries_size());
		entries->lock = &GetNamedLWLockTranche("pg_concord follow")->lock;
		entries->max = room_for_entries();
		for (int i = 0; i < entries->max; i++)
			pg_atomic_init_u64(&entries->entries[i].visible, 0);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* The lock is held. */
static Entry *
find_entry(Oid subscription)
{
	for (int i = 0; i < entries->n; i++)
		if (entries->entries[i].subscription == subscription)
			return &entries->entries[i];
	return NULL;
}

/* This process's subscription's entry; an origin given up by another subscription gives its own. */
static Entry *
own_entry(RepOriginId origin)
{
	Oid			subscription = MyLogicalRepWorker->subid;
	Entry	   *entry;

	LWLockAcquire(entries->lock, LW_EXCLUSIVE);
	entry = find_entry(subscription);
	for (int i = 0; i < entries->n && entry == NULL; i++)
		if (entries->entries[i].origin == origin)
			entry = &entries->entries[i];
	if (entry == NULL && entries->n < entries->max)
		entry = &entries->entries[entries->n++];
	if (entry == NULL)
		entries->full = true;
	else if (entry->subscription != subscription)
	{
		entry->subscription = subscription;
		entry->parted = false;
		entry->pid = 0;
		entry->timeline = 0;
		pg_atomic_write_u64(&entry->visible, 0);
	}
	if (entry != NULL)
		entry->origin = origin;
	LWLockRelease(entries->lock);
	return entry;
}

/* ------------------------------------------------------------- who applies */

static void
publish(XLogRecPtr visible)
{
	uint64		before = pg_atomic_read_u64(&mine->visible);

	while (before < visible)
		if (pg_atomic_compare_exchange_u64(&mine->visible, &before, visible))
		{
			if (concord_followed_hook != NULL)
				concord_followed_hook(visible);
			break;
		}
}

static void
disconnected(int code, Datum arg)
{
	LWLockAcquire(entries->lock, LW_EXCLUSIVE);
	if (mine->pid == MyProcPid)
		mine->pid = 0;
	LWLockRelease(entries->lock);
}

/* The database this connection leads to, 0 if it is a standby's; false when that is not told. */
static bool
database_met(WalReceiverConn *conn, Oid *database)
{
	static const Oid types[] = {BOOLOID, OIDOID};
	WalRcvExecResult *result;
	bool		told = false;

	result = (original.walrcv_exec) (conn,
								  "SELECT pg_catalog.pg_is_in_recovery(), d.oid"
								  " FROM pg_catalog.pg_database d"
								  " WHERE d.datname = pg_catalog.current_database()",
								  lengthof(types), types);
	if (result->status == WALRCV_OK_TUPLES)
	{
		TupleTableSlot *slot = MakeSingleTupleTableSlot(result->tupledesc, &TTSOpsMinimalTuple);

		if (tuplestore_gettupleslot(result->tuplestore, true, false, slot))
		{
			bool		null;

			told = true;
			*database = DatumGetBool(slot_getattr(slot, 1, &null)) ? InvalidOid :
				DatumGetObjectId(slot_getattr(slot, 2, &null));
		}
		ExecDropSingleTupleTableSlot(slot);
	}
	walrcv_clear_result(result);
	return told;
}

/* Has the copy parted from its node, or does it now, by what was met?  Marks the row (F1). */
static bool
is_parted(void)
{
	const char *params[4];
	char	   *answer;

	if (!OidIsValid(get_extension_oid("pg_concord", true)))
		return false;
	params[0] = psprintf("%u", MyLogicalRepWorker->subid);
	params[1] = psprintf(INT64_FORMAT, (int64) met.system);
	params[2] = met.told ? psprintf("%u", met.database) : NULL;
	params[3] = psprintf("%u", met.timeline);
	XactReadOnly = false;		/* F5 */
	PushActiveSnapshot(GetTransactionSnapshot());
	answer = concord_owner_call("SELECT concord._check_followed($1::oid, $2::bigint, $3::oid,"
								" $4::bigint)", 4, params);
	PopActiveSnapshot();
	return answer != NULL && answer[0] == 't';
}

/* A transaction between those of the stream; its commit is not the publisher's. */
static RepOriginId
begin_aside(void)
{
	RepOriginId origin = replorigin_session_origin;

	StartTransactionCommand();
	replorigin_session_origin = InvalidRepOriginId;
	return origin;
}

static void
commit_aside(RepOriginId origin, MemoryContext context)
{
	CommitTransactionCommand();
	replorigin_session_origin = origin;
	MemoryContextSwitchTo(context);
}

static char *
identify_and_meet(WalReceiverConn *conn, TimeLineID *timeline)
{
	char	   *system = (original.walrcv_identify_system) (conn, timeline);
	MemoryContext context = CurrentMemoryContext;
	RepOriginId origin = begin_aside();

	met.system = strtoull(system, NULL, 10);
	met.timeline = *timeline;
	met.told = database_met(conn, &met.database);
	commit_aside(origin, context);
	return system;
}

/*
 * F1: the stream begins, nothing of it was received yet.  (A server met by accident, that has no
 * such slot, has not got this far.)
 */
static bool
start_and_tell(WalReceiverConn *conn, const WalRcvStreamOptions *options)
{
	MemoryContext context = CurrentMemoryContext;
	RepOriginId origin;

	if (!(original.walrcv_startstreaming) (conn, options))
		return false;
	origin = begin_aside();
	LWLockAcquire(entries->lock, LW_EXCLUSIVE);
	mine->system = met.system;
	mine->database = met.told ? met.database : InvalidOid;
	mine->timeline = met.timeline;
	mine->pid = MyProcPid;
	LWLockRelease(entries->lock);
	if (is_parted())
	{
		LWLockAcquire(entries->lock, LW_EXCLUSIVE);
		mine->parted = true;
		LWLockRelease(entries->lock);
	}
	commit_aside(origin, context);
	pg_memory_barrier();		/* F3 */
	return true;
}

/* Whoever asks for the next message has dealt with the last. */
static int
receive_and_note(WalReceiverConn *conn, char **buffer, pgsocket *wait_fd)
{
	int			length;

	if (told_end != InvalidXLogRecPtr)
		publish(told_end);
	told_end = InvalidXLogRecPtr;
	length = (original.walrcv_receive) (conn, buffer, wait_fd);
	if (length >= KEEPALIVE_SIZE && (*buffer)[0] == 'k')
	{
		uint64		end;

		memcpy(&end, *buffer + 1, sizeof(end));
		told_end = pg_ntoh64(end);
	}
	return length;
}

/*
 * In an apply worker's first transactions.  A worker that copies a table at first has an origin and
 * a connection of its own, and is not looked at.
 */
static void
begin_to_apply(void)
{
	if (replorigin_session_origin == InvalidRepOriginId ||
		replorigin_session_origin == DoNotReplicateId)
		return;
	mine = own_entry(replorigin_session_origin);
	/* of streaming = parallel, those that apply at the side are not connected */
	if (mine == NULL || WalReceiverFunctions == NULL)
		return;
	publish(replorigin_session_get_progress(false));	/* F4: its predecessors have ended */
	original = *WalReceiverFunctions;
	wrapped = original;
	wrapped.walrcv_identify_system = identify_and_meet;
	wrapped.walrcv_startstreaming = start_and_tell;
	wrapped.walrcv_receive = receive_and_note;
	WalReceiverFunctions = &wrapped;
	before_shmem_exit(disconnected, (Datum) 0);
}

/* Called when the transaction has left the array of running ones. */
static void
follow_xact_callback(XactEvent event, void *arg)
{
	if (MyLogicalRepWorker == NULL || event != XACT_EVENT_COMMIT || entries == NULL ||
		OidIsValid(MyLogicalRepWorker->relid))
		return;
	if (mine == NULL)
		begin_to_apply();
	/* its own last one: of other processes' the progress may tell too early */
	if (mine != NULL && replorigin_session_origin != InvalidRepOriginId)
		publish(replorigin_session_origin_lsn);
}

/* -------------------------------------------------------------- who reads */

static void
subscription_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	state_of = InvalidOid;
	invalidations++;
}

static bool
all_tables_ready(Oid subscription)
{
	Relation	rel = table_open(SubscriptionRelRelationId, AccessShareLock);
	bool		ready = true;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_subscription_rel_srsubid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(subscription));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	while (ready && HeapTupleIsValid(tuple = systable_getnext(scan)))
		ready = ((Form_pg_subscription_rel) GETSTRUCT(tuple))->srsubstate == SUBREL_STATE_READY;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return ready;
}

/* F2: looked up again only when something of a subscription has changed. */
static SubscriptionState
subscription_state(Oid subscription)
{
	HeapTuple	tuple;
	SubscriptionState found = SUBSCRIPTION_GONE;
	uint32		heard;

	AcceptInvalidationMessages();
	if (state_of == subscription)
		return state;
	heard = invalidations;
	tuple = SearchSysCache1(SUBSCRIPTIONOID, ObjectIdGetDatum(subscription));
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_subscription form = (Form_pg_subscription) GETSTRUCT(tuple);

		if (form->subdbid == MyDatabaseId)
			found = form->subenabled ? SUBSCRIPTION_ENABLED : SUBSCRIPTION_DISABLED;
		ReleaseSysCache(tuple);
		if (found != SUBSCRIPTION_GONE && !all_tables_ready(subscription))
			found = SUBSCRIPTION_UNREADY;
	}
	InvalidateCatalogSnapshot();
	state = found;
	state_of = heard == invalidations ? subscription : InvalidOid;
	return found;
}

static XLogRecPtr
origin_progress(Oid subscription)
{
	char		name[NAMEDATALEN];
	RepOriginId origin;

	snprintf(name, sizeof(name), "pg_%u", subscription);
	origin = replorigin_by_name(name, true);
	InvalidateCatalogSnapshot();
	return origin == InvalidRepOriginId ? InvalidXLogRecPtr :
		replorigin_get_progress(origin, false);
}

static Entry *
find_entry_of(Oid subscription, bool *full)
{
	Entry	   *entry;

	LWLockAcquire(entries->lock, LW_SHARED);
	entry = find_entry(subscription);
	*full = entries->full;
	LWLockRelease(entries->lock);
	return entry;
}

/* F3, F4: what is visible, and whether the copy has parted from its node. */
static XLogRecPtr
visible_now(const ConcordFollowed *followed, bool *parted)
{
	bool		full;
	Entry	   *entry = find_entry_of(followed->subscription, &full);
	XLogRecPtr	visible;

	if (entry == NULL)
	{
		/* F4: first the progress, then again that nobody has begun */
		visible = origin_progress(followed->subscription);
		entry = find_entry_of(followed->subscription, &full);
		if (entry == NULL)
		{
			*parted = followed->parted;
			return full ? InvalidXLogRecPtr : visible;
		}
	}
	visible = pg_atomic_read_u64(&entry->visible);
	pg_read_barrier();
	LWLockAcquire(entries->lock, LW_SHARED);
	*parted = followed->parted || entry->parted ||
		entry->subscription != followed->subscription ||
		(entry->timeline != 0 && entry->timeline != followed->timeline);
	LWLockRelease(entries->lock);
	return visible;
}

/*
 * The timeline of an LSN is the first of the history that it does not lie beyond: a copy that has
 * not come to a switch yet is still on the earlier one.
 */
void
concord_followed_standing(const ConcordMap *map, ConcordServer *server)
{
	const ConcordFollowed *followed = &map->followed;
	XLogRecPtr	lsn = InvalidXLogRecPtr;
	bool		parted = false;

	if (!RecoveryInProgress())
		lsn = visible_now(followed, &parted);
	if (parted || (lsn != InvalidXLogRecPtr &&
				   subscription_state(followed->subscription) < SUBSCRIPTION_DISABLED))
		lsn = InvalidXLogRecPtr;
	server->node = map->self;
	server->generation = map->self_generation;
	server->primary = false;
	server->timeline = followed->timeline;
	server->lsn = lsn;
	server->nhistory = followed->nhistory;
	server->history = followed->history;
	/* the history ascends */
	for (int i = 0; i < followed->nhistory; i++)
		if (lsn < followed->history[i].end)
		{
			server->timeline = followed->history[i].timeline;
			server->nhistory = i;
			break;
		}
}

/* The origin's progress moves before what it stands for is visible: here that is right. */
XLogRecPtr
concord_followed_seen(const ConcordMap *map)
{
	ConcordServer server;
	bool		full;
	Entry	   *entry = find_entry_of(map->followed.subscription, &full);
	XLogRecPtr	progress;

	concord_followed_standing(map, &server);
	if (server.lsn == InvalidXLogRecPtr)
		return InvalidXLogRecPtr;
	progress = entry == NULL ? origin_progress(map->followed.subscription) :
		replorigin_get_progress(entry->origin, false);
	return Max(server.lsn, progress);
}

const char *
concord_followed_problem(const ConcordMap *map)
{
	bool		full;
	bool		parted = false;
	Entry	   *entry;

	if (RecoveryInProgress())
		return "it is a standby of a logical copy";
	(void) visible_now(&map->followed, &parted);
	switch (subscription_state(map->followed.subscription))
	{
		case SUBSCRIPTION_GONE:
			return "its subscription does not exist any more";
		case SUBSCRIPTION_UNREADY:
			return "a table of its subscription is not synchronised yet";
		case SUBSCRIPTION_DISABLED:
			return parted ? "its subscription has followed another server or timeline" :
				"its subscription is disabled";
		default:
			break;
	}
	if (parted)
		return "its subscription has followed another server or timeline";
	entry = find_entry_of(map->followed.subscription, &full);
	if (entry == NULL || entry->pid == 0)
		return "its subscription is not connected";
	return NULL;
}

/* --------------------------------------------------------------------- SQL */

/* _timelines() -> setof (timeline, ends): what this primary's WAL went through, oldest first. */
Datum
concord_timelines(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimeLineID	timeline;
	List	   *entries_read;

	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server is in recovery")));
	InitMaterializedSRF(fcinfo, 0);
	timeline = GetWALInsertionTimeLine();
	/* the newest comes first */
	entries_read = readTimeLineHistory(timeline);
	for (int i = list_length(entries_read) - 1; i >= 0; i--)
	{
		const TimeLineHistoryEntry *entry = list_nth(entries_read, i);
		bool		current = entry->tli == timeline;
		Datum		values[2] = {Int64GetDatum(entry->tli), Int64GetDatum((int64) entry->end)};
		bool		nulls[2] = {false, current};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* 55000 unless the subscription is connected to just this. */
static void
check_met(Oid subscription, uint64 system, Oid database, TimeLineID timeline, const char *node)
{
	Entry	   *entry;
	bool		good;

	LWLockAcquire(entries->lock, LW_EXCLUSIVE);
	entry = find_entry(subscription);
	good = entry != NULL && entry->pid != 0 && entry->system == system &&
		entry->database == database && entry->timeline == timeline;
	if (good)
		entry->parted = false;	/* F1 */
	LWLockRelease(entries->lock);
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the subscription is not connected to the primary of node \"%s\"", node),
				 errhint("Look at pg_stat_subscription there; wait until it is connected, and repeat the call.")));
}

/*
 * _follow(cluster uuid, node_id int, node name, generation int, publisher jsonb): add_replica() on
 * the copy.
 */
Datum
concord_follow(PG_FUNCTION_ARGS)
{
	const char *params[7];
	const char *node;
	char	   *subscription;
	char	   *met;
	long long	system;
	unsigned int database;
	unsigned int timeline;

	concord_require_writable("concord._follow()");
	concord_require_superuser("concord._follow()");
	node = NameStr(*PG_GETARG_NAME(2));
	params[0] = concord_uuid_text(PG_GETARG_UUID_P(0));
	params[1] = psprintf("%d", PG_GETARG_INT32(1));
	params[2] = node;
	params[3] = psprintf("%d", PG_GETARG_INT32(3));
	params[4] = DatumGetCString(DirectFunctionCall1(jsonb_out, PG_GETARG_DATUM(4)));
	params[5] = concord_system_identifier();
	params[6] = concord_database_oid();
	subscription = concord_owner_call("SELECT concord._store_followed($1::uuid, $2::int, $3::name,"
									  " $4::int, $5::jsonb, $6::bigint, $7::oid)", 7, params);
	met = concord_owner_call("SELECT pg_catalog.format('%s %s %s', publisher_system,"
							 " publisher_database, timeline) FROM concord.followed", 0, NULL);
	if (met == NULL || sscanf(met, "%lld %u %u", &system, &database, &timeline) != 3)
		elog(ERROR, "table concord.followed has no row of that kind");
	check_met(atooid(subscription), (uint64) system, database, timeline, node);
	PG_RETURN_VOID();
}

/* _unfollow(cluster uuid, node_id int) -> was it one, not parted?: remove_replica() on the copy. */
Datum
concord_unfollow(PG_FUNCTION_ARGS)
{
	const char *params[2];
	char	   *subscription;
	Entry	   *entry;

	concord_require_writable("concord._unfollow()");
	concord_require_node_role();
	params[0] = concord_uuid_text(PG_GETARG_UUID_P(0));
	params[1] = psprintf("%d", PG_GETARG_INT32(1));
	subscription = concord_owner_call("SELECT concord._forget_followed($1::uuid, $2::int)", 2,
									  params);
	if (subscription == NULL)
		PG_RETURN_BOOL(false);
	/* whoever waits with an old map */
	LWLockAcquire(entries->lock, LW_EXCLUSIVE);
	entry = find_entry(atooid(subscription));
	if (entry != NULL)
		entry->parted = true;
	LWLockRelease(entries->lock);
	PG_RETURN_BOOL(true);
}

void
concord_follow_init(void)
{
	RegisterXactCallback(follow_xact_callback, NULL);
	if (!process_shared_preload_libraries_in_progress)
		return;
	CacheRegisterSyscacheCallback(SUBSCRIPTIONOID, subscription_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(SUBSCRIPTIONRELMAP, subscription_changed, (Datum) 0);
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = follow_request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = follow_startup;
}
