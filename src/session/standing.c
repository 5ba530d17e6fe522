/*
 * standing.c
 *		Where this server's WAL stands, for comparing it with a session token.
 *
 * PROMISE: a position judged REACHED by what concord_standing() says is in this server's WAL, and
 * what it committed is visible to every snapshot taken afterwards.
 *
 * INVARIANTS
 * S1 On a standby the LSN is the end of a record that was applied as a whole.  What waiters.c
 *    publishes after a commit record is looked at first, then the replay position and its
 *    timeline: so an LSN is never paired with a timeline that is older than its own.
 * S2 On a primary the LSN is the end of all WAL.  Every position ever given out lies before it,
 *    unless a crash took it back.
 * S3 On a logical copy it is what cluster/follow.c says: a place in the node's WAL, not in this
 *    server's.
 * S4 The history is read once for a timeline and kept: it does not change.
 */
#include "postgres.h"

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "cluster/follow.h"
#include "session/session.h"
#include "session/waiters.h"
#include "utils/memutils.h"

static TimeLineID history_of = 0;
static ConcordTimeline *history = NULL;
static int	nhistory = 0;

static void
read_history(TimeLineID timeline)
{
	List	   *entries;
	ConcordTimeline *copy;
	int			n = 0;
	ListCell   *lc;

	if (timeline == history_of)
		return;					/* S4 */
	entries = readTimeLineHistory(timeline);
	copy = MemoryContextAlloc(TopMemoryContext,
							  Max(list_length(entries), 1) * sizeof(ConcordTimeline));
	foreach(lc, entries)
	{
		const TimeLineHistoryEntry *entry = lfirst(lc);

		if (entry->tli == timeline)
			continue;
		copy[n].timeline = entry->tli;
		copy[n++].end = entry->end;
	}
	list_free_deep(entries);
	if (history != NULL)
		pfree(history);
	history = copy;
	nhistory = n;
	history_of = timeline;
}

void
concord_standing(const ConcordMap *map, ConcordServer *server)
{
	XLogRecPtr	lsn;
	TimeLineID	timeline;

	if (map->membership == CONCORD_COPY)
	{
		concord_followed_standing(map, server);	/* S3 */
		return;
	}
	server->primary = !RecoveryInProgress();
	if (server->primary)
	{
		lsn = GetXLogInsertRecPtr();	/* S2 */
		timeline = GetWALInsertionTimeLine();
	}
	else
	{
		XLogRecPtr	applied = concord_applied();	/* S1 */

		lsn = GetXLogReplayRecPtr(&timeline);
		lsn = Max(lsn, applied);
	}
	read_history(timeline);
	server->node = map->self;
	server->generation = map->self_generation;
	server->timeline = timeline;
	server->lsn = lsn;
	server->nhistory = nhistory;
	server->history = history;
}
