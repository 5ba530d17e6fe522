# Lease locks and fences: a holder that stands still.

stop "A server stands still with a lock: the next holder gets it, and the old one is refused"
for node in a b c; do
	on $node <<'SQL' >>"$DEMO_WORK/start.log"
ALTER SYSTEM SET concord.lease_duration = '2s';
SELECT pg_reload_conf();
SQL
	await 30 $node "SELECT count(*) = 3 FROM concord.acceptors"
done
explain "A session on c takes a lock. It gets a fence, shows it where the data is, on a, and begins to write here."
on a <<'SQL'
CREATE TABLE report (line text);
SQL
coproc LOCK_HOLDER {
	psql -X -Atq -h "$DEMO_SOCKETS" -p "${port[c]}" -d bank -U postgres -v VERBOSITY=verbose 2>&1
}
holder_pid=$LOCK_HOLDER_PID
holder_in=${LOCK_HOLDER[1]}
exec {holder_out}<&"${LOCK_HOLDER[0]}"
# holder <SQL>: its answer, one line
holder() {
	local answer=''
	printf '%s\n' "$1" >&"$holder_in"
	read -r -t 60 -u "$holder_out" answer
	printf '\n-- on node c, the holder\n%s\n%s\n' "$1" "$answer"
	output=$answer
}
holder "SELECT concord.lock('report');"
expect '^[0-9]+$'
fence=$output
holder "SELECT concord.execute_on('a', \$\$SELECT concord.check_fence('report', $fence)\$\$);"
expect '^1$'
holder "BEGIN; CREATE TABLE report_c (line text); SELECT 'written, not committed';"
explain "Now all processes of node c stand still (SIGSTOP), as in a machine that is suspended. A session on b" \
	"asks for the lock, and gets it when the lease of c is over."
mapfile -t frozen < <(server_pid "$DEMO_WORK/c" && pgrep -P "$(server_pid "$DEMO_WORK/c")")
kill -STOP "${frozen[@]}"
on b <<'SQL'
\timing on
SELECT concord.lock('report') AS fence \gset
\timing off
SELECT :fence AS fence, concord.execute_on('a', format('SELECT concord.check_fence(''report'', %s)', :fence));
SELECT concord.execute_on('a', $$INSERT INTO report VALUES ('by the next holder')$$);
SQL
expect '^ +[0-9]+ \| +1$'
explain "Node c goes on. Its session cannot commit, and its fence is refused where the data is."
kill -CONT "${frozen[@]}"
holder "COMMIT;"
expect 'PC008: lock "report" was lost'
while read -r -t 1 -u "$holder_out" line; do printf '%s\n' "$line"; done
holder "SELECT concord.execute_on('a', \$\$SELECT concord.check_fence('report', $fence)\$\$);"
expect 'PC005: fence '
while read -r -t 1 -u "$holder_out" line; do printf '%s\n' "$line"; done
holder "SELECT concord.lock_remaining('report'), concord.unlock('report');"
expect '^00:00:00\|t$'
printf '\\q\n' >&"$holder_in"
wait "$holder_pid" 2>/dev/null
for node in a b c; do
	on $node <<'SQL' >>"$DEMO_WORK/start.log"
ALTER SYSTEM RESET concord.lease_duration;
SELECT pg_reload_conf();
SQL
done
on a <<'SQL'
SELECT line FROM report;
DROP TABLE report;
SQL
expect '^ by the next holder$'
seen
