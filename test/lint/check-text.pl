#!/usr/bin/perl
# check-text.pl [root]: what every text file keeps to: no trailing white space, a newline at the
# end, C and SQL no wider than 100 columns and indented with tabs, no C file of 1000 lines or more.
use strict;
use warnings;
use File::Basename qw(dirname);
use File::Find;

my $root = $ARGV[0] // dirname($0) . '/../..';
chdir $root or die "cannot enter $root: $!\n";

my (@files, $findings);
find(
	{   no_chdir => 1,
		wanted   => sub {
			$File::Find::prune = 1
			  if -d && m{^\./(?:\.git|tmp_[^/]*|expected|results|output_iso)$|/(?:build|expected|corpus|seeds|__pycache__)$};
			push @files, $_ if -f && !-l && -T && !m{^\./pg_concord--[^/]*\.sql$};
		}
	},
	'.');

sub columns
{
	my $line = shift;
	1 while $line =~ s/\t/' ' x (4 - length($`) % 4)/e;
	return length $line;
}

for my $file (sort @files)
{
	my $is_c = $file =~ m{^\./src/.*\.[ch]$|^\./test/.*\.[ch]$};
	my $last = '';
	my $report = sub { print substr($file, 2), ":$.: $_[0]\n"; $findings++ };

	open my $in, '<:encoding(UTF-8)', $file or die "cannot read $file: $!\n";
	while ($last = <$in>, defined $last)
	{
		my $line = $last;
		$report->('no newline at the end of the file') unless chomp $line;
		$report->('trailing white space') if $line =~ /\s$/;
		if ($is_c)
		{
			# a message is not broken, so that it can be searched for
			$report->('more than 100 columns') if columns($line) > 100 && $line !~ /"[^"]*"\S*$/;
			$report->('indented with blanks') if $line =~ /^\t* {4}/;
		}
		if (eof $in)
		{
			$report->('1000 lines or more') if $. >= 1000 && $is_c;
		}
	}
	close $in;
}
exit($findings ? 1 : 0);
