//! The end of a connection, from either side.

use std::time::Duration;

use super::broker::Broker;

#[tokio::test]
async fn what_was_received_before_the_end_is_done() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.send("SEND\ndestination:/queue/last\n\n1\0SEND\ndestination:/queue/last\n\n2\0").await;
    drop(peer);
    let mut other = broker.log_in("1.2").await;
    other.ask("SUBSCRIBE\nid:0\ndestination:/queue/last\n\n").await;
    assert!(other.next().await.ends_with("1"));
    assert!(other.next().await.ends_with("2"));
}

#[tokio::test]
async fn what_a_lost_connection_has_not_acknowledged_is_delivered_again() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    for number in 1..=3 {
        peer.ask(&format!("SEND\ndestination:/queue/again\n\n{number}")).await;
    }
    peer.ask("SUBSCRIBE\nid:0\ndestination:/queue/again\nack:client\n\n").await;
    for _ in 0..3 {
        peer.next().await;
    }
    let mut other = broker.log_in("1.2").await;
    other.ask("SUBSCRIBE\nid:0\ndestination:/queue/again\n\n").await;
    drop(peer);
    for number in ["1", "2", "3"] {
        let message = other.next().await;
        assert!(message.contains("\nredelivered:true\n"), "{message}");
        assert!(message.ends_with(number), "{message}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_takes_its_queues_and_transactions_along() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/topic/own\n\n").await;
    peer.ask("SUBSCRIBE\nid:1\ndestination:/queue/own\nexclusive:true\n\n").await;
    peer.ask("SEND\ndestination:/queue/shared\nreply-to:/temp-queue/own\n\n").await;
    peer.ask("BEGIN\ntransaction:t\n\n").await;
    peer.send("SEND\ndestination:/queue/shared\ntransaction:t\n\nnever\0").await;
    peer.send("DISCONNECT\nreceipt:d\n\n\0").await;
    peer.expect_receipt("d").await;
    peer.expect_end().await;
    assert_eq!(broker.list("queues", r#""name","messages""#).await, [r#"["shared",1]"#]);
}

#[tokio::test]
async fn after_disconnect_nothing_is_heard() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.send("DISCONNECT\n\n\0SEND\ndestination:/queue/after\nreceipt:1\n\n\0").await;
    peer.expect_end().await;
    assert!(broker.list("queues", r#""name""#).await.is_empty());
}

#[tokio::test]
async fn a_broker_that_stops_says_so() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    let stopping = tokio::spawn(broker.stop());
    peer.expect_last_error(
        "connection_forced",
        "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'",
    )
    .await;
    stopping.await.unwrap();
}

#[tokio::test]
async fn an_operator_sees_a_connection_and_can_close_it() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/queue/seen\n\n").await;
    let columns = r#""user","vhost","protocol","state","channels""#;
    let rows = broker.list("connections", columns).await;
    assert_eq!(rows, [r#"["guest","/","STOMP 1.2","running",1]"#]);
    broker
        .control(r#"{"command":"close_connections","of":"all","limit":null,"reason":"enough"}"#)
        .await;
    let error = peer.next().await;
    assert!(error.starts_with("ERROR\nmessage:connection_forced\n"), "{error}");
    peer.expect_end().await;
}

/// Far more than the sockets and the outbox hold together.
async fn fill(broker: &Broker, destination: &str) {
    let mut publisher = broker.log_in("1.2").await;
    let send = format!("SEND\ndestination:{destination}\n\n{}\0", "x".repeat(16 * 1024));
    for _ in 0..1500 {
        publisher.send(&send).await;
    }
    publisher.expect_nothing().await;
}

#[tokio::test]
async fn the_last_frame_comes_behind_everything_that_was_on_its_way() {
    let broker = Broker::start().await;
    for (last, wanted) in [
        ("DISCONNECT\nreceipt:d\n\n\0", "RECEIPT"),
        ("SEND\ndestination:/exchange/none\n\n\0", "ERROR"),
    ] {
        let mut peer = broker.log_in("1.2").await;
        peer.ask("SUBSCRIBE\nid:0\ndestination:/topic/much\n\n").await;
        fill(&broker, "/topic/much").await;
        peer.send(last).await;
        // It reads nothing until the broker has no more to do for it than to wait.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut frame = peer.next().await;
        while frame.starts_with("MESSAGE") {
            frame = peer.next().await;
        }
        assert!(frame.starts_with(wanted), "{frame}");
        peer.expect_end().await;
    }
}

/// What a script does that pipes its frames into the socket.
#[tokio::test]
async fn who_has_closed_its_half_gets_the_last_receipt() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.send("SEND\ndestination:/queue/piped\nreceipt:1\n\nx\0DISCONNECT\nreceipt:2\n\n\0").await;
    peer.finish_sending().await;
    peer.expect_receipt("1").await;
    peer.expect_receipt("2").await;
    peer.expect_end().await;
}
