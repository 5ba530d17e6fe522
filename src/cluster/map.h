/*
 * map.h
 *		This backend's copy of the cluster's map and of the node's identity.
 *
 * The pointer returned by concord_map() stays valid until the next call of concord_map() or
 * concord_map_refresh() after invalidation messages were accepted: take what you need, do not
 * keep it across anything that opens a relation.
 */
#ifndef CONCORD_CLUSTER_MAP_H
#define CONCORD_CLUSTER_MAP_H

#include "core/placement.h"
#include "core/token.h"
#include "nodes/pg_list.h"
#include "utils/uuid.h"

typedef enum ConcordMembership
{
	CONCORD_NO_MEMBER = 0,		/* no identity: extension installed, no cluster */
	CONCORD_JOINING,			/* add_node is under way */
	CONCORD_MEMBER,
	CONCORD_REMOVED,			/* was a member once */
	CONCORD_COPY,				/* no identity: a logical copy of a node */
	CONCORD_DETACHED			/* identity is of another storage: copy, restore, upgrade */
} ConcordMembership;

typedef struct ConcordNode
{
	int			node_id;
	NameData	name;
	Oid			serverid;		/* foreign server */
	float		weight;
	int			generation;
	int			nslots;			/* slots it owns */
	char	   *zone;
} ConcordNode;

/* A physical standby or a logical copy of a node. */
typedef struct ConcordReplica
{
	int			replica_id;		/* 1 .., never used again within the cluster's life */
	int			node_id;		/* whose it is */
	NameData	name;
	List	   *options;		/* of char *, "keyword=value": its address */
	bool		logical;
} ConcordReplica;

/* What a logical copy follows (follow.c). */
typedef struct ConcordFollowed
{
	Oid			subscription;
	uint32		timeline;		/* of its node, on which it was synchronised */
	int			nhistory;
	ConcordTimeline *history;	/* the earlier ones, ascending */
	bool		parted;			/* its subscription has followed something else */
} ConcordFollowed;

typedef struct ConcordMap
{
	ConcordMembership membership;
	pg_uuid_t	cluster_id;
	int			self;			/* this node's id, or that of the node it is a copy of; 0: none */
	int			self_generation;
	NameData	self_name;
	int64		epoch;			/* 0 when there is no map */
	int64		lost_epoch;		/* epoch at which this node last lost a slot */
	int			authority;		/* node id */
	int			nnodes;
	ConcordNode *nodes;			/* by node_id ascending */
	int			nreplicas;
	ConcordReplica *replicas;	/* by (node_id, replica_id) ascending */
	ConcordFollowed followed;	/* CONCORD_COPY only, which has neither nodes nor an epoch */
	int16		owner[CONCORD_SLOTS];	/* node id, CONCORD_SLOT_LOST */
} ConcordMap;

/*
 * The map as of the newest committed change this backend has heard of (and its own uncommitted
 * ones). Must be called in a transaction. Never NULL; membership tells whether there is
 * anything. Accepts no invalidations by itself: callers at the start of a statement call
 * AcceptInvalidationMessages() first. If the extension is not installed in this database:
 * CONCORD_NO_MEMBER.
 */
extern const ConcordMap *concord_map(void);

/*
 * The same, or 55000 with a precise message and hint for each other membership; checks the
 * preload first.
 */
extern const ConcordMap *concord_map_member(void);

/* By id or name; NULL when there is none. */
extern const ConcordNode *concord_map_node(const ConcordMap *map, int node_id);
extern const ConcordNode *concord_map_node_named(const ConcordMap *map, const char *name);

/* NULL when there is none. */
extern const ConcordReplica *concord_map_replica(const ConcordMap *map, int replica_id);
/* A node's replicas: the first of *n that stand side by side in the map; NULL for none. */
extern const ConcordReplica *concord_map_replicas_of(const ConcordMap *map, int node_id, int *n);

/*
 * "keyword=value" options to reach a replica as userid: its address, and userid's user mapping for
 * its node under the rules of concord_server_options().
 */
extern List *concord_replica_options(const ConcordMap *map, const ConcordReplica *replica,
									 Oid userid, bool for_protocol);

/* By name or 42704 `node "x" does not exist`. */
extern const ConcordNode *concord_map_node_required(const ConcordMap *map, const char *name);

/*
 * Asks the worker to fetch epoch (or newer) from a node and waits until the map has it; returns
 * false when timeout_ms went by. Must not hold a lock the worker needs (map tables). Cancellable.
 * On the authority it only waits: what a session claims there is not noted.
 */
extern bool concord_map_await(int64 epoch, int from_node, int timeout_ms);

/*
 * The same map, read again from the tables whatever the cache believes: after a lock on the map
 * was waited for.
 */
extern const ConcordMap *concord_map_refresh(void);

/* From _PG_init(). */
extern void concord_cluster_init(void);

#endif							/* CONCORD_CLUSTER_MAP_H */
