/*
 * local.c
 *		A routed statement whose node is this one.
 *
 * WHAT: it runs through SPI in the caller's own transaction and process.  CHOICE: not over a
 * connection to ourselves.  A direct call costs no round trip and no second backend, sees what
 * the caller's transaction has written, and cannot deadlock with it; a loop-back connection
 * would be another transaction, blind to the caller's rows and blocked by its locks.  What
 * differs from a remote call: it runs as the calling role itself, not as the role of its user
 * mapping.
 *
 * Plans are kept per (statement, parameter types), two generations of MAX_PLANS each.
 * Parameters without a type are inferred here as the peer's parser would.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "lib/ilist.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "shard/shard.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#define MAX_PLANS 200

typedef struct LocalPlan
{
	uint64		hash;			/* key: statement and given types */
	dlist_node	lru;
	char	   *sql;
	int			nparams;
	Oid		   *given;			/* UNKNOWNOID where nothing was said */
	Oid		   *types;			/* as planned */
	SPIPlanPtr	plan;
	int			in_use;			/* running calls: not to be dropped */
} LocalPlan;

static MemoryContext local_context = NULL;
static HTAB *plans = NULL;
static dlist_head plan_lru = DLIST_STATIC_INIT(plan_lru);

static void
drop_plan(LocalPlan *entry)
{
	dlist_delete(&entry->lru);
	SPI_freeplan(entry->plan);
	pfree(entry->sql);
	pfree(entry->given);
	pfree(entry->types);
	hash_search(plans, &entry->hash, HASH_REMOVE, NULL);
}

/* The types the parser gives to parameters that came without one. */
static void
infer_types(const char *sql, int n, Oid *types)
{
	List	   *raw;
	Oid		   *inferred = palloc(Max(n, 1) * sizeof(Oid));
	int			ninferred = n;
	bool		unknown = false;
	ErrorContextCallback callback;

	for (int i = 0; i < n; i++)
	{
		inferred[i] = types[i] == UNKNOWNOID ? InvalidOid : types[i];
		unknown = unknown || types[i] == UNKNOWNOID;
	}
	if (!unknown)
		return;
	concord_statement_errors(&callback, sql);
	raw = raw_parser(sql, RAW_PARSE_DEFAULT);
	(void) parse_analyze_varparams(linitial_node(RawStmt, raw), sql, &inferred, &ninferred, NULL);
	error_context_stack = callback.previous;
	for (int i = 0; i < n; i++)
	{
		if (!OidIsValid(inferred[i]) || inferred[i] == UNKNOWNOID)
			ereport(ERROR,
					(errcode(ERRCODE_INDETERMINATE_DATATYPE),
					 errmsg("could not determine data type of parameter $%d", i + 1)));
		types[i] = inferred[i];
	}
}

static bool
same_plan(const LocalPlan *entry, const char *sql, const ConcordParams *params)
{
	return entry->nparams == params->n && strcmp(entry->sql, sql) == 0 &&
		memcmp(entry->given, params->types, params->n * sizeof(Oid)) == 0;
}

static LocalPlan *
find_plan(const char *sql, const ConcordParams *params)
{
	uint64		hash = concord_query_hash(sql, params->n, params->types);
	LocalPlan  *entry;

	if (plans == NULL)
		return NULL;
	entry = hash_search(plans, &hash, HASH_FIND, NULL);
	if (entry == NULL)
		return NULL;
	if (same_plan(entry, sql, params))
	{
		dlist_move_head(&plan_lru, &entry->lru);
		return entry;
	}
	if (entry->in_use == 0)
		drop_plan(entry);
	return NULL;
}

static void
make_room(void)
{
	dlist_iter	iter;

	if (plans == NULL)
	{
		HASHCTL		info = {.keysize = sizeof(uint64), .entrysize = sizeof(LocalPlan)};

		local_context = AllocSetContextCreate(TopMemoryContext, "pg_concord local plans",
											  ALLOCSET_DEFAULT_SIZES);
		info.hcxt = local_context;
		plans = hash_create("pg_concord local plans", 64, &info,
							HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	if (hash_get_num_entries(plans) < MAX_PLANS)
		return;
	dlist_reverse_foreach(iter, &plan_lru)
	{
		LocalPlan  *oldest = dlist_container(LocalPlan, lru, iter.cur);

		if (oldest->in_use == 0)
		{
			drop_plan(oldest);
			return;
		}
	}
}

/* Plans a statement and keeps the plan. Connected to SPI. */
static LocalPlan *
create_plan(const char *sql, const ConcordParams *params)
{
	Oid		   *types = palloc(Max(params->n, 1) * sizeof(Oid));
	SPIPlanPtr	plan;
	LocalPlan  *entry;
	uint64		hash = concord_query_hash(sql, params->n, params->types);
	size_t		size = Max(params->n, 1) * sizeof(Oid);

	memcpy(types, params->types, params->n * sizeof(Oid));
	infer_types(sql, params->n, types);
	plan = SPI_prepare(sql, params->n, types);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));

	make_room();
	entry = hash_search(plans, &hash, HASH_FIND, NULL);
	if (entry != NULL)
	{
		/* another statement of the same hash is running: do not keep this one */
		entry = palloc0(sizeof(LocalPlan));
		entry->types = types;
		entry->plan = plan;
		return entry;
	}
	entry = hash_search(plans, &hash, HASH_ENTER, NULL);
	entry->sql = MemoryContextStrdup(local_context, sql);
	entry->nparams = params->n;
	entry->given = memcpy(MemoryContextAlloc(local_context, size), params->types,
						  params->n * sizeof(Oid));
	entry->types = memcpy(MemoryContextAlloc(local_context, size), types, params->n * sizeof(Oid));
	entry->in_use = 0;
	entry->plan = plan;
	SPI_keepplan(plan);
	dlist_push_head(&plan_lru, &entry->lru);
	return entry;
}

static ParamListInfo
bind(const ConcordParams *params, const Oid *types)
{
	ParamListInfo list = params->n > 0 ? makeParamList(params->n) : NULL;

	for (int i = 0; i < params->n; i++)
	{
		ParamExternData *param = &list->params[i];

		param->ptype = types[i];
		param->pflags = PARAM_FLAG_CONST;
		param->isnull = params->nulls[i];
		param->value = params->values[i];
		if (params->types[i] == UNKNOWNOID)
		{
			ConcordTypeIO *io = concord_type_io(types[i]);

			param->value = InputFunctionCall(&io->input,
											 param->isnull ? NULL : DatumGetCString(param->value),
											 io->ioparam, -1);
		}
	}
	return list;
}

int64
concord_local_run(const char *sql, const ConcordParams *params, ConcordRows *rows, int source)
{
	SPIExecuteOptions options = {0};
	LocalPlan  *volatile entry;
	int			result;
	int64		processed;

	/* made in the caller's context: SPI_connect() brings its own */
	if (rows != NULL)
		options.dest = concord_rows_receiver(rows, source);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	entry = find_plan(sql, params);
	if (entry == NULL)
		entry = create_plan(sql, params);

	entry->in_use++;
	PG_TRY();
	{
		options.params = bind(params, entry->types);
		result = SPI_execute_plan_extended(entry->plan, &options);
	}
	PG_FINALLY();
	{
		entry->in_use--;
	}
	PG_END_TRY();

	if (result < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the statement cannot be run by a routing function"),
				 errdetail("%s", SPI_result_code_string(result))));
	processed = (int64) SPI_processed;
	if (options.dest != NULL)
		options.dest->rDestroy(options.dest);
	SPI_finish();
	if (rows != NULL && !rows->described)
		concord_rows_none(rows);
	return processed;
}
