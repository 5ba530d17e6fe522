/*
 * fuzz_register.c
 *		libFuzzer harness for the binary forms of registers' messages.
 *
 * The first byte says which of the forms the others are taken for: request, answer, configuration,
 * register, name.  What is read must lie within the bytes and keep what the header promises of it;
 * written again it must be the same bytes.
 *
 * A request that could be read is given to an acceptor, whose state is what the bytes after it say,
 * and which must take it without an assertion of the sanitizers, and never lower a promise.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/register_bytes.h"

#define ROOM (64 * 1024)

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
fail(const char *what)
{
	fprintf(stderr, "%s\n", what);
	abort();
}

static void
same(const char *what, const ConcordReader *r, const ConcordWriter *w)
{
	if (w->full || w->len != r->at || memcmp(w->buf, r->buf, w->len) != 0)
		fail(what);
}

static void
check_value(const ConcordReader *r, const ConcordValue *value, bool with_bytes)
{
	const unsigned char *data = value->data;

	if (value->kind > CONCORD_VALUE_TOMBSTONE || value->len > CONCORD_VALUE_MAX ||
		value->version < 0 || (value->kind != CONCORD_VALUE_SET && value->len > 0) ||
		(value->kind == CONCORD_VALUE_NONE) != (value->version == 0) ||
		value->origin.counter > CONCORD_COUNTER_MAX)
		fail("a value that is none");
	if (with_bytes && value->len > 0 &&
		(data < r->buf || data + value->len > r->buf + r->len))
		fail("a value outside the bytes");
}

/* A step of an acceptor that the rest of the bytes make */
static void
step(const ConcordRequest *request, ConcordReader *r)
{
	ConcordAcceptor acceptor = {.id = request->to};
	ConcordRegister reg;
	ConcordRegister before;
	ConcordAnswer answer;
	unsigned int effects;
	bool		of_acceptor = request->kind == CONCORD_REQUEST_ENLIST ||
		request->kind == CONCORD_REQUEST_RAISE;

	concord_get_register(r, &reg);
	acceptor.config = concord_get(r, 1);
	concord_get_ballot(r, &acceptor.ballot_floor);
	if (r->failed || concord_ballot_compare(&reg.accepted, &reg.promised) > 0)
		return;
	before = reg;
	effects = concord_acceptor_step(&acceptor, of_acceptor ? NULL : &reg, request, &answer);
	if (answer.kind > CONCORD_ANSWER_INVALID)
		fail("no such answer");
	if ((effects & CONCORD_DELETE_REGISTER) == 0 &&
		concord_ballot_compare(&reg.promised, &before.promised) < 0)
		fail("a promise is lowered");
	if ((effects & CONCORD_DELETE_REGISTER) != 0 &&
		concord_ballot_compare(&acceptor.ballot_floor, &before.promised) < 0)
		fail("a promise is lost");
	if (effects == 0 && memcmp(&reg, &before, sizeof(reg)) != 0)
		fail("a change that is not stored");
}

static void
check_request(ConcordReader *r, ConcordWriter *w)
{
	ConcordRequest request;

	concord_get_request(r, &request);
	if (r->failed)
		return;
	check_value(r, &request.value, true);
	concord_put_request(w, &request);
	same("request", r, w);
	step(&request, r);
}

static void
check_answer(ConcordReader *r, ConcordWriter *w)
{
	ConcordAnswer answer;

	concord_get_answer(r, &answer);
	if (r->failed)
		return;
	check_value(r, &answer.value, true);
	if (answer.version_floor < 0 || answer.config > CONCORD_COUNTER_MAX)
		fail("an answer that is none");
	concord_put_answer(w, &answer);
	same("answer", r, w);
}

static void
check_config(ConcordReader *r, ConcordWriter *w)
{
	ConcordConfig config;
	uint32_t	all;

	concord_get_config(r, &config);
	if (r->failed)
		return;
	all = (UINT32_C(1) << config.n) - 1;
	if (config.n < 1 || config.n > CONCORD_ACCEPTORS_JOINT || config.version < 1 ||
		(config.old_set | config.new_set) != all || !concord_config_quorum(&config, all) ||
		concord_config_quorum(&config, 0))
		fail("a configuration that is none");
	concord_put_config(w, &config);
	same("configuration", r, w);
}

static void
check_register(ConcordReader *r, ConcordWriter *w)
{
	ConcordRegister reg;

	concord_get_register(r, &reg);
	if (r->failed)
		return;
	check_value(r, &reg.value, false);
	concord_put_register(w, &reg);
	same("register", r, w);
}

static void
check_name(ConcordReader *r, ConcordWriter *w)
{
	size_t		len;
	const char *name = concord_get_name(r, &len);

	if (r->failed)
		return;
	if (name == NULL || len == 0 || len > CONCORD_REGISTER_NAME_MAX)
		fail("a name that is none");
	concord_put_name(w, name, len);
	same("name", r, w);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const forms[]) (ConcordReader *, ConcordWriter *) = {
		check_request, check_answer, check_config, check_register, check_name
	};
	unsigned char *exact;
	static unsigned char out[ROOM];
	ConcordReader r;
	ConcordWriter w = {out, sizeof(out), 0, false};

	if (size == 0)
		return 0;
	exact = malloc(size);
	if (exact == NULL)
		abort();
	memcpy(exact, data + 1, size - 1);
	r = (ConcordReader) {exact, size - 1, 0, false};
	forms[data[0] % 5] (&r, &w);
	free(exact);
	return 0;
}
