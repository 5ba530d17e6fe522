/*
 * entry.h
 *		The steps that launcher, worker and utility commands take on a database's shared entry.
 *
 * Private to this room.  Each function takes and releases ConcordShared->lock itself, raises
 * nothing and waits for nobody.
 */
#ifndef CONCORD_WORKER_ENTRY_H
#define CONCORD_WORKER_ENTRY_H

#include "postgres.h"

#include "base/shmem.h"

/* What the launcher needs to know of an entry; zeroes when there is none. */
typedef struct ConcordEntryView
{
	bool		exists;
	ConcordWorkerState state;
	int			worker_pid;
	int			held_by;
	bool		member;
	TimestampTz retry_at;
} ConcordEntryView;

typedef enum ConcordEntryStart
{
	CONCORD_START_GRANTED,		/* the entry is STARTING: register the worker */
	CONCORD_START_HELD,			/* a utility command wants the database to itself */
	CONCORD_START_EXISTS,		/* a worker is there already */
	CONCORD_START_NO_ENTRY		/* the table is full */
} ConcordEntryStart;

typedef enum ConcordEntryHold
{
	CONCORD_HOLD_CLEAR,			/* held, and no worker is in the database */
	CONCORD_HOLD_LEAVING,		/* held, the worker was told to go */
	CONCORD_HOLD_TAKEN,			/* another backend holds it */
	CONCORD_HOLD_NO_ENTRY		/* the table is full: then no worker can be there either */
} ConcordEntryHold;

/* Launcher's */
extern void concord_entry_view(Oid dboid, ConcordEntryView *view);
extern ConcordEntryStart concord_entry_start(Oid dboid);
extern void concord_entry_start_failed(Oid dboid, bool no_slot, TimestampTz retry_at);
extern void concord_entry_stop_worker(Oid dboid);
extern void concord_entry_forget(Oid dboid, bool even_if_held);
extern int	concord_entry_holders(int *pids);
extern void concord_entry_wake_launcher(void);

/* The worker's */
extern bool concord_entry_claim(Oid dboid);
extern void concord_entry_run(Oid dboid, int64 epoch, bool new_cluster);
extern void concord_entry_not_member(Oid dboid);
extern void concord_entry_leave(Oid dboid);

/* Utility commands' */
extern ConcordEntryHold concord_entry_hold(Oid dboid);
extern void concord_entry_release(int holder);
extern ConditionVariable *concord_entry_cv(Oid dboid);

#endif							/* CONCORD_WORKER_ENTRY_H */
