
# What a routed statement costs on the wire, counted by a proxy: speed is measured elsewhere, this
# is its cause.

use strict;
use warnings;

use ConcordTest;
use PostgreSQL::Test::Utils qw(system_log);
use Test::More;

my $cluster = ConcordTest->new(
	nodes   => [qw(a b c)],
	proxies => [qw(b c)],
	# the flushes that are counted shall be those of the transactions
	conf => "fsync = on\nautovacuum = off\nbgwriter_lru_maxpages = 0\nwal_writer_delay = 10s\ncheckpoint_timeout = 1h");
$cluster->spread;
$cluster->get($_, 'CREATE TABLE item (id int PRIMARY KEY, v int)') for qw(a b c);
my %proxy = map { $_ => $cluster->proxy($_) } qw(b c);
my @users = (user => '^(?!concord_node$)');
my $key = $cluster->get('a',
	q(SELECT min(i) FROM generate_series(1, 1000) i WHERE concord.locate(i) = 'b'));
$cluster->get('b', "INSERT INTO item VALUES ($key, 0)");

my $read =
  "SELECT v FROM concord.query($key, 'SELECT v FROM item WHERE id = \$1', $key) AS (v int)";
my $write = "SELECT concord.execute($key, 'UPDATE item SET v = v + 1 WHERE id = \$1', $key)";

# Runs statements often enough to be in the steady state, then counts what N times cost on one
# connection.
sub cost
{
	my ($n, $node, @sql) = @_;
	my $session = $cluster->session('a');
	for (1 .. 3)
	{
		$session->get($_) for @sql;
	}
	for my $name (qw(b c))
	{
		await(sub { return !$proxy{$name}->counts(@users)->{unanswered}; }, 10);
		$proxy{$name}->reset_counts;
	}
	for (1 .. $n)
	{
		$session->get($_) for @sql;
	}
	# the answer of the last COMMIT may be under way
	my ($counts) = settled($node);
	$session->quit;
	return $counts;
}

sub settled
{
	my @names = @_;
	await(
		sub {
			return !grep { ($_->{to_client}{types}{Z} // 0) < $_->{syncs} }
			  map { $proxy{$_}->counts(@users) } @names;
		},
		10);
	return map { $proxy{$_}->counts(@users) } @names;
}

# The WAL flushes a server has made; a backend reports its own when it becomes idle, at the latest when it ends.
sub flushes
{
	my ($name) = @_;
	return $cluster->get($name, 'SELECT wal_sync FROM pg_stat_wal');
}

# What the caller's transaction consists of commits by itself: one round trip, and as many flushes to disk as the
# same statement would cost there.
my $c = cost(20, 'b', $read);
is($c->{syncs}, 20, 'a read: one flush, the statement without BEGIN and COMMIT');
is($c->{switches}, 20, 'and one round trip');
is($c->{connections}, 0, 'no connection is made');
is($c->{to_server}{types}{P} // 0, 0, 'nothing is parsed again');
is($c->{to_server}{types}{B}, 20, 'one execution each');
is($c->{queries}, 0, 'none by the simple protocol');
is($c->{to_client}{types}{T} // 0, 20, 'one description of rows each');
cmp_ok($c->{to_server}{bytes} / 20, '<', 150, 'few bytes there');
cmp_ok($c->{to_client}{bytes} / 20, '<', 150, 'and back');

$c = cost(20, 'b', $write);
is($c->{syncs}, 20, 'a write: one flush');
is($c->{switches}, 20, 'and one round trip');
is($c->{to_server}{types}{B}, 20, 'one execution each');
is($c->{to_server}{types}{P} // 0, 0, 'nothing is parsed again');
is($cluster->get('b', "SELECT v FROM item WHERE id = $key"), 23, 'each was done once');
{
	$cluster->await_sql('b', ConcordTest::remote_backends_sql('true'), 0, 'b is quiet before');
	# nor does it write as an acceptor: their set has formed
	$cluster->await_sql('a', q(SELECT count(*) || ' ' || string_agg(DISTINCT state, ' ') FROM concord.acceptors),
		(scalar($cluster->names) >= 3 ? '3' : '1') . ' acceptor', 'the acceptors are settled', 30);
	my $session = $cluster->session('a');
	my $synced  = flushes('b');
	my $counted = 'SELECT committed_1pc FROM concord.transaction_stats';
	my $count   = $cluster->get('a', $counted);
	$session->get($write) for 1 .. 100;
	$session->quit;
	$cluster->await_sql('b', ConcordTest::remote_backends_sql('true'), 0, 'b is quiet after');
	$synced = flushes('b') - $synced;
	ok($synced >= 100 && $synced <= 110, 'one flush to disk each') or diag($synced);
	is($cluster->get('a', $counted) - $count, 100, 'each is counted as a commit in one phase');
}

# In any of these there is more to the transaction, or might be: BEGIN and COMMIT are sent.
my %more = (
	'two statements in a message'   => "$read \\; SELECT 1",
	'something else beside it'      => "SELECT concord.execute($key, 'UPDATE item SET v = v + 1 WHERE id = \$1', $key) + 1",
	'a condition on its rows'       => "$read WHERE v > 0",
	'rows of a write'               => "SELECT v FROM concord.query($key, 'UPDATE item SET v = v + 1 WHERE id = \$1 RETURNING v', $key) AS (v int)",
	'a SELECT that locks'           => "SELECT v FROM concord.query($key, 'SELECT v FROM item WHERE id = \$1 FOR UPDATE', $key) AS (v int)",
	'a call within a function'      => "DO \$\$ BEGIN PERFORM concord.execute($key, 'UPDATE item SET v = v + 1 WHERE id = $key'); END \$\$",
	'an isolation level'            => "BEGIN ISOLATION LEVEL REPEATABLE READ; $read; COMMIT",
	'a label'                       => "BEGIN; SET LOCAL concord.transaction_label = ''; $read; COMMIT");
for my $name (sort keys %more)
{
	$c = cost(10, 'b', $more{$name});
	is($c->{syncs}, 20, "$name: the statement with its BEGIN, and COMMIT");
}

# The extended protocol: Sync is seen behind the statement, or something else is.
my $script = $cluster->node('a')->basedir . '/script.sql';
for my $mode (qw(extended prepared))
{
	for my $case (
		[ 'a read',   "$read;",  21, 0 ],
		[ 'a write',  "$write;", 21, 20 ],
		[ 'alone in a pipeline', "\\startpipeline\n$write;\n\\endpipeline", 21, 20 ],
		[ 'two in a pipeline', "\\startpipeline\n$write;\n$write;\n\\endpipeline", 60, 40 ],
		[ 'behind a local read in a pipeline', "\\startpipeline\nSELECT 1;\n$write;\n\\endpipeline", 40, 20 ],
		[ 'before a local error in a pipeline', "\\startpipeline\n$write;\nSELECT 1 / 0;\n\\endpipeline", 2, 0 ])
	{
		my ($name, $sql, $syncs, $done) = @$case;
		my $before = $cluster->get('b', "SELECT v FROM item WHERE id = $key");
		await(sub { return !$proxy{b}->counts(@users)->{unanswered}; }, 10);
		$proxy{b}->reset_counts;
		open my $fh, '>', $script or die "$script: $!";
		print $fh "$sql\n";
		close $fh;
		system_log('pgbench', '-n', '-t', 20, '-M', $mode, '-f', $script, $cluster->node('a')->connstr('app'));
		($c) = settled('b');
		is($c->{syncs}, $syncs, "$name, $mode: flushes of 20, the first of which makes the connection");
		is($cluster->get('b', "SELECT v FROM item WHERE id = $key") - $before, $done, 'and each was done once');
	}
}

$c = cost(10, 'b', 'BEGIN', $read, $write, $read, $write, 'COMMIT');
is($c->{syncs}, 50, 'four statements in a transaction: four flushes and COMMIT');
is($c->{to_server}{types}{B}, 60, 'one BEGIN');
cmp_ok($c->{to_server}{bytes} / 10, '<', 600, 'few bytes');

$c = cost(10, 'b', 'BEGIN', 'SAVEPOINT s', $write, 'ROLLBACK TO s', $write, 'COMMIT');
cmp_ok($c->{syncs}, '<=', 50, 'a savepoint travels with its statement');

$c = cost(10, 'b', 'BEGIN', 'SAVEPOINT s', 'SELECT 1', 'RELEASE s', $read, 'COMMIT');
is($c->{to_server}{types}{B}, 30, 'a savepoint that is only local costs nothing');

for my $node (qw(b c))
{
	$c = cost(10, $node, q(SELECT * FROM concord.query_all('SELECT 1') AS (x int)));
	is($c->{syncs}, 20, "query_all asks $node once");
}

$c = cost(10, 'c', $read);
is($c->{to_server}{messages}, 0, 'who is not concerned is not asked');
$c = cost(10, 'b', "SELECT concord.locate($key), concord.slot($key)");
is($c->{to_server}{messages}, 0, 'nor is anybody for locate and slot');

# Two nodes: what each participant and the coordinator pay for an atomic commit.
$cluster->get('c', "INSERT INTO item VALUES ($key, 0)");
$cluster->get('a', "INSERT INTO item VALUES ($key, 0)");
my %update = map { $_ => "SELECT concord.execute_on('$_', 'UPDATE item SET v = v + 1 WHERE id = $key')" } qw(a b c);
my $n = 20;
my %sql = (
	'two remote nodes'       => [ 'BEGIN', $update{b}, $update{c}, 'COMMIT' ],
	'two nodes and this one' => [ 'BEGIN', $update{a}, $update{b}, $update{c}, 'COMMIT' ],
	'all in one statement'   => ["SELECT sum(rows) FROM concord.execute_all('UPDATE item SET v = v + 1 WHERE id = $key')"]);
for my $name (sort keys %sql)
{
	$cluster->await_sql($_, ConcordTest::remote_backends_sql('true'), 0, "$name: $_ is quiet before") for qw(b c);
	# flushes are counted from the first transaction, messages in the steady state
	my %before  = map { $_ => flushes($_) } qw(a b c);
	my $session = $cluster->session('a');
	for (1 .. 3)
	{
		$session->get($_) for @{ $sql{$name} };
	}
	settled(qw(b c));
	$proxy{$_}->reset_counts for qw(b c);
	for (1 .. $n)
	{
		$session->get($_) for @{ $sql{$name} };
	}
	my %count;
	@count{qw(b c)} = settled(qw(b c));
	# a backend that ends has reported all it did
	$session->quit;
	$cluster->await_sql($_, ConcordTest::remote_backends_sql('true'), 0, "$name: $_ is quiet after") for qw(b c);
	my %after = map { $_ => flushes($_) } qw(a b c);
	for my $node (qw(b c))
	{
		is($count{$node}{syncs}, 3 * $n, "$name, $node: the statement, PREPARE and COMMIT PREPARED");
		is($count{$node}{switches}, 3 * $n, "$name, $node: a round trip each");
		# of a statement prepared before B and E; the two with the gid are parsed each time
		is($count{$node}{to_server}{types}{E}, 4 * $n, "$name, $node: nothing is executed but these and BEGIN");
		is($count{$node}{connections}, 0, "$name, $node: no connection is made");
		my $synced = $after{$node} - $before{$node};
		ok($synced >= 2 * ($n + 3) && $synced <= 2 * ($n + 3) + 3, "$name, $node: two flushes")
		  or diag("$synced in $n + 3 transactions");
	}
	my $synced = $after{a} - $before{a};
	ok($synced >= $n + 3 && $synced <= $n + 6, "$name: one flush on the coordinator")
	  or diag("$synced in $n + 3 transactions");
}

# In parallel: what all participants' answers wait for together is waited for once.
{
	my $session = $cluster->session('a');
	$session->get($_) for @{ $sql{'two remote nodes'} };
	for my $step ('PREPARE TRANSACTION', 'COMMIT PREPARED')
	{
		my %rule = map { $_ => $proxy{$_}->rule('to_client', type => 'C', bytes => $step, action => 'hold', @users) } qw(b c);
		$session->get($_) for ('BEGIN', $update{b}, $update{c});
		$session->start('COMMIT');
		ok($proxy{$_}->await_hit($rule{$_}, 20), "$step reaches $_ before the other has answered") for qw(b c);
		$proxy{$_}->pass for qw(b c);
		ok($session->finish(30)->{ok}, "$step: and it commits");
	}
	$session->quit;
}

# With one writer nothing is prepared.
$c = cost(10, 'b', 'BEGIN', $update{b}, "SELECT * FROM concord.query_on('c', 'SELECT 1') AS (x int)", 'COMMIT');
is($c->{syncs}, 20, 'one writer and a reader: the statement and COMMIT');
$c = cost(10, 'c', 'BEGIN', $update{b}, $update{a}, "SELECT * FROM concord.query_on('c', 'SELECT 1') AS (x int)", 'COMMIT');
is($c->{syncs}, 20, 'who only reads beside two writers is told COMMIT, and not waited for');

$cluster->no_leftovers;
done_testing();
