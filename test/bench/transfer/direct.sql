\set low least(:first, :second)
\set high greatest(:first, :second)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :low;
UPDATE pgbench_accounts SET abalance = abalance - 1 WHERE aid = :high;
COMMIT;
