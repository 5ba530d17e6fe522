/*
 * engine.h
 *		Between the two halves of the registrar's engine: operations (proposals.c) and the
 *		connections that carry them (contacts.c).  Private to this room.
 */
#ifndef CONCORD_QUORUM_ENGINE_H
#define CONCORD_QUORUM_ENGINE_H

#include "cluster/map.h"
#include "quorum/proposals.h"

/* Shared by both: what lasts, and what is thrown away in each turn. */
extern MemoryContext ConcordQuorumContext;
extern MemoryContext ConcordTurnContext;

/* One request of a batch that was sent */
typedef struct ConcordSent
{
	uint64		task;			/* its number, or the transfer's */
	int			index;			/* of the acceptor */
} ConcordSent;

/* ---- contacts.c ---- */

extern void concord_contacts_begin(void);

/* Takes over the nodes of a map. */
extern void concord_contacts_sync(const ConcordMap *map);

/* Deals with what has arrived. */
extern void concord_contacts_advance(void);

/* Sends what is to be sent; returns when it wants to be called again (ms). */
extern int64 concord_contacts_serve(void);

/* ---- proposals.c ---- */

/* Is there a request for this node's acceptor? */
extern bool concord_batch_wanted(int node_id);

/* All of them, as the bytes of _registers(), palloc'd; *sent in ConcordQuorumContext. */
extern unsigned char *concord_batch_make(int node_id, size_t *len, ConcordSent **sent, int *nsent);

/* They were answered; frees sent; false if a peer sent what nobody sends. */
extern bool concord_batch_answered(ConcordSent *sent, int nsent, const ConcordReply *reply);

/* They will not be: what is still of use is sent again.  Frees sent. */
extern void concord_batch_lost(ConcordSent *sent, int nsent);

#endif							/* CONCORD_QUORUM_ENGINE_H */
