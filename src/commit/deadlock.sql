-- ---------------------------------------------------------------------------------------------
-- Deadlocks between nodes: what the detectors ask (they check their caller)
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION concord._wait_edges(
	OUT kind text, OUT incarnation text, OUT pid int, OUT wait text, OUT lock text,
	OUT blocker int, OUT gid text, OUT coordinator text, OUT coordinator_pid int,
	OUT started bigint, OUT age bigint, OUT serial bigint)
RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_wait_edges';
COMMENT ON FUNCTION concord._wait_edges() IS
	'tells another node''s deadlock detector about this server: one row "server" with its incarnation; rows "wait": who waits, a name of the wait, for what, and which process or prepared branch is in its way (coordinator: on which node, NULL for this one); rows "session": running transactions that matter, the node and process they are a branch of, their start, age and gid''s serial; raises 55000, 42501';

CREATE FUNCTION concord._give_up(wait text, detail text) RETURNS boolean
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_give_up';
COMMENT ON FUNCTION concord._give_up(text, text) IS
	'ends a wait that _wait_edges() has named, if it is still the same one, with 40P01 for whoever waits; returns whether it was; raises 55000, 42501';
