//! The name of upstream.

use http::HeaderValue;
use http::uri::{Authority, Scheme};

/// Upstream's scheme and host, as requests and log lines name it.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    pub(super) host: HeaderValue,
}
