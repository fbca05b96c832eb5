//! Certificates that live as long as a test, and TLS clients that trust them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::DEADLINE;

/// A certificate authority that nobody trusts but this test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate with its key, as PEM.
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// PEM files in a directory of the test.
#[derive(Debug, Clone)]
pub struct Files {
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The certificate of the authority.
    pub ca: PathBuf,
}

fn made<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(made) => made,
        Err(error) => panic!("cannot make {what}: {error}"),
    }
}

impl Authority {
    /// A new authority.
    #[must_use]
    pub fn new() -> Self {
        let key = made("a key", KeyPair::generate());
        let mut params = made("an authority", CertificateParams::new(Vec::new()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = made("an authority", params.self_signed(&key)).pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for a server called `localhost`.
    #[must_use]
    pub fn server(&self) -> Identity {
        self.sign("localhost", ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a client.
    #[must_use]
    pub fn client(&self) -> Identity {
        self.sign("client", ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Identity {
        let key = made("a key", KeyPair::generate());
        let mut params = made("a certificate", CertificateParams::new(vec![name.to_owned()]));
        params.extended_key_usages = vec![usage];
        let certificate = made("a certificate", params.signed_by(&key, &self.issuer)).pem();
        Identity { certificate, key: key.serialize_pem() }
    }

    /// Writes a new server's certificate, its key and the authority into `directory`, over what is there.
    #[must_use]
    pub fn write_server(&self, directory: &Path) -> Files {
        let server = self.server();
        let files = Files {
            certificate: directory.join("server.pem"),
            key: directory.join("server-key.pem"),
            ca: directory.join("ca.pem"),
        };
        for (path, text) in [
            (&files.certificate, &server.certificate),
            (&files.key, &server.key),
            (&files.ca, &self.certificate),
        ] {
            made("a file", std::fs::write(path, text));
        }
        files
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// A client that trusts `authority` and speaks one version of TLS.
pub struct Client<'a> {
    /// Who signs the servers that the client trusts.
    pub authority: &'a Authority,
    /// The version.
    pub version: &'static SupportedProtocolVersion,
    /// The client's own certificate, if it has one.
    pub identity: Option<&'a Identity>,
}

impl Client<'_> {
    fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.authority.certificate.as_bytes());
        made("a root", roots.add(made("a root", ca)));
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[self.version]);
        let builder = made("a client", builder).with_root_certificates(roots);
        match self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
                let chain = vec![made("a certificate", certificate)];
                made("a client", builder.with_client_auth_cert(chain, made("a key", key)))
            }
        }
    }

    /// Connects and shakes hands.
    ///
    /// # Errors
    /// What TLS says; a deadline that has passed counts as an error of the same kind.
    pub async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let shaken = async {
            let stream = TcpStream::connect(address).await?;
            let name = made("a name", ServerName::try_from("localhost"));
            TlsConnector::from(Arc::new(self.config())).connect(name, stream).await
        };
        timeout(DEADLINE, shaken).await.map_err(std::io::Error::from)?
    }
}
