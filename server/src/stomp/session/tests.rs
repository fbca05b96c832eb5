//! A session without a socket, over a log that is as slow as the test says.

use super::*;
use crate::counters::Counters;
use crate::driver::Session as _;
use crate::node::{Alarm, BLOCKED_ALLOWANCE};
use crate::settings::Settings;
use broker_core::Broker;
use broker_core::log::budget::Budget;
use broker_core::log::{DurableWatcher, Log, LogPosition};
use broker_core::name::QueueName;
use broker_core::queue::{Queue, QueueId};
use broker_core::storage::{Batch, Health, MessageBlock, StorageError};
use std::sync::Weak;

/// A log whose mark moves when it is told.
#[derive(Debug, Default)]
struct SlowLog {
    end: AtomicU64,
    mark: AtomicU64,
    budget: Arc<Budget>,
}

impl SlowLog {
    /// Everything that was appended becomes durable.
    fn catch_up(&self) {
        self.mark.store(self.end.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

impl Log for SlowLog {
    fn keeps(&self) -> bool {
        true
    }

    fn append(&self, _: &Batch<'_>) -> Result<LogPosition, StorageError> {
        Ok(LogPosition(self.end.fetch_add(1, Ordering::SeqCst) + 1))
    }

    fn durable_up_to(&self) -> LogPosition {
        LogPosition(self.mark.load(Ordering::SeqCst))
    }

    fn appended_up_to(&self) -> LogPosition {
        LogPosition(self.end.load(Ordering::SeqCst))
    }

    fn health(&self) -> Health {
        Health::Healthy
    }

    fn watch(&self, _: Arc<dyn DurableWatcher>) {}

    fn read(&self, _: QueueId, _: u64, _: usize) -> Result<Option<MessageBlock>, StorageError> {
        Ok(None)
    }

    fn give_up(&self, _: QueueId, _: u64, _: &[u8], _: &str) {}

    fn load_soon(&self, _: Weak<Queue>) {}

    fn is_pressed(&self) -> bool {
        false
    }

    fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn started_at_unix_ms(&self) -> u64 {
        0
    }
}

/// A session that has logged in, and its log.
async fn logged_in() -> (Session, Arc<SlowLog>) {
    let log = Arc::new(SlowLog::default());
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
async fn the_receipt_of_a_transient_message_waits_for_nothing() {
    let (mut session, _) = logged_in().await;
    let transient = PERSISTENT.replace("persistent:true\n", "");
    assert_eq!(feed(&mut session, &transient).await, RECEIPT);
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
    let (mut session, _) = logged_in().await;
    let node = Arc::clone(&session.node);
    let state = |session: &Session| session.shared.facts.lock().state;
    feed(&mut session, "SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client\n\n\0").await;
    node.alarms.set(Alarm::Memory, true);
    let message = feed(&mut session, "SEND\ndestination:/queue/q\n\nx\0").await;
    assert_eq!((state(&session), session.want()), ("blocked", Want::Read));
    let id = message.lines().find_map(|line| line.strip_prefix("ack:")).unwrap();
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
