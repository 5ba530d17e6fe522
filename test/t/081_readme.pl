
# The README's examples, run in its order on a cluster of their own, give the output that the README shows.
#
# Every ```sql block begins with a comment that says where it is run: "-- node a", "-- nodes a, b, c", and then
# perhaps ", database copy" (default: app).  If a ```text block follows, it must be what psql prints there; if not,
# there must be no error.  What differs from run to run or from server to server is not compared: ids of clusters,
# ports, and white space, which follows the widths of columns.

use strict;
use warnings;

use ConcordTest;
use FindBin;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

# what initdb goes by: the doctor's answer shows it
@ENV{qw(LANG LC_COLLATE LC_CTYPE)} = ('C.UTF-8') x 3;

my %port = (a => 5433, b => 5434, c => 5435, b1 => 5436);    # as the README has them
my @nodes = qw(a b c);
my $cluster = ConcordTest->new(
	nodes => [@nodes],
	form => 0,
	streaming => ['b'],
	conf => "max_prepared_transactions = 100\nconcord.view_timeout = 30s");
$cluster->get($_, 'DROP EXTENSION pg_concord') for @nodes;
$cluster->add_standby('b', 'b1');

sub comparable
{
	my ($text) = @_;
	$text      =~ s/^LOCATION: .*\n//mg;
	$text      =~ s/^psql:[^:\n]+:\d+: //mg;
	$text      =~ s/\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/<uuid>/g
	  if $text =~ /create_cluster/;
	$text =~ s/^(You are now connected to database "\w+") .*/$1/mg;
	for my $node (sort keys %port)
	{
		my $actual = $cluster->node($node)->port;
		$text =~ s/\b$actual\b/$port{$node}/g;
	}
	$text        =~ s/^[-+]{2,}$/--/mg;
	$text        =~ s/ {2,}/ /g;
	$text        =~ s/ +$//mg;
	$text        =~ s/^ +//mg;
	return $text =~ s/\A\s+|\s+\z//gr;
}

sub run_on
{
	my ($node, $database, $sql) = @_;
	my $output = '';
	$sql =~ s/\bport=$port{$_}\b/'port=' . $cluster->node($_)->port/ge for keys %port;
	my @psql = (
		'psql', '-X', '-d', $cluster->node($node)->connstr($database),
		'-v', 'VERBOSITY=verbose', '-f', '-');
	IPC::Run::run(\@psql, '<', \$sql, '>', \$output, '2>&1', IPC::Run::timeout(120));
	return comparable($output);
}

# Until all nodes have one map and have heard of each other; an example may take one out of the cluster.
sub settle
{
	my $settled =
	  q{SELECT coalesce(bool_and(state = 'up'), true) AND count(DISTINCT epoch) <= 1 FROM concord.nodes};
	await(
		sub {
			return !grep { run_on($_, 'app', $settled) !~ /^t$/m } @nodes;
		},
		30) or diag('the nodes do not agree');
	return;
}

my ($file) = grep { -e } map { "$FindBin::Bin/$_/README.md" } qw(../.. ..);
my $fence = qr/^```/m;
my $readme = slurp_file($file);
my $blocks = 0;
while ($readme =~ /^```sql\n(.*?)$fence\n(?:\n```text\n(.*?)$fence\n)?/msg)
{
	my ($sql, $expected) = ($1, $2);
	my $line = 1 + (substr($readme, 0, $-[0]) =~ tr/\n//);
	my ($where, $database) = $sql =~ /\A-- nodes? ((?:\w+, )*\w+?)(?:, database (\w+))?\n/;
	$blocks++;
	unless (defined $where && !grep { !exists $port{$_} } split /, /, $where)
	{
		fail("README line $line says where it is run");
		next;
	}
	for my $node (split /, /, $where)
	{
		my $output = run_on($node, $database // 'app', $sql);
		my $name = "README line $line on node $node";
		if   (defined $expected) { is($output, comparable($expected), $name); }
		else                     { unlike($output, qr/^(?:ERROR|FATAL|psql:|WARNING)/m, $name); }
	}
	settle() unless defined $database;
}
cmp_ok($blocks, '>', 0, 'there are examples');

$cluster->no_leftovers;
done_testing();
