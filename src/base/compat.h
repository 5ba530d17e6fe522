/*
 * compat.h
 *		Every difference between the PostgreSQL versions pg_concord is built for (15 to 18).
 */
#ifndef CONCORD_COMPAT_H
#define CONCORD_COMPAT_H

#include "postgres.h"
#include "replication/walsender_private.h"
#include "storage/proc.h"

#if PG_VERSION_NUM < 150000
#error "pg_concord needs PostgreSQL 15 or newer"
#endif

/* 16 moved the macros of variable-length values into a header of their own */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 18 made a structure of a statement's RETURNING (nodes/parsenodes.h); 17 gave one to MERGE */
#if PG_VERSION_NUM >= 180000
#define concord_returns_rows(statement) ((statement)->returningClause != NULL)
#else
#define concord_returns_rows(statement) ((statement)->returningList != NIL)
#endif
#if PG_VERSION_NUM >= 170000
#define concord_merge_returns_rows(statement) concord_returns_rows(statement)
#else
#define concord_merge_returns_rows(statement) false
#endif

/* 18 put the mark of a function that does not return in front of it */
#ifndef pg_noreturn
#define pg_noreturn __attribute__((noreturn))
#endif

/* 17 turned a process's number in ProcGlobal->allProcs into ProcNumber */
#if PG_VERSION_NUM >= 170000
#define concord_my_procno() ((int) MyProcNumber)
#define concord_procno_latch(no) (&GetPGProcByNumber(no)->procLatch)
#else
#define concord_my_procno() (MyProc->pgprocno)
#define concord_procno_latch(no) (&ProcGlobal->allProcs[no].procLatch)
#endif

/* 17 made a structure of a process's virtual transaction id, also in a lock's description */
#if PG_VERSION_NUM >= 170000
#define concord_proc_lxid(proc) ((proc)->vxid.lxid)
#define concord_lock_vxid(lock) ((lock)->vxid)
#else
#define concord_proc_lxid(proc) ((proc)->lxid)
#define concord_lock_vxid(lock) \
	((VirtualTransactionId) {(lock)->backend, (lock)->lxid})
#endif

/* 16 renamed the access to the n-th (from 1) backend's status (utils/backend_status.h) */
#if PG_VERSION_NUM >= 160000
#define concord_backend_status(n) (&pgstat_get_local_beentry_by_index(n)->backendStatus)
#else
#define concord_backend_status(n) (&pgstat_fetch_stat_local_beentry(n)->backendStatus)
#endif

/* 18 gave replication origins a limit of their own */
#if PG_VERSION_NUM >= 180000
#include "replication/origin.h"
#define concord_max_origins() (max_active_replication_origins)
#else
#include "replication/slot.h"
#define concord_max_origins() (max_replication_slots)
#endif

/* 17 gave wait events of extensions names of their own; before, all are "Extension" */
#if PG_VERSION_NUM >= 170000
#include "utils/wait_event.h"
#define concord_wait_event(name) WaitEventExtensionNew(name)
#else
#define concord_wait_event(name) PG_WAIT_EXTENSION
#endif

/* 17 made wait event sets owned by a resource owner */
#if PG_VERSION_NUM >= 170000
#define concord_create_wait_set(n) CreateWaitEventSet(CurrentResourceOwner, n)
#define concord_create_lasting_wait_set(n) CreateWaitEventSet(NULL, n)
#else
#define concord_create_wait_set(n) CreateWaitEventSet(CurrentMemoryContext, n)
#define concord_create_lasting_wait_set(n) CreateWaitEventSet(CurrentMemoryContext, n)
#endif

/* 16 made one function of all ownership checks (catalog/pg_database.h, utils/acl.h) */
#if PG_VERSION_NUM >= 160000
#define concord_owns_database(dboid, role) object_ownercheck(DatabaseRelationId, dboid, role)
#else
#define concord_owns_database(dboid, role) pg_database_ownercheck(dboid, role)
#endif

/* a minor release of each turned the flag into bits; read without a lock, as COMMIT does */
#ifdef SYNC_STANDBY_DEFINED
#define concord_sync_standbys_defined() \
	((((volatile WalSndCtlData *) WalSndCtl)->sync_standbys_status & SYNC_STANDBY_DEFINED) != 0)
#else
#define concord_sync_standbys_defined() \
	(((volatile WalSndCtlData *) WalSndCtl)->sync_standbys_defined)
#endif

/* 17 renamed the look into the client's input that has been received (libpq/libpq.h) */
#if PG_VERSION_NUM >= 170000
#define concord_client_input_waits() (pq_buffer_remaining_data() > 0)
#else
#define concord_client_input_waits() pq_buffer_has_data()
#endif

/*
 * Has the fast path of this process a lock?  It is for relations alone.  18 made an array of the
 * bits; fpInfoLock is held.
 */
static inline bool
concord_fast_path_locks(void)
{
#if PG_VERSION_NUM >= 180000
	for (int group = 0; group < FastPathLockGroupsPerBackend; group++)
		if (MyProc->fpLockBits[group] != 0)
			return true;
	return false;
#else
	return MyProc->fpLockBits != 0;
#endif
}

/*
 * The next of this process's locks in a partition of the lock table, NULL after the last; begins
 * with NULL. The partition's lock is held.  16 made the lists dlists.
 */
static inline PROCLOCK *
concord_next_lock(int partition, PROCLOCK *last)
{
#if PG_VERSION_NUM >= 160000
	dlist_head *list = &MyProc->myProcLocks[partition];
	dlist_node *next;

	if (last != NULL)
		next = dlist_has_next(list, &last->procLink) ?
			dlist_next_node(list, &last->procLink) : NULL;
	else
		next = dlist_is_empty(list) ? NULL : dlist_head_node(list);
	return next == NULL ? NULL : dlist_container(PROCLOCK, procLink, next);
#else
	SHM_QUEUE  *list = &MyProc->myProcLocks[partition];

	return (PROCLOCK *) SHMQueueNext(list, last == NULL ? list : &last->procLink,
									 offsetof(PROCLOCK, procLink));
#endif
}

#endif							/* CONCORD_COMPAT_H */
