/*
 * duty_shutdown.c
 *		Lets a smart shutdown end.
 *
 * WHAT: a smart shutdown waits until all clients have gone, and the other nodes' protocol
 * sessions, which are clients here, never go.  Background workers are not told of it; so
 * postmaster.pid is read (base/stopping.h), and then those sessions are ended.  Users' sessions are
 * waited for, as the administrator wished.  On a standby, where no worker is, those sessions end
 * themselves (_copy_heartbeat()).
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/stopping.h"
#include "miscadmin.h"
#include "worker/duty.h"
#include "worker/visitors.h"

void
concord_duty_shutdown(void *unused)
{
	(void) unused;
	if (!concord_postmaster_is_stopping())
		return;
	concord_work_begin("ending other nodes' sessions");
	(void) concord_visitors_end(MyDatabaseId);
	concord_work_commit();
}
