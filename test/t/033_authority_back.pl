
# The authority's storage goes back, as by restoring a backup: its old map never becomes a second one of an epoch
# that others have, and the others' newer map is taken over.

use strict;
use warnings;
use feature 'state';

use ConcordTest;
use PostgreSQL::Test::RecursiveCopy;
use Test::More;

my $cluster = ConcordTest->new(
	nodes => [qw(a b c d)],
	join => [qw(a b c)],
	streaming => ['a'],
	conf => "concord.connect_timeout = 5s");
my $a = $cluster->node('a');

# The server of node a gets the files of a backup, at its old address.
sub restore
{
	my ($backup) = @_;
	state $times = 0;
	my $data = $a->data_dir;
	$cluster->stop('a', 'immediate');
	rename $data, $data . ++$times or die "cannot rename $data: $!";
	PostgreSQL::Test::RecursiveCopy::copypath($a->backup_dir . "/$backup", $data);
	chmod 0700, $data;
	$cluster->start('a');
	return;
}

sub check
{
	my ($where, $condition) = @_;
	return
	  "SELECT string_agg(node || ' ' || item, ', ' ORDER BY node) FROM concord.check_cluster() WHERE status = 'error'"
	  . ($condition ? " AND $condition" : '');
}
my $hash = 'SELECT concord._map_hash()';
my $zone = q(SELECT zone FROM concord.nodes WHERE node = 'b');

sub one_map
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $expected = $cluster->get('b', $hash);
	$cluster->await_sql($_, $hash, $expected, "$name: $_ has the map of b") for qw(a c);
	$cluster->await_sql($_, check(), '', "$name: the doctor of $_ finds nothing") for qw(a b c);
	return;
}
one_map('in the beginning');
$a->backup('all');

# nothing is done: the map comes by itself
my $slot = $cluster->get('a', 'SELECT concord.slot(42)');
$cluster->get('a', "SELECT concord.move_slot($slot, 'b')");
my $epoch = $cluster->await_epoch(20);
restore('all');
$cluster->await_sql('a', 'SELECT epoch FROM concord.map_state',
	$epoch, 'the authority fetches the newer map');
$cluster->is_sql('a', 'SELECT concord.locate(42)', 'b', 'all of it');
one_map('after the first restore');
ok($cluster->await_log('a', qr/had a newer map than this node, the cluster's authority/, 0, 5),
	'and says so in its log');

# a change is the first thing that happens, through any node
for my $where (qw(a c))
{
	restore('all');
	$cluster->get($where, "SELECT concord.set_node('b', zone => 'from $where')");
	is($cluster->await_epoch(20),
		++$epoch, "a change through $where at once gets the epoch after the newest");
	$cluster->is_sql($_, $zone, "from $where", "$_ knows it") for qw(a b c);
	$cluster->is_sql('a', 'SELECT concord.locate(42)', 'b', 'what was changed before is not lost');
	one_map("after a change through $where");
}

# the others have a newer map, but cannot be reached for it: no change until they can
$cluster->freeze('b');
$cluster->freeze('c');
restore('all');
$cluster->is_sql(
	'a', 'SELECT epoch < ' . $epoch . ' FROM concord.map_state',
	't', 'nobody tells the old authority');
$cluster->thaw('b');
$cluster->thaw('c');
$cluster->await_sql('a', 'SELECT epoch FROM concord.map_state',
	$epoch, 'it hears when they can speak');
one_map('after the thaw');

# an old map without the nodes that have the newer one: these tell it, and it cannot ask them
$cluster->get('a', "SELECT concord.remove_node('$_', force => true)") for qw(b c);
$cluster->await_sql('b', 'SELECT state FROM concord.local_node', 'removed', 'b is out');
$cluster->await_sql('c', 'SELECT state FROM concord.local_node', 'removed', 'c is out');
$cluster->get('a', q(SELECT concord.assign_lost_slots('a')));
$a->backup('alone');
for my $name (qw(b c))
{
	$cluster->get('a',
		sprintf(q{SELECT concord.add_node('%s', '%s')}, $name, $cluster->conninfo($name)));
}
$epoch = $cluster->await_epoch(20);
restore('alone');
$cluster->await_sql('a', check('a', q(item = 'epoch')),
	'a epoch', 'the old authority hears that it is old');
for my $change (
	q(concord.set_node('a', zone => 'x')),
	q(concord.remove_node('a')),
	q(concord.move_slot(1, 'a')),
	sprintf(q{concord.add_node('d', '%s')}, $cluster->conninfo('d')))
{
	$cluster->expect_error(
		'a', "SELECT $change",
		'55000',
		qr/newer.*epoch $epoch.*send_map/s,
		"refused: $change",
		within => 15);
}
$cluster->is_sql(
	'b', 'SELECT status, detail FROM concord.send_map() WHERE node = \'a\'',
	'ok|', 'b sends its map');
one_map('after send_map');
$cluster->get('a', q(SELECT concord.set_node('b', zone => 'again')));
is($cluster->await_epoch(20), $epoch + 1, 'changes are possible again');
one_map('in the end');

# the authority is gone for good: members leave by force
$cluster->stop('a', 'immediate');
$cluster->expect_error(
	'b', 'SELECT concord.leave_cluster()',
	'55000',
	qr/force => true/,
	'not without force');
my $left = $cluster->run('b', 'SELECT concord.leave_cluster(force => true)');
ok($left->{ok}, 'by force') or diag $left->{stderr};
like(
	$left->{stderr},
	qr/WARNING.*still list node "b".*remove_node\('b', force => true\)/s,
	'with a warning');
$cluster->is_sql('b',
	'SELECT (SELECT count(*) FROM concord.nodes), (SELECT count(*) FROM pg_foreign_server)',
	'0|0', 'nothing is left of it');
$cluster->get('b', sprintf(q{SELECT concord.create_cluster('b', '%s')}, $cluster->conninfo('b')));
$cluster->get('c', 'SELECT concord.leave_cluster(force => true)');
$cluster->is_sql('b', sprintf(q{SELECT concord.add_node('c', '%s')}, $cluster->conninfo('c')),
	2, 'a new cluster of the others');
$cluster->await_sql('c', q(SELECT concord.execute_on('b', 'SELECT 1')), 1, 'works');

$cluster->no_leftovers;
done_testing();
