
# Lease locks over three acceptors: who holds, who waits, and what happens when somebody goes.

use strict;
use warnings;

use ConcordTest;
use Test::More;
use Time::HiRes qw(time);

my $cluster = ConcordTest->new(
	nodes => [qw(a b c)],
	conf  => "concord.register_timeout = 5s\nconcord.lease_duration = 2s\nconcord.down_after = 2s");
my @nodes = qw(a b c);
$cluster->await_sql($_, q(SELECT string_agg(node, ' ' ORDER BY node) FROM concord.acceptors), 'a b c', "$_ knows the acceptors") for @nodes;

my %session = map { $_ => $cluster->session($_) } @nodes;

# ---- exclusive

my $fence = $session{a}->get(q(SELECT concord.lock('x')));
cmp_ok($fence, '>', 0, 'a lock and its fence');
is($fence % 2, 0, 'of an exclusive holder');
is($session{b}->get(q(SELECT concord.try_lock('x') IS NULL)), 't', 'nobody else gets it');
is($session{a}->get(q(SELECT concord.lock('x'))), $fence, 'its holder takes it again');
is($session{a}->get(q(SELECT concord.unlock('x'))), 't', 'and gives it back');
is($session{b}->get(q(SELECT concord.try_lock('x') IS NULL)), 't', 'it is still held');
is($session{a}->get(q(SELECT concord.lock_remaining('x') > '500 ms'::interval)), 't', 'for some time');
is($session{a}->get(q(SELECT concord.unlock('x'))), 't', 'given back as often as taken');
my $next = $session{b}->get(q(SELECT concord.try_lock('x')));
cmp_ok($next, '>', $fence, 'another one gets it, with a higher fence');

# ---- waiting

$session{c}->start(q(SELECT concord.lock('x')));
select(undef, undef, undef, 0.5);
is($session{b}->get(q(SELECT concord.unlock('x'))), 't', 'b gives it back');
my $third = $session{c}->finish->{out};
cmp_ok($third, '>', $next, 'who waited gets it');
$session{c}->get(q(SELECT concord.unlock('x')));
done_testing();
