/*
 * test_commit.c
 *		Atomic commit: gids, labels, the path of a COMMIT.
 */
#include "unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/commit.h"

#define lengthof(array) ((int) (sizeof(array) / sizeof((array)[0])))

#define CLUSTER "01234567-89ab-cdef-fedc-ba9876543210"
#define OWN "concord:" CLUSTER ":7:00000000000000ff:42:2pc"

static const ConcordGid sample = {
	.cluster = {
		0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
		0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10
	},
	.coordinator = 7,
	.incarnation = 0xff,
	.serial = 42,
	.protocol = CONCORD_PROTOCOL_2PC,
	.participant = 9,
	.branch = 3,
};

/* ---------------------------------------------------------------- gid */

/* Parses a copy of exactly len bytes on the heap, so that reading one more is caught. */
static ConcordGidForm
parse(const char *text, size_t len, ConcordGid *gid)
{
	char	   *copy = malloc(len > 0 ? len : 1);
	ConcordGidForm form;

	if (copy == NULL)
		abort();
	memcpy(copy, text, len);
	form = concord_gid_parse(len > 0 ? copy : copy + 1, len, gid);
	free(copy);
	return form;
}

/* What is written from what was read is the same text (P1). */
static void
expect_canonical(const char *text, size_t len, ConcordGidForm form, const ConcordGid *gid)
{
	char		buf[CONCORD_GID_SIZE];
	int			written;

	if (form == CONCORD_GID_FOREIGN)
		return;
	CHECK((form == CONCORD_GID_BRANCH) == (gid->participant != 0));
	written = form == CONCORD_GID_BRANCH ? concord_gid_format(gid, buf) :
		concord_gid_format_transaction(gid, buf);
	CHECK(written == (int) len && memcmp(buf, text, len) == 0, "\"%.*s\": \"%s\"",
		  (int) len, text, buf);
}

static void
expect_foreign_bytes(const char *text, size_t len)
{
	ConcordGid	gid;

	CHECK(parse(text, len, &gid) == CONCORD_GID_FOREIGN, "\"%s\" (%zu bytes)", text, len);
}

static void
expect_foreign(const char *text)
{
	expect_foreign_bytes(text, strlen(text));
}

static void
expect_form(const char *text, ConcordGidForm expected)
{
	ConcordGid	gid;
	ConcordGidForm form = parse(text, strlen(text), &gid);

	CHECK(form == expected, "\"%s\": form %d", text, (int) form);
	expect_canonical(text, strlen(text), form, &gid);
}

static bool
same_gid(const ConcordGid *a, const ConcordGid *b)
{
	return concord_gid_same_transaction(a, b) &&
		a->participant == b->participant && a->branch == b->branch;
}

static void
commit_gid_texts(void)
{
	char		buf[CONCORD_GID_SIZE];
	ConcordGid	gid;
	ConcordGid	own = sample;

	CHECK(concord_gid_format(&sample, buf) == (int) strlen(OWN ":9:3"));
	CHECK(strcmp(buf, OWN ":9:3") == 0, "%s", buf);
	CHECK(parse(buf, strlen(buf), &gid) == CONCORD_GID_BRANCH && same_gid(&gid, &sample));

	CHECK(concord_gid_format_transaction(&sample, buf) == (int) strlen(OWN));
	CHECK(strcmp(buf, OWN) == 0, "%s", buf);
	own.participant = 0;
	own.branch = 0;
	CHECK(parse(buf, strlen(buf), &gid) == CONCORD_GID_TRANSACTION && same_gid(&gid, &own));
}

static void
commit_gid_limits(void)
{
	ConcordGid	largest = {
		.coordinator = 32767, .incarnation = UINT64_MAX, .serial = UINT64_MAX,
		.protocol = CONCORD_PROTOCOL_PAXOS, .participant = 32767, .branch = UINT32_MAX
	};
	const char *text = "concord:ffffffff-ffff-ffff-ffff-ffffffffffff:32767:ffffffffffffffff:"
		"18446744073709551615:paxos:32767:4294967295";
	char		buf[CONCORD_GID_SIZE];
	ConcordGid	gid;

	memset(largest.cluster, 0xff, sizeof(largest.cluster));
	CHECK(concord_gid_format(&largest, buf) == 111 && strcmp(buf, text) == 0, "%s", buf);
	CHECK(parse(text, strlen(text), &gid) == CONCORD_GID_BRANCH && same_gid(&gid, &largest));

	expect_form("concord:00000000-0000-0000-0000-000000000000:1:0000000000000000:0:2pc:1:0",
				CONCORD_GID_BRANCH);
	expect_form("concord:00000000-0000-0000-0000-000000000000:1:0000000000000000:0:2pc",
				CONCORD_GID_TRANSACTION);
}

static void
commit_gid_format_refuses(void)
{
	static const int bad_ids[] = {0, -1, 32768, INT32_MAX, INT32_MIN};
	char		buf[CONCORD_GID_SIZE];
	ConcordGid	gid;

	for (int i = 0; i < lengthof(bad_ids); i++)
	{
		gid = sample;
		gid.coordinator = bad_ids[i];
		CHECK(concord_gid_format(&gid, buf) == -1 && buf[0] == '\0');
		CHECK(concord_gid_format_transaction(&gid, buf) == -1 && buf[0] == '\0');

		gid = sample;
		gid.participant = bad_ids[i];
		CHECK(concord_gid_format(&gid, buf) == -1 && buf[0] == '\0');
		CHECK(concord_gid_format_transaction(&gid, buf) == (int) strlen(OWN));
	}
	gid = sample;
	gid.protocol = (ConcordProtocol) 2;
	CHECK(concord_gid_format(&gid, buf) == -1 && buf[0] == '\0');
	CHECK(concord_gid_format_transaction(&gid, buf) == -1 && buf[0] == '\0');
}

static void
commit_gid_foreign(void)
{
	ConcordGid	gid;

	expect_foreign_bytes("", 0);
	expect_foreign("concord");
	expect_foreign("concord:");
	expect_foreign("Concord:" CLUSTER ":7:00000000000000ff:42:2pc:9:3");
	expect_foreign(" " OWN);
	expect_foreign(OWN " ");
	expect_foreign(OWN ":");
	expect_foreign(OWN ":9");
	expect_foreign(OWN ":9:");
	expect_foreign(OWN ":9:3:");
	expect_foreign(OWN ":9:3:1");
	expect_foreign(OWN ":9:3 ");
	expect_foreign(OWN ":9: 3");
	expect_foreign(OWN ":9:+3");
	expect_foreign(OWN ":9:-3");
	expect_foreign(OWN ":9:03");
	expect_foreign(OWN ":9:00");
	expect_foreign(OWN ":9:3a");
	expect_foreign(OWN ":9:4294967296");
	expect_foreign(OWN ":9:4294967299");	/* 2^32 + 3 */
	expect_foreign(OWN ":9:18446744073709551619");	/* 2^64 + 3 */
	expect_foreign(OWN ":0:3");
	expect_foreign(OWN ":09:3");
	expect_foreign(OWN ":-9:3");
	expect_foreign(OWN ":32768:3");
	expect_foreign(OWN ":65545:3"); /* 2^16 + 9 */
	expect_foreign(OWN ":4294967305:3");	/* 2^32 + 9 */
	expect_foreign(OWN ":99999999999999999999999999:3");
	expect_foreign("concord:" CLUSTER ":0:00000000000000ff:42:2pc");
	expect_foreign("concord:" CLUSTER ":07:00000000000000ff:42:2pc");
	expect_foreign("concord:" CLUSTER "::00000000000000ff:42:2pc");
	expect_foreign("concord:" CLUSTER ":32768:00000000000000ff:42:2pc");
	expect_foreign("concord:" CLUSTER ":7:00000000000000fF:42:2pc");
	expect_foreign("concord:" CLUSTER ":7:0000000000000ff:42:2pc");
	expect_foreign("concord:" CLUSTER ":7:000000000000000ff:42:2pc");
	expect_foreign("concord:" CLUSTER ":7:0x000000000000ff:42:2pc");
	expect_foreign("concord:" CLUSTER ":7:00000000000000fg:42:2pc");
	expect_foreign("concord:" CLUSTER ":7:00000000000000f`:42:2pc");
	expect_foreign("concord:" CLUSTER ":7:00000000000000f/:42:2pc");
	expect_foreign("concord:" CLUSTER ":7:00000000000000ff:042:2pc");
	expect_foreign("concord:" CLUSTER ":7:00000000000000ff::2pc");
	expect_foreign("concord:" CLUSTER ":7:00000000000000ff:-42:2pc");
	expect_foreign("concord:" CLUSTER ":7:00000000000000ff:18446744073709551616:2pc");
	expect_foreign("concord:" CLUSTER ":7:00000000000000ff:18446744073709551658:2pc");
	expect_foreign("concord:" CLUSTER ":7:00000000000000ff:42:");
	expect_foreign("concord:" CLUSTER ":7:00000000000000ff:42:3pc");
	expect_foreign("concord:" CLUSTER ":7:00000000000000ff:42:2PC");
	expect_foreign("concord:" CLUSTER ":7:00000000000000ff:42:2pc2pc");
	expect_foreign("concord:" CLUSTER ":7:00000000000000ff:42:paxo");
	expect_foreign("concord:" CLUSTER ":7:00000000000000ff:42:paxos ");
	expect_foreign("concord:01234567-89AB-cdef-fedc-ba9876543210:7:00000000000000ff:42:2pc");
	expect_foreign("concord:0123456789abcdeffedcba9876543210:7:00000000000000ff:42:2pc");
	expect_foreign("concord:{1234567-89ab-cdef-fedc-ba987654321}:7:00000000000000ff:42:2pc");
	expect_foreign("citus_0_1234_5_6");
	expect_foreign("pgdog_2pc_1");
	expect_foreign("fx_12345_678_901");

	expect_foreign_bytes(OWN "\0", sizeof(OWN));
	expect_foreign_bytes(OWN ":9:3\0", sizeof(OWN ":9:3"));
	expect_foreign_bytes(OWN "\0" ":9:3", sizeof(OWN ":9:3"));
	expect_foreign_bytes("\0" OWN, sizeof(OWN));

	/* the length counts, not what follows it */
	CHECK(parse(OWN ":9:34", strlen(OWN ":9:3"), &gid) == CONCORD_GID_BRANCH && gid.branch == 3);
	CHECK(parse(OWN ":9:34", strlen(OWN), &gid) == CONCORD_GID_TRANSACTION);
	CHECK(parse(OWN ":9:34", strlen(OWN ":9:"), &gid) == CONCORD_GID_FOREIGN);
}

/*
 * Whatever is done to a gid at any place: what is still accepted is still canonical, and only
 * a change within a field of digits can be.
 */
static void
commit_gid_every_byte(void)
{
	const char *original = OWN ":9:3";
	const size_t len = strlen(original);
	int			accepted = 0;

	for (size_t i = 0; i < len; i++)
		for (int c = 0; c < 256; c++)
		{
			char		text[CONCORD_GID_SIZE];
			ConcordGid	gid;
			ConcordGidForm form;

			memcpy(text, original, len);
			text[i] = (char) c;
			form = parse(text, len, &gid);
			expect_canonical(text, len, form, &gid);
			accepted += form != CONCORD_GID_FOREIGN;

			/* one byte more */
			memcpy(text, original, i);
			text[i] = (char) c;
			memcpy(text + i + 1, original + i, len - i);
			form = parse(text, len + 1, &gid);
			expect_canonical(text, len + 1, form, &gid);
		}

	/*
	 * 32 digits of the uuid and 16 of the incarnation: 16 values each; ids of one digit: 1 to 9;
	 * the serial: 1 to 9 and 0 to 9; the branch: 0 to 9; every other byte: only what it was.
	 */
	CHECK(accepted == 48 * 16 + 9 + 9 + 9 + 10 + 10 + ((int) len - 53), "%d accepted", accepted);

	for (size_t i = 0; i <= len; i++)
	{
		ConcordGid	gid;
		ConcordGidForm form = parse(original, i, &gid);

		CHECK((form != CONCORD_GID_FOREIGN) == (i == len || i == strlen(OWN)), "%zu bytes", i);
	}
}

static void
commit_gid_random(void)
{
	uint64_t	state = unit_seed();

	for (int i = 0; i < 20000; i++)
	{
		ConcordGid	gid;
		ConcordGid	again;
		char		buf[CONCORD_GID_SIZE];

		for (int b = 0; b < 16; b++)
			gid.cluster[b] = (uint8_t) unit_random(&state);
		gid.coordinator = 1 + (int) (unit_random(&state) % 32767);
		gid.incarnation = unit_random(&state) >> (unit_random(&state) % 64);
		gid.serial = unit_random(&state) >> (unit_random(&state) % 64);
		gid.protocol = (ConcordProtocol) (unit_random(&state) % 2);
		gid.participant = 1 + (int) (unit_random(&state) % 32767);
		gid.branch = (uint32_t) (unit_random(&state) >> (32 + unit_random(&state) % 32));

		CHECK(concord_gid_format(&gid, buf) == (int) strlen(buf));
		CHECK(parse(buf, strlen(buf), &again) == CONCORD_GID_BRANCH && same_gid(&gid, &again),
			  "%s", buf);
		CHECK(concord_gid_format_transaction(&gid, buf) == (int) strlen(buf));
		CHECK(parse(buf, strlen(buf), &again) == CONCORD_GID_TRANSACTION &&
			  concord_gid_same_transaction(&gid, &again) && again.participant == 0, "%s", buf);
	}
}

static void
commit_gid_same_transaction(void)
{
	ConcordGid	other = sample;

	other.participant = 0;
	other.branch = 0;
	CHECK(concord_gid_same_transaction(&sample, &other));
	other.cluster[15] ^= 1;
	CHECK(!concord_gid_same_transaction(&sample, &other));
	other = sample;
	other.coordinator++;
	CHECK(!concord_gid_same_transaction(&sample, &other));
	other = sample;
	other.incarnation ^= UINT64_C(1) << 63;
	CHECK(!concord_gid_same_transaction(&sample, &other));
	other = sample;
	other.serial ^= UINT64_C(1) << 63;
	CHECK(!concord_gid_same_transaction(&sample, &other));
	other = sample;
	other.protocol = CONCORD_PROTOCOL_PAXOS;
	CHECK(!concord_gid_same_transaction(&sample, &other));
}

static void
expect_label(const char *text, size_t len, ConcordLabelFault expected)
{
	char	   *copy = malloc(len > 0 ? len : 1);
	ConcordLabelFault fault;

	if (copy == NULL)
		abort();
	memcpy(copy, text, len);
	fault = concord_label_check(len > 0 ? copy : copy + 1, len);
	CHECK(fault == expected, "\"%.*s\": %d", (int) len, text, (int) fault);
	free(copy);
}

static void
commit_labels(void)
{
	const char *long_label = "0123456789012345678901234567890123456789012345678901234567890123+";

	expect_label("", 0, CONCORD_LABEL_EMPTY);
	expect_label("a", 1, CONCORD_LABEL_GOOD);
	expect_label(" ", 1, CONCORD_LABEL_GOOD);
	expect_label("order 4711/2", 12, CONCORD_LABEL_GOOD);
	expect_label("\xc3\xa4\xff", 3, CONCORD_LABEL_GOOD);
	expect_label(long_label, 64, CONCORD_LABEL_GOOD);
	expect_label(long_label, 65, CONCORD_LABEL_TOO_LONG);

	expect_label("concord", 7, CONCORD_LABEL_GOOD);
	expect_label("Concord:1", 9, CONCORD_LABEL_GOOD);
	expect_label("concord-1", 9, CONCORD_LABEL_GOOD);
	expect_label(" concord:", 9, CONCORD_LABEL_GOOD);
	expect_label("concord:", 8, CONCORD_LABEL_RESERVED);
	expect_label("concord:1", 9, CONCORD_LABEL_RESERVED);

	for (int c = 0; c < 256; c++)
	{
		char		text[3] = {'a', (char) c, 'b'};

		expect_label(text, 3, c < 32 || c == 127 ? CONCORD_LABEL_CONTROL : CONCORD_LABEL_GOOD);
		expect_label(text + 1, 1, c < 32 || c == 127 ? CONCORD_LABEL_CONTROL : CONCORD_LABEL_GOOD);
	}
}

/* ---------------------------------------------------------------- the path of a COMMIT */

static void
commit_paths(void)
{
	for (int i = 0; i < 4 * 3 * 8; i++)
	{
		ConcordCommitWork work = {
			.writing_branches = i % 4,
			.serializable_readers = i / 4 % 3,
			.local_writes = (i / 12 & 1) != 0,
			.local_serializable = (i / 12 & 2) != 0,
			.labelled = (i / 12 & 4) != 0,
		};
		ConcordCommitPlan plan = concord_commit_plan(&work);
		bool		alone = work.writing_branches == 1 &&
			!(work.local_writes || work.local_serializable);

		CHECK((plan.path == CONCORD_PATH_LOCAL) == (work.writing_branches == 0), "%d", i);
		CHECK((plan.path == CONCORD_PATH_ONE_PHASE) == alone, "%d", i);
		CHECK((plan.path == CONCORD_PATH_TWO_PHASE) == (work.writing_branches > 0 && !alone),
			  "%d", i);

		/* a label is always recorded, with what is written; two phases need a decision */
		if (plan.path == CONCORD_PATH_TWO_PHASE)
			CHECK(plan.record == CONCORD_RECORD_LOCAL, "%d", i);
		else if (!work.labelled)
			CHECK(plan.record == CONCORD_RECORD_NONE, "%d", i);
		else
			CHECK(plan.record == (alone ? CONCORD_RECORD_BRANCH : CONCORD_RECORD_LOCAL), "%d", i);

		CHECK(plan.await_readers == (work.serializable_readers != 0), "%d", i);
	}
}

void
test_commit(void)
{
	RUN(commit_gid_texts);
	RUN(commit_gid_limits);
	RUN(commit_gid_format_refuses);
	RUN(commit_gid_foreign);
	RUN(commit_gid_every_byte);
	RUN(commit_gid_random);
	RUN(commit_gid_same_transaction);
	RUN(commit_labels);
	RUN(commit_paths);
}
