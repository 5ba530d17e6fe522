/*
 * locks.c
 *		Nodes that keep leases, and sessions that take locks, over registers: for one seed.
 *
 * A host is a machine with a server: a clock, shared memory, a keeper of its lease, a watcher of
 * the others', and sessions (sessions.c).  Each process does one operation on one register at a
 * time.
 *
 * FAULTS, until the moment of healing: messages are lost, delayed, repeated, overtaken, cut
 * off; acceptors crash, pause, come back; processes crash and pause at any place; hosts crash,
 * come back at once, late or never, with another clock, pause as a whole, are cut off; clocks
 * run at different rates, within what is allowed for; in some runs two servers believe to be
 * one node; durations of leases change; locks are deleted and collected.  After that moment
 * everything must end: progress, also past the requests of those that never come back.
 *
 * BUG seeds a mistake of the rooms above core, see check.sh.
 */
#include "locks.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARENA (8 * 1024 * 1024)

#if BUG == 23					/* clocks are taken to run alike */
#define WATCH_PPM 0
#else
#define WATCH_PPM DRIFT_PPM
#endif

Locks		l;

static uint8_t arena[ARENA];	/* the bytes of values, which stay until the end of a run */
static size_t arena_used;

int64_t
clock_of(const Host *host)
{
	int64_t		ticks = s.now - host->clock_since;

	return host->clock_zero + ticks * (1000000 + host->rate_ppm) * US / 1000000;
}

void
wrong(const char *what)
{
	trace("WRONG: %s", what);
	if (s.wrong == NULL)
		s.wrong = what;
}

/* ---------------------------------------------------------------- operations of processes */

bool
is_ready(int process)
{
	return l.process[process].up && l.process[process].paused_until <= s.now &&
		HOST_OF(process)->paused_until <= s.now;
}

void
set_process_timer(int process, int64_t ticks)
{
	Event		e = {.kind = EVENT_TIMER, .client = process};

	e.epoch = ++l.process[process].epoch;
	push(&e, s.now + 1 + ticks);
}

static void
send_all(int process)
{
	Process    *p = &l.process[process];
	uint32_t	missing = concord_proposal_missing(&p->p);
	ConcordRequest request;

	for (int i = 0; i < p->p.config.n; i++)
		if (missing & (UINT32_C(1) << i) && HOST_OF(process)->cut_until <= s.now)
		{
			concord_proposal_request(&p->p, i, &request);
			send_request(process, p->reg, &request);
		}
}

static void finished(int process);

static void
carry_out(int process, ConcordNext next)
{
	Process    *p = &l.process[process];

	switch (next)
	{
		case CONCORD_NEXT_WAIT:
			break;
		case CONCORD_NEXT_SEND:
			send_all(process);
			set_process_timer(process, 60 + below(100));
			break;
		case CONCORD_NEXT_BACK_OFF:
			set_process_timer(process, (int64_t) p->p.backoff * 15);
			break;
		case CONCORD_NEXT_RECONFIGURE:
			abort();
		case CONCORD_NEXT_DONE:
			p->busy = false;
			s.counts->operations++;
			s.counts->results[p->p.result]++;
			if (p->p.ahead.ballot.counter > 0)
				p->ahead[p->reg] = p->p.ahead;
			if (p->p.rounds == 1 && p->p.op == CONCORD_WRITE && p->p.result == CONCORD_RESULT_OK)
				s.counts->one_round++;
			if (p->reg < LOCKS &&
				(p->p.result == CONCORD_RESULT_OK || p->p.result == CONCORD_RESULT_MISMATCH))
				see_chosen(p->reg, &p->p.value);
			finished(process);
			break;
	}
}

void
operate(int process, int reg, ConcordOperation op, int64_t expected, const void *data, size_t len)
{
	Process    *p = &l.process[process];
	void	   *copy = arena + arena_used;

	if (p->busy || arena_used + len > ARENA)
		abort();
	if (len > 0)
		memcpy(copy, data, len);
	arena_used += len;
	p->busy = true;
	p->reg = reg;
	p->give_up = s.now + 100 + below(900);
	trace("process %d: operation %d on register %d", process, (int) op, reg);
	carry_out(process, concord_proposal_start(&p->p, &p->proposer, &s.configs[0], op, expected,
											  copy, (uint32_t) len, &p->ahead[reg],
											  sim_random(&s.random)));
}

static void
operation_timer(int process)
{
	Process    *p = &l.process[process];

	if (!s.healed && s.now > p->give_up)
		carry_out(process, concord_proposal_give_up(&p->p));
	else if (p->p.phase != CONCORD_BACKING_OFF && chance(50))
	{
		send_all(process);
		set_process_timer(process, 60 + below(100));
	}
	else
		carry_out(process, concord_proposal_retry(&p->p));
}

static void
start_process(int process)
{
	Process    *p = &l.process[process];
	int			left = p->left;
	uint64_t	epoch = p->epoch;

	memset(p, 0, sizeof(*p));
	p->left = left;
	p->epoch = epoch;
	p->up = true;
	p->proposer.node = HOST_OF(process)->node;
	p->proposer.incarnation = HOST_OF(process)->lease.keeper;
	p->proposer.proposer = ++l.proposers;
	for (int k = 0; k < LOCKS; k++)
		concord_lock_init(&p->known[k].state, p->known[k].request, ROOM);
	set_process_timer(process, below(40));
}

/* ---------------------------------------------------------------- leases */

static bool
read_lease(const ConcordValue *value, ConcordLeaseValue *lease)
{
	if (value->kind != CONCORD_VALUE_SET)
		return false;
	if (!concord_lease_decode(lease, value->data, value->len))
		wrong("garbage in a lease");
	return true;
}

static void
write_lease(int process, int32_t node, const ConcordLeaseValue *lease, int64_t version)
{
	uint8_t		bytes[CONCORD_LEASE_SIZE];

	concord_lease_encode(lease, bytes);
	l.process[process].stage = WRITING;
	operate(process, LEASE_REGISTER(node), CONCORD_WRITE, version, bytes, sizeof(bytes));
}

static void
read_again(int process, int32_t node)
{
	l.process[process].stage = READING;
	operate(process, LEASE_REGISTER(node), CONCORD_READ, 0, NULL, 0);
}

/* Whoever waits looks again. */
static void
rouse_sessions(const Host *host)
{
	for (int i = 0; i < PROCESSES; i++)
		if (HOST_OF(i) == host)
			session_wake(i);
}

static bool
may_replace(Host *host)
{
	ConcordLeaseWatch *watch = &host->watch[host->node];

#if BUG == 29					/* any server of the node replaces the lease of another at once */
	return true;
#endif
	if (host->predecessor != 0 && host->lease.value.keeper == host->predecessor)
		return true;
	return watch->version == host->lease.version &&
		concord_lease_watch_over(watch, DRIFT_PPM, clock_of(host));
}

static void
keeper_goes_on(int process)
{
	Host	   *host = HOST_OF(process);
	ConcordLeaseValue value;
	bool		others = host->lease.status == CONCORD_LEASE_OTHERS;
	int64_t		duration = l.long_leases && chance(70) ? 1000 + below(800) : 250 + below(350);

	if (concord_lease_propose(&host->lease, clock_of(host), duration * US,
							  others && may_replace(host), &value))
		write_lease(process, host->node, &value, host->lease.version);
	else
		read_again(process, host->node);
}

static void
keeper_finished(int process)
{
	Process    *p = &l.process[process];
	Host	   *host = HOST_OF(process);
	ConcordLeaseStatus before = host->lease.status;
	bool		lapsed = before == CONCORD_LEASE_KEPT &&
		!concord_lease_valid(&host->lease, host->lease.lease, clock_of(host));
	ConcordLeaseValue value;
	bool		found = false;

	if (p->p.result == CONCORD_RESULT_OK && p->stage == WRITING)
	{
		concord_lease_chosen(&host->lease, p->p.value.version);
		host->predecessor = 0;
#if BUG == 21					/* counts from the answer */
		host->lease.until_us = clock_of(host) + host->lease.value.duration_us;
#endif
		s.counts->leases += before != CONCORD_LEASE_KEPT;
		s.counts->replaced += before == CONCORD_LEASE_OTHERS;
		s.counts->lapsed += lapsed;
		trace("host %d: lease %" PRIu64 " of node %d until %" PRId64 ", now %" PRId64,
			  process / PER_HOST, host->lease.lease, host->node, host->lease.until_us,
			  clock_of(host));
		p->stage = RESTING;
		set_process_timer(process, 60 + below(60));
		return;
	}
	if (p->p.result == CONCORD_RESULT_OK || p->p.result == CONCORD_RESULT_MISMATCH)
	{
		found = read_lease(&p->p.value, &value);
		(void) concord_lease_found(&host->lease, found ? &value : NULL, p->p.value.version);
		if (found)
			concord_lease_watch_see(&host->watch[host->node], &value, p->p.value.version,
									clock_of(host));
		p->stage = RESTING;
		set_process_timer(process, host->lease.status == CONCORD_LEASE_OTHERS ? 20 + below(60) : 0);
		return;
	}
#if BUG == 22					/* an unknown renewal counts */
	if (p->p.result == CONCORD_RESULT_UNKNOWN && before == CONCORD_LEASE_KEPT)
		host->lease.until_us = host->lease.sent_us + host->lease.sent.duration_us;
#endif
	read_again(process, host->node);
}

static void
watcher_goes_on(int process)
{
	Process    *p = &l.process[process];
	Host	   *host = HOST_OF(process);

	if (host->norphans > 0 && chance(60) && session_adopts(process, &host->orphan[0]))
		return;
	for (int32_t node = 1; node <= HOSTS; node++)
		if (node != host->node &&
			concord_lease_watch_over(&host->watch[node], WATCH_PPM, clock_of(host)))
		{
			ConcordLeaseValue end;

			concord_lease_watch_end(&host->watch[node], &end);
			p->watched = node;
			write_lease(process, node, &end, host->watch[node].version);
			return;
		}
	p->watched = p->watched % HOSTS + 1;
	read_again(process, p->watched);
}

static void
watcher_finished(int process)
{
	Process    *p = &l.process[process];
	Host	   *host = HOST_OF(process);
	ConcordLeaseWatch *watch = &host->watch[p->watched];
	ConcordLeaseValue value;
	int64_t		left;
	int64_t		wait = l.long_leases ? below(15) : 40 + below(80);

	if ((p->p.result == CONCORD_RESULT_OK || p->p.result == CONCORD_RESULT_MISMATCH) &&
		read_lease(&p->p.value, &value))
	{
#if BUG == 24					/* ends whatever lease it finds there */
		if (p->stage == WRITING && p->p.result == CONCORD_RESULT_MISMATCH && !value.ended)
		{
			value.ended = true;
			write_lease(process, p->watched, &value, p->p.value.version);
			return;
		}
#endif
		concord_lease_watch_see(watch, &value, p->p.value.version, clock_of(host));
		if (p->watched == host->node)
			(void) concord_lease_found(&host->lease, &value, p->p.value.version);
		if (p->stage == WRITING && p->p.result == CONCORD_RESULT_OK)
		{
			trace("host %d: ends lease %" PRIu64 " of node %d", process / PER_HOST, value.lease,
				  p->watched);
			s.counts->ended++;
		}
		if (value.ended)
			rouse_sessions(host);
	}
	left = concord_lease_watch_left(watch, WATCH_PPM, clock_of(host));
	if (left >= 0 && left / US < wait)
		wait = left / US;
	p->stage = RESTING;
	set_process_timer(process, wait);
}

/* ---------------------------------------------------------------- what happens to a process */

static void
finished(int process)
{
	Process    *p = &l.process[process];

	if (p->stage >= ASKING)
		session_finished(process);
	else if (process % PER_HOST == KEEPER)
		keeper_finished(process);
	else
		watcher_finished(process);
}

/* Puts an event off until its process goes on; true: it is up, and goes on now */
static bool
reaches(const Event *e)
{
	const Process *p = &l.process[e->client];
	int64_t		until = HOST_OF(e->client)->paused_until;

	if (!p->up)
		return false;
	if (until < p->paused_until)
		until = p->paused_until;
	if (until > s.now)
		push(e, until);
	return until <= s.now;
}

static void
take_timer(const Event *e)
{
	Process    *p = &l.process[e->client];

	if (e->epoch != p->epoch || !reaches(e))
		return;
	if (p->busy)
		operation_timer(e->client);
	else if (p->stage >= ASKING || e->client % PER_HOST >= SESSION)
		session_timer(e->client);
	else if (e->client % PER_HOST == KEEPER)
		keeper_goes_on(e->client);
	else
		watcher_goes_on(e->client);
}

static void
take_answer(const Event *e)
{
	Process    *p = &l.process[e->client];
	ConcordNext next;

	if (HOST_OF(e->client)->cut_until > s.now || !reaches(e) || !p->busy)
		return;
	next = concord_proposal_answer(&p->p, &e->m.answer);
	if (next != CONCORD_NEXT_WAIT)
		carry_out(e->client, next);
}

/* ---------------------------------------------------------------- faults */

/* With another clock: nothing that it said before has any meaning. */
static void
start_host(int h)
{
	Host	   *host = &l.host[h];
	uint64_t	before = host->lease.keeper;

	if (host->up || host->dead)
		return;
	trace("host %d starts", h);
	memset(host->watch, 0, sizeof(host->watch));
	concord_lease_init(&host->lease, sim_random(&s.random) | 1);
	host->predecessor = chance(60) ? before : 0;
	host->norphans = 0;
	host->serial = below(1000);
	host->clock_zero = (int64_t) below(100000) * US;
	host->clock_since = s.now;
	host->rate_ppm = l.long_leases || chance(60) ? (chance(50) ? RATE_PPM : -RATE_PPM) :
		(int64_t) below(2 * RATE_PPM) - RATE_PPM;
	host->paused_until = 0;
	host->up = true;
	for (int i = h * PER_HOST; i < (h + 1) * PER_HOST; i++)
		start_process(i);
}

static void
crash_host(int h)
{
	Host	   *host = &l.host[h];

	trace("host %d crashes", h);
	s.counts->crashes += host->up;
	host->up = false;
	for (int i = h * PER_HOST; i < (h + 1) * PER_HOST; i++)
	{
		l.process[i].up = l.process[i].believes = false;
		l.process[i].epoch++;
	}
}

static int
alive(void)
{
	int			n = 0;

	for (int h = 0; h < HOSTS; h++)
		n += !l.host[h].dead;
	return n;
}

static void
host_fault(int h, uint32_t which)
{
	Host	   *host = &l.host[h];
	Event		e = {.kind = EVENT_RESTART, .node = h, .reg = 1};

	if (which < 30)
	{
		crash_host(h);
		if (chance(70))
			push(&e, s.now + 1 + (chance(50) ? below(60) : below(1500)));
		else if (chance(50) && alive() > 2)
			host->dead = true;
	}
	else if (which < 60)
		host->cut_until = s.now + below(l.long_leases ? 3000 : 1200);
	else if (which < 90)
		host->paused_until = s.now + below(1200);
	else
		start_host(h);
}

static void
node_fault(int n, uint32_t which)
{
	if (which < 30)
		crash_node(n);
	else if (which < 60)
		s.node[n].up = true;
	else if (which < 80)
		s.node[n].paused_until = s.now + below(600);
	else
		s.node[n].cut_until = s.now + below(600);
}

static void
take_fault(void)
{
	uint32_t	which = below(100);
	int			process = (int) below(PROCESSES);
	Event		e = {.kind = EVENT_FAULT};

	if (which < s.node_faults)
		node_fault((int) below((uint32_t) s.configs[0].n), below(100));
	else if (which < s.node_faults + 30)
		host_fault(process / PER_HOST, l.long_leases && chance(70) ? 30 : below(100));
	else if (which < s.node_faults + 45)
		l.process[process].paused_until = s.now + below(1500);
	else if (l.process[process].up)
	{
		trace("process %d crashes", process);
		session_crash(process);
		start_process(process);
	}
	if (s.faults-- > 0)
		push(&e, s.now + 1 + below(150));
}

static void
take_heal(void)
{
	trace("everything heals");
	s.healed = true;
	s.lose = s.repeat = s.slow = 0;
	for (int n = 0; n < NODES; n++)
	{
		s.node[n].up = true;
		s.node[n].paused_until = s.node[n].cut_until = 0;
	}
	/* of two servers of a node, one goes */
	if (l.host[HOSTS - 1].node == 1)
	{
		crash_host(HOSTS - 1);
		l.host[HOSTS - 1].dead = true;
	}
	for (int h = 0; h < HOSTS; h++)
	{
		l.host[h].cut_until = l.host[h].paused_until = 0;
		start_host(h);
	}
	for (int i = 0; i < PROCESSES; i++)
	{
		l.process[i].paused_until = 0;
		l.process[i].left = i % PER_HOST >= SESSION && l.process[i].up ? 1 : 0;
		if (l.process[i].up && !l.process[i].busy)
			set_process_timer(i, below(20));
	}
}

/* ---------------------------------------------------------------- a run */

static void
set_up(uint64_t seed, bool verbose, SimCounts *counts)
{
	ConcordAcceptorId ids[CONCORD_ACCEPTORS_MAX];
	Event		e = {.kind = EVENT_FAULT};
	int			n;
	bool		twins;

	memset(&s, 0, sizeof(s));
	memset(&l, 0, sizeof(l));
	arena_used = 0;
	empty_queue();
	s.seed = seed;
	s.random = seed * UINT64_C(0x2545f4914f6cdd1d) + 1;
	s.verbose = verbose;
	s.counts = counts;
	n = chance(60) ? 3 : 5;
	twins = chance(25);
	s.lose = below(4) * below(6);
	s.repeat = below(3) * below(12);
	s.slow = below(3) * below(8);
	s.node_faults = below(35);
	s.sudden = below(2) * below(10);
	s.faults = (int) below(60);
	l.long_leases = chance(50);
	if (l.long_leases)
		s.node_faults = s.sudden = s.slow = s.lose = 0;
	for (int i = 0; i < NODES; i++)
	{
		ConcordAcceptorId *id = &s.node[i].memory.acceptor.id;

		id->node = i + 1;
		id->generation = 1;
		id->lineage = sim_random(&s.random);
		s.node[i].disk = s.node[i].memory;
		s.node[i].up = true;
		if (i < n)
			ids[i] = *id;
	}
	if (!concord_config_first(&s.configs[0], 1, ids, n))
		abort();
	for (int h = 0; h < HOSTS; h++)
	{
		l.host[h].node = twins && h == HOSTS - 1 ? 1 : h + 1;
		start_host(h);
		for (int i = SESSION; i < PER_HOST; i++)
			l.process[h * PER_HOST + i].left = (int) below(12);
	}
	if (s.faults > 0)
		push(&e, 1 + below(300));
	e.kind = EVENT_HEAL;
	push(&e, HEALING);
}

static bool
all_done(void)
{
	if (!s.healed)
		return false;
	for (int i = 0; i < PROCESSES; i++)
		if (l.process[i].up && i % PER_HOST >= SESSION &&
			(l.process[i].stage != RESTING || l.process[i].left > 0))
			return false;
	for (int h = 0; h < HOSTS; h++)
		if (l.host[h].up && l.host[h].norphans > 0)
			return false;
	return true;
}

static void
take_event(Event *e)
{
	switch (e->kind)
	{
		case EVENT_REQUEST:
			take_request(e);
			break;
		case EVENT_FLUSHED:
			take_flushed(e);
			break;
		case EVENT_ANSWER:
			take_answer(e);
			break;
		case EVENT_TIMER:
			take_timer(e);
			break;
		case EVENT_FAULT:
			if (!s.healed)
				take_fault();
			break;
		case EVENT_RESTART:
			if (e->reg == 1)
				start_host(e->node);
			else
				s.node[e->node].up = true;
			break;
		case EVENT_HEAL:
			take_heal();
			break;
		case EVENT_GUARDED:
			take_guarded(e);
			break;
		case EVENT_WAKE:
			if (is_ready(e->client))
				session_wake(e->client);
			break;
	}
}

const char *
sim_run(uint64_t seed, bool verbose, SimCounts *counts)
{
	set_up(seed, verbose, counts);
	while (!is_empty() && !all_done() && s.now < LAST && s.wrong == NULL)
	{
		Event		e = pop();

		s.now = e.time;
		counts->events++;
		take_event(&e);
		check_beliefs();
	}
	check_history();
	if (s.wrong == NULL && !all_done())
		s.wrong = SIM_NO_PROGRESS;
	return s.wrong;
}

/* ---------------------------------------------------------------- what was met */

const char *const sim_name = "lease locks";

void
sim_show_counts(const SimCounts *c)
{
	printf("# %" PRIu64 " events, %" PRIu64 " operations: %" PRIu64 " ok, %" PRIu64
		   " mismatch, %" PRIu64 " failed, %" PRIu64 " unknown; %" PRIu64
		   " changes in one round; %" PRIu64 " crashes\n", c->events, c->operations,
		   c->results[CONCORD_RESULT_OK], c->results[CONCORD_RESULT_MISMATCH],
		   c->results[CONCORD_RESULT_FAILED], c->results[CONCORD_RESULT_UNKNOWN], c->one_round,
		   c->crashes);
	printf("# locks: %" PRIu64 " held (%" PRIu64 " after waiting, %" PRIu64 " shared), %" PRIu64
		   " upgraded, %" PRIu64 " given up, %" PRIu64 " released unsure, %" PRIu64
		   " too late; %" PRIu64 " uses, %" PRIu64 " stale; %" PRIu64 " collected\n", c->held,
		   c->waited, c->shared, c->upgraded, c->given_up, c->unsure, c->late, c->accepted,
		   c->stale, c->collected);
	printf("# leases: %" PRIu64 " begun, %" PRIu64 " lapsed, %" PRIu64 " ended by others, %" PRIu64
		   " replaced; %" PRIu64 " requests dropped\n", c->leases, c->lapsed, c->ended, c->replaced,
		   c->dropped);
}

bool
sim_has_met_everything(const SimCounts *c, uint64_t seeds)
{
	return c->held > seeds * 10 && c->waited > seeds && c->shared > seeds && c->upgraded > 0 &&
		c->given_up > 0 && c->unsure > 0 && c->late > 0 && c->accepted > seeds && c->stale > 0 &&
		c->collected > 0 && c->leases > seeds && c->lapsed > 0 && c->ended > 0 && c->replaced > 0 &&
		c->dropped > 0 && c->one_round > 0 && c->crashes > 0;
}
