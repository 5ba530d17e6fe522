BEGIN;
SELECT concord.execute(:first, 'UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = $1', :first);
SELECT concord.execute(:second, 'UPDATE pgbench_accounts SET abalance = abalance - 1 WHERE aid = $1', :second);
COMMIT;
