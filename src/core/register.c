/*
 * register.c
 *		The steps of an acceptor, of an operation, and of a change of the set of acceptors.
 *
 * See the header for what they promise and for the invariants that are cited here.  Unit tests go
 * through the tables of the header, test/sim runs whole clusters of these functions under faults,
 * and the model in test/model takes the acceptors' steps from here.
 */
#include "core/register.h"

#include <string.h>

/* ---------------------------------------------------------------- ballots and identities */

static const ConcordBallot no_ballot;
static const ConcordValue no_value;

int
concord_ballot_compare(const ConcordBallot *a, const ConcordBallot *b)
{
	if (a->counter != b->counter)
		return a->counter < b->counter ? -1 : 1;
	if (a->node != b->node)
		return a->node < b->node ? -1 : 1;
	if (a->incarnation != b->incarnation)
		return a->incarnation < b->incarnation ? -1 : 1;
	if (a->proposer != b->proposer)
		return a->proposer < b->proposer ? -1 : 1;
	return 0;
}

static bool
same_ballot(const ConcordBallot *a, const ConcordBallot *b)
{
	return concord_ballot_compare(a, b) == 0;
}

static bool
is_ballot(const ConcordBallot *ballot)
{
	return ballot->counter > 0 && ballot->counter <= CONCORD_COUNTER_MAX;
}

bool
concord_acceptor_same(const ConcordAcceptorId *a, const ConcordAcceptorId *b)
{
	return a->node == b->node && a->generation == b->generation && a->lineage == b->lineage;
}

/* ---------------------------------------------------------------- configurations */

/* Its index, or -1 */
static int
find_acceptor(const ConcordConfig *config, const ConcordAcceptorId *id)
{
	for (int i = 0; i < config->n; i++)
		if (concord_acceptor_same(&config->acceptor[i], id))
			return i;
	return -1;
}

static int
count(uint32_t set)
{
	int			n = 0;

	for (; set != 0; set &= set - 1)
		n++;
	return n;
}

static bool
majority(uint32_t set, uint32_t of)
{
	return 2 * count(set & of) > count(of);
}

bool
concord_config_quorum(const ConcordConfig *config, uint32_t set)
{
	return majority(set, config->old_set) &&
		(config->new_set == 0 || majority(set, config->new_set));
}

bool
concord_config_everybody(const ConcordConfig *config, uint32_t set)
{
	uint32_t	all = config->old_set | config->new_set;

	return (set & all) == all;
}

bool
concord_config_first(ConcordConfig *config, uint64_t version,
					 const ConcordAcceptorId *acceptor, int n)
{
	memset(config, 0, sizeof(*config));
	if (n < 1 || n > CONCORD_ACCEPTORS_MAX || version > CONCORD_COUNTER_MAX)
		return false;
	for (int i = 0; i < n; i++)
	{
		if (find_acceptor(config, &acceptor[i]) >= 0)
			return false;
		config->acceptor[config->n++] = acceptor[i];
	}
	config->version = version;
	config->old_set = (UINT32_C(1) << n) - 1;
	return true;
}

bool
concord_config_join(ConcordConfig *config, const ConcordAcceptorId *add,
					const ConcordAcceptorId *remove)
{
	int			removed = remove != NULL ? find_acceptor(config, remove) : -1;
	uint32_t	new_set = config->old_set;

	if (config->new_set != 0 || (add == NULL && remove == NULL) ||
		(add != NULL && find_acceptor(config, add) >= 0) || (remove != NULL && removed < 0))
		return false;
	if (remove != NULL)
		new_set &= ~(UINT32_C(1) << removed);
	if (add != NULL)
		new_set |= UINT32_C(1) << config->n;
	if (new_set == 0 || count(new_set) > CONCORD_ACCEPTORS_MAX)
		return false;

	if (add != NULL)
		config->acceptor[config->n++] = *add;
	config->new_set = new_set;
	config->version++;
	return true;
}

/* One set alone */
static bool
leave_joint(ConcordConfig *config, uint32_t set)
{
	int			n = 0;

	if (config->new_set == 0)
		return false;
	for (int i = 0; i < config->n; i++)
		if (set & (UINT32_C(1) << i))
			config->acceptor[n++] = config->acceptor[i];
	memset(&config->acceptor[n], 0, sizeof(config->acceptor[0]) * (size_t) (config->n - n));
	config->n = n;
	config->old_set = (UINT32_C(1) << n) - 1;
	config->new_set = 0;
	config->version++;
	return true;
}

bool
concord_config_settle(ConcordConfig *config)
{
	return leave_joint(config, config->new_set);
}

bool
concord_config_abandon(ConcordConfig *config)
{
	return leave_joint(config, config->old_set);
}

/* ---------------------------------------------------------------- the acceptor */

static bool
is_blank(const ConcordRegister *reg)
{
	return reg->promised.counter == 0 && reg->accepted.counter == 0;
}

static void
raise_ballot(ConcordBallot *floor, const ConcordBallot *to)
{
	if (concord_ballot_compare(floor, to) < 0)
		*floor = *to;
}

/* Could a proposer, or a transfer, have made this request? */
static bool
is_request(const ConcordRequest *r, const ConcordRegister *reg)
{
	if (r->config > CONCORD_COUNTER_MAX)
		return false;
	switch (r->kind)
	{
		case CONCORD_REQUEST_LOOK:
			return reg != NULL;
		case CONCORD_REQUEST_PREPARE:
		case CONCORD_REQUEST_ERASE:
			return reg != NULL && is_ballot(&r->ballot);
		case CONCORD_REQUEST_ACCEPT:
			return reg != NULL && is_ballot(&r->ballot) &&
				(r->next.counter == 0 ||
				 (is_ballot(&r->next) && r->next.counter > r->ballot.counter)) &&
				(r->value.kind == CONCORD_VALUE_SET || r->value.kind == CONCORD_VALUE_TOMBSTONE) &&
				r->value.version > 0 && r->value.len <= CONCORD_VALUE_MAX;
		case CONCORD_REQUEST_ENLIST:
			return true;
		case CONCORD_REQUEST_RAISE:
			return r->ballot_floor.counter <= CONCORD_COUNTER_MAX && r->version_floor >= 0;
	}
	return false;
}

static unsigned int
prepare(const ConcordAcceptor *acceptor, ConcordRegister *reg, const ConcordRequest *request,
		ConcordAnswer *answer)
{
	const ConcordBallot *bound = is_blank(reg) ? &acceptor->ballot_floor : &reg->promised; /* R6 */
	int			order = concord_ballot_compare(&request->ballot, bound);

	if (order < 0 || (order == 0 && is_blank(reg)))
	{
		answer->kind = CONCORD_ANSWER_REFUSED;	/* R2 */
		answer->promised = *bound;
		return 0;
	}
	answer->kind = CONCORD_ANSWER_PROMISED;
	answer->promised = request->ballot;
	answer->value = reg->value;
	if (order == 0)
		return 0;				/* repeated */
	reg->promised = request->ballot;
	return CONCORD_STORE_REGISTER;
}

static unsigned int
accept(const ConcordAcceptor *acceptor, ConcordRegister *reg, const ConcordRequest *request,
	   ConcordAnswer *answer)
{
	const ConcordBallot *bound = is_blank(reg) ? &acceptor->ballot_floor : &reg->promised; /* R6 */
	int			order = concord_ballot_compare(&request->ballot, bound);

	if (same_ballot(&reg->accepted, &request->ballot))	/* repeated: one value per ballot, R1 */
	{
		answer->kind = CONCORD_ANSWER_ACCEPTED;
		answer->promised = reg->promised;
		return 0;
	}
	if (order < 0 || (order == 0 && is_blank(reg)))
	{
		answer->kind = CONCORD_ANSWER_REFUSED;	/* R2 */
		answer->promised = *bound;
		return 0;
	}
	reg->accepted = request->ballot;
	reg->value = request->value;
	reg->promised = request->next.counter > 0 ? request->next : request->ballot;
	answer->kind = CONCORD_ANSWER_ACCEPTED;
	answer->promised = reg->promised;
	answer->accepted = reg->accepted;
	return CONCORD_STORE_REGISTER;
}

static unsigned int
erase(ConcordAcceptor *acceptor, ConcordRegister *reg, const ConcordRequest *request)
{
	/* R7: this tombstone and no other is known to be everywhere */
	if (reg->value.kind != CONCORD_VALUE_TOMBSTONE ||
		!same_ballot(&reg->accepted, &request->ballot))
		return 0;
	raise_ballot(&acceptor->ballot_floor, &reg->promised);	/* R6 */
	if (acceptor->version_floor < reg->value.version)
		acceptor->version_floor = reg->value.version;
	memset(reg, 0, sizeof(*reg));
	return CONCORD_STORE_ACCEPTOR | CONCORD_DELETE_REGISTER;
}

static unsigned int
raise_floors(ConcordAcceptor *acceptor, const ConcordRequest *request)
{
	unsigned int effects = 0;

	if (concord_ballot_compare(&acceptor->ballot_floor, &request->ballot_floor) < 0)
	{
		acceptor->ballot_floor = request->ballot_floor;
		effects = CONCORD_STORE_ACCEPTOR;
	}
	if (acceptor->version_floor < request->version_floor)
	{
		acceptor->version_floor = request->version_floor;
		effects = CONCORD_STORE_ACCEPTOR;
	}
	return effects;
}

unsigned int
concord_acceptor_step(ConcordAcceptor *acceptor, ConcordRegister *reg,
					  const ConcordRequest *request, ConcordAnswer *answer)
{
	unsigned int effects = 0;

	memset(answer, 0, sizeof(*answer));
	answer->from = acceptor->id;
	answer->ballot = request->ballot;
	answer->config = acceptor->config;
	if (!concord_acceptor_same(&request->to, &acceptor->id))
	{
		answer->kind = CONCORD_ANSWER_STRANGER; /* R10 */
		return 0;
	}
	if (!is_request(request, reg))
	{
		answer->kind = CONCORD_ANSWER_INVALID;
		return 0;
	}
	if (request->config < acceptor->config)
	{
		answer->kind = CONCORD_ANSWER_STALE;	/* R8 */
		return 0;
	}
	if (request->config > acceptor->config)
	{
		acceptor->config = answer->config = request->config;
		effects |= CONCORD_STORE_ACCEPTOR;
	}

	if (reg != NULL)
	{
		answer->promised = reg->promised;
		answer->accepted = reg->accepted;
	}
	switch (request->kind)
	{
		case CONCORD_REQUEST_LOOK:
			answer->kind = CONCORD_ANSWER_LOOKED;
			answer->value = reg->value;
			break;
		case CONCORD_REQUEST_PREPARE:
			effects |= prepare(acceptor, reg, request, answer);
			break;
		case CONCORD_REQUEST_ACCEPT:
			effects |= accept(acceptor, reg, request, answer);
			break;
		case CONCORD_REQUEST_ERASE:
			answer->kind = CONCORD_ANSWER_ERASED;
			effects |= erase(acceptor, reg, request);
			break;
		case CONCORD_REQUEST_ENLIST:
			answer->kind = CONCORD_ANSWER_ENLISTED;
			break;
		case CONCORD_REQUEST_RAISE:
			answer->kind = CONCORD_ANSWER_RAISED;
			effects |= raise_floors(acceptor, request);
			break;
	}
	answer->ballot_floor = acceptor->ballot_floor;
	answer->version_floor = acceptor->version_floor;
	return effects;
}

unsigned int
concord_acceptor_forget(ConcordAcceptor *acceptor, ConcordRegister *reg)
{
	if (is_blank(reg) || reg->accepted.counter > 0)
		return 0;
	raise_ballot(&acceptor->ballot_floor, &reg->promised);	/* R6 */
	memset(reg, 0, sizeof(*reg));
	return CONCORD_STORE_ACCEPTOR | CONCORD_DELETE_REGISTER;
}

void
concord_acceptor_renew(ConcordAcceptor *acceptor, const ConcordAcceptorId *id)
{
	/* what it still knows of floors and configurations is true, if not all there is to know */
	acceptor->id = *id;
}

/* ---------------------------------------------------------------- the proposer */

static ConcordNext
finish(ConcordProposal *p, ConcordResult result)
{
	p->phase = CONCORD_DONE;
	p->result = result;
	return CONCORD_NEXT_DONE;
}

ConcordNext
concord_proposal_give_up(ConcordProposal *p)
{
	if (p->phase == CONCORD_DONE)
		return CONCORD_NEXT_DONE;
	return finish(p, p->own_version > 0 ? CONCORD_RESULT_UNKNOWN : CONCORD_RESULT_FAILED);
}

/* A ballot that nobody has used or, as far as is known, passed */
static bool
make_ballot(ConcordProposer *proposer, ConcordBallot *ballot)
{
	*ballot = no_ballot;
	if (proposer->counter >= CONCORD_COUNTER_MAX)
		return false;
	ballot->counter = ++proposer->counter;
	ballot->incarnation = proposer->incarnation;
	ballot->node = proposer->node;
	ballot->proposer = proposer->proposer;
	return true;
}

static ConcordNext
enter(ConcordProposal *p, ConcordPhase phase)
{
	p->phase = phase;
	p->answered = 0;
	p->refused = 0;
	p->rounds++;
	return CONCORD_NEXT_SEND;
}

/* LOOKING or PREPARING under a new ballot: whatever was answered so far is of no use any more. */
static ConcordNext
begin(ConcordProposal *p, ConcordPhase phase)
{
	p->holders = 0;
	p->best = no_ballot;
	p->base = no_value;
	p->floor = 0;
	if (!make_ballot(p->proposer, &p->ballot))
		return concord_proposal_give_up(p);
	return enter(p, phase);
}

/* Is the set enough for the operation? */
static bool
enough(const ConcordProposal *p, uint32_t set)
{
	return p->op == CONCORD_COLLECT ? concord_config_everybody(&p->config, set) :
		concord_config_quorum(&p->config, set);
}

/* Proposes the value under the present ballot, which must be promised by a quorum (R4). */
static ConcordNext
propose(ConcordProposal *p, const ConcordValue *value)
{
	p->proposed = *value;
	if (p->own)
		p->own_ballot = p->ballot;
	p->promised_next = 0;
	p->next = no_ballot;
	/* without a next ballot, which is rare, there is no harm */
	if (p->op == CONCORD_WRITE)
		(void) make_ballot(p->proposer, &p->next);
	return enter(p, CONCORD_ACCEPTING);
}

/*
 * The operation changes nothing more: completes the base, so that what is told of it is chosen.
 * Nothing is left to do if a quorum holds it already, or has promised and has nothing; unless the
 * operation must make sure that nothing of its own can be chosen any more.
 */
static ConcordNext
complete(ConcordProposal *p, bool own)
{
	bool		nothing = p->base.kind == CONCORD_VALUE_NONE;

	p->own = own;
	if (p->op == CONCORD_COLLECT || (!own && p->own_version > 0))
		return nothing ? concord_proposal_give_up(p) : propose(p, &p->base);
	if (!nothing && !concord_config_quorum(&p->config, p->holders))
		return propose(p, &p->base);
	p->value = p->base;
	if (p->op == CONCORD_WRITE && p->phase == CONCORD_PREPARING && !nothing)
	{
		p->ahead.ballot = p->ballot;	/* promised, and not proposed: R11 */
		p->ahead.config = p->config.version;
		p->ahead.value = p->base;
	}
	return finish(p, own || p->op == CONCORD_READ ? CONCORD_RESULT_OK : CONCORD_RESULT_MISMATCH);
}

/* Proposes the operation's change of the base (R5). */
static ConcordNext
change(ConcordProposal *p, int64_t last)
{
	ConcordValue value = no_value;

	if (last >= INT64_MAX)
		return concord_proposal_give_up(p);
	if (p->origin.counter == 0)
		p->origin = p->ballot;
	value.kind = p->op == CONCORD_WRITE ? CONCORD_VALUE_SET : CONCORD_VALUE_TOMBSTONE;
	value.version = last + 1;
	value.origin = p->origin;
	value.data = p->data;
	value.len = p->len;
	if (p->own_version == 0 || p->own_version > value.version)
		p->own_version = value.version;
	p->own = true;
	return propose(p, &value);
}

/* Applies the operation to the base (R4). */
static ConcordNext
apply(ConcordProposal *p)
{
	bool		nothing = p->base.kind == CONCORD_VALUE_NONE;
	bool		exists = p->base.kind == CONCORD_VALUE_SET;
	int64_t		last = nothing ? p->floor : p->base.version;

	if (p->op == CONCORD_READ)
		return complete(p, false);
	if (p->op == CONCORD_COLLECT)
	{
		if (p->base.kind == CONCORD_VALUE_TOMBSTONE)
			return complete(p, false);
		return finish(p, exists ? CONCORD_RESULT_MISMATCH : CONCORD_RESULT_OK);
	}

	if (p->own_version > 0)		/* proposed before, and not known to be chosen: R12 */
	{
		if (!nothing && same_ballot(&p->base.origin, &p->origin))
			return complete(p, true);
		if (last > p->own_version || (nothing && last == p->own_version))
			return finish(p, CONCORD_RESULT_UNKNOWN);
		if (concord_config_quorum(&p->config, p->holders) &&
			concord_ballot_compare(&p->best, &p->own_ballot) > 0)
			p->own_version = 0;
	}

	if ((p->op == CONCORD_DELETE && !exists) ||
		(p->expected != CONCORD_EXPECT_ANY &&
		 p->expected != (exists ? p->base.version : CONCORD_EXPECT_NONE)))
		return complete(p, false);
	return change(p, last);
}

ConcordNext
concord_proposal_start(ConcordProposal *p, ConcordProposer *proposer, const ConcordConfig *config,
					   ConcordOperation op, int64_t expected, const void *data, uint32_t len,
					   ConcordAhead *ahead, uint64_t random)
{
	memset(p, 0, sizeof(*p));
	p->proposer = proposer;
	p->config = *config;
	p->op = op;
	p->expected = expected;
	if (op == CONCORD_WRITE)
	{
		p->data = data;
		p->len = len;
	}
	p->random = random;
	if (p->len > CONCORD_VALUE_MAX)
		return concord_proposal_give_up(p);

	if ((op == CONCORD_WRITE || op == CONCORD_DELETE) && ahead != NULL && ahead->ballot.counter > 0)
	{
		ConcordAhead used = *ahead;

		memset(ahead, 0, sizeof(*ahead));	/* R1 */
		if (used.config == config->version)
		{
			p->ballot = used.ballot;	/* R11 */
			p->base = used.value;
			return apply(p);
		}
	}
	return begin(p, op == CONCORD_READ ? CONCORD_LOOKING : CONCORD_PREPARING);
}

void
concord_proposal_request(const ConcordProposal *p, int index, ConcordRequest *request)
{
	static const ConcordRequestKind kinds[] = {
		[CONCORD_LOOKING] = CONCORD_REQUEST_LOOK,
		[CONCORD_PREPARING] = CONCORD_REQUEST_PREPARE,
		[CONCORD_ACCEPTING] = CONCORD_REQUEST_ACCEPT,
		[CONCORD_ERASING] = CONCORD_REQUEST_ERASE,
	};

	memset(request, 0, sizeof(*request));
	request->kind = p->phase <= CONCORD_ERASING ? kinds[p->phase] : CONCORD_REQUEST_LOOK;
	request->to = p->config.acceptor[index];
	request->config = p->config.version;
	request->ballot = p->ballot;
	if (p->phase == CONCORD_ACCEPTING)
	{
		request->next = p->next;
		request->value = p->proposed;
	}
}

uint32_t
concord_proposal_missing(const ConcordProposal *p)
{
	if (p->phase > CONCORD_ERASING)
		return 0;
	return (p->config.old_set | p->config.new_set) & ~(p->answered | p->refused);
}

/* What an acceptor holds: the highest is the base, and who holds it is noted. */
static void
note_state(ConcordProposal *p, uint32_t bit, const ConcordAnswer *answer)
{
	int			order = concord_ballot_compare(&answer->accepted, &p->best);

	if (p->floor < answer->version_floor)
		p->floor = answer->version_floor;
	if (order > 0)
	{
		p->best = answer->accepted;
		p->base = answer->value;
		p->holders = 0;
	}
	if (order >= 0)
		p->holders |= bit;
}

static ConcordNext
looked(ConcordProposal *p)
{
	if (concord_config_quorum(&p->config, p->holders))	/* holders of nothing too */
		return complete(p, false);
	if (concord_config_quorum(&p->config, p->answered))
		return begin(p, CONCORD_PREPARING);
	return CONCORD_NEXT_WAIT;
}

static ConcordNext
accepted(ConcordProposal *p)
{
	if (!enough(p, p->answered))
		return CONCORD_NEXT_WAIT;
	if (p->op == CONCORD_COLLECT)
		return enter(p, CONCORD_ERASING);	/* R7 */
	p->value = p->proposed;
	if (p->op == CONCORD_WRITE && p->next.counter > 0 &&
		concord_config_quorum(&p->config, p->promised_next))
	{
		p->ahead.ballot = p->next;
		p->ahead.config = p->config.version;
		p->ahead.value = p->proposed;
	}
	return finish(p, p->own || p->op == CONCORD_READ ? CONCORD_RESULT_OK :
				  CONCORD_RESULT_MISMATCH);
}

/* From 1 to 2, 4, 8 ... 64 round trips, at random */
static ConcordNext
back_off(ConcordProposal *p)
{
	uint64_t	z = p->random + (p->attempts + 1) * UINT64_C(0x9e3779b97f4a7c15);	/* splitmix64 */
	uint32_t	bits = p->attempts < 5 ? p->attempts + 1 : 6;

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	p->backoff = 1 + (uint32_t) ((z ^ (z >> 31)) & ((UINT32_C(1) << bits) - 1));
	/* again and again: somebody changes the register all the time, and shall not be ahead then */
	if (p->attempts >= 5 && p->proposer->counter < CONCORD_COUNTER_MAX - p->backoff)
		p->proposer->counter += p->backoff;
	p->phase = CONCORD_BACKING_OFF;
	return CONCORD_NEXT_BACK_OFF;
}

static ConcordNext
refused(ConcordProposal *p, uint32_t bit, const ConcordAnswer *answer)
{
	if (answer->promised.counter > p->proposer->counter)
		p->proposer->counter = answer->promised.counter;
	p->refused |= bit;
	if (enough(p, (p->config.old_set | p->config.new_set) & ~p->refused))
		return CONCORD_NEXT_WAIT;
	return back_off(p);
}

ConcordNext
concord_proposal_answer(ConcordProposal *p, const ConcordAnswer *answer)
{
	static const ConcordAnswerKind expected[] = {
		[CONCORD_LOOKING] = CONCORD_ANSWER_LOOKED,
		[CONCORD_PREPARING] = CONCORD_ANSWER_PROMISED,
		[CONCORD_ACCEPTING] = CONCORD_ANSWER_ACCEPTED,
		[CONCORD_ERASING] = CONCORD_ANSWER_ERASED,
	};
	int			index = find_acceptor(&p->config, &answer->from);
	uint32_t	bit;

	if (p->phase == CONCORD_DONE)
		return CONCORD_NEXT_DONE;
	if (p->phase > CONCORD_ERASING || !same_ballot(&answer->ballot, &p->ballot))
		return CONCORD_NEXT_WAIT;
	if (answer->kind == CONCORD_ANSWER_STALE && answer->config > p->config.version)
	{
		p->needs_config = answer->config;
		p->phase = CONCORD_OUTDATED;
		return CONCORD_NEXT_RECONFIGURE;
	}
	if (index < 0)
		return CONCORD_NEXT_WAIT;	/* a stranger in the place of an acceptor: it stays missing */
	bit = UINT32_C(1) << index;
	if ((p->answered | p->refused) & bit)
		return CONCORD_NEXT_WAIT;	/* repeated */
	if (answer->kind == CONCORD_ANSWER_REFUSED)
		return refused(p, bit, answer);
	if (answer->kind != expected[p->phase])
		return CONCORD_NEXT_WAIT;

	p->answered |= bit;
	switch (p->phase)
	{
		case CONCORD_LOOKING:
			note_state(p, bit, answer);
			return looked(p);
		case CONCORD_PREPARING:
			note_state(p, bit, answer);
			return enough(p, p->answered) ? apply(p) : CONCORD_NEXT_WAIT;
		case CONCORD_ACCEPTING:
			if (p->next.counter > 0 && same_ballot(&answer->promised, &p->next))
				p->promised_next |= bit;
			return accepted(p);
		case CONCORD_ERASING:
			return enough(p, p->answered) ? finish(p, CONCORD_RESULT_OK) : CONCORD_NEXT_WAIT;
		default:
			return CONCORD_NEXT_WAIT;
	}
}

ConcordNext
concord_proposal_retry(ConcordProposal *p)
{
	switch (p->phase)
	{
		case CONCORD_DONE:
			return CONCORD_NEXT_DONE;
		case CONCORD_OUTDATED:
			return CONCORD_NEXT_RECONFIGURE;
		case CONCORD_ERASING:
			p->rounds++;
			return CONCORD_NEXT_SEND;
		default:
			p->attempts++;
			return begin(p, CONCORD_PREPARING);
	}
}

ConcordNext
concord_proposal_reconfigure(ConcordProposal *p, const ConcordConfig *config)
{
	if (p->phase == CONCORD_DONE)
		return CONCORD_NEXT_DONE;
	if (config->version > p->config.version)
		p->config = *config;
	return begin(p, p->op == CONCORD_READ ? CONCORD_LOOKING : CONCORD_PREPARING);
}

/* ---------------------------------------------------------------- change of the set */

ConcordNext
concord_transfer_start(ConcordTransfer *t, const ConcordConfig *joint)
{
	memset(t, 0, sizeof(*t));
	t->config = *joint;
	t->phase = CONCORD_REQUEST_ENLIST;
	return CONCORD_NEXT_SEND;
}

void
concord_transfer_request(const ConcordTransfer *t, int index, ConcordRequest *request)
{
	memset(request, 0, sizeof(*request));
	request->kind = t->phase;
	request->to = t->config.acceptor[index];
	request->config = t->config.version;
	request->ballot_floor = t->ballot_floor;
	request->version_floor = t->version_floor;
}

ConcordNext
concord_transfer_answer(ConcordTransfer *t, const ConcordAnswer *answer)
{
	int			index = find_acceptor(&t->config, &answer->from);

	if (t->done)
		return CONCORD_NEXT_DONE;
	if (answer->kind == CONCORD_ANSWER_STALE && answer->config > t->config.version)
		return CONCORD_NEXT_RECONFIGURE;
	if (index < 0 || answer->config != t->config.version ||
		answer->kind != (t->phase == CONCORD_REQUEST_ENLIST ? CONCORD_ANSWER_ENLISTED :
						 CONCORD_ANSWER_RAISED))
		return CONCORD_NEXT_WAIT;

	t->answered |= UINT32_C(1) << index;
	if (t->phase == CONCORD_REQUEST_ENLIST)
	{
		raise_ballot(&t->ballot_floor, &answer->ballot_floor);
		if (t->version_floor < answer->version_floor)
			t->version_floor = answer->version_floor;
	}
	if (!concord_config_quorum(&t->config, t->answered))
		return CONCORD_NEXT_WAIT;
	if (t->phase == CONCORD_REQUEST_RAISE)
	{
		t->done = true;
		return CONCORD_NEXT_DONE;
	}
	t->listed = t->answered;
	t->answered = 0;
	t->phase = CONCORD_REQUEST_RAISE;
	return CONCORD_NEXT_SEND;
}
