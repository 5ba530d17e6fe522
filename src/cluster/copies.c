/*
 * copies.c
 *		Replicas: what they answer, and what is known of them.
 *
 * WHAT: _copy_heartbeat(), which a node's worker calls on a replica; concord_copy_health(), which
 * gives a backend what the worker has heard; _replicas(), behind the view replicas.
 *
 * PROMISE: looking at what is known contacts nobody and waits for nothing but an LWLock held for
 * microseconds.  What a replica says of itself is not older than the question.
 *
 * INVARIANTS
 * C1 The caller of _copy_heartbeat() is concord.node_role or a superuser, checked here.
 * C2 A replica's position is the end of a record applied as a whole: its commits are visible to
 *    every snapshot taken afterwards.  A logical copy's is follow.c's.
 * C3 It judges nothing about itself: a standby's map may be old, and one that was promoted by hand
 *    does not know that nobody reads it any more.  Who asks compares.  A logical copy says what is
 *    wrong with its subscription, which nobody else can see.
 * C4 The session that asks does not get in the way of a smart shutdown, which waits for clients:
 *    it ends when it sees one.  (On a primary the maintenance worker ends such sessions.)
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "base/settings.h"
#include "base/stopping.h"
#include "catalog/pg_authid.h"
#include "cluster/copies.h"
#include "cluster/follow.h"
#include "cluster/room.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/pg_lsn.h"

#define LAG_WARNING_BYTES	((int64) 1024 * 1024 * 1024)
#define LAG_WARNING_S		60

PG_FUNCTION_INFO_V1(concord_copy_heartbeat);
PG_FUNCTION_INFO_V1(concord_replicas);

XLogRecPtr
concord_wal_end(TimeLineID *timeline)
{
	XLogRecPtr	lsn = GetXLogInsertRecPtr();

	/* where the next record begins may be behind a page's header, the last one's end is not */
	if (XLogSegmentOffset(lsn, wal_segment_size) == SizeOfXLogLongPHD)
		lsn -= SizeOfXLogLongPHD;
	else if (lsn % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		lsn -= SizeOfXLogShortPHD;
	*timeline = GetWALInsertionTimeLine();
	if (GetFlushRecPtr(NULL) < lsn)
		XLogSetAsyncXactLSN(lsn);
	return lsn;
}

Datum
concord_copy_heartbeat(PG_FUNCTION_ARGS)
{
	const ConcordMap *map;
	bool		in_recovery = RecoveryInProgress();
	TimeLineID	timeline;
	XLogRecPtr	lsn;
	TupleDesc	desc;
	const char *problem = NULL;
	Datum		values[13];
	bool		nulls[13] = {false};

	concord_require_preload();
	concord_require_node_role();	/* C1 */
	if (in_recovery && concord_postmaster_is_stopping())
		ereport(FATAL,			/* C4 */
				(errcode(ERRCODE_ADMIN_SHUTDOWN),
				 errmsg("the server is shutting down")));
	AcceptInvalidationMessages();
	map = concord_map();
	if (map->membership == CONCORD_COPY)
	{
		ConcordServer server;

		concord_followed_standing(map, &server);
		timeline = server.timeline;
		lsn = server.lsn;
		problem = concord_followed_problem(map);
	}
	else if (in_recovery)
		lsn = GetXLogReplayRecPtr(&timeline);	/* C2 */
	else
		lsn = concord_wal_end(&timeline);

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	nulls[0] = nulls[1] = nulls[2] = map->membership == CONCORD_NO_MEMBER;
	values[0] = UUIDPGetDatum(&map->cluster_id);
	values[1] = Int32GetDatum(map->self);
	values[2] = Int32GetDatum(map->self_generation);
	values[3] = CStringGetTextDatum(concord_membership_name(map->membership));
	values[4] = BoolGetDatum(in_recovery);
	values[5] = Int32GetDatum((int32) timeline);
	values[6] = LSNGetDatum(lsn);
	values[7] = Int64GetDatum(map->epoch);
	values[8] = CStringGetTextDatum(CONCORD_VERSION);
	values[9] = CStringGetTextDatum(psprintf("%016llx",
											 (unsigned long long) ConcordShared->incarnation));
	values[10] = Int64GetDatum((int64) GetSystemIdentifier());
	values[11] = ObjectIdGetDatum(MyDatabaseId);
	nulls[12] = problem == NULL;
	values[12] = nulls[12] ? (Datum) 0 : CStringGetTextDatum(problem);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/* error may be NULL; else of size bytes */
static bool
look_up(int copy, ConcordCopyHealth *health, char *error, size_t size)
{
	ConcordPeer *peer;

	memset(health, 0, sizeof(*health));
	health->latency_us = -1;
	if (error != NULL)
		error[0] = '\0';
	if (ConcordShared == NULL)
		return false;
	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	peer = concord_shmem_peer(MyDatabaseId, copy, false);
	if (peer != NULL)
	{
		health->health = peer->health;
		health->latency_us = peer->latency_us;
		health->last_seen = peer->last_seen;
		health->servable = peer->servable;
		health->timeline = peer->timeline;
		health->lsn = peer->lsn;
		health->fresh_at_us = peer->fresh_at_us;
		health->incarnation = peer->incarnation;
		if (error != NULL)
			strlcpy(error, peer->last_error, size);
	}
	LWLockRelease(ConcordShared->lock);
	return peer != NULL;
}

bool
concord_copy_health(int copy, ConcordCopyHealth *health)
{
	return look_up(copy, health, NULL, 0);
}

/*
 * How much WAL of its node a replica has not applied; -1 when that cannot be told, *parted if
 * because it is on another timeline.
 */
static int64
lag_bytes(const ConcordMap *map, const ConcordReplica *replica, const ConcordCopyHealth *health,
		  bool *parted)
{
	ConcordCopyHealth node;

	if (replica->node_id == map->self)
		node.lsn = concord_wal_end(&node.timeline);
	else
		(void) concord_copy_health(replica->node_id, &node);
	*parted = health->timeline != 0 && node.timeline != 0 && node.timeline != health->timeline;
	if (*parted || health->timeline == 0 || node.timeline == 0)
		return -1;
	/* what was heard of the replica may be the newer */
	return node.lsn > health->lsn ? (int64) (node.lsn - health->lsn) : 0;
}

Datum
concord_replicas(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		monitor = has_privs_of_role(GetUserId(), ROLE_PG_MONITOR);
	const ConcordMap *map;

	InitMaterializedSRF(fcinfo, 0);
	if (RecoveryInProgress())
		return (Datum) 0;
	AcceptInvalidationMessages();
	map = concord_map();
	for (int i = 0; i < map->nreplicas; i++)
	{
		const ConcordReplica *replica = &map->replicas[i];
		char		error[sizeof(((ConcordPeer *) NULL)->last_error)];
		ConcordCopyHealth health;
		Interval	staleness = {0};
		bool		parted;
		int64		lag;
		Datum		values[10];
		bool		nulls[10] = {false};

		(void) look_up(-replica->replica_id, &health, error, sizeof(error));
		lag = lag_bytes(map, replica, &health, &parted);
		staleness.time = concord_copy_clock_us() - health.fresh_at_us;
		values[0] = Int32GetDatum(replica->replica_id);
		values[1] = CStringGetTextDatum(concord_health_name(health.health));
		values[2] = BoolGetDatum(health.servable);
		values[3] = Int32GetDatum((int32) health.timeline);
		values[4] = LSNGetDatum(health.lsn);
		nulls[3] = nulls[4] = health.timeline == 0;
		values[5] = Int64GetDatum(lag);
		nulls[5] = lag < 0;
		values[6] = IntervalPGetDatum(&staleness);
		nulls[6] = health.fresh_at_us == 0;
		values[7] = Float8GetDatum(health.latency_us / 1000.0);
		nulls[7] = health.latency_us < 0;
		values[8] = TimestampTzGetDatum(health.last_seen);
		nulls[8] = health.last_seen == 0;
		nulls[9] = !monitor || error[0] == '\0';
		values[9] = nulls[9] ? (Datum) 0 : CStringGetTextDatum(error);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

char *
concord_copy_complaint(const ConcordMap *map, const ConcordReplica *replica, const char **hint)
{
	const char *name = NameStr(replica->name);
	char		error[sizeof(((ConcordPeer *) NULL)->last_error)];
	ConcordCopyHealth health;
	bool		parted;
	int64		lag;
	double		stale_s;

	(void) look_up(-replica->replica_id, &health, error, sizeof(error));
	if (health.health != CONCORD_UP)
	{
		*hint = "Look whether the server runs, and whether its pg_hba.conf lets concord.node_role in.";
		return psprintf("replica \"%s\" is %s%s%s", name, concord_health_name(health.health),
						error[0] != '\0' ? ": " : "", error);
	}
	if (!health.servable)
	{
		*hint = "Build the standby anew, or take it off the list with concord.remove_replica.";
		if (replica->logical)
			*hint = "Look at pg_stat_subscription there. If it has followed another timeline, subscribe anew, or take it off the list with concord.remove_replica.";
		return psprintf("replica \"%s\" cannot serve: %s", name, error);
	}
	*hint = "Look whether the standby receives and replays WAL: pg_stat_wal_receiver, pg_get_wal_replay_pause_state().";
	lag = lag_bytes(map, replica, &health, &parted);
	if (parted)
		return psprintf("replica \"%s\" is on timeline %u, its node on another", name,
						health.timeline);
	if (lag > LAG_WARNING_BYTES)
		return psprintf("replica \"%s\" is " INT64_FORMAT " MB behind its node", name,
						lag / (1024 * 1024));
	stale_s = (concord_copy_clock_us() - health.fresh_at_us) / 1e6;
	if (health.fresh_at_us != 0 && stale_s > LAG_WARNING_S)
		return psprintf("replica \"%s\" may lack what was committed up to %.0f s ago", name,
						stale_s);
	return NULL;
}
