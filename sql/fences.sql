-- Fences: what one session sees. The races are in test/isolation.
SET client_min_messages = warning;
CREATE EXTENSION pg_concord;
RESET client_min_messages;
\set mark 'SELECT name, fence FROM concord.fence_marks ORDER BY name'

-- outside a cluster
SELECT concord.check_fence('x', 2);
\echo :LAST_ERROR_SQLSTATE
SELECT concord.create_cluster('a', format('host=%s port=%s user=%s dbname=%s',
	split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_user,
	current_database())) IS NOT NULL AS created;

-- exclusive fences are even
SELECT concord.check_fence('doc', 10);
SELECT concord.check_fence('doc', 10);
:mark;
SELECT concord.check_fence('doc', 14);
SELECT concord.check_fence('doc', 10);
\echo :LAST_ERROR_SQLSTATE
SELECT concord.check_fence('doc', 13);
\echo :LAST_ERROR_SQLSTATE
:mark;
-- shared ones odd
SELECT concord.check_fence('doc', 17);
SELECT concord.check_fence('doc', 17);
SELECT concord.check_fence('doc', 15);
SELECT concord.check_fence('doc', 16);
:mark;
SELECT concord.check_fence('doc', 18);
SELECT concord.check_fence('other', 3);
SELECT concord.check_fence('other', 1);
SELECT concord.check_fence('a name with ä, '' and "', 9223372036854775807);
SELECT concord.check_fence('a name with ä, '' and "', 9223372036854775806);
:mark;

-- an exclusive holder always updates, of a group only the first
BEGIN;
SELECT xmin AS before FROM concord.fence_marks WHERE name = 'doc' \gset
SELECT concord.check_fence('doc', 18);
SELECT xmin <> :'before'::xid AS updated FROM concord.fence_marks WHERE name = 'doc';
COMMIT;
SELECT concord.check_fence('doc', 21);
BEGIN;
SELECT xmin AS before FROM concord.fence_marks WHERE name = 'doc' \gset
SELECT concord.check_fence('doc', 21);
SELECT xmin <> :'before'::xid AS updated, xmax::text::bigint = txid_current() AS locked FROM concord.fence_marks WHERE name = 'doc';
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid <> 20550;
COMMIT;

-- it ends with the transaction, or the savepoint
BEGIN;
SELECT concord.check_fence('doc', 30);
SELECT concord.check_fence('new', 31);
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid <> 20550;
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT concord.check_fence('doc', 40);
ROLLBACK TO s;
SELECT concord.check_fence('doc', 32);
SELECT concord.check_fence('doc', 33);
SELECT concord.check_fence('doc', 32);
ROLLBACK;
:mark;

-- as a routed statement
SELECT concord.execute('doc', 'SELECT concord.check_fence($1, $2)', 'doc', 22);
SELECT concord.execute('doc', 'SELECT concord.check_fence($1, $2)', 'doc', 21);
\echo :LAST_ERROR_SQLSTATE

-- bad input; nothing is changed
SELECT concord.check_fence('doc', 0);
\echo :LAST_ERROR_SQLSTATE
SELECT concord.check_fence('doc', -2);
\echo :LAST_ERROR_SQLSTATE
SELECT concord.check_fence('doc', NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT concord.check_fence(NULL, 2);
\echo :LAST_ERROR_SQLSTATE
SELECT concord.check_fence('', 2);
\echo :LAST_ERROR_SQLSTATE
SELECT concord.check_fence(repeat('x', 256), 2);
\echo :LAST_ERROR_SQLSTATE
BEGIN READ ONLY;
SELECT concord.check_fence('doc', 24);
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
:mark;

-- everybody may check, and nothing else; what the caller has in search_path does not matter
CREATE ROLE regress_checker;
CREATE SCHEMA trap AUTHORIZATION regress_checker;
SET ROLE regress_checker;
CREATE FUNCTION trap.always(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS
	'BEGIN RAISE NOTICE ''% was here'', current_user; RETURN true; END';
CREATE OPERATOR trap.<= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = trap.always);
CREATE OPERATOR trap.>= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = trap.always);
CREATE TEMP TABLE fence_marks (name text PRIMARY KEY, fence bigint);
SET search_path = trap, pg_temp, pg_catalog;
SELECT concord.check_fence('doc', 26);
SELECT concord.check_fence('doc', 25);
SELECT current_user;
SELECT * FROM concord.fence_marks;
\echo :LAST_ERROR_SQLSTATE
UPDATE concord.fence_marks SET fence = 0;
\echo :LAST_ERROR_SQLSTATE
RESET search_path;
-- and remains himself after an error that he catches
DO $$
BEGIN
	PERFORM concord.check_fence('doc', 20);
EXCEPTION WHEN SQLSTATE 'PC005' THEN
	RAISE NOTICE '% %', SQLERRM, current_user;
END $$;
RESET ROLE;
:mark;
DROP TABLE pg_temp.fence_marks;
SET client_min_messages = warning;
DROP SCHEMA trap CASCADE;
DROP ROLE regress_checker;
-- another cluster's locks begin anew
SELECT concord.remove_node('a');
SELECT concord.create_cluster('a', format('host=%s port=%s user=%s dbname=%s',
	split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_user,
	current_database())) IS NOT NULL AS created;
SELECT concord.check_fence('doc', 2);
SELECT m.name, m.fence FROM concord.fence_marks m JOIN concord.local_node USING (cluster_id);
SELECT concord.remove_node('a');
DROP EXTENSION pg_concord;
