
# Connections to peers are few, shared out in turn, given back when idle; the nodes' own are
# always open.

use strict;
use warnings;

use ConcordTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $cluster = ConcordTest->new(
	nodes => [qw(a b c)],
	proxies => ['b'],
	node_conf => { a => 'max_connections = 150' });
my $proxy = $cluster->proxy('b');
my @users = (user => '^(?!concord_node$)');
my $there = ConcordTest::remote_backends_sql('true');

sub on
{
	my ($name, $sql) = @_;
	return "SELECT concord.execute_on('$name', '$sql')";
}

# 100 sessions of one node at default settings of the peers: at most 25 connections each, nobody
# is refused
my $script = PostgreSQL::Test::Utils::tempdir() . '/script.sql';
append_to_file($script, <<'SQL');
SELECT * FROM concord.query_on('b', 'SELECT 1') AS (x int);
SELECT * FROM concord.query_on('c', 'SELECT 1') AS (x int);
SQL
my @pgbench = (
	'pgbench', '-n', '-c', 100, '-j', 2, '-t', 10, '-f', $script, '-d',
	$cluster->node('a')->connstr('app'));
my ($out, $err) = ('', '');
my $run = IPC::Run::start(\@pgbench, '<', \undef, '>', \$out, '2>', \$err);
my $most = 0;
while ($run->pumpable)
{
	$run->pump_nb;
	my $now = $cluster->get('b', $there);
	$most = $now if $now > $most;
}
ok($run->finish, '100 sessions share the connections') or diag $err;
like($out, qr{number of transactions actually processed: 1000/1000}, 'every transaction succeeded')
  or diag $out;
cmp_ok($most, '<=', 25, 'with at most concord.max_peer_connections');
cmp_ok($most, '>', 1, 'and more than one');
$cluster->await_sql('b', $there, 0, 'all are closed with their sessions');
my $opened = $proxy->counts(@users)->{connections};
note "$opened connections were made";

# a bound that is reached: waiting, then 53300
$cluster->node('a')->append_conf('postgresql.conf', 'concord.max_peer_connections = 3');
$cluster->node('a')->reload;
$cluster->await_sql('a', 'SHOW concord.max_peer_connections', 3, 'three connections');
my @holders = map { $cluster->session('a') } 1 .. 3;
for my $holder (@holders)
{
	$holder->get('BEGIN');
	is($holder->get(on('b', 'SELECT 1')), 1, 'one is used in a transaction');
}
is($cluster->get('b', $there), 3, 'three are open');
my $fourth = $cluster->session('a');
$fourth->get('SET concord.connect_timeout = 500');
my $r = $cluster->expect_error(
	$fourth, on('b', 'SELECT 1'),
	'53300', qr/node "b"/,
	'a fourth is refused',
	within => 5);
cmp_ok($r->{seconds}, '>=', 0.4, 'after it has waited');
is($fourth->get(on('c', 'SELECT 1')), 1, 'another node is another matter');
$fourth->get('SET concord.connect_timeout = 30000');
$fourth->start(on('b', 'SELECT 1'));
$cluster->await_sql('a',
	'SELECT wait_event_type, state FROM pg_stat_activity WHERE pid = ' . $fourth->pid,
	qr/\|active/, 'a fourth waits');
ok($fourth->busy, 'it waits');
$holders[0]->get('COMMIT');
is($fourth->finish(10)->{out}, 1, 'it gets the connection of a transaction that ended');
is($cluster->get('b', $there) <= 3, 1, 'the bound holds');
$fourth->start('BEGIN; ' . on('b', 'SELECT 1'));
ok($fourth->finish(10)->{ok}, 'it has one');
$holders[0]->start(on('b', 'SELECT 1'));
$cluster->await_sql(
	'a', 'SELECT state FROM pg_stat_activity WHERE pid = ' . $holders[0]->pid,
	'active', 'the first waits in turn');
$cluster->cancel($holders[0]);
$cluster->expect_failed(
	$holders[0]->finish(10),
	'57014',
	qr/user request/,
	'waiting can be cancelled',
	within => 10);
$holders[0]->start(on('b', 'SELECT 1'));
$holders[1]->quit;
is($holders[0]->finish(10)->{out}, 1, 'a session that ends gives its connection back');

# connections that lie idle are there for those who wait
$_->run('COMMIT') for $fourth, @holders[ 0, 2 ];
my @idle = map { $cluster->session('a') } 1 .. 6;
for my $session (@idle, @idle)
{
	is($session->get(on('b', 'SELECT 1')), 1, 'six sessions in turn with three connections');
}
$_->quit for @idle, @holders[ 0, 2 ], $fourth;
$cluster->await_sql('b', $there, 0, 'all are closed');

# a crash of a session does not leak its place
for my $round (1 .. 5)
{
	my $victim = $cluster->session('a');
	$victim->get('BEGIN');
	$victim->get(on('b', 'SELECT 1'));
	$cluster->cancel($victim, 'pg_terminate_backend');
	$victim->quit;
}
$cluster->await_sql('b', $there, 0, 'places of sessions that were ended are free');
is($cluster->get('a', on('b', 'SELECT 1')), 1, 'and can be had');

# nor does a failure to connect
$proxy->refuse;
$cluster->run('a', on('b', 'SELECT 1')) for 1 .. 5;
$proxy->accept;
is($cluster->get('a', on('b', 'SELECT 1')), 1, 'failures to connect take no place');

# idle connections are closed while the session is idle itself
my $session = $cluster->session('a');
$session->get(q(SET concord.connection_idle_timeout = '1s'));
is($session->get(on('b', 'SELECT 1')), 1, 'connected');
is($cluster->get('b', $there), 1, 'open');
is($session->get(q(SELECT count(*) FROM concord.connections WHERE node = 'b')),
	1, 'shown in the view');
$cluster->await_sql('b', $there, 0, 'closed after concord.connection_idle_timeout', 10);
is($session->get(on('b', 'SELECT 1')), 1, 'and made again');
$session->get('BEGIN');
is($session->get(on('b', 'SELECT 1')), 1, 'in a transaction');
my $pid =
  $session->get(q(SELECT x FROM concord.query_on('b', 'SELECT pg_backend_pid()') AS (x int)));
$cluster->await_sql(
	'b', "SELECT now() - state_change > '2.5 s' FROM pg_stat_activity WHERE pid = $pid",
	't', 'idle for longer than that');
is($session->get(q(SELECT x FROM concord.query_on('b', 'SELECT pg_backend_pid()') AS (x int))),
	$pid, 'a transaction keeps its connection however long it is idle');
$session->get('COMMIT');
$session->get(q(RESET concord.connection_idle_timeout));

# reused, not made anew
$proxy->reset_counts;
for (1 .. 10)
{
	$session->get(on('b', 'SELECT 1'));
}
is($proxy->counts(@users)->{connections}, 0, 'ten transactions make no new connection');
my $switches = $proxy->counts(@users)->{switches};
cmp_ok($switches, '<=', 20, 'nor more than two round trips each');
note "$switches round trips";
$session->quit;

# the peer's own limit
$cluster->node('b')
  ->append_conf('postgresql.conf', "max_connections = 12\nsuperuser_reserved_connections = 1");
$cluster->node('a')->append_conf('postgresql.conf', 'concord.max_peer_connections = -1');
$cluster->node('a')->reload;
$cluster->await_sql('a', 'SHOW concord.max_peer_connections', -1, 'no limit of ours');
$cluster->node('b')->restart;
$cluster->await_sql('a', q(SELECT state FROM concord.nodes WHERE node = 'b'), 'up', 'up');
my $seen = $cluster->get('a', q(SELECT last_seen FROM concord.nodes WHERE node = 'b'));
my (@crowd, $refused);

for (1 .. 15)
{
	push @crowd, my $one = $cluster->session('a');
	$one->get('BEGIN');
	my $r = $one->run(on('b', 'SELECT 1'), 20);
	next if $r->{ok};
	$refused = $cluster->expect_failed(
		$r, qr/^(53300|08001)$/,
		qr/node "b".*too many clients/s,
		'a peer that is full',
		within => 10);
	last;
}
ok($refused, 'its limit was reached');
$cluster->await_sql(
	'a', "SELECT state, last_seen > '$seen' FROM concord.nodes WHERE node = 'b'",
	'up|t', 'the nodes still hear each other');
$cluster->get('a', q(SELECT concord.set_node('c', zone => 'z')));
$_->quit for @crowd;
$cluster->await_epoch(20);

# closing by hand
$session = $cluster->session('a');
$session->get(on($_, 'SELECT 1')) for qw(b c);
is($session->get('SELECT count(*) FROM concord.connections'), 2, 'two connections');
$session->get('SELECT concord.close_connections()');
$cluster->await_sql($_, $there, 0, "none on $_ any more") for qw(b c);
is($session->get('SELECT count(*) FROM concord.connections'), 0, 'none in the view');
is($session->get(on('b', 'SELECT 1')), 1, 'and made again');
$session->quit;

$cluster->no_leftovers;
done_testing();
