//! Whole runs against the null broker in this process: that the books balance and that a run always ends.

use std::net::{SocketAddr, TcpListener};

use super::super::args::ExchangeShape;
use super::super::null::NullBroker;
use super::*;

fn path() -> PathArgs {
    PathArgs {
        producers: 1,
        consumers: 1,
        queues: 1,
        size: 16,
        ack: AckChoice::Auto,
        prefetch: None,
        persistent: false,
        durable: false,
        exchange_shape: None,
        bindings: None,
        // Far longer than it takes: a busy machine is no failure.
        duration: Duration::from_secs(600),
        warmup: Duration::ZERO,
        drain: Duration::from_secs(600),
    }
}

fn flood(messages: u64, window: u32) -> Pace {
    Pace::Flood { messages: NonZeroU64::new(messages), confirm_window: NonZeroU32::new(window) }
}

fn measured(protocol: Protocol, path: &PathArgs, pace: Pace) -> Measured {
    let broker = NullBroker::start(protocol, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = Address::local(protocol, broker.address);
    let load = Load { address: &address, path, pace, broker_pid: None };
    path.check(protocol).unwrap();
    let measured = measure(load);
    broker.stop();
    measured.unwrap()
}

#[test]
fn a_number_of_messages_is_published_and_delivered_exactly() {
    for protocol in [Protocol::Amqp, Protocol::Stomp] {
        let measured = measured(protocol, &path(), flood(10_001, 0));
        let counts = Counts { published: 10_001, delivered: 10_001, ..Counts::default() };
        assert_eq!(measured.counts, counts, "{protocol:?}");
        assert_eq!(measured.undelivered, 0);
        assert!(measured.broker.starts_with("null "), "{}", measured.broker);
        assert!(measured.window < path().duration);
    }
}

#[test]
fn every_publish_is_confirmed_once() {
    for protocol in [Protocol::Amqp, Protocol::Stomp] {
        for window in [1, 100] {
            let measured = measured(protocol, &path(), flood(501, window));
            assert_eq!((measured.counts.confirmed, measured.counts.refused), (501, 0));
            assert!(measured.confirm.summary().unwrap().count > 0);
        }
    }
}

#[test]
fn several_pairs_in_every_ack_mode_lose_nothing() {
    for protocol in [Protocol::Amqp, Protocol::Stomp] {
        for ack in [AckChoice::Auto, AckChoice::Manual, AckChoice::Individual, AckChoice::None] {
            let path = PathArgs { producers: 2, consumers: 3, queues: 2, ack, ..path() };
            let measured = measured(protocol, &path, flood(3_000, 0));
            assert_eq!(measured.counts.delivered, 3_000, "{protocol:?} {ack:?}");
        }
    }
}

#[test]
fn a_fanout_delivers_every_copy() {
    let shape = Some(ExchangeShape::Fanout);
    for protocol in [Protocol::Amqp, Protocol::Stomp] {
        let path = PathArgs { consumers: 3, queues: 3, exchange_shape: shape, ..path() };
        let measured = measured(protocol, &path, flood(1_000, 0));
        assert_eq!((measured.counts.published, measured.counts.delivered), (1_000, 3_000));
    }
}

#[test]
fn bodies_larger_than_a_frame_and_bindings_by_key_arrive() {
    let path = PathArgs {
        size: 300_000,
        queues: 2,
        exchange_shape: Some(ExchangeShape::Direct),
        bindings: Some(5),
        ..path()
    };
    let measured = measured(Protocol::Amqp, &path, flood(50, 0));
    assert_eq!((measured.counts.delivered, measured.undelivered), (50, 0));
}

#[test]
fn a_rate_is_kept_and_every_message_in_the_window_is_timed() {
    let path = PathArgs {
        duration: Duration::from_millis(400),
        warmup: Duration::from_millis(100),
        ..path()
    };
    for protocol in [Protocol::Amqp, Protocol::Stomp] {
        let measured = measured(protocol, &path, Pace::Rate(NonZeroU64::new(1_000).unwrap()));
        // By intended time, so the machine's speed does not matter: 400 ms of a message a millisecond.
        assert_eq!(measured.latency.summary().unwrap().count, 400);
        assert_eq!(measured.lateness.summary().unwrap().count, 400);
        assert_eq!(measured.undelivered, 0);
    }
}

#[test]
fn publishing_without_consumers_ends_by_itself() {
    let path = PathArgs { consumers: 0, duration: Duration::from_millis(100), ..path() };
    // On a busy machine a run may be over before the producer has had a turn.
    let published = (0..50).any(|_| {
        let measured = measured(Protocol::Amqp, &path, flood(0, 0));
        assert_eq!((measured.counts.delivered, measured.undelivered), (0, 0));
        measured.counts.published > 0
    });
    assert!(published);
}

#[test]
fn a_broker_that_goes_away_fails_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::local(Protocol::Amqp, listener.local_addr().unwrap());
    let broker = thread::spawn(move || drop(listener.accept()));
    let load = Load { address: &address, path: &path(), pace: flood(1, 0), broker_pid: None };
    assert!(measure(load).is_err());
    broker.join().unwrap();
}
