
# The decision and the coordinator's standbys: nobody acts on a decision, nor is told of it, that a synchronous standby
# does not have; a promoted standby that has it finishes the branches, one that may have lost it says so.

use strict;
use warnings;

use ConcordTest;
use Test::More;

# a coordinates, b is the authority
my $cluster = ConcordTest->new(
	nodes     => [qw(b a)],
	streaming => ['a'],
	conf      => "concord.connect_timeout = 3s\nconcord.resolve_delay = 1min\nwal_receiver_status_interval = 1s\n"
	  . "wal_retrieve_retry_interval = 200ms");
$cluster->get($_, 'CREATE TABLE t (v int PRIMARY KEY)') for qw(a b);
$cluster->add_standby('a', 'a1');

my $prepared = 'SELECT count(*) FROM pg_prepared_xacts';
# the same after a request not to wait for concord.resolve_delay
my $finished = 'WITH r AS MATERIALIZED (SELECT concord.resolve_transactions())'
  . ' SELECT (SELECT count(*) FROM pg_prepared_xacts) FROM r';
my $standbys = q(SELECT status FROM concord.check_cluster() WHERE node = 'a' AND item = 'synchronous_standbys');

# Begins a transaction that writes v on a and b; returns its session and gid.
sub begin
{
	my ($where, $v, $fault) = @_;
	my $session = $cluster->session($where);
	$session->get("SET concord.fault_points = '$fault'") if $fault;
	$session->get('BEGIN');
	$session->get("INSERT INTO t VALUES ($v)");
	$session->get("SELECT concord.execute_on('b', 'INSERT INTO t VALUES ($v)')");
	return ($session, $session->get('SHOW concord.transaction'));
}

sub outcome { return "SELECT concord.transaction_outcome('$_[0]')"; }
sub has     { return "SELECT count(*) FROM t WHERE v = $_[0]"; }

sub synchronous
{
	my ($where, $names) = @_;
	$cluster->get($where, "ALTER SYSTEM SET synchronous_standby_names = '$names'");
	$cluster->get($where, 'SELECT pg_reload_conf()');
	return;
}

# ---- with the standby there

synchronous('a', '*');
$cluster->await_sql('a', q(SELECT sync_state FROM pg_stat_replication), 'sync', 'the standby is synchronous');
my ($session, $early) = begin('a', 1);
$session->get('COMMIT');
$cluster->is_sql('b', $prepared, 0, 'phase two is not put off');
$cluster->await_sql('b', outcome($early), 'committed', 'nor the answer', 5);
(my $other, my $undone) = begin('a', 2);
$other->get('ROLLBACK');
$cluster->is_sql('b', outcome($undone), 'aborted', 'absence means abort');
$cluster->await_sql('b', $standbys, 'ok', 'the doctor agrees');

# ---- the wait for it is cancelled

$cluster->stop('a1');
my %gid;
for my $how (qw(pg_cancel_backend pg_terminate_backend))
{
	my $v = $how =~ /cancel/ ? 10 : 11;
	($session, $gid{$v}) = begin('a', $v);
	my $pid = $session->pid;
	$session->start('COMMIT');
	$cluster->await_sql('a', "SELECT wait_event FROM pg_stat_activity WHERE pid = $pid", 'SyncRep', "$how: COMMIT waits");
	$cluster->is_sql('b', outcome($gid{$v}), 'in progress', "$how: in progress while it waits");
	$cluster->cancel($session, $how);
	my $result = $session->finish(20);
	like($result->{stderr}, qr/canceling.*wait for synchronous replication/s, "$how: PostgreSQL warns");
	if ($how =~ /cancel/)
	{
		ok($result->{ok}, "$how: it is committed");
		like($result->{stderr}, qr/WARNING:  01000: the transaction is committed here, but the other nodes have not finished it/,
			"$how: the client is told that it is not finished");
	}
	$cluster->await_sql('a', has($v), 1, "$how: it is committed on its coordinator");
	$cluster->get('b', 'SELECT concord.resolve_transactions()');
	$cluster->is_sql('b', has($v), 0, "$how: and not on the participant");
	$cluster->is_sql($_, outcome($gid{$v}), 'in progress', "$how: nobody is told on $_") for qw(a b);
}
$cluster->is_sql('b', $prepared, 2, 'both branches stay prepared');
$cluster->is_sql('b', $standbys, 'warning', 'the doctor says why');
$cluster->is_sql('b', q(SELECT DISTINCT state, coordinator FROM concord.transactions), 'in doubt|a', 'so does the view');
# a label is no way around it
$session = $cluster->session('a');
$session->get($_) for ('BEGIN', q(SET LOCAL concord.transaction_label = 'alone'), 'INSERT INTO t VALUES (12)');
$session->start('COMMIT');
$cluster->await_sql('a', 'SELECT wait_event FROM pg_stat_activity WHERE pid = ' . $session->pid, 'SyncRep', 'a local COMMIT waits');
$cluster->cancel($session);
$session->finish(20);
$cluster->is_sql('b', outcome('alone'), 'in progress', 'nobody is told by label');
# a crash does not change it
$cluster->crash('a');
$cluster->start('a');
$cluster->await_sql('b', outcome($gid{10}), 'in progress', 'nor after a crash of the coordinator');
$cluster->get('b', 'SELECT concord.resolve_transactions()');
$cluster->is_sql('b', $prepared, 2, 'they are still prepared');
# the standby is back
$cluster->start('a1');
$cluster->await_sql('b', $finished, 0, 'the standby is back: they are finished', 30);
$cluster->is_sql('b', 'SELECT count(*) FROM t WHERE v IN (10, 11)', 2, 'committed');
$cluster->is_sql('b', outcome($_), 'committed', 'as the coordinator has said') for ($gid{10}, $gid{11}, 'alone');
$cluster->await_sql('b', $standbys, 'ok', 'the doctor agrees again');
# an administrator can do without a standby
$cluster->stop('a1');
($session, $gid{13}) = begin('a', 13);
$session->start('COMMIT');
$cluster->await_sql('a', 'SELECT wait_event FROM pg_stat_activity WHERE pid = ' . $session->pid, 'SyncRep', 'a COMMIT waits again');
$cluster->cancel($session);
$session->finish(20);
$cluster->is_sql('b', $prepared, 1, 'and is left');
synchronous('a', '');
$cluster->await_sql('b', $finished, 0, 'no synchronous standby is wanted any more: it is finished');
$cluster->is_sql('b', has(13), 1, 'committed as well');
$cluster->start('a1');
synchronous('a', '*');
$cluster->await_sql('a', q(SELECT sync_state FROM pg_stat_replication), 'sync', 'synchronous again');

# ---- a synchronous standby is promoted: it has the decision

sub promote
{
	my ($from, $to) = @_;
	$cluster->crash($from);
	$cluster->start($to) unless defined $cluster->node($to)->{_pid};
	$cluster->node($to)->promote;
	$cluster->get('b', sprintf(q{SELECT concord.set_node('a', '%s')}, $cluster->conninfo($to)));
	return;
}
(my $held, $gid{20}) = begin('a', 20, 'coordinator_after_commit=stop');
$held->start('COMMIT');
$cluster->await_stopped($held);
# it is in the liveness table: whether its wait was cancelled is not known to anybody else yet
$cluster->get('b', 'SELECT concord.resolve_transactions()');
$cluster->is_sql('b', outcome($gid{20}), 'in progress', 'decided, and not told as long as its session works on it');
$cluster->is_sql('b', $prepared, 1, 'nor finished');
promote('a', 'a1');
$held->quit;
synchronous('a1', '');
$cluster->await_sql('b', $finished, 0, 'the promoted standby is asked', 30);
$cluster->is_sql($_, has(20), 1, "committed on $_") for qw(a1 b);
$cluster->is_sql('b', outcome($gid{20}), 'committed', 'the outcome is known');
$cluster->is_sql('b', outcome($early), 'committed', 'so is that of an older decision');
$cluster->is_sql('b', outcome($undone), 'unknown', 'absence says nothing about what was before');

# ---- an asynchronous one is promoted that has not received the decision

$cluster->add_standby('a1', 'a2');
(my $kept, $gid{29}) = begin('a1', 29);
$kept->get('COMMIT');
$cluster->node('a1')->wait_for_catchup($cluster->node('a2'));
$cluster->stop('a2');
($held, $gid{30}) = begin('a1', 30, 'coordinator_after_commit=stop');
$held->start('COMMIT');
$cluster->await_stopped($held);
my $from = $cluster->log_position('b');
promote('a1', 'a2');
$held->quit;
my $lost = $gid{30};
$cluster->get('b', 'SELECT concord.resolve_transactions()');
ok($cluster->await_log('b', qr/prepared branch "\Q$lost\E:1:1" stays in doubt.*promoted from a standby/s, $from, 30),
	'the participant says that the outcome is unknown');
$cluster->get('b', 'SELECT concord.resolve_transactions()');
$cluster->is_sql('b', $prepared, 1, 'it is neither committed nor aborted by guess');
$cluster->is_sql('b', outcome($gid{30}), 'unknown', 'the client is told that as well');
$cluster->is_sql('b', q(SELECT state, coordinator FROM concord.transactions), 'in doubt|a', 'the view shows it');
$cluster->is_sql('b', q(SELECT detail FROM concord.check_cluster() WHERE node = 'b' AND item = 'in_doubt_transactions'),
	'1 prepared, 0 of them for more than a minute', 'the doctor counts it');
$cluster->is_sql('b', outcome($gid{29}), 'committed', 'a decision that it has received is known');
$cluster->get('b', "SELECT concord.force_transaction('$gid{30}', 'commit')");
$cluster->await_sql('b', $finished, 0, 'an administrator finishes it');
$cluster->is_sql('b', has(30), 1, 'as he says');

# the promoted node coordinates like any other
($session, $gid{31}) = begin('a2', 31);
$session->get('COMMIT');
$cluster->await_sql('b', outcome($gid{31}), 'committed', 'the node goes on');
$cluster->no_leftovers(but => qr/was terminated by signal|exit code/);
done_testing();
