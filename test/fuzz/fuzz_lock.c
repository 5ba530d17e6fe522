/*
 * fuzz_lock.c
 *		libFuzzer harness for the values of a lock's and a lease's register.
 *
 * Each input is tried as a value, and as a list of steps whose value is then taken with one byte
 * changed, more or less, or cut off.  What is read is written again the same; it obeys L3; and
 * after any step on it so does the lock, and can be written and read again.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/lock.h"

#define ROOM 8					/* few, so that too many are easily reached */
#define SIZE CONCORD_LOCK_SIZE(ROOM)

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
fail(const char *what)
{
	fprintf(stderr, "%s\n", what);
	abort();
}

/* What is left of the input; zeros after its end */
typedef struct Rest
{
	const uint8_t *at;
	size_t		len;
} Rest;

static uint8_t
take(Rest *rest)
{
	if (rest->len == 0)
		return 0;
	rest->len--;
	return *rest->at++;
}

static int64_t
take_number(Rest *rest)
{
	uint64_t	value = 0;

	for (int i = take(rest) % 9; i > 0; i--)
		value = value << 8 | take(rest);
	return (int64_t) value;
}

static ConcordLockRequest
take_request(Rest *rest)
{
	ConcordLockRequest r = {.node = take(rest) % 4, .lease = take(rest) % 4,
	.serial = take(rest) % 8, .since = take_number(rest)};

	r.pid = (int32_t) r.since;
	r.mode = (ConcordLockMode) (take(rest) % 3);
	return r;
}

/* L3, said in another way than in core */
static void
check_state(const ConcordLockState *lock)
{
	int			exclusive = 0;

	if (lock->n < 0 || lock->n > ROOM || lock->nholders < 0 || lock->nholders > lock->n)
		fail("numbers of requests");
	if (lock->n > 0 && lock->nholders == 0)
		fail("a queue without holders");
	for (int i = 0; i < lock->nholders; i++)
		exclusive += lock->request[i].mode == CONCORD_LOCK_EXCLUSIVE;
	if (exclusive > 0 && lock->nholders > 1)
		fail("an exclusive holder and another one");
	if (exclusive == 0 && lock->nholders < lock->n &&
		lock->request[lock->nholders].mode == CONCORD_LOCK_SHARED)
		fail("a shared request waits for shared holders");
	if (!lock->changed && lock->nholders > 0 &&
		concord_fence_mode(concord_lock_fence(lock)) != concord_lock_mode(lock))
		fail("the mode of a fence");
}

/* Reads a copy of exactly len bytes, so that reading one more is caught. */
static bool
decode(ConcordLockState *lock, ConcordLockRequest *requests, const uint8_t *data, size_t len,
	   int64_t version)
{
	uint8_t    *exact = malloc(len + (len == 0));
	uint8_t		again[SIZE];
	bool		good;

	if (exact == NULL)
		abort();
	if (len > 0)
		memcpy(exact, data, len);
	good = concord_lock_decode(lock, requests, ROOM, exact, len, version);
	check_state(lock);
	if (good)
	{
		ConcordLockState before = *lock;

		before.version--;		/* as it was written */
		if (concord_lock_encode(&before, again, sizeof(again)) != len ||
			memcmp(again, exact, len) != 0)
			fail("not written the same again");
	}
	else if (lock->n > 0 || lock->granted != 0)
		fail("something is left of what was refused");
	free(exact);
	return good;
}

static void
step(ConcordLockState *lock, Rest *rest)
{
	ConcordLockRequest r = take_request(rest);
	ConcordLeaseValue value = {.lease = r.lease, .ended = r.pid % 2 == 0};

	switch (take(rest) % 6)
	{
		case 0:
			(void) concord_lock_release(lock, &r, r.pid % 2 == 0);
			break;
		case 1:
			(void) concord_lock_upgrade(lock, &r);
			break;
		case 2:
			(void) concord_lock_drop(lock, r.node, &value);
			break;
		default:
			(void) concord_lock_request(lock, &r, r.pid % 2 == 0);
	}
	check_state(lock);
}

/* Steps on what was read, written and read again now and then */
static void
check_steps(ConcordLockState *lock, Rest *rest)
{
	uint8_t		bytes[SIZE];
	ConcordLockRequest requests[ROOM];
	ConcordLockState read;

	while (rest->len > 0)
	{
		size_t		len;

		step(lock, rest);
		if (!lock->changed)
			continue;
		len = concord_lock_encode(lock, bytes, sizeof(bytes));
		if (len == 0 && lock->version < CONCORD_LOCK_VERSION_MAX)
			fail("cannot be written");
		if (len == 0)
			return;
		concord_lock_written(lock, lock->version + 1);
		if (!decode(&read, requests, bytes, len, lock->version))
			fail("cannot be read");
		if (concord_lock_fence(&read) != concord_lock_fence(lock) || read.n != lock->n)
			fail("is another one when it is read");
	}
}

/* Bytes next to a value */
static void
check_neighbour(const uint8_t *value, size_t len, int64_t version, Rest *rest)
{
	uint8_t		bytes[SIZE + 1];
	ConcordLockRequest requests[ROOM];
	ConcordLockState lock;
	size_t		place = take(rest) % len;

	memcpy(bytes, value, len);
	switch (take(rest) % 4)
	{
		case 0:
			len = place;
			break;
		case 1:
			bytes[len++] = take(rest);
			break;
		case 2:
			place %= CONCORD_LOCK_HEAD;
			/* FALLTHROUGH */
		default:
			bytes[place] = take(rest);
	}
	if (decode(&lock, requests, bytes, len, version))
		check_steps(&lock, rest);
}

static void
check_lease(const uint8_t *data, size_t len)
{
	ConcordLeaseValue value;
	ConcordLeaseWatch watch = {.version = 0};
	ConcordLease lease;
	uint8_t		again[CONCORD_LEASE_SIZE];
	uint8_t    *exact = malloc(len + (len == 0));

	if (exact == NULL)
		abort();
	if (len > 0)
		memcpy(exact, data, len);
	if (concord_lease_decode(&value, exact, len))
	{
		concord_lease_encode(&value, again);
		if (len != sizeof(again) || memcmp(again, exact, len) != 0)
			fail("a lease is not written the same again");
		concord_lease_init(&lease, 1);
		(void) concord_lease_found(&lease, &value, 1);
		if (concord_lease_left(&lease, value.lease, 0) > 0)
			fail("a lease that was only found is valid");
		concord_lease_watch_see(&watch, &value, 1, 0);
		if (concord_lease_watch_over(&watch, 0, value.duration_us - 1))
			fail("a lease is over too early");
		if (concord_lease_watch_over(&watch, CONCORD_DRIFT_MAX, INT64_MAX) == value.ended)
			fail("a lease is never over");
	}
	else if (value.lease != 0 || value.duration_us != 0 || value.ended)
		fail("something is left of a lease that was refused");
	free(exact);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Rest		rest = {data, size};
	uint8_t		bytes[SIZE];
	ConcordLockRequest requests[ROOM];
	ConcordLockState lock;
	size_t		len;
	int64_t		version;

	check_lease(data, size);
	if (decode(&lock, requests, data, size, 7))
		check_steps(&lock, &rest);

	rest = (Rest) {data, size};
	version = take_number(&rest);
	concord_lock_init(&lock, requests, ROOM);
	if (version > 0 && version < CONCORD_LOCK_VERSION_MAX)
		lock.version = version;
	for (int i = take(&rest) % ROOM; i >= 0; i--)
		step(&lock, &rest);
	len = concord_lock_encode(&lock, bytes, sizeof(bytes));
	if (len == 0)
		fail("cannot be written");
	concord_lock_written(&lock, lock.version + 1);
	check_neighbour(bytes, len, lock.version, &rest);
	if (decode(&lock, requests, bytes, len, lock.version))
		check_steps(&lock, &rest);
	else
		fail("cannot be read");
	return 0;
}
