#!/bin/bash
# matrix.sh: the tests on the PostgreSQL of other Debian releases, each in a root of its own.
#
# Environment: SUITES (default "trixie", PostgreSQL 17; "sid" has 18, "bookworm" tries a bare Debian 12),
# PARTS (default "unit regress isolation tap demo"), and what run.sh knows (PROVE_TESTS ...).  Needs
# root; packages come from the mirror the machine's own apt uses.
# A root stays in tmp_matrix/<suite> for the next run until it is deleted.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

suites=${SUITES:-trixie}
parts=${PARTS:-unit regress isolation tap demo}
result=0

[ "$(id -u)" -eq 0 ] || die "make matrix needs root (debootstrap, chroot)"
want debootstrap command -v debootstrap
install_packages
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -n 1)
[ -n "$mirror" ] || die "apt has no Debian mirror configured"

make_root() {
	local suite=$1 root=$2
	[ ! -e "$root/ready" ] || return 0
	rm -rf "$root"
	mkdir -p "$root"
	debootstrap --variant=minbase --include=make "$suite" "$root" "$mirror" >"$root.log" 2>&1 || {
		tail -n 20 "$root.log"
		return 1
	}
	touch "$root/ready"
}

# run_in_root <root>: its own mounts and processes, which end with it
run_in_root() {
	local root=$1
	rm -rf "$root/src"
	user=root copy_source "$root/src"
	cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
	# shellcheck disable=SC2016 # expanded inside
	unshare --mount --pid --fork --kill-child bash -c '
		mount --make-rprivate / && mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" &&
			exec chroot "$1" env -u PG_CONFIG HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin make -C /src test PARTS="$2"' \
		bash "$root" "$parts"
}

for suite in $suites; do
	echo "==== $suite"
	root=$top/tmp_matrix/$suite
	if ! make_root "$suite" "$root" || ! run_in_root "$root"; then
		echo "==== $suite FAILED"
		result=1
	fi
done
exit $result
