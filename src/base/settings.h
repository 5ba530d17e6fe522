/*
 * settings.h
 *		Every setting of pg_concord.  Defined in settings.c, registered once from _PG_init().
 *
 * Times are in milliseconds unless the name says otherwise.
 */
#ifndef CONCORD_SETTINGS_H
#define CONCORD_SETTINGS_H

#include "core/token.h"

#define CONCORD_VERSION		"0.1"
#define CONCORD_PROTOCOL	1	/* what is spoken between nodes */

/* identities */
extern char *concord_node_role;			/* role of protocol traffic */

/* peer connections */
extern int	concord_connect_timeout_ms;		/* to open a connection to a peer, 0 is not allowed */
extern int	concord_statement_deadline_ms;	/* longest wait for one remote answer, 0 = none */
extern int	concord_cleanup_timeout_ms;		/* cancel and rollback after an error */
extern int	concord_max_peer_connections;	/* users', per peer and database; -1 = no limit */
extern int	concord_idle_timeout_ms;		/* idle cached connections are closed; 0 = never */
extern int	concord_prepared_statements;	/* remotely prepared statements kept per connection */

/* health */
extern int	concord_heartbeat_interval_ms;
extern int	concord_suspect_after_ms;		/* without an answer: suspect */
extern int	concord_down_after_ms;			/* without an answer: down */
extern int	concord_view_timeout_ms;		/* bound of cluster-wide views and the doctor */

/* atomic commit: what the resolver and the deletion of decisions go by */
extern int	concord_resolve_delay_ms;		/* age at which a prepared branch is asked for */
extern int	concord_outcome_retention_s;	/* decisions are kept at least so long */

extern int	concord_deadlock_timeout_ms;	/* a wait for a lock that long is looked into */

/* reported by a peer's session: "writing" once its branch has a transaction id, else empty */
extern char *concord_branch_state;

/* atomic commit */
extern int	concord_commit_protocol;	/* a ConcordProtocol */
extern bool concord_commit_wait;	/* COMMIT waits for the answers of phase two ... */
extern int	concord_commit_timeout_ms;	/* ... at most so long */
extern bool concord_strict_serializable;	/* SERIALIZABLE over several nodes is an error */
extern char *concord_transaction;	/* reported: gid of the running distributed transaction */
extern char *concord_transaction_label; /* the client's own name for its transaction */

/* sessions */
/* what a session's token carries */
typedef enum ConcordTrack
{
	CONCORD_TRACK_OFF,
	CONCORD_TRACK_WRITES,
	CONCORD_TRACK_READS
} ConcordTrack;

/* what happens when a token is not reached in time */
typedef enum ConcordOnTimeout
{
	CONCORD_ON_TIMEOUT_ERROR,
	CONCORD_ON_TIMEOUT_PRIMARY,
	CONCORD_ON_TIMEOUT_STALE
} ConcordOnTimeout;

/* where concord.query reads: the design's levels, weakest first */
typedef enum ConcordConsistency
{
	CONCORD_WEAK,
	CONCORD_EVENTUAL,
	CONCORD_BOUNDED,
	CONCORD_SESSION,
	CONCORD_STRONG
} ConcordConsistency;

extern char *concord_token;		/* reported: what this session has written and seen */
extern int	concord_track;		/* a ConcordTrack */
extern int	concord_wait_timeout_ms;	/* for a token, 0 = not at all */
extern int	concord_on_timeout; /* a ConcordOnTimeout */
extern int	concord_consistency;	/* a ConcordConsistency */
extern int	concord_max_staleness_ms;	/* of a copy read at level bounded */

/* registers */
extern int	concord_acceptors;	/* how many there shall be: 1, 3, 5 */
extern int	concord_register_timeout_ms;	/* for one operation */

/* locks */
extern int	concord_lease_duration_ms;	/* of a node's lease */
extern int	concord_max_locks;	/* of a server's sessions */
extern bool concord_fence_writes;	/* transactions check the fences of the session's locks */

/* what is done to a session whose lock is lost */
typedef enum ConcordOnLoss
{
	CONCORD_ON_LOSS_NOTHING,	/* its next commit fails */
	CONCORD_ON_LOSS_CANCEL,		/* and its running statement */
	CONCORD_ON_LOSS_TERMINATE	/* and its connection ends */
} ConcordOnLoss;

extern int	concord_on_lock_loss;	/* a ConcordOnLoss */

/*
 * The session room's part of concord.token: called after the syntax was found good, false refuses
 * it (GUC_check_errmsg was called); and when the value changes.  Unset without the preload.
 */
extern bool concord_token_own;	/* it is being set by the session room itself */
extern bool (*concord_token_check_hook) (const char *value, bool at_start);
extern void (*concord_token_assign_hook) (const char *value);

/* What is said of a text that is no token: concord_token_parse() has found this at the offset. */
typedef struct ConcordTokenComplaint
{
	const char *message;
	const char *hint;			/* or NULL */
	char		detail[128];
} ConcordTokenComplaint;

extern void concord_token_complain(ConcordTokenError error, size_t offset, size_t length,
								   ConcordTokenComplaint *complaint);

extern void concord_settings_init(void);

#endif							/* CONCORD_SETTINGS_H */
