//! ACK and NACK.

use super::broker::Broker;
use super::peer::Peer;

/// Sends bodies `1`, `2`, … to a queue and waits until they are there.
async fn fill(peer: &mut Peer, queue: &str, count: u32) {
    for number in 1..=count {
        peer.ask(&format!("SEND\ndestination:/queue/{queue}\n\n{number}")).await;
    }
}

/// Reads deliveries with these bodies; gives their message-ids.
async fn deliveries(peer: &mut Peer, bodies: &[&str]) -> Vec<String> {
    let mut ids = Vec::new();
    for body in bodies {
        let message = peer.next().await;
        assert!(message.ends_with(&format!("\n\n{body}")), "{body}: {message}");
        let id = message.lines().find_map(|line| line.strip_prefix("message-id:")).unwrap();
        ids.push(id.replace("@@S@@", &format!("@@{}@@", peer.session)));
    }
    ids
}

#[tokio::test]
async fn an_ack_has_to_name_a_delivery_that_waits_for_it() {
    let broker = Broker::start().await;
    for (version, header) in [("1.0", "message-id"), ("1.1", "message-id"), ("1.2", "id")] {
        let mut peer = broker.log_in(version).await;
        for command in ["ACK", "NACK"] {
            peer.send(&format!("{command}\n\n\0")).await;
            let body = format!("\"{command}\" must include the \"{header}\" header\n");
            peer.expect_error("Missing header", &body).await;
            peer.send(&format!("{command}\n{header}:7\n\n\0")).await;
            let body = format!("\"{command}\" must include a valid \"{header}\" header\n");
            peer.expect_error("Invalid header", &body).await;
            peer.send(&format!("{command}\n{header}:T_0@@x@@first\n\n\0")).await;
            peer.expect_error("Processing error", "Processing error").await;
            peer.send(&format!("{command}\n{header}:T_0@@x@@1\n\n\0")).await;
            let body = "Message with id \"T_0@@x@@1\" has no subscription";
            peer.expect_error("Subscription not found", body).await;
        }
        peer.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_delivery_is_acknowledged_once() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    fill(&mut peer, "once", 1).await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/queue/once\nack:client\n\n").await;
    let ids = deliveries(&mut peer, &["1"]).await;
    peer.ask(&format!("ACK\nid:{}\n\n", ids[0])).await;
    peer.send(&format!("ACK\nid:{}\n\n\0", ids[0])).await;
    peer.expect_error("Message not found", "unknown delivery tag 1\n").await;
    assert_eq!(broker.list("queues", r#""name","messages""#).await, [r#"["once",0]"#]);
}

#[tokio::test]
async fn a_delivery_of_an_auto_subscription_cannot_be_acknowledged() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.1").await;
    fill(&mut peer, "auto", 1).await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/queue/auto\n\n").await;
    let ids = deliveries(&mut peer, &["1"]).await;
    peer.send(&format!("ACK\nmessage-id:{}\n\n\0", ids[0])).await;
    peer.expect_error("Message not found", "unknown delivery tag 1\n").await;
}

/// How many messages are left in `a` and `b` when the second of `b` is acknowledged in mode `client` after two of
/// `a` and two of `b` were delivered.
async fn left_after_cumulative_ack(version: &str, header: &str) -> Vec<String> {
    let broker = Broker::start().await;
    let mut peer = broker.log_in(version).await;
    for queue in ["a", "b"] {
        fill(&mut peer, queue, 2).await;
    }
    let mut ids = Vec::new();
    for queue in ["a", "b"] {
        peer.ask(&format!("SUBSCRIBE\nid:{queue}\ndestination:/queue/{queue}\nack:client\n\n"))
            .await;
        ids = deliveries(&mut peer, &["1", "2"]).await;
    }
    peer.ask(&format!("ACK\n{header}:{}\n\n", ids[1])).await;
    broker.list("queues", r#""name","messages""#).await
}

#[tokio::test]
async fn in_mode_client_an_ack_is_for_all_before_it() {
    // spec: stomp-1.2 SUBSCRIBE "ack": of the same subscription.
    for (version, header) in [("1.1", "message-id"), ("1.2", "id")] {
        let left = left_after_cumulative_ack(version, header).await;
        assert_eq!(left, [r#"["a",2]"#, r#"["b",0]"#], "{version}");
    }
    // In 1.0 of the whole connection.
    let left = left_after_cumulative_ack("1.0", "message-id").await;
    assert_eq!(left, [r#"["a",0]"#, r#"["b",0]"#]);
}

#[tokio::test]
async fn in_mode_client_individual_an_ack_is_for_one() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    fill(&mut peer, "one", 3).await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/queue/one\nack:client-individual\n\n").await;
    let ids = deliveries(&mut peer, &["1", "2", "3"]).await;
    peer.ask(&format!("ACK\nid:{}\n\n", ids[1])).await;
    peer.send("DISCONNECT\nreceipt:d\n\n\0").await;
    peer.expect_receipt("d").await;
    let mut other = broker.log_in("1.2").await;
    other.ask("SUBSCRIBE\nid:0\ndestination:/queue/one\n\n").await;
    for body in ["1", "3"] {
        let message = other.next().await;
        assert!(message.contains("\nredelivered:true\n"), "{message}");
        assert!(message.ends_with(body), "{message}");
    }
}

#[tokio::test]
async fn a_nack_puts_the_message_back_or_drops_it() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    fill(&mut peer, "back", 1).await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/queue/back\nack:client-individual\n\n").await;
    let ids = deliveries(&mut peer, &["1"]).await;
    peer.send(&format!("NACK\nid:{}\n\n\0", ids[0])).await;
    let message = peer.next().await;
    assert!(message.contains("\nredelivered:true\n"), "{message}");
    let id = format!("T_0@@{}@@2", peer.session);
    peer.ask(&format!("NACK\nid:{id}\nrequeue:false\n\n")).await;
    assert_eq!(broker.list("queues", r#""name","messages""#).await, [r#"["back",0]"#]);
}

#[tokio::test]
async fn what_a_nack_without_requeue_means_is_a_setting() {
    let broker = Broker::with(|settings| settings.stomp.default_nack_requeue = false).await;
    let mut peer = broker.log_in("1.1").await;
    peer.ask("SUBSCRIBE\nid:d\ndestination:/topic/dead\n\n").await;
    peer.ask(
        "SUBSCRIBE\nid:0\ndestination:/queue/nack\nack:client\nx-dead-letter-exchange:amq.topic\n\
         x-dead-letter-routing-key:dead\n\n",
    )
    .await;
    peer.send("SEND\ndestination:/queue/nack\n\n1\0").await;
    let ids = deliveries(&mut peer, &["1"]).await;
    peer.send(&format!("NACK\nmessage-id:{}\n\n\0", ids[0])).await;
    let message = peer.next().await;
    assert!(message.contains("\ndestination:/topic/dead\n"), "{message}");
    assert!(message.contains("\nx-first-death-reason:rejected\n"), "{message}");
}

#[tokio::test]
async fn after_unsubscribe_what_was_delivered_can_still_be_acknowledged() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    fill(&mut peer, "late", 2).await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/queue/late\nack:client-individual\n\n").await;
    let ids = deliveries(&mut peer, &["1", "2"]).await;
    peer.ask("UNSUBSCRIBE\nid:0\n\n").await;
    for id in &ids {
        peer.ask(&format!("ACK\nid:{id}\n\n")).await;
    }
    assert_eq!(broker.list("queues", r#""name","messages""#).await, [r#"["late",0]"#]);
    // All is acknowledged: nobody knows the subscription any more.
    peer.send(&format!("ACK\nid:{}\n\n\0", ids[0])).await;
    let body = "Message with id \"T_0@@S@@1\" has no subscription";
    peer.expect_error("Subscription not found", body).await;
}
