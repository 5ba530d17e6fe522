/*
 * guard.c
 *		concord.fence_writes: transactions check the fences of the session's lease locks by
 *		themselves.
 *
 * PROMISE: with the setting on, whatever a read-write transaction of a session that holds lease
 * locks reads or writes in a table comes after a concord.check_fence() of each of them in the same
 * transaction, on the same node, and is seen by a snapshot that was taken after it.
 *
 * INVARIANTS
 * U1 The check is done in the hook that every planned statement passes, also those in functions, at
 *	  the first one that names a table which is neither PostgreSQL's nor ours.  So a session whose
 *	  lock was lost can still call concord.unlock().
 * U2 That statement's snapshot is taken anew after the check (READ COMMITTED): the check may have
 *	  waited for an earlier holder's transaction.  Under a snapshot that stays, a mark that was
 *	  changed since is 40001.
 * U3 A subtransaction that is rolled back takes its checks along: they are done again.
 * U4 A branch on another node gets the checks in the same flush as its first statement, and is not
 *	  sent as a transaction of its own (shard/whole.c).
 *
 * COST: off, or without locks, two comparisons a statement.  On: one row is updated in each
 * transaction on each node, for each lock that is held exclusively.
 *
 * WHAT IT DOES NOT DO: guard read-only transactions and reads of replicas, which cannot lock a
 * mark; and COPY, TRUNCATE and other utility commands that read no table by a plan: call
 * concord.check_fence() first.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/settings.h"
#include "catalog/namespace.h"
#include "executor/executor.h"
#include "lock/lock.h"
#include "miscadmin.h"
#include "nodes/plannodes.h"
#include "peer/peer.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

static uint64 done = 0;			/* serial of the last lock whose fence was checked here ... */
static LocalTransactionId done_in = InvalidLocalTransactionId;	/* ... in this transaction */
static bool checking = false;
static ExecutorStart_hook_type previous_start = NULL;

static bool
is_on(void)
{
	return concord_fence_writes && concord_holds_locks() && !XactReadOnly && !checking &&
		!RecoveryInProgress();
}

/* U1 */
static bool
uses_table(const PlannedStmt *plan)
{
	Oid			ours = get_namespace_oid("concord", true);
	ListCell   *lc;

	foreach(lc, plan->rtable)
	{
		const RangeTblEntry *entry = lfirst_node(RangeTblEntry, lc);

		if (entry->rtekind == RTE_RELATION && entry->relid >= FirstNormalObjectId &&
			get_rel_namespace(entry->relid) != ours)
			return true;
	}
	return false;
}

static bool
check_here(void)
{
	ConcordHeldLock *list;
	int			n;

	if (done_in != concord_proc_lxid(MyProc))
		done = 0;
	n = concord_held_locks(done, &list);
	checking = true;
	PG_TRY();
	{
		for (int i = 0; i < n; i++)
			concord_fence_check(list[i].name, list[i].fence);
	}
	PG_FINALLY();
	{
		checking = false;
	}
	PG_END_TRY();
	for (int i = 0; i < n; i++)
		done = Max(done, list[i].serial);
	done_in = concord_proc_lxid(MyProc);
	return n > 0;
}

static void
guard_executor_start(QueryDesc *query, int eflags)
{
	if (is_on() && !(eflags & EXEC_FLAG_EXPLAIN_ONLY) && uses_table(query->plannedstmt) &&
		check_here() && !IsolationUsesXactSnapshot() && query->snapshot != InvalidSnapshot)
	{
		/* U2 */
		Snapshot	old = query->snapshot;

		query->snapshot = RegisterSnapshot(GetTransactionSnapshot());
		UnregisterSnapshot(old);
	}
	if (previous_start)
		previous_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
}

/* U4: concord_branch_guard_hook */
static char *
checks_for_branch(uint64 *branch_done)
{
	ConcordHeldLock *list;
	StringInfoData sql;
	int			n;

	if (!is_on())
		return NULL;
	n = concord_held_locks(*branch_done, &list);
	if (n == 0)
		return NULL;
	initStringInfo(&sql);
	for (int i = 0; i < n; i++)
	{
		appendStringInfo(&sql, "%s concord.check_fence(%s, " INT64_FORMAT ")",
						 i == 0 ? "SELECT" : ",",
						 quote_literal_cstr(text_to_cstring(list[i].name)), list[i].fence);
		*branch_done = Max(*branch_done, list[i].serial);
	}
	return sql.data;
}

/* U3 */
static void
guard_subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent,
					   void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		done = 0;
}

void
concord_guard_init(void)
{
	previous_start = ExecutorStart_hook;
	ExecutorStart_hook = guard_executor_start;
	concord_branch_guard_hook = checks_for_branch;
	RegisterSubXactCallback(guard_subxact_callback, NULL);
}
