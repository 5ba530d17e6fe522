
# The table of decisions does not grow with the number of transactions: what is old is forgotten, and its space is used
# again, while clients commit over two nodes without a pause.
#
# CONCORD_SOAK=1: 100,000 transactions instead of 5,000.

use strict;
use warnings;

use ConcordTest;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $soak    = $ENV{CONCORD_SOAK};
my $clients = 4;
my $each    = ($ENV{DECISIONS} // ($soak ? 100_000 : 5_000)) / $clients;
my $total   = $each * $clients;
my $keep    = $soak ? '1 second' : '100 milliseconds';

my $cluster = ConcordTest->new(
	nodes => [qw(a b)],
	conf  => "concord.outcome_retention = 1s\nautovacuum_naptime = 1s\nmax_prepared_transactions = 50");
$cluster->get($_, 'CREATE TABLE account (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) WITH (fillfactor = 50)') for qw(a b);
$cluster->get($_, 'INSERT INTO account SELECT generate_series(1, 1000)') for qw(a b);
# at most so many dead rows before autovacuum comes: in proportion to the shorter run
$cluster->get('a', 'ALTER TABLE concord.decision SET (autovacuum_vacuum_threshold = 500)') unless $soak;

my $script = PostgreSQL::Test::Utils::tempdir() . '/transfer.sql';
open my $fh, '>', $script or die $!;
print $fh <<'SQL';
\set id random(1, 1000)
BEGIN;
UPDATE account SET n = n + 1 WHERE id = :id;
SELECT concord.execute_on('b', 'UPDATE account SET n = n - 1 WHERE id = $1', :id);
COMMIT;
SQL
close $fh;

my ($out, $begun) = ('', time());
my $pgbench = IPC::Run::start(
	[
		'pgbench', '-n', '-c', $clients, '-j', 2, '-t', $each, ($soak ? () : ('-R', 1000)),
		'-f', $script, $cluster->node('a')->connstr('app')
	],
	'<', \undef, '>', \$out, '2>', \$out);

# (rows, bytes of the table, bytes with its indexes)
my $sizes = q(SELECT (SELECT count(*) FROM concord.decision), pg_relation_size('concord.decision'), pg_total_relation_size('concord.decision'));
my (@samples, $unanswered);
my $session = $cluster->session('a');
do
{
	# what the worker does once a minute
	$unanswered++ if $session->get(qq(SELECT concord._forget_decisions('$keep')), 90) eq '';
	push @samples, [ time() - $begun, split /\|/, $session->get($sizes) ];
	select(undef, undef, undef, $soak ? 0.5 : 0.1);
	$pgbench->pump_nb;
} while ($pgbench->pumpable);
ok($pgbench->finish, 'pgbench is content') or diag($out);
my ($tps) = $out =~ /^tps = ([\d.]+)/m;
note sprintf('%d transactions in %.0f s, %s tps', $total, time() - $begun, $tps // '?');
note sprintf('%6.1f s: %6d rows, table %8d bytes, with indexes %8d bytes', @$_) for @samples;

$cluster->is_sql('a', 'SELECT sum(n) FROM account', $total,  'all have committed here');
$cluster->is_sql('b', 'SELECT sum(n) FROM account', -$total, 'and there');
$cluster->is_sql('a', 'SELECT committed_2pc FROM concord.transaction_stats', $total, 'in two phases');
cmp_ok(scalar(@samples), '>=', 4, 'the table was looked at while they ran');
my ($rows, $bytes) = (0, 0);
for (@samples)
{
	$rows  = $_->[1] if $_->[1] > $rows;
	$bytes = $_->[3] if $_->[3] > $bytes;
}
# a decision takes about 130 bytes, and 50 in the index: a table that kept all would have 900,000 bytes
cmp_ok($rows,  '<', $soak ? $total / 10 : $total / 2, "never more than a part of the decisions was kept ($rows)");
cmp_ok($bytes, '<', $soak ? 9_000_000 : 750_000, "the table and its indexes stayed small ($bytes bytes)");
is($unanswered // 0, 0, 'each round ended');

# the rest goes too
$cluster->await_sql('a', q(SELECT concord._forget_decisions('0')), qr/^\d+$/, 'a last round');
$cluster->is_sql('a', 'SELECT count(*) FROM concord.decision', 0, 'nothing is left');
$cluster->is_sql('a', 'SELECT count(*) FROM concord.horizon', 1, 'but the horizon');
$session->quit;
$cluster->no_leftovers;
done_testing();
