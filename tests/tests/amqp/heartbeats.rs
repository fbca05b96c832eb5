//! Heartbeats (AMQP 0-9-1 §4.2.7), with an interval of one second.

use std::time::Duration;

use proto_amqp::frame::HEARTBEAT_FRAME;
use tokio::time::Instant;
use warren_tests::TestBroker;
use warren_tests::amqp::Options;

fn every_second() -> Options {
    Options { heartbeat: 1, ..Options::default() }
}

#[tokio::test]
async fn an_idle_connection_hears_a_heartbeat_each_interval() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp_as(&every_second()).await;
    peer.expect_heartbeat().await;
    // A client gives up after two intervals. One heartbeat may be late on a busy machine, not each of them.
    let mut apart = Duration::MAX;
    for _ in 0..4 {
        peer.send_octets(&HEARTBEAT_FRAME).await;
        apart = apart.min(peer.expect_heartbeat().await);
    }
    assert!(apart < Duration::from_secs(2), "{apart:?}");
}

#[tokio::test]
async fn silence_of_two_heartbeats_closes() {
    let broker = TestBroker::start().await;
    let since = Instant::now();
    let mut peer = broker.amqp_as(&every_second()).await;
    peer.expect_end().await;
    let took = since.elapsed();
    // A sample every interval, two without change: at least two of them. That it ends at all `expect_end` says.
    assert!(took >= Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn any_octet_is_a_sign_of_life() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp_as(&every_second()).await;
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(4) {
        peer.send_octets(&HEARTBEAT_FRAME).await;
        assert!(!peer.read_for(Duration::from_millis(300)).await);
    }
    peer.expect_nothing(1).await;
}

#[tokio::test]
async fn without_an_interval_there_are_none() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    assert!(!peer.read_for(Duration::from_secs(2)).await);
    assert_eq!(peer.heartbeats(), 0);
    peer.expect_nothing(1).await;
}
