
# Lease locks when nodes stand still or are cut off: others get the lock after the lease, and the holder who comes back is
# refused; without a majority nobody waits for ever, and nothing is left behind.

use strict;
use warnings;

use ConcordLock;
use ConcordTest;
use Test::More;
use Time::HiRes qw(time);

my $lease   = 3;
my $cluster = lock_cluster(
	proxies => [qw(a b c)],
	conf    => "concord.lease_duration = ${lease}s\nconcord.register_timeout = 3s\nconcord.on_lock_loss = nothing");
my @nodes = qw(a b c);
$cluster->get($_, 'CREATE TABLE guarded (n int)') for @nodes;
$cluster->get($_, 'INSERT INTO guarded VALUES (0)') for @nodes;
my %s = map { $_ => $cluster->session($_) } @nodes;

# ---- a whole node stands still beyond its lease, its session in the midst of a transaction

my $fence = $s{a}->get(lock_sql('x'));
$s{a}->get("SELECT concord.execute_on('b', 'SELECT concord.check_fence(\$1, \$2)', 'x', $fence\::bigint)");
$s{a}->get('BEGIN');
$s{a}->get('UPDATE guarded SET n = 1');
my $idle = $cluster->session('a');
$idle->get(q(SET concord.on_lock_loss = cancel));
$idle->get(lock_sql('idle'));
my $busy = $cluster->session('a');
$busy->get(q(SET concord.on_lock_loss = cancel));
$busy->get(lock_sql('busy'));
$busy->start('SELECT pg_sleep(300)');
my $doomed = $cluster->session('a');
$doomed->get(q(SET concord.on_lock_loss = terminate));
$doomed->get(lock_sql('doomed'));
my $queued = $cluster->session('a');
$s{c}->get(lock_sql('elsewhere'));
$queued->start(lock_sql('elsewhere'));
await_queue($cluster, 'elsewhere', 1, 1, 'a session of a waits for a lock of c');
$cluster->{frozen}{a} = 1;
$cluster->freeze('a');
my $began = time();
$s{b}->start(lock_sql('x'));
my $next = $s{b}->finish(30)->{out};
cmp_ok($next, '>', $fence, 'the next one gets it, with a higher fence');
cmp_ok(time() - $began, '>', $lease * 2 / 3 - 0.5, 'not before the lease was over');
cmp_ok(time() - $began, '<', 2 * $lease, 'but soon then');
$s{b}->get("SELECT concord.check_fence('x', $next)");
$s{c}->start(lock_sql('idle'));
cmp_ok($s{c}->finish(30)->{out}, '>', 0, 'and others another lock of that node');
$cluster->thaw('a');
$cluster->{frozen}{a} = 0;
$cluster->expect_failed($s{a}->run('COMMIT'), 'PC008', qr/lock "x" was lost/, 'what was written before cannot be committed');
is($s{a}->get(q(SELECT concord.lock_remaining('x'))), '00:00:00', 'the lock has no time left');
$cluster->expect_error($s{a}, "SELECT concord.execute_on('b', 'SELECT concord.check_fence(\$1, \$2)', 'x', $fence\::bigint)", 'PC005', qr/superseded by $next/, 'the old fence is refused where the data is');
is($cluster->get('a', 'SELECT n FROM guarded'), 0, 'nothing was written');
is($s{a}->get('SELECT concord.unlock_all()'), 1, 'it lets go of it');
is($s{a}->get('UPDATE guarded SET n = 0 RETURNING n'), 0, 'and can write');
$cluster->expect_failed($busy->finish(20), '57014', qr/canceling statement/, 'a running statement of who has lost a lock is cancelled');
$cluster->expect_error($busy, 'UPDATE guarded SET n = 3', 'PC008', qr/lock "busy" was lost/, 'and its session can commit nothing');
is($idle->get(q(SELECT concord.lock_remaining('idle'))), '00:00:00', 'an idle one finds it lost');
ok(await(sub { return !ConcordTest::process_exists($doomed->pid) }, 20), 'a session is terminated if it is to be');
ok($queued->busy, 'who waited on that node still waits');
is($s{c}->get(q(SELECT concord.unlock('elsewhere'))), 't', 'and when it is its turn');
cmp_ok($queued->finish(30)->{out} || 0, '>', 0, 'it gets the lock, under the lease that the node has by then');
$_->quit for $idle, $busy, $doomed, $queued;
$s{$_}->get('SELECT concord.unlock_all()') for @nodes;

# ---- a grant that comes when the lease of who waits has run out is told when there is a lease again

my $keeps = $cluster->session('a');
$keeps->get(lock_sql('kept'));
$s{c}->get(lock_sql('late'));
$s{a}->start(lock_sql('late'));
await_queue($cluster, 'late', 1, 1, 'a waits');
my $registrar = registrar($cluster, 'a');
kill 'STOP', $registrar;
is($s{c}->get(q(SELECT concord.unlock('late'))), 't', 'it is granted, and a does not hear of it');
ok(await(sub { return $keeps->get(q(SELECT concord.lock_remaining('kept') = '0')) eq 't' }, 20), 'until the lease of a is over');
kill 'CONT', $registrar;
my $late = $s{a}->finish(20);
cmp_ok($late->{out} || 0, '>', 0, 'it is told of the lock') or diag($late->{stderr});
is($s{a}->get(q(SELECT concord.lock_remaining('late') > '0')), 't', 'when it can rely on it');
$keeps->quit;
$s{a}->get('SELECT concord.unlock_all()');

# ---- a node is cut off from the others, in each direction

for my $direction (qw(out in))
{
	# out: what a asks of the others; in: what the others ask of a
	my @cut = $direction eq 'out' ? qw(b c) : ('a');
	$fence = $s{a}->get(lock_sql('x'));
	$cluster->proxy($_)->hold('both', $direction eq 'out' ? (application_name => '^concord/a/') : ()) for @cut;
	$began = time();
	$s{b}->start(lock_sql('x'));
	if ($direction eq 'out')
	{
		$cluster->expect_error($s{a}, 'SELECT pg_sleep(' . ($lease + 0.2) . '); UPDATE guarded SET n = 4;', 'PC008', qr/lock "x" was lost/,
			'a node that reaches no majority knows when its lease is over');
		cmp_ok($s{b}->finish(30)->{out} || 0, '>', $fence, 'another one gets the lock');
		cmp_ok(time() - $began, '>', $lease * 2 / 3 - 0.5, 'not before the lease was over');
		is($cluster->get('c', q(SELECT concord.try_lock('x') IS NULL)), 't', 'the others go on');
		$cluster->expect_error('a', lock_sql('new', 'exclusive', q('2 s')), 'PC006', qr/no majority/, 'a node without a majority gives no lock', within => 10);
	}
	else
	{
		await_queue($cluster, 'x', 1, 1, 'b waits');
		is($s{a}->get("SELECT pg_sleep(@{[2 * $lease]}); SELECT concord.lock_remaining('x') > '0'"), "\nt", 'a node that cannot be reached, and reaches the others, keeps its lock');
		is($s{a}->get('UPDATE guarded SET n = 5 RETURNING n'), 5, 'and writes');
		ok($s{b}->busy, 'the others wait');
		$s{a}->get(q(SELECT concord.unlock('x')));
		cmp_ok($s{b}->finish(30)->{out} || 0, '>', $fence, 'until it gives it back');
	}
	$cluster->proxy($_)->pass for @cut;
	is($s{b}->get('SELECT concord.unlock_all()'), 1, 'b gives it back');
	$s{a}->get('SELECT concord.unlock_all()');
	is($s{a}->get(lock_sql('x') . ' > 0'), 't', 'when all is well again a gets it');
	$s{a}->get('SELECT concord.unlock_all()');
	await_queue($cluster, 'x', 0, 0, 'and nothing is left in it');
}

# ---- no majority at all: an error within the wait, and what got in somewhere is removed

$s{b}->get(lock_sql('held'));
$s{a}->get(lock_sql('warm'));
# a's acceptor alone is asked: it accepts, and nobody else hears of it
$cluster->proxy($_)->hold('both') for qw(b c);
$began = time();
$cluster->expect_error($s{a}, lock_sql('got in', 'exclusive', q('1 s')), 'PC006', qr/no majority of the acceptors/, 'no majority', within => 3);
$cluster->expect_error($s{a}, q(SELECT concord.try_lock('got in')), 'PC006', qr/no majority of the acceptors/, 'also for who does not wait', within => 8);
my $result = $s{a}->run(q(SELECT concord.unlock('warm')), 20);
is($result->{out}, 't', 'giving back does not wait for ever either');
like($result->{stderr}, qr/WARNING:  PC006: no majority/, 'with a warning');
$cluster->proxy($_)->pass for qw(b c);
is($s{c}->get(lock_sql('got in') . ' > 0'), 't', 'when there is a majority nobody is blocked by what was given up');
await_queue($cluster, 'got in', 1, 0, 'and it is not in the queue');
is($s{c}->get(lock_sql('warm') . ' > 0'), 't', 'what was given back is free');
await_queue($cluster, 'held', 0, 0, 'a lock that its node could not keep is free by then', 30) if $s{b}->get(q(SELECT concord.lock_remaining('held') = '0')) eq 't';
$s{$_}->get('SELECT concord.unlock_all()') for @nodes;

# ---- it does not spin

# Processor time of the registrar in clock ticks
sub ticks
{
	my ($node) = @_;
	open my $fh, '<', '/proc/' . registrar($cluster, $node) . '/stat' or die $!;
	my @field = split / /, <$fh> =~ s/^.*\) //r;
	return $field[11] + $field[12];
}

sub spends
{
	my ($node, $seconds, $most, $name) = @_;
	my $before = ticks($node);
	select(undef, undef, undef, $seconds);
	my $spent = ticks($node) - $before;
	cmp_ok($spent, '<=', $most * $seconds, "$name: $spent ticks of " . 100 * $seconds);
	return;
}

$s{a}->get(lock_sql('x'));
spends('a', 3, 3, 'an idle holder');
my @crowd = map { $cluster->session('a') } 1 .. 20;
$_->start(lock_sql('x')) for @crowd;
await_queue($cluster, 'x', 1, 20, 'twenty wait');
spends('a', 3, 5, 'twenty waiters');
$cluster->proxy('b')->hold('both');
spends('a', 3, 8, 'and one acceptor away');
$cluster->proxy('c')->hold('both');
spends('a', 6, 8, 'and no majority');
$cluster->proxy($_)->pass for qw(b c);
$s{a}->get('SELECT concord.unlock_all()');
my $served = 0;
while (@crowd)
{
	await(sub { return grep { !$_->busy } @crowd }, 20) or last;
	my ($session) = grep { !$_->busy } @crowd;
	@crowd = grep { $_ != $session } @crowd;
	$served++ if $session->finish->{ok};
	$session->get('SELECT concord.unlock_all()');
	$session->quit;
}
is($served, 20, 'all of them get it, one after another');

$_->quit for values %s;
$cluster->no_leftovers;
done_testing();
