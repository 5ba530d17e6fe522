/*
 * init.c
 *		_PG_init() alone: the one list of settings, hooks, shared memory and workers.
 *
 * WHAT: with shared_preload_libraries everything is set up here, in the postmaster.  Loaded
 * later (CREATE EXTENSION on a server without the preload), only the settings are defined and
 * every function that needs more says so (concord_require_preload).
 */
#include "postgres.h"

#include "base/fault.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "cluster/map.h"
#include "commit/commit.h"
#include "commit/deadlock.h"
#include "fmgr.h"
#include "lock/lock.h"
#include "miscadmin.h"
#include "peer/peer.h"
#include "quorum/desk.h"
#include "session/session.h"
#include "shard/shard.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	concord_settings_init();
	concord_peer_init();
	concord_cluster_init();
	/* callbacks run last registered first: the token is made after the commit's end ... */
	concord_track_init();
	concord_commit_init();
	concord_deadlock_init();
	concord_shard_init();
	concord_fault_init();
	if (process_shared_preload_libraries_in_progress)
		concord_holder_init();
	/* ... and what a set_config() waits for is waited for before anything is prepared */
	if (process_shared_preload_libraries_in_progress)
		concord_session_init();

	if (!process_shared_preload_libraries_in_progress)
		return;

	concord_shmem_init();
	concord_desk_init();
	concord_holdings_init();
	if (!IsBinaryUpgrade)
		concord_worker_init();
}
