/*
 * lease.pml
 *		The lease of one node: its keeper, an observer, and the next server of the node, for the model
 *		checker Spin.
 *
 * The keeper begins a lease and renews it, the observer reads its register and ends the lease when it
 * has seen one version for too long; then somebody else may be granted what the keeper's sessions hold.
 *
 * WHAT IS MODELLED
 * - The keeper, the observer and the judgement are src/core/lock.c itself.
 * - The register does a compare-and-set in one step; how it does that is register.pml's.  What was
 *   sent may arrive at any time later, in any order, or never, as long as it matters: WRITES writes are
 *   under way at once.  The answer may be lost, or arrive at any time later.
 * - A read is answered with what was there at some moment since it was begun; the answer arrives any time
 *   later.
 * - Two clocks in ticks: the observer's is not slower than the keeper's, and goes one tick further in
 *   each FAST of the keeper's, at most.  (A slower one only waits longer.)
 * - The keeper sends renewals of two durations, LONG and SHORT; with RESTART of one.
 * - RESTART: a second server of the node starts, which knows the first one to be dead, if it is, and waits
 *   for the end of its lease like anybody else if it is not.  It runs on the observer's clock.
 *
 * PROPERTIES, as assertions
 * S  while the keeper's lease is valid by its clock, nobody has found that it is over.
 *
 * WHAT IS NOT: locks (that nothing is dropped from them before a lease is over is simulated), times as
 * such: they are bounded by TICKS.
 *
 * -DBUG=<n> seeds a bug, -DREACH=<n> makes an error of a situation that must be reachable.
 */

#ifndef TICKS
#define TICKS 8
#endif
#ifndef BEATS
#define BEATS 3					/* attempts of the keeper's */
#endif
#ifndef RESTART
#define RESTART 0
#endif
#ifndef BUG
#define BUG 0
#endif
#ifndef REACH
#define REACH 0
#endif
#ifndef ONLY
#define ONLY 0					/* one property alone: 9 for S */
#endif
#define OFF(property) (ONLY != 0 && ONLY != property)

c_decl {
\#include "core/lock.h"

\#define LONG 4
\#define SHORT 2
\#define FAST 2					/* rates 3 : 2 */
\#define PPM 500000
\#define WRITES 2				/* under way at once */

/* numbers of the properties, as check.sh has them */
enum {WRONG_S = 9};

typedef unsigned char byte;

/* A lease's value, small */
typedef struct Value
{
	byte		lease;
	byte		keeper;
	byte		beat;
	byte		duration;
	byte		ended;
} Value;

/* What is sent to the register; who gives up waiting for an answer leaves it there */
typedef struct Write
{
	byte		state;			/* 0 none, 1 under way, 2 chosen, 3 refused; 2 and 3 not answered yet */
	byte		expected;
	byte		version;		/* chosen at; or what there was, refused */
	Value		value;			/* written; or what there was, refused */
} Write;

typedef struct Server
{
	byte		status;			/* ConcordLease, small */
	byte		lease;
	byte		version;
	byte		beats;
	byte		from;
	byte		until;
	byte		sent_at;
	Value		value;
	Value		sent;
	byte		waits;			/* for the answer to the write of this index - 1 */
} Server;

typedef struct Model
{
	byte		version;		/* the register */
	Value		value;
	byte		clock[2];		/* the keeper's, the observer's */
	byte		extra;			/* ticks since the observer's last extra one */
	Server		server[2];		/* the second one starts later */
	byte		up[2];
	byte		known_dead;
	Write		write[WRITES];
	byte		read_version;	/* taken, and not received yet; 0: none */
	Value		read_value;
	byte		seen_version;	/* ConcordLeaseWatch, small */
	byte		seen_at;
	Value		seen;
	byte		over;			/* highest lease that somebody has found to be over */

	/* what is possible now: follows from the rest, as a condition of Spin's must not call functions */
	byte		tick[2];
	byte		send[2];
	byte		answer[2];
	byte		look[2];
	byte		arrive[WRITES];
	byte		take;
	byte		receive;
	byte		finish;
	byte		start[2];
} Model;

/* of the last step, not part of the state */
static int	wrong;
static int	seen[10];

static ConcordLeaseValue
big(const Value *v)
{
	ConcordLeaseValue value = {.lease = v->lease, .keeper = v->keeper, .beat = v->beat,
		.duration_us = v->duration, .ended = v->ended};

	return value;
}

static Value
small(const ConcordLeaseValue *v)
{
	Value		value = {(byte) v->lease, (byte) v->keeper, (byte) v->beat, (byte) v->duration_us,
		v->ended};

	return value;
}

static ConcordLease
big_lease(const Server *s, int i)
{
	ConcordLease lease;

	concord_lease_init(&lease, (uint64_t) i + 1);
	lease.status = (ConcordLeaseStatus) s->status;
	lease.lease = s->lease;
	lease.version = s->version;
	lease.value = big(&s->value);
	lease.beats = s->beats;
	lease.from_us = s->from;
	lease.until_us = s->until;
	lease.sent = big(&s->sent);
	lease.sent_us = s->sent_at;
	return lease;
}

static void
small_lease(Server *s, const ConcordLease *lease)
{
	s->status = (byte) lease->status;
	s->lease = (byte) lease->lease;
	s->version = (byte) lease->version;
	s->value = small(&lease->value);
	s->beats = (byte) lease->beats;
	s->from = (byte) lease->from_us;
	s->until = (byte) lease->until_us;
	s->sent = small(&lease->sent);
	s->sent_at = (byte) lease->sent_us;
}

static ConcordLeaseWatch
big_watch(const Model *m)
{
	ConcordLeaseWatch watch = {.version = m->seen_version, .seen_us = m->seen_at,
		.value = big(&m->seen)};

	return watch;
}

/* ---- the register */

static int
free_write(const Model *m)
{
	for (int w = 0; w < WRITES; w++)
		if (m->write[w].state == 0)
			return w;
	return -1;
}

static int
waits_for(const Model *m, int w)
{
	return m->server[0].waits == w + 1 || m->server[1].waits == w + 1;
}

/* Somebody has read this: what is over by that may be dropped. */
static void
find_over(Model *m, const Value *value)
{
	ConcordLeaseValue v = big(value);

	for (int lease = 1; lease < 4; lease++)
		if (concord_lease_judge(&v, (uint64_t) lease) == CONCORD_LEASE_OVER && lease > m->over)
			m->over = (byte) lease;
}

static void
arrive(Model *m, int i)
{
	Write	   *w = &m->write[i];

	if (BUG == 4 && w->value.ended && w->expected != m->version && !m->value.ended)
	{
		w->expected = m->version;	/* whatever is there */
		w->value = m->value;
		w->value.ended = 1;
	}
	if (w->expected == m->version)
	{
		m->version++;
		m->value = w->value;
		w->state = 2;
		if (w->value.ended)
			seen[1] = 1;
	}
	else
	{
		w->value = m->value;
		w->state = 3;
	}
	w->version = m->version;
	if (!waits_for(m, i))
		memset(w, 0, sizeof(*w));
}

/* ---- servers */

static int
may_replace(const Model *m, int i)
{
	ConcordLeaseWatch watch = big_watch(m);

	if (i == 0)
		return 0;
	if (BUG == 6)				/* at once, dead or not */
		return 1;
	return m->known_dead || (m->seen_version == m->server[i].version &&
							 concord_lease_watch_over(&watch, PPM, m->clock[1]));
}

static int
may_send(const Model *m, int i)
{
	ConcordLease lease = big_lease(&m->server[i], i);
	ConcordLeaseValue value;

	return m->up[i] && m->server[i].waits == 0 && free_write(m) >= 0 &&
		m->server[i].beats < BEATS && (i == 0 || m->server[i].version > 0) &&
		concord_lease_propose(&lease, m->clock[i], LONG, may_replace(m, i), &value);
}

static void
send_lease(Model *m, int i, int duration)
{
	Server	   *s = &m->server[i];
	ConcordLease lease = big_lease(s, i);
	ConcordLeaseValue value;
	int64_t		until = lease.until_us;
	int			w = free_write(m);

	(void) concord_lease_propose(&lease, m->clock[i], duration, may_replace(m, i), &value);
	if (BUG == 5)				/* a shorter one binds only when it is known to be chosen */
		lease.until_us = until;
	if (BUG == 2 && lease.status == CONCORD_LEASE_KEPT) /* counts before it is known to be chosen */
		lease.until_us = m->clock[i] + duration;
	small_lease(s, &lease);
	m->write[w].state = 1;
	m->write[w].expected = s->version;
	m->write[w].value = small(&value);
	s->waits = (byte) (w + 1);
}

static void
answer(Model *m, int i)
{
	Server	   *s = &m->server[i];
	Write	   *w = &m->write[s->waits - 1];
	ConcordLease lease = big_lease(s, i);
	ConcordLeaseValue value = big(&w->value);

	if (w->state == 2)
	{
		concord_lease_chosen(&lease, w->version);
		if (BUG == 1)			/* from the answer on */
			lease.until_us = m->clock[i] + lease.value.duration_us;
		if (i == 1)
			seen[m->known_dead ? 5 : 4] = 1;
	}
	else
		(void) concord_lease_found(&lease, &value, w->version);
	find_over(m, &w->value);
	if (s->lease > 0 && lease.lease == 0)
		seen[3] = 1;			/* it learns that it has lost its lease */
	memset(w, 0, sizeof(*w));
	s->waits = 0;
	small_lease(s, &lease);
}

/* Waits no longer for an answer, and reads. */
static void
look(Model *m, int i)
{
	Server	   *s = &m->server[i];
	ConcordLease lease = big_lease(s, i);
	ConcordLeaseValue value = big(&m->value);

	if (s->waits > 0 && m->write[s->waits - 1].state > 1)
		memset(&m->write[s->waits - 1], 0, sizeof(m->write[0]));
	s->waits = 0;
	if (m->version > 0)
	{
		if (lease.sent.beat > 0 && m->version > lease.version &&
			concord_lease_found(&lease, &value, m->version) == CONCORD_LEASE_KEPT &&
			lease.sent.beat == 0)
			seen[2] = 1;		/* finds that an attempt was chosen */
		(void) concord_lease_found(&lease, &value, m->version);
		find_over(m, &m->value);
	}
	small_lease(s, &lease);
}

/* ---- the observer */

static void
receive(Model *m)
{
	ConcordLeaseWatch watch = big_watch(m);
	ConcordLeaseValue value = big(&m->read_value);

	concord_lease_watch_see(&watch, &value, m->read_version, m->clock[1]);
	m->seen_version = (byte) watch.version;
	m->seen_at = (byte) watch.seen_us;
	m->seen = small(&watch.value);
	find_over(m, &m->read_value);
	m->read_version = 0;
	memset(&m->read_value, 0, sizeof(m->read_value));
}

static int
may_finish(const Model *m)
{
	ConcordLeaseWatch watch = big_watch(m);

	/* 3: clocks are taken to run alike */
	return m->seen_version == m->version && free_write(m) >= 0 &&
		concord_lease_watch_over(&watch, BUG == 3 ? 0 : PPM, m->clock[1]);
}

static void
finish(Model *m)
{
	ConcordLeaseWatch watch = big_watch(m);
	ConcordLeaseValue value;
	Write	   *w = &m->write[free_write(m)];

	concord_lease_watch_end(&watch, &value);
	w->state = 1;
	w->expected = m->seen_version;
	w->value = small(&value);
	if (BUG == 7)				/* dropped before the end is written */
		find_over(m, &w->value);
}

/* ---- clocks, and a second server */

static void
tick(Model *m, int extra)
{
	m->clock[0]++;
	m->clock[1] += (byte) (1 + extra);
	m->extra = extra ? 0 : (byte) (m->extra < FAST - 1 ? m->extra + 1 : FAST - 1);
}

static void
start_second(Model *m, int dead)
{
	m->up[1] = 1;
	if (dead)
	{
		m->up[0] = 0;
		m->known_dead = 1;
		m->server[0].waits = 0;
	}
}

static void
check(const Model *m)
{
	for (int i = 0; i < 2; i++)
	{
		ConcordLease lease = big_lease(&m->server[i], i);

		if (m->up[i] && lease.lease > 0 && lease.lease <= m->over &&
			concord_lease_valid(&lease, lease.lease, m->clock[i]))
			wrong = WRONG_S;
	}
}

/* ---- what has no consequence any more is forgotten, so that there are fewer states */

static void
forget(Model *m)
{
	for (int w = 0; w < WRITES; w++)
		if (m->write[w].state == 1 && m->write[w].expected < m->version && !waits_for(m, w) &&
			!(BUG == 4 && m->write[w].value.ended))
			memset(&m->write[w], 0, sizeof(m->write[w]));
	for (int i = 0; i < 2; i++)
	{
		Server	   *s = &m->server[i];

		if (!m->up[i])
			memset(s, 0, sizeof(*s));
		if (s->until <= m->clock[i])
			s->from = s->until = 0;
		if (s->sent.beat == 0 || s->sent_at + s->sent.duration <= m->clock[i])
			s->sent_at = 0;		/* long ago in any case */
		if (s->sent.beat == 0)
			memset(&s->sent, 0, sizeof(s->sent));
	}
	if (m->read_version > 0 && m->read_version < m->version && !m->read_value.ended)
	{
		m->read_version = 0;
		memset(&m->read_value, 0, sizeof(m->read_value));
	}
	if (m->seen_version < m->version)
	{
		m->seen_version = m->seen_at = 0;
		memset(&m->seen, 0, sizeof(m->seen));
	}
}

static void
see_what_is_possible(Model *m)
{
	check(m);
	forget(m);
	for (int i = 0; i < 2; i++)
	{
		m->tick[i] = (byte) (m->clock[0] < TICKS && (i == 0 || m->extra >= FAST - 1));
		m->send[i] = (byte) may_send(m, i);
		m->answer[i] = (byte) (m->server[i].waits > 0 &&
							   m->write[m->server[i].waits - 1].state > 1);
		m->look[i] = (byte) (m->up[i] && (m->server[i].waits > 0 ||
										  m->server[i].version < m->version));
		m->start[i] = (byte) (RESTART && !m->up[1] && m->version > 0);
	}
	for (int w = 0; w < WRITES; w++)
		m->arrive[w] = (byte) (m->write[w].state == 1);
	m->take = (byte) (m->read_version == 0 && m->version > m->seen_version);
	m->receive = (byte) (m->read_version > 0);
	m->finish = (byte) may_finish(m);
}
}

c_state "Model m" "Global"

byte told;						/* the property that the last step broke, or 0 */

/* In assertions: 1 if the property is not looked at; and Spin reports its name. */
hidden byte is_S = OFF(9);

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
	assert(is_S || told != 9); \
	told = 0; REACHED

#define SERVER(i) \
	:: atomic { c_expr { now.m.send[i] } -> DO(send_lease(&now.m, i, LONG)) } \
	:: atomic { c_expr { !RESTART && now.m.send[i] } -> DO(send_lease(&now.m, i, SHORT)) } \
	:: atomic { c_expr { now.m.answer[i] } -> DO(answer(&now.m, i)) } \
	:: atomic { c_expr { now.m.look[i] } -> DO(look(&now.m, i)) }

active proctype Everything()
{
	c_code {
		now.m.up[0] = 1;
		now.m.extra = FAST - 1;
		see_what_is_possible(&now.m);
	};
end:
	do
	SERVER(0)
	SERVER(1)
	:: atomic { c_expr { now.m.tick[0] } -> DO(tick(&now.m, 0)) }
	:: atomic { c_expr { now.m.tick[1] } -> DO(tick(&now.m, 1)) }
	:: atomic { c_expr { now.m.arrive[0] } -> DO(arrive(&now.m, 0)) }
	:: atomic { c_expr { now.m.arrive[1] } -> DO(arrive(&now.m, 1)) }
	:: atomic { c_expr { now.m.take } ->
		DO(now.m.read_version = now.m.version; now.m.read_value = now.m.value) }
	:: atomic { c_expr { now.m.receive } -> DO(receive(&now.m)) }
	:: atomic { c_expr { now.m.finish } -> DO(finish(&now.m)) }
	:: atomic { c_expr { now.m.start[0] } -> DO(start_second(&now.m, 0)) }
	:: atomic { c_expr { now.m.start[1] } -> DO(start_second(&now.m, 1)) }
	od
}
