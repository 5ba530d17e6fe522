
# Statements on other nodes: every function, from every node, with every kind of value.

use strict;
use warnings;

use ConcordTest;
use Test::More;

my @nodes = qw(a b c);
my $cluster = ConcordTest->new(nodes => \@nodes);
$cluster->spread;

# the same types, but not the same OIDs: on each node they are created after other things
my $burn = 0;
for my $name (@nodes)
{
	$cluster->get($name, "CREATE TYPE burn$_ AS ENUM ('x')") for 1 .. 3 * $burn++;
	$cluster->get($name, $_)
	  for (
		q(CREATE TYPE mood AS ENUM ('sad', 'so so', 'happy')),
		q(CREATE TYPE pair AS (n int, t text)),
		q(CREATE DOMAIN positive AS int CHECK (VALUE > 0)),
		q(CREATE TABLE item (id bigint PRIMARY KEY, t text, made_by text)),
		q(CREATE FUNCTION node() RETURNS text LANGUAGE sql AS $$SELECT current_setting('cluster_name')$$),
		q(CREATE FUNCTION fail() RETURNS int LANGUAGE plpgsql AS $$BEGIN
			RAISE EXCEPTION 'no %', 'luck' USING ERRCODE = 'ZZ123', DETAIL = 'Because.', HINT = 'Try again.';
		END$$),
		q(CREATE FUNCTION talk() RETURNS int LANGUAGE plpgsql AS $$BEGIN
			RAISE NOTICE 'hello from %', current_setting('cluster_name'); RETURN 7; END$$));
}
my %oid = map { $_ => $cluster->get($_, q(SELECT 'mood'::regtype::oid)) } @nodes;
isnt($oid{a}, $oid{b}, 'types have other OIDs on other nodes');

# by key: from every node, to the owner
my $id = 0;
for my $from (@nodes)
{
	for (1 .. 20)
	{
		$id++;
		$cluster->is_sql(
			$from,
			"SELECT concord.execute($id, 'INSERT INTO item VALUES (\$1, \$2, \$3)', $id, 'item $id', '$from')",
			1,
			"insert $id through $from") if $id % 7 == 0;
		$cluster->get($from,
			"SELECT concord.execute($id, 'INSERT INTO item VALUES (\$1, \$2, \$3)', $id, 'item $id', '$from')"
		) if $id % 7;
	}
}
my $rows = 0;
for my $name (@nodes)
{
	my $here = $cluster->get($name, 'SELECT count(*) FROM item');
	cmp_ok($here, '>', 0, "$name has rows");
	$rows += $here;
	$cluster->is_sql($name, "SELECT count(*) FROM item WHERE concord.locate(id) <> '$name'",
		0, "$name has only its own");
}
is($rows, $id, 'every row is somewhere, once');
for my $from (@nodes)
{
	$cluster->is_sql($from, <<'SQL', "$id|$id", "all rows are read through $from, where they are");
		SELECT count(*), count(*) FILTER (WHERE q.t = 'item ' || i AND q.node = concord.locate(i))
		FROM generate_series(1::bigint, 60) i,
			concord.query(i, 'SELECT t, node() FROM item WHERE id = $1', i) AS q (t text, node text)
SQL
	$cluster->is_sql($from, <<'SQL', 60, "query_json through $from");
		SELECT count(*) FROM generate_series(1::bigint, 60) i,
			concord.query_json(i, 'SELECT * FROM item WHERE id = $1', i) j
		WHERE j->>'t' = 'item ' || i AND (j->>'id')::int = i
SQL
	$cluster->is_sql(
		$from,
		q{SELECT string_agg(n || x, ' ' ORDER BY n) FROM unnest('{a,b,c}'::name[]) n,
			concord.query_on(n, 'SELECT node()') AS (x text)},
		'aa bb cc', "query_on each node from $from");
	$cluster->is_sql(
		$from,
		q{SELECT string_agg(_node || '=' || x, ' ' ORDER BY _node)
			FROM concord.query_all('SELECT node() WHERE $1 = 1', 1) AS (_node name, x text)},
		'a=a b=b c=c', "query_all with the node's name from $from");
	$cluster->is_sql(
		$from,
		q{SELECT string_agg(x, ' ' ORDER BY x) FROM concord.query_all('SELECT node()') AS (x text)},
		'a b c',
		"query_all without it from $from");
	$cluster->is_sql($from,
		'SELECT sum(x) FROM concord.query_all(\'SELECT count(*) FROM item\') AS (x bigint)',
		$id, "a sum over all from $from");
}

# rows and their number
my $on_b = $cluster->get('b', 'SELECT count(*) FROM item');
$cluster->is_sql('a', q(SELECT concord.execute_on('b', 'UPDATE item SET t = upper(t)')),
	$on_b, 'execute_on tells the number of rows');
$cluster->is_sql('a', q(SELECT concord.execute_on('b', 'UPDATE item SET t = t WHERE false')),
	0, 'none');
$cluster->is_sql('a', q(SELECT concord.execute_on('b', 'CREATE TABLE made (a int)')),
	0, 'a command without rows');
$cluster->is_sql('b', 'SELECT count(*) FROM made', 0, 'took place');
$cluster->is_sql(
	'a', q(SELECT string_agg(node || rows, ' ' ORDER BY node)
	FROM concord.execute_all('SELECT generate_series(1, 3)')), 'a3 b3 c3', 'execute_all');
$cluster->is_sql(
	'a', q(SELECT * FROM concord.query_on('b',
	'UPDATE item SET t = lower(t) WHERE id = (SELECT min(id) FROM item) RETURNING 1') AS (x int)),
	1, 'RETURNING through query_on');
$cluster->is_sql('c',
	q(SELECT count(*) FROM concord.query_on('b', 'SELECT 1 WHERE false') AS (x int)),
	0, 'no rows');

# values: each goes to another node and comes back as it was
my @values = (
	[ 'bool', q(true) ],
	[ 'int2', q((-32768)) ],
	[ 'int4', q(2147483647) ],
	[ 'int8', q((-9223372036854775808)) ],
	[ 'numeric', q(12345678901234567890.000000000012345) ],
	[ 'numeric', q('NaN') ],
	[ 'float4', q('-Infinity') ],
	[ 'float8', q(0.1::float8 + 0.2::float8) ],
	[ 'float8', q('NaN') ],
	[ 'text', q(E'a\'b"c\\\\d\n\t$1 %s {} \u20ac \U0001F600') ],
	[ 'text', q('') ],
	[ 'text', q(repeat('long', 100000)) ],
	[ 'varchar(5)', q('abc') ],
	[ 'char(5)', q('ab') ],
	[ 'name', q('n') ],
	[ 'bytea', q('\x00ff00275c0a'::bytea) ],
	[ 'bytea', q(''::bytea) ],
	[ 'uuid', q('6ecd8c99-4036-403d-bf84-cf8400f67836') ],
	[ 'date', q('infinity') ],
	[ 'date', q('0044-03-15 BC') ],
	[ 'time', q('24:00') ],
	[ 'timetz', q('12:00:00+05:30') ],
	[ 'timestamp', q('2000-02-29 23:59:59.999999') ],
	[ 'timestamptz', q('2024-03-31 02:30:00.000001+02') ],
	[ 'interval', q('-1 year 2 months -3 days 04:05:06.7') ],
	[ 'json', q('{"a": [1,  2]}') ],
	[ 'jsonb', q('{"a": [1, null]}') ],
	[ 'inet', q('2001:db8::1/64') ],
	[ 'point', q('(1.5,-2)') ],
	[ 'bit varying', q(B'10110') ],
	[ 'int4range', q{'[1,5)'} ],
	[ 'int4multirange', q<'{[1,3),[5,8)}'> ],
	[ 'tsvector', q('''a'':1 ''b'':2') ],
	[ 'int[]', q('{1,NULL,3}') ],
	[ 'int[]', q('[0:1][2:3]={{1,2},{3,4}}') ],
	[ 'int[]', q('{}') ],
	[ 'text[]', q(ARRAY['', NULL, 'NULL', 'a,b', '"q"', '\\', '{}']) ],
	[ 'bytea[]', q(ARRAY['\x00'::bytea, '\xff'::bytea]) ],
	[ 'mood', q('so so') ],
	[ 'mood[]', q('{sad,NULL,happy}') ],
	[ 'positive', q(5) ],
	[ 'positive[]', q('{1,2}') ],
	[ 'pair', q((NULL, 'a,"b" (c) \ ')) ],
	[ 'pair[]', q(ARRAY[(1, 'x')::pair, NULL, (2, NULL)::pair]) ]);
my %done;
my $session = $cluster->session('a');
for my $value (@values)
{
	my ($type, $literal) = @$value;
	for my $expression ($literal, $done{$type}++ ? () : 'NULL')
	{
		my $shown = length $expression > 60 ? substr($expression, 0, 60) . '...' : $expression;
		# compared as text: json and others have no equality; bytea_output and the like are the
		# session's
		$cluster->is_sql($session, <<SQL, 't|t', "$type: $shown");
			SELECT v::text IS NOT DISTINCT FROM r.x::text, pg_typeof(r.x) = pg_typeof(v)
			FROM (SELECT ($expression)::$type AS v) s,
				concord.query_on('b', 'SELECT \$1::$type', s.v) AS r (x $type)
SQL
	}
}

# a value keeps its type where nothing tells it
$cluster->is_sql(
	'a',
	q{SELECT t FROM concord.query_on('b', 'SELECT pg_typeof($1)::text || pg_typeof($2) || pg_typeof($3)
	|| pg_typeof($4) || pg_typeof($5)', 1::int8, 1::int2, 'x'::text, '{1}'::int[], 'sad'::mood) AS (t text)},
	'bigintsmallinttextinteger[]mood', 'typed parameters keep their types');
$cluster->is_sql('a',
	q{SELECT concord.execute_on('b', 'SELECT $1, $2, $3', 1, NULL::int, 'x'::text)},
	1, 'three parameters');
my $many = 300;
$cluster->is_sql(
	'a',
	"SELECT x FROM concord.query_on('b', 'SELECT "
	  . join('+', map { "\$$_" } 1 .. $many)
	  . "', VARIADIC array(SELECT generate_series(1, $many))) AS (x int)",
	$many * ($many + 1) / 2,
	"$many parameters through VARIADIC");
$cluster->is_sql(
	'a',
	q{SELECT * FROM concord.query('x'::text, 'SELECT 1, NULL::text, ''y'' ') AS (a int, b text, c text)},
	'1||y',
	'a key of text, several columns');
$cluster->is_sql(
	'a',
	q{SELECT (concord.locate('42'::text) = concord.locate(42), concord.slot('42') = concord.slot(42::int2))},
	'(t,t)',
	'one value, one slot');

$session->quit;

# the caller's surroundings
$session = $cluster->session('a');
$session->get($_)
  for (
	q(SET TimeZone = 'Asia/Kathmandu'),
	q(SET DateStyle = 'German'),
	q(SET IntervalStyle = 'iso_8601'),
	q(SET extra_float_digits = -3),
	q(CREATE SCHEMA mine),
	q(SET search_path = mine, public));
$cluster->get($_, 'CREATE SCHEMA mine')                          for qw(b c);
$cluster->get($_, 'CREATE TABLE mine.item AS SELECT 42 AS mark') for @nodes;
for my $setting (qw(TimeZone search_path))
{
	is( $session->get("SELECT * FROM concord.query_on('b', 'SHOW $setting') AS (x text)"),
		$session->get("SHOW $setting"),
		"$setting is carried over");
}
is($session->get(q(SELECT x FROM concord.query_on('b', 'SELECT mark FROM item') AS (x int))),
	42, "the caller's search_path finds the caller's table");
is( $session->get(
		q(SELECT x FROM concord.query_on('b', 'SELECT now()') AS (x timestamptz) WHERE x BETWEEN now() - interval '1 hour' AND now() + interval '1 hour')
	) ne '',
	1,
	'a timestamp survives DateStyle');
is( $session->get(
		q(SELECT x = DATE '2024-02-01' FROM concord.query_on('b', 'SELECT $1', DATE '2024-02-01') AS (x date))
	),
	't',
	'a date survives DateStyle');
is( $session->get(
		q(SELECT x = 0.1::float8 + 0.2::float8 FROM concord.query_on('b', 'SELECT 0.1::float8 + 0.2::float8') AS (x float8))
	),
	't',
	'a float survives extra_float_digits');
$session->get('SET search_path = public');
is( $session->get(
		q(SELECT count(*) > 1 FROM concord.query_on('b', 'SELECT id FROM item') AS (x bigint))),
	't',
	'a change of search_path reaches a connection that is open');
$session->quit;

# notices and errors
my $r = $cluster->run('a', q(SELECT x FROM concord.query_on('b', 'SELECT talk()') AS (x int)));
is($r->{out}, 7, 'result beside a notice');
like($r->{stderr}, qr/NOTICE:.*hello from b/, 'a NOTICE is passed on');
$r = $cluster->expect_error('a', q(SELECT x FROM concord.query_on('c', 'SELECT fail()') AS (x int)),
	'ZZ123', qr/no luck/, 'an error keeps its SQLSTATE');
is($r->{message}, 'no luck', 'its message');
is($r->{detail}, 'Because.', 'its detail');
is($r->{hint}, 'Try again.', 'its hint');
like($r->{context}, qr/PL\/pgSQL function (public\.)?fail\(\)/, 'its context');
like($r->{context}, qr/node "c"/, 'and says on which node');
$cluster->expect_error(
	'a', q(SELECT concord.execute_on('b', 'INSERT INTO item SELECT * FROM item')),
	'23505',
	qr/item_pkey.*node "b"/s,
	'a constraint by name');
$cluster->expect_error(
	'b', q(SELECT concord.execute_on('x', 'SELECT 1')),
	'42704',
	qr/node "x" does not exist/,
	'an unknown node');
$cluster->expect_error('a',
	q(SELECT * FROM concord.query_all('SELECT 1/(node() <> ''c'')::int') AS (x int)),
	'22012', qr/node "c"/, 'one of all fails');

for my $where (qw(a b))
{
	for my $mismatch (
		'SELECT 1, 2',
		'SELECT WHERE false',
		q(SELECT ''x''::text),
		'SELECT 1::bigint',
		'CREATE TABLE m ()')
	{
		$cluster->expect_error(
			'b', "SELECT * FROM concord.query_on('$where', '$mismatch') AS (x int)",
			'42804',
			qr/column|return rows/,
			"does not match the column definition list on $where: $mismatch");
	}
}
$session = $cluster->session('a');
for my $sql (
	'SELECT 1; SELECT 2',
	'COMMIT', 'ROLLBACK', 'BEGIN', 'SAVEPOINT x', "PREPARE TRANSACTION ''x''",
	'', 'SELECT $1', 'SELEC 1')
{
	for my $where (qw(b a))
	{
		$session->get('BEGIN');
		$session->get(q(SELECT concord.execute_on('b', 'CREATE TABLE half_done ()')));
		$cluster->expect_error($session, "SELECT concord.execute_on('$where', '$sql')",
			qr/^(0A|2D|42|25)/, qr/./, "refused on $where: '$sql'");
		like($session->run('COMMIT')->{stderr}, qr/^$/, 'the session goes on');
		$cluster->is_sql('b', q(SELECT to_regclass('half_done') IS NULL), 't', 'nothing half done');
		is($session->get(q(SELECT concord.execute_on('b', 'SELECT 1'))), 1, 'usable afterwards');
	}
}

$session->quit;

# at the same time
my $busy = $cluster->session('a');
$busy->start(q(SELECT * FROM concord.query_all('SELECT 1 FROM pg_sleep(600)') AS (x int)));
my $sleeping = q(SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep');
ok( await(
		sub {
			return !grep { $cluster->get($_, $sleeping) ne '1' } @nodes;
		},
		20),
	'query_all runs on all nodes at the same time');
$cluster->cancel($busy);
$cluster->expect_failed($busy->finish(20), '57014', qr/cancel/, 'and is cancelled', within => 15);
$cluster->await_sql($_, $sleeping, 0, "nothing runs on $_ any more") for @nodes;
is($busy->get(q(SELECT count(*) FROM concord.query_all('SELECT 1') AS (x int))),
	3, 'the session goes on');
$busy->quit;

# what lives here does not go over the network
$session = $cluster->session('a');
my $key = $cluster->get('a',
	q(SELECT min(i) FROM generate_series(1, 1000) i WHERE concord.locate(i) = 'a'));
is($session->get("SELECT x FROM concord.query($key, 'SELECT pg_backend_pid()') AS (x int)"),
	$session->pid, 'a local key is answered by this very backend');
$session->quit;

# privileges
$cluster->get($_, 'CREATE ROLE guest LOGIN') for @nodes;
$cluster->expect_error(
	'a', q(SELECT concord.execute_on('b', 'SELECT 1')),
	qr/^42(704|501)$/, qr/guest|permission/,
	'a role without a mapping', user => 'guest');
$cluster->expect_error(
	'a', q(SELECT concord.move_slot(1, 'b')),
	'42501',
	qr/permission denied/,
	'a role that may not change the cluster',
	user => 'guest');

$cluster->no_leftovers;
done_testing();
