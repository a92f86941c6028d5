//! An answer as it is stored.

use crate::base::json_template::JsonTemplate;
use crate::base::name::TenantName;
use crate::iluma::person::Tag;
use crate::iluma::subject::Subject;
use http::{HeaderValue, StatusCode};
use std::time::{Duration, Instant};

/// A stored answer. Nothing else of upstream's answer is kept.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Upstream's status.
    pub status: StatusCode,
    /// Upstream's content type.
    pub content_type: Option<HeaderValue>,
    /// Upstream's body, ready for anybody's reference.
    pub body: JsonTemplate,
    /// When it was stored.
    pub stored_at: Instant,
    /// How long after that it may be served.
    pub lifetime: Duration,
    /// How much longer, while upstream fails.
    pub grace: Duration,
    /// Upstream's id, where the answer has one that matters.
    pub id: Option<Box<str>>,
    /// Whether it says only that there is no result yet: it is what those who ask meanwhile get.
    pub pending: bool,
    /// What it is about.
    pub subject: Subject,
    /// The team that it serves alone, if it does.
    pub private: Option<TenantName>,
    /// Whom it names.
    pub tags: Box<[Tag]>,
    /// The last change when the call began that brought it: who was erased after that must not be in it.
    pub began: u64,
}
