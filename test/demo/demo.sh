#!/bin/bash
# demo.sh start | stop: three servers and a standby in ./tmp_demo, and the tour through them.
#
# start leaves the servers running, for trying by hand; stop ends them and removes everything.

# shellcheck source=../lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

stop_demo() {
	local sockets=''
	[ ! -e "$top/tmp_demo/sockets" ] || sockets=$(cat "$top/tmp_demo/sockets")
	remove_work tmp_demo
	case $sockets in
		/tmp/concord.*) rm -rf "$sockets" ;;
	esac
}

start_demo() {
	local sockets status

	want gcc command -v gcc
	want libc6-dev test -f /usr/include/stdio.h
	install_packages
	choose_user

	stop_demo
	make_work tmp_demo
	sockets=$(mktemp -d /tmp/concord.XXXXXX)
	echo "$sockets" >"$work/sockets"
	[ "$(id -u)" -ne 0 ] || chown "$user:" "$sockets"
	copy_source "$work/src"
	cd "$work" || exit 1
	trap 'stop_demo; exit 130' INT TERM HUP

	echo "building pg_concord, and a private copy of PostgreSQL to run it in ..."
	HOME=$work WORK=$work "${as_user[@]}" bash -c '
		. "$WORK/src/test/lib/common.sh"
		private_postgres "$WORK/src" "$WORK/postgres"' >"$work/build.log" 2>&1 || {
		tail -n 30 "$work/build.log"
		die "could not build; see $work/build.log"
	}

	HOME=$work DEMO_WORK=$work/servers DEMO_SOCKETS=$sockets \
		PATH="$work/postgres$("$PG_CONFIG" --bindir):$PATH" "${as_user[@]}" "$work/src/test/demo/tour.sh"
	status=$?

	cat >"$work/psql" <<-END
	#!/bin/bash
	# psql <node> [option ...]: a session on a node of the demo
	declare -A port=([a]=5501 [b]=5502 [c]=5503 [a1]=5504)
	exec "$work/postgres$("$PG_CONFIG" --bindir)/psql" -h $sockets -p "\${port[\${1:-a}]}" -U postgres -d bank "\${@:2}"
	END
	chmod +x "$work/psql"
	cat <<-'END'

	The servers go on running.  Try them by hand, from any node (a, b, c; a1 is the standby of a):

	  tmp_demo/psql b

	  SELECT * FROM concord.nodes;
	  SELECT concord.locate(42);
	  SELECT * FROM concord.query(42, 'SELECT aid, abalance FROM pgbench_accounts WHERE aid = $1', 42)
	      AS (aid int, abalance int);
	  SELECT * FROM concord.check_cluster();

	"make demo-stop" ends them.
	END
	exit $status
}


case ${1:-} in
	start) start_demo ;;
	stop) stop_demo ;;
	*) die "usage: demo.sh start | stop" ;;
esac
