/*
 * test_token_property.c
 *		What must hold of every session token and every verdict (T1 to T4), in random worlds.
 *
 * A world is the timelines of a few generations of a few nodes.  In it the WAL of a server is
 * looked up LSN by LSN, going from timeline to timeline, instead of by the switch points of a
 * history; and the union of tokens is a list that is searched from its begin, and sorted.
 */
#include "unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/token.h"

#define ROOM 64
#define NODES 2
#define GENERATIONS 2
#define TIMELINES 6
#define LSNS 20
#define XIDS 3
#define DEFAULT_STEPS 6000

/* A token with memory of its own */
typedef struct Sheet
{
	ConcordToken token;
	ConcordPosition positions[ROOM];
} Sheet;

/* The timelines of one generation of one node: each but the first branches off an earlier one. */
typedef struct Tree
{
	uint32_t	parent[TIMELINES + 1];
	uint64_t	begin[TIMELINES + 1];	/* where it does */
} Tree;

/* What there is in one step of the test */
static struct
{
	Tree		trees[NODES + 1][GENERATIONS + 1];
	bool		ended[NODES + 1][XIDS + 1]; /* branches */
}			world;

static uint64_t state;
static int	steps_done;

static int
below(int n)
{
	return (int) (unit_random(&state) % (uint64_t) n);
}

static void
draw_world(void)
{
	memset(&world, 0, sizeof(world));
	for (int node = 1; node <= NODES; node++)
	{
		for (int xid = 1; xid <= XIDS; xid++)
			world.ended[node][xid] = below(3) > 0;
		for (int generation = 1; generation <= GENERATIONS; generation++)
		{
			Tree	   *tree = &world.trees[node][generation];

			for (int t = 2; t <= TIMELINES; t++)
			{
				int			parent = 1 + below(t - 1);

				if (below(2) == 0)
					parent = t - 1; /* long lines, too */
				tree->parent[t] = (uint32_t) parent;
				tree->begin[t] = tree->begin[parent] +
					(uint64_t) below((int) (LSNS - tree->begin[parent]));
			}
		}
	}
}

/* The timeline on which the record that ends at this LSN was written, in the WAL of a timeline. */
static uint32_t
writer(const Tree *tree, uint32_t timeline, uint64_t lsn)
{
	while (lsn <= tree->begin[timeline])
		timeline = tree->parent[timeline];
	return timeline;
}

static ConcordPosition
draw_position(void)
{
	ConcordPosition p = {1 + below(NODES), 1 + below(GENERATIONS), 0, 0, 0};
	uint64_t	begin;

	p.timeline = (uint32_t) (1 + below(TIMELINES));
	begin = world.trees[p.node][p.generation].begin[p.timeline];
	p.lsn = begin + 1 + (uint64_t) below((int) (LSNS - begin));
	p.xid = (uint64_t) (below(2) == 0 ? 1 + below(XIDS) : 0);
	return p;
}

/* A server somewhere in its tree; its history, in any order, is in ends. */
static ConcordServer
draw_server(ConcordTimeline ends[TIMELINES])
{
	ConcordPosition at = draw_position();
	const Tree *tree = &world.trees[at.node][at.generation];
	ConcordServer server = {at.node, at.generation, below(2) == 0, at.timeline, at.lsn, 0, ends};

	if (server.primary && below(4) == 0)
		server.lsn = tree->begin[at.timeline];	/* just promoted */
	for (uint32_t t = at.timeline; t > 1; t = tree->parent[t])
		ends[server.nhistory++] = (ConcordTimeline) {tree->parent[t], tree->begin[t]};
	for (int i = server.nhistory - 1; i > 0; i--)
	{
		int			j = below(i + 1);
		ConcordTimeline other = ends[i];

		ends[i] = ends[j];
		ends[j] = other;
	}
	return server;
}

static bool
contains(const ConcordServer *server, const ConcordPosition *p)
{
	return p->generation == server->generation && p->lsn <= server->lsn &&
		writer(&world.trees[p->node][p->generation], server->timeline, p->lsn) == p->timeline;
}

/* Has the server everything of its node, by its WAL and by the branches that have ended? */
static bool
satisfies(const ConcordServer *server, const ConcordToken *token)
{
	for (int i = 0; i < token->n; i++)
		if (token->positions[i].node == server->node &&
			(!contains(server, &token->positions[i]) ||
			 (token->positions[i].xid != 0 &&
			  !world.ended[server->node][token->positions[i].xid])))
			return false;
	return true;
}

/* T4: REACHED is what is contained; what may still come to a standby is never LOST. */
static void
check_verdict(const ConcordServer *server)
{
	ConcordPosition p = draw_position();
	const Tree *tree = &world.trees[server->node][server->generation];
	ConcordReach verdict;

	p.node = server->node;
	if (p.lsn <= world.trees[p.node][p.generation].begin[p.timeline])
		p.lsn = LSNS;			/* there is none such on another node's timeline */
	verdict = concord_position_judge(&p, server);
	CHECK((verdict == CONCORD_REACHED) == contains(server, &p), "step %d", steps_done);
	if (server->primary || p.generation != server->generation || verdict != CONCORD_LOST)
		return;
	for (uint32_t t = 1; t <= TIMELINES; t++)
		CHECK(writer(tree, t, server->lsn) != server->timeline ||
			  writer(tree, t, p.lsn) != p.timeline, "step %d: timeline %" PRIu32, steps_done, t);
}

static void
clear(Sheet *sheet, int max)
{
	memset(sheet, 0, sizeof(*sheet));
	sheet->token.max = max;
	sheet->token.positions = sheet->positions;
}

static void
copy(Sheet *to, const Sheet *from)
{
	*to = *from;
	to->token.positions = to->positions;
}

static int
compare(const void *a, const void *b)
{
	const ConcordPosition *x = a;
	const ConcordPosition *y = b;
	const uint64_t keys[4][2] = {
		{(uint64_t) x->node, (uint64_t) y->node},
		{(uint64_t) x->generation, (uint64_t) y->generation},
		{x->timeline, y->timeline},
		{x->xid, y->xid},
	};

	for (int i = 0; i < 4; i++)
		if (keys[i][0] != keys[i][1])
			return keys[i][0] < keys[i][1] ? -1 : 1;
	return 0;
}

/* A token of random positions; *model is the same by a list that is searched and sorted. */
static void
draw_token(Sheet *sheet, Sheet *model)
{
	clear(sheet, ROOM);
	clear(model, ROOM);
	for (int left = below(14); left > 0; left--)
	{
		ConcordPosition p = draw_position();
		int			i;

		CHECK(concord_token_add(&sheet->token, &p), "step %d", steps_done);
		for (i = 0; i < model->token.n; i++)
			if (compare(&model->positions[i], &p) == 0)
				break;
		if (i == model->token.n)
			model->positions[model->token.n++] = p;
		else if (model->positions[i].lsn < p.lsn)
			model->positions[i].lsn = p.lsn;
	}
	qsort(model->positions, (size_t) model->token.n, sizeof(ConcordPosition), compare);
}

static bool
same(const Sheet *a, const Sheet *b)
{
	if (a->token.n != b->token.n)
		return false;
	for (int i = 0; i < a->token.n; i++)
		if (compare(&a->positions[i], &b->positions[i]) != 0 ||
			a->positions[i].lsn != b->positions[i].lsn)
			return false;
	return true;
}

/* T1 */
static void
check_text(const Sheet *sheet)
{
	char		text[4096];
	Sheet		again;
	int			len = concord_token_format(&sheet->token, text, sizeof(text));

	clear(&again, sheet->token.n);
	CHECK(len > 0, "step %d", steps_done);
	CHECK(concord_token_parse(text, (size_t) len, &again.token, NULL) == CONCORD_TOKEN_OK,
		  "%s", text);
	CHECK(same(sheet, &again), "%s", text);
}

/* T3: what is dropped is what the server's line contains, below something later on this line. */
static void
check_settled(const Sheet *sheet, const ConcordServer *server)
{
	const Tree *tree = &world.trees[server->node][server->generation];
	Sheet		settled;
	Sheet		model;

	copy(&settled, sheet);
	concord_token_settle(&settled.token, server);
	clear(&model, ROOM);
	for (int i = 0; i < sheet->token.n; i++)
	{
		const ConcordPosition *a = &sheet->positions[i];
		bool		included = false;

		for (uint32_t t = server->timeline; t > a->timeline; t = tree->parent[t])
			for (int j = 0; j < sheet->token.n; j++)
			{
				const ConcordPosition *b = &sheet->positions[j];

				included |= b->node == server->node && b->generation == server->generation &&
					b->timeline == t;
			}
		if (!included || a->node != server->node || a->generation != server->generation ||
			a->xid != 0 || writer(tree, server->timeline, a->lsn) != a->timeline)
			model.positions[model.token.n++] = *a;
	}
	CHECK(same(&settled, &model), "step %d", steps_done);
	for (int i = 0; i < 10; i++)
	{
		ConcordTimeline ends[TIMELINES];
		ConcordServer other = draw_server(ends);

		CHECK(satisfies(&other, &settled.token) == satisfies(&other, &sheet->token),
			  "step %d", steps_done);
	}
}

static void
step(void)
{
	Sheet		a;
	Sheet		b;
	Sheet		merged;
	Sheet		model;
	Sheet		reversed;
	ConcordTimeline ends[TIMELINES];
	ConcordServer server;

	draw_token(&a, &model);
	CHECK(same(&a, &model), "step %d", steps_done);
	draw_token(&b, &model);
	copy(&merged, &a);
	CHECK(concord_token_merge(&merged.token, &b.token), "step %d", steps_done);
	copy(&reversed, &b);
	CHECK(concord_token_merge(&reversed.token, &a.token), "step %d", steps_done);
	CHECK(same(&merged, &reversed), "step %d", steps_done);
	check_text(&merged);

	/* there is just enough room, or one place too few */
	copy(&reversed, &b);
	reversed.token.max = merged.token.n;
	CHECK(concord_token_merge(&reversed.token, &a.token), "step %d", steps_done);
	copy(&reversed, &b);
	reversed.token.max = merged.token.n - 1;
	if (merged.token.n > b.token.n)
		CHECK(!concord_token_merge(&reversed.token, &a.token) && same(&reversed, &b),
			  "step %d", steps_done);

	for (int i = 0; i < 20; i++)
	{
		server = draw_server(ends);
		CHECK(satisfies(&server, &merged.token) ==
			  (satisfies(&server, &a.token) && satisfies(&server, &b.token)),	/* T2 */
			  "step %d", steps_done);
		check_verdict(&server);
	}
	server = draw_server(ends);
	check_settled(&merged, &server);
}

static void
token_random_worlds(void)
{
	const char *given = getenv("CONCORD_STEPS");
	int			steps = given != NULL ? atoi(given) : DEFAULT_STEPS;

	CHECK(steps > 0, "CONCORD_STEPS");
	state = unit_seed();
	for (steps_done = 0; steps_done < steps && !unit_failed(); steps_done++)
	{
		if (steps_done % 4 == 0)
			draw_world();
		step();
	}
	printf("# %d random tokens, CONCORD_SEED=%" PRIu64 "\n", steps_done, unit_seed());
}

void
test_token_property(void)
{
	RUN(token_random_worlds);
}
