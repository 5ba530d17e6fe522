-- ---------------------------------------------------------------------------------------------
-- commit: decisions, incarnations, horizons, and what can be asked about transactions
--
-- Nobody but the owner has rights on the tables; pg_dump leaves them out, since a decision must not
-- be restored.  They are written by the coordinator's sessions and the maintenance worker, in C.
-- ---------------------------------------------------------------------------------------------

-- Inserted below the executor: no partial or expression index, no default, no trigger.  The label's
-- collation is "C", so that it can be looked up without knowing the database's.

CREATE TABLE concord.decision (
	incarnation bigint NOT NULL,
	serial bigint NOT NULL,
	label text COLLATE "C",
	committed boolean NOT NULL,
	participants int2[] NOT NULL,
	decided_at timestamptz NOT NULL,
	CONSTRAINT decision_pkey PRIMARY KEY (incarnation, serial)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
CREATE UNIQUE INDEX decision_label_key ON concord.decision (label);
COMMENT ON TABLE concord.decision IS
	'the outcomes of the distributed transactions that this node coordinated; and, under another node''s incarnation, of labelled ones that it ended alone';

CREATE TABLE concord.incarnation (
	incarnation bigint NOT NULL,
	lineage int NOT NULL,
	timeline int NOT NULL,
	backup text NOT NULL,
	started_at timestamptz NOT NULL,
	CONSTRAINT incarnation_pkey PRIMARY KEY (incarnation)
);
COMMENT ON TABLE concord.incarnation IS
	'the starts of this server in which this database may have coordinated transactions; those of one lineage ran on one timeline, and no base backup was restored between them';

CREATE TABLE concord.horizon (
	incarnation bigint NOT NULL,
	serial bigint NOT NULL,
	CONSTRAINT horizon_pkey PRIMARY KEY (incarnation)
);
COMMENT ON TABLE concord.horizon IS
	'the serial of each incarnation below which decisions may have been deleted; it only grows';

CREATE TABLE concord.forced (
	gid text COLLATE "C" NOT NULL,
	outcome text NOT NULL CHECK (outcome IN ('commit', 'abort')),
	role name NOT NULL,
	at timestamptz NOT NULL,
	CONSTRAINT forced_pkey PRIMARY KEY (gid)
);
COMMENT ON TABLE concord.forced IS
	'the branches of this node whose outcome an administrator decided with concord.force_transaction()';

-- ---------------------------------------------------------------------------------------------
-- The worker's calls on its own node
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION concord._record_incarnation(this_incarnation bigint, this_timeline int) RETURNS void
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH storage (backup) AS (
		-- what the server was last restored from; its recovery leaves the label under this name
		SELECT coalesce(md5(pg_read_file('backup_label.old', 0, 8192, true)), '')
	), last (lineage, timeline, backup) AS (
		SELECT i.lineage, i.timeline, i.backup FROM concord.incarnation i
		ORDER BY i.lineage DESC LIMIT 1
	)
	INSERT INTO concord.incarnation
	SELECT this_incarnation,
		CASE WHEN l.timeline = this_timeline AND l.backup = s.backup THEN l.lineage
			ELSE coalesce(l.lineage, 0) + 1 END,
		this_timeline, s.backup, clock_timestamp()
	FROM storage s LEFT JOIN last l ON true
	ON CONFLICT DO NOTHING
$$;
COMMENT ON FUNCTION concord._record_incarnation(bigint, int) IS
	'records a start of this server, before a transaction of it may be prepared anywhere';

CREATE FUNCTION concord._forgettable(retention interval, this_incarnation bigint, most int,
	OUT incarnation bigint, OUT lowest bigint, OUT horizon bigint, OUT own boolean)
RETURNS SETOF record
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH RECURSIVE known (incarnation) AS (
		SELECT min(d.incarnation) FROM concord.decision d
		UNION ALL
		SELECT (SELECT min(d.incarnation) FROM concord.decision d
				WHERE d.incarnation > k.incarnation)
		FROM known k WHERE k.incarnation IS NOT NULL
	)
	SELECT k.incarnation, c.lowest, c.horizon,
		EXISTS (SELECT FROM concord.incarnation i WHERE i.incarnation = k.incarnation)
	FROM known k CROSS JOIN LATERAL (
		SELECT min(f.serial),
			coalesce(min(f.serial) FILTER (WHERE f.decided_at > clock_timestamp() - retention),
					 max(f.serial) + 1)
		FROM (SELECT d.serial, d.decided_at FROM concord.decision d
			  WHERE d.incarnation = k.incarnation ORDER BY d.serial LIMIT most) f
	) c (lowest, horizon)
	WHERE c.lowest < c.horizon
	UNION ALL
	SELECT i.incarnation, 0, 9223372036854775807, true FROM concord.incarnation i
	WHERE i.incarnation <> this_incarnation
	AND NOT EXISTS (SELECT FROM concord.decision d WHERE d.incarnation = i.incarnation)
	AND EXISTS (SELECT FROM concord.incarnation l WHERE l.started_at > i.started_at
				AND l.started_at < clock_timestamp() - retention)
$$;
COMMENT ON FUNCTION concord._forgettable(interval, bigint, int) IS
	'tells for each incarnation up to which serial its decisions are old enough to be forgotten: the lowest one, and the first to be kept';

CREATE FUNCTION concord._raise_horizon(of_incarnation bigint, to_serial bigint) RETURNS void
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO concord.horizon AS h VALUES (of_incarnation, to_serial)
	ON CONFLICT (incarnation) DO UPDATE SET serial = excluded.serial
	WHERE h.serial < excluded.serial
$$;
COMMENT ON FUNCTION concord._raise_horizon(bigint, bigint) IS
	'stores the serial below which decisions are going to be deleted';

CREATE FUNCTION concord._delete_decisions(of_incarnation bigint, below bigint) RETURNS bigint
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	deleted bigint;
BEGIN
	DELETE FROM concord.decision d WHERE d.incarnation = of_incarnation AND d.serial < below;
	GET DIAGNOSTICS deleted = ROW_COUNT;
	IF below = 9223372036854775807 THEN
		-- the horizon remains and says that it is forgotten
		DELETE FROM concord.incarnation i WHERE i.incarnation = of_incarnation;
	END IF;
	RETURN deleted;
END $$;
COMMENT ON FUNCTION concord._delete_decisions(bigint, bigint) IS
	'deletes decisions below the horizon, which must be stored, and returns how many';

-- ---------------------------------------------------------------------------------------------
-- The protocol between nodes: C functions that check their caller themselves
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION concord._outcomes(gids text[], OUT gid text, OUT verdict text, OUT detail text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_outcomes';
COMMENT ON FUNCTION concord._outcomes(text[]) IS
	'answers the resolver of another node, on the coordinator of these branches: commit, abort, wait, unknown or forgotten; raises 55000 if one names another coordinator, 25006 on a standby, 42501';

CREATE FUNCTION concord._outcome(gid_or_label text) RETURNS text
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_outcome_here';
COMMENT ON FUNCTION concord._outcome(text) IS
	'what this node alone knows of a transaction: committed, aborted, in progress or unknown; raises 25006, 42501';

CREATE FUNCTION concord._prepared(cluster uuid, to_node int, coordinator int,
	OUT incarnation bigint, OUT serial bigint)
	RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_prepared';
COMMENT ON FUNCTION concord._prepared(uuid, int, int) IS
	'tells a coordinator the lowest serial of its branches prepared in this database, for each incarnation of it; raises 55000 if this is not the node meant, 25006, 42501';

CREATE FUNCTION concord._transactions(
	OUT gid text, OUT participants int[], OUT state text, OUT age interval, OUT label text,
	OUT pid int, OUT role text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_transactions_here';
COMMENT ON FUNCTION concord._transactions() IS
	'the distributed transactions and prepared branches of this database, for the view transactions; raises 42501';

-- ---------------------------------------------------------------------------------------------
-- What users call
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION concord.transaction_outcome(gid_or_label text) RETURNS text
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_transaction_outcome';
COMMENT ON FUNCTION concord.transaction_outcome(text) IS
'Tells how a distributed transaction ended: committed, aborted, in progress, or unknown.
gid_or_label: its global id, as the setting concord.transaction reported it, or the name that the client gave it with concord.transaction_label.
By gid, its coordinator is asked, and then, if that does not know, all other nodes. By label, all nodes are asked: committed if one says so, else in progress if it is running on one, else unknown. A transaction that ended without a trace, or so long ago that it was forgotten (concord.outcome_retention), is unknown; so is one whose node does not answer within concord.view_timeout, which a NOTICE tells: then ask again.
Works on standbys. Errors: 22023 not a gid and not a label; 55000 not a member.';

CREATE FUNCTION concord.resolve_transactions() RETURNS int
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_resolve_transactions';
COMMENT ON FUNCTION concord.resolve_transactions() IS
'Makes this node''s worker finish, now, each branch prepared here whose outcome its coordinator can tell, and waits until it has, but not longer than concord.view_timeout.
Returns the number of branches finished meanwhile. The worker does the same by itself, see concord.resolve_delay.
Errors: 55000 not a member, or the worker does not run; 25006.';

CREATE FUNCTION concord.force_transaction(gid text, outcome text) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_force_transaction';
COMMENT ON FUNCTION concord.force_transaction(text, text) IS
'Decides the outcome of a transaction''s branches that are prepared on this node, whatever its coordinator says: for one whose coordinator will never answer. If the coordinator decides otherwise, the transaction is committed on some nodes and not on others.
gid: a branch''s or a transaction''s global id, see concord.transactions. outcome: commit or abort.
The order is recorded in concord.forced and logged; this node''s worker carries it out when the calling transaction has committed. Superuser only.
Errors: 42704 no branch of it is prepared here; 22023 not a gid, or another outcome; 42710 it was forced already, otherwise; 25006; 42501; 55000 not a member.';

CREATE FUNCTION concord._forget_decisions(retention interval) RETURNS bigint
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_forget_decisions';
COMMENT ON FUNCTION concord._forget_decisions(interval) IS
	'makes this node''s worker delete the decisions older than this that nobody needs, and returns how many; NULL when a node did not answer, and nothing or not all was deleted';

CREATE FUNCTION concord._cluster_transactions(
	OUT node name, OUT gid text, OUT coordinator name, OUT participants name[], OUT state text,
	OUT age interval, OUT label text, OUT pid int, OUT role text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_cluster_transactions';
COMMENT ON FUNCTION concord._cluster_transactions() IS 'behind the view transactions';

CREATE VIEW concord.transactions AS
	SELECT t.gid, t.coordinator, t.participants, t.state, t.age, t.label, t.pid, t.role, t.node
	FROM concord._cluster_transactions() t;
COMMENT ON VIEW concord.transactions IS
	'the distributed transactions of all nodes, and their prepared branches; a node that does not answer within concord.view_timeout is a row of NULLs with its name';
COMMENT ON COLUMN concord.transactions.gid IS
	'global id: a transaction''s own on its coordinator, a branch''s on a participant';
COMMENT ON COLUMN concord.transactions.participants IS
	'the nodes with a branch of it, as far as known on the node; for a branch, its own';
COMMENT ON COLUMN concord.transactions.state IS
	'running, preparing, committing (its decision is being stored) or finishing on the coordinator; prepared, or in doubt (its coordinator does not work on it, or did not answer) on a participant';
COMMENT ON COLUMN concord.transactions.age IS
	'time since the transaction began, or since the branch was prepared, by the node''s clock';
COMMENT ON COLUMN concord.transactions.label IS
	'the client''s own name for it; like pid and role shown to members of pg_read_all_stats, and to the role itself for transactions of this node';
COMMENT ON COLUMN concord.transactions.pid IS 'process of the session on its coordinator';
COMMENT ON COLUMN concord.transactions.role IS 'role of the session, or owner of the branch';
COMMENT ON COLUMN concord.transactions.node IS 'the node that shows it';

CREATE FUNCTION concord._transaction_stats(
	OUT committed_1pc bigint, OUT committed_2pc bigint, OUT aborted bigint, OUT unfinished bigint,
	OUT recovered bigint, OUT forced bigint, OUT deadlocks bigint)
	RETURNS record
	LANGUAGE c VOLATILE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'concord_transaction_stats';
COMMENT ON FUNCTION concord._transaction_stats() IS 'behind the view transaction_stats';

CREATE VIEW concord.transaction_stats AS
	SELECT s.committed_1pc, s.committed_2pc, s.aborted, s.unfinished, s.recovered, s.forced,
		s.deadlocks
	FROM concord._transaction_stats() s;
COMMENT ON VIEW concord.transaction_stats IS
	'what has happened to distributed transactions of this database since its server started';
COMMENT ON COLUMN concord.transaction_stats.committed_1pc IS
	'committed with a plain COMMIT of the only branch that wrote';
COMMENT ON COLUMN concord.transaction_stats.committed_2pc IS 'committed in two phases';
COMMENT ON COLUMN concord.transaction_stats.aborted IS 'aborted after they had got a global id';
COMMENT ON COLUMN concord.transaction_stats.unfinished IS
	'committed, with a branch left to its node''s resolver';
COMMENT ON COLUMN concord.transaction_stats.recovered IS
	'branches of this node that its resolver finished';
COMMENT ON COLUMN concord.transaction_stats.forced IS
	'branches of this node finished as concord.force_transaction() said';
COMMENT ON COLUMN concord.transaction_stats.deadlocks IS
	'given up as the victim of a deadlock between nodes';

REVOKE ALL ON FUNCTION
	concord._record_incarnation(bigint, int), concord._forgettable(interval, bigint, int),
	concord._raise_horizon(bigint, bigint), concord._delete_decisions(bigint, bigint),
	concord._forget_decisions(interval), concord.resolve_transactions(),
	concord.force_transaction(text, text)
FROM PUBLIC;

GRANT SELECT ON concord.transactions, concord.transaction_stats TO PUBLIC;
