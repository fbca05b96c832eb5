//! Whole conversations, octet by octet, as a RabbitMQ server of the 3 line has them, `receipt-id` in ERROR apart.

use super::broker::Broker;

#[tokio::test]
async fn a_bare_name_is_a_queue_and_all_headers_come_back() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in_with("").await;
    peer.send("SUBSCRIBE\ndestination:bare1\nreceipt:r\n\n\0").await;
    peer.send(
        "SEND\ndestination:bare1\nfoo:bar\ncontent-type:text/plain\npriority:4\npersistent:true\n\
         receipt:q\n\nhello\0",
    )
    .await;
    peer.expect_receipt("r").await;
    peer.expect(
        "MESSAGE\ndestination:/queue/bare1\nmessage-id:Q_bare1@@S@@1\nredelivered:false\nfoo:bar\n\
         receipt:q\ncontent-type:text/plain\npriority:4\npersistent:true\ncontent-length:5\n\nhello",
    )
    .await;
    peer.expect_receipt("q").await;
}

#[tokio::test]
async fn in_1_2_a_message_has_an_ack_header_and_properties_are_mapped() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("SUBSCRIBE\nid:0\nack:client\ndestination:/queue/q12\n\n").await;
    peer.send(
        "SEND\ndestination:/queue/q12\nreply-to:foo\nexpiration:10000\ntimestamp:123\ntype:t\n\
         amqp-message-id:am\napp-id:ap\nuser-id:guest\ncluster-id:x\ncorrelation-id:c\n\
         content-encoding:e\n\nb\0",
    )
    .await;
    peer.expect(
        "MESSAGE\nsubscription:0\ndestination:/queue/q12\nmessage-id:T_0@@S@@1\nack:T_0@@S@@1\n\
         redelivered:false\ncluster-id:x\napp-id:ap\nuser-id:guest\ntype:t\namqp-message-id:am\n\
         expiration:10000\ncorrelation-id:c\ncontent-encoding:e\nreply-to:/reply-queue/foo\n\
         timestamp:123\ncontent-length:1\n\nb",
    )
    .await;
}

#[tokio::test]
async fn a_message_names_its_own_destination_and_not_the_subscriptions() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.1").await;
    peer.ask("SUBSCRIBE\nid:t\ndestination:/exchange/amq.topic/x.#\n\n").await;
    peer.ask("SUBSCRIBE\nid:f\ndestination:/exchange/amq.fanout\n\n").await;
    peer.send("SEND\ndestination:/exchange/amq.topic/x.y\n\n\0").await;
    peer.expect(
        "MESSAGE\nsubscription:t\ndestination:/topic/x.y\nmessage-id:T_t@@S@@1\n\
         redelivered:false\n\n",
    )
    .await;
    peer.send("SEND\ndestination:/exchange/amq.fanout\n\n\0").await;
    peer.expect(
        "MESSAGE\nsubscription:f\ndestination:/exchange/amq.fanout\nmessage-id:T_f@@S@@2\n\
         redelivered:false\n\n",
    )
    .await;
    peer.send("SEND\ndestination:/exchange/amq.fanout/a%2Fb\n\n\0").await;
    peer.expect(
        "MESSAGE\nsubscription:f\ndestination:/exchange/amq.fanout/a%2Fb\nmessage-id:T_f@@S@@3\n\
         redelivered:false\n\n",
    )
    .await;
}

#[tokio::test]
async fn a_counted_body_may_hold_nuls() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/queue/n\n\n").await;
    peer.send("SEND\ndestination:/queue/n\ncontent-length:3\n\na\0b\0").await;
    peer.expect(
        "MESSAGE\nsubscription:0\ndestination:/queue/n\nmessage-id:T_0@@S@@1\nredelivered:false\n\
         content-length:3\n\na\0b",
    )
    .await;
}

#[tokio::test]
async fn escaped_headers_are_delivered_escaped_alike() {
    let broker = Broker::start().await;
    for version in ["1.0", "1.1", "1.2"] {
        let mut peer = broker.log_in(version).await;
        peer.ask("SUBSCRIBE\nid:0\ndestination:/topic/e\n\n").await;
        peer.send("SEND\ndestination:/topic/e\nh:a\\cb\\n\\\\\n\n\0").await;
        peer.expect(
            "MESSAGE\nsubscription:0\ndestination:/topic/e\nmessage-id:T_0@@S@@1\n\
             redelivered:false\nh:a\\cb\\n\\\\\n\n",
        )
        .await;
    }
}

#[tokio::test]
async fn receipts_of_a_transaction_come_after_that_of_its_commit() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.0").await;
    peer.send("BEGIN\ntransaction:t\nreceipt:b\n\n\0").await;
    peer.send("SEND\ndestination:/queue/t\ntransaction:t\nreceipt:s\n\nx\0").await;
    peer.send("COMMIT\ntransaction:t\nreceipt:c\n\n\0").await;
    for receipt in ["b", "c", "s"] {
        peer.expect_receipt(receipt).await;
    }
}

#[tokio::test]
async fn disconnect_is_answered_and_the_connection_ends() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.send("DISCONNECT\nreceipt:77\n\n\0").await;
    peer.expect_receipt("77").await;
    peer.expect_end().await;
}

#[tokio::test]
async fn line_ends_with_carriage_returns_and_noise_between_frames_are_understood() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.1").await;
    peer.send("BEGIN\r\ntransaction:a\r\nreceipt:1\r\n\r\n\0\r\n\0\n\n").await;
    peer.send("ABORT\ntransaction:a\nreceipt:2\n\n\0").await;
    peer.expect_receipt("1").await;
    peer.expect_receipt("2").await;
}

#[tokio::test]
async fn of_repeated_headers_the_first_wins() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/queue/h\n\n").await;
    peer.send("SEND\ndestination:/queue/h\nfoo:1\nfoo:2\nFOO:3\n\n\0").await;
    peer.expect(
        "MESSAGE\nsubscription:0\ndestination:/queue/h\nmessage-id:T_0@@S@@1\nredelivered:false\n\
         foo:1\nFOO:3\n\n",
    )
    .await;
}

#[tokio::test]
async fn a_queue_that_was_deleted_meanwhile_is_not_declared_again() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("SEND\ndestination:/queue/gone\nauto-delete:true\n\n1").await;
    let mut other = broker.log_in("1.2").await;
    // The queue goes with its last consumer.
    other.send("SUBSCRIBE\nid:0\ndestination:/amq/queue/gone\n\n\0").await;
    assert!(other.next().await.ends_with("\n\n1"));
    other.ask("UNSUBSCRIBE\nid:0\n\n").await;
    peer.ask("SEND\ndestination:/queue/gone\nauto-delete:true\n\n2").await;
    other.send("SUBSCRIBE\nid:1\ndestination:/amq/queue/gone\n\n\0").await;
    other.expect_last_error("not_found", "NOT_FOUND - no queue 'gone' in vhost '/'").await;
}
