
=pod

=head1 NAME

ConcordWire - one session that speaks the protocol itself, and so sees all that an answer holds

=head1 SYNOPSIS

  my $wire = ConcordWire->new($node, user => 'alice', options => '-c concord.track=reads');
  my $result = $wire->run("INSERT INTO t VALUES (1)");      # $result->{token}: told with the answer
  $wire->pipeline([ 'SELECT $1', 7 ], ['SELECT 2']);        # Parse, Bind, Execute of each; one Sync
  $wire->start('SELECT pg_sleep(60)');                      # returns at once
  my $late = $wire->finish(10);                             # dies when that takes more than 10 s

=head1 DESCRIPTION

A result is a hash as ConcordSession's: ok, out, sqlstate, message, detail, hint, stderr, seconds,
waited; and also tokens, what was reported of concord.token up to ReadyForQuery; token, the
last of them (undef: not reported); tags; and status, the transaction's: I, T or E. Other
parameters that were reported are in C<< $wire->{parameters} >>.

The connection goes to 127.0.0.1 without a password. Values are text; undef is NULL.

=cut

package ConcordWire;

use strict;
use warnings;

use Carp;
use IO::Select;
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(time);

=pod

=head1 METHODS

=over

=item ConcordWire->new($node, [dbname => $name, user =>, options => '-c ...', quiet => 1])

Dies when the connection fails, with the SQLSTATE. With C<quiet>, statements are not noted.

=cut

sub new
{
	my ($class, $node, %arg) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $node->port)
	  or die $node->name . ": $!\n";
	my $self = bless {
		node => $node,
		socket => $socket,
		select => IO::Select->new($socket),
		quiet => $arg{quiet},
		buffer => '',
		parameters => {},
	}, $class;
	my %startup = (
		user => $arg{user} // $ENV{PGUSER} // scalar getpwuid($<),
		database => $arg{dbname} // 'app',
		client_encoding => 'UTF8',
		defined $arg{options} ? (options => $arg{options}) : ());
	my $text = join '', map { "$_\0$startup{$_}\0" } sort keys %startup;
	$self->_begin;
	$self->_send(pack('N N', length($text) + 9, 3 << 16) . "$text\0");
	my $result = $self->finish(30);
	die sprintf("%s: %s %s\n", $node->name, $result->{sqlstate} // 'lost', $result->{stderr})
	  unless $result->{ok};
	return $self;
}

sub _begin
{
	my ($self) = @_;
	croak "the session is still busy" if defined $self->{began};
	$self->{began} = time();
	$self->{ready} = 0;
	$self->{result} = { ok => 1, stderr => '', rows => [], tags => [], tokens => [] };
	return;
}

sub _send
{
	my ($self, $bytes) = @_;
	return if $self->{dead};
	local $SIG{PIPE} = 'IGNORE';
	while (length $bytes)
	{
		my $n = syswrite $self->{socket}, $bytes;
		if (!defined $n)
		{
			# what the server said before it went is still to be read
			return;
		}
		substr $bytes, 0, $n, '';
	}
	return;
}

sub message
{
	my ($type, $content) = @_;
	return $type . pack('N', length($content) + 4) . $content;
}

=pod

=item $wire->start($sql)

Sends a Query without waiting. Every start needs its finish.

=item $wire->start_pipeline([$sql, @parameters], ...)

The same with the extended protocol: all statements, then one Sync.

=item $wire->start_messages($bytes)

The same with messages made by message($type, $content), parse($name, $sql), bind($portal, $name,
@parameters), execute($portal) and sync().

=cut

sub start
{
	my ($self, $sql) = @_;
	note $self->{node}->name . ": $sql" unless $self->{quiet};
	return $self->start_messages(message('Q', "$sql\0"));
}

sub parse { return message('P', "$_[0]\0$_[1]\0" . pack('n', 0)); }

sub bind    ## no critic (ProhibitBuiltinHomonyms)
{
	my ($portal, $name, @values) = @_;
	return message(
		'B',
		"$portal\0$name\0"
		  . pack('n n', 0, scalar @values)
		  . join('', map { defined $_ ? pack('N/a*', $_) : pack('l>', -1) } @values)
		  . pack('n', 0));
}

sub execute { return message('E', "$_[0]\0" . pack('N', 0)); }
sub sync    { return message('S', ''); }

sub start_pipeline
{
	my ($self, @statements) = @_;
	my $bytes = '';
	for (@statements)
	{
		my ($sql, @values) = @$_;
		note $self->{node}->name . ": (pipeline) $sql" unless $self->{quiet};
		$bytes .= parse('', $sql) . &bind('', '', @values) . execute('');
	}
	return $self->start_messages($bytes . sync());
}

sub start_messages
{
	my ($self, $bytes) = @_;
	$self->_begin;
	$self->_send($bytes);
	return;
}

# Error and notice fields, as psql shows them
sub _complaint
{
	my ($self, $content) = @_;
	my %field = map { substr($_, 0, 1) => substr($_, 1) } grep { length } split /\0/, $content;
	my $r = $self->{result};
	$r->{stderr} .= "$field{S}:  $field{C}: $field{M}\n";
	$r->{stderr} .= "DETAIL:  $field{D}\n" if defined $field{D};
	$r->{stderr} .= "HINT:  $field{H}\n"   if defined $field{H};
	return %field;
}

sub _take
{
	my ($self, $type, $content) = @_;
	my $r = $self->{result};
	if ($type eq 'D')
	{
		my ($n, $rest) = unpack 'n a*', $content;
		my @row;
		for (1 .. $n)
		{
			(my $length, $rest) = unpack 'l> a*', $rest;
			push @row, $length < 0 ? '' : substr $rest, 0, $length, '';
		}
		push @{ $r->{rows} }, join '|', @row;
	}
	elsif ($type eq 'S')
	{
		my ($name, $value) = split /\0/, $content, 3;
		$self->{parameters}{$name} = $value;
		push @{ $r->{tokens} }, $value if $name eq 'concord.token';
	}
	elsif ($type eq 'C') { push @{ $r->{tags} }, $content =~ s/\0$//r; }
	elsif ($type eq 'K') { $self->{pid} = unpack 'N', $content; }
	elsif ($type eq 'N') { $self->_complaint($content); }
	elsif ($type eq 'E')
	{
		my %field = $self->_complaint($content);
		@$r{qw(ok sqlstate message detail hint)} = (0, @field{qw(C M D H)});
	}
	elsif ($type eq 'R')
	{
		my $kind = unpack 'N', $content;
		@$r{qw(ok message)} = (0, "authentication $kind is asked for") if $kind;
	}
	elsif ($type eq 'Z')
	{
		$r->{status} = $content;
		$self->{ready} = 1;
	}
	return;
}

sub _lost
{
	my ($self) = @_;
	$self->{dead} = 1;
	$self->{result}{ok} = 0;
	$self->{result}{stderr} .= "the connection was lost\n";
	return;
}

=pod

=item $wire->busy()

Whether what was started is still running.

=cut

sub busy
{
	my ($self, $patience) = @_;
	return 0 if !defined $self->{began} || $self->{dead} || $self->{ready};
	while ($self->{select}->can_read($patience // 0))
	{
		$patience = 0;
		my $n = sysread $self->{socket}, $self->{buffer}, 65536, length $self->{buffer};
		while (length $self->{buffer} >= 5)
		{
			my ($type, $length) = unpack 'a N', $self->{buffer};
			last if length $self->{buffer} < 1 + $length;
			$self->_take($type, substr $self->{buffer}, 5, $length - 4);
			substr $self->{buffer}, 0, 1 + $length, '';
		}
		return 0 if $self->{ready};
		if (!$n)
		{
			$self->_lost;
			return 0;
		}
	}
	return 1;
}

=pod

=item $wire->finish([$seconds])

Waits for what was started; dies if that takes longer (default: 60).

=cut

sub finish
{
	my ($self, $bound) = @_;
	croak "nothing was started" unless defined $self->{began};
	my $since = time();
	my $until = $since + ($bound // 60);
	while ($self->busy(0.05))
	{
		die $self->{node}->name . ": no answer within " . ($bound // 60) . " s\n"
		  if time() > $until;
	}
	my $now = time();
	my $r = $self->{result};
	$r->{seconds} = $now - delete $self->{began};
	$r->{waited} = $now - $since;
	$r->{token} = $r->{tokens}[-1];
	$r->{out} = join "\n", @{ $r->{rows} };
	note $r->{stderr} if $r->{stderr} ne '' && !$self->{quiet};
	return $r;
}

=pod

=item $wire->run($sql, [$seconds]), $wire->pipeline([$sql, @parameters], ...)

start and finish.

=item $wire->get($sql, [$seconds])

The same, returns the rows; dies on an error.

=cut

sub run
{
	my ($self, $sql, $bound) = @_;
	$self->start($sql);
	return $self->finish($bound);
}

sub pipeline
{
	my ($self, @statements) = @_;
	$self->start_pipeline(@statements);
	return $self->finish;
}

sub get
{
	my ($self, $sql, $bound) = @_;
	my $result = $self->run($sql, $bound);
	croak $self->{node}->name . ": $sql\n$result->{stderr}" unless $result->{ok};
	return $result->{out};
}

=pod

=item $wire->pid(), $wire->token()

Process id of the session's backend; the last value of concord.token that was reported.

=item $wire->quit()

=back

=cut

sub pid   { return $_[0]->{pid}; }
sub token { return $_[0]->{parameters}{'concord.token'}; }

sub quit
{
	my ($self) = @_;
	my $socket = $self->{socket} or return;
	$self->_send(message('X', '')) unless defined $self->{began};
	close $socket;
	delete $self->{socket};
	$self->{dead} = 1;
	return;
}

1;
