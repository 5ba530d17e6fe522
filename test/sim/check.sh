#!/bin/bash
# check.sh: runs the simulation.  One line per run (TAP), then "N passed, N failed".
#
# - 10,000 seeds, and some of them with the sanitizers,
# - seeded bugs: mistakes of the rooms above core (BUG in cluster.c), and in core itself (one line of
#   register.c changed).  Each must be found, alone, by what it does to the registers.
#
# SEEDS=n: so many seeds.  CONCORD_SOAK=1: a million others.  CONCORD_SEED=n: that seed alone.

cd "$(dirname "$0")" || exit 1
seeds=${SEEDS:-10000}
first=1
if [ -n "${CONCORD_SOAK:-}" ]; then
	seeds=${SEEDS:-1000000}
	first=$(date +%s)0000
fi
passed=0
failed=0

# run <what> <command ...>: shows its comments; the last line is the result
run() {
	local what=$1 out status
	shift
	out=$("$@" 2>&1)
	status=$?
	grep '^#' <<<"$out"
	if [ $status -eq 0 ]; then
		passed=$((passed + 1))
		echo "ok $((passed + failed)) - $what"
	else
		failed=$((failed + 1))
		echo "not ok $((passed + failed)) - $what"
		grep -v '^#' <<<"$out" | sed 's/^/# /'
		echo "# $*"
	fi
}

bug() {
	local number=$1 what=$2
	env -u CONCORD_SEED make -s "build/bug_$number" || exit 1
	run "bug $number: $what" env -u CONCORD_SEED "build/bug_$number" -f 30000
}

# mutant <what> <sed expression>: it must change one line
mutant() {
	local what=$1 change=$2
	sed "$change" ../../src/core/register.c >build/mutant.c
	if [ "$(diff ../../src/core/register.c build/mutant.c | grep -c '^>')" -ne 1 ]; then
		run "core: $what: changes one line" false
		return
	fi
	make -s build/mutant || exit 1
	run "core: $what" env -u CONCORD_SEED build/mutant -f 30000
}

run "registers under faults" build/sim "$seeds" "$first"
if [ -z "${CONCORD_SEED:-}" ]; then
	run "the same with sanitizers" build/sim_sanitized 1000 "$first"

	bug 1 'a promise is not flushed'
	bug 2 'an accepted value is not flushed'
	bug 3 'ballots are used again after a restart'
	bug 4 'restored storage votes with its old identity'
	bug 5 'a tombstone is erased before everybody has it'
	bug 6 "another proposer's promise is passed in one round"
	bug 7 'a new set decides before the registers were read'
	bug 8 'the version floor is not raised'
	bug 9 'the ballot floor is not raised'
	bug 10 'who has left joins again as it was'
	bug 11 'an answer tells what is not flushed'
	bug 12 'refused configurations are not remembered'
	bug 13 'floors are not carried over to a new set'

	mutant 'a lower ballot is accepted (R2)' '/repeated: one value per ballot/,/^}/ s/if (order < 0 .*/if (0)/'
	mutant 'what is built on is not the highest (R4)' 's/^	if (order > 0)$/	if (order > 0 \&\& p->best.counter == 0)/'
	mutant 'a tombstone is erased under any ballot (R7)' 's/^		!same_ballot(&reg->accepted, &request->ballot))$/		0)/'
	mutant 'one set of two is a quorum (R9)' 's/^		(config->new_set == 0 ||.*/		true;/'
	mutant 'a change that was perhaps built on is tried again (R12)' 's/if (last > p->own_version ||.*/if (0)/'
	mutant 'a change is over as soon as it is not seen (R12)' 's/^		if (concord_config_quorum(&p->config, p->holders) &&$/		if (1 ||/'
	mutant 'a read believes the highest answer' 's/if (concord_config_quorum(&p->config, p->holders))	.*/if (concord_config_quorum(\&p->config, p->answered))/'
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
