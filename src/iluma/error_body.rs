//! The body of an error, in Iluma's shape.

use bytes::Bytes;
use http::StatusCode;

/// Returns a JSON object with the members `error_code` and `message`. For status 400 it also has `errors`, an array
/// with the message, as in Iluma's own API_VALIDATION_ERROR.
#[must_use]
pub fn json(status: StatusCode, error_code: &str, message: &str) -> Bytes {
    #[derive(serde::Serialize)]
    struct Shape<'a> {
        error_code: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        errors: Option<[&'a str; 1]>,
    }
    let errors = (status == StatusCode::BAD_REQUEST).then_some([message]);
    serde_json::to_vec(&Shape { error_code, message, errors }).unwrap_or_default().into()
}
