/*
 * placement.c
 *		Largest-remainder quotas and the plan that reaches them with the fewest moves.
 *
 * See the header for the promise and the invariants.
 *
 * Why the number of moves is the minimum: whatever the plan, a node must give away what it holds
 * beyond its quota, and a node that is gone all it holds.  The plan moves just these (invariant 3).
 * Over all quotas by largest remainder, only nodes whose remainders tie for the last slots differ;
 * one of them saves a move by winning exactly if it holds more than its rounded-down share, and
 * those are served first.
 */
#include "core/placement.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/*
 * Bits of the largest weight as an integer.  Both the sum of CONCORD_MAX_NODES weights and the
 * product of a weight and CONCORD_SLOTS must stay below 2^64.
 */
#define WEIGHT_BITS 52

/* What decides which shares are rounded up */
typedef struct Share
{
	uint64_t	remainder;		/* of share, in units of 1 / sum of weights */
	int			excess;			/* slots held beyond the rounded-down share */
	int16_t		node_id;
	int16_t		index;			/* in nodes[] */
} Share;

static bool
nodes_valid(const ConcordPlaceNode *nodes, int n)
{
	uint8_t		seen[CONCORD_MAX_NODE_ID / 8 + 1] = {0};
	bool		any_positive = false;

	if (n < 1 || n > CONCORD_MAX_NODES)
		return false;

	for (int i = 0; i < n; i++)
	{
		int			id = nodes[i].node_id;

		if (id < 1 || id > CONCORD_MAX_NODE_ID || (seen[id / 8] & (1 << id % 8)))
			return false;
		seen[id / 8] |= (uint8_t) (1 << id % 8);

		if (!isfinite(nodes[i].weight) || nodes[i].weight < 0)
			return false;
		if (nodes[i].weight > 0)
			any_positive = true;
	}
	return any_positive;
}

/*
 * The exponent by which all weights are scaled to integers below 2^WEIGHT_BITS.
 */
static int
weight_scale(const ConcordPlaceNode *nodes, int n)
{
	double		largest = 0;
	int			exponent;

	for (int i = 0; i < n; i++)
		if (nodes[i].weight > largest)
			largest = nodes[i].weight;
	(void) frexp(largest, &exponent);
	return WEIGHT_BITS - exponent;
}

/*
 * Cut, not rounded: adding a half could itself be rounded, differently on different machines.
 */
static uint64_t
scaled_weight(double weight, int scale)
{
	return (uint64_t) ldexp(weight, scale);
}

/* Whoever is rounded up first comes first; never equal, since ids are unique. */
static int
compare_shares(const void *a, const void *b)
{
	const Share *x = a;
	const Share *y = b;

	if (x->remainder != y->remainder)
		return x->remainder > y->remainder ? -1 : 1;
	if (x->excess != y->excess)
		return x->excess > y->excess ? -1 : 1;
	return x->node_id < y->node_id ? -1 : 1;
}

/*
 * concord_place_quotas() for arguments that were checked.
 */
static void
set_quotas(ConcordPlaceNode *nodes, int n, const int *held, int total)
{
	Share		shares[CONCORD_MAX_NODES];
	int			scale = weight_scale(nodes, n);
	uint64_t	sum = 0;
	int			left = total;

	for (int i = 0; i < n; i++)
		sum += scaled_weight(nodes[i].weight, scale);

	for (int i = 0; i < n; i++)
	{
		uint64_t	product = (uint64_t) total * scaled_weight(nodes[i].weight, scale);

		nodes[i].quota = (int) (product / sum);
		left -= nodes[i].quota;
		shares[i].remainder = product % sum;
		shares[i].excess = (held ? held[i] : 0) - nodes[i].quota;
		shares[i].node_id = (int16_t) nodes[i].node_id;
		shares[i].index = (int16_t) i;
	}

	/*
	 * What is left is the sum of the remainders, each below one slot, so there are more nodes with
	 * a remainder than slots left: none goes to a node of weight 0.
	 */
	qsort(shares, (size_t) n, sizeof(Share), compare_shares);
	for (int i = 0; i < left; i++)
		nodes[shares[i].index].quota++;
}

int
concord_place_quotas(ConcordPlaceNode *nodes, int n, const int *held, int total)
{
	if (!nodes_valid(nodes, n) || total < 0 || total > CONCORD_SLOTS)
		return -1;
	for (int i = 0; held && i < n; i++)
		if (held[i] < 0)
			return -1;

	set_quotas(nodes, n, held, total);
	return 0;
}

static int
compare_ids(const void *a, const void *b)
{
	return *(const int16_t *) a - *(const int16_t *) b;
}

/*
 * Moves slots until no node has more than its quota and every slot that is not lost has a holder.
 * index_of[] gives a node id's index in nodes[] or -1; held[] is kept up to date on the way.
 */
static int
move_slots(const ConcordPlaceNode *nodes, int n, const int16_t *index_of, int *held,
		   const int16_t *owner, int16_t *target)
{
	int16_t		ids[CONCORD_MAX_NODES];
	int			next = 0;		/* the first in ids[] that may be below its quota */
	int			moves = 0;

	for (int i = 0; i < n; i++)
		ids[i] = (int16_t) nodes[i].node_id;
	qsort(ids, (size_t) n, sizeof(int16_t), compare_ids);

	for (int slot = 0; slot < CONCORD_SLOTS; slot++)
	{
		int			from = index_of[owner[slot]];
		int			to;

		if (owner[slot] == CONCORD_SLOT_LOST || (from >= 0 && held[from] <= nodes[from].quota))
		{
			target[slot] = owner[slot];
			continue;
		}

		/*
		 * Somebody is below its quota, as this slot has no place in the quotas where it is and the
		 * quotas add up to the slots (invariant 2).  Who was found full stays full.
		 */
		to = index_of[ids[next]];
		while (held[to] >= nodes[to].quota)
			to = index_of[ids[++next]];
		if (from >= 0)
			held[from]--;
		held[to]++;
		target[slot] = ids[next];
		moves++;
	}
	return moves;
}

int
concord_place_plan(ConcordPlaceNode *nodes, int n,
				   const int16_t owner[CONCORD_SLOTS], int16_t target[CONCORD_SLOTS])
{
	int16_t		index_of[CONCORD_MAX_NODE_ID + 1];
	int			held[CONCORD_MAX_NODES] = {0};
	int			total = 0;

	if (!nodes_valid(nodes, n))
		return -1;

	memset(index_of, -1, sizeof(index_of));
	for (int i = 0; i < n; i++)
		index_of[nodes[i].node_id] = (int16_t) i;

	for (int slot = 0; slot < CONCORD_SLOTS; slot++)
	{
		if (owner[slot] < 0)
			return -1;
		if (owner[slot] == CONCORD_SLOT_LOST)
			continue;
		total++;
		if (index_of[owner[slot]] >= 0)
			held[index_of[owner[slot]]]++;
	}

	set_quotas(nodes, n, held, total);
	return move_slots(nodes, n, index_of, held, owner, target);
}
