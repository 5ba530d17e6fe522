/*
 * duty.h
 *		What the parts of the maintenance worker share.  Private to this room.
 *
 * maintenance.c owns the process, the loop and the table of duties; asks.c the links to the peers
 * and the questions on them; duty_*.c what is asked, when, and what an answer means.  Who adds a
 * duty adds it to ConcordDutyId and to the table; who asks peers, to ConcordAsk and ask_kinds[].
 */
#ifndef CONCORD_WORKER_DUTY_H
#define CONCORD_WORKER_DUTY_H

#include "postgres.h"

#include "base/shmem.h"
#include "cluster/map.h"
#include "nodes/pg_list.h"
#include "peer/link.h"

/* The questions a peer can be asked, in the order in which waiting ones are sent. */
typedef enum ConcordAsk
{
	CONCORD_ASK_NONE = 0,
	CONCORD_ASK_HEARTBEAT,
	CONCORD_ASK_COPY,			/* a replica's heartbeat, and all that it is asked */
	CONCORD_ASK_MAP,
	CONCORD_ASK_JOIN_OUTCOME,
	CONCORD_ASK_OUTCOMES,
	CONCORD_ASK_PREPARED,
	CONCORD_ASKS
} ConcordAsk;

/* A peer or a replica as the worker deals with it.  Times are of concord_clock_ms(). */
typedef struct ConcordWorkerPeer
{
	int			node_id;		/* of a replica: minus its id */
	char		name[NAMEDATALEN];
	Oid			serverid;		/* of a peer */
	int			copy_of;		/* of a replica: its node's id, else 0 */

	/* asks.c */
	MemoryContext options_context;
	List	   *options;		/* to connect with; NIL: they could not be read */
	MemoryContext link_context;
	ConcordLink *link;			/* NULL when closed */
	bool		connected;		/* the link was once made */
	int			set_position;	/* in the wait event set, -1 = not in it */
	int			set_events;		/* what it waits for there */
	int64		retry_at;		/* closed: not to be opened before */
	int			failures;		/* of the connection, in a row */
	int64		deadline;		/* of the connection attempt or of the question under way */
	ConcordAsk	asked;			/* question under way */
	uint32		wanted;			/* questions to be sent: bits 1 << ConcordAsk */
	int64		asked_at_us;
	int64		sent_us;		/* the same moment on concord_copy_clock_us() */

	/* duty_heartbeat.c */
	int64		heard_at;		/* last good answer, or when the peer became known */
	ConcordHealth health;
	int			refusals;		/* heartbeats answered with no, in a row */
	int64		quiet_until;	/* not to be asked before, unless there is news */
	int64		epoch;			/* its map's, in its last answer */
	int64		told_epoch;		/* ours, in the last heartbeat sent */

	/* duty_copies.c: of a replica's last answer */
	int			generation;		/* of its node in our map */
	bool		logical;		/* by our map */
	bool		servable;
	uint32		timeline;
	XLogRecPtr	lsn;

	/* duty_forget.c */
	uint64		asked_round;
	uint64		answered_round; /* the last in which it told what it has prepared */
} ConcordWorkerPeer;

/* What the worker last read from its database, see concord_duty_sync(). */
typedef struct ConcordWorkerSelf
{
	MemoryContext context;		/* lives as long as the process */
	MemoryContext cycle_context;	/* reset in each turn of the loop */
	ConcordMembership membership;
	char		cluster[40];	/* as text */
	int			node_id;
	int			generation;
	int			authority;
	int64		epoch;
	char		join_nonce[40]; /* while joining, else "" */
	List	   *peers;			/* of ConcordWorkerPeer *; changed by concord_duty_sync() alone */
} ConcordWorkerSelf;

extern ConcordWorkerSelf ConcordWorker;

/* ---- maintenance.c ---- */

/* Makes a duty due in this turn of the loop. */
typedef enum ConcordDutyId
{
	CONCORD_DUTY_SYNC,
	CONCORD_DUTY_HEARTBEAT,
	CONCORD_DUTY_HEALTH,
	CONCORD_DUTY_MAP,
	CONCORD_DUTY_JOIN,
	CONCORD_DUTY_SHUTDOWN,
	CONCORD_DUTY_RESOLVE,
	CONCORD_DUTY_FORGET,
	CONCORD_DUTY_REGISTRAR,
	CONCORD_DUTIES
} ConcordDutyId;

extern void concord_duty_hurry(ConcordDutyId duty);

/*
 * From within a duty: it is due again at this time (concord_clock_ms()), or earlier by its
 * interval.
 */
extern void concord_duty_at(ConcordDutyId duty, int64 at);

/*
 * Runs a function; an error is logged, the transaction aborted, false returned.  FATAL passes.
 */
extern bool concord_guarded(const char *what, void (*function) (void *arg), void *arg);

/* The same without a word in the log: returns the error's message, NULL when there was none. */
extern char *concord_attempt(void (*function) (void *arg), void *arg);

/* The same, and returns the whole error, in the cycle's context. */
extern ErrorData *concord_catch(void (*function) (void *arg), void *arg);

/* A transaction of the worker's own; between the two nothing is asked over the network. */
extern void concord_work_begin(const char *activity);
extern void concord_work_commit(void);

/*
 * Runs one statement (of ours: schema concord) with text parameters in a transaction of its own.
 * Returns the first column of the first row as text, in CurrentMemoryContext, or NULL.
 */
extern char *concord_work_call(const char *sql, int nparams, const char *const *params);

/* What ALTER DATABASE or ALTER ROLE SET must not decide for a process of ours. */
extern void concord_pin_settings(void);

/* ---- asks.c ---- */

/* What a question is and what its answer means; the functions may raise errors. */
typedef struct ConcordAskKind
{
	const char *name;
	void		(*send) (ConcordWorkerPeer *peer);
	void		(*answer) (ConcordWorkerPeer *peer, ConcordReply *reply);
} ConcordAskKind;

static inline bool
concord_is_replica(const ConcordWorkerPeer *peer)
{
	return peer->node_id < 0;
}

/* Queues a question; the same one already waiting is not queued twice. */
extern void concord_ask(ConcordWorkerPeer *peer, ConcordAsk ask);

/* The peer with this node id, NULL when the map has none (or it is this node). */
extern ConcordWorkerPeer *concord_worker_peer(int node_id);

/* Is a link up on which a question would be sent now or after the one under way? */
extern bool concord_ask_possible(const ConcordWorkerPeer *peer);

/* Brings the list of peers in step with the map's nodes and replicas. */
extern void concord_asks_sync(const ConcordMap *map);

/* Reads the peers' connection options again, each in a transaction of its own; links whose
 * options differ are closed, to be opened with the new ones. */
extern void concord_asks_refresh(void);

/* Opens links, gives up on late ones, sends what waits.  Returns when to call it again. */
extern int64 concord_asks_serve(void);

/* Waits for latch and links until the given time at most, and deals with what arrived. */
extern void concord_asks_wait(int64 until);

/* ---- duties ---- */

extern void concord_duty_heartbeat(void *unused);
extern void concord_duty_health(void *unused);
extern void concord_duty_map(void *unused);
extern void concord_duty_join(void *unused);
extern void concord_duty_shutdown(void *unused);
extern void concord_duty_resolve(void *unused);
extern void concord_duty_forget(void *unused);
extern void concord_duty_registrar(void *unused);

/* duty_registrar.c: ends it and waits until it is gone; at the worker's own end. */
extern void concord_registrar_end(void);

/* duty_heartbeat.c: a peer could not be connected to, or its connection broke. */
extern void concord_heartbeat_failed(ConcordWorkerPeer *peer, const char *reason, bool refused);
extern void concord_heartbeat_send(ConcordWorkerPeer *peer);
extern void concord_heartbeat_answer(ConcordWorkerPeer *peer, ConcordReply *reply);
/* ... it answered with an error, with something else than was asked, or well. */
extern void concord_heartbeat_error(ConcordWorkerPeer *peer, const ConcordReply *reply);
extern void concord_heartbeat_refused(ConcordWorkerPeer *peer, const char *reason);
extern void concord_heartbeat_heard(ConcordWorkerPeer *peer, int64 epoch, const char *version,
									const char *problem);

/* duty_copies.c */
extern void concord_copy_send(ConcordWorkerPeer *peer);
extern void concord_copy_answer(ConcordWorkerPeer *peer, ConcordReply *reply);
/* The link to a replica is gone. */
extern void concord_copy_lost(ConcordWorkerPeer *peer);
/* A node was where its answer says when it was asked, at sent_us. */
extern void concord_copies_sample(int node_id, int generation, uint32 timeline, XLogRecPtr lsn,
								  int64 sent_us);
/* A pg_lsn as text; 0 if it is none. */
extern XLogRecPtr concord_copy_lsn(const char *text);
/* Takes a sample of this node. */
extern void concord_copies_sample_self(void);

/* duty_map.c */
extern void concord_map_wanted(int64 epoch, int from_node);
extern void concord_map_ask_failed(ConcordWorkerPeer *peer);
extern void concord_map_send(ConcordWorkerPeer *peer);
extern void concord_map_answer(ConcordWorkerPeer *peer, ConcordReply *reply);
extern void concord_map_removed(ConcordWorkerPeer *peer);
extern void concord_join_send(ConcordWorkerPeer *peer);
extern void concord_join_answer(ConcordWorkerPeer *peer, ConcordReply *reply);

/* duty_resolve.c */
extern void concord_outcomes_send(ConcordWorkerPeer *peer);
extern void concord_outcomes_answer(ConcordWorkerPeer *peer, ConcordReply *reply);
/* Is a branch in doubt here whose coordinator is this peer? */
extern bool concord_resolve_needs(const ConcordWorkerPeer *peer);

/* duty_forget.c */
extern void concord_prepared_send(ConcordWorkerPeer *peer);
extern void concord_prepared_answer(ConcordWorkerPeer *peer, ConcordReply *reply);

#endif							/* CONCORD_WORKER_DUTY_H */
