/*
 * session.h
 *		Session tokens: where this server stands, waiting until it stands further, what the session
 *		has written and seen.
 *
 * core/token.h has the form of a token and the rules of comparing positions; here are the server's
 * side and the session's.  What other rooms need is in this header; standing.c, waiters.c,
 * track.c and demand.c say what each does.
 */
#ifndef CONCORD_SESSION_SESSION_H
#define CONCORD_SESSION_SESSION_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "base/settings.h"
#include "cluster/map.h"
#include "core/token.h"
#include "nodes/parsenodes.h"
#include "utils/timestamp.h"

/* ---- standing.c */

/*
 * Where this server's WAL stands: as the primary of the map's own node, or as a copy of it.  The
 * history is the backend's copy, valid until the next call.  Must be called in a transaction only
 * if its timeline's history was not read before (memory); raises what reading the file raises.
 */
extern void concord_standing(const ConcordMap *map, ConcordServer *server);

/* ---- waiters.c */

typedef enum ConcordWaitResult
{
	CONCORD_WAIT_REACHED,
	CONCORD_WAIT_TIMEOUT,
	CONCORD_WAIT_LEFT_BEHIND,	/* of core/token.h: waiting would not help */
	CONCORD_WAIT_LOST
} ConcordWaitResult;

/*
 * Waits until this server has applied all positions of the token that are of its own node, at
 * most timeout_ms (0: looks once, -1: no limit).  *which is the position that decided.  Can be
 * cancelled.  The caller holds no snapshot and no lock on a relation.
 */
extern ConcordWaitResult concord_wait_for(const ConcordMap *map, const ConcordToken *token,
										  int timeout_ms, int *which);

/* The same question without waiting. */
extern ConcordWaitResult concord_look(const ConcordMap *map, const ConcordToken *token, int *which);

/* One session that waits, for the view token_waits. */
typedef struct ConcordWaiterView
{
	int			pid;
	Oid			dboid;
	Oid			role;
	uint32		timeline;
	XLogRecPtr	lsn;
	uint64		xid;
	TimestampTz since;
	int			timeout_ms;
} ConcordWaiterView;

/* This server's waiters, palloc'd. */
extern ConcordWaiterView *concord_waiters(int *n);

extern void concord_waiters_init(void);

/* ---- track.c */

/* The session's token as it is now (concord.token), parsed; static memory, until the next call. */
extern ConcordToken *concord_session_token(void);

/* A transaction command is about to be carried out. */
extern void concord_track_command(const TransactionStmt *statement);

/* ---- demand.c */

/*
 * Reads a token given by a user into static memory (until the next call) and checks it against the
 * map: 22023 malformed, too long, of another cluster; 42704 of an unknown node; 55000 no member.
 */
extern ConcordToken *concord_token_read(const char *text, const ConcordMap **map);

/* ---- levels.c */
extern void concord_levels_init(void);

/* From _PG_init(): before and after the commit room's, see init.c. */
extern void concord_track_init(void);
extern void concord_session_init(void);

#endif							/* CONCORD_SESSION_SESSION_H */
