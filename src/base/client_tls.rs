//! TLS settings for connections that the gateway opens: it trusts the platform's certificates and those of the
//! configuration.

use rustls::client::WantsClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder};
use rustls_platform_verifier::Verifier;
use std::sync::Arc;

/// Makes TLS settings that trust `extra` beside the platform's certificates, without a client certificate.
///
/// # Errors
/// Returns an error if the machine has no usable trust store.
pub fn client_config(extra: &[CertificateDer<'static>]) -> Result<ClientConfig, rustls::Error> {
    Ok(trusting(extra)?.with_no_client_auth())
}

/// Makes the same settings with a client certificate, for servers that request one.
///
/// # Errors
/// Returns an error if the machine has no usable trust store, or if the key is not the certificate's.
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
