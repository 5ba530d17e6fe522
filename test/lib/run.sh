#!/bin/bash
# run.sh [part ...]: runs the tests (all parts by default) from a clean checkout, and closes with
# "N passed, N failed".  The exit status tells whether all passed.
#
# Parts: lint unit model sim fuzz regress isolation tap demo.
# Environment: PG_CONFIG; PROVE_TESTS (TAP files to run); CELLS (a regex: the fault matrix's cells to
# run); CONCORD_SEED (of unit, sim, the bank), BANK_SECONDS (of the bank); CONCORD_TMP (a work directory's name
# other than tmp_check, for a second run in the same checkout); CONCORD_SOAK=1 (longer runs).
#
# This half does what may need root: packages and the work directory.  The parts themselves run as
# an unprivileged user, see parts.sh.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

fuzzer_links() {
	echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d && n > 9; }' |
		clang -fsanitize=fuzzer,address -x c -o /dev/null -
}

parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(lint unit model sim fuzz regress isolation tap demo)
name=${CONCORD_TMP:-tmp_check}

want gcc command -v gcc
want libc6-dev test -f /usr/include/stdio.h
for part in "${parts[@]}"; do
	case $part in
		lint)
			want cppcheck command -v cppcheck
			want clang-tidy command -v clang-tidy
			want shellcheck command -v shellcheck
			;;
		unit | sim | regress | isolation | demo) ;;
		model) want spin command -v spin ;;
		fuzz)
			want clang command -v clang
			want libclang-rt-dev fuzzer_links
			;;
		tap)
			want libipc-run-perl perl -MIPC::Run -e 1
			want libdbd-pg-perl perl -MDBD::Pg -e 1
			want pgbouncer test -x /usr/sbin/pgbouncer
			;;
		*) die "unknown part \"$part\"; there are: lint unit model sim fuzz regress isolation tap demo" ;;
	esac
done
install_packages

exec 9<"$top/Makefile"
flock -n -E 75 9 || [ -n "${CONCORD_TMP:-}" ] || die "another run is under way in this checkout; set CONCORD_TMP"

choose_user
make_work "$name"
sockets=$(mktemp -d /tmp/concord.XXXXXX)
[ "$(id -u)" -ne 0 ] || chown "$user:" "$sockets"

# shellcheck disable=SC2317 # called by the trap
clean_up() {
	stop_servers "$work"
	rm -rf "$sockets"
	if [ "${status:-1}" -eq 0 ]; then
		remove_work "$name"
	else
		rm -rf "$work/postgres"
	fi
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

copy_source "$work/src"
cd "$work" || exit 1
env HOME="$work" WORK="$work" SOCKETS="$sockets" "${as_user[@]}" "$work/src/test/lib/parts.sh" "${parts[@]}" 9<&-
status=$?
exit $status
