#!/bin/bash
# run.sh
#	Benches of pg_concord next to what a user would pick instead, on three throw-away servers.
#
#	test/bench/run.sh [bench ...]		default: routed transfer xact_lock session calls lease
#	SAVE=1								writes the report to test/bench/RESULTS.md
#	ROUNDS=7 SLICE=2					rounds of each case, seconds of a contestant's slice in a round
#	OTHERS_MAX=10 QUIET_WAIT=10			percent of the processors that others may use during a slice; seconds to wait for that
#	CLIENT_HOST=127.0.0.1				where pgbench connects; "socket": the servers' unix sockets
#	KEEP=1								leaves the servers running
#	BENCH_CONF, PG_CONFIG				further lines of postgresql.conf; whose PostgreSQL
#
# A bench is a folder with a bench.sh that defines <bench>_run; it reports by report() and sets FAILED=1
# when something is wrong. A missed target is reported, it is not a failure.

BENCH_HOME=$(cd "$(dirname "$0")" && pwd)

# shellcheck source-path=SCRIPTDIR source=lib/cluster.sh
. "$BENCH_HOME/lib/cluster.sh"
# shellcheck source-path=SCRIPTDIR source=lib/measure.sh
. "$BENCH_HOME/lib/measure.sh"
set -eu -o pipefail

[ $# -gt 0 ] || set -- routed transfer xact_lock session calls lease
for bench in "$@"; do
	[ -f "$BENCH_HOME/$bench/bench.sh" ] || die "there is no bench \"$bench\""
	# shellcheck disable=SC1090
	. "$BENCH_HOME/$bench/bench.sh"
done

bench_start
report "# Benches"
report ""
report "Written by \`make bench SAVE=1\` on $(date -u +%Y-%m-%d). PostgreSQL $(sql a "SHOW server_version"), pg_concord" \
	"$(sql a "SELECT extversion FROM pg_extension WHERE extname = 'pg_concord'"), $(nproc) cores" \
	"($(sed -n '/model name/{s/.*: //p;q}' /proc/cpuinfo))."
report "Three servers and pgbench share the machine; pgbench -M prepared, clients and nodes connected by TCP on loopback;"
report "shared_buffers 128MB, fsync and synchronous_commit on. $ROUNDS rounds of $SLICE s slices, contestants in turn;"
report "latency and throughput are medians, ratios are medians of the rounds' ratios (lowest to highest)."
for bench in "$@"; do
	"${bench}_run"
done

if [ -s "$work/samples" ]; then
	report ""
	report "$(quietness)"
fi
if [ "${SAVE:-0}" != 1 ]; then
	:
elif [ "$FAILED" != 0 ] || { [ -s "$work/samples" ] && ! was_quiet; }; then
	note "bench: not saved, since something failed or others used too much of the machine"
else
	cp "$work/report.md" "$BENCH_HOME/RESULTS.md"
fi
exit "$FAILED"
