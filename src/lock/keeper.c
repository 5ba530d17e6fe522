/*
 * keeper.c
 *		This node's lease, kept by its registrar, and what it knows of other nodes' leases.
 *
 * WHAT: core/lock.h has the rules (L7 to L11); here its writes and reads are sent.  One register a
 * node, renewed once in a third of concord.lease_duration while any session of this database holds
 * or waits for a lock, and LINGER_MS longer; an idle cluster writes nothing.
 *
 * INVARIANTS
 * K1 now_us is taken before anything of a renewal is sent, on CLOCK_BOOTTIME (L8).
 * K2 The end of the lease is told to the sessions (in shared memory) only after the renewal is
 *	  known to be chosen.
 * K3 The lease of another start of the server is replaced at once only if that start is recorded in
 *	  concord.incarnation under the storage's present lineage: then it ran on this very data
 *	  directory, whose postmaster is this one, so it is dead.  After a promotion or restore the
 *	  lineage is another one, and its end is waited for (L9).
 * K4 When the lease has run out while locks are held they are lost, also if it could be renewed:
 *	  their sessions may have been told.
 * K5 What the sessions are told of the lease's end is never later than what was sent allows: a
 *	  renewal that makes it end sooner is told before it is sent.  So the next registrar may go on
 *	  with that (concord_lease_resume).
 *
 * What a crash leaves: of the registrar alone, a lease that the next one goes on with (the keeper
 * is the server's start).  Of the server, a lease that the next start replaces as soon as it runs,
 * whether anybody wants a lock or not; or that others end.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/errors.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lock/clerk.h"
#include "lock/table.h"
#include "miscadmin.h"
#include "quorum/desk.h"
#include "quorum/engine.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/hsearch.h"
#include "utils/snapmgr.h"

#define LINGER_MS 60000
#define DRIFT_PPM 10000			/* of any two clocks: one in a hundred, far more than quartz has */
#define RETRY_MS 100
#define WATCH_MIN_MS 50
#define OPERATION_MS 5000

typedef struct Watch
{
	int			node;			/* key */
	ConcordLeaseWatch core;
	bool		busy;
	int64		wanted_until;
	int64		look_at;
} Watch;

static ConcordLease lease;
static bool read_once;			/* what the register says was read since this process began */
static bool resumed;			/* K5 */
static bool settled;			/* no earlier start of this server keeps the node's lease */
static bool busy;
static int64 act_at;
static int64 wanted_until;
static uint64 changes;
static ConcordLeaseWatch own;	/* another server that keeps this node's lease */
static HTAB *watches;
static ConcordLeaseValue written;

static size_t
lease_name(int node, char name[32])
{
	return (size_t) snprintf(name, 32, CONCORD_PREFIX_LEASE "%d", node);
}

static bool
decode(const ConcordValue *value, ConcordLeaseValue *found)
{
	return value->kind == CONCORD_VALUE_SET &&
		concord_lease_decode(found, value->data, value->len);
}

/* When to look at a lease again: when it would be over, and before, as it may end sooner. */
static int64
pause_of(const ConcordLeaseWatch *watch)
{
	int64		left_us = concord_lease_watch_left(watch, DRIFT_PPM, concord_copy_clock_us());
	int64		third = concord_lease_duration_ms / 3;

	return Max(left_us < 0 ? third : Min(left_us / 1000 + 1, third), WATCH_MIN_MS);
}

/* ---------------------------------------------------------------- the own lease */

/* Something is to be looked at in the next turn, and that is now. */
static void
changed(void)
{
	changes++;
	SetLatch(MyLatch);
}

/* K2 */
static void
publish(void)
{
	ConcordHoldingDatabase *database;
	bool		news = false;

	LWLockAcquire(ConcordHoldings->lock, LW_EXCLUSIVE);
	database = concord_holding_database(MyDatabaseId, true);
	if (database != NULL)
	{
		news = database->lease != lease.lease ||
			database->lease_until_us <= concord_copy_clock_us();
		database->node = concord_quorum_self();
		strlcpy(database->cluster, concord_quorum_cluster(), sizeof(database->cluster));
		database->lease = lease.lease;
		database->lease_from_us = lease.from_us;
		database->lease_until_us = lease.until_us;
	}
	LWLockRelease(ConcordHoldings->lock);
	if (news)
		changed();
}

/* K5: goes on with what an earlier registrar of this server's start has said. */
static void
resume(void)
{
	const ConcordHoldingDatabase *database;
	/* attempts are told apart by their beats: each registrar has its own ones */
	uint64		beats = (uint64) concord_desk_proposer() << 32;

	LWLockAcquire(ConcordHoldings->lock, LW_SHARED);
	database = concord_holding_database(MyDatabaseId, false);
	if (database != NULL && database->node == concord_quorum_self() &&
		strcmp(database->cluster, concord_quorum_cluster()) == 0)
		concord_lease_resume(&lease, beats, database->lease, database->lease_from_us,
							 database->lease_until_us);
	else
		concord_lease_resume(&lease, beats, 0, 0, 0);
	LWLockRelease(ConcordHoldings->lock);
}

/* K4: the sessions whose locks of a lease that is not valid any more are lost */
static void
lose(void)
{
	int64		now_us = concord_copy_clock_us();
	bool		any = false;

	LWLockAcquire(ConcordHoldings->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ConcordHoldings->size; i++)
	{
		ConcordHolding *entry = &ConcordHoldings->entries[i];

		if (entry->dboid != MyDatabaseId || entry->state != CONCORD_HOLDING_HELD ||
			concord_lease_valid(&lease, entry->lease, now_us))
			continue;
		concord_holding_lose(entry);
		any = true;
	}
	LWLockRelease(ConcordHoldings->lock);
	if (!any)
		return;
	changed();
	ereport(LOG,
			(errcode(ERRCODE_CONCORD_LOCK_LOST),
			 errmsg("locks of this node were lost: its lease ran out, or was ended"),
			 errdetail("It is renewed as long as a majority of the acceptors can be reached.")));
}

/* K3 */
static bool
known_dead(uint64 keeper)
{
	Oid			types[2] = {INT8OID, INT8OID};
	Datum		values[2] = {Int64GetDatum((int64) keeper),
	Int64GetDatum((int64) ConcordShared->incarnation)};
	bool		dead;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	if (SPI_execute_with_args("SELECT FROM concord.incarnation o, concord.incarnation i"
							  " WHERE o.incarnation = $1 AND i.incarnation = $2"
							  " AND o.lineage = i.lineage", 2, types, values, NULL, true,
							  1) != SPI_OK_SELECT)
		elog(ERROR, "could not read concord.incarnation");
	dead = SPI_processed > 0;
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(ConcordTurnContext);
	return dead;
}

static void
found(const ConcordValue *value)
{
	ConcordLeaseValue says;
	int64		now_us = concord_copy_clock_us();

	lose();						/* K4: what is found may extend it */
	if (decode(value, &says))
	{
		(void) concord_lease_found(&lease, &says, value->version);
		concord_lease_watch_see(&own, &says, value->version, now_us);
	}
	else
		(void) concord_lease_found(&lease, NULL, 0);
	read_once = true;
	settled = settled || lease.status != CONCORD_LEASE_OTHERS;
	publish();
	lose();
}

static void
was_read(const ConcordTaskOutcome *outcome, void *arg)
{
	int64		known = own.version;

	(void) arg;
	busy = false;
	act_at = concord_quorum_ms() + RETRY_MS;
	if (outcome->result != CONCORD_RESULT_OK)
		return;
	found(&outcome->value);
	if (lease.status != CONCORD_LEASE_OTHERS || own.version != known)
		act_at = concord_quorum_ms();
	else
		act_at = concord_quorum_ms() + pause_of(&own);
	SetLatch(MyLatch);
}

static void
was_written(const ConcordTaskOutcome *outcome, void *arg)
{
	(void) arg;
	busy = false;
	act_at = concord_quorum_ms();
	switch (outcome->result)
	{
		case CONCORD_RESULT_OK:
			/* K4 before the new end is known to anybody */
			lose();
			concord_lease_chosen(&lease, outcome->value.version);
			settled = true;
			publish();
			act_at += concord_lease_duration_ms / 3;
			break;
		case CONCORD_RESULT_MISMATCH:
			found(&outcome->value);
			break;
		default:
			read_once = false;	/* it may be chosen: read */
			act_at += RETRY_MS;
			break;
	}
	SetLatch(MyLatch);
}

static void
read_own(void)
{
	char		name[32];
	size_t		len = lease_name(concord_quorum_self(), name);

	busy = true;
	concord_quorum_start(name, len, CONCORD_READ, 0, NULL, 0, OPERATION_MS, was_read, NULL);
}

static void
act(void)
{
	int64		now_us = concord_copy_clock_us();
	uint8_t		bytes[CONCORD_LEASE_SIZE];
	char		name[32];
	size_t		len = lease_name(concord_quorum_self(), name);
	bool		replace = false;

	if (!read_once)
	{
		read_own();
		return;
	}
	if (lease.status == CONCORD_LEASE_OTHERS)
	{
		replace = known_dead(lease.value.keeper) ||
			(concord_lease_watch_over(&own, DRIFT_PPM, now_us) && own.version == lease.version);
		if (!replace)
		{
			read_own();			/* is it renewed? */
			return;
		}
	}
	/* K1 */
	if (!concord_lease_propose(&lease, now_us, (int64) concord_lease_duration_ms * 1000, replace,
							   &written))
	{
		act_at = concord_quorum_ms() + RETRY_MS;
		return;
	}
	publish();					/* K5 */
	concord_lease_encode(&written, bytes);
	busy = true;
	concord_quorum_start(name, len, CONCORD_WRITE, lease.version, bytes, sizeof(bytes),
						 OPERATION_MS, was_written, NULL);
}

uint64
concord_keeper_lease(void)
{
	return concord_lease_valid(&lease, lease.lease, concord_copy_clock_us()) ? lease.lease : 0;
}

bool
concord_keeper_valid(uint64 number)
{
	return concord_lease_valid(&lease, number, concord_copy_clock_us());
}

bool
concord_keeper_over(uint64 number)
{
	return lease.version > 0 && concord_lease_judge(&lease.value, number) == CONCORD_LEASE_OVER;
}

uint64
concord_keeper_changes(void)
{
	return changes;
}

/* ---------------------------------------------------------------- others' leases */

static Watch *
find_watch(int node)
{
	bool		exists;
	Watch	   *watch = hash_search(watches, &node, HASH_ENTER, &exists);

	if (!exists)
	{
		memset(&watch->core, 0, sizeof(watch->core));
		watch->busy = false;
		watch->look_at = 0;
	}
	return watch;
}

const ConcordLeaseValue *
concord_keeper_watch(int node)
{
	Watch	   *watch;

	if (node == concord_quorum_self())
		return lease.version > 0 ? &lease.value : NULL;
	watch = find_watch(node);
	watch->wanted_until = concord_quorum_ms() + CONCORD_WATCH_MS;
	return watch->core.version > 0 ? &watch->core.value : NULL;
}

static void
see(Watch *watch, const ConcordValue *value)
{
	ConcordLeaseValue says;
	int64		version = watch->core.version;

	if (!decode(value, &says))
		return;
	concord_lease_watch_see(&watch->core, &says, value->version, concord_copy_clock_us());
	if (watch->core.version != version)
		changed();
}

static void
watch_done(const ConcordTaskOutcome *outcome, void *arg)
{
	int			node = (int) (intptr_t) arg;
	Watch	   *watch = find_watch(node);
	int64		pause_ms = RETRY_MS;

	watch->busy = false;
	if (outcome->result == CONCORD_RESULT_OK || outcome->result == CONCORD_RESULT_MISMATCH)
	{
		see(watch, &outcome->value);
		pause_ms = pause_of(&watch->core);
	}
	watch->look_at = concord_quorum_ms() + pause_ms;
}

static void
look_at_watch(Watch *watch)
{
	char		name[32];
	size_t		len = lease_name(watch->node, name);
	ConcordLeaseValue ended;
	uint8_t		bytes[CONCORD_LEASE_SIZE];
	void	   *arg = (void *) (intptr_t) watch->node;

	watch->busy = true;
	if (!concord_lease_watch_over(&watch->core, DRIFT_PPM, concord_copy_clock_us()))
	{
		concord_quorum_start(name, len, CONCORD_READ, 0, NULL, 0, OPERATION_MS, watch_done, arg);
		return;
	}
	concord_lease_watch_end(&watch->core, &ended);
	concord_lease_encode(&ended, bytes);
	concord_quorum_start(name, len, CONCORD_WRITE, watch->core.version, bytes, sizeof(bytes),
						 OPERATION_MS, watch_done, arg);
	ereport(LOG,
			(errmsg("ending the lease of node \"%s\", which has not renewed it",
					concord_quorum_node_name(watch->node))));
}

static int64
watches_turn(int64 now)
{
	int64		next = PG_INT64_MAX;
	HASH_SEQ_STATUS scan;
	Watch	   *watch;

	hash_seq_init(&scan, watches);
	while ((watch = hash_seq_search(&scan)) != NULL)
	{
		if (watch->busy || watch->wanted_until <= now)
			continue;
		if (watch->look_at <= now)
			look_at_watch(watch);
		else
			next = Min(next, watch->look_at);
	}
	return next;
}

/* ---------------------------------------------------------------- the turn */

int64
concord_keeper_turn(bool wanted)
{
	int64		now = concord_quorum_ms();
	int64		left_us;
	int64		next = watches_turn(now);

	if (!resumed)
		resume();
	resumed = true;
	left_us = concord_lease_left(&lease, lease.lease, concord_copy_clock_us());
	if (wanted)
		wanted_until = now + LINGER_MS;
	if (lease.lease != 0 && left_us == 0)
		lose();
	else if (wanted && left_us > 0)
		next = Min(next, now + left_us / 1000 + 1);
	if (busy || (now >= wanted_until && settled))
		return next;
	/* somebody who has just come does not wait for the next renewal */
	if (wanted && left_us == 0 && read_once && lease.status != CONCORD_LEASE_OTHERS)
		act_at = Min(act_at, now + RETRY_MS);
	if (now < act_at)
		return Min(next, act_at);
	act_at = now + RETRY_MS;
	act();
	return next;
}

void
concord_keeper_begin(MemoryContext context)
{
	HASHCTL		ctl = {.keysize = sizeof(int),.entrysize = sizeof(Watch),.hcxt = context};

	watches = hash_create("concord leases", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	concord_lease_init(&lease, ConcordShared->incarnation);
}
