/*
 * peer.h
 *		Users' statements on other nodes, as branches of the running transaction.
 *
 * WHAT: one cached connection per (node, local role) and backend.  A statement sent here runs in
 * a remote transaction (the branch) that begins with the first statement, follows the local
 * savepoints and ends with the local transaction.  See conn.c for the connection's states and
 * branch.c for the transaction rules.
 */
#ifndef CONCORD_PEER_PEER_H
#define CONCORD_PEER_PEER_H

#include "postgres.h"

#include "core/commit.h"
#include "nodes/pg_list.h"

typedef struct ConcordConn ConcordConn;

/*
 * Where a statement goes, and under which map it was sent there. Strings are only read during
 * the call.
 */
typedef struct ConcordTarget
{
	int			node_id;
	Oid			serverid;
	const char *name;			/* node */
	const char *cluster;		/* cluster id as text */
	int			self;			/* this node's id */
	int64		epoch;			/* of the map that chose this node */
	/* a copy of the node, to be read only; 0 and NIL: its primary */
	int			replica_id;
	const List *address;		/* of the copy: "keyword=value" options in place of the server's */
	const char *floor;			/* a session token to be reached there first, or NULL */
	/* in the place of floor: makes it (palloc'd), called only if floor_key was not told yet */
	char	   *(*make_floor) (int node_id);
	uint64		floor_key;		/* what is enough to have checked once on a primary, 0 = nothing */
} ConcordTarget;

/*
 * Is a statement the whole transaction of its caller, so that it may commit by itself, without
 * BEGIN and COMMIT (statement.c)?
 */
typedef enum ConcordWhole
{
	CONCORD_PART,				/* no */
	CONCORD_WHOLE_READ,			/* yes, and it does not write, or else is refused there */
	CONCORD_WHOLE_WRITE			/* yes, and it may write; its rows must not be wanted */
} ConcordWhole;

typedef struct ConcordRemoteQuery
{
	const char *sql;			/* one statement */
	uint64		hash;			/* of sql and types: see concord_query_hash() */
	int			nparams;
	const Oid  *types;			/* the peer's type OIDs, 0 = to be inferred by the peer */
	const char *const *values;	/* NULL for SQL NULL */
	const int  *lengths;		/* of binary values */
	const int  *formats;		/* 0 text, 1 binary */
	bool		wants_rows;		/* false: rows are read and thrown away */
	ConcordWhole whole;
} ConcordRemoteQuery;

/* Receives rows as they come; called while others may still be answering. May raise errors. */
typedef struct ConcordSink
{
	/* once per answer, before its rows; names and types are the peer's */
	void		(*describe) (void *arg, int source, int ncols, const Oid *types,
							 const char *const *names);
	void		(*row) (void *arg, int source, int ncols, char *const *values,
						const int *lengths);
	void	   *arg;
} ConcordSink;

extern uint64 concord_query_hash(const char *sql, int nparams, const Oid *types);

/*
 * Starts a statement on a peer: finds or opens the current role's connection, begins or
 * continues its branch, sends.  Waits only for a free connection (concord.max_peer_connections;
 * 53300 after concord.connect_timeout).  Query and sink must stay valid until
 * concord_peer_finish().  source is passed to the sink.  Raises 42501, 42704, 2F003 (mapping,
 * rights), 08006 when this transaction's earlier branch there was lost.
 */
extern ConcordConn *concord_peer_start(const ConcordTarget *target, const ConcordRemoteQuery *query,
									   const ConcordSink *sink, int source);

/*
 * Waits until all of the started statements are on their way (new connections have to be made
 * first).
 */
extern void concord_peer_sent(ConcordConn **conns, int n);

typedef enum ConcordFinish
{
	CONCORD_FINISHED,
	CONCORD_REFUSED_STALE,		/* the peer has a newer map */
	CONCORD_REFUSED_COPY,		/* a replica could not be reached or cannot answer (now) */
	CONCORD_REFUSED_LATE,		/* a replica did not reach the floor in time */
	CONCORD_REFUSED_WRITE		/* sent as CONCORD_WHOLE_READ, it wrote */
} ConcordFinish;

/*
 * Waits until all of the started statements have answered; rows go to the sinks. Raises the
 * first error of a peer with its SQLSTATE and the node's name (after which the local
 * (sub)transaction must abort); 08007 when a statement that commits by itself was sent and its
 * outcome is not known.
 *
 * If a peer refused, and every branch concerned was begun by these very statements, they have
 * been rolled back, and the caller may start again: with a newer map, or as CONCORD_PART.
 *
 * When a CONCORD_WHOLE_WRITE is done it is committed, so interrupts are held until the end of the
 * local transaction.
 */
extern ConcordFinish concord_peer_finish(ConcordConn **conns, int n);

/* Rows affected, as the last finished statement's command tag said. */
extern int64 concord_peer_rows(ConcordConn *conn);

/*
 * The peer's OID of a local type: itself for built-in ones, else looked up there by qualified name
 * (a round trip the first time on a connection). 42704 if the node has no such type.
 */
extern Oid	concord_peer_type(const ConcordTarget *target, Oid type);

/* ---- the end of the transaction: steps that the commit room puts in order ---- */

/* Has this transaction any branch?  One on this node's primary?  How many have written? */
extern bool concord_branches_any(void);
extern bool concord_branch_on(int node_id);

/*
 * The replica of the node on which this transaction has a branch, 0 for none; *floor is the last
 * token that was reached there, or NULL.
 */
extern int	concord_branch_copy(int node_id, const char **floor);
extern int	concord_branches_writing(void);

/* How many are bound to the transaction's outcome: have written, or hold a lock until then? */
extern int	concord_branches_bound(void);

/*
 * The branches that are bound to the outcome, or are not; the array is palloc'd. Raises 08006 for
 * one that was lost after it had been.
 */
extern ConcordConn **concord_branches(bool bound, int *n);
extern int	concord_branch_node(ConcordConn *conn);

/*
 * Ends a reader: COMMIT is sent; only a serializable one's answer is awaited (40001 may come).
 */
extern void concord_branch_end_reader(ConcordConn *conn);

/* Commits a writer in one phase and awaits the answer; 08007 when it is lost. */
extern void concord_branch_commit(ConcordConn *conn);

/*
 * Ends branches that hold locks, of a transaction that has written nothing: COMMIT to all, and all
 * answers are awaited.  Raises 08006 when one is lost: its locks may have ended before.
 */
extern void concord_branches_release(ConcordConn **conns, int n);

/*
 * Prepares all the branches in parallel under their gids (which checks deferred constraints);
 * raises the first error (the abort that follows rolls back what was prepared). Can be cancelled.
 */
extern void concord_branches_prepare(ConcordConn **conns, char (*gids)[CONCORD_GID_SIZE], int n);

/*
 * Phase two, after the decision: sends COMMIT PREPARED to all, to those that hold locks when the
 * others have answered, and waits at most wait_ms for the answers (0: not at all). Never raises,
 * never handles interrupts; may change the order of conns.  Returns how many are not known to be
 * finished; *first gets one of their names and *why the reason.
 */
extern int	concord_branches_finish(ConcordConn **conns, int n, int wait_ms, const char **first,
									const char **why);

/* Called when a branch was found to have written, or to hold a lock. */
extern void (*concord_writing_hook) (void);

/* Called when the transaction is about to open its first branch. */
extern void (*concord_first_branch_hook) (void);

/*
 * Called before each statement of a branch that may write: what is to be done there first, as one
 * statement (palloc'd) without parameters, or NULL.  *done is the branch's own: 0 when it begins,
 * and when a part of it was rolled back; afterwards as the function has left it.
 */
extern char *(*concord_branch_guard_hook) (uint64 *done);

/* Has a branch of this transaction written? */
extern bool concord_peer_wrote(void);

/* What a peer's session token (concord.token, reported) was told with. */
typedef enum ConcordPeerEvent
{
	CONCORD_PEER_DONE,			/* a statement's answer, or an awaited one to COMMIT (PREPARED) */
	CONCORD_PEER_PREPARED,		/* PREPARE TRANSACTION's */
	CONCORD_PEER_ENDED,			/* COMMIT PREPARED's, perhaps of an earlier transaction */
	CONCORD_PEER_CLOSED			/* nothing: the connection is gone, with what was unanswered */
} ConcordPeerEvent;

/*
 * Called with each of them; token is NULL or empty when the peer has told none.  Raises nothing.
 */
extern void (*concord_peer_token_hook) (const ConcordConn *conn, ConcordPeerEvent event,
										const char *token);

/* Node's name as shown in application_name of everything this backend opens. */
extern void concord_peer_set_local_name(const char *name);

extern void concord_peer_init(void);

#endif							/* CONCORD_PEER_PEER_H */
