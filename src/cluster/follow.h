/*
 * follow.h
 *		A logical copy of a node: a database whose subscription applies what the node publishes.
 */
#ifndef CONCORD_CLUSTER_FOLLOW_H
#define CONCORD_CLUSTER_FOLLOW_H

#include "access/xlogdefs.h"
#include "cluster/map.h"

/*
 * Where a copy stands in its node's WAL (of core/token.h, with the history; never a primary).  An
 * LSN of 0 says that nothing counts.  The map must be a copy's.  Called in a transaction; leaves
 * neither snapshot nor lock behind.
 */
extern void concord_followed_standing(const ConcordMap *map, ConcordServer *server);

/* All that a snapshot taken before may show of the node lies before this; 0 = nothing is known. */
extern XLogRecPtr concord_followed_seen(const ConcordMap *map);

/* Why a copy cannot be read for its node, as a text of constant storage; NULL when it can. */
extern const char *concord_followed_problem(const ConcordMap *map);

/* Called in the process that applies, when all up to this LSN is visible; must not raise. */
extern void (*concord_followed_hook) (XLogRecPtr visible);

/* From concord_cluster_init(). */
extern void concord_follow_init(void);

#endif							/* CONCORD_CLUSTER_FOLLOW_H */
