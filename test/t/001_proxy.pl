
# The tools themselves, on a plain server: a proxy that does not do what it is told would make
# every other test pass for the wrong reason.

use strict;
use warnings;

use ConcordTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = PostgreSQL::Test::Cluster->new('plain');
$node->init;
$node->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1'");
$node->start;

my $proxy = ConcordProxy->new(
	to_port => $node->port,
	port => PostgreSQL::Test::Cluster::get_free_port(),
	log => "${PostgreSQL::Test::Utils::test_logfile}_proxy.log");
my @through = (dbname => 'postgres', host => '127.0.0.1', port => $proxy->port);

sub connect_through { return ConcordSession->new($node, @through, @_); }

# What psql may fail with at once, without a session: connection failures.
sub attempt
{
	my ($ret, $out, $err) = $node->psql(
		'postgres', 'SELECT 1',
		connstr => "host=127.0.0.1 port=" . $proxy->port . " dbname=postgres",
		timeout => 2);
	return $ret == 0 ? 'ok' : $err;
}

sub lost
{
	my ($result, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(!$result->{ok} && $result->{stderr} =~ /connection to server|server closed/, $name)
	  || diag $result->{stderr};
}

# passing, counting
my $s = connect_through();
is($s->get('SELECT 42'), '42', 'a query passes');
is(length $s->get(q(SELECT repeat('x', 5000000))), 5000000, 'a large answer passes');
is($s->get('SELECT length($$' . ('y' x 100000) . '$$)'), '100000', 'a large question passes');
my $error = $s->run('SELECT 1/0');
is_deeply(
	[ @$error{qw(ok sqlstate message)} ],
	[ 0, '22012', 'division by zero' ],
	'an error is taken apart');
$proxy->reset_counts;
$s->get('SELECT 1');
$s->get('SELECT 2');
my $counts = $proxy->counts;
is_deeply(
	[ @$counts{qw(queries switches connections open)} ],
	[ 2, 2, 0, 1 ],
	'two simple queries are two round trips on an old connection');
is($counts->{statements}{'SELECT 2;'}, 1, 'statements are counted by their text');
is($counts->{to_client}{types}{Z}, 2, 'answers are counted by their type');
is($counts->{to_server}{messages}, 2, 'messages are counted');
is($counts->{to_server}{bytes}, 2 * length("Qnnnn" . "SELECT 1;\0"), 'bytes are counted');

# filters
my $named = connect_through(options => '-c application_name=ignored');
is(scalar(grep { $_->{open} } $proxy->connections), 2, 'two connections are open');
is(scalar(grep { $_->{open} } $proxy->connections(user => 'no such user')), 0, 'a filter selects');
$named->quit;

# delay
$proxy->delay('to_server', 150);
$proxy->delay('to_client', 150);
my $r = $s->run('SELECT 1');
cmp_ok($r->{seconds}, '>=', 0.3, 'both directions are delayed');
$proxy->pass;

# hold
for my $direction (qw(to_server to_client))
{
	$proxy->hold($direction);
	$s->start("CREATE TABLE held_$direction ()");
	my $there = "SELECT count(*) FROM pg_class WHERE relname = 'held_$direction'";
	if ($direction eq 'to_client')
	{
		ok(await(sub { return $node->safe_psql('postgres', $there) eq '1' }, 10),
			'an answer that is held does not hold the question');
	}
	my $until = time() + 0.3;
	await(sub { return time() > $until || !$s->busy }, 5);
	ok($s->busy, "no answer while $direction is held");
	is($node->safe_psql('postgres', $there), 0, 'a question that is held does not arrive')
	  if $direction eq 'to_server';
	$proxy->release;
	ok($s->finish(10)->{ok}, "the answer comes after the release of $direction");
	is($node->safe_psql('postgres', $there), 1, 'and it was done once');
}

# a hold for some
$proxy->hold('both', user => '^nobody$');
is($s->get('SELECT 3'), '3', 'a hold with a filter leaves the others alone');
$proxy->pass;
$proxy->hold('both');
my $silent = eval { attempt() } // $@;
like($silent, qr/timed out|timeout/, 'a new connection hears nothing under a hold');
$proxy->pass;

# refuse
$proxy->refuse;
like(attempt(), qr/Connection refused/, 'a new connection is refused');
is($s->get('SELECT 4'), '4', 'an old one lives on');
$proxy->accept;
is(attempt(), 'ok', 'accepted again');
$proxy->refuse(user => '.');
like(attempt(), qr/closed the connection|reset by peer/, 'refused by name');
$proxy->pass;

# cut
for my $mode (qw(rst fin))
{
	my $victim = connect_through();
	$victim->start('SELECT pg_sleep(600)');
	ok( await(
			sub {
				return $node->safe_psql('postgres',
					"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
				) eq '1';
			},
			10),
		'it runs');
	cmp_ok($proxy->cut(mode => $mode), '>=', 1, "cut by $mode");
	lost($victim->finish(10), "the client notices a cut by $mode");
	$node->safe_psql('postgres',
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
	);
}

# cut at a statement, before it and before its answer
$node->safe_psql('postgres', 'CREATE TABLE t (a int)');
$s = connect_through();
my $rule = $proxy->cut_before('to_server', sql => '^COMMIT', skip => 1);
$s->get('BEGIN; INSERT INTO t VALUES (1); COMMIT');
my $first = $node->safe_psql('postgres', 'SELECT count(*) FROM t');
is($first, 1, 'the first is let through');
$s->get("BEGIN;\nINSERT INTO t VALUES (2);");
is($proxy->hits($rule), 0, 'not yet');
lost($s->run('COMMIT'), 'cut before COMMIT');
is($proxy->hits($rule), 1, 'the rule has struck');
is($node->safe_psql('postgres', 'SELECT count(*) FROM t'), 1, 'COMMIT did not arrive');

$s = connect_through();
$s->get("BEGIN;\nINSERT INTO t VALUES (3);");
$rule = $proxy->cut_before('to_client', type => 'C', bytes => 'COMMIT');
lost($s->run('COMMIT'), "cut before COMMIT's answer");
ok($proxy->await_hit($rule, 10), 'the rule has struck');
is($node->safe_psql('postgres', 'SELECT count(*) FROM t'), 2, 'COMMIT did arrive');

# after a number of bytes, in the middle of a message
$s = connect_through();
$rule = $proxy->cut_after('to_client', 100000);
lost($s->run(q(SELECT repeat('z', 200000))), 'cut in the middle of an answer');
is($proxy->hits($rule), 1, 'the rule has struck');

# hold at a message, refusing from then on
$s = connect_through();
$rule = $proxy->rule('to_server', sql => 'INSERT', action => 'hold', refuse => 1);
is($s->get('SELECT 5'), '5', 'passes');
$s->start('INSERT INTO t VALUES (4)');
ok($proxy->await_hit($rule, 10), 'the statement is held');
like(attempt(), qr/Connection refused/, 'and connections are refused');
ok($s->busy, 'no answer');
is($node->safe_psql('postgres', 'SELECT count(*) FROM t'), 2, 'it did not arrive');
$proxy->pass;
ok($s->finish(10)->{ok}, 'it goes on');
is($node->safe_psql('postgres', 'SELECT count(*) FROM t'), 3, 'it arrived');

# cancel requests pass
$s->start('SELECT pg_sleep(600)');
my $pid = $node->safe_psql('postgres',
	"SELECT pid FROM pg_stat_activity WHERE client_addr IS NOT NULL AND backend_type = 'client backend'"
);
$proxy->reset_counts;
my $cancel = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $proxy->port);
print $cancel pack('NNNN', 16, 80877102, $pid, 0);
close $cancel;
ok(await(sub { return $proxy->counts->{cancels} == 1 }, 10), 'a cancel request is seen as one');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
is($s->finish(10)->{sqlstate}, '57014', 'cancelled');

# a server that is away
$s->quit;
$node->stop;
like(attempt(), qr/closed the connection|reset by peer/, 'no server behind the proxy');
$node->start;
is(attempt(), 'ok', 'there again');

$proxy->stop;
like(attempt(), qr/Connection refused/, 'stopped');

done_testing();
