//! SUBSCRIBE and UNSUBSCRIBE.

use super::broker::Broker;

#[tokio::test]
async fn the_receipt_of_a_subscribe_comes_before_the_first_message() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.0").await;
    peer.ask("SEND\ndestination:/queue/first\n\n1").await;
    peer.send("SUBSCRIBE\ndestination:/queue/first\nreceipt:s\n\n\0").await;
    peer.expect_receipt("s").await;
    assert!(peer.next().await.starts_with("MESSAGE\ndestination:/queue/first\n"));
}

#[tokio::test]
async fn an_identifier_is_used_once() {
    let broker = Broker::start().await;
    for (headers, tag) in [("id:0\n", "T_0"), ("", "Q_/queue/twice")] {
        let mut peer = broker.log_in("1.2").await;
        peer.ask(&format!("SUBSCRIBE\n{headers}destination:/queue/twice\n\n")).await;
        peer.send(&format!("SUBSCRIBE\n{headers}destination:/queue/twice\n\n\0")).await;
        peer.expect_last_error(
            "Duplicated subscription identifier",
            &format!("A subscription identified by '{tag}' already exists."),
        )
        .await;
    }
}

#[tokio::test]
async fn values_that_a_subscription_cannot_have_are_refused() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    for header in ["ack:sometimes", "prefetch-count:many", "x-priority:high", "x-expires:soon"] {
        peer.send(&format!("SUBSCRIBE\nid:0\ndestination:/queue/v\n{header}\n\n\0")).await;
        peer.expect_error("Processing error", "Processing error").await;
    }
    for name in ["selector", "browser", "x-stream-offset"] {
        peer.send(&format!("SUBSCRIBE\nid:0\ndestination:/queue/v\n{name}:x\n\n\0")).await;
        let body = format!("'{name}' is not supported on 'SUBSCRIBE'.\n");
        peer.expect_error("Invalid header", &body).await;
    }
    for frame in [
        "SUBSCRIBE\ndestination:/topic/v\ndurable:true\n\n\0",
        "UNSUBSCRIBE\ndestination:v\npersistent:true\n\n\0",
    ] {
        peer.send(frame).await;
        peer.expect_error("Missing Header", "Header 'id' is required for durable subscriptions")
            .await;
    }
    peer.expect_nothing().await;
}

#[tokio::test]
async fn unsubscribe_has_to_name_a_subscription() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.send("UNSUBSCRIBE\n\n\0").await;
    peer.expect_error(
        "Missing destination or id",
        "UNSUBSCRIBE must include a 'destination' or 'id' header",
    )
    .await;
    for (header, description) in
        [("id:7", "id='7'"), ("destination:/queue/x", "destination='/queue/x'")]
    {
        peer.send(&format!("UNSUBSCRIBE\n{header}\n\n\0")).await;
        peer.expect_error(
            "No subscription found",
            &format!(
                "UNSUBSCRIBE must refer to an existing subscription.\nSubscription to \
                 \"{description}\" not found.\n"
            ),
        )
        .await;
    }
}

#[tokio::test]
async fn after_unsubscribe_nothing_more_is_delivered_and_the_id_is_free() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.1").await;
    for _ in 0..2 {
        peer.ask("SUBSCRIBE\nid:0\ndestination:/topic/u\n\n").await;
        peer.ask("UNSUBSCRIBE\nid:0\n\n").await;
        peer.ask("SUBSCRIBE\ndestination:/topic/u\n\n").await;
        peer.ask("UNSUBSCRIBE\ndestination:/topic/u\n\n").await;
        peer.ask("SEND\ndestination:/topic/u\n\nx").await;
    }
    peer.expect_nothing().await;
    // The queues of the subscriptions went with them.
    assert!(broker.list("queues", r#""name""#).await.is_empty());
}

#[tokio::test]
async fn a_durable_subscription_keeps_messages_until_it_is_ended_for_good() {
    let broker = Broker::start().await;
    let subscribe = "SUBSCRIBE\nid:d\ndestination:/topic/dur\ndurable:true\nauto-delete:false\n\n";
    let mut peer = broker.log_in("1.2").await;
    peer.ask(subscribe).await;
    peer.ask("UNSUBSCRIBE\nid:d\n\n").await;
    peer.ask("SEND\ndestination:/topic/dur\n\nmeanwhile").await;
    // Another connection, the same key and id: the same queue.
    let mut peer = broker.log_in("1.2").await;
    peer.ask(subscribe).await;
    assert!(peer.next().await.ends_with("\n\nmeanwhile"));
    let queues = broker.list("queues", r#""name","durable""#).await;
    assert_eq!(queues.len(), 1);
    assert!(queues[0].starts_with("[\"stomp-subscription-"), "{queues:?}");
    peer.ask("UNSUBSCRIBE\nid:d\ndurable:true\n\n").await;
    assert!(broker.list("queues", r#""name""#).await.is_empty());
}

#[tokio::test]
async fn the_queue_of_a_subscription_can_be_named() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/exchange/amq.direct/k\nx-queue-name:named\n\n").await;
    peer.send("SEND\ndestination:/amq/queue/named\n\nx\0").await;
    assert!(peer.next().await.contains("\ndestination:/queue/named\n"));
}

#[tokio::test]
async fn prefetch_bounds_what_is_delivered_and_an_ack_lets_more_through() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    for number in 1..=5 {
        peer.ask(&format!("SEND\ndestination:/queue/pre\n\n{number}")).await;
    }
    peer.ask(
        "SUBSCRIBE\nid:0\ndestination:/queue/pre\nack:client-individual\nprefetch-count:2\n\n",
    )
    .await;
    for number in ["1", "2"] {
        assert!(peer.next().await.ends_with(number));
    }
    peer.expect_nothing().await;
    peer.send("ACK\nid:T_0@@S@@1\n\n\0".replace('S', &peer.session).as_str()).await;
    assert!(peer.next().await.ends_with("3"));
    peer.expect_nothing().await;
    // What is left goes to who comes next.
    let mut other = broker.log_in("1.2").await;
    other.send("SUBSCRIBE\nid:0\ndestination:/queue/pre\n\n\0").await;
    assert!(other.next().await.ends_with("4"));
    assert!(other.next().await.ends_with("5"));
}

#[tokio::test]
async fn the_subscription_with_the_higher_priority_is_served_first() {
    let broker = Broker::start().await;
    let mut low = broker.log_in("1.2").await;
    low.ask("SUBSCRIBE\nid:0\ndestination:/queue/prio\n\n").await;
    let mut high = broker.log_in("1.2").await;
    high.ask("SUBSCRIBE\nid:0\ndestination:/queue/prio\nx-priority:5\n\n").await;
    for _ in 0..3 {
        low.ask("SEND\ndestination:/queue/prio\n\nx").await;
        assert!(high.next().await.ends_with("x"));
    }
    low.expect_nothing().await;
}

#[tokio::test]
async fn a_subscription_whose_queue_is_deleted_is_told_and_the_connection_goes_on() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("SUBSCRIBE\nid:7\ndestination:/queue/doomed\n\n").await;
    broker.delete_queue("doomed").await;
    let body = "The server has canceled a subscription.\n\
                No more messages will be delivered for \"id='7'\".\n";
    let head = "ERROR\nmessage:Server cancelled subscription\ncontent-type:text/plain\n\
                version:1.0,1.1,1.2\nsubscription:7\n";
    peer.expect(&format!("{head}content-length:{}\n\n{body}", body.len())).await;
    // The id is free and the queue can be had again.
    peer.ask("SUBSCRIBE\nid:7\ndestination:/queue/doomed\n\n").await;
    peer.ask("SUBSCRIBE\ndestination:/queue/doomed2\n\n").await;
    broker.delete_queue("doomed2").await;
    peer.expect_error(
        "Server cancelled subscription",
        "The server has canceled a subscription.\n\
         No more messages will be delivered for \"destination='/queue/doomed2'\".\n",
    )
    .await;
}

#[tokio::test]
async fn a_queue_that_somebody_consumes_exclusively_is_refused() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    // A single active consumer: the second waits for the first to go.
    let subscribe = "SUBSCRIBE\nid:0\ndestination:/queue/sac\nx-single-active-consumer:true\n\n";
    peer.ask(subscribe).await;
    let mut other = broker.log_in("1.2").await;
    other.ask(subscribe).await;
    other.ask("SEND\ndestination:/queue/sac\nx-single-active-consumer:true\n\n1").await;
    assert!(peer.next().await.ends_with("1"));
    peer.ask("UNSUBSCRIBE\nid:0\n\n").await;
    other.send("SEND\ndestination:/queue/sac\n\n2\0").await;
    assert!(other.next().await.ends_with("2"));
}
