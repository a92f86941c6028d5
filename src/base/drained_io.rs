//! A stream that yields all received data before it reports that a write failed.
//!
//! A server may answer early, for example with 413 or 401, and close while the request is still being sent. The next
//! write fails then, but the answer has arrived: it is in the socket's buffer, and worth more than the error.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that reports a failed write only once all received data was read. After the failure nothing more is
/// written, so the sender of a large body stops.
#[derive(Debug)]
pub struct DrainedIo<I> {
    inner: I,
    state: State,
}

/// The state of a [`DrainedIo`]. The value is the kind of the write's error.
#[derive(Debug, Clone, Copy)]
enum State {
    /// No write has failed.
    Open,
    /// A write has failed, and the received data is being read.
    Draining(io::ErrorKind),
    /// A write has failed, and everything was read.
    Drained(io::ErrorKind),
}

impl<I> DrainedIo<I> {
    /// Wraps a stream.
    pub const fn new(inner: I) -> Self {
        Self { inner, state: State::Open }
    }
}

impl<I: Unpin> DrainedIo<I> {
    /// Calls `write` as long as no write has failed. The first failure wakes the task, so that the task reads the
    /// received data. Until that data is read, writes stay pending; afterwards they return the error.
    fn write<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut I>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match self.state {
            State::Open => match write(Pin::new(&mut self.inner), cx) {
                Poll::Ready(Err(error)) => {
                    self.state = State::Draining(error.kind());
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                other => other,
            },
            State::Draining(_) => Poll::Pending,
            State::Drained(kind) => Poll::Ready(Err(kind.into())),
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for DrainedIo<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let State::Draining(kind) = self.state else { return read };
        // A socket that can't be written to also reports its end to the reader. At that end, all received data has been
        // read.
        match &read {
            Poll::Ready(Ok(())) if buf.filled().len() > before => {}
            Poll::Ready(_) => self.state = State::Drained(kind),
            Poll::Pending => {}
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for DrainedIo<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, |inner, cx| inner.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |inner, cx| inner.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.state {
            State::Open => Pin::new(&mut self.inner).poll_shutdown(cx),
            State::Draining(_) | State::Drained(_) => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A stream that yields some bytes before its end, and refuses every write.
    struct Reset(&'static [u8]);

    impl AsyncRead for Reset {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let (now, later) = self.0.split_at(buf.remaining().min(self.0.len()));
            buf.put_slice(now);
            self.0 = later;
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Reset {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_arrived_is_read_before_a_failed_write_shows() {
        let (mut reader, mut writer) = tokio::io::split(DrainedIo::new(Reset(b"answer")));
        let mut read = [0; 6];
        tokio::select! {
            biased;
            written = writer.write_all(b"body") => panic!("{written:?}"),
            () = std::future::ready(()) => {}
        }
        reader.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"answer");
        assert_eq!(reader.read(&mut read).await.unwrap(), 0);
        assert_eq!(writer.write(b"body").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
