//! A connection that a request can break.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// The bytes that a `garbage` fault sends.
const GARBAGE: &[u8] = b"\x00\x16\xfe\xffthis is no HTTP\r\n\x07\x1b\xee 200 maybe\r\n\r\n";

/// A way to break a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Reset,
    Garbage,
}

/// A handle with which a request breaks its own connection.
#[derive(Debug, Default)]
pub(super) struct Line {
    cut: OnceLock<Cut>,
    pub(super) fired: CancellationToken,
}

impl Line {
    /// Ends the connection in the way `how`. Only the first call decides the way.
    pub(super) fn cut(&self, how: Cut) {
        let _ = self.cut.set(how);
        self.fired.cancel();
    }
}

/// A socket that carries out the requested [`Cut`] when it is dropped.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    pub(super) line: Arc<Line>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        // A failure here means that the peer closed the connection already.
        match self.line.cut.get() {
            Some(Cut::Reset) => {
                let _ = self.stream.set_zero_linger();
            }
            Some(Cut::Garbage) => {
                let _ = self.stream.try_write(GARBAGE);
            }
            None => {}
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
