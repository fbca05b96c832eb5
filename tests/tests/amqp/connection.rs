//! From the protocol header to `connection.close` (AMQP 0-9-1 §2.2.4, §4.2.2).

use std::time::Duration;

use proto_amqp::Version;
use proto_amqp::control::protocol::{channel, connection};
use proto_amqp::control::types::AMQPValue;
use tokio::time::Instant;
use warren_tests::amqp::{Method as _, Options, Peer};
use warren_tests::{TestBroker, eventually};

const HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

/// How long a peer that breaks the handshake is kept waiting before it is dropped without a word.
const SILENCE: Duration = Duration::from_secs(3);

async fn greeted(broker: &TestBroker) -> Peer {
    let mut peer = Peer::connect(broker.amqp_address(), Version::V0_9_1).await;
    peer.start().await;
    peer
}

/// Sends what breaks the handshake: the connection ends without a frame, and not at once.
async fn expect_silent_end(peer: &mut Peer, start_ok: connection::StartOk) {
    // Before it is sent: the broker counts from when it has read it.
    let since = Instant::now();
    peer.send(0, start_ok).await;
    peer.expect_end().await;
    assert!(since.elapsed() >= SILENCE, "dropped after {:?}", since.elapsed());
}

#[tokio::test]
async fn unknown_protocol_header_is_answered_with_amqp_0_9_1() {
    let broker = TestBroker::start().await;
    for octets in [
        &b"AMQP\x00\x00\x09\x02"[..],
        b"AMQP\x00\x00\x0a\x00",
        b"AMQP\x00\x01\x00\x00",
        b"AMQP\x03\x01\x00\x00",
        b"AMQP\x02\x01\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"CONNECT\n\n\0",
        b"XXXXXXXX",
    ] {
        let mut peer = broker.raw_amqp().await;
        peer.send(octets).await;
        let answer = peer.expect_end().await;
        assert_eq!(answer, HEADER, "to {:?}", octets.escape_ascii().to_string());
    }
}

#[tokio::test]
async fn header_in_single_octets_is_understood() {
    let broker = TestBroker::start().await;
    let mut peer = Peer::connect(broker.amqp_address(), Version::V0_9_1).await;
    for octet in HEADER {
        peer.send_octets(&[*octet]).await;
        tokio::task::yield_now().await;
    }
    let _: connection::Start = peer.expect(0).await;
}

#[tokio::test]
async fn each_version_is_started_with_its_own_number() {
    let broker = TestBroker::start().await;
    for (header, version, number) in [
        (HEADER, Version::V0_9_1, (0, 9)),
        (b"AMQP\x01\x01\x00\x09", Version::V0_9, (0, 9)),
        (b"AMQP\x01\x01\x08\x00", Version::V0_8, (8, 0)),
        (b"AMQP\x01\x01\x09\x01", Version::V0_8, (8, 0)),
    ] {
        let mut peer = Peer::connect(broker.amqp_address(), version).await;
        peer.send_octets(header).await;
        let start: connection::Start = peer.expect(0).await;
        assert_eq!((start.version_major, start.version_minor), number);
    }
}

#[tokio::test]
async fn start_lists_server_properties_and_capabilities() {
    let broker = TestBroker::start().await;
    let mut peer = Peer::connect(broker.amqp_address(), Version::V0_9_1).await;
    let start = peer.start().await;
    let properties = start.server_properties.inner();
    for name in ["cluster_name", "copyright", "information", "platform", "product", "version"] {
        let value = properties.get(name).unwrap_or_else(|| panic!("no {name}"));
        assert!(matches!(value, AMQPValue::LongString(_)), "{name} is {value:?}");
    }
    let Some(AMQPValue::FieldTable(capabilities)) = properties.get("capabilities") else {
        panic!("no capabilities in {properties:?}");
    };
    for name in [
        "authentication_failure_close",
        "basic.nack",
        "connection.blocked",
        "consumer_cancel_notify",
        "consumer_priorities",
        "direct_reply_to",
        "exchange_exchange_bindings",
        "per_consumer_qos",
        "publisher_confirms",
    ] {
        assert_eq!(capabilities.inner().get(name), Some(&AMQPValue::Boolean(true)), "{name}");
    }
    assert_eq!(start.locales.to_string(), "en_US");
}

#[tokio::test]
async fn start_lists_plain_and_amqplain() {
    let broker = TestBroker::start().await;
    let mut peer = Peer::connect(broker.amqp_address(), Version::V0_9_1).await;
    assert_eq!(peer.start().await.mechanisms.to_string(), "PLAIN AMQPLAIN");
}

#[tokio::test]
async fn only_the_mechanisms_of_the_settings_are_offered_and_taken() {
    let broker = TestBroker::set(&["auth.mechanisms=[\"AMQPLAIN\"]"]).await;
    let mut peer = Peer::connect(broker.amqp_address(), Version::V0_9_1).await;
    assert_eq!(peer.start().await.mechanisms.to_string(), "AMQPLAIN");
    expect_silent_end(&mut peer, Options::default().start_ok()).await;
}

#[tokio::test]
async fn amqplain_logs_in() {
    let broker = TestBroker::start().await;
    let mut peer = greeted(&broker).await;
    let options = Options::default();
    let response = b"\x05LOGINS\x00\x00\x00\x05guest\x08PASSWORDS\x00\x00\x00\x05guest";
    let start_ok = connection::StartOk {
        mechanism: "AMQPLAIN".into(),
        response: response[..].into(),
        ..options.start_ok()
    };
    peer.send(0, start_ok).await;
    peer.tune(&options).await;
    peer.call(0, options.open()).await;
    peer.close().await;
}

#[tokio::test]
async fn unknown_mechanism_ends_the_connection() {
    let broker = TestBroker::start().await;
    let mut peer = greeted(&broker).await;
    let start_ok =
        connection::StartOk { mechanism: "EXTERNAL".into(), ..Options::default().start_ok() };
    expect_silent_end(&mut peer, start_ok).await;
}

#[tokio::test]
async fn malformed_responses_end_the_connection() {
    let broker = TestBroker::start().await;
    let mut peers = Vec::new();
    for (mechanism, response) in [
        ("PLAIN", &b""[..]),
        ("PLAIN", b"guest\0guest\0guest"),
        ("PLAIN", b"\0guest"),
        ("AMQPLAIN", b"\x05LOGINS\x00\x00\x00\x05guest"),
        ("AMQPLAIN", b"\x05LOGINS\x00\x00\x00\xffguest"),
    ] {
        let mut peer = greeted(&broker).await;
        let start_ok = connection::StartOk {
            mechanism: mechanism.into(),
            response: response.into(),
            ..Options::default().start_ok()
        };
        peer.send(0, start_ok).await;
        peers.push(peer);
    }
    for mut peer in peers {
        peer.expect_end().await;
    }
}

#[tokio::test]
async fn wrong_password_closes_with_403_if_the_client_can_take_it() {
    let broker = TestBroker::start().await;
    let wrong = Options { password: "wrong".to_owned(), ..Options::default() };
    let mut able = greeted(&broker).await;
    let since = Instant::now();
    able.send(0, wrong.start_ok()).await;
    let text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For \
                details see the broker logfile.";
    able.expect_close(403, text, (0, 0)).await;
    able.expect_end().await;
    assert!(since.elapsed() >= SILENCE, "dropped after {:?}", since.elapsed());

    let mut unable = greeted(&broker).await;
    let old = Options { capabilities: Vec::new(), ..wrong };
    expect_silent_end(&mut unable, old.start_ok()).await;
}

#[tokio::test]
async fn unknown_users_and_blank_passwords_are_refused() {
    let broker = TestBroker::start().await;
    for (user, password) in [("nobody", "guest"), ("guest", "")] {
        let (user, password) = (user.to_owned(), password.to_owned());
        let options = Options { user, password, ..Options::default() };
        let mut peer = greeted(&broker).await;
        peer.send(0, options.start_ok()).await;
        let close: connection::Close = peer.expect(0).await;
        assert_eq!(close.reply_code, 403);
    }
}

#[tokio::test]
async fn tune_offers_the_settings() {
    let settings = ["amqp.frame_max=\"64KiB\"", "amqp.channel_max=17", "amqp.heartbeat=\"30s\""];
    let broker = TestBroker::set(&settings).await;
    let mut peer = greeted(&broker).await;
    let options = Options::default();
    peer.send(0, options.start_ok()).await;
    let tune = peer.tune(&options).await;
    assert_eq!((tune.frame_max, tune.channel_max, tune.heartbeat), (65536, 17, 30));
    peer.call(0, options.open()).await;
}

/// Answers `tune` so, and gives whether the connection can be opened.
async fn tunes(broker: &TestBroker, frame_max: u32, channel_max: u16) -> bool {
    let mut peer = greeted(broker).await;
    let (frame_max, channel_max) = (Some(frame_max), Some(channel_max));
    let options = Options { frame_max, channel_max, ..Options::default() };
    peer.send(0, options.start_ok()).await;
    peer.tune(&options).await;
    peer.send(0, options.open()).await;
    let mut has_ended = false;
    eventually("an answer or an end", async || {
        has_ended = peer.read_for(Duration::from_millis(20)).await;
        has_ended || peer.has_arrived(0)
    })
    .await;
    if has_ended {
        peer.expect_end().await;
        return false;
    }
    let _: connection::OpenOk = peer.expect(0).await;
    true
}

#[tokio::test]
async fn frame_max_may_be_lowered_but_not_raised() {
    let broker = TestBroker::start().await;
    let (lowered, raised) = tokio::join!(tunes(&broker, 4096, 2047), tunes(&broker, 131_073, 2047));
    assert!(lowered);
    assert!(!raised);
}

#[tokio::test]
async fn frame_max_below_4096_is_refused() {
    let broker = TestBroker::start().await;
    let (small, none) = tokio::join!(tunes(&broker, 4095, 2047), tunes(&broker, 0, 2047));
    assert!(!small);
    assert!(!none, "0 would be no limit, and there is one");
}

#[tokio::test]
async fn channel_max_may_be_lowered_but_not_raised() {
    let broker = TestBroker::start().await;
    let (lowered, raised, none) =
        tokio::join!(tunes(&broker, 4096, 1), tunes(&broker, 4096, 2048), tunes(&broker, 4096, 0));
    assert!(lowered);
    assert!(!raised);
    assert!(!none);
}

#[tokio::test]
async fn one_channel_too_many_is_530() {
    let broker = TestBroker::start().await;
    let options = Options { channel_max: Some(2), ..Options::default() };
    let mut peer = Peer::connect(broker.amqp_address(), Version::V0_9_1).await;
    peer.log_in(&options).await;
    // It bounds how many there are, not their numbers.
    peer.open_channel(5).await;
    peer.open_channel(900).await;
    peer.send(7, channel::Open {}).await;
    let text = "NOT_ALLOWED - number of channels opened (2) has reached the negotiated \
                channel_max (2)";
    peer.expect_connection_error(530, text, (0, 0)).await;
}

#[tokio::test]
async fn unknown_vhost_is_530() {
    let broker = TestBroker::start().await;
    let mut peer = greeted(&broker).await;
    let options = Options { vhost: "nowhere".to_owned(), ..Options::default() };
    peer.send(0, options.start_ok()).await;
    peer.tune(&options).await;
    peer.send(0, options.open()).await;
    let text = "NOT_ALLOWED - vhost nowhere not found";
    peer.expect_connection_error(530, text, (10, 40)).await;
}

#[tokio::test]
async fn vhost_without_permissions_is_530() {
    let broker = TestBroker::start().await;
    broker.running().broker().add_vhost("other").unwrap();
    let mut peer = greeted(&broker).await;
    let options = Options { vhost: "other".to_owned(), ..Options::default() };
    peer.send(0, options.start_ok()).await;
    peer.tune(&options).await;
    peer.send(0, options.open()).await;
    let text = "NOT_ALLOWED - access to vhost 'other' refused for user 'guest'";
    peer.expect_connection_error(530, text, (10, 40)).await;
}

#[tokio::test]
async fn second_open_is_504() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.send(0, Options::default().open()).await;
    let text = "CHANNEL_ERROR - unexpected method in connection state running";
    peer.expect_connection_error(504, text, (10, 40)).await;
}

#[tokio::test]
async fn update_secret_is_accepted() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let update = connection::UpdateSecret { new_secret: "new".into(), reason: "renewed".into() };
    peer.call(0, update).await;
    peer.expect_nothing(1).await;
}

#[tokio::test]
async fn close_is_answered_by_close_ok() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.consume(1, "q", "tag").await;
    // What follows a close is not looked at any more.
    let close = connection::Close { reply_code: 200, ..connection::Close::default() };
    let mut octets = peer.encoded(0, &close.into_class());
    octets.extend(peer.encoded(2, &channel::Open {}.into_class()));
    peer.send_octets(&octets).await;
    let _: connection::CloseOk = peer.expect(0).await;
    peer.expect_end().await;
}

#[tokio::test]
async fn crossing_closes_are_both_answered() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    // The broker closes because of the first, and has not heard close-ok when the peer closes too.
    peer.send(0, Options::default().open()).await;
    let close = connection::Close { reply_code: 200, ..connection::Close::default() };
    peer.send(0, close).await;
    let _: connection::Close = peer.expect(0).await;
    let _: connection::CloseOk = peer.expect(0).await;
    peer.send(0, connection::CloseOk {}).await;
    peer.expect_end().await;
}

#[tokio::test]
async fn close_names_the_method_that_failed() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.publish(1, "missing", "k", "x").await;
    let text = "NOT_FOUND - no exchange 'missing' in vhost '/'";
    peer.expect_channel_error(1, 404, text, (60, 40)).await;
    peer.send(1, channel::Open {}).await;
    let text = "CHANNEL_ERROR - second 'channel.open' seen";
    peer.expect_connection_error(504, text, (20, 10)).await;
}

#[tokio::test]
async fn channel_open_before_connection_open_is_an_error() {
    let broker = TestBroker::start().await;
    let mut starting = greeted(&broker).await;
    starting.send(1, channel::Open {}).await;

    let mut elsewhere = greeted(&broker).await;
    elsewhere.send(3, Options::default().start_ok()).await;

    let mut tuning = greeted(&broker).await;
    tuning.send(0, Options::default().start_ok()).await;
    let _: connection::Tune = tuning.expect(0).await;
    tuning.send(0, Options::default().open()).await;
    for peer in [&mut starting, &mut elsewhere, &mut tuning] {
        peer.expect_end().await;
    }
}

#[tokio::test]
async fn who_says_nothing_is_dropped_when_the_time_to_log_in_is_over() {
    let broker = TestBroker::set(&["amqp.handshake_timeout=\"1s\""]).await;
    let since = Instant::now();
    let mut silent = broker.raw_amqp().await;
    let mut greeted = broker.raw_amqp().await;
    greeted.send(HEADER).await;
    assert_eq!(silent.expect_end().await, b"");
    assert_ne!(greeted.expect_end().await, b"");
    let waited = since.elapsed();
    assert!(waited >= Duration::from_secs(1), "dropped after {waited:?}");
}

#[tokio::test]
async fn alarm_blocks_publishers_and_tells_them() {
    const MIB: usize = 1024 * 1024;
    // The broker runs in this process: memory that the test takes is memory in use.
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    let limit = (pages * 4096 + 512 * MIB).to_string();
    let broker = TestBroker::set(&[&format!("limits.memory={limit}")]).await;
    let mut publisher = broker.amqp().await;
    let mut consumer = broker.amqp().await;
    let deaf = Options { capabilities: Vec::new(), ..Options::default() };
    let mut deaf = broker.amqp_as(&deaf).await;
    publisher.declare(1, "q").await;

    let ballast = vec![1_u8; 1024 * MIB];
    eventually("publishers are held", async || {
        publisher.publish(1, "", "q", "held").await;
        publisher.read_for(Duration::from_millis(20)).await;
        publisher.has_arrived(0)
    })
    .await;
    let blocked: connection::Blocked = publisher.expect(0).await;
    assert_eq!(blocked.reason.as_str(), "low on memory");
    // Who does not publish is not bothered; who cannot understand it is not told.
    consumer.expect_nothing(1).await;
    deaf.publish(1, "", "q", "x").await;
    deaf.expect_silence(0).await;

    drop(ballast);
    let _: connection::Unblocked = publisher.expect(0).await;
    publisher.expect_nothing(1).await;
    deaf.expect_nothing(1).await;
    deaf.expect_silence(0).await;
}

#[tokio::test]
async fn close_ok_comes_behind_everything_that_was_on_its_way() {
    let broker = TestBroker::start().await;
    let (mut publisher, mut peer) = (broker.amqp().await, broker.amqp().await);
    peer.declare(1, "q").await;
    peer.consume(1, "q", "tag").await;
    // Far more than the sockets and the outbox hold together.
    let body = "x".repeat(16 * 1024);
    for _ in 0..1500 {
        publisher.publish(1, "", "q", &body).await;
    }
    publisher.expect_nothing(1).await;
    peer.send(0, connection::Close::default()).await;
    // It reads nothing until the broker has no more to do for it than to wait.
    tokio::time::sleep(Duration::from_millis(300)).await;
    peer.expect::<connection::CloseOk>(0).await;
    peer.expect_end().await;
}
