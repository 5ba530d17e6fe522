# Atomic commit: a transfer over two nodes, and processes killed in the middle of one.

# Moves 7 from an account on b to one on c; the sum of all balances stays 105.
transfer_sql="SELECT concord.execute_on('b', 'UPDATE pgbench_accounts SET abalance = abalance - 7 WHERE aid = $(
	ask b 'SELECT min(aid) FROM pgbench_accounts')');
SELECT concord.execute_on('c', 'UPDATE pgbench_accounts SET abalance = abalance + 7 WHERE aid = $(
	ask c 'SELECT min(aid) FROM pgbench_accounts')');"
balances_sql="SELECT _node, sum(s) AS balance FROM concord.query_all('SELECT sum(abalance) FROM pgbench_accounts')
    AS (_node name, s bigint) GROUP BY ROLLUP (_node) ORDER BY _node;"

# begin_transfer: a session on a that has done the transfer but not committed it.  Sets gid, its global
# id, and session, its backend on a; what is written to file descriptor 8 runs there.
begin_transfer() {
	rm -f "$DEMO_WORK/fifo" "$DEMO_WORK/gid"
	mkfifo "$DEMO_WORK/fifo"
	psql -X -At -h "$DEMO_SOCKETS" -p "${port[a]}" -d bank -U postgres \
		<"$DEMO_WORK/fifo" >"$DEMO_WORK/session.out" 2>&1 &
	client=$!
	exec 8>"$DEMO_WORK/fifo"
	cat >&8 <<-END
	BEGIN;
	$transfer_sql
	\\o $DEMO_WORK/gid
	SELECT pg_backend_pid(), current_setting('concord.transaction');
	\\o
	SELECT 'ready';
	END
	until grep -q ready "$DEMO_WORK/session.out" || ! kill -0 $client 2>/dev/null; do
		sleep 0.05
	done
	IFS='|' read -r session gid <"$DEMO_WORK/gid"
}

# branch_backend <node>: the process that works there for the session
branch_backend() {
	ask "$1" "SELECT pid FROM pg_stat_activity WHERE application_name = 'concord/a/$session'"
}

end_transfer() {
	exec 8>&-
	wait $client
	printf '\n-- the client was told\n%s\n' "$(grep -v -e ready -e '^[01]$' "$DEMO_WORK/session.out")"
}

stop "A transfer between two nodes happens on both of them or on none"
explain "COMMIT prepares the transaction on both nodes, stores the decision here, and then finishes it" \
	"on both nodes. The client sees an ordinary transaction."
on a <<SQL
BEGIN;
$transfer_sql
SELECT concord.transaction_outcome(current_setting('concord.transaction'));
COMMIT;
$balances_sql
BEGIN;
$transfer_sql
ROLLBACK;
$balances_sql
SQL
expect '^ in progress$'
expect '^ c +\| +112$'
expect '^ +\| +105$'
seen

stop "The coordinator is killed between PREPARE and the decision: all nodes roll back, by themselves"
explain "The backend of node c is held (kill -STOP), so that the coordinator waits for its answer to" \
	"PREPARE while b has already prepared. Then the coordinator's backend gets kill -9, which makes its" \
	"whole server restart, and c goes on: it prepares for a coordinator that is dead."
begin_transfer
held=$(branch_backend c)
kill -STOP "$held"
echo 'COMMIT;' >&8
await 30 b 'SELECT count(*) = 1 FROM pg_prepared_xacts'
on b <<'SQL'
SELECT node, state, coordinator, participants FROM concord.transactions ORDER BY node;
SQL
expect '^ b +\| prepared +\| a '
expect '^ a +\| preparing +\| a +\| \{b,c\}'
kill -KILL "$session"
kill -CONT "$held"
end_transfer
for node in a b c; do
	await 30 $node 'SELECT count(*) = 0 FROM pg_prepared_xacts'
done
await 30 b "SELECT concord.transaction_outcome('$gid') = 'aborted'"
await 30 b "SELECT count(*) = 3 FROM concord.query_all('SELECT 1') AS (one int)"
on b <<SQL
SELECT concord.transaction_outcome('$gid');
SELECT * FROM concord.transactions;
$balances_sql
SQL
expect '^ aborted$'
expect '^ +\| +105$'
seen

stop "The coordinator and a participant are killed after the decision: it is carried out, by itself"
explain "Now c is held when it has prepared and b goes on: the decision is made, b has committed, c has" \
	"not. Then the backends of the coordinator and of c get kill -9, so both servers restart; c finds" \
	"the prepared branch, asks a for the decision, and commits."
begin_transfer
held=$(branch_backend b)
kill -STOP "$held"
echo 'COMMIT;' >&8
await 30 c 'SELECT count(*) = 1 FROM pg_prepared_xacts'
frozen=$(branch_backend c)
kill -STOP "$frozen"
kill -CONT "$held"
await 30 b "SELECT concord.transaction_outcome('$gid') = 'committed'"
await 30 b 'SELECT count(*) = 0 FROM pg_prepared_xacts'
kill -KILL "$session" "$frozen"
end_transfer
await 30 c 'SELECT count(*) = 0 FROM pg_prepared_xacts'
await 30 b "SELECT count(*) = 3 FROM concord.query_all('SELECT 1') AS (one int)"
await 30 b "SELECT concord.transaction_outcome('$gid') = 'committed'"
on b <<SQL
SELECT concord.transaction_outcome('$gid');
SELECT * FROM concord.transactions;
$balances_sql
SQL
expect '^ committed$'
expect '^ +\| +105$'
await 30 a "SELECT bool_and(state = 'up') FROM concord.nodes"
on c <<'SQL'
SELECT recovered FROM concord.transaction_stats;
SQL
expect '^ +[1-9]'
seen
