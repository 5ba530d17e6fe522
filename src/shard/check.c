/*
 * check.c
 *		Looks at the text of a routed statement before anybody is contacted.
 *
 * WHAT: parses it with the server's own grammar (syntax errors are thus local, with their position)
 * and refuses what cannot be routed:
 *		- none, or more than one statement;
 *		- transaction control: the branch follows the caller's transaction;
 *		- what would outlive the transaction in the peer's session, which other transactions of this
 *		  session use too: SET without LOCAL, PREPARE, LISTEN, WITH HOLD cursors, LOAD, DISCARD;
 *		- COPY from or to the client: there is no client on the peer.
 *
 * The verdict is cached by text, so a repeated statement costs one hash look-up.  Verdicts
 * depend on the grammar alone: nothing invalidates them.  The cache is bounded by two
 * generations: when the young one is full, the old one is dropped and the young one becomes the
 * old, so that a verdict outlives the call that asked for it.
 */
#include "postgres.h"

#include "base/compat.h"
#include "common/hashfn.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "shard/shard.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define MAX_CACHED 1000			/* of each generation */

static MemoryContext generations[2];
static HTAB *checked[2];
static int	young = 0;

static void
refuse(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s cannot be sent to a node", what),
			 errdetail("It would outlive the transaction in a session that others use too.")));
}

static void
check_utility(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_TransactionStmt:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
					 errmsg("transaction control cannot be sent to a node"),
					 errhint("The statement joins the caller's transaction and ends with it.")));
			break;
		case T_VariableSetStmt:
			if (!((VariableSetStmt *) statement)->is_local &&
				((VariableSetStmt *) statement)->kind != VAR_SET_MULTI)
				refuse("SET without LOCAL");
			break;
		case T_CopyStmt:
			if (((CopyStmt *) statement)->filename == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("COPY from or to the client cannot be sent to a node")));
			break;
		case T_DeclareCursorStmt:
			if (((DeclareCursorStmt *) statement)->options & CURSOR_OPT_HOLD)
				refuse("a cursor WITH HOLD");
			break;
		case T_PrepareStmt:
		case T_ExecuteStmt:
		case T_DeallocateStmt:
			refuse("PREPARE, EXECUTE or DEALLOCATE");
			break;
		case T_ListenStmt:
		case T_UnlistenStmt:
			refuse("LISTEN or UNLISTEN");
			break;
		case T_DiscardStmt:
			refuse("DISCARD");
			break;
		case T_LoadStmt:
			refuse("LOAD");
			break;
		default:
			break;
	}
}

static bool
find_highest_parameter(Node *node, int *highest)
{
	if (node == NULL)
		return false;
	if (IsA(node, ParamRef))
		*highest = Max(*highest, ((ParamRef *) node)->number);
	return raw_expression_tree_walker(node, find_highest_parameter, highest);
}

static bool
is_query(Node *statement, bool *returns_rows)
{
	switch (nodeTag(statement))
	{
		case T_SelectStmt:
			*returns_rows = ((SelectStmt *) statement)->intoClause == NULL;
			return true;
		case T_InsertStmt:
			*returns_rows = concord_returns_rows((InsertStmt *) statement);
			return true;
		case T_UpdateStmt:
			*returns_rows = concord_returns_rows((UpdateStmt *) statement);
			return true;
		case T_DeleteStmt:
			*returns_rows = concord_returns_rows((DeleteStmt *) statement);
			return true;
		case T_MergeStmt:
			*returns_rows = concord_merge_returns_rows((MergeStmt *) statement);
			return true;
		default:
			*returns_rows = false;
			return false;
	}
}

/* Can a SELECT write, by its own text?  What its functions do, the peer finds out. */
static bool
may_write(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_InsertStmt:
		case T_UpdateStmt:
		case T_DeleteStmt:
		case T_MergeStmt:
		case T_LockingClause:
		case T_IntoClause:
			return true;
		default:
			return raw_expression_tree_walker(node, may_write, context);
	}
}

static ConcordWhole
whole(Node *statement)
{
	if (!IsA(statement, SelectStmt))
		return CONCORD_WHOLE_WRITE;
	return may_write(statement, NULL) ? CONCORD_PART : CONCORD_WHOLE_READ;
}

/* The statement's own text without a trailing semicolon, so that it can be put into parentheses. */
static char *
own_text(const char *sql, const RawStmt *raw)
{
	return raw->stmt_len > 0 ? pnstrdup(sql + raw->stmt_location, raw->stmt_len) :
		pstrdup(sql + raw->stmt_location);
}

/* An error in the routed text is shown with its position there, not in the caller's statement. */
static void
point_into_text(void *sql)
{
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(sql);
	}
}

void
concord_statement_errors(ErrorContextCallback *callback, const char *sql)
{
	callback->callback = point_into_text;
	callback->arg = unconstify(char *, sql);
	callback->previous = error_context_stack;
	error_context_stack = callback;
}

static List *
parse(const char *sql)
{
	ErrorContextCallback callback;
	List	   *parsed;

	concord_statement_errors(&callback, sql);
	parsed = raw_parser(sql, RAW_PARSE_DEFAULT);
	error_context_stack = callback.previous;
	return parsed;
}

static void
examine(const char *sql, ConcordStatement *result)
{
	List	   *parsed = parse(sql);
	RawStmt    *raw;
	int			highest = 0;

	if (parsed == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the statement is empty")));
	if (list_length(parsed) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("cannot send more than one statement at a time to a node"),
				 errhint("Call the function once for each statement.")));
	raw = linitial_node(RawStmt, parsed);
	check_utility(raw->stmt);

	result->nparams = -1;
	result->whole = CONCORD_PART;
	result->json_sql = NULL;
	if (is_query(raw->stmt, &result->returns_rows))
	{
		(void) find_highest_parameter(raw->stmt, &highest);
		result->nparams = highest;
		result->whole = whole(raw->stmt);
	}
	if (result->returns_rows && IsA(raw->stmt, SelectStmt))
		result->json_sql = psprintf("SELECT pg_catalog.to_jsonb(q) FROM (%s\n) AS q",
									own_text(sql, raw));
	else if (result->returns_rows)
		result->json_sql = psprintf("WITH q AS (%s\n) SELECT pg_catalog.to_jsonb(q) FROM q",
									own_text(sql, raw));
}

/* The table for new entries. */
static HTAB *
young_table(void)
{
	HASHCTL		info = {.keysize = sizeof(uint64), .entrysize = sizeof(ConcordStatement)};

	if (checked[young] != NULL && hash_get_num_entries(checked[young]) < MAX_CACHED)
		return checked[young];
	if (checked[young] != NULL)
		young = 1 - young;
	if (generations[young] != NULL)
		MemoryContextReset(generations[young]);
	else
		generations[young] = AllocSetContextCreate(TopMemoryContext, "pg_concord statements",
												   ALLOCSET_DEFAULT_SIZES);
	info.hcxt = generations[young];
	checked[young] = NULL;
	checked[young] = hash_create("pg_concord statements", 128, &info,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return checked[young];
}

static ConcordStatement *
find(uint64 hash, const char *sql)
{
	for (int i = 0; i < 2; i++)
	{
		ConcordStatement *entry = checked[i] == NULL ? NULL :
			hash_search(checked[i], &hash, HASH_FIND, NULL);

		if (entry != NULL && strcmp(entry->sql, sql) == 0)
			return entry;
	}
	return NULL;
}

const ConcordStatement *
concord_statement_check(const char *sql)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) sql, (int) strlen(sql), 0);
	ConcordStatement *entry = find(hash, sql);
	ConcordStatement fresh = {.hash = hash};
	HTAB	   *table;
	bool		found;

	if (entry != NULL)
		return entry;

	examine(sql, &fresh);
	table = young_table();
	fresh.sql = MemoryContextStrdup(generations[young], sql);
	if (fresh.json_sql != NULL)
		fresh.json_sql = MemoryContextStrdup(generations[young], fresh.json_sql);
	/* another text of the same hash gives way */
	entry = hash_search(table, &hash, HASH_ENTER, &found);
	*entry = fresh;
	return entry;
}

void
concord_statement_writes(const ConcordStatement *statement)
{
	unconstify(ConcordStatement *, statement)->whole = CONCORD_PART;
}
