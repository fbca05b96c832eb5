//! Destinations that are none, and what the others lead to.

use super::broker::Broker;

#[tokio::test]
async fn a_destination_that_is_none_is_refused_and_the_connection_goes_on() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    for command in ["SEND", "SUBSCRIBE"] {
        peer.send(&format!("{command}\nid:0\n\n\0")).await;
        let body = format!("\"{command}\" must include a 'destination' header\n");
        peer.expect_error("Missing destination", &body).await;
        for (destination, body) in [
            ("", "Destination cannot be blank".to_owned()),
            ("/queue", "'' is not a valid queue destination\n".to_owned()),
            ("/topic", "'' is not a valid topic destination\n".to_owned()),
            ("/queue/", "'/' is not a valid queue destination\n".to_owned()),
            ("/queue/a/b", "'/a/b' is not a valid queue destination\n".to_owned()),
            ("/exchange//k", "'//k' is not a valid exchange destination\n".to_owned()),
            ("/exchange/a/b/c", "'/a/b/c' is not a valid exchange destination\n".to_owned()),
            (
                "/temp-queue/x",
                format!("'/temp-queue/x' is not a valid destination for '{command}'\n"),
            ),
        ] {
            peer.send(&format!("{command}\nid:0\ndestination:{destination}\n\n\0")).await;
            peer.expect_error("Invalid destination", &body).await;
        }
        for destination in ["/foo/bar", "foo/bar"] {
            peer.send(&format!("{command}\nid:0\ndestination:{destination}\n\n\0")).await;
            let body = format!(
                "'{destination}' is not a valid destination.\nValid destination types are: \
                 /temp-queue, /exchange, /topic, /queue, /amq/queue, /reply-queue/.\n"
            );
            peer.expect_error("Unknown destination", &body).await;
        }
    }
}

#[tokio::test]
async fn an_exchange_that_is_not_there_ends_the_connection() {
    let broker = Broker::start().await;
    for frame in
        ["SEND\ndestination:/exchange/x/k\n\n\0", "SUBSCRIBE\nid:0\ndestination:/exchange/x\n\n\0"]
    {
        let mut peer = broker.log_in("1.2").await;
        peer.send(frame).await;
        peer.expect_last_error("not_found", "NOT_FOUND - no exchange 'x' in vhost '/'").await;
    }
}

#[tokio::test]
async fn an_amq_queue_is_never_declared() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    // Dropped, and the receipt is given all the same.
    peer.ask("SEND\ndestination:/amq/queue/none\n\nx").await;
    peer.ask("SEND\ndestination:/reply-queue/none/a\n\nx").await;
    peer.send("SUBSCRIBE\nid:0\ndestination:/amq/queue/none\n\n\0").await;
    peer.expect_last_error("not_found", "NOT_FOUND - no queue 'none' in vhost '/'").await;
}

#[tokio::test]
async fn names_with_slashes_are_written_with_percent_2f() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.1").await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/queue/a%2Fb\n\n").await;
    peer.ask("SUBSCRIBE\nid:1\ndestination:/queue/a%25b\n\n").await;
    peer.send("SEND\ndestination:a%2Fb\n\n\0").await;
    let message = peer.next().await;
    assert!(message.contains("\ndestination:/queue/a%2Fb\n"), "{message}");
    peer.send("SEND\ndestination:/queue/a%25b\n\n\0").await;
    let message = peer.next().await;
    assert!(message.contains("\ndestination:/queue/a%2525b\n"), "{message}");
}

#[tokio::test]
async fn the_topic_exchange_is_a_setting() {
    let broker =
        Broker::with(|settings| settings.stomp.default_topic_exchange = "amq.direct".into()).await;
    let mut peer = broker.log_in("1.1").await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/topic/a\n\n").await;
    peer.send("SEND\ndestination:/exchange/amq.direct/a\n\n\0").await;
    let message = peer.next().await;
    assert!(message.contains("\ndestination:/topic/a\n"), "{message}");
}

#[tokio::test]
async fn a_reserved_name_cannot_be_declared() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.1").await;
    peer.send("SEND\ndestination:/queue/amq.mine\n\n\0").await;
    peer.expect_last_error(
        "access_refused",
        "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
    )
    .await;
}

#[tokio::test]
async fn a_queue_that_is_there_with_other_properties_ends_the_connection() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.1").await;
    peer.ask("SEND\ndestination:/queue/p\nx-max-length:5\n\n").await;
    // The connection has declared it and does not do so again.
    peer.ask("SEND\ndestination:/queue/p\n\n").await;
    let mut other = broker.log_in("1.1").await;
    other.send("SUBSCRIBE\nid:0\ndestination:/queue/p\n\n\0").await;
    other
        .expect_last_error(
            "precondition_failed",
            "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'p' in vhost '/': \
             received none but current is the value '5' of type 'long'",
        )
        .await;
    let mut other = broker.log_in("1.1").await;
    other.send("SUBSCRIBE\nid:0\ndestination:/queue/new\nx-overflow:explode\n\n\0").await;
    other
        .expect_last_error(
            "precondition_failed",
            "PRECONDITION_FAILED - invalid arg 'x-overflow' for queue 'new' in vhost '/': \
             invalid_overflow",
        )
        .await;
}

#[tokio::test]
async fn an_exclusive_queue_is_locked_to_others() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.1").await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/queue/mine\ndurable:false\n\n").await;
    let mut other = broker.log_in("1.1").await;
    other.send("SUBSCRIBE\nid:0\ndestination:/amq/queue/mine\n\n\0").await;
    other
        .expect_last_error(
            "resource_locked",
            "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in vhost '/'. \
             It could be originally declared on another connection or the exclusive property value \
             does not match that of the original declaration.",
        )
        .await;
    // It goes with its connection: the name is free again.
    peer.send("DISCONNECT\nreceipt:d\n\n\0").await;
    peer.expect_receipt("d").await;
    let mut other = broker.log_in("1.1").await;
    other.ask("SUBSCRIBE\nid:0\ndestination:/queue/mine\n\n").await;
}
