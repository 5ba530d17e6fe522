
# Atomic commit under faults: every party fails at every step of a transaction over three nodes.  After each: all
# nodes agree, nothing stays prepared, the client was told the truth, and the next transaction works.
#
# A cell has a name, shown with its result; CELLS='regex' runs those whose names match.

use strict;
use warnings;

use ConcordTest;
use Test::More;

my @nodes   = qw(a b c);
my $cluster = ConcordTest->new(
	nodes   => \@nodes,
	proxies => ['b'],
	conf    => "concord.connect_timeout = 5s\nconcord.cleanup_timeout = 1s\nconcord.commit_timeout = 3s");
my $proxy = $cluster->proxy('b');
my @users = (user => '^(?!concord_node$)');
my $only  = $ENV{CELLS} // '';
my $cells = 0;

die "this build has no fault points: make FAULTS=1"
  unless $cluster->run('a', "SET concord.fault_points = ''")->{ok};

for my $name (@nodes)
{
	$cluster->get($name, 'CREATE TABLE cell (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)');
	$cluster->get($name, 'INSERT INTO cell SELECT g FROM generate_series(1, 1000) AS g');
}

sub on
{
	my ($name, $sql) = @_;
	return "SELECT concord.execute_on('$name', '$sql')";
}

sub add { return "UPDATE cell SET n = n + 1 WHERE id = $cells"; }

sub restarted
{
	my ($name) = @_;
	return ConcordTest::await(sub { return eval { $cluster->get($name, 'SELECT 1', 10) } }, 60);
}

# The value of the cell's row on all nodes
sub values_everywhere
{
	return map { $cluster->get($_, "SELECT n FROM cell WHERE id = $cells") } @nodes;
}

sub prepared_sql { return q(SELECT count(*) FROM pg_prepared_xacts); }

# What the client was told: committed, aborted, or unknown
sub told
{
	my ($result) = @_;
	# the WARNING's detail quotes what the lost node said
	return 'committed' if $result->{ok} || $result->{stderr} =~ /WARNING:  01000: the transaction is committed/;
	# what psql itself says of a lost server has no SQLSTATE
	return 'unknown' if !defined $result->{sqlstate} || $result->{sqlstate} =~ /^(08007|57P0[123])$/;
	return 'aborted';
}

# Runs the cell's transaction on session, with a part on a itself or not; returns (result of COMMIT or of the first
# failure, gid if it was seen)
sub transaction
{
	my ($session, $local, $during) = @_;
	my $gid = '';
	for my $sql ('BEGIN', on('b', add()), on('c', add()), ($local ? add() : ()))
	{
		my $result = $session->run($sql, 60);
		if (!$result->{ok})
		{
			$session->run('ROLLBACK', 60) unless $session->{dead};
			return ($result, $gid);
		}
	}
	$gid = $session->get('SHOW concord.transaction');
	$session->start('COMMIT');
	$during->() if $during;
	return ($session->finish(60), $gid);
}

sub check
{
	my ($name, $local, $result, $gid, $session) = @_;
	my $told = told($result);

	restarted($_) or die "$name: node $_ does not come back" for @nodes;
	# recovery: nothing stays prepared
	my $clean = 1;
	for my $node (@nodes)
	{
		$clean &&= ConcordTest::await(sub { return $cluster->get($node, prepared_sql()) eq '0' }, 30);
	}
	ok($clean, "$name: nothing stays prepared")
	  or diag(map { $cluster->get($_, 'SELECT gid, prepared FROM pg_prepared_xacts') . "\n" } @nodes);
	my ($a, $b, $c) = values_everywhere();
	$a = $b unless $local;
	ok($a eq $b && $b eq $c, "$name: all nodes agree") or diag("a $a, b $b, c $c");
	is($b, 1, "$name: committed, as the client was told") if $told eq 'committed';
	is($b, 0, "$name: aborted, as the client was told")   if $told eq 'aborted';
	if ($gid ne '')
	{
		my $outcome = $b eq '1' ? 'committed' : 'aborted';
		for my $node (qw(a c))
		{
			my $said = '';
			ConcordTest::await(
				sub { $said = $cluster->get($node, "SELECT concord.transaction_outcome('$gid')"); return $said ne 'in progress' },
				20);
			is($said, $outcome, "$name: transaction_outcome on $node");
		}
	}
	$session = $cluster->session('a') if $session->{dead};
	$session->get('RESET concord.fault_points');
	$cells++;
	my $again = $session->run(
		"BEGIN; " . on('b', add()) . '; ' . on('c', add()) . '; COMMIT', 60);
	ok($again->{ok}, "$name: usable afterwards") or diag($again->{stderr});
	$session->quit unless $session->{dead};
	return;
}

sub wanted
{
	my ($name) = @_;
	return 0 if $only ne '' && $name !~ /$only/;
	$cells++;
	note("---- $name");
	return 1;
}

# ---- the coordinator's backend fails

my @before = qw(coordinator_before_prepare coordinator_after_prepare coordinator_after_decision);
my @after  = qw(coordinator_after_commit coordinator_after_phase_two);
for my $local (0, 1)
{
	for my $point (@before, @after)
	{
		for my $action (qw(error exit kill stop))
		{
			# after the decision nothing raises
			next if $action =~ /error|exit/ && grep { $_ eq $point } @after;
			my $name = "$point=$action" . ($local ? ', local write' : '');
			next unless wanted($name);
			my $session = $cluster->session('a');
			$session->get("SET concord.fault_points = '$point=$action'");
			my $pid = $session->pid;
			my ($result, $gid) = transaction(
				$session, $local,
				$action ne 'stop' ? undef : sub {
					ConcordTest::await(sub { return process_state($pid) eq 'T' }, 20) or die "$name: it does not stop";
					if ($point ne 'coordinator_after_phase_two' && $point ne 'coordinator_before_prepare')
					{
						# the owner lives: nobody may abort, however long it takes; the resolvers look
						$cluster->get($_, 'SELECT concord.resolve_transactions()') for qw(b c);
						if ($point ne 'coordinator_after_commit')
						{
							is($cluster->get($_, prepared_sql()), 1, "$name: $_ is left prepared while its owner lives") for qw(b c);
						}
						my $seen = $point eq 'coordinator_after_commit' ? 'committed' : 'in progress';
						is($cluster->get('c', "SELECT concord.transaction_outcome(gid) FROM (SELECT regexp_replace(gid, ':\\d+:\\d+\$', '') AS gid FROM pg_prepared_xacts LIMIT 1) AS p")
							=~ /^(in progress|committed|)$/ ? 1 : 0, 1, "$name: $seen while it is stopped");
					}
					kill 'CONT', $pid;
				});
			is(told($result), 'aborted', "$name: an error is an abort") if $action eq 'error';
			is(told($result), 'committed', "$name: stopped and continued, it commits") if $action eq 'stop';
			check($name, $local, $result, $gid, $session);
		}
	}
}

sub process_state
{
	my ($pid) = @_;
	open my $fh, '<', "/proc/$pid/stat" or return '';
	return (<$fh> // '') =~ /^\d+ \(.*\) (\S)/ ? $1 : '';
}

# ---- a participant's backend fails

my @steps = qw(participant_statement participant_before_prepare participant_before_commit_prepared
  participant_after_commit_prepared participant_before_rollback_prepared participant_after_rollback_prepared);
for my $local (0, 1)
{
	for my $point (@steps)
	{
		for my $action (qw(error exit kill stop))
		{
			my $name = "b: $point=$action" . ($local ? ', local write' : '');
			next unless wanted($name);
			my $session = $cluster->session('a');
			# a fresh branch session is made under the setting
			$cluster->get('b', "ALTER ROLE CURRENT_USER IN DATABASE app SET concord.fault_points = '$point=$action'");
			# a rollback of what is prepared needs somebody who fails after PREPARE
			$session->get("SET concord.fault_points = 'coordinator_after_prepare=error'") if $point =~ /rollback/;
			my $watch = $action eq 'stop' ? stopped_helper() : undef;
			my ($result, $gid) = transaction($session, $local);
			$cluster->get('b', 'ALTER ROLE CURRENT_USER IN DATABASE app RESET concord.fault_points')
			  if restarted('b');
			$watch->() if $watch;
			is(told($result), 'aborted', "$name: aborted") if $point =~ /statement|rollback|before_prepare/ && $action =~ /error|exit|kill/;
			is(told($result), 'committed', "$name: the decision stands") if $point =~ /commit_prepared/;
			$session->run("SELECT concord.close_connections()") unless $session->{dead};
			check($name, $local, $result, $gid, $session);
		}
	}
}

# A process that continues whatever backend of b stops; the returned function ends it.
sub stopped_helper
{
	my $postmaster = $cluster->node('b')->{_pid};
	my $helper     = fork() // die "fork: $!";
	if ($helper == 0)
	{
		my $until = time() + 60;
		while (time() < $until)
		{
			for my $pid (ConcordTest::children($postmaster))
			{
				next unless process_state($pid) eq 'T';
				# long enough for everybody else to look
				select(undef, undef, undef, 1.0);
				kill 'CONT', $pid;
			}
			select(undef, undef, undef, 0.02);
		}
		POSIX::_exit(0);
	}
	return sub { kill 'KILL', $helper; waitpid($helper, 0); };
}

# ---- a server stops at once

for my $victim (qw(a b))
{
	for my $point (qw(coordinator_before_prepare coordinator_after_prepare coordinator_after_decision coordinator_after_commit))
	{
		my $name = "immediate stop of $victim at $point";
		next unless wanted($name);
		my $session = $cluster->session('a');
		$session->get("SET concord.fault_points = '$point=stop'");
		my $pid = $session->pid;
		my ($result, $gid) = transaction(
			$session, 1,
			sub {
				ConcordTest::await(sub { return process_state($pid) eq 'T' }, 20) or die "$name: it does not stop";
				$cluster->crash($victim) if $victim eq 'a';
				$cluster->stop($victim, 'immediate') if $victim ne 'a';
				$cluster->start($victim);
				kill 'CONT', $pid if $victim ne 'a';
			});
		check($name, 1, $result, $gid, $session);
	}
}

# ---- the connection between a and b breaks

my %cut = (
	'before the first statement'          => [ 'to_server', sql => '^UPDATE cell' ],
	'before the answer to a statement'    => [ 'to_client', type => 'C', bytes => 'UPDATE' ],
	'before PREPARE'                      => [ 'to_server', sql => '^PREPARE TRANSACTION' ],
	'before the answer to PREPARE'        => [ 'to_client', type => 'C', bytes => 'PREPARE TRANSACTION' ],
	'before COMMIT PREPARED'              => [ 'to_server', sql => '^COMMIT PREPARED' ],
	'before the answer to COMMIT PREPARED' => [ 'to_client', type => 'C', bytes => 'COMMIT PREPARED' ],
	'before ROLLBACK PREPARED'            => [ 'to_server', sql => '^ROLLBACK PREPARED' ],
	'before the answer to ROLLBACK PREPARED' => [ 'to_client', type => 'C', bytes => 'ROLLBACK PREPARED' ]);
for my $step (sort keys %cut)
{
	for my $local (0, 1)
	{
		my $name = "cut $step" . ($local ? ', local write' : '');
		next unless wanted($name);
		my $session = $cluster->session('a');
		$session->get("SET concord.fault_points = 'coordinator_after_prepare=error'") if $step =~ /ROLLBACK/;
		$session->get(on('b', 'SELECT 1'));
		my $rule = $proxy->cut_before(@{ $cut{$step} }, @users);
		my ($result, $gid) = transaction($session, $local);
		ConcordTest::await(sub { return $proxy->hits($rule) }, 10) or fail("$name: it was cut there");
		$proxy->pass;
		is(told($result), 'aborted',   "$name: aborted") if $step =~ /before PREPARE|ROLLBACK/;
		is(told($result), 'committed', "$name: the decision stands") if $step =~ /COMMIT PREPARED/;
		check($name, $local, $result, $gid, $session);
	}
}

# ---- held, then cancelled: Ctrl-C during PREPARE aborts, after the decision it does not lie

for my $step ('PREPARE TRANSACTION', 'COMMIT PREPARED')
{
	my $name = "cancel while $step is unanswered";
	next unless wanted($name);
	my $session = $cluster->session('a');
	$session->get(on('b', 'SELECT 1'));
	my $rule = $proxy->rule('to_client', type => 'C', bytes => $step, action => 'hold', @users);
	my ($result, $gid) = transaction(
		$session, 1,
		sub {
			$proxy->await_hit($rule, 20);
			$cluster->cancel($session);
		});
	$proxy->pass;
	is(told($result), $step =~ /COMMIT/ ? 'committed' : 'aborted', "$name: told the truth");
	check($name, 1, $result, $gid, $session);
}

# ---- a single writer: its answer to COMMIT decides, or that to the statement itself, which commits by itself when it is
# all that the transaction does

sub single
{
	my ($name, $session, $block, $during) = @_;
	my @sql = $block ? ('BEGIN', on('b', add()), 'COMMIT') : on('b', add());
	my $last = pop @sql;
	for my $sql (@sql)
	{
		my $result = $session->run($sql, 60);
		next if $result->{ok};
		$session->run('ROLLBACK', 60) unless $session->{dead};
		return $result;
	}
	$session->start($last);
	$during->() if $during;
	return $session->finish(60);
}

sub check_single
{
	my ($name, $result, $session) = @_;
	my $told = told($result);
	restarted($_) or die "$name: node $_ does not come back" for @nodes;
	$cluster->await_sql('b', ConcordTest::remote_backends_sql('xact_start IS NOT NULL'), 0, "$name: nothing is left on b");
	my $found = $cluster->get('b', "SELECT n FROM cell WHERE id = $cells");
	like($found, $told eq 'committed' ? qr/^1$/ : $told eq 'aborted' ? qr/^0$/ : qr/^[01]$/, "$name: $told, and so it is")
	  or diag($result->{stderr});
	$session = $cluster->session('a') if $session->{dead};
	$session->get('RESET concord.fault_points');
	$cells++;
	is($session->get(on('b', add()), 60), 1, "$name: usable afterwards");
	$session->quit;
	return;
}

for my $block (0, 1)
{
	my $kind = $block ? 'one phase' : 'by itself';
	for my $point ('coordinator_before_one_phase', 'participant_statement', 'participant_before_commit', 'participant_after_commit')
	{
		next if $point =~ /coordinator/ && !$block;
		for my $action (qw(error exit kill stop))
		{
			next if $point =~ /after/ && $action =~ /error|exit/;
			my $name = "$kind, $point=$action";
			next unless wanted($name);
			my $session = $cluster->session('a');
			$session->get(on('b', 'SELECT 1'));
			my $watch = $action eq 'stop' && $point !~ /coordinator/ ? stopped_helper() : undef;
			my $coordinator = $session->pid;
			if ($point =~ /coordinator/)
			{
				$session->get("SET concord.fault_points = '$point=$action'");
			}
			else
			{
				# the session there takes the setting over when it is idle
				$cluster->get('b', "ALTER SYSTEM SET concord.fault_points = '$point=$action'");
				$cluster->get('b', 'SELECT pg_reload_conf()');
				$cluster->await_sql('b', 'SHOW concord.fault_points', "$point=$action", "$name: set");
				select(undef, undef, undef, 0.2);
			}
			my $result = single(
				$name, $session, $block,
				$point =~ /coordinator/ && $action eq 'stop' ? sub {
					ConcordTest::await(sub { return process_state($coordinator) eq 'T' }, 20) or die "$name: it does not stop";
					kill 'CONT', $coordinator;
				} : undef);
			if ($point !~ /coordinator/ && restarted('b'))
			{
				$cluster->get('b', 'ALTER SYSTEM RESET concord.fault_points');
				$cluster->get('b', 'SELECT pg_reload_conf()');
				$cluster->await_sql('b', 'SHOW concord.fault_points', '', "$name: reset");
			}
			$watch->() if $watch;
			is(told($result), 'aborted', "$name: aborted") if $action eq 'error' || "$point=$action" eq 'participant_statement=exit';
			is(told($result), 'committed', "$name: it goes on") if $action eq 'stop';
			is(told($result), 'unknown', "$name: unknown") if $action eq 'kill' && !($block && $point =~ /statement/);
			check_single($name, $result, $session);
		}
	}
	my %single_cut = $block ? (
		'before COMMIT'               => [ 'to_server', sql => '^COMMIT' ],
		'before the answer to COMMIT' => [ 'to_client', type => 'C', bytes => 'COMMIT' ])
	  : (
		'before the statement'               => [ 'to_server', sql => '^UPDATE cell' ],
		'before the answer to the statement' => [ 'to_client', type => 'C', bytes => 'UPDATE' ],
		'before the end of the answer'       => [ 'to_client', type => 'Z' ]);
	for my $step (sort keys %single_cut)
	{
		my $name = "$kind, cut $step";
		next unless wanted($name);
		my $session = $cluster->session('a');
		$session->get(on('b', 'SELECT 1'));
		$session->get(on('b', "UPDATE cell SET n = n WHERE id = $cells"));
		my $rule   = $proxy->cut_before(@{ $single_cut{$step} }, @users);
		my $result = single($name, $session, $block);
		ok($proxy->hits($rule), "$name: it was cut there");
		$proxy->pass;
		is(told($result), 'unknown', "$name: nobody can know");
		is($cluster->get('b', "SELECT n FROM cell WHERE id = $cells"), $step =~ /answer/ ? 1 : 0, "$name: done once, or not");
		check_single($name, $result, $session);
	}

	# what a cancel request finds
	for my $when (qw(waiting answered silent))
	{
		my $name = "$kind, cancel while $when";
		next if $block && $when eq 'waiting';
		next unless wanted($name);
		my $session = $cluster->session('a');
		$session->get(on('b', 'SELECT 1'));
		my $holder = $cluster->session('b');
		$holder->get($_) for 'BEGIN', add();
		$holder->get('ROLLBACK') unless $when eq 'waiting';
		my $rule = $when eq 'waiting' ? undef :
		  $proxy->rule('to_client', type => 'C', bytes => $block ? 'COMMIT' : 'UPDATE', action => 'hold', @users);
		my $result = single(
			$name, $session, $block,
			sub {
				if (defined $rule) { $proxy->await_hit($rule, 20); }
				else { $cluster->await_sql('b', 'SELECT count(*) > 0 FROM pg_locks WHERE NOT granted', 't', "$name: it waits"); }
				$cluster->cancel($session);
				$proxy->pass if $when eq 'answered';
			});
		$proxy->pass;
		$holder->quit;
		is($result->{sqlstate}, '57014', "$name: cancelled") if $when eq 'waiting';
		is(told($result), 'committed', "$name: too late") if $when eq 'answered';
		is($result->{sqlstate}, '08007', "$name: nobody can know") if $when eq 'silent';
		check_single($name, $result, $session);
	}
}

# what fails when the statement commits
if (wanted('by itself, a deferred constraint'))
{
	$cluster->get('b', 'CREATE TABLE late (v int UNIQUE DEFERRABLE INITIALLY DEFERRED)');
	my $session = $cluster->session('a');
	is($session->get(on('b', 'INSERT INTO late VALUES (1)')), 1, 'inserted') for 1;
	my $result = $session->run(on('b', 'INSERT INTO late VALUES (1)'));
	is($result->{sqlstate}, '23505', 'a deferred constraint is checked');
	$cluster->is_sql('b', 'SELECT count(*) FROM late', 1, 'and nothing was committed');
	check_single('by itself, a deferred constraint', $result, $session);
}

# ---- nobody can prepare any more

if (wanted('max_prepared_transactions exhausted'))
{
	my $session = $cluster->session('a');
	$cluster->get('b', "BEGIN; UPDATE cell SET n = n WHERE id = 900 + $_; PREPARE TRANSACTION 'other$_'") for 1 .. 20;
	my ($result, $gid) = transaction($session, 1);
	is($result->{sqlstate}, '53200', 'out of prepared transactions is the error of b');
	$cluster->get('b', "ROLLBACK PREPARED 'other$_'") for 1 .. 20;
	check('max_prepared_transactions exhausted', 1, $result, $gid, $session);
}

$cluster->no_leftovers(but => qr/was terminated by signal 9|terminated by signal 9|exited with exit code/);
note("$cells cells");
done_testing();
