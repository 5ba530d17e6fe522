/*
 * test_deadlock.c
 *		Victims of deadlocks between servers: examples, then random graphs against an oracle.
 *
 * The oracle of the random test enumerates every simple cycle of transactions with the processes it
 * passes through, which takes exponential time and shares no idea with the code.
 */
#include "unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/deadlock.h"

#define MAX_TRANSACTIONS 7
#define MAX_PROCESSES 14
#define MAX_WAITS 24
#define DEFAULT_STEPS 30000

typedef struct Sample
{
	ConcordWaitGraph graph;
	ConcordWaitTransaction transactions[MAX_TRANSACTIONS];
	char		names[MAX_TRANSACTIONS][16];
	int			process[MAX_PROCESSES];
	ConcordWait waits[MAX_WAITS];
	int			victims[MAX_TRANSACTIONS];
	int			nvictims;
} Sample;

static uint64_t state;
static int	steps_done;

static int
below(int n)
{
	return (int) (unit_random(&state) % (uint64_t) n);
}

static void
begin(Sample *s)
{
	memset(s, 0, sizeof(*s));
	s->graph.transactions = s->transactions;
	s->graph.process = s->process;
	s->graph.waits = s->waits;
}

static int
transaction(Sample *s, int64_t stamp)
{
	int			t = s->graph.ntransactions++;

	snprintf(s->names[t], sizeof(s->names[t]), "t%d", t);
	s->transactions[t] = (ConcordWaitTransaction) {stamp, s->names[t], false};
	return t;
}

static int
process(Sample *s, int transaction)
{
	s->process[s->graph.nprocesses] = transaction;
	return s->graph.nprocesses++;
}

static void
waits_for(Sample *s, int waiter, int blocker)
{
	s->waits[s->graph.nwaits++] = (ConcordWait) {waiter, blocker};
}

/* The cycle is one, of different transactions, and begins at the victim. */
static void
check_cycle(const Sample *s, int victim, const int *cycle, int length)
{
	bool		seen[MAX_TRANSACTIONS] = {false};

	for (int i = 0; i < length; i++)
	{
		const ConcordWait *wait = &s->waits[cycle[i]];
		const ConcordWait *next = &s->waits[cycle[(i + 1) % length]];
		int			t = s->process[wait->waiter];

		CHECK(cycle[i] >= 0 && cycle[i] < s->graph.nwaits, "step %d", steps_done);
		CHECK(s->process[wait->blocker] == s->process[next->waiter], "step %d", steps_done);
		CHECK(!seen[t], "step %d: transaction %d twice", steps_done, t);
		CHECK(i > 0 || t == victim, "step %d", steps_done);
		seen[t] = true;
	}
}

/* Runs the detector to its end. */
static void
detect(Sample *s)
{
	size_t		size = concord_deadlock_scratch(&s->graph) * sizeof(int);
	int		   *scratch = malloc(size);	/* exact, so that a sanitizer sees what is outside */
	int			cycle[MAX_TRANSACTIONS];
	int			victim;
	int			length;

	s->nvictims = 0;
	memset(scratch, 0xee, size);
	while ((length = concord_deadlock_next(&s->graph, scratch, &victim, cycle)) > 0)
	{
		CHECK(s->nvictims < s->graph.ntransactions && s->transactions[victim].gone,
			  "step %d", steps_done);
		if (unit_failed())
			break;
		check_cycle(s, victim, cycle, length);
		s->victims[s->nvictims++] = victim;
	}
	free(scratch);
}

static void
nothing(void)
{
	Sample		s;

	begin(&s);
	detect(&s);
	CHECK(s.nvictims == 0);

	(void) process(&s, transaction(&s, 1));
	detect(&s);
	CHECK(s.nvictims == 0);
}

/* A chain, a queue, and many who wait for one are no deadlock. */
static void
waiting_is_no_deadlock(void)
{
	Sample		s;
	int			p[MAX_TRANSACTIONS];

	begin(&s);
	for (int i = 0; i < MAX_TRANSACTIONS; i++)
		p[i] = process(&s, transaction(&s, i));
	for (int i = 1; i < MAX_TRANSACTIONS; i++)
	{
		waits_for(&s, p[i], p[i - 1]);
		waits_for(&s, p[i], p[0]);
		waits_for(&s, p[i], p[0]);
	}
	detect(&s);
	CHECK(s.nvictims == 0);
}

/* Both coordinators wait at home, for the other's branch. */
static void
two_transactions(void)
{
	Sample		s;
	int			t1;
	int			t2;
	int			home1;
	int			home2;
	int			branch1;
	int			branch2;

	begin(&s);
	t1 = transaction(&s, 100);
	t2 = transaction(&s, 50);
	home1 = process(&s, t1);
	branch1 = process(&s, t1);
	home2 = process(&s, t2);
	branch2 = process(&s, t2);
	waits_for(&s, home1, branch2);
	detect(&s);
	CHECK(s.nvictims == 0);
	waits_for(&s, home2, branch1);
	detect(&s);
	CHECK(s.nvictims == 1 && s.victims[0] == t1);
}

static void
ties_go_by_name(void)
{
	Sample		s;
	int			p[4];

	begin(&s);
	for (int i = 0; i < 2; i++)
	{
		int			t = transaction(&s, 7);

		p[2 * i] = process(&s, t);
		p[2 * i + 1] = process(&s, t);
	}
	waits_for(&s, p[0], p[2]);
	waits_for(&s, p[3], p[1]);
	detect(&s);
	CHECK(s.nvictims == 1 && s.victims[0] == 1);
}

/* What a server sees by itself is left to it, and what hangs on it waits for that. */
static void
local_cycles_are_left_alone(void)
{
	Sample		s;
	int			t1;
	int			t2;
	int			a;
	int			b;

	begin(&s);
	t1 = transaction(&s, 1);
	t2 = transaction(&s, 2);
	a = process(&s, t1);
	b = process(&s, t2);
	waits_for(&s, a, b);
	waits_for(&s, b, a);
	detect(&s);
	CHECK(s.nvictims == 0);

	/* two branches of one transaction, each in a cycle of its own server */
	a = process(&s, t1);
	b = process(&s, transaction(&s, 3));
	waits_for(&s, a, b);
	waits_for(&s, b, a);
	detect(&s);
	CHECK(s.nvictims == 0);
}

/* Two branches on one server, as two roles: neither is a stranger's, but the server cannot know. */
static void
waiting_for_oneself(void)
{
	Sample		s;
	int			t;
	int			holds;
	int			waits;

	begin(&s);
	t = transaction(&s, 1);
	holds = process(&s, t);
	waits = process(&s, t);
	waits_for(&s, waits, holds);
	detect(&s);
	CHECK(s.nvictims == 1 && s.victims[0] == t);
}

/* A transaction that asks two nodes at once waits for both, which is no cycle. */
static void
two_waits_of_one(void)
{
	Sample		s;
	int			t;
	int			a;
	int			b;

	begin(&s);
	t = transaction(&s, 9);
	a = process(&s, t);
	b = process(&s, t);
	waits_for(&s, a, process(&s, transaction(&s, 1)));
	waits_for(&s, b, process(&s, transaction(&s, 2)));
	detect(&s);
	CHECK(s.nvictims == 0);
}

/* Two cycles through an old transaction: the young ones go, one for each. */
static void
two_cycles(void)
{
	Sample		s;
	int			hub;
	int			p[3][2];

	begin(&s);
	hub = transaction(&s, 1);
	p[0][0] = process(&s, hub);
	p[0][1] = process(&s, hub);
	for (int i = 1; i < 3; i++)
	{
		int			t = transaction(&s, 1 + i);

		p[i][0] = process(&s, t);
		p[i][1] = process(&s, t);
		waits_for(&s, p[i][0], p[0][0]);
		waits_for(&s, p[0][1], p[i][1]);
	}
	detect(&s);
	CHECK(s.nvictims == 2 && s.victims[0] == 2 && s.victims[1] == 1);
}

/* ------------------------------------------------------------- the oracle */

typedef struct Oracle
{
	const Sample *s;
	bool		reaches[MAX_PROCESSES][MAX_PROCESSES];	/* by waits alone */
	bool		on_path[MAX_TRANSACTIONS];
	bool		stuck[MAX_TRANSACTIONS];	/* on a cycle */
	bool		youngest[MAX_TRANSACTIONS]; /* of a cycle it is on */
	int			cycles;
} Oracle;

static bool
younger(const Sample *s, int a, int b)
{
	const ConcordWaitTransaction *x = &s->transactions[a];
	const ConcordWaitTransaction *y = &s->transactions[b];

	return x->stamp != y->stamp ? x->stamp > y->stamp : strcmp(x->name, y->name) > 0;
}

static bool
taken(const Oracle *o, const ConcordWait *wait)
{
	const Sample *s = o->s;

	return !s->transactions[s->process[wait->waiter]].gone &&
		!s->transactions[s->process[wait->blocker]].gone &&
		!o->reaches[wait->waiter][wait->waiter];
}

/* Extends a path of transactions, all above the first one's number, in every way. */
static void
extend(Oracle *o, int first, int at)
{
	const Sample *s = o->s;

	for (int w = 0; w < s->graph.nwaits; w++)
	{
		int			to = s->process[s->waits[w].blocker];

		if (s->process[s->waits[w].waiter] != at || !taken(o, &s->waits[w]))
			continue;
		if (to == first)
		{
			int			youngest = first;

			for (int t = 0; t < s->graph.ntransactions; t++)
				if (o->on_path[t] && younger(s, t, youngest))
					youngest = t;
			for (int t = 0; t < s->graph.ntransactions; t++)
				o->stuck[t] |= o->on_path[t];
			o->youngest[youngest] = true;
			o->cycles++;
		}
		else if (to > first && !o->on_path[to])
		{
			o->on_path[to] = true;
			extend(o, first, to);
			o->on_path[to] = false;
		}
	}
}

static void
enumerate(Oracle *o, const Sample *s)
{
	int			n = s->graph.nprocesses;

	memset(o, 0, sizeof(*o));
	o->s = s;
	for (int w = 0; w < s->graph.nwaits; w++)
		o->reaches[s->waits[w].waiter][s->waits[w].blocker] = true;
	for (int k = 0; k < n; k++)
		for (int i = 0; i < n; i++)
			for (int j = 0; j < n; j++)
				o->reaches[i][j] |= o->reaches[i][k] && o->reaches[k][j];
	for (int t = 0; t < s->graph.ntransactions; t++)
	{
		o->on_path[t] = true;
		extend(o, t, t);
		o->on_path[t] = false;
	}
}

/* The same graph listed in another order gives the same victims. */
static void
check_order(const Sample *s)
{
	Sample		other = *s;

	other.graph.transactions = other.transactions;
	other.graph.process = other.process;
	other.graph.waits = other.waits;
	for (int t = 0; t < s->graph.ntransactions; t++)
		other.transactions[t].gone = false;
	for (int w = other.graph.nwaits - 1; w > 0; w--)
	{
		int			v = below(w + 1);
		ConcordWait wait = other.waits[w];

		other.waits[w] = other.waits[v];
		other.waits[v] = wait;
	}
	detect(&other);
	CHECK(other.nvictims == s->nvictims &&
		  memcmp(other.victims, s->victims, sizeof(int) * (size_t) s->nvictims) == 0,
		  "step %d", steps_done);
}

/* Each victim was, when its turn came, the youngest of a cycle; after the last there is none. */
static void
check_victims(Sample *s)
{
	Oracle		o;
	int			n = s->nvictims;

	for (int t = 0; t < s->graph.ntransactions; t++)
		s->transactions[t].gone = false;
	for (int i = 0; i < n; i++)
	{
		enumerate(&o, s);
		CHECK(o.youngest[s->victims[i]], "step %d: victim %d", steps_done, s->victims[i]);
		for (int t = 0; t < s->graph.ntransactions; t++)
			CHECK(!o.stuck[t] || t == s->victims[i] || younger(s, s->victims[i], t),
				  "step %d", steps_done);
		if (o.cycles == 1)
			CHECK(i == n - 1, "step %d: more victims than cycles", steps_done);
		s->transactions[s->victims[i]].gone = true;
	}
	enumerate(&o, s);
	CHECK(o.cycles == 0, "step %d: %d cycles left", steps_done, o.cycles);
}

static void
draw(Sample *s)
{
	int			servers = 1 + below(4);
	int			server[MAX_PROCESSES];
	int			n = 1 + below(MAX_TRANSACTIONS);
	int			tries;

	begin(s);
	for (int i = 0; i < n; i++)
		(void) transaction(s, below(4));
	for (int i = 0; i < n; i++)
		server[process(s, i)] = below(servers);
	for (int i = below(MAX_PROCESSES - n + 1); i > 0; i--)
		server[process(s, below(n))] = below(servers);
	tries = below(MAX_WAITS + 1);
	for (int i = 0; i < tries; i++)
	{
		int			waiter = below(s->graph.nprocesses);
		int			blocker = below(s->graph.nprocesses);

		/* a lock table is one server's */
		if (waiter != blocker && server[waiter] == server[blocker])
			waits_for(s, waiter, blocker);
	}
}

static void
random_graphs(void)
{
	const char *given = getenv("CONCORD_STEPS");
	int			steps = given != NULL ? atoi(given) : DEFAULT_STEPS;
	int			with_victims = 0;

	CHECK(steps > 0, "CONCORD_STEPS");
	state = unit_seed();
	for (steps_done = 0; steps_done < steps && !unit_failed(); steps_done++)
	{
		static Sample s;

		draw(&s);
		detect(&s);
		with_victims += s.nvictims > 0;
		check_order(&s);
		check_victims(&s);
	}
	CHECK(with_victims > steps / 20, "%d of %d graphs had a deadlock", with_victims, steps);
	printf("# %d random graphs, %d with a deadlock, CONCORD_SEED=%" PRIu64 "\n", steps_done,
		   with_victims, unit_seed());
}

/* A ring of many transactions, each with a branch: found, broken by one, in no time. */
static void
long_ring(void)
{
	enum
	{
		N = 20000
	};
	ConcordWaitTransaction *transactions = calloc(N, sizeof(*transactions));
	char		(*names)[16] = calloc(N, sizeof(*names));
	int		   *processes = calloc(2 * N, sizeof(int));
	ConcordWait *waits = calloc(N, sizeof(*waits));
	int		   *cycle = calloc(N, sizeof(int));
	ConcordWaitGraph graph = {transactions, N, processes, 2 * N, waits, N};
	int		   *scratch;
	int			victim;

	for (int i = 0; i < N; i++)
	{
		snprintf(names[i], sizeof(names[i]), "%d", i);
		transactions[i] = (ConcordWaitTransaction) {(i * 7919) % N, names[i], false};
		processes[2 * i] = processes[2 * i + 1] = i;
		waits[i] = (ConcordWait) {2 * i, 2 * ((i + 1) % N) + 1};
	}
	scratch = calloc(concord_deadlock_scratch(&graph), sizeof(int));
	CHECK(concord_deadlock_next(&graph, scratch, &victim, cycle) == N);
	CHECK(transactions[victim].stamp == N - 1);
	CHECK(concord_deadlock_next(&graph, scratch, &victim, cycle) == 0);
	free(scratch);
	free(cycle);
	free(waits);
	free(processes);
	free(names);
	free(transactions);
}

void
test_deadlock(void)
{
	RUN(nothing);
	RUN(waiting_is_no_deadlock);
	RUN(two_transactions);
	RUN(ties_go_by_name);
	RUN(local_cycles_are_left_alone);
	RUN(waiting_for_oneself);
	RUN(two_waits_of_one);
	RUN(two_cycles);
	RUN(random_graphs);
	RUN(long_ring);
}
