/*
 * table.c
 *		The shared memory of lease locks, see the header.
 */
#include "postgres.h"

#include <signal.h>

#include "base/settings.h"
#include "lock/lock.h"
#include "lock/table.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"

ConcordHoldingTable *ConcordHoldings = NULL;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static Size
holdings_size(void)
{
	return add_size(offsetof(ConcordHoldingTable, entries),
					mul_size(sizeof(ConcordHolding), concord_max_locks));
}

static void
holdings_request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(holdings_size());
	RequestNamedLWLockTranche("pg_concord locks", 1);
}

static void
holdings_startup(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	ConcordHoldings = ShmemInitStruct("pg_concord locks", holdings_size(), &found);
	if (!found)
	{
		memset(ConcordHoldings, 0, holdings_size());
		ConcordHoldings->lock = &(GetNamedLWLockTranche("pg_concord locks"))->lock;
		ConcordHoldings->size = concord_max_locks;
		dlist_init(&ConcordHoldings->free);
		for (int i = 0; i < concord_max_locks; i++)
			dlist_push_tail(&ConcordHoldings->free, &ConcordHoldings->entries[i].node);
		for (int i = 0; i < CONCORD_MAX_DATABASES; i++)
			dlist_init(&ConcordHoldings->databases[i].queue);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
concord_holdings_init(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = holdings_request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = holdings_startup;
}

/* Entries are claimed and never given back, as the counters are (base/shmem.h). */
ConcordHoldingDatabase *
concord_holding_database(Oid dboid, bool create)
{
	for (int i = 0; i < CONCORD_MAX_DATABASES; i++)
	{
		ConcordHoldingDatabase *database = &ConcordHoldings->databases[i];

		if (database->dboid == dboid)
			return database;
		if (!OidIsValid(database->dboid))
		{
			if (!create)
				return NULL;
			database->dboid = dboid;
			return database;
		}
	}
	return NULL;
}

void
concord_holding_queue(ConcordHolding *entry)
{
	ConcordHoldingDatabase *database = concord_holding_database(entry->dboid, true);

	/* without room for the database no entry was made */
	if (entry->queued || database == NULL)
		return;
	entry->queued = true;
	dlist_push_tail(&database->queue, &entry->node);
}

void
concord_holding_lose(ConcordHolding *entry)
{
	entry->state = CONCORD_HOLDING_LOST;
	concord_holding_queue(entry);
	concord_count(CONCORD_COUNT_LOCKS_LOST);
	if (entry->pid == 0)
		return;
	if (entry->on_loss == CONCORD_ON_LOSS_TERMINATE)
		(void) kill(entry->pid, SIGTERM);
	else if (entry->on_loss == CONCORD_ON_LOSS_CANCEL)
		(void) kill(entry->pid, SIGINT);
	SetLatch(concord_procno_latch(entry->procno));
}
