/*
 * visitors.c
 *		Other nodes' protocol sessions in a database that a command wants to itself.
 *
 * WHAT: every peer's worker has a session in our database, as concord.node_role, for its
 * heartbeats.  To DROP DATABASE and the like it is somebody connected, as our own worker is, so
 * it is ended as well; and as its owner connects again at once, new ones are refused while the
 * database is held.  A smart shutdown would wait for these sessions for ever: they are ended too.
 *
 * INVARIANTS
 * V1 Only sessions of concord.node_role are touched: each of their statements is a transaction of
 *    its own, and their owners repeat what was lost.  Where that role is a superuser, which only
 *    a hand-made configuration does, they may be an administrator's, and are left alone.
 * V2 A session that was let in before the hold is seen: it stands in the ProcArray with its role
 *    before it enters the database.
 */
#include "postgres.h"

#include <signal.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "catalog/pg_database.h"
/* its headers are not in the server's development package; Port is the same without them */
#undef ENABLE_GSS
#include "libpq/auth.h"
#include "libpq/libpq-be.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/relcache.h"
#include "worker/entry.h"
#include "worker/visitors.h"

static ClientAuthentication_hook_type previous_authentication_hook = NULL;

/* The role whose sessions are ours to end, or InvalidOid (V1). */
static Oid
visitors_role(void)
{
	Oid			role = get_role_oid(concord_node_role, true);

	return OidIsValid(role) && !superuser_arg(role) ? role : InvalidOid;
}

int
concord_visitors_end(Oid dboid)
{
	Oid			role = visitors_role();
	int			n = 0;

	if (!OidIsValid(role))
		return 0;
	for (uint32 i = 0; i < ProcGlobal->allProcCount; i++)
	{
		volatile PGPROC *proc = &ProcGlobal->allProcs[i];
		int			pid = proc->pid;

		if (pid == 0 || pid == MyProcPid || proc->roleId != role ||
			(proc->databaseId != dboid && proc->databaseId != InvalidOid))
			continue;
		/* what was read may be left over from a process that is gone */
		if (BackendPidGetProc(pid) != proc)
			continue;
		n++;
		if (proc->databaseId == dboid)
			kill(pid, SIGTERM);
	}
	return n;
}

/*
 * The OID of a database by name, or InvalidOid.  During authentication the caches that
 * get_database_oid() relies on may not be there yet.
 */
static Oid
database_oid(const char *name)
{
	Relation	relation = table_open(DatabaseRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			result = InvalidOid;

	ScanKeyInit(&key, Anum_pg_database_datname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(name));
	scan = systable_beginscan(relation, DatabaseNameIndexId, criticalSharedRelcachesBuilt, NULL,
							  1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		result = ((Form_pg_database) GETSTRUCT(tuple))->oid;
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return result;
}

/* Turns the protocol role away from databases that are held. */
static void
concord_worker_authentication(Port *port, int status)
{
	int			holders[CONCORD_MAX_DATABASES];
	ConcordEntryView view;
	Oid			dboid;

	if (previous_authentication_hook)
		previous_authentication_hook(port, status);
	if (status != STATUS_OK || ConcordShared == NULL || port->database_name == NULL ||
		strcmp(port->user_name, concord_node_role) != 0 || concord_entry_holders(holders) == 0)
		return;
	dboid = database_oid(port->database_name);
	if (!OidIsValid(dboid))
		return;
	concord_entry_view(dboid, &view);
	if (view.held_by != 0 && OidIsValid(visitors_role()))
		ereport(FATAL,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("database \"%s\" is not open to other nodes now", port->database_name),
				 errdetail("Process %d runs a command that needs it free of connections.",
						   view.held_by)));
}

void
concord_visitors_init(void)
{
	previous_authentication_hook = ClientAuthentication_hook;
	ClientAuthentication_hook = concord_worker_authentication;
}
