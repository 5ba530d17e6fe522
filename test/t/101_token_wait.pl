
# Setting a token makes what follows see at least that: each form waits on a standby without
# holding anything, within bounds, or is refused; it is woken, ended, counted and shown.

use strict;
use warnings;

use ConcordTest;
use ConcordToken;
use ConcordWire;
use Test::More;
use Time::HiRes qw(time);

my $cluster = ConcordTest->new(
	nodes => ['a'],
	streaming => ['a'],
	conf => "autovacuum = off\nlog_statement = none");
my $primary = $cluster->node('a');
my $standby = $cluster->add_standby('a', 'a1');
my $w = ConcordWire->new($primary);
my $there = ConcordWire->new($standby, quiet => 1);
my $id = 0;
my $last;

$w->get('CREATE TABLE t (id int PRIMARY KEY)');
$w->get('CREATE TABLE bystander (id int)');
$w->get($_)
  for (
	q(CREATE FUNCTION sets(token text) RETURNS text LANGUAGE plpgsql AS $$
		BEGIN RETURN set_config('concord.token', token, false); END $$),
	q(CREATE FUNCTION sets_and_reads(token text) RETURNS int LANGUAGE plpgsql AS $$
		DECLARE n int; BEGIN PERFORM set_config('concord.token', token, false);
		SELECT count(*) INTO n FROM t; RETURN n; END $$),
	q(CREATE FUNCTION executes_set(token text) RETURNS int LANGUAGE plpgsql AS $$
		BEGIN EXECUTE format('SET concord.token = %L', token); RETURN 1; END $$),
	q(CREATE FUNCTION waits(token text) RETURNS int LANGUAGE plpgsql AS $$
		DECLARE r text; BEGIN CALL concord.wait(token, NULL, r); RETURN 1; END $$));

# A write that is told
sub write_one
{
	++$id;
	return $last = $w->run("INSERT INTO t VALUES ($id)")->{token};
}

# A write that the standby has and has not applied
sub write_ahead
{
	is($there->get("CALL concord.wait('$last')"), 'reached', 'what was before is there');
	pause_replay($there);
	return write_one();
}

sub stats { return $there->get('SELECT * FROM concord.session_stats'); }

sub counted
{
	my ($before, @more) = @_;
	my @before = split /\|/, $before;
	return join '|', map { $before[$_] + $more[$_] } 0 .. $#before;
}

write_one();
$primary->wait_for_catchup($standby);

# ---------------------------------------------------------------- each form waits, holding nothing

for my $form (all_forms())
{
	subtest "$form: waits" => sub {
		my $token = write_ahead();
		my $before = stats();
		is($there->get("SELECT concord.covers('$token')"), 'f', 'it is not there yet');
		my $r = start_form($standby, $form, $token);
		await_waiters($there, 1, 'one waits');
		is(
			$there->get(
				'SELECT pid, role, timeline, lsn, branch, since <= now(), timeout_ms
				FROM concord.token_waits'),
			join('|',
				$r->pid, scalar getpwuid($<), 1, position($token)->{lsn}, 'f', 't', 10000),
			'the view shows it');
		unburdened($there, $r->pid, 'nothing is held', locks => $form =~ /^start-up/);
		ok($r->busy, 'it still waits');
		resume_replay($there);
		my $done = $r->finish(20);
		is($done->{ok}, 1, 'done') or diag($done->{stderr});
		cmp_ok($done->{waited}, '<', 5, 'soon after the write');
		is($r->get("SELECT count(*) FROM t WHERE id = $id"), 1, 'the write is seen');
		if ($form =~ /CALL/)
		{
			is($done->{out}, 'reached', 'it says so');
			is($r->get('SELECT concord.token() IS NULL'), 't', 'the token is left alone');
		}
		elsif ($form eq 'SET LOCAL')
		{
			is($r->get('SHOW concord.token'), $token, 'the token is set');
			$r->get('COMMIT');
			is($r->get('SHOW concord.token'), '', 'to the end of the transaction');
		}
		else { is($r->get('SHOW concord.token'), $token, 'the token is set'); }
		is($there->get('SELECT count(*) FROM concord.token_waits'), 0, 'nobody waits');
		is(stats(), counted($before, 1, 0, 0, 0), 'counted');
		is($there->get("SELECT concord.covers('$token')"), 't', 'now it is there');

		# once more: it is there
		my $again = start_form($standby, $form, $token);
		is($again->finish(20)->{ok}, 1, 'what is there is not waited for');
		is(stats(), counted($before, 1, 0, 0, 0), 'nor counted');
	};
}

# a count that is the answer of the statement that brought the token
for my $form ('start-up option', 'start-up option, extended')
{
	my $token = write_ahead();
	my $r = start_form($standby, $form, $token);
	await_waiters($there, 1, "$form: it waits");
	resume_replay($there);
	is($r->finish(20)->{out}, $id, "$form: the statement itself sees the write");
}

# a string of statements: what follows SET sees
{
	my $token = write_ahead();
	my $r = ConcordWire->new($standby);
	$r->start("SET concord.token = '$token'; SELECT count(*) FROM t");
	await_waiters($there, 1, 'SET in a string of statements waits');
	resume_replay($there);
	is($r->finish(20)->{out}, $id, 'and what follows in the string sees the write');

	$token = write_ahead();
	$r->start_pipeline(["SET concord.token = '$token'"], ['SELECT count(*) FROM t']);
	await_waiters($there, 1, 'SET in a pipeline waits');
	resume_replay($there);
	is($r->finish(20)->{out}, $id, 'and what follows in the pipeline sees the write');

	$token = write_ahead();
	$r->start("DO \$\$ DECLARE r text; BEGIN CALL concord.wait('$token', NULL, r); "
		  . "IF (SELECT count(*) FROM t) <> $id THEN RAISE EXCEPTION 'stale'; END IF; END \$\$");
	await_waiters($there, 1, 'CALL in DO waits');
	unburdened($there, $r->pid, 'CALL in DO holds nothing');
	resume_replay($there);
	is($r->finish(20)->{ok}, 1, 'and what follows in it sees the write');
}

# ---------------------------------------------------------------- the time is limited

for my $form (all_forms())
{
	for my $action (qw(error primary stale))
	{
		subtest "$form: too late, $action" => sub {
			my $token = write_ahead();
			my $before = stats();
			my $r = start_form($standby, $form, $token,
				"-c concord.wait_timeout=50ms -c concord.on_timeout=$action");
			my $done = $r->finish(20);
			cmp_ok($done->{seconds}, '>', 0.045, 'it has waited');
			if ($form =~ /CALL/)
			{
				is($done->{out}, 'timeout', 'CALL says so');
				is(stats(), counted($before, 1, 1, 0, 0), 'counted');
			}
			elsif ($action eq 'stale')
			{
				is($done->{ok}, 1, 'let go on') or diag($done->{stderr});
				is($r->get('SELECT max(id) FROM t'), $id - 1, 'without the write');
				is($r->get('SHOW concord.token'), $token, 'the token is set');
				is(stats(), counted($before, 1, 1, 1, 0), 'counted');
			}
			else
			{
				$cluster->expect_failed($done, 'PC004', qr/not reached.*timeline 1/s, 'refused');
				my $port = $primary->port;
				my $hint = $action eq 'primary' ? qr/host 127.0.0.1, port $port/ : qr/wait_timeout/;
				like($done->{hint}, $hint, 'a hint');
				is(stats(), counted($before, 1, 1, 0, 0), 'counted');
				$r->run('ROLLBACK') if $done->{status} ne 'I';
				$r->get('RESET concord.token') if $form =~ /^start-up/;
				is($r->get('SHOW concord.token'), '', 'the token is as before');
				is($r->get('SELECT max(id) FROM t'), $id - 1, 'the session goes on');
			}
			is($there->get('SELECT count(*) FROM concord.token_waits'), 0, 'nobody waits');
			resume_replay($there);
		};
	}
}
{
	my $token = write_ahead();
	my $before = stats();
	my $r = ConcordWire->new($standby, options => '-c concord.wait_timeout=0');
	my $done = $r->run("SET concord.token = '$token'");
	$cluster->expect_failed($done, 'PC004', qr/./, 'wait_timeout = 0: does not wait');
	is(stats(), counted($before, 0, 1, 0, 0), 'not counted as a wait');
	is($r->get("CALL concord.wait('$token')"), 'timeout', 'nor does CALL');
	$r->start("CALL concord.wait('$token', '80 ms')");
	$done = $r->finish(20);
	is($done->{out}, 'timeout', "CALL's own timeout");
	cmp_ok($done->{seconds}, '>=', 0.08, 'is waited for');
	$r->start("CALL concord.wait('$token', '1 month')");
	await_waiters($there, 1, "CALL's own timeout goes before the setting");
	is($there->get('SELECT timeout_ms FROM concord.token_waits'), 2**31 - 1, 'at most that');
	resume_replay($there);
	is($r->finish(20)->{out}, 'reached', 'and it is reached');
	$cluster->expect_error($r, "CALL concord.wait('$token', '-1 ms')",
		'22023', qr/negative/, 'no negative one');
	$cluster->expect_error($r, 'CALL concord.wait(NULL)', '22004', qr/null/, 'no token');
}

# a start-up option that is not reached is asked for again by each statement, until it is given up
{
	my $token = write_ahead();
	for my $way ('RESET concord.token', q(SET concord.token = ''), 'RESET ALL', 'DISCARD ALL')
	{
		my $r = ConcordWire->new($standby,
			options => "-c concord.wait_timeout=10ms -c concord.token=$token");
		$cluster->expect_error($r, 'SELECT 1', 'PC004', qr/./, "a start-up option, then $way")
		  for 1, 2;
		is($r->run($way)->{ok}, 1, 'it can be given up');
		is($r->get('SELECT 1'), 1, 'the session goes on');
		is($r->get('SHOW concord.token'), '', 'without a token');
	}
	my $r = ConcordWire->new($standby,
		options => "-c concord.wait_timeout=10ms -c concord.token=$token");
	$cluster->expect_error($r, 'RESET concord.token; SELECT 1/0', '22012', qr/./, 'undone');
	$cluster->expect_error($r, 'SELECT 1', 'PC004', qr/./, 'it is asked for again');
	resume_replay($there);
	is($r->get('SELECT max(id) FROM t'), $id, 'until it is reached');
}

# ---------------------------------------------------------------- refused, never half honoured

sub refused
{
	my ($r, $sql, $name, @clean_up) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $done = ref $sql ? $sql->($r) : $r->run($sql);
	$cluster->expect_failed($done, '25001', qr/./, "refused: $name", within => 5);
	$r->run('ROLLBACK') if $done->{status} ne 'I';
	$r->run($_) for @clean_up;
	is($r->get('SHOW concord.token'), '', 'and not set');
	return;
}

for my $there_already (0, 1)
{
	my $token = $there_already ? write_one() : write_ahead();
	$primary->wait_for_catchup($standby) if $there_already;
	my $r = ConcordWire->new($standby);
	my $set = "SET concord.token = '$token'";
	my $config = "SELECT set_config('concord.token', '$token', false)";
	my $call = "CALL concord.wait('$token')";
	note $there_already ? 'what is there already' : 'what is not there yet';

	# whether or not it is there
	$r->get($_) for ('BEGIN ISOLATION LEVEL REPEATABLE READ', 'SELECT 1');
	refused($r, $set, 'SET after the snapshot');
	$r->get($_) for ('BEGIN ISOLATION LEVEL REPEATABLE READ', 'SELECT 1');
	refused($r, $call, 'CALL after the snapshot');
	$r->get('BEGIN');
	refused($r, $config, 'set_config in a block');
	$r->get('BEGIN');
	refused($r, "SELECT set_config('concord.token', '$token', true)", 'the same, local');
	refused($r, "$config; SELECT count(*) FROM t", 'set_config before a statement');
	refused($r, "SELECT 1; $config",               'set_config after one');
	refused($r, "$config; SHOW work_mem",          'set_config before a utility statement');
	refused(
		$r,
		sub { $_[0]->pipeline([$config], ['SELECT count(*) FROM t']) },
		'set_config before a statement in a pipeline');
	refused($r, sub { $_[0]->pipeline([$config], ['SHOW work_mem']) }, 'before a utility one');
	refused(
		$r,
		sub { $_[0]->pipeline([$config], ['BEGIN'], ['SELECT 1'], ['COMMIT']) },
		'before a block');
	refused($r, "SELECT sets_and_reads('$token')", 'set_config in a function that reads then');
	refused($r, "SELECT executes_set('$token')",   'SET in a function');
	refused($r, "DO \$\$ BEGIN SET concord.token = '$token'; END \$\$", 'SET in DO');
	refused(
		$r, "DO \$\$ BEGIN PERFORM set_config('concord.token', '$token', false);
		PERFORM count(*) FROM t; END \$\$", 'set_config in DO');
	refused($r, "SELECT waits('$token')", 'CALL in a function');

	# only if it has to be waited for
	next if $there_already;
	for my $s ($set, $call)
	{
		$r->get($_) for ('BEGIN', 'DECLARE c CURSOR FOR SELECT * FROM t', 'FETCH c');
		refused($r, $s, "under an open cursor: $s");
		$r->get($_) for ('BEGIN', 'LOCK TABLE bystander IN ACCESS SHARE MODE');
		refused($r, $s, "under a lock: $s");
		$r->get($_) for ('BEGIN', 'SELECT count(*) FROM bystander');
		refused($r, $s, "after a read: $s");
	}
	refused($r, "SELECT set_config('concord.token', '$token', false) FROM bystander
		RIGHT JOIN (VALUES (1)) v (x) ON true", 'set_config beside a table');
	refused(
		$r,
		sub {
			$_[0]->start_messages(
				ConcordWire::parse('', 'SELECT id FROM t')
				  . ConcordWire::bind('before', '')
				  . ConcordWire::parse('', $config)
				  . ConcordWire::bind('', '')
				  . ConcordWire::execute('')
				  . ConcordWire::execute('before')
				  . ConcordWire::sync());
			return $_[0]->finish(20);
		},
		'set_config between the parts of another statement');
	resume_replay($there);

	# a transaction in which nothing is held
	$token = write_ahead();
	$r->get($_) for ('BEGIN', 'SELECT 1');
	$r->start("SET concord.token = '$token'");
	await_waiters($there, 1, 'SET after a query without tables waits');
	resume_replay($there);
	is($r->finish(20)->{ok}, 1, 'and succeeds');
	is($r->get('SELECT max(id) FROM t'), $id, 'and what follows sees');
	$r->get('COMMIT');
}
{
	# a function's set_config is honoured if nothing follows it
	my $token = write_ahead();
	my $r = ConcordWire->new($standby);
	$r->start("SELECT sets('$token')");
	await_waiters($there, 1, 'set_config in a function waits at the end');
	unburdened($there, $r->pid, 'without holding anything');
	resume_replay($there);
	is($r->finish(20)->{ok}, 1, 'and is honoured');
	is($r->get('SELECT max(id) FROM t'), $id, 'what follows sees');

	# given up in the same statement
	$r->get('RESET concord.token');
	$token = write_ahead();
	my $done = $r->run("SELECT set_config('concord.token', '$token', false),
		set_config('concord.token', '', false)");
	is($done->{ok}, 1, 'set and blanked in one statement') or diag($done->{stderr});
	is($r->get('SHOW concord.token'), '', 'is no token');
	resume_replay($there);
}

# ---------------------------------------------------------------- a wait can be ended

for my $form (all_forms())
{
	my $token = write_ahead();
	my $r = start_form($standby, $form, $token);
	await_waiters($there, 1, "$form: waits");
	$there->get('SELECT pg_cancel_backend(' . $r->pid . ')');
	my $done = $r->finish(10);
	$cluster->expect_failed($done, '57014', qr/cancel/, "$form: can be cancelled");
	await_waiters($there, 0, 'and waits no more');
	$r->run('ROLLBACK') if $done->{status} ne 'I';
	$r->get(q(SET concord.token = '')) if $form =~ /^start-up/;
	is($r->get('SHOW concord.token'),    '',      'the token is as before');
	is($r->get('SELECT max(id) FROM t'), $id - 1, 'the session goes on');
	$r->quit;

	$r = start_form($standby, $form, $token);
	await_waiters($there, 1, "$form: waits");
	$there->get('SELECT pg_terminate_backend(' . $r->pid . ')');
	$cluster->expect_failed($r->finish(10), '57P01', qr/./, "$form: can be terminated");
	await_waiters($there, 0, 'and waits no more');

	# the time of a statement does not include that of its commit
	if ($form !~ /^set_config/)
	{
		$r = start_form($standby, $form, $token, '-c statement_timeout=50ms');
		$cluster->expect_failed($r->finish(10), '57014', qr/statement timeout/,
			"$form: within statement_timeout");
		await_waiters($there, 0, 'and waits no more');
	}
	resume_replay($there);
}

# the standby is stopped under those who wait
for my $mode (qw(fast immediate))
{
	my $token = write_ahead();
	my %r = map { $_ => start_form($standby, $_, $token) } all_forms();
	await_waiters($there, scalar(keys %r), "$mode stop: all wait");
	$there->quit;
	$standby->stop($mode);
	for my $form (sort keys %r)
	{
		my $done = $r{$form}->finish(20);
		is($done->{ok}, 0, "$mode stop: $form ends");
		like($done->{sqlstate} // '57P01', qr/^57P0[12]$/, 'with a word or none');
	}
	$standby->start;
	$there = ConcordWire->new($standby, quiet => 1);
	is($there->get('SELECT count(*) FROM concord.token_waits'), 0, 'nobody waits then');
	my $r = start_form($standby, 'SET', $token);
	is($r->finish(20)->{ok}, 1, 'and what was waited for is reached');
	is($r->get('SELECT max(id) FROM t'), $id, 'and seen');
}
{
	my $token = write_ahead();
	my $r = start_form($standby, 'SET', $token);
	await_waiters($there, 1, 'crash: one waits');
	kill 'KILL', $there->pid;
	is($r->finish(20)->{ok}, 0, 'a crash of another session ends it');
	$there->quit;
	await(sub { $there = eval { ConcordWire->new($standby) } }, 30);
	is($there->get('SELECT count(*) FROM concord.token_waits'), 0, 'nobody waits then');
	my $again = start_form($standby, 'SET', $token);
	is($again->finish(20)->{ok}, 1, 'and it is reached');
}

# ---------------------------------------------------------------- waking

# two positions that are to come, each reached by a commit of its own
{
	my $token = write_one();
	$primary->wait_for_catchup($standby);
	my $lsn = lsn_number(position($token)->{lsn});
	my %r = map {
		$_ => start_form($standby, 'SET', with_position($token, lsn => lsn_text($lsn + $_)))
	} 8, 600_000;
	await_waiters($there, 2, 'two wait');
	is(
		$there->get(q(SELECT string_agg(lsn::text, ' ' ORDER BY lsn) FROM concord.token_waits)),
		join(' ', map { lsn_text($lsn + $_) } 8, 600_000),
		'for their own positions');
	$w->get('INSERT INTO bystander VALUES (1)');
	is($r{8}->finish(20)->{ok}, 1, 'the first is served by a commit');
	await_waiters($there, 1, 'the second waits on');
	ok($r{600_000}->busy, 'indeed');
	$w->get('INSERT INTO bystander SELECT generate_series(1, 20000)');
	is($r{600_000}->finish(20)->{ok}, 1, 'the second is served by a later one');
}

# many
{
	my $token = write_ahead();
	my @forms = all_forms();
	my @r = map { start_form($standby, $forms[ $_ % @forms ], $token) } 1 .. 50;
	await_waiters($there, 50, 'fifty wait');
	resume_replay($there);
	is(scalar(grep { !$_->finish(20)->{ok} } @r), 0, 'all are served');
	is(scalar(grep { $_->get('SELECT max(id) FROM t') != $id } @r), 0, 'and see the write');
	await_waiters($there, 0, 'nobody waits');
}

# Without being woken a session would look again after up to a tenth of a second.
{
	my $r = ConcordWire->new($standby, quiet => 1);
	my $quick = 0;
	my @seconds;
	for (1 .. 15)
	{
		my $token = write_one();
		$primary->wait_for_catchup($standby);
		my $next = with_position($token, lsn => lsn_text(lsn_number(position($token)->{lsn}) + 8));
		$r->start("SET concord.token = '$next'");
		await(sub { $there->get('SELECT count(*) FROM concord.token_waits') == 1 }, 20);
		my $since = time();
		write_one();
		$r->finish(20);
		push @seconds, time() - $since;
		$quick++ if $seconds[-1] < 0.03;
	}
	note join ' ', map { sprintf '%.1f', $_ * 1000 } @seconds;
	cmp_ok($quick, '>=', 8, 'most are woken by the commit');
}

# ---------------------------------------------------------------- a standby that lags on purpose

$there->get(q(ALTER SYSTEM SET recovery_min_apply_delay = '1s'));
$there->get('SELECT pg_reload_conf()');
{
	is($there->get('SELECT count(*) FROM t'), $id, 'a standby with a delay');
	await(sub { $there->get('SHOW recovery_min_apply_delay') eq '1s' }, 20);
	my $token = write_one();
	my $late = start_form($standby, 'SET', $token, '-c concord.wait_timeout=100ms');
	$cluster->expect_failed($late->finish(20), 'PC004', qr/./, 'not reached in a short time');
	my $r = start_form($standby, 'set_config, bound', $token);
	my $done = $r->finish(20);
	is($done->{ok}, 1, 'reached in a longer one');
	is($r->get('SELECT max(id) FROM t'), $id, 'and seen');
}
$there->get('ALTER SYSTEM RESET recovery_min_apply_delay');
$there->get('SELECT pg_reload_conf()');

# ---------------------------------------------------------------- a branch that is prepared

for my $end ('COMMIT', 'ROLLBACK')
{
	++$id;
	$w->get('BEGIN');
	$w->get("INSERT INTO t VALUES ($id)");
	my $xid = $w->get('SELECT pg_current_xact_id()');
	$w->get(q(PREPARE TRANSACTION 'by hand'));
	my $token = with_position($w->token,
		lsn => $w->get('SELECT pg_current_wal_insert_lsn()'), xid => $xid);
	$primary->wait_for_catchup($standby);
	my $here = ConcordWire->new($primary);
	for my $place ([ $primary, $here ], [ $standby, $there ])
	{
		my ($server, $look) = @$place;
		my $name = $server->name;
		is($look->get("SELECT concord.covers('$token')"), 'f', "$name: has not ended");
		my $r = start_form($server, 'CALL', $token, '-c concord.wait_timeout=20ms');
		is($r->finish(20)->{out}, 'timeout', "$name: a branch is waited for");
		$r = start_form($server, 'SET', $token, '-c concord.wait_timeout=20ms');
		$cluster->expect_failed($r->finish(20), 'PC004', qr/./, "$name: at most that long");
	}
	my %r;
	for my $form (all_forms())
	{
		$r{ $_->name . " $form" } = start_form($_, $form, $token) for $primary, $standby;
	}
	for ($here, $there)
	{
		await_waiters($_, scalar(all_forms()), 'all forms wait for the branch');
		is($_->get('SELECT bool_and(branch) FROM concord.token_waits'), 't', 'the view says so');
	}
	my $busy = grep { $_->busy } values %r;
	is($busy, scalar(keys %r), 'until it ends');
	$w->get("$end PREPARED 'by hand'");
	my @bad = grep { !$r{$_}->finish(20)->{ok} } sort keys %r;
	is("@bad", '', "$end PREPARED ends all waits");
	my $seen = $end eq 'COMMIT' ? 1 : 0;
	@bad = grep { $r{$_}->get("SELECT count(*) FROM t WHERE id = $id") != $seen } sort keys %r;
	is("@bad", '', 'and all see it');
	is($_->get("SELECT concord.covers('$token')"), 't', 'it has ended') for $here, $there;

	# a later write's position includes it
	my $writer = start_form($primary, 'SET', $token);
	$writer->finish(20);
	++$id;
	my $told = $writer->run("INSERT INTO t VALUES ($id)")->{token};
	is(position($told)->{xid}, undef, 'a later write tells no branch that has ended');
	is(scalar(positions($told)), 1, 'but one position');
}
{
	# what was let go on without is not forgotten
	my $token = write_ahead();
	my $xid = $w->get('SELECT pg_current_xact_id()') + 1;
	my $branch = with_position($token, xid => $xid);
	my $r = start_form($standby, 'SET', $branch,
		'-c concord.on_timeout=stale -c concord.wait_timeout=10ms -c concord.track=reads');
	is($r->finish(20)->{ok}, 1, 'stale: let go on');
	$r->get('SELECT count(*) FROM t');
	like($r->get('SHOW concord.token'), qr/\?$xid/, 'the branch stays in the token');
	resume_replay($there);
}

$_->quit for $w, $there;
$cluster->no_leftovers(but => qr/terminated by signal 9/);
done_testing();
