/*
 * deadlock.h
 *		Which transactions must give up so that no cycle of waits is left between servers.
 *
 * PROMISE: after the victims are gone, and PostgreSQL has broken the cycles that it sees itself, no
 * other cycle is left but one that went through both kinds; each victim was the youngest
 * transaction of a cycle that PostgreSQL cannot see; without such a cycle there is no victim.
 *
 * Plain C, no PostgreSQL headers, no I/O, no allocation.
 *
 * THE GRAPH.  A transaction has processes: its session on the coordinator, its branches' sessions
 * on other nodes, and branches that are prepared and have no process any more.  A wait is an edge
 * of one server's lock table: one process waits until another one has given up a lock, or its
 * place in a queue.  A process that waits keeps its whole transaction from ending, and locks are
 * given up when the transaction ends: so a transaction waits for every transaction that one of
 * its processes waits for, and all of those must end first.
 *
 * INVARIANTS
 * 1. A cycle of waits between processes lies in one server, whose own detector sees it and breaks
 *	  it.  The waits of its processes are left out; who looks again later finds what is left.
 * 2. What is left has no cycle between processes.  So every cycle between transactions in it passes
 *	  through a transaction that holds with one process and waits with another, which no server
 *	  can see alone.  (That may be a transaction that waits for itself, with two branches.)
 * 3. The youngest transaction that is on any cycle is the youngest of each cycle it is on.
 * 4. The victims depend on the graph alone, not on the order in which it is listed: whoever sees
 *	  the same waits gives the same advice.
 */
#ifndef CONCORD_CORE_DEADLOCK_H
#define CONCORD_CORE_DEADLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ConcordWaitTransaction
{
	int64_t		stamp;			/* when it began, by its coordinator's clock */
	const char *name;			/* unique; the greater is the younger of two with one stamp */
	bool		gone;			/* a victim already, or not to be considered at all */
} ConcordWaitTransaction;

typedef struct ConcordWait
{
	int			waiter;			/* process */
	int			blocker;		/* process, another one */
} ConcordWait;

typedef struct ConcordWaitGraph
{
	ConcordWaitTransaction *transactions;
	int			ntransactions;
	const int  *process;		/* transaction of each process */
	int			nprocesses;
	const ConcordWait *waits;
	int			nwaits;
} ConcordWaitGraph;

/* How many ints of working memory concord_deadlock_next() needs for a graph */
extern size_t concord_deadlock_scratch(const ConcordWaitGraph *graph);

/*
 * Finds the next victim, marks it gone, and returns the length of a shortest cycle it is on; 0
 * when there is none.  cycle[] (of ntransactions) receives the waits of that cycle: the first is
 * the victim's, each one's blocker is of the transaction whose wait is the next, and the last one's
 * is the victim's.
 *
 * Call it until it returns 0.  Takes O(transactions + processes + waits).
 */
extern int	concord_deadlock_next(ConcordWaitGraph *graph, int *scratch, int *victim, int *cycle);

#endif							/* CONCORD_CORE_DEADLOCK_H */
