/*
 * sessions.c
 *		Sessions that take locks, what the locks guard, and the checks.
 *
 * CHECKS
 * - Of two sessions that hold a lock and whose leases are valid by their clocks, at any moment,
 *	 both are shared and have one fence.
 * - Whoever finds himself a holder has a higher fence than anybody before, or that of his group.
 * - What a lock guards takes a use with a fence not lower than the last one; then no use of an
 *	 older group comes after one of a newer, and one exclusive fence is used by one session.
 * - The values of a lock, in the order of their versions: fences grow; who waits is overtaken by
 *	 nobody; who was released, or given up, never comes back.
 */
#include "locks.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void proceed(int process);

static uint64_t
who(const ConcordLockRequest *r)
{
	return (uint64_t) r->pid + 1;
}

/* ---------------------------------------------------------------- what the locks guard */

static void
use(int process)
{
	Process    *p = &l.process[process];
	Event		e = {.kind = EVENT_GUARDED, .reg = p->lock, .node = NODES - 1};

	e.m.guarded.fence = p->fence;
	e.m.guarded.order = p->order;
	e.m.guarded.who = who(&p->me);
	if (HOST_OF(process)->cut_until <= s.now || chance(50))
		transmit(&e);
}

void
take_guarded(const Event *e)
{
	const SimGuarded *g = &e->m.guarded;
	int			k = e->reg;

	if (g->fence < l.mark[k])
	{
		s.counts->stale++;
		return;
	}
	s.counts->accepted++;
	if (g->order < l.mark_order[k])
		wrong("a use by an older group of holders came after one of a newer");
	if (g->fence == l.mark[k] && concord_fence_mode(g->fence) == CONCORD_LOCK_EXCLUSIVE &&
		g->who != l.mark_who[k])
		wrong("an exclusive fence was used by two");
	l.mark[k] = g->fence;
	l.mark_order[k] = g->order;
	l.mark_who[k] = g->who;
}

/* ---------------------------------------------------------------- beliefs */

static bool
believes(int process)
{
	const Process *p = &l.process[process];
	const Host *host = HOST_OF(process);

	return p->believes && concord_lease_valid(&host->lease, p->me.lease, clock_of(host));
}

void
check_beliefs(void)
{
	int			holder[LOCKS];

	for (int k = 0; k < LOCKS; k++)
		holder[k] = -1;
	for (int i = 0; i < PROCESSES; i++)
	{
		const Process *p = &l.process[i];
		int			other;

		if (!p->believes || !believes(i))
			continue;
		other = holder[p->lock];
		if (other >= 0 && (concord_fence_mode(p->fence) == CONCORD_LOCK_EXCLUSIVE ||
						   p->fence != l.process[other].fence))
			wrong("two hold a lock, with valid leases");
		holder[p->lock] = i;
	}
}

static void
begin_to_believe(int process, int64_t fence)
{
	Process    *p = &l.process[process];
	int			k = p->lock;

	if (fence > l.top_fence[k])
	{
		l.top_fence[k] = fence;
		l.top_order[k]++;
	}
	else if (fence < l.top_fence[k] || concord_fence_mode(fence) != CONCORD_LOCK_SHARED)
		wrong("a fence has not grown");
	p->believes = true;
	p->fence = fence;
	p->order = l.top_order[k];
	trace("process %d holds lock %d with fence %" PRId64, process, k, fence);
}

/* ---------------------------------------------------------------- sessions */

static void
rest(int process)
{
	Process    *p = &l.process[process];

	p->stage = RESTING;
	p->believes = false;
	set_process_timer(process, chance(50) ? below(30) : below(200));
}

static bool
lease_is_kept(int process)
{
	const ConcordLease *lease = &HOST_OF(process)->lease;

	return lease->status == CONCORD_LEASE_KEPT && lease->lease == l.process[process].me.lease;
}

static void
read_lock(int process)
{
	operate(process, l.process[process].lock, CONCORD_READ, 0, NULL, 0);
}

static void
write_lock(int process)
{
	Process    *p = &l.process[process];
	const ConcordLockState *state = &p->known[p->lock].state;
	uint8_t		bytes[CONCORD_LOCK_SIZE(ROOM)];
	size_t		len = concord_lock_encode(state, bytes, sizeof(bytes));

	if (len == 0)
		abort();
	operate(process, p->lock, CONCORD_WRITE, state->version, bytes, len);
}

/* L10 */
static void
drop_dead(int process)
{
	Host	   *host = HOST_OF(process);
	Process    *p = &l.process[process];
	ConcordLockState *state = &p->known[p->lock].state;
	int			dropped = 0;

	for (int32_t node = 1; node <= HOSTS; node++)
	{
		ConcordLeaseValue value = host->watch[node].value;

#if BUG == 28					/* drops before the end of the lease is written */
		value.ended = value.ended ||
			concord_lease_watch_over(&host->watch[node], DRIFT_PPM, clock_of(host));
#endif
		dropped += concord_lock_drop(state, node, &value);
	}
	dropped += concord_lock_drop(state, host->node, &host->lease.value);
	s.counts->dropped += (uint64_t) dropped;
}

static void
forget_orphan(Host *host, const ConcordLockRequest *request)
{
	for (int i = 0; i < host->norphans; i++)
		if (host->orphan[i].request.pid == request->pid)
		{
			host->orphan[i] = host->orphan[--host->norphans];
			return;
		}
}

/* The request is not in the lock any more, and never will be. */
static void
released(int process)
{
	Process    *p = &l.process[process];
	Known	   *known = &p->known[p->lock];

	l.gone[p->me.pid] = known->version;
	trace("process %d: request %d is gone from lock %d at version %" PRId64, process, p->me.pid,
		  p->lock, known->version);
	if (process % PER_HOST == WATCHER)
		forget_orphan(HOST_OF(process), &p->me);
	else if (concord_lock_idle(&known->state) && chance(25))
	{
		p->stage = DELETING;	/* L6 */
		operate(process, p->lock, CONCORD_DELETE, known->state.version, NULL, 0);
		return;
	}
	rest(process);
}

static void
give_back(int process)
{
	Process    *p = &l.process[process];

	p->stage = RELEASING;
	p->believes = false;
	s.counts->unsure += p->unsure;
#if BUG == 27					/* what is not there is released */
	p->unsure = false;
#endif
	proceed(process);
}

/* It is known to be in the lock: held, or in the queue; or known not to be. */
static void
settle(int process, ConcordLockResult result)
{
	Process    *p = &l.process[process];
	const Host *host = HOST_OF(process);
	bool		valid = concord_lease_valid(&host->lease, p->me.lease, clock_of(host));

	switch (result)
	{
		case CONCORD_LOCK_HELD:
#if BUG == 26					/* the own lease is not looked at */
			if (!valid)
			{
				p->uses = 1;
				begin_to_believe(process, concord_lock_fence(&p->known[p->lock].state));
				p->stage = HOLDING;
				set_process_timer(process, 0);
				return;
			}
#endif
			if (!valid)			/* L11 */
			{
				s.counts->late++;
				give_back(process);
				return;
			}
			s.counts->held++;
			s.counts->waited += p->queued;
			s.counts->shared += p->me.mode == CONCORD_LOCK_SHARED;
			s.counts->upgraded += p->stage == UPGRADING;
			p->me.mode = p->known[p->lock].state.request[0].mode;
			begin_to_believe(process, concord_lock_fence(&p->known[p->lock].state));
			p->stage = HOLDING;
			p->uses = 1 + (int) below(3);
			set_process_timer(process, below(40));
			break;
		case CONCORD_LOCK_QUEUED:
			p->stage = WAITING;
			p->queued = true;
			set_process_timer(process, 100 + below(150));
			break;
		case CONCORD_LOCK_BUSY:
		case CONCORD_LOCK_FULL:
		case CONCORD_LOCK_REFUSED:
			give_back(process);
			break;
	}
}

#if BUG == 25
/* A shared request passes those that wait for shared holders. */
static void
overtake(Known *known, const ConcordLockRequest *me)
{
	ConcordLockState *state = &known->state;

	if (concord_lock_mode(state) != CONCORD_LOCK_SHARED || me->mode != CONCORD_LOCK_SHARED ||
		state->n == state->nholders || state->n == ROOM || concord_lock_find(state, me) >= 0)
		return;
	memmove(&state->request[state->nholders + 1], &state->request[state->nholders],
			sizeof(*me) * (size_t) (state->n - state->nholders));
	state->request[state->nholders++] = *me;
	state->n++;
	state->changed = true;
}
#endif

/* The step that its stage is about, on what is known: written, or read first, or done. */
static void
proceed(int process)
{
	Process    *p = &l.process[process];
	Known	   *known = &p->known[p->lock];
	ConcordLockResult result = CONCORD_LOCK_REFUSED;

	if (!lease_is_kept(process))
	{
		trace("process %d: its lease is lost, with request %d", process, p->me.pid);
		/* whoever waits behind it drops it; its session has nothing to lose any more */
		if (process % PER_HOST == WATCHER)
			forget_orphan(HOST_OF(process), &p->me);
		rest(process);
		return;
	}
	if (!known->current && known->state.changed)
	{
		read_lock(process);
		return;
	}
	if (p->stage == ASKING && !s.healed && s.now > p->deadline)
	{
		s.counts->given_up++;
		give_back(process);
		return;
	}
	drop_dead(process);
	if (p->stage == RELEASING)
		(void) concord_lock_release(&known->state, &p->me, p->unsure);
	else if (p->stage == UPGRADING)
		result = concord_lock_upgrade(&known->state, &p->me);
	else
	{
#if BUG == 25
		overtake(known, &p->me);
#endif
		result = concord_lock_request(&known->state, &p->me, p->may_wait);
	}

	if (known->state.changed)
	{
		trace("process %d, stage %d, writes lock %d at version %" PRId64 ": %d holders, %d in all, the"
			  " first is request %d; own %d", process, (int) p->stage, p->lock,
			  known->state.version,
			  known->state.nholders, known->state.n,
			  known->state.n > 0 ? known->state.request[0].pid : -1, p->me.pid);
		write_lock(process);
	}
	else if (!known->current)
		read_lock(process);
	else if (p->stage == RELEASING)
		released(process);
	else if (p->stage == UPGRADING && result == CONCORD_LOCK_REFUSED)
	{
		p->stage = HOLDING;
		set_process_timer(process, below(40));
	}
	else
		settle(process, result);
}

static void
wake_holders(int process, const Known *known)
{
	for (int i = 0; i < known->state.nholders; i++)
		if (known->state.request[i].fresh && known->state.request[i].since != process)
		{
			Event		e = {.kind = EVENT_WAKE, .node = NODES - 1};

			e.client = (int) known->state.request[i].since;
			transmit(&e);
		}
}

/* An operation on the lock is over. */
void
session_finished(int process)
{
	Process    *p = &l.process[process];
	Known	   *known = &p->known[p->lock];
	const ConcordValue *value = &p->p.value;
	bool		ok = p->p.result == CONCORD_RESULT_OK;

	if (p->stage == DELETING && ok)
	{
		p->stage = COLLECTING;
		operate(process, p->lock, CONCORD_COLLECT, 0, NULL, 0);
		return;
	}
	if (p->stage == DELETING || p->stage == COLLECTING)
	{
		s.counts->collected += p->stage == COLLECTING && ok;
		known->current = false;
		known->state.changed = true;
		rest(process);
		return;
	}

	known->current = ok || p->p.result == CONCORD_RESULT_MISMATCH;
	known->version = value->version;
	if (ok && p->p.op == CONCORD_WRITE)
	{
		concord_lock_written(&known->state, value->version);
		wake_holders(process, known);
		if (p->stage == RELEASING)
			p->unsure = false;
	}
	else if (known->current && value->kind == CONCORD_VALUE_SET)
	{
		if (!concord_lock_decode(&known->state, known->request, ROOM, value->data, value->len,
								 value->version))
			wrong("garbage in a lock");
	}
	else if (known->current)
		concord_lock_init(&known->state, known->request, ROOM);
	else
	{
		if (p->p.result == CONCORD_RESULT_UNKNOWN)
			p->unsure = true;
		known->state.changed = true;	/* what was changed is lost, or may be */
	}
	if (p->stage == WAITING)
		p->stage = ASKING;
	proceed(process);
}

static void
begin(int process)
{
	Process    *p = &l.process[process];
	Host	   *host = HOST_OF(process);
	ConcordLockRequest me = {.node = host->node, .lease = host->lease.lease};

	if (!concord_lease_valid(&host->lease, host->lease.lease, clock_of(host)) ||
		l.nrequests == REQUESTS)
	{
		set_process_timer(process, 20);
		return;
	}
	me.serial = ++host->serial;
	me.pid = l.nrequests++;
	me.since = process;
	me.mode = chance(40) ? CONCORD_LOCK_SHARED : CONCORD_LOCK_EXCLUSIVE;
	p->left--;
	p->me = me;
	p->lock = (int) below(chance(70) ? 1 : LOCKS);
	p->may_wait = s.healed || chance(80);
	p->unsure = p->queued = false;
	p->deadline = s.now + 50 + below(1500);
	p->stage = ASKING;
	p->known[p->lock].current = false;
	if (chance(30))
		p->known[p->lock].state.changed = true; /* reads first */
	proceed(process);
}

void
session_timer(int process)
{
	Process    *p = &l.process[process];
	const Host *host = HOST_OF(process);
	bool		valid = concord_lease_valid(&host->lease, p->me.lease, clock_of(host));

#if BUG == 26
	valid = true;
#endif
	switch (p->stage)
	{
		case RESTING:
			if (p->left > 0)
				begin(process);
			break;
		case HOLDING:
			if (!lease_is_kept(process))
			{
				rest(process);
				break;
			}
			if (!valid)
				p->uses = 0;	/* L11 */
			if (p->uses-- <= 0)
			{
				p->known[p->lock].current = false;
				give_back(process);
			}
			else if (p->me.mode == CONCORD_LOCK_SHARED && chance(25))
			{
				p->stage = UPGRADING;
				p->known[p->lock].current = false;
				proceed(process);
			}
			else
			{
				use(process);
				set_process_timer(process, chance(l.long_leases ? 30 : 70) ? below(60) :
								  below(l.long_leases ? 2500 : 400));
			}
			break;
		default:
			/* WAITING, or what was interrupted */
			if (p->stage == WAITING)
				p->stage = ASKING;
			p->known[p->lock].state.changed = true;
			p->known[p->lock].current = false;
			proceed(process);
	}
}

void
session_wake(int process)
{
	if (l.process[process].up && l.process[process].stage == WAITING && !l.process[process].busy)
		set_process_timer(process, 0);
}

/* L1: shared memory knows of its request; what it wrote last may be under way. */
void
session_crash(int process)
{
	Process    *p = &l.process[process];
	Host	   *host = HOST_OF(process);

	p->believes = false;
	if (p->stage < ASKING || p->stage > RELEASING || process % PER_HOST < SESSION ||
		!lease_is_kept(process))
		return;
	if (host->norphans == ORPHANS)
		abort();
	trace("process %d leaves request %d", process, p->me.pid);
	host->orphan[host->norphans].lock = p->lock;
	host->orphan[host->norphans++].request = p->me;
}

bool
session_adopts(int process, const Orphan *orphan)
{
	Process    *p = &l.process[process];

	p->lock = orphan->lock;
	p->me = orphan->request;
	p->unsure = true;
	p->known[p->lock].current = false;
	give_back(process);
	return true;
}

/* ---------------------------------------------------------------- the values of a lock */

void
see_chosen(int lock, const ConcordValue *value)
{
	if (value->kind != CONCORD_VALUE_SET || value->version >= VERSIONS)
		return;
	if (l.value[lock][value->version] != NULL && l.value[lock][value->version] != value->data)
		wrong("two values of one version");
	l.value[lock][value->version] = value->data;
	l.len[lock][value->version] = value->len;
}

static bool
is_before(const ConcordLockState *state, int i, int j)
{
	return i >= 0 && i < j && j < state->n;
}

/* From one value to a later one; others may have been in between. */
static void
check_step(const ConcordLockState *old, const ConcordLockState *new, int64_t top)
{
	int64_t		fence = concord_lock_fence(new);

	if (new->nholders > 0 && (fence < top || fence / 2 > new->version))
		wrong("the fence in a lock has gone back");
	if (fence > 0 && fence == concord_lock_fence(old) &&
		concord_fence_mode(fence) == CONCORD_LOCK_EXCLUSIVE &&
		concord_lock_find(old, &new->request[0]) != 0)
		wrong("two holders have had one exclusive fence");
	for (int a = new->nholders; a < new->n; a++)
	{
		int			was = concord_lock_find(old, &new->request[a]);

		if (was < 0)
			continue;
		if (was < old->nholders)
			wrong("a holder waits");
		for (int b = 0; b < a; b++)
			if (!is_before(old, concord_lock_find(old, &new->request[b]), was))
				wrong("a request was overtaken");
	}
}

void
check_history(void)
{
	for (int k = 0; k < LOCKS && s.wrong == NULL; k++)
	{
		Known		two[2];
		int			current = 0;
		int64_t		top = 0;

		concord_lock_init(&two[0].state, two[0].request, ROOM);
		for (int64_t v = 1; v < VERSIONS && s.wrong == NULL; v++)
		{
			const ConcordLockState *old = &two[current].state;
			ConcordLockState *new = &two[1 - current].state;

			if (l.value[k][v] == NULL)
				continue;
			(void) concord_lock_decode(new, two[1 - current].request, ROOM, l.value[k][v],
									   l.len[k][v], v);
			check_step(old, new, top);
			for (int i = 0; i < new->n; i++)
				if (l.gone[new->request[i].pid] > 0 && l.gone[new->request[i].pid] <= v)
				{
					trace("request %d is in lock %d at version %" PRId64, new->request[i].pid,
						  k, v);
					wrong("a request that was released came back");
				}
			if (new->nholders > 0)
				top = concord_lock_fence(new);
			if (s.wrong != NULL)
				trace("of lock %d, at version %" PRId64, k, v);
			current = 1 - current;
		}
	}
}
