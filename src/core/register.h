/*
 * register.h
 *		Replicated registers: the acceptor and the proposer of CASPaxos, deletes, and the change of
 *		the set of acceptors.
 *
 * Plain C, no PostgreSQL headers, no I/O, no allocation.  The rooms above load what is stored, take
 * a step here, store, flush, and send.
 *
 * PROMISE: a register is linearizable.  Of two operations one of which ended before the other
 * began, the second sees what the first did; a compare-and-set changes exactly the version it
 * expects; a version of a register is never used twice, not even after the register was deleted.
 * Under any loss, delay, duplication and reordering of messages, and crashes of any process at any
 * instant.  An operation ends while a majority of the acceptors answers.
 *
 * SOURCES: L. Lamport, "The Part-Time Parliament" and "Paxos Made Simple"; D. Rystsov, "CASPaxos:
 * Replicated State Machines without logs" (2018), with its one-round path and its deletion.  That
 * deletion is changed in one point: instead of an age for each proposer, every acceptor keeps two
 * floors that stand for all registers it has no state of (R6, R7).
 *
 * INVARIANTS
 * R1	A ballot is made by one proposer, once, and is proposed for one register with one value.
 *		It carries (node, incarnation, proposer): an incarnation is drawn at random at each start
 *		of a server, a proposer's number is given once in an incarnation, its counter only grows.
 *		Counter 0 is no ballot and nobody proposes with it.
 * R2	An acceptor never promises or accepts below what it has promised for that register.
 * R3	An answer is sent only when every state that it tells, or follows from, is flushed.
 * R4	What is proposed under a ballot is derived from the accepted value of the highest ballot
 *		that a quorum had when it promised this ballot; quorums meet.  So, once a value is chosen
 *		(accepted by a quorum under one ballot), all higher ballots propose it or a successor.
 * R5	A successor's version is its predecessor's + 1; that of the first value after nothing is the
 *		highest floor of a quorum + 1.  The value's origin (the first ballot under which its
 *		operation proposed anything) tells two proposals of one version apart.
 * R6	A register without state at an acceptor counts as one that has promised the acceptor's
 *		ballot floor.  Erasing raises this floor to what was promised: no promise is ever lost.
 * R7	A register's state is erased only if it is a tombstone under a ballot that every acceptor of
 *		the configuration has accepted: nobody holds anything older that could come back.  The
 *		version floor is raised to its version in the same flush, so every quorum knows the
 *		version, from a tombstone or from a floor.
 * R8	A configuration has a version; there is one configuration of a version.  An acceptor
 *		durably refuses versions lower than the highest it has seen.
 * R9	Between two sets of acceptors there is a joint configuration, in which a quorum is a quorum
 *		of the one and a quorum of the other.  The new set decides alone only after a quorum of the
 *		old one has refused anything older, its floors were raised on a quorum of the new one, and
 *		all registers it knew have been read through both.  The old set may decide alone again at
 *		any time before.
 * R10	An acceptor whose storage went back in time is another acceptor: it gets a new identity and
 *		loses all registers.  So is one that has left a set, or had begun to join one, before it may
 *		join again.  A message names the identity it is for, and is refused by any other.
 * R11	The one-round path uses a ballot that a quorum promised together with accepting the value
 *		it builds on, or while it held that value and a WRITE was refused for it; under the same
 *		configuration version, and under that ballot nothing was proposed yet.
 * R12	An operation changes a register at most once, and says that it has not changed it, or tries
 *		anew, only if its earlier proposal is not part of what it builds on.
 *
 * MESSAGES		request			changes at the acceptor				answer
 *	LOOK						-									LOOKED, state and floors
 *	PREPARE		ballot			promised							PROMISED, state and floors
 *	ACCEPT		ballot, value,	promised, accepted, value			ACCEPTED, what is promised
 *				next ballot
 *	ERASE		ballot			state gone, both floors				ERASED
 *	ENLIST		-				-									ENLISTED, floors
 *	RAISE		floors			both floors							RAISED
 * Each may raise the acceptor's configuration version.  Each may be answered REFUSED (a higher
 * ballot is promised), STALE (a higher configuration version is known), STRANGER (for another
 * identity) or INVALID instead.  Every request can be repeated: the second one changes nothing.
 *
 * STATES of an operation, and the function that takes each edge
 *
 *	concord_proposal_start() ---> LOOKING		a read
 *							 ---> PREPARING		a change
 *							 ---> ACCEPTING		a change, by the proposer that wrote last
 *	LOOKING    --answer()--> DONE				a quorum holds one ballot, or nothing at all
 *			   --answer()--> PREPARING			a quorum disagrees
 *	PREPARING  --answer()--> ACCEPTING			a quorum has promised
 *			   --answer()--> DONE				and holds what the operation needs to know
 *	ACCEPTING  --answer()--> DONE				a quorum has accepted
 *			   --answer()--> ERASING			collecting: everybody has
 *	ERASING	   --answer()--> DONE
 *	LOOKING, PREPARING, ACCEPTING
 *			   --answer()--> BACKING_OFF		too many have promised another ballot
 *	LOOKING, PREPARING, ACCEPTING, ERASING
 *			   --answer()--> OUTDATED			a newer configuration is known
 *	LOOKING, PREPARING, ACCEPTING, BACKING_OFF
 *			   --retry()--> PREPARING			with a higher ballot
 *	ERASING	   --retry()--> ERASING				sent again
 *	any but DONE
 *			   --reconfigure()--> LOOKING		a read
 *			   --reconfigure()--> PREPARING
 *			   --give_up()--> DONE				failed, or unknown
 *
 * UNKNOWN OUTCOME.  A change that was sent with ACCEPT and not accepted by a quorum may yet be
 * chosen, as long as one acceptor holds it: another proposer may take it up.  The operation
 * prepares a higher ballot and looks at the highest value (R12):
 * - it is its own: it is completed, and the operation is OK.
 * - its version is no higher than its own one was: what is built on it has its own one not below
 *   it, so the change may be proposed again, with the same origin: of the two at most one can
 *   become part of the register.  Both are remembered, as the lower version.  To say MISMATCH the
 *   base must be chosen under a ballot above the own one, which then is over.
 * - its version is higher: it may have been built on its own one or not; UNKNOWN.
 *
 * ROUNDS AND FLUSHES (each acceptor's, one after another)
 *	read							1 round, 0 flushes; up to 3 and 2 if an operation is under way
 *	change, wrote last				1 round, 1 flush
 *	change							2 rounds, 2 flushes
 *	a change, where another one		1 round more: what was kept, or guessed, is refused first
 *		came with a higher ballot
 *	a refused change				the same; 1 and 1 if a quorum holds one ballot, and then
 *									1 and 1 for a WRITE on what was learned by that
 *	collecting a deleted register	3 rounds, 3 flushes, everybody must answer
 *
 * FLUSH RULE (R3).  A step returns what of its effects must be stored.  If that is not 0, it is
 * flushed before the answer is sent; if it is 0, the answer still waits for whoever stored what
 * was loaded.  All effects of one step are stored in one transaction.
 *
 * LOCKS.  From loading to flushing a step holds its register exclusively, and the acceptor's own
 * state against change by others, exclusively itself if it changes it.  What belongs to ENLIST,
 * the list of the names of all registers, is taken under that too.
 *
 * A CRASH leaves
 *	of an acceptor: what was flushed; unanswered requests may or may not have been carried out.
 *	of a proposer, before ACCEPT: promises, which the next one passes with a higher ballot.
 *	of a proposer, after an ACCEPT: its change is unknown; the next operation completes or ends it.
 *	of a collector: a tombstone, some of them erased; who collects again finishes it.
 *	during a change of the set: the joint configuration; whoever repeats the transfer finishes it.
 *
 * MEMORY.  Values are the caller's: structures here only point to them.  What an answer points to
 * must stay until the operation is done, what ConcordAhead points to as long as that is used.
 *
 * NOT HERE: how a newer configuration is found and who makes it (one per version), when to give
 * up, the path without PREPARE under ballot 0 for registers that only one proposer can begin.
 */
#ifndef CONCORD_CORE_REGISTER_H
#define CONCORD_CORE_REGISTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONCORD_ACCEPTORS_MAX 5
#define CONCORD_ACCEPTORS_JOINT (CONCORD_ACCEPTORS_MAX + 1)	/* one is being exchanged */
#define CONCORD_VALUE_MAX (1024 * 1024) /* bytes */
#define CONCORD_COUNTER_MAX ((uint64_t) INT64_MAX)	/* of ballots and configuration versions */

/* ---------------------------------------------------------------- ballots and values */

/* Ordered by counter, node, incarnation, proposer (R1).  counter 0: none. */
typedef struct ConcordBallot
{
	uint64_t	counter;
	uint64_t	incarnation;	/* of the proposer's server */
	int32_t		node;
	uint32_t	proposer;		/* given once in an incarnation: not a pid */
} ConcordBallot;

extern int	concord_ballot_compare(const ConcordBallot *a, const ConcordBallot *b);

typedef enum ConcordValueKind
{
	CONCORD_VALUE_NONE = 0,		/* nothing was written, or it was erased */
	CONCORD_VALUE_SET,
	CONCORD_VALUE_TOMBSTONE		/* deleted; has a version, and no bytes */
} ConcordValueKind;

typedef struct ConcordValue
{
	ConcordValueKind kind;
	uint32_t	len;
	int64_t		version;		/* from 1; 0 for NONE */
	ConcordBallot origin;		/* of the operation that proposed it (R5) */
	const void *data;			/* the caller's */
} ConcordValue;

/* ---------------------------------------------------------------- configurations */

/* Who keeps promises: compared as a whole, never used again (R10). */
typedef struct ConcordAcceptorId
{
	int32_t		node;
	int32_t		generation;		/* of the node's storage */
	uint64_t	lineage;		/* random; a new one whenever storage may have gone back in time */
} ConcordAcceptorId;

extern bool concord_acceptor_same(const ConcordAcceptorId *a, const ConcordAcceptorId *b);

/* Sets of acceptors are masks of bits: 1 << index. */
typedef struct ConcordConfig
{
	uint64_t	version;
	int			n;				/* of acceptors, in both sets together */
	ConcordAcceptorId acceptor[CONCORD_ACCEPTORS_JOINT];
	uint32_t	old_set;
	uint32_t	new_set;		/* 0 unless joint */
} ConcordConfig;

/* Of n acceptors, 1 .. CONCORD_ACCEPTORS_MAX, all different; false if they are not. */
extern bool concord_config_first(ConcordConfig *config, uint64_t version,
								 const ConcordAcceptorId *acceptor, int n);

/*
 * The joint configuration that follows a settled one, to add an acceptor, remove one, or exchange
 * one for another; either may be NULL.  False, and *config is as it was, if it is joint already, if
 * the one to add is a member or the one to remove is not, or if there would be too many or none.
 *
 * The one to add has never been a member, under this identity (R10).
 */
extern bool concord_config_join(ConcordConfig *config, const ConcordAcceptorId *add,
								const ConcordAcceptorId *remove);

/* What follows a joint one: the new set alone, after the transfer (R9); or the old one again. */
extern bool concord_config_settle(ConcordConfig *config);
extern bool concord_config_abandon(ConcordConfig *config);

/* Does a set contain a quorum, in a joint configuration of both sets?  Is it everybody? */
extern bool concord_config_quorum(const ConcordConfig *config, uint32_t set);
extern bool concord_config_everybody(const ConcordConfig *config, uint32_t set);

/* ---------------------------------------------------------------- messages */

typedef enum ConcordRequestKind
{
	CONCORD_REQUEST_LOOK,
	CONCORD_REQUEST_PREPARE,
	CONCORD_REQUEST_ACCEPT,
	CONCORD_REQUEST_ERASE,
	CONCORD_REQUEST_ENLIST,		/* this one and the next concern the acceptor, not a register */
	CONCORD_REQUEST_RAISE
} ConcordRequestKind;

#define CONCORD_REQUESTS (CONCORD_REQUEST_RAISE + 1)

typedef struct ConcordRequest
{
	ConcordRequestKind kind;
	ConcordAcceptorId to;
	uint64_t	config;			/* version of the sender's configuration */
	ConcordBallot ballot;		/* LOOK: only tells which answer is to which request */
	ConcordBallot next;			/* ACCEPT: to be promised with it; none if its counter is 0 */
	ConcordValue value;			/* ACCEPT */
	ConcordBallot ballot_floor; /* RAISE */
	int64_t		version_floor;
} ConcordRequest;

typedef enum ConcordAnswerKind
{
	CONCORD_ANSWER_LOOKED,
	CONCORD_ANSWER_PROMISED,
	CONCORD_ANSWER_ACCEPTED,
	CONCORD_ANSWER_ERASED,
	CONCORD_ANSWER_ENLISTED,
	CONCORD_ANSWER_RAISED,
	CONCORD_ANSWER_REFUSED,		/* promised tells why */
	CONCORD_ANSWER_STALE,		/* config tells why */
	CONCORD_ANSWER_STRANGER,	/* from tells who is there */
	CONCORD_ANSWER_INVALID		/* a request that no proposer makes */
} ConcordAnswerKind;

typedef struct ConcordAnswer
{
	ConcordAnswerKind kind;
	ConcordAcceptorId from;
	uint64_t	config;			/* the acceptor's, after the step */
	ConcordBallot ballot;		/* the request's */
	ConcordBallot promised;		/* the register's state, after the step */
	ConcordBallot accepted;
	ConcordValue value;			/* of LOOKED and PROMISED only */
	ConcordBallot ballot_floor; /* the acceptor's, after the step */
	int64_t		version_floor;
} ConcordAnswer;

/* ---------------------------------------------------------------- the acceptor */

/* What is stored of the acceptor itself */
typedef struct ConcordAcceptor
{
	ConcordAcceptorId id;
	uint64_t	config;			/* lowest configuration version it answers to (R8) */
	ConcordBallot ballot_floor; /* R6 */
	int64_t		version_floor;	/* R7 */
} ConcordAcceptor;

/* What is stored of a register; all zero where there is nothing */
typedef struct ConcordRegister
{
	ConcordBallot promised;
	ConcordBallot accepted;		/* never above promised */
	ConcordValue value;
} ConcordRegister;

/* Effects of a step, to be stored in one transaction and flushed before the answer is sent */
#define CONCORD_STORE_ACCEPTOR 1
#define CONCORD_STORE_REGISTER 2
#define CONCORD_DELETE_REGISTER 4

/*
 * Takes a step of the acceptor: changes both states, fills *answer, and returns the effects.
 * For ENLIST and RAISE the register may be NULL.  The answer's value points to what the loaded
 * register's pointed to.
 */
extern unsigned int concord_acceptor_step(ConcordAcceptor *acceptor, ConcordRegister *reg,
										  const ConcordRequest *request, ConcordAnswer *answer);

/*
 * Forgets a register that was promised something and has accepted nothing.  Returns the effects: 0
 * if it is not such a register.  Allowed at any time (R6).
 */
extern unsigned int concord_acceptor_forget(ConcordAcceptor *acceptor, ConcordRegister *reg);

/*
 * Makes a new acceptor of one whose storage went back in time, or that joins again (R10).  The
 * caller deletes every register in the same transaction.
 */
extern void concord_acceptor_renew(ConcordAcceptor *acceptor, const ConcordAcceptorId *id);

/* ---------------------------------------------------------------- the proposer */

/* What a backend keeps as long as it lives; at its start counter is 0, or any hint */
typedef struct ConcordProposer
{
	uint64_t	incarnation;
	int32_t		node;
	uint32_t	proposer;
	uint64_t	counter;		/* the highest that it has used or seen */
} ConcordProposer;

/* What the proposer that wrote a register last keeps for the one-round path (R11) */
typedef struct ConcordAhead
{
	ConcordBallot ballot;		/* promised by a quorum; counter 0: there is none */
	uint64_t	config;
	ConcordValue value;			/* chosen under the ballot before */
} ConcordAhead;

typedef enum ConcordOperation
{
	CONCORD_READ,
	CONCORD_WRITE,				/* if the version is the expected one */
	CONCORD_DELETE,				/* the same; leaves a tombstone, to be collected */
	CONCORD_COLLECT				/* erases a tombstone everywhere */
} ConcordOperation;

#define CONCORD_EXPECT_ANY (-1) /* DELETE: any version, but it must exist */
#define CONCORD_EXPECT_NONE 0	/* that it does not exist */

typedef enum ConcordPhase
{
	CONCORD_LOOKING,
	CONCORD_PREPARING,
	CONCORD_ACCEPTING,
	CONCORD_ERASING,
	CONCORD_BACKING_OFF,
	CONCORD_OUTDATED,
	CONCORD_DONE
} ConcordPhase;

typedef enum ConcordResult
{
	CONCORD_RESULT_OPEN,
	CONCORD_RESULT_OK,			/* value tells what there is now */
	CONCORD_RESULT_MISMATCH,	/* nothing was changed; value tells what there is */
	CONCORD_RESULT_FAILED,		/* given up; it has not happened and never will */
	CONCORD_RESULT_UNKNOWN		/* it may have happened, or may happen yet */
} ConcordResult;

/* What the caller does next */
typedef enum ConcordNext
{
	CONCORD_NEXT_WAIT,			/* for more answers; after a while, retry() */
	CONCORD_NEXT_SEND,			/* the request of the new phase, to all acceptors */
	CONCORD_NEXT_BACK_OFF,		/* wait for about backoff round trips, then retry() */
	CONCORD_NEXT_RECONFIGURE,	/* get a configuration of needs_config, then reconfigure() */
	CONCORD_NEXT_DONE
} ConcordNext;

/* One operation on one register */
typedef struct ConcordProposal
{
	/* for the caller to read */
	ConcordPhase phase;
	ConcordResult result;
	ConcordValue value;			/* of OK and MISMATCH; version of a tombstone too */
	ConcordAhead ahead;			/* after OK and MISMATCH of a WRITE: for the next one */
	ConcordConfig config;
	uint64_t	needs_config;
	uint32_t	backoff;		/* at least 1 */
	uint32_t	attempts;		/* ballots prepared after the first */
	uint32_t	rounds;			/* how often NEXT_SEND was returned */

	/* the operation's own */
	ConcordProposer *proposer;
	ConcordOperation op;
	int64_t		expected;
	const void *data;
	uint32_t	len;
	uint64_t	random;
	ConcordBallot ballot;
	ConcordBallot next;
	uint32_t	answered;		/* who has, in this phase, as asked */
	uint32_t	refused;
	uint32_t	promised_next;
	uint32_t	holders;		/* of what best tells */
	ConcordBallot best;			/* highest accepted ballot of the answers, and its value */
	ConcordValue base;
	int64_t		floor;
	ConcordValue proposed;
	bool		own;			/* what is proposed has this operation's origin */
	ConcordBallot origin;		/* of all changes that it proposes; counter 0: none yet */
	ConcordBallot own_ballot;	/* under which it has proposed one last */
	int64_t		own_version;	/* lowest of those that may still be chosen; 0: none may */
} ConcordProposal;

/*
 * Begins an operation and returns NEXT_SEND as a rule.  *proposer is used until it is done, by no
 * other operation in the meantime, and its counter is kept for the next one.  ahead may be NULL;
 * what it tells is of this register, and was left by the last operation of this proposer on it; it
 * is used up, so that no ballot is proposed twice (R1).  A value of more than CONCORD_VALUE_MAX
 * bytes is the caller's to refuse; here the result is FAILED, at once.
 */
extern ConcordNext concord_proposal_start(ConcordProposal *p, ConcordProposer *proposer,
										  const ConcordConfig *config, ConcordOperation op,
										  int64_t expected, const void *data, uint32_t len,
										  ConcordAhead *ahead, uint64_t random);

/* Writes the request of the present phase to the acceptor of that index. */
extern void concord_proposal_request(const ConcordProposal *p, int index, ConcordRequest *request);

/* The acceptors that have not answered it: to whom it may be sent again. */
extern uint32_t concord_proposal_missing(const ConcordProposal *p);

/* Takes an answer, which may be a late one, a repeated one, or to somebody else's request. */
extern ConcordNext concord_proposal_answer(ConcordProposal *p, const ConcordAnswer *answer);

/*
 * Goes on with a higher ballot: the backoff is over, or answers are missing for too long.  In the
 * second case the caller also looks for a newer configuration, as all those who could tell that
 * there is one may be gone.
 */
extern ConcordNext concord_proposal_retry(ConcordProposal *p);

/* Goes on under another configuration, of a higher version. */
extern ConcordNext concord_proposal_reconfigure(ConcordProposal *p, const ConcordConfig *config);

/* Ends the operation: FAILED if it is certain that it has no effect, else UNKNOWN. */
extern ConcordNext concord_proposal_give_up(ConcordProposal *p);

/* ---------------------------------------------------------------- change of the set */

/*
 * The transfer from the old set of a joint configuration to the new one (R9).  After NEXT_DONE the
 * caller reads (CONCORD_READ, under this configuration) every register whose name was in one of the
 * lists that came with the ENLISTED answers in "listed".  When all these reads were OK, the
 * configuration may be settled.  It can be repeated by anybody.
 */
typedef struct ConcordTransfer
{
	ConcordConfig config;
	ConcordRequestKind phase;	/* ENLIST, RAISE */
	bool		done;
	uint32_t	answered;
	uint32_t	listed;			/* those whose ENLISTED answers were counted */
	ConcordBallot ballot_floor;
	int64_t		version_floor;
} ConcordTransfer;

extern ConcordNext concord_transfer_start(ConcordTransfer *t, const ConcordConfig *joint);
extern void concord_transfer_request(const ConcordTransfer *t, int index, ConcordRequest *request);

/* RECONFIGURE: somebody knows a newer configuration, and the transfer is over. */
extern ConcordNext concord_transfer_answer(ConcordTransfer *t, const ConcordAnswer *answer);

#endif							/* CONCORD_CORE_REGISTER_H */
