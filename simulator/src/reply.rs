//! What the simulator answers: a reply, or a problem in the shape of Iluma's errors.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::callback::Callback;

/// A whole answer with what follows from it.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
    /// Iluma would put it on the bill.
    pub(super) charged: bool,
    pub(super) callback: Option<Callback>,
}

impl Reply {
    /// 200 with JSON.
    pub(super) fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::stored(body.into()),
            Err(error) => Problem::server(&error.to_string()).into(),
        }
    }

    /// 200 with JSON that is already text.
    pub(super) fn stored(body: Bytes) -> Self {
        Self::bytes(HeaderValue::from_static("application/json; charset=utf-8"), body)
    }

    /// 200 with anything.
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

/// One entry of the `errors` array of an `API_VALIDATION_ERROR`.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(super) struct FieldError {
    pub(super) field: String,
    pub(super) message: String,
}

/// Why a call is refused.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) errors: Vec<FieldError>,
    /// Seconds in `retry-after`.
    pub(super) retry_after: Option<u64>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), errors: Vec::new(), retry_after: None }
    }

    /// 400 `API_VALIDATION_ERROR` with what is wrong, field by field.
    pub(super) fn validation(errors: Vec<FieldError>) -> Self {
        Self {
            errors,
            ..Self::new(
                StatusCode::BAD_REQUEST,
                "API_VALIDATION_ERROR",
                "The request payload does not match what was specified",
            )
        }
    }

    /// 400 `API_VALIDATION_ERROR` about one field.
    pub(super) fn field(field: &str, message: impl Into<String>) -> Self {
        Self::validation(vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// 404 `DATA_NOT_FOUND`.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "DATA_NOT_FOUND", "The request id requested does not exist")
    }

    /// 401 `INVALID_API_KEY`.
    pub(super) fn key() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "INVALID_API_KEY", "API key format is invalid")
    }

    /// 413 `FILE_TOO_LARGE`.
    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "FILE_TOO_LARGE", message)
    }

    /// 413 `FILE_TOO_SMALL`.
    pub(super) fn too_small(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "FILE_TOO_SMALL", message)
    }

    /// 415 `UNSUPPORTED_CONTENT_TYPE`.
    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_CONTENT_TYPE", message)
    }

    /// 500 `SERVER_ERROR`.
    pub(super) fn server(message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "SERVER_ERROR", message)
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
