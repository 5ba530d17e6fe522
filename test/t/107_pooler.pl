
# Clients that share server connections through PgBouncer in transaction mode: each has its own
# token, and waits for nothing but its own writes.

use strict;
use warnings;

use ConcordPooler;
use ConcordTest;
use ConcordToken;
use ConcordWire;
use Test::More;

my $version = ConcordPooler->version
  or plan(skip_all => 'needs PgBouncer (Debian: pgbouncer)');
note "PgBouncer $version";

my $cluster = ConcordTest->new(
	nodes => [qw(a b)],
	streaming => ['b'],
	conf => 'autovacuum = off');
my $standby = $cluster->add_standby('b', 'b1');
my $primary = ConcordWire->new($cluster->node('b'), quiet => 1);
my $there = ConcordWire->new($standby, quiet => 1);

$primary->get('CREATE TABLE t (who text PRIMARY KEY, v int)');
$primary->get(q(INSERT INTO t VALUES ('A', 0), ('B', 0), ('C', 0)));
$cluster->get('a',
	"SELECT concord.add_replica('b', 'b1', '" . $cluster->conninfo('b1') . "')");
$cluster->get('a', 'ALTER DATABASE app SET concord.consistency = session');

# "one": the clients share one server connection
my %databases = (
	a => [ $cluster->node('a'), 1 ],
	primary => [ $cluster->node('b'), 1 ],
	one => [ $standby, 1 ],
	two => [ $standby, 2 ]);
my %value = map { $_ => 0 } qw(A B C);

sub update { return "UPDATE t SET v = " . ++$value{ $_[0] } . " WHERE who = '$_[0]'"; }

sub value_of { return "SELECT v FROM t WHERE who = '$_[0]'"; }

# The token with positions of node 1, which none of the servers here waits for: it can be told from others
sub marked
{
	my ($token, @xids) = @_;
	my ($head, @positions) = split /;/, $token;
	return join ';', $head, '1.1:1/0/100', (map { "1.1:1/0/100?$_" } @xids), @positions;
}

sub nodes_of { return join ' ', map { $_->{node} } positions($_[0]); }

sub number { return lsn_number(position($_[0], 2)->{lsn}); }

sub share_one
{
	my ($name, @wires) = @_;
	my %pids = map { $_->get('SELECT pg_backend_pid()') => 1 } @wires;
	return is(scalar keys %pids, 1, "$name: they share one server connection");
}

sub patience
{
	my ($timeout) = @_;
	$there->get("ALTER SYSTEM SET concord.wait_timeout = '$timeout'");
	$there->get('SELECT pg_reload_conf()');
	await(sub { $there->get('SHOW concord.wait_timeout') eq $timeout }, 20)
	  or die "the setting did not arrive\n";
	return;
}

# The standby has all there is, and applies nothing from now on.
sub stand_still
{
	$cluster->node('b')->wait_for_catchup($standby);
	return pause_replay($there);
}

# ---------------------------------------------------------------- the application passes its token

my $plain = ConcordPooler->new(databases => \%databases);
my %token = (A => '', B => '');

# One transaction with the client's token; returns the last statement's result.
sub transaction
{
	my ($wire, $who, $sql) = @_;
	$wire->get($_) for ('BEGIN', "SET LOCAL concord.token = '$token{$who}'");
	my $result = $wire->run($sql);
	my $end = $wire->run('COMMIT');
	$token{$who} = $end->{token} if $sql =~ /^UPDATE/;
	return $result;
}

my %on = map { $_ => ConcordWire->new($plain, dbname => 'primary') } qw(A B);
my %one = map { $_ => ConcordWire->new($plain, dbname => 'one') } qw(A B);
my %two = map { $_ => ConcordWire->new($plain, dbname => 'two') } qw(A B);
share_one('explicit, primary', values %on);
share_one('explicit, standby', values %one);

for (1 .. 5)
{
	for my $who (qw(A B))
	{
		transaction($on{$who}, $who, update($who));
		is(transaction($one{$who}, $who, value_of($who))->{out},
			$value{$who}, "explicit: $who reads its own write, $_");
	}
}
is(nodes_of($token{A}), '2', 'explicit: the token reported with COMMIT');
cmp_ok(number($token{A}), '<', number($token{B}), 'each is told its own commit');
my $unmarked = $token{A};
$token{A} = marked($token{A});
transaction($on{A}, 'A', update('A'));
is(nodes_of($token{A}), '1 2', "explicit: a token's other positions are kept");
transaction($on{B}, 'B', update('B'));
is(nodes_of($token{B}), '2', "explicit: the other client's are not in its token");
$token{A} = $unmarked;

stand_still();
transaction($on{B}, 'B', update('B'));
is(transaction($one{A}, 'A', value_of('A'))->{out},
	$value{A}, "explicit: A need not wait for what B has written");
$two{B}->get('BEGIN');
$two{B}->start("SET LOCAL concord.token = '$token{B}'");
await_waiters($there, 1, 'explicit: B waits');
is(transaction($two{A}, 'A', value_of('A'))->{out}, $value{A}, 'A reads meanwhile');
is(
	$two{A}->pipeline(
		['BEGIN'], ["SET LOCAL concord.token = '$token{A}'"],
		[ 'SELECT v FROM t WHERE who = $1', 'A' ], ['COMMIT'])->{out},
	$value{A},
	'also in one pipeline');
is(
	$two{A}->get("BEGIN; SET LOCAL concord.token = '$token{A}'; " . value_of('A') . '; COMMIT'),
	$value{A},
	'or in one string of statements');
ok($two{B}->busy, 'B still waits');
resume_replay($there);
is($two{B}->finish(20)->{ok}, 1, 'until it is there');
is($two{B}->get(value_of('B')), $value{B}, 'explicit: B reads its own write');
$two{B}->get('COMMIT');

stand_still();
patience('200ms');
transaction($on{B}, 'B', update('B'));
$one{B}->get('BEGIN');
is($one{B}->run("SET LOCAL concord.token = '$token{B}'")->{sqlstate},
	'PC004', 'explicit: what is not there in time is an error');
$one{B}->get('ROLLBACK');
is(transaction($one{A}, 'A', value_of('A'))->{out},
	$value{A}, 'after which the other client goes on');
patience('10s');
resume_replay($there);
$_->quit for values %on, values %one, values %two;
$plain->stop;

# ---------------------------------------------------------------- the pooler keeps it

SKIP:
{
	skip sprintf('PgBouncer %g.%d does not track concord.token (1.20 or newer does)',
		split /\.0*/, $version), 1
	  if $version < 1.020;

	my $prepares = $version >= 1.021;
	my $pooler = ConcordPooler->new(
		databases => \%databases,
		conf => 'track_extra_parameters = concord.token'
		  . ($prepares ? "\nmax_prepared_statements = 20" : ''));
	my $client = sub { return ConcordWire->new($pooler, dbname => $_[0], options => $_[1]); };

	# The server's own view is the client's
	my $has = sub {
		my ($wire, $token, $name) = @_;
		local $Test::Builder::Level = $Test::Builder::Level + 1;
		is($wire->get('SHOW concord.token'), $token, $name);
		return is($wire->token, $token, "$name, as reported");
	};

	my %on = map { $_ => $client->('primary') } qw(A B C);
	share_one('tracked, primary', values %on);
	$has->($on{$_}, '', "tracked: $_ begins without a token") for qw(A B C);

	# node 1's position is the mark by which A's token is known
	$on{A}->get("SET concord.token = '" . marked($token{A}) . "'");
	my $last = 0;
	for my $round (1 .. 10)
	{
		my $who = $round % 3 == 0 ? 'A' : 'B';
		my $other = $who eq 'A' ? 'B' : 'A';
		my $others = $on{$other}->token;
		my $told = $round % 2 ? $on{$who}->run(update($who)) : do
		{
			$on{$who}->get('BEGIN');
			$on{$who}->get(update($who));
			$on{$who}->run('COMMIT');
		};
		is(nodes_of($told->{token}), $who eq 'A' ? '1 2' : '2', "tracked: $who is told its own, $round");
		cmp_ok(number($told->{token}), '>', $last, 'its new commit');
		$last = number($told->{token});
		$has->($on{$other}, $others, "the token of $other does not change");
		$has->($on{$who}, $told->{token}, "that of $who is what was told");
	}
	$has->($on{C}, '', 'tracked: who has not written has no token');
	is(nodes_of($on{C}->run(update('C'))->{token}), '2', 'nor anything else of the others after a write');

	my %before = map { $_ => $on{$_}->token } qw(A B);
	$on{B}->get($_) for ('BEGIN', update('B'), 'ROLLBACK');
	--$value{B};
	is($on{B}->run('SELECT 1/0')->{ok}, 0, 'an error');
	$has->($on{$_}, $before{$_}, "tracked: ROLLBACK and errors leave the token of $_") for qw(A B);
	$on{C}->get('DISCARD ALL');
	$has->($on{C}, '', 'tracked: DISCARD ALL takes one client\'s token');
	$has->($on{$_}, $before{$_}, "but not that of $_") for qw(A B);

	# what PgBouncer carries: 125 bytes
	my @xids = (10);
	push @xids, $xids[-1] + 1 while length(marked($token{A}, @xids, 99)) <= 125;
	my $long = marked($token{A}, @xids);
	cmp_ok(length($long), '>', 110, 'a token of ' . length($long) . ' bytes');
	$on{C}->get("SET concord.token = '$long'");
	$has->($on{B}, $before{B}, 'tracked: a long token is not left to others');
	$has->($on{C}, $long, 'and is given back');

	# ------------------------------------------------------------ on the standby

	my %one = map { $_ => $client->('one') } qw(A B);
	share_one('tracked, standby', values %one);
	for my $who (qw(A B))
	{
		my $token = $on{$who}->run(update($who))->{token};
		$one{$who}->get("SET concord.token = '$token'");
		is($one{$who}->get(value_of($who)), $value{$who}, "tracked: $who reads its own write");
	}
	$has->($one{$_}, $on{$_}->token, "the token of $_ stays with its connection") for qw(A B);

	stand_still();
	my $token = $on{B}->run(update('B'))->{token};
	is($one{A}->get(value_of('A')), $value{A}, 'tracked: A need not wait for what B has written');
	my %two = map { $_ => $client->('two') } qw(A B);
	$two{A}->get("SET concord.token = '" . $on{A}->token . "'");
	$two{B}->start("SET concord.token = '$token'");
	await_waiters($there, 1, 'tracked: B waits');
	is($two{A}->get(value_of('A')), $value{A}, 'A reads meanwhile');
	my $late = $client->('one', "-c concord.token=$token");
	is($late->token, $token, 'tracked: a token as a start-up option');
	$late->start(value_of('B'));
	await_waiters($there, 2, 'is waited for before the first statement');
	resume_replay($there);
	is($late->finish(20)->{out}, $value{B}, 'which sees the write');
	is($two{B}->finish(20)->{ok}, 1, 'B has waited until it is there');
	is($two{B}->get(value_of('B')), $value{B}, 'and reads its own write');
	is($two{A}->get(value_of('A')), $value{A}, 'A goes on');

	stand_still();
	patience('200ms');
	$token = $on{B}->run(update('B'))->{token};
	is($one{B}->run("SET concord.token = '$token'")->{sqlstate},
		'PC004', 'tracked: what is not there in time is an error');
	$has->($one{B}, $before{B} = $one{B}->token, 'which leaves the token');
	is($one{A}->get(value_of('A')), $value{A}, 'and the other client');
	$late->quit;
	$late = $client->('one', "-c concord.token=$token");
	my $refused = $late->run(value_of('B'));
	is($refused->{out}, '', 'tracked: a token that PgBouncer cannot restore: nothing stale is read');
	is($refused->{sqlstate}, '08P01', 'PgBouncer ends the connection');
	is($one{A}->get(value_of('A')), $value{A}, 'the others are served');
	patience('10s');
	resume_replay($there);

	# ------------------------------------------------------------ reads that the cluster routes

	my %routed = map { $_ => $client->('a') } qw(A B);
	share_one('routed', values %routed);
	my $write = sub {
		my $sql = update($_[0]) =~ s/'/''/gr;
		return $routed{ $_[0] }->run("SELECT concord.execute_on('b', '$sql')");
	};
	my $read = sub {
		my $sql = value_of($_[0]) =~ s/'/''/gr;
		return "SELECT v, port FROM concord.query_on('b', 'SELECT v, inet_server_port()"
		  . " FROM ($sql) s') AS (v int, port int)";
	};
	$cluster->await_sql('a', q(SELECT health, can_serve FROM concord.replicas), 'up|t',
		'the replica can be asked', 30);
	for (1 .. 5)
	{
		for my $who (qw(A B))
		{
			$write->($who);
			is($routed{$who}->get($read->($who)), "$value{$who}|" . $standby->port,
				"routed: $who reads its own write on the replica, $_");
		}
	}
	$write->('A');
	stand_still();
	$write->('B');
	is($routed{A}->get($read->('A')), "$value{A}|" . $standby->port,
		"routed: A need not wait for what B has written");
	$routed{B}->get($_) for ('BEGIN', q(SET LOCAL concord.wait_timeout = '300ms'));
	is($routed{B}->run($read->('B'))->{sqlstate}, 'PC004', 'B would have to');
	$routed{B}->get('ROLLBACK');
	resume_replay($there);
	is($routed{B}->get($read->('B')), "$value{B}|" . $standby->port, 'and then reads it');
	$cluster->get('a', 'CREATE TABLE here (v int)');
	$routed{A}->get('BEGIN');
	$routed{A}->get('INSERT INTO here VALUES (1)');
	$write->('A');
	my $both = $routed{A}->run('COMMIT')->{token};
	is(nodes_of($both), '1 2', 'routed: a commit on two nodes');
	$write->('B');
	is(nodes_of($routed{B}->token), '2', "is not in the other client's token");
	$has->($routed{A}, $both, 'and stays in its own');

	# ------------------------------------------------------------ prepared statements

	if ($prepares)
	{
		my $prepare = sub {
			my ($wire, $sql) = @_;
			$wire->start_messages(ConcordWire::parse('s', $sql) . ConcordWire::sync());
			return $wire->finish;
		};
		my $run = sub {
			my ($wire, @values) = @_;
			$wire->start_messages(ConcordWire::bind('', 's', @values)
				  . ConcordWire::execute('')
				  . ConcordWire::sync());
			return $wire->finish;
		};
		for my $who (qw(A B))
		{
			$prepare->($on{$who}, 'UPDATE t SET v = $1 WHERE who = ' . "'$who'");
			$prepare->($one{$who}, "SELECT v FROM t WHERE who = '$who' AND v >= \$1");
		}
		for (1 .. 3)
		{
			for my $who (qw(A B))
			{
				my $other = $who eq 'A' ? 'B' : 'A';
				my $others = $on{$other}->token;
				my $told = $run->($on{$who}, ++$value{$who})->{token};
				is(nodes_of($told), $who eq 'A' ? '1 2' : '2', "prepared: $who is told its own, $_");
				$has->($on{$other}, $others, "the token of $other does not change");
				$one{$who}->pipeline(["SET concord.token = '$told'"]);
				is($run->($one{$who}, 0)->{out}, $value{$who}, "prepared: $who reads its own write");
			}
		}
	}
	unlike($pooler->log, qr/assert|FATAL/i, 'PgBouncer has no complaint of its own');
}

$cluster->no_leftovers;
done_testing();
