
# The remote part of a transaction follows the local one: isolation, read-only, savepoints,
# exceptions, and several writing nodes, which commit together or not at all.

use strict;
use warnings;

use ConcordTest;
use Test::More;

my @nodes = qw(a b c);
my $cluster = ConcordTest->new(nodes => \@nodes);
for my $name (@nodes)
{
	$cluster->get($name, $_)
	  for (
		'CREATE TABLE t (v int PRIMARY KEY)',
		'CREATE TABLE child (v int REFERENCES t DEFERRABLE INITIALLY DEFERRED)',
		'CREATE TABLE log (v text)');
}

sub on
{
	my ($name, $sql) = @_;
	return "SELECT concord.execute_on('$name', '$sql')";
}

sub insert
{
	my ($name, $v) = @_;
	return on($name, "INSERT INTO t VALUES ($v)");
}

sub rows
{
	return $cluster->get($_[0], q(SELECT coalesce(string_agg(v::text, ',' ORDER BY v), '') FROM t));
}
sub clear { $cluster->get($_, 'TRUNCATE t, child, log') for @nodes; return; }

my $session = $cluster->session('a');

# isolation and read-only
for my $level ('read committed', 'repeatable read', 'serializable')
{
	$session->get("BEGIN ISOLATION LEVEL $level");
	is( $session->get(
			q(SELECT x FROM concord.query_on('b', 'SHOW transaction_isolation') AS (x text))),
		$level,
		"$level is carried over");
	$session->get('COMMIT');
}
$session->get(q(SET default_transaction_isolation = 'repeatable read'));
is( $session->get(q(SELECT x FROM concord.query_on('b', 'SHOW transaction_isolation') AS (x text))),
	'repeatable read',
	'from default_transaction_isolation as well');
$session->get('RESET default_transaction_isolation');
$session->get('BEGIN ISOLATION LEVEL REPEATABLE READ');
is($session->get(q(SELECT x FROM concord.query_on('b', 'SELECT count(*) FROM t') AS (x bigint))),
	0, 'a snapshot');
$cluster->get('b', 'INSERT INTO t VALUES (1)');
is($session->get(q(SELECT x FROM concord.query_on('b', 'SELECT count(*) FROM t') AS (x bigint))),
	0, 'stays');
$session->get('COMMIT');
is($session->get(q(SELECT x FROM concord.query_on('b', 'SELECT count(*) FROM t') AS (x bigint))),
	1, 'and ends');
$session->get('BEGIN READ ONLY');
$cluster->expect_error($session, insert('b', 2),
	'25006', qr/read-only/, 'READ ONLY is carried over');
$session->run('ROLLBACK');
$session->get('BEGIN');
is($session->get(insert('b', 2)), 1, 'READ WRITE at first');
$session->get('SET TRANSACTION READ ONLY');
$cluster->expect_error($session, insert('b', 3), '25006', qr/read-only/, 'then READ ONLY');
$session->run('ROLLBACK');
$session->get('SET default_transaction_read_only = on');
$cluster->expect_error($session, insert('b', 2),
	'25006', qr/read-only/, 'from default_transaction_read_only as well');
$session->get('RESET default_transaction_read_only');
is(rows('b'), '1', 'nothing was written');
clear();

# commit and rollback
$session->get('BEGIN');
$session->get(insert('b', 1));
is(rows('b'), '', 'not seen by others before COMMIT');
$session->get('COMMIT');
is(rows('b'), '1', 'seen after it');
$session->get('BEGIN');
$session->get(insert('b', 2));
$session->get('ROLLBACK');
$session->run(
	'BEGIN; SELECT concord.execute_on(\'b\', \'INSERT INTO t VALUES (3)\'); SELECT 1/0; COMMIT');
$session->run('ROLLBACK');
is(rows('b'), '1', 'rolled back with the rest');
$session->get('BEGIN');
$cluster->expect_error($session, insert('b', 1), '23505', qr/node "b"/, 'an error there');
$cluster->expect_error($session, insert('b', 4), '25P02', qr/aborted/, 'aborts here');
$session->run('COMMIT');
is($session->get(insert('b', 5)), 1, 'and the next transaction works');
is(rows('b'), '1,5', 'as it says');
clear();

# savepoints
$session->get($_)
  for (
	'BEGIN',
	insert('b', 1),
	'SAVEPOINT s1',
	insert('b', 2),
	'SAVEPOINT s2',
	insert('b', 3),
	'ROLLBACK TO s2',
	insert('b', 4),
	'RELEASE s2',
	insert('b', 5));
is( $session->get(
		q(SELECT string_agg(x::text, ',') FROM concord.query_on('b', 'SELECT v FROM t ORDER BY v') AS (x int))
	),
	'1,2,4,5',
	'ROLLBACK TO and RELEASE');
$session->get($_) for ('SAVEPOINT s3', insert('b', 6), 'ROLLBACK TO s1', insert('b', 7), 'COMMIT');
is(rows('b'), '1,7', 'an outer savepoint takes the inner ones along');
clear();
$session->get($_)
  for (
	'BEGIN',
	'SAVEPOINT s1',
	'SAVEPOINT s2',
	insert('b', 1),
	'RELEASE s2',
	'ROLLBACK TO s1',
	insert('b', 2),
	'RELEASE s1',
	'SAVEPOINT s4',
	insert('b', 3),
	'RELEASE s4',
	'COMMIT');
is(rows('b'), '2,3', 'a branch that began within a savepoint');
clear();
$session->get($_) for ('BEGIN', 'SAVEPOINT s1', insert('b', 1));
$cluster->expect_error($session, insert('b', 1),
	'23505', qr/node "b"/, 'an error within a savepoint');
$session->get($_) for ('ROLLBACK TO s1', insert('b', 2), 'COMMIT');
is(rows('b'), '2', 'is undone with it');
clear();
$session->get($_)
  for (
	'BEGIN',
	insert('b', 0),
	(map { ("SAVEPOINT d$_", insert('b', $_)) } 1 .. 20),
	'ROLLBACK TO d11', 'COMMIT');
is(rows('b'), join(',', 0 .. 10), 'twenty levels');
clear();
# a savepoint that only the local side needs costs nothing there, and an error local to it undoes
# nothing there
$session->get($_) for ('BEGIN', insert('b', 1), 'SAVEPOINT s');
$cluster->expect_error($session, 'SELECT 1/0', '22012', qr/division/,
	'a local error within a savepoint');
$session->get($_) for ('ROLLBACK TO s', insert('b', 2), 'COMMIT');
is(rows('b'), '1,2', 'leaves the rest');
clear();

# PL/pgSQL
$session->get(<<'SQL');
	DO $$
	BEGIN
		PERFORM concord.execute_on('b', 'INSERT INTO t VALUES (1)');
		FOR i IN 1..5 LOOP
			BEGIN
				PERFORM concord.execute_on('b', 'INSERT INTO t VALUES ($1)', i);
				PERFORM concord.execute_on('b', 'INSERT INTO log VALUES ($1)', i::text);
				IF i = 4 THEN
					RAISE EXCEPTION 'never mind' USING ERRCODE = 'ZZ001';
				END IF;
			EXCEPTION
				WHEN unique_violation THEN PERFORM concord.execute_on('b', 'INSERT INTO log VALUES ($1)', 'double ' || i);
				WHEN SQLSTATE 'ZZ001' THEN NULL;
			END;
		END LOOP;
	END $$
SQL
is(rows('b'), '1,2,3,5', 'EXCEPTION blocks are savepoints there');
is( $cluster->get('b', q(SELECT string_agg(v, ',' ORDER BY v) FROM log)),
	'2,3,5,double 1',
	'each undoes its own part');
clear();
my $r = $session->run(<<'SQL');
	DO $$
	DECLARE state text; message text;
	BEGIN
		PERFORM concord.execute_on('b', 'INSERT INTO t VALUES (1), (1)');
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = CONSTRAINT_NAME;
		RAISE NOTICE 'caught % %', state, message;
	END $$
SQL
like($r->{stderr}, qr/caught 23505 t_pkey/, 'diagnostics of a remote error');
$session->get(
	'CREATE PROCEDURE two_steps() LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM concord.execute_on(\'b\', \'INSERT INTO t VALUES (1)\');
		COMMIT;
		PERFORM concord.execute_on(\'c\', \'INSERT INTO t VALUES (2)\');
		ROLLBACK;
		PERFORM concord.execute_on(\'c\', \'INSERT INTO t VALUES (3)\');
	END $$');
$session->get('CALL two_steps()');
is(join(' ', map { "$_=" . rows($_) } @nodes), 'a= b=1 c=3', 'COMMIT and ROLLBACK in a procedure');
clear();
$session->get(<<'SQL');
	DO $$
	BEGIN
		FOR i IN 1..4 LOOP
			PERFORM concord.execute_all('INSERT INTO t VALUES ($1)', i);
			IF i % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF;
		END LOOP;
		PERFORM concord.execute_all('INSERT INTO t VALUES (5)');
	END $$
SQL
is(join(' ', map { "$_=" . rows($_) } @nodes), 'a=2,4,5 b=2,4,5 c=2,4,5', 'on all nodes, in DO');
clear();

# deferred constraints fail at COMMIT, there
$session->get('BEGIN');
$session->get(on('b', 'INSERT INTO child VALUES (1)'));
$cluster->expect_error(
	$session, 'COMMIT', '23503',
	qr/child_v_fkey.*node "b"/s,
	'a deferred constraint fails at COMMIT');
$cluster->expect_error(
	$session, on('b', 'INSERT INTO child VALUES (1)'),
	'23503',
	qr/child_v_fkey.*node "b"/s,
	'and in autocommit');
$cluster->is_sql('b', 'SELECT count(*) FROM child', 0, 'nothing is there');
is($session->get(insert('b', 1)), 1, 'the session goes on');
clear();

# several writing nodes: all or none
sub everywhere { return join(' ', map { "$_=" . rows($_) } @nodes); }
my %several = (
	'two remote'           => [ [ insert('b', 1), insert('c', 2) ], 'a= b=1 c=2' ],
	'remote, then local'   => [ [ insert('b', 1), 'INSERT INTO t VALUES (2)' ], 'a=2 b=1 c=' ],
	'local, then remote'   => [ [ 'INSERT INTO t VALUES (1)', insert('b', 2) ], 'a=1 b=2 c=' ],
	'local by a function'  => [ [ insert('a', 1), insert('b', 2) ], 'a=1 b=2 c=' ],
	'all at once'          => [ [q(SELECT * FROM concord.execute_all('INSERT INTO t VALUES (1)'))], 'a=1 b=1 c=1' ],
	'after a savepoint'    => [ [ 'SAVEPOINT s', insert('b', 1), 'RELEASE s', 'SAVEPOINT s', insert('c', 2) ], 'a= b=1 c=2' ],
	'savepoints undone'    => [ [ insert('b', 1), insert('c', 1), 'SAVEPOINT s', insert('b', 2), insert('a', 2), 'ROLLBACK TO s', insert('c', 3) ],
		'a= b=1 c=1,3' ],
	'within one statement' => [ [q(SELECT concord.execute_on(n, 'INSERT INTO t VALUES (1)') FROM unnest('{b,c}'::name[]) n)],
		'a= b=1 c=1' ]);
for my $name (sort keys %several)
{
	my ($sql, $expected) = @{ $several{$name} };
	for my $read ('', ', read first')
	{
		for my $end (qw(COMMIT ROLLBACK error), 'constraint on b', 'constraint on a')
		{
			$session->get('BEGIN');
			$session->get(q(SELECT * FROM concord.query_all('SELECT count(*) FROM t') AS (x bigint))) if $read;
			$session->get($_) for @$sql;
			is(everywhere(), 'a= b= c=', "$name$read: not seen by others before $end") if $end eq 'COMMIT';
			if ($end eq 'error') { $session->run('SELECT 1/0'); $session->run('COMMIT'); }
			elsif ($end =~ /constraint on (.)/)
			{
				$session->get(on($1, 'INSERT INTO child VALUES (99)'));
				$cluster->expect_error($session, 'COMMIT', '23503', qr/child_v_fkey/, "$name$read: $end fails at COMMIT");
			}
			else { $session->get($end); }
			is(everywhere(), $end eq 'COMMIT' ? $expected : 'a= b= c=', "$name$read: $end, everywhere");
			clear();
		}
	}
}
$session->get(q(SELECT * FROM concord.execute_all('INSERT INTO t VALUES (1)')));
is(everywhere(), 'a=1 b=1 c=1', 'in autocommit as well');
$cluster->expect_error($session, q(SELECT * FROM concord.execute_all('INSERT INTO child VALUES (99)')), '23503',
	qr/child_v_fkey/, 'with the error of whoever has one');
is($session->get(q(SELECT count(*) FROM concord.query_all('SELECT v FROM child') AS (x int))), 0, 'and nothing is there');
clear();
# reading is free, and a writer may read from the others
$session->get('BEGIN');
is($session->get(q(SELECT count(*) FROM concord.query_all('SELECT 1') AS (x int))),
	3, 'all are read');
$session->get(insert('c', 1));
is( $session->get(q(SELECT sum(x) FROM concord.query_all('SELECT count(*) FROM t') AS (x bigint))),
	1, 'all are read again');
$session->get(insert('c', 2));
$session->get('COMMIT');
is(everywhere(), 'a= b= c=1,2', 'one writing node');
$session->get('BEGIN');
$session->get('INSERT INTO t VALUES (1)');
is( $session->get(q(SELECT sum(x) FROM concord.query_all('SELECT count(*) FROM t') AS (x bigint))),
	3, 'a local writer reads from all');
$session->get('COMMIT');
is(rows('a'), '1', 'and commits');
# what was rolled back was not written
$session->get($_) for ('BEGIN', 'SAVEPOINT s', 'INSERT INTO t VALUES (5)', 'ROLLBACK TO s');
$session->get($_) for (insert('b', 5), 'COMMIT');
is(everywhere(), 'a=1 b=5 c=1,2', 'a local write that was undone');
clear();

# this session's own PREPARE TRANSACTION cannot take a branch along
$session->get('BEGIN');
$session->get(insert('b', 1));
$cluster->expect_error($session, q(PREPARE TRANSACTION 'mine'), '0A000', qr/other nodes/, 'PREPARE TRANSACTION is refused');
$session->run('ROLLBACK');
is(rows('b'), '', 'nothing is there');
$cluster->is_sql('a', 'SELECT count(*) FROM pg_prepared_xacts', 0, 'nor prepared');

# what is the whole transaction commits by itself, and is what it would be with BEGIN and COMMIT
is($session->get(on('b', 'SELECT 1')), 1, 'a connection that is known');
is($session->get(insert('b', 1)), 1, 'a write');
$cluster->expect_error($session, insert('b', 1), '23505', qr/t_pkey/, 'an error');
$cluster->expect_error($session, on('b', 'INSERT INTO child VALUES (99)'), '23503', qr/child_v_fkey/,
	'an error at its end');
is($session->get(on('b', 'SELECT 1')), 1, 'the session goes on');
is(rows('b'), '1', 'only what succeeded is there');
$cluster->get('b', q(CREATE FUNCTION note(text) RETURNS text LANGUAGE sql VOLATILE AS 'INSERT INTO log VALUES ($1) RETURNING v'));
for my $round (1 .. 3)
{
	is($session->get(on('b', "SELECT note(''e$round'')")), 1, 'a SELECT that writes');
	is($session->get("SELECT x FROM concord.query_on('b', 'SELECT note(''q$round'')') AS (x text)"), "q$round", 'with rows');
	$cluster->expect_error($session, "SELECT x FROM concord.query_on('b', 'SELECT note(''bad'')') AS (x int)",
		'42804', qr/int|type/, 'that are not those declared');
	$cluster->expect_error($session, "SELECT x FROM concord.query_on('b', 'INSERT INTO log VALUES (''bad'') RETURNING v') AS (x int)",
		'42804', qr/int|type/, 'nor are those of an INSERT');
}
is($cluster->get('b', q(SELECT string_agg(v, ',' ORDER BY v) FROM log)), 'e1,e2,e3,q1,q2,q3', 'each was done once, or not');
$cluster->get('b', 'DROP FUNCTION note(text)');
# what a statement sets in the session does not outlive it, defaults of the role there do not matter
for my $setting ([ 'search_path', 'pg_catalog' ], [ 'default_transaction_read_only', 'on' ], [ 'default_transaction_isolation', 'serializable' ])
{
	my ($name, $value) = @$setting;
	is($session->get(on('b', "SELECT set_config(''$name'', ''$value'', false)")), 1, "$name is set");
	is($session->get(on('b', 'UPDATE t SET v = v')), 1, 'which does not hold for the next statement');
	$cluster->get('b', "ALTER ROLE CURRENT_USER SET $name = '$value'");
	$session->get('SELECT concord.close_connections()');
	is($session->get(on('b', 'UPDATE t SET v = v')), 1, "$name is set for the role");
	is($session->get(on('b', 'UPDATE t SET v = v')), 1, 'which does not hold for what comes from another node');
	is( $session->get(q(SELECT x FROM concord.query_on('b', 'SELECT current_setting(''transaction_isolation'')') AS (x text))),
		'read committed', 'nor does the level');
	$cluster->get('b', "SET default_transaction_read_only = off; ALTER ROLE CURRENT_USER RESET $name");
}
$session->get('SELECT concord.close_connections()');
clear();

# a role taken in the branch: deferred constraints are checked as that role, the prepared branch is the session's
$cluster->get('b', 'CREATE ROLE peon');
$cluster->get('b', 'GRANT ALL ON t, child, log TO peon');
$cluster->get('b', q(CREATE FUNCTION who() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (current_user); RETURN NULL; END'));
$cluster->get('b', 'CREATE CONSTRAINT TRIGGER who AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION who()');
for my $end (qw(COMMIT fail))
{
	$session->get('BEGIN');
	$session->get(insert('c', 1));
	$session->get(on('b', 'SET LOCAL ROLE peon'));
	$session->get(insert('b', 1));
	$session->get(on('b', 'INSERT INTO child VALUES (99)')) if $end eq 'fail';
	if ($end eq 'fail')
	{
		$cluster->expect_error($session, 'COMMIT', '23503', qr/child_v_fkey/, 'a deferred constraint fails as a role');
		is(everywhere(), 'a= b= c=', 'nothing is there');
	}
	else
	{
		ok($session->run('COMMIT')->{ok}, 'COMMIT as a role');
		is(everywhere(), 'a= b=1 c=1', 'committed everywhere');
		is($cluster->get('b', 'SELECT v FROM log'), 'peon', 'the deferred trigger ran as that role');
	}
	$cluster->is_sql('b', 'SELECT count(*) FROM pg_prepared_xacts', 0, 'nothing stays prepared');
	clear();
}
$cluster->get('b', $_) for 'DROP FUNCTION who() CASCADE', 'DROP OWNED BY peon', 'DROP ROLE peon';

# cursors and several commands in one message
$session->get('BEGIN');
$session->get(
	q(DECLARE k CURSOR FOR SELECT x FROM concord.query_on('b', 'SELECT generate_series(1, 3)') AS (x int))
);
is($session->get('FETCH 2 FROM k'), "1\n2", 'a cursor');
$session->get(insert('b', 1));
is($session->get('FETCH 2 FROM k'), '3', 'beside other statements');
$session->get('COMMIT');
is(rows('b'), '1', 'commits');

$session->quit;
$cluster->no_leftovers(sums => { 'SELECT count(*) FROM t' => 1 });
done_testing();
