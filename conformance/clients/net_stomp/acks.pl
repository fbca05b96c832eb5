#!/usr/bin/env perl
# Acknowledgement: what was not acknowledged comes back, ack is cumulative in mode client, NACK gives back,
# client-individual takes one message, and in STOMP 1.2 the ack header is what ACK returns.
#
# spec: stomp-1.0.ack
# spec: stomp-1.0.ack.cumulative
# spec: stomp.connection-loss.requeue
# spec: stomp-1.1.nack
# spec: stomp-1.1.ack.client-individual
# spec: stomp-1.2.ack.id
# spec: rabbitmq.stomp.prefetch-count
use strict;
use warnings;

use Conformance;

my $queue  = '/queue/' . name('acks');
my $sender = connect_stomp();
my $put    = sub {
    for my $body (@_) {
        true( $sender->send_with_receipt( { destination => $queue, body => $body, timeout => WAIT_SECS } ),
            "sent $body" );
    }
};

$put->( 1 .. 4 );
my $stomp = connect_stomp();
$stomp->subscribe( { destination => $queue, ack => 'client' } );
my @frames = map { receive( $stomp, 'MESSAGE' ) } 1 .. 4;
equal( join( ' ', map { $_->body } @frames ), '1 2 3 4', 'four messages' );
# Cumulative: 2 settles 1 too.
$stomp->ack( { frame => $frames[1], receipt => 'acked' } );
equal( receive( $stomp, 'RECEIPT' )->headers->{'receipt-id'}, 'acked', 'a receipt for ACK' );
$stomp->disconnect;

$stomp = connect_stomp();
$stomp->subscribe( { destination => $queue, ack => 'client', 'prefetch-count' => 1 } );
my $frame = receive( $stomp, 'MESSAGE' );
equal( $frame->body, '3', 'the first that was not acknowledged' );
equal( $frame->headers->{redelivered}, 'true', 'marked as redelivered' );
nothing_more( $stomp, 'a prefetch-count of one' );

# NACK gives the message back; here it comes again at once.
true( $stomp->nack( { frame => $frame } ), 'nack' );
$frame = receive( $stomp, 'MESSAGE' );
equal( $frame->body, '3', 'after the NACK' );
$stomp->ack( { frame => $frame } );
$frame = receive( $stomp, 'MESSAGE' );
equal( $frame->body, '4', 'the next one' );
# NACK without requeue discards.
$stomp->nack( { frame => $frame, requeue => 'false', receipt => 'discarded' } );
receive( $stomp, 'RECEIPT' );
nothing_more( $stomp, 'the message was discarded' );
$stomp->disconnect;

# STOMP 1.2: the message has an ack header, and ACK names it as id.
$stomp = connect_stomp( {}, { 'accept-version' => '1.2', host => '/' } );
$stomp->subscribe( { destination => $queue, id => '7', ack => 'client-individual' } );
$put->( 5, 6 );
@frames = map { receive( $stomp, 'MESSAGE' ) } 1 .. 2;
true( defined $_->headers->{ack}, 'an ack header' ) for @frames;
$stomp->ack( { frame => $frames[1], id => $frames[1]->headers->{ack}, receipt => 'one' } );
receive( $stomp, 'RECEIPT' );
$stomp->disconnect;
$stomp = connect_stomp();
$stomp->subscribe( { destination => $queue, ack => 'auto' } );
equal( receive( $stomp, 'MESSAGE' )->body, '5', 'only the other one was acknowledged' );
nothing_more( $stomp, 'the queue is empty' );
$_->disconnect for $stomp, $sender;
done();
