/*
 * shmem.c
 *		Allocation and look-up of pg_concord's shared memory.
 *
 * See shmem.h for what lives there and who writes it.  Both tables are small and scanned: a
 * server has a handful of member databases, and peers are looked up by users' sessions only
 * when a connection is opened or closed, never per statement.
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/shmem.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"

ConcordSharedState *ConcordShared = NULL;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static void
concord_shmem_request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(ConcordSharedState)));
	RequestNamedLWLockTranche("pg_concord", 1);
}

static void
concord_shmem_startup(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	ConcordShared = ShmemInitStruct("pg_concord", sizeof(ConcordSharedState), &found);
	if (!found)
	{
		memset(ConcordShared, 0, sizeof(ConcordSharedState));
		ConcordShared->lock = &(GetNamedLWLockTranche("pg_concord"))->lock;
		ConcordShared->launcher_procno = -1;
		if (!pg_strong_random(&ConcordShared->incarnation, sizeof(uint64)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a random incarnation")));
		for (int i = 0; i < CONCORD_MAX_DATABASES; i++)
		{
			ConcordShared->databases[i].worker_procno = -1;
			ConditionVariableInit(&ConcordShared->databases[i].map_cv);
			ConditionVariableInit(&ConcordShared->databases[i].work_cv);
			for (int c = 0; c < CONCORD_COUNTERS; c++)
				pg_atomic_init_u64(&ConcordShared->counts[i].values[c], 0);
		}
		for (int i = 0; i < CONCORD_MAX_PEERS; i++)
		{
			pg_atomic_init_u32(&ConcordShared->peers[i].connections, 0);
			pg_atomic_init_u32(&ConcordShared->peers[i].waiters, 0);
			pg_atomic_init_u32(&ConcordShared->peers[i].granted, 0);
			ConditionVariableInit(&ConcordShared->peers[i].conn_cv);
		}
	}
	LWLockRelease(AddinShmemInitLock);
}

void
concord_shmem_init(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = concord_shmem_request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = concord_shmem_startup;
}

void
concord_require_preload(void)
{
	if (ConcordShared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_concord must be loaded via shared_preload_libraries"),
				 errhint("Add pg_concord to shared_preload_libraries and restart the server.")));
}

ConcordDatabase *
concord_shmem_database(Oid dboid, bool create)
{
	ConcordDatabase *free_entry = NULL;

	Assert(LWLockHeldByMe(ConcordShared->lock));
	for (int i = 0; i < CONCORD_MAX_DATABASES; i++)
	{
		ConcordDatabase *entry = &ConcordShared->databases[i];

		if (entry->dboid == dboid)
			return entry;
		if (!OidIsValid(entry->dboid) && free_entry == NULL)
			free_entry = entry;
	}
	if (!create || free_entry == NULL)
		return NULL;

	Assert(LWLockHeldByMeInMode(ConcordShared->lock, LW_EXCLUSIVE));
	free_entry->dboid = dboid;
	free_entry->state = CONCORD_WORKER_NONE;
	free_entry->worker_pid = 0;
	free_entry->worker_procno = -1;
	free_entry->held_by = 0;
	free_entry->member = false;
	free_entry->no_slot = false;
	free_entry->no_detector_slot = false;
	free_entry->no_registrar_slot = false;
	free_entry->retry_at = 0;
	free_entry->map_epoch = 0;
	free_entry->wanted_epoch = 0;
	free_entry->wanted_from = 0;
	free_entry->incarnation_recorded = false;
	free_entry->owed_lsn = InvalidXLogRecPtr;
	free_entry->resolve_wanted = free_entry->resolve_done = 0;
	free_entry->forget_wanted = free_entry->forget_done = 0;
	free_entry->resolved = 0;
	free_entry->forgotten = 0;
	return free_entry;
}

ConcordPeer *
concord_shmem_peer(Oid dboid, int node_id, bool create)
{
	ConcordPeer *free_entry = NULL;

	Assert(LWLockHeldByMe(ConcordShared->lock));
	for (int i = 0; i < CONCORD_MAX_PEERS; i++)
	{
		ConcordPeer *entry = &ConcordShared->peers[i];

		if (entry->dboid == dboid && entry->node_id == node_id)
			return entry;
		if (!OidIsValid(entry->dboid) && free_entry == NULL)
			free_entry = entry;
	}
	if (!create || free_entry == NULL)
		return NULL;

	Assert(LWLockHeldByMeInMode(ConcordShared->lock, LW_EXCLUSIVE));
	free_entry->dboid = dboid;
	free_entry->node_id = node_id;
	free_entry->health = CONCORD_UNKNOWN;
	free_entry->latency_us = -1;
	free_entry->last_seen = 0;
	free_entry->epoch = 0;
	free_entry->version[0] = '\0';
	free_entry->last_error[0] = '\0';
	free_entry->servable = false;
	free_entry->timeline = 0;
	free_entry->lsn = InvalidXLogRecPtr;
	free_entry->fresh_at_us = 0;
	free_entry->incarnation = 0;
	pg_atomic_write_u32(&free_entry->connections, 0);
	pg_atomic_write_u32(&free_entry->waiters, 0);
	pg_atomic_write_u32(&free_entry->granted, 0);
	return free_entry;
}

void
concord_shmem_forget_peers(Oid dboid, const int *keep, int nkeep)
{
	Assert(LWLockHeldByMeInMode(ConcordShared->lock, LW_EXCLUSIVE));
	for (int i = 0; i < CONCORD_MAX_PEERS; i++)
	{
		ConcordPeer *entry = &ConcordShared->peers[i];
		bool		kept = pg_atomic_read_u32(&entry->connections) > 0 ||
			pg_atomic_read_u32(&entry->waiters) > 0;

		if (entry->dboid != dboid)
			continue;
		for (int k = 0; k < nkeep && !kept; k++)
			kept = entry->node_id == keep[k];
		if (!kept)
			entry->dboid = InvalidOid;
	}
}

static void
poke(int procno)
{
	if (procno >= 0)
		SetLatch(concord_procno_latch(procno));
}

void
concord_poke_worker(Oid dboid)
{
	ConcordDatabase *entry;
	int			procno = -1;

	if (ConcordShared == NULL)
		return;
	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	entry = concord_shmem_database(dboid, false);
	if (entry != NULL)
		procno = entry->worker_procno;
	LWLockRelease(ConcordShared->lock);
	poke(procno);
}

void
concord_poke_launcher(void)
{
	int			procno;

	if (ConcordShared == NULL)
		return;
	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	ConcordShared->rescan = true;
	procno = ConcordShared->launcher_procno;
	LWLockRelease(ConcordShared->lock);
	poke(procno);
}

/* This database's counters, claimed at first use; NULL when there is no room or no preload. */
static ConcordCounts *
my_counts(void)
{
	static ConcordCounts *mine = NULL;

	if (mine != NULL || ConcordShared == NULL || !OidIsValid(MyDatabaseId))
		return mine;
	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < CONCORD_MAX_DATABASES && mine == NULL; i++)
	{
		ConcordCounts *counts = &ConcordShared->counts[i];

		if (!OidIsValid(counts->dboid))
			counts->dboid = MyDatabaseId;
		if (counts->dboid == MyDatabaseId)
			mine = counts;
	}
	LWLockRelease(ConcordShared->lock);
	return mine;
}

void
concord_count(ConcordCounter counter)
{
	ConcordCounts *counts = my_counts();

	if (counts != NULL)
		pg_atomic_fetch_add_u64(&counts->values[counter], 1);
}

uint64
concord_counted(ConcordCounter counter)
{
	ConcordCounts *counts = my_counts();

	return counts != NULL ? pg_atomic_read_u64(&counts->values[counter]) : 0;
}
