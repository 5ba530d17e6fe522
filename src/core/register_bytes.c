/*
 * register_bytes.c
 *		Writers and readers of the registers' messages, see the header.
 */
#include "core/register_bytes.h"

void
concord_put_name(ConcordWriter *w, const char *name, size_t len)
{
	concord_put(w, len, 2);
	concord_put_bytes(w, name, len);
}

const char *
concord_get_name(ConcordReader *r, size_t *len)
{
	*len = (size_t) concord_get(r, 2);
	if (*len == 0 || *len > CONCORD_REGISTER_NAME_MAX)
		r->failed = true;
	return (const char *) concord_get_bytes(r, *len);
}

void
concord_put_ballot(ConcordWriter *w, const ConcordBallot *ballot)
{
	concord_put(w, ballot->counter, 8);
	concord_put(w, ballot->incarnation, 8);
	concord_put(w, (uint32_t) ballot->node, 4);
	concord_put(w, ballot->proposer, 4);
}

/* A counter that is too high is left to the acceptor to refuse, and to nobody to believe. */
void
concord_get_ballot(ConcordReader *r, ConcordBallot *ballot)
{
	ballot->counter = concord_get(r, 8);
	ballot->incarnation = concord_get(r, 8);
	ballot->node = (int32_t) concord_get(r, 4);
	ballot->proposer = (uint32_t) concord_get(r, 4);
	if (ballot->counter > CONCORD_COUNTER_MAX)
		r->failed = true;
}

static void
put_id(ConcordWriter *w, const ConcordAcceptorId *id)
{
	concord_put(w, (uint32_t) id->node, 4);
	concord_put(w, (uint32_t) id->generation, 4);
	concord_put(w, id->lineage, 8);
}

static void
get_id(ConcordReader *r, ConcordAcceptorId *id)
{
	id->node = (int32_t) concord_get(r, 4);
	id->generation = (int32_t) concord_get(r, 4);
	id->lineage = concord_get(r, 8);
}

/* What describes a value, without its bytes */
static void
put_value_head(ConcordWriter *w, const ConcordValue *value)
{
	concord_put(w, value->kind, 1);
	concord_put(w, (uint64_t) value->version, 8);
	concord_put_ballot(w, &value->origin);
	concord_put(w, value->len, 4);
}

static void
get_value_head(ConcordReader *r, ConcordValue *value)
{
	uint64_t	kind = concord_get(r, 1);

	value->version = (int64_t) concord_get(r, 8);
	concord_get_ballot(r, &value->origin);
	value->len = (uint32_t) concord_get(r, 4);
	value->data = NULL;
	if (kind > CONCORD_VALUE_TOMBSTONE || value->version < 0 || value->len > CONCORD_VALUE_MAX ||
		(kind != CONCORD_VALUE_SET && value->len > 0) ||
		(kind == CONCORD_VALUE_NONE) != (value->version == 0))
		r->failed = true;
	value->kind = r->failed ? CONCORD_VALUE_NONE : (ConcordValueKind) kind;
}

static void
put_value(ConcordWriter *w, const ConcordValue *value)
{
	put_value_head(w, value);
	concord_put_bytes(w, value->data, value->len);
}

static void
get_value(ConcordReader *r, ConcordValue *value)
{
	get_value_head(r, value);
	value->data = concord_get_bytes(r, value->len);
	if (value->data == NULL)
		value->len = 0;
}

void
concord_put_request(ConcordWriter *w, const ConcordRequest *request)
{
	concord_put(w, request->kind, 1);
	put_id(w, &request->to);
	concord_put(w, request->config, 8);
	concord_put_ballot(w, &request->ballot);
	if (request->kind == CONCORD_REQUEST_ACCEPT)
	{
		concord_put_ballot(w, &request->next);
		put_value(w, &request->value);
	}
	if (request->kind == CONCORD_REQUEST_RAISE)
	{
		concord_put_ballot(w, &request->ballot_floor);
		concord_put(w, (uint64_t) request->version_floor, 8);
	}
}

void
concord_get_request(ConcordReader *r, ConcordRequest *request)
{
	uint64_t	kind = concord_get(r, 1);

	memset(request, 0, sizeof(*request));
	if (kind >= CONCORD_REQUESTS)
		r->failed = true;
	request->kind = r->failed ? CONCORD_REQUEST_LOOK : (ConcordRequestKind) kind;
	get_id(r, &request->to);
	request->config = concord_get(r, 8);
	concord_get_ballot(r, &request->ballot);
	if (request->kind == CONCORD_REQUEST_ACCEPT)
	{
		concord_get_ballot(r, &request->next);
		get_value(r, &request->value);
	}
	if (request->kind == CONCORD_REQUEST_RAISE)
	{
		concord_get_ballot(r, &request->ballot_floor);
		request->version_floor = (int64_t) concord_get(r, 8);
	}
}

void
concord_put_answer(ConcordWriter *w, const ConcordAnswer *answer)
{
	concord_put(w, answer->kind, 1);
	put_id(w, &answer->from);
	concord_put(w, answer->config, 8);
	concord_put_ballot(w, &answer->ballot);
	concord_put_ballot(w, &answer->promised);
	concord_put_ballot(w, &answer->accepted);
	put_value(w, &answer->value);
	concord_put_ballot(w, &answer->ballot_floor);
	concord_put(w, (uint64_t) answer->version_floor, 8);
}

void
concord_get_answer(ConcordReader *r, ConcordAnswer *answer)
{
	uint64_t	kind = concord_get(r, 1);

	memset(answer, 0, sizeof(*answer));
	if (kind > CONCORD_ANSWER_INVALID)
		r->failed = true;
	answer->kind = r->failed ? CONCORD_ANSWER_INVALID : (ConcordAnswerKind) kind;
	get_id(r, &answer->from);
	answer->config = concord_get(r, 8);
	concord_get_ballot(r, &answer->ballot);
	concord_get_ballot(r, &answer->promised);
	concord_get_ballot(r, &answer->accepted);
	get_value(r, &answer->value);
	concord_get_ballot(r, &answer->ballot_floor);
	answer->version_floor = (int64_t) concord_get(r, 8);
	if (answer->version_floor < 0 || answer->config > CONCORD_COUNTER_MAX)
		r->failed = true;
}

void
concord_put_config(ConcordWriter *w, const ConcordConfig *config)
{
	concord_put(w, config->version, 8);
	concord_put(w, (uint64_t) config->n, 1);
	concord_put(w, config->old_set, 1);
	concord_put(w, config->new_set, 1);
	for (int i = 0; i < config->n; i++)
		put_id(w, &config->acceptor[i]);
}

void
concord_get_config(ConcordReader *r, ConcordConfig *config)
{
	uint64_t	n;
	uint32_t	all;

	memset(config, 0, sizeof(*config));
	config->version = concord_get(r, 8);
	n = concord_get(r, 1);
	config->old_set = (uint32_t) concord_get(r, 1);
	config->new_set = (uint32_t) concord_get(r, 1);
	if (n < 1 || n > CONCORD_ACCEPTORS_JOINT || config->version < 1 ||
		config->version > CONCORD_COUNTER_MAX)
		r->failed = true;
	if (r->failed)
		return;
	all = (UINT32_C(1) << n) - 1;
	if (config->old_set == 0 || (config->old_set | config->new_set) != all)
		r->failed = true;
	for (uint64_t i = 0; i < n; i++)
	{
		get_id(r, &config->acceptor[i]);
		for (uint64_t k = 0; k < i; k++)
			if (concord_acceptor_same(&config->acceptor[k], &config->acceptor[i]))
				r->failed = true;
	}
	config->n = (int) n;
}

void
concord_put_register(ConcordWriter *w, const ConcordRegister *reg)
{
	concord_put_ballot(w, &reg->promised);
	concord_put_ballot(w, &reg->accepted);
	put_value_head(w, &reg->value);
}

void
concord_get_register(ConcordReader *r, ConcordRegister *reg)
{
	memset(reg, 0, sizeof(*reg));
	concord_get_ballot(r, &reg->promised);
	concord_get_ballot(r, &reg->accepted);
	get_value_head(r, &reg->value);
}
