
# Session guarantees as histories: clients write on the primary and read on standbys picked at
# random, which are paused, stopped and killed meanwhile.  With their tokens no client ever misses
# what it wrote or has seen; without, they do, so the checks can find it.
#
# CONCORD_SEED repeats a sequence of faults (not the timing); HISTORY_SECONDS says how long.

use strict;
use warnings;

use ConcordTest;
use ConcordToken;
use ConcordWire;
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
	conf => "autovacuum = off\nlog_statement = none\nwal_keep_size = 256MB");
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

# Client c adds to row c, which nobody else writes, and to row 10, which all write; reading both on
# a standby it must find at least what it wrote and at least what it has read before.
my (@clients, %violations, %count, $with_tokens);

sub connection
{
	my ($client, $name) = @_;
	return $client->{wire}{$name} //= eval {
		ConcordWire->new(
			$node{$name},
			quiet => 1,
			options => '-c concord.track=' . ($with_tokens ? 'reads' : 'off')
			  . ' -c concord.wait_timeout=3s');
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
	my $name = $writes ? 'a' : some(@standbys);
	my $wire = connection($client, $name) or return;
	$client->{at} = $name;
	my $set =
	  $with_tokens && $client->{token} ne ''
	  ? [ q(SELECT set_config('concord.token', $1, false)), $client->{token} ]
	  : undef;
	my $sql =
	  $writes
	  ? 'UPDATE counter SET n = n + 1 WHERE client IN (' . $client->{number}
	  . ', 10) RETURNING client, n'
	  : 'SELECT client, n FROM counter WHERE client IN (' . $client->{number} . ', 10)';
	$client->{todo} = [ $set ? $set : (), [ $writes ? 'write' : 'read', $sql ] ];
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
	return if !$r->{ok};
	return next_message($client) if $doing eq 'set';
	my %row = map { split /\|/ } @{ $r->{rows} };
	my @keys = ([ own => $row{ $client->{number} } ], [ shared => $row{10} ]);
	for (@keys)
	{
		my ($key, $n) = @$_;
		my ($wrote, $read) = map { $client->{$_}{$key} // 0 } qw(wrote read);
		if ($doing eq 'write') { $client->{wrote}{$key} = $n; }
		else
		{
			$violations{'read your writes'}++ if $n < $wrote;
			$violations{'monotonic reads'}++  if $n < $read;
			$client->{read}{$key} = $n if $n > $read;
		}
	}
	$client->{token} = $wire->token // '' if $with_tokens;
	return;
}

sub work_until
{
	my ($until) = @_;
	while (time() < $until)
	{
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
	return;
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
		work_until(time() + rand 0.7);
		resume_replay($look);
	},
	delay => sub {
		my ($name) = @_;
		my $look = look($name) or return;
		$look->get(q(ALTER SYSTEM SET recovery_min_apply_delay = '200ms'));
		$look->get('SELECT pg_reload_conf()');
		work_until(time() + rand 1);
		$look->get('ALTER SYSTEM RESET recovery_min_apply_delay');
		$look->get('SELECT pg_reload_conf()');
	},
	restart => sub {
		my ($name) = @_;
		some(1, 0) ? $cluster->crash($name) : $cluster->stop($name, some(qw(fast immediate)));
		work_until(time() + rand 0.5);
		$cluster->start($name);
	},
	long_pause => sub {
		my ($name) = @_;
		my $look = look($name) or return;
		$look->get('SELECT pg_wal_replay_pause()');
		work_until(time() + 3.5);    # beyond concord.wait_timeout
		resume_replay($look);
	});

sub phase
{
	my ($tokens, $length, @faults) = @_;
	$with_tokens = $tokens;
	%violations = %count = ();
	@clients = map { { number => $_, token => '', wire => {}, wrote => {}, read => {} } } 1 .. 8;
	$setup->get('UPDATE counter SET n = 0');
	$primary->wait_for_catchup($node{$_}) for @standbys;
	my $end = time() + $length;
	while (time() < $end)
	{
		my ($what, $name) = (some(@faults), some(@standbys));
		note "$what $name";
		$fault{$what}->($name);
		work_until(time() + 0.2 + rand 0.3);
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

phase(1, $seconds, qw(pause pause delay restart restart long_pause));
is($violations{$_} // 0, 0, "with tokens: $_") for 'read your writes', 'monotonic reads';
cmp_ok($count{'read ok'}  // 0, '>', 20 * $seconds, 'many reads succeeded');
cmp_ok($count{'write ok'} // 0, '>', 20 * $seconds, 'many writes succeeded');
my @unexpected =
  grep { !/ (?:ok|lost|57P0[1-3]|PC004)$/ } sort keys %count;
is("@unexpected", '', 'nothing else happened');

for my $name (@standbys)
{
	$cluster->await_sql($name, 'SELECT count(*) FROM concord.token_waits', 0, "$name: none waits");
}

phase(0, 5, qw(pause pause delay));
cmp_ok($violations{$_} // 0, '>', 0, "without tokens: $_ is violated")
  for 'read your writes', 'monotonic reads';

diag "CONCORD_SEED=$seed repeats it" unless Test::More->builder->is_passing;
$_->quit for $setup;
$cluster->no_leftovers(but => qr/terminated by signal 9/);
done_testing();
