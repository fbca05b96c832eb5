package Conformance;

# What every Perl program here shares: the broker's addresses, unique names, a deadline, and checks that
# print what they saw. The exit status is the verdict: 0 when every rule held, 77 when the broker under test
# is a foreign one to which the program cannot apply, anything else is a failure.

use strict;
use warnings;

use Exporter 'import';
use IO::Handle;

our @EXPORT = qw(stomp_address stomps_address ca_file is_foreign not_applicable
    name say equal true connect_stomp receive nothing_more done WAIT_SECS QUIET_SECS);

use constant WAIT_SECS  => 15;
use constant QUIET_SECS => 0.3;

STDOUT->autoflush(1);
alarm( $ENV{WARREN_CONFORMANCE_DEADLINE_SECS} || 60 );
$SIG{ALRM} = sub { require Carp; Carp::confess('the program is stuck') };
# A peer that closes must show as a failed call, not end the program without a word.
$SIG{PIPE} = 'IGNORE';

sub _address {
    my ($kind) = @_;
    my $value = $ENV{"WARREN_CONFORMANCE_$kind"}
        or die "WARREN_CONFORMANCE_$kind is not set: it names the address as host:port\n";
    my ( $host, $port ) = $value =~ m{^\[?(.*?)\]?:(\d+)$} or die "$value is not host:port\n";
    return ( $host, $port );
}

sub stomp_address  { return _address('STOMP') }
sub stomps_address { return _address('STOMPS') }
sub ca_file        { return $ENV{WARREN_CONFORMANCE_CA} // die "WARREN_CONFORMANCE_CA is not set\n" }
sub is_foreign     { return ( $ENV{WARREN_CONFORMANCE_FOREIGN} // '' ) eq '1' }

sub not_applicable {
    my ($reason) = @_;
    die "$reason\n" unless is_foreign();
    print "not applicable to a foreign broker: $reason\n";
    exit 77;
}

my $names = 0;

sub name {
    my ($stem) = @_;
    return sprintf 'conformance.%s.%d-%d-%d', $stem, time, $$, ++$names;
}

sub say { print @_, "\n"; return }

sub _show {
    my ($value) = @_;
    return 'undef' unless defined $value;
    $value =~ s/([^\x20-\x7e])/sprintf '\\x%02x', ord $1/ge;
    return "'$value'";
}

sub equal {
    my ( $actual, $expected, $what ) = @_;
    my $same = defined $actual && defined $expected ? $actual eq $expected : !defined $actual && !defined $expected;
    die "FAIL $what: expected " . _show($expected) . ', got ' . _show($actual) . "\n" unless $same;
    say( "ok   $what: ", _show($actual) );
    return;
}

sub true {
    my ( $condition, $what ) = @_;
    die "FAIL $what\n" unless $condition;
    say("ok   $what");
    return;
}

# A logged-in Net::Stomp; the second argument holds extra headers for CONNECT.
sub connect_stomp {
    my ( $options, $headers ) = @_;
    require Net::Stomp;
    my ( $host, $port ) = stomp_address();
    my $stomp = Net::Stomp->new( { hostname => $host, port => $port, timeout => WAIT_SECS, %{ $options // {} } } );
    my $connected = $stomp->connect( { login => 'guest', passcode => 'guest', %{ $headers // {} } } );
    die 'not connected: ' . ( $connected ? $connected->as_string : 'no frame' ) . "\n"
        unless $connected && $connected->command eq 'CONNECTED';
    return $stomp;
}

# The next frame, which must be of the given command.
sub receive {
    my ( $stomp, $command ) = @_;
    my $frame = $stomp->receive_frame( { timeout => WAIT_SECS } )
        or die "FAIL no $command came within @{[WAIT_SECS]} s\n";
    my $text = $frame->as_string;
    $text =~ s/^/     < /mg;
    say($text);
    equal( $frame->command, $command, 'the command of the frame' );
    return $frame;
}

sub nothing_more {
    my ( $stomp, $what ) = @_;
    true( !$stomp->can_read( { timeout => QUIET_SECS } ), "nothing more comes: $what" );
    return;
}

sub done { say('done'); exit 0 }

1;
