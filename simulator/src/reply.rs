//! An answer of the simulator, with its effects.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::callback::Callback;
use super::problem::{FieldError, Problem};

/// A whole answer with its effects.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
    /// True if Iluma would charge for the call.
    pub(super) charged: bool,
    pub(super) callback: Option<Callback>,
}

impl Reply {
    /// Makes a 200 answer whose body is `value` as JSON.
    pub(super) fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::stored(body.into()),
            Err(error) => Problem::server(&error.to_string()).into(),
        }
    }

    /// Makes a 200 answer whose body is JSON that is already text.
    pub(super) fn stored(body: Bytes) -> Self {
        Self::bytes(HeaderValue::from_static("application/json; charset=utf-8"), body)
    }

    /// Makes a 200 answer with any body and content type.
    pub(super) fn bytes(content_type: HeaderValue, body: Bytes) -> Self {
        Self {
            status: StatusCode::OK,
            headers: vec![(header::CONTENT_TYPE, content_type)],
            body,
            charged: false,
            callback: None,
        }
    }

    pub(super) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(super) fn charged(mut self, charged: bool) -> Self {
        self.charged = charged;
        self
    }

    pub(super) fn callback(mut self, callback: Option<Callback>) -> Self {
        self.callback = callback;
        self
    }
}

#[derive(Serialize)]
struct Shape<'a> {
    error_code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let shape = Shape { error_code: problem.code, message: &problem.message, errors: &problem.errors };
        let body = serde_json::to_vec(&shape).unwrap_or_default();
        let mut reply = Self::stored(body.into()).status(problem.status);
        if let Some(seconds) = problem.retry_after {
            reply.headers.push((header::RETRY_AFTER, HeaderValue::from(seconds)));
        }
        if problem.status == StatusCode::UNAUTHORIZED {
            reply.headers.push((header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"iluma\"")));
        }
        reply
    }
}
