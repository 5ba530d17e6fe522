/*
 * params.c
 *		The parameters of a routed statement, as given and as sent.
 *
 * WHAT: a parameter travels with its type.  Built-in types have the same OID everywhere; a domain
 * travels as its base type; any other type is looked up on the peer by its qualified name.
 * What came without a type (an untyped driver's parameter, a literal) travels without one and
 * is inferred where it runs.
 *
 * Integers, floats, booleans, uuids and byte strings go in binary, text as it is, everything else
 * in text form, dates and times in ISO style (style.c); the peer's session has the caller's
 * DateStyle, IntervalStyle and TimeZone, so that what one writes the other reads.
 */
#include "postgres.h"

#include "access/transam.h"
#include "base/compat.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "port/pg_bswap.h"
#include "shard/shard.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/cash.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/uuid.h"

/* ------------------------------------------------------------- type I/O */

static HTAB *type_ios = NULL;

static void
forget_types(Datum arg, int cacheid, uint32 hashvalue)
{
	HASH_SEQ_STATUS status;
	ConcordTypeIO *entry;

	hash_seq_init(&status, type_ios);
	while ((entry = hash_seq_search(&status)) != NULL)
		if (entry->type >= FirstGenbkiObjectId)
			entry->valid = false;
}

/*
 * A type's input and output functions, looked up once per session (and after a change of a type).
 */
ConcordTypeIO *
concord_type_io(Oid type)
{
	ConcordTypeIO *entry;
	bool		found;
	Oid			input;
	Oid			output;
	bool		varlena;

	if (type_ios == NULL)
	{
		HASHCTL		info = {
			.keysize = sizeof(Oid), .entrysize = sizeof(ConcordTypeIO), .hcxt = CacheMemoryContext
		};

		type_ios = hash_create("pg_concord type functions", 32, &info,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		CacheRegisterSyscacheCallback(TYPEOID, forget_types, (Datum) 0);
	}
	entry = hash_search(type_ios, &type, HASH_FIND, NULL);
	if (entry != NULL && entry->valid)
		return entry;

	entry = hash_search(type_ios, &type, HASH_ENTER, &found);
	entry->valid = false;
	getTypeInputInfo(type, &input, &entry->ioparam);
	getTypeOutputInfo(type, &output, &varlena);
	fmgr_info_cxt(input, &entry->input, CacheMemoryContext);
	fmgr_info_cxt(output, &entry->output, CacheMemoryContext);
	entry->valid = true;
	return entry;
}

/* -------------------------------------------------------------- as given */

static void
allocate(ConcordParams *params, int n)
{
	params->n = n;
	params->values = palloc0(Max(n, 1) * sizeof(Datum));
	params->nulls = palloc0(Max(n, 1) * sizeof(bool));
	params->types = palloc0(Max(n, 1) * sizeof(Oid));
}

/* The elements of an array given with the VARIADIC keyword, or of a text[] parameter. */
static void
from_array(Datum datum, bool isnull, Oid element_type, ConcordParams *params)
{
	int16		length;
	bool		byval;
	char		align;

	if (isnull)
	{
		allocate(params, 0);
		return;
	}
	get_typlenbyvalalign(element_type, &length, &byval, &align);
	deconstruct_array(DatumGetArrayTypeP(datum), element_type, length, byval, align,
					  &params->values, &params->nulls, &params->n);
	params->types = palloc(Max(params->n, 1) * sizeof(Oid));
	for (int i = 0; i < params->n; i++)
		params->types[i] = element_type;
}

/* VARIADIC "any" from argument first on */
void
concord_params_from_any(FunctionCallInfo fcinfo, int first, ConcordParams *params)
{
	int			n = PG_NARGS() - first;

	if (n > 0 && get_fn_expr_variadic(fcinfo->flinfo))
	{
		Oid			array_type = get_fn_expr_argtype(fcinfo->flinfo, first);
		Oid			element_type = get_base_element_type(array_type);

		if (!OidIsValid(element_type))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("VARIADIC argument must be an array")));
		from_array(PG_GETARG_DATUM(first), PG_ARGISNULL(first), element_type, params);
		return;
	}
	allocate(params, Max(n, 0));
	for (int i = 0; i < params->n; i++)
	{
		Oid			type = get_fn_expr_argtype(fcinfo->flinfo, first + i);

		if (!OidIsValid(type))
			ereport(ERROR,
					(errcode(ERRCODE_INDETERMINATE_DATATYPE),
					 errmsg("could not determine the type of parameter $%d", i + 1)));
		params->types[i] = type < FirstGenbkiObjectId ? type : getBaseType(type);
		params->nulls[i] = PG_ARGISNULL(first + i);
		params->values[i] = params->nulls[i] ? (Datum) 0 : PG_GETARG_DATUM(first + i);
	}
}

/* text[]: values without a type */
void
concord_params_from_array(FunctionCallInfo fcinfo, int first, ConcordParams *params)
{
	from_array(PG_GETARG_DATUM(first), PG_ARGISNULL(first), TEXTOID, params);
	for (int i = 0; i < params->n; i++)
	{
		params->types[i] = UNKNOWNOID;
		if (!params->nulls[i])
			params->values[i] = CStringGetDatum(TextDatumGetCString(params->values[i]));
	}
}

/* --------------------------------------------------------------- as sent */

typedef struct Encoded
{
	const char **values;
	int		   *lengths;
	int		   *formats;
	uint64	   *buffer;			/* one word for each parameter */
} Encoded;

static void
encode_word(Encoded *out, int i, int length)
{
	out->values[i] = (const char *) &out->buffer[i];
	out->lengths[i] = length;
	out->formats[i] = 1;
}

/* The fixed-length types that go in binary; false for any other. */
static bool
encode_binary(Encoded *out, int i, Oid type, Datum value)
{
	switch (type)
	{
		case INT2OID:
			*(uint16 *) &out->buffer[i] = pg_hton16((uint16) DatumGetInt16(value));
			encode_word(out, i, 2);
			return true;
		case INT4OID:
			*(uint32 *) &out->buffer[i] = pg_hton32((uint32) DatumGetInt32(value));
			encode_word(out, i, 4);
			return true;
		case FLOAT4OID:
			{
				float4		f = DatumGetFloat4(value);
				uint32		bits;

				memcpy(&bits, &f, sizeof(bits));
				*(uint32 *) &out->buffer[i] = pg_hton32(bits);
				encode_word(out, i, 4);
				return true;
			}
		case FLOAT8OID:
			{
				float8		f = DatumGetFloat8(value);
				uint64		bits;

				memcpy(&bits, &f, sizeof(bits));
				out->buffer[i] = pg_hton64(bits);
				encode_word(out, i, 8);
				return true;
			}
		case INT8OID:
		case CASHOID:
			out->buffer[i] = pg_hton64((uint64) DatumGetInt64(value));
			encode_word(out, i, 8);
			return true;
		case BOOLOID:
			*(char *) &out->buffer[i] = DatumGetBool(value) ? 1 : 0;
			encode_word(out, i, 1);
			return true;
		case UUIDOID:
			out->values[i] = (const char *) DatumGetUUIDP(value)->data;
			out->lengths[i] = UUID_LEN;
			out->formats[i] = 1;
			return true;
		case BYTEAOID:
			{
				bytea	   *bytes = DatumGetByteaPP(value);

				out->values[i] = VARDATA_ANY(bytes);
				out->lengths[i] = (int) VARSIZE_ANY_EXHDR(bytes);
				out->formats[i] = 1;
				return true;
			}
		default:
			return false;
	}
}

static void
encode_one(Encoded *out, int i, Oid type, Datum value)
{
	if (encode_binary(out, i, type, value))
		return;
	if (type == UNKNOWNOID)
		out->values[i] = DatumGetCString(value);
	else if (type == TEXTOID || type == VARCHAROID)
		out->values[i] = TextDatumGetCString(value);
	else
		out->values[i] = concord_print(concord_type_io(type), value);
}

/* Fills in the query's parameters for a peer (types may have to be asked for there). */
void
concord_params_encode(const ConcordParams *params, const ConcordTarget *target,
					  ConcordRemoteQuery *query)
{
	int			n = params->n;
	Oid		   *types = palloc(Max(n, 1) * sizeof(Oid));
	Encoded		out;

	if (n > 65535)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("number of parameters must be between 0 and 65535")));
	out.values = palloc0(Max(n, 1) * sizeof(char *));
	out.lengths = palloc0(Max(n, 1) * sizeof(int));
	out.formats = palloc0(Max(n, 1) * sizeof(int));
	out.buffer = palloc(Max(n, 1) * sizeof(uint64));
	for (int i = 0; i < n; i++)
	{
		Oid			type = params->types[i];

		types[i] = type == UNKNOWNOID ? InvalidOid :
			type < FirstGenbkiObjectId ? type : concord_peer_type(target, type);
		if (!params->nulls[i])
			encode_one(&out, i, type, params->values[i]);
	}
	query->nparams = n;
	query->types = types;
	query->values = out.values;
	query->lengths = out.lengths;
	query->formats = out.formats;
}
