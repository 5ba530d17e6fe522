-- ---------------------------------------------------------------------------------------------
-- lease locks
-- ---------------------------------------------------------------------------------------------

CREATE FUNCTION concord._lock_news(news bytea) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_lock_news';
COMMENT ON FUNCTION concord._lock_news(bytea) IS
	'tells this node''s registrar what a lock''s register says since another node has granted it to a session here; raises 08P01, 42501';

CREATE FUNCTION concord.lock(name text, mode text DEFAULT 'exclusive', wait interval DEFAULT NULL,
	lease interval DEFAULT NULL) RETURNS bigint
	LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_lock';
COMMENT ON FUNCTION concord.lock(text, text, interval, interval) IS
'Takes a lock on a name in the whole cluster for this session, and waits for it. It is kept by a majority of the acceptors, until it is given back, the session ends, or this node is cut off for longer than concord.lease_duration. No part of the transaction: a rollback does not give it back.
name: 1 to 255 bytes. mode: exclusive, or shared with other shared holders. wait: how long at most; NULL: lock_timeout; 0: not at all, but as an error. lease: it is given back by itself after this time (10 ms to 1 day); NULL: it is not. A session that has it takes it once more, and has to give it back as often; a shared lock becomes exclusive if nobody else shares it.
Returns the fence: a number that is higher than those of all earlier grants of this name; pass it to concord.check_fence() where the data is.
Requests are granted in the order in which they came; shared ones wait behind an exclusive one. Uncontended: one round trip with a flush to a majority if this node had it last, else two.
Errors: 55P03 not granted in time; PC006 no majority of the acceptors; PC008 the session had it and lost it; 55006 shared with others; 40P01 deadlock; 40001 it had to wait under a snapshot that stays, and was given back; 53200 concord.max_locks; 54000; 22023; 22004; 25006 on a standby or in a read-only transaction; 55000 not a member, no registrar; 57014.';

CREATE PROCEDURE concord.acquire(name text, mode text DEFAULT 'exclusive', wait interval DEFAULT NULL,
	lease interval DEFAULT NULL, INOUT fence bigint DEFAULT NULL)
	LANGUAGE c AS 'MODULE_PATHNAME', 'concord_acquire';
COMMENT ON PROCEDURE concord.acquire(text, text, interval, interval, bigint) IS
'Takes a lock as concord.lock() does, without holding a snapshot while it waits: what comes after sees all that the one before has committed on this node, also under REPEATABLE READ.
Arguments as concord.lock(); fence receives what that returns.
Errors: as concord.lock(), but for 40001; 25001 within a query, a function, or a transaction whose snapshot stays (REPEATABLE READ), unless it is the CALL alone.';

CREATE FUNCTION concord.try_lock(name text, mode text DEFAULT 'exclusive') RETURNS bigint
	LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_try_lock';
COMMENT ON FUNCTION concord.try_lock(text, text) IS
'Takes a lock as concord.lock() does if it can be had without waiting for another session.
name: 1 to 255 bytes. mode: exclusive or shared. Returns the fence, or NULL.
Errors: as concord.lock(), but for 55P03, 55006, 40P01 and 40001.';

CREATE FUNCTION concord.unlock(name text) RETURNS boolean
	LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'concord_unlock';
COMMENT ON FUNCTION concord.unlock(text) IS
'Gives back a lock that this session has taken once with concord.lock(); the next in the queue gets it.
name: 1 to 255 bytes. Returns true, also for one that was lost; false, with a WARNING, if the session has none of that name. Waits for a majority of the acceptors, at most concord.register_timeout, after which a WARNING says that it is given back later.
Errors: 22023, 22004, 57014.';

CREATE FUNCTION concord.unlock_all() RETURNS int
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'concord_unlock_all';
COMMENT ON FUNCTION concord.unlock_all() IS
'Gives back all lease locks of this session, however often they were taken; returns how many names they were. So does DISCARD ALL.';

CREATE FUNCTION concord.lock_remaining(name text) RETURNS interval
	LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'concord_lock_remaining';
COMMENT ON FUNCTION concord.lock_remaining(text) IS
'Tells for how long this session may rely on a lock if this node is cut off now; it is renewed every third of concord.lease_duration.
name: 1 to 255 bytes. Returns 0 if the lock was lost, NULL if the session has none of that name.
Errors: 22023, 22004.';
