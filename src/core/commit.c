/*
 * commit.c
 *		The tables of atomic commit, and the few lines that look something up in them.
 *
 * See the header for what they promise.  The unit tests check the tables as graphs (everything
 * reachable, no outcome ever changed) and the verdicts against a formulation of their own; the
 * model in test/model takes its steps and its verdicts from here.
 */
#include "core/commit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/key.h"
#include "core/placement.h"

#define lengthof(array) (sizeof(array) / sizeof((array)[0]))

#define UUID_LEN 36
#define INCARNATION_LEN 16

/* ---------------------------------------------------------------- gid */

static const char *const protocol_names[] = {
	[CONCORD_PROTOCOL_2PC] = "2pc",
	[CONCORD_PROTOCOL_PAXOS] = "paxos",
};

static bool
node_id_valid(int id)
{
	return id >= 1 && id <= CONCORD_MAX_NODE_ID;
}

int
concord_gid_format_transaction(const ConcordGid *gid, char buf[CONCORD_GID_SIZE])
{
	const uint8_t *c = gid->cluster;

	buf[0] = '\0';
	if (!node_id_valid(gid->coordinator) ||
		(unsigned int) gid->protocol >= lengthof(protocol_names))
		return -1;
	return snprintf(buf, CONCORD_GID_SIZE,
					CONCORD_GID_PREFIX
					"%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x"
					":%d:%016" PRIx64 ":%" PRIu64 ":%s",
					c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7],
					c[8], c[9], c[10], c[11], c[12], c[13], c[14], c[15],
					gid->coordinator, gid->incarnation, gid->serial,
					protocol_names[gid->protocol]);
}

int
concord_gid_format(const ConcordGid *gid, char buf[CONCORD_GID_SIZE])
{
	int			len;

	buf[0] = '\0';
	if (!node_id_valid(gid->participant))
		return -1;
	len = concord_gid_format_transaction(gid, buf);
	if (len < 0)
		return -1;
	return len + snprintf(buf + len, CONCORD_GID_SIZE - (size_t) len, ":%d:%" PRIu32,
						  gid->participant, gid->branch);
}

/* What is left of the text that is read */
typedef struct Rest
{
	const char *at;
	size_t		len;
} Rest;

/* Reads exactly this word. */
static bool
take_word(Rest *rest, const char *word)
{
	size_t		len = strlen(word);

	if (rest->len < len || memcmp(rest->at, word, len) != 0)
		return false;
	rest->at += len;
	rest->len -= len;
	return true;
}

/* Reads all digits that follow as a number without leading zeros, up to a maximum of at least 9. */
static bool
take_decimal(Rest *rest, uint64_t max, uint64_t *value)
{
	size_t		i;

	*value = 0;
	for (i = 0; i < rest->len && rest->at[i] >= '0' && rest->at[i] <= '9'; i++)
	{
		uint64_t	digit = (uint64_t) (rest->at[i] - '0');

		if ((i == 1 && rest->at[0] == '0') || *value > (max - digit) / 10)
			return false;
		*value = *value * 10 + digit;
	}
	rest->at += i;
	rest->len -= i;
	return i > 0;
}

static bool
take_node_id(Rest *rest, int *id)
{
	uint64_t	value;

	if (!take_decimal(rest, CONCORD_MAX_NODE_ID, &value))
		return false;
	*id = (int) value;
	return node_id_valid(*id);
}

/* Reads 16 lower-case hex digits. */
static bool
take_incarnation(Rest *rest, uint64_t *incarnation)
{
	if (rest->len < INCARNATION_LEN)
		return false;
	*incarnation = 0;
	for (int i = 0; i < INCARNATION_LEN; i++)
	{
		char		c = rest->at[i];

		if (c >= '0' && c <= '9')
			*incarnation = *incarnation << 4 | (uint64_t) (c - '0');
		else if (c >= 'a' && c <= 'f')
			*incarnation = *incarnation << 4 | (uint64_t) (c - 'a' + 10);
		else
			return false;
	}
	rest->at += INCARNATION_LEN;
	rest->len -= INCARNATION_LEN;
	return true;
}

static bool
take_cluster(Rest *rest, uint8_t cluster[16])
{
	int64_t		unused;

	if (rest->len < UUID_LEN ||
		concord_key_classify(rest->at, UUID_LEN, &unused, cluster) != CONCORD_KEY_UUID)
		return false;
	rest->at += UUID_LEN;
	rest->len -= UUID_LEN;
	return true;
}

static bool
take_protocol(Rest *rest, ConcordProtocol *protocol)
{
	for (size_t i = 0; i < lengthof(protocol_names); i++)
		if (take_word(rest, protocol_names[i]))
		{
			*protocol = (ConcordProtocol) i;
			return true;
		}
	return false;
}

ConcordGidForm
concord_gid_parse(const char *text, size_t len, ConcordGid *gid)
{
	Rest		rest = {text, len};
	uint64_t	branch;

	if (!take_word(&rest, CONCORD_GID_PREFIX) ||
		!take_cluster(&rest, gid->cluster) ||
		!take_word(&rest, ":") ||
		!take_node_id(&rest, &gid->coordinator) ||
		!take_word(&rest, ":") ||
		!take_incarnation(&rest, &gid->incarnation) ||
		!take_word(&rest, ":") ||
		!take_decimal(&rest, UINT64_MAX, &gid->serial) ||
		!take_word(&rest, ":") ||
		!take_protocol(&rest, &gid->protocol))
		return CONCORD_GID_FOREIGN;

	gid->participant = 0;
	gid->branch = 0;
	if (rest.len == 0)
		return CONCORD_GID_TRANSACTION;

	if (!take_word(&rest, ":") ||
		!take_node_id(&rest, &gid->participant) ||
		!take_word(&rest, ":") ||
		!take_decimal(&rest, UINT32_MAX, &branch) ||
		rest.len > 0)
		return CONCORD_GID_FOREIGN;
	gid->branch = (uint32_t) branch;
	return CONCORD_GID_BRANCH;
}

bool
concord_gid_same_transaction(const ConcordGid *a, const ConcordGid *b)
{
	return memcmp(a->cluster, b->cluster, sizeof(a->cluster)) == 0 &&
		a->coordinator == b->coordinator && a->incarnation == b->incarnation &&
		a->serial == b->serial && a->protocol == b->protocol;
}

ConcordLabelFault
concord_label_check(const char *text, size_t len)
{
	const size_t prefix_len = strlen(CONCORD_GID_PREFIX);

	if (len == 0)
		return CONCORD_LABEL_EMPTY;
	if (len > CONCORD_LABEL_MAX)
		return CONCORD_LABEL_TOO_LONG;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char) text[i] < 0x20 || text[i] == 0x7f)
			return CONCORD_LABEL_CONTROL;
	if (len >= prefix_len && memcmp(text, CONCORD_GID_PREFIX, prefix_len) == 0)
		return CONCORD_LABEL_RESERVED;
	return CONCORD_LABEL_GOOD;
}

/* ---------------------------------------------------------------- the path of a COMMIT */

/* A condition of a rule: fits a value whose bit is set. */
#define IS(value) (1u << (value))
#define ANY (~0u)
#define NO IS(false)
#define YES IS(true)

#define FITS(condition, value) (((condition) & IS(value)) != 0)

#define MANY 2					/* writing branches */

/*
 * The first rule that fits counts.
 *
 * One branch that wrote can decide by itself only if nothing here can fail or get lost after it
 * has: neither something written, nor a serializable transaction's last check.
 */
static const struct
{
	unsigned int writing_branches;	/* 0, 1, MANY */
	unsigned int local_writes;
	unsigned int local_serializable;
	ConcordCommitPath path;
	ConcordRecord record;		/* of a labelled transaction ... */
	ConcordRecord record_unlabelled;	/* ... and of others */
}			path_rules[] =
{
	{IS(0), ANY, ANY, CONCORD_PATH_LOCAL, CONCORD_RECORD_LOCAL, CONCORD_RECORD_NONE},
	{IS(1), NO, NO, CONCORD_PATH_ONE_PHASE, CONCORD_RECORD_BRANCH, CONCORD_RECORD_NONE},
	{ANY, ANY, ANY, CONCORD_PATH_TWO_PHASE, CONCORD_RECORD_LOCAL, CONCORD_RECORD_LOCAL},
};

ConcordCommitPlan
concord_commit_plan(const ConcordCommitWork *work)
{
	int			writing = work->writing_branches > MANY ? MANY : work->writing_branches;
	ConcordCommitPlan plan;
	size_t		i = 0;

	while (!FITS(path_rules[i].writing_branches, writing) ||
		   !FITS(path_rules[i].local_writes, work->local_writes) ||
		   !FITS(path_rules[i].local_serializable, work->local_serializable))
		i++;					/* the last rule fits everything */

	plan.path = path_rules[i].path;
	plan.record = work->labelled ? path_rules[i].record : path_rules[i].record_unlabelled;
	plan.await_readers = work->serializable_readers > 0;
	return plan;
}

/* ---------------------------------------------------------------- the coordinator's transaction */

static const struct
{
	const char *name;
	ConcordOutcome outcome;
	bool		live;
}			tx_states[CONCORD_TX_STATES] =
{
	[CONCORD_TX_ACTIVE] = {"active", CONCORD_OUTCOME_OPEN, false},
	[CONCORD_TX_LOCAL] = {"committing locally", CONCORD_OUTCOME_OPEN, false},
	[CONCORD_TX_ONE_PHASE] = {"committing", CONCORD_OUTCOME_OPEN, false},
	[CONCORD_TX_ONE_PHASE_DONE] = {"committed remotely", CONCORD_OUTCOME_COMMIT, false},
	[CONCORD_TX_IN_DOUBT] = {"in doubt", CONCORD_OUTCOME_UNKNOWN, false},
	[CONCORD_TX_PREPARING] = {"preparing", CONCORD_OUTCOME_OPEN, true},
	[CONCORD_TX_DOOMED] = {"aborting", CONCORD_OUTCOME_ABORT, true},
	[CONCORD_TX_RECORDING] = {"deciding", CONCORD_OUTCOME_OPEN, true},
	[CONCORD_TX_COMMITTED] = {"committed", CONCORD_OUTCOME_COMMIT, true},
	[CONCORD_TX_FINISHING] = {"finishing", CONCORD_OUTCOME_COMMIT, false},
	[CONCORD_TX_ABORTED] = {"aborted", CONCORD_OUTCOME_ABORT, true},
	[CONCORD_TX_ROLLING_BACK] = {"rolling back", CONCORD_OUTCOME_ABORT, false},
	[CONCORD_TX_END_COMMITTED] = {"ended, committed", CONCORD_OUTCOME_COMMIT, false},
	[CONCORD_TX_END_ABORTED] = {"ended, aborted", CONCORD_OUTCOME_ABORT, false},
	[CONCORD_TX_END_UNKNOWN] = {"ended, in doubt", CONCORD_OUTCOME_UNKNOWN, false},
};

#define TX(from, event, to, action) \
	{CONCORD_TX_##from, CONCORD_TX_##event, CONCORD_TX_##to, CONCORD_TX_DO_##action}

static const struct
{
	ConcordTxState from;
	ConcordTxEvent event;
	ConcordTxState to;
	ConcordTxAction action;
}			tx_edges[] =
{
	/* before COMMIT */
	TX(ACTIVE, TAKE_LOCAL, LOCAL, COMMIT_LOCAL),
	TX(ACTIVE, TAKE_ONE_PHASE, ONE_PHASE, SEND_COMMIT),
	TX(ACTIVE, TAKE_TWO_PHASE, PREPARING, PREPARE),
	TX(ACTIVE, BRANCH_REFUSED, DOOMED, RAISE),	/* a reader that is awaited */
	TX(ACTIVE, BRANCH_LOST, DOOMED, RAISE),
	TX(ACTIVE, LOCAL_ABORT, ROLLING_BACK, ROLL_BACK),

	/* nothing remote was written */
	TX(LOCAL, BRANCH_REFUSED, DOOMED, RAISE),
	TX(LOCAL, BRANCH_LOST, DOOMED, RAISE),
	TX(LOCAL, LOCAL_COMMIT, END_COMMITTED, RELEASE),
	TX(LOCAL, LOCAL_ABORT, ROLLING_BACK, ROLL_BACK),

	/* one branch decides */
	TX(ONE_PHASE, BRANCH_COMMITTED, ONE_PHASE_DONE, COMMIT_LOCAL),
	TX(ONE_PHASE, BRANCH_REFUSED, DOOMED, RAISE),
	TX(ONE_PHASE, BRANCH_LOST, IN_DOUBT, RAISE_UNKNOWN),
	TX(ONE_PHASE, LOCAL_ABORT, END_UNKNOWN, WARN_UNKNOWN),	/* terminated while it waited */
	TX(ONE_PHASE_DONE, LOCAL_COMMIT, END_COMMITTED, RELEASE),
	TX(ONE_PHASE_DONE, LOCAL_ABORT, END_COMMITTED, WARN_COMMITTED),
	TX(IN_DOUBT, LOCAL_ABORT, END_UNKNOWN, RELEASE),

	/* two phases, until the decision */
	TX(PREPARING, ALL_PREPARED, RECORDING, RECORD),
	TX(PREPARING, BRANCH_REFUSED, DOOMED, RAISE),
	TX(PREPARING, BRANCH_LOST, DOOMED, RAISE),
	TX(PREPARING, LOCAL_ABORT, ABORTED, LEAVE),
	TX(RECORDING, BRANCH_LOST, RECORDING, NOTHING), /* it is prepared */
	TX(RECORDING, LOCAL_COMMIT, COMMITTED, LEAVE),	/* P2, P4 */
	TX(RECORDING, LOCAL_ABORT, ABORTED, LEAVE),

	/* an abort that is certain */
	TX(DOOMED, BRANCH_REFUSED, DOOMED, NOTHING),
	TX(DOOMED, BRANCH_LOST, DOOMED, NOTHING),
	TX(DOOMED, LOCAL_ABORT, ABORTED, LEAVE),
	TX(ABORTED, LEFT, ROLLING_BACK, ROLL_BACK),
	TX(ROLLING_BACK, BRANCH_REFUSED, ROLLING_BACK, WARN_LEFT),
	TX(ROLLING_BACK, BRANCH_LOST, ROLLING_BACK, WARN_LEFT),
	TX(ROLLING_BACK, ENDED, END_ABORTED, RELEASE),

	/* after the decision (P5) */
	TX(COMMITTED, LEFT, FINISHING, COMMIT_PREPARED),
	TX(FINISHING, BRANCH_REFUSED, FINISHING, WARN_LEFT),
	TX(FINISHING, BRANCH_LOST, FINISHING, WARN_LEFT),
	TX(FINISHING, ENDED, END_COMMITTED, RELEASE),
};

bool
concord_tx_step(ConcordTxState *state, ConcordTxEvent event, ConcordTxAction *action)
{
	for (size_t i = 0; i < lengthof(tx_edges); i++)
		if (tx_edges[i].from == *state && tx_edges[i].event == event)
		{
			*state = tx_edges[i].to;
			*action = tx_edges[i].action;
			return true;
		}
	return false;
}

ConcordOutcome
concord_tx_outcome(ConcordTxState state)
{
	return tx_states[state].outcome;
}

bool
concord_tx_live(ConcordTxState state)
{
	return tx_states[state].live;
}

const char *
concord_tx_state_name(ConcordTxState state)
{
	return tx_states[state].name;
}

/* ---------------------------------------------------------------- a branch */

static const struct
{
	const char *name;
	ConcordOutcome outcome;
}			br_states[CONCORD_BR_STATES] =
{
	[CONCORD_BR_OPEN] = {"open", CONCORD_OUTCOME_OPEN},
	[CONCORD_BR_COMMITTING] = {"committing", CONCORD_OUTCOME_OPEN},
	[CONCORD_BR_PREPARING] = {"preparing", CONCORD_OUTCOME_OPEN},
	[CONCORD_BR_PREPARED] = {"prepared", CONCORD_OUTCOME_OPEN},
	[CONCORD_BR_FINISHING] = {"finishing", CONCORD_OUTCOME_COMMIT},
	[CONCORD_BR_UNDOING] = {"undoing", CONCORD_OUTCOME_ABORT},
	[CONCORD_BR_ROLLING_BACK] = {"rolling back", CONCORD_OUTCOME_ABORT},
	[CONCORD_BR_COMMITTED] = {"committed", CONCORD_OUTCOME_COMMIT},
	[CONCORD_BR_ROLLED_BACK] = {"rolled back", CONCORD_OUTCOME_ABORT},
	[CONCORD_BR_LOST] = {"lost", CONCORD_OUTCOME_UNKNOWN},
};

#define BR(from, event, to, action) \
	{CONCORD_BR_##from, CONCORD_BR_##event, CONCORD_BR_##to, CONCORD_BR_DO_##action}

static const struct
{
	ConcordBrState from;
	ConcordBrEvent event;
	ConcordBrState to;
	ConcordBrAction action;
}			br_edges[] =
{
	BR(OPEN, SEND_COMMIT, COMMITTING, AWAIT),
	BR(OPEN, SEND_PREPARE, PREPARING, AWAIT),
	BR(OPEN, SEND_ROLLBACK, ROLLING_BACK, AWAIT),
	BR(OPEN, CUT, ROLLED_BACK, TELL_LOST),	/* its server rolls back what was not prepared */

	BR(COMMITTING, DONE, COMMITTED, COUNT),
	BR(COMMITTING, REFUSED, ROLLED_BACK, TELL_REFUSED),
	BR(COMMITTING, CUT, LOST, TELL_LOST),

	BR(PREPARING, DONE, PREPARED, COUNT),
	BR(PREPARING, REFUSED, ROLLED_BACK, TELL_REFUSED),
	BR(PREPARING, CUT, LOST, TELL_LOST),

	BR(PREPARED, SEND_COMMIT_PREPARED, FINISHING, AWAIT),
	BR(PREPARED, SEND_ROLLBACK_PREPARED, UNDOING, AWAIT),
	BR(PREPARED, CUT, PREPARED, RECONNECT),
	BR(PREPARED, GIVEN_UP, LOST, TELL_LOST),

	/* refused: finished already, or busy; its resolver knows */
	BR(FINISHING, DONE, COMMITTED, COUNT),
	BR(FINISHING, REFUSED, LOST, TELL_REFUSED),
	BR(FINISHING, CUT, LOST, TELL_LOST),
	BR(UNDOING, DONE, ROLLED_BACK, COUNT),
	BR(UNDOING, REFUSED, LOST, TELL_REFUSED),
	BR(UNDOING, CUT, LOST, TELL_LOST),

	BR(ROLLING_BACK, DONE, ROLLED_BACK, COUNT),
	BR(ROLLING_BACK, REFUSED, ROLLED_BACK, COUNT),
	BR(ROLLING_BACK, CUT, ROLLED_BACK, COUNT),
};

bool
concord_br_step(ConcordBrState *state, ConcordBrEvent event, ConcordBrAction *action)
{
	for (size_t i = 0; i < lengthof(br_edges); i++)
		if (br_edges[i].from == *state && br_edges[i].event == event)
		{
			*state = br_edges[i].to;
			*action = br_edges[i].action;
			return true;
		}
	return false;
}

ConcordOutcome
concord_br_outcome(ConcordBrState state)
{
	return br_states[state].outcome;
}

const char *
concord_br_state_name(ConcordBrState state)
{
	return br_states[state].name;
}

/* ---------------------------------------------------------------- what an observation allows */

#define DECISION(d) IS(CONCORD_DECISION_##d)
#define INCARNATION(i) IS(CONCORD_INCARNATION_##i)
#define VERDICT(v) CONCORD_VERDICT_##v

/*
 * The first rule that fits counts; an observation that fits none is UNKNOWN.
 *
 * What was decided comes first, wherever and however old (P3).  Absence means ABORT only in the
 * last two rules, after everything else that could explain it (P4, P7).
 */
static const struct
{
	unsigned int decision;
	unsigned int live;
	unsigned int coordinator_known;
	unsigned int below_horizon;
	unsigned int incarnation;
	unsigned int needs_decision;
	ConcordVerdict verdict;
}			judge_rules[] =
{
	{DECISION(COMMIT), ANY, ANY, ANY, ANY, ANY, VERDICT(COMMIT)},
	{DECISION(ABORT), ANY, ANY, ANY, ANY, ANY, VERDICT(ABORT)},
	{DECISION(NONE), YES, ANY, ANY, ANY, ANY, VERDICT(WAIT)},
	{DECISION(NONE), NO, NO, ANY, ANY, ANY, VERDICT(UNKNOWN)},
	{DECISION(NONE), NO, YES, YES, ANY, ANY, VERDICT(FORGOTTEN)},
	{DECISION(NONE), NO, YES, NO, INCARNATION(UNKNOWN), ANY, VERDICT(UNKNOWN)},
	{DECISION(NONE), NO, YES, NO, INCARNATION(OLDER_UNCERTAIN), ANY, VERDICT(UNKNOWN)},
	{DECISION(NONE), NO, YES, NO, ANY, NO, VERDICT(UNKNOWN)},
	{DECISION(NONE), NO, YES, NO, INCARNATION(CURRENT), YES, VERDICT(ABORT)},
	{DECISION(NONE), NO, YES, NO, INCARNATION(OLDER_CERTAIN), YES, VERDICT(ABORT)},
};

ConcordVerdict
concord_commit_judge(const ConcordObservation *o)
{
	for (size_t i = 0; i < lengthof(judge_rules); i++)
		if (FITS(judge_rules[i].decision, o->decision) &&
			FITS(judge_rules[i].live, o->live) &&
			FITS(judge_rules[i].coordinator_known, o->coordinator_known) &&
			FITS(judge_rules[i].below_horizon, o->below_horizon) &&
			FITS(judge_rules[i].incarnation, o->incarnation) &&
			FITS(judge_rules[i].needs_decision, o->needs_decision))
			return judge_rules[i].verdict;
	return CONCORD_VERDICT_UNKNOWN;
}

const char *
concord_verdict_name(ConcordVerdict verdict)
{
	switch (verdict)
	{
		case CONCORD_VERDICT_COMMIT:
			return "committed";
		case CONCORD_VERDICT_ABORT:
			return "aborted";
		case CONCORD_VERDICT_WAIT:
			return "in progress";
		case CONCORD_VERDICT_UNKNOWN:
		case CONCORD_VERDICT_FORGOTTEN:
			break;
	}
	return "unknown";
}
