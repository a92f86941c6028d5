//! Stored answers, and results that nodes share.

use crate::base::json_template::JsonTemplate;
use crate::base::name::TenantName;
use crate::iluma::person::Tag;
use crate::iluma::subject::Subject;
use http::{HeaderValue, StatusCode};
use std::time::{Duration, Instant};

/// A stored answer. No other part of Iluma's answer is kept.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Iluma's status.
    pub status: StatusCode,
    /// Iluma's content type.
    pub content_type: Option<HeaderValue>,
    /// Iluma's body, as a template for any caller's reference.
    pub body: JsonTemplate,
    /// The time at which the entry was stored.
    pub stored_at: Instant,
    /// The time for which the entry may be served.
    pub lifetime: Duration,
    /// The additional time for which the entry may be served while Iluma fails.
    pub grace: Duration,
    /// Iluma's id of a bank request, if the answer has one.
    pub id: Option<Box<str>>,
    /// True if there is no result yet: identical requests get this answer meanwhile.
    pub pending: bool,
    /// The kind of the answer.
    pub subject: Subject,
    /// The tenant of a private entry.
    pub private: Option<TenantName>,
    /// The persons that the answer names.
    pub tags: Box<[Tag]>,
    /// The number of the last change when the entry's call began. The entry must not name a person who was erased
    /// later.
    pub began: u64,
}

/// Returns a content type that an entry can keep. Common ones are static. Others are copied, because the given bytes
/// are a slice of a large buffer, as in [`JsonTemplate::whole`].
pub(super) fn content_type(value: &[u8]) -> Option<HeaderValue> {
    match value {
        b"application/json" => Some(HeaderValue::from_static("application/json")),
        b"application/json; charset=utf-8" => Some(HeaderValue::from_static("application/json; charset=utf-8")),
        other => HeaderValue::from_bytes(other).ok(),
    }
}

/// A result that is not cached, for waiters on other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SharedResult {
    /// An answer: status, content type, and the body, which is `None` if only the first caller may see it.
    Answer(u16, Option<Vec<u8>>, Option<JsonTemplate>),
    /// The call got no answer; the value is the number of the error.
    Failed(u8),
}
