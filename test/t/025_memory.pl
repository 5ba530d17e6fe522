
# Sessions that live long: caches are bounded, here and on the peer, and nothing leaks.

use strict;
use warnings;

use ConcordTest;
use Test::More;

use constant MB => 1024;    # in kB

my $cluster = ConcordTest->new(
	nodes => [qw(a b)],
	conf => "log_statement = none\nclient_min_messages = warning");
$cluster->get($_, 'CREATE TABLE t (v int PRIMARY KEY)') for qw(a b);

my $session = $cluster->session('a');
$session->get(q(SELECT concord.execute_on('b', 'SELECT 1')));
my $here = $session->pid;
my $there =
  $session->get(q(SELECT x FROM concord.query_on('b', 'SELECT pg_backend_pid()') AS (x int)));

# What n repetitions of a statement leave in memory after as many have warmed the caches up.
sub grows_by
{
	my ($sql) = @_;
	$session->get($sql, 120);
	my %before = map { $_ => backend_memory_kb($_, 'RssAnon') } $here, $there;
	$session->get($sql, 120);
	my @grown = map { backend_memory_kb($_, 'RssAnon') - $before{$_} } $here, $there;
	note "here $grown[0] kB, there $grown[1] kB";
	return @grown;
}

sub bounded
{
	my ($name, $sql) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($on_a, $on_b) = grows_by($sql);
	cmp_ok($on_a, '<', 2 * MB, "$name: memory here");
	return cmp_ok($on_b, '<', 2 * MB, "$name: memory there");
}

sub loop
{
	my ($n, $body) = @_;
	return "DO \$\$ DECLARE r text; BEGIN FOR i IN 1..$n LOOP $body END LOOP; END \$\$";
}

bounded('the same statement', loop(5000, q(PERFORM concord.execute_on('b', 'SELECT $1', i);)));
bounded('as many transactions',
	loop(2000, q(PERFORM concord.execute_on('b', 'SELECT $1', i); COMMIT;)));
bounded('always another statement',
	loop(3000, q(PERFORM concord.execute_on('b', 'SELECT 1 + ' || i);)));
bounded('always another statement, here',
	loop(3000, q(PERFORM concord.execute_on('a', 'SELECT 1 + ' || i);)));
bounded(
	'rows',
	loop(
		300,
		q(SELECT max(x) INTO r FROM concord.query_on('b', 'SELECT repeat(''x'', 1000) FROM generate_series(1, 100)') AS (x text);)
	));
bounded(
	'errors',
	loop(
		1000,
		q(BEGIN PERFORM concord.execute_on('b', 'SELECT 1/($1 - $1)', i); EXCEPTION WHEN division_by_zero THEN NULL; END;)
	));
bounded(
	'errors, here',
	loop(
		1000,
		q(BEGIN PERFORM concord.execute_on('a', 'SELECT 1/($1 - $1)', i); EXCEPTION WHEN division_by_zero THEN NULL; END;)
	));
bounded(
	'bad statements',
	loop(
		1000,
		q(BEGIN PERFORM concord.execute_on('b', 'SELEC ' || i); EXCEPTION WHEN syntax_error THEN NULL; END;)
	));
bounded(
	'savepoints',
	loop(
		1000,
		q(BEGIN PERFORM concord.execute_on('b', 'INSERT INTO t VALUES ($1)', i); RAISE EXCEPTION SQLSTATE 'ZZ001';
	EXCEPTION WHEN SQLSTATE 'ZZ001' THEN NULL; END;)));
bounded('look-ups', 'SELECT count(concord.locate(i)) FROM generate_series(1, 100000) i');

is($session->pid, $here, 'the same session');
cmp_ok(
	$session->get(
		q(SELECT x FROM concord.query_on('b', 'SELECT count(*) FROM pg_prepared_statements') AS (x bigint))
	),
	'<=', 110,
	'prepared statements on the peer are bounded by concord.prepared_statements');
cmp_ok($session->get('SELECT sum(prepared_statements) FROM concord.connections'),
	'<=', 100, 'as the view says');

# opening and closing
my $before = 0;
for my $round (1, 2)
{
	$session->get(
		loop(
			100,
			q(PERFORM concord.execute_on('b', 'SELECT 1'); COMMIT; PERFORM concord.close_connections(); COMMIT;)
		));
	my $now = backend_memory_kb($here, 'RssAnon');
	cmp_ok($now - $before, '<', 2 * MB, 'connections: memory here') if $round == 2;
	$before = $now;
}
my $files = () = glob "/proc/$here/fd/*";
$session->get(
	loop(
		50,
		q(PERFORM concord.execute_on('b', 'SELECT 1'); COMMIT; PERFORM concord.close_connections(); COMMIT;)
	));
my $after = () = glob "/proc/$here/fd/*";
cmp_ok(abs($after - $files), '<=', 3, 'nor are sockets left open');

# the same for the nodes' own processes
my $workers =
  q(SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type ~ 'concord' OR usename = 'concord_node');
my $beats =
  sub { return $cluster->get('a', q(SELECT last_seen FROM concord.nodes WHERE node = 'b')); };
for my $name (qw(a b))
{
	$cluster->node($name)->append_conf('postgresql.conf', 'concord.heartbeat_interval = 10ms');
	$cluster->node($name)->reload;
}

# Memory of these processes, in kB.
sub sizes
{
	my %size;
	for my $name (qw(a b))
	{
		for my $pid (split / /, $cluster->get($name, $workers))
		{
			$size{"process $pid of $name"} = backend_memory_kb($pid, 'RssAnon');
		}
	}
	return %size;
}

# At least so many heartbeats, since between two looks at the time of the last one there was one.
sub heartbeats
{
	for (1 .. $_[0])
	{
		my $seen = $beats->();
		ok(0, 'heartbeats go on') unless await(sub { return $beats->() ne $seen; }, 10);
	}
	return;
}

heartbeats(20);
my %first = sizes();
heartbeats(100);
my %then = sizes();
cmp_ok(scalar(keys %first), '>=', 6, 'launchers, workers, and their sessions on the other node');
for my $process (sort keys %first)
{
	cmp_ok($then{$process} - $first{$process}, '<', MB, "$process does not grow with heartbeats");
}

$session->quit;
$cluster->no_leftovers;
done_testing();
