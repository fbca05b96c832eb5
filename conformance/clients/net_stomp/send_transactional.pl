#!/usr/bin/env perl
# send_transactional waits for the RECEIPT of its SEND before it commits. A broker that sends receipts of
# transactional messages only after the commit makes it fail; Warren recognises the ids that Net::Stomp makes
# and answers at once.
#
# spec: net-stomp.send-transactional
use strict;
use warnings;

use Conformance;

not_applicable('RabbitMQ sends the RECEIPT after COMMIT, for which Net::Stomp waits in vain') if is_foreign();

my $queue  = '/queue/' . name('transactional');
my $stomp  = connect_stomp();
my $reader = connect_stomp();
$reader->subscribe( { destination => $queue } );
for my $number ( 1 .. 3 ) {
    my $receipt;
    true(
        $stomp->send_transactional(
            { destination => $queue, body => "transaction $number", timeout => WAIT_SECS }, $receipt
        ),
        "send_transactional $number"
    );
    equal( $receipt->command, 'RECEIPT', 'the frame that came' );
    equal( receive( $reader, 'MESSAGE' )->body, "transaction $number", 'committed' );
}
nothing_more( $stomp,  'one receipt for each' );
nothing_more( $reader, 'one message for each' );

# The receipt comes early, the message does not: an abort after the receipt leaves nothing.
$stomp->send_frame(
    Net::Stomp::Frame->new( { command => 'BEGIN', headers => { transaction => $stomp->session_id . '-99' } } ) );
$stomp->send(
    {   destination => $queue,
        body        => 'aborted',
        transaction => $stomp->session_id . '-99',
        receipt     => $stomp->session_id . '-100',
    }
);
equal( receive( $stomp, 'RECEIPT' )->headers->{'receipt-id'}, $stomp->session_id . '-100', 'early' );
$stomp->send_frame(
    Net::Stomp::Frame->new(
        { command => 'ABORT', headers => { transaction => $stomp->session_id . '-99', receipt => 'aborted' } }
    )
);
receive( $stomp, 'RECEIPT' );
nothing_more( $reader, 'aborted' );

# A transaction with ids of any other form has its receipt after the commit, as the other clients expect.
$stomp->send_frame(
    Net::Stomp::Frame->new( { command => 'BEGIN', headers => { transaction => 'mine' } } ) );
$stomp->send( { destination => $queue, body => 'late', transaction => 'mine', receipt => 'my-receipt' } );
nothing_more( $stomp, 'no receipt before COMMIT' );
$stomp->send_frame( Net::Stomp::Frame->new( { command => 'COMMIT', headers => { transaction => 'mine' } } ) );
equal( receive( $stomp, 'RECEIPT' )->headers->{'receipt-id'}, 'my-receipt', 'after COMMIT' );
equal( receive( $reader, 'MESSAGE' )->body, 'late', 'after COMMIT' );
$_->disconnect for $stomp, $reader;
done();
