#!/bin/bash
# common.sh: what the runner, the demo and the version matrix share.  Sourced, never run.
#
# PROMISE: nothing is written outside the work directory, but for one short-named directory of
# sockets under /tmp and Debian packages that are missing; no server is touched but those started
# from here.
#
# PostgreSQL refuses to run as root, so what starts servers runs as an unprivileged user.  The
# extension is installed into a copy of the PostgreSQL installation in the work directory:
# PostgreSQL finds its files relative to its program, so the copy stands alone and the machine's
# own installation stays as it was.  Servers listen on sockets in a directory of mode 0700 only,
# so that nobody else on the machine can reach them.

set -u
export LC_ALL=C.UTF-8
unset PGHOST PGPORT PGUSER PGDATABASE PGPASSWORD PGPASSFILE PGSERVICE PGOPTIONS PGDATA PSQLRC \
	MAKEFLAGS MAKELEVEL MFLAGS

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

die() {
	printf 'pg_concord: %s\n' "$*" >&2
	exit 1
}

#
# Packages
#

missing=()

# want <package> <command ...>: the package is missing unless the command succeeds
want() {
	local package=$1
	shift
	"$@" >/dev/null 2>&1 || missing+=("$package")
}

# usable_pg_config <pg_config>: is it of a server with headers and PGXS?
usable_pg_config() {
	[ -x "$("$1" --bindir 2>/dev/null)/postgres" ] && [ -f "$("$1" --pgxs)" ] &&
		[ -f "$("$1" --includedir-server)/postgres.h" ]
}

# Sets PG_CONFIG: the one asked for, else the one in PATH, else the newest; fails if there is none.
find_pg_config() {
	local candidate

	if [ "${PG_CONFIG:-pg_config}" != pg_config ]; then
		usable_pg_config "$PG_CONFIG" ||
			die "PG_CONFIG=$PG_CONFIG does not belong to a PostgreSQL server with its headers"
		return 0
	fi
	while read -r candidate; do
		if usable_pg_config "$candidate"; then
			export PG_CONFIG=$candidate
			return 0
		fi
	done < <(echo pg_config; printf '%s\n' /usr/lib/postgresql/*/bin/pg_config | sort -Vr)
	return 1
}

# Installs what want() found missing, and a PostgreSQL server with headers if there is none.
install_packages() {
	local no_server='' version as_root=() log
	local no_cluster=/etc/postgresql-common/createcluster.d/pg_concord.conf policy=/usr/sbin/policy-rc.d

	find_pg_config || no_server=yes
	[ -n "$no_server" ] || [ ${#missing[@]} -gt 0 ] || return 0

	command -v apt-get >/dev/null ||
		die "missing: what these Debian packages contain: ${no_server:+postgresql} ${missing[*]}"
	if [ "$(id -u)" -ne 0 ]; then
		as_root=(sudo -n)
		sudo -n true 2>/dev/null ||
			die "packages are missing; as root: apt-get install" \
				"${no_server:+postgresql postgresql-server-dev-all} ${missing[*]}"
	fi

	log=$(mktemp)
	apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qy "$@" >>"$log" 2>&1 </dev/null; }
	# No package starts a service, now or when the machine starts: Debian's PgBouncer and etcd would do both.  A
	# policy that the machine has already is left as it is.
	install_quietly() (
		ours=''
		trap '[ -z "$ours" ] || "${as_root[@]}" rm -f "$policy"' EXIT
		trap 'exit 130' INT TERM HUP
		if [ ! -e "$policy" ]; then
			ours=yes
			"${as_root[@]}" sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 0755 $policy"
		fi
		apt install --no-install-recommends "${missing[@]}" || exit
		[[ " ${missing[*]} " != *' pgbouncer '* ]] ||
			"${as_root[@]}" update-rc.d pgbouncer disable >>"$log" 2>&1 || true
		[[ " ${missing[*]} " != *' etcd-server '* ]] ||
			"${as_root[@]}" update-rc.d etcd disable >>"$log" 2>&1 || true
	)
	apt update
	if [ -n "$no_server" ]; then
		version=$(apt-cache depends postgresql |
			sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1)
		missing+=("postgresql-$version" "postgresql-server-dev-$version")
		# the server's package would at once create and start a cluster that nobody asked for
		apt install --no-install-recommends postgresql-common
		"${as_root[@]}" sh -c "mkdir -p ${no_cluster%/*} && echo create_main_cluster = false >$no_cluster"
	fi
	echo "installing ${missing[*]}"
	install_quietly || {
		tail -n 20 "$log"
		die "apt-get could not install ${missing[*]}"
	}
	[ -z "$no_server" ] || "${as_root[@]}" rm -f "$no_cluster"
	rm -f "$log"
	missing=()
	find_pg_config || die "no PostgreSQL server with headers was found; set PG_CONFIG"
}

# Wants PL/Proxy, if Debian has it for this PostgreSQL; install_packages was called before.
want_plproxy() {
	local package
	package=postgresql-$("$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')-plproxy
	! apt-cache show "$package" >/dev/null 2>&1 ||
		want "$package" test -e "$("$PG_CONFIG" --pkglibdir)/plproxy.so"
}

#
# The unprivileged user and the work directory
#

# Sets user (who runs servers) and the array as_user (the prefix that becomes it).
choose_user() {
	if [ "$(id -u)" -ne 0 ]; then
		user=$(id -un)
		as_user=()
	else
		user=postgres
		id -u "$user" >/dev/null 2>&1 || user=nobody
		as_user=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --init-groups)
	fi
}

# make_work <name>: sets work to a new, empty directory of the user's: <name> in the checkout, or, where
# the user cannot get there (a clone under /root), one in /tmp to which <name> is a link.
make_work() {
	local real

	remove_work "$1"
	work=$top/$1
	mkdir "$work"
	if [ "$(id -u)" -eq 0 ]; then
		chown "$user:" "$work"
		if ! "${as_user[@]}" test -x "$work" -a -w "$work"; then
			real=$(mktemp -d /tmp/pg_concord.XXXXXX)
			chown "$user:" "$real"
			rmdir "$work"
			ln -s "$real" "$work"
			work=$real
		fi
	fi
	chmod 0700 "$work"
}

remove_work() {
	stop_servers "$top/$1"
	[ ! -L "$top/$1" ] || rm -rf "$(readlink "$top/$1")"
	rm -rf "${top:?}/$1"
}

# copy_source <dir>: the checkout's files without what builds and tests leave
copy_source() {
	mkdir -p "$1"
	tar -C "$top" -cf - --exclude=./.git --exclude='./tmp_*' --exclude='*.o' --exclude='*.bc' \
		--exclude='*.so' --exclude='./pg_concord--*.sql' . | tar -C "$1" -xof -
	[ "$(id -u)" -ne 0 ] || chown -R "$user:" "$1"
}

#
# PostgreSQL
#

# private_postgres <source dir> <prefix> [make variable ...]: builds the source and installs it
# into a copy of the PostgreSQL installation under prefix.
private_postgres() {
	local source=$1 prefix=$2 dir
	shift 2

	for dir in "$("$PG_CONFIG" --bindir)" "$("$PG_CONFIG" --pkglibdir)" "$("$PG_CONFIG" --sharedir)"; do
		mkdir -p "$prefix$dir"
		cp -R "$dir/." "$prefix$dir"
	done
	rm -rf "$prefix$("$PG_CONFIG" --pkglibdir)"/bitcode/pg_concord*
	set -- make -s -C "$source" PG_CONFIG="$PG_CONFIG" with_llvm=no "$@"
	"$@" -j2 all && "$@" DESTDIR="$prefix" install
}

# new_server <data directory>: no passwords, for only the sockets' directory guards it
new_server() {
	initdb -D "$1" -A trust -U postgres --no-locale -E UTF8 -N >/dev/null
}

# start_server <data directory> <socket directory> <port>
start_server() {
	pg_ctl -D "$1" -s -w -t 60 -l "$1.log" -o "-k $2 -p $3 -c listen_addresses=''" start
}

# server_pid <data directory>: prints the process id of the postmaster that runs there, or fails
server_pid() {
	local pid

	pid=$(head -n 1 "$1/postmaster.pid" 2>/dev/null) &&
		[ "$(readlink "/proc/$pid/cwd")" = "$(readlink -f "$1")" ] && echo "$pid"
}

# Stops at once every server whose data directory lies under the directory.
stop_servers() {
	local file pid deadline=$((SECONDS + 30))

	while read -r file; do
		pid=$(server_pid "${file%/*}") || continue
		kill -QUIT "$pid"
		while kill -0 "$pid" 2>/dev/null && [ $SECONDS -lt $deadline ]; do
			sleep 0.05
		done
	done < <([ ! -d "$1" ] || find "$1/" -name postmaster.pid)
}
