-- slots
CREATE FUNCTION concord.slot(key "any") RETURNS integer
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'concord_slot';
COMMENT ON FUNCTION concord.slot("any") IS
	'Returns the slot (0 to 4095) of a key of type boolean, smallint, integer, bigint, text, varchar, uuid, bytea, date or timestamptz; integers of one value are one key, and text in the canonical form of a bigint or uuid is that value; any other type is an error (42804)';

CREATE FUNCTION concord.slot(key text) RETURNS integer
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'concord_slot_text';
COMMENT ON FUNCTION concord.slot(text) IS
	'Returns the slot (0 to 4095) of a key given as text or without a type';

CREATE FUNCTION concord.locate(key "any") RETURNS name
LANGUAGE C STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'concord_locate';
COMMENT ON FUNCTION concord.locate("any") IS
	'Returns the node that owns a key''s slot; PC002 when the slot is lost, 55000 outside a cluster';

CREATE FUNCTION concord.locate(key text) RETURNS name
LANGUAGE C STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'concord_locate';
COMMENT ON FUNCTION concord.locate(text) IS
	'Returns the node that owns the slot of a key given as text or without a type';

CREATE FUNCTION concord._slots(OUT slot integer, OUT node name) RETURNS SETOF record
LANGUAGE C STABLE STRICT PARALLEL SAFE ROWS 4096
AS 'MODULE_PATHNAME', 'concord_slots';
COMMENT ON FUNCTION concord._slots() IS 'Internal: behind the view slots';

CREATE VIEW concord.slots AS SELECT s.slot, s.node FROM concord._slots() AS s;
COMMENT ON VIEW concord.slots IS 'The 4096 slots and the node that owns each; node is NULL when the slot is lost';
GRANT SELECT ON concord.slots TO PUBLIC;

-- the peer's side
CREATE FUNCTION concord._hello(cluster uuid, from_node integer, to_node integer, protocol integer, epoch bigint)
RETURNS integer
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_hello';
COMMENT ON FUNCTION concord._hello(uuid, integer, integer, integer, bigint) IS
	'Internal: first statement of another node''s session here; checks who is meant and whose map is newer, returns this session''s process id';

-- routed statements

CREATE FUNCTION concord.query(key "any", sql text) RETURNS SETOF record
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_query';
COMMENT ON FUNCTION concord.query("any", text) IS
	'Runs one statement on the node that owns the key and returns its rows, which must match the column definition list (42804); it joins the caller''s transaction; without parameters';

CREATE FUNCTION concord.query(key "any", sql text, VARIADIC params "any") RETURNS SETOF record
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_query';
COMMENT ON FUNCTION concord.query("any", text, VARIADIC "any") IS
	'Runs one statement on the node that owns the key and returns its rows, which must match the column definition list (42804); it joins the caller''s transaction; parameters keep their types';

CREATE FUNCTION concord.query(key text, sql text) RETURNS SETOF record
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_query';
COMMENT ON FUNCTION concord.query(text, text) IS
	'Runs one statement on the node that owns the key and returns its rows, which must match the column definition list (42804); it joins the caller''s transaction; key given as text or without a type, no parameters';

CREATE FUNCTION concord.query(key text, sql text, VARIADIC params text[]) RETURNS SETOF record
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_query_untyped';
COMMENT ON FUNCTION concord.query(text, text, VARIADIC text[]) IS
	'Runs one statement on the node that owns the key and returns its rows, which must match the column definition list (42804); it joins the caller''s transaction; key and parameters without types, inferred where the statement runs';

CREATE FUNCTION concord.query(key anyelement, sql text, VARIADIC params text[]) RETURNS SETOF record
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_query_untyped';
COMMENT ON FUNCTION concord.query(anyelement, text, VARIADIC text[]) IS
	'Runs one statement on the node that owns the key and returns its rows, which must match the column definition list (42804); it joins the caller''s transaction; a key with a type, parameters without (as some drivers bind them)';

CREATE FUNCTION concord.query_json(key "any", sql text) RETURNS SETOF jsonb
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_query_json';
COMMENT ON FUNCTION concord.query_json("any", text) IS
	'Runs one statement on the node that owns the key and returns each row as a JSON object; it joins the caller''s transaction; without parameters';

CREATE FUNCTION concord.query_json(key "any", sql text, VARIADIC params "any") RETURNS SETOF jsonb
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_query_json';
COMMENT ON FUNCTION concord.query_json("any", text, VARIADIC "any") IS
	'Runs one statement on the node that owns the key and returns each row as a JSON object; it joins the caller''s transaction; parameters keep their types';

CREATE FUNCTION concord.query_json(key text, sql text) RETURNS SETOF jsonb
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_query_json';
COMMENT ON FUNCTION concord.query_json(text, text) IS
	'Runs one statement on the node that owns the key and returns each row as a JSON object; it joins the caller''s transaction; key given as text or without a type, no parameters';

CREATE FUNCTION concord.query_json(key text, sql text, VARIADIC params text[]) RETURNS SETOF jsonb
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_query_json_untyped';
COMMENT ON FUNCTION concord.query_json(text, text, VARIADIC text[]) IS
	'Runs one statement on the node that owns the key and returns each row as a JSON object; it joins the caller''s transaction; key and parameters without types, inferred where the statement runs';

CREATE FUNCTION concord.query_json(key anyelement, sql text, VARIADIC params text[]) RETURNS SETOF jsonb
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_query_json_untyped';
COMMENT ON FUNCTION concord.query_json(anyelement, text, VARIADIC text[]) IS
	'Runs one statement on the node that owns the key and returns each row as a JSON object; it joins the caller''s transaction; a key with a type, parameters without (as some drivers bind them)';

CREATE FUNCTION concord.execute(key "any", sql text) RETURNS bigint
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_execute';
COMMENT ON FUNCTION concord.execute("any", text) IS
	'Runs one statement on the node that owns the key and returns the number of rows affected; it joins the caller''s transaction; without parameters';

CREATE FUNCTION concord.execute(key "any", sql text, VARIADIC params "any") RETURNS bigint
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_execute';
COMMENT ON FUNCTION concord.execute("any", text, VARIADIC "any") IS
	'Runs one statement on the node that owns the key and returns the number of rows affected; it joins the caller''s transaction; parameters keep their types';

CREATE FUNCTION concord.execute(key text, sql text) RETURNS bigint
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_execute';
COMMENT ON FUNCTION concord.execute(text, text) IS
	'Runs one statement on the node that owns the key and returns the number of rows affected; it joins the caller''s transaction; key given as text or without a type, no parameters';

CREATE FUNCTION concord.execute(key text, sql text, VARIADIC params text[]) RETURNS bigint
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_execute_untyped';
COMMENT ON FUNCTION concord.execute(text, text, VARIADIC text[]) IS
	'Runs one statement on the node that owns the key and returns the number of rows affected; it joins the caller''s transaction; key and parameters without types, inferred where the statement runs';

CREATE FUNCTION concord.execute(key anyelement, sql text, VARIADIC params text[]) RETURNS bigint
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_execute_untyped';
COMMENT ON FUNCTION concord.execute(anyelement, text, VARIADIC text[]) IS
	'Runs one statement on the node that owns the key and returns the number of rows affected; it joins the caller''s transaction; a key with a type, parameters without (as some drivers bind them)';

CREATE FUNCTION concord.query_on(node name, sql text) RETURNS SETOF record
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_query_on';
COMMENT ON FUNCTION concord.query_on(name, text) IS
	'Runs one statement on the named node and returns its rows, which must match the column definition list (42804); it joins the caller''s transaction; 42704 for an unknown node; without parameters';

CREATE FUNCTION concord.query_on(node name, sql text, VARIADIC params "any") RETURNS SETOF record
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_query_on';
COMMENT ON FUNCTION concord.query_on(name, text, VARIADIC "any") IS
	'Runs one statement on the named node and returns its rows, which must match the column definition list (42804); it joins the caller''s transaction; 42704 for an unknown node; parameters keep their types';

CREATE FUNCTION concord.query_on(node name, sql text, VARIADIC params text[]) RETURNS SETOF record
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_query_on_untyped';
COMMENT ON FUNCTION concord.query_on(name, text, VARIADIC text[]) IS
	'Runs one statement on the named node and returns its rows, which must match the column definition list (42804); it joins the caller''s transaction; 42704 for an unknown node; parameters without types';

CREATE FUNCTION concord.execute_on(node name, sql text) RETURNS bigint
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_execute_on';
COMMENT ON FUNCTION concord.execute_on(name, text) IS
	'Runs one statement on the named node and returns the number of rows affected; it joins the caller''s transaction; 42704 for an unknown node; without parameters';

CREATE FUNCTION concord.execute_on(node name, sql text, VARIADIC params "any") RETURNS bigint
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_execute_on';
COMMENT ON FUNCTION concord.execute_on(name, text, VARIADIC "any") IS
	'Runs one statement on the named node and returns the number of rows affected; it joins the caller''s transaction; 42704 for an unknown node; parameters keep their types';

CREATE FUNCTION concord.execute_on(node name, sql text, VARIADIC params text[]) RETURNS bigint
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_execute_on_untyped';
COMMENT ON FUNCTION concord.execute_on(name, text, VARIADIC text[]) IS
	'Runs one statement on the named node and returns the number of rows affected; it joins the caller''s transaction; 42704 for an unknown node; parameters without types';

CREATE FUNCTION concord.query_all(sql text) RETURNS SETOF record
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_query_all';
COMMENT ON FUNCTION concord.query_all(text) IS
	'Runs one statement on all nodes in parallel and returns all rows; a first declared column _node name receives the node; it joins the caller''s transaction; without parameters';

CREATE FUNCTION concord.query_all(sql text, VARIADIC params "any") RETURNS SETOF record
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_query_all';
COMMENT ON FUNCTION concord.query_all(text, VARIADIC "any") IS
	'Runs one statement on all nodes in parallel and returns all rows; a first declared column _node name receives the node; it joins the caller''s transaction; parameters keep their types';

CREATE FUNCTION concord.query_all(sql text, VARIADIC params text[]) RETURNS SETOF record
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_query_all_untyped';
COMMENT ON FUNCTION concord.query_all(text, VARIADIC text[]) IS
	'Runs one statement on all nodes in parallel and returns all rows; a first declared column _node name receives the node; it joins the caller''s transaction; parameters without types';

CREATE FUNCTION concord.execute_all(sql text, OUT node name, OUT rows bigint) RETURNS SETOF record
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_execute_all';
COMMENT ON FUNCTION concord.execute_all(text) IS
	'Runs one statement on all nodes in parallel and returns the rows affected on each; it joins the caller''s transaction; without parameters';

CREATE FUNCTION concord.execute_all(sql text, VARIADIC params "any") RETURNS TABLE (node name, rows bigint)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_execute_all';
COMMENT ON FUNCTION concord.execute_all(text, VARIADIC "any") IS
	'Runs one statement on all nodes in parallel and returns the rows affected on each; it joins the caller''s transaction; parameters keep their types';

CREATE FUNCTION concord.execute_all(sql text, VARIADIC params text[]) RETURNS TABLE (node name, rows bigint)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'concord_execute_all_untyped';
COMMENT ON FUNCTION concord.execute_all(text, VARIADIC text[]) IS
	'Runs one statement on all nodes in parallel and returns the rows affected on each; it joins the caller''s transaction; parameters without types';
