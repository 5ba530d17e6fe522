/*
 * commit.h
 *		The rules of atomic commit: names of transactions, who may do what in which state, and what
 *		an observation allows to conclude.
 *
 * Plain C, no PostgreSQL headers, no I/O, no allocation.  Everything that is decided here is a
 * table in commit.c; the rooms above carry the tables out and assert them.
 *
 * P1 to P7 are the invariants of atomic commit in the design.  Here they mean:
 *
 * P1 One function writes a gid, one reads it, and a text that is read is written the same again.
 * P2 A commit needs a decision: only RECORDING leads to COMMITTED, and only COMMITTED to sending
 *    COMMIT PREPARED.
 * P3 No path leads from an outcome to another one.
 * P4 Absence of a decision is judged by concord_commit_judge() alone, over an observation made in
 *    the order its structure documents.
 * P5 In the states after the decision no action raises an error.
 */
#ifndef CONCORD_CORE_COMMIT_H
#define CONCORD_CORE_COMMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---------------------------------------------------------------- gid and label */

/*
 * Forms (P1), of at most 111 bytes; PostgreSQL's limit is 199:
 *
 *		concord:<cluster>:<coordinator>:<incarnation>:<serial>:<protocol>
 *			the transaction's own, reported to clients
 *		concord:<cluster>:<coordinator>:<incarnation>:<serial>:<protocol>:<participant>:<branch>
 *			a branch's, under which it is prepared
 *
 * cluster: uuid as uuid_out writes it; incarnation: 16 lower-case hex digits; protocol: '2pc' or
 * 'paxos'; the others decimal without sign or leading zero.
 */
#define CONCORD_GID_SIZE 200	/* of a buffer, with the terminating zero */
#define CONCORD_GID_PREFIX "concord:"

#define CONCORD_LABEL_MAX 64	/* bytes */

typedef enum ConcordProtocol
{
	CONCORD_PROTOCOL_2PC,
	CONCORD_PROTOCOL_PAXOS
} ConcordProtocol;

typedef struct ConcordGid
{
	uint8_t		cluster[16];
	int			coordinator;	/* node id, 1 .. CONCORD_MAX_NODE_ID */
	uint64_t	incarnation;	/* of the coordinator's server */
	uint64_t	serial;			/* unique for a coordinator's database and incarnation */
	ConcordProtocol protocol;
	int			participant;	/* node id; 0 in a transaction's own gid */
	uint32_t	branch;			/* numbers the transaction's branches on one participant */
} ConcordGid;

typedef enum ConcordGidForm
{
	CONCORD_GID_FOREIGN = 0,	/* not a gid of ours */
	CONCORD_GID_TRANSACTION,
	CONCORD_GID_BRANCH
} ConcordGidForm;

/*
 * Writes a branch's gid and returns its length; or writes an empty string and returns -1 if a
 * node id or the protocol is out of range.
 */
extern int	concord_gid_format(const ConcordGid *gid, char buf[CONCORD_GID_SIZE]);

/* The same for the transaction's own gid; participant and branch are not looked at. */
extern int	concord_gid_format_transaction(const ConcordGid *gid, char buf[CONCORD_GID_SIZE]);

/*
 * Reads a gid of either form (len bytes, any bytes, not terminated) and tells which it is.
 * Accepts exactly what the two functions above write.  Never fails, and reads nothing beyond len
 * bytes; *gid is undefined for a foreign one.
 */
extern ConcordGidForm concord_gid_parse(const char *text, size_t len, ConcordGid *gid);

/* Do two gids, of whatever form, belong to one transaction? */
extern bool concord_gid_same_transaction(const ConcordGid *a, const ConcordGid *b);

typedef enum ConcordLabelFault
{
	CONCORD_LABEL_GOOD = 0,
	CONCORD_LABEL_EMPTY,
	CONCORD_LABEL_TOO_LONG,		/* more than CONCORD_LABEL_MAX bytes */
	CONCORD_LABEL_CONTROL,		/* contains a control character of ASCII */
	CONCORD_LABEL_RESERVED		/* begins like a gid */
} ConcordLabelFault;

/*
 * What is wrong with a transaction label, if anything.  A good label is never a gid, so whoever
 * is given "gid or label" knows which it has from CONCORD_GID_PREFIX.
 */
extern ConcordLabelFault concord_label_check(const char *text, size_t len);

/* ---------------------------------------------------------------- the path of a COMMIT */

typedef enum ConcordCommitPath
{
	CONCORD_PATH_LOCAL,			/* nothing remote was written: readers end, then the local commit */
	CONCORD_PATH_ONE_PHASE,		/* plain COMMIT of the one branch that wrote; it is the decision */
	CONCORD_PATH_TWO_PHASE
} ConcordCommitPath;

/* Where a row must tell the outcome afterwards */
typedef enum ConcordRecord
{
	CONCORD_RECORD_NONE,
	CONCORD_RECORD_LOCAL,		/* in the local transaction: the decision, or the label's row */
	CONCORD_RECORD_BRANCH		/* in the transaction of the one branch that wrote */
} ConcordRecord;

typedef struct ConcordCommitWork
{
	int			writing_branches;	/* took a transaction id, or, where anybody did, hold an
									 * xact_lock */
	int			serializable_readers;	/* did neither, and are SERIALIZABLE */
	bool		local_writes;	/* the local transaction has a transaction id or anything else
								 * that is lost if it does not commit: a NOTIFY, a LISTEN */
	bool		local_serializable; /* it is SERIALIZABLE: its last check comes after the branches
									 * were told, and may fail */
	bool		labelled;		/* the client will ask for the outcome by a label */
} ConcordCommitWork;

typedef struct ConcordCommitPlan
{
	ConcordCommitPath path;
	ConcordRecord record;
	bool		await_readers;	/* answers to the COMMIT of SERIALIZABLE readers come before
								 * anything that cannot be taken back */
} ConcordCommitPlan;

extern ConcordCommitPlan concord_commit_plan(const ConcordCommitWork *work);

/* ---------------------------------------------------------------- the coordinator's transaction */

/*
 * STATES.  "Live" are those with an entry in the liveness table: entered before the first PREPARE,
 * left after the local transaction is out of the ProcArray (P4).
 */
typedef enum ConcordTxState
{
	CONCORD_TX_ACTIVE,			/* statements run */
	CONCORD_TX_LOCAL,			/* nothing remote to commit; the local commit is under way */
	CONCORD_TX_ONE_PHASE,		/* COMMIT was sent to the one branch that wrote */
	CONCORD_TX_ONE_PHASE_DONE,	/* and has succeeded; the local commit is under way */
	CONCORD_TX_IN_DOUBT,		/* or its answer was lost: 08007 */
	CONCORD_TX_PREPARING,		/* live; PREPARE was sent to every branch that wrote */
	CONCORD_TX_DOOMED,			/* live if it was; a branch cannot commit, an error is raised */
	CONCORD_TX_RECORDING,		/* live; all are prepared, and the row that will be the decision is
								 * written in the running local transaction */
	CONCORD_TX_COMMITTED,		/* live; the decision is durable and visible */
	CONCORD_TX_FINISHING,		/* COMMIT PREPARED is sent and answered */
	CONCORD_TX_ABORTED,			/* live if it was; the local transaction is aborted, so no decision
								 * can be made any more */
	CONCORD_TX_ROLLING_BACK,	/* ROLLBACK and ROLLBACK PREPARED are sent and answered */
	CONCORD_TX_END_COMMITTED,
	CONCORD_TX_END_ABORTED,
	CONCORD_TX_END_UNKNOWN
} ConcordTxState;

#define CONCORD_TX_STATES (CONCORD_TX_END_UNKNOWN + 1)

typedef enum ConcordTxEvent
{
	CONCORD_TX_TAKE_LOCAL,		/* pre-commit: concord_commit_plan() chose this path */
	CONCORD_TX_TAKE_ONE_PHASE,
	CONCORD_TX_TAKE_TWO_PHASE,
	CONCORD_TX_BRANCH_COMMITTED,	/* the one branch answered COMMIT */
	CONCORD_TX_ALL_PREPARED,	/* every writer answered PREPARE TRANSACTION (with this very tag),
								 * and every reader that is awaited COMMIT */
	CONCORD_TX_BRANCH_REFUSED,	/* a branch answered that it does not end as it was told */
	CONCORD_TX_BRANCH_LOST,		/* the answer of a branch will not come: connection, deadline.  In
								 * ACTIVE only at pre-commit: until then a ROLLBACK TO may undo the
								 * branch that was lost */
	CONCORD_TX_LOCAL_COMMIT,	/* the local transaction is durable, on synchronous standbys too,
								 * and out of the ProcArray */
	CONCORD_TX_LOCAL_ABORT,		/* the local transaction is aborted and out of the ProcArray */
	CONCORD_TX_LEFT,			/* the entry in the liveness table, if there was one, is gone */
	CONCORD_TX_ENDED			/* all answers are here, or no more are waited for */
} ConcordTxEvent;

#define CONCORD_TX_EVENTS (CONCORD_TX_ENDED + 1)

/* What the event's receiver must do next */
typedef enum ConcordTxAction
{
	CONCORD_TX_DO_NOTHING,
	CONCORD_TX_DO_COMMIT_LOCAL, /* let the local commit go on */
	CONCORD_TX_DO_SEND_COMMIT,	/* COMMIT to the one branch that wrote */
	CONCORD_TX_DO_PREPARE,		/* enter the liveness table, then send PREPARE to all */
	CONCORD_TX_DO_RECORD,		/* write the decision row, force a synchronous commit, go on */
	CONCORD_TX_DO_RAISE,		/* raise the branch's error, so that the local transaction aborts */
	CONCORD_TX_DO_RAISE_UNKNOWN,	/* raise 08007 with the gid */
	CONCORD_TX_DO_LEAVE,		/* remove the entry in the liveness table */
	CONCORD_TX_DO_COMMIT_PREPARED,	/* send COMMIT PREPARED to all */
	CONCORD_TX_DO_ROLL_BACK,	/* ROLLBACK open branches, ROLLBACK PREPARED prepared ones */
	CONCORD_TX_DO_WARN_LEFT,	/* WARNING: the branch is left to its node's resolver */
	CONCORD_TX_DO_WARN_COMMITTED,	/* WARNING: an error is being reported, but the one branch has
									 * committed */
	CONCORD_TX_DO_WARN_UNKNOWN, /* WARNING: an error is being reported, but whether the one branch
								 * has committed is not known */
	CONCORD_TX_DO_RELEASE		/* give the connections back */
} ConcordTxAction;

#define CONCORD_TX_ACTIONS (CONCORD_TX_DO_RELEASE + 1)

typedef enum ConcordOutcome
{
	CONCORD_OUTCOME_OPEN,		/* either is still possible */
	CONCORD_OUTCOME_COMMIT,
	CONCORD_OUTCOME_ABORT,
	CONCORD_OUTCOME_UNKNOWN		/* to the coordinator */
} ConcordOutcome;

/*
 * Takes a step of the coordinator's transaction.
 *
 * Returns true, with the new *state and the *action to take; or false, and nothing is changed, if
 * the event is not allowed in this state: a bug of the caller, to be asserted.
 */
extern bool concord_tx_step(ConcordTxState *state, ConcordTxEvent event, ConcordTxAction *action);

/* The outcome that is certain in a state: it never changes on the way from there (P3). */
extern ConcordOutcome concord_tx_outcome(ConcordTxState state);

/* May the transaction have its entry in the liveness table in this state? */
extern bool concord_tx_live(ConcordTxState state);

/* Lower-case, for views. */
extern const char *concord_tx_state_name(ConcordTxState state);

/* ----------------------------------------------------------- a branch, seen by its coordinator */

/*
 * A connection may be used again only in OPEN, PREPARED, COMMITTED and ROLLED_BACK: in the other
 * states something was sent whose answer is not here.
 */
typedef enum ConcordBrState
{
	CONCORD_BR_OPEN,			/* statements run */
	CONCORD_BR_COMMITTING,		/* COMMIT was sent */
	CONCORD_BR_PREPARING,		/* PREPARE TRANSACTION was sent */
	CONCORD_BR_PREPARED,
	CONCORD_BR_FINISHING,		/* COMMIT PREPARED was sent */
	CONCORD_BR_UNDOING,			/* ROLLBACK PREPARED was sent */
	CONCORD_BR_ROLLING_BACK,	/* ROLLBACK was sent */
	CONCORD_BR_COMMITTED,
	CONCORD_BR_ROLLED_BACK,
	CONCORD_BR_LOST				/* nothing more will be heard of it here; what is prepared is
								 * finished by its node's resolver */
} ConcordBrState;

#define CONCORD_BR_STATES (CONCORD_BR_LOST + 1)

typedef enum ConcordBrEvent
{
	CONCORD_BR_SEND_COMMIT,
	CONCORD_BR_SEND_PREPARE,
	CONCORD_BR_SEND_COMMIT_PREPARED,
	CONCORD_BR_SEND_ROLLBACK_PREPARED,
	CONCORD_BR_SEND_ROLLBACK,
	CONCORD_BR_DONE,			/* answered, with the command's own tag */
	CONCORD_BR_REFUSED,			/* answered with an error, or with the tag ROLLBACK */
	CONCORD_BR_CUT,				/* the connection broke, or was closed after a deadline */
	CONCORD_BR_GIVEN_UP			/* no connection could be had in time */
} ConcordBrEvent;

#define CONCORD_BR_EVENTS (CONCORD_BR_GIVEN_UP + 1)

typedef enum ConcordBrAction
{
	CONCORD_BR_DO_AWAIT,		/* the answer */
	CONCORD_BR_DO_COUNT,		/* one answer more: the transaction's event may have come */
	CONCORD_BR_DO_TELL_REFUSED, /* CONCORD_TX_BRANCH_REFUSED */
	CONCORD_BR_DO_TELL_LOST,	/* CONCORD_TX_BRANCH_LOST; the connection is closed, not reused */
	CONCORD_BR_DO_RECONNECT		/* what was prepared can be finished over another connection */
} ConcordBrAction;

#define CONCORD_BR_ACTIONS (CONCORD_BR_DO_RECONNECT + 1)

/* As concord_tx_step(), for one branch. */
extern bool concord_br_step(ConcordBrState *state, ConcordBrEvent event, ConcordBrAction *action);

extern ConcordOutcome concord_br_outcome(ConcordBrState state);
extern const char *concord_br_state_name(ConcordBrState state);

/* ---------------------------------------------------------------- what an observation allows */

/* How the incarnation in a gid relates to the server that was asked */
typedef enum ConcordIncarnation
{
	CONCORD_INCARNATION_CURRENT,
	CONCORD_INCARNATION_OLDER_CERTAIN,	/* of this storage, ended by a restart: what it has
										 * committed is here */
	CONCORD_INCARNATION_OLDER_UNCERTAIN,	/* before a promotion that may have lost WAL */
	CONCORD_INCARNATION_UNKNOWN /* never heard of */
} ConcordIncarnation;

typedef enum ConcordDecision
{
	CONCORD_DECISION_NONE,
	CONCORD_DECISION_COMMIT,
	CONCORD_DECISION_ABORT
} ConcordDecision;

/*
 * What was seen at the node that a gid names as its coordinator.
 *
 * ORDER (P4).  Whoever resolves a branch lists the prepared transactions of its own database first,
 * then asks.  The asked node observes, in the order of the fields,
 *
 * 1. coordinator_known and incarnation, which are fixed for the whole call: it runs in one process
 *    of one incarnation, and an answer that would span two is no answer;
 * 2. live;
 * 3. decision and below_horizon, in one snapshot that is taken after live was observed.  (In two
 *    snapshots the horizon must be the later one: a decision is deleted only after the horizon that
 *    covers it was stored, so that whoever misses a decision for that reason sees the horizon.)
 *
 * Then the resolver lists its prepared transactions again, or finds out from COMMIT PREPARED, that
 * the branch is still there; somebody else may have finished it.
 *
 * Why: a transaction leaves the liveness table after it left the ProcArray.  Not live at 2 means
 * that it has ended already or has not begun, so a snapshot taken later shows its decision, if
 * there is one.  Looked at in the other order, it could decide between the looks.
 *
 * A decision counts as seen only when it is as durable as the coordinator itself would have
 * waited for: after a crash a row may be visible that no synchronous standby has yet.  Who answers
 * waits for that first, or answers that the transaction is live.
 */
typedef struct ConcordObservation
{
	bool		coordinator_known;	/* the asked node is the gid's coordinator, in its cluster */
	ConcordIncarnation incarnation;
	bool		live;			/* in the liveness table */
	ConcordDecision decision;
	bool		below_horizon;	/* decisions of this serial may have been deleted */
	bool		needs_decision; /* it was live when the asker heard of it, and cannot have been
								 * committed without a decision.  True for whoever has a branch
								 * prepared; not for a client that was told the gid before COMMIT,
								 * as the transaction may take a path without a decision. */
} ConcordObservation;

typedef enum ConcordVerdict
{
	CONCORD_VERDICT_COMMIT,
	CONCORD_VERDICT_ABORT,
	CONCORD_VERDICT_WAIT,		/* in progress: ask again later */
	CONCORD_VERDICT_UNKNOWN,	/* to be reported, never guessed */
	CONCORD_VERDICT_FORGOTTEN	/* the decision, if there was one, was deleted: to be reported */
} ConcordVerdict;

#define CONCORD_VERDICTS (CONCORD_VERDICT_FORGOTTEN + 1)

/*
 * What follows from an observation.  COMMIT and ABORT are final: the branch may be finished
 * accordingly at any later time, however old the observation is by then.
 */
extern ConcordVerdict concord_commit_judge(const ConcordObservation *observation);

/* As transaction_outcome() says it; the verdicts that say nothing are "unknown". */
extern const char *concord_verdict_name(ConcordVerdict verdict);

#endif							/* CONCORD_CORE_COMMIT_H */
