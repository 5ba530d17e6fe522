
=pod

=head1 NAME

ConcordRegister - registers as tests need them: their SQL, their acceptors, and whether a history is linearizable

=head1 FUNCTIONS

=over

=cut

package ConcordRegister;

use strict;
use warnings;

use ConcordTest;
use Exporter 'import';
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(read_sql write_sql version acceptors_sql registrar_sql await_registrar process_state
  await_stopped_backend set_fault_points forget_fault_points check_history);

=pod

=item read_sql($register), write_sql($register, $value, $expected_version), version($cluster, $node, $register)

read_sql() gives "value version"; "none 0" if it does not exist.

=cut

sub read_sql  { return "SELECT coalesce(value, 'none') || ' ' || version FROM concord.register_get('$_[0]')"; }
sub write_sql { return "SELECT concord.register_set('$_[0]', '$_[1]', $_[2])"; }

sub version
{
	my ($cluster, $node, $register) = @_;
	return $cluster->get($node, "SELECT version FROM concord.register_get('$register')");
}

=pod

=item acceptors_sql()

SQL: the acceptors' names; those that join or leave with their state.

=cut

sub acceptors_sql
{
	return q(SELECT string_agg(coalesce(node, '?') || CASE state WHEN 'acceptor' THEN '' ELSE '=' || state END, ' ' ORDER BY node) FROM concord.acceptors);
}

=pod

=item registrar_sql(), await_registrar($cluster, $node)

Process id of the registrar; the second waits until there is one.

=cut

sub registrar_sql
{
	return q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_concord registrar' AND datname = 'app');
}

sub await_registrar
{
	my ($cluster, $node) = @_;
	my $pid = '';
	ConcordTest::await(sub { return ($pid = $cluster->get($node, registrar_sql())) ne '' }, 20)
	  or die "no registrar on $node";
	return $pid;
}

=pod

=item process_state($pid)

R, S, T ... as /proc has it.

=item await_stopped_backend($cluster, $node, [$seconds])

Waits until one of the server's processes has stopped itself; returns whether.

=item set_fault_points($cluster, $node, $points), forget_fault_points($cluster, $node)

For the whole server; idle sessions take it over.  The second is for a server that does not run.

=cut

sub process_state
{
	my ($pid) = @_;
	open my $fh, '<', "/proc/$pid/stat" or return '';
	return (<$fh> // '') =~ /^\d+ \(.*\) (\S)/ ? $1 : '';
}

sub await_stopped_backend
{
	my ($cluster, $node, $seconds) = @_;
	my $postmaster = $cluster->node($node)->{_pid};
	return ConcordTest::await(
		sub {
			return scalar grep { process_state($_) eq 'T' } ConcordTest::children($postmaster);
		},
		$seconds // 15);
}

sub set_fault_points
{
	my ($cluster, $node, $points) = @_;
	$cluster->get($node, "ALTER SYSTEM SET concord.fault_points = '$points'");
	$cluster->get($node, 'SELECT pg_reload_conf()');
	$cluster->await_sql($node, 'SHOW concord.fault_points', $points, "$node will fail at \"$points\"");
	# those that are idle hear of it at the same time
	select(undef, undef, undef, 0.2);
	return;
}

sub forget_fault_points
{
	my ($cluster, $node) = @_;
	my $file = $cluster->node($node)->data_dir . '/postgresql.auto.conf';
	my $text = slurp_file($file) =~ s/^concord\.fault_points.*\n//mgr;
	open my $fh, '>', $file or die "$file: $!";
	print $fh $text;
	close $fh or die "$file: $!";
	return;
}

=pod

=item check_history(@operations)

What is wrong with the history of one register, a list of texts; none if it is linearizable.  An
operation is a hash: op (get, set, delete), start, end (any clock), value and expected (of set and
delete), result: ok, mismatch, failed (it has no effect) or unknown; version (of ok: the new one;
of get and mismatch what was found, 0: there is none), found (a get's value).  Values are all
different.

HOW: versions put what the register was into one order, with the times in between at which it did
not exist.  Each operation is at a place of that order: where it read, or what it made.  The history
is linearizable if nobody who began after another one's end is at an earlier place, or made the
place at which that one has been already.

=cut

sub check_history
{
	my @wrong;
	my @ops = grep { $_->{result} ne 'failed' } @_;
	my @known = grep { $_->{result} ne 'unknown' } @ops;
	my @unknown = grep { $_->{result} eq 'unknown' } @ops;
	my (%value, %made, %deleted);

	# what there has been: version -> value, who made it, who ended it
	for my $op (@known)
	{
		my $version = $op->{version} // 0;
		if ($op->{op} eq 'set' && $op->{result} eq 'ok')
		{
			push @wrong, "version $version was given twice" if $made{$version};
			$made{$version} = $op;
			push @wrong, "version $version does not follow $op->{expected}"
			  if $op->{expected} > 0 && $version != $op->{expected} + 1;
		}
		elsif ($op->{op} eq 'delete' && $op->{result} eq 'ok')
		{
			push @wrong, "version $op->{expected} was deleted twice" if $deleted{ $op->{expected} };
			$deleted{ $op->{expected} } = $op;
			$value{ $op->{expected} } //= undef;
			next;
		}
		next if $version == 0;
		push @wrong, "a mismatch at the expected version $version"
		  if $op->{result} eq 'mismatch' && $version == $op->{expected};
		my $seen = $op->{op} eq 'get' ? $op->{found} : $op->{result} eq 'ok' ? $op->{value} : undef;
		push @wrong, "version $version is \"$value{$version}\" and \"$seen\""
		  if defined $seen && defined $value{$version} && $seen ne $value{$version};
		$value{$version} //= $seen;
	}
	my @versions = sort { $a <=> $b } keys %value;
	my %place;
	@place{@versions} = map { 2 * $_ } 1 .. @versions;

	# what an unknown one made
	for my $version (grep { !$made{$_} } @versions)
	{
		# one whose value nobody saw: rather who changed the version before than who made a new register
		my ($maker) = grep {
			$_->{op} eq 'set'
			  && !$_->{made}
			  && (defined $value{$version} ? $_->{value} eq $value{$version} : $_->{expected} == $version - 1 || $_->{expected} == 0)
		} sort { $b->{expected} <=> $a->{expected} } @unknown;
		if ($maker)
		{
			# it may have taken effect at any time since
			$made{$version} = { %$maker, version => $version, end => undef };
			$maker->{made} = 1;
		}
		else
		{
			push @wrong, "nobody has made version $version" . (defined $value{$version} ? " \"$value{$version}\"" : '');
		}
	}

	# each follows what it was built on
	for my $i (0 .. $#versions)
	{
		my $maker    = $made{ $versions[$i] } // next;
		my $previous = $i > 0 ? $versions[ $i - 1 ] : 0;
		my $ended    = $previous && ($deleted{$previous}
			|| grep { $_->{op} eq 'delete' && $_->{expected} == $previous } @unknown);
		push @wrong, "version $versions[$i] was built on $maker->{expected}, and not on $previous"
		  if $maker->{expected} > 0 && $maker->{expected} != $previous;
		push @wrong, "version $versions[$i] was made while there was version $previous"
		  if $maker->{expected} == 0 && $previous && !$ended;
		push @wrong, "version $versions[$i] was built on $previous, which was deleted"
		  if $maker->{expected} > 0 && $deleted{$previous};
	}
	return @wrong if @wrong;

	# when there was nothing: before the first version, and after each one that was deleted
	my @absent = (1, map { $place{$_} + 1 } grep {
		my $version = $_;
		$deleted{$version} || grep { $_->{op} eq 'delete' && $_->{expected} == $version } @unknown;
	} @versions);

	# ended: the ends of those that are placed, and the highest place up to each
	my @placed = map { { %$_, place => $place{ $_->{version} }, makes => 1 } } values %made;
	push @placed, map { { %$_, place => $place{ $_->{expected} } + 1, makes => 1 } } values %deleted;
	push @placed, map { { %$_, place => $place{ $_->{version} }, makes => 0 } }
	  grep { ($_->{version} // 0) > 0 && ($_->{op} eq 'get' || $_->{result} eq 'mismatch') } @known;
	my @nothing = sort { $a->{start} <=> $b->{start} }
	  grep { ($_->{version} // 0) == 0 && ($_->{op} eq 'get' || $_->{result} eq 'mismatch') } @known;
	for my $op (@nothing)
	{
		my $low = 0;
		for (@placed)
		{
			$low = $_->{place} if defined $_->{end} && $_->{end} < $op->{start} && $_->{place} > $low;
		}
		my ($place) = grep { $_ >= $low } sort { $a <=> $b } @absent;
		if (!defined $place)
		{
			push @wrong, "process $op->{process} found nothing at $op->{start}, after place $low, and it was not deleted since";
			next;
		}
		push @placed, { %$op, place => $place, makes => 0 };
	}

	my @by_end   = sort { $a->{end} <=> $b->{end} } grep { defined $_->{end} } @placed;
	my @by_start = sort { $a->{start} <=> $b->{start} } @placed;
	my $highest;
	for my $op (@by_start)
	{
		while (@by_end && $by_end[0]{end} < $op->{start})
		{
			my $ended = shift @by_end;
			$highest = $ended if !$highest || $ended->{place} > $highest->{place};
		}
		next unless $highest;
		push @wrong, describe($op) . ' began after the end of ' . describe($highest)
		  if $op->{place} < $highest->{place} || ($op->{makes} && $op->{place} == $highest->{place});
	}
	return @wrong;
}

sub describe
{
	my ($op) = @_;
	return "$op->{op} of process " . ($op->{process} // '?') . " ($op->{start} to " . ($op->{end} // '?') . ', '
	  . ($op->{makes} ? 'making' : 'finding') . ' version ' . ($op->{version} // "after $op->{expected}") . ')';
}

=pod

=back

=cut

1;
