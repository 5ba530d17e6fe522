/*
 * stopping.c
 *		Is the server about to stop?  See stopping.h.
 */
#include "postgres.h"

#include "base/stopping.h"
#include "storage/fd.h"
#include "utils/pidfile.h"

#define PID_FILE "postmaster.pid"

bool
concord_postmaster_is_stopping(void)
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
