/*
 * incarnation.c
 *		The starts of this server, as far as atomic commit must remember them.
 *
 * WHAT: concord.incarnation has a row for each start of the server in which a transaction of this
 * database may have been prepared somewhere, and numbers the lineage of its storage.  The
 * maintenance worker writes it, coordinators wait for it.
 *
 * PROMISE: a gid of this node names an incarnation that is recorded, unless the storage was
 * put back to a time before it.  That is how "not recorded" comes to mean "cannot tell" (P4).
 *
 * INVARIANTS
 * N1 The row is flushed before the flag in shared memory is set, and the flag is seen before the
 *    first PREPARE of this incarnation is sent.  A standby that was promoted without the row has
 *    none of the decisions that came after it either: WAL has an order.
 * N2 The flag is cleared whenever the worker starts, or finds that the database is not a member
 *    of its cluster any more: the table may have been dropped with the extension.
 * N3 A lineage ends when the server comes up on another timeline than the last recorded one, or
 *    from another base backup, which leaves backup_label.old: then what an earlier incarnation
 *    decided may be missing.  It is not seen if files of a stopped server were put back: only an
 *    archive recovery, which begins a new timeline, tells that.
 * N4 The timeline does not change while an incarnation coordinates: it changes in recovery, where
 *    no worker runs.
 *
 * What is left when something dies: a row without transactions (the worker died before it set
 * the flag; the next one finds the row and sets it), or a flag and a row: both harmless.
 * Two workers at once do not exist (E4); if they did, the row would be written once.
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "base/standby.h"
#include "commit/resolver.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/wait_event.h"

#define WAIT_SLICE_MS 100

/* Reads the entry; returns what to sleep on, NULL without an entry. */
static ConditionVariable *
read_entry(bool *recorded)
{
	ConcordDatabase *entry;

	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	entry = concord_shmem_database(MyDatabaseId, false);
	*recorded = entry != NULL && entry->incarnation_recorded;
	LWLockRelease(ConcordShared->lock);
	return entry != NULL ? &entry->work_cv : NULL;
}

bool
concord_incarnation_recorded(void)
{
	bool		recorded;

	(void) read_entry(&recorded);
	return recorded;
}

pg_noreturn static void
not_recorded(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this server cannot coordinate a distributed transaction yet"),
			 errdetail("The maintenance worker of this database has not recorded the server's start."),
			 errhint("concord.check_cluster() tells whether the worker runs.")));
}

void
concord_incarnation_await(void)
{
	TimestampTz until;
	ConditionVariable *cv;
	bool		recorded;

	concord_require_preload();
	cv = read_entry(&recorded);
	if (likely(recorded))
		return;
	if (cv == NULL)
		not_recorded();

	until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), concord_connect_timeout_ms);
	concord_poke_worker(MyDatabaseId);
	ConditionVariablePrepareToSleep(cv);
	while (read_entry(&recorded), !recorded)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		if (left <= 0)
			break;
		(void) ConditionVariableTimedSleep(cv, Min(left, WAIT_SLICE_MS),
										   concord_wait_event("ConcordIncarnation"));
	}
	ConditionVariableCancelSleep();
	if (!recorded)
		not_recorded();
}

/*
 * N1: called after the commit.  A decision that was flushed when the server crashed is visible now,
 * though its session may still have waited for a synchronous standby: it lies before the row.
 */
void
concord_incarnation_mark(void)
{
	ConcordDatabase *entry;

	concord_standbys_recovered();
	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	entry = concord_shmem_database(MyDatabaseId, false);
	if (entry != NULL)
		entry->incarnation_recorded = true;
	LWLockRelease(ConcordShared->lock);
	if (entry != NULL)
		ConditionVariableBroadcast(&entry->work_cv);
}
