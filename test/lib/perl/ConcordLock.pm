
=pod

=head1 NAME

ConcordLock - what tests of lease locks have in common

=head1 FUNCTIONS

=over

=cut

package ConcordLock;

use strict;
use warnings;

use ConcordTest;
use Exporter 'import';
use Test::More;
use Time::HiRes qw(time);

our @EXPORT = qw(await_queue await_acceptors lock_cluster registrar await_registrar lock_sql);

=pod

=item lock_cluster(%arg)

A cluster of a, b and c, all of them acceptors, with short times; arguments as ConcordTest's.

=cut

sub lock_cluster
{
	my (%arg) = @_;
	my $conf = delete $arg{conf} // '';
	my $cluster = ConcordTest->new(
		nodes => [qw(a b c)],
		%arg,
		conf => "concord.register_timeout = 5s\nconcord.lease_duration = 2s\nconcord.connect_timeout = 5s\n$conf");
	await_acceptors($cluster);
	return $cluster;
}

sub await_acceptors
{
	my ($cluster) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $sql = q(SELECT string_agg(node, ' ' ORDER BY node) FROM concord.acceptors);
	$cluster->await_sql($_, $sql, 'a b c', "$_ knows the acceptors", 60) for qw(a b c);
	return;
}

=pod

=item await_queue($cluster, $name, $holders, $waiters, $text, [$seconds])

One test: two acceptors of those that run have a value of the lock with so many holders and waiters.

=cut

sub await_queue
{
	my ($cluster, $name, $holders, $waiters, $text, $bound) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $number = q{('x' || encode(substr(value, %d, 4), 'hex'))::bit(32)::int};
	my $sql = sprintf("SELECT $number || ' ' || $number FROM concord.register WHERE name = 'l:%s'", 11, 15, $name);
	my $expected = "$holders " . ($holders + $waiters);
	my %last;
	my $good = await(
		sub {
			%last = map { $_ => (eval { $cluster->get($_, $sql, 10) } // '?') }
			  grep { defined $cluster->node($_)->{_pid} && !$cluster->{frozen}{$_} } qw(a b c);
			return 2 <= grep { $_ eq $expected } values %last;
		},
		$bound // 20);
	ok($good, $text) or diag(join ', ', map { "$_: $last{$_}" } sort keys %last);
	return $good;
}

=pod

=item registrar($cluster, $node), await_registrar($cluster, $node, $old)

Process id of the registrar; waits until there is another one.

=cut

sub registrar
{
	my ($cluster, $node) = @_;
	return $cluster->get($node, q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_concord registrar'));
}

sub await_registrar
{
	my ($cluster, $node, $old) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $pid = '';
	my $good = await(sub { $pid = eval { registrar($cluster, $node) } // ''; return $pid ne '' && $pid != $old; }, 20);
	ok($good, "$node has another registrar");
	return $pid;
}

=pod

=item lock_sql($name, [$mode, $arguments])

=back

=cut

sub lock_sql
{
	my ($name, $mode, $more) = @_;
	return sprintf("SELECT concord.lock('%s', '%s'%s)", $name, $mode // 'exclusive', defined $more ? ", $more" : '');
}

1;
