//! A certificate for one test run: an authority made on the spot, and a server certificate for
//! `localhost` and the loopback addresses signed by it.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::failure::Failure;

/// The files that the broker and its clients read.
pub(crate) struct Certificates {
    /// The authority's certificate, for clients.
    pub(crate) ca: PathBuf,
    /// The server's certificate.
    pub(crate) certificate: PathBuf,
    /// The server's private key.
    pub(crate) key: PathBuf,
}

/// Makes both certificates and writes them into `directory`.
pub(crate) fn make(directory: &Path) -> Result<Certificates, Failure> {
    let (ca, certificate, key) =
        generate().map_err(|error| Failure(format!("cannot make a certificate: {error}")))?;
    let write = |name: &str, pem: &str| {
        let path = directory.join(name);
        std::fs::write(&path, pem).map_err(Failure::io("write", &path))?;
        Ok(path)
    };
    Ok(Certificates {
        ca: write("ca.pem", &ca)?,
        certificate: write("certificate.pem", &certificate)?,
        key: write("key.pem", &key)?,
    })
}

fn generate() -> Result<(String, String, String), rcgen::Error> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "Warren conformance authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Python 3.13 verifies strictly: an authority says what its key is for, and its issue names it.
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_certificate = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);

    let key = KeyPair::generate()?;
    let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
    let mut server = CertificateParams::new(names)?;
    server.distinguished_name.push(DnType::CommonName, "localhost");
    server.use_authority_key_identifier_extension = true;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = server.signed_by(&key, &issuer)?;
    Ok((authority_certificate.pem(), certificate.pem(), key.serialize_pem()))
}
