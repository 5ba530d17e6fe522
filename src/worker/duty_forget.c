/*
 * duty_forget.c
 *		Deletes the decisions that nobody needs any more.
 *
 * WHAT: once a minute, and when _forget_decisions() asks for it: finds what is old enough
 * (commit/horizon.c), asks all nodes for what they have prepared of this coordinator, stores the
 * horizon, deletes below it; and begins again if there may be more than one batch of it.
 *
 * STATES (function on the edge)
 *		IDLE --begin_round--> ASKING (nothing is old enough: end_request, IDLE)
 *		ASKING --all have answered: apply--> IDLE, due again at once after a full batch
 *		ASKING --a node cannot be asked, or the deadline passed: end_request--> IDLE
 *
 * INVARIANTS: Z1 to Z4 of commit/horizon.c.  An answer counts for the round in which it was asked.
 *
 * What is left when something dies: see there; a round that is lost is begun again.
 */
#include "postgres.h"

#include "base/settings.h"
#include "commit/resolver.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/clock.h"
#include "worker/duty.h"

#define ROUND_INTERVAL_MS	60000
#define ROUND_MS			15000	/* for all answers to come */
#define LOOK_MS				500

static MemoryContext round_context = NULL;
static List *candidates = NIL;	/* of the round; ConcordForget * */
static uint64 round_number = 0;
static bool asking = false;
static int64 round_deadline;
static int64 next_round = 0;	/* concord_clock_ms() */
static uint64 request = 0;		/* the last one read ... */
static uint64 request_done = 0;
static int64 request_retention_us;	/* ... and what it wants */
static int64 deleted = 0;		/* since the request or the minute began */

static void
read_request(void)
{
	ConcordDatabase *entry;

	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	entry = concord_shmem_database(MyDatabaseId, false);
	if (entry != NULL)
	{
		request = entry->forget_wanted;
		request_done = entry->forget_done;
		request_retention_us = entry->forget_retention_us;
	}
	LWLockRelease(ConcordShared->lock);
}

/* The request, if there is one, is served; result is the rows deleted, or -1. */
static void
end_request(int64 result)
{
	ConcordDatabase *entry;

	asking = false;
	deleted = 0;
	next_round = concord_clock_ms() + ROUND_INTERVAL_MS;
	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	entry = concord_shmem_database(MyDatabaseId, false);
	if (entry != NULL && entry->forget_done < request)
	{
		entry->forget_done = request;
		entry->forgotten = result;
	}
	LWLockRelease(ConcordShared->lock);
	if (entry != NULL)
		ConditionVariableBroadcast(&entry->work_cv);
}

/* Z1 (1), (2) */
static void
begin_round(void)
{
	int64		retention_us = request > request_done ? request_retention_us :
		(int64) concord_outcome_retention_s * USECS_PER_SEC;
	ListCell   *lc;
	List	   *found;

	MemoryContextReset(round_context);
	candidates = NIL;
	concord_work_begin("looking for old decisions");
	PushActiveSnapshot(GetTransactionSnapshot());
	found = concord_forget_candidates(retention_us);
	foreach(lc, found)
	{
		ConcordForget *forget = lfirst(lc);
		MemoryContext old = MemoryContextSwitchTo(round_context);

		if (forget->lowest < forget->horizon)
		{
			ConcordForget *kept = palloc(sizeof(ConcordForget));

			*kept = *forget;
			candidates = lappend(candidates, kept);
		}
		MemoryContextSwitchTo(old);
	}
	PopActiveSnapshot();
	concord_work_commit();
	if (candidates == NIL)
	{
		end_request(deleted);
		return;
	}
	asking = true;
	round_number++;
	round_deadline = concord_clock_ms() + ROUND_MS;
}

void
concord_prepared_send(ConcordWorkerPeer *peer)
{
	const char *params[3];

	params[0] = ConcordWorker.cluster;
	params[1] = psprintf("%d", peer->node_id);
	params[2] = psprintf("%d", ConcordWorker.node_id);
	peer->asked_round = round_number;
	concord_link_send(peer->link,
					  "SELECT incarnation, serial FROM concord._prepared($1, $2, $3)", 3, params);
}

void
concord_prepared_answer(ConcordWorkerPeer *peer, ConcordReply *reply)
{
	if (!asking || peer->asked_round != round_number)
		return;
	concord_duty_hurry(CONCORD_DUTY_FORGET);
	if (!reply->ok || reply->ncols != 2)
	{
		end_request(-1);		/* Z2 */
		return;
	}
	for (int row = 0; row < reply->nrows; row++)
		concord_forget_limit(candidates,
							 (uint64) strtoll(concord_reply_value(reply, row, 0), NULL, 10),
							 (uint64) strtoll(concord_reply_value(reply, row, 1), NULL, 10));
	peer->answered_round = round_number;
}

/* Asks who has not been asked; returns whether all have answered, or ends the round (Z2). */
static bool
all_answered(void)
{
	bool		all = true;
	ListCell   *lc;

	foreach(lc, ConcordWorker.peers)
	{
		ConcordWorkerPeer *peer = lfirst(lc);

		if (concord_is_replica(peer) || peer->answered_round == round_number)
			continue;
		all = false;
		if (!concord_ask_possible(peer) || concord_clock_ms() > round_deadline)
		{
			end_request(-1);
			return false;
		}
		if (peer->asked != CONCORD_ASK_PREPARED)
			concord_ask(peer, CONCORD_ASK_PREPARED);
	}
	return all;
}

/* Z1 (3) for this node */
static void
limit_to_own(void)
{
	ListCell   *lc;

	concord_work_begin("looking for prepared branches");
	PushActiveSnapshot(GetTransactionSnapshot());
	foreach(lc, concord_prepared_needs(concord_map(), ConcordWorker.node_id))
	{
		const ConcordNeeded *need = lfirst(lc);

		concord_forget_limit(candidates, need->incarnation, need->serial);
	}
	PopActiveSnapshot();
	concord_work_commit();
}

/* Z3: each call is a transaction of its own */
static int64
forget_below(const ConcordForget *forget)
{
	const char *params[2];
	const char *rows;

	params[0] = psprintf(INT64_FORMAT, (int64) forget->incarnation);
	params[1] = psprintf(UINT64_FORMAT, forget->horizon);
	if (forget->own)
		(void) concord_work_call("SELECT concord._raise_horizon($1::pg_catalog.int8,"
								 " $2::pg_catalog.int8)", 2, params);
	rows = concord_work_call("SELECT concord._delete_decisions($1::pg_catalog.int8,"
							 " $2::pg_catalog.int8)", 2, params);
	return rows != NULL ? strtoll(rows, NULL, 10) : 0;
}

static void
apply(void)
{
	int64		rows = 0;
	ListCell   *lc;

	asking = false;
	limit_to_own();
	foreach(lc, candidates)
	{
		const ConcordForget *forget = lfirst(lc);

		if (forget->lowest < forget->horizon)
			rows += forget_below(forget);
	}
	deleted += rows;
	/* what has become old since is left to the next round: under load there is always some */
	if (rows < CONCORD_FORGET_BATCH)
		end_request(deleted);
	else
		next_round = 0;			/* the next batch */
	concord_duty_hurry(CONCORD_DUTY_FORGET);
}

void
concord_duty_forget(void *unused)
{
	(void) unused;
	if (ConcordWorker.membership != CONCORD_MEMBER)
		return;
	if (round_context == NULL)
		round_context = AllocSetContextCreate(ConcordWorker.context, "concord forgetting",
											  ALLOCSET_SMALL_SIZES);
	if (!asking)
	{
		read_request();
		if (request <= request_done && concord_clock_ms() < next_round)
			return;
		begin_round();
	}
	if (asking && all_answered())
		apply();
	if (asking)
		concord_duty_at(CONCORD_DUTY_FORGET, concord_clock_ms() + LOOK_MS);
}
