
=pod

=head1 NAME

ConcordTest - clusters of real servers for pg_concord's TAP tests

=head1 SYNOPSIS

  use ConcordTest;

  my $cluster = ConcordTest->new(nodes => [qw(a b c)], proxies => ['b']);
  $cluster->await_sql('c', q(SELECT count(*) FROM concord.nodes), 3, 'c knows all nodes');
  $cluster->expect_error('a', q(SELECT concord.execute_on('x', 'SELECT 1')), '42704', qr/"x"/,
      'unknown node');
  $cluster->no_leftovers;
  done_testing();

=head1 DESCRIPTION

Needs only PG_CONFIG (or pg_config in PATH) and IPC::Run; server programs, pg_regress and
PostgreSQL::Test are found from there.  Data and logs are in tmp_check of the current directory.

Every wait has a bound.  Seconds are seconds of a busy machine: a bound is what a user may be
told, not what is usual.

=cut

package ConcordTest;

use strict;
use warnings;

BEGIN
{
	my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
	my %dir = map { my $d = `$pg_config --$_`; chomp $d; ($_ => $d) } qw(bindir pgxs);
	die "$pg_config does not work" unless $dir{bindir} && $dir{pgxs};
	(my $src = $dir{pgxs}) =~ s{/makefiles/pgxs\.mk$}{};
	unshift @INC, "$src/test/perl";
	$ENV{PATH} = "$dir{bindir}:$ENV{PATH}";
	$ENV{PG_REGRESS} //= "$src/test/regress/pg_regress";
	# copies of one data directory would be one server to pg_concord
	delete $ENV{INITDB_TEMPLATE};
}

use Carp;
use ConcordProxy;
use ConcordSession;
use Exporter 'import';
use File::Path qw(rmtree);
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

our @EXPORT = qw(await backend_memory_kb fork_clients process_exists);

# Signs in a server's log that something is wrong whatever the test was about.
my $ALARM = qr/PANIC:|TRAP:|was terminated by signal|exited with exit code (?![01]\b)
	|refcount\ leak|reference\ leak|leaked|stuck\ spinlock|invalid\ memory\ alloc
	|exceeded\ max.*RegisteredResources|snapshot .* still active/x;

my %stopped;    # pid -> 1: sent SIGSTOP

=pod

=head1 METHODS

=over

=item ConcordTest->new(nodes => [names], ...)

Starts one server for each name, database C<app> in each with the extension, and makes them one
cluster whose first node, the authority, is the first of the list.  Options:

  proxies => [names]    these nodes' conninfo leads through a ConcordProxy, see proxy()
  form => 0             no cluster
  conf => "..."         more lines of postgresql.conf for all
  node_conf => { b => "..." }
  join => [names]       only these become members
  streaming => [names]  these can have standbys

=cut

sub new
{
	my ($class, %arg) = @_;
	my $self = bless { names => $arg{nodes}, nodes => {}, proxies => {}, log_from => {} }, $class;

	for my $name (@{ $arg{nodes} })
	{
		my $node = PostgreSQL::Test::Cluster->new($name);
		$node->init(allows_streaming => scalar(grep { $_ eq $name } @{ $arg{streaming} // [] }));
		$node->append_conf(
			'postgresql.conf',
			<<CONF . ($arg{conf} // '') . "\n"
			listen_addresses = '127.0.0.1'
			shared_preload_libraries = 'pg_concord'
			max_prepared_transactions = 20
			max_connections = 100
			shared_buffers = 16MB
			restart_after_crash = on
			log_line_prefix = '%m [%p] %q%a %u '
			concord.heartbeat_interval = 200ms
			concord.suspect_after = 1s
			concord.down_after = 2s
CONF
			  . ($arg{node_conf}{$name} // ''));
		$node->start;
		$node->safe_psql('postgres', 'CREATE DATABASE app');
		$node->safe_psql('app', 'CREATE EXTENSION pg_concord');
		$self->{nodes}{$name} = $node;
	}
	$self->add_proxy($_) for @{ $arg{proxies} // [] };
	$self->form(@{ $arg{join} // $arg{nodes} }) unless defined $arg{form} && !$arg{form};
	return $self;
}

sub add_proxy
{
	my ($self, $name) = @_;
	my $test = $PostgreSQL::Test::Utils::test_logfile;
	$self->{proxies}{$name} = ConcordProxy->new(
		to_port => $self->node($name)->port,
		port => PostgreSQL::Test::Cluster::get_free_port(),
		log => "${test}_${name}_proxy.log");
	return;
}

=pod

=item $cluster->add_standby($name, $standby)

Starts a physical standby of a node, which becomes known under its name to all methods but form()
and await_epoch().

=cut

sub add_standby
{
	my ($self, $name, $standby) = @_;
	my $node = PostgreSQL::Test::Cluster->new($standby);
	$self->{nodes}{$standby} = $node;
	$self->rebuild($name, $standby);
	$self->node($name)->wait_for_catchup($node);
	push @{ $self->{names} }, $standby;
	return $node;
}

=pod

=item $cluster->follow($name, $primary)

A standby, or what was stopped in order as a primary and has all its WAL there, receives from this
server from now on; it is started if it is stopped.

=item $cluster->rebuild($primary, names)

Servers become standbys of this one from a new base backup, whatever they had and did before.

=cut

sub follow
{
	my ($self, $name, $primary) = @_;
	my $node = $self->node($name);
	$node->enable_streaming($self->node($primary));
	defined $node->{_pid} ? $node->reload : $node->start;
	return;
}

sub rebuild
{
	my ($self, $primary, @names) = @_;
	my $from = $self->node($primary);
	my $backup = 'backup_' . ++$self->{backups};
	$from->backup($backup);
	for my $node (map { $self->node($_) } @names)
	{
		$node->stop('immediate') if defined $node->{_pid};
		rmtree($node->data_dir);
		$node->init_from_backup($from, $backup, has_streaming => 1);
		$node->start;
	}
	rmtree($from->backup_dir . "/$backup");
	return;
}

=pod

=item $cluster->form(names)

Creates the cluster on the first and adds the others, in this order; returns when all have the
same map.

=cut

sub form
{
	my ($self, $first, @others) = @_;
	$self->{members} = [$first];
	$self->get($first,
		sprintf(q{SELECT concord.create_cluster('%s', '%s')}, $first, $self->conninfo($first)));
	$self->join($_) for @others;
	return;
}

=pod

=item $cluster->join($name)

Adds a node through the authority and waits until all members have the map.

=cut

sub join
{
	my ($self, $name) = @_;
	$self->get($self->{members}[0],
		sprintf(q{SELECT concord.add_node('%s', '%s')}, $name, $self->conninfo($name)));
	push @{ $self->{members} }, $name;
	$self->await_epoch(30);
	return;
}

=pod

=item $cluster->spread()

Rebalances, so that every node owns slots, and waits until all know.

=cut

sub spread
{
	my ($self) = @_;
	$self->get($self->{members}[0], 'SELECT concord.rebalance()');
	$self->await_epoch(30);
	return;
}

=pod

=item node($name), proxy($name), conninfo($name, [$dbname]), names(), members()

=cut

sub node    { return $_[0]->{nodes}{ $_[1] }   // croak "no node $_[1]"; }
sub proxy   { return $_[0]->{proxies}{ $_[1] } // croak "no proxy for $_[1]"; }
sub names   { return @{ $_[0]->{names} }; }
sub members { return @{ $_[0]->{members} // [] }; }

sub conninfo
{
	my ($self, $name, $dbname) = @_;
	my $where = $self->{proxies}{$name} // $self->node($name);
	return "host=127.0.0.1 port=" . $where->port . " dbname=" . ($dbname // 'app');
}

=pod

=item $cluster->session($name, [dbname =>, user =>, options =>])

A ConcordSession.

=item $cluster->run($where, $sql, [$seconds, %session]), $cluster->get($where, $sql, ...)

One statement in a new session, or in the given session: a ConcordSession's result; get() returns
the rows and dies on an error.

=cut

sub session
{
	my ($self, $name, %arg) = @_;
	return ConcordSession->new($self->node($name), %arg);
}

sub run
{
	my ($self, $where, $sql, $bound, %arg) = @_;
	return $where->run($sql, $bound) if ref $where;
	my $session = $self->session($where, %arg);
	my $result = $session->run($sql, $bound);
	$session->quit;
	return $result;
}

sub get
{
	my ($self, $where, $sql, $bound, %arg) = @_;
	my $result = $self->run($where, $sql, $bound, %arg);
	croak "$sql\n$result->{stderr}" unless $result->{ok};
	return $result->{out};
}

# SQL on every running server, without a cluster being needed
sub get_everywhere
{
	my ($self, $sql) = @_;
	return map { $_ => $self->get($_, $sql) } grep { defined $self->node($_)->{_pid} } $self->names;
}

=pod

=item $cluster->is_sql($where, $sql, $expected, $name, [%session])

One test: the statement gives these rows.

=cut

sub is_sql
{
	my ($self, $where, $sql, $expected, $name, %arg) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $result = $self->run($where, $sql, undef, %arg);
	return is($result->{ok} ? $result->{out} : $result->{stderr}, $expected, $name);
}

=pod

=item $cluster->expect_error($where, $sql, $sqlstate, $regex, $name, [within => $seconds, %session])

One test: the statement fails with this SQLSTATE, a text (message, detail, hint, context) that
matches, and in that time. Returns the result.

=cut

sub expect_error
{
	my ($self, $where, $sql, $sqlstate, $regex, $name, %arg) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $within = delete $arg{within} // 30;
	my $result = eval { $self->run($where, $sql, $within + 30, %arg) }
	  // { ok => 0, stderr => "$@", waited => $within + 30 };
	return expect_failure($result, $sqlstate, $regex, $name, $within);
}

# The same for a result that is there: $cluster->expect_failed($session->finish, ...).  The time
# is that of finish.
sub expect_failed
{
	my ($self, $result, $sqlstate, $regex, $name, %arg) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return expect_failure($result, $sqlstate, $regex, $name, $arg{within} // 30);
}

sub expect_failure
{
	my ($result, $sqlstate, $regex, $name, $within) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $state = ref $sqlstate ? $sqlstate : qr/^$sqlstate$/;
	my $good =
		 !$result->{ok}
	  && ($result->{sqlstate} // '') =~ $state
	  && $result->{stderr} =~ $regex
	  && $result->{waited} <= $within;
	ok($good, $name)
	  or diag(
		sprintf(
			"expected %s, %s within %s s; got after %.1f s:\n%s%s",
			$sqlstate, $regex, $within,
			$result->{waited}, $result->{out} // '', $result->{stderr}));
	return $result;
}

=pod

=item $cluster->await_sql($where, $sql, $expected, $name, [$seconds, %session])

One test: within the time (20) the statement gives these rows; a Regexp is matched. It may fail
until then.

=cut

sub await_sql
{
	my ($self, $where, $sql, $expected, $name, $bound, %arg) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $match = ref $expected ? $expected : qr/\A\Q$expected\E\z/;
	my $last = '';
	my $good = await(
		sub {
			my $result = eval { $self->run($where, $sql, 30, %arg) } // { ok => 0, stderr => "$@" };
			$last = $result->{ok} ? $result->{out} : $result->{stderr};
			return $result->{ok} && $last =~ $match;
		},
		$bound // 20);
	ok($good, $name) or diag("expected $expected; last answer to\n$sql\nwas\n$last");
	return $good;
}

=pod

=item $cluster->epoch($name), $cluster->await_epoch($seconds, [names])

The map's epoch in a node; waits until these (default: all running members) have the newest of
them. Dies if not.

=cut

sub epoch
{
	my ($self, $name) = @_;
	return $self->get($name, 'SELECT epoch FROM concord.map_state');
}

sub await_epoch
{
	my ($self, $bound, @names) = @_;
	@names = grep { defined $self->node($_)->{_pid} } $self->members unless @names;
	my %epoch;
	await(
		sub {
			%epoch = map { $_ => $self->epoch($_) || 0 } @names;
			my ($newest) = sort { $b <=> $a } values %epoch;
			return !grep { $_ != $newest } values %epoch;
		},
		$bound
	) or croak 'no common epoch: ' . CORE::join(', ', map { "$_ $epoch{$_}" } sort keys %epoch);
	return (values %epoch)[0];
}

=pod

=item $cluster->remote_backends($name, [$where])

SQL: the users' sessions that other nodes have on this one, as a number; C<$where> is a condition on
pg_stat_activity.

=cut

sub remote_backends
{
	my ($self, $name, $where) = @_;
	$where //= 'true';
	return $self->get($name, remote_backends_sql($where));
}

sub remote_backends_sql
{
	my ($where) = @_;
	return "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'concord/%'"
	  . " AND usename <> 'concord_node' AND ($where)";
}

=pod

=item $cluster->no_leftovers([sums => { sql => expected }, but => qr/alarm that is expected/])

Tests of what must hold after everything, on every running server: no prepared transaction, no
remote session in a transaction, no advisory lock, no alarming line in the log; and with sums,
that the sum of the statement's value over the servers is as expected.

=cut

sub no_leftovers
{
	my ($self, %arg) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $sql = q{SELECT 'prepared ' || gid FROM pg_prepared_xacts
		UNION ALL SELECT 'in transaction: ' || application_name || ' ' || state || ' ' || query
			FROM pg_stat_activity WHERE application_name LIKE 'concord/%'
			AND usename <> 'concord_node' AND (xact_start IS NOT NULL OR state <> 'idle')
		UNION ALL SELECT 'advisory lock of ' || coalesce(pid::text, '?') FROM pg_locks
			WHERE locktype = 'advisory' AND objsubid <> 20550};
	for my $name ($self->names)
	{
		my $node = $self->node($name);
		if (defined $node->{_pid})
		{
			$self->await_sql($name, $sql, '', "nothing is left behind on $name");
		}
		my @alarms = grep { $_ =~ $ALARM && !($arg{but} && $_ =~ $arg{but}) }
		  split /\n/, $self->log($name);
		is(CORE::join("\n", @alarms), '', "nothing alarming in the log of $name");
	}
	while (my ($sum_sql, $expected) = each %{ $arg{sums} // {} })
	{
		my %value = $self->get_everywhere($sum_sql);
		my $sum = 0;
		$sum += $_ for values %value;
		is($sum, $expected, "sum over all nodes: $sum_sql");
	}
	return;
}

=pod

=item $cluster->log($name, [$from]), $cluster->log_position($name), $cluster->await_log($name, $regex, $from, $seconds)

The server's log, from a position on; waits until it matches.

=cut

sub log
{
	my ($self, $name, $from) = @_;
	my $text = slurp_file($self->node($name)->logfile);
	return substr($text, $from // 0);
}

sub log_position { return -s $_[0]->node($_[1])->logfile; }

sub await_log
{
	my ($self, $name, $regex, $from, $bound) = @_;
	return await(sub { return $self->log($name, $from) =~ $regex }, $bound);
}

=pod

=item $cluster->crash($name), $cluster->start($name), $cluster->stop($name, [$mode])

Kills all of a server's processes at once, as a power failure does.

=item $cluster->freeze($name), $cluster->thaw($name)

SIGSTOP and SIGCONT to all of a server's processes: it keeps its connections and answers nothing.

=cut

# A postmaster's children
sub children
{
	my ($postmaster) = @_;
	my @pids;
	for my $file (glob '/proc/[0-9]*/stat')
	{
		open my $fh, '<', $file or next;
		my $line = <$fh> // next;
		push @pids, $1 if $line =~ /^(\d+) \(.*\) \S $postmaster /;
	}
	return @pids;
}

sub crash
{
	my ($self, $name) = @_;
	my $node = $self->node($name);
	my @pids = ($node->{_pid}, children($node->{_pid}));
	$node->kill9;
	kill 'KILL', @pids;
	await(
		sub {
			return !grep { process_exists($_) } @pids;
		},
		30) or die "processes survive SIGKILL";
	# a zombie that init has not reaped yet looks like a running server to the next one
	await(sub { return !kill 0, $pids[0] }, 10) or unlink $node->data_dir . '/postmaster.pid';
	return;
}

sub start
{
	my ($self, $name) = @_;
	return $self->node($name)->start;
}

sub stop
{
	my ($self, $name, $mode) = @_;
	return $self->node($name)->stop($mode // 'fast');
}

sub freeze
{
	my ($self, $name) = @_;
	my $postmaster = $self->node($name)->{_pid};
	# the postmaster first, so that no child is born in between
	for my $pid ($postmaster, children($postmaster))
	{
		$stopped{$pid} = 1 if kill 'STOP', $pid;
	}
	return;
}

sub thaw
{
	my ($self, $name) = @_;
	my $postmaster = $self->node($name)->{_pid};
	for my $pid (children($postmaster), $postmaster)
	{
		kill 'CONT', $pid if delete $stopped{$pid};
	}
	return;
}

=pod

=item $cluster->await_stopped($session)

Waits until the session's backend has stopped itself, at a fault point with "stop". Dies if not.

=cut

sub await_stopped
{
	my ($self, $session) = @_;
	my $pid = $session->pid;
	await(
		sub {
			open my $fh, '<', "/proc/$pid/stat" or return 0;
			return (<$fh> // '') =~ /\) T /;
		},
		20) or croak 'the backend does not stop';
	return;
}

=pod

=item $cluster->cancel($session, [$function])

pg_cancel_backend() (or pg_terminate_backend) for a session's backend.

=back

=cut

sub cancel
{
	my ($self, $session, $function) = @_;
	$function //= 'pg_cancel_backend';
	return $self->get($session->{node}->name, "SELECT $function(" . $session->pid . ')');
}

=pod

=head1 FUNCTIONS

=over

=item await($code, $seconds)

Calls until it returns true; false if that does not happen in time.

=cut

sub await
{
	my ($code, $bound) = @_;
	my $until = time() + $bound;
	until ($code->())
	{
		return 0 if time() > $until;
		select(undef, undef, undef, 0.02);
	}
	return 1;
}

=pod

=item backend_memory_kb($pid, $field)

A field of the process's status: VmHWM (its peak), RssAnon ...

=item fork_clients($n, $code)

So many processes, each of which calls the code with its number, from 1; returns their ids, to be waited for.

=item process_exists($pid)

A zombie does not.

=back

=cut

sub fork_clients
{
	my ($n, $code) = @_;
	my @pids;
	for my $number (1 .. $n)
	{
		my $pid = fork() // die "fork: $!";
		if ($pid == 0)
		{
			eval { $code->($number); 1 } or print STDERR "client $number: $@";
			POSIX::_exit(0);
		}
		push @pids, $pid;
	}
	return @pids;
}

sub backend_memory_kb
{
	my ($pid, $field) = @_;
	return slurp_file("/proc/$pid/status") =~ /^$field:\s+(\d+) kB/m ? $1 : undef;
}

sub process_exists
{
	my ($pid) = @_;
	open my $fh, '<', "/proc/$pid/stat" or return 0;
	my $line = <$fh> // return 0;
	return $line !~ /\) [ZX] /;
}

# Servers that stand still could not be shut down; this runs before PostgreSQL::Test::Cluster's END.
END
{
	local $?;
	kill 'CONT', keys %stopped if %stopped;
}

1;
