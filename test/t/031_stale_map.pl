
# Nobody acts on an older map: a node that lost a slot says so, the caller fetches the newer map
# and asks again.

use strict;
use warnings;

use ConcordTest;
use Test::More;

# b and c look for news only when they have a reason; what the others push to them goes through
# their proxies
my $lazy = 'concord.heartbeat_interval = 1h';
my $cluster = ConcordTest->new(
	nodes => [qw(a b c)],
	proxies => [qw(a b c)],
	node_conf => { b => $lazy, c => $lazy },
	# a node that is silent on purpose is not given up
	conf => "concord.connect_timeout = 3s\nconcord.suspect_after = 10h\nconcord.down_after = 11h");
$cluster->spread;
$cluster->get($_, 'CREATE TABLE t (v int)') for qw(a b c);

my $where = q('SELECT current_setting(''cluster_name'')');

sub ask { return "SELECT x FROM concord.query($_[0], $where) AS (x text)"; }

# Some key of a node's, as that node and the authority see it.
sub key_of
{
	my ($name) = @_;
	return $cluster->get('a',
		"SELECT min(i) FROM generate_series(1, 10000) i WHERE concord.locate(i) = '$name'");
}

sub move
{
	my ($key, $to) = @_;
	return $cluster->get('a', "SELECT concord.move_slot(concord.slot($key), '$to')");
}

# b hears no news of anybody, and c none of a; what they ask themselves passes, and so do users'
# statements.
sub deaf
{
	mute('b', qr/a|c/);
	mute('c', qr/a/);
	return;
}

# The nodes' own connections to one node, from these, are held.
sub mute
{
	my ($to, $from) = @_;
	$cluster->proxy($to)
	  ->hold('both', user => '^concord_node$', application_name => "^concord/($from)/");
	return;
}

sub hear
{
	$cluster->proxy($_)->pass for qw(a b c);
	$cluster->await_epoch(20);
	return;
}

$cluster->is_sql('b', ask(key_of('c')), 'c', 'routed by b to c');

# the owner lost the slot, the caller does not know: told so, it fetches the map and asks the new
# owner
deaf();
my $key = key_of('c');
my $session = $cluster->session('b');
is($session->get(ask($key)), 'c', 'c owns it');
my $stale = $cluster->epoch('b');
move($key, 'a');
$cluster->await_sql('a', ask($key), 'a', 'a owns it now');
is($cluster->epoch('b'), $stale, 'b does not know');
# c learns it from a request of a's, which carries the epoch
$cluster->is_sql('a', q(SELECT concord.execute_on('c', 'SELECT 1')), 1, 'a asks c for something');
isnt($cluster->epoch('c'), $stale, 'so c knows');
is($cluster->epoch('b'), $stale, 'b still does not');
is($session->get(ask($key)), 'a', 'b is told by c, fetches the map and asks a');
isnt($cluster->epoch('b'), $stale, 'and has the newer map');
hear();

# the caller knows and the new owner does not: it fetches the map before it answers
deaf();
$key = key_of('a');
$stale = $cluster->epoch('c');
move($key, 'c');
is($cluster->epoch('c'), $stale, 'c does not know that it owns the slot');
$cluster->is_sql('a', ask($key), 'c', 'a asks c, which learns it');
isnt($cluster->epoch('c'), $stale, 'c knows');
hear();
$cluster->await_sql('b', ask($key), 'c', 'all know');

# a node with an older map asks one with a newer that kept its slot: there is no reason to refuse
deaf();
my $other = key_of('c');
$key = key_of('a');
$stale = $cluster->epoch('b');
move($key, 'c');
$cluster->is_sql('a', ask($key), 'c', 'c knows');
is($cluster->epoch('b'), $stale, 'b does not');
is($session->get(ask($other)), 'c', 'b is answered: what it asks for is where it thinks it is');
hear();

# something has been done already: the error goes to the caller, with nothing done
deaf();
$key = key_of('c');
my $second = $cluster->get('a',
	"SELECT min(i) FROM generate_series(1, 10000) i WHERE concord.locate(i) = 'c' AND i <> $key");
$session->get(ask($key));
$session->get(ask($second));
$session->get('BEGIN');
is($session->get("SELECT concord.execute($second, 'INSERT INTO t VALUES (1)')"), 1, 'written on c');
$stale = $cluster->epoch('b');
move($key, 'a');
$cluster->is_sql('a', q(SELECT concord.execute_on('c', 'SELECT 1')),
	1, 'c knows that it lost a slot');
isnt($cluster->epoch('c'), $stale, 'c knows');
$cluster->expect_error(
	$session, ask($key), 'PC001',
	qr/map is too old/,
	'in a transaction that has done something: PC001',
	within => 10);
$session->run('ROLLBACK');
is($session->get(ask($key)), 'a', 'the next transaction has the newer map');
$cluster->is_sql('c', 'SELECT count(*) FROM t', 0, 'nothing was done');
hear();

# the newer map cannot be had: an error in bounded time, not an answer by the old map
deaf();
$key = key_of('c');
is($session->get(ask($key)), 'c', 'c owns it');
$stale = $cluster->epoch('b');
mute($_, 'b') for qw(a c);
move($key, 'a');
$cluster->is_sql('a', q(SELECT concord.execute_on('c', 'SELECT 1')), 1, 'c knows');
isnt($cluster->epoch('c'), $stale, 'c has the newer map');
$cluster->expect_error($session, ask($key), 'PC001', qr/map/, 'b cannot fetch it', within => 15);
hear();
$cluster->await_sql($session, ask($key), 'a', 'it can when the network is back', 30);

# and a node that cannot fetch the newer map does not serve those who have it
deaf();
$key = key_of('a');
$stale = $cluster->epoch('c');
mute($_, 'c') for qw(a b);
move($key, 'c');
$cluster->expect_error(
	'a', ask($key), qr/^(PC001|08\w{3}|55\w{3})$/, qr/map/,
	'c cannot fetch it',
	within => 15);
hear();
$cluster->await_sql('a', ask($key), 'c', 'it can when the network is back', 30);

# many look-ups while slots move: every answer comes from the owner of its moment, none fails
my @askers = map { $cluster->session($_) } qw(a b c);

for my $round (1 .. 6)
{
	my @names = qw(a b c);
	my $keys = join ',', map { $round * 100 + $_ } 1 .. 20;
	$_->start(
		"SELECT count(*), count(*) FILTER (WHERE x IN ('a', 'b', 'c')) FROM unnest(ARRAY[$keys]) i, concord.query(i, $where) AS (x text)"
	) for @askers;
	$cluster->get('a',
		"SELECT concord.move_slot(concord.slot(i), '$names[$round % 3]') FROM unnest(ARRAY[$keys]) i"
	);
	for my $asker (@askers)
	{
		my $r = $asker->finish(60);
		# a statement of several look-ups has done something when a later one meets the newer map
		ok(($r->{ok} && $r->{out} eq '20|20') || ($r->{sqlstate} // '') eq 'PC001',
			"asked while slots move, round $round")
		  or diag($r->{out} . $r->{stderr});
	}
}
$_->quit for @askers;

$session->quit;
$cluster->no_leftovers;
done_testing();
