# shellcheck shell=bash disable=SC2034,SC2153,SC2154
# lease
#	Lease locks and registers next to etcd with three members on the same machine and disk: lock and unlock that nobody
#	contends for, handing a lock over to who waits, and compare-and-set of a register.
#
# etcd is Debian's, as it comes: fsync on, no authentication, no TLS. It is asked through its JSON gateway, so what the
# gateway takes is measured too (a read from a member's memory is little more), and ratios are given with and without.
# Sessions of pg_concord are connected to one node, clients of etcd to its leader; those who hand over a lock to all
# three, in turn. Where etcd cannot be installed there are no ratios. A run takes ten minutes with run.sh's defaults.

LEASE_WAYS=(etcd pg_concord)
LEASE_CASES=(lock set)
LEASE_CLIENTS=(1 16)
LEASE_WAITERS=(2 50)
LEASE_COUNTED=3				# seconds, of the run in which rounds and flushes are counted
LEASE_PORTS=()				# of etcd's members, to clients
declare -A LEASE_SETTLE=([2]=50 [50]=400)	# ms until all wait
declare -A LEASE_NAME=([lock]="lock and unlock" [set]="compare-and-set" [get]="read, confirmed by a majority"
	[read]="read from memory" [etcd]="etcd" [pg_concord]="pg_concord")

# ---- etcd

lease_free_port()
{
	local port

	while :; do
		port=$((10240 + (RANDOM * 32768 + RANDOM) % 20000))
		! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || continue
		echo "$port"
		return
	done
}

lease_start_etcd()
{
	local member url i peers=() cluster='' try

	for i in 0 1 2; do
		LEASE_PORTS[i]=$(lease_free_port)
		peers[i]=$(lease_free_port)
		cluster+="${cluster:+,}m$i=http://127.0.0.1:${peers[i]}"
	done
	for i in 0 1 2; do
		member=$work/etcd.$i
		url=http://127.0.0.1
		as_server mkdir -m 0700 "$member"
		(cd / && exec "${as_user[@]}" env HOME="$work" setpriv --pdeathsig KILL etcd --name "m$i" --data-dir "$member/data" \
			--listen-client-urls "$url:${LEASE_PORTS[i]}" --advertise-client-urls "$url:${LEASE_PORTS[i]}" \
			--listen-peer-urls "$url:${peers[i]}" --initial-advertise-peer-urls "$url:${peers[i]}" \
			--initial-cluster "$cluster" --initial-cluster-state new) >"$work/etcd.$i.log" 2>&1 &
		OTHER_SERVERS+=($!)
		disown $!				# its end is no news
	done
	for try in $(seq 1 100); do
		! lease_client leader etcd "${LEASE_PORTS[@]}" >/dev/null 2>&1 || return 0
		sleep 0.2
	done
	tail -n 5 "$work"/etcd.*.log >&2
	note "bench: etcd has no leader after $try looks"
	return 1
}

lease_stop_etcd()
{
	[ ${#OTHER_SERVERS[@]} -eq 0 ] || kill -KILL "${OTHER_SERVERS[@]}" 2>/dev/null || true
	OTHER_SERVERS=()
}

lease_etcd()
{
	local log=$work/etcd.install

	if ! (want etcd-server command -v etcd; install_packages) >"$log" 2>&1; then
		tail -n 3 "$log" >&2
		WHY_NOT[etcd]="not available"
	elif ! lease_start_etcd; then
		WHY_NOT[etcd]="not available"
	fi
}

# ---- what is run

lease_client()
{
	"$work/lease_client" "$@"
}

lease_addresses()
{
	local node

	if [ "$1" = etcd ]; then
		printf '%s\n' "${LEASE_PORTS[@]}"
		return
	fi
	for node in "${NODES[@]}"; do
		echo "host=$CLIENT_HOST port=${PORT[$node]}"
	done
}

# A program as measure() wants it, for a case and a contestant.
lease_script()
{
	local case=$1 way=$2 script=$work/lease.$1.$2

	if [ "$way" = etcd ]; then
		# shellcheck disable=SC2016
		echo "#!/bin/bash
set -eu
leader=\$('$work/lease_client' leader etcd ${LEASE_PORTS[*]})
exec '$work/lease_client' $case \"\$2\" \"\$1\" etcd \"\$leader\""
	else
		echo "#!/bin/bash
exec '$work/lease_client' $case \"\$2\" \"\$1\" pg 'host=$CLIENT_HOST port=${PORT[$ENTRY]}'"
	fi >"$script"
	chmod +x "$script"
}

lease_setup()
{
	local log=$work/lease.log case way try

	cp "$BENCH_HOME/lease/client.c" "$work/lease_client.c"
	as_server gcc -std=c99 -O2 -Wall -Wextra -Werror -I"$("$PG_CONFIG" --includedir)" "$work/lease_client.c" \
		-o "$work/lease_client" -L"$("$PG_CONFIG" --libdir)" -lpq -pthread >"$log" 2>&1 ||
		{ cat "$log" >&2; die "the client of the bench \"lease\" was not compiled"; }
	for try in $(seq 1 300); do
		[ "$(sql a "SELECT count(*) FROM concord.acceptors WHERE state = 'acceptor'")" != 3 ] || break
		sleep 0.1
	done
	[ "$try" != 300 ] || die "there are no three acceptors"
	lease_etcd
	for case in "${LEASE_CASES[@]}" get read; do
		for way in "${LEASE_WAYS[@]}"; do
			lease_script "$case" "$way"
		done
	done
	BASELINE=etcd
	[ -z "${WHY_NOT[etcd]:-}" ] || BASELINE=pg_concord
}

lease_measure()
{
	note "bench: lease $1, $2 client(s)"
	measure lease "$1" "$2" "etcd=a:$work/lease.$1.etcd" "pg_concord=a:$work/lease.$1.pg_concord"
}

# ---- hand-over

# Lines of lease.handover.<waiters>.<contestant>: see client.c
lease_handover()
{
	local waiters=$1 round i way n before rounds=$((SLICE > 1 ? SLICE : 1)) addresses

	[ "$waiters" -gt 10 ] || rounds=$((rounds * 10))
	for ((round = 0; round <= ROUNDS; round++)); do
		for i in 0 1; do
			way=${LEASE_WAYS[(i + round) % 2]}
			[ -z "${WHY_NOT[$way]:-}" ] || continue
			readarray -t addresses <<<"$(lease_addresses "$way")"
			await_quiet
			before=$(ticks)
			if ! timeout 120 "$work/lease_client" handover "$rounds" "$waiters" "${LEASE_SETTLE[$waiters]}" \
				"$([ "$way" = etcd ] && echo etcd || echo pg)" "${addresses[@]}" >"$work/handover.out"; then
				WHY_NOT["$way"]=failed
				FAILED=1
				continue
			fi
			[ "$round" = 0 ] || cat "$work/handover.out" >>"$work/lease.handover.$waiters.$way"
			printf 'lease\thandover\t%s\t%s\t%s\t\t\t\t%s\n' "$waiters" "$way" "$round" \
				"$(others "$before" "$(ticks)")" >>"$work/samples"
		done
	done
}

# lease_percentiles <waiters> <contestant> <column>: p50 and p99 in ms, and how many there were
lease_percentiles()
{
	sort -n -k "$3,$3" "$work/lease.handover.$1.$2" | awk -v c="$3" '
		{ v[NR] = $c }
		END { printf "%.3f %.3f %d\n", v[int((NR + 1) / 2)] / 1000, v[int(NR * 0.99 + 0.5)] / 1000, NR }'
}

# ---- rounds and flushes

# Of all nodes: calls of the acceptors' function, flushes of WAL, commits.  What sessions count reaches the views when a
# transaction ends more than a second after the last time.
lease_counters()
{
	local node flushes="SELECT wal_sync FROM pg_stat_wal"

	[ "$(sql a "SHOW server_version_num")" -lt 180000 ] ||
		flushes="SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal'"
	sleep 1.2
	sql a "SELECT concord.register_get('bench/counted')" >/dev/null
	sleep 0.2
	for node in "${NODES[@]}"; do
		sql "$node" "SELECT coalesce((SELECT sum(calls) FROM pg_stat_user_functions WHERE funcname = '_registers'), 0),
			($flushes), (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())"
	done | awk -F '|' '{ for (i = 1; i <= 3; i++) s[i] += $i } END { print s[1], s[2], s[3] }'
}

# Lines of lease.counts: case, rounds, flushes and commits of one operation on each acceptor, without what idle nodes do.
lease_count()
{
	local case node idle before after n

	for node in "${NODES[@]}"; do
		sql "$node" "ALTER SYSTEM SET track_functions = 'all'"
		sql "$node" "SELECT pg_reload_conf()" >/dev/null
	done
	before=$(lease_counters)
	sleep "$LEASE_COUNTED"
	idle=$(lease_counters)
	for case in "${LEASE_CASES[@]}" get; do
		note "bench: lease $case, counting"
		after=$(lease_counters)
		n=$("$work/lease.$case.pg_concord" 1 "$LEASE_COUNTED" | awk '/^number of/ { print $NF }')
		echo "$case $n $before $idle $after $(lease_counters)" | awk '{
			n = ($2 + 5) * 3		# and what the client has done to warm up
			printf "%s", $1
			for (i = 0; i < 3; i++) printf " %.2f", ($(12 + i) - $(9 + i) - ($(6 + i) - $(3 + i))) / n
			print "" }' >>"$work/lease.counts"
	done
	for node in "${NODES[@]}"; do
		sql "$node" "ALTER SYSTEM RESET track_functions"
		sql "$node" "SELECT pg_reload_conf()" >/dev/null
	done
}

# ---- the report

lease_value()				# case, clients, contestant, column of summary: 1 = p50, 2 = per second, 3 = p50 : etcd's
{
	summary lease "$1" "$2" "$3" | awk -v c="$4" '{ print $c }'
}

lease_table()
{
	local case=$1 clients way s

	report ""
	report "| ${LEASE_NAME[$case]} | clients | p50, ms | p99, ms | per second | p50 : etcd | per second : etcd |"
	report "|---|---|---|---|---|---|---|"
	for clients in "${LEASE_CLIENTS[@]}"; do
		for way in "${LEASE_WAYS[@]}"; do
			if [ -n "${WHY_NOT[$way]:-}" ]; then
				report "| ${LEASE_NAME[$way]} | $clients | ${WHY_NOT[$way]} | n/a | n/a | n/a | n/a |"
				continue
			fi
			read -r -a s <<<"$(summary lease "$case" "$clients" "$way")"
			report "| ${LEASE_NAME[$way]} | $clients | ${s[0]} | $(p99_of lease "$case" "$clients" "$way") | ${s[1]} |" \
				"${s[2]} (${s[3]} to ${s[4]}) | ${s[5]} (${s[6]} to ${s[7]}) |"
		done
	done
}

# p50 of pg_concord : etcd's less the requests' share of the gateway
lease_without_gateway()
{
	local case=$1 clients=$2 requests=$3

	awk -v pg="$(lease_value "$case" "$clients" pg_concord 1)" -v etcd="$(lease_value "$case" "$clients" etcd 1)" \
		-v gateway="$(lease_value read "$clients" etcd 1)" -v n="$requests" 'BEGIN {
			less = etcd - n * gateway
			printf "%.3f %.2f\n", less, (less > 0 ? pg / less : 0) }'
}

lease_gateway_table()
{
	local clients case s requests

	[ -z "${WHY_NOT[etcd]:-}${WHY_NOT[pg_concord]:-}" ] || return 0
	report ""
	report "| what etcd's gateway adds, at most | clients | a read from memory, p50, ms | etcd's p50 without, ms | p50 : that |"
	report "|---|---|---|---|---|"
	for case in "${LEASE_CASES[@]}"; do
		requests=1
		[ "$case" != lock ] || requests=2
		for clients in "${LEASE_CLIENTS[@]}"; do
			read -r -a s <<<"$(lease_without_gateway "$case" "$clients" "$requests")"
			report "| ${LEASE_NAME[$case]}: $requests request(s) | $clients | $(lease_value read "$clients" etcd 1) | ${s[0]} | ${s[1]} |"
		done
	done
}

lease_handover_table()
{
	local waiters way returned called

	report ""
	report "| hand-over | waiters | from unlock's return, p50, ms | p99 | from unlock's call, p50 | p99 | hand-overs |"
	report "|---|---|---|---|---|---|---|"
	for waiters in "${LEASE_WAITERS[@]}"; do
		for way in "${LEASE_WAYS[@]}"; do
			if [ -n "${WHY_NOT[$way]:-}" ]; then
				report "| ${LEASE_NAME[$way]} | $waiters | ${WHY_NOT[$way]} | n/a | n/a | n/a | n/a |"
				continue
			fi
			read -r -a returned <<<"$(lease_percentiles "$waiters" "$way" 1)"
			read -r -a called <<<"$(lease_percentiles "$waiters" "$way" 2)"
			report "| ${LEASE_NAME[$way]} | $waiters | ${returned[0]} | ${returned[1]} | ${called[0]} | ${called[1]} | ${called[2]} |"
		done
	done
}

lease_count_table()
{
	local case rounds flushes commits

	report ""
	report "On each of the three acceptors, 1 client; below a whole number since one that lags is passed over."
	report ""
	report "| one operation of pg_concord | rounds | flushes of WAL | commits |"
	report "|---|---|---|---|"
	while read -r case rounds flushes commits; do
		report "| ${LEASE_NAME[$case]} | $rounds | $flushes | $commits |"
	done <"$work/lease.counts"
}

# One line of the table of targets: title, measured, operator, limit
lease_target()
{
	report "| $1 | $3 $4 | $2 | $(verdict "$2" "$3" "$4") |"
}

lease_targets()
{
	local clients waiters s trip case limit

	[ -z "${WHY_NOT[pg_concord]:-}" ] || return 0
	report ""
	report "| target | limit | measured | |"
	report "|---|---|---|---|"
	for clients in "${LEASE_CLIENTS[@]}"; do
		[ -z "${WHY_NOT[etcd]:-}" ] || continue
		read -r -a s <<<"$(summary lease lock "$clients" pg_concord)"
		lease_target "lock and unlock, $clients client(s): p50 : etcd" "${s[2]}" '<=' 0.4
	done
	trip=$(lease_value get 1 pg_concord 1)
	for waiters in "${LEASE_WAITERS[@]}"; do
		read -r -a s <<<"$(lease_percentiles "$waiters" pg_concord 1)"
		lease_target "hand-over to one of $waiters, p50 from unlock's return : a round trip without flush ($trip ms)" \
			"$(awk -v a="${s[0]}" -v b="$trip" 'BEGIN { printf "%.2f", a / b }')" '<=' 1
	done
	for case in "${LEASE_CASES[@]}"; do
		limit=1.1
		[ "$case" != lock ] || limit=2.1
		read -r -a s <<<"$(grep "^$case " "$work/lease.counts")"
		lease_target "${LEASE_NAME[$case]}: rounds" "${s[1]}" '<=' "$limit"
		lease_target "${LEASE_NAME[$case]}: flushes" "${s[2]}" '<=' "$limit"
	done
}

# No lock may be left.
lease_verify()
{
	local left

	left=$(sql a "SELECT count(*) FROM concord.locks")
	[ "$left" = 0 ] || { report ""; report "**$left lease locks were left.**"; FAILED=1; }
}

lease_run()
{
	local case clients waiters version BASELINE

	lease_setup
	version=${WHY_NOT[etcd]:-}
	[ -n "$version" ] || version=$(etcd --version | sed -n 's/^etcd Version: //p')
	for case in "${LEASE_CASES[@]}" get read; do
		for clients in "${LEASE_CLIENTS[@]}"; do
			lease_measure "$case" "$clients"
		done
	done
	for waiters in "${LEASE_WAITERS[@]}"; do
		note "bench: lease handover, $waiters waiters"
		lease_handover "$waiters"
	done
	lease_count
	report ""
	report "## Lease locks and registers"
	report ""
	report "etcd: $version, three members" \
		"on the same disk. Each client has a lock, or a register, of its own and asks over one connection that stays:"
	report "pg_concord through SQL on one node, etcd through its JSON gateway on its leader. Three servers of pg_concord"
	report "run all the time, and so do etcd's members."
	for case in "${LEASE_CASES[@]}" get; do
		lease_table "$case"
	done
	lease_gateway_table
	report ""
	report "One session holds a lock for which the others wait, on all three nodes in turn; it gives it back, and so does"
	report "each who gets it. From the one's unlock until the other's lock has returned; one process, one clock."
	lease_handover_table
	lease_count_table
	lease_targets
	lease_verify
	lease_stop_etcd
}
