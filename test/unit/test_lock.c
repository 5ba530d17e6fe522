/*
 * test_lock.c
 *		Lease locks: each step of a lock, its value's bytes, and each rule of a lease.
 *
 * Random steps are compared with a simple model in test_lock_property.c; whole clusters of nodes,
 * clocks and faults are left to test/sim, the lease rule alone to test/model.
 */
#include "unit.h"

#include <string.h>

#include "core/lock.h"

#define X CONCORD_LOCK_EXCLUSIVE
#define S CONCORD_LOCK_SHARED
#define MAX 8

typedef struct Lock
{
	ConcordLockState state;
	ConcordLockRequest requests[MAX];
} Lock;

static ConcordLockRequest
request(int node, uint64_t serial, ConcordLockMode mode)
{
	ConcordLockRequest r = {.node = node, .lease = 1, .serial = serial, .pid = 100 + node,
	.since = -5, .mode = mode};

	return r;
}

static void
set_up(Lock *lock)
{
	concord_lock_init(&lock->state, lock->requests, MAX);
}

/* Writes the value and reads it back, as a register would; returns the fence. */
static int64_t
store(Lock *lock)
{
	uint8_t		bytes[CONCORD_LOCK_SIZE(MAX)];
	int64_t		version = lock->state.version + 1;
	int64_t		fence;
	size_t		len = concord_lock_encode(&lock->state, bytes, sizeof(bytes));
	Lock		read;

	CHECK(lock->state.changed && len == CONCORD_LOCK_SIZE(lock->state.n));
	concord_lock_written(&lock->state, version);
	fence = concord_lock_fence(&lock->state);
	CHECK(concord_lock_decode(&read.state, read.requests, MAX, bytes, len, version));
	CHECK(concord_lock_fence(&read.state) == fence && read.state.version == version);
	CHECK(read.state.n == lock->state.n && read.state.nholders == lock->state.nholders);
	CHECK(!read.state.changed && !lock->state.changed);
	return fence;
}

/* Asks for a lock that may be waited for. */
static ConcordLockResult
ask(Lock *lock, int node, uint64_t serial, ConcordLockMode mode)
{
	ConcordLockRequest me = request(node, serial, mode);

	return concord_lock_request(&lock->state, &me, true);
}

static bool
leave(Lock *lock, int node, uint64_t serial)
{
	ConcordLockRequest me = request(node, serial, X);

	return concord_lock_release(&lock->state, &me, false);
}

/* Is this request a holder, fresh or not? */
static bool
holds(const Lock *lock, int node, uint64_t serial, bool fresh)
{
	ConcordLockRequest me = request(node, serial, X);
	int			i = concord_lock_find(&lock->state, &me);

	return i >= 0 && i < lock->state.nholders && lock->state.request[i].fresh == fresh;
}

/* ---------------------------------------------------------------- locks */

static void
lock_exclusive(void)
{
	Lock		lock;
	ConcordLockRequest me = request(1, 1, X);
	ConcordLockRequest other = request(2, 1, X);

	set_up(&lock);
	CHECK(concord_lock_mode(&lock.state) == CONCORD_LOCK_FREE);
	CHECK(concord_lock_fence(&lock.state) == 0 && !concord_lock_idle(&lock.state));
	CHECK(concord_lock_request(&lock.state, &me, false) == CONCORD_LOCK_HELD);
	CHECK(lock.state.changed && concord_lock_fence(&lock.state) == 0);
	CHECK(store(&lock) == 2 && concord_lock_mode(&lock.state) == X && holds(&lock, 1, 1, true));

	/* repeated: nothing to write */
	CHECK(concord_lock_request(&lock.state, &me, false) == CONCORD_LOCK_HELD);
	CHECK(!lock.state.changed && concord_lock_fence(&lock.state) == 2);
	me.mode = S;
	CHECK(concord_lock_request(&lock.state, &me, true) == CONCORD_LOCK_REFUSED);

	CHECK(concord_lock_request(&lock.state, &other, false) == CONCORD_LOCK_BUSY);
	CHECK(!lock.state.changed && lock.state.n == 1);
	CHECK(concord_lock_request(&lock.state, &other, true) == CONCORD_LOCK_QUEUED);
	CHECK(store(&lock) == 2 && holds(&lock, 1, 1, false));
	CHECK(concord_lock_request(&lock.state, &other, true) == CONCORD_LOCK_QUEUED);
	CHECK(concord_lock_request(&lock.state, &other, false) == CONCORD_LOCK_QUEUED);
	CHECK(!lock.state.changed && lock.state.n == 2);

	/* handed over: a new fence, at version 3 */
	CHECK(concord_lock_release(&lock.state, &me, false));
	CHECK(store(&lock) == 6 && holds(&lock, 2, 1, true));
	CHECK(!concord_lock_release(&lock.state, &me, false) && !lock.state.changed);
	CHECK(concord_lock_release(&lock.state, &other, false));
	CHECK(!concord_lock_idle(&lock.state));
	CHECK(store(&lock) == 0 && concord_lock_idle(&lock.state));
	CHECK(lock.state.n == 0 && lock.state.version == 4);
}

static void
lock_shared(void)
{
	Lock		lock;

	set_up(&lock);
	CHECK(ask(&lock, 1, 1, S) == CONCORD_LOCK_HELD && store(&lock) == 3);
	CHECK(ask(&lock, 2, 1, S) == CONCORD_LOCK_HELD && store(&lock) == 3);	/* L5: joins */
	CHECK(holds(&lock, 2, 1, true) && holds(&lock, 1, 1, false));
	CHECK(ask(&lock, 3, 1, X) == CONCORD_LOCK_QUEUED && store(&lock) == 3);

	/* L4: not past the exclusive one, whoever asks */
	CHECK(ask(&lock, 4, 1, S) == CONCORD_LOCK_QUEUED && store(&lock) == 3);
	CHECK(ask(&lock, 5, 1, S) == CONCORD_LOCK_QUEUED && ask(&lock, 5, 2, X) == CONCORD_LOCK_QUEUED);
	CHECK(ask(&lock, 6, 1, S) == CONCORD_LOCK_QUEUED && store(&lock) == 3);

	CHECK(leave(&lock, 1, 1) && store(&lock) == 3 && !holds(&lock, 3, 1, true));
	CHECK(leave(&lock, 2, 1) && store(&lock) == 2 * 7);
	CHECK(holds(&lock, 3, 1, true) && lock.state.nholders == 1);

	/* those side by side together, up to the next exclusive one */
	CHECK(leave(&lock, 3, 1) && store(&lock) == 2 * 8 + 1);
	CHECK(holds(&lock, 4, 1, true) && holds(&lock, 5, 1, true) && lock.state.nholders == 2);
	CHECK(ask(&lock, 7, 1, S) == CONCORD_LOCK_QUEUED && store(&lock) == 17);

	/* who waits gives up: those behind it join the holders, in their group */
	CHECK(leave(&lock, 5, 2) && store(&lock) == 17);
	CHECK(holds(&lock, 6, 1, true) && holds(&lock, 7, 1, true) && holds(&lock, 4, 1, false));
	CHECK(lock.state.nholders == 4 && lock.state.n == 4);
}

static void
lock_upgrade(void)
{
	Lock		lock;
	ConcordLockRequest me = request(1, 1, S);

	set_up(&lock);
	CHECK(concord_lock_upgrade(&lock.state, &me) == CONCORD_LOCK_REFUSED);
	CHECK(ask(&lock, 1, 1, S) == CONCORD_LOCK_HELD && ask(&lock, 2, 1, S) == CONCORD_LOCK_HELD);
	CHECK(ask(&lock, 3, 1, X) == CONCORD_LOCK_QUEUED && store(&lock) == 3);
	CHECK(concord_lock_upgrade(&lock.state, &me) == CONCORD_LOCK_REFUSED && !lock.state.changed);
	CHECK(leave(&lock, 2, 1) && store(&lock) == 3);
	CHECK(concord_lock_upgrade(&lock.state, &me) == CONCORD_LOCK_HELD && lock.state.changed);
	CHECK(store(&lock) == 2 * 3 && concord_lock_mode(&lock.state) == X && lock.state.n == 2);
	CHECK(concord_lock_upgrade(&lock.state, &me) == CONCORD_LOCK_HELD && !lock.state.changed);
	me = request(3, 1, X);
	CHECK(concord_lock_upgrade(&lock.state, &me) == CONCORD_LOCK_REFUSED);	/* waits */
}

static void
lock_drop(void)
{
	Lock		lock;
	ConcordLeaseValue value = {.lease = 1, .keeper = 9, .beat = 4, .duration_us = 10};
	ConcordLockRequest later = request(1, 7, S);

	set_up(&lock);
	later.lease = 2;
	CHECK(ask(&lock, 1, 1, X) == CONCORD_LOCK_HELD && ask(&lock, 2, 1, X) == CONCORD_LOCK_QUEUED);
	CHECK(ask(&lock, 1, 2, S) == CONCORD_LOCK_QUEUED);
	CHECK(concord_lock_request(&lock.state, &later, true) == CONCORD_LOCK_QUEUED);
	CHECK(ask(&lock, 3, 1, S) == CONCORD_LOCK_QUEUED && store(&lock) == 2);

	CHECK(concord_lock_drop(&lock.state, 1, NULL) == 0 && !lock.state.changed);
	CHECK(concord_lock_drop(&lock.state, 1, &value) == 0 && !lock.state.changed);
	value.ended = true;
	CHECK(concord_lock_drop(&lock.state, 2, &value) == 1);
	CHECK(concord_lock_drop(&lock.state, 4, &value) == 0);
	CHECK(store(&lock) == 2 && lock.state.n == 4);
	CHECK(concord_lock_drop(&lock.state, 1, &value) == 2);	/* a holder and one in the queue */
	CHECK(store(&lock) == 2 * 3 + 1 && lock.state.n == 2 && lock.state.nholders == 2);
	CHECK(concord_lock_drop(&lock.state, 1, &value) == 0 && !lock.state.changed);
	value.lease = 3;
	value.ended = false;
	CHECK(concord_lock_drop(&lock.state, 1, &value) == 1 && store(&lock) == 7);
	CHECK(holds(&lock, 3, 1, false));
}

/* What may come later is kept from it. */
static void
lock_unsure(void)
{
	Lock		lock;
	ConcordLockRequest me = request(1, 1, X);

	set_up(&lock);
	CHECK(!concord_lock_release(&lock.state, &me, true) && lock.state.changed);
	CHECK(store(&lock) == 0 && concord_lock_idle(&lock.state));
	CHECK(ask(&lock, 2, 1, X) == CONCORD_LOCK_HELD && store(&lock) == 4);
	CHECK(!concord_lock_release(&lock.state, &me, true) && lock.state.changed);
	CHECK(store(&lock) == 4 && holds(&lock, 2, 1, false));
}

static void
lock_limits(void)
{
	Lock		lock;
	ConcordLockRequest me = request(1, 1, X);
	ConcordLockRequest bad;
	uint8_t		bytes[CONCORD_LOCK_SIZE(MAX)];

	set_up(&lock);
	for (int field = 0; field < 5; field++)
	{
		bad = me;
		if (field == 0)
			bad.node = 0;
		else if (field == 1)
			bad.node = -1;
		else if (field == 2)
			bad.lease = 0;
		else if (field == 3)
			bad.serial = 0;
		else
			bad.mode = CONCORD_LOCK_FREE;
		CHECK(concord_lock_request(&lock.state, &bad, true) == CONCORD_LOCK_REFUSED);
	}
	for (uint64_t i = 1; i <= MAX; i++)
		CHECK(ask(&lock, 1, i, X) == (i == 1 ? CONCORD_LOCK_HELD : CONCORD_LOCK_QUEUED));
	CHECK(ask(&lock, 1, MAX + 1, X) == CONCORD_LOCK_FULL && lock.state.n == MAX);
	CHECK(ask(&lock, 1, MAX, X) == CONCORD_LOCK_QUEUED);
	CHECK(concord_lock_encode(&lock.state, bytes, sizeof(bytes) - 1) == 0);
	CHECK(concord_lock_encode(&lock.state, bytes, sizeof(bytes)) == sizeof(bytes));
	CHECK(!concord_lock_decode(&lock.state, lock.requests, MAX - 1, bytes, sizeof(bytes), 1));
	CHECK(lock.state.n == 0 && lock.state.nholders == 0 && lock.state.version == 1);

	/* the highest version's fence is a bigint, and there is none after it */
	set_up(&lock);
	CHECK(ask(&lock, 1, 1, S) == CONCORD_LOCK_HELD);
	lock.state.version = CONCORD_LOCK_VERSION_MAX - 1;
	CHECK(store(&lock) == INT64_MAX);
	CHECK(leave(&lock, 1, 1) && concord_lock_encode(&lock.state, bytes, sizeof(bytes)) == 0);

	CHECK(concord_fence_mode(2) == X && concord_fence_mode(3) == S);
	CHECK(concord_fence_mode(1) == CONCORD_LOCK_FREE);
	CHECK(concord_fence_mode(-4) == CONCORD_LOCK_FREE);
	CHECK(CONCORD_LOCK_SIZE(CONCORD_LOCK_REQUESTS) < 1024 * 1024);
}

/* After a deletion nobody knows the next version beforehand: the value does not tell it. */
static void
lock_deleted(void)
{
	Lock		lock;
	Lock		read;
	uint8_t		bytes[CONCORD_LOCK_SIZE(MAX)];
	size_t		len;

	set_up(&lock);
	CHECK(ask(&lock, 1, 1, X) == CONCORD_LOCK_HELD);
	len = concord_lock_encode(&lock.state, bytes, sizeof(bytes));
	concord_lock_written(&lock.state, 77);
	CHECK(concord_lock_fence(&lock.state) == 154);
	CHECK(concord_lock_decode(&read.state, read.requests, MAX, bytes, len, 77));
	CHECK(concord_lock_fence(&read.state) == 154);
	CHECK(ask(&read, 2, 1, X) == CONCORD_LOCK_QUEUED && store(&read) == 154);
	CHECK(ask(&read, 2, 2, X) == CONCORD_LOCK_QUEUED && store(&read) == 154);
	CHECK(leave(&read, 1, 1) && store(&read) == 160);
}

/* Each byte of a value, changed in each bit: still a lock, written the same again, or refused. */
static void
lock_garbage(void)
{
	Lock		lock;
	Lock		read;
	uint8_t		bytes[CONCORD_LOCK_SIZE(MAX)];
	uint8_t		again[CONCORD_LOCK_SIZE(MAX)];
	size_t		len;

	set_up(&lock);
	CHECK(ask(&lock, 1, 1, S) == CONCORD_LOCK_HELD && ask(&lock, 2, 1, S) == CONCORD_LOCK_HELD);
	CHECK(ask(&lock, 3, 1, X) == CONCORD_LOCK_QUEUED && ask(&lock, 4, 1, S) == CONCORD_LOCK_QUEUED);
	len = concord_lock_encode(&lock.state, bytes, sizeof(bytes));
	for (size_t short_len = 0; short_len < len; short_len++)
		CHECK(!concord_lock_decode(&read.state, read.requests, MAX, bytes, short_len, 5));
	CHECK(!concord_lock_decode(&read.state, read.requests, MAX, bytes, len, 0));
	CHECK(!concord_lock_decode(&read.state, read.requests, MAX, bytes, len, -1));
	CHECK(!concord_lock_decode(&read.state, read.requests, MAX, bytes, len, INT64_MAX));
	for (size_t bit = 0; bit < 8 * len; bit++)
	{
		bytes[bit / 8] ^= (uint8_t) (1U << bit % 8);
		if (concord_lock_decode(&read.state, read.requests, MAX, bytes, len, 5))
		{
			read.state.version--;	/* as if it was written there */
			CHECK(concord_lock_encode(&read.state, again, sizeof(again)) == len &&
				  memcmp(again, bytes, len) == 0, "bit %zu", bit);
		}
		else
			CHECK(read.state.n == 0 && read.state.nholders == 0);
		bytes[bit / 8] ^= (uint8_t) (1U << bit % 8);
	}
}

/* ---------------------------------------------------------------- leases */

static void
lease_bytes(void)
{
	ConcordLeaseValue value = {.lease = 3, .keeper = UINT64_MAX, .beat = 1,
	.duration_us = 10000000};
	ConcordLeaseValue read;
	uint8_t		bytes[CONCORD_LEASE_SIZE + 1];
	uint8_t		again[CONCORD_LEASE_SIZE];

	for (int ended = 0; ended < 2; ended++)
	{
		value.ended = ended == 1;
		concord_lease_encode(&value, bytes);
		CHECK(concord_lease_decode(&read, bytes, CONCORD_LEASE_SIZE) && read.lease == 3 &&
			  read.keeper == UINT64_MAX && read.beat == 1 && read.duration_us == 10000000 &&
			  read.ended == value.ended);
	}
	for (size_t len = 0; len < CONCORD_LEASE_SIZE; len++)
		CHECK(!concord_lease_decode(&read, bytes, len));
	CHECK(!concord_lease_decode(&read, bytes, sizeof(bytes)));
	for (size_t bit = 0; bit < 8 * CONCORD_LEASE_SIZE; bit++)
	{
		bytes[bit / 8] ^= (uint8_t) (1U << bit % 8);
		if (concord_lease_decode(&read, bytes, CONCORD_LEASE_SIZE))
		{
			concord_lease_encode(&read, again);
			CHECK(memcmp(again, bytes, sizeof(again)) == 0);
			CHECK(read.duration_us > 0 && read.duration_us <= CONCORD_LEASE_DURATION_MAX);
		}
		else
			CHECK(read.lease == 0 && !read.ended);
		bytes[bit / 8] ^= (uint8_t) (1U << bit % 8);
	}
}

static void
lease_judged(void)
{
	ConcordLeaseValue value = {.lease = 5};

	CHECK(concord_lease_judge(NULL, 5) == CONCORD_LEASE_UNSEEN);
	CHECK(concord_lease_judge(&value, 6) == CONCORD_LEASE_UNSEEN);
	CHECK(concord_lease_judge(&value, 5) == CONCORD_LEASE_LIVE);
	CHECK(concord_lease_judge(&value, 4) == CONCORD_LEASE_OVER);
	value.ended = true;
	CHECK(concord_lease_judge(&value, 6) == CONCORD_LEASE_UNSEEN);
	CHECK(concord_lease_judge(&value, 5) == CONCORD_LEASE_OVER);
}

/* A keeper whose first lease was chosen at version 1, sent at 1000 for 100 us */
static void
begin(ConcordLease *lease)
{
	ConcordLeaseValue value;

	concord_lease_init(lease, 7);
	CHECK(concord_lease_found(lease, NULL, 0) == CONCORD_LEASE_NONE);
	CHECK(concord_lease_propose(lease, 1000, 100, false, &value));
	CHECK(value.lease == 1 && value.keeper == 7 && value.beat == 1 && value.duration_us == 100 &&
		  !value.ended);
	CHECK(lease->version == 0 && !concord_lease_valid(lease, 1, 1001));
	concord_lease_chosen(lease, 1);
	CHECK(lease->status == CONCORD_LEASE_KEPT && lease->lease == 1 && lease->version == 1);
}

static void
lease_kept(void)
{
	ConcordLease lease;
	ConcordLeaseValue value;

	begin(&lease);
	CHECK(concord_lease_valid(&lease, 1, 1000) && concord_lease_valid(&lease, 1, 1099));
	CHECK(!concord_lease_valid(&lease, 1, 1100) && !concord_lease_valid(&lease, 2, 1000));
	CHECK(!concord_lease_valid(&lease, 0, 1000));
	CHECK(!concord_lease_valid(&lease, 1, 999));	/* the clock went back */
	CHECK(concord_lease_left(&lease, 1, 1040) == 60 && concord_lease_left(&lease, 1, 1200) == 0);

	/* L8: unknown extends nothing; from sending, not from the answer */
	CHECK(concord_lease_propose(&lease, 1050, 100, false, &value) && value.beat == 2);
	CHECK(!concord_lease_valid(&lease, 1, 1100));
	CHECK(concord_lease_propose(&lease, 1060, 100, false, &value) && value.beat == 3);
	concord_lease_chosen(&lease, 2);
	CHECK(concord_lease_valid(&lease, 1, 1159) && !concord_lease_valid(&lease, 1, 1160));
	concord_lease_chosen(&lease, 3);	/* nothing is under way */
	CHECK(lease.version == 2 && !concord_lease_valid(&lease, 1, 1160));

	/* a lapse is no loss */
	CHECK(concord_lease_propose(&lease, 2000, 100, false, &value) && value.lease == 1);
	concord_lease_chosen(&lease, 3);
	CHECK(concord_lease_valid(&lease, 1, 2000) && lease.lost == 0);
}

static void
lease_unknown(void)
{
	ConcordLease lease;
	ConcordLeaseValue first;
	ConcordLeaseValue second;

	/* found later to be chosen: counts from its sending */
	begin(&lease);
	CHECK(concord_lease_propose(&lease, 1050, 100, false, &first));
	CHECK(concord_lease_found(&lease, &lease.value, 1) == CONCORD_LEASE_KEPT);
	CHECK(!concord_lease_valid(&lease, 1, 1100));
	CHECK(concord_lease_found(&lease, &first, 2) == CONCORD_LEASE_KEPT);
	CHECK(concord_lease_valid(&lease, 1, 1149) && !concord_lease_valid(&lease, 1, 1150));

	/* an earlier attempt, whose sending is forgotten, extends nothing */
	CHECK(concord_lease_propose(&lease, 1100, 100, false, &first));
	CHECK(concord_lease_propose(&lease, 1120, 100, false, &second));
	CHECK(concord_lease_found(&lease, &first, 3) == CONCORD_LEASE_KEPT && lease.version == 3);
	CHECK(concord_lease_valid(&lease, 1, 1149) && !concord_lease_valid(&lease, 1, 1150));
	CHECK(concord_lease_found(&lease, &second, 2) == CONCORD_LEASE_KEPT && lease.version == 3);

	/* the same for a beginning */
	concord_lease_init(&lease, 7);
	CHECK(concord_lease_propose(&lease, 10, 100, false, &first));
	CHECK(concord_lease_propose(&lease, 20, 100, false, &second) && second.lease == 1);
	CHECK(concord_lease_found(&lease, &first, 1) == CONCORD_LEASE_KEPT && lease.lease == 1);
	CHECK(!concord_lease_valid(&lease, 1, 30) && lease.lost == 0);

	/* L8: a shorter one binds as soon as it is sent */
	begin(&lease);
	CHECK(concord_lease_propose(&lease, 1010, 20, false, &first));
	CHECK(concord_lease_valid(&lease, 1, 1029) && !concord_lease_valid(&lease, 1, 1030));
}

/* Another process of the same server goes on. */
static void
lease_resumed(void)
{
	ConcordLease lease;
	ConcordLeaseValue value = {.lease = 3, .keeper = 7, .beat = 5, .duration_us = 1000};
	ConcordLeaseValue sent;

	concord_lease_init(&lease, 7);
	concord_lease_resume(&lease, 100, 3, 50, 200);
	CHECK(concord_lease_valid(&lease, 3, 199) && !concord_lease_valid(&lease, 3, 200));
	CHECK(!concord_lease_valid(&lease, 2, 100) && !concord_lease_valid(&lease, 3, 49));

	/* what the register says is the other one's attempt, also one that comes late: no extension */
	CHECK(concord_lease_found(&lease, &value, 10) == CONCORD_LEASE_KEPT && lease.lost == 0);
	CHECK(concord_lease_left(&lease, 3, 150) == 50);
	CHECK(concord_lease_propose(&lease, 160, 1000, false, &sent));
	CHECK(sent.lease == 3 && sent.beat == 101);
	value.beat = 6;
	CHECK(concord_lease_found(&lease, &value, 11) == CONCORD_LEASE_KEPT && lease.version == 11);
	CHECK(!concord_lease_valid(&lease, 3, 200));
	CHECK(concord_lease_propose(&lease, 210, 1000, false, &sent) && sent.beat == 102);
	concord_lease_chosen(&lease, 12);
	CHECK(concord_lease_valid(&lease, 3, 1209) && !concord_lease_valid(&lease, 3, 1210));

	/* what it had is lost if the register says so */
	concord_lease_init(&lease, 7);
	concord_lease_resume(&lease, 100, 3, 50, 200);
	value.ended = true;
	CHECK(concord_lease_found(&lease, &value, 10) == CONCORD_LEASE_NONE && lease.lost == 3);
	CHECK(!concord_lease_valid(&lease, 3, 100));

	/* it had none */
	concord_lease_init(&lease, 7);
	concord_lease_resume(&lease, 100, 0, 0, 0);
	CHECK(lease.status == CONCORD_LEASE_NONE && !concord_lease_valid(&lease, 0, 0));
	CHECK(concord_lease_propose(&lease, 10, 100, false, &sent) && sent.lease == 1);
}

static void
lease_lost(void)
{
	ConcordLease lease;
	ConcordLeaseValue value;
	ConcordLeaseValue other;

	begin(&lease);
	value = lease.value;
	value.ended = true;
	CHECK(concord_lease_found(&lease, &value, 2) == CONCORD_LEASE_NONE);
	CHECK(lease.lost == 1 && lease.lease == 0 && !concord_lease_valid(&lease, 1, 1001));
	CHECK(concord_lease_propose(&lease, 1010, 100, false, &value) && value.lease == 2);
	concord_lease_chosen(&lease, 3);
	CHECK(concord_lease_valid(&lease, 2, 1020) && !concord_lease_valid(&lease, 1, 1020));

	/* ended, though it says the attempt that was under way */
	CHECK(concord_lease_propose(&lease, 1020, 100, false, &value));
	value.ended = true;
	CHECK(concord_lease_found(&lease, &value, 5) == CONCORD_LEASE_NONE && lease.lost == 2);

	/* another server of the same node */
	begin(&lease);
	other = lease.value;
	other.keeper = 8;
	other.lease = 2;
	CHECK(concord_lease_found(&lease, &other, 2) == CONCORD_LEASE_OTHERS && lease.lost == 1);
	CHECK(!concord_lease_propose(&lease, 1010, 100, false, &value));
	CHECK(concord_lease_propose(&lease, 1010, 100, true, &value) && value.lease == 3);
	CHECK(!concord_lease_valid(&lease, 3, 1010));
	concord_lease_chosen(&lease, 3);
	CHECK(concord_lease_valid(&lease, 3, 1010));
}

static void
lease_limits(void)
{
	ConcordLease lease;
	ConcordLeaseValue value;
	static const int64_t durations[] = {INT64_MIN, -1, 0, CONCORD_LEASE_DURATION_MAX + 1,
	INT64_MAX};

	begin(&lease);
	for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++)
		CHECK(!concord_lease_propose(&lease, 1050, durations[i], false, &value));
	CHECK(!concord_lease_propose(&lease, -1, 100, false, &value));
	CHECK(!concord_lease_propose(&lease, INT64_MAX - 99, 100, false, &value));
	CHECK(!concord_lease_propose(&lease, INT64_MAX, 1, false, &value));
	CHECK(lease.beats == 1 && concord_lease_left(&lease, 1, 1000) == 100);
	CHECK(concord_lease_propose(&lease, INT64_MAX - 100, 100, false, &value));
	concord_lease_chosen(&lease, 2);
	CHECK(concord_lease_valid(&lease, 1, INT64_MAX - 1));
	CHECK(!concord_lease_valid(&lease, 1, INT64_MAX));

	/* the last number there is */
	concord_lease_init(&lease, 7);
	value = (ConcordLeaseValue) {.lease = UINT64_MAX, .keeper = 8, .beat = 1, .duration_us = 1,
	.ended = true};
	CHECK(concord_lease_found(&lease, &value, 1) == CONCORD_LEASE_NONE);
	CHECK(!concord_lease_propose(&lease, 1, 100, true, &value));
	concord_lease_init(&lease, 0);
	CHECK(!concord_lease_propose(&lease, 1, 100, true, &value));
}

static void
lease_watched(void)
{
	ConcordLeaseWatch watch;
	ConcordLeaseValue value = {.lease = 1, .keeper = 7, .beat = 1, .duration_us = 1000};
	ConcordLeaseValue end;

	memset(&watch, 0, sizeof(watch));
	CHECK(!concord_lease_watch_over(&watch, 0, INT64_MAX));
	CHECK(concord_lease_watch_left(&watch, 0, 5) == -1);
	concord_lease_watch_see(&watch, &value, 1, 500);
	CHECK(!concord_lease_watch_over(&watch, 0, 1499) && concord_lease_watch_over(&watch, 0, 1500));
	CHECK(!concord_lease_watch_over(&watch, 1, 1500) && concord_lease_watch_over(&watch, 1, 1501));
	CHECK(!concord_lease_watch_over(&watch, 100000, 1599));
	CHECK(concord_lease_watch_over(&watch, 100000, 1600));
	CHECK(concord_lease_watch_left(&watch, 100000, 1000) == 600);
	CHECK(!concord_lease_watch_over(&watch, INT64_MAX, 2499));
	CHECK(concord_lease_watch_over(&watch, INT64_MAX, 2500));
	CHECK(concord_lease_watch_over(&watch, INT64_MIN, 1500));

	/* seen again: from the first time; another version: anew; an older one: not at all */
	concord_lease_watch_see(&watch, &value, 1, 900);
	CHECK(concord_lease_watch_over(&watch, 0, 1500));
	value.beat = 2;
	concord_lease_watch_see(&watch, &value, 2, 1400);
	CHECK(!concord_lease_watch_over(&watch, 0, 2399) && concord_lease_watch_over(&watch, 0, 2400));
	value.beat = 1;
	concord_lease_watch_see(&watch, &value, 1, 2000);
	CHECK(watch.value.beat == 2 && concord_lease_watch_over(&watch, 0, 2400));

	/* a clock that went back: anew */
	CHECK(!concord_lease_watch_over(&watch, 0, 100));
	CHECK(!concord_lease_watch_over(&watch, 0, 1099) && concord_lease_watch_over(&watch, 0, 1100));
	value.beat = 2;
	concord_lease_watch_see(&watch, &value, 2, 50);
	CHECK(concord_lease_watch_left(&watch, 0, 60) == 990);
	CHECK(concord_lease_watch_left(&watch, 0, 40) == 1000);

	concord_lease_watch_end(&watch, &end);
	CHECK(end.ended && end.lease == 1 && end.beat == 2);
	concord_lease_watch_see(&watch, &end, 3, 60);
	CHECK(!concord_lease_watch_over(&watch, 0, INT64_MAX));

	/* the longest one, as late as it gets */
	memset(&watch, 0, sizeof(watch));
	value.duration_us = CONCORD_LEASE_DURATION_MAX;
	concord_lease_watch_see(&watch, &value, 1, INT64_MAX - 5);
	CHECK(!concord_lease_watch_over(&watch, CONCORD_DRIFT_MAX, INT64_MAX));
	concord_lease_watch_see(&watch, &value, 2, 0);
	CHECK(concord_lease_watch_over(&watch, CONCORD_DRIFT_MAX, INT64_MAX));
}

void
test_lock(void)
{
	RUN(lock_exclusive);
	RUN(lock_shared);
	RUN(lock_upgrade);
	RUN(lock_drop);
	RUN(lock_unsure);
	RUN(lock_limits);
	RUN(lock_deleted);
	RUN(lock_garbage);
	RUN(lease_bytes);
	RUN(lease_judged);
	RUN(lease_kept);
	RUN(lease_unknown);
	RUN(lease_resumed);
	RUN(lease_lost);
	RUN(lease_limits);
	RUN(lease_watched);
}
