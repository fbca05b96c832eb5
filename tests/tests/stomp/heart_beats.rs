//! Heart-beats in real time: a second is the shortest interval that there is.

use std::time::Duration;

use tokio::time::Instant;

use super::broker::Broker;

#[tokio::test]
async fn a_client_that_wants_heart_beats_gets_line_feeds() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in_with("accept-version:1.2\nheart-beat:0,1000\n").await;
    // The line feed behind CONNECTED, then heart-beats.
    for _ in 0..4 {
        assert_eq!(peer.octet().await, b'\n');
    }
}

#[tokio::test]
async fn a_client_that_falls_silent_is_dropped_after_two_intervals() {
    let broker = Broker::start().await;
    let began = Instant::now();
    let mut peer = broker.log_in_with("accept-version:1.2\nheart-beat:1000,0\n").await;
    peer.expect_end().await;
    assert!(began.elapsed() >= Duration::from_millis(1900), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_line_feed_now_and_then_keeps_a_client_alive() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in_with("accept-version:1.2\nheart-beat:1000,0\n").await;
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(300));
    while began.elapsed() < Duration::from_secs(4) {
        ticks.tick().await;
        peer.send("\n").await;
    }
    peer.expect_nothing().await;
}
