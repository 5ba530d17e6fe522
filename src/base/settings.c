/*
 * settings.c
 *		Every setting of pg_concord, in one list.
 *
 * WHAT: declares the concord.* settings with units, ranges and descriptions.  The prefix is
 * reserved, so that a misspelt setting is an error and not silently kept.
 */
#include "postgres.h"

#include <limits.h>

#include "base/settings.h"
#include "miscadmin.h"
#include "core/commit.h"
#include "utils/guc.h"

char	   *concord_node_role;
int			concord_connect_timeout_ms;
int			concord_statement_deadline_ms;
int			concord_cleanup_timeout_ms;
int			concord_max_peer_connections;
int			concord_idle_timeout_ms;
int			concord_prepared_statements;
int			concord_heartbeat_interval_ms;
int			concord_suspect_after_ms;
int			concord_down_after_ms;
int			concord_view_timeout_ms;
int			concord_resolve_delay_ms;
int			concord_deadlock_timeout_ms;
int			concord_outcome_retention_s;
char	   *concord_branch_state;
int			concord_commit_protocol;
bool		concord_commit_wait;
int			concord_commit_timeout_ms;
bool		concord_strict_serializable;
char	   *concord_transaction;
char	   *concord_transaction_label;
char	   *concord_token;
int			concord_track;
int			concord_wait_timeout_ms;
int			concord_on_timeout;
int			concord_consistency;
int			concord_max_staleness_ms;
int			concord_acceptors;
int			concord_register_timeout_ms;
int			concord_lease_duration_ms;
int			concord_on_lock_loss;
int			concord_max_locks;
bool		concord_fence_writes;
bool		concord_token_own = false;
bool		(*concord_token_check_hook) (const char *value, bool at_start) = NULL;
void		(*concord_token_assign_hook) (const char *value) = NULL;

static const struct config_enum_entry protocols[] = {
	{"2pc", CONCORD_PROTOCOL_2PC, false},
	{"paxos", CONCORD_PROTOCOL_PAXOS, false},
	{NULL, 0, false}
};

static const struct config_enum_entry tracks[] = {
	{"off", CONCORD_TRACK_OFF, false},
	{"writes", CONCORD_TRACK_WRITES, false},
	{"reads", CONCORD_TRACK_READS, false},
	{NULL, 0, false}
};

static const struct config_enum_entry timeout_actions[] = {
	{"error", CONCORD_ON_TIMEOUT_ERROR, false},
	{"primary", CONCORD_ON_TIMEOUT_PRIMARY, false},
	{"stale", CONCORD_ON_TIMEOUT_STALE, false},
	{NULL, 0, false}
};

static const struct config_enum_entry levels[] = {
	{"weak", CONCORD_WEAK, false},
	{"eventual", CONCORD_EVENTUAL, false},
	{"bounded", CONCORD_BOUNDED, false},
	{"session", CONCORD_SESSION, false},
	{"strong", CONCORD_STRONG, false},
	{NULL, 0, false}
};

static const struct config_enum_entry loss_actions[] = {
	{"nothing", CONCORD_ON_LOSS_NOTHING, false},
	{"cancel", CONCORD_ON_LOSS_CANCEL, false},
	{"terminate", CONCORD_ON_LOSS_TERMINATE, false},
	{NULL, 0, false}
};

static bool
check_protocol(int *value, void **extra, GucSource source)
{
	if (*value != CONCORD_PROTOCOL_PAXOS)
		return true;
	GUC_check_errcode(ERRCODE_FEATURE_NOT_SUPPORTED);
	GUC_check_errmsg("commit protocol \"paxos\" is not available yet");
	GUC_check_errhint("Use \"2pc\".");
	return false;
}

static bool
check_label(char **value, void **extra, GucSource source)
{
	if (*value == NULL || (*value)[0] == '\0')
		return true;
	switch (concord_label_check(*value, strlen(*value)))
	{
		case CONCORD_LABEL_TOO_LONG:
			GUC_check_errdetail("A transaction label has at most %d bytes.", CONCORD_LABEL_MAX);
			return false;
		case CONCORD_LABEL_CONTROL:
			GUC_check_errdetail("A transaction label must not contain control characters.");
			return false;
		case CONCORD_LABEL_RESERVED:
			GUC_check_errdetail("A transaction label must not begin with \"%s\".",
								CONCORD_GID_PREFIX);
			return false;
		default:
			return true;
	}
}

void
concord_token_complain(ConcordTokenError error, size_t offset, size_t length,
					   ConcordTokenComplaint *complaint)
{
	complaint->hint = NULL;
	switch (error)
	{
		case CONCORD_TOKEN_VERSION:
			complaint->message = "session token is of an unknown version";
			snprintf(complaint->detail, sizeof(complaint->detail),
					 "This node reads tokens that begin with \"%s\".", CONCORD_TOKEN_PREFIX);
			break;
		case CONCORD_TOKEN_TOO_LONG:
			complaint->message = "session token is too long";
			snprintf(complaint->detail, sizeof(complaint->detail),
					 "A token has at most %d positions.", CONCORD_TOKEN_POSITIONS);
			break;
		default:
			complaint->message = "malformed session token";
			snprintf(complaint->detail, sizeof(complaint->detail),
					 "It stops being a token after %zu bytes of %zu.", offset, length);
			complaint->hint = "Pass on exactly what a node reported in concord.token.";
			break;
	}
}

static bool
check_token(char **value, void **extra, GucSource source)
{
	static ConcordPosition positions[CONCORD_TOKEN_POSITIONS];
	ConcordToken token = {.max = CONCORD_TOKEN_POSITIONS, .positions = positions};
	size_t		offset = 0;
	ConcordTokenError error;

	if (*value == NULL || (*value)[0] == '\0' || concord_token_own)
		return true;
	error = concord_token_parse(*value, strlen(*value), &token, &offset);
	if (error != CONCORD_TOKEN_OK)
	{
		ConcordTokenComplaint complaint;

		concord_token_complain(error, offset, strlen(*value), &complaint);
		GUC_check_errmsg("%s", complaint.message);
		GUC_check_errdetail("%s", complaint.detail);
		if (complaint.hint != NULL)
			GUC_check_errhint("%s", complaint.hint);
		return false;
	}
	if (concord_token_check_hook == NULL)
	{
		GUC_check_errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE);
		GUC_check_errmsg("pg_concord must be loaded via shared_preload_libraries");
		return false;
	}
	return concord_token_check_hook(*value, source < PGC_S_SESSION);
}

static void
assign_token(const char *value, void *extra)
{
	if (concord_token_assign_hook != NULL)
		concord_token_assign_hook(value);
}

static void
define_milliseconds(const char *name, const char *description, const char *more, int *variable,
					int boot, int min, GucContext context)
{
	DefineCustomIntVariable(name, description, more, variable, boot, min, INT_MAX, context,
							GUC_UNIT_MS, NULL, NULL, NULL);
}

static void
define_session_settings(void)
{
	DefineCustomStringVariable("concord.token",
							   "Shows what this session has written and seen, as a token for other sessions.",
							   "Setting it makes what follows see at least that; see concord.wait_timeout.",
							   &concord_token, "", PGC_USERSET,
							   GUC_REPORT | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE,
							   check_token, assign_token, NULL);
	DefineCustomEnumVariable("concord.track",
							 "Sets what concord.token carries.",
							 "writes: what the session committed; reads: also what it saw.",
							 &concord_track, CONCORD_TRACK_WRITES, tracks, PGC_USERSET, 0,
							 NULL, NULL, NULL);
	define_milliseconds("concord.wait_timeout",
						"Sets the time to wait until a token that was set is reached.",
						"0 does not wait; what happens then is said by concord.on_timeout.",
						&concord_wait_timeout_ms, 10000, 0, PGC_USERSET);
	DefineCustomEnumVariable("concord.on_timeout",
							 "Sets what happens when a token is not reached in time.",
							 "error; primary: routed reads go to the primary, others are an error; "
							 "stale: go on without.",
							 &concord_on_timeout, CONCORD_ON_TIMEOUT_ERROR, timeout_actions,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("concord.consistency",
							 "Sets from which copy of a node concord.query reads.",
							 "weak, eventual, bounded (see concord.max_staleness), session (see "
							 "concord.token) or strong (the primary).",
							 &concord_consistency, CONCORD_STRONG, levels, PGC_USERSET, 0,
							 NULL, NULL, NULL);
	define_milliseconds("concord.max_staleness",
						"Sets how old a copy may be that is read at level bounded.", NULL,
						&concord_max_staleness_ms, 10000, 0, PGC_USERSET);
}

/* An even number of acceptors bears no more losses than the odd one below it. */
static bool
check_acceptors(int *value, void **extra, GucSource source)
{
	if (*value % 2 == 1)
		return true;
	GUC_check_errdetail("The number of acceptors must be odd.");
	GUC_check_errhint("1, 3 and 5 bear the loss of none, one and two of them.");
	return false;
}

static void
define_quorum_settings(void)
{
	DefineCustomIntVariable("concord.acceptors",
							"Sets how many nodes keep the registers and locks of the cluster.",
							"As many as the cluster has if those are fewer: 3 need three nodes, 5 "
							"need five.  The authority's setting counts.",
							&concord_acceptors, 3, 1, 5, PGC_SIGHUP, 0,
							check_acceptors, NULL, NULL);
	define_milliseconds("concord.register_timeout",
						"Sets the time allowed for one operation on a register.",
						"It is given up when no majority of the acceptors has answered by then.",
						&concord_register_timeout_ms, 5000, 1, PGC_USERSET);
	define_milliseconds("concord.lease_duration",
						"Sets how long the locks of a node outlive its last contact to the acceptors.",
						"It renews its lease, one for all its sessions' locks, every third of that.",
						&concord_lease_duration_ms, 10000, 100, PGC_SIGHUP);
	DefineCustomEnumVariable("concord.on_lock_loss",
							 "Sets what happens to a session that loses a lease lock.",
							 "Its commits fail in any case until it has let go of the lock.",
							 &concord_on_lock_loss, CONCORD_ON_LOSS_CANCEL, loss_actions,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("concord.fence_writes",
							 "Sets whether transactions check the fences of the session's lease locks.",
							 "Before their first statement that uses a table, on each node, as "
							 "concord.check_fence() does.",
							 &concord_fence_writes, false, PGC_USERSET, 0, NULL, NULL, NULL);
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable("concord.max_locks",
								"Sets how many lease locks the sessions of this server can have.",
								"Those that are asked for, waited for and held, each once for a session.",
								&concord_max_locks, 1024, 1, 1000000, PGC_POSTMASTER,
								0, NULL, NULL, NULL);
}

void
concord_settings_init(void)
{
	DefineCustomStringVariable("concord.node_role",
							   "Sets the role that the nodes' own traffic runs as.",
							   "It is created by create_cluster and add_node where it is missing.",
							   &concord_node_role, "concord_node", PGC_SIGHUP,
							   0, NULL, NULL, NULL);

	define_milliseconds("concord.connect_timeout",
						"Sets the time allowed to open a connection to a peer.",
						"It also bounds the wait for a free connection and for a newer map.",
						&concord_connect_timeout_ms, 10000, 1, PGC_USERSET);
	define_milliseconds("concord.statement_deadline",
						"Sets the time after which a peer that has not answered a statement is given up.",
						"0 means no limit; statement_timeout and cancel requests always reach the peer.",
						&concord_statement_deadline_ms, 0, 0, PGC_USERSET);
	define_milliseconds("concord.cleanup_timeout",
						"Sets the time allowed to cancel and roll back a remote statement after an error.",
						"When it is over the connection is closed and the peer ends the transaction by itself.",
						&concord_cleanup_timeout_ms, 5000, 1, PGC_USERSET);
	define_milliseconds("concord.connection_idle_timeout",
						"Sets the time after which an unused connection to a peer is closed.",
						"0 keeps it until the session ends.",
						&concord_idle_timeout_ms, 60000, 0, PGC_USERSET);
	DefineCustomIntVariable("concord.max_peer_connections",
							"Sets the number of users' connections this node's database may have to each peer.",
							"-1 means no limit.  A session that gets none within concord.connect_timeout is refused.",
							&concord_max_peer_connections, 25, -1, 10000, PGC_SIGHUP,
							0, NULL, NULL, NULL);
	DefineCustomIntVariable("concord.prepared_statements",
							"Sets the number of statements kept prepared on each connection to a peer.",
							"0 prepares every statement anew.",
							&concord_prepared_statements, 100, 0, 10000, PGC_USERSET,
							0, NULL, NULL, NULL);

	define_milliseconds("concord.heartbeat_interval",
						"Sets the time between two heartbeats to a peer.", NULL,
						&concord_heartbeat_interval_ms, 1000, 10, PGC_SIGHUP);
	define_milliseconds("concord.suspect_after",
						"Sets the silence after which a peer is shown as suspect.", NULL,
						&concord_suspect_after_ms, 3000, 10, PGC_SIGHUP);
	define_milliseconds("concord.down_after",
						"Sets the silence after which a peer is shown as down.", NULL,
						&concord_down_after_ms, 10000, 10, PGC_SIGHUP);
	define_milliseconds("concord.view_timeout",
						"Sets the time a cluster-wide view or check waits for other nodes.",
						"A node that has not answered by then is shown as not reachable.",
						&concord_view_timeout_ms, 2000, 1, PGC_USERSET);

	DefineCustomEnumVariable("concord.commit_protocol",
							 "Sets how a transaction that wrote on several nodes is committed.",
							 "2pc stores the decision with the coordinator's own transaction.",
							 &concord_commit_protocol, CONCORD_PROTOCOL_2PC, protocols,
							 PGC_USERSET, 0, check_protocol, NULL, NULL);
	DefineCustomBoolVariable("concord.commit_wait",
							 "Sets whether COMMIT waits until all nodes have finished the transaction.",
							 "The transaction is decided before; without it another session may "
							 "still miss its effects on other nodes for a moment.",
							 &concord_commit_wait, true, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("concord.strict_serializable",
							 "Sets whether a SERIALIZABLE transaction may use more than one node.",
							 "It is serializable on each node by itself; off warns, on refuses.",
							 &concord_strict_serializable, false, PGC_USERSET, 0, NULL, NULL, NULL);
	define_milliseconds("concord.commit_timeout",
						"Sets the time COMMIT waits for nodes to finish a decided transaction.",
						"After it a WARNING tells which node finishes later by itself.",
						&concord_commit_timeout_ms, 10000, 1, PGC_USERSET);
	DefineCustomStringVariable("concord.transaction",
							   "Shows the global id of the running distributed transaction.",
							   "It is reported to the client before COMMIT; see transaction_outcome().",
							   &concord_transaction, "", PGC_INTERNAL,
							   GUC_REPORT | GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE |
							   GUC_DISALLOW_IN_FILE, NULL, NULL, NULL);
	DefineCustomStringVariable("concord.transaction_label",
							   "Sets the client's own name for its transaction.",
							   "Use SET LOCAL; it must be unique, and transaction_outcome() answers by it.",
							   &concord_transaction_label, "", PGC_USERSET,
							   GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE, check_label, NULL, NULL);
	define_milliseconds("concord.resolve_delay",
						"Sets the age at which a prepared branch is looked after by its node.",
						"0 asks its coordinator at once, which then often answers that it is still at work.",
						&concord_resolve_delay_ms, 500, 0, PGC_SIGHUP);
	define_milliseconds("concord.deadlock_timeout",
						"Sets the time to wait for a lock before looking for a deadlock between nodes.",
						"Deadlocks within one server are found by PostgreSQL, see deadlock_timeout.",
						&concord_deadlock_timeout_ms, 1000, 1, PGC_SUSET);
	DefineCustomIntVariable("concord.outcome_retention",
							"Sets the time for which the outcome of a distributed transaction is kept.",
							"After it concord.transaction_outcome() answers unknown.",
							&concord_outcome_retention_s, 86400, 0, INT_MAX, PGC_SIGHUP,
							GUC_UNIT_S, NULL, NULL, NULL);

	DefineCustomStringVariable("concord.branch_state",
							   "Shows whether the branch run for another node has written or holds locks.",
							   "It is reported to that node with each answer.",
							   &concord_branch_state, "", PGC_INTERNAL,
							   GUC_REPORT | GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE |
							   GUC_DISALLOW_IN_FILE,
							   NULL, NULL, NULL);

	define_session_settings();
	define_quorum_settings();

	MarkGUCPrefixReserved("concord");
}
