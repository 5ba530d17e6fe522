
# A node that keeps its connections and answers nothing (SIGSTOP): every wait has its bound.

use strict;
use warnings;

use ConcordTest;
use Test::More;

my $cluster = ConcordTest->new(
	nodes => [qw(a b c)],
	conf => "concord.connect_timeout = 2s\nconcord.cleanup_timeout = 1s");
$cluster->get('c', 'CREATE TABLE t (v int)');

sub on
{
	my ($name, $sql) = @_;
	return "SELECT concord.execute_on('$name', '$sql')";
}
my $of_users = ConcordTest::remote_backends_sql("state <> 'idle'");

my %session =
  map { $_ => $cluster->session('a') } qw(deadline timeout cancel idle commit rollback all);
$_->get(on('c', 'SELECT 1')) for values %session;
$_->get(on('b', 'SELECT 1')) for values %session;
for my $name (qw(commit rollback))
{
	$session{$name}->get('BEGIN');
	$session{$name}->get(on('c', 'INSERT INTO t VALUES (1)'));
}

$cluster->freeze('c');

$session{deadline}->get('SET concord.statement_deadline = 1000');
$cluster->expect_error(
	$session{deadline}, on('c', 'SELECT 1'),
	'08006',
	qr/node "c".* 1000 ms/s,
	'concord.statement_deadline ends the wait',
	within => 5);
$session{timeout}->get('SET statement_timeout = 1000');
$cluster->expect_error(
	$session{timeout}, on('c', 'SELECT 1'),
	'57014',
	qr/statement timeout/,
	'statement_timeout ends the wait',
	within => 5);
$session{cancel}->start(on('c', 'SELECT 1'));
$cluster->await_sql('a', 'SELECT state FROM pg_stat_activity WHERE pid = ' . $session{cancel}->pid,
	'active', 'waiting');
$cluster->cancel($session{cancel});
$cluster->expect_failed(
	$session{cancel}->finish,
	'57014',
	qr/user request/,
	'a cancel request ends the wait',
	within => 10);
$cluster->expect_error(
	'a', on('c', 'SELECT 1'),
	qr/^08/,
	qr/node "c".*(2000 ms|heartbeats)/s,
	'concord.connect_timeout ends the wait for a connection',
	within => 6);

# at the end of a transaction
# (its own statement_timeout has ended by then, as with any COMMIT of PostgreSQL)
$session{commit}->get('SET concord.statement_deadline = 1000');
$cluster->expect_error(
	$session{commit}, 'COMMIT', '08007', qr/node "c"/,
	'COMMIT without an answer: the outcome is unknown',
	within => 8);
my $r = $session{rollback}->run('ROLLBACK', 20);
ok($r->{ok}, 'ROLLBACK succeeds') or diag $r->{stderr};
cmp_ok($r->{seconds}, '<=', 4, 'in bounded time');

# several at once: those that answer are not left working
$session{all}->get('SET concord.statement_deadline = 1000');
$cluster->expect_error(
	$session{all}, q(SELECT * FROM concord.query_all('SELECT 1') AS (x int)),
	'08006',
	qr/node "c".* 1000 ms/s,
	'a query of all names the silent one',
	within => 5);
$cluster->await_sql('b', $of_users, 0, 'and leaves nothing open on the others');

for my $name (sort keys %session)
{
	$session{$name}->get('RESET ALL');
	is($session{$name}->get(on('b', 'SELECT 1')), 1, "the session is usable afterwards: $name");
}

# those who only look do not wait
$cluster->await_sql('a', q(SELECT state FROM concord.nodes WHERE node = 'c'),
	'down', 'seen as down');
for my $view (qw(nodes replicas slots connections))
{
	my $look = $cluster->run('b', "SELECT count(*) FROM concord.$view");
	ok($look->{ok}, "view $view") or diag $look->{stderr};
	cmp_ok($look->{seconds}, '<=', 4, "view $view does not wait");
}
my $doctor = $cluster->run('b',
	q(SELECT string_agg(DISTINCT status, ',') FROM concord.check_cluster() WHERE node = 'c'));
like($doctor->{out}, qr/error/, 'the doctor reports it');
cmp_ok($doctor->{seconds}, '<=', 6, 'and does not wait for long');

# nor is shutdown held up, nor a restart
my $started = time();
$cluster->stop('b');
cmp_ok(time() - $started, '<=', 10, 'a fast shutdown does not wait for a silent peer');
$cluster->start('b');
$cluster->is_sql('b', on('a', 'SELECT 1'), 1, 'started beside a silent peer');

$cluster->thaw('c');

$cluster->await_sql('c', $of_users, 0, 'the remote backends have gone or rest');
$cluster->await_sql('c',
	q(SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND relation = 't'::regclass),
	0, 'with their locks');
$cluster->await_sql('a', q(SELECT state FROM concord.nodes WHERE node = 'c'),
	'up', 'seen as up again');
for my $name (sort keys %session)
{
	is($session{$name}->get(on('c', 'SELECT 1')), 1, "reached again: $name");
}
like($cluster->get('c', 'SELECT count(*) FROM t'),
	qr/^[01]$/, 'the unknown COMMIT was done once or not at all');

$_->quit for values %session;
$cluster->await_sql('c', ConcordTest::remote_backends_sql('true'),
	0, 'no session is left on the peer');
$cluster->no_leftovers;
done_testing();
