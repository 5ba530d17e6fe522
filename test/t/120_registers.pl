
# Registers: one value by name, kept by a majority of the acceptors.

use strict;
use warnings;

use ConcordRegister;
use ConcordTest;
use Test::More;
use Time::HiRes qw(time);

# a, b and c become the acceptors
my $cluster = ConcordTest->new(
	nodes => [qw(a b c d)],
	proxies => [qw(a b c)],
	conf  => "concord.register_timeout = 20s\nconcord.connect_timeout = 5s\nautovacuum = off");
my @acceptors = qw(a b c);

# ---- the set of acceptors forms by itself

$cluster->await_sql($_, acceptors_sql(), 'a b c', "$_ knows the acceptors") for qw(a b c d);

# ---- what one node writes every node reads

$cluster->is_sql('a', read_sql('x'), 'none 0', 'nothing was written yet');
my $v1 = $cluster->get('a', write_sql('x', 'one', 0));
cmp_ok($v1, '>', 0, 'a register is made');
$cluster->is_sql($_, read_sql('x'), "one $v1", "$_ reads it") for qw(a b c d);
my $v2 = $cluster->get('d', write_sql('x', 'two', $v1));
cmp_ok($v2, '>', $v1, 'versions grow');
$cluster->is_sql($_, read_sql('x'), "two $v2", "$_ reads what another wrote") for qw(a b c d);
$cluster->expect_error('b', write_sql('x', 'three', $v1), 'PC007', qr/is at version $v2/, 'an old version is refused');
$cluster->expect_error('b', write_sql('x', 'three', 0), 'PC007', qr/is at version $v2/, 'so is making it again');
$cluster->expect_error('b', write_sql('never', 'x', 7), 'PC007', qr/does not exist/, 'and changing what is not there');

# ---- a long value through all processes

my $long = q(SELECT repeat('0123456789abcdef', 65536));
my $v3 = $cluster->get('d', "SELECT concord.register_set('x', ($long), $v2)");
$cluster->is_sql($_, "SELECT version = $v3 AND value = ($long) FROM concord.register_get('x')", 't', "$_ reads 1 MB") for qw(a c d);
$cluster->is_sql('d', "SELECT concord.register_set('x', 'short', $v3) > $v3", 't', 'and it is short again');

# ---- what was deleted is collected, and its version does not come back

my $gone = $cluster->get('b', write_sql('gone', 'x', 0));
$cluster->get('c', "SELECT concord.register_delete('gone', $gone)");
$cluster->await_sql($_, q(SELECT count(*) FROM concord.register WHERE name = 'r:gone'), 0, "$_ has nothing left of a deleted register") for @acceptors;
$cluster->is_sql($_, read_sql('gone'), 'none 0', "$_ reads that there is nothing") for qw(a d);
$cluster->expect_error('a', "SELECT concord.register_delete('gone', $gone)", 'PC007', qr/does not exist/, 'it cannot be deleted again');
my $again = $cluster->get('a', write_sql('gone', 'y', 0));
cmp_ok($again, '>', $gone + 1, 'made again its versions go on');

# ---- nobody's update is lost

my $increments = 60;
my $loop = <<SQL;
DO \$\$
DECLARE
	n int; v bigint; done int := 0; unknown int := 0;
BEGIN
	WHILE done + unknown < $increments LOOP
		SELECT r.value::int, r.version INTO n, v FROM concord.register_get('counter') r;
		BEGIN
			PERFORM concord.register_set('counter', (n + 1)::text, v);
			done := done + 1;
		EXCEPTION
			WHEN SQLSTATE 'PC007' THEN NULL;
			WHEN SQLSTATE '08007' THEN unknown := unknown + 1;
		END;
	END LOOP;
	PERFORM set_config('test.result', done || ' ' || unknown, false);
END \$\$
SQL

sub count_together
{
	my ($name, $during, @where) = @_;
	my $from = $cluster->get('d', q(SELECT coalesce(value, '0') FROM concord.register_get('counter')));
	my @sessions = map { $cluster->session($_) } @where;
	$_->start($loop) for @sessions;
	$during->() if $during;
	my ($done, $unknown) = (0, 0);
	for my $session (@sessions)
	{
		my $result = $session->finish(90);
		ok($result->{ok}, "$name: a client ends") or diag($result->{stderr});
		my ($d, $u) = split / /, $session->get("SELECT coalesce(current_setting('test.result', true), '0 0')");
		$done += $d;
		$unknown += $u;
		$session->quit;
	}
	my $to = $cluster->get('d', q(SELECT value FROM concord.register_get('counter')));
	note("$name: $done done, $unknown unknown, from $from to $to");
	cmp_ok($to - $from, '>=', $done, "$name: none is lost");
	cmp_ok($to - $from, '<=', $done + $unknown, "$name: none is counted twice");
	return;
}

$cluster->get('a', write_sql('counter', 0, 0));
count_together('undisturbed', undef, qw(a b d d));

# ---- one of the three away, in each way

my $restarts = qr/terminated by signal 9|exited with exit code/;
my %away = (
	'killed'           => [ sub { $cluster->crash('b') }, sub { $cluster->start('b') } ],
	'frozen'           => [ sub { $cluster->freeze('b') }, sub { $cluster->thaw('b') } ],
	'deaf'             => [ sub { $cluster->proxy('b')->hold('to_server') }, sub { $cluster->proxy('b')->pass } ],
	'mute'             => [ sub { $cluster->proxy('b')->hold('to_client') }, sub { $cluster->proxy('b')->pass } ],
	'cut off'          => [ sub { $cluster->proxy('b')->refuse; $cluster->proxy('b')->cut }, sub { $cluster->proxy('b')->pass } ]);
for my $how (sort keys %away)
{
	count_together("b is $how", sub { select(undef, undef, undef, 0.05); $away{$how}[0]->() }, qw(a d));
	my $registrar = $cluster->get('d', registrar_sql());
	my $busy = cpu($registrar);
	select(undef, undef, undef, 1);
	$busy = cpu($registrar) - $busy;
	cmp_ok($busy, '<', 0.3, "b is $how: the registrar that has nothing to do takes no time");
	$away{$how}[1]->();
	$cluster->await_sql('b', 'SELECT 1', 1, "b is there again");
}

# seconds that a process has computed for
sub cpu
{
	my ($pid) = @_;
	open my $fh, '<', "/proc/$pid/stat" or return 0;
	my @fields = split / /, (<$fh> =~ s/^.*\) //r);
	return ($fields[11] + $fields[12]) / 100;
}

# what was deleted while b was away is collected when it is back
my $late = $cluster->get('a', write_sql('late', 'x', 0));
$cluster->freeze('b');
$cluster->await_sql('a', q(SELECT count(*) FROM concord.nodes WHERE node = 'b' AND state = 'down'), 1, 'b is known to be down');
$cluster->get('a', "SELECT concord.register_delete('late', $late)");
$cluster->thaw('b');
my $collected = time();
$cluster->await_sql($_, q(SELECT count(*) FROM concord.register WHERE name IN ('r:late', 'r:never')), 0, "$_ has nothing left of it, nor of a register that never was", 60) for @acceptors;
note(sprintf 'collected after %.1f s', time() - $collected);

$cluster->no_leftovers(but => $restarts);
done_testing();
