//! Places of answers, candidates for them, and hits.

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

/// The place of the answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSlot {
    /// Names the entry, and the call under way for it.
    pub key: Key,
    /// Kind of the answer.
    pub subject: Subject,
    /// The tenant that it serves alone, if it does.
    pub(super) private: Option<TenantName>,
    /// Number of the last change that was known when the request came: a later change may forbid to keep the answer.
    pub(super) began: u64,
}

/// The place of the answer to a pending request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// The slot of the request.
    pub place: CacheSlot,
    /// The path of the request; its answer stands below, by the id.
    pub path: String,
    /// The persons whom the request and its first answer named.
    pub tags: BTreeSet<Tag>,
}

/// An answer of Iluma's that may be worth keeping.
#[derive(Debug)]
pub struct CacheCandidate<'a> {
    /// Iluma's status.
    pub status: StatusCode,
    /// Iluma's content type.
    pub content_type: Option<&'a HeaderValue>,
    /// Iluma's answer, read.
    pub answer: &'a Answer,
    /// The body, ready for other callers.
    pub spliced: &'a JsonTemplate,
    /// The persons whom request and answer name.
    pub tags: BTreeSet<Tag>,
}

/// An entry that may be served.
#[derive(Debug)]
pub struct Hit {
    /// The entry.
    pub entry: Arc<Entry>,
    /// Time since it was stored.
    pub age: Duration,
    /// Time for which it may still be served.
    pub ttl: Duration,
}
