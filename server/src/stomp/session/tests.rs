//! A session without a socket, over a log that is as slow as the test says.

use super::*;
use crate::counters::Counters;
use crate::driver::Session as _;
use crate::node::slow_log::SlowLog;
use crate::node::{Alarm, BLOCKED_ALLOWANCE};
use crate::settings::Settings;
use broker_core::Broker;
use broker_core::name::QueueName;

/// A session that has logged in, and its log.
async fn logged_in() -> (Session, Arc<SlowLog>) {
    logged_in_over(SlowLog::default()).await
}

async fn logged_in_over(log: SlowLog) -> (Session, Arc<SlowLog>) {
    let log = Arc::new(log);
    let mut node = Node::in_memory(Settings::default(), Counters::new(&metrics::NoopRecorder));
    node.broker = Broker::new(Arc::clone(&log) as Arc<_>, Vec::new());
    node.broker.bootstrap("/", "guest", b"guest").unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut session = Session::new(Arc::new(node), address, address, false);
    session.feed(b"CONNECT\naccept-version:1.2\n\n\0");
    std::future::poll_fn(|cx| session.poll_background(cx)).await;
    assert!(written(&mut session).await.starts_with("CONNECTED\n"));
    (session, log)
}

/// What the session has written since the last call.
async fn written(session: &mut Session) -> String {
    let (mut writing, mut octets) = (Writing::default(), Vec::new());
    session.look();
    while session.refill(&mut writing) {
        let write = |cx: &mut Context<'_>| writing.poll_write(&mut octets, cx);
        std::future::poll_fn(write).await.unwrap();
    }
    String::from_utf8(octets).unwrap()
}

async fn feed(session: &mut Session, frames: &str) -> String {
    assert_eq!(session.feed(frames.as_bytes()), frames.len());
    written(session).await
}

const RECEIPT: &str = "RECEIPT\nreceipt-id:1\n\n\0\n";
const PERSISTENT: &str = "SEND\ndestination:/queue/q\npersistent:true\nreceipt:1\n\nx\0";

#[tokio::test]
async fn the_receipt_of_a_persistent_message_waits_for_the_log() {
    let (mut session, log) = logged_in().await;
    assert_eq!(feed(&mut session, PERSISTENT).await, "");
    log.catch_up();
    assert_eq!(written(&mut session).await, RECEIPT);
}

#[tokio::test]
async fn the_receipt_of_a_transient_message_waits_for_nothing_but_its_queue() {
    let (mut session, log) = logged_in().await;
    let transient = PERSISTENT.replace("persistent:true\n", "");
    assert_eq!(feed(&mut session, &transient).await, "", "it has declared the queue");
    log.catch_up();
    assert_eq!(written(&mut session).await, RECEIPT);
    assert_eq!(feed(&mut session, &transient).await, RECEIPT);
}

/// A SUBSCRIBE to a durable queue that does not go with its consumer.
fn durable_subscribe(id: &str, destination: &str) -> String {
    format!(
        "SUBSCRIBE\nid:{id}\ndestination:{destination}\ndurable:true\nauto-delete:false\nreceipt:1\n\n\0"
    )
}

/// Whether the session takes up again what it has left.
async fn goes_on(session: &mut Session) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(session.poll_background(cx).is_ready())).await
}

#[tokio::test]
async fn a_subscription_with_a_receipt_begins_when_the_log_keeps_its_queue() {
    for destination in ["/queue/q", "/topic/t", "/exchange/amq.topic/t"] {
        let (mut session, log) = logged_in().await;
        let subscribe = durable_subscribe("0", destination);
        let send = format!("SEND\ndestination:{destination}\n\nx\0");
        assert_eq!(session.feed(format!("{subscribe}{send}").as_bytes()), 0, "all of it waits");
        assert_eq!(written(&mut session).await, "");
        assert_eq!(session.want(), Want::Pause, "more would have to be kept somewhere");
        assert!(session.deadline().is_some() && !goes_on(&mut session).await);
        log.catch_up();
        assert!(goes_on(&mut session).await);
        let answer = feed(&mut session, &format!("{subscribe}{send}")).await;
        let (receipt, message) = answer.split_at(RECEIPT.len());
        assert!(receipt == RECEIPT && message.starts_with("MESSAGE\n"), "{answer}");
        assert_eq!((session.want(), session.deadline()), (Want::Read, None));
        if destination == "/queue/q" {
            // It is there now.
            assert_eq!(feed(&mut session, &durable_subscribe("1", destination)).await, RECEIPT);
            continue;
        }
        let unsubscribe = "UNSUBSCRIBE\nid:0\ndurable:true\nreceipt:1\n\n\0";
        assert_eq!(feed(&mut session, unsubscribe).await, "");
        log.catch_up();
        assert_eq!(written(&mut session).await, RECEIPT);
    }
}

#[tokio::test]
async fn the_receipt_of_a_subscription_comes_behind_those_of_the_frames_before_it() {
    let (mut session, log) = logged_in().await;
    assert_eq!(feed(&mut session, PERSISTENT).await, "");
    let subscribe = "SUBSCRIBE\nid:0\ndestination:/topic/t\nreceipt:2\n\n\0";
    assert_eq!(session.feed(subscribe.as_bytes()), 0, "its own queue is not kept, and it waits");
    log.catch_up();
    assert_eq!(written(&mut session).await, RECEIPT);
    assert!(goes_on(&mut session).await);
    assert_eq!(feed(&mut session, subscribe).await, RECEIPT.replace(":1", ":2"));
}

#[tokio::test]
async fn a_subscription_without_a_receipt_begins_at_once() {
    let (mut session, _) = logged_in().await;
    let subscribe = durable_subscribe("0", "/queue/q").replace("receipt:1\n", "");
    let send = "SEND\ndestination:/queue/q\n\nx\0";
    let answer = feed(&mut session, &format!("{subscribe}{send}")).await;
    assert!(answer.starts_with("MESSAGE\n"), "{answer}");
}

#[tokio::test]
async fn a_subscription_that_has_waited_for_too_long_begins_and_its_receipt_waits_on() {
    let (mut session, log) = logged_in().await;
    let subscribe = durable_subscribe("0", "/queue/q");
    assert_eq!(session.feed(subscribe.as_bytes()), 0);
    session.on_deadline(session.deadline().unwrap());
    assert!(goes_on(&mut session).await);
    assert_eq!(feed(&mut session, &subscribe).await, "");
    let send = "SEND\ndestination:/queue/q\n\nx\0";
    let answer = feed(&mut session, send).await;
    assert!(answer.starts_with("MESSAGE\n"), "{answer}");
    log.catch_up();
    assert_eq!(written(&mut session).await, RECEIPT);
}

#[tokio::test]
async fn a_subscription_that_why_in_vain_is_told() {
    let (mut session, _) = logged_in().await;
    assert_eq!(session.feed(durable_subscribe("0", "/queue/q").as_bytes()), 0);
    session.node.alarms.set(Alarm::Store, true);
    let told = written(&mut session).await;
    assert!(told.starts_with("ERROR\n") && told.contains("cannot be written"), "{told}");
    assert_eq!(session.want(), Want::Finish);
}

#[tokio::test]
async fn a_queue_that_would_have_gone_with_its_consumer_goes_without_it() {
    let (mut session, _) = logged_in().await;
    let vhost = session.node.broker.vhost("/").unwrap();
    let subscribe = durable_subscribe("0", "/topic/t").replace("auto-delete:false\n", "");
    assert_eq!(session.feed(subscribe.as_bytes()), 0);
    assert_eq!(vhost.queues().len(), 1);
    session.on_closed(None);
    assert!(vhost.queues().is_empty());
}

#[tokio::test]
async fn the_receipt_of_a_subscription_to_what_is_transient_waits_for_nothing() {
    let (mut session, _) = logged_in().await;
    for (id, destination) in ["/topic/t", "/queue/q\ndurable:false"].iter().enumerate() {
        let subscribe = format!("SUBSCRIBE\nid:{id}\ndestination:{destination}\nreceipt:1\n\n\0");
        assert_eq!(feed(&mut session, &subscribe).await, RECEIPT);
        let unsubscribe = format!("UNSUBSCRIBE\nid:{id}\nreceipt:1\n\n\0");
        assert_eq!(feed(&mut session, &unsubscribe).await, RECEIPT);
    }
}

#[tokio::test]
async fn the_receipts_of_a_transaction_wait_for_all_of_it() {
    let (mut session, log) = logged_in().await;
    let in_transaction = PERSISTENT.replace("receipt:1", "receipt:2\ntransaction:t");
    let frames = format!("BEGIN\ntransaction:t\n\n\0{in_transaction}");
    assert_eq!(feed(&mut session, &frames).await, "");
    assert_eq!(feed(&mut session, "COMMIT\ntransaction:t\nreceipt:1\n\n\0").await, "");
    log.catch_up();
    let both = format!("{RECEIPT}{}", RECEIPT.replace(":1", ":2"));
    assert_eq!(written(&mut session).await, both);
}

#[tokio::test]
async fn a_farewell_waits_for_what_came_before_it() {
    let (mut session, log) = logged_in().await;
    assert_eq!(feed(&mut session, PERSISTENT).await, "");
    assert_eq!(feed(&mut session, "DISCONNECT\nreceipt:2\n\n\0").await, "");
    assert_eq!(session.want(), Want::Read, "the end of the connection has to be noticed");
    // Whatever comes now is nobody's.
    assert_eq!(feed(&mut session, "SEND\n\n\0").await, "");
    log.catch_up();
    assert_eq!(written(&mut session).await, format!("{RECEIPT}{}", RECEIPT.replace(":1", ":2")));
    assert_eq!(session.want(), Want::Finish);
}

#[tokio::test]
async fn a_farewell_speaks_for_messages_without_receipts_too() {
    let (mut session, log) = logged_in().await;
    let silent = PERSISTENT.replace("receipt:1\n", "");
    let last = "DISCONNECT\nreceipt:1\n\n\0";
    assert_eq!(feed(&mut session, &format!("{silent}{last}")).await, "");
    log.catch_up();
    assert_eq!(written(&mut session).await, RECEIPT);

    let (mut session, log) = logged_in().await;
    let in_transaction = silent.replace("\n\nx", "\ntransaction:t\n\nx");
    let frames =
        format!("BEGIN\ntransaction:t\n\n\0{in_transaction}COMMIT\ntransaction:t\n\n\0{last}");
    assert_eq!(feed(&mut session, &frames).await, "");
    log.catch_up();
    assert_eq!(written(&mut session).await, RECEIPT);
}

#[tokio::test]
async fn a_receipt_speaks_for_the_frames_before_it() {
    let (mut session, log) = logged_in().await;
    let silent = PERSISTENT.replace("receipt:1\n", "");
    let transient = PERSISTENT.replace("persistent:true\n", "");
    assert_eq!(feed(&mut session, &format!("{silent}{transient}")).await, "");
    log.catch_up();
    assert_eq!(written(&mut session).await, RECEIPT);
}

#[tokio::test]
async fn a_receipt_speaks_for_acknowledgements_that_came_with_its_message() {
    let (mut session, log) = logged_in().await;
    let subscribe = "SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client\n\n\0";
    let silent = PERSISTENT.replace("receipt:1\n", "");
    let message = feed(&mut session, &format!("{subscribe}{silent}")).await;
    log.catch_up();
    let id = ack_of(&message);
    let transient = "SEND\ndestination:/topic/nobody\nreceipt:1\n\nx\0";
    assert_eq!(feed(&mut session, &format!("ACK\nid:{id}\n\n\0{transient}")).await, "");
    log.catch_up();
    assert_eq!(written(&mut session).await, RECEIPT);
}

/// What an ACK or NACK of a message names.
fn ack_of(message: &str) -> &str {
    message.lines().find_map(|line| line.strip_prefix("ack:")).unwrap()
}

/// A session that was delivered a message of a queue with a dead-letter exchange, which only the log has. Gives what a
/// NACK of it names too.
async fn one_to_reject() -> (Session, Arc<SlowLog>, String) {
    let (mut session, log) = logged_in_over(SlowLog::without_memory()).await;
    let subscribe = "SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client-individual\ndurable:true\n\
        auto-delete:false\nx-dead-letter-exchange:amq.fanout\n\n\0";
    let silent = PERSISTENT.replace("receipt:1\n", "");
    let message = feed(&mut session, &format!("{subscribe}{silent}")).await;
    log.catch_up();
    let id = ack_of(&message).to_owned();
    (session, log, id)
}

/// The one queue loses what waits in it to be dead-lettered.
fn purge(session: &Session) {
    let queue = QueueName::new("q").unwrap();
    let queue = session.node.broker.vhost("/").unwrap().queue(&queue).unwrap();
    assert_eq!(queue.purge().count, 1, "nothing waits for the disk");
}

/// A receipt was given when the log had the frames before it, although what they rejected had to be read and had not
/// moved.
#[tokio::test]
async fn a_receipt_waits_until_what_was_rejected_has_left_its_queue() {
    let transaction = |frame: &str| {
        let inner = frame.replace("\n\n\0", "\ntransaction:t\n\n\0");
        format!("BEGIN\ntransaction:t\n\n\0{inner}COMMIT\ntransaction:t\n\n\0")
    };
    let alone: fn(&str) -> String = str::to_owned;
    for reject in [alone, transaction] {
        for last in ["BEGIN\ntransaction:u", "SEND\ndestination:/topic/nobody", "DISCONNECT"] {
            let (mut session, log, id) = one_to_reject().await;
            let nack = reject(&format!("NACK\nid:{id}\nrequeue:false\n\n\0"));
            let last = format!("{last}\nreceipt:1\n\n\0");
            assert_eq!(feed(&mut session, &format!("{nack}{last}")).await, "", "{last}");
            log.catch_up();
            assert_eq!(written(&mut session).await, "", "{last}");
            purge(&session);
            assert_eq!(written(&mut session).await, "", "{last}: the log has yet to know");
            log.catch_up();
            assert_eq!(written(&mut session).await, RECEIPT, "{last}");
        }
    }
}

#[tokio::test]
async fn a_subscription_waits_with_its_receipt_until_what_was_rejected_has_left_its_queue() {
    for receipt in ["", "receipt:1\n"] {
        let (mut session, log, id) = one_to_reject().await;
        // Its queue is there, and has a message for it.
        let send = "SEND\ndestination:/queue/other\n\nx\0";
        assert_eq!(feed(&mut session, send).await, "");
        log.catch_up();
        let nack = format!("NACK\nid:{id}\nrequeue:false\n{receipt}\n\0");
        assert_eq!(feed(&mut session, &nack).await, "");
        let subscribe = "SUBSCRIBE\nid:1\ndestination:/queue/other\nreceipt:2\n\n\0";
        assert_eq!(session.feed(subscribe.as_bytes()), 0);
        log.catch_up();
        assert_eq!(written(&mut session).await, "");
        assert!(!goes_on(&mut session).await, "what was rejected has not moved");
        purge(&session);
        assert_eq!(written(&mut session).await, "", "the log has yet to know");
        log.catch_up();
        let before = if receipt.is_empty() { "" } else { RECEIPT };
        assert_eq!(written(&mut session).await, before);
        assert!(goes_on(&mut session).await);
        let answer = feed(&mut session, subscribe).await;
        let own = RECEIPT.replace(":1", ":2");
        assert!(answer.starts_with(&format!("{own}MESSAGE\n")), "{answer}");
    }
}

/// Its client would send it again.
#[tokio::test]
async fn the_receipt_of_a_message_does_not_wait_for_what_was_rejected_after_it() {
    let (mut session, log, id) = one_to_reject().await;
    let nack = format!("NACK\nid:{id}\nrequeue:false\n\n\0");
    let own = PERSISTENT.replace("queue/q", "queue/other");
    let behind = own.replace("receipt:1", "receipt:2");
    assert_eq!(feed(&mut session, &format!("{own}{nack}{behind}")).await, "");
    log.catch_up();
    assert_eq!(written(&mut session).await, RECEIPT);
    purge(&session);
    log.catch_up();
    assert_eq!(written(&mut session).await, RECEIPT.replace(":1", ":2"));
}

/// Each receipt has its time from when it is the first.
#[tokio::test]
async fn a_full_disk_puts_off_the_deadlines_of_all_receipts() {
    let (mut session, log, id) = one_to_reject().await;
    let nack = format!("NACK\nid:{id}\nrequeue:false\nreceipt:1\n\n\0");
    assert_eq!(feed(&mut session, &nack).await, "");
    let first = session.deadline().unwrap();
    log.set_full(true);
    session.on_deadline(first);
    assert!(session.deadline().is_some_and(|until| until > first));
    log.set_full(false);
    purge(&session);
    log.catch_up();
    assert_eq!(written(&mut session).await, RECEIPT);
    assert_eq!(session.deadline(), None);
}

#[tokio::test]
async fn a_receipt_that_has_waited_for_too_long_for_what_was_rejected_is_an_error() {
    for last in ["", "DISCONNECT\nreceipt:2\n\n\0"] {
        let (mut session, log, id) = one_to_reject().await;
        let nack = format!("NACK\nid:{id}\nrequeue:false\nreceipt:1\n\n\0{last}");
        assert_eq!(feed(&mut session, &nack).await, "");
        log.catch_up();
        // A full disk may have room again at any time; what is sent waits for that too.
        log.set_full(true);
        session.on_deadline(session.deadline().unwrap());
        assert_eq!(written(&mut session).await, "");
        log.set_full(false);
        session.on_deadline(session.deadline().unwrap());
        let told = written(&mut session).await;
        assert!(told.starts_with("ERROR\n") && told.contains("may be back"), "{told}");
        assert_eq!(session.want(), Want::Finish);
    }
}

#[tokio::test]
async fn an_error_that_ends_the_session_comes_behind_the_receipts() {
    let (mut session, log) = logged_in().await;
    let fatal = "SEND\ndestination:/exchange/missing\n\nx\0";
    assert_eq!(feed(&mut session, &format!("{PERSISTENT}{fatal}")).await, "");
    assert_eq!(feed(&mut session, PERSISTENT).await, "", "nobody listens any more");
    log.catch_up();
    let told = written(&mut session).await;
    let error = told.strip_prefix(RECEIPT).unwrap_or_else(|| panic!("{told}"));
    assert!(error.starts_with("ERROR\n") && error.contains("missing"), "{told}");
    assert_eq!(session.want(), Want::Finish);
}

#[tokio::test]
async fn who_sends_nothing_more_gets_the_receipts_that_are_due() {
    for last in ["", "DISCONNECT\nreceipt:2\n\n\0"] {
        let (mut session, log) = logged_in().await;
        assert_eq!(feed(&mut session, &format!("{PERSISTENT}{last}")).await, "");
        session.on_end();
        assert_eq!(session.want(), Want::Pause, "there is nothing to be read");
        log.catch_up();
        assert!(written(&mut session).await.starts_with(RECEIPT));
        assert_eq!(session.want(), Want::Finish);
    }
    // But not for ever.
    let (mut session, _) = logged_in().await;
    assert_eq!(feed(&mut session, PERSISTENT).await, "");
    session.on_end();
    session.on_deadline(session.deadline().unwrap());
    assert_eq!(session.want(), Want::Finish);
}

#[tokio::test]
async fn a_stop_gives_the_receipts_that_are_due_first() {
    let (mut session, log) = logged_in().await;
    assert_eq!(feed(&mut session, PERSISTENT).await, "");
    session.shared.close("shutdown");
    assert_eq!(written(&mut session).await, "");
    log.catch_up();
    let told = written(&mut session).await;
    assert!(told.starts_with(&format!("{RECEIPT}ERROR\n")), "{told}");
    assert_eq!(session.want(), Want::Finish);
}

#[tokio::test]
async fn who_waits_for_a_log_that_is_lost_is_told() {
    for last in ["", "DISCONNECT\nreceipt:2\n\n\0"] {
        let (mut session, _) = logged_in().await;
        assert_eq!(feed(&mut session, &format!("{PERSISTENT}{last}")).await, "");
        session.node.alarms.set(Alarm::Store, true);
        let told = written(&mut session).await;
        assert!(told.starts_with("ERROR\n") && told.contains("cannot be written"), "{told}");
        assert_eq!(session.want(), Want::Finish);
    }
}

#[tokio::test]
async fn a_client_with_too_many_receipts_outstanding_is_not_read_from() {
    let (mut session, log) = logged_in().await;
    for _ in 0..65_536 / 512 {
        assert_eq!(session.want(), Want::Read);
        assert_eq!(feed(&mut session, &PERSISTENT.repeat(512)).await, "");
    }
    assert_eq!(session.want(), Want::Pause);
    log.catch_up();
    written(&mut session).await;
    assert_eq!(session.want(), Want::Read);
}

#[tokio::test]
async fn a_publisher_that_is_held_may_acknowledge_until_its_allowance_is_used_up() {
    let (mut session, log) = logged_in().await;
    let node = Arc::clone(&session.node);
    let state = |session: &Session| session.shared.facts.lock().state;
    feed(&mut session, "SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client\n\n\0").await;
    log.catch_up();
    node.alarms.set(Alarm::Memory, true);
    let message = feed(&mut session, "SEND\ndestination:/queue/q\n\nx\0").await;
    assert_eq!((state(&session), session.want()), ("blocked", Want::Read));
    let id = ack_of(&message);
    assert_eq!(feed(&mut session, &format!("ACK\nid:{id}\nreceipt:1\n\n\0")).await, RECEIPT);
    assert_eq!(session.shared.channel().messages_unacknowledged, 0);

    // Headers count as well as bodies: neither of the two is enough.
    let header = format!("h:{}\n", "x".repeat(1024));
    let send = format!("SEND\ndestination:/topic/nobody\n{header}\n\0");
    feed(&mut session, &send.repeat(BLOCKED_ALLOWANCE / 2 / send.len())).await;
    assert_eq!(session.want(), Want::Read);
    let body = "x".repeat(BLOCKED_ALLOWANCE / 8 * 5);
    feed(&mut session, &format!("SEND\ndestination:/topic/nobody\n\n{body}\0")).await;
    assert_eq!(session.want(), Want::Pause);
    node.alarms.set(Alarm::Memory, false);
    written(&mut session).await;
    assert_eq!((state(&session), session.want()), ("running", Want::Read));
}

#[tokio::test]
async fn what_a_session_leaves_behind_when_it_panics_is_not_the_next_ones() {
    let (mut broken, _) = logged_in().await;
    let node = Arc::clone(&broken.node);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        SCRATCH.with_borrow_mut(|Scratch { headers, batch }| {
            let send = PERSISTENT.as_bytes();
            let Ok(Decoded::Frame { frame, .. }) = broken.decoder.decode(send, headers) else {
                unreachable!("a frame")
            };
            broken.on_frame(&frame, batch);
            // A panic that prints nothing.
            std::panic::resume_unwind(Box::new(()));
        });
    }));
    assert!(panicked.is_err());
    let (mut next, _) = logged_in().await;
    assert_eq!(feed(&mut next, "BEGIN\ntransaction:t\nreceipt:1\n\n\0").await, RECEIPT);
    let queue = node.broker.vhost("/").unwrap().queue(&QueueName::new("q").unwrap()).unwrap();
    assert_eq!(queue.depth().ready, 0, "nobody has handed it over");
}
