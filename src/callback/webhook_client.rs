//! The client of teams' endpoints: one request, and the status of its answer.
//!
//! Invariants: the head of an answer arrives within the timeout, and its body is read for at most [`DRAIN_TIME`],
//! whatever the endpoint does; no redirect is followed, no certificate passes unverified, nothing is sent to a URL that
//! [`CallbackUrl`] forbids; an answer's body is never held.

use super::config::Team;
use super::resolver::Permitted;
use crate::base::client_tls;
use crate::base::clock::Clock;
use crate::base::retry_after::retry_after;
use crate::base::tasks::Tasks;
use crate::iluma::callback_url::{CallbackUrl, UrlError};
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

/// The longest connect: a host whose first address does not answer leaves half of the time for its next address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The bytes of an answer's body that are read and discarded, and the time for that, so that the connection can be used
/// again; a longer body closes the connection.
const DRAIN_BYTES: usize = 64 << 10;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Idle connections: for each endpoint as many as a team's concurrent deliveries, and not for longer than common
/// servers keep them.
const IDLE_CONNECTIONS: usize = 16;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

const USER: HeaderValue = HeaderValue::from_static(concat!("iluma-gateway/", env!("CARGO_PKG_VERSION")));

/// The reason why an attempt failed. It contains no data of a team or a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// The team has no URL for this type any more.
    #[error("no URL is set")]
    NoUrl,
    /// The URL is not allowed, or not any more.
    #[error(transparent)]
    Forbidden(#[from] UrlError),
    /// No connection was made: the name is unknown, nothing listens, or the certificate is not trusted.
    #[error("no connection")]
    Unreachable,
    /// The connection broke.
    #[error("the connection broke")]
    Broken,
    /// The head of the answer did not arrive in time.
    #[error("no answer in time")]
    TimedOut,
    /// The status is not 2xx; this includes redirects. The time is that of `retry-after`.
    #[error("answered with {0}")]
    Refused(StatusCode, Option<Duration>),
}

impl Failure {
    /// Returns the time for which the endpoint asked to wait.
    pub(super) const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Refused(_, wait) => wait,
            Self::NoUrl | Self::Forbidden(_) | Self::Unreachable | Self::Broken | Self::TimedOut => None,
        }
    }
}

/// Sends deliveries to teams. Connections are kept between deliveries.
pub(super) struct WebhookClient {
    client: Client<HttpsConnector<HttpConnector<Permitted>>, Full<Bytes>>,
    clock: Clock,
}

impl WebhookClient {
    /// Makes a client that trusts these certificates beside the platform's; `tasks` drive its connections.
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

    /// Makes one attempt: an answer with a status of 2xx within `timeout` is a success, whatever its body is. `id` is
    /// the same for every attempt of one delivery.
    pub(super) async fn send(
        &self,
        team: &Team,
        timeout: Duration,
        url: &str,
        message: (&str, Bytes),
    ) -> Result<(), Failure> {
        let (id, body) = message;
        let uri = CallbackUrl::permitted(url, &team.hosts)?.into_uri();
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
        let answer = tokio::time::timeout(timeout, self.client.request(request)).await;
        let answer = answer
            .map_err(|_| Failure::TimedOut)?
            .map_err(|error| if error.is_connect() { Failure::Unreachable } else { Failure::Broken })?;
        let (status, wait) = (answer.status(), retry_after(answer.headers(), self.clock.wall()));
        // Only the status matters: the rest of the body and its end do not.
        let _ = tokio::time::timeout(DRAIN_TIME, drain(answer.into_body())).await;
        if status.is_success() { Ok(()) } else { Err(Failure::Refused(status, wait)) }
    }
}

impl std::fmt::Debug for WebhookClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookClient").finish_non_exhaustive()
    }
}

/// Reads a body to its end, or to the bound.
async fn drain(mut body: Incoming) {
    let mut read = 0;
    while !body.is_end_stream() && read <= DRAIN_BYTES {
        match body.frame().await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            _ => break,
        }
    }
}
