/*
 * route.c
 *		query, query_json, execute and their _on and _all forms.
 *
 * WHAT: checks the statement's text, finds the node, and runs it there: here through SPI
 * (local.c says why), elsewhere as part of this transaction's branch on the peer (src/peer).
 * On a standby even this node's own keys go to the primary, since "strong" reads the slot's
 * primary; functions that may write say 25006 there before contacting anyone.
 *
 * STALE MAPS: a peer that gave slots away after our map says PC001.  If nothing had been done
 * in its branch, we wait for the newer map, look the owner up again and repeat the statement, once.
 * Otherwise the error goes to the caller, whose transaction is to be repeated.
 *
 * A call that is all that its transaction does (whole.c) is sent so that it commits by itself.
 *
 * _all sends to every peer first, runs the local part while they work, then takes the answers.
 * If a peer then says that our map is stale, the local part is repeated with the rest, which is
 * harmless as long as it has written nothing; otherwise the error goes to the caller.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/errors.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "shard/shard.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(concord_query);
PG_FUNCTION_INFO_V1(concord_query_untyped);
PG_FUNCTION_INFO_V1(concord_query_json);
PG_FUNCTION_INFO_V1(concord_query_json_untyped);
PG_FUNCTION_INFO_V1(concord_execute);
PG_FUNCTION_INFO_V1(concord_execute_untyped);
PG_FUNCTION_INFO_V1(concord_query_on);
PG_FUNCTION_INFO_V1(concord_query_on_untyped);
PG_FUNCTION_INFO_V1(concord_execute_on);
PG_FUNCTION_INFO_V1(concord_execute_on_untyped);
PG_FUNCTION_INFO_V1(concord_query_all);
PG_FUNCTION_INFO_V1(concord_query_all_untyped);
PG_FUNCTION_INFO_V1(concord_execute_all);
PG_FUNCTION_INFO_V1(concord_execute_all_untyped);

void		(*concord_copy_hook) (const ConcordMap *map, const ConcordNode *node,
								  const ConcordCopyWish *wish, ConcordCopy *copy) = NULL;

void		(*concord_floor_hook) (const ConcordMap *map, ConcordTarget *target) = NULL;

/* One call of a routing function. */
typedef struct Call
{
	const ConcordStatement *statement;
	const char *sql;			/* what is run: statement->sql or ->json_sql */
	uint64		text_hash;
	ConcordParams params;
	int			slot;			/* by key; -1 = by name */
	const char *node;			/* by name */
	bool		whole;			/* it is all that the transaction does */
	ConcordRows *rows;			/* NULL: rows are not wanted */
	ConcordCopyWish wish;		/* of a call that may read a copy */
	ConcordHere here;			/* done in place of the statement where it is local; or NULL */
	void	   *here_arg;
} Call;

/* A node chosen for a call, copied out of the map, which may change meanwhile. */
typedef struct Destination
{
	bool		local;
	NameData	name;
	NameData	copy_name;		/* of a replica that is read in the node's place */
	char		cluster[40];
	ConcordTarget target;
} Destination;

/* ----------------------------------------------------------------- arguments */

static void
get_statement(FunctionCallInfo fcinfo, int argument, Call *call)
{
	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the statement must not be null")));
	call->statement = concord_statement_check(text_to_cstring(PG_GETARG_TEXT_PP(argument)));
	call->sql = call->statement->sql;
}

static void
get_params(FunctionCallInfo fcinfo, int first, bool untyped, Call *call)
{
	if (untyped)
		concord_params_from_array(fcinfo, first, &call->params);
	else
		concord_params_from_any(fcinfo, first, &call->params);
	if (call->statement->nparams >= 0 && call->statement->nparams != call->params.n)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_PARAMETER),
				 errmsg("wrong number of parameters"),
				 errdetail("Parameters in the statement: %d, given: %d.",
						   call->statement->nparams, call->params.n)));
}

static void
get_key(FunctionCallInfo fcinfo, Call *call)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 0);

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the key must not be null")));
	if (!OidIsValid(type))
		ereport(ERROR,
				(errcode(ERRCODE_INDETERMINATE_DATATYPE),
				 errmsg("could not determine the type of the key")));
	call->slot = concord_slot_of(PG_GETARG_DATUM(0), type, PG_GET_COLLATION());
	call->node = NULL;
}

static void
get_node(FunctionCallInfo fcinfo, Call *call)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the node must not be null")));
	call->slot = -1;
	call->node = NameStr(*PG_GETARG_NAME(0));
}

/* first: argument number of the statement's text; by: how the node is named */
static void
start_call(FunctionCallInfo fcinfo, Call *call, int first, bool untyped, bool by_key)
{
	concord_require_preload();
	memset(call, 0, sizeof(*call));
	get_statement(fcinfo, first, call);
	if (first == 1 && by_key)
		get_key(fcinfo, call);
	else if (first == 1)
		get_node(fcinfo, call);
	get_params(fcinfo, first + 1, untyped, call);
}

/* Functions that may write: on a standby nothing of this transaction can. */
static void
refuse_on_standby(const char *function)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s during recovery", function),
				 errhint("Connect to a primary, or use concord.query for reading.")));
}

/* The result of a set-returning call, with the caller's column definition list. */
static ConcordRows *
start_rows(FunctionCallInfo fcinfo, bool may_have_node, const char *const *nodes)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ConcordRows *rows = palloc0(sizeof(ConcordRows));

	if (rsinfo != NULL && IsA(rsinfo, ReturnSetInfo) && rsinfo->expectedDesc == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a column definition list is required"),
				 errhint("Write FROM concord.query(...) AS t(column type, ...), or use concord.query_json.")));
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	Assert(rsinfo != NULL);		/* it has refused that */
	concord_rows_init(rows, rsinfo->setResult, rsinfo->setDesc, may_have_node, nodes);
	return rows;
}

/* ----------------------------------------------------------------- one node */

static void
set_destination(Destination *destination, const ConcordMap *map, const ConcordNode *node)
{
	memset(destination, 0, sizeof(*destination));
	destination->local = node->node_id == map->self && !RecoveryInProgress();
	destination->name = node->name;
	if (!destination->local)
		strlcpy(destination->cluster,
				DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&map->cluster_id))),
				sizeof(destination->cluster));
	destination->target.node_id = node->node_id;
	destination->target.serverid = node->serverid;
	destination->target.name = NameStr(destination->name);
	destination->target.cluster = destination->cluster;
	destination->target.self = map->self;
	destination->target.epoch = map->epoch;
	if (!destination->local && concord_token[0] != '\0' && concord_floor_hook != NULL)
		concord_floor_hook(map, &destination->target);
}

/* A replica in the place of its node's primary. */
static void
set_copy(Destination *destination, const ConcordMap *map, const ConcordCopy *copy)
{
	const ConcordReplica *replica;

	destination->local = copy->here;
	if (copy->replica_id == 0)
		return;
	replica = concord_map_replica(map, copy->replica_id);
	destination->copy_name = replica->name;
	destination->target.name = NameStr(destination->copy_name);
	destination->target.replica_id = copy->replica_id;
	for (int i = 0; i < list_length(replica->options); i++)
		destination->target.address = lappend(unconstify(List *, destination->target.address),
											  pstrdup(list_nth(replica->options, i)));
	destination->target.floor = copy->floor;
	destination->target.make_floor = NULL;
	destination->target.floor_key = 0;
}

/* concord.consistency: a statement that only reads may be answered by a copy of the node. */
static void
choose_copy(const Call *call, Destination *destination, const ConcordMap *map,
			const ConcordNode *node)
{
	ConcordCopy copy;

	if (concord_consistency == CONCORD_STRONG || concord_copy_hook == NULL ||
		call->statement->whole != CONCORD_WHOLE_READ)
		return;
	concord_copy_hook(map, node, &call->wish, &copy);
	if (copy.here || copy.replica_id != 0)
		set_copy(destination, map, &copy);
}

static void
choose(const Call *call, Destination *destination)
{
	const ConcordMap *map;
	const ConcordNode *node;

	AcceptInvalidationMessages();
	map = concord_map_member();
	node = call->node != NULL ? concord_map_node_required(map, call->node) :
		concord_slot_owner(map, call->slot);
	set_destination(destination, map, node);
	choose_copy(call, destination, map, node);
}

/* A copy has refused: says what to try next. */
static void
exclude_copy(Call *call, const Destination *destination, ConcordFinish why)
{
	ConcordCopyWish *wish = &call->wish;

	concord_count(CONCORD_COUNT_READS_AGAIN);
	if (why == CONCORD_REFUSED_LATE && concord_on_timeout == CONCORD_ON_TIMEOUT_STALE)
	{
		concord_count(CONCORD_COUNT_TOKEN_STALE);
		wish->stale = true;
	}
	else if (why == CONCORD_REFUSED_LATE || wish->nexcluded == lengthof(wish->excluded))
		wish->primary_only = true;
	else
		wish->excluded[wish->nexcluded++] = destination->target.replica_id;
	if (call->rows != NULL)
		tuplestore_clear(call->rows->store);
}

/* What is not there yet is refused: no write below level bounded. */
static void
refuse_weak_write(const Call *call, bool reads)
{
	if (concord_consistency > CONCORD_EVENTUAL ||
		(reads && call->statement->whole != CONCORD_WHOLE_WRITE))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("writing at consistency level \"%s\" is not available yet",
					GetConfigOption("concord.consistency", false, false)),
			 errhint("Set concord.consistency to session or strong.")));
}

static void
prepare_query(const Call *call, const Destination *destination, ConcordRemoteQuery *query)
{
	memset(query, 0, sizeof(*query));
	query->sql = call->sql;
	query->wants_rows = call->rows != NULL;
	query->whole = call->whole ? call->statement->whole : CONCORD_PART;
	/* an error in the handling of rows must leave nothing behind */
	if (query->whole == CONCORD_WHOLE_WRITE && query->wants_rows)
		query->whole = CONCORD_PART;
	concord_params_encode(&call->params, &destination->target, query);
	query->hash = concord_query_hash(query->sql, query->nparams, query->types);
}

/* The peer had a newer map: wait until we have it too. */
static void
refresh_map(const Destination *destination)
{
	(void) concord_map_await(destination->target.epoch + 1, destination->target.node_id,
							 concord_connect_timeout_ms);
}

static void
throw_stale(const char *node)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONCORD_STALE_MAP),
			 errmsg("the cluster map changed during the statement"),
			 node != NULL ? errdetail("Node \"%s\" has a newer map.", node) : 0,
			 errhint("Repeat the transaction.")));
}

static int64
run_here(const Call *call)
{
	return call->here != NULL ? call->here(call->here_arg) :
		concord_local_run(call->sql, &call->params, call->rows, 0);
}

/* Runs the call on the one node it names; returns rows affected. */
static int64
run_on_one(Call *call)
{
	Destination destination;
	ConcordRemoteQuery query;
	ConcordSink sink;
	ConcordConn *conn;
	ConcordFinish finish;
	int64		affected;

	for (int stale = 0; stale < 2;)
	{
		choose(call, &destination);
		if (destination.local)
		{
			if ((affected = run_here(call)) >= 0)
				return affected;
			stale++;			/* the map has it already */
			continue;
		}

		prepare_query(call, &destination, &query);
		if (call->rows != NULL)
			sink = concord_rows_sink(call->rows);
		conn = concord_peer_start(&destination.target, &query,
								  call->rows != NULL ? &sink : NULL, 0);
		finish = concord_peer_finish(&conn, 1);
		switch (finish)
		{
			case CONCORD_FINISHED:
				return concord_peer_rows(conn);
			case CONCORD_REFUSED_STALE:
				refresh_map(&destination);
				stale++;
				break;
			case CONCORD_REFUSED_COPY:
			case CONCORD_REFUSED_LATE:
				exclude_copy(call, &destination, finish);
				continue;		/* the same call: it may still be the whole transaction */
			case CONCORD_REFUSED_WRITE:
				concord_statement_writes(call->statement);
				if (call->rows != NULL)
					tuplestore_clear(call->rows->store);
				break;
		}
		call->whole = false;
	}
	throw_stale(NameStr(destination.name));
	return 0;
}

int64
concord_route_to_slot(int slot, const char *sql, const ConcordParams *params, ConcordHere here,
					  void *arg)
{
	static const ConcordStatement ours = {.whole = CONCORD_PART};
	Call		call = {
		.statement = &ours, .sql = sql, .params = *params, .slot = slot,
		.wish.primary_only = true, .here = here, .here_arg = arg
	};

	return run_on_one(&call);
}

static Datum
query_one(FunctionCallInfo fcinfo, bool untyped, bool by_key)
{
	Call		call;

	start_call(fcinfo, &call, 1, untyped, by_key);
	refuse_weak_write(&call, true);
	call.rows = start_rows(fcinfo, false, NULL);
	call.whole = concord_call_is_whole(fcinfo);
	(void) run_on_one(&call);
	return (Datum) 0;
}

static Datum
execute_one(FunctionCallInfo fcinfo, bool untyped, bool by_key)
{
	Call		call;

	start_call(fcinfo, &call, 1, untyped, by_key);
	refuse_on_standby(by_key ? "concord.execute" : "concord.execute_on");
	refuse_weak_write(&call, false);
	call.wish.primary_only = true;
	call.whole = concord_call_is_whole(fcinfo);
	PG_RETURN_INT64(run_on_one(&call));
}

static Datum
query_json(FunctionCallInfo fcinfo, bool untyped)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TupleDesc	desc;
	Call		call;

	start_call(fcinfo, &call, 1, untyped, true);
	if (call.statement->json_sql == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the statement's result cannot be turned into JSON"),
				 errdetail("Only SELECT, VALUES, and statements with RETURNING can."),
				 errhint("Use concord.query with a column definition list, or concord.execute.")));
	refuse_weak_write(&call, true);
	call.sql = call.statement->json_sql;
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	desc = CreateTemplateTupleDesc(1);
	TupleDescInitEntry(desc, 1, "query_json", JSONBOID, -1, 0);
	call.rows = palloc0(sizeof(ConcordRows));
	concord_rows_init(call.rows, rsinfo->setResult, desc, false, NULL);
	call.whole = concord_call_is_whole(fcinfo);
	(void) run_on_one(&call);
	return (Datum) 0;
}

Datum
concord_query(PG_FUNCTION_ARGS)
{
	return query_one(fcinfo, false, true);
}

Datum
concord_query_untyped(PG_FUNCTION_ARGS)
{
	return query_one(fcinfo, true, true);
}

Datum
concord_query_json(PG_FUNCTION_ARGS)
{
	return query_json(fcinfo, false);
}

Datum
concord_query_json_untyped(PG_FUNCTION_ARGS)
{
	return query_json(fcinfo, true);
}

Datum
concord_execute(PG_FUNCTION_ARGS)
{
	return execute_one(fcinfo, false, true);
}

Datum
concord_execute_untyped(PG_FUNCTION_ARGS)
{
	return execute_one(fcinfo, true, true);
}

Datum
concord_query_on(PG_FUNCTION_ARGS)
{
	return query_one(fcinfo, false, false);
}

Datum
concord_query_on_untyped(PG_FUNCTION_ARGS)
{
	return query_one(fcinfo, true, false);
}

Datum
concord_execute_on(PG_FUNCTION_ARGS)
{
	return execute_one(fcinfo, false, false);
}

Datum
concord_execute_on_untyped(PG_FUNCTION_ARGS)
{
	return execute_one(fcinfo, true, false);
}

/* ----------------------------------------------------------------- all nodes */

/* All nodes of the map, ours included. */
static Destination *
choose_all(const Call *call, int *n)
{
	const ConcordMap *map;
	Destination *destinations;

	AcceptInvalidationMessages();
	map = concord_map_member();
	*n = map->nnodes;
	destinations = palloc0(Max(*n, 1) * sizeof(Destination));
	for (int i = 0; i < *n; i++)
	{
		set_destination(&destinations[i], map, &map->nodes[i]);
		choose_copy(call, &destinations[i], map, &map->nodes[i]);
	}
	return destinations;
}

typedef struct AllRun
{
	int			n;
	Destination *destinations;
	const char **names;
	int64	   *affected;
} AllRun;

/* The local part may have written, so it must not be run again. */
static void
throw_repeat(ConcordFinish why)
{
	if (why == CONCORD_REFUSED_STALE)
		throw_stale(NULL);
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("a replica could not answer a statement that has written on this node"),
			 errhint("Repeat the transaction.")));
}

/* One attempt; anything but DONE if it is to be made again, since nothing had been done. */
static ConcordFinish
run_on_all_once(Call *call, AllRun *run)
{
	ConcordRemoteQuery *queries = palloc(run->n * sizeof(ConcordRemoteQuery));
	ConcordConn **conns = palloc(run->n * sizeof(ConcordConn *));
	int		   *source = palloc(run->n * sizeof(int));
	int			remote = 0;
	ConcordSink sink;
	const ConcordSink *wanted = NULL;
	ConcordFinish finish;

	if (call->rows != NULL)
	{
		sink = concord_rows_sink(call->rows);
		wanted = &sink;
	}
	for (int i = 0; i < run->n; i++)
	{
		if (run->destinations[i].local)
			continue;
		prepare_query(call, &run->destinations[i], &queries[i]);
		source[remote] = i;
		conns[remote++] = concord_peer_start(&run->destinations[i].target, &queries[i], wanted, i);
	}
	concord_peer_sent(conns, remote);
	for (int i = 0; i < run->n; i++)
		if (run->destinations[i].local)
			run->affected[i] = concord_local_run(call->sql, &call->params, call->rows, i);
	finish = concord_peer_finish(conns, remote);
	if (finish != CONCORD_FINISHED && TransactionIdIsValid(GetTopTransactionIdIfAny()))
		throw_repeat(finish);
	if (finish == CONCORD_FINISHED)
		for (int i = 0; i < remote; i++)
			run->affected[source[i]] = concord_peer_rows(conns[i]);
	return finish;
}

static void
run_on_all(Call *call, AllRun *run)
{
	for (int stale = 0; stale < 2;)
	{
		ConcordFinish finish;

		run->destinations = choose_all(call, &run->n);
		run->names = palloc(run->n * sizeof(char *));
		run->affected = palloc0(run->n * sizeof(int64));
		for (int i = 0; i < run->n; i++)
			run->names[i] = NameStr(run->destinations[i].name);
		if (call->rows != NULL)
			call->rows->nodes = run->names;
		finish = run_on_all_once(call, run);
		if (finish == CONCORD_FINISHED)
			return;
		if (call->rows != NULL)
			tuplestore_clear(call->rows->store);
		if (finish == CONCORD_REFUSED_STALE)
		{
			refresh_map(&run->destinations[0]);
			stale++;
			continue;
		}
		/* whichever copy it was, the primaries are there */
		concord_count(CONCORD_COUNT_READS_AGAIN);
		call->wish.primary_only = finish != CONCORD_REFUSED_LATE ||
			concord_on_timeout != CONCORD_ON_TIMEOUT_STALE;
		call->wish.stale = true;
	}
	throw_stale(NULL);
}

static Datum
query_all(FunctionCallInfo fcinfo, bool untyped)
{
	Call		call;
	AllRun		run;

	start_call(fcinfo, &call, 0, untyped, false);
	refuse_weak_write(&call, true);
	/* what has written cannot be started over when a replica refuses */
	call.wish.primary_only = TransactionIdIsValid(GetTopTransactionIdIfAny());
	call.rows = start_rows(fcinfo, true, NULL);
	run_on_all(&call, &run);
	return (Datum) 0;
}

static Datum
execute_all(FunctionCallInfo fcinfo, bool untyped)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Call		call;
	AllRun		run;

	start_call(fcinfo, &call, 0, untyped, false);
	refuse_on_standby("concord.execute_all");
	refuse_weak_write(&call, false);
	call.wish.primary_only = true;
	InitMaterializedSRF(fcinfo, 0);
	run_on_all(&call, &run);
	for (int i = 0; i < run.n; i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false, false};

		values[0] = NameGetDatum(&run.destinations[i].name);
		values[1] = Int64GetDatum(run.affected[i]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
concord_query_all(PG_FUNCTION_ARGS)
{
	return query_all(fcinfo, false);
}

Datum
concord_query_all_untyped(PG_FUNCTION_ARGS)
{
	return query_all(fcinfo, true);
}

Datum
concord_execute_all(PG_FUNCTION_ARGS)
{
	return execute_all(fcinfo, false);
}

Datum
concord_execute_all_untyped(PG_FUNCTION_ARGS)
{
	return execute_all(fcinfo, true);
}
