/*
 * names.c
 *		Names and modes of locks, as arguments.
 *
 * WHAT: a name is any text, compared byte by byte.  It is a key like any other:
 * concord.locate(name) is the node of the lock, and a name that equals a row's key lies where the
 * row does.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "cluster/room.h"
#include "common/hashfn.h"
#include "lock/lock.h"
#include "quorum/quorum.h"
#include "shard/shard.h"
#include "utils/builtins.h"

text *
concord_lock_name(FunctionCallInfo fcinfo, int i)
{
	text	   *name;
	int			length;

	concord_arg_not_null(fcinfo, i, "name");
	name = PG_GETARG_TEXT_PP(i);
	length = (int) VARSIZE_ANY_EXHDR(name);
	if (length == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the name of a lock must not be empty")));
	if (length > CONCORD_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the name of a lock is too long"),
				 errdetail("It has %d bytes, at most %d are allowed.", length,
						   CONCORD_NAME_MAX)));
	return name;
}

uint64
concord_lock_hash(const text *name)
{
	return hash_bytes_extended((const unsigned char *) VARDATA_ANY(name),
							   (int) VARSIZE_ANY_EXHDR(name), 0);
}

int
concord_lock_slot(text *name)
{
	return concord_slot_of(PointerGetDatum(name), TEXTOID, InvalidOid);
}

bool
concord_lock_shared(FunctionCallInfo fcinfo, int i)
{
	char	   *mode = concord_arg_text(fcinfo, i, "mode");

	if (strcmp(mode, "shared") == 0)
		return true;
	if (strcmp(mode, "exclusive") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown lock mode \"%s\"", mode),
				 errhint("The modes are \"exclusive\" and \"shared\".")));
	return false;
}
