/*
 * test_key.c
 *		What the text of a key is hashed as.
 */
#include "unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/key.h"

/*
 * Classifies a copy of exactly len bytes on the heap, so that reading one more is caught.
 */
static ConcordKeyKind
classify(const char *text, size_t len, int64_t *integer, uint8_t uuid[16])
{
	char	   *copy = malloc(len > 0 ? len : 1);
	ConcordKeyKind kind;

	if (copy == NULL)
		abort();
	memcpy(copy, text, len);
	kind = concord_key_classify(len > 0 ? copy : copy + 1, len, integer, uuid);
	free(copy);
	return kind;
}

static void
expect_int8(const char *text, int64_t value)
{
	int64_t		integer = ~value;
	uint8_t		uuid[16];
	ConcordKeyKind kind = classify(text, strlen(text), &integer, uuid);

	CHECK(kind == CONCORD_KEY_INT8 && integer == value, "\"%s\": kind %d, %" PRId64,
		  text, (int) kind, integer);
}

static void
expect_uuid(const char *text, const uint8_t value[16])
{
	int64_t		integer;
	uint8_t		uuid[16] = {0};
	ConcordKeyKind kind = classify(text, strlen(text), &integer, uuid);

	CHECK(kind == CONCORD_KEY_UUID && memcmp(uuid, value, 16) == 0, "\"%s\": kind %d",
		  text, (int) kind);
}

static void
expect_text_bytes(const char *text, size_t len)
{
	int64_t		integer;
	uint8_t		uuid[16];
	ConcordKeyKind kind = classify(text, len, &integer, uuid);

	CHECK(kind == CONCORD_KEY_TEXT, "\"%s\" (%zu bytes): kind %d", text, len, (int) kind);
}

static void
expect_text(const char *text)
{
	expect_text_bytes(text, strlen(text));
}

static void
key_int8_values(void)
{
	expect_int8("0", 0);
	expect_int8("1", 1);
	expect_int8("-1", -1);
	expect_int8("9", 9);
	expect_int8("10", 10);
	expect_int8("-10", -10);
	expect_int8("42", 42);
	expect_int8("32768", 32768);
	expect_int8("-2147483649", INT64_C(-2147483649));
	expect_int8("1000000000000000000", INT64_C(1000000000000000000));
}

static void
key_int8_limits(void)
{
	expect_int8("9223372036854775806", INT64_MAX - 1);
	expect_int8("9223372036854775807", INT64_MAX);
	expect_int8("-9223372036854775807", -INT64_MAX);
	expect_int8("-9223372036854775808", INT64_MIN);
}

static void
key_int8_out_of_range(void)
{
	expect_text("9223372036854775808");
	expect_text("-9223372036854775809");
	expect_text("9223372036854775810");
	expect_text("9999999999999999999");
	expect_text("-9999999999999999999");
	expect_text("10000000000000000000");
	expect_text("18446744073709551615");
	expect_text("18446744073709551616");	/* 2^64: 0 if it wrapped */
	expect_text("18446744073709551658");	/* 2^64 + 42 */
	expect_text("-18446744073709551615");
	expect_text("99999999999999999999");
	expect_text("100000000000000000000000000000000");
}

static void
key_int8_not_canonical(void)
{
	expect_text("-0");
	expect_text("+0");
	expect_text("+1");
	expect_text("00");
	expect_text("01");
	expect_text("007");
	expect_text("-01");
	expect_text("--1");
	expect_text("-");
	expect_text("+");
	expect_text(" 1");
	expect_text("1 ");
	expect_text("\t1");
	expect_text("1\n");
	expect_text("- 1");
	expect_text("1-");
	expect_text("1.0");
	expect_text("1e3");
	expect_text("0x10");
	expect_text("0b1");
	expect_text("1_000");
	expect_text("1,000");
	expect_text("/");			/* the characters next to the digits */
	expect_text(":");
	expect_text("1/");
	expect_text("1:");
	expect_text("\xd9\xa1");	/* an arabic 1 */
	expect_text("00000000000000000042");
}

static void
key_empty_and_nul(void)
{
	expect_text_bytes("", 0);
	expect_text_bytes("\0", 1);
	expect_text_bytes("1\0", 2);
	expect_text_bytes("\0" "1", 2);
	expect_text_bytes("1\0" "2", 3);
	expect_text_bytes("-\0", 2);
	expect_text_bytes("0\0", 2);
	expect_text_bytes("00112233-4455-6677-8899-aabbccddeef\0", 36);
	expect_text_bytes("00112233-4455-6677-8899-aabbccddeeff\0", 37);
	expect_text_bytes("\0" "0112233-4455-6677-8899-aabbccddeeff", 36);
}

/*
 * The length counts, not what follows it.
 */
static void
key_not_terminated(void)
{
	const char *digits = "12345678901234567890123";
	const char *uuid_text = "00112233-4455-6677-8899-aabbccddeeffff";
	int64_t		integer;
	uint8_t		uuid[16];

	CHECK(classify(digits, 3, &integer, uuid) == CONCORD_KEY_INT8 && integer == 123);
	CHECK(classify(digits, 1, &integer, uuid) == CONCORD_KEY_INT8 && integer == 1);
	CHECK(classify(digits, 20, &integer, uuid) == CONCORD_KEY_TEXT);
	CHECK(classify(uuid_text, 36, &integer, uuid) == CONCORD_KEY_UUID && uuid[15] == 0xff);
	CHECK(classify(uuid_text, 35, &integer, uuid) == CONCORD_KEY_TEXT);
	CHECK(classify(uuid_text, 37, &integer, uuid) == CONCORD_KEY_TEXT);
}

static void
key_uuid_values(void)
{
	static const uint8_t zero[16] = {0};
	static const uint8_t ones[16] = {
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
	};
	static const uint8_t rising[16] = {
		0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
		0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10
	};

	expect_uuid("00000000-0000-0000-0000-000000000000", zero);
	expect_uuid("ffffffff-ffff-ffff-ffff-ffffffffffff", ones);
	expect_uuid("01234567-89ab-cdef-fedc-ba9876543210", rising);
}

static void
key_uuid_not_canonical(void)
{
	expect_text("01234567-89AB-CDEF-FEDC-BA9876543210");
	expect_text("01234567-89ab-cdef-fedc-ba987654321F");
	expect_text("{01234567-89ab-cdef-fedc-ba9876543210}");
	expect_text("{1234567-89ab-cdef-fedc-ba987654321}");
	expect_text("0123456789abcdeffedcba9876543210");
	expect_text("0123-4567-89ab-cdef-fedc-ba98-7654-3210");
	expect_text("01234567-89ab-cdef-fedc-ba987654321");		/* 35 */
	expect_text("01234567-89ab-cdef-fedc-ba98765432100");	/* 37 */
	expect_text(" 1234567-89ab-cdef-fedc-ba9876543210");
	expect_text("01234567-89ab-cdef-fedc-ba987654321 ");
	expect_text("01234567 89ab-cdef-fedc-ba9876543210");
	expect_text("0123456-789ab-cdef-fedc-ba9876543210");
	expect_text("01234567-89ab-cdef-fedc-ba987654321g");
	expect_text("01234567-89ab-cdef-fedc-ba987654321`");	/* next to 'a' */
	expect_text("01234567-89ab-cdef-fedc-ba987654321:");	/* next to '9' */
	expect_text("01234567-89ab-cdef-fedc-ba987654321/");	/* next to '0' */
	expect_text("01234567-89ab-cdef-fedc-ba98765432-0");
	expect_text("------------------------------------");
	expect_text("012345678901234567890123456789012345");
}

/*
 * Each of the 36 characters is looked at.
 */
static void
key_uuid_every_position(void)
{
	const char *canonical = "01234567-89ab-cdef-fedc-ba9876543210";

	for (size_t i = 0; i < 36; i++)
		for (int c = 0; c < 256; c++)
		{
			char		text[37];
			int64_t		integer;
			uint8_t		uuid[16];
			bool		dash = (i == 8 || i == 13 || i == 18 || i == 23);
			bool		hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
			bool		good = dash ? c == '-' : hex;

			memcpy(text, canonical, 37);
			text[i] = (char) c;
			CHECK((classify(text, 36, &integer, uuid) == CONCORD_KEY_UUID) == good,
				  "character %d at %zu", c, i);
		}
}

/*
 * What is printed from a value is recognised as that value.
 */
static void
key_random_values(void)
{
	uint64_t	state = unit_seed();

	for (int i = 0; i < 20000; i++)
	{
		uint64_t	bits = unit_random(&state) >> (unit_random(&state) % 64);
		int64_t		value = (int64_t) ((unit_random(&state) & 1) ? 0 - bits : bits);
		uint8_t		bytes[16];
		char		text[37];
		int			len = 0;

		snprintf(text, sizeof(text), "%" PRId64, value);
		expect_int8(text, value);

		for (int b = 0; b < 16; b++)
		{
			bytes[b] = (uint8_t) unit_random(&state);
			len += snprintf(text + len, sizeof(text) - (size_t) len, "%s%02x",
							b == 4 || b == 6 || b == 8 || b == 10 ? "-" : "", bytes[b]);
		}
		expect_uuid(text, bytes);
	}
}

static void
key_slot_is_low_bits(void)
{
	CHECK(concord_hash_slot(0) == 0);
	CHECK(concord_hash_slot(4095) == 4095);
	CHECK(concord_hash_slot(4096) == 0);
	CHECK(concord_hash_slot(UINT64_MAX) == 4095);
	CHECK(concord_hash_slot(UINT64_C(0x8000000000000abc)) == 0xabc);
}

void
test_key(void)
{
	RUN(key_int8_values);
	RUN(key_int8_limits);
	RUN(key_int8_out_of_range);
	RUN(key_int8_not_canonical);
	RUN(key_empty_and_nul);
	RUN(key_not_terminated);
	RUN(key_uuid_values);
	RUN(key_uuid_not_canonical);
	RUN(key_uuid_every_position);
	RUN(key_random_values);
	RUN(key_slot_is_low_bits);
}
