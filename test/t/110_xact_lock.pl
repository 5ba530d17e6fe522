
# Transaction locks over three servers: who is excluded, for how long, what it costs, and what happens when something
# fails meanwhile.  The rest is in sql/locks_xact.sql.

use strict;
use warnings;

use ConcordTest;
use Test::More;
use Time::HiRes qw(sleep);

my $cluster = ConcordTest->new(
	nodes     => [qw(a b c)],
	proxies   => [qw(b c)],
	streaming => ['a'],
	conf      => "concord.deadlock_timeout = '400ms'\ndeadlock_timeout = '1s'\nconcord.commit_timeout = '3s'");
$cluster->spread;
$cluster->get($_, 'CREATE TABLE item (id int PRIMARY KEY, v int)') for qw(a b c);
$cluster->get($_, 'INSERT INTO item VALUES (1, 0)') for qw(a b c);
my @users = (user => '^(?!concord_node$)');

# names of locks that lie on a node
my %name = map {
	$_ => [
		split /\n/,
		$cluster->get('a', "SELECT n FROM (SELECT 'lock ' || i AS n FROM generate_series(1, 100) i) q"
			  . " WHERE concord.locate(n) = '$_' LIMIT 3")
	]
} qw(a b c);

sub lock_sql
{
	my ($node, $mode, $function) = @_;
	$mode     //= 'exclusive';
	$function //= 'xact_lock';
	return "SELECT concord.$function('$name{$node}[0]', '$mode')";
}
sub try_sql { return lock_sql($_[0], $_[1], 'try_xact_lock'); }
sub update_sql
{
	my ($node) = @_;
	return "SELECT concord.execute_on('$node', 'UPDATE item SET v = v + 1 WHERE id = 1')";
}
sub locks_on { return $cluster->get($_[0], q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid <> 20550)); }

sub waits
{
	my ($session, $sql, $why) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$session->start($sql);
	sleep 0.3;
	ok($session->busy, $why);
	return;
}

my ($one, $two, $three) = map { $cluster->session($_) } qw(a b c);

subtest 'exclusion, whoever the coordinators are' => sub {
	for my $node (qw(a b c))
	{
		$one->get('BEGIN');
		$one->get(lock_sql($node));
		is($_->get(try_sql($node)), 'f', "$node: exclusive excludes exclusive") for $two, $three;
		is($three->get(try_sql($node, 'shared')), 'f', "$node: and shared");
		is($three->get("SELECT concord.try_xact_lock('$name{$node}[1]')"), 't', "$node: not another name");
		$two->get('BEGIN');
		waits($two, lock_sql($node), "$node: the next one waits");
		$one->get('COMMIT');
		ok($two->finish(20)->{ok}, "$node: until the end");
		$two->get('COMMIT');
		is($three->get(try_sql($node)), 't', "$node: free as soon as COMMIT has returned");

		$_->get('BEGIN') for $one, $two;
		$one->get(lock_sql($node, 'shared'));
		$two->get(lock_sql($node, 'shared'));
		is($three->get(try_sql($node, 'shared')), 't', "$node: shared with shared");
		is($three->get(try_sql($node)), 'f', "$node: not with exclusive");
		$three->get('BEGIN');
		waits($three, lock_sql($node), "$node: exclusive waits for the shared ones");
		$one->get('ROLLBACK');
		sleep 0.1;
		ok($three->busy, "$node: for all of them");
		$two->get('ROLLBACK');
		ok($three->finish(20)->{ok}, "$node: and has it");
		$three->get('COMMIT');
	}
	# what others see of it
	$one->get('BEGIN');
	$one->get(lock_sql('c'));
	waits($two, lock_sql('c'), 'one waits');
	is($cluster->get('c', q(SELECT count(*) FROM pg_locks w WHERE NOT granted AND locktype = 'advisory' AND objsubid <> 20550
		AND cardinality(pg_blocking_pids(pid)) = 1)), 1, 'pg_blocking_pids() sees for whom');
	$one->get('ROLLBACK');
	$two->finish;
};

subtest 'an application\'s locks of the same number are others' => sub {
	my $hash = "hashtextextended('$name{b}[0]', 0)";
	my @theirs = (
		"pg_try_advisory_lock($hash)",
		"pg_try_advisory_lock(($hash >> 32)::int, ($hash << 32 >> 32)::int)",
		"pg_try_advisory_lock(concord.slot('$name{b}[0]'))",
		"pg_try_advisory_lock(0, concord.slot('$name{b}[0]'))");
	$one->get('BEGIN');
	$one->get(lock_sql('b'));
	is($two->get("SELECT $_"), 't', "$_ while it is held") for @theirs;
	is(locks_on('b'), 2 + @theirs, 'all are there');
	$one->get('COMMIT');
	is($one->get(try_sql('b')), 't', 'and it can be had while they are');
	$two->get('SELECT pg_advisory_unlock_all()');
};

subtest 'savepoints' => sub {
	$one->get($_) for 'BEGIN', lock_sql('b'), 'SAVEPOINT s', lock_sql('c'), 'SAVEPOINT t', lock_sql('a'), 'RELEASE t';
	is($two->get(try_sql($_)), 'f', "$_ is locked") for qw(a b c);
	$one->get('ROLLBACK TO s');
	$cluster->await_sql($two, try_sql($_), 't', "$_ is free after ROLLBACK TO") for qw(a c);
	is($two->get(try_sql('b')), 'f', 'b is not');
	$one->get('COMMIT');
	is($two->get(try_sql('b')), 't', 'until the end');
	$one->get("DO \$\$ BEGIN PERFORM concord.xact_lock('$name{b}[0]'); RAISE 'x'; EXCEPTION WHEN raise_exception THEN
		PERFORM concord.execute_on('b', 'SELECT pg_sleep(0.5)'); END \$\$");
	$one->get('BEGIN');
	$one->get("DO \$\$ BEGIN PERFORM concord.xact_lock('$name{b}[0]'); RAISE 'x'; EXCEPTION WHEN raise_exception THEN
		NULL; END \$\$");
	$cluster->await_sql($two, try_sql('b'), 't', 'EXCEPTION gives back what its block has locked');
	$one->get('COMMIT');
};

subtest 'limits of a wait' => sub {
	$two->get('BEGIN');
	$two->get(lock_sql('b'));
	$one->get('SET lock_timeout = 300');
	$cluster->expect_error($one, lock_sql('b'), '55P03', qr/lock timeout/, 'lock_timeout', within => 5);
	$one->get('RESET lock_timeout');
	$one->get('SET statement_timeout = 300');
	$cluster->expect_error($one, lock_sql('b'), '57014', qr/statement timeout/, 'statement_timeout', within => 5);
	$one->get('RESET statement_timeout');
	waits($one, lock_sql('b'), 'it waits');
	$cluster->cancel($one);
	$cluster->expect_failed($one->finish(20), '57014', qr/user request/, 'cancel');
	$cluster->await_sql('b', 'SELECT count(*) FROM pg_locks WHERE NOT granted', 0, 'nobody waits there any more');
	$one->get('BEGIN');
	$one->get(lock_sql('c'));
	$one->get('SAVEPOINT s');
	$one->get('SET LOCAL lock_timeout = 100');
	$cluster->expect_error($one, lock_sql('b'), '55P03', qr/lock timeout/, 'within a transaction');
	$one->get('ROLLBACK TO s');
	is($three->get(try_sql('c')), 'f', 'which goes on with what it has');
	$one->get('COMMIT');
	# the holder's end, whatever kind
	waits($one, lock_sql('b'), 'it waits again');
	$cluster->get('b', 'SELECT pg_terminate_backend(' . $two->pid . ')');
	ok($one->finish(20)->{ok}, 'until the holder is terminated');
	$two = $cluster->session('b');
	my $doomed = $cluster->session('a');
	$doomed->get('BEGIN');
	$doomed->get(lock_sql('c'));
	$cluster->cancel($doomed, 'pg_terminate_backend');
	$cluster->await_sql('b', try_sql('c'), 't', 'the same on another node');
};

subtest 'deadlocks' => sub {
	for my $other ('a row', 'a lock', 'an upgrade')
	{
		# nobody's server sees both waits
		$_->get('BEGIN') for $one, $two;
		$one->get($other eq 'an upgrade' ? lock_sql('c', 'shared') : lock_sql('c'));
		$two->get($other eq 'a row' ? update_sql('a') : $other eq 'a lock' ? lock_sql('a') : lock_sql('c', 'shared'));
		$one->start($other eq 'a row' ? update_sql('a') : $other eq 'a lock' ? lock_sql('a') : lock_sql('c'));
		sleep 0.2;
		$two->start(lock_sql('c'));
		my ($first) = ($two, $one);
		await(sub { return !$one->busy || !$two->busy; }, 20) or diag('nobody gives up');
		my ($victim, $survivor) = $two->busy ? ($one, $two) : ($two, $one);
		my $result = $victim->finish(20);
		is($result->{sqlstate}, '40P01', "$other: 40P01") or diag($result->{stderr});
		if ($other ne 'an upgrade')
		{
			is($victim, $two, 'the youngest');
			like($result->{message}, qr/among nodes/, 'between nodes');
			like($result->{detail}, qr/ExclusiveLock on advisory lock \[\d+,\d+,\d+,20548\]/, 'the detail shows what');
		}
		$victim->get('ROLLBACK');
		ok($survivor->finish(20)->{ok}, 'the other one goes on');
		$survivor->get('COMMIT');
	}
};

subtest 'held through PREPARE until the outcome' => sub {
	# b only holds a lock, the coordinator writes
	my $prepared = q(SELECT count(*) FROM pg_prepared_xacts);
	my $stopped  = $cluster->session('a');
	my $rule = $cluster->proxy('b')->rule('to_server', sql => '^COMMIT PREPARED', action => 'hold', @users);
	$stopped->get($_) for 'BEGIN', lock_sql('b'), 'UPDATE item SET v = 10 WHERE id = 1';
	$stopped->start('COMMIT');
	ok($cluster->proxy('b')->await_hit($rule, 20), 'the decision is made, b has not heard of it');
	is($cluster->get('b', $prepared), 1, 'b is prepared, though it has written nothing');
	is($cluster->get('b', q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid <> 20550 AND pid IS NULL)), 2, 'with its locks');
	is($two->get(try_sql('b')), 'f', 'nobody else has it');
	$cluster->proxy('b')->pass;
	ok($stopped->finish(20)->{ok}, 'committed');
	is($two->get(try_sql('b')), 't', 'then it is free');

	# the coordinator dies between PREPARE and the decision, and between the decision and phase two
	for my $point ('coordinator_after_prepare', 'coordinator_after_commit')
	{
		$cluster->get('b', 'ALTER SYSTEM SET concord.resolve_delay = 2000');
		$cluster->get('b', 'SELECT pg_reload_conf()');
		$stopped->get("SET concord.fault_points = '$point=stop'");
		$stopped->get($_) for 'BEGIN', lock_sql('b'), 'UPDATE item SET v = v + 1 WHERE id = 1';
		$stopped->start('COMMIT');
		$cluster->await_stopped($stopped);
		is($cluster->get('b', $prepared), 1, "$point: b is prepared");
		is($two->get(try_sql('b')), 'f', "$point: b keeps the lock");
		$cluster->crash('b');
		$cluster->start('b');
		$two = $cluster->session('b');
		is($two->get(try_sql('b')), 'f', "$point: through a crash of b") if $point =~ /prepare/;
		kill 'KILL', $stopped->pid;
		$stopped->finish(30);
		$cluster->await_sql('b', try_sql('b'), 't', "$point: until the outcome is known there", 30);
		await(sub { return eval { $cluster->get('a', 'SELECT 1') } }, 30);
		is($cluster->get('a', 'SELECT v FROM item'), $point =~ /commit/ ? 11 : 10, "$point: the outcome");
		($one, $stopped) = map { $cluster->session('a') } 1, 2;
	}
	$cluster->get('b', 'ALTER SYSTEM RESET concord.resolve_delay');
	$cluster->get('b', 'SELECT pg_reload_conf()');
	$stopped->quit;

	# a holder that cannot vote makes the transaction fail
	$one = $cluster->session('a');
	$one->get($_) for 'BEGIN', lock_sql('b'), update_sql('c');
	$cluster->get('b', q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'concord/a/%'
		AND usename <> 'concord_node'));
	$cluster->expect_error($one, 'COMMIT', '08006|57P01', qr/./, 'who has lost its lock does not commit');
	$one->run('ROLLBACK');
	is($cluster->get('c', 'SELECT v FROM item'), 0, 'anywhere');
	$one->get($_) for 'BEGIN', lock_sql('b');
	$cluster->get('b', q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'concord/a/%'
		AND usename <> 'concord_node'));
	$cluster->expect_error($one, 'COMMIT', '08006|57P01', qr/./, 'even if it has written nothing');
	$one->run('ROLLBACK');
};

# Who gets the lock next sees what was written under it: nodes without locks are finished first.
subtest 'the lock is given back last' => sub {
	my ($lock, $data) = map { $cluster->proxy($_) } qw(c b);
	my $rule = $data->rule('to_server', sql => '^COMMIT PREPARED', action => 'hold', @users);
	my $before = $cluster->get('b', 'SELECT v FROM item');
	$one->get($_) for 'BEGIN', lock_sql('c'), update_sql('b');
	$one->start('COMMIT');
	ok($data->await_hit($rule, 20), 'the node with the data has not been told the decision');
	sleep 0.2;
	is($two->get(try_sql('c')), 'f', 'so the lock is still held');
	$two->start("BEGIN; " . lock_sql('c') . '; SELECT v FROM item');
	sleep 0.1;
	$data->pass;
	ok($one->finish(20)->{ok}, 'committed');
	is((split /\n/, $two->finish(20)->{out})[-1], $before + 1, 'who waited for it sees what was written');
	$two->get('COMMIT');
};

subtest 'what it costs' => sub {
	my %proxy = map { $_ => $cluster->proxy($_) } qw(b c);
	my $session = $cluster->session('a');
	my $cost = sub {
		my ($node, @sql) = @_;
		for my $n (3, 10)
		{
			await(sub { return !$proxy{$node}->counts(@users)->{unanswered}; }, 10);
			$proxy{$node}->reset_counts;
			for (1 .. $n)
			{
				$session->get($_) for @sql;
			}
		}
		await(sub { my $c = $proxy{$node}->counts(@users); return ($c->{to_client}{types}{Z} // 0) >= $c->{syncs} }, 10);
		return $proxy{$node}->counts(@users);
	};
	my $count = $cost->('b', 'BEGIN', lock_sql('b'), 'COMMIT');
	is($count->{syncs}, 20, 'a lock alone: one round trip, and COMMIT');
	is($count->{to_server}{types}{P} // 0, 0, 'nothing is parsed again');
	is($count->{to_server}{types}{B}, 30, 'BEGIN, the lock, COMMIT');
	$count = $cost->('b', 'BEGIN', update_sql('b'), lock_sql('b'), try_sql('b', 'shared'), 'COMMIT');
	is($count->{syncs}, 40, 'one round trip each, in a transaction that is there already, and COMMIT');
	$count = $cost->('b', 'BEGIN', lock_sql('b'), update_sql('c'), 'COMMIT');
	is($count->{syncs}, 30, 'beside a writer: the lock, PREPARE and COMMIT PREPARED');
	$count = $cost->('c', 'BEGIN', lock_sql('b'), lock_sql('c'), 'COMMIT');
	is($count->{syncs}, 20, 'locks on two nodes and nothing written: no second phase');
	$count = $cost->('b', 'BEGIN', lock_sql('a'), 'COMMIT');
	is($count->{to_server}{messages}, 0, 'a lock at home: nothing');
	$session->quit;
};

subtest 'a slot that moves' => sub {
	# the lock that a move takes is that of the slot: without a mover yet, its queue is all there is to see
	my $slot = $cluster->get('a', "SELECT concord.slot('$name{b}[2]')");
	my $held = "SELECT count(*) FROM pg_locks WHERE objsubid = 20547 AND objid = $slot AND mode = 'ShareLock' AND granted";
	$one->get('BEGIN');
	is($one->get("SELECT concord.try_xact_lock('$name{b}[2]')"), 't', 'taken');
	is($cluster->get('b', $held), 1, 'with its slot');
	is($two->get("SELECT concord.try_xact_lock('$name{b}[2]')"), 'f', 'not taken');
	$two->get('BEGIN');
	is($two->get("SELECT concord.try_xact_lock('$name{b}[2]')"), 'f', 'nor in a block');
	is($cluster->get('b', $held), 1, 'who has not got it does not keep the slot');
	$_->get('ROLLBACK') for $one, $two;

	# a session that has not heard of the move is told, and goes to the new owner
	$one->get("SELECT concord.xact_lock('$name{b}[2]')");
	$cluster->get('a', "SELECT concord.move_slot($slot, 'c')");
	$cluster->expect_error('b', "SELECT concord._xact_lock('$name{b}[2]', false, true)", 'PC001', qr/slot $slot/,
		'the old owner refuses');
	$one->get('BEGIN');
	$one->get("SELECT concord.xact_lock('$name{b}[2]')");
	is($cluster->get('c', $held), 1, 'the lock is on the new owner');
	$one->get('COMMIT');
};

subtest 'standby' => sub {
	my $standby = $cluster->add_standby('a', 'a1');
	$cluster->expect_error('a1', lock_sql($_), '25006', qr/during recovery/, "xact_lock on a standby, of node $_") for qw(a b);
	$cluster->expect_error('a1', try_sql('b'), '25006', qr/during recovery/, 'try_xact_lock');
	$cluster->expect_error('a1', "SELECT concord._xact_lock('x', true, true)", '25006', qr/during recovery/, 'there');
	$cluster->expect_error('a1', q(SELECT concord.check_fence('x', 2)), '25006', qr/during recovery/, 'check_fence');
	$standby->stop;
};

subtest 'fences in distributed transactions' => sub {
	my $check = sub { return "SELECT concord.execute_on('$_[0]', 'SELECT concord.check_fence(''f'', $_[1])')" };
	my $rule = $cluster->proxy('b')->rule('to_server', sql => '^COMMIT PREPARED', action => 'hold', @users);
	$one->get($_) for 'BEGIN', $check->('b', 10), update_sql('b'), $check->('c', 10), update_sql('c');
	$one->start('COMMIT');
	ok($cluster->proxy('b')->await_hit($rule, 20), 'decided');
	waits($two, $check->('b', 8), 'an older holder waits for what is prepared');
	$cluster->proxy('b')->pass;
	ok($one->finish(20)->{ok}, 'committed');
	$cluster->expect_failed($two->finish(20), 'PC005', qr/fence 8 .* superseded by 10/, 'and is refused');
	$cluster->expect_error($two, $check->('c', 9), 'PC005', qr/node "c"/, 'on the other node too');
	$one->get($_) for 'BEGIN', $check->('b', 20), $check->('c', 20), 'ROLLBACK';
	is($two->get($check->($_, 13)), 1, "$_: rolled back leaves no mark") for qw(b c);
	# as rows do
	$cluster->crash('b');
	$cluster->start('b');
	$cluster->expect_error('b', q(SELECT concord.check_fence('f', 12)), 'PC005', qr/by 13/, 'a mark survives a crash');
};

$_->quit for $one, $two, $three;
$cluster->no_leftovers(but => qr/terminated by signal 9|exited with exit code/);
done_testing();
