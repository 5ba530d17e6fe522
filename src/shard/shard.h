/*
 * shard.h
 *		From keys to slots to nodes, and statements sent to where their keys live.
 */
#ifndef CONCORD_SHARD_SHARD_H
#define CONCORD_SHARD_SHARD_H

#include "cluster/map.h"
#include "fmgr.h"
#include "peer/peer.h"
#include "tcop/dest.h"
#include "utils/tuplestore.h"

/*
 * The slot of a key: 0 .. 4095.  Raises 42804 with a hint for a type that does not hash the same
 * on every node, 42P22 for a text of a nondeterministic collation.
 */
extern int	concord_slot_of(Datum key, Oid type, Oid collation);

/* The owner's node, or PC002 when the slot is lost. */
extern const ConcordNode *concord_slot_owner(const ConcordMap *map, int slot);

/*
 * The slot's shared lock, until the transaction ends.  Whoever holds it may rely on the slot
 * staying with this node: whoever moves the slot takes it exclusively (ExclusiveLock) on the old
 * owner before the map changes.
 */
typedef enum ConcordSlotHold
{
	CONCORD_SLOT_HELD,
	CONCORD_SLOT_MOVED,			/* held, but the slot is not this node's (any more) */
	CONCORD_SLOT_BUSY			/* not held: it is being moved, and wait was false */
} ConcordSlotHold;

extern ConcordSlotHold concord_slot_hold(int slot, bool wait);

/* Gives one such hold back before the transaction's end. */
extern void concord_slot_release(int slot);

/* ---- statements: check.c */

typedef struct ConcordStatement
{
	uint64		hash;			/* of sql; key */
	char	   *sql;
	int			nparams;		/* highest $n, -1 if it cannot be told (utility statements) */
	char	   *json_sql;		/* the same statement giving one jsonb a row, NULL if it cannot */
	bool		returns_rows;	/* SELECT, VALUES or DML with RETURNING */
	ConcordWhole whole;			/* as what it is sent when it is the whole transaction */
} ConcordStatement;

/*
 * Checks the text of a routed statement without contacting anyone: exactly one statement
 * (42601), not empty, no transaction control (2D000), nothing that outlives the transaction in
 * the peer's session (0A000).  The result is cached and valid until the end of the calling SQL
 * function.
 */
extern const ConcordStatement *concord_statement_check(const char *sql);

/* A peer found that a statement of CONCORD_WHOLE_READ writes: from now on it is CONCORD_PART. */
extern void concord_statement_writes(const ConcordStatement *statement);

/* Until the caller resets error_context_stack, errors with a position point into sql. */
extern void concord_statement_errors(ErrorContextCallback *callback, const char *sql);

/* ---- whole.c: is this call of a routing function all that the transaction does? */
extern bool concord_call_is_whole(FunctionCallInfo fcinfo);

/*
 * Set by a room above: before this session commits anything somebody wants to be asked
 * (XACT_EVENT_PRE_COMMIT), so that no statement commits by itself on another node.
 */
extern bool concord_commit_guarded;

/* ---- types and parameters: params.c */

typedef struct ConcordParams
{
	int			n;
	Datum	   *values;
	bool	   *nulls;
	Oid		   *types;			/* local; UNKNOWNOID: cstring, to be inferred where it runs */
} ConcordParams;

extern void concord_params_from_any(FunctionCallInfo fcinfo, int first, ConcordParams *params);
extern void concord_params_from_array(FunctionCallInfo fcinfo, int first, ConcordParams *params);
extern void concord_params_encode(const ConcordParams *params, const ConcordTarget *target,
								  ConcordRemoteQuery *query);

typedef struct ConcordTypeIO
{
	Oid			type;			/* key */
	FmgrInfo	input;
	FmgrInfo	output;
	Oid			ioparam;
	bool		valid;
} ConcordTypeIO;

extern ConcordTypeIO *concord_type_io(Oid type);

/* ---- style.c: the form in which values travel, see there */

extern char *concord_print(ConcordTypeIO *io, Datum value);
extern bool concord_style_enter(void);
extern void concord_style_leave(void);
extern DestReceiver *concord_style_receiver(DestReceiver *inner);

/* ---- results: rows.c */

typedef struct ConcordRows
{
	Tuplestorestate *store;		/* NULL: rows are not kept */
	TupleDesc	desc;			/* what the caller declared */
	bool		node_column;	/* the first declared column is "_node name" */
	const char *const *nodes;	/* node name by source */
	MemoryContext row_context;
	Datum	   *values;
	bool	   *nulls;
	ConcordTypeIO **io;			/* by declared column */
	bool		described;		/* an answer with columns came */
} ConcordRows;

extern void concord_rows_init(ConcordRows *rows, Tuplestorestate *store, TupleDesc desc,
							  bool may_have_node, const char *const *nodes);
/* Raises 42804 for a statement that returns no rows at all. */
extern void concord_rows_none(ConcordRows *rows);

extern ConcordSink concord_rows_sink(ConcordRows *rows);
extern DestReceiver *concord_rows_receiver(ConcordRows *rows, int source);

/* ---- local execution: local.c */

/* Runs a statement here, in the caller's transaction; rows may be NULL. Returns rows affected. */
extern int64 concord_local_run(const char *sql, const ConcordParams *params, ConcordRows *rows,
							   int source);

/* ---- route.c: statements of our own to a slot's owner */

/* Does here what the statement would do: the rows affected; -1: the slot is not ours any more. */
typedef int64 (*ConcordHere) (void *arg);

/*
 * Runs a statement on the primary of the slot's owner as part of the caller's transaction, whatever
 * concord.consistency says; if the owner is this node, calls here() instead.  Returns the rows
 * affected (those of a SELECT are counted, not seen).  Raises what concord.execute() raises; not
 * to be called on a standby.
 */
extern int64 concord_route_to_slot(int slot, const char *sql, const ConcordParams *params,
								   ConcordHere here, void *arg);

/* ---- copies: chosen by the session room (levels.c) */

/* What is known when a copy is to be chosen. */
typedef struct ConcordCopyWish
{
	bool		primary_only;
	bool		stale;			/* the session's token is left aside (concord.on_timeout) */
	int			nexcluded;		/* replicas that have refused */
	int			excluded[8];
} ConcordCopyWish;

typedef struct ConcordCopy
{
	int			replica_id;		/* 0: the primary */
	bool		here;			/* this server is a copy that will do */
	const char *floor;			/* a token it must have reached, NULL = none */
} ConcordCopy;

/*
 * Sets make_floor and floor_key of a target that is a node's primary, if the session's token says
 * something of the node.
 */
extern void (*concord_floor_hook) (const ConcordMap *map, ConcordTarget *target);

/* Chooses by concord.consistency, which is not strong, for a statement that only reads. */
extern void (*concord_copy_hook) (const ConcordMap *map, const ConcordNode *node,
								  const ConcordCopyWish *wish, ConcordCopy *copy);

/* Is this session another node's: has it said hello? (hello.c) */
extern bool concord_hello_said(void);

/* If this is a branch: its caller is told that it holds a lock until the transaction's outcome. */
extern void concord_hello_holds(void);

extern void concord_shard_init(void);

#endif							/* CONCORD_SHARD_SHARD_H */
