/*
 * track.c
 *		The session's token: raised by every commit that wrote, in the same answer.
 *
 * WHAT: when a transaction has committed, its position (the END of its commit record), those of
 * its branches on other nodes, and with concord.track = reads what it may have seen, are added to
 * concord.token, which PostgreSQL reports to the client before the answer is complete.
 *
 * PROMISE: whoever sets the token the client got with a commit's answer sees that commit, on every
 * node it wrote on.
 *
 * INVARIANTS
 * K1 A commit's position is the end of its commit record, never a place inside it, on the timeline
 *    it was written on.
 * K2 Nothing here raises after the commit: all that may fail (the map, the file of a timeline's
 *    history, parsing) is done at PRE_COMMIT; after it there is arithmetic and one setting.
 * K3 A branch whose COMMIT PREPARED is unanswered is in the token by the position of its PREPARE
 *    and its transaction id.
 * K4 A peer's session reports what its last transaction did, nothing older: the connection may
 *    serve several clients here, whose tokens must not mix.
 * K5 What a transaction saw on a primary is before the end of WAL: a commit is visible only after
 *    its record was inserted.  What is not flushed yet is asked to be soon (concord_wal_end), or
 *    whoever waits for it would wait for the next commit.  On a standby it is the last record
 *    applied.
 * K6 known is what known_text says.  It is used only while concord.token is that text, letter by
 *    letter: so whatever else sets it or takes it back (a SET, an aborted transaction, DISCARD)
 *    need not be heard of.
 * K7 On a logical copy a commit is not one of its node and adds nothing.  What was seen there is a
 *    place in the node's WAL; it is looked up at PRE_COMMIT, when nothing is seen any more.
 *
 * COST of a commit that wrote: a token is written and set, without any look-up or allocation in
 * shared memory, and parsed only when somebody else has set it; one that wrote nothing pays the
 * test of a transaction id; with concord.track = reads, a few comparisons while WAL does not grow.
 *
 * WHAT IT DOES NOT DO: carry what an aborted transaction has seen.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "cluster/copies.h"
#include "cluster/follow.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "session/session.h"
#include "session/waiters.h"
#include "shard/shard.h"
#include "storage/procarray.h"
#include "tcop/utility.h"
#include "utils/guc.h"

#define MERGE_FAILED "the session's token has no room for more positions"

static ConcordPosition next_positions[CONCORD_TOKEN_POSITIONS];
static ConcordPosition gathered_positions[CONCORD_TOKEN_POSITIONS];
static ConcordPosition known_positions[CONCORD_TOKEN_POSITIONS];

/* What the running transaction will report; ready is set at PRE_COMMIT. */
static struct
{
	bool		ready;
	bool		wrote;			/* here: has a transaction id, or ends a prepared one */
	bool		branch;			/* is being prepared for another node's transaction */
	int			node;
	int			generation;
	bool		copy;			/* this is a logical copy: seen is what it may have seen (K7) */
	ConcordPosition seen;
	XLogRecPtr	last_end;		/* XactLastCommitEnd before */
	ConcordToken token;			/* what it is added to */
} next = {.token = {.max = CONCORD_TOKEN_POSITIONS, .positions = next_positions}};

/* The session's token as it was last parsed or written (K6); "" says nothing. */
static char known_text[CONCORD_TOKEN_SIZE];
static ConcordToken known = {.max = CONCORD_TOKEN_POSITIONS, .positions = known_positions};

/* Positions of this transaction's branches (K3); the cluster's id is not used. */
static ConcordToken gathered = {
	.max = CONCORD_TOKEN_POSITIONS, .positions = gathered_positions
};

/*
 * Branches of this session's transactions whose COMMIT PREPARED was unanswered when last heard of.
 * A later answer over the same connection tells that it was carried out: it works in order.
 */
typedef struct Pending
{
	const ConcordConn *conn;
	int			node;
	int			generation;
	uint64		xid;
	ConcordPosition end;		/* it had ended here; lsn 0: not known to have */
} Pending;

static Pending pending[256];
static int	npending = 0;

static ExecutorFinish_hook_type previous_finish = NULL;
static bool ends_prepared = false;	/* the running command is COMMIT PREPARED */

static void
forget(void)
{
	next.ready = false;
	gathered.n = 0;
	ends_prepared = false;
}

/* The caller does not change what it gets (K6). */
ConcordToken *
concord_session_token(void)
{
	const char *text = concord_token == NULL ? "" : concord_token;
	size_t		len;

	if (strcmp(text, known_text) == 0)
		return &known;
	known_text[0] = '\0';
	len = strlen(text);
	if (concord_token_parse(text, len, &known, NULL) == CONCORD_TOKEN_OK)
		memcpy(known_text, text, len + 1);	/* it fits, being a token */
	else
		known.n = 0;
	return &known;
}

/* K6: the session's token has become this one. */
static void
remember(const ConcordToken *token, const char *text, int len)
{
	memcpy(known.cluster, token->cluster, sizeof(known.cluster));
	memcpy(known.positions, token->positions, token->n * sizeof(ConcordPosition));
	known.n = token->n;
	memcpy(known_text, text, len + 1);
}

/* Do both have the same text? */
static bool
same_token(const ConcordToken *a, const ConcordToken *b)
{
	if (a->n != b->n || memcmp(a->cluster, b->cluster, sizeof(a->cluster)) != 0)
		return false;
	for (int i = 0; i < a->n; i++)
	{
		const ConcordPosition *p = &a->positions[i];
		const ConcordPosition *q = &b->positions[i];

		if (p->lsn != q->lsn || p->node != q->node || p->generation != q->generation ||
			p->timeline != q->timeline || p->xid != q->xid)
			return false;
	}
	return true;
}

/* The position without xid that a peer has told of its own node's WAL last, or NULL. */
static const ConcordPosition *
end_told(const ConcordToken *told, int node, int generation)
{
	for (int i = told->n - 1; i >= 0; i--)
		if (told->positions[i].node == node && told->positions[i].generation == generation &&
			told->positions[i].xid == 0)
			return &told->positions[i];
	return NULL;
}

/* K3: the branches that were prepared over this connection have ended, at the latest there. */
static void
end_pending(const ConcordConn *conn, const ConcordToken *told)
{
	for (int i = 0; i < npending; i++)
	{
		const ConcordPosition *end;

		if (pending[i].conn != conn || pending[i].end.lsn != 0)
			continue;
		end = end_told(told, pending[i].node, pending[i].generation);
		if (end == NULL)
			continue;
		pending[i].end = *end;
		concord_token_remove_xid(&gathered, pending[i].node, pending[i].generation,
								 pending[i].xid);
	}
}

/* Nobody will tell here how the branches of this connection end: they stay in the token. */
static void
forget_pending(const ConcordConn *conn)
{
	for (int i = 0; i < npending; i++)
		if (pending[i].conn == conn && pending[i].end.lsn == 0)
			pending[i--] = pending[--npending];
}

static void
remember_pending(const ConcordConn *conn, const ConcordToken *told)
{
	for (int i = 0; i < told->n && npending < (int) lengthof(pending); i++)
		if (told->positions[i].xid != 0)
			pending[npending++] = (Pending) {
				.conn = conn, .node = told->positions[i].node,
				.generation = told->positions[i].generation, .xid = told->positions[i].xid
			};
}

/* A peer has told its session's token with an answer. */
static void
gather(const ConcordConn *conn, ConcordPeerEvent event, const char *text)
{
	ConcordPosition positions[16];
	ConcordToken told = {.max = lengthof(positions), .positions = positions};

	if (event == CONCORD_PEER_CLOSED)
		forget_pending(conn);
	if (concord_track == CONCORD_TRACK_OFF || text == NULL || text[0] == '\0' ||
		event == CONCORD_PEER_CLOSED ||
		concord_token_parse(text, strlen(text), &told, NULL) != CONCORD_TOKEN_OK)
		return;
	if (event == CONCORD_PEER_PREPARED)
		remember_pending(conn, &told);
	if (event == CONCORD_PEER_ENDED)
	{
		end_pending(conn, &told);
		return;					/* perhaps what another client has done (K4) */
	}
	if (!concord_token_merge(&gathered, &told))
		ereport(WARNING, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg(MERGE_FAILED)));
}

static bool
has_branch(const ConcordToken *token, const Pending *branch)
{
	for (int i = 0; i < token->n; i++)
		if (token->positions[i].node == branch->node && token->positions[i].xid == branch->xid &&
			token->positions[i].generation == branch->generation)
			return true;
	return false;
}

/* Puts the ends of branches in the place of the branches. */
static void
replace_ended(ConcordToken *token)
{
	for (int i = 0; i < npending; i++)
	{
		if (pending[i].end.lsn == 0)
			continue;
		if (has_branch(token, &pending[i]) && concord_token_add(token, &pending[i].end))
			concord_token_remove_xid(token, pending[i].node, pending[i].generation,
									 pending[i].xid);
		pending[i--] = pending[--npending];
	}
}

/* What the token says of this node's earlier timelines and ended branches is settled. */
static void
settle(const ConcordMap *map)
{
	ConcordToken *token = &next.token;
	bool		other_timeline = false;
	TimeLineID	timeline = 0;

	for (int i = 0; i < token->n; i++)
	{
		const ConcordPosition *position = &token->positions[i];

		if (position->node != map->self)
			continue;
		if (timeline != 0 && position->timeline != timeline)
			other_timeline = true;
		timeline = position->timeline;
		if (next.wrote && position->xid != 0 && position->generation == map->self_generation &&
			!TransactionIdIsInProgress((TransactionId) position->xid))
		{
			/* it ended before the commit whose position will be added */
			concord_token_remove_xid(token, position->node, position->generation, position->xid);
			i--;
		}
	}
	if (timeline != 0 && !RecoveryInProgress() && timeline != GetWALInsertionTimeLine())
		other_timeline = true;
	if (other_timeline)
	{
		ConcordServer server;
		ConcordPosition here = {.node = map->self, .generation = map->self_generation};

		concord_standing(map, &server);
		if (next.wrote && server.primary)
		{
			/* raised to the commit's own after it */
			here.timeline = server.timeline;
			here.lsn = server.lsn;
			(void) concord_token_add(token, &here);
		}
		concord_token_settle(token, &server);
	}
}

/* K2 */
static void
prepare(bool branch)
{
	const ConcordMap *map;
	const ConcordToken *now;

	next.ready = false;
	if (concord_track == CONCORD_TRACK_OFF || ConcordShared == NULL ||
		MyBackendType != B_BACKEND || IsParallelWorker())
		return;
	next.wrote = ends_prepared || TransactionIdIsValid(GetTopTransactionIdIfAny());
	next.branch = branch;
	if (!next.wrote && gathered.n == 0 && concord_track != CONCORD_TRACK_READS)
		return;
	map = concord_map();
	next.copy = map->membership == CONCORD_COPY;	/* K7 */
	if (next.copy)
	{
		next.wrote = false;
		next.seen.lsn = concord_track == CONCORD_TRACK_READS ? concord_followed_seen(map) :
			InvalidXLogRecPtr;
		next.seen.timeline = map->followed.timeline;
		if (next.seen.lsn == InvalidXLogRecPtr)
			return;
	}
	else if (map->membership != CONCORD_MEMBER)
		return;

	next.token.n = 0;
	memcpy(next.token.cluster, map->cluster_id.data, UUID_LEN);
	if (!concord_hello_said())	/* K4 */
	{
		now = concord_session_token();
		if (now->n > 0 && memcmp(now->cluster, next.token.cluster, UUID_LEN) == 0)
			(void) concord_token_merge(&next.token, now);
		replace_ended(&next.token);
		settle(map);
	}
	next.node = map->self;
	next.generation = map->self_generation;
	next.last_end = XactLastCommitEnd;
	next.ready = true;
}

/* Adds what this server contributes. */
static bool
add_here(uint64 xid)
{
	ConcordPosition here = {.node = next.node, .generation = next.generation};

	if (next.copy)				/* K7 */
	{
		here.lsn = next.seen.lsn;
		here.timeline = next.seen.timeline;
	}
	else if (xid != 0)
	{
		/* the PREPARE record's end or later: it was flushed before */
		here.lsn = concord_wal_end(&here.timeline);
		here.xid = xid;
	}
	else if (next.wrote && XactLastCommitEnd != next.last_end)
	{
		here.lsn = XactLastCommitEnd;	/* K1 */
		here.timeline = GetWALInsertionTimeLine();
	}
	else if (concord_track == CONCORD_TRACK_READS)	/* K5 */
	{
		if (RecoveryInProgress())
		{
			XLogRecPtr	applied = concord_applied();

			here.lsn = GetXLogReplayRecPtr(&here.timeline);
			here.lsn = Max(here.lsn, applied);
		}
		else
		{
			here.lsn = concord_wal_end(&here.timeline);
		}
	}
	else
		return true;
	return concord_token_add(&next.token, &here);
}

/* K2: after the commit (or PREPARE); warns, never raises. */
static void
report(uint64 xid, GucAction action)
{
	static char text[CONCORD_TOKEN_SIZE];
	int			len;

	if (!next.ready)
		return;
	if (!add_here(xid) || !concord_token_merge(&next.token, &gathered))
		ereport(WARNING, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg(MERGE_FAILED)));
	if (next.token.n == 0 || same_token(&next.token, concord_session_token()))
		return;
	len = concord_token_format(&next.token, text, sizeof(text));
	if (len < 0)
		return;
	concord_token_own = true;
	(void) set_config_option("concord.token", text, PGC_USERSET, PGC_S_SESSION, action, true,
							 WARNING, false);
	concord_token_own = false;
	if (strcmp(text, concord_token) == 0)
		remember(&next.token, text, len);
}

/*
 * K5 for a branch: its COMMIT is not awaited by the caller, so what it has seen is reported with
 * each statement's answer.  It is undone with the transaction.
 */
static void
track_executor_finish(QueryDesc *query)
{
	if (previous_finish)
		previous_finish(query);
	else
		standard_ExecutorFinish(query);
	if (concord_track != CONCORD_TRACK_READS || !concord_hello_said() || !IsTransactionBlock() ||
		IsInParallelMode())
		return;
	prepare(false);
	next.wrote = false;
	report(0, GUC_ACTION_LOCAL);
	next.ready = false;
}

static void
track_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			prepare(false);
			break;
		case XACT_EVENT_PRE_PREPARE:
			/* a user's own PREPARE TRANSACTION has committed nothing yet */
			if (concord_hello_said())
				prepare(true);
			break;
		case XACT_EVENT_COMMIT:
			report(0, GUC_ACTION_SET);
			forget();
			break;
		case XACT_EVENT_PREPARE:
			if (next.branch)
				report(U64FromFullTransactionId(GetTopFullTransactionIdIfAny()), GUC_ACTION_SET);
			forget();
			break;
		case XACT_EVENT_ABORT:
			forget();
			break;
		default:
			break;
	}
}

void
concord_track_command(const TransactionStmt *statement)
{
	ends_prepared = statement->kind == TRANS_STMT_COMMIT_PREPARED;
}

void
concord_track_init(void)
{
	RegisterXactCallback(track_callback, NULL);
	previous_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = track_executor_finish;
	concord_peer_token_hook = gather;
}
