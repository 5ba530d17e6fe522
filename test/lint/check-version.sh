#!/bin/bash
# check-version.sh [root]: the version is the same wherever it stands.
cd "${1:-$(dirname "$0")/../..}" || exit 1
status=0

# version <where> <value>
version() {
	printf '%-24s %s\n' "$1" "$2"
	[ "$2" = "$expected" ] || status=1
}

expected=$(sed -n "s/^default_version *= *'\(.*\)'/\1/p" pg_concord.control)
version pg_concord.control "$expected"
version Makefile "$(sed -n 's/^EXTVERSION *= *//p' Makefile)"
version src/base/settings.h "$(sed -n 's/^#define CONCORD_VERSION[^"]*"\(.*\)".*/\1/p' src/base/settings.h)"
version META.json "$(perl -MJSON::PP -0ne '
	my $m = decode_json($_);
	my $v = $m->{version};
	$v =~ s/\.0$// or $v = "$v (PGXN wants three numbers)";
	print $m->{provides}{pg_concord}{version} eq $m->{version} ? $v : "two versions"' META.json)"
version CHANGELOG.md "$(sed -n 's/^## *\[\{0,1\}v\{0,1\}\([0-9.]*\).*/\1/p' CHANGELOG.md | head -n 1)"

[ $status -eq 0 ] || echo "the versions differ"
exit $status
