/*
 * proposals.h
 *		Many operations on registers at once, over one connection to each acceptor.
 *
 * For one process, the registrar, which does nothing else: everything here is driven by its loop,
 * nothing waits.  Times are of concord_copy_clock_us() in milliseconds.
 */
#ifndef CONCORD_QUORUM_PROPOSALS_H
#define CONCORD_QUORUM_PROPOSALS_H

#include "cluster/copies.h"
#include "peer/link.h"
#include "quorum/quorum.h"

typedef struct ConcordTask ConcordTask;

/* How an operation ended.  Whatever it points to is gone when the callback returns. */
typedef struct ConcordTaskOutcome
{
	ConcordResult result;
	ConcordValue value;			/* of OK and MISMATCH */
	int64		sent_us;		/* concord_copy_clock_us() when the operation began to be sent */
	int			rounds;
	bool		no_majority;	/* FAILED or UNKNOWN because too few answered in time */
} ConcordTaskOutcome;

/* Called once for each operation, from concord_quorum_turn().  May start others. */
typedef void (*ConcordTaskDone) (const ConcordTaskOutcome *outcome, void *arg);

/* A call's answer, see concord_quorum_call(); reply NULL: it was given up. */
typedef void (*ConcordCallDone) (int node_id, ConcordReply *reply, void *arg);

/* From the process's start; the context lives as long as it. */
extern void concord_quorum_begin(MemoryContext context);

/*
 * Takes over the map's nodes, and the set of acceptors from this node's table if it has a newer
 * one.  Outside a transaction.  False if this database is no member, or that of another cluster
 * than before: then the process must end.
 */
extern bool concord_quorum_sync(void);

/* What the map says. */
typedef struct ConcordQuorumNode
{
	int			node_id;
	const char *zone;
	bool		reachable;		/* not known to be down */
} ConcordQuorumNode;

/* All nodes by id, until the next turn; returns how many. */
extern int	concord_quorum_nodes(ConcordQuorumNode **list);
extern const char *concord_quorum_node_name(int node_id);
extern const char *concord_quorum_cluster(void);
extern int	concord_quorum_self(void);
extern bool concord_quorum_is_authority(void);

/* The set of acceptors in use; NULL until one is known. */
extern const ConcordConfig *concord_quorum_config(void);

/* Takes over, and stores, a set that was decided, if it is newer. */
extern void concord_quorum_decided(const ConcordConfig *config);

/* Asks all nodes for a newer set, unless that is under way. */
extern void concord_quorum_ask_config(void);

/*
 * Begins an operation: at most one at a time is under way on a register, others of it wait for
 * their turn.  The name and data are copied.  It is given up after timeout_ms.  done may be NULL.
 */
extern void concord_quorum_start(const char *name, size_t name_len, ConcordOperation op,
								 int64 expected, const void *data, uint32 len, int timeout_ms,
								 ConcordTaskDone done, void *arg);

/*
 * Asks one node, in a transaction of its own there: sql is a constant, params text.  done may be
 * NULL.  Given up after timeout_ms.
 */
extern void concord_quorum_call(int node_id, const char *sql, int nparams,
								const char *const *params, int timeout_ms,
								ConcordCallDone done, void *arg);

/*
 * The transfer of a joint configuration (core/register.h); names become the registers to be read.
 * Called back with ok false if it must be begun again.
 */
typedef void (*ConcordTransferDone) (bool ok, List *names, void *arg);
extern void concord_quorum_transfer(const ConcordConfig *joint, int timeout_ms,
									ConcordTransferDone done, void *arg);

/* How many operations are under way or waiting? */
extern int	concord_quorum_active(void);

/*
 * One turn: deals with what has arrived, sends what is to be sent, calls back.  Returns when it
 * wants to be called again at the latest (ms).
 */
extern int64 concord_quorum_turn(void);

/* Waits for the latch, a connection, or until a time (ms).  Resets the latch. */
extern void concord_quorum_wait(int64 until);

static inline int64
concord_quorum_ms(void)
{
	return concord_copy_clock_us() / 1000;
}

#endif							/* CONCORD_QUORUM_PROPOSALS_H */
