
# The bank: clients move money between accounts of three nodes through random coordinators while backends and servers
# are killed.  At the end the sum over all nodes is exact, and what each client was told agrees with
# transaction_outcome().
#
# CONCORD_SEED repeats a run's choices (not its timing), BANK_SECONDS sets its length (20).

use strict;
use warnings;

use ConcordTest;
use File::Temp;
use JSON::PP ();
use Test::More;
use Time::HiRes qw(time);

my $seed    = $ENV{CONCORD_SEED} // int(time() * 1000) % 1_000_000;
my $seconds = $ENV{BANK_SECONDS} // 20;
my $clients = 8;
my $accounts = 30;
my @nodes   = qw(a b c);
note("CONCORD_SEED=$seed BANK_SECONDS=$seconds");

my $cluster = ConcordTest->new(
	nodes => \@nodes,
	conf  => "concord.connect_timeout = 5s\nconcord.cleanup_timeout = 1s\nconcord.commit_timeout = 3s\n"
	  . "concord.statement_deadline = 10s\nmax_prepared_transactions = 100");
for my $name (@nodes)
{
	$cluster->get($name, 'CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL)');
	$cluster->get($name, "INSERT INTO account SELECT g, 1000 FROM generate_series(1, $accounts) AS g");
}
my $total = 1000 * $accounts * @nodes;
my $dir   = File::Temp->newdir;
my $until = time() + $seconds;

sub move
{
	my ($node, $id, $amount) = @_;
	return "SELECT concord.execute_on('$node', 'UPDATE account SET balance = balance + $amount WHERE id = $id')";
}

# One transfer: returns (told, gid).
sub transfer
{
	my ($session) = @_;
	my $amount = 1 + int rand 20;
	# always in the same order of (node, id), so that no deadlock arises here: its test is another one
	my @parts = sort { $a->[0] cmp $b->[0] || $a->[1] <=> $b->[1] }
	  map { [ $nodes[ rand @nodes ], 1 + int rand $accounts, $_ ] } ($amount, -$amount);
	my $gid = '';
	for my $sql ('BEGIN', map { move(@$_) } @parts)
	{
		my $result = $session->run($sql, 60);
		next if $result->{ok};
		$session->run('ROLLBACK', 60) unless $session->{dead};
		return ('aborted', '');
	}
	my $shown = $session->run('SHOW concord.transaction', 60);
	return ('aborted', '') unless $shown->{ok};
	$gid = $shown->{out};
	my $result = $session->run('COMMIT', 60);
	return ('committed', $gid) if $result->{ok};
	my $state = $result->{sqlstate} // '';
	return ('unknown', $gid) if $session->{dead} || $state eq '' || $state =~ /^(08007|57P0[123])$/;
	return ('aborted', $gid);
}

sub client
{
	my ($number) = @_;
	srand($seed + $number);
	open my $log, '>', "$dir/client$number" or die $!;
	my $session;
	while (time() < $until)
	{
		$session = undef if $session && ($session->{dead} || rand() < 0.1);
		$session //= eval { $cluster->session($nodes[ rand @nodes ]) };
		if (!$session)
		{
			select(undef, undef, undef, 0.05);    # the server is down: ask again soon
			next;
		}
		my ($told, $gid) = eval { transfer($session) };
		if (!defined $told)
		{
			($told, $gid, $session) = ('unknown', '', undef);
		}
		print $log JSON::PP::encode_json({ client => $number, told => $told, gid => $gid }), "\n";
	}
	close $log;
	return;
}

# Kills something every now and then, on a; b and c are also stopped as a whole.
sub mischief
{
	my %count;
	srand($seed);
	while (time() < $until - 2)
	{
		my $name = $nodes[ rand @nodes ];
		my $what = (qw(backend backend terminate server))[ rand 4 ];
		my $node = $cluster->node($name);
		if ($what eq 'server')
		{
			$cluster->stop($name, 'immediate');
			$cluster->start($name);
		}
		elsif ($what eq 'terminate')
		{
			eval { $cluster->get($name, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 2") };
		}
		else
		{
			my @pids = ConcordTest::children($node->{_pid});
			kill 'KILL', $pids[ rand @pids ] if @pids;
			ConcordTest::await(sub { return eval { $cluster->get($name, 'SELECT 1', 5) } }, 60);
		}
		$count{$what}++;
		select(undef, undef, undef, 0.5 + rand 1.5);
	}
	return \%count;
}

my @pids  = fork_clients($clients, \&client);
my $count = mischief();
waitpid($_, 0) for @pids;
note('mischief: ' . JSON::PP::encode_json($count));

for my $name (@nodes)
{
	ok(ConcordTest::await(sub { return eval { $cluster->get($name, 'SELECT 1', 5) } }, 60), "$name is up");
	$cluster->await_sql($name, 'SELECT count(*) FROM pg_prepared_xacts', 0, "nothing stays prepared on $name", 40);
}
my $sum = 0;
$sum += $cluster->get($_, 'SELECT sum(balance) FROM account') for @nodes;
is($sum, $total, 'not a coin is missing');

# what the clients were told
my (%told, @entries, @wrong);
for my $number (1 .. $clients)
{
	open my $log, '<', "$dir/client$number" or die $!;
	push @entries, map { JSON::PP::decode_json($_) } <$log>;
}
$told{ $_->{told} }++ for @entries;
@entries = grep { $_->{gid} } @entries;
while (my @some = splice @entries, 0, 200)
{
	my $list    = join ',', map { "'$_->{gid}'" } @some;
	my %outcome = map { split /\|/ } split /\n/,
	  $cluster->get($nodes[ rand @nodes ], "SELECT g, concord.transaction_outcome(g) FROM unnest(ARRAY[$list]) AS g");
	for my $entry (@some)
	{
		my $outcome = $outcome{ $entry->{gid} } // 'no answer';
		my $agrees =
			$entry->{told} eq 'committed' ? $outcome eq 'committed'
		  : $entry->{told} eq 'aborted'   ? $outcome eq 'aborted'
		  :                                 $outcome =~ /^(committed|aborted)$/;
		push @wrong, "$entry->{gid}: told $entry->{told}, outcome $outcome" unless $agrees;
	}
}
note('told: ' . JSON::PP::encode_json(\%told));
is(join("\n", @wrong), '', 'each client was told what transaction_outcome says');
cmp_ok($told{committed} // 0, '>', 50, 'transfers went through meanwhile');
done_testing();
