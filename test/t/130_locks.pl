
# Lease locks over three acceptors, without faults: who gets them, in which order, what is refused and how.

use strict;
use warnings;

use ConcordLock;
use ConcordTest;
use Test::More;
use Time::HiRes qw(time);

my @nodes   = qw(a b c);
my $cluster = lock_cluster(node_conf => { b => 'concord.max_locks = 8' }, streaming => ['c'],
	conf => 'concord.lease_duration = 5s');
my %session = map { $_ => $cluster->session($_) } @nodes;
my ($at_a, $at_b, $at_c) = @session{@nodes};

# ---- exclusive, reentrant

my $fence = $at_a->get(lock_sql('x'));
cmp_ok($fence, '>', 0, 'a lock and its fence');
is($fence % 2, 0, 'of an exclusive holder');
is($at_b->get(q(SELECT concord.try_lock('x') IS NULL)), 't', 'nobody else gets it');
is($at_a->get(lock_sql('x')),                           $fence, 'its holder takes it again');
is($at_a->get(q(SELECT concord.try_lock('x', 'shared'))), $fence, 'also in mode shared');
is($at_a->get(q(SELECT concord.unlock('x'))), 't', 'and gives it back') for 1 .. 2;
is($at_b->get(q(SELECT concord.try_lock('x') IS NULL)), 't', 'it is still held');
is($at_a->get(q(SELECT concord.lock_remaining('x') BETWEEN '1 s' AND '5 s')), 't', 'for some time');
is($at_a->get(q(SELECT concord.unlock('x'))), 't', 'given back as often as taken');
is($at_a->get(q(SELECT concord.lock_remaining('x') IS NULL)), 't', 'a lock that is not held has no time left');
my $next = $at_b->get(q(SELECT concord.try_lock('x')));
cmp_ok($next, '>', $fence, 'another one gets it, with a higher fence');

# ---- modes

my $group = $at_a->get(lock_sql('s', 'shared'));
is($group % 2, 1, 'a shared holder\'s fence is odd');
is($at_b->get(lock_sql('s', 'shared')), $group, 'who joins gets the same');
is($at_c->get(q(SELECT concord.try_lock('s') IS NULL)), 't', 'no exclusive one beside shared ones');
is($at_c->get(q(SELECT concord.try_lock('s', 'shared'))), $group, 'any number of shared ones');
$cluster->expect_error($at_a, lock_sql('s'), '55006', qr/shared with other sessions/, 'no upgrade while others share it');
is($at_a->get(q(SELECT concord.try_lock('s') IS NULL)), 't', 'try_lock says that without an error');
is($_->get(q(SELECT concord.unlock('s'))), 't', 'two leave the group') for $at_b, $at_c;
my $upgraded = $at_a->get(lock_sql('s'));
cmp_ok($upgraded, '>', $group, 'the only one is made exclusive, with a new fence');
is($upgraded % 2, 0, 'of that mode');
is($at_b->get(q(SELECT concord.try_lock('s', 'shared') IS NULL)), 't', 'now nobody can join');
is($at_a->get('SELECT concord.unlock_all()'), 1, 'unlock_all counts names, however often they were taken');
is($at_b->get(q(SELECT concord.try_lock('s', 'shared') > 0)), 't', 'it is free');
$at_b->get(q(SELECT concord.unlock('s')));

# ---- the queue: shared ones wait behind an exclusive one, and are granted together

my %queue = map { $_ => $cluster->session(substr $_, 0, 1) } qw(a1 b1 c1 a2 b2);
my @order = ([ a1 => 'shared' ], [ b1 => 'exclusive' ], [ c1 => 'shared' ], [ a2 => 'shared' ], [ b2 => 'exclusive' ]);
$at_b->get(lock_sql('q', 'shared'));
$queue{a1}->get(lock_sql('q', 'shared'));
my $waiting = 0;
for my $one (@order[ 1 .. 4 ])
{
	$queue{ $one->[0] }->start(lock_sql('q', $one->[1]));
	await_queue($cluster, 'q', 2, ++$waiting, "$one->[0] waits, $one->[1]");
}
is($at_a->get(q(SELECT concord.try_lock('q', 'shared') IS NULL)), 't', 'a shared one does not overtake the queue');
my $event = q{SELECT DISTINCT wait_event_type, wait_event ~ '^(Extension|ConcordLock)$' FROM pg_stat_activity WHERE query LIKE '%concord.lock(''q''%' AND pid <> pg_backend_pid() AND state = 'active'};
is($cluster->get('c', $event), 'Extension|t', 'the wait is seen');
my @fences;
$at_b->get(q(SELECT concord.unlock('q')));
$queue{a1}->get(q(SELECT concord.unlock('q')));
push @fences, $queue{b1}->finish->{out};
ok(!(grep { $queue{$_}->busy } qw(b1)) && !(grep { !$queue{$_}->busy } qw(c1 a2 b2)), 'the exclusive one first, alone');
$queue{b1}->get(q(SELECT concord.unlock('q')));
my @shared = map { $queue{$_}->finish->{out} } qw(c1 a2);
push @fences, $shared[0];
is($shared[0], $shared[1], 'then both shared ones, of one group');
ok($queue{b2}->busy, 'while the last one waits');
$queue{c1}->get(q(SELECT concord.unlock('q')));
await_queue($cluster, 'q', 1, 1, 'one of the group has left');
ok($queue{b2}->busy, 'it waits for all of the group');
$queue{a2}->get(q(SELECT concord.unlock('q')));
push @fences, $queue{b2}->finish->{out};
is("@fences", join(' ', sort { $a <=> $b } @fences), 'fences grow in the order of the grants');
$_->quit for values %queue;
await_queue($cluster, 'q', 0, 0, 'sessions that ended have given back what they had');

# ---- who is told by another node's message has the same fence as who reads the register

$at_a->get(lock_sql('told'));
my $told = $cluster->session('b');
$told->start(lock_sql('told', 'shared'));
await_queue($cluster, 'told', 1, 1, 'b waits');
$at_a->get(q(SELECT concord.unlock('told')));
my $told_fence = $told->finish->{out};
is($at_c->get(q(SELECT concord.try_lock('told', 'shared'))), $told_fence, 'a group has one fence');
$told->quit;
$at_c->get(q(SELECT concord.unlock('told')));

# ---- how long to wait

$cluster->expect_error($at_a, lock_sql('x', 'exclusive', q('300 ms')), '55P03', qr/"x" was not granted in time/, 'the limit of the wait', within => 5);
$cluster->expect_error($at_a, lock_sql('x', 'exclusive', q('0')), '55P03', qr/"x" was not granted in time/, 'no wait at all', within => 5);
is($at_a->get(lock_sql('free', 'exclusive', q('0')) . ' > 0'), 't', 'it is granted without a wait if it is free');
$at_a->get(q(SELECT concord.unlock('free')));
$at_a->get(q(SET lock_timeout = '300ms'));
$cluster->expect_error($at_a, lock_sql('x'), '55P03', qr/"x" was not granted in time/, 'lock_timeout', within => 5);
$at_a->get('RESET lock_timeout');
$at_a->get(q(SET statement_timeout = '300ms'));
$cluster->expect_error($at_a, lock_sql('x'), '57014', qr/statement timeout/, 'statement_timeout', within => 5);
$at_a->get('RESET statement_timeout');
$at_a->start(lock_sql('x'));
await_queue($cluster, 'x', 1, 1, 'a waits');
$cluster->cancel($at_a);
$cluster->expect_failed($at_a->finish, '57014', qr/user request/, 'a wait that is cancelled');
await_queue($cluster, 'x', 1, 0, 'who gave up is not in the queue any more');

# ---- bad input

$cluster->expect_error($at_a, lock_sql('x', 'exclusive', q('-1 s')), '22023', qr/wait must not be negative/, 'a negative wait');
$cluster->expect_error($at_a, lock_sql('y', 'exclusive', "NULL, '$_'"), '22023', qr/lease must be between/, "a lease of $_") for '9 ms', '0', '-1 s', '25 hours';
$cluster->expect_error($at_a, lock_sql(''), '22023', qr/name/, 'an empty name');
$cluster->expect_error($at_a, lock_sql('n' x 256), '22023', qr/name/, 'a name of 256 bytes');
is($at_a->get(lock_sql('n' x 255) . ' > 0'), 't', 'a name of 255 bytes');
is($at_a->get(q(SELECT concord.unlock(repeat('n', 255)))), 't', 'is given back');
$cluster->expect_error($at_a, 'SELECT concord.lock(NULL)', '22004', qr/name/, 'NULL as a name');
$cluster->expect_error($at_a, q(SELECT concord.lock('x', 'sideways')), '22023', qr/mode/, 'an unknown mode');
my $result = $at_a->run(q(SELECT concord.unlock('x')));
is($result->{out}, 'f', 'what is not held cannot be given back');
like($result->{stderr}, qr/WARNING:.*you don't own lock "x"/, 'with a warning');
is($at_a->get('SELECT concord.unlock_all()'), 0, 'there is nothing to give back');

# ---- where it cannot be taken

$cluster->expect_error($at_a, "BEGIN READ ONLY; " . lock_sql('y') . ';', '25006', qr/read-only/, 'a read-only transaction');
$at_a->get('ROLLBACK');
$cluster->get('a', 'CREATE DATABASE other');
$cluster->get('a', 'CREATE EXTENSION pg_concord', undef, dbname => 'other');
$cluster->expect_error('a', lock_sql('y'), '55000', qr/not a member|member of/, 'no member of a cluster', dbname => 'other');

# ---- transactions

$at_a->get('BEGIN');
my $kept = $at_a->get(lock_sql('t'));
$at_a->get('ROLLBACK');
is($at_b->get(q(SELECT concord.try_lock('t') IS NULL)), 't', 'a rollback gives nothing back');
is($at_a->get(lock_sql('t')), $kept, 'it is still held');
is($at_a->get(q(DO $$ BEGIN BEGIN PERFORM concord.lock('u'); RAISE 'x'; EXCEPTION WHEN raise_exception THEN NULL; END; END $$)), '', 'nor does a subtransaction that is rolled back');
is($at_b->get(q(SELECT concord.try_lock('u') IS NULL)), 't', 'of a lock that was taken in it');
is($at_b->get(q(CREATE FUNCTION try_long() RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM concord.lock('u', wait => '200 ms'); RETURN 'got'; EXCEPTION WHEN lock_not_available THEN RETURN 'late'; END $$; SELECT try_long())), 'late', 'an error of a wait can be caught');
is($at_a->get('SELECT concord.unlock_all()'), 2, 'all are given back');
$at_a->get(lock_sql('t'));
$at_a->get('DISCARD ALL');
is($at_b->get(q(SELECT concord.try_lock('t') > 0)), 't', 'DISCARD ALL gives back');
$at_b->get(q(SELECT concord.unlock('t')));

# ---- snapshots

$cluster->get($_, 'CREATE TABLE counter (n int)') for @nodes;
$cluster->get('a', 'INSERT INTO counter VALUES (0)');
$at_b->get(lock_sql('r'));
$at_a->get('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT n FROM counter;');
$at_a->start(lock_sql('r'));
await_queue($cluster, 'r', 1, 1, 'a waits under a snapshot that stays');
$at_b->get(q(SELECT concord.unlock('r')));
$cluster->expect_failed($at_a->finish, '40001', qr/snapshot was taken before lock "r" was granted/, 'it is of no use then');
$at_a->get('ROLLBACK');
is($at_b->get(q(SELECT concord.try_lock('r') > 0)), 't', 'and the lock was given back');
my $a2 = $cluster->session('a', options => '-c default_transaction_isolation=repeatable\ read');
$a2->start(q(CALL concord.acquire('r')));
await_queue($cluster, 'r', 1, 1, 'acquire waits');
$cluster->get('a', 'UPDATE counter SET n = n + 1');
$at_b->get(q(SELECT concord.unlock('r')));
cmp_ok($a2->finish->{out}, '>', 0, 'acquire gives the fence');
is($a2->get('SELECT n FROM counter'), 1, 'what was committed before is seen');
$a2->get(q(SELECT concord.unlock('r')));
$cluster->expect_error($a2, q(BEGIN; CALL concord.acquire('r');), '25001', qr/whose snapshot stays/, 'not within such a transaction');
$a2->get('ROLLBACK');
$cluster->expect_error($a2, q(DO $$ DECLARE f bigint; BEGIN CALL concord.acquire('r', fence => f); END $$), '25001', qr/whose snapshot stays/, 'nor within a block of code there');
$a2->quit;
$at_a->get('BEGIN');
cmp_ok($at_a->get(q(CALL concord.acquire('r'))), '>', 0, 'under READ COMMITTED also within a transaction');
$at_a->get('COMMIT');
$at_a->get(q(SELECT concord.unlock('r')));
$cluster->get('a', q(CREATE FUNCTION calls() RETURNS void LANGUAGE plpgsql AS $$ DECLARE f bigint; BEGIN CALL concord.acquire('r', fence => f); END $$));
$cluster->expect_error($at_a, 'SELECT calls()', '25001', qr/within a query or a function/, 'not within a function');

# ---- a lock's own limit

$at_a->get('SET concord.on_lock_loss = nothing');
my $short = $at_a->get(lock_sql('x2', 'exclusive', q(NULL, '1 s')));
is($at_a->get(q(SELECT concord.lock_remaining('x2') BETWEEN '0.1 s' AND '1 s')), 't', 'a lock that is held for a second');
$at_b->start(lock_sql('x2'));
cmp_ok($at_b->finish->{out}, '>', $short, 'goes to the next one when that is over');
is($at_a->get(q(SELECT concord.lock_remaining('x2'))), '00:00:00', 'who had it can see that');
$cluster->expect_error($at_a, 'UPDATE counter SET n = 99', 'PC008', qr/lock "x2" was lost/, 'and can commit nothing that he wrote');
$cluster->expect_error($at_a, lock_sql('x2'), 'PC008', qr/lock "x2" was lost/, 'nor take it once more');
is($at_a->get('SELECT n FROM counter'), 1, 'reading is no harm');
$cluster->expect_error($at_a, q(BEGIN; UPDATE counter SET n = 99; PREPARE TRANSACTION 'p';), 'PC008', qr/lock "x2" was lost/, 'nor prepare');
$at_a->get('ROLLBACK');
$cluster->get('b', 'INSERT INTO counter VALUES (0)');
$cluster->expect_error($at_a, q(SELECT concord.execute_on('b', 'UPDATE counter SET n = 99')), 'PC008', qr/lock "x2" was lost/, 'nor write on another node by a statement alone');
$cluster->expect_error($at_a, q(BEGIN; SELECT concord.execute_on('b', 'UPDATE counter SET n = 99'); COMMIT;), 'PC008', qr/lock "x2" was lost/, 'nor in a transaction that wrote nothing here');
is($cluster->get('b', 'SELECT n FROM counter'), 0, 'nothing was written there');
is($at_a->get(q(SELECT concord.unlock('x2'))), 't', 'until it lets go of it');
is($at_a->get('UPDATE counter SET n = 2 RETURNING n'), 2, 'then it writes');
$at_b->get(q(SELECT concord.unlock('x2')));

# ---- there is no room for any number of them

$at_b->get(q(SELECT concord.unlock_all()));
is($at_b->get(q(SELECT count(concord.lock('m' || i)) FROM generate_series(1, 8) i)), 8, 'concord.max_locks locks');
$cluster->expect_error($at_b, lock_sql('m9'), '53200', qr/too many lease locks/, 'and no more');
is($at_b->get('SELECT concord.unlock_all()'), 8, 'they are given back');
is($at_b->get(q(SELECT count(concord.lock('m' || i)) FROM generate_series(9, 16) i)), 8, 'there is room again');
$at_b->get('SELECT concord.unlock_all()');

# ---- a standby

$cluster->add_standby('c', 'c1');
$cluster->expect_error('c1', lock_sql('x'), '25006', qr/recovery/, 'not on a standby');
$cluster->expect_error('c1', q(SELECT concord.try_lock('x')), '25006', qr/recovery/, 'nor without a wait');

$_->quit for values %session;
$cluster->no_leftovers;
done_testing();
