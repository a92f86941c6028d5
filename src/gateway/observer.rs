//! The accounting of a streamed answer: its bytes settle the call.

use super::call_guard::CallGuard;
use crate::base::tasks::Tasks;
use crate::iluma::answer::Answer;
use crate::reply::ReplyBody;
use crate::upstream::{self, AnswerBody};
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt as _;
use std::pin::Pin;

/// The largest streamed answer in bytes that is kept to settle its call. The outcome of a call with a longer answer is
/// unknown. Iluma's answers have a few kilobytes.
const LARGEST_LOOK: usize = 256 << 10;

/// Reads an answer while it is streamed, and settles its call at the end.
pub(super) struct ResponseObserver {
    guard: CallGuard,
    status: StatusCode,
    encoding: HeaderMap,
    seen: BytesMut,
    too_large: bool,
    tasks: Tasks,
}

impl ResponseObserver {
    /// Records the head of an answer. If the body is not needed, settles the call and returns `None`.
    pub(super) fn new(mut guard: CallGuard, response: &Response<AnswerBody>, tasks: &Tasks) -> Option<Box<Self>> {
        let (status, headers) = (response.status(), response.headers());
        guard.head(status, headers);
        let matters = match status {
            status if status.is_success() => guard.charged || guard.route.spec().settles,
            status => status == StatusCode::BAD_REQUEST,
        };
        if !matters {
            guard.whole(status, None);
            return None;
        }
        let encodings = headers.get_all(CONTENT_ENCODING).iter();
        let encoding = encodings.map(|value| (CONTENT_ENCODING, value.clone())).collect();
        let (seen, tasks) = (BytesMut::new(), tasks.clone());
        Some(Box::new(Self { guard, status, encoding, seen, too_large: false, tasks }))
    }

    /// Keeps a piece of the answer's body.
    pub(super) fn see(&mut self, data: &Bytes) {
        self.too_large |= self.seen.len() + data.len() > LARGEST_LOOK;
        if !self.too_large {
            self.seen.extend_from_slice(data);
        }
    }

    /// Settles the call at the end of the body. `whole` is false if the body was cut off. The returned future ends once
    /// the outcome is in the ledger. If the outcome can't be written now, it is kept for later, and the future ends.
    pub(super) fn close(mut self: Box<Self>, whole: bool) -> Booked {
        let body = self.seen.split().freeze();
        let body = if whole && !self.too_large { upstream::decoded(&self.encoding, &body) } else { None };
        let answer = body.map(|body| Answer::parse(&body, None));
        self.guard.whole(self.status, answer.as_ref());
        let ledger = self.guard.ledger().clone();
        Box::pin(async move { ledger.settled().await.unwrap_or_default() })
    }

    /// Settles the call by an answer that the caller has read whole. `answer` is `None` if it could not be read. The
    /// returned future ends once the outcome is in the ledger.
    pub(super) fn read_whole(mut self: Box<Self>, answer: Option<&Answer>) -> Booked {
        self.guard.whole(self.status, answer);
        let ledger = self.guard.ledger().clone();
        Box::pin(async move { ledger.settled().await.unwrap_or_default() })
    }

    /// Settles the call although the client left before the end of the body. The rest of a successful answer is still
    /// read if Iluma may charge for the call. Any other answer counts as cut off.
    pub(super) fn outlive(self: Box<Self>, body: ReplyBody) {
        match body {
            ReplyBody::Upstream(body) if self.guard.charged && self.status.is_success() => {
                self.tasks.clone().spawn(async move { self.read(*body).await });
            }
            _ => drop(self.close(false)),
        }
    }

    /// Reads the rest of the body, and settles the call. Each piece of the body has a deadline.
    pub(super) async fn read(mut self: Box<Self>, mut body: AnswerBody) {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return drop(self.close(false)) };
            if let Some(data) = frame.data_ref() {
                self.see(data);
            }
            if self.too_large {
                break;
            }
        }
        drop(self.close(true));
    }
}

/// A future that ends once a call's outcome is in the ledger.
pub(super) type Booked = Pin<Box<dyn Future<Output = ()> + Send>>;

impl std::fmt::Debug for ResponseObserver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseObserver").field("status", &self.status).finish_non_exhaustive()
    }
}
