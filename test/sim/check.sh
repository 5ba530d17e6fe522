#!/bin/bash
# check.sh: runs the simulations, of registers and of lease locks.  One line per run (TAP), then "N passed,
# N failed".
#
# - 10,000 seeds of registers, 1,000 of lease locks, and some of them with the sanitizers,
# - seeded bugs: mistakes of the rooms above core (BUG in acceptors.c, cluster.c, locks.c, sessions.c), and
#   in core itself (one line of register.c or lock.c changed).  Each must be found, alone, by what it does
#   to the registers, or to the locks and what they guard.
#
# SEEDS=n: so many seeds of each.  CONCORD_SOAK=1: a million others.  CONCORD_SEED=n: that seed alone.

cd "$(dirname "$0")" || exit 1
seeds=${SEEDS:-10000}
lock_seeds=${SEEDS:-1000}
first=1
if [ -n "${CONCORD_SOAK:-}" ]; then
	seeds=${SEEDS:-1000000}
	lock_seeds=${SEEDS:-200000}
	first=$(date +%s)0000
fi
jobs_max=$(nproc)
n=0

# run <what> <command ...>: in the background, as many at a time as there are processors
run() {
	while [ "$(jobs -rp | wc -l)" -ge "$jobs_max" ]; do
		wait -n
	done
	n=$((n + 1))
	echo "$1" >build/what.$n
	shift
	{ "$@" >build/out.$n 2>&1 </dev/null; echo $? >build/status.$n; } &
}

# program <target> <arguments ...>: what all programs have in common is compiled already
program() {
	env -u CONCORD_SEED make -s "$1" && env -u CONCORD_SEED "$@"
}

bug() {
	run "bug $1: $2" program "build/bug_$1" -f 30000
}

lock_bug() {
	run "locks, bug $1: $2" program "build/lock_bug_$1" -f 20000
}

# change <file> <kind> <what> <sed expression> [first seed]: it must change one line
change() {
	local file=../../src/core/$1 target=build/$2_$((n + 1)) what=$3 change=$4 seed=${5:-1}
	sed "$change" "$file" >"$target.c"
	if [ "$(diff "$file" "$target.c" | grep -c '^>')" -ne 1 ]; then
		run "core: $what: changes one line" false
		return
	fi
	run "core: $what" program "$target" -f 30000 "$seed"
}

mutant() {
	change register.c mutant "$@"
}

lock_mutant() {
	change lock.c lock_mutant "$@"
}

# the result of each run, with its comments
show() {
	local passed=0 failed=0 status i
	for ((i = 1; i <= n; i++)); do
		status=$(cat build/status.$i 2>/dev/null)
		grep '^#' build/out.$i
		if [ "$status" = 0 ]; then
			passed=$((passed + 1))
			echo "ok $i - $(cat build/what.$i)"
		else
			failed=$((failed + 1))
			echo "not ok $i - $(cat build/what.$i)"
			grep -v '^#' build/out.$i | sed 's/^/# /'
		fi
	done
	echo "$passed passed, $failed failed"
	[ "$failed" -eq 0 ]
}

rm -f build/status.*
run "registers under faults" build/sim "$seeds" "$first"
run "lease locks under faults" build/locks "$lock_seeds" "$first"
if [ -z "${CONCORD_SEED:-}" ]; then
	run "registers with sanitizers" build/sim_sanitized 1000 "$first"
	run "lease locks with sanitizers" build/locks_sanitized 60 "$first"

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
	mutant 'a tombstone is erased under any ballot (R7)' 's/^		!same_ballot(&reg->accepted, &request->ballot))$/		0)/' 40000 # one of 50,000 finds it
	mutant 'one set of two is a quorum (R9)' 's/^		(config->new_set == 0 ||.*/		true;/'
	mutant 'a change that was perhaps built on is tried again (R12)' 's/if (last > p->own_version ||.*/if (0)/'
	mutant 'a change is over as soon as it is not seen (R12)' 's/^		if (concord_config_quorum(&p->config, p->holders) &&$/		if (1 ||/'
	mutant 'a read believes the highest answer' 's/if (concord_config_quorum(&p->config, p->holders))	.*/if (concord_config_quorum(\&p->config, p->answered))/'

	lock_bug 21 'a lease counts from the answer'
	lock_bug 22 'an unknown renewal counts'
	lock_bug 23 'the drift of clocks is not waited for'
	lock_bug 24 'the end of a lease is written over whatever is there'
	lock_bug 25 'a shared request passes a waiting exclusive one'
	lock_bug 26 'the own lease is not looked at'
	lock_bug 27 'a request that may come later is not kept from it'
	lock_bug 28 'requests are dropped before the end of their lease is written'
	lock_bug 29 'a server replaces the lease of another one at once'

	lock_mutant 'the fence of the group before stays (L5)' 's/^		state->granted = state->n > 0 .*/		state->granted = state->n == 0 ? 0 : state->granted > 0 ? state->granted : GRANTED_NEXT;/'
	lock_mutant 'a lease is judged by an earlier one (L7)' 's/if (value == NULL || value->lease < lease)/if (value == NULL)/'
	lock_mutant 'a shorter lease counts when it is known to be chosen (L8)' 's/if (lease->until_us > now_us + duration_us)/if (0)/'
	lock_mutant 'an earlier attempt is taken for the last one (L8)' 's/ && a->beat == b->beat;/;/' 17700 # one of 20,000 finds it
	lock_mutant 'an observer counts from what he saw first (L9)' 's/if (version > watch->version || now_us < watch->seen_us)/if (watch->seen_us == 0)/'
fi

wait
show
