/*
 * leftovers.c
 *		Collects what deleted registers, and promises to nobody, leave behind.
 *
 * WHAT: a deleted register is a tombstone on each acceptor, until somebody has collected it (core's
 * CONCORD_COLLECT), for which all must answer.  The registrar that deletes tries that at once.
 * What is left because somebody was away is found again by those who hold it: each acceptor's
 * registrar looks through its node's own table now and then.  So it finds registers that were
 * promised something and never written, as by a compare-and-set that failed; these the acceptor
 * forgets by itself (R6), when it finds them for the second time: by then nobody needs the promise.
 *
 * Two that collect the same register get in each other's way, and no further: they look at times
 * that chance tells, and who comes second finds nothing.
 *
 * What a crash leaves: some of it, until the next look.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "quorum/engine.h"
#include "quorum/leftovers.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#define LOOK_MS 10000			/* from 1 to 2 times that */
#define LOOK_SHARE 100			/* looking takes at most one part in so many of the time */
#define LOOK_NAMES 256			/* of each kind at once */
#define COLLECT_MS 5000

static int64 look_at;
static List *seen_blank;		/* char *, in seen_context */
static MemoryContext seen_context;

static bool
everybody_answers(const ConcordConfig *config)
{
	ConcordQuorumNode *list;
	int			n = concord_quorum_nodes(&list);

	for (int i = 0; i < config->n; i++)
	{
		bool		up = false;

		for (int k = 0; k < n; k++)
			up = up || (list[k].node_id == config->acceptor[i].node && list[k].reachable);
		if (!up)
			return false;
	}
	return true;
}

static bool
is_acceptor(const ConcordConfig *config)
{
	for (int i = 0; i < config->n; i++)
		if (config->acceptor[i].node == concord_quorum_self())
			return true;
	return false;
}

void
concord_leftovers_collect(const char *name, size_t len)
{
	const ConcordConfig *config = concord_quorum_config();

	if (config != NULL && everybody_answers(config))
		concord_quorum_start(name, len, CONCORD_COLLECT, 0, NULL, 0, COLLECT_MS, NULL, NULL);
}

/* What was blank at the last look, and is still. */
static List *
blank_again(List *blanks)
{
	List	   *again = NIL;
	ListCell   *lc;
	ListCell   *seen;

	foreach(lc, blanks)
		foreach(seen, seen_blank)
			if (strcmp(lfirst(lc), lfirst(seen)) == 0)
			{
				again = lappend(again, lfirst(lc));
				break;
			}
	return again;
}

static void
keep_blank(List *blanks)
{
	MemoryContext old;
	ListCell   *lc;

	if (seen_context == NULL)
		seen_context = AllocSetContextCreate(ConcordQuorumContext, "concord leftovers",
											 ALLOCSET_SMALL_SIZES);
	MemoryContextReset(seen_context);
	seen_blank = NIL;
	old = MemoryContextSwitchTo(seen_context);
	foreach(lc, blanks)
		seen_blank = lappend(seen_blank, pstrdup(lfirst(lc)));
	MemoryContextSwitchTo(old);
}

/* Returns the tombstones' names, in the turn's context. */
static List *
look(void)
{
	List	   *volatile tombstones = NIL;
	List	   *found = NIL;
	List	   *names;
	List	   *blanks;
	ListCell   *lc;

	StartTransactionCommand();
	AcceptInvalidationMessages();
	PG_TRY();
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		concord_acceptor_leftovers(LOOK_NAMES, &names, &blanks);
		MemoryContextSwitchTo(ConcordTurnContext);
		foreach(lc, names)
			found = lappend(found, pstrdup(lfirst(lc)));
		MemoryContextSwitchTo(CurTransactionContext);
		names = blank_again(blanks);
		if (names != NIL)
			concord_acceptor_forget_blanks(names);
		keep_blank(blanks);
		PopActiveSnapshot();
		CommitTransactionCommand();
		tombstones = found;
	}
	PG_CATCH();
	{
		/* somebody works on the table; another time */
		MemoryContextSwitchTo(ConcordTurnContext);
		EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(ConcordTurnContext);
	return tombstones;
}

int64
concord_leftovers_turn(void)
{
	const ConcordConfig *config = concord_quorum_config();
	int64		now = concord_quorum_ms();
	int64		took;
	List	   *names;
	ListCell   *lc;

	if (now < look_at)
		return look_at;
	took = -now;
	names = NIL;
	/* not during a change of the set, which is to read all registers */
	if (config != NULL && config->new_set == 0 && look_at > 0 && is_acceptor(config))
		names = look();
	foreach(lc, names)
		concord_leftovers_collect(lfirst(lc), strlen(lfirst(lc)));
	now = concord_quorum_ms();
	took += now;
	look_at = now + Max(took * LOOK_SHARE,
						LOOK_MS + (int64) (pg_prng_double(&pg_global_prng_state) * LOOK_MS));
	return names != NIL ? now : look_at;
}
