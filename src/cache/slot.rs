//! Cache slots, candidates for them, and hits.

use super::entry::Entry;
use super::key::Key;
use crate::base::json_template::JsonTemplate;
use crate::base::name::TenantName;
use crate::iluma::answer::Answer;
use crate::iluma::person::Tag;
use crate::iluma::subject::Subject;
use http::{HeaderValue, StatusCode};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The place in the cache for the answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSlot {
    /// The name of the entry, and of the call in flight for it.
    pub key: Key,
    /// The kind of the answer.
    pub subject: Subject,
    /// The tenant of a private entry.
    pub(super) private: Option<TenantName>,
    /// The number of the last known purge or erasure when the request arrived. A later erasure may forbid storing the
    /// answer.
    pub(super) began: u64,
}

/// The place in the cache for the final answer to a pending request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// The slot of the request.
    pub place: CacheSlot,
    /// The path of the request. A GET of this path with Iluma's id behind it returns the answer.
    pub path: String,
    /// The persons that the request and its first answer named.
    pub tags: BTreeSet<Tag>,
}

/// An answer of Iluma's that may be cached.
#[derive(Debug)]
pub struct CacheCandidate<'a> {
    /// Iluma's status.
    pub status: StatusCode,
    /// Iluma's content type.
    pub content_type: Option<&'a HeaderValue>,
    /// Iluma's answer, parsed.
    pub answer: &'a Answer,
    /// The body as a template for other callers.
    pub spliced: &'a JsonTemplate,
    /// The persons that request and answer name.
    pub tags: BTreeSet<Tag>,
}

/// An entry that may be served.
#[derive(Debug)]
pub struct Hit {
    /// The entry.
    pub entry: Arc<Entry>,
    /// The time since the entry was stored.
    pub age: Duration,
    /// The time for which the entry may still be served.
    pub ttl: Duration,
}
