/*
 * test_register_bytes.c
 *		The binary forms of registers' messages: what was written is read again, in as many bytes as
 *		the header says, and what was cut off or put together otherwise is not.
 */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "core/register_bytes.h"

#define STEPS 20000
#define ROOM 4096

static uint64_t state;
static char bytes_of_values[1024];

static uint64_t
below(uint64_t n)
{
	return unit_random(&state) % n;
}

static uint64_t
number(uint64_t max)
{
	uint64_t	n = unit_random(&state) >> below(64);

	return n > max ? max : n;
}

static ConcordBallot
draw_ballot(void)
{
	ConcordBallot ballot = {number(CONCORD_COUNTER_MAX), unit_random(&state),
	(int32_t) unit_random(&state), (uint32_t) unit_random(&state)};

	return ballot;
}

static ConcordAcceptorId
draw_id(void)
{
	ConcordAcceptorId id = {(int32_t) unit_random(&state), (int32_t) unit_random(&state),
	unit_random(&state)};

	return id;
}

static ConcordValue
draw_value(void)
{
	ConcordValue value = {.kind = (ConcordValueKind) below(3)};

	if (value.kind == CONCORD_VALUE_NONE)
		return value;
	value.version = 1 + (int64_t) number(INT64_MAX - 1);
	value.origin = draw_ballot();
	value.data = bytes_of_values;
	if (value.kind == CONCORD_VALUE_SET)
		value.len = (uint32_t) below(sizeof(bytes_of_values));
	return value;
}

static ConcordRequest
draw_request(void)
{
	ConcordRequest r = {.kind = (ConcordRequestKind) below(CONCORD_REQUESTS)};

	r.to = draw_id();
	r.config = unit_random(&state);
	r.ballot = draw_ballot();
	if (r.kind == CONCORD_REQUEST_ACCEPT)
	{
		r.next = draw_ballot();
		r.value = draw_value();
	}
	if (r.kind == CONCORD_REQUEST_RAISE)
	{
		r.ballot_floor = draw_ballot();
		r.version_floor = (int64_t) unit_random(&state);
	}
	return r;
}

static ConcordAnswer
draw_answer(void)
{
	ConcordAnswer a = {.kind = (ConcordAnswerKind) below(CONCORD_ANSWER_INVALID + 1)};

	a.from = draw_id();
	a.config = number(CONCORD_COUNTER_MAX);
	a.ballot = draw_ballot();
	a.promised = draw_ballot();
	a.accepted = draw_ballot();
	a.value = draw_value();
	a.ballot_floor = draw_ballot();
	a.version_floor = (int64_t) number(INT64_MAX);
	return a;
}

static ConcordConfig
draw_config(void)
{
	ConcordConfig config;
	ConcordAcceptorId id[CONCORD_ACCEPTORS_MAX + 1];
	int			n = 1 + (int) below(CONCORD_ACCEPTORS_MAX);
	int			removed = (int) below((uint64_t) n);

	for (int i = 0; i <= n; i++)
	{
		id[i] = draw_id();
		id[i].node = i;
	}
	CHECK(concord_config_first(&config, 1 + number(CONCORD_COUNTER_MAX - 10), id, n));
	switch (below(4))
	{
		case 0:
			CHECK(concord_config_join(&config, &id[n], &id[removed]));
			break;
		case 1:
			(void) concord_config_join(&config, &id[n], NULL);
			break;
		case 2:
			(void) concord_config_join(&config, NULL, &id[removed]);
			break;
		default:
			break;
	}
	return config;
}

static ConcordRegister
draw_register(void)
{
	ConcordRegister reg = {draw_ballot(), draw_ballot(), draw_value()};

	return reg;
}

static bool
same_value(const ConcordValue *a, const ConcordValue *b)
{
	return a->kind == b->kind && a->len == b->len && a->version == b->version &&
		memcmp(&a->origin, &b->origin, sizeof(a->origin)) == 0;
}

static bool
same_bytes(const ConcordValue *a, const ConcordValue *b)
{
	return same_value(a, b) && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static bool
same_ballots(const ConcordBallot *a, const ConcordBallot *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

/* Each of the four forms: writes what is drawn, or reads it from a reader of those bytes. */
typedef struct Form
{
	const char *name;
	size_t		room;			/* as the header says */
	size_t		(*write) (ConcordWriter *w);	/* returns how many of the bytes are a value's */
	bool		(*read) (ConcordReader *r); /* is it what was written? */
} Form;

static ConcordRequest request;
static ConcordAnswer answer;
static ConcordConfig config;
static ConcordRegister reg;

static size_t
write_request(ConcordWriter *w)
{
	request = draw_request();
	concord_put_request(w, &request);
	return request.value.len;
}

static bool
read_request(ConcordReader *r)
{
	ConcordRequest x;

	concord_get_request(r, &x);
	return x.kind == request.kind && concord_acceptor_same(&x.to, &request.to) &&
		x.config == request.config && same_ballots(&x.ballot, &request.ballot) &&
		same_ballots(&x.next, &request.next) && same_bytes(&x.value, &request.value) &&
		same_ballots(&x.ballot_floor, &request.ballot_floor) &&
		x.version_floor == request.version_floor;
}

static size_t
write_answer(ConcordWriter *w)
{
	answer = draw_answer();
	concord_put_answer(w, &answer);
	return answer.value.len;
}

static bool
read_answer(ConcordReader *r)
{
	ConcordAnswer x;

	concord_get_answer(r, &x);
	return x.kind == answer.kind && concord_acceptor_same(&x.from, &answer.from) &&
		x.config == answer.config && same_ballots(&x.ballot, &answer.ballot) &&
		same_ballots(&x.promised, &answer.promised) &&
		same_ballots(&x.accepted, &answer.accepted) && same_bytes(&x.value, &answer.value) &&
		same_ballots(&x.ballot_floor, &answer.ballot_floor) &&
		x.version_floor == answer.version_floor;
}

static size_t
write_config(ConcordWriter *w)
{
	config = draw_config();
	concord_put_config(w, &config);
	return 0;
}

static bool
read_config(ConcordReader *r)
{
	ConcordConfig x;
	bool		same;

	concord_get_config(r, &x);
	same = x.version == config.version && x.n == config.n && x.old_set == config.old_set &&
		x.new_set == config.new_set;
	for (int i = 0; i < config.n && same; i++)
		same = concord_acceptor_same(&x.acceptor[i], &config.acceptor[i]);
	return same;
}

static size_t
write_register(ConcordWriter *w)
{
	reg = draw_register();
	concord_put_register(w, &reg);
	return 0;
}

static bool
read_register(ConcordReader *r)
{
	ConcordRegister x;

	concord_get_register(r, &x);
	return same_ballots(&x.promised, &reg.promised) && same_ballots(&x.accepted, &reg.accepted) &&
		same_value(&x.value, &reg.value) && x.value.data == NULL;
}

static const Form forms[] = {
	{"request", CONCORD_REQUEST_SIZE, write_request, read_request},
	{"answer", CONCORD_ANSWER_SIZE, write_answer, read_answer},
	{"configuration", CONCORD_CONFIG_SIZE, write_config, read_config},
	{"register", CONCORD_REGISTER_SIZE, write_register, read_register},
};

#define FORMS (sizeof(forms) / sizeof(forms[0]))

/* A reader of a copy of exactly these bytes, so that reading one more is caught. */
static bool
read_exactly(const Form *form, const unsigned char *buf, size_t len, bool *ended)
{
	unsigned char *copy = malloc(len + (len == 0));
	ConcordReader r = {copy, len, 0, false};
	bool		same;

	memcpy(copy, buf, len);
	same = form->read(&r);
	*ended = concord_get_end(&r);
	free(copy);
	return same;
}

static void
round_trips(void)
{
	unsigned char buf[ROOM];

	for (int step = 0; step < STEPS && !unit_failed(); step++)
		for (size_t f = 0; f < FORMS; f++)
		{
			ConcordWriter w = {buf, sizeof(buf), 0, false};
			size_t		of_value = forms[f].write(&w);
			bool		ended;

			CHECK(!w.full && w.len - of_value <= forms[f].room, "%s of %zu bytes",
				  forms[f].name, w.len);
			CHECK(read_exactly(&forms[f], buf, w.len, &ended) && ended, "%s", forms[f].name);
		}
}

static void
cut_off(void)
{
	unsigned char buf[ROOM];

	for (int step = 0; step < STEPS / 100 && !unit_failed(); step++)
		for (size_t f = 0; f < FORMS; f++)
		{
			ConcordWriter w = {buf, sizeof(buf), 0, false};
			bool		ended;

			(void) forms[f].write(&w);
			for (size_t len = 0; len < w.len; len++)
			{
				(void) read_exactly(&forms[f], buf, len, &ended);
				CHECK(!ended, "%s cut off after %zu of %zu", forms[f].name, len, w.len);
			}
			buf[w.len] = 0;
			(void) read_exactly(&forms[f], buf, w.len + 1, &ended);
			CHECK(!ended, "%s and one byte more", forms[f].name);
		}
}

static void
without_room(void)
{
	unsigned char buf[ROOM];
	uint64_t	seen;

	for (int step = 0; step < STEPS / 100 && !unit_failed(); step++)
		for (size_t f = 0; f < FORMS; f++)
		{
			uint64_t	before = state;
			ConcordWriter w = {buf, sizeof(buf), 0, false};
			size_t		len;

			(void) forms[f].write(&w);
			len = w.len;
			seen = state;
			state = before;
			buf[len - 1] = 0xab;
			w = (ConcordWriter) {buf, len - 1, 0, false};
			(void) forms[f].write(&w);
			CHECK(w.full && buf[len - 1] == 0xab, "%s without room", forms[f].name);
			CHECK(state == seen);
		}
}

static void
names(void)
{
	unsigned char buf[ROOM];
	char		name[CONCORD_REGISTER_NAME_MAX + 1];

	memset(name, 'n', sizeof(name));
	for (size_t len = 0; len <= sizeof(name); len++)
	{
		ConcordWriter w = {buf, sizeof(buf), 0, false};
		ConcordReader r = {buf, 0, 0, false};
		size_t		found;
		const char *read;

		concord_put_name(&w, name, len);
		r.len = w.len;
		read = concord_get_name(&r, &found);
		if (len == 0 || len > CONCORD_REGISTER_NAME_MAX)
			CHECK(read == NULL && r.failed, "a name of %zu bytes", len);
		else
			CHECK(read != NULL && concord_get_end(&r) && found == len &&
				  memcmp(read, name, len) == 0, "a name of %zu bytes", len);
	}
}

/* What each form refuses, one change to one that is good */
static void
refused(void)
{
	unsigned char buf[ROOM];
	ConcordWriter w = {buf, sizeof(buf), 0, false};
	ConcordReader r;
	ConcordAcceptorId id[2] = {{1, 1, 1}, {2, 1, 2}};
	ConcordConfig c;
	ConcordRegister x;

#define REFUSED_CONFIG(change) \
	do { \
		CHECK(concord_config_first(&c, 5, id, 2)); \
		change; \
		w.len = 0; \
		concord_put_config(&w, &c); \
		r = (ConcordReader) {buf, w.len, 0, false}; \
		concord_get_config(&r, &c); \
		CHECK(r.failed, #change); \
	} while (0)

	REFUSED_CONFIG(c.version = 0);
	REFUSED_CONFIG(c.version = CONCORD_COUNTER_MAX + 1);
	REFUSED_CONFIG(c.old_set = 0);
	REFUSED_CONFIG(c.old_set = 1);
	REFUSED_CONFIG(c.new_set = 4);
	REFUSED_CONFIG(c.acceptor[1] = c.acceptor[0]);
	REFUSED_CONFIG(c.n = 0);

#define REFUSED_VALUE(change) \
	do { \
		memset(&x, 0, sizeof(x)); \
		x.value = (ConcordValue) {CONCORD_VALUE_SET, 3, 7, {1, 2, 3, 4}, "abc"}; \
		change; \
		w.len = 0; \
		concord_put_register(&w, &x); \
		r = (ConcordReader) {buf, w.len, 0, false}; \
		concord_get_register(&r, &x); \
		CHECK(r.failed, #change); \
	} while (0)

	REFUSED_VALUE(x.value.kind = 3);
	REFUSED_VALUE(x.value.kind = CONCORD_VALUE_NONE);
	REFUSED_VALUE(x.value.kind = CONCORD_VALUE_TOMBSTONE);
	REFUSED_VALUE(x.value.version = 0);
	REFUSED_VALUE(x.value.version = -1);
	REFUSED_VALUE(x.value.len = CONCORD_VALUE_MAX + 1);
	REFUSED_VALUE(x.value.origin.counter = CONCORD_COUNTER_MAX + 1);
	REFUSED_VALUE(x.promised.counter = CONCORD_COUNTER_MAX + 1);
}

static void
garbage(void)
{
	unsigned char buf[256];
	bool		ended;

	for (int step = 0; step < STEPS && !unit_failed(); step++)
	{
		size_t		len = below(sizeof(buf));

		for (size_t i = 0; i < len; i++)
			buf[i] = (unsigned char) (below(3) == 0 ? unit_random(&state) : below(4));
		for (size_t f = 0; f < FORMS; f++)
			(void) read_exactly(&forms[f], buf, len, &ended);
	}
}

void
test_register_bytes(void)
{
	state = unit_seed();
	for (size_t i = 0; i < sizeof(bytes_of_values); i++)
		bytes_of_values[i] = (char) unit_random(&state);
	RUN(round_trips);
	RUN(cut_off);
	RUN(without_room);
	RUN(names);
	RUN(refused);
	RUN(garbage);
}
