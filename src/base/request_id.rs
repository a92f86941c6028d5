//! The id of a request, in its answer and in the logs.

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header that carries the id, in requests and answers.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Returns the id of a request, as a UUID and as the header's value. If the caller sent an id that is a UUID with
/// hyphens, it is this id; otherwise it is a new one.
#[must_use]
pub fn of(headers: &HeaderMap) -> (Uuid, HeaderValue) {
    if let Some(given) = headers.get(HEADER)
        && given.len() == uuid::fmt::Hyphenated::LENGTH
        && let Ok(id) = Uuid::try_parse_ascii(given.as_bytes())
    {
        return (id, given.clone());
    }
    let id = Uuid::new_v4();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    id.hyphenated().encode_lower(&mut text);
    (id, HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("")))
}
