-- worker: the processes that look after this server's member databases

CREATE FUNCTION concord._workers(
	OUT worker text, OUT database_id oid, OUT pid int, OUT state text, OUT held_by int,
	OUT retry_at timestamptz, OUT epoch bigint, OUT wanted_epoch bigint)
RETURNS SETOF record
LANGUAGE C STRICT VOLATILE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'concord_workers';

CREATE VIEW concord.workers AS
	SELECT w.worker, d.datname AS database, w.pid, w.state, w.held_by, w.retry_at, w.epoch,
		   w.wanted_epoch
	  FROM concord._workers() w
	  LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) w.database_id;

REVOKE ALL ON FUNCTION concord._workers() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION concord._workers() TO pg_monitor;
GRANT SELECT ON concord.workers TO pg_monitor;

COMMENT ON FUNCTION concord._workers() IS
	'tells from shared memory what the launcher and the workers of this server are doing';
COMMENT ON VIEW concord.workers IS
	'the launcher of this server, and the worker of each of its member databases';
COMMENT ON COLUMN concord.workers.state IS
	'running, starting, stopped, held (by held_by), or no free worker slot';
COMMENT ON COLUMN concord.workers.held_by IS
	'process whose command (DROP, RENAME, SET TABLESPACE, a copy) needs the database to itself';
COMMENT ON COLUMN concord.workers.retry_at IS
	'when a worker that ended or could not be started is to be started again';
COMMENT ON COLUMN concord.workers.epoch IS 'the map''s newest epoch in this database';
COMMENT ON COLUMN concord.workers.wanted_epoch IS 'newest epoch this database has heard of';
