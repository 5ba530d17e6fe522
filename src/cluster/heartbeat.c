/*
 * heartbeat.c
 *		What a node answers other nodes' workers.
 *
 * WHAT: _heartbeat(), _get_map() and _join_outcome(), called over connections of concord.node_role.
 *
 * PROMISE: an answer is this node's word: it is given only by an attached, writable member (or
 * joining) database that is the node the question was meant for.  "Node N is not in the cluster"
 * (42704) is said only from a map at least as new as the asking node's; only the authority's
 * counts as a removal.
 *
 * INVARIANTS
 * H1 The caller is concord.node_role or a superuser, checked here: EXECUTE is PUBLIC's.
 * H2 A newer epoch heard of is noted for the own worker, never acted on here.
 * H3 _join_outcome() says "aborted" only while holding the map's lock: no add_node can be under
 *    way that still might commit the nonce.  Nor while a newer map is known, which may hold it.
 *
 * What is left when something dies: nothing; all of these only read, and may be asked again.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "cluster/copies.h"
#include "cluster/room.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/pg_lsn.h"

PG_FUNCTION_INFO_V1(concord_heartbeat);
PG_FUNCTION_INFO_V1(concord_get_map);
PG_FUNCTION_INFO_V1(concord_join_outcome);

/* Is this the node that was meant?  55000 if not: the asking node's address for it is wrong. */
static const ConcordMap *
check_addressee(const pg_uuid_t *cluster, int to_node)
{
	const ConcordMap *map;

	AcceptInvalidationMessages();
	map = concord_map();
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("the server is a standby"),
				 errdetail("A node is asked at its primary.")));
	if ((map->membership != CONCORD_MEMBER && map->membership != CONCORD_JOINING) ||
		memcmp(&map->cluster_id, cluster, sizeof(pg_uuid_t)) != 0 || map->self != to_node)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is not node %d of cluster %s", to_node,
						concord_uuid_text(cluster)),
				 map->membership == CONCORD_NO_MEMBER ? errdetail("It belongs to no cluster.") :
				 errdetail("It is node %d of cluster %s (%s).", map->self,
						   concord_uuid_text(&map->cluster_id),
						   concord_membership_name(map->membership))));
	return map;
}

/* 42704 if this map says that the asking node is not (any more) what it believes to be. */
static void
check_sender(const ConcordMap *map, int from_node, int64 epoch, int generation)
{
	const ConcordNode *sender = concord_map_node(map, from_node);

	if (epoch > map->epoch)
		return;					/* it may know better */
	if (sender == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("node %d is not in the cluster", from_node),
				 errdetail("The map of node \"%s\" has epoch " INT64_FORMAT ".",
						   NameStr(map->self_name), map->epoch)));
	if (generation < sender->generation)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("node %d is not in the cluster", from_node),
				 errdetail("Its generation %d was replaced by generation %d.", generation,
						   sender->generation)));
}

Datum
concord_heartbeat(PG_FUNCTION_ARGS)
{
	const ConcordMap *map;
	int			from_node = PG_GETARG_INT32(1);
	int			protocol = PG_GETARG_INT32(3);
	int64		epoch = PG_GETARG_INT64(4);
	TimeLineID	timeline;
	XLogRecPtr	lsn;
	TupleDesc	desc;
	Datum		values[8];
	bool		nulls[8] = {false};

	concord_require_preload();
	concord_require_node_role();	/* H1 */
	map = check_addressee(PG_GETARG_UUID_P(0), PG_GETARG_INT32(2));
	if (protocol < Max(CONCORD_PROTOCOL - 1, 1) || protocol > CONCORD_PROTOCOL + 1)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("node %d speaks protocol %d, this node speaks %d", from_node, protocol,
						CONCORD_PROTOCOL)));
	check_sender(map, from_node, epoch, PG_GETARG_INT32(5));
	/* H2; "from itself" on the authority is: from a node its map does not hold */
	if (epoch > map->epoch)
		concord_map_want(epoch, concord_map_node(map, from_node) != NULL ? from_node :
						 map->authority);

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int32GetDatum(map->self);
	values[1] = Int64GetDatum(map->epoch);
	values[2] = CStringGetTextDatum(CONCORD_VERSION);
	values[3] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[4] = CStringGetTextDatum(psprintf("%016llx",
											 (unsigned long long) ConcordShared->incarnation));
	values[5] = Int32GetDatum(map->self_generation);
	lsn = concord_wal_end(&timeline);
	values[6] = Int32GetDatum((int32) timeline);
	values[7] = LSNGetDatum(lsn);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

Datum
concord_get_map(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	AcceptInvalidationMessages();
	concord_require_node_role();	/* H1 */
	(void) concord_map_member();
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(
		concord_owner_call("SELECT concord._map_json()", 0, NULL)));
}

Datum
concord_join_outcome(PG_FUNCTION_ARGS)
{
	const ConcordMap *map;
	const char *nonce;

	concord_require_writable("concord._join_outcome()");
	concord_require_node_role();	/* H1 */
	concord_arg_not_null(fcinfo, 0, "nonce");
	map = concord_map_member();
	if (!concord_is_authority(map) ||
		(!PG_ARGISNULL(1) &&
		 memcmp(&map->cluster_id, PG_GETARG_UUID_P(1), sizeof(pg_uuid_t)) != 0))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this node is not the authority of the cluster that is joined")));
	nonce = concord_uuid_text(PG_GETARG_UUID_P(0));
	/* H3 */
	if (concord_heard_newer(map, NULL).epoch > map->epoch)
		return CStringGetTextDatum("in progress");
	return CStringGetTextDatum(concord_owner_call("SELECT concord._outcome_of($1::uuid)", 1,
												  &nonce));
}
