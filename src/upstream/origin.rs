//! The scheme and host of Iluma.

use http::HeaderValue;
use http::uri::{Authority, Scheme};

/// Iluma's scheme and host, for requests and log lines.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    pub(super) host: HeaderValue,
}
