
# concord.fence_writes: whoever has lost a lease lock cannot read or write what it guards.

use strict;
use warnings;

use ConcordTest;
use Test::More;

my $cluster = ConcordTest->new(nodes => [qw(a b c)]);
my @nodes = qw(a b c);
$cluster->await_sql($_, q(SELECT string_agg(node, ' ' ORDER BY node) FROM concord.acceptors), 'a b c', "$_ knows the acceptors") for @nodes;
$cluster->get($_, 'CREATE TABLE t (v int)') for @nodes;
$cluster->get($_, 'INSERT INTO t VALUES (0)') for @nodes;
my $marks = q(SELECT count(*) FROM concord.fence_marks);
my $mark = q(SELECT fence FROM concord.fence_marks WHERE name = 'it''s');

my $session = $cluster->session('a');
$session->get('SET concord.fence_writes = on');
my $fence = $session->get(q(SELECT concord.lock('it''s')));
is($cluster->get('a', $marks), 0, 'taking a lock checks nothing');
$session->get('UPDATE t SET v = v + 1');
is($cluster->get('a', $mark), $fence, 'a write has checked the fence');
is($cluster->get('b', $marks), 0, 'on the node where it was');
$session->get(q{SELECT concord.execute_on('b', 'UPDATE t SET v = v + 1')});
is($cluster->get('b', $mark), $fence, 'a branch that is all of the transaction too');
is($cluster->get('c', $marks), 0, 'only there');
$session->get('BEGIN');
is($session->get(q{SELECT v FROM concord.query_on('c', 'SELECT v FROM t') AS (v int)}), 0, 'a branch reads');
$session->get('COMMIT');
is($cluster->get('c', $mark), $fence, 'and has checked before');

# somebody else has the lock by now: the mark is higher
my $later = $fence + 2;
$cluster->get($_, "SELECT concord.check_fence('it''s', $later)") for @nodes;
sub refused
{
	my ($sql, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $result = $session->run($sql);
	is($result->{sqlstate}, 'PC005', $name);
	return;
}
refused('SELECT v FROM t', 'a read is refused');
refused('UPDATE t SET v = 100', 'a write is');
refused(q{SELECT concord.execute_on('b', 'UPDATE t SET v = 100')}, 'on another node too');
refused(q{DO $$ BEGIN UPDATE t SET v = 100; END $$}, 'in a block of code');
$session->get('PREPARE p AS SELECT v FROM t');
refused('EXECUTE p', 'a prepared statement');
$session->get('BEGIN');
refused('SELECT v FROM t', 'in a transaction');
$session->run('ROLLBACK');
is($cluster->get($_, 'SELECT max(v) < 100 FROM t'), 't', "nothing was changed on $_") for @nodes;
is($session->get('SELECT count(*) > 0 FROM pg_class'), 't', 'catalogs can be read');
is($session->get(q(SELECT count(*) FROM concord.locks)), 1, 'and our views');
is($session->get(q(SELECT concord.unlock('it''s'))), 't', 'and it lets go');
is($session->get('SELECT count(*) FROM t'), 1, 'then there is nothing to check');

# the check waits for an earlier holder's transaction, and what follows sees what that has written
$cluster->get('a', 'TRUNCATE t');
$cluster->get('a', 'INSERT INTO t VALUES (1)');
my $first = $cluster->session('a');
my $old = $first->get(q(SELECT concord.lock('handed')));
$first->get('BEGIN');
$first->get("SELECT concord.check_fence('handed', $old)");
$first->get('UPDATE t SET v = 2');
$first->get(q(SELECT concord.unlock('handed')));
$session->get(q(SELECT concord.lock('handed')));
$session->start('SELECT v FROM t');
$cluster->await_sql('a', q(SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'), 1, 'the next holder waits for the transaction');
$first->get('COMMIT');
is($session->finish->{out}, 2, 'and reads what it has written');

# a savepoint that is rolled back takes its check along
$session->get($_) for ('BEGIN', 'SAVEPOINT s', 'SELECT v FROM t', 'ROLLBACK TO s');
$cluster->get('a', sprintf(q(SELECT concord.check_fence('handed', %d)), $session->get(q(SELECT fence FROM concord.locks WHERE name = 'handed')) + 2));
refused('SELECT v FROM t', 'checked again');
$session->run('ROLLBACK');
$session->get(q(SET concord.fence_writes = off));
is($session->get('SELECT v FROM t'), 2, 'without the setting nothing is checked');
done_testing();
