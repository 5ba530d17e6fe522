#!/bin/bash
# profile.sh
#	Shows where the time of a routed statement goes: processor time per process, system calls and functions.
#
#	test/bench/profile.sh [read|update] [direct|pg_concord|plproxy|postgres_fdw] [clients]
#	SLICE=5			seconds of each of the two timed runs
#	CALLS=1			also memory contexts and allocations per transaction (uprobes; root)
#
# Needs perf and strace, and the right to attach to the servers' processes (root, as a rule). Same servers and settings
# as run.sh, whose other variables work here too. Three runs: an untouched one for processor time per transaction, one
# under perf, one with a fixed number of transactions under strace.

CASE=${1:-read}
WAY=${2:-pg_concord}
CLIENTS=${3:-1}
SLICE=${SLICE:-5}
BENCH_HOME=$(cd "$(dirname "$0")" && pwd)
COUNTED=3000				# transactions of each client in counted runs

# shellcheck source-path=SCRIPTDIR source=lib/cluster.sh
. "$BENCH_HOME/lib/cluster.sh"
# shellcheck source-path=SCRIPTDIR source=lib/measure.sh
. "$BENCH_HOME/lib/measure.sh"
# shellcheck source-path=SCRIPTDIR source=routed/bench.sh
. "$BENCH_HOME/routed/bench.sh"
set -eu -o pipefail

load_start()				# options of pgbench
{
	"$PG_BIN/pgbench" -n -M prepared -c "$CLIENTS" -j $((CLIENTS < 2 ? 1 : 2)) -h "$CLIENT_HOST" \
		-p "${PORT[$(routed_node "$WAY")]}" -f "$work/$CASE.$WAY" "$@" >"$work/pgbench.out" 2>&1 &
	LOAD=$!
}

load_end()
{
	wait "$LOAD" || { cat "$work/pgbench.out" >&2; die "pgbench failed"; }
	DONE=$(awk '/^number of transactions actually/ { n = $6; sub("/.*", "", n); print n }' "$work/pgbench.out")
}

# Process ids (separated by commas) of the backends of pgbench's sessions, and of those that serve them at the owner.
client_backends()
{
	sql "$(routed_node "$WAY")" "SELECT string_agg(pid::text, ',') FROM pg_stat_activity WHERE application_name = 'pgbench'"
}

peer_backends()
{
	local which="application_name <> 'pgbench' AND application_name NOT LIKE 'concord/%' AND pid <> pg_backend_pid()"

	[ "$WAY" != pg_concord ] || which="application_name = ANY (SELECT 'concord/$ENTRY/' || unnest('{$1}'::text[]))"
	sql "$OWNER" "SELECT string_agg(pid::text, ',') FROM pg_stat_activity
		WHERE backend_type = 'client backend' AND $which"
}

# Nanoseconds on a processor and number of switches so far, of a comma separated list of processes.
cpu_of()
{
	local pid sum=0 ns

	for pid in ${1//,/ }; do
		read -r ns _ <"/proc/$pid/schedstat" 2>/dev/null || ns=0
		sum=$((sum + ns))
	done
	echo "$sum"
}

profile_cpu()
{
	local coordinator participant c0 p0 t0 c1 p1 t1

	load_start -T "$((SLICE + 2))"
	sleep 1
	coordinator=$(client_backends)
	participant=$(peer_backends "$coordinator")
	c0=$(cpu_of "$coordinator"); p0=$(cpu_of "$participant"); t0=$(date +%s%N)
	sleep "$SLICE"
	c1=$(cpu_of "$coordinator"); p1=$(cpu_of "$participant"); t1=$(date +%s%N)
	load_end
	awk -v c=$((c1 - c0)) -v p=$((p1 - p0)) -v t=$((t1 - t0)) -v n="$DONE" -v s="$((SLICE + 2))" 'BEGIN {
		tps = n / s
		printf "%.0f transactions per second\n", tps
		printf "processor time per transaction: client'\''s backend %.1f us, remote backend %.1f us\n",
			c / t * 1e6 / tps, p / t * 1e6 / tps
	}'
}

perf_report()				# lines, what to leave out, options
{
	local lines=$1 without=$2
	shift 2

	echo
	perf report -f -i "$work/perf.$side" --stdio -g none "$@" 2>/dev/null |
		awk -v lines="$lines" -v without="$without" '
			/^ +[0-9]/ && (without == "" || $0 !~ without) && n++ < lines { print "  " $0 }'
}

profile_perf()
{
	local coordinator participant first side

	load_start -T "$((SLICE + 2))"
	sleep 1
	coordinator=$(client_backends)
	participant=$(peer_backends "$coordinator")
	perf record -q -F 4000 --call-graph fp -o "$work/perf.client" -p "$coordinator" -- sleep "$SLICE" 2>/dev/null >&2 &
	first=$!
	[ -z "$participant" ] ||
		perf record -q -F 4000 --call-graph fp -o "$work/perf.peer" -p "$participant" -- sleep "$SLICE" 2>/dev/null >&2
	wait "$first" || true
	load_end
	for side in client peer; do
		[ -s "$work/perf.$side" ] || continue
		printf "\n%s's backend, percent of its time by file, by function, by function with what it calls (user code)\n" "$side"
		perf_report 6 "" --no-children -F overhead,dso
		perf_report "${TOP:-30}" "" --no-children -F overhead,dso,symbol
		perf_report "${TOP:-50}" "kernel|0x0|libc_start|main$|PostmasterMain" --children -F overhead_children,dso,symbol
	done
}

# New backends of a postmaster are followed by strace from their first moment; their start is divided away by COUNTED.
profile_syscalls()
{
	local node tracers=()

	for node in "$ENTRY" "$OWNER"; do
		strace -f -c -o "$work/strace.$node" -p "$(head -n 1 "$work/$node/postmaster.pid")" 2>/dev/null &
		tracers+=($!)
	done
	sleep 1
	load_start -t "$COUNTED"
	load_end
	sleep 0.5
	kill -INT "${tracers[@]}"
	wait "${tracers[@]}" || true
	for node in "$ENTRY" "$OWNER"; do
		printf '\nsystem calls per transaction, server of node %s (strace; more than 0.05)\n' "$node"
		awk -v n="$DONE" '/^ *[0-9.]+ +[0-9.]+ +[0-9]+ +[0-9]+/ && $NF != "total" {
			if ($4 / n > 0.05) printf "  %-16s %6.2f\n", $NF, $4 / n }' "$work/strace.$node"
	done
}

# Calls of exported functions of the server per transaction, in the client's backend.
profile_calls()
{
	local f pid functions="palloc palloc0 MemoryContextAlloc pfree AllocSetContextCreateInternal MemoryContextReset
		MemoryContextDelete SearchSysCache1 GetSnapshotData ResourceOwnerCreate CreateWaitEventSet
		tuplestore_begin_heap ReadyForQuery" events=""

	for f in $functions; do
		perf probe -q -x "$PG_BIN/postgres" "concord_bench_$f=$f" 2>/dev/null &&
			events+="${events:+,}probe_postgres:concord_bench_$f"
	done
	load_start -T 4
	sleep 1
	pid=$(client_backends)
	perf stat -x ' ' -o "$work/stat" -e "$events" -p "$pid" sleep 2 || true
	load_end
	perf probe -q -d 'probe_postgres:concord_bench_*' 2>/dev/null || true
	printf "\ncalls per transaction in the client's backend (ReadyForQuery is sent once in each)\n"
	awk '/concord_bench/ { n = $1; sub(".*concord_bench_", ""); calls[$1] = n }
		END { for (f in calls) printf "  %-30s %7.2f\n", f, calls[f] / calls["ReadyForQuery"] }' "$work/stat" | sort
}

bench_start
ROWS=100000 routed_setup
printf '%s through %s, %s client(s)\n' "$CASE" "$WAY" "$CLIENTS"
profile_cpu
profile_perf
profile_syscalls
[ "${CALLS:-0}" = 0 ] || profile_calls
