
# Histories of registers: clients on several nodes read, change and delete a few of them while acceptors are killed,
# frozen and cut off and registrars end.  What they were told is written down as JSON lines in the test's directory
# (process, op, register, expected, value, result, version, found, start and end in monotonic ns), and checked: there is
# one order in which each operation takes effect between its start and its end.
#
# CONCORD_SEED repeats a sequence of faults (not the timing); HISTORY_SECONDS says how long.

use strict;
use warnings;

use ConcordRegister;
use ConcordTest;
use DBI;
use JSON::PP ();
use POSIX ();
use Test::More;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC time);

# ---------------------------------------------------------------- the checker sees what is wrong

sub op
{
	my ($process, $op, $start, $end, %rest) = @_;
	return { process => $process, op => $op, start => $start, end => $end, result => 'ok', %rest };
}

sub one_set { return op(1, 'set', 1, 2, expected => 0, value => 'a', version => 1); }
my @good = (
	one_set(),
	op(2, 'get', 3, 4, version => 1, found => 'a'),
	op(1, 'set', 5, 8, expected => 1, value => 'b', version => 2),
	op(2, 'get', 6, 7, version => 1, found => 'a'),
	op(3, 'get', 6, 7, version => 2, found => 'b'),
	op(3, 'set', 9, 10, expected => 1, value => 'c', result => 'mismatch', version => 2),
	op(3, 'delete', 11, 14, expected => 2),
	op(1, 'get', 12, 13, version => 0),
	op(1, 'set', 15, 16, expected => 0, value => 'd', version => 4),
	op(2, 'set', 17, 18, expected => 4, value => 'e', result => 'unknown'),
	op(2, 'get', 30, 31, version => 5, found => 'e'),
	op(2, 'set', 32, 33, expected => 5, value => 'f', result => 'unknown'),
	op(2, 'get', 40, 41, version => 5, found => 'e'),
	op(2, 'set', 42, 43, expected => 5, value => 'g', result => 'failed'));
is_deeply([check_history(@good)], [], 'a history that can be');
my %bad = (
	'an old value is read'              => [ one_set(), op(1, 'set', 3, 4, expected => 1, value => 'b', version => 2), op(2, 'get', 5, 6, version => 1, found => 'a') ],
	'a read goes back'                  => [ one_set(), op(1, 'set', 3, 9, expected => 1, value => 'b', version => 2), op(2, 'get', 4, 5, version => 2, found => 'b'), op(3, 'get', 6, 7, version => 1, found => 'a') ],
	'a version is given twice'          => [ one_set(), op(2, 'set', 1, 2, expected => 0, value => 'b', version => 1) ],
	'a version is passed over'          => [ one_set(), op(2, 'set', 3, 4, expected => 1, value => 'b', version => 3) ],
	'a version has two values'          => [ one_set(), op(2, 'get', 3, 4, version => 1, found => 'z') ],
	'a value comes from nowhere'        => [ one_set(), op(2, 'get', 3, 4, version => 2, found => 'z') ],
	'what failed is read'               => [ one_set(), op(1, 'set', 3, 4, expected => 1, value => 'b', result => 'failed'), op(2, 'get', 5, 6, version => 2, found => 'b') ],
	'a write is not seen'               => [ one_set(), op(2, 'get', 3, 4, version => 0) ],
	'a write is lost'                   => [ one_set(), op(2, 'set', 3, 4, expected => 0, value => 'b', version => 2) ],
	'it is read before it is written'   => [ one_set(), op(2, 'get', 3, 4, version => 2, found => 'b'), op(1, 'set', 5, 6, expected => 1, value => 'b', version => 2) ],
	'what was deleted is read'          => [ one_set(), op(1, 'delete', 3, 4, expected => 1), op(2, 'get', 5, 6, version => 1, found => 'a') ],
	'what was deleted is changed'       => [ one_set(), op(1, 'delete', 3, 4, expected => 1), op(2, 'set', 5, 6, expected => 1, value => 'b', version => 2) ],
	'it is deleted twice'               => [ one_set(), op(1, 'delete', 3, 4, expected => 1), op(2, 'delete', 3, 4, expected => 1) ],
	'a mismatch tells an old version'   => [ one_set(), op(1, 'set', 3, 4, expected => 1, value => 'b', version => 2), op(2, 'set', 5, 6, expected => 2, value => 'c', result => 'mismatch', version => 1) ]);
isnt(scalar check_history(@{ $bad{$_} }), 0, "found: $_") for sort keys %bad;

# ---------------------------------------------------------------- a history

my $seed = $ENV{CONCORD_SEED} // int(rand(2**31));
my $seconds = $ENV{HISTORY_SECONDS} // ($ENV{CONCORD_SOAK} ? 60 : 10);
srand($seed);
note "CONCORD_SEED=$seed";

# a, b and c are the acceptors; clients are on b and d, too, which are killed or are not acceptors
my $cluster = ConcordTest->new(
	nodes => [qw(a b c d)],
	proxies => [qw(a b c)],
	conf  => "concord.register_timeout = 2s\nconcord.connect_timeout = 2s\nautovacuum = off\nlog_statement = none");
$cluster->await_sql($_, acceptors_sql(), 'a b c', "$_ knows the acceptors") for qw(a b c d);
my @registers = map { "h$_" } 1 .. 3;
my $directory = $ENV{TESTDATADIR} // '.';

sub now { return int(clock_gettime(CLOCK_MONOTONIC) * 1e9); }

# What the client makes of an answer
sub judge
{
	my ($op, $dbh) = @_;
	my $state = $dbh->state;
	if ($state eq 'PC007')
	{
		$op->{result} = 'mismatch';
		$op->{version} = $dbh->errstr =~ /is at version (\d+)\.$/m ? $1 + 0 : 0;
	}
	# nothing was changed, or there was no session at all
	elsif ($state =~ /^(PC006|55000|57P03|08001)$/) { $op->{result} = 'failed'; }
	else
	{
		$op->{result} = $op->{op} eq 'get' ? 'failed' : 'unknown';
	}
	$op->{sqlstate} = $state;
	return;
}

sub one_operation
{
	my ($dbh, $process, $number, $known) = @_;
	my $register = $registers[ int rand @registers ];
	my $dice     = rand;
	my $op       = { process => $process, register => $register };
	if ($dice < 0.4 || !defined $known->{$register})
	{
		$op->{op} = 'get';
	}
	elsif ($dice < 0.9 || $known->{$register} == 0)
	{
		@$op{qw(op expected value)} = ('set', $known->{$register}, "$process:$number");
	}
	else
	{
		@$op{qw(op expected)} = ('delete', $known->{$register});
	}
	my ($sql, @parameters) =
	    $op->{op} eq 'get' ? ('SELECT version, value FROM concord.register_get($1)', $register)
	  : $op->{op} eq 'set' ? ('SELECT concord.register_set($1, $2, $3)', $register, $op->{value}, $op->{expected})
	  :                      ('SELECT concord.register_delete($1, $2)', $register, $op->{expected});
	$op->{start} = now();
	my $row = $dbh->selectrow_arrayref($sql, undef, @parameters);
	$op->{end} = now();
	if ($row)
	{
		$op->{result} = 'ok';
		$op->{version} = $row->[0] + 0 unless $op->{op} eq 'delete';
		$op->{found}   = $row->[1] if $op->{op} eq 'get' && $row->[0] > 0;
	}
	else { judge($op, $dbh); }
	$known->{$register} =
	    $op->{op} eq 'delete' && $op->{result} eq 'ok' ? 0
	  : $op->{result} =~ /^(ok|mismatch)$/            ? $op->{version}
	  :                                                  undef;
	return $op;
}

sub client
{
	my ($process, $node, $until) = @_;
	my $port = $cluster->node($node)->port;
	my $host = $cluster->node($node)->host;
	my ($dbh, %known);
	my $number = 0;
	srand($seed + $process);
	open my $out, '>', "$directory/history.$process.jsonl" or die "history: $!";
	while (time() < $until)
	{
		$dbh //= DBI->connect("dbi:Pg:dbname=app;host=$host;port=$port", undef, undef,
			{ PrintError => 0, RaiseError => 0, AutoCommit => 1, pg_server_prepare => 1 });
		if (!$dbh)
		{
			select(undef, undef, undef, 0.1);
			next;
		}
		$dbh->{pg_placeholder_dollaronly} = 1;
		my $op = one_operation($dbh, $process, ++$number, \%known);
		print $out JSON::PP->new->canonical->encode($op), "\n";
		undef $dbh unless $dbh->ping;
		select(undef, undef, undef, rand 0.01);
	}
	close $out;
	return;
}

my $until = time() + $seconds;
my @clients;
my @where = qw(a b b c d d d);
for my $process (1 .. @where)
{
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		eval { client($process, $where[ $process - 1 ], $until); 1 } or print STDERR "client $process: $@";
		POSIX::_exit($@ ? 1 : 0);
	}
	push @clients, $pid;
}

# faults, one after another; sometimes two acceptors at once
my %fault = (
	crash => [ sub { $cluster->crash($_[0]) }, sub { $cluster->start($_[0]) } ],
	freeze => [ sub { $cluster->freeze($_[0]) }, sub { $cluster->thaw($_[0]) } ],
	cut => [ sub { $cluster->proxy($_[0])->cut }, sub { } ],
	deaf => [ sub { $cluster->proxy($_[0])->hold('to_server') }, sub { $cluster->proxy($_[0])->pass } ],
	mute => [ sub { $cluster->proxy($_[0])->hold('to_client') }, sub { $cluster->proxy($_[0])->pass } ],
	registrar => [ sub { $cluster->get($_[0], 'SELECT pg_terminate_backend(pid) FROM (' . registrar_sql() . ') r') }, sub { } ]);
my %done;
while (time() < $until - 2)
{
	my $kind = (sort keys %fault)[ int rand keys %fault ];
	my @names = qw(a b c);
	my @victims = splice @names, int rand @names, 1;
	push @victims, splice @names, int rand @names, 1 if rand() < 0.3;
	note "$kind @victims";
	$fault{$kind}[0]->($_) for @victims;
	select(undef, undef, undef, 0.1 + rand 1);
	$fault{$kind}[1]->($_) for @victims;
	$done{$kind}++;
	select(undef, undef, undef, 0.2 + rand 1);
}
for (@clients)
{
	waitpid $_, 0;
	is($?, 0, 'a client has ended well');
}

my %history;
my %results;
for my $file (glob "$directory/history.*.jsonl")
{
	open my $in, '<', $file or die "$file: $!";
	while (<$in>)
	{
		my $op = JSON::PP::decode_json($_);
		push @{ $history{ $op->{register} } }, $op;
		$results{"$op->{op} $op->{result}"}++;
	}
	close $in;
}
note join ', ', map { "$done{$_} $_" } sort keys %done;
note join ', ', map { "$results{$_} $_" } sort keys %results;
my $changes = ($results{'set ok'} // 0) + ($results{'delete ok'} // 0);
cmp_ok($changes, '>', 5 * $seconds, 'registers were changed all the time');
cmp_ok($results{'set mismatch'} // 0, '>', 0, 'clients got in each other\'s way');
for my $register (@registers)
{
	my @wrong = check_history(@{ $history{$register} });
	is(scalar @wrong, 0, "$register: " . @{ $history{$register} } . ' operations are linearizable')
	  or diag(join "\n", @wrong[ 0 .. ($#wrong < 9 ? $#wrong : 9) ]);
}
$cluster->await_sql($_, q(SELECT concord.register_set('end', 'x', version) > 0 FROM concord.register_get('end')), 't', "$_: all is well") for qw(a b c d);
$cluster->no_leftovers(but => qr/terminated by signal 9|exited with exit code/);
done_testing();
