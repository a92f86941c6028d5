//! The HTTP client that posts callbacks. It does not follow redirects.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls_platform_verifier::BuilderVerifierExt;

use super::key::Key;
use super::options::Options;
use super::tasks::Tracked;

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The HTTP client of callbacks.
pub(super) struct WebhookClient {
    pub(super) executor: Tracked,
    clear: OnceLock<HttpClient>,
    secure: OnceLock<HttpClient>,
    pub(super) waiting: AtomicUsize,
    /// A number that grows with each reset; callbacks of an earlier generation are not sent any more.
    pub(super) generation: AtomicU64,
}

impl WebhookClient {
    pub(super) fn new(executor: Tracked) -> Self {
        Self {
            executor,
            clear: OnceLock::new(),
            secure: OnceLock::new(),
            waiting: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
        }
    }

    /// Discards the waiting callbacks.
    pub(super) fn reset(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Posts a body to a URL. Returns the status of the answer; `None` if no answer came in time.
    pub(super) async fn post(&self, options: &Options, key: &Key, uri: Uri, body: Bytes) -> Option<StatusCode> {
        let secure = uri.scheme_str() == Some("https");
        let request = Request::post(uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "iluma-simulator")
            .header("x-callback-token", &*key.callback_token)
            .body(Full::new(body))
            .ok()?;
        let client = if secure {
            self.secure.get_or_init(|| client(tls(options.callback_tls.as_deref()), self.executor.clone()))
        } else {
            self.clear.get_or_init(|| client(no_roots(), self.executor.clone()))
        };
        match tokio::time::timeout(options.callback_timeout, client.request(request)).await {
            Ok(Ok(answer)) => Some(answer.status()),
            Ok(Err(error)) => {
                tracing::debug!(%error, "callback not delivered");
                None
            }
            Err(_) => None,
        }
    }
}

fn client(tls: rustls::ClientConfig, executor: Tracked) -> HttpClient {
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    Client::builder(executor).build(connector)
}

fn tls(given: Option<&rustls::ClientConfig>) -> rustls::ClientConfig {
    if let Some(given) = given {
        return given.clone();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_or_else(|_| no_roots(), |config| config.with_no_client_auth())
}

/// Returns TLS settings without any root certificate. They are for a client that never uses TLS, and for a platform
/// whose certificates can't be used.
fn no_roots() -> rustls::ClientConfig {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    match builder.with_safe_default_protocol_versions() {
        Ok(builder) => builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth(),
        // This cannot happen with this provider, which knows TLS 1.2 and 1.3; the fallback takes the process's default.
        Err(_) => {
            rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
        }
    }
}
