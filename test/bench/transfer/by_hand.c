/*
 * by_hand.c
 *		The transfer as a client makes it that holds a connection to each of the two nodes:
 *		BEGIN and an update on each, PREPARE TRANSACTION on each, COMMIT PREPARED on each.
 *
 * WHAT IT IS NOT: atomic when the client dies, since nobody writes a decision; nor does it send
 * to both nodes at once.  It is what an application does without a transaction manager.
 *
 *		by_hand <conninfo 1> <conninfo 2> <clients> <seconds>
 *
 * Draws keys as pgbench's scripts do: evenly from 4096 of each node's.  Writes what
 * lib/measure.sh reads of pgbench.
 */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KEYS 4096

static const char *const keys_sql =
	"SELECT min(aid) FROM (SELECT aid, ntile(4096) OVER (ORDER BY aid) AS part"
	" FROM pgbench_accounts) AS parts GROUP BY part";

typedef struct Node
{
	PGconn	   *conn;
	char		keys[KEYS][12];
} Node;

static void
die(PGconn *conn)
{
	fprintf(stderr, "by_hand: %s", PQerrorMessage(conn));
	exit(1);
}

static void
check(PGconn *conn, PGresult *result)
{
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		die(conn);
	PQclear(result);
}

static void
run(Node *node, const char *sql)
{
	check(node->conn, PQexec(node->conn, sql));
}

static void
open_node(Node *node, const char *conninfo, const char *update)
{
	PGresult   *result;

	node->conn = PQconnectdb(conninfo);
	if (PQstatus(node->conn) != CONNECTION_OK)
		die(node->conn);
	result = PQexec(node->conn, keys_sql);
	if (PQntuples(result) != KEYS)
		die(node->conn);
	for (int i = 0; i < KEYS; i++)
		snprintf(node->keys[i], sizeof(node->keys[i]), "%s", PQgetvalue(result, i, 0));
	PQclear(result);
	check(node->conn, PQprepare(node->conn, "begin", "BEGIN", 0, NULL));
	check(node->conn, PQprepare(node->conn, "update", update, 1, NULL));
}

static double
now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (double) at.tv_sec + (double) at.tv_nsec / 1e9;
}

static void
transfer(Node *nodes, int client, long serial)
{
	char		sql[100];

	for (int i = 0; i < 2; i++)
	{
		const char *key = nodes[i].keys[random() % KEYS];

		check(nodes[i].conn, PQexecPrepared(nodes[i].conn, "begin", 0, NULL, NULL, NULL, 0));
		check(nodes[i].conn, PQexecPrepared(nodes[i].conn, "update", 1, &key, NULL, NULL, 0));
	}
	for (int i = 0; i < 2; i++)
	{
		snprintf(sql, sizeof(sql), "PREPARE TRANSACTION 'by_hand:%d:%ld:%d'", client, serial, i);
		run(&nodes[i], sql);
	}
	for (int i = 0; i < 2; i++)
	{
		snprintf(sql, sizeof(sql), "COMMIT PREPARED 'by_hand:%d:%ld:%d'", client, serial, i);
		run(&nodes[i], sql);
	}
}

/* One client: as many transfers as the time allows, from the moment that start is closed. */
static long
client(char **conninfo, double seconds, int ready, int start)
{
	static Node nodes[2];
	double		end;
	long		n = 0;
	char		byte = 0;

	srandom((unsigned) getpid());
	open_node(&nodes[0], conninfo[0],
			  "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = $1");
	open_node(&nodes[1], conninfo[1],
			  "UPDATE pgbench_accounts SET abalance = abalance - 1 WHERE aid = $1");
	if (write(ready, &byte, 1) != 1 || read(start, &byte, 1) != 0)
		exit(1);
	for (end = now() + seconds; now() < end; n++)
		transfer(nodes, getpid(), n);
	PQfinish(nodes[0].conn);
	PQfinish(nodes[1].conn);
	return n;
}

int
main(int argc, char **argv)
{
	int			ready[2];
	int			start[2];
	int			counts[2];
	int			clients = argc == 5 ? atoi(argv[3]) : 0;
	double		seconds;
	double		began;
	long		total = 0;
	char		byte;

	if (clients < 1 || (seconds = atof(argv[4])) <= 0 || pipe(ready) || pipe(start) || pipe(counts))
		return 2;
	for (int i = 0; i < clients; i++)
	{
		if (fork() == 0)
		{
			long		n;

			close(start[1]);
			n = client(argv + 1, seconds, ready[1], start[0]);
			_exit(write(counts[1], &n, sizeof(n)) == sizeof(n) ? 0 : 1);
		}
	}
	close(ready[1]);
	close(counts[1]);
	for (int i = 0; i < clients; i++)
		if (read(ready[0], &byte, 1) != 1)
			return 1;
	began = now();
	close(start[1]);
	for (int i = 0; i < clients; i++)
	{
		long		n;

		if (read(counts[0], &n, sizeof(n)) != sizeof(n))
			return 1;
		total += n;
	}
	seconds = now() - began;
	while (wait(NULL) > 0)
		;
	printf("number of transactions actually processed: %ld\n", total);
	printf("latency average = %.3f ms\n", 1000 * seconds * clients / (double) total);
	printf("tps = %f\n", (double) total / seconds);
	return total > 0 ? 0 : 1;
}
