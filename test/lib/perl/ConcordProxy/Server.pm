
# ConcordProxy's process; ConcordProxy says what it promises.
#
# One connection is
#	{ id, startup, kind, opaque, ends => { to_server => socket, to_client => socket },
#	  to_server => FLOW, to_client => FLOW, statements, executed, switches, backend_spoke,
#	  unanswered, doomed, closed }
# and a flow, one direction of it, is
#	{ in, phase, queue, queued, eof, ended, barrier, budget, messages, bytes, types }
# whose queue holds [ time due, data ] or [ time due, undef, what to do ].

package ConcordProxy::Server;

use strict;
use warnings;

use Errno qw(EAGAIN EWOULDBLOCK EINTR EINPROGRESS);
use IO::Socket::INET;
use JSON::PP ();
use Socket;
use Time::HiRes qw(time);

# Bytes waiting in one direction of a connection above which its source is not read.
use constant BUFFER_LIMIT => 8 * 1024 * 1024;

# Codes that stand where a start-up packet has its protocol version.
use constant {
	CANCEL_REQUEST => 80877102,
	SSL_REQUEST => 80877103,
	GSSENC_REQUEST => 80877104,
};

my %OTHER = (to_server => 'to_client', to_client => 'to_server');

# A listening socket of 127.0.0.1; port 0 is any.
sub listen_on
{
	my ($port) = @_;
	return IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		LocalPort => $port,
		Listen => 256,
		ReuseAddr => 1,
		Blocking => 0,
		Proto => 'tcp');
}

sub new
{
	my ($class, $proxy, $listener, $control, $parent) = @_;
	my $self = bless {
		proxy => $proxy,
		listener => $listener,
		control => $control,
		parent => $parent,
		command => '',
		connections => {},
		past => [],
		rules => [],
		next_id => 1,
		next_rule => 1,
		cancels => 0,
	}, $class;
	$self->clear_faults;
	$control->blocking(0);
	$control->autoflush(1);
	if ($proxy->{log})
	{
		open $self->{log}, '>>', $proxy->{log} or die "could not open $proxy->{log}: $!";
		$self->{log}->autoflush(1);
	}
	return $self;
}

sub clear_faults
{
	my ($self) = @_;
	@$self{qw(holds delays refusals)} = ([], [], []);
	return;
}

sub note_line
{
	my ($self, $connection, $text) = @_;
	return unless $self->{log};
	my $id = $connection ? $connection->{id} : '-';
	$text =~ s/[^\x20-\x7e]/./g;
	printf { $self->{log} } "%.4f %s %s\n", time(), $id, $text;
	return;
}

# Runs until the test is gone.
sub serve
{
	my ($self) = @_;
	while (getppid() == $self->{parent})
	{
		my ($read, $write, $wait) = $self->interest;
		my $n = select($read, $write, undef, $wait);
		next             if $n < 0 && $! == EINTR;
		die "select: $!" if $n < 0;

		# commands last: what was sent before a command is dealt with before it
		for my $connection (values %{ $self->{connections} })
		{
			$self->move($connection, $read, $write);
		}
		$self->take_connections
		  if $self->{listener} && vec($read, fileno($self->{listener}), 1);
		return if vec($read, fileno($self->{control}), 1) && !$self->take_commands;
	}
	return;
}

# The sets for select() and how long it may last.
sub interest
{
	my ($self) = @_;
	my ($read, $write, $due) = ('', '', time() + 1);

	vec($read, fileno($self->{control}), 1) = 1;
	vec($read, fileno($self->{listener}), 1) = 1 if $self->{listener};
	for my $connection (values %{ $self->{connections} })
	{
		for my $direction (qw(to_server to_client))
		{
			my $flow = $connection->{$direction};
			my $source = $connection->{ends}{ $OTHER{$direction} };
			my $sink = $connection->{ends}{$direction};

			vec($read, fileno($source), 1) = 1
			  if !$flow->{eof}
			  && !$connection->{doomed}
			  && $flow->{queued} < BUFFER_LIMIT;
			next if !@{ $flow->{queue} } || $self->held($connection, $direction);
			my $at = $flow->{queue}[0][0];
			if ($at > time()) { $due = $at if $at < $due; }
			else              { vec($write, fileno($sink), 1) = 1; }
		}
	}
	my $wait = $due - time();
	return ($read, $write, $wait > 0 ? $wait : 0);
}

sub matches
{
	my ($connection, $filter) = @_;
	return 1 unless %$filter;
	return 0 unless $connection->{startup};
	for my $key (keys %$filter)
	{
		return 0 unless ($connection->{startup}{$key} // '') =~ /$filter->{$key}/;
	}
	return 1;
}

sub concerns
{
	my ($fault, $connection, $direction) = @_;
	return ($fault->{direction} eq 'both' || $fault->{direction} eq $direction)
	  && matches($connection, $fault->{filter});
}

sub held
{
	my ($self, $connection, $direction) = @_;
	return 1 if $connection->{$direction}{barrier};
	return scalar grep { concerns($_, $connection, $direction) } @{ $self->{holds} };
}

sub take_connections
{
	my ($self) = @_;
	while (my $client = $self->{listener}->accept)
	{
		my $server = IO::Socket::INET->new(
			PeerAddr => $self->{proxy}{to_host},
			PeerPort => $self->{proxy}{to_port},
			Proto => 'tcp',
			Blocking => 0);
		if (!$server)
		{
			$self->note_line(undef, "server not reachable: $!");
			end_socket($client, 'rst');
			next;
		}
		for my $socket ($client, $server)
		{
			$socket->blocking(0);
			setsockopt($socket, Socket::IPPROTO_TCP(), Socket::TCP_NODELAY(), 1);
		}
		my $connection = {
			id => $self->{next_id}++,
			kind => 'new',
			statements => {},
			unanswered => 0,
			ends => { to_server => $server, to_client => $client },
			to_server => new_flow('startup'),
			to_client => new_flow('messages'),
		};
		clear_counts($connection);
		$self->{connections}{ $connection->{id} } = $connection;
		$self->note_line($connection, 'accepted');
	}
	return;
}

sub new_flow
{
	my ($phase) = @_;
	return { in => '', phase => $phase, queue => [], queued => 0, budget => {} };
}

sub clear_counts
{
	my ($connection) = @_;
	for my $direction (qw(to_server to_client))
	{
		my $flow = $connection->{$direction};
		@$flow{qw(messages bytes types)} = (0, 0, {});
	}
	@$connection{qw(switches executed)} = (0, {});
	return;
}

# Reads and writes what select() said can be.
sub move
{
	my ($self, $connection, $read, $write) = @_;
	for my $direction (qw(to_server to_client))
	{
		last if $connection->{closed};
		my $source = $connection->{ends}{ $OTHER{$direction} };
		$self->receive($connection, $direction, $source) if vec($read, fileno($source), 1);
	}
	for my $direction (qw(to_server to_client))
	{
		last if $connection->{closed};
		$self->send_on($connection, $direction)
		  if vec($write, fileno($connection->{ends}{$direction}), 1);
	}
	return;
}

sub again { return $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR || $! == EINPROGRESS; }

sub receive
{
	my ($self, $connection, $direction, $source) = @_;
	my $flow = $connection->{$direction};
	return if $flow->{eof} || $connection->{doomed};

	my $n = sysread($source, $flow->{in}, 262144, length $flow->{in});
	return if !defined $n && again();
	if (!$n)
	{
		# an error is an end, too: nothing more will come, and the other side is told by its own
		# read or write
		$flow->{eof} = 1;
		$self->note_line($connection, "$direction: end" . (defined $n ? '' : " ($!)"));
		$self->enqueue($connection, $direction, delete $flow->{in}) if length $flow->{in};
		$flow->{in} = '';
		$self->enqueue($connection, $direction, undef, 'end');
		return;
	}
	$flow->{bytes} += $n;
	$self->parse($connection, $direction);
	return;
}

# Cuts the input into messages and passes each on.
sub parse
{
	my ($self, $connection, $direction) = @_;
	my $flow = $connection->{$direction};
	my $at = 0;

	while (!$connection->{doomed} && length($flow->{in}) - $at > 0)
	{
		my $have = length($flow->{in}) - $at;
		my ($type, $size);
		if    ($connection->{opaque}) { ($type, $size) = ('', $have); }
		elsif ($flow->{phase} eq 'startup')
		{
			last if $have < 4;
			($type, $size) = ('', unpack('N', substr($flow->{in}, $at, 4)));
		}
		elsif ($direction eq 'to_client' && $connection->{awaits_byte})
		{
			($type, $size) = ('', 1);
		}
		else
		{
			last if $have < 5;
			($type, $size) = unpack('aN', substr($flow->{in}, $at, 5));
			$size++;
		}
		last if $have < $size;
		my $message = substr($flow->{in}, $at, $size);
		$at += $size;
		$self->message($connection, $direction, $type, $message);
	}
	substr($flow->{in}, 0, $at, '');
	return;
}

sub message
{
	my ($self, $connection, $direction, $type, $message) = @_;
	my $flow = $connection->{$direction};

	$flow->{messages}++;
	$flow->{types}{$type}++;
	if ($direction eq 'to_client')
	{
		$connection->{backend_spoke} = 1;
		# (the one that ends the start-up answers nothing)
		$connection->{unanswered}-- if $type eq 'Z' && $connection->{unanswered};
	}
	elsif ($connection->{backend_spoke})
	{
		$connection->{backend_spoke} = 0;
		$connection->{switches}++;
	}

	my $sql;
	if ($connection->{awaits_byte} && $direction eq 'to_client')
	{
		$connection->{awaits_byte} = 0;
		$connection->{opaque} = 1 if $message ne 'N';
	}
	elsif ($flow->{phase} eq 'startup' && !$connection->{opaque})
	{
		$self->startup($connection, $flow, $message);
		return if $connection->{closed};
	}
	elsif ($direction eq 'to_server')
	{
		$sql = statement($connection, $type, $message);
		$connection->{executed}{$sql}++ if defined $sql;
		$connection->{unanswered}++ if $type =~ /[SQF]/;
	}
	$self->note_line($connection,
			"$direction "
		  . ($type eq '' ? '-' : $type) . ' '
		  . length($message)
		  . (defined $sql ? " $sql" : $type eq 'C' ? ' ' . substr($message, 5, 60) : ''))
	  if $self->{log} && $type ne 'D';

	my $strike = $self->strike($connection, $direction, $type, $message, $sql);
	return $self->enqueue($connection, $direction, $message) unless $strike;
	my ($rule, $before) = @$strike;
	$self->enqueue($connection, $direction, $before) if length $before;
	if ($rule->{action} eq 'cut')
	{
		$connection->{doomed} = 1;
		$self->enqueue($connection, $direction, undef, $rule->{mode} // 'rst');
	}
	else
	{
		$self->enqueue($connection, $direction, undef, 'barrier');
		$self->enqueue($connection, $direction, substr($message, length $before));
	}
	return;
}

# A start-up packet: who connects, or a request that has none.
sub startup
{
	my ($self, $connection, $flow, $message) = @_;
	my (undef, $code) = unpack('NN', $message);

	if ($code == SSL_REQUEST || $code == GSSENC_REQUEST)
	{
		$connection->{awaits_byte} = 1;
		return;
	}
	$flow->{phase} = 'messages';
	if ($code == CANCEL_REQUEST)
	{
		$connection->{kind} = 'cancel';
		$self->{cancels}++;
		return;
	}
	my %startup = split /\0/, substr($message, 8);
	$connection->{startup} = \%startup;
	$connection->{kind} = 'session';
	$self->note_line($connection,
		'user ' . ($startup{user} // '?') . ', ' . ($startup{application_name} // ''));
	$self->end($connection, 'rst')
	  if grep { %$_ && matches($connection, $_) } @{ $self->{refusals} };
	return;
}

# The SQL that this frontend message is about to execute, or undef.
sub statement
{
	my ($connection, $type, $message) = @_;
	if ($type eq 'Q')
	{
		return (split /\0/, substr($message, 5))[0] // '';
	}
	if ($type eq 'P')
	{
		my ($name, $sql) = split /\0/, substr($message, 5);
		$connection->{statements}{ $name // '' } = $sql // '';
	}
	elsif ($type eq 'B')
	{
		my (undef, $name) = split /\0/, substr($message, 5), 3;
		return $connection->{statements}{ $name // '' } // '';
	}
	return undef;
}

# The first rule that strikes here, with the part of the message that goes before it.
sub strike
{
	my ($self, $connection, $direction, $type, $message, $sql) = @_;
	for my $rule (@{ $self->{rules} })
	{
		next if $rule->{times} <= 0 || !concerns($rule, $connection, $direction);
		next if defined $rule->{type}  && $rule->{type} ne $type;
		next if defined $rule->{sql}   && !(defined $sql && $sql =~ /$rule->{sql}/s);
		next if defined $rule->{bytes} && $message !~ /$rule->{bytes}/s;
		my $before = '';
		if (defined $rule->{after})
		{
			my $left = $connection->{$direction}{budget}{ $rule->{number} } //= $rule->{after};
			$connection->{$direction}{budget}{ $rule->{number} } -= length $message;
			next if $left >= length $message;
			$before = substr($message, 0, $left);
		}
		elsif ($rule->{skip} > 0)
		{
			$rule->{skip}--;
			next;
		}
		$rule->{times}--;
		$rule->{hits}++;
		$self->note_line($connection, "rule $rule->{number} strikes: $rule->{action}");
		$self->stop_listening if $rule->{refuse};
		next                  if $rule->{action} eq 'note';
		return [ $rule, $before ];
	}
	return undef;
}

sub enqueue
{
	my ($self, $connection, $direction, $data, $what) = @_;
	my $flow = $connection->{$direction};
	my $at = 0;
	for my $delay (grep { concerns($_, $connection, $direction) } @{ $self->{delays} })
	{
		$at = time() + $delay->{ms} / 1000;
	}
	my $last = @{ $flow->{queue} } ? $flow->{queue}[-1] : undef;
	$at = $last->[0] if $last && $last->[0] > $at;
	if (defined $data)
	{
		$flow->{queued} += length $data;
		if ($last && defined $last->[1] && $last->[0] == $at) { $last->[1] .= $data; }
		else { push @{ $flow->{queue} }, [ $at, $data ]; }
	}
	else { push @{ $flow->{queue} }, [ $at, undef, $what ]; }
	return;
}

sub send_on
{
	my ($self, $connection, $direction) = @_;
	my $flow = $connection->{$direction};
	my $sink = $connection->{ends}{$direction};
	my $queue = $flow->{queue};

	while (@$queue && $queue->[0][0] <= time() && !$self->held($connection, $direction))
	{
		my ($at, $data, $what) = @{ $queue->[0] };
		if (defined $data)
		{
			my $n = syswrite($sink, $data);
			return if !defined $n && again();
			return $self->end($connection, 'rst') unless defined $n;
			$flow->{queued} -= $n;
			substr($queue->[0][1], 0, $n, '');
			return if length $queue->[0][1];
			shift @$queue;
			next;
		}
		shift @$queue;
		if    ($what eq 'barrier') { $flow->{barrier} = 1; }
		elsif ($what eq 'end')
		{
			shutdown($sink, SHUT_WR);
			$flow->{ended} = 1;
			return $self->end($connection, 'fin') if $connection->{ $OTHER{$direction} }{ended};
		}
		else { return $self->end($connection, $what); }
	}
	return;
}

# Closes both ends: 'rst', or 'fin' if the kernel has nothing unread (else it resets by itself).
sub end
{
	my ($self, $connection, $mode) = @_;
	return if $connection->{closed};
	$self->note_line($connection, "closed ($mode)");
	end_socket($_, $mode) for values %{ $connection->{ends} };
	$connection->{closed} = $connection->{doomed} = 1;
	delete $self->{connections}{ $connection->{id} };
	delete $connection->{ends};
	$connection->{$_}{queue} = [] for qw(to_server to_client);
	push @{ $self->{past} }, $connection;
	return;
}

sub end_socket
{
	my ($socket, $mode) = @_;
	if ($mode eq 'rst')
	{
		setsockopt($socket, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0));
	}
	else
	{
		my $rest;
		1 while sysread($socket, $rest, 262144);
		shutdown($socket, SHUT_RDWR);
	}
	close $socket;
	return;
}

sub stop_listening
{
	my ($self) = @_;
	return unless $self->{listener};
	$self->note_line(undef, 'refusing');
	close delete $self->{listener};
	return;
}

sub start_listening
{
	my ($self) = @_;
	return if $self->{listener};
	$self->{listener} = listen_on($self->{proxy}{port})
	  or die "could not listen on port $self->{proxy}{port} again: $!\n";
	$self->note_line(undef, 'accepting');
	return;
}

# Returns false when the test hung up.
sub take_commands
{
	my ($self) = @_;
	my $n = sysread($self->{control}, $self->{command}, 65536, length $self->{command});
	return again() if !defined $n;
	return 0 unless $n;
	while ($self->{command} =~ s/^(.*)\n//)
	{
		my $arg = JSON::PP::decode_json($1);
		my $result = eval { $self->obey($arg) };
		my $answer = $@ ne '' ? { error => "$@" } : { result => $result };
		$self->{control}->blocking(1);
		print { $self->{control} } JSON::PP::encode_json($answer), "\n";
		$self->{control}->blocking(0);
	}
	return 1;
}

my %COMMANDS = (
	pass => \&obey_pass,
	delay => sub { my ($self, $arg) = @_; push @{ $self->{delays} }, $arg; return 1; },
	hold => sub { my ($self, $arg) = @_; push @{ $self->{holds} }, $arg; return 1; },
	release => \&obey_release,
	cut => \&obey_cut,
	refuse => \&obey_refuse,
	accept => \&obey_accept,
	rule => \&obey_rule,
	hits => \&obey_hits,
	counts => \&obey_counts,
	reset_counts => \&obey_reset_counts,
	connections => \&obey_connections,);

sub obey
{
	my ($self, $arg) = @_;
	my $how = $COMMANDS{ $arg->{command} } or die "unknown command $arg->{command}\n";
	$self->note_line(undef, "command $arg->{command}")
	  unless $arg->{command} =~ /^(hits|counts|connections)$/;
	return $how->($self, $arg);
}

sub obey_pass
{
	my ($self) = @_;
	$self->clear_faults;
	$self->{rules} = [];
	$self->obey_release;
	$self->start_listening;
	return 1;
}

sub obey_release
{
	my ($self) = @_;
	$self->{holds} = [];
	for my $connection (values %{ $self->{connections} })
	{
		$connection->{$_}{barrier} = 0 for qw(to_server to_client);
	}
	return 1;
}

sub obey_cut
{
	my ($self, $arg) = @_;
	my @victims =
	  grep { matches($_, $arg->{filter}) } values %{ $self->{connections} };
	$self->end($_, $arg->{mode}) for @victims;
	return scalar @victims;
}

sub obey_refuse
{
	my ($self, $arg) = @_;
	if   (%{ $arg->{filter} }) { push @{ $self->{refusals} }, $arg->{filter}; }
	else                       { $self->stop_listening; }
	return 1;
}

sub obey_accept
{
	my ($self) = @_;
	$self->{refusals} = [];
	$self->start_listening;
	return 1;
}

sub obey_rule
{
	my ($self, $arg) = @_;
	my $rule = {
		action => 'cut',
		skip => 0,
		times => 1,
		%{ $arg->{rule} },
		direction => $arg->{direction},
		filter => $arg->{filter},
		number => $self->{next_rule}++,
		hits => 0,
	};
	push @{ $self->{rules} }, $rule;
	$self->{hits}{ $rule->{number} } = $rule;
	return $rule->{number};
}

sub obey_hits
{
	my ($self, $arg) = @_;
	my $rule = $self->{hits}{ $arg->{rule} } or die "no rule $arg->{rule}\n";
	return $rule->{hits};
}

sub all_connections
{
	my ($self, $filter) = @_;
	return grep { matches($_, $filter) } @{ $self->{past} }, values %{ $self->{connections} };
}

sub obey_counts
{
	my ($self, $arg) = @_;
	my %sum = (
		connections => 0,
		open => 0,
		switches => 0,
		unanswered => 0,
		cancels => $self->{cancels},
		statements => {},
		map { $_ => { messages => 0, bytes => 0, types => {} } } qw(to_server to_client));
	for my $connection ($self->all_connections($arg->{filter}))
	{
		next if $connection->{kind} eq 'cancel';
		$sum{connections}++ unless $connection->{counted_before};
		if (!$connection->{closed})
		{
			$sum{open}++;
			$sum{unanswered} += $connection->{unanswered};
		}
		$sum{switches} += $connection->{switches};
		$sum{statements}{$_} += $connection->{executed}{$_} for keys %{ $connection->{executed} };
		for my $direction (qw(to_server to_client))
		{
			my $flow = $connection->{$direction};
			$sum{$direction}{$_} += $flow->{$_} for qw(messages bytes);
			$sum{$direction}{types}{$_} += $flow->{types}{$_} for keys %{ $flow->{types} };
		}
	}
	my $types = $sum{to_server}{types};
	@sum{qw(syncs flushes queries)} = map { $types->{$_} // 0 } qw(S H Q);
	return \%sum;
}

sub obey_reset_counts
{
	my ($self) = @_;
	$self->{past} = [];
	$self->{cancels} = 0;
	for my $connection (values %{ $self->{connections} })
	{
		clear_counts($connection);
		$connection->{counted_before} = 1;
	}
	return 1;
}

sub obey_connections
{
	my ($self, $arg) = @_;
	return [
		map {
			{
				(map { $_ => '' } qw(user application_name database)), %{ $_->{startup} // {} },
				  open => $_->{closed}
				  ? 0
				  : 1
			}
		} $self->all_connections($arg->{filter})
	];
}

1;
