/*
 * test_register.c
 *		Registers: each row of the header's tables, rounds and flushes of each operation.
 *
 * What happens when everything happens at once is left to test/sim and test/model.
 */
#include "unit.h"

#include <string.h>

#include "core/register.h"

#define N 3
#define ALL 7					/* acceptors, as bits */

typedef struct Cluster
{
	ConcordConfig config;
	ConcordAcceptor acceptor[N];
	ConcordRegister reg[N];
	int			flushes;		/* rounds in which somebody had to flush */
} Cluster;

static ConcordBallot
ballot(uint64_t counter, int node)
{
	ConcordBallot b = {.counter = counter, .incarnation = 77, .node = node, .proposer = 1};

	return b;
}

static ConcordAcceptorId
acceptor_id(int node)
{
	ConcordAcceptorId id = {.node = node, .generation = 1, .lineage = (uint64_t) node * 1000};

	return id;
}

static ConcordProposer
proposer(int node)
{
	ConcordProposer p = {.incarnation = 77, .node = node, .proposer = 1};

	return p;
}

static void
set_up(Cluster *c)
{
	ConcordAcceptorId ids[N];

	memset(c, 0, sizeof(*c));
	for (int i = 0; i < N; i++)
		ids[i] = c->acceptor[i].id = acceptor_id(i + 1);
	CHECK(concord_config_first(&c->config, 1, ids, N));
}

/* Sends the present request to a set of acceptors, as long as it stays the same one. */
static ConcordNext
send_to(Cluster *c, ConcordProposal *p, unsigned int to)
{
	ConcordNext next = CONCORD_NEXT_WAIT;
	unsigned int effects = 0;

	for (int i = 0; i < N && next == CONCORD_NEXT_WAIT; i++)
		if (to & 1U << i)
		{
			ConcordRequest request;
			ConcordAnswer answer;

			concord_proposal_request(p, i, &request);
			effects |= concord_acceptor_step(&c->acceptor[i], &c->reg[i], &request, &answer);
			next = concord_proposal_answer(p, &answer);
		}
	c->flushes += effects != 0;
	return next;
}

/* A whole operation, answered by some acceptors */
static ConcordResult
run(Cluster *c, ConcordProposal *p, ConcordProposer *me, ConcordOperation op, int64_t expected,
	ConcordAhead *ahead, unsigned int to)
{
	ConcordNext next = concord_proposal_start(p, me, &c->config, op, expected, "x", 1, ahead, 5);

	c->flushes = 0;
	for (int i = 0; i < 20 && next != CONCORD_NEXT_DONE; i++)
	{
		if (next == CONCORD_NEXT_BACK_OFF)
			next = concord_proposal_retry(p);
		next = send_to(c, p, to);
	}
	return p->result;
}

/* ---------------------------------------------------------------- ballots and configurations */

static void
register_ballots(void)
{
	ConcordBallot a = ballot(3, 1);
	ConcordBallot b = a;

	CHECK(concord_ballot_compare(&a, &b) == 0);
	b.proposer++;
	CHECK(concord_ballot_compare(&a, &b) < 0);
	a.incarnation++;
	CHECK(concord_ballot_compare(&a, &b) > 0);
	b.node++;
	CHECK(concord_ballot_compare(&a, &b) < 0);
	a.counter++;
	CHECK(concord_ballot_compare(&a, &b) > 0 && concord_ballot_compare(&b, &a) < 0);
}

static void
register_configs(void)
{
	ConcordAcceptorId ids[6];
	ConcordConfig c;
	ConcordConfig before;

	for (int i = 0; i < 6; i++)
		ids[i] = acceptor_id(i + 1);
	CHECK(!concord_config_first(&c, 1, ids, 0) && !concord_config_first(&c, 1, ids, 6));
	ids[1] = ids[0];
	CHECK(!concord_config_first(&c, 1, ids, 2));
	ids[1] = acceptor_id(2);
	for (int n = 1; n <= CONCORD_ACCEPTORS_MAX; n++)
	{
		CHECK(concord_config_first(&c, 1, ids, n));
		CHECK(concord_config_quorum(&c, (1U << (n / 2 + 1)) - 1));
		CHECK(!concord_config_quorum(&c, (1U << (n / 2)) - 1));
	}

	/* five are enough, but one of them may be exchanged */
	before = c;
	CHECK(!concord_config_join(&c, &ids[5], NULL) && !concord_config_join(&c, NULL, NULL));
	CHECK(!concord_config_join(&c, &ids[4], &ids[0]) && !concord_config_join(&c, NULL, &ids[5]));
	CHECK(!concord_config_settle(&c) && !concord_config_abandon(&c));
	CHECK(memcmp(&c, &before, sizeof(c)) == 0);
	CHECK(concord_config_join(&c, &ids[5], &ids[0]));
	CHECK(c.version == 2 && c.n == 6 && c.old_set == 0x1f && c.new_set == 0x3e);
	CHECK(!concord_config_join(&c, NULL, &ids[1]));

	/* a quorum is one of both */
	CHECK(concord_config_quorum(&c, 0x0e));
	CHECK(!concord_config_quorum(&c, 0x07));	/* two of the new set */
	CHECK(!concord_config_quorum(&c, 0x38) && concord_config_quorum(&c, 0x3c));
	CHECK(concord_config_everybody(&c, 0x3f) && !concord_config_everybody(&c, 0x3e));

	before = c;
	CHECK(concord_config_settle(&c));
	CHECK(c.version == 3 && c.n == 5 && c.new_set == 0);
	CHECK(concord_acceptor_same(&c.acceptor[0], &ids[1]));
	CHECK(concord_acceptor_same(&c.acceptor[4], &ids[5]));
	CHECK(concord_config_abandon(&before));
	CHECK(before.version == 3 && before.n == 5);
	CHECK(concord_acceptor_same(&before.acceptor[0], &ids[0]));

	/* the last one cannot go, unless another one comes */
	CHECK(concord_config_first(&c, 1, ids, 1));
	CHECK(!concord_config_join(&c, NULL, &ids[0]) && concord_config_join(&c, &ids[1], &ids[0]));
}

/* ---------------------------------------------------------------- the acceptor */

static ConcordAcceptor acceptor;
static ConcordRegister reg;
static ConcordRequest request;
static ConcordAnswer answer;

static void
begin(ConcordRequestKind kind, ConcordBallot b)
{
	memset(&request, 0, sizeof(request));
	request.kind = kind;
	request.to = acceptor.id;
	request.config = acceptor.config;
	request.ballot = b;
	if (kind == CONCORD_REQUEST_ACCEPT)
	{
		request.value.kind = CONCORD_VALUE_SET;
		request.value.version = 4;
	}
}

static void
expect(ConcordAnswerKind kind, unsigned int effects)
{
	unsigned int e = concord_acceptor_step(&acceptor, &reg, &request, &answer);

	CHECK(e == effects && answer.kind == kind, "effects %u, answer %d", e, (int) answer.kind);
	CHECK(answer.config == acceptor.config);
	CHECK(concord_ballot_compare(&answer.ballot, &request.ballot) == 0);
	CHECK(concord_ballot_compare(&reg.accepted, &reg.promised) <= 0);
}

static void
register_acceptor_ballots(void)
{
	memset(&acceptor, 0, sizeof(acceptor));
	memset(&reg, 0, sizeof(reg));
	acceptor.id = acceptor_id(1);

	begin(CONCORD_REQUEST_LOOK, ballot(0, 0));
	expect(CONCORD_ANSWER_LOOKED, 0);
	CHECK(answer.value.kind == CONCORD_VALUE_NONE);

	begin(CONCORD_REQUEST_PREPARE, ballot(5, 1));
	expect(CONCORD_ANSWER_PROMISED, CONCORD_STORE_REGISTER);
	expect(CONCORD_ANSWER_PROMISED, 0); /* repeated */
	request.ballot = ballot(4, 9);
	expect(CONCORD_ANSWER_REFUSED, 0);
	CHECK(answer.promised.counter == 5);

	begin(CONCORD_REQUEST_ACCEPT, ballot(4, 9));
	expect(CONCORD_ANSWER_REFUSED, 0);
	begin(CONCORD_REQUEST_ACCEPT, ballot(5, 1));
	request.next = ballot(8, 1);
	expect(CONCORD_ANSWER_ACCEPTED, CONCORD_STORE_REGISTER);
	CHECK(answer.promised.counter == 8 && reg.value.version == 4);
	expect(CONCORD_ANSWER_ACCEPTED, 0); /* repeated */
	begin(CONCORD_REQUEST_ACCEPT, ballot(7, 1));
	expect(CONCORD_ANSWER_REFUSED, 0);
	begin(CONCORD_REQUEST_PREPARE, ballot(7, 2));
	expect(CONCORD_ANSWER_REFUSED, 0);
	begin(CONCORD_REQUEST_ACCEPT, ballot(8, 1));	/* in one round */
	request.value.version = 5;
	expect(CONCORD_ANSWER_ACCEPTED, CONCORD_STORE_REGISTER);
	begin(CONCORD_REQUEST_ACCEPT, ballot(5, 1));	/* late */
	expect(CONCORD_ANSWER_REFUSED, 0);
	begin(CONCORD_REQUEST_PREPARE, ballot(9, 2));
	expect(CONCORD_ANSWER_PROMISED, CONCORD_STORE_REGISTER);
	CHECK(answer.accepted.counter == 8 && answer.value.version == 5);
	begin(CONCORD_REQUEST_ACCEPT, ballot(11, 3));	/* without a promise: above all of them */
	expect(CONCORD_ANSWER_ACCEPTED, CONCORD_STORE_REGISTER);
}

static void
register_acceptor_erases(void)
{
	memset(&acceptor, 0, sizeof(acceptor));
	memset(&reg, 0, sizeof(reg));
	acceptor.id = acceptor_id(1);

	begin(CONCORD_REQUEST_ACCEPT, ballot(5, 1));
	expect(CONCORD_ANSWER_ACCEPTED, CONCORD_STORE_REGISTER);
	begin(CONCORD_REQUEST_ERASE, ballot(5, 1)); /* not a tombstone */
	expect(CONCORD_ANSWER_ERASED, 0);
	begin(CONCORD_REQUEST_ACCEPT, ballot(6, 1));
	request.value.kind = CONCORD_VALUE_TOMBSTONE;
	expect(CONCORD_ANSWER_ACCEPTED, CONCORD_STORE_REGISTER);
	begin(CONCORD_REQUEST_PREPARE, ballot(9, 2));
	expect(CONCORD_ANSWER_PROMISED, CONCORD_STORE_REGISTER);
	begin(CONCORD_REQUEST_ERASE, ballot(5, 1)); /* another ballot */
	expect(CONCORD_ANSWER_ERASED, 0);
	begin(CONCORD_REQUEST_ERASE, ballot(6, 1));
	expect(CONCORD_ANSWER_ERASED, CONCORD_STORE_ACCEPTOR | CONCORD_DELETE_REGISTER);
	CHECK(reg.promised.counter == 0 && acceptor.version_floor == 4);
	CHECK(acceptor.ballot_floor.counter == 9);	/* R6: the promise stays */
	expect(CONCORD_ANSWER_ERASED, 0);

	begin(CONCORD_REQUEST_ACCEPT, ballot(9, 2));
	expect(CONCORD_ANSWER_REFUSED, 0);
	begin(CONCORD_REQUEST_PREPARE, ballot(9, 2));
	expect(CONCORD_ANSWER_REFUSED, 0);
	CHECK(answer.promised.counter == 9);
	begin(CONCORD_REQUEST_PREPARE, ballot(10, 1));
	expect(CONCORD_ANSWER_PROMISED, CONCORD_STORE_REGISTER);
	CHECK(answer.version_floor == 4);

	/* a promise alone may be forgotten, an accepted value not */
	CHECK(concord_acceptor_forget(&acceptor, &reg) ==
		  (CONCORD_STORE_ACCEPTOR | CONCORD_DELETE_REGISTER));
	CHECK(acceptor.ballot_floor.counter == 10 && concord_acceptor_forget(&acceptor, &reg) == 0);
	begin(CONCORD_REQUEST_ACCEPT, ballot(11, 1));
	expect(CONCORD_ANSWER_ACCEPTED, CONCORD_STORE_REGISTER);
	CHECK(concord_acceptor_forget(&acceptor, &reg) == 0);
}

static void
register_acceptor_refuses(void)
{
	ConcordAcceptorId new_id = acceptor_id(1);
	ConcordAcceptor before;

	memset(&acceptor, 0, sizeof(acceptor));
	memset(&reg, 0, sizeof(reg));
	acceptor.id = acceptor_id(1);
	acceptor.config = 3;

	/* a higher configuration version is kept, a lower one refused */
	begin(CONCORD_REQUEST_ENLIST, ballot(0, 0));
	request.config = 4;
	expect(CONCORD_ANSWER_ENLISTED, CONCORD_STORE_ACCEPTOR);
	for (int kind = 0; kind < CONCORD_REQUESTS; kind++)
	{
		begin((ConcordRequestKind) kind, ballot(5, 1));
		request.config = 3;
		expect(CONCORD_ANSWER_STALE, 0);
		CHECK(answer.config == 4);
	}

	/* floors are raised, never lowered */
	begin(CONCORD_REQUEST_RAISE, ballot(0, 0));
	request.version_floor = 7;
	request.ballot_floor = ballot(2, 1);
	expect(CONCORD_ANSWER_RAISED, CONCORD_STORE_ACCEPTOR);
	request.version_floor = 6;
	request.ballot_floor = ballot(1, 1);
	expect(CONCORD_ANSWER_RAISED, 0);
	CHECK(answer.version_floor == 7 && answer.ballot_floor.counter == 2);

	/* what no proposer asks, changes nothing */
	before = acceptor;
	begin(CONCORD_REQUEST_PREPARE, ballot(0, 1));
	request.config = 9;
	expect(CONCORD_ANSWER_INVALID, 0);
	request.ballot.counter = CONCORD_COUNTER_MAX + 1;
	expect(CONCORD_ANSWER_INVALID, 0);
	begin(CONCORD_REQUEST_ACCEPT, ballot(5, 1));
	request.value.version = 0;
	expect(CONCORD_ANSWER_INVALID, 0);
	begin(CONCORD_REQUEST_ACCEPT, ballot(5, 1));
	request.next = ballot(5, 1);
	expect(CONCORD_ANSWER_INVALID, 0);
	begin(CONCORD_REQUEST_ACCEPT, ballot(5, 1));
	request.value.len = CONCORD_VALUE_MAX + 1;
	expect(CONCORD_ANSWER_INVALID, 0);
	begin(CONCORD_REQUEST_ACCEPT, ballot(5, 1));
	request.value.kind = CONCORD_VALUE_NONE;
	expect(CONCORD_ANSWER_INVALID, 0);
	begin(CONCORD_REQUEST_RAISE, ballot(0, 0));
	request.version_floor = -1;
	expect(CONCORD_ANSWER_INVALID, 0);
	CHECK(memcmp(&acceptor, &before, sizeof(acceptor)) == 0);

	/* storage went back in time: nobody knows it any more */
	new_id.lineage++;
	begin(CONCORD_REQUEST_PREPARE, ballot(5, 1));
	concord_acceptor_renew(&acceptor, &new_id);
	expect(CONCORD_ANSWER_STRANGER, 0);
	CHECK(acceptor.version_floor == 7);
}

/* ---------------------------------------------------------------- operations */

static void
register_rounds_and_flushes(void)
{
	Cluster		c;
	ConcordProposal p;
	ConcordProposer me = proposer(1);
	ConcordProposer other = proposer(2);
	ConcordAhead ahead;

	set_up(&c);
	CHECK(run(&c, &p, &me, CONCORD_READ, 0, NULL, ALL) == CONCORD_RESULT_OK);
	CHECK(p.rounds == 1 && c.flushes == 1 && p.value.kind == CONCORD_VALUE_NONE,
		  "%u %d", p.rounds, c.flushes);	/* the configuration's version is stored */
	CHECK(run(&c, &p, &me, CONCORD_READ, 0, NULL, 6) == CONCORD_RESULT_OK && p.rounds == 1);

	CHECK(run(&c, &p, &me, CONCORD_WRITE, 0, NULL, 3) == CONCORD_RESULT_OK);
	CHECK(p.rounds == 2 && c.flushes == 2 && p.value.version == 1);
	ahead = p.ahead;
	CHECK(ahead.ballot.counter > 0);
	CHECK(run(&c, &p, &me, CONCORD_WRITE, 1, &ahead, 3) == CONCORD_RESULT_OK);
	CHECK(p.rounds == 1 && c.flushes == 1 && p.value.version == 2);
	CHECK(ahead.ballot.counter == 0);	/* used up */

	/* the same quorum again, and one that disagrees */
	CHECK(run(&c, &p, &other, CONCORD_READ, 0, NULL, 3) == CONCORD_RESULT_OK);
	CHECK(p.rounds == 1 && c.flushes == 0 && p.value.version == 2);
	other.counter = 100;
	CHECK(run(&c, &p, &other, CONCORD_READ, 0, NULL, 6) == CONCORD_RESULT_OK);
	CHECK(p.rounds == 3 && c.flushes == 2 && p.value.version == 2);

	/* refused: a quorum holds one ballot */
	CHECK(run(&c, &p, &other, CONCORD_WRITE, 1, NULL, 6) == CONCORD_RESULT_MISMATCH);
	CHECK(p.rounds == 1 && c.flushes == 1 && p.value.version == 2);

	/* and what was learned by that is changed in one more round, not if it is changed by another */
	ahead = p.ahead;
	CHECK(run(&c, &p, &other, CONCORD_WRITE, 2, &ahead, 6) == CONCORD_RESULT_OK);
	CHECK(p.rounds == 1 && c.flushes == 1 && p.value.version == 3);
	CHECK(run(&c, &p, &other, CONCORD_WRITE, 2, NULL, 6) == CONCORD_RESULT_MISMATCH);
	ahead = p.ahead;
	me.counter = other.counter;
	CHECK(run(&c, &p, &me, CONCORD_WRITE, 3, NULL, 6) == CONCORD_RESULT_OK);
	CHECK(run(&c, &p, &other, CONCORD_WRITE, 3, &ahead, 6) == CONCORD_RESULT_MISMATCH);
	CHECK(p.value.version == 4);

	CHECK(run(&c, &p, &other, CONCORD_COLLECT, 0, NULL, ALL) == CONCORD_RESULT_MISMATCH);
	CHECK(run(&c, &p, &other, CONCORD_DELETE, 4, NULL, 6) == CONCORD_RESULT_OK);
	CHECK(p.value.kind == CONCORD_VALUE_TOMBSTONE && p.value.version == 5);
	CHECK(run(&c, &p, &other, CONCORD_DELETE, CONCORD_EXPECT_ANY, NULL, 6) ==
		  CONCORD_RESULT_MISMATCH);
	CHECK(run(&c, &p, &other, CONCORD_COLLECT, 0, NULL, 6) == CONCORD_RESULT_OPEN);
	CHECK(concord_proposal_give_up(&p) == CONCORD_NEXT_DONE && p.result == CONCORD_RESULT_FAILED);
	CHECK(run(&c, &p, &other, CONCORD_COLLECT, 0, NULL, ALL) == CONCORD_RESULT_OK);
	CHECK(p.rounds == 3 && c.flushes == 3);
	for (int i = 0; i < N; i++)
		CHECK(c.reg[i].promised.counter == 0 && c.acceptor[i].version_floor == 5);

	/* versions go on */
	CHECK(run(&c, &p, &me, CONCORD_WRITE, 0, NULL, ALL) == CONCORD_RESULT_OK);
	CHECK(p.value.version == 6 && p.attempts > 0);	/* above the ballot floor at last */
}

static void
register_one_round_refused(void)
{
	Cluster		c;
	ConcordProposal p;
	ConcordProposer me = proposer(1);
	ConcordProposer other = proposer(2);
	ConcordAhead ahead;
	ConcordConfig newer;

	set_up(&c);
	CHECK(run(&c, &p, &me, CONCORD_WRITE, 0, NULL, ALL) == CONCORD_RESULT_OK);
	ahead = p.ahead;
	other.counter = 50;
	CHECK(run(&c, &p, &other, CONCORD_WRITE, 1, NULL, ALL) == CONCORD_RESULT_OK);
	CHECK(run(&c, &p, &me, CONCORD_WRITE, 1, &ahead, ALL) == CONCORD_RESULT_MISMATCH);
	CHECK(p.value.version == 2 && p.attempts == 1 && p.backoff >= 1 && me.counter > 50);

	/* R11: not under another configuration */
	CHECK(run(&c, &p, &me, CONCORD_WRITE, 2, NULL, ALL) == CONCORD_RESULT_OK);
	ahead = p.ahead;
	newer = c.config;
	newer.version++;
	CHECK(concord_proposal_start(&p, &me, &newer, CONCORD_WRITE, 3, "x", 1, &ahead, 0) ==
		  CONCORD_NEXT_SEND);
	CHECK(p.phase == CONCORD_PREPARING && ahead.ballot.counter == 0);
}

/* One acceptor has a change, whose proposer goes on; what others do in the meantime differs. */
static void
register_unknown(void)
{
	Cluster		c;
	ConcordProposal p;
	ConcordProposal q;
	ConcordProposer me = proposer(1);
	ConcordProposer other = proposer(2);

	for (int variant = 0; variant < 4; variant++)
	{
		ConcordResult result;

		set_up(&c);
		(void) concord_proposal_start(&p, &me, &c.config, CONCORD_WRITE, CONCORD_EXPECT_ANY, "x", 1,
									  NULL, 0);
		CHECK(concord_proposal_give_up(&p) == CONCORD_NEXT_DONE);
		CHECK(p.result == CONCORD_RESULT_FAILED);	/* nothing was proposed */

		(void) concord_proposal_start(&p, &me, &c.config, CONCORD_WRITE, CONCORD_EXPECT_ANY, "x", 1,
									  NULL, 0);
		CHECK(send_to(&c, &p, ALL) == CONCORD_NEXT_SEND);
		CHECK(send_to(&c, &p, 1) == CONCORD_NEXT_WAIT);
		CHECK(concord_proposal_missing(&p) == 6);
		other.counter = 100;
		if (variant == 1)		/* another one builds on it */
			result = run(&c, &q, &other, CONCORD_WRITE, 1, NULL, 3);
		else if (variant == 2)	/* or on nothing, as it has not seen it */
			result = run(&c, &q, &other, CONCORD_WRITE, 0, NULL, 6);
		else
			result = CONCORD_RESULT_OK;
		CHECK(result == CONCORD_RESULT_OK);
		if (variant == 3)
		{
			CHECK(concord_proposal_give_up(&p) == CONCORD_NEXT_DONE);
			CHECK(p.result == CONCORD_RESULT_UNKNOWN);
			continue;
		}
		me.counter = 200;
		(void) concord_proposal_retry(&p);
		for (int i = 0; i < 3 && p.phase != CONCORD_DONE; i++)
			(void) send_to(&c, &p, ALL);
		CHECK(p.result == (variant == 1 ? CONCORD_RESULT_UNKNOWN : CONCORD_RESULT_OK), "%d: %d",
			  variant, (int) p.result);
		if (variant != 1)
			CHECK(p.value.version == (variant == 0 ? 1 : 2));
		me.counter = 0;
	}
}

/* A mismatch is told only when the operation's own earlier proposal is over (R12). */
static void
register_own_proposal_is_over(void)
{
	Cluster		c;
	ConcordProposal p;
	ConcordProposer me = proposer(1);
	ConcordProposer other = proposer(2);

	set_up(&c);
	CHECK(run(&c, &p, &other, CONCORD_WRITE, 0, NULL, 6) == CONCORD_RESULT_OK);
	/* a deletion that one acceptor has; then a creation over it, which another one has */
	(void) concord_proposal_start(&p, &other, &c.config, CONCORD_DELETE, 1, NULL, 0, NULL, 0);
	(void) send_to(&c, &p, 6);
	(void) send_to(&c, &p, 2);
	me.counter = 50;
	(void) concord_proposal_start(&p, &me, &c.config, CONCORD_WRITE, 0, "x", 1, NULL, 0);
	(void) send_to(&c, &p, 3);
	CHECK(send_to(&c, &p, 1) == CONCORD_NEXT_WAIT && c.reg[0].value.version == 3);

	/* who does not see the two finds version 1, which is no reason yet to say so */
	c.reg[1] = c.reg[2];
	(void) concord_proposal_retry(&p);
	CHECK(send_to(&c, &p, 6) == CONCORD_NEXT_SEND && p.phase == CONCORD_ACCEPTING);
	CHECK(send_to(&c, &p, 6) == CONCORD_NEXT_DONE);
	CHECK(p.result == CONCORD_RESULT_MISMATCH && p.value.version == 1);
}

static void
register_answers_astray(void)
{
	Cluster		c;
	ConcordProposal p;
	ConcordProposer me = proposer(1);
	ConcordRequest r;
	ConcordAnswer a;
	ConcordAnswer stale;

	set_up(&c);
	(void) concord_proposal_start(&p, &me, &c.config, CONCORD_WRITE, 0, "x", 1, NULL, 0);
	concord_proposal_request(&p, 0, &r);
	(void) concord_acceptor_step(&c.acceptor[0], &c.reg[0], &r, &a);
	CHECK(concord_proposal_answer(&p, &a) == CONCORD_NEXT_WAIT);
	CHECK(concord_proposal_answer(&p, &a) == CONCORD_NEXT_WAIT);	/* repeated: still one */
	CHECK(concord_proposal_missing(&p) == 6);
	a.from = acceptor_id(9);
	CHECK(concord_proposal_answer(&p, &a) == CONCORD_NEXT_WAIT);	/* of a stranger */
	a.from = acceptor_id(2);
	a.ballot.counter++;
	CHECK(concord_proposal_answer(&p, &a) == CONCORD_NEXT_WAIT);	/* to another request */
	a.ballot.counter--;
	a.kind = CONCORD_ANSWER_ACCEPTED;
	CHECK(concord_proposal_answer(&p, &a) == CONCORD_NEXT_WAIT);	/* of another phase */

	stale = a;
	stale.kind = CONCORD_ANSWER_STALE;
	stale.config = 7;
	CHECK(concord_proposal_answer(&p, &stale) == CONCORD_NEXT_RECONFIGURE);
	CHECK(p.needs_config == 7 && concord_proposal_retry(&p) == CONCORD_NEXT_RECONFIGURE);
	c.config.version = 7;
	CHECK(concord_proposal_reconfigure(&p, &c.config) == CONCORD_NEXT_SEND);
	CHECK(send_to(&c, &p, 3) == CONCORD_NEXT_SEND && send_to(&c, &p, 3) == CONCORD_NEXT_DONE);
	CHECK(c.acceptor[0].config == 7 && c.acceptor[2].config == 0);
	CHECK(concord_proposal_retry(&p) == CONCORD_NEXT_DONE && p.result == CONCORD_RESULT_OK);
	CHECK(concord_proposal_answer(&p, &stale) == CONCORD_NEXT_DONE);

	/* bounds */
	CHECK(concord_proposal_start(&p, &me, &c.config, CONCORD_WRITE, 0, "x", CONCORD_VALUE_MAX + 1,
								 NULL, 0) == CONCORD_NEXT_DONE);
	CHECK(p.result == CONCORD_RESULT_FAILED);
	me.counter = CONCORD_COUNTER_MAX;
	CHECK(concord_proposal_start(&p, &me, &c.config, CONCORD_READ, 0, NULL, 0, NULL, 0) ==
		  CONCORD_NEXT_DONE);
	CHECK(p.result == CONCORD_RESULT_FAILED);
}

static void
register_backoff(void)
{
	ConcordProposal p;
	uint64_t	sum[2] = {0, 0};

	for (uint64_t random = 0; random < 1000; random++)
		for (int late = 0; late < 2; late++)
		{
			Cluster		c;
			ConcordProposer me = proposer(1);

			set_up(&c);
			for (int i = 0; i < N; i++)
				c.acceptor[i].ballot_floor = ballot(1000, 1);
			(void) concord_proposal_start(&p, &me, &c.config, CONCORD_WRITE, 0, "x", 1, NULL,
										  random);
			p.attempts = late ? 30 : 0;
			CHECK(send_to(&c, &p, ALL) == CONCORD_NEXT_BACK_OFF);
			CHECK(p.backoff >= 1 && p.backoff <= (late ? 64U : 2U), "%u", p.backoff);
			sum[late] += p.backoff;
		}
	CHECK(sum[0] > 1300 && sum[0] < 1700 && sum[1] > 28000 && sum[1] < 37000);
}

static void
register_transfer(void)
{
	Cluster		c;
	ConcordTransfer t;
	ConcordAcceptorId id = acceptor_id(9);
	ConcordAcceptor joining = {.id = id};
	ConcordRequest r;
	ConcordAnswer a;

	set_up(&c);
	c.acceptor[1].version_floor = 12;
	c.acceptor[1].ballot_floor = ballot(30, 2);
	CHECK(concord_config_join(&c.config, &id, &c.acceptor[0].id));
	CHECK(concord_transfer_start(&t, &c.config) == CONCORD_NEXT_SEND);
	for (int i = 0; i < 2; i++)
	{
		concord_transfer_request(&t, i, &r);
		CHECK(concord_acceptor_step(&c.acceptor[i], NULL, &r, &a) == CONCORD_STORE_ACCEPTOR);
		CHECK(concord_transfer_answer(&t, &a) == CONCORD_NEXT_WAIT);
		CHECK(concord_transfer_answer(&t, &a) == CONCORD_NEXT_WAIT);
	}
	concord_transfer_request(&t, 3, &r);
	(void) concord_acceptor_step(&joining, NULL, &r, &a);
	CHECK(concord_transfer_answer(&t, &a) == CONCORD_NEXT_SEND && t.listed == 0xb);
	CHECK(concord_transfer_answer(&t, &a) == CONCORD_NEXT_WAIT);	/* of the phase before */

	concord_transfer_request(&t, 3, &r);
	CHECK(concord_acceptor_step(&joining, NULL, &r, &a) == CONCORD_STORE_ACCEPTOR);
	CHECK(joining.version_floor == 12 && joining.ballot_floor.counter == 30);
	CHECK(concord_transfer_answer(&t, &a) == CONCORD_NEXT_WAIT);
	for (int i = 0; i < 2; i++)
	{
		concord_transfer_request(&t, i, &r);
		(void) concord_acceptor_step(&c.acceptor[i], NULL, &r, &a);
		CHECK(concord_transfer_answer(&t, &a) ==
			  (i == 0 ? CONCORD_NEXT_WAIT : CONCORD_NEXT_DONE));
	}
	CHECK(t.done && concord_transfer_answer(&t, &a) == CONCORD_NEXT_DONE);

	CHECK(concord_transfer_start(&t, &c.config) == CONCORD_NEXT_SEND);
	a.kind = CONCORD_ANSWER_STALE;
	a.config = 20;
	CHECK(concord_transfer_answer(&t, &a) == CONCORD_NEXT_RECONFIGURE);
}

void
test_register(void)
{
	RUN(register_ballots);
	RUN(register_configs);
	RUN(register_acceptor_ballots);
	RUN(register_acceptor_erases);
	RUN(register_acceptor_refuses);
	RUN(register_rounds_and_flushes);
	RUN(register_one_round_refused);
	RUN(register_unknown);
	RUN(register_own_proposal_is_over);
	RUN(register_answers_astray);
	RUN(register_backoff);
	RUN(register_transfer);
}
