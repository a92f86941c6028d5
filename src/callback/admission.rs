//! The answers of the inbox.

use crate::base::host::HostError;
use crate::base::web::{BodyFault, GATEWAY_ERROR};
use crate::iluma::callback_body::Malformed;
use crate::iluma::error_body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

/// The result of a request to the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Admission {
    /// The callback is stored.
    #[error("stored")]
    Stored,
    /// The callback was received before.
    #[error("repeat")]
    Repeat,
    /// Iluma's test of the URL: a payload without any id.
    #[error("test")]
    Test,
    /// No such path, account or callback type exists.
    #[error("there is no such path")]
    Unknown,
    /// The method is not POST.
    #[error("this path takes only POST")]
    Method,
    /// The client's address is in none of the networks that callbacks may come from.
    #[error("callbacks are not taken from this address")]
    Address,
    /// The token is missing or wrong.
    #[error("the callback token is missing or wrong")]
    Unauthorized,
    /// Too many wrong tokens came from the client's address. The value is the whole seconds after which another token
    /// may be tried.
    #[error("too many wrong tokens came from this address: wait for retry-after; a valid token is never refused")]
    TooManyFailures(u64),
    /// The body is longer than [`MOST_BYTES`](super::MOST_BYTES).
    #[error("the body is larger than 1 MiB")]
    TooLarge,
    /// The peer did not send the body in time.
    #[error("the body did not arrive in time")]
    TooSlow,
    /// The peer cut the body off.
    #[error("the body was cut off")]
    CutOff,
    /// The body can't be the body of a callback. The answer is 400, not 200: no team can get such a callback, so an
    /// operator has to see the error. Iluma stops repeating the callback after a while, and each repetition costs only
    /// the reading of its body.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The callback could not be stored: Iluma has to send it again.
    #[error("the callback can't be stored now; send it again")]
    NotStored,
    /// Too many callbacks arrived at once: Iluma has to send this one again.
    #[error("too many callbacks at once; send it again")]
    Overloaded,
    /// The request has no valid host, or two hosts.
    #[error(transparent)]
    Host(HostError),
    /// The gateway itself failed: Iluma has to send the callback again.
    #[error("the gateway failed to handle the callback; send it again")]
    Internal,
}

impl Admission {
    /// Returns the metrics label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.shape().2
    }

    /// Returns the admission for a status that axum or a layer chose.
    pub(super) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::Unknown,
            StatusCode::METHOD_NOT_ALLOWED => Self::Method,
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::REQUEST_TIMEOUT => Self::TooSlow,
            StatusCode::SERVICE_UNAVAILABLE => Self::NotStored,
            status if status.is_client_error() => Self::CutOff,
            _ => Self::Internal,
        }
    }

    /// Returns the status, Iluma's error code (empty for a success), and the reason.
    const fn shape(self) -> (StatusCode, &'static str, &'static str) {
        const UNAVAILABLE: &str = "SERVICE_UNAVAILABLE";
        match self {
            Self::Stored => (StatusCode::OK, "", "stored"),
            Self::Repeat => (StatusCode::OK, "", "repeat"),
            Self::Test => (StatusCode::OK, "", "test"),
            Self::Unknown => (StatusCode::NOT_FOUND, "DATA_NOT_FOUND", "unknown_path"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "method_not_allowed"),
            Self::Address => (StatusCode::FORBIDDEN, "REQUEST_FORBIDDEN_ERROR", "address_not_allowed"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "INVALID_API_KEY", "unauthorized"),
            Self::TooManyFailures(_) => (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMIT_EXCEEDED", "too_many_failures"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "FILE_TOO_LARGE", "body_too_large"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", "body_too_slow"),
            Self::CutOff => (StatusCode::BAD_REQUEST, "API_VALIDATION_ERROR", "body_cut_off"),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "API_VALIDATION_ERROR", "malformed_body"),
            Self::NotStored => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "not_stored"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "overloaded"),
            Self::Host(_) => (StatusCode::BAD_REQUEST, "API_VALIDATION_ERROR", "bad_host"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "SERVER_ERROR", "internal"),
        }
    }
}

impl From<BodyFault> for Admission {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::TooLarge => Self::TooLarge,
            BodyFault::TooSlow => Self::TooSlow,
            BodyFault::CutOff => Self::CutOff,
        }
    }
}

impl IntoResponse for Admission {
    fn into_response(self) -> Response {
        let (status, code, reason) = self.shape();
        let body = if status.is_success() {
            Bytes::from_static(br#"{"status":"OK"}"#)
        } else {
            error_body::json(status, code, &self.to_string())
        };
        let mut response = (status, [(CONTENT_TYPE, "application/json")], body).into_response();
        if !status.is_success() {
            response.headers_mut().insert(GATEWAY_ERROR, HeaderValue::from_static(reason));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Self::TooManyFailures(seconds) = self {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}
