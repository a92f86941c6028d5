//! The client of teams' endpoints: one request, and the status of its answer.
//!
//! Invariants:
//! - The head of an answer arrives within the timeout, and its body is read for at most [`DRAIN_TIME`], whatever the
//!   endpoint does.
//! - No redirect is followed, every certificate is verified, and nothing is sent to a URL that [`CallbackUrl`] forbids.
//! - An answer's body is never kept in memory.

use super::config::Team;
use super::resolver::{Permitted, Unresolved};
use crate::base::client_tls;
use crate::base::clock::Clock;
use crate::base::retry_after::retry_after;
use crate::base::tasks::Tasks;
use crate::iluma::callback_url::{CallbackUrl, UrlError};
use crate::state::{AttemptError, AttemptRecord, AttemptResult};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Request};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use rustls::pki_types::CertificateDer;
use secrecy::ExposeSecret as _;
use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

/// The longest time to connect. If a host has two addresses and the first does not answer, half of the time is left for
/// the second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest number of bytes of an answer's body that are read and discarded, so that the connection can be used
/// again. A longer body closes the connection.
const DRAIN_BYTES: usize = 64 << 10;
/// The longest time for reading and discarding an answer's body.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// The largest number of idle connections to a host: as many as a team's concurrent deliveries.
const IDLE_CONNECTIONS: usize = 16;
/// The longest time that a connection stays idle. Common servers keep it at least as long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

const USER: HeaderValue = HeaderValue::from_static(concat!("iluma-gateway/", env!("CARGO_PKG_VERSION")));

/// The record of an attempt, and the wait that the endpoint asked for in its answer, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) attempt: AttemptRecord,
    pub(super) retry_after: Option<Duration>,
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

    /// Makes one attempt: an answer with a status of 2xx within `timeout` is a success, even if its body is not
    /// complete. `message` is an id and the body. The id is the same for every attempt at one delivery.
    pub(super) async fn send(&self, team: &Team, timeout: Duration, url: &str, message: (&str, Bytes)) -> Sent {
        let (time, begun) = (self.clock.wall(), self.clock.now());
        let answer = match self.request(team, url, message) {
            Ok(request) => tokio::time::timeout(timeout, self.client.request(request)).await,
            Err(_) => return self.failed(time, AttemptError::Forbidden),
        };
        let duration = self.clock.now().saturating_duration_since(begun);
        let attempt = |result| AttemptRecord { time, result, duration };
        let error = match answer {
            Ok(Ok(answer)) => {
                let status = answer.status();
                let retry_after = retry_after(answer.headers(), self.clock.wall());
                // The status is the answer: neither the rest of the body nor its end matters.
                let _ = tokio::time::timeout(DRAIN_TIME, drain(answer.into_body())).await;
                let result = if status.is_redirection() {
                    AttemptResult::Error(AttemptError::Redirect)
                } else {
                    AttemptResult::Status(status.as_u16())
                };
                return Sent { attempt: attempt(result), retry_after };
            }
            Ok(Err(error)) => cause(&error),
            Err(_) => AttemptError::Timeout,
        };
        Sent { attempt: attempt(AttemptResult::Error(error)), retry_after: None }
    }

    /// Returns a failed attempt for which nothing was sent.
    pub(super) fn unsent(&self, error: AttemptError) -> Sent {
        self.failed(self.clock.wall(), error)
    }

    fn failed(&self, time: SystemTime, error: AttemptError) -> Sent {
        let attempt = AttemptRecord { time, result: AttemptResult::Error(error), duration: Duration::ZERO };
        Sent { attempt, retry_after: None }
    }

    fn request(&self, team: &Team, url: &str, (id, body): (&str, Bytes)) -> Result<Request<Full<Bytes>>, UrlError> {
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
        request.body(Full::new(body)).map_err(|_| UrlError::Shape)
    }
}

/// Returns the reason why a request got no answer. In the chain of errors, the deepest error with a known reason
/// decides.
fn cause(error: &(dyn Error + 'static)) -> AttemptError {
    let mut found = AttemptError::Reset;
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            found = of_io(io).unwrap_or(found);
        } else if error.is::<rustls::Error>() {
            found = AttemptError::Tls;
        } else if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            found = AttemptError::Protocol;
        } else if error.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|error| error.is_connect()) {
            found = AttemptError::Unreachable;
        }
        next = error.source();
    }
    found
}

fn of_io(error: &io::Error) -> Option<AttemptError> {
    let inside = error.get_ref();
    if let Some(unresolved) = inside.and_then(|inside| inside.downcast_ref::<Unresolved>()) {
        return Some(match unresolved {
            Unresolved::NoAddress => AttemptError::Dns,
            Unresolved::Forbidden => AttemptError::Forbidden,
        });
    }
    if inside.is_some_and(|inside| inside.is::<rustls::Error>()) {
        return Some(AttemptError::Tls);
    }
    // `source` skips the error that an I/O error wraps.
    if let Some(wrapped) = inside.and_then(|inside| inside.downcast_ref::<io::Error>()) {
        return of_io(wrapped);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(AttemptError::Refused),
        io::ErrorKind::TimedOut => Some(AttemptError::Timeout),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Some(AttemptError::Reset),
        _ => None,
    }
}

impl std::fmt::Debug for WebhookClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookClient").finish_non_exhaustive()
    }
}

/// Reads and discards a body to its end, or until more than [`DRAIN_BYTES`] have been read.
async fn drain(mut body: Incoming) {
    let mut read = 0;
    while !body.is_end_stream() && read <= DRAIN_BYTES {
        match body.frame().await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            _ => break,
        }
    }
}
