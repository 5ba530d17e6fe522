/*
 * deadlock.h
 *		Deadlocks between nodes: what the files that find and break them share.
 *
 * PROMISE: a cycle of waits that no single server can see is broken within
 * concord.deadlock_timeout of its last wait, the start of a process and three round trips; one
 * transaction of it, the youngest, gets 40P01; where there is no such cycle nobody does.
 *
 * HOW.  Each wait is one in some server's lock table.  A cycle between servers passes through a
 * transaction that holds with one session and waits with another (core/deadlock.h): the one that
 * waits is a session on its coordinator or of a branch.  Those, and no others, run a timer while
 * in a transaction (deadlock.c).  When it finds that its own process has waited for a lock for
 * concord.deadlock_timeout, this node's detector is started (detector.c): a process that asks all
 * nodes for their waits (wait_edges.c), twice, and tells the server where the victim waits to take
 * it out of the queue, as PostgreSQL's own detector does.
 *
 *		session's timer --wanted--> launcher --starts--> detector --_wait_edges()--> all nodes
 *		detector --_give_up()--> the node where the victim waits --40P01--> the victim's client
 *
 * Why not a session that waits for a remote answer: there may be none in the cycle.  Two
 * transactions may each have written on the other's node first and then wait at home, each in its
 * own server's lock manager, where no code of ours can run.
 *
 * Why not a duty of the maintenance worker: a deadlock must not wait for anything else it does.
 *
 * INVARIANTS
 * D1 A transaction is its coordinator's session: (server, process).  A branch belongs to it by its
 *    session's application_name, concord/<node>/<process>; a prepared one by its gid.
 * D2 A branch older than the transaction that runs in its coordinator's session now is a remainder
 *    of an earlier one, and belongs to none.
 * D3 Somebody gives up only for a cycle each of whose waits was there in one collection, and still
 *    in another begun after that one was complete.  A wait has an identity (process, lock, mode,
 *    moment it began), so all of them existed together in between, and since each of them keeps
 *    its transaction from ending, none of them can end by itself.
 * D4 The wait is ended, not the transaction: only while it is the very wait that was seen, checked
 *    under its lock's partition lock.  So two detectors that found the same cycle, or one that
 *    is late, cannot make a second victim of it.
 * D5 All detectors choose the same victim: age is the coordinator's stamp, then the name.  If a
 *    coordinator that a cycle needs has not answered, the cycle waits until it does.
 *
 * WHAT A LIAR CAN DO.  Anybody who may connect can call himself concord/<node>/<process> and so
 * have his waits and locks taken for another transaction's.  A cycle needs a wait of that
 * transaction for the liar, who could keep it waiting as long as he likes anyway: the worst is
 * that it gets 40P01 instead.  Nobody who does not wait can be made a victim (D4).
 *
 * COST.  Nobody waits: one timer signal a second and session that runs distributed transactions,
 * none for others.  Somebody has waited for concord.deadlock_timeout: three small statements to
 * each node, at most ten times in that time from each node, however many wait.
 *
 * WHAT IF
 *	- a node does not answer: cycles that do not need it are still found.
 *	- the detector dies, or no worker slot is free: the timers ask again, each timeout.
 *	- track_activities is off: a transaction without branches is taken for the oldest.
 *
 * LEASE LOCKS (src/lock) are in no server's lock table: nobody but this detector sees a cycle that
 * passes through one, also within one server.  So who waits for one is, as a waiter, a process of
 * its own, with the number of its session's process made negative, and a branch of that: then no
 * such cycle is one between processes, which core/deadlock.h leaves to PostgreSQL.  A holder is the
 * session that holds, whether it runs a transaction or not.
 */
#ifndef CONCORD_COMMIT_DEADLOCK_H
#define CONCORD_COMMIT_DEADLOCK_H

#include "postgres.h"

#include "base/shmem.h"
#include "storage/lock.h"

#define CONCORD_VICTIM_DETAIL 1024

/*
 * One a backend, at its index in ProcGlobal->allProcs.  The first part is written by its own
 * backend, without a lock: a reader believes it if pid is the process's and lxid is what it runs.
 * The second part is written by _give_up() before it ends the wait, and then read by its backend.
 */
typedef struct ConcordWatched
{
	int			pid;
	LocalTransactionId lxid;
	TimestampTz started_at;		/* of that transaction */
	char		coordinator[NAMEDATALEN];	/* D1: a branch's; '' = this is the coordinator */
	int			coordinator_pid;

	int			victim_pid;		/* 0 = none */
	char		victim_detail[CONCORD_VICTIM_DETAIL];
} ConcordWatched;

/* A database's detector. */
typedef struct ConcordDetector
{
	Oid			dboid;			/* 0 = free; under lock, as all but wanted */
	int			pid;			/* 0 = not running */
	int			procno;			/* for its latch, -1 = none; timers read it without the lock */
	TimestampTz started_at;		/* launcher: asked the postmaster for it, 0 = not under way */
	pg_atomic_uint32 wanted;	/* a session has waited too long since it last looked */
} ConcordDetector;

typedef struct ConcordDeadlocks
{
	LWLock	   *lock;			/* a leaf, as ConcordShared->lock is */
	ConcordDetector detectors[CONCORD_MAX_DATABASES];
	ConcordWatched watched[FLEXIBLE_ARRAY_MEMBER];	/* [MaxBackends] */
} ConcordDeadlocks;

extern ConcordDeadlocks *ConcordDeadlockShared; /* NULL without preload */

/* deadlock.c: an entry, if it tells what its process runs now, else NULL */
extern ConcordWatched *concord_watched(int procno);

/* A session has waited for something that is in no lock table for concord.deadlock_timeout. */
extern void concord_deadlock_want(void);

/*
 * Set by the room of lease locks.  The first calls put for each wait of this database's sessions:
 * process, name of the wait, the lock for people, node id and process of who is in its way.  The
 * second ends a wait if it is still the same one and returns its process's procno, else -1.
 */
typedef void (*ConcordPutWait) (int pid, const char *wait, const char *lock, int blocker_node,
								int blocker_pid, void *arg);
extern void (*concord_lease_waits_hook) (ConcordPutWait put, void *arg);
extern int	(*concord_lease_give_up_hook) (const char *wait, int *pid);
#define CONCORD_LEASE_WAIT "lease/"		/* their names begin so */

/* From the launcher, each time it wakes: starts detectors that are wanted. */
extern void concord_deadlock_serve(void);

/* From _PG_init(); with preload, also the shared memory. */
extern void concord_deadlock_init(void);

/* detector.c: the detector's process */
extern PGDLLEXPORT void concord_detector_main(Datum arg);

#endif							/* CONCORD_COMMIT_DEADLOCK_H */
