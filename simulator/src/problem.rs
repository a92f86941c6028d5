//! A refusal in the shape of Iluma's errors.

use http::StatusCode;
use serde::Serialize;

/// One entry of the `errors` array of an `API_VALIDATION_ERROR`.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(super) struct FieldError {
    pub(super) field: String,
    pub(super) message: String,
}

/// A refusal of a call.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) errors: Vec<FieldError>,
    /// The seconds in `retry-after`; `None` for an answer without that header.
    pub(super) retry_after: Option<u64>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), errors: Vec::new(), retry_after: None }
    }

    /// Makes 400 `API_VALIDATION_ERROR`, with each wrong field.
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

    /// Makes 400 `API_VALIDATION_ERROR` about one field.
    pub(super) fn field(field: &str, message: impl Into<String>) -> Self {
        Self::validation(vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// Makes 404 `DATA_NOT_FOUND`.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "DATA_NOT_FOUND", "The request id requested does not exist")
    }

    /// Makes 401 `INVALID_API_KEY`.
    pub(super) fn key() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "INVALID_API_KEY", "API key format is invalid")
    }

    /// Makes 413 `FILE_TOO_LARGE`.
    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "FILE_TOO_LARGE", message)
    }

    /// Makes 413 `FILE_TOO_SMALL`.
    pub(super) fn too_small(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "FILE_TOO_SMALL", message)
    }

    /// Makes 415 `UNSUPPORTED_CONTENT_TYPE`.
    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_CONTENT_TYPE", message)
    }

    /// Makes 500 `SERVER_ERROR`.
    pub(super) fn server(message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "SERVER_ERROR", message)
    }
}
