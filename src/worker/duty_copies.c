/*
 * duty_copies.c
 *		Whether replicas can be read, and how old what they show may be.
 *
 * WHAT: a replica is asked concord._copy_heartbeat() as often as a peer its heartbeat.  The answers
 * are compared with what the map says of it, and with where its node was at which time.
 *
 * PROMISE: fresh_at_us in shared memory is a moment of this machine's clock such that everything
 * committed on the node before it is visible on the replica, as long as the replica's server is of
 * the incarnation that stands beside it.
 *
 * Why it holds: a heartbeat sent to a node at time t is answered with the end of the node's WAL
 * after it was received, so what was committed before t lies before that end (concord_wal_end()).
 * A replica that has applied as much of the same timeline shows it.  Neither the node's nor the
 * replica's clock, nor how long an answer took, matters.
 *
 * INVARIANTS
 * R1 A replica is servable only if the last answer said that it is in recovery, holds the identity
 *    of the node that the map says, attached, and of that node's generation; and the link over
 *    which it came still stands.  A logical copy says instead that it is one of that node and
 *    generation and that nothing is wrong with its subscription; and it is on the node's timeline.
 * R2 Samples are of one generation of a node in one cluster, and of one timeline (core/fresh.h).
 * R3 fresh_at_us does not go back but when the replica is another incarnation (after a crash it may
 *    have applied less for a while) or is not servable for what it is.
 *
 * What a crash leaves: nothing; it is learned again from the next answers.
 */
#include "postgres.h"

#include "base/settings.h"
#include "cluster/copies.h"
#include "core/fresh.h"
#include "miscadmin.h"
#include "utils/timestamp.h"
#include "worker/clock.h"
#include "worker/duty.h"

/* columns of concord_copy_send()'s statement */
enum
{
	COPY_CLUSTER, COPY_NODE, COPY_GENERATION, COPY_MEMBERSHIP, COPY_IN_RECOVERY, COPY_TIMELINE,
	COPY_LSN, COPY_EPOCH, COPY_VERSION, COPY_INCARNATION, COPY_PROBLEM, COPY_COLUMNS
};

/* Where a node with replicas was, R2. */
typedef struct NodeSamples
{
	char		cluster[sizeof(ConcordWorker.cluster)];
	int			node_id;
	int			generation;
	ConcordSamples samples;
} NodeSamples;

static List *known = NIL;		/* of NodeSamples *, in ConcordWorker.context */

XLogRecPtr
concord_copy_lsn(const char *text)
{
	uint32		high;
	uint32		low;

	if (text == NULL || sscanf(text, "%X/%X", &high, &low) != 2)
		return InvalidXLogRecPtr;
	return ((uint64) high << 32) | low;
}

static NodeSamples *
find_samples(int node_id)
{
	ListCell   *lc;

	foreach(lc, known)
	{
		NodeSamples *node = lfirst(lc);

		if (node->node_id == node_id)
			return node;
	}
	return NULL;
}

static bool
has_replicas(int node_id)
{
	ListCell   *lc;

	foreach(lc, ConcordWorker.peers)
		if (((ConcordWorkerPeer *) lfirst(lc))->copy_of == node_id)
			return true;
	return false;
}

/* The node's samples, made if it has replicas, emptied if they are of another storage (R2). */
static NodeSamples *
samples_of(int node_id, int generation)
{
	NodeSamples *node = find_samples(node_id);

	if (node == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(ConcordWorker.context);

		node = palloc0(sizeof(NodeSamples));
		node->node_id = node_id;
		known = lappend(known, node);
		MemoryContextSwitchTo(old);
	}
	if (node->generation != generation || strcmp(node->cluster, ConcordWorker.cluster) != 0)
	{
		memset(&node->samples, 0, sizeof(node->samples));
		node->generation = generation;
		strlcpy(node->cluster, ConcordWorker.cluster, sizeof(node->cluster));
	}
	return node;
}

/* Moves a servable replica's fresh_at_us on as far as its last answer allows. */
static void
freshen(const ConcordWorkerPeer *peer)
{
	const NodeSamples *node = find_samples(peer->copy_of);
	int64		reached;
	ConcordPeer *shared;

	if (!peer->servable || node == NULL || node->generation != peer->generation ||
		strcmp(node->cluster, ConcordWorker.cluster) != 0)
		return;
	reached = concord_samples_reached(&node->samples, peer->timeline, peer->lsn);
	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	shared = concord_shmem_peer(MyDatabaseId, peer->node_id, true);
	if (shared != NULL && shared->fresh_at_us < reached)
		shared->fresh_at_us = reached;	/* R3 */
	LWLockRelease(ConcordShared->lock);
}

void
concord_copies_sample(int node_id, int generation, uint32 timeline, XLogRecPtr lsn, int64 sent_us)
{
	ListCell   *lc;

	if (!has_replicas(node_id))
	{
		NodeSamples *node = find_samples(node_id);

		if (node != NULL)
		{
			known = list_delete_ptr(known, node);
			pfree(node);
		}
		return;
	}
	concord_samples_add(&samples_of(node_id, generation)->samples, timeline, lsn, sent_us);
	/* a replica may have told already that it has that much */
	foreach(lc, ConcordWorker.peers)
	{
		const ConcordWorkerPeer *peer = lfirst(lc);

		if (peer->copy_of == node_id)
			freshen(peer);
	}
}

void
concord_copies_sample_self(void)
{
	int64		now = concord_copy_clock_us();	/* before the position is read */
	TimeLineID	timeline;
	XLogRecPtr	lsn;

	if (!has_replicas(ConcordWorker.node_id))
		return;
	lsn = concord_wal_end(&timeline);
	concord_copies_sample(ConcordWorker.node_id, ConcordWorker.generation, timeline, lsn, now);
}

void
concord_copy_send(ConcordWorkerPeer *peer)
{
	concord_link_send(peer->link,
					  "SELECT cluster, node_id, generation, membership, in_recovery::pg_catalog.int4,"
					  " timeline, lsn, epoch, version, incarnation, problem"
					  " FROM concord._copy_heartbeat()",
					  0, NULL);
}

/* The timeline of a node when it was last sampled, 0 = not known. */
static uint32
timeline_of_node(int node_id)
{
	ConcordPeer *shared;
	TimeLineID	timeline = 0;

	if (node_id == ConcordWorker.node_id)
	{
		(void) concord_wal_end(&timeline);
		return timeline;
	}
	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	shared = concord_shmem_peer(MyDatabaseId, node_id, false);
	if (shared != NULL)
		timeline = shared->timeline;
	LWLockRelease(ConcordShared->lock);
	return timeline;
}

/* The same of a logical copy. */
static const char *
problem_of_logical(const ConcordWorkerPeer *peer, const ConcordReply *reply)
{
	const char *problem = concord_reply_value(reply, 0, COPY_PROBLEM);
	uint32		timeline = (uint32) strtoul(concord_reply_value(reply, 0, COPY_TIMELINE), NULL, 10);
	uint32		node_timeline = timeline_of_node(peer->copy_of);

	if (strcmp(concord_reply_value(reply, 0, COPY_MEMBERSHIP), "copy") != 0)
		return "it is not a logical copy any more";
	if (problem != NULL)
		return problem;
	if (node_timeline != 0 && timeline != node_timeline)
		return psprintf("it follows timeline %u of its node, which is on timeline %u", timeline,
						node_timeline);
	return NULL;
}

/* Why a server that holds the right node's identity cannot be read as its replica, or NULL (R1). */
static const char *
problem_of(const ConcordWorkerPeer *peer, const ConcordReply *reply)
{
	const char *membership = concord_reply_value(reply, 0, COPY_MEMBERSHIP);
	int			generation = atoi(concord_reply_value(reply, 0, COPY_GENERATION));

	if (peer->logical)
	{
		const char *problem = problem_of_logical(peer, reply);

		if (problem != NULL)
			return problem;
	}
	else if (atoi(concord_reply_value(reply, 0, COPY_IN_RECOVERY)) == 0)
		return "it is not a standby any more";
	else if (strcmp(membership, "member") != 0)
		return psprintf("its identity is not a member's: %s", membership);
	if (generation != peer->generation)
		return psprintf("it is of generation %d of its node, which is at generation %d",
						generation, peer->generation);
	return NULL;
}

/* An answer's position, and what follows from it. */
static void
store_position(ConcordWorkerPeer *peer, uint64 incarnation)
{
	ConcordPeer *shared;

	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	shared = concord_shmem_peer(MyDatabaseId, peer->node_id, true);
	if (shared != NULL)
	{
		if (!peer->servable || shared->incarnation != incarnation)
			shared->fresh_at_us = 0;	/* R3 */
		shared->incarnation = incarnation;
		shared->timeline = peer->timeline;
		shared->lsn = peer->lsn;
		shared->servable = peer->servable;
	}
	LWLockRelease(ConcordShared->lock);
	freshen(peer);
}

void
concord_copy_answer(ConcordWorkerPeer *peer, ConcordReply *reply)
{
	const char *cluster;
	const char *problem;
	bool		was_servable = peer->servable;

	if (!reply->ok)
	{
		concord_heartbeat_error(peer, reply);
		return;
	}
	if (reply->nrows != 1 || reply->ncols != COPY_COLUMNS)
	{
		concord_heartbeat_refused(peer, "the answer to a heartbeat is malformed");
		return;
	}
	cluster = concord_reply_value(reply, 0, COPY_CLUSTER);
	if (cluster == NULL)
	{
		concord_heartbeat_refused(peer, "the database belongs to no cluster");
		return;
	}
	for (int col = 0; col < COPY_PROBLEM; col++)
		if (concord_reply_value(reply, 0, col) == NULL)
		{
			concord_heartbeat_refused(peer, "the answer to a heartbeat is malformed");
			return;
		}
	if (strcmp(cluster, ConcordWorker.cluster) != 0 ||
		atoi(concord_reply_value(reply, 0, COPY_NODE)) != peer->copy_of)
	{
		concord_heartbeat_refused(peer, psprintf("it is a copy of node %s of cluster %s",
												 concord_reply_value(reply, 0, COPY_NODE),
												 cluster));
		return;
	}

	problem = problem_of(peer, reply);
	peer->servable = problem == NULL;
	peer->timeline = (uint32) strtoul(concord_reply_value(reply, 0, COPY_TIMELINE), NULL, 10);
	peer->lsn = concord_copy_lsn(concord_reply_value(reply, 0, COPY_LSN));
	concord_heartbeat_heard(peer,
							strtoll(concord_reply_value(reply, 0, COPY_EPOCH), NULL, 10),
							concord_reply_value(reply, 0, COPY_VERSION), problem);
	store_position(peer, strtoull(concord_reply_value(reply, 0, COPY_INCARNATION), NULL, 16));
	if (was_servable && !peer->servable)
		ereport(LOG,
				(errmsg("replica \"%s\" cannot serve any more", peer->name),
				 errdetail_internal("%s", problem)));
}

void
concord_copy_lost(ConcordWorkerPeer *peer)
{
	ConcordPeer *shared;

	peer->servable = false;		/* R1 */
	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	shared = concord_shmem_peer(MyDatabaseId, peer->node_id, false);
	if (shared != NULL)
		shared->servable = false;
	LWLockRelease(ConcordShared->lock);
}
