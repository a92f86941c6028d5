//! Bounds for states that HTTP/2 lets a peer keep open: a connection without a request, and an answer that is not read.
//!
//! The peer controls the flow: it can answer every ping and never open a window. So two kinds of connections are closed
//! after a time: a connection without a request, and a connection on which an answer waits because the peer does not
//! take its next piece.

use super::drain::Drained;
use crate::base::lazy_sleep::LazySleep;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper_util::server::graceful::GracefulConnection;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// The requests of one connection.
#[derive(Debug, Clone)]
pub(super) struct Streams(Arc<Mutex<Open>>);

#[derive(Debug)]
struct Open {
    requests: usize,
    idle_since: Instant,
    next: u64,
    /// The answers whose next piece the connection has not requested yet: the number of the stream, and the time at
    /// which the answer began to wait.
    untaken: HashMap<u64, Instant>,
}

/// One request, until its answer is sent.
#[derive(Debug)]
pub(super) struct Stream {
    id: u64,
    open: Arc<Mutex<Open>>,
}

impl Streams {
    pub(super) fn new() -> Self {
        let idle_since = Instant::now();
        Self(Arc::new(Mutex::new(Open { requests: 0, idle_since, next: 0, untaken: HashMap::new() })))
    }

    pub(super) fn enter(&self) -> Stream {
        let mut open = self.0.lock();
        open.requests += 1;
        open.next += 1;
        Stream { id: open.next, open: Arc::clone(&self.0) }
    }

    /// Returns true if the connection had no request for too long. The limit is `first` before the first request, and
    /// `idle` after it.
    fn is_idle_for(&self, first: Duration, idle: Duration) -> bool {
        let open = self.0.lock();
        let timeout = if open.next == 0 { first } else { idle };
        open.requests == 0 && open.idle_since.elapsed() >= timeout
    }

    fn has_untaken_for(&self, timeout: Duration) -> bool {
        self.0.lock().untaken.values().any(|since| since.elapsed() >= timeout)
    }
}

impl Stream {
    /// Wraps the answer's body. The wrapper records when the connection requests the next piece.
    pub(super) fn carry<B>(self, body: B) -> Carried<B> {
        self.waits();
        Carried { body, stream: self }
    }

    fn waits(&self) {
        self.open.lock().untaken.insert(self.id, Instant::now());
    }

    fn is_asked(&self) {
        self.open.lock().untaken.remove(&self.id);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        open.untaken.remove(&self.id);
        open.requests -= 1;
        if open.requests == 0 {
            open.idle_since = Instant::now();
        }
    }
}

/// The body of an answer, which records when the connection requests its pieces.
#[derive(Debug)]
pub(super) struct Carried<B> {
    body: B,
    stream: Stream,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Carried<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Self { body, stream } = self.get_mut();
        // A wait for Iluma is not the client's fault, and has its own deadline.
        stream.is_asked();
        let frame = Pin::new(body).poll_frame(cx);
        if matches!(frame, Poll::Ready(Some(Ok(_)))) {
            stream.waits();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that ends when one of its [`StreamTimeouts`] has passed.
pub(super) struct Bounded<C> {
    connection: Drained<C>,
    streams: Streams,
    timeouts: StreamTimeouts,
    alarm: LazySleep,
    look: Instant,
    ending: bool,
}

/// The time limits for the peer of an h2 connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamTimeouts {
    /// The longest time before the first request.
    pub(super) first: Duration,
    /// The longest time without a request after the first one.
    pub(super) idle: Duration,
    /// The longest time for which an answer may wait until the connection requests its next piece.
    pub(super) untaken: Duration,
}

impl StreamTimeouts {
    fn shortest(&self) -> Duration {
        self.first.min(self.idle).min(self.untaken)
    }
}

impl<C> Bounded<C> {
    /// Wraps a connection, and ends it by `timeouts`. `streams` are its requests.
    pub(super) fn new(connection: Drained<C>, streams: Streams, timeouts: StreamTimeouts) -> Self {
        let look = Instant::now() + timeouts.shortest();
        Self { connection, streams, timeouts, alarm: LazySleep::default(), look, ending: false }
    }
}

impl<C: GracefulConnection> Future for Bounded<C> {
    /// The result of the connection; `None` if a time limit cut it off.
    type Output = Option<C::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut self.connection).poll(cx) {
                return Poll::Ready(Some(ended));
            }
            let look = self.look;
            if !self.alarm.poll(cx, look) {
                return Poll::Pending;
            }
            if self.streams.has_untaken_for(self.timeouts.untaken) {
                return Poll::Ready(None);
            }
            if self.streams.is_idle_for(self.timeouts.first, self.timeouts.idle) {
                if self.ending {
                    return Poll::Ready(None);
                }
                self.ending = true;
                self.connection.end();
            }
            self.look = Instant::now() + self.timeouts.shortest();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_idle_and_what_is_untaken_shows_after_its_time() {
        let streams = Streams::new();
        let seconds = Duration::from_secs;
        tokio::time::advance(seconds(10)).await;
        assert!(streams.is_idle_for(seconds(10), seconds(0)) && !streams.is_idle_for(seconds(11), seconds(0)));
        let stream = streams.enter();
        assert!(!streams.is_idle_for(seconds(1), seconds(1)));
        let body = stream.carry(http_body_util::Full::new(Bytes::from_static(b"x")));
        tokio::time::advance(seconds(5)).await;
        assert!(streams.has_untaken_for(seconds(5)) && !streams.has_untaken_for(seconds(6)));
        let mut body = body;
        use http_body_util::BodyExt as _;
        assert!(body.frame().await.is_some());
        assert!(!streams.has_untaken_for(seconds(5)), "the wait for the next piece begins again");
        drop(body);
        assert!(!streams.has_untaken_for(seconds(0)) && streams.is_idle_for(seconds(11), seconds(0)));
    }
}
