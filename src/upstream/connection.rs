//! Connections to Iluma.
//!
//! An h1 connection has no task of its own: the request that holds it drives it, which saves two task switches per
//! request. An h2 connection serves several requests at once and is driven by a task.

use super::outgoing::OutgoingBody;
use super::settings_watch::SettingsWatch;
use crate::base::drained_io::DrainedIo;
use crate::base::lazy_sleep::LazySleep;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// The byte stream of a connection, in clear or through TLS.
pub(super) type Stream = DrainedIo<Either<TcpStream, TlsStream<TcpStream>>>;

pub(super) type Http1Sender = http1::SendRequest<OutgoingBody>;
pub(super) type Http1Connection = http1::Connection<TokioIo<Stream>, OutgoingBody>;
pub(super) type Http2Sender = http2::SendRequest<OutgoingBody>;
pub(super) type Http2Connection =
    http2::Connection<TokioIo<SettingsWatch<Stream>>, OutgoingBody, crate::base::tasks::Tasks>;

/// The largest number of concurrent requests on one h2 connection, even if the peer allows more. If the connection
/// breaks, not more requests than these fail.
pub(super) const MOST_STREAMS: usize = 100;

/// The age from which a connection gets no further requests. So a changed DNS answer takes effect within minutes.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// A connection for one request. An h1 connection is for this request alone; an h2 connection may carry other requests
/// at the same time. `fresh` is true if the connection has carried no request yet.
#[derive(Debug)]
pub(super) enum Pooled {
    Http1 { connection: Box<Http1>, fresh: bool },
    Http2 { connection: Arc<Http2>, fresh: bool },
}

impl Pooled {
    /// Returns true if no request was sent on the connection yet.
    pub(super) const fn is_fresh(&self) -> bool {
        match self {
            Self::Http1 { fresh, .. } | Self::Http2 { fresh, .. } => *fresh,
        }
    }

    /// Returns the name of the connection's protocol.
    pub(super) const fn protocol(&self) -> &'static str {
        match self {
            Self::Http1 { .. } => "http/1.1",
            Self::Http2 { .. } => "h2",
        }
    }
}

/// An h2 connection, driven by a task of its own. The pool holds one `Arc` of the connection, and each request on it
/// holds another. So the number of these `Arc`s shows the number of requests.
#[derive(Debug)]
pub(super) struct Http2 {
    pub(super) sender: Http2Sender,
    /// The number of concurrent requests that the peer allows now (SETTINGS_MAX_CONCURRENT_STREAMS).
    allowed_streams: Arc<AtomicUsize>,
    /// True if no further request may use the connection: an answer did not arrive in time, or the peer refused a
    /// request.
    retired: AtomicBool,
    born: Instant,
}

impl Http2 {
    pub(super) fn new(sender: Http2Sender, allowed_streams: Arc<AtomicUsize>, born: Instant) -> Self {
        Self { sender, allowed_streams, retired: AtomicBool::new(false), born }
    }

    /// Marks the connection so that it gets no further requests.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Returns true if the connection may carry further requests.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        !self.retired.load(Ordering::Relaxed) && is_young(self.born, now) && self.sender.is_ready()
    }

    /// Returns true if the connection has room for another request. The number of `Arc`s includes the pool's own, so it
    /// is one more than the number of requests.
    pub(super) fn has_room(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) <= self.allowed_streams.load(Ordering::Relaxed).min(MOST_STREAMS)
    }

    /// Returns true if the pool alone holds the connection.
    pub(super) fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
    }
}

/// An h1 connection, driven by the request that holds it.
#[derive(Debug)]
pub(super) struct Http1 {
    pub(super) sender: Http1Sender,
    /// The connection; `None` once it has ended. An ended connection is dropped, because only then hyper returns a
    /// request that it did not send.
    connection: Option<Box<Http1Connection>>,
    pub(super) alarm: LazySleep,
    born: Instant,
}

impl Http1 {
    pub(super) fn new(sender: Http1Sender, connection: Http1Connection, born: Instant) -> Self {
        Self { sender, connection: Some(Box::new(connection)), alarm: LazySleep::default(), born }
    }

    /// Drives the connection: it reads and writes as much as possible.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && let Poll::Ready(ended) = Pin::new(connection).poll(cx)
        {
            self.connection = None;
            if let Err(error) = ended {
                tracing::debug!(%error, "an upstream connection ended");
            }
        }
    }

    /// Returns true if the connection is between two messages, open, and young enough for another request.
    pub(super) fn is_usable(&mut self, now: Instant) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && is_young(self.born, now) && self.sender.is_ready()
    }
}

fn is_young(born: Instant, now: Instant) -> bool {
    now.saturating_duration_since(born) < MAX_AGE
}
