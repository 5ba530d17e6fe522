
# Registers: one value by name, kept by a majority of the acceptors.

use strict;
use warnings;

use ConcordTest;
use Test::More;

my $cluster = ConcordTest->new(
	nodes => [qw(a b c d)],
	proxies => [qw(a b c)],
	conf  => "concord.register_timeout = 20s\nconcord.down_after = 2s\nautovacuum = off");

sub acceptors { return q(SELECT string_agg(node, ' ' ORDER BY node) FROM concord.acceptors); }

# ---- the set of acceptors forms by itself

$cluster->await_sql($_, acceptors(), 'a b c', "$_ knows the acceptors") for qw(a b c d);

# ---- what one node writes every node reads

is($cluster->get('a', q(SELECT coalesce(value, 'none') || version FROM concord.register_get('x'))), 'none0', 'nothing was written yet');
my $v1 = $cluster->get('a', q(SELECT concord.register_set('x', 'one', 0)));
cmp_ok($v1, '>', 0, 'a register is made');
is($cluster->get($_, q(SELECT value || version FROM concord.register_get('x'))), "one$v1", "$_ reads it") for qw(a b c d);
my $v2 = $cluster->get('d', "SELECT concord.register_set('x', 'two', $v1)");
cmp_ok($v2, '>', $v1, 'versions grow');
is($cluster->get($_, q(SELECT value || version FROM concord.register_get('x'))), "two$v2", "$_ reads what another wrote") for qw(a b c d);
done_testing();
