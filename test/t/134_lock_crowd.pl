
# Two hundred sessions of three nodes want one lock: each gets it once, in turn, under a higher fence than the one before,
# and what they guard by it loses no update.

use strict;
use warnings;

use ConcordLock;
use ConcordTest;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my %clients = (a => 67, b => 67, c => 66);
my $all     = 200;
my $cluster = lock_cluster(conf => "max_connections = 300\nconcord.lease_duration = 10s\nlog_statement = none");
$cluster->get('a', 'CREATE TABLE counter (n int); INSERT INTO counter VALUES (0); CREATE TABLE taken (id serial, fence bigint);');

# What is read is written one statement later, with nothing but the lock against others doing so meanwhile.
my $script = "${PostgreSQL::Test::Utils::tmp_check}/crowd.sql";
append_to_file($script, <<'SQL');
SELECT concord.lock('crowd') AS fence \gset
SELECT concord.execute_on('a', 'INSERT INTO taken (fence) VALUES ($1)', :fence::bigint);
SELECT n FROM concord.query_on('a', 'SELECT n FROM counter') AS t(n int) \gset
SELECT concord.execute_on('a', 'UPDATE counter SET n = $1', :n + 1);
SELECT concord.unlock('crowd');
SQL

my $holder = $cluster->session('a');
my $first  = $holder->get(lock_sql('crowd'));
my %out    = map { $_ => '' } keys %clients;
my %run    = map {
	my @pgbench = ('pgbench', '-n', '-c', $clients{$_}, '-t', 1, '-f', $script, '-d', $cluster->node($_)->connstr('app'));
	$_ => IPC::Run::start(\@pgbench, '<', \undef, '>', \$out{$_}, '2>&1')
} sort keys %clients;
await_queue($cluster, 'crowd', 1, $all, 'all of them wait', 60);
my $began = time();
is($holder->get(q(SELECT concord.unlock('crowd'))), 't', 'the chain begins');
for my $node (sort keys %run)
{
	ok($run{$node}->finish, "all of $node have had it") or diag($out{$node});
}
my $took = time() - $began;
note(sprintf('%.1f s, %.1f ms for each', $took, 1000 * $took / $all));
cmp_ok($took, '<', 60, 'in reasonable time');
$cluster->is_sql('a', 'SELECT n FROM counter', $all, 'no update was lost');
$cluster->is_sql('a', 'SELECT count(DISTINCT fence), min(fence) > ' . $first . ' FROM taken', "$all|t", 'each had a fence of its own');
$cluster->is_sql('a', 'SELECT count(*) FROM (SELECT fence - lag(fence) OVER (ORDER BY id) AS d FROM taken) AS s WHERE d <= 0', 0, 'that grew strictly');
await_queue($cluster, 'crowd', 0, 0, 'nobody is left in it');
$holder->quit;

# ---- from node to node: who waits is told, he does not find out by looking now and then

my ($one, $two) = map { $cluster->session($_) } qw(b c);
my $handover = 0;
$one->get(lock_sql('ball'));
for (1 .. 10)
{
	$two->start(lock_sql('ball'));
	await_queue($cluster, 'ball', 1, 1, 'the other one waits');
	my $start = time();
	$one->get(q(SELECT concord.unlock('ball')));
	$two->finish;
	$handover += time() - $start;
	($one, $two) = ($two, $one);
}
cmp_ok($handover, '<', 2, sprintf('ten handovers between nodes, %.0f ms each', 100 * $handover));
$_->quit for $one, $two;
$cluster->no_leftovers;
done_testing();
