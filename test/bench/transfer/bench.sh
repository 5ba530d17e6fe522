# shellcheck shell=bash disable=SC2034,SC2154
# transfer
#	Two updates by key, on two nodes, in one transaction: through a third node and through one of the two, against the
#	same two updates on one server, through postgres_fdw, which is not atomic, and by hand: a client of both nodes that
#	prepares and commits on one after the other (by_hand.c), with nobody to finish what it leaves when it dies.
#
# The keys of the first update belong to node b, those of the second to node c ("direct": both to b). Each transfer adds
# to one balance what it takes from the other, so the sum over all nodes must not have changed, and nothing may be left
# prepared.

TRANSFER_WAYS=(direct third one_of_two by_hand postgres_fdw)
declare -A TRANSFER_NAME=([direct]="one server" [third]="pg_concord, through a third node"
	[one_of_two]="pg_concord, through one of the two" [by_hand]="PREPARE and COMMIT PREPARED by hand"
	[postgres_fdw]="postgres_fdw (not atomic)")
TRANSFER_OTHER=c

# A script: draws :first from b and :second from a node, in one order for all, so that none waits for another in a circle.
transfer_script()
{
	local way=$1 second=$2

	sql "$OWNER" -f "$BENCH_HOME/routed/keys.sql" -v keys=4096 | sed 's/^\\set aid/\\set first/'
	sql "$second" -f "$BENCH_HOME/routed/keys.sql" -v keys=4096 |
		sed -e 's/^\\set i /\\set j /' -e 's/:i /:j /g' -e 's/^\\set aid/\\set second/'
	cat "$BENCH_HOME/transfer/$way.sql"
}

by_hand_build()
{
	local node to=()

	for node in "$OWNER" "$TRANSFER_OTHER"; do
		to+=("host=$CLIENT_HOST port=${PORT[$node]}")
	done
	gcc -O2 -Wall -Wextra -I "$("$PG_CONFIG" --includedir)" "$BENCH_HOME/transfer/by_hand.c" -o "$work/by_hand" \
		-L "$("$PG_CONFIG" --libdir)" -lpq
	printf '#!/bin/sh\nexec "%s" "%s" "%s" "$@"\n' "$work/by_hand" "${to[@]}" >"$work/transfer.by_hand"
	chmod +x "$work/by_hand" "$work/transfer.by_hand"
}

transfer_setup()
{
	local node way second

	for node in "${NODES[@]}"; do
		[ "$(sql "$node" "SELECT to_regclass('pgbench_accounts') IS NULL")" = f ] ||
			sql "$node" -f "$BENCH_HOME/routed/accounts.sql" -v node="$node" -v rows="${ROWS:-300000}"
	done
	sql "$ENTRY" -f "$BENCH_HOME/transfer/fdw.sql" -v first="${PORT[$OWNER]}" -v second="${PORT[$TRANSFER_OTHER]}"
	by_hand_build
	for way in "${TRANSFER_WAYS[@]}"; do
		[ "$way" != by_hand ] || continue
		second=$TRANSFER_OTHER
		[ "$way" != direct ] || second=$OWNER
		transfer_script "$way" "$second" >"$work/transfer.$way"
	done
}

transfer_node()
{
	case $1 in
		direct | one_of_two) echo "$OWNER" ;;
		*) echo "$ENTRY" ;;
	esac
}

transfer_sum()
{
	local node sum=0

	for node in "${NODES[@]}"; do
		sum=$((sum + $(sql "$node" "SELECT sum(abalance) FROM pgbench_accounts")))
	done
	echo "$sum"
}

transfer_table()
{
	local clients=$1 way s

	report ""
	report "| transfer, $clients client(s) | latency, ms | per second | latency : one server | throughput : one server |"
	report "|---|---|---|---|---|"
	for way in "${TRANSFER_WAYS[@]}"; do
		if [ -n "${WHY_NOT[$way]:-}" ]; then
			report "| ${TRANSFER_NAME[$way]} | ${WHY_NOT[$way]} | n/a | n/a | n/a |"
			continue
		fi
		read -r -a s <<<"$(summary transfer transfer "$clients" "$way")"
		report "| ${TRANSFER_NAME[$way]} | ${s[0]} | ${s[1]} | ${s[2]} (${s[3]} to ${s[4]}) | ${s[5]} (${s[6]} to ${s[7]}) |"
	done
}

transfer_run()
{
	local before after way clients node open entries=() s

	transfer_setup
	before=$(transfer_sum)
	for way in "${TRANSFER_WAYS[@]}"; do
		entries+=("$way=$(transfer_node "$way"):$work/transfer.$way")
	done
	for clients in 1 8; do
		note "bench: transfer, $clients client(s)"
		measure transfer transfer "$clients" "${entries[@]}"
	done
	report ""
	report "## A transfer between two nodes"
	report ""
	report "BEGIN, two updates by key on different nodes, COMMIT."
	for clients in 1 8; do
		transfer_table "$clients"
	done
	report ""
	report "| target | limit | measured | |"
	report "|---|---|---|---|"
	read -r -a s <<<"$(summary transfer transfer 1 third)"
	report "| transfer, 1 client: latency : one server | <= 2.3 | ${s[2]} | $(verdict "${s[2]}" '<=' 2.3) |"
	read -r -a s <<<"$(summary transfer transfer 8 third)"
	report "| transfer, 8 clients: throughput : one server | >= 0.4 | ${s[5]} | $(verdict "${s[5]}" '>=' 0.4) |"
	after=$(transfer_sum)
	report ""
	if [ "$before" = "$after" ]; then
		report "The balances add up to the same sum as before."
	else
		report "**The balances add up to $after, before to $before.**"
		FAILED=1
	fi
	for node in "${NODES[@]}"; do
		open=$(sql "$node" "SELECT count(*) FROM pg_prepared_xacts")
		[ "$open" = 0 ] || { report "**Node $node was left with $open prepared transactions.**"; FAILED=1; }
	done
}
