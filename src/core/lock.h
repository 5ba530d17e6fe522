/*
 * lock.h
 *		Lease locks: what is in a lock's register, what a request, a release and the end of a lease
 *		change in it, and how a node's lease is kept and judged.
 *
 * Plain C, no PostgreSQL headers, no I/O, no allocation, no clock: the rooms above read and
 * write the registers (core/register.h) and tell the time.
 *
 * PROMISE: a fence of a lock is given to one exclusive holder, or to one group of shared
 * holders, and is higher than all fences given before.  Of two exclusive holders, or an
 * exclusive and a shared one, never both have a valid lease at the same time.  Requests are
 * granted in the order in which they came in, shared ones that wait side by side together;
 * whoever died is passed over.  Under any faults that registers bear (register.h), processes
 * paused at any place for any time, and clocks whose rates differ by no more than the drift
 * that is allowed for.  Clocks that do worse break the second sentence alone: what a fence
 * guards stays safe.
 *
 * SOURCES: C. Gray and D. Cheriton, "Leases: An Efficient Fault-Tolerant Mechanism for
 * Distributed File Cache Consistency" (1989): one side counts from sending, the other from
 * receiving, and clocks need only run alike; M. Burrows, "The Chubby lock service for
 * loosely-coupled distributed systems" (2006): sequencers, sessions that keep many locks alive
 * with one message; M. Kleppmann, "How to do distributed locking" (2016): fencing tokens
 * checked where the data is.
 *
 * REGISTERS.  Each lock has one, with its holders and its queue.  Each node has one, with its
 * lease.  Values are read by a completed operation, and written with a compare-and-set on the
 * version that was read.  The first is needed: of a value that only some acceptors have, another
 * one of that very version may be chosen later (L9).
 *
 * INVARIANTS of a lock
 * L1	A request (node, lease, serial) is made once; its node gives the serial once in that
 *		lease, and first remembers it where its lock service will find it.
 * L2	A step is a function of the value and the request, it can be repeated, and what it has
 *		changed is written at the next version or not at all.  So no request gets in twice or is
 *		granted twice.
 * L3	The holders are one exclusive request, or any number of shared ones.  Whoever is at the
 *		head of the queue could not join them; there is no queue without holders.
 * L4	Nobody becomes a holder while a request that came in before him waits.
 * L5	The fence is 2 x the version of the value that made the group holders, + 1 if it is
 *		shared.  Who joins a shared group gets its fence.  Versions are never used twice, so
 *		fences only grow; the lowest bit tells the mode to whoever checks one.  The value holds
 *		the distance between this version and its own, as the version of the first value after a
 *		deletion is not known before.
 * L6	Only a lock without holders is deleted, at exactly the version that was read.
 *
 * INVARIANTS of a lease
 * L7	A lease has a number; that of a node's next one is greater by 1, and its register is
 *		never deleted.  The first value of a lease is written before any request under it.  So
 *		whoever has seen the value of a later lease, or of this one as ended, knows that it is
 *		over; a value of an earlier one says nothing.
 * L8	The keeper's lease is valid from the moment of SENDING a write that is known to be
 *		chosen, until that write's duration has passed on its own clock.  A write whose outcome
 *		is unknown extends nothing; but from its sending on the lease is valid no longer than if
 *		it had been chosen (which matters if its duration is shorter).
 * L9	An observer counts from RECEIVING a value.  While the same version is still there after
 *		its duration x (1 + drift) on his clock he may write "ended" at exactly that version; or,
 *		if he is the next server of the same node, the next lease.  So at that moment no write of
 *		the keeper's was chosen that is still valid.  A server may do so at once if the register
 *		says that the lease has ended, or if the very keeper that it names is known to be dead:
 *		its postmaster is gone, and this server runs on the same storage, which remembers the
 *		keeper's number.  That there was some postmaster who is dead is not enough.
 * L10	A request may be dropped from a lock only when its lease is known to be over (L7).
 * L11	Whoever finds out that his request is a holder looks at his own lease after that: the
 *		lock is held only if it is the same one and valid.  And once more before each thing that
 *		he does under it.
 *
 * WHY at most one is valid (the second sentence of the promise): B becomes a holder after A
 * only when a value without A is chosen.  Either A has released, and says no longer that it
 * holds; or A was dropped, so (L10) "ended" or the next lease was chosen before, so (L9) A's
 * lease had run out (L8).
 *
 * A LOCK'S LIFE, from a session's side; "write" is a compare-and-set
 *
 *	read, decode(), request(); changed?  write:
 *		OK			written(); it is held, or in the queue
 *		MISMATCH	decode() what there is, request() again
 *		UNKNOWN		read, request() again (L2)
 *		FAILED		nothing has happened
 *	in the queue	read again when woken, and now and then; drop() those before it whose leases
 *					are over; changed?  write, as above
 *	held			look at the own lease (L11)
 *	released		read, release(); changed?  write; written(); wake whoever is fresh
 *	given up		the same, with unsure if a write of this request ended as UNKNOWN
 *
 * UNSURE.  A write whose outcome is unknown may be chosen later, as long as the version it
 * expects is there; so a request may get in after a read that has not found it.  Release() with
 * unsure writes the value anew even if the request is not in it; after that version it cannot
 * come any more.  The service of the node does the same for a session that died,
 * for each request that it remembers (L1), until that was written or the request's own lease is
 * over (not a later one's); and it releases what it finds under its own lease and does not
 * remember.
 *
 * ROUNDS AND FLUSHES (each acceptor's, one after another)
 *	lock, last written by the same proposer, who has kept what it wrote		1 round, 1 flush
 *	lock, last written by another one										2 rounds, 2 flushes
 *		(writes what it has kept, or expects nothing, and learns from MISMATCH what there is)
 *	release, by the one that has locked, nobody came in between				1 round, 1 flush
 *	release, otherwise														2 rounds, 2 flushes
 *	either, where what was kept has been passed by another one				1 round more
 *	renewing a lease, of a node with any number of locks						1 round, 1 flush
 *	beginning a lease														3 rounds, 2 flushes
 *	ending another node's, after watching it (1 round each time)				2 rounds, 2 flushes
 *
 * WHAT IF
 * - a session dies: its node's service releases its requests, as above; until then they stay as
 *	 they are.
 * - a session dies between a write and waking whom that has granted: they look again now and
 *	 then.
 * - an answer is lost: the step is repeated, and finds itself done (L2).
 * - a server dies: whoever waits behind it watches its lease, ends it (L9), drops its requests
 *	 (L10).  If it is back sooner it does that itself.  Nobody waits: its requests stay until
 *	 somebody comes.
 * - a write of a dead server arrives late: its request is in the queue, or a holder, under a
 *	 lease that is over.  It is dropped like any other; who waits looks at the leases each time.
 * - a queue's head died: it is granted the lock, and dropped as a holder by the next one that
 *	 looks.
 * - two drop, end or release at once: one write wins, the other one reads and finds less to do.
 * - the other side's clock is an hour, or a year, behind: clocks are never compared, only
 *	 durations are.
 * - a machine restarts, so its clock begins anew: whatever was counted before now counts from
 *	 now, or is not valid (its server is gone in any case).
 * - a keeper was cut off or paused until after its lease, and nobody has ended it: it renews,
 *	 and its locks are held again; in between nobody else held them.
 * - a keeper finds its lease ended, or another one: all that it held is lost; it begins the
 *	 next one.  Whoever of a server reads the own node's register tells its keeper: a session
 *	 that knew more would drop its own request, and make it again under a lease that is over.
 * - two servers believe to be the same node: each sees the other one's lease, and waits for its
 *	 end.
 *
 * MEMORY.  Requests are in the caller's array: the holders first, then the queue, both in the
 * order in which they came in.
 *
 * NOT HERE: reentrancy (a session counts for itself), whom to wake how, deadlocks, what is done
 * to the holder of a lost lock, checking a fence at the data.
 */
#ifndef CONCORD_CORE_LOCK_H
#define CONCORD_CORE_LOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---------------------------------------------------------------- leases */

#define CONCORD_LEASE_DURATION_MAX INT64_C(86400000000)	/* us: a day */
#define CONCORD_DRIFT_MAX 1000000	/* parts per million */

/* The value of a node's lease register */
typedef struct ConcordLeaseValue
{
	uint64_t	lease;			/* its number, from 1 (L7) */
	uint64_t	keeper;			/* random, drawn at each start of a server: who has begun it */
	uint64_t	beat;			/* which attempt of the keeper's this is, from 1 */
	int64_t		duration_us;	/* 1 .. CONCORD_LEASE_DURATION_MAX */
	bool		ended;
} ConcordLeaseValue;

#define CONCORD_LEASE_SIZE 35	/* bytes of one */

/* Writes CONCORD_LEASE_SIZE bytes. */
extern void concord_lease_encode(const ConcordLeaseValue *value, uint8_t *data);

/* False, and *value is all zero, if these bytes are not what encode() writes. */
extern bool concord_lease_decode(ConcordLeaseValue *value, const void *data, size_t len);

typedef enum ConcordLeaseVerdict
{
	CONCORD_LEASE_LIVE,			/* so far */
	CONCORD_LEASE_OVER,			/* for ever */
	CONCORD_LEASE_UNSEEN		/* what was read is older than that lease: read again */
} ConcordLeaseVerdict;

/* Judges a lease by a chosen value of its node's register; NULL: there is none (L7). */
extern ConcordLeaseVerdict concord_lease_judge(const ConcordLeaseValue *value, uint64_t lease);

/* ---- the keeper: a node's own lock service.  Times: its clock, us, CLOCK_BOOTTIME. */

typedef enum ConcordLeaseStatus
{
	CONCORD_LEASE_NONE,			/* there is no lease; the next one may be begun at once */
	CONCORD_LEASE_KEPT,			/* its register says that it is this keeper's; is it valid()? */
	CONCORD_LEASE_OTHERS		/* its register says that another server keeps the node's lease */
} ConcordLeaseStatus;

typedef struct ConcordLease
{
	/* to be read */
	ConcordLeaseStatus status;
	uint64_t	lease;			/* KEPT: what requests are made under; else 0 */
	uint64_t	lost;			/* the last one that was lost; 0: none was */
	int64_t		version;		/* of the register, as known; 0: CONCORD_EXPECT_NONE */
	ConcordLeaseValue value;	/* this value, if version > 0 */

	/* the keeper's own */
	uint64_t	keeper;
	uint64_t	beats;			/* attempts made */
	int64_t		from_us;		/* valid in between (L8) */
	int64_t		until_us;
	ConcordLeaseValue sent;		/* last attempt; its outcome is not known as long as beat > 0 */
	int64_t		sent_us;
} ConcordLease;

/* For a server that has just started; keeper: random, not 0.  The register has to be read first. */
extern void concord_lease_init(ConcordLease *lease, uint64_t keeper);

/*
 * After init(), for a process that goes on for another one of the same keeper, on the same clock:
 * beats: at least as many as the attempts that one can have made; number: the lease that it kept,
 * 0 if none; from_us, until_us: when that is valid, no longer than what it had sent allows (L8).
 * What it had sent may be chosen yet; it extends nothing, as it is not known when it was sent.
 */
extern void concord_lease_resume(ConcordLease *lease, uint64_t beats, uint64_t number,
								 int64_t from_us, int64_t until_us);

/*
 * Takes what the register was found to say: by a read, or by the MISMATCH of a write.  value
 * NULL: nothing was ever written, and version is 0.  What is older than what is known changes
 * nothing.  If it is the last attempt, which was thought unknown, that counts as chosen.
 *
 * If *lease has lost its lease by this, lost has changed: everything held under it is gone.
 */
extern ConcordLeaseStatus concord_lease_found(ConcordLease *lease, const ConcordLeaseValue *value,
											  int64_t version);

/*
 * Writes to *value what the register is to say next, to be written at lease->version; now_us is
 * taken before anything is sent.  Renews the lease that is kept, or begins the next one.  False,
 * and nothing has changed: the lease is another server's and may not be replaced; or numbers or
 * the duration are out of range.
 *
 * may_replace: the server that keeps it is known to be dead, or concord_lease_watch_over() is
 * true of a watch that has seen lease->version (L9).
 */
extern bool concord_lease_propose(ConcordLease *lease, int64_t now_us, int64_t duration_us,
								  bool may_replace, ConcordLeaseValue *value);

/*
 * The last attempt is known to be chosen, at that version: the lease is valid from its sending.
 * (After MISMATCH found() is called; after FAILED nothing need be; after UNKNOWN the register
 * is read.)
 */
extern void concord_lease_chosen(ConcordLease *lease, int64_t version);

/* Is that lease kept, and valid now (L8, L11)? */
extern bool concord_lease_valid(const ConcordLease *lease, uint64_t number, int64_t now_us);

/* For how many us it will be, at least on this clock; 0: it is not */
extern int64_t concord_lease_left(const ConcordLease *lease, uint64_t number, int64_t now_us);

/* ---- an observer: what one server knows of another node's lease */

/* All zero: nothing was seen yet. */
typedef struct ConcordLeaseWatch
{
	int64_t		version;		/* highest that was seen; 0: none */
	int64_t		seen_us;		/* when it was received first, on this clock */
	ConcordLeaseValue value;
} ConcordLeaseWatch;

/*
 * Takes a chosen value, received at now_us (when the read had ended, or later).  What is older
 * than what was seen changes nothing.  A clock that has gone back makes the count begin anew.
 */
extern void concord_lease_watch_see(ConcordLeaseWatch *watch, const ConcordLeaseValue *value,
									int64_t version, int64_t now_us);

/*
 * May "ended", or the same node's next lease, be written at watch->version (L9)? Drift in parts
 * per million, at most CONCORD_DRIFT_MAX: by how much the rates of any two clocks may differ.
 * False if it says ended already.
 */
extern bool concord_lease_watch_over(ConcordLeaseWatch *watch, int64_t drift_ppm, int64_t now_us);

/* After how many us it may be, if nothing is renewed; -1: never, it has ended or was not seen */
extern int64_t concord_lease_watch_left(const ConcordLeaseWatch *watch, int64_t drift_ppm,
										int64_t now_us);

/* What is to be written at watch->version then. */
extern void concord_lease_watch_end(const ConcordLeaseWatch *watch, ConcordLeaseValue *value);

/* ---------------------------------------------------------------- locks */

#define CONCORD_LOCK_REQUESTS 4096	/* holders and waiters of one lock, at most */
#define CONCORD_LOCK_HEAD 18		/* bytes before the first request */
#define CONCORD_LOCK_ENTRY 33		/* of a request */
#define CONCORD_LOCK_SIZE(n) (CONCORD_LOCK_HEAD + (size_t) (n) * CONCORD_LOCK_ENTRY)
#define CONCORD_LOCK_VERSION_MAX ((INT64_MAX - 1) / 2)	/* a fence is an int64 (L5) */

typedef enum ConcordLockMode
{
	CONCORD_LOCK_FREE = 0,		/* of a lock; not of a request */
	CONCORD_LOCK_EXCLUSIVE,
	CONCORD_LOCK_SHARED
} ConcordLockMode;

/* A holder or a waiter.  The same request: node, lease and serial are the same (L1). */
typedef struct ConcordLockRequest
{
	int32_t		node;			/* 1 .. */
	uint64_t	lease;			/* the node's, from 1 */
	uint64_t	serial;			/* unique in it, from 1 */
	int32_t		pid;			/* this one and the next are for display alone */
	int64_t		since;			/* when it was made, as its node had the time; any unit */
	ConcordLockMode mode;
	bool		fresh;			/* became a holder by what is, or was just, written: wake it */
} ConcordLockRequest;

/* A lock, as it is in its register, or as it will be after steps that have changed it */
typedef struct ConcordLockState
{
	/* to be read */
	bool		changed;		/* by a step: to be written at "version" */
	int64_t		version;		/* that was read; 0: there was no value: CONCORD_EXPECT_NONE */
	int			nholders;
	int			n;				/* with the queue: request[nholders .. n - 1] */
	ConcordLockRequest *request;	/* the caller's, with room for max */
	int			max;

	/* the steps' own: version that made the holders; -1: the one to be written; 0: none */
	int64_t		granted;
} ConcordLockState;

/*
 * A lock whose register has no value, or was deleted.  CONCORD_LOCK_REQUESTS are enough for any
 * lock.
 */
extern void concord_lock_init(ConcordLockState *state, ConcordLockRequest *requests, int max);

/*
 * Reads the value of that version into *state (whose request and max are given as above).
 * False, and the state is that of a free lock at that version, not to be written: these bytes
 * are not what encode() writes, or more requests than there is room for.  Reads nothing beyond
 * len bytes.
 */
extern bool concord_lock_decode(ConcordLockState *state, ConcordLockRequest *requests, int max,
								const void *data, size_t len, int64_t version);

/*
 * Writes the value, to be written at state->version, and returns its length, which is
 * CONCORD_LOCK_SIZE(state->n). 0: it has no room in size bytes; or no version is left (L5).
 */
extern size_t concord_lock_encode(const ConcordLockState *state, void *data, size_t size);

/*
 * What was encoded is chosen, at that version (it is in the answer).  From here on the state is
 * that of the register, and the next step may be taken on it.  fresh stays until the next step.
 */
extern void concord_lock_written(ConcordLockState *state, int64_t version);

extern ConcordLockMode concord_lock_mode(const ConcordLockState *state);

/* The fence of the holders; 0 while there are none, or what has granted it is not written yet. */
extern int64_t concord_lock_fence(const ConcordLockState *state);

/* The mode that a fence was given in; FREE if it is none. */
extern ConcordLockMode concord_fence_mode(int64_t fence);

/* Where a request is in state->request; below nholders: it is a holder.  -1: nowhere */
extern int	concord_lock_find(const ConcordLockState *state, const ConcordLockRequest *me);

typedef enum ConcordLockResult
{
	CONCORD_LOCK_HELD,			/* it is a holder (once that is written, if changed) */
	CONCORD_LOCK_QUEUED,		/* it is in the queue (the same) */
	CONCORD_LOCK_BUSY,			/* not granted, not queued */
	CONCORD_LOCK_FULL,			/* not queued for want of room, in the state or in a value */
	CONCORD_LOCK_REFUSED		/* request: it is none, or the same one is there in another mode;
								 * upgrade: not a shared holder, or not the only one */
} ConcordLockResult;

/*
 * Each of the following sets state->changed if it has changed anything, sets fresh where it has
 * made holders, and changes nothing if it is repeated.
 */

/* Asks for the lock.  A request that is there already keeps its place. */
extern ConcordLockResult concord_lock_request(ConcordLockState *state,
											  const ConcordLockRequest *me, bool may_wait);

/*
 * Takes a request out of the holders or the queue; returns whether it was there.  unsure: a write
 * of it ended as UNKNOWN, so that the value is written anew even if it is not there; see UNSURE.
 * When that is written, unsure is over.
 */
extern bool concord_lock_release(ConcordLockState *state, const ConcordLockRequest *me,
								 bool unsure);

/*
 * Makes the only shared holder an exclusive one, with a new fence, and its request one of that
 * mode.  The queue stays as it is.
 */
extern ConcordLockResult concord_lock_upgrade(ConcordLockState *state,
											  const ConcordLockRequest *me);

/*
 * Takes out all requests of a node whose lease is over, by a chosen value of the node's lease
 * register (L10).  Returns how many there were.
 */
extern int	concord_lock_drop(ConcordLockState *state, int32_t node,
							  const ConcordLeaseValue *value);

/* May the register be deleted, at state->version (L6)? */
extern bool concord_lock_idle(const ConcordLockState *state);

#endif							/* CONCORD_CORE_LOCK_H */
