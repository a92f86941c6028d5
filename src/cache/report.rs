//! The report on how the cache handled a request, for the header `cache-status` (RFC 9211).

use crate::base::retry_after::whole_seconds;
use bytes::Bytes;
use http::HeaderValue;
use std::time::Duration;

/// The way in which the cache handled a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The cache answered.
    Hit {
        /// The time for which the entry may still be served.
        ttl: Duration,
    },
    /// Iluma was called, because there was no entry.
    Miss {
        /// True if the answer was stored.
        stored: bool,
    },
    /// The cache answered after the entry's lifetime, because Iluma failed.
    Stale {
        /// The time since the entry's lifetime ended.
        by: Duration,
    },
    /// The request got the answer to another request's call, for which it waited.
    Collapsed,
    /// The answer says that an identical request is still pending at Iluma.
    Pending,
    /// Iluma was called, because the directives in the request's `cache-control` required it.
    Directed {
        /// True if the answer was stored.
        stored: bool,
    },
    /// The request bypassed the cache.
    Bypass {
        /// The reason for the bypass, as one word.
        detail: &'static str,
    },
}

impl Report {
    /// Returns the value of `cache-status`.
    #[must_use]
    pub fn header(self) -> HeaderValue {
        match self {
            Self::Hit { ttl } => {
                let mut value = Vec::with_capacity(40);
                value.extend_from_slice(b"iluma-gateway; hit; ttl=");
                // `age` is rounded down, so that `age` and `ttl` together are the lifetime.
                value.extend_from_slice(itoa::Buffer::new().format(whole_seconds(ttl)).as_bytes());
                HeaderValue::from_maybe_shared(Bytes::from(value))
                    .unwrap_or(HeaderValue::from_static("iluma-gateway; hit"))
            }
            // A stale entry has a negative ttl (RFC 9211, section 2.4).
            Self::Stale { by } => HeaderValue::try_from(format!("iluma-gateway; hit; ttl=-{}", by.as_secs().max(1)))
                .unwrap_or(HeaderValue::from_static("iluma-gateway; hit")),
            Self::Pending => HeaderValue::from_static("iluma-gateway; fwd=uri-miss; collapsed; detail=pending"),
            Self::Miss { stored: true } => HeaderValue::from_static("iluma-gateway; fwd=uri-miss; stored"),
            Self::Miss { stored: false } => HeaderValue::from_static("iluma-gateway; fwd=uri-miss"),
            Self::Collapsed => HeaderValue::from_static("iluma-gateway; fwd=uri-miss; collapsed"),
            Self::Directed { stored: true } => HeaderValue::from_static("iluma-gateway; fwd=request; stored"),
            Self::Directed { stored: false } => HeaderValue::from_static("iluma-gateway; fwd=request"),
            Self::Bypass { detail } => HeaderValue::try_from(format!("iluma-gateway; fwd=bypass; detail={detail}"))
                .unwrap_or(HeaderValue::from_static("iluma-gateway; fwd=bypass")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_reads_as_rfc_9211_has_it() {
        let week = Report::Hit { ttl: Duration::from_secs(604_800) };
        assert_eq!(week.header(), "iluma-gateway; hit; ttl=604800");
        assert_eq!(Report::Miss { stored: true }.header(), "iluma-gateway; fwd=uri-miss; stored");
        assert_eq!(Report::Stale { by: Duration::from_secs(9) }.header(), "iluma-gateway; hit; ttl=-9");
        assert_eq!(Report::Collapsed.header(), "iluma-gateway; fwd=uri-miss; collapsed");
        assert_eq!(Report::Bypass { detail: "magic-reply" }.header(), "iluma-gateway; fwd=bypass; detail=magic-reply");
    }
}
