/*
 * statement.c
 *		What is sent to a peer and how its answers are taken.
 *
 * WHAT: one flush carries all that a statement needs, so that a statement costs one round trip:
 *
 *		[RELEASE] [BEGIN] [hello] [settings] [SAVEPOINT ...] [PREPARE] statement SYNC
 *
 * Bracketed parts are sent only when needed; in the steady state it is BEGIN + statement + SYNC for
 * a transaction's first statement and statement + SYNC for the others.  An error skips
 * everything up to SYNC, so the statement never runs on a peer that refused the hello.
 *
 * A statement that is its caller's whole transaction (shard/whole.c finds out) is sent as
 *
 *		[PREPARE] statement SYNC
 *
 * and commits by itself at SYNC: one round trip in all, and one flush there if it wrote.
 * INVARIANTS
 * W1 It is sent so only where hello and settings have been told, the default characteristics of
 *    transactions among them: the peer's transaction has those of the caller's.
 * W2 A WHOLE_WRITE is never sent again, unless it is certain that it was not committed: an error
 *    came for it, or the session said that it ends before it said that the statement was executed.
 *    If the connection is lost otherwise, the caller is told 08007; nobody can know, once it was
 *    sent.  (A connection that is found dead before that is replaced.)
 * W3 Nothing of ours can fail after it was committed: its rows are not wanted, it is its caller's
 *    last statement, and interrupts are held from its answer to the end of the local transaction.
 *    A cancel request before the answer is passed on, and it depends on the answer what the
 *    caller is told.
 * W4 A WHOLE_READ does not commit what it wrote (notifications aside): the peer refuses (25P01) one
 *    that has taken a transaction id, and it is sent again with BEGIN.  So it can be repeated like
 *    any reader, and an error in the caller's handling of its rows leaves nothing behind.
 *
 * ANSWERS are consumed in the order of queue[] (C1).  Rows go to the sink one by one (single-row
 * mode), so that memory does not grow with the result.  Nothing is raised while answers are
 * consumed, except by the sink; the first error is kept and raised by concord_peer_finish().
 *
 * PREPARED STATEMENTS are kept per connection, least recently used first out.  An entry counts
 * only after the peer confirmed it: PREPARE is not transactional, so it survives a rollback,
 * but not an error before it in the same flush.
 *
 * RETRIES, all before anything was believed or could have been committed:
 *	- a cached connection that turns out dead at a branch's first statement is opened again once
 *	  (but see W2);
 *	- a cached plan whose result type changed on the peer is planned again once, if the branch
 *	  was begun in the same flush;
 *	- a stale map is the caller's to retry.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/errors.h"
#include "base/settings.h"
#include "catalog/namespace.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "peer/conn.h"
#include "pgtime.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#define HELLO_SQL "SELECT concord._hello($1::pg_catalog.uuid, $2::pg_catalog.int4, " \
	"$3::pg_catalog.int4, $4::pg_catalog.int4, $5::pg_catalog.int8)"

#define SETTINGS_SQL "SELECT pg_catalog.set_config('search_path', $1, false), " \
	"pg_catalog.set_config('TimeZone', $2, false), " \
	"pg_catalog.set_config('DateStyle', $3, false), " \
	"pg_catalog.set_config('IntervalStyle', $4, false), " \
	"pg_catalog.set_config('extra_float_digits', $5, false), " \
	"pg_catalog.set_config('lock_timeout', $6, false), " \
	"pg_catalog.set_config('concord.track', $7, false), " \
	"pg_catalog.set_config('concord.wait_timeout', $8, false), " \
	"pg_catalog.set_config('default_transaction_isolation', 'read committed', false), " \
	"pg_catalog.set_config('default_transaction_read_only', 'off', false), " \
	"pg_catalog.set_config('default_transaction_deferrable', 'off', false)"

uint64
concord_query_hash(const char *sql, int nparams, const Oid *types)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) sql, (int) strlen(sql), nparams);

	if (nparams > 0 && types != NULL)
		hash = hash_bytes_extended((const unsigned char *) types, nparams * (int) sizeof(Oid),
								   hash);
	return hash;
}

/* ------------------------------------------------------------- sending */

void
concord_conn_queue(ConcordConn *conn, ConcordCommandKind kind)
{
	ConcordCommand *command;

	if (conn->queue_length == conn->queue_size)
	{
		int			size = Max(16, conn->queue_size * 2);
		ConcordCommand *queue = MemoryContextAlloc(conn->context, size * sizeof(ConcordCommand));

		for (int i = 0; i < conn->queue_length; i++)
			queue[i] = conn->queue[(conn->queue_head + i) % conn->queue_size];
		if (conn->queue != NULL)
			pfree(conn->queue);
		conn->queue = queue;
		conn->queue_size = size;
		conn->queue_head = 0;
	}
	command = &conn->queue[(conn->queue_head + conn->queue_length) % conn->queue_size];
	command->kind = kind;
	command->hash = 0;
	command->flush = conn->flushes;
	conn->queue_length++;
}

/* Sends a command without parameters whose answer is only checked for success. */
void
concord_conn_control(ConcordConn *conn, ConcordCommandKind kind, const char *sql)
{
	concord_conn_queue(conn, kind);
	if (PQsendQueryParams(conn->pg, sql, 0, NULL, NULL, NULL, NULL, 0) == 0)
		concord_conn_lost(conn);
}

void
concord_conn_sync(ConcordConn *conn)
{
	concord_conn_queue(conn, CMD_SYNC);
	if (PQpipelineSync(conn->pg) == 0)
		concord_conn_lost(conn);
}

static bool
same_statement(const ConcordPrepared *entry, const ConcordRemoteQuery *query)
{
	return entry->nparams == query->nparams && strcmp(entry->sql, query->sql) == 0 &&
		(query->nparams == 0 || query->types == NULL ||
		 memcmp(entry->types, query->types, query->nparams * sizeof(Oid)) == 0);
}

static void
drop_prepared(ConcordConn *conn, ConcordPrepared *entry)
{
	char		sql[64];

	/* in the same flush PREPARE comes first, or all of it is skipped */
	if (entry->ready || entry->flush == conn->flushes)
	{
		snprintf(sql, sizeof(sql), "DEALLOCATE %s", entry->name);
		concord_conn_control(conn, CMD_CONTROL, sql);
	}
	if (!entry->pinned)
	{
		dlist_delete(&entry->lru);
		conn->nprepared--;
	}
	pfree(entry->sql);
	if (entry->types != NULL)
		pfree(entry->types);
	hash_search(conn->prepared, &entry->hash, HASH_REMOVE, NULL);
}

/*
 * The entry for a query, new or not; NULL if it cannot be kept (cache off, or another statement
 * of the same hash).  Sends PREPARE when the peer does not have it.
 *
 * pinned: one of the few control statements.  They are never dropped, since BEGIN would then be
 * preceded by a DEALLOCATE, which opens a transaction of its own.
 */
static ConcordPrepared *
prepare(ConcordConn *conn, const ConcordRemoteQuery *query, bool pinned)
{
	ConcordPrepared *entry;
	bool		found;

	if (concord_prepared_statements == 0)
		return NULL;
	if (conn->prepared == NULL)
	{
		HASHCTL		info = {
			.keysize = sizeof(uint64), .entrysize = sizeof(ConcordPrepared), .hcxt = conn->context
		};

		conn->prepared = hash_create("pg_concord prepared", 64, &info,
									 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		dlist_init(&conn->prepared_lru);
	}
	entry = hash_search(conn->prepared, &query->hash, HASH_FIND, NULL);
	if (entry != NULL && !entry->replan && (entry->ready || entry->flush == conn->flushes))
	{
		if (!same_statement(entry, query))
			return NULL;
		if (!entry->pinned)
			dlist_move_head(&conn->prepared_lru, &entry->lru);
		return entry;
	}
	if (entry != NULL)
		drop_prepared(conn, entry);
	while (!pinned && conn->nprepared >= concord_prepared_statements)
		drop_prepared(conn, dlist_tail_element(ConcordPrepared, lru, &conn->prepared_lru));

	entry = hash_search(conn->prepared, &query->hash, HASH_ENTER, &found);
	snprintf(entry->name, sizeof(entry->name), "concord_%u", ++conn->next_name);
	entry->sql = MemoryContextStrdup(conn->context, query->sql);
	entry->nparams = query->nparams;
	entry->types = NULL;
	if (query->nparams > 0 && query->types != NULL)
	{
		entry->types = MemoryContextAlloc(conn->context, query->nparams * sizeof(Oid));
		memcpy(entry->types, query->types, query->nparams * sizeof(Oid));
	}
	entry->ready = entry->replan = false;
	entry->flush = conn->flushes;
	entry->pinned = pinned;
	if (!pinned)
	{
		dlist_push_head(&conn->prepared_lru, &entry->lru);
		conn->nprepared++;
	}

	concord_conn_queue(conn, CMD_PREPARE);
	conn->queue[(conn->queue_head + conn->queue_length - 1) % conn->queue_size].hash = query->hash;
	if (PQsendPrepare(conn->pg, entry->name, query->sql, query->nparams, query->types) == 0)
		concord_conn_lost(conn);
	return entry;
}

/* PREPARE, when needed, and execution of a query. */
static void
send_execution(ConcordConn *conn, ConcordCommandKind kind, const ConcordRemoteQuery *query)
{
	ConcordPrepared *entry = prepare(conn, query, kind != CMD_STATEMENT);
	int			sent;

	concord_conn_queue(conn, kind);
	if (entry != NULL)
		sent = PQsendQueryPrepared(conn->pg, entry->name, query->nparams, query->values,
								   query->lengths, query->formats, 0);
	else
		sent = PQsendQueryParams(conn->pg, query->sql, query->nparams, query->types, query->values,
								 query->lengths, query->formats, 0);
	if (sent == 0)
		concord_conn_lost(conn);
	/* as the first of the queue it is already the current one for libpq: see take_answers() */
	if (kind == CMD_STATEMENT && conn->queue_length == 1)
		(void) PQsetSingleRowMode(conn->pg);
}

/* A command without parameters that comes again and again: prepared like a statement. */
void
concord_conn_repeated(ConcordConn *conn, ConcordCommandKind kind, const char *sql)
{
	ConcordRemoteQuery query = {.sql = sql};

	query.hash = concord_query_hash(sql, 0, NULL);
	send_execution(conn, kind, &query);
}

static void
send_hello(ConcordConn *conn, const ConcordTarget *target)
{
	char		numbers[4][24];
	const char *values[5] = {target->cluster, numbers[0], numbers[1], numbers[2], numbers[3]};
	ConcordRemoteQuery hello = {.sql = HELLO_SQL, .nparams = 5, .values = values};

	snprintf(numbers[0], sizeof(numbers[0]), "%d", target->self);
	snprintf(numbers[1], sizeof(numbers[1]), "%d", target->node_id);
	snprintf(numbers[2], sizeof(numbers[2]), "%d", CONCORD_PROTOCOL);
	snprintf(numbers[3], sizeof(numbers[3]), INT64_FORMAT, target->epoch);
	hello.hash = concord_query_hash(hello.sql, 0, NULL);
	send_execution(conn, CMD_HELLO, &hello);
	conn->told_epoch = target->epoch;
}

static bool
settings_are_current(ConcordSessionSettings *told, const char *timezone)
{
	return told->known && told->date_style == DateStyle && told->date_order == DateOrder &&
		told->interval_style == IntervalStyle &&
		told->float_digits == Max(extra_float_digits, 1) &&
		told->lock_timeout_ms == LockTimeout && told->track == concord_track &&
		told->wait_timeout_ms == concord_wait_timeout_ms &&
		strcmp(told->timezone, timezone) == 0 &&
		strcmp(told->search_path, namespace_search_path) == 0;
}

static const char *
timezone_name(void)
{
	const char *name = pg_get_timezone_name(session_timezone);

	return name != NULL ? name : "UTC";
}

/*
 * Tells the peer's session the caller's search_path and formats, and what plain BEGIN shall mean.
 * It is set inside the branch and is undone with it, so after every rollback (also to a savepoint)
 * it counts as unknown.
 */
static void
send_settings(ConcordConn *conn)
{
	ConcordSessionSettings *told = &conn->settings;
	const char *timezone = timezone_name();
	char		float_digits[16];
	char		lock_timeout[16];
	char		wait_timeout[16];
	const char *values[8];
	ConcordRemoteQuery settings = {
		.sql = SETTINGS_SQL, .nparams = lengthof(values), .values = values
	};

	if (settings_are_current(told, timezone))
		return;

	if (told->search_path != NULL)
		pfree(told->search_path);
	told->search_path = MemoryContextStrdup(conn->context, namespace_search_path);
	strlcpy(told->timezone, timezone, sizeof(told->timezone));
	told->date_style = DateStyle;
	told->date_order = DateOrder;
	told->interval_style = IntervalStyle;
	told->float_digits = Max(extra_float_digits, 1);
	told->lock_timeout_ms = LockTimeout;
	told->track = concord_track;
	told->wait_timeout_ms = concord_wait_timeout_ms;
	told->known = true;

	snprintf(float_digits, sizeof(float_digits), "%d", told->float_digits);
	snprintf(lock_timeout, sizeof(lock_timeout), "%d", told->lock_timeout_ms);
	values[0] = told->search_path;
	values[1] = told->timezone;
	values[2] = GetConfigOption("DateStyle", false, false);
	values[3] = GetConfigOption("IntervalStyle", false, false);
	values[4] = float_digits;
	values[5] = lock_timeout;
	values[6] = GetConfigOption("concord.track", false, false);
	snprintf(wait_timeout, sizeof(wait_timeout), "%d", told->wait_timeout_ms);
	values[7] = wait_timeout;
	settings.hash = concord_query_hash(settings.sql, 0, NULL);
	send_execution(conn, CMD_SETTINGS, &settings);
}

/*
 * Tells a server what it must have applied before what follows is done.  It waits in the utility
 * hook, so this comes before anything that takes a snapshot.  What was reached once on a server
 * stays reached as long as it runs, so the same token is not told twice.  A primary has all that it
 * ever wrote: there the question is only whether a failover has lost it, which is asked once for
 * each generation and timeline (floor_key), or whether a branch has ended, which is always asked.
 */
void
concord_conn_send_floor(ConcordConn *conn)
{
	const ConcordTarget *target = conn->target;
	const char *floor = target->floor;
	char	   *sql;

	if (target->floor_key != 0 && target->floor_key == conn->told_floor_key)
		return;
	if (target->make_floor != NULL)
		floor = target->make_floor(target->node_id);
	if (floor == NULL || (conn->told_floor != NULL && strcmp(conn->told_floor, floor) == 0))
		return;
	/* not LOCAL: the transaction it is sent in may be that of the statement alone */
	sql = psprintf("SET concord.wait_timeout = %d", concord_wait_timeout_ms);
	concord_conn_control(conn, CMD_CONTROL, sql);
	/* what a replica does not reach is dealt with here */
	sql = psprintf("SET concord.on_timeout = '%s'", conn->replica_id != 0 ? "error" :
				   GetConfigOption("concord.on_timeout", false, false));
	concord_conn_control(conn, CMD_CONTROL, sql);
	sql = psprintf("SET concord.token = '%s'", floor);
	concord_conn_control(conn, CMD_FLOOR, sql);
	if (conn->told_floor != NULL)
		pfree(conn->told_floor);
	conn->told_floor = MemoryContextStrdup(conn->context, floor);
	conn->told_floor_key = target->floor_key;
}

/* W1 */
static ConcordWhole
may_commit_by_itself(ConcordConn *conn, const ConcordTarget *target)
{
	return conn->branch == CONCORD_BRANCH_NONE && conn->told_epoch == target->epoch &&
		settings_are_current(&conn->settings, timezone_name()) ? conn->query->whole : CONCORD_PART;
}

/* Sends conn->query with all that must precede it; the connection is connected. */
void
concord_conn_send_query(ConcordConn *conn, const ConcordTarget *target)
{
	conn->flushes++;
	conn->completed = conn->ended = false;
	conn->whole = may_commit_by_itself(conn, target);
	/* parts of the flush may be sent under a lost connection: libpq then ignores them */
	if (conn->whole != CONCORD_PART)
	{
		conn->begun_now = true;
		concord_conn_send_floor(conn);
	}
	else
	{
		concord_branch_begin(conn);
		if (conn->told_epoch != target->epoch)
			send_hello(conn, target);
		send_settings(conn);
	}
	send_execution(conn, CMD_STATEMENT, conn->query);
	concord_conn_sync(conn);
	if (conn->pg != NULL && PQstatus(conn->pg) == CONNECTION_OK)
		(void) PQflush(conn->pg);
}

/* ------------------------------------------------------------ answers */

static bool
ends_session(const PGresult *result)
{
	const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);

	return severity != NULL && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0);
}

static bool
is_hello(const ConcordCommand *command)
{
	return command->kind == CMD_HELLO ||
		(command->kind == CMD_PREPARE && command->hash == concord_query_hash(HELLO_SQL, 0, NULL));
}

/* Hello is not known where we arrived: say what that means. */
static bool
no_extension(ConcordConn *conn, const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	MemoryContext old;

	if (strcmp(sqlstate, "3F000") != 0 && strcmp(sqlstate, "42883") != 0)
		return false;
	old = MemoryContextSwitchTo(conn->context);
	conn->error.sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	conn->error.message = psprintf("the database reached for node \"%s\" has no extension pg_concord",
								   conn->name);
	conn->error.hint = pstrdup("Was the database recreated, or the node's address changed? "
							   "See concord.check_cluster().");
	MemoryContextSwitchTo(old);
	return true;
}

static void
keep_error(ConcordConn *conn, const ConcordCommand *command, const PGresult *result)
{
	ConcordCommandKind kind = command->kind;
	ConcordRemoteError *target = kind == CMD_COMMIT || kind == CMD_COMMIT_PREPARED ?
		&conn->commit_error : &conn->error;
	const char *routine = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);
	MemoryContext old;

	if (target->message != NULL)
		return;					/* the first one is the cause */
	if ((kind == CMD_COMMIT || kind == CMD_COMMIT_PREPARED) && command->flush != conn->flushes)
		return;					/* of an earlier transaction, that did not wait for it (C2) */
	if (kind == CMD_ROLLBACK)
		return;					/* ROLLBACK PREPARED: the peer's resolver was faster */
	/* a session that ends while it commits may have committed: its loss will say "unknown" */
	if (kind == CMD_COMMIT && ends_session(result))
		return;
	if (is_hello(command) && no_extension(conn, result))
		return;
	old = MemoryContextSwitchTo(conn->context);
	concord_wire_error(result, target);
	MemoryContextSwitchTo(old);
	/* positions are of interest in the user's text only */
	if (kind != CMD_STATEMENT &&
		!(kind == CMD_PREPARE && conn->query != NULL && command->hash == conn->query->hash))
		target->position = 0;
	if (target->sqlstate == ERRCODE_CONCORD_STALE_MAP)
		conn->told_epoch = 0;	/* the peer wants to hear a newer one first */
	conn->replan = kind == CMD_STATEMENT && routine != NULL &&
		target->sqlstate == ERRCODE_FEATURE_NOT_SUPPORTED &&
		strcmp(routine, "RevalidateCachedQuery") == 0;
}

/* The connection is gone: the branch with it; the running statement has failed. */
void
concord_conn_lost(ConcordConn *conn)
{
	MemoryContext old;

	if (conn->lost)
		return;
	conn->lost = true;
	conn->answered = true;
	old = MemoryContextSwitchTo(conn->context);
	if (conn->error.message != NULL && conn->connected)
	{
		/* a FATAL message of the peer came first: it is the cause */
		conn->error.detail = psprintf("%s", conn->error.message);
	}
	else
		conn->error.detail = conn->pg != NULL ? concord_wire_conn_error(conn->pg) : NULL;
	conn->error.message = psprintf(conn->connected ? "connection to node \"%s\" was lost" :
								   "node \"%s\" is not reachable", conn->name);
	conn->error.hint = NULL;
	conn->error.sqlstate = conn->connected ? ERRCODE_CONNECTION_FAILURE :
		ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION;
	MemoryContextSwitchTo(old);
	if (conn->branch != CONCORD_BRANCH_NONE)
		conn->branch = CONCORD_BRANCH_LOST;
	conn->queue_length = 0;
}

static void
deliver_rows(ConcordConn *conn, PGresult *result)
{
	const ConcordSink *sink = conn->sink;
	int			ncols = PQnfields(result);

	if (sink == NULL || conn->error.message != NULL)
		return;
	if (ncols > conn->row_size)
	{
		conn->row_values = MemoryContextAlloc(conn->context, ncols * sizeof(char *));
		conn->row_lengths = MemoryContextAlloc(conn->context, ncols * sizeof(int));
		conn->row_size = ncols;
	}
	if (!conn->described)
	{
		Oid		   *types = palloc(Max(ncols, 1) * sizeof(Oid));
		const char **names = palloc(Max(ncols, 1) * sizeof(char *));

		for (int i = 0; i < ncols; i++)
		{
			types[i] = PQftype(result, i);
			names[i] = PQfname(result, i);
		}
		conn->described = true;
		sink->describe(sink->arg, conn->source, ncols, types, names);
		pfree(types);
		pfree(names);
	}
	for (int row = 0; row < PQntuples(result); row++)
	{
		for (int i = 0; i < ncols; i++)
		{
			conn->row_values[i] = PQgetisnull(result, row, i) ? NULL : PQgetvalue(result, row, i);
			conn->row_lengths[i] = PQgetlength(result, row, i);
		}
		sink->row(sink->arg, conn->source, ncols, conn->row_values, conn->row_lengths);
	}
}

static void
prepare_confirmed(ConcordConn *conn, const ConcordCommand *command)
{
	ConcordPrepared *entry = conn->prepared == NULL ? NULL :
		hash_search(conn->prepared, &command->hash, HASH_FIND, NULL);

	if (entry != NULL && entry->flush == command->flush)
		entry->ready = true;
}

static void
take_success(ConcordConn *conn, ConcordCommand *command, PGresult *result)
{
	switch (command->kind)
	{
		case CMD_HELLO:
			if (PQntuples(result) == 1)
				conn->backend_pid = atoi(PQgetvalue(result, 0, 0));
			break;
		case CMD_PREPARE:
			prepare_confirmed(conn, command);
			break;
		case CMD_STATEMENT:
			deliver_rows(conn, result);
			if (PQresultStatus(result) != PGRES_SINGLE_TUPLE)
			{
				conn->completed = true;
				conn->rows = PQcmdTuples(result)[0] != '\0' ?
					strtoll(PQcmdTuples(result), NULL, 10) : 0;
			}
			break;
		case CMD_PREPARE_BRANCH:
			/* a failed transaction answers PREPARE with the tag ROLLBACK */
			conn->branch = strcmp(PQcmdStatus(result), "PREPARE TRANSACTION") == 0 ?
				CONCORD_BRANCH_PREPARED : CONCORD_BRANCH_NONE;
			break;
		case CMD_COMMIT:
			/* a reader's COMMIT was not awaited: its late answer is not this one's */
			if (command->flush == conn->flushes)
				strlcpy(conn->commit_tag, PQcmdStatus(result), sizeof(conn->commit_tag));
			break;
		default:
			break;
	}
}

static void
forget_floor(ConcordConn *conn)
{
	if (conn->told_floor != NULL)
		pfree(conn->told_floor);
	conn->told_floor = NULL;
	conn->told_floor_key = 0;
}

/* The connection is closed: what its session had been told and has told is over. */
void
concord_conn_forget_tokens(ConcordConn *conn)
{
	forget_floor(conn);
	if (conn->told_token != NULL)
		pfree(conn->told_token);
	conn->told_token = NULL;
	if (concord_peer_token_hook != NULL)
		concord_peer_token_hook(conn, CONCORD_PEER_CLOSED, NULL);
}

void
concord_conn_pass_token(ConcordConn *conn, ConcordPeerEvent event)
{
	if (concord_peer_token_hook != NULL && conn->told_token != NULL && conn->token_is_new)
		concord_peer_token_hook(conn, event, conn->told_token);
}

/*
 * The peer's session has reported another token, not just what it was told.  The answer to a
 * COMMIT may come late, in another transaction than its own: whoever has awaited it passes the
 * token on.
 */
static void
look_at_token(ConcordConn *conn)
{
	const char *token = PQparameterStatus(conn->pg, "concord.token");
	size_t		size;

	if (token == NULL || (conn->told_token != NULL && strcmp(conn->told_token, token) == 0))
		return;
	if (conn->told_token != NULL)
		pfree(conn->told_token);
	/* this may be after the commit: nothing is raised */
	size = strlen(token) + 1;
	conn->told_token = MemoryContextAllocExtended(conn->context, size, MCXT_ALLOC_NO_OOM);
	if (conn->told_token == NULL)
		return;
	memcpy(conn->told_token, token, size);
	conn->token_is_new = true;
	if (conn->taken == CMD_PREPARE_BRANCH)
		concord_conn_pass_token(conn, CONCORD_PEER_PREPARED);
	else if (conn->taken == CMD_COMMIT_PREPARED)
		concord_conn_pass_token(conn, CONCORD_PEER_ENDED);
	else if (conn->taken == CMD_STATEMENT &&
			 (conn->told_floor == NULL || strcmp(conn->told_floor, token) != 0))
		concord_conn_pass_token(conn, CONCORD_PEER_DONE);
}

static void
take_result(ConcordConn *conn, ConcordCommand *command, PGresult *result)
{
	switch (PQresultStatus(result))
	{
		case PGRES_COMMAND_OK:
		case PGRES_TUPLES_OK:
		case PGRES_SINGLE_TUPLE:
		case PGRES_EMPTY_QUERY:
			take_success(conn, command, result);
			break;
		case PGRES_PIPELINE_ABORTED:
			if (command->kind == CMD_HELLO)
				conn->told_epoch = 0;
			if (command->kind == CMD_FLOOR)
				forget_floor(conn);
			break;
		case PGRES_COPY_IN:
		case PGRES_COPY_OUT:
		case PGRES_COPY_BOTH:
			/* refused before it is sent; a function cannot do it either */
			concord_conn_lost(conn);
			break;
		default:
			if (command->kind == CMD_HELLO)
				conn->told_epoch = 0;
			if (command->kind == CMD_FLOOR)
				forget_floor(conn);
			if (command->kind == CMD_PREPARE_BRANCH)
			{
				/* PREPARE rolls back if it fails; if it was not even tried, the close does */
				conn->branch = CONCORD_BRANCH_NONE;
				conn->invalidated = true;
			}
			conn->ended = conn->ended || ends_session(result);
			keep_error(conn, command, result);
			break;
	}
}

/*
 * SYNC itself failed, so did the commit of a whole statement.  How libpq goes on from there depends
 * on its version: the connection is closed at the end of the transaction.
 */
static void
sync_failed(ConcordConn *conn)
{
	conn->invalidated = true;
	if (conn->queue_length > 1)
		concord_conn_lost(conn);
	conn->queue_length = 0;
	conn->answered = true;
}

/* The SYNC of the running statement was answered: all its answers are there. */
static void
take_sync(ConcordConn *conn)
{
	const char *state;

	look_at_token(conn);
	if (conn->queue_length == 0)
		conn->answered = true;
	if (conn->branch == CONCORD_BRANCH_OPEN)
	{
		state = PQparameterStatus(conn->pg, "concord.branch_state");
		/* an xid stays, a lock goes with the savepoint it was taken in (B3, B6) */
		conn->wrote = conn->wrote || (state != NULL && strstr(state, "writing") != NULL);
		conn->holds = state != NULL && strstr(state, "locking") != NULL;
	}
}

static void
pop_command(ConcordConn *conn)
{
	if (conn->queue[conn->queue_head].kind != CMD_SYNC)
		conn->taken = conn->queue[conn->queue_head].kind;
	conn->queue_head = (conn->queue_head + 1) % conn->queue_size;
	conn->queue_length--;
	/* libpq has moved on to the next command: rows of a statement are wanted one by one */
	if (conn->queue_length > 0 && conn->queue[conn->queue_head].kind == CMD_STATEMENT)
		(void) PQsetSingleRowMode(conn->pg);
}

static void
take_answers(ConcordConn *conn)
{
	while (conn->queue_length > 0 && !PQisBusy(conn->pg))
	{
		ConcordCommand *command = &conn->queue[conn->queue_head];
		PGresult   *result;

		conn->result = result = PQgetResult(conn->pg);
		if (result == NULL)
		{
			if (PQstatus(conn->pg) != CONNECTION_OK)
				return;
			/* end of one command's answers; SYNC has none of its own */
			if (command->kind != CMD_SYNC)
				pop_command(conn);
			continue;
		}
		if (PQresultStatus(result) == PGRES_FATAL_ERROR &&
			PQresultErrorField(result, PG_DIAG_SQLSTATE) == NULL)
		{
			/* libpq's own words: the connection is gone (the caller sees to it) or out of step */
			PQclear(result);
			conn->result = NULL;
			if (PQstatus(conn->pg) == CONNECTION_OK)
				concord_conn_lost(conn);
			return;
		}
		/* not a late answer of an earlier transaction, nor a session's last words */
		if (command->flush == conn->flushes && !ends_session(result))
			conn->any_answer = true;
		if (PQresultStatus(result) == PGRES_PIPELINE_SYNC)
		{
			Assert(command->kind == CMD_SYNC);	/* C1 */
			pop_command(conn);
			take_sync(conn);
		}
		else
		{
			bool		failed_at_sync = command->kind == CMD_SYNC && !ends_session(result);

			take_result(conn, command, result);
			if (failed_at_sync)
				sync_failed(conn);
		}
		if (conn->result != NULL)
			PQclear(conn->result);
		conn->result = NULL;
	}
}

static void
notice_receiver(void *arg, const PGresult *result)
{
	ConcordConn *conn = arg;
	MemoryContext old = MemoryContextSwitchTo(conn->context);
	ConcordRemoteError *notice = palloc(sizeof(ConcordRemoteError));
	const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);

	concord_wire_error(result, notice);
	notice->position = severity != NULL && strcmp(severity, "WARNING") == 0 ? WARNING :
		severity != NULL && strcmp(severity, "INFO") == 0 ? INFO :
		severity != NULL && strncmp(severity, "DEBUG", 5) == 0 ? DEBUG1 : NOTICE;
	conn->notices = lappend(conn->notices, notice);
	MemoryContextSwitchTo(old);
}

/* Passes the peer's notices on (level kept in position).  Never called while libpq works. */
void
concord_conn_emit_notices(ConcordConn *conn)
{
	List	   *notices = conn->notices;
	ListCell   *lc;

	conn->notices = NIL;
	foreach(lc, notices)
	{
		ConcordRemoteError *notice = lfirst(lc);

		ereport(notice->position,
				(errcode(notice->sqlstate),
				 errmsg_internal("%s", notice->message),
				 notice->detail ? errdetail_internal("%s", notice->detail) : 0,
				 notice->hint ? errhint("%s", notice->hint) : 0,
				 errcontext("node \"%s\"%s%s", conn->name, notice->context ? ": " : "",
							notice->context ? notice->context : "")));
		concord_error_free(notice);
		pfree(notice);
	}
	list_free(notices);
}

void
concord_conn_drop_notices(ConcordConn *conn)
{
	ListCell   *lc;

	foreach(lc, conn->notices)
	{
		concord_error_free(lfirst(lc));
		pfree(lfirst(lc));
	}
	list_free(conn->notices);
	conn->notices = NIL;
}

static void
finish_connecting(ConcordConn *conn)
{
	if (concord_password_required(conn->serverid, conn->userid) &&
		!PQconnectionUsedPassword(conn->pg))
		ereport(ERROR,
				(errcode(ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED),
				 errmsg("password is required"),
				 errdetail("Non-superusers cannot connect to node \"%s\" if it does not request a password.",
						   conn->name),
				 errhint("The node's authentication method must be changed, or password_required=false set in the user mapping by a superuser.")));
	conn->connected = true;
	conn->opened_at = GetCurrentTimestamp();
	PQsetNoticeReceiver(conn->pg, notice_receiver, conn);
	if (PQenterPipelineMode(conn->pg) == 0)
		concord_conn_lost(conn);
	else if (conn->query != NULL)
		concord_conn_send_query(conn, conn->target);
}

/* A cached connection died before it told us anything about this branch: open it again, once. */
static bool
retry_connection(ConcordConn *conn)
{
	const ConcordTarget *target = conn->target;
	const ConcordRemoteQuery *query = conn->query;
	const ConcordSink *sink = conn->sink;

	if (query == NULL || !conn->reused || !conn->begun_now || conn->any_answer ||
		conn->attempts > 0)
		return false;
	if (conn->whole == CONCORD_WHOLE_WRITE && !conn->ended)
		return false;			/* W2 */
	concord_conn_close(conn);
	concord_error_free(&conn->error);
	conn->lost = false;
	conn->branch = CONCORD_BRANCH_NONE;
	conn->reused = false;
	conn->attempts++;
	conn->target = target;
	conn->query = query;
	conn->sink = sink;
	conn->answered = false;
	concord_conn_open(conn);
	return true;
}

/* Moves the connection on as far as possible without waiting. */
void
concord_conn_advance(ConcordConn *conn)
{
	if (conn->lost || conn->pg == NULL)
		return;
	if (!conn->connected)
	{
		if (PQstatus(conn->pg) != CONNECTION_BAD && !concord_wire_ready(conn->pg, conn->poll))
			return;
		conn->poll = PQconnectPoll(conn->pg);
		if (conn->poll == PGRES_POLLING_FAILED)
			concord_conn_lost(conn);
		else if (conn->poll == PGRES_POLLING_OK)
			finish_connecting(conn);
		return;
	}
	if (conn->queue_length == 0)
		return;
	(void) PQconsumeInput(conn->pg);
	take_answers(conn);
	if (PQstatus(conn->pg) != CONNECTION_OK && conn->queue_length > 0)
	{
		/* libpq may still hold the peer's last words */
		PGresult   *result;

		while ((result = PQgetResult(conn->pg)) != NULL)
		{
			/* they are about the connection, not about the command they answer */
			const ConcordCommand last_words = {.kind = CMD_CONTROL};

			if (PQresultStatus(result) == PGRES_FATAL_ERROR &&
				PQresultErrorField(result, PG_DIAG_SQLSTATE) != NULL)
			{
				conn->ended = conn->ended || ends_session(result);
				keep_error(conn, &last_words, result);
			}
			PQclear(result);
		}
		if (!retry_connection(conn))
			concord_conn_lost(conn);
	}
}

void
concord_conn_throw(ConcordConn *conn, ConcordRemoteError *error)
{
	MemoryContext old = CurrentMemoryContext;
	ConcordRemoteError copy = *error;
	const char *sql = conn->query != NULL && error->position > 0 ? pstrdup(conn->query->sql) : NULL;
	char	  **fields[] = {
		&copy.message, &copy.detail, &copy.hint, &copy.context, &copy.schema,
		&copy.table, &copy.column, &copy.datatype, &copy.constraint
	};
	bool		lost = conn->lost;

	for (int i = 0; i < (int) lengthof(fields); i++)
		if (*fields[i] != NULL)
			*fields[i] = MemoryContextStrdup(old, *fields[i]);
	concord_error_free(error);
	concord_conn_forget_statement(conn);

	ereport(ERROR,
			(errcode(copy.sqlstate),
			 errmsg_internal("%s", copy.message),
			 copy.detail ? errdetail_internal("%s", copy.detail) : 0,
			 copy.hint ? errhint("%s", copy.hint) : 0,
			 copy.schema ? err_generic_string(PG_DIAG_SCHEMA_NAME, copy.schema) : 0,
			 copy.table ? err_generic_string(PG_DIAG_TABLE_NAME, copy.table) : 0,
			 copy.column ? err_generic_string(PG_DIAG_COLUMN_NAME, copy.column) : 0,
			 copy.datatype ? err_generic_string(PG_DIAG_DATATYPE_NAME, copy.datatype) : 0,
			 copy.constraint ? err_generic_string(PG_DIAG_CONSTRAINT_NAME, copy.constraint) : 0,
			 sql != NULL ? internalerrquery(sql) : 0,
			 sql != NULL ? internalerrposition(copy.position) : 0,
			 copy.context ? errcontext("%s", copy.context) : 0,
			 lost ? 0 : errcontext("node \"%s\"", conn->name)));
}

/* The running statement is over, one way or the other. */
void
concord_conn_forget_statement(ConcordConn *conn)
{
	conn->query = NULL;
	conn->sink = NULL;
	conn->target = NULL;
	conn->begun_now = false;
	conn->whole = CONCORD_PART;
	conn->attempts = 0;
}
