//! The TLS settings of a listener: versions, certificates and keys from PEM files, client CAs.
//!
//! Invariants: a key belongs to its certificate; if a client CA is configured, a client without a certificate of that
//! CA gets no connection; a fault never repeats the content of a file.

use super::reader::{Entry, Section};
use super::settings::ServerTls;
use crate::base::byte_size::ByteSize;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Reads the TLS settings of a listener: `{ cert, key, client_ca }`. Returns `None` after a fault, and if secrets and
/// certificates are not read.
pub(super) fn server_tls(tls: &Section<'_>) -> Option<ServerTls> {
    if tls.skips_secrets() {
        let path = |key, missing| tls.must(key, missing, Entry::path_of_file);
        let (_, _) = (path("cert", NO_CERTIFICATE), path("key", NO_KEY));
        tls.maybe("client_ca", Entry::path_of_file);
        return None;
    }
    let cert = tls.must("cert", NO_CERTIFICATE, certificates);
    let key = tls.must("key", NO_KEY, private_key);
    let client_ca = tls.maybe("client_ca", roots);
    let mutual = tls.entry("client_ca").is_some();

    // The provider is given explicitly, so that no other crate's choice of a process-wide default matters.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| tls.fault(error.to_string())).ok()?;
    let builder = if mutual {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(client_ca?), provider).build();
        let refused = |error: rustls::server::VerifierBuilderError| tls.fault_at("client_ca", error.to_string());
        builder.with_client_cert_verifier(verifier.map_err(refused).ok()?)
    } else {
        builder.with_no_client_auth()
    };
    let (cert, key) = (cert?, key?);
    let certificate = cert.first()?.clone();
    match builder.with_single_cert(cert, key) {
        Ok(mut config) => {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            Some(ServerTls { config: Arc::new(config), expires: expiry(&certificate), certificate })
        }
        Err(rustls::Error::InconsistentKeys(_)) => {
            let [key, cert] = ["key", "cert"].map(|name| tls.entry(name).as_ref().map(place).unwrap_or_default());
            tls.fault_at(
                "key",
                format!("{key} does not belong to {cert}: give the key that the certificate was made for"),
            );
            None
        }
        Err(error) => {
            tls.fault(format!("certificate and key cannot be used: {error}"));
            None
        }
    }
}

/// Returns the chain and the key of a listener; the health check uses them as its client certificate.
pub(super) fn identity(tls: &Section<'_>) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let (cert, key) = (tls.maybe("cert", certificates), tls.maybe("key", private_key));
    Some((cert?, key?))
}

/// Returns the moment at which a certificate expires; `None` if the certificate can't be read.
fn expiry(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Reads a PEM file with one or more certificates.
pub(super) fn certificates(file: &Entry<'_>) -> Option<Vec<CertificateDer<'static>>> {
    let pem = file.content(MAX_PEM)?;
    let certificates: Option<Vec<_>> = CertificateDer::pem_slice_iter(&pem).map(Result::ok).collect();
    let certificates = certificates.filter(|found| !found.is_empty());
    if certificates.is_none() {
        file.fault(format!("{} is not a list of PEM certificates (-----BEGIN CERTIFICATE-----)", place(file)));
    }
    certificates
}

/// Reads a PEM file with one or more certificates, and checks that each can be a trust anchor.
pub(super) fn trusted(file: &Entry<'_>) -> Option<Vec<CertificateDer<'static>>> {
    if file.skips_secrets() {
        return file.path_of_file().map(|_| Vec::new());
    }
    let certificates = certificates(file)?;
    store(file, &certificates)?;
    Some(certificates)
}

/// Reads and checks certificates as [`trusted`] does, and returns the PEM text, for libraries that accept only PEM.
pub(super) fn trusted_pem(file: &Entry<'_>) -> Option<Vec<u8>> {
    trusted(file)?;
    if file.skips_secrets() {
        return Some(Vec::new());
    }
    file.content(MAX_PEM)
}

fn roots(file: &Entry<'_>) -> Option<RootCertStore> {
    store(file, &certificates(file)?)
}

fn store(file: &Entry<'_>, certificates: &[CertificateDer<'static>]) -> Option<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        if store.add(certificate.clone()).is_err() {
            file.fault(format!("{} has a certificate that cannot be read", place(file)));
            return None;
        }
    }
    Some(store)
}

fn private_key(file: &Entry<'_>) -> Option<PrivateKeyDer<'static>> {
    let pem = zeroize::Zeroizing::new(file.content(MAX_PEM)?);
    let key = PrivateKeyDer::from_pem_slice(&pem).ok();
    if key.is_none() {
        file.fault(format!(
            "{} has no PEM private key (PKCS#8, SEC1 or PKCS#1: -----BEGIN PRIVATE KEY-----)",
            place(file)
        ));
    }
    key
}

/// Returns the path of a file, as faults show it.
fn place(file: &Entry<'_>) -> String {
    file.path_of_file().map_or_else(|| "the file".to_owned(), |path| path.display().to_string())
}

const NO_CERTIFICATE: &str = "missing; give the PEM file of the certificate chain";
const NO_KEY: &str = "missing; give the PEM file of the private key";
/// The largest PEM file: a bundle of every public CA has about 200 KiB.
const MAX_PEM: ByteSize = ByteSize::mib(1);
