
# A history: clients on three nodes take locks and write under their fences while nodes stand still, are cut off and killed.
# What was asked and answered is written as JSON lines (process, op, args, result, start, end in monotonic nanoseconds) for
# whoever wants to check it too; here it is checked that
# - a grant that began after another one had ended has a higher fence, unless both are of one shared group;
# - no write was accepted under an older fence after one under a newer;
# - holders who were never told of a loss do not overlap, unless both are shared.
#
# CONCORD_SEED repeats a run's choices (not its timing).

use strict;
use warnings;

use ConcordLock;
use ConcordTest;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time clock_gettime CLOCK_MONOTONIC);

my $seed    = $ENV{CONCORD_SEED} // int(time() * 1000) % 1_000_000;
my $seconds = $ENV{CONCORD_SOAK} ? 60 : 12;
my $each    = 2;
my @nodes   = qw(a b c);
my @names   = qw(x y);
note("CONCORD_SEED=$seed");

my $lease   = 1;
my $cluster = lock_cluster(
	proxies => \@nodes,
	conf => "concord.lease_duration = ${lease}s\nconcord.register_timeout = 3s\nconcord.connect_timeout = 2s\n"
	  . "concord.statement_deadline = 5s\nconcord.on_lock_loss = nothing\nconcord.down_after = 1s");
# on the node where the data is; a row's id is drawn while the name's mark is held
$cluster->get('a', 'CREATE TABLE written (id bigserial, name text, fence bigint, client int)');
$cluster->get('a', <<'SQL');
CREATE FUNCTION guarded(name text, fence bigint, client int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM concord.check_fence(name, fence);
	INSERT INTO written (name, fence, client) VALUES (name, fence, client);
END $$;
SQL
my $until = time() + $seconds;
my $file  = "${PostgreSQL::Test::Utils::log_path}/135_lock_history.jsonl";

sub ns { return int(clock_gettime(CLOCK_MONOTONIC) * 1_000_000_000); }

# One operation of a client, recorded; undef when it failed.
sub op
{
	my ($log, $number, $session, $op, $args, $sql) = @_;
	my $start  = ns();
	my $result = eval { $session->run($sql, 60) } // { ok => 0, stderr => "$@" };
	my $answer = $result->{ok} ? $result->{out} : $result->{sqlstate} // 'connection lost';
	$session->{dead} = 1 if !$result->{ok} && !defined $result->{sqlstate};
	print $log JSON::PP::encode_json({
			process => $number,
			op      => $op,
			args    => $args,
			ok      => $result->{ok} ? 1 : 0,
			result  => $answer,
			start   => $start,
			end     => ns() }), "\n";
	return $result->{ok} ? $result->{out} : undef;
}

sub turn
{
	my ($log, $number, $session) = @_;
	my $name = $names[ rand @names ];
	my $mode = rand() < 0.25 ? 'shared' : 'exclusive';
	my $try  = rand() < 0.3;
	my $fence = op($log, $number, $session, $try ? 'try_lock' : 'lock', [ $name, $mode ],
		$try ? "SELECT concord.try_lock('$name', '$mode')" : lock_sql($name, $mode, q('2 s')));
	return unless defined $fence && $fence ne '';
	for (1 .. 1 + int rand 3)
	{
		op($log, $number, $session, 'write', [ $name, $fence ],
			"SELECT concord.execute_on('a', 'SELECT guarded(\$1, \$2, \$3)', '$name', $fence\::bigint, $number)");
		last if $session->{dead};
	}
	return if $session->{dead};
	op($log, $number, $session, 'remaining', [$name], "SELECT extract(epoch FROM concord.lock_remaining('$name')) * 1000");
	op($log, $number, $session, 'unlock', [ $name, $fence ], "SELECT concord.unlock('$name')") unless $session->{dead};
	return;
}

sub client
{
	my ($number) = @_;
	srand($seed + $number);
	my $node = $nodes[ $number % @nodes ];
	open my $log, '>', "$file.$number" or die $!;
	my $session;
	while (time() < $until)
	{
		$session = undef if $session && $session->{dead};
		$session //= eval { $cluster->session($node) };
		if (!$session)
		{
			select(undef, undef, undef, 0.05);    # the server is down: ask again soon
			next;
		}
		turn($log, $number, $session);
		$session->run('SELECT concord.unlock_all()', 60) unless $session->{dead};
	}
	close $log;
	return;
}

sub up
{
	my ($node) = @_;
	return ConcordTest::await(sub { return eval { $cluster->get($node, 'SELECT 1', 5) } }, 60);
}

my %fault = (
	freeze => sub { $cluster->freeze($_[0]); select(undef, undef, undef, $lease * (0.5 + rand 2)); $cluster->thaw($_[0]); },
	'freeze registrar' => sub {
		my $pid = eval { registrar($cluster, $_[0]) } || return;
		kill 'STOP', $pid;
		select(undef, undef, undef, $lease * (0.5 + rand 2));
		kill 'CONT', $pid;
	},
	registrar => sub { eval { $cluster->get($_[0], 'SELECT pg_terminate_backend(' . registrar($cluster, $_[0]) . ')') }; },
	backend => sub { my @pids = ConcordTest::children($cluster->node($_[0])->{_pid}); kill 'KILL', $pids[ rand @pids ] if @pids; up($_[0]); },
	server => sub { $cluster->crash($_[0]); select(undef, undef, undef, rand 2 * $lease); $cluster->start($_[0]); },
	cut => sub {
		my @where = grep { $_ ne $_[0] } @nodes;
		$cluster->proxy($_)->hold('both', application_name => "^concord/$_[0]/") for @where;
		select(undef, undef, undef, $lease * (0.5 + rand 2));
		$cluster->proxy($_)->pass for @where;
	},
	silence => sub { $cluster->proxy($_[0])->hold('both'); select(undef, undef, undef, $lease * (0.5 + rand 2)); $cluster->proxy($_[0])->pass; });

sub mischief
{
	my %count;
	srand($seed);
	while (time() < $until - 3)
	{
		my $what = (sort keys %fault)[ rand keys %fault ];
		my $node = $nodes[ rand @nodes ];
		note(sprintf '%.1f s left: %s %s', $until - time(), $what, $node);
		$fault{$what}->($node);
		$count{$what}++;
		select(undef, undef, undef, rand 1);
	}
	return \%count;
}

my @pids  = fork_clients($each * @nodes, \&client);
my $count = mischief();
waitpid($_, 0) for @pids;
note('faults: ' . JSON::PP::encode_json($count));
ok(up($_), "$_ is up") for @nodes;

# ---- the check

my @entries;
for my $number (1 .. $each * @nodes)
{
	open my $log, '<', "$file.$number" or die $!;
	push @entries, map { JSON::PP::decode_json($_) } <$log>;
	close $log;
	unlink "$file.$number";
}
@entries = sort { $a->{start} <=> $b->{start} } @entries;
append_to_file($file, join '', map { JSON::PP::encode_json($_) . "\n" } @entries);

my (%grants, %last, %done);
for my $entry (@entries)
{
	my $name = $entry->{args}[0];
	$done{"$entry->{op} " . ($entry->{ok} ? 'ok' : $entry->{result})}++;
	if ($entry->{op} =~ /lock$/ && $entry->{op} ne 'unlock' && $entry->{ok} && $entry->{result} ne '')
	{
		my $grant = { %$entry, fence => $entry->{result}, shared => $entry->{result} % 2 };
		push @{ $grants{$name} }, $grant;
		$last{ $entry->{process} } = $grant;
	}
	elsif ($entry->{op} eq 'remaining' && $entry->{ok} && $entry->{result} > 0)
	{
		# it was held from the grant's answer until this was asked
		$last{ $entry->{process} }{until} = $entry->{start};
	}
}
note(JSON::PP->new->canonical->encode(\%done));

my (@backwards, @overlaps);
for my $name (@names)
{
	my @sorted = sort { $a->{start} <=> $b->{start} } @{ $grants{$name} // [] };
	my $max = { fence => 0 };
	my @by_end = sort { $a->{end} <=> $b->{end} } @sorted;
	for my $grant (@sorted)
	{
		while (@by_end && $by_end[0]{end} < $grant->{start})
		{
			my $ended = shift @by_end;
			$max = $ended if $ended->{fence} > $max->{fence};
		}
		push @backwards, [ $max, $grant ]
		  if $grant->{fence} < $max->{fence} || ($grant->{fence} == $max->{fence} && !$grant->{shared});
	}
	my @held = grep { defined $_->{until} } @sorted;
	for my $i (0 .. $#held)
	{
		for my $j ($i + 1 .. $#held)
		{
			my ($one, $two) = @held[ $i, $j ];
			next if $one->{shared} && $two->{shared} && $one->{fence} == $two->{fence};
			push @overlaps, [ $one, $two ]
			  if $one->{end} < $two->{until} && $two->{end} < $one->{until};
		}
	}
	my %seen;
	push @backwards, [ $_, $_ ] for grep { !$_->{shared} && $seen{ $_->{fence} }++ } @sorted;
}
is(JSON::PP::encode_json(\@backwards), '[]', 'fences grow');
is(JSON::PP::encode_json(\@overlaps), '[]', 'no two hold it at a time');
$cluster->is_sql('a',
	'SELECT count(*) FROM (SELECT fence - lag(fence) OVER (PARTITION BY name ORDER BY id) AS d FROM written) AS s WHERE d < 0',
	0, 'nothing was written under an older fence after a newer');
# who was told that he has written, has; so the rows are what was told or more
my $written = grep { $_->{op} eq 'write' && $_->{ok} } @entries;
my $rows = $cluster->get('a', 'SELECT count(*) FROM written');
cmp_ok($rows, '>=', $written, "$written writes of which the clients know");
cmp_ok($written, '>', 50, 'work went on meanwhile');
for my $name (@names)
{
	is($cluster->get($_, lock_sql($name, 'exclusive', q('20 s')) . ' > 0', 40), 't', "in the end $_ gets $name") for @nodes;
}
$cluster->no_leftovers(but => qr/was terminated by signal 9|PANIC/);
done_testing();
