/*
 * link.h
 *		A private connection to one peer, driven without blocking.
 *
 * Used for everything that is not part of a user's transaction: the worker's heartbeats and map
 * fetches, membership calls, the doctor.  Users' statements go through peer.h.  No libpq type
 * leaves this room.
 *
 * A link belongs to the memory context that was current at concord_link_open(), which must live
 * longer than the link, and holds a socket: it is closed by concord_link_close(), or when that
 * context is reset or deleted (a reset callback), so that an ERROR in the caller cannot leak a
 * socket.
 */
#ifndef CONCORD_PEER_LINK_H
#define CONCORD_PEER_LINK_H

#include "nodes/pg_list.h"
#include "utils/timestamp.h"

typedef struct ConcordLink ConcordLink;

typedef enum ConcordLinkState
{
	CONCORD_LINK_CONNECTING,	/* waits for the connection */
	CONCORD_LINK_IDLE,			/* connected, nothing asked */
	CONCORD_LINK_BUSY,			/* asked, answer not complete */
	CONCORD_LINK_ANSWERED,		/* concord_link_take() has something */
	CONCORD_LINK_FAILED			/* connection could not be made or was lost; take() says why */
} ConcordLinkState;

/* What came back. Everything is palloc'd in the context current at concord_link_take(). */
typedef struct ConcordReply
{
	bool		ok;
	bool		connection_lost;	/* not ok because of the connection, not of the statement */
	int			sqlstate;		/* when not ok (08006, 08001: the connection) */
	char	   *message;		/* when not ok; never contains a password */
	char	   *detail;			/* may be NULL */
	char	   *hint;			/* may be NULL */
	int			nrows;
	int			ncols;
	char	  **values;			/* [row * ncols + col], NULL for SQL NULL; text format, or bytes */
	int			length;			/* of the only value, of concord_link_send_bytes() */
	TimestampTz sent_at;
	TimestampTz received_at;
} ConcordReply;

#define concord_reply_value(r, row, col) ((r)->values[(row) * (r)->ncols + (col)])

/*
 * Starts to connect.  name: node's name for messages.  options: List of char* "keyword=value" libpq
 * options (as in map_node.options, a server's options, plus user and password).  Sets
 * application_name to concord/<local node or "?">/<pid>, client_encoding to the database's,
 * connect_timeout is not libpq's: callers bound their waits.  Never blocks except for name
 * resolution.  Never raises for a peer's fault.
 */
extern ConcordLink *concord_link_open(const char *name, List *options);

/*
 * Queues one statement (its own transaction); params in text format, types inferred by the
 * peer. Link must be CONNECTING or IDLE.
 */
extern void concord_link_send(ConcordLink *link, const char *sql, int nparams,
							  const char *const *params);

/*
 * The same for a statement that takes one bytea and returns one, both in binary format.  It is
 * prepared when it is first sent on this link; all calls on a link pass the same sql, a constant.
 */
extern void concord_link_send_bytes(ConcordLink *link, const char *sql, const void *data,
									size_t len);

/* Moves on as far as possible without waiting. */
extern ConcordLinkState concord_link_advance(ConcordLink *link);

/*
 * For callers with their own wait event set: the socket, or PGINVALID_SOCKET; *events gets
 * WL_SOCKET_* to wait for.
 */
extern pgsocket concord_link_socket(ConcordLink *link, int *events);

/*
 * Waits until one of the links changed state, the latch was set, or until (0 = for ever), advancing
 * all of them; handles interrupts (may raise 57014). Returns number of links in state BUSY or
 * CONNECTING.
 */
extern int	concord_link_wait(ConcordLink **links, int n, TimestampTz until);

/* The answer (or failure) and the link is IDLE again (or stays FAILED). NULL when there is none. */
extern ConcordReply *concord_link_take(ConcordLink *link);

/*
 * Send, wait at most timeout_ms, take. A timeout is a reply with ok = false, 08006 and "did not
 * answer within N ms", and the link FAILED. NULL is never returned.
 */
extern ConcordReply *concord_link_call(ConcordLink *link, const char *sql, int nparams,
									   const char *const *params, int timeout_ms);

/* Raises the reply's error again (with errcontext naming the node) if it is not ok. */
extern void concord_reply_check(ConcordLink *link, ConcordReply *reply);

extern void concord_link_close(ConcordLink *link);

/*
 * Parses a libpq connection string into "keyword=value" options.  *user receives the user or
 * NULL (it is not in the list).  Raises 22023 with a hint for password, sslpassword, and 42601
 * for what does not parse, 42704-like 22023 for options a node may not have (as
 * concord_option_allowed tells); never shows the string in the message.
 */
extern List *concord_conninfo_parse(const char *conninfo, char **user);

/*
 * Is keyword a libpq option that may stand on a server (in_mapping false) or in a user mapping
 * (in_mapping true: user, password, sslcert, sslkey, sslpassword, passfile ... plus
 * password_required)?
 */
extern bool concord_option_allowed(const char *keyword, bool in_mapping);

/*
 * "keyword=value" options to reach foreign server serverid as userid's mapping.
 * for_protocol: the mapping must be userid's own (not PUBLIC's) and no rights are checked;
 * otherwise USAGE on the server is checked for userid, PUBLIC's mapping is accepted and
 * password_required enforced (42501, 42704 with hint map_user, 2F003).
 */
extern List *concord_server_options(Oid serverid, Oid userid, bool for_protocol);

/* The same for users' connections to a copy of the node, which has an address of its own. */
extern List *concord_copy_options(const List *address, Oid serverid, Oid userid);

#endif							/* CONCORD_PEER_LINK_H */
