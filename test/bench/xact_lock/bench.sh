# shellcheck shell=bash disable=SC2034
# xact_lock
#	A transaction that takes a lock on a name of another node and does nothing else, against one that takes an advisory
#	lock over a direct connection to that node.
#
# Each client has a lock of its own: nobody waits. All names belong to node b; clients of "pg_concord" are connected to node a.

XACT_LOCK_WAYS=(direct pg_concord)

# A line that sets :lock by client; names are numbers, so that they are advisory locks' numbers too.
xact_lock_names()
{
	sql "$OWNER" "SELECT '\\set lock CASE ' ||
			string_agg(format('WHEN :client_id = %s THEN %s', client, n), ' ' ORDER BY client) || ' END'
		FROM (SELECT n, row_number() OVER (ORDER BY n) - 1 AS client FROM generate_series(1, 1000) AS n
			WHERE concord.locate(n) = '$OWNER' LIMIT 8) AS names"
}

xact_lock_setup()
{
	local way

	for way in "${XACT_LOCK_WAYS[@]}"; do
		{ xact_lock_names; cat "$BENCH_HOME/xact_lock/scripts/lock.$way.sql"; } >"$work/lock.$way"
	done
}

# The lock must be one on the owner.
xact_lock_check()
{
	local n seen

	n=$(sql "$OWNER" "SELECT min(n) FROM generate_series(1, 1000) AS n WHERE concord.locate(n) = '$OWNER'")
	seen=$(sql "$ENTRY" "BEGIN; SELECT concord.xact_lock('$n');
		SELECT locks FROM concord.query_on('$OWNER', 'SELECT count(*) FROM pg_locks WHERE locktype = ''advisory'' AND objsubid <> 20550')
			AS (locks bigint); COMMIT" | tail -n 1)
	[ "$seen" = 2 ] || { note "bench: xact_lock does not lock on the owner"; WHY_NOT["pg_concord"]=failed; FAILED=1; }
}

xact_lock_verify()
{
	local node left

	for node in "${NODES[@]}"; do
		left=$(sql "$node" "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid <> 20550")
		[ "$left" = 0 ] || { report "**Node $node was left with $left locks.**"; FAILED=1; }
	done
}

xact_lock_run()
{
	local clients way s

	xact_lock_setup
	xact_lock_check
	for clients in 1 8; do
		note "bench: xact_lock, $clients client(s)"
		measure xact_lock lock "$clients" "direct=$OWNER:$work/lock.direct" "pg_concord=$ENTRY:$work/lock.pg_concord"
	done
	report ""
	report "## A transaction lock on another node"
	report ""
	report "BEGIN, \`xact_lock(name)\`, COMMIT through a node that does not own the name; direct: BEGIN, \`pg_advisory_xact_lock(number)\`,"
	report "COMMIT over a connection to the owner. Nobody waits for a lock."
	report ""
	report "| clients | | latency, ms | per second | latency : direct | throughput : direct |"
	report "|---|---|---|---|---|---|"
	for clients in 1 8; do
		for way in "${XACT_LOCK_WAYS[@]}"; do
			[ -z "${WHY_NOT[$way]:-}" ] || continue
			read -r -a s <<<"$(summary xact_lock lock "$clients" "$way")"
			report "| $clients | $way | ${s[0]} | ${s[1]} | ${s[2]} (${s[3]} to ${s[4]}) | ${s[5]} (${s[6]} to ${s[7]}) |"
		done
	done
	report ""
	report "| target | limit | measured | |"
	report "|---|---|---|---|"
	if [ -z "${WHY_NOT[pg_concord]:-}" ]; then
		read -r -a s <<<"$(summary xact_lock lock 1 pg_concord)"
		report "| lock, 1 client: latency : direct | <= 2.2 | ${s[2]} | $(verdict "${s[2]}" '<=' 2.2) |"
	fi
	report ""
	xact_lock_verify
}
