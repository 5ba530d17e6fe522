
# A failover is told apart from lag: what the new primary does not have is lost and said to be, what
# it has is honoured, and the old one, left behind, says so.

use strict;
use warnings;

use ConcordTest;
use ConcordToken;
use ConcordWire;
use Test::More;

my $cluster = ConcordTest->new(
	nodes => ['a'],
	streaming => ['a'],
	conf => "autovacuum = off\nlog_statement = none\nwal_keep_size = 64MB");
my $old = $cluster->node('a');
my $new = $cluster->add_standby('a', 'a1');
my $follower = $cluster->add_standby('a', 'a2');
my $w = ConcordWire->new($old);
my %look = map { $_->name => ConcordWire->new($_, quiet => 1) } $old, $new, $follower;
my ($on_old, $on_new, $on_follower) = @look{qw(a a1 a2)};

$w->get('CREATE TABLE t (id int PRIMARY KEY)');

# One is kept and applied, one kept but not applied yet, one never arrives.
my $early = $w->run('INSERT INTO t VALUES (1)')->{token};
$old->wait_for_catchup($_) for $new, $follower;
pause_replay($_) for $on_new, $on_follower;
my $kept = $w->run('INSERT INTO t VALUES (2)')->{token};
for my $look ($on_new, $on_follower)
{
	my $lsn = position($kept)->{lsn};
	ok(await(sub { $look->get("SELECT pg_last_wal_receive_lsn() >= '$lsn'") eq 't' }, 20),
		'received, not applied');
	receive_nothing($look);
}
my $lost = $w->run('INSERT INTO t VALUES (3)')->{token};
my $held = $w->run('INSERT INTO t VALUES (4)')->{token};
is($on_new->get("SELECT concord.covers('$_')"), 'f', 'neither is there') for $kept, $lost;

# a session that has seen more than the standby will ever have
my $carrier = ConcordWire->new($new, options => "-c concord.on_timeout=stale");
$carrier->get("SET concord.wait_timeout = '10ms'");
$carrier->get("SET concord.token = '$lost'");

# ---------------------------------------------------------------- promoted under those who wait

my @forms = all_forms();
my %keeps = map { $_ => start_form($new, $_, $kept) } @forms;
my %loses = map { $_ => start_form($new, $_, $lost) } @forms;
my %stale = map { $_ => start_form($new, $_, $lost, '-c concord.on_timeout=stale') } @forms;
await_waiters($on_new, 3 * @forms, 'all wait on the standby');
$on_new->get('SELECT pg_promote(false)');
$new->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');


for my $form (@forms)
{
	my $r = $keeps{$form};
	my $done = $r->finish(20);
	is($done->{ok}, 1, "promoted while it waits, $form: what it has is reached")
	  or diag($done->{stderr});
	is($done->{out}, 'reached', 'CALL says so') if $form =~ /CALL/;
	is($r->get('SELECT count(*) FROM t WHERE id = 2'), 1, 'and seen');

	for my $waiter ($loses{$form}, $stale{$form})
	{
		$done = $waiter->finish(20);
		if ($form =~ /CALL/) { is($done->{out}, 'lost', "$form: what it lacks is lost"); }
		else
		{
			$cluster->expect_failed($done, 'PC003', qr/lost.*timeline 1, .*timeline 2/s,
				"$form: what it lacks is lost");
		}
	}
}
await_waiters($on_new, 0, 'nobody waits');
is($on_new->get('SELECT token_lost FROM concord.session_stats'), 2 * @forms, 'counted');

# ---------------------------------------------------------------- on the promoted server

sub on_promoted
{
	my ($node, $name) = @_;
	for my $form (@forms)
	{
		for my $token ($early, $kept)
		{
			my $done = start_form($node, $form, $token)->finish(20);
			is($done->{ok}, 1, "$name, $form: a token that it has") or diag($done->{stderr});
		}
		for my $action (qw(error primary stale))
		{
			my $r = start_form($node, $form, $lost, "-c concord.on_timeout=$action");
			my $done = $r->finish(20);
			if ($form =~ /CALL/)
			{
				is($done->{out}, 'lost', "$name, $form: lost");
				next;
			}
			$cluster->expect_failed($done, 'PC003', qr/lost.*RESET concord.token/s,
				"$name, $form: lost, $action", within => 5);
			$r->run('ROLLBACK') if $done->{status} ne 'I';
			$r->get('RESET concord.token');
			is($r->get('SELECT max(id) FROM t WHERE id < 10'), 2, 'the session goes on');
		}
	}
	my $look = $look{ $node->name };
	is($look->get("SELECT concord.covers('$_')"), 't', "$name: covers what it has")
	  for $early, $kept;
	is($look->get("SELECT concord.covers('$_')"), 'f', "$name: not what it lacks")
	  for $lost, $held;
	return;
}

on_promoted($new, 'promoted');

# a new primary's own
my $r = start_form($new, 'SET', $kept);
$r->finish(20);
my $fresh = $r->run('INSERT INTO t VALUES (10)')->{token};
my @positions = positions($fresh);
is(scalar @positions, 1, 'one position is left, for it contains the earlier timeline');
is($positions[0]{timeline}, 2, 'on the new timeline');
cmp_ok(
	lsn_number($positions[0]{lsn}),
	'>',
	lsn_number(position($kept)->{lsn}),
	'later than the switch');

# what was lost is not forgotten by writing
my $told = $carrier->run('INSERT INTO t VALUES (11)')->{token};
is(join(' ', map { $_->{timeline} } positions($told)), '1 2', 'a lost position stays');
$cluster->expect_failed(start_form($new, 'SET', $told)->finish(20),
	'PC003', qr/./, 'and is said to be lost');

# ---------------------------------------------------------------- on the one that was left behind

for my $form (@forms)
{
	my $r = start_form($old, $form, $fresh);
	my $done = $r->finish(20);
	cmp_ok($done->{seconds}, '<', 5, "left behind, $form: does not wait");
	if ($form =~ /CALL/) { is($done->{out}, 'timeout', 'CALL says timeout'); }
	else { $cluster->expect_failed($done, 'PC004', qr/left behind/, "$form: left behind"); }
}
is($on_old->get("SELECT concord.covers('$fresh')"), 'f', 'covers nothing of that');
is($on_old->get("SELECT concord.covers('$lost')"), 't', 'but its own');

# ---------------------------------------------------------------- on a standby

# still on the old timeline: it may come
resume_replay($on_follower);
is(
	$on_follower->get("CALL concord.wait('$kept', '20 s')"),
	'reached', 'a standby of the old primary applies what it has');
is($on_follower->get("SELECT concord.covers('$fresh')"), 'f', 'it is not there');
is($on_follower->get("CALL concord.wait('$_', '20 ms')"), 'timeout', 'nor lost') for $fresh, $lost;
my %later = map { $_ => start_form($follower, $_, $fresh) } @forms;
my $never = start_form($follower, 'SET', $lost);
await_waiters($on_follower, 1 + @forms, 'all wait for the new timeline');
receive_from($on_follower, $new);
for my $form (@forms)
{
	my $done = $later{$form}->finish(30);
	is($done->{ok}, 1, "$form: reached when it follows") or diag($done->{stderr});
	is($later{$form}->get('SELECT count(*) FROM t WHERE id = 10'), 1, 'and seen');
}

# the next timeline tells that it was lost
$cluster->expect_failed($never->finish(20), 'PC003', qr/./, 'what was lost is lost there');
on_promoted($follower, 'following');
my $done = start_form($follower, 'SET', $told)->finish(20);
$cluster->expect_failed($done, 'PC003', qr/./, 'a token with a lost and a new position');

# once more: three timelines
$new->wait_for_catchup($follower);
$on_follower->get('SELECT pg_promote()');
$follower->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
is($on_follower->get("SELECT concord.covers('$_')"), 't', 'a third timeline: covers')
  for $early, $kept, $fresh;
is($on_follower->get("SELECT concord.covers('$_')"), 'f', 'a third timeline: lost')
  for $lost, $told;
my $third = ConcordWire->new($follower)->run('INSERT INTO t VALUES (20)')->{token};
is(position($third)->{timeline}, 3, 'its own are on it');
is($on_new->get("CALL concord.wait('$third')"), 'timeout', 'the second primary is left behind');

$_->quit for $w, values %look;
$cluster->no_leftovers;
done_testing();
