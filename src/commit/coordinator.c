/*
 * coordinator.c
 *		What happens on all nodes when a transaction commits or aborts.
 *
 * PROMISE: a transaction that wrote on several nodes is committed on all of them or on none,
 * whatever dies at whatever moment.  The client is told committed, aborted, or (08007) that it
 * is not known.
 *
 * PATHS (core/commit.h has the rules)
 *		one statement is all		it has committed by itself (peer/statement.c): nothing to do
 *		nothing remote written		readers are ended; the local commit is PostgreSQL's own
 *		one writer, nothing here	plain COMMIT there: its answer is the decision
 *		otherwise					two phases
 *
 * TRANSACTION LOCKS.  A branch that holds one and has written nothing is a writer here, as soon as
 * anybody has written: were it just ended, or lost, another transaction could have the lock before
 * there is an outcome.  If nobody has written, it is ended and its answer awaited.
 *
 * TWO PHASES, and what is found if everything dies right after a step
 *	1 serial given, entered in the liveness table				nothing prepared: nothing to do
 *	2 PREPARE sent to all writers in parallel, answers awaited	prepared branches, no decision:
 *	  abort
 *	3 decision row inserted in the local transaction			as 2: the row is not committed
 *	4 local commit, flushed (and waited for on synchronous		decision: commit
 *	  standbys), out of the ProcArray
 *	5 liveness table left (the entry stays for the view)			as 4
 *	  If the wait for the standbys was cancelled, phase two is left to the resolvers: they are
 *	  answered "wait" until the standbys have the decision.
 *	6 COMMIT PREPARED sent to all in parallel, answers awaited	decision: commit; some are done
 *	  (to those that hold transaction locks last: who gets the lock then sees what was written)
 * In 2 to 6 each participant's own worker finishes its branch by asking this node (resolver.c).
 *
 * INVARIANTS (numbers of the design)
 * P2 COMMIT PREPARED is sent only in step 6, after the commit record of the row is durable, on the
 *    synchronous standbys too: COMMIT waits for them, but whoever cancels that wait gets a WARNING
 *    and not an error, so it is looked at again (base/standby.c).
 * P4 The liveness table is entered before step 2 and left after step 4 or after the abort.
 * P5 After step 4 nothing raises: what is not finished costs a WARNING and is left to the resolver.
 * K1 The decision commits with synchronous_commit = on at least, and ForceSyncCommit().
 * K2 A gid that was reported to the client, or a label, is always recorded: such a transaction
 *    takes two phases even with a single writer, so that the absence of a decision means abort.
 *
 * COST beside the statements' own round trips (test/t/012_round_trips.pl counts):
 *		one statement is all		none: its round trip is the commit's too; one flush there
 *		one phase					one round trip for COMMIT; one flush there
 *		only locks					one round trip for COMMIT
 *		two phases, n writers		one round trip for PREPARE and one for COMMIT PREPARED, each in
 *									parallel; two flushes on each participant, one here; one round
 *									trip more if some hold transaction locks and others none
 *
 * WHAT IT DOES NOT DO: serialize readers across nodes (SERIALIZABLE holds on each node by itself).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "base/fault.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "base/standby.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commit/commit.h"
#include "commit/coordinator.h"
#include "commit/resolver.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "peer/peer.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/uuid.h"

/* The running transaction's part in this room; empty between transactions. */
typedef struct Running
{
	ConcordTxState state;		/* core's; ACTIVE between transactions */
	uint64		serial;			/* 0 = none given */
	bool		reported;		/* the client was told the gid (K2) */
	bool		recorded;		/* a decision row was inserted */
	ConcordConn **prepared;		/* in TopTransactionContext; NULL = no two phases */
	int			nprepared;
} Running;

static Running running;
static ExecutorFinish_hook_type previous_finish = NULL;

/* Core's table allows the step, and asks for this action. */
static void
step(ConcordTxEvent event, ConcordTxAction expected)
{
	ConcordTxAction action = CONCORD_TX_DO_NOTHING;
	bool		allowed PG_USED_FOR_ASSERTS_ONLY = concord_tx_step(&running.state, event, &action);

	Assert(allowed && action == expected);
	(void) action;
}

/* ------------------------------------------------------------------ gid */

static void
fill_gid(ConcordGid *gid)
{
	const ConcordMap *map = concord_map_member();

	memset(gid, 0, sizeof(*gid));
	memcpy(gid->cluster, map->cluster_id.data, UUID_LEN);
	gid->coordinator = map->self;
	gid->incarnation = ConcordShared->incarnation;
	gid->serial = running.serial;
	gid->protocol = CONCORD_PROTOCOL_2PC;
}

static void
give_serial(void)
{
	if (running.serial == 0)
		running.serial = concord_liveness_enter(concord_transaction_label);
}

/* For the view: the nodes written on, or with locks, so far. */
static void
show_participants(void)
{
	int			n;
	ConcordConn **writers = concord_branches(true, &n);
	int16	   *participants = palloc(Max(n, 1) * sizeof(int16));

	for (int i = 0; i < n; i++)
		participants[i] = (int16) concord_branch_node(writers[i]);
	concord_liveness_participants(participants, n);
}

/*
 * Tells the client the gid, in the answer of the statement that made the transaction distributed.
 */
static void
report_gid(void)
{
	ConcordGid	gid;
	char		text[CONCORD_GID_SIZE];

	give_serial();
	running.reported = true;
	show_participants();
	fill_gid(&gid);
	concord_gid_format_transaction(&gid, text);
	if (strcmp(concord_transaction, text) != 0)
		(void) set_config_option("concord.transaction", text, PGC_INTERNAL, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, WARNING, false);
}

/* Has the transaction become one that takes two phases? */
static void
look_for_writers(void)
{
	bool		local = TransactionIdIsValid(GetTopTransactionIdIfAny());
	int			bound = concord_branches_bound();

	if (bound > 0 && bound + (local ? 1 : 0) >= 2 && (local || concord_branches_writing() > 0) &&
		!IsInParallelMode())
		report_gid();
}

static void
coordinator_executor_finish(QueryDesc *query)
{
	if (previous_finish)
		previous_finish(query);
	else
		standard_ExecutorFinish(query);
	if (concord_branches_any() && !running.reported)
		look_for_writers();
}

/* ------------------------------------------------------------- decision */

static Datum
participants_datum(const int16 *participants, int n)
{
	Datum	   *elements = palloc(Max(n, 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		elements[i] = Int16GetDatum(participants[i]);
	return PointerGetDatum(construct_array(elements, n, INT2OID, 2, true, TYPALIGN_SHORT));
}

/* Columns: incarnation, serial, label, committed, participants, decided_at. */
void
concord_decision_write(uint64 serial, const char *label, const int16 *participants, int n)
{
	Oid			schema = get_namespace_oid("concord", false);
	Relation	relation = table_open(get_relname_relid("decision", schema), RowExclusiveLock);
	Datum		values[6];
	bool		nulls[6] = {false};

	values[0] = Int64GetDatum((int64) ConcordShared->incarnation);
	values[1] = Int64GetDatum((int64) serial);
	nulls[2] = label[0] == '\0';
	values[2] = nulls[2] ? (Datum) 0 : CStringGetTextDatum(label);
	values[3] = BoolGetDatum(true);
	values[4] = participants_datum(participants, n);
	values[5] = TimestampTzGetDatum(GetCurrentTimestamp());
	CatalogTupleInsert(relation, heap_form_tuple(RelationGetDescr(relation), values, nulls));
	table_close(relation, RowExclusiveLock);
}

/* K1 */
static void
insist_on_durability(void)
{
	if (synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_FLUSH)
		(void) set_config_option("synchronous_commit", "on", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, ERROR, false);
	ForceSyncCommit();
}

static void
record(const int16 *participants, int n)
{
	give_serial();
	concord_liveness_state(CONCORD_TXN_DECIDED);
	concord_decision_write(running.serial, concord_transaction_label, participants, n);
	running.recorded = true;
	insist_on_durability();
}

/* ----------------------------------------------------------- pre-commit */

static void
two_phases(ConcordConn **writers, int n)
{
	char		(*gids)[CONCORD_GID_SIZE] = palloc(n * CONCORD_GID_SIZE);
	int16	   *participants = palloc(n * sizeof(int16));
	ConcordGid	gid;

	concord_incarnation_await();
	give_serial();
	fill_gid(&gid);
	for (int i = 0; i < n; i++)
	{
		participants[i] = gid.participant = (int16) concord_branch_node(writers[i]);
		gid.branch = i + 1;
		concord_gid_format(&gid, gids[i]);
	}
	concord_liveness_participants(participants, n);
	concord_liveness_state(CONCORD_TXN_PREPARING);	/* P4 */

	concord_fault("coordinator_before_prepare");
	concord_branches_prepare(writers, gids, n);
	step(CONCORD_TX_ALL_PREPARED, CONCORD_TX_DO_RECORD);
	concord_fault("coordinator_after_prepare");
	record(participants, n);
	running.prepared = writers;
	running.nprepared = n;
	concord_fault("coordinator_after_decision");
}

static void
pre_commit(void)
{
	bool		labelled = concord_transaction_label[0] != '\0';
	bool		local = TransactionIdIsValid(GetTopTransactionIdIfAny());
	MemoryContext old;
	ConcordConn **readers;
	ConcordConn **writers;
	int			nreaders;
	int			nwriters;
	bool		written;
	ConcordCommitPlan plan;

	if (!concord_branches_any() && !(labelled && local))
		return;
	/* needed until after the commit */
	old = MemoryContextSwitchTo(TopTransactionContext);
	writers = concord_branches(true, &nwriters);
	readers = concord_branches(false, &nreaders);
	/* a serializable reader's answer is awaited (await_readers), before anything is decided */
	for (int i = 0; i < nreaders; i++)
		concord_branch_end_reader(readers[i]);
	written = local || concord_branches_writing() > 0;
	if (!written)
		concord_branches_release(writers, nwriters);
	plan = concord_commit_plan(&(ConcordCommitWork) {
		.writing_branches = written ? nwriters : 0,
		.serializable_readers = XactIsoLevel == XACT_SERIALIZABLE ? nreaders : 0,
		.local_writes = local || (nwriters > 0 && (labelled || running.reported)),	/* K2 */
		.local_serializable = XactIsoLevel == XACT_SERIALIZABLE,
		.labelled = labelled
	});

	switch (plan.path)
	{
		case CONCORD_PATH_LOCAL:
			step(CONCORD_TX_TAKE_LOCAL, CONCORD_TX_DO_COMMIT_LOCAL);
			if (labelled && local)
				record(NULL, 0);
			break;
		case CONCORD_PATH_ONE_PHASE:
			step(CONCORD_TX_TAKE_ONE_PHASE, CONCORD_TX_DO_SEND_COMMIT);
			concord_fault("coordinator_before_one_phase");
			concord_branch_commit(writers[0]);
			step(CONCORD_TX_BRANCH_COMMITTED, CONCORD_TX_DO_COMMIT_LOCAL);
			concord_count(CONCORD_COUNT_COMMITTED_1PC);
			break;
		case CONCORD_PATH_TWO_PHASE:
			step(CONCORD_TX_TAKE_TWO_PHASE, CONCORD_TX_DO_PREPARE);
			two_phases(writers, nwriters);
			break;
	}
	MemoryContextSwitchTo(old);
}

/* ----------------------------------------------------------- the end */

/* P2: the decision is not safe, so nobody may act on it yet; the branches are as if unreachable. */
static void
leave_to_resolvers(void)
{
	step(CONCORD_TX_ENDED, CONCORD_TX_DO_RELEASE);
	for (int i = 0; i < running.nprepared; i++)
		concord_count(CONCORD_COUNT_UNFINISHED);
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("the transaction is committed here, but the other nodes have not finished it"),
			 errdetail("No synchronous standby is known to have the decision."),
			 errhint("They finish it by themselves when the standby has it.")));
}

/* P5 */
static void
phase_two(bool replicated)
{
	const char *node = NULL;
	const char *why = NULL;
	int			unfinished;

	step(CONCORD_TX_LOCAL_COMMIT, CONCORD_TX_DO_LEAVE);
	concord_fault("coordinator_after_commit");
	concord_liveness_state(CONCORD_TXN_FINISHING);	/* seen, but not live any more */
	step(CONCORD_TX_LEFT, CONCORD_TX_DO_COMMIT_PREPARED);
	if (!replicated)
	{
		leave_to_resolvers();
		return;
	}
	unfinished = concord_branches_finish(running.prepared, running.nprepared,
										 concord_commit_wait ? concord_commit_timeout_ms : 0,
										 &node, &why);
	step(CONCORD_TX_ENDED, CONCORD_TX_DO_RELEASE);
	concord_fault("coordinator_after_phase_two");
	for (int i = 0; i < unfinished; i++)
		concord_count(CONCORD_COUNT_UNFINISHED);
	if (unfinished > 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("the transaction is committed, but node \"%s\" has not finished it yet",
						node),
				 errdetail_internal("%s", why),
				 errhint("The node finishes it by itself as soon as it can.")));
}

static void
forget(void)
{
	if (running.serial != 0)
		concord_liveness_leave();
	memset(&running, 0, sizeof(running));
}

static void
coordinator_callback(XactEvent event, void *arg)
{
	bool		replicated;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (concord_branches_any() || concord_transaction_label[0] != '\0')
				pre_commit();
			break;
		case XACT_EVENT_COMMIT:
			/* before the liveness table is left, see base/standby.c */
			replicated = !running.recorded || concord_standbys_have(XactLastCommitEnd);
			if (running.prepared != NULL)
			{
				phase_two(replicated);
				concord_count(CONCORD_COUNT_COMMITTED_2PC);
			}
			forget();
			break;
		case XACT_EVENT_ABORT:
			if (running.serial != 0)
				concord_count(CONCORD_COUNT_ABORTED);
			forget();
			break;
		default:
			break;
	}
}

void
concord_commit_init(void)
{
	RegisterXactCallback(coordinator_callback, NULL);
	concord_administer_init();
	previous_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = coordinator_executor_finish;
	concord_writing_hook = look_for_writers;
	if (process_shared_preload_libraries_in_progress)
		concord_liveness_init();
}
