//! A guard around a client's stream, for slow and stuck clients.
//!
//! It disconnects a peer that reads nothing, makes a broken answer recognisable, and gives the peer time to read a
//! refusal.

use super::signs::Signs;
use super::socket::Resets;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// The longest time for which a peer may continue to send after the last byte of the answer.
const LINGER: Duration = Duration::from_secs(2);
/// The largest number of bytes that a peer may send after the last byte of the answer.
const MOST_LINGERED: usize = 16 << 20;

/// A stream whose writes fail if the peer takes no byte for `timeout`. After a broken answer, dropping the stream
/// resets the connection. A normal close first discards data that the peer still sends, for a bounded time and number
/// of bytes. A close while data arrives would reset the connection, and the client could lose a refusal.
#[derive(Debug)]
pub(super) struct StallGuard<I: Resets> {
    stream: I,
    timeout: Duration,
    /// The timer that runs while a write waits; `None` until a write has waited.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    signs: Signs,
    /// The timer of the lingering close, in which nothing is sent and received data is discarded; `None` before the
    /// close.
    lingering: Option<Pin<Box<Sleep>>>,
    lingered: usize,
}

impl<I: Resets> Drop for StallGuard<I> {
    fn drop(&mut self) {
        if self.signs.is_broken() {
            self.stream.reset();
        }
    }
}

impl<I: Resets> StallGuard<I> {
    pub(super) fn new(stream: I, timeout: Duration, signs: Signs) -> Self {
        Self { stream, timeout, timer: None, waiting: false, signs, lingering: None, lingered: 0 }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = false;
            return written;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.timeout)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(Instant::now() + self.timeout);
        }
        timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Resets + Unpin> AsyncRead for StallGuard<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.signs.note_arrival();
        }
        read
    }
}

impl<I: AsyncRead + Resets + Unpin> StallGuard<I> {
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let end = self.lingering.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut piece = [0; 4096];
        while self.lingered < MOST_LINGERED {
            let mut piece = ReadBuf::new(&mut piece);
            match Pin::new(&mut self.stream).poll_read(cx, &mut piece) {
                Poll::Ready(Ok(())) if !piece.filled().is_empty() => self.lingered += piece.filled().len(),
                // The stream has ended, with or without an error.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return end.as_mut().poll(cx).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Resets + Unpin> AsyncWrite for StallGuard<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
            ready!(self.watch(cx, shut))?;
        }
        self.linger(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    impl Resets for tokio::io::DuplexStream {
        fn reset(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_cut_off_and_a_slow_one_is_not() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut guarded = StallGuard::new(ours, Duration::from_secs(10), Signs::default());
        let slow = async {
            let mut taken = [0; 1];
            for _ in 0..24 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                theirs.read_exact(&mut taken).await.unwrap();
            }
            theirs
        };
        let (written, theirs) = tokio::join!(guarded.write_all(&[0; 32]), slow);
        assert!(written.is_ok());
        let error = guarded.write_all(&[0; 32]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(theirs);
    }
}
