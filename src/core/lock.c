/*
 * lock.c
 *		The steps of a lock and of a lease, and the bytes of both.
 *
 * See the header for what they promise and for the invariants that are cited here.  Numbers are
 * written with the highest byte first.  A step edits the array of requests in place: the gap that
 * one leaves is closed, and who becomes a holder stays where he is; the border to the queue moves.
 */
#include "core/lock.h"

#include <string.h>

#include "core/register.h"

#define GRANTED_NEXT (-1)		/* by the value to be written */

/* ---------------------------------------------------------------- bytes */

static uint8_t *
put(uint8_t *at, uint64_t value, int bytes)
{
	for (int i = bytes - 1; i >= 0; i--)
		*at++ = (uint8_t) (value >> 8 * i);
	return at;
}

static uint64_t
get(const uint8_t **at, int bytes)
{
	uint64_t	value = 0;

	while (bytes-- > 0)
		value = value << 8 | *(*at)++;
	return value;
}

/* ---------------------------------------------------------------- a lease's value */

#define LEASE_FORMAT 0x4c01		/* "L", 1 */
#define LOCK_FORMAT 0x4b01		/* "K", 1 */

static bool
lease_value_valid(const ConcordLeaseValue *v)
{
	return v->lease > 0 && v->keeper > 0 && v->beat > 0 && v->duration_us > 0 &&
		v->duration_us <= CONCORD_LEASE_DURATION_MAX;
}

void
concord_lease_encode(const ConcordLeaseValue *value, uint8_t *data)
{
	uint8_t    *at = put(data, LEASE_FORMAT, 2);

	at = put(at, value->lease, 8);
	at = put(at, value->keeper, 8);
	at = put(at, value->beat, 8);
	at = put(at, (uint64_t) value->duration_us, 8);
	(void) put(at, value->ended ? 1 : 0, 1);
}

bool
concord_lease_decode(ConcordLeaseValue *value, const void *data, size_t len)
{
	const uint8_t *at = data;
	uint64_t	ended;

	memset(value, 0, sizeof(*value));
	if (len != CONCORD_LEASE_SIZE || get(&at, 2) != LEASE_FORMAT)
		return false;
	value->lease = get(&at, 8);
	value->keeper = get(&at, 8);
	value->beat = get(&at, 8);
	value->duration_us = (int64_t) get(&at, 8);
	ended = get(&at, 1);
	value->ended = ended == 1;
	if (ended > 1 || !lease_value_valid(value))
	{
		memset(value, 0, sizeof(*value));
		return false;
	}
	return true;
}

ConcordLeaseVerdict
concord_lease_judge(const ConcordLeaseValue *value, uint64_t lease)
{
	if (value == NULL || value->lease < lease)
		return CONCORD_LEASE_UNSEEN;	/* L7 */
	return value->lease > lease || value->ended ? CONCORD_LEASE_OVER : CONCORD_LEASE_LIVE;
}

/* ---------------------------------------------------------------- the keeper */

void
concord_lease_init(ConcordLease *lease, uint64_t keeper)
{
	memset(lease, 0, sizeof(*lease));
	lease->keeper = keeper;
}

void
concord_lease_resume(ConcordLease *lease, uint64_t beats, uint64_t number, int64_t from_us,
					 int64_t until_us)
{
	lease->beats = beats;
	if (number == 0)
		return;
	lease->status = CONCORD_LEASE_KEPT;
	lease->lease = number;
	lease->from_us = from_us;
	lease->until_us = until_us;
}

static bool
same_attempt(const ConcordLeaseValue *a, const ConcordLeaseValue *b)
{
	return a->lease == b->lease && a->keeper == b->keeper && a->beat == b->beat;
}

/* The register does not say any more that the lease is this keeper's. */
static void
lose(ConcordLease *lease, ConcordLeaseStatus status)
{
	if (lease->lease > 0)
		lease->lost = lease->lease;
	lease->lease = 0;
	lease->from_us = lease->until_us = 0;
	lease->status = status;
}

/* It says so, by whichever attempt */
static void
keep(ConcordLease *lease, uint64_t number)
{
	if (lease->lease != number)
		lose(lease, CONCORD_LEASE_KEPT);
	lease->lease = number;
	lease->status = CONCORD_LEASE_KEPT;
}

void
concord_lease_chosen(ConcordLease *lease, int64_t version)
{
	if (lease->sent.beat == 0 || version <= lease->version)
		return;
	keep(lease, lease->sent.lease);
	lease->version = version;
	lease->value = lease->sent;
	lease->from_us = lease->sent_us;	/* L8; propose() has seen that this is no overflow */
	lease->until_us = lease->sent_us + lease->sent.duration_us;
	lease->sent.beat = 0;
}

ConcordLeaseStatus
concord_lease_found(ConcordLease *lease, const ConcordLeaseValue *value, int64_t version)
{
	if (value == NULL || version <= lease->version)
		return lease->status;
	if (lease->sent.beat > 0 && same_attempt(value, &lease->sent) && !value->ended)
	{
		concord_lease_chosen(lease, version);
		return lease->status;
	}
	lease->version = version;
	lease->value = *value;
	if (value->ended)
		lose(lease, CONCORD_LEASE_NONE);
	else if (value->keeper == lease->keeper)
		keep(lease, value->lease);	/* an earlier attempt, whose sending is forgotten: L8 */
	else
		lose(lease, CONCORD_LEASE_OTHERS);
	return lease->status;
}

bool
concord_lease_propose(ConcordLease *lease, int64_t now_us, int64_t duration_us, bool may_replace,
					  ConcordLeaseValue *value)
{
	ConcordLeaseValue next = {.lease = lease->lease, .keeper = lease->keeper,
	.beat = lease->beats + 1, .duration_us = duration_us};

	if (lease->status == CONCORD_LEASE_OTHERS && !may_replace)
		return false;			/* L9 */
	if (lease->status != CONCORD_LEASE_KEPT)
		next.lease = lease->value.lease + 1;	/* L7 */
	if (!lease_value_valid(&next) || now_us < 0 || now_us > INT64_MAX - duration_us)
		return false;
	lease->beats = next.beat;
	lease->sent = *value = next;
	lease->sent_us = now_us;
	if (lease->until_us > now_us + duration_us)
		lease->until_us = now_us + duration_us; /* L8 */
	return true;
}

int64_t
concord_lease_left(const ConcordLease *lease, uint64_t number, int64_t now_us)
{
	if (lease->status != CONCORD_LEASE_KEPT || number == 0 || number != lease->lease ||
		now_us < lease->from_us || now_us >= lease->until_us)
		return 0;
	return lease->until_us - now_us;
}

bool
concord_lease_valid(const ConcordLease *lease, uint64_t number, int64_t now_us)
{
	return concord_lease_left(lease, number, now_us) > 0;
}

/* ---------------------------------------------------------------- the observer */

void
concord_lease_watch_see(ConcordLeaseWatch *watch, const ConcordLeaseValue *value, int64_t version,
						int64_t now_us)
{
	if (version < watch->version || version <= 0)
		return;
	if (version > watch->version || now_us < watch->seen_us)
		watch->seen_us = now_us;
	watch->version = version;
	watch->value = *value;
}

/* For how long a version must be there.  Both factors are bounded: no overflow. */
static int64_t
patience(const ConcordLeaseWatch *watch, int64_t drift_ppm)
{
	int64_t		drift = drift_ppm < 0 ? 0 : drift_ppm > CONCORD_DRIFT_MAX ? CONCORD_DRIFT_MAX :
		drift_ppm;

	return watch->value.duration_us + (watch->value.duration_us * drift + 999999) / 1000000;
}

int64_t
concord_lease_watch_left(const ConcordLeaseWatch *watch, int64_t drift_ppm, int64_t now_us)
{
	int64_t		wait;

	if (watch->version == 0 || watch->value.ended)
		return -1;
	wait = patience(watch, drift_ppm);
	if (now_us < watch->seen_us)
		return wait;
	return now_us - watch->seen_us >= wait ? 0 : wait - (now_us - watch->seen_us);
}

bool
concord_lease_watch_over(ConcordLeaseWatch *watch, int64_t drift_ppm, int64_t now_us)
{
	if (now_us < watch->seen_us)
		watch->seen_us = now_us;
	return concord_lease_watch_left(watch, drift_ppm, now_us) == 0;
}

void
concord_lease_watch_end(const ConcordLeaseWatch *watch, ConcordLeaseValue *value)
{
	*value = watch->value;
	value->ended = true;
}

/* ---------------------------------------------------------------- a lock's value */

void
concord_lock_init(ConcordLockState *state, ConcordLockRequest *requests, int max)
{
	memset(state, 0, sizeof(*state));
	state->request = requests;
	state->max = max < CONCORD_LOCK_REQUESTS ? max : CONCORD_LOCK_REQUESTS;
}

static bool
request_valid(const ConcordLockRequest *r)
{
	return r->node > 0 && r->lease > 0 && r->serial > 0 &&
		(r->mode == CONCORD_LOCK_EXCLUSIVE || r->mode == CONCORD_LOCK_SHARED);
}

ConcordLockMode
concord_lock_mode(const ConcordLockState *state)
{
	return state->nholders > 0 ? state->request[0].mode : CONCORD_LOCK_FREE;
}

/* Could this one be a holder beside those that there are? */
static bool
joins(const ConcordLockState *state, const ConcordLockRequest *r)
{
	return state->nholders == 0 || (concord_lock_mode(state) == CONCORD_LOCK_SHARED &&
									r->mode == CONCORD_LOCK_SHARED);
}

/* L3 */
static bool
well_formed(const ConcordLockState *state)
{
	for (int i = 0; i < state->n; i++)
		if (!request_valid(&state->request[i]))
			return false;
	for (int i = 1; i < state->nholders; i++)
		if (state->request[0].mode != CONCORD_LOCK_SHARED ||
			state->request[i].mode != CONCORD_LOCK_SHARED)
			return false;
	return state->n == state->nholders || !joins(state, &state->request[state->nholders]);
}

static void
decode_request(ConcordLockRequest *r, const uint8_t **at)
{
	memset(r, 0, sizeof(*r));
	r->node = (int32_t) get(at, 4);
	r->lease = get(at, 8);
	r->serial = get(at, 8);
	r->pid = (int32_t) get(at, 4);
	r->since = (int64_t) get(at, 8);
	r->mode = (ConcordLockMode) get(at, 1);
}

bool
concord_lock_decode(ConcordLockState *state, ConcordLockRequest *requests, int max,
					const void *data, size_t len, int64_t version)
{
	const uint8_t *at = data;
	uint64_t	age;
	uint64_t	nholders;
	uint64_t	n;

	concord_lock_init(state, requests, max);
	state->version = version;
	if (version <= 0 || version > CONCORD_LOCK_VERSION_MAX || len < CONCORD_LOCK_HEAD ||
		get(&at, 2) != LOCK_FORMAT)
		return false;
	age = get(&at, 8);
	nholders = get(&at, 4);
	n = get(&at, 4);
	if (n > (uint64_t) state->max || nholders > n || len != CONCORD_LOCK_SIZE(n) ||
		age >= (uint64_t) version || (n == 0 && age > 0))
		return false;
	for (uint64_t i = 0; i < n; i++)
		decode_request(&requests[i], &at);
	state->n = (int) n;
	state->nholders = (int) nholders;
	if (!well_formed(state))
	{
		state->n = state->nholders = 0;
		return false;
	}
	state->granted = n > 0 ? version - (int64_t) age : 0;
	return true;
}

size_t
concord_lock_encode(const ConcordLockState *state, void *data, size_t size)
{
	size_t		len = CONCORD_LOCK_SIZE(state->n);
	uint64_t	age = 0;
	uint8_t    *at = data;

	if (len > size || len > CONCORD_VALUE_MAX || state->version >= CONCORD_LOCK_VERSION_MAX)
		return 0;
	if (state->granted > 0)
		age = (uint64_t) (state->version + 1 - state->granted); /* L5 */
	at = put(at, LOCK_FORMAT, 2);
	at = put(at, age, 8);
	at = put(at, (uint64_t) state->nholders, 4);
	at = put(at, (uint64_t) state->n, 4);
	for (int i = 0; i < state->n; i++)
	{
		const ConcordLockRequest *r = &state->request[i];

		at = put(at, (uint32_t) r->node, 4);
		at = put(at, r->lease, 8);
		at = put(at, r->serial, 8);
		at = put(at, (uint32_t) r->pid, 4);
		at = put(at, (uint64_t) r->since, 8);
		at = put(at, (uint64_t) r->mode, 1);
	}
	return len;
}

void
concord_lock_written(ConcordLockState *state, int64_t version)
{
	state->version = version;
	if (state->granted == GRANTED_NEXT)
		state->granted = version;
	state->changed = false;
}

int64_t
concord_lock_fence(const ConcordLockState *state)
{
	if (state->granted <= 0 || state->granted > CONCORD_LOCK_VERSION_MAX)
		return 0;
	return 2 * state->granted + (concord_lock_mode(state) == CONCORD_LOCK_SHARED ? 1 : 0);
}

ConcordLockMode
concord_fence_mode(int64_t fence)
{
	if (fence < 2)
		return CONCORD_LOCK_FREE;
	return fence % 2 == 0 ? CONCORD_LOCK_EXCLUSIVE : CONCORD_LOCK_SHARED;
}

/* ---------------------------------------------------------------- steps */

static bool
same_request(const ConcordLockRequest *a, const ConcordLockRequest *b)
{
	return a->node == b->node && a->lease == b->lease && a->serial == b->serial;
}

int
concord_lock_find(const ConcordLockState *state, const ConcordLockRequest *me)
{
	for (int i = 0; i < state->n; i++)
		if (same_request(&state->request[i], me))
			return i;
	return -1;
}

/* The first change after what was read or written */
static void
touch(ConcordLockState *state)
{
	for (int i = 0; !state->changed && i < state->n; i++)
		state->request[i].fresh = false;
	state->changed = true;
}

/* Makes holders of those at the head of the queue who can be (L3, L4). */
static void
grant(ConcordLockState *state)
{
	if (state->nholders == 0)
		state->granted = state->n > 0 ? GRANTED_NEXT : 0;	/* L5 */
	while (state->nholders < state->n && joins(state, &state->request[state->nholders]))
		state->request[state->nholders++].fresh = true;
}

static void
take_out(ConcordLockState *state, int i)
{
	state->n--;
	if (i < state->nholders)
		state->nholders--;
	memmove(&state->request[i], &state->request[i + 1],
			sizeof(state->request[0]) * (size_t) (state->n - i));
}

static ConcordLockResult
place(const ConcordLockState *state, int i)
{
	return i < state->nholders ? CONCORD_LOCK_HELD : CONCORD_LOCK_QUEUED;
}

ConcordLockResult
concord_lock_request(ConcordLockState *state, const ConcordLockRequest *me, bool may_wait)
{
	int			i = concord_lock_find(state, me);

	if (!request_valid(me))
		return CONCORD_LOCK_REFUSED;
	if (i >= 0)
		return state->request[i].mode == me->mode ? place(state, i) : CONCORD_LOCK_REFUSED;
	if (!may_wait && (state->nholders < state->n || !joins(state, me))) /* L4 */
		return CONCORD_LOCK_BUSY;
	if (state->n >= state->max || CONCORD_LOCK_SIZE(state->n + 1) > CONCORD_VALUE_MAX)
		return CONCORD_LOCK_FULL;
	touch(state);
	i = state->n++;
	state->request[i] = *me;
	state->request[i].fresh = false;
	grant(state);
	return place(state, i);
}

bool
concord_lock_release(ConcordLockState *state, const ConcordLockRequest *me, bool unsure)
{
	int			i = concord_lock_find(state, me);

	if (i >= 0 || unsure)
		touch(state);
	if (i < 0)
		return false;
	take_out(state, i);
	grant(state);
	return true;
}

ConcordLockResult
concord_lock_upgrade(ConcordLockState *state, const ConcordLockRequest *me)
{
	int			i = concord_lock_find(state, me);

	if (i < 0 || i >= state->nholders || state->nholders > 1)
		return CONCORD_LOCK_REFUSED;
	if (state->request[i].mode == CONCORD_LOCK_SHARED)
	{
		touch(state);
		state->request[i].mode = CONCORD_LOCK_EXCLUSIVE;
		state->granted = GRANTED_NEXT;	/* L5 */
	}
	return CONCORD_LOCK_HELD;
}

int
concord_lock_drop(ConcordLockState *state, int32_t node, const ConcordLeaseValue *value)
{
	int			dropped = 0;

	for (int i = state->n - 1; i >= 0; i--)
		if (state->request[i].node == node &&
			concord_lease_judge(value, state->request[i].lease) == CONCORD_LEASE_OVER)	/* L10 */
		{
			touch(state);
			take_out(state, i);
			dropped++;
		}
	if (dropped > 0)
		grant(state);
	return dropped;
}

bool
concord_lock_idle(const ConcordLockState *state)
{
	return state->n == 0 && state->version > 0 && !state->changed;
}
