
# Every commit that wrote tells its position in the same answer, and nothing else does.

use strict;
use warnings;

use ConcordTest;
use ConcordToken;
use ConcordWire;
use Test::More;

my $cluster = ConcordTest->new(nodes => [qw(a b)], conf => "autovacuum = off");
my $node = $cluster->node('a');
my $w = ConcordWire->new($node);
my $other = ConcordWire->new($node);

$w->get($_)
  for (
	'CREATE EXTENSION pg_walinspect',
	'CREATE TABLE t (id int PRIMARY KEY, v int)',
	'CREATE TABLE later (v int UNIQUE DEFERRABLE INITIALLY DEFERRED)',
	'CREATE UNLOGGED TABLE unlogged (v int)',
	'INSERT INTO later VALUES (1)',
	'CREATE PROCEDURE twice(i int) LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO t VALUES (i); COMMIT; INSERT INTO t VALUES (i + 1); COMMIT; END $$',
	'CREATE PROCEDURE once(i int) LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO t VALUES (i); COMMIT; PERFORM count(*) FROM t; END $$');

my $id = 0;
sub insert { return 'INSERT INTO t VALUES (' . ++$id . ')'; }

# End of the last commit record since, as the server's own reader of WAL sees it
sub last_commit
{
	my ($since) = @_;
	# a record that is not flushed yet cannot be read
	$other->get('SET concord.track = off');
	my $until = $other->get('SELECT pg_current_wal_insert_lsn()');
	await(
		sub {
			$other->get("SELECT pg_current_wal_flush_lsn() >= '$until'") eq 't';
		},
		20);
	return $other->get("SELECT end_lsn FROM pg_get_wal_records_info('$since',
		pg_current_wal_flush_lsn()) WHERE resource_manager = 'Transaction'
		AND record_type LIKE 'COMMIT%' ORDER BY end_lsn DESC LIMIT 1");
}

# ---------------------------------------------------------------- what tells

sub tells
{
	my ($name, $code, %arg) = @_;
	my $since = $other->get('SELECT pg_current_wal_insert_lsn()');
	my $before = $w->token;
	my $r = $code->();
	subtest $name => sub {
		is($r->{ok}, $arg{fails} ? 0 : 1, 'outcome') or diag($r->{stderr});
		isnt($r->{token}, undef, 'reported with the answer') or return;
		isnt($r->{token}, $before, 'another one');
		my @positions = positions($r->{token});
		is(scalar @positions, 1, 'one position');
		my $p = $positions[0];
		is("$p->{node}.$p->{generation}:$p->{timeline}", '1.1:1', 'of this node');
		is($p->{xid}, undef, 'of no branch');
		is($p->{lsn}, last_commit($since), "the commit record's end");
		is($w->get('SHOW concord.token'), $r->{token}, 'the setting is what was reported');
		is($w->get('SELECT concord.token()'), $r->{token}, 'so is token()');
		is($w->get("SELECT concord.covers('$r->{token}')"), 't', 'it is covered here');
	};
	return;
}

sub query
{
	my (@sql) = @_;
	return sub {
		my $r;
		$r = $w->run($_) for @sql;
		return $r;
	};
}

tells('INSERT', query(insert()));
tells('UPDATE', query('UPDATE t SET v = 1'));
tells('SELECT FOR UPDATE', query('SELECT * FROM t WHERE id = 1 FOR UPDATE'));
tells('DDL', query('CREATE TABLE made (i int)'));
tells('an unlogged table', query('INSERT INTO unlogged VALUES (1)'));
tells('a block', query('BEGIN', insert(), insert(), 'COMMIT'));
tells('COMMIT AND CHAIN', query('BEGIN', insert(), 'COMMIT AND CHAIN'));
$w->get('ROLLBACK');
tells('a savepoint rolled back', query('BEGIN', insert(), 'SAVEPOINT s', insert(),
	'ROLLBACK TO s', 'COMMIT'));
tells('several statements', query(insert() . ';' . insert()));
tells('a read after the write', query(insert() . '; SELECT count(*) FROM t'));
tells(
	'blocks within the statements',
	query(join ';', 'BEGIN', insert(), 'COMMIT', 'BEGIN', insert(), 'ROLLBACK', 'SELECT 1'));
tells(
	'a failure after a commit',
	query(join ';', 'BEGIN', insert(), 'COMMIT', 'SELECT 1/0'),
	fails => 1);
tells('DO with COMMIT', query('DO $$ BEGIN ' . insert() . '; COMMIT; ' . insert() . '; END $$'));
tells('a procedure with COMMIT', query('CALL twice(1001)'));
tells('a procedure that reads after it', query('CALL once(1003)'));
tells('the extended protocol', sub { $w->pipeline([ 'INSERT INTO t VALUES ($1)', ++$id ]) });
tells('a pipeline', sub { $w->pipeline([insert()], ['SELECT 1'], [insert()], ['SELECT 2']) });
tells(
	'a block in a pipeline',
	sub { $w->pipeline(['BEGIN'], [insert()], ['COMMIT'], ['SELECT 1']) });
tells('COPY', query('COPY t (id) FROM PROGRAM \'echo ' . ++$id . '\''));
tells('synchronous_commit = off', query('SET synchronous_commit = off', insert()));
$w->get('RESET synchronous_commit');
$w->get($_) for ('BEGIN', insert(), q(PREPARE TRANSACTION 'mine'));
tells('COMMIT PREPARED', query(q(COMMIT PREPARED 'mine')));
$other->get($_) for ('BEGIN', insert(), q(PREPARE TRANSACTION 'theirs'));
tells("another session's COMMIT PREPARED", query(q(COMMIT PREPARED 'theirs')));

# ---------------------------------------------------------------- what does not

sub silent
{
	my ($name, @sql) = @_;
	my $before = $w->token;
	my @told;
	for (@sql) { push @told, @{ $w->run($_)->{tokens} }; }
	is_deeply(\@told, [], "not reported: $name");
	is($w->get('SHOW concord.token'), $before, "not changed: $name");
	return is($w->token, $before, "nor reported later: $name");
}

silent('a read', 'SELECT count(*) FROM t');
silent('a block that reads', 'BEGIN', 'SELECT count(*) FROM t', 'COMMIT');
silent('ROLLBACK', 'BEGIN', insert(), 'ROLLBACK');
silent('an error', 'INSERT INTO t VALUES (1)');
silent('an error in a block', 'BEGIN', insert(), 'SELECT 1/0', 'COMMIT');
silent('an error at COMMIT', 'BEGIN', 'INSERT INTO later VALUES (1)', 'COMMIT');
silent('statements of which one fails', insert() . '; SELECT 1/0');
silent('PREPARE TRANSACTION', 'BEGIN', insert(), q(PREPARE TRANSACTION 'mine'));
silent('ROLLBACK PREPARED', q(ROLLBACK PREPARED 'mine'));
silent('COMMIT PREPARED of nothing', q(COMMIT PREPARED 'nothing'));
silent("another session's write", 'SELECT 1');
silent('SET', 'SET work_mem = 1024', 'RESET work_mem');
silent('covers', q(SELECT concord.covers(concord.token())));
$other->get(insert());
silent("a read of another session's write", "SELECT * FROM t WHERE id = $id");
{
	my $before = $w->token;
	my $r = $w->run('BEGIN');
	$r = $w->run(insert());
	is($r->{token}, undef, 'nothing before COMMIT');
	is($w->get('SHOW concord.token'), $before, 'not even in the session');
	isnt($w->run('COMMIT')->{token}, undef, 'but with it');
}

# ---------------------------------------------------------------- concord.track

$w->get('SET concord.track = off');
silent('a write, track = off', insert());
$w->get('SET concord.track = reads');
$other->get("SET concord.track = writes");
my $theirs = $other->run(insert())->{token};
my $r = $w->run("SELECT count(*) FROM t WHERE id = $id");
is($r->{out}, 1, 'what the other session wrote is seen');
cmp_ok(
	lsn_number(position($r->{token})->{lsn}),
	'>=',
	lsn_number(position($theirs)->{lsn}),
	'track = reads: a read tells what it may have seen');
tells('track = reads', query(insert()));
$other->get(insert());
is($w->run('SELECT 1/0')->{token}, undef, 'track = reads: not one that fails');
my $mine = $w->token;
$w->get('BEGIN');
is($w->run('SELECT count(*) FROM t')->{token}, undef, 'track = reads: nothing before COMMIT');
$r = $w->run('COMMIT');
isnt($r->{token}, $mine, 'but with it');
$w->get('RESET concord.track');
silent('a read, track = writes again', 'SELECT count(*) FROM t');

# ---------------------------------------------------------------- the session's token

# other nodes' positions stay, this node's is raised
my $there = with_position($w->token, node => 2, lsn => '0/100');
my $both = $w->token . ';2.1:1/0/100';
is($w->run("SET concord.token = '$there'")->{token}, $there, 'it replaces what was');
$r = $w->run(insert());
is(scalar(positions($r->{token})), 2, 'a write adds its node');
is(position($r->{token}, 2)->{lsn}, '0/100', "another node's position stays");
cmp_ok(
	lsn_number(position($r->{token})->{lsn}),
	'>',
	lsn_number(position($both)->{lsn}),
	"this node's is its commit's");
$r = $w->run(insert());
is(scalar(positions($r->{token})), 2, 'and again');

# what was set in a transaction that is undone is undone
my $now = $w->token;
$w->get($_) for ('BEGIN', "SET concord.token = '$there'");
is($w->run('ROLLBACK')->{token}, $now, 'ROLLBACK brings the token back');
$w->get($_) for ('BEGIN', "SET LOCAL concord.token = '$there'");
is($w->run('COMMIT')->{token}, $now, 'so does the end of SET LOCAL');

for my $blank (
	'RESET concord.token',
	'DISCARD ALL',
	'RESET ALL',
	'SET concord.token TO DEFAULT',
	q(SET concord.token = ''),
	q(SELECT set_config('concord.token', '', false)))
{
	$w->get(insert());
	is($w->run($blank)->{token},             '', "$blank: reported");
	is($w->get('SELECT concord.token() IS NULL'), 't', "$blank: there is none");
	is($w->run('SELECT count(*) FROM t')->{ok}, 1, "$blank: the session goes on");
}
is(scalar(positions($w->run(insert())->{token})), 1, 'it starts anew');
isnt($w->token, $other->token, "sessions' tokens are their own");

$_->quit for $w, $other;
$cluster->no_leftovers;
done_testing();
