/*
 * fuzz_token.c
 *		libFuzzer harness for session tokens.
 *
 * The oracle lets the C library read the fields, as loosely as it does, and prints what was read
 * with pg_lsn's and uuid's own formats: a text is a token if it is what is printed, its positions
 * ascend, and there is room for them.  So each input is tried as a text, and as the token whose
 * fields its bytes are, and that token's text with one byte changed, more or less, or cut off.
 *
 * Of what is read: it is written again the same, the union with itself is itself, what is removed
 * or settled leaves a part of it in order, and any server whatever gets a verdict.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/token.h"

#define TEXT_MAX 4096
#define ROOM 8					/* few, so that too many are easily reached */

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A token with memory of its own */
typedef struct Sheet
{
	ConcordToken token;
	ConcordPosition positions[ROOM];
} Sheet;

static void
fail(const char *what, const char *text, size_t len)
{
	fprintf(stderr, "%s: %zu bytes \"%.*s\"\n", what, len, (int) len, text);
	abort();
}

static void
copy_sheet(Sheet *to, const Sheet *from)
{
	*to = *from;
	to->token.positions = to->positions;
}

static size_t
print_token(char *text, const ConcordToken *token)
{
	int			len = snprintf(text, TEXT_MAX, "c1:");

	for (int i = 0; i < 16; i++)
		len += snprintf(text + len, TEXT_MAX - (size_t) len, "%s%02x",
						i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", token->cluster[i]);
	for (int i = 0; i < token->n; i++)
	{
		const ConcordPosition *p = &token->positions[i];

		len += snprintf(text + len, TEXT_MAX - (size_t) len, ";%d.%d:%u/%X/%X",
						p->node, p->generation, (unsigned int) p->timeline,
						(unsigned int) (p->lsn >> 32), (unsigned int) (p->lsn & 0xffffffff));
		if (p->xid > 0)
			len += snprintf(text + len, TEXT_MAX - (size_t) len, "?%llu",
							(unsigned long long) p->xid);
	}
	return (size_t) len;
}

static int
order(const ConcordPosition *a, const ConcordPosition *b)
{
#define ORDER(field) if (a->field != b->field) return a->field < b->field ? -1 : 1
	ORDER(node);
	ORDER(generation);
	ORDER(timeline);
	ORDER(xid);
#undef ORDER
	return 0;
}

static bool
ascends(const ConcordToken *token)
{
	for (int i = 1; i < token->n; i++)
		if (order(&token->positions[i - 1], &token->positions[i]) >= 0)
			return false;
	return true;
}

/* Any number the C library finds, and what is after it. */
static bool
read_number(char **at, int base, unsigned long long max, unsigned long long *value)
{
	errno = 0;
	*value = strtoull(*at, at, base);
	return errno == 0 && *value <= max;
}

static bool
read_position(char *at, ConcordPosition *p)
{
	unsigned long long n[6] = {0};

	if (!read_number(&at, 10, 32767, &n[0]) || *at++ != '.' ||
		!read_number(&at, 10, INT32_MAX, &n[1]) || *at++ != ':' ||
		!read_number(&at, 10, UINT32_MAX, &n[2]) || *at++ != '/' ||
		!read_number(&at, 16, UINT32_MAX, &n[3]) || *at++ != '/' ||
		!read_number(&at, 16, UINT32_MAX, &n[4]))
		return false;
	if (*at == '?')
	{
		at++;
		if (!read_number(&at, 10, UINT64_MAX, &n[5]))
			return false;
	}
	*p = (ConcordPosition) {(int) n[0], (int) n[1], (uint32_t) n[2], n[3] << 32 | n[4], n[5]};
	return p->node > 0 && p->generation > 0 && p->timeline > 0 && p->lsn > 0;
}

/* Is it a token?  With more positions than there is room for it is one to nobody. */
static bool
oracle(const char *text, size_t len)
{
	static const int places[16] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};
	char		copy[TEXT_MAX];
	char		printed[TEXT_MAX];
	Sheet		sheet;

	if (len < 39 || len >= sizeof(copy))
		return false;
	memcpy(copy, text, len);
	copy[len] = '\0';
	memset(&sheet, 0, sizeof(sheet));
	sheet.token.positions = sheet.positions;
	for (int i = 0; i < 16; i++)
	{
		char		pair[3] = {copy[3 + places[i]], copy[4 + places[i]], '\0'};

		sheet.token.cluster[i] = (uint8_t) strtoul(pair, NULL, 16);
	}
	for (char *at = strchr(copy + 39, ';'); at != NULL; at = strchr(at + 1, ';'))
		if (sheet.token.n == ROOM || !read_position(at + 1, &sheet.positions[sheet.token.n++]))
			return false;
	return ascends(&sheet.token) && print_token(printed, &sheet.token) == len &&
		memcmp(printed, text, len) == 0;
}

/* Any server that the bytes make, its history too, as it never should be. */
static void
check_server(const Sheet *sheet, const uint8_t *bytes, size_t size, const char *text, size_t len)
{
	ConcordTimeline history[4];
	ConcordServer server = {1, 1, false, 1, 1, 0, history};
	ConcordReach verdict;
	ConcordReach worst = CONCORD_REACHED;
	Sheet		settled;
	int			which;

	if (sheet->token.n > 0 && size > 0)
	{
		const ConcordPosition *p = &sheet->positions[bytes[0] % sheet->token.n];

		server.node = p->node;
		server.generation = p->generation - (size > 1 && bytes[1] % 8 == 0);
		server.timeline = p->timeline + (size > 2 ? bytes[2] % 3 : 0);
		server.lsn = p->lsn + (size > 3 ? bytes[3] % 3 : 0);
		server.primary = bytes[0] & 0x80;
	}
	for (size_t i = 4; i < size && server.nhistory < 4; i++)
		if (sheet->token.n > 0)
		{
			const ConcordPosition *p = &sheet->positions[bytes[i] % sheet->token.n];

			history[server.nhistory++] = (ConcordTimeline) {p->timeline, p->lsn - bytes[i] / 128};
		}

	verdict = concord_token_judge(&sheet->token, &server, &which);
	if (which < -1 || which >= sheet->token.n)
		fail("no such position", text, len);
	for (int i = sheet->token.n - 1; i >= 0; i--)
		if (sheet->positions[i].node == server.node)
		{
			ConcordReach one = concord_position_judge(&sheet->positions[i], &server);

			if (one > CONCORD_LOST)
				fail("no such verdict", text, len);
			if (one > worst)
				worst = one;
			if (i == which && one != verdict)
				fail("another verdict", text, len);
			if (i < which && one >= verdict)
				fail("an earlier position", text, len);
		}
	if (worst != verdict)
		fail("not the worst verdict", text, len);

	copy_sheet(&settled, sheet);
	concord_token_settle(&settled.token, &server);
	if (settled.token.n > sheet->token.n || (settled.token.n == 0 && sheet->token.n > 0) ||
		!ascends(&settled.token))
		fail("settled", text, len);
	/* what was reached by everything that is left was reached by everything */
	if (concord_token_judge(&settled.token, &server, NULL) == CONCORD_REACHED &&
		verdict != CONCORD_REACHED)
		fail("settled, and weaker", text, len);
}

/* What holds of every token that was read */
static void
check_token(const Sheet *sheet, const char *text, size_t len)
{
	char		buf[TEXT_MAX];
	Sheet		other;
	int			removed = 0;

	if (concord_token_format(&sheet->token, buf, len + 1) != (int) len ||
		memcmp(buf, text, len) != 0 || buf[len] != '\0')
		fail("written again", text, len);
	if (concord_token_format(&sheet->token, buf, len) != -1 || buf[0] != '\0')
		fail("written without room", text, len);

	copy_sheet(&other, sheet);
	other.token.max = other.token.n;
	if (!concord_token_merge(&other.token, &sheet->token) ||
		!concord_token_merge(&other.token, &other.token) ||
		print_token(buf, &other.token) != len || memcmp(buf, text, len) != 0)
		fail("union with itself", text, len);

	/* from nothing, backwards */
	other.token.n = 0;
	for (int i = sheet->token.n - 1; i >= 0; i--)
		if (!concord_token_add(&other.token, &sheet->positions[i]))
			fail("no room", text, len);
	if (print_token(buf, &other.token) != len || memcmp(buf, text, len) != 0)
		fail("put together again", text, len);

	for (int i = 0; i < sheet->token.n; i++)
	{
		const ConcordPosition *p = &sheet->positions[i];

		copy_sheet(&other, sheet);
		concord_token_remove_xid(&other.token, p->node, p->generation, p->xid);
		removed = sheet->token.n - other.token.n;
		if ((removed > 0) != (p->xid > 0) || !ascends(&other.token))
			fail("removed", text, len);
	}
}

/* Reads a copy of exactly len bytes, so that reading one more is caught. */
static bool
check(const char *text, size_t len, const uint8_t *bytes, size_t size)
{
	char	   *exact = malloc(len + (len == 0));
	Sheet		sheet;
	size_t		offset = SIZE_MAX;
	ConcordTokenError error;

	if (exact == NULL)
		abort();
	if (len > 0)
		memcpy(exact, text, len);
	memset(&sheet, 0, sizeof(sheet));
	sheet.token.max = ROOM;
	sheet.token.positions = sheet.positions;
	error = concord_token_parse(len > 0 ? exact : exact + 1, len, &sheet.token, &offset);
	free(exact);

	if ((error == CONCORD_TOKEN_OK) != oracle(text, len))
		fail("token or not", text, len);
	if (error != CONCORD_TOKEN_OK)
	{
		if (offset > len || error > CONCORD_TOKEN_TOO_LONG)
			fail("an error beyond the text", text, len);
		return false;
	}
	check_token(&sheet, text, len);
	check_server(&sheet, bytes, size, text, len);
	return true;
}

/* Takes up to count bytes, as a number. */
static uint64_t
take(const uint8_t **data, size_t *size, int count)
{
	uint64_t	value = 0;

	for (; count > 0 && *size > 0; count--, (*size)--)
		value = value << 8 | *(*data)++;
	return value;
}

/* The token whose fields the bytes are: few different numbers, or any. */
static void
make_token(Sheet *sheet, const uint8_t *data, size_t size)
{
	memset(sheet, 0, sizeof(*sheet));
	sheet->token.max = ROOM;
	sheet->token.positions = sheet->positions;
	for (int i = 0; i < 16; i++)
		sheet->token.cluster[i] = (uint8_t) (i < 2 ? take(&data, &size, 1) : i);
	while (size > 0 && sheet->token.n < ROOM)
	{
		uint64_t	kind = take(&data, &size, 1);
		ConcordPosition p = {1 + (int) (kind & 1), 1 + (int) (kind >> 1 & 1),
			1 + (uint32_t) (kind >> 2 & 3), 1, kind >> 4 & 3};

		if (kind >> 6 == 1)
			p.lsn += take(&data, &size, 1);
		else if (kind >> 6 == 2)
		{
			p.node = 1 + (int) (take(&data, &size, 2) % 32767);
			p.generation = 1 + (int) (take(&data, &size, 4) % INT32_MAX);
			p.timeline = (uint32_t) take(&data, &size, 4);
			p.timeline += p.timeline == 0;
			p.xid = take(&data, &size, 8);
		}
		else if (kind >> 6 == 3)
			p.lsn = take(&data, &size, 8);
		p.lsn += p.lsn == 0;
		if (!concord_token_add(&sheet->token, &p))
			abort();
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char		text[TEXT_MAX];
	Sheet		sheet;
	size_t		len;
	size_t		place;

	check((const char *) data, size, data, size);
	if (size < 4)
		return 0;

	make_token(&sheet, data + 3, size - 3);
	len = print_token(text, &sheet.token);
	if (!check(text, len, data, size))
		fail("canonical form", text, len);
	place = (data[0] << 8 | data[1]) % len;
	check(text, place, data, size); /* cut off */
	switch (data[2] % 4)
	{
		case 0:
			text[place] = (char) data[1];
			break;
		case 1:					/* one digit for another: mostly still canonical */
			text[place] = "0123456789ABCDEFabcdef:;./?-"[data[2] / 4 % 28];
			break;
		case 2:
			memmove(text + place + 1, text + place, len - place);
			text[place] = "0123456789ABCDEFabcdef:;./?-"[data[2] / 4 % 28];
			len++;
			break;
		default:
			memmove(text + place, text + place + 1, len - place);
			len--;
	}
	check(text, len, data, size);
	return 0;
}
