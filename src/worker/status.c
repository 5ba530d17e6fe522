/*
 * status.c
 *		What the launcher and the workers are doing, for the view concord.workers.
 *
 * WHAT: reads shared memory as it is now.  Works on a standby too, where nothing runs.
 */
#include "postgres.h"

#include "base/shmem.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

#define STATUS_COLUMNS	8

PG_FUNCTION_INFO_V1(concord_workers);

static const char *
entry_state(const ConcordDatabase *entry)
{
	if (entry->held_by != 0)
		return "held";
	switch (entry->state)
	{
		case CONCORD_WORKER_RUNNING:
			return "running";
		case CONCORD_WORKER_STARTING:
			return "starting";
		case CONCORD_WORKER_NONE:
			break;
	}
	return entry->no_slot ? "no free worker slot" : "stopped";
}

static void
put_integer(Datum *value, bool *null, int number)
{
	*null = number == 0;
	*value = Int32GetDatum(number);
}

static void
fill_launcher(Datum *values, bool *nulls)
{
	memset(nulls, true, STATUS_COLUMNS * sizeof(bool));
	values[0] = CStringGetTextDatum("launcher");
	nulls[0] = false;
	put_integer(&values[2], &nulls[2], ConcordShared->launcher_pid);
	values[3] = CStringGetTextDatum(ConcordShared->launcher_pid != 0 ? "running" : "stopped");
	nulls[3] = false;
}

static void
fill_worker(const ConcordDatabase *entry, Datum *values, bool *nulls)
{
	bool		waits = entry->state == CONCORD_WORKER_NONE && entry->retry_at != 0 &&
		!TIMESTAMP_NOT_FINITE(entry->retry_at);

	memset(nulls, false, STATUS_COLUMNS * sizeof(bool));
	values[0] = CStringGetTextDatum("worker");
	values[1] = ObjectIdGetDatum(entry->dboid);
	put_integer(&values[2], &nulls[2], entry->worker_pid);
	values[3] = CStringGetTextDatum(entry_state(entry));
	put_integer(&values[4], &nulls[4], entry->held_by);
	values[5] = TimestampTzGetDatum(entry->retry_at);
	nulls[5] = !waits;
	values[6] = Int64GetDatum(entry->map_epoch);
	values[7] = Int64GetDatum(Max(entry->map_epoch, entry->wanted_epoch));
}

/* One row for the launcher and one for each database in the shared table. */
Datum
concord_workers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result;
	ConcordDatabase entry;
	Datum		values[STATUS_COLUMNS];
	bool		nulls[STATUS_COLUMNS];

	concord_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	result = (ReturnSetInfo *) fcinfo->resultinfo;
	fill_launcher(values, nulls);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	for (int i = 0; i < CONCORD_MAX_DATABASES; i++)
	{
		LWLockAcquire(ConcordShared->lock, LW_SHARED);
		entry = ConcordShared->databases[i];
		LWLockRelease(ConcordShared->lock);
		if (!OidIsValid(entry.dboid))
			continue;
		fill_worker(&entry, values, nulls);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
