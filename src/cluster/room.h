/*
 * room.h
 *		What the files of the cluster room share; the commit room uses it too.
 *
 * WHO RUNS AS WHOM: what a user may call is decided by EXECUTE on the C function (and, where an
 * address is given, by superuser()).  Behind that, the tables are changed by PL/pgSQL functions of
 * cluster.sql, called through concord_owner_call() as the extension's owner; nobody else has
 * rights on them.  A connection to another node is the caller's own mapping, never the owner's.
 *
 * LOCKS, in this order: local_node (LOCK TABLE .. SHARE ROW EXCLUSIVE, by whatever changes the
 * identity or applies a map), then map_state's row (FOR UPDATE, by whatever changes the map).
 * Readers take neither.
 */
#ifndef CONCORD_CLUSTER_ROOM_H
#define CONCORD_CLUSTER_ROOM_H

#include "base/shmem.h"
#include "cluster/map.h"
#include "fmgr.h"
#include "nodes/execnodes.h"
#include "nodes/pg_list.h"
#include "peer/link.h"

/* ---- owner.c: calls into cluster.sql, and checks every entry point begins with ---- */

/*
 * Runs one statement as the extension's owner; parameters are text ($1::type in the statement).
 * Returns the first column of the first row as text, NULL for SQL NULL or no row.  The statement
 * must not use operators or unqualified names: the caller's search_path is in force until a
 * function pins it.
 */
extern char *concord_owner_call(const char *sql, int nparams, const char *const *params);

/* The owner of the extension; 55000 when it is not installed. */
extern Oid	concord_extension_owner(void);
/* The version of the SQL objects, which CREATE or ALTER EXTENSION made; '' when not installed. */
extern char *concord_extension_version(void);

/* Becomes the owner until concord_owner_end(); an error ends it with the (sub)transaction. */
typedef struct ConcordOwnerScope
{
	Oid			userid;
	int			sec_context;
} ConcordOwnerScope;
extern void concord_owner_begin(ConcordOwnerScope *scope);
extern void concord_owner_end(const ConcordOwnerScope *scope);

/*
 * 55000 without the preload, 25006 on a standby and in a read-only transaction; what names the
 * function.
 */
extern void concord_require_writable(const char *what);
/* 42501 unless the current user is a superuser. */
extern void concord_require_superuser(const char *what);
/* 42501 unless the current user is concord.node_role or a superuser. */
extern void concord_require_node_role(void);
/* Both 22004 when argument i is NULL. */
extern char *concord_arg_name(FunctionCallInfo fcinfo, int i, const char *name);
extern char *concord_arg_text(FunctionCallInfo fcinfo, int i, const char *name);
extern void concord_arg_not_null(FunctionCallInfo fcinfo, int i, const char *name);

/* 42602 unless the name may be a node's or replica's. */
extern void concord_check_name(const char *kind, const char *name);
/* 22023 unless finite and not negative. */
extern void concord_check_weight(float weight);

/* List of char * <-> text of a text[] */
extern char *concord_list_to_array(List *options);
extern List *concord_array_to_list(Datum array);

/* ---- map.c ---- */

/* Notes for the worker that a node has a newer map, and wakes it. */
extern void concord_map_want(int64 epoch, int from_node);
/* Notes that this transaction makes the first map of a cluster: no newer one is known any more. */
extern void concord_map_created(void);
/* Has this transaction changed identity or map? */
extern bool concord_map_changed_here(void);
/* Is it the extension's table local_node?  Asks the catalogs, not the cache. */
extern bool concord_identity_is_table(Oid relid);
/* What that table alone says. */
extern ConcordMembership concord_identity_read(Oid relid);

/* ---- identity.c ---- */

/* What _probe() of a database says about it. Strings are palloc'd. */
typedef struct ConcordProbe
{
	char	   *version;		/* of the library */
	char	   *extversion;		/* of the SQL objects */
	int			protocol;
	bool		preloaded;
	bool		superuser;		/* the role that asked */
	bool		in_recovery;
	bool		read_only;
	int			max_prepared;
	char	   *system_identifier;	/* decimal */
	char	   *database;		/* OID, decimal */
	char	   *encoding;
	char	   *node_role;
	char	   *membership;		/* as concord_membership_name() */
	char	   *cluster;		/* NULL without identity */
	int			node_id;		/* 0 without identity */
	const char *node;			/* '' without identity */
} ConcordProbe;

/* Asks; raises 55000 if the extension is not there, else what the reply says. */
extern ConcordProbe *concord_probe(ConcordLink *link, const char *name);
/* The same; NULL for whatever is in the way. */
extern ConcordProbe *concord_probe_quietly(ConcordLink *link);
/* Does it describe this very database? */
extern bool concord_probe_is_self(const ConcordProbe *probe);
/* "it is node "b" of cluster ..." for errdetail */
extern char *concord_probe_describe(const ConcordProbe *probe);

extern const char *concord_membership_name(ConcordMembership membership);
extern char *concord_system_identifier(void);	/* decimal, as text */
extern char *concord_database_oid(void);
extern char *concord_uuid_text(const pg_uuid_t *uuid);
extern Oid	concord_node_role_oid(bool missing_ok);
extern void concord_identity_init(void);

/* ---- authority.c: where a change of the map is made ---- */

/* Is this node the one that changes the map?  The map must be a member's. */
static inline bool
concord_is_authority(const ConcordMap *map)
{
	return map->self == map->authority;
}

/*
 * Runs a map-changing statement on the authority as the caller's own mapping, waits (with await)
 * until this node has the resulting map, and returns the first column as text.  25001 in a
 * transaction block, 08006 when the authority cannot be reached (nothing was done), 08007 when
 * its answer was lost.
 */
extern char *concord_forward(const ConcordMap *map, const char *what, const char *sql,
							 int nparams, const char *const *params, bool await);
/* The first half of that: a checked link to the authority, connected as the caller. */
extern ConcordLink *concord_authority_link(const ConcordMap *map);
/* How long the answer to a statement over that link is waited for. */
extern int	concord_forward_timeout_ms(void);
/* 25001 in a transaction block. */
extern void concord_no_block(const char *what);
/*
 * Takes the lock on the map, waits for others' changes; returns the map as it is now. Only on the
 * authority; 55000 while another node has a newer map (concord_settle_map()).
 */
extern const ConcordMap *concord_lock_map(void);
/*
 * Asks all members for their epochs, once a transaction, and waits until the worker has fetched a
 * newer map; 55000 if it has not in time.  concord_lock_map() does so; who takes the identity's
 * lock first calls it before.  Elsewhere than on the authority it does nothing.
 */
extern void concord_settle_map(void);

/* The newest map heard of: the own epoch and node, unless somebody has a newer one. */
typedef struct ConcordNewer
{
	int64		epoch;
	int			node_id;		/* who has it; with a newer epoch the own id: one not in the map */
} ConcordNewer;

/* What this server has heard since its start, nodes in but (0-terminated, may be NULL) left out. */
extern ConcordNewer concord_heard_newer(const ConcordMap *map, const int *but);

extern void concord_authority_init(void);
/* The owners as concord._change_map() wants them: hex of big-endian int16. */
extern char *concord_owners_hex(const int16 owner[CONCORD_SLOTS]);
/* Stores new owners under the next epoch; map must be locked. */
extern void concord_store_owners(const int16 owner[CONCORD_SLOTS]);

/*
 * Sends one statement over several links at once and waits for all answers, but not longer than
 * until; a reply is NULL for a link that has not answered by then (and is of no use any more).
 */
extern ConcordReply **concord_ask_all(ConcordLink **links, int n, const char *sql, int nparams,
									  const char *const *params, TimestampTz until);

/* ---- join.c ---- */

/* What a database must be like to become a node: 55000, 0A000. */
extern void concord_check_server(const ConcordProbe *probe, const char *name);

/* ---- mapping.c ---- */

/*
 * A role's own mapping for a server, as libpq options (those of the server left out); rights as
 * concord_server_options().
 */
extern List *concord_mapping_options(Oid serverid, Oid userid, bool for_protocol);
/* Is there a mapping that concord_server_options() would take? */
extern bool concord_has_mapping(Oid serverid, Oid userid, bool for_protocol);

/* ---- copies.c ---- */

/* What is wrong with a replica as this server sees it, and what to do; NULL when nothing is. */
extern char *concord_copy_complaint(const ConcordMap *map, const ConcordReplica *replica,
									const char **hint);

/*
 * ---- others.c: all other nodes at once, as the caller; what happened are rows (node, status,
 * detail) ----
 */

typedef struct ConcordAskedNodes ConcordAskedNodes;

extern ConcordAskedNodes *concord_ask_nodes(ReturnSetInfo *rsinfo, const ConcordMap *map);
/*
 * One statement to all that have answered so far; who fails gets its row and is left out from
 * then on.
 */
extern void concord_ask_more(ReturnSetInfo *rsinfo, ConcordAskedNodes *nodes, const char *sql,
							 int nparams, const char *const *params);
/* A row "ok" for the rest. */
extern void concord_ask_done(ReturnSetInfo *rsinfo, ConcordAskedNodes *nodes);
extern void concord_put_status(ReturnSetInfo *rsinfo, const char *node, bool ok,
							   const char *detail);

/*
 * Links as concord.node_role to the nodes of the map but those in skip, or to one only (0: all).
 * links[i] is NULL for a node that has no mapping.  Returns how many; arrays are palloc'd.
 */
extern int	concord_view_links(const ConcordMap *map, int only, List *skip, ConcordLink ***links,
							   char ***names, int **ids);
/* The time until which a view waits, from now: concord.view_timeout. */
extern TimestampTz concord_view_deadline(void);
/*
 * Asks all that have a link; a reply is NULL for a node that has not answered in time, or has none.
 */
extern ConcordReply **concord_view_ask(ConcordLink **links, int n, const char *sql, int nparams,
									   const char *const *params, TimestampTz until);
/* This database's counters as the row that a function returns. */
extern Datum concord_counters_row(FunctionCallInfo fcinfo, const ConcordCounter *counters, int n);
/* A text as a value of a type, by the type's input function. */
extern Datum concord_text_input(const char *text, Oid type);

/* ---- health.c ---- */

/* up, suspect, down, unknown; an int, since shared memory is not this header's matter */
extern const char *concord_health_name(int health);

/* ---- conninfo.c ---- */

/*
 * Parses an address given by a user and completes it, so that every node understands it alike: a
 * host is required, port and dbname become explicit.  *user is the user in it, or the current
 * role's name. given_user: was there one?  The statement of an error here is kept out of the log.
 */
extern List *concord_address_parse(const char *conninfo, char **user, bool *given_user);
/*
 * A text[] of options that another node has parsed: 22023 if one may not stand on a server, or is
 * none.
 */
extern List *concord_options_checked(Datum array);
extern List *concord_options_with(List *options, const char *keyword, const char *value);
/* A link to an address as a user that is not (yet) mapped. */
extern ConcordLink *concord_address_link(const char *name, List *options, const char *user);
/*
 * A link as the caller to a node's address in the map (options NIL), or to another address for
 * it; as user, or, when that is NULL, by the caller's mapping for the node.
 */
extern ConcordLink *concord_node_link(const ConcordNode *node, const char *name, List *options,
									  const char *user);
/*
 * Pushes an error context that keeps the statement (with a secret in it) out of the server's log.
 */
extern void concord_hide_statement(ErrorContextCallback *callback);
extern void concord_show_statement(ErrorContextCallback *callback);

#endif							/* CONCORD_CLUSTER_ROOM_H */
