#!/bin/bash
# check-clang-tidy.sh [root]: clang's own warnings, its analyzer and clang-tidy's bug checks over src.
cd "${1:-$(dirname "$0")/../..}" || exit 1
pg_config=${PG_CONFIG:-pg_config}

# shellcheck disable=SC2016 # $1 is for the inner shell
find src -name '*.c' -print0 | xargs -0 -r -P 2 -n 1 sh -c '
	clang-tidy --quiet --config-file=test/lint/clang-tidy.yaml "$3" -- \
		-std=gnu99 -DUSE_ASSERT_CHECKING -Wall -Wextra -Wno-unused-parameter -Isrc -isystem "$1" -isystem "$2" 2>&1' \
	sh "$("$pg_config" --includedir-server)" "$("$pg_config" --includedir)" |
	sed -E '/^[0-9]+ warnings? generated\.$/d'
exit "${PIPESTATUS[1]}"
