/*
 * duty_resolve.c
 *		Finishes the branches of distributed transactions that are left prepared in this database.
 *
 * WHAT: lists them, asks the node of each one's coordinator how it ended, lists them again, and
 * commits or rolls back.  Each node does that for its own database only (P6).
 *
 * PROMISE: a branch whose coordinator's node can be asked, and does not work on the transaction
 * any more, is finished within two seconds with the default concord.resolve_delay.  One whose
 * outcome nobody knows is kept for ever, said once in the log, and shown by concord.transactions
 * and the doctor.
 *
 * STATES of a branch here (function on the edge)
 *		- --list_branches--> NEW (younger than concord.resolve_delay: left to its coordinator,
 *		unless somebody asks for it, as the session does that ends with it)
 *		NEW --concord_outcomes_send--> ASKED
 *		ASKED --concord_outcomes_answer--> DECIDED, or NEW again for later
 *		NEW, own coordinator --judge_own--> DECIDED, or NEW again for later
 *		any --list_branches: an administrator ordered it--> DECIDED
 *		DECIDED --finish_decided--> gone; if it is busy, DECIDED again later
 *		any --list_branches: not prepared any more--> gone
 *
 * INVARIANTS
 * R1 A branch is finished only after commit or abort was answered for this very gid by the node
 *    that the gid names, or ordered by an administrator (P2, P4).  These answers are final: so
 *    it does not matter how old they are, nor that they are answered twice.
 * R2 Who is asked was in the list before; a branch prepared after the list was made is in a later
 *    one.
 * R3 What this process remembers is only a memory of answers: losing it means to ask again.
 * R4 Finishing takes at most TURN_MS at a time; the links and the other duties come in between.
 *
 * What is left when something dies: this process before the COMMIT PREPARED, the branch, which
 * the next one asks for; after it, nothing.  The coordinator's node, while it is asked: a lost
 * answer is asked for again.
 * Two at once (the coordinator's own phase two, a superuser, a former worker): one finishes, the
 * other finds nothing (42704) or a busy branch (55000), and both would have done the same.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/settings.h"
#include "commit/resolver.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/clock.h"
#include "worker/duty.h"

#define LOOK_MS			500		/* between two looks while a branch is in doubt */
#define LOOK_MIN_MS		20
#define WAIT_MIN_MS		50		/* after "in progress", longer each time */
#define WAIT_MAX_MS		500
#define UNKNOWN_MS		10000	/* after "unknown": an administrator may bring the answer back */
#define BUSY_MS			100
#define TURN_MS			100		/* R4 */
#define AT_ONCE			500		/* gids in one question */

typedef struct InDoubt
{
	char		gid[CONCORD_GID_SIZE];	/* the hash key */
	ConcordGid	parsed;
	bool		listed;			/* in the last list */
	bool		asked;			/* in the question under way */
	bool		decided;
	bool		commit;			/* decided: how */
	bool		forced;			/* decided: by an administrator */
	bool		logged;
	bool		hurried;		/* by a request, when its node could not be asked */
	int64		prepared_at;	/* concord_clock_ms() */
	int			answers;		/* that said nothing, in a row */
	int64		due;			/* to be asked, or finished, not before (concord_clock_ms()) */
	uint64		asked_for;		/* the last request when it was asked for ... */
	uint64		served;			/* ... and when what was answered was asked for */
} InDoubt;

static HTAB *branches = NULL;
static uint64 request = 0;		/* the last one to resolve now ... */
static uint64 told = 0;			/* ... and the last one that was told to be done */

static void
create_table(void)
{
	HASHCTL		control = {.keysize = CONCORD_GID_SIZE, .entrysize = sizeof(InDoubt),
	.hcxt = ConcordWorker.context};

	branches = hash_create("concord branches in doubt", 64, &control,
						   HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

static InDoubt *
next_branch(HASH_SEQ_STATUS *iterator)
{
	return hash_seq_search(iterator);
}

#define foreach_branch(branch) \
	for (HASH_SEQ_STATUS it_ = begin_branches(); ((branch) = next_branch(&it_)) != NULL;)

static HASH_SEQ_STATUS
begin_branches(void)
{
	HASH_SEQ_STATUS iterator;

	hash_seq_init(&iterator, branches);
	return iterator;
}

/* ------------------------------------------------------------- requests */

static void
record_incarnation(void)
{
	const char *params[2];

	params[0] = psprintf(INT64_FORMAT, (int64) ConcordShared->incarnation);
	params[1] = psprintf("%u", GetWALInsertionTimeLine());
	(void) concord_work_call("SELECT concord._record_incarnation($1::pg_catalog.int8,"
							 " $2::pg_catalog.int4)", 2, params);
	concord_incarnation_mark();
}

static void
read_request(void)
{
	ConcordDatabase *entry;

	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	entry = concord_shmem_database(MyDatabaseId, false);
	if (entry != NULL)
		request = entry->resolve_wanted;
	LWLockRelease(ConcordShared->lock);
}

static void
tell(bool done, int finished)
{
	ConcordDatabase *entry;

	if (finished == 0 && told == request)
		return;
	if (done)
		told = request;
	LWLockAcquire(ConcordShared->lock, LW_EXCLUSIVE);
	entry = concord_shmem_database(MyDatabaseId, false);
	if (entry != NULL)
	{
		entry->resolved += finished;
		if (done)
			entry->resolve_done = request;
	}
	LWLockRelease(ConcordShared->lock);
	if (entry != NULL && done)
		ConditionVariableBroadcast(&entry->work_cv);
}

/* ------------------------------------------------------------- answers */

static const char *
coordinator_name(const InDoubt *branch)
{
	ConcordWorkerPeer *peer = concord_worker_peer(branch->parsed.coordinator);

	return peer != NULL ? psprintf("\"%s\"", peer->name) :
		psprintf("%d", branch->parsed.coordinator);
}

static void
log_unknown(InDoubt *branch, const char *why)
{
	if (branch->logged)
		return;
	branch->logged = true;
	ereport(LOG,
			(errmsg("prepared branch \"%s\" stays in doubt", branch->gid),
			 why != NULL ? errdetail_internal("%s", why) : 0,
			 errhint("Find out on the other nodes how the transaction ended, then call concord.force_transaction().")));
}

/* An answer about one branch, wherever it came from.  R1 */
static void
take_verdict(InDoubt *branch, ConcordVerdict verdict, const char *why)
{
	int64		now = concord_clock_ms();

	branch->asked = false;
	branch->served = branch->asked_for;
	branch->answers++;
	switch (verdict)
	{
		case CONCORD_VERDICT_COMMIT:
		case CONCORD_VERDICT_ABORT:
			branch->decided = true;
			branch->commit = verdict == CONCORD_VERDICT_COMMIT;
			branch->due = now;
			break;
		case CONCORD_VERDICT_WAIT:
			branch->due = now + concord_backoff_ms(branch->answers, WAIT_MIN_MS, WAIT_MAX_MS);
			break;
		case CONCORD_VERDICT_UNKNOWN:
		case CONCORD_VERDICT_FORGOTTEN:
			branch->due = now + UNKNOWN_MS;
			log_unknown(branch, psprintf("Its coordinator is node %s. %s", coordinator_name(branch),
										 why != NULL ? why : "It does not know the outcome."));
			break;
	}
}

/* No transaction is open here, so no array function either: a gid needs no quotes in an array. */
void
concord_outcomes_send(ConcordWorkerPeer *peer)
{
	int64		now = concord_clock_ms();
	int			n = 0;
	InDoubt    *branch;
	StringInfoData gids;
	const char *param;

	initStringInfo(&gids);
	foreach_branch(branch)
	{
		if (branch->parsed.coordinator != peer->node_id)
			continue;
		branch->asked = !branch->decided && n < AT_ONCE &&
			(branch->due <= now || branch->served < request);
		if (!branch->asked)
			continue;
		branch->asked_for = request;
		appendStringInfo(&gids, "%c%s", n++ == 0 ? '{' : ',', branch->gid);
	}
	appendStringInfoString(&gids, n == 0 ? "{}" : "}");
	param = gids.data;
	concord_link_send(peer->link, "SELECT gid, verdict, detail FROM concord._outcomes($1)", 1,
					  &param);
}

/* The coordinator's node would not say: an older version, a stranger at its address. */
static void
take_refusal(ConcordWorkerPeer *peer, const char *message)
{
	InDoubt    *branch;

	foreach_branch(branch)
	{
		if (branch->parsed.coordinator != peer->node_id || !branch->asked)
			continue;
		branch->asked = false;
		branch->served = branch->asked_for;
		branch->answers++;
		branch->due = concord_clock_ms() +
			concord_backoff_ms(branch->answers, WAIT_MIN_MS, UNKNOWN_MS);
		if (branch->due > concord_clock_ms() + UNKNOWN_MS / 2)
			log_unknown(branch, psprintf("Its coordinator is node %s, which says: %s",
										 coordinator_name(branch), message));
	}
}

void
concord_outcomes_answer(ConcordWorkerPeer *peer, ConcordReply *reply)
{
	InDoubt    *branch;

	concord_duty_hurry(CONCORD_DUTY_RESOLVE);
	if (!reply->ok || reply->ncols != 3)
	{
		take_refusal(peer, reply->ok ? "The answer is malformed." : reply->message);
		return;
	}
	for (int row = 0; row < reply->nrows; row++)
	{
		const char *gid = concord_reply_value(reply, row, 0);

		branch = gid != NULL ? hash_search(branches, gid, HASH_FIND, NULL) : NULL;
		if (branch != NULL && branch->asked && branch->parsed.coordinator == peer->node_id)
			take_verdict(branch, concord_verdict_of_word(concord_reply_value(reply, row, 1)),
						 concord_reply_value(reply, row, 2));
	}
	take_refusal(peer, "The answer leaves it out.");	/* whoever is still asked */
}

bool
concord_resolve_needs(const ConcordWorkerPeer *peer)
{
	InDoubt    *branch;
	bool		found = false;

	if (branches == NULL)
		return false;
	foreach_branch(branch)
		found |= branch->parsed.coordinator == peer->node_id && !branch->decided;
	return found;
}

/* ------------------------------------------------------------- listing */

static void
note_branch(const ConcordPrepared *prepared)
{
	bool		known;
	InDoubt    *branch = hash_search(branches, prepared->text, HASH_ENTER, &known);

	if (!known)
	{
		memset(branch, 0, sizeof(*branch));
		strlcpy(branch->gid, prepared->text, sizeof(branch->gid));
		branch->parsed = prepared->gid;
		branch->served = told;	/* it is no business of requests that were done before */
		/* whatever the wall clock did in between: it was not prepared in the future */
		branch->prepared_at = concord_clock_ms() -
			Max(0, (GetCurrentTimestamp() - prepared->prepared_at) / 1000);
	}
	branch->listed = true;
	if (branch->answers == 0 && !branch->decided && !branch->hurried)
		branch->due = branch->prepared_at + concord_resolve_delay_ms;	/* may be set anew */
	if (prepared->forced && !branch->forced)
	{
		branch->decided = branch->forced = true;
		branch->commit = prepared->forced_commit;
		branch->due = 0;
	}
}

/* Those that this node itself coordinates.  In a transaction. */
static void
judge_own(void)
{
	int64		now = concord_clock_ms();
	InDoubt    *branch;

	foreach_branch(branch)
	{
		ConcordVerdict verdict;
		const char *detail;

		if (branch->parsed.coordinator != ConcordWorker.node_id || branch->decided ||
			(branch->due > now && branch->served >= request))
			continue;
		branch->asked_for = request;
		concord_outcomes_judge(&branch->parsed, 1, &verdict, &detail);
		take_verdict(branch, verdict, detail);
	}
}

/* R2 */
static void
list_branches(void)
{
	MemoryContext cycle = CurrentMemoryContext;
	InDoubt    *branch;
	ListCell   *lc;

	foreach_branch(branch)
		branch->listed = false;
	concord_work_begin("looking for prepared branches");
	PushActiveSnapshot(GetTransactionSnapshot());
	foreach(lc, concord_prepared_list(concord_map()))
		note_branch(lfirst(lc));
	foreach_branch(branch)
		if (!branch->listed)
			(void) hash_search(branches, branch->gid, HASH_REMOVE, NULL);
	judge_own();
	PopActiveSnapshot();
	concord_work_commit();
	MemoryContextSwitchTo(cycle);
}

/* ------------------------------------------------------------- finishing */

static void
finish(void *arg)
{
	InDoubt    *branch = arg;

	concord_work_begin("finishing a prepared branch");
	FinishPreparedTransaction(branch->gid, branch->commit);
	concord_work_commit();
}

/* R1; returns whether it was this one that finished it */
static bool
finish_branch(InDoubt *branch)
{
	ErrorData  *error = concord_catch(finish, branch);

	branch->served = request;
	if (error == NULL)
	{
		concord_count(branch->forced ? CONCORD_COUNT_FORCED : CONCORD_COUNT_RECOVERED);
		ereport(LOG,
				(errmsg(branch->commit ? "prepared branch \"%s\" was committed" :
						"prepared branch \"%s\" was rolled back", branch->gid),
				 branch->forced ? errdetail("An administrator has forced it.") :
				 errdetail("Its coordinator, node %s, told how the transaction ended.",
						   coordinator_name(branch))));
		return true;
	}
	branch->due = concord_clock_ms() + BUSY_MS;
	switch (error->sqlerrcode)
	{
		case ERRCODE_UNDEFINED_OBJECT:	/* somebody else has finished it; the next list tells */
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:	/* somebody else is about to */
		case ERRCODE_OBJECT_IN_USE:
		case ERRCODE_LOCK_NOT_AVAILABLE:
			break;
		default:
			branch->due = concord_clock_ms() + UNKNOWN_MS;
			ereport(LOG,
					(errcode(error->sqlerrcode),
					 errmsg("could not finish prepared branch \"%s\": %s", branch->gid,
							error->message),
					 error->detail != NULL ? errdetail_internal("%s", error->detail) : 0));
	}
	return false;
}

/* Returns whether all that could be finished was looked at (R4). */
static bool
finish_decided(void)
{
	int64		until = concord_clock_ms() + TURN_MS;
	List	   *decided = NIL;
	ListCell   *lc;
	InDoubt    *branch;
	int			finished = 0;

	/* no scan of a hash table outlives the end of a transaction */
	foreach_branch(branch)
		if (branch->decided && branch->due <= concord_clock_ms())
			decided = lappend(decided, branch);
	foreach(lc, decided)
	{
		if (concord_clock_ms() >= until)
			break;
		branch = lfirst(lc);
		if (!finish_branch(branch))
			continue;
		finished++;
		(void) hash_search(branches, branch->gid, HASH_REMOVE, NULL);
	}
	if (finished > 0)
		tell(false, finished);
	return lc == NULL;
}

/* ------------------------------------------------------------- asking */

/* Returns whether the branch waits for an answer that may come. */
static bool
ask_about(InDoubt *branch, int64 now)
{
	ConcordWorkerPeer *peer = concord_worker_peer(branch->parsed.coordinator);

	if (branch->decided || (branch->due > now && branch->served >= request))
		return false;
	if (branch->parsed.coordinator == ConcordWorker.node_id)
		return false;			/* judged a moment later */
	if (peer == NULL)
	{
		branch->asked_for = request;
		take_verdict(branch, CONCORD_VERDICT_UNKNOWN, "This node is not in the cluster any more.");
		return false;
	}
	if (!concord_ask_possible(peer))
	{
		/* its node is asked as soon as it can be reached */
		if (branch->served < request)
		{
			branch->hurried = true;
			branch->due = Min(branch->due, now);
		}
		branch->served = request;
		return false;
	}
	if (peer->asked != CONCORD_ASK_OUTCOMES)
		concord_ask(peer, CONCORD_ASK_OUTCOMES);
	return true;
}

/* When the duty has something to do again without being told. */
static int64
next_look(int64 now)
{
	int64		next = now + LOOK_MS;
	InDoubt    *branch;

	foreach_branch(branch)
		if (branch->due > now)
			next = Min(next, branch->due);
	return Max(next, now + LOOK_MIN_MS);
}

void
concord_duty_resolve(void *unused)
{
	int64		now;
	bool		done;
	InDoubt    *branch;

	(void) unused;
	if (ConcordWorker.membership != CONCORD_MEMBER)
		return;
	if (branches == NULL)
		create_table();
	if (!concord_incarnation_recorded())
		record_incarnation();
	read_request();
	list_branches();
	if (!finish_decided())
	{
		concord_duty_hurry(CONCORD_DUTY_RESOLVE);
		return;
	}
	now = concord_clock_ms();
	done = true;
	foreach_branch(branch)
	{
		if (ask_about(branch, now) || branch->served < request)
			done = false;
	}
	if (done)
		tell(true, 0);
	if (hash_get_num_entries(branches) > 0)
		concord_duty_at(CONCORD_DUTY_RESOLVE, next_look(now));
}
