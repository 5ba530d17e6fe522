-- ---------------------------------------------------------------------------------------------
-- cluster: identity, map, membership, doctor
--
-- Tables first, then what only C and the worker call (names begin with an underscore), then what users call,
-- views, grants.  The tables are changed by the PL/pgSQL functions of this file alone; each change ends with
-- concord._map_changed().  They run as the extension's owner and pin search_path.
-- ---------------------------------------------------------------------------------------------

-- Tables: nobody but the owner has rights on them; pg_dump leaves them out, since an identity and a map must not be restored.

CREATE TABLE concord.local_node (
	singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
	cluster_id uuid NOT NULL,
	node_id int NOT NULL CHECK (node_id BETWEEN 1 AND 32767),
	node name NOT NULL,
	generation int NOT NULL CHECK (generation > 0),
	system_identifier bigint NOT NULL,
	database oid NOT NULL,
	state text NOT NULL CHECK (state IN ('joining', 'member', 'removed')),
	join_nonce uuid
);
COMMENT ON TABLE concord.local_node IS
	'this database''s identity in its cluster, bound to the storage it was given to; no row: no member';

CREATE TABLE concord.map_state (
	singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
	epoch bigint NOT NULL CHECK (epoch > 0),
	lost_epoch bigint NOT NULL DEFAULT 0,
	authority int NOT NULL,
	next_node_id int NOT NULL,
	next_replica_id int NOT NULL DEFAULT 1,
	slots bytea NOT NULL CHECK (octet_length(slots) = 8192)
);
COMMENT ON TABLE concord.map_state IS
	'the map''s epoch and slot owners (4096 node ids of two bytes, 0 = lost); lost_epoch is this node''s own: when it last lost a slot';

CREATE TABLE concord.map_node (
	node_id int PRIMARY KEY CHECK (node_id BETWEEN 1 AND 32767),
	node name NOT NULL UNIQUE,
	options text[] NOT NULL,
	zone text NOT NULL,
	weight real NOT NULL,
	generation int NOT NULL,
	system_identifier bigint NOT NULL,
	database oid NOT NULL,
	join_nonce uuid NOT NULL,
	mapping_role name NOT NULL,
	mapping_user text NOT NULL
);
COMMENT ON TABLE concord.map_node IS
	'the nodes of the map; options are libpq options without user and secrets';

CREATE TABLE concord.map_replica (
	replica_id int PRIMARY KEY CHECK (replica_id > 0),
	replica name NOT NULL UNIQUE,
	node_id int NOT NULL,
	options text[] NOT NULL,
	kind text NOT NULL CHECK (kind IN ('physical', 'logical'))
);
COMMENT ON TABLE concord.map_replica IS
	'the replicas of the map''s nodes; options are libpq options without user and secrets';

CREATE TABLE concord.followed (
	singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
	cluster_id uuid NOT NULL,
	node_id int NOT NULL CHECK (node_id BETWEEN 1 AND 32767),
	node name NOT NULL,
	generation int NOT NULL CHECK (generation > 0),
	system_identifier bigint NOT NULL,
	database oid NOT NULL,
	subscription oid NOT NULL,
	publisher_system bigint NOT NULL,
	publisher_database oid NOT NULL,
	timeline bigint NOT NULL,
	history bigint[] NOT NULL,
	parted boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE concord.followed IS
	'the node that this database is a logical copy of, bound to the storage it was made on; no row: it is none. history: the node''s earlier timelines, each with where it ended; parted: the subscription was connected to something else than that timeline';

-- The data wrapper: a node is a foreign server of it.

CREATE FUNCTION concord.fdw_validator(options text[], catalog oid) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_fdw_validator';
COMMENT ON FUNCTION concord.fdw_validator(text[], oid) IS
	'checks options of a node''s foreign server and user mappings; raises HV00D for an unknown option, 42501 for one that only a superuser may set';

CREATE FOREIGN DATA WRAPPER pg_concord VALIDATOR concord.fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER pg_concord IS
	'nodes of a pg_concord cluster; servers are made by concord.add_node, user mappings by concord.map_user';

-- ---------------------------------------------------------------------------------------------
-- Internals in C
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION concord._map_changed() RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_map_changed';
COMMENT ON FUNCTION concord._map_changed() IS
	'ends every change of identity or map: invalidates the backends'' copies and wakes the workers at commit';

CREATE FUNCTION concord._map_epoch() RETURNS bigint
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'concord_map_epoch';
COMMENT ON FUNCTION concord._map_epoch() IS 'returns the epoch of this node''s map, 0 when it has none';

CREATE FUNCTION concord._map_want(epoch bigint, from_node int) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_map_want_sql';
COMMENT ON FUNCTION concord._map_want(bigint, int) IS
	'notes for the maintenance worker that a node has a newer map, and wakes it';

CREATE FUNCTION concord._forwarded(timeout_ms int) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_forwarded';
COMMENT ON FUNCTION concord._forwarded(int) IS
	'prepares a session for another node''s map change: sets timeouts in milliseconds, so that it ends before its caller gives up';

CREATE FUNCTION concord._loses_slot(before bytea, after bytea, node_id int) RETURNS boolean
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'concord_loses_slot';
COMMENT ON FUNCTION concord._loses_slot(bytea, bytea, int) IS
	'tells whether a node owns a slot in the first slot map that it does not own in the second';

CREATE FUNCTION concord._put_mappings(server name, own_server name, mapping_role name, mapping_user text,
									  replace_user boolean) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_put_mappings';
COMMENT ON FUNCTION concord._put_mappings(name, name, name, text, boolean) IS
	'makes the user mappings a node''s server should have: copies of those on this node''s own server, the protocol role''s, and the one of the role that added the node';

-- ---------------------------------------------------------------------------------------------
-- Internals in PL/pgSQL
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION concord._lock_identity() RETURNS concord.local_node
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	me concord.local_node;
BEGIN
	LOCK TABLE concord.local_node IN SHARE ROW EXCLUSIVE MODE;
	SELECT * INTO me FROM concord.local_node;
	RETURN me;
END $$;
COMMENT ON FUNCTION concord._lock_identity() IS
	'locks this database''s identity against other changes until the end of the transaction and returns it';

CREATE FUNCTION concord._lock_map() RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	locked bigint;
BEGIN
	SELECT s.epoch INTO locked FROM concord.map_state s FOR UPDATE;
	RETURN locked;
END $$;
COMMENT ON FUNCTION concord._lock_map() IS
	'locks the map against other changes until the end of the transaction and returns its epoch';

CREATE FUNCTION concord._change_map(new_slots bytea) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	result bigint;
BEGIN
	UPDATE concord.map_state s
	SET epoch = s.epoch + 1,
		slots = coalesce(new_slots, s.slots),
		lost_epoch = CASE WHEN concord._loses_slot(s.slots, new_slots, (SELECT l.node_id FROM concord.local_node l))
						  THEN s.epoch + 1 ELSE s.lost_epoch END
	RETURNING s.epoch INTO STRICT result;
	PERFORM concord._map_changed();
	RETURN result;
END $$;
COMMENT ON FUNCTION concord._change_map(bytea) IS
	'gives the map its next epoch and, unless NULL, new slot owners; the map must be locked; returns the epoch';

CREATE FUNCTION concord._ensure_node_role() RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	role_name name := current_setting('concord.node_role');
BEGIN
	BEGIN
		IF to_regrole(quote_ident(role_name)) IS NULL THEN
			EXECUTE format('CREATE ROLE %I LOGIN', role_name);
		END IF;
	EXCEPTION WHEN duplicate_object OR unique_violation THEN
		-- another database of this server did it at the same moment
		NULL;
	END;
	IF NOT has_database_privilege(role_name, current_database(), 'CONNECT') THEN
		EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role_name);
	END IF;
END $$;
COMMENT ON FUNCTION concord._ensure_node_role() IS
	'creates the role concord.node_role (LOGIN, no other right, no password) where it is missing, and lets it connect';

CREATE FUNCTION concord._put_server(node_name name, node_options text[]) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	server record;
	clause text;
BEGIN
	SELECT s.oid, s.srvoptions,
		EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
				WHERE d.classid = 'pg_foreign_server'::regclass AND d.objid = s.oid AND d.deptype = 'e'
				AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'pg_concord') AS ours
	INTO server
	FROM pg_foreign_server s WHERE s.srvname = node_name;

	IF NOT FOUND THEN
		SELECT string_agg(format('%I %L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', ')
		INTO clause FROM unnest(node_options) o;
		EXECUTE format('CREATE SERVER %I FOREIGN DATA WRAPPER pg_concord OPTIONS (%s)', node_name, clause);
		EXECUTE format('ALTER EXTENSION pg_concord ADD SERVER %I', node_name);
	ELSIF NOT server.ours THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
			MESSAGE = format('foreign server "%s" already exists', node_name),
			HINT = 'A node is a foreign server of its name: drop or rename the other one, or choose another name.';
	ELSIF server.srvoptions IS DISTINCT FROM node_options THEN
		SELECT string_agg(CASE
				WHEN n.k IS NULL THEN format('DROP %I', o.k)
				WHEN o.k IS NULL THEN format('ADD %I %L', n.k, n.v)
				ELSE format('SET %I %L', n.k, n.v) END, ', ')
		INTO clause
		FROM (SELECT split_part(u, '=', 1) AS k FROM unnest(server.srvoptions) u) o
			FULL JOIN (SELECT split_part(u, '=', 1) AS k, substr(u, strpos(u, '=') + 1) AS v
					   FROM unnest(node_options) u) n USING (k);
		EXECUTE format('ALTER SERVER %I OPTIONS (%s)', node_name, clause);
	END IF;
END $$;
COMMENT ON FUNCTION concord._put_server(name, text[]) IS
	'creates a node''s foreign server as a member of the extension, or gives it new options; raises 42710 if the name is taken';

CREATE FUNCTION concord._drop_server(node_name name) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET client_min_messages = warning
AS $$
BEGIN
	IF EXISTS (SELECT FROM pg_foreign_server s JOIN pg_depend d ON d.objid = s.oid
			   JOIN pg_extension e ON e.oid = d.refobjid
			   WHERE s.srvname = node_name AND d.classid = 'pg_foreign_server'::regclass
			   AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'pg_concord') THEN
		EXECUTE format('ALTER EXTENSION pg_concord DROP SERVER %I', node_name);
		EXECUTE format('DROP SERVER %I CASCADE', node_name);
	END IF;
END $$;
COMMENT ON FUNCTION concord._drop_server(name) IS
	'drops a node''s foreign server with its user mappings (and foreign tables, which can hold nothing)';

CREATE FUNCTION concord._grant_usage(server_name name, grantee_oid oid) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	grantee text := CASE WHEN grantee_oid = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee_oid)) END;
BEGIN
	IF EXISTS (SELECT FROM pg_foreign_server s, aclexplode(s.srvacl) a
			   WHERE s.srvname = server_name AND a.grantee = grantee_oid AND a.privilege_type = 'USAGE') THEN
		RETURN;
	END IF;
	-- leaving and entering the extension makes the grant a part of it, so that pg_dump leaves it out like the server
	EXECUTE format('ALTER EXTENSION pg_concord DROP SERVER %I', server_name);
	EXECUTE format('GRANT USAGE ON FOREIGN SERVER %I TO %s', server_name, grantee);
	EXECUTE format('ALTER EXTENSION pg_concord ADD SERVER %I', server_name);
END $$;
COMMENT ON FUNCTION concord._grant_usage(name, oid) IS
	'grants USAGE on a node''s server to a role (0: PUBLIC) unless it has it';

CREATE FUNCTION concord._put_node(new_node concord.map_node) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	old_node concord.map_node;
	own_name name := (SELECT l.node FROM concord.local_node l);
	usage_of oid;
BEGIN
	SELECT n.* INTO old_node FROM concord.map_node n WHERE n.node_id = new_node.node_id;
	IF old_node IS NOT DISTINCT FROM new_node
		AND EXISTS (SELECT FROM pg_foreign_server s WHERE s.srvname = new_node.node) THEN
		RETURN;
	END IF;

	DELETE FROM concord.map_node n WHERE n.node_id = new_node.node_id;
	INSERT INTO concord.map_node SELECT new_node.*;

	PERFORM concord._put_server(new_node.node, new_node.options);
	PERFORM concord._put_mappings(new_node.node, own_name, new_node.mapping_role, new_node.mapping_user,
		(old_node.mapping_role, old_node.mapping_user) IS DISTINCT FROM (new_node.mapping_role, new_node.mapping_user));
	FOR usage_of IN
		SELECT a.grantee FROM pg_foreign_server s, aclexplode(s.srvacl) a
		WHERE s.srvname = own_name AND own_name <> new_node.node
		AND a.privilege_type = 'USAGE' AND a.grantee <> s.srvowner
	LOOP
		PERFORM concord._grant_usage(new_node.node, usage_of);
	END LOOP;
END $$;
COMMENT ON FUNCTION concord._put_node(concord.map_node) IS
	'stores a node of the map, with its foreign server, user mappings and grants; does nothing if nothing differs';

CREATE FUNCTION concord._erase_map() RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	gone name;
BEGIN
	FOR gone IN SELECT n.node FROM concord.map_node n ORDER BY n.node_id LOOP
		PERFORM concord._drop_server(gone);
	END LOOP;
	DELETE FROM concord.map_replica;
	DELETE FROM concord.map_node;
	DELETE FROM concord.map_state;
END $$;
COMMENT ON FUNCTION concord._erase_map() IS 'erases the map with its servers and user mappings from this database';

CREATE FUNCTION concord._store_map(map jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	me int := (SELECT l.node_id FROM concord.local_node l);
	new_slots bytea := decode(map ->> 'slots', 'hex');
	new_epoch bigint := (map ->> 'epoch')::bigint;
	gone name;
	new_node concord.map_node;
BEGIN
	FOR gone IN
		SELECT n.node FROM concord.map_node n
		WHERE n.node NOT IN (SELECT r.node FROM jsonb_populate_recordset(NULL::concord.map_node, map -> 'nodes') r)
	LOOP
		PERFORM concord._drop_server(gone);
	END LOOP;
	DELETE FROM concord.map_node n
	WHERE n.node_id NOT IN (SELECT r.node_id FROM jsonb_populate_recordset(NULL::concord.map_node, map -> 'nodes') r);

	-- this node first: the others' servers take its mappings over
	FOR new_node IN
		SELECT * FROM jsonb_populate_recordset(NULL::concord.map_node, map -> 'nodes') r
		ORDER BY r.node_id <> me, r.node_id
	LOOP
		PERFORM concord._put_node(new_node);
	END LOOP;

	DELETE FROM concord.map_replica;
	INSERT INTO concord.map_replica
	SELECT * FROM jsonb_populate_recordset(NULL::concord.map_replica, map -> 'replicas');

	INSERT INTO concord.map_state AS s (epoch, authority, next_node_id, next_replica_id, slots)
	VALUES (new_epoch, (map ->> 'authority')::int, (map ->> 'next_node_id')::int,
		(map ->> 'next_replica_id')::int, new_slots)
	ON CONFLICT (singleton) DO UPDATE
	SET epoch = excluded.epoch, authority = excluded.authority, next_node_id = excluded.next_node_id,
		next_replica_id = excluded.next_replica_id, slots = excluded.slots,
		lost_epoch = CASE WHEN concord._loses_slot(s.slots, excluded.slots, me)
						  THEN excluded.epoch ELSE s.lost_epoch END;
	PERFORM concord._map_changed();
END $$;
COMMENT ON FUNCTION concord._store_map(jsonb) IS
	'replaces this database''s map by the given one, with servers, user mappings and grants';

CREATE FUNCTION concord._map_json() RETURNS jsonb
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	SET extra_float_digits = 1
AS $$
	SELECT jsonb_build_object(
		'protocol', 1,
		'cluster', l.cluster_id,
		'epoch', s.epoch,
		'authority', s.authority,
		'next_node_id', s.next_node_id,
		'next_replica_id', s.next_replica_id,
		'slots', encode(s.slots, 'hex'),
		'nodes', (SELECT coalesce(jsonb_agg(to_jsonb(n) ORDER BY n.node_id), '[]') FROM concord.map_node n),
		'replicas', (SELECT coalesce(jsonb_agg(to_jsonb(r) ORDER BY r.replica_id), '[]') FROM concord.map_replica r))
	FROM concord.local_node l, concord.map_state s
$$;
COMMENT ON FUNCTION concord._map_json() IS 'returns the map as it travels between nodes; it holds no secret';

CREATE FUNCTION concord._map_hash() RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('%s %s', m.map ->> 'epoch',
		left(encode(sha256(convert_to((m.map - 'protocol')::text, getdatabaseencoding())), 'hex'), 32))
	FROM (SELECT concord._map_json() AS map) m
	WHERE m.map IS NOT NULL
$$;
COMMENT ON FUNCTION concord._map_hash() IS
	'returns the map''s epoch and a hash of all it holds, the same on all nodes that have the same map; NULL without a map';

CREATE FUNCTION concord._is_attached(me concord.local_node) RETURNS boolean
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT me.system_identifier = (SELECT c.system_identifier FROM pg_control_system() c)
		AND me.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
$$;
COMMENT ON FUNCTION concord._is_attached(concord.local_node) IS
	'tells whether an identity belongs to the storage this database is on';

CREATE FUNCTION concord._retire() RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM concord._erase_map();
	UPDATE concord.local_node SET state = 'removed', join_nonce = NULL;
	PERFORM concord._map_changed();
END $$;
COMMENT ON FUNCTION concord._retire() IS
	'makes this node a removed one: the map and all user mappings are erased, the identity remains as a mark';

CREATE FUNCTION concord._forget() RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM concord._lock_identity();
	PERFORM concord._erase_map();
	DELETE FROM concord.local_node;
	DELETE FROM concord.followed;
	PERFORM concord._map_changed();
END $$;
COMMENT ON FUNCTION concord._forget() IS 'erases identity and map: the database belongs to no cluster any more';

CREATE FUNCTION concord._check_name_free(candidate name) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF EXISTS (SELECT FROM concord.map_node n WHERE n.node = candidate) THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
			MESSAGE = format('node "%s" already exists', candidate);
	ELSIF EXISTS (SELECT FROM concord.map_replica r WHERE r.replica = candidate) THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
			MESSAGE = format('replica "%s" already exists', candidate);
	ELSIF EXISTS (SELECT FROM pg_foreign_server s WHERE s.srvname = candidate) THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
			MESSAGE = format('foreign server "%s" already exists', candidate),
			HINT = 'A node is a foreign server of its name: drop or rename the other one, or choose another name.';
	END IF;
END $$;
COMMENT ON FUNCTION concord._check_name_free(name) IS
	'raises 42710 if a node, a replica or a foreign server has this name';

CREATE FUNCTION concord._node_on(on_system bigint, on_database oid) RETURNS name
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT n.node FROM concord.map_node n WHERE n.system_identifier = on_system AND n.database = on_database
$$;
COMMENT ON FUNCTION concord._node_on(bigint, oid) IS
	'returns the node that lives in a database of a server (by system identifier and OID), or NULL';

CREATE FUNCTION concord._create_cluster(node_name name, node_options text[], on_system bigint, on_database oid,
										map_role name, map_role_user text) RETURNS uuid
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	me concord.local_node := concord._lock_identity();
	new_cluster uuid := gen_random_uuid();
	new_node concord.map_node;
BEGIN
	IF me.state <> 'removed' THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'this database has just become a member of a cluster';
	END IF;
	PERFORM concord._forget();
	PERFORM concord._check_name_free(node_name);
	PERFORM concord._ensure_node_role();
	INSERT INTO concord.local_node (cluster_id, node_id, node, generation, system_identifier, database, state)
	VALUES (new_cluster, 1, node_name, 1, on_system, on_database, 'member');
	INSERT INTO concord.map_state (epoch, authority, next_node_id, slots)
	VALUES (1, 1, 2, decode(repeat('0001', 4096), 'hex'));
	new_node := (1, node_name, node_options, '', 1, 1, on_system, on_database, gen_random_uuid(), map_role, map_role_user);
	PERFORM concord._put_node(new_node);
	PERFORM concord._map_changed();
	PERFORM concord._found_configuration();
	RETURN new_cluster;
END $$;
COMMENT ON FUNCTION concord._create_cluster(name, text[], bigint, oid, name, text) IS
	'stores identity and first map of a new cluster; returns its id';

CREATE FUNCTION concord._next_node_id() RETURNS int
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	next_id int := (SELECT s.next_node_id FROM concord.map_state s);
BEGIN
	IF next_id > 32767 THEN
		RAISE EXCEPTION USING ERRCODE = 'program_limit_exceeded',
			MESSAGE = 'this cluster has used up its 32767 node ids';
	END IF;
	RETURN next_id;
END $$;
COMMENT ON FUNCTION concord._next_node_id() IS 'returns the id the next node will get; ids are never reused';

CREATE FUNCTION concord._insert_node(new_id int, node_name name, node_options text[], node_zone text, node_weight real,
									 on_system bigint, on_database oid, nonce uuid, map_role name, map_role_user text)
	RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	new_node concord.map_node :=
		(new_id, node_name, node_options, node_zone, node_weight, 1, on_system, on_database, nonce, map_role, map_role_user);
BEGIN
	PERFORM concord._put_node(new_node);
	UPDATE concord.map_state s SET next_node_id = new_id + 1;
	PERFORM concord._change_map(NULL);
END $$;
COMMENT ON FUNCTION concord._insert_node(int, name, text[], text, real, bigint, oid, uuid, name, text) IS
	'adds a node to the map, which must be locked';

CREATE FUNCTION concord._delete_node(old_id int, new_slots bytea) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	old_name name;
BEGIN
	DELETE FROM concord.map_replica r WHERE r.node_id = old_id;
	DELETE FROM concord.map_node n WHERE n.node_id = old_id RETURNING n.node INTO old_name;
	PERFORM concord._drop_server(old_name);
	PERFORM concord._change_map(new_slots);
END $$;
COMMENT ON FUNCTION concord._delete_node(int, bytea) IS
	'removes a node with its replicas, server and user mappings from the map, which must be locked';

CREATE FUNCTION concord._update_node(known_id int, new_options text[], new_zone text, new_weight real,
									 new_role name, new_user text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	changed concord.map_node;
	before concord.map_node;
BEGIN
	SELECT n.* INTO STRICT before FROM concord.map_node n WHERE n.node_id = known_id;
	changed := before;
	changed.options := coalesce(new_options, before.options);
	changed.zone := coalesce(new_zone, before.zone);
	changed.weight := coalesce(new_weight, before.weight);
	IF new_user IS NOT NULL THEN
		changed.mapping_role := new_role;
		changed.mapping_user := new_user;
	END IF;
	IF changed IS DISTINCT FROM before THEN
		PERFORM concord._put_node(changed);
		PERFORM concord._change_map(NULL);
	END IF;
END $$;
COMMENT ON FUNCTION concord._update_node(int, text[], text, real, name, text) IS
	'changes what is not NULL of a node of the map, which must be locked; the same values again change nothing';

CREATE FUNCTION concord._insert_replica(replica_name name, of_node int, replica_options text[], replica_kind text)
	RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	new_id int;
BEGIN
	UPDATE concord.map_state s SET next_replica_id = s.next_replica_id + 1
	RETURNING s.next_replica_id - 1 INTO STRICT new_id;
	INSERT INTO concord.map_replica (replica_id, replica, node_id, options, kind)
	VALUES (new_id, replica_name, of_node, replica_options, replica_kind);
	PERFORM concord._change_map(NULL);
END $$;
COMMENT ON FUNCTION concord._insert_replica(name, int, text[], text) IS
	'adds a replica to the map, which must be locked, under the next id, which is never used again';

CREATE FUNCTION concord._delete_replica(replica_name name) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	DELETE FROM concord.map_replica r WHERE r.replica = replica_name;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('replica "%s" does not exist', replica_name);
	END IF;
	PERFORM concord._change_map(NULL);
END $$;
COMMENT ON FUNCTION concord._delete_replica(name) IS 'removes a replica from the map, which must be locked';

CREATE FUNCTION concord._store_followed(of_cluster uuid, of_node int, node_name name, of_generation int, publisher jsonb,
										on_system bigint, on_database oid) RETURNS oid
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	me concord.local_node := concord._lock_identity();
	other concord.followed;
	subscriptions oid[];
BEGIN
	LOCK TABLE concord.followed IN SHARE ROW EXCLUSIVE MODE;
	SELECT f.* INTO other FROM concord.followed f
	WHERE (f.system_identifier, f.database) = (on_system, on_database)
	AND (f.cluster_id, f.node_id) <> (of_cluster, of_node);
	IF me.node_id IS NOT NULL OR other.node_id IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = CASE WHEN me.node_id IS NOT NULL THEN 'this database has an identity in a cluster'
				ELSE format('this database is a logical copy of node "%s" already', other.node) END,
			HINT = 'Take it out of that cluster first, or call concord.leave_cluster() there.';
	END IF;
	SELECT array_agg(s.oid) INTO subscriptions FROM pg_subscription s
	WHERE s.subdbid = on_database AND s.subenabled AND publisher -> 'slots' ? s.subslotname::text;
	IF subscriptions IS NULL OR cardinality(subscriptions) > 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = CASE WHEN subscriptions IS NULL
				THEN format('the database reached has no active subscription to node "%s"', node_name)
				ELSE format('the database reached has more than one subscription to node "%s"', node_name) END,
			DETAIL = 'A logical copy has exactly one enabled subscription whose publisher is the node''s database.',
			HINT = 'Look at pg_stat_subscription there, and at pg_replication_slots on the node.';
	END IF;
	IF EXISTS (SELECT FROM concord.followed f WHERE f.subscription = subscriptions[1] AND f.parted
			   AND (f.system_identifier, f.database) = (on_system, on_database)) THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'the subscription has followed another server or timeline than it was synchronised with',
			DETAIL = 'It may have what a failover has lost, and lack what was done after it.',
			HINT = 'Drop it, and subscribe and synchronise anew. If it is known to lack nothing, call concord.leave_cluster() there before.';
	END IF;
	PERFORM concord._ensure_node_role();
	DELETE FROM concord.followed;
	INSERT INTO concord.followed (cluster_id, node_id, node, generation, system_identifier, database, subscription,
		publisher_system, publisher_database, timeline, history)
	VALUES (of_cluster, of_node, node_name, of_generation, on_system, on_database, subscriptions[1],
		(publisher ->> 'system_identifier')::bigint, (publisher ->> 'database')::oid,
		(publisher ->> 'timeline')::bigint,
		ARRAY(SELECT h.value::bigint FROM jsonb_array_elements_text(publisher -> 'history') WITH ORDINALITY h
			  ORDER BY h.ordinality));
	PERFORM concord._map_changed();
	RETURN subscriptions[1];
END $$;
COMMENT ON FUNCTION concord._store_followed(uuid, int, name, int, jsonb, bigint, oid) IS
	'makes this database a logical copy of a node; returns its subscription to the node; raises 55000';

CREATE FUNCTION concord._check_followed(subscribed oid, met_system bigint, met_database oid, met_timeline bigint)
	RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- whoever is making it a copy at this moment looks at whom the subscription has met after us, or is waited for
	LOCK TABLE concord.followed IN SHARE ROW EXCLUSIVE MODE;
	IF met_database IS NULL AND EXISTS (SELECT FROM concord.followed f WHERE f.subscription = subscribed) THEN
		RAISE EXCEPTION USING ERRCODE = 'connection_failure',
			MESSAGE = 'the publisher of a logical copy does not tell what it is';
	END IF;
	UPDATE concord.followed f SET parted = true
	WHERE f.subscription = subscribed AND NOT f.parted
	AND (f.publisher_system, f.publisher_database, f.timeline) <> (met_system, met_database, met_timeline);
	IF FOUND THEN
		PERFORM concord._map_changed();
	END IF;
	RETURN EXISTS (SELECT FROM concord.followed f WHERE f.subscription = subscribed AND f.parted);
END $$;
COMMENT ON FUNCTION concord._check_followed(oid, bigint, oid, bigint) IS
	'called when a subscription begins to stream: parts a logical copy from its node if it is not this it follows; returns whether it has parted; raises 08006 when a copy''s publisher is not known (NULL)';

CREATE FUNCTION concord._forget_followed(of_cluster uuid, of_node int) RETURNS oid
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	subscribed oid;
BEGIN
	LOCK TABLE concord.followed IN SHARE ROW EXCLUSIVE MODE;
	-- one that has parted remembers it
	DELETE FROM concord.followed f WHERE (f.cluster_id, f.node_id) = (of_cluster, of_node) AND NOT f.parted
	RETURNING f.subscription INTO subscribed;
	IF FOUND THEN
		PERFORM concord._map_changed();
	END IF;
	RETURN subscribed;
END $$;
COMMENT ON FUNCTION concord._forget_followed(uuid, int) IS
	'this database is no logical copy of that node any more, unless it has parted: then that is kept; returns the subscription by which it was, or NULL';

CREATE FUNCTION concord._store_join(new_cluster uuid, new_id int, node_name name, nonce uuid, map jsonb,
									on_system bigint, on_database oid) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	me concord.local_node := concord._lock_identity();
BEGIN
	-- replaced is: nothing; what is removed; an intent to join this cluster; a membership that this cluster's
	-- newer map does not hold any more
	IF me.state <> 'removed' AND NOT (concord._is_attached(me) AND me.cluster_id = new_cluster AND
		(me.state = 'joining' OR
		 (map ->> 'epoch')::bigint > (SELECT s.epoch FROM concord.map_state s) AND
		 NOT map -> 'nodes' @> jsonb_build_array(jsonb_build_object('node_id', me.node_id)))) THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'this database is already a member of a cluster',
			DETAIL = format('It is node "%s" of cluster %s (%s).', me.node, me.cluster_id, me.state);
	END IF;
	PERFORM concord._forget();
	PERFORM concord._check_name_free(node_name);
	PERFORM concord._ensure_node_role();
	INSERT INTO concord.local_node (cluster_id, node_id, node, generation, system_identifier, database, state, join_nonce)
	VALUES (new_cluster, new_id, node_name, 1, on_system, on_database, 'joining', nonce);
	PERFORM concord._store_map(map);
END $$;
COMMENT ON FUNCTION concord._store_join(uuid, int, name, uuid, jsonb, bigint, oid) IS
	'stores the intent to join a cluster, with the map as it was before';

CREATE FUNCTION concord._adopted(known_id int, old_generation int, on_system bigint, on_database oid,
								 new_options text[], new_role name, new_user text, epoch_gap bigint)
	RETURNS int
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	changed concord.map_node;
	before concord.map_node;
BEGIN
	SELECT n.* INTO before FROM concord.map_node n WHERE n.node_id = known_id;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('node %s is not in the cluster', known_id),
			HINT = 'Call concord.leave_cluster(), then add the database as a new node.';
	END IF;
	changed := before;
	changed.options := coalesce(new_options, before.options);
	IF new_user IS NOT NULL THEN
		changed.mapping_role := new_role;
		changed.mapping_user := new_user;
	END IF;
	-- the same storage: an adoption whose answer was lost
	IF (before.system_identifier, before.database) <> (on_system, on_database) THEN
		changed.generation := greatest(before.generation, old_generation) + 1;
		changed.system_identifier := on_system;
		changed.database := on_database;
	END IF;
	IF changed IS DISTINCT FROM before THEN
		PERFORM concord._put_node(changed);
		UPDATE concord.map_state s SET epoch = s.epoch + epoch_gap;
		PERFORM concord._change_map(NULL);
	END IF;
	RETURN changed.generation;
END $$;
COMMENT ON FUNCTION concord._adopted(int, int, bigint, oid, text[], name, text, bigint) IS
	'gives a node of the map, which must be locked, a new storage, its next generation, which is returned, and what is not NULL of a new address';

CREATE FUNCTION concord._attach(new_generation int, on_system bigint, on_database oid) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM concord._lock_identity();
	UPDATE concord.local_node
	SET generation = new_generation, system_identifier = on_system, database = on_database;
	PERFORM concord._map_changed();
END $$;
COMMENT ON FUNCTION concord._attach(int, bigint, oid) IS
	'binds this database''s identity to a storage under a generation';

CREATE FUNCTION concord._count_prepared(min_age interval) RETURNS bigint
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT count(*) FROM pg_prepared_xacts p
	WHERE p.database = current_database() AND starts_with(p.gid, 'concord:')
	AND clock_timestamp() - p.prepared >= min_age
$$;
COMMENT ON FUNCTION concord._count_prepared(interval) IS
	'counts this database''s branches of distributed transactions that have been prepared for a while';

CREATE FUNCTION concord._prepared_coordinators(min_age interval) RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT string_agg(DISTINCT coalesce(n.node::text, split_part(p.gid, ':', 3)), ', ')
	FROM pg_prepared_xacts p
	LEFT JOIN concord.map_node n ON n.node_id::text = split_part(p.gid, ':', 3)
	WHERE p.database = current_database() AND starts_with(p.gid, 'concord:')
	AND clock_timestamp() - p.prepared >= min_age
$$;
COMMENT ON FUNCTION concord._prepared_coordinators(interval) IS
	'names the coordinators of these branches; by number, if the map has them no more';

CREATE FUNCTION concord._outcome_of(nonce uuid) RETURNS text
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	BEGIN
		PERFORM s.epoch FROM concord.map_state s FOR UPDATE NOWAIT;
	EXCEPTION WHEN lock_not_available THEN
		RETURN 'in progress';
	END;
	-- a new statement, so a snapshot taken after the lock: whoever held it has ended
	IF EXISTS (SELECT FROM concord.map_node n WHERE n.join_nonce = nonce) THEN
		RETURN 'member';
	END IF;
	RETURN 'aborted';
END $$;
COMMENT ON FUNCTION concord._outcome_of(uuid) IS
	'tells how an add_node ended, by its nonce: member, aborted, or in progress';

-- ---------------------------------------------------------------------------------------------
-- The worker's calls on its own node
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION concord._apply_map(map jsonb, repair boolean DEFAULT false) RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	me concord.local_node := concord._lock_identity();
	mine concord.map_node;
	known bigint;
BEGIN
	IF me.node_id IS NULL OR me.state = 'removed' OR NOT concord._is_attached(me) THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'this database is not a member of a cluster';
	END IF;
	IF (map ->> 'cluster')::uuid IS DISTINCT FROM me.cluster_id THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'the map is another cluster''s',
			DETAIL = format('It is of cluster %s, this node of %s.', map ->> 'cluster', me.cluster_id);
	END IF;
	known := concord._lock_map();
	IF (map ->> 'epoch')::bigint < known OR
		((map ->> 'epoch')::bigint = known AND map - 'protocol' = concord._map_json() - 'protocol') THEN
		RETURN false;
	END IF;
	IF (map ->> 'epoch')::bigint = known THEN
		IF NOT repair THEN
			RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
				MESSAGE = format('this node has another map of epoch %s', known),
				HINT = 'concord.check_cluster() shows which nodes differ. Call concord.send_map() on one whose map is right.';
		END IF;
		-- the authority, which gives the epochs, makes it the next one: so it also reaches those that were not sent it
		SELECT CASE WHEN s.authority = me.node_id
			THEN map || jsonb_build_object('epoch', known + 1,
				'next_node_id', greatest((map ->> 'next_node_id')::int, s.next_node_id),
				'next_replica_id', greatest((map ->> 'next_replica_id')::int, s.next_replica_id))
			ELSE map END
		INTO STRICT map FROM concord.map_state s;
	END IF;

	SELECT r.* INTO mine FROM jsonb_populate_recordset(NULL::concord.map_node, map -> 'nodes') r
	WHERE r.node_id = me.node_id;
	IF me.state = 'joining' THEN
		-- only the very intent that is stored makes a member
		IF mine.join_nonce = me.join_nonce THEN
			UPDATE concord.local_node SET state = 'member', generation = mine.generation, join_nonce = NULL;
		END IF;
	ELSIF mine.node_id IS NULL OR
		(mine.system_identifier, mine.database) <> (me.system_identifier, me.database) THEN
		-- removed, or another storage was adopted in this one's place
		PERFORM concord._retire();
		RETURN true;
	ELSIF mine.generation <> me.generation THEN
		UPDATE concord.local_node SET generation = mine.generation;
	END IF;
	PERFORM concord._store_map(map);
	RETURN true;
END $$;
COMMENT ON FUNCTION concord._apply_map(jsonb, boolean) IS
	'applies a map of this cluster if it is newer, or, with repair, if it is another one of the same epoch (the authority makes it the next epoch; without repair 55000); makes a joining node a member when the map holds it with its nonce, and a member a removed node when the map does not hold it; returns whether anything changed; raises 55000';

CREATE FUNCTION concord._removed() RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	me concord.local_node := concord._lock_identity();
BEGIN
	IF me.state IS DISTINCT FROM 'member' OR NOT concord._is_attached(me) THEN
		RETURN false;
	END IF;
	PERFORM concord._retire();
	RETURN true;
END $$;
COMMENT ON FUNCTION concord._removed() IS
	'makes this node a removed one; called when the authority has said that it is not in the cluster; returns whether anything changed';

CREATE FUNCTION concord._join_finish(verdict text, nonce uuid DEFAULT NULL) RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	me concord.local_node := concord._lock_identity();
	state concord.map_state;
BEGIN
	IF me.state IS DISTINCT FROM 'joining' OR NOT concord._is_attached(me) OR
		me.join_nonce <> nonce THEN
		RETURN false;
	END IF;
	IF verdict = 'aborted' THEN
		PERFORM concord._forget();
		RETURN true;
	ELSIF verdict = 'member' THEN
		SELECT s.* INTO state FROM concord.map_state s;
		PERFORM concord._map_want(state.epoch + 1, state.authority);
	END IF;
	RETURN false;
END $$;
COMMENT ON FUNCTION concord._join_finish(text, uuid) IS
	'acts on the authority''s answer to _join_outcome(nonce): aborted erases the intent, member has the map fetched; returns whether anything changed; does nothing unless this database is joining (with that nonce)';

-- ---------------------------------------------------------------------------------------------
-- The protocol between nodes: C functions that check their caller themselves
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION concord._probe(
	OUT version text, OUT extversion text, OUT protocol int, OUT preloaded boolean, OUT superuser boolean,
	OUT in_recovery boolean, OUT read_only boolean, OUT max_prepared int, OUT system_identifier bigint,
	OUT database oid, OUT encoding text, OUT node_role text, OUT membership text, OUT cluster uuid,
	OUT node_id int, OUT node name)
	RETURNS record
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'concord_probe_sql';
COMMENT ON FUNCTION concord._probe() IS
	'describes this database to a node that connects to it: versions, server, settings a member needs, identity';

CREATE FUNCTION concord._heartbeat(
	cluster uuid, from_node int, to_node int, protocol int, epoch bigint, generation int,
	OUT node_id int, OUT epoch bigint, OUT version text, OUT clock timestamptz, OUT incarnation text,
	OUT generation int, OUT timeline int, OUT lsn pg_lsn)
	RETURNS record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_heartbeat';
COMMENT ON FUNCTION concord._heartbeat(uuid, int, int, int, bigint, int) IS
	'answers a node that is alive and tells its map''s epoch: with this node''s id, epoch, version, clock, incarnation, generation, and timeline and end of its WAL; raises 55000 if this is not the node meant, 42704 if the asking node is not in this node''s map, 0A000 for a protocol it does not speak, 25006 on a standby';

CREATE FUNCTION concord._copy_heartbeat(
	OUT cluster uuid, OUT node_id int, OUT generation int, OUT membership text, OUT in_recovery boolean,
	OUT timeline int, OUT lsn pg_lsn, OUT epoch bigint, OUT version text, OUT incarnation text,
	OUT system_identifier bigint, OUT database oid, OUT problem text)
	RETURNS record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_copy_heartbeat';
COMMENT ON FUNCTION concord._copy_heartbeat() IS
	'answers a node that asks a replica: with the identity that it holds, whether it is in recovery, timeline and position of what it has applied (a primary: of its end of WAL), its map''s epoch, its version, its server''s incarnation, and why a logical copy cannot serve; raises 42501, 55000 without the preload';

CREATE FUNCTION concord._timelines(OUT timeline bigint, OUT ends bigint) RETURNS SETOF record
	LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'concord_timelines';
COMMENT ON FUNCTION concord._timelines() IS
	'the timelines of this primary''s WAL, the current one last, each with where it was left; raises 55000 in recovery';

CREATE FUNCTION concord._publisher() RETURNS jsonb
	LANGUAGE sql STABLE PARALLEL RESTRICTED
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT jsonb_build_object(
		'system_identifier', p.system_identifier,
		'database', p.database::bigint,
		'slots', (SELECT coalesce(jsonb_agg(s.slot_name), '[]') FROM pg_replication_slots s
				  WHERE s.slot_type = 'logical' AND s.active AND s.database = current_database()),
		'timeline', (SELECT t.timeline FROM concord._timelines() t WHERE t.ends IS NULL),
		'history', (SELECT coalesce(jsonb_agg(u.number ORDER BY t.timeline, u.place), '[]')
					FROM concord._timelines() t, unnest(ARRAY[t.timeline, t.ends]) WITH ORDINALITY u(number, place)
					WHERE t.ends IS NOT NULL))
	FROM concord._probe() p
$$;
COMMENT ON FUNCTION concord._publisher() IS
	'tells what a logical copy of this database must be connected to: server, database, the logical slots in use, the timelines of its WAL; holds nothing that pg_control_system() and pg_replication_slots do not show';

CREATE FUNCTION concord._follow(cluster uuid, node_id int, node_name name, generation int, publisher jsonb) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_follow';
COMMENT ON FUNCTION concord._follow(uuid, int, name, int, jsonb) IS
	'called by add_replica on a logical copy: stores whose it is, by the answer of that node''s _publisher(); raises 55000, 42501';

CREATE FUNCTION concord._unfollow(cluster uuid, node_id int) RETURNS boolean
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_unfollow';
COMMENT ON FUNCTION concord._unfollow(uuid, int) IS
	'called by remove_replica on a logical copy: it is none any more; returns whether it was one of that node that had not parted from it; raises 42501';

CREATE FUNCTION concord._get_map() RETURNS jsonb
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_get_map';
COMMENT ON FUNCTION concord._get_map() IS 'returns this member''s map for concord._apply_map() on another node; raises 55000, 42501';

CREATE FUNCTION concord._join_outcome(nonce uuid, cluster uuid DEFAULT NULL) RETURNS text
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_join_outcome';
COMMENT ON FUNCTION concord._join_outcome(uuid, uuid) IS
	'asks the authority how an add_node ended: member, aborted or in progress; raises 55000 if this is not the authority (of that cluster), 42501';

CREATE FUNCTION concord._join(cluster uuid, protocol int, node_id int, node_name name, nonce uuid, map jsonb) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_join';
COMMENT ON FUNCTION concord._join(uuid, int, int, name, uuid, jsonb) IS
	'called by add_node on the new node: stores the intent to join and checks that the authority can be reached from here; raises 55000, 42501, 42710';

CREATE FUNCTION concord._add_node(node_name name, options text[], zone text, weight real, mapping_role name, mapping_user text)
	RETURNS int
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_add_node_here';
COMMENT ON FUNCTION concord._add_node(name, text[], text, real, name, text) IS
	'add_node on the authority, with the address parsed and the caller named';

CREATE FUNCTION concord._set_node(node_name name, options text[], zone text, weight real, mapping_role name, mapping_user text)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_set_node_here';
COMMENT ON FUNCTION concord._set_node(name, text[], text, real, name, text) IS
	'set_node on the authority, with the address parsed and the caller named';

CREATE FUNCTION concord._add_replica(node_name name, replica_name name, options text[], mapping_user text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_add_replica_here';
COMMENT ON FUNCTION concord._add_replica(name, name, text[], text) IS
	'add_replica on the authority, with the address parsed';

CREATE FUNCTION concord._adopt(cluster uuid, node_id int, generation int, system_identifier bigint, database oid,
							   options text[], mapping_role name, mapping_user text) RETURNS int
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_adopt_here';
COMMENT ON FUNCTION concord._adopt(uuid, int, int, bigint, oid, text[], name, text) IS
	'adopt_node on the authority: gives a node its new storage; returns its new generation';

CREATE FUNCTION concord._map_user(role name, options text[]) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_map_user_here';
COMMENT ON FUNCTION concord._map_user(name, text[]) IS 'map_user on one node';

CREATE FUNCTION concord._doctor(OUT item text, OUT status text, OUT detail text, OUT hint text, OUT value text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_doctor';
COMMENT ON FUNCTION concord._doctor() IS
	'what this node knows of its own health, for check_cluster(); value is what the asking node compares; raises 42501';

-- ---------------------------------------------------------------------------------------------
-- Membership
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION concord.create_cluster(node_name name, conninfo text) RETURNS uuid
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_create_cluster';
COMMENT ON FUNCTION concord.create_cluster(name, text) IS
'Makes this database the first node of a new cluster, its authority and the owner of all slots.
node_name: the node''s name, also of its foreign server. conninfo: libpq connection string by which every node, this one included, reaches this database; its user becomes the calling role''s user mapping.
Returns the cluster''s id. Superuser only.
Errors: 55000 already a member, detached, not preloaded, max_prepared_transactions is 0, or conninfo reaches another database; 42710 a foreign server has the name; 42602 invalid name; 22023 invalid conninfo or one with a password; 08001 not reachable; 25006; 42501.';

CREATE FUNCTION concord.add_node(node_name name, conninfo text, zone text DEFAULT '', weight real DEFAULT 1) RETURNS int
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_add_node';
COMMENT ON FUNCTION concord.add_node(name, text, text, real) IS
'Adds a database, in which the extension was created, to this cluster. Moves no slot.
node_name: the new node''s name. conninfo: libpq connection string by which every node reaches it; its user (default: the caller''s name), a superuser there, becomes the calling role''s user mapping. zone: any text, where the node is. weight: its share of the slots relative to the others, 0 or more.
Returns the new node''s id. The node becomes a member when it hears of the committed map. On it, other roles have no user mappings yet: call concord.map_user again. Superuser only. On a node that is not the authority it commits by itself and is refused inside a transaction block (25001).
Errors: 42710 name or database already in the cluster; 55000 the database is a member of a cluster, detached, without the extension, the preload or prepared transactions, in recovery, or differs in encoding or concord.node_role; 0A000 it speaks another protocol; 42602 invalid name; 22023 invalid weight, conninfo, or one with a password; 08001, 08006 not reachable; 08007 the authority''s answer was lost; 25006; 42501.';

CREATE FUNCTION concord.remove_node(node_name name, force boolean DEFAULT false) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_remove_node';
COMMENT ON FUNCTION concord.remove_node(name, boolean) IS
'Removes a node from the cluster; removing the last one ends the cluster.
node_name: the node. force: remove it although it owns slots; these are lost, an error to use, until concord.assign_lost_slots; and although transactions of it are prepared, here or on other nodes, which then stay in doubt.
Errors: 42704 no such node; 55006 it owns slots, or transactions of it are prepared, and force is false; 0A000 it is the authority and not the last node; 25001, 08006, 08007 as add_node; 25006; 55000 not a member.';

CREATE FUNCTION concord.set_node(node_name name, conninfo text DEFAULT NULL, zone text DEFAULT NULL, weight real DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_set_node';
COMMENT ON FUNCTION concord.set_node(name, text, text, real) IS
'Changes a node''s address, zone or weight; NULL leaves it as it is.
node_name: the node. conninfo: new connection string, must reach the node''s database; superuser only. zone: any text. weight: 0 or more; 0 drains the node at the next concord.rebalance().
A new address of the authority spreads only while the old one is good; else call concord.send_map() on the authority.
Errors: 42704 no such node; 55000 conninfo reaches another database, or not a member; 22023 invalid weight, conninfo, or one with a password; 08001 not reachable; 25001, 08006, 08007 as add_node; 25006; 42501.';

CREATE FUNCTION concord.adopt_node(conninfo text DEFAULT NULL) RETURNS int
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_adopt_node';
COMMENT ON FUNCTION concord.adopt_node(text) IS
'Lets a detached database (restored, copied or upgraded) take the place of the node whose identity it holds, under that node''s next generation.
conninfo: the node''s new address; NULL: it is as the authority''s map has it. The address must reach this very database, and the old one no living node.
Returns the new generation. Superuser only. Called again after a lost answer it ends the same adoption. If the authority itself is adopted under a new address, call concord.send_map() afterwards.
Errors: 55000 not detached, the node is alive, or the address reaches another database; 42704 the node was removed meanwhile; 42710 the database is another node; 22023 invalid conninfo; 08001, 08006 not reachable; 25001; 25006; 42501.';

CREATE FUNCTION concord.send_map(OUT node name, OUT status text, OUT detail text) RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_send_map';
COMMENT ON FUNCTION concord.send_map() IS
'Gives this node''s map to all other nodes; those that have a newer one keep it, those that have another one of the same epoch give that up. Maps spread by themselves, unless the authority''s address was changed so that the others cannot find it, or its storage has gone back to a map without the nodes that have the newer one.
Returns a row for each other node: status ok or error, with a detail. Superuser only. Sees committed changes only.
Errors: 55000 not a member, or the map was changed by the same transaction; 25006; 42501.';

CREATE FUNCTION concord.leave_cluster(force boolean DEFAULT false) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_leave_cluster';
COMMENT ON FUNCTION concord.leave_cluster(boolean) IS
'Erases the identity of a database that is detached, removed or still joining, or ends its being a logical copy; other nodes are not told.
force: a member may leave, too, as when its cluster''s authority is gone for good; superuser only. The others list it until concord.remove_node is called there with force.
Errors: 55000 on a member without force (use concord.remove_node) and without identity; 22004 NULL; 25006; 42501.';

CREATE FUNCTION concord.add_replica(node_name name, replica_name name, conninfo text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_add_replica';
COMMENT ON FUNCTION concord.add_replica(name, name, text) IS
'Adds a replica of a node to the map: a physical standby, or a logical copy, a database of no cluster whose only enabled subscription to the node keeps it up to date.
node_name: the node. replica_name: the replica''s name. conninfo: libpq connection string by which every node reaches it; for a logical copy as a superuser there. Superuser only. A logical copy counts only for the timeline the node is on now.
Errors: 42704 no such node; 42710 the name is taken; 55000 it is neither a standby of that node nor connected to it by exactly one subscription, or not a member; 42602, 22023, 08001, 25001, 08006, 08007 as add_node; 25006; 42501.';

CREATE FUNCTION concord.remove_replica(replica_name name) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_remove_replica';
COMMENT ON FUNCTION concord.remove_replica(name) IS
'Removes a replica from the map. A logical copy is told that it is none any more, if it can be reached (else a WARNING); a standby is not touched.
Errors: 42704 no such replica; 25001, 08006, 08007 as add_node; 25006; 55000.';

CREATE FUNCTION concord.map_user(role name, options text[], OUT node name, OUT status text, OUT detail text) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_map_user';
COMMENT ON FUNCTION concord.map_user(name, text[]) IS
'Sets a role''s user mapping for every node, on every node, and grants it USAGE on the nodes'' servers.
role: the role, which must exist on each node; public for all roles. options: keyword=value of user mappings: user (default: the role''s name), password, sslcert, sslkey, passfile, password_required.
Returns a row for each node: status ok or error, with a detail. What fails here is an error; what fails on another node is a row, and the call can be repeated. Superuser only. No value is logged by pg_concord; use a parameter or \bind, or turn off log_statement, to keep it out of the log of this session.
Errors: 42704 no such role here; 22023 malformed option; HV00D unknown option; 42710 an option twice; 22004 NULL; 25001 inside a transaction block when there are other nodes; 25006; 42501; 55000.';

-- ---------------------------------------------------------------------------------------------
-- Slots
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION concord.rebalance_plan(OUT slot int, OUT source name, OUT target name) RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_rebalance_plan';
COMMENT ON FUNCTION concord.rebalance_plan() IS
'Shows the slots concord.rebalance() would move, with their owners before and after; lost slots do not move.
Errors: 55000 not a member, or no node has a positive weight.';

CREATE FUNCTION concord.rebalance(wait boolean DEFAULT true) RETURNS int
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_rebalance';
COMMENT ON FUNCTION concord.rebalance(boolean) IS
'Moves as few slots as possible so that every node owns its share by weight.
wait: whether to wait until the moves are finished; in this version they always are.
Returns the number of slots moved.
Errors: 55000 not a member, or no node has a positive weight; 25001, 08006, 08007 as add_node; 25006.';

CREATE FUNCTION concord.move_slot(slot int, node_name name) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_move_slot';
COMMENT ON FUNCTION concord.move_slot(int, name) IS
'Gives one slot to a node.
slot: 0 to 4095. node_name: the new owner.
Returns false if it was the owner already.
Errors: 22023 no such slot; 42704 no such node; PC002 the slot is lost; 25001, 08006, 08007 as add_node; 25006; 55000.';

CREATE FUNCTION concord.assign_lost_slots(node_name name) RETURNS int
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_assign_lost_slots';
COMMENT ON FUNCTION concord.assign_lost_slots(name) IS
'Gives all slots whose owner was removed by force to a node. What the removed node held is not brought back.
node_name: the new owner.
Returns the number of slots.
Errors: 42704 no such node; 25001, 08006, 08007 as add_node; 25006; 55000.';

-- ---------------------------------------------------------------------------------------------
-- Health
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION concord.check_cluster(OUT node name, OUT item text, OUT status text, OUT detail text, OUT hint text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_check_cluster';
COMMENT ON FUNCTION concord.check_cluster() IS
'Examines every node and returns a row for each node and item with status ok, warning or error, a detail and a hint.
All nodes are asked at once as concord.node_role; one that has not answered within concord.view_timeout is a row reachable / error.
Needs membership in pg_monitor. Errors: 55000 without the preload.';

CREATE FUNCTION concord._nodes(
	OUT node_id int, OUT state text, OUT slots int, OUT latency_ms double precision, OUT last_seen timestamptz,
	OUT is_local boolean, OUT epoch bigint, OUT connections int, OUT last_error text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'concord_nodes';
COMMENT ON FUNCTION concord._nodes() IS 'what this server knows of the map''s nodes, for the view nodes; contacts nobody';

CREATE FUNCTION concord._option(options text[], keyword text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT substr(o, length(keyword) + 2) FROM unnest(options) o WHERE starts_with(o, keyword || '=') LIMIT 1
$$;
COMMENT ON FUNCTION concord._option(text[], text) IS 'returns the value of a libpq option, NULL if it is not among them';

CREATE VIEW concord.nodes AS
	SELECT n.node_id, n.node,
		coalesce(concord._option(n.options, 'host'), concord._option(n.options, 'hostaddr')) AS host,
		concord._option(n.options, 'port') AS port,
		concord._option(n.options, 'dbname') AS dbname,
		n.zone, n.weight, h.state, h.slots, h.latency_ms, h.last_seen, h.is_local, n.generation,
		h.epoch, h.connections, h.last_error
	FROM concord.map_node n LEFT JOIN concord._nodes() h USING (node_id);
COMMENT ON VIEW concord.nodes IS
	'the nodes of the cluster as this node sees them; contacts nobody and never waits';
COMMENT ON COLUMN concord.nodes.state IS 'up, suspect, down, or unknown (never heard of)';
COMMENT ON COLUMN concord.nodes.slots IS 'number of slots the node owns';
COMMENT ON COLUMN concord.nodes.latency_ms IS 'round trip of the last heartbeat in milliseconds';
COMMENT ON COLUMN concord.nodes.last_seen IS 'when the node last answered a heartbeat, by this server''s clock';
COMMENT ON COLUMN concord.nodes.epoch IS 'epoch of the node''s map when it last answered';
COMMENT ON COLUMN concord.nodes.connections IS 'open connections of this database''s sessions to the node';
COMMENT ON COLUMN concord.nodes.last_error IS 'why the last heartbeat failed; shown to members of pg_monitor only';

CREATE FUNCTION concord._replicas(
	OUT replica_id int, OUT health text, OUT can_serve boolean, OUT timeline int, OUT replay_lsn pg_lsn,
	OUT lag_bytes bigint, OUT staleness interval, OUT latency_ms double precision, OUT last_seen timestamptz,
	OUT last_error text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'concord_replicas';
COMMENT ON FUNCTION concord._replicas() IS
	'what this server knows of the map''s replicas, for the view replicas; contacts nobody';

CREATE VIEW concord.replicas AS
	SELECT r.replica, n.node, r.kind,
		coalesce(concord._option(r.options, 'host'), concord._option(r.options, 'hostaddr')) AS host,
		concord._option(r.options, 'port') AS port,
		concord._option(r.options, 'dbname') AS dbname,
		h.health, h.can_serve, h.timeline, h.replay_lsn, h.lag_bytes, h.staleness, h.latency_ms,
		h.last_seen, h.last_error
	FROM concord.map_replica r JOIN concord.map_node n USING (node_id)
		LEFT JOIN concord._replicas() h USING (replica_id);
COMMENT ON VIEW concord.replicas IS
	'the replicas of the cluster''s nodes as this node sees them; contacts nobody and never waits; on a standby, which asks nobody, their state is NULL';
COMMENT ON COLUMN concord.replicas.kind IS 'physical (a standby) or logical (a subscriber)';
COMMENT ON COLUMN concord.replicas.health IS 'up, suspect, down, or unknown (never heard of)';
COMMENT ON COLUMN concord.replicas.can_serve IS
	'it can be read: when last asked it was reached, and a standby of that node in its present generation; or a logical copy that is connected to it on its present timeline, all tables synchronised';
COMMENT ON COLUMN concord.replicas.timeline IS 'timeline of replay_lsn';
COMMENT ON COLUMN concord.replicas.replay_lsn IS 'up to where it had applied the node''s WAL when it last answered';
COMMENT ON COLUMN concord.replicas.lag_bytes IS
	'WAL of the node that it had not applied; NULL when node and replica are on different timelines, or one of them was never heard of';
COMMENT ON COLUMN concord.replicas.staleness IS
	'it shows everything that was committed on the node so long ago; an upper bound, measured on this server''s clock alone; NULL when nothing is known';
COMMENT ON COLUMN concord.replicas.latency_ms IS 'round trip of the last heartbeat in milliseconds';
COMMENT ON COLUMN concord.replicas.last_seen IS 'when it last answered a heartbeat, by this server''s clock';
COMMENT ON COLUMN concord.replicas.last_error IS
	'why the last heartbeat failed, or why it cannot serve; shown to members of pg_monitor only';

-- ---------------------------------------------------------------------------------------------
-- Grants.  PostgreSQL lets PUBLIC execute every new function: taken away from all but those that only read what views
-- show, or that check their caller (the protocol).
-- ---------------------------------------------------------------------------------------------

REVOKE ALL ON FUNCTION
	concord._map_changed(), concord._map_want(bigint, int),
	concord._loses_slot(bytea, bytea, int), concord._put_mappings(name, name, name, text, boolean),
	concord._lock_identity(), concord._lock_map(), concord._change_map(bytea), concord._ensure_node_role(),
	concord._put_server(name, text[]), concord._drop_server(name), concord._grant_usage(name, oid),
	concord._put_node(concord.map_node), concord._erase_map(), concord._store_map(jsonb), concord._map_json(),
	concord._map_hash(),
	concord._is_attached(concord.local_node), concord._retire(), concord._forget(), concord._check_name_free(name),
	concord._node_on(bigint, oid), concord._create_cluster(name, text[], bigint, oid, name, text),
	concord._next_node_id(), concord._insert_node(int, name, text[], text, real, bigint, oid, uuid, name, text),
	concord._delete_node(int, bytea), concord._update_node(int, text[], text, real, name, text),
	concord._insert_replica(name, int, text[], text), concord._delete_replica(name),
	concord._store_followed(uuid, int, name, int, jsonb, bigint, oid), concord._check_followed(oid, bigint, oid, bigint),
	concord._forget_followed(uuid, int), concord._follow(uuid, int, name, int, jsonb),
	concord._store_join(uuid, int, name, uuid, jsonb, bigint, oid), concord._adopted(int, int, bigint, oid, text[], name, text, bigint),
	concord._attach(int, bigint, oid), concord._outcome_of(uuid), concord._count_prepared(interval),
	concord._prepared_coordinators(interval),
	concord._apply_map(jsonb, boolean), concord._removed(), concord._join_finish(text, uuid),
	concord._join(uuid, int, int, name, uuid, jsonb),
	concord._add_node(name, text[], text, real, name, text), concord._set_node(name, text[], text, real, name, text),
	concord._add_replica(name, name, text[], text), concord._adopt(uuid, int, int, bigint, oid, text[], name, text),
	concord._map_user(name, text[]),
	concord.create_cluster(name, text), concord.add_node(name, text, text, real), concord.remove_node(name, boolean),
	concord.set_node(name, text, text, real), concord.adopt_node(text), concord.send_map(), concord.leave_cluster(boolean),
	concord.add_replica(name, name, text), concord.remove_replica(name), concord.map_user(name, text[]),
	concord.rebalance(boolean), concord.move_slot(int, name), concord.assign_lost_slots(name),
	concord.check_cluster()
FROM PUBLIC;

GRANT EXECUTE ON FUNCTION concord.check_cluster() TO pg_monitor;
GRANT SELECT ON concord.nodes, concord.replicas TO PUBLIC;
