
# Identity is bound to the storage: copies, dumps and upgraded servers are nobody until they are
# told who they are.

use strict;
use warnings;

use ConcordTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $cluster = ConcordTest->new(nodes => [qw(a b)], conf => 'concord.connect_timeout = 3s');
$cluster->spread;

sub on
{
	my ($name, $sql) = @_;
	return "SELECT concord.execute_on('$name', '$sql')";
}

sub everywhere
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$cluster->is_sql('a', on('b', 'SELECT 1'), 1, "$name: a reaches b");
	return $cluster->is_sql('b', on('a', 'SELECT 1'), 1, "$name: b reaches a");
}
my $workers = q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_concord worker' AND datname =);

# a copy made by the server; the maintenance worker is no obstacle
$cluster->await_sql('b', "$workers 'app'", 1, 'the worker runs');
$cluster->is_sql(
	'b', 'CREATE DATABASE copy TEMPLATE app',
	'',
	'CREATE DATABASE TEMPLATE',
	dbname => 'postgres');
$cluster->await_sql('b', "$workers 'app'", 1, 'the worker is back');
everywhere('after the copy');
for my $sql (
	on('a', 'SELECT 1'),
	on('b', 'SELECT 1'),
	q(SELECT concord.locate(1)),
	q(SELECT concord.rebalance()),
	q(SELECT concord.set_node('b', zone => 'x')),
	q(SELECT * FROM concord.query_all('SELECT 1') AS (x int)))
{
	$cluster->expect_error(
		'b', $sql, '55000', qr/detached/,
		"the copy is nobody: $sql",
		dbname => 'copy');
}
$cluster->is_sql(
	'b', 'SELECT count(*) FROM concord.nodes',
	2,
	'it can look at its own state',
	dbname => 'copy');
$cluster->expect_error(
	'b', 'SELECT concord.adopt_node()',
	'55000', qr/./,
	'it cannot become the node that lives elsewhere',
	dbname => 'copy');
$cluster->get('b', 'SELECT concord.leave_cluster()', undef, dbname => 'copy');
$cluster->is_sql('b', 'SELECT count(*) FROM concord.nodes', 0, 'it may leave', dbname => 'copy');
$cluster->is_sql('b', 'DROP EXTENSION pg_concord', '', 'and is then free', dbname => 'copy');
$cluster->is_sql('b', 'DROP DATABASE copy', '', 'to go', dbname => 'postgres');
everywhere('after the copy left');

# a member
$cluster->expect_error('b', 'DROP EXTENSION pg_concord',
	'55000', qr/remove_node/, 'DROP EXTENSION on a member');
$cluster->expect_error('b', 'DROP EXTENSION pg_concord CASCADE',
	'55000', qr/remove_node/, 'with CASCADE as well');
$cluster->expect_error('b', 'DROP SCHEMA concord CASCADE',
	qr/^(55000|2BP01)$/, qr/./, 'nor by its schema');
$cluster->expect_error('b', 'DROP SERVER a CASCADE', qr/^(55000|2BP01)$/, qr/./, 'nor its servers');
$cluster->expect_error(
	'b', 'SELECT concord.leave_cluster()',
	'55000', qr/remove_node|member/,
	'nor does it leave by itself');
everywhere('after the attempts');

# a dump carries the extension, and no identity
my $dump = PostgreSQL::Test::Utils::tempdir() . '/app.sql';
$cluster->get('b', 'CREATE TABLE data AS SELECT 42 AS v');
$cluster->node('b')
  ->command_ok([ 'pg_dump', '-f', $dump, '-d', $cluster->node('b')->connstr('app') ], 'pg_dump');
my $text = slurp_file($dump);
like($text, qr/CREATE EXTENSION.*pg_concord/, 'the extension is in it');
unlike(
	$text,
	qr/CREATE SERVER|USER MAPPING|COPY concord\.|INSERT INTO concord\./i,
	'no server, no mapping, no identity is');
for my $where (qw(a b))
{
	$cluster->get($where, 'CREATE DATABASE restored', undef, dbname => 'postgres');
	my $r = $cluster->run($where, "\\i $dump", 60, dbname => 'restored');
	ok($r->{ok}, "restored on $where") or diag $r->{stderr};
	$cluster->is_sql($where, 'SELECT v FROM data', 42, 'with the data', dbname => 'restored');
	$cluster->is_sql(
		$where,
		'SELECT (SELECT count(*) FROM concord.local_node), (SELECT count(*) FROM pg_foreign_server)',
		'0|0',
		'without identity',
		dbname => 'restored');
	$cluster->expect_error(
		$where, on('a', 'SELECT 1'),
		'55000',
		qr/not a member|no cluster|create_cluster/,
		'it is not a member',
		dbname => 'restored');
	$cluster->is_sql($where, 'DROP DATABASE restored', '', 'it goes', dbname => 'postgres');
}
everywhere('after the restores');

# renaming and dropping are not held up by the worker
$cluster->get('a', 'CREATE DATABASE other', undef, dbname => 'postgres');
$cluster->get('a', 'CREATE EXTENSION pg_concord', undef, dbname => 'other');
$cluster->get('a',
	sprintf(q{SELECT concord.create_cluster('o', '%s')}, $cluster->conninfo('a', 'other')),
	undef, dbname => 'other');
$cluster->await_sql('a', "$workers 'other'", 1, 'a second cluster on this server has its worker');
$cluster->is_sql('a', 'ALTER DATABASE other RENAME TO another', '', 'RENAME', dbname => 'postgres');
$cluster->await_sql('a', "$workers 'another'", 1, 'the worker is back');
my $blocker = $cluster->session('a', dbname => 'another');
$cluster->expect_error(
	'a', 'DROP DATABASE another', '55006', qr/other session/, 'a user holds it up',
	dbname => 'postgres',
	within => 20);
$blocker->quit;
$cluster->await_sql('a', "$workers 'another'", 1, 'the worker is back');
$cluster->is_sql('a', 'DROP DATABASE another', '', 'DROP DATABASE', dbname => 'postgres');
everywhere('after DROP DATABASE');

# the node's database was dropped, and another has its name
$cluster->get('b', 'ALTER DATABASE app RENAME TO kept', undef, dbname => 'postgres');
$cluster->expect_error(
	'a', on('b', 'SELECT 1'),
	qr/^(08|3D)/,
	qr/(?=.*node "b").*"app" does not exist/s,
	'no such database there');
$cluster->get('b', 'CREATE DATABASE app', undef, dbname => 'postgres');
$cluster->expect_error(
	'a', on('b', 'SELECT 1'),
	qr/^55000$/,
	qr/(?=.*node "b").*extension/s,
	'a database without the extension');
$cluster->get('b', 'CREATE EXTENSION pg_concord');
$cluster->expect_error('a', on('b', 'SELECT 1'),
	'55000', qr/node "b"/, 'a database that is not the node');
$cluster->get('b', 'DROP EXTENSION pg_concord');
$cluster->get('b', $_, undef, dbname => 'postgres')
  for ('DROP DATABASE app', 'ALTER DATABASE kept RENAME TO app');
$cluster->await_sql('a', on('b', 'SELECT 1'), 1, 'the node is back under its name');
$cluster->await_sql('b', on('a', 'SELECT 1'), 1, 'and works');

# recreated from a copy under the old name and address: detached, until adopted
$cluster->get('b', $_, undef, dbname => 'postgres')
  for (
	'CREATE DATABASE second TEMPLATE app',
	'DROP DATABASE app',
	'ALTER DATABASE second RENAME TO app');
$cluster->expect_error('a', on('b', 'SELECT 1'),
	'55000', qr/node "b"/, 'a copy in its place is not the node');
$cluster->expect_error('b', on('a', 'SELECT 1'),
	'55000', qr/detached.*adopt_node/s, 'and says what to do');
my $generation = q(SELECT generation FROM concord.nodes WHERE node = 'b');
my $before = $cluster->get('a', $generation);
$cluster->get('b', 'SELECT concord.adopt_node()');
$cluster->await_sql('b', on('a', 'SELECT 1'), 1, 'it is the node now');
$cluster->await_sql('a', on('b', 'SELECT 1'), 1, 'for the others, too');
$cluster->is_sql('a', $generation, $before + 1, 'in the next generation');

# the server's storage is another's, as after pg_upgrade; on the authority itself
$cluster->get('a', 'UPDATE concord.local_node SET system_identifier = system_identifier + 1');
$cluster->get('a',
	'UPDATE concord.map_node SET system_identifier = system_identifier + 1 WHERE node = \'a\'');
$cluster->node('a')->restart;
$cluster->expect_error('a', on('b', 'SELECT 1'),
	'55000', qr/detached/, 'an upgraded server is detached');
$cluster->get('a', 'SELECT concord.adopt_node()');
$cluster->await_sql('a', on('b', 'SELECT 1'), 1, 'it is the node again');
$cluster->await_sql('b', on('a', 'SELECT 1'), 1, 'for the others, too');
$cluster->await_epoch(20);
$cluster->is_sql($_, q(SELECT count(*), sum(slots) FROM concord.nodes),
	'2|4096', "the map of $_ is whole")
  for qw(a b);

# the last ones leave
$cluster->get('a', q(SELECT concord.set_node('b', weight => 0)));
$cluster->get('a', 'SELECT concord.rebalance()');
$cluster->get('a', q(SELECT concord.remove_node('b')));
$cluster->await_sql('b', 'SELECT state FROM concord.local_node', 'removed', 'b is removed');
$cluster->is_sql('b', 'DROP EXTENSION pg_concord', '', 'and free');
$cluster->get('a', q(SELECT concord.remove_node('a')));
$cluster->is_sql('a',
	'SELECT (SELECT count(*) FROM concord.local_node), (SELECT count(*) FROM pg_foreign_server)',
	'0|0', 'the last node takes the cluster along');
$cluster->is_sql('a', 'DROP EXTENSION pg_concord', '', 'and is free');

$cluster->no_leftovers;
done_testing();
