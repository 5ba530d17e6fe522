/*
 * acceptors.c
 *		Acceptors with a memory and a disk: what arrives, what is flushed, what a crash leaves.
 *
 * BUG seeds a mistake of the rooms above core, see check.sh.
 */
#include "cluster.h"

#include <inttypes.h>

void
send_request(int client, int reg, const ConcordRequest *request)
{
	Event		e = {.kind = EVENT_REQUEST, .client = client, .reg = reg};

	e.node = request->to.node - 1;
	e.m.request = *request;
	transmit(&e);
}

static void
send_answer(const Event *flushed)
{
	Event		e = *flushed;

	e.kind = EVENT_ANSWER;
	transmit(&e);
}

static uint32_t
names_of(const Storage *storage)
{
	uint32_t	names = 0;

	for (int r = 0; r < SIM_REGISTERS; r++)
		if (storage->reg[r].promised.counter > 0)
			names |= UINT32_C(1) << r;
	return names;
}

/* What is not done of what the step said must be */
static void
spoil(Node *node, const Storage *before, const ConcordRequest *request)
{
	(void) node;
	(void) before;
	(void) request;
#if BUG == 8					/* version floor not raised */
	if (request->kind == CONCORD_REQUEST_ERASE)
		node->memory.acceptor.version_floor = before->acceptor.version_floor;
#elif BUG == 9					/* promises forgotten with a register */
	if (request->kind == CONCORD_REQUEST_ERASE)
		node->memory.acceptor.ballot_floor = before->acceptor.ballot_floor;
#elif BUG == 12					/* refused configurations are not remembered */
	node->memory.acceptor.config = before->acceptor.config;
#endif
}

void
crash_node(int n)
{
	Node	   *node = &s.node[n];

	trace("node %d crashes", n + 1);
	s.counts->crashes++;
	node->up = false;
	node->epoch++;
	if (node->dirty && chance(30))
		node->disk = node->memory;	/* was written all the same */
	node->memory = node->disk;
	node->dirty = false;
}

/* A crash at the worst moment, and a quick restart */
static void
crash_suddenly(int n)
{
	Event		e = {.kind = EVENT_RESTART, .node = n};

	if (s.healed || below(1000) >= s.sudden)
		return;
	crash_node(n);
	push(&e, s.now + 1 + below(60));
}

static void
step_acceptor(Event *e)
{
	Node	   *node = &s.node[e->node];
	Storage		before;
	ConcordRequest request = e->m.request;
	unsigned int effects;
	bool		wait;

#if BUG == 8 || BUG == 9 || BUG == 12
	before = node->memory;
#endif
	effects = concord_acceptor_step(&node->memory.acceptor,
									e->reg < 0 ? NULL : &node->memory.reg[e->reg],
									&request, &e->m.answer);
	spoil(node, &before, &request);
	if (s.verbose)
		trace("node %d: request %d for register %d, ballot %" PRIu64 "/%d, config %" PRIu64
			  ": answer %d, promised %" PRIu64 "/%d, accepted %" PRIu64 "/%d", e->node + 1,
			  (int) request.kind, e->reg, request.ballot.counter, request.ballot.node,
			  request.config, (int) e->m.answer.kind, e->m.answer.promised.counter,
			  e->m.answer.promised.node, e->m.answer.accepted.counter, e->m.answer.accepted.node);
	e->names = names_of(&node->memory);
	e->kind = EVENT_FLUSHED;
	e->epoch = node->epoch;

	wait = effects != 0;
	if (wait)
		node->dirty = true;
#if BUG == 1					/* a promise is not flushed */
	if (e->m.answer.kind == CONCORD_ANSWER_PROMISED)
	{
		send_answer(e);
		return;
	}
#elif BUG == 2					/* an accepted value is not flushed */
	if (e->m.answer.kind == CONCORD_ANSWER_ACCEPTED)
	{
		send_answer(e);
		return;
	}
#endif
#if BUG != 11					/* an answer tells what others have stored and not flushed */
	wait = node->dirty;
#endif
	if (wait)
		push(e, s.now + 1 + below(12));
	else
		send_answer(e);
}

void
take_request(Event *e)
{
	Node	   *node = &s.node[e->node];

	if (!node->up || is_cut(e->node))
		return;
	if (node->paused_until > s.now)
	{
		push(e, node->paused_until);
		return;
	}
	step_acceptor(e);
	crash_suddenly(e->node);
}

void
take_flushed(Event *e)
{
	Node	   *node = &s.node[e->node];

	if (!node->up || node->epoch != e->epoch)
		return;
	if (node->paused_until > s.now)
	{
		push(e, node->paused_until);
		return;
	}
	node->disk = node->memory;	/* a flush takes everything along */
	node->dirty = false;
	send_answer(e);
}
