CREATE FUNCTION concord._connections(OUT node name, OUT role oid, OUT state text, OUT peer_pid integer,
	OUT opened_at timestamptz, OUT last_used timestamptz, OUT prepared_statements integer, OUT valid boolean)
RETURNS SETOF record
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'concord_connections';
COMMENT ON FUNCTION concord._connections() IS 'Internal: behind the view connections';

CREATE VIEW concord.connections AS
SELECT c.node, pg_catalog.pg_get_userbyid(c.role) AS role, c.state, c.peer_pid, c.opened_at,
	c.last_used, c.prepared_statements, c.valid
FROM concord._connections() AS c;
COMMENT ON VIEW concord.connections IS
	'This session''s connections to other nodes: state idle, in transaction or writing; peer_pid is the process on the peer; valid is false when the node''s address or the role''s mapping changed since it was opened';
GRANT SELECT ON concord.connections TO PUBLIC;

CREATE FUNCTION concord.close_connections(node name DEFAULT NULL)
RETURNS integer
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'concord_close_connections';
COMMENT ON FUNCTION concord.close_connections(name) IS
	'Closes this session''s connections to a node, or to all (NULL), and returns how many were closed; one that is part of the running transaction stays, with a WARNING';
