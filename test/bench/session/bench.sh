# shellcheck shell=bash disable=SC2034,SC2154
# session
#	Reading one's own write on a standby: what the wait takes, against polling for the position; what waiting sessions
#	and the preload cost the standby's replay; what keeping the token costs a primary.
#
# Node a is the primary. Two standbys of it, s and t, replay the same backlog in turn, one with pg_concord preloaded and
# one without; they change places every round. A read that does not find what was written before it, after
# a wait, fails the bench.

SESSION_BACKLOG=100000		# commits
SESSION_WAITERS=200
SESSION_IDLE=5				# seconds
SESSION_SCALE=4				# of pgbench's tables
SESSION_TRANSACTIONS=1100	# of the longer run when instructions are counted
SESSION_COUNTED=c			# where instructions are counted
SESSION_WAYS=(set pipelined set_config poll_1ms poll_10ms poll_always none)
declare -A SESSION_NAME=([set]="SET concord.token, a round trip of its own"
	[pipelined]="SET concord.token and the read in one pipeline" [set_config]="set_config('concord.token', \$1, false)"
	[poll_1ms]="polling every 1 ms" [poll_10ms]="polling every 10 ms"
	[poll_always]="polling without sleep: replay itself" [none]="no waiting"
	[connected]="sessions, nobody waits"
	[spread]="wait, positions spread over it" [beyond]="wait, positions beyond its end"
	[direct]="concord.track = off" [writes]="concord.track = writes" [reads]="concord.track = reads")
SESSION_TRACKS=(direct writes reads)
OPTIONS_OF["session direct"]="-c search_path=session -c concord.track=off"
OPTIONS_OF["session writes"]="-c search_path=session -c concord.track=writes"
OPTIONS_OF["session reads"]="-c search_path=session -c concord.track=reads"

session_conninfo()
{
	echo "host=$CLIENT_HOST port=${PORT[$1]}"
}

session_client()
{
	as_server "$work/session_client" "$@"
}

session_setup()
{
	local log=$work/session.log node

	cp "$BENCH_HOME/session/client.c" "$work/session_client.c"
	as_server gcc -std=c99 -O2 -Wall -Wextra -Werror -I"$("$PG_CONFIG" --includedir)" "$work/session_client.c" \
		-o "$work/session_client" -L"$("$PG_CONFIG" --libdir)" -lpq >"$log" 2>&1 ||
		{ cat "$log" >&2; die "the client of the bench \"session\" was not compiled"; }
	sql a -f "$BENCH_HOME/session/tables.sql"
	for node in a "$SESSION_COUNTED"; do
		sql "$node" "CREATE SCHEMA session"
		PGOPTIONS="-c search_path=session" "$PG_BIN/pgbench" -i -q -s "$SESSION_SCALE" -h "$SOCKETS" -p "${PORT[$node]}" \
			>"$log" 2>&1 || { cat "$log" >&2; die "pgbench -i failed"; }
	done
	"$PG_BIN/pgbench" --show-script=select-only 2>"$work/session.select-only"
	"$PG_BIN/pgbench" --show-script=simple-update 2>"$work/session.simple-update"
}

session_standbys()
{
	local standby

	# a backlog grows old before it is replayed: what looks at it meanwhile is not to be cancelled
	for standby in s t; do
		start_standby "$standby" a "max_connections = $((SESSION_WAITERS + 50))
max_standby_streaming_delay = -1"
	done
	SESSION_PRELOADED=s
	SESSION_PLAIN=t
	session_preload
}

# Restarts both, so that each has the libraries of its role.
session_preload()
{
	local standby

	echo "shared_preload_libraries = 'pg_concord'" >>"$work/$SESSION_PRELOADED/postgresql.conf"
	echo "shared_preload_libraries = ''" >>"$work/$SESSION_PLAIN/postgresql.conf"
	for standby in s t; do
		as_server "$PG_BIN/pg_ctl" -D "$work/$standby" -l "$work/$standby.log" -w -t 60 -s -m fast restart
		session_await "$standby" "pg_last_wal_replay_lsn() >= '$(sql a "SELECT pg_current_wal_flush_lsn()")'"
	done
}

# Waits until a condition is true on a standby.
session_await()
{
	local try

	for try in $(seq 1 300); do
		[ "$(sql "$1" "SELECT $2")" != t ] || return 0
		sleep 0.05
	done
	die "on standby $1 it is not true after $try looks that $2"
}

# ---- the wait

session_loops()
{
	local round way i n=${#SESSION_WAYS[@]} seconds before

	for ((round = 0; round <= ROUNDS; round++)); do
		seconds=$SLICE
		[ "$round" != 0 ] || seconds=0.3
		for ((i = 0; i < n; i++)); do
			way=${SESSION_WAYS[(i + round) % n]}
			await_quiet
			before=$(ticks)
			session_client loop "$(session_conninfo a)" "$(session_conninfo s)" "$way" "$seconds" \
				>"$work/session.$way.$round" || { WHY_NOT["$way"]=failed; FAILED=1; }
			awk -v OFS='\t' -v head="session	wait	1	$way	$round" -v others="$(others "$before" "$(ticks)")" '
				{ sum += $1 }
				END { print head, NR ? sum / NR / 1000 : 0, "", NR, others }' "$work/session.$way.$round" >>"$work/samples"
		done
	done
}

# session_percentiles <way> <column>: p50 and p99 of all rounds in ms, lowest and highest p50 of a round
session_percentiles()
{
	local round

	for ((round = 1; round <= ROUNDS; round++)); do
		sort -n -k "$2,$2" "$work/session.$1.$round" | awk -v c="$2" '{ v[NR] = $c } END { print v[int((NR + 1) / 2)] }'
	done | sort -n >"$work/session.p50"
	for ((round = 1; round <= ROUNDS; round++)); do
		cat "$work/session.$1.$round"
	done | sort -n -k "$2,$2" | awk -v c="$2" -v low="$(head -n 1 "$work/session.p50")" -v high="$(tail -n 1 "$work/session.p50")" '
		{ v[NR] = $c }
		END { printf "%.3f %.3f %.3f %.3f\n", v[int((NR + 1) / 2)] / 1000, v[int(NR * 0.99 + 0.5)] / 1000, low / 1000, high / 1000 }'
}

# Reads and stale reads of a way, warming up included.
session_stale()
{
	cat "$work/session.$1."* | awk '{ n++; stale += $3 } END { print n + 0, stale + 0 }'
}

session_wait_table()
{
	local way w r n floor beyond all=0

	read -r -a floor <<<"$(session_percentiles poll_always 1)"
	report ""
	report "| way | wait, p50, ms | p99 | p50 beyond replay | until the row was read, p50 | p99 | reads | stale |"
	report "|---|---|---|---|---|---|---|---|"
	for way in "${SESSION_WAYS[@]}"; do
		if [ -n "${WHY_NOT[$way]:-}" ]; then
			report "| ${SESSION_NAME[$way]} | ${WHY_NOT[$way]} | n/a | n/a | n/a | n/a | n/a | n/a |"
			continue
		fi
		read -r -a w <<<"$(session_percentiles "$way" 1)"
		read -r -a r <<<"$(session_percentiles "$way" 2)"
		read -r -a n <<<"$(session_stale "$way")"
		beyond=$(awk -v a="${w[0]}" -v b="${floor[0]}" 'BEGIN { printf "%.3f", a - b }')
		[ "$way" != none ] || beyond=n/a
		report "| ${SESSION_NAME[$way]} | ${w[0]} (${w[2]} to ${w[3]}) | ${w[1]} | $beyond | ${r[0]} | ${r[1]} | ${n[0]} | ${n[1]} |"
		[ "$way" = none ] || all=$((all + n[1]))
	done
	SESSION_STALE=$all
	if [ "$all" != 0 ]; then
		report ""
		report "**$all reads were stale although they had waited.**"
		FAILED=1
	fi
}

# ---- replay

# Both standbys hold a backlog that they have received and not replayed. SESSION_TOKEN: its end; SESSION_FROM: its start.
session_backlog()
{
	local standby

	SESSION_FROM=$(sql a "SELECT pg_current_wal_flush_lsn()")
	for standby in s t; do
		sql "$standby" "SELECT pg_wal_replay_pause()" >/dev/null
		session_await "$standby" "pg_get_wal_replay_pause_state() = 'paused'"
	done
	PGOPTIONS="-c synchronous_commit=off" sql a "CALL session_commits($SESSION_BACKLOG)"
	SESSION_TOKEN=$(sql a "SET concord.track = writes; UPDATE session_counter SET v = v + 1; SHOW concord.token")
	SESSION_TO=${SESSION_TOKEN##*:}
	SESSION_TO=${SESSION_TO#*/}
	for standby in s t; do
		session_await "$standby" "pg_last_wal_receive_lsn() >= '$SESSION_TO'"
	done
}

# The tokens that are waited for: none, none by sessions that are there, spread over the backlog, or beyond its end.
session_tokens()
{
	local first=$SESSION_FROM last=$SESSION_TO

	case $1 in
		none) return ;;
		connected) seq "$SESSION_WAITERS" | sed 's/.*//'; return ;;
		beyond) first=FF/0 last=FF/10000000 ;;
	esac
	sql a "SELECT '${SESSION_TOKEN%"$SESSION_TO"}' ||
			('$first'::pg_lsn + trunc(('$last'::pg_lsn - '$first'::pg_lsn) * i / ($SESSION_WAITERS + 1)))
		FROM generate_series(1, $SESSION_WAITERS) AS i"
}

# Lines of session.replay: where the waiters are, round, then of each role milliseconds, those of processor time, reached.
session_replay()
{
	local round where role expected standby i
	declare -A took

	for ((round = 0; round <= ROUNDS; round++)); do
		for where in none connected spread beyond; do
			session_backlog
			for ((i = 0; i < 2; i++)); do
				role=preloaded standby=$SESSION_PRELOADED expected=0
				(((i + round) % 2)) || role=plain standby=$SESSION_PLAIN
				[ "$role.$where" != preloaded.spread ] || expected=$SESSION_WAITERS
				session_tokens "$([ "$role.$where" = plain.none ] && echo none || echo connected)" >"$work/session.tokens"
				[ "$role" = plain ] || session_tokens "$where" >"$work/session.tokens"
				await_quiet
				took[$role]=$(session_client replay "$(session_conninfo "$standby")" "$SESSION_TO" "$expected" \
					<"$work/session.tokens")
				[ "${took[$role]##* }" = "$expected" ] || { note "bench: ${took[$role]##* } of $expected waits ended"; FAILED=1; }
			done
			echo "$where $round ${took[plain]} ${took[preloaded]}" >>"$work/session.replay"
		done
		standby=$SESSION_PRELOADED SESSION_PRELOADED=$SESSION_PLAIN SESSION_PLAIN=$standby
		session_preload
	done
}

# session_replayed <where>: commits per second and microseconds of processor time for each, plain and preloaded; then the
# ratios preloaded : plain of rate and of processor time, each with lowest and highest of the rounds
session_replayed()
{
	awk -v where="$1" -v n="$SESSION_BACKLOG" '
		function median(v, n,    i, j, t)		# sorts v
		{
			for (i = 2; i <= n; i++)
				for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
			return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
		}
		$1 == where && $2 > 0 {
			r++
			a[r] = n / $3 * 1000; b[r] = $4 / n * 1000; c[r] = n / $6 * 1000; d[r] = $7 / n * 1000
			rate[r] = $3 / $6; cpu[r] = $7 / $4
		}
		END {
			printf "%.0f %.2f %.0f %.2f ", median(a, r), median(b, r), median(c, r), median(d, r)
			m = median(rate, r)
			printf "%.3f %.3f %.3f ", m, rate[1], rate[r]
			m = median(cpu, r)
			printf "%.3f %.3f %.3f\n", m, cpu[1], cpu[r]
		}' "$work/session.replay"
}

session_replay_table()
{
	local where title s

	report ""
	report "| replay of $SESSION_BACKLOG commits | per second | without the preload | ratio | startup process, us per commit | without the preload | ratio |"
	report "|---|---|---|---|---|---|---|"
	for where in none connected spread beyond; do
		read -r -a s <<<"$(session_replayed "$where")"
		title="$SESSION_WAITERS ${SESSION_NAME[$where]}"
		[ "$where" != none ] || title="nobody is connected"
		report "| $title | ${s[2]} | ${s[0]} | ${s[4]} (${s[5]} to ${s[6]}) | ${s[3]} | ${s[1]} | ${s[7]} (${s[8]} to ${s[9]}) |"
	done
}

# ---- a standby that has nothing to do

session_idle()
{
	local s

	await_quiet
	read -r -a s <<<"$(session_client idle "$(session_conninfo "$SESSION_PRELOADED")" "$SESSION_IDLE" </dev/null)"
	SESSION_IDLE_MS=${s[0]}
	session_tokens beyond >"$work/session.tokens"
	await_quiet
	read -r -a s <<<"$(session_client idle "$(session_conninfo "$SESSION_PRELOADED")" "$SESSION_IDLE" <"$work/session.tokens")"
	SESSION_IDLE_WAITED_MS=${s[0]}
	SESSION_IDLE_WAITERS_MS=${s[1]}
	read -r -a s <<<"$(session_client idle "$(session_conninfo "$SESSION_PLAIN")" "$SESSION_IDLE" </dev/null)"
	SESSION_IDLE_PLAIN_MS=${s[0]}
}

# ---- keeping the token

session_track()
{
	local case clients track entries ROUNDS=$((ROUNDS * 3)) SLICE=1 PGBENCH_OPTIONS="-s $SESSION_SCALE"

	for case in select-only simple-update; do
		entries=()
		for track in "${SESSION_TRACKS[@]}"; do
			entries+=("$track=a:$work/session.$case")
		done
		for clients in 1 8; do
			note "bench: session $case, $clients client(s)"
			measure session "$case" "$clients" "${entries[@]}"
		done
	done
}

# Instructions (user code) of the backend of pgbench's one session with so many transactions, valgrind's count: a backend
# logs its end, and so is told from others.
session_instructions_of()
{
	local track=$1 case=$2 transactions=$3 log=$work/$SESSION_COUNTED.log try pids from
	from=$(($(wc -l <"$log") + 1))

	PGOPTIONS="${OPTIONS_OF["session $track"]} -c log_disconnections=on" "$PG_BIN/pgbench" -n -M prepared -t "$transactions" \
		-s "$SESSION_SCALE" -h "$CLIENT_HOST" -p "${PORT[$SESSION_COUNTED]}" -f "$work/session.$case" >"$work/pgbench.out" 2>&1 ||
		{ tail -n 5 "$work/pgbench.out" >&2; return 1; }
	for try in $(seq 1 100); do
		# pgbench's first connection runs no transaction
		pids=$(tail -n "+$from" "$log" | sed -n 's/.*\[\([0-9]*\)\] LOG:  disconnection: .*/\1/p' | tr '\n' ' ')
		awk -v pids="$pids" '
			BEGIN { want = split(pids, p, " "); for (i in p) wanted["==" p[i] "=="] }
			$1 in wanted && $2 == "I" { gsub(",", "", $4); n++; if ($4 + 0 > most) most = $4 + 0 }
			END { if (want < 2 || n < want) exit 1; printf "%.0f\n", most }' "$work/session.valgrind" && return
		sleep 0.1
	done
	return 1
}

# Lines of session.instructions: case, round, instructions of one transaction with each of SESSION_TRACKS.
session_instructions()
{
	local case round i track few many try
	declare -A one

	command -v valgrind >/dev/null || return 0
	as_server "$PG_BIN/pg_ctl" -D "$work/$SESSION_COUNTED" -w -s stop
	as_server valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file=/dev/null --trace-children=yes \
		--log-file="$work/session.valgrind" "$PG_BIN/postgres" -D "$work/$SESSION_COUNTED" \
		-p "${PORT[$SESSION_COUNTED]}" >>"$work/$SESSION_COUNTED.log" 2>&1 &
	for try in $(seq 1 100); do
		! "$PG_BIN/pg_isready" -q -h "$SOCKETS" -p "${PORT[$SESSION_COUNTED]}" || break
		sleep 0.3
	done
	for case in select-only simple-update; do
		note "bench: session $case, instructions"
		for round in 0 1 2 3; do
			for ((i = 0; i < 3; i++)); do
				track=${SESSION_TRACKS[(i + round) % 3]}
				few=$(session_instructions_of "$track" "$case" 100)
				many=$(session_instructions_of "$track" "$case" "$SESSION_TRANSACTIONS")
				one[$track]=$(((many - few) / (SESSION_TRANSACTIONS - 100)))
			done
			[ "$round" = 0 ] || echo "$case $round ${one[direct]} ${one[writes]} ${one[reads]}" >>"$work/session.instructions"
		done
	done
	as_server "$PG_BIN/pg_ctl" -D "$work/$SESSION_COUNTED" -w -s -m fast stop
	wait "$!" || true
	as_server "$PG_BIN/pg_ctl" -D "$work/$SESSION_COUNTED" -l "$work/$SESSION_COUNTED.log" -w -t 60 -s start
}

# session_counted <case> <column>: median of instructions, of the ratio to "off", lowest and highest of that
session_counted()
{
	awk -v which="$1" -v c="$2" '
		function median(v, n,    i, j, t)		# sorts v
		{
			for (i = 2; i <= n; i++)
				for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
			return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
		}
		$1 == which { n++; v[n] = $c; ratio[n] = $c / $3 }
		END { a = median(v, n); b = median(ratio, n); printf "%.0f %.3f %.3f %.3f\n", a, b, ratio[1], ratio[n] }' \
		"$work/session.instructions"
}

session_instructions_table()
{
	local case i s

	[ -s "$work/session.instructions" ] || return 0
	report ""
	report "| one transaction, user code of its backend | instructions | : off |"
	report "|---|---|---|"
	for case in select-only simple-update; do
		for i in "${!SESSION_TRACKS[@]}"; do
			read -r -a s <<<"$(session_counted "$case" $((i + 3)))"
			report "| $case, ${SESSION_NAME[${SESSION_TRACKS[$i]}]} | ${s[0]} | ${s[1]} (${s[2]} to ${s[3]}) |"
		done
	done
}

session_track_table()
{
	local case clients track s

	for case in select-only simple-update; do
		for clients in 1 8; do
			report ""
			report "| $case, $clients client(s) | latency, ms | per second | latency : off | throughput : off |"
			report "|---|---|---|---|---|"
			for track in "${SESSION_TRACKS[@]}"; do
				if [ -n "${WHY_NOT[$track]:-}" ]; then
					report "| ${SESSION_NAME[$track]} | ${WHY_NOT[$track]} | n/a | n/a | n/a |"
					continue
				fi
				read -r -a s <<<"$(summary session "$case" "$clients" "$track")"
				report "| ${SESSION_NAME[$track]} | ${s[0]} | ${s[1]} | ${s[2]} (${s[3]} to ${s[4]}) | ${s[5]} (${s[6]} to ${s[7]}) |"
			done
		done
	done
}

# One line of the table of targets: title, measured, operator, limit
session_target()
{
	report "| $1 | $3 $4 | $2 | $(verdict "$2" "$3" "$4") |"
}

session_targets()
{
	local w s none connected where case clients

	report ""
	report "| target | limit | measured | |"
	report "|---|---|---|---|"
	read -r -a w <<<"$(session_percentiles set 1)"
	session_target "SET concord.token: call to return, p50, ms" "${w[0]}" '<=' 0.4
	session_target "stale reads after a wait" "$SESSION_STALE" '<=' 0
	read -r -a none <<<"$(session_replayed none)"
	session_target "replay, nobody waits: rate : without the preload" "${none[4]}" '>=' 0.95
	session_target "replay, nobody waits: processor time : without the preload" "${none[7]}" '<=' 1.05
	read -r -a connected <<<"$(session_replayed connected)"
	for where in spread beyond; do
		read -r -a s <<<"$(session_replayed "$where")"
		session_target "replay, $SESSION_WAITERS ${SESSION_NAME[$where]}: rate : nobody waits" \
			"$(awk -v a="${s[4]}" -v b="${connected[4]}" 'BEGIN { printf "%.3f", a / b }')" '>=' 0.95
	done
	session_target "standby without work, nobody waits: startup process, ms in $SESSION_IDLE s" "$SESSION_IDLE_MS" '<=' 5
	for case in select-only simple-update; do
		[ -s "$work/session.instructions" ] || continue
		read -r -a s <<<"$(session_counted "$case" 4)"
		session_target "$case, concord.track = writes: instructions : off" "${s[1]}" '<=' 1.01
	done
	for case in select-only simple-update; do
		for clients in 1 8; do
			[ -z "${WHY_NOT[direct]:-}${WHY_NOT[writes]:-}" ] || continue
			read -r -a s <<<"$(summary session "$case" "$clients" writes)"
			session_target "$case, $clients client(s), concord.track = writes: throughput : off" "${s[5]}" '>=' 0.99
		done
	done
}

session_run()
{
	session_setup
	session_track
	session_instructions
	session_standbys
	note "bench: session, waiting"
	session_loops
	note "bench: session, replay"
	session_replay
	session_idle
	report ""
	report "## Reading one's own write on a standby"
	report ""
	report "One session updates a row, takes concord.token with the answer, and reads the row on a streaming standby, in a loop;"
	report "from the answer to the update until the wait has returned. Polling asks the primary for pg_current_wal_flush_lsn(),"
	report "then the standby for pg_last_wal_replay_lsn(). A wait's p50: of all reads (lowest to highest p50 of a round)."
	session_wait_table
	report ""
	report "A standby resumes replay of a backlog that it has received; so does one without the preload, in turn, and the two"
	report "change places every round; as many sessions are connected to it. Targets with waiters are ratios of this table's."
	session_replay_table
	report ""
	report "A standby to which nothing is written but what idle nodes write, for $SESSION_IDLE s: its startup process used" \
		"$SESSION_IDLE_MS ms of processor time (without the preload: $SESSION_IDLE_PLAIN_MS ms); while $SESSION_WAITERS sessions" \
		"waited $SESSION_IDLE_WAITED_MS ms, and these sessions $SESSION_IDLE_WAITERS_MS ms."
	report ""
	report "What keeping the token costs: pgbench's scripts, scale $SESSION_SCALE, $((ROUNDS * 3)) rounds of 1 s, no standby;"
	report "instructions are counted by valgrind (if installed), nothing else writing, in 3 rounds of 1000 transactions."
	session_track_table
	session_instructions_table
	session_targets
}
