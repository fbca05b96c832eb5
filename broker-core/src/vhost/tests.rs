//! Declarations, bindings and routes of a virtual host.

use super::*;
use crate::exchange::Binding;
use crate::log::test_log::TestLog;
use crate::log::{LogPosition, MemoryLog};
use crate::message::{Attributes, Message, Publication};
use crate::queue::{Effects, Share};
use crate::storage::StorageError;

pub(super) const US: ConnectionId = ConnectionId(1);
const THEM: ConnectionId = ConnectionId(2);

pub(super) fn vhost() -> Arc<VirtualHost> {
    VirtualHost::new(
        VhostName::new("/").unwrap(),
        Arc::new(MemoryLog::default()),
        Arc::default(),
        Arc::default(),
    )
}

pub(super) fn exchange(name: &str) -> ExchangeName {
    ExchangeName::new(name).unwrap()
}

pub(super) fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

pub(super) fn spec(name: &str, kind: ExchangeType) -> ExchangeSpec {
    ExchangeSpec {
        name: exchange(name),
        kind,
        durable: false,
        auto_delete: false,
        internal: false,
        arguments: Arguments::new(),
    }
}

fn declaration(name: &str) -> QueueDeclaration {
    QueueDeclaration {
        name: queue(name),
        server_named: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        arguments: Arguments::new(),
    }
}

pub(super) fn declare(vhost: &VirtualHost, name: &str) -> Arc<Queue> {
    vhost.declare_queue(declaration(name), US, 0).unwrap().queue
}

pub(super) fn bind_with(
    vhost: &VirtualHost,
    source: &str,
    destination: Destination,
    key: &str,
    arguments: Arguments,
) {
    let binding = Binding {
        source: exchange(source),
        destination,
        routing_key: key.as_bytes().into(),
        arguments,
    };
    vhost.bind(binding, US).unwrap();
}

pub(super) fn bind(vhost: &VirtualHost, source: &str, to: &str, key: &str) {
    bind_with(vhost, source, Destination::Queue(queue(to)), key, Arguments::new());
}

pub(super) fn routed(vhost: &VirtualHost, source: &str, keys: &[&str]) -> Vec<String> {
    let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
    let route = vhost.route(&exchange(source), &keys, None).unwrap();
    let mut names: Vec<String> =
        route.queues.iter().map(|queue| queue.spec.name.to_string()).collect();
    names.sort();
    names
}

#[test]
fn the_default_exchange_leads_to_the_queue_of_that_name() {
    let vhost = vhost();
    declare(&vhost, "a");
    assert_eq!(routed(&vhost, "", &["a", "missing"]), ["a"]);
}

#[test]
fn a_queue_gets_a_message_once_however_many_bindings_match() {
    let vhost = vhost();
    declare(&vhost, "a");
    for key in ["x.#", "x.*", "x.y"] {
        bind(&vhost, "amq.topic", "a", key);
    }
    assert_eq!(routed(&vhost, "amq.topic", &["x.y", "x.z"]), ["a"]);
}

#[test]
fn cycles_between_exchanges_end() {
    let vhost = vhost();
    declare(&vhost, "a");
    vhost.declare_exchange(spec("one", ExchangeType::Fanout)).unwrap();
    vhost.declare_exchange(spec("two", ExchangeType::Fanout)).unwrap();
    for (source, destination) in [("one", "two"), ("two", "one"), ("one", "one")] {
        let destination = Destination::Exchange(exchange(destination));
        bind_with(&vhost, source, destination, "", Arguments::new());
    }
    bind(&vhost, "two", "a", "");
    assert_eq!(routed(&vhost, "one", &["k"]), ["a"]);
}

#[test]
fn the_alternate_exchange_takes_what_an_exchange_has_no_binding_for() {
    let vhost = vhost();
    declare(&vhost, "a");
    declare(&vhost, "rest");
    let mut main = spec("main", ExchangeType::Direct);
    main.arguments.set("alternate-exchange", Value::text("alternate"));
    vhost.declare_exchange(main).unwrap();
    assert!(routed(&vhost, "main", &["k"]).is_empty(), "a missing alternate is no error");
    vhost.declare_exchange(spec("alternate", ExchangeType::Fanout)).unwrap();
    bind(&vhost, "main", "a", "k");
    bind(&vhost, "alternate", "rest", "");
    assert_eq!(routed(&vhost, "main", &["k"]), ["a"]);
    assert_eq!(routed(&vhost, "main", &["other"]), ["rest"]);
}

#[test]
fn every_change_of_the_topology_ends_remembered_routes() {
    let vhost = vhost();
    let mut last = vhost.revision();
    let mut moved = || {
        let moved = vhost.revision() != last;
        last = vhost.revision();
        moved
    };
    declare(&vhost, "a");
    assert!(moved());
    declare(&vhost, "a");
    assert!(!moved(), "declaring again changes nothing");
    bind(&vhost, "amq.fanout", "a", "");
    assert!(moved());
    vhost.delete_queue(&queue("a"), None, false, false).unwrap();
    assert!(moved());
}

#[test]
fn refusals_speak_the_words_that_clients_know() {
    let vhost = vhost();
    declare(&vhost, "q");
    let text = |refusal: Result<_, Refusal>| refusal.err().map(|refusal| refusal.to_string());
    let durable = QueueDeclaration { durable: true, ..declaration("q") };
    assert_eq!(
        text(vhost.declare_queue(durable, US, 0).map(drop)).as_deref(),
        Some(
            "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'"
        )
    );
    let mut limited = declaration("q");
    limited.arguments.set("x-max-length", Value::SignedInt(5));
    assert_eq!(
        text(vhost.declare_queue(limited, US, 0).map(drop)).as_deref(),
        Some(
            "inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received the value '5' of type 'signedint' but current is none"
        )
    );
    let mut unknown = declaration("q");
    unknown.arguments.set("x-whatever", Value::SignedInt(5));
    unknown.arguments.set("x-queue-type", Value::text("classic"));
    assert!(vhost.declare_queue(unknown, US, 0).is_ok(), "unknown arguments are not compared");
    let exclusive = QueueDeclaration { exclusive: true, ..declaration("mine") };
    vhost.declare_queue(exclusive.clone(), US, 0).unwrap();
    for (who, what) in [(THEM, exclusive), (US, declaration("mine"))] {
        let refused = text(vhost.declare_queue(what, who, 0).map(drop)).unwrap();
        assert!(refused.starts_with("cannot obtain exclusive access to locked queue 'mine'"));
    }
    assert_eq!(
        text(vhost.declare_queue(declaration("amq.q"), US, 0).map(drop)).as_deref(),
        Some("queue name 'amq.q' contains reserved prefix 'amq.*'")
    );
    let topic = spec("amq.direct", ExchangeType::Topic);
    assert_eq!(
        text(vhost.declare_exchange(ExchangeSpec { durable: true, ..topic }).map(drop)).as_deref(),
        Some(
            "inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': received 'topic' but current is 'direct'"
        )
    );
}

#[test]
fn of_all_that_declare_a_queue_at_once_one_has_made_it() {
    const DECLARERS: u64 = 8;
    let everybody = usize::try_from(DECLARERS).unwrap();
    for _ in 0..50 {
        let vhost = vhost();
        let start = std::sync::Barrier::new(everybody);
        let declare = |number| {
            start.wait();
            let declared = vhost.declare_queue(declaration("q"), ConnectionId(number), 0);
            usize::from(declared.unwrap().new)
        };
        let makers: usize = std::thread::scope(|scope| {
            // All have to be there before the first is waited for.
            let mut threads = Vec::with_capacity(everybody);
            for number in 0..DECLARERS {
                threads.push(scope.spawn(move || declare(number)));
            }
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(makers, 1);
    }
}

#[test]
fn the_exclusive_queues_of_a_connection_go_with_it() {
    let vhost = vhost();
    let exclusive = QueueDeclaration { exclusive: true, ..declaration("mine") };
    vhost.declare_queue(exclusive, US, 0).unwrap();
    declare(&vhost, "shared");
    vhost.connection_closed(US);
    assert!(vhost.queue(&queue("mine")).is_err());
    assert!(vhost.queue(&queue("shared")).is_ok());
    assert!(vhost.topology.read().exclusive.is_empty());
}

fn dead_letter_queue(vhost: &VirtualHost, name: &str, ttl: i64, routing_key: &str) -> Arc<Queue> {
    let mut with = declaration(name);
    with.arguments.set("x-message-ttl", Value::Long(ttl));
    with.arguments.set("x-dead-letter-exchange", Value::text(""));
    with.arguments.set("x-dead-letter-routing-key", Value::text(routing_key));
    vhost.declare_queue(with, US, 0).unwrap().queue
}

fn publish(vhost: &VirtualHost, to: &Arc<Queue>, now: u64) {
    let message = Message::new(b"x", b"k", &[0, 0], b"body".to_vec(), Attributes::default());
    let mut effects = Effects::default();
    to.publish(&[Publication::Owned(message)], now, &mut effects);
    vhost.carry_out(to, &mut effects, now);
}

#[test]
fn a_dead_letter_says_where_it_died_and_why() {
    use proto_amqp::properties::summarise;
    use proto_amqp::table::Value as Header;
    let vhost = vhost();
    let graveyard = declare(&vhost, "graveyard");
    let short = dead_letter_queue(&vhost, "short", 5, "graveyard");
    publish(&vhost, &short, 0);
    vhost.sweep(5);
    assert_eq!(short.depth().ready, 0);
    let got = graveyard.get(true, 5, &mut Effects::default()).unwrap().unwrap();
    let parts = got.message.parts();
    assert_eq!((parts.exchange, parts.routing_key), (&b""[..], &b"graveyard"[..]));
    let properties = summarise(parts.properties).unwrap();
    let Some(Header::Array(mut deaths)) = properties.headers_reader().get(b"x-death") else {
        panic!("no x-death")
    };
    let Some(Header::Table(death)) = deaths.next() else { panic!("no entry") };
    let names: Vec<&[u8]> = death.map(|(name, _)| name).collect();
    assert_eq!(names, [&b"count"[..], b"reason", b"queue", b"time", b"exchange", b"routing-keys"]);
    assert_eq!(death.get(b"reason"), Some(Header::LongString(b"expired")));
    assert_eq!(death.get(b"queue"), Some(Header::LongString(b"short")));
    assert_eq!(death.get(b"exchange"), Some(Header::LongString(b"x")));
    let first = properties.headers_reader().get(b"x-first-death-queue");
    assert_eq!(first, Some(Header::LongString(b"short")));
}

#[test]
fn a_message_that_goes_round_by_itself_is_dropped() {
    let vhost = vhost();
    let one = dead_letter_queue(&vhost, "one", 5, "two");
    let two = dead_letter_queue(&vhost, "two", 5, "one");
    publish(&vhost, &one, 0);
    for now in [5, 10, 15, 20] {
        vhost.sweep(now);
    }
    assert_eq!((one.depth().ready, two.depth().ready), (0, 0));
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "nobody has carried this out")]
fn effects_that_nobody_carries_out_are_noticed() {
    let vhost = vhost();
    let short = dead_letter_queue(&vhost, "short", 5, "graveyard");
    let message = Message::new(b"", b"short", &[0, 0], b"body".to_vec(), Attributes::default());
    // It is to be watched for what expires in it.
    short.publish(&[Publication::Owned(message)], 0, &mut Effects::default());
}

#[test]
fn nothing_has_happened_in_a_step_that_the_log_does_not_take() {
    let (vhost, log) = kept_vhost();
    let kept = QueueDeclaration { durable: true, ..declaration("kept") };
    let kept = vhost.declare_queue(kept, US, 0).unwrap().queue;
    let graveyard = declare(&vhost, "graveyard");
    let mut refusing = declaration("refusing");
    refusing.arguments.set("x-max-length", Value::Long(0));
    refusing.arguments.set("x-overflow", Value::text("reject-publish-dlx"));
    refusing.arguments.set("x-dead-letter-exchange", Value::text(""));
    refusing.arguments.set("x-dead-letter-routing-key", Value::text("graveyard"));
    let refusing = vhost.declare_queue(refusing, US, 0).unwrap().queue;
    let persistent = Attributes { persistent: true, ..Attributes::default() };
    let message = Message::new(b"", b"", &[0, 0], b"body".to_vec(), persistent);
    let publications = [Publication::Owned(message)];
    let publish = || {
        let mut shares =
            [&kept, &refusing].map(|queue| Share { queue: Arc::clone(queue), indices: vec![0] });
        vhost.publish_together(&publications, &mut shares, 0)
    };
    let ready = || [&kept, &graveyard].map(|queue| queue.depth().ready);
    log.full.store(true, Ordering::Relaxed);
    assert!(matches!(publish(), Err(StorageError::DiskFull)));
    assert_eq!(ready(), [0, 0]);
    log.full.store(false, Ordering::Relaxed);
    assert_eq!(publish().unwrap().rejected, [0]);
    assert_eq!(ready(), [1, 1]);
}

/// A virtual host over a log whose batches have the positions 1, 2 and so on.
fn kept_vhost() -> (Arc<VirtualHost>, Arc<TestLog>) {
    let log = Arc::new(TestLog::default());
    let name = VhostName::new("/").unwrap();
    let vhost = VirtualHost::new(name, Arc::clone(&log) as Arc<_>, Arc::default(), Arc::default());
    (vhost, log)
}

fn binding(source: &str, to: &str) -> Binding {
    Binding {
        source: exchange(source),
        destination: Destination::Queue(queue(to)),
        routing_key: b"k".as_slice().into(),
        arguments: Arguments::new(),
    }
}

#[test]
fn what_is_durable_is_answered_with_its_position_and_found_with_the_same() {
    let (vhost, _) = kept_vhost();
    let kept = QueueDeclaration { durable: true, ..declaration("kept") };
    let declare = || vhost.declare_queue(kept.clone(), US, 0).unwrap().queue.defined_at;
    assert_eq!((declare(), declare()), (LogPosition(1), LogPosition(1)));
    let durable = ExchangeSpec { durable: true, ..spec("e", ExchangeType::Direct) };
    assert_eq!(vhost.declare_exchange(durable.clone()), Ok(LogPosition(2)));
    assert_eq!(vhost.declare_exchange(durable), Ok(LogPosition(2)));
    assert_eq!(vhost.exchange_defined_at(&exchange("e")), Ok(LogPosition(2)));
    assert_eq!(vhost.bind(binding("e", "kept"), US), Ok(LogPosition(3)));
    assert_eq!(vhost.bind(binding("e", "kept"), US), Ok(LogPosition(3)));
    assert_eq!(vhost.unbind(&binding("e", "kept"), US), Ok(LogPosition(4)));
    let removed = Removed { count: 0, position: LogPosition(5) };
    assert_eq!(vhost.delete_queue(&queue("kept"), Some(US), false, false), Ok(removed));
    assert_eq!(vhost.delete_exchange(&exchange("e"), false), Ok(LogPosition(6)));
    // They are gone for good when their removal is, whoever asks for it.
    let removed = Removed { count: 0, position: LogPosition(6) };
    assert_eq!(vhost.delete_queue(&queue("kept"), Some(US), false, false), Ok(removed));
    assert_eq!(vhost.delete_exchange(&exchange("e"), false), Ok(LogPosition(6)));
    assert_eq!(vhost.unbind(&binding("e", "kept"), US), Ok(LogPosition(6)));
}

#[test]
fn what_is_transient_appends_nothing_and_waits_for_nothing() {
    let (vhost, log) = kept_vhost();
    let durable = ExchangeSpec { durable: true, ..spec("e", ExchangeType::Direct) };
    assert_eq!(vhost.declare_exchange(durable), Ok(LogPosition(1)));
    let exclusive = QueueDeclaration { durable: true, exclusive: true, ..declaration("a") };
    let transient = vhost.declare_queue(exclusive, US, 0).unwrap().queue;
    assert_eq!(transient.defined_at, LogPosition::START);
    let fleeting = spec("fleeting", ExchangeType::Direct);
    assert_eq!(vhost.declare_exchange(fleeting), Ok(LogPosition::START));
    assert_eq!(vhost.bind(binding("e", "a"), US), Ok(LogPosition::START));
    assert_eq!(vhost.unbind(&binding("e", "a"), US), Ok(LogPosition::START));
    publish(&vhost, &transient, 0);
    assert_eq!(transient.purge(), Removed { count: 1, position: LogPosition::START });
    let removed = vhost.delete_queue(&queue("a"), Some(US), false, false);
    assert_eq!(removed, Ok(Removed::default()));
    assert_eq!(vhost.delete_exchange(&exchange("fleeting"), false), Ok(LogPosition::START));
    assert_eq!(log.appended_up_to(), LogPosition(1));
}

#[test]
fn what_the_log_does_not_learn_is_never_gone_for_good() {
    let (vhost, log) = kept_vhost();
    let kept = QueueDeclaration { durable: true, ..declaration("kept") };
    let kept = vhost.declare_queue(kept, US, 0).unwrap().queue;
    let persistent = Attributes { persistent: true, ..Attributes::default() };
    let message = Message::new(b"", b"kept", &[0, 0], b"body".to_vec(), persistent);
    kept.publish(&[Publication::Owned(message)], 0, &mut Effects::default());
    log.full.store(true, Ordering::Relaxed);
    assert_eq!(kept.purge(), Removed { count: 1, position: LogPosition::NEVER });
    let removed = Removed { count: 0, position: LogPosition::NEVER };
    assert_eq!(vhost.delete_queue(&queue("kept"), Some(US), false, false), Ok(removed));
}

#[test]
fn a_durable_queue_that_goes_with_its_last_consumer_says_when_it_is_gone_for_good() {
    let (vhost, _) = kept_vhost();
    let kept = QueueDeclaration { durable: true, auto_delete: true, ..declaration("kept") };
    let kept = vhost.declare_queue(kept, US, 0).unwrap().queue;
    let mut effects = Effects::default();
    effects.delete_queue = true;
    vhost.carry_out(&kept, &mut effects, 0);
    assert_eq!(effects.position, LogPosition(2));
}
