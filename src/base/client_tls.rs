//! Whom the gateway trusts when it is the client: the platform's certificates, and those that the configuration adds.

use rustls::client::WantsClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder};
use rustls_platform_verifier::Verifier;
use std::sync::Arc;

/// TLS for a client that trusts `extra` beside the platform's certificates, and shows none of its own.
///
/// # Errors
/// The machine has no usable trust store.
pub fn client_config(extra: &[CertificateDer<'static>]) -> Result<ClientConfig, rustls::Error> {
    Ok(trusting(extra)?.with_no_client_auth())
}

/// The same for a client that shows a certificate where it is asked for one.
///
/// # Errors
/// The machine has no usable trust store, or the key is not the certificate's.
pub fn client_config_as(
    extra: &[CertificateDer<'static>],
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    trusting(extra)?.with_client_auth_cert(chain, key)
}

fn trusting(extra: &[CertificateDer<'static>]) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Verifier::new_with_extra_roots(extra.iter().cloned(), Arc::clone(&provider))?;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}
