//! How many may come in, how many may stay at the door without logging in, and who has to go when one more comes.

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::settings::{Addresses, Settings};
use crate::{Running, start};

/// What a test waits for has to happen within this time.
const DEADLINE: Duration = Duration::from_secs(10);

/// A running broker with AMQP, with and without TLS, and STOMP.
struct Broker {
    running: Running,
    /// Removed with it.
    _directory: TempDir,
}

impl Broker {
    async fn with_pending_logins(max: u32) -> Self {
        Self::with(|settings| settings.limits.pending_logins = max).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let port_zero = || Addresses::from(vec![SocketAddr::from(([127, 0, 0, 1], 0))]);
        let mut settings = Settings { data_dir: directory.path().into(), ..Settings::default() };
        change(&mut settings);
        settings.metrics.listen = Addresses::default();
        settings.amqp.listen = port_zero();
        settings.amqp.tls.listen = port_zero();
        settings.stomp.listen = port_zero();
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
        let (certificate, key) = (directory.path().join("c.pem"), directory.path().join("k.pem"));
        std::fs::write(&certificate, own.cert.pem()).expect("a file");
        std::fs::write(&key, own.signing_key.serialize_pem()).expect("a file");
        settings.tls.certificate = Some(certificate);
        settings.tls.key = Some(key);
        let running = start(settings).await.expect("it starts");
        Self { running, _directory: directory }
    }

    /// A stranger more, who is at the door when this returns.
    async fn stranger(&self, addresses: &[SocketAddr]) -> TcpStream {
        let before = self.arrivals();
        let stream = TcpStream::connect(addresses).await.expect("a connection");
        self.until(|broker| broker.arrivals() > before).await;
        stream
    }
    fn arrivals(&self) -> u64 {
        self.running.node.pending_logins.arrivals()
    }
    fn strangers(&self) -> usize {
        self.running.node.pending_logins.len()
    }
    async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let met = async {
            while !condition(self) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(DEADLINE, met).await.expect("it happens in time");
    }
}

/// Waits until the broker has closed `stream` without a word.
async fn closed(stream: &mut TcpStream) {
    let mut octets = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut octets)).await.expect("an end");
    assert!(matches!(read, Ok(0) | Err(_)), "{octets:?}");
}

/// Sends `text` and waits for an answer that begins with `expected`.
async fn answers(stream: &mut TcpStream, text: &[u8], expected: &[u8]) {
    stream.write_all(text).await.expect("sent");
    let mut octets = vec![0; expected.len()];
    let read = timeout(DEADLINE, stream.read_exact(&mut octets)).await.expect("an answer");
    read.expect("all of it");
    assert_eq!(octets, expected);
}

/// Sends `octets` and waits for a method frame: class and method.
async fn answers_method(stream: &mut TcpStream, octets: &[u8]) -> [u8; 4] {
    stream.write_all(octets).await.expect("sent");
    let frame = async {
        let mut header = [0; 7];
        stream.read_exact(&mut header).await?;
        let [_, _, _, size @ ..] = header;
        // And the octet at its end.
        let mut rest = vec![0; u32::from_be_bytes(size) as usize + 1];
        stream.read_exact(&mut rest).await?;
        io::Result::Ok(rest)
    };
    let frame = timeout(DEADLINE, frame).await.expect("an answer").expect("a frame");
    *frame.first_chunk().expect("a method")
}

const HEADER: &[u8] = b"AMQP\0\0\x09\x01";
const START: [u8; 4] = [0, 10, 0, 10];
const TUNE: [u8; 4] = [0, 10, 0, 30];

/// guest logs in, PLAIN.
fn start_ok() -> Vec<u8> {
    let arguments = b"\0\x0a\0\x0b\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US";
    let size = u32::try_from(arguments.len()).expect("a short one");
    [&[1, 0, 0][..], &size.to_be_bytes(), arguments, &[0xCE]].concat()
}

#[tokio::test]
async fn the_oldest_stranger_of_all_protocols_makes_room() {
    let broker = Broker::with_pending_logins(2).await;
    let addresses = &broker.running.addresses;
    let mut first = broker.stranger(&addresses.stomp).await;
    let mut second = broker.stranger(&addresses.amqp).await;
    let mut third = broker.stranger(&addresses.stomp).await;
    closed(&mut first).await;
    let mut fourth = broker.stranger(&addresses.amqp).await;
    closed(&mut second).await;
    answers(&mut third, b"CONNECT\n\n\0", b"CONNECTED").await;
    assert_eq!(answers_method(&mut fourth, HEADER).await, START);
    assert_eq!(broker.strangers(), 1, "the fourth");
    broker.running.shutdown().await;
}

#[tokio::test]
async fn who_has_logged_in_stays_whoever_comes() {
    let broker = Broker::with_pending_logins(1).await;
    let addresses = &broker.running.addresses;
    let mut stomp = broker.stranger(&addresses.stomp).await;
    answers(&mut stomp, b"CONNECT\naccept-version:1.2\n\n\0", b"CONNECTED").await;
    let mut amqp = broker.stranger(&addresses.amqp).await;
    assert_eq!(answers_method(&mut amqp, HEADER).await, START);
    assert_eq!(answers_method(&mut amqp, &start_ok()).await, TUNE);
    assert_eq!(broker.strangers(), 0);

    let mut silent = broker.stranger(&addresses.amqp).await;
    let mut next = broker.stranger(&addresses.stomp).await;
    closed(&mut silent).await;
    answers(&mut next, b"CONNECT\n\n\0", b"CONNECTED").await;

    // tune-ok as offered: 2047 channels, frames of 128 KiB; then open of "/".
    let tune_ok = b"\x01\0\0\0\0\0\x0c\0\x0a\0\x1f\x07\xff\0\x02\0\0\0\0\xCE";
    let open = b"\x01\0\0\0\0\0\x08\0\x0a\0\x28\x01/\0\0\xCE";
    let opened = answers_method(&mut amqp, &[&tune_ok[..], open].concat()).await;
    assert_eq!(opened, [0, 10, 0, 41]);
    let mut octets = Vec::new();
    stomp.write_all(b"DISCONNECT\nreceipt:bye\n\n\0").await.expect("sent");
    timeout(DEADLINE, stomp.read_to_end(&mut octets)).await.expect("an end").expect("all of it");
    let text = String::from_utf8_lossy(&octets);
    assert!(text.contains("receipt-id:bye"), "{text}");
    broker.running.shutdown().await;
}

#[tokio::test]
async fn who_goes_by_himself_leaves_his_place() {
    let broker = Broker::with_pending_logins(2).await;
    let addresses = &broker.running.addresses;
    for address in [&addresses.amqp, &addresses.stomp, &addresses.amqp_tls] {
        let stranger = broker.stranger(address).await;
        assert_eq!(broker.strangers(), 1);
        drop(stranger);
        broker.until(|broker| broker.strangers() == 0).await;
    }
    broker.running.shutdown().await;
}

#[tokio::test]
async fn shaking_hands_for_tls_is_not_yet_a_login() {
    let broker = Broker::with_pending_logins(1).await;
    let addresses = &broker.running.addresses;
    let mut silent = broker.stranger(&addresses.amqp_tls).await;
    let mut next = broker.stranger(&addresses.amqp).await;
    closed(&mut silent).await;
    assert_eq!(answers_method(&mut next, HEADER).await, START);
    assert_eq!(broker.strangers(), 1);
    broker.running.shutdown().await;
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_end_has_a_seat() {
    const CLOSE: [u8; 4] = [0, 10, 0, 50];
    let one = "1".parse().expect("a limit");
    let broker = Broker::with(|settings| settings.limits.connections = one).await;
    let addresses = &broker.running.addresses;
    let silent = broker.stranger(&addresses.amqp_tls).await;
    let mut turned_away = TcpStream::connect(&*addresses.amqp).await.expect("a connection");
    assert_eq!(answers_method(&mut turned_away, HEADER).await, CLOSE);
    // There are no words before a handshake.
    closed(&mut TcpStream::connect(&*addresses.amqp_tls).await.expect("a connection")).await;
    drop(silent);
    broker.until(|broker| broker.running.node.seats.free.available_permits() == 1).await;
    let mut next = broker.stranger(&addresses.amqp).await;
    assert_eq!(answers_method(&mut next, HEADER).await, START);
    broker.running.shutdown().await;
}

/// Says `hello` and is turned away at once; gives what it hears.
async fn turned_away_at_once(service: Service, hello: &[u8]) -> Vec<u8> {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a socket");
    let address = listener.local_addr().expect("an address");
    let mut client = TcpStream::connect(address).await.expect("a connection");
    client.write_all(hello).await.expect("sent");
    let (stream, _) = listener.accept().await.expect("a client");
    if !hello.is_empty() {
        stream.readable().await.expect("octets");
    }
    turned_away::tell_at_once(service, &stream, 5);
    drop(stream);
    let mut heard = Vec::new();
    let read = timeout(DEADLINE, client.read_to_end(&mut heard)).await.expect("an end");
    read.expect("an orderly one");
    heard
}

#[tokio::test]
async fn where_there_is_no_time_the_words_are_said_at_once() {
    const WHY: &[u8] = b"connection refused: node connection limit (5) is reached";
    let says_why = |heard: &[u8]| heard.windows(WHY.len()).any(|words| words == WHY);
    for hello in [&b"CONNECT\n\n\0"[..], b""] {
        let heard = turned_away_at_once(Service::Stomp, hello).await;
        assert!(heard.starts_with(b"ERROR\n") && says_why(&heard), "{heard:?}");
    }
    let heard = turned_away_at_once(Service::Amqp, HEADER).await;
    // connection.close in a method frame.
    assert_eq!(
        (heard.first(), heard.get(7..11)),
        (Some(&1), Some(&[0, 10, 0, 50][..])),
        "{heard:?}"
    );
    assert!(says_why(&heard), "{heard:?}");
    for hello in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"AMQP"] {
        assert_eq!(turned_away_at_once(Service::Amqp, hello).await, b"", "{hello:?}");
    }
}
