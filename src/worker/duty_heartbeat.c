/*
 * duty_heartbeat.c
 *		Which peers are alive, how far away they are, and which map they have.
 *
 * WHAT: every concord.heartbeat_interval each peer is asked concord._heartbeat().  The question
 * tells it our epoch (a peer with an older map fetches the newer one), the answer tells us its own
 * (then we do).  A new epoch is told to all at once, so a change spreads in one round trip.
 * Replicas are asked a question of their own (duty_copies.c); their silence is judged here too.
 *
 * STATES of a peer's health
 *		UNKNOWN, SUSPECT, DOWN --heard--> UP				a good answer
 *		UNKNOWN, UP --concord_duty_health--> SUSPECT		silent for concord.suspect_after
 *		UNKNOWN, UP, SUSPECT --concord_duty_health--> DOWN	silent for concord.down_after
 *		any --concord_heartbeat_failed(refused)--> DOWN		it said no: nothing listens, it is not
 *															who it should be, it does not know us
 *
 * INVARIANTS
 * B1 Silence is measured on a clock that does not jump, and only while this process was able to
 *    listen: after a pause of its own nobody is called silent for it.
 * B2 Only an answer from the node we meant, as a member of our cluster, counts.  The peer checks
 *    cluster and node id of the question; we check the node id of the answer.
 */
#include "postgres.h"

#include "base/errors.h"
#include "base/settings.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/timestamp.h"
#include "worker/clock.h"
#include "worker/duty.h"

#define REFUSED_MAX_MS	10000

/* columns of concord_heartbeat_send()'s statement */
enum
{
	HB_NODE_ID, HB_EPOCH, HB_VERSION, HB_GENERATION, HB_TIMELINE, HB_LSN, HB_COLUMNS
};

static void
log_health(const ConcordWorkerPeer *peer, ConcordHealth now, const char *reason)
{
	const char *what = concord_is_replica(peer) ? "replica" : "node";

	if (now == CONCORD_DOWN)
		ereport(LOG,
				(errmsg("%s \"%s\" is down", what, peer->name),
				 reason != NULL ? errdetail_internal("%s", reason) : 0));
	else if (now == CONCORD_UP && peer->health == CONCORD_DOWN)
		ereport(LOG, (errmsg("%s \"%s\" is up again", what, peer->name)));
}

/* Cuts a message to what the view shows. */
static void
store_error(char *target, size_t size, const char *reason)
{
	int			length = pg_mbcliplen(reason, strlen(reason), size - 1);

	memcpy(target, reason, length);
	target[length] = '\0';
}

static void
set_health(ConcordWorkerPeer *peer, ConcordHealth health, const char *reason)
{
	ConcordPeer *shared;

	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	shared = concord_shmem_peer(MyDatabaseId, peer->node_id, true);
	if (shared != NULL)
	{
		shared->health = health;
		if (health == CONCORD_DOWN)
			shared->servable = false;
		if (reason != NULL)
			store_error(shared->last_error, sizeof(shared->last_error), reason);
	}
	LWLockRelease(ConcordShared->lock);

	if (health != peer->health)
		log_health(peer, health, reason);
	peer->health = health;
}

void
concord_heartbeat_failed(ConcordWorkerPeer *peer, const char *reason, bool refused)
{
	/* the first line says it, the rest is libpq's advice */
	reason = pnstrdup(reason, strcspn(reason, "\n"));
	set_health(peer, refused ? CONCORD_DOWN : peer->health, reason);
}

/* The peer answers, and the answer is no.  It is asked less often: each is an error in its log. */
void
concord_heartbeat_refused(ConcordWorkerPeer *peer, const char *reason)
{
	peer->refusals++;
	peer->quiet_until = concord_clock_ms() +
		concord_backoff_ms(peer->refusals, concord_heartbeat_interval_ms,
						   Max(concord_heartbeat_interval_ms, REFUSED_MAX_MS));
	concord_heartbeat_failed(peer, reason, true);
}

void
concord_heartbeat_send(ConcordWorkerPeer *peer)
{
	const char *params[6];

	params[0] = ConcordWorker.cluster;
	params[1] = psprintf("%d", ConcordWorker.node_id);
	params[2] = psprintf("%d", peer->node_id);
	params[3] = psprintf("%d", CONCORD_PROTOCOL);
	params[4] = psprintf(INT64_FORMAT, ConcordWorker.epoch);
	params[5] = psprintf("%d", ConcordWorker.generation);
	concord_link_send(peer->link,
					  "SELECT node_id, epoch, version, generation, timeline, lsn"
					  " FROM concord._heartbeat($1, $2, $3, $4, $5, $6)",
					  lengthof(params), params);
	peer->told_epoch = ConcordWorker.epoch;
}

/*
 * A good answer (B2): when it was sent, and how far away who answered is; with a problem, it is
 * alive and yet not as it should be.
 */
void
concord_heartbeat_heard(ConcordWorkerPeer *peer, int64 epoch, const char *version,
						const char *problem)
{
	int64		round_trip_us = concord_clock_us() - peer->asked_at_us;
	ConcordPeer *shared;

	peer->heard_at = concord_clock_ms();
	peer->refusals = 0;
	peer->quiet_until = 0;
	peer->epoch = epoch;

	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	shared = concord_shmem_peer(MyDatabaseId, peer->node_id, true);
	if (shared != NULL)
	{
		shared->latency_us = (int32) Min(round_trip_us, PG_INT32_MAX);
		shared->last_seen = GetCurrentTimestamp();
		shared->epoch = peer->epoch;
		shared->last_error[0] = '\0';
		strlcpy(shared->version, version != NULL ? version : "", sizeof(shared->version));
	}
	LWLockRelease(ConcordShared->lock);
	set_health(peer, CONCORD_UP, problem);
}

static void
heard(ConcordWorkerPeer *peer, ConcordReply *reply)
{
	const char *generation = concord_reply_value(reply, 0, HB_GENERATION);
	const char *timeline = concord_reply_value(reply, 0, HB_TIMELINE);
	XLogRecPtr	lsn = concord_copy_lsn(concord_reply_value(reply, 0, HB_LSN));
	ConcordPeer *shared;

	concord_heartbeat_heard(peer, strtoll(concord_reply_value(reply, 0, HB_EPOCH), NULL, 10),
							concord_reply_value(reply, 0, HB_VERSION), NULL);
	if (peer->epoch > ConcordWorker.epoch)
		concord_map_wanted(peer->epoch, peer->node_id);

	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	shared = concord_shmem_peer(MyDatabaseId, peer->node_id, true);
	if (shared != NULL)
	{
		shared->servable = true;
		shared->timeline = timeline != NULL ? (uint32) strtoul(timeline, NULL, 10) : 0;
		shared->lsn = lsn;
	}
	LWLockRelease(ConcordShared->lock);
	if (generation != NULL && timeline != NULL && !XLogRecPtrIsInvalid(lsn))
		concord_copies_sample(peer->node_id, atoi(generation),
							  (uint32) strtoul(timeline, NULL, 10), lsn, peer->sent_us);
}

/* Is this error of the peer's a matter of the moment, not an answer about who it is? */
static bool
is_passing(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
			return true;
		default:
			return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE;
	}
}

void
concord_heartbeat_error(ConcordWorkerPeer *peer, const ConcordReply *reply)
{
	if (is_passing(reply->sqlstate))
		concord_heartbeat_failed(peer, reply->message, false);
	else
		concord_heartbeat_refused(peer, reply->message);
}

void
concord_heartbeat_answer(ConcordWorkerPeer *peer, ConcordReply *reply)
{
	const char *node_id;

	if (!reply->ok)
	{
		concord_heartbeat_error(peer, reply);
		if (reply->sqlstate == ERRCODE_UNDEFINED_OBJECT && peer->node_id == ConcordWorker.authority)
			concord_map_removed(peer);
		return;
	}
	if (reply->nrows != 1 || reply->ncols != HB_COLUMNS ||
		(node_id = concord_reply_value(reply, 0, HB_NODE_ID)) == NULL ||
		concord_reply_value(reply, 0, HB_EPOCH) == NULL)
	{
		concord_heartbeat_refused(peer, "the answer to a heartbeat is malformed");
		return;
	}
	if (atoi(node_id) != peer->node_id)
	{
		concord_heartbeat_refused(peer, psprintf("node %s answered instead of node %d", node_id,
												 peer->node_id));
		return;
	}
	heard(peer, reply);
}

void
concord_duty_heartbeat(void *unused)
{
	ListCell   *lc;

	(void) unused;
	if (ConcordWorker.membership != CONCORD_MEMBER)
		return;
	concord_copies_sample_self();
	foreach(lc, ConcordWorker.peers)
	{
		ConcordWorkerPeer *peer = lfirst(lc);

		if (concord_is_replica(peer))
		{
			if (peer->asked != CONCORD_ASK_COPY && peer->quiet_until <= concord_clock_ms())
				concord_ask(peer, CONCORD_ASK_COPY);
			continue;
		}
		/* one that is under way will do, unless it tells an old epoch */
		if (peer->told_epoch != ConcordWorker.epoch ||
			(peer->asked != CONCORD_ASK_HEARTBEAT && peer->quiet_until <= concord_clock_ms()))
			concord_ask(peer, CONCORD_ASK_HEARTBEAT);
	}
}

static int
heartbeat_interval(void)
{
	return Min(concord_heartbeat_interval_ms, INT_MAX / 4);
}

void
concord_duty_health(void *unused)
{
	static int64 last_run = 0;
	static int	last_suspect_after = 0;
	static int	last_down_after = 0;
	int64		now = concord_clock_ms();
	int64		since_last = last_run == 0 ? 0 : now - last_run;
	/* nobody is silent between two heartbeats, whatever the settings say */
	int			suspect_after = Max(concord_suspect_after_ms, 2 * heartbeat_interval());
	int			down_after = Max(concord_down_after_ms, 3 * heartbeat_interval());
	bool		fresh = suspect_after != last_suspect_after || down_after != last_down_after;
	ListCell   *lc;

	(void) unused;
	last_run = now;
	last_suspect_after = suspect_after;
	last_down_after = down_after;
	foreach(lc, ConcordWorker.peers)
	{
		ConcordWorkerPeer *peer = lfirst(lc);
		int64		silence;

		if (ConcordWorker.membership != CONCORD_MEMBER || fresh)
			peer->heard_at = now;	/* nobody was asked, or not so often */
		else if (since_last > suspect_after)
			peer->heard_at = Min(now, peer->heard_at + since_last); /* B1 */
		silence = now - peer->heard_at;
		if (peer->health == CONCORD_DOWN)
			continue;
		if (silence >= down_after)
			set_health(peer, CONCORD_DOWN, psprintf("silent for %d ms", down_after));
		else if (silence >= suspect_after && peer->health != CONCORD_SUSPECT)
			set_health(peer, CONCORD_SUSPECT, psprintf("silent for %d ms", suspect_after));
	}
}
