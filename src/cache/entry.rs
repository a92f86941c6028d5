//! Stored answers, and results that nodes share.

use crate::base::json_template::JsonTemplate;
use crate::base::name::TenantName;
use crate::iluma::person::Tag;
use crate::iluma::subject::Subject;
use http::{HeaderValue, StatusCode};
use std::time::{Duration, Instant};

/// A stored answer. Other parts of Iluma's answer, such as further headers, are not kept.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Iluma's status.
    pub status: StatusCode,
    /// Iluma's content type, if the answer has a valid one.
    pub content_type: Option<HeaderValue>,
    /// Iluma's body, as a template into which each caller's own reference is inserted.
    pub body: JsonTemplate,
    /// The time at which the entry was stored.
    pub stored_at: Instant,
    /// The time for which the entry may be served, from `stored_at` on.
    pub lifetime: Duration,
    /// The time after the lifetime for which the entry may still be served while Iluma fails.
    pub grace: Duration,
    /// Iluma's id of a bank request, if the answer has one.
    pub id: Option<Box<str>>,
    /// True if the answer is "pending": identical requests get it until there is a result.
    pub pending: bool,
    /// The kind of the answer.
    pub subject: Subject,
    /// The tenant of a private entry; `None` if the account's tenants share the entry.
    pub private: Option<TenantName>,
    /// The persons that the answer names.
    pub tags: Box<[Tag]>,
    /// The number of the newest change, such as a purge or an erasure, when the entry's request arrived. The entry is
    /// not served if a later change erased a person in it.
    pub began: u64,
}

/// Returns a content type that an entry can keep; `None` if `value` is no valid header value. Common types are static.
/// Other types are copied, because `value` is a slice of a large buffer, which the entry would otherwise keep in
/// memory.
pub(super) fn content_type(value: &[u8]) -> Option<HeaderValue> {
    match value {
        b"application/json" => Some(HeaderValue::from_static("application/json")),
        b"application/json; charset=utf-8" => Some(HeaderValue::from_static("application/json; charset=utf-8")),
        other => HeaderValue::from_bytes(other).ok(),
    }
}

/// The result of a call, for requests that wait on other nodes. It is used if the answer is not cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SharedResult {
    /// Iluma answered. The values are the status, the content type (`None` if the answer has none), and the body. The
    /// body is `None` if it quotes the caller's reference, because no other client may see that.
    Answer(u16, Option<Vec<u8>>, Option<JsonTemplate>),
    /// The call got no answer. The value identifies the error, by a number that is the same in all versions.
    Failed(u8),
}
