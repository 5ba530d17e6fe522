/*
 * token.c
 *		Session tokens: text, union, verdicts.
 *
 * See the header for what they promise.  A token is an ascending array; what is looked for in it
 * is found by bisection.  The verdicts are a table of where a position lies, seen from a server.
 */
#include "core/token.h"

#include <string.h>

#include "core/placement.h"

#define UUID_LEN 36
#define HEX_DIGITS_MAX 8		/* in one half of an LSN */

/* ---------------------------------------------------------------- order and limits */

/* By node, generation, timeline and xid: less than 0, 0, greater than 0. */
static int
compare_positions(const ConcordPosition *a, const ConcordPosition *b)
{
	if (a->node != b->node)
		return a->node < b->node ? -1 : 1;
	if (a->generation != b->generation)
		return a->generation < b->generation ? -1 : 1;
	if (a->timeline != b->timeline)
		return a->timeline < b->timeline ? -1 : 1;
	if (a->xid != b->xid)
		return a->xid < b->xid ? -1 : 1;
	return 0;
}

static bool
position_valid(const ConcordPosition *position)
{
	return position->node >= 1 && position->node <= CONCORD_MAX_NODE_ID &&
		position->generation >= 1 && position->timeline >= 1 && position->lsn >= 1;
}

/* May this position follow the others? */
static bool
position_ascends(const ConcordToken *token, int n, const ConcordPosition *position)
{
	return n == 0 || compare_positions(&token->positions[n - 1], position) < 0;
}

static int
capacity(const ConcordToken *token)
{
	return token->max < CONCORD_TOKEN_POSITIONS ? token->max : CONCORD_TOKEN_POSITIONS;
}

/* ---------------------------------------------------------------- reading */

/* What is left of the text that is read; what cannot be read stays in it */
typedef struct Rest
{
	const char *at;
	size_t		len;
} Rest;

static void
skip(Rest *rest)
{
	rest->at++;
	rest->len--;
}

static bool
take_char(Rest *rest, char c)
{
	if (rest->len == 0 || *rest->at != c)
		return false;
	skip(rest);
	return true;
}

/* The value of a digit, a letter standing for ten, or -1. */
static int
digit_value(char c, char ten)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= ten && c < ten + 6)
		return c - ten + 10;
	return -1;
}

/*
 * Reads a number of 1 .. max (9 at least) without leading zeros: the digits that keep it in this
 * range.  One digit more is not what follows a number, and is refused there.
 */
static bool
take_decimal(Rest *rest, uint64_t max, uint64_t *value)
{
	*value = 0;
	while (rest->len > 0 && *rest->at >= '0' && *rest->at <= '9')
	{
		uint64_t	digit = (uint64_t) (*rest->at - '0');

		if ((*value == 0 && digit == 0) || *value > (max - digit) / 10)
			break;
		*value = *value * 10 + digit;
		skip(rest);
	}
	return *value > 0;
}

/* Reads half an LSN; zero is the one digit '0', if it is allowed. */
static bool
take_hex(Rest *rest, bool zero, uint64_t *value)
{
	int			digits = 0;

	*value = 0;
	if (zero && take_char(rest, '0'))
		return true;
	while (rest->len > 0 && digits < HEX_DIGITS_MAX)
	{
		int			digit = digit_value(*rest->at, 'A');

		if (digit < 0 || (digits == 0 && digit == 0))
			break;
		*value = *value << 4 | (uint64_t) digit;
		digits++;
		skip(rest);
	}
	return digits > 0;
}

static bool
take_cluster(Rest *rest, uint8_t cluster[16])
{
	memset(cluster, 0, 16);
	for (int i = 0, nibble = 0; i < UUID_LEN; i++)
	{
		int			digit;

		if (i == 8 || i == 13 || i == 18 || i == 23)
		{
			if (!take_char(rest, '-'))
				return false;
			continue;
		}
		digit = rest->len > 0 ? digit_value(*rest->at, 'a') : -1;
		if (digit < 0)
			return false;
		cluster[nibble / 2] = (uint8_t) (cluster[nibble / 2] << 4 | digit);
		nibble++;
		skip(rest);
	}
	return true;
}

static bool
take_position(Rest *rest, ConcordPosition *position)
{
	uint64_t	node;
	uint64_t	generation;
	uint64_t	timeline;
	uint64_t	high;
	uint64_t	low;

	position->xid = 0;
	if (!take_decimal(rest, CONCORD_MAX_NODE_ID, &node) ||
		!take_char(rest, '.') ||
		!take_decimal(rest, INT32_MAX, &generation) ||
		!take_char(rest, ':') ||
		!take_decimal(rest, UINT32_MAX, &timeline) ||
		!take_char(rest, '/') ||
		!take_hex(rest, true, &high) ||
		!take_char(rest, '/') ||
		!take_hex(rest, high > 0, &low) ||
		(take_char(rest, '?') && !take_decimal(rest, UINT64_MAX, &position->xid)))
		return false;

	position->node = (int) node;
	position->generation = (int) generation;
	position->timeline = (uint32_t) timeline;
	position->lsn = high << 32 | low;
	return true;
}

/* Of the form "c<number>:"? */
static bool
has_version(const char *text, size_t len)
{
	size_t		i = 1;

	if (len == 0 || text[0] != 'c')
		return false;
	while (i < len && text[i] >= '0' && text[i] <= '9')
		i++;
	return i > 1 && i < len && text[i] == ':' && (i == 2 || text[1] != '0');
}

static ConcordTokenError
take_token(Rest *rest, ConcordToken *token)
{
	token->n = 0;
	for (const char *c = CONCORD_TOKEN_PREFIX; *c != '\0'; c++)
		if (!take_char(rest, *c))
			return CONCORD_TOKEN_SYNTAX;
	if (!take_cluster(rest, token->cluster))
		return CONCORD_TOKEN_SYNTAX;

	while (take_char(rest, ';'))
	{
		const Rest	begin = *rest;
		ConcordPosition position;

		if (!take_position(rest, &position))
			return CONCORD_TOKEN_SYNTAX;
		if (!position_ascends(token, token->n, &position))
		{
			*rest = begin;
			return CONCORD_TOKEN_SYNTAX;
		}
		if (token->n >= capacity(token))
		{
			*rest = begin;
			return CONCORD_TOKEN_TOO_LONG;
		}
		token->positions[token->n++] = position;
	}
	return rest->len == 0 ? CONCORD_TOKEN_OK : CONCORD_TOKEN_SYNTAX;
}

ConcordTokenError
concord_token_parse(const char *text, size_t len, ConcordToken *token, size_t *offset)
{
	Rest		rest = {text, len};
	ConcordTokenError error = take_token(&rest, token);
	size_t		read = len - rest.len;

	if (error == CONCORD_TOKEN_SYNTAX && read < strlen(CONCORD_TOKEN_PREFIX) &&
		has_version(text, len))
	{
		error = CONCORD_TOKEN_VERSION;
		read = 1;				/* the number */
	}
	if (error != CONCORD_TOKEN_OK && offset != NULL)
		*offset = read;
	return error;
}

/* ---------------------------------------------------------------- writing */

/* These write without a terminating zero, and return where they stopped. */
static char *
write_decimal(char *at, uint64_t value)
{
	char		digits[20];
	int			n = 0;

	do
		digits[n++] = (char) ('0' + value % 10);
	while ((value /= 10) > 0);
	while (n > 0)
		*at++ = digits[--n];
	return at;
}

static char *
write_hex(char *at, uint32_t value)
{
	int			shift = 28;

	while (shift > 0 && value >> shift == 0)
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		*at++ = "0123456789ABCDEF"[value >> shift & 15];
	return at;
}

static char *
write_char(char *at, char c)
{
	*at = c;
	return at + 1;
}

static char *
write_head(char *at, const uint8_t cluster[16])
{
	memcpy(at, CONCORD_TOKEN_PREFIX, strlen(CONCORD_TOKEN_PREFIX));
	at += strlen(CONCORD_TOKEN_PREFIX);
	for (int i = 0; i < 16; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*at++ = '-';
		*at++ = "0123456789abcdef"[cluster[i] >> 4];
		*at++ = "0123456789abcdef"[cluster[i] & 15];
	}
	return at;
}

/* Writes a position with its ';', and returns the length. */
static size_t
format_position(const ConcordPosition *position, char text[CONCORD_POSITION_SIZE])
{
	char	   *at = write_char(text, ';');

	at = write_char(write_decimal(at, (uint64_t) position->node), '.');
	at = write_char(write_decimal(at, (uint64_t) position->generation), ':');
	at = write_char(write_decimal(at, position->timeline), '/');
	at = write_char(write_hex(at, (uint32_t) (position->lsn >> 32)), '/');
	at = write_hex(at, (uint32_t) position->lsn);
	if (position->xid != 0)
		at = write_decimal(write_char(at, '?'), position->xid);
	return (size_t) (at - text);
}

/* Is it a token that concord_token_parse() would read? */
static bool
token_valid(const ConcordToken *token)
{
	if (token->n < 0 || token->n > CONCORD_TOKEN_POSITIONS)
		return false;
	for (int i = 0; i < token->n; i++)
		if (!position_valid(&token->positions[i]) ||
			!position_ascends(token, i, &token->positions[i]))
			return false;
	return true;
}

int
concord_token_format(const ConcordToken *token, char *buf, size_t size)
{
	size_t		len = CONCORD_TOKEN_HEAD;

	if (size > 0)
		buf[0] = '\0';
	if (size <= CONCORD_TOKEN_HEAD || !token_valid(token))
		return -1;

	*write_head(buf, token->cluster) = '\0';
	for (int i = 0; i < token->n; i++)
	{
		char		text[CONCORD_POSITION_SIZE];
		size_t		more = format_position(&token->positions[i], text);

		if (more >= size - len)
		{
			buf[0] = '\0';
			return -1;
		}
		memcpy(buf + len, text, more);
		len += more;
		buf[len] = '\0';
	}
	return (int) len;
}

/* ---------------------------------------------------------------- union */

/* The place of the first position that is not before this one; *found: it is the same. */
static int
find_position(const ConcordToken *token, const ConcordPosition *position, bool *found)
{
	int			low = 0;
	int			high = token->n;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (compare_positions(&token->positions[middle], position) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*found = low < token->n && compare_positions(&token->positions[low], position) == 0;
	return low;
}

bool
concord_token_add(ConcordToken *token, const ConcordPosition *position)
{
	bool		found;
	int			place = find_position(token, position, &found);
	ConcordPosition *here = &token->positions[place];

	if (found)
	{
		if (here->lsn < position->lsn)
			here->lsn = position->lsn;
		return true;
	}
	if (token->n >= capacity(token))
		return false;
	memmove(here + 1, here, (size_t) (token->n - place) * sizeof(*here));
	*here = *position;
	token->n++;
	return true;
}

bool
concord_token_merge(ConcordToken *token, const ConcordToken *other)
{
	int			missing = 0;

	for (int i = 0; i < other->n; i++)
	{
		bool		found;

		(void) find_position(token, &other->positions[i], &found);
		missing += !found;
	}
	if (missing > capacity(token) - token->n)
		return false;
	for (int i = 0; i < other->n; i++)
		(void) concord_token_add(token, &other->positions[i]);	/* there is room */
	return true;
}

void
concord_token_remove_xid(ConcordToken *token, int node, int generation, uint64_t xid)
{
	int			kept = 0;

	if (xid == 0)
		return;
	for (int i = 0; i < token->n; i++)
	{
		const ConcordPosition *p = &token->positions[i];

		if (p->node != node || p->generation != generation || p->xid != xid)
			token->positions[kept++] = *p;
	}
	token->n = kept;
}

/* ---------------------------------------------------------------- servers */

/* Where a position lies, seen from a server of its node */
typedef enum Place
{
	OLDER_GENERATION,
	NEWER_GENERATION,
	CURRENT_WITHIN,				/* on the current timeline, up to the server's LSN */
	CURRENT_BEYOND,
	ANCESTOR_WITHIN,			/* on a timeline of the history, up to the switch point */
	ANCESTOR_BEYOND,
	OTHER_EARLIER,				/* on an earlier timeline that is not in the history */
	LATER_TIMELINE
} Place;

/* The table of concord_position_judge() */
static const struct
{
	ConcordReach primary;
	ConcordReach standby;
}			verdicts[] =
{
	[OLDER_GENERATION] = {CONCORD_LOST, CONCORD_LOST},
	[NEWER_GENERATION] = {CONCORD_LEFT_BEHIND, CONCORD_AHEAD},
	[CURRENT_WITHIN] = {CONCORD_REACHED, CONCORD_REACHED},
	[CURRENT_BEYOND] = {CONCORD_LOST, CONCORD_AHEAD},
	[ANCESTOR_WITHIN] = {CONCORD_REACHED, CONCORD_REACHED},
	[ANCESTOR_BEYOND] = {CONCORD_LOST, CONCORD_LOST},
	[OTHER_EARLIER] = {CONCORD_LOST, CONCORD_LOST},
	[LATER_TIMELINE] = {CONCORD_LEFT_BEHIND, CONCORD_AHEAD},
};

/* The entry of a timeline in the history, or NULL; the current one is not asked for. */
static const ConcordTimeline *
find_ancestor(const ConcordServer *server, uint32_t timeline)
{
	for (int i = 0; i < server->nhistory; i++)
		if (server->history[i].timeline == timeline)
			return &server->history[i];
	return NULL;
}

static Place
locate(const ConcordPosition *position, const ConcordServer *server)
{
	const ConcordTimeline *ancestor;

	if (position->generation < server->generation)
		return OLDER_GENERATION;
	if (position->generation > server->generation)
		return NEWER_GENERATION;
	if (position->timeline == server->timeline)
		return position->lsn <= server->lsn ? CURRENT_WITHIN : CURRENT_BEYOND;
	ancestor = find_ancestor(server, position->timeline);
	if (ancestor != NULL)
		return position->lsn <= ancestor->end ? ANCESTOR_WITHIN : ANCESTOR_BEYOND;
	return position->timeline < server->timeline ? OTHER_EARLIER : LATER_TIMELINE;
}

ConcordReach
concord_position_judge(const ConcordPosition *position, const ConcordServer *server)
{
	Place		place = locate(position, server);

	return server->primary ? verdicts[place].primary : verdicts[place].standby;
}

ConcordReach
concord_token_judge(const ConcordToken *token, const ConcordServer *server, int *which)
{
	ConcordReach worst = CONCORD_REACHED;
	int			first = -1;

	for (int i = 0; i < token->n; i++)
	{
		ConcordReach verdict;

		if (token->positions[i].node != server->node)
			continue;
		verdict = concord_position_judge(&token->positions[i], server);
		if (first < 0 || verdict > worst)	/* the enum ascends from good to bad */
		{
			worst = verdict;
			first = i;
		}
	}
	if (which != NULL)
		*which = first;
	return worst;
}

/*
 * Is the position at this index known to be included by one on a later timeline?
 *
 * The history is a line, from the oldest timeline to the current one: two timelines of it, and the
 * switch point of the earlier, are all there is to know.  Of other timelines, and of those of
 * another generation, it says nothing.
 */
static bool
is_included(const ConcordToken *token, int index, const ConcordServer *server)
{
	const ConcordPosition *a = &token->positions[index];

	if (a->node != server->node || a->xid != 0 || locate(a, server) != ANCESTOR_WITHIN)
		return false;
	for (int i = index + 1; i < token->n; i++)
	{
		const ConcordPosition *b = &token->positions[i];

		if (b->node == a->node && b->generation == a->generation && b->timeline > a->timeline &&
			(b->timeline == server->timeline || find_ancestor(server, b->timeline) != NULL))
			return true;
	}
	return false;
}

void
concord_token_settle(ConcordToken *token, const ConcordServer *server)
{
	int			kept = 0;

	/* what includes a dropped one and is dropped itself is included by one that stays */
	for (int i = 0; i < token->n; i++)
		if (!is_included(token, i, server))
			token->positions[kept++] = token->positions[i];
	token->n = kept;
}
