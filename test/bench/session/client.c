/*
 * client.c
 *		The client of the bench "session": a session that writes on a primary and reads on a
 *		standby, and sessions that wait for a token while a standby replays.
 *
 *	client loop <primary> <standby> <way> <seconds>
 *		Prints a line for each write: microseconds from its answer until the wait had returned,
 *		until the row was read, and 1 if the row read was not the one written.
 *	client replay <standby> <LSN> <reached>
 *		Reads tokens from stdin, has one session wait for each, resumes replay, and prints the
 *		milliseconds until the LSN was replayed, those of processor time that the startup process
 *		used, and how many waits succeeded.  That must be as many as said; the others are cancelled.
 *		An empty line is a session that only is there.
 *	client idle <standby> <seconds>
 *		Has a session wait for each token on stdin, and prints the milliseconds of processor time
 *		that the startup process and the waiting sessions used.
 *
 * Servers are given as connection strings.  Whatever goes wrong ends the program with a message.
 */
#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <libpq-fe.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GIVE_UP_US 10000000
#define LOOK_EVERY_US 2000		/* at a standby that replays a backlog */
#define WAITERS_MAX 1000

static void
die(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	(void) vfprintf(stderr, format, args);
	va_end(args);
	(void) fputc('\n', stderr);
	exit(1);
}

static int64_t
now_us(void)
{
	struct timespec now;

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void
sleep_us(int64_t us)
{
	struct timespec pause = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

	(void) nanosleep(&pause, NULL);
}

/* ---------------------------------------------------------------- queries */

static PGconn *
open_session(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
		die("%s", PQerrorMessage(conn));
	return conn;
}

static PGresult *
succeeded(PGconn *conn, PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		die("%s", PQerrorMessage(conn));
	return result;
}

static void
prepare(PGconn *conn, const char *name, const char *sql)
{
	PQclear(succeeded(conn, PQprepare(conn, name, sql, 0, NULL)));
}

/* Runs a prepared statement with at most one parameter; returns its only value in buffer. */
static const char *
ask(PGconn *conn, const char *name, const char *param, char buffer[64])
{
	PGresult   *result = succeeded(conn, PQexecPrepared(conn, name, param == NULL ? 0 : 1, &param,
														NULL, NULL, 0));

	(void) snprintf(buffer, 64, "%s", PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
	PQclear(result);
	return buffer;
}

/* SET concord.token = ..., malloc'd */
static char *
set_token(PGconn *conn, const char *token)
{
	char	   *literal = PQescapeLiteral(conn, token, strlen(token));
	size_t		size = strlen(literal) + 32;
	char	   *sql = malloc(size);

	if (sql == NULL)
		die("out of memory");
	(void) snprintf(sql, size, "SET concord.token = %s", literal);
	PQfreemem(literal);
	return sql;
}

/* ---------------------------------------------------------------- loop */

typedef struct Loop
{
	PGconn	   *primary;
	PGconn	   *standby;
	const char *token;			/* what the last write gave */
	char		value[64];		/* what was read */
} Loop;

static void
wait_set(Loop *loop)
{
	char	   *sql = set_token(loop->standby, loop->token);

	PQclear(succeeded(loop->standby, PQexec(loop->standby, sql)));
	free(sql);
}

/* The next result of a pipeline, and the end of results of its command. */
static PGresult *
next_result(PGconn *conn)
{
	PGresult   *result = succeeded(conn, PQgetResult(conn));

	if (PQgetResult(conn) != NULL)
		die("a command of the pipeline has two results");
	return result;
}

/* SET and the read in one flush; the row is there when it returns. */
static void
wait_pipelined(Loop *loop)
{
	PGconn	   *conn = loop->standby;
	char	   *sql = set_token(conn, loop->token);
	PGresult   *result;

	if (PQenterPipelineMode(conn) != 1 ||
		PQsendQueryParams(conn, sql, 0, NULL, NULL, NULL, NULL, 0) != 1 ||
		PQsendQueryPrepared(conn, "read", 0, NULL, NULL, NULL, 0) != 1 ||
		PQpipelineSync(conn) != 1)
		die("%s", PQerrorMessage(conn));
	free(sql);
	PQclear(next_result(conn));
	result = next_result(conn);
	(void) snprintf(loop->value, sizeof(loop->value), "%s", PQgetvalue(result, 0, 0));
	PQclear(result);
	result = PQgetResult(conn);
	if (PQresultStatus(result) != PGRES_PIPELINE_SYNC || PQexitPipelineMode(conn) != 1)
		die("%s", PQerrorMessage(conn));
	PQclear(result);
}

static void
wait_set_config(Loop *loop)
{
	PQclear(succeeded(loop->standby, PQexecPrepared(loop->standby, "set_config", 1, &loop->token,
													NULL, NULL, 0)));
}

static void
poll_every(Loop *loop, int64_t us)
{
	char		lsn[64];
	char		reached[64];
	int64_t		start = now_us();

	(void) ask(loop->primary, "position", NULL, lsn);
	while (strcmp(ask(loop->standby, "reached", lsn, reached), "t") != 0)
	{
		if (now_us() - start > GIVE_UP_US)
			die("%s was not replayed in time", lsn);
		if (us > 0)
			sleep_us(us);
	}
}

static void
poll_1ms(Loop *loop)
{
	poll_every(loop, 1000);
}

static void
poll_10ms(Loop *loop)
{
	poll_every(loop, 10000);
}

static void
poll_always(Loop *loop)
{
	poll_every(loop, 0);
}

static void
wait_not(Loop *loop)
{
	(void) loop;
}

static const struct
{
	const char *name;
	void		(*wait) (Loop *loop);
}			ways[] =
{
	{"set", wait_set},
	{"pipelined", wait_pipelined},
	{"set_config", wait_set_config},
	{"poll_1ms", poll_1ms},
	{"poll_10ms", poll_10ms},
	{"poll_always", poll_always},
	{"none", wait_not},
};

static void
run_loop(const char *primary, const char *standby, const char *way, double seconds)
{
	Loop		loop = {.primary = open_session(primary), .standby = open_session(standby)};
	int64_t		end = now_us() + (int64_t) (seconds * 1e6);
	void		(*wait) (Loop *loop) = NULL;
	char		written[64];

	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		if (strcmp(ways[i].name, way) == 0)
			wait = ways[i].wait;
	if (wait == NULL)
		die("there is no way \"%s\"", way);
	prepare(loop.primary, "write", "UPDATE session_counter SET v = v + 1 RETURNING v");
	prepare(loop.primary, "position", "SELECT pg_current_wal_flush_lsn()");
	prepare(loop.standby, "read", "SELECT v FROM session_counter");
	prepare(loop.standby, "reached", "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn");
	prepare(loop.standby, "set_config", "SELECT set_config('concord.token', $1, false)");

	while (now_us() < end)
	{
		int64_t		answered;
		int64_t		waited;

		(void) ask(loop.primary, "write", NULL, written);
		answered = now_us();
		loop.token = PQparameterStatus(loop.primary, "concord.token");
		if (loop.token == NULL || loop.token[0] == '\0')
			die("the write has given no token");
		wait(&loop);
		waited = now_us();
		if (wait != wait_pipelined)
			(void) ask(loop.standby, "read", NULL, loop.value);
		(void) printf("%" PRId64 " %" PRId64 " %d\n", waited - answered, now_us() - answered,
					  strcmp(loop.value, written) != 0);
	}
	PQfinish(loop.primary);
	PQfinish(loop.standby);
}

/* ---------------------------------------------------------------- waiters */

static PGconn *waiters[WAITERS_MAX];
static int	nwaiters = 0;

static void
await_waiters(PGconn *conn)
{
	char		count[64];
	int64_t		start = now_us();

	prepare(conn, "waiting", "SELECT count(*) FROM concord.token_waits");
	while (atoi(ask(conn, "waiting", NULL, count)) < nwaiters)
	{
		if (now_us() - start > GIVE_UP_US)
			die("%s sessions wait, of %d", count, nwaiters);
		sleep_us(LOOK_EVERY_US);
	}
}

static void
start_waiters(PGconn *conn, const char *conninfo)
{
	char		line[256];

	while (fgets(line, sizeof(line), stdin) != NULL && nwaiters < WAITERS_MAX)
	{
		PGconn	   *waiter = open_session(conninfo);
		char	   *sql;

		line[strcspn(line, "\n")] = '\0';
		if (line[0] == '\0')
			continue;			/* its session ends with the program */
		sql = set_token(waiter, line);
		PQclear(succeeded(waiter, PQexec(waiter, "SET concord.wait_timeout = '600s'")));
		if (PQsendQuery(waiter, sql) != 1)
			die("%s", PQerrorMessage(waiter));
		free(sql);
		waiters[nwaiters++] = waiter;
	}
	if (nwaiters > 0)
		await_waiters(conn);
}

static bool
has_answer(PGconn *conn)
{
	if (PQconsumeInput(conn) != 1)
		die("%s", PQerrorMessage(conn));
	return !PQisBusy(conn);
}

/* Ends all waits; returns how many had succeeded, after waiting for so many. */
static int
end_waiters(int expected)
{
	int			reached = 0;
	int64_t		start = now_us();
	bool		done[WAITERS_MAX] = {false};

	while (reached < expected && now_us() - start < GIVE_UP_US)
	{
		for (int i = 0; i < nwaiters; i++)
			if (!done[i] && has_answer(waiters[i]))
			{
				PQclear(succeeded(waiters[i], PQgetResult(waiters[i])));
				done[i] = true;
				reached++;
			}
		sleep_us(LOOK_EVERY_US);
	}
	for (int i = 0; i < nwaiters; i++)
	{
		char		error[256];
		PGcancel   *cancel = PQgetCancel(waiters[i]);

		if (!done[i] && has_answer(waiters[i]))
			reached++;
		else if (!done[i] && PQcancel(cancel, error, sizeof(error)) != 1)
			die("%s", error);
		PQfreeCancel(cancel);
		PQfinish(waiters[i]);
	}
	return reached;
}

/* ---------------------------------------------------------------- processor time */

/* Milliseconds a process has been on a processor. */
static double
cpu_ms(int pid)
{
	char		path[64];
	FILE	   *file;
	unsigned long long ns = 0;

	(void) snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
	file = fopen(path, "r");
	if (file == NULL || fscanf(file, "%llu", &ns) != 1)
		die("cannot read %s", path);
	(void) fclose(file);
	return (double) ns / 1e6;
}

static double
waiters_cpu_ms(void)
{
	double		sum = 0;

	for (int i = 0; i < nwaiters; i++)
		sum += cpu_ms(PQbackendPID(waiters[i]));
	return sum;
}

static int
startup_pid(PGconn *conn)
{
	char		pid[64];

	prepare(conn, "startup", "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'");
	return atoi(ask(conn, "startup", NULL, pid));
}

static void
run_replay(const char *standby, const char *lsn, int expected)
{
	PGconn	   *conn = open_session(standby);
	int			pid = startup_pid(conn);
	char		reached[64];
	int64_t		start;
	int64_t		end;
	double		cpu;

	prepare(conn, "reached", "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn");
	prepare(conn, "resume", "SELECT pg_wal_replay_resume()");
	start_waiters(conn, standby);
	cpu = cpu_ms(pid);
	start = now_us();
	(void) ask(conn, "resume", NULL, reached);
	while (strcmp(ask(conn, "reached", lsn, reached), "t") != 0)
		sleep_us(LOOK_EVERY_US);
	end = now_us();
	cpu = cpu_ms(pid) - cpu;
	(void) printf("%.3f %.3f %d\n", (double) (end - start) / 1e3, cpu, end_waiters(expected));
	PQfinish(conn);
}

static void
run_idle(const char *standby, double seconds)
{
	PGconn	   *conn = open_session(standby);
	int			pid = startup_pid(conn);
	double		startup;
	double		sessions;

	start_waiters(conn, standby);
	startup = cpu_ms(pid);
	sessions = waiters_cpu_ms();
	sleep_us((int64_t) (seconds * 1e6));
	(void) printf("%.3f %.3f\n", cpu_ms(pid) - startup, waiters_cpu_ms() - sessions);
	(void) end_waiters(0);
	PQfinish(conn);
}

int
main(int argc, char **argv)
{
	if (argc == 6 && strcmp(argv[1], "loop") == 0)
		run_loop(argv[2], argv[3], argv[4], atof(argv[5]));
	else if (argc == 5 && strcmp(argv[1], "replay") == 0)
		run_replay(argv[2], argv[3], atoi(argv[4]));
	else if (argc == 4 && strcmp(argv[1], "idle") == 0)
		run_idle(argv[2], atof(argv[3]));
	else
		die("usage: client loop|replay|idle ..., see the source");
	return 0;
}
