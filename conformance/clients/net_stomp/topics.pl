#!/usr/bin/env perl
# Topics: each subscriber has its copy, patterns work, a durable subscription outlives its connection.
#
# spec: rabbitmq.stomp.topic
# spec: rabbitmq.stomp.exchange
# spec: rabbitmq.stomp.topic.durable
use strict;
use warnings;

use Conformance;

my $topic  = name('news');
my $sender = connect_stomp();
my @readers = map {
    my $stomp = connect_stomp();
    $stomp->subscribe( { destination => "/topic/$_", receipt => 'subscribed' } );
    receive( $stomp, 'RECEIPT' );
    $stomp
} "$topic.sport", "$topic.*", "$topic.#";

for my $key ( "$topic.sport", "$topic.art", "$topic.art.new", $topic ) {
    true( $sender->send_with_receipt( { destination => "/topic/$key", body => $key, timeout => WAIT_SECS } ),
        "sent to $key" );
}
my @expected = (
    ["$topic.sport"],
    [ "$topic.sport", "$topic.art" ],
    [ "$topic.sport", "$topic.art", "$topic.art.new", $topic ],
);
for my $index ( 0 .. $#readers ) {
    for my $key ( @{ $expected[$index] } ) {
        my $frame = receive( $readers[$index], 'MESSAGE' );
        equal( $frame->body,        $key,          "reader $index" );
        equal( $frame->destination, "/topic/$key", 'the destination is the one of the sender' );
    }
    nothing_more( $readers[$index], "reader $index" );
}
$_->disconnect for @readers;

# By way of an exchange: amq.topic is the one that /topic uses.
my $stomp = connect_stomp();
$stomp->subscribe( { destination => "/exchange/amq.topic/$topic.x.#", receipt => 'subscribed' } );
receive( $stomp, 'RECEIPT' );
$sender->send( { destination => "/exchange/amq.topic/$topic.x.y", body => 'by exchange' } );
equal( receive( $stomp, 'MESSAGE' )->destination, "/topic/$topic.x.y", 'the destination' );
$stomp->disconnect;

# Durable
my $durable = sub {
    my $reader = connect_stomp();
    $reader->subscribe(
        {   destination   => "/topic/$topic.durable",
            id            => 'reader',
            durable       => 'true',
            'auto-delete' => 'false',
            ack           => 'client',
            receipt       => 'subscribed',
        }
    );
    return $reader;
};
$stomp = $durable->();
receive( $stomp, 'RECEIPT' );
$stomp->disconnect;
true(
    $sender->send_with_receipt(
        { destination => "/topic/$topic.durable", body => 'while away', persistent => 'true', timeout => WAIT_SECS }
    ),
    'sent while the subscriber is away'
);
$stomp = $durable->();
# The message may come before the receipt.
my %frames = map { $_->command => $_ } map { $stomp->receive_frame( { timeout => WAIT_SECS } ) } 1 .. 2;
equal( $frames{MESSAGE}->body, 'while away', 'it was kept' );
$stomp->ack( { frame => $frames{MESSAGE} } );
$stomp->unsubscribe( { id => 'reader', durable => 'true', receipt => 'gone' } );
receive( $stomp, 'RECEIPT' );
$sender->send( { destination => "/topic/$topic.durable", body => 'to nobody' } );
nothing_more( $stomp, 'the durable subscription was removed' );
$_->disconnect for $stomp, $sender;
done();
