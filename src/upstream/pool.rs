//! The connections that wait for their next request.
//!
//! No task reads from an h1 connection in the pool; a close by Iluma is noticed when the connection is taken.

use super::connection::{Http1, Http2, Pooled};
use crate::base::clock::Clock;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The largest number of unused h1 connections that are kept. Further connections are left from a burst that is over,
/// and are closed.
const MOST_IDLE: usize = 512;

/// The connections that are kept for further requests.
#[derive(Debug)]
pub(super) struct Pool {
    kept: Mutex<Kept>,
    idle_timeout: Duration,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Kept {
    /// Unused h1 connections, each with the time since which it is unused. The most recently used connection is at the
    /// back, and is used next. The connections at the front grow old.
    http1: VecDeque<(Instant, Box<Http1>)>,
    /// The h2 connections. Each carries many requests.
    http2: Vec<Arc<Http2>>,
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration, clock: Clock) -> Self {
        Self { kept: Mutex::default(), idle_timeout, clock }
    }

    /// Takes a kept connection that seems to be open; `None` if there is none.
    pub(super) fn take(&self) -> Option<Pooled> {
        let now = self.clock.now();
        loop {
            let (since, mut connection) = {
                let mut kept = self.kept.lock();
                kept.http2.retain(|connection| connection.is_open(now));
                if let Some(connection) = kept.http2.iter().find(|connection| connection.has_room()) {
                    return Some(Pooled::Http2 { connection: Arc::clone(connection), fresh: false });
                }
                kept.http1.pop_back()?
            };
            if now.saturating_duration_since(since) < self.idle_timeout && connection.is_usable(now) {
                return Some(Pooled::Http1 { connection, fresh: false });
            }
        }
    }

    /// Keeps a connection for the next request, if it can still carry one.
    pub(super) fn keep(&self, mut connection: Box<Http1>) {
        let now = self.clock.now();
        if !connection.is_usable(now) {
            return;
        }
        let mut kept = self.kept.lock();
        if kept.http1.len() < MOST_IDLE {
            kept.http1.push_back((now, connection));
        }
    }

    /// Keeps a new h2 connection at once, so that other requests can use it too. Does nothing for h1.
    pub(super) fn share(&self, pooled: &Pooled) {
        if let Pooled::Http2 { connection, .. } = pooled {
            self.kept.lock().http2.push(Arc::clone(connection));
        }
    }

    /// Returns true if an h2 connection is kept. Iluma then accepts several requests on one connection.
    pub(super) fn multiplexes(&self) -> bool {
        !self.kept.lock().http2.is_empty()
    }

    /// Closes every connection that carries no request. An h2 connection with requests gets no further ones. An h1
    /// connection with a request returns to the pool afterwards.
    pub(super) fn clear(&self) {
        *self.kept.lock() = Kept::default();
    }

    /// Closes connections that were unused for too long, that are too old, or that Iluma has closed. Keeps at most one
    /// h2 connection without requests.
    pub(super) fn sweep(&self) {
        let now = self.clock.now();
        // The connections are examined without the lock; meanwhile requests make connections of their own.
        let mut looked_over = std::mem::take(&mut self.kept.lock().http1);
        looked_over.retain_mut(|(since, connection)| {
            now.saturating_duration_since(*since) < self.idle_timeout && connection.is_usable(now)
        });
        let mut kept = self.kept.lock();
        // One h2 connection without requests is enough.
        let mut idle = 0;
        kept.http2.retain(|connection| {
            idle += usize::from(connection.is_idle());
            connection.is_open(now) && (!connection.is_idle() || idle == 1)
        });
        let newer = std::mem::replace(&mut kept.http1, looked_over);
        let room = MOST_IDLE.saturating_sub(kept.http1.len());
        kept.http1.extend(newer.into_iter().take(room));
    }
}
