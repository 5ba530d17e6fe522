/*
 * views.c
 *		What is shown of lease locks: the views locks and lock_waits; and their waits, for the
 *		detector of deadlocks.
 *
 * PROMISE: the views answer within concord.view_timeout and the time of a local query, whatever the
 * other nodes do; a node that does not answer is a row of NULLs with its name.  Each node tells of
 * its own sessions' entries (table.h): that is what they believe to hold, and as what other nodes
 * see them may already be different.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "cluster/copies.h"
#include "cluster/room.h"
#include "commit/deadlock.h"
#include "funcapi.h"
#include "lock/lock.h"
#include "lock/table.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(concord_locks_here);
PG_FUNCTION_INFO_V1(concord_cluster_locks);
PG_FUNCTION_INFO_V1(concord_lock_stats);

/* Columns of _locks(); all text, as they come from a peer, NULL for unknown. */
enum
{
	LOCK_NAME, LOCK_MODE, LOCK_STATE, LOCK_PID, LOCK_ROLE, LOCK_APPLICATION, LOCK_FENCE,
	LOCK_SINCE, LOCK_REMAINING, LOCK_BLOCKERS, LOCK_COLUMNS
};

static const Oid column_types[LOCK_COLUMNS] = {
	TEXTOID, TEXTOID, TEXTOID, INT4OID, TEXTOID, TEXTOID, INT8OID, TIMESTAMPTZOID, INTERVALOID,
	TEXTOID
};

static const char *
state_name(ConcordHoldingState state)
{
	switch (state)
	{
		case CONCORD_HOLDING_ASKED:
			return "asked";
		case CONCORD_HOLDING_WAITING:
			return "waiting";
		case CONCORD_HOLDING_HELD:
			return "held";
		case CONCORD_HOLDING_LOST:
			return "lost";
		default:
			return "leaving";
	}
}

/* The entries of this database's sessions. */
static ConcordHolding *
copy_entries(int *n, int64 *lease_until_us)
{
	ConcordHolding *copies = palloc_extended(ConcordHoldings->size * sizeof(ConcordHolding),
											 MCXT_ALLOC_HUGE);
	ConcordHoldingDatabase *database;

	*n = 0;
	*lease_until_us = 0;
	LWLockAcquire(ConcordHoldings->lock, LW_SHARED);
	database = concord_holding_database(MyDatabaseId, false);
	if (database != NULL)
		*lease_until_us = database->lease_until_us;
	for (int i = 0; i < ConcordHoldings->size; i++)
	{
		const ConcordHolding *entry = &ConcordHoldings->entries[i];

		if (entry->dboid == MyDatabaseId && entry->state != CONCORD_HOLDING_FREE &&
			entry->state != CONCORD_HOLDING_REFUSED)
			memcpy(&copies[(*n)++], entry, sizeof(ConcordHolding));
	}
	LWLockRelease(ConcordHoldings->lock);
	return copies;
}

static char *
interval_text(int64 us)
{
	Interval	interval = {.time = Max(us, 0)};

	return DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(&interval)));
}

/* node/process of each, separated by spaces */
static char *
blockers_text(const ConcordHolding *entry)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < entry->nblockers; i++)
		appendStringInfo(&text, "%s%d/%d", i > 0 ? " " : "", entry->blockers[i].node,
						 entry->blockers[i].pid);
	return text.data;
}

static char **
make_row(const ConcordHolding *entry, int64 lease_until_us)
{
	char	  **row = palloc0(LOCK_COLUMNS * sizeof(char *));
	bool		held = entry->state == CONCORD_HOLDING_HELD;
	bool		waits = entry->state == CONCORD_HOLDING_WAITING;
	int64		until_us = lease_until_us;

	if (entry->until_us > 0)
		until_us = Min(until_us, entry->until_us);
	row[LOCK_NAME] = pnstrdup(entry->name, entry->name_len);
	row[LOCK_MODE] = entry->mode == CONCORD_LOCK_SHARED ? "shared" : "exclusive";
	row[LOCK_STATE] = unconstify(char *, state_name(entry->state));
	row[LOCK_PID] = entry->pid != 0 ? psprintf("%d", entry->pid) : NULL;
	row[LOCK_ROLE] = GetUserNameFromId(entry->role, true);
	row[LOCK_APPLICATION] = pstrdup(entry->application);
	row[LOCK_FENCE] = entry->fence != 0 ? psprintf(INT64_FORMAT, entry->fence) : NULL;
	row[LOCK_SINCE] = pstrdup(timestamptz_to_str(entry->held_at != 0 ? entry->held_at :
												 entry->asked_at));
	row[LOCK_REMAINING] = held ? interval_text(until_us - concord_copy_clock_us()) : NULL;
	row[LOCK_BLOCKERS] = waits ? blockers_text(entry) : NULL;
	return row;
}

/* List of char ** */
static List *
own_rows(void)
{
	int64		lease_until_us;
	int			n;
	ConcordHolding *copies = copy_entries(&n, &lease_until_us);
	List	   *rows = NIL;

	for (int i = 0; i < n; i++)
		rows = lappend(rows, make_row(&copies[i], lease_until_us));
	return rows;
}

static void
put_row(ReturnSetInfo *rsinfo, const char *node, char **row, bool details)
{
	Datum		values[LOCK_COLUMNS + 1];
	bool		nulls[LOCK_COLUMNS + 1];
	int			first = node != NULL ? 1 : 0;

	if (node != NULL)
	{
		values[0] = concord_text_input(node, NAMEOID);
		nulls[0] = false;
	}
	for (int i = 0; i < LOCK_COLUMNS; i++)
	{
		bool		hidden = !details && (i == LOCK_ROLE || i == LOCK_APPLICATION);

		nulls[i + first] = row == NULL || row[i] == NULL || hidden;
		values[i + first] = nulls[i + first] ? (Datum) 0 :
			concord_text_input(row[i], column_types[i]);
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* _locks(): for the views of other nodes */
Datum
concord_locks_here(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *lc;

	concord_require_preload();
	concord_require_node_role();
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("the server is a standby"),
				 errdetail("A node is asked at its primary.")));
	AcceptInvalidationMessages();
	(void) concord_map_member();
	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, own_rows())
		put_row(rsinfo, NULL, lfirst(lc), true);
	return (Datum) 0;
}

/* _cluster_locks(): behind the views */
Datum
concord_cluster_locks(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		standby = RecoveryInProgress();
	bool		details = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
	const ConcordMap *map;
	ConcordLink **links;
	ConcordReply **replies;
	char	  **names;
	int		   *ids;
	char	   *self;
	int			n;
	ListCell   *lc;

	concord_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	AcceptInvalidationMessages();
	map = concord_map();
	if (map->membership != CONCORD_MEMBER)
		return (Datum) 0;
	self = pstrdup(NameStr(map->self_name));
	n = concord_view_links(map, 0, standby ? NIL : list_make1_int(map->self), &links, &names,
						   &ids);
	replies = concord_view_ask(links, n, "SELECT l.name, l.mode, l.state, l.pid, l.role,"
							   " l.application, l.fence, l.since, l.remaining, l.blockers"
							   " FROM concord._locks() l", 0, NULL, concord_view_deadline());
	if (!standby)
		foreach(lc, own_rows())
		{
			char	  **row = lfirst(lc);

			put_row(rsinfo, self, row, details ||
					(row[LOCK_ROLE] != NULL &&
					 strcmp(row[LOCK_ROLE], GetUserNameFromId(GetUserId(), false)) == 0));
		}
	for (int i = 0; i < n; i++)
	{
		const ConcordReply *reply = replies[i];

		if (reply == NULL || !reply->ok || reply->ncols != LOCK_COLUMNS)
			put_row(rsinfo, names[i], NULL, true);
		else
			for (int row = 0; row < reply->nrows; row++)
				put_row(rsinfo, names[i], &reply->values[row * LOCK_COLUMNS], details);
	}
	return (Datum) 0;
}

/* ---------------------------------------------------------------- counters */

Datum
concord_lock_stats(PG_FUNCTION_ARGS)
{
	static const ConcordCounter counters[] = {
		CONCORD_COUNT_LOCKS, CONCORD_COUNT_LOCK_WAITS, CONCORD_COUNT_LOCK_TIMEOUTS,
		CONCORD_COUNT_LOCKS_LOST, CONCORD_COUNT_FENCED, CONCORD_COUNT_REGISTER_CHANGES,
		CONCORD_COUNT_REGISTER_READS
	};

	return concord_counters_row(fcinfo, counters, lengthof(counters));
}

/* ---------------------------------------------------------------- for the deadlock detector */

/* concord_lease_waits_hook */
static void
put_waits(ConcordPutWait put, void *arg)
{
	int64		lease_until_us;
	int			n;
	ConcordHolding *copies = copy_entries(&n, &lease_until_us);

	for (int i = 0; i < n; i++)
	{
		const ConcordHolding *entry = &copies[i];
		char	   *wait = psprintf(CONCORD_LEASE_WAIT UINT64_FORMAT, entry->serial);
		char	   *lock = psprintf("%s on lease lock \"%.*s\"",
									entry->mode == CONCORD_LOCK_SHARED ? "shared" : "exclusive",
									entry->name_len, entry->name);

		if (entry->state != CONCORD_HOLDING_WAITING || entry->pid == 0 || entry->deadlock)
			continue;
		for (int k = 0; k < entry->nblockers; k++)
			put(entry->pid, wait, lock, entry->blockers[k].node, entry->blockers[k].pid, arg);
	}
}

/* concord_lease_give_up_hook */
static int
give_up(const char *wait, int *pid)
{
	uint64		serial = strtoull(wait + strlen(CONCORD_LEASE_WAIT), NULL, 10);
	int			procno = -1;

	LWLockAcquire(ConcordHoldings->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ConcordHoldings->size && procno < 0; i++)
	{
		ConcordHolding *entry = &ConcordHoldings->entries[i];

		if (entry->serial != serial || entry->dboid != MyDatabaseId ||
			entry->state != CONCORD_HOLDING_WAITING || entry->pid == 0 || entry->deadlock)
			continue;
		entry->deadlock = true;
		*pid = entry->pid;
		procno = entry->procno;
	}
	LWLockRelease(ConcordHoldings->lock);
	return procno;
}

void
concord_lock_views_init(void)
{
	concord_lease_waits_hook = put_waits;
	concord_lease_give_up_hook = give_up;
}
