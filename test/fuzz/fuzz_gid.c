/*
 * fuzz_gid.c
 *		libFuzzer harness for concord_gid_parse(), its two formatters and concord_label_check().
 *
 * The oracle splits a text at its colons, lets the C library read the fields, and prints what was
 * read: a gid is what is printed as that same text.  So each input is tried
 * - as it is, as a gid and as a label,
 * - as the gids, of both forms, whose fields its bytes are: printed, these must be recognised,
 * - as these texts with one byte replaced, one byte more or less, or cut off,
 * - with numbers at the limits of their types in its fields,
 * and the gid its bytes are is compared with one that differs in one bit.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/commit.h"

#define FIELDS_MAX 8
#define TEXT_MAX 256

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
fail(const char *what, const char *text, size_t len)
{
	fprintf(stderr, "%s: %zu bytes \"%.*s\"\n", what, len, (int) len, text);
	abort();
}

static size_t
print_gid(char *text, const ConcordGid *gid, bool branch)
{
	const uint8_t *b = gid->cluster;
	int			len;

	len = snprintf(text, TEXT_MAX,
				   "concord:%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x"
				   ":%d:%016llx:%llu:%s",
				   b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7],
				   b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15],
				   gid->coordinator, (unsigned long long) gid->incarnation,
				   (unsigned long long) gid->serial,
				   gid->protocol == CONCORD_PROTOCOL_2PC ? "2pc" : "paxos");
	if (branch)
		len += snprintf(text + len, TEXT_MAX - (size_t) len, ":%d:%u", gid->participant,
						(unsigned int) gid->branch);
	return (size_t) len;
}

/* Any number the C library finds at the begin of a field, if it is not above max. */
static bool
read_number(const char *field, int base, unsigned long long max, unsigned long long *value)
{
	errno = 0;
	*value = strtoull(field, NULL, base);
	return errno == 0 && *value <= max;
}

/* The uuid whose digits are at their places, whatever they are. */
static bool
read_uuid(const char *field, uint8_t *uuid)
{
	static const int places[16] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};

	if (strlen(field) != 36)
		return false;
	for (int i = 0; i < 16; i++)
	{
		char		pair[3] = {field[places[i]], field[places[i] + 1], '\0'};

		uuid[i] = (uint8_t) strtoul(pair, NULL, 16);
	}
	return true;
}

static ConcordGidForm
oracle(const char *text, size_t len, ConcordGid *gid)
{
	char		copy[TEXT_MAX];
	char		printed[TEXT_MAX];
	char	   *fields[FIELDS_MAX];
	unsigned long long coordinator;
	unsigned long long incarnation;
	unsigned long long serial;
	unsigned long long participant = 0;
	unsigned long long branch = 0;
	int			n = 0;

	if (len >= sizeof(copy))
		return CONCORD_GID_FOREIGN;
	memcpy(copy, text, len);
	copy[len] = '\0';
	for (char *at = copy; at != NULL;)
	{
		if (n == FIELDS_MAX)
			return CONCORD_GID_FOREIGN;
		fields[n++] = at;
		at = strchr(at, ':');
		if (at != NULL)
			*at++ = '\0';
	}
	if (n != 6 && n != 8)
		return CONCORD_GID_FOREIGN;

	memset(gid, 0, sizeof(*gid));
	if (!read_uuid(fields[1], gid->cluster) ||
		!read_number(fields[2], 10, 32767, &coordinator) || coordinator == 0 ||
		!read_number(fields[3], 16, UINT64_MAX, &incarnation) ||
		!read_number(fields[4], 10, UINT64_MAX, &serial))
		return CONCORD_GID_FOREIGN;
	if (n == 8 &&
		(!read_number(fields[6], 10, 32767, &participant) || participant == 0 ||
		 !read_number(fields[7], 10, UINT32_MAX, &branch)))
		return CONCORD_GID_FOREIGN;
	gid->coordinator = (int) coordinator;
	gid->incarnation = incarnation;
	gid->serial = serial;
	gid->protocol = strcmp(fields[5], "2pc") == 0 ? CONCORD_PROTOCOL_2PC : CONCORD_PROTOCOL_PAXOS;
	gid->participant = (int) participant;
	gid->branch = (uint32_t) branch;

	if (print_gid(printed, gid, n == 8) != len || memcmp(printed, text, len) != 0)
		return CONCORD_GID_FOREIGN;
	return n == 8 ? CONCORD_GID_BRANCH : CONCORD_GID_TRANSACTION;
}

static bool
same_transaction(const ConcordGid *a, const ConcordGid *b)
{
	char		text_a[TEXT_MAX];
	char		text_b[TEXT_MAX];

	(void) print_gid(text_a, a, false);
	(void) print_gid(text_b, b, false);
	return strcmp(text_a, text_b) == 0;
}

static bool
same_gid(const ConcordGid *a, const ConcordGid *b)
{
	return same_transaction(a, b) && a->participant == b->participant && a->branch == b->branch;
}

static void
check_label(const char *text, size_t len, ConcordGidForm form)
{
	ConcordLabelFault fault = concord_label_check(text, len);
	bool		control = false;
	bool		reserved = len >= 8 && memcmp(text, "concord:", 8) == 0;

	for (size_t i = 0; i < len; i++)
		control |= (text[i] >= 0 && text[i] < ' ') || text[i] == 127;
	if ((fault == CONCORD_LABEL_GOOD) != (len >= 1 && len <= 64 && !control && !reserved))
		fail("label or not", text, len);
	if (fault == CONCORD_LABEL_GOOD && form != CONCORD_GID_FOREIGN)
		fail("both label and gid", text, len);
}

/* Parses a copy of exactly len bytes, so that reading one more is caught. */
static ConcordGidForm
check(const char *text, size_t len)
{
	char	   *exact = malloc(len + (len == 0));
	char		buf[CONCORD_GID_SIZE];
	ConcordGid	gid;
	ConcordGid	expected;
	ConcordGidForm form;

	if (exact == NULL)
		abort();
	if (len > 0)
		memcpy(exact, text, len);
	form = concord_gid_parse(len > 0 ? exact : exact + 1, len, &gid);
	check_label(len > 0 ? exact : exact + 1, len, form);
	free(exact);

	if (form != oracle(text, len, &expected))
		fail("form of a gid", text, len);
	if (form == CONCORD_GID_FOREIGN)
		return form;
	if (!same_gid(&gid, &expected))
		fail("fields of a gid", text, len);
	if ((form == CONCORD_GID_BRANCH ? concord_gid_format(&gid, buf) :
		 concord_gid_format_transaction(&gid, buf)) != (int) len || memcmp(buf, text, len) != 0 ||
		buf[len] != '\0')
		fail("written again", text, len);
	return form;
}

/* A gid, and texts next to it as the three bytes at edit say. */
static void
check_canonical(const ConcordGid *gid, bool branch, const uint8_t *edit)
{
	char		text[TEXT_MAX];
	size_t		len = print_gid(text, gid, branch);
	size_t		place = edit[0] % (len + (edit[2] % 4 == 2));

	if (check(text, len) != (branch ? CONCORD_GID_BRANCH : CONCORD_GID_TRANSACTION))
		fail("canonical form", text, len);
	check(text, place);			/* cut off */

	switch (edit[2] % 4)
	{
		case 0:
			text[place] = (char) edit[1];
			break;
		case 1:					/* one digit for another: mostly still canonical */
			text[place] = "0123456789abcdef:/g`"[edit[1] % 20];
			break;
		case 2:
			memmove(text + place + 1, text + place, len - place);
			text[place] = (char) edit[1];
			len++;
			break;
		default:
			memmove(text + place, text + place + 1, len - place);
			len--;
	}
	check(text, len);
}

/* Any of these where a number is expected. */
static void
check_limits(const uint8_t *which)
{
	static const char *const numbers[16] = {
		"0", "1", "00", "01", "9", "32767", "32768", "65537", "2147483648",
		"4294967295", "4294967296", "4294967297",
		"18446744073709551615", "18446744073709551616", "18446744073709551617",
		"99999999999999999999"
	};
	char		text[TEXT_MAX];
	int			len;

	len = snprintf(text, sizeof(text),
				   "concord:00000000-0000-0000-0000-000000000000:%s:0000000000000000:%s:2pc:%s:%s",
				   numbers[which[0] % 16], numbers[which[1] % 16],
				   numbers[which[2] % 16], numbers[which[3] % 16]);
	check(text, (size_t) len);

	/* one at a time, as few combinations have all of them good */
	len = snprintf(text, sizeof(text),
				   "concord:00000000-0000-0000-0000-000000000000:%s:0000000000000000:%s:2pc:%s:%s",
				   which[0] % 4 == 0 ? numbers[which[1] % 16] : "1",
				   which[0] % 4 == 1 ? numbers[which[1] % 16] : "1",
				   which[0] % 4 == 2 ? numbers[which[1] % 16] : "1",
				   which[0] % 4 == 3 ? numbers[which[1] % 16] : "1");
	check(text, (size_t) len);
}

/* Two gids that differ in one bit, or one at the limits; what is no longer a gid is not written. */
static void
check_one_bit(const ConcordGid *gid, const uint8_t *edit)
{
	ConcordGid	other = *gid;
	char		buf[CONCORD_GID_SIZE];
	bool		good;

	switch (edit[0] % 8)
	{
		case 0:
			other.cluster[edit[1] % 16] ^= (uint8_t) (1 << edit[2] % 8);
			break;
		case 1:
			other.coordinator ^= 1 << edit[1] % 31;
			break;
		case 2:
			other.incarnation ^= UINT64_C(1) << edit[1] % 64;
			break;
		case 3:
			other.serial ^= UINT64_C(1) << edit[1] % 64;
			break;
		case 4:
			other.protocol = (ConcordProtocol) (edit[1] % 3);
			break;
		case 5:
			other.participant ^= 1 << edit[1] % 31;
			break;
		case 6:
			other.branch ^= UINT32_C(1) << edit[1] % 32;
			break;
		default:
			other.coordinator = 32767 + edit[1] % 2;
			other.participant = 32767 + edit[2] % 2;
	}
	good = other.coordinator >= 1 && other.coordinator <= 32767 &&
		(other.protocol == CONCORD_PROTOCOL_2PC || other.protocol == CONCORD_PROTOCOL_PAXOS);
	if ((concord_gid_format_transaction(&other, buf) >= 0) != good)
		fail("written or not", buf, strlen(buf));
	if (good && concord_gid_same_transaction(gid, &other) != same_transaction(gid, &other))
		fail("same transaction or not", buf, strlen(buf));
	good = good && other.participant >= 1 && other.participant <= 32767;
	if ((concord_gid_format(&other, buf) >= 0) != good)
		fail("written or not", buf, strlen(buf));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct
	{
		uint8_t		cluster[16];
		uint64_t	incarnation;
		uint64_t	serial;
		uint32_t	branch;
		uint16_t	coordinator;
		uint16_t	participant;
		uint8_t		shifts[4];	/* numbers of every length */
		uint8_t		edit[3];
	}			fields;
	ConcordGid	gid;

	check((const char *) data, size);

	memset(&fields, 0, sizeof(fields));
	if (size > 0)
		memcpy(&fields, data, size < sizeof(fields) ? size : sizeof(fields));
	memcpy(gid.cluster, fields.cluster, sizeof(gid.cluster));
	gid.incarnation = fields.incarnation >> fields.shifts[0] % 64;
	gid.serial = fields.serial >> fields.shifts[1] % 64;
	gid.branch = fields.branch >> fields.shifts[2] % 32;
	gid.coordinator = 1 + fields.coordinator % 32767;
	gid.participant = 1 + fields.participant % 32767;
	gid.protocol = fields.shifts[3] & 1 ? CONCORD_PROTOCOL_PAXOS : CONCORD_PROTOCOL_2PC;
	check_canonical(&gid, true, fields.edit);
	check_one_bit(&gid, fields.edit);
	check_limits(fields.shifts);
	gid.participant = 0;
	gid.branch = 0;
	check_canonical(&gid, false, fields.edit);
	return 0;
}
