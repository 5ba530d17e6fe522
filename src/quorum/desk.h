/*
 * desk.h
 *		How sessions hand operations on registers to their database's registrar, and get answers.
 *
 * WHAT: the registrar is one process in each member database; it proposes for all its sessions
 * (proposals.h), so that a node needs one connection to each acceptor, and what many sessions want
 * at once is flushed at once.  A session has one place at the desk; it puts a request there, wakes
 * the registrar, and waits on its latch.
 *
 * STATES of a place (who takes the edge)
 *		FREE --session: ask--> QUEUED --registrar: take--> TAKEN --registrar: answer--> ANSWERED
 *		TAKEN --registrar: ends, or another one begins, and it is a read--> QUEUED
 *		ANSWERED --session: reads it--> FREE
 *		any --session gives up, or exits--> FREE (the number of its request has changed)
 *
 * INVARIANTS
 * E1 The registrar answers a request by its number: what the session has given up is answered to
 *	  nobody.  (It is carried out all the same: its outcome is unknown to the session.)
 * E2 Values that do not fit into a place are in a dynamic segment: the session's own until the
 *	  registrar has copied it; the registrar's, pinned, until the session has.  Who frees a place
 *	  unpins what is in it.
 * E3 lock (a leaf) protects all of it; it is never held while something is waited for.
 * E4 What a registrar has TAKEN and leaves behind at its end, or the one before has, is answered as
 *	  "unknown"; a read begins anew.
 * E5 A session waits for its own timeout and concord.connect_timeout, no longer, whatever the
 *	  registrar does.
 */
#ifndef CONCORD_QUORUM_DESK_H
#define CONCORD_QUORUM_DESK_H

#include "quorum/quorum.h"

/* A session's request */
typedef struct ConcordDeskRequest
{
	ConcordOperation op;
	const char *name;			/* of the register, with its prefix */
	size_t		name_len;
	int64		expected;
	const void *data;
	uint32		len;
	int			timeout_ms;
} ConcordDeskRequest;

/* The answer; the value's bytes are palloc'd. */
typedef struct ConcordDeskAnswer
{
	ConcordResult result;
	bool		no_majority;	/* FAILED, UNKNOWN: too few acceptors answered in time */
	ConcordValue value;			/* of a change that was made without its bytes */
} ConcordDeskAnswer;

/*
 * A session's side: asks, and waits for the answer.  Cancellable.  55000 when there is no registrar
 * within concord.connect_timeout; 53200 when there is no shared memory for a long value.
 */
extern void concord_desk_ask(const ConcordDeskRequest *request, ConcordDeskAnswer *answer);

/* ---- the registrar's side ---- */

/* This database's registrar begins, or ends; begin returns false if there is another one. */
extern bool concord_desk_open(void);
extern void concord_desk_close(void);

/* Takes what was put there since, as operations of proposals.h. */
extern void concord_desk_serve(void);

/* A number that no other proposer of this start of the server has (R1). */
extern uint32 concord_desk_proposer(void);

/* Wakes this database's registrar; false if there is none. */
extern bool concord_desk_poke(Oid dboid);

/* Its process id, 0 if there is none */
extern int	concord_desk_registrar(Oid dboid);

/* Raises 55000: there is none. */
pg_noreturn extern void concord_desk_no_registrar(void);

/* From _PG_init(), with preload: shared memory. */
extern void concord_desk_init(void);

#endif							/* CONCORD_QUORUM_DESK_H */
