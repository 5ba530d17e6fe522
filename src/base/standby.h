/*
 * standby.h
 *		What synchronous standbys have of this server's WAL.
 */
#ifndef CONCORD_STANDBY_H
#define CONCORD_STANDBY_H

#include "access/xlogdefs.h"

/* Must commits of this server be on synchronous standbys before they count? */
extern bool concord_standbys_wanted(void);

/*
 * Have the synchronous standbys flushed this commit, or is none wanted?  If they have not, nothing
 * is told (concord_standbys_settled) before they have.  Raises nothing, so it may be called
 * after a commit.
 */
extern bool concord_standbys_have(XLogRecPtr commit_end);

/*
 * Have they all that this database must not tell before?  *owed, unless NULL, is set to the end
 * of that: InvalidXLogRecPtr if it is not known yet.
 */
extern bool concord_standbys_settled(XLogRecPtr *owed);

/* The worker's: what recovery has found is owed.  Until then nothing is known. */
extern void concord_standbys_recovered(void);

#endif							/* CONCORD_STANDBY_H */
