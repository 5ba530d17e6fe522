#!/bin/bash
# check-clang-tidy.sh [root]: clang's own warnings, its analyzer and clang-tidy's bug checks over src.
# The analyzer goes down a quarter of its usual paths, in a quarter of the time; CONCORD_SOAK=1: all.
cd "${1:-$(dirname "$0")/../..}" || exit 1
pg_config=${PG_CONFIG:-pg_config}
nodes=60000
[ -z "${CONCORD_SOAK:-}" ] || nodes=225000

# shellcheck disable=SC2016 # $1 to $4 are for the inner shell
find src -name '*.c' -print0 | xargs -0 -r -P 2 -I "{}" sh -c '
	clang-tidy --quiet --config-file=test/lint/clang-tidy.yaml "$1" -- \
		-Xclang -analyzer-config -Xclang "max-nodes=$4" \
		-std=gnu99 -DUSE_ASSERT_CHECKING -Wall -Wextra -Wno-unused-parameter \
		-Isrc -isystem "$2" -isystem "$3" 2>&1' \
	sh "{}" "$("$pg_config" --includedir-server)" "$("$pg_config" --includedir)" "$nodes" |
	sed -E '/^[0-9]+ warnings? generated\.$/d'
exit "${PIPESTATUS[1]}"
