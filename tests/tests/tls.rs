//! TLS in front of both protocols: versions, mixed-up ports, new certificates, certificates of clients.

#![expect(clippy::unwrap_used, reason = "a test says with a panic that it has failed")]

use std::net::SocketAddr;
use std::path::Path;

use proto_amqp::Version;
use proto_stomp::{Command, OwnedFrame};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use tempfile::TempDir;
use warren_server::settings::TlsVersion;
use warren_tests::amqp::{Options, Peer};
use warren_tests::certificates::{Authority, Client, Files};
use warren_tests::{RawPeer, TestBroker, loopback, stomp};

/// A broker with TLS, the authority that signed its certificate, and where the files are.
struct Secured {
    broker: TestBroker,
    authority: Authority,
    files: Files,
    directory: TempDir,
}

async fn secured(client_certificates: bool, min_version: TlsVersion) -> Secured {
    let directory = TempDir::with_prefix("warren-tls-").unwrap();
    let authority = Authority::new();
    let files = authority.write_server(directory.path());
    let broker = TestBroker::with(|settings| {
        settings.tls.certificate = Some(files.certificate.clone());
        settings.tls.key = Some(files.key.clone());
        settings.tls.client_ca = client_certificates.then(|| files.ca.clone());
        settings.tls.min_version = min_version;
        settings.amqp.tls.listen = loopback();
        settings.stomp.tls.listen = loopback();
    })
    .await;
    Secured { broker, authority, files, directory }
}

impl Secured {
    const fn client(&self, version: &'static SupportedProtocolVersion) -> Client<'_> {
        Client { authority: &self.authority, version, identity: None }
    }

    async fn amqp(&self, version: &'static SupportedProtocolVersion) -> Peer {
        let stream = self.client(version).connect(self.broker.amqp_tls_address()).await.unwrap();
        let mut peer = Peer::over(stream, Version::V0_9_1);
        peer.log_in(&Options::default()).await;
        peer.open_channel(1).await;
        peer
    }
}

#[tokio::test]
async fn amqps_speaks_tls_1_2_and_1_3() {
    let secured = secured(false, TlsVersion::V1_2).await;
    for version in [&TLS12, &TLS13] {
        let mut peer = secured.amqp(version).await;
        peer.declare(1, "q").await;
        // Larger than a TLS record and than a socket's buffer.
        let body = "x".repeat(3_000_000);
        peer.publish(1, "", "q", &body).await;
        peer.consume(1, "q", "tag").await;
        assert!(peer.expect_text(1).await == body);
        peer.ack(1, 1).await;
        peer.close().await;
    }
}

#[tokio::test]
async fn stomps_speaks_tls_1_2_and_1_3() {
    let secured = secured(false, TlsVersion::V1_2).await;
    for version in [&TLS12, &TLS13] {
        let address = secured.broker.stomp_tls_address();
        let stream = secured.client(version).connect(address).await.unwrap();
        let mut peer = stomp::Peer::over(stream);
        peer.log_in("1.2").await;
        let subscribe = OwnedFrame::new(Command::Subscribe)
            .header("id", "0")
            .header("destination", "/queue/secret");
        peer.send(&subscribe).await;
        let send =
            OwnedFrame::new(Command::Send).header("destination", "/queue/secret").body("hello");
        peer.send(&send).await;
        assert_eq!(peer.expect(Command::Message).await.body, b"hello");
    }
}

#[tokio::test]
async fn both_protocols_meet_behind_tls() {
    let secured = secured(false, TlsVersion::V1_2).await;
    let mut amqp = secured.amqp(&TLS13).await;
    let address = secured.broker.stomp_tls_address();
    let stream = secured.client(&TLS12).connect(address).await.unwrap();
    let mut peer = stomp::Peer::over(stream);
    peer.log_in("1.2").await;
    let send = OwnedFrame::new(Command::Send)
        .header("destination", "/queue/meeting")
        .header("receipt", "1")
        .body("from STOMP");
    peer.send(&send).await;
    peer.expect_receipt("1").await;
    assert_eq!(amqp.drain(1, "meeting").await, ["from STOMP"]);
}

#[tokio::test]
async fn older_versions_can_be_ruled_out() {
    let secured = secured(false, TlsVersion::V1_3).await;
    let address = secured.broker.amqp_tls_address();
    assert!(secured.client(&TLS12).connect(address).await.is_err());
    secured.amqp(&TLS13).await.close().await;
}

/// Waits for `end`, which must come sooner than that of a connection that was there first and says nothing: the broker
/// has noticed what the other side speaks, and not only lost its patience.
async fn comes_before_the_end_of_silence(address: SocketAddr, end: impl Future<Output = ()>) {
    let mut silent = RawPeer::connect(address).await;
    tokio::select! {
        // When this process has slept for so long that there are both, the first is looked at first.
        biased;
        () = end => {}
        said = silent.expect_end() => panic!("no end before that of silence, {said:?}"),
    }
}

#[tokio::test]
async fn plain_clients_on_a_tls_port_are_closed_quickly() {
    let secured = secured(false, TlsVersion::V1_2).await;
    for (address, octets) in [
        (secured.broker.amqp_tls_address(), &b"AMQP\x00\x00\x09\x01"[..]),
        (secured.broker.stomp_tls_address(), b"CONNECT\naccept-version:1.2\nhost:/\n\n\0"),
        (secured.broker.amqp_tls_address(), b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    ] {
        comes_before_the_end_of_silence(address, async {
            let mut peer = RawPeer::connect(address).await;
            peer.send(octets).await;
            peer.expect_end().await;
        })
        .await;
    }
}

#[tokio::test]
async fn tls_clients_on_a_plain_port_are_closed_quickly() {
    let secured = secured(false, TlsVersion::V1_2).await;
    for address in [secured.broker.amqp_address(), secured.broker.stomp_address()] {
        comes_before_the_end_of_silence(address, async {
            assert!(secured.client(&TLS13).connect(address).await.is_err());
        })
        .await;
    }
}

#[tokio::test]
async fn clients_that_trust_somebody_else_do_not_connect() {
    let secured = secured(false, TlsVersion::V1_2).await;
    let stranger = Authority::new();
    let client = Client { authority: &stranger, version: &TLS13, identity: None };
    assert!(client.connect(secured.broker.amqp_tls_address()).await.is_err());
    // And the broker is none the worse for it.
    secured.amqp(&TLS13).await.close().await;
}

#[tokio::test]
async fn new_certificates_hold_for_new_connections() {
    let secured = secured(false, TlsVersion::V1_2).await;
    let mut before = secured.amqp(&TLS13).await;
    let successor = Authority::new();
    let files = successor.write_server(secured.directory.path());
    assert_eq!(files.certificate, secured.files.certificate);
    secured.broker.running().reload_certificates().unwrap();
    // Who is connected stays so.
    before.expect_nothing(1).await;
    let address = secured.broker.amqp_tls_address();
    assert!(secured.client(&TLS13).connect(address).await.is_err());
    for address in [address, secured.broker.stomp_tls_address()] {
        let client = Client { authority: &successor, version: &TLS13, identity: None };
        client.connect(address).await.unwrap();
    }
}

fn spoil(path: &Path) {
    std::fs::write(path, "no certificate at all").unwrap();
}

#[tokio::test]
async fn bad_certificates_change_nothing() {
    let secured = secured(false, TlsVersion::V1_2).await;
    spoil(&secured.files.certificate);
    let error = secured.broker.running().reload_certificates().unwrap_err();
    assert_eq!(error.path, secured.files.certificate);
    secured.amqp(&TLS13).await.close().await;
}

#[tokio::test]
async fn clients_have_to_show_a_certificate_of_the_right_authority() {
    let secured = secured(true, TlsVersion::V1_2).await;
    let own = secured.authority.client();
    let foreign = Authority::new().client();
    for version in [&TLS12, &TLS13] {
        for address in [secured.broker.amqp_tls_address(), secured.broker.stomp_tls_address()] {
            for identity in [None, Some(&foreign)] {
                let client = Client { authority: &secured.authority, version, identity };
                // With TLS 1.3 the client is through with its handshake before it is judged.
                if let Ok(stream) = client.connect(address).await {
                    let mut peer = RawPeer::over(stream);
                    peer.try_send(b"AMQP\x00\x00\x09\x01").await.ok();
                    assert_eq!(peer.expect_end().await, b"");
                }
            }
        }
        let identity = Some(&own);
        let client = Client { authority: &secured.authority, version, identity };
        let stream = client.connect(secured.broker.amqp_tls_address()).await.unwrap();
        let mut peer = Peer::over(stream, Version::V0_9_1);
        peer.log_in(&Options::default()).await;
        peer.close().await;
    }
}
