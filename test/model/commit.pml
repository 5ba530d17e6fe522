/*
 * commit.pml
 *		Two-phase commit and its recovery, for the model checker Spin.
 *
 * One transaction: a coordinator that writes locally too, N participants with a branch each.
 * Everything that may happen is tried in every order; a configuration only bounds how much of it.
 *
 * WHAT IS MODELLED
 * - The coordinator's session takes its steps from concord_tx_step(), resolvers take their verdicts
 *   from concord_commit_judge(): the tables of src/core/commit.c themselves are checked.
 * - Every message may be lost or delayed for as long as one likes; COMMIT PREPARED and ROLLBACK
 *   PREPARED may arrive twice (DUPLICATES), a PREPARE after everybody has given up.
 * - The decision row is written, flushed and made visible in three steps.  A crash of the
 *   coordinator's server at any moment loses what is not flushed (or not, if other sessions' writes
 *   took it along), all its sessions, the liveness table and answers under way, and starts a new
 *   incarnation.
 * - A participant's crash loses an open branch and its resolvers' memory, not a prepared branch.
 * - Each participant has its resolver, the first one a second (SECOND).  Looking at the liveness
 *   table, looking at the decision and acting on the answer are three steps, any time apart.
 * - FAULTS bounds crashes, promotions, lost answers to resolvers; losing other messages is free.
 * - ASKS: a client asks for the outcome of the gid, from the moment it may have been told.
 * - FORCE: an administrator records an abort.
 * - GC: the decision is deleted below a horizon.  A participant may fail over to a standby that has
 *   not received the end of its branch, and shows it as prepared again.
 * - PROMOTED=ASYNC: the coordinator's standby is promoted with or without the decision, while the
 *   old server goes on and still answers who has an old map.  PROMOTED=SYNC: so too, with
 *   synchronous replication, where a decision counts only once the standby has it.  The session's
 *   wait for that may be cancelled at any time.
 *
 * PROPERTIES, as assertions
 * P2 a branch is committed only if a durable decision exists.
 * P3 an answer of commit or abort is never contradicted by another answer, nor by the decision.
 * P4 abort is answered only if no decision exists or ever will.
 * A  all branches, and the coordinator's own transaction, end the same way; a branch that ends
 *    twice (before and after a failover) ends the same way.
 * E  when nothing is left to happen, every prepared branch is finished, the coordinator is done,
 *    and the horizon has passed the transaction.  Only ASYNC leaves branches, reported as unknown.
 * C  there is no cycle (checked by runs of its own), so E is always reached.  An answer "in
 *    progress" is therefore modelled as a resolver that waits: asking again changes nothing else.
 * T  the coordinator takes no step that the table does not allow.
 *
 * WHAT IS NOT: several transactions (gids are independent but for the horizon, which is one bit
 * here: whether it has passed this gid), one-phase commits (their outcome is one node's), what data
 * the branches hold, savepoints, deadlines (whoever waits may give up at any time), a participant's
 * failover that loses a PREPARE (a lost write, which the session's token reports), GC together with
 * a promotion of the coordinator (the standby has a prefix of its WAL: horizon before deletion).
 *
 * -DBUG=<n> seeds a bug, -DREACH=<n> makes an error of a situation that must be reachable, so that
 * the model cannot pass by doing nothing: check.sh lists both.
 */

#ifndef N
#define N 2						/* participants */
#endif
#ifndef FAULTS
#define FAULTS 1				/* crashes, failovers, lost answers */
#endif
#ifndef SECOND
#define SECOND 1				/* a second resolver of participant 0 */
#endif
#ifndef DUPLICATES
#define DUPLICATES 0			/* messages delivered once more */
#endif
#ifndef ASKS
#define ASKS 0					/* how often the client may ask */
#endif
#ifndef FORCE
#define FORCE 0
#endif
#ifndef GC
#define GC 0
#endif
#define ASYNC 1
#define SYNC 2
#ifndef PROMOTED
#define PROMOTED 0
#endif
#ifndef BUG
#define BUG 0
#endif
#ifndef REACH
#define REACH 0
#endif
#ifndef ONLY
#define ONLY 0					/* one property alone: 2, 3, 4 for P2 to P4, 5 for A, 6 for E */
#endif
#define OFF(property) (ONLY != 0 && ONLY != property)

#define SEEN(n) assert(REACH != n)

/* ConcordTxState, and what it is after a crash */
#define ACTIVE 0
#define PREPARING 5
#define RECORDING 7
#define COMMITTING 8			/* CONCORD_TX_COMMITTED */
#define FINISHING 9
#define ABORTING 10				/* CONCORD_TX_ABORTED */
#define ROLLING_BACK 11
#define END_COMMITTED 12
#define END_ABORTED 13
#define DEAD 20
#define NOT_ALLOWED 21

/* ConcordVerdict */
#define COMMIT 0
#define ABORT 1
#define WAIT 2
#define UNKNOWN 3
#define FORGOTTEN 4

/* a branch, as its participant's storage has it */
#define OPEN 0
#define PREPARED 1
#define COMMITTED 2
#define ROLLED_BACK 3

/* the decision row */
#define NO_ROW 0
#define WRITTEN 1
#define VISIBLE 2
#define FORCED_ABORT 3			/* an administrator's row */

/* a resolver */
#define IDLE 0
#define LOOKED 1				/* at the liveness table */
#define ANSWERED 2
#define REPORTED 3				/* that it is unknown or forgotten */

#if ASKS
#define CLIENT 1
#else
#define CLIENT 0
#endif
#define RESOLVERS (N + SECOND + CLIENT)

c_decl {
\#include "core/commit.h"

#define SAME(a, b) _Static_assert((int) (a) == (int) (b), "numbers of the model and of core differ")
SAME(ACTIVE, CONCORD_TX_ACTIVE);
SAME(PREPARING, CONCORD_TX_PREPARING);
SAME(RECORDING, CONCORD_TX_RECORDING);
SAME(COMMITTING, CONCORD_TX_COMMITTED);
SAME(FINISHING, CONCORD_TX_FINISHING);
SAME(ABORTING, CONCORD_TX_ABORTED);
SAME(ROLLING_BACK, CONCORD_TX_ROLLING_BACK);
SAME(END_COMMITTED, CONCORD_TX_END_COMMITTED);
SAME(END_ABORTED, CONCORD_TX_END_ABORTED);
SAME(COMMIT, CONCORD_VERDICT_COMMIT);
SAME(ABORT, CONCORD_VERDICT_ABORT);
SAME(WAIT, CONCORD_VERDICT_WAIT);
SAME(UNKNOWN, CONCORD_VERDICT_UNKNOWN);
SAME(FORGOTTEN, CONCORD_VERDICT_FORGOTTEN);

/* The new state, or NOT_ALLOWED; also checks what the table says of liveness and action. */
static int
tx_step(int state, ConcordTxEvent event, ConcordTxAction expected)
{
	ConcordTxState s = (ConcordTxState) state;
	ConcordTxAction action;

	if (!concord_tx_step(&s, event, &action) || action != expected)
		return NOT_ALLOWED;
	return (int) s;
}

static int
judge(int live, int decision, int below_horizon, int restarted, int promoted)
{
	ConcordObservation o;

	o.coordinator_known = true;
	o.incarnation = restarted ? CONCORD_INCARNATION_OLDER_CERTAIN : CONCORD_INCARNATION_CURRENT;
	/* with synchronous replication whatever was decided is here; else that is not known */
	if (promoted)
		o.incarnation = PROMOTED == SYNC || BUG == 7 ? CONCORD_INCARNATION_OLDER_CERTAIN :
			CONCORD_INCARNATION_OLDER_UNCERTAIN;
	o.live = live != 0;
	o.decision = decision == VISIBLE ? CONCORD_DECISION_COMMIT :
		decision == FORCED_ABORT ? CONCORD_DECISION_ABORT : CONCORD_DECISION_NONE;
	o.below_horizon = below_horizon != 0;
	o.needs_decision = true;
	return (int) concord_commit_judge(&o);
}
}

/* the coordinator's server */
byte tx = ACTIVE;
bit live;						/* the gid is in the liveness table */
byte row = NO_ROW;
bit flushed;					/* the row's commit record */
bit restarted;					/* the gid's incarnation has ended */
bit horizon;					/* stored, above this gid */

/* its standby */
bit replicated;					/* has the row */
bit promoted;

/* participants */
byte branch[N];
bit voted[N];					/* the answer to PREPARE has arrived */
bit ended_there[N];				/* the participant's standby has the end of its branch */
bit settled[N];					/* has said that it needs no decision below the horizon */

/* messages on their way: number of copies */
byte prepare[N];
byte commit_prepared[N];
byte rollback_prepared[N];

/* resolvers: of each participant, the second, the client */
byte at[RESOLVERS];
byte verdict[RESOLVERS];
bit seen_live[RESOLVERS];
bit asked_new[RESOLVERS];		/* the promoted server, not the old one */
#if BUG == 2
byte seen_row[RESOLVERS];
#endif
#if BUG == 9
bit seen_below[RESOLVERS];
#endif

byte faults = FAULTS;
byte asks = ASKS;
byte i;							/* scratch, 0 between steps */

/* what has happened, for the properties */
bit decided;					/* a durable decision was made */
bit told_abort;					/* somebody was answered abort */
bit was_committed;				/* a branch was */
bit was_rolled_back;

/* In assertions: 1 if the property is not looked at; and Spin reports its name. */
hidden byte is_P2 = OFF(2), is_P3 = OFF(3), is_P4 = OFF(4), is_A = OFF(5), is_E = OFF(6), is_T;

#define TX(event, action) \
	c_code { now.tx = tx_step(now.tx, CONCORD_TX_##event, CONCORD_TX_DO_##action); }; \
	assert(is_T || tx != NOT_ALLOWED)

inline decide()
{
	assert(is_P4 || !told_abort);
	assert(is_A || !was_rolled_back);
	decided = 1
}

inline write_row()
{
	if
	:: row == NO_ROW -> row = WRITTEN
	:: else
	fi
}

/* The commit record is on disk. */
inline flush()
{
	flushed = 1;
	if
	:: PROMOTED != SYNC -> decide()
	:: else
	fi
}

/* Each message is lost, or on its way for as long as it takes. */
#define SEND(message) \
	do \
	:: i < N -> \
		if \
		:: message[i] = 0 \
		:: message[i] = 1 \
		:: DUPLICATES -> message[i] = 2 \
		fi; \
		i++ \
	:: else -> i = 0; break \
	od

inline end_branch(p, how)
{
	if
	:: how == COMMITTED ->
		assert(is_P2 || decided);
		assert(is_A || !was_rolled_back);
		was_committed = 1
	:: else ->
		assert(is_P3 || !decided);
		assert(is_A || !was_committed);
		was_rolled_back = 1
	fi;
	branch[p] = how;
	ended_there[p] = 0
}

/* An open branch is rolled back with its session; nothing of it was ever on disk. */
inline drop_branch(p)
{
	end_branch(p, ROLLED_BACK);
	ended_there[p] = 1;
	prepare[p] = 0
}

#if N == 2
#define ALL(what) (what[0] && what[1])
#else
#define ALL(what) (what[0] && what[1] && what[2])
#endif

proctype Coordinator()
{
end:
	do
#if BUG == 10					/* liveness entered after PREPARE was sent */
	:: atomic { tx == ACTIVE -> TX(TAKE_TWO_PHASE, PREPARE); SEND(prepare) }
	:: atomic { tx == PREPARING && !live -> live = 1 }
	:: atomic { tx == PREPARING && live && ALL(voted) -> TX(ALL_PREPARED, RECORD); write_row() }
#else
	:: atomic { tx == ACTIVE -> TX(TAKE_TWO_PHASE, PREPARE); live = 1; SEND(prepare) }
	:: atomic { tx == PREPARING && ALL(voted) -> TX(ALL_PREPARED, RECORD); write_row() }
#endif

	/* a refusal, a lost answer, a cancel, an error of the local commit */
	:: atomic { tx == PREPARING -> TX(BRANCH_LOST, RAISE); TX(LOCAL_ABORT, LEAVE) }
	:: atomic {
			tx == RECORDING && !flushed ->
			if
			:: row == WRITTEN -> row = NO_ROW
			:: else				/* was refused, as there is another one for this gid */
			fi;
			TX(LOCAL_ABORT, LEAVE)
		}
	:: atomic { tx == ABORTING -> live = 0; TX(LEFT, ROLL_BACK) }
	:: atomic { tx == ROLLING_BACK -> SEND(rollback_prepared); TX(ENDED, RELEASE) }

	/* the decision */
	:: atomic { tx == RECORDING && row == WRITTEN && !flushed -> flush() }
#if BUG == 3					/* the row is visible before it is flushed */
	:: atomic { tx == RECORDING && row == WRITTEN -> row = VISIBLE; TX(LOCAL_COMMIT, LEAVE) }
#else							/* the wait for the standby is over, or was cancelled */
	:: atomic { tx == RECORDING && flushed -> row = VISIBLE; TX(LOCAL_COMMIT, LEAVE) }
#endif
#if BUG == 4					/* liveness left before the row is visible */
	:: atomic { tx == RECORDING && live -> live = 0 }
#endif

	/* phase two */
	:: atomic { tx == COMMITTING -> live = 0; TX(LEFT, COMMIT_PREPARED) }
#if BUG == 6					/* an error after the decision is treated as any error */
	:: atomic { tx == FINISHING -> SEND(rollback_prepared); tx = END_ABORTED }
#endif
#if PROMOTED == SYNC && BUG != 12 /* 12: a cancelled wait for the standby counts as waited */
	:: atomic { tx == FINISHING && replicated -> SEND(commit_prepared); TX(ENDED, RELEASE) }
	:: atomic { tx == FINISHING && !replicated -> TX(ENDED, RELEASE); SEEN(12) }
#else
	:: atomic { tx == FINISHING -> SEND(commit_prepared); TX(ENDED, RELEASE) }
#endif
	od
}

proctype Participant(byte p)
{
end:
	do
	:: atomic {
			prepare[p] && branch[p] == OPEN && (!settled[p] || BUG == 8) ->
			prepare[p] = 0;
			branch[p] = PREPARED;
			if
			:: told_abort -> SEEN(1)	/* late: after somebody was told abort */
			:: else
			fi;
			if
			:: voted[p] = 1
			:: skip				/* the answer is lost */
			fi
		}
	/* its session ends: an error, a broken connection, a PREPARE below the horizon */
	:: atomic { branch[p] == OPEN && tx != ACTIVE -> drop_branch(p) }
	:: atomic {
			commit_prepared[p] ->
			commit_prepared[p]--;
			if
			:: branch[p] == PREPARED -> end_branch(p, COMMITTED)
			:: else				/* "does not exist" */
			fi
		}
	:: atomic {
			rollback_prepared[p] ->
			rollback_prepared[p]--;
			if
			:: branch[p] == PREPARED -> end_branch(p, ROLLED_BACK)
			:: else
			fi
		}
#if GC
	:: atomic { branch[p] > PREPARED && !ended_there[p] -> ended_there[p] = 1 }
#endif
	od
}

/*
 * What is seen of the decision, on the old server and on the promoted one: VISIBLE, FORCED_ABORT or
 * NO_ROW.  With synchronous replication only what the standby has too (not in bug 13).
 */
#if PROMOTED == SYNC && BUG != 13
#define OLD_WAITS_FOR_STANDBY (row == VISIBLE && !replicated)
#else
#define OLD_WAITS_FOR_STANDBY 0
#endif
#define OLD_SHOWS ((row == WRITTEN || OLD_WAITS_FOR_STANDBY) -> NO_ROW : row)
#define SHOWS(new) ((new) -> (replicated -> VISIBLE : NO_ROW) : OLD_SHOWS)

#if BUG == 2					/* decision looked at before liveness */
#define ROW(r) seen_row[r]
#define LIVE(r) (!asked_new[r] && live)
#else
#define ROW(r) SHOWS(asked_new[r])
#define LIVE(r) seen_live[r]
#endif
#if BUG == 9					/* horizon looked at before the decision */
#define BELOW(r) seen_below[r]
#else
#define BELOW(r) horizon
#endif
#define IN_PROGRESS(r) (ROW(r) == NO_ROW && (LIVE(r) || (!asked_new[r] && OLD_WAITS_FOR_STANDBY)))

/* The first look: is it live?  The prepared transactions were listed before. */
inline look(r, new)
{
	asked_new[r] = new;
#if BUG == 2
	seen_row[r] = SHOWS(new);
#elif BUG == 1					/* there is no liveness table: absent means abort */
	seen_live[r] = 0;
#else
	seen_live[r] = !new && live;
#endif
#if BUG == 9
	seen_below[r] = horizon;
#endif
	at[r] = LOOKED
}

inline rest(r)
{
	at[r] = IDLE;
	verdict[r] = 0;
	seen_live[r] = 0;
#if BUG == 2
	seen_row[r] = 0;
#endif
#if BUG == 9
	seen_below[r] = 0;
#endif
	asked_new[r] = 0
}

byte arg_live, arg_row, arg_below;	/* of judge(), 0 between steps */

/* The second look: is there a decision?  The answer is on its way. */
inline answer(r)
{
	arg_live = LIVE(r);
	arg_row = ROW(r);
	arg_below = BELOW(r);
	c_code {
		now.verdict[PResolver->r] = judge(now.arg_live, now.arg_row, now.arg_below, now.restarted,
										  now.asked_new[PResolver->r]);
	};
	arg_live = 0;
	arg_row = 0;
	arg_below = 0;
	seen_live[r] = 0;
#if BUG == 2
	seen_row[r] = 0;
#endif
#if BUG == 9
	seen_below[r] = 0;
#endif
	asked_new[r] = 0;
	at[r] = ANSWERED;
	if
	:: verdict[r] == COMMIT -> assert(is_P3 || decided)
	:: verdict[r] == ABORT ->
		assert(is_P4 || !decided);
		told_abort = 1
	:: else
	fi
}

/* As long as it was in progress the answer was to wait; now it is worth while to ask again. */
inline ask_again(r)
{
	c_code { now.arg_row = judge(1, NO_ROW, now.horizon, now.restarted, 0); };
	assert(is_T || arg_row == WAIT);
	arg_row = 0;
	rest(r)
}

/* A resolver of participant p, or the client (p = N), which has nothing to finish. */
proctype Resolver(byte r; byte p)
{
end:
	do
	:: atomic { at[r] == IDLE && p < N && branch[p] == PREPARED && !promoted -> look(r, 0) }
	:: atomic { at[r] == IDLE && p < N && branch[p] == PREPARED && promoted -> look(r, 1) }
#if PROMOTED
	:: atomic {					/* with an old map */
			at[r] == IDLE && p < N && branch[p] == PREPARED && promoted && faults ->
			faults--;
			look(r, 0)
		}
#endif
#if BUG == 14					/* the gid was told before it was entered in the liveness table */
	:: atomic { at[r] == IDLE && p == N && asks -> asks--; look(r, promoted) }
#else
	:: atomic { at[r] == IDLE && p == N && asks && tx != ACTIVE -> asks--; look(r, promoted) }
#endif

	:: atomic { at[r] == LOOKED && !IN_PROGRESS(r) -> answer(r) }
#if BUG == 16					/* asks again and again */
	:: atomic { at[r] == LOOKED && IN_PROGRESS(r) -> rest(r) }
#else
	:: atomic {
			at[r] == LOOKED && IN_PROGRESS(r) && !live && !OLD_WAITS_FOR_STANDBY ->
			ask_again(r)
		}
#endif
	/* gives up on the old server */
	:: atomic { at[r] == LOOKED && !asked_new[r] && promoted -> rest(r) }

	:: atomic {
			at[r] == ANSWERED && p < N && branch[p] == PREPARED && verdict[r] == COMMIT ->
			end_branch(p, COMMITTED);
			rest(r);
			if
			:: restarted && tx == DEAD -> SEEN(2)	/* a commit finished without its coordinator */
			:: else
			fi
		}
	:: atomic {
			at[r] == ANSWERED && p < N && branch[p] == PREPARED && verdict[r] == ABORT ->
			end_branch(p, ROLLED_BACK);
			rest(r);
			if
			:: restarted && tx == DEAD -> SEEN(3)	/* and an abort */
			:: else
			fi
		}
	:: atomic {
			at[r] == ANSWERED && p < N && branch[p] == PREPARED && verdict[r] == UNKNOWN ->
			at[r] = REPORTED;
			SEEN(4)
		}
	:: atomic {
			at[r] == ANSWERED && p < N && branch[p] == PREPARED && verdict[r] == FORGOTTEN ->
			at[r] = REPORTED
		}
	/* finished by another, perhaps to appear again; or, for the client, that was all */
	:: atomic {
			at[r] >= ANSWERED && p < N && branch[p] != PREPARED ->
			rest(r);
			SEEN(5)
		}
	:: atomic {
			at[r] == ANSWERED && p == N ->
			if
			:: verdict[r] == FORGOTTEN -> SEEN(6)
			:: verdict[r] == COMMIT -> SEEN(7)
			:: verdict[r] == ABORT -> SEEN(8)
			:: else
			fi;
			rest(r)
		}
	:: atomic { at[r] == ANSWERED && p < N && faults -> faults--; rest(r) }	/* the answer is lost */
	od
}

/* Who has a session on the coordinator's old server loses it. */
inline cut_resolvers()
{
	do
	:: i < RESOLVERS ->
		if
		:: at[i] == LOOKED && !asked_new[i] -> rest(i)
		:: else
		fi;
		i++
	:: else -> i = 0; break
	od
}

inline forget_answers(p)
{
	rest(p);
#if SECOND
	if
	:: p == 0 -> rest(N)
	:: else
	fi
#endif
}

#define CRASH_MATTERS(p) \
	((branch[p] == OPEN && tx != ACTIVE) || at[p] != IDLE || (p == 0 && SECOND && at[N] != IDLE))
#define FAILOVER_MATTERS(p) (branch[p] > PREPARED && !ended_there[p])

inline crash(p)
{
	if
	:: branch[p] == OPEN -> drop_branch(p)
	:: else
	fi;
	forget_answers(p)
}

proctype Faults()
{
end:
	do
	/* the coordinator's server, and its recovery */
	:: atomic {
			faults && tx != ACTIVE ->
			faults--;
			restarted = 1;
			live = 0;
			if
			:: tx < END_COMMITTED -> tx = DEAD
			:: else
			fi;
			if
			:: (row == WRITTEN || row == VISIBLE) && !flushed ->
				if
				:: row = NO_ROW
				:: flush(); row = VISIBLE; SEEN(9)
				fi
			:: row == WRITTEN && flushed -> row = VISIBLE
			:: else
			fi;
			cut_resolvers()
		}
	/* a participant's server */
	:: atomic { faults && CRASH_MATTERS(0) -> faults--; crash(0) }
	:: atomic { faults && CRASH_MATTERS(1) -> faults--; crash(1) }
#if N > 2
	:: atomic { faults && CRASH_MATTERS(2) -> faults--; crash(2) }
#endif
#if GC
	/* its standby is promoted, and shows as prepared what had ended */
	:: atomic { faults && FAILOVER_MATTERS(0) -> faults--; branch[0] = PREPARED; forget_answers(0) }
	:: atomic { faults && FAILOVER_MATTERS(1) -> faults--; branch[1] = PREPARED; forget_answers(1) }
#if N > 2
	:: atomic { faults && FAILOVER_MATTERS(2) -> faults--; branch[2] = PREPARED; forget_answers(2) }
#endif
#endif
#if PROMOTED
	/* the coordinator's standby is promoted; the old server does not know and goes on */
	:: atomic { faults && !promoted && tx != ACTIVE -> faults--; promoted = 1 }
#endif
	od
}

#if PROMOTED
proctype Standby()
{
end:
	do
	:: atomic {
			flushed && !replicated && !promoted ->
			replicated = 1;
			if
			:: PROMOTED == SYNC -> decide()
			:: else
			fi
		}
	od
}
#endif

#if GC
/*
 * A participant that says it needs no decision below the horizon has the end of its branch on its
 * standby too, and refuses to prepare below it from then on.
 */
#define NEEDS_NONE(p) (branch[p] == OPEN || \
	(branch[p] > PREPARED && (ended_there[p] || BUG == 5)))
#define OVER (!live && tx != ACTIVE && tx != PREPARING && tx != RECORDING)

proctype Collector()
{
end:
	do
	:: atomic { OVER && !settled[0] && NEEDS_NONE(0) -> settled[0] = 1 }
	:: atomic { OVER && !settled[1] && NEEDS_NONE(1) -> settled[1] = 1 }
#if N > 2
	:: atomic { OVER && !settled[2] && NEEDS_NONE(2) -> settled[2] = 1 }
#endif
#if BUG == 11					/* the decision is deleted before the horizon is stored */
	:: atomic { ALL(settled) && row != NO_ROW -> row = NO_ROW }
	:: atomic { ALL(settled) && row == NO_ROW && !horizon -> horizon = 1 }
#else
	:: atomic { ALL(settled) && !horizon -> horizon = 1 }
	:: atomic { horizon && row != NO_ROW -> row = NO_ROW }
#endif
	od
}
#endif

#if FORCE
/*
 * An administrator who gives up a transaction.  The row's key is the gid, so it is refused if there
 * is a decision, waits while one is being made, and refuses a later one; below the horizon it is
 * refused too.
 */
proctype Administrator()
{
end:
	do
	:: atomic {
			row == NO_ROW && tx != ACTIVE && (!horizon || BUG == 15) ->
			row = FORCED_ABORT;
			break
		}
	od
}
#endif

/* E: nothing can happen any more. */
proctype Quiescence()
{
	atomic {
		timeout ->
		do
		:: i < N ->
			if
			:: PROMOTED == ASYNC && promoted && !replicated && branch[i] == PREPARED ->
				assert(is_E || (at[i] == REPORTED && verdict[i] == UNKNOWN))
			:: else ->
				assert(is_E || branch[i] == COMMITTED || branch[i] == ROLLED_BACK);
				assert(is_A || (branch[i] == COMMITTED) == decided)
			fi;
			i++
		:: else -> i = 0; break
		od;
		if
		:: tx == END_COMMITTED && decided
		:: tx == END_COMMITTED && !decided ->	/* the client was warned */
			assert(is_A || (PROMOTED == SYNC && promoted && !replicated))
		:: tx == END_ABORTED -> assert(is_A || !decided)
		:: else -> assert(is_E || tx == DEAD)
		fi;
		assert(is_E || !GC || (horizon && row == NO_ROW));
		if
		:: decided && was_committed && faults == 0 -> SEEN(10)
		:: !decided && was_rolled_back && faults == 0 -> SEEN(11)
		:: else
		fi
	}
}

init
{
	atomic {
		run Coordinator();
		run Participant(0);
		run Participant(1);
#if N > 2
		run Participant(2);
#endif
		run Resolver(0, 0);
		run Resolver(1, 1);
#if N > 2
		run Resolver(2, 2);
#endif
#if SECOND
		run Resolver(N, 0);
#endif
#if CLIENT
		run Resolver(N + SECOND, N);
#endif
		run Faults();
#if PROMOTED
		run Standby();
#endif
#if GC
		run Collector();
#endif
#if FORCE
		run Administrator();
#endif
		run Quiescence()
	}
}
