//! SEND: headers that are refused, replies, receipts.

use super::broker::Broker;

#[tokio::test]
async fn headers_that_a_message_cannot_have_are_refused_and_the_connection_goes_on() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    for (header, message, body) in [
        ("message-id:1", "Invalid header", "'message-id' is not allowed on 'SEND'.\n"),
        ("priority:high", "Processing error", "Processing error"),
        ("timestamp:now", "Processing error", "Processing error"),
        ("reply-to:/foo/bar", "Processing error", "Processing error"),
        ("x-max-length:many", "Processing error", "Processing error"),
    ] {
        peer.send(&format!("SEND\ndestination:/queue/r\n{header}\n\n\0")).await;
        peer.expect_error(message, body).await;
    }
    let long = "x".repeat(256);
    peer.send(&format!("SEND\ndestination:/queue/r\ncorrelation-id:{long}\n\n\0")).await;
    peer.expect_error("Invalid header", "'correlation-id' has more than 255 octets.\n").await;
    peer.expect_nothing().await;
}

#[tokio::test]
async fn properties_that_amqp_refuses_end_the_connection() {
    let broker = Broker::start().await;
    for (header, body) in [
        ("expiration:soon", "PRECONDITION_FAILED - invalid expiration 'soon': no_integer"),
        ("expiration:-1", "PRECONDITION_FAILED - invalid expiration '-1': {value_negative,-1}"),
        (
            "user-id:root",
            "PRECONDITION_FAILED - user_id property set to 'root' but authenticated user was 'guest'",
        ),
        (
            "CC:other",
            "PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,\"CC\",longstr}",
        ),
        (
            "reply-to:amq.rabbitmq.reply-to",
            "PRECONDITION_FAILED - fast reply consumer does not exist",
        ),
    ] {
        let mut peer = broker.log_in("1.2").await;
        peer.send(&format!("SEND\ndestination:/queue/r\n{header}\n\n\0")).await;
        peer.expect_last_error("precondition_failed", body).await;
    }
}

#[tokio::test]
async fn many_sends_at_once_arrive_in_order_and_each_has_its_receipt() {
    let broker = Broker::start().await;
    let mut consumer = broker.log_in("1.2").await;
    consumer.ask("SUBSCRIBE\nid:a\ndestination:/queue/a\n\n").await;
    consumer.ask("SUBSCRIBE\nid:b\ndestination:/topic/b\n\n").await;
    let mut second = broker.log_in("1.2").await;
    second.ask("SUBSCRIBE\nid:b2\ndestination:/topic/b\n\n").await;
    let mut peer = broker.log_in("1.2").await;
    let mut frames = String::new();
    for number in 0..1000 {
        let destination = if number % 3 == 0 { "/topic/b" } else { "/queue/a" };
        frames += &format!("SEND\ndestination:{destination}\nreceipt:{number}\n\n{number}\0");
    }
    peer.send(&frames).await;
    for number in 0..1000 {
        peer.expect_receipt(&number.to_string()).await;
    }
    let body = |message: String| -> u32 { message.rsplit('\n').next().unwrap().parse().unwrap() };
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        let message = consumer.next().await;
        let list = if message.contains("subscription:a\n") { &mut of_a } else { &mut of_b };
        list.push(body(message));
    }
    assert!(of_a.is_sorted() && of_b.is_sorted());
    assert_eq!((of_a.len(), of_b.len()), (666, 334));
    for number in of_b {
        assert_eq!(body(second.next().await), number);
    }
}

#[tokio::test]
async fn a_reply_comes_back_through_a_temporary_queue() {
    let broker = Broker::start().await;
    let mut server = broker.log_in("1.2").await;
    server.ask("SUBSCRIBE\nid:0\ndestination:/queue/rpc\n\n").await;
    let mut client = broker.log_in("1.2").await;
    for question in ["1", "2"] {
        client
            .send(&format!(
                "SEND\ndestination:/queue/rpc\nreply-to:/temp-queue/foo\n\n{question}\0"
            ))
            .await;
        let message = server.next().await;
        let reply_to = message.lines().find_map(|line| line.strip_prefix("reply-to:")).unwrap();
        assert!(reply_to.starts_with("/reply-queue/amq.gen-"), "{reply_to}");
        server.send(&format!("SEND\ndestination:{reply_to}\n\nanswer {question}\0")).await;
        let answer = client.next().await;
        let queue = reply_to.strip_prefix("/reply-queue/").unwrap();
        assert_eq!(
            answer,
            format!(
                "MESSAGE\nsubscription:/temp-queue/foo\ndestination:/queue/{queue}\n\
                 message-id:T_/temp-queue/foo@@S@@{question}\nredelivered:false\n\
                 content-length:8\n\nanswer {question}"
            )
        );
    }
    client.send("UNSUBSCRIBE\nid:/temp-queue/foo\n\n\0").await;
    client.expect_error("Invalid id", "UNSUBSCRIBE 'id' may not start with /temp-queue/\n").await;
}

#[tokio::test]
async fn a_full_queue_that_rejects_is_an_error_where_a_receipt_was_asked_for() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    let send = |receipt: &str| {
        format!(
            "SEND\ndestination:/queue/full\nx-max-length:1\nx-overflow:reject-publish\n{receipt}\n\0"
        )
    };
    peer.send(&send("receipt:1\n")).await;
    peer.expect_receipt("1").await;
    peer.send(&send("receipt:2\n")).await;
    let body = "A queue that the message was routed to is full.\n";
    peer.expect(&format!(
        "ERROR\nmessage:Message rejected\ncontent-type:text/plain\nversion:1.0,1.1,1.2\n\
         receipt-id:2\ncontent-length:{}\n\n{body}",
        body.len()
    ))
    .await;
    // Nobody asked: nobody is told.
    peer.send(&send("")).await;
    peer.expect_nothing().await;
}

#[tokio::test]
async fn an_unroutable_message_is_dropped_and_its_receipt_given() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("SEND\ndestination:/topic/nobody\npersistent:true\n\nx").await;
    peer.ask("SEND\ndestination:/exchange/amq.headers/any\n\nx").await;
}

#[tokio::test]
async fn messages_expire_and_are_dead_lettered() {
    let broker = Broker::start().await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("SUBSCRIBE\nid:dead\ndestination:/exchange/amq.fanout\n\n").await;
    peer.send(
        "SEND\ndestination:/queue/short\nx-dead-letter-exchange:amq.fanout\nexpiration:1\n\nlate\0",
    )
    .await;
    let message = peer.next().await;
    assert!(message.contains("\ndestination:/exchange/amq.fanout/short\n"), "{message}");
    assert!(message.contains("\nx-first-death-reason:expired\n"), "{message}");
    assert!(message.ends_with("\n\nlate"), "{message}");
}
