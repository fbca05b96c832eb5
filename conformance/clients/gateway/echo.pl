#!/usr/bin/env perl
# The Perl side of net_stomp.py: sends every message of one queue on to another, until one of type "stop".
use strict;
use warnings;

use Conformance;

my ( $requests, $replies ) = @ARGV;
my $stomp = connect_stomp();
$stomp->subscribe( { destination => "/queue/$requests", ack => 'client', 'prefetch-count' => 1 } );
while ( my $frame = $stomp->receive_frame( { timeout => WAIT_SECS } ) ) {
    my $headers = $frame->headers;
    $stomp->ack( { frame => $frame } );
    if ( ( $headers->{type} // '' ) eq 'stop' ) {
        say('stop');
        last;
    }
    say( 'echo of ' . length( $frame->body ) . ' octets' );
    $stomp->send(
        {   destination   => "/queue/$replies",
            body          => $frame->body,
            bytes_message => 1,
            map { $_ => $headers->{$_} } qw(number word correlation-id content-type persistent),
        }
    );
}
# The last acknowledgement has been processed when its receipt is here.
$stomp->send_with_receipt( { destination => '/topic/' . name('end'), body => '', timeout => WAIT_SECS } )
    or die "FAIL no receipt\n";
$stomp->disconnect;
done();
