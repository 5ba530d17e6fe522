/*
 * deadlock.c
 *		Cycles of waits between servers: see deadlock.h.
 *
 * Strongly connected components are found twice (Tarjan's algorithm without recursion, since graphs
 * may be deep): of processes, to leave out what a server sees by itself, then of transactions.
 */
#include "core/deadlock.h"

#include <string.h>

/* A directed graph of n vertices; its edges are waits, ordered by the vertex they leave */
typedef struct Digraph
{
	int			n;
	int		   *start;			/* [n + 1] first edge of each vertex */
	int		   *target;			/* [edges] */
	int		   *wait;			/* [edges] index of the wait */
	int		   *component;		/* [n] */
	int		   *size;			/* [n] vertices of each component */
	int		   *work[5];		/* [n] each */
} Digraph;

#define ARRAYS_PER_VERTEX 9		/* start, component, size, work[5], and local */

static int
vertices(const ConcordWaitGraph *graph)
{
	return graph->ntransactions > graph->nprocesses ? graph->ntransactions : graph->nprocesses;
}

size_t
concord_deadlock_scratch(const ConcordWaitGraph *graph)
{
	return (size_t) vertices(graph) * ARRAYS_PER_VERTEX + 1 + (size_t) graph->nwaits * 2;
}

/* Cuts the working memory into a digraph's arrays; returns what is left. */
static int *
carve(Digraph *d, const ConcordWaitGraph *graph, int *scratch)
{
	int			n = vertices(graph);

	d->start = scratch;
	scratch += n + 1;
	d->component = scratch;
	scratch += n;
	d->size = scratch;
	scratch += n;
	for (int i = 0; i < 5; i++, scratch += n)
		d->work[i] = scratch;
	d->target = scratch;
	scratch += graph->nwaits;
	d->wait = scratch;
	return scratch + graph->nwaits;
}

static bool
counts(const ConcordWaitGraph *graph, const ConcordWait *wait, const int *local)
{
	return local == NULL ||
		(!graph->transactions[graph->process[wait->waiter]].gone &&
		 !graph->transactions[graph->process[wait->blocker]].gone &&
		 !local[wait->waiter]);
}

/*
 * The digraph of all processes (local is NULL), or of the transactions that are not gone, without
 * the waits of local processes.
 */
static void
build(Digraph *d, const ConcordWaitGraph *graph, const int *local)
{
	int			edges = 0;

	d->n = local == NULL ? graph->nprocesses : graph->ntransactions;
	memset(d->start, 0, sizeof(int) * (size_t) (d->n + 1));
	for (int pass = 0; pass < 2; pass++)
	{
		for (int w = 0; w < graph->nwaits; w++)
		{
			const ConcordWait *wait = &graph->waits[w];
			int			from = local == NULL ? wait->waiter : graph->process[wait->waiter];
			int			to = local == NULL ? wait->blocker : graph->process[wait->blocker];

			if (!counts(graph, wait, local))
				continue;
			if (pass == 0)
				d->start[from]++;
			else
			{
				d->target[--d->start[from]] = to;
				d->wait[d->start[from]] = w;
			}
		}
		if (pass == 0)
		{
			/* each start becomes its vertex's end, and is counted down to the start again */
			for (int v = 0; v < d->n; v++)
				edges = d->start[v] += edges;
			d->start[d->n] = edges;
		}
	}
}

static void
find_components(Digraph *d)
{
	int		   *number = d->work[0];	/* order of discovery from 1, 0 = not seen */
	int		   *low = d->work[1];
	int		   *next = d->work[2];	/* edge to look at next */
	int		   *path = d->work[3];	/* the recursion */
	int		   *stack = d->work[4]; /* vertices without a component yet */
	int			seen = 0;
	int			depth = 0;
	int			height = 0;
	int			components = 0;

	memset(number, 0, sizeof(int) * (size_t) d->n);
	for (int root = 0; root < d->n; root++)
	{
		if (number[root] == 0)
			path[depth++] = root;
		while (depth > 0)
		{
			int			v = path[depth - 1];

			if (number[v] == 0)
			{
				number[v] = low[v] = ++seen;
				next[v] = d->start[v];
				stack[height++] = v;
				d->component[v] = -1;
			}
			if (next[v] < d->start[v + 1])
			{
				int			to = d->target[next[v]];

				if (number[to] == 0)
				{
					path[depth++] = to; /* and look at this edge again */
					continue;
				}
				next[v]++;
				if (d->component[to] < 0 && low[to] < low[v])
					low[v] = low[to];
				continue;
			}
			depth--;
			if (low[v] < number[v])
				continue;
			d->size[components] = 0;
			do
			{
				d->component[stack[--height]] = components;
				d->size[components]++;
			} while (stack[height] != v);
			components++;
		}
	}
}

static bool
is_younger(const ConcordWaitTransaction *a, const ConcordWaitTransaction *b)
{
	return a->stamp > b->stamp || (a->stamp == b->stamp && strcmp(a->name, b->name) > 0);
}

/* Is the transaction on a cycle? */
static bool
is_stuck(const Digraph *d, int v)
{
	if (d->size[d->component[v]] > 1)
		return true;
	for (int e = d->start[v]; e < d->start[v + 1]; e++)
		if (d->target[e] == v)
			return true;
	return false;
}

/* A shortest cycle through v, which is on one. */
static int
find_cycle(Digraph *d, const ConcordWaitGraph *graph, int v, int *cycle)
{
	int		   *arrived_by = d->work[0];	/* wait, -1 = not reached */
	int		   *queue = d->work[1];
	int			head = 0;
	int			tail = 0;
	int			length = 0;

	for (int i = 0; i < d->n; i++)
		arrived_by[i] = -1;
	queue[tail++] = v;
	while (arrived_by[v] < 0)
	{
		int			from = queue[head++];

		for (int e = d->start[from]; e < d->start[from + 1]; e++)
		{
			int			to = d->target[e];

			if (arrived_by[to] >= 0 || d->component[to] != d->component[v])
				continue;
			arrived_by[to] = d->wait[e];
			if (to != v)
				queue[tail++] = to;
		}
	}
	for (int at = v; length == 0 || at != v;
		 at = graph->process[graph->waits[cycle[length - 1]].waiter])
		cycle[length++] = arrived_by[at];
	for (int i = 0; i < length / 2; i++)
	{
		int			other = cycle[i];

		cycle[i] = cycle[length - 1 - i];
		cycle[length - 1 - i] = other;
	}
	return length;
}

int
concord_deadlock_next(ConcordWaitGraph *graph, int *scratch, int *victim, int *cycle)
{
	Digraph		d;
	int		   *local = carve(&d, graph, scratch);

	/* 1: also if a victim is among them, for then it may be broken in two places */
	build(&d, graph, NULL);
	find_components(&d);
	for (int p = 0; p < graph->nprocesses; p++)
		local[p] = d.size[d.component[p]] > 1;

	/* 2 */
	build(&d, graph, local);
	find_components(&d);
	*victim = -1;
	for (int t = 0; t < graph->ntransactions; t++)
		if (is_stuck(&d, t) &&
			(*victim < 0 ||
			 is_younger(&graph->transactions[t], &graph->transactions[*victim])))
			*victim = t;
	if (*victim < 0)
		return 0;
	graph->transactions[*victim].gone = true;	/* 3 */
	return find_cycle(&d, graph, *victim, cycle);
}
