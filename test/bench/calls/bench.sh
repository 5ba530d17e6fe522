# shellcheck shell=bash disable=SC2034
# calls
#	What one call of slot() and locate() costs, against PostgreSQL's own hash function for the type.

calls_run()
{
	local lines ratio

	note "bench: calls"
	lines=$(sql "$ENTRY" -f "$BENCH_HOME/calls/calls.sql" -v rounds=100) ||
		{ FAILED=1; lines="| failed | | |"; }
	report ""
	report "## One call"
	report ""
	report "| function | ns per call | : the type's hash function |"
	report "|---|---|---|"
	report "$lines"
	ratio=$(awk -F ' *[|] *' '$2 == "concord.slot(bigint)" { print $4 }' <<<"$lines")
	[ -n "$ratio" ] || return 0
	report ""
	report "| target | limit | measured | |"
	report "|---|---|---|---|"
	report "| concord.slot(bigint) : hashint8extended | <= 1.2 | $ratio | $(verdict "$ratio" '<=' 1.2) |"
}
