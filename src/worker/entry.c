/*
 * entry.c
 *		The life of a database's entry in shared memory.
 *
 * STATES (who takes the edge, with which function)
 *
 *		NONE --launcher, start--> STARTING --worker, claim--> STARTING with a pid
 *		STARTING --worker, run--> RUNNING			it is a member: the worker stays
 *		STARTING, RUNNING --worker's exit, leave--> NONE
 *		STARTING --launcher, start_failed--> NONE	never came to life
 *
 * INVARIANTS
 * E1 A worker connects to its database only between claim and leave, and leave runs after the
 *    process has left the ProcArray.  So worker_pid = 0 means: nothing of ours is in the way.
 * E2 claim fails while held_by is set.  So after hold found worker_pid = 0, or saw it become 0,
 *    no worker enters the database until release.
 * E3 A signal is sent only under the lock and only to worker_pid, which its owner clears under
 *    the same lock before it dies: never to a stranger that got the same pid.
 * E4 At most one process per database is past claim, even if the launcher lost count.
 *
 * retry_at tells how a worker ended: DT_NOEND, it found no member here; 0, whoever held the
 * database has released it; anything else, it failed.
 *
 * An entry is freed while others may still sleep on its map_cv: they look their database up again
 * when they wake, as every sleeper on a condition variable must.
 */
#include "postgres.h"

#include <signal.h>

#include "base/compat.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "worker/entry.h"

static ConcordDatabase *
lock_entry(Oid dboid, LWLockMode mode, bool create)
{
	LWLockAcquire(ConcordShared->lock, mode);
	return concord_shmem_database(dboid, create);
}

static void
unlock(void)
{
	LWLockRelease(ConcordShared->lock);
}

void
concord_entry_view(Oid dboid, ConcordEntryView *view)
{
	ConcordDatabase *entry = lock_entry(dboid, LW_SHARED, false);

	memset(view, 0, sizeof(*view));
	if (entry != NULL)
	{
		view->exists = true;
		view->state = entry->state;
		view->worker_pid = entry->worker_pid;
		view->held_by = entry->held_by;
		view->member = entry->member;
		view->retry_at = entry->retry_at;
	}
	unlock();
}

ConcordEntryStart
concord_entry_start(Oid dboid)
{
	ConcordDatabase *entry = lock_entry(dboid, LW_EXCLUSIVE, true);
	ConcordEntryStart result = CONCORD_START_GRANTED;

	if (entry == NULL)
		result = CONCORD_START_NO_ENTRY;
	else if (entry->held_by != 0)
		result = CONCORD_START_HELD;
	else if (entry->state != CONCORD_WORKER_NONE)
		result = CONCORD_START_EXISTS;
	else
	{
		entry->state = CONCORD_WORKER_STARTING;
		entry->worker_pid = 0;
		entry->worker_procno = -1;
		entry->retry_at = GetCurrentTimestamp();
	}
	unlock();
	return result;
}

void
concord_entry_start_failed(Oid dboid, bool no_slot, TimestampTz retry_at)
{
	ConcordDatabase *entry = lock_entry(dboid, LW_EXCLUSIVE, false);

	if (entry != NULL && entry->worker_pid == 0)
	{
		entry->state = CONCORD_WORKER_NONE;
		entry->no_slot = no_slot;
		entry->retry_at = retry_at;
	}
	unlock();
}

void
concord_entry_stop_worker(Oid dboid)
{
	ConcordDatabase *entry = lock_entry(dboid, LW_SHARED, false);

	if (entry != NULL && entry->worker_pid != 0)
		kill(entry->worker_pid, SIGTERM);	/* E3 */
	unlock();
}

void
concord_entry_forget(Oid dboid, bool even_if_held)
{
	ConcordDatabase *entry = lock_entry(dboid, LW_EXCLUSIVE, false);

	if (entry != NULL && entry->worker_pid == 0 && (even_if_held || entry->held_by == 0))
	{
		concord_shmem_forget_peers(dboid, NULL, 0);
		entry->dboid = InvalidOid;
	}
	unlock();
	if (entry != NULL)
		ConditionVariableBroadcast(&entry->map_cv);
}

/* Fills pids (room for CONCORD_MAX_DATABASES) with the backends that hold databases. */
int
concord_entry_holders(int *pids)
{
	int			n = 0;

	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	for (int i = 0; i < CONCORD_MAX_DATABASES; i++)
	{
		ConcordDatabase *entry = &ConcordShared->databases[i];

		if (OidIsValid(entry->dboid) && entry->held_by != 0)
			pids[n++] = entry->held_by;
	}
	unlock();
	return n;
}

/* Unlike concord_poke_launcher() this does not ask for every database to be looked at again. */
void
concord_entry_wake_launcher(void)
{
	int			procno;

	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	procno = ConcordShared->launcher_procno;
	unlock();
	if (procno >= 0)
		SetLatch(concord_procno_latch(procno));
}

/* May this process be the database's worker?  E2, E4. */
bool
concord_entry_claim(Oid dboid)
{
	ConcordDatabase *entry = lock_entry(dboid, LW_EXCLUSIVE, false);
	bool		granted = entry != NULL && entry->held_by == 0 && entry->worker_pid == 0;

	if (granted)
	{
		entry->state = CONCORD_WORKER_STARTING;
		entry->no_slot = false;
		entry->worker_pid = MyProcPid;
		entry->worker_procno = concord_my_procno();
	}
	else if (entry != NULL && entry->worker_pid == 0)
	{
		/* held: the launcher may forget this attempt */
		entry->state = CONCORD_WORKER_NONE;
		entry->retry_at = 0;
	}
	unlock();
	return granted;
}

/*
 * The database is a member, with a map of this epoch.  Commits raise map_epoch themselves (map.c);
 * here it is set after a start, and lowered where another cluster's map took the place.
 */
void
concord_entry_run(Oid dboid, int64 epoch, bool new_cluster)
{
	ConcordDatabase *entry = lock_entry(dboid, LW_EXCLUSIVE, false);
	bool		started = false;
	bool		news = false;

	if (entry != NULL && entry->worker_pid == MyProcPid)
	{
		started = entry->state != CONCORD_WORKER_RUNNING;
		news = new_cluster || entry->map_epoch < epoch;
		entry->state = CONCORD_WORKER_RUNNING;
		entry->member = true;
		/* the table may be another one since: it is recorded again */
		if (new_cluster)
			entry->incarnation_recorded = false;
		if (news)
			entry->map_epoch = epoch;
		if (new_cluster && entry->wanted_epoch > epoch && !started)
			entry->wanted_epoch = 0;
	}
	unlock();
	if (news)
		ConditionVariableBroadcast(&entry->map_cv);
	if (started)
		concord_entry_wake_launcher();
}

void
concord_entry_not_member(Oid dboid)
{
	ConcordDatabase *entry = lock_entry(dboid, LW_EXCLUSIVE, false);

	if (entry != NULL && entry->worker_pid == MyProcPid)
	{
		entry->member = false;
		entry->incarnation_recorded = false;
		entry->retry_at = DT_NOEND;
	}
	unlock();
}

/* The last thing a worker does; without a worker nobody measures the peers. */
void
concord_entry_leave(Oid dboid)
{
	ConcordDatabase *entry = lock_entry(dboid, LW_EXCLUSIVE, false);
	bool		mine = entry != NULL && entry->worker_pid == MyProcPid;

	if (mine)
	{
		entry->state = CONCORD_WORKER_NONE;
		entry->worker_pid = 0;
		entry->worker_procno = -1;
		for (int i = 0; i < CONCORD_MAX_PEERS; i++)
			if (ConcordShared->peers[i].dboid == dboid)
				ConcordShared->peers[i].health = CONCORD_UNKNOWN;
	}
	unlock();
	if (mine)
	{
		ConditionVariableBroadcast(&entry->map_cv);
		concord_entry_wake_launcher();
	}
}

/* Takes the database for this backend and tells its worker to go.  May be called again. */
ConcordEntryHold
concord_entry_hold(Oid dboid)
{
	ConcordDatabase *entry = lock_entry(dboid, LW_EXCLUSIVE, true);
	ConcordEntryHold result;

	if (entry == NULL)
		result = CONCORD_HOLD_NO_ENTRY;
	else if (entry->held_by != 0 && entry->held_by != MyProcPid)
		result = CONCORD_HOLD_TAKEN;
	else
	{
		entry->held_by = MyProcPid;
		result = entry->worker_pid == 0 ? CONCORD_HOLD_CLEAR : CONCORD_HOLD_LEAVING;
		if (entry->worker_pid != 0)
			kill(entry->worker_pid, SIGTERM);	/* E3 */
	}
	unlock();
	return result;
}

/* Gives back everything a backend holds; entries that served only to hold are freed. */
void
concord_entry_release(int holder)
{
	ConditionVariable *waited_for[CONCORD_MAX_DATABASES];
	int			n = 0;

	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < CONCORD_MAX_DATABASES; i++)
	{
		ConcordDatabase *entry = &ConcordShared->databases[i];

		if (!OidIsValid(entry->dboid) || entry->held_by != holder)
			continue;
		waited_for[n++] = &entry->map_cv;
		entry->held_by = 0;
		entry->retry_at = 0;
		if (entry->state == CONCORD_WORKER_NONE && !entry->member && entry->map_epoch == 0)
			entry->dboid = InvalidOid;
	}
	unlock();
	for (int i = 0; i < n; i++)
		ConditionVariableBroadcast(waited_for[i]);
	concord_entry_wake_launcher();
}

/* What is broadcast when the entry's worker leaves or its holder changes; NULL without an entry. */
ConditionVariable *
concord_entry_cv(Oid dboid)
{
	ConcordDatabase *entry = lock_entry(dboid, LW_SHARED, false);
	ConditionVariable *cv = entry != NULL ? &entry->map_cv : NULL;

	unlock();
	return cv;
}
