//! The body of an answer from Iluma, streamed or read whole.

use super::connection::{Http1, Http2};
use super::credential::{Credential, Mask};
use super::error::CallError;
use super::exchange::Source;
use super::pool::Pool;
use crate::base::bounded_body::{self, NotWhole};
use crate::base::lazy_sleep::LazySleep;
use bytes::{Buf as _, Bytes};
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, ETAG};
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// The largest answer, in bytes, that is read into memory as a whole. A thousand watchlist matches fit into it.
const LARGEST_ANSWER: usize = 8 << 20;

/// An answer's body as it arrives. An h1 connection returns to the pool with the last byte. If the body is dropped
/// earlier, that connection is closed.
#[derive(Debug)]
pub struct AnswerBody {
    incoming: Incoming,
    /// The h1 connection, which this body drives. `None` for h2, and after the connection has returned to the pool or
    /// has failed.
    connection: Option<Box<Http1>>,
    /// The h2 connection, which counts this body as one of its requests; `None` for h1.
    share: Option<Arc<Http2>>,
    pool: Arc<Pool>,
    mask: Option<Mask>,
    /// Trailers that arrived while the mask still held back some of the data before them.
    trailers: Option<HeaderMap>,
    /// True if the answer has a content encoding. Secrets can't be found in an encoded body.
    encoded: bool,
    idle: Duration,
    waiting_since: Option<Instant>,
    alarm: LazySleep,
}

/// The reason why an answer's body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The connection broke.
    #[error("the answer was cut off")]
    Truncated,
    /// No data arrived within the idle time.
    #[error("the answer stalled")]
    Stalled,
}

impl AnswerBody {
    pub(super) fn new(source: Source, pool: Arc<Pool>, idle: Duration, head: &Parts) -> Self {
        let (incoming, connection, share) = match source {
            Source::Http1(incoming, connection) => (incoming, Some(connection), None),
            Source::Http2(incoming, share) => (incoming, None, Some(share)),
        };
        let encoded = is_encoded(&head.headers);
        let alarm = LazySleep::default();
        let mut body = Self {
            incoming,
            connection,
            share,
            pool,
            mask: None,
            trailers: None,
            encoded,
            idle,
            waiting_since: None,
            alarm,
        };
        body.give_back_if_done();
        body
    }

    /// Hides all secrets in an answer. Header fields with a secret are removed at once. In the body the secrets are
    /// masked while it streams.
    pub(super) fn hide(response: &mut Response<Self>, credential: &Arc<Credential>) {
        credential.clean(response.headers_mut());
        // The body may be plain although the head names an encoding. A body that is really encoded has no secret that
        // can be found.
        response.body_mut().mask = Some(Mask::new(credential));
    }

    /// Returns true if the answer came in a content encoding.
    #[must_use]
    pub const fn is_encoded(&self) -> bool {
        self.encoded
    }

    fn give_back_if_done(&mut self) {
        if self.incoming.is_end_stream()
            && let Some(connection) = self.connection.take()
        {
            self.pool.keep(connection);
        }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let frame = match &mut self.connection {
            None => Pin::new(&mut self.incoming).poll_frame(cx),
            Some(connection) => {
                // Driving the connection brings the data, and registers this task for a wake-up. A second wake-up by
                // the body would be useless, so the body gets a waker that does nothing.
                let mut unwoken = Context::from_waker(Waker::noop());
                let mut frame = Pin::new(&mut self.incoming).poll_frame(&mut unwoken);
                if frame.is_pending() {
                    connection.drive(cx);
                    frame = Pin::new(&mut self.incoming).poll_frame(&mut unwoken);
                }
                frame
            }
        };
        match frame {
            Poll::Pending => {
                let since = *self.waiting_since.get_or_insert_with(Instant::now);
                let alarm = self.connection.as_mut().map_or(&mut self.alarm, |connection| &mut connection.alarm);
                if alarm.poll(cx, since + self.idle) {
                    self.connection = None;
                    return Poll::Ready(Some(Err(AnswerError::Stalled)));
                }
                Poll::Pending
            }
            Poll::Ready(frame) => {
                self.waiting_since = None;
                match &frame {
                    Some(Ok(_)) => self.give_back_if_done(),
                    Some(Err(_)) => self.connection = None,
                    // hyper reports a stream that was reset with NO_ERROR as the end of the body. Only with END_STREAM
                    // is the body whole.
                    None if self.share.is_some() && !self.incoming.is_end_stream() => {
                        return Poll::Ready(Some(Err(AnswerError::Truncated)));
                    }
                    None => {
                        if let Some(connection) = self.connection.take() {
                            self.pool.keep(connection);
                        }
                    }
                }
                Poll::Ready(frame.map(|frame| frame.map_err(|_| AnswerError::Truncated)))
            }
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let this = self.get_mut();
        loop {
            if let Some(trailers) = this.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            let frame = std::task::ready!(this.poll_incoming(cx));
            let Some(mask) = &mut this.mask else { return Poll::Ready(frame) };
            let passed = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if this.incoming.is_end_stream() => mask.last(data),
                    Ok(data) => mask.pass(data),
                    Err(frame) => {
                        this.trailers = frame.into_trailers().ok().map(|mut trailers| {
                            mask.clean(&mut trailers);
                            trailers
                        });
                        mask.rest()
                    }
                },
                None if mask.held() > 0 => mask.rest(),
                end => return Poll::Ready(end),
            };
            if !passed.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(passed))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let held = self.mask.as_ref().map_or(0, Mask::held);
        self.incoming.is_end_stream() && held == 0 && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.mask.as_ref().map_or(0, Mask::held) as u64;
        match self.incoming.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + held),
            None => SizeHint::default(),
        }
    }
}

/// An answer that was read whole, in identity encoding.
#[derive(Debug, Clone)]
pub struct Collected {
    /// The status.
    pub status: StatusCode,
    /// The head. If the body was decoded, the fields that described the encoded body are removed.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Reads an answer whole, up to 8 MiB, within the time `total`. Decodes the body if it has a content encoding, and then
/// masks the secrets of `credential` in it.
///
/// # Errors
/// Returns an error if the answer is cut off, too large, too slow, or in an encoding that can't be decoded.
pub async fn collect(
    response: Response<AnswerBody>,
    credential: Option<&Arc<Credential>>,
    total: Duration,
) -> Result<Collected, CallError> {
    let (parts, body) = response.into_parts();
    let mut encoded = body.encoded;
    let body = tokio::time::timeout(total, read(body)).await.unwrap_or(Err(CallError::TimedOut))?;
    // An answer to HEAD has the encoding's name and no body.
    encoded &= !body.is_empty();
    let mut headers = parts.headers;
    let body = if encoded {
        let decoded = decode(&headers, &body).ok_or(CallError::Garbled)?;
        for name in [CONTENT_ENCODING, CONTENT_LENGTH, ETAG] {
            headers.remove(name);
        }
        headers.remove("digest");
        headers.remove("content-digest");
        headers.remove("content-md5");
        credential.map_or(decoded.clone(), |credential| credential.cover(decoded))
    } else {
        body
    };
    Ok(Collected { status: parts.status, headers, body })
}

/// Returns a copy of an answer's body without its content encoding; `None` if it can't be decoded.
#[must_use]
pub fn decoded(headers: &HeaderMap, body: &Bytes) -> Option<Bytes> {
    if is_encoded(headers) { decode(headers, body) } else { Some(body.clone()) }
}

async fn read(body: AnswerBody) -> Result<Bytes, CallError> {
    // The body bounds the wait for each of its pieces itself.
    bounded_body::read(body, LARGEST_ANSWER, None, |_| true).await.map_err(|error| match error {
        NotWhole::TooLarge | NotWhole::NoRoom => CallError::TooLarge,
        NotWhole::TooSlow | NotWhole::Broken(AnswerError::Stalled) => CallError::TimedOut,
        NotWhole::Broken(AnswerError::Truncated) => CallError::Truncated,
    })
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|v| !v.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

/// Decodes a body with one encoding: gzip, deflate or br. Returns `None` for another encoding, for more than one
/// encoding, and for a body that is malformed or too large once it is decoded.
fn decode(headers: &HeaderMap, body: &Bytes) -> Option<Bytes> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    let encoding = encodings.next()?.to_str().ok()?.trim().to_ascii_lowercase();
    if encodings.next().is_some() {
        return None;
    }
    let most = LARGEST_ANSWER as u64 + 1;
    let mut decoded = Vec::new();
    match encoding.as_str() {
        "gzip" | "x-gzip" => GzDecoder::new(body.clone().reader()).take(most).read_to_end(&mut decoded).ok()?,
        // By the standard, `deflate` is the zlib format. Many servers send raw deflate data instead.
        "deflate" => match ZlibDecoder::new(body.clone().reader()).take(most).read_to_end(&mut decoded) {
            Ok(length) => length,
            Err(_) => {
                decoded.clear();
                DeflateDecoder::new(body.clone().reader()).take(most).read_to_end(&mut decoded).ok()?
            }
        },
        "br" => brotli_decompressor::Decompressor::new(body.clone().reader(), 4096)
            .take(most)
            .read_to_end(&mut decoded)
            .ok()?,
        _ => return None,
    };
    (decoded.len() <= LARGEST_ANSWER).then(|| decoded.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use std::io::Write as _;

    fn decoded(encoding: &str, body: &[u8]) -> Option<Bytes> {
        let headers = HeaderMap::from_iter([(CONTENT_ENCODING, encoding.parse().unwrap())]);
        decode(&headers, &Bytes::copy_from_slice(body))
    }

    #[test]
    fn gzip_and_both_kinds_of_deflate_are_undone_within_the_bound() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(b"answer").unwrap();
        assert_eq!(decoded("GZip", &gzip.finish().unwrap()).as_deref(), Some(&b"answer"[..]));
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(b"answer").unwrap();
        assert_eq!(decoded("deflate", &zlib.finish().unwrap()).as_deref(), Some(&b"answer"[..]));
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(b"answer").unwrap();
        assert_eq!(decoded("deflate", &raw.finish().unwrap()).as_deref(), Some(&b"answer"[..]));
        let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
        bomb.write_all(&vec![0; LARGEST_ANSWER + 1]).unwrap();
        assert_eq!(decoded("gzip", &bomb.finish().unwrap()), None);
        assert_eq!(decoded("br", b"\x1b\x05\x00\xf8\x25\x00\x82\x90\xc8\x64").as_deref(), Some(&b"answer"[..]));
        assert_eq!(decoded("br", b"x"), None);
        assert_eq!(decoded("zstd", b"x"), None);
        assert_eq!(decoded("gzip", b"not gzip"), None);
    }
}
