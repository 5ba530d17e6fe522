/*
 * waiters.h
 *		What standing.c needs of waiters.c.  Private to this room.
 */
#ifndef CONCORD_SESSION_WAITERS_H
#define CONCORD_SESSION_WAITERS_H

#include "postgres.h"

#include "access/xlogdefs.h"

/* End of the last commit record this standby has applied since its start, 0 = none yet. */
extern XLogRecPtr concord_applied(void);

#endif							/* CONCORD_SESSION_WAITERS_H */
