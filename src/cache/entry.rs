//! Answers as they are stored, and results as they are shared.

use crate::base::json_template::JsonTemplate;
use crate::base::name::TenantName;
use crate::iluma::person::Tag;
use crate::iluma::subject::Subject;
use http::{HeaderValue, StatusCode};
use std::time::{Duration, Instant};

/// A stored answer. Nothing else of Iluma's answer is kept.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Iluma's status.
    pub status: StatusCode,
    /// Iluma's content type.
    pub content_type: Option<HeaderValue>,
    /// Iluma's body, ready for any caller's reference.
    pub body: JsonTemplate,
    /// Time at which it was stored.
    pub stored_at: Instant,
    /// Time for which it may be served after that.
    pub lifetime: Duration,
    /// Time for which it may be served longer, while Iluma fails.
    pub grace: Duration,
    /// Iluma's id, where the answer has one that matters.
    pub id: Option<Box<str>>,
    /// True if it says only that there is no result yet: identical requests meanwhile get it.
    pub pending: bool,
    /// Kind of the answer.
    pub subject: Subject,
    /// The tenant that it serves alone, if it does.
    pub private: Option<TenantName>,
    /// The persons whom it names.
    pub tags: Box<[Tag]>,
    /// Number of the last change when its call began: a person who was erased after that must not be in it.
    pub began: u64,
}

/// Result of a call that is not cached, for waiters on other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SharedResult {
    /// An answer: status, content type, and the body, which is none if only the first caller may see it.
    Answer(u16, Option<Vec<u8>>, Option<JsonTemplate>),
    /// No answer, for a reason whose number the caller knows.
    Failed(u8),
}
