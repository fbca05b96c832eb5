//! TLS of the listeners: PEM files to a rustls configuration, and telling mixed-up protocols apart.
//!
//! One idea: an error names the file and what is wrong with it, because "invalid certificate" costs
//! an operator an hour. Reloading is calling [`server_config`] again and swapping the result;
//! connections keep the configuration that they began with.

mod opening;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::settings::{TlsFiles, TlsVersion};

pub use opening::Opening;

/// Sessions of TLS 1.2 clients without tickets that are kept for resumption.
const SESSIONS_MAX: usize = 4096;

/// A TLS file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    /// What the file is for.
    pub role: Role,
    /// The file.
    pub path: PathBuf,
    /// What is wrong, without a full stop.
    pub reason: String,
}

/// What a TLS file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The certificate and its chain.
    Certificate,
    /// The private key.
    Key,
    /// The CAs of the clients.
    ClientCa,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Certificate => "certificate",
            Role::Key => "key",
            Role::ClientCa => "client CA",
        };
        write!(f, "TLS {role} {}: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for TlsError {}

impl TlsError {
    fn new(role: Role, path: &Path, reason: impl Into<String>) -> Self {
        Self { role, path: path.into(), reason: reason.into() }
    }

    fn from_pem(role: Role, path: &Path, error: pem::Error) -> Self {
        let reason = match error {
            pem::Error::Io(error) => format!("cannot be read: {error}"),
            pem::Error::NoItemsFound => no_items(role, path),
            pem::Error::MissingSectionEnd { end_marker } => {
                format!("has no line {:?}: it is cut off", String::from_utf8_lossy(&end_marker))
            }
            other => format!("is not PEM: {other}"),
        };
        Self::new(role, path, reason)
    }
}

/// Why a readable file holds nothing for its role: the usual mix-ups by name.
fn no_items(role: Role, path: &Path) -> String {
    let octets = std::fs::read(path).unwrap_or_default();
    let holds = |mark: &str| memchr::memmem::find(&octets, mark.as_bytes()).is_some();
    if holds("BEGIN ENCRYPTED PRIVATE KEY") || holds("Proc-Type: 4,ENCRYPTED") {
        return "the key is encrypted; store it without a passphrase, readable by the broker only"
            .into();
    }
    if !holds("-----BEGIN ") {
        return "holds no PEM (no line begins with -----BEGIN); a DER file must be converted"
            .into();
    }
    match role {
        Role::Key if holds("BEGIN CERTIFICATE") => "holds a certificate, not a private key",
        Role::Key => "holds no private key",
        _ if holds("PRIVATE KEY") => "holds a private key, not a certificate",
        _ => "holds no certificate",
    }
    .into()
}

/// The rustls configuration of one TLS listener, read from its PEM files.
///
/// Blocks on reading the files. Sessions resume by tickets, whose keys live as long as the
/// configuration and rotate every six hours, or from a cache for TLS 1.2 clients without tickets.
///
/// # Errors
/// The file that cannot be used and why: unreadable, not PEM, nothing in it for its role, a key of
/// another certificate, a CA that is none.
pub fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(Role::Certificate, &files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| TlsError::from_pem(Role::Key, &files.key, error))?;
    let provider = Arc::new(ring::default_provider());
    check_pair(files, &chain, &key, &provider)?;

    let versions: &[&SupportedProtocolVersion] = match files.min_version {
        TlsVersion::V1_2 => &[&TLS13, &TLS12],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let of_certificate = |error: rustls::Error| {
        TlsError::new(Role::Certificate, &files.certificate, error.to_string())
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(of_certificate)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let of_ca = |reason: String| TlsError::new(Role::ClientCa, path, reason);
            let mut roots = RootCertStore::empty();
            for certificate in certificates(Role::ClientCa, path)? {
                roots.add(certificate).map_err(|error| of_ca(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if files.require_client_certificate {
                verifier
            } else {
                verifier.allow_unauthenticated()
            };
            let verifier = verifier.build().map_err(|error| of_ca(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(of_certificate)?;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    config.ticketer = ring::Ticketer::new().map_err(of_certificate)?;
    Ok(Arc::new(config))
}

/// All that is wrong with the files of one TLS listener: each file is looked at, whatever the others are.
#[must_use]
pub fn check(files: &TlsFiles) -> Vec<TlsError> {
    let key = || match PrivateKeyDer::from_pem_file(&files.key) {
        Ok(_) => Ok(()),
        Err(error) => Err(TlsError::from_pem(Role::Key, &files.key, error)),
    };
    let certificate = |role, path| certificates(role, path).map(|_| ());
    let ca = files.client_ca.as_ref().map(|path| certificate(Role::ClientCa, path));
    let each = [Some(certificate(Role::Certificate, &files.certificate)), Some(key()), ca];
    let wrong: Vec<TlsError> = each.into_iter().flatten().filter_map(Result::err).collect();
    // What is good alone may not fit together.
    if wrong.is_empty() { server_config(files).err().into_iter().collect() } else { wrong }
}

fn certificates(role: Role, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, pem::Error> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match found {
        Ok(certificates) if certificates.is_empty() => {
            Err(TlsError::from_pem(role, path, pem::Error::NoItemsFound))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(TlsError::from_pem(role, path, error)),
    }
}

/// Whether `key` can sign and belongs to the first certificate of `chain`.
fn check_pair(
    files: &TlsFiles,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    provider: &rustls::crypto::CryptoProvider,
) -> Result<(), TlsError> {
    let signing = provider
        .key_provider
        .load_private_key(key.clone_key())
        .map_err(|error| TlsError::new(Role::Key, &files.key, format!("is of no use: {error}")))?;
    match CertifiedKey::new(chain.to_vec(), signing).keys_match() {
        // Unknown: this kind of key does not tell; a handshake will.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(()),
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            let reason = format!(
                "is not the key of the certificate in {}; the server's own certificate comes first \
                 in its file",
                files.certificate.display()
            );
            Err(TlsError::new(Role::Key, &files.key, reason))
        }
        Err(error) => Err(TlsError::new(Role::Certificate, &files.certificate, error.to_string())),
    }
}

#[cfg(test)]
mod tests;
