/*
 * locks.h
 *		The state of the simulation of lease locks, and what its two files call of each other.
 */
#ifndef CONCORD_TEST_LOCKS_H
#define CONCORD_TEST_LOCKS_H

#include "cluster.h"
#include "core/lock.h"

#define LOCKS 2					/* registers 0 and 1 */
#define HOSTS 4					/* machines with a server each; the last one may be of node 1 too */
#define ROOM 16					/* requests of one lock */
#define KEEPER 0				/* the processes of a host */
#define WATCHER 1
#define SESSION 2
#define PER_HOST 5
#define PROCESSES (HOSTS * PER_HOST)
#define VERSIONS 2048			/* of a lock, in a run */
#define REQUESTS 1024			/* in a run; each has another pid, its process is in "since" */
#define ORPHANS 32

#define US 1000					/* in a tick */
#define DRIFT_PPM 300000
#define RATE_PPM 130000			/* 1.13 / 0.87 < 1.3 */

typedef enum Stage
{
	RESTING,
	READING,					/* KEEPER, WATCHER */
	WRITING,
	ASKING,						/* SESSION: to be a holder, or in the queue */
	WAITING,
	HOLDING,
	UPGRADING,
	RELEASING,					/* and WATCHER, an orphan */
	DELETING,
	COLLECTING
} Stage;

/* What a process knows of a lock */
typedef struct Known
{
	ConcordLockState state;
	ConcordLockRequest request[ROOM];
	bool		current;		/* was read or written for what is done now */
	int64_t		version;		/* of what was last found, a tombstone's too; 0: nothing was */
} Known;

typedef struct Process
{
	bool		up;
	int64_t		paused_until;
	uint64_t	epoch;			/* of its timer */
	Stage		stage;

	/* the operation under way, on register reg */
	bool		busy;
	int			reg;
	int64_t		give_up;
	ConcordProposer proposer;
	ConcordAhead ahead[SIM_REGISTERS];
	ConcordProposal p;

	/* WATCHER */
	int			watched;		/* node */

	/* what a session, or a watcher for an orphan, wants */
	int			lock;
	ConcordLockRequest me;
	bool		may_wait;
	bool		unsure;			/* a write of it ended as unknown */
	bool		queued;
	int64_t		deadline;
	int			uses;			/* of the lock, left */
	int			left;			/* locks to take */
	Known		known[LOCKS];

	/* it believes that it holds the lock, as long as its lease is valid */
	bool		believes;
	int64_t		fence;
	uint64_t	order;
} Process;

/* A request whose session is gone */
typedef struct Orphan
{
	int			lock;
	ConcordLockRequest request;
} Orphan;

typedef struct Host
{
	int32_t		node;
	bool		up;
	bool		dead;			/* for ever */
	uint64_t	predecessor;	/* keeper that is known to be dead; 0: none */
	int64_t		cut_until;
	int64_t		paused_until;
	int64_t		clock_zero;		/* what its clock said, us, at real time */
	int64_t		clock_since;
	int64_t		rate_ppm;

	/* the server's shared memory */
	ConcordLease lease;
	ConcordLeaseWatch watch[HOSTS + 1]; /* by node */
	uint64_t	serial;
	Orphan		orphan[ORPHANS];
	int			norphans;
} Host;

typedef struct Locks
{
	Host		host[HOSTS];
	Process		process[PROCESSES];
	uint32_t	proposers;		/* numbers given */
	bool		long_leases;	/* much longer than a round trip, as a rule */
	const void *value[LOCKS][VERSIONS]; /* chosen ones, as far as they were seen */
	uint32_t	len[LOCKS][VERSIONS];
	int64_t		gone[REQUESTS];	/* by pid: from which version on it is not in its lock */
	int			nrequests;
	int64_t		top_fence[LOCKS];	/* highest that somebody believed to hold */
	uint64_t	top_who[LOCKS];
	uint64_t	top_order[LOCKS];
	int64_t		mark[LOCKS];	/* at what the lock guards: fence, and order, of the last one */
	uint64_t	mark_order[LOCKS];
	uint64_t	mark_who[LOCKS];
} Locks;

extern Locks l;

#define HOST_OF(process) (&l.host[(process) / PER_HOST])
#define LEASE_REGISTER(node) (LOCKS + (node) - 1)

/* locks.c */
extern int64_t clock_of(const Host *host);
extern void wrong(const char *what);
extern void set_process_timer(int process, int64_t ticks);
extern bool is_ready(int process);	/* up, and not paused */

/*
 * Begins an operation; finished() is called at its end.  Bytes are copied.
 */
extern void operate(int process, int reg, ConcordOperation op, int64_t expected, const void *data,
					size_t len);

/* sessions.c */
extern void session_timer(int process);
extern void session_finished(int process);
extern void session_wake(int process);
extern void session_crash(int process);
extern bool session_adopts(int process, const Orphan *orphan);
extern void take_guarded(const Event *e);
extern void see_chosen(int lock, const ConcordValue *value);
extern void check_beliefs(void);
extern void check_history(void);

#endif							/* CONCORD_TEST_LOCKS_H */
