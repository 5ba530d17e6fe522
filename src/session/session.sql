-- ---------------------------------------------------------------------------------------------
-- Session tokens
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION concord.token() RETURNS text
	LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'concord_token_sql';
COMMENT ON FUNCTION concord.token() IS
	'returns concord.token, what this session has written (and, with concord.track = reads, seen), for another session to set; NULL when it has none; raises 55000 without the preload';

CREATE FUNCTION concord.covers(token text) RETURNS boolean
	LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'concord_covers';
COMMENT ON FUNCTION concord.covers(text) IS
	'tells without waiting whether this server has applied all that a token says of its node; false also for what was lost; raises 22023 for what is no token of this cluster, 42704 for an unknown node, 55000 for no member';

CREATE PROCEDURE concord.wait(token text, timeout interval DEFAULT NULL, INOUT result text DEFAULT NULL)
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'concord_wait';
COMMENT ON PROCEDURE concord.wait(text, interval, text) IS
	'waits until this server has applied all that a token says of its node, at most for the timeout (concord.wait_timeout if NULL); result: reached, timeout, lost (it never will), unknown node; leaves concord.token alone; raises 22023 for what is no token of this cluster, 25001 where a snapshot or a lock on a table is held, 55000 for no member';

CREATE FUNCTION concord._token_waits(OUT pid int, OUT role oid, OUT timeline bigint, OUT lsn pg_lsn,
	OUT branch boolean, OUT since timestamptz, OUT timeout_ms int)
	RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'concord_token_waits';
COMMENT ON FUNCTION concord._token_waits() IS 'behind the view token_waits';

CREATE VIEW concord.token_waits AS
	SELECT w.pid, pg_catalog.pg_get_userbyid(w.role) AS role, w.timeline, w.lsn, w.branch, w.since,
		w.timeout_ms
	FROM concord._token_waits() w;
COMMENT ON VIEW concord.token_waits IS
	'the sessions of this database that wait on this server for a session token';
COMMENT ON COLUMN concord.token_waits.timeline IS 'timeline of the position waited for';
COMMENT ON COLUMN concord.token_waits.lsn IS 'the position waited for';
COMMENT ON COLUMN concord.token_waits.branch IS
	'whether it waits for the end of a prepared branch at that position';
COMMENT ON COLUMN concord.token_waits.timeout_ms IS 'how long it waits at most, in milliseconds';

CREATE FUNCTION concord._session_stats(
	OUT token_waits bigint, OUT token_timeouts bigint, OUT token_stale bigint, OUT token_lost bigint,
	OUT reads_replica bigint, OUT reads_primary bigint, OUT reads_again bigint)
	RETURNS record
	LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'concord_session_stats';
COMMENT ON FUNCTION concord._session_stats() IS 'behind the view session_stats';

CREATE VIEW concord.session_stats AS
	SELECT s.token_waits, s.token_timeouts, s.token_stale, s.token_lost, s.reads_replica,
		s.reads_primary, s.reads_again
	FROM concord._session_stats() s;
COMMENT ON VIEW concord.session_stats IS
	'what has happened to session tokens on this server in this database since the server started';
COMMENT ON COLUMN concord.session_stats.token_waits IS 'tokens that had to be waited for';
COMMENT ON COLUMN concord.session_stats.token_timeouts IS 'of those, not reached in time';
COMMENT ON COLUMN concord.session_stats.token_stale IS
	'of those, left aside because of concord.on_timeout = stale';
COMMENT ON COLUMN concord.session_stats.token_lost IS
	'tokens with a position that this server does not have and never will';
COMMENT ON COLUMN concord.session_stats.reads_replica IS
	'routed reads of this server''s sessions, at a concord.consistency below strong, sent to a replica';
COMMENT ON COLUMN concord.session_stats.reads_primary IS
	'of those reads, sent to the primary, since no replica would do';
COMMENT ON COLUMN concord.session_stats.reads_again IS
	'times that a replica was away, late or refused, and another copy was asked';

GRANT SELECT ON concord.token_waits, concord.session_stats TO PUBLIC;
