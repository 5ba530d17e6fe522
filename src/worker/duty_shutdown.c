/*
 * duty_shutdown.c
 *		Lets a smart shutdown end.
 *
 * WHAT: a smart shutdown waits until all clients have gone, and the other nodes' protocol
 * sessions, which are clients here, never go.  Background workers are not told of it; but the
 * postmaster writes it into postmaster.pid, so that file is read, and then those sessions are
 * ended.  Users' sessions are waited for, as the administrator wished.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/pidfile.h"
#include "worker/duty.h"
#include "worker/visitors.h"

#define PID_FILE "postmaster.pid"

static bool
postmaster_is_stopping(void)
{
	char		line[MAXPGPATH];
	FILE	   *file = AllocateFile(PID_FILE, "r");
	bool		stopping = false;

	if (file == NULL)
		return false;
	for (int i = 1; fgets(line, sizeof(line), file) != NULL; i++)
		if (i == LOCK_FILE_LINE_PM_STATUS)
			stopping = strncmp(line, PM_STATUS_STOPPING, strlen(PM_STATUS_STOPPING)) == 0;
	FreeFile(file);
	return stopping;
}

void
concord_duty_shutdown(void *unused)
{
	(void) unused;
	if (!postmaster_is_stopping())
		return;
	concord_work_begin("ending other nodes' sessions");
	(void) concord_visitors_end(MyDatabaseId);
	concord_work_commit();
}
