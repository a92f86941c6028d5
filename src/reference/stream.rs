//! Request bodies that are scanned or prefixed while they are forwarded.
//!
//! Invariants: no byte of a piece passes before the whole piece was scanned; a refused body is cut off before its end,
//! so Iluma never has it whole; memory is bounded for any size of the body.

use super::body::BodyError;
use super::boundary::Boundary;
use super::content_type::Encoding;
use super::foreign_prefix::ForeignPrefixScanner;
use super::multipart::Rewriter;
use super::pieces::Pieces;
use super::prefix::{ReferencePrefix, ReferencePrefixes};
use super::scan::{self, BodyScanner, EncodedBody};
use crate::base::json_template::Absent;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

/// A client's body that is forwarded to Iluma through a filter.
pub struct FilteredBody<B> {
    body: B,
    filter: Filter,
    out: Pieces,
    trailers: Option<HeaderMap>,
    stage: Stage,
    outcome: Arc<Outcome>,
    /// The work for which the end of the body waits; `None` if it waits for nothing. The lock only makes the body
    /// `Sync`, as its users require; no other task takes it.
    held: Mutex<Option<Work>>,
}

enum Filter {
    Multipart(Box<Rewriter>),
    Scanner(Box<BodyScanner>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// More data may come.
    Open,
    /// The whole body has arrived, and its end waits for the work of [`Outcome::before_end`].
    Held,
    /// The whole body has arrived, and it may pass.
    Ended,
    /// The body is refused, and the next poll reports the error.
    Failing(BodyError),
    /// The error was reported.
    Failed,
}

/// Work that a body waits for.
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
/// A function that makes the work for a caller's reference, given as JSON text.
type ToWork = Box<dyn FnOnce(Bytes) -> Work + Send>;

/// The result of a forwarded body. Code that no longer has the body reads it here.
#[derive(Default)]
pub struct Outcome {
    result: OnceLock<Result<Option<Bytes>, BodyError>>,
    before_end: Mutex<Option<ToWork>>,
}

impl Outcome {
    /// Holds back the end of the body until the future that `work` returns is done, so that Iluma gets the whole body
    /// only then. `work` gets the caller's reference as JSON text. It is not called if the caller gives no reference,
    /// or if the body has ended already.
    pub fn before_end(&self, work: impl FnOnce(Bytes) -> Work + Send + 'static) {
        *self.before_end.lock() = Some(Box::new(work));
    }

    /// Returns the result of the body. It is `None` until the body has ended or was cut off, and stays `None` if the
    /// body is dropped before. `Ok` has the caller's reference as JSON text with its quotes, or `None` if the caller
    /// gave none or the body is not multipart. `Err` has the reason why the body was cut off.
    #[must_use]
    pub fn result(&self) -> Option<Result<Option<Bytes>, BodyError>> {
        self.result.get().cloned()
    }

    fn settle(&self, result: Result<Option<Bytes>, BodyError>) {
        // Only the first result counts.
        let _ = self.result.set(result);
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A log must not contain a reference.
        f.debug_tuple("Outcome").field(&self.result.get().map(|result| result.as_ref().map(|_| "…"))).finish()
    }
}

impl<B> fmt::Debug for FilteredBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilteredBody").field("stage", &self.stage).finish_non_exhaustive()
    }
}

/// The error that cut a body off. The variant names the side that caused it.
#[derive(Debug, thiserror::Error)]
pub enum StreamError<E> {
    /// The gateway refused the body.
    #[error(transparent)]
    Refused(BodyError),
    /// The client cut the body off.
    #[error("the request body was cut off")]
    Client(#[source] E),
}

impl<B> FilteredBody<B>
where
    B: Body<Data = Bytes>,
{
    /// Wraps a multipart body and prefixes its reference. The forwarded request must not declare a length, because the
    /// new length is not known in advance. If the body has no reference, `absent` decides whether it gets the bare
    /// prefix.
    pub fn prefix(body: B, boundary: &Boundary, prefix: ReferencePrefix, absent: Absent) -> Self {
        Self::new(body, Filter::Multipart(Box::new(Rewriter::prefix(boundary, prefix, absent))))
    }

    /// Wraps a body that is forwarded unchanged. The body is cut off if its reference has the prefix of a team other
    /// than `own`. The body may have any type. If it is neither a form nor multipart and begins like an object, it is
    /// scanned as JSON.
    ///
    /// # Errors
    /// Returns an error if the body can't be scanned.
    pub fn scan(
        headers: &HeaderMap,
        body: B,
        own: &ReferencePrefix,
        prefixes: &ReferencePrefixes,
        encoded: EncodedBody,
    ) -> Result<Self, BodyError> {
        let encoding = Encoding::of(headers)?;
        let scanner = |scanner: fn(&ReferencePrefix, &ReferencePrefixes) -> ForeignPrefixScanner| {
            Filter::Scanner(Box::new(BodyScanner::new(encoding, || scanner(own, prefixes))))
        };
        Ok(Self::new(
            body,
            match (scan::kind(headers)?, encoding) {
                (_, Some(_)) if encoded == EncodedBody::Refused => return Err(BodyError::Encoded),
                (scan::Kind::Multipart(_), Some(_)) => return Err(BodyError::Encoded),
                (scan::Kind::Multipart(boundary), None) => {
                    Filter::Multipart(Box::new(Rewriter::scan(&boundary, own.clone(), prefixes.clone())))
                }
                (scan::Kind::Form, _) => scanner(ForeignPrefixScanner::form),
                (scan::Kind::Json, _) => scanner(ForeignPrefixScanner::json),
            },
        ))
    }

    fn new(body: B, filter: Filter) -> Self {
        let (out, outcome) = (Pieces::default(), Arc::default());
        let mut prefixed =
            Self { body, filter, out, trailers: None, stage: Stage::Open, outcome, held: Mutex::default() };
        if prefixed.body.is_end_stream() {
            prefixed.end();
        }
        prefixed
    }

    /// Returns the result of the body. It can be read after the body was given away.
    #[must_use]
    pub fn outcome(&self) -> Arc<Outcome> {
        Arc::clone(&self.outcome)
    }

    fn feed(&mut self, data: Bytes) {
        let fed = match &mut self.filter {
            Filter::Multipart(rewriter) => rewriter.feed(data, &mut self.out),
            Filter::Scanner(screen) => screen.feed(&data).map(|()| self.out.push(data)),
        };
        if let Err(error) = fed {
            self.fail(error);
        }
    }

    fn end(&mut self) {
        if self.stage != Stage::Open {
            return;
        }
        let reference = match &self.filter {
            Filter::Multipart(rewriter) => rewriter.finish().map(|()| rewriter.reference()),
            Filter::Scanner(_) => Ok(None),
        };
        match reference {
            Ok(reference) => {
                let work = self.outcome.before_end.lock().take();
                let work = reference.clone().zip(work).map(|(reference, work)| work(reference));
                self.stage = if work.is_some() { Stage::Held } else { Stage::Ended };
                *self.held.get_mut() = work;
                self.outcome.settle(Ok(reference));
            }
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: BodyError) {
        self.out.clear();
        self.stage = Stage::Failing(error);
        self.outcome.settle(Err(error));
    }
}

impl<B> Body for FilteredBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = StreamError<B::Error>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError<B::Error>>>> {
        let this = self.get_mut();
        loop {
            if let Some(held) = this.held.get_mut() {
                ready!(held.as_mut().poll(cx));
                (*this.held.get_mut(), this.stage) = (None, Stage::Ended);
            }
            if let Some(piece) = this.out.pop() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match this.stage {
                Stage::Open | Stage::Held => {}
                Stage::Failing(error) => {
                    this.stage = Stage::Failed;
                    return Poll::Ready(Some(Err(StreamError::Refused(error))));
                }
                Stage::Ended => return Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
                Stage::Failed => return Poll::Ready(None),
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                None => this.end(),
                Some(Err(error)) => {
                    this.stage = Stage::Failed;
                    this.outcome.settle(Err(BodyError::CutOff));
                    return Poll::Ready(Some(Err(StreamError::Client(error))));
                }
                Some(Ok(frame)) => {
                    match frame.into_data() {
                        Ok(data) => this.feed(data),
                        Err(frame) => this.trailers = frame.into_trailers().ok(),
                    }
                    if this.trailers.is_some() || this.body.is_end_stream() {
                        this.end();
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let over = matches!(self.stage, Stage::Ended | Stage::Failed);
        over && self.out.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let held = match &self.filter {
            Filter::Multipart(rewriter) if rewriter.changes_length() => return SizeHint::default(),
            Filter::Multipart(rewriter) => rewriter.held(),
            Filter::Scanner(_) => 0,
        };
        let ours = (held + self.out.len()) as u64;
        self.body.size_hint().exact().map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + ours))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::reference_text;
    use futures_util::stream;
    use http::header::CONTENT_TYPE;
    use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
    use std::io;

    const BODY: &str = "--b\r\nContent-Disposition: form-data; name=\"reference_id\"\r\n\r\nfoo\r\n\
                        --b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"f\"\r\n\r\nFILE\r\n--b--\r\n";

    fn prefix() -> ReferencePrefix {
        ReferencePrefix::of(&"lending".parse().unwrap())
    }

    fn prefixed<B: Body<Data = Bytes>>(body: B) -> FilteredBody<B> {
        let boundary = Boundary::of(b"multipart/form-data; boundary=b").unwrap();
        FilteredBody::prefix(body, &boundary, prefix(), Absent::Insert)
    }

    fn screened<B: Body<Data = Bytes>>(kind: &str, body: B) -> Result<FilteredBody<B>, BodyError> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]);
        let prefixes = ReferencePrefixes::of(["lending", "payments"].map(|name| name.parse().unwrap()));
        FilteredBody::scan(&headers, body, &prefix(), &prefixes, EncodedBody::Refused)
    }

    fn frames(frames: Vec<io::Result<Frame<Bytes>>>) -> impl Body<Data = Bytes, Error = io::Error> + Unpin {
        StreamBody::new(stream::iter(frames))
    }

    fn pieces(text: &str, size: usize) -> Vec<io::Result<Frame<Bytes>>> {
        text.as_bytes().chunks(size).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect()
    }

    /// Returns the text that passed to Iluma, the trailers, and the error that cut the body off; `None` if there is
    /// none.
    async fn drain<B>(mut body: FilteredBody<B>) -> (String, Option<HeaderMap>, Option<StreamError<B::Error>>)
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (mut text, mut trailers) = (String::new(), None);
        while let Some(frame) = body.frame().await {
            match frame {
                Err(error) => {
                    assert!(body.frame().await.is_none() && body.is_end_stream());
                    return (text, trailers, Some(error));
                }
                Ok(frame) => match frame.into_data() {
                    Ok(data) => text.push_str(std::str::from_utf8(&data).unwrap()),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
            }
        }
        assert!(body.is_end_stream());
        (text, trailers, None)
    }

    #[tokio::test]
    async fn a_body_passes_prefixed_and_tells_its_reference() {
        for size in [1, 7, BODY.len()] {
            let trailers = HeaderMap::from_iter([(CONTENT_TYPE, "x".parse().unwrap())]);
            let mut all = pieces(BODY, size);
            all.push(Ok(Frame::trailers(trailers.clone())));
            let body = prefixed(frames(all));
            let outcome = body.outcome();
            assert!(outcome.result().is_none() && body.size_hint().exact().is_none() && !body.is_end_stream());
            let (text, passed, error) = drain(body).await;
            assert_eq!(text, BODY.replace("foo", "lending:foo"));
            assert_eq!((passed, error.is_none()), (Some(trailers), true));
            let reference = outcome.result().unwrap().unwrap().unwrap();
            assert_eq!(reference_text(&reference).as_deref(), Some("foo"));
            assert!(!format!("{outcome:?}").contains("foo"));
        }
    }

    #[tokio::test]
    async fn a_body_that_ends_without_another_frame_is_finished_as_well() {
        let mut body = prefixed(Full::new(Bytes::from_static(b"--b--\r\n")));
        let outcome = body.outcome();
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(memchr::memmem::find(&data, b"\r\n\r\nlending:\r\n--b--").is_some());
        assert!(body.is_end_stream(), "hyper need not ask again");
        assert!(drain(body).await.2.is_none());
        assert_eq!(outcome.result(), Some(Ok(None)));
    }

    #[tokio::test]
    async fn a_body_that_is_refused_breaks_off_before_its_end() {
        let twice = BODY
            .replace("\r\n--b--", "\r\n--b\r\nContent-Disposition: form-data; name=reference_id\r\n\r\nbar\r\n--b--");
        let cut = &BODY[..BODY.len() - 4];
        for (text, expected) in
            [(twice.as_str(), BodyError::Reference), (cut, BodyError::Malformed), ("{}", BodyError::Malformed)]
        {
            for size in [1, 11, 1000] {
                let body = prefixed(frames(pieces(text, size)));
                let outcome = body.outcome();
                let (passed, _, error) = drain(body).await;
                assert!(matches!(error, Some(StreamError::Refused(error)) if error == expected));
                assert_eq!(outcome.result(), Some(Err(expected)));
                assert!(!passed.contains("bar") && !passed.contains("--b--"), "{passed}");
                assert!(
                    size < 1000 || text == cut || passed.is_empty(),
                    "no byte of a piece passes before the whole piece was scanned"
                );
            }
        }
        let empty = prefixed(Empty::new());
        assert!(!empty.is_end_stream(), "hyper would ask no further");
        let outcome = empty.outcome();
        assert!(drain(empty).await.2.is_some());
        assert_eq!(outcome.result(), Some(Err(BodyError::Malformed)));
    }

    #[tokio::test]
    async fn a_client_that_breaks_off_is_told_apart() {
        let mut broken = pieces(&BODY[..40], 10);
        broken.push(Err(io::Error::other("reset")));
        let body = prefixed(frames(broken));
        let outcome = body.outcome();
        let (_, _, error) = drain(body).await;
        assert!(matches!(error, Some(StreamError::Client(_))));
        assert_eq!(outcome.result(), Some(Err(BodyError::CutOff)));
        let dropped = prefixed(frames(pieces(BODY, 10))).outcome();
        assert_eq!(dropped.result(), None);
    }

    #[tokio::test]
    async fn what_is_only_looked_through_keeps_its_length() {
        let json = r#"{"a":1,"reference_id":"lending:foo"}"#;
        let multipart = BODY.replace("foo", "lending:foo");
        for (kind, text) in [
            ("application/json", json),
            ("application/x-www-form-urlencoded", "reference_id=foo"),
            ("multipart/form-data; boundary=b", &multipart),
            ("application/octet-stream", BODY),
        ] {
            let body = screened(kind, Full::new(Bytes::copy_from_slice(text.as_bytes()))).unwrap();
            let outcome = body.outcome();
            assert_eq!(body.size_hint().exact(), Some(text.len() as u64));
            assert_eq!(drain(body).await.0, text);
            assert!(outcome.result().is_some_and(|result| result.is_ok()));
        }
        assert!(screened("application/json", Empty::new()).unwrap().is_end_stream());
        let multipart = multipart.replace("lending:", "payments:");
        for (kind, text) in [
            ("application/json", r#"{"a":"payments:foo","reference_id":"payments:foo"}"#),
            ("application/x-www-form-urlencoded", "a=payments:foo&reference_id=payments:foo"),
            ("multipart/form-data; boundary=b", &multipart),
        ] {
            for size in [1, 11, 1000] {
                let body = screened(kind, frames(pieces(text, size))).unwrap();
                let outcome = body.outcome();
                let (passed, _, error) = drain(body).await;
                assert!(matches!(error, Some(StreamError::Refused(BodyError::Foreign))), "{kind}");
                assert!(
                    text.starts_with(&passed) && passed.matches("payments:").count() < 2 && passed.len() < text.len()
                );
                assert_eq!(outcome.result(), Some(Err(BodyError::Foreign)));
            }
        }
    }
}
