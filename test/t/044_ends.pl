
# Ends of transactions that are easily got wrong: an answer that comes late, a session that asks for less durability,
# two nodes on one server, another role, a coordinator's session that vanishes.

use strict;
use warnings;

use ConcordTest;
use Test::More;
use Time::HiRes qw(time);

# a coordinates; d is a second database of b's server, and a node
my $cluster = ConcordTest->new(
	nodes   => [qw(a b)],
	proxies => ['b'],
	conf    => "concord.connect_timeout = 3s\nconcord.resolve_delay = 1min\nwal_writer_delay = 10s");
my $proxy = $cluster->proxy('b');
my @users = (user => '^(?!concord_node$)');
my @second = (dbname => 'second');
$cluster->get('b', 'CREATE DATABASE second', undef, dbname => 'postgres');
$cluster->get('b', 'CREATE EXTENSION pg_concord', undef, @second);
$cluster->get('a', sprintf(q{SELECT concord.add_node('d', 'host=127.0.0.1 port=%d dbname=second')}, $cluster->node('b')->port));
$cluster->await_epoch(20);
$cluster->await_sql('b', q(SELECT count(*) FROM concord.nodes), 3, 'd knows all nodes', undef, @second);
$cluster->get($_, 'CREATE TABLE t (v int PRIMARY KEY)') for qw(a b);
$cluster->get('b', 'CREATE TABLE t (v int PRIMARY KEY)', undef, @second);

my $prepared = 'SELECT count(*) FROM pg_prepared_xacts';
my $mine     = "$prepared WHERE database = current_database()";
# the same after a request not to wait for concord.resolve_delay
my $finished = 'WITH r AS MATERIALIZED (SELECT concord.resolve_transactions())'
  . ' SELECT (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()) FROM r';

sub on
{
	my ($name, $v) = @_;
	return "SELECT concord.execute_on('$name', 'INSERT INTO t VALUES ($v)')";
}
sub has     { return "SELECT count(*) FROM t WHERE v = $_[0]"; }
sub outcome { return "SELECT concord.transaction_outcome('$_[0]')"; }

# Lets the backend stop at a point of a COMMIT that is begun; returns the gid.
sub hold
{
	my ($session, $point) = @_;
	my $gid = $session->get('SHOW concord.transaction');
	$session->get("SET concord.fault_points = '$point=stop'");
	$session->start('COMMIT');
	$cluster->await_stopped($session);
	return $gid;
}

# ---- an error that answers COMMIT PREPARED too late is not that of the next COMMIT

my $session = $cluster->session('a');
$session->get('SET concord.commit_wait = off');
$session->get(on('b', 1));
my $rule = $proxy->rule('to_server', sql => '^COMMIT PREPARED', action => 'hold', @users);
$session->get($_) for ('BEGIN', 'INSERT INTO t VALUES (2)', on('b', 2), 'COMMIT');
ok($proxy->await_hit($rule, 10), 'COMMIT PREPARED is under way');
$cluster->await_sql('b', $finished, 0, 'the resolver is faster');
$session->start(on('b', 3));
$proxy->pass;
my $result = $session->finish(20);
ok($result->{ok}, 'the next COMMIT is not told what COMMIT PREPARED ran into') or diag($result->{stderr});
$cluster->is_sql('b', has(3), 1, 'and has committed');
is($session->get(on('b', 4)), 1, 'nor is the one after it');
# the same when the peer has died in between
$rule = $proxy->rule('to_server', sql => '^COMMIT PREPARED', action => 'hold', @users);
$session->get($_) for ('BEGIN', 'INSERT INTO t VALUES (5)', on('b', 5), 'COMMIT');
ok($proxy->await_hit($rule, 10), 'COMMIT PREPARED is under way again');
$cluster->crash('b');
$proxy->pass;
$cluster->start('b');
$cluster->await_sql('b', $finished, 0, 'the participant has restarted and finished it', 30);
$result = $session->run(on('b', 6), 30);
ok($result->{ok} || $result->{sqlstate} =~ /^08/, 'a statement may learn that the connection was lost') or diag($result->{stderr});
is($session->get(on('b', 7)), 1, 'the next one works');
$cluster->is_sql('b', 'SELECT count(*) FROM t WHERE v IN (5, 7)', 2, 'both are there');
$session->quit;

# ---- synchronous_commit of the session: the decision is flushed anyway

for my $setting (qw(off local))
{
	my $v = $setting eq 'off' ? 10 : 11;
	$session = $cluster->session('a');
	$session->get("SET synchronous_commit = $setting");
	$session->get($_) for ('BEGIN', "INSERT INTO t VALUES ($v)", on('b', $v));
	# nobody else shall flush it
	my $writer = $cluster->get('a', q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'));
	kill 'STOP', $writer;
	my $gid = hold($session, 'coordinator_after_commit');
	$cluster->crash('a');
	$session->quit;
	$cluster->start('a');
	$cluster->await_sql('b', $finished, 0, "synchronous_commit = $setting: finished after the crash", 30);
	$cluster->is_sql($_, has($v), 1, "synchronous_commit = $setting: the decision was flushed, $_ has it") for qw(a b);
	$cluster->is_sql('b', outcome($gid), 'committed', "synchronous_commit = $setting: committed");
}

# ---- two nodes on one server, found by their own workers

for my $point (qw(coordinator_after_commit coordinator_after_prepare))
{
	my $v   = $point =~ /commit/ ? 20 : 21;
	my $n   = $point =~ /commit/ ? 1  : 0;
	$session = $cluster->session('a');
	$session->get($_) for ('BEGIN', on('b', $v), on('d', $v));
	my $gid = hold($session, $point);
	$cluster->is_sql('b', 'SELECT count(*), count(DISTINCT database), count(DISTINCT gid) FROM pg_prepared_xacts', '2|2|2',
		"$point: a branch in each database");
	$cluster->crash($_) for qw(a b);
	$session->quit;
	$cluster->start($_) for qw(b a);
	$cluster->await_sql('b', $finished, 0, "$point: b finishes its own", 30);
	$cluster->await_sql('b', $finished, 0, "$point: so does d", 30, @second);
	$cluster->is_sql('b', has($v), $n, "$point: b as decided");
	$cluster->is_sql('b', has($v), $n, "$point: d as decided", @second);
	$cluster->is_sql('b', outcome($gid), $n ? 'committed' : 'aborted', "$point: d knows", @second);
}
# the coordinator and a participant on one server
$session = $cluster->session('b', @second);
$session->get($_) for ('BEGIN', on('b', 22), 'INSERT INTO t VALUES (22)');
hold($session, 'coordinator_after_commit');
$cluster->crash('b');
$session->quit;
$cluster->start('b');
$cluster->await_sql('b', $finished, 0, 'coordinator and participant of one server crash together', 30);
$cluster->is_sql('b', has(22), 1, 'committed on one');
$cluster->is_sql('b', has(22), 1, 'and on the other', @second);

# ---- another role

for my $name (qw(a b))
{
	$cluster->get($name, 'CREATE ROLE clerk LOGIN');
	$cluster->get($name, 'GRANT INSERT ON t TO clerk');
}
$cluster->get('a', q(SELECT * FROM concord.map_user('clerk', ARRAY['user=clerk', 'password_required=false'])));
for my $point (qw(coordinator_after_commit coordinator_after_prepare))
{
	my $v = $point =~ /commit/ ? 30 : 31;
	my $n = $point =~ /commit/ ? 1  : 0;
	$session = $cluster->session('a');
	$session->get($_) for ("SET concord.fault_points = '$point=stop'", 'BEGIN', 'SET LOCAL ROLE clerk', on('b', $v), "INSERT INTO t VALUES ($v)");
	$session->start('COMMIT');
	$cluster->await_stopped($session);
	$cluster->is_sql('b', 'SELECT owner FROM pg_prepared_xacts', 'clerk', "$point: the branch is the role's own");
	$cluster->crash('a');
	$session->quit;
	$cluster->start('a');
	$cluster->await_sql('b', $finished, 0, "$point: the worker finishes it all the same", 30);
	$cluster->is_sql($_, has($v), $n, "$point: as decided on $_") for qw(a b);
}

# ---- a session that vanishes between its steps is not waited for

$session = $cluster->session('a');
$session->get($_) for ('BEGIN', on('b', 40), 'INSERT INTO t VALUES (40)');
my $gid = hold($session, 'coordinator_after_prepare');
my $since = time();
$cluster->get('b', $prepared);
$cluster->get('a', 'SELECT 1');
# the connection ends, and with it the branch's session; the coordinator's server says abort when it is back
$cluster->stop('a', 'immediate');
kill 'CONT', $session->pid;
$session->quit;
$cluster->start('a');
$cluster->await_sql('b', $mine, 0, 'a branch whose session has ended does not wait for concord.resolve_delay', 15);
$cluster->is_sql('b', has(40), 0, 'it is aborted');
$cluster->is_sql('b', outcome($gid), 'aborted', 'as its coordinator says');

$cluster->no_leftovers(but => qr/was terminated by signal|exit code/);
done_testing();
