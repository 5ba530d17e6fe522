--
-- Registers: every function and every error a user can meet, in clusters of one and three databases
-- of this server.
--
\set VERBOSITY default
\set SHOW_CONTEXT never

SELECT current_setting('port') AS port,
	coalesce(nullif(trim(split_part(current_setting('unix_socket_directories'), ',', 1)), ''), 'localhost') AS host \gset
\set address 'host=' :host ' port=' :port ' dbname='
\set to_a :address 'regression_r_a'
\set to_b :address 'regression_r_b'
\set to_c :address 'regression_r_c'

CREATE ROLE regress_r_user LOGIN;
CREATE DATABASE regression_r_a TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
\c regression_r_a
CREATE EXTENSION pg_concord;
CREATE PROCEDURE await(condition text) LANGUAGE plpgsql AS $$
DECLARE
	ok boolean;
	until timestamptz := clock_timestamp() + interval '30 s';
BEGIN
	LOOP
		EXECUTE 'SELECT ' || condition INTO ok;
		EXIT WHEN ok;
		IF clock_timestamp() > until THEN
			RAISE EXCEPTION 'not within 30 s: %', condition;
		END IF;
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
\c postgres
CREATE DATABASE regression_r_b TEMPLATE regression_r_a;
CREATE DATABASE regression_r_c TEMPLATE regression_r_a;
\c regression_r_a

--
-- Without a cluster
--
SELECT * FROM concord.register_get('x');
\echo :SQLSTATE
SELECT concord.register_set('x', 'y', 0);
\echo :SQLSTATE
SELECT concord.register_delete('x', 1);
\echo :SQLSTATE
SELECT * FROM concord.acceptors;
SELECT concord._acceptors_suffice('a');
\echo :SQLSTATE

--
-- With one node
--
SELECT concord.create_cluster('a', :'to_a') IS NOT NULL AS created;
SET concord.connect_timeout = '30s';
SET concord.register_timeout = '30s';
SELECT * FROM concord.acceptors;
SELECT * FROM concord.register_get('x');
SELECT concord.register_set('x', 'one', 0);
SELECT * FROM concord.register_get('x');
SELECT concord.register_set('x', 'two', 1);
SELECT * FROM concord.register_get('x');

-- what it is not at
SELECT concord.register_set('x', 'three', 1);
\echo :SQLSTATE
SELECT concord.register_set('x', 'three', 0);
SELECT concord.register_set('x', 'three', 9223372036854775807);
SELECT concord.register_set('y', 'three', 1);
SELECT concord.register_delete('x', 1);
\echo :SQLSTATE
SELECT concord.register_delete('y', 1);

-- names
SELECT * FROM concord.register_get('');
\echo :SQLSTATE
SELECT concord.register_set('', 'y', 0);
SELECT concord.register_delete('', 1);
SELECT version FROM concord.register_get(repeat('n', 255));
SELECT * FROM concord.register_get(repeat('n', 256));
\echo :SQLSTATE
SELECT concord.register_set(repeat('ä', 128), 'y', 0);
SELECT concord.register_set(' "ä''', 'quoted', 0);
SELECT value FROM concord.register_get(' "ä''');
-- upper and lower case are not the same, nor is what is above the register's own
SELECT version FROM concord.register_get('X');
SELECT version FROM concord.register_get('r:x');

-- values
SELECT concord.register_set('empty', '', 0);
SELECT value = '' AS empty, version FROM concord.register_get('empty');
SELECT concord.register_set('long', repeat('x', 512), 0);
SELECT concord.register_set('long', repeat('x', 513), 1);
SELECT length(value), version FROM concord.register_get('long');
SELECT concord.register_set('long', repeat('0123456789abcdef', 65536), 2);
SELECT value = repeat('0123456789abcdef', 65536) AS same, version FROM concord.register_get('long');
SELECT concord.register_set('long', repeat('x', 1048577), 3);
\echo :SQLSTATE
SELECT concord.register_set('long', 'short', 3);
SELECT * FROM concord.register_get('long');

-- NULLs, negative versions
SELECT * FROM concord.register_get(NULL);
\echo :SQLSTATE
SELECT concord.register_set(NULL, 'y', 0);
SELECT concord.register_set('x', NULL, 0);
\echo :SQLSTATE
SELECT concord.register_set('x', 'y', NULL);
SELECT concord.register_set('x', 'y', -1);
\echo :SQLSTATE
SELECT concord.register_delete(NULL, 1);
SELECT concord.register_delete('x', NULL);
SELECT concord.register_delete('x', 0);
\echo :SQLSTATE
SELECT concord.register_delete('x', -1);

-- deleted and made again, versions grow
SELECT concord.register_delete('x', 2);
SELECT * FROM concord.register_get('x');
SELECT concord.register_set('x', 'again', 2);
SELECT concord.register_set('x', 'again', 0) > 3 AS grows;
SELECT concord.register_delete('x', version) FROM concord.register_get('x');
CALL await($$NOT EXISTS (SELECT FROM concord.register WHERE name = 'r:x')$$);
SELECT concord.register_set('never before', 'x', 0) > 4 AS above_what_was_erased;
SELECT concord.register_set('x', 'third', 0) > 5 AS grows;

--
-- Transactions: it is no part of them
--
BEGIN;
SELECT concord.register_set('tx', 'kept', 0) > 0 AS made;
ROLLBACK;
SELECT value FROM concord.register_get('tx');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT value FROM concord.register_get('tx');
SELECT concord.register_set('tx', 'seen at once', version) IS NOT NULL AS changed FROM concord.register_get('tx');
SELECT value FROM concord.register_get('tx');
COMMIT;
BEGIN READ ONLY;
SELECT value FROM concord.register_get('tx');
SELECT concord.register_set('tx', 'x', 0);
\echo :SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT concord.register_delete('tx', 1);
ROLLBACK;
BEGIN;
SAVEPOINT s;
\set VERBOSITY terse
SELECT concord.register_set('tx', 'x', 1);
\echo :SQLSTATE
\set VERBOSITY default
ROLLBACK TO s;
SELECT value FROM concord.register_get('tx');
COMMIT;

-- in PL/pgSQL, with its errors caught
DO $$
DECLARE
	r record;
	caught int := 0;
BEGIN
	FOR i IN 1..10 LOOP
		SELECT * INTO r FROM concord.register_get('loop');
		BEGIN
			PERFORM concord.register_set('loop', i::text, r.version + i % 2);
		EXCEPTION WHEN SQLSTATE 'PC007' THEN
			caught := caught + 1;
		END;
	END LOOP;
	RAISE NOTICE '% caught, %', caught, (SELECT value FROM concord.register_get('loop'));
END $$;
-- a table's column, and many in one statement
CREATE TABLE names (name text);
INSERT INTO names SELECT 'many ' || i FROM generate_series(1, 50) i;
SELECT count(concord.register_set(name, 'of ' || name, 0)) FROM names;
SELECT count(*) FROM names, concord.register_get(name) r WHERE r.value = 'of ' || name;

--
-- Privileges
--
SET ROLE regress_r_user;
SELECT * FROM concord.register_get('x');
\echo :SQLSTATE
SELECT concord.register_set('x', 'y', 0);
SELECT concord.register_delete('x', 1);
SELECT concord._registers('');
\echo :SQLSTATE
SELECT concord._found_configuration();
SELECT * FROM concord.register;
SELECT node, state FROM concord.acceptors;
RESET ROLE;
GRANT EXECUTE ON FUNCTION concord.register_get(text) TO regress_r_user;
SET ROLE regress_r_user;
SELECT value FROM concord.register_get('tx');
RESET ROLE;

-- what no peer sends
SELECT concord._registers('');
\echo :SQLSTATE
SELECT concord._registers('\x01000101');
SELECT concord._registers('\x0200');
SELECT concord._registers('\x010000');
SELECT concord._learn_configuration(gen_random_uuid(), '');
\echo :SQLSTATE
SELECT concord._acceptor(gen_random_uuid(), true);
SELECT concord._learn_configuration((SELECT cluster FROM concord._configuration()), '\x00');
\echo :SQLSTATE
SELECT concord._acceptor((SELECT cluster FROM concord._configuration()), true);
\echo :SQLSTATE

-- settings
SET concord.register_timeout = 0;
SET concord.acceptors = 3;
ALTER SYSTEM SET concord.acceptors = 4;
ALTER SYSTEM SET concord.acceptors = 7;

--
-- With three: they become the acceptors, and keep what there is
--
SELECT concord.add_node('b', :'to_b') IS NOT NULL AS added;
SELECT concord.add_node('c', :'to_c') IS NOT NULL AS added;
CALL await($$(SELECT string_agg(node || ' ' || state, ', ' ORDER BY node) = 'a acceptor, b acceptor, c acceptor' FROM concord.acceptors)$$);
SELECT value FROM concord.register_get('tx');
\c regression_r_c
CALL await($$(SELECT membership = 'member' FROM concord._probe())$$);
SET concord.connect_timeout = '30s';
SET concord.register_timeout = '30s';
SELECT value FROM concord.register_get('tx');
SELECT concord.register_set('tx', 'from c', version) IS NOT NULL AS changed FROM concord.register_get('tx');
\c regression_r_a
SELECT value FROM concord.register_get('tx');
SELECT count(*) FROM names, concord.register_get(name) r WHERE r.value = 'of ' || name;

SELECT concord.remove_node('c');
SELECT concord.remove_node('b');
CALL await($$(SELECT string_agg(node || ' ' || state, ', ' ORDER BY node) = 'a acceptor' FROM concord.acceptors)$$);
SELECT value FROM concord.register_get('tx');
SELECT concord.remove_node('a');
SELECT * FROM concord.register_get('tx');
SELECT * FROM concord.acceptors;
-- another cluster has none of it
SELECT concord.create_cluster('a', :'to_a') IS NOT NULL AS created;
SET concord.connect_timeout = '30s';
SELECT * FROM concord.register_get('tx');
SELECT concord.remove_node('a');

\c postgres
DROP DATABASE regression_r_a;
DROP DATABASE regression_r_b;
DROP DATABASE regression_r_c;
DROP ROLE regress_r_user;
