/*
 * errors.h
 *		SQLSTATEs of pg_concord's own, used only where no standard code fits.
 *
 * The class "PC" is free for implementations (the standard reserves classes that begin with
 * 0-4 and A-H).  They are listed in the README; a code is never given a second meaning.
 */
#ifndef CONCORD_ERRORS_H
#define CONCORD_ERRORS_H

#include "utils/elog.h"

/* the caller's map is too old for what it asked: refresh the map and ask again */
#define ERRCODE_CONCORD_STALE_MAP		MAKE_SQLSTATE('P', 'C', '0', '0', '1')
/* the slot's owner was removed by force and no other node was given the slot */
#define ERRCODE_CONCORD_SLOT_LOST		MAKE_SQLSTATE('P', 'C', '0', '0', '2')
/* a position of a session token is not in the node's WAL and never will be: the write was lost */
#define ERRCODE_CONCORD_WRITE_LOST		MAKE_SQLSTATE('P', 'C', '0', '0', '3')
/* a session token was not reached within concord.wait_timeout */
#define ERRCODE_CONCORD_NOT_REACHED		MAKE_SQLSTATE('P', 'C', '0', '0', '4')
/* a lock's fence is older than one that has been used: the lock was lost, and others hold it */
#define ERRCODE_CONCORD_FENCED			MAKE_SQLSTATE('P', 'C', '0', '0', '5')
/* no majority of the acceptors answered in time; nothing was changed */
#define ERRCODE_CONCORD_NO_MAJORITY		MAKE_SQLSTATE('P', 'C', '0', '0', '6')
/* a register is at another version than expected */
#define ERRCODE_CONCORD_VERSION_MISMATCH	MAKE_SQLSTATE('P', 'C', '0', '0', '7')
/* a lease lock that the session held was lost: its node was cut off for longer than its lease */
#define ERRCODE_CONCORD_LOCK_LOST		MAKE_SQLSTATE('P', 'C', '0', '0', '8')

#endif							/* CONCORD_ERRORS_H */
