/*
 * doctor.c
 *		concord.check_cluster(): is everything as it should be, on every node?
 *
 * WHAT: each node examines itself (_doctor()), all at once; the asking node compares what only it
 * can compare: versions, maps, encodings, clocks.
 *
 * PROMISE: it answers within concord.view_timeout (and the time of a local query), whatever the
 * other nodes do; an unreachable one is one row.  It changes nothing and raises no error for what
 * it finds.
 *
 * Connections are concord.node_role's, so the way that heartbeats take is what is tested.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/twophase.h"
#include "access/xlog.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "base/standby.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "cluster/room.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#define HINT_GONE_BACK "The authority's storage has gone back, as by restoring a backup. It fetches the newer map by itself; if it does not, call concord.send_map() on a node that has it."
#define CLOCK_WARNING_S		1.0
#define POSTGRES_EPOCH_IN_UNIX_SECONDS \
	((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (double) SECS_PER_DAY)

PG_FUNCTION_INFO_V1(concord_doctor);
PG_FUNCTION_INFO_V1(concord_check_cluster);

typedef struct Finding
{
	const char *item;
	const char *status;
	const char *detail;			/* may be NULL */
	const char *hint;			/* may be NULL */
	const char *value;			/* for the asking node; may be NULL */
} Finding;

/* Another node, as the asking one examines it. */
typedef struct Examined
{
	char	   *name;
	char	   *identity;		/* cluster/node id, as it should be */
	ConcordLink *link;
	ConcordReply *findings;		/* NULL: did not answer in time */
	ConcordReply *later;		/* clock and epoch, asked when all findings were there; or NULL */
} Examined;

static const char *const OK = "ok";
static const char *const WARN = "warning";
static const char *const BAD = "error";

static List *
add(List *findings, const char *item, const char *status, const char *detail, const char *hint,
	const char *value)
{
	Finding    *finding = palloc(sizeof(Finding));

	finding->item = item;
	finding->status = status;
	finding->detail = detail;
	finding->hint = hint;
	finding->value = value;
	return lappend(findings, finding);
}

static List *
examine_identity(List *findings, const ConcordMap *map)
{
	const char *membership = concord_membership_name(map->membership);
	char	   *value = psprintf("%s/%d", map->membership == CONCORD_NO_MEMBER ? "" :
								 concord_uuid_text(&map->cluster_id), map->self);

	if (map->membership == CONCORD_MEMBER)
		return add(findings, "identity", OK, psprintf("member, generation %d",
													  map->self_generation), NULL, value);
	return add(findings, "identity", map->membership == CONCORD_JOINING ? WARN : BAD, membership,
			   map->membership == CONCORD_DETACHED ?
			   "Call concord.adopt_node() or concord.leave_cluster() there." :
			   map->membership == CONCORD_JOINING ?
			   "It becomes a member when it hears from the authority." :
			   map->membership == CONCORD_COPY ?
			   "It is a logical copy of a node; ask a node of the cluster." :
			   "Call concord.create_cluster, or concord.add_node on a member.", value);
}

static List *
examine_version(List *findings)
{
	char	   *extversion = concord_extension_version();

	if (strcmp(extversion, CONCORD_VERSION) != 0)
		findings = add(findings, "version", BAD,
					   psprintf("The library is version %s, the extension %s.", CONCORD_VERSION,
								extversion),
					   "Run ALTER EXTENSION pg_concord UPDATE, or restart the server with the matching library.",
					   CONCORD_VERSION);
	else
		findings = add(findings, "version", OK, CONCORD_VERSION, NULL, CONCORD_VERSION);
	return add(findings, "protocol", OK, psprintf("%d", CONCORD_PROTOCOL), NULL,
			   psprintf("%d", CONCORD_PROTOCOL));
}

static List *
examine_settings(List *findings, const ConcordMap *map)
{
	int			incoming;

	if (ConcordShared == NULL)
		findings = add(findings, "preload", BAD,
					   "pg_concord is not in shared_preload_libraries.",
					   "Add it and restart the server.", NULL);
	else
		findings = add(findings, "preload", OK, NULL, NULL, NULL);

	if (max_prepared_xacts <= 0)
		findings = add(findings, "max_prepared_transactions", BAD, "It is 0.",
					   "Set it to at least max_connections and restart the server.", NULL);
	else
		findings = add(findings, "max_prepared_transactions",
					   max_prepared_xacts < MaxConnections ? WARN : OK,
					   psprintf("%d, max_connections is %d", max_prepared_xacts, MaxConnections),
					   max_prepared_xacts < MaxConnections ?
					   "Set it to at least max_connections." : NULL, NULL);

	/*
	 * what the peers may open here, if their setting is like this node's, and one for each worker
	 */
	incoming = concord_max_peer_connections < 0 ? -1 :
		Max(map->nnodes - 1, 0) * (concord_max_peer_connections + 1);
	if (incoming < 0 && map->nnodes > 1)
		return add(findings, "connections", WARN, "concord.max_peer_connections sets no limit.",
				   "Limit it, so that peers cannot use up max_connections.", NULL);
	return add(findings, "connections", incoming >= MaxConnections ? WARN : OK,
			   psprintf("peers may open %d, max_connections is %d", Max(incoming, 0),
						MaxConnections),
			   incoming >= MaxConnections ?
			   "Raise max_connections or lower concord.max_peer_connections." : NULL, NULL);
}

static List *
examine_database(List *findings)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	const char *collate = "";
	const char *type = "";
	bool		isnull;
	Datum		value;

	if (HeapTupleIsValid(tuple))
	{
		value = SysCacheGetAttr(DATABASEOID, tuple, Anum_pg_database_datcollate, &isnull);
		collate = isnull ? "" : TextDatumGetCString(value);
		value = SysCacheGetAttr(DATABASEOID, tuple, Anum_pg_database_datctype, &isnull);
		type = isnull ? "" : TextDatumGetCString(value);
		ReleaseSysCache(tuple);
	}
	findings = add(findings, "encoding", OK, GetDatabaseEncodingName(), NULL,
				   GetDatabaseEncodingName());
	collate = psprintf("%s/%s", collate, type);
	return add(findings, "collation", OK, collate, NULL, collate);
}

static List *
examine_worker(List *findings)
{
	ConcordDatabase *entry;
	ConcordWorkerState state = CONCORD_WORKER_NONE;
	bool		no_slot = false;
	bool		no_detector_slot = false;
	bool		no_registrar_slot = false;

	/* a standby's node is looked after by its primary */
	if (ConcordShared == NULL || RecoveryInProgress())
		return findings;
	LWLockAcquire(ConcordShared->lock, LW_SHARED);
	entry = concord_shmem_database(MyDatabaseId, false);
	if (entry != NULL)
	{
		state = entry->state;
		no_slot = entry->no_slot;
		no_detector_slot = entry->no_detector_slot;
		no_registrar_slot = entry->no_registrar_slot;
	}
	LWLockRelease(ConcordShared->lock);

	if (no_detector_slot)
		findings = add(findings, "deadlock_detector", BAD,
					   "No background worker slot was free for it.",
					   "Raise max_worker_processes and restart the server: deadlocks between nodes are not broken.",
					   NULL);
	if (no_registrar_slot)
		findings = add(findings, "registrar", BAD,
					   "No background worker slot was free for it.",
					   "Raise max_worker_processes and restart the server: there are no registers and no locks.",
					   NULL);
	if (state == CONCORD_WORKER_RUNNING)
		return add(findings, "worker", OK, NULL, NULL, NULL);
	if (no_slot)
		return add(findings, "worker", BAD, "No background worker slot is free.",
				   "Raise max_worker_processes and restart the server.", NULL);
	return add(findings, "worker", state == CONCORD_WORKER_STARTING ? WARN : BAD,
			   state == CONCORD_WORKER_STARTING ? "It is starting." :
			   "The maintenance worker does not run.",
			   "Look into the server's log.", NULL);
}

static List *
examine_role(List *findings, const ConcordMap *map)
{
	HeapTuple	tuple = SearchSysCache1(AUTHNAME, CStringGetDatum(concord_node_role));
	Form_pg_authid role;
	const char *status = OK;
	const char *detail = concord_node_role;
	const char *hint = NULL;

	if (!HeapTupleIsValid(tuple))
		return add(findings, "node_role", BAD,
				   psprintf("Role \"%s\" does not exist.", concord_node_role),
				   "Create it with LOGIN, or correct concord.node_role.", NULL);
	role = (Form_pg_authid) GETSTRUCT(tuple);
	if (role->rolsuper)
	{
		status = WARN;
		detail = psprintf("Role \"%s\" is a superuser.", concord_node_role);
		hint = "It needs no right but LOGIN.";
	}
	if (!role->rolcanlogin)
	{
		status = BAD;
		detail = psprintf("Role \"%s\" may not log in.", concord_node_role);
		hint = "Give it LOGIN.";
	}
	for (int i = 0; i < map->nnodes; i++)
		if (map->nodes[i].node_id != map->self &&
			!concord_has_mapping(map->nodes[i].serverid, role->oid, true))
		{
			status = BAD;
			detail = psprintf("Role \"%s\" has no user mapping for node \"%s\".",
							  concord_node_role, NameStr(map->nodes[i].name));
			hint = "Call concord.map_user for it.";
		}
	ReleaseSysCache(tuple);
	return add(findings, "node_role", status, detail, hint, NULL);
}

/* How this node's worker finds the others: what check_cluster() cannot see from its own node. */
static List *
examine_peers(List *findings, const ConcordMap *map)
{
	StringInfoData detail;
	const char *status = OK;

	if (map->membership != CONCORD_MEMBER || ConcordShared == NULL || RecoveryInProgress())
		return findings;
	initStringInfo(&detail);
	for (int i = 0; i < map->nnodes; i++)
	{
		ConcordHealth health = CONCORD_UNKNOWN;
		ConcordPeer *peer;

		if (map->nodes[i].node_id == map->self)
			continue;
		LWLockAcquire(ConcordShared->lock, LW_SHARED);
		peer = concord_shmem_peer(MyDatabaseId, map->nodes[i].node_id, false);
		if (peer != NULL)
			health = peer->health;
		LWLockRelease(ConcordShared->lock);
		if (health == CONCORD_UP)
			continue;
		appendStringInfo(&detail, "%snode \"%s\" is %s", detail.len > 0 ? ", " : "",
						 NameStr(map->nodes[i].name), concord_health_name(health));
		status = health == CONCORD_DOWN ? BAD : status == OK ? WARN : status;
	}
	return add(findings, "peers", status, detail.len > 0 ? detail.data : NULL,
			   detail.len > 0 ? "Look at concord.nodes there." : NULL, NULL);
}

/* One finding for each replica that is not as it should be. */
static List *
examine_replicas(List *findings, const ConcordMap *map)
{
	if (map->membership != CONCORD_MEMBER || ConcordShared == NULL || RecoveryInProgress())
		return findings;
	for (int i = 0; i < map->nreplicas; i++)
	{
		const char *hint;
		char	   *detail = concord_copy_complaint(map, &map->replicas[i], &hint);

		if (detail != NULL)
			findings = add(findings, "replica", WARN, detail, hint, NULL);
	}
	return findings;
}

static List *
examine_prepared(List *findings)
{
	static const char *const old = "1 minute";
	static const char *const any = "0";
	char	   *all = concord_owner_call("SELECT concord._count_prepared($1::interval)", 1, &any);
	char	   *stuck = concord_owner_call("SELECT concord._count_prepared($1::interval)", 1, &old);
	char	   *detail = psprintf("%s prepared, %s of them for more than a minute", all, stuck);

	if (strcmp(stuck, "0") == 0)
		return add(findings, "in_doubt_transactions", OK, detail, NULL, NULL);
	return add(findings, "in_doubt_transactions", WARN,
			   psprintf("%s, coordinated by %s", detail,
						concord_owner_call("SELECT concord._prepared_coordinators($1::interval)",
										   1, &old)),
			   "They hold locks and keep vacuum back, until their coordinator can be asked; if it never"
			   " can, find out how they ended and call concord.force_transaction().", NULL);
}

/* Is something decided that must not be told yet?  Nothing to say without synchronous standbys. */
static List *
examine_standbys(List *findings)
{
	XLogRecPtr	owed;

	if (ConcordShared == NULL || RecoveryInProgress() || !concord_standbys_wanted())
		return findings;
	if (concord_standbys_settled(&owed))
		return add(findings, "synchronous_standbys", OK, NULL, NULL, NULL);
	return add(findings, "synchronous_standbys", WARN,
			   owed == InvalidXLogRecPtr ? "It is not known yet what they have." :
			   psprintf("They do not have this node's decisions up to %X/%X.",
						LSN_FORMAT_ARGS(owed)),
			   "Until they have, what these decisions commit on other nodes stays in doubt. Bring a standby back, or take it from synchronous_standby_names.",
			   NULL);
}

/* Nobody has a newer map than the authority, unless the authority's storage has gone back. */
static List *
examine_map(List *findings, const ConcordMap *map)
{
	char	   *epoch = psprintf(INT64_FORMAT, map->epoch);
	int64		heard = map->epoch;
	char	   *hash;

	if (map->membership == CONCORD_MEMBER && concord_is_authority(map) && ConcordShared != NULL)
		heard = concord_heard_newer(map, NULL).epoch;
	if (heard > map->epoch)
		findings = add(findings, "epoch", BAD,
					   psprintf("%s, but another node has " INT64_FORMAT, epoch, heard),
					   HINT_GONE_BACK, epoch);
	else
		findings = add(findings, "epoch", OK, epoch, NULL, epoch);
	hash = concord_owner_call("SELECT concord._map_hash()", 0, NULL);
	return hash == NULL ? findings :
		add(findings, "map", OK, psprintf("hash %s", strchr(hash, ' ') + 1), NULL, hash);
}

/* Everything this node can say of itself. */
static List *
examine(void)
{
	const ConcordMap *map;
	List	   *findings = NIL;

	AcceptInvalidationMessages();
	map = concord_map();

	findings = examine_identity(findings, map);
	findings = examine_version(findings);
	findings = examine_map(findings, map);
	map = concord_map();
	findings = examine_settings(findings, map);
	findings = examine_database(findings);
	findings = examine_worker(findings);
	findings = examine_role(findings, map);
	findings = examine_peers(findings, map);
	findings = examine_standbys(findings);
	findings = examine_replicas(findings, map);
	return examine_prepared(findings);
}

static Datum
text_or_null(const char *text, bool *isnull)
{
	*isnull = text == NULL;
	return text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

Datum
concord_doctor(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *lc;

	if (!has_privs_of_role(GetUserId(), ROLE_PG_MONITOR))
		concord_require_node_role();
	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, examine())
	{
		Finding    *finding = lfirst(lc);
		Datum		values[5];
		bool		nulls[5];

		values[0] = text_or_null(finding->item, &nulls[0]);
		values[1] = text_or_null(finding->status, &nulls[1]);
		values[2] = text_or_null(finding->detail, &nulls[2]);
		values[3] = text_or_null(finding->hint, &nulls[3]);
		values[4] = text_or_null(finding->value, &nulls[4]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

static void
put_row(ReturnSetInfo *rsinfo, const char *node, const Finding *finding)
{
	Datum		values[5];
	bool		nulls[5] = {node == NULL};
	NameData	name;

	if (node != NULL)
		namestrcpy(&name, node);
	values[0] = NameGetDatum(&name);
	values[1] = text_or_null(finding->item, &nulls[1]);
	values[2] = text_or_null(finding->status, &nulls[2]);
	values[3] = text_or_null(finding->detail, &nulls[3]);
	values[4] = text_or_null(finding->hint, &nulls[4]);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static void
differs(Finding *finding, const char *status, const char *mine, const char *hint)
{
	finding->status = status;
	finding->detail = psprintf("%s, on this node %s", finding->value, mine);
	finding->hint = hint;
}

/* The authority's epoch was asked later than the finding: -1 if it did not answer. */
static void
compare_authority(Finding *finding, int64 authority_epoch)
{
	if (strcmp(finding->item, "epoch") != 0 || strcmp(finding->status, OK) != 0 ||
		finding->value == NULL || authority_epoch < 0 ||
		strtoll(finding->value, NULL, 10) <= authority_epoch)
		return;
	finding->status = BAD;
	finding->detail = psprintf("%s, but the authority has " INT64_FORMAT, finding->value,
							   authority_epoch);
	finding->hint = HINT_GONE_BACK;
}

/* What only the asking node can tell: changes the node's own finding where the two do not agree. */
static void
compare(Finding *finding, const Finding *mine, const char *expected)
{
	const char *item = finding->item;

	if (finding->value == NULL || mine->value == NULL)
		return;
	if (strcmp(item, "identity") == 0 && strcmp(finding->value, expected) != 0)
	{
		finding->status = BAD;
		finding->detail = "The node's address reaches another database.";
		finding->hint = "Correct it with concord.set_node.";
	}
	else if (strcmp(finding->status, OK) != 0 || strcmp(finding->value, mine->value) == 0)
		return;
	else if (strcmp(item, "version") == 0)
		differs(finding, WARN, mine->value, "Finish the upgrade.");
	else if (strcmp(item, "protocol") == 0)
		differs(finding, abs(atoi(finding->value) - atoi(mine->value)) > 1 ? BAD : WARN,
				mine->value, "Finish the upgrade.");
	else if (strcmp(item, "epoch") == 0)
		differs(finding, WARN, mine->value,
				"The older map is replaced by itself; if it is not, look into the server's log there.");
	else if (strcmp(item, "map") == 0)
	{
		/* the epoch stands first; where that differs, it is another finding */
		if (strtoll(finding->value, NULL, 10) != strtoll(mine->value, NULL, 10))
			return;
		finding->status = BAD;
		finding->detail = "It has the same epoch as on this node and is another map.";
		finding->hint = "Call concord.send_map() on a node whose map is right.";
	}
	else if (strcmp(item, "encoding") == 0)
		differs(finding, BAD, mine->value, "The same text is another key there.");
	else if (strcmp(item, "collation") == 0)
		differs(finding, WARN, mine->value, "Sorted results of several nodes may not agree.");
}

/* Did it tell its findings? */
static bool
has_answered(const Examined *node)
{
	return node->findings != NULL && node->findings->ok && node->findings->ncols == 5;
}

/* A node's answer, compared with this node's findings. */
static void
put_answer(ReturnSetInfo *rsinfo, const Examined *node, List *mine, int64 authority_epoch)
{
	Finding		reachable = {"reachable", OK, NULL, NULL, NULL};
	const ConcordReply *reply = node->findings;

	put_row(rsinfo, node->name, &reachable);
	for (int row = 0; row < reply->nrows; row++)
	{
		Finding		finding;
		ListCell   *lc;

		finding.item = concord_reply_value(reply, row, 0);
		finding.status = concord_reply_value(reply, row, 1);
		finding.detail = concord_reply_value(reply, row, 2);
		finding.hint = concord_reply_value(reply, row, 3);
		finding.value = concord_reply_value(reply, row, 4);
		compare_authority(&finding, authority_epoch);
		foreach(lc, mine)
			if (strcmp(((Finding *) lfirst(lc))->item, finding.item) == 0)
				compare(&finding, lfirst(lc), node->identity);
		put_row(rsinfo, node->name, &finding);
	}
}

static void
put_silent(ReturnSetInfo *rsinfo, const char *node, const ConcordReply *reply)
{
	Finding		finding = {"reachable", BAD, NULL, NULL, NULL};

	if (reply == NULL)
		finding.detail = psprintf("It did not answer within %d ms.", concord_view_timeout_ms);
	else
		finding.detail = reply->detail != NULL ? psprintf("%s: %s", reply->message, reply->detail) :
			reply->message;
	finding.hint = "Look whether the server runs, and whether its pg_hba.conf lets concord.node_role in.";
	put_row(rsinfo, node, &finding);
}

/* A node's clock against the middle of a round trip of its own, which is as short as can be. */
static void
put_clock(ReturnSetInfo *rsinfo, const char *node, const ConcordReply *reply)
{
	Finding		finding = {"clock", OK, NULL, NULL, NULL};
	double		half_trip;
	double		offset;

	if (reply == NULL || !reply->ok || reply->nrows != 1)
	{
		finding.status = WARN;
		finding.detail = "It was not told in time.";
		put_row(rsinfo, node, &finding);
		return;
	}
	half_trip = (reply->received_at - reply->sent_at) / 2e6;
	offset = strtod(concord_reply_value(reply, 0, 0), NULL) -
		(reply->sent_at / 1e6 + POSTGRES_EPOCH_IN_UNIX_SECONDS + half_trip);
	finding.detail = psprintf("offset %.1f ms, known to %.1f ms", offset * 1e3, half_trip * 1e3);
	if (fabs(offset) - half_trip > CLOCK_WARNING_S)
	{
		finding.status = WARN;
		finding.hint = "Keep the clocks of both servers with NTP.";
	}
	put_row(rsinfo, node, &finding);
}

/* The other nodes, with links to them as the protocol role. */
static Examined *
open_links(const ConcordMap *map, int *n)
{
	Oid			role = concord_node_role_oid(true);
	char	   *cluster = concord_uuid_text(&map->cluster_id);
	Examined   *nodes = palloc0(map->nnodes * sizeof(Examined));

	*n = 0;
	for (int i = 0; i < map->nnodes; i++)
	{
		const ConcordNode *node = &map->nodes[i];
		Examined   *examined = &nodes[*n];

		/* a missing mapping is this node's own finding (node_role) */
		if (node->node_id == map->self || !concord_has_mapping(node->serverid, role, true))
			continue;
		examined->name = pstrdup(NameStr(node->name));
		examined->identity = psprintf("%s/%d", cluster, node->node_id);
		examined->link = concord_link_open(examined->name,
										   concord_server_options(node->serverid, role, true));
		(*n)++;
	}
	return nodes;
}

/* Asks all at once for their findings, then those that told them for clock and epoch. */
static void
ask_nodes(Examined *nodes, int n, TimestampTz until)
{
	ConcordLink **links = palloc0(Max(n, 1) * sizeof(ConcordLink *));
	ConcordReply **replies;
	int			alive = 0;

	for (int i = 0; i < n; i++)
		links[i] = nodes[i].link;
	replies = concord_ask_all(links, n,
							  "SELECT item, status, detail, hint, value FROM concord._doctor()", 0,
							  NULL, until);
	for (int i = 0; i < n; i++)
	{
		nodes[i].findings = replies[i];
		if (has_answered(&nodes[i]))
			links[alive++] = nodes[i].link;
	}

	replies = concord_ask_all(links, alive,
							  "SELECT pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()),"
							  " concord._map_epoch()", 0, NULL, until);
	alive = 0;
	for (int i = 0; i < n; i++)
	{
		if (has_answered(&nodes[i]))
			nodes[i].later = replies[alive++];
		concord_link_close(nodes[i].link);
	}
}

/* The authority's epoch when all findings were there; -1 if it is not known. */
static int64
later_authority_epoch(const Examined *nodes, int n)
{
	const ConcordMap *map = concord_map_refresh();
	char	   *identity = psprintf("%s/%d", concord_uuid_text(&map->cluster_id), map->authority);

	if (concord_is_authority(map))
		return map->epoch;
	for (int i = 0; i < n; i++)
	{
		const ConcordReply *later = nodes[i].later;

		if (strcmp(nodes[i].identity, identity) == 0 && later != NULL && later->ok &&
			later->nrows == 1 && later->ncols == 2)
			return strtoll(concord_reply_value(later, 0, 1), NULL, 10);
	}
	return -1;
}

/* This node's findings and the others', compared. */
static void
put_all(ReturnSetInfo *rsinfo, const char *self, List *mine, const Examined *nodes, int n,
		int64 authority_epoch)
{
	ListCell   *lc;

	foreach(lc, mine)
	{
		compare_authority(lfirst(lc), authority_epoch);
		put_row(rsinfo, self, lfirst(lc));
	}
	for (int i = 0; i < n; i++)
	{
		if (has_answered(&nodes[i]))
			put_answer(rsinfo, &nodes[i], mine, authority_epoch);
		else
			put_silent(rsinfo, nodes[i].name, nodes[i].findings);
	}
	for (int i = 0; i < n; i++)
		if (has_answered(&nodes[i]))
			put_clock(rsinfo, nodes[i].name, nodes[i].later);
}

Datum
concord_check_cluster(PG_FUNCTION_ARGS)
{
	const ConcordMap *map;
	Examined   *nodes = NULL;
	int			n = 0;
	int64		authority_epoch = -1;
	List	   *mine;
	char	   *self = NULL;

	concord_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	mine = examine();
	map = concord_map();
	if (map->membership != CONCORD_NO_MEMBER)
		self = pstrdup(NameStr(map->self_name));
	if (map->membership == CONCORD_MEMBER)
	{
		TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														concord_view_timeout_ms);

		nodes = open_links(map, &n);
		ask_nodes(nodes, n, until);
		authority_epoch = later_authority_epoch(nodes, n);
	}
	put_all((ReturnSetInfo *) fcinfo->resultinfo, self, mine, nodes, n, authority_epoch);
	return (Datum) 0;
}
