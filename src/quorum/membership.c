/*
 * membership.c
 *		Changes the set of acceptors, one node at a time.
 *
 * WHAT: the registrar of the map's authority compares the set with what it should be: as many nodes
 * of the map as concord.acceptors says (an odd number, fewer in a smaller cluster), in different
 * zones as far as possible, each with the identity it has now.  It adds what is missing, exchanges
 * what is gone, removes what is too much.  Nothing depends on there being one authority: two that
 * try get in each other's way, and no further.
 *
 * STEPS (function that takes the edge; register C is "c:n" of configuration.c, n being the version
 * of the set that is known)
 *		REST --turn: the set is joint--> TRANSFER
 *		REST --compare: somebody is to be added: told the set, asked for a new identity--> INVITE
 *		REST --compare: somebody is to be removed--> READ
 *		INVITE --invited--> READ
 *		READ --read_done: C is read, and if there is nothing the next set written--> DECIDE
 *		DECIDE --decided: told to all nodes--> REST
 *		TRANSFER --transferred: lists and floors--> COPY
 *		COPY --copied: all registers were read through both--> READ, to settle
 *		TRANSFER, COPY --failed too often, or without hope--> READ, to abandon
 *		any --the set has changed meanwhile--> REST
 *
 * INVARIANTS
 * B1 The set of version n + 1 is the first value of "c:n", chosen under the set of version n.
 * B2 Under a joint set that register is the old set's alone (core/register.h allows either: R9
 *	  concerns who decides the other registers).  So a joint set can be given up when the one who
 *	  was to join has died, however many the new set needs.  No set ever reads what another has
 *	  decided, so it does not matter how much of that the new set has.
 * B3 Who is invited has thrown away what it had promised (R10), and does so before its new
 *	  identity is known to anybody; it refuses while it may be an acceptor as far as it knows, and
 *	  has been told as much as the one who invites.
 * B4 A step is taken from the version of the set that the change began with.
 *
 * WHAT IF the registrar dies: in INVITE: an identity that nobody uses.  In READ, DECIDE: C says
 * whether it is decided; the next one reads it.  In TRANSFER, COPY: begun anew.  The node that was
 * to join dies: given up, and left alone for a while.  A majority of the old set dies: nothing can
 * be changed, nothing is lost.
 */
#include "postgres.h"

#include "base/settings.h"
#include "cluster/room.h"
#include "miscadmin.h"
#include "quorum/membership.h"
#include "quorum/proposals.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#define LOOK_INTERVAL_MS 1000
#define STEP_TIMEOUT_MS 5000
#define ATTEMPTS 3				/* to transfer, before a joint set is given up */
#define SHUN_MS 10000			/* who could not be made to join is not asked again */
#define COPY_WINDOW 64			/* registers that are read at once */
#define IDENTITY_SQL "SELECT a.generation, a.lineage FROM concord._acceptor($1::pg_catalog.uuid, false) a"
#define INVITE_SQL "SELECT a.generation, a.lineage FROM concord._acceptor($1::pg_catalog.uuid, true) a"
#define LEARN_SQL "SELECT concord._learn_configuration($1::pg_catalog.uuid, $2::pg_catalog.bytea)"

typedef enum Step
{
	REST,
	INVITE,
	READ,
	DECIDE,
	TRANSFER,
	COPY
} Step;

typedef enum Change
{
	JOIN,						/* to a joint set, with add and remove */
	SETTLE,
	ABANDON
} Change;

static Step step = REST;
static int64 look_at;
static Change change;
static bool adding;
static ConcordAcceptorId add;
static bool removing;
static ConcordAcceptorId gone;
static uint64 began_with;		/* B4: the version of the set */
static ConcordConfig next_set;	/* DECIDE: what is written */
static int	shunned;			/* node id; 0 = nobody */
static int64 shunned_until;

static int	attempts;			/* TRANSFER and COPY, in a row */
static MemoryContext copy_context;
static List *to_copy;			/* of text * */
static int	copying;
static bool copy_failed;

/* what the acceptors' nodes have said of themselves since the set was last changed */
static ConcordAcceptorId heard[CONCORD_ACCEPTORS_JOINT];
static int	nheard;
static uint64 heard_of;			/* the set's version */

static void read_decision(Change what);

static void
rest(int pause_ms)
{
	step = REST;
	look_at = concord_quorum_ms() + pause_ms;
}

/* ---------------------------------------------------------------- deciding */

static void
tell(const ConcordConfig *config, const int *node_ids, int n)
{
	unsigned char bytes[CONCORD_CONFIG_SIZE];
	ConcordWriter w = {bytes, sizeof(bytes), 0, false};
	char		hex[2 * CONCORD_CONFIG_SIZE + 3] = "\\x";
	const char *params[2];

	concord_put_config(&w, config);
	hex[2 + hex_encode((char *) bytes, w.len, hex + 2)] = '\0';
	params[0] = concord_quorum_cluster();
	params[1] = hex;
	for (int i = 0; i < n; i++)
		concord_quorum_call(node_ids[i], LEARN_SQL, 2, params, STEP_TIMEOUT_MS, NULL, NULL);
}

/* They hear of it before they are asked anything under it: calls go before batches. */
static void
tell_all(const ConcordConfig *config)
{
	ConcordQuorumNode *list;
	int			n = concord_quorum_nodes(&list);

	for (int i = 0; i < n; i++)
		tell(config, &list[i].node_id, 1);
}

static void
describe(const ConcordConfig *config)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < config->n; i++)
		appendStringInfo(&names, "%s%s%s", i > 0 ? ", " : "",
						 concord_quorum_node_name(config->acceptor[i].node),
						 config->new_set == 0 ? "" :
						 (config->new_set & (UINT32_C(1) << i)) == 0 ? " (leaves)" :
						 (config->old_set & (UINT32_C(1) << i)) == 0 ? " (joins)" : "");
	ereport(LOG,
			(errmsg("pg_concord acceptors are now: %s", names.data),
			 errdetail("This is configuration %llu.", (unsigned long long) config->version)));
}

static bool
read_set(const ConcordValue *value, ConcordConfig *config)
{
	ConcordReader r = {value->data, value->len, 0, false};

	if (value->kind != CONCORD_VALUE_SET)
		return false;
	concord_get_config(&r, config);
	return concord_get_end(&r);
}

static void
adopt(const ConcordConfig *config)
{
	describe(config);
	concord_quorum_decided(config);
	tell_all(config);
	attempts = 0;
	rest(0);
}

static void
decided(const ConcordTaskOutcome *outcome, void *arg)
{
	ConcordConfig found;

	(void) arg;
	if (outcome->result == CONCORD_RESULT_OK)
		adopt(&next_set);
	else if (outcome->result == CONCORD_RESULT_MISMATCH && read_set(&outcome->value, &found))
		adopt(&found);
	else
		rest(LOOK_INTERVAL_MS);
}

/* The register that decides what follows the set of a version */
static void
start_decision(ConcordOperation op, const void *data, uint32 len, ConcordTaskDone done)
{
	char		name[64];

	snprintf(name, sizeof(name), CONCORD_PREFIX_CONFIGURATION UINT64_FORMAT, began_with);
	concord_quorum_start(name, strlen(name), op, CONCORD_EXPECT_NONE, data, len, STEP_TIMEOUT_MS,
						 done, NULL);
}

/* B1 */
static void
read_done(const ConcordTaskOutcome *outcome, void *arg)
{
	const ConcordConfig *current = concord_quorum_config();
	ConcordConfig found;
	unsigned char bytes[CONCORD_CONFIG_SIZE];
	ConcordWriter w = {bytes, sizeof(bytes), 0, false};
	bool		possible;

	(void) arg;
	if (outcome->result != CONCORD_RESULT_OK || current == NULL ||
		current->version != began_with) /* B4 */
	{
		rest(LOOK_INTERVAL_MS);
		return;
	}
	if (read_set(&outcome->value, &found))
	{
		adopt(&found);
		return;
	}
	next_set = *current;
	if (change == SETTLE)
		possible = concord_config_settle(&next_set);
	else if (change == ABANDON)
		possible = concord_config_abandon(&next_set);
	else
		possible = concord_config_join(&next_set, adding ? &add : NULL, removing ? &gone : NULL);
	if (!possible)
	{
		rest(LOOK_INTERVAL_MS);
		return;
	}
	step = DECIDE;
	concord_put_config(&w, &next_set);
	start_decision(CONCORD_WRITE, bytes, (uint32) w.len, decided);
}

static void
read_decision(Change what)
{
	change = what;
	step = READ;
	start_decision(CONCORD_READ, NULL, 0, read_done);
}

/* ---------------------------------------------------------------- joining */

/* Who is joining, if that is what is under way; 0 = nobody */
static int
joiner(const ConcordConfig *config)
{
	for (int i = 0; i < config->n; i++)
		if ((config->old_set & (UINT32_C(1) << i)) == 0)
			return config->acceptor[i].node;
	return 0;
}

static bool
is_reachable(int node_id)
{
	ConcordQuorumNode *list;
	int			n = concord_quorum_nodes(&list);

	for (int i = 0; i < n; i++)
		if (list[i].node_id == node_id)
			return list[i].reachable;
	return false;
}

static void
failed(void)
{
	const ConcordConfig *config = concord_quorum_config();
	int			node_id = config != NULL ? joiner(config) : 0;

	if (++attempts < ATTEMPTS && (node_id == 0 || is_reachable(node_id)))
	{
		rest(LOOK_INTERVAL_MS);
		return;
	}
	shunned = node_id;
	shunned_until = concord_quorum_ms() + SHUN_MS;
	read_decision(ABANDON);
}

static void copy_more(void);

static void
copied(const ConcordTaskOutcome *outcome, void *arg)
{
	(void) arg;
	copying--;
	if (outcome->result != CONCORD_RESULT_OK)
		copy_failed = true;
	copy_more();
}

static void
copy_more(void)
{
	if (step != COPY)
		return;
	while (to_copy != NIL && copying < COPY_WINDOW && !copy_failed)
	{
		text	   *name = llast(to_copy);

		to_copy = list_delete_last(to_copy);
		copying++;
		concord_quorum_start(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name), CONCORD_READ, 0, NULL, 0,
							 STEP_TIMEOUT_MS, copied, NULL);
	}
	if (copying > 0)
		return;
	MemoryContextDelete(copy_context);
	to_copy = NIL;
	if (copy_failed)
		failed();
	else
		read_decision(SETTLE);
}

static int
compare_names(const ListCell *a, const ListCell *b)
{
	text	   *x = lfirst(a);
	text	   *y = lfirst(b);
	int			order = memcmp(VARDATA_ANY(x), VARDATA_ANY(y),
							   Min(VARSIZE_ANY_EXHDR(x), VARSIZE_ANY_EXHDR(y)));

	return order != 0 ? order :
		(VARSIZE_ANY_EXHDR(x) > VARSIZE_ANY_EXHDR(y)) -
		(VARSIZE_ANY_EXHDR(x) < VARSIZE_ANY_EXHDR(y));
}

/* B2 */
static bool
is_decision(text *name)
{
	return VARSIZE_ANY_EXHDR(name) > strlen(CONCORD_PREFIX_CONFIGURATION) &&
		memcmp(VARDATA_ANY(name), CONCORD_PREFIX_CONFIGURATION,
			   strlen(CONCORD_PREFIX_CONFIGURATION)) == 0;
}

/* Each name once, though most were listed by all; in the current context. */
static List *
unite_names(List *names)
{
	List	   *united = NIL;
	ListCell   *lc;

	list_sort(names, compare_names);
	foreach(lc, names)
	{
		ListCell	last;

		if (united != NIL)
			last.ptr_value = llast(united);
		if (!is_decision(lfirst(lc)) && (united == NIL || compare_names(&last, lc) != 0))
			united = lappend(united, PG_DETOAST_DATUM_COPY(PointerGetDatum(lfirst(lc))));
	}
	return united;
}

static void
transferred(bool ok, List *names, void *arg)
{
	MemoryContext old;

	(void) arg;
	if (!ok)
	{
		failed();
		return;
	}
	step = COPY;
	copying = 0;
	copy_failed = false;
	copy_context = AllocSetContextCreate(TopMemoryContext, "concord registers to be copied",
										 ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(copy_context);
	to_copy = unite_names(names);
	MemoryContextSwitchTo(old);
	copy_more();
}

/* ---------------------------------------------------------------- what is to be done */

static bool
read_identity(int node_id, const ConcordReply *reply, ConcordAcceptorId *id)
{
	if (reply == NULL || !reply->ok || reply->nrows != 1 || reply->ncols != 2)
		return false;
	id->node = node_id;
	id->generation = atoi(concord_reply_value(reply, 0, 0));
	id->lineage = (uint64) strtoll(concord_reply_value(reply, 0, 1), NULL, 10);
	return true;
}

static void
identity_heard(int node_id, ConcordReply *reply, void *arg)
{
	ConcordAcceptorId id;

	const ConcordConfig *config = concord_quorum_config();

	(void) arg;
	if (!read_identity(node_id, reply, &id) || config == NULL || config->version != heard_of)
		return;
	for (int i = 0; i < nheard; i++)
		if (heard[i].node == node_id)
		{
			heard[i] = id;
			return;
		}
	if (nheard < (int) lengthof(heard))
		heard[nheard++] = id;
}

static void
invited(int node_id, ConcordReply *reply, void *arg)
{
	(void) arg;
	if (step != INVITE)
		return;
	if (!read_identity(node_id, reply, &add))
	{
		rest(LOOK_INTERVAL_MS);
		return;
	}
	read_decision(JOIN);
}

static bool
is_node(const ConcordQuorumNode *list, int n, int node_id)
{
	for (int i = 0; i < n; i++)
		if (list[i].node_id == node_id)
			return true;
	return false;
}

/* Has this acceptor gone for good: out of the map, or to another identity? */
static bool
has_gone(const ConcordAcceptorId *id, const ConcordQuorumNode *list, int n)
{
	if (!is_node(list, n, id->node))
		return true;
	for (int i = 0; i < nheard; i++)
		if (heard[i].node == id->node && !concord_acceptor_same(&heard[i], id))
			return true;
	return false;
}

static bool
zone_taken(const ConcordConfig *config, const ConcordQuorumNode *list, int n, const char *zone,
		   int but)
{
	for (int i = 0; i < n; i++)
		for (int k = 0; k < config->n; k++)
			if (k != but && config->acceptor[k].node == list[i].node_id &&
				strcmp(list[i].zone, zone) == 0)
				return true;
	return false;
}

/* The node that should join next: up, in a new zone if there is one, of the lowest id; 0 = none. */
static int
choose(const ConcordConfig *config, const ConcordQuorumNode *list, int n, int leaving)
{
	for (int pass = 0; pass < 2; pass++)
		for (int i = 0; i < n; i++)
		{
			bool		member = false;

			for (int k = 0; k < config->n; k++)
				member = member || (k != leaving && config->acceptor[k].node == list[i].node_id);
			if (!member && list[i].reachable &&
				(list[i].node_id != shunned || concord_quorum_ms() > shunned_until) &&
				(pass == 1 || !zone_taken(config, list, n, list[i].zone, leaving)))
				return list[i].node_id;
		}
	return 0;
}

static int
wanted_acceptors(int n)
{
	int			wanted = Min(concord_acceptors, n);

	return wanted % 2 == 1 ? wanted : wanted - 1;
}

/* B3: it hears of the set first. */
static void
invite(const ConcordConfig *config, int node_id)
{
	const char *params[1] = {concord_quorum_cluster()};

	adding = true;
	step = INVITE;
	tell(config, &node_id, 1);
	concord_quorum_call(node_id, INVITE_SQL, 1, params, STEP_TIMEOUT_MS, invited, NULL);
}

static void
compare(const ConcordConfig *config)
{
	ConcordQuorumNode *list;
	int			n = concord_quorum_nodes(&list);
	int			wanted = wanted_acceptors(n);
	int			leaving = -1;
	int			joining = 0;

	for (int i = 0; i < config->n && leaving < 0; i++)
		if (has_gone(&config->acceptor[i], list, n))
			leaving = i;
	/* too many: one that does not answer, else the last */
	for (int i = 0; i < config->n && config->n > wanted && leaving < 0; i++)
		if (!is_reachable(config->acceptor[i].node))
			leaving = i;
	if (leaving < 0 && config->n > wanted)
		leaving = config->n - 1;
	if (config->n < wanted || (leaving >= 0 && config->n == wanted))
		joining = choose(config, list, n, leaving);
	if (leaving >= 0 && config->n == 1 && joining == 0)
		leaving = -1;			/* there is nobody else */
	removing = leaving >= 0;
	if (removing)
		gone = config->acceptor[leaving];
	adding = false;
	if (joining != 0)
		invite(config, joining);
	else if (removing)
		read_decision(JOIN);
}

static void
ask_identities(const ConcordConfig *config)
{
	const char *params[1] = {concord_quorum_cluster()};

	for (int i = 0; i < config->n; i++)
		concord_quorum_call(config->acceptor[i].node, IDENTITY_SQL, 1, params, LOOK_INTERVAL_MS,
							identity_heard, NULL);
}

int64
concord_membership_turn(void)
{
	const ConcordConfig *config = concord_quorum_config();
	int64		now = concord_quorum_ms();

	if (step != REST)
		return PG_INT64_MAX;	/* callbacks go on */
	if (now < look_at)
		return look_at;
	rest(LOOK_INTERVAL_MS);
	if (config == NULL || !concord_quorum_is_authority())
		return look_at;
	began_with = config->version;
	if (config->new_set != 0)
	{
		step = TRANSFER;
		concord_quorum_transfer(config, STEP_TIMEOUT_MS, transferred, NULL);
		return now;
	}
	if (heard_of != config->version)
		nheard = 0;
	heard_of = config->version;
	compare(config);
	if (step == REST)
		ask_identities(config);
	return now;					/* what was asked is to be sent */
}
