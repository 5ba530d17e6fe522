
# Parameters as drivers bind them: without types, as libpq lets them; with the types JDBC gives.

use strict;
use warnings;

use ConcordTest;
use Test::More;

eval { require DBI; require DBD::Pg; 1 }
  or plan(skip_all => 'needs DBD::Pg (Debian: libdbd-pg-perl)');
DBD::Pg->import(':pg_types');

my @nodes = qw(a b c);
my $cluster = ConcordTest->new(nodes => \@nodes);
$cluster->spread;
$cluster->get($_,
	'CREATE TABLE item (id bigint PRIMARY KEY, t text, n numeric, b bytea, d date, a int[])')
  for @nodes;

my $dbh = DBI->connect(
	'dbi:Pg:' . join(';', split / /, $cluster->node('a')->connstr . ' dbname=app'),
	undef, undef,
	{
		RaiseError => 1,
		PrintError => 0,
		pg_server_prepare => 1,
		pg_switch_prepared => 1,
		AutoCommit => 1
	});

# One statement with these values: [ value, type ] or a bare value, which travels without a type.
sub ask
{
	my ($sql, @values) = @_;
	my $sth = $dbh->prepare($sql, { pg_server_prepare => 1, pg_prepare_now => 0 });
	my $i = 0;
	for my $value (@values)
	{
		$i++;
		if (ref $value eq 'ARRAY') {
			$sth->bind_param($i, $value->[0], { pg_type => $value->[1] });
		}
		else { $sth->bind_param($i, $value, { pg_type => DBD::Pg::PG_UNKNOWN() }); }
	}
	eval { $sth->execute; 1 } or die { state => $sth->state, message => $sth->errstr };
	return join '|', map {
		join ',', map { $_ // 'NULL' } @$_
	} @{ $sth->fetchall_arrayref };
}

# slot and locate: one value is one key, however it is bound
for my $key (1, 42, -7, '9223372036854775807', 0)
{
	my $slot = $cluster->get('a', "SELECT concord.slot(($key)::bigint)");
	is(ask('SELECT concord.slot($1)', $key), $slot, "slot of an untyped $key");
	is(ask('SELECT concord.slot($1)', [ $key, DBD::Pg::PG_INT8() ]), $slot,
		"slot of a bigint $key");
	is(ask('SELECT concord.slot($1)', [ $key, DBD::Pg::PG_TEXT() ]), $slot, "slot of a text $key");
	is(ask('SELECT concord.slot($1)', [ $key, DBD::Pg::PG_VARCHAR() ]),
		$slot, "slot of a varchar $key");
	is(ask('SELECT concord.slot($1)', [ $key, DBD::Pg::PG_INT4() ]), $slot, "slot of an int $key")
	  if abs($key) < 1000;
	is( ask('SELECT concord.locate($1)', $key),
		ask('SELECT concord.locate($1)', [ $key, DBD::Pg::PG_INT8() ]),
		"the node of $key");
}
my $uuid = '6ecd8c99-4036-403d-bf84-cf8400f67836';
is( ask('SELECT concord.slot($1)', $uuid),
	$cluster->get('a', "SELECT concord.slot('$uuid'::uuid)"),
	'slot of an untyped uuid');
is( ask('SELECT concord.slot($1)', 'Zoe'),
	$cluster->get('a', q(SELECT concord.slot('Zoe'::text))),
	'slot of an untyped text');
isnt(
	ask('SELECT concord.slot($1)', '042'),
	ask('SELECT concord.slot($1)', '42'),
	'text that is no canonical number is text');

# statements by key
for my $id (1 .. 12)
{
	is( ask('SELECT concord.execute($1, $2, $3, $4, $5, $6, $7, $8)', $id,
			'INSERT INTO item VALUES ($1, $2, $3, $4, $5, $6)', $id,
			"it's \"$id\"", '1.50',
			'\\x00ff', '2024-02-29',
			'{1,NULL}'),
		1,
		"untyped: execute for $id");
	is( ask('SELECT id, t, n, encode(b, $4), d, a::text FROM concord.query($1, $2, $3)
				AS (id bigint, t text, n numeric, b bytea, d date, a int[])',
			$id, 'SELECT * FROM item WHERE id = $1', $id, 'hex'),
		"$id,it's \"$id\",1.50,00ff,2024-02-29,{1,NULL}",
		"untyped: query for $id");
	is( ask('SELECT j->>$4 FROM concord.query_json($1, $2, $3) j', $id,
			'SELECT t FROM item WHERE id = $1', $id,
			't'),
		"it's \"$id\"",
		"untyped: query_json for $id");
}
is( ask('SELECT concord.execute($1, $2, $3, $4)', 13,
		'INSERT INTO item (id, t) VALUES ($1, $2)', 13,
		undef),
	1,
	'untyped: NULL');
is( ask('SELECT t IS NULL FROM concord.query($1, $2, $3) AS (t text)', 13,
		'SELECT t FROM item WHERE id = $1', 13),
	1,
	'is NULL');
is(ask('SELECT concord.execute($1, $2)', 14, 'INSERT INTO item (id) VALUES (14)'),
	1, 'untyped: no parameters');
is(ask('SELECT x FROM concord.query($1, $2) AS (x int)', 14, 'SELECT 1 FROM item WHERE id = 14'),
	1, 'untyped: query without parameters');

# typed, as JDBC binds numbers and strings
for my $type (DBD::Pg::PG_INT8(), DBD::Pg::PG_INT4())
{
	is( ask('SELECT x FROM concord.query($1, $2, $3) AS (x text)',
			[ 3, $type ],
			[ 'SELECT t FROM item WHERE id = $1', DBD::Pg::PG_VARCHAR() ],
			[ 3, $type ]),
		q(it's "3"),
		'typed: query');
}
is( ask('SELECT concord.execute($1, $2, $3, $4)',
		[ 3, DBD::Pg::PG_INT8() ],
		[ 'UPDATE item SET t = $2 WHERE id = $1', DBD::Pg::PG_VARCHAR() ],
		[ 3, DBD::Pg::PG_INT8() ],
		[ 'new', DBD::Pg::PG_VARCHAR() ]),
	1,
	'typed: execute');
is( ask('SELECT x FROM concord.query($1, $2, $3) AS (x text)',
		[ 'a key', DBD::Pg::PG_VARCHAR() ],
		[ 'SELECT $1 || 1', DBD::Pg::PG_VARCHAR() ],
		[ 'v', DBD::Pg::PG_TEXT() ]),
	'v1',
	'typed: a key of text');

# mixed: the key typed, the parameters not
is( ask('SELECT x FROM concord.query($1, $2, $3) AS (x text)',
		[ 3, DBD::Pg::PG_INT8() ],
		[ 'SELECT t FROM item WHERE id = $1', DBD::Pg::PG_TEXT() ],
		3),
	'new',
	'mixed: a bigint key, an untyped parameter');

# by node, and on all
is(ask('SELECT x FROM concord.query_on($1, $2, $3) AS (x int)', 'b', 'SELECT $1 + 1', 41),
	42, 'untyped: query_on');
is(ask('SELECT concord.execute_on($1, $2, $3)', 'c', 'UPDATE item SET t = $1 WHERE false', 'x'),
	0, 'untyped: execute_on');
is( ask('SELECT count(*) FROM concord.query_all($1, $2) AS (_node name, x int)',
		'SELECT $1::int', 7),
	3,
	'untyped: query_all');
is( ask('SELECT sum(x) FROM concord.query_all($1, $2) AS (x int)',
		'SELECT count(*)::int FROM item WHERE id < $1',
		100),
	14,
	'untyped: the peer infers the type');
is(ask('SELECT count(*) FROM concord.execute_all($1, $2)', 'SELECT $1::int', 7),
	3, 'untyped: execute_all');

# the same statement many times: prepared once, here and there
my $sth = $dbh->prepare('SELECT t FROM concord.query($1, $2, $3) AS (t text)');
for my $round (1 .. 30)
{
	my $id = 1 + $round % 12;
	$sth->execute($id, 'SELECT t FROM item WHERE id = $1', $id);
	my ($t) = $sth->fetchrow_array;
	$sth->finish;
	like($t, qr/^(it's "$id"|new)$/, "prepared, round $round") if $round > 27;
}

# what is wrong is an error wherever the key lives, and the session usable
my $count = qr/^(08P01|42P02|07001|42601|22023)$/;
for my $bad (
	[ 'a value that does not fit', qr/^22P02$/, 'SELECT 1 FROM item WHERE id = $1', 'no number' ],
	[ 'too few parameters', $count, 'SELECT $1::int' ],
	[ 'too many parameters', $count, 'SELECT $1::int', 1, 2 ])
{
	my ($name, $expected, $sql, @parameters) = @$bad;
	my $dollars = join ', ', map { '$' . ($_ + 2) } 1 .. @parameters;
	for my $owner (qw(a b))
	{
		my $key = $cluster->get('a',
			"SELECT min(i) FROM generate_series(1, 100) i WHERE concord.locate(i) = '$owner'");
		my $done = eval {
			ask('SELECT x FROM concord.query($1, $2'
				  . ($dollars ? ", $dollars" : '')
				  . ') AS (x int)',
				$key, $sql, @parameters);
			1;
		};
		like($done ? 'no error' : $@->{state}, $expected, "$name, the key lives on $owner")
		  or diag explain $@;
		is(ask('SELECT 1'), 1, 'usable afterwards');
	}
}
eval { ask('SELECT x FROM concord.query($1, $2) AS (x int)', undef, 'SELECT 1'); };
is($@->{state}, '22004', 'a NULL key');
is(ask('SELECT 1'), 1, 'usable afterwards');
$dbh->disconnect;

$cluster->no_leftovers;
done_testing();
