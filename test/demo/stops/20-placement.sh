# Placement: slots, rebalance, locate; data where its key lives.

stop "4096 slots are spread evenly, and every node knows where a key lives"
explain "A key is hashed to one of 4096 slots and every slot has an owner. New nodes own nothing" \
	"until rebalance() gives them their share; it moves no slot that need not move."
on a <<'SQL'
SELECT source, target, count(*) AS slots FROM concord.rebalance_plan() GROUP BY 1, 2 ORDER BY 2;
SELECT concord.rebalance();
SELECT node, slots FROM concord.nodes ORDER BY node;
SQL
expect '^ a +\| +1366$'
expect '^ c +\| +1365$'
for node in b c; do
	await 20 $node "SELECT min(slots) = 1365 FROM concord.nodes"
done
on b <<'SQL'
SELECT key, concord.slot(key), concord.locate(key)
  FROM unnest('{alice,bob,42,3f2504e0-4f89-41d3-9a0c-0305e82c3301}'::text[]) AS key;
SELECT * FROM concord.query_all($$SELECT concord.locate(42), concord.locate('alice'::text)$$)
    AS (_node name, locate_42 name, locate_alice name) ORDER BY 1;
SQL
expect '^ c +\| [abc] +\| [abc]'
seen

stop "pgbench's accounts live where their key says"
explain "pgbench's own tables, made on each node; one statement, sent to all of them in one atomic" \
	"transaction, lets each node take the accounts that are its own."
for node in a b c; do
	pgbench -i -q -I dtp -h "$DEMO_SOCKETS" -p "${port[$node]}" -U postgres bank \
		>"$DEMO_WORK/pgbench.log" 2>&1 || troubles+=("pgbench -i failed on node $node")
done
on a <<'SQL'
SELECT * FROM concord.execute_all($$
    INSERT INTO pgbench_accounts
        SELECT aid, 1, 0, '' FROM generate_series(1, 100000) AS aid
        WHERE concord.locate(aid) = (SELECT node FROM concord.nodes WHERE is_local) $$) ORDER BY node;
SQL
expect '^ a +\| +3[0-9]{4}$'
expect '^ c +\| +3[0-9]{4}$'
on b <<'SQL'
SELECT * FROM concord.query_all('SELECT count(*), min(aid), max(aid) FROM pgbench_accounts')
    AS (_node name, accounts bigint, min int, max int) ORDER BY 1;
SELECT sum(accounts) FROM concord.query_all('SELECT count(*) FROM pgbench_accounts') AS (accounts bigint);
SQL
expect '^ 100000$'
seen
