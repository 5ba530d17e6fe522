
=pod

=head1 NAME

ConcordProxy - a TCP proxy in front of one PostgreSQL server that can be told to misbehave

=head1 SYNOPSIS

  my $proxy = ConcordProxy->new(to_port => $node->port);
  ... connect to 127.0.0.1, $proxy->port ...
  $proxy->hold('both', user => 'concord_node');      # a partition, for these connections only
  $proxy->pass;                                      # everything as if nothing had been
  my $rule = $proxy->cut_before('to_server', sql => '^COMMIT');
  $proxy->await_hit($rule, 10);
  my $counts = $proxy->counts(user => 'app');        # $counts->{syncs}, {switches}, {to_server}{bytes}

=head1 DESCRIPTION

The proxy is a process of its own, driven over a socket pair, so that it works while the test
waits for something else. It knows the frontend/backend protocol (version 3, not encrypted): what
it forwards are whole messages, and a fault can be bound to the user or the application_name of a
connection, to the SQL that is about to run, or to a message's bytes.

Directions are 'to_server', 'to_client' or 'both'. Filters are C<< user => $regex >> and C<<
application_name => $regex >>; without them a fault concerns every connection, those not yet made
included.

What was said about the two ends of a connection stays true under a fault: nothing is reordered or
lost but by a cut, and the end of a connection travels behind the data that was sent before it.

=cut

package ConcordProxy;

use strict;
use warnings;

use Carp;
use ConcordProxy::Server;
use JSON::PP ();
use POSIX    ();
use Socket;
use Time::HiRes qw(time);

my @proxies;

=pod

=head1 METHODS

=over

=item ConcordProxy->new(to_port => $port, [to_host => $host, port => $port, log => $file])

Listens on 127.0.0.1, on the given port or a free one. With C<log>, one line for each message but
rows of data.

=cut

sub new
{
	my ($class, %arg) = @_;
	croak "to_port is required" unless $arg{to_port};

	my $self = bless {
		to_host => $arg{to_host} // '127.0.0.1',
		to_port => $arg{to_port},
		log => $arg{log},
	}, $class;

	my $listener = ConcordProxy::Server::listen_on($arg{port} // 0) or croak "could not listen: $!";
	$self->{port} = $listener->sockport;

	socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or croak "socketpair: $!";
	$ours->autoflush(1);

	my $parent = $$;
	my $pid = fork() // croak "fork: $!";
	if ($pid == 0)
	{
		# END blocks and destructors are the test's: leave by _exit() alone
		my $ok = eval {
			close $ours;
			close $_->{control} for grep { $_->{control} } @proxies;
			$SIG{$_} = 'DEFAULT' for qw(INT TERM __DIE__ __WARN__);
			$SIG{PIPE} = 'IGNORE';
			$0 = "concord proxy $self->{port} -> $self->{to_port}";
			ConcordProxy::Server->new($self, $listener, $theirs, $parent)->serve;
			1;
		};
		print STDERR "proxy: $@" unless $ok;
		POSIX::_exit($ok ? 0 : 1);
	}
	close $theirs;
	close $listener;
	@$self{qw(pid control)} = ($pid, $ours);
	push @proxies, $self;
	return $self;
}

sub port { return $_[0]->{port}; }
sub host { return '127.0.0.1'; }

# One command, one answer.
sub _call
{
	my ($self, $command, %arg) = @_;
	croak "the proxy was stopped" unless $self->{control};
	print { $self->{control} } JSON::PP::encode_json({ command => $command, %arg }), "\n"
	  or croak "proxy: $!";
	my $line = readline($self->{control}) // croak "the proxy is gone";
	my $answer = JSON::PP::decode_json($line);
	croak "proxy: $answer->{error}" if defined $answer->{error};
	return $answer->{result};
}

=pod

=item $proxy->pass()

Ends all faults: accepts, forwards what was held, without delay, and forgets all rules.

=cut

sub pass { return $_[0]->_call('pass'); }

=pod

=item $proxy->delay($direction, $milliseconds, %filter)

Every message is forwarded that much later; order is kept.

=cut

sub delay
{
	my ($self, $direction, $ms, %filter) = @_;
	return $self->_call('delay', direction => $direction, ms => $ms, filter => \%filter);
}

=pod

=item $proxy->hold($direction, %filter)

Forwards nothing, not even the end of a connection, and keeps both ends open.  New connections are
accepted and hear nothing.

=item $proxy->release()

Ends all holds; what was held is forwarded.

=cut

sub hold
{
	my ($self, $direction, %filter) = @_;
	return $self->_call('hold', direction => $direction, filter => \%filter);
}

sub release { return $_[0]->_call('release'); }

=pod

=item $proxy->cut([mode => 'rst' | 'fin'], %filter)

Ends connections at once, at both ends; what they had not forwarded is lost.  Returns their number.

=cut

sub cut
{
	my ($self, %filter) = @_;
	my $mode = delete $filter{mode} // 'rst';
	return $self->_call('cut', mode => $mode, filter => \%filter);
}

=pod

=item $proxy->refuse(%filter), $proxy->accept()

New connections are refused by the kernel; with a filter they are reset when their start-up packet
tells who they are. Open connections are not touched.

=cut

sub refuse
{
	my ($self, %filter) = @_;
	return $self->_call('refuse', filter => \%filter);
}

sub accept { return $_[0]->_call('accept'); }

=pod

=item $proxy->rule($direction, ...)

Arms a fault for the first message in this direction that matches all of

  sql   => $regex   the statement is about to be executed: simple Query, or Bind of a statement with this text
  bytes => $regex   the message's content
  type  => 'C'      the message's type
  after => $n       that many bytes have been forwarded to this connection since; the message is split there
  user, application_name   as a filter

and then does C<action>: 'cut' (the default) cuts the connection, after what came before the
message and without it, in mode C<mode>; 'hold' forwards nothing more in this direction of this
connection; 'note' only counts. C<skip> messages are let through first; the rule then serves
C<times> times (1). With C<refuse>, no new connection is accepted from the moment the rule
strikes. Returns the rule's number.

=item $proxy->cut_before($direction, ...), $proxy->cut_after($direction, $n, ...)

Short for these.

=item $proxy->hits($rule), $proxy->await_hit($rule, $seconds)

How often a rule has struck; waits until it has, and returns false if it did not.

=cut

sub rule
{
	my ($self, $direction, %arg) = @_;
	my %filter;
	for my $key (qw(user application_name))
	{
		$filter{$key} = delete $arg{$key} if exists $arg{$key};
	}
	my %known = map { $_ => 1 } qw(sql bytes type after action mode skip times refuse);
	$known{$_} or croak "unknown part of a rule: $_" for keys %arg;
	croak "a rule needs one direction" unless $direction =~ /^to_(server|client)$/;
	return $self->_call('rule', direction => $direction, filter => \%filter, rule => \%arg);
}

sub cut_before
{
	my ($self, $direction, %arg) = @_;
	return $self->rule($direction, %arg, action => 'cut');
}

sub cut_after
{
	my ($self, $direction, $n, %arg) = @_;
	return $self->rule($direction, %arg, after => $n, action => 'cut');
}

sub hits
{
	my ($self, $rule) = @_;
	return $self->_call('hits', rule => $rule);
}

sub await_hit
{
	my ($self, $rule, $seconds) = @_;
	my $until = time() + $seconds;
	until ($self->hits($rule))
	{
		return 0 if time() > $until;
		select(undef, undef, undef, 0.01);
	}
	return 1;
}

=pod

=item $proxy->counts(%filter)

What passed since the start or C<reset_counts>: a hash of

  connections, open, cancels     accepted; still open; cancel requests (never part of a filter's connections)
  unanswered                     Sync and Query of open connections not answered yet (not reset)
  syncs, flushes, queries        frontend messages Sync, Flush, Query
  switches                       times the frontend spoke after the backend had: round trips that were waited for
  to_server, to_client           hashes of messages, bytes, types (type -> messages)
  statements                     SQL text -> times executed (Query, or Bind)

=item $proxy->connections(%filter)

A list of hashes: user, application_name, database, open.

=cut

sub counts
{
	my ($self, %filter) = @_;
	return $self->_call('counts', filter => \%filter);
}

sub reset_counts { return $_[0]->_call('reset_counts'); }

sub connections
{
	my ($self, %filter) = @_;
	return @{ $self->_call('connections', filter => \%filter) };
}

=pod

=item $proxy->stop()

Ends the proxy and its connections.  Happens by itself when the test ends.

=back

=cut

sub stop
{
	my ($self) = @_;
	return unless $self->{control};
	close delete $self->{control};
	local $?;
	waitpid($self->{pid}, 0);
	return;
}

END
{
	local $?;
	$_->stop for @proxies;
}

1;
