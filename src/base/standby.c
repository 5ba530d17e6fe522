/*
 * standby.c
 *		What synchronous standbys have of this server's WAL.
 *
 * WHAT: PostgreSQL lets a COMMIT's wait for its synchronous standbys be cancelled, with a WARNING:
 * the transaction is committed here, and lost if one of them is promoted now.  The same holds for
 * what was flushed when the server crashed: it is visible after the restart, whoever has it.
 * Nobody may act on such a decision, nor be told of it.  So each database keeps the highest end of
 * a commit that was not seen on the standbys (owed), and what it decided is told only when they
 * have that.
 *
 * INVARIANTS
 * S1 owed only grows, and is raised before the transaction leaves the liveness table: whoever does
 *    not find it there, and sees its row in a newer snapshot, sees owed too.
 * S2 WAL has an order: who has flushed up to owed has every decision that owed was raised for.
 *    WalSndCtl->lsn is what enough standbys have; it begins at 0 when the server starts.
 * S3 Whether standbys are wanted is known from the setting and from what the checkpointer has made
 *    of it: one of both is enough.  A session's setting may be old; COMMIT waits by the other.
 *    When an administrator takes the last one away, nothing is owed any more.
 *
 * LOCKS: SyncRepLock (shared), then, after its release, ConcordShared->lock.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/compat.h"
#include "base/shmem.h"
#include "base/standby.h"
#include "miscadmin.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/lwlock.h"

/* S3 */
bool
concord_standbys_wanted(void)
{
	return max_wal_senders > 0 &&
		((SyncRepStandbyNames != NULL && SyncRepStandbyNames[0] != '\0') ||
		 concord_sync_standbys_defined());
}

static XLogRecPtr
flushed_by_standbys(void)
{
	XLogRecPtr	flushed;

	LWLockAcquire(SyncRepLock, LW_SHARED);
	flushed = WalSndCtl->lsn[SYNC_REP_WAIT_FLUSH];
	LWLockRelease(SyncRepLock);
	return flushed;
}

static void
owe(XLogRecPtr end, bool first)
{
	ConcordDatabase *entry;

	if (ConcordShared == NULL)
		return;
	/* a database without an entry tells nothing as long as standbys are wanted */
	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	entry = concord_shmem_database(MyDatabaseId, false);
	if (entry != NULL && (!first || entry->owed_lsn == InvalidXLogRecPtr))
		entry->owed_lsn = Max(entry->owed_lsn, end);
	LWLockRelease(ConcordShared->lock);
}

/* What was found is flushed; what has come since is past it. */
void
concord_standbys_recovered(void)
{
	owe(GetFlushRecPtr(NULL), true);
}

bool
concord_standbys_have(XLogRecPtr commit_end)
{
	if (!concord_standbys_wanted() || flushed_by_standbys() >= commit_end)
		return true;
	owe(commit_end, false);
	return false;
}

bool
concord_standbys_settled(XLogRecPtr *owed)
{
	ConcordDatabase *entry;
	XLogRecPtr	end = InvalidXLogRecPtr;

	if (owed != NULL)
		*owed = InvalidXLogRecPtr;
	if (!concord_standbys_wanted())
		return true;
	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	entry = concord_shmem_database(MyDatabaseId, false);
	if (entry != NULL)
		end = entry->owed_lsn;
	LWLockRelease(ConcordShared->lock);
	if (owed != NULL)
		*owed = end;
	return end != InvalidXLogRecPtr && flushed_by_standbys() >= end;
}
