//! Connections between two requests.
//!
//! An h1 connection has no task of its own: whoever uses it drives it, which saves two task switches per request. So
//! nobody reads from a connection that lies here; that upstream closed it shows when it is taken.

use super::connect::{Http1Connection, Http1Sender, Http2Sender};
use crate::alarm::Alarm;
use crate::clock::Clock;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Connections kept unused: more than this many at once were a burst that is over.
const MOST_IDLE: usize = 512;

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
    /// One connection carries many requests.
    http2: Option<Http2Sender>,
}

/// A connection with nobody else on it, or a share in one.
#[derive(Debug)]
pub(super) enum Pooled {
    Http1 { connection: Box<Http1>, fresh: bool },
    Http2 { sender: Http2Sender, fresh: bool },
}

/// An h1 connection, driven by whoever holds it.
#[derive(Debug)]
pub(super) struct Http1 {
    pub(super) sender: Http1Sender,
    connection: Http1Connection,
    ended: bool,
    pub(super) alarm: Alarm,
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration, clock: Clock) -> Self {
        Self { kept: Mutex::default(), idle_timeout, clock }
    }

    /// A kept connection that is still open, as far as anybody can tell.
    pub(super) fn take(&self) -> Option<Pooled> {
        loop {
            let (since, mut connection) = {
                let mut kept = self.lock();
                if let Some(sender) = &kept.http2 {
                    if sender.is_ready() {
                        return Some(Pooled::Http2 { sender: sender.clone(), fresh: false });
                    }
                    kept.http2 = None;
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
        let mut kept = self.lock();
        if kept.http1.len() < MOST_IDLE {
            kept.http1.push_back((now, connection));
        }
    }

    /// Lets other requests use a new connection too, if it can carry several at once.
    pub(super) fn share(&self, pooled: &Pooled) {
        if let Pooled::Http2 { sender, .. } = pooled {
            self.lock().http2 = Some(sender.clone());
        }
    }

    /// Closes what is too old, or was closed by upstream.
    pub(super) fn sweep(&self) {
        let now = self.clock.now();
        let usable = |(since, connection): &mut (Instant, Box<Http1>)| {
            now.saturating_duration_since(*since) < self.idle_timeout && connection.is_usable()
        };
        self.lock().http1.retain_mut(usable);
    }

    /// The state is whole even if a holder panicked: each change is one call.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pooled {
    pub(super) fn http1(sender: Http1Sender, connection: Http1Connection) -> Self {
        let connection = Box::new(Http1 { sender, connection, ended: false, alarm: Alarm::default() });
        Self::Http1 { connection, fresh: true }
    }

    pub(super) const fn http2(sender: Http2Sender) -> Self {
        Self::Http2 { sender, fresh: true }
    }

    /// Whether no request was sent on it yet.
    pub(super) const fn is_fresh(&self) -> bool {
        match self {
            Self::Http1 { fresh, .. } | Self::Http2 { fresh, .. } => *fresh,
        }
    }
}

impl Http1 {
    /// Lets the connection read and write what it can.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.ended
            && let Poll::Ready(ended) = Pin::new(&mut self.connection).poll(cx)
        {
            self.ended = true;
            if let Err(error) = ended {
                tracing::debug!(%error, "an upstream connection ended");
            }
        }
    }

    /// Whether it is between two messages, and open.
    fn is_usable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.ended && self.sender.is_ready()
    }
}
