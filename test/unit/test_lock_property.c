/*
 * test_lock_property.c
 *		Random steps on a lock, compared with a model that knows no bytes, no border and no age.
 *
 * The model is a list of requests in the order in which they came; each either holds with a fence
 * or waits.  After each step it grants by the rule as a user would say it: the first one, and all
 * shared ones that have no exclusive one before them.
 */
#include "unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/lock.h"

#define RUNS 3000
#define STEPS 60
#define MAX 10
#define NODES 3

typedef struct Person
{
	ConcordLockRequest r;
	int64_t		fence;			/* 0: waits */
} Person;

typedef struct Model
{
	Person		person[MAX];
	int			n;
	int64_t		version;
} Model;

static uint64_t state;

static uint32_t
below(uint32_t n)
{
	return (uint32_t) (unit_random(&state) % n);
}

static bool
shares(const Person *p)
{
	return p->r.mode == CONCORD_LOCK_SHARED;
}

/* Who may hold now?  They get the group's fence, or that of the version that comes next. */
static void
model_grant(Model *m)
{
	int64_t		fence = 0;
	bool		only_shared = true;

	for (int i = 0; i < m->n; i++)
		if (m->person[i].fence > 0)
			fence = m->person[i].fence;
	for (int i = 0; i < m->n; i++)
	{
		Person	   *p = &m->person[i];

		only_shared = only_shared && shares(p);
		if (p->fence == 0 && (only_shared || (i == 0 && fence == 0)))
			p->fence = fence > 0 ? fence : 2 * (m->version + 1) + (shares(p) ? 1 : 0);
		if (p->fence > 0 && fence == 0)
			fence = p->fence;
	}
}

static int
model_find(const Model *m, const ConcordLockRequest *r)
{
	for (int i = 0; i < m->n; i++)
		if (m->person[i].r.node == r->node && m->person[i].r.lease == r->lease &&
			m->person[i].r.serial == r->serial)
			return i;
	return -1;
}

static void
model_remove(Model *m, int i)
{
	m->n--;
	memmove(&m->person[i], &m->person[i + 1], sizeof(Person) * (size_t) (m->n - i));
}

static ConcordLockRequest
any_request(void)
{
	ConcordLockRequest r = {.node = 1 + (int) below(NODES), .lease = 1 + below(2),
		.serial = 1 + below(4), .pid = (int32_t) below(9), .since = below(9),
	.mode = below(2) == 0 ? CONCORD_LOCK_SHARED : CONCORD_LOCK_EXCLUSIVE};

	return r;
}

static void
step_request(Model *m, ConcordLockState *lock)
{
	ConcordLockRequest r = any_request();
	bool		may_wait = below(4) > 0;
	int			i = model_find(m, &r);
	ConcordLockResult expected;
	ConcordLockResult result = concord_lock_request(lock, &r, may_wait);

	if (i >= 0)
		expected = m->person[i].r.mode != r.mode ? CONCORD_LOCK_REFUSED :
			m->person[i].fence > 0 ? CONCORD_LOCK_HELD : CONCORD_LOCK_QUEUED;
	else
	{
		Model		before = *m;
		bool		full = m->n == MAX;

		if (!full)
		{
			m->person[m->n++] = (Person) {.r = r};
			model_grant(m);
		}
		expected = full ? (may_wait ? CONCORD_LOCK_FULL : CONCORD_LOCK_BUSY) :
			m->person[m->n - 1].fence > 0 ? CONCORD_LOCK_HELD : CONCORD_LOCK_QUEUED;
		if (expected == CONCORD_LOCK_QUEUED && !may_wait)
		{
			expected = CONCORD_LOCK_BUSY;
			*m = before;
		}
		/* a full lock of shared holders alone has room for none, but nobody is in the way */
		if (full && !may_wait && result == CONCORD_LOCK_FULL)
			expected = CONCORD_LOCK_FULL;
	}
	CHECK(result == expected, "%d, not %d", (int) result, (int) expected);
}

static void
step_release(Model *m, ConcordLockState *lock)
{
	ConcordLockRequest r = any_request();
	int			i = model_find(m, &r);

	CHECK(concord_lock_release(lock, &r, below(3) == 0) == (i >= 0));
	if (i >= 0)
	{
		model_remove(m, i);
		model_grant(m);
	}
}

static void
step_upgrade(Model *m, ConcordLockState *lock)
{
	ConcordLockRequest r = any_request();
	int			i = model_find(m, &r);
	int			holders = 0;
	bool		can;

	for (int k = 0; k < m->n; k++)
		holders += m->person[k].fence > 0;
	can = i >= 0 && m->person[i].fence > 0 && holders == 1;
	CHECK(concord_lock_upgrade(lock, &r) == (can ? CONCORD_LOCK_HELD : CONCORD_LOCK_REFUSED));
	if (can && shares(&m->person[i]))
	{
		m->person[i].r.mode = CONCORD_LOCK_EXCLUSIVE;
		m->person[i].fence = 2 * (m->version + 1);
	}
}

static void
step_drop(Model *m, ConcordLockState *lock)
{
	ConcordLeaseValue value = {.lease = 1 + below(3), .ended = below(2) == 0};
	int			node = 1 + (int) below(NODES);
	int			dropped = 0;

	for (int i = m->n - 1; i >= 0; i--)
		if (m->person[i].r.node == node &&
			m->person[i].r.lease < value.lease + (value.ended ? 1 : 0))
		{
			model_remove(m, i);
			dropped++;
		}
	model_grant(m);
	CHECK(concord_lock_drop(lock, node, &value) == dropped);
}

/* Is the lock as the model has it?  before: as it was written last */
static void
compare(const Model *m, const Model *before, const ConcordLockState *lock)
{
	int			holders = 0;

	CHECK(lock->n == m->n);
	for (int i = 0; i < m->n && i < lock->n; i++)
	{
		const Person *p = &m->person[i];
		int			was = model_find(before, &p->r);
		bool		fresh = p->fence > 0 && (was < 0 || before->person[was].fence == 0);

		holders += p->fence > 0;
		CHECK(lock->request[i].since == p->r.since && lock->request[i].node == p->r.node &&
			  lock->request[i].lease == p->r.lease &&
			  lock->request[i].serial == p->r.serial && lock->request[i].pid == p->r.pid &&
			  lock->request[i].mode == p->r.mode);
		CHECK((i < lock->nholders) == (p->fence > 0));
		/* who was a holder, has left and come again since the last writing may be fresh or not */
		CHECK(!lock->changed || lock->request[i].fresh == fresh || (was >= 0 && !fresh), "%d", i);
	}
	CHECK(lock->nholders == holders);
}

/* Written and read again, the version grows by one, or by more after a deletion. */
static void
store(Model *m, ConcordLockState *lock, ConcordLockRequest *requests)
{
	uint8_t		bytes[CONCORD_LOCK_SIZE(MAX)];
	size_t		len = concord_lock_encode(lock, bytes, sizeof(bytes));

	CHECK(len == CONCORD_LOCK_SIZE(lock->n));
	m->version++;
	concord_lock_written(lock, m->version);
	if (below(2) == 0)
		CHECK(concord_lock_decode(lock, requests, MAX, bytes, len, m->version));
	for (int i = 0; i < lock->nholders; i++)
		CHECK(concord_lock_fence(lock) == m->person[i].fence, "%" PRId64 ", not %" PRId64,
			  concord_lock_fence(lock), m->person[i].fence);
	CHECK(lock->nholders > 0 || concord_lock_fence(lock) == 0);
}

static void
lock_random_steps(void)
{
	const char *steps = getenv("CONCORD_STEPS");
	int			runs = steps != NULL ? atoi(steps) / STEPS + 1 : RUNS;

	printf("# %d random locks, CONCORD_SEED=%" PRIu64 "\n", runs, unit_seed());
	state = unit_seed();
	for (int run = 0; run < runs && !unit_failed(); run++)
	{
		ConcordLockRequest requests[MAX];
		ConcordLockState lock;
		Model		m = {.n = 0};
		Model		before;

		concord_lock_init(&lock, requests, MAX);
		before = m;
		for (int step = 0; step < STEPS && !unit_failed(); step++)
		{
			uint32_t	which = below(10);

			if (which < 5)
				step_request(&m, &lock);
			else if (which < 8)
				step_release(&m, &lock);
			else if (which < 9)
				step_upgrade(&m, &lock);
			else
				step_drop(&m, &lock);
			compare(&m, &before, &lock);
			/* several steps may be written at once */
			if (lock.changed && below(3) > 0)
			{
				store(&m, &lock, requests);
				before = m;
			}
		}
	}
}

void
test_lock_property(void)
{
	RUN(lock_random_steps);
}
