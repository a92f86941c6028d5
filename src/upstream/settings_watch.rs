//! Waits for the first SETTINGS of an h2 peer, which limit its concurrent requests (RFC 9113, section 6.5.2).

use futures_util::task::AtomicWaker;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that wakes a task whenever the connection reads from it. The connection reads again only after it has
/// processed the earlier data. So the woken task sees the effect of the earlier data.
#[derive(Debug)]
pub(super) struct SettingsWatch<I> {
    inner: I,
    reads: Arc<AtomicWaker>,
}

impl<I> SettingsWatch<I> {
    /// Wraps a stream. The task that registers itself with the returned waker is woken.
    pub(super) fn new(inner: I) -> (Self, Arc<AtomicWaker>) {
        let reads = Arc::new(AtomicWaker::new());
        (Self { inner, reads: Arc::clone(&reads) }, reads)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for SettingsWatch<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.reads.wake();
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for SettingsWatch<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
