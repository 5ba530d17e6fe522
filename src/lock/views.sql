-- ---------------------------------------------------------------------------------------------
-- lease locks, as they can be seen
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION concord._locks(
	OUT name text, OUT mode text, OUT state text, OUT pid int, OUT role text, OUT application text,
	OUT fence bigint, OUT since timestamptz, OUT remaining interval, OUT blockers text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_locks_here';
COMMENT ON FUNCTION concord._locks() IS
	'the lease locks that sessions of this node ask for, wait for and hold; raises 25006, 55000, 42501';

CREATE FUNCTION concord._cluster_locks(
	OUT node name, OUT name text, OUT mode text, OUT state text, OUT pid int, OUT role text,
	OUT application text, OUT fence bigint, OUT since timestamptz, OUT remaining interval,
	OUT blockers text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_cluster_locks';
COMMENT ON FUNCTION concord._cluster_locks() IS 'behind the views locks and lock_waits';

CREATE VIEW concord.locks AS
	SELECT l.name, l.mode, l.state, l.node, l.pid, l.role, l.application, l.fence,
		l.since AS acquired, l.remaining
	FROM concord._cluster_locks() l
	WHERE l.state IS NULL OR l.state IN ('held', 'lost', 'leaving');
COMMENT ON VIEW concord.locks IS
	'the lease locks that sessions of all nodes hold; a node that does not answer within concord.view_timeout is a row of NULLs with its name';
COMMENT ON COLUMN concord.locks.state IS
	'held; lost, which its session has not acknowledged with concord.unlock(); leaving: being given back';
COMMENT ON COLUMN concord.locks.node IS 'the node of the session';
COMMENT ON COLUMN concord.locks.role IS
	'like application shown to members of pg_read_all_stats, and to the role itself for sessions of this node';
COMMENT ON COLUMN concord.locks.remaining IS
	'for how long the session may rely on it if its node is cut off now';

CREATE VIEW concord.lock_waits AS
	SELECT w.name, w.mode, w.node, w.pid, w.role, w.application, w.since,
		clock_timestamp() - w.since AS waiting,
		n.node AS blocker_node, split_part(b.text, '/', 2)::int AS blocker_pid
	FROM concord._cluster_locks() w
		LEFT JOIN LATERAL string_to_table(w.blockers, ' ') b (text) ON b.text <> ''
		LEFT JOIN concord.map_node n ON n.node_id = split_part(b.text, '/', 1)::int
	WHERE w.state IS NULL OR w.state IN ('asked', 'waiting');
COMMENT ON VIEW concord.lock_waits IS
	'who waits for a lease lock, and for whom: a row for each of the first four sessions in the way; a node that does not answer within concord.view_timeout is a row of NULLs with its name';
COMMENT ON COLUMN concord.lock_waits.waiting IS 'for how long, by the clocks of its node and this one';
COMMENT ON COLUMN concord.lock_waits.blocker_node IS
	'NULL while it is not known: no majority of the acceptors has answered yet';

CREATE FUNCTION concord._lock_stats(
	OUT granted bigint, OUT waited bigint, OUT timed_out bigint, OUT lost bigint, OUT fenced bigint,
	OUT register_changes bigint, OUT register_reads bigint)
	RETURNS record
	LANGUAGE c VOLATILE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'concord_lock_stats';
COMMENT ON FUNCTION concord._lock_stats() IS 'behind the view lock_stats';

CREATE VIEW concord.lock_stats AS
	SELECT s.granted, s.waited, s.timed_out, s.lost, s.fenced, s.register_changes, s.register_reads
	FROM concord._lock_stats() s;
COMMENT ON VIEW concord.lock_stats IS
	'what has happened to lease locks, fences and registers in this database since its server started';
COMMENT ON COLUMN concord.lock_stats.granted IS 'lease locks that sessions of this node got';
COMMENT ON COLUMN concord.lock_stats.waited IS 'those of them that another session had first';
COMMENT ON COLUMN concord.lock_stats.timed_out IS
	'requests that were not granted in time, or for want of a majority';
COMMENT ON COLUMN concord.lock_stats.lost IS
	'locks whose lease, or own limit, ran out while they were held';
COMMENT ON COLUMN concord.lock_stats.fenced IS
	'fences that were refused on this node, since higher ones had been shown';

GRANT SELECT ON concord.locks, concord.lock_waits, concord.lock_stats TO PUBLIC;
