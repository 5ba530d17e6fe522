-- Atomic commit over three databases of this server: all of it or nothing.
CREATE DATABASE regress_atomic_a TEMPLATE template0;
CREATE DATABASE regress_atomic_b TEMPLATE template0;
CREATE DATABASE regress_atomic_c TEMPLATE template0;
SELECT format('host=%s port=%s user=%s dbname=', split_part(current_setting('unix_socket_directories'), ',', 1),
	current_setting('port'), current_user) AS server \gset
\set conninfo_a '\'' :server 'regress_atomic_a\''
\set conninfo_b '\'' :server 'regress_atomic_b\''
\set conninfo_c '\'' :server 'regress_atomic_c\''
-- on a busy machine as well
ALTER DATABASE regress_atomic_a SET concord.view_timeout = '60s';
ALTER DATABASE regress_atomic_b SET concord.view_timeout = '60s';
ALTER DATABASE regress_atomic_c SET concord.view_timeout = '60s';

\c regress_atomic_b
SET client_min_messages = warning;
CREATE EXTENSION pg_concord;
CREATE TABLE account (id int PRIMARY KEY, v int NOT NULL CHECK (v >= 0), CONSTRAINT late_v UNIQUE (v) DEFERRABLE INITIALLY DEFERRED);
\c regress_atomic_c
SET client_min_messages = warning;
CREATE EXTENSION pg_concord;
CREATE TABLE account (id int PRIMARY KEY, v int NOT NULL CHECK (v >= 0), CONSTRAINT late_v UNIQUE (v) DEFERRABLE INITIALLY DEFERRED);
\c regress_atomic_a
SET client_min_messages = warning;
CREATE EXTENSION pg_concord;
RESET client_min_messages;
CREATE TABLE account (id int PRIMARY KEY, v int NOT NULL CHECK (v >= 0), CONSTRAINT late_v UNIQUE (v) DEFERRABLE INITIALLY DEFERRED);

-- outside a cluster
SELECT concord.transaction_outcome('x');
\echo :LAST_ERROR_SQLSTATE
SELECT concord.resolve_transactions();
\echo :LAST_ERROR_SQLSTATE
SELECT concord.force_transaction('x', 'abort');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM concord.transactions;

SELECT concord.create_cluster('a', :conninfo_a) IS NOT NULL AS created;
SELECT concord.add_node('b', :conninfo_b);
SELECT concord.add_node('c', :conninfo_c);

-- what is where, in one line
CREATE VIEW everywhere AS
	SELECT string_agg(r._node || ':' || coalesce(r.ids, '-'), ' ' ORDER BY r._node) AS rows
	FROM concord.query_all('SELECT string_agg(id::text, '','' ORDER BY id) FROM account') AS r(_node name, ids text);
-- and a short way to write
CREATE FUNCTION put(node name, id int) RETURNS bigint LANGUAGE sql AS
	$$ SELECT concord.execute_on(node, 'INSERT INTO account VALUES ($1, $1)', id) $$;

-- two nodes, both or none
BEGIN;
SELECT put('b', 1), put('c', 1);
COMMIT;
TABLE everywhere;
BEGIN;
SELECT put('b', 2), put('c', 2);
ROLLBACK;
TABLE everywhere;
-- local and remote, in either order
BEGIN;
INSERT INTO account VALUES (3, 3);
SELECT put('b', 3);
COMMIT;
BEGIN;
SELECT put('c', 4);
INSERT INTO account VALUES (4, 4);
COMMIT;
TABLE everywhere;
-- the local node by its name is the same transaction
BEGIN;
SELECT put('a', 5), put('b', 5);
SELECT count(*) FROM account WHERE id = 5;
COMMIT;
TABLE everywhere;
-- everywhere, in a transaction or not
SELECT * FROM concord.execute_all('INSERT INTO account VALUES ($1, $1)', 6) ORDER BY node;
BEGIN;
SELECT * FROM concord.execute_all('DELETE FROM account') ORDER BY node;
TABLE everywhere;
ROLLBACK;
TABLE everywhere;
-- one statement that writes on all
SELECT sum(put(n, 7)) FROM unnest('{a,b,c}'::name[]) AS n;
TABLE everywhere;
-- a second look from another session's eyes
\c regress_atomic_c
SELECT string_agg(id::text, ',' ORDER BY id) FROM account;
\c regress_atomic_a
SELECT sum(n) FROM concord.execute_all('DELETE FROM account') AS t(node, n);

-- savepoints
BEGIN;
SELECT put('b', 1), put('c', 1);
SAVEPOINT one;
SELECT put('b', 2), put('c', 2);
INSERT INTO account VALUES (2, 2);
ROLLBACK TO one;
SELECT put('c', 3);
RELEASE one;
SAVEPOINT two;
SELECT put('b', 3), put('c', 3);
ROLLBACK TO two;
INSERT INTO account VALUES (3, 3);
COMMIT;
TABLE everywhere;
-- writers that were undone again are no writers, but did take a transaction id
BEGIN;
SAVEPOINT one;
SELECT put('b', 4), put('c', 4);
ROLLBACK TO one;
COMMIT;
TABLE everywhere;
-- PL/pgSQL's EXCEPTION undoes its own part everywhere
DO $$
BEGIN
	PERFORM put('b', 5);
	FOR i IN 1..2 LOOP
		BEGIN
			PERFORM put('c', 4 + i), put('b', 4 + i);
			INSERT INTO account VALUES (4 + i, 4 + i);
		EXCEPTION WHEN unique_violation THEN
			RAISE NOTICE '%', SQLERRM;
		END;
	END LOOP;
END $$;
TABLE everywhere;
-- COMMIT and ROLLBACK in a procedure, and in DO
CREATE PROCEDURE steps() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 10..13 LOOP
		PERFORM put('b', i), put('c', i);
		INSERT INTO account VALUES (i, i);
		IF i % 2 = 0 THEN
			COMMIT;
		ELSE
			ROLLBACK;
		END IF;
	END LOOP;
	PERFORM put('b', 14), put('c', 14);
END $$;
CALL steps();
TABLE everywhere;
DO $$
BEGIN
	PERFORM put('b', 15), put('c', 15);
	COMMIT;
	PERFORM put('b', 16), put('c', 16);
	RAISE EXCEPTION 'the end';
END $$;
TABLE everywhere;
SELECT sum(n) FROM concord.execute_all('DELETE FROM account') AS t(node, n);

-- what one participant refuses at the end, nobody does
BEGIN;
INSERT INTO account VALUES (1, 1);
SELECT put('b', 1);
SELECT concord.execute_on('c', 'INSERT INTO account VALUES (1, 7), (2, 7)');
COMMIT;
\echo :LAST_ERROR_SQLSTATE
TABLE everywhere;
-- local constraints are checked before anybody prepares
BEGIN;
SELECT put('b', 1);
INSERT INTO account VALUES (1, 7), (2, 7);
COMMIT;
\echo :LAST_ERROR_SQLSTATE
TABLE everywhere;
SELECT count(*) FROM concord.execute_all('INSERT INTO account VALUES (1, 7), (2, 7)');
\echo :LAST_ERROR_SQLSTATE
TABLE everywhere;
-- and the session goes on
SELECT sum(n) FROM concord.execute_all('INSERT INTO account VALUES (1, 1)') AS t(node, n);
TABLE everywhere;

-- the global id is told before COMMIT, and leads to the outcome on every node
SELECT current_setting('concord.transaction') = '' AS none;
BEGIN;
SELECT put('b', 20);
SELECT current_setting('concord.transaction') = '' AS one_writer_needs_none;
SELECT put('c', 20);
SELECT current_setting('concord.transaction') AS gid \gset
SELECT regexp_replace(:'gid', '^concord:[0-9a-f-]{36}:(\d+):[0-9a-f]{16}:\d+:', 'concord:<cluster>:\1:<incarnation>:<serial>:') AS gid;
SELECT concord.transaction_outcome(:'gid');
SELECT coordinator, participants, state, label, pid = pg_backend_pid() AS mine, role = current_user AS me, node
	FROM concord.transactions WHERE gid = :'gid';
COMMIT;
SELECT current_setting('concord.transaction') = '' AS none;
SELECT concord.transaction_outcome(:'gid');
SELECT * FROM concord.query_all('SELECT concord.transaction_outcome($1)', :'gid') AS t(_node name, outcome text) ORDER BY _node;
BEGIN;
SELECT put('b', 21), put('c', 21);
SELECT current_setting('concord.transaction') AS gid \gset
ROLLBACK;
SELECT concord.transaction_outcome(:'gid');
SELECT concord.transaction_outcome('concord:nonsense');
\echo :LAST_ERROR_SQLSTATE
SELECT concord.transaction_outcome('');
\echo :LAST_ERROR_SQLSTATE
SELECT concord.transaction_outcome(repeat('x', 65));
\echo :LAST_ERROR_SQLSTATE
SELECT concord.transaction_outcome(NULL) IS NULL AS strict;
SET concord.transaction = 'x';
\echo :LAST_ERROR_SQLSTATE

-- the client's own name for it
BEGIN;
SET LOCAL concord.transaction_label = 'transfer 1';
SELECT put('b', 22), put('c', 22);
SELECT concord.transaction_outcome('transfer 1');
SELECT label, state FROM concord.transactions WHERE label IS NOT NULL;
COMMIT;
SELECT concord.transaction_outcome('transfer 1');
SELECT * FROM concord.query_all('SELECT concord.transaction_outcome($1)', 'transfer 1'::text) AS t(_node name, outcome text) ORDER BY _node;
-- of a transaction with one writer, elsewhere or here
BEGIN;
SET LOCAL concord.transaction_label = 'one remote';
SELECT put('b', 23);
COMMIT;
BEGIN;
SET LOCAL concord.transaction_label = 'one local';
INSERT INTO account VALUES (23, 23);
COMMIT;
BEGIN;
SET LOCAL concord.transaction_label = 'nothing written';
SELECT 1 AS one;
COMMIT;
BEGIN;
SET LOCAL concord.transaction_label = 'rolled back';
SELECT put('b', 24), put('c', 24);
ROLLBACK;
SELECT l AS label, concord.transaction_outcome(l)
	FROM unnest('{one remote,one local,nothing written,rolled back,never heard of}'::text[]) AS l;
-- is used once
BEGIN;
SET LOCAL concord.transaction_label = 'transfer 1';
SELECT put('b', 25), put('c', 25);
COMMIT;
\echo :LAST_ERROR_SQLSTATE
TABLE everywhere;
BEGIN;
SET LOCAL concord.transaction_label = 'one remote';
SELECT put('b', 25);
COMMIT;
\echo :LAST_ERROR_SQLSTATE
TABLE everywhere;
-- may be used again after a rollback
BEGIN;
SET LOCAL concord.transaction_label = 'rolled back';
SELECT put('b', 25), put('c', 25);
COMMIT;
SELECT concord.transaction_outcome('rolled back');
-- has a form
BEGIN;
SET LOCAL concord.transaction_label = 'concord:mine';
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
SET concord.transaction_label = E'two\nlines';
\echo :LAST_ERROR_SQLSTATE
SELECT set_config('concord.transaction_label', repeat('x', 65), true);
\echo :LAST_ERROR_SQLSTATE
SELECT length(set_config('concord.transaction_label', repeat('x', 64), true));
SHOW concord.transaction_label;
SELECT sum(n) FROM concord.execute_all('DELETE FROM account') AS t(node, n);

-- what cannot be promised is refused
BEGIN;
SELECT put('b', 1), put('c', 1);
PREPARE TRANSACTION 'mine';
\echo :LAST_ERROR_SQLSTATE
TABLE everywhere;
SET concord.commit_protocol = 'paxos';
\echo :LAST_ERROR_SQLSTATE
SET concord.commit_protocol = 'none';
\echo :LAST_ERROR_SQLSTATE
SHOW concord.commit_protocol;
-- SERIALIZABLE is per node: that is said once in a transaction, or refused
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT put('b', 1);
SELECT put('c', 1);
SELECT put('a', 1);
SELECT put('b', 2);
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT put('b', 3);
SELECT put('c', 3);
COMMIT;
SET concord.strict_serializable = on;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT put('b', 4);
SELECT put('c', 4);
\echo :LAST_ERROR_SQLSTATE
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT put('b', 4);
SELECT put('b', 5);
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT put('b', 6);
SELECT put('c', 6);
COMMIT;
RESET concord.strict_serializable;
TABLE everywhere;
SELECT sum(n) FROM concord.execute_all('DELETE FROM account') AS t(node, n);

-- temporary tables: here they are no hindrance, elsewhere they are one
BEGIN;
CREATE TEMPORARY TABLE mine (x int) ON COMMIT DROP;
INSERT INTO mine VALUES (1);
SELECT put('b', x), put('c', x) FROM mine;
COMMIT;
TABLE everywhere;
BEGIN;
SELECT concord.execute_on('b', 'CREATE TEMPORARY TABLE theirs (x int) ON COMMIT DROP');
SELECT put('b', 2), put('c', 2);
COMMIT;
\echo :LAST_ERROR_SQLSTATE
TABLE everywhere;
-- neither is NOTIFY
BEGIN;
NOTIFY regress_atomic;
SELECT put('b', 3);
INSERT INTO account VALUES (3, 3);
COMMIT;
BEGIN;
SELECT put('c', 4);
SELECT concord.execute_on('b', 'NOTIFY regress_atomic');
COMMIT;
TABLE everywhere;
-- a role set for the branch does not outlive it, and does not hinder its end
CREATE ROLE regress_atomic_user;
BEGIN;
SELECT concord.execute_on('b', 'GRANT ALL ON account TO regress_atomic_user');
SELECT concord.execute_on('c', 'GRANT ALL ON account TO regress_atomic_user');
SELECT * FROM concord.query_on('b', $$SELECT set_config('role', 'regress_atomic_user', true)$$) AS t(role text);
SELECT put('b', 5), put('c', 5);
SELECT * FROM concord.query_on('b', 'SELECT current_user') AS t(u name);
COMMIT;
SELECT * FROM concord.query_on('b', 'SELECT current_user = session_user') AS t(reset bool);
TABLE everywhere;
-- a role of the caller's own: its branches are its own
GRANT ALL ON account TO regress_atomic_user;
SELECT node, status FROM concord.map_user('regress_atomic_user', ARRAY['user=regress_atomic_user', 'password_required=false']) ORDER BY node;
ALTER ROLE regress_atomic_user LOGIN;
BEGIN;
SELECT put('b', 8);
SET LOCAL ROLE regress_atomic_user;
SELECT concord.execute_on('b', 'INSERT INTO account VALUES (9, 9)'), concord.execute_on('c', 'INSERT INTO account VALUES (9, 9)');
SELECT concord.transaction_outcome(current_setting('concord.transaction'));
SELECT concord.force_transaction('x', 'abort');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
SELECT put('b', 8);
SET LOCAL ROLE regress_atomic_user;
SELECT concord.execute_on('b', 'INSERT INTO account VALUES (9, 9)'), concord.execute_on('c', 'INSERT INTO account VALUES (9, 9)');
COMMIT;
TABLE everywhere;

-- without waiting for phase two
SET concord.commit_wait = off;
BEGIN;
SELECT put('b', 10), put('c', 10);
COMMIT;
RESET concord.commit_wait;
-- the same connections come after it
TABLE everywhere;
-- and with less than a flush asked for
BEGIN;
SET LOCAL synchronous_commit = off;
SELECT put('b', 11), put('c', 11);
COMMIT;
SHOW synchronous_commit;
TABLE everywhere;

-- a cursor beside the writers
BEGIN;
DECLARE k CURSOR FOR SELECT x FROM concord.query_on('c', 'SELECT generate_series(1, 3)') AS t(x int);
FETCH 2 FROM k;
SELECT put('b', 12), put('c', 12);
FETCH 2 FROM k;
COMMIT;
TABLE everywhere;
-- schema changes are writes like others
BEGIN;
SELECT * FROM concord.execute_all('ALTER TABLE account ADD note text') ORDER BY node;
ROLLBACK;
SELECT * FROM concord.execute_all('CREATE INDEX ON account (v)') ORDER BY node;

-- force_transaction is for what is prepared here, and for nobody else
SELECT concord.force_transaction('concord:x', 'abort');
\echo :LAST_ERROR_SQLSTATE
SELECT concord.force_transaction(:'gid', 'maybe');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY sqlstate
SELECT concord.force_transaction(:'gid', 'abort');
\set VERBOSITY default
BEGIN;
INSERT INTO account VALUES (99, 99);
PREPARE TRANSACTION 'regress_atomic';
SELECT concord.force_transaction('regress_atomic', 'abort');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK PREPARED 'regress_atomic';
SELECT count(*) FROM concord.forced;

-- nothing is left
SELECT concord.resolve_transactions();
SELECT * FROM concord.transactions;
SELECT count(*) FROM pg_prepared_xacts WHERE gid LIKE 'concord:%';
SELECT committed_1pc > 0 AS one_phase, committed_2pc > 0 AS two_phases, aborted > 0 AS aborted, unfinished, forced, deadlocks
	FROM concord.transaction_stats;
SELECT count(*) > 0 AS recorded, bool_and(committed) AS all_committed FROM concord.decision;

SELECT concord.remove_node('c', force => true);
SELECT concord.remove_node('b', force => true);
SELECT concord.remove_node('a', force => true);
\c contrib_regression
DROP DATABASE regress_atomic_a;
DROP DATABASE regress_atomic_b;
DROP DATABASE regress_atomic_c;
DROP ROLE regress_atomic_user;
