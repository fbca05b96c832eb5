#!/usr/bin/env perl
# The same over TLS: `ssl => 1`, with the broker's certificate checked.
#
# spec: stomp.tls
use strict;
use warnings;

use Conformance;
use IO::Socket::SSL;

say("IO::Socket::SSL $IO::Socket::SSL::VERSION");
my ( $host, $port ) = stomps_address();
my %tls = (
    hostname    => $host,
    port        => $port,
    ssl         => 1,
    ssl_options => {
        SSL_ca_file         => ca_file(),
        SSL_verify_mode     => SSL_VERIFY_PEER,
        SSL_verifycn_scheme => 'default',
        SSL_verifycn_name   => 'localhost',
    },
);
my $queue = '/queue/' . name('tls');
my $stomp = connect_stomp( \%tls );
true( $stomp->socket->isa('IO::Socket::SSL'), 'the socket is one of IO::Socket::SSL' );
say( 'version ' . $stomp->socket->get_sslversion . ', cipher ' . $stomp->socket->get_cipher );
my $octets = join '', map { chr } 0 .. 255;
my $large = $octets x 2048;
$stomp->subscribe( { destination => $queue, ack => 'client' } );
$stomp->send( { destination => $queue, body => $octets, bytes_message => 1 } );
my $frame = receive( $stomp, 'MESSAGE' );
equal( $frame->body, $octets, 'all 256 octets' );
$stomp->ack( { frame => $frame } );
# Larger than a TLS record.
$stomp->send( { destination => $queue, body => $large, bytes_message => 1 } );
$frame = $stomp->receive_frame( { timeout => WAIT_SECS } ) or die "FAIL no large message\n";
true( $frame->body eq $large, 'a body of ' . length($large) . ' octets' );
$stomp->ack( { frame => $frame } );
$stomp->disconnect;

# A client that does not know the issuer must be able to refuse.
my $refused = !eval {
    connect_stomp( { %tls, ssl_options => { SSL_verify_mode => SSL_VERIFY_PEER, SSL_ca => [] } } );
    1;
};
true( $refused, 'a certificate of an unknown issuer is refused by the client' );
done();
