
# Registers: no majority, acceptors and the registrar die in the middle of it; nobody is told what is not so.

use strict;
use warnings;

use ConcordRegister;
use ConcordTest;
use Test::More;

# a, b and c become the acceptors
my $cluster = ConcordTest->new(
	nodes => [qw(a b c d)],
	conf  => "concord.register_timeout = 20s\nconcord.connect_timeout = 5s\nautovacuum = off\n"
	  # acceptors flush whatever a role's settings are
	  . "synchronous_commit = off\nwal_writer_delay = 10s");
$cluster->await_sql($_, acceptors_sql(), 'a b c', "$_ knows the acceptors") for qw(a b c d);
$cluster->get('a', write_sql('x', 'short', 0));

# ---- two of the three away

my $v = version($cluster, 'd', 'x');
$cluster->freeze('b');
$cluster->freeze('c');
my $short = q(SET concord.register_timeout = '1500ms');
my $session = $cluster->session('d');
$session->get($short);
$cluster->expect_error($session, read_sql('x'), 'PC006', qr/no majority of the acceptors/, 'no majority: a read fails', within => 4);
$cluster->expect_error($session, write_sql('x', 'lost', $v), 'PC006', qr/Nothing was changed/, 'so does a write, and nothing was changed', within => 4);
$session->get(q(SET concord.register_timeout = '60s'));

# a session that waits can be cancelled, and asks again in the same place
$session->start(read_sql('x'));
select(undef, undef, undef, 0.3);
$cluster->cancel($session);
$cluster->expect_failed($session->finish, '57014', qr/cancel/, 'a waiting session can be cancelled', within => 5);
$session->start(read_sql('x'));
select(undef, undef, undef, 0.3);
$cluster->cancel($session, 'pg_terminate_backend');
ok(!$session->finish->{ok}, 'and terminated');
my $waiting = $cluster->session('d');
$waiting->start(read_sql('x'));
$cluster->thaw($_) for qw(b c);
is($waiting->finish->{out}, "short $v", 'who waits is answered when they are back');
$cluster->is_sql('d', read_sql('x'), "short $v", 'nothing has changed');
$cluster->is_sql('d', "SELECT concord.register_set('x', 'after', $v) > $v", 't', 'and it can be changed');

# ---- a majority is restarted

for my $victims ([qw(b c)], [qw(a b c)])
{
	my $value = 'before ' . @$victims;
	$v = $cluster->get('d', write_sql('x', $value, version($cluster, 'a', 'x')));
	$cluster->crash($_) for @$victims;
	$cluster->start($_) for @$victims;
	$cluster->await_sql($_, read_sql('x'), "$value $v", "$_ reads it after @$victims were killed") for qw(a b c d);
}

# ---- two acceptors die at a point of their step: what the client was told is true

for my $point (qw(acceptor_before_answer acceptor_after_flush))
{
	for my $round (1, 2)
	{
		# the second time in one round: the same node wrote last
		my $name = "$point, round $round";
		$v = $cluster->get('d', write_sql('x', "before $name", version($cluster, 'd', 'x')));
		$cluster->get('a', write_sql('x', "before $name", $v)) if $round == 1;
		$v = version($cluster, 'd', 'x');
		my $client = $cluster->session('d');
		set_fault_points($cluster, $_, "$point=stop") for qw(b c);
		$client->start(write_sql('x', "after $name", $v));
		ok(await_stopped_backend($cluster, $_), "$name: $_ is in it") for qw(b c);
		$cluster->crash($_) for qw(b c);
		forget_fault_points($cluster, $_) for qw(b c);
		$cluster->start($_) for qw(b c);
		my $result = $client->finish(40);
		my $now = $cluster->get('a', q(SELECT value FROM concord.register_get('x')));
		my $state = $result->{sqlstate} // 'success';
		like($result->{ok} ? 'OK' : $state, qr/^(OK|08007|PC006)$/, "$name: the client is told something that can be");
		is($now, "after $name",  "$name: OK, so it is") if $result->{ok};
		is($now, "before $name", "$name: no majority, so it is not") if $state eq 'PC006';
		like($now, qr/^(before|after) \Q$name\E$/, "$name: once, or not");
		note("$name: $state, $now");
		$client->quit;
	}
}

# ---- the registrar is killed while it works

$cluster->freeze($_) for qw(b c);
my ($reader, $writer) = map { $cluster->session('d') } 1, 2;
my $registrar = $cluster->get('d', registrar_sql());
$v = 0;
$reader->start(read_sql('x'));
$writer->start(write_sql('fresh', 'x', 0));
select(undef, undef, undef, 0.5);
$cluster->get('d', "SELECT pg_terminate_backend($registrar)");
$cluster->expect_failed($writer->finish, '08007', qr/ended/, 'a registrar that ends does not know', within => 5);
$cluster->await_sql('d', registrar_sql(), qr/^(?!$registrar\b)\d+$/, 'another one is started');
$cluster->thaw($_) for qw(b c);
ok($reader->finish->{ok}, 'a read goes on with the next one');
$cluster->is_sql('d', q(SELECT concord.register_set('x', 'end', version) > version FROM concord.register_get('x')), 't', 'and all is well');

# a registrar that stands still keeps nobody for longer than it may
$registrar = $cluster->get('d', registrar_sql());
kill 'STOP', $registrar;
$writer->get(q(SET concord.register_timeout = '1s'));
$cluster->expect_error($writer, write_sql('y', 'x', 0), qr/^(55000|08007)$/, qr/registrar/, 'a frozen registrar', within => 8);
kill 'CONT', $registrar;
$cluster->await_sql('d', read_sql('x'), qr/^end /, 'continues');

$cluster->no_leftovers(but => qr/terminated by signal 9|exited with exit code/);
done_testing();
