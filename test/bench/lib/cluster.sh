# shellcheck shell=bash disable=SC2034
# cluster.sh
#	Three throw-away servers for the benches, and the cluster on them.
#
# Everything lies in tmp_bench of the checkout (CONCORD_TMP: another name), and sockets in a directory under /tmp; both are
# gone after bench_stop. pg_concord is built without assertions into a private copy of the installation. Servers
# run as an unprivileged user; they listen on 127.0.0.1 with scram-sha-256, the password is random and
# lies in a passfile of mode 0600. All have the same settings. No other server is touched.
#
# After bench_start: NODES (a b c), PORT[node], the database "bench", PG_BIN, PGPASSFILE, PGUSER and PGDATABASE.
# Clients are connected to node a, which owns none of the keys that are used; node b owns them.

# shellcheck source-path=SCRIPTDIR source=../../lib/common.sh
. "${BASH_SOURCE[0]%/*}/../../lib/common.sh"

NODES=(a b c)
STANDBYS=()					# see start_standby
OTHER_SERVERS=()			# process ids of contestants' servers; bench_stop kills them
ENTRY=a
OWNER=b
FAILED=0
declare -A PORT
declare -A WHY_NOT			# contestant -> why it has no numbers

note()
{
	printf '%s\n' "$*" >&2
}

# As the servers' user, from a directory everybody can enter.
as_server()
{
	(cd / && "${as_user[@]}" env HOME="$work" "$@")
}

# SQL text (psql's variables and backslash commands work), or -f file, on a node through its socket: unaligned output.
sql()
{
	local node=$1 text=$2
	local psql=("$PG_BIN/psql" -XqAt -v ON_ERROR_STOP=1 -h "$SOCKETS" -p "${PORT[$node]}")
	shift 2

	if [ "$text" = -f ]; then
		"${psql[@]}" -f "$@"
	else
		"${psql[@]}" "$@" <<<"$text"
	fi
}

# The work directory, with pg_concord installed into a private copy of the installation.
bench_build()
{
	local log

	want gcc command -v gcc
	want libc6-dev test -f /usr/include/stdio.h
	want libpq-dev command -v pg_config
	install_packages
	want_plproxy
	install_packages
	export PG_CONFIG=${PG_CONFIG:-pg_config}
	choose_user
	make_work "${CONCORD_TMP:-tmp_bench}"
	SOCKETS=$(mktemp -d /tmp/concord.XXXXXX)	# a socket's path is at most 107 bytes
	[ "$(id -u)" -ne 0 ] || chown "$user:" "$SOCKETS"
	trap bench_stop EXIT
	trap 'exit 130' INT TERM HUP
	log=$work/build.log
	copy_source "$work/src"
	# shellcheck disable=SC2016
	as_server bash -c '. "$1/src/test/lib/common.sh"; private_postgres "$1/src" "$1/postgres"' - "$work" >"$log" 2>&1 ||
		{ tail -n 20 "$log" >&2; die "the build failed"; }
	PG_BIN=$work/postgres$("$PG_CONFIG" --bindir)
}

# The password reaches libpq, in the servers (links between nodes) and in clients, through one passfile.
write_secrets()
{
	local secret

	secret=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
	export PGPASSFILE=$work/pgpass PGUSER=bench PGDATABASE=bench
	(umask 077 && printf '%s\n' "$secret" >"$work/password" && printf '*:*:*:*:%s\n' "$secret" >"$PGPASSFILE")
	[ "$(id -u)" -ne 0 ] || chown "$user:" "$work/password" "$PGPASSFILE"
}

init_node()
{
	local node=$1

	as_server "$PG_BIN/initdb" -D "$work/$node" -U "$PGUSER" -E UTF8 --locale=C --auth-local=trust \
		--auth-host=scram-sha-256 --pwfile="$work/password" >"$work/$node.init" 2>&1 ||
		{ cat "$work/$node.init" >&2; die "initdb failed"; }
	cat >>"$work/$node/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = '$SOCKETS'
shared_preload_libraries = 'pg_concord'
max_connections = 100
max_prepared_transactions = 100
shared_buffers = 128MB
fsync = on
synchronous_commit = on
max_wal_size = 4GB
checkpoint_timeout = 30min
${BENCH_CONF:-}
CONF
}

# Draws ports until the server comes up on one.
start_node()
{
	local node=$1 try port

	for try in 1 2 3 4 5 6 7 8 9 10; do
		port=$((10240 + (RANDOM * 32768 + RANDOM) % 20000))
		! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || continue
		PORT[$node]=$port
		if as_server "$PG_BIN/pg_ctl" -D "$work/$node" -l "$work/$node.log" -w -t 60 -s -o "-p $port" start; then
			return
		fi
	done
	tail -n 20 "$work/$node.log" >&2
	die "node $node did not start in $try tries"
}

# A streaming standby of a node: the node's settings and those given.
start_standby()
{
	local standby=$1 node=$2 settings=$3

	as_server "$PG_BIN/pg_basebackup" -D "$work/$standby" -h 127.0.0.1 -p "${PORT[$node]}" -c fast -R \
		>"$work/$standby.init" 2>&1 || { cat "$work/$standby.init" >&2; die "pg_basebackup failed"; }
	printf '%s\n' "$settings" >>"$work/$standby/postgresql.conf"
	start_node "$standby"
	STANDBYS+=("$standby")
}

# One cluster of three members, slots spread, everybody up.
form_cluster()
{
	local node address="host=127.0.0.1 dbname=$PGDATABASE user=$PGUSER"

	for node in "${NODES[@]}"; do
		sql "$node" "CREATE EXTENSION pg_concord"
		# the role of protocol traffic, beforehand, because here it needs a password
		sql "$node" "\\set secret \`cat '$work/password'\`
			SELECT format('CREATE ROLE %I LOGIN PASSWORD %L', current_setting('concord.node_role'), :'secret') \\gexec"
	done
	sql a "SELECT concord.create_cluster('a', '$address port=${PORT[a]}')" >/dev/null
	sql a "SELECT concord.add_node('b', '$address port=${PORT[b]}')" >/dev/null
	sql a "SELECT concord.add_node('c', '$address port=${PORT[c]}')" >/dev/null
	sql a "SELECT concord.rebalance()" >/dev/null
	for node in "${NODES[@]}"; do
		await_members "$node"
	done
}

await_members()
{
	local try seen

	for try in $(seq 1 100); do
		seen=$(sql "$1" "SELECT count(*) FROM concord.nodes WHERE state = 'up' AND slots > 0")
		[ "$seen" -lt ${#NODES[@]} ] || return 0
		sleep 0.1
	done
	die "node $1 sees $seen of ${#NODES[@]} nodes up after $try looks"
}

bench_start()
{
	local node

	bench_build
	write_secrets
	for node in "${NODES[@]}"; do
		init_node "$node"
		start_node "$node"
		sql "$node" "CREATE DATABASE $PGDATABASE" -d postgres
	done
	form_cluster
	CLIENT_HOST=${CLIENT_HOST:-127.0.0.1}
	[ "$CLIENT_HOST" != socket ] || CLIENT_HOST=$SOCKETS
}

bench_stop()
{
	local node

	trap - EXIT
	[ ${#OTHER_SERVERS[@]} -eq 0 ] || kill -KILL "${OTHER_SERVERS[@]}" 2>/dev/null || true
	if [ "${KEEP:-0}" = 1 ]; then
		note "bench: left running, PGPASSFILE=$PGPASSFILE, host $SOCKETS or 127.0.0.1, ports" \
			"$(for node in "${NODES[@]}" "${STANDBYS[@]}"; do printf '%s=%s ' "$node" "${PORT[$node]:-none}"; done)"
		return
	fi
	rm -rf "$SOCKETS"
	remove_work "${CONCORD_TMP:-tmp_bench}"
}
