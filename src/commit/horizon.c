/*
 * horizon.c
 *		Which decisions can be deleted (P7).
 *
 * WHAT: finds, for each incarnation, the serial below which all decisions are old enough and no
 * transaction is live.  The worker (duty_forget.c) lowers it to what is prepared anywhere, stores
 * it as the horizon, and then deletes.
 *
 * PROMISE: a decision is deleted only when nobody can need it any more who could be asked; whoever
 * asks for it all the same (a late PREPARE, a standby promoted with old branches) is answered
 * "forgotten", never abort.
 *
 * INVARIANTS
 * Z1 Order: (1) the old rows are read, which bounds the horizon to serials that were given out;
 *    (2) the liveness table; (3) the prepared lists of all nodes of the map, this one included.
 *    A transaction below the bound is live at (2), or has ended: then each branch of it that is
 *    not finished was prepared before (3), and seen, or its PREPARE is still on its way after the
 *    session has gone, and it will find the horizon.
 * Z2 If one node does not answer at (3), nothing is deleted.
 * Z3 The horizon is committed before the first row goes, so no snapshot shows neither.  It only
 *    grows, and never goes: for an incarnation that is over and has no rows left it is the
 *    highest number there is.
 * Z4 A row of another node's incarnation is only a note for whoever asks by label: its age alone
 *    counts.
 *
 * What is left when something dies: a horizon without its deletions, which the next round makes
 * good.  Two at once: there is one worker a database; raising and deleting twice does no more
 * than once.
 */
#include "postgres.h"

#include "base/shmem.h"
#include "catalog/pg_type.h"
#include "commit/commit.h"
#include "commit/resolver.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

static ConcordForget *
read_row(HeapTuple row, TupleDesc desc)
{
	ConcordForget *forget = SPI_palloc(sizeof(ConcordForget));
	bool		isnull;

	forget->incarnation = (uint64) DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
	forget->lowest = (uint64) DatumGetInt64(SPI_getbinval(row, desc, 2, &isnull));
	forget->horizon = (uint64) DatumGetInt64(SPI_getbinval(row, desc, 3, &isnull));
	forget->own = DatumGetBool(SPI_getbinval(row, desc, 4, &isnull));
	return forget;
}

List *
concord_forget_candidates(int64 retention_us)
{
	MemoryContext caller = CurrentMemoryContext;
	Interval   *retention = palloc0(sizeof(Interval));
	Oid			types[3] = {INTERVALOID, INT8OID, INT4OID};
	Datum		values[3];
	List	   *result = NIL;
	ListCell   *lc;

	retention->time = retention_us;
	values[0] = IntervalPGetDatum(retention);
	values[1] = Int64GetDatum((int64) ConcordShared->incarnation);
	values[2] = Int32GetDatum(CONCORD_FORGET_BATCH);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args("SELECT incarnation, lowest, horizon, own"
							  " FROM concord._forgettable($1, $2, $3)",
							  lengthof(types), types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for old decisions");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext spi = MemoryContextSwitchTo(caller);

		result = lappend(result, read_row(SPI_tuptable->vals[i], SPI_tuptable->tupdesc));
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();

	/* Z1: after the rows were read */
	foreach(lc, result)
		if (((ConcordForget *) lfirst(lc))->incarnation == ConcordShared->incarnation)
			concord_forget_limit(result, ConcordShared->incarnation,
								 concord_lowest_live_serial());
	return result;
}

void
concord_forget_limit(List *candidates, uint64 incarnation, uint64 serial)
{
	ListCell   *lc;

	foreach(lc, candidates)
	{
		ConcordForget *forget = lfirst(lc);

		if (forget->incarnation == incarnation)
			forget->horizon = Min(forget->horizon, serial);
	}
}
