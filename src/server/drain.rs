//! The drain, which ends each connection after its current requests.

use hyper_util::server::graceful::GracefulConnection;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// The signal for the drain of a listener's connections. Clones share the signal.
#[derive(Debug, Clone, Default)]
pub(super) struct Drain(Arc<Signal>);

#[derive(Debug, Default)]
struct Signal {
    told: AtomicBool,
    notify: Arc<Notify>,
}

impl Drain {
    /// Begins the drain: every connection ends after its current requests, also a connection that begins later.
    pub(super) fn begin(&self) {
        self.0.told.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    /// Runs a future that precedes the first request of a connection, such as its handshake. Returns `None` if the
    /// drain begins before the future ends.
    pub(super) async fn unless_begun<F: Future>(&self, future: F) -> Option<F::Output> {
        let told = Arc::clone(&self.0.notify).notified_owned();
        if self.0.told.load(Ordering::Acquire) {
            return None;
        }
        tokio::select! {
            () = told => None,
            output = future => Some(output),
        }
    }

    /// Wraps a connection, so that it ends after its current requests once the drain has begun.
    pub(super) fn watch<C: GracefulConnection>(&self, connection: C) -> Drained<C> {
        let notified = Box::pin(Arc::clone(&self.0.notify).notified_owned());
        Drained {
            connection: Box::pin(connection),
            signal: Arc::clone(&self.0),
            notified,
            waiting: false,
            ending: false,
        }
    }
}

/// A connection that ends after its current requests once the drain has begun.
pub(super) struct Drained<C> {
    connection: Pin<Box<C>>,
    signal: Arc<Signal>,
    notified: Pin<Box<OwnedNotified>>,
    waiting: bool,
    ending: bool,
}

impl<C: GracefulConnection> Drained<C> {
    /// Ends the connection after its current requests.
    pub(super) fn end(&mut self) {
        self.ending = true;
        self.connection.as_mut().graceful_shutdown();
    }
}

impl<C: GracefulConnection> Future for Drained<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        // A connection stays in one task, whose waker does not change. So one registration is enough, and every later
        // poll costs only the check of a flag.
        if !self.waiting {
            self.waiting = true;
            let _ = self.notified.as_mut().poll(cx);
        }
        if !self.ending && self.signal.told.load(Ordering::Acquire) {
            self.end();
        }
        self.connection.as_mut().poll(cx)
    }
}
