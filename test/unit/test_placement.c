/*
 * test_placement.c
 *		Quotas and plans of which the right answer is known.
 */
#include "unit.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "core/placement.h"

#define NODE(id, weight) {(id), (weight), -1}
#define SMALLEST (DBL_MIN * DBL_EPSILON)	/* the smallest positive double */
#define LENGTH(array) ((int) (sizeof(array) / sizeof((array)[0])))

/* Checks the quotas of a list of nodes; held may be NULL. */
static void
expect_quotas(int line, ConcordPlaceNode *nodes, int n, const int *held, int total,
			  const int *quotas)
{
	CHECK(concord_place_quotas(nodes, n, held, total) == 0, "line %d", line);
	for (int i = 0; i < n; i++)
		CHECK(nodes[i].quota == quotas[i], "line %d: node %d has %d, not %d",
			  line, nodes[i].node_id, nodes[i].quota, quotas[i]);
}

#define QUOTAS(nodes, held, total, ...) \
	expect_quotas(__LINE__, nodes, LENGTH(nodes), held, total, (const int[]) {__VA_ARGS__})

static int
count_owned(const int16_t *owner, int node_id)
{
	int			count = 0;

	for (int slot = 0; slot < CONCORD_SLOTS; slot++)
		count += owner[slot] == node_id;
	return count;
}

static void
fill(int16_t *owner, int first, int last, int node_id)
{
	for (int slot = first; slot <= last; slot++)
		owner[slot] = (int16_t) node_id;
}

static void
quotas_by_weight(void)
{
	ConcordPlaceNode one[] = {NODE(7, 0.3)};
	ConcordPlaceNode even[] = {NODE(1, 1), NODE(2, 1), NODE(3, 1), NODE(4, 1)};
	ConcordPlaceNode uneven[] = {NODE(1, 1), NODE(2, 2), NODE(3, 5)};

	QUOTAS(one, NULL, 4096, 4096);
	QUOTAS(one, NULL, 0, 0);
	QUOTAS(one, NULL, 1, 1);
	QUOTAS(even, NULL, 4096, 1024, 1024, 1024, 1024);
	QUOTAS(even, NULL, 0, 0, 0, 0, 0);
	QUOTAS(uneven, NULL, 4096, 512, 1024, 2560);
}

static void
quotas_largest_remainder(void)
{
	ConcordPlaceNode a[] = {NODE(1, 47), NODE(2, 16), NODE(3, 15.8), NODE(4, 12), NODE(5, 6.1),
	NODE(6, 3.1)};
	ConcordPlaceNode b[] = {NODE(1, 1), NODE(2, 6)};
	ConcordPlaceNode c[] = {NODE(1, 0.5), NODE(2, 0.25), NODE(3, 0.125)};

	/* the textbook's Hare quota: 4.7, 1.6, 1.58, 1.2, 0.61, 0.31 of 10 */
	QUOTAS(a, NULL, 10, 5, 2, 1, 1, 1, 0);
	/* 4096 / 7 = 585.14, 3510.86 */
	QUOTAS(b, NULL, 4096, 585, 3511);
	/* 2340.57, 1170.29, 585.14 */
	QUOTAS(c, NULL, 4096, 2341, 1170, 585);
}

static void
quotas_ties_by_id(void)
{
	ConcordPlaceNode three[] = {NODE(1, 1), NODE(2, 1), NODE(3, 1)};
	ConcordPlaceNode mixed[] = {NODE(30, 2), NODE(9, 2), NODE(20, 2)};

	QUOTAS(three, NULL, 4096, 1366, 1365, 1365);
	QUOTAS(three, NULL, 2, 1, 1, 0);
	QUOTAS(mixed, NULL, 4096, 1365, 1366, 1365);
	QUOTAS(mixed, NULL, 4094, 1364, 1365, 1365);
}

static void
quotas_ties_by_what_is_held(void)
{
	ConcordPlaceNode three[] = {NODE(1, 1), NODE(2, 1), NODE(3, 1)};
	ConcordPlaceNode unequal[] = {NODE(1, 3), NODE(2, 1)};

	QUOTAS(three, ((const int[]) {1365, 1365, 1366}), 4096, 1365, 1365, 1366);
	QUOTAS(three, ((const int[]) {1365, 1366, 1365}), 4096, 1365, 1366, 1365);
	QUOTAS(three, ((const int[]) {0, 2000, 2096}), 4096, 1365, 1365, 1366);
	QUOTAS(three, ((const int[]) {2048, 2048, 0}), 4096, 1366, 1365, 1365);

	/* 7.5 and 2.5: node 1 holds more, but only node 2 holds what it would have to give away */
	QUOTAS(unequal, ((const int[]) {7, 3}), 10, 7, 3);
	QUOTAS(unequal, ((const int[]) {8, 2}), 10, 8, 2);
}

static void
quotas_zero_weights(void)
{
	ConcordPlaceNode nodes[] = {NODE(1, 0), NODE(2, 1), NODE(3, -0.0), NODE(4, 1), NODE(5, 1)};
	ConcordPlaceNode last[] = {NODE(1, 0), NODE(2, 0), NODE(3, 0.001)};

	QUOTAS(nodes, NULL, 4096, 0, 1366, 0, 1365, 1365);
	/* not even what it holds makes a drained node win a tie */
	QUOTAS(nodes, ((const int[]) {4096, 0, 0, 0, 0}), 4096, 0, 1366, 0, 1365, 1365);
	QUOTAS(nodes, NULL, 1, 0, 1, 0, 0, 0);
	QUOTAS(last, NULL, 4096, 0, 0, 4096);
}

static void
quotas_extreme_weights(void)
{
	ConcordPlaceNode huge[] = {NODE(1, DBL_MAX), NODE(2, DBL_MAX), NODE(3, DBL_MAX)};
	ConcordPlaceNode large[] = {NODE(1, 1e30), NODE(2, 3e30)};
	ConcordPlaceNode small[] = {NODE(1, 1e-30), NODE(2, 1e-30), NODE(3, 1e-30)};
	ConcordPlaceNode tiny[] = {NODE(1, SMALLEST), NODE(2, 3 * SMALLEST)};
	ConcordPlaceNode apart[] = {NODE(1, 1e-30), NODE(2, 1e30), NODE(3, 1e-30), NODE(4, 1e30)};
	ConcordPlaceNode wide[] = {NODE(1, SMALLEST), NODE(2, DBL_MAX)};
	ConcordPlaceNode tenths[] = {NODE(1, 0.1f), NODE(2, 0.1f), NODE(3, 0.1f), NODE(4, 0.7f)};

	QUOTAS(huge, NULL, 4096, 1366, 1365, 1365);
	QUOTAS(large, NULL, 4096, 1024, 3072);
	QUOTAS(small, NULL, 4096, 1366, 1365, 1365);
	QUOTAS(small, ((const int[]) {0, 0, 4096}), 4096, 1365, 1365, 1366);
	QUOTAS(tiny, NULL, 4096, 1024, 3072);
	QUOTAS(apart, NULL, 4096, 0, 2048, 0, 2048);
	QUOTAS(apart, NULL, 4095, 0, 2048, 0, 2047);
	QUOTAS(wide, NULL, 4096, 0, 4096);
	/* 409.6 each: equal weights tie exactly although a tenth is no binary fraction */
	QUOTAS(tenths, ((const int[]) {410, 409, 410, 2867}), 4096, 410, 409, 410, 2867);
	QUOTAS(tenths, ((const int[]) {409, 410, 410, 2867}), 4096, 409, 410, 410, 2867);
}

/*
 * Multiplying all weights by a power of two changes nothing, even where their sum is infinite.
 */
static void
quotas_scale_free(void)
{
	static const double weights[] = {1, 0.1f, 3.7f, 0, 2.5f, 1e-3f, 100, 1.0 / 3};
	ConcordPlaceNode nodes[LENGTH(weights)];
	int			quotas[LENGTH(weights)];

	for (int exponent = -960; exponent <= 1017; exponent++)
	{
		for (int i = 0; i < LENGTH(weights); i++)
			nodes[i] = (ConcordPlaceNode) NODE(i + 1, ldexp(weights[i], exponent));
		CHECK(concord_place_quotas(nodes, LENGTH(weights), NULL, 4095) == 0);
		for (int i = 0; i < LENGTH(weights); i++)
		{
			if (exponent == -960)
				quotas[i] = nodes[i].quota;
			CHECK(nodes[i].quota == quotas[i], "exponent %d, node %d", exponent, i + 1);
		}
	}
}

static void
quotas_many_nodes(void)
{
	static ConcordPlaceNode nodes[CONCORD_MAX_NODES];
	int			sum = 0;

	for (int i = 0; i < CONCORD_MAX_NODES; i++)
		nodes[i] = (ConcordPlaceNode) NODE(CONCORD_MAX_NODE_ID - i, nextafter(1024, 0));
	CHECK(concord_place_quotas(nodes, CONCORD_MAX_NODES, NULL, CONCORD_SLOTS) == 0);
	for (int i = 0; i < CONCORD_MAX_NODES; i++)
	{
		sum += nodes[i].quota;
		CHECK(nodes[i].quota == 1);
	}
	CHECK(sum == CONCORD_SLOTS);

	/* one of them has all but nothing, the sum is at its largest */
	nodes[17].weight = DBL_MAX;
	CHECK(concord_place_quotas(nodes, CONCORD_MAX_NODES, NULL, CONCORD_SLOTS) == 0);
	CHECK(nodes[17].quota == CONCORD_SLOTS);
}

static void
expect_refused(int line, ConcordPlaceNode *nodes, int n, const int *held, int total)
{
	for (int i = 0; i < n && n < CONCORD_MAX_NODES; i++)
		nodes[i].quota = -7;
	CHECK(concord_place_quotas(nodes, n, held, total) == -1, "line %d", line);
	for (int i = 0; i < n && n < CONCORD_MAX_NODES; i++)
		CHECK(nodes[i].quota == -7, "line %d", line);
}

static void
quotas_refused(void)
{
	static ConcordPlaceNode many[CONCORD_MAX_NODES + 1];
	ConcordPlaceNode good[] = {NODE(1, 1), NODE(CONCORD_MAX_NODE_ID, 1)};
	ConcordPlaceNode same[] = {NODE(1, 1), NODE(2, 1), NODE(1, 2)};
	ConcordPlaceNode zeros[] = {NODE(1, 0), NODE(2, 0)};
	static const double bad_weights[] = {-1, -1e-300, NAN, INFINITY, -INFINITY};
	static const int bad_ids[] = {0, -1, CONCORD_MAX_NODE_ID + 1, 65537, INT32_MAX, INT32_MIN};

	for (int i = 0; i <= CONCORD_MAX_NODES; i++)
		many[i] = (ConcordPlaceNode) NODE(i + 1, 1);

	CHECK(concord_place_quotas(good, 2, NULL, 4096) == 0);
	expect_refused(__LINE__, good, 0, NULL, 4096);
	expect_refused(__LINE__, good, -1, NULL, 4096);
	expect_refused(__LINE__, good, 2, NULL, -1);
	expect_refused(__LINE__, good, 2, NULL, CONCORD_SLOTS + 1);
	expect_refused(__LINE__, good, 2, (const int[]) {1, -1}, 4096);
	expect_refused(__LINE__, same, 3, NULL, 4096);
	expect_refused(__LINE__, zeros, 2, NULL, 4096);
	expect_refused(__LINE__, many, CONCORD_MAX_NODES + 1, NULL, 4096);

	for (int i = 0; i < LENGTH(bad_weights); i++)
	{
		ConcordPlaceNode bad[] = {NODE(1, 1), NODE(2, bad_weights[i])};

		expect_refused(__LINE__, bad, 2, NULL, 4096);
	}
	for (int i = 0; i < LENGTH(bad_ids); i++)
	{
		ConcordPlaceNode bad[] = {NODE(1, 1), NODE(bad_ids[i], 1)};

		expect_refused(__LINE__, bad, 2, NULL, 4096);
	}
}

static void
plan_first_nodes(void)
{
	ConcordPlaceNode nodes[] = {NODE(1, 1), NODE(2, 1), NODE(3, 1)};
	int16_t		owner[CONCORD_SLOTS];

	/* each that joins takes its share and nothing moves between the old ones */
	fill(owner, 0, 4095, 1);
	CHECK(concord_place_plan(nodes, 1, owner, owner) == 0);
	CHECK(count_owned(owner, 1) == 4096);
	CHECK(concord_place_plan(nodes, 2, owner, owner) == 2048);
	CHECK(count_owned(owner, 1) == 2048 && count_owned(owner, 2) == 2048);
	CHECK(concord_place_plan(nodes, 3, owner, owner) == 1365);
	CHECK(count_owned(owner, 1) == 1366 && count_owned(owner, 2) == 1365);
	CHECK(count_owned(owner, 3) == 1365);
	CHECK(concord_place_plan(nodes, 3, owner, owner) == 0);
}

static void
plan_which_slots_leave(void)
{
	ConcordPlaceNode nodes[] = {NODE(5, 1), NODE(3, 1), NODE(4, 2)};
	int16_t		owner[CONCORD_SLOTS];
	int16_t		target[CONCORD_SLOTS];

	/* the slots of the smallest numbers leave, the nodes of the smallest ids are filled first */
	fill(owner, 0, 4095, 4);
	CHECK(concord_place_plan(nodes, 3, owner, target) == 2048);
	for (int slot = 0; slot < CONCORD_SLOTS; slot++)
		CHECK(target[slot] == (slot < 1024 ? 3 : slot < 2048 ? 5 : 4), "slot %d", slot);
	CHECK(count_owned(owner, 4) == 4096);
}

static void
plan_tie_moves_nothing(void)
{
	ConcordPlaceNode nodes[] = {NODE(1, 1), NODE(2, 1), NODE(3, 1)};
	ConcordPlaceNode unequal[] = {NODE(1, 3), NODE(2, 1)};
	int16_t		owner[CONCORD_SLOTS];

	for (int winner = 1; winner <= 3; winner++)
	{
		for (int slot = 0; slot < CONCORD_SLOTS; slot++)
			owner[slot] = (int16_t) (slot == 4095 ? winner : slot % 3 + 1);
		CHECK(concord_place_plan(nodes, 3, owner, owner) == 0, "winner %d", winner);
	}

	/* 10 slots: 7.5 and 2.5 */
	fill(owner, 0, 4095, CONCORD_SLOT_LOST);
	fill(owner, 0, 6, 1);
	fill(owner, 7, 9, 2);
	CHECK(concord_place_plan(unequal, 2, owner, owner) == 0);
	fill(owner, 7, 7, 1);
	CHECK(concord_place_plan(unequal, 2, owner, owner) == 0);
}

static void
plan_drain_and_absent(void)
{
	ConcordPlaceNode drained[] = {NODE(1, 1), NODE(2, 0), NODE(3, 1)};
	ConcordPlaceNode gone[] = {NODE(1, 1), NODE(3, 1)};
	int16_t		owner[CONCORD_SLOTS];
	int16_t		target[CONCORD_SLOTS];

	fill(owner, 0, 1365, 1);
	fill(owner, 1366, 2730, 2);
	fill(owner, 2731, 4095, 3);
	CHECK(concord_place_plan(drained, 3, owner, target) == 1365);
	CHECK(count_owned(target, 1) == 2048 && count_owned(target, 2) == 0);
	CHECK(count_owned(target, 3) == 2048);

	/* a node that is not listed is emptied by the same moves */
	memset(target, 0, sizeof(target));
	CHECK(concord_place_plan(gone, 2, owner, target) == 1365);
	CHECK(count_owned(target, 1) == 2048 && count_owned(target, 3) == 2048);
}

static void
plan_lost_slots(void)
{
	ConcordPlaceNode nodes[] = {NODE(1, 1), NODE(2, 1)};
	int16_t		owner[CONCORD_SLOTS];
	int16_t		target[CONCORD_SLOTS];

	/* 1000 lost, 3096 held: 1548 each */
	fill(owner, 0, 2047, 1);
	fill(owner, 2048, 3095, 2);
	fill(owner, 3096, 4095, CONCORD_SLOT_LOST);
	CHECK(concord_place_plan(nodes, 2, owner, target) == 500);
	CHECK(count_owned(target, 1) == 1548 && count_owned(target, 2) == 1548);
	for (int slot = 3096; slot < CONCORD_SLOTS; slot++)
		CHECK(target[slot] == CONCORD_SLOT_LOST, "slot %d", slot);

	/* all lost */
	fill(owner, 0, 4095, CONCORD_SLOT_LOST);
	CHECK(concord_place_plan(nodes, 2, owner, target) == 0);
	CHECK(nodes[0].quota == 0 && nodes[1].quota == 0);
	CHECK(memcmp(owner, target, sizeof(owner)) == 0);
}

static void
plan_refused(void)
{
	ConcordPlaceNode nodes[] = {NODE(1, 1), NODE(2, 1)};
	ConcordPlaceNode zeros[] = {NODE(1, 0)};
	ConcordPlaceNode same[] = {NODE(1, 1), NODE(1, 1)};
	int16_t		owner[CONCORD_SLOTS];
	int16_t		target[CONCORD_SLOTS];

	fill(owner, 0, 4095, 1);
	fill(target, 0, 4095, 99);
	CHECK(concord_place_plan(nodes, 0, owner, target) == -1);
	CHECK(concord_place_plan(zeros, 1, owner, target) == -1);
	CHECK(concord_place_plan(same, 2, owner, target) == -1);
	owner[4095] = -1;
	CHECK(concord_place_plan(nodes, 2, owner, target) == -1);
	owner[4095] = INT16_MIN;
	CHECK(concord_place_plan(nodes, 2, owner, target) == -1);
	CHECK(count_owned(target, 99) == 4096);
	CHECK(nodes[0].quota == -1 && nodes[1].quota == -1);
	owner[4095] = INT16_MAX;	/* a node that is gone */
	CHECK(concord_place_plan(nodes, 2, owner, target) == 2048);
}

/*
 * From one node to as many as there are slots and ids.
 */
static void
plan_many_nodes(void)
{
	static ConcordPlaceNode nodes[CONCORD_MAX_NODES];
	int16_t		owner[CONCORD_SLOTS];

	for (int i = 0; i < CONCORD_MAX_NODES; i++)
		nodes[i] = (ConcordPlaceNode) NODE(CONCORD_MAX_NODE_ID - i, 1);
	fill(owner, 0, 4095, CONCORD_MAX_NODE_ID);
	CHECK(concord_place_plan(nodes, CONCORD_MAX_NODES, owner, owner) == CONCORD_SLOTS - 1);
	for (int i = 0; i < CONCORD_MAX_NODES; i++)
		CHECK(count_owned(owner, nodes[i].node_id) == 1, "node %d", nodes[i].node_id);
}

void
test_placement(void)
{
	RUN(quotas_by_weight);
	RUN(quotas_largest_remainder);
	RUN(quotas_ties_by_id);
	RUN(quotas_ties_by_what_is_held);
	RUN(quotas_zero_weights);
	RUN(quotas_extreme_weights);
	RUN(quotas_scale_free);
	RUN(quotas_many_nodes);
	RUN(quotas_refused);
	RUN(plan_first_nodes);
	RUN(plan_which_slots_leave);
	RUN(plan_tie_moves_nothing);
	RUN(plan_drain_and_absent);
	RUN(plan_lost_slots);
	RUN(plan_refused);
	RUN(plan_many_nodes);
}
