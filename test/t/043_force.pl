
# What an administrator can do about branches whose coordinator does not come back: force them, and learn afterwards
# whether it was right; and what becomes of the branches of a node that is removed.

use strict;
use warnings;

use ConcordTest;
use Test::More;

# a coordinates, b is the authority
my $cluster = ConcordTest->new(
	nodes => [qw(b a c)],
	conf  => "concord.connect_timeout = 3s\nconcord.resolve_delay = 1min\nconcord.view_timeout = 3s");
$cluster->get($_, 'CREATE TABLE t (v int PRIMARY KEY)') for qw(a b c);
$cluster->get($_, 'CREATE ROLE operator LOGIN') for qw(b c);
$cluster->get($_, 'GRANT EXECUTE ON FUNCTION concord.force_transaction(text, text) TO operator') for qw(b c);
my $prepared = 'SELECT count(*) FROM pg_prepared_xacts';
# the same after a request not to wait for concord.resolve_delay
my $finished = 'WITH r AS MATERIALIZED (SELECT concord.resolve_transactions())'
  . ' SELECT (SELECT count(*) FROM pg_prepared_xacts) FROM r';
my $forced   = 'SELECT outcome, role FROM concord.forced ORDER BY at';

sub has     { return "SELECT count(*) FROM t WHERE v = $_[0]"; }
sub outcome { return "SELECT concord.transaction_outcome('$_[0]')"; }
sub force   { return "SELECT concord.force_transaction('$_[0]', '$_[1]')"; }

# A transaction that writes v on b and c, and whose coordinator's server dies at a point.
sub leave_in_doubt
{
	my ($v, $point) = @_;
	my $session = $cluster->session('a');
	$session->get("SET concord.fault_points = '$point=stop'");
	$session->get('BEGIN');
	$session->get("SELECT concord.execute_on('$_', 'INSERT INTO t VALUES ($v)')") for qw(b c);
	my $gid = $session->get('SHOW concord.transaction');
	$session->start('COMMIT');
	$cluster->await_stopped($session);
	$cluster->crash('a');
	$session->quit;
	return $gid;
}

# ---- forced, and the decision was another one

my $gid = leave_in_doubt(1, 'coordinator_after_commit');
$cluster->is_sql('b', q(SELECT node, state, coordinator FROM concord.transactions ORDER BY node),
	"a||\nb|in doubt|a\nc|in doubt|a", 'the view shows what is in doubt, and who is silent');
$cluster->is_sql('b', 'SELECT concord.resolve_transactions()', 0, 'nothing can be resolved');
my $result = $cluster->run('b', outcome($gid));
is($result->{out}, 'unknown', 'the outcome is unknown');
like($result->{stderr}, qr/NOTICE.*node "a" has not answered/s, 'because the coordinator is silent');
$cluster->expect_error('b', force($gid, 'commit'), '42501', qr/superuser/, 'not for everybody', user => 'operator');
(my $unknown = $gid) =~ s/:(\d+):2pc$/:99$1:2pc/ or die $gid;
$cluster->expect_error('b', force($unknown, 'commit'), '42704', qr/no branch/, 'a gid that nobody knows');
$cluster->expect_error('b', force("$gid:3:2", 'commit'), '42704', qr/no branch/, 'a branch that is prepared elsewhere');
$cluster->expect_error('b', force("$gid:x", 'commit'), '22023', qr/not a global transaction id/, 'not a gid');
$cluster->expect_error('b', force($gid, 'perhaps'), '22023', qr/commit or abort/, 'neither commit nor abort');
# an order that is rolled back was none
my $session = $cluster->session('b');
$session->get('BEGIN');
$session->get(force($gid, 'abort'));
$session->get('ROLLBACK');
$session->quit;
$cluster->is_sql('b', $forced, '', 'rolled back: no order');
$cluster->is_sql('b', $prepared, 1, 'and nothing done');
# by the transaction's gid, and by the branch's
my %from = map { $_ => $cluster->log_position($_) } qw(b c);
$result = $cluster->run('b', force($gid, 'commit'));
like($result->{stderr}, qr/WARNING.*is forced: commit/s, 'the caller is warned');
$cluster->get('c', force($cluster->get('c', 'SELECT gid FROM pg_prepared_xacts'), 'abort'));
my %end = (b => 'commit', c => 'abort');
for my $node (qw(b c))
{
	my $superuser = $cluster->get($node, 'SELECT current_user');
	$cluster->await_sql($node, $finished, 0, "$node: finished");
	$cluster->is_sql($node, has(1), $node eq 'b' ? 1 : 0, "$node: as ordered");
	$cluster->is_sql($node, $forced, "$end{$node}|$superuser", "$node: recorded");
	my $done = $node eq 'b' ? 'committed' : 'rolled back';
	ok($cluster->await_log($node, qr/prepared branch "\Q$gid\E:\d+:\d+" was $done.*An administrator has forced it/s, $from{$node}, 10),
		"$node: logged");
	$cluster->is_sql($node, 'SELECT forced, recovered FROM concord.transaction_stats', '1|0', "$node: counted");
	$cluster->expect_error($node, force($gid, $end{$node}), '42704', qr/no branch/, "$node: only once");
}
$cluster->is_sql('b', q(SELECT count(*) FROM concord.transactions WHERE state = 'in doubt'), 0, 'nothing is in doubt');
# the coordinator comes back: what was forced stays, and everybody can see which was wrong
$cluster->start('a');
$cluster->await_sql($_, outcome($gid), 'committed', "$_: the decision is told as it was") for qw(a b c);
$cluster->is_sql($_, has(1), $_ eq 'b' ? 1 : 0, "$_: what was forced stays") for qw(b c);
my $wrong = q(SELECT outcome, concord.transaction_outcome(gid) FROM concord.forced);
$cluster->is_sql('b', $wrong, 'commit|committed', 'b: forced as it was decided');
$cluster->is_sql('c', $wrong, 'abort|committed',  'c: forced otherwise, and that can be seen');

# ---- forced to commit what was never decided

$gid = leave_in_doubt(2, 'coordinator_after_prepare');
$cluster->get('b', force($gid, 'commit'));
$cluster->await_sql('b', $finished, 0, 'committed by force');
$cluster->start('a');
$cluster->await_sql('c', $finished, 0, 'the other one is aborted as it should be', 30);
$cluster->is_sql('c', has(2), 0, 'there it is not');
$cluster->is_sql('b', "$wrong WHERE gid LIKE '$gid:%'", 'commit|aborted', 'b: forced otherwise, and that can be seen');

# ---- a node is removed

my $session_a = $cluster->session('a');
$session_a->get(q(SET concord.fault_points = 'coordinator_after_prepare=stop'));
$session_a->get('BEGIN');
$session_a->get("SELECT concord.execute_on('$_', 'INSERT INTO t VALUES (3)')") for qw(b c);
$gid = $session_a->get('SHOW concord.transaction');
$session_a->start('COMMIT');
$cluster->await_stopped($session_a);
for my $name (qw(a c))
{
	$cluster->expect_error('b', "SELECT concord.remove_node('$name')", '55006', qr/cannot remove node "$name".*prepared/s,
		"$name has prepared branches: not removed");
}
$cluster->crash('a');
$session_a->quit;
$cluster->expect_error('b', q(SELECT concord.remove_node('a')), '55006', qr/concord\.force_transaction/,
	'nor while its node is away');
$cluster->get('b', q(SELECT concord.remove_node('a', force => true)));
$cluster->await_epoch(20, qw(b c));
my $from = $cluster->log_position('c');
$cluster->get('c', 'SELECT concord.resolve_transactions()');
$cluster->is_sql('c', $prepared, 1, 'removed by force: its branches stay in doubt');
$cluster->is_sql($_, outcome($gid), 'unknown', "$_: the outcome is unknown") for qw(b c);
like($cluster->log('c'), qr/prepared branch "\Q$gid\E:\d+:\d+" stays in doubt.*not in the cluster any more/s, 'the log says why');
$cluster->is_sql('b', q(SELECT node, coordinator, state FROM concord.transactions ORDER BY node), "b|2|in doubt\nc|2|in doubt",
	'the view names the coordinator by its number');
$cluster->get($_, force($gid, 'abort')) for qw(b c);
$cluster->await_sql($_, $finished, 0, "$_: an administrator finishes it") for qw(b c);
$cluster->is_sql($_, has(3), 0, "$_: as he says") for qw(b c);

$cluster->no_leftovers(but => qr/was terminated by signal|exit code/);
done_testing();
