/*
 * levels.c
 *		From which copy of a node a routed read is answered: concord.consistency.
 *
 * PROMISE
 *		strong		the node's primary
 *		session		a copy that has applied what concord.token says of the node, or is told to wait
 *					for it (concord.wait_timeout), after which concord.on_timeout decides
 *		bounded		a copy known to be no older than concord.max_staleness, else the primary
 *		eventual	any healthy copy
 *		weak		the nearest copy
 * When a copy refuses or is not reachable, another one is asked, and the primary last.
 *
 * INVARIANTS
 * V1 A read that could miss this transaction's own writes goes where they are: to the primary, if
 *    the transaction has a branch there.
 * V2 SERIALIZABLE reads go to the primary: a standby cannot take part.
 * V3 Freshness is measured on this server's clock alone: a copy is as old as the time at which the
 *    newest heartbeat was sent to the primary whose position the copy is known to have applied.
 *    The copy is told to have applied that much when it is read: it may have been restarted since.
 * V4 A copy is always told what it must have applied, and judges by its own history (a lost write
 *    is PC003).  Heartbeats only say which copy is likely not to have to wait.
 * V5 A transaction reads one copy of a node only: in REPEATABLE READ it has its snapshot there, and
 *    in READ COMMITTED what it has seen does not vanish again.  If that copy does not satisfy any
 *    more (a token was set meanwhile, or it has become too old), the primary is read.
 * V6 A node's primary is asked, too, from level session on: a write that a failover lost is an
 *    error wherever the next statement goes, and a branch of an earlier transaction of this
 *    session that was not known to have ended is waited for.
 *
 * A standby has no worker and so no health: only its own copy and the primaries are read there.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "cluster/copies.h"
#include "common/pg_prng.h"
#include "peer/peer.h"
#include "session/session.h"
#include "shard/shard.h"

typedef struct Candidate
{
	int			replica_id;		/* 0: the primary */
	ConcordCopyHealth health;
} Candidate;

/* What the session's token says of a node, for the copy to wait for; NULL when that is nothing. */
static char *
floor_of(int node_id, ConcordToken *floor)
{
	const ConcordToken *token = concord_session_token();
	char	   *text;

	floor->n = 0;
	memcpy(floor->cluster, token->cluster, sizeof(floor->cluster));
	for (int i = 0; i < token->n; i++)
		if (token->positions[i].node == node_id && floor->n < floor->max)
			floor->positions[floor->n++] = token->positions[i];
	if (floor->n == 0)
		return NULL;
	text = palloc(CONCORD_TOKEN_HEAD + floor->n * CONCORD_POSITION_SIZE + 1);
	(void) concord_token_format(floor, text,
								CONCORD_TOKEN_HEAD + floor->n * CONCORD_POSITION_SIZE + 1);
	return text;
}

static bool
is_of_cluster(const ConcordToken *token, const ConcordMap *map)
{
	return memcmp(token->cluster, map->cluster_id.data, UUID_LEN) == 0;
}

static char *
make_floor(int node_id)
{
	static ConcordPosition positions[CONCORD_TOKEN_POSITIONS];
	ConcordToken floor = {.max = CONCORD_TOKEN_POSITIONS, .positions = positions};

	return floor_of(node_id, &floor);
}

/*
 * V6.  The key stands for the position's generation and timeline; with several positions, or a
 * branch, it is 0.  The text is made only when it is sent.
 */
static void
floor_of_primary(const ConcordMap *map, ConcordTarget *target)
{
	const ConcordToken *token = concord_session_token();
	const ConcordPosition *only = NULL;
	int			n = 0;

	if (concord_consistency < CONCORD_SESSION || !is_of_cluster(token, map))
		return;
	for (int i = 0; i < token->n; i++)
		if (token->positions[i].node == target->node_id)
		{
			only = &token->positions[i];
			n++;
		}
	if (n == 0)
		return;
	target->make_floor = make_floor;
	if (n == 1 && only->xid == 0)
		target->floor_key = ((uint64) only->generation << 32) | only->timeline;
}

/* V3: what the copy was known to have applied. */
static char *
floor_of_health(const ConcordMap *map, const ConcordNode *node, const ConcordCopyHealth *health,
				ConcordToken *floor)
{
	char	   *text = palloc(CONCORD_TOKEN_HEAD + CONCORD_POSITION_SIZE + 1);

	memcpy(floor->cluster, map->cluster_id.data, UUID_LEN);
	floor->n = 1;
	floor->positions[0] = (ConcordPosition) {
		.node = node->node_id, .generation = node->generation,
		.timeline = health->timeline, .lsn = health->lsn
	};
	(void) concord_token_format(floor, text, CONCORD_TOKEN_HEAD + CONCORD_POSITION_SIZE + 1);
	return text;
}

static bool
known_to_cover(const ConcordToken *floor, const ConcordNode *node, const ConcordCopyHealth *health)
{
	for (int i = 0; i < floor->n; i++)
	{
		const ConcordPosition *position = &floor->positions[i];

		if (position->generation != node->generation || position->xid != 0 ||
			position->timeline != health->timeline || position->lsn > health->lsn)
			return false;
	}
	return true;
}

static bool
is_excluded(int replica_id, const ConcordCopyWish *wish)
{
	for (int i = 0; i < wish->nexcluded; i++)
		if (wish->excluded[i] == replica_id)
			return true;
	return false;
}

/*
 * The replicas that are up and can serve, and the primary, if it is wanted, unless it is down;
 * palloc'd.
 */
static Candidate *
usable_copies(const ConcordMap *map, const ConcordNode *node, const ConcordCopyWish *wish,
			  bool with_primary, int *n)
{
	int			nreplicas;
	const ConcordReplica *replicas = concord_map_replicas_of(map, node->node_id, &nreplicas);
	Candidate  *candidates = palloc((nreplicas + 1) * sizeof(Candidate));

	*n = 0;
	for (int i = 0; i < nreplicas; i++)
	{
		Candidate  *candidate = &candidates[*n];

		candidate->replica_id = replicas[i].replica_id;
		if (!is_excluded(candidate->replica_id, wish) &&
			concord_copy_health(-candidate->replica_id, &candidate->health) &&
			candidate->health.health == CONCORD_UP && candidate->health.servable)
			(*n)++;
	}
	candidates[*n].replica_id = 0;
	if (with_primary && !is_excluded(0, wish) &&
		concord_copy_health(node->node_id, &candidates[*n].health) &&
		candidates[*n].health.health != CONCORD_DOWN)
		(*n)++;
	return candidates;
}

static const Candidate *
any_of(const Candidate *candidates, int n)
{
	if (n == 0)
		return NULL;
	return &candidates[pg_prng_uint64_range(&pg_global_prng_state, 0, n - 1)];
}

/*
 * A logical copy never reaches a branch, whose id means nothing there, nor another timeline: it
 * would be waited for in vain.  Keeps the others; returns how many.
 */
static int
drop_hopeless(const ConcordMap *map, Candidate *candidates, int n, const ConcordToken *floor)
{
	int			kept = 0;

	for (int i = 0; i < n; i++)
	{
		const ConcordReplica *replica = concord_map_replica(map, candidates[i].replica_id);
		bool		hopeless = false;

		for (int j = 0; replica != NULL && replica->logical && j < floor->n; j++)
			if (floor->positions[j].xid != 0 ||
				floor->positions[j].timeline > candidates[i].health.timeline)
				hopeless = true;
		if (!hopeless)
			candidates[kept++] = candidates[i];
	}
	return kept;
}

/* Keeps those that satisfy; returns how many. */
static int
keep_fresh(Candidate *candidates, int n)
{
	int64		oldest = concord_copy_clock_us() - (int64) concord_max_staleness_ms * 1000;
	int			kept = 0;

	for (int i = 0; i < n; i++)
		if (candidates[i].health.fresh_at_us > 0 && candidates[i].health.fresh_at_us >= oldest)
			candidates[kept++] = candidates[i];
	return kept;
}

static const Candidate *
nearest(const Candidate *candidates, int n)
{
	const Candidate *best = NULL;

	for (int i = 0; i < n; i++)
		if (best == NULL || candidates[i].health.latency_us < best->health.latency_us)
			best = &candidates[i];
	return best;
}

static const Candidate *
furthest(const Candidate *candidates, int n)
{
	const Candidate *best = NULL;

	for (int i = 0; i < n; i++)
		if (best == NULL || candidates[i].health.timeline > best->health.timeline ||
			(candidates[i].health.timeline == best->health.timeline &&
			 candidates[i].health.lsn > best->health.lsn))
			best = &candidates[i];
	return best;
}

/* session: one that has it already, else the one that was furthest; it is told to wait */
static const Candidate *
with_token(Candidate *candidates, int n, const ConcordNode *node, const ConcordToken *floor)
{
	int			kept = 0;

	for (int i = 0; i < n; i++)
		if (known_to_cover(floor, node, &candidates[i].health))
		{
			Candidate	other = candidates[kept];

			candidates[kept++] = candidates[i];
			candidates[i] = other;
		}
	return kept > 0 ? any_of(candidates, kept) : furthest(candidates, n);
}

/* May this server, a standby of the node, answer by itself? */
static bool
here_will_do(const ConcordMap *map, const ConcordToken *floor)
{
	int			which;

	switch (concord_consistency)
	{
		case CONCORD_WEAK:
		case CONCORD_EVENTUAL:
			return true;
		case CONCORD_SESSION:
			return floor->n == 0 || concord_look(map, floor, &which) == CONCORD_WAIT_REACHED;
		default:
			return false;		/* how old it is cannot be told from here */
	}
}

/* V5: does the copy that the transaction reads still do? */
static bool
still_does(int replica_id, const char *told, const char *floor)
{
	Candidate	candidate = {.replica_id = replica_id};

	if (IsolationUsesXactSnapshot())
		return true;
	switch (concord_consistency)
	{
		case CONCORD_SESSION:
			return floor == NULL || (told != NULL && strcmp(told, floor) == 0);
		case CONCORD_BOUNDED:
			return concord_copy_health(-replica_id, &candidate.health) &&
				keep_fresh(&candidate, 1) == 1;
		default:
			return true;
	}
}

static void
choose_copy(const ConcordMap *map, const ConcordNode *node, const ConcordCopyWish *wish,
			ConcordCopy *copy)
{
	static ConcordPosition positions[CONCORD_TOKEN_POSITIONS];
	ConcordToken floor = {.max = CONCORD_TOKEN_POSITIONS, .positions = positions};
	char	   *floor_text = NULL;
	const Candidate *chosen = NULL;
	Candidate  *candidates;
	const char *told;
	int			n;

	memset(copy, 0, sizeof(*copy));
	if (concord_consistency == CONCORD_STRONG || wish->primary_only ||
		XactIsoLevel == XACT_SERIALIZABLE || concord_branch_on(node->node_id))	/* V1, V2 */
		return;
	if (node->node_id == map->self && !RecoveryInProgress())
		return;					/* nothing is nearer or fresher */
	if (concord_consistency == CONCORD_SESSION && !wish->stale)
		floor_text = is_of_cluster(concord_session_token(), map) ?
			floor_of(node->node_id, &floor) : NULL;
	if (node->node_id == map->self && here_will_do(map, &floor))
	{
		copy->here = true;
		concord_count(CONCORD_COUNT_READS_REPLICA);
		return;
	}

	copy->replica_id = concord_branch_copy(node->node_id, &told);
	if (copy->replica_id != 0)
	{
		if (!still_does(copy->replica_id, told, floor_text))
			copy->replica_id = 0;
		concord_count(copy->replica_id != 0 ? CONCORD_COUNT_READS_REPLICA :
					  CONCORD_COUNT_READS_PRIMARY);
		return;
	}

	candidates = usable_copies(map, node, wish, concord_consistency <= CONCORD_EVENTUAL, &n);
	switch (concord_consistency)
	{
		case CONCORD_WEAK:
			chosen = nearest(candidates, n);
			break;
		case CONCORD_EVENTUAL:
			chosen = any_of(candidates, n);
			break;
		case CONCORD_BOUNDED:
			chosen = any_of(candidates, keep_fresh(candidates, n));
			break;
		default:
			n = drop_hopeless(map, candidates, n, &floor);
			chosen = with_token(candidates, n, node, &floor);
			break;
	}
	if (chosen != NULL)
	{
		copy->replica_id = chosen->replica_id;
		if (concord_consistency == CONCORD_BOUNDED)
			floor_text = floor_of_health(map, node, &chosen->health, &floor);
		copy->floor = floor_text;
	}
	concord_count(copy->replica_id != 0 ? CONCORD_COUNT_READS_REPLICA :
				  CONCORD_COUNT_READS_PRIMARY);
}

void
concord_levels_init(void)
{
	concord_copy_hook = choose_copy;
	concord_floor_hook = floor_of_primary;
}
