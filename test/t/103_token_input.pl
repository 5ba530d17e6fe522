
# Tokens that nobody should send, a position that a crash took back, servers that know no tokens.

use strict;
use warnings;

use ConcordTest;
use ConcordToken;
use ConcordWire;
use Test::More;

my $cluster = ConcordTest->new(
	nodes => [qw(a b)],
	streaming => ['a'],
	conf => "autovacuum = off\nlog_statement = none\nwal_buffers = 8MB");
my $primary = $cluster->node('a');
my $standby = $cluster->add_standby('a', 'a1');
my $w = ConcordWire->new($primary);
$w->get('CREATE TABLE t (id int PRIMARY KEY, v text)');
my $good = $w->run('INSERT INTO t VALUES (1)')->{token};
$primary->wait_for_catchup($standby);
my ($head) = split /;/, $good;
my $foreign = $good =~ s/^c1:.{8}/c1:00000000/r;

# ---------------------------------------------------------------- what is no token

my %bad = (
	'garbage' => ['garbage', '22023', qr/malformed/],
	'a blank' => [' ', '22023', qr/malformed/],
	'a blank at the end' => ["$good ", '22023', qr/malformed/],
	'the head cut short' => [substr($good, 0, 20), '22023', qr/malformed/],
	'a position cut short' => ["$head;1.1:1/0", '22023', qr/malformed/],
	'a separator at the end' => ["$good;", '22023', qr/malformed/],
	'lower case' => ["$head;1.1:1/0/abc", '22023', qr/malformed/],
	'a leading zero' => ["$head;1.1:01/0/1", '22023', qr/malformed/],
	'no node' => ["$head;0.1:1/0/1", '22023', qr/malformed/],
	'a node too great' => ["$head;99999.1:1/0/1", '22023', qr/malformed/],
	'the same twice' => ["$head;1.1:1/0/1;1.1:1/0/1", '22023', qr/malformed/],
	'out of order' => ["$head;2.1:1/0/1;1.1:1/0/1", '22023', qr/malformed/],
	'ten thousand bytes' => ['x' x 10_000, '22023', qr/malformed/],
	'a long one, cut' => [
		$head . join('', map { ";1.1:$_/FFFFFFFF/FFFFFFFF" } 1 .. 400) . ';1', '22023',
		qr/malformed/
	],
	'too long' => [
		$head . join('', map { ";1.1:$_/0/1" } 1 .. 1025), '22023', qr/too long.*1024/s
	],
	'another version' => [ $good =~ s/^c1/c2/r, '22023', qr/version/ ],
	'another cluster' => [ $foreign, '22023', qr/another cluster/ ],
	'an unknown node' => ["$head;77.1:1/0/1", '42704', qr/node 77/]);

my $value;
my %ways = (
	'SET' => sub { $_[0]->run("SET concord.token = '$value'") },
	'SET LOCAL' => sub { $_[0]->run("BEGIN; SET LOCAL concord.token = '$value'") },
	'set_config' => sub {
		$_[0]->pipeline([ q(SELECT set_config('concord.token', $1, false)), $value ]);
	},
	'CALL' => sub { $_[0]->pipeline([ 'CALL concord.wait($1)', $value ]) },
	'covers' => sub { $_[0]->pipeline([ 'SELECT concord.covers($1)', $value ]) });
for my $node ($primary, $standby)
{
	my $r = ConcordWire->new($node, quiet => 1);
	for my $what (sort keys %bad)
	{
		($value, my ($state, $message)) = @{ $bad{$what} };
		for my $way (sort keys %ways)
		{
			my $done = $ways{$way}->($r);
			my $name = $node->name . ", $way: $what";
			if ($way eq 'CALL' && $state eq '42704')
			{
				is($done->{out}, 'unknown node', $name);
				next;
			}
			$cluster->expect_failed($done, $state, $message, $name, within => 5);
			$r->run('ROLLBACK') if $done->{status} ne 'I';
			is($r->get(q(SELECT current_setting('concord.token') = '' AND count(*) = 1 FROM t)),
				't', 'the session goes on');
		}
	}

	# as a start-up option
	for my $what ('garbage', 'a position cut short', 'another version')
	{
		my $connected =
		  eval { ConcordWire->new($node, options => "-c concord.token=$bad{$what}[0]") };
		is($connected, undef, $node->name . ", start-up option: $what");
		like($@, qr/22023/, 'is refused') if !$connected;
	}
	for my $what ('another cluster', 'an unknown node')
	{
		my ($token, $state, $message) = @{ $bad{$what} };
		my $s = ConcordWire->new($node, options => "-c concord.token=$token");
		$cluster->expect_error($s, 'SELECT 1', $state, $message, "start-up option: $what");
		is($s->run('RESET concord.token')->{ok}, 1, 'it can be given up');
		is($s->get('SELECT 1'),                  1, 'and the session goes on');
	}
}

# what only looks odd
{
	my $r = ConcordWire->new($primary, quiet => 1);
	is($r->get("SELECT concord.covers('$head')"), 't', 'a token without positions');
	is($r->run("SET concord.token = '$head'")->{ok}, 1, 'can be set');
	is($r->get("SELECT concord.covers('$head;2.1:1/0/1')"), 't', "another node's is no matter");
	my $long = $head . join '', map { ";2.1:$_/0/1" } 1 .. 1000;
	is($r->run("SET concord.token = '$long'")->{ok}, 1, 'a thousand positions');
	is(scalar(positions($r->run('INSERT INTO t VALUES (2)')->{token})), 1001, 'are kept');
	$long = $head . join '', map { ";2.1:$_/0/1" } 1 .. 1024;
	is($r->run("SET concord.token = '$long'")->{ok}, 1, 'as many as there may be');
	my $done = $r->run('INSERT INTO t VALUES (3)');
	is($done->{ok}, 1, 'the commit stands');
	like($done->{stderr}, qr/^WARNING:  54000: .*no room/, 'with a warning that there is no room');
	is($r->get('SELECT count(*) FROM t WHERE id = 3'), 1, 'and is there');
}

# ---------------------------------------------------------------- what is to come, or never

{
	my $future = with_position($good, lsn => 'FFFFFFFF/FFFFFFFF');
	my $r = ConcordWire->new($standby, options => '-c concord.wait_timeout=100ms');
	my $done = $r->run("SET concord.token = '$future'");
	$cluster->expect_failed($done, 'PC004', qr/./, 'a standby waits for the future, not for ever');
	cmp_ok($done->{seconds}, '>', 0.09, 'all its time');
	my $p = ConcordWire->new($primary);
	$cluster->expect_error($p, "SET concord.token = '$future'",
		'PC003', qr/lost/, 'a primary knows its future', within => 2);
	my $later = with_position($good, generation => 2);
	$cluster->expect_error($p, "SET concord.token = '$later'",
		'PC004', qr/left behind/, 'a later generation', within => 2);
	$later = with_position($good, timeline => 4294967295);
	$cluster->expect_error($p, "SET concord.token = '$later'",
		'PC004', qr/left behind/, 'a later timeline', within => 2);
	$cluster->expect_error($r, "SET concord.token = '$later'",
		'PC004', qr/in time/, 'on a standby it may come');
	for my $xid (2**32 - 1, '18446744073709551615')
	{
		my $branch = with_position($good, xid => $xid);
		$p->get(q(SET concord.wait_timeout = '50ms'));
		$cluster->expect_error($p, "SET concord.token = '$branch'",
			'PC004', qr/./, "a branch of the future, $xid");
	}
	my $past = with_position($good, xid => 3);
	is($p->get("SELECT concord.covers('$past')"), 't', 'a branch of the past');
	is($_->get('SELECT 1'), 1, 'the session goes on') for $r, $p;
}

# ---------------------------------------------------------------- where a token is set

{
	my $r = ConcordWire->new($primary);
	$r->get("CREATE FUNCTION carries() RETURNS bigint LANGUAGE sql
		SET concord.token = '$good' AS 'SELECT count(*) FROM t'");
	$cluster->expect_error($r, 'SELECT carries()', '25001', qr/./, "a function's SET");
	$r->get("CREATE FUNCTION carries_idly() RETURNS int LANGUAGE plpgsql
		SET concord.token = '$good' AS 'BEGIN RETURN 1; END'");
	is($r->run('SELECT carries_idly()')->{ok}, 1, 'one that reads nothing');
	is($r->get('SHOW concord.token'), $r->token, 'leaves no trace');
	$cluster->expect_error($r, "ALTER SYSTEM SET concord.token = '$good'",
		qr/^(55P02|42602)$/, qr/./, 'not in a file');

	# a role's or database's setting is as a start-up option
	$r->get('CREATE ROLE carrier LOGIN SUPERUSER');
	$r->get("ALTER ROLE carrier SET concord.token = '$foreign'");
	my $s = ConcordWire->new($primary, user => 'carrier');
	$cluster->expect_error($s, 'SELECT 1', '22023', qr/another cluster/, "a role's setting");
	is($s->run('DISCARD ALL')->{ok}, 1, 'can be given up');
	is($s->get('SELECT 1'),          1, 'and the session goes on');
	$r->get('DROP ROLE carrier');

	# workers of a parallel query are given the leader's settings
	$r->get($_)
	  for (
		"SET concord.token = '$good'",
		'SET parallel_setup_cost = 0',
		'SET parallel_tuple_cost = 0',
		'SET min_parallel_table_scan_size = 0',
		'CREATE TABLE many AS SELECT g AS id FROM generate_series(1, 20000) g');
	like($r->get('EXPLAIN ANALYZE SELECT count(*) FROM many'),
		qr/Workers Launched: [1-9]/, 'a parallel query');
	is($r->get('SELECT count(*) FROM many'), 20000, 'answers');
}

# ---------------------------------------------------------------- a crash takes a commit back

{
	# more than what a start writes: a position that is written anew cannot be told from the old one
	$w->quit;
	my ($r, $token, $covered);
	my $gone = await(
		sub {
			$r = ConcordWire->new($primary);
			kill 'STOP',
			  $r->get(q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'));
			$r->get('SET synchronous_commit = off');
			$token = $r->run(q(SELECT pg_logical_emit_message(false, '', repeat('x', 3000000));
				INSERT INTO t VALUES (100)))->{token};
			$covered = $r->get("SELECT concord.covers('$token')");
			$cluster->crash('a');
			$primary->start;
			$r = ConcordWire->new($primary);
			# another session's commit may have flushed it
			return $r->get('WITH found AS (DELETE FROM t WHERE id = 100 RETURNING 1)
				SELECT count(*) FROM found') == 0;
		},
		60);
	ok($gone, 'a commit that was told is gone after a crash');
	is($covered, 't', 'it was covered while it was there');
	is($r->get("SELECT concord.covers('$token')"), 'f', 'and is not now');
	for my $form (all_forms())
	{
		my $done = start_form($primary, $form, $token)->finish(20);
		if ($form =~ /CALL/) { is($done->{out}, 'lost', "$form: lost"); }
		else { $cluster->expect_failed($done, 'PC003', qr/lost/, "$form: lost", within => 5); }
	}
	is($r->get("SELECT concord.covers('$good')"), 't', 'what was flushed is there');
}

# ---------------------------------------------------------------- a node that is removed

{
	my $r = ConcordWire->new($primary);
	my $both = "$good;2.1:1/0/1";
	is($r->run("SET concord.token = '$both'")->{ok}, 1, 'two nodes');
	$r->get(q(SELECT concord.remove_node('b')), 60);
	is($r->get('SELECT 1'), 1, 'a session that carries a removed node goes on');
	isnt($r->run('INSERT INTO t VALUES (-1)')->{token}, undef, 'and writes');
	my $s = ConcordWire->new($primary);
	$cluster->expect_error($s, "SET concord.token = '$both'",
		'42704', qr/node 2.*RESET concord.token/s, 'it cannot be set again');
	$cluster->expect_error($s, "SELECT concord.covers('$both')",
		'42704', qr/node 2/, 'nor asked for');
	is($s->get("CALL concord.wait('$both')"), 'unknown node', 'CALL says so');
	is($s->get("CALL concord.wait('$good')"), 'reached', 'the rest is as before');

	# the node itself is no member any more
	$cluster->await_sql('b', 'SELECT state FROM concord.local_node', 'removed', 'b learns it', 30);
	my $b = ConcordWire->new($cluster->node('b'));
	$cluster->expect_error($b, "SET concord.token = '$good'", '55000', qr/./, 'on no member');
	$cluster->expect_error($b, "SELECT concord.covers('$good')", '55000', qr/./, 'covers');
	$cluster->expect_error($b, "CALL concord.wait('$good')", '55000', qr/./, 'CALL');
	is($b->run('CREATE TABLE x (i int)')->{token}, undef, 'and it tells nothing');
	is($b->get('SELECT concord.token() IS NULL'), 't', 'there is none');
}

# ---------------------------------------------------------------- a server without the preload

{
	my $bare = PostgreSQL::Test::Cluster->new('bare');
	$bare->init;
	$bare->append_conf('postgresql.conf', q(listen_addresses = '127.0.0.1'));
	$bare->start;
	my $r = ConcordWire->new($bare, dbname => 'postgres');
	$r->get('CREATE EXTENSION pg_concord');
	for my $sql (
		"SET concord.token = '$good'",
		"SELECT set_config('concord.token', '$good', false)",
		"SELECT concord.covers('$good')",
		"CALL concord.wait('$good')",
		'SELECT concord.token()',
		'SELECT * FROM concord.token_waits',
		'SELECT * FROM concord.session_stats')
	{
		$cluster->expect_error($r, $sql, '55000', qr/preload/, "not preloaded: $sql");
	}
	is($r->run('CREATE TABLE x (i int)')->{ok}, 1, 'the session goes on');
	is($r->get('SHOW concord.token'), '', 'and tells nothing');
	$r->quit;
	$bare->stop;
}

$cluster->no_leftovers(but => qr/terminated by signal 9/);
done_testing();
