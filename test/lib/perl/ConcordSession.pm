
=pod

=head1 NAME

ConcordSession - one psql session, with errors taken apart and statements that can be left running

=head1 SYNOPSIS

  my $session = ConcordSession->new($node, dbname => 'app', user => 'alice');
  my $result = $session->run('SELECT 1/0');     # $result->{sqlstate} eq '22012'
  $session->start('SELECT pg_sleep(60)');       # returns at once
  my $late = $session->finish(10);              # dies when that takes more than 10 s

=head1 DESCRIPTION

A result is a hash: ok, out (the rows, unaligned), seconds (since the start) and waited (since
finish was called); if not ok, sqlstate (undef when the
connection was lost), message, detail, hint, context; and always stderr, with notices and
everything else psql said.

=cut

package ConcordSession;

use strict;
use warnings;

use Carp;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

=pod

=head1 METHODS

=over

=item ConcordSession->new($node, [dbname => $name, user =>, password =>, options => '-c ...', host =>, port =>])

=cut

sub new
{
	my ($class, $node, %arg) = @_;
	local $ENV{PGOPTIONS} = $arg{options}   if defined $arg{options};
	local $ENV{PGPASSWORD} = $arg{password} if defined $arg{password};
	# what connstr() is made of: background_psql() takes no other
	local @$node{qw(_host _port)} = ($arg{host} // $node->host, $arg{port} // $node->port);
	my $psql = $node->background_psql(
		$arg{dbname} // 'app',
		on_error_stop => 0,
		timeout => 24 * 3600,    # of the session; finish() has its own for each statement
		extra_params => [ '-v', 'VERBOSITY=verbose', $arg{user} ? ('-U', $arg{user}) : () ]);
	my $self = bless { psql => $psql, count => 0, node => $node }, $class;
	$self->{pid} = $self->get('SELECT pg_backend_pid()');
	return $self;
}

=pod

=item $session->start($sql)

Sends statements without waiting. Every start needs its finish.

=cut

sub start
{
	my ($self, $sql) = @_;
	croak "the session is still busy" if defined $self->{began};
	my $psql = $self->{psql};
	my $mark = 'done ' . ++$self->{count};
	note $self->{node}->name . ": $sql";
	@$psql{qw(stdout stderr)} = ('', '');
	$sql .= ';' unless $sql =~ /;\s*$/ || $sql =~ /^\s*\\/;
	$psql->{stdin} .= "$sql\n\\echo '$mark'\n\\warn '$mark'\n";
	$self->{began} = time();
	$self->_pump;
	return;
}

# Moves data without waiting; false when psql has gone.
sub _pump
{
	my ($self) = @_;
	my $psql = $self->{psql};
	return 1 if eval { $psql->{run}->pump_nb; 1 } && $psql->{run}->pumpable;
	$self->{dead} = 1;
	return 0;
}

=pod

=item $session->busy()

Whether what was started is still running.

=cut

sub busy
{
	my ($self) = @_;
	return 0 if !defined $self->{began} || $self->{dead};
	$self->_pump;
	my $mark = "done $self->{count}";
	return !($self->{psql}{stdout} =~ /^$mark$/m && $self->{psql}{stderr} =~ /^$mark$/m);
}

=pod

=item $session->finish([$seconds])

Waits for what was started; dies if that takes longer (default: 60).

=cut

sub finish
{
	my ($self, $bound) = @_;
	croak "nothing was started" unless defined $self->{began};
	my $since = time();
	my $until = $since + ($bound // 60);
	while ($self->busy)
	{
		die $self->{node}->name . ": no answer within " . ($bound // 60) . " s\n"
		  if time() > $until;
		select(undef, undef, undef, 0.005);
	}
	my $mark = "done $self->{count}";
	my ($out, $stderr) = @{ $self->{psql} }{qw(stdout stderr)};
	s/^$mark\n//m for $out, $stderr;
	chomp $out;
	my $result = parse($out, $stderr, time() - delete $self->{began});
	$result->{ok} = 0 if $self->{dead};
	$result->{waited} = time() - $since;
	note $stderr if $stderr ne '';
	return $result;
}

=pod

=item $session->run($sql, [$seconds])

start and finish.

=item $session->get($sql)

The same, returns the rows; dies on an error.

=cut

sub run
{
	my ($self, $sql, $bound) = @_;
	$self->start($sql);
	return $self->finish($bound);
}

sub get
{
	my ($self, $sql, $bound) = @_;
	my $result = $self->run($sql, $bound);
	croak $self->{node}->name . ": $sql\n$result->{stderr}" unless $result->{ok};
	return $result->{out};
}

=pod

=item $session->pid()

Process id of the session's backend.

=cut

sub pid { return $_[0]->{pid}; }

=pod

=item $session->quit()

=back

=cut

sub quit
{
	my ($self) = @_;
	my $psql = delete $self->{psql} or return;
	eval {
		if   ($self->{dead} || defined $self->{began}) { $psql->{run}->kill_kill; }
		else                                           { $psql->quit; }
	};
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($@, $?);
	$self->quit;
	return;
}

# Takes apart what psql wrote; the last error is the one that counts.
sub parse
{
	my ($out, $stderr, $seconds) = @_;
	my %result = (ok => 1, out => $out, stderr => $stderr, seconds => $seconds);

	return \%result
	  unless $stderr =~ /.*^(?:psql:.*?)?(?:ERROR|FATAL|PANIC):\s+(.*)\z/ms
	  || $stderr =~ /(connection to server.*|server closed the connection.*)/s;
	my $text = $1;
	$result{ok} = 0;
	$result{sqlstate} = $1 if $text =~ s/^([0-9A-Z]{5}): //;
	my $field = 'message';
	for my $line (split /\n/, $text)
	{
		if ($line =~ s/^(DETAIL|HINT|CONTEXT|LOCATION|QUERY|LINE \d+|WARNING|NOTICE): +//)
		{
			$field = lc $1;
		}
		$result{$field} = defined $result{$field} ? "$result{$field}\n$line" : $line;
	}
	return \%result;
}

1;
