# shellcheck shell=bash disable=SC2034
# routed
#	Point read and single-row update by key through a node that does not own the key, against the same statement over
#	a direct connection to the owner, and through PL/Proxy and postgres_fdw.
#
# All keys belong to node b; clients of everything but "direct" are connected to node a. The accounts of all
# three nodes exist. Every way is asked once before anything is measured and must give the right answer; after
# the updates the balances must be exactly the transactions that pgbench counted.

ROWS=${ROWS:-300000}
KEYS=4096
WAYS=(direct pg_concord plproxy postgres_fdw)
declare -A WAY_NAME=([direct]="direct connection" [pg_concord]=pg_concord [plproxy]=PL/Proxy [postgres_fdw]=postgres_fdw)

routed_setup()
{
	local node here=$BENCH_HOME/routed case way

	for node in "${NODES[@]}"; do
		sql "$node" -f "$here/accounts.sql" -v node="$node" -v rows="$ROWS"
	done
	if [ "$(sql a "SELECT count(*) FROM pg_available_extensions WHERE name = 'plproxy'")" = 1 ]; then
		sql "$ENTRY" -f "$here/plproxy.sql" >/dev/null
	else
		WHY_NOT["plproxy"]="not installed"
	fi
	sql "$ENTRY" -f "$here/fdw.sql" -v port="${PORT[$OWNER]}"
	sql "$OWNER" -f "$here/keys.sql" -v keys="$KEYS" >"$work/keys"
	for case in read update; do
		for way in "${WAYS[@]}"; do
			cat "$work/keys" "$here/scripts/$case.$way.sql" >"$work/$case.$way"
		done
	done
}

routed_node()
{
	[ "$1" = direct ] && echo "$OWNER" || echo "$ENTRY"
}

# Each way must read what direct reads, and change what it is told to change.
routed_check()
{
	local way aid before after here=$BENCH_HOME/routed/scripts

	aid=$(sql "$OWNER" "SELECT max(aid) FROM pgbench_accounts")
	for way in "${WAYS[@]}"; do
		[ -z "${WHY_NOT[$way]:-}" ] || continue
		before=$(sql "$OWNER" "SELECT abalance FROM pgbench_accounts WHERE aid = $aid")
		[ "$(sql "$(routed_node "$way")" -f "$here/read.$way.sql" -v aid="$aid")" = "$before" ] ||
			{ note "bench: $way does not read what direct reads"; WHY_NOT["$way"]=failed; FAILED=1; continue; }
		sql "$(routed_node "$way")" -f "$here/update.$way.sql" -v aid="$aid" >/dev/null
		after=$(sql "$OWNER" "SELECT abalance FROM pgbench_accounts WHERE aid = $aid")
		[ "$after" = $((before + 1)) ] ||
			{ note "bench: $way does not update"; WHY_NOT["$way"]=failed; FAILED=1; }
	done
	sql "$OWNER" "UPDATE pgbench_accounts SET abalance = 0 WHERE aid = $aid"
}

routed_measure()
{
	local case clients way entries

	for case in read update; do
		entries=()
		for way in "${WAYS[@]}"; do
			entries+=("$way=$(routed_node "$way"):$work/$case.$way")
		done
		for clients in 1 8; do
			note "bench: routed $case, $clients client(s)"
			measure routed "$case" "$clients" "${entries[@]}"
		done
	done
}

# What the updates left must be what was counted, and no branch may be open.
routed_verify()
{
	local node sum=0 open counted

	for node in "${NODES[@]}"; do
		sum=$((sum + $(sql "$node" "SELECT sum(abalance) FROM pgbench_accounts")))
		open=$(sql "$node" "SELECT count(*) FROM pg_prepared_xacts")
		[ "$open" = 0 ] || { report "**Node $node was left with $open prepared transactions.**"; FAILED=1; }
	done
	counted=$(transactions_of routed update)
	if [ "$sum" = "$counted" ]; then
		report "The balances add up to the $counted updates counted by pgbench."
	else
		report "**The balances add up to $sum, pgbench counted $counted updates.**"
		FAILED=1
	fi
}

routed_table()
{
	local case=$1 clients=$2 way s

	report ""
	report "| $case, $clients client(s) | latency, ms | per second | latency : direct | throughput : direct |"
	report "|---|---|---|---|---|"
	for way in "${WAYS[@]}"; do
		if [ -n "${WHY_NOT[$way]:-}" ]; then
			report "| ${WAY_NAME[$way]} | ${WHY_NOT[$way]} | n/a | n/a | n/a |"
			continue
		fi
		read -r -a s <<<"$(summary routed "$case" "$clients" "$way")"
		report "| ${WAY_NAME[$way]} | ${s[0]} | ${s[1]} | ${s[2]} (${s[3]} to ${s[4]}) | ${s[5]} (${s[6]} to ${s[7]}) |"
	done
}

# One line of the table of targets: title, index into summary's fields, case, clients, operator, limit
routed_target()
{
	local title=$1 field=$2 case=$3 clients=$4 op=$5 limit=$6 s

	[ -z "${WHY_NOT[pg_concord]:-}" ] || return 0
	read -r -a s <<<"$(summary routed "$case" "$clients" pg_concord)"
	report "| $title | $op $limit | ${s[$field]} | $(verdict "${s[$field]}" "$op" "$limit") |"
}

# pg_concord's throughput must be above the rival's, in each of the four cases.
routed_ahead()
{
	local rival=$1 case clients s r ratio

	[ -z "${WHY_NOT[$rival]:-}${WHY_NOT[pg_concord]:-}" ] || return 0
	for case in read update; do
		for clients in 1 8; do
			read -r -a s <<<"$(summary routed "$case" "$clients" pg_concord)"
			read -r -a r <<<"$(summary routed "$case" "$clients" "$rival")"
			ratio=$(awk -v a="${s[5]}" -v b="${r[5]}" 'BEGIN { printf "%.2f", a / b }')
			report "| $case, $clients client(s): throughput : ${WAY_NAME[$rival]} | >= 1 | $ratio | $(verdict "$ratio" '>=' 1) |"
		done
	done
}

routed_run()
{
	routed_setup
	routed_check
	routed_measure
	report ""
	report "## A statement for a key of another node"
	report ""
	report "Read: \`SELECT abalance ... WHERE aid = \$1\`; update: \`SET abalance = abalance + 1 ... WHERE aid = \$1\`, autocommit."
	report "Clients of \"direct\" are connected to the key's owner, all others to a node that does not own it."
	report "postgres_fdw reads a foreign table of the owner, without any routing. PL/Proxy and postgres_fdw are not atomic"
	report "over nodes. $KEYS keys of one owner, out of $ROWS rows on three nodes."
	for case in read update; do
		for clients in 1 8; do
			routed_table "$case" "$clients"
		done
	done
	report ""
	report "| target | limit | measured | |"
	report "|---|---|---|---|"
	routed_target "read, 1 client: latency : direct" 2 read 1 '<=' 1.9
	routed_target "read, 8 clients: throughput : direct" 5 read 8 '>=' 0.25
	routed_target "update, 1 client: latency : direct" 2 update 1 '<=' 1.5
	routed_ahead plproxy
	routed_ahead postgres_fdw
	report ""
	routed_verify
}
