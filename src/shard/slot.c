/*
 * slot.c
 *		Keys to slots, slots to nodes.
 *
 * WHAT: concord.slot(key), concord.locate(key) and the view concord.slots.
 *
 * PROMISE: the slot of a value never changes, on any node, in any version.  The hash is
 * PostgreSQL's own extended hash with seed 0 (the one hash partitioning depends on, stable
 * across versions); what is fixed here is which bytes are hashed:
 *		int2, int4, int8	the value as int8, as hashint8extended: one key whatever the width
 *		text, varchar		the value it is the canonical form of (int8 or uuid), else its bytes
 *		uuid, bytea			the bytes
 *		bool				as the integers 0 and 1
 *		date, timestamptz	the internal integer
 * A golden table in the tests guards it.  Nodes must have one encoding and one byte order (the
 * doctor compares).
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/locktags.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "core/key.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "shard/shard.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define ROTATE(x, k) (((x) << (k)) | ((x) >> (32 - (k))))

/*
 * hashint8extended(value, 0), written out so that it is inlined: the final mix of Bob Jenkins's
 * lookup3, as PostgreSQL's hash_bytes_uint32_extended() has it.  The tests compare the two.
 */
static inline uint64
hash_integer(int64 value)
{
	uint32		low = (uint32) value;
	uint32		high = (uint32) ((uint64) value >> 32);
	uint32		a;
	uint32		b;
	uint32		c;

	low ^= value >= 0 ? high : ~high;
	a = b = c = 0x9e3779b9 + (uint32) sizeof(uint32) + 3923095;
	a += low;
	c ^= b;
	c -= ROTATE(b, 14);
	a ^= c;
	a -= ROTATE(c, 11);
	b ^= a;
	b -= ROTATE(a, 25);
	c ^= b;
	c -= ROTATE(b, 16);
	a ^= c;
	a -= ROTATE(c, 4);
	b ^= a;
	b -= ROTATE(a, 14);
	c ^= b;
	c -= ROTATE(b, 24);
	return ((uint64) b << 32) | c;
}

static inline uint64
hash_bytes_of(const void *bytes, size_t length)
{
	return hash_bytes_extended(bytes, (int) length, 0);
}

static uint64
hash_text(const char *bytes, size_t length)
{
	int64_t		integer;
	uint8_t		uuid[16];

	switch (concord_key_classify(bytes, length, &integer, uuid))
	{
		case CONCORD_KEY_INT8:
			return hash_integer(integer);
		case CONCORD_KEY_UUID:
			return hash_bytes_of(uuid, sizeof(uuid));
		default:
			return hash_bytes_of(bytes, length);
	}
}

static void
refuse_type(Oid type)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("type %s cannot be used as a key", format_type_be(type)),
			 errdetail("Its hash value may differ between nodes."),
			 errhint("Cast it to text, bigint or another key type: boolean, smallint, integer, bigint, text, varchar, uuid, bytea, date, timestamptz.")));
}

static void
check_collation(Oid collation)
{
	if (OidIsValid(collation) && !get_collation_isdeterministic(collation))
		ereport(ERROR,
				(errcode(ERRCODE_INDETERMINATE_COLLATION),
				 errmsg("a key cannot have the nondeterministic collation \"%s\"",
						get_collation_name(collation)),
				 errhint("Use COLLATE \"C\" for the key.")));
}

static uint64
hash_varlena(Datum key, bool is_text)
{
	struct varlena *value = PG_DETOAST_DATUM_PACKED(key);
	uint64		hash = is_text ? hash_text(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)) :
		hash_bytes_of(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));

	if ((Pointer) value != DatumGetPointer(key))
		pfree(value);
	return hash;
}

/* type is one of the key types, or UNKNOWNOID for a cstring */
static inline uint64
hash_key(Datum key, Oid type)
{
	switch (type)
	{
		case INT8OID:
			return hash_integer(DatumGetInt64(key));
		case INT4OID:
			return hash_integer(DatumGetInt32(key));
		case INT2OID:
			return hash_integer(DatumGetInt16(key));
		case BOOLOID:
			return hash_integer(DatumGetBool(key) ? 1 : 0);
		case DATEOID:
			return hash_integer(DatumGetDateADT(key));
		case TIMESTAMPTZOID:
			return hash_integer(DatumGetTimestampTz(key));
		case UUIDOID:
			return hash_bytes_of(DatumGetUUIDP(key)->data, UUID_LEN);
		case BYTEAOID:
			return hash_varlena(key, false);
		case UNKNOWNOID:
			return hash_text(DatumGetCString(key), strlen(DatumGetCString(key)));
		default:
			return hash_varlena(key, true);
	}
}

/* The key type behind a type (domains are looked through), or an error. */
static Oid
key_type(Oid type, Oid collation)
{
	Oid			base = getBaseType(type);

	switch (base)
	{
		case TEXTOID:
		case VARCHAROID:
			check_collation(collation);
			/* FALLTHROUGH */
		case INT8OID:
		case INT4OID:
		case INT2OID:
		case BOOLOID:
		case DATEOID:
		case TIMESTAMPTZOID:
		case UUIDOID:
		case BYTEAOID:
		case UNKNOWNOID:
			return base;
		default:
			refuse_type(type);
			return InvalidOid;
	}
}

int
concord_slot_of(Datum key, Oid type, Oid collation)
{
	return concord_hash_slot(hash_key(key, key_type(type, collation)));
}

const ConcordNode *
concord_slot_owner(const ConcordMap *map, int slot)
{
	const ConcordNode *node = concord_map_node(map, map->owner[slot]);

	if (node == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONCORD_SLOT_LOST),
				 errmsg("slot %d is lost", slot),
				 errdetail("Its node was removed from the cluster by force."),
				 errhint("Give the lost slots to another node with concord.assign_lost_slots.")));
	return node;
}

ConcordSlotHold
concord_slot_hold(int slot, bool wait)
{
	LOCKTAG		tag;
	const ConcordMap *map;

	concord_locktag(&tag, CONCORD_LOCKTAG_SLOT, slot);
	if (LockAcquire(&tag, ShareLock, false, !wait) == LOCKACQUIRE_NOT_AVAIL)
		return CONCORD_SLOT_BUSY;
	/* this lock, unlike a relation's, brings no news by itself */
	AcceptInvalidationMessages();
	map = concord_map_member();
	return map->owner[slot] == map->self ? CONCORD_SLOT_HELD : CONCORD_SLOT_MOVED;
}

void
concord_slot_release(int slot)
{
	LOCKTAG		tag;

	concord_locktag(&tag, CONCORD_LOCKTAG_SLOT, slot);
	(void) LockRelease(&tag, ShareLock, false);
}

/* ------------------------------------------------------------------ SQL */

PG_FUNCTION_INFO_V1(concord_slot);
PG_FUNCTION_INFO_V1(concord_slot_text);
PG_FUNCTION_INFO_V1(concord_locate);
PG_FUNCTION_INFO_V1(concord_slots);

/* The checked type of the first argument, looked up once per call site. */
static inline Oid
cached_key_type(FunctionCallInfo fcinfo)
{
	if (unlikely(fcinfo->flinfo->fn_extra == NULL))
	{
		Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 0);

		if (!OidIsValid(type))
			ereport(ERROR,
					(errcode(ERRCODE_INDETERMINATE_DATATYPE),
					 errmsg("could not determine the type of the key")));
		fcinfo->flinfo->fn_extra = (void *) (uintptr_t) key_type(type, PG_GET_COLLATION());
	}
	return (Oid) (uintptr_t) fcinfo->flinfo->fn_extra;
}

/* slot(key "any") and slot(key text) */
Datum
concord_slot(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(concord_hash_slot(hash_key(PG_GETARG_DATUM(0), cached_key_type(fcinfo))));
}

/* slot(key text), also where the call has no expression to read the type from */
Datum
concord_slot_text(PG_FUNCTION_ARGS)
{
	if (unlikely(fcinfo->flinfo->fn_extra == NULL))
		fcinfo->flinfo->fn_extra = (void *) (uintptr_t) key_type(TEXTOID, PG_GET_COLLATION());
	PG_RETURN_INT32(concord_hash_slot(hash_varlena(PG_GETARG_DATUM(0), true)));
}

/* locate(key) */
Datum
concord_locate(PG_FUNCTION_ARGS)
{
	int			slot = concord_hash_slot(hash_key(PG_GETARG_DATUM(0), cached_key_type(fcinfo)));
	Name		result = palloc(NAMEDATALEN);

	AcceptInvalidationMessages();
	namestrcpy(result, NameStr(concord_slot_owner(concord_map_member(), slot)->name));
	PG_RETURN_NAME(result);
}

/* _slots(): all slots with their node, NULL when lost; empty outside a cluster. */
Datum
concord_slots(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const ConcordMap *map;

	InitMaterializedSRF(fcinfo, 0);
	AcceptInvalidationMessages();
	map = concord_map();
	if (map->epoch == 0)
		return (Datum) 0;
	for (int slot = 0; slot < CONCORD_SLOTS; slot++)
	{
		const ConcordNode *node = concord_map_node(map, map->owner[slot]);
		Datum		values[2];
		bool		nulls[2] = {false, node == NULL};

		values[0] = Int32GetDatum(slot);
		values[1] = node != NULL ? NameGetDatum(&node->name) : (Datum) 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
