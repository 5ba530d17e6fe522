
# Deadlocks between nodes: found in time, one victim, the youngest; and no victim where there is none.

use strict;
use warnings;

use ConcordTest;
use Test::More;
use Time::HiRes qw(sleep time);

my @nodes   = qw(a b c d);
my $timeout = 0.4;    # concord.deadlock_timeout, seconds
my $cluster = ConcordTest->new(
	nodes => \@nodes,
	conf  => "concord.deadlock_timeout = '${timeout}s'\ndeadlock_timeout = 1s\nmax_worker_processes = 16\n");

for my $node (@nodes)
{
	$cluster->get($node, 'CREATE TABLE item (id int PRIMARY KEY, v int NOT NULL)');
	$cluster->get($node, 'INSERT INTO item SELECT g, 0 FROM generate_series(1, 100) AS g');
	$cluster->get($node, "CREATE TABLE whole$_ (v int)") for 1 .. 9;
}

my $given_up = join(' + ', map { "(SELECT deadlocks FROM concord.query_on('$_', 'SELECT deadlocks FROM "
	  . "concord.transaction_stats') AS (deadlocks bigint))" } @nodes);
my $victims_before = 0;

# What locks number $id on $node, for a session of node $home
sub locking
{
	my ($home, $node, $kind, $id) = @_;
	my $sql = {
		row      => "UPDATE item SET v = v + 1 WHERE id = $id",
		advisory => "SELECT pg_advisory_xact_lock($id)",
		relation => "LOCK TABLE whole$id"
	}->{$kind};
	return $home eq $node ? $sql : "SELECT concord.execute_on('$node', '$sql')";
}

# Starts what is going to wait, and sees that it does
sub start_waiting
{
	my ($session, $sql) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$session->start($sql);
	sleep 0.3;
	ok($session->busy, 'it waits');
	return;
}

# Waits until one of the sessions has an error; returns its index.  What the others have said by then is kept for
# result().
my %said;

sub await_victim
{
	my ($seconds, @sessions) = @_;
	my $victim;
	await(
		sub {
			for my $i (grep { !$said{ $sessions[$_] } && !$sessions[$_]->busy } 0 .. $#sessions)
			{
				$said{ $sessions[$i] } = $sessions[$i]->finish;
				$victim //= $i unless $said{ $sessions[$i] }{ok};
			}
			return defined $victim;
		},
		$seconds);
	return $victim;
}

sub result { return delete $said{ $_[0] } // $_[0]->finish(20); }

# Each of the sessions holds its own lock and waits for the next one's.  @what: [home, node, kind, id] of its lock.
sub ring
{
	my ($name, @what) = @_;
	my $n        = @what;
	my @sessions = map { $cluster->session($_->[0]) } @what;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	subtest $name => sub {
		for my $i (0 .. $n - 1)
		{
			$sessions[$i]->get('BEGIN');
			$sessions[$i]->get('SELECT 1');
			$sessions[$i]->get(locking(@{ $what[$i] }));
		}
		my $closed;
		# the youngest begins to wait first, so that it is not for closing the cycle that it is chosen
		for my $i (reverse 0 .. $n - 1)
		{
			my ($home) = @{ $what[$i] };
			my (undef, $node, $kind, $id) = @{ $what[ ($i + 1) % $n ] };
			$closed = time();
			$sessions[$i]->start(locking($home, $node, $kind, $id));
			sleep 0.2 if $i > 0;
		}
		my $victim = await_victim(20, @sessions);
		my $took   = time() - $closed;
		is($victim, $n - 1, 'the youngest gives up') or diag("after $took s");
		return unless defined $victim;
		my $result = result($sessions[$victim]);
		is($result->{sqlstate}, '40P01', 'with 40P01') or diag($result->{stderr});
		like($result->{message}, qr/deadlock detected among nodes/, 'message');
		for my $i (0 .. $n - 1)
		{
			my $who = 'Process ' . $sessions[$i]->pid . qq( of node "$what[$i][0]" waits);
			like($result->{detail} // '', qr/$who/, "the detail names session $i");
		}
		like($result->{hint} // '', qr/Repeat/, 'hint');
		cmp_ok($took, '<', $timeout + 4, sprintf('in time (%.2f s)', $took));
		$sessions[$victim]->get('ROLLBACK');
		for my $i (reverse 0 .. $n - 2)
		{
			ok(result($sessions[$i])->{ok}, "session $i goes on");
			ok($sessions[$i]->run('COMMIT')->{ok}, 'and commits');
		}
		$_->quit for @sessions;
		my $victims = $cluster->get('a', "SELECT $given_up");
		is($victims - $victims_before, 1, 'there was one victim');
		$victims_before = $victims;
	};
	return;
}

# both wait for a remote answer
ring('two nodes, remote waits, advisory locks', [qw(a a advisory 1)], [qw(b b advisory 2)]);
ring('two nodes, remote waits, rows', [qw(a a row 1)], [qw(b b row 2)]);
ring('two nodes, remote waits, relations', [qw(a a relation 1)], [qw(b b relation 2)]);
# nobody waits for a remote answer: each has locked on the other's node, and then waits at home
ring('two nodes, local waits, advisory locks', [qw(a b advisory 3)], [qw(b a advisory 4)]);
ring('two nodes, local waits, rows', [qw(a b row 3)], [qw(b a row 4)]);
ring('two nodes, local waits, relations', [qw(a b relation 3)], [qw(b a relation 4)]);
# the coordinators have no part in it
ring('two nodes through a third', [qw(c a row 5)], [qw(c b row 6)]);
ring('two nodes through two others', [qw(c a row 7)], [qw(d b relation 7)]);
# the last two are on one server, the cycle is not
ring('three nodes, lock kinds mixed', [qw(a b row 8)], [qw(b c advisory 8)], [qw(c a relation 8)]);
ring('three nodes, one transaction at home', [qw(a b row 9)], [qw(b b row 10)], [qw(c a advisory 9)]);
ring('four nodes', [qw(a b row 11)], [qw(b c row 11)], [qw(c d row 11)], [qw(d a row 11)]);
ring('four nodes, lock kinds mixed',
	[qw(a a advisory 12)], [qw(b c row 12)], [qw(c d relation 9)], [qw(d b row 12)]);
ring('five transactions on two nodes',
	[qw(a a row 13)], [qw(b b row 13)], [qw(a b row 14)], [qw(b a row 14)], [qw(a b advisory 14)]);

subtest 'a victim that has only been at home' => sub {
	my ($t1, $t2, $home) = map { $cluster->session($_) } qw(a a b);
	$_->get('BEGIN') for $t1, $t2, $home;
	$t1->get(locking(qw(a b row 20)));
	$t2->get(locking(qw(a a advisory 20)));
	$home->get(locking(qw(b b row 21)));
	start_waiting($home, locking(qw(b b row 20)));     # for t1's branch
	start_waiting($t1,   locking(qw(a a advisory 20)));    # for t2
	$t2->start(locking(qw(a b row 21)));                   # for it
	my $result = $home->finish(20);
	is($result->{sqlstate}, '40P01', '40P01');
	like($result->{message}, qr/among nodes/, 'message');
	like($result->{detail}, qr/Process \d+ of node "a" waits on node "b" for ShareLock on transaction/, 'detail');
	$home->get('ROLLBACK');
	ok($t2->finish(20)->{ok}, 'the others go on');
	$t2->get('COMMIT');
	ok($t1->finish(20)->{ok}, 'the others go on');
	$t1->get('COMMIT');
	$_->quit for $t1, $t2, $home;
};

subtest 'the victim goes on after EXCEPTION and after ROLLBACK TO' => sub {
	my ($old, $young) = map { $cluster->session($_) } qw(a b);
	for my $how ('EXCEPTION, at home', 'EXCEPTION, remote', 'ROLLBACK TO', 'again after ROLLBACK TO')
	{
		# where the young one waits: at home, or on the other's node
		my ($mine, $its) = $how =~ /home/ ? qw(a b) : qw(b a);
		$old->get('BEGIN');
		$young->get('BEGIN');
		$old->get(locking('a', $its, 'row', 30));
		$young->get(locking('b', 'c', 'row', 30));
		$young->get(locking('b', $mine, 'row', 31));
		$young->get('SAVEPOINT s') if $how =~ /ROLLBACK/;
		$old->start(locking('a', $mine, 'row', 31));
		sleep 0.2;
		my $sql = locking('b', $its, 'row', 30);
		if ($how =~ /EXCEPTION/)
		{
			$sql =~ s/^SELECT/PERFORM/;
			$young->start(qq(DO \$\$ DECLARE text1 text; text2 text; BEGIN
				BEGIN $sql; EXCEPTION WHEN OTHERS THEN
					GET STACKED DIAGNOSTICS text1 = MESSAGE_TEXT, text2 = PG_EXCEPTION_DETAIL;
					RAISE NOTICE 'caught % % %', SQLSTATE, text1, text2; END; END \$\$));
			my $result = $young->finish(20);
			ok($result->{ok}, "$how: caught") or diag($result->{stderr});
			like($result->{stderr}, qr/caught 40P01 deadlock detected among nodes Process \d+ of node/, 'with its detail');
		}
		else
		{
			my $result = $young->run($sql, 20);
			is($result->{sqlstate}, '40P01', "$how: gives up");
			$young->get('ROLLBACK TO s');
		}
		# its row, which the other waits for, is still locked, so that waiting again is a deadlock again
		if ($how =~ /again/)
		{
			is($young->run($sql, 20)->{sqlstate}, '40P01', "$how: gives up again");
			$young->get('ROLLBACK TO s');
		}
		ok($young->run(locking('b', 'c', 'row', 32))->{ok}, 'the transaction goes on');
		ok($young->run('COMMIT')->{ok}, 'and commits');
		ok($old->finish(20)->{ok}, 'the other one goes on');
		ok($old->run('COMMIT')->{ok}, 'and commits');
	}
	$_->quit for $old, $young;
};

subtest 'a prepared branch holds for its transaction' => sub {
	$cluster->get('c', q(CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN PERFORM pg_advisory_xact_lock(40); RETURN NULL; END'));
	$cluster->get('c', q(CREATE TABLE late (v int)));
	$cluster->get('c', q(CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION at_commit()));
	my ($old, $young) = map { $cluster->session($_) } qw(a d);
	for my $youngest ('who commits', 'who waits for it')
	{
		my ($commits, $waits) = $youngest eq 'who commits' ? ($young, $old) : ($old, $young);
		my ($home, $other) = $youngest eq 'who commits' ? qw(d a) : qw(a d);
		$_->get('BEGIN') for $old, $young;
		$commits->get(locking($home, 'b', 'row', 40));
		$commits->get("SELECT concord.execute_on('c', 'INSERT INTO late VALUES (1)')");
		$waits->get(locking($other, 'c', 'advisory', 40));
		$commits->start('COMMIT');
		$cluster->await_sql('b', 'SELECT count(*) FROM pg_prepared_xacts', 1, 'b is prepared, c waits');
		$waits->start(locking($other, 'b', 'row', 40));
		my $result = $young->finish(20);
		is($result->{sqlstate}, '40P01', "$youngest: it is the victim") or diag($result->{stderr});
		like($result->{message} // '', qr/among nodes/, 'message');
		$young->run('ROLLBACK');
		ok($old->finish(20)->{ok}, 'the other one goes on') or diag('');
		$old->run('COMMIT');
		$cluster->is_sql('b', 'SELECT count(*) FROM pg_prepared_xacts', 0, 'nothing stays prepared');
	}
	$cluster->is_sql('c', 'SELECT count(*) FROM late', 1, 'one of the two was committed');
	$_->quit for $old, $young;
};

subtest 'a one-phase COMMIT that waits' => sub {
	my ($old, $young) = map { $cluster->session($_) } qw(a d);
	$_->get('BEGIN') for $old, $young;
	$old->get(locking(qw(a c advisory 40)));
	$young->get(locking(qw(d c row 41)));
	$young->get("SELECT concord.execute_on('c', 'INSERT INTO late VALUES (2)')");
	$old->get(locking(qw(a b row 41)));
	start_waiting($young, 'COMMIT');
	$old->start(locking(qw(a c row 41)));
	# both waits are on c, in one process each: that is PostgreSQL's
	my $result = result(($old, $young)[ await_victim(20, $old, $young) // 0 ]);
	is($result->{sqlstate}, '40P01', '40P01');
	unlike($result->{message}, qr/among nodes/, 'from the server itself');
	result($_) for grep { $said{$_} || defined $_->{began} } $old, $young;
	$_->run('ROLLBACK') for $old, $young;

	$_->get('BEGIN') for $old, $young;
	$old->get(locking(qw(a c advisory 40)));
	$young->get("SELECT pg_advisory_lock(42)");
	$young->get("SELECT concord.execute_on('c', 'INSERT INTO late VALUES (3)')");
	start_waiting($young, 'COMMIT');
	$old->start(locking(qw(a d advisory 42)));
	$result = $young->finish(20);
	is($result->{sqlstate}, '40P01', '40P01') or diag($result->{stderr});
	like($result->{message} // '', qr/among nodes/, 'between nodes');
	$young->get('SELECT pg_advisory_unlock_all()');
	ok($old->finish(20)->{ok}, 'the other one goes on');
	$old->get('ROLLBACK');
	$cluster->is_sql('c', 'SELECT count(*) FROM late WHERE v = 3', 0, 'nothing was committed');
	$_->quit for $old, $young;
};

# without BEGIN and COMMIT: the branch is known by its session all the same
subtest 'a statement that commits by itself' => sub {
	for my $kind (qw(row advisory))
	{
		my ($old, $young) = map { $cluster->session($_) } qw(a d);
		$young->get('SELECT pg_advisory_lock(44)');
		is($young->get("SELECT concord.execute_on('c', 'SELECT 1')"), 1, 'a connection that is known');
		$old->get('BEGIN');
		$old->get(locking('a', 'c', $kind, 43));
		start_waiting($young, locking('d', 'c', $kind, 43));
		$old->start(locking(qw(a d advisory 44)));
		my $result = $young->finish(20);
		is($result->{sqlstate}, '40P01', "$kind: 40P01") or diag($result->{stderr});
		like($result->{message} // '', qr/among nodes/, 'between nodes');
		$young->get('SELECT pg_advisory_unlock_all()');
		ok($old->finish(20)->{ok}, 'the other one goes on');
		$old->get('ROLLBACK');
		$_->quit for $old, $young;
	}
};

subtest 'a transaction that waits for itself' => sub {
	for my $node (@nodes)
	{
		$cluster->get($node, 'CREATE ROLE boss SUPERUSER LOGIN');
	}
	$cluster->get('a', q(SELECT * FROM concord.map_user('boss', ARRAY['user=boss'])));
	my $session = $cluster->session('a');
	$session->get('BEGIN');
	$session->get(locking(qw(a b row 50)));
	$session->get('SET LOCAL ROLE boss');
	my $result = $session->run(locking(qw(a b row 50)), 20);
	is($result->{sqlstate}, '40P01', 'as two roles on one node') or diag($result->{stderr});
	like($result->{message} // '', qr/among nodes/, 'message');
	$session->get('ROLLBACK');
	$session->quit;
};

subtest 'a cycle within one server is the server\'s own' => sub {
	my ($one, $two) = map { $cluster->session($_) } qw(a c);
	$_->get('BEGIN') for $one, $two;
	$one->get(locking(qw(a b row 51)));
	$two->get(locking(qw(c b row 52)));
	my $from = $cluster->log_position('b');
	start_waiting($one, locking(qw(a b row 52)));
	$two->start(locking(qw(c b row 51)));
	my $victim = await_victim(20, $one, $two) // 0;
	my $result = result(($one, $two)[$victim]);
	is($result->{sqlstate}, '40P01', '40P01');
	unlike($result->{message}, qr/among nodes/, 'not from us');
	($one, $two)[$victim]->get('ROLLBACK');
	ok(result(($one, $two)[ 1 - $victim ])->{ok}, 'the other one goes on');
	($one, $two)[ 1 - $victim ]->get('COMMIT');
	$_->quit for $one, $two;
};

subtest 'who waits behind a waiting one' => sub {
	my ($reader, $writer, $late) = map { $cluster->session($_) } qw(a b c);
	my $shared = q(SELECT pg_advisory_xact_lock_shared(60));
	$_->get('BEGIN') for $late, $reader, $writer;
	$reader->get($shared);
	$late->get(locking(qw(c c row 60)));
	start_waiting($writer, locking(qw(b a advisory 60)));                       # for the reader
	start_waiting($late,   "SELECT concord.execute_on('a', '$shared')");    # behind the writer
	$reader->start(locking(qw(a c row 60)));                                  # for who is behind
	my $result = $writer->finish(20);
	is($result->{sqlstate}, '40P01', 'the writer in between is the youngest of the three');
	ok($late->finish(20)->{ok}, 'who was behind it goes on');
	$_->get('ROLLBACK') for $writer, $late;
	ok($reader->finish(20)->{ok}, 'and the reader');
	$reader->get('ROLLBACK');
	$_->quit for $reader, $writer, $late;
};

subtest 'random orders: nobody is stuck' => sub {
	for my $node (@nodes)
	{
		$cluster->get($node, 'ALTER SYSTEM SET concord.deadlock_timeout = 150');
		$cluster->get($node, 'ALTER SYSTEM SET deadlock_timeout = 100');
		$cluster->get($node, 'SELECT pg_reload_conf()');
		$cluster->get($node, 'UPDATE item SET v = 0');
	}
	$cluster->get($_, q(CREATE FUNCTION shuffle() RETURNS int LANGUAGE plpgsql AS $$
		DECLARE here name := (SELECT n.node FROM concord.nodes n WHERE n.is_local); there name; sql text; BEGIN
			FOR i IN 1 .. 4 LOOP
				there := (ARRAY['a', 'b', 'c', 'd'])[1 + floor(random() * 4)::int];
				sql := format('UPDATE item SET v = v + 1 WHERE id = %s', 90 + floor(random() * 3));
				IF there = here THEN EXECUTE sql; ELSE PERFORM concord.execute_on(there, sql); END IF;
			END LOOP;
			RETURN 4;
		END $$)) for @nodes;
	my $each     = $ENV{CONCORD_SOAK} ? 1000 : 25;
	my @sessions = map { $cluster->session($_) } (@nodes) x 3;
	$_->start(join("\n", ('SELECT shuffle();') x $each)) for @sessions;
	my ($done, %states) = (0);
	for my $session (@sessions)
	{
		my $result = $session->finish($each * 20);
		$done += () = $result->{out} =~ /^4$/mg;
		$states{$1}++ while $result->{stderr} =~ /ERROR:  (\w{5}: deadlock detected(?: among nodes)?|.*)/g;
		$session->quit;
	}
	my $ours   = delete $states{'40P01: deadlock detected among nodes'} // 0;
	my $theirs = delete $states{'40P01: deadlock detected'} // 0;
	is(join(', ', keys %states), '', 'no other error');
	is($done + $ours + $theirs, $each * @sessions, "$done committed, $ours deadlocks among nodes, $theirs within one");
	cmp_ok($ours, '>', 0, 'there were some');
	cmp_ok($done, '>', 0, 'work was done');
	my %sum   = $cluster->get_everywhere('SELECT sum(v) FROM item');
	my $total = 0;
	$total += $_ for values %sum;
	is($total, 4 * $done, 'all that was committed, and nothing else, is there');
	for my $node (@nodes)
	{
		$cluster->get($node, 'ALTER SYSTEM RESET deadlock_timeout');
		$cluster->get($node, 'SELECT pg_reload_conf()');
	}
};

subtest 'long waits and busy queues are no deadlock' => sub {
	my $victims = $cluster->get('a', "SELECT $given_up");
	$cluster->get($_, 'ALTER SYSTEM SET concord.deadlock_timeout = 5') for @nodes;
	$cluster->get($_, 'SELECT pg_reload_conf()') for @nodes;
	$cluster->get($_, q(CREATE PROCEDURE hammer(until timestamptz) LANGUAGE plpgsql AS $$
		DECLARE node name; key int; rounds int := 0; BEGIN
			WHILE clock_timestamp() < until LOOP
				-- in one order, so that there is never a cycle
				FOREACH node IN ARRAY ARRAY['a', 'b', 'c', 'd'] LOOP
					key := 70 + (random() * 2)::int;
					PERFORM concord.execute_on(node, format('UPDATE item SET v = v + 1 WHERE id = %s', key));
					IF random() < 0.3 THEN
						PERFORM concord.execute_on(node, 'SELECT pg_advisory_xact_lock_shared(70)');
					ELSIF random() < 0.1 THEN
						PERFORM concord.execute_on(node, 'SELECT pg_advisory_xact_lock(70)');
					END IF;
				END LOOP;
				IF random() < 0.2 THEN PERFORM pg_sleep(0.02); END IF;
				COMMIT;
				rounds := rounds + 1;
			END LOOP;
			RAISE NOTICE 'rounds %', rounds;
		END $$)) for @nodes;
	my $seconds  = $ENV{CONCORD_SOAK} ? 300 : 8;
	my @sessions = map { $cluster->session($_) } (@nodes) x 4;
	$_->start("CALL hammer(clock_timestamp() + interval '$seconds s')") for @sessions;
	$cluster->await_sql('a', q(SELECT count(*) > 0 FROM pg_stat_activity
		WHERE backend_type = 'pg_concord deadlock detector'), 't', 'a detector is at work');
	my ($bad, $rounds) = (0, 0);
	for my $session (@sessions)
	{
		my $result = $session->finish($seconds + 60);
		$bad++ unless $result->{ok};
		diag($result->{stderr}) unless $result->{ok};
		$rounds += $1 if $result->{stderr} =~ /rounds (\d+)/;
	}
	is($bad, 0, 'nobody gave up');
	cmp_ok($rounds, '>', 50, "work was done ($rounds transactions)");
	is($cluster->get('a', "SELECT $given_up"), $victims, 'and nobody was told to');
	$cluster->get($_, 'ALTER SYSTEM RESET concord.deadlock_timeout') for @nodes;
	$cluster->get($_, 'SELECT pg_reload_conf()') for @nodes;
	$_->quit for @sessions;
};

subtest 'what is left out of the edges follows from the others' => sub {
	my @modes = map { "$_ MODE" } 'ACCESS SHARE', 'ROW SHARE', 'ROW EXCLUSIVE', 'SHARE UPDATE EXCLUSIVE', 'SHARE',
	  'SHARE ROW EXCLUSIVE', 'EXCLUSIVE', 'ACCESS EXCLUSIVE';
	my $closure = sub {
		my ($edges) = @_;
		return "SELECT string_agg(e::text, ' ' ORDER BY e) FROM (WITH RECURSIVE edge AS ($edges), path AS
			(SELECT * FROM edge UNION SELECT p.pid, e.blocker FROM path p JOIN edge e ON e.pid = p.blocker)
			SELECT (pid, blocker) AS e FROM path) q";
	};
	srand($ENV{CONCORD_SEED} // 1);
	for my $round (1 .. 3)
	{
		my @sessions = map { $cluster->session('a') } 1 .. 16;
		$_->get('BEGIN') for @sessions;
		for my $session (@sessions)
		{
			my $two = rand() < 0.3 ? 'LOCK TABLE whole2 IN ACCESS SHARE MODE; ' : '';
			$session->start($two . 'LOCK TABLE whole1 IN ' . $modes[ rand @modes ]);
			sleep 0.02;
		}
		sleep 0.3;
		my $theirs = $cluster->get('a', $closure->(
			'SELECT pid, unnest(pg_blocking_pids(pid)) AS blocker FROM pg_locks WHERE NOT granted'));
		my $ours = $cluster->get('a', $closure->(
			q(SELECT pid, blocker FROM concord._wait_edges() WHERE kind = 'wait')));
		is($ours, $theirs, "a queue of random modes, round $round");
		my ($few, $many) = map { $cluster->get('a', $_) }
		  q(SELECT count(*) FROM concord._wait_edges() WHERE kind = 'wait'),
		  'SELECT count(*) FROM (SELECT unnest(pg_blocking_pids(pid)) FROM pg_locks WHERE NOT granted) q';
		cmp_ok($few, '<=', $many, "$few edges, not $many");
		$cluster->get('a', 'SELECT pg_cancel_backend(pid) FROM pg_locks WHERE NOT granted');
		$_->finish(20), $_->run('ROLLBACK') for @sessions;
		$_->quit for @sessions;
	}
};

subtest 'two nodes on one server' => sub {
	my $port = $cluster->node('a')->port;
	for my $node (qw(one two))
	{
		$cluster->get('a', "CREATE DATABASE $node");
		$cluster->get('a', 'CREATE EXTENSION pg_concord', undef, dbname => $node);
	}
	$cluster->get('a', "SELECT concord.create_cluster('one', 'host=127.0.0.1 port=$port dbname=one')", undef,
		dbname => 'one');
	$cluster->get('a', "SELECT concord.add_node('two', 'host=127.0.0.1 port=$port dbname=two')", undef,
		dbname => 'one');
	my ($old, $young) = map { $cluster->session('a', dbname => $_) } qw(one two);
	$_->get('BEGIN') for $old, $young;
	$old->get('SELECT pg_advisory_xact_lock(1)');
	$young->get('SELECT pg_advisory_xact_lock(2)');
	$old->start(q(SELECT concord.execute_on('two', 'SELECT pg_advisory_xact_lock(2)')));
	sleep 0.2;
	$young->start(q(SELECT concord.execute_on('one', 'SELECT pg_advisory_xact_lock(1)')));
	my $result = $young->finish(20);
	is($result->{sqlstate}, '40P01', 'the youngest gives up') or diag($result->{stderr});
	like($result->{message} // '', qr/among nodes/, 'message');
	$young->get('ROLLBACK');
	ok($old->finish(20)->{ok}, 'the other one goes on');
	$old->get('ROLLBACK');
	$_->quit for $old, $young;
	ok($cluster->run('a', 'DROP DATABASE two')->{ok}, 'the detector makes way for DROP DATABASE');
	ok($cluster->run('a', 'DROP DATABASE one')->{ok}, 'and there');
};

subtest 'rights' => sub {
	$cluster->get('a', 'CREATE ROLE nobody LOGIN');
	$cluster->expect_error('a', 'SELECT * FROM concord._wait_edges()', '42501', qr/concord_node/, '_wait_edges()',
		user => 'nobody');
	$cluster->expect_error('a', q(SELECT concord._give_up('1/1/1.1.1.1.1.1/1', '')), '42501', qr/concord_node/,
		'_give_up()', user => 'nobody');
	$cluster->is_sql('a', q(SELECT concord._give_up('1/1/1.1.1.1.1.1/1', '')), 'f', 'no such wait',
		user => 'concord_node');
	$cluster->expect_error('a', q(SELECT concord._give_up('x', '')), '22023', qr/wait/, 'no wait at all',
		user => 'concord_node');
	for my $name ('1/1/1.1.1.1.1.0/1', '1/1/1.1.1.1.1.3/1', '1/1/1.1.1.1.1.ff/1', '99999999999/1/1.1.1.1.1.1/1')
	{
		my $result = $cluster->run('a', "SELECT concord._give_up('$name', '')");
		ok(($result->{out} // '') eq 'f' || ($result->{sqlstate} // '') eq '22023', "harmless: $name");
	}
	$cluster->get('a', 'DROP ROLE nobody');
};

# nobody waits: it goes
$cluster->await_sql($_, q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_concord deadlock detector'),
	0, "no detector stays on $_", 30)
  for @nodes;
$cluster->no_leftovers;
done_testing();
