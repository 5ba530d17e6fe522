
# A standby that was promoted in the place of a node does not take its predecessor for dead: it waits for the end of that
# one's lease, which may be standing still with a lock.  Nor does a server that was restored from a backup.

use strict;
use warnings;

use ConcordLock;
use ConcordTest;
use PostgreSQL::Test::RecursiveCopy;
use Test::More;
use Time::HiRes qw(time);

my $lease   = 8;
my $cluster = lock_cluster(streaming => [qw(b c)], conf => "concord.lease_duration = ${lease}s\nconcord.on_lock_loss = nothing");
$cluster->get('c', 'CREATE TABLE guarded (n int)');

# Asks for x where a new start of a node runs, and says when it was granted.
sub await_lock
{
	my ($node, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $fence = 0;
	ok(await(sub { $fence = eval { $cluster->get($node, q(SELECT concord.lock('x', wait => '20 s')), 30) } || 0 }, 60), $name);
	return ($fence, time());
}

# ---- promoted

$cluster->add_standby('c', 'c1');
my $holder = $cluster->session('c');
my $fence  = $holder->get(lock_sql('x'));
$holder->get('BEGIN');
$holder->get('INSERT INTO guarded VALUES (1)');
$cluster->{frozen}{c} = 1;
my $began = time();
$cluster->freeze('c');
$cluster->get('c1', 'SELECT pg_promote()');
$cluster->get('a', sprintf(q(SELECT concord.set_node('c', '%s')), $cluster->conninfo('c1')));
my ($next, $at) = await_lock('c1', 'the promoted server gets the lock');
cmp_ok($next, '>', $fence, 'with a higher fence');
cmp_ok($at - $began, '>=', $lease * 2 / 3 - 0.2, 'not before the lease of the one that stands still is over');
cmp_ok($at - $began, '<', 3 * $lease, 'but soon then');
$cluster->thaw('c');
$cluster->{frozen}{c} = 0;
$cluster->expect_failed($holder->run('COMMIT'), 'PC008', qr/lock "x" was lost/, 'who had it cannot commit');
is($holder->get(q(SELECT concord.lock_remaining('x'))), '00:00:00', 'it is lost');
$holder->{dead} = 1;
$holder->quit;
$cluster->stop('c', 'immediate');

# ---- restored from a base backup, while the one that was copied stands still

$cluster->node('b')->backup('base');
$holder = $cluster->session('b');
$fence  = $holder->get(lock_sql('x'));
$began  = time();
$cluster->crash('b');
$holder->quit;
my $data = $cluster->node('b')->data_dir;
rename $data, "$data.saved" or die "cannot rename $data: $!";
PostgreSQL::Test::RecursiveCopy::copypath($cluster->node('b')->backup_dir . '/base', $data);
chmod 0700, $data;
$cluster->start('b');
($next, $at) = await_lock('b', 'the restored server gets the lock');
cmp_ok($next, '>', $fence, 'with a higher fence');
cmp_ok($at - $began, '>=', $lease * 2 / 3 - 0.2, 'not before the lease of its predecessor is over');
cmp_ok($at - $began, '<', 3 * $lease, 'but soon then');

done_testing();
