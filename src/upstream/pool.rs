//! Connections between two requests.
//!
//! An h1 connection has no task of its own: whoever uses it drives it, which saves two task switches per request. So
//! nobody reads from a connection that lies here; that upstream closed it shows when it is taken.

use super::connect::{Http1Connection, Http1Sender, Http2Sender};
use crate::base::clock::Clock;
use crate::base::lazy_sleep::LazySleep;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Connections kept unused: more than this many at once were a burst that is over.
const MOST_IDLE: usize = 512;

/// Requests on one h2 connection: common servers allow 100 or 128, and what is beyond that would wait unseen.
pub(super) const MOST_STREAMS: usize = 100;

/// Kept connections.
#[derive(Debug)]
pub(super) struct Pool {
    kept: Mutex<Kept>,
    idle_timeout: Duration,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Kept {
    /// The one used last is at the back, and is used next: those at the front grow old.
    http1: VecDeque<(Instant, Box<Http1>)>,
    /// Each carries many requests.
    http2: Vec<Arc<Http2>>,
}

/// A connection with nobody else on it, or a share in one.
#[derive(Debug)]
pub(super) enum Pooled {
    Http1 { connection: Box<Http1>, fresh: bool },
    Http2 { connection: Arc<Http2>, fresh: bool },
}

/// An h2 connection, driven by a task of its own. Each holder stands for one request on it.
#[derive(Debug)]
pub(super) struct Http2 {
    pub(super) sender: Http2Sender,
    /// An answer did not come in time: the path may be dead, which the connection notices later.
    suspect: AtomicBool,
}

/// An h1 connection, driven by whoever holds it.
#[derive(Debug)]
pub(super) struct Http1 {
    pub(super) sender: Http1Sender,
    /// None once it has ended: only when it is dropped does hyper give back a request that it did not take.
    connection: Option<Box<Http1Connection>>,
    pub(super) alarm: LazySleep,
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration, clock: Clock) -> Self {
        Self { kept: Mutex::default(), idle_timeout, clock }
    }

    /// A kept connection that is still open, as far as anybody can tell.
    pub(super) fn take(&self) -> Option<Pooled> {
        loop {
            let (since, mut connection) = {
                let mut kept = self.kept.lock();
                kept.http2.retain(|connection| connection.is_open());
                // One holder is the pool itself.
                let free = kept.http2.iter().find(|connection| Arc::strong_count(connection) <= MOST_STREAMS);
                if let Some(connection) = free {
                    return Some(Pooled::Http2 { connection: Arc::clone(connection), fresh: false });
                }
                kept.http1.pop_back()?
            };
            let young = self.clock.now().saturating_duration_since(since) < self.idle_timeout;
            if young && connection.is_usable() {
                return Some(Pooled::Http1 { connection, fresh: false });
            }
        }
    }

    /// Keeps a connection for the next request, if it can carry one.
    pub(super) fn keep(&self, mut connection: Box<Http1>) {
        if !connection.is_usable() {
            return;
        }
        let now = self.clock.now();
        let mut kept = self.kept.lock();
        if kept.http1.len() < MOST_IDLE {
            kept.http1.push_back((now, connection));
        }
    }

    /// Lets other requests use a new connection too, if it can carry several at once.
    pub(super) fn share(&self, pooled: &Pooled) {
        if let Pooled::Http2 { connection, .. } = pooled {
            self.kept.lock().http2.push(Arc::clone(connection));
        }
    }

    /// Whether upstream was last seen to take several requests on one connection.
    pub(super) fn multiplexes(&self) -> bool {
        !self.kept.lock().http2.is_empty()
    }

    /// Closes every connection that carries no request.
    pub(super) fn clear(&self) {
        *self.kept.lock() = Kept::default();
    }

    /// Closes what is too old, or was closed by upstream.
    pub(super) fn sweep(&self) {
        let now = self.clock.now();
        // Looked over without the lock: requests that come meanwhile make connections of their own.
        let mut looked_over = std::mem::take(&mut self.kept.lock().http1);
        looked_over.retain_mut(|(since, connection)| {
            now.saturating_duration_since(*since) < self.idle_timeout && connection.is_usable()
        });
        let mut kept = self.kept.lock();
        // Of h2 connections that carry nothing, one is enough.
        let mut idle = 0;
        kept.http2.retain(|connection| {
            idle += usize::from(Arc::strong_count(connection) == 1);
            connection.is_open() && (Arc::strong_count(connection) > 1 || idle == 1)
        });
        let newer = std::mem::replace(&mut kept.http1, looked_over);
        let room = MOST_IDLE.saturating_sub(kept.http1.len());
        kept.http1.extend(newer.into_iter().take(room));
    }
}

impl Pooled {
    pub(super) fn http1(sender: Http1Sender, connection: Http1Connection) -> Self {
        let connection =
            Box::new(Http1 { sender, connection: Some(Box::new(connection)), alarm: LazySleep::default() });
        Self::Http1 { connection, fresh: true }
    }

    pub(super) fn http2(sender: Http2Sender) -> Self {
        let connection = Arc::new(Http2 { sender, suspect: AtomicBool::new(false) });
        Self::Http2 { connection, fresh: true }
    }

    /// Whether no request was sent on it yet.
    pub(super) const fn is_fresh(&self) -> bool {
        match self {
            Self::Http1 { fresh, .. } | Self::Http2 { fresh, .. } => *fresh,
        }
    }
}

impl Http2 {
    /// Sends no further requests this way.
    pub(super) fn suspect(&self) {
        self.suspect.store(true, Ordering::Relaxed);
    }

    fn is_open(&self) -> bool {
        !self.suspect.load(Ordering::Relaxed) && self.sender.is_ready()
    }
}

impl Http1 {
    /// Lets the connection read and write what it can.
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

    /// Whether it is between two messages, and open.
    fn is_usable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }
}
