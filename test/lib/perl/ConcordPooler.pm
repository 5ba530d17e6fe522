
=pod

=head1 NAME

ConcordPooler - a PgBouncer of the test's own

=head1 SYNOPSIS

  my $pooler = ConcordPooler->new(
      databases => { b => [ $node, 1 ] },               # one server connection
      conf => 'track_extra_parameters = concord.token');
  my $wire = ConcordWire->new($pooler, dbname => 'b');

=head1 DESCRIPTION

PgBouncer in transaction mode, as whoever runs the test, on a free port of 127.0.0.1, without
passwords. It ends with the test.

=cut

package ConcordPooler;

use strict;
use warnings;

use Carp;
use ConcordTest;
use IO::Socket::INET;
use POSIX ();
use Test::More;

my @poolers;

=pod

=head1 METHODS

=over

=item ConcordPooler->version()

Major and minor, as 1.018; undef where there is no PgBouncer.

=item ConcordPooler->new(databases => { name => [ $node, $pool_size ] }, [conf => "..."])

Each of the names leads to a node's database C<app>.

=item port(), name()

What ConcordWire needs of a node.

=item log(), stop()

=back

=cut

sub program
{
	my ($found) = grep { -x $_ } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin';
	return $found;
}

sub version
{
	my $program = program() or return;
	my ($major, $minor) = `$program --version` =~ /^PgBouncer (\d+)\.(\d+)/m or return;
	return sprintf '%d.%03d', $major, $minor;
}

sub new
{
	my ($class, %arg) = @_;
	my $program = program() or croak 'there is no PgBouncer';
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $user = getpwuid $<;
	my $base = "$PostgreSQL::Test::Utils::tmp_check/pooler_$port";
	my $databases = join '', map {
		my ($node, $size) = @{ $arg{databases}{$_} };
		"$_ = host=127.0.0.1 port=" . $node->port . " dbname=app pool_size=$size\n"
	} sort keys %{ $arg{databases} };
	my $conf = $arg{conf} // '';

	PostgreSQL::Test::Utils::append_to_file("$base.users", qq("$user" ""\n));
	PostgreSQL::Test::Utils::append_to_file("$base.ini", <<INI);
[databases]
$databases
[pgbouncer]
pool_mode = transaction
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = trust
auth_file = $base.users
$conf
INI
	my $pid = fork() // croak "fork: $!";
	if ($pid == 0)
	{
		open STDOUT, '>>', "$base.log" or POSIX::_exit(1);
		open STDERR, '>&', \*STDOUT or POSIX::_exit(1);
		# it does not outlive the test, however that ends
		{ exec 'setpriv', '--pdeathsig', 'QUIT', $program, "$base.ini"; }
		POSIX::_exit(1);
	}
	my $self = bless { pid => $pid, port => $port, log => "$base.log" }, $class;
	push @poolers, $self;
	await(sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) }, 20)
	  or croak 'PgBouncer does not start: ' . $self->log;
	return $self;
}

sub port { return $_[0]->{port}; }
sub name { return 'pooler'; }
sub log { return PostgreSQL::Test::Utils::slurp_file($_[0]->{log}); }

sub stop
{
	my ($self) = @_;
	my $pid = delete $self->{pid} or return;
	local $?;
	kill 'QUIT', $pid;
	waitpid $pid, 0;
	return;
}

END
{
	$_->stop for @poolers;
}

1;
