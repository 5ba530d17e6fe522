#!/bin/bash
# check-cppcheck.sh [root]: cppcheck over src, with what it must know of PostgreSQL in postgres.cfg.
# Uninitialized variables are left to clang's analyzer: cppcheck takes every loop for one that may not run.
cd "${1:-$(dirname "$0")/../..}" || exit 1
exec cppcheck --quiet --std=c99 --language=c --enable=warning,performance,portability \
	--inline-suppr --error-exitcode=1 --library=test/lint/postgres.cfg -j2 \
	--suppress=missingInclude --suppress=uninitvar \
	--suppress=preprocessorErrorDirective --suppress=normalCheckLevelMaxBranches -I src src
