//! Connections without a socket, over a log that is as slow as the test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use broker_core::Broker;
use broker_core::log::DurableWatcher as _;
use broker_core::name::QueueName;
use proto_amqp::control::protocol::{basic, channel, confirm, connection, exchange, queue, tx};
use proto_amqp::control::types::{AMQPValue, FieldTable};
use proto_amqp::handshake::PROTOCOL_HEADER_0_9_1;
use proto_amqp::{Version, basic as octets, control, frame};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::task::{JoinHandle, yield_now};

use super::*;
use crate::amqp::session::encode;
use crate::counters::Counters;
use crate::driver::{Driver, Session as _, Want};
use crate::node::slow_log::SlowLog;
use crate::node::{Alarm, Node};
use crate::settings::Settings;

/// Octets that fit between the two ends of a connection.
const PIPE_LEN: usize = 64 * 1024;

/// How often others have their turn until everything that was sent has been worked through.
const TURNS: usize = 100;

/// A broker whose log moves when it is told.
struct Slow {
    node: Arc<Node>,
    log: Arc<SlowLog>,
}

impl Slow {
    fn start() -> Self {
        Self::over(SlowLog::default())
    }

    fn over(log: SlowLog) -> Self {
        let log = Arc::new(log);
        let mut node = Node::in_memory(Settings::default(), Counters::new(&metrics::NoopRecorder));
        node.broker = Broker::new(Arc::clone(&log) as Arc<_>, Vec::new());
        node.broker.bootstrap("/", "guest", b"guest").unwrap();
        log.catch_up();
        Self { node: Arc::new(node), log }
    }

    /// Everything that was appended becomes durable.
    fn catch_up(&self) {
        self.log.catch_up();
        self.node.durable_moved();
    }

    /// The log cannot be written any more.
    fn lose_log(&self) {
        self.node.alarms.set(Alarm::Store, true);
        for connection in self.node.connections.all() {
            connection.wake();
        }
    }

    fn session(&self) -> Session {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        Session::new(Arc::clone(&self.node), address, address, false)
    }

    /// A session with the channels 1 and 2 and without a client.
    async fn opened(&self) -> Session {
        let mut session = self.session();
        let greeting = greeting();
        let taken = session.feed(&greeting);
        std::future::poll_fn(|cx| session.poll_background(cx)).await;
        tell(&mut session, &greeting[taken..]);
        session
    }

    /// A client with the channels 1 and 2.
    async fn connect(&self) -> Peer {
        let (near, far) = tokio::io::duplex(PIPE_LEN);
        let running = tokio::spawn(Driver::new(self.session(), far).run());
        let mut peer = Peer { stream: near, running, heard: Vec::new() };
        peer.send(&greeting()).await;
        while !peer.heard.ends_with(&["2 channel.open-ok".to_owned()]) {
            let mut octets = vec![0; PIPE_LEN];
            let count = peer.stream.read(&mut octets).await.unwrap();
            peer.heard.extend(described(&octets[..count]));
        }
        peer.heard.clear();
        peer
    }
}

/// What a session answers to what it is told, and what it says besides.
fn tell(session: &mut Session, frames: &[u8]) -> Vec<String> {
    assert_eq!(session.feed(frames), frames.len());
    session.look();
    described(&std::mem::take(session.outlet.lock().out.octets()))
}

/// Everything that a client says until it has two channels.
fn greeting() -> Vec<u8> {
    let start_ok = connection::StartOk {
        client_properties: Default::default(),
        mechanism: "PLAIN".into(),
        response: "\0guest\0guest".into(),
        locale: "en_US".into(),
    };
    let tune_ok = connection::TuneOk { channel_max: 9, frame_max: 131_072, heartbeat: 0 };
    let open = connection::Open { virtual_host: "/".into() };
    let mut greeting = PROTOCOL_HEADER_0_9_1.to_vec();
    for method in [
        connection::AMQPMethod::StartOk(start_ok),
        connection::AMQPMethod::TuneOk(tune_ok),
        connection::AMQPMethod::Open(open),
    ] {
        greeting.extend(method_frame(0, AMQPClass::Connection(method)));
    }
    for number in [1, 2] {
        let open = channel::AMQPMethod::Open(channel::Open {});
        greeting.extend(method_frame(number, AMQPClass::Channel(open)));
    }
    greeting
}

fn method_frame(channel: u16, class: AMQPClass) -> Vec<u8> {
    let mut out = Vec::new();
    encode(ChannelId(channel), &class, Version::V0_9_1, &mut out);
    out
}

fn of_queue(channel: u16, method: queue::AMQPMethod) -> Vec<u8> {
    method_frame(channel, AMQPClass::Queue(method))
}

fn of_exchange(channel: u16, method: exchange::AMQPMethod) -> Vec<u8> {
    method_frame(channel, AMQPClass::Exchange(method))
}

fn declare_queue(channel: u16, name: &str, durable: bool) -> Vec<u8> {
    let declare = queue::Declare { queue: name.into(), durable, ..queue::Declare::default() };
    of_queue(channel, queue::AMQPMethod::Declare(declare))
}

fn declare_exchange(channel: u16, name: &str, durable: bool) -> Vec<u8> {
    let (exchange, kind) = (name.into(), "direct".into());
    let declare = exchange::Declare { exchange, kind, durable, ..exchange::Declare::default() };
    of_exchange(channel, exchange::AMQPMethod::Declare(declare))
}

fn bind_queue(channel: u16, source: &str, name: &str) -> Vec<u8> {
    let (queue, exchange) = (name.into(), source.into());
    let bind = queue::Bind { queue, exchange, ..queue::Bind::default() };
    of_queue(channel, queue::AMQPMethod::Bind(bind))
}

fn unbind_queue(channel: u16, source: &str, name: &str) -> Vec<u8> {
    let (queue, exchange) = (name.into(), source.into());
    let unbind = queue::Unbind { queue, exchange, ..queue::Unbind::default() };
    of_queue(channel, queue::AMQPMethod::Unbind(unbind))
}

fn purge_queue(channel: u16, name: &str) -> Vec<u8> {
    let purge = queue::Purge { queue: name.into(), nowait: false };
    of_queue(channel, queue::AMQPMethod::Purge(purge))
}

fn delete_queue(channel: u16, name: &str) -> Vec<u8> {
    let delete = queue::Delete { queue: name.into(), ..queue::Delete::default() };
    of_queue(channel, queue::AMQPMethod::Delete(delete))
}

fn delete_exchange(channel: u16, name: &str) -> Vec<u8> {
    let delete = exchange::Delete { exchange: name.into(), ..exchange::Delete::default() };
    of_exchange(channel, exchange::AMQPMethod::Delete(delete))
}

fn exchange_binding(channel: u16, source: &str, destination: &str, there: bool) -> Vec<u8> {
    let (source, destination) = (source.into(), destination.into());
    of_exchange(
        channel,
        if there {
            let bind = exchange::Bind { source, destination, ..exchange::Bind::default() };
            exchange::AMQPMethod::Bind(bind)
        } else {
            let unbind = exchange::Unbind { source, destination, ..exchange::Unbind::default() };
            exchange::AMQPMethod::Unbind(unbind)
        },
    )
}

fn of_tx(channel: u16, method: tx::AMQPMethod) -> Vec<u8> {
    method_frame(channel, AMQPClass::Tx(method))
}

fn of_basic(channel: u16, method: basic::AMQPMethod) -> Vec<u8> {
    method_frame(channel, AMQPClass::Basic(method))
}

/// What is answered at once, whatever the log does.
fn ask(channel: u16) -> Vec<u8> {
    of_basic(channel, basic::AMQPMethod::Qos(basic::Qos { prefetch_count: 1, global: false }))
}

fn consume(channel: u16, queue: &str) -> Vec<u8> {
    let consume = basic::Consume { queue: queue.into(), ..basic::Consume::default() };
    of_basic(channel, basic::AMQPMethod::Consume(consume))
}

fn confirm_select(channel: u16) -> Vec<u8> {
    let select = confirm::AMQPMethod::Select(confirm::Select { nowait: true });
    method_frame(channel, AMQPClass::Confirm(select))
}

fn publish(channel: u16, queue: &str, persistent: bool) -> Vec<u8> {
    // Flags with delivery-mode, and the mode.
    let properties = [0x10, 0, if persistent { 2 } else { 1 }];
    let (mut out, id) = (Vec::new(), ChannelId(channel));
    octets::write_publish(&mut out, id, b"", queue.as_bytes(), false);
    octets::write_content_header(&mut out, id, 1, &properties);
    octets::write_body(&mut out, id, b"x", 0);
    out
}

fn close_channel(channel: u16) -> Vec<u8> {
    let close = channel::Close { reply_code: 200, ..channel::Close::default() };
    method_frame(channel, AMQPClass::Channel(channel::AMQPMethod::Close(close)))
}

fn close_connection() -> Vec<u8> {
    let close = connection::Close { reply_code: 200, ..connection::Close::default() };
    method_frame(0, AMQPClass::Connection(connection::AMQPMethod::Close(close)))
}

/// The methods in what was written: channel and name, and the text of what closes a channel.
fn described(mut octets: &[u8]) -> Vec<String> {
    let mut words = Vec::new();
    while let Some(frame) = frame::parse(octets, 0).unwrap() {
        octets = &octets[frame.wire_len..];
        if frame.kind != FrameKind::Method {
            continue;
        }
        let name = MethodId::of_payload(frame.payload).unwrap().name().unwrap();
        words.push(match control::decode(frame.payload, Version::V0_9_1) {
            Ok(AMQPClass::Channel(channel::AMQPMethod::Close(close))) => {
                format!("{} {}", frame.channel.0, close.reply_text)
            }
            _ => format!("{} {name}", frame.channel.0),
        });
    }
    assert!(octets.is_empty(), "half a frame");
    words
}

/// A client.
struct Peer {
    stream: DuplexStream,
    running: JoinHandle<()>,
    /// What it was told since it last looked.
    heard: Vec<String>,
}

impl Peer {
    async fn send(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).await.unwrap();
    }

    /// What it is told when all that was sent has been worked through, and was not told before.
    async fn hears(&mut self) -> Vec<String> {
        for _ in 0..TURNS {
            yield_now().await;
        }
        let mut octets = vec![0; PIPE_LEN];
        let mut read = ReadBuf::new(&mut octets);
        std::future::poll_fn(|cx| {
            // Nothing is as good as something.
            Poll::Ready(std::pin::Pin::new(&mut self.stream).poll_read(cx, &mut read).is_ready())
        })
        .await;
        let mut heard = std::mem::take(&mut self.heard);
        heard.extend(described(read.filled()));
        heard
    }

    /// What it is told after it has said this.
    async fn after(&mut self, frames: &[Vec<u8>]) -> Vec<String> {
        self.send(&frames.concat()).await;
        self.hears().await
    }
}

const NOTHING: [&str; 0] = [];

const TOO_LATE: &str = "1 PRECONDITION_FAILED - done, but the disk does not say that it is kept: after \
                        a crash it may be undone";

#[tokio::test]
async fn replies_wait_for_the_log_and_everything_behind_them_waits_with_them() {
    let slow = Slow::start();
    let mut peer = slow.connect().await;
    let heard = peer
        .after(&[
            confirm_select(1),
            declare_queue(1, "q", true),
            publish(1, "q", true),
            declare_exchange(1, "e", true),
            ask(2),
        ])
        .await;
    assert_eq!(heard, NOTHING);
    slow.catch_up();
    assert_eq!(peer.hears().await, ["1 queue.declare-ok"]);
    slow.catch_up();
    assert_eq!(peer.hears().await, ["1 basic.ack", "1 exchange.declare-ok", "2 basic.qos-ok"]);
}

#[tokio::test]
async fn a_commit_is_answered_before_what_came_after_it() {
    let slow = Slow::start();
    let mut peer = slow.connect().await;
    let transaction = [
        of_tx(1, tx::AMQPMethod::Select(tx::Select {})),
        declare_queue(1, "q", false),
        publish(1, "q", true),
        of_tx(1, tx::AMQPMethod::Commit(tx::Commit {})),
        declare_queue(1, "kept", true),
    ];
    // What is not durable keeps nothing: the commit waits for nothing.
    let told = ["1 tx.select-ok", "1 queue.declare-ok", "1 tx.commit-ok"];
    assert_eq!(peer.after(&transaction).await, told);
    slow.catch_up();
    assert_eq!(peer.hears().await, ["1 queue.declare-ok"]);
    let again = [
        publish(1, "kept", true),
        of_tx(1, tx::AMQPMethod::Commit(tx::Commit {})),
        declare_queue(1, "another", true),
    ];
    assert_eq!(peer.after(&again).await, NOTHING);
    slow.catch_up();
    assert_eq!(peer.hears().await, ["1 tx.commit-ok", "1 queue.declare-ok"]);
}

/// A queue with a dead-letter exchange.
fn declare_dead_lettering(channel: u16, name: &str) -> Vec<u8> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("amq.fanout".into()));
    let (queue, durable) = (name.into(), true);
    let declare = queue::Declare { queue, durable, arguments, ..queue::Declare::default() };
    of_queue(channel, queue::AMQPMethod::Declare(declare))
}

/// A transaction that rejects the first delivery, up to its commit.
fn rejecting(channel: u16) -> Vec<u8> {
    let reject = basic::Reject { delivery_tag: 1, requeue: false };
    let methods = [
        of_tx(channel, tx::AMQPMethod::Select(tx::Select {})),
        of_basic(channel, basic::AMQPMethod::Reject(reject)),
        of_tx(channel, tx::AMQPMethod::Commit(tx::Commit {})),
    ];
    methods.concat()
}

/// A commit was answered when the log had it, although what it rejected had to be read and had not moved.
#[tokio::test]
async fn a_commit_waits_until_what_it_rejected_has_left_its_queue() {
    let slow = Slow::over(SlowLog::without_memory());
    let mut peer = slow.connect().await;
    assert_eq!(peer.after(&[declare_dead_lettering(1, "q")]).await, NOTHING);
    slow.catch_up();
    let told = peer.after(&[consume(1, "q"), publish(1, "q", true)]).await;
    assert_eq!(told, ["1 queue.declare-ok", "1 basic.consume-ok", "1 basic.deliver"]);
    slow.catch_up();
    assert_eq!(peer.after(&[rejecting(1), ask(2)]).await, ["1 tx.select-ok"]);
    slow.catch_up();
    assert_eq!(peer.hears().await, NOTHING);
    let queue = slow.node.broker.vhost("/").unwrap().queue(&QueueName::new("q").unwrap()).unwrap();
    assert_eq!(queue.purge().count, 1, "nothing waits for the disk");
    assert_eq!(peer.hears().await, NOTHING, "the log has yet to know");
    slow.catch_up();
    assert_eq!(peer.hears().await, ["1 tx.commit-ok", "2 basic.qos-ok"]);
}

#[tokio::test]
async fn a_commit_that_waits_for_too_long_is_an_exception_of_its_channel() {
    let slow = Slow::over(SlowLog::without_memory());
    let mut session = slow.opened().await;
    tell(&mut session, &declare_dead_lettering(1, "q"));
    slow.catch_up();
    assert_eq!(tell(&mut session, &[]), ["1 queue.declare-ok"]);
    tell(&mut session, &[consume(1, "q"), publish(1, "q", true)].concat());
    assert_eq!(tell(&mut session, &rejecting(1)), ["1 tx.select-ok"]);
    slow.catch_up();
    session.on_deadline(session.deadline().unwrap());
    let buried_too_late = format!("1 PRECONDITION_FAILED - {BURIED_TOO_LATE}");
    assert_eq!(tell(&mut session, &[]), [buried_too_late]);
}

#[tokio::test]
async fn every_reply_to_something_durable_waits() {
    let slow = Slow::start();
    let mut peer = slow.connect().await;
    for (request, reply) in [
        (declare_queue(1, "q", true), "1 queue.declare-ok"),
        (declare_exchange(1, "e", true), "1 exchange.declare-ok"),
        (declare_exchange(1, "f", true), "1 exchange.declare-ok"),
        (bind_queue(1, "e", "q"), "1 queue.bind-ok"),
        (exchange_binding(1, "e", "f", true), "1 exchange.bind-ok"),
        (exchange_binding(1, "e", "f", false), "1 exchange.unbind-ok"),
        (unbind_queue(1, "e", "q"), "1 queue.unbind-ok"),
        ([publish(1, "q", true), purge_queue(1, "q")].concat(), "1 queue.purge-ok"),
        (delete_exchange(1, "e"), "1 exchange.delete-ok"),
        (delete_queue(1, "q"), "1 queue.delete-ok"),
    ] {
        assert_eq!(peer.after(&[request]).await, NOTHING, "{reply}");
        slow.catch_up();
        assert_eq!(peer.hears().await, [reply]);
    }
}

#[tokio::test]
async fn what_is_transient_or_there_already_waits_for_nothing() {
    let slow = Slow::start();
    let mut peer = slow.connect().await;
    peer.after(&[declare_queue(1, "there", true)]).await;
    slow.catch_up();
    assert_eq!(peer.hears().await, ["1 queue.declare-ok"]);
    let mut other = slow.connect().await;
    assert_eq!(other.after(&[declare_queue(1, "pending", true)]).await, NOTHING);
    for (request, reply) in [
        (declare_queue(1, "there", true), "1 queue.declare-ok"),
        (declare_queue(1, "q", false), "1 queue.declare-ok"),
        (declare_exchange(1, "e", false), "1 exchange.declare-ok"),
        (bind_queue(1, "amq.direct", "q"), "1 queue.bind-ok"),
        (unbind_queue(1, "amq.direct", "q"), "1 queue.unbind-ok"),
        (bind_queue(1, "e", "there"), "1 queue.bind-ok"),
        ([publish(1, "q", true), purge_queue(1, "q")].concat(), "1 queue.purge-ok"),
        (delete_exchange(1, "e"), "1 exchange.delete-ok"),
        (delete_queue(1, "q"), "1 queue.delete-ok"),
        (delete_queue(1, "nobody"), "1 queue.delete-ok"),
        (consume(1, "pending"), "1 basic.consume-ok"),
    ] {
        assert_eq!(peer.after(&[request]).await, [reply]);
    }
    assert_eq!(other.hears().await, NOTHING);
}

#[tokio::test]
async fn who_finds_what_another_has_declared_waits_for_the_same() {
    let slow = Slow::start();
    let [mut first, mut second] = [slow.connect().await, slow.connect().await];
    assert_eq!(first.after(&[declare_queue(1, "q", true)]).await, NOTHING);
    let declare = queue::Declare { queue: "q".into(), passive: true, ..queue::Declare::default() };
    let passive = of_queue(1, queue::AMQPMethod::Declare(declare));
    assert_eq!(second.after(&[passive]).await, NOTHING);
    slow.catch_up();
    assert_eq!(first.hears().await, ["1 queue.declare-ok"]);
    assert_eq!(second.hears().await, ["1 queue.declare-ok"]);
    // What another has deleted may be back, too.
    assert_eq!(first.after(&[delete_queue(1, "q")]).await, NOTHING);
    assert_eq!(second.after(&[delete_queue(1, "q")]).await, NOTHING);
    slow.catch_up();
    assert_eq!(second.hears().await, ["1 queue.delete-ok"]);
}

#[tokio::test]
async fn deliveries_go_on_meanwhile() {
    let slow = Slow::start();
    let [mut consumer, mut publisher] = [slow.connect().await, slow.connect().await];
    let told = consumer.after(&[declare_queue(1, "q", false), consume(1, "q")]).await;
    assert_eq!(told, ["1 queue.declare-ok", "1 basic.consume-ok"]);
    assert_eq!(consumer.after(&[declare_queue(2, "kept", true), ask(1)]).await, NOTHING);
    publisher.after(&[publish(1, "q", false)]).await;
    assert_eq!(consumer.hears().await, ["1 basic.deliver"]);
    slow.catch_up();
    assert_eq!(consumer.hears().await, ["2 queue.declare-ok", "1 basic.qos-ok"]);
}

#[tokio::test]
async fn a_reply_that_waits_for_a_lost_log_is_an_exception_of_its_channel() {
    let slow = Slow::start();
    let mut peer = slow.connect().await;
    let frames = [declare_queue(1, "q", true), ask(2), ask(1)];
    assert_eq!(peer.after(&frames).await, NOTHING);
    slow.lose_log();
    let text = "1 PRECONDITION_FAILED - cannot be kept: the log cannot be written any more";
    assert_eq!(peer.hears().await, [text, "2 basic.qos-ok"]);
    // Both ways: what was declared before is found, and used.
    assert_eq!(peer.after(&[declare_queue(2, "transient", false)]).await, ["2 queue.declare-ok"]);
}

#[tokio::test]
async fn a_reply_that_waits_for_too_long_is_an_exception_of_its_channel() {
    let slow = Slow::start();
    let mut session = slow.opened().await;
    let frame = declare_queue(1, "q", true);
    let before = Instant::now();
    assert_eq!(session.feed(&[frame.clone(), ask(2)].concat()), frame.len());
    session.look();
    assert_eq!(session.want(), Want::Pause, "more would have to be kept somewhere");
    let late = session.deadline().unwrap();
    assert!(late >= before + KEPT_WITHIN && late <= Instant::now() + KEPT_WITHIN);
    session.on_deadline(late);
    assert_eq!(tell(&mut session, &[]), [TOO_LATE]);
    assert_eq!((session.want(), session.deadline()), (Want::Read, None));
    // Nothing is left of it that would be sent twice.
    slow.catch_up();
    assert_eq!(tell(&mut session, &[]), NOTHING);
}

#[tokio::test]
async fn heartbeats_and_the_end_of_its_channel_pass_a_reply() {
    let slow = Slow::start();
    let mut peer = slow.connect().await;
    let frames =
        [declare_queue(1, "q", true), frame::HEARTBEAT_FRAME.to_vec(), close_channel(1), ask(2)];
    assert_eq!(peer.after(&frames).await, ["1 channel.close-ok", "2 basic.qos-ok"]);
    slow.catch_up();
    assert_eq!(peer.hears().await, NOTHING);
}

#[tokio::test]
async fn the_end_of_the_connection_passes_a_reply() {
    let slow = Slow::start();
    let mut peer = slow.connect().await;
    let frames = [declare_queue(1, "q", true), close_connection()];
    assert_eq!(peer.after(&frames).await, ["0 connection.close-ok"]);
    drop(peer.stream);
    peer.running.await.unwrap();
    assert_eq!(slow.node.connections.len(), 0);
}

#[tokio::test]
async fn who_goes_without_a_word_is_noticed_while_a_reply_waits() {
    let slow = Slow::start();
    let mut peer = slow.connect().await;
    assert_eq!(peer.after(&[declare_queue(1, "q", true)]).await, NOTHING);
    drop(peer.stream);
    peer.running.await.unwrap();
    assert_eq!(slow.node.connections.len(), 0);
}

#[tokio::test]
async fn a_broker_that_stops_says_so_while_a_reply_waits() {
    let slow = Slow::start();
    let mut peer = slow.connect().await;
    assert_eq!(peer.after(&[declare_queue(1, "q", true), ask(2)]).await, NOTHING);
    for connection in slow.node.connections.all() {
        connection.close("the broker stops");
    }
    assert_eq!(peer.hears().await, ["0 connection.close"]);
    let close_ok = connection::AMQPMethod::CloseOk(connection::CloseOk {});
    peer.after(&[method_frame(0, AMQPClass::Connection(close_ok))]).await;
    drop(peer.stream);
    peer.running.await.unwrap();
}
