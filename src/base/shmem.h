/*
 * shmem.h
 *		What pg_concord keeps in shared memory, who writes it and under which lock.
 *
 * WHAT: a small fixed table of member databases (their worker, what they want from it) and a
 * fixed table of peers as seen from each of those databases (health, connection count).
 * Nothing here is the truth about the cluster: that is in tables.  A crash of the server
 * starts again from zeroes, and every field may be lost without breaking a promise.
 *
 * LOCKS: ConcordShared->lock (LWLock) protects both tables' membership and every field that is
 * not atomic.  It is a leaf: no other lock is taken and nothing is waited for while it is held.
 */
#ifndef CONCORD_SHMEM_H
#define CONCORD_SHMEM_H

#include "access/xlogdefs.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#define CONCORD_MAX_DATABASES	64
#define CONCORD_MAX_PEERS		1024

/* What is counted for each database since the server's start; view transaction_stats. */
typedef enum ConcordCounter
{
	CONCORD_COUNT_COMMITTED_1PC,	/* transactions of this node's sessions, one phase */
	CONCORD_COUNT_COMMITTED_2PC,
	CONCORD_COUNT_ABORTED,
	CONCORD_COUNT_UNFINISHED,	/* committed, with a branch left to its node's resolver */
	CONCORD_COUNT_RECOVERED,	/* branches of this node finished by its resolver */
	CONCORD_COUNT_FORCED,		/* branches of this node finished as an administrator said */
	CONCORD_COUNT_DEADLOCKS,	/* transactions given up as a deadlock's victim */
	CONCORD_COUNT_TOKEN_WAITS,	/* a token was set that had to be waited for */
	CONCORD_COUNT_TOKEN_TIMEOUTS,	/* ... and was not reached in time */
	CONCORD_COUNT_TOKEN_STALE,	/* ... of which the session went on without (on_timeout = stale) */
	CONCORD_COUNT_TOKEN_LOST,	/* a position was found lost */
	CONCORD_COUNT_READS_REPLICA,	/* routed reads below strong: answered by a replica */
	CONCORD_COUNT_READS_PRIMARY,	/* ... by the primary, as no replica would do */
	CONCORD_COUNT_READS_AGAIN,	/* a replica refused, was too late or away: another was taken */
	CONCORD_COUNT_LOCKS,		/* lease locks granted to this node's sessions */
	CONCORD_COUNT_LOCK_WAITS,	/* ... of which the session had to wait for another one */
	CONCORD_COUNT_LOCK_TIMEOUTS,	/* not granted in time, or for want of a majority */
	CONCORD_COUNT_LOCKS_LOST,	/* held when the lease ran out */
	CONCORD_COUNT_FENCED,		/* fences refused on this node */
	CONCORD_COUNT_REGISTER_CHANGES, /* of registers, by this node's sessions */
	CONCORD_COUNT_REGISTER_READS,
	CONCORD_COUNTERS
} ConcordCounter;

/* Entries are claimed under ConcordSharedState.lock and never given back. */
typedef struct ConcordCounts
{
	Oid			dboid;
	pg_atomic_uint64 values[CONCORD_COUNTERS];
} ConcordCounts;

typedef enum ConcordHealth
{
	CONCORD_UNKNOWN = 0,		/* never asked */
	CONCORD_UP,
	CONCORD_SUSPECT,			/* silent for concord.suspect_after */
	CONCORD_DOWN				/* silent for concord.down_after, or refused */
} ConcordHealth;

typedef enum ConcordWorkerState
{
	CONCORD_WORKER_NONE = 0,	/* not running */
	CONCORD_WORKER_STARTING,	/* registered with the postmaster */
	CONCORD_WORKER_RUNNING,		/* attached to its database, is its maintenance worker */
} ConcordWorkerState;

/* One database the launcher knows of. Entry is free when dboid is InvalidOid. */
typedef struct ConcordDatabase
{
	Oid			dboid;
	ConcordWorkerState state;	/* launcher: STARTING; worker: RUNNING, NONE at its exit */
	int			worker_pid;		/* worker */
	int			worker_procno;	/* worker: pgprocno, for its latch; -1 when none */
	int			held_by;		/* pid of the backend whose utility command needs the database
								 * free of workers; launcher starts none while it is set */
	bool		member;			/* worker: the database is an attached member (or joining) */
	bool		no_slot;		/* launcher: last start failed for want of a worker slot */
	bool		no_detector_slot;	/* launcher: the same of its last deadlock detector */
	bool		no_registrar_slot;	/* worker: the same of its registrar */
	TimestampTz retry_at;		/* launcher: not to be started before */

	/* the map, as far as this server's worker has it: written by backends and worker */
	int64		map_epoch;		/* newest epoch committed in this database */
	int64		wanted_epoch;	/* somebody heard of this epoch ... */
	int			wanted_from;	/* ... from this node id */
	ConditionVariable map_cv;	/* broadcast when map_epoch grew or a fetch failed */

	/* atomic commit: work of the worker's that others wait for */
	bool		incarnation_recorded;	/* worker: concord.incarnation has this start's row */
	XLogRecPtr	owed_lsn;		/* worker, backends: what is decided is told when the synchronous
								 * standbys have this; 0 = not known yet (standby.c) */
	uint64		resolve_wanted; /* backends: number of the last request to resolve now */
	uint64		resolve_done;	/* worker: of the last one that was done */
	uint64		resolved;		/* worker: branches it has finished */
	uint64		forget_wanted;	/* backends: the same for deleting decisions ... */
	uint64		forget_done;
	int64		forget_retention_us;	/* ... older than this */
	int64		forgotten;		/* worker: rows deleted for it, -1 = a node did not answer */
	ConditionVariable work_cv;	/* broadcast when one of these changed */
} ConcordDatabase;

/*
 * One peer or replica, as seen from one member database. Free when dboid is InvalidOid.
 *
 * servable: who answered last is what it should be, so it may be read: a node its primary, a
 * replica a standby of its node and of that node's generation.  False while it is down, and, of a
 * replica, from the moment at which the worker's link to it was lost.
 */
typedef struct ConcordPeer
{
	Oid			dboid;
	int			node_id;		/* a replica's is minus its id */
	ConcordHealth health;		/* worker */
	int32		latency_us;		/* worker: last heartbeat's round trip, -1 = none yet */
	TimestampTz last_seen;		/* worker: last answer, 0 = never */
	int64		epoch;			/* worker: peer's map epoch in its last answer */
	char		version[32];	/* worker: peer's extension version, '' = not known */
	char		last_error[160];	/* worker: why the last heartbeat failed, or a replica cannot
									 * serve; '' = neither */
	bool		servable;		/* worker: see above */
	uint32		timeline;		/* worker: of lsn */
	XLogRecPtr	lsn;			/* worker: node: end of its WAL; replica: what it has applied */
	int64		fresh_at_us;	/* worker: replica: it has what was committed before this moment,
								 * concord_copy_clock_us(); 0 = not known, and for nodes */
	uint64		incarnation;	/* worker: replica: of its server; another may have less */
	pg_atomic_uint32 connections;	/* backends: users' open connections to the peer */
	pg_atomic_uint32 waiters;	/* backends: sessions that wait for one */
	pg_atomic_uint32 granted;	/* backends: given back to the waiters, still in connections */
	ConditionVariable conn_cv;	/* signalled when a connection was given back */
} ConcordPeer;

typedef struct ConcordSharedState
{
	LWLock	   *lock;
	uint64		incarnation;	/* random, drawn at server start; compared for equality only */
	int			launcher_pid;	/* 0 when none */
	int			launcher_procno;	/* for its latch; -1 when none */
	bool		rescan;			/* launcher: look at all databases again */
	ConcordDatabase databases[CONCORD_MAX_DATABASES];
	ConcordPeer peers[CONCORD_MAX_PEERS];
	ConcordCounts counts[CONCORD_MAX_DATABASES];
} ConcordSharedState;

/* NULL when pg_concord was not loaded via shared_preload_libraries. */
extern ConcordSharedState *ConcordShared;

extern void concord_shmem_init(void);	/* from _PG_init(), installs the hooks */

/* Raises 55000 with a hint unless the library was preloaded. */
extern void concord_require_preload(void);

/*
 * The entry of a database or NULL.  With create, an entry is made if there is room (NULL with a
 * WARNING-free return if not).  Caller holds ConcordShared->lock (exclusive with create).
 */
extern ConcordDatabase *concord_shmem_database(Oid dboid, bool create);

/* The same for (this database, node). Entries are never freed while the database's worker lives. */
extern ConcordPeer *concord_shmem_peer(Oid dboid, int node_id, bool create);

/*
 * Forgets all of a database's peers but those in keep[] that have no open connections; caller
 * holds the lock exclusively.
 */
extern void concord_shmem_forget_peers(Oid dboid, const int *keep, int nkeep);

/*
 * Sets the latch of this database's maintenance worker, or of the launcher (no lock may be held).
 */
extern void concord_poke_worker(Oid dboid);
extern void concord_poke_launcher(void);

/*
 * Counts one for this database; raises nothing, so it may be called after a commit.  A server that
 * has seen more than CONCORD_MAX_DATABASES databases does not count for the last of them.
 */
extern void concord_count(ConcordCounter counter);
extern uint64 concord_counted(ConcordCounter counter);

#endif							/* CONCORD_SHMEM_H */
