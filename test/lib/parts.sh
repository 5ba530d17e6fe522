#!/bin/bash
# parts.sh part ...: the unprivileged half of run.sh.  Runs in a copy of the checkout at $WORK/src,
# writes to $WORK only, counts, and closes with "N passed, N failed".

# shellcheck disable=SC2317 # the parts are called by name
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
umask 077

src=$WORK/src
log=$WORK/log
postgres=$WORK/postgres			# the private installation
passed=0
failed=0
# A soak gives everything more time; in "make test" a promise has about two minutes.
patience=${CONCORD_SOAK:+20}
patience=${patience:-1}
: "${BANK_SECONDS:=$((60 * patience))}"
mkdir -p "$log"
cd "$WORK" || exit 1
trap 'stop_servers "$WORK"; exit 130' INT TERM HUP

#
# Counting
#

pass() {
	passed=$((passed + ${2:-1}))
	printf '  ok      %s\n' "$1"
}

# fail <what> <log file>: shows the log's end
fail() {
	failed=$((failed + ${3:-1}))
	printf '  FAILED  %s\n' "$1"
	[ ! -s "$2" ] || tail -n "${TAIL:-40}" "$2" | sed 's/^/          /'
}

# check <what> <command ...>: one test that passes if the command succeeds
check() {
	local what=$1 file=$log/${1//[^a-zA-Z0-9._-]/_}.log
	shift
	if "$@" >"$file" 2>&1 </dev/null; then pass "$what"; else fail "$what" "$file"; fi
}

# tally <what> <log> <status>: counts a log's lines of TAP ("ok ...", "not ok ...", skipped ones aside);
# a log without any is one test, and a bad status without a "not ok" is one more failure.
tally() {
	local what=$1 file=$2 status=$3 good bad
	good=$(grep -cE '^ok\b' "$file")
	good=$((good - $(grep -ciE '^ok\b.*# *skip' "$file")))
	bad=$(grep -E '^not ok\b' "$file" | grep -civE '# *todo')
	[ "$good" -gt 0 ] || [ "$bad" -gt 0 ] || [ "$status" -ne 0 ] || good=1
	[ "$bad" -gt 0 ] || [ "$status" -eq 0 ] || bad=1
	if [ "$bad" -eq 0 ]; then
		pass "$what ($good)" "$good"
	else
		passed=$((passed + good))
		fail "$what ($good passed, $bad failed)" "$file" "$bad"
	fi
	sed -n -E "s/^(ok|1\\.\\.0)\\b.*# *skip *(.*)/  skipped $what: \\2/Ip" "$file" | sort -u
}

#
# Building
#

build_once() {
	[ ! -e "$WORK/built" ] || return 0
	# what is tested has assertions and fault points
	private_postgres "$src" "$postgres" COPT=-DUSE_ASSERT_CHECKING FAULTS=1 >"$log/build.log" 2>&1 || {
		fail build "$log/build.log"
		finish
	}
	bindir=$postgres$("$PG_CONFIG" --bindir)
	PATH=$bindir:$PATH
	pgxs=$(dirname "$("$PG_CONFIG" --pgxs)")/../..
	touch "$WORK/built"
}

finish() {
	stop_servers "$WORK"
	[ "$failed" -eq 0 ] || echo "logs are kept in $WORK"
	echo "$passed passed, $failed failed"
	[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
	exit
}

# A server as test/regress/server.conf wants it, once.
server_once() {
	[ ! -e "$WORK/server/postmaster.pid" ] || return 0
	new_server "$WORK/server" &&
		cat "$src/test/regress/server.conf" >>"$WORK/server/postgresql.conf" &&
		start_server "$WORK/server" "$SOCKETS" 5499 || {
		fail "start of the server" "$WORK/server.log"
		return 1
	}
}

#
# Parts
#

no_fault_points() {
	[ -e "$1" ] && ! grep -q 'fault_points' "$1"
}

part_lint() {
	mkdir "$WORK/lint"
	cp -R "$src/Makefile" "$src/pg_concord.control" "$src/src" "$WORK/lint"
	check "build with -Wall -Wextra -Werror" make -s -C "$WORK/lint" -j2 WERROR=1 with_llvm=no all
	check "no fault points in a release build" no_fault_points "$WORK/lint/pg_concord.so"
	for script in "$src"/test/lint/check-*; do
		check "$(basename "$script" | sed 's/^check-//; s/\..*//')" "$script" "$src"
	done
}

# Folders with a Makefile of their own whose "check" prints TAP
part_unit() {
	[ -e "$src/test/unit/Makefile" ] || return 0
	make -s -C "$src/test/unit" check >"$log/unit.log" 2>&1 </dev/null
	tally unit "$log/unit.log" $?
}

part_fuzz() {
	[ -e "$src/test/fuzz/Makefile" ] || return 0
	make -s -C "$src/test/fuzz" ${RUNS:+RUNS="$RUNS"} check >"$log/fuzz.log" 2>&1 </dev/null
	tally fuzz "$log/fuzz.log" $?
}

# Spin explores the models of the protocols, and must find the bugs seeded in them.
part_model() {
	[ -e "$src/test/model/Makefile" ] || return 0
	timeout "${MODEL_TIMEOUT:-$((600 * patience))}" make -s -C "$src/test/model" check \
		>"$log/model.log" 2>&1 </dev/null
	tally model "$log/model.log" $?
}

# The protocols of src/core on a simulated network; it must find the bugs seeded in them too.
part_sim() {
	[ -e "$src/test/sim/Makefile" ] || return 0
	make -s -C "$src/test/sim" check >"$log/sim.log" 2>&1 </dev/null
	tally sim "$log/sim.log" $?
}

# run_pg_regress <what> <program> <inputdir> <database> <option or test> ...
run_pg_regress() {
	local what=$1 program=$2 input=$3 database=$4 out=$WORK/$1 file=$log/$1.log status
	shift 4

	build_once
	server_once || return
	mkdir "$out"
	PGISOLATIONTIMEOUT=30 "$pgxs/src/test/$program" --bindir="$bindir" --inputdir="$input" --outputdir="$out" \
		--host="$SOCKETS" --port=5499 --user=postgres --dbname="$database" "$@" >"$file" 2>&1 </dev/null
	status=$?
	# before PostgreSQL 16 it did not write TAP
	sed -i -E 's/^(test )? *([^ ]+) +\.\.\. ok /ok - \2 /; s/^(test )? *([^ ]+) +\.\.\. FAILED/not ok - \2/' "$file"
	[ ! -s "$out/regression.diffs" ] || sed 's/^/# /' "$out/regression.diffs" >>"$file"
	TAIL=400 tally "$what" "$file" $status
}

part_regress() {
	local tests
	mapfile -t tests < <(cd "$src/sql" 2>/dev/null && ls -- *.sql 2>/dev/null | sed 's/\.sql$//')
	[ ${#tests[@]} -eq 0 ] ||
		run_pg_regress regress regress/pg_regress "$src" contrib_regression "${tests[@]}"
}

part_isolation() {
	local specs
	mapfile -t specs < <(cd "$src/test/isolation/specs" 2>/dev/null && ls -- *.spec 2>/dev/null | sed 's/\.spec$//')
	[ ${#specs[@]} -eq 0 ] ||
		run_pg_regress isolation isolation/pg_isolation_regress "$src/test/isolation" \
			isolation_regression --load-extension=pg_concord "${specs[@]}"
}

# One TAP file: its servers, its log, its status; says when it is done.
tap_file() {
	local file=$1 base
	base=$(basename "$file" .pl)

	mkdir -p "$WORK/tap/$base"
	cd "$WORK/tap/$base" || return
	TESTDIR=$WORK/tap/$base TESTDATADIR=$WORK/tap/$base/tmp_check TESTLOGDIR=$WORK/tap/$base/log \
		PG_REGRESS=$pgxs/src/test/regress/pg_regress PGPORT=65432 PG_TEST_PORT_DIR=$WORK/tap \
		timeout "$((600 * patience))" prove -v -I "$pgxs/src/test/perl" -I "$src/test/lib/perl" -I "$src/test/lib" "$src/test/t/$base.pl" \
		>"$log/tap-$base.log" 2>&1 </dev/null
	echo $? >"$log/tap-$base.status"
	echo "$base"
}

part_tap() {
	local files base
	# the last ones take longest: begun first, they leave nobody waiting at the end
	mapfile -t files < <(cd "$src" && ls -r ${PROVE_TESTS:-test/t/*.pl} 2>/dev/null)
	[ ${#files[@]} -gt 0 ] || return 0
	build_once
	export -f tap_file
	export src log pgxs patience BANK_SECONDS
	while read -r base; do
		TAIL=100 tally "tap $base" "$log/tap-$base.log" "$(cat "$log/tap-$base.status")"
	done < <(printf '%s\n' "${files[@]}" | xargs -P 2 -I '{}' bash -c 'tap_file {}')
}

# The tour counts its own stops, in the form of TAP.
part_demo() {
	local status
	build_once
	DEMO_WORK=$WORK/demo DEMO_SOCKETS=$SOCKETS "$src/test/demo/tour.sh" >"$log/demo.log" 2>&1 </dev/null
	status=$?
	stop_servers "$WORK/demo"
	TAIL=80 tally demo "$log/demo.log" $status
}

for part; do
	echo "== $part"
	start=$SECONDS
	"part_$part"
	echo "   ($((SECONDS - start)) s)"
done
finish
