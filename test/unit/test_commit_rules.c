/*
 * test_commit_rules.c
 *		Atomic commit: the states of a transaction and of a branch as graphs, and the verdicts.
 */
#include "unit.h"

#include <string.h>

#include "core/commit.h"

#define lengthof(array) ((int) (sizeof(array) / sizeof((array)[0])))

/* ---------------------------------------------------------------- the tables as graphs */

/* One of the two state machines; next gives the state after an event, or -1. */
typedef struct Machine
{
	int			states;
	int			events;
	int			(*next) (int state, int event);
	ConcordOutcome (*outcome) (int state);
	const char *(*name) (int state);
}			Machine;

static int
tx_next(int state, int event)
{
	ConcordTxState s = (ConcordTxState) state;
	ConcordTxAction action;

	return concord_tx_step(&s, (ConcordTxEvent) event, &action) ? (int) s : -1;
}

static ConcordOutcome
tx_outcome(int state)
{
	return concord_tx_outcome((ConcordTxState) state);
}

static const char *
tx_name(int state)
{
	return concord_tx_state_name((ConcordTxState) state);
}

static int
br_next(int state, int event)
{
	ConcordBrState s = (ConcordBrState) state;
	ConcordBrAction action;

	return concord_br_step(&s, (ConcordBrEvent) event, &action) ? (int) s : -1;
}

static ConcordOutcome
br_outcome(int state)
{
	return concord_br_outcome((ConcordBrState) state);
}

static const char *
br_name(int state)
{
	return concord_br_state_name((ConcordBrState) state);
}

static const Machine tx_machine = {
	CONCORD_TX_STATES, CONCORD_TX_EVENTS, tx_next, tx_outcome, tx_name
};
static const Machine br_machine = {
	CONCORD_BR_STATES, CONCORD_BR_EVENTS, br_next, br_outcome, br_name
};

/* The set of states that can be reached from a state, itself included, as bits. */
static unsigned int
reachable(const Machine *machine, int from)
{
	unsigned int set = 1u << from;
	unsigned int before;

	do
	{
		before = set;
		for (int s = 0; s < machine->states; s++)
			for (int e = 0; e < machine->events; e++)
				if ((set & 1u << s) && machine->next(s, e) >= 0)
					set |= 1u << machine->next(s, e);
	} while (set != before);
	return set;
}

static bool
is_end(const Machine *machine, int state)
{
	for (int e = 0; e < machine->events; e++)
		if (machine->next(state, e) >= 0)
			return false;
	return true;
}

/* Everything in the table is of use: states are reached, events wanted, ends come; names differ. */
static void
check_graph(const Machine *machine)
{
	CHECK(reachable(machine, 0) == (1u << machine->states) - 1);
	for (int s = 0; s < machine->states; s++)
	{
		bool		ends = false;

		for (int t = 0; t < machine->states; t++)
			ends |= (reachable(machine, s) & 1u << t) && is_end(machine, t);
		CHECK(ends, "%s", machine->name(s));
		CHECK(!is_end(machine, s) || machine->outcome(s) != CONCORD_OUTCOME_OPEN, "%s",
			  machine->name(s));
		for (int t = 0; t < s; t++)
			CHECK(strcmp(machine->name(s), machine->name(t)) != 0, "%s", machine->name(s));
	}
	for (int e = 0; e < machine->events; e++)
	{
		bool		wanted = false;

		for (int s = 0; s < machine->states; s++)
			wanted |= machine->next(s, e) >= 0;
		CHECK(wanted, "event %d", e);
	}
}

static void
commit_tx_graph(void)
{
	check_graph(&tx_machine);
}

static void
commit_br_graph(void)
{
	check_graph(&br_machine);
}

/* P3: no path leads from a commit to an abort, nor back, nor from either to doubt. */
static void
commit_tx_outcome_is_final(void)
{
	for (int s = 0; s < CONCORD_TX_STATES; s++)
		for (int t = 0; t < CONCORD_TX_STATES; t++)
			if (tx_outcome(s) != CONCORD_OUTCOME_OPEN && (reachable(&tx_machine, s) & 1u << t))
				CHECK(tx_outcome(t) == tx_outcome(s), "from \"%s\" to \"%s\"",
					  tx_name(s), tx_name(t));

	/* and it is told as late as that: before, both are possible */
	for (int s = 0; s < CONCORD_TX_STATES; s++)
		if (tx_outcome(s) == CONCORD_OUTCOME_OPEN)
		{
			CHECK(reachable(&tx_machine, s) & 1u << CONCORD_TX_END_COMMITTED, "%s", tx_name(s));
			CHECK(reachable(&tx_machine, s) & 1u << CONCORD_TX_END_ABORTED, "%s", tx_name(s));
		}
}

/* The same for a branch, but its coordinator may lose sight of it. */
static void
commit_br_outcome_is_final(void)
{
	for (int s = 0; s < CONCORD_BR_STATES; s++)
		for (int t = 0; t < CONCORD_BR_STATES; t++)
			if (br_outcome(s) != CONCORD_OUTCOME_OPEN && (reachable(&br_machine, s) & 1u << t))
				CHECK(br_outcome(t) == br_outcome(s) || t == CONCORD_BR_LOST,
					  "from \"%s\" to \"%s\"", br_name(s), br_name(t));

	/* a prepared branch is never rolled back because its connection broke */
	CHECK(br_next(CONCORD_BR_PREPARED, CONCORD_BR_CUT) == CONCORD_BR_PREPARED);
	CHECK(br_next(CONCORD_BR_PREPARING, CONCORD_BR_CUT) == CONCORD_BR_LOST);
	CHECK(br_next(CONCORD_BR_PREPARED, CONCORD_BR_SEND_ROLLBACK) == -1);
	CHECK(br_next(CONCORD_BR_PREPARED, CONCORD_BR_SEND_COMMIT) == -1);
	CHECK(br_next(CONCORD_BR_PREPARING, CONCORD_BR_SEND_COMMIT_PREPARED) == -1);
}

/*
 * P2, P4: the only way to phase two, and when the entry in the liveness table is made and removed.
 */
static void
commit_tx_live_window(void)
{
	for (int s = 0; s < CONCORD_TX_STATES; s++)
		for (int e = 0; e < CONCORD_TX_EVENTS; e++)
		{
			ConcordTxState to = (ConcordTxState) s;
			ConcordTxAction action;
			bool		from_live = concord_tx_live((ConcordTxState) s);

			if (!concord_tx_step(&to, (ConcordTxEvent) e, &action))
				continue;

			/* entered with the first PREPARE; a doomed or aborted one may have none */
			if (!from_live && concord_tx_live(to))
				CHECK(to == CONCORD_TX_PREPARING || to == CONCORD_TX_DOOMED,
					  "from \"%s\"", tx_name(s));
			CHECK((action == CONCORD_TX_DO_PREPARE) ==
				  (!from_live && to == CONCORD_TX_PREPARING), "from \"%s\"", tx_name(s));

			/* left only when the local transaction has ended */
			if (from_live && !concord_tx_live(to))
				CHECK(e == CONCORD_TX_LEFT &&
					  (s == CONCORD_TX_COMMITTED || s == CONCORD_TX_ABORTED),
					  "from \"%s\"", tx_name(s));
			CHECK((action == CONCORD_TX_DO_LEAVE) ==
				  (from_live && (e == CONCORD_TX_LOCAL_COMMIT || e == CONCORD_TX_LOCAL_ABORT)),
				  "from \"%s\"", tx_name(s));

			/* phase two comes from a decision, a decision from a local commit of a recorded row */
			if (action == CONCORD_TX_DO_COMMIT_PREPARED)
				CHECK(s == CONCORD_TX_COMMITTED);
			if (to == CONCORD_TX_COMMITTED)
				CHECK(s == CONCORD_TX_RECORDING && e == CONCORD_TX_LOCAL_COMMIT);
			if (to == CONCORD_TX_RECORDING && s != CONCORD_TX_RECORDING)
				CHECK(s == CONCORD_TX_PREPARING && e == CONCORD_TX_ALL_PREPARED &&
					  action == CONCORD_TX_DO_RECORD);

			/* P5, and nothing raises while aborting */
			if (action == CONCORD_TX_DO_RAISE || action == CONCORD_TX_DO_RAISE_UNKNOWN)
				CHECK(tx_outcome(s) == CONCORD_OUTCOME_OPEN && e != CONCORD_TX_LOCAL_ABORT);
		}
}

/* As long as the local transaction runs, an error may abort it at any moment; afterwards never. */
static void
commit_tx_local_end(void)
{
	static const ConcordTxState running[] = {
		CONCORD_TX_ACTIVE, CONCORD_TX_LOCAL, CONCORD_TX_ONE_PHASE, CONCORD_TX_ONE_PHASE_DONE,
		CONCORD_TX_IN_DOUBT, CONCORD_TX_PREPARING, CONCORD_TX_DOOMED, CONCORD_TX_RECORDING
	};
	static const ConcordTxState committing[] = {
		CONCORD_TX_LOCAL, CONCORD_TX_ONE_PHASE_DONE, CONCORD_TX_RECORDING
	};

	for (int s = 0; s < CONCORD_TX_STATES; s++)
	{
		bool		may_abort = false;
		bool		may_commit = false;

		for (int i = 0; i < lengthof(running); i++)
			may_abort |= (int) running[i] == s;
		for (int i = 0; i < lengthof(committing); i++)
			may_commit |= (int) committing[i] == s;
		CHECK((tx_next(s, CONCORD_TX_LOCAL_ABORT) >= 0) == may_abort, "%s", tx_name(s));
		CHECK((tx_next(s, CONCORD_TX_LOCAL_COMMIT) >= 0) == may_commit, "%s", tx_name(s));
	}
}

/*
 * As long as answers are outstanding, bad ones are expected: before the outcome is certain they
 * decide it, afterwards they change nothing.
 */
static void
commit_tx_bad_answers(void)
{
	for (int s = 0; s < CONCORD_TX_STATES; s++)
	{
		ConcordTxState lost = (ConcordTxState) s;
		ConcordTxState refused = (ConcordTxState) s;
		ConcordTxAction action = CONCORD_TX_DO_NOTHING;
		bool		may_be_lost = concord_tx_step(&lost, CONCORD_TX_BRANCH_LOST, &action);
		bool		may_refuse;

		if (lost == CONCORD_TX_DOOMED && s != CONCORD_TX_DOOMED)
			CHECK(action == CONCORD_TX_DO_RAISE, "%s", tx_name(s));
		may_refuse = concord_tx_step(&refused, CONCORD_TX_BRANCH_REFUSED, &action);
		if (refused == CONCORD_TX_DOOMED && s != CONCORD_TX_DOOMED)
			CHECK(action == CONCORD_TX_DO_RAISE, "%s", tx_name(s));

		switch ((ConcordTxState) s)
		{
			case CONCORD_TX_ACTIVE:
			case CONCORD_TX_LOCAL:
			case CONCORD_TX_PREPARING:
				CHECK(may_be_lost && lost == CONCORD_TX_DOOMED, "%s", tx_name(s));
				CHECK(may_refuse && refused == CONCORD_TX_DOOMED, "%s", tx_name(s));
				break;
			case CONCORD_TX_ONE_PHASE:
				CHECK(may_be_lost && lost == CONCORD_TX_IN_DOUBT);
				CHECK(may_refuse && refused == CONCORD_TX_DOOMED);
				break;
			case CONCORD_TX_DOOMED:
			case CONCORD_TX_ROLLING_BACK:
			case CONCORD_TX_FINISHING:
				CHECK(may_be_lost && (int) lost == s, "%s", tx_name(s));
				CHECK(may_refuse && (int) refused == s, "%s", tx_name(s));
				break;
			case CONCORD_TX_RECORDING:
				/* all have answered, but a connection can still break */
				CHECK(may_be_lost && (int) lost == s && !may_refuse);
				break;
			default:
				CHECK(!may_be_lost && !may_refuse, "%s", tx_name(s));
		}
	}
}

/* Whatever was sent, every answer and none lead somewhere; and where. */
static void
commit_br_answers(void)
{
	static const struct
	{
		ConcordBrState state;
		int			done;
		int			refused;
		int			cut;
	}			expected[] =
	{
		{CONCORD_BR_OPEN, -1, -1, CONCORD_BR_ROLLED_BACK},
		{CONCORD_BR_COMMITTING, CONCORD_BR_COMMITTED, CONCORD_BR_ROLLED_BACK, CONCORD_BR_LOST},
		{CONCORD_BR_PREPARING, CONCORD_BR_PREPARED, CONCORD_BR_ROLLED_BACK, CONCORD_BR_LOST},
		{CONCORD_BR_PREPARED, -1, -1, CONCORD_BR_PREPARED},
		{CONCORD_BR_FINISHING, CONCORD_BR_COMMITTED, CONCORD_BR_LOST, CONCORD_BR_LOST},
		{CONCORD_BR_UNDOING, CONCORD_BR_ROLLED_BACK, CONCORD_BR_LOST, CONCORD_BR_LOST},
		{CONCORD_BR_ROLLING_BACK, CONCORD_BR_ROLLED_BACK, CONCORD_BR_ROLLED_BACK,
		CONCORD_BR_ROLLED_BACK},
		{CONCORD_BR_COMMITTED, -1, -1, -1},
		{CONCORD_BR_ROLLED_BACK, -1, -1, -1},
		{CONCORD_BR_LOST, -1, -1, -1},
	};

	CHECK(lengthof(expected) == CONCORD_BR_STATES);
	for (int i = 0; i < lengthof(expected); i++)
	{
		int			s = (int) expected[i].state;

		CHECK(br_next(s, CONCORD_BR_DONE) == expected[i].done, "%s", br_name(s));
		CHECK(br_next(s, CONCORD_BR_REFUSED) == expected[i].refused, "%s", br_name(s));
		CHECK(br_next(s, CONCORD_BR_CUT) == expected[i].cut, "%s", br_name(s));
	}
}

/* What is not allowed changes nothing. */
static void
commit_step_not_allowed(void)
{
	ConcordTxState tx = CONCORD_TX_END_COMMITTED;
	ConcordTxAction tx_action = CONCORD_TX_DO_RAISE;
	ConcordBrState br = CONCORD_BR_COMMITTED;
	ConcordBrAction br_action = CONCORD_BR_DO_RECONNECT;

	CHECK(!concord_tx_step(&tx, CONCORD_TX_LOCAL_ABORT, &tx_action));
	CHECK(tx == CONCORD_TX_END_COMMITTED && tx_action == CONCORD_TX_DO_RAISE);
	CHECK(!concord_br_step(&br, CONCORD_BR_SEND_ROLLBACK, &br_action));
	CHECK(br == CONCORD_BR_COMMITTED && br_action == CONCORD_BR_DO_RECONNECT);
}

/* ---------------------------------------------------------------- stories, step by step */

typedef struct TxStep
{
	ConcordTxEvent event;
	ConcordTxState state;
	ConcordTxAction action;
} TxStep;

#define STEP(event, state, action) \
	{CONCORD_TX_##event, CONCORD_TX_##state, CONCORD_TX_DO_##action}

static void
expect_tx_story(const char *name, const TxStep *steps, int n)
{
	ConcordTxState state = CONCORD_TX_ACTIVE;
	ConcordTxAction action = CONCORD_TX_DO_NOTHING;

	for (int i = 0; i < n; i++)
	{
		CHECK(concord_tx_step(&state, steps[i].event, &action), "%s, step %d", name, i);
		CHECK(state == steps[i].state && action == steps[i].action, "%s, step %d: %s, action %d",
			  name, i, concord_tx_state_name(state), (int) action);
	}
	CHECK(is_end(&tx_machine, (int) state), "%s", name);
}

static void
commit_tx_stories(void)
{
	static const TxStep committed[] = {
		STEP(TAKE_TWO_PHASE, PREPARING, PREPARE),
		STEP(ALL_PREPARED, RECORDING, RECORD),
		STEP(LOCAL_COMMIT, COMMITTED, LEAVE),
		STEP(LEFT, FINISHING, COMMIT_PREPARED),
		STEP(BRANCH_LOST, FINISHING, WARN_LEFT),
		STEP(ENDED, END_COMMITTED, RELEASE),
	};
	static const TxStep refused[] = {
		STEP(TAKE_TWO_PHASE, PREPARING, PREPARE),
		STEP(BRANCH_REFUSED, DOOMED, RAISE),
		STEP(BRANCH_LOST, DOOMED, NOTHING),
		STEP(LOCAL_ABORT, ABORTED, LEAVE),
		STEP(LEFT, ROLLING_BACK, ROLL_BACK),
		STEP(BRANCH_LOST, ROLLING_BACK, WARN_LEFT),
		STEP(ENDED, END_ABORTED, RELEASE),
	};
	static const TxStep local_failure[] = {
		STEP(TAKE_TWO_PHASE, PREPARING, PREPARE),
		STEP(ALL_PREPARED, RECORDING, RECORD),
		STEP(BRANCH_LOST, RECORDING, NOTHING),
		STEP(LOCAL_ABORT, ABORTED, LEAVE),
		STEP(LEFT, ROLLING_BACK, ROLL_BACK),
		STEP(ENDED, END_ABORTED, RELEASE),
	};
	static const TxStep one_phase[] = {
		STEP(TAKE_ONE_PHASE, ONE_PHASE, SEND_COMMIT),
		STEP(BRANCH_COMMITTED, ONE_PHASE_DONE, COMMIT_LOCAL),
		STEP(LOCAL_COMMIT, END_COMMITTED, RELEASE),
	};
	static const TxStep one_phase_lost[] = {
		STEP(TAKE_ONE_PHASE, ONE_PHASE, SEND_COMMIT),
		STEP(BRANCH_LOST, IN_DOUBT, RAISE_UNKNOWN),
		STEP(LOCAL_ABORT, END_UNKNOWN, RELEASE),
	};
	static const TxStep one_phase_terminated[] = {
		STEP(TAKE_ONE_PHASE, ONE_PHASE, SEND_COMMIT),
		STEP(LOCAL_ABORT, END_UNKNOWN, WARN_UNKNOWN),
	};
	static const TxStep local_only[] = {
		STEP(TAKE_LOCAL, LOCAL, COMMIT_LOCAL),
		STEP(LOCAL_COMMIT, END_COMMITTED, RELEASE),
	};

	expect_tx_story("committed", committed, lengthof(committed));
	expect_tx_story("refused", refused, lengthof(refused));
	expect_tx_story("local failure", local_failure, lengthof(local_failure));
	expect_tx_story("one phase", one_phase, lengthof(one_phase));
	expect_tx_story("one phase, answer lost", one_phase_lost, lengthof(one_phase_lost));
	expect_tx_story("one phase, terminated", one_phase_terminated, lengthof(one_phase_terminated));
	expect_tx_story("local only", local_only, lengthof(local_only));
}

/* ---------------------------------------------------------------- verdicts */

/*
 * The same said the other way round: from what may have happened, not from what to answer.
 */
static ConcordVerdict
judge_oracle(const ConcordObservation *o)
{
	bool		may_have_committed;
	bool		may_still_commit = o->live;

	if (o->decision != CONCORD_DECISION_NONE)
		return o->decision == CONCORD_DECISION_COMMIT ? CONCORD_VERDICT_COMMIT :
			CONCORD_VERDICT_ABORT;
	if (may_still_commit)
		return CONCORD_VERDICT_WAIT;

	switch (o->incarnation)
	{
		case CONCORD_INCARNATION_CURRENT:
		case CONCORD_INCARNATION_OLDER_CERTAIN:
			may_have_committed = false;
			break;
		default:
			may_have_committed = true;
	}
	if (!o->needs_decision || !o->coordinator_known)
		may_have_committed = true;
	if (o->below_horizon && o->coordinator_known)
		return CONCORD_VERDICT_FORGOTTEN;
	return may_have_committed ? CONCORD_VERDICT_UNKNOWN : CONCORD_VERDICT_ABORT;
}

/* Calls check for every observation there is; returns their number. */
static int
every_observation(void (*check) (const ConcordObservation *o))
{
	int			n = 0;

	for (int decision = 0; decision < 3; decision++)
		for (int incarnation = 0; incarnation < 4; incarnation++)
			for (int flags = 0; flags < 16; flags++)
			{
				ConcordObservation o = {
					.decision = (ConcordDecision) decision,
					.incarnation = (ConcordIncarnation) incarnation,
					.coordinator_known = (flags & 1) != 0,
					.live = (flags & 2) != 0,
					.below_horizon = (flags & 4) != 0,
					.needs_decision = (flags & 8) != 0,
				};

				check(&o);
				n++;
			}
	return n;
}

static int	verdicts[CONCORD_VERDICTS];

static void
check_against_oracle(const ConcordObservation *o)
{
	ConcordVerdict verdict = concord_commit_judge(o);
	ConcordVerdict expected = judge_oracle(o);

	verdicts[verdict]++;
	CHECK(verdict == expected,
		  "known %d, incarnation %d, live %d, decision %d, below %d, needs %d: %d instead of %d",
		  o->coordinator_known, (int) o->incarnation, o->live, (int) o->decision,
		  o->below_horizon, o->needs_decision, (int) verdict, (int) expected);
}

static void
commit_judge_everything(void)
{
	memset(verdicts, 0, sizeof(verdicts));
	CHECK(every_observation(check_against_oracle) == 192);

	/* counted by hand: of 64 without a decision 32 are live, 16 asked elsewhere, 8 below, 2 left */
	CHECK(verdicts[CONCORD_VERDICT_COMMIT] == 64);
	CHECK(verdicts[CONCORD_VERDICT_ABORT] == 64 + 2);
	CHECK(verdicts[CONCORD_VERDICT_WAIT] == 32);
	CHECK(verdicts[CONCORD_VERDICT_FORGOTTEN] == 8);
	CHECK(verdicts[CONCORD_VERDICT_UNKNOWN] == 22);
}

/*
 * Knowing less never turns an answer into the opposite one: from COMMIT or ABORT, taking away the
 * decision or any ground for certainty leads to the same verdict or to one that does nothing.
 */
static void
check_knowing_less(const ConcordObservation *o)
{
	ConcordVerdict verdict = concord_commit_judge(o);

	for (int what = 0; what < 6; what++)
	{
		ConcordObservation less = *o;
		ConcordVerdict then;

		switch (what)
		{
			case 0:
				less.coordinator_known = false;
				break;
			case 1:
				less.incarnation = CONCORD_INCARNATION_OLDER_UNCERTAIN;
				break;
			case 2:
				less.incarnation = CONCORD_INCARNATION_UNKNOWN;
				break;
			case 3:
				less.live = true;
				break;
			case 4:
				less.below_horizon = true;
				break;
			default:
				less.needs_decision = false;
		}
		then = concord_commit_judge(&less);
		CHECK(then == verdict ||
			  (then != CONCORD_VERDICT_COMMIT && then != CONCORD_VERDICT_ABORT),
			  "verdict %d, without %d: %d", (int) verdict, what, (int) then);
	}
}

static void
commit_judge_knowing_less(void)
{
	(void) every_observation(check_knowing_less);
}

static void
commit_verdict_names(void)
{
	CHECK(strcmp(concord_verdict_name(CONCORD_VERDICT_COMMIT), "committed") == 0);
	CHECK(strcmp(concord_verdict_name(CONCORD_VERDICT_ABORT), "aborted") == 0);
	CHECK(strcmp(concord_verdict_name(CONCORD_VERDICT_WAIT), "in progress") == 0);
	CHECK(strcmp(concord_verdict_name(CONCORD_VERDICT_UNKNOWN), "unknown") == 0);
	CHECK(strcmp(concord_verdict_name(CONCORD_VERDICT_FORGOTTEN), "unknown") == 0);
}

void
test_commit_rules(void)
{
	RUN(commit_tx_graph);
	RUN(commit_br_graph);
	RUN(commit_tx_outcome_is_final);
	RUN(commit_br_outcome_is_final);
	RUN(commit_tx_live_window);
	RUN(commit_tx_local_end);
	RUN(commit_tx_bad_answers);
	RUN(commit_br_answers);
	RUN(commit_step_not_allowed);
	RUN(commit_tx_stories);
	RUN(commit_judge_everything);
	RUN(commit_judge_knowing_less);
	RUN(commit_verdict_names);
}
