//! The fingerprint of a request's body, made while the body is read or forwarded.
//!
//! Two requests under one idempotency key are the same if their fingerprints are the same. Invariants: a multipart body
//! is compared part by part, any other body byte by byte; the body passes unchanged; to find the persons of the
//! request, at most [`LARGEST_BODY`] bytes are held, if there is room for them.

use super::body::{BodyError, LARGEST_BODY};
use super::content_type::{self, Charset, Kind};
use super::multipart::Rewriter;
use super::pieces::Pieces;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body::{Body, Frame, SizeHint};
use sha2::{Digest as _, Sha256};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

/// The fingerprint of a body that arrived whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// The hash of the parts of a multipart body, or of all bytes of any other body. A malformed multipart body is
    /// hashed by its bytes too.
    pub hash: [u8; 32],
    /// The number of bytes in the body.
    pub length: u64,
    /// The part of the body in which persons can be found.
    pub readable: Readable,
}

/// The part of a body in which persons can be found.
#[derive(Clone, PartialEq, Eq)]
pub enum Readable {
    /// The whole body.
    Text(Bytes),
    /// The fields of a form with files: names and values.
    Fields(Vec<(String, String)>),
    /// Nothing: the body is too large, could not be held for lack of room, is encoded, has an unsupported charset, or
    /// is malformed multipart.
    Nothing,
}

/// The fingerprint of a body that is still arriving. Code that no longer has the body reads it here.
#[derive(Default)]
pub struct Fingerprinting {
    length: AtomicU64,
    made: OnceLock<Fingerprint>,
}

impl Fingerprinting {
    /// Returns the fingerprint; `None` until the whole body has arrived.
    #[must_use]
    pub fn made(&self) -> Option<&Fingerprint> {
        self.made.get()
    }

    /// Returns the number of bytes that have arrived.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }
}

/// A body that is forwarded unchanged. If wanted, its fingerprint is made while it passes.
pub struct FingerprintedBody<B> {
    body: B,
    maker: Option<Box<Maker>>,
}

/// A function that returns true if the gateway may hold this number of further bytes.
type Room = Box<dyn FnMut(usize) -> bool + Send + Sync>;

struct Maker {
    bytes: Sha256,
    /// Reads the parts of a multipart body; `None` for other bodies, and once the body is malformed.
    parts: Option<Box<Rewriter>>,
    /// The pieces that have arrived; `None` if they are not held.
    held: Option<Vec<Bytes>>,
    room: Room,
    result: Arc<Fingerprinting>,
}

impl<B: Body<Data = Bytes>> FingerprintedBody<B> {
    /// Wraps a body that is forwarded without a fingerprint.
    pub const fn plain(body: B) -> Self {
        Self { body, maker: None }
    }

    /// Wraps a body that is forwarded, and makes its fingerprint, which the second value shows. `room` is called before
    /// further bytes are held. If it returns false, the fingerprint has [nothing readable](Readable::Nothing).
    pub fn new(headers: &HeaderMap, body: B, room: Room) -> (Self, Arc<Fingerprinting>) {
        let (parts, held) = match Kind::with_charset(headers) {
            Ok((Kind::Multipart(boundary), _)) => (Some(Box::new(Rewriter::hash(&boundary))), None),
            // Persons can't be found in another charset, or in an encoded body.
            Ok((Kind::Json | Kind::Form, Charset::Other)) | Err(BodyError::Encoded) => (None, None),
            Ok((Kind::Json | Kind::Form, Charset::Utf8 | Charset::Ascii)) | Err(_) => (None, Some(Vec::new())),
        };
        let result = Arc::<Fingerprinting>::default();
        let maker = Maker { bytes: Sha256::new(), parts, held, room, result: Arc::clone(&result) };
        let mut body = Self { body, maker: Some(Box::new(maker)) };
        body.finish_if_ended();
        (body, result)
    }

    fn finish_if_ended(&mut self) {
        if let Some(maker) = self.maker.take_if(|_| self.body.is_end_stream()) {
            maker.finish();
        }
    }
}

impl Maker {
    fn see(&mut self, data: &Bytes) {
        let before = self.result.length.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.bytes.update(data);
        let is_malformed = |parts: &mut Box<Rewriter>| parts.feed(data.clone(), &mut Pieces::default()).is_err();
        drop(self.parts.take_if(is_malformed));
        let fits = before.saturating_add(data.len() as u64) <= LARGEST_BODY as u64;
        match &mut self.held {
            Some(held) if fits && (self.room)(data.len()) => held.push(data.clone()),
            held => *held = None,
        }
    }

    fn finish(self) {
        let bytes: [u8; 32] = self.bytes.finalize().into();
        let parts = self.parts.and_then(|parts| parts.hashed());
        let (hash, readable) = match (parts, self.held) {
            (Some((hash, fields)), _) => (Sha256::digest([&b"parts"[..], &hash].concat()), Readable::Fields(fields)),
            (None, held) => {
                let readable = held.map_or(Readable::Nothing, |held| Readable::Text(held.concat().into()));
                (Sha256::digest([&b"bytes"[..], &bytes].concat()), readable)
            }
        };
        // The body ends only once, so no fingerprint was set before.
        let _ = self.result.made.set(Fingerprint { hash: hash.into(), length: self.result.length(), readable });
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for FingerprintedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(maker) = &mut this.maker {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        maker.see(data);
                    }
                    this.finish_if_ended();
                }
                Some(Err(_)) => this.maker = None,
                None => {
                    if let Some(maker) = this.maker.take() {
                        maker.finish();
                    }
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Returns a request's content type for a comparison of requests: in lower case and without parameters. A missing type
/// is `application/json`.
#[must_use]
pub fn content_class(headers: &HeaderMap) -> Vec<u8> {
    let kind = headers.get(CONTENT_TYPE).map(|value| content_type::essence(value).to_ascii_lowercase());
    // A body without a type is JSON, as Iluma reads it.
    kind.unwrap_or_else(|| b"application/json".to_vec())
}

impl<B> std::fmt::Debug for FingerprintedBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FingerprintedBody").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Fingerprinting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A log must not contain a person.
        f.debug_struct("Fingerprinting").field("length", &self.length()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use std::io;

    fn headers(kind: &str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())])
    }

    /// Returns the fingerprint of a body that arrives in pieces of `size` bytes.
    async fn made(kind: &str, body: &str, size: usize) -> Option<Fingerprint> {
        let pieces = body.as_bytes().chunks(size.max(1)).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))));
        let body = StreamBody::new(stream::iter(pieces.collect::<Vec<io::Result<_>>>()));
        let (body, result) = FingerprintedBody::new(&headers(kind), body, Box::new(|_| true));
        assert!(result.made().is_none());
        let _ = body.collect().await.unwrap();
        result.made().cloned()
    }

    fn parts(boundary: &str, parts: &[(&str, &str)]) -> String {
        let part = |(head, value): &(&str, &str)| format!("--{boundary}\r\n{head}\r\n\r\n{value}\r\n");
        format!("{}--{boundary}--\r\n", parts.iter().map(part).collect::<String>())
    }

    async fn of_parts(boundary: &str, all: &[(&str, &str)], size: usize) -> Fingerprint {
        made(&format!("multipart/form-data; boundary={boundary}"), &parts(boundary, all), size).await.unwrap()
    }

    const NAME: (&str, &str) = ("Content-Disposition: form-data; name=\"name\"", "Contoh Demo");
    const FILE: (&str, &str) = (
        "Content-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\nContent-Type: image/png",
        "\r\n--x\r\n",
    );

    #[tokio::test]
    async fn a_multipart_body_is_its_parts_and_not_its_framing() {
        let first = of_parts("aaa", &[NAME, FILE], 4096).await;
        assert!(first.readable == Readable::Fields(vec![("name".into(), "Contoh Demo".into())]));
        for (boundary, size) in [("aaa", 1), ("b", 4096), ("----WebKitFormBoundary7MA4YWxkTrZu0gW", 7)] {
            assert!(of_parts(boundary, &[NAME, FILE], size).await.hash == first.hash, "{boundary} {size}");
        }
        let spelled = ("content-disposition:form-data ;name=name\r\nX-Other: 1", "Contoh Demo");
        assert!(of_parts("aaa", &[spelled, FILE], 4096).await.hash == first.hash);
        for other in [
            [FILE, NAME],
            [("Content-Disposition: form-data; name=\"name2\"", "Contoh Demo"), FILE],
            [("Content-Disposition: form-data; name=\"name\"", "Contoh Dem"), FILE],
            [NAME, (FILE.0, "\r\n--x\r")],
            [
                NAME,
                (
                    "Content-Disposition: form-data; name=\"image\"; filename=\"b.png\"\r\nContent-Type: image/png",
                    FILE.1,
                ),
            ],
            [
                NAME,
                (
                    "Content-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\nContent-Type: image/bmp",
                    FILE.1,
                ),
            ],
            [NAME, ("Content-Disposition: form-data; name=\"image\"; filename=\"a.png\"", FILE.1)],
        ] {
            assert!(of_parts("aaa", &other, 4096).await.hash != first.hash, "{other:?}");
        }
    }

    #[tokio::test]
    async fn any_other_body_is_its_bytes() {
        let first = made("application/json", r#"{"nik":"1"}"#, 3).await.unwrap();
        assert!(first.readable == Readable::Text(r#"{"nik":"1"}"#.into()));
        assert_eq!(first.length, 11);
        assert!(made("application/json", r#"{"nik":"1"}"#, 99).await.unwrap() == first);
        assert!(made("application/json", r#"{"nik": "1"}"#, 99).await.unwrap().hash != first.hash);
        // A multipart body that can't be read is compared by its bytes.
        let odd = made("multipart/form-data; boundary=a", "--a\r\nodd", 2).await.unwrap();
        assert!(odd.hash != made("multipart/form-data; boundary=a", "--a\r\nodd ", 2).await.unwrap().hash);
        assert!(odd.hash == made("multipart/form-data; boundary=b", "--a\r\nodd", 5).await.unwrap().hash);
    }

    #[tokio::test]
    async fn a_body_without_a_frame_ends_at_once() {
        let (_, result) = FingerprintedBody::new(&HeaderMap::new(), Full::new(Bytes::new()), Box::new(|_| true));
        assert_eq!(result.made().map(|made| made.length), Some(0));
    }

    #[tokio::test]
    async fn what_is_too_large_or_has_no_room_is_hashed_and_not_held() {
        let large = "x".repeat(LARGEST_BODY + 1);
        let made = made("text/plain", &large, 1 << 16).await.unwrap();
        assert!(made.readable == Readable::Nothing);
        assert_eq!(made.length, large.len() as u64);
        let body = Full::new(Bytes::from_static(b"{}"));
        let (body, result) = FingerprintedBody::new(&HeaderMap::new(), body, Box::new(|_| false));
        let _ = body.collect().await.unwrap();
        assert!(result.made().unwrap().readable == Readable::Nothing);
    }
}
