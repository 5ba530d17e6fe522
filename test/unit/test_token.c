/*
 * test_token.c
 *		Session tokens: their form, their union, and the verdicts about a server.
 */
#include "unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/token.h"

#define lengthof(array) ((int) (sizeof(array) / sizeof((array)[0])))

#define UUID "6ab2cdef-0123-4567-89ab-cdef01234567"
#define HEAD "c1:" UUID
#define ROOM 64

static const uint8_t uuid[16] = {
	0x6a, 0xb2, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67
};

/* A token with memory of its own */
typedef struct Sheet
{
	ConcordToken token;
	ConcordPosition positions[ROOM];
} Sheet;

static void
clear(Sheet *sheet, int max)
{
	memset(sheet, 0, sizeof(*sheet));
	memcpy(sheet->token.cluster, uuid, sizeof(uuid));
	sheet->token.max = max;
	sheet->token.positions = sheet->positions;
}

/* Reads a copy of exactly len bytes on the heap, so that reading one more is caught. */
static ConcordTokenError
read_bytes(const char *text, size_t len, ConcordToken *token, size_t *offset)
{
	char	   *copy = malloc(len > 0 ? len : 1);
	ConcordTokenError error;

	if (copy == NULL)
		abort();
	memcpy(copy, text, len);
	error = concord_token_parse(len > 0 ? copy : copy + 1, len, token, offset);
	free(copy);
	return error;
}

/* The token that this text is, with room for ROOM positions. */
static void
read_token(const char *text, Sheet *sheet)
{
	size_t		offset = 0;

	clear(sheet, ROOM);
	CHECK(read_bytes(text, strlen(text), &sheet->token, &offset) == CONCORD_TOKEN_OK,
		  "\"%s\" at %zu", text, offset);
}

static void
expect_text(const ConcordToken *token, const char *text)
{
	char		buf[2048];
	int			len = concord_token_format(token, buf, sizeof(buf));

	CHECK(len == (int) strlen(text) && strcmp(buf, text) == 0, "\"%s\", not \"%s\"", buf, text);
}

/* ---------------------------------------------------------------- form */

static void
expect_position(const ConcordPosition *p, int node, int generation, uint32_t timeline,
				uint64_t lsn, uint64_t xid)
{
	CHECK(p->node == node && p->generation == generation && p->timeline == timeline &&
		  p->lsn == lsn && p->xid == xid, "%d.%d:%" PRIu32 "/%" PRIX64 "?%" PRIu64,
		  p->node, p->generation, p->timeline, p->lsn, p->xid);
}

static void
token_examples(void)
{
	Sheet		sheet;

	memset(&sheet, 0xff, sizeof(sheet));
	sheet.token.max = ROOM;
	sheet.token.positions = sheet.positions;
	CHECK(read_bytes(HEAD, strlen(HEAD), &sheet.token, NULL) == CONCORD_TOKEN_OK);
	CHECK(sheet.token.n == 0 && memcmp(sheet.token.cluster, uuid, 16) == 0);
	expect_text(&sheet.token, HEAD);
	CHECK(strlen(HEAD) == CONCORD_TOKEN_HEAD);

	read_token(HEAD ";1.1:1/0/3000148;2.1:1/0/50001F0;2.1:1/0/5000300?734", &sheet);
	CHECK(sheet.token.n == 3);
	expect_position(&sheet.positions[0], 1, 1, 1, 0x3000148, 0);
	expect_position(&sheet.positions[1], 2, 1, 1, 0x50001F0, 0);
	expect_position(&sheet.positions[2], 2, 1, 1, 0x5000300, 734);
	expect_text(&sheet.token, HEAD ";1.1:1/0/3000148;2.1:1/0/50001F0;2.1:1/0/5000300?734");
}

static void
token_limits(void)
{
	static const char *const texts[] = {
		HEAD ";1.1:1/0/1",
		HEAD ";1.1:1/0/1?1",
		HEAD ";1.1:1/1/0",
		HEAD ";1.1:1/0/FFFFFFFF;1.1:2/1/0",
		HEAD ";1.1:1/ABCDEF01/23456789",
		HEAD ";1.1:1/10000000/0",
		HEAD ";9.10:10/A/A;10.9:9/F/F?10",
		HEAD ";32767.2147483647:4294967295/FFFFFFFF/FFFFFFFF?18446744073709551615",
		/* each part of the order in its turn, against those after it */
		HEAD ";1.2:2/0/2?2;2.1:1/0/1",
		HEAD ";1.1:2/0/2?2;1.2:1/0/1",
		HEAD ";1.1:1/0/2?2;1.1:2/0/1",
		HEAD ";1.1:1/0/2;1.1:1/0/1?1",
		HEAD ";1.1:1/0/2?1;1.1:1/0/1?2",
		"c1:00000000-0000-0000-0000-000000000000;1.1:1/0/1",
		"c1:ffffffff-ffff-ffff-ffff-ffffffffffff;1.1:1/0/1",
	};
	Sheet		sheet;

	for (int i = 0; i < lengthof(texts); i++)
	{
		read_token(texts[i], &sheet);
		expect_text(&sheet.token, texts[i]);
	}
	read_token(texts[7], &sheet);
	expect_position(&sheet.positions[0], 32767, INT32_MAX, UINT32_MAX, UINT64_MAX, UINT64_MAX);
	CHECK(strlen(texts[7]) - CONCORD_TOKEN_HEAD <= CONCORD_POSITION_SIZE);
	read_token(texts[3], &sheet);
	expect_position(&sheet.positions[1], 1, 1, 2, UINT64_C(0x100000000), 0);
}

/*
 * Texts that are no tokens: the part up to where they stop being one, and what follows there.
 */
static void
token_refusals(void)
{
	static const struct
	{
		const char *good;
		const char *bad;
		ConcordTokenError error;
	}			texts[] =
	{
		{"", "", CONCORD_TOKEN_SYNTAX},
		{"", "C1:" UUID, CONCORD_TOKEN_SYNTAX},
		{"", " c1:" UUID, CONCORD_TOKEN_SYNTAX},
		{"", "1:" UUID, CONCORD_TOKEN_SYNTAX},
		{"", "d2:" UUID, CONCORD_TOKEN_SYNTAX},
		{"c", "", CONCORD_TOKEN_SYNTAX},
		{"c", ":", CONCORD_TOKEN_SYNTAX},
		{"c", "01:" UUID, CONCORD_TOKEN_SYNTAX},
		{"c", "00:", CONCORD_TOKEN_SYNTAX},
		{"c", "2", CONCORD_TOKEN_SYNTAX},
		{"c", "/:", CONCORD_TOKEN_SYNTAX},
		{"c", ";:", CONCORD_TOKEN_SYNTAX},
		{"c", "2;", CONCORD_TOKEN_SYNTAX},
		{"c", "-1:", CONCORD_TOKEN_SYNTAX},
		{"c1", "1", CONCORD_TOKEN_SYNTAX},
		{"c1", ";", CONCORD_TOKEN_SYNTAX},
		{"c", "0:", CONCORD_TOKEN_VERSION},
		{"c", "2:", CONCORD_TOKEN_VERSION},
		{"c", "9:" UUID, CONCORD_TOKEN_VERSION},
		{"c", "10:" UUID, CONCORD_TOKEN_VERSION},
		{"c", "11:", CONCORD_TOKEN_VERSION},
		{"c", "99999999999999999999999999:", CONCORD_TOKEN_VERSION},

		{"c1:", "", CONCORD_TOKEN_SYNTAX},
		{"c1:", ";", CONCORD_TOKEN_SYNTAX},
		{"c1:6", "Ab2cdef-0123-4567-89ab-cdef01234567", CONCORD_TOKEN_SYNTAX},
		{"c1:6ab2cdef", "0123-4567-89ab-cdef01234567", CONCORD_TOKEN_SYNTAX},
		{"c1:6ab2cde", "g-0123-4567-89ab-cdef01234567", CONCORD_TOKEN_SYNTAX},
		{"c1:6ab2cde", "`-0123-4567-89ab-cdef01234567", CONCORD_TOKEN_SYNTAX},
		{"c1:6ab2cde", "/-0123-4567-89ab-cdef01234567", CONCORD_TOKEN_SYNTAX},
		{"c1:6ab2cde", ":-0123-4567-89ab-cdef01234567", CONCORD_TOKEN_SYNTAX},
		{"c1:6ab2cdef-0123", "04567-89ab-cdef01234567", CONCORD_TOKEN_SYNTAX},
		{"c1:6ab2cdef-0123-4567", "x89ab-cdef01234567", CONCORD_TOKEN_SYNTAX},
		{"c1:6ab2cdef-0123-4567-89ab", "cdef01234567", CONCORD_TOKEN_SYNTAX},
		{"c1:6ab2cdef-0123-4567-89ab-cdef0123456", ";", CONCORD_TOKEN_SYNTAX},
		{HEAD, "8", CONCORD_TOKEN_SYNTAX},
		{HEAD, " ", CONCORD_TOKEN_SYNTAX},
		{HEAD, ":1.1:1/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";", "", CONCORD_TOKEN_SYNTAX},
		{HEAD ";", ";", CONCORD_TOKEN_SYNTAX},

		{HEAD ";", "0.1:1/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";", "01.1:1/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";", "+1.1:1/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";", "-1.1:1/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";", "/.1:1/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1", ":1:1/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";3276", "8.1:1/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";10000", "0.1:1/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.", ":1/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.", "0:1/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.214748364", "8:1/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1", "/1/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:", "0/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:", "01/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:429496729", "6/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1", ":0/1", CONCORD_TOKEN_SYNTAX},

		{HEAD ";1.1:1/", "/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0", "0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0", "1/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/", "a/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/", "G/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/", "@/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/12345678", "9/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/1", ":1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/", "", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/", "0", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/", "01", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/1/", "", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/1/0", "0", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/1/0", "1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/1", "g", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/12345678", "9", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/1", " ", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/1", "\n", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/1", ".1", CONCORD_TOKEN_SYNTAX},

		{HEAD ";1.1:1/0/1?", "", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/1?", "0", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/1?", "01", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/1?", ";1.1:2/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/1?1844674407370955161", "6", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/1?18446744073709551615", "0", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/1?1", "?1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/1;", "", CONCORD_TOKEN_SYNTAX},

		/* not ascending: the whole position */
		{HEAD ";1.1:1/0/1;", "1.1:1/0/1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/1;", "1.1:1/0/2", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/1?7;", "1.1:1/0/2?7", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/1?7;", "1.1:1/0/2?6", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/1?1;", "1.1:1/0/2", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:2/0/1;", "1.1:1/0/2?1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.2:1/0/1;", "1.1:2/0/2?1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";10.1:1/0/1;", "9.2:2/0/2?1", CONCORD_TOKEN_SYNTAX},
		{HEAD ";1.1:1/0/1;2.1:1/0/1;", "1.1:2/0/1", CONCORD_TOKEN_SYNTAX},
	};

	for (int i = 0; i < lengthof(texts); i++)
	{
		char		text[256];
		Sheet		sheet;
		size_t		offset = 9999;
		ConcordTokenError error;

		clear(&sheet, ROOM);
		(void) snprintf(text, sizeof(text), "%s%s", texts[i].good, texts[i].bad);
		error = read_bytes(text, strlen(text), &sheet.token, &offset);
		CHECK(error == texts[i].error && offset == strlen(texts[i].good),
			  "\"%s\": %d at %zu, not %d at %zu", text, (int) error, offset,
			  (int) texts[i].error, strlen(texts[i].good));
	}
}

/* A zero byte ends no text; a text that is cut off is refused at its end, or is a shorter token. */
static void
token_cut_off(void)
{
	static const char text[] = HEAD ";1.1:1/0/3;2.10:1/1F/50001F0;3.10:1/0/5000300?734";
	static const char zero[] = HEAD "\0";
	Sheet		sheet;
	size_t		offset = 0;

	for (size_t len = 0; len < strlen(text); len++)
	{
		char		buf[128];

		clear(&sheet, ROOM);
		if (read_bytes(text, len, &sheet.token, &offset) != CONCORD_TOKEN_OK)
			CHECK(offset == len, "%zu, not %zu", offset, len);
		else
			CHECK(concord_token_format(&sheet.token, buf, sizeof(buf)) == (int) len &&
				  memcmp(buf, text, len) == 0, "%zu", len);
	}
	clear(&sheet, ROOM);
	CHECK(read_bytes(zero, sizeof(zero), &sheet.token, &offset) == CONCORD_TOKEN_SYNTAX &&
		  offset == CONCORD_TOKEN_HEAD);
}

static void
token_too_long(void)
{
	static const char two[] = HEAD ";1.1:1/0/1;1.1:1/0/1?1";
	static const char three[] = HEAD ";1.1:1/0/1;1.1:1/0/1?1;2.1:1/0/1";
	static const char unordered[] = HEAD ";1.1:1/0/1;1.1:1/0/1?1;1.1:1/0/1";
	Sheet		sheet;
	size_t		offset = 0;

	clear(&sheet, 2);
	CHECK(read_bytes(two, strlen(two), &sheet.token, NULL) == CONCORD_TOKEN_OK);
	CHECK(sheet.token.n == 2);
	CHECK(read_bytes(three, strlen(three), &sheet.token, NULL) == CONCORD_TOKEN_TOO_LONG);
	CHECK(read_bytes(three, strlen(three), &sheet.token, &offset) == CONCORD_TOKEN_TOO_LONG);
	CHECK(offset == strlen(two) + 1, "%zu", offset);
	CHECK(sheet.positions[2].node == 0);
	CHECK(read_bytes(unordered, strlen(unordered), &sheet.token, NULL) == CONCORD_TOKEN_SYNTAX);
	CHECK(read_bytes(three, strlen(three) - 1, &sheet.token, NULL) == CONCORD_TOKEN_SYNTAX);
	clear(&sheet, 0);
	CHECK(read_bytes(HEAD, strlen(HEAD), &sheet.token, NULL) == CONCORD_TOKEN_OK);
	CHECK(read_bytes(two, strlen(two), &sheet.token, &offset) == CONCORD_TOKEN_TOO_LONG);
	CHECK(offset == CONCORD_TOKEN_HEAD + 1, "%zu", offset);
}

/* The longest token, and one position more, which is none whatever memory there is. */
static void
token_full(void)
{
	static ConcordPosition positions[CONCORD_TOKEN_POSITIONS + 1];
	static ConcordPosition others[CONCORD_TOKEN_POSITIONS + 1];
	static char text[CONCORD_TOKEN_SIZE + CONCORD_POSITION_SIZE];
	ConcordToken token = {{0}, CONCORD_TOKEN_POSITIONS, CONCORD_TOKEN_POSITIONS + 1, positions};
	ConcordToken other = {{0}, 0, CONCORD_TOKEN_POSITIONS + 1, others};
	size_t		offset = 0;
	int			len;

	for (int i = 0; i <= CONCORD_TOKEN_POSITIONS; i++)
		positions[i] = (ConcordPosition) {32767, INT32_MAX, UINT32_MAX, UINT64_MAX,
										  UINT64_MAX - CONCORD_TOKEN_POSITIONS + (uint64_t) i};
	len = concord_token_format(&token, text, CONCORD_TOKEN_SIZE);
	CHECK(len > 0);
	CHECK(read_bytes(text, (size_t) len, &other, NULL) == CONCORD_TOKEN_OK);
	CHECK(other.n == CONCORD_TOKEN_POSITIONS);
	CHECK(others[0].xid == positions[0].xid && others[other.n - 1].xid == UINT64_MAX - 1);

	CHECK(!concord_token_add(&other, &positions[CONCORD_TOKEN_POSITIONS]));
	CHECK(other.n == CONCORD_TOKEN_POSITIONS);
	token.n++;
	CHECK(!concord_token_merge(&other, &token) && other.n == CONCORD_TOKEN_POSITIONS);
	CHECK(concord_token_format(&token, text, sizeof(text)) == -1);
	token.n--;
	CHECK(concord_token_format(&token, text, sizeof(text)) == len);
	(void) snprintf(text + len, sizeof(text) - (size_t) len,
					";32767.2147483647:4294967295/F/F?18446744073709551615");
	CHECK(read_bytes(text, strlen(text), &other, &offset) == CONCORD_TOKEN_TOO_LONG);
	CHECK(offset == (size_t) len + 1, "%zu", offset);
}

/* What is no token is not written. */
static void
token_not_written(void)
{
	static const ConcordPosition bad[] = {
		{0, 1, 1, 1, 0}, {-1, 1, 1, 1, 0}, {32768, 1, 1, 1, 0}, {1, 0, 1, 1, 0}, {1, -1, 1, 1, 0},
		{1, 1, 0, 1, 0}, {1, 1, 1, 0, 0}, {1, 1, 1, 0, 1},
	};
	Sheet		sheet;
	char		buf[256];

	for (int i = 0; i < lengthof(bad); i++)
	{
		clear(&sheet, ROOM);
		sheet.token.n = 1;
		sheet.positions[0] = bad[i];
		buf[0] = 'x';
		CHECK(concord_token_format(&sheet.token, buf, sizeof(buf)) == -1 && buf[0] == '\0',
			  "%d", i);
	}
	read_token(HEAD ";1.1:1/0/1;1.1:2/0/1;1.1:3/0/1", &sheet);
	sheet.positions[1].timeline = 3;
	CHECK(concord_token_format(&sheet.token, buf, sizeof(buf)) == -1);
	sheet.positions[1].timeline = 4;
	CHECK(concord_token_format(&sheet.token, buf, sizeof(buf)) == -1);
	sheet.token.n = -1;
	CHECK(concord_token_format(&sheet.token, buf, sizeof(buf)) == -1);
}

static void
token_buffer(void)
{
	static const char *const texts[] = {HEAD, HEAD ";1.1:1/0/1", HEAD ";1.1:1/0/1;1.1:1/1/A?9"};

	for (int i = 0; i < lengthof(texts); i++)
	{
		Sheet		sheet;

		read_token(texts[i], &sheet);
		for (size_t size = 0; size <= strlen(texts[i]) + 2; size++)
		{
			char	   *buf = malloc(size + 1);
			int			len;

			if (buf == NULL)
				abort();
			memset(buf, 'x', size + 1);
			len = concord_token_format(&sheet.token, buf, size);
			if (size > strlen(texts[i]))
				CHECK(len == (int) strlen(texts[i]) && strcmp(buf, texts[i]) == 0, "%zu", size);
			else
				CHECK(len == -1 && (size == 0 || buf[0] == '\0'), "%zu", size);
			CHECK(buf[size] == 'x', "%zu", size);
			free(buf);
		}
	}
}

/* ---------------------------------------------------------------- union */

static void
add(Sheet *sheet, int node, int generation, uint32_t timeline, uint64_t lsn, uint64_t xid)
{
	ConcordPosition position = {node, generation, timeline, lsn, xid};

	CHECK(concord_token_add(&sheet->token, &position));
}

static void
token_add(void)
{
	Sheet		sheet;
	ConcordPosition more = {9, 9, 9, 9, 9};

	clear(&sheet, 7);
	add(&sheet, 2, 1, 1, 5, 0);
	add(&sheet, 1, 2, 1, 4, 0);
	add(&sheet, 1, 1, 2, 3, 0);
	add(&sheet, 1, 1, 1, 2, 7);
	add(&sheet, 1, 1, 1, 9, 0);
	add(&sheet, 1, 1, 1, 1, 6);
	add(&sheet, 3, 1, 1, 1, 0);
	expect_text(&sheet.token, HEAD ";1.1:1/0/9;1.1:1/0/1?6;1.1:1/0/2?7;1.1:2/0/3;1.2:1/0/4;"
				"2.1:1/0/5;3.1:1/0/1");

	/* the greater LSN stays, on this timeline and for this xid only; that needs no room */
	add(&sheet, 1, 1, 1, 8, 0);
	add(&sheet, 1, 1, 1, 9, 0);
	add(&sheet, 1, 1, 1, 3, 7);
	add(&sheet, 3, 1, 1, 2, 0);
	expect_text(&sheet.token, HEAD ";1.1:1/0/9;1.1:1/0/1?6;1.1:1/0/3?7;1.1:2/0/3;1.2:1/0/4;"
				"2.1:1/0/5;3.1:1/0/2");
	CHECK(!concord_token_add(&sheet.token, &more));
	more.node = 1;
	CHECK(!concord_token_add(&sheet.token, &more));
	CHECK(sheet.token.n == 7 && sheet.positions[7].node == 0);

	/* one of its own, and one that is in the memory only */
	CHECK(concord_token_add(&sheet.token, &sheet.positions[2]));
	CHECK(sheet.token.n == 7);
	sheet.token.n = 6;
	add(&sheet, 3, 1, 1, 1, 0);
	CHECK(sheet.token.n == 7);
	expect_position(&sheet.positions[6], 3, 1, 1, 1, 0);
}

static void
expect_merge(const char *a, const char *b, int max, const char *merged)
{
	Sheet		token;
	Sheet		other;

	read_token(a, &token);
	read_token(b, &other);
	token.token.max = max;
	CHECK(concord_token_merge(&token.token, &other.token) == (merged != NULL), "%s", b);
	expect_text(&token.token, merged != NULL ? merged : a);
	expect_text(&other.token, b);
}

static void
token_merge(void)
{
	Sheet		sheet;

	expect_merge(HEAD, HEAD, 0, HEAD);
	expect_merge(HEAD, HEAD ";1.1:1/0/1", 1, HEAD ";1.1:1/0/1");
	expect_merge(HEAD, HEAD ";1.1:1/0/1", 0, NULL);
	expect_merge(HEAD ";1.1:1/0/5;2.1:1/0/5;3.1:1/0/5", HEAD ";2.1:1/0/6;3.1:1/0/4;4.1:1/0/1", 4,
				 HEAD ";1.1:1/0/5;2.1:1/0/6;3.1:1/0/5;4.1:1/0/1");
	/* no room for one of two, though the other is there already, and greater */
	expect_merge(HEAD ";1.1:1/0/5;2.1:1/0/5;3.1:1/0/5", HEAD ";2.1:1/0/6;3.1:1/0/4;4.1:1/0/1", 3,
				 NULL);
	expect_merge(HEAD ";2.1:1/0/5", HEAD ";1.1:1/0/1;3.1:1/0/1", 2, NULL);
	expect_merge(HEAD ";2.1:1/0/5", HEAD ";1.1:1/0/1;3.1:1/0/1", 3,
				 HEAD ";1.1:1/0/1;2.1:1/0/5;3.1:1/0/1");

	read_token(HEAD ";1.1:1/0/5;1.1:1/0/5?6;3.1:1/0/5", &sheet);
	sheet.token.max = 3;
	CHECK(concord_token_merge(&sheet.token, &sheet.token));
	expect_text(&sheet.token, HEAD ";1.1:1/0/5;1.1:1/0/5?6;3.1:1/0/5");
}

static void
token_remove_xid(void)
{
	static const char text[] = HEAD ";1.1:1/0/1;1.1:1/0/1?6;1.1:1/0/1?7;1.1:2/0/1?7;1.2:1/0/1?7;"
	"2.1:1/0/1?7";
	Sheet		sheet;

	read_token(text, &sheet);
	concord_token_remove_xid(&sheet.token, 1, 1, 0);
	concord_token_remove_xid(&sheet.token, 1, 1, 8);
	concord_token_remove_xid(&sheet.token, 2, 1, 6);
	concord_token_remove_xid(&sheet.token, 1, 2, 6);
	expect_text(&sheet.token, text);
	concord_token_remove_xid(&sheet.token, 1, 1, 7);
	expect_text(&sheet.token, HEAD ";1.1:1/0/1;1.1:1/0/1?6;1.2:1/0/1?7;2.1:1/0/1?7");
	concord_token_remove_xid(&sheet.token, 2, 1, 7);
	expect_text(&sheet.token, HEAD ";1.1:1/0/1;1.1:1/0/1?6;1.2:1/0/1?7");
}

/* ---------------------------------------------------------------- servers */

/* On timeline 5 at 0/500, by way of 2 and 4; the end of 5 must not be looked at. */
static const ConcordTimeline history[] = {{4, 0x400}, {2, 0x200}, {5, 0x999}};
static const ConcordServer here = {3, 2, true, 5, 0x500, lengthof(history), history};

static void
verdict_table(void)
{
	static const struct
	{
		int			generation;
		uint32_t	timeline;
		uint64_t	lsn;
		ConcordReach primary;
		ConcordReach standby;
	}			rows[] =
	{
		/* older */
		{1, 5, 1, CONCORD_LOST, CONCORD_LOST},
		{1, 4, 1, CONCORD_LOST, CONCORD_LOST},
		{1, 3, 1, CONCORD_LOST, CONCORD_LOST},
		{1, 6, 1, CONCORD_LOST, CONCORD_LOST},
		/* newer */
		{3, 5, 1, CONCORD_LEFT_BEHIND, CONCORD_AHEAD},
		{3, 4, 1, CONCORD_LEFT_BEHIND, CONCORD_AHEAD},
		{3, 3, 1, CONCORD_LEFT_BEHIND, CONCORD_AHEAD},
		{3, 6, 1, CONCORD_LEFT_BEHIND, CONCORD_AHEAD},
		{INT32_MAX, 1, UINT64_MAX, CONCORD_LEFT_BEHIND, CONCORD_AHEAD},
		/* current */
		{2, 5, 1, CONCORD_REACHED, CONCORD_REACHED},
		{2, 5, 0x4ff, CONCORD_REACHED, CONCORD_REACHED},
		{2, 5, 0x500, CONCORD_REACHED, CONCORD_REACHED},
		{2, 5, 0x501, CONCORD_LOST, CONCORD_AHEAD},
		{2, 5, 0x998, CONCORD_LOST, CONCORD_AHEAD},
		{2, 5, UINT64_MAX, CONCORD_LOST, CONCORD_AHEAD},
		/* in history */
		{2, 4, 1, CONCORD_REACHED, CONCORD_REACHED},
		{2, 4, 0x400, CONCORD_REACHED, CONCORD_REACHED},
		{2, 4, 0x401, CONCORD_LOST, CONCORD_LOST},
		{2, 2, 0x200, CONCORD_REACHED, CONCORD_REACHED},
		{2, 2, 0x201, CONCORD_LOST, CONCORD_LOST},
		{2, 2, UINT64_MAX, CONCORD_LOST, CONCORD_LOST},
		/* not in it, < current */
		{2, 3, 1, CONCORD_LOST, CONCORD_LOST},
		{2, 1, 1, CONCORD_LOST, CONCORD_LOST},
		{2, 3, UINT64_MAX, CONCORD_LOST, CONCORD_LOST},
		/* > current */
		{2, 6, 1, CONCORD_LEFT_BEHIND, CONCORD_AHEAD},
		{2, 6, UINT64_MAX, CONCORD_LEFT_BEHIND, CONCORD_AHEAD},
		{2, UINT32_MAX, 1, CONCORD_LEFT_BEHIND, CONCORD_AHEAD},
	};

	for (int i = 0; i < lengthof(rows); i++)
	{
		ConcordServer server = here;

		/* a branch is judged as any position */
		for (uint64_t xid = 0; xid < 2; xid++)
		{
			ConcordPosition p = {3, rows[i].generation, rows[i].timeline, rows[i].lsn, xid};

			server.primary = true;
			CHECK(concord_position_judge(&p, &server) == rows[i].primary, "row %d", i);
			server.primary = false;
			CHECK(concord_position_judge(&p, &server) == rows[i].standby, "row %d", i);
		}
	}
}

static void
expect_judged(const char *text, bool primary, ConcordReach verdict, int which)
{
	ConcordServer server = here;
	Sheet		sheet;
	int			found = -2;

	read_token(text, &sheet);
	server.primary = primary;
	CHECK(concord_token_judge(&sheet.token, &server, &found) == verdict && found == which,
		  "%s: position %d", text, found);
	CHECK(concord_token_judge(&sheet.token, &server, NULL) == verdict, "%s", text);
}

static void
worst_verdict(void)
{
	expect_judged(HEAD, true, CONCORD_REACHED, -1);
	expect_judged(HEAD ";2.9:9/0/1;4.1:1/0/1", true, CONCORD_REACHED, -1);
	expect_judged(HEAD ";2.9:9/0/1;3.2:4/0/1;3.2:5/0/1", true, CONCORD_REACHED, 1);
	expect_judged(HEAD ";3.2:5/0/1;3.2:5/0/501?1;3.2:5/0/502?2;4.1:1/0/1", false,
				  CONCORD_AHEAD, 1);
	expect_judged(HEAD ";3.2:5/0/1;3.2:6/0/1;3.3:1/0/1", true, CONCORD_LEFT_BEHIND, 1);
	expect_judged(HEAD ";3.2:5/0/1;3.2:6/0/1;3.3:1/0/1", false, CONCORD_AHEAD, 1);
	expect_judged(HEAD ";3.2:5/0/501", true, CONCORD_LOST, 0);
	expect_judged(HEAD ";3.2:5/0/500;3.2:6/0/1", true, CONCORD_LEFT_BEHIND, 1);
	expect_judged(HEAD ";3.2:5/0/501;3.2:6/0/1", true, CONCORD_LOST, 0);
	expect_judged(HEAD ";3.2:2/0/1;3.2:3/0/1;3.2:4/0/401;3.2:6/0/1", true, CONCORD_LOST, 1);
	expect_judged(HEAD ";3.2:2/0/1;3.2:4/0/401;3.2:6/0/1", false, CONCORD_LOST, 1);
	expect_judged(HEAD ";3.1:5/0/1;3.2:5/0/1", false, CONCORD_LOST, 0);
}

static void
expect_settled(const char *text, const char *settled)
{
	Sheet		sheet;

	read_token(text, &sheet);
	concord_token_settle(&sheet.token, &here);
	expect_text(&sheet.token, settled);
	concord_token_settle(&sheet.token, &here);
	expect_text(&sheet.token, settled);
}

static void
settle_examples(void)
{
#define SAME(text) expect_settled(HEAD text, HEAD text)
	/* up to the switch point, by the current timeline or by one of the history */
	expect_settled(HEAD ";3.2:4/0/400;3.2:5/0/500", HEAD ";3.2:5/0/500");
	expect_settled(HEAD ";3.2:2/0/200;3.2:4/0/300", HEAD ";3.2:4/0/300");
	expect_settled(HEAD ";3.2:2/0/200;3.2:4/0/400;3.2:5/0/450", HEAD ";3.2:5/0/450");
	SAME(";3.2:4/0/401;3.2:5/0/500");
	SAME(";3.2:2/0/201;3.2:4/0/300");
	expect_settled(HEAD ";3.2:2/0/200;3.2:4/0/401;3.2:5/0/450", HEAD ";3.2:4/0/401;3.2:5/0/450");
	/* the later one need not be reached */
	expect_settled(HEAD ";3.2:4/0/400;3.2:5/0/900", HEAD ";3.2:5/0/900");

	/* nothing later, or nothing the history knows; it does not know the current one's end */
	SAME(";3.2:4/0/400");
	SAME(";3.2:2/0/1;3.2:3/0/300");
	SAME(";3.2:3/0/1;3.2:5/0/500");
	SAME(";3.2:1/0/1;3.2:5/0/500");
	SAME(";3.2:4/0/1;3.2:6/0/500");
	SAME(";3.2:5/0/500;3.2:6/0/600");

	/* another node, another generation */
	SAME(";1.2:4/0/1;1.2:5/0/500");
	SAME(";4.2:4/0/1;4.2:5/0/500");
	SAME(";3.2:4/0/1;4.2:5/0/500");
	SAME(";3.1:4/0/1;3.1:5/0/500");
	SAME(";3.3:4/0/1;3.3:5/0/500");
	SAME(";3.1:4/0/1;3.2:5/0/500");
	SAME(";3.2:4/0/1;3.3:5/0/500");

	/* a branch stays; it includes what is not one, though not on its own timeline */
	SAME(";3.2:4/0/1?7;3.2:5/0/500");
	SAME(";3.2:4/0/1;3.2:4/0/300?7");
	expect_settled(HEAD ";3.2:4/0/1;3.2:5/0/500?7", HEAD ";3.2:5/0/500?7");
	expect_settled(HEAD ";3.1:9/0/1;3.2:2/0/1;3.2:2/0/1?7;3.2:4/0/1;3.2:5/0/500;9.1:1/0/1",
				   HEAD ";3.1:9/0/1;3.2:2/0/1?7;3.2:5/0/500;9.1:1/0/1");
#undef SAME
}

void
test_token(void)
{
	RUN(token_examples);
	RUN(token_limits);
	RUN(token_refusals);
	RUN(token_cut_off);
	RUN(token_too_long);
	RUN(token_full);
	RUN(token_not_written);
	RUN(token_buffer);
	RUN(token_add);
	RUN(token_merge);
	RUN(token_remove_xid);
	RUN(verdict_table);
	RUN(worst_verdict);
	RUN(settle_examples);
}
