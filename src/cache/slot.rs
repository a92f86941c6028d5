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
    /// The key of the entry. It also identifies the call in flight for this entry.
    pub key: Key,
    /// The kind of the answer.
    pub subject: Subject,
    /// The tenant of a private entry; `None` if the account's tenants share the entry.
    pub(super) private: Option<TenantName>,
    /// The number of the newest change, such as a purge or an erasure, that this node knew when the request arrived.
    /// The answer is not stored if a later change erases a person in it.
    pub(super) began: u64,
}

/// The place in the cache for the final answer to a pending request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// The slot of the request.
    pub place: CacheSlot,
    /// The path of the request. A GET of `<path>/<Iluma's id>` returns the final answer.
    pub path: String,
    /// The persons that the request and its first answer named.
    pub tags: BTreeSet<Tag>,
}

/// An answer of Iluma that may be cached.
#[derive(Debug)]
pub struct CacheCandidate<'a> {
    /// Iluma's status.
    pub status: StatusCode,
    /// Iluma's content type, if the answer has one.
    pub content_type: Option<&'a HeaderValue>,
    /// Iluma's answer, parsed.
    pub answer: &'a Answer,
    /// The body as a template, into which the reference of another caller is inserted.
    pub spliced: &'a JsonTemplate,
    /// The persons that the request and the answer name.
    pub tags: BTreeSet<Tag>,
}

/// An entry that may be served.
#[derive(Debug)]
pub struct Hit {
    /// The entry.
    pub entry: Arc<Entry>,
    /// The time since the entry was stored.
    pub age: Duration,
    /// The time for which the entry may still be served. For a stale entry this is the rest of its grace.
    pub ttl: Duration,
}
