/*
 * others.c
 *		Asking all other nodes: the same as the caller, with a row for each of how it went; and as
 *		concord.node_role, for views.
 *
 * WHAT: what map_user() and send_map() share: links to all other nodes as the caller's own
 * mappings, rounds of one statement to all that are still answering, and rows (node, status,
 * detail).
 *
 * PROMISE: no node delays another, and none more than concord.connect_timeout a round; a node's
 * failure is its row, not an error.
 */
#include "postgres.h"

#include "base/settings.h"
#include "cluster/room.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

struct ConcordAskedNodes
{
	int			n;				/* still answering */
	ConcordLink **links;
	char	  **names;
};

PG_FUNCTION_INFO_V1(concord_send_map);

void
concord_put_status(ReturnSetInfo *rsinfo, const char *node, bool ok, const char *detail)
{
	Datum		values[3];
	bool		nulls[3] = {false, false, detail == NULL};
	NameData	name;

	namestrcpy(&name, node);
	values[0] = NameGetDatum(&name);
	values[1] = CStringGetTextDatum(ok ? "ok" : "error");
	values[2] = detail != NULL ? CStringGetTextDatum(detail) : (Datum) 0;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

ConcordAskedNodes *
concord_ask_nodes(ReturnSetInfo *rsinfo, const ConcordMap *map)
{
	ConcordAskedNodes *nodes = palloc0(sizeof(ConcordAskedNodes));

	nodes->links = palloc0(map->nnodes * sizeof(ConcordLink *));
	nodes->names = palloc0(map->nnodes * sizeof(char *));
	for (int i = 0; i < map->nnodes; i++)
	{
		const ConcordNode *node = &map->nodes[i];
		char	   *name = pstrdup(NameStr(node->name));

		if (node->node_id == map->self)
			continue;
		if (!concord_has_mapping(node->serverid, GetUserId(), false))
		{
			concord_put_status(rsinfo, name, false,
							   psprintf("role \"%s\" has no user mapping for it",
										GetUserNameFromId(GetUserId(), false)));
			continue;
		}
		nodes->links[nodes->n] = concord_node_link(node, name, NIL, NULL);
		nodes->names[nodes->n++] = name;
	}
	return nodes;
}

static const char *
failure(const ConcordReply *reply)
{
	if (reply == NULL)
		return psprintf("It did not answer within %d ms.", concord_connect_timeout_ms);
	return reply->detail != NULL ? psprintf("%s: %s", reply->message, reply->detail) :
		reply->message;
}

void
concord_ask_more(ReturnSetInfo *rsinfo, ConcordAskedNodes *nodes, const char *sql, int nparams,
				 const char *const *params)
{
	ConcordReply **replies;
	int			kept = 0;

	replies = concord_ask_all(nodes->links, nodes->n, sql, nparams, params,
							  TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														  concord_connect_timeout_ms));
	for (int i = 0; i < nodes->n; i++)
	{
		if (replies[i] != NULL && replies[i]->ok)
		{
			nodes->links[kept] = nodes->links[i];
			nodes->names[kept++] = nodes->names[i];
			continue;
		}
		concord_put_status(rsinfo, nodes->names[i], false, failure(replies[i]));
		concord_link_close(nodes->links[i]);
	}
	nodes->n = kept;
}

void
concord_ask_done(ReturnSetInfo *rsinfo, ConcordAskedNodes *nodes)
{
	for (int i = 0; i < nodes->n; i++)
	{
		concord_put_status(rsinfo, nodes->names[i], true, NULL);
		concord_link_close(nodes->links[i]);
	}
	nodes->n = 0;
}

/*
 * send_map(): pushes what otherwise is pulled.  Only the caller's own rights on the other nodes
 * are used; they apply the map as if their worker had fetched it, and give up one of their own that
 * has the same epoch and is another.
 */
Datum
concord_send_map(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ConcordAskedNodes *nodes;
	const ConcordMap *map;
	const char *json;

	concord_require_writable("concord.send_map()");
	concord_require_superuser("concord.send_map()");
	InitMaterializedSRF(fcinfo, 0);
	(void) concord_map_member();
	if (concord_map_changed_here())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the map was changed by this transaction"),
				 errhint("Commit it first: what is sent cannot be rolled back.")));
	json = concord_owner_call("SELECT concord._map_json()", 0, NULL);
	map = concord_map_member();
	nodes = concord_ask_nodes(rsinfo, map);
	concord_ask_more(rsinfo, nodes, "SELECT concord._apply_map($1, true)", 1, &json);
	concord_ask_done(rsinfo, nodes);
	return (Datum) 0;
}

/* ---------------------------------------------------------------- cluster-wide views */

Datum
concord_counters_row(FunctionCallInfo fcinfo, const ConcordCounter *counters, int n)
{
	Datum	   *values = palloc(n * sizeof(Datum));
	bool	   *nulls = palloc0(n * sizeof(bool));
	TupleDesc	desc;

	concord_require_preload();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != n)
		elog(ERROR, "return type must be a row type");
	for (int i = 0; i < n; i++)
		values[i] = Int64GetDatum((int64) concord_counted(counters[i]));
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

Datum
concord_text_input(const char *text, Oid type)
{
	Oid			function;
	Oid			parameter;

	getTypeInputInfo(type, &function, &parameter);
	return OidInputFunctionCall(function, unconstify(char *, text), parameter, -1);
}

int
concord_view_links(const ConcordMap *map, int only, List *skip, ConcordLink ***links, char ***names,
		   int **ids)
{
	Oid			role = concord_node_role_oid(true);
	int			room = Max(map->nnodes, 1);
	Oid		   *servers = palloc(room * sizeof(Oid));
	int			n = 0;

	*links = palloc0(room * sizeof(ConcordLink *));
	*names = palloc0(room * sizeof(char *));
	*ids = palloc0(room * sizeof(int));
	for (int i = 0; i < map->nnodes; i++)
	{
		int			node_id = map->nodes[i].node_id;

		if ((only != 0 && node_id != only) || list_member_int(skip, node_id))
			continue;
		(*names)[n] = pstrdup(NameStr(map->nodes[i].name));
		(*ids)[n] = node_id;
		servers[n++] = map->nodes[i].serverid;
	}
	/* from here on the map is not looked at */
	for (int i = 0; i < n; i++)
		if (OidIsValid(role) && OidIsValid(servers[i]) &&
			concord_has_mapping(servers[i], role, true))
			(*links)[i] = concord_link_open((*names)[i],
											concord_server_options(servers[i], role, true));
	return n;
}

TimestampTz
concord_view_deadline(void)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), concord_view_timeout_ms);
}

ConcordReply **
concord_view_ask(ConcordLink **links, int n, const char *sql, int nparams,
				 const char *const *params, TimestampTz until)
{
	ConcordLink **open = palloc(Max(n, 1) * sizeof(ConcordLink *));
	ConcordReply **answers;
	ConcordReply **replies = palloc0(Max(n, 1) * sizeof(ConcordReply *));
	int			nopen = 0;

	for (int i = 0; i < n; i++)
		if (links[i] != NULL)
			open[nopen++] = links[i];
	answers = concord_ask_all(open, nopen, sql, nparams, params, until);
	nopen = 0;
	for (int i = 0; i < n; i++)
		if (links[i] != NULL)
		{
			replies[i] = answers[nopen++];
			concord_link_close(links[i]);
		}
	return replies;
}
