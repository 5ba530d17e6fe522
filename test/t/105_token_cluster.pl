
# One token covers all nodes a transaction wrote on, and what is not finished yet; tokens of
# clients that share one session do not mix.

use strict;
use warnings;

use ConcordTest;
use ConcordToken;
use ConcordWire;
use Test::More;

my $cluster = ConcordTest->new(
	nodes => [qw(a b c)],
	streaming => [qw(b c)],
	proxies => [qw(a c)],
	conf => "autovacuum = off\nconcord.resolve_delay = 300ms");
my %standby = (b => $cluster->add_standby('b', 'b1'), c => $cluster->add_standby('c', 'c1'));
my %node = (a => 1, b => 2, c => 3);
my %on = map { $_ => ConcordWire->new($cluster->node($_)) } qw(a b c);
my %at = map { $_ => ConcordWire->new($standby{$_}) } qw(b c);
my $w = ConcordWire->new($cluster->node('a'));
my $value = 0;

$_->get('CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0)')
  for values %on;
$w->get('RESET concord.token');

sub update { return "SELECT concord.execute_on('$_[0]', 'UPDATE t SET v = v + 1')"; }

sub nodes_of { return join ' ', map { $_->{node} . ($_->{xid} ? '?' : '') } positions($_[0]); }

# The node's standby waits for the token and then has its value.
sub seen
{
	my ($node, $token, $expected, $name) = @_;
	$at{$node}->get("SET concord.token = '$token'");
	return is($at{$node}->get('SELECT v FROM t'), $expected, $name);
}

# writes that are not committed here
my $told = $w->run(update('b'));
is(nodes_of($told->{token}), '2', 'autocommit elsewhere: its position, in the same answer');
seen('b', $told->{token}, 1, "and the node's standby waits for it");
is($on{b}->get("SELECT concord.covers('$told->{token}')"), 't', 'it is not beyond its WAL');
$w->get('BEGIN');
$w->get(update('b'));
is($w->token, $told->{token}, 'not before the commit');
$told = $w->run('COMMIT');
is(nodes_of($told->{token}), '2', 'one phase: its position');
seen('b', $told->{token}, 2, "its standby has it");

# two phases
$w->get('BEGIN');
$w->get(update($_)) for qw(b c);
$told = $w->run('COMMIT');
is(nodes_of($told->{token}), '1 2 3', 'two phases: both, and the decision here');
seen('b', $told->{token}, 3, 'one has it');
seen('c', $told->{token}, 1, 'the other, too');
$w->get('BEGIN');
$w->get(update($_)) for qw(b c);
$w->get('ROLLBACK');
is($w->token, $told->{token}, 'a rollback adds nothing');
my $block = 'DO $$ BEGIN ' . join(' ', map { "PERFORM concord.execute_on('$_',
	'UPDATE t SET v = v + 1');" } qw(b c)) . ' COMMIT; END $$';
my $before = $w->token;
$told = $w->run($block);
isnt($told->{token}, $before, 'COMMIT inside DO');
seen('c', $told->{token}, 2, 'is in it');
is($w->run('SELECT * FROM concord.query_on($$b$$, $$SELECT v FROM t$$) AS (v int)')->{out},
	4, 'a read');
is($w->token, $told->{token}, 'adds nothing to what was written');

# phase two is not waited for: the branch is in the token until its answer is heard
$w->get('SET concord.commit_wait = off');
$w->get('BEGIN');
$w->get(update($_)) for qw(b c);
$told = $w->run('COMMIT');
is(nodes_of($told->{token}), '1 2 2? 3 3?', 'what is not finished is named');
$on{a}->get("SET concord.token = '$told->{token}'");
ok(1, 'it can be set on a node that it says nothing unfinished of');
seen('b', $told->{token}, 5, 'a standby waits for the end of the branch');
seen('c', $told->{token}, 3, 'so does the other');
$w->get('SET concord.commit_wait = on');
$w->get('BEGIN');
$w->get(update($_)) for qw(b c);
$told = $w->run('COMMIT');
is(nodes_of($told->{token}), '1 2 3', 'answers that came late take its place');

# phase two never arrives, and nobody can be asked: the branch is waited for until its node's
# resolver has finished it
my $proxy = $cluster->proxy('c');
my $rule = $proxy->rule(
	'to_server',
	sql => '^COMMIT PREPARED',
	user => '^(?!concord_node$)');
$cluster->proxy('a')->refuse(user => '^concord_node$');
$cluster->proxy('a')->cut(user => '^concord_node$');
$w->get('BEGIN');
$w->get(update($_)) for qw(b c);
$told = $w->run('COMMIT');
like($told->{stderr}, qr/has not finished it yet/, 'one node has not finished');
ok($proxy->hits($rule), 'since it was not told');
$proxy->pass;
is(nodes_of($told->{token}), '1 2 3 3?', 'its branch is in the token');
my %waiting = (
	'the standby' => ConcordWire->new($standby{c}),
	'the primary' => ConcordWire->new($cluster->node('c')));
$_->start("SET concord.token = '$told->{token}'") for values %waiting;
await_waiters($on{c}, 1, 'the primary waits for its branch');
await_waiters($at{c}, 1, 'the standby waits, too');
my $read = q(SELECT * FROM concord.query_on('c', 'SELECT v FROM t') AS (v int));
$w->start($read);
await_waiters($on{c}, 2, 'so does the session itself, when it reads what it has written');
$cluster->proxy('a')->accept;
$on{c}->get('SELECT concord.resolve_transactions()');
for my $which (sort keys %waiting)
{
	ok($waiting{$which}->finish(30)->{ok}, "$which has waited until it was resolved");
	is($waiting{$which}->get('SELECT v FROM t'), 5, 'and shows what it did');
}
is($w->finish(30)->{out}, 5, 'the session reads its own write');

# what was seen elsewhere
my $r = ConcordWire->new($cluster->node('a'));
$r->get('SET concord.track = reads');
$on{b}->get('UPDATE t SET v = 100');
$told = $r->run('SELECT * FROM concord.query_on($$b$$, $$SELECT v FROM t$$) AS (v int)');
is($told->{out}, 100, 'a read on another node');
ok(position($told->{token}, 2), 'is in the token with concord.track = reads');
seen('b', $told->{token}, 100, 'monotonic: a standby shows what was seen on the primary');
$on{b}->get('UPDATE t SET v = 101');
$r->get('BEGIN');
$r->get('SELECT * FROM concord.query_on($$b$$, $$SELECT v FROM t$$) AS (v int)');
$told = $r->run('COMMIT');
seen('b', $told->{token}, 101, 'also in a block, whose end is not awaited there');

# two clients share one session, as a pooler lends it to them
my $pooled = ConcordWire->new($cluster->node('a'));
$pooled->get(q(SET concord.token = ''));
$pooled->get(update('b'));
my $first = $pooled->token;
$pooled->get(q(SET concord.token = ''));
$pooled->get(update('c'));
my $second = $pooled->token;
is(nodes_of($second), '3', "the second client's token has nothing of the first's");
$pooled->get("SET concord.token = '$first'");
$pooled->get(update('b'));
is(nodes_of($pooled->token), '2', "nor the first's of the second's");
$pooled->get("SET concord.commit_wait = off; SET concord.token = ''");
$pooled->get('BEGIN');
$pooled->get(update($_)) for qw(b c);
$pooled->get('COMMIT');
is(nodes_of($pooled->token), '1 2? 3?', 'the first leaves something unfinished');
$pooled->get(q(SET concord.token = ''));
$pooled->get(update('b'));
is(nodes_of($pooled->token), '2', 'of which nothing comes to the second later');
is(position($pooled->token, 2)->{xid}, undef, 'nor a branch');

$pooled->get(q(SET concord.token = ''));
$pooled->get('BEGIN ISOLATION LEVEL SERIALIZABLE');
$pooled->get(q(SELECT * FROM concord.query_on('b', 'SELECT v FROM t') AS (v int)));
$pooled->get(update('c'));
$pooled->get('COMMIT');
unlike(nodes_of($pooled->token), qr/2/,
	'a reader whose COMMIT is awaited brings nothing older either');

# off
my $off = ConcordWire->new($cluster->node('a'));
$off->get('SET concord.track = off');
$off->get('BEGIN');
$off->get(update($_)) for qw(b c);
$off->get('COMMIT');
is($off->token, '', 'concord.track = off: nothing');

# a replica refuses to write: what the transaction has done elsewhere is not started over with it
$_->get(q(CREATE TABLE calls (); CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS
	'INSERT INTO calls DEFAULT VALUES; SELECT 1')) for values %on;
$cluster->get('a', "SELECT concord.add_replica('c', 'c1', 'host=127.0.0.1 port="
	  . $standby{c}->port . " dbname=app')");
$cluster->await_sql('a', 'SELECT can_serve FROM concord.replicas', 't', 'c has a replica');
my $all = q(SELECT count(*) FROM concord.query_all('SELECT writes()') AS (n int));
my $l = ConcordWire->new($cluster->node('a'));
$l->get('SET concord.consistency = session');
$before = $on{b}->get('SELECT v FROM t');
$l->get('BEGIN');
$l->get(update('b'));
is($l->run($all)->{sqlstate}, '25006', 'not in silence');
$l->get('COMMIT');
is($on{b}->get('SELECT v FROM t'), $before, 'all of it is rolled back');
is($l->run($all)->{sqlstate}, '40001', 'nor is what this node has written done twice');
$l->get('BEGIN');
$l->get(update('b'));
$l->get('CREATE TABLE here ()');
is($l->get($all), 3, 'the primaries are asked once this node has written');
$l->get('COMMIT');
is($on{b}->get('SELECT v FROM t'), $before + 1, 'and all of it is there');
is($on{$_}->get('SELECT count(*) FROM calls'), 1, "once on $_") for qw(a b c);

$cluster->no_leftovers;
done_testing();
