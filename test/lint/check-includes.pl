#!/usr/bin/perl
# check-includes.pl [root]: the direction of #include, and who may use what.
#
# The stairs of DESIGN section 4.  A file may include its own room, any room on a lower stair, and core;
# rooms on one stair do not know each other.  src/init.c stands on top.
use strict;
use warnings;
use File::Basename qw(dirname);

my @stairs = (
	[qw(base)], [qw(peer)], [qw(cluster)], [qw(quorum)],
	[qw(commit shard)], [qw(outbox lock session)], [qw(worker)], [qw(init)]);
my %stair;
for my $i (0 .. $#stairs)
{
	$stair{$_} = $i for @{ $stairs[$i] };
}

my $root = $ARGV[0] // dirname($0) . '/../..';
chdir $root or die "cannot enter $root: $!\n";
my $findings = 0;

sub finding
{
	my ($file, $line, $text) = @_;
	print "$file:$line: $text\n";
	$findings++;
}

my @files = (glob('src/*.[ch]'), glob('src/*/*.[ch]'));
die "no source under $root/src\n" unless @files;
for my $file (@files)
{
	my ($room) = $file =~ m{^src/(?:(\w+)/)?};
	$room //= 'init';
	finding($file, 1, qq(room "$room" has no stair)) unless $room eq 'core' || exists $stair{$room};
	finding($file, 1, 'only init.c lies outside the rooms')
	  if $room eq 'init' && $file ne 'src/init.c';

	open my $in, '<', $file or die "cannot read $file: $!\n";
	while (my $text = <$in>)
	{
		if ($room eq 'core' && $text =~ /\b(palloc0?|pfree|ereport|elog|Datum)\b\s*[(;*]/)
		{
			finding($file, $., "core is plain C and knows no $1");
		}
		next unless $text =~ /^\s*#\s*include\s*([<"])([^>"]+)[>"]/;
		my ($quote, $included) = ($1, $2);
		my ($target) = $included =~ m{^(\w+)/};

		finding($file, $., "libpq is known to src/peer only")
		  if $included =~ m{^(?:libpq-fe|libpq-events|libpq/libpq-fs|libpq-int)\.h$} && $room ne 'peer';

		if ($quote eq '<')
		{
			finding($file, $., "the C library's socket and file headers are not for core")
			  if $room eq 'core' && $included =~ m{^(?:sys/socket|sys/select|poll|fcntl|unistd|time|sys/time)\.h$};
			next;
		}
		if (-e "src/$included")
		{
			finding($file, $., qq(write "$room/..." with the room's name)) unless defined $target;
			next if $target eq $room || $target eq 'core' && $room ne 'core';
			if ($room eq 'core')
			{
				finding($file, $., qq(core includes no other room, but includes "$included"));
			}
			elsif (($stair{$target} // 99) >= ($stair{$room} // -1))
			{
				finding($file, $., qq("$target" is not below "$room"));
			}
		}
		elsif ($room eq 'core')
		{
			finding($file, $., qq(core includes only itself and the C library, but includes "$included"));
		}
		elsif (-e dirname($file) . "/$included")
		{
			finding($file, $., qq(write "$room/$included" with the room's name));
		}
	}
	close $in;
}
exit($findings ? 1 : 0);
