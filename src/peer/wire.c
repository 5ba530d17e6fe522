/*
 * wire.c
 *		Opening libpq connections and reading their errors.
 *
 * WHAT: every connection of pg_concord to another server is opened here, with the same
 * keepalives, encoding and application name, so that a DBA recognises it in
 * pg_stat_activity as concord/<node>/<pid>.
 */
#include "postgres.h"

#include <poll.h>

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "peer/link.h"
#include "peer/peer.h"
#include "peer/wire.h"
#include "storage/fd.h"

static char local_node_name[NAMEDATALEN] = "?";

void
concord_peer_set_local_name(const char *name)
{
	strlcpy(local_node_name, name, sizeof(local_node_name));
}

/* Splits "keyword=value" in place of a palloc'd copy; the value follows the keyword's NUL. */
static char *
split_option(const char *option, char **value)
{
	char	   *copy = pstrdup(option);
	char	   *equals = strchr(copy, '=');

	if (equals == NULL)
		elog(ERROR, "connection option without a value");
	*equals = '\0';
	*value = equals + 1;
	return copy;
}

PGconn *
concord_wire_open(List *options, const char **why)
{
	/* defaults first: what the options say again wins */
	static const char *const default_keywords[] = {
		"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
		"tcp_user_timeout"
	};
	static const char *const default_values[] = {"1", "10", "5", "3", "30000"};
	int			n = 0;
	int			size = lengthof(default_keywords) + list_length(options) + 3;
	const char **keywords = palloc0(size * sizeof(char *));
	const char **values = palloc0(size * sizeof(char *));
	char	   *application_name;
	PGconn	   *conn;
	ListCell   *lc;

	for (int i = 0; i < (int) lengthof(default_keywords); i++)
	{
		keywords[n] = default_keywords[i];
		values[n++] = default_values[i];
	}
	foreach(lc, options)
	{
		char	   *value;

		keywords[n] = split_option(lfirst(lc), &value);
		values[n++] = value;
	}
	application_name = psprintf("concord/%s/%d", local_node_name, MyProcPid);
	keywords[n] = "application_name";
	values[n++] = application_name;
	keywords[n] = "client_encoding";
	values[n++] = GetDatabaseEncodingName();

	*why = NULL;
	if (!AcquireExternalFD())
	{
		*why = "too many files are open in this session";
		return NULL;
	}
	conn = PQconnectStartParams(keywords, values, 0);
	if (conn == NULL)
	{
		ReleaseExternalFD();
		*why = "out of memory";
		return NULL;
	}
	PQsetnonblocking(conn, 1);
	return conn;
}

bool
concord_wire_ready(PGconn *conn, PostgresPollingStatusType wanted)
{
	struct pollfd pfd;

	pfd.fd = PQsocket(conn);
	pfd.events = wanted == PGRES_POLLING_READING ? POLLIN : POLLOUT;
	pfd.revents = 0;
	return pfd.fd < 0 || poll(&pfd, 1, 0) != 0;
}

void
concord_wire_close(PGconn *conn)
{
	PQfinish(conn);
	ReleaseExternalFD();
}

static char *
copy_field(const PGresult *result, int field)
{
	const char *value = PQresultErrorField(result, field);

	return value != NULL ? pstrdup(value) : NULL;
}

void
concord_wire_error(const PGresult *result, ConcordRemoteError *error)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *position = PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION);

	memset(error, 0, sizeof(*error));
	error->sqlstate = sqlstate != NULL && strlen(sqlstate) == 5 ?
		MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3], sqlstate[4]) :
		ERRCODE_CONNECTION_FAILURE;
	error->message = copy_field(result, PG_DIAG_MESSAGE_PRIMARY);
	if (error->message == NULL)
	{
		/* made by libpq, not sent by the peer */
		error->message = pchomp(PQresultErrorMessage(result));
	}
	error->detail = copy_field(result, PG_DIAG_MESSAGE_DETAIL);
	error->hint = copy_field(result, PG_DIAG_MESSAGE_HINT);
	error->context = copy_field(result, PG_DIAG_CONTEXT);
	error->schema = copy_field(result, PG_DIAG_SCHEMA_NAME);
	error->table = copy_field(result, PG_DIAG_TABLE_NAME);
	error->column = copy_field(result, PG_DIAG_COLUMN_NAME);
	error->datatype = copy_field(result, PG_DIAG_DATATYPE_NAME);
	error->constraint = copy_field(result, PG_DIAG_CONSTRAINT_NAME);
	error->position = position != NULL ? atoi(position) : 0;
}

char *
concord_wire_conn_error(PGconn *conn)
{
	char	   *message = pchomp(PQerrorMessage(conn));

	return message[0] != '\0' ? message : pstrdup("The server closed the connection.");
}

void
concord_error_free(ConcordRemoteError *error)
{
	char	  **fields[] = {
		&error->message, &error->detail, &error->hint, &error->context, &error->schema,
		&error->table, &error->column, &error->datatype, &error->constraint
	};

	for (int i = 0; i < (int) lengthof(fields); i++)
	{
		if (*fields[i] != NULL)
			pfree(*fields[i]);
		*fields[i] = NULL;
	}
	error->sqlstate = 0;
	error->position = 0;
}
