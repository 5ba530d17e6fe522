/*
 * key.c
 *		Recognises a key's text that is the canonical form of an int8 or of a uuid.
 *
 * PROMISE: whatever form a driver sends a value in, typed or as text, it is hashed as the same
 * thing; and a text that is not exactly what PostgreSQL would print stays a text, so that '007'
 * and '7' are two keys.
 */
#include "core/key.h"

#include <stdbool.h>

#define INT8_TEXT_MAX 20		/* strlen("-9223372036854775808") */
#define UUID_TEXT_LEN 36

static bool
parse_int8(const char *text, size_t len, int64_t *integer)
{
	const uint64_t positive_max = (uint64_t) INT64_MAX;
	uint64_t	magnitude = 0;
	bool		negative;
	uint64_t	limit;
	size_t		i;

	if (len == 0 || len > INT8_TEXT_MAX)
		return false;

	negative = (text[0] == '-');
	limit = positive_max + (negative ? 1 : 0);
	i = negative ? 1 : 0;

	/* the first digit is 0 only in "0" itself */
	if (i == len || (text[i] == '0' && len > 1))
		return false;

	for (; i < len; i++)
	{
		uint64_t	digit;

		if (text[i] < '0' || text[i] > '9')
			return false;
		digit = (uint64_t) (text[i] - '0');
		if (magnitude > (limit - digit) / 10)
			return false;
		magnitude = magnitude * 10 + digit;
	}

	/* -(m - 1) - 1, because the magnitude of the smallest int8 is no int8 */
	*integer = negative ? -(int64_t) (magnitude - 1) - 1 : (int64_t) magnitude;
	return true;
}

/* The value of a lower-case hex digit, or -1. */
static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

static bool
parse_uuid(const char *text, size_t len, uint8_t uuid[16])
{
	size_t		pos = 0;

	if (len != UUID_TEXT_LEN)
		return false;

	for (int i = 0; i < 16; i++)
	{
		int			high;
		int			low;

		if ((i == 4 || i == 6 || i == 8 || i == 10) && text[pos++] != '-')
			return false;
		high = hex_digit(text[pos++]);
		low = hex_digit(text[pos++]);
		if (high < 0 || low < 0)
			return false;
		uuid[i] = (uint8_t) (high << 4 | low);
	}
	return true;
}

ConcordKeyKind
concord_key_classify(const char *text, size_t len, int64_t *integer, uint8_t uuid[16])
{
	if (parse_int8(text, len, integer))
		return CONCORD_KEY_INT8;
	if (parse_uuid(text, len, uuid))
		return CONCORD_KEY_UUID;
	return CONCORD_KEY_TEXT;
}
