
# Many sessions, statements by key through all nodes, while connections break, nodes stop, die and
# come back, and slots move.  What a client was told must be what happened: done is there once,
# failed is not there, unknown may be.
#
# CONCORD_SEED repeats a sequence of faults (not the timing); CONCORD_SOAK=1 runs for longer.

use strict;
use warnings;

use ConcordTest;
use Test::More;
use Time::HiRes qw(time);

my $seed = $ENV{CONCORD_SEED} // int(rand(2**31));
my $seconds = $ENV{CONCORD_SOAK} ? 300 : 25;
srand($seed);
note "CONCORD_SEED=$seed";

my @nodes = qw(a b c);
my $cluster = ConcordTest->new(
	nodes => \@nodes,
	proxies => \@nodes,
	conf =>
	  "concord.connect_timeout = 2s\nconcord.cleanup_timeout = 1s\nconcord.statement_deadline = 2s\nlog_statement = none"
);
$cluster->spread;
my @users = (user => '^(?!concord_node$)');

for my $name (@nodes)
{
	$cluster->get($name, $_)
	  for (
		'CREATE TABLE done (id int, part int)',
		q(CREATE FUNCTION work(id int) RETURNS void LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM concord.execute(id, 'INSERT INTO done VALUES ($1, 1)', id);
			BEGIN
				PERFORM concord.execute(id, 'INSERT INTO done VALUES ($1, 99)', id);
				RAISE EXCEPTION 'undone' USING ERRCODE = 'ZZ001';
			EXCEPTION WHEN SQLSTATE 'ZZ001' THEN NULL;
			END;
			PERFORM concord.execute(id, 'INSERT INTO done VALUES ($1, 2)', id);
		END $$));
}

# A client: one session, one statement at a time; outcome of each id is ok, failed or unknown.
my (%outcome, %states);
my $next = 0;
my @clients = map { { node => $nodes[ $_ % 3 ], number => $_ } } 0 .. 8;

sub begin_work
{
	my ($client) = @_;
	$client->{session} //= eval { $cluster->session($client->{node}) };
	return unless $client->{session};
	# a read now and then: nobody waits for the answer of its COMMIT, which may come any time later
	if (++$client->{turns} % 3 == 0)
	{
		my $key = $client->{turns} % 100;
		$client->{id} = 0;
		$client->{session}->start("SELECT x FROM concord.query($key, 'SELECT 1') AS (x int)");
		return;
	}
	$client->{id} = ++$next;
	$client->{session}->start("SELECT work($next)");
	return;
}

sub end_work
{
	my ($client) = @_;
	my $r = $client->{session}->finish(30);
	my $state = $r->{ok} ? 'ok' : ($r->{sqlstate} // 'lost');
	$states{$state}++;
	# an administrator's command and a lost client connection leave it open whether COMMIT was
	# reached
	$outcome{ $client->{id} } =
	  $state eq 'ok' ? 'ok' : $state =~ /^(08007|57P0[12]|lost)$/ ? 'unknown' : 'failed';
	delete $client->{id};
	if ($client->{session}{dead})
	{
		$client->{session}->quit;
		delete $client->{session};
	}
	return;
}

# Lets the clients work until a moment.
sub work_until
{
	my ($until) = @_;
	while (time() < $until)
	{
		for my $client (@clients)
		{
			next if $client->{session} && defined $client->{id} && $client->{session}->busy;
			end_work($client)   if defined $client->{id};
			begin_work($client) if running($client->{node});
		}
		select(undef, undef, undef, 0.005);
	}
	return;
}

sub running { return defined $cluster->node($_[0])->{_pid} && !$cluster->{frozen}{ $_[0] }; }

sub some { return $_[ int rand @_ ]; }

my %fault = (
	cut => sub { $cluster->proxy($_[0])->cut(mode => some(qw(rst fin)), @users); },
	cut_nodes => sub { $cluster->proxy($_[0])->cut(user => '^concord_node$'); },
	cut_later => sub {
		$cluster->proxy($_[0])->cut_after(some(qw(to_server to_client)), int rand 3000, @users);
	},
	cut_commit => sub {
		$cluster->proxy($_[0])->cut_before(
			@{
				some([ 'to_server', sql => '^COMMIT' ],
					[ 'to_client', type => 'C', bytes => 'COMMIT' ])
			},
			@users);
	},
	hold => sub {
		$cluster->proxy($_[0])->hold(some(qw(both to_server to_client)));
		work_until(time() + rand 2);
		$cluster->proxy($_[0])->pass;
	},
	freeze => sub {
		$cluster->{frozen}{ $_[0] } = 1;
		$cluster->freeze($_[0]);
		work_until(time() + rand 2);
		$cluster->thaw($_[0]);
		delete $cluster->{frozen}{ $_[0] };
	},
	restart => sub {
		some(1, 0) ? $cluster->crash($_[0]) : $cluster->stop($_[0], some(qw(fast immediate)));
		work_until(time() + rand 1);
		$cluster->start($_[0]);
	},
	move => sub {
		my @keys = map { $next + 1 + int rand 60 } 1 .. 30;
		my $to = some(@nodes);
		$cluster->run(
			some(@nodes),
			"SELECT concord.move_slot(concord.slot(k), '$to') FROM unnest(ARRAY["
			  . join(',', @keys) . ']) k',
			20);
	},
	terminate => sub {
		$cluster->run(
			$_[0],
			q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'concord/%'),
			20);
	});

my $end = time() + $seconds;
my @done;
work_until(time() + 1);
while (time() < $end)
{
	my $what = some(sort keys %fault);
	my $node = some(@nodes);
	push @done, "$what $node";
	note "fault: $what $node";
	$fault{$what}->($node);
	work_until(time() + 0.3 + rand 0.5);
}

# peace
$cluster->proxy($_)->pass for @nodes;
for my $client (@clients)
{
	end_work($client)        if defined $client->{id};
	$client->{session}->quit if $client->{session};
}
$cluster->await_epoch(30);
$cluster->await_sql($_, q(SELECT count(*) FROM concord.nodes WHERE state = 'up'),
	3, "$_ sees all nodes up", 30)
  for @nodes;
$cluster->no_leftovers(but => qr/terminated by signal 9/);

# what is there, against what was told
my %found;
for my $name (@nodes)
{
	for my $row (split /\n/, $cluster->get($name, 'SELECT id, part FROM done'))
	{
		my ($id, $part) = split /\|/, $row;
		push @{ $found{$id} }, $part;
	}
}
my (@wrong, %count);
for my $id (1 .. $next)
{
	my $there = join ',', sort @{ $found{$id} // [] };
	my $told = $outcome{$id} // 'never told';
	$count{$told}++;
	push @wrong, "$id: told $told, found '$there'"
	  unless $there eq '1,2' && $told ne 'failed' || $there eq '' && $told ne 'ok';
}
is(join("\n", @wrong), '', 'what was told is what happened');
note join ', ', map { "$_: $count{$_}" } sort keys %count;
note join ', ', map { "$_: $states{$_}" } sort keys %states;
note join ', ', @done;
cmp_ok($count{ok}     // 0, '>', 100, 'most succeeded');
cmp_ok(($count{failed} // 0) + ($count{unknown} // 0), '>', 0, 'some did not');
for my $name (@nodes)
{
	$cluster->is_sql($name, q(SELECT count(*) FROM concord.query_all('SELECT 1') AS (x int)),
		3, "$name reaches all");
}
diag "CONCORD_SEED=$seed repeats it" if @wrong;

done_testing();
