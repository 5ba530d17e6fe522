/*
 * conn.h
 *		A cached connection to a peer, as the files of this room see it.
 *
 * STATES of the connection (pg, connected) and of its branch:
 *
 *		closed --concord_conn_open--> connecting --concord_conn_advance--> connected
 *		connected --concord_conn_close--> closed
 *
 *		NONE --concord_conn_send (BEGIN)--> OPEN
 *		OPEN --pre-commit: COMMIT sent--> NONE (reader: unanswered; writer: answered)
 *		OPEN --abort: ROLLBACK sent--> NONE
 *		OPEN --concord_branches_prepare--> PREPARING --answer--> PREPARED, or NONE if refused
 *		PREPARED --concord_branches_finish (COMMIT PREPARED)--> NONE
 *		PREPARING, PREPARED --abort: drained, ROLLBACK PREPARED sent--> NONE
 *		NONE --concord_conn_send of a whole transaction--> NONE (it commits by itself: conn->whole)
 *		any but NONE --connection lost--> LOST --end of transaction--> NONE, closed (what was
 *		prepared there is left to the peer's resolver)
 *
 * INVARIANTS
 * C1 queue[] holds exactly the commands whose answers have not been consumed, in order.
 * C2 A connection whose branch is NONE may have unanswered commands only of the kinds COMMIT (of a
 *    reader), ROLLBACK, COMMIT PREPARED that was not waited for, and their SYNCs.  What they answer
 *    late is never taken for the answer to something newer.
 * C3 A connection on which an unanswered statement could not be cancelled and drained in time
 *    is closed, never reused.
 * C4 idle is true only between transactions; only then the idle timer's handler may shut the
 *    socket down.
 */
#ifndef CONCORD_PEER_CONN_H
#define CONCORD_PEER_CONN_H

#include "base/compat.h"
#include "base/shmem.h"
#include "lib/ilist.h"
#include "peer/peer.h"
#include "peer/wire.h"
#include "storage/latch.h"
#include "utils/hsearch.h"

typedef enum ConcordBranch
{
	CONCORD_BRANCH_NONE,
	CONCORD_BRANCH_OPEN,
	CONCORD_BRANCH_PREPARING,	/* PREPARE TRANSACTION was sent */
	CONCORD_BRANCH_PREPARED,	/* and was answered with success */
	CONCORD_BRANCH_LOST			/* the connection went away with it */
} ConcordBranch;

typedef enum ConcordCommandKind
{
	CMD_CONTROL,				/* BEGIN, SAVEPOINT, RELEASE, DEALLOCATE, SET TRANSACTION */
	CMD_FLOOR,					/* SET concord.token, on a replica */
	CMD_HELLO,
	CMD_SETTINGS,
	CMD_PREPARE,
	CMD_STATEMENT,
	CMD_COMMIT,
	CMD_PREPARE_BRANCH,			/* PREPARE TRANSACTION */
	CMD_COMMIT_PREPARED,
	CMD_ROLLBACK,				/* also ROLLBACK TO */
	CMD_SYNC
} ConcordCommandKind;

/* A statement prepared on the peer. */
typedef struct ConcordPrepared
{
	uint64		hash;			/* key */
	bool		pinned;			/* control statements: not in lru, not counted */
	dlist_node	lru;			/* most recently used first */
	char		name[24];
	char	   *sql;
	int			nparams;
	Oid		   *types;
	bool		ready;			/* the peer has confirmed it */
	bool		replan;			/* its result type changed: prepare it again */
	uint32		flush;			/* conn->flushes when PREPARE was sent */
} ConcordPrepared;

typedef struct ConcordCommand
{
	ConcordCommandKind kind;
	uint64		hash;			/* PREPARE: the entry, if it is still there ... */
	uint32		flush;			/* ... and the same */
} ConcordCommand;

/* What the peer's session was last told; compared before every statement. */
typedef struct ConcordSessionSettings
{
	bool		known;
	char	   *search_path;
	char		timezone[64];
	int			date_style;
	int			date_order;
	int			interval_style;
	int			float_digits;
	int			lock_timeout_ms;
	int			track;
	int			wait_timeout_ms;
} ConcordSessionSettings;

struct ConcordConn
{
	/* key */
	Oid			serverid;
	Oid			userid;
	int			replica_id;		/* 0: the node's primary */

	dlist_node	node;			/* in the list of all */
	MemoryContext context;		/* everything below; survives the connection itself */
	int			node_id;
	char		name[NAMEDATALEN];
	char		cluster[40];
	int			self;
	List	   *options;		/* what it was opened with */
	List	   *address;		/* of a replica, as the map had it when it was opened last */
	ConcordPeer *shared;		/* counted in ->connections, NULL when closed */

	PGconn	   *pg;				/* NULL when closed */
	bool		connected;
	PostgresPollingStatusType poll;
	WaitEventSet *set;			/* latch, postmaster, socket */
	uint32		set_events;
	int			backend_pid;	/* the peer's, as the peer itself says it */
	int64		told_epoch;		/* last hello, 0 = none yet */
	char	   *told_floor;		/* the last token that was reached there; NULL = none */
	uint64		told_floor_key; /* of it */
	char	   *told_token;		/* concord.token of the peer's session, as it last reported it */
	bool		token_is_new;	/* it was reported since COMMIT (PREPARED) was sent last */
	ConcordCommandKind taken;	/* the last command before SYNC whose answer was taken */
	bool		invalidated;	/* server or mapping changed since it was opened */
	volatile sig_atomic_t idle; /* C4 */
	volatile sig_atomic_t reaped;	/* the idle timer shut it down */
	TimestampTz idle_since;
	TimestampTz opened_at;
	TimestampTz started_at;		/* of the running statement or connection attempt */

	ConcordBranch branch;
	int			begin_level;	/* local nest level at which the branch was begun */
	int			saved_level;	/* nest level the peer is at: 1 + its savepoints */
	int			release_to;		/* levels above were released here, not yet there */
	bool		read_only;		/* the branch was begun or made READ ONLY */
	uint64		guarded;		/* of concord_branch_guard_hook */
	bool		wrote;			/* the peer reported that the branch took an xid */
	bool		holds;			/* and that it holds a lock until the outcome (B6) */
	char		gid[CONCORD_GID_SIZE];	/* PREPARING, PREPARED */
	bool		begun_now;		/* begun by the running statement */
	bool		reused;			/* not opened for the running statement */

	ConcordSessionSettings settings;

	ConcordCommand *queue;		/* C1 */
	int			queue_size;
	int			queue_head;
	int			queue_length;
	PGresult   *result;			/* being looked at; cleared by the next step or the cleanup */

	/* the running statement */
	const ConcordTarget *target;	/* valid only in concord_peer_start() */
	const ConcordRemoteQuery *query;	/* NULL when none is running */
	const ConcordSink *sink;
	int			source;
	bool		described;
	bool		answered;		/* its answers are complete (or it failed) */
	bool		any_answer;		/* something came back since it was sent */
	ConcordWhole whole;			/* it was sent without BEGIN: it commits by itself */
	bool		completed;		/* it was executed; the commit is next if it is whole */
	bool		ended;			/* the peer's session said that it ends */
	int			attempts;
	int64		rows;
	char	  **row_values;
	int		   *row_lengths;
	int			row_size;
	ConcordRemoteError error;	/* first error of the running flush; message NULL = none */
	bool		lost;			/* the error is the connection's */
	bool		replan;			/* the error is a plan whose result type changed */
	ConcordRemoteError commit_error;	/* first error of COMMIT */
	char		commit_tag[16];
	List	   *notices;		/* ConcordRemoteError*: NOTICEs to pass on */

	HTAB	   *prepared;		/* ConcordPrepared by hash */
	dlist_head	prepared_lru;
	int			nprepared;
	uint32		next_name;
	uint32		flushes;		/* statements sent so far, to tell what is in flight */
	HTAB	   *types;			/* local type OID -> peer's */
};

/* All connections of this backend. */
extern dlist_head concord_conns;

/* conn.c: the connection itself */
extern ConcordConn *concord_conn_get(const ConcordTarget *target, Oid userid);
extern void concord_conn_open(ConcordConn *conn);
extern void concord_conn_close(ConcordConn *conn);
extern bool concord_conn_wanted_by_others(ConcordConn *conn);
extern void concord_conn_rest(ConcordConn *conn);
extern void concord_conn_wait(ConcordConn **conns, int n, long timeout_ms);
extern bool concord_conn_alive(ConcordConn *conn);

/* statement.c: what is sent and how answers are taken */
extern void concord_conn_queue(ConcordConn *conn, ConcordCommandKind kind);
extern void concord_conn_control(ConcordConn *conn, ConcordCommandKind kind, const char *sql);
extern void concord_conn_repeated(ConcordConn *conn, ConcordCommandKind kind, const char *sql);
extern void concord_conn_sync(ConcordConn *conn);
extern void concord_conn_send_floor(ConcordConn *conn);
extern void concord_conn_advance(ConcordConn *conn);
extern void concord_conn_forget_tokens(ConcordConn *conn);
extern void concord_conn_pass_token(ConcordConn *conn, ConcordPeerEvent event);
extern void concord_conn_lost(ConcordConn *conn);
extern void concord_conn_send_query(ConcordConn *conn, const ConcordTarget *target);
pg_noreturn extern void concord_conn_throw(ConcordConn *conn, ConcordRemoteError *error);
extern void concord_conn_emit_notices(ConcordConn *conn);
extern void concord_conn_drop_notices(ConcordConn *conn);
extern void concord_conn_forget_statement(ConcordConn *conn);

/* branch.c: the remote transaction */
extern void concord_branch_in_use(void);
extern void concord_branch_warn(void);
extern void concord_branch_begin(ConcordConn *conn);
extern void concord_branch_rollback(ConcordConn *conn);
extern void concord_branch_hold_interrupts(void);
pg_noreturn extern void concord_branch_outcome_unknown(ConcordConn *conn);

/* peer.c */
extern void concord_conn_await(ConcordConn **conns, int n);

/* cancel.c: waits for the answers to what was sent, without interrupts, at most until a time */
extern void concord_conn_drain(ConcordConn **conns, int n, TimestampTz until);

/* cancel.c: cancels what runs on the peer and drains its answers, within the cleanup timeout */
extern bool concord_conn_quiesce(ConcordConn *conn);

#endif							/* CONCORD_PEER_CONN_H */
