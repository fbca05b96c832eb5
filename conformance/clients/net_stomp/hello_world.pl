#!/usr/bin/env perl
# Net::Stomp's own examples: a destination without any prefix, sender first and receiver first, ack client.
#
# spec: stomp-1.0.connect
# spec: stomp-1.0.connected.session
# spec: stomp-1.0.send.bare-destination
# spec: stomp-1.0.subscribe.ack-client
# spec: stomp-1.0.message
# spec: stomp-1.0.ack
# spec: stomp-1.0.unsubscribe
# spec: stomp-1.0.disconnect
# spec: stomp.content-length.nul
use strict;
use warnings;

use Conformance;
use Net::Stomp;
use Net::Stomp::Frame;

say("Net::Stomp $Net::Stomp::VERSION, Perl $^V");

# The sender is first; the message waits for its reader.
my $foo = name('foo');
my $stomp = connect_stomp();
true( length $stomp->session_id, 'CONNECTED has a session header: ' . $stomp->session_id );
true( $stomp->send( { destination => $foo, body => 'sent before anyone listened' } ), 'send' );
true( $stomp->disconnect, 'disconnect' );

$stomp = connect_stomp();
true( $stomp->subscribe( { destination => $foo, ack => 'client' } ), 'subscribe' );
my $frame = receive( $stomp, 'MESSAGE' );
equal( $frame->body, 'sent before anyone listened', 'the body' );
equal( $frame->destination, "/queue/$foo", 'the destination' );
true( length $frame->headers->{'message-id'}, 'a message-id' );
equal( $frame->headers->{redelivered}, 'false', 'redelivered' );
true( !exists $frame->headers->{subscription}, 'no subscription header without an id' );
true( $stomp->ack( { frame => $frame } ), 'ack' );
nothing_more( $stomp, 'the queue is empty' );

# The receiver is first.
my $sender = connect_stomp();
for my $number ( 1 .. 5 ) {
    $sender->send( { destination => $foo, body => "message $number", number => $number } );
}
for my $number ( 1 .. 5 ) {
    my $message = receive( $stomp, 'MESSAGE' );
    equal( $message->body, "message $number", 'messages arrive in order' );
    equal( $message->headers->{number}, $number, 'a header of the sender' );
    $stomp->ack( { frame => $message } );
}

# Octets that are not text, counted by content-length.
my $octets = join '', map { chr } 0 .. 255;
$sender->send( { destination => $foo, body => $octets, bytes_message => 1 } );
$frame = receive( $stomp, 'MESSAGE' );
equal( $frame->headers->{'content-length'}, 256, 'content-length' );
equal( $frame->body, $octets, 'all 256 octets' );
$stomp->ack( { frame => $frame } );

# An empty body, and a frame built by hand.
$sender->send_frame(
    Net::Stomp::Frame->new(
        { command => 'SEND', headers => { destination => "/queue/$foo" }, body => '' }
    )
);
$frame = receive( $stomp, 'MESSAGE' );
equal( $frame->body // '', '', 'an empty body' );
$stomp->ack( { frame => $frame } );

# A subscription with an id says so in each message.
true( $stomp->unsubscribe( { destination => $foo, receipt => 'left' } ), 'unsubscribe by destination' );
receive( $stomp, 'RECEIPT' );
$stomp->subscribe( { destination => "/queue/$foo", ack => 'auto', id => 'my-id' } );
$sender->send( { destination => $foo, body => 'again' } );
$frame = receive( $stomp, 'MESSAGE' );
equal( $frame->headers->{subscription}, 'my-id', 'the subscription header' );
$stomp->unsubscribe( { id => 'my-id', receipt => 'left' } );
receive( $stomp, 'RECEIPT' );
$sender->send_with_receipt( { destination => $foo, body => 'to nobody', timeout => WAIT_SECS } );
nothing_more( $stomp, 'after unsubscribe' );

# What was acknowledged does not come back; what arrived after the unsubscribe is still there.
$stomp->disconnect;
$stomp = connect_stomp();
$stomp->subscribe( { destination => $foo } );
equal( receive( $stomp, 'MESSAGE' )->body, 'to nobody', 'only what was never delivered' );
nothing_more( $stomp, 'the queue is empty' );
$_->disconnect for $stomp, $sender;
done();
