
# A server that comes back from a base backup: what its storage does not know any more is unknown, never aborted by
# guess, even on the same timeline and with a record of the server start in question.

use strict;
use warnings;
use feature 'state';

use ConcordTest;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;

# a coordinates, b is the authority
my $cluster = ConcordTest->new(
	nodes     => [qw(b a c)],
	streaming => [qw(a b)],
	conf      => "concord.connect_timeout = 3s\nconcord.resolve_delay = 1min");
$cluster->get($_, 'CREATE TABLE t (v int PRIMARY KEY)') for qw(a b c);
my $prepared = 'SELECT count(*) FROM pg_prepared_xacts';
# the same after a request not to wait for concord.resolve_delay
my $finished = 'WITH r AS MATERIALIZED (SELECT concord.resolve_transactions())'
  . ' SELECT (SELECT count(*) FROM pg_prepared_xacts) FROM r';

sub begin
{
	my ($v, $fault) = @_;
	my $session = $cluster->session('a');
	$session->get("SET concord.fault_points = '$fault'") if $fault;
	$session->get('BEGIN');
	$session->get("SELECT concord.execute_on('$_', 'INSERT INTO t VALUES ($v)')") for qw(b c);
	return ($session, $session->get('SHOW concord.transaction'));
}

sub outcome { return "SELECT concord.transaction_outcome('$_[0]')"; }
sub has     { return "SELECT count(*) FROM t WHERE v = $_[0]"; }

# The server gets the files of a backup, at its old address; returns where its own are.
sub restore
{
	my ($name, $backup) = @_;
	state $times = 0;
	my $node  = $cluster->node($name);
	my $data  = $node->data_dir;
	my $saved = "$data.saved" . ++$times;
	$cluster->stop($name, 'immediate') if defined $node->{_pid};
	rename $data, $saved or die "cannot rename $data: $!";
	PostgreSQL::Test::RecursiveCopy::copypath($backup =~ m{/} ? $backup : $node->backup_dir . "/$backup", $data);
	chmod 0700, $data;
	$cluster->start($name);
	return $saved;
}

# ---- the coordinator, from before the decision

# A copy of the files of the stopped server.
sub cold_copy
{
	my ($name) = @_;
	my $node = $cluster->node($name);
	my $copy = $node->backup_dir . '/cold';
	$cluster->stop($name);
	PostgreSQL::Test::RecursiveCopy::copypath($node->data_dir, $copy);
	# it shall begin a new timeline
	PostgreSQL::Test::Utils::append_to_file("$copy/recovery.signal", '');
	PostgreSQL::Test::Utils::append_to_file("$copy/postgresql.conf", "restore_command = 'false'\n");
	$cluster->start($name);
	return;
}

my ($session, $old, $held, $gid, $undone, $aborted, $new, $later, $wrong);
my $v = 0;
for my $kind ('base backup', 'cold copy')
{
	cold_copy('a') if $kind eq 'cold copy';
	($session, $old) = begin(++$v);
	$session->get('COMMIT');
	$cluster->node('a')->backup('base') if $kind eq 'base backup';
	($held, $gid) = begin(++$v, 'coordinator_after_commit=stop');
	my $decided = $v;
	$held->start('COMMIT');
	$cluster->await_stopped($held);
	($undone, $aborted) = begin(++$v);
	$undone->get('ROLLBACK');
	$cluster->is_sql($_, $prepared, 1, "$kind: decided, and not finished on $_") for qw(b c);
	my $from = $cluster->log_position('b');
	$cluster->crash('a');
	$held->quit;
	my $right = restore('a', $kind eq 'base backup' ? 'base' : 'cold');
	$cluster->await_sql('a', 'SELECT pg_is_in_recovery()', 'f', "$kind: it has recovered");
	ok($cluster->await_log('b', qr/prepared branch "\Q$gid\E:\d+:\d+" stays in doubt/, $from, 30),
		"$kind: the participant says that the outcome is unknown");
	$cluster->get($_, 'SELECT concord.resolve_transactions()') for qw(b c);
	$cluster->is_sql($_, $prepared, 1, "$kind: nothing is aborted by guess on $_") for qw(b c);
	$cluster->is_sql('b', outcome($gid),     'unknown', "$kind: nor is a client told so");
	$cluster->is_sql('b', outcome($aborted), 'unknown', "$kind: neither of what was rolled back: nobody can tell any more");
	if ($kind eq 'base backup')
	{
		like($cluster->log('b', $from), qr/restored from a backup/, "$kind: and why");
		$cluster->is_sql('b', outcome($old), 'committed', "$kind: a decision that it has is known");
	}
	# after the next start of the same storage it is as it was
	$cluster->node('a')->restart;
	$cluster->await_sql('a', outcome($gid), 'unknown', "$kind: nor after another start");
	$cluster->is_sql('b', $prepared, 1, "$kind: still prepared");
	# what it coordinates now is certain, over a crash as well
	($session, $new) = begin(++$v);
	$session->get('COMMIT');
	($held, $later) = begin(++$v, 'coordinator_after_prepare=stop');
	$held->start('COMMIT');
	$cluster->await_stopped($held);
	$cluster->crash('a');
	$held->quit;
	$cluster->start('a');
	$cluster->await_sql('b', outcome($later), 'aborted', "$kind: a crash after it is only a crash");
	$cluster->is_sql('b', outcome($new), 'committed', "$kind: decisions after it are known");
	$cluster->await_sql($_, $finished, 1, "$kind: and its branches are finished on $_") for qw(b c);

	# the storage that was lost turns up again: it knows
	restore('a', $right);
	$cluster->await_sql($_, $finished, 0, "$kind: with the right storage it is finished on $_", 40) for qw(b c);
	$cluster->is_sql($_, has($decided), 1, "$kind: and committed on $_") for qw(b c);
	$cluster->is_sql('b', outcome($gid), 'committed', "$kind: as the client is told now");
}

# ---- a participant, from a moment when the branch was prepared

for my $end (qw(commit abort))
{
	$v++;
	my $point = $end eq 'commit' ? 'coordinator_after_commit=stop' : 'coordinator_after_prepare=stop,coordinator_after_decision=error';
	($held, $gid) = begin($v, $point);
	$held->start('COMMIT');
	$cluster->await_stopped($held);
	$cluster->is_sql('b', $prepared, 1, "$end: prepared on the participant");
	$cluster->node('b')->backup("prepared_$end");
	kill 'CONT', $held->pid;
	my $result = $held->finish(30);
	$cluster->await_sql($_, $finished, 0, "$end: finished on $_") for qw(b c);
	restore('b', "prepared_$end");
	$cluster->await_sql('b', $finished, 0, "$end: what the backup shows as prepared is finished again", 30);
	$cluster->is_sql($_, has($v), $end eq 'commit' ? 1 : 0, "$end: as before on $_") for qw(b c);
	$cluster->is_sql('b', outcome($gid), $end eq 'commit' ? 'committed' : 'aborted', "$end: the outcome is what it was");
	$held->quit;
}

$cluster->await_sql('b', q(SELECT concord.execute_on('a', 'SELECT 1')), 1, 'all is well');
$cluster->no_leftovers(but => qr/was terminated by signal|exit code/);
done_testing();
