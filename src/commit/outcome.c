/*
 * outcome.c
 *		What a coordinator answers about its transactions, and what it answers from.
 *
 * WHAT: reads the liveness table, then decisions, horizons and incarnations, and lets
 * core/commit.c judge.  Asked by the resolvers of other nodes (_outcomes), by this node's own,
 * and by whoever calls transaction_outcome() anywhere (_outcome).
 *
 * PROMISE: commit and abort are final: nothing that happens later, here or anywhere, makes them
 * untrue.  Everything else may be asked again.
 *
 * INVARIANTS (numbers of the design)
 * P2 commit is answered only from a row that is committed, and that a synchronous standby, if there
 *    must be one, has (base/standby.c): else it could be lost by a failover, and the answer is
 *    "wait".  A session in the liveness table may still wait for that, or find that its wait
 *    was cancelled; a row of an earlier incarnation counts once all that was recovered is there.
 *    Abort by absence needs no standby: what does not exist here exists on none.
 * P3 A row is never changed, and deleted only below a horizon that was committed before (P7).
 * P4 The liveness table is read first; then one snapshot, newer than the reading, shows
 *    decisions, horizons and incarnations.  A transaction leaves the table after it left the
 *    ProcArray, so whoever is not in the table has its decision in that snapshot or will never
 *    have one.  Absence for an earlier incarnation says so only within one lineage of the storage
 *    (incarnation.c, N3); until this start of the server is recorded, the answer is "wait".
 * O1 A process lives in one incarnation, so an answer is of one; on a standby there is none.
 * O2 A transaction whose gid was told to anybody, in a PREPARE or to its client, records a row if
 *    it commits: so absence speaks for both kinds of askers.
 *
 * What is left when something dies: nothing; all of this only reads.  A lost answer is asked for
 * again, and two who ask at once are told the same, or one of them "wait".
 *
 * LOCKS: ConcordSessionsLock (shared) alone, then AccessShare on three tables, then standby.c's.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "base/shmem.h"
#include "base/standby.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "cluster/room.h"
#include "commit/commit.h"
#include "commit/resolver.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(concord_outcomes);
PG_FUNCTION_INFO_V1(concord_outcome_here);

/* Columns, as commit.sql declares them. */
enum
{
	DECISION_INCARNATION = 1, DECISION_SERIAL, DECISION_LABEL, DECISION_COMMITTED
};
enum
{
	INCARNATION_INCARNATION = 1, INCARNATION_LINEAGE
};
enum
{
	HORIZON_INCARNATION = 1, HORIZON_SERIAL
};

static const char *const verdict_words[CONCORD_VERDICTS] = {
	[CONCORD_VERDICT_COMMIT] = "commit",
	[CONCORD_VERDICT_ABORT] = "abort",
	[CONCORD_VERDICT_WAIT] = "wait",
	[CONCORD_VERDICT_UNKNOWN] = "unknown",
	[CONCORD_VERDICT_FORGOTTEN] = "forgotten",
};

const char *
concord_verdict_word(ConcordVerdict verdict)
{
	return verdict_words[verdict];
}

ConcordVerdict
concord_verdict_of_word(const char *word)
{
	for (int i = 0; i < CONCORD_VERDICTS; i++)
		if (word != NULL && strcmp(word, verdict_words[i]) == 0)
			return (ConcordVerdict) i;
	return CONCORD_VERDICT_UNKNOWN;
}

/*
 * Looks up one row by an index of one of the room's tables, and returns one of its columns, or
 * false when there is no such row.  Nobody's rights matter: what may be told is the caller's
 * business.
 */
static bool
look_up(const char *table, const char *index, Snapshot snapshot, ScanKey keys, int nkeys,
		AttrNumber column, Datum *value)
{
	Oid			schema = get_namespace_oid("concord", false);
	Relation	relation = table_open(get_relname_relid(table, schema), AccessShareLock);
	SysScanDesc scan = systable_beginscan(relation, get_relname_relid(index, schema), true,
										  snapshot, nkeys, keys);
	HeapTuple	tuple = systable_getnext(scan);
	bool		found = HeapTupleIsValid(tuple);
	bool		isnull;

	if (found)
		*value = heap_getattr(tuple, column, RelationGetDescr(relation), &isnull);	/* by value */
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return found;
}

static ConcordDecision
read_decision(Snapshot snapshot, uint64 incarnation, uint64 serial)
{
	ScanKeyData keys[2];
	Datum		committed;

	ScanKeyInit(&keys[0], DECISION_INCARNATION, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum((int64) incarnation));
	ScanKeyInit(&keys[1], DECISION_SERIAL, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum((int64) serial));
	if (!look_up("decision", "decision_pkey", snapshot, keys, 2, DECISION_COMMITTED, &committed))
		return CONCORD_DECISION_NONE;
	return DatumGetBool(committed) ? CONCORD_DECISION_COMMIT : CONCORD_DECISION_ABORT;
}

static bool
read_by_incarnation(Snapshot snapshot, const char *table, const char *index, uint64 incarnation,
					AttrNumber column, Datum *value)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum((int64) incarnation));
	return look_up(table, index, snapshot, &key, 1, column, value);
}

/* *soon is set if more is known when the worker has recorded this start of the server. */
static ConcordIncarnation
read_incarnation(Snapshot snapshot, uint64 incarnation, bool *soon)
{
	Datum		lineage;
	Datum		current;

	if (incarnation == ConcordShared->incarnation)
		return CONCORD_INCARNATION_CURRENT;
	if (!read_by_incarnation(snapshot, "incarnation", "incarnation_pkey", incarnation,
							 INCARNATION_LINEAGE, &lineage))
		return CONCORD_INCARNATION_UNKNOWN;
	if (!read_by_incarnation(snapshot, "incarnation", "incarnation_pkey",
							 ConcordShared->incarnation, INCARNATION_LINEAGE, &current))
	{
		*soon = true;
		return CONCORD_INCARNATION_OLDER_UNCERTAIN;
	}
	return DatumGetInt32(lineage) == DatumGetInt32(current) ?
		CONCORD_INCARNATION_OLDER_CERTAIN : CONCORD_INCARNATION_OLDER_UNCERTAIN;
}

static bool
is_below_horizon(Snapshot snapshot, uint64 incarnation, uint64 serial)
{
	Datum		horizon;

	return read_by_incarnation(snapshot, "horizon", "horizon_pkey", incarnation, HORIZON_SERIAL,
							   &horizon) && serial < (uint64) DatumGetInt64(horizon);
}

/* P2: of a row that is seen; live was observed before. */
static bool
may_be_told(bool live)
{
	return !concord_standbys_wanted() || (!live && concord_standbys_settled(NULL));
}

/* What the snapshot shows of a transaction; live was observed before (P4). */
static void
observe_records(const ConcordGid *gid, Snapshot snapshot, ConcordObservation *seen)
{
	bool		soon = false;

	seen->incarnation = read_incarnation(snapshot, gid->incarnation, &soon);
	seen->decision = read_decision(snapshot, gid->incarnation, gid->serial);
	seen->below_horizon = is_below_horizon(snapshot, gid->incarnation, gid->serial);
	if (seen->decision != CONCORD_DECISION_NONE && !may_be_told(seen->live))
	{
		/* P2: not there yet, and still to come */
		seen->decision = CONCORD_DECISION_NONE;
		seen->live = true;
	}
	seen->live |= soon;
}

static const char *
explain(const ConcordObservation *seen)
{
	if (!seen->coordinator_known)
		return "This node is not the transaction's coordinator.";
	if (seen->below_horizon)
		return "The outcome was kept for concord.outcome_retention, and is deleted.";
	if (seen->incarnation == CONCORD_INCARNATION_UNKNOWN)
		return "The coordinator's storage knows nothing of the server start that ran it: it was put back to an earlier time.";
	return "The coordinator was promoted from a standby or restored from a backup since, which may have lost the decision.";
}

static bool
same_cluster(const ConcordMap *map, const ConcordGid *gid)
{
	return memcmp(gid->cluster, map->cluster_id.data, sizeof(gid->cluster)) == 0;
}

/* A standby has no liveness table and may have a past that its primary does not (O1). */
static void
require_primary(void)
{
	concord_require_preload();
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("the server is a standby"),
				 errdetail("A node is asked at its primary.")));
}

void
concord_outcomes_judge(const ConcordGid *gids, int n, ConcordVerdict *verdicts,
					   const char **details)
{
	ConcordObservation *seen = palloc0(Max(n, 1) * sizeof(ConcordObservation));
	const ConcordMap *map;
	Snapshot	snapshot;

	require_primary();			/* O1 */
	AcceptInvalidationMessages();
	map = concord_map_member();
	for (int i = 0; i < n; i++)
		seen[i].coordinator_known = same_cluster(map, &gids[i]) &&
			gids[i].coordinator == map->self;
	for (int i = 0; i < n; i++)
		seen[i].live = seen[i].coordinator_known &&
			gids[i].incarnation == ConcordShared->incarnation &&
			concord_serial_is_live(gids[i].serial);

	snapshot = RegisterSnapshot(GetLatestSnapshot());	/* P4 */
	for (int i = 0; i < n; i++)
	{
		seen[i].needs_decision = true;	/* O2 */
		observe_records(&gids[i], snapshot, &seen[i]);
		verdicts[i] = concord_commit_judge(&seen[i]);
		details[i] = verdicts[i] == CONCORD_VERDICT_UNKNOWN ||
			verdicts[i] == CONCORD_VERDICT_FORGOTTEN ? explain(&seen[i]) : NULL;
	}
	UnregisterSnapshot(snapshot);
	pfree(seen);
}

/* By label: the same order of looking. */
static const char *
outcome_of_label(const char *label)
{
	bool		live = concord_label_is_live(label);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData key;
	Datum		committed;
	bool		found;

	ScanKeyInit(&key, DECISION_LABEL, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(label));
	found = look_up("decision", "decision_label_key", snapshot, &key, 1, DECISION_COMMITTED,
					&committed);
	UnregisterSnapshot(snapshot);
	if (found && may_be_told(live))
		return concord_verdict_name(DatumGetBool(committed) ? CONCORD_VERDICT_COMMIT :
									CONCORD_VERDICT_ABORT);
	return concord_verdict_name(live || found ? CONCORD_VERDICT_WAIT : CONCORD_VERDICT_UNKNOWN);
}

const char *
concord_outcome_local(const char *gid_or_label)
{
	ConcordGid	gid;
	ConcordVerdict verdict;
	const char *detail;

	require_primary();
	if (concord_gid_parse(gid_or_label, strlen(gid_or_label), &gid) == CONCORD_GID_FOREIGN)
		return outcome_of_label(gid_or_label);
	concord_outcomes_judge(&gid, 1, &verdict, &detail);
	return concord_verdict_name(verdict);
}

Datum
concord_outcome_here(PG_FUNCTION_ARGS)
{
	concord_require_preload();
	concord_require_node_role();
	(void) concord_map_member();
	return CStringGetTextDatum(concord_outcome_local(text_to_cstring(PG_GETARG_TEXT_PP(0))));
}

/* Whoever asks about another's transactions has a wrong address for the coordinator. */
static ConcordGid *
gids_of_array(ArrayType *array, Datum **texts, int *n)
{
	const ConcordMap *map = concord_map_member();
	bool	   *nulls;
	ConcordGid *gids;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, texts, &nulls, n);
	gids = palloc(Max(*n, 1) * sizeof(ConcordGid));
	for (int i = 0; i < *n; i++)
	{
		text	   *gid = nulls[i] ? NULL : DatumGetTextPP((*texts)[i]);

		if (gid == NULL || concord_gid_parse(VARDATA_ANY(gid), VARSIZE_ANY_EXHDR(gid),
											 &gids[i]) == CONCORD_GID_FOREIGN)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid global transaction id")));
		if (!same_cluster(map, &gids[i]) || gids[i].coordinator != map->self)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("this database is not the coordinator of transaction \"%s\"",
							text_to_cstring(gid)),
					 errdetail("It is node %d of cluster %s.", map->self,
							   concord_uuid_text(&map->cluster_id))));
	}
	return gids;
}

Datum
concord_outcomes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum	   *texts;
	int			n;
	ConcordGid *gids;
	ConcordVerdict *verdicts;
	const char **details;

	concord_require_preload();
	concord_require_node_role();
	AcceptInvalidationMessages();
	gids = gids_of_array(PG_GETARG_ARRAYTYPE_P(0), &texts, &n);
	verdicts = palloc(Max(n, 1) * sizeof(ConcordVerdict));
	details = palloc(Max(n, 1) * sizeof(char *));
	concord_outcomes_judge(gids, n, verdicts, details);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		Datum		values[3];
		bool		nulls[3] = {false};

		values[0] = texts[i];
		values[1] = CStringGetTextDatum(verdict_words[verdicts[i]]);
		nulls[2] = details[i] == NULL;
		values[2] = nulls[2] ? (Datum) 0 : CStringGetTextDatum(details[i]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
