//! Lets connections end between two requests.

use hyper_util::server::graceful::GracefulConnection;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Tells connections to end. Clones tell the same ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Drain(Arc<Signal>);

#[derive(Debug, Default)]
struct Signal {
    told: AtomicBool,
    notify: Arc<Notify>,
}

impl Drain {
    /// Tells every connection, those that come later too.
    pub(super) fn tell(&self) {
        self.0.told.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    /// Runs what has not become a connection yet; none if it was told to end before that was done.
    pub(super) async fn unless_told<F: Future>(&self, future: F) -> Option<F::Output> {
        let told = Arc::clone(&self.0.notify).notified_owned();
        if self.0.told.load(Ordering::Acquire) {
            return None;
        }
        tokio::select! {
            () = told => None,
            output = future => Some(output),
        }
    }

    /// A connection that ends when told, after the request that it is at.
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

/// A connection that can be told to end.
pub(super) struct Drained<C> {
    connection: Pin<Box<C>>,
    signal: Arc<Signal>,
    notified: Pin<Box<OwnedNotified>>,
    waiting: bool,
    ending: bool,
}

impl<C: GracefulConnection> Drained<C> {
    /// Ends the connection after the requests that it is at.
    pub(super) fn end(&mut self) {
        self.ending = true;
        self.connection.as_mut().graceful_shutdown();
    }
}

impl<C: GracefulConnection> Future for Drained<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        // A task is woken by one waker for its whole life, so one registration is enough: every poll but the first
        // pays for a flag alone.
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
