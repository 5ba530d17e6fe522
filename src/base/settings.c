/*
 * settings.c
 *		Every setting of pg_concord, in one list.
 *
 * WHAT: declares the concord.* settings with units, ranges and descriptions.  The prefix is
 * reserved, so that a misspelt setting is an error and not a silent placeholder.
 */
#include "postgres.h"

#include <limits.h>

#include "base/settings.h"
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
char	   *concord_branch_state;

static void
define_milliseconds(const char *name, const char *description, const char *more, int *variable,
					int boot, int min, GucContext context)
{
	DefineCustomIntVariable(name, description, more, variable, boot, min, INT_MAX, context,
							GUC_UNIT_MS, NULL, NULL, NULL);
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

	DefineCustomStringVariable("concord.branch_state",
							   "Shows whether the branch run for another node has written.",
							   "It is reported to that node with each answer.",
							   &concord_branch_state, "", PGC_INTERNAL,
							   GUC_REPORT | GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE |
							   GUC_DISALLOW_IN_FILE,
							   NULL, NULL, NULL);

	MarkGUCPrefixReserved("concord");
}
