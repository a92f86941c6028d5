//! The shapes of answers: JSON, text, and refusals.

use crate::base::web::{BodyFault, GATEWAY_ERROR};
use crate::config::Role;
use crate::iluma::error_body;
use crate::state::{KeyOrderError, StateError};
use crate::telemetry::logs::MOST_SUBSCRIBERS;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use std::time::Duration;

/// The reason why an operator's request is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// No admin token is configured.
    #[error("the admin API is off; set admin.tokens or admin.token in the configuration to use it")]
    Off,
    #[error("the admin token is missing or wrong")]
    Unauthorized,
    /// Too many wrong tokens came from the client's address. Holds the time until the client may try again.
    #[error("too many wrong tokens came from this address: wait for retry-after; a valid token is never refused")]
    TooManyFailures(Duration),
    #[error("this order needs the role {}", .0.as_str())]
    Role(Role),
    #[error("there is no such path")]
    UnknownPath,
    #[error("there is no such tenant")]
    UnknownTenant,
    /// An order to settle a call names a node that does not exist.
    #[error("no node has this name, and nothing was settled; GET /v1/usage/unknown names the node of each call")]
    UnknownNode,
    /// No delivery and no unowned callback has this id.
    #[error("there is no callback with this id; GET /v1/callbacks lists the ids")]
    UnknownCallback,
    /// The callback to delete is not a dead letter.
    #[error("this callback is not a dead letter, and only dead letters can be deleted")]
    NotDead,
    /// The team has no callback URL to test.
    #[error(
        "no callback URL is set for this type; the team sets one at /v1/callback/urls, or operations in callback_urls"
    )]
    NoCallbackUrl,
    /// An order about a key is refused. Holds the reason.
    #[error(transparent)]
    Key(KeyOrderError),
    #[error("this path does not accept this method; the header `allow` lists those that it accepts")]
    Method,
    #[error("the body is larger than 64 KiB")]
    TooLarge,
    #[error("the body did not arrive in time")]
    TooSlow,
    #[error("the body was cut off")]
    CutOff,
    /// The query, the body or the `Host` header is invalid. Holds the message for the client.
    #[error("{0}")]
    Invalid(String),
    /// A necessary part can't be reached, so the same request may succeed later. Holds the message for the client.
    #[error("{0}")]
    Unavailable(String),
    /// The access log has its largest number of followers.
    #[error("{MOST_SUBSCRIBERS} clients follow the access log already; try again later")]
    TooManyFollowers,
    #[error("no answer in time; an order that has begun continues, and GET /v1/audit shows its outcome")]
    Late,
    #[error("the gateway failed to handle the request; report it with the x-request-id")]
    Internal,
}

impl Refusal {
    /// Returns the refusal of an invalid request, with a reason in plain English.
    pub(super) fn invalid(why: impl Into<String>) -> Self {
        Self::Invalid(why.into())
    }

    /// Returns the refusal for a request that needs the ledger while the ledger can't be read.
    pub(super) fn books() -> Self {
        Self::Unavailable("the ledger can't be read now; try again".to_owned())
    }

    /// Returns the refusal for a request with a session while the console's sessions can't be read or written.
    pub(super) fn sessions(error: StateError) -> Self {
        Self::Unavailable(format!(
            "sessions of the console can't be read or written: {error}; the API takes the token itself"
        ))
    }

    /// Returns the refusal for an error status that axum or one of its middleware layers chose.
    pub(super) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::UnknownPath,
            StatusCode::METHOD_NOT_ALLOWED => Self::Method,
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::REQUEST_TIMEOUT => Self::TooSlow,
            StatusCode::SERVICE_UNAVAILABLE => Self::Late,
            status if status.is_client_error() => Self::CutOff,
            _ => Self::Internal,
        }
    }

    /// Returns the status, the error code in Iluma's form, and the reason for the header `x-gateway-error`.
    pub(super) const fn shape(&self) -> (StatusCode, &'static str, &'static str) {
        const INVALID: &str = "API_VALIDATION_ERROR";
        match self {
            Self::Off => (StatusCode::FORBIDDEN, "REQUEST_FORBIDDEN_ERROR", "admin_api_off"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "INVALID_API_KEY", "unauthorized"),
            Self::TooManyFailures(_) => (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMIT_EXCEEDED", "too_many_failures"),
            Self::Role(_) => (StatusCode::FORBIDDEN, "REQUEST_FORBIDDEN_ERROR", "role_not_allowed"),
            Self::UnknownPath => (StatusCode::NOT_FOUND, "DATA_NOT_FOUND", "unknown_path"),
            Self::UnknownTenant => (StatusCode::NOT_FOUND, "DATA_NOT_FOUND", "unknown_tenant"),
            Self::UnknownNode => (StatusCode::NOT_FOUND, "DATA_NOT_FOUND", "unknown_node"),
            Self::UnknownCallback => (StatusCode::NOT_FOUND, "DATA_NOT_FOUND", "not_found"),
            Self::NotDead => (StatusCode::CONFLICT, "REQUEST_CONFLICT", "not_a_dead_letter"),
            Self::NoCallbackUrl => (StatusCode::NOT_FOUND, "DATA_NOT_FOUND", "no_callback_url"),
            Self::Key(KeyOrderError::FromFile) => (StatusCode::CONFLICT, "REQUEST_CONFLICT", "key_in_file"),
            Self::Key(KeyOrderError::Ended) => (StatusCode::CONFLICT, "REQUEST_CONFLICT", "key_ended"),
            Self::Key(KeyOrderError::TooMany) => (StatusCode::CONFLICT, "REQUEST_CONFLICT", "too_many_keys"),
            Self::Key(KeyOrderError::Unknown | KeyOrderError::State(_)) => {
                (StatusCode::NOT_FOUND, "DATA_NOT_FOUND", "unknown_key")
            }
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "method_not_allowed"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "FILE_TOO_LARGE", "body_too_large"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", "body_too_slow"),
            Self::CutOff => (StatusCode::BAD_REQUEST, INVALID, "body_cut_off"),
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, INVALID, "malformed_request"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", "state_unavailable"),
            Self::TooManyFollowers => (StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", "too_many_followers"),
            Self::Late => (StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", "too_slow"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "SERVER_ERROR", "internal"),
        }
    }
}

impl From<BodyFault> for Refusal {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::TooLarge => Self::TooLarge,
            BodyFault::TooSlow => Self::TooSlow,
            BodyFault::CutOff => Self::CutOff,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, reason) = self.shape();
        let mut response = typed(status, "application/json", error_body::json(status, code, &self.to_string()));
        response.headers_mut().insert(GATEWAY_ERROR, HeaderValue::from_static(reason));
        if let Self::TooManyFailures(wait) = self {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Returns an answer in JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    typed(status, "application/json", serde_json::to_vec(value).unwrap_or_default().into())
}

/// Returns an answer in plain text.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response {
    typed(status, "text/plain; charset=utf-8", body.into())
}

/// Returns an answer with the given content type.
pub(super) fn typed(status: StatusCode, content_type: &'static str, body: Bytes) -> Response {
    (status, [(CONTENT_TYPE, content_type)], body).into_response()
}
