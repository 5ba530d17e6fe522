-- ---------------------------------------------------------------------------------------------
-- quorum: replicated registers
--
-- Nobody but the owner has rights on the tables; pg_dump leaves them out, since a promise must not
-- be restored.  They are written in C (acceptor.c) below the executor: no partial or expression
-- index, no default, no trigger.
-- ---------------------------------------------------------------------------------------------

CREATE TABLE concord.acceptor (
	cluster_id uuid NOT NULL,
	node_id int NOT NULL,
	generation int NOT NULL,
	lineage bigint NOT NULL,
	timeline int NOT NULL,
	backup text NOT NULL,
	config bigint NOT NULL,
	ballot_floor bytea NOT NULL,
	version_floor bigint NOT NULL
);
COMMENT ON TABLE concord.acceptor IS
	'what this node is as an acceptor of registers: its identity, the storage it was given to, the lowest configuration it answers to, and the floors that stand for erased registers';

CREATE TABLE concord.register (
	name text COLLATE "C" NOT NULL,
	state bytea NOT NULL,
	value bytea,
	CONSTRAINT register_pkey PRIMARY KEY (name)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE concord.register IS
	'what this node has promised and accepted of each register, as an acceptor; a register''s value is what a majority of the acceptors holds';

CREATE TABLE concord.configuration (
	cluster_id uuid NOT NULL,
	version bigint NOT NULL,
	body bytea NOT NULL
);
COMMENT ON TABLE concord.configuration IS
	'the newest set of acceptors that this node has heard of';

-- ---------------------------------------------------------------------------------------------
-- What nodes ask each other
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION concord._registers(requests bytea) RETURNS bytea
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_registers';
COMMENT ON FUNCTION concord._registers(bytea) IS
	'takes steps of this node as an acceptor of registers; what they store is flushed with the transaction, so an answer counts only once that has ended; raises 25006 on a standby, 55000 no member, 08P01 malformed, 42501';

CREATE FUNCTION concord._configuration(OUT cluster uuid, OUT body bytea) RETURNS record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_configuration_here';
COMMENT ON FUNCTION concord._configuration() IS
	'the newest set of acceptors that this node has heard of; NULL if it has heard of none';

CREATE FUNCTION concord._learn_configuration(cluster uuid, body bytea) RETURNS boolean
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_learn_configuration';
COMMENT ON FUNCTION concord._learn_configuration(uuid, bytea) IS
	'stores a set of acceptors that was decided, if it is newer; returns whether it was; raises 55000 for another cluster''s, 08P01 malformed, 42501';

CREATE FUNCTION concord._acceptor(cluster uuid, renew boolean, OUT generation int, OUT lineage bigint)
	RETURNS record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_acceptor_here';
COMMENT ON FUNCTION concord._acceptor(uuid, boolean) IS
	'this node''s identity as an acceptor; renew: makes a new one, with nothing promised, before it joins the acceptors; raises 55006 if it is one by the newest set it knows, 25006, 55000, 42501';

CREATE FUNCTION concord._acceptors_suffice(removed name) RETURNS boolean
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_acceptors_suffice';
COMMENT ON FUNCTION concord._acceptors_suffice(name) IS
	'whether a majority of the acceptors is left without a node';

CREATE FUNCTION concord._found_configuration() RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_found_configuration';
COMMENT ON FUNCTION concord._found_configuration() IS
	'makes this node the only acceptor of a cluster that is being created';

-- ---------------------------------------------------------------------------------------------
-- What users call
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION concord.register_get(name text, OUT value text, OUT version bigint) RETURNS record
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_register_get';
COMMENT ON FUNCTION concord.register_get(text) IS
'Reads a replicated register, as a majority of the acceptors has it at some moment during the call.
name: 1 to 255 bytes. Returns value and version; NULL and 0 if it does not exist. One round trip to a majority, no flush, unless a change is under way. No part of the transaction.
Errors: PC006 no majority within concord.register_timeout; 22023 invalid name; 55000 not a member, not preloaded, or no registrar; 25006 on a standby; 57014 cancelled; 42501.';

CREATE FUNCTION concord.register_set(name text, value text, expected_version bigint) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_register_set';
COMMENT ON FUNCTION concord.register_set(text, text, bigint) IS
'Changes a replicated register if it is at the expected version, atomically over all nodes (compare-and-set). A rollback does not undo it.
name: 1 to 255 bytes. value: up to 1 MB. expected_version: what register_get() or register_set() returned; 0: it must not exist. Returns the new version: never given twice for one name, not even after it was deleted.
One round trip with a flush if this node changed it last, else two. After CASPaxos (Rystsov 2018).
Errors: PC007 it is at another version, which the detail tells; PC006 no majority within concord.register_timeout, nothing was changed; 08007 it is not known whether it was changed; 54000 value too long; 22004; 22023; 25006 on a standby or in a read-only transaction; 55000; 57014 cancelled: it may have been changed; 42501.';

CREATE FUNCTION concord.register_delete(name text, expected_version bigint) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_register_delete';
COMMENT ON FUNCTION concord.register_delete(text, bigint) IS
'Deletes a replicated register if it is at the expected version.
name: 1 to 255 bytes. expected_version: what register_get() or register_set() returned. What remains of it is collected when all acceptors answer.
Errors: as register_set().';

REVOKE ALL ON FUNCTION concord._found_configuration() FROM PUBLIC;
-- registers are the administrator's to give: who may write one may break what others keep there
REVOKE ALL ON FUNCTION concord.register_get(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION concord.register_set(text, text, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION concord.register_delete(text, bigint) FROM PUBLIC;

CREATE FUNCTION concord._acceptors(OUT node_id int, OUT generation int, OUT joins boolean, OUT leaves boolean,
	OUT configuration bigint)
	RETURNS SETOF record
	LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'concord_acceptors_here';
COMMENT ON FUNCTION concord._acceptors() IS
	'the newest set of acceptors that this node has heard of';

CREATE VIEW concord.acceptors AS
	SELECT n.node, a.node_id,
		CASE WHEN a.joins THEN 'joining' WHEN a.leaves THEN 'leaving' ELSE 'acceptor' END AS state,
		a.configuration
	FROM concord._acceptors() a LEFT JOIN concord.map_node n USING (node_id);
COMMENT ON VIEW concord.acceptors IS
	'the nodes that keep registers and locks, as far as this node has heard; a majority of them is needed. node is NULL for one that was removed and not replaced yet. configuration: the version of this set.';
GRANT SELECT ON concord.acceptors TO PUBLIC;
