
# Where a routed read is answered: concord.consistency, with replicas that lag, are away, come back,
# are promoted; a read never misses what its level promises.

use strict;
use warnings;

use ConcordTest;
use ConcordToken;
use ConcordWire;
use Test::More;

my $cluster = ConcordTest->new(
	nodes => [qw(a b)],
	streaming => ['b'],
	conf => "autovacuum = off\nconcord.connect_timeout = 3s");
my %standby = map { $_ => $cluster->add_standby('b', $_) } qw(b1 b2);
my %at = map { $_ => ConcordWire->new($standby{$_}, quiet => 1) } keys %standby;
my $b = ConcordWire->new($cluster->node('b'));
my $w = ConcordWire->new($cluster->node('a'));
my $value = 0;

$b->get('CREATE TABLE t (v int); INSERT INTO t VALUES (0)');
$cluster->get('a',
	"SELECT concord.add_replica('b', '$_', 'host=127.0.0.1 port="
	  . $standby{$_}->port
	  . " dbname=app')")
  for sort keys %standby;

# Which server answered, and what; the servers by their ports.
my %name = map { $cluster->node($_)->port => $_ } qw(b b1 b2);
my $read_sql =
  q(SELECT * FROM concord.query_on('b', 'SELECT current_setting(''port'')::int, v FROM t') AS (port int, v int));

sub answer
{
	my ($sql) = @_;
	my $result = $w->run($sql // $read_sql);
	return $result unless $result->{ok};
	my ($port, $v) = split /\|/, $result->{out};
	return { %$result, by => $name{$port}, v => $v };
}

sub level { $w->get("SET concord.consistency = $_[0]"); return; }

sub write_one { ++$value; $w->get("SELECT concord.execute_on('b', 'UPDATE t SET v = $value')"); return; }

sub counted
{
	my ($column) = @_;
	return $w->get("SELECT $column FROM concord.session_stats");
}

# All replicas, as a sees them, satisfy the condition.
sub replicas_are
{
	my ($condition, $name) = @_;
	$cluster->await_sql('a', "SELECT count(*) FROM concord.replicas WHERE $condition",
		2, $name, 30);
	return;
}

# Asks until each of the servers has answered; any other answer fails.
sub answered_by
{
	my ($name, %wanted) = @_;
	my (%seen, $strange);
	await(
		sub {
			my $answer = answer();
			my $by = $answer->{by} // $answer->{stderr};
			$strange = $by unless exists $wanted{$by};
			$seen{$by}++;
			return defined $strange || keys %seen == keys %wanted;
		},
		20);
	ok(!defined $strange && keys %seen == keys %wanted, $name)
	  or diag('answered by ' . join(', ', %seen));
	return;
}

replicas_are(q(health = 'up' AND can_serve), 'both replicas are up');

# strong
write_one();
answered_by('strong: the primary', b => 1);

# session
level('session');
for (1 .. 20)
{
	write_one();
	my $answer = answer();
	next if $answer->{ok} && $answer->{v} == $value && $answer->{by} ne 'b';
	fail("session: $_ was answered by $answer->{by} with $answer->{v}");
}
answered_by('session: any replica', b1 => 1, b2 => 1);
is(counted('token_lost'), 0, 'nothing is lost');
$w->get('BEGIN');
write_one();
is(answer()->{by}, 'b', 'a transaction reads its own writes, uncommitted, where they are');
is(answer()->{v}, $value, 'and finds them');
$w->get('COMMIT');
$w->get('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $first = answer();
isnt($first->{by}, 'b', 'REPEATABLE READ, on a replica');
is($first->{v}, $value, 'shows what the session wrote before');
$b->get('UPDATE t SET v = v + 1000');
is(answer()->{v}, $value, 'and keeps its snapshot');
$b->get("UPDATE t SET v = $value");
$w->get('COMMIT');
$w->get('BEGIN ISOLATION LEVEL SERIALIZABLE');
is(answer()->{by}, 'b', 'SERIALIZABLE: the primary');
$w->get('COMMIT');
is($w->get(q(SELECT concord.execute_on('b', 'UPDATE t SET v = v'))), 1, 'a write: the primary');
is(answer(q(SELECT * FROM concord.query_on('b', 'UPDATE t SET v = v RETURNING current_setting(''port'')::int, v')
	AS (port int, v int)))->{by}, 'b', 'also by query');
is(answer(q(SELECT * FROM concord.query_on('b', 'SELECT current_setting(''port'')::int, v FROM t FOR UPDATE')
	AS (port int, v int)))->{by}, 'b', 'and a read that locks');

$w->get(q(SELECT concord.execute_on('b', 'CREATE SEQUENCE s')));
is($w->get(q(SELECT * FROM concord.query_on('b', 'SELECT nextval(''s'')') AS (n bigint))),
	1, 'a SELECT that writes is sent to the primary when a replica has refused');
is($w->get(q(SELECT * FROM concord.query_on('b', 'SELECT nextval(''s'')') AS (n bigint))),
	2, 'at once the next time');

# session, with a replica that lags: the other one is asked
pause_replay($at{b1});
write_one();
replicas_are(q(replica = 'b2' AND lag_bytes = 0 OR replica = 'b1' AND lag_bytes > 0),
	'one lags, as is seen');
answered_by('session: the one that has it', b2 => 1);

# both lag
pause_replay($at{b2});
write_one();
$w->get(q(SET concord.wait_timeout = '200ms'));
my $late = answer();
is($late->{sqlstate}, 'PC004', 'session: too late is an error');
like($late->{stderr}, qr/on timeline 1; this server is at/, 'that says where it is');
$w->get('SET concord.on_timeout = stale');
cmp_ok(answer()->{v}, '<', $value, 'on_timeout = stale: what is there');
$w->get(q(SET concord.on_timeout = 'primary'));
my $again = counted('reads_again');
my $found = answer();
is($found->{by}, 'b', 'on_timeout = primary: the primary');
is($found->{v}, $value, 'which has it');
cmp_ok(counted('reads_again'), '>', $again, 'it is counted');
is($w->get(q(SELECT sum(v) FROM concord.query_all('SELECT v FROM t WHERE pg_is_in_recovery()
	UNION ALL SELECT v FROM t WHERE NOT pg_is_in_recovery()') AS (_node name, v int)
	WHERE _node = 'b')), $value, 'query_all, too')
  if $cluster->node('a')->safe_psql('app', 'CREATE TABLE t (v int)') eq '';

# bounded
level('bounded');
$w->get(q(SET concord.max_staleness = '1h'));
answered_by('bounded, an hour: any replica', b1 => 1, b2 => 1);
$w->get(q(SET concord.max_staleness = '2s'));
replicas_are(q(staleness > '2 s'), 'what they show gets older');
answered_by('bounded, two seconds: the primary', b => 1);
resume_replay($at{b2});
replicas_are(q(replica = 'b1' OR staleness < '1 s'), 'one catches up');
answered_by('bounded: that one', b2 => 1);
resume_replay($at{b1});
replicas_are(q(staleness < '1 s'), 'both have caught up');

# eventual and weak
level('eventual');
answered_by('eventual: any copy', b => 1, b1 => 1, b2 => 1);
level('weak');
ok(defined answer()->{by}, 'weak: some copy');
for my $level (qw(weak eventual))
{
	level($level);
	is($w->run(q(SELECT concord.execute_on('b', 'UPDATE t SET v = v')))->{sqlstate},
		'0A000', "$level: a write is not available yet");
}

# one is away
level('session');
$w->get(q(SET concord.wait_timeout = '20s'));
$standby{b1}->stop('immediate');
for (1 .. 10)
{
	write_one();
	my $answer = answer();
	next if $answer->{ok} && $answer->{v} == $value && $answer->{by} ne 'b1';
	fail('one away: ' . ($answer->{stderr} || "$answer->{by} said $answer->{v}"));
}
$cluster->await_sql('a', q(SELECT can_serve FROM concord.replicas WHERE replica = 'b1'),
	'f', 'it is missed');
answered_by('the other one answers', b2 => 1);
$standby{b2}->stop('immediate');
write_one();
is(answer()->{by}, 'b', 'both away: the primary');
$standby{$_}->start for qw(b1 b2);
replicas_are(q(health = 'up' AND can_serve), 'both are back');
answered_by('and are asked again', b1 => 1, b2 => 1);

# the primary is away: reads below strong go on
$at{$_} = ConcordWire->new($standby{$_}, quiet => 1) for qw(b1 b2);
$b->quit;
$cluster->node('b')->stop('immediate');
$cluster->await_sql('a', q(SELECT state FROM concord.nodes WHERE node = 'b'), qr/suspect|down/,
	'the primary is missed');
for my $level (qw(weak eventual session))
{
	level($level);
	my $answer = answer();
	is($answer->{v}, $value, "$level without the primary: answered by "
		  . ($answer->{by} // $answer->{stderr}));
}

# a replica is promoted that lacks a write: it is not read as a replica any more, and what the token
# says is lost is told by the server that took its node's place
$standby{b2}->promote;
$cluster->await_sql('a', q(SELECT can_serve FROM concord.replicas WHERE replica = 'b2'),
	'f', 'a promoted replica is none');
answered_by('it is not asked', b1 => 1);
$cluster->node('b')->start;
$cluster->await_sql('a', q(SELECT state FROM concord.nodes WHERE node = 'b'), 'up', 'b is back');
answered_by('session: the true replica', b1 => 1);

# a session on a replica reads its own node there
my $there = ConcordWire->new($standby{b1});
$there->get('SET concord.consistency = session');
$there->get("SET concord.token = '" . $w->token . "'");
is((split /\|/, $there->get($read_sql))[0], $standby{b1}->port, 'a standby answers for its node');

# the node fails over to a standby without the last write: strong is not silent about it either
receive_nothing($at{b1} = ConcordWire->new($standby{b1}, quiet => 1));
level('strong');
write_one();
my $lost = $w->token;
$cluster->node('b')->stop('immediate');
$standby{b1}->promote;
$cluster->get('a', "SELECT concord.remove_replica('$_')") for qw(b1 b2);
$cluster->get('a', "SELECT concord.set_node('b', 'host=127.0.0.1 port="
	  . $standby{b1}->port . " dbname=app')");
$cluster->await_sql('a', q(SELECT state FROM concord.nodes WHERE node = 'b'), 'up', 'b is back');
my $write = q(SELECT concord.execute_on('b', 'UPDATE t SET v = v + 1'));
for my $sql ($read_sql, $write)
{
	my $answer = $w->run($sql);
	is($answer->{sqlstate}, 'PC003', 'strong: a lost write is an error');
	like($answer->{stderr}, qr/on timeline 2, which does not contain it/, 'that says why');
}
my $other = ConcordWire->new($cluster->node('a'));
is($other->run($write)->{ok}, 1, 'not for a session that has nothing to lose');
$other->get("SET concord.token = '$lost'");
is($other->run($write)->{sqlstate}, 'PC003', 'but for whoever has the token');
$w->get('RESET concord.token');
ok($w->run($_)->{ok}, 'and no more without it') for $read_sql, $write;

$cluster->no_leftovers;
done_testing();
