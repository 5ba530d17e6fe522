#!/bin/bash
# check.sh: checks the models of this folder with Spin.  One line per run (TAP), then "N passed, N
# failed".
#
# - the correct model, exhaustively, in several configurations,
# - the same for cycles: that every execution ends,
# - seeded bugs: each must violate the property it is aimed at, alone; and those that can split a
#   transaction must be seen to do so,
# - situations that must be reachable.
#
# What fails can be repeated in build/ by the command that is shown; then "./pan -r" tells the steps.
# CONCORD_SOAK=1: larger configurations too.

cd "$(dirname "$0")" || exit 1
mkdir -p build
cd build || exit 1

# the core that the models call, compiled once
core_objects=()
for file in commit key register lock; do
	cc -O1 -I../../../src -c "../../../src/core/$file.c" -o "core_$file.o" || exit 1
	core_objects+=("../core_$file.o")
done
n=0

# job <function> <arguments ...>: in a directory of its own, as many at a time as there are processors
job() {
	while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do
		wait -n
	done
	n=$((n + 1))
	rm -rf "run_$n"
	mkdir "run_$n"
	(cd "run_$n" && "$@" >result 2>&1 </dev/null) &
}

# search <model> <cc flags> <pan flags> <model's flags>: builds and runs; sets command and states, fills
# log
search() {
	local model=$1 cc_flags=$2 pan_flags=$3
	shift 3
	command="spin -a $* ../../$model.pml"
	command+=" && cc -w $cc_flags -DNOREDUCE -I../../../../src pan.c ${core_objects[*]} -o pan"
	command+=" && ./pan -n $pan_flags"
	eval "$command" >log 2>&1
	states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' log | tail -n 1)
}

# result <good?> <what> <detail>
result() {
	if [ "$1" -eq 0 ]; then
		echo "ok - $2 ($3)"
		return
	fi
	echo "not ok - $2 ($3)"
	echo "# in ${PWD##*/}: $command"
	sed 's/^/# /' log | head -n 30
}

# Did the search see every state, and stay within its depth?
complete() {
	[ -n "$states" ] && ! grep -qE 'Search not completed|max search depth|out of memory|^Warning' log
}

# holds <model> <what> <flags>
do_holds() {
	local model=$1 what=$2 start=$SECONDS
	shift 2
	search "$model" '-O1 -DSAFETY -DVECTORSZ=256 -DMEMLIM=2000' '-m10000 -w21' "$@"
	complete && grep -q 'errors: 0' log
	result $? "$what" "$states states, $((SECONDS - start)) s"
}

# ends <model> <what> <flags>: there is no cycle
do_ends() {
	local model=$1 what=$2 start=$SECONDS
	shift 2
	search "$model" '-O1 -DNP -DVECTORSZ=256 -DMEMLIM=2000' '-l -m10000 -w21' "$@"
	complete && grep -q 'errors: 0' log
	result $? "$what" "$states states, $((SECONDS - start)) s"
}

# violates <model> <property> <what> <flags>: with all the others switched off
do_violates() {
	local model=$1 property=$2 what=$3 violated
	local -A numbers=([P2]=2 [P3]=3 [P4]=4 [A]=5 [E]=6 [R]=7 [O]=8 [S]=9)
	shift 3
	search "$model" '-O0 -DSAFETY -DVECTORSZ=256' '-m10000' "-DONLY=${numbers[$property]}" "$@"
	violated=$(sed -nE 's/^pan:1: assertion violated .*is_(P[0-9]|[A-Z]).*/\1/p' log)
	[ "$violated" = "$property" ]
	result $? "$what" "violates ${violated:-nothing} after $states states"
}

# cycles <model> <what> <flags>: there is one
do_cycles() {
	local model=$1 what=$2
	shift 2
	search "$model" '-O0 -DNP -DVECTORSZ=256' '-l -m10000' "$@"
	grep -q 'non-progress cycle (at' log
	result $? "$what" "after $states states"
}

# reaches <model> <number> <what> <flags>
do_reaches() {
	local model=$1 number=$2 what=$3
	shift 3
	search "$model" '-O0 -DSAFETY -DVECTORSZ=256' '-m10000' "-DREACH=$number" "$@"
	grep -q "assertion violated ($number!=$number)" log
	result $? "$what" "after $states states"
}

for function in holds ends violates cycles reaches; do
	eval "$function() { job do_$function \"\$@\"; }"
done

command -v spin >/dev/null || {
	echo "not ok 1 - spin is not installed"
	echo "0 passed, 1 failed"
	exit 1
}

m=commit
holds $m 'commit: 2 participants, 3 faults' -DFAULTS=3
holds $m 'commit: 3 participants, 2 faults' -DN=3 -DFAULTS=2
holds $m 'commit: duplicates, a client, forced abort' -DDUPLICATES=1 -DASKS=1 -DFORCE=1
holds $m 'commit: decisions deleted, failovers, duplicates' -DGC=1 -DDUPLICATES=1 -DFAULTS=2
holds $m 'commit: decisions deleted, a client, forced abort' -DGC=1 -DASKS=1 -DFORCE=1
holds $m 'commit: decisions deleted, 3 participants' -DGC=1 -DN=3 -DSECOND=0
holds $m 'commit: coordinator promoted, asynchronous' -DPROMOTED=1 -DFAULTS=2
holds $m 'commit: coordinator promoted, synchronous' -DPROMOTED=2 -DFAULTS=3

ends $m 'commit ends: 2 participants' -DFAULTS=2
ends $m 'commit ends: decisions deleted, forced abort' -DGC=1 -DFORCE=1
ends $m 'commit ends: coordinator promoted, asynchronous' -DPROMOTED=1 -DFAULTS=2
ends $m 'commit ends: coordinator promoted, synchronous' -DPROMOTED=2 -DFAULTS=2

violates $m P4 'bug 1: absent means abort while the owner lives' -DBUG=1
violates $m P4 'bug 2: decision looked at before liveness' -DBUG=2
violates $m P2 'bug 3: decision not flushed before phase two' -DBUG=3
violates $m P4 'bug 4: liveness left before the decision is visible' -DBUG=4
violates $m E 'bug 5: horizon passes a branch that a standby shows again' -DBUG=5 -DGC=1
violates $m P3 'bug 6: coordinator aborts after the decision' -DBUG=6
violates $m P4 'bug 7: promotion that lost WAL taken for a restart' -DBUG=7 -DPROMOTED=1
violates $m E 'bug 8: PREPARE below the horizon is not refused' -DBUG=8 -DGC=1
violates $m P4 'bug 9: horizon looked at before the decision' -DBUG=9 -DGC=1 -DASKS=1
violates $m P4 'bug 10: liveness entered after the first PREPARE' -DBUG=10
violates $m P4 'bug 11: decision deleted before the horizon is stored' -DBUG=11 -DGC=1 -DASKS=1
violates $m P2 'bug 12: cancelled wait for the standby counts as waited' -DBUG=12 -DPROMOTED=2 -DFAULTS=2
violates $m P3 'bug 13: decision told before the standby has it' -DBUG=13 -DPROMOTED=2 -DFAULTS=2
violates $m P4 'bug 14: gid told before liveness is entered' -DBUG=14 -DASKS=1
violates $m P4 'bug 15: decision written below the horizon' -DBUG=15 -DGC=1 -DASKS=1 -DFORCE=1
cycles $m 'bug 16: a cycle is found' -DBUG=16

for bug in 1 2 3 4 6 10; do
	violates $m A "bug $bug splits a transaction" -DBUG=$bug
done
violates $m A 'bug 7 splits a transaction' -DBUG=7 -DPROMOTED=1 -DFAULTS=2
violates $m A 'bug 12 splits a transaction' -DBUG=12 -DPROMOTED=2 -DFAULTS=2
violates $m A 'bug 13 splits a transaction' -DBUG=13 -DPROMOTED=2 -DFAULTS=2

reaches $m 1 'reached: a PREPARE after abort was answered'
reaches $m 2 'reached: commit finished after the coordinator died'
reaches $m 3 'reached: abort finished after the coordinator died'
reaches $m 4 'reached: unknown after a promotion' -DPROMOTED=1
reaches $m 5 'reached: two resolvers with an answer for one branch'
reaches $m 6 'reached: forgotten' -DGC=1 -DASKS=1
reaches $m 7 'reached: a client is told commit' -DASKS=1
reaches $m 8 'reached: a client is told abort' -DASKS=1
reaches $m 9 'reached: an unflushed decision survives a crash'
reaches $m 10 'reached: committed in spite of two faults' -DFAULTS=2
reaches $m 11 'reached: aborted after two faults' -DFAULTS=2
reaches $m 12 'reached: phase two is left to resolvers' -DPROMOTED=2

m=register
holds $m 'register: three writes, a crash' -DREADS=0
holds $m 'register: three writes, a read' -DCRASHES=0

violates $m A 'register, bug 1: promise not flushed' -DBUG=1 -DREADS=0
violates $m A 'register, bug 2: accepted value not flushed' -DBUG=2 -DREADS=0
violates $m A 'register, bug 3: ballot used again after a restart' -DBUG=3 -DREADS=0
violates $m A "register, bug 4: one round past another's promise" -DBUG=4 -DREADS=0
violates $m A 'register, bug 5: built on another than the highest ballot' -DBUG=5 -DREADS=0
violates $m A 'register, bug 6: accepted below the promise' -DBUG=6 -DREADS=0
violates $m O 'register, bug 7: tried again although it may be built on' -DBUG=7 -DREADS=0
violates $m A 'register, bug 8: a read believes one acceptor' -DBUG=8

reaches $m 1 'register: an earlier attempt is completed'
reaches $m 2 'register: unknown'
reaches $m 3 'register: tried again'
reaches $m 4 'register: a write in one round'
reaches $m 5 'register: a read in one round'
reaches $m 6 'register: a read completes what it saw'
reaches $m 7 'register: a read that acceptors disagree about'
reaches $m 8 'register: the writer of what may be chosen is gone'

m=lease
holds $m 'lease: four attempts of its keeper' -DBEATS=4
holds $m 'lease: a second server of the node' -DRESTART=1 -DBEATS=2 -DTICKS=7

violates $m S 'lease, bug 1: counted from the answer' -DBUG=1
violates $m S 'lease, bug 2: an unknown renewal counts' -DBUG=2
violates $m S 'lease, bug 3: the drift is not waited for' -DBUG=3
violates $m S 'lease, bug 4: ended whatever is there' -DBUG=4
violates $m S 'lease, bug 5: a shorter renewal binds too late' -DBUG=5
violates $m S 'lease, bug 6: replaced at once by a second server' -DBUG=6 -DRESTART=1
violates $m S 'lease, bug 7: taken for ended before that is written' -DBUG=7

reaches $m 1 'lease: ended by an observer'
reaches $m 2 'lease: an attempt is found to be chosen'
reaches $m 3 'lease: the keeper learns that it has lost it'
reaches $m 4 'lease: a second server waits, and begins the next' -DRESTART=1
reaches $m 5 'lease: a second server begins the next at once' -DRESTART=1

if [ -n "${CONCORD_SOAK:-}" ]; then
	holds $m 'lease: four attempts, longer' -DBEATS=4 -DTICKS=9
	holds $m 'register: three writes, a read, a crash'
	m=commit
	holds $m 'commit: 3 participants, 3 faults, forced abort' -DN=3 -DFAULTS=3 -DFORCE=1
	holds $m 'commit: decisions deleted, 3 participants, 2 faults' -DGC=1 -DN=3 -DFAULTS=2 -DSECOND=0
	holds $m 'commit: decisions deleted, everything else' -DGC=1 -DFAULTS=2 -DASKS=2 -DFORCE=1 -DDUPLICATES=1
	holds $m 'commit: promoted, asynchronous, 3 participants, 2 faults' -DPROMOTED=1 -DN=3 -DFAULTS=2
	holds $m 'commit: promoted, synchronous, 3 participants, 3 faults' -DPROMOTED=2 -DN=3 -DFAULTS=3
fi

wait
passed=0
failed=0
for ((i = 1; i <= n; i++)); do
	if grep -q '^ok' "run_$i/result"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
	sed -E "s/^(ok|not ok) -/\\1 $i -/" "run_$i/result"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
