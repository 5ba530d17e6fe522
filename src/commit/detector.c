/*
 * detector.c
 *		Deadlocks between nodes: the process that asks all nodes, and tells victims to give up.
 *
 * WHAT: runs while sessions of its database wait for locks longer than concord.deadlock_timeout,
 * and LINGER_MS longer.  Each time one of them says so, it collects all nodes' waits, and if there
 * is a cycle, collects them again; for the cycles that are in both, it ends the victim's wait.
 *
 * See deadlock.h for the whole and its invariants.
 *
 * MEMORY: links live as long as the process, each in a context of its own; all else in
 * look_context, which is reset with each look.
 *
 * An ERROR ends the process; the next timer starts another.  The launcher starts none while a
 * command wants the database to itself, and one that runs leaves within HOLD_CHECK_MS.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_type.h"
#include "cluster/map.h"
#include "commit/commit.h"
#include "commit/deadlock.h"
#include "core/deadlock.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "peer/link.h"
#include "peer/peer.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#define LINGER_MS		10000
#define HOLD_CHECK_MS	1000
#define MAX_PAUSE_MS	100		/* between two looks; less with a short concord.deadlock_timeout */
#define SLACK_US		10000	/* D2: two clocks, each read a moment before it is told */
#define MAX_NESTING		16		/* a branch of a branch ... */

#define EDGES_SQL "SELECT kind, incarnation, pid, wait, lock, blocker, gid, coordinator, " \
	"coordinator_pid, started, age, serial FROM concord._wait_edges()"
#define GIVE_UP_SQL "SELECT concord._give_up($1, $2)"

enum
{
	COL_KIND, COL_INCARNATION, COL_PID, COL_WAIT, COL_LOCK, COL_BLOCKER, COL_GID,
	COL_COORDINATOR, COL_COORDINATOR_PID, COL_STARTED, COL_AGE, COL_SERIAL, COLUMNS
};

typedef struct DetectorNode
{
	int			node_id;
	Oid			serverid;
	char		name[NAMEDATALEN];
	bool		self;
	MemoryContext context;		/* of the link */
	ConcordLink *link;			/* NULL: none */

	/* of the running collection */
	ConcordReply *reply;		/* NULL: it has not answered */
	const char *incarnation;	/* of its server */
} DetectorNode;

#define KEY_SIZE (CONCORD_GID_SIZE + 32)

typedef struct Process
{
	char		key[KEY_SIZE];	/* hash key: incarnation/pid, or a gid */
	int			number;			/* in the graph */
	int			transaction;	/* in the graph */
	int			pid;			/* 0: prepared */
	const char *incarnation;	/* of its server; NULL: prepared */
	DetectorNode *node;			/* first one of its server */
	const char *gid;
	bool		running;		/* is in a transaction, for all we know */
	int64		started;
	int64		age;
	const char *coordinator;	/* node, of a branch; NULL: none */
	int			coordinator_pid;
	const char *serial;
} Process;

typedef struct Wait
{
	DetectorNode *node;			/* to be told, if it is to be ended */
	const char *name;
	const char *lock;
	Process    *waiter;
	Process    *blocker;
} Wait;

/* What one collection has brought. */
typedef struct Collection
{
	HTAB	   *processes;
	List	   *all;			/* of Process * */
	List	   *waits;			/* of Wait * */
	HTAB	   *names;			/* incarnation/name of each wait */
	int64		took_us;
} Collection;

/* A collection as core/deadlock.h wants it. */
typedef struct Graph
{
	ConcordWaitGraph graph;
	Process   **roots;			/* [ntransactions] the coordinators' sessions */
	Wait	  **waits;			/* [nwaits] */
} Graph;

static ConcordDetector *me = NULL;
static MemoryContext look_context;
static List *nodes = NIL;		/* of DetectorNode *, in TopMemoryContext */
static int64 nodes_epoch = -1;	/* of the map they were read from */

/* ------------------------------------------------------------- this process */

static void
leave(int code, Datum arg)
{
	bool		wanted;

	LWLockAcquire(ConcordDeadlockShared->lock, LW_EXCLUSIVE);
	if (me->pid == MyProcPid)
	{
		me->pid = 0;
		me->procno = -1;
		me->started_at = 0;
	}
	LWLockRelease(ConcordDeadlockShared->lock);
	/* who asked before it saw us go */
	wanted = code == 0 && pg_atomic_read_u32(&me->wanted) != 0;
	if (wanted)
		concord_poke_launcher();
}

/* Takes the database's entry; false if there is none, or another detector has it. */
static bool
enter(Oid dboid)
{
	bool		mine = false;

	LWLockAcquire(ConcordDeadlockShared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < CONCORD_MAX_DATABASES && me == NULL; i++)
		if (ConcordDeadlockShared->detectors[i].dboid == dboid)
			me = &ConcordDeadlockShared->detectors[i];
	if (me != NULL && me->pid == 0)
	{
		me->pid = MyProcPid;
		me->procno = concord_my_procno();
		mine = true;
	}
	LWLockRelease(ConcordDeadlockShared->lock);
	return mine;
}

static bool
is_held(void)
{
	ConcordDatabase *entry;
	bool		held;

	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	entry = concord_shmem_database(MyDatabaseId, false);
	held = entry != NULL && entry->held_by != 0;
	LWLockRelease(ConcordShared->lock);
	return held;
}

/* What ALTER DATABASE or ALTER ROLE SET must not decide here. */
static void
pin_settings(void)
{
	static const char *const pinned[][2] = {
		{"role", "none"},
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", "500ms"},
		{"transaction_timeout", "0"},	/* where it exists: from 17 on */
	};

	for (int i = 0; i < (int) lengthof(pinned); i++)
		if (GetConfigOption(pinned[i][0], true, false) != NULL)
			SetConfigOption(pinned[i][0], pinned[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

static void
begin_work(const char *activity)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, activity);
}

static void
commit_work(void)
{
	CommitTransactionCommand();
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextSwitchTo(look_context);
}

/* ------------------------------------------------------------------- nodes */

static void
drop_link(DetectorNode *node)
{
	if (node->link == NULL)
		return;
	concord_link_close(node->link);
	node->link = NULL;
	MemoryContextDelete(node->context);
	node->context = NULL;
}

/* The map's nodes; an ended membership ends the process. */
static void
read_nodes(const ConcordMap *map)
{
	MemoryContext old;

	if (map->membership != CONCORD_MEMBER)
		proc_exit(0);
	if (map->epoch == nodes_epoch)
		return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	for (int i = 0; i < list_length(nodes); i++)
		drop_link(list_nth(nodes, i));
	list_free_deep(nodes);
	nodes = NIL;
	for (int i = 0; i < map->nnodes; i++)
	{
		DetectorNode *node = palloc0(sizeof(DetectorNode));

		node->node_id = map->nodes[i].node_id;
		node->serverid = map->nodes[i].serverid;
		node->self = node->node_id == map->self;
		strlcpy(node->name, NameStr(map->nodes[i].name), NAMEDATALEN);
		nodes = lappend(nodes, node);
	}
	nodes_epoch = map->epoch;
	concord_peer_set_local_name(NameStr(map->self_name));
	MemoryContextSwitchTo(old);
}

static bool
is_down(const DetectorNode *node)
{
	ConcordPeer *peer;
	bool		down;

	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	peer = concord_shmem_peer(MyDatabaseId, node->node_id, false);
	down = peer != NULL && peer->health == CONCORD_DOWN;
	LWLockRelease(ConcordShared->lock);
	return down;
}

/* Opens the links that are missing.  A node without a mapping is one that does not answer. */
static void
open_links(void)
{
	Oid			role = get_role_oid(concord_node_role, true);

	for (int i = 0; i < list_length(nodes); i++)
	{
		DetectorNode *node = list_nth(nodes, i);
		List	   *options;
		MemoryContext old;

		if (node->link != NULL &&
			(is_down(node) || concord_link_advance(node->link) != CONCORD_LINK_IDLE))
			drop_link(node);
		if (node->self || node->link != NULL || is_down(node) ||
			!SearchSysCacheExists1(FOREIGNSERVEROID, ObjectIdGetDatum(node->serverid)) ||
			!SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(role),
								   ObjectIdGetDatum(node->serverid)))
			continue;
		options = concord_server_options(node->serverid, role, true);
		node->context = AllocSetContextCreate(TopMemoryContext, "pg_concord detector link",
											  ALLOCSET_SMALL_SIZES);
		old = MemoryContextSwitchTo(node->context);
		node->link = concord_link_open(node->name, options);
		MemoryContextSwitchTo(old);
	}
}

/* A statement on this node itself, in the form of a link's answer. */
static ConcordReply *
call_here(const char *sql, int nparams, const char *const *params)
{
	ConcordReply *reply = palloc0(sizeof(ConcordReply));
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2];

	Assert(nparams <= (int) lengthof(values));
	begin_work(sql);
	for (int i = 0; i < nparams; i++)
		values[i] = CStringGetTextDatum(params[i]);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_with_args(sql, nparams, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "statement of the deadlock detector's own failed: %s", sql);
	reply->ok = true;
	reply->nrows = (int) SPI_processed;
	reply->ncols = SPI_tuptable->tupdesc->natts;
	reply->values = MemoryContextAllocZero(look_context,
										   Max(1, reply->nrows * reply->ncols) * sizeof(char *));
	for (int row = 0; row < reply->nrows; row++)
		for (int col = 0; col < reply->ncols; col++)
		{
			char	   *value = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
											 col + 1);

			if (value != NULL)
				concord_reply_value(reply, row, col) = MemoryContextStrdup(look_context, value);
		}
	PopActiveSnapshot();
	SPI_finish();
	commit_work();
	return reply;
}

/* Asks all nodes at once; who has not answered in time has no reply. */
static void
ask_nodes(void)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													concord_view_timeout_ms);
	ConcordLink **links = palloc(list_length(nodes) * sizeof(ConcordLink *));
	int			n = 0;

	for (int i = 0; i < list_length(nodes); i++)
	{
		DetectorNode *node = list_nth(nodes, i);

		node->reply = NULL;
		node->incarnation = NULL;
		if (node->link == NULL)
			continue;
		concord_link_send(node->link, EDGES_SQL, 0, NULL);
		(void) concord_link_advance(node->link);
		links[n++] = node->link;
	}
	for (int i = 0; i < list_length(nodes); i++)
		if (((DetectorNode *) list_nth(nodes, i))->self)
			((DetectorNode *) list_nth(nodes, i))->reply = call_here(EDGES_SQL, 0, NULL);
	while (concord_link_wait(links, n, until) > 0 && GetCurrentTimestamp() < until)
		;
	for (int i = 0; i < list_length(nodes); i++)
	{
		DetectorNode *node = list_nth(nodes, i);

		if (node->link != NULL)
			node->reply = concord_link_take(node->link);
		if (node->reply == NULL || !node->reply->ok || node->reply->ncols != COLUMNS)
		{
			node->reply = NULL;
			drop_link(node);
		}
	}
}

/* -------------------------------------------------------------- collection */

static HTAB *
keyed_table(const char *name, Size entrysize)
{
	HASHCTL		info = {.keysize = KEY_SIZE, .entrysize = entrysize, .hcxt = look_context};

	return hash_create(name, 256, &info, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

static Process *
get_process(Collection *c, DetectorNode *node, const char *pid, const char *gid, bool create)
{
	char		key[KEY_SIZE];
	Process    *process;
	bool		found;

	if (gid != NULL)
		strlcpy(key, gid, sizeof(key));
	else
		snprintf(key, sizeof(key), "%s/%s", node->incarnation, pid);
	process = hash_search(c->processes, key, create ? HASH_ENTER : HASH_FIND, &found);
	if (create && !found)
	{
		memset((char *) process + KEY_SIZE, 0, sizeof(*process) - KEY_SIZE);
		process->number = list_length(c->all);
		process->transaction = -1;
		process->node = node;
		process->gid = gid;
		if (gid == NULL)
		{
			process->pid = atoi(pid);
			process->incarnation = node->incarnation;
		}
		c->all = lappend(c->all, process);
	}
	return process;
}

static DetectorNode *
find_node(const char *name, int node_id)
{
	for (int i = 0; i < list_length(nodes); i++)
	{
		DetectorNode *node = list_nth(nodes, i);

		if (name != NULL ? strcmp(node->name, name) == 0 : node->node_id == node_id)
			return node;
	}
	return NULL;
}

static char *
wait_key(const Wait *wait)
{
	return psprintf("%s/%s", wait->node->incarnation, wait->name);
}

static void
take_row(Collection *c, DetectorNode *node, char **row)
{
	if (strcmp(row[COL_KIND], "session") == 0)
	{
		Process    *process = get_process(c, node, row[COL_PID], NULL, true);

		process->started = strtoll(row[COL_STARTED], NULL, 10);
		process->age = strtoll(row[COL_AGE], NULL, 10);
		process->running = true;
		process->coordinator = row[COL_COORDINATOR];
		if (row[COL_COORDINATOR] != NULL)
			process->coordinator_pid = atoi(row[COL_COORDINATOR_PID]);
		process->serial = row[COL_SERIAL];
	}
	else if (strcmp(row[COL_KIND], "wait") == 0)
	{
		Wait	   *wait = palloc(sizeof(Wait));
		DetectorNode *other = row[COL_COORDINATOR] != NULL ?
			find_node(row[COL_COORDINATOR], 0) : node;

		if (other == NULL || other->incarnation == NULL)
			return;				/* D5 */
		wait->node = node;
		wait->name = row[COL_WAIT];
		wait->lock = row[COL_LOCK];
		wait->waiter = get_process(c, node, row[COL_PID], NULL, true);
		wait->blocker = get_process(c, other, row[COL_BLOCKER], row[COL_GID], true);
		c->waits = lappend(c->waits, wait);
		(void) hash_search(c->names, wait_key(wait), HASH_ENTER, NULL);
	}
}

/* Has an earlier node of the list answered for the same server? */
static bool
is_repetition(const DetectorNode *node)
{
	for (int i = 0; i < list_length(nodes); i++)
	{
		const DetectorNode *other = list_nth(nodes, i);

		if (other == node)
			return false;
		if (other->incarnation != NULL && strcmp(other->incarnation, node->incarnation) == 0)
			return true;
	}
	return false;
}

static Collection *
collect(void)
{
	Collection *c = palloc0(sizeof(Collection));
	TimestampTz began = GetCurrentTimestamp();

	c->processes = keyed_table("pg_concord processes", sizeof(Process));
	c->names = keyed_table("pg_concord waits", KEY_SIZE);
	ask_nodes();
	c->took_us = GetCurrentTimestamp() - began;
	for (int i = 0; i < list_length(nodes); i++)
	{
		DetectorNode *node = list_nth(nodes, i);

		/* the first row is the server's */
		if (node->reply != NULL && node->reply->nrows > 0)
			node->incarnation = concord_reply_value(node->reply, 0, COL_INCARNATION);
	}
	for (int i = 0; i < list_length(nodes); i++)
	{
		DetectorNode *node = list_nth(nodes, i);

		if (node->reply == NULL || node->incarnation == NULL || is_repetition(node))
			continue;
		for (int row = 1; row < node->reply->nrows; row++)
			take_row(c, node, &node->reply->values[row * COLUMNS]);
	}
	return c;
}

/* ------------------------------------------------------------ transactions */

/* The session that works on a prepared branch's transaction; NULL when there is none (any more). */
static Process *
coordinator_of_gid(Collection *c, const DetectorNode *node, const ConcordGid *gid)
{
	for (int i = 0; i < list_length(c->all); i++)
	{
		Process    *process = list_nth(c->all, i);

		if (process->serial != NULL && strcmp(process->incarnation, node->incarnation) == 0 &&
			strtoull(process->serial, NULL, 10) == gid->serial)
			return process;
	}
	return NULL;
}

/*
 * One step from a branch to its coordinator: the process itself if it is one, or if it belongs to
 * none; NULL if who could tell has not answered (D5).
 */
static Process *
superior(Collection *c, Process *process)
{
	DetectorNode *node;
	Process    *found;
	char		pid[16];

	if (process->gid != NULL)
	{
		ConcordGid	gid;
		char		incarnation[24];

		if (concord_gid_parse(process->gid, strlen(process->gid), &gid) != CONCORD_GID_BRANCH ||
			(node = find_node(NULL, gid.coordinator)) == NULL)
			return process;
		if (node->incarnation == NULL)
			return NULL;
		snprintf(incarnation, sizeof(incarnation), "%016llx", (unsigned long long) gid.incarnation);
		if (strcmp(incarnation, node->incarnation) != 0)
			return process;
		found = coordinator_of_gid(c, node, &gid);
		return found != NULL ? found : process;
	}
	if (process->coordinator == NULL || (node = find_node(process->coordinator, 0)) == NULL)
		return process;
	if (node->incarnation == NULL)
		return NULL;
	snprintf(pid, sizeof(pid), "%d", process->coordinator_pid);
	found = get_process(c, node, pid, NULL, false);
	/* D2 */
	if (found == NULL || !found->running || found == process ||
		process->age > found->age + c->took_us + SLACK_US)
		return process;
	return found;
}

/* The coordinator's session of a process's transaction; NULL if it cannot be known now. */
static Process *
root_of(Collection *c, Process *process)
{
	for (int depth = 0; depth < MAX_NESTING; depth++)
	{
		Process    *next = superior(c, process);

		if (next == NULL || next == process)
			return next;
		process = next;
	}
	return NULL;				/* a loop, which only a liar can make */
}

/* Process as a transaction is named by: unique, and the same for whoever looks. */
static const char *
transaction_name(const Process *root)
{
	return root->gid != NULL ? root->gid :
		psprintf("process %d of node \"%s\"", root->pid, root->node->name);
}

static int
transaction_of(Graph *g, Process *root)
{
	ConcordWaitTransaction *transaction;

	if (root->transaction >= 0)
		return root->transaction;
	root->transaction = g->graph.ntransactions++;
	g->roots[root->transaction] = root;
	transaction = &g->graph.transactions[root->transaction];
	transaction->stamp = root->started;
	transaction->name = transaction_name(root);
	transaction->gone = false;
	return root->transaction;
}

/* The graph of a collection, without waits that are not in an earlier one, if given (D3). */
static Graph *
build_graph(Collection *c, const Collection *earlier)
{
	Graph	   *g = palloc0(sizeof(Graph));
	int			n = list_length(c->all);
	int		   *process = palloc0(Max(1, n) * sizeof(int));
	ConcordWait *waits = palloc(Max(1, list_length(c->waits)) * sizeof(ConcordWait));

	g->graph.transactions = palloc((n + 1) * sizeof(ConcordWaitTransaction));
	g->graph.process = process;
	g->graph.nprocesses = n;
	g->graph.waits = waits;
	g->roots = palloc0((n + 1) * sizeof(Process *));
	g->waits = palloc(Max(1, list_length(c->waits)) * sizeof(Wait *));

	/* number 0: whatever nobody can tell whose it is */
	g->graph.transactions[g->graph.ntransactions++] = (ConcordWaitTransaction) {0, "", true};
	for (int i = 0; i < n; i++)
	{
		Process    *root = root_of(c, list_nth(c->all, i));

		process[i] = root == NULL ? 0 : transaction_of(g, root);
	}
	for (int i = 0; i < list_length(c->waits); i++)
	{
		Wait	   *wait = list_nth(c->waits, i);

		if (earlier != NULL &&
			hash_search(earlier->names, wait_key(wait), HASH_FIND, NULL) == NULL)
			continue;
		g->waits[g->graph.nwaits] = wait;
		waits[g->graph.nwaits].waiter = wait->waiter->number;
		waits[g->graph.nwaits++].blocker = wait->blocker->number;
	}
	return g;
}

/* ------------------------------------------------------------------ victims */

static char *
describe_cycle(const Graph *g, const int *cycle, int length)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < length; i++)
	{
		const Wait *wait = g->waits[cycle[i]];
		const Process *waiter = g->roots[g->graph.process[wait->waiter->number]];
		const Process *blocker = g->roots[g->graph.process[wait->blocker->number]];

		if (i > 0)
			appendStringInfoChar(&text, '\n');
		appendStringInfo(&text, "Process %d of node \"%s\" waits on node \"%s\" for %s; "
						 "blocked by process %d of node \"%s\".",
						 waiter->pid, waiter->node->name, wait->node->name, wait->lock,
						 blocker->pid, blocker->node->name);
	}
	return text.data;
}

/* Ends the wait, on the node where it is; returns whether it was still there. */
static bool
give_up(Wait *wait, const char *detail)
{
	const char *params[2] = {wait->name, detail};
	ConcordReply *reply;
	bool		done;

	if (wait->node->self)
		reply = call_here(GIVE_UP_SQL, 2, params);
	else if (wait->node->link == NULL)
		return false;
	else
		reply = concord_link_call(wait->node->link, GIVE_UP_SQL, 2, params,
								  concord_view_timeout_ms);
	done = reply->ok && reply->nrows == 1 && strcmp(concord_reply_value(reply, 0, 0), "t") == 0;
	if (!reply->ok)
		drop_link(wait->node);
	return done;
}

/* Finds the victims of a graph; with tell, ends their waits.  Returns how many there are. */
static int
find_victims(Graph *g, bool tell)
{
	int		   *scratch = palloc(concord_deadlock_scratch(&g->graph) * sizeof(int));
	int		   *cycle = palloc(g->graph.ntransactions * sizeof(int));
	int			victim;
	int			length;
	int			found = 0;

	while ((length = concord_deadlock_next(&g->graph, scratch, &victim, cycle)) > 0)
	{
		char	   *detail;

		found++;
		if (!tell)
			continue;
		detail = describe_cycle(g, cycle, length);
		if (give_up(g->waits[cycle[0]], detail))
			ereport(LOG,
					(errmsg("deadlock detected among nodes: process %d of node \"%s\" gives up",
							g->roots[victim]->pid, g->roots[victim]->node->name),
					 errdetail_internal("%s", detail)));
	}
	return found;
}

static void
look(void)
{
	Collection *first;

	begin_work("reading the map");
	AcceptInvalidationMessages();
	read_nodes(concord_map());
	open_links();
	commit_work();

	first = collect();
	if (find_victims(build_graph(first, NULL), false) == 0)
		return;
	if (find_victims(build_graph(collect(), first), true) == 0)
		pg_atomic_write_u32(&me->wanted, 1);	/* it may only have changed: look again soon */
}

void
concord_detector_main(Datum arg)
{
	TimestampTz last = GetCurrentTimestamp();

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (!enter(DatumGetObjectId(arg)))
		proc_exit(0);
	on_shmem_exit(leave, (Datum) 0);
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	pin_settings();
	pgstat_report_activity(STATE_IDLE, NULL);
	look_context = AllocSetContextCreate(TopMemoryContext, "pg_concord detector",
										 ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (is_held() ||
			GetCurrentTimestamp() >= TimestampTzPlusMilliseconds(last, LINGER_MS))
			proc_exit(0);
		if (pg_atomic_exchange_u32(&me->wanted, 0) != 0)
		{
			MemoryContextReset(look_context);
			MemoryContextSwitchTo(look_context);
			look();
			last = GetCurrentTimestamp();
			(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 Max(1, Min(MAX_PAUSE_MS, concord_deadlock_timeout_ms / 10)),
							 concord_wait_event("ConcordDetectorPause"));
			continue;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, HOLD_CHECK_MS,
						 concord_wait_event("ConcordDetectorMain"));
	}
}
