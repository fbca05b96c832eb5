//! BEGIN, COMMIT, ABORT.

use super::broker::Broker;

#[tokio::test]
async fn a_transaction_has_to_be_named_and_open() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    for command in ["BEGIN", "COMMIT", "ABORT"] {
        peer.send(&format!("{command}\n\n\0")).await;
        let body = format!("\"{command}\" must include a 'transaction' header\n");
        peer.expect_error("Missing transaction", &body).await;
    }
    let body = "Invalid transaction identifier: \"t\"\n";
    for frame in [
        "COMMIT\ntransaction:t\n\n\0",
        "ABORT\ntransaction:t\n\n\0",
        "SEND\ndestination:/queue/a\ntransaction:t\n\n\0",
        "ACK\nid:T_0@@s@@1\ntransaction:t\n\n\0",
        "NACK\nid:T_0@@s@@1\ntransaction:t\n\n\0",
    ] {
        peer.send(frame).await;
        peer.expect_error("Bad transaction", body).await;
    }
    peer.ask("BEGIN\ntransaction:t\n\n").await;
    peer.send("BEGIN\ntransaction:t\n\n\0").await;
    peer.expect_error("Bad transaction", "Transaction \"t\" is open already\n").await;
    peer.ask("ABORT\ntransaction:t\n\n").await;
    peer.ask("BEGIN\ntransaction:t\n\n").await;
}

#[tokio::test]
async fn nothing_happens_before_commit_and_nothing_after_abort() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/queue/tx\n\n").await;
    for (name, body) in [("a", "aborted"), ("c", "committed")] {
        peer.ask(&format!("BEGIN\ntransaction:{name}\n\n")).await;
        peer.send(&format!("SEND\ndestination:/queue/tx\ntransaction:{name}\n\n{body}\0")).await;
    }
    peer.expect_nothing().await;
    peer.ask("ABORT\ntransaction:a\n\n").await;
    peer.send("COMMIT\ntransaction:c\n\n\0").await;
    let message = peer.next().await;
    assert!(message.contains("\ntransaction:c\n"), "{message}");
    assert!(message.ends_with("\n\ncommitted"), "{message}");
    peer.expect_nothing().await;
}

#[tokio::test]
async fn acknowledgements_in_a_transaction_take_effect_with_it() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("SEND\ndestination:/queue/ack\n\n1").await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/queue/ack\nack:client\n\n").await;
    peer.next().await;
    let ack = format!("ACK\nid:T_0@@{}@@1\ntransaction:t\n\n", peer.session);
    let left = || broker.list("queues", r#""name","messages""#);
    peer.ask("BEGIN\ntransaction:t\n\n").await;
    peer.ask(&ack).await;
    peer.ask("ABORT\ntransaction:t\n\n").await;
    assert_eq!(left().await, [r#"["ack",1]"#]);
    peer.ask("BEGIN\ntransaction:t\n\n").await;
    peer.ask(&ack).await;
    peer.ask("COMMIT\ntransaction:t\n\n").await;
    assert_eq!(left().await, [r#"["ack",0]"#]);
}

#[tokio::test]
async fn a_commit_that_cannot_be_done_whole_does_nothing() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("SEND\ndestination:/queue/in\n\n1").await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/queue/in\nack:client-individual\n\n").await;
    peer.next().await;
    let ack = format!("ACK\nid:T_0@@{}@@1\ntransaction:t\n\n", peer.session);
    peer.ask("BEGIN\ntransaction:t\n\n").await;
    peer.send("SEND\ndestination:/queue/out\ntransaction:t\n\nx\0").await;
    peer.ask(&ack).await;
    // The same delivery once more: that cannot be.
    peer.ask(&ack).await;
    peer.send("COMMIT\ntransaction:t\n\n\0").await;
    peer.expect_error("Message not found", "unknown delivery tag 1\n").await;
    let mut left = broker.list("queues", r#""name","messages""#).await;
    left.sort();
    assert_eq!(left, [r#"["in",1]"#, r#"["out",0]"#]);
    // The delivery still waits for its ACK.
    peer.ask(&ack.replace("transaction:t\n", "")).await;
}

#[tokio::test]
async fn net_stomp_is_given_its_receipt_before_it_commits() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.0").await;
    let session = peer.session.clone();
    peer.send(&format!("BEGIN\ntransaction:{session}-1\n\n\0")).await;
    peer.send(&format!(
        "SEND\ndestination:/queue/perl\ntransaction:{session}-1\nreceipt:{session}-2\n\nx\0"
    ))
    .await;
    peer.expect_receipt("S-2").await;
    peer.send(&format!("COMMIT\ntransaction:{session}-1\n\n\0")).await;
    peer.expect_nothing().await;
    assert_eq!(broker.list("queues", r#""name","messages""#).await, [r#"["perl",1]"#]);
}

#[tokio::test]
async fn when_the_receipt_of_a_send_in_a_transaction_comes_is_a_setting() {
    use warren_server::settings::TxReceipt;
    let send = "SEND\ndestination:/queue/r\ntransaction:t\nreceipt:s\n\nx\0";
    let broker = Broker::with(|settings| settings.stomp.tx_receipt = TxReceipt::Immediate).await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("BEGIN\ntransaction:t\n\n").await;
    peer.send(send).await;
    peer.expect_receipt("s").await;

    let broker = Broker::with(|settings| settings.stomp.tx_receipt = TxReceipt::Commit).await;
    let mut peer = broker.log_in("1.0").await;
    let session = peer.session.clone();
    peer.ask(&format!("BEGIN\ntransaction:{session}-1\n\n")).await;
    peer.send(
        &send
            .replace(":t\n", &format!(":{session}-1\n"))
            .replace(":s\n", &format!(":{session}-2\n")),
    )
    .await;
    peer.expect_nothing().await;
    peer.send(&format!("COMMIT\ntransaction:{session}-1\nreceipt:c\n\n\0")).await;
    peer.expect_receipt("c").await;
    peer.expect_receipt("S-2").await;
}

#[tokio::test]
async fn transactions_are_bounded_in_number_and_size() {
    let broker = Broker::with(|settings| {
        settings.stomp.max_transactions = 2;
        settings.stomp.max_transaction_actions = 3;
        settings.stomp.max_transaction_size = warren_server::settings::Size::new(2000);
    })
    .await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("BEGIN\ntransaction:1\n\n").await;
    peer.ask("BEGIN\ntransaction:2\n\n").await;
    peer.send("BEGIN\ntransaction:3\n\n\0").await;
    let body = "Too many concurrent transactions (limit 2)";
    peer.expect_error("Transaction limit exceeded", body).await;
    for _ in 0..4 {
        peer.send("SEND\ndestination:/queue/b\ntransaction:1\n\n\0").await;
    }
    let body = "Too many actions in transaction (limit 3)";
    peer.expect_error("Transaction too large", body).await;
    // It is gone: without the last message it would be another.
    peer.send("COMMIT\ntransaction:1\n\n\0").await;
    peer.expect_error("Bad transaction", "Invalid transaction identifier: \"1\"\n").await;
    let body = "x".repeat(1500);
    peer.send(&format!("SEND\ndestination:/queue/b\ntransaction:2\n\n{body}\0")).await;
    peer.send(&format!("SEND\ndestination:/queue/b\ntransaction:2\n\n{body}\0")).await;
    let body = "Too many octets in open transactions (limit 2000B)";
    peer.expect_error("Transaction too large", body).await;
    assert_eq!(broker.list("queues", r#""name","messages""#).await, [r#"["b",0]"#]);
}

#[tokio::test]
async fn a_full_queue_makes_a_commit_fail() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    let arguments = "x-max-length:1\nx-overflow:reject-publish\n";
    peer.ask("BEGIN\ntransaction:t\n\n").await;
    for _ in 0..2 {
        peer.send(&format!("SEND\ndestination:/queue/f\ntransaction:t\n{arguments}\n\0")).await;
    }
    peer.send("COMMIT\ntransaction:t\nreceipt:c\n\n\0").await;
    peer.expect_last_error("precondition_failed", "PRECONDITION_FAILED - partial tx completion")
        .await;
}

/// A SEND or ACK that is refused would be missing from the transaction: then there is none.
#[tokio::test]
async fn a_frame_that_is_refused_takes_its_transaction_along() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    let refused = [
        "SEND\ndestination:/foo/x\ntransaction:t\n\nbad\0",
        "ACK\nid:none\ntransaction:t\n\n\0",
        "NACK\ntransaction:t\n\n\0",
    ];
    for frame in refused {
        peer.ask("BEGIN\ntransaction:t\n\n").await;
        peer.send("SEND\ndestination:/queue/half\ntransaction:t\n\ngood\0").await;
        peer.send(frame).await;
        assert!(peer.next().await.starts_with("ERROR"));
        peer.send("COMMIT\ntransaction:t\n\n\0").await;
        peer.expect_error("Bad transaction", "Invalid transaction identifier: \"t\"\n").await;
    }
    peer.ask("SUBSCRIBE\nid:0\ndestination:/queue/half\n\n").await;
    peer.expect_nothing().await;
}
