# Registers: one value for all nodes, while a majority answers.

stop "A register is the same on all nodes, and goes on when one of its acceptors is gone"
await 30 a "SELECT count(*) = 3 AND bool_and(state = 'acceptor') FROM concord.acceptors"
explain "A compare-and-set: the last argument is the version that is expected, 0 for none."
on a <<'SQL'
SELECT node, state FROM concord.acceptors ORDER BY node;
SELECT concord.register_set('leader', 'worker 7', 0);
SQL
expect '^ +1$'
explain "Another node reads it. Whoever has an old version is refused."
on b <<'SQL'
SELECT * FROM concord.register_get('leader');
SELECT concord.register_set('leader', 'worker 9', 1);
SELECT concord.register_set('leader', 'worker 4', 1);
SQL
expect '^ worker 7 +\| +1$'
expect '^ERROR: +PC007: '
explain "kill -9 of the postmaster of node c, which is one of the three acceptors"
kill -KILL "$(server_pid "$DEMO_WORK/c")"
on b <<'SQL'
SELECT concord.register_set('leader', 'worker 2', 2);
SQL
expect '^ +3$'
on a <<'SQL'
SELECT * FROM concord.register_get('leader');
SQL
expect '^ worker 2 +\| +3$'
run_server c
for node in a b c; do
	await 30 $node "SELECT count(*) = 3 AND bool_and(state = 'up') FROM concord.nodes"
done
explain "Back again, it knows what it missed: each read asks a majority."
on c <<'SQL'
SELECT * FROM concord.register_get('leader');
SQL
expect '^ worker 2 +\| +3$'
seen
