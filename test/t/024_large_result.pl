
# Results of any size in bounded memory.

use strict;
use warnings;

use ConcordTest;
use Test::More;

use constant MB => 1024;    # in kB

my $cluster = ConcordTest->new(nodes => [qw(a b c)], conf => 'work_mem = 4MB');

# 100,000 rows of 1 kB
my $rows = q(SELECT g, repeat(md5(g::text), 32) FROM generate_series(1, 100000) g);
my $sum =
  $cluster->get('b', "SELECT count(*), sum(length(x)), sum(hashtext(x)) FROM ($rows) s (g, x)");

sub growth
{
	my ($sql, $name) = @_;
	my $session = $cluster->session('a');
	$session->get(q(SELECT * FROM concord.query_all('SELECT 1') AS (x int)));
	my $before = backend_memory_kb($session->pid, 'VmHWM');
	my $r = $session->run($sql, 120);
	my $grown = backend_memory_kb($session->pid, 'VmHWM') - $before;
	note "$name: $grown kB more in $r->{seconds} s";
	$session->quit;
	return ($r, $grown);
}

my ($r, $grown) = growth(
	"SELECT count(*), sum(length(x)), sum(hashtext(x)) FROM concord.query_on('b', '$rows') AS (g int, x text)",
	'query_on');
is($r->{out}, $sum, '100 MB arrive as they were sent') or diag $r->{stderr};
cmp_ok($grown, '<', 40 * MB, 'in bounded memory');

($r, $grown) = growth(
	"SELECT _node, count(*), sum(length(x)), sum(hashtext(x)) FROM concord.query_all('$rows') AS (_node name, g int, x text)
		GROUP BY 1 ORDER BY 1", 'query_all');
is($r->{out}, join("\n", map { "$_|$sum" } qw(a b c)), '100 MB from each node')
  or diag $r->{stderr};
cmp_ok($grown, '<', 60 * MB, 'in bounded memory');

($r, $grown) = growth("SELECT concord.execute_on('b', '$rows')", 'execute_on');
is($r->{out}, 100000, 'rows that nobody wants are counted');
cmp_ok($grown, '<', 20 * MB, 'and not kept');

# one value that is large
$cluster->is_sql(
	'a', q(SELECT length(x), md5(x) = md5(repeat('0123456789', 5000000))
	FROM concord.query_on('b', 'SELECT repeat(''0123456789'', 5000000)') AS (x text)), '50000000|t',
	'a value of 50 MB arrives');
$cluster->is_sql(
	'a',
	q(SELECT x FROM concord.query_on('b', 'SELECT length($1)', repeat('0123456789', 5000000)) AS (x int)),
	50000000,
	'and leaves');

# temporary files are given back
$cluster->is_sql('a', 'SELECT count(*) FROM pg_ls_tmpdir()', 0, 'no temporary file is left');

$cluster->no_leftovers;
done_testing();
