
# A node dies and comes back: errors come in bounded time and name it, sessions live on,
# connections are replaced.

use strict;
use warnings;

use ConcordTest;
use Test::More;

my $cluster = ConcordTest->new(nodes => [qw(a b c)]);
$cluster->spread;
$cluster->get($_, 'CREATE TABLE t (v int)') for qw(a b c);

sub state_of
{
	my ($name) = @_;
	return "SELECT state FROM concord.nodes WHERE node = '$name'";
}

sub on
{
	my ($name, $sql) = @_;
	return "SELECT concord.execute_on('$name', '$sql')";
}

$cluster->await_sql('a', 'SELECT count(*) FROM concord.nodes WHERE state = \'up\'', 3,
	'all are up');

my $slots_of_b = q(SELECT count(*) FROM concord.slots WHERE node = 'b');
my $before = $cluster->get('a', $slots_of_b);
cmp_ok($before, '>', 1300, 'b owns slots');

for my $how ('crash', 'immediate', 'fast')
{
	my $idle = $cluster->session('a');
	my $writing = $cluster->session('a');
	my $running = $cluster->session('c');
	is($idle->get(on('b', 'SELECT 1')), 1, "$how: one session has an idle connection");
	$writing->get('BEGIN');
	is($writing->get(on('b', 'INSERT INTO t VALUES (1)')), 1, 'one has written');
	$running->start(on('b', 'SELECT pg_sleep(600)'));
	$cluster->await_sql('b', q(SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'),
		1, 'one waits');

	$how eq 'crash' ? $cluster->crash('b') : $cluster->stop('b', $how);

	$cluster->expect_failed(
		$running->finish(20),
		qr/^(08|57P)/, qr/node "b"/,
		'the one that waits is told',
		within => 60);
	$cluster->expect_error(
		$writing, on('b', 'INSERT INTO t VALUES (2)'),
		qr/^(08|57P)/, qr/node "b"/,
		'the one that has written is told',
		within => 10);
	$cluster->expect_error($writing, on('a', 'SELECT 1'),
		'25P02', qr/aborted/, 'its transaction has failed');
	is($writing->run('COMMIT')->{stderr}, '', 'COMMIT rolls back without another error');

	for my $session ($idle, $running)
	{
		my $r = $cluster->expect_error(
			$session, on('b', 'SELECT 1'),
			qr/^08/, qr/node "b"/,
			'a new statement is refused',
			within => 10);
		like($r->{stderr}, qr/refused/, 'with the cause');
	}
	is($idle->get(on('c', 'SELECT 1')), 1, 'others are reached');
	is($idle->get('SELECT 1'), 1, 'the session lives');
	$cluster->expect_error(
		'c', 'SELECT * FROM concord.query_all(\'SELECT 1\') AS (x int)',
		qr/^08/, qr/node "b"/,
		'a query of all says who is missing',
		within => 10);
	$cluster->await_sql('a', state_of('b'), 'down', 'a sees b down');
	$cluster->await_sql('c', state_of('b'), 'down', 'c sees b down');
	$cluster->is_sql('a', $slots_of_b, $before, 'it keeps its slots');
	$cluster->is_sql('a',
		q(SELECT status FROM concord.check_cluster() WHERE node = 'b' AND item = 'reachable'),
		'error', 'the doctor says so');

	$cluster->start('b');
	is($idle->get(on('b', 'SELECT 1')), 1, "$how: reached again at once");
	is($writing->get(on('b', 'INSERT INTO t VALUES (3)')), 1, 'written again at once');
	$cluster->await_sql($_, state_of('b'), 'up', "$_ sees b up") for qw(a c);
	$cluster->is_sql('b', 'SELECT string_agg(v::text, \',\') FROM t', 3, 'only what was committed');
	$cluster->get('b', 'TRUNCATE t');
	$_->quit for $idle, $writing, $running;
}

# restarted without anybody asking in between: nobody needs to know
my $session = $cluster->session('a');
is($session->get(on('b', 'SELECT 1')), 1, 'connected');
$cluster->crash('b');
$cluster->start('b');
is($session->get(on('b', 'INSERT INTO t VALUES (1)')),
	1, 'a dead connection is replaced at the next transaction');
$session->get('BEGIN');
is($session->get(on('c', 'SELECT 1')), 1, 'a transaction that is under way');
$cluster->crash('b');
$cluster->start('b');
is($session->get(on('b', 'INSERT INTO t VALUES (2)')),
	1, 'replaced at the first use in a transaction');
$session->get('COMMIT');
$cluster->is_sql('b', 'SELECT count(*) FROM t', 2, 'both are there, once');

# a remote session ended by an administrator
my $end = q(SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
	WHERE application_name LIKE 'concord/a/%' AND usename <> 'concord_node');
is($session->get(on('b', 'SELECT 1')), 1, 'connected');
cmp_ok($cluster->get('b', $end), '>=', 1, 'ended');
is($session->get(on('b', 'SELECT 1')), 1, 'between transactions nobody notices');
$session->get('BEGIN');
$session->get(on('b', 'INSERT INTO t VALUES (3)'));
$cluster->get('b', $end);
$cluster->expect_error(
	$session, on('b', 'INSERT INTO t VALUES (4)'),
	qr/^(08006|57P01)$/, qr/node "b"/,
	'in a transaction it is an error, never half a transaction',
	within => 10);
$session->run('ROLLBACK');
$session->get('BEGIN');
$session->get(on('b', 'INSERT INTO t VALUES (5)'));
$cluster->get('b', $end);
$cluster->expect_error(
	$session, 'COMMIT', qr/^(08006|08007|57P01)$/, qr/node "b"/,
	'the same at COMMIT',
	within => 10);
is($session->get(on('b', 'INSERT INTO t VALUES (6)')), 1, 'the session lives');
$cluster->is_sql('b', 'SELECT string_agg(v::text, \',\' ORDER BY v) FROM t',
	'1,2,6', 'all or nothing');
$session->get('BEGIN');
$session->get(on('b', 'INSERT INTO t VALUES (7)'));
$cluster->get('b', $end);
is($session->run('ROLLBACK')->{stderr}, '', 'ROLLBACK has nothing to complain about');

# the coordinator dies
$session->get('BEGIN');
$session->get(on('b', 'INSERT INTO t VALUES (8)'));
$cluster->crash('a');
$cluster->await_sql('b', ConcordTest::remote_backends_sql('true'),
	0, "the coordinator's sessions end with it");
$cluster->is_sql('b', 'SELECT count(*) FROM t WHERE v = 8', 0, 'and its transaction');
$cluster->is_sql('c', on('b', 'SELECT 1'), 1, 'the others go on');
$cluster->start('a');
$cluster->is_sql('a', on('b', 'SELECT 1'), 1, 'back again');
$cluster->await_sql('b', state_of('a'), 'up', 'and seen');

# the coordinator's session dies
my $victim = $cluster->session('a');
$victim->get('BEGIN');
$victim->get(on('b', 'INSERT INTO t VALUES (9)'));
$cluster->cancel($victim, 'pg_terminate_backend');
$cluster->await_sql(
	'b', ConcordTest::remote_backends_sql('xact_start IS NOT NULL'),
	0, 'the branch of a session that was ended is rolled back');

# a node alone
$cluster->stop($_, 'immediate') for qw(b c);
$cluster->is_sql('a', 'SELECT count(*) FROM concord.slots',
	4096, 'the map is there on a node alone');
$cluster->is_sql('a', on('a', 'SELECT 1'), 1, 'it works alone');
$cluster->expect_error(
	'a', on('c', 'SELECT 1'),
	qr/^08/, qr/node "c"/,
	'and names who is missing',
	within => 10);
$cluster->start($_) for qw(b c);
$cluster->await_sql('a', q(SELECT count(*) FROM concord.nodes WHERE state = 'up'),
	3, 'all are up again');
$cluster->is_sql('a', 'SELECT count(*) FROM concord.query_all(\'SELECT 1\') AS (x int)',
	3, 'and answer');

$cluster->no_leftovers;
done_testing();
