/*
 * duty_registrar.c
 *		Keeps the registrar running, which proposes registers and locks for this database.
 *
 * WHAT: a process of its own, since a lock must not wait for whatever else the worker does.  The
 * worker starts it, starts it again, and ends it before it ends itself, so that whoever wants the
 * database to himself has to wait for one process only.
 *
 * What a crash leaves: a registrar without a worker (the worker was killed so that nothing of it
 * could run: then the postmaster ends all processes), or a worker without a registrar: started.
 */
#include "postgres.h"

#include "base/shmem.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "quorum/desk.h"
#include "worker/duty.h"

static BackgroundWorkerHandle *handle = NULL;

static void
note_slot(bool missing)
{
	ConcordDatabase *entry;
	bool		news = false;

	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	entry = concord_shmem_database(MyDatabaseId, false);
	if (entry != NULL)
	{
		news = missing && !entry->no_registrar_slot;
		entry->no_registrar_slot = missing;
	}
	LWLockRelease(ConcordShared->lock);
	if (news)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("pg_concord has no free background worker slot for the registrar"),
				 errhint("Increase max_worker_processes; without it there are no registers and locks.")));
}

static void
start(void)
{
	BackgroundWorker worker;
	MemoryContext old;

	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_name, BGW_MAXLEN, "pg_concord registrar");
	snprintf(worker.bgw_type, BGW_MAXLEN, "pg_concord registrar");
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "pg_concord");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "concord_registrar_main");
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	old = MemoryContextSwitchTo(ConcordWorker.context);
	note_slot(!RegisterDynamicBackgroundWorker(&worker, &handle));
	MemoryContextSwitchTo(old);
}

void
concord_duty_registrar(void *unused)
{
	pid_t		pid;

	(void) unused;
	if (handle != NULL)
	{
		if (GetBackgroundWorkerPid(handle, &pid) != BGWH_STOPPED)
			return;
		pfree(handle);
		handle = NULL;
	}
	if (ConcordWorker.membership == CONCORD_MEMBER)
		start();
}

void
concord_registrar_end(void)
{
	if (handle == NULL)
		return;
	TerminateBackgroundWorker(handle);
	(void) WaitForBackgroundWorkerShutdown(handle);
	handle = NULL;
}
