
# Session guarantees as histories: clients write on the primary and read on standbys picked at
# random, which are paused, stopped and killed meanwhile, and promoted: after a clean stop of the
# primary, after it was killed, and as one that had stopped receiving, so that writes are lost.
# With their tokens no client ever misses what it wrote or has seen without being told that it was
# lost, and nobody is told so who lost nothing; without, they do, so the checks can find it.
#
# CONCORD_SEED repeats a sequence of faults (not the timing); HISTORY_SECONDS says how long.

use strict;
use warnings;

use ConcordTest;
use ConcordToken;
use ConcordWire;
use List::Util qw(shuffle);
use Test::More;
use Time::HiRes qw(time);

my $seed = $ENV{CONCORD_SEED} // int(rand(2**31));
my $seconds = $ENV{HISTORY_SECONDS} // ($ENV{CONCORD_SOAK} ? 60 : 20);
srand($seed);
note "CONCORD_SEED=$seed";

my @standbys = qw(a1 a2);
my $cluster = ConcordTest->new(
	nodes => ['a'],
	streaming => ['a'],
	conf => "autovacuum = off\nlog_statement = none\nwal_keep_size = 256MB\n"
	  . "wal_retrieve_retry_interval = 100ms");
$cluster->add_standby('a', $_) for @standbys;
my $primary = $cluster->node('a');
my %node = map { $_ => $cluster->node($_) } 'a', @standbys;

sub some { return $_[ int rand @_ ]; }

# ---------------------------------------------------------------- the four guarantees, named

my $setup = ConcordWire->new($primary, quiet => 1);
$setup->get('CREATE TABLE counter (client int PRIMARY KEY, n int NOT NULL)');
$setup->get('INSERT INTO counter SELECT g, 0 FROM generate_series(0, 20) g');
my $number = 0;

# a1 applies nothing while a write is made there; returns its token
sub behind
{
	my ($writer, $code) = @_;
	my $look = ConcordWire->new($node{a1}, quiet => 1);
	$primary->wait_for_catchup($node{$_}) for @standbys;
	pause_replay($look);
	my $result = $code->($writer);
	return ($look, $result);
}

sub increment
{
	my ($wire, $client) = @_;
	return $wire->run("UPDATE counter SET n = n + 1 WHERE client = $client RETURNING n");
}

subtest 'read your writes' => sub {
	my $writer = ConcordWire->new($primary);
	my ($look, $wrote) = behind($writer, sub { increment($_[0], 20) });
	my $bare = ConcordWire->new($node{a1});
	cmp_ok($bare->get('SELECT n FROM counter WHERE client = 20'),
		'<', $wrote->{out}, 'without the token the write is missed');
	my $reader = start_form($node{a1}, 'SET', $wrote->{token});
	await_waiters($look, 1, 'with it the session waits');
	resume_replay($look);
	is($reader->finish(20)->{ok}, 1, 'until it is there');
	is($reader->get('SELECT n FROM counter WHERE client = 20'), $wrote->{out}, 'and reads it');
};

subtest 'monotonic reads' => sub {
	my $writer = ConcordWire->new($primary);
	my $seer = ConcordWire->new($node{a2}, options => '-c concord.track=reads');
	my ($look, $wrote) = behind($writer, sub { increment($_[0], 20) });
	$primary->wait_for_catchup($node{a2});
	my $seen = $seer->run('SELECT n FROM counter WHERE client = 20');
	is($seen->{out}, $wrote->{out}, "another's write is seen on one standby");
	isnt($seen->{token}, undef, 'and a token told');
	my $bare = ConcordWire->new($node{a1});
	cmp_ok($bare->get('SELECT n FROM counter WHERE client = 20'),
		'<', $seen->{out}, 'without it the other standby goes back');
	my $reader = start_form($node{a1}, 'SET', $seen->{token});
	await_waiters($look, 1, 'with it the session waits');
	resume_replay($look);
	is($reader->finish(20)->{ok}, 1, 'until that is there');
	is($reader->get('SELECT n FROM counter WHERE client = 20'), $seen->{out}, 'and does not');
};

subtest 'monotonic writes' => sub {
	my $writer = ConcordWire->new($primary);
	my $first = increment($writer, 18);
	$writer->quit;

	# the session's next write comes over another connection, that knows only the token
	my $next = start_form($primary, 'SET', $first->{token});
	is($next->finish(20)->{ok}, 1, 'a second session takes over');
	my ($look, $second) = behind($next, sub { increment($_[0], 19) });
	cmp_ok(
		lsn_number(position($second->{token})->{lsn}),
		'>',
		lsn_number(position($first->{token})->{lsn}),
		'the second write is after the first');
	my $reader = start_form($node{a1}, 'SET', $second->{token});
	resume_replay($look);
	is($reader->finish(20)->{ok}, 1, 'who has the second');
	is(
		$reader->get('SELECT string_agg(n::text, chr(32) ORDER BY client) FROM counter
			WHERE client IN (18, 19)'),
		"$first->{out} $second->{out}", 'has the first');

	# a server that lacks the first does not take the second
	my $future = with_position($first->{token}, lsn => 'FFFFFFFF/0');
	my $refused = start_form($primary, 'SET', $future)->finish(20);
	$cluster->expect_failed($refused, 'PC003', qr/lost/, 'a primary without the first refuses');
};

subtest 'writes follow reads' => sub {
	my $other = ConcordWire->new($primary);
	my $read = increment($other, 18);
	$primary->wait_for_catchup($node{a2});
	my $seer = ConcordWire->new($node{a2}, options => '-c concord.track=reads');
	my $seen = $seer->run('SELECT n FROM counter WHERE client = 18');
	is($seen->{out}, $read->{out}, "another's write is read on a standby");
	my $writer = start_form($primary, 'SET', $seen->{token});
	is($writer->finish(20)->{ok}, 1, 'the write is made where that is known');
	my ($look, $wrote) = behind($writer, sub { increment($_[0], 19) });
	my $reader = start_form($node{a1}, 'SET', $wrote->{token});
	resume_replay($look);
	is($reader->finish(20)->{ok}, 1, 'who sees the write');
	is(
		$reader->get('SELECT string_agg(n::text, chr(32) ORDER BY client) FROM counter
			WHERE client IN (18, 19)'),
		"$seen->{out} $wrote->{out}", 'sees what it followed');
};

# ---------------------------------------------------------------- histories

# Client c adds to row c, which nobody else writes, and to row 10, which all write.  Row 11 has the
# era: each promotion begins one, and raises it before anybody writes there.  A client must find at
# least what it has written and read in the same era; of an earlier one, all must be there that it
# has written or read: what the promotion did not keep it must have been told (PC003), after which
# it starts anew.  Every second client tracks its writes only: reads are nothing to it then.
my (@clients, %violations, %count, $with_tokens);
my $era = 1;
my %kept;         # era => { row => n } at its end
my %switch;       # timeline => where it was left
my @told;         # what those expected who were told that it is lost
my $left;         # a primary that has been replaced, and that some do not know of

my %guarantee = (
	read => { wrote => 'read your writes', read => 'monotonic reads' },
	write => { wrote => 'monotonic writes', read => 'writes follow reads' });

sub start_anew
{
	my ($client) = @_;
	$client->{token} = '';
	$client->{expects} = [];    # hashes: kind (wrote, read), row, era, n
	return;
}

# Those of a client's expectations which the promotions since have not kept.
sub lost_of
{
	my ($client) = @_;
	return grep { $_->{era} < $era && $_->{n} > $kept{ $_->{era} }{ $_->{row} } }
	  @{ $client->{expects} };
}

sub losers
{
	return grep { lost_of($_) } @clients;
}

sub expect
{
	my ($client, %new) = @_;
	return if $client->{track} eq 'writes' && $new{kind} eq 'read';
	my ($same) =
	  grep { $_->{kind} eq $new{kind} && $_->{row} == $new{row} && $_->{era} == $new{era} }
	  @{ $client->{expects} };
	push @{ $client->{expects} }, $same = \%new unless $same;
	$same->{n} = $new{n} if $new{n} > $same->{n};
	return;
}

sub check_answer
{
	my ($client, $doing, %row) = @_;
	my $here = $row{11};
	for my $had (@{ $client->{expects} })
	{
		my $n = $row{ $had->{row} };
		my $name = $guarantee{$doing}{ $had->{kind} };
		$violations{$name}++
		  if $had->{era} > $here
		  || $had->{era} == $here && ($doing eq 'write' ? $n <= $had->{n} : $n < $had->{n});
		$violations{'lost silently'}++
		  if $had->{era} < $here && $had->{n} > $kept{ $had->{era} }{ $had->{row} };
	}
	for my $row ($client->{number}, 10)
	{
		expect(
			$client,
			kind => $doing eq 'write' ? 'wrote' : 'read',
			row => $row,
			era => $here,
			n => $row{$row});
	}
	return;
}

sub connection
{
	my ($client, $name) = @_;
	return $client->{wire}{$name} //= eval {
		ConcordWire->new(
			$node{$name},
			quiet => 1,
			options => "-c concord.track=$client->{track} -c concord.wait_timeout=3s");
	};
}

sub drop_connection
{
	my ($client, $name) = @_;
	my $wire = delete $client->{wire}{$name} or return;
	$wire->quit;
	return;
}

# The next thing a client does: a write, or a read (the token first, as a pool would).
sub begin_step
{
	my ($client) = @_;
	my $writes = rand() < 0.4;
	my $name = some($writes ? ($primary->name, defined $left ? $left : ()) : @standbys) or return;
	my $wire = connection($client, $name) or return;
	@$client{qw(at since)} = ($name, time());
	my $rows = "client IN ($client->{number}, 10";
	my $sql =
	  $writes
	  ? "WITH w AS (UPDATE counter SET n = n + 1 WHERE $rows) RETURNING client, n)"
	  . ' SELECT * FROM w UNION ALL SELECT client, n FROM counter WHERE client = 11'
	  : "SELECT client, n FROM counter WHERE $rows, 11)";
	my @set = [ q(SELECT set_config('concord.token', $1, false)), $client->{token} ];
	$client->{todo} = [ $with_tokens ? @set : (), [ $writes ? 'write' : 'read', $sql ] ];
	next_message($client);
	return;
}

sub next_message
{
	my ($client) = @_;
	my ($what, @more) = @{ shift @{ $client->{todo} } };
	my $wire = $client->{wire}{ $client->{at} };
	$client->{doing} = $what =~ /^(write|read)$/ ? $what : 'set';
	if   ($client->{doing} eq 'set') { $wire->start_pipeline([ $what, @more ]); }
	else                             { $wire->start($more[0]); }
	return;
}

sub end_step
{
	my ($client) = @_;
	my $wire = $client->{wire}{ $client->{at} };
	my $r = $wire->finish(20);
	my $doing = delete $client->{doing};
	my $outcome = $r->{ok} ? 'ok' : ($r->{sqlstate} // 'lost');
	$count{"$doing $outcome"}++;
	if ($wire->{dead}) { drop_connection($client, $client->{at}); }
	if ("$doing $outcome" eq 'set PC003')
	{
		push @told, { %$client };
		start_anew($client);
	}
	return if !$r->{ok};
	return next_message($client) if $doing eq 'set';
	check_answer($client, $doing, map { split /\|/ } @{ $r->{rows} });
	$client->{wrote}{ $client->{at} } = $client->{since} if $doing eq 'write';
	$client->{token} = $wire->token if $with_tokens;
	return;
}

# Lets the clients work for so long, or until the condition holds: whether it did.
sub work
{
	my ($seconds, $done) = @_;
	my $until = time() + $seconds;
	while (time() < $until)
	{
		return 1 if $done && $done->();
		my $idle = 1;
		for my $client (@clients)
		{
			if (defined $client->{doing})
			{
				next if $client->{wire}{ $client->{at} }->busy;
				end_step($client);
			}
			begin_step($client) unless defined $client->{doing};
			$idle = 0 if defined $client->{doing};
		}
		select(undef, undef, undef, $idle ? 0.01 : 0.001);
	}
	return 0;
}

# Until so many have been answered a write that they began there from now on.
sub work_until_written
{
	my ($name, $n) = @_;
	my $since = time();
	return ok(
		work(20, sub { $n <= grep { ($_->{wrote}{$name} // 0) > $since } @clients }),
		"clients write on $name");
}

sub look
{
	my ($name) = @_;
	return eval { ConcordWire->new($node{$name}, quiet => 1) };
}

my %fault = (
	pause => sub {
		my ($name) = @_;
		my $look = look($name) or return;
		$look->get('SELECT pg_wal_replay_pause()');
		work(rand 0.7);
		resume_replay($look);
	},
	delay => sub {
		my ($name) = @_;
		my $look = look($name) or return;
		$look->get(q(ALTER SYSTEM SET recovery_min_apply_delay = '200ms'));
		$look->get('SELECT pg_reload_conf()');
		work(rand 1);
		$look->get('ALTER SYSTEM RESET recovery_min_apply_delay');
		$look->get('SELECT pg_reload_conf()');
	},
	restart => sub {
		my ($name) = @_;
		some(1, 0) ? $cluster->crash($name) : $cluster->stop($name, some(qw(fast immediate)));
		work(rand 0.5);
		$cluster->start($name);
	},
	long_pause => sub {
		my ($name) = @_;
		my $look = look($name) or return;
		$look->get('SELECT pg_wal_replay_pause()');
		work(3.5);    # beyond concord.wait_timeout
		resume_replay($look);
	});

# ---------------------------------------------------------------- promotions

# The standby becomes the primary: an era begins there, and clients write there.
sub promote
{
	my ($name) = @_;
	my $look = look($name);
	$look->get('SELECT pg_promote(false)');
	work(20, sub { $look->get('SELECT pg_is_in_recovery()') eq 'f' })
	  or die "$name stays a standby\n";
	$look->get('ALTER SYSTEM RESET ALL');    # or a backup would have it
	my $history = $look->get(
		q(SELECT pg_read_file('pg_wal/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
			|| '.history')));
	%switch = $history =~ m{^(\d+)\t(\S+)}mg;
	$kept{$era} = { map { split /\|/ } split /\n/, $look->get('SELECT client, n FROM counter') };
	$era++;
	$look->get("UPDATE counter SET n = $era WHERE client = 11");
	$primary = $node{$name};
	@standbys = grep { $_ ne $name } @standbys;
	return;
}

# Stops the primary in order: it sends all that it has before it ends.
sub switch_over
{
	my $old = $primary->name;
	$cluster->stop($old);
	work(rand 0.5);
	promote(some(@standbys));
	$cluster->follow($_, $primary->name) for @standbys, $old;
	push @standbys, $old;
	is(scalar(grep { $_->{era} == $era - 1 } map { lost_of($_) } @clients),
		0, 'a primary that was stopped in order: nothing is lost');
	return;
}

# Kills the primary; the standby that has received most takes its place.
sub fail_over
{
	my $old = $primary->name;
	$cluster->crash($old);
	work(rand 0.5);
	my %look = map { $_ => look($_) } @standbys;
	my %received;
	for my $name (@standbys)
	{
		work(20, sub { $look{$name}->get('SELECT w.pid FROM pg_stat_get_wal_receiver() w') eq '' })
		  or die "$name still receives\n";
		$received{$name} = lsn_number($look{$name}->get('SELECT pg_last_wal_receive_lsn()'));
	}
	promote((sort { $received{$b} <=> $received{$a} } @standbys)[0]);

	# the other one does not know of it yet
	my ($other) = @standbys;
	my ($before) = sort { $b <=> $a } keys %switch;
	my $waits = "SELECT count(*) > 0 FROM concord.token_waits WHERE timeline > $before";
	ok( !$with_tokens || work(20, sub { $look{$other}->get($waits) eq 't' }),
		"who has seen the new timeline waits on $other");
	$cluster->follow($other, $primary->name);
	$cluster->rebuild($primary->name, $old);
	push @standbys, $old;
	return;
}

# Promotes a standby that has missed writes, which the other one has and shows.  The old primary is
# killed before; or it lives on for a while and takes writes, which are lost, too.
sub lose
{
	my $old = $primary->name;
	my ($next) = shuffle(@standbys);
	my $lives = some(0, 1);
	note $lives ? "$old lives on" : "$old is killed";
	receive_nothing(look($next));
	work_until_written($old, 3);
	$cluster->crash($old) unless $lives;
	promote($next);
	if ($lives)
	{
		$left = $old;
		work_until_written($old, 1);
		work_until_written($next, 1);
		$left = undef;
		$cluster->stop($old);
	}
	my @others = @standbys;
	@standbys = ();
	$cluster->rebuild($next, $old, @others);
	@standbys = ($old, @others);
	return;
}

my %promotion = ('switch over' => \&switch_over, 'fail over' => \&fail_over, 'lose' => \&lose);

sub promotion
{
	my ($kind) = @_;
	my $look = look($primary->name);
	note "$kind: ", $primary->name;
	work(
		20,
		sub {
			$look->get(q(SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming')) ==
			  @standbys;
		}) or die "a standby does not follow\n";
	$look->quit;
	$promotion{$kind}->();
	note 'now ', $primary->name, ', lost to ', join(', ', map { $_->{number} } losers());
	return;
}

# ---------------------------------------------------------------- phases

sub phase
{
	my ($tokens, $length, $faults, @promotions) = @_;
	$with_tokens = $tokens;
	%violations = %count = ();
	@told = ();
	@clients = map {
		{
			number => $_,
			track => !$tokens ? 'off' : $_ % 2 ? 'writes' : 'reads',
			wire => {},
			wrote => {}
		}
	} 1 .. 8;
	start_anew($_) for @clients;
	look($primary->name)->get("UPDATE counter SET n = CASE client WHEN 11 THEN $era ELSE 0 END");
	$primary->wait_for_catchup($node{$_}) for @standbys;
	my $start = time();
	my $slices = 1 + @promotions;
	for my $slice (1 .. $slices)
	{
		do
		{
			my ($what, $name) = (some(@$faults), some(@standbys));
			note "$what $name";
			$fault{$what}->($name);
			work(0.2 + rand 0.3);
		} while (time() < $start + $length * $slice / $slices);
		promotion(shift @promotions) if @promotions;
	}
	if ($tokens)
	{
		ok(work(20, sub { !losers() }), 'whoever lost something is told, sooner or later');
	}
	for my $client (@clients)
	{
		end_step($client) while defined $client->{doing};
		drop_connection($client, $_) for keys %{ $client->{wire} };
	}
	note join ', ', map { "$_: $count{$_}" } sort keys %count;
	note join ', ', map { "violations of $_: $violations{$_}" } sort keys %violations;
	return;
}

# Does the token have a position that the primary's timelines do not?
sub beyond_switch
{
	my ($token) = @_;
	return grep {
		defined $switch{ $_->{timeline} }
		  && lsn_number($_->{lsn}) > lsn_number($switch{ $_->{timeline} })
	} positions($token);
}

my @kinds = map { shuffle(sort keys %promotion) } 1 .. $seconds / 20 || 1;
phase(1, $seconds, [qw(pause pause delay restart restart long_pause)], @kinds);
my @guarantees = map { sort values %$_ } @guarantee{qw(read write)};
is($violations{$_} // 0, 0, "with tokens: $_") for @guarantees, 'lost silently';
cmp_ok(scalar(grep { lost_of($_) } @told), '>', 0, 'what promotions lost is told');
is(scalar(grep { !beyond_switch($_->{token}) } @told),
	0, 'none is told so whose token has nothing lost');
is(scalar(grep { $_->{track} eq 'writes' && !lost_of($_) } @told),
	0, 'nor who lost none of its writes, tracking these');
note scalar(@told), ' were told, ', scalar(grep { lost_of($_) } @told), ' had lost something';
cmp_ok($count{'read ok'}  // 0, '>', 20 * $seconds, 'many reads succeeded');
cmp_ok($count{'write ok'} // 0, '>', 20 * $seconds, 'many writes succeeded');
my @unexpected =
  grep { !/ (?:ok|lost|57P0[1-3]|PC004)$|^set PC003$/ } sort keys %count;
is("@unexpected", '', 'nothing else happened');

for my $name (sort keys %node)
{
	$cluster->await_sql($name, 'SELECT count(*) FROM concord.token_waits', 0, "$name: none waits");
}

phase(0, 4, [qw(pause pause delay)], 'lose');
cmp_ok($violations{$_} // 0, '>', 0, "without tokens: $_ is violated")
  for 'read your writes', 'monotonic reads';
cmp_ok($violations{'lost silently'} // 0, '>', 0, 'without tokens: writes are lost silently');

diag "CONCORD_SEED=$seed repeats it" unless Test::More->builder->is_passing;
$setup->quit;
$cluster->no_leftovers(but => qr/terminated by signal 9/);
done_testing();
