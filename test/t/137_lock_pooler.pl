
# Lease locks through PgBouncer in session mode: they are the client's, and go with it.

use strict;
use warnings;

use ConcordLock;
use ConcordPooler;
use ConcordTest;
use ConcordWire;
use Test::More;

ConcordPooler->version or plan(skip_all => 'needs PgBouncer (Debian: pgbouncer)');

my $cluster = lock_cluster();
my $pooler = ConcordPooler->new(
	databases => { app => [ $cluster->node('a'), 1 ] },
	conf => "pool_mode = session\nserver_reset_query = DISCARD ALL");

my $first = ConcordWire->new($pooler, dbname => 'app', quiet => 1);
my $backend = $first->get('SELECT pg_backend_pid()');
my $fence = $first->get(q(SELECT concord.lock('pooled')));
is($cluster->get('b', q(SELECT concord.try_lock('pooled') IS NULL)), 't', 'a client of the pool holds the lock');
is($cluster->get('b', q(SELECT node || pid FROM concord.locks)), "a$backend", 'by its server connection');
$first->quit;
$cluster->await_sql('b', q(SELECT count(*) FROM concord.locks), 0, 'it goes with the client');

my $second = ConcordWire->new($pooler, dbname => 'app', quiet => 1);
is($second->get('SELECT pg_backend_pid()'), $backend, 'another client has the server connection');
is($second->get(q(SELECT concord.lock_remaining('pooled') IS NULL)), 't', 'but not the lock');
cmp_ok($second->get(q(SELECT concord.lock('pooled'))), '>', $fence, 'which it can take');
done_testing();
