-- Transaction locks, over two nodes in two databases of this server.
CREATE DATABASE regress_lock_a TEMPLATE template0;
CREATE DATABASE regress_lock_b TEMPLATE template0;
SELECT format('host=%s port=%s user=%s dbname=', split_part(current_setting('unix_socket_directories'), ',', 1),
	current_setting('port'), current_user) AS server \gset
\set conninfo_a '\'' :server 'regress_lock_a\''
\set conninfo_b '\'' :server 'regress_lock_b\''
\c regress_lock_b
SET client_min_messages = warning;
CREATE EXTENSION pg_concord;
\c regress_lock_a
SET client_min_messages = warning;
CREATE EXTENSION pg_concord;
RESET client_min_messages;

-- outside a cluster
SELECT concord.xact_lock('x');
\echo :LAST_ERROR_SQLSTATE
SELECT concord.create_cluster('a', :conninfo_a) IS NOT NULL AS created;
SELECT concord.add_node('b', :conninfo_b);
SELECT concord.rebalance();
SELECT min(name) FILTER (WHERE node = 'a') AS here, min(name) FILTER (WHERE node = 'b') AS there
FROM (SELECT name, concord.locate(name) AS node FROM (SELECT 'lock ' || i FROM generate_series(1, 20) AS i) AS t(name)) AS q \gset

-- what there is to be seen, on both nodes: the name's lock and the slot's
CREATE VIEW seen AS
	SELECT d.datname, CASE WHEN l.objsubid = 20547 THEN 'slot' ELSE 'lock' END AS what, l.mode,
		l.pid IS NULL AS prepared,
		CASE WHEN l.objsubid = 20547 THEN concord.slot(n.name) = l.objid::bigint
			ELSE hashtextextended(n.name, 0) = (l.classid::bigint << 32 | l.objid::bigint) END AS as_documented, n.name
	FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
	CROSS JOIN (SELECT 'lock ' || i FROM generate_series(1, 20) AS i) AS n(name)
	WHERE l.locktype = 'advisory' AND objsubid <> 20550 AND l.granted
		AND CASE WHEN l.objsubid = 20547 THEN concord.slot(n.name) = l.objid::bigint
			ELSE hashtextextended(n.name, 0) = (l.classid::bigint << 32 | l.objid::bigint) END;
BEGIN;
SELECT concord.xact_lock(:'here'), concord.xact_lock(:'there', 'shared');
SELECT datname, what, mode, name = CASE datname WHEN 'regress_lock_a' THEN :'here' ELSE :'there' END AS its_name
FROM seen ORDER BY datname, what;
-- again, and in the other mode
SELECT concord.xact_lock(:'here', 'shared'), concord.try_xact_lock(:'there'), concord.try_xact_lock(:'there', 'shared');
SELECT datname, what, mode FROM seen ORDER BY datname, what, mode COLLATE "C";
COMMIT;
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid <> 20550;

-- by itself it is pointless, but works
SELECT concord.xact_lock(:'there'), concord.try_xact_lock(:'here');
SELECT concord.xact_lock(:'there');
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid <> 20550;

-- it ends with the savepoint, here and there
BEGIN;
SAVEPOINT s;
SELECT concord.xact_lock(:'here'), concord.xact_lock(:'there');
ROLLBACK TO s;
SELECT * FROM concord.query_on('b', 'SELECT count(*), current_setting(''concord.branch_state'') FROM pg_locks WHERE locktype = ''advisory'' AND objsubid <> 20550') AS (locks bigint, state text);
SELECT concord.xact_lock(:'there');
SELECT * FROM concord.query_on('b', 'SELECT count(*), current_setting(''concord.branch_state'') FROM pg_locks WHERE locktype = ''advisory'' AND objsubid <> 20550') AS (locks bigint, state text);
ROLLBACK;

-- what a branch reports
BEGIN;
SELECT concord.xact_lock(:'there');
SELECT concord.execute_on('b', 'CREATE TEMP TABLE gone (x int)');
SELECT * FROM concord.query_on('b', 'SELECT current_setting(''concord.branch_state'')') AS (state text);
ROLLBACK;
BEGIN;
SELECT concord.execute_on('b', 'CREATE TEMP TABLE gone (x int)');
SELECT concord.execute_on('b', format('SELECT concord.xact_lock(%L)', :'there'));
SELECT * FROM concord.query_on('b', 'SELECT current_setting(''concord.branch_state'')') AS (state text);
ROLLBACK;

-- a branch that only holds a lock is prepared with others' writes, and only then
CREATE TABLE written (x int);
\c regress_lock_b
CREATE TABLE written (x int);
\c regress_lock_a
\set stats 'SELECT committed_1pc, committed_2pc FROM concord.transaction_stats'
:stats;
BEGIN;
SELECT concord.xact_lock(:'there');
SELECT concord.xact_lock(:'here');
COMMIT;
:stats;
BEGIN;
SELECT concord.xact_lock(:'there');
SHOW concord.transaction;
INSERT INTO written VALUES (1);
SELECT current_setting('concord.transaction') <> '' AS told;
COMMIT;
:stats;
BEGIN;
SELECT concord.xact_lock(:'there');
SAVEPOINT s;
INSERT INTO written VALUES (2);
ROLLBACK TO s;
COMMIT;
:stats;
-- a lock given back with its savepoint is none
BEGIN;
INSERT INTO written VALUES (3);
SELECT * FROM concord.query_on('b', 'SELECT 1') AS (x int);
SAVEPOINT s;
SELECT concord.xact_lock(:'there');
ROLLBACK TO s;
SELECT * FROM concord.query_on('b', 'SELECT 1') AS (x int);
COMMIT;
:stats;
-- a lock where it was written: still one node
BEGIN;
SELECT concord.xact_lock(:'there');
SELECT concord.execute_on('b', 'INSERT INTO written VALUES (1)');
COMMIT;
:stats;
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid <> 20550;

-- read-only transactions and others
BEGIN READ ONLY;
SELECT concord.xact_lock(:'here'), concord.xact_lock(:'there'), concord.try_xact_lock(:'there');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT concord.xact_lock(:'there');
COMMIT;
SET concord.consistency = weak;
BEGIN;
SELECT concord.xact_lock(:'there');
COMMIT;
RESET concord.consistency;
PREPARE take AS SELECT concord.try_xact_lock($1, $2);
BEGIN;
EXECUTE take(:'there', 'shared');
EXECUTE take(:'here', 'exclusive');
COMMIT;
-- prepared by hand: a lock here is kept, one on another node cannot be
BEGIN;
SELECT concord.xact_lock(:'here');
PREPARE TRANSACTION 'by hand';
SELECT datname, what, mode, prepared FROM seen ORDER BY what;
\c regress_lock_b
SELECT concord.try_xact_lock(:'here');
\c regress_lock_a
SELECT concord.try_xact_lock(:'here');
COMMIT PREPARED 'by hand';
SELECT concord.try_xact_lock(:'here');
BEGIN;
SELECT concord.xact_lock(:'there');
PREPARE TRANSACTION 'by hand';
\echo :LAST_ERROR_SQLSTATE

-- bad input
SELECT concord.xact_lock('');
\echo :LAST_ERROR_SQLSTATE
SELECT concord.xact_lock(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT concord.xact_lock(repeat('x', 255));
SELECT concord.try_xact_lock(repeat('ä', 128));
\echo :LAST_ERROR_SQLSTATE
SELECT concord.xact_lock('x', 'SHARED');
\echo :LAST_ERROR_SQLSTATE
SELECT concord.try_xact_lock('x', NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT concord._xact_lock('', true, true);
\echo :LAST_ERROR_SQLSTATE
-- on the wrong node
SELECT concord._xact_lock(:'there', true, true);
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid <> 20550;

-- whoever may use the database may lock
CREATE ROLE regress_locker;
SET ROLE regress_locker;
SELECT concord.xact_lock(:'here');
SELECT concord.xact_lock(:'there');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
DROP ROLE regress_locker;

-- a lost slot is nobody's
SELECT concord.remove_node('b', force => true);
SELECT concord.xact_lock(:'there');
\echo :LAST_ERROR_SQLSTATE
\c contrib_regression
DROP DATABASE regress_lock_a;
DROP DATABASE regress_lock_b;
