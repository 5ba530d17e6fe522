/*
 * duty_map.c
 *		Fetches newer maps, and ends what add_node and remove_node left open.
 *
 * WHAT: whoever hears of a newer epoch (a session from a coordinator, the worker from a heartbeat)
 * writes it into the database's entry as wanted_epoch; the map duty fetches the map from the node
 * that spoke of it, else from the authority or any peer that has it, and applies it.  A node that
 * is joining asks the authority what became of it; a node the authority does not know fetches the
 * map that says so.
 *
 * PROMISE: as long as one peer with the newer map answers, it is fetched; each failure is tried
 * again elsewhere.  Applying is idempotent, so a crash at any point only means fetching again.
 *
 * The authority, where every map comes from, does the same: a newer map can only be one that it
 * made itself before its storage went back (a restored backup, a promotion that lost changes).
 *
 * What it does NOT do: decide anything.  Verdicts are the authority's, their effects the
 * cluster room's (_apply_map, _join_finish), each one local transaction.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "worker/clock.h"
#include "worker/duty.h"

#define RETRY_MIN_MS	200
#define RETRY_MAX_MS	5000

static int	failed_source = 0;	/* node whose last answer was of no use */
static int	failures = 0;		/* in a row, of answers or of applying them */
static int64 not_before = 0;	/* concord_clock_ms(); after a failure */

/* Reads what is wanted; false when nothing newer than what there is. */
static bool
wanted(int64 *epoch, int *from_node)
{
	ConcordDatabase *entry;
	bool		result = false;

	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	entry = concord_shmem_database(MyDatabaseId, false);
	if (entry != NULL && entry->wanted_epoch > Max(entry->map_epoch, ConcordWorker.epoch))
	{
		*epoch = entry->wanted_epoch;
		*from_node = entry->wanted_from;
		result = true;
	}
	LWLockRelease(ConcordShared->lock);
	return result;
}

void
concord_map_wanted(int64 epoch, int from_node)
{
	ConcordDatabase *entry;

	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	entry = concord_shmem_database(MyDatabaseId, false);
	if (entry != NULL && entry->wanted_epoch < epoch)
	{
		entry->wanted_epoch = epoch;
		entry->wanted_from = from_node;
	}
	LWLockRelease(ConcordShared->lock);
	concord_duty_hurry(CONCORD_DUTY_MAP);
}

/* Whoever waits for a newer map is told to look again. */
static void
wake_waiters(void)
{
	ConcordDatabase *entry;

	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	entry = concord_shmem_database(MyDatabaseId, false);
	LWLockRelease(ConcordShared->lock);
	if (entry != NULL)
		ConditionVariableBroadcast(&entry->map_cv);
}

/*
 * This node has no newer map than ours.  If it was said to have one, or is the authority, where
 * every map comes from, then there is none: a session may have claimed anything.
 */
static void
want_no_more(int node_id)
{
	ConcordDatabase *entry;

	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	entry = concord_shmem_database(MyDatabaseId, false);
	if (entry != NULL &&
		(entry->wanted_from == node_id || node_id == ConcordWorker.authority))
		entry->wanted_epoch = entry->map_epoch;
	LWLockRelease(ConcordShared->lock);
}

static bool
is_source(const ConcordWorkerPeer *peer, int64 epoch)
{
	return !concord_is_replica(peer) && concord_ask_possible(peer) &&
		(peer->epoch >= epoch || peer->node_id == ConcordWorker.authority);
}

/* Who spoke of it, then the authority, then whoever has it; who failed last comes last. */
static ConcordWorkerPeer *
choose_source(int64 epoch, int from_node)
{
	ConcordWorkerPeer *named = concord_worker_peer(from_node);
	ConcordWorkerPeer *authority = concord_worker_peer(ConcordWorker.authority);
	ConcordWorkerPeer *last = NULL;
	ListCell   *lc;

	if (named != NULL && concord_ask_possible(named))
	{
		if (named->node_id != failed_source)
			return named;
		last = named;
	}
	if (authority != NULL && concord_ask_possible(authority) &&
		authority->node_id != failed_source)
		return authority;
	foreach(lc, ConcordWorker.peers)
	{
		ConcordWorkerPeer *peer = lfirst(lc);

		if (!is_source(peer, epoch))
			continue;
		if (peer->node_id != failed_source)
			return peer;
		last = peer;
	}
	return last;
}

void
concord_duty_map(void *unused)
{
	int64		epoch;
	int			from_node;
	ConcordWorkerPeer *source;
	ListCell   *lc;

	(void) unused;
	if (concord_clock_ms() < not_before || !wanted(&epoch, &from_node))
		return;
	foreach(lc, ConcordWorker.peers)
	{
		ConcordWorkerPeer *peer = lfirst(lc);

		if (peer->asked == CONCORD_ASK_MAP || (peer->wanted & (1 << CONCORD_ASK_MAP)) != 0)
			return;				/* under way */
	}
	source = choose_source(epoch, from_node);
	if (source != NULL)
		concord_ask(source, CONCORD_ASK_MAP);
}

void
concord_map_ask_failed(ConcordWorkerPeer *peer)
{
	failed_source = peer->node_id;
	wake_waiters();
	concord_duty_hurry(CONCORD_DUTY_MAP);
}

void
concord_map_send(ConcordWorkerPeer *peer)
{
	concord_link_send(peer->link, "SELECT concord._get_map()", 0, NULL);
}

void
concord_map_answer(ConcordWorkerPeer *peer, ConcordReply *reply)
{
	const char *map;
	char	   *applied;

	/* a failure until the end is reached: applying may raise an error */
	failed_source = peer->node_id;
	failures++;
	not_before = concord_clock_ms() + concord_backoff_ms(failures, RETRY_MIN_MS, RETRY_MAX_MS);
	wake_waiters();
	if (!reply->ok || reply->nrows != 1 || reply->ncols != 1 ||
		(map = concord_reply_value(reply, 0, 0)) == NULL)
	{
		ereport(LOG,
				(errmsg("could not fetch the map from node \"%s\"", peer->name),
				 reply->ok ? 0 : errdetail_internal("%s", reply->message)));
		return;
	}
	applied = concord_work_call("SELECT concord._apply_map($1::pg_catalog.jsonb)", 1, &map);
	failed_source = 0;
	failures = 0;
	not_before = 0;
	if (applied != NULL && strcmp(applied, "f") == 0)
		want_no_more(peer->node_id);
	else if (ConcordWorker.node_id == ConcordWorker.authority)
		ereport(LOG,
				(errmsg("node \"%s\" had a newer map than this node, the cluster's authority",
						peer->name),
				 errdetail("It was taken over. The storage of this server has gone back, as by restoring a backup.")));
	concord_duty_hurry(CONCORD_DUTY_SYNC);
}

/*
 * The authority's map does not hold this node.  If that map is the newer one, applying it ends the
 * membership; an authority that lost its memory removes nobody.
 */
void
concord_map_removed(ConcordWorkerPeer *peer)
{
	concord_ask(peer, CONCORD_ASK_MAP);
}

void
concord_duty_join(void *unused)
{
	ConcordWorkerPeer *authority = concord_worker_peer(ConcordWorker.authority);

	(void) unused;
	if (ConcordWorker.membership == CONCORD_JOINING && authority != NULL &&
		ConcordWorker.join_nonce[0] != '\0')
		concord_ask(authority, CONCORD_ASK_JOIN_OUTCOME);
}

void
concord_join_send(ConcordWorkerPeer *peer)
{
	const char *params[2] = {ConcordWorker.join_nonce, ConcordWorker.cluster};

	concord_link_send(peer->link, "SELECT concord._join_outcome($1, $2)", 2, params);
}

void
concord_join_answer(ConcordWorkerPeer *peer, ConcordReply *reply)
{
	const char *params[2];

	if (!reply->ok || reply->nrows != 1 || reply->ncols != 1 ||
		(params[0] = concord_reply_value(reply, 0, 0)) == NULL)
	{
		concord_heartbeat_failed(peer, reply->ok ? "no outcome of add_node" : reply->message,
								 false);
		return;
	}
	if (strcmp(params[0], "in progress") == 0)
		return;
	/* aborted: the intent is forgotten; member: the map is wanted, and makes this node one */
	params[1] = ConcordWorker.join_nonce;
	(void) concord_work_call("SELECT concord._join_finish($1, $2::pg_catalog.uuid)", 2, params);
	concord_duty_hurry(CONCORD_DUTY_MAP);
	concord_duty_hurry(CONCORD_DUTY_SYNC);
}
