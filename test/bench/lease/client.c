/*
 * client.c
 *		The client of the bench "lease": sessions that take and give back locks, or change
 *		registers, in pg_concord or in etcd.
 *
 *	client lock <seconds> <clients> pg|etcd <address> ...
 *		Each client takes and gives back a lock of its own, in a loop.
 *	client set <seconds> <clients> pg|etcd <address> ...
 *		Each client changes a register (a key) of its own by compare-and-set, in a loop.
 *	client read <seconds> <clients> pg|etcd <address> ...
 *		The same, reading what takes no work: what every other operation contains besides its
 *		own.  etcd: from the memory of that member (serializable).  pg: SELECT of its parameter.
 *	client get <seconds> <clients> pg|etcd <address> ...
 *		Reads such that a majority has confirmed the value; nothing is written.
 *		These four print p50 and p99 of what one operation took (of "lock" that is two
 *		statements), operations per second, and how many there were.
 *	client handover <rounds> <waiters> <settle ms> pg|etcd <address> ...
 *		One client holds a lock for which the others wait; it gives it back, and so does each who
 *		gets it.  Prints a line for each hand-over: microseconds from the return of the one's
 *		unlock until the other's lock returned, the same from that unlock's call, and 1 if they
 *		are on two nodes.
 *	client leader etcd <address> ...
 *		Prints the address of the leader; fails while there is none.
 *
 * An address is a connection string (pg) or a port of 127.0.0.1 (etcd); clients are spread over
 * them.  etcd is asked through its gateway, in JSON over one persistent HTTP connection for each
 * client.  All are threads of this process, so one clock serves all.  Whatever goes wrong ends the
 * program with a message.
 */
#define _POSIX_C_SOURCE 200809L

#include <arpa/inet.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS_MAX 200
#define WARM_UP 5				/* operations of each client that are not counted */
#define LEASE_S "60"			/* of etcd's leases; its lock service renews them */
#define ANSWER_MAX 65536

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

/* ---------------------------------------------------------------- a session of either */

typedef struct Session
{
	char		name[64];		/* of its lock, and its register */
	char		version[32];	/* of the register */
	PGconn	   *conn;			/* pg */
	int			sock;			/* etcd, from here on */
	char		name64[96];
	char		lease[32];
	char		key[256];		/* of the lock that it has */
	char	   *answer;
} Session;

typedef struct System
{
	const char *name;
	void		(*open) (Session *session, const char *address);
	void		(*lock) (Session *session);
	void		(*unlock) (Session *session);
	void		(*set) (Session *session);
	void		(*read) (Session *session);
	void		(*get) (Session *session);
	void		(*close) (Session *session);
} System;

/* ---- pg */

static PGresult *
pg_succeeded(PGconn *conn, PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		die("%s", PQerrorMessage(conn));
	return result;
}

static void
pg_ask(Session *session, const char *statement, int nparams, const char *const *params,
	   char value[32])
{
	PGresult   *result = PQexecPrepared(session->conn, statement, nparams, params, NULL, NULL, 0);

	(void) pg_succeeded(session->conn, result);
	if (PQntuples(result) != 1)
		die("statement \"%s\" has returned %d rows", statement, PQntuples(result));
	(void) snprintf(value, 32, "%s", PQgetvalue(result, 0, 0));
	PQclear(result);
}

static void
pg_prepare(Session *session, const char *name, const char *sql)
{
	PQclear(pg_succeeded(session->conn, PQprepare(session->conn, name, sql, 0, NULL)));
}

static void
pg_open(Session *session, const char *address)
{
	const char *params[1] = {session->name};

	session->conn = PQconnectdb(address);
	if (PQstatus(session->conn) != CONNECTION_OK)
		die("%s", PQerrorMessage(session->conn));
	pg_prepare(session, "lock", "SELECT concord.lock($1)");
	pg_prepare(session, "unlock", "SELECT concord.unlock($1)");
	pg_prepare(session, "set", "SELECT concord.register_set($1, $2, $3::bigint)");
	pg_prepare(session, "read", "SELECT $1::text");
	pg_prepare(session, "get", "SELECT version FROM concord.register_get($1)");
	pg_ask(session, "get", 1, params, session->version);
}

static void
pg_lock(Session *session)
{
	const char *params[1] = {session->name};
	char		fence[32];

	pg_ask(session, "lock", 1, params, fence);
}

static void
pg_unlock(Session *session)
{
	const char *params[1] = {session->name};
	char		given_back[32];

	pg_ask(session, "unlock", 1, params, given_back);
	if (strcmp(given_back, "t") != 0)
		die("lock \"%s\" was not held", session->name);
}

static void
pg_set(Session *session)
{
	const char *params[3] = {session->name, session->version, session->version};

	pg_ask(session, "set", 3, params, session->version);
}

static void
pg_read(Session *session)
{
	const char *params[1] = {session->name};
	char		value[32];

	pg_ask(session, "read", 1, params, value);
}

static void
pg_get(Session *session)
{
	const char *params[1] = {session->name};
	char		version[32];

	pg_ask(session, "get", 1, params, version);
}

static void
pg_close(Session *session)
{
	PQfinish(session->conn);
}

/* ---- etcd */

static void
base64(char *to, const char *from)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t		len = strlen(from);

	for (size_t i = 0; i < len; i += 3)
	{
		unsigned int bits = (unsigned int) (unsigned char) from[i] << 16;

		bits |= i + 1 < len ? (unsigned int) (unsigned char) from[i + 1] << 8 : 0;
		bits |= i + 2 < len ? (unsigned int) (unsigned char) from[i + 2] : 0;
		*to++ = digits[bits >> 18];
		*to++ = digits[bits >> 12 & 63];
		*to++ = i + 1 < len ? digits[bits >> 6 & 63] : '=';
		*to++ = i + 2 < len ? digits[bits & 63] : '=';
	}
	*to = '\0';
}

static size_t
receive(Session *session, size_t at)
{
	ssize_t		n = recv(session->sock, session->answer + at, ANSWER_MAX - at - 1, 0);

	if (n <= 0)
		die("etcd has closed the connection, or its answer is too long");
	session->answer[at + (size_t) n] = '\0';
	return at + (size_t) n;
}

/* The end of the answer's headers, which may still have to come; *len: bytes so far. */
static char *
receive_headers(Session *session, size_t *len)
{
	char	   *end;

	*len = receive(session, 0);
	while ((end = strstr(session->answer, "\r\n\r\n")) == NULL)
		*len = receive(session, *len);
	return end + 4;
}

static const char *
header(const char *headers, const char *end, const char *name)
{
	for (const char *line = headers; line < end; line++)
		if ((line == headers || line[-1] == '\n') && strncasecmp(line, name, strlen(name)) == 0)
			return line + strlen(name);
	return NULL;
}

/* Asks, and leaves the whole answer in session->answer. */
static void
http_post(Session *session, const char *path, const char *body)
{
	char		request[2048];
	int			n = snprintf(request, sizeof(request),
							 "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\n"
							 "Content-Type: application/json\r\n"
							 "Content-Length: %zu\r\n\r\n%s", path, strlen(body), body);
	size_t		len;
	char	   *start;
	const char *length;

	if (n < 0 || (size_t) n >= sizeof(request))
		die("a request is too long");
	for (size_t at = 0; at < (size_t) n;)
	{
		ssize_t		sent = send(session->sock, request + at, (size_t) n - at, MSG_NOSIGNAL);

		if (sent <= 0)
			die("etcd has closed the connection");
		at += (size_t) sent;
	}
	start = receive_headers(session, &len);
	length = header(session->answer, start, "Content-Length: ");
	if (length != NULL)
		while (len < (size_t) (start - session->answer) + strtoul(length, NULL, 10))
			len = receive(session, len);
	else
		while (len < 5 || strcmp(session->answer + len - 5, "0\r\n\r\n") != 0)
			len = receive(session, len);
	if (strncmp(session->answer, "HTTP/1.1 200 ", 13) != 0)
		die("etcd, %s: %s", path, session->answer);
}

/* A member of the answer whose value is a string */
static void
json_string(Session *session, const char *name, char *value, size_t size)
{
	char		pattern[40];
	char	   *at;
	size_t		len;

	(void) snprintf(pattern, sizeof(pattern), "\"%s\":\"", name);
	at = strstr(session->answer, pattern);
	if (at == NULL)
		die("etcd's answer has no %s: %s", name, session->answer);
	at += strlen(pattern);
	len = strcspn(at, "\"");
	if (len >= size)
		die("%s in etcd's answer is too long", name);
	memcpy(value, at, len);
	value[len] = '\0';
}

static void
etcd_connect(Session *session, const char *address)
{
	struct sockaddr_in to = {.sin_family = AF_INET,.sin_port = htons((uint16_t) atoi(address))};
	int			on = 1;

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	session->sock = socket(AF_INET, SOCK_STREAM, 0);
	session->answer = malloc(ANSWER_MAX);
	if (session->sock < 0 || session->answer == NULL ||
		connect(session->sock, (struct sockaddr *) &to, sizeof(to)) != 0 ||
		setsockopt(session->sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0)
		die("could not connect to port %s", address);
}

static void
etcd_open(Session *session, const char *address)
{
	char		body[256];

	etcd_connect(session, address);
	base64(session->name64, session->name);
	http_post(session, "/v3/lease/grant", "{\"TTL\":\"" LEASE_S "\"}");
	json_string(session, "ID", session->lease, sizeof(session->lease));
	(void) snprintf(body, sizeof(body), "{\"key\":\"%s\",\"value\":\"MA==\"}", session->name64);
	http_post(session, "/v3/kv/put", body);
	json_string(session, "revision", session->version, sizeof(session->version));
}

static void
etcd_lock(Session *session)
{
	char		body[256];

	(void) snprintf(body, sizeof(body), "{\"name\":\"%s\",\"lease\":\"%s\"}", session->name64,
					session->lease);
	http_post(session, "/v3/lock/lock", body);
	json_string(session, "key", session->key, sizeof(session->key));
}

static void
etcd_unlock(Session *session)
{
	char		body[512];

	(void) snprintf(body, sizeof(body), "{\"key\":\"%s\"}", session->key);
	http_post(session, "/v3/lock/unlock", body);
}

static void
etcd_set(Session *session)
{
	char		body[1024];
	char		value[48];

	base64(value, session->version);
	(void) snprintf(body, sizeof(body),
					"{\"compare\":[{\"key\":\"%s\",\"target\":\"MOD\",\"result\":\"EQUAL\","
					"\"mod_revision\":\"%s\"}],"
					"\"success\":[{\"request_put\":{\"key\":\"%s\",\"value\":\"%s\"}}]}",
					session->name64, session->version, session->name64, value);
	http_post(session, "/v3/kv/txn", body);
	if (strstr(session->answer, "\"succeeded\":true") == NULL)
		die("a key was changed by somebody else: %s", session->answer);
	json_string(session, "revision", session->version, sizeof(session->version));
}

static void
etcd_range(Session *session, const char *more)
{
	char		body[256];

	(void) snprintf(body, sizeof(body), "{\"key\":\"%s\"%s}", session->name64, more);
	http_post(session, "/v3/kv/range", body);
}

static void
etcd_read(Session *session)
{
	etcd_range(session, ",\"serializable\":true");
}

static void
etcd_get(Session *session)
{
	etcd_range(session, "");
}

static void
etcd_close(Session *session)
{
	char		body[64];

	(void) snprintf(body, sizeof(body), "{\"ID\":\"%s\"}", session->lease);
	http_post(session, "/v3/lease/revoke", body);
	(void) close(session->sock);
	free(session->answer);
}

static const System systems[] = {
	{"pg", pg_open, pg_lock, pg_unlock, pg_set, pg_read, pg_get, pg_close},
	{"etcd", etcd_open, etcd_lock, etcd_unlock, etcd_set, etcd_read, etcd_get, etcd_close},
};

/* ---------------------------------------------------------------- all clients */

typedef struct Hold
{
	int64_t		got;			/* lock has returned */
	int64_t		left;			/* unlock was called */
	int64_t		gone;			/* unlock has returned */
	int			node;
} Hold;

typedef struct Client
{
	pthread_t	thread;
	int			number;
	const char *address;
	int			node;
	Session		session;
	uint32_t   *took;			/* us */
	size_t		n;
	size_t		size;
	Hold		hold;
} Client;

static const System *tested;
static const char *work;
static Client clients[CLIENTS_MAX];
static int	nclients;
static double seconds;			/* of a loop */
static int	rounds;				/* of hand-overs */
static int	settle_ms;
static pthread_barrier_t barrier;

static void
meet(void)
{
	(void) pthread_barrier_wait(&barrier);
}

static void
keep(Client *client, int64_t us)
{
	if (client->n == client->size)
	{
		client->size = client->size == 0 ? 4096 : client->size * 2;
		client->took = realloc(client->took, client->size * sizeof(uint32_t));
		if (client->took == NULL)
			die("out of memory");
	}
	client->took[client->n++] = (uint32_t) us;
}

static void
operate(Session *session)
{
	if (strcmp(work, "lock") == 0)
	{
		tested->lock(session);
		tested->unlock(session);
	}
	else if (strcmp(work, "set") == 0)
		tested->set(session);
	else if (strcmp(work, "get") == 0)
		tested->get(session);
	else
		tested->read(session);
}

static void *
loop(void *arg)
{
	Client	   *client = arg;
	int64_t		before;
	int64_t		end;

	tested->open(&client->session, client->address);
	for (int i = 0; i < WARM_UP; i++)
		operate(&client->session);
	meet();
	before = now_us();
	end = before + (int64_t) (seconds * 1e6);
	while (before < end)
	{
		int64_t		after;

		operate(&client->session);
		after = now_us();
		keep(client, after - before);
		before = after;
	}
	meet();
	tested->close(&client->session);
	return NULL;
}

static int
compare_us(const void *a, const void *b)
{
	uint32_t	x = *(const uint32_t *) a;
	uint32_t	y = *(const uint32_t *) b;

	return x < y ? -1 : x > y;
}

static void
report_loop(void)
{
	size_t		n = 0;
	uint32_t   *all;

	for (int i = 0; i < nclients; i++)
		n += clients[i].n;
	all = malloc((n + 1) * sizeof(uint32_t));
	if (all == NULL || n == 0)
		die("nothing was done in %g s", seconds);
	n = 0;
	for (int i = 0; i < nclients; i++)
	{
		memcpy(all + n, clients[i].took, clients[i].n * sizeof(uint32_t));
		n += clients[i].n;
	}
	qsort(all, n, sizeof(uint32_t), compare_us);
	(void) printf("latency p50 = %.3f ms\nlatency p99 = %.3f ms\ntps = %.1f\n"
				  "number of transactions actually processed: %zu\n", (double) all[n / 2] / 1e3,
				  (double) all[n - 1 - n / 100] / 1e3, (double) n / seconds, n);
	free(all);
}

/* ---------------------------------------------------------------- hand-over */

static int
compare_got(const void *a, const void *b)
{
	int64_t		x = ((const Hold *) a)->got;
	int64_t		y = ((const Hold *) b)->got;

	return x < y ? -1 : x > y;
}

static void
report_handovers(void)
{
	Hold		holds[CLIENTS_MAX];

	for (int i = 0; i < nclients; i++)
		holds[i] = clients[i].hold;
	qsort(holds, (size_t) nclients, sizeof(Hold), compare_got);
	for (int i = 1; i < nclients; i++)
	{
		if (holds[i].got < holds[i - 1].left)
			die("two sessions had the lock at once");
		(void) printf("%" PRId64 " %" PRId64 " %d\n", holds[i].got - holds[i - 1].gone,
					  holds[i].got - holds[i - 1].left, holds[i].node != holds[i - 1].node);
	}
}

static void *
hand_over(void *arg)
{
	Client	   *client = arg;

	tested->open(&client->session, client->address);
	for (int round = 0; round <= rounds; round++)
	{
		bool		first = round % nclients == client->number;

		client->hold.node = client->node;
		meet();
		if (first)
			tested->lock(&client->session);
		client->hold.got = now_us();
		meet();
		if (!first)
		{
			tested->lock(&client->session);
			client->hold.got = now_us();
		}
		else
			sleep_us((int64_t) settle_ms * 1000);	/* until all others wait */
		client->hold.left = now_us();
		tested->unlock(&client->session);
		client->hold.gone = now_us();
		meet();
		if (first && round > 0)
			report_handovers();
	}
	meet();
	tested->close(&client->session);
	return NULL;
}

static void
run_all(void *(*run) (void *), int n, char **addresses, int naddresses, bool same_name)
{
	nclients = n;
	if (n < 1 || n > CLIENTS_MAX || naddresses < 1)
		die("there may be 1 to %d clients, and an address is needed", CLIENTS_MAX);
	(void) pthread_barrier_init(&barrier, NULL, (unsigned int) n);
	for (int i = 0; i < n; i++)
	{
		clients[i].number = i;
		clients[i].node = i % naddresses;
		clients[i].address = addresses[i % naddresses];
		(void) snprintf(clients[i].session.name, sizeof(clients[i].session.name), "bench/%s/%d",
						work, same_name ? 0 : i);
		if (pthread_create(&clients[i].thread, NULL, run, &clients[i]) != 0)
			die("could not start a thread");
	}
	for (int i = 0; i < n; i++)
		(void) pthread_join(clients[i].thread, NULL);
}

static void
find_leader(char **addresses, int n)
{
	for (int i = 0; i < n; i++)
	{
		Session		session = {.conn = NULL};
		char		self[32];
		char		leader[32];

		etcd_connect(&session, addresses[i]);
		http_post(&session, "/v3/maintenance/status", "{}");
		json_string(&session, "member_id", self, sizeof(self));
		json_string(&session, "leader", leader, sizeof(leader));
		if (strcmp(self, leader) == 0)
		{
			(void) puts(addresses[i]);
			return;
		}
	}
	die("there is no leader");
}

static void
choose(const char *name)
{
	for (size_t i = 0; i < sizeof(systems) / sizeof(systems[0]); i++)
		if (strcmp(systems[i].name, name) == 0)
			tested = &systems[i];
	if (tested == NULL)
		die("there is no system \"%s\"", name);
}

int
main(int argc, char **argv)
{
	work = argc > 1 ? argv[1] : "";
	if (argc > 3 && strcmp(work, "leader") == 0)
		find_leader(argv + 3, argc - 3);
	else if (argc > 6 && strcmp(work, "handover") == 0)
	{
		rounds = atoi(argv[2]);
		settle_ms = atoi(argv[4]);
		choose(argv[5]);
		run_all(hand_over, atoi(argv[3]) + 1, argv + 6, argc - 6, true);
	}
	else if (argc > 5 && (strcmp(work, "lock") == 0 || strcmp(work, "set") == 0 ||
						  strcmp(work, "read") == 0 || strcmp(work, "get") == 0))
	{
		seconds = atof(argv[2]);
		choose(argv[4]);
		run_all(loop, atoi(argv[3]), argv + 5, argc - 5, false);
		report_loop();
	}
	else
		die("usage: client lock|set|read|get|handover|leader ..., see the source");
	return 0;
}
