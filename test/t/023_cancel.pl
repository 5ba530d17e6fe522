
# Cancel requests, statement_timeout and the end of a session reach the statement on the other node.

use strict;
use warnings;

use ConcordTest;
use Test::More;

my $cluster = ConcordTest->new(
	nodes => [qw(a b c)],
	proxies => ['c'],
	conf => 'concord.cleanup_timeout = 20s');    # longer than any wait that is right here
$cluster->get($_, 'CREATE TABLE t (v int)') for qw(a b c);

sub on
{
	my ($name, $sql) = @_;
	return "SELECT concord.execute_on('$name', '$sql')";
}
my $sleeping = q(SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep');

sub await_sleep
{
	my ($n) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $cluster->await_sql('b', $sleeping, $n, $n ? 'it runs on b' : 'nothing runs on b');
}

# a cancel request
my $session = $cluster->session('a');
$session->start(on('b', 'SELECT pg_sleep(600)'));
await_sleep(1);
$cluster->cancel($session);
$cluster->expect_failed($session->finish, '57014', qr/user request/, 'cancelled', within => 5);
await_sleep(0);
my $remote = $cluster->get(
	'b', q(SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'concord/a/%'
	AND usename <> 'concord_node'));
is($session->get(on('b', 'SELECT 1')), 1, 'the session goes on');
is($session->get(q(SELECT x FROM concord.query_on('b', 'SELECT pg_backend_pid()') AS (x int))),
	$remote, 'with the same connection');

# in a transaction: the savepoint is lost, not the transaction
$session->get('BEGIN');
$session->get(on('b', 'INSERT INTO t VALUES (1)'));
$session->get('SAVEPOINT s');
$session->start(on('b', 'INSERT INTO t SELECT 2 FROM pg_sleep(600)'));
await_sleep(1);
$cluster->cancel($session);
$cluster->expect_failed(
	$session->finish, '57014',
	qr/user request/,
	'cancelled within a savepoint',
	within => 5);
$session->get('ROLLBACK TO s');
is($session->get(on('b', 'INSERT INTO t VALUES (3)')), 1, 'the transaction goes on');
$session->get('COMMIT');
$cluster->is_sql('b', q(SELECT string_agg(v::text, ',' ORDER BY v) FROM t), '1,3', 'and commits');
await_sleep(0);

# statement_timeout
$session->get(q(SET statement_timeout = '500ms'));
$cluster->expect_error(
	$session, on('b', 'SELECT pg_sleep(600)'),
	'57014', qr/statement timeout/,
	'statement_timeout', within => 5);
await_sleep(0);
$session->get(q(SET statement_timeout = 0));
is($session->get(on('b', 'SELECT 1')), 1, 'the session goes on');

# our own deadline
$session->get('SET concord.statement_deadline = 500');
$cluster->expect_error($session, on('b', 'SELECT pg_sleep(600)'),
	'08006', qr/node "b"/, 'concord.statement_deadline', within => 5);
await_sleep(0);
$session->get('RESET concord.statement_deadline');
is($session->get(on('b', 'SELECT 1')), 1, 'the session goes on');

# a statement that waits for a lock there
my $holder = $cluster->session('b');
$holder->get('BEGIN');
$holder->get('LOCK TABLE t');
$session->start(on('b', 'INSERT INTO t VALUES (4)'));
my $waiting = q(SELECT count(*) FROM pg_locks WHERE NOT granted);
$cluster->await_sql('b', $waiting, 1, 'it waits for a lock');
$cluster->cancel($session);
$cluster->expect_failed($session->finish, '57014', qr/user request/, 'cancelled', within => 5);
$cluster->await_sql('b', $waiting, 0, 'it waits no more');
$session->get(q(SET lock_timeout = '300ms'));
$cluster->expect_error(
	$session, on('b', 'INSERT INTO t VALUES (4)'),
	'55P03',
	qr/lock timeout.*node "b"/s,
	'lock_timeout holds there, too',
	within => 10);
$session->get('RESET lock_timeout');
$holder->get('COMMIT');
is($session->get(on('b', 'INSERT INTO t VALUES (5)')), 1, 'the session goes on');

# the session ends
my $victim = $cluster->session('a');
$victim->start(on('b', 'SELECT pg_sleep(600)'));
await_sleep(1);
$cluster->cancel($victim, 'pg_terminate_backend');
ok(!$victim->finish(20)->{ok}, 'the session is ended by an administrator');
await_sleep(0);

# one of several fails: the others are stopped, not waited for
$cluster->expect_error(
	'a', q(SELECT * FROM concord.query_all('SELECT CASE current_setting(''cluster_name'')
		WHEN ''c'' THEN 1 / (0 * random())::int
		WHEN ''b'' THEN (SELECT 1 FROM pg_sleep(600)) END') AS (x int)),
	'22012', qr/node "c"/, 'an error on one node ends the statement on all', within => 20);
await_sleep(0);

# the answer is on its way: rows are here and must be drained
$session->start(
	q(SELECT count(*) FROM concord.query_on('b', 'SELECT generate_series(1, 100000000), repeat(''x'', 1000)')
	AS (g int, x text)));
$cluster->await_sql('a', 'SELECT count(*) > 0 FROM pg_ls_tmpdir()', 't', 'rows arrive');
$cluster->cancel($session);
$cluster->expect_failed(
	$session->finish, '57014',
	qr/user request/,
	'cancelled in the middle of an answer',
	within => 5);
$cluster->await_sql('b', ConcordTest::remote_backends_sql(q(state = 'active')),
	0, 'nothing is sent any more');
is($session->get(on('b', 'SELECT 1')), 1, 'the session goes on');

# at any time: the peer may be between two messages, where PostgreSQL forgets a cancel request
my $slowest = 0;
my $monitor = $cluster->session('a');
my $started = 'SELECT state FROM pg_stat_activity WHERE pid = ' . $session->pid;
for my $round (1 .. 20)
{
	$session->get('SELECT concord.close_connections()') if $round % 4 == 0;
	$session->start(on('b', 'SELECT pg_sleep(600)'));
	await(sub { return $monitor->get($started) eq 'active'; }, 10);
	$monitor->get('SELECT pg_cancel_backend(' . $session->pid . ')');
	my $r = $session->finish(60);
	is($r->{sqlstate}, '57014', "cancelled early, round $round");
	$slowest = $r->{waited} if $r->{waited} > $slowest;
}
cmp_ok($slowest, '<', 5, 'none had to wait for concord.cleanup_timeout');
await_sleep(0);

# a cancel request that cannot be delivered
my $proxy = $cluster->proxy('c');
$session->get(q(SET concord.cleanup_timeout = '1s'));
is($session->get(on('c', 'SELECT 1')), 1, 'connected');
$session->start(on('c', 'SELECT pg_sleep(600)'));
$cluster->await_sql('c', $sleeping, 1, 'it runs on c');
$proxy->refuse;
$cluster->cancel($session);
$cluster->expect_failed(
	$session->finish, '57014',
	qr/user request/,
	'the wait is bounded by concord.cleanup_timeout',
	within => 10);
$cluster->expect_error(
	$session, on('c', 'SELECT 1'),
	qr/^08/, qr/node "c"/,
	'the connection is not used again',
	within => 5);
$cluster->await_sql('c', $sleeping, 0, 'and the peer notices that nobody waits any more');
$proxy->pass;
is($session->get(on('c', 'SELECT 1')), 1, 'a new connection is made');

$_->quit for $session, $holder, $monitor;
$cluster->no_leftovers;
done_testing();
