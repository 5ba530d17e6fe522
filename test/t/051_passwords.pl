
# A role with a password of its own on other nodes; what is secret is nowhere to be read.

use strict;
use warnings;

use ConcordTest;
use Test::More;

# secrets are searched for in the logs: with PostgreSQL's default of what is logged
my $cluster = ConcordTest->new(
	nodes => [qw(a b c)],
	proxies => ['c'],
	conf => "log_statement = none\nconcord.connect_timeout = 3s");
my @nodes = qw(a b c);
my @secrets = ('s3cret-one', 's3cret-two', 's3cret-three');

for my $name (@nodes)
{
	my $node = $cluster->node($name);
	$cluster->get($name, $_)
	  for (
		q(SET password_encryption = 'scram-sha-256'; CREATE ROLE alice LOGIN PASSWORD 's3cret-one'),
		'CREATE ROLE bob LOGIN',
		'CREATE ROLE carol LOGIN',
		'CREATE TABLE mine (v int)',
		'GRANT ALL ON mine TO alice');
	my $hba = $node->data_dir . '/pg_hba.conf';
	my $old = PostgreSQL::Test::Utils::slurp_file($hba);
	unlink $hba;
	$node->append_conf('pg_hba.conf', "host all alice 127.0.0.1/32 scram-sha-256\n$old");
	$node->reload;
}

sub on
{
	my ($name, $sql) = @_;
	return "SELECT concord.execute_on('$name', '$sql')";
}
my $who = q(SELECT string_agg(_node || ' ' || who, ', ' ORDER BY _node)
	FROM concord.query_all('SELECT session_user::text || '' '' || current_user') AS (_node name, who text));
my @alice = (user => 'alice');

sub map_alice
{
	my ($password, $where) = @_;
	return $cluster->get($where // 'a', <<SQL);
		SELECT string_agg(node || ' ' || status, ', ' ORDER BY node)
		FROM concord.map_user('alice', ARRAY['user=alice', 'password=$password'])
SQL
}

# without a mapping there is no way
$cluster->expect_error('a', on('b', 'SELECT 1'),
	qr/^(42704|42501)$/, qr/alice/, 'no mapping, no way', @alice);

# through map_user on all nodes
is(map_alice('s3cret-one'), 'a ok, b ok, c ok', 'map_user');
for my $from (@nodes)
{
	like(
		$cluster->get($from, $who, undef, @alice),
		qr/^a (alice alice|\w+ alice), b alice alice, c alice alice$|alice.*alice.*alice/,
		"alice is alice everywhere, from $from");
	for my $to (@nodes)
	{
		next if $from eq $to;
		$cluster->is_sql($from,
			"SELECT x FROM concord.query_on('$to', 'SELECT session_user::text') AS (x text)",
			'alice', "$from to $to", @alice);
	}
}
$cluster->is_sql('a', on('b', 'INSERT INTO mine VALUES (1)'), 1, 'writes with her rights', @alice);
$cluster->get('b', 'CREATE TABLE theirs (v int)');
$cluster->expect_error(
	'a', on('b', 'INSERT INTO theirs VALUES (1)'),
	'42501',
	qr/theirs.*node "b"/s,
	'and only with hers', @alice);

# the server's own right to log in is nobody else's
$cluster->get('a', q(SELECT concord.map_user('bob', ARRAY['user=bob'])));
$cluster->expect_error(
	'a', on('b', 'SELECT 1'),
	'2F003',
	qr/password is required/,
	'a role that brings no password',
	user => 'bob');
$cluster->get('a', q(SELECT concord.map_user('bob', ARRAY['user=bob', 'password=s3cret-three'])));
$cluster->expect_error(
	'a', on('b', 'SELECT 1'),
	'2F003',
	qr/password is required/,
	'or whose password the node does not ask for',
	user => 'bob');
$cluster->get('a', q(SELECT concord.map_user('bob', ARRAY['user=bob', 'password_required=false'])));
$cluster->is_sql('a', on('b', 'SELECT 1'), 1, 'unless a superuser allows it', user => 'bob');
$cluster->expect_error(
	'a', q(ALTER USER MAPPING FOR bob SERVER b OPTIONS (SET user 'alice')),
	'42501', qr/./,
	'he cannot become another',
	user => 'bob');
$cluster->get('a', q(GRANT EXECUTE ON FUNCTION concord.map_user(name, text[]) TO bob));
$cluster->expect_error(
	'a', q(SELECT * FROM concord.map_user('bob', ARRAY['user=alice', 'password_required=false'])),
	'42501', qr/./,
	'nor by map_user',
	user => 'bob');
$cluster->get('a', q(REVOKE EXECUTE ON FUNCTION concord.map_user(name, text[]) FROM bob));

# protocol functions are the nodes' own
for my $call (q(SELECT concord._get_map()), q(SELECT concord._join_outcome(gen_random_uuid())))
{
	$cluster->expect_error('a', $call, '42501', qr/./, "not for users: $call", @alice);
}
$cluster->is_sql(
	'a',
	q(SELECT count(*) FROM pg_class WHERE relnamespace = 'concord'::regnamespace AND relkind = 'r'
	AND has_table_privilege('alice', oid, 'SELECT, INSERT, UPDATE, DELETE')), 0, 'tables are nobody\'s'
);
$cluster->is_sql(
	'a', q(SELECT string_agg(proname, ' ') FROM pg_proc WHERE pronamespace = 'concord'::regnamespace
	AND has_function_privilege('carol', oid, 'EXECUTE') AND proname ~
	'^(create_cluster|add_node|remove_node|set_node|adopt_node|leave_cluster|add_replica|remove_replica|map_user|rebalance|move_slot|assign_lost_slots)$'),
	'', 'what changes the cluster is not for all');

# a changed password
my $old = $cluster->session('a', @alice);
is($old->get(on('b', 'SELECT 1')), 1, 'connected');
$cluster->get('b', q(ALTER ROLE alice PASSWORD 's3cret-two'));
is($old->get(on('b', 'SELECT 1')), 1, 'a connection that is open stays');
$cluster->expect_error(
	'a', on('b', 'SELECT 1'),
	qr/^(08|28)/,
	qr/\A(?!.*s3cret)(?=.*node "b").*password authentication failed/s,
	'a new one is refused, with the cause',
	@alice, within => 10);
is($cluster->get('a', on('c', 'SELECT 1'), undef, @alice), 1, 'another node is another matter');
$cluster->get($_, q(ALTER ROLE alice PASSWORD 's3cret-two')) for qw(a c);
is(map_alice('s3cret-two', 'b'), 'a ok, b ok, c ok', 'mapped anew, through another node');

for my $name (@nodes)
{
	my ($to) = grep { $_ ne $name } @nodes;
	$cluster->is_sql($name, on($to, 'SELECT 1'), 1, "alice reaches $to from $name again", @alice);
}
is($old->get(on('b', 'SELECT 1')), 1, 'the old session lives');
$old->quit;

# a node that is away when roles are mapped
$cluster->proxy('c')->refuse;
is(map_alice('s3cret-two'), 'a ok, b ok, c error', 'a node that is away is a row with an error');
$cluster->proxy('c')->accept;
is(map_alice('s3cret-two'), 'a ok, b ok, c ok', 'and can be mapped later');

# a node that joins later knows her, too
$cluster->get('a', q(SELECT concord.remove_node('c')));
$cluster->await_sql('c', 'SELECT state FROM concord.local_node', 'removed', 'c has left');
$cluster->{members} = [qw(a b)];
$cluster->join('c');
$cluster->is_sql('b', on('c', 'SELECT 1'),
	1, 'alice reaches a node that joined after map_user', @alice);

# secrets in statements that fail
for my $bad (
	"SELECT concord.add_node('x', 'host=127.0.0.1 port=1 password=$secrets[2]')",
	"SELECT concord.add_node('x', 'postgresql://u:$secrets[2]\@127.0.0.1:1/app')",
	"SELECT concord.set_node('b', 'host=127.0.0.1 password=$secrets[2]')",
	"SELECT concord.add_replica('b', 'r', 'host=127.0.0.1 password=$secrets[2]')",
	"SELECT concord.map_user('nobody', ARRAY['user=x', 'password=$secrets[2]'])",
	"SELECT concord.map_user('alice', ARRAY['user=alice', 'password=$secrets[2]', 'nonsense=1'])",
	"SELECT concord.map_user('alice', ARRAY['password=$secrets[2]', 'host=127.0.0.1'])")
{
	my $r = $cluster->expect_error('a', $bad, qr/^(22023|42704|42601|HV00D|HV\w{3}|42\w{3})$/,
		qr/./, "refused: $bad");
	# psql does not repeat the statement; what it shows is the server's
	unlike(join(' ', map { $r->{$_} // '' } qw(message detail hint context)),
		qr/$secrets[2]/, 'without showing the secret');
}

# nothing of it can be read by others
my @readers = ('alice', 'bob', 'carol');
$cluster->get($_, 'CREATE ROLE monitor LOGIN IN ROLE pg_monitor') for @nodes;
for my $name (@nodes)
{
	for my $reader (@readers, 'monitor')
	{
		my @as = (user => $reader);
		@as = (dbname => 'app', user => $reader);
		my $views = $cluster->get(
			$name,
			q(SELECT string_agg(format('SELECT row_to_json(v)::text FROM %s v', oid::regclass), E'\n') FROM pg_class
			WHERE relkind = 'v' AND (relnamespace = 'concord'::regnamespace OR oid IN ('pg_user_mappings'::regclass, 'pg_stat_activity'::regclass)))
		);
		my $all = '';
		for my $view (split /\n/, $views)
		{
			my $r = $cluster->run($name, $view, undef, @as);
			$all .= $r->{out} . $r->{stderr};
		}
		# pg_user_mappings shows a role its own mapping: that is PostgreSQL's
		my @hidden = $reader eq 'alice' ? ($secrets[2]) : @secrets;
		unlike($all, qr/$_/, "$reader on $name reads no secret $_") for @hidden;
	}
	my $log = $cluster->log($name);
	for my $secret (@secrets)
	{
		my @lines = grep { /\Q$secret\E/ } split /\n/, $log;
		# ALTER ROLE .. PASSWORD is ours and did not fail; nothing else may be there
		is(join("\n", @lines), '', "no $secret in the log of $name");
	}
	$cluster->is_sql($name, q(SELECT count(*) FROM concord.map_node n WHERE n::text ~ 's3cret'),
		0, "nor in the map of $name");
	$cluster->is_sql($name,
		q(SELECT count(*) FROM pg_foreign_server WHERE srvoptions::text ~ 's3cret'),
		0, "nor in servers");
}
$cluster->is_sql('a', q(SELECT count(*) FROM concord._get_map() m WHERE m::text ~ 's3cret'),
	0, 'nor in what is sent of it');

$cluster->no_leftovers;
done_testing();
