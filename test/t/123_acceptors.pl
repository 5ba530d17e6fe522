
# The set of acceptors changes: nodes join and leave, one dies while it joins, storage goes back in time.  Registers
# are complete after each change: any majority of the new set has them.

use strict;
use warnings;

use ConcordRegister;
use ConcordTest;
use PostgreSQL::Test::RecursiveCopy;
use Test::More;

my $cluster = ConcordTest->new(
	nodes     => [qw(a b c d e)],
	join      => ['a'],
	streaming => ['b'],
	conf      => "concord.register_timeout = 20s\nconcord.connect_timeout = 5s\nautovacuum = off");

my $registers = 40;
my $generation = 0;

# All registers get new values.
sub write_all
{
	my ($node) = @_;
	$generation++;
	$cluster->get($node, <<SQL, 60);
DO \$\$
DECLARE i int; v bigint;
BEGIN
	FOR i IN 1..$registers LOOP
		SELECT r.version INTO v FROM concord.register_get('k' || i) r;
		PERFORM concord.register_set('k' || i, i || ' of $generation', v);
	END LOOP;
END \$\$
SQL
	return;
}

# Each is as it was written, though these are away.
sub complete_without
{
	my ($node, $name, @away) = @_;
	$cluster->crash($_) for @away;
	my $sql = "SELECT count(*) FROM generate_series(1, $registers) i, concord.register_get('k' || i) r WHERE r.value = i || ' of $generation'";
	my $result = $cluster->run($node, $sql, 60);
	is($result->{ok} ? $result->{out} : $result->{stderr}, $registers, "$name: all registers are there without @away");
	$cluster->start($_) for @away;
	return;
}

sub acceptors
{
	my ($expected, $name, @nodes) = @_;
	$cluster->await_sql($_, acceptors_sql(), $expected, "$name: $expected, as $_ sees it", 60) for @nodes ? @nodes : 'a';
	return;
}

sub lineage { return $cluster->get($_[0], 'SELECT lineage FROM concord.acceptor'); }
sub configuration { return $cluster->get('a', 'SELECT max(configuration) FROM concord.acceptors'); }

# ---- one, alone

acceptors('a', 'a cluster of one');
write_all('a');
$cluster->join('b');
write_all('b');
acceptors('a', 'a cluster of two', qw(a b));

# ---- three, but the second dies while it joins: nobody waits for it for ever

set_fault_points($cluster, 'b', 'acceptor_before_answer=stop');
my $from = $cluster->log_position('a');
$cluster->join('c');
ok(await_stopped_backend($cluster, 'b', 30), 'b stops in the middle of joining');
like($cluster->get('a', acceptors_sql()), qr/b=joining/, 'it is seen to be joining');
$cluster->crash('b');
$cluster->is_sql('c', q(SELECT value FROM concord.register_get('k1')), "1 of $generation", 'registers can be used again');
ok($cluster->await_log('a', qr/acceptors are now: a\n/, $from, 20), 'it was given up');
write_all('c');
forget_fault_points($cluster, 'b');
$cluster->start('b');
acceptors('a b c', 'back it joins, and the third', qw(a b c));
complete_without('c', 'from one to three', 'a');
$cluster->await_sql('a', 'SELECT 1', 1, 'a is back');

# ---- an acceptor leaves the cluster, another one takes its place

$cluster->join('d');
write_all('d');
acceptors('a b c', 'a fourth is none', qw(a d));
$cluster->get('a', q(SELECT concord.remove_node('c')));
acceptors('a b d', 'd took the place of c', qw(a b d));
complete_without('d', 'c exchanged for d', 'b');
$cluster->get('a', q(SELECT concord.register_set('r', 'x', 0)));

# ---- a restored server is another acceptor, and gets all registers anew

$cluster->node('b')->backup('old');
write_all('d');
my $before = lineage('b');
my $version = configuration();
$cluster->crash('b');
my $data = $cluster->node('b')->data_dir;
rename $data, "$data.lost" or die "rename: $!";
PostgreSQL::Test::RecursiveCopy::copypath($cluster->node('b')->backup_dir . '/old', $data);
chmod 0700, $data;
$cluster->start('b');
$cluster->await_sql('b', 'SELECT pg_is_in_recovery()', 'f', 'b is restored from a base backup');
$cluster->await_sql('a', 'SELECT max(configuration) >= ' . ($version + 2) . ' FROM concord.acceptors', 't', 'it is exchanged for what it is now', 60);
acceptors('a b d', 'restored', qw(a b d));
isnt(lineage('b'), $before, 'it has a new identity');
complete_without('b', 'restored', 'd');

# ---- so is a standby that takes over

$cluster->add_standby('b', 'b1');
write_all('a');
$before = lineage('b');
$version = configuration();
$cluster->stop('b', 'immediate');
$cluster->node('b1')->promote;
$cluster->await_sql('b1', 'SELECT pg_is_in_recovery()', 'f', 'the standby is promoted');
$cluster->get('a', "SELECT concord.set_node('b', '" . $cluster->conninfo('b1') . "')");
$cluster->await_sql('a', 'SELECT max(configuration) >= ' . ($version + 2) . ' FROM concord.acceptors', 't', 'it is exchanged', 60);
acceptors('a b d', 'promoted', qw(a d b1));
isnt(lineage('b1'), $before, 'it has a new identity');
complete_without('b1', 'promoted', 'd');

# ---- five, and three again

$cluster->get('a', "SELECT concord.add_node('$_', '" . $cluster->conninfo($_) . "')") for qw(e c);
sub wanted
{
	my ($n) = @_;
	$cluster->get('a', "ALTER SYSTEM SET concord.acceptors = $n");
	$cluster->get('a', 'SELECT pg_reload_conf()');
	return;
}
wanted(5);
acceptors('a b c d e', 'five', qw(a e));
write_all('e');
complete_without('e', 'five', 'c', 'd');
wanted(3);
$cluster->await_sql('a', q(SELECT count(*) || ' ' || string_agg(DISTINCT state, ' ') FROM concord.acceptors), '3 acceptor', 'three again', 60);
complete_without('e', 'three again', $cluster->get('a', q(SELECT CASE node WHEN 'b' THEN 'b1' ELSE node END FROM concord.acceptors WHERE node NOT IN ('a', 'e') LIMIT 1)));

# ---- two leave at once: the second waits until the first is replaced

my @leaving = split /\n/, $cluster->get('a', q(SELECT node FROM concord.acceptors WHERE node <> 'a' ORDER BY 1));
is(scalar @leaving, 2, "two acceptors leave: @leaving");
$cluster->get('a', "SELECT concord.remove_node('$_')", 60) for @leaving;
$cluster->await_sql('a', q(SELECT string_agg(DISTINCT state, ' ') FROM concord.acceptors WHERE node IS NOT NULL), 'acceptor', 'all is settled', 60);
complete_without('a', 'after both have left');

# and all but one
$cluster->get('a', "SELECT concord.remove_node('$_')", 60) for grep { $_ ne 'a' } split /\n/, $cluster->get('a', 'SELECT node FROM concord.nodes ORDER BY 1');
acceptors('a', 'alone again');
complete_without('a', 'alone again');

$cluster->no_leftovers(but => qr/terminated by signal 9|exited with exit code/);
done_testing();
