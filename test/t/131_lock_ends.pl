
# Lease locks when sessions, servers and registrars end: what they held goes to the next one, at once where that is known,
# after the lease where it is not; who died waiting gets nothing.

use strict;
use warnings;

use ConcordLock;
use ConcordTest;
use Test::More;
use Time::HiRes qw(time);

my $lease   = 6;
my $cluster = lock_cluster(conf => "concord.lease_duration = ${lease}s\nconcord.on_lock_loss = nothing");
my $soon    = $lease / 2;

# The session gets what it waits for within this time.
sub gets
{
	my ($session, $name, $within, $after, $began) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$began //= time();
	my $result = eval { $session->finish(30) } // { ok => 0, stderr => "$@" };
	my $took   = time() - $began;
	ok($result->{ok} && $took <= $within && $took >= ($after // 0), $name)
	  or diag(sprintf('after %.2f s of %.1f .. %.1f: %s', $took, $after // 0, $within, $result->{stderr}));
	return $result->{out} || 0;
}

# ---- a session ends

my $waiter = $cluster->session('b');
my $fence = 0;
for my $how ('quits', 'is terminated')
{
	my $holder = $cluster->session('a');
	$fence = $holder->get(lock_sql('x'));
	$waiter->start(lock_sql('x'));
	await_queue($cluster, 'x', 1, 1, 'b waits for x');
	if   ($how eq 'quits') { $holder->quit; }
	else                   { $cluster->cancel($holder, 'pg_terminate_backend'); }
	cmp_ok(gets($waiter, "b gets it when the holder $how", $soon), '>', $fence, 'with a higher fence');
	$waiter->get(q(SELECT concord.unlock('x')));
}

# ---- a session that ends while it waits is passed over

my $last = $cluster->session('c');
my $holder = $cluster->session('b');
$holder->get(lock_sql('x'));
for my $how ('is terminated', 'is cut off')
{
	my $dies = $cluster->session('a');
	$dies->start(lock_sql('x'));
	await_queue($cluster, 'x', 1, 1, 'a waits');
	$last->start(lock_sql('x')) unless defined $last->{began};
	await_queue($cluster, 'x', 1, 2, 'c waits behind it');
	if   ($how eq 'is terminated') { $cluster->cancel($dies, 'pg_terminate_backend'); }
	else                           { $dies->{psql}{run}->kill_kill; $cluster->cancel($dies, 'pg_terminate_backend'); }
	await_queue($cluster, 'x', 1, 1, "who $how while it waits is taken out of the queue");
	$dies->{dead} = 1;
	$dies->quit;
	if ($how eq 'is terminated')
	{
		$holder->get(q(SELECT concord.unlock('x')));
		gets($last, 'c gets it', $soon);
		($last, $holder) = ($holder, $last);
	}
}
$holder->get(q(SELECT concord.unlock('x')));
gets($last, 'the next one gets it', $soon);
$last->get('SELECT concord.unlock_all()');
await_queue($cluster, 'x', 0, 0, 'nobody is left in it');

# ---- a registrar ends: nothing is lost, nothing is granted twice

my %s = map { $_ => $cluster->session(substr $_, 0, 1) } qw(a1 a2 a3 b1);
my $x = $s{a1}->get(lock_sql('x'));
my $y = $s{b1}->get(lock_sql('y'));
my $alone = $s{a1}->get(lock_sql('alone'));
$s{a2}->start(lock_sql('x'));
await_queue($cluster, 'x', 1, 1, 'a2 waits for x');
$s{a3}->start(lock_sql('y'));
await_queue($cluster, 'y', 1, 1, 'a3 waits for y');
for my $round (1 .. 2)
{
	my $old = registrar($cluster, 'a');
	$cluster->get('a', "SELECT pg_terminate_backend($old)");
	is($s{a1}->get(q(SELECT concord.lock_remaining('x') > '0')), 't', 'a lock is held while no registrar runs');
	await_registrar($cluster, 'a', $old);
	# a request by way of the new one: it has looked at what there was
	is($cluster->get('a', lock_sql("r$round") . ' > 0'), 't', 'it serves');
	is($s{a1}->get(lock_sql('x')), $x, 'what was held still is, under the same fence');
	is($s{a1}->get(lock_sql('alone')), $alone, 'also what nobody waits for');
	is($cluster->get('c', q(SELECT concord.try_lock('alone') IS NULL)), 't', 'and nobody else gets it');
	is($s{a1}->get(q(SELECT concord.unlock('x'))), 't', 'given back once');
	is($cluster->get('c', q(SELECT concord.try_lock('x') IS NULL)), 't', 'nobody else has it');
	ok($s{$_}->busy, "$_ still waits") for qw(a2 a3);
	is($cluster->get('c', q(SELECT concord.try_lock('y') IS NULL)), 't', 'nor what is waited for');
}
is($s{a1}->get(q(SELECT concord.lock_remaining('x') > '1 s')), 't', 'the new registrar renews the lease');
$s{b1}->get(q(SELECT concord.unlock('y')));
cmp_ok(gets($s{a3}, 'who waited meanwhile gets it at once', $soon), '>', $y, 'with a higher fence');
$s{a1}->get(q(SELECT concord.unlock('x')));
cmp_ok(gets($s{a2}, 'also by way of the same registrar', $soon), '>', $x, 'with a higher fence');
$cluster->get('a', 'SELECT pg_terminate_backend(' . registrar($cluster, 'a') . ')');
is($s{a2}->get(q(SELECT concord.unlock('x'))), 't', 'a release while there is no registrar');
is($cluster->get('c', q(SELECT concord.lock('x') > 0), 30), 't', 'is carried out by the next');
$_->quit for values %s;

# ---- a session of a node that ends while its registrar is away

my $short = $cluster->session('a');
$short->get(lock_sql('z'));
my $old = registrar($cluster, 'a');
kill 'STOP', $old;
$short->quit;
$waiter->start(lock_sql('z'));
await_queue($cluster, 'z', 1, 1, 'b waits for what nobody has any more');
kill 'CONT', $old;
gets($waiter, 'it gets it when the registrar is awake', $soon);
$waiter->get('SELECT concord.unlock_all()');

# ---- a backend is killed: the server ends all sessions, and its next start replaces the lease at once

$holder = $cluster->session('a');
$fence  = $holder->get(lock_sql('x'));
my $dead = $cluster->session('a');
$waiter->start(lock_sql('x'));
await_queue($cluster, 'x', 1, 1, 'b waits');
$dead->start(lock_sql('x'));
await_queue($cluster, 'x', 1, 2, 'and another session of a');
kill 'KILL', $holder->pid;
cmp_ok(gets($waiter, 'the next one does not wait for the end of the lease', $soon), '>', $fence, 'with a higher fence');
await_queue($cluster, 'x', 1, 0, 'who waited on that server is gone', 2 * $lease);
$waiter->get('SELECT concord.unlock_all()');
$_->quit for $holder, $dead;
await(sub { return eval { $cluster->get('a', 'SELECT 1', 5) } }, 30);

# ---- a server is killed and stays away: after its lease, and not before

$waiter = $cluster->session('b');
$holder = $cluster->session('a');
$dead   = $cluster->session('a');
$fence  = $holder->get(lock_sql('x'));
$dead->start(lock_sql('x'));
await_queue($cluster, 'x', 1, 1, 'a session of a waits');
$waiter->start(lock_sql('x'));
await_queue($cluster, 'x', 1, 2, 'b behind it');
$last->start(lock_sql('x'));
await_queue($cluster, 'x', 1, 3, 'c behind both');
my $crashed = time();
$cluster->crash('a');
# its last renewal was sent up to a third of the lease before, and its end is not seen before it is over
my $got = gets($waiter, 'b gets it after the lease of a', 2 * $lease, $lease * 2 / 3 - 0.2, $crashed);
cmp_ok($got, '>', $fence, 'with a higher fence');
await_queue($cluster, 'x', 1, 1, 'whoever waited on the dead server is passed over');
$waiter->get(q(SELECT concord.unlock('x')));
gets($last, 'then c', $soon);
$last->get(q(SELECT concord.unlock('x')));
$cluster->start('a');
is($cluster->get('a', lock_sql('x') . ' > 0', 30), 't', 'a takes part again');
$_->quit for $holder, $dead;

# ---- a server that is back within its lease gives back what its sessions had

$holder = $cluster->session('a');
$fence  = $holder->get(lock_sql('x'));
$waiter->start(lock_sql('x'));
await_queue($cluster, 'x', 1, 1, 'b waits');
$cluster->crash('a');
$cluster->start('a');
cmp_ok(gets($waiter, 'the next one gets it as soon as the server is back', $soon), '>', $fence, 'with a higher fence');
$_->quit for $holder, $waiter, $last;

# ---- a majority restarts: nobody has lost anything

$holder = $cluster->session('a');
$waiter = $cluster->session('a');
$fence  = $holder->get(lock_sql('x'));
$waiter->start(lock_sql('x'));
await_queue($cluster, 'x', 1, 1, 'a second session of a waits');
for my $node (qw(b c))
{
	$cluster->stop($node, 'immediate');
	$cluster->start($node);
}
is($holder->get(lock_sql('x')), $fence, 'the holder still has it');
ok($waiter->busy, 'the waiter waits');
is($cluster->get('b', q(SELECT concord.try_lock('x') IS NULL), 30), 't', 'others do not get it');
$holder->get('SELECT concord.unlock_all()');
cmp_ok(gets($waiter, 'then the waiter gets it', $soon), '>', $fence, 'with a higher fence');
$_->quit for $holder, $waiter;

$cluster->no_leftovers(but => qr/was terminated by signal 9|PANIC/);
done_testing();
