
# Nodes join, leave and change while others are away; without the authority nothing changes and
# all else works.

use strict;
use warnings;

use ConcordTest;
use Test::More;

my $cluster = ConcordTest->new(
	nodes => [qw(a b c d)],
	join => [qw(a b c)],
	proxies => ['d'],
	conf => "concord.connect_timeout = 3s");
$cluster->spread;

sub add
{
	my ($name, %arg) = @_;
	return sprintf(
		q{SELECT concord.add_node('%s', '%s')},
		$arg{as}       // $name,
		$arg{conninfo} // $cluster->conninfo($name));
}

sub on
{
	my ($name, $sql) = @_;
	return "SELECT concord.execute_on('$name', '$sql')";
}
my $names = q(SELECT string_agg(node, ' ' ORDER BY node) FROM concord.nodes);

$cluster->is_sql($_, $names, 'a b c', "$_ knows three nodes") for qw(a b c);
$cluster->is_sql($_, 'SELECT count(*), count(DISTINCT node) FROM concord.slots',
	'4096|3', "$_ knows the slots")
  for qw(a b c);
my %map = map {
	$_ => $cluster->get($_,
		'SELECT md5(string_agg(slot || node, \',\' ORDER BY slot)) FROM concord.slots')
} qw(a b c);
is($map{b}, $map{a}, 'a and b have the same map');
is($map{c}, $map{a}, 'a and c have the same map');

# refused before anything is changed
my $epoch = $cluster->epoch('a');
my $nobody = PostgreSQL::Test::Cluster::get_free_port();
$cluster->expect_error(
	'a', add('d', conninfo => "host=127.0.0.1 port=$nobody dbname=app"),
	qr/^08/, qr/refused/,
	'add_node: nobody there',
	within => 10);
$cluster->expect_error('a', add('d', conninfo => $cluster->conninfo('d', 'postgres')),
	qr/./, qr/extension/, 'add_node: no extension there');
$cluster->expect_error(
	'a', add('d', conninfo => $cluster->conninfo('d', 'missing')),
	qr/./,
	qr/"missing" does not exist/,
	'add_node: no such database');
$cluster->expect_error('a', add('d', conninfo => $cluster->conninfo('d') . ' password=geheim'),
	'22023', qr/\A(?!.*geheim).*password/s, 'add_node: a password in conninfo');
$cluster->expect_error('a', add('d', as => 'b'), qr/^42710$/, qr/"b"/, 'add_node: a name twice');
$cluster->expect_error('a', add('b', as => 'e'),
	qr/^(42710|55000)$/, qr/member|already/, 'add_node: a node twice');
$cluster->get('d', sprintf(q{SELECT concord.create_cluster('d', '%s')}, $cluster->conninfo('d')));
$cluster->expect_error('a', add('d'), '55000', qr/member/, 'add_node: a member of another cluster');
$cluster->expect_error('b',
	sprintf(q{SELECT concord.create_cluster('b', '%s')}, $cluster->conninfo('b')),
	'55000', qr/member/, 'create_cluster on a member');
$cluster->get('d', q(SELECT concord.remove_node('d')));
$cluster->node('d')->append_conf('postgresql.conf', 'max_prepared_transactions = 0');
$cluster->node('d')->restart;
$cluster->expect_error('a', add('d'), '55000', qr/max_prepared_transactions/,
	'add_node: no prepared transactions there');
$cluster->node('d')
  ->append_conf('postgresql.conf', "max_prepared_transactions = 5\nshared_preload_libraries = ''");
$cluster->node('d')->restart;
$cluster->expect_error('a', add('d'), '55000', qr/shared_preload_libraries/,
	'add_node: not preloaded there');
$cluster->node('d')->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_concord'");
$cluster->node('d')->restart;
is($cluster->epoch('a'), $epoch, 'none of these changed the map');
$cluster->is_sql('d', 'SELECT count(*) FROM concord.local_node', 0, 'nor the new node');

# a member is away while the map changes
$cluster->stop('c', 'immediate');
$cluster->is_sql('b', add('d'), 4, 'added through b while c is away');
$cluster->await_sql('d', $names, 'a b c d', 'd knows all');
$cluster->await_sql('a', $names, 'a b c d', 'a knows d');
$cluster->await_sql('b', $names, 'a b c d', 'b knows d');
$cluster->is_sql('a', q(SELECT slots FROM concord.nodes WHERE node = 'd'), 0,
	'it owns nothing yet');
$cluster->get('a', q(SELECT concord.set_node('b', zone => 'east')));
$epoch = $cluster->epoch('a');
$cluster->start('c');
$cluster->await_sql('c', 'SELECT epoch FROM concord.map_state',
	$epoch, 'c fetches the map by itself');
$cluster->is_sql('c', q(SELECT zone FROM concord.nodes WHERE node = 'b'), 'east', 'all of it');
$cluster->is_sql('c', on('d', 'SELECT 1'), 1, 'c reaches d');
$cluster->is_sql('d', on('c', 'SELECT 1'), 1, 'd reaches c');
push @{ $cluster->{members} }, 'd';

# weights
cmp_ok($cluster->get('b', 'SELECT concord.rebalance()'), '>', 900, 'rebalanced through b');
$cluster->await_epoch(20);
$cluster->is_sql('d', q(SELECT min(slots), max(slots) FROM concord.nodes), '1024|1024', 'evenly');
$cluster->get('c', q(SELECT concord.set_node('d', weight => 0)));
$cluster->get('a', 'SELECT concord.rebalance()');
$cluster->await_epoch(20);
$cluster->is_sql(
	'd', q(SELECT string_agg(slots::text, ',' ORDER BY slots) FROM concord.nodes),
	'0,1365,1365,1366', 'd is drained');

# the authority is away
$cluster->stop('a', 'immediate');
for my $sql (
	"SELECT concord.set_node('b', zone => 'west')",
	"SELECT concord.remove_node('d')",
	'SELECT concord.rebalance()',
	q(SELECT concord.move_slot(1, 'b')),
	add('d', as => 'e'))
{
	my $r = $cluster->expect_error(
		'b', $sql, '08006',
		qr/cannot be changed.*"a" is not reachable/s,
		"refused without the authority: $sql",
		within => 10);
}
$cluster->is_sql('b', q(SELECT x FROM concord.query_on('c', 'SELECT 1') AS (x int)),
	1, 'statements go on');
$cluster->is_sql('c', q(SELECT count(DISTINCT concord.locate(i)) FROM generate_series(1, 1000) i),
	3, 'so does placement');
$cluster->await_sql(
	'd',
	q(SELECT string_agg(node || ' ' || state, ', ' ORDER BY node) FROM concord.nodes),
	'a down, b up, c up, d up',
	'everybody sees who is away');
$cluster->start('a');
$cluster->is_sql(
	'b', q(SELECT concord.set_node('b', zone => 'west') IS NOT NULL),
	't', 'changed when it is back');
$cluster->await_epoch(20);
$cluster->is_sql('c', q(SELECT zone FROM concord.nodes WHERE node = 'b'), 'west', 'everywhere');

# not inside a transaction on another node than the authority: it could not be undone
my $session = $cluster->session('b');
$session->get('BEGIN');
$cluster->expect_error(
	$session, q(SELECT concord.set_node('b', zone => 'north')),
	'25001',
	qr/transaction block/,
	'a change through another node in a transaction block');
$session->run('ROLLBACK');
$session->quit;
$session = $cluster->session('a');
$session->get('BEGIN');
$session->get(q(SELECT concord.set_node('b', zone => 'north')));
$session->get('ROLLBACK');
$session->quit;
$cluster->is_sql(
	'a', q(SELECT zone FROM concord.nodes WHERE node = 'b'),
	'west', 'on the authority it is part of the transaction');

# removal
$cluster->expect_error('a', q(SELECT concord.remove_node('c')),
	'55006', qr/slots/, 'a node that owns slots');
$cluster->expect_error(
	'b', q(SELECT concord.remove_node('a')),
	qr/^(55006|0A000)$/, qr/authority|slots/,
	'the authority');
$cluster->stop('c', 'immediate');
my ($lost) = map { $cluster->get('a', "SELECT slots FROM concord.nodes WHERE node = '$_'") } 'c';
my $key_of_c = $cluster->get('a',
	q(SELECT min(i) FROM generate_series(1, 10000) i WHERE concord.locate(i) = 'c'));
$cluster->get('a', q(SELECT concord.remove_node('c', force => true)));
$cluster->{members} = [qw(a b d)];
$cluster->await_epoch(20);
$cluster->is_sql('b', q(SELECT count(*) FROM concord.slots WHERE node IS NULL),
	$lost, 'its slots are lost');
$cluster->expect_error('b', "SELECT * FROM concord.query($key_of_c, 'SELECT 1') AS (x int)",
	'PC002', qr/lost/, 'an error to use');
$cluster->is_sql('b', q(SELECT concord.assign_lost_slots('d')), $lost, 'assigned by hand');
$cluster->await_epoch(20);
$cluster->is_sql(
	'a',
	"SELECT x FROM concord.query($key_of_c, 'SELECT current_setting(''cluster_name'')') AS (x text)",
	'd',
	'used again');
$cluster->start('c');
$cluster->await_sql(
	'c', 'SELECT state FROM concord.local_node',
	'removed', 'who was removed in its absence learns it');
$cluster->expect_error(
	'c', on('b', 'SELECT 1'),
	'55000',
	qr/removed|not a member/,
	'and is refused');
$cluster->expect_error('a', on('c', 'SELECT 1'), '42704', qr/"c"/, 'the others do not know it');
is($cluster->get('a', add('c')), 5, 'it may join again, under a new id');
push @{ $cluster->{members} }, 'c';
$cluster->await_epoch(20);
$cluster->is_sql('c', on('b', 'SELECT 1'), 1, 'and is one of them');
$cluster->get('a', q(SELECT concord.remove_node('c')));
$cluster->await_sql('c', 'SELECT state FROM concord.local_node',
	'removed', 'removed while it is there');
$cluster->is_sql('c', 'DROP EXTENSION pg_concord; SELECT 1', 1, 'the extension can be dropped');
$cluster->{members} = [qw(a b d)];

# two at once: one after the other, none lost
my @changers = map { $cluster->session($_) } qw(a b d);
my $old = $cluster->epoch('a');
for my $round (1 .. 5)
{
	$changers[$_]->start("SELECT concord.set_node('" . (qw(a b d))[$_] . "', zone => 'z$round')")
	  for 0 .. 2;
	for my $changer (@changers)
	{
		my $r = $changer->finish(30);
		ok($r->{ok}, "change $round") or diag $r->{stderr};
	}
}
is($cluster->await_epoch(20), $old + 15, 'fifteen changes are fifteen epochs');
$_->quit for @changers;

# joining is interrupted at each step of its conversation with the new node
$cluster->get('a', q(SELECT concord.move_slot(slot, 'a') FROM concord.slots WHERE node = 'd'));
$cluster->get('a', q(SELECT concord.remove_node('d')));
$cluster->{members} = [qw(a b)];
$cluster->await_epoch(20);
my $proxy = $cluster->proxy('d');
my $joined = 0;
for (my $bytes = 30; !$joined && $bytes < 20000; $bytes += 150)
{
	my $rule = $proxy->cut_after('to_client', $bytes, user => '^(?!concord_node$)');
	my $r = $cluster->run('a', add('d'), 30);
	$joined = 1 if $r->{ok};
	ok($r->{ok} || ($r->{sqlstate} // '') =~ /^08/, "join cut after $bytes bytes")
	  or diag $r->{stderr};
	is($cluster->get('a', $names), $joined ? 'a b d' : 'a b', 'a member or not');
	$proxy->pass;
}
ok($joined, 'joined in the end');
push @{ $cluster->{members} }, 'd';
$cluster->await_epoch(20);
$cluster->await_sql('d', 'SELECT state FROM concord.local_node', 'member', 'and d knows');
$cluster->await_sql('b', on('d', 'SELECT 1'), 1, 'and is reached');

$cluster->no_leftovers;
done_testing();
