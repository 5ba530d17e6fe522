
# Replicas: what every node knows of their health, their lag and how old what they show may be.

use strict;
use warnings;

use ConcordTest;
use Test::More;
use Time::HiRes qw(time);

my $cluster = ConcordTest->new(
	nodes => [qw(a b)],
	streaming => ['b'],
	conf => 'concord.connect_timeout = 3s');
my $b1 = $cluster->add_standby('b', 'b1');
my $conninfo = 'host=127.0.0.1 port=' . $b1->port . ' dbname=app';
my $add = "SELECT concord.add_replica('b', 'b1', '$conninfo')";

# One test: within the time every node says this of the only replica.
sub everywhere
{
	my ($what, $expected, $name, $bound) = @_;
	$cluster->await_sql($_, "SELECT $what FROM concord.replicas", $expected, "$name, says $_",
		$bound)
	  for qw(a b);
	return;
}

sub complaint
{
	return q(SELECT string_agg(DISTINCT node || ' ' || status || ' ' || detail, E'\n')
		FROM concord.check_cluster() WHERE item = 'replica' AND hint IS NOT NULL);
}

# the map
$cluster->get('a', $add);
$cluster->await_epoch(20);
$cluster->is_sql($_, 'SELECT replica_id, replica, node_id FROM concord.map_replica',
	'1|b1|2', "$_ has it in its map") for qw(a b);
$cluster->expect_error('a', "SELECT concord.add_node('b1', '$conninfo')",
	'42710', qr/replica "b1" already exists/, 'a name for nodes and replicas');
everywhere(q(replica || ' of ' || node || ' is ' || health || ' ' || can_serve),
	'b1 of b is up true', 'it is heard');
everywhere('timeline || coalesce(last_error, $$ without error$$)', '1 without error', 'and well');
$cluster->is_sql('a', complaint(), '', 'nothing to complain about');
$b1->poll_query_until('app', 'SELECT count(*) = 1 FROM concord.replicas') or die;
$cluster->is_sql('b1',
	'SELECT replica, num_nulls(health, can_serve, timeline, replay_lsn, lag_bytes, staleness,
		latency_ms, last_seen, last_error) FROM concord.replicas',
	'b1|9', 'a standby asks nobody');

# while nothing is written, it shows everything that there is
everywhere('lag_bytes', '0', 'it has caught up');
everywhere(q(staleness < '2 s' AND latency_ms < 2000 AND now() - last_seen < '2 s'),
	't', 'and is fresh');

# replay is paused
$cluster->get('b', 'CREATE TABLE t (id int)');
everywhere('lag_bytes', '0', 'the table is there');
$b1->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$b1->poll_query_until('postgres', q(SELECT pg_get_wal_replay_pause_state() = 'paused')) or die;
$cluster->get('b', 'INSERT INTO t SELECT generate_series(1, 10000)');
my $committed = time();
everywhere('lag_bytes > 500000', 't', 'it falls behind');
everywhere(q(staleness > '2 s'), 't', 'what it shows gets older');
for my $name (qw(a b))
{
	my $fresh_at = $cluster->get($name,
		'SELECT extract(epoch FROM clock_timestamp() - staleness) FROM concord.replicas');
	cmp_ok($fresh_at, '<', $committed, "it is older than what it lacks, says $name");
}
everywhere(q(health || ' ' || can_serve), 'up true', 'it is there nevertheless');
my ($from, $to) = map
{
	$cluster->get('a', 'SELECT staleness FROM concord.replicas WHERE health = $$up$$')
} 1 .. 2;
cmp_ok($to, 'gt', $from, 'older each time');
$b1->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
everywhere(q(lag_bytes = 0 AND staleness < '2 s'), 't', 'it catches up');

# what it does not show is never older than its staleness: a row that was committed before the
# moment at which a node believes it fresh is there
$b1->append_conf('postgresql.conf', q(recovery_min_apply_delay = '700ms'));
$b1->reload;
my %session = map { $_ => $cluster->session($_) } qw(a b b1);
my ($missing, $early) = (0, 0);
for my $i (1 .. 60)
{
	$session{b}->get("INSERT INTO t VALUES (-$i)");
	$committed = time();
	for my $name (qw(a b))
	{
		my $fresh_at = $session{$name}->get(
			'SELECT extract(epoch FROM clock_timestamp() - staleness) FROM concord.replicas');
		next if $session{b1}->get("SELECT count(*) FROM t WHERE id = -$i");
		$missing++;
		# the two clocks of the query are not read at the same moment
		$early++ if $fresh_at > $committed + 0.05;
	}
}
cmp_ok($missing, '>', 0, "rows were not there yet ($missing times)");
is($early, 0, 'and the replica was never believed to have them');
$_->quit for values %session;
$b1->append_conf('postgresql.conf', q(recovery_min_apply_delay = 0));
$b1->reload;
everywhere(q(lag_bytes = 0 AND staleness < '2 s'), 't', 'without delay');

# its server is away, and comes back; the nodes' sessions do not keep it from a smart shutdown
$cluster->stop('b1', 'smart');
everywhere(q(health || ' ' || can_serve || ' ' || (last_error <> '')),
	'down false true', 'it is down');
$cluster->await_sql('a', complaint(),
	qr/^a warning replica "b1" is down: .*\nb warning replica "b1" is down: /, 'the doctor knows');
$cluster->start('b1');
everywhere(q(health || ' ' || can_serve || coalesce(last_error, '')), 'up true', 'it is up');
everywhere(q(lag_bytes = 0 AND staleness < '2 s'), 't', 'and as before');

# the node is away: its copy goes on serving what it has, which gets older
$cluster->stop('b');
$cluster->await_sql('a', q(SELECT health || ' ' || can_serve || ' ' || (staleness > '2 s')
	FROM concord.replicas), 'up true true', 'its node is down');
$cluster->start('b');
everywhere(q(can_serve AND staleness < '2 s'), 't', 'the node is back', 40);

# ids are not used again
$cluster->get('b', q(SELECT concord.remove_replica('b1')));
$cluster->await_epoch(20);
$cluster->get('b', $add);
$cluster->await_epoch(20);
$cluster->is_sql($_, 'SELECT replica_id, replica FROM concord.map_replica', '2|b1', "a new id on $_")
  for qw(a b);
$cluster->is_sql($_, 'SELECT next_replica_id FROM concord.map_state', 3, "the next one on $_")
  for qw(a b);
$cluster->is_sql('a', q(SELECT DISTINCT status FROM concord.check_cluster() WHERE item = 'map'),
	'ok', 'the maps are the same');
everywhere(q(health || ' ' || can_serve), 'up true', 'it is heard again');

# promoted by hand it is no copy any more
my $log_from = -s $cluster->node('a')->logfile;
$b1->promote;
everywhere(q(can_serve || ' ' || last_error), 'false it is not a standby any more',
	'promoted by hand');
everywhere('staleness IS NULL', 't', 'nothing is said of what it shows');
$cluster->await_sql('a', complaint(), qr/^a warning replica "b1" cannot serve: it is not a stan/,
	'the doctor knows');
ok($cluster->node('a')->log_contains(qr/replica "b1" cannot serve any more/, $log_from),
	'the log says when');
$cluster->stop('b1');

# a node takes its replicas along
$cluster->get('a', q(SELECT concord.remove_node('b', force => true)));
$cluster->is_sql('a', 'SELECT count(*) FROM concord.replicas', 0, 'no replica without its node');
$cluster->is_sql('a', 'SELECT count(*) FROM concord.map_replica', 0, 'none in the map');
$cluster->no_leftovers;
done_testing();
