/*
 * registrar.c
 *		The registrar of one member database: its process and its loop.
 *
 * WHAT: takes what sessions put on its desk, runs the operations on registers
 * (quorum/proposals.c), changes the set of acceptors where this node is the authority
 * (quorum/membership.c), and looks after what is left over (quorum/leftovers.c).
 *
 * INVARIANTS
 * T1 Nothing is waited for but the latch and the acceptors' connections, all at once.
 * T2 An ERROR ends the process: what it was at is unknown to the sessions that wait (desk.h, E4),
 *	  and the worker starts another one.
 * T3 It is the bootstrap superuser and runs only this extension's code, with settings of its own.
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/settings.h"
#include "lock/clerk.h"
#include "miscadmin.h"
#include "peer/peer.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "quorum/desk.h"
#include "quorum/leftovers.h"
#include "quorum/membership.h"
#include "quorum/proposals.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "worker/duty.h"
#include "worker/worker.h"

#define SYNC_INTERVAL_MS 1000

static void
registrar_exit(int code, Datum arg)
{
	(void) code;
	(void) arg;
	concord_desk_close();
}

static int64
turn(int64 *sync_at)
{
	int64		now = concord_quorum_ms();
	int64		next;
	int64		wish;

	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	if (now >= *sync_at)
	{
		*sync_at = now + SYNC_INTERVAL_MS;
		if (!concord_quorum_sync())
			proc_exit(0);		/* not a member any more; the worker knows what to do */
	}
	concord_desk_serve();
	wish = concord_clerk_turn();
	next = Min(wish, *sync_at);
	wish = concord_quorum_turn();
	next = Min(next, wish);
	/* these two go on from what an answer has brought, and come back at once if they ask more */
	wish = concord_membership_turn();
	next = Min(next, wish);
	wish = concord_leftovers_turn();
	return Min(next, wish);
}

void
concord_registrar_main(Datum arg)
{
	int64		sync_at = 0;
	MemoryContext context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	concord_pin_settings();
	pgstat_report_activity(STATE_IDLE, NULL);
	if (!concord_desk_open())
		proc_exit(0);
	before_shmem_exit(registrar_exit, (Datum) 0);

	context = AllocSetContextCreate(TopMemoryContext, "concord registrar", ALLOCSET_DEFAULT_SIZES);
	concord_quorum_begin(context);
	concord_clerk_begin(context);
	for (;;)
		concord_quorum_wait(turn(&sync_at));
}
