/*
 * wire.h
 *		What link.c and the pooled connections share: opening a libpq connection, its errors.
 *
 * Only files of this room include it, since it shows libpq's types.
 */
#ifndef CONCORD_PEER_WIRE_H
#define CONCORD_PEER_WIRE_H

#include "libpq-fe.h"
#include "nodes/pg_list.h"

/* An error as a peer or libpq told it; strings are palloc'd, NULL when absent. */
typedef struct ConcordRemoteError
{
	int			sqlstate;
	char	   *message;
	char	   *detail;
	char	   *hint;
	char	   *context;
	char	   *schema;
	char	   *table;
	char	   *column;
	char	   *datatype;
	char	   *constraint;
	int			position;		/* of the error in the statement, 0 = not known */
} ConcordRemoteError;

/*
 * Starts a non-blocking connection with "keyword=value" options; NULL when no file descriptor or
 * memory could be had (*why then says so).  The descriptor is accounted for with fd.c; give
 * it back with concord_wire_close().
 */
extern PGconn *concord_wire_open(List *options, const char **why);
extern void concord_wire_close(PGconn *conn);

/* Is the socket ready for what PQconnectPoll() last asked for?  Never waits. */
extern bool concord_wire_ready(PGconn *conn, PostgresPollingStatusType wanted);

/* Copies the error out of a result (into CurrentMemoryContext). */
extern void concord_wire_error(const PGresult *result, ConcordRemoteError *error);

/* Frees the strings and empties the error. */
extern void concord_error_free(ConcordRemoteError *error);

/* libpq's message for the connection, palloc'd, without the trailing newline. */
extern char *concord_wire_conn_error(PGconn *conn);

/*
 * options.c: must this role's connections to the server have been opened with a password of its
 * own?
 */
extern bool concord_password_required(Oid serverid, Oid userid);

#endif							/* CONCORD_PEER_WIRE_H */
