/*
 * fuzz_key.c
 *		libFuzzer harness for concord_key_classify().
 *
 * The oracle is the C library: a text is an int8 or a uuid exactly if what it is read as (strtoll,
 * strtoul of pairs of digits) is printed as that same text.  So each input is tried
 * - as it is,
 * - as the integer and the uuid whose bytes it begins with, printed: these must be recognised,
 * - as these texts with one byte replaced, or one byte more or less.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/key.h"

#define TEXT_MAX 40				/* of a canonical form, one byte more, and the end */

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
fail(const char *what, const char *text, size_t len)
{
	fprintf(stderr, "%s: %zu bytes \"%.*s\"\n", what, len, (int) len, text);
	abort();
}

static int
print_uuid(char *text, const uint8_t *b)
{
	return snprintf(text, TEXT_MAX,
					"%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
					b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7],
					b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

/* Whether strtoll reads all of a text (terminated, of len bytes) as what is printed like it. */
static bool
oracle_int8(const char *text, size_t len, int64_t *value)
{
	char		printed[TEXT_MAX];

	errno = 0;
	*value = strtoll(text, NULL, 10);
	return errno == 0 && snprintf(printed, sizeof(printed), "%" PRId64, *value) == (int) len &&
		memcmp(printed, text, len) == 0;
}

/* The same for a uuid, taking its digits at their places, whatever they are. */
static bool
oracle_uuid(const char *text, size_t len, uint8_t *value)
{
	static const int places[16] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};
	char		printed[TEXT_MAX];

	if (len != 36)
		return false;
	for (int i = 0; i < 16; i++)
	{
		char		pair[3] = {text[places[i]], text[places[i] + 1], '\0'};

		value[i] = (uint8_t) strtoul(pair, NULL, 16);
	}
	return print_uuid(printed, value) == 36 && memcmp(printed, text, 36) == 0;
}

/* Classifies a copy of exactly len bytes, so that reading one more is caught. */
static ConcordKeyKind
check(const uint8_t *data, size_t len)
{
	char	   *exact = malloc(len + (len == 0));
	char	   *text = malloc(len + 1);
	int64_t		integer = 0;
	int64_t		expected_integer;
	uint8_t		uuid[16] = {0};
	uint8_t		expected_uuid[16];
	ConcordKeyKind kind;

	if (exact == NULL || text == NULL)
		abort();
	if (len > 0)
	{
		memcpy(exact, data, len);
		memcpy(text, data, len);
	}
	text[len] = '\0';

	kind = concord_key_classify(len > 0 ? exact : exact + 1, len, &integer, uuid);
	if ((kind == CONCORD_KEY_INT8) != oracle_int8(text, len, &expected_integer))
		fail("int8 or not", text, len);
	if (kind == CONCORD_KEY_INT8 && integer != expected_integer)
		fail("value of an int8", text, len);
	if ((kind == CONCORD_KEY_UUID) != oracle_uuid(text, len, expected_uuid))
		fail("uuid or not", text, len);
	if (kind == CONCORD_KEY_UUID && memcmp(uuid, expected_uuid, 16) != 0)
		fail("value of a uuid", text, len);

	free(exact);
	free(text);
	return kind;
}

/* A canonical form, and texts next to it as the three bytes at edit say. */
static void
check_canonical(const char *canonical, int len, ConcordKeyKind kind, const uint8_t *edit)
{
	uint8_t		text[TEXT_MAX];
	size_t		place = edit[0] % (size_t) len;

	memcpy(text, canonical, (size_t) len + 1);
	if (check(text, (size_t) len) != kind)
		fail("canonical form", canonical, (size_t) len);

	switch (edit[2] % 4)
	{
		case 0:
			text[place] = edit[1];
			break;
		case 1:					/* one digit for another: mostly still canonical */
			text[place] = (uint8_t) "0123456789abcdef-"[edit[1] % 17];
			break;
		case 2:
			memmove(text + place + 1, text + place, (size_t) len - place);
			text[place] = edit[1];
			len++;
			break;
		default:
			memmove(text + place, text + place + 1, (size_t) len - place);
			len--;
	}
	check(text, (size_t) len);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t		padded[19] = {0};
	char		text[TEXT_MAX];
	int64_t		integer;
	int			len;

	check(data, size);

	if (size > 0)
		memcpy(padded, data, size < sizeof(padded) ? size : sizeof(padded));
	memcpy(&integer, padded, sizeof(integer));
	integer /= INT64_C(1) << padded[8] % 63;	/* numbers of every length */
	len = snprintf(text, sizeof(text), "%" PRId64, integer);
	check_canonical(text, len, CONCORD_KEY_INT8, padded + 16);

	len = print_uuid(text, padded);
	check_canonical(text, len, CONCORD_KEY_UUID, padded + 16);
	return 0;
}
