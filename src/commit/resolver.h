/*
 * resolver.h
 *		What is asked and answered about transactions that have left their session.
 *
 * incarnation.c records the starts of this server, outcome.c answers as a coordinator, branches.c
 * finds what is prepared here, administer.c is what administrators call, views.c what can be seen.
 * The worker's duties (duty_resolve.c, duty_forget.c) do the asking and the finishing.
 */
#ifndef CONCORD_COMMIT_RESOLVER_H
#define CONCORD_COMMIT_RESOLVER_H

#include "postgres.h"

#include "cluster/map.h"
#include "core/commit.h"
#include "nodes/pg_list.h"
#include "utils/timestamp.h"

/* ---- incarnation.c ---- */

/* Has the worker recorded this start of the server in this database? */
extern bool concord_incarnation_recorded(void);

/* Returns when it has, or raises 55000 after concord.connect_timeout.  Cancellable. */
extern void concord_incarnation_await(void);

/* The worker's: the row is committed. */
extern void concord_incarnation_mark(void);

/* ---- outcome.c ---- */

/*
 * Judges transactions of which this node is, or is said to be, the coordinator (P4).  details[i]
 * is set to a sentence why where nothing is known, else NULL.  In a transaction; raises 25006 on
 * a standby, 55000 if this database is not an attached member.
 */
extern void concord_outcomes_judge(const ConcordGid *gids, int n, ConcordVerdict *verdicts,
								   const char **details);

/* What this node alone knows, in the words of transaction_outcome(). */
extern const char *concord_outcome_local(const char *gid_or_label);

/* The verdicts as they travel. */
extern const char *concord_verdict_word(ConcordVerdict verdict);
extern ConcordVerdict concord_verdict_of_word(const char *word);	/* UNKNOWN for any other */

/* ---- branches.c ---- */

/* A transaction of ours that is prepared in this database. */
typedef struct ConcordPrepared
{
	char		text[CONCORD_GID_SIZE];
	ConcordGid	gid;
	TimestampTz prepared_at;
	Oid			owner;
	bool		forced;			/* an administrator has decided ... */
	bool		forced_commit;	/* ... this */
} ConcordPrepared;

/*
 * All whose gid parses and names this cluster and this node as the participant, as ConcordPrepared
 * *, oldest first.  In a transaction.
 */
extern List *concord_prepared_list(const ConcordMap *map);

/* The lowest serial of each incarnation of a coordinator among them. */
typedef struct ConcordNeeded
{
	uint64		incarnation;
	uint64		serial;
} ConcordNeeded;
extern List *concord_prepared_needs(const ConcordMap *map, int coordinator);

/* ---- horizon.c ---- */

/*
 * Rows of an incarnation looked at, and so deleted, at once: some tens of milliseconds of the
 * worker's time.
 */
#define CONCORD_FORGET_BATCH 10000

/* Decisions of one incarnation that are old enough: from lowest up to, not including, horizon. */
typedef struct ConcordForget
{
	uint64		incarnation;
	uint64		lowest;
	uint64		horizon;
	bool		own;			/* of this node's: needs a horizon */
} ConcordForget;

/*
 * What could be deleted if nothing were prepared anywhere, as ConcordForget *.  In a transaction,
 * with an active snapshot.  What is prepared is to be asked for after this call (Z1).
 */
extern List *concord_forget_candidates(int64 retention_us);

/* Something is still needed of an incarnation: lowers its horizon. */
extern void concord_forget_limit(List *candidates, uint64 incarnation, uint64 serial);

/* ---- administer.c ---- */

/* Tells this database's worker to look after all branches now; may be called anywhere. */
extern void concord_resolver_poke(void);

/* From _PG_init(): a peer's session that ends with a branch prepared does so too. */
extern void concord_administer_init(void);

#endif							/* CONCORD_COMMIT_RESOLVER_H */
