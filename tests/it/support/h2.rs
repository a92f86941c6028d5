//! HTTP/2: a client, and handmade frames (RFC 9113) that a well-behaved client can't send.

#![allow(clippy::disallowed_methods, reason = "what a test waits for takes real time, and its tasks end with it")]

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use tokio::io::{AsyncRead, AsyncWrite};

/// Returns one HTTP/2 frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).expect("a length").to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Returns an uncompressed header block of a GET of `path` with an `authorization` header.
pub fn block(path: &str, authorization: &str) -> Vec<u8> {
    // The block has indexed :method GET and :scheme http, then literals without indexing (RFC 7541, section 6.2.2).
    let mut block = vec![0x82, 0x86, 0x04];
    block.push(u8::try_from(path.len()).expect("a short path"));
    block.extend(path.as_bytes());
    for (name, value) in [("authorization", authorization)] {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "needs a longer length");
            block.push(u8::try_from(text.len()).expect("a short text"));
            block.extend(text.as_bytes());
        }
    }
    block
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const HEADERS: u8 = 1;
pub const RST: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const CONTINUATION: u8 = 9;

/// A request's body: one piece, or frames.
pub type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// Opens an HTTP/2 connection over a stream. It is open until the returned sender is dropped.
pub async fn speak<S>(stream: S) -> http2::SendRequest<AnyBody>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("an h2 connection");
    tokio::spawn(connection);
    sender
}

/// Returns a body that is one piece.
pub fn whole(body: impl Into<Bytes>) -> AnyBody {
    Full::new(body.into()).boxed_unsync()
}

/// Returns a body of these frames.
pub fn frames(frames: Vec<Frame<Bytes>>) -> AnyBody {
    StreamBody::new(futures_util::stream::iter(frames.into_iter().map(Ok))).boxed_unsync()
}
