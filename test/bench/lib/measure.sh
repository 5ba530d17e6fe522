# shellcheck shell=bash disable=SC2034
# measure.sh
#	Runs pgbench over several contestants in turn, and makes ratios and tables of it.
#
# A round is one short slice of each contestant, one after the other, each round starting with another one, so that
# noise of the machine hits all alike; round 0 warms up. A slice waits until others leave the machine alone,
# at most QUIET_WAIT seconds; when they used more than OTHERS_MAX percent of the processors during it, it is repeated, at
# most twice. A ratio is the median over the rounds of the ratio within each round; latency and throughput
# are medians over the rounds.
#
# Samples are lines of $work/samples, separated by tabs; round 0 and rejected slices (round -1) only
# count for transactions_of:
#	bench, case, clients, contestant, round, latency in ms, transactions per s, transactions, others' percent, p99 in ms
# Latency is pgbench's average, or the median if the contestant's program tells that, and then p99 too.

ROUNDS=${ROUNDS:-7}
SLICE=${SLICE:-2}			# seconds
OTHERS_MAX=${OTHERS_MAX:-10}
QUIET_WAIT=${QUIET_WAIT:-10}
BASELINE=direct				# the contestant to which ratios are
declare -A OPTIONS_OF		# "<bench> <contestant>" -> its sessions' settings, as in PGOPTIONS

# Clock ticks so far: of the whole machine, busy and all; of the benches' servers and this shell's ended children.
ticks()
{
	local node pids="$$ ${OTHER_SERVERS[*]}" try

	[ -r /proc/stat ] || { echo 0 0 0; return; }
	for node in "${NODES[@]}" "${STANDBYS[@]}"; do
		pids+=" $(head -n 1 "$work/$node/postmaster.pid")"
	done
	# a process that ends while it is looked at may end awk
	for try in 1 2 3 4 5; do
		! count_ticks "$pids" 2>/dev/null || return 0
	done
	echo 0 0 0
}

# count_ticks <process ids, this shell first>: see ticks
count_ticks()
{
	awk -v roots="$1" '
		BEGIN {
			getline line <"/proc/stat"
			split(line, f, " ")
			for (i = 2; i <= 9; i++) all += f[i]
			n = split(roots, root, " ")
			for (i = 1; i <= n; i++) {
				own += used(root[i])
				children = ""
				file = "/proc/" root[i] "/task/" root[i] "/children"
				if (i > 1 && (getline children <file) > 0)
					for (m = split(children, child, " "); m > 0; m--) own += used(child[m])
			}
			print all - f[5] - f[6], all, own
		}
		function used(pid,    file, line, g)
		{
			file = "/proc/" pid "/stat"
			line = ""
			if ((getline line <file) <= 0) return 0
			close(file)
			sub(/.*\) /, "", line)
			split(line, g, " ")
			return g[12] + g[13] + g[14] + g[15]
		}'
}

# others <ticks before> <ticks after>: what other processes used in between, percent of the processors
others()
{
	echo "$1 $2" | awk '{
		o = $5 > $2 ? 100 * ($4 - $1 - ($6 - $3)) / ($5 - $2) : 0
		printf "%d", o < 0 ? 0 : o }'
}

await_quiet()
{
	local before until=$((SECONDS + QUIET_WAIT))

	while [ $SECONDS -lt $until ]; do
		before=$(ticks)
		sleep 0.3
		[ "$(others "$before" "$(ticks)")" -gt "$OTHERS_MAX" ] || break
	done
}

# One slice. Options of pgbench beyond these: through PGBENCH_OPTIONS. OTHERS: what other processes used meanwhile, percent.
measure_slice()
{
	local bench=$1 case=$2 clients=$3 contestant=$4 round=$5 node=$6 script=$7 seconds=$SLICE before
	local out=$work/pgbench.out

	[ "$round" != 0 ] || seconds=1
	await_quiet
	before=$(ticks)
	local run=("$PG_BIN/pgbench" -n -M prepared -c "$clients" -j $((clients < 2 ? 1 : 2))
		-T "$seconds" -h "$CLIENT_HOST" -p "${PORT[$node]}" -f "$script")
	[ ! -x "$script" ] || run=("$script" "$clients" "$seconds")
	# shellcheck disable=SC2086
	if ! PGOPTIONS=${OPTIONS_OF["$bench $contestant"]:-} timeout $((seconds + 60)) "${run[@]}" ${PGBENCH_OPTIONS:-} >"$out" 2>&1; then
		note "bench: $bench $case, $contestant, $clients client(s):"
		tail -n 5 "$out" >&2
		return 1
	fi
	OTHERS=$(others "$before" "$(ticks)")
	[ "$round" -le 0 ] || [ "$OTHERS" -le "$OTHERS_MAX" ] || [ "${LAST_TRY:-0}" = 1 ] || round=-1
	awk -v OFS='\t' -v head="$bench	$case	$clients	$contestant	$round" -v others="$OTHERS" '
		/^latency (average|p50)/ { latency = $4 }
		/^latency p99/ { p99 = $4 }
		/^tps =/ { tps = $3 }
		/^number of transactions actually/ { n = $6; sub("/.*", "", n) }
		END { print head, latency, tps, n, others, p99 }' "$out" >>"$work/samples"
	[ "$round" != -1 ] || return 2
}

# measure <bench> <case> <clients> <contestant>=<node>:<script> ...
# A script that is executable is run with the number of clients and the seconds, and writes what pgbench would.
# A contestant whose slice fails is left out from then on, and its columns say so.
measure()
{
	local bench=$1 case=$2 clients=$3 round i n entry contestant target status=0
	shift 3
	local entries=("$@")

	n=${#entries[@]}
	for ((round = 0; round <= ROUNDS; round++)); do
		for ((i = 0; i < n; i++)); do
			entry=${entries[(i + round) % n]}
			contestant=${entry%%=*}
			target=${entry#*=}
			for LAST_TRY in 0 0 1; do
				[ -z "${WHY_NOT[$contestant]:-}" ] || break
				status=0
				measure_slice "$bench" "$case" "$clients" "$contestant" "$round" \
					"${target%%:*}" "${target#*:}" || status=$?
				[ "$status" = 2 ] || break
			done
			if [ "$status" = 1 ]; then
				WHY_NOT["$contestant"]=failed
				FAILED=1
			fi
		done
	done
}

# The transactions counted by pgbench for a case, all contestants and rounds.
transactions_of()
{
	awk -F '\t' -v b="$1" -v c="$2" '$1 == b && $2 == c { n += $8 } END { print n + 0 }' "$work/samples"
}

# summary <bench> <case> <clients> <contestant>: medians of latency and throughput, then median, lowest and highest of the
# ratios to $BASELINE: latency tps lat_ratio lat_min lat_max tps_ratio tps_min tps_max
summary()
{
	awk -F '\t' -v b="$1" -v c="$2" -v k="$3" -v who="$4" -v base="$BASELINE" '
		function median(v, n,    i, j, t)		# sorts v
		{
			for (i = 2; i <= n; i++)
				for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
			return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
		}
		$1 != b || $2 != c || $3 != k || $5 < 1 { next }
		$4 == base { dl[$5] = $6; dt[$5] = $7 }
		$4 == who { l[$5] = $6; t[$5] = $7 }
		END {
			for (r in l) if (r in dl) { n++; vl[n] = l[r]; vt[n] = t[r]; rl[n] = l[r] / dl[r]; rt[n] = t[r] / dt[r] }
			if (!n) exit 1
			ml = median(vl, n); mt = median(vt, n); ql = median(rl, n); qt = median(rt, n)
			printf "%.3f %.0f %.2f %.2f %.2f %.3f %.3f %.3f\n", ml, mt, ql, rl[1], rl[n], qt, rt[1], rt[n]
		}' "$work/samples"
}

# p99_of <bench> <case> <clients> <contestant>: the median over the rounds
p99_of()
{
	awk -F '\t' -v b="$1" -v c="$2" -v k="$3" -v who="$4" '
		$1 == b && $2 == c && $3 == k && $4 == who && $5 > 0 { print $10 }' "$work/samples" | sort -n |
		awk '{ v[NR] = $1 } END { printf "%.3f\n", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# How quiet the machine was: mean and highest percentage used by others in the slices that count.
quietness()
{
	awk -F '\t' '$5 > 0 { n++; s += $9; if ($9 > m) m = $9 } $5 == -1 { bad++ }
		END {
			printf "Other processes used %.0f %% of the processors on average, %d %% in the worst slice that counts; ", n ? s / n : 0, m
			printf "%d slices were repeated.\n", bad
		}' "$work/samples"
}

# Were the others quiet enough, on average, for the report to be kept?
was_quiet()
{
	awk -F '\t' -v max="$OTHERS_MAX" '$5 > 0 { n++; s += $9 } END { exit n && s / n > max }' "$work/samples"
}

# verdict <measured> <= or >=> <limit>: "met", or "missed by N %"
verdict()
{
	awk -v m="$1" -v op="$2" -v x="$3" 'BEGIN {
		if (op == "<=" ? m <= x : m >= x) print "met"
		else printf "**missed by %.0f %%**\n", 100 * (m > x ? m / x - 1 : 1 - m / x)
	}'
}

# Results go to the report and, as they come, to the terminal.
report()
{
	printf '%s\n' "$*" | tee -a "$work/report.md"
}
