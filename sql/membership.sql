--
-- Membership: every function of the cluster room and every error a user can meet, on several
-- databases of this server.
--
\set VERBOSITY default
\set SHOW_CONTEXT never

SELECT current_setting('port') AS port,
	coalesce(nullif(trim(split_part(current_setting('unix_socket_directories'), ',', 1)), ''), 'localhost') AS host \gset
\set address 'host=' :host ' port=' :port ' dbname='
\set to_a :address 'regression_m_a'
\set to_b :address 'regression_m_b'
\set to_c :address 'regression_m_c'
\set to_d :address 'regression_m_d'
\set to_latin :address 'regression_m_latin'
\set to_bare :address 'regression_m_bare'
\set to_nowhere :address 'regression_m_nowhere'
\set to_closed 'host=' :host ' port=1 dbname=regression_m_b'

CREATE ROLE regress_m_user LOGIN;
CREATE ROLE regress_m_granted LOGIN;

-- all databases are copies of one that can wait for a condition, with a bound
CREATE DATABASE regression_m_bare TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
\c regression_m_bare
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
CREATE FUNCTION membership() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN (SELECT p.membership FROM concord._probe() p); END$$;
\c postgres
CREATE DATABASE regression_m_a TEMPLATE regression_m_bare;
CREATE DATABASE regression_m_b TEMPLATE regression_m_bare;
CREATE DATABASE regression_m_c TEMPLATE regression_m_bare;
CREATE DATABASE regression_m_d TEMPLATE regression_m_bare;
CREATE DATABASE regression_m_latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C';
\c regression_m_latin
CREATE EXTENSION pg_concord;
\c regression_m_b
CREATE EXTENSION pg_concord;
\c regression_m_c
CREATE EXTENSION pg_concord;
\c regression_m_d
CREATE EXTENSION pg_concord;
\c regression_m_a
CREATE EXTENSION pg_concord;

--
-- Without a cluster
--
SELECT version = extversion AS one_version, protocol, preloaded, superuser, in_recovery, membership, cluster, node_id, node
FROM concord._probe();
SELECT * FROM concord.nodes;
SELECT * FROM concord.replicas;
SELECT concord._map_epoch();
SELECT concord.add_node('b', :'to_b');
\echo :SQLSTATE
SELECT concord.remove_node('b');
SELECT concord.set_node('b', weight => 2);
SELECT concord.add_replica('b', 'r', :'to_b');
SELECT concord.remove_replica('r');
SELECT concord.map_user('regress_m_user', '{}');
SELECT * FROM concord.rebalance_plan();
SELECT concord.rebalance();
SELECT concord.move_slot(0, 'b');
SELECT concord.assign_lost_slots('b');
SELECT concord.adopt_node();
SELECT concord.leave_cluster();
SELECT concord._get_map();
SELECT concord._join_outcome(gen_random_uuid());
SELECT concord._apply_map('{}');
SELECT concord._removed();
SELECT concord._join_finish('aborted');
SELECT node, item, status, hint FROM concord.check_cluster() WHERE item = 'identity';

--
-- create_cluster: what it refuses
--
SELECT concord.create_cluster(NULL, :'to_a');
\echo :SQLSTATE
SELECT concord.create_cluster('a', NULL);
SELECT concord.create_cluster('', :'to_a');
\echo :SQLSTATE
SELECT concord.create_cluster(' a', :'to_a');
SELECT concord.create_cluster('a/b', :'to_a');
SELECT concord.create_cluster(E'a\nb', :'to_a');
SELECT concord.create_cluster('a', 'nonsense');
\echo :SQLSTATE
SELECT concord.create_cluster('a', 'dbname=regression_m_a');
\echo :SQLSTATE
SELECT concord.create_cluster('a', 'host=x dbname=y password=secret');
\echo :SQLSTATE
SELECT concord.create_cluster('a', 'postgresql://u:secret@x/y');
SELECT concord.create_cluster('a', 'host=x sslpassword=secret');
SELECT concord.create_cluster('a', 'host=x application_name=y');
\echo :SQLSTATE
SELECT concord.create_cluster('a', :'to_b');
\echo :SQLSTATE
SELECT concord.create_cluster('a', :'to_bare');
\echo :SQLSTATE
\set VERBOSITY terse
SELECT concord.create_cluster('a', :'to_nowhere');
\echo :SQLSTATE
SELECT concord.create_cluster('a', :'to_closed');
\echo :SQLSTATE
\set VERBOSITY default
BEGIN READ ONLY;
SELECT concord.create_cluster('a', :'to_a');
\echo :SQLSTATE
ROLLBACK;
SET default_transaction_read_only = on;
SELECT concord.create_cluster('a', :'to_a');
RESET default_transaction_read_only;
SET ROLE regress_m_user;
SELECT concord.create_cluster('a', :'to_a');
\echo :SQLSTATE
RESET ROLE;
GRANT EXECUTE ON FUNCTION concord.create_cluster, concord.add_node, concord.set_node, concord.remove_node,
	concord.add_replica, concord.map_user, concord.adopt_node TO regress_m_granted;
SET ROLE regress_m_granted;
SELECT concord.create_cluster('a', :'to_a');
\echo :SQLSTATE
RESET ROLE;
CREATE FOREIGN DATA WRAPPER regress_m_fdw;
CREATE SERVER a FOREIGN DATA WRAPPER regress_m_fdw;
SELECT concord.create_cluster('a', :'to_a');
\echo :SQLSTATE
DROP FOREIGN DATA WRAPPER regress_m_fdw CASCADE;
-- nothing was left behind
SELECT membership(), (SELECT count(*) FROM concord.map_node) AS nodes, (SELECT count(*) FROM pg_foreign_server) AS servers;
BEGIN;
SELECT concord.create_cluster('a', :'to_a') IS NOT NULL AS created;
SELECT node, slots FROM concord.nodes;
ROLLBACK;
SELECT membership();
SELECT * FROM concord.nodes;

--
-- The first node
--
SELECT concord.create_cluster('a', :'to_a') AS cluster \gset
SELECT membership, cluster = :'cluster' AS same, node_id, node FROM concord._probe();
SELECT node_id, node, host = :'host' AS host, port = :'port' AS port, dbname, zone, weight, state, slots, latency_ms,
	last_seen IS NOT NULL AS seen, is_local, generation, epoch, connections, last_error
FROM concord.nodes;
\set VERBOSITY terse
SELECT concord.create_cluster('again', :'to_a');
\echo :SQLSTATE
\set VERBOSITY default
-- what belongs to the cluster cannot be dropped by accident
DROP EXTENSION pg_concord;
\echo :SQLSTATE
DROP SCHEMA concord CASCADE;
\echo :SQLSTATE
DROP SERVER a;
DROP SERVER a CASCADE;
\echo :SQLSTATE
SELECT concord.leave_cluster();
\echo :SQLSTATE
SELECT concord.adopt_node();
SELECT srvname, srvoptions @> ARRAY['dbname=regression_m_a'] AS here FROM pg_foreign_server;
SELECT m.usename = current_user AS mine, m.umoptions = ARRAY['user=' || current_user] AS options
FROM pg_user_mappings m WHERE m.srvname = 'a' AND m.usename <> 'concord_node';
SELECT umoptions FROM pg_user_mappings WHERE srvname = 'a' AND usename = 'concord_node';
SELECT rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = 'concord_node';

--
-- Options of servers and user mappings
--
CREATE SERVER regress_m_server FOREIGN DATA WRAPPER pg_concord OPTIONS (host 'x', password 'secret');
\echo :SQLSTATE
CREATE SERVER regress_m_server FOREIGN DATA WRAPPER pg_concord OPTIONS (host 'x', "user" 'y');
CREATE SERVER regress_m_server FOREIGN DATA WRAPPER pg_concord OPTIONS (nonsense 'x');
CREATE SERVER regress_m_server FOREIGN DATA WRAPPER pg_concord OPTIONS (host 'x');
GRANT USAGE ON FOREIGN SERVER regress_m_server TO regress_m_user;
SET ROLE regress_m_user;
CREATE USER MAPPING FOR regress_m_user SERVER regress_m_server OPTIONS ("user" 'y', password_required 'false');
\echo :SQLSTATE
CREATE USER MAPPING FOR regress_m_user SERVER regress_m_server OPTIONS (passfile '/etc/passwd');
CREATE USER MAPPING FOR regress_m_user SERVER regress_m_server OPTIONS (host 'y');
\echo :SQLSTATE
CREATE USER MAPPING FOR regress_m_user SERVER regress_m_server OPTIONS ("user" 'y', password 'p', password_required 'true');
RESET ROLE;
DROP SERVER regress_m_server CASCADE;
ALTER FOREIGN DATA WRAPPER pg_concord OPTIONS (x 'y');

--
-- add_node: what it refuses, with nothing changed on either side
--
SELECT concord.add_node(NULL, :'to_b');
SELECT concord.add_node('b', NULL);
SELECT concord.add_node('b', :'to_b', zone => NULL);
SELECT concord.add_node('b', :'to_b', weight => NULL);
\echo :SQLSTATE
SELECT concord.add_node('b', :'to_b', weight => -1);
\echo :SQLSTATE
SELECT concord.add_node('b', :'to_b', weight => 'NaN');
SELECT concord.add_node('b', :'to_b', weight => 'Infinity');
SELECT concord.add_node('', :'to_b');
SELECT concord.add_node('a', :'to_b');
\echo :SQLSTATE
SELECT concord.add_node('b', :'to_a');
\echo :SQLSTATE
SELECT concord.add_node('b', :'to_bare');
\echo :SQLSTATE
SELECT concord.add_node('b', :'to_latin');
\echo :SQLSTATE
\set VERBOSITY terse
SELECT concord.add_node('b', :'to_nowhere');
SELECT concord.add_node('b', :'to_closed');
\echo :SQLSTATE
\set VERBOSITY default
\set as_user :to_b ' user=regress_m_user'
SELECT concord.add_node('b', :'as_user');
\echo :SQLSTATE
BEGIN READ ONLY;
SELECT concord.add_node('b', :'to_b');
ROLLBACK;
SET ROLE regress_m_granted;
SELECT concord.add_node('b', :'to_b');
SELECT concord.set_node('a', conninfo => :'to_a');
SELECT concord.map_user('regress_m_user', '{}');
RESET ROLE;
CREATE FOREIGN DATA WRAPPER regress_m_fdw;
CREATE SERVER b FOREIGN DATA WRAPPER regress_m_fdw;
SELECT concord.add_node('b', :'to_b');
DROP FOREIGN DATA WRAPPER regress_m_fdw CASCADE;
-- the new database has a foreign server of that name, or of another node's
\c regression_m_b
CREATE FOREIGN DATA WRAPPER regress_m_fdw;
CREATE SERVER b FOREIGN DATA WRAPPER regress_m_fdw;
\c regression_m_a
\set SHOW_CONTEXT errors
SELECT concord.add_node('b', :'to_b');
\echo :SQLSTATE
\c regression_m_b
DROP SERVER b;
CREATE SERVER a FOREIGN DATA WRAPPER regress_m_fdw;
\c regression_m_a
SELECT concord.add_node('b', :'to_b');
\echo :SQLSTATE
\set SHOW_CONTEXT never
\c regression_m_b
DROP FOREIGN DATA WRAPPER regress_m_fdw CASCADE;
-- a server that is not fit: _probe() says so
CREATE FUNCTION probe(version text DEFAULT '0.1', extversion text DEFAULT '0.1', protocol int DEFAULT 1, preloaded boolean DEFAULT true,
	in_recovery boolean DEFAULT false, read_only boolean DEFAULT false, max_prepared int DEFAULT 100,
	node_role text DEFAULT 'concord_node') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format($f$CREATE OR REPLACE FUNCTION concord._probe(
		OUT version text, OUT extversion text, OUT protocol int, OUT preloaded boolean, OUT superuser boolean,
		OUT in_recovery boolean, OUT read_only boolean, OUT max_prepared int, OUT system_identifier bigint,
		OUT database oid, OUT encoding text, OUT node_role text, OUT membership text, OUT cluster uuid,
		OUT node_id int, OUT node name) RETURNS record LANGUAGE sql AS $b$
		SELECT %L, %L, %s, %L::boolean, true, %L::boolean, %L::boolean, %s, 1, 1::oid, 'UTF8', %L, 'none', NULL::uuid, NULL::int, NULL::name $b$ $f$,
		version, extversion, protocol, preloaded, in_recovery, read_only, max_prepared, node_role);
END $$;
SELECT probe(preloaded => false);
\c regression_m_a
SELECT concord.add_node('b', :'to_b');
\echo :SQLSTATE
\c regression_m_b
SELECT probe(protocol => 99, version => '9.9', extversion => '9.9');
\c regression_m_a
SELECT concord.add_node('b', :'to_b');
\echo :SQLSTATE
\c regression_m_b
SELECT probe(extversion => '9.9');
\c regression_m_a
SELECT concord.add_node('b', :'to_b');
\echo :SQLSTATE
\c regression_m_b
SELECT probe(max_prepared => 0);
\c regression_m_a
SELECT concord.add_node('b', :'to_b');
\echo :SQLSTATE
\c regression_m_b
SELECT probe(in_recovery => true);
\c regression_m_a
SELECT concord.add_node('b', :'to_b');
\echo :SQLSTATE
\c regression_m_b
SELECT probe(read_only => true);
\c regression_m_a
SELECT concord.add_node('b', :'to_b');
\echo :SQLSTATE
\c regression_m_b
SELECT probe(node_role => 'somebody');
\c regression_m_a
SELECT concord.add_node('b', :'to_b');
\echo :SQLSTATE
\c regression_m_b
DROP EXTENSION pg_concord;
CREATE EXTENSION pg_concord;
SELECT membership(), (SELECT count(*) FROM pg_foreign_server) AS servers;
\c regression_m_a
SELECT count(*) AS nodes, max(epoch) AS epoch FROM concord.nodes;

--
-- add_node rolled back: the new database forgets its intent by itself
--
BEGIN;
SELECT concord.add_node('b', :'to_b');
SELECT node, is_local FROM concord.nodes ORDER BY 1;
PREPARE TRANSACTION 'regress_m';
\echo :SQLSTATE
ROLLBACK;
\c regression_m_b
CALL await($$membership() = 'none'$$);
SELECT count(*) FROM pg_foreign_server;
\c regression_m_a
-- a savepoint's rollback is one too, and the id is used again
BEGIN;
SAVEPOINT s;
SELECT concord.add_node('b', :'to_b');
ROLLBACK TO s;
SELECT node FROM concord.nodes;
COMMIT;
\c regression_m_b
CALL await($$membership() = 'none'$$);

--
-- add_node
--
\c regression_m_a
SELECT concord.add_node('b', :'to_b');
\c regression_m_b
CALL await($$membership() = 'member'$$);
SELECT membership, cluster = :'cluster' AS same, node_id, node FROM concord._probe();
CALL await($$(SELECT count(*) = 2 AND bool_and(state = 'up') FROM concord.nodes)$$);
SELECT node_id, node, zone, weight, state, slots, is_local, generation, epoch FROM concord.nodes ORDER BY 1;
\set VERBOSITY terse
SELECT concord.create_cluster('b', :'to_b');
\set VERBOSITY default
SELECT concord.add_node('x', :'to_b');
\echo :SQLSTATE
SELECT concord.add_node('x', :'to_a');
-- from a member that is not the authority
BEGIN;
SELECT concord.add_node('c', :'to_c');
\echo :SQLSTATE
ROLLBACK;
SELECT concord.add_node('b', :'to_c');
\echo :SQLSTATE
SELECT concord.add_node('c', :'to_b');
SELECT concord.add_node('c', :'to_c', 'west', 0.5);
SELECT node_id, node, zone, weight, slots, is_local FROM concord.nodes ORDER BY 1;
\c regression_m_c
CALL await($$membership() = 'member'$$);
CALL await($$(SELECT count(*) = 3 AND bool_and(state = 'up') FROM concord.nodes)$$);
SELECT node_id, node, zone, weight, state, slots, is_local FROM concord.nodes ORDER BY 1;
SELECT node, count(*) FROM concord.slots GROUP BY 1;
-- a member of another cluster
\c regression_m_d
SELECT concord.create_cluster('d', :'to_d') IS NOT NULL AS created;
\c regression_m_a
\set VERBOSITY terse
SELECT concord.add_node('d', :'to_d');
\echo :SQLSTATE
\set VERBOSITY default
\c regression_m_d
SELECT concord.remove_node('d');
SELECT membership(), (SELECT count(*) FROM pg_foreign_server) AS servers;

--
-- What everybody sees, and what nobody does
--
\c regression_m_b
SET ROLE regress_m_user;
SELECT node, state, last_error FROM concord.nodes ORDER BY 1;
SELECT count(*) FROM concord.replicas;
SELECT preloaded, superuser FROM concord._probe();
SELECT concord._map_epoch() > 0 AS has_map;
SELECT * FROM concord.map_node;
SELECT * FROM concord.local_node;
SELECT concord.remove_node('c');
SELECT concord.rebalance();
SELECT concord.check_cluster();
SELECT concord._apply_map('{}');
SELECT concord._heartbeat(:'cluster', 1, 2, 1, 0, 1);
SELECT concord._copy_heartbeat();
\echo :SQLSTATE
SELECT concord._get_map();
SELECT concord._join_outcome(gen_random_uuid());
SELECT * FROM concord._doctor();
RESET ROLE;
SELECT p.oid::regprocedure AS public_may_execute
FROM pg_proc p WHERE p.pronamespace = 'concord'::regnamespace AND has_function_privilege('regress_m_user', p.oid, 'EXECUTE')
AND p.proname ~ '^(_probe|_heartbeat|_get_map|_join|_map|_doctor|_nodes|_option|_apply|_removed|_put|_store|_add|_set|_adopt|create_|add_|remove_|set_|adopt|leave|map_user|rebalance|move_|assign|check_cluster|fdw)'
ORDER BY 1::text COLLATE "C";

--
-- The protocol, as the nodes' role speaks it
--
SET ROLE concord_node;
SELECT node_id, epoch = concord._map_epoch() AS epoch, version, clock <= clock_timestamp() AS clock, length(incarnation) AS incarnation, generation,
	timeline, lsn BETWEEN '0/1' AND pg_current_wal_insert_lsn() AS lsn
FROM concord._heartbeat(:'cluster', 1, 2, 1, 0, 1);
-- what a replica is asked; a primary says that it is none
SELECT cluster = :'cluster' AS cluster, node_id, generation, membership, in_recovery, timeline,
	lsn BETWEEN '0/1' AND pg_current_wal_insert_lsn() AS lsn, epoch = concord._map_epoch() AS epoch, version,
	length(incarnation) AS incarnation, system_identifier = (SELECT system_identifier FROM concord._probe()) AS system,
	database = (SELECT oid FROM pg_database WHERE datname = current_database()) AS database
FROM concord._copy_heartbeat();
\set VERBOSITY sqlstate
SELECT concord._heartbeat(:'cluster', 1, 1, 1, 0, 1);
SELECT concord._heartbeat(gen_random_uuid(), 1, 2, 1, 0, 1);
\set VERBOSITY default
SELECT concord._heartbeat(:'cluster', 1, 2, 99, 0, 1);
\echo :SQLSTATE
SELECT concord._heartbeat(:'cluster', 99, 2, 1, 0, 1);
\echo :SQLSTATE
SELECT concord._heartbeat(:'cluster', 1, 2, 1, 0, 0);
\echo :SQLSTATE
-- an epoch nobody has: noted, asked for, forgotten
SELECT node_id FROM concord._heartbeat(:'cluster', 1, 2, 1, 1000, 1);
SELECT m ->> 'cluster' = :'cluster' AS cluster, m -> 'authority' AS authority, jsonb_array_length(m -> 'nodes') AS nodes,
	m::text ~ 'password' AS secrets FROM concord._get_map() m;
SELECT concord._join_outcome(gen_random_uuid());
\echo :SQLSTATE
SELECT bool_and(item IS NOT NULL) AS items FROM concord._doctor();
RESET ROLE;
\set VERBOSITY terse
SELECT concord._apply_map('{"cluster": "00000000-0000-0000-0000-000000000000"}');
\echo :SQLSTATE
\set VERBOSITY default
-- a map that is not newer is ignored, but another one of the same epoch is not
SELECT concord._apply_map(concord._get_map());
SELECT concord._apply_map(concord._get_map() || '{"next_node_id": 1000}');
\echo :SQLSTATE
SELECT concord._apply_map(concord._get_map() || '{"next_node_id": 1000, "epoch": 1}');
SELECT concord._join_finish('aborted');
-- what anybody claims to have keeps the authority from nothing, nor what its own question refutes
\c regression_m_a
SET ROLE regress_m_user;
SET concord.connect_timeout = '50ms';
SELECT concord._hello(:'cluster', 2, 1, 1, 1000);
RESET concord.connect_timeout;
SET ROLE concord_node;
SELECT node_id FROM concord._heartbeat(:'cluster', 2, 1, 1, 1000, 1);
RESET ROLE;
BEGIN;
SELECT concord.set_node('b', zone => 'nowhere');
ROLLBACK;
SET ROLE concord_node;
SELECT concord._join_outcome(gen_random_uuid()), concord._join_outcome(gen_random_uuid(), :'cluster');
SELECT concord._join_outcome(gen_random_uuid(), gen_random_uuid());
SELECT concord._join_outcome(NULL);
RESET ROLE;
-- (the map's lock may be held for a moment)
CALL await($$concord._join_outcome((SELECT join_nonce FROM concord.map_node WHERE node = 'b')) <> 'in progress'$$);
SELECT concord._join_outcome((SELECT join_nonce FROM concord.map_node WHERE node = 'b'));
\set VERBOSITY terse
SELECT concord._join('00000000-0000-0000-0000-000000000000', 1, 7, 'x', gen_random_uuid(), '{}');
\echo :SQLSTATE
\set VERBOSITY default
SELECT concord._join(:'cluster', 99, 7, 'x', gen_random_uuid(), '{}');
\echo :SQLSTATE
SELECT concord._join(:'cluster', NULL, 7, 'x', gen_random_uuid(), '{}');

--
-- set_node
--
SELECT concord.set_node(NULL);
SELECT concord.set_node('x', weight => 2);
\echo :SQLSTATE
SELECT concord.set_node('b', weight => -1);
\echo :SQLSTATE
SELECT concord.set_node('b', weight => 'NaN');
\set VERBOSITY terse
SELECT concord.set_node('b', conninfo => :'to_c');
\echo :SQLSTATE
SELECT concord.set_node('b', conninfo => 'host=x password=secret');
SELECT concord.set_node('b', conninfo => :'to_closed');
\echo :SQLSTATE
\set VERBOSITY default
SELECT concord._map_epoch() AS epoch \gset
SELECT concord.set_node('b');
SELECT concord.set_node('b', conninfo => :'to_b', zone => '', weight => 1);
SELECT concord._map_epoch() = :epoch AS unchanged;
SELECT concord.set_node('b', zone => 'east', weight => 2);
SELECT concord._map_epoch() = :epoch + 1 AS changed;
\set with_option :to_b ' connect_timeout=7'
SELECT concord.set_node('b', conninfo => :'with_option');
SELECT srvoptions @> '{connect_timeout=7}' AS changed FROM pg_foreign_server WHERE srvname = 'b';
\c regression_m_c
SELECT concord.set_node('b', conninfo => :'to_b');
SELECT srvoptions @> '{connect_timeout=7}' AS still FROM pg_foreign_server WHERE srvname = 'b';
SELECT concord.set_node('b', zone => 'south');
SELECT node, zone, weight FROM concord.nodes ORDER BY 1;
\set VERBOSITY terse
SELECT concord.set_node('b', conninfo => :'to_c');
\echo :SQLSTATE
\set VERBOSITY default
-- who has EXECUTE may change weights, but not addresses; on the authority as its own mapping
GRANT EXECUTE ON FUNCTION concord.set_node TO regress_m_granted;
SET ROLE regress_m_granted;
SELECT concord.set_node('b', conninfo => :'to_b');
SELECT concord.set_node('b', weight => 1);
\echo :SQLSTATE
RESET ROLE;

--
-- Slots
--
\c regression_m_a
SELECT concord.set_node('b', zone => '', weight => 1);
SELECT source, target, count(*) FROM concord.rebalance_plan() GROUP BY 1, 2 ORDER BY 1, 2;
SELECT concord.rebalance(NULL);
SELECT concord.rebalance();
SELECT concord.rebalance();
SELECT node, slots FROM concord.nodes ORDER BY 1;
SELECT * FROM concord.rebalance_plan();
\c regression_m_c
CALL await($$(SELECT bool_and(slots > 0) FROM concord.nodes)$$);
SELECT concord.set_node('a', weight => 0);
SELECT source, count(*) FROM concord.rebalance_plan() GROUP BY 1;
SELECT concord.rebalance(false);
SELECT node, slots FROM concord.nodes ORDER BY 1;
SELECT concord.set_node('a', weight => 1);
BEGIN;
SELECT concord.rebalance();
\echo :SQLSTATE
ROLLBACK;
SELECT concord.move_slot(NULL, 'a');
SELECT concord.move_slot(4096, 'a');
\echo :SQLSTATE
SELECT concord.move_slot(-1, 'a');
SELECT concord.move_slot(7, 'x');
\echo :SQLSTATE
SELECT concord.move_slot(7, 'a'), concord.move_slot(7, 'a');
SELECT node FROM concord.slots WHERE slot = 7;
SELECT concord.assign_lost_slots('a');
SELECT concord.assign_lost_slots('x');
\c regression_m_a
SELECT concord.set_node(node, weight => 0) FROM concord.nodes;
SELECT * FROM concord.rebalance_plan();
\echo :SQLSTATE
SELECT concord.rebalance();
SELECT concord.set_node(node, weight => 1) FROM concord.nodes;

--
-- Replicas
--
SELECT concord.add_replica('x', 'r', :'to_b');
\echo :SQLSTATE
SELECT concord.add_replica('b', 'a', :'to_b');
\echo :SQLSTATE
SELECT concord.add_replica('b', '', :'to_b');
SELECT concord.add_replica('b', 'r', :'to_b');
\echo :SQLSTATE
SELECT concord.add_replica('b', 'r', :'to_c');
\echo :SQLSTATE
SELECT concord.add_replica('b', 'r', 'host=x password=secret');
SELECT concord.add_replica(NULL, 'r', :'to_b');
SELECT concord.remove_replica('r');
\echo :SQLSTATE
\c regression_m_b
SELECT concord.add_replica('b', 'r', :'to_b');
SELECT concord.remove_replica('r');
\echo :SQLSTATE

--
-- User mappings
--
SELECT * FROM concord.map_user(NULL, '{}');
SELECT * FROM concord.map_user('regress_m_user', NULL);
SELECT * FROM concord.map_user('regress_m_nobody', '{}');
\echo :SQLSTATE
SELECT * FROM concord.map_user('regress_m_user', '{secret}');
\echo :SQLSTATE
SELECT * FROM concord.map_user('regress_m_user', '{host=x}');
\echo :SQLSTATE
SELECT * FROM concord.map_user('regress_m_user', '{NULL}');
SELECT * FROM concord.map_user('regress_m_user', '{password=a,password=b}');
\echo :SQLSTATE
SELECT * FROM concord.map_user('regress_m_user', '{password_required=perhaps}');
BEGIN;
SELECT * FROM concord.map_user('regress_m_user', '{}');
\echo :SQLSTATE
ROLLBACK;
SELECT * FROM concord.map_user('regress_m_user', '{user=somebody,password=secret}') ORDER BY node;
SELECT * FROM concord.map_user('regress_m_user', '{password=other}') ORDER BY node;
SELECT srvname, umoptions FROM pg_user_mappings WHERE usename = 'regress_m_user' ORDER BY 1;
SELECT srvname, has_server_privilege('regress_m_user', srvname, 'USAGE') FROM pg_foreign_server ORDER BY 1;
\c regression_m_c
SELECT srvname, umoptions FROM pg_user_mappings WHERE usename = 'regress_m_user' ORDER BY 1;
SET ROLE regress_m_granted;
SELECT srvname, umoptions FROM pg_user_mappings WHERE usename = 'regress_m_user' ORDER BY 1;
RESET ROLE;
-- the copies of the mappings are the extension's: pg_dump has nothing to say of them
SELECT count(*) FROM pg_init_privs WHERE classoid = 'pg_foreign_server'::regclass;
-- a node added later is mapped like this one
\c regression_m_a
SELECT concord.add_node('d', :'to_d');
\c regression_m_d
CALL await($$membership() = 'member'$$);
\c regression_m_a
SELECT umoptions FROM pg_user_mappings WHERE usename = 'regress_m_user' AND srvname = 'd';
SELECT has_server_privilege('regress_m_user', 'd', 'USAGE');
SELECT * FROM concord.map_user('public', '{user=anybody}') ORDER BY node;
SELECT srvname, umoptions FROM pg_user_mappings WHERE umuser = 0 ORDER BY 1;

--
-- The doctor
--
CALL await($$(SELECT count(*) = 4 AND bool_and(state = 'up') FROM concord.nodes)$$);
CALL await($$(SELECT bool_and(status = 'ok') FROM concord.check_cluster() WHERE item IN ('identity', 'epoch', 'worker', 'peers'))$$);
SELECT node, string_agg(item, ' ' ORDER BY item) AS items, bool_or(status = 'error') AS error
FROM concord.check_cluster() GROUP BY node ORDER BY node;
-- two maps of one epoch: whose map is right sends it; the authority makes it the next epoch
SELECT epoch FROM concord.map_state \gset
\c regression_m_c
UPDATE concord.map_state SET slots = overlay(slots PLACING '\x0004' FROM 1);
SELECT concord._map_changed();
SELECT node, item, status, detail, hint FROM concord.check_cluster() WHERE item = 'map' AND status <> 'ok' ORDER BY node;
\c regression_m_a
SELECT node, item, status, detail, hint FROM concord.check_cluster() WHERE item = 'map' AND status <> 'ok' ORDER BY node;
SELECT * FROM concord.send_map() ORDER BY node;
SELECT node, item, status FROM concord.check_cluster() WHERE item IN ('epoch', 'map') ORDER BY node, item;
SELECT epoch = :epoch AS same_epoch FROM concord.map_state;
UPDATE concord.map_state SET slots = overlay(slots PLACING '\x0004' FROM 1), next_node_id = 5;
SELECT concord._map_changed();
SELECT node FROM concord.slots WHERE slot = 0;
\c regression_m_b
SELECT node, item, status FROM concord.check_cluster() WHERE item = 'map' AND status <> 'ok';
SELECT * FROM concord.send_map() ORDER BY node;
CALL await($$(SELECT bool_and(status = 'ok') FROM concord.check_cluster() WHERE item IN ('epoch', 'map'))$$);
\c regression_m_a
SELECT epoch = :epoch + 1 AS next_epoch FROM concord.map_state;
SELECT node FROM concord.slots WHERE slot = 0;
-- one node's address leads elsewhere
ALTER SERVER d OPTIONS (SET dbname 'regression_m_c');
SELECT node, status, detail, hint FROM concord.check_cluster() WHERE item = 'identity' AND node = 'd';
ALTER SERVER d OPTIONS (SET dbname 'regression_m_nowhere');
SELECT node, item, status, hint FROM concord.check_cluster() WHERE node = 'd';
ALTER SERVER d OPTIONS (SET dbname 'regression_m_d');
GRANT pg_monitor TO regress_m_user;
SET ROLE regress_m_user;
SELECT count(*) > 0 AS may FROM concord.check_cluster();
RESET ROLE;
REVOKE pg_monitor FROM regress_m_user;

--
-- remove_node
--
SELECT concord.remove_node(NULL);
SELECT concord.remove_node('b', NULL);
SELECT concord.remove_node('x');
\echo :SQLSTATE
SELECT concord.remove_node('a');
\echo :SQLSTATE
SELECT concord.remove_node('a', true);
\echo :SQLSTATE
SELECT concord.move_slot(0, 'b');
-- leaving by force
BEGIN;
SELECT concord.leave_cluster(force => true);
SELECT membership();
ROLLBACK;
\c regression_m_d
SELECT concord.leave_cluster(NULL);
GRANT EXECUTE ON FUNCTION concord.leave_cluster TO regress_m_granted;
SET ROLE regress_m_granted;
SELECT concord.leave_cluster();
SELECT concord.leave_cluster(force => true);
\echo :SQLSTATE
RESET ROLE;
BEGIN;
SELECT concord.leave_cluster(force => true);
SELECT membership();
ROLLBACK;
SELECT membership();
\c regression_m_a
SELECT regexp_replace(concord.remove_node('d')::text, '^$', 'removed');
\c regression_m_d
CALL await($$membership() = 'removed'$$);
SELECT (SELECT count(*) FROM concord.nodes) AS nodes, (SELECT count(*) FROM pg_foreign_server) AS servers,
	(SELECT count(*) FROM pg_user_mapping) AS mappings;
SELECT concord.rebalance();
\echo :SQLSTATE
SELECT concord.leave_cluster();
SELECT membership();
\c regression_m_c
SELECT concord.set_node('b', weight => 1), concord.remove_node('b');
\echo :SQLSTATE
SELECT concord.remove_node('b', force => true);
SELECT concord.move_slot(slot, 'c') FROM concord.slots WHERE node IS NULL LIMIT 1;
\echo :SQLSTATE
SELECT count(*) > 0 AS lost FROM concord.slots WHERE node IS NULL;
SELECT count(*) AS of_lost FROM concord.rebalance_plan() WHERE source IS NULL;
SELECT count(*) AS lost FROM concord.slots WHERE node IS NULL \gset
SELECT concord.assign_lost_slots('c') = :lost AS assigned;
SELECT count(*) AS lost FROM concord.slots WHERE node IS NULL;
\c regression_m_b
CALL await($$membership() = 'removed'$$);
SELECT node, item, status, detail FROM concord.check_cluster() WHERE item = 'identity';
SELECT concord.adopt_node();
-- back again, from the removed state, under a new id
\c regression_m_a
SELECT concord.add_node('b', :'to_b');
\c regression_m_b
CALL await($$membership() = 'member'$$);
SELECT node_id, node FROM concord.nodes ORDER BY 1;
-- removed and added again before it hears of that: it is the new node, not the old one
\c regression_m_a
SELECT concord.remove_node('b');
SELECT concord.add_node('b', :'to_b');
\c regression_m_b
CALL await($$(SELECT membership = 'member' AND node_id = 6 FROM concord._probe())$$);
-- a node removes itself
SELECT concord.remove_node('b');
SELECT membership();
-- and begins a cluster of its own
SELECT concord.create_cluster('b', :'to_b') IS NOT NULL AS created;
SELECT concord.remove_node('b');
SELECT membership();

--
-- Another storage: a copy of a member is detached
--
\c postgres
CREATE DATABASE regression_m_copy TEMPLATE regression_m_c;
\c regression_m_copy
SELECT membership();
SELECT node, is_local FROM concord.nodes ORDER BY 1;
SELECT concord.rebalance();
\echo :SQLSTATE
\set VERBOSITY terse
SELECT concord.send_map();
SELECT concord._removed();
SELECT concord._apply_map('{}');
SELECT concord.create_cluster('x', :'to_a');
\set VERBOSITY default
\set to_copy :address 'regression_m_copy'
\c regression_m_a
\set VERBOSITY terse
SELECT concord.add_node('copy', :'to_copy');
\echo :SQLSTATE
\set VERBOSITY default
\c regression_m_copy
-- its node is alive
SELECT concord.adopt_node();
\echo :SQLSTATE
SELECT concord.adopt_node(:'to_copy');
\echo :SQLSTATE
SELECT concord.adopt_node('host=x password=secret');
GRANT EXECUTE ON FUNCTION concord.adopt_node, concord.send_map TO regress_m_granted;
SET ROLE regress_m_granted;
SELECT concord.adopt_node();
\echo :SQLSTATE
SELECT concord.send_map();
RESET ROLE;
BEGIN;
SELECT concord.adopt_node();
\echo :SQLSTATE
ROLLBACK;
-- the node cannot be reached any more: the copy may take its place, under its own address
\c postgres
ALTER DATABASE regression_m_c RENAME TO regression_m_was_c;
\c regression_m_copy
\set VERBOSITY terse
SELECT concord.adopt_node();
\echo :SQLSTATE
SELECT concord.adopt_node(:'to_d');
\echo :SQLSTATE
\set VERBOSITY default
SELECT concord.adopt_node(:'to_copy');
SELECT membership();
SELECT node, is_local, generation, dbname FROM concord.nodes ORDER BY 1;
SELECT concord.adopt_node();
\echo :SQLSTATE
CALL await($$(SELECT bool_and(state = 'up') FROM concord.nodes)$$);
-- who had the place before is out
\c regression_m_was_c
CALL await($$membership() = 'removed'$$);
SELECT concord.leave_cluster();
DROP EXTENSION pg_concord;
-- the authority's own copy
\c postgres
CREATE DATABASE regression_m_copy2 TEMPLATE regression_m_a;
\c regression_m_copy2
SELECT concord.adopt_node();
\echo :SQLSTATE
SELECT concord.leave_cluster();
SELECT membership(), (SELECT count(*) FROM pg_foreign_server) AS servers;
-- the authority's storage is replaced
\c postgres
DROP DATABASE regression_m_copy2;
ALTER DATABASE regression_m_a RENAME TO regression_m_old;
CREATE DATABASE regression_m_a TEMPLATE regression_m_old;
DROP DATABASE regression_m_old;
\c regression_m_a
SELECT membership();
SELECT concord.adopt_node();
SELECT node, generation FROM concord.nodes ORDER BY 1;
CALL await($$(SELECT bool_and(state = 'up') FROM concord.nodes)$$);
\c regression_m_copy
CALL await($$(SELECT bool_and(state = 'up' AND generation = 2) FROM concord.nodes)$$);
-- the authority moves to another address at once: others do not find it, and are told
\c postgres
ALTER DATABASE regression_m_a RENAME TO regression_m_moved;
\set to_moved :address 'regression_m_moved'
\c regression_m_copy
\set VERBOSITY terse
SELECT concord.rebalance();
\echo :SQLSTATE
\set VERBOSITY default
\c regression_m_moved
BEGIN;
SELECT concord.set_node('a', conninfo => :'to_moved');
SELECT * FROM concord.send_map();
\echo :SQLSTATE
ROLLBACK;
SELECT concord.set_node('a', conninfo => :'to_moved');
SELECT * FROM concord.send_map();
\c regression_m_copy
SELECT node, dbname FROM concord.nodes ORDER BY 1;
SELECT concord.set_node('a', zone => 'moved');
CALL await($$(SELECT bool_and(state = 'up') FROM concord.nodes)$$);

--
-- The end: the last node takes the cluster with it
--
SELECT concord.remove_node('c', force => true);
SELECT membership();
\c regression_m_moved
CALL await($$(SELECT count(*) = 1 FROM concord.nodes)$$);
SELECT concord.remove_node('a');
SELECT membership(), (SELECT count(*) FROM pg_foreign_server) AS servers, (SELECT count(*) FROM concord.slots) AS slots;
DROP EXTENSION pg_concord;
\c postgres
DROP DATABASE regression_m_moved;
DROP DATABASE regression_m_b;
DROP DATABASE regression_m_was_c;
DROP DATABASE regression_m_d;
DROP DATABASE regression_m_copy;
DROP DATABASE regression_m_latin;
DROP DATABASE regression_m_bare;
DROP ROLE regress_m_user;
DROP ROLE regress_m_granted;
DROP ROLE concord_node;
