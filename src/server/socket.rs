//! A client's socket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// The first bytes of an HTTP/2 connection in clear with prior knowledge (RFC 9113, section 3.4). No HTTP/1.1 method
/// begins with these bytes.
const PREFACE: &[u8; 3] = b"PRI";

/// A client's socket. A reset by the client is noticed even while the protocol does not read. A client that closed only
/// its sending side still waits for its answer; a client that reset the connection does not.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    /// Bytes that were read to recognise the protocol. The protocol still has to read the bytes from `next` to `end`.
    first: [u8; PREFACE.len()],
    next: usize,
    end: usize,
}

/// Watches a socket for a reset.
#[derive(Debug, Clone)]
pub(super) struct ResetWatch(Arc<TcpStream>);

impl ResetWatch {
    /// Waits until the peer has reset the connection.
    pub(super) async fn reset(&self) {
        // An error of the watch counts as a reset.
        let _ = self.0.ready(Interest::ERROR).await;
    }
}

/// A stream that can end with a reset, which no peer mistakes for the end of an answer.
pub(super) trait Resets {
    /// Makes the stream end with a reset when it is closed.
    fn reset(&self);
}

impl Resets for Socket {
    fn reset(&self) {
        // If this fails, the stream is closed already.
        let _ = self.stream.set_zero_linger();
    }
}

impl Resets for TlsStream<Socket> {
    fn reset(&self) {
        self.get_ref().0.reset();
    }
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream: Arc::new(stream), first: [0; PREFACE.len()], next: 0, end: 0 }
    }

    pub(super) fn watch(&self) -> ResetWatch {
        ResetWatch(Arc::clone(&self.stream))
    }

    /// Returns true if the client speaks HTTP/2. Waits for the bytes that show this; they may arrive one by one.
    ///
    /// # Errors
    /// Returns an error if the connection broke before the bytes arrived.
    pub(super) async fn begins_with_preface(&mut self) -> io::Result<bool> {
        while PREFACE.starts_with(&self.first[..self.end]) && self.end < PREFACE.len() {
            self.stream.readable().await?;
            match self.stream.try_read(&mut self.first[self.end..]) {
                Ok(0) => break,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.first[..self.end] == *PREFACE)
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.next < self.end {
            let count = buf.remaining().min(self.end - self.next);
            buf.put_slice(&self.first[self.next..self.next + count]);
            self.next += count;
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let room = buf.remaining();
            let mut read = None;
            // A read that did not fill the buffer has emptied the socket: reporting that saves the next read, as in
            // tokio's own streams.
            let tried = self.stream.try_io(Interest::READABLE, || {
                let count = self.stream.try_read_buf(buf)?;
                read = Some(count);
                if count > 0 && count < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match tried {
                _ if read.is_some() => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                tried => return Poll::Ready(tried),
            }
        }
    }
}

impl Socket {
    fn write(&self, cx: &mut Context<'_>, write: impl Fn(&TcpStream) -> io::Result<usize>) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match socket2::SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write) {
            // The peer closed the connection first.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            shut => Poll::Ready(shut),
        }
    }
}
