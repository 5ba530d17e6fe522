/*
 * cluster.c
 *		Clients of a cluster of acceptors on a network that does whatever is allowed, for one seed.
 *
 * FAULTS, until the moment of healing: messages are lost, delayed, repeated, overtaken, cut off;
 * acceptors crash with what is not flushed (or not), come back, stay away, pause, go back in time
 * (and come back as other acceptors); clients crash, pause, give up, have old configurations;
 * clocks run at their own rates and jump; the set of acceptors changes, is given up half-way, and
 * its changer crashes; registers are deleted, collected, created again.  No more acceptors are
 * lost for ever than leaves a majority of each set.  After that moment everything must end:
 * progress.
 *
 * TIME is in ticks; a message takes 1 to 20, a flush 1 to 12.
 *
 * BUG seeds a mistake of the rooms above core, or bends what core does from outside; the macro is
 * looked at where the mistake is made.
 */
#include "cluster.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- acceptors */

/* Another acceptor in the place of this one, without any register */
static void
renew_node(int n)
{
	Node	   *node = &s.node[n];
	ConcordAcceptorId id = node->memory.acceptor.id;

	id.lineage = sim_random(&s.random);
	concord_acceptor_renew(&node->memory.acceptor, &id);
	memset(node->memory.reg, 0, sizeof(node->memory.reg));
	node->disk = node->memory;
	node->dirty = false;
	node->epoch++;
	node->member_once = false;
}

/* Does a configuration keep its quorums without a node? */
static bool
can_lose(int n)
{
	const ConcordConfig *config = &s.configs[s.nconfigs - 1];
	uint32_t	rest = 0;

	for (int i = 0; i < config->n; i++)
		if (node_of(&config->acceptor[i]) >= 0 && node_of(&config->acceptor[i]) != n)
			rest |= UINT32_C(1) << i;
	return concord_config_quorum(config, rest);
}

static void
restore_node(int n)
{
	Node	   *node = &s.node[n];

	if (node->dead || node->backup.acceptor.id.node == 0 || !can_lose(n))
		return;
	trace("node %d is restored from a backup", n + 1);
	s.counts->restored++;
	crash_node(n);
	node->memory = node->disk = node->backup;
#if BUG != 4					/* votes with its old identity */
	renew_node(n);
#endif
	node->up = true;
}

/* ---------------------------------------------------------------- clients */

static void
set_timer(int client, int64_t ticks)
{
	Client	   *c = &s.client[client];
	Event		e = {.kind = EVENT_TIMER, .client = client};

	e.epoch = ++c->epoch;
	push(&e, s.now + 1 + ticks * c->rate / 100);
}

static const ConcordConfig *
newest(void)
{
	return &s.configs[s.nconfigs - 1];
}

/* The newest configuration as a rule, or one that is old but not older than its own */
static void
learn_config(Client *c)
{
	const ConcordConfig *found = s.healed || chance(80) ? newest() : &s.configs[below(
																		(uint32_t) s.nconfigs)];

	if (found->version > c->config.version)
		c->config = *found;
}

static void
send_proposal(int client)
{
	Client	   *c = &s.client[client];
	uint32_t	missing = concord_proposal_missing(&c->p);
	ConcordRequest request;

	for (int i = 0; i < c->p.config.n; i++)
		if (missing & (UINT32_C(1) << i))
		{
			concord_proposal_request(&c->p, i, &request);
			send_request(client, s.ops[c->op].reg, &request);
		}
}

static void
end_operation(int client)
{
	Client	   *c = &s.client[client];
	SimOperation *o = &s.ops[c->op];

	o->result = c->p.result;
	o->value = c->p.value;
	o->end = o->result == CONCORD_RESULT_UNKNOWN ? SIM_FOREVER : s.now;
	c->task = TASK_NONE;
	trace("client %d: operation %d ends, result %d, version %" PRId64 ", kind %d", client, c->op,
		  (int) o->result, o->value.version, (int) o->value.kind);

	s.counts->operations++;
	s.counts->results[o->result]++;
	if (o->result == CONCORD_RESULT_OK && c->p.rounds == 1)
	{
		if (o->op == CONCORD_WRITE)
			s.counts->one_round++;
		else if (o->op == CONCORD_READ)
			s.counts->one_round_reads++;
	}
	if (o->result == CONCORD_RESULT_OK && o->op == CONCORD_COLLECT && c->p.rounds >= 3)
		s.counts->collected++;
	if (o->result == CONCORD_RESULT_OK && o->op == CONCORD_WRITE &&
		o->expected == CONCORD_EXPECT_NONE && o->value.version > 1)
		s.counts->recreated++;
	if (c->p.ahead.ballot.counter > 0)
		c->ahead[o->reg] = c->p.ahead;
	if (o->op != CONCORD_COLLECT &&
		(o->result == CONCORD_RESULT_OK || o->result == CONCORD_RESULT_MISMATCH))
		c->seen[o->reg] = o->value.kind == CONCORD_VALUE_SET ? o->value.version : 0;
}

static void changer_goes_on(void);

/* Does what core says is next; until then *p is the client's operation. */
static void
carry_out(int client, ConcordNext next)
{
	Client	   *c = &s.client[client];
	SimOperation *o = &s.ops[c->op];

	/* what may be chosen from now on is on record before it is sent */
	if (c->p.origin.counter > 0 &&
		(o->norigins == 0 ||
		 concord_ballot_compare(&o->origins[o->norigins - 1], &c->p.origin) != 0))
		o->origins[o->norigins++] = c->p.origin;

	switch (next)
	{
		case CONCORD_NEXT_WAIT:
			break;
		case CONCORD_NEXT_SEND:
			if (o->norigins == SIM_ORIGINS)
			{
				carry_out(client, concord_proposal_give_up(&c->p));
				break;
			}
			send_proposal(client);
			set_timer(client, 60 + below(100));
			break;
		case CONCORD_NEXT_BACK_OFF:
			set_timer(client, (int64_t) c->p.backoff * 15);
			break;
		case CONCORD_NEXT_RECONFIGURE:
			set_timer(client, 1 + below(60));
			break;
		case CONCORD_NEXT_DONE:
			end_operation(client);
			if (client == CHANGER)
				changer_goes_on();
			else
				set_timer(client, below(4) == 0 ? below(200) : below(20));
			break;
	}
}

static void
start_operation(int client, int reg, ConcordOperation op, int64_t expected)
{
	Client	   *c = &s.client[client];
	SimOperation *o = &s.ops[s.nops];

	if (s.nops >= SIM_OPERATIONS)
		return;
	memset(o, 0, sizeof(*o));
	o->client = client;
	o->reg = reg;
	o->op = op;
	o->expected = expected;
	o->start = s.now;
	o->end = SIM_FOREVER;
	c->op = s.nops++;
	c->task = TASK_OPERATION;
	c->deadline = s.now + 200 + below(1200);
	trace("client %d: operation %d begins: %d of register %d, expects %" PRId64, client, c->op,
		  (int) op, reg, expected);
	carry_out(client, concord_proposal_start(&c->p, &c->proposer, &c->config, op, expected,
											 SIM_DATA(c->op), 8, &c->ahead[reg],
											 sim_random(&s.random)));
}

static void
start_any_operation(int client)
{
	Client	   *c = &s.client[client];
	int			reg = (int) below(chance(60) ? 1 : SIM_REGISTERS);
	uint32_t	which = below(100);

	if (chance(30))
		learn_config(c);
	if (which < 28)
		start_operation(client, reg, CONCORD_READ, 0);
	else if (which < 58)
		start_operation(client, reg, CONCORD_WRITE, c->seen[reg]);
	else if (which < 68)
		start_operation(client, reg, CONCORD_WRITE, CONCORD_EXPECT_ANY);
	else if (which < 74)
		start_operation(client, reg, CONCORD_WRITE, CONCORD_EXPECT_NONE);
	else if (which < 86)
		start_operation(client, reg, CONCORD_DELETE,
						c->seen[reg] > 0 && chance(50) ? c->seen[reg] : CONCORD_EXPECT_ANY);
	else
		start_operation(client, reg, CONCORD_COLLECT, 0);
}

#if BUG == 5
/* Takes those that have not answered for done. */
static ConcordNext
collect_too_early(Client *c, ConcordNext next)
{
	while (next == CONCORD_NEXT_WAIT && c->p.op == CONCORD_COLLECT &&
		   concord_config_quorum(&c->p.config, c->p.answered) &&
		   (c->p.phase == CONCORD_PREPARING || c->p.phase == CONCORD_ACCEPTING))
		for (int i = 0; i < c->p.config.n && next == CONCORD_NEXT_WAIT; i++)
			if (concord_proposal_missing(&c->p) & (UINT32_C(1) << i))
			{
				ConcordAnswer a = {.from = c->p.config.acceptor[i], .ballot = c->p.ballot};

				a.kind = c->p.phase == CONCORD_PREPARING ? CONCORD_ANSWER_PROMISED :
					CONCORD_ANSWER_ACCEPTED;
				next = concord_proposal_answer(&c->p, &a);
			}
	return next;
}
#endif

#if BUG == 6
/* Passes another one's promise without asking what it knows. */
static bool
skip_prepare(int client, const ConcordAnswer *answer)
{
	Client	   *c = &s.client[client];

	if (c->p.phase != CONCORD_ACCEPTING || c->p.rounds != 1 || !c->p.own ||
		answer->kind != CONCORD_ANSWER_REFUSED ||
		concord_ballot_compare(&answer->ballot, &c->p.ballot) != 0)
		return false;
	c->proposer.counter = answer->promised.counter + 1;
	c->p.ballot.counter = c->proposer.counter;
	c->p.next.counter = ++c->proposer.counter;
	c->p.answered = c->p.refused = c->p.promised_next = 0;
	carry_out(client, CONCORD_NEXT_SEND);
	return true;
}
#endif

static void
take_answer(Event *e)
{
	Client	   *c = &s.client[e->client];
	ConcordNext next;

	if (!c->up)
		return;
	if (c->paused_until > s.now)
	{
		push(e, c->paused_until);
		return;
	}
	if (c->task == TASK_TRANSFER)
	{
		uint32_t	listed = s.transfer.listed;

		if (listed == 0 && e->m.answer.kind == CONCORD_ANSWER_ENLISTED)
			for (int i = 0; i < s.transfer.config.n; i++)
				if (concord_acceptor_same(&s.transfer.config.acceptor[i], &e->m.answer.from))
					s.names[i] |= e->names;
		next = concord_transfer_answer(&s.transfer, &e->m.answer);
		if (next == CONCORD_NEXT_SEND || next == CONCORD_NEXT_DONE)
			changer_goes_on();
		return;
	}
	if (c->task != TASK_OPERATION)
		return;
#if BUG == 6
	if (skip_prepare(e->client, &e->m.answer))
		return;
#endif
	next = concord_proposal_answer(&c->p, &e->m.answer);
#if BUG == 5
	next = collect_too_early(c, next);
#endif
	if (next != CONCORD_NEXT_WAIT)
		carry_out(e->client, next);
}

/* Whoever waits in vain asks for a newer configuration: those it knows may all be gone. */
static bool
newest_is_due(const Client *c)
{
	return c->p.phase != CONCORD_BACKING_OFF && c->p.config.version < newest()->version &&
		chance(30);
}

static void
operation_timer(int client)
{
	Client	   *c = &s.client[client];

	if (!s.healed && s.now > c->deadline && client != CHANGER)
		carry_out(client, concord_proposal_give_up(&c->p));
	else if (c->p.phase == CONCORD_OUTDATED || newest_is_due(c))
	{
		learn_config(c);
		carry_out(client, concord_proposal_reconfigure(&c->p, &c->config));
	}
	else if (c->p.phase != CONCORD_BACKING_OFF && chance(50))
	{
		send_proposal(client);
		set_timer(client, 60 + below(100));
	}
	else
		carry_out(client, concord_proposal_retry(&c->p));
}

static void
crash_client(int client)
{
	Client	   *c = &s.client[client];

	trace("client %d crashes", client);
	if (c->task == TASK_OPERATION)
	{
		SimOperation *o = &s.ops[c->op];

		o->result = o->norigins > 0 ? CONCORD_RESULT_UNKNOWN : CONCORD_RESULT_FAILED;
	}
	c->task = TASK_NONE;
	c->up = false;
	memset(c->ahead, 0, sizeof(c->ahead));
	memset(c->seen, 0, sizeof(c->seen));
	c->proposer.counter = 0;
#if BUG != 3					/* the ballots of the run before are used again */
	c->proposer.incarnation = sim_random(&s.random);
#endif
	c->config = s.configs[chance(70) ? (uint32_t) s.nconfigs - 1 : below((uint32_t) s.nconfigs)];
	set_timer(client, 20 + below(300));
}

/* ---------------------------------------------------------------- change of the set */

static void
publish(const ConcordConfig *config)
{
	s.configs[s.nconfigs++] = *config;
	s.client[CHANGER].config = *config;
	for (int i = 0; i < config->n; i++)
		if (node_of(&config->acceptor[i]) >= 0)
			s.node[node_of(&config->acceptor[i])].member_once = true;
	trace("configuration %" PRIu64 ": %d acceptors, sets %x and %x", config->version, config->n,
		  config->old_set, config->new_set);
}

static void
send_transfer(void)
{
	ConcordRequest request;

	for (int i = 0; i < s.transfer.config.n; i++)
		if (!(s.transfer.answered & (UINT32_C(1) << i)))
		{
			concord_transfer_request(&s.transfer, i, &request);
			send_request(CHANGER, -1, &request);
		}
	set_timer(CHANGER, 60 + below(100));
}

static void
start_transfer(void)
{
	s.client[CHANGER].task = TASK_TRANSFER;
	memset(s.names, 0, sizeof(s.names));
	s.to_read = 0;
	(void) concord_transfer_start(&s.transfer, newest());
	send_transfer();
}

/* A node that may join, or -1 */
static int
find_spare(void)
{
	int			first = (int) below(NODES);

	for (int k = 0; k < NODES; k++)
	{
		int			n = (first + k) % NODES;
		bool		member = false;

		for (int i = 0; i < newest()->n; i++)
			member = member || node_of(&newest()->acceptor[i]) == n;
		if (!member && s.node[n].up)
			return n;
	}
	return -1;
}

/* A member that is gone, or lives on under another identity; else NULL */
static const ConcordAcceptorId *
find_lost(void)
{
	for (int i = 0; i < newest()->n; i++)
		if (node_of(&newest()->acceptor[i]) < 0)
			return &newest()->acceptor[i];
	return NULL;
}

/* Adds, removes or exchanges one acceptor; one that is lost first. */
static void
change_set(void)
{
	ConcordConfig config = *newest();
	const ConcordAcceptorId *remove = find_lost();
	int			spare = find_spare();
	bool		add = spare >= 0 && (remove != NULL ? config.n <= 3 || chance(80) : chance(60));

	if (config.new_set != 0 || s.nconfigs + 2 >= CONFIGS)
		return;
	if (remove == NULL && (!add || chance(60)) && (add || config.n > 1))
		remove = &newest()->acceptor[below((uint32_t) config.n)];
#if BUG != 10					/* who was a member once joins again as it is */
	if (add && s.node[spare].member_once)
		renew_node(spare);
#endif
	if (concord_config_join(&config, add ? &s.node[spare].memory.acceptor.id : NULL, remove))
	{
		publish(&config);
		start_transfer();
	}
}

static void
settle(bool abandon)
{
	ConcordConfig config = *newest();

	if (abandon ? !concord_config_abandon(&config) : !concord_config_settle(&config))
		return;
	if (abandon)
		s.counts->abandoned++;
	else
		s.counts->settled++;
	publish(&config);
}

/* After healing: all members are there, every register is collected and read, and that is all. */
static void
final_step(void)
{
	if (find_lost() != NULL)
	{
		change_set();
		set_timer(CHANGER, 10);
		return;
	}
	if (s.final < 2 * SIM_REGISTERS)
	{
		int			step = s.final++;

		start_operation(CHANGER, step / 2, step % 2 == 0 ? CONCORD_COLLECT : CONCORD_READ, 0);
	}
	else
		s.final = 2 * SIM_REGISTERS + 1;
}

static void
changer_goes_on(void)
{
	Client	   *c = &s.client[CHANGER];

	if (c->task == TASK_TRANSFER)
	{
#if BUG == 7					/* the new set decides before the registers were read */
		c->task = TASK_NONE;
		settle(false);
		set_timer(CHANGER, 10);
		return;
#endif
#if BUG == 13					/* floors are not carried over */
		if (s.transfer.phase == CONCORD_REQUEST_RAISE)
			s.transfer.done = true;
#endif
		if (!s.transfer.done)
		{
			send_transfer();
			return;
		}
		for (int i = 0; i < s.transfer.config.n; i++)
			if (s.transfer.listed & (UINT32_C(1) << i))
				s.to_read |= s.names[i];
		c->task = TASK_NONE;
	}
	else if (newest()->new_set != 0 && c->p.op == CONCORD_READ &&
			 c->p.result == CONCORD_RESULT_OK && c->p.config.version == newest()->version)
		s.to_read &= ~(UINT32_C(1) << s.ops[c->op].reg);

	if (newest()->new_set != 0 && s.transfer.done &&
		s.transfer.config.version == newest()->version)
	{
		for (int r = 0; r < SIM_REGISTERS; r++)
			if (s.to_read & (UINT32_C(1) << r))
			{
				start_operation(CHANGER, r, CONCORD_READ, 0);
				return;
			}
		settle(false);
	}
	set_timer(CHANGER, 10);
}

static void
changer_timer(void)
{
	Client	   *c = &s.client[CHANGER];

	if (c->task == TASK_OPERATION)
		operation_timer(CHANGER);
	else if (newest()->new_set != 0)
	{
		if (!s.healed && chance(3))
		{
			settle(true);
			c->task = TASK_NONE;
			set_timer(CHANGER, 10);
		}
		else if (c->task == TASK_TRANSFER && s.transfer.config.version == newest()->version)
			send_transfer();
		else
			start_transfer();
	}
	else
	{
		c->task = TASK_NONE;
		if (s.healed)
			final_step();
		else
			set_timer(CHANGER, 50);
	}
}

static void
take_timer(Event *e)
{
	Client	   *c = &s.client[e->client];

	if (e->epoch != c->epoch)
		return;
	if (c->paused_until > s.now)
	{
		push(e, c->paused_until);
		return;
	}
	c->up = true;
	if (e->client == CHANGER)
		changer_timer();
	else if (c->task == TASK_OPERATION)
		operation_timer(e->client);
	else if (c->left > 0)
	{
		c->left--;
		start_any_operation(e->client);
	}
}

/* ---------------------------------------------------------------- faults */

static void
node_fault(int n, uint32_t which)
{
	Node	   *node = &s.node[n];

	if (which < 25)
		crash_node(n);			/* and comes back with another fault, or when all heals */
	else if (which < 45)
		node->up = !node->dead;
	else if (which < 50 && !node->dead && can_lose(n))
	{
		crash_node(n);
		node->dead = true;
		trace("node %d is lost", n + 1);
	}
	else if (which < 62)
		node->paused_until = s.now + below(800);
	else if (which < 75)
		node->cut_until = s.now + below(800);
	else if (which < 85)
		node->backup = node->disk;
	else if (which < 95)
		restore_node(n);
	else
		for (int r = 0; r < SIM_REGISTERS && node->up; r++)
			if (concord_acceptor_forget(&node->memory.acceptor, &node->memory.reg[r]) != 0)
				node->dirty = true;
}

static void
take_fault(void)
{
	uint32_t	which = below(100);
	int			client = (int) below(CLIENTS + 1);
	Event		e = {.kind = EVENT_FAULT};

	if (which < s.node_faults)
	{
		/* mostly one that matters */
		int			member = node_of(&newest()->acceptor[below((uint32_t) newest()->n)]);

		node_fault(member >= 0 && chance(85) ? member : (int) below(NODES), below(100));
	}
	else if (which < s.node_faults + 15)
		crash_client(client);
	else if (which < s.node_faults + 20)
		s.client[client].paused_until = s.now + below(1500);
	else if (which < s.node_faults + 24 && s.client[client].up)
		set_timer(client, 0);	/* its clock jumps: whatever it waits for is over */
	else if (s.client[CHANGER].task == TASK_NONE)
		change_set();
	if (s.faults-- > 0)
		push(&e, s.now + 1 + below(200));
}

static void
take_heal(void)
{
	trace("everything heals");
	s.healed = true;
	s.lose = s.repeat = s.slow = 0;
	for (int n = 0; n < NODES; n++)
	{
		s.node[n].up = !s.node[n].dead;
		s.node[n].paused_until = s.node[n].cut_until = 0;
	}
	for (int c = 0; c <= CLIENTS; c++)
	{
		s.client[c].paused_until = 0;
		s.client[c].left = 2;
		if (s.client[c].task == TASK_NONE || c == CHANGER)
			set_timer(c, below(20));
	}
}

/* ---------------------------------------------------------------- a run */

static void
set_up(uint64_t seed, bool verbose, SimCounts *counts)
{
	static const int sizes[] = {3, 3, 3, 5, 5, 1, 2, 4};
	ConcordAcceptorId ids[CONCORD_ACCEPTORS_MAX];
	Event		e = {.kind = EVENT_FAULT};
	int			n;

	memset(&s, 0, sizeof(s));
	empty_queue();
	s.seed = seed;
	s.random = seed * UINT64_C(0x2545f4914f6cdd1d) + 1;
	s.verbose = verbose;
	s.counts = counts;
	n = sizes[below(sizeof(sizes) / sizeof(sizes[0]))];
	s.lose = below(4) * below(9);
	s.repeat = below(3) * below(12);
	s.slow = below(3) * below(8);
	s.node_faults = 20 + below(50);
	s.sudden = below(2) * below(25);
	s.faults = (int) below(40);
	for (int i = 0; i < NODES; i++)
	{
		ConcordAcceptorId *id = &s.node[i].memory.acceptor.id;

		id->node = i + 1;
		id->generation = 1;
		id->lineage = sim_random(&s.random);
		s.node[i].disk = s.node[i].memory;
		s.node[i].up = true;
		if (i < n)
		{
			ids[i] = *id;
			s.node[i].member_once = true;
		}
	}
	if (!concord_config_first(&s.configs[0], 1, ids, n))
		abort();
	s.nconfigs = 1;
	for (int c = 0; c <= CLIENTS; c++)
	{
		Client	   *client = &s.client[c];

		client->proposer.node = 1 + c / 2;	/* two of a node have different numbers */
		client->proposer.proposer = (uint32_t) c;
		client->proposer.incarnation = sim_random(&s.random);
		client->config = s.configs[0];
		client->rate = 80 + (int) below(41);
		client->up = true;
		client->left = c == CHANGER ? 0 : 4 + (int) below(20);
		set_timer(c, below(100));
	}
	if (s.faults > 0)
		push(&e, 1 + below(300));
	e.kind = EVENT_HEAL;
	push(&e, HEALING);
}

static bool
all_done(void)
{
	if (!s.healed || s.final <= 2 * SIM_REGISTERS)
		return false;
	for (int c = 0; c < CLIENTS; c++)
		if (s.client[c].task != TASK_NONE || s.client[c].left > 0)
			return false;
	return true;
}

const char *
sim_run(uint64_t seed, bool verbose, SimCounts *counts)
{
	set_up(seed, verbose, counts);
	while (!is_empty() && !all_done() && s.now < LAST)
	{
		Event		e = pop();

		s.now = e.time;
		counts->events++;
		switch (e.kind)
		{
			case EVENT_REQUEST:
				take_request(&e);
				break;
			case EVENT_FLUSHED:
				take_flushed(&e);
				break;
			case EVENT_ANSWER:
				take_answer(&e);
				break;
			case EVENT_TIMER:
				take_timer(&e);
				break;
			case EVENT_FAULT:
				if (!s.healed)
					take_fault();
				break;
			case EVENT_RESTART:
				s.node[e.node].up = !s.node[e.node].dead;
				break;
			case EVENT_HEAL:
				take_heal();
				break;
			case EVENT_GUARDED:
			case EVENT_WAKE:
				break;
		}
	}
	for (int r = 0; r < SIM_REGISTERS && s.wrong == NULL; r++)
		s.wrong = sim_history_check(s.ops, s.nops, r);
	if (s.wrong == NULL && !all_done())
		s.wrong = SIM_NO_PROGRESS;
	return s.wrong;
}

/* ---------------------------------------------------------------- what was met */

const char *const sim_name = "registers";

void
sim_show_counts(const SimCounts *c)
{
	printf("# %" PRIu64 " events, %" PRIu64 " operations: %" PRIu64 " ok, %" PRIu64
		   " mismatch, %" PRIu64 " failed, %" PRIu64 " unknown\n", c->events, c->operations,
		   c->results[CONCORD_RESULT_OK], c->results[CONCORD_RESULT_MISMATCH],
		   c->results[CONCORD_RESULT_FAILED], c->results[CONCORD_RESULT_UNKNOWN]);
	printf("# in one round: %" PRIu64 " changes, %" PRIu64 " reads; %" PRIu64 " collected, %" PRIu64
		   " created anew; %" PRIu64 " crashes, %" PRIu64 " restored; sets: %" PRIu64
		   " settled, %" PRIu64 " abandoned\n", c->one_round, c->one_round_reads, c->collected,
		   c->recreated, c->crashes, c->restored, c->settled, c->abandoned);
}

bool
sim_has_met_everything(const SimCounts *c, uint64_t seeds)
{
	return c->results[CONCORD_RESULT_OK] > seeds * 5 && c->results[CONCORD_RESULT_UNKNOWN] > 0 &&
		c->results[CONCORD_RESULT_FAILED] > 0 && c->results[CONCORD_RESULT_MISMATCH] > 0 &&
		c->one_round > 0 && c->one_round_reads > 0 && c->collected > 0 && c->recreated > 0 &&
		c->crashes > 0 && c->restored > 0 && c->settled > 0 && c->abandoned > 0;
}
