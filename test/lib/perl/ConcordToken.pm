
=pod

=head1 NAME

ConcordToken - session tokens as tests need them: taken apart, made up, ahead of a standby

=head1 FUNCTIONS

=over

=cut

package ConcordToken;

use strict;
use warnings;

use ConcordTest;
use ConcordWire;
use Exporter 'import';
use Test::More;

our @EXPORT = qw(position positions with_position lsn_number lsn_text pause_replay resume_replay
  receive_nothing receive_from await_waiters unburdened all_forms start_form);

=pod

=item positions($token), position($token, [$node])

A list of hashes: node, generation, timeline, lsn (text), xid (undef); the first of a node (1).

=cut

sub positions
{
	my ($token) = @_;
	my (undef, @texts) = split /;/, $token;
	my @positions;
	for (@texts)
	{
		my ($node, $generation, $timeline, $lsn, $xid) =
		  m{^(\d+)\.(\d+):(\d+)/([0-9A-F]+/[0-9A-F]+)(?:\?(\d+))?$}
		  or die "no position: $_\n";
		push @positions,
		  {
			node => $node,
			generation => $generation,
			timeline => $timeline,
			lsn => $lsn,
			xid => $xid,
		  };
	}
	return @positions;
}

sub position
{
	my ($token, $node) = @_;
	my ($first) = grep { $_->{node} == ($node // 1) } positions($token);
	return $first;
}

=pod

=item with_position($token, key => value, ...)

The token's head with one position: the first, changed.

=cut

sub with_position
{
	my ($token, %change) = @_;
	my ($head) = split /;/, $token;
	my %p = (%{ position($token) }, %change);
	return "$head;$p{node}.$p{generation}:$p{timeline}/$p{lsn}"
	  . (defined $p{xid} ? "?$p{xid}" : '');
}

sub lsn_number
{
	my ($high, $low) = split m{/}, $_[0];
	return hex($high) * 2**32 + hex $low;
}

sub lsn_text
{
	my ($lsn) = @_;
	return sprintf '%X/%X', $lsn >> 32, $lsn & 0xffffffff;
}

=pod

=item pause_replay($wire), resume_replay($wire)

On a standby; returns when nothing more is applied.

=item receive_nothing($wire), receive_from($wire, $node)

A standby without a server to receive from, from now on or until then.

=cut

sub pause_replay
{
	my ($wire) = @_;
	$wire->get('SELECT pg_wal_replay_pause()');
	await(sub { $wire->get('SELECT pg_get_wal_replay_pause_state()') eq 'paused' }, 20)
	  or die "replay was not paused\n";
	return;
}

sub resume_replay { return $_[0]->get('SELECT pg_wal_replay_resume()'); }

sub receive_nothing
{
	my ($wire) = @_;
	$wire->get(q(ALTER SYSTEM SET primary_conninfo = ''));
	$wire->get('SELECT pg_reload_conf()');
	await(
		sub {
			# while replay is paused nobody tells the receiver of the setting
			my $pid = $wire->get('SELECT w.pid FROM pg_stat_get_wal_receiver() w');
			kill 'TERM', $pid if $pid;
			return !$pid;
		},
		20) or die "it is still receiving\n";
	return;
}

sub receive_from
{
	my ($wire, $node) = @_;
	my $conninfo = $node->connstr;
	$conninfo =~ s/'/''/g;
	$wire->get("ALTER SYSTEM SET primary_conninfo = '$conninfo'");
	$wire->get('SELECT pg_reload_conf()');
	return;
}

=pod

=item await_waiters($wire, $n, $name)

One test: so many sessions wait on this server.

=item unburdened($wire, $pid, $name, [locks => 1])

One test: the session that waits has no snapshot and (unless locks may be) no lock on a relation,
and says what it waits for.

=cut

sub await_waiters
{
	my ($wire, $n, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $found;
	my $good = await(
		sub {
			$found = $wire->get('SELECT count(*) FROM concord.token_waits');
			return $found == $n;
		},
		20);
	return ok($good, $name) || diag("$found wait, not $n");
}

sub unburdened
{
	my ($wire, $pid, $name, %may) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $locks =
	  $may{locks}
	  ? '0'
	  : "(SELECT count(*) FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'relation')";
	my $sql = "SELECT a.backend_xmin IS NULL, $locks, wait_event_type,
		wait_event IN ('Extension', 'ConcordToken') FROM pg_stat_activity a WHERE a.pid = $pid";

	# between two looks at its latch it is not waiting
	my $good = await(
		sub {
			my ($free, $held, $type, $event) = split /\|/, $wire->get($sql), -1;
			return 0 unless $free eq 't' && $held eq '0';
			return $type eq 'Extension' && $event eq 't';
		},
		5);
	return ok($good, $name) || diag($wire->get($sql));
}

=pod

=item all_forms()

The names of the ways to set a token.

=item start_form($node, $form, $token, [$settings])

Starts one in a session of its own, with settings ('-c ...'), and returns the session; what it needs
before has run then. Its finish is the wait's end.

=back

=cut

my %forms = (
	'SET' => sub { $_[0]->start("SET concord.token = '$_[1]'"); },
	'SET, extended' => sub { $_[0]->start_pipeline(["SET concord.token = '$_[1]'"]); },
	'SET in a block' => sub {
		$_[0]->get('BEGIN');
		$_[0]->start("SET concord.token = '$_[1]'");
	},
	'SET LOCAL' => sub {
		$_[0]->get('BEGIN');
		$_[0]->start("SET LOCAL concord.token = '$_[1]'");
	},
	'SET before the snapshot' => sub {
		$_[0]->get('BEGIN ISOLATION LEVEL REPEATABLE READ');
		$_[0]->start("SET concord.token = '$_[1]'");
	},
	'set_config' => sub { $_[0]->start("SELECT set_config('concord.token', '$_[1]', false)"); },
	'set_config, bound' => sub {
		$_[0]->start_pipeline([ q(SELECT set_config('concord.token', $1, false)), $_[1] ]);
	},
	'CALL' => sub { $_[0]->start("CALL concord.wait('$_[1]')"); },
	'CALL, bound' => sub { $_[0]->start_pipeline([ 'CALL concord.wait($1)', $_[1] ]); },
	'CALL in a block' => sub {
		$_[0]->get('BEGIN');
		$_[0]->start("CALL concord.wait('$_[1]')");
	},
	'start-up option' => sub { $_[0]->start('SELECT count(*) FROM t'); },
	'start-up option, extended' => sub { $_[0]->start_pipeline(['SELECT count(*) FROM t']); },
	'start-up option, BEGIN' => sub { $_[0]->start('BEGIN'); });

sub all_forms
{
	my @names = sort keys %forms;
	return @names;
}

sub start_form
{
	my ($node, $form, $token, $settings) = @_;
	my $options = $settings // '';
	$options .= " -c concord.token=$token" if $form =~ /^start-up/;
	my $wire = ConcordWire->new($node, options => $options);
	$forms{$form}->($wire, $token);
	return $wire;
}

1;
