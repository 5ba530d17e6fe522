
# A physical standby of a node: known as a replica, and read-only itself.

use strict;
use warnings;

use ConcordTest;
use Test::More;

my $cluster = ConcordTest->new(
	nodes => [qw(a b)],
	streaming => ['b'],
	proxies => ['a'],
	conf => 'concord.connect_timeout = 3s');
$cluster->spread;
my $standby = $cluster->add_standby('b', 'b1');
my $conninfo = 'host=127.0.0.1 port=' . $standby->port . ' dbname=app';
my $proxy = $cluster->proxy('a');

# as a replica
sub add
{
	my ($node, $name, $where) = @_;
	return "SELECT concord.add_replica('$node', '$name', '$where')";
}
my $free = PostgreSQL::Test::Cluster::get_free_port();
$cluster->expect_error('a', add('b', 'r', "host=127.0.0.1 port=$free dbname=app"),
	qr/^08/, qr/refused/, 'nobody there', within => 10);
$cluster->expect_error('a', add('a', 'r', $conninfo),
	qr/^(55000|22023)$/, qr/./, "another node's standby");
$cluster->expect_error('a', add('b', 'r', $cluster->conninfo('b')),
	qr/^(55000|22023)$/, qr/./, 'a primary');
$cluster->expect_error('a', add('x', 'r', $conninfo), '42704', qr/"x"/, 'of an unknown node');
$cluster->expect_error('a', add('b', 'a', $conninfo), '42710', qr/"a"/, 'the name of a node');
$cluster->is_sql('a', 'SELECT count(*) FROM concord.replicas', 0, 'none of these');
my $epoch = $cluster->epoch('a');
$cluster->get('b', add('b', 'b1', $conninfo));
is($cluster->await_epoch(20), $epoch + 1, 'added through b');
$cluster->is_sql(
	$_,
	'SELECT replica, node, host, port FROM concord.replicas',
	'b1|b|127.0.0.1|' . $standby->port,
	"$_ knows it") for qw(a b);
$cluster->expect_error('a', add('b', 'b1', $conninfo), '42710', qr/"b1"/, 'a name twice');
$cluster->node('b')->wait_for_catchup($standby);

# it looks at the map that it has
$cluster->is_sql('b1', q(SELECT string_agg(node, ' ' ORDER BY node) FROM concord.nodes),
	'a b', 'nodes on a standby');
$cluster->is_sql('b1', 'SELECT count(*) FROM concord.slots', 4096, 'slots on a standby');
$cluster->is_sql('b1', 'SELECT replica FROM concord.replicas', 'b1', 'replicas on a standby');
$cluster->is_sql(
	'b1',
	'SELECT concord.locate(7)',
	$cluster->get('a', 'SELECT concord.locate(7)'),
	'locate on a standby');
$cluster->is_sql('b1', 'SELECT count(*) FROM concord.connections', 0, 'connections on a standby');

# each function works or says 25006 before it contacts anyone
my $key = $cluster->get('a',
	q(SELECT min(i) FROM generate_series(1, 1000) i WHERE concord.locate(i) = 'a'));
for my $sql (
	"SELECT * FROM concord.query($key, 'SELECT 1') AS (x int)",
	"SELECT concord.query_json($key, 'SELECT 1')",
	q(SELECT * FROM concord.query_on('a', 'SELECT 1') AS (x int)),
	q(SELECT * FROM concord.query_all('SELECT 1') AS (x int)),
	"SELECT concord.execute($key, 'SELECT 1')",
	q(SELECT concord.execute_on('a', 'SELECT 1')),
	q(SELECT concord.execute_all('SELECT 1')),
	q(SELECT count(*) FROM concord.check_cluster()),
	q(SELECT count(*) FROM concord.rebalance_plan()),
	q(SELECT concord.create_cluster('x', 'host=127.0.0.1')),
	add('b', 'b2', $conninfo),
	q(SELECT concord.remove_replica('b1')),
	q(SELECT concord.add_node('c', 'host=127.0.0.1')),
	q(SELECT concord.remove_node('b')),
	q(SELECT concord.set_node('b', zone => 'x')),
	q(SELECT concord.adopt_node()),
	q(SELECT concord.leave_cluster()),
	q(SELECT concord.rebalance()),
	q(SELECT concord.move_slot(1, 'a')),
	q(SELECT concord.assign_lost_slots('a')),
	q(SELECT concord.map_user('postgres', ARRAY['user=postgres'])))
{
	await(
		sub {
			return !grep { $_->{open} && $_->{user} ne 'concord_node' } $proxy->connections;
		},
		20);
	$proxy->reset_counts;
	my $r = $cluster->run('b1', $sql, 30);
	if ($r->{ok}) { pass("works on a standby: $sql"); next; }
	$cluster->expect_failed($r, '25006', qr/recovery|read-only/, "refused on a standby: $sql");
	is(scalar(grep { $_->{user} ne 'concord_node' } $proxy->connections),
		0, 'before anyone is contacted');
}
is($cluster->epoch('a'), $epoch + 1, 'the map is as before');

# the replica leaves
$cluster->get('b', q(SELECT concord.remove_replica('b1')));
$cluster->await_epoch(20);
$cluster->is_sql('a', 'SELECT count(*) FROM concord.replicas', 0, 'removed');
$cluster->expect_error('a', q(SELECT concord.remove_replica('b1')), '42704', qr/"b1"/, 'once');

# the standby's server does not get in the way of the primary's end
$cluster->stop('b');
$cluster->stop('b1');
$cluster->start('b');
$cluster->await_sql('a', q(SELECT concord.execute_on('b', 'SELECT 1')), 1, 'the node is back');
$cluster->no_leftovers;
done_testing();
