-- Routed statements over three databases of this server.
CREATE DATABASE regress_route_a TEMPLATE template0;
CREATE DATABASE regress_route_b TEMPLATE template0;
CREATE DATABASE regress_route_c TEMPLATE template0;
SELECT format('host=%s port=%s user=%s dbname=', split_part(current_setting('unix_socket_directories'), ',', 1),
	current_setting('port'), current_user) AS server \gset
\set conninfo_a '\'' :server 'regress_route_a\''
\set conninfo_b '\'' :server 'regress_route_b\''
\set conninfo_c '\'' :server 'regress_route_c\''

\c regress_route_b
SET client_min_messages = warning;
CREATE EXTENSION pg_concord;
CREATE TABLE item (id bigint PRIMARY KEY, v text);
CREATE TYPE mood AS ENUM ('other', 'sad', 'ok');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE FUNCTION chatty() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE 'a notice' USING HINT = 'and its hint';
	RAISE WARNING 'a warning';
	RETURN 1;
END $$;
CREATE FUNCTION failing() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'it failed' USING ERRCODE = 'XY123', DETAIL = 'the detail', HINT = 'the hint',
		TABLE = 'the_table', CONSTRAINT = 'the_constraint';
END $$;
CREATE TABLE late (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
\c regress_route_c
SET client_min_messages = warning;
CREATE EXTENSION pg_concord;
CREATE TABLE item (id bigint PRIMARY KEY, v text);
\c regress_route_a
SET client_min_messages = warning;
CREATE EXTENSION pg_concord;
RESET client_min_messages;
CREATE TABLE item (id bigint PRIMARY KEY, v text);
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);

-- outside a cluster
SELECT * FROM concord.query(1, 'SELECT 1') AS t(x int);
\echo :LAST_ERROR_SQLSTATE

SELECT concord.create_cluster('a', :conninfo_a) IS NOT NULL AS created;
SELECT concord.add_node('b', :conninfo_b);
SELECT concord.add_node('c', :conninfo_c);
SELECT concord.rebalance();
SELECT node, count(*) FROM concord.slots GROUP BY node ORDER BY node;

-- by key, from here
SELECT k, concord.locate(k) FROM generate_series(1, 9) AS k;
SELECT sum(concord.execute(k, 'INSERT INTO item VALUES ($1, $2)', k, 'v' || k)) FROM (VALUES (1)) AS keys(k);
DO $$
BEGIN
	FOR k IN 2..30 LOOP
		PERFORM concord.execute(k, 'INSERT INTO item VALUES ($1, $2)', k, 'v' || k);
		COMMIT;
	END LOOP;
END $$;
SELECT bool_and(r.v = 'v' || k) AS all_found
FROM generate_series(1, 30) AS k, LATERAL concord.query(k, 'SELECT v FROM item WHERE id = $1', k) AS r(v text);
SELECT _node, count(*), bool_and(concord.locate(id) = _node) AS right_place
FROM concord.query_all('SELECT id FROM item') AS t(_node name, id bigint) GROUP BY _node ORDER BY _node;
SELECT count(*) FROM concord.query_all('SELECT id FROM item WHERE id <= $1', 10) AS t(id bigint);
SELECT * FROM concord.execute_all('SELECT 1') ORDER BY node;
SELECT * FROM concord.execute_all('UPDATE item SET v = v WHERE id <= $1', 10) ORDER BY node;
SELECT concord.query_json(7, 'SELECT id, v, NULL::int AS n, ARRAY[1,2] AS a FROM item WHERE id = $1;', 7);
SELECT concord.query_json('7', 'SELECT id FROM item WHERE id = $1', '7');
SELECT concord.query_json('7', 'UPDATE item SET v = v || $2 WHERE id = $1 RETURNING v', '7', '!');

-- the same from another node
\c regress_route_c
SELECT bool_and(r.v LIKE 'v' || k || '%') AS all_found
FROM generate_series(1, 30) AS k, LATERAL concord.query(k, 'SELECT v FROM item WHERE id = $1', k) AS r(v text);
\c regress_route_a

-- types and parameters
SELECT * FROM concord.query_on('b', 'SELECT $1, $2, $3, $4, $5, $6', 1::smallint, 2, 3::bigint, 1.5::real, 2.5::float8, 12345.678900::numeric)
	AS t(a smallint, b int, c bigint, d real, e float8, f numeric);
SELECT * FROM concord.query_on('b', 'SELECT $1, $2, $3, $4, $5', true, 'x'::text, 'y'::varchar, '\x00ff27'::bytea, 'z'::"char")
	AS t(a bool, b text, c varchar, d bytea, e "char");
SELECT * FROM concord.query_on('b', 'SELECT $1, $2, $3, $4', date '2026-02-03', timestamptz '2026-02-03 04:05:06.789+02', interval '1 mon -2 days 03:04:05', timestamp 'infinity')
	AS t(a date, b timestamptz, c interval, d timestamp);
SELECT * FROM concord.query_on('b', 'SELECT $1, $2, $3, $4', ARRAY[1, NULL, 3], ARRAY[['a', 'b"'], ['c,', '{}']], '{"a": [1, null]}'::jsonb, '12.50'::money)
	AS t(a int[], b text[], c jsonb, d money);
SELECT * FROM concord.query_on('b', 'SELECT $1, $2, $3, $4, $5', 'ok'::mood, ROW(1, 'two')::pair, ARRAY['sad', 'ok']::mood[], 5::positive, ARRAY[ROW(1, NULL)]::pair[])
	AS t(a mood, b pair, c mood[], d positive, e pair[]);
SELECT * FROM concord.query_on('b', 'SELECT $1, $2, $3', NULL::int, NULL::mood, NULL) AS t(a int, b mood, c text);
SELECT * FROM concord.query_on('b', 'SELECT $1::float8, ''NaN''::float8, 0.1::float8 + 0.2', 'Infinity'::float8) AS t(a float8, b float8, c float8);
SELECT a = 0.1::float8 + 0.2 AS exact FROM concord.query_on('b', 'SELECT $1', 0.1::float8 + 0.2) AS t(a float8);
SELECT * FROM concord.query_on('b', 'SELECT $1 + 1, upper($2)', '41', 'untyped') AS t(a int, b text);
SELECT * FROM concord.query_on('a', 'SELECT $1 + 1, upper($2)', '41', 'untyped') AS t(a int, b text);
SELECT * FROM concord.query_on('b', 'SELECT $1, $2', VARIADIC ARRAY[1, 2]) AS t(a int, b int);
SELECT * FROM concord.query_on('a', 'SELECT $1, $2', VARIADIC ARRAY[1, 2]) AS t(a int, b int);
SELECT length(x), md5(x) = md5(repeat('abc', 1000000)) AS intact FROM concord.query_on('b', 'SELECT $1', repeat('abc', 1000000)) AS t(x text);
SELECT count(*), sum(x) FROM concord.query_on('b', 'SELECT g FROM generate_series(1, 100000) AS g') AS t(x int);
SELECT * FROM concord.query_on('b', 'SELECT NULL') AS t(x positive);
SELECT * FROM concord.query_on('b', 'SELECT -1') AS t(x positive);

-- the session's own settings go with the statement
SET DateStyle = 'German, DMY';
SET TimeZone = 'Asia/Kolkata';
SET IntervalStyle = 'iso_8601';
SELECT * FROM concord.query_on('b', 'SELECT $1, $2, $3, $1::text, $2::text, $3::text', date '03.02.2026', timestamptz '03.02.2026 04:05:06', interval '1 day')
	AS t(a date, b timestamptz, c interval, d text, e text, f text);
RESET DateStyle;
RESET TimeZone;
RESET IntervalStyle;
SELECT concord.execute_on('b', 'CREATE SCHEMA other');
SELECT concord.execute_on('b', 'CREATE TABLE other.hidden AS SELECT 7 AS x');
SELECT * FROM concord.query_on('b', 'SELECT x FROM hidden') AS t(x int);
SET search_path = other, public;
SELECT * FROM concord.query_on('b', 'SELECT x FROM hidden') AS t(x int);
BEGIN;
SET LOCAL search_path = public;
SELECT * FROM concord.query_on('b', 'SELECT current_setting(''search_path'')') AS t(x text);
ROLLBACK;
SELECT * FROM concord.query_on('b', 'SELECT x FROM hidden') AS t(x int);
RESET search_path;
-- and hold at the start of each transaction, whatever a statement there has set
SELECT * FROM concord.query_on('b', $$SELECT set_config('search_path', 'other', false)$$) AS t(x text);
SELECT * FROM concord.query_on('b', $$SELECT current_setting('search_path')$$) AS t(x text);

-- notices and errors of a peer
SELECT * FROM concord.query_on('b', 'SELECT chatty()') AS t(x int);
DO $$
DECLARE
	state text; message text; detail text; hint text; tab text; con text; context text;
BEGIN
	PERFORM * FROM concord.query_on('b', 'SELECT failing()') AS t(x int);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
		hint = PG_EXCEPTION_HINT, tab = TABLE_NAME, con = CONSTRAINT_NAME, context = PG_EXCEPTION_CONTEXT;
	RAISE INFO '% % % % % % [%]', state, message, detail, hint, tab, con, split_part(context, E'\nSQL statement', 1);
END $$;
SELECT * FROM concord.query_on('b', 'SELECT x FROM nowhere') AS t(x int);
SELECT * FROM concord.query_on('b', 'SELECT 1/0') AS t(x int);
SELECT * FROM concord.query_on('a', 'SELECT x FROM nowhere') AS t(x int);

-- bad input
SELECT * FROM concord.query_on('nobody', 'SELECT 1') AS t(x int);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM concord.query(1.5, 'SELECT 1') AS t(x int);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM concord.query(NULL::int, 'SELECT 1') AS t(x int);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM concord.query(1, NULL) AS t(x int);
\echo :LAST_ERROR_SQLSTATE
SELECT concord.execute_on(NULL, 'SELECT 1');
\echo :LAST_ERROR_SQLSTATE
SELECT concord.execute_on('b', '');
\echo :LAST_ERROR_SQLSTATE
SELECT concord.execute_on('b', ' -- nothing');
SELECT concord.execute_on('b', 'SELECT 1; SELECT 2');
\echo :LAST_ERROR_SQLSTATE
SELECT concord.execute_on('b', 'SELEC 1');
\echo :LAST_ERROR_SQLSTATE
SELECT concord.execute_on('b', 'COMMIT');
\echo :LAST_ERROR_SQLSTATE
SELECT concord.execute_on('a', 'ROLLBACK');
SELECT concord.execute_on('b', 'SAVEPOINT s');
SELECT concord.execute_on('b', 'PREPARE TRANSACTION ''x''');
SELECT concord.execute_on('b', 'SET search_path = x');
\echo :LAST_ERROR_SQLSTATE
SELECT concord.execute_on('b', 'RESET ALL');
SELECT concord.execute_on('b', 'SET LOCAL work_mem = ''1MB''');
SELECT concord.execute_on('b', 'COPY item FROM STDIN');
SELECT concord.execute_on('b', 'DISCARD ALL');
SELECT concord.execute_on('b', 'DEALLOCATE ALL');
SELECT concord.execute_on('b', 'LISTEN x');
SELECT concord.execute_on('b', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1');
SELECT concord.execute_on('b', 'SELECT $1');
\echo :LAST_ERROR_SQLSTATE
SELECT concord.execute_on('b', 'SELECT 1', 2);
SELECT concord.execute_on('b', 'SELECT $1::int', 'x');
SELECT concord.execute_on('a', 'SELECT $1::int', 'x');
SELECT concord.execute_on('b', 'SELECT $1', NULL);
SELECT * FROM concord.query_on('b', 'SELECT 1, 2') AS t(x int);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM concord.query_on('b', 'SELECT 1::bigint') AS t(x int);
SELECT * FROM concord.query_on('a', 'SELECT 1::bigint') AS t(x int);
SELECT * FROM concord.query_on('b', 'INSERT INTO item VALUES (1000, '''')') AS t(x int);
SELECT * FROM concord.query_on('a', 'INSERT INTO item VALUES (1000, '''')') AS t(x int);
SELECT concord.query_on('b', 'SELECT 1');
SELECT concord.query_json(1, 'CREATE TABLE x ()');
\echo :LAST_ERROR_SQLSTATE
SELECT concord.query_json(1, 'DELETE FROM item');
SELECT * FROM concord.query_all('SELECT 1') AS t(_node text, x int);
\echo :LAST_ERROR_SQLSTATE
CREATE TYPE only_here AS ENUM ('x');
SELECT * FROM concord.query_on('b', 'SELECT $1', 'x'::only_here) AS t(x text);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM concord.query_all('SELECT v FROM item WHERE id = $1', 1000) AS t(v text);

-- transactions: the branch follows the caller's
BEGIN;
SELECT concord.execute_on('b', 'INSERT INTO item VALUES (2000, ''gone'')');
SELECT state FROM concord.connections WHERE node = 'b';
ROLLBACK;
BEGIN;
SELECT concord.execute_on('b', 'INSERT INTO item VALUES (2001, ''stays'')');
SAVEPOINT one;
SELECT concord.execute_on('b', 'INSERT INTO item VALUES (2002, ''gone'')');
ROLLBACK TO one;
SAVEPOINT two;
SELECT concord.execute_on('b', 'INSERT INTO item VALUES (2003, ''stays'')');
RELEASE two;
SAVEPOINT three;
SELECT concord.execute_on('b', 'INSERT INTO item VALUES (2001, ''twice'')');
ROLLBACK TO three;
SELECT concord.execute_on('b', 'INSERT INTO item VALUES (2004, ''stays'')');
COMMIT;
DO $$
BEGIN
	FOR i IN 2004..2006 LOOP
		BEGIN
			PERFORM concord.execute_on('b', 'INSERT INTO item VALUES ($1, ''loop'')', i);
			IF i = 2006 THEN
				RAISE EXCEPTION 'undo 2006';
			END IF;
		EXCEPTION WHEN unique_violation OR raise_exception THEN
			RAISE NOTICE '%', SQLERRM;
		END;
	END LOOP;
END $$;
SELECT * FROM concord.query_on('b', 'SELECT id, v FROM item WHERE id >= 2000 ORDER BY id') AS t(id bigint, v text);

-- a nested level that never touched the peer leaves its savepoints alone
BEGIN;
SAVEPOINT one;
SELECT concord.execute_on('b', 'DELETE FROM item WHERE id = 2001');
RELEASE one;
SAVEPOINT again;
SELECT 1 AS local_only;
ROLLBACK TO again;
SELECT * FROM concord.query_on('b', 'SELECT count(*) FROM item WHERE id = 2001') AS t(n bigint);
COMMIT;
SELECT * FROM concord.query_on('b', 'SELECT count(*) FROM item WHERE id = 2001') AS t(n bigint);

-- isolation level and access mode travel
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT * FROM concord.query_on('b', 'SELECT current_setting(''transaction_isolation''), current_setting(''transaction_read_only'')') AS t(i text, r text);
SELECT concord.execute_on('b', 'DELETE FROM item');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT * FROM concord.query_on('b', 'SELECT current_setting(''transaction_isolation''), current_setting(''transaction_deferrable'')') AS t(i text, r text);
COMMIT;
BEGIN;
SELECT * FROM concord.query_on('b', 'SELECT current_setting(''transaction_read_only'')') AS t(r text);
SET TRANSACTION READ ONLY;
SELECT * FROM concord.query_on('b', 'SELECT current_setting(''transaction_read_only'')') AS t(r text);
COMMIT;

-- a writer reads everywhere; what it writes on several nodes is the matter of atomic.sql
BEGIN;
SELECT concord.execute_on('b', 'INSERT INTO item VALUES (3000, ''x'')');
SELECT * FROM concord.query_on('c', 'SELECT count(*) FROM item WHERE id = 3000') AS t(n bigint);
SELECT * FROM concord.query_all('SELECT count(*) FROM item WHERE id = 3000') AS t(_node name, n bigint) ORDER BY _node;
ROLLBACK;
BEGIN;
INSERT INTO item VALUES (3001, 'local');
SELECT * FROM concord.query_on('b', 'SELECT count(*) FROM item WHERE id = 3001') AS t(n bigint);
ROLLBACK;
SELECT count(*) FROM concord.query_all('SELECT id FROM item WHERE id >= 3000') AS t(id bigint);
BEGIN;
SELECT * FROM concord.query_on('b', 'SELECT 1') AS t(n int);
PREPARE TRANSACTION 'regress_route';
\echo :LAST_ERROR_SQLSTATE

-- an error of the peer's COMMIT is the caller's
BEGIN;
SELECT concord.execute_on('b', 'INSERT INTO late VALUES (1), (1)');
COMMIT;
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM concord.query_on('b', 'SELECT count(*) FROM late') AS t(n bigint);

-- a plan whose result type changed is planned again
SELECT concord.execute_on('b', 'CREATE TABLE shape AS SELECT 1 AS x');
SELECT * FROM concord.query_on('b', 'SELECT * FROM shape') AS t(x int);
SELECT concord.execute_on('b', 'ALTER TABLE shape ALTER x TYPE text');
SELECT * FROM concord.query_on('b', 'SELECT * FROM shape') AS t(x text);

-- few prepared statements, many statements
SET concord.prepared_statements = 3;
SELECT sum(x) FROM generate_series(1, 20) AS i, LATERAL concord.query_on('b', 'SELECT $1 + ' || i % 7, i) AS t(x int);
SET concord.prepared_statements = 0;
SELECT sum(x) FROM generate_series(1, 20) AS i, LATERAL concord.query_on('b', 'SELECT $1 + ' || i % 7, i) AS t(x int);
RESET concord.prepared_statements;

-- connections
SELECT node, state, valid FROM concord.connections ORDER BY node;
BEGIN;
SELECT * FROM concord.query_on('b', 'SELECT 1') AS t(n int);
SELECT concord.close_connections('b');
COMMIT;
SELECT concord.close_connections('b');
SELECT concord.close_connections();
SELECT count(*) FROM concord.connections;

-- privileges: a role needs its mapping, and a password of its own
CREATE ROLE regress_route_user LOGIN;
GRANT SELECT ON item TO regress_route_user;
SET ROLE regress_route_user;
SELECT * FROM concord.query_on('b', 'SELECT 1') AS t(n int);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM concord.query_on('a', 'SELECT count(*) > 0 FROM item') AS t(n bool);
RESET ROLE;
SELECT node, status FROM concord.map_user('regress_route_user', ARRAY['user=regress_route_user']) ORDER BY node;
SET ROLE regress_route_user;
SELECT * FROM concord.query_on('b', 'SELECT 1') AS t(n int);
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
SELECT node, status FROM concord.map_user('regress_route_user', ARRAY['user=regress_route_user', 'password_required=false']) ORDER BY node;
SET ROLE regress_route_user;
SELECT * FROM concord.query_on('b', 'SELECT current_user') AS t(u name);
SELECT * FROM concord.query_on('b', 'SELECT * FROM item') AS t(id bigint, v text);
\echo :LAST_ERROR_SQLSTATE
SELECT node, role FROM concord.connections ORDER BY node;
RESET ROLE;

-- lost slots
SELECT concord.remove_node('c', force => true);
SELECT count(*) > 0 AS some FROM concord.slots WHERE node IS NULL;
SELECT (SELECT k FROM generate_series(1, 100) AS k, concord.slots s WHERE s.slot = concord.slot(k) AND s.node IS NULL LIMIT 1) AS lost_key \gset
SELECT concord.locate(:lost_key);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM concord.query(:lost_key, 'SELECT 1') AS t(n int);
SELECT concord.assign_lost_slots('b') > 0 AS assigned;
SELECT * FROM concord.query(:lost_key, 'SELECT current_database()') AS t(n name);

SELECT concord.remove_node('b', force => true);
SELECT concord.remove_node('a', force => true);
\c contrib_regression
DROP DATABASE regress_route_a;
DROP DATABASE regress_route_b;
DROP DATABASE regress_route_c;
DROP ROLE regress_route_user;
