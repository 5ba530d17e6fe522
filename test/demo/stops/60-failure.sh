# A node dies and returns.

stop "A server is killed: its keys fail at once and clearly, all others go on"
key_of() { ask a "SELECT k FROM generate_series(1, 1000) AS k WHERE concord.locate(k) = '$1' LIMIT 1"; }
on_b=$(key_of b)
on_c=$(key_of c)
explain "kill -9 of the postmaster of node c"
kill -KILL "$(server_pid "$DEMO_WORK/c")"
await 30 a "SELECT state = 'down' FROM concord.nodes WHERE node = 'c'"
on a <<SQL
SELECT node, state FROM concord.nodes ORDER BY node;
\\timing on
SELECT * FROM concord.query($on_c, 'SELECT aid FROM pgbench_accounts WHERE aid = $on_c') AS (aid int);
\\timing off
SELECT * FROM concord.query($on_b, 'SELECT aid FROM pgbench_accounts WHERE aid = $on_b') AS (aid int);
SQL
expect '^ c +\| down'
expect '^ERROR: +08[0-9P]{3}: .*node "c"'
expect '^Time: [0-9]{1,3}\.'
expect "^ +$on_b\$"
seen

stop "The cluster changes while a node is away, and the node learns it by itself when it returns"
on a <<'SQL'
SELECT concord.set_node('b', zone => 'east');
SQL
explain "node c is started again"
run_server c
await 30 c "SELECT zone = 'east' FROM concord.nodes WHERE node = 'b'"
for node in a b c; do
	await 30 $node "SELECT count(*) = 3 AND bool_and(state = 'up') FROM concord.nodes"
done
on c <<SQL
SELECT node, zone, state, epoch FROM concord.nodes ORDER BY node;
SELECT * FROM concord.query($on_b, 'SELECT aid FROM pgbench_accounts WHERE aid = $on_b') AS (aid int);
SQL
expect '^ b +\| east'
expect "^ +$on_b\$"
on a <<SQL
SELECT * FROM concord.query($on_c, 'SELECT aid FROM pgbench_accounts WHERE aid = $on_c') AS (aid int);
SQL
expect "^ +$on_c\$"
seen
