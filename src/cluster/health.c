/*
 * health.c
 *		What this server knows of the nodes without asking any.
 *
 * WHAT: concord._nodes(), behind the view nodes: the map joined with shared memory, which the
 * maintenance worker fills from its heartbeats.
 *
 * PROMISE: contacts nobody and waits for nothing but an LWLock held for microseconds.  Without
 * the preload, or before the first heartbeat, a node's state is unknown.
 */
#include "postgres.h"

#include "base/shmem.h"
#include "cluster/room.h"
#include "catalog/pg_authid.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"

PG_FUNCTION_INFO_V1(concord_nodes);
PG_FUNCTION_INFO_V1(concord_map_epoch);
PG_FUNCTION_INFO_V1(concord_map_want_sql);

/* One peer, copied from shared memory. */
typedef struct PeerCopy
{
	bool		known;
	ConcordHealth health;
	int32		latency_us;
	TimestampTz last_seen;
	int64		epoch;
	int			connections;
	char		last_error[sizeof(((ConcordPeer *) NULL)->last_error)];
} PeerCopy;

const char *
concord_health_name(int health)
{
	switch ((ConcordHealth) health)
	{
		case CONCORD_UP:
			return "up";
		case CONCORD_SUSPECT:
			return "suspect";
		case CONCORD_DOWN:
			return "down";
		case CONCORD_UNKNOWN:
			break;
	}
	return "unknown";
}

static void
copy_peer(int node_id, PeerCopy *copy)
{
	ConcordPeer *peer;

	memset(copy, 0, sizeof(*copy));
	copy->latency_us = -1;
	if (ConcordShared == NULL)
		return;
	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	peer = concord_shmem_peer(MyDatabaseId, node_id, false);
	if (peer != NULL)
	{
		copy->known = true;
		copy->health = peer->health;
		copy->latency_us = peer->latency_us;
		copy->last_seen = peer->last_seen;
		copy->epoch = peer->epoch;
		copy->connections = (int) pg_atomic_read_u32(&peer->connections);
		strlcpy(copy->last_error, peer->last_error, sizeof(copy->last_error));
	}
	LWLockRelease(ConcordShared->lock);
}

Datum
concord_nodes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		monitor = has_privs_of_role(GetUserId(), ROLE_PG_MONITOR);
	const ConcordMap *map;

	InitMaterializedSRF(fcinfo, 0);
	AcceptInvalidationMessages();
	map = concord_map();
	for (int i = 0; i < map->nnodes; i++)
	{
		const ConcordNode *node = &map->nodes[i];
		bool		local = node->node_id == map->self;
		PeerCopy	peer;
		Datum		values[9];
		bool		nulls[9] = {false};

		copy_peer(node->node_id, &peer);
		values[0] = Int32GetDatum(node->node_id);
		values[1] = CStringGetTextDatum(local ? "up" : concord_health_name(peer.health));
		values[2] = Int32GetDatum(node->nslots);
		values[3] = Float8GetDatum(local ? 0 : peer.latency_us / 1000.0);
		nulls[3] = !local && peer.latency_us < 0;
		values[4] = TimestampTzGetDatum(local ? GetCurrentTimestamp() : peer.last_seen);
		nulls[4] = !local && peer.last_seen == 0;
		values[5] = BoolGetDatum(local);
		values[6] = Int64GetDatum(local ? map->epoch : peer.epoch);
		nulls[6] = !local && peer.epoch == 0;
		values[7] = Int32GetDatum(peer.connections);
		nulls[8] = !monitor || peer.last_error[0] == '\0';
		values[8] = nulls[8] ? (Datum) 0 : CStringGetTextDatum(peer.last_error);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
concord_map_epoch(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	AcceptInvalidationMessages();
	PG_RETURN_INT64(concord_map()->epoch);
}

Datum
concord_map_want_sql(PG_FUNCTION_ARGS)
{
	concord_require_preload();
	concord_map_want(PG_GETARG_INT64(0), PG_GETARG_INT32(1));
	PG_RETURN_VOID();
}
