#!/bin/bash
# check-shell.sh [root]: shellcheck over every shell script.  (SC2034 and SC2154 do not see through sourced files.)
cd "${1:-$(dirname "$0")/../..}" || exit 1
mapfile -t scripts < <(find test .ci -name '*.sh' -o -path .ci/run)
exec shellcheck --shell=bash --external-sources --source-path=SCRIPTDIR --severity=warning --exclude=SC2034,SC2154 \
	"${scripts[@]}"
