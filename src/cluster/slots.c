/*
 * slots.c
 *		Which node owns which slot: planning it, changing it in the map.
 *
 * WHAT: concord.rebalance(), rebalance_plan(), move_slot(), assign_lost_slots().
 * The plan itself is core's (placement.c); here it is read from the map and stored as the next
 * epoch.
 *
 * PROMISE: as authority.c.  One call is one epoch, whatever number of slots it moves; a call that
 * moves nothing makes none.
 *
 * A crash leaves the old owners or the new ones.
 */
#include "postgres.h"

#include "base/errors.h"
#include "base/shmem.h"
#include "cluster/room.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"

PG_FUNCTION_INFO_V1(concord_rebalance_plan);
PG_FUNCTION_INFO_V1(concord_rebalance);
PG_FUNCTION_INFO_V1(concord_move_slot);
PG_FUNCTION_INFO_V1(concord_assign_lost_slots);
PG_FUNCTION_INFO_V1(concord_loses_slot);

/* Plans target owners; returns the number of slots that would move, 55000 when there is no plan. */
static int
plan(const ConcordMap *map, int16 target[CONCORD_SLOTS])
{
	ConcordPlaceNode *nodes = palloc0(map->nnodes * sizeof(ConcordPlaceNode));
	int			moved;

	for (int i = 0; i < map->nnodes; i++)
	{
		nodes[i].node_id = map->nodes[i].node_id;
		nodes[i].weight = map->nodes[i].weight;
	}
	moved = concord_place_plan(nodes, map->nnodes, map->owner, target);
	if (moved < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no node has a positive weight"),
				 errhint("Give one with concord.set_node.")));
	pfree(nodes);
	return moved;
}

Datum
concord_rebalance_plan(PG_FUNCTION_ARGS)
{
	const ConcordMap *map;
	int16		target[CONCORD_SLOTS];
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	AcceptInvalidationMessages();
	map = concord_map_member();
	(void) plan(map, target);
	for (int slot = 0; slot < CONCORD_SLOTS; slot++)
	{
		Datum		values[3];
		bool		nulls[3] = {false};
		NameData	names[2];
		const ConcordNode *node;

		if (target[slot] == map->owner[slot])
			continue;
		values[0] = Int32GetDatum(slot);
		node = concord_map_node(map, map->owner[slot]);
		nulls[1] = node == NULL;
		if (node != NULL)
			names[0] = node->name;
		node = concord_map_node(map, target[slot]);
		nulls[2] = node == NULL;
		if (node != NULL)
			names[1] = node->name;
		values[1] = NameGetDatum(&names[0]);
		values[2] = NameGetDatum(&names[1]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
concord_rebalance(PG_FUNCTION_ARGS)
{
	const char *what = "concord.rebalance()";
	const ConcordMap *map;
	const char *params[1];
	int16		target[CONCORD_SLOTS];
	int			moved;

	concord_require_writable(what);
	concord_arg_not_null(fcinfo, 0, "wait");
	params[0] = PG_GETARG_BOOL(0) ? "true" : "false";
	map = concord_map_member();
	if (!concord_is_authority(map))
		PG_RETURN_INT32(atoi(concord_forward(map, what, "SELECT concord.rebalance($1)", 1, params,
											 true)));
	moved = plan(concord_lock_map(), target);
	if (moved > 0)
		concord_store_owners(target);
	PG_RETURN_INT32(moved);
}

static bool
move_slot_here(int slot, const char *name)
{
	const ConcordMap *map = concord_lock_map();
	const ConcordNode *node = concord_map_node_required(map, name);
	int16		owner[CONCORD_SLOTS];

	if (map->owner[slot] == CONCORD_SLOT_LOST)
		ereport(ERROR,
				(errcode(ERRCODE_CONCORD_SLOT_LOST),
				 errmsg("slot %d is lost", slot),
				 errdetail("Its owner was removed by force."),
				 errhint("Call concord.assign_lost_slots.")));
	if (map->owner[slot] == node->node_id)
		return false;
	memcpy(owner, map->owner, sizeof(owner));
	owner[slot] = (int16) node->node_id;
	concord_store_owners(owner);
	return true;
}

Datum
concord_move_slot(PG_FUNCTION_ARGS)
{
	const char *what = "concord.move_slot()";
	const ConcordMap *map;
	const char *params[2];
	int			slot;

	concord_require_writable(what);
	concord_arg_not_null(fcinfo, 0, "slot");
	slot = PG_GETARG_INT32(0);
	params[1] = concord_arg_name(fcinfo, 1, "node_name");
	if (slot < 0 || slot >= CONCORD_SLOTS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("slot %d does not exist", slot),
				 errdetail("Slots are 0 to %d.", CONCORD_SLOTS - 1)));
	map = concord_map_member();
	if (concord_is_authority(map))
		PG_RETURN_BOOL(move_slot_here(slot, params[1]));
	params[0] = psprintf("%d", slot);
	PG_RETURN_BOOL(strcmp(concord_forward(map, what, "SELECT concord.move_slot($1, $2)", 2, params,
										  true), "t") == 0);
}

static int
assign_lost_here(const char *name)
{
	const ConcordMap *map = concord_lock_map();
	const ConcordNode *node = concord_map_node_required(map, name);
	int16		owner[CONCORD_SLOTS];
	int			assigned = 0;

	memcpy(owner, map->owner, sizeof(owner));
	for (int slot = 0; slot < CONCORD_SLOTS; slot++)
		if (owner[slot] == CONCORD_SLOT_LOST)
		{
			owner[slot] = (int16) node->node_id;
			assigned++;
		}
	if (assigned > 0)
		concord_store_owners(owner);
	return assigned;
}

Datum
concord_assign_lost_slots(PG_FUNCTION_ARGS)
{
	const char *what = "concord.assign_lost_slots()";
	const ConcordMap *map;
	const char *name;

	concord_require_writable(what);
	name = concord_arg_name(fcinfo, 0, "node_name");
	map = concord_map_member();
	if (concord_is_authority(map))
		PG_RETURN_INT32(assign_lost_here(name));
	PG_RETURN_INT32(atoi(concord_forward(map, what, "SELECT concord.assign_lost_slots($1)", 1,
										 &name, true)));
}

/*
 * _loses_slot(before, after, node_id): does the node own a slot before that it does not own after?
 */
Datum
concord_loses_slot(PG_FUNCTION_ARGS)
{
	bytea	   *before = PG_GETARG_BYTEA_PP(0);
	bytea	   *after = PG_GETARG_BYTEA_PP(1);
	const uint8 *b = (const uint8 *) VARDATA_ANY(before);
	const uint8 *a = (const uint8 *) VARDATA_ANY(after);
	int			node_id = PG_GETARG_INT32(2);

	if (VARSIZE_ANY_EXHDR(before) != CONCORD_SLOTS * 2 ||
		VARSIZE_ANY_EXHDR(after) != CONCORD_SLOTS * 2)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a slot map has %d bytes", CONCORD_SLOTS * 2)));
	for (int i = 0; i < CONCORD_SLOTS * 2; i += 2)
		if (((b[i] << 8) | b[i + 1]) == node_id && ((a[i] << 8) | a[i + 1]) != node_id)
			PG_RETURN_BOOL(true);
	PG_RETURN_BOOL(false);
}
