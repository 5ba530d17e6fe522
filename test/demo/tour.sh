#!/bin/bash
# tour.sh: the tour itself.  Starts three servers in $DEMO_WORK with sockets in $DEMO_SOCKETS,
# with the PostgreSQL of PATH, as an unprivileged user, and leaves them running.
#
# The stops are stops/*.sh, in that order, and build on each other.  Each prints the SQL it runs and its real output, looks at that output, and closes with a line
# of TAP: "ok 3 - what was seen".  Nothing waits for a time, only for a condition with a bound.

# shellcheck source=../lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

umask 077
declare -A port=([a]=5501 [b]=5502 [c]=5503 [a1]=5504)
stops=0
failures=0
output=''
troubles=()

#
# Stops
#

# stop <headline>
stop() {
	stops=$((stops + 1))
	headline=$1
	troubles=()
	printf '\n=== %d. %s\n' "$stops" "$headline"
}

# explain <text>: what the visitor is about to see
explain() {
	printf '%s\n' "$*" | fold -s -w 96 | sed 's, *$,,'
}

# on <node> [psql option ...] <<SQL: prints and runs the statements in one session of a node.
# Errors show their SQLSTATE; the line of PostgreSQL's source that verbose adds is left out.
on() {
	local node=$1
	shift
	printf '\n-- on node %s\n' "$node"
	output=$(psql -X -a -h "$DEMO_SOCKETS" -p "${port[$node]}" -d bank -U postgres -P footer=off \
		-v VERBOSITY=verbose -v SHOW_CONTEXT=errors "$@" 2>&1 | sed '/^LOCATION: /d')
	printf '%s\n' "$output"
}

# expect <regular expression>: the last output must have a line that matches
expect() {
	grep -Eq -- "$1" <<<"$output" || troubles+=("not seen: $1")
}

# ask <node> <query>: one value, silently
ask() {
	psql -X -Atq -h "$DEMO_SOCKETS" -p "${port[$1]}" -d "${3:-bank}" -U postgres -c "$2" 2>&1
}

# await <seconds> <node> <query>: until the query answers t
await() {
	local deadline=$((SECONDS + $1))
	until [ "$(ask "$2" "$3")" = t ]; do
		if [ $SECONDS -ge $deadline ]; then
			troubles+=("in $1 s did not become true on node $2: $3 (now: $(ask "$2" "$3"))")
			return 1
		fi
		sleep 0.1
	done
}

# seen: the stop's end
seen() {
	if [ ${#troubles[@]} -eq 0 ]; then
		printf '\nok %d - %s\n' "$stops" "$headline"
	else
		failures=$((failures + 1))
		printf '\nnot ok %d - %s\n' "$stops" "$headline"
		printf '#   %s\n' "${troubles[@]}"
	fi
}

#
# Servers
#

conninfo() {
	echo "host=$DEMO_SOCKETS port=${port[$1]} dbname=${2:-bank}"
}

# run_server <node>: starts it; after a crash as soon as the last of its processes is gone
run_server() {
	local deadline=$((SECONDS + 60))
	until start_server "$DEMO_WORK/$1" "$DEMO_SOCKETS" "${port[$1]}" 2>>"$DEMO_WORK/start.log"; do
		[ $SECONDS -lt $deadline ] || {
			tail -n 20 "$DEMO_WORK/$1.log"
			die "server $1 does not start"
		}
	done
}

start_servers() {
	local node
	mkdir -p "$DEMO_WORK"
	for node in a b c; do
		new_server "$DEMO_WORK/$node" || die "initdb failed"
		cat >>"$DEMO_WORK/$node/postgresql.conf" <<-END
		cluster_name = '$node'
		shared_preload_libraries = 'pg_concord'
		max_prepared_transactions = 100
		concord.heartbeat_interval = '200ms'
		concord.suspect_after = '600ms'
		concord.down_after = '2s'
		shared_buffers = '32MB'
		END
		run_server "$node"
		ask "$node" 'CREATE DATABASE bank' postgres >/dev/null
	done
}

start_standby() {
	pg_basebackup -h "$DEMO_SOCKETS" -p "${port[a]}" -U postgres -D "$DEMO_WORK/a1" -R -c fast -X stream &&
		echo "cluster_name = 'a1'" >>"$DEMO_WORK/a1/postgresql.conf" &&
		run_server a1
}

echo "starting three PostgreSQL servers in $DEMO_WORK ..."
start_servers
ask a 'SELECT version()'

for file in "$(dirname "$0")"/stops/*.sh; do
	# shellcheck source=/dev/null
	. "$file"
	# without a cluster there is nothing more to see
	[ "$stops" -gt 1 ] || [ "$failures" -eq 0 ] || exit 1
done

printf '\n1..%d\n' "$stops"
[ "$failures" -eq 0 ]
