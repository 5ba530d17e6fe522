/*
 * fault.c
 *		Named points at which a test can make this process fail.
 *
 * WHAT: the setting concord.fault_points holds "point=action[,point=action ...]"; a process that
 * comes by a named point takes the action:
 *		error	raises XX000 (never used at points after a decision)
 *		kill	SIGKILL to itself: the postmaster restarts the server
 *		exit	ends this backend alone, as pg_terminate_backend() would
 *		stop	SIGSTOP to itself; the test sends SIGCONT
 *
 * Nothing of this is in a release build (see fault.h).
 */
#include "postgres.h"

#include "base/fault.h"

#ifdef CONCORD_FAULTS

#include <signal.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/guc.h"

static char *fault_points;

void
concord_fault_init(void)
{
	DefineCustomStringVariable("concord.fault_points",
							   "Sets where this process fails, for tests.", NULL,
							   &fault_points, "", PGC_SUSET, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
}

static void
act(const char *point, const char *action, size_t length)
{
	if (strncmp(action, "error", length) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("fault at point \"%s\"", point)));
	else if (strncmp(action, "kill", length) == 0)
		kill(MyProcPid, SIGKILL);
	else if (strncmp(action, "stop", length) == 0)
		kill(MyProcPid, SIGSTOP);
	else if (strncmp(action, "exit", length) == 0)
		ereport(FATAL,
				(errcode(ERRCODE_ADMIN_SHUTDOWN),
				 errmsg("fault at point \"%s\"", point)));
}

void
concord_fault(const char *point)
{
	size_t		length = strlen(point);
	const char *at = fault_points;

	while (at != NULL && *at != '\0')
	{
		const char *end = strchr(at, ',');
		size_t		size = end != NULL ? (size_t) (end - at) : strlen(at);

		if (size > length && strncmp(at, point, length) == 0 && at[length] == '=')
			act(point, at + length + 1, size - length - 1);
		at += size + (end != NULL ? 1 : 0);
	}
}

#endif							/* CONCORD_FAULTS */
