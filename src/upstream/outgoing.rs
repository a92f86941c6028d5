//! A request to Iluma before it is sent.

use super::origin::Origin;
use super::pieces::Pieces;
use bytes::Bytes;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Method, Request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::BoxBody;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

/// A request that is not bound to a connection yet.
#[derive(Debug)]
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: PathAndQuery,
    /// The forwarded part of the client's head; the credential is added when the request is sent.
    pub headers: HeaderMap,
    /// The body.
    pub body: OutgoingBody,
    /// True if sending the request twice changes and costs nothing.
    pub repeatable: bool,
}

impl Outgoing {
    /// Returns a copy of the request; `None` if a repetition is not safe, or if the request has a body.
    #[must_use]
    pub fn again(&self) -> Option<Self> {
        let harmless = self.repeatable && matches!(self.body, OutgoingBody::Empty);
        harmless.then(|| self.head(OutgoingBody::Empty))
    }

    /// Returns a copy of the request's head with `body` as its body.
    pub(super) fn head(&self, body: OutgoingBody) -> Self {
        Self {
            method: self.method.clone(),
            target: self.target.clone(),
            headers: self.headers.clone(),
            body,
            repeatable: self.repeatable,
        }
    }

    /// Returns the request in the form of h1: the target is path and query, and the host is a field.
    pub(super) fn into_http1(self, origin: &Origin) -> Request<OutgoingBody> {
        let mut request = self.with_uri(Uri::from);
        request.headers_mut().insert(http::header::HOST, origin.host.clone());
        request
    }

    /// Returns the request in the form of h2: scheme and authority in the target.
    pub(super) fn into_http2(self, origin: &Origin) -> Request<OutgoingBody> {
        let mut request = self.with_uri(|target| {
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(origin.scheme.clone());
            parts.authority = Some(origin.authority.clone());
            parts.path_and_query = Some(target);
            Uri::from_parts(parts).unwrap_or_default()
        });
        *request.version_mut() = http::Version::HTTP_2;
        request
    }

    /// Reverts [`Outgoing::into_http1`] and [`Outgoing::into_http2`], for a request that never left this process.
    pub(super) fn from_request(request: Request<OutgoingBody>, repeatable: bool) -> Self {
        let (parts, body) = request.into_parts();
        let target = parts.uri.into_parts().path_and_query.unwrap_or(PathAndQuery::from_static("/"));
        Self { method: parts.method, target, headers: parts.headers, body, repeatable }
    }

    fn with_uri(self, uri: impl FnOnce(PathAndQuery) -> Uri) -> Request<OutgoingBody> {
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.uri_mut() = uri(self.target);
        *request.headers_mut() = self.headers;
        request
    }
}

/// The body of a request to upstream.
#[derive(Debug)]
pub enum OutgoingBody {
    /// The request has no body.
    Empty,
    /// A body in memory; `None` once it was passed to the connection.
    Full(Option<Bytes>),
    /// A body that is passed on while the client sends it.
    Stream {
        /// The client's body, with the gateway's filters around it.
        body: BoxBody<Bytes, BoxError>,
        /// The progress, for the deadline.
        progress: Arc<Progress>,
        /// Removes trailers that are not forwarded.
        trailers: fn(&mut HeaderMap),
        /// The pieces that were passed on so far; `None` if they are not kept for another send.
        sent: Option<Arc<Pieces>>,
    },
}

/// The error that cut off a streamed body.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The progress of a streamed body.
#[derive(Debug, Default)]
pub struct Progress {
    state: AtomicU8,
    bytes: AtomicU64,
}

/// The stage of a streamed body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The gateway waits for data from the client.
    Waiting,
    /// The gateway waits until Iluma accepts data.
    Moving,
    /// The whole body was passed to the connection.
    Done,
    /// The client's body was cut off.
    Failed,
}

const STAGES: [Stage; 4] = [Stage::Waiting, Stage::Moving, Stage::Done, Stage::Failed];

impl Progress {
    /// Returns true once the client's whole body was passed to the connection.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stage() == Stage::Done
    }

    /// Returns the number of bytes passed on so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn stage(&self) -> Stage {
        STAGES.get(usize::from(self.state.load(Ordering::Acquire))).copied().unwrap_or(Stage::Failed)
    }

    fn reach(&self, stage: Stage) {
        self.state.store(stage as u8, Ordering::Release);
    }
}

impl OutgoingBody {
    /// Makes a streamed body from the client's body. The gateway's filters are already around `body`, and may end it
    /// with an error. `trailers` removes the trailers that are not forwarded.
    #[must_use]
    pub fn filtered<B>(body: B, trailers: fn(&mut HeaderMap)) -> Self
    where
        B: Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<BoxError>,
    {
        let body = body.map_err(Into::into).boxed();
        Self::Stream { body, progress: Arc::default(), trailers, sent: None }
    }

    /// Returns the progress of a streamed body; `None` for any other body.
    #[must_use]
    pub fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            Self::Stream { progress, .. } => Some(Arc::clone(progress)),
            Self::Empty | Self::Full(_) => None,
        }
    }
}

impl Body for OutgoingBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let (body, progress, trailers, sent) = match self.get_mut() {
            Self::Empty => return Poll::Ready(None),
            Self::Full(data) => return Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Self::Stream { body, progress, trailers, sent } => (body, progress, trailers, sent),
        };
        progress.reach(Stage::Waiting);
        let mut frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        match &mut frame {
            None => progress.reach(Stage::Done),
            Some(Err(_)) => progress.reach(Stage::Failed),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    progress.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                } else if let Some(fields) = frame.trailers_mut() {
                    trailers(fields);
                }
                progress.reach(if body.is_end_stream() { Stage::Done } else { Stage::Moving });
            }
        }
        if let Some(sent) = sent {
            sent.note(&frame, body.is_end_stream());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(data) => data.is_none(),
            Self::Stream { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(data) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            Self::Stream { body, .. } => body.size_hint(),
        }
    }
}
