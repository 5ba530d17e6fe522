
# Logical copies: a subscriber counts as its node's replica, for the timeline on which it was
# synchronised, and never for more than it shows.

use strict;
use warnings;

use ConcordTest;
use ConcordToken;
use ConcordWire;
use PostgreSQL::Test::Utils;
use Test::More;

my $cluster = ConcordTest->new(
	nodes => [qw(a b s)],
	join => [qw(a b)],
	streaming => ['b'],
	conf => "autovacuum = off\nconcord.connect_timeout = 3s\nwal_retrieve_retry_interval = 200ms",
	node_conf => { b => "wal_level = logical\nlogical_decoding_work_mem = 64kB" });
my %node = map { $_ => $cluster->node($_) } qw(a b s);
my $b = ConcordWire->new($node{b});
my $s = ConcordWire->new($node{s});
my $w = ConcordWire->new($node{a});
my $to_s = $cluster->conninfo('s');
my $value = 0;

sub add { return sprintf q(SELECT concord.add_replica('%s', '%s', '%s')), @_; }

sub subscribe
{
	my ($name, $rest) = @_;
	return "CREATE SUBSCRIPTION $name CONNECTION '"
	  . $cluster->conninfo('b')
	  . "' PUBLICATION p"
	  . ($rest // '');
}

sub replica_is
{
	my ($what, $expected, $name, $bound) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $cluster->await_sql('a', "SELECT $what FROM concord.replicas WHERE replica = 's1'",
		$expected, $name, $bound);
}

# A commit on b: its token.
sub commit
{
	my ($sql, $session) = @_;
	return ($session // $b)->run($sql // ('UPDATE t SET v = ' . ++$value))->{token};
}

# A token with its position changed.
sub moved
{
	my ($token, %change) = @_;
	my ($head) = split /;/, $token;
	my %p = (%{ position($token, 2) }, %change);
	return "$head;2.$p{generation}:$p{timeline}/$p{lsn}" . (defined $p{xid} ? "?$p{xid}" : '');
}

# What the copy says of a token in some time.
sub answer
{
	my ($token, $time) = @_;
	return $s->get("CALL concord.wait('$token', '" . ($time // '10s') . "')");
}

$b->get('CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0);
	CREATE TABLE hidden (v int); CREATE PUBLICATION p FOR TABLE t');
$s->get('CREATE TABLE t (id int PRIMARY KEY, v int)');
my $before = commit();

# refused
$cluster->expect_error('s', "SELECT concord.covers('$before')", '55000', qr/not a member/,
	'before: tokens mean nothing there');
$cluster->expect_error('a', add('b', 's1', $to_s), '55000', qr/has no active subscription to node "b"/,
	'without a subscription');
$cluster->expect_error('a', add('b', 's1', $cluster->conninfo('a')), '55000',
	qr/does not reach a copy of node "b"/, 'a member');
$s->get(subscribe('sub', ' WITH (copy_data = true)'));
sub connected
{
	my ($n) = @_;
	$cluster->await_sql('b', 'SELECT count(*) FROM pg_replication_slots WHERE active', $n,
		'the subscription is connected');
	return;
}
$cluster->await_sql('s', 'SELECT string_agg(DISTINCT srsubstate::text, $$$$) FROM pg_subscription_rel',
	'r', 'tables are synchronised');
connected(1);
$cluster->expect_error('a', add('a', 's1', $to_s), '55000', qr/no active subscription to node "a"/,
	"another node's subscriber");
$s->get(subscribe('sub2', ' WITH (copy_data = false)'));
connected(2);
$cluster->expect_error('a', add('b', 's1', $to_s), '55000', qr/more than one subscription/, 'two');
$s->get('DROP SUBSCRIPTION sub2');
$s->get('ALTER SUBSCRIPTION sub DISABLE');
connected(0);
$cluster->expect_error('a', add('b', 's1', $to_s), '55000', qr/no active subscription/,
	'a disabled one');
$s->get('ALTER SUBSCRIPTION sub ENABLE');
connected(1);
$cluster->is_sql('s', 'SELECT count(*) FROM concord.followed', 0, 'refused: nothing is left');

# added, from a node that is not the authority
$cluster->get('b', add('b', 's1', $to_s));
$cluster->await_epoch(20);
replica_is(q(node || ' ' || kind || ' ' || health || ' ' || can_serve || coalesce(last_error, '')),
	'b logical up true', 'it is a replica');
$cluster->is_sql('b', 'SELECT kind FROM concord.map_replica', 'logical', 'the map has its kind');
$cluster->is_sql('a', q(SELECT DISTINCT status FROM concord.check_cluster() WHERE item IN ('map', 'replica')),
	'ok', 'the maps are the same');
replica_is(q(lag_bytes = 0 AND staleness < '2 s'), 't', 'it has caught up');
$cluster->expect_error('s', 'SELECT concord.locate(1)', '55000', qr/logical copy of node "b"/,
	'it is no member');
$cluster->expect_error('s', "SELECT concord.create_cluster('s', '$to_s')", '55000',
	qr/logical copy of node "b"/, 'and becomes none');
$cluster->expect_error('a', "SELECT concord.add_node('s', '$to_s')", '55000',
	qr/already a member.*remove_replica/s, 'nor is it added as a node');

# tokens
is(answer($before), 'reached', 'what was there before');
is(answer(commit()), 'reached', 'a commit');
is($s->get('SELECT v FROM t'), $value, 'is seen');
is(answer(commit('INSERT INTO hidden VALUES (1)')), 'reached',
	'a commit that touched no published table');
my $far = moved(commit(), lsn => 'FF/0');
is(answer($far, '200ms'), 'timeout', 'what lies ahead');
is($s->get("SELECT concord.covers('$far')"), 'f', 'is not covered');
is($s->run(q(SELECT set_config('concord.token', 'x', false)))->{sqlstate}, '22023', 'no token');
my $wrong = 0;
for (1 .. 300)
{
	my $token = commit();
	$s->get("SET concord.token = '$token'");
	$wrong++ if $s->get('SELECT v FROM t') != $value;
}
is($wrong, 0, 'the copy never shows less than the token it was given');
my $settled = $s->token;
$s->get('CREATE TABLE own (v int); INSERT INTO own VALUES (1)');
is($s->token, $settled, 'its own commits are not in the token');
$s->get('RESET concord.token');

# believed only when visible: without waiting, covered or not, the value is there if it is
my ($early, $covered) = (0, 0);
for (1 .. 300)
{
	my $token = commit();
	for (1 .. 5)
	{
		next unless $s->get("SELECT concord.covers('$token')") eq 't';
		$covered++;
		$early++ if $s->get('SELECT v FROM t') != $value;
		last;
	}
}
is($early, 0, "what is covered is visible ($covered times)");

# a branch is an id of another server
is(answer(moved(commit(), xid => 700), '300ms'), 'timeout', 'a prepared branch');

# disabled: what has come counts, the rest is waited for
my $came = commit();
is(answer($came), 'reached', 'all has come');
$s->get('ALTER SUBSCRIPTION sub DISABLE');
connected(0);
my $late = commit();
is(answer($came), 'reached', 'disabled: what has come');
is(answer($late, '300ms'), 'timeout', 'what has not');
replica_is(q(can_serve || ' ' || last_error), 'false its subscription is disabled',
	'it cannot serve');
my $waiting = ConcordWire->new($node{s});
$waiting->start("SET concord.token = '$late'");
await_waiters($s, 1, 'a session waits');
$cluster->stop('s');
$cluster->start('s');
$s = ConcordWire->new($node{s});
is(answer($came), 'reached', 'disabled and restarted: what has come');
is(answer($late, '300ms'), 'timeout', 'what has not');
$waiting = ConcordWire->new($node{s});
$waiting->start("SET concord.token = '$late'");
await_waiters($s, 1, 'a session waits');
$s->get('ALTER SUBSCRIPTION sub ENABLE');
ok($waiting->finish(20)->{ok}, 'enabled again: it goes on');
is($waiting->get('SELECT v FROM t'), $value, 'and sees what it waited for');
replica_is('can_serve', 't', 'it serves again');

# woken, not polled: by the process that applies
my @seconds;
for (1 .. 20)
{
	my $token = commit();
	push @seconds, $waiting->run("SET concord.token = '$token'")->{seconds};
}
@seconds = sort { $a <=> $b } @seconds;
cmp_ok($seconds[10], '<', 0.2, sprintf 'waits take %.1f ms', $seconds[10] * 1000);

# routed reads
my $routed = q(SELECT * FROM concord.query_on('b', 'SELECT current_setting(''port'')::int, v FROM t')
	AS (port int, v int));
my $stale = 0;
my %by;
$w->get('SET concord.consistency = session');
for (1 .. 100)
{
	$w->get("SELECT concord.execute_on('b', 'UPDATE t SET v = " . ++$value . "')");
	my $result = $w->run($routed);
	my ($port, $v) = split /\|/, $result->{out};
	$by{ $port // $result->{stderr} }++;
	$stale++ unless $result->{ok} && $v == $value;
}
is($stale, 0, 'session: never stale');
is_deeply([ keys %by ], [ $node{s}->port ], 'all answered by the copy')
  or diag(explain \%by);
sub port_of { return (split /\|/, $w->get($_[0]))[0]; }
is(port_of(q(SELECT * FROM concord.query_on('b', 'UPDATE t SET v = v RETURNING current_setting(''port'')::int')
	AS (port int))), $node{b}->port, 'a write by query: the primary');
is(port_of(q(SELECT * FROM concord.query_on('b', 'SELECT current_setting(''port'')::int FROM t
	WHERE pg_current_xact_id() IS NOT NULL') AS (port int))), $node{b}->port,
	'what takes a transaction id: the primary');
$_->get('CREATE FUNCTION write() RETURNS int LANGUAGE sql AS $$UPDATE t SET v = v;
	SELECT current_setting($_$port$_$)::int$$') for $b, $s;
is(port_of(q(SELECT * FROM concord.query_on('b', 'SELECT write()') AS (port int))), $node{b}->port,
	'a function that writes: the primary');
my ($id) = $before =~ /^c1:([^;]+)/;
my $peer = ConcordWire->new($node{s});
is($peer->run("SELECT concord._hello('$id', 1, 1, 1, 1)")->{sqlstate}, '55000',
	"another node's reads are refused");
$peer->get("SELECT concord._hello('$id', 1, 2, 1, 1)");
for my $sql ('CREATE TABLE x (v int)', 'UPDATE t SET v = 0', 'SELECT write()', 'TRUNCATE t',
	'BEGIN READ WRITE; DELETE FROM t', 'DO $$ BEGIN DELETE FROM t; END $$')
{
	is($peer->run($sql)->{sqlstate}, '25006', "a peer cannot write on the copy: $sql");
	$peer->get('ROLLBACK');
}
is($peer->get('SELECT v FROM t'), $value, 'it can read');
$w->get('BEGIN');
is(port_of($routed), $node{s}->port, 'in a block: the copy');
is($w->run(q(SELECT concord.execute_on('b', 'UPDATE t SET v = v')))->{ok}, 1, 'then a write');
is(port_of($routed), $node{b}->port, 'then where it wrote');
$w->get('COMMIT');
is(port_of($routed), $node{s}->port, 'the copy again');
$cluster->is_sql('s', 'SELECT v FROM t', $value, 'nothing was written on the copy');
$w->get('SET concord.consistency = bounded');
is(port_of($routed), $node{s}->port, 'bounded: the copy');
my $r = ConcordWire->new($node{a});
$r->get('SET concord.consistency = eventual');
$r->get('SET concord.track = reads');
is(position($r->token, 2), undef, 'monotonic reads: nothing yet');
for (1 .. 50)
{
	last if (split /\|/, $r->get($routed))[0] == $node{s}->port;
	$r->get(q(SET concord.token = ''));
}
ok(position($r->token, 2), 'what was seen on the copy is in the token');
is($b->get("SELECT concord.covers('" . $r->token . "')"), 't', 'as a place of its node');
$r->quit;
$w->get('SET concord.consistency = session');

# a table that is not synchronised
$b->get('CREATE TABLE t2 (id int PRIMARY KEY); INSERT INTO t2 VALUES (1); ALTER PUBLICATION p ADD TABLE t2');
$s->get('CREATE TABLE t2 (id int PRIMARY KEY); INSERT INTO t2 VALUES (1)');
$s->get('ALTER SUBSCRIPTION sub REFRESH PUBLICATION');
my $unready = commit();
is(answer($unready, '1s'), 'timeout', 'a table is not synchronised: nothing counts');
replica_is(q(can_serve || ' ' || last_error),
	'false a table of its subscription is not synchronised yet', 'it cannot serve');
is(port_of($routed), $node{b}->port, 'the primary answers');
$s->get('DELETE FROM t2');
is(answer($unready, '30s'), 'reached', 'it is synchronised');
replica_is('can_serve', 't', 'it serves again');

# dumps
my ($dump) = run_command([ 'pg_dump', '-d', $node{s}->connstr('app') ]);
unlike($dump, qr/followed/, 'pg_dump leaves out whose copy it is');

# the subscription goes
$cluster->get('a', q(SELECT concord.remove_replica('s1')));
$cluster->is_sql('s', 'SELECT count(*) FROM concord.followed', 0, 'remove_replica tells the copy');
is($peer->run('SELECT v FROM t')->{sqlstate}, '55000', 'peers are refused');
$cluster->expect_error('s', "SELECT concord.covers('$before')", '55000', qr/not a member/,
	'which is none any more');
$cluster->get('a', add('b', 's1', $to_s));
replica_is('can_serve', 't', 'added again');
$w->get(q(SET concord.token = ''));
is(port_of($routed), $node{s}->port, 'the copy answers');
$s->get('DROP SUBSCRIPTION sub');
is(answer($before, '200ms'), 'timeout', 'without its subscription nothing counts');
replica_is(q(can_serve || ' ' || last_error),
	'false its subscription does not exist any more', 'and the view says so');
is(port_of($routed), $node{b}->port, 'the primary answers');
$cluster->get('a', q(SELECT concord.remove_replica('s1')));
$s->get('TRUNCATE t, t2');
$s->get(subscribe('sub', ' WITH (two_phase = true, streaming = true)'));
$cluster->await_sql('s', 'SELECT string_agg(DISTINCT srsubstate::text, $$$$) FROM pg_subscription_rel',
	'r', 'tables are synchronised');
$cluster->get('a', add('b', 's1', $to_s));
replica_is('can_serve', 't', 'subscribed and added anew');
is(answer(commit()), 'reached', 'it counts again');

# prepared transactions and long ones
$cluster->await_sql('s', 'SELECT subtwophasestate FROM pg_subscription', 'e', 'two phases');
$b->get(q(BEGIN; INSERT INTO t VALUES (2, 0); PREPARE TRANSACTION 'x'));
is(answer(commit('UPDATE t SET v = v WHERE id = 1')), 'reached',
	'what is prepared holds nothing up');
is($s->get('SELECT count(*) FROM t WHERE id = 2'), 0, 'nor is it seen');
is(answer($b->run(q(COMMIT PREPARED 'x'))->{token}), 'reached', 'its end');
is($s->get('SELECT count(*) FROM t WHERE id = 2'), 1, 'is seen');
$b->get('BEGIN; INSERT INTO t SELECT g, 0 FROM generate_series(10, 20000) g');
is(answer(commit('INSERT INTO hidden VALUES (2)', ConcordWire->new($node{b}))),
	'reached', 'a long transaction, streamed, holds nothing up');
is(answer($b->run('COMMIT')->{token}), 'reached', 'its end');
is($s->get('SELECT count(*) FROM t WHERE id >= 10'), 19991, 'is seen');
$b->get('DELETE FROM t WHERE id > 1');

# the node fails over: its standby lacks what the copy has, and gives the same LSNs to other commits
my $standby = $cluster->add_standby('b', 'b1');
my $at_standby = ConcordWire->new($standby);
receive_nothing($at_standby);
my $lost = commit();
is(answer($lost), 'reached', 'the copy has what the standby lacks');
my $slot = $s->get('SELECT subslotname FROM pg_subscription');
$cluster->stop('b', 'immediate');
$standby->promote;
my $log_from = $cluster->log_position('b1');
$s->get("ALTER SUBSCRIPTION sub CONNECTION '" . $cluster->conninfo('b1') . "'");
ok($cluster->await_log('b1', qr/replication slot ".*" does not exist/, $log_from, 20),
	'a server that is met, but has nothing to stream');
$cluster->is_sql('s', 'SELECT parted FROM concord.followed', 'f', 'changes nothing');
is(answer($lost), 'reached', 'what the copy has still counts');
$cluster->is_sql('b1', "SELECT count(*) FROM pg_create_logical_replication_slot('$slot', 'pgoutput')",
	1, 'a slot on the new primary');
my $new = ConcordWire->new($standby);
my $ahead = $new->run('UPDATE t SET v = v + 100000')->{token};
is(position($ahead, 2)->{timeline}, 2, 'it is on another timeline');
is(answer($ahead, '500ms'), 'timeout', 'which the copy has not met: never reached');
$cluster->await_sql('b1', 'SELECT count(*) FROM pg_replication_slots WHERE active', 1,
	'the copy is connected to it');
for (1 .. 20) { $ahead = $new->run('UPDATE t SET v = v + 1')->{token}; }
$cluster->await_sql('s', 'SELECT v FROM t',
	$new->get('SELECT v FROM t'), 'it applies what the new primary does');
is(answer($ahead, '500ms'), 'timeout', 'and is not believed');
is(answer($lost, '500ms'), 'timeout', 'nor is what it had before');
$cluster->is_sql('s', 'SELECT parted FROM concord.followed', 't', 'it has parted');
$cluster->stop('s');
$cluster->start('s');
$s = ConcordWire->new($node{s});
is(answer($lost, '500ms'), 'timeout', 'not after a restart either');
replica_is(q(can_serve || ' ' || last_error),
	'false its subscription has followed another server or timeline', 'the view says why');
my $port = $standby->port;
$cluster->get('a', "SELECT concord.set_node('b', 'host=127.0.0.1 port=$port dbname=app')");
$cluster->await_sql('a', q(SELECT state FROM concord.nodes WHERE node = 'b'), 'up',
	'the new primary is the node');
is(port_of($routed), $port, 'which answers');
$cluster->get('a', q(SELECT concord.remove_replica('s1')));
$cluster->await_sql('b1', 'SELECT count(*) FROM pg_replication_slots WHERE active', 1,
	'the copy is connected');
$cluster->expect_error('a', add('b', 's1', $to_s), '55000', qr/has followed another.*synchronise anew/s,
	'the same subscription is not taken again');
$s->get('DROP SUBSCRIPTION sub');
$s->get('TRUNCATE t, t2');
(my $anew = subscribe('sub')) =~ s/port=\d+/port=$port/;
$s->get($anew);
$cluster->await_sql('s', 'SELECT string_agg(DISTINCT srsubstate::text, $$$$) FROM pg_subscription_rel',
	'r', 'synchronised anew');
$cluster->get('a', add('b', 's1', $to_s));
$ahead = $new->run('UPDATE t SET v = v + 1')->{token};
is(answer($ahead), 'reached', 'it is a copy of the new timeline');
is($s->get('SELECT v FROM t'), $new->get('SELECT v FROM t'), 'and shows it');
is(answer($before), 'reached', 'with what the earlier one had');
$cluster->expect_error('s', "SET concord.token = '$lost'", 'PC003', qr/was lost/,
	'and knows what was lost');

# it cannot be told
$cluster->stop('s');
my $told = $cluster->run('a', q(SELECT concord.remove_replica('s1')));
ok($told->{ok}, 'the copy is away: it is removed');
like($told->{stderr}, qr/WARNING.*could not be told/, 'with a warning');
$cluster->start('s');
$cluster->is_sql('s', 'SELECT count(*) FROM concord.followed', 1, 'it does not know');
$cluster->get('s', 'SELECT concord.leave_cluster()');
$cluster->is_sql('s', 'SELECT count(*) FROM concord.followed', 0, 'it may leave by itself');

$cluster->no_leftovers;
done_testing();
