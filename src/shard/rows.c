/*
 * rows.c
 *		Rows from peers and from here, into what the caller declared.
 *
 * WHAT: checks that an answer fits the column definition list, converts, and keeps the rows in a
 * tuplestore, which spills to disk beyond work_mem: memory does not grow with the result.
 *
 * A column fits if its type is the declared one, or both are of text kind (text, varchar, char,
 * name, an untyped literal), or one of them is not built in (then the declared type's input
 * function decides: an enum of the peer has another OID than ours).  Anything else is 42804,
 * for a local answer as for a remote one, rather than a silent cast.
 *
 * All types arrive in text form; floats are printed so that they read back exactly
 * (extra_float_digits >= 1), dates and times in ISO style (style.c).
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "shard/shard.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

void
concord_rows_init(ConcordRows *rows, Tuplestorestate *store, TupleDesc desc,
				  bool may_have_node, const char *const *nodes)
{
	rows->store = store;
	rows->desc = desc;
	rows->nodes = nodes;
	rows->described = false;
	rows->node_column = may_have_node && desc->natts > 0 &&
		strcmp(NameStr(TupleDescAttr(desc, 0)->attname), "_node") == 0;
	if (rows->node_column && TupleDescAttr(desc, 0)->atttypid != NAMEOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"_node\" must have type name")));
	rows->row_context = AllocSetContextCreate(CurrentMemoryContext, "pg_concord row",
											  ALLOCSET_DEFAULT_SIZES);
	rows->values = palloc(Max(desc->natts, 1) * sizeof(Datum));
	rows->nulls = palloc(Max(desc->natts, 1) * sizeof(bool));
	rows->io = palloc0(Max(desc->natts, 1) * sizeof(ConcordTypeIO *));
}

static bool
is_text_kind(Oid type)
{
	return type == TEXTOID || type == VARCHAROID || type == BPCHAROID || type == NAMEOID ||
		type == UNKNOWNOID;
}

static bool
fits(Oid declared, Oid actual)
{
	return declared == actual || (is_text_kind(declared) && is_text_kind(actual)) ||
		declared >= FirstGenbkiObjectId || actual >= FirstGenbkiObjectId;
}

void
concord_rows_none(ConcordRows *rows)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("the statement does not return rows"),
			 errhint("Use concord.execute, or add RETURNING to the statement.")));
}

/* Does the answer have the declared columns?  Otherwise 42804. */
static void
check_columns(ConcordRows *rows, int ncols, const Oid *types, const char *const *names)
{
	int			first = rows->node_column ? 1 : 0;

	rows->described = true;
	if (ncols == 0 && rows->desc->natts > first)
		concord_rows_none(rows);
	if (ncols != rows->desc->natts - first)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the statement's result does not match the column definition list"),
				 errdetail("Columns returned: %d, declared: %d.",
						   ncols, rows->desc->natts - first)));
	for (int i = 0; i < ncols; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(rows->desc, i + first);

		if (!fits(attribute->atttypid, types[i]))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("the statement's result does not match the column definition list"),
					 errdetail("It returns type %s in column %d (\"%s\"), but %s is declared.",
							   format_type_be(types[i]), i + 1, names[i],
							   format_type_be(attribute->atttypid)),
					 errhint("Declare the column as the statement returns it, or cast it in the statement.")));
	}
}

static void
set_node(ConcordRows *rows, int source)
{
	Name		name;

	if (!rows->node_column)
		return;
	name = palloc(NAMEDATALEN);
	namestrcpy(name, rows->nodes[source]);
	rows->values[0] = NameGetDatum(name);
	rows->nulls[0] = false;
}

static Datum
from_text(ConcordRows *rows, int column, const char *text)
{
	Form_pg_attribute attribute = TupleDescAttr(rows->desc, column);

	if (rows->io[column] == NULL || !rows->io[column]->valid)
		rows->io[column] = concord_type_io(attribute->atttypid);
	/* the input function must not scribble on libpq's buffer: none does */
	return InputFunctionCall(&rows->io[column]->input, unconstify(char *, text),
							 rows->io[column]->ioparam, attribute->atttypmod);
}

static void
remote_describe(void *arg, int source, int ncols, const Oid *types, const char *const *names)
{
	check_columns(arg, ncols, types, names);
}

static void
remote_row(void *arg, int source, int ncols, char *const *values, const int *lengths)
{
	ConcordRows *rows = arg;
	int			first = rows->node_column ? 1 : 0;
	MemoryContext old = MemoryContextSwitchTo(rows->row_context);

	set_node(rows, source);
	for (int i = 0; i < ncols; i++)
	{
		/* a NULL goes through the input function too: a domain may refuse it */
		rows->nulls[i + first] = values[i] == NULL;
		rows->values[i + first] = from_text(rows, i + first, values[i]);
	}
	tuplestore_putvalues(rows->store, rows->desc, rows->values, rows->nulls);
	MemoryContextSwitchTo(old);
	MemoryContextReset(rows->row_context);
}

ConcordSink
concord_rows_sink(ConcordRows *rows)
{
	ConcordSink sink = {remote_describe, remote_row, rows};

	return sink;
}

/* -------------------------------------------------------------- local rows */

typedef struct LocalReceiver
{
	DestReceiver pub;
	ConcordRows *rows;
	int			source;
} LocalReceiver;

static void
local_startup(DestReceiver *self, int operation, TupleDesc desc)
{
	LocalReceiver *receiver = (LocalReceiver *) self;
	Oid		   *types = palloc(Max(desc->natts, 1) * sizeof(Oid));
	const char **names = palloc(Max(desc->natts, 1) * sizeof(char *));

	for (int i = 0; i < desc->natts; i++)
	{
		types[i] = TupleDescAttr(desc, i)->atttypid;
		names[i] = NameStr(TupleDescAttr(desc, i)->attname);
	}
	check_columns(receiver->rows, desc->natts, types, names);
	pfree(types);
	pfree(names);
}

static bool
local_row(TupleTableSlot *slot, DestReceiver *self)
{
	LocalReceiver *receiver = (LocalReceiver *) self;
	ConcordRows *rows = receiver->rows;
	int			first = rows->node_column ? 1 : 0;
	MemoryContext old = MemoryContextSwitchTo(rows->row_context);

	slot_getallattrs(slot);
	set_node(rows, receiver->source);
	for (int i = 0; i < slot->tts_tupleDescriptor->natts; i++)
	{
		Form_pg_attribute declared = TupleDescAttr(rows->desc, i + first);
		Form_pg_attribute actual = TupleDescAttr(slot->tts_tupleDescriptor, i);

		rows->nulls[i + first] = slot->tts_isnull[i];
		if (slot->tts_isnull[i])
			rows->values[i + first] = (Datum) 0;
		else if (declared->atttypid == actual->atttypid &&
				 (declared->atttypmod < 0 || declared->atttypmod == actual->atttypmod))
			rows->values[i + first] = slot->tts_values[i];
		else
			rows->values[i + first] =
				from_text(rows, i + first,
						  concord_print(concord_type_io(actual->atttypid),
										slot->tts_values[i]));
	}
	tuplestore_putvalues(rows->store, rows->desc, rows->values, rows->nulls);
	MemoryContextSwitchTo(old);
	MemoryContextReset(rows->row_context);
	return true;
}

static void
local_shutdown(DestReceiver *self)
{
}

static void
local_destroy(DestReceiver *self)
{
	pfree(self);
}

DestReceiver *
concord_rows_receiver(ConcordRows *rows, int source)
{
	LocalReceiver *receiver = palloc0(sizeof(LocalReceiver));

	receiver->pub.receiveSlot = local_row;
	receiver->pub.rStartup = local_startup;
	receiver->pub.rShutdown = local_shutdown;
	receiver->pub.rDestroy = local_destroy;
	receiver->pub.mydest = DestNone;
	receiver->rows = rows;
	receiver->source = source;
	return &receiver->pub;
}
