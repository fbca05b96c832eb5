//! Bounds of the whole broker at its doors: how many may come in, and how fast passwords may be guessed.

#![expect(clippy::unwrap_used, reason = "a test says with a panic that it has failed")]

use std::net::SocketAddr;

use proto_amqp::Version;
use proto_amqp::control::protocol::connection;
use proto_stomp::{Command, OwnedFrame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant};
use warren_server::settings::Settings;
use warren_tests::amqp::{Options, Peer};
use warren_tests::raw::Read;
use warren_tests::{DEADLINE, TestBroker, eventually, loopback, stomp};

const FULL: &str = "NOT_ALLOWED - connection refused: node connection limit (2) is reached";

/// Expects to be turned away in words, from a broker of which both seats are taken.
async fn is_turned_away_over_amqp(broker: &TestBroker) {
    for (version, header) in [
        (Version::V0_9_1, b"AMQP\x00\x00\x09\x01"),
        (Version::V0_9, b"AMQP\x01\x01\x00\x09"),
        (Version::V0_8, b"AMQP\x01\x01\x08\x00"),
    ] {
        let mut peer = Peer::connect(broker.amqp_address(), version).await;
        peer.send_octets(header).await;
        peer.expect_connection_error(530, FULL, (0, 0)).await;
    }
}

async fn is_turned_away_over_stomp(broker: &TestBroker) {
    let mut peer = broker.stomp().await;
    let connect = OwnedFrame::new(Command::Connect).header("accept-version", "1.2");
    peer.send(&connect).await;
    let error = peer.expect_error("not_allowed").await;
    assert_eq!(String::from_utf8_lossy(&error.body), FULL);
}

/// Whether there is a seat now.
async fn comes_in(broker: &TestBroker) -> bool {
    let mut peer = broker.raw_amqp().await;
    peer.send(b"AMQP\x00\x00\x09\x01").await;
    // connection.start, 10 and 10; connection.close has 10 and 50.
    match peer.read(DEADLINE).await {
        Read::Octets(octets) => octets.get(7..11) == Some(&[0, 10, 0, 10]),
        _ => false,
    }
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_in_each_protocol() {
    let broker = TestBroker::set(&["limits.connections=2"]).await;
    let mut amqp = broker.amqp().await;
    let mut stomp = broker.stomp().await;
    stomp.log_in("1.2").await;
    is_turned_away_over_amqp(&broker).await;
    is_turned_away_over_stomp(&broker).await;
    // Who speaks something else, or nothing, is closed too.
    let mut peer = broker.raw_amqp().await;
    peer.send(b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(peer.expect_end().await, b"");
    assert_eq!(broker.raw_amqp().await.expect_end().await, b"");
    // Those who were there first have noticed nothing.
    amqp.expect_nothing(1).await;
    stomp.expect_silence().await;
    amqp.close().await;
    eventually("the seat is free", async || comes_in(&broker).await).await;
}

#[tokio::test]
async fn who_has_not_logged_in_has_a_seat_already() {
    let broker = TestBroker::set(&["limits.connections=2"]).await;
    let mut strangers = Vec::new();
    for _ in 0..2 {
        let mut stranger = Peer::connect(broker.amqp_address(), Version::V0_9_1).await;
        stranger.start().await;
        strangers.push(stranger);
    }
    is_turned_away_over_stomp(&broker).await;
    drop(strangers.pop());
    eventually("the seat is free", async || comes_in(&broker).await).await;
}

/// Logins wait for at most so long, and all of them together for as long as a busy machine needs.
fn with_backoff(settings: &mut Settings, most: &str) {
    settings.auth.login_backoff = most.parse().unwrap();
    settings.amqp.handshake_timeout = "10m".parse().unwrap();
    settings.stomp.login_timeout = "10m".parse().unwrap();
}

/// Logs in over STOMP; the answer and how long it took.
async fn stomp_login(broker: &TestBroker, passcode: &str) -> (Command, Duration) {
    let mut peer = broker.stomp().await;
    let connect = OwnedFrame::new(Command::Connect)
        .header("accept-version", "1.2")
        .header("login", "guest")
        .header("passcode", passcode);
    let since = Instant::now();
    peer.send(&connect).await;
    (peer.next().await.command, since.elapsed())
}

/// Logs in over AMQP: whether that worked, and how long it took.
async fn amqp_login(broker: &TestBroker, password: &str) -> (bool, Duration) {
    let options = Options { password: password.to_owned(), ..Options::default() };
    let mut peer = Peer::connect(broker.amqp_address(), Version::V0_9_1).await;
    peer.start().await;
    let since = Instant::now();
    peer.send(0, options.start_ok()).await;
    let welcome = if password == "guest" {
        peer.tune(&options).await;
        true
    } else {
        peer.expect::<connection::Close>(0).await;
        false
    };
    (welcome, since.elapsed())
}

async fn delayed(metrics: SocketAddr) -> u64 {
    let mut stream = TcpStream::connect(metrics).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\nhost: x\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    let mut lines = page.lines();
    let line = lines.find_map(|line| line.strip_prefix("warren_logins_delayed_total "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn after_five_failed_logins_others_from_there_wait_whatever_they_speak() {
    const SECOND: Duration = Duration::from_secs(1);
    let broker = TestBroker::with(|settings| {
        with_backoff(settings, "1s");
        settings.metrics.listen = loopback();
    })
    .await;
    let metrics = broker.running().addresses.metrics[0];
    // The right one, so that it is remembered, and need not be computed again.
    assert_eq!(stomp_login(&broker, "guest").await.0, Command::Connected);
    for _ in 0..3 {
        assert_eq!(stomp_login(&broker, "wrong").await.0, Command::Error);
    }
    for _ in 0..2 {
        assert!(!amqp_login(&broker, "wrong").await.0);
    }
    assert_eq!(delayed(metrics).await, 0, "five are free");
    // Wrong or right, remembered or not.
    let (answer, took) = stomp_login(&broker, "guest").await;
    assert!(answer == Command::Connected && took >= SECOND, "{answer:?} after {took:?}");
    let (welcome, took) = amqp_login(&broker, "guest").await;
    assert!(welcome && took >= SECOND, "{welcome} after {took:?}");
    let (welcome, took) = amqp_login(&broker, "wrong").await;
    assert!(!welcome && took >= SECOND, "{welcome} after {took:?}");
    assert_eq!(delayed(metrics).await, 3);
}

#[tokio::test]
async fn guesses_on_many_connections_at_once_are_no_faster() {
    let broker = TestBroker::with(|settings| with_backoff(settings, "1s")).await;
    let since = Instant::now();
    // Five are free, six at most when two are checked at the same time; of the others four wait, and then the rest.
    let guesses = guess(&broker, 13).await;
    for mut peer in guesses {
        peer.expect_error("Bad CONNECT").await;
    }
    assert!(since.elapsed() >= Duration::from_secs(2), "{:?}", since.elapsed());
}

/// Guesses under way, each on a connection of its own.
async fn guess(broker: &TestBroker, count: usize) -> Vec<stomp::Peer> {
    let mut peers = Vec::new();
    for number in 0..count {
        let mut peer = broker.stomp().await;
        let connect = OwnedFrame::new(Command::Connect)
            .header("accept-version", "1.2")
            .header("login", "guest")
            .header("passcode", format!("guess {number}"));
        peer.send(&connect).await;
        peers.push(peer);
    }
    peers
}

#[tokio::test]
async fn without_a_backoff_nobody_waits() {
    let broker = TestBroker::with(|settings| {
        with_backoff(settings, "0s");
        settings.metrics.listen = loopback();
    })
    .await;
    for _ in 0..7 {
        assert_eq!(stomp_login(&broker, "wrong").await.0, Command::Error);
    }
    assert_eq!(stomp_login(&broker, "guest").await.0, Command::Connected);
    assert_eq!(delayed(broker.running().addresses.metrics[0]).await, 0);
}
