#!/usr/bin/env perl
# send_with_receipt: true once the broker has taken responsibility for the message.
#
# spec: stomp-1.0.receipt
# spec: rabbitmq.stomp.receipt.confirmed
# spec: stomp-1.0.transaction.commit
# spec: stomp-1.0.transaction.abort
use strict;
use warnings;

use Conformance;
use Net::Stomp::Frame;

my $queue = '/queue/' . name('receipts');
my $stomp = connect_stomp();
for my $number ( 1 .. 3 ) {
    my $receipt;
    true(
        $stomp->send_with_receipt(
            { destination => $queue, body => $number, persistent => 'true', timeout => WAIT_SECS }, $receipt
        ),
        "send_with_receipt $number"
    );
    equal( $receipt->command, 'RECEIPT', 'the frame that came' );
}
my $topic = '/topic/' . name('nobody');
true( $stomp->send_with_receipt( { destination => $topic, body => 'x', timeout => WAIT_SECS } ),
    'a message that nobody wants is taken, too' );

my $reader = connect_stomp();
$reader->subscribe( { destination => $queue } );
for my $number ( 1 .. 3 ) {
    my $frame = receive( $reader, 'MESSAGE' );
    equal( $frame->body, $number, 'in order' );
    equal( $frame->headers->{persistent}, 'true', 'persistent' );
}

# A transaction by hand: nothing is seen before COMMIT, nothing ever after ABORT.
my $frame = sub {
    my ( $command, %headers ) = @_;
    $stomp->send_frame( Net::Stomp::Frame->new( { command => $command, headers => \%headers } ) );
    receive( $stomp, 'RECEIPT' ) if $headers{receipt};
    return;
};
$frame->( 'BEGIN', transaction => 'kept', receipt => 'begun' );
$stomp->send( { destination => $queue, body => "kept $_", transaction => 'kept' } ) for 1 .. 2;
nothing_more( $reader, 'before COMMIT' );
$frame->( 'COMMIT', transaction => 'kept', receipt => 'committed' );
equal( receive( $reader, 'MESSAGE' )->body, "kept $_", 'after COMMIT' ) for 1 .. 2;

$frame->( 'BEGIN', transaction => 'dropped', receipt => 'begun' );
$stomp->send( { destination => $queue, body => 'dropped', transaction => 'dropped' } );
$frame->( 'ABORT', transaction => 'dropped', receipt => 'aborted' );
nothing_more( $reader, 'after ABORT' );
$_->disconnect for $stomp, $reader;
done();
