//! The way to a team's endpoint: one request, its answer's status.
//!
//! Invariants: an attempt ends within [`TIMEOUT`], whatever the endpoint does; no redirect is followed, no certificate
//! passes unverified, nothing is sent where [`urls`] does not permit it; an answer's body is never held.

use super::Team;
use super::urls::{self, Permitted, UrlError};
use crate::base::client_tls;
use crate::base::clock::Clock;
use crate::base::tasks::Tasks;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use rustls::pki_types::CertificateDer;
use secrecy::ExposeSecret as _;
use std::time::{Duration, SystemTime};

/// From looking the name up to the end of the answer (section 5 of the design).
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// A host that does not answer its handshake leaves half of the time for another of its addresses.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What is read of an answer, so that its connection can be used again; a longer one costs the connection.
const LONGEST_ANSWER: usize = 64 << 10;

/// Idle connections: to one endpoint as many as a team's deliveries at once, and not for longer than common servers keep
/// them.
const IDLE_CONNECTIONS: usize = 16;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

const USER: HeaderValue = HeaderValue::from_static(concat!("iluma-gateway/", env!("CARGO_PKG_VERSION")));

/// Why an attempt failed. No word of it is a team's or a person's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The team has no URL for this type any more.
    #[error("no URL is set")]
    NoUrl,
    /// State could not be asked for the URL.
    #[error("state can't be reached")]
    State,
    /// The URL may not be used, or not any more.
    #[error(transparent)]
    Forbidden(#[from] UrlError),
    /// No connection: no such name, nobody there, a certificate that is not trusted.
    #[error("no connection")]
    Unreachable,
    /// The connection broke.
    #[error("the connection broke")]
    Broken,
    /// No whole answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// Not 2xx; redirects are among them.
    #[error("answered with {0}")]
    Refused(StatusCode),
}

/// Sends to teams. Connections are kept between deliveries.
pub(super) struct WebhookClient {
    client: Client<HttpsConnector<HttpConnector<Permitted>>, Full<Bytes>>,
    clock: Clock,
}

impl WebhookClient {
    /// One that trusts these certificates beside the platform's; `tasks` drive its connections.
    pub(super) fn new(extra_ca: &[CertificateDer<'static>], clock: Clock, tasks: Tasks) -> Result<Self, rustls::Error> {
        let tls = client_tls::client_config(extra_ca)?;
        let mut tcp = HttpConnector::new_with_resolver(Permitted::new());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions().wrap_connector(tcp);
        let client = Client::builder(tasks)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Ok(Self { client, clock })
    }

    /// Makes one attempt. `id` is the same for every attempt at one delivery.
    pub(super) async fn send(&self, team: &Team, url: &str, id: &str, body: Bytes) -> Result<(), Failure> {
        let uri = urls::permitted(url, &team.hosts)?;
        let timestamp = self.clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut request = Request::post(uri)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, USER)
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp);
        if let Some(headers) = request.headers_mut() {
            if let Ok(mut token) = HeaderValue::from_str(team.credentials.token.expose_secret()) {
                token.set_sensitive(true);
                headers.insert("x-callback-token", token);
            }
            if let Some(signature) = team.credentials.sign(id, timestamp, &body) {
                headers.insert("webhook-signature", signature);
            }
        }
        let request = request.body(Full::new(body)).map_err(|_| UrlError::Shape)?;
        let exchange = async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|error| if error.is_connect() { Failure::Unreachable } else { Failure::Broken })?;
            let status = answer.status();
            drain(answer.into_body()).await;
            if status.is_success() { Ok(()) } else { Err(Failure::Refused(status)) }
        };
        tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or(Err(Failure::TimedOut))
    }
}

impl std::fmt::Debug for WebhookClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookClient").finish_non_exhaustive()
    }
}

/// Reads a body to its end, or to the bound. What it says does not matter, nor whether it breaks off: the status has come.
async fn drain(mut body: Incoming) {
    let mut read = 0;
    while !body.is_end_stream() && read <= LONGEST_ANSWER {
        match body.frame().await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            _ => break,
        }
    }
}
