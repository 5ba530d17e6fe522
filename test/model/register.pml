/*
 * register.pml
 *		A register of three acceptors and two proposers, for the model checker Spin.
 *
 * Proposer 0 writes twice, proposer 1 writes and then reads (WRITES, READS).  A write appends its number
 * to the value, so a value tells its own history: its version is its length.
 *
 * WHAT IS MODELLED
 * - Acceptors take their steps from concord_acceptor_step() of src/core/register.c itself.  Proposers
 *   are formulated anew here.
 * - Every request that was ever sent may arrive at any time, in any order, any number of times, or
 *   never; so may each answer be lost.  An answer that is late is either one that arrives later or
 *   one that is not waited for any more, so answers need not be kept.
 * - A proposer may try again with a higher ballot at any time, within ATTEMPTS.
 * - The one-round path: an ACCEPT carries the next ballot, and a proposer that a quorum has promised
 *   it proposes its next write with it at once.
 * - Reads look first, and prepare a ballot if a quorum disagrees.
 * - Crashes: an acceptor loses what it has not flushed; a proposer loses its operation and what it was
 *   promised, and starts as another incarnation: here, with ballots above those before.
 *
 * PROPERTIES, as assertions
 * A  of any two values that were returned, one is the beginning of the other.
 * R  what was returned before an operation began is the beginning of what it returns; a write's own
 *    number is the last of it.
 * O  no write is in a value twice, and none that has failed is in any.
 *
 * WHAT IS NOT: erasing, sets of acceptors (both are left to the simulation), compare-and-set (a write
 * here takes any version), backoff and refusals (who is refused tries again whenever he likes).
 *
 * -DBUG=<n> seeds a bug, -DREACH=<n> makes an error of a situation that must be reachable.
 */

#ifndef CRASHES
#define CRASHES 1				/* of acceptors and proposers together */
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 1				/* of a proposer, over all its operations, beyond the first ones */
#endif
#ifndef WRITES
#define WRITES 2				/* of proposer 0 */
#endif
#ifndef READS
#define READS 1					/* of proposer 1, after its write */
#endif
#ifndef BUG
#define BUG 0
#endif
#ifndef REACH
#define REACH 0
#endif
#ifndef ONLY
#define ONLY 0					/* one property alone: 5 for A, 7 for R, 8 for O */
#endif
#define OFF(property) (ONLY != 0 && ONLY != property)

/* A ballot is counter * 2 + proposer; BALLOTS are enough for all attempts. */
#define BALLOTS 14

c_decl {
\#include "core/register.h"

\#define ACCEPTORS 3
\#define QUORUM(set) ((set) == 3 || (set) >= 5)		/* two bits of three */

enum {IDLE, LOOKING, PREPARING, ACCEPTING};

/* numbers of the properties, as check.sh has them */
enum {WRONG_A = 5, WRONG_R = 7, WRONG_O = 8};

typedef unsigned char byte;

typedef struct Acceptor
{
	short		value;
	byte		promised;
	byte		accepted;
} Acceptor;

typedef struct Proposer
{
	short		best_value;
	short		proposed;
	short		ahead_value;
	short		before;			/* what was returned when the operation began */
	byte		phase;
	byte		ops;			/* begun */
	byte		used;			/* highest ballot */
	byte		ballot;
	byte		attempts;		/* left */
	byte		answered;
	byte		holders;		/* of best */
	byte		best;
	byte		ahead_set;		/* who has promised the next ballot */
	byte		ahead;			/* that a quorum has promised; 0: none */
	byte		own;			/* shortest value with its number that may be chosen */
	byte		alone;			/* took the one-round path */
} Proposer;

typedef struct Model
{
	Acceptor	memory[ACCEPTORS];
	Acceptor	disk[ACCEPTORS];
	Proposer	p[2];
	short		accept[BALLOTS];	/* ACCEPT requests ever sent: the value */
	byte		next[BALLOTS];		/* and the next ballot */
	byte		prepare[BALLOTS];	/* PREPARE requests ever sent */
	short		returned;		/* longest value that was */
	byte		failed;			/* writes, as bits */
	byte		crashes;		/* left */

	/* what is possible now: follows from the rest, as a condition of Spin's must not call functions */
	byte		arrive[ACCEPTORS][BALLOTS]; /* PREPARE, with an answer, ACCEPT, with an answer */
	byte		look[ACCEPTORS];
	byte		crash[ACCEPTORS];
	byte		begin[2];
	byte		retry[2];
} Model;

/* of the last step, not part of the state */
static int	wrong;
static int	seen[10];

static ConcordBallot
to_ballot(int b)
{
	ConcordBallot ballot = {.counter = (uint64_t) (b >> 1), .node = b > 0 ? (b & 1) + 1 : 0};

	return ballot;
}

static int
from_ballot(ConcordBallot b)
{
	return b.counter == 0 ? 0 : (int) b.counter * 2 + b.node - 1;
}

/* ---- values: three bits for each write, the last one lowest */

static int
length(int value)
{
	int			n = 0;

	for (; value > 0; value >>= 3)
		n++;
	return n;
}

static int
begins(int x, int y)
{
	return length(x) <= length(y) && y >> 3 * (length(y) - length(x)) == x;
}

static int
occurrences(int value, int number)
{
	int			n = 0;

	for (; value > 0; value >>= 3)
		n += (value & 7) == number;
	return n;
}

static int
repeats_or_failed(int value, int failed)
{
	for (int number = 1; number < 8; number++)
		if (occurrences(value, number) > ((failed & 1 << number) ? 0 : 1))
			return 1;
	return 0;
}

/* ---- proposers */

static int
number_of(const Model *m, int i)
{
	return i * 2 + m->p[i].ops;
}

static int
is_read(const Model *m, int i)
{
	return i == 1 && m->p[i].ops == 2;
}

static void
rest(Model *m, int i)
{
	Proposer	old = m->p[i];
	Proposer   *p = &m->p[i];

	memset(p, 0, sizeof(*p));
	p->ops = old.ops;
	p->used = old.used;
	p->attempts = old.attempts;
	p->ahead = old.ahead;
	p->ahead_value = old.ahead_value;
}

static void
give_back(Model *m, int i, int value)
{
	Proposer   *p = &m->p[i];

	if (!begins(m->returned, value) && !begins(value, m->returned))
		wrong = WRONG_A;
	else if (!begins(p->before, value) ||
			 (!is_read(m, i) && (p->before == value || (value & 7) != number_of(m, i))))
		wrong = WRONG_R;
	else if (repeats_or_failed(value, m->failed))
		wrong = WRONG_O;
	if (length(value) > length(m->returned))
		m->returned = (short) value;
	rest(m, i);
}

static void
prepare(Model *m, int i)
{
	Proposer   *p = &m->p[i];

	p->used += 2;
	p->ballot = p->used;
	p->answered = p->holders = p->best = 0;
	p->best_value = 0;
	p->phase = PREPARING;
	m->prepare[p->ballot] = 1;
}

static void
propose(Model *m, int i, int value)
{
	Proposer   *p = &m->p[i];

	p->proposed = (short) value;
	p->answered = p->ahead_set = 0;
	p->phase = ACCEPTING;
	m->accept[p->ballot] = (short) value;
	/* a next ballot, if there is an operation that may use it */
	if (i == 0 && p->ops < WRITES)
	{
		p->used += 2;
		m->next[p->ballot] = p->used;
	}
}

/* A quorum has promised, or had done so before. */
static void
apply(Model *m, int i)
{
	Proposer   *p = &m->p[i];
	int			value = p->best_value;

	if (is_read(m, i))
	{
		if (p->best == 0 || QUORUM(p->holders))
			give_back(m, i, value);
		else
		{
			seen[6] = 1;		/* a read that must complete what it saw */
			propose(m, i, value);
		}
		return;
	}
	if (p->own > 0 && (value & 7) == number_of(m, i))
	{
		seen[1] = 1;			/* an earlier attempt is found, and completed */
		propose(m, i, value);
		return;
	}
	if (p->own > 0 && length(value) > p->own && BUG != 7)
	{
		seen[2] = 1;			/* somebody may have built on it, or not: unknown */
		rest(m, i);
		return;
	}
	if (p->own > 0)
		seen[3] = 1;			/* what there is cannot contain it: tried again */
	if (p->own == 0 || p->own > length(value) + 1)
		p->own = (byte) (length(value) + 1);
	propose(m, i, value << 3 | number_of(m, i));
}

static int
may_begin(const Model *m, int i)
{
	return m->p[i].phase == IDLE && m->p[i].ops < (i == 0 ? WRITES : 1 + READS);
}

static void
begin(Model *m, int i)
{
	Proposer   *p = &m->p[i];

	p->ops++;
	p->before = m->returned;
	if (is_read(m, i))
		p->phase = LOOKING;
	else if (p->ahead > 0)
	{
		p->ballot = p->ahead;
		p->best_value = p->ahead_value;
		p->ahead = 0;
		p->ahead_value = 0;
		p->alone = 1;
		apply(m, i);
	}
	else
		prepare(m, i);
}

static int
may_retry(const Model *m, int i)
{
	return m->p[i].phase >= PREPARING && m->p[i].attempts > 0 && m->p[i].used + 4 < BALLOTS;
}

static void
retry(Model *m, int i)
{
	Proposer   *p = &m->p[i];

	p->attempts--;
#if BUG == 4					/* passes another one's promise without asking what it has accepted */
	if (p->alone && p->phase == ACCEPTING)
	{
		p->used += 2;
		p->ballot = p->used;
		propose(m, i, p->proposed);
		return;
	}
#endif
	p->alone = 0;
	prepare(m, i);
}

/* The highest accepted ballot, its value and who has it; bug 5: the last one that was told */
static void
note_state(Proposer *p, const Acceptor *a, int bit)
{
	p->answered |= (byte) bit;
	if (a->accepted > p->best || (BUG == 5 && a->accepted > 0 && a->accepted != p->best))
	{
		p->best = a->accepted;
		p->best_value = a->value;
		p->holders = 0;
	}
	if (a->accepted == p->best)
		p->holders |= (byte) bit;
}

/* ---- acceptors */

static void
flush(Model *m, int a)
{
	m->disk[a] = m->memory[a];
}

/* One step; returns whether the answer is as wished for. */
static int
step(Model *m, int a, ConcordRequestKind kind, int ballot, int value, int next, int *ahead)
{
	Acceptor   *mine = &m->memory[a];
	ConcordAcceptor acceptor;
	ConcordRegister reg;
	ConcordRequest request;
	ConcordAnswer answer;

	memset(&acceptor, 0, sizeof(acceptor));
	memset(&reg, 0, sizeof(reg));
	memset(&request, 0, sizeof(request));
	reg.promised = to_ballot(mine->promised);
	reg.accepted = to_ballot(mine->accepted);
	reg.value.kind = mine->value > 0 ? CONCORD_VALUE_SET : CONCORD_VALUE_NONE;
	reg.value.version = length(mine->value);
	reg.value.data = (const void *) (intptr_t) mine->value;
	request.kind = kind;
	request.ballot = to_ballot(ballot);
	request.next = to_ballot(next);
	request.value.kind = CONCORD_VALUE_SET;
	request.value.version = length(value);
	request.value.data = (const void *) (intptr_t) value;

	if (BUG == 6 && kind == CONCORD_REQUEST_ACCEPT) /* promises do not bind whoever accepts */
		reg.promised = to_ballot(ballot);
	if (concord_acceptor_step(&acceptor, &reg, &request, &answer) != 0)
	{
		mine->promised = (byte) from_ballot(reg.promised);
		mine->accepted = (byte) from_ballot(reg.accepted);
		mine->value = (short) (intptr_t) reg.value.data;
		if (!(BUG == 1 && kind == CONCORD_REQUEST_PREPARE) &&
			!(BUG == 2 && kind == CONCORD_REQUEST_ACCEPT))
			flush(m, a);
	}
	*ahead = next > 0 && from_ballot(answer.promised) == next;
	return answer.kind == CONCORD_ANSWER_LOOKED || answer.kind == CONCORD_ANSWER_PROMISED ||
		answer.kind == CONCORD_ANSWER_ACCEPTED;
}

/* Is the answer waited for? */
static int
awaits(const Model *m, int i, int phase, int ballot, int a)
{
	return m->p[i].phase == phase && m->p[i].ballot == ballot && !(m->p[i].answered & 1 << a);
}

/* A PREPARE arrives: without an answer if that is lost or not waited for. */
static int
may_prepare(const Model *m, int a, int b, int answer)
{
	return m->prepare[b] &&
		(answer ? awaits(m, b & 1, PREPARING, b, a) : b > m->memory[a].promised);
}

static void
do_prepare(Model *m, int a, int b, int answer)
{
	Proposer   *p = &m->p[b & 1];
	int			ahead;

	if (step(m, a, CONCORD_REQUEST_PREPARE, b, 0, 0, &ahead) && answer)
	{
		note_state(p, &m->memory[a], 1 << a);
		if (QUORUM(p->answered))
			apply(m, b & 1);
	}
}

static int
may_accept(const Model *m, int a, int b, int answer)
{
	return m->accept[b] != 0 &&
		(answer ? awaits(m, b & 1, ACCEPTING, b, a) :
		 (b >= m->memory[a].promised || BUG == 6) && b != m->memory[a].accepted);
}

static void
do_accept(Model *m, int a, int b, int answer)
{
	Proposer   *p = &m->p[b & 1];
	int			ahead;

	if (!step(m, a, CONCORD_REQUEST_ACCEPT, b, m->accept[b], m->next[b], &ahead) || !answer)
		return;
	p->answered |= (byte) (1 << a);
	if (ahead)
		p->ahead_set |= (byte) (1 << a);
	if (!QUORUM(p->answered))
		return;
	if (QUORUM(p->ahead_set))
	{
		p->ahead = m->next[b];
		p->ahead_value = p->proposed;
	}
	if (p->alone)
		seen[4] = 1;			/* in one round */
	give_back(m, b & 1, p->proposed);
}

/* A LOOK, and its answer */
static int
may_look(const Model *m, int a)
{
	return awaits(m, 1, LOOKING, 0, a);
}

static void
do_look(Model *m, int a)
{
	Proposer   *p = &m->p[1];
	int			ahead;

	(void) step(m, a, CONCORD_REQUEST_LOOK, 0, 0, 0, &ahead);
	note_state(p, &m->memory[a], 1 << a);
	if (!QUORUM(p->answered))
		return;
	if (QUORUM(p->holders) || BUG == 8) /* 8: believes the highest of the answers */
	{
		seen[5] = p->best > 0;	/* read in one round */
		give_back(m, 1, p->best_value);
	}
	else
	{
		seen[7] = 1;			/* they disagree */
		prepare(m, 1);
	}
}

/* ---- crashes */

static void
crash_proposer(Model *m, int i)
{
	Proposer   *p = &m->p[i];

	m->crashes--;
	if (p->own == 0 && !is_read(m, i))
		m->failed |= (byte) (1 << number_of(m, i));
	else
		seen[8] = 1;			/* and nobody knows what has become of its write */
	p->ahead = 0;
	p->ahead_value = 0;
	rest(m, i);
#if BUG == 3					/* begins again with the first ballot */
	p->used = (byte) i;
#endif
}

static int
may_crash_acceptor(const Model *m, int a)
{
	return m->crashes > 0 && memcmp(&m->memory[a], &m->disk[a], sizeof(Acceptor)) != 0;
}

static void
crash_acceptor(Model *m, int a)
{
	m->crashes--;
	m->memory[a] = m->disk[a];
}

/* ---- acceptors are alike: of states that differ in their order alone, one is enough */

static long long
key(const Model *m, int a)
{
	const Acceptor *x = &m->memory[a];
	const Acceptor *y = &m->disk[a];
	long long	k = (x->value << 12 | x->promised << 6 | x->accepted);

	/* the value follows from the ballot under which it was accepted */
	k = k << 12 | y->promised << 6 | y->accepted;
	for (int i = 0; i < 2; i++)
		k = k << 3 | (m->p[i].answered >> a & 1) << 2 | (m->p[i].holders >> a & 1) << 1 |
			(m->p[i].ahead_set >> a & 1);
	return k;
}

static byte
swapped(byte set, int a)
{
	int			low = set >> a & 1;
	int			high = set >> (a + 1) & 1;

	return (byte) ((set & ~(3 << a)) | low << (a + 1) | high << a);
}

static void
sort_acceptors(Model *m)
{
	for (int n = 0; n < 3; n++)
	{
		int			a = n % 2;
		Acceptor	x = m->memory[a];
		Acceptor	y = m->disk[a];

		if (key(m, a) <= key(m, a + 1))
			continue;
		m->memory[a] = m->memory[a + 1];
		m->memory[a + 1] = x;
		m->disk[a] = m->disk[a + 1];
		m->disk[a + 1] = y;
		for (int i = 0; i < 2; i++)
		{
			m->p[i].answered = swapped(m->p[i].answered, a);
			m->p[i].holders = swapped(m->p[i].holders, a);
			m->p[i].ahead_set = swapped(m->p[i].ahead_set, a);
		}
	}
}

static void
see_what_is_possible(Model *m)
{
	sort_acceptors(m);
	for (int a = 0; a < ACCEPTORS; a++)
	{
		for (int b = 2; b < BALLOTS; b++)
			m->arrive[a][b] = (byte) (may_prepare(m, a, b, 0) | may_prepare(m, a, b, 1) << 1 |
									  may_accept(m, a, b, 0) << 2 | may_accept(m, a, b, 1) << 3);
		m->look[a] = (byte) may_look(m, a);
		m->crash[a] = (byte) may_crash_acceptor(m, a);
	}
	for (int i = 0; i < 2; i++)
	{
		m->begin[i] = (byte) may_begin(m, i);
		m->retry[i] = (byte) may_retry(m, i);
	}
}
}

c_state "Model m" "Global"

byte told;						/* the property that the last step broke, or 0 */

/* In assertions: 1 if the property is not looked at; and Spin reports its name. */
hidden byte is_A = OFF(5), is_R = OFF(7), is_O = OFF(8);

#if REACH
#define REACHED \
	c_code { now.told = (unsigned char) seen[REACH]; }; \
	if \
	:: told -> assert(REACH != REACH) \
	:: else \
	fi
#else
#define REACHED skip
#endif

#define DO(what) \
	c_code { wrong = 0; memset(seen, 0, sizeof(seen)); what; \
		see_what_is_possible(&now.m); now.told = (unsigned char) wrong; }; \
	assert(is_A || told != 5); assert(is_R || told != 7); assert(is_O || told != 8); \
	told = 0; REACHED

#define ARRIVE(b) \
	:: atomic { c_expr { now.m.arrive[PAcceptor->a][b] & 1 } -> \
		DO(do_prepare(&now.m, PAcceptor->a, b, 0)) } \
	:: atomic { c_expr { now.m.arrive[PAcceptor->a][b] & 2 } -> \
		DO(do_prepare(&now.m, PAcceptor->a, b, 1)) } \
	:: atomic { c_expr { now.m.arrive[PAcceptor->a][b] & 4 } -> \
		DO(do_accept(&now.m, PAcceptor->a, b, 0)) } \
	:: atomic { c_expr { now.m.arrive[PAcceptor->a][b] & 8 } -> \
		DO(do_accept(&now.m, PAcceptor->a, b, 1)) }

proctype Acceptor(byte a)
{
end:
	do
	ARRIVE(2)
	ARRIVE(3)
	ARRIVE(4)
	ARRIVE(5)
	ARRIVE(6)
	ARRIVE(7)
	ARRIVE(8)
	ARRIVE(9)
	ARRIVE(10)
	ARRIVE(11)
	ARRIVE(12)
	ARRIVE(13)
	:: atomic { c_expr { now.m.look[PAcceptor->a] } -> DO(do_look(&now.m, PAcceptor->a)) }
	:: atomic { c_expr { now.m.crash[PAcceptor->a] } ->
		DO(crash_acceptor(&now.m, PAcceptor->a)) }
	od
}

proctype Proposer(byte i)
{
end:
	do
	:: atomic { c_expr { now.m.begin[PProposer->i] } -> DO(begin(&now.m, PProposer->i)) }
	:: atomic { c_expr { now.m.retry[PProposer->i] } -> DO(retry(&now.m, PProposer->i)) }
	:: atomic { c_expr { now.m.crashes > 0 && now.m.p[PProposer->i].phase != IDLE } ->
		DO(crash_proposer(&now.m, PProposer->i)) }
	od
}

init
{
	atomic {
		c_code {
			now.m.crashes = CRASHES;
			now.m.p[0].attempts = now.m.p[1].attempts = ATTEMPTS;
			now.m.p[1].used = 1;
			see_what_is_possible(&now.m);
		};
		run Acceptor(0);
		run Acceptor(1);
		run Acceptor(2);
		run Proposer(0);
		run Proposer(1);
	}
}
