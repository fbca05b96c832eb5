#!/usr/bin/env perl
# Fail-over: a list of hosts of which the first is dead, and a reconnect that repeats the subscriptions.
#
# spec: stomp-1.0.connect
# spec: stomp.connection-loss.requeue
use strict;
use warnings;

use Conformance;
use IO::Socket::INET;
use Net::Stomp;
use Net::Stomp::Frame;

# A port that nobody listens on, and nobody else can: it is taken, by a socket that does not listen.
my $taken = IO::Socket::INET->new( LocalAddr => '127.0.0.1', LocalPort => 0, Proto => 'tcp' );
my $dead  = $taken->sockport;

my ( $host, $port ) = stomp_address();
my $queue = '/queue/' . name('failover');
my $stomp = Net::Stomp->new(
    {   failover           => "failover:(tcp://127.0.0.1:$dead,tcp://$host:$port)?randomize=false",
        connect_delay      => 0,
        reconnect_attempts => 5,
        timeout            => WAIT_SECS,
    }
);
equal( $stomp->connect( { login => 'guest', passcode => 'guest' } )->command, 'CONNECTED', 'the second host answers' );
equal( $stomp->port, $port, 'the port in use' );
$stomp->subscribe( { destination => $queue, ack => 'client', id => 's' } );

my $sender = connect_stomp();
$sender->send( { destination => $queue, body => 'twice' } );
my $frame = receive( $stomp, 'MESSAGE' );
equal( $frame->headers->{redelivered}, 'false', 'the first time' );

# The line breaks with the message in hand. The library notices before a read (and reconnects at once) or
# while reading (then it says undef, and the next call reconnects); either way it subscribes again, and the
# message comes a second time.
$stomp->socket->shutdown(2);
$frame = $stomp->receive_frame( { timeout => WAIT_SECS } ) // receive( $stomp, 'MESSAGE' );
equal( $frame->body,                   'twice', 'after the reconnect' );
equal( $frame->headers->{redelivered}, 'true',  'the second time' );
$stomp->ack( { frame => $frame } );
nothing_more( $stomp, 'acknowledged' );
$_->disconnect for $stomp, $sender;
done();
