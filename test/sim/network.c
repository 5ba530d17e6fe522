/*
 * network.c
 *		Chance, the queue of events, and a network that loses, repeats and delays.
 */
#include "cluster.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define QUEUE 8192

Cluster		s;

static Event queue[QUEUE];
static int	nqueue;

/* ---------------------------------------------------------------- chance, trace, queue */

uint32_t
below(uint32_t n)
{
	return (uint32_t) (sim_random(&s.random) % n);
}

bool
chance(uint32_t percent)
{
	return below(100) < percent;
}

void
trace(const char *format,...)
{
	va_list		args;

	if (!s.verbose)
		return;
	printf("# %6" PRId64 " ", s.now);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
}

static bool
earlier(const Event *a, const Event *b)
{
	return a->time != b->time ? a->time < b->time : a->serial < b->serial;
}

void
push(const Event *event, int64_t time)
{
	int			i = nqueue;
	Event		e = *event;

	if (nqueue >= QUEUE && event->kind != EVENT_TIMER)
		return;
	if (nqueue >= QUEUE)
		abort();
	e.time = time;
	e.serial = s.serial++;
	for (nqueue++; i > 0 && earlier(&e, &queue[(i - 1) / 2]); i = (i - 1) / 2)
		queue[i] = queue[(i - 1) / 2];
	queue[i] = e;
}

Event
pop(void)
{
	Event		first = queue[0];
	Event	   *last = &queue[--nqueue];
	int			i = 0;

	for (int child = 1; child < nqueue; child = 2 * i + 1)
	{
		if (child + 1 < nqueue && earlier(&queue[child + 1], &queue[child]))
			child++;
		if (!earlier(&queue[child], last))
			break;
		queue[i] = queue[child];
		i = child;
	}
	queue[i] = *last;
	return first;
}

bool
is_empty(void)
{
	return nqueue == 0;
}

void
empty_queue(void)
{
	nqueue = 0;
}

/* ---------------------------------------------------------------- network */

bool
is_cut(int node)
{
	return s.node[node].cut_until > s.now;
}

void
transmit(const Event *event)
{
	int			copies = chance(s.repeat) ? 2 : 1;

	if (chance(s.lose) || is_cut(event->node))
		return;
	while (copies-- > 0)
		push(event, s.now + 1 + below(20) + (chance(s.slow) ? below(600) : 0));
}

int
node_of(const ConcordAcceptorId *id)
{
	const Node *node = &s.node[id->node - 1];

	return concord_acceptor_same(&node->memory.acceptor.id, id) && !node->dead ? id->node - 1 : -1;
}
