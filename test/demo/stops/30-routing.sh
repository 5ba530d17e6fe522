# Routing: query, execute, query_all, errors, transactions.

stop "Any node reads and writes any key"
explain "query() and execute() take the key first and run the statement on its owner, inside the" \
	"caller's transaction: what is rolled back here is rolled back there."
on c <<'SQL'
SELECT aid, concord.locate(aid) AS lives_on FROM generate_series(1, 5) AS aid;
SELECT concord.execute(1, 'UPDATE pgbench_accounts SET abalance = abalance + $2 WHERE aid = $1', 1, 100);
BEGIN;
SELECT concord.execute(1, 'UPDATE pgbench_accounts SET abalance = abalance + $2 WHERE aid = $1', 1, 5);
SAVEPOINT s;
SELECT concord.execute(1, 'UPDATE pgbench_accounts SET abalance = -1 WHERE aid = $1', 1);
ROLLBACK TO s;
COMMIT;
SQL
expect '^COMMIT$'
for node in a b c; do
	on $node <<'SQL'
SELECT * FROM concord.query(1, 'SELECT aid, abalance FROM pgbench_accounts WHERE aid = $1', 1)
    AS (aid int, abalance int);
SQL
	expect '^ +1 \| +105$'
done
seen

stop "Statements run on all nodes at once, and each row says where it comes from"
on a <<'SQL'
SELECT * FROM concord.query_all(
           'SELECT current_setting(''cluster_name''), count(*), sum(abalance)
              FROM pgbench_accounts WHERE aid BETWEEN $1 AND $2', 1, 1000)
    AS (_node name, server text, accounts bigint, total bigint) ORDER BY 1;
SQL
expect '^ c +\| c +\| +3[0-9]{2} '
seen

stop "Notices and errors come from where they happened, with the node's name"
on a <<'SQL'
SELECT concord.execute_on('b', $$DO 'BEGIN RAISE NOTICE ''hello from b''; END'$$);
SELECT concord.execute_on('c', 'INSERT INTO pgbench_branches (bid, bbalance) VALUES (1, 0)');
SELECT concord.execute_on('c', 'INSERT INTO pgbench_branches (bid, bbalance) VALUES (1, 0)');
SELECT * FROM concord.query_on('nowhere', 'SELECT 1') AS (one int);
SQL
expect '^NOTICE: .*hello from b'
expect 'duplicate key value violates unique constraint "pgbench_branches_pkey"'
expect 'node "?c'
expect '^ERROR: +23505: '
expect '^ERROR: +42704: '
seen
