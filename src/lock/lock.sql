-- ---------------------------------------------------------------------------------------------
-- lock: locks on names, and fences
--
-- Nobody but the owner has rights on the table; it is read and written by check_fence() alone, in C.
-- pg_dump leaves it out: marks belong to this cluster's locks.
-- ---------------------------------------------------------------------------------------------

-- An update of a mark changes no index, so that it can stay in its page.
CREATE TABLE concord.fence_marks (
	cluster_id uuid NOT NULL,
	name text COLLATE "C" NOT NULL,
	fence bigint NOT NULL,
	CONSTRAINT fence_marks_pkey PRIMARY KEY (name, cluster_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE concord.fence_marks IS
	'the highest fence of each lock of a cluster that was shown on this node; a mark is never lowered or deleted';

CREATE FUNCTION concord.xact_lock(name text, mode text DEFAULT 'exclusive') RETURNS void
	LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_xact_lock';
COMMENT ON FUNCTION concord.xact_lock(text, text) IS
'Takes a lock on a name, in the whole cluster, and waits for it; it ends with the caller''s transaction, or with a ROLLBACK to a savepoint before it.
name: 1 to 255 bytes; it need not exist anywhere. mode: exclusive, or shared with other shared holders. A transaction may take it again, also in the other mode.
It is an advisory lock in the caller''s transaction on the node that owns the name''s slot (concord.locate(name)), and does not meet the advisory locks of applications. Like those it may be taken in a read-only transaction.
Errors: 55P03 after lock_timeout; 40P01 a deadlock, within a node or among nodes; 22023 an empty or too long name, an unknown mode; 22004; 25006 on a standby; 55000 not a member; PC002 the slot is lost; those of a statement on another node.';

CREATE FUNCTION concord.try_xact_lock(name text, mode text DEFAULT 'exclusive') RETURNS boolean
	LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_try_xact_lock';
COMMENT ON FUNCTION concord.try_xact_lock(text, text) IS
'Takes a lock on a name as concord.xact_lock does, if it can be had without waiting.
name: 1 to 255 bytes. mode: exclusive or shared.
Returns whether it was taken; false also while the name''s slot is being moved to another node.
Errors: as concord.xact_lock, but for 55P03 and 40P01.';

CREATE FUNCTION concord._xact_lock(name text, shared boolean, wait boolean) RETURNS boolean
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_xact_lock_here';
COMMENT ON FUNCTION concord._xact_lock(text, boolean, boolean) IS
	'behind xact_lock and try_xact_lock, on the node of the name''s slot; returns whether it was taken; PC001 if the slot is not on this node';

CREATE FUNCTION concord.check_fence(name text, fence bigint) RETURNS void
	LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_check_fence';
COMMENT ON FUNCTION concord.check_fence(text, bigint) IS
'Makes sure that nobody who was granted the lock later has been here: to be called first in a transaction that does what the lock protects, on the node where it does it.
name: the lock''s. fence: what taking the lock returned.
An exclusive holder''s transactions are done one after the other, those of shared holders of one grant in parallel, and those of different grants in the order of their fences; until the transaction ends, later ones wait. Concerns this node only: call it on each node that is written to, through concord.execute.
Errors: PC005 a higher fence has been shown here: the lock was lost; 40001 the same while this transaction''s snapshot was older; 22023 a fence that is not positive, an empty or too long name; 22004; 25006; 55000 not a member.';

REVOKE ALL ON concord.fence_marks FROM PUBLIC;
