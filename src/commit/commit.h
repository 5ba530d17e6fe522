/*
 * commit.h
 *		Atomic transactions over several nodes: what the rooms above and the files of this room
 *		share.
 *
 * The rules are core/commit.h's; this room stores, sends and looks.
 */
#ifndef CONCORD_COMMIT_COMMIT_H
#define CONCORD_COMMIT_COMMIT_H

#include "postgres.h"

#include "cluster/map.h"
#include "core/commit.h"
#include "datatype/timestamp.h"
#include "storage/lwlock.h"

/* ---- liveness.c: the table of distributed transactions of this server's backends (P4) ---- */

typedef enum ConcordTxnState
{
	CONCORD_TXN_NONE = 0,
	CONCORD_TXN_RUNNING,		/* has a gid, statements still come */
	CONCORD_TXN_PREPARING,		/* PREPARE was sent to somebody */
	CONCORD_TXN_DECIDED,		/* decision row written, local commit under way */
	CONCORD_TXN_FINISHING		/* phase two, after the local commit */
} ConcordTxnState;

#define CONCORD_LABEL_BYTES 64
#define CONCORD_MAX_PARTICIPANTS_SHOWN 16

/*
 * One a backend, at its index in ProcGlobal->allProcs.  Written by its own backend only, under
 * ConcordSessionsLock (exclusive to write, shared to read).
 */
typedef struct ConcordSession
{
	int			pid;			/* 0 = free */
	Oid			dboid;
	ConcordTxnState state;
	uint64		serial;			/* 0 = none; a part of the gid */
	TimestampTz started_at;		/* of the transaction: its age for the deadlock detector */
	char		label[CONCORD_LABEL_BYTES + 1];
	int			nparticipants;
	int16		participants[CONCORD_MAX_PARTICIPANTS_SHOWN];
} ConcordSession;

extern LWLock *ConcordSessionsLock;
extern ConcordSession *ConcordSessions; /* [concord_sessions_count()] ; NULL without preload */
extern int	concord_sessions_count(void);

/* This backend's own entry, made at first use. */
extern ConcordSession *concord_session(void);

/* Is a transaction of this database with this serial in the table (any state but NONE)? */
extern bool concord_serial_is_live(uint64 serial);
extern bool concord_label_is_live(const char *label);
/* The lowest serial that is live in this database or may still be given. */
extern uint64 concord_lowest_live_serial(void);

/* ---- coordinator.c: the durable decision ---- */

/* Writes the decision row in the running transaction (coordinator, at pre-commit). */
extern void concord_decision_write(uint64 serial, const char *label,
								   const int16 *participants, int n);

extern void concord_commit_init(void);		/* hooks, callbacks: from _PG_init() */

#endif							/* CONCORD_COMMIT_COMMIT_H */
