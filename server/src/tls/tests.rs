//! Configurations from real files, handshakes in memory, and the words for each mistake.

use std::io;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConnection};
use tempfile::TempDir;

use super::*;

/// A directory with `server.pem`, `server.key`, `ca.pem`, `client.pem`, `client.key`.
struct Files {
    directory: TempDir,
}

fn signed(name: &str, ca: &Issuer<'_, KeyPair>) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    (params.signed_by(&key, ca).expect("a certificate").pem(), key.serialize_pem())
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let ca_key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = params.self_signed(&ca_key).expect("a certificate").pem();
        let ca = Issuer::new(params, ca_key);
        let files = Self { directory };
        files.write("ca.pem", &ca_pem);
        for name in ["server", "client"] {
            let (certificate, key) = signed("localhost", &ca);
            files.write(&format!("{name}.pem"), &certificate);
            files.write(&format!("{name}.key"), &key);
        }
        files
    }
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }
    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a file")
    }
    fn tls(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_ca: None,
            require_client_certificate: true,
            min_version: TlsVersion::V1_2,
        }
    }
    fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        named: bool,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(Role::ClientCa, &self.path("ca.pem")).expect("the CA") {
            roots.add(certificate).expect("a CA");
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        Arc::new(if named {
            let chain = certificates(Role::Certificate, &self.path("client.pem")).expect("a chain");
            let key = PrivateKeyDer::from_pem_file(self.path("client.key")).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        } else {
            builder.with_no_client_auth()
        })
    }
    #[track_caller]
    fn refused(&self, files: &TlsFiles, role: Role, says: &str) {
        let error = server_config(files).expect_err("a file of no use");
        assert_eq!(error.role, role, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(
            error.to_string().contains(self.directory.path().to_str().expect("text")),
            "{error}"
        );
    }
}

/// Passes octets to and fro until both sides are content or one refuses.
fn handshake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
) -> Result<HandshakeKind, rustls::Error> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("a Vec takes all");
        }
        let mut wire = io::Cursor::new(wire);
        while server.read_tls(&mut wire).expect("a Cursor reads") > 0 {
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("a Vec takes all");
        }
        let mut wire = io::Cursor::new(wire);
        while client.read_tls(&mut wire).expect("a Cursor reads") > 0 {
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(server.handshake_kind().expect("a finished handshake"))
}

#[test]
fn both_versions_shake_hands_and_sessions_resume() {
    let files = Files::new();
    let server = server_config(&files.tls()).expect("good files");
    for version in [&TLS12, &TLS13] {
        let client = files.client(&[version], false);
        assert_eq!(handshake(&server, &client), Ok(HandshakeKind::Full), "{version:?}");
        assert_eq!(handshake(&server, &client), Ok(HandshakeKind::Resumed), "{version:?}");
    }
}

#[test]
fn min_version_turns_old_clients_away() {
    let files = Files::new();
    let server = server_config(&TlsFiles { min_version: TlsVersion::V1_3, ..files.tls() });
    let server = server.expect("good files");
    assert!(handshake(&server, &files.client(&[&TLS12], false)).is_err());
    assert!(handshake(&server, &files.client(&[&TLS13], false)).is_ok());
}

#[test]
fn a_client_ca_asks_for_certificates_and_requiring_them_is_a_choice() {
    let files = Files::new();
    let strict = TlsFiles { client_ca: Some(files.path("ca.pem")), ..files.tls() };
    let lenient = TlsFiles { require_client_certificate: false, ..strict.clone() };
    let (strict, lenient) = (server_config(&strict), server_config(&lenient));
    let (strict, lenient) = (strict.expect("good files"), lenient.expect("good files"));
    let (named, nameless) = (files.client(&[&TLS13], true), files.client(&[&TLS13], false));
    assert!(handshake(&strict, &named).is_ok());
    assert!(handshake(&strict, &nameless).is_err());
    assert!(handshake(&lenient, &named).is_ok());
    assert!(handshake(&lenient, &nameless).is_ok());

    let strangers = Files::new();
    files.write("client.pem", &strangers.read("client.pem"));
    files.write("client.key", &strangers.read("client.key"));
    let stranger = files.client(&[&TLS13], true);
    assert!(handshake(&lenient, &stranger).is_err(), "a certificate that is sent is verified");
}

#[test]
fn each_mistake_names_its_file_and_itself() {
    let files = Files::new();
    let tls = files.tls();
    let with_key = |name: &str| TlsFiles { key: files.path(name), ..tls.clone() };
    let with_certificate = |name: &str| TlsFiles { certificate: files.path(name), ..tls.clone() };

    files.refused(&with_certificate("none.pem"), Role::Certificate, "cannot be read: No such file");
    files.refused(&with_key("client.key"), Role::Key, "is not the key of the certificate");
    files.refused(&with_key("server.pem"), Role::Key, "holds a certificate, not a private key");
    files.refused(&with_certificate("server.key"), Role::Certificate, "holds a private key, not");

    files.write("der", "\u{1}\u{2}");
    files.refused(&with_certificate("der"), Role::Certificate, "DER file must be converted");
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    files.write("encrypted.key", encrypted);
    files.refused(&with_key("encrypted.key"), Role::Key, "without a passphrase");
    let whole = files.read("server.pem");
    files.write("cut.pem", &whole[..whole.len() / 2]);
    files.refused(&with_certificate("cut.pem"), Role::Certificate, "it is cut off");
    files.write("junk.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    files.refused(&with_key("junk.key"), Role::Key, "is of no use");

    files.write("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let junk_ca = TlsFiles { client_ca: Some(files.path("junk.pem")), ..tls.clone() };
    files.refused(&junk_ca, Role::ClientCa, "invalid peer certificate");
    files.refused(&with_certificate("junk.pem"), Role::Certificate, "invalid peer certificate");
}
