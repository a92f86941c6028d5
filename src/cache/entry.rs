//! An answer as it is stored.

use crate::splice::Spliced;
use http::{HeaderValue, StatusCode};
use std::time::{Duration, Instant};

/// A stored answer. Nothing else of upstream's answer is kept.
#[derive(Debug)]
pub struct Entry {
    /// Upstream's status.
    pub status: StatusCode,
    /// Upstream's content type.
    pub content_type: Option<HeaderValue>,
    /// Upstream's body, ready for anybody's reference.
    pub body: Spliced,
    /// When it was stored.
    pub stored_at: Instant,
    /// How long after that it may be served.
    pub lifetime: Duration,
}
