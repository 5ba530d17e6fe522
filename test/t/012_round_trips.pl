
# What a routed statement costs on the wire, counted by a proxy: speed is measured elsewhere, this
# is its cause.

use strict;
use warnings;

use ConcordTest;
use Test::More;

my $cluster = ConcordTest->new(nodes => [qw(a b c)], proxies => [qw(b c)]);
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
	await(sub { return !$proxy{$node}->counts(@users)->{unanswered}; }, 10);
	my $counts = $proxy{$node}->counts(@users);
	$session->quit;
	return $counts;
}

my $c = cost(20, 'b', $read);
is($c->{syncs}, 40, 'a read: two flushes, the statement with its BEGIN, and COMMIT');
cmp_ok($c->{switches}, '<=', 40, 'and at most two round trips, of which one is waited for');
is($c->{connections}, 0, 'no connection is made');
is($c->{to_server}{types}{P} // 0, 0, 'nothing is parsed again');
is($c->{to_server}{types}{B}, 60, 'three executions: BEGIN, the statement, COMMIT');
is($c->{queries}, 0, 'none by the simple protocol');
is($c->{to_client}{types}{T} // 0, 20, 'one description of rows each');
cmp_ok($c->{to_server}{bytes} / 20, '<', 400, 'few bytes there');
cmp_ok($c->{to_client}{bytes} / 20, '<', 400, 'and back');

$c = cost(20, 'b', $write);
is($c->{syncs}, 40, 'a write: two flushes');
is($c->{switches}, 40, 'and two round trips, for the answer of COMMIT is waited for');
is($c->{to_server}{types}{P} // 0, 0, 'nothing is parsed again');
is($cluster->get('b', "SELECT v FROM item WHERE id = $key"), 23, 'each was done once');

$c = cost(10, 'b', 'BEGIN', $read, $write, $read, $write, 'COMMIT');
is($c->{syncs}, 50, 'four statements in a transaction: four flushes and COMMIT');
is($c->{to_server}{types}{B}, 60, 'one BEGIN');

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

$cluster->no_leftovers;
done_testing();
