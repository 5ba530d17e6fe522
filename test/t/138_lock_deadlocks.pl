
# Lease locks as they are seen, and cycles of waits that pass through them.

use strict;
use warnings;

use ConcordTest;
use Test::More;

my $cluster = ConcordTest->new(
	nodes => [qw(a b c)],
	conf  => "concord.deadlock_timeout = 200ms\ndeadlock_timeout = 200ms\nconcord.view_timeout = 5s");
my @nodes = qw(a b c);
$cluster->await_sql($_, q(SELECT string_agg(node, ' ' ORDER BY node) FROM concord.acceptors), 'a b c', "$_ knows the acceptors") for @nodes;
my %s = map { $_ => $cluster->session($_) } @nodes;
$s{$_}->get("SET application_name = 'app $_'") for @nodes;

# waits until a session is seen to wait for a lock
sub await_wait
{
	my ($node, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$cluster->await_sql('c', "SELECT count(*) > 0 FROM concord.lock_waits WHERE node = '$node' AND name = '$name' AND blocker_node IS NOT NULL",
		't', "$node waits for $name");
	return;
}

# ---- the views, from any node

my $fence = $s{a}->get(q(SELECT concord.lock('seen')));
$s{b}->start(q(SELECT concord.lock('seen', 'shared')));
await_wait('b', 'seen');
my $pid = $s{a}->pid;
for my $node (@nodes)
{
	is($cluster->get($node, q(SELECT name, mode, state, node, pid, application, fence, remaining > '0'::interval, acquired <= clock_timestamp() + '1 s'::interval FROM concord.locks)),
		"seen|exclusive|held|a|$pid|app a|$fence|t|t", "the holder, seen from $node");
	is($cluster->get($node, q(SELECT name, mode, node, pid, application, waiting < '1 min'::interval, blocker_node, blocker_pid FROM concord.lock_waits)),
		join('|', 'seen', 'shared', 'b', $s{b}->pid, 'app b', 't', 'a', $pid), "who waits, seen from $node");
}
$cluster->get('a', 'CREATE ROLE plain LOGIN');
is($cluster->get('a', q(SELECT role IS NULL, application IS NULL, name FROM concord.locks), undef, user => 'plain'), 't|t|seen',
	'others do not see whose it is');
$s{a}->get(q(SELECT concord.unlock('seen')));
cmp_ok($s{b}->finish->{out}, '>', $fence, 'who waited has it');
is($cluster->get('c', q(SELECT mode, node FROM concord.locks)), 'shared|b', 'and is seen to');
$s{b}->get(q(SELECT concord.unlock('seen')));
is($cluster->get('c', q(SELECT count(*) FROM concord.locks)), 0, 'nobody has it any more');
is($cluster->get('c', q(SELECT count(*) FROM concord.lock_waits)), 0, 'or waits');

# ---- cycles

# Both wait now: one gives up, the other one goes on when the first has let go.
sub one_gives_up
{
	my ($what, $first, $second, $free) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %left = (first => $first, second => $second);
	my ($victim, $result);
	ok(await(sub {
		for my $which (sort keys %left) { $victim //= $which unless $left{$which}->busy; }
		return defined $victim;
	}, 30), "$what: somebody gives up") or return;
	$result = $left{$victim}->finish;
	is($result->{sqlstate}, '40P01', "$what: with a deadlock's error");
	like($result->{detail}, qr/lease lock/, "$what: which names the lock");
	my $other = $left{ $victim eq 'first' ? 'second' : 'first' };
	ok($other->busy, "$what: only one");
	$free->($left{$victim});
	ok($other->finish(30)->{ok}, "$what: the other one goes on");
	return;
}

$s{a}->get(q(SELECT concord.lock('x')));
$s{b}->get(q(SELECT concord.lock('y')));
$s{a}->start(q(SELECT concord.lock('y')));
await_wait('a', 'y');
$s{b}->start(q(SELECT concord.lock('x')));
one_gives_up('two locks', $s{a}, $s{b}, sub { $_[0]->get('SELECT concord.unlock_all()') });
$s{$_}->get('SELECT concord.unlock_all()') for qw(a b);

# two sessions of one node
my $also = $cluster->session('a');
$s{a}->get(q(SELECT concord.lock('x')));
$also->get(q(SELECT concord.lock('y')));
$s{a}->start(q(SELECT concord.lock('y')));
await_wait('a', 'y');
$also->start(q(SELECT concord.lock('x')));
one_gives_up('within a node', $s{a}, $also, sub { $_[0]->get('SELECT concord.unlock_all()') });
$_->get('SELECT concord.unlock_all()') for $s{a}, $also;

# a lock and a row
$cluster->get('b', 'CREATE TABLE t (v int)');
$cluster->get('b', 'INSERT INTO t VALUES (1)');
$s{a}->get(q(SELECT concord.lock('x')));
$s{b}->get('BEGIN');
$s{b}->get('UPDATE t SET v = 2');
$s{a}->get('BEGIN');
$s{a}->start(q{SELECT concord.execute_on('b', 'UPDATE t SET v = 3')});
$cluster->await_sql('b', q(SELECT count(*) FROM pg_locks WHERE NOT granted), 1, 'a waits for a row of b');
$s{b}->start(q(SELECT concord.lock('x')));
one_gives_up('a lock and a row', $s{a}, $s{b}, sub { $_[0]->get('ROLLBACK'); $_[0]->get('SELECT concord.unlock_all()') });
$s{$_}->run('ROLLBACK') for qw(a b);
$s{$_}->get('SELECT concord.unlock_all()') for qw(a b);

# who only waits long is left alone
$s{a}->get(q(SELECT concord.lock('x')));
$s{b}->start(q(SELECT concord.lock('x')));
await_wait('b', 'x');
$s{c}->start(q(SELECT concord.lock('x', wait => '1500 ms')));
is($s{c}->finish->{sqlstate}, '55P03', 'no cycle, no deadlock');
ok($s{b}->busy, 'the one before it waits on');
$s{a}->get(q(SELECT concord.unlock('x')));
ok($s{b}->finish->{ok}, 'and gets it');

# ---- counters

is($cluster->get('c', q(SELECT granted, waited, timed_out, lost, fenced FROM concord.lock_stats)), '0|0|1|0|0', 'what was counted on c');
is($cluster->get('b', q(SELECT granted >= 3, waited >= 2, timed_out FROM concord.lock_stats)), 't|t|0', 'and on b');
$cluster->get('b', q(SELECT concord.check_fence('x', 10)));
is($cluster->run('b', q(SELECT concord.check_fence('x', 8)))->{sqlstate}, 'PC005', 'an old fence');
is($cluster->get('b', q(SELECT fenced FROM concord.lock_stats)), 1, 'is counted');
done_testing();
