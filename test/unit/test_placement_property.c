/*
 * test_placement_property.c
 *		What must hold of every plan, over thousands of random changes of a cluster.
 *
 * A history starts with one node that holds all slots.  Each step is a random change (a node joins,
 * leaves, is lost with its slots, gets another weight, lost slots are assigned, slots are moved by
 * hand), then a plan that is checked and carried out, in full, in part, or not at all.
 *
 * The plan is compared with an oracle of its own: shares by long division in wider integers, the
 * slots left over given out one by one, and the least number of moves counted without a plan.
 */
#include "unit.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/placement.h"

#define MAX_NODES 24
#define STEPS_PER_HISTORY 40
#define DEFAULT_STEPS 6000

/* How weights are drawn; one way per history */
typedef enum WeightKind
{
	WEIGHTS_EQUAL,
	WEIGHTS_FEW,				/* 1 .. 4: remainders often tie */
	WEIGHTS_INTEGERS,			/* 0 .. 1000 */
	WEIGHTS_TENTHS,				/* 0.1 .. 2.0 as type real */
	WEIGHTS_REALS,
	WEIGHTS_WILD,				/* 1e-30 .. 1e30 as type real */
	WEIGHT_KINDS
} WeightKind;

typedef struct Cluster
{
	WeightKind	kind;
	int			n;
	ConcordPlaceNode nodes[MAX_NODES];
	int			next_id;
	int16_t		owner[CONCORD_SLOTS];
} Cluster;

static uint64_t state;
static int	steps_done;

static int
below(int n)
{
	return (int) (unit_random(&state) % (uint64_t) n);
}

static double
draw_weight(WeightKind kind)
{
	double		unit = (double) (unit_random(&state) >> 11) / 9007199254740992.0;

	if (below(12) == 0)
		return 0;
	switch (kind)
	{
		case WEIGHTS_EQUAL:
			return 1;
		case WEIGHTS_FEW:
			return 1 + below(4);
		case WEIGHTS_INTEGERS:
			return below(1001);
		case WEIGHTS_TENTHS:
			return (float) ((1 + below(20)) / 10.0);
		case WEIGHTS_REALS:
			return (float) (unit * 10);
		default:
			return (float) pow(10, unit * 60 - 30);
	}
}

static void
join(Cluster *c)
{
	if (c->n == MAX_NODES)
		return;
	c->next_id += 1 + below(200);
	c->nodes[c->n++] = (ConcordPlaceNode) {c->next_id, draw_weight(c->kind), -1};
}

/* Takes a node off the list; its slots stay with it, or are lost. */
static void
leave(Cluster *c, bool with_slots)
{
	int			i = below(c->n);
	int			node_id = c->nodes[i].node_id;

	if (c->n == 1)
		return;
	c->nodes[i] = c->nodes[--c->n];
	for (int slot = 0; with_slots && slot < CONCORD_SLOTS; slot++)
		if (c->owner[slot] == node_id)
			c->owner[slot] = CONCORD_SLOT_LOST;
}

static void
change(Cluster *c)
{
	int			node_id = c->nodes[below(c->n)].node_id;

	switch (below(10))
	{
		case 0:
		case 1:
		case 2:
			join(c);
			break;
		case 3:
			leave(c, false);
			break;
		case 4:
			leave(c, true);
			break;
		case 5:
			for (int slot = 0; slot < CONCORD_SLOTS; slot++)
				if (c->owner[slot] == CONCORD_SLOT_LOST)
					c->owner[slot] = (int16_t) node_id;
			break;
		case 6:
			for (int moves = below(100); moves > 0; moves--)
				c->owner[below(CONCORD_SLOTS)] = (int16_t) node_id;
			break;
		default:
			c->nodes[below(c->n)].weight = draw_weight(c->kind);
	}
}

/*
 * weight in units of 2^-60 of a number between a half and one times the largest weight.
 */
static unsigned __int128
oracle_weight(double weight, double largest)
{
	int			exponent = 0;

	for (; largest >= 1; largest /= 2)
		exponent++;
	for (; largest < 0.5; largest *= 2)
		exponent--;
	return (unsigned __int128) ((long double) weight * powl(2, 60 - exponent));
}

/*
 * Largest-remainder quotas the slow way: quota[] gets them, and the result is the least number of
 * slots that those nodes must give away, whoever wins the ties.
 */
static int
oracle_quotas(const Cluster *c, const int *held, int total, int *quota)
{
	unsigned __int128 weight[MAX_NODES];
	unsigned __int128 rest[MAX_NODES];
	unsigned __int128 sum = 0;
	unsigned __int128 cut = 0;	/* the smallest remainder that was rounded up */
	bool		up[MAX_NODES] = {false};
	double		largest = 0;
	int			left = total;
	int			tied_up = 0;
	int			tied_saving = 0;
	int			leaving = 0;

	for (int i = 0; i < c->n; i++)
		largest = fmax(largest, c->nodes[i].weight);
	for (int i = 0; i < c->n; i++)
		sum += weight[i] = oracle_weight(c->nodes[i].weight, largest);
	for (int i = 0; i < c->n; i++)
	{
		quota[i] = (int) (weight[i] * (unsigned) total / sum);
		rest[i] = weight[i] * (unsigned) total - (unsigned) quota[i] * sum;
		left -= quota[i];
	}
	for (; left > 0; left--)
	{
		int			best = -1;

		for (int i = 0; i < c->n; i++)
		{
			if (up[i])
				continue;
			if (best < 0 || rest[i] > rest[best])
				best = i;
			else if (rest[i] == rest[best])
			{
				int			more = (held[i] - quota[i]) - (held[best] - quota[best]);

				if (more > 0 || (more == 0 && c->nodes[i].node_id < c->nodes[best].node_id))
					best = i;
			}
		}
		up[best] = true;
		cut = rest[best];
	}
	for (int i = 0; i < c->n; i++)
	{
		bool		tied = cut > 0 && rest[i] == cut;
		int			keep = quota[i] + (!tied && up[i]);

		leaving += held[i] > keep ? held[i] - keep : 0;
		tied_up += tied && up[i];
		tied_saving += tied && held[i] > quota[i];
		quota[i] += up[i];
	}
	return leaving - (tied_up < tied_saving ? tied_up : tied_saving);
}

static int
find(const Cluster *c, int node_id)
{
	for (int i = 0; i < c->n; i++)
		if (c->nodes[i].node_id == node_id)
			return i;
	return -1;
}

/*
 * Sets held[] (by index) and returns the number of slots that are not lost; *absent receives how
 * many of them nodes hold that are not listed.
 */
static int
count_held(const Cluster *c, const int16_t *owner, int *held, int *absent)
{
	int			total = 0;

	*absent = 0;
	memset(held, 0, sizeof(int) * MAX_NODES);
	for (int slot = 0; slot < CONCORD_SLOTS; slot++)
	{
		int			i = owner[slot] == CONCORD_SLOT_LOST ? -1 : find(c, owner[slot]);

		total += owner[slot] != CONCORD_SLOT_LOST;
		if (i >= 0)
			held[i]++;
		else if (owner[slot] != CONCORD_SLOT_LOST)
			(*absent)++;
	}
	return total;
}

/* The quotas themselves: sum, within one slot of the exact share, and the oracle's. */
static void
check_quotas(const Cluster *c, int total, const int *oracle)
{
	long double sum_weight = 0;
	int			sum = 0;

	for (int i = 0; i < c->n; i++)
		sum_weight += c->nodes[i].weight;
	for (int i = 0; i < c->n; i++)
	{
		const ConcordPlaceNode *node = &c->nodes[i];
		long double share = total * ((long double) node->weight / sum_weight);

		sum += node->quota;
		CHECK(fabsl(node->quota - share) < 1 + 1e-9L, "step %d: node %d of weight %g: %d, not %Lf",
			  steps_done, node->node_id, node->weight, node->quota, share);
		CHECK(node->weight > 0 || node->quota == 0, "step %d", steps_done);
		CHECK(node->quota == oracle[i], "step %d: node %d of weight %g: %d, not %d", steps_done,
			  node->node_id, node->weight, node->quota, oracle[i]);
	}
	CHECK(sum == total, "step %d: %d, not %d", steps_done, sum, total);
}

/* A plan and its number of moves */
static void
check_plan(const Cluster *c, const int16_t *target, int moves)
{
	int			held[MAX_NODES];
	int			after[MAX_NODES];
	int			quota[MAX_NODES];
	int			absent;
	int			absent_after;
	int			total = count_held(c, c->owner, held, &absent);
	int			least = oracle_quotas(c, held, total, quota) + absent;
	int			over = absent;
	int			moved = 0;

	check_quotas(c, total, quota);
	CHECK(count_held(c, target, after, &absent_after) == total && absent_after == 0,
		  "step %d", steps_done);

	for (int i = 0; i < c->n; i++)
	{
		CHECK(after[i] == c->nodes[i].quota, "step %d: node %d gets %d of %d", steps_done,
			  c->nodes[i].node_id, after[i], c->nodes[i].quota);
		over += held[i] > c->nodes[i].quota ? held[i] - c->nodes[i].quota : 0;
	}
	for (int slot = 0; slot < CONCORD_SLOTS; slot++)
	{
		int			from = find(c, c->owner[slot]);
		int			to = find(c, target[slot]);

		if (c->owner[slot] == target[slot])
			continue;
		moved++;
		CHECK(c->owner[slot] != CONCORD_SLOT_LOST, "step %d: slot %d", steps_done, slot);
		CHECK(from < 0 || held[from] > c->nodes[from].quota, "step %d: slot %d", steps_done, slot);
		CHECK(to >= 0 && held[to] < c->nodes[to].quota, "step %d: slot %d", steps_done, slot);
	}
	CHECK(moved == moves, "step %d: %d, not %d", steps_done, moved, moves);
	CHECK(moved == over, "step %d: %d, not %d", steps_done, moved, over);
	CHECK(moved == least, "step %d: %d, not %d", steps_done, moved, least);
}

/* The nodes in another order: the same plan and quotas. */
static void
check_order(const Cluster *c, const int16_t *target, int moves)
{
	ConcordPlaceNode nodes[MAX_NODES];
	int16_t		again[CONCORD_SLOTS];

	memcpy(nodes, c->nodes, sizeof(nodes));
	for (int i = c->n - 1; i > 0; i--)
	{
		int			j = below(i + 1);
		ConcordPlaceNode other = nodes[i];

		nodes[i] = nodes[j];
		nodes[j] = other;
	}
	CHECK(concord_place_plan(nodes, c->n, c->owner, again) == moves, "step %d", steps_done);
	CHECK(memcmp(again, target, sizeof(again)) == 0, "step %d", steps_done);
	for (int i = 0; i < c->n; i++)
		CHECK(nodes[i].quota == c->nodes[find(c, nodes[i].node_id)].quota, "step %d", steps_done);
}

/*
 * Carries the plan out, fully or (then the rest must be what is left to do) in part.
 */
static void
carry_out(Cluster *c, const int16_t *target, int moves)
{
	int16_t		again[CONCORD_SLOTS];
	int			how = below(4);
	int			left = 0;

	if (how == 0)
		return;
	for (int slot = 0; slot < CONCORD_SLOTS; slot++)
	{
		if (how == 1 && c->owner[slot] != target[slot] && below(2) == 0)
			left++;
		else
			c->owner[slot] = target[slot];
	}
	CHECK(concord_place_plan(c->nodes, c->n, c->owner, again) == left,
		  "step %d: %d of %d moves left", steps_done, left, moves);
	if (left == 0)
		CHECK(memcmp(again, c->owner, sizeof(again)) == 0, "step %d", steps_done);
}

static void
step(Cluster *c)
{
	int16_t		target[CONCORD_SLOTS];
	bool		any_positive = false;
	int			moves;

	change(c);
	for (int i = 0; i < c->n; i++)
		any_positive |= c->nodes[i].weight > 0;

	moves = concord_place_plan(c->nodes, c->n, c->owner, target);
	CHECK((moves >= 0) == any_positive, "step %d", steps_done);
	if (moves < 0)
		return;
	check_plan(c, target, moves);
	check_order(c, target, moves);
	carry_out(c, target, moves);
}

static void
plan_random_histories(void)
{
	const char *given = getenv("CONCORD_STEPS");
	int			steps = given != NULL ? atoi(given) : DEFAULT_STEPS;

	CHECK(steps > 0, "CONCORD_STEPS");
	state = unit_seed();
	for (steps_done = 0; steps_done < steps && !unit_failed();)
	{
		static Cluster c;

		memset(&c, 0, sizeof(c));
		c.kind = (WeightKind) below(WEIGHT_KINDS);
		join(&c);
		for (int slot = 0; slot < CONCORD_SLOTS; slot++)
			c.owner[slot] = (int16_t) c.next_id;
		for (int joins = below(8); joins > 0; joins--)
			join(&c);
		for (int i = 0; i < STEPS_PER_HISTORY && steps_done < steps && !unit_failed(); i++)
		{
			step(&c);
			steps_done++;
		}
	}
	printf("# %d random plans, CONCORD_SEED=%" PRIu64 "\n", steps_done, unit_seed());
}

void
test_placement_property(void)
{
	RUN(plan_random_histories);
}
