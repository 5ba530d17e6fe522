
# The launcher and the maintenance workers: they come back, hear SIGHUP, stand in nobody's way.

use strict;
use warnings;

use ConcordTest;
use Test::More;
use Time::HiRes qw(time);

my $cluster = ConcordTest->new(nodes => [qw(a b)]);
my $alive = q(SELECT state FROM concord.nodes WHERE node = 'b');
my $pids =
  q(SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_activity WHERE backend_type = 'pg_concord worker' AND datname = 'app');
my $beats = q(SELECT last_seen FROM concord.nodes WHERE node = 'b');

$cluster->await_sql('a', $alive, 'up', 'b is up');
$cluster->is_sql('a',
	q(SELECT is_local, latency_ms IS NULL OR latency_ms >= 0 FROM concord.nodes WHERE node = 'a'),
	't|t', 'itself');
$cluster->await_sql('a',
	q(SELECT latency_ms > 0 AND latency_ms < 1000 FROM concord.nodes WHERE node = 'b'),
	't', 'latency');
my $seen = $cluster->get('a', $beats);
$cluster->await_sql('a', "SELECT '$seen' < ($beats)", 't', 'heartbeats go on');

# ended by an administrator
my $pid = $cluster->get('a', $pids);
like($pid, qr/^\d+$/, 'one worker');
$cluster->get('a', "SELECT pg_terminate_backend($pid)");
ok( await(sub { my $now = $cluster->get('a', $pids); return $now =~ /^\d+$/ && $now ne $pid; }, 20),
	'a worker that was ended comes back');
my $launcher =
  q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_concord launcher');
$pid = $cluster->get('a', $launcher);
$cluster->get('a', "SELECT pg_terminate_backend($pid)");
ok( await(
		sub { my $now = $cluster->get('a', $launcher); return $now =~ /^\d+$/ && $now ne $pid; },
		30),
	'so does the launcher');
like($cluster->get('a', $pids), qr/^\d+$/, 'there is still one worker');
$seen = $cluster->get('a', $beats);
$cluster->await_sql('a', "SELECT '$seen' < ($beats)", 't', 'heartbeats go on');

# the registrar comes back too, and goes with the worker
my $registrar = q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_concord registrar' AND datname = 'app');
my $ended = $cluster->get('a', $registrar);
like($ended, qr/^\d+$/, 'one registrar');
$cluster->get('a', "SELECT pg_terminate_backend($ended)");
$cluster->await_sql('a', "SELECT pid <> $ended FROM ($registrar) r", 't', 'a registrar that was ended comes back');
$ended = $cluster->get('a', $registrar);
$cluster->get('a', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_concord worker' AND datname = 'app'");
$cluster->await_sql('a', "SELECT pid <> $ended FROM ($registrar) r", 't', 'with its worker another one comes');

# a crash of one process, by which PostgreSQL restarts all
$pid = $cluster->get('a', $pids);
my $position = $cluster->log_position('a');
kill 'KILL', $pid;
ok($cluster->await_log('a', qr/database system is ready to accept connections/, $position, 30),
	'the server restarts itself');
ok( await(
		sub {
			my $r = eval { $cluster->run('a', $pids) };
			return $r && $r->{ok} && $r->{out} =~ /^\d+$/;
		},
		30),
	'with a worker');
$cluster->await_sql('a', $alive, 'up', 'b is up');

# SIGHUP
$cluster->node('a')
  ->append_conf('postgresql.conf',
	"concord.heartbeat_interval = 1h\nconcord.suspect_after = 2h\nconcord.down_after = 3h");
$cluster->node('a')->reload;
ok( await(
		sub {
			my $now = $cluster->get('a', $beats);
			my $until = time() + 1;
			await(sub { return time() > $until; }, 5);
			return $cluster->get('a', $beats) eq $now;
		},
		20),
	'a longer interval is heard');
$cluster->node('a')
  ->append_conf('postgresql.conf',
	"concord.heartbeat_interval = 100ms\nconcord.suspect_after = 1s\nconcord.down_after = 2s\nmax_worker_processes = 20");
$seen = $cluster->get('a', $beats);
$cluster->node('a')->reload;
$cluster->await_sql('a', "SELECT '$seen' < ($beats)", 't', 'a shorter one at once');

# suspect, then down
$cluster->freeze('b');
$cluster->await_sql('a', $alive, 'suspect', 'silence is suspect', 10);
$cluster->await_sql('a', $alive, 'down', 'then down', 10);
$cluster->thaw('b');
$cluster->await_sql('a', $alive, 'up', 'and up again', 10);

# shutdown
for my $mode (qw(fast immediate))
{
	my $started = time();
	$cluster->stop('a', $mode);
	cmp_ok(time() - $started, '<', 10, "a $mode shutdown is not held up");
	$cluster->start('a');
}

# no free worker slot: reported, and tried again
sub worker_is
{
	my ($status, $name, $bound) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $cluster->await_sql('b',
		q(SELECT status FROM concord.check_cluster() WHERE node = 'b' AND item = 'worker'),
		$status, $name, $bound);
}
worker_is('ok', 'the doctor sees the worker');
$cluster->get('b', 'CREATE DATABASE aaa', undef, dbname => 'postgres');
$cluster->get('b', 'CREATE EXTENSION pg_concord', undef, dbname => 'aaa');
$cluster->get('b',
	sprintf(q{SELECT concord.create_cluster('x', '%s')}, $cluster->conninfo('b', 'aaa')),
	undef, dbname => 'aaa');
# one slot for the launcher, one for its look into a database or a worker
$cluster->node('b')
  ->append_conf('postgresql.conf', "max_worker_processes = 1\nmax_logical_replication_workers = 0");
$cluster->node('b')->restart;
worker_is('error', 'the doctor reports that there is no worker');
$cluster->await_sql('b', "SELECT concord.execute_on('a', 'SELECT 1')", 1,
	'statements work without');
$cluster->node('b')->append_conf('postgresql.conf', 'max_worker_processes = 2');
$cluster->node('b')->restart;
my $one =
  q(SELECT string_agg(datname, ' ') FROM pg_stat_activity WHERE backend_type = 'pg_concord worker');
$cluster->await_sql('b', $one, qr/^(aaa|app)$/, 'one slot, one worker');
$cluster->is_sql('b', 'DROP DATABASE aaa', '', 'the other goes', dbname => 'postgres');
$cluster->await_sql('b', $one, 'app', 'a slot that becomes free is found', 30);
worker_is('ok', 'with a slot there is one');
$cluster->await_sql(
	'b', q(SELECT status FROM concord.check_cluster() WHERE node = 'b' AND item = 'registrar'),
	'error', 'the doctor reports that there is no registrar');
$cluster->expect_error('b', q(SELECT * FROM concord.register_get('x')), '55000', qr/registrar/, 'nor are there registers');
$cluster->node('b')
  ->append_conf('postgresql.conf', "max_worker_processes = 8\nmax_logical_replication_workers = 4");
$cluster->node('b')->restart;
worker_is('ok', 'with slots for all');

# several member databases of one server; one that is dropped takes its worker along
for my $i (1 .. 3)
{
	$cluster->get('a', "CREATE DATABASE extra$i", undef, dbname => 'postgres');
	$cluster->get('a', 'CREATE EXTENSION pg_concord', undef, dbname => "extra$i");
	$cluster->get(
		'a',
		sprintf(
			q{SELECT concord.create_cluster('x%d', '%s')},
			$i, $cluster->conninfo('a', "extra$i")),
		undef,
		dbname => "extra$i");
}
my $count =
  q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_concord worker');
$cluster->await_sql('a', $count, 4, 'a worker for each member database');
$cluster->get('a', 'ALTER SYSTEM SET log_min_messages = warning');
$cluster->is_sql('a', "DROP DATABASE extra$_", '', "DROP DATABASE extra$_", dbname => 'postgres')
  for 1 .. 3;
$cluster->await_sql('a', $count, 1, 'only ours is left');
$cluster->is_sql('a', q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_concord registrar'), 1, 'and one registrar');
$cluster->get('a', 'CREATE DATABASE plain', undef, dbname => 'postgres');
$cluster->get('a', 'CREATE EXTENSION pg_concord', undef, dbname => 'plain');
$cluster->is_sql('a', $count, 1, 'a database that is no member needs none');
$cluster->is_sql('a', 'DROP DATABASE plain', '', 'and is dropped', dbname => 'postgres');

# without the preload
my $node = $cluster->node('b');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
$cluster->get('b', 'CREATE DATABASE bare', undef, dbname => 'postgres');
$cluster->is_sql(
	'b', 'CREATE EXTENSION pg_concord',
	'',
	'CREATE EXTENSION works without the preload',
	dbname => 'bare');
for my $sql (
	q(SELECT concord.create_cluster('x', 'host=127.0.0.1')),
	q(SELECT concord.execute_on('a', 'SELECT 1')),
	q(SELECT * FROM concord.query_all('SELECT 1') AS (x int)),
	q(SELECT concord.locate(1)))
{
	for my $db (qw(bare app))
	{
		$cluster->expect_error(
			'b', $sql, '55000', qr/shared_preload_libraries/,
			"without the preload: $sql ($db)",
			dbname => $db);
	}
}
$cluster->is_sql(
	'b', 'SELECT concord.slot(42) = concord.slot(42::int2)',
	't',
	'what needs nothing works',
	dbname => 'bare');
$cluster->await_sql('a',
	q(SELECT count(*) FROM concord.check_cluster() WHERE node = 'b' AND status = 'error'),
	qr/^[1-9]/, 'the doctor of another node reports it');

$cluster->no_leftovers(but => qr/was terminated by signal 9/);
done_testing();
