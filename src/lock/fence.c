/*
 * fence.c
 *		Fences: a holder that has lost its lock is refused where the data is written.
 *
 * WHAT: a lock's grant has a number, its fence, which only grows.  check_fence(name, fence), the
 * first statement of a transaction that does what the lock protects, on the node where that is,
 * compares it with the mark: the highest fence that was shown there under this name.
 *
 * Marks are a cluster's: a database that leaves it and is taken into another begins without.
 *
 * A FENCE is 2 * version + mode: the version of the lock's register at which the holder, or the
 * group of shared holders, was granted, and 1 for shared, 0 for exclusive.  So a fence tells its
 * mode, and one fence is one holder or one group.
 *
 * PROMISE: of transactions that checked fences of one name and are committed, those of different
 * holders (groups) came in the order of their fences, each after the others' end; those of one
 * exclusive holder one after the other; those of one group in parallel.  This holds by the mark's
 * row alone, whatever the lock was doing, and after restarts and failovers as far as rows do.
 *
 * INVARIANTS
 * F1 A mark never falls, except with the transaction that raised it: what is rolled back was not
 *    checked.
 * F2 Whoever has checked holds the mark's row until his transaction's end (through PREPARE): an
 *    exclusive holder by having updated it, also where that changes nothing; a shared one by having
 *    raised it, or FOR SHARE.  A newer fence waits for him; an older one waits and is refused.
 * F3 Of a group only one raises the mark, under a lock of the name (base/locktags.h); the others
 *    wait for its end and then find their fence there.  Were they to wait at the row to update it,
 *    they would have it exclusively, and were they to share it first, they would deadlock.
 *
 *		mark			exclusive fence f		shared fence f
 *		none			inserted				inserted (F3)
 *		< f				updated					updated (F3)
 *		= f				updated					locked FOR SHARE
 *		> f				PC005					PC005
 *
 * Equal is always the same holder (group), since the fence tells the version and the mode.
 *
 * Under REPEATABLE READ and SERIALIZABLE a mark that was changed after the snapshot is 40001, as
 * with any row; as the first statement the check takes the snapshot itself.
 *
 * WHO MAY: everybody, for every name: the table is the extension owner's, and is reached here only.
 * Whoever shows a fence that he was not given can shut out the lock's holders from this node, as he
 * could by holding the lock.
 *
 * LOCKS: the group's (F3), then the row.
 *
 * WHAT IT DOES NOT DO: delete marks of names that are not used any more.  Without a mark an old
 * fence would pass, and nobody here knows which fences are still out.
 */
#include "postgres.h"

#include "base/errors.h"
#include "base/locktags.h"
#include "base/shmem.h"
#include "catalog/pg_type.h"
#include "cluster/room.h"
#include "core/lock.h"
#include "executor/spi.h"
#include "lock/lock.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(concord_check_fence);

/* Operators are named: the caller's search_path is in force. */
typedef enum MarkQuery
{
	MARK_RAISE,					/* to the fence, if it is not higher: a row if so */
	MARK_SHARE,					/* locked FOR SHARE and returned, if it is not lower */
	MARK_QUERIES
} MarkQuery;

static const char *const mark_sql[MARK_QUERIES] = {
	[MARK_RAISE] = "INSERT INTO concord.fence_marks AS m (cluster_id, name, fence) VALUES ($1, $2, $3)"
	" ON CONFLICT (name, cluster_id) DO UPDATE SET fence = excluded.fence"
	" WHERE m.fence OPERATOR(pg_catalog.<=) excluded.fence",
	[MARK_SHARE] = "SELECT m.fence FROM concord.fence_marks m"
	" WHERE m.cluster_id OPERATOR(pg_catalog.=) $1 AND m.name OPERATOR(pg_catalog.=) $2"
	" AND m.fence OPERATOR(pg_catalog.>=) $3 FOR SHARE"
};

static SPIPlanPtr mark_plans[MARK_QUERIES];

typedef struct Check
{
	pg_uuid_t	cluster;
	text	   *name;
	int64		fence;
} Check;

/* Runs one of them, connected to SPI as the owner; returns the number of rows. */
static uint64
run(MarkQuery query, const Check *check)
{
	Oid			types[3] = {UUIDOID, TEXTOID, INT8OID};
	Datum		values[3] = {
		UUIDPGetDatum(&check->cluster), PointerGetDatum(check->name), Int64GetDatum(check->fence)
	};

	if (mark_plans[query] == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(mark_sql[query], lengthof(types), types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not plan \"%s\"", mark_sql[query]);
		mark_plans[query] = plan;
	}
	if (SPI_execute_plan(mark_plans[query], values, NULL, false, 0) < 0)
		elog(ERROR, "could not execute \"%s\"", mark_sql[query]);
	return SPI_processed;
}

static void
refuse(const Check *check, int64 mark)
{
	concord_count(CONCORD_COUNT_FENCED);
	ereport(ERROR,
			(errcode(ERRCODE_CONCORD_FENCED),
			 errmsg("fence " INT64_FORMAT " of lock \"%s\" has been superseded by " INT64_FORMAT,
					check->fence, text_to_cstring(check->name), mark),
			 errdetail("The lock was lost, and others have held it since."),
			 errhint("Take the lock again, and repeat what it protects.")));
}

/* Locks a mark that is not lower, and refuses if it is higher; false if there is none. */
static bool
share(const Check *check)
{
	bool		isnull;
	int64		mark;

	if (run(MARK_SHARE, check) == 0)
		return false;
	mark = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	if (mark > check->fence)
		refuse(check, mark);
	return true;
}

/* F2 */
static void
raise_mark(const Check *check)
{
	/* not raised, it is higher: only what a superuser deletes in between is not found then */
	while (run(MARK_RAISE, check) == 0 && !share(check))
		CHECK_FOR_INTERRUPTS();
}

static void
check_shared(const Check *check)
{
	LOCKTAG		tag;

	if (share(check))
		return;
	concord_locktag(&tag, CONCORD_LOCKTAG_FENCE, concord_lock_hash(check->name));
	(void) LockAcquire(&tag, ExclusiveLock, false, false);	/* F3 */
	if (share(check))
		(void) LockRelease(&tag, ExclusiveLock, false);
	else
		raise_mark(check);
}

void
concord_fence_check(text *name, int64 fence)
{
	Check		check = {.name = name, .fence = fence};
	ConcordOwnerScope scope;

	concord_require_writable("concord.check_fence()");
	check.cluster = concord_map_member()->cluster_id;
	if (fence <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid fence " INT64_FORMAT, fence),
				 errdetail("A fence is what concord.lock() returned, a positive number.")));

	concord_owner_begin(&scope);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (concord_fence_mode(fence) == CONCORD_LOCK_SHARED)
		check_shared(&check);
	else
		raise_mark(&check);
	SPI_finish();
	concord_owner_end(&scope);
}

/* check_fence(name text, fence bigint) */
Datum
concord_check_fence(PG_FUNCTION_ARGS)
{
	text	   *name = concord_lock_name(fcinfo, 0);

	concord_arg_not_null(fcinfo, 1, "fence");
	concord_fence_check(name, PG_GETARG_INT64(1));
	PG_RETURN_VOID();
}
