-- This node's share of the accounts: those whose key it owns. Variables: node, rows.
CREATE TABLE pgbench_accounts (
	aid int PRIMARY KEY,
	bid int NOT NULL DEFAULT 1,
	abalance int NOT NULL DEFAULT 0,
	filler char(84) NOT NULL DEFAULT ''
);
INSERT INTO pgbench_accounts (aid)
SELECT aid FROM generate_series(1, :rows) AS aid WHERE concord.locate(aid) = :'node';
VACUUM (ANALYZE, FREEZE) pgbench_accounts;
-- what PL/Proxy calls to write (it sends SELECT only); PL/pgSQL keeps the plan, an SQL function would not
CREATE FUNCTION add_one(key int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	result int;
BEGIN
	UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = key RETURNING abalance INTO result;
	RETURN result;
END $$;
