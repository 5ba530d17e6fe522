/*
 * placement.h
 *		Which node should hold which slot.
 *
 * PROMISE: every node's number of slots is its weight's share of them, rounded down or up, and the
 * number of slots that move is the smallest with which that can be reached.
 *
 * Plain C, no PostgreSQL headers, no I/O, no allocation (a plan uses some 160 kB of stack).
 *
 * INVARIANTS
 * 1. The result depends only on the set of nodes and the current owners, not on the order in which
 *	  nodes are listed, nor on the machine's floating point.  Weights are turned into integers
 *	  first: each is scaled by the one power of two that brings the largest to 52 bits, and cut.
 *	  All that follows (shares, remainders, their comparison) is exact in 64 bits, so nothing
 *	  overflows for 1e30, nothing vanishes for 1e-30, and remainders that are equal compare equal.
 *	  Cutting loses nothing of a weight of type real unless it is more than 2^27 times smaller than
 *	  the largest; what is lost then changes no share by a millionth of a slot.
 * 2. The quotas add up to the total.
 * 3. A slot moves only if its holder has more than its quota or is no node of the list, and goes
 *	  to a node with fewer than its quota.  So no slot is moved twice, a plan of a planned state
 *	  moves nothing, and a plan carried out in part leaves exactly the rest of its moves to do.
 */
#ifndef CONCORD_CORE_PLACEMENT_H
#define CONCORD_CORE_PLACEMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/key.h"

#define CONCORD_SLOT_LOST 0		/* owner of a slot that nobody holds */

#define CONCORD_MAX_NODE_ID INT16_MAX	/* owners are stored in 16 bits */
#define CONCORD_MAX_NODES CONCORD_SLOTS /* more could not hold a slot each */

typedef struct ConcordPlaceNode
{
	int			node_id;		/* 1 .. CONCORD_MAX_NODE_ID, unique */
	double		weight;			/* finite, >= 0; 0 = to be drained */
	int			quota;			/* out: number of slots */
} ConcordPlaceNode;

/*
 * Largest-remainder quotas of total slots (0 .. CONCORD_SLOTS) by weight.
 *
 * held[i] is the number of slots nodes[i] holds now (NULL: all 0).  Ties of remainders go first to
 * the node that exceeds its rounded-down share by most now, so that nothing moves for a tie, then
 * to the smaller id.  (Among nodes of one weight that is the node that holds most now.)
 *
 * Returns 0; or -1, and nothing is changed, if no node has a positive weight or an argument is out
 * of range: n, total, an id (also a duplicate), a weight (also NaN), a negative count.
 * Takes O(n log n).
 */
extern int	concord_place_quotas(ConcordPlaceNode *nodes, int n, const int *held, int total);

/*
 * Plans a new owner for every slot and sets the quotas.
 *
 * A slot stays unless its holder is over its quota; slots of nodes not in nodes[] move too; lost
 * slots (owner 0) stay lost and do not count into the total.  Of an over-full node the slots with
 * the smallest numbers leave; in the order of their numbers, they fill the nodes below their quota
 * in the order of ids.  target[] receives the owners; it may be owner[] itself.
 *
 * Returns the number of slots that move, which is the minimum over all largest-remainder quotas;
 * or -1 as above, also for an owner < 0.  Takes O(slots + n log n).
 */
extern int	concord_place_plan(ConcordPlaceNode *nodes, int n,
							   const int16_t owner[CONCORD_SLOTS], int16_t target[CONCORD_SLOTS]);

#endif							/* CONCORD_CORE_PLACEMENT_H */
