/*
 * registers.c
 *		register_get, register_set, register_delete: a replicated, linearizable variable by name.
 *
 * PROMISE: each call takes effect on a majority of the acceptors at one moment between its
 * beginning and its end, or not at all; if it cannot be known which, the error says so (08007).
 * It is no part of the caller's transaction: a rollback does not undo it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/errors.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "cluster/room.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "quorum/desk.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/inval.h"

PG_FUNCTION_INFO_V1(concord_register_get);
PG_FUNCTION_INFO_V1(concord_register_set);
PG_FUNCTION_INFO_V1(concord_register_delete);

static char *
register_name(FunctionCallInfo fcinfo, size_t *len)
{
	char	   *name = concord_arg_text(fcinfo, 0, "name");

	concord_check_quorum_name("register", name);
	*len = strlen(name) + strlen(CONCORD_PREFIX_REGISTER);
	return psprintf(CONCORD_PREFIX_REGISTER "%s", name);
}

void
concord_check_quorum_name(const char *kind, const char *name)
{
	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the name of a %s must not be empty", kind)));
	if (strlen(name) > CONCORD_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the name of a %s is too long", kind),
				 errdetail("It has %zu bytes, at most %d are allowed.", strlen(name),
						   CONCORD_NAME_MAX),
				 errhint("A hash of a longer text can serve as its name.")));
}

/* Errors of those that have not succeeded. */
static void
check_answer(const char *name, const ConcordDeskAnswer *answer)
{
	static const char unanswered[] =
		"No majority of the acceptors answered in time, or others changed it since.";
	static const char unknowing[] =
		"The registrar of this database ended, or does not answer.";

	if (answer->result == CONCORD_RESULT_FAILED && !answer->no_majority)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the registrar of this database does not answer"),
				 errdetail("Nothing was changed."),
				 errhint("concord.check_cluster() tells why.")));
	if (answer->result == CONCORD_RESULT_FAILED)
		ereport(ERROR,
				(errcode(ERRCODE_CONCORD_NO_MAJORITY),
				 errmsg("no majority of the acceptors answered for register \"%s\"", name),
				 errdetail("Nothing was changed."),
				 errhint("concord.acceptors tells which nodes they are.")));
	if (answer->result == CONCORD_RESULT_UNKNOWN)
		ereport(ERROR,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("it is not known whether register \"%s\" was changed", name),
				 errdetail("%s", answer->no_majority ? unanswered : unknowing),
				 errhint("Read it with concord.register_get().")));
}

/* (value, version) of what there is; a register that does not exist has NULL and 0 */
static Datum
make_row(FunctionCallInfo fcinfo, const ConcordValue *value)
{
	TupleDesc	desc;
	Datum		values[2] = {(Datum) 0, Int64GetDatum(0)};
	bool		nulls[2] = {true, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (value->kind == CONCORD_VALUE_SET)
	{
		nulls[0] = false;
		values[0] = PointerGetDatum(cstring_to_text_with_len(value->len > 0 ? value->data : "",
															 (int) value->len));
		values[1] = Int64GetDatum(value->version);
	}
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

Datum
concord_register_get(PG_FUNCTION_ARGS)
{
	size_t		len;
	char	   *name = register_name(fcinfo, &len);
	ConcordDeskRequest request = {
		.op = CONCORD_READ,
		.name = name,
		.name_len = len,
		.timeout_ms = concord_register_timeout_ms
	};
	ConcordDeskAnswer answer;

	AcceptInvalidationMessages();
	concord_require_preload();
	PreventCommandDuringRecovery("concord.register_get()");
	(void) concord_map_member();
	concord_count(CONCORD_COUNT_REGISTER_READS);
	concord_desk_ask(&request, &answer);
	check_answer(name + strlen(CONCORD_PREFIX_REGISTER), &answer);
	PG_RETURN_DATUM(make_row(fcinfo, &answer.value));
}

pg_noreturn static void
mismatch(const char *name, int64 expected, const ConcordValue *value)
{
	bool		exists = value->kind == CONCORD_VALUE_SET;

	ereport(ERROR,
			(errcode(ERRCODE_CONCORD_VERSION_MISMATCH),
			 errmsg("register \"%s\" is not at version %lld", name, (long long) expected),
			 exists ? errdetail("It is at version %lld.", (long long) value->version) :
			 errdetail("It does not exist."),
			 errhint("Read it again, and decide anew.")));
}

static int64
change(FunctionCallInfo fcinfo, const char *what, ConcordOperation op, const void *data,
	   uint32 data_len, int64 expected)
{
	size_t		len;
	char	   *name = register_name(fcinfo, &len);
	ConcordDeskRequest request = {
		.op = op,
		.name = name,
		.name_len = len,
		.expected = expected,
		.data = data,
		.len = data_len,
		.timeout_ms = concord_register_timeout_ms
	};
	ConcordDeskAnswer answer;

	name += strlen(CONCORD_PREFIX_REGISTER);
	concord_require_writable(what);
	(void) concord_map_member();
	concord_desk_ask(&request, &answer);
	check_answer(name, &answer);
	if (answer.result == CONCORD_RESULT_MISMATCH)
		mismatch(name, expected, &answer.value);
	concord_count(CONCORD_COUNT_REGISTER_CHANGES);
	return answer.value.version;
}

Datum
concord_register_set(PG_FUNCTION_ARGS)
{
	text	   *value;
	int64		expected;

	concord_arg_not_null(fcinfo, 1, "value");
	concord_arg_not_null(fcinfo, 2, "expected_version");
	value = PG_GETARG_TEXT_PP(1);
	expected = PG_GETARG_INT64(2);
	if (expected < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("expected_version must not be negative"),
				 errhint("0 expects that the register does not exist.")));
	if (VARSIZE_ANY_EXHDR(value) > CONCORD_VALUE_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the value of a register is too long"),
				 errdetail("It has %zu bytes, at most %d are allowed.",
						   (size_t) VARSIZE_ANY_EXHDR(value), CONCORD_VALUE_MAX),
				 errhint("Keep it in a table, and its key in the register.")));
	PG_RETURN_INT64(change(fcinfo, "concord.register_set()", CONCORD_WRITE, VARDATA_ANY(value),
						   (uint32) VARSIZE_ANY_EXHDR(value), expected));
}

Datum
concord_register_delete(PG_FUNCTION_ARGS)
{
	int64		expected;

	concord_arg_not_null(fcinfo, 1, "expected_version");
	expected = PG_GETARG_INT64(1);
	if (expected <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("expected_version must be positive")));
	(void) change(fcinfo, "concord.register_delete()", CONCORD_DELETE, NULL, 0, expected);
	PG_RETURN_VOID();
}
