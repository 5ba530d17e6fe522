
# The connection between two nodes breaks at each step of a transaction.

use strict;
use warnings;

use ConcordTest;
use Test::More;

my $cluster = ConcordTest->new(
	nodes => [qw(a b)],
	proxies => ['b'],
	conf => "concord.connect_timeout = 3s\nconcord.cleanup_timeout = 1s");
my $proxy = $cluster->proxy('b');
my @users = (user => '^(?!concord_node$)');

$cluster->get('b', 'CREATE TABLE t (v int)');
my $next = 0;

sub on_b
{
	my ($sql) = @_;
	return "SELECT concord.execute_on('b', '$sql')";
}

sub insert { return on_b('INSERT INTO t VALUES (' . ++$next . ')'); }

# How often the last inserted row is there; whoever is left in its way is awaited.
sub found
{
	$cluster->await_sql('b', ConcordTest::remote_backends_sql('xact_start IS NOT NULL'),
		0, 'no transaction is left on b');
	return $cluster->get('b', "SELECT count(*) FROM t WHERE v = $next");
}

# Awaits that b has answered all, as seen by the proxy.
sub answered
{
	return ok(await(sub { return !$proxy->counts(@users)->{unanswered}; }, 10), 'b has answered all');
}

sub usable
{
	my ($session, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$proxy->pass;
	return is($session->get(on_b('SELECT 1')), 1, "usable afterwards: $name");
}

# between transactions nobody notices
for my $mode (qw(rst fin))
{
	my $session = $cluster->session('a');
	is($session->get(insert()), 1, 'connected');
	cmp_ok($proxy->cut(mode => $mode, @users), '>=', 1, "an idle connection is cut ($mode)");
	is($session->get(insert()), 1, 'the next transaction has a new one');
	is(found(), 1, 'done once');
	$session->get('BEGIN');
	is($session->get('SELECT 1'), 1, 'a transaction without it');
	$proxy->cut(mode => $mode, @users);
	is($session->get(insert()), 1, 'its first statement there has a new one');
	$session->get('COMMIT');
	is(found(), 1, 'done once');
	$session->quit;
}

# at each step of an autocommit write, over a new connection; one that is known to have worked is told no
# COMMIT: the statement commits by itself
my %step = (
	'before the request' => [ 'to_server', sql => 'INSERT INTO t' ],
	'before the answer' => [ 'to_client', type => 'C', bytes => 'INSERT' ],
	'before COMMIT' => [ 'to_server', sql => '^COMMIT' ],
	'before the answer of COMMIT' => [ 'to_client', type => 'C', bytes => 'COMMIT' ]);
for my $step (sort keys %step)
{
	for my $mode (qw(rst fin))
	{
		for my $known (0, 1)
		{
			next if $known && $step =~ /COMMIT/;
			my $name = "cut $step ($mode, " . ($known ? 'known' : 'new') . ' connection)';
			my $session = $cluster->session('a');
			if ($known)
			{
				$session->get(on_b('SELECT 1'));
				answered();
			}
			my $rule = $proxy->cut_before(@{ $step{$step} }, mode => $mode, @users);
			if ($known || $step =~ /COMMIT/)
			{
				# never asked again
				$cluster->expect_error($session, insert(), '08007', qr/node "b"/, $name,
					within => 10);
				is(found(), $step =~ /answer/ ? 1 : 0, 'done as far as it came');
			}
			else
			{
				$cluster->expect_error($session, insert(), '08006', qr/node "b"/, $name,
					within => 10);
				is(found(), 0, 'not done');
			}
			is($proxy->hits($rule), 1, 'it was cut there');
			usable($session, $name);
			$session->quit;
		}
	}
}

# the same steps in a transaction that has a history
for my $step (sort keys %step)
{
	my $session = $cluster->session('a');
	$session->get('BEGIN');
	is($session->get(insert()), 1, 'written');
	my $rule = $proxy->cut_before(@{ $step{$step} }, @users);
	if ($step !~ /COMMIT/)
	{
		$cluster->expect_error(
			$session, on_b("INSERT INTO t VALUES ($next)"),
			'08006', qr/node "b"/,
			"cut $step in a transaction",
			within => 10);
		is($session->run('COMMIT')->{stderr}, '', 'it has ended');
		is(found(), 0, 'as a whole');
	}
	else
	{
		$cluster->expect_error(
			$session, 'COMMIT', '08007', qr/node "b"/,
			"cut $step in a transaction",
			within => 10);
		is(found(), $step =~ /answer/ ? 1 : 0, 'as a whole');
	}
	is($proxy->hits($rule), 1, 'it was cut there');
	usable($session, $step);

	# caught by a block: what was done there is lost, so the transaction cannot go on there
	$session->get('BEGIN');
	is($session->get(insert()), 1, 'written');
	$session->get('SAVEPOINT s');
	$proxy->cut(@users);
	$cluster->expect_error(
		$session, on_b('SELECT 1'), '08006', qr/node "b"/,
		'lost within a savepoint',
		within => 10);
	$session->get('ROLLBACK TO s');
	is($session->get('SELECT 1'), 1, 'the transaction goes on here');
	$cluster->expect_error(
		$session, on_b('SELECT 1'), '08006', qr/node "b"/,
		'and not there',
		within => 10);
	$session->get('ROLLBACK TO s');
	$cluster->expect_error(
		$session, 'COMMIT', qr/^08/, qr/node "b"/,
		'COMMIT of a transaction of which a part is lost',
		within => 10);
	is(found(), 0, 'nothing of it is there');
	usable($session, 'after the lost part');
	$session->quit;
}

# a read does not depend on the answer of its COMMIT
{
	my $session = $cluster->session('a');
	is($session->get(on_b('SELECT 1')), 1, 'connected');
	my $rule = $proxy->cut_before('to_client', type => 'C', bytes => 'COMMIT', @users);
	my $read = q(SELECT x FROM concord.query_on('b', 'SELECT 42') AS (x int));
	$session->get('BEGIN');
	is($session->get($read), 42, 'read');
	my $r = $session->run('COMMIT', 20);
	ok($r->{ok}, "a read whose COMMIT's answer is lost") or diag $r->{stderr};
	usable($session, 'after a read');
	answered();

	# and what only reads and needs none is asked again
	$rule = $proxy->cut_before('to_server', sql => 'SELECT 42', @users);
	is($session->get($read), 42, 'a read that is cut off');
	is($proxy->hits($rule), 1, 'it was cut there');
	$session->quit;
}

# a late answer to another COMMIT is not the answer to this one
for my $step ('before COMMIT', 'before the answer of COMMIT')
{
	my $session = $cluster->session('a');
	is($session->get(on_b('SELECT 1')), 1, 'connected');
	answered();
	$proxy->delay('to_client', 1000);
	$session->get('BEGIN');
	is($session->get(on_b('SELECT 1')), 1, 'read; the answer of its COMMIT comes late');
	$session->get('COMMIT');
	answered();
	my $rule = $proxy->cut_before(@{ $step{$step} }, @users);
	$session->get('BEGIN');
	$session->get(insert());
	$cluster->expect_error($session, 'COMMIT', '08007', qr/node "b"/,
		"a late answer, then cut $step", within => 10);
	is($proxy->hits($rule), 1, 'it was cut there');
	is(found(), $step =~ /answer/ ? 1 : 0, 'done as far as it came');
	usable($session, 'after a late answer');
	$session->quit;
}

# anywhere: after every so many bytes of a conversation, in each direction, from the start of the connection and with
# one that is known
my %seen;
for my $case ([ 'to_server', 0 ], [ 'to_client', 0 ], [ 'to_server', 1 ], [ 'to_client', 1 ])
{
	my ($direction, $known) = @$case;
	my $done = 0;
	for (my $bytes = 1; !$done && $bytes < 6000; $bytes += $known ? 7 : 41)
	{
		my $session = $cluster->session('a');
		if ($known)
		{
			$session->get(on_b('SELECT 1'));
			await(sub { return !$proxy->counts(@users)->{unanswered}; }, 10);
		}
		my $rule = $proxy->cut_after($direction, $bytes, @users);
		my $r = $session->run(insert(), 20);
		my $found = found();
		my $state = $r->{ok} ? 'ok' : ($r->{sqlstate} // 'none');
		$seen{$state}++;
		my $good =
			$r->{ok}          ? $r->{out} eq '1' && $found == 1
		  : $state eq '08007' ? $found <= 1
		  : $state =~ /^08/   ? $found == 0 && $r->{stderr} =~ /node "b"/
		  :                     0;
		ok($good, "cut after $bytes bytes $direction: $state, found $found") or diag $r->{stderr};
		$done = !$proxy->hits($rule);
		ok(!$done || $r->{ok}, 'not cut, not failed');
		usable($session, "cut after $bytes bytes $direction");
		$session->quit;
	}
	ok($done, "the whole conversation $direction was tried" . ($known ? ', on a known connection' : ''));
}
note join ', ', map { "$_: $seen{$_}" } sort keys %seen;
cmp_ok($seen{$_} // 0, '>', 0, "$_ was seen") for ('ok', '08006', '08007');

# silence instead of an end
for my $direction (qw(to_server to_client))
{
	my $session = $cluster->session('a');
	is($session->get(on_b('SELECT 1')), 1, 'connected');
	$session->get('SET concord.statement_deadline = 500');
	$proxy->hold($direction, @users);
	$cluster->expect_error(
		$session, insert(), '08007', qr/node "b"/,
		"silence $direction",
		within => 5);
	$proxy->pass;
	like(found(), qr/^[01]$/, 'done once or not at all');
	usable($session, "silence $direction");

	$session->get('BEGIN');
	$proxy->hold($direction, @users);
	$cluster->expect_error(
		$session, insert(), '08006', qr/node "b"/,
		"silence $direction in a transaction",
		within => 5);
	$proxy->pass;
	$session->run('ROLLBACK');
	is(found(), 0, 'not done');
	usable($session, "silence $direction in a transaction");

	$session->get('BEGIN');
	is($session->get(insert()), 1, 'written');
	$proxy->hold($direction, @users);
	$cluster->expect_error(
		$session, 'COMMIT', '08007', qr/node "b"/,
		"silence $direction during COMMIT",
		within => 6);
	$proxy->pass;
	like(found(), qr/^[01]$/, 'done once or not at all');
	usable($session, "silence $direction during COMMIT");
	$session->quit;
}

# a connection that cannot be made
my $session = $cluster->session('a');
$proxy->refuse;
$cluster->expect_error($session, insert(), qr/^08/, qr/node "b".*refused/s, 'refused', within => 5);
usable($session, 'refused');
$session->quit;
$session = $cluster->session('a');
$proxy->hold('both', @users);
$cluster->expect_error(
	$session, insert(), qr/^08/, qr/node "b"/,
	'a connection that is never answered',
	within => 8);
usable($session, 'never answered');
$session->quit;

# slow is not dead
$proxy->delay('to_client', 300);
$proxy->delay('to_server', 300);
my $r = $cluster->run('a', insert(), 30);
is($r->{out}, 1, 'a slow network is waited for') or diag $r->{stderr};
$proxy->pass;
is(found(), 1, 'done once');

$cluster->no_leftovers;
done_testing();
