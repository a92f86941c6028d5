//! The gateway's telemetry: the access log, diagnostics, metrics and traces.
//!
//! Invariants: two barriers keep personal data inside. Log lines consist of listed fields ([`logs::Record`]), and every
//! line passes the scrubber ([`redact::Redactor`]) before it leaves the process; neither can be switched off. Labels of
//! metrics come from the configuration and from enums, never from input.

pub mod logs;
pub mod metrics;
pub mod redact;
pub mod traces;

use crate::base::saved::Saved;

/// The cache's part in a request, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CacheOutcome {
    /// The cache was not used: the route is not cached, or the request was refused earlier.
    None,
    /// A stored answer was sent.
    Hit,
    /// Upstream was called; its answer was not stored.
    Miss,
    /// Upstream was called; its answer was stored.
    Stored,
    /// The request waited for the answer to an identical request in flight.
    Collapsed,
    /// The request shares an identical request that is pending upstream.
    Shared,
    /// A stored answer was sent after its lifetime, because upstream failed.
    Stale,
    /// The request took no part in the cache, for a reason in the request itself: for example its headers or its body.
    Bypass,
    /// The caller's `cache-control` excluded the stored answer.
    Request,
    /// The request was sent before, and its idempotency key has the answer.
    Replayed,
}

impl CacheOutcome {
    /// Every outcome; `ALL[outcome as usize] == outcome`.
    pub const ALL: [Self; 10] = [
        Self::None,
        Self::Hit,
        Self::Miss,
        Self::Stored,
        Self::Collapsed,
        Self::Shared,
        Self::Stale,
        Self::Bypass,
        Self::Request,
        Self::Replayed,
    ];

    /// Returns the outcome's name in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stored => "stored",
            Self::Collapsed => "collapsed",
            Self::Shared => "shared",
            Self::Stale => "stale",
            Self::Bypass => "bypass",
            Self::Request => "request",
            Self::Replayed => "replayed",
        }
    }

    /// Returns the reason why the cache saved a call to Iluma; `None` if the cache saved no call.
    #[must_use]
    pub const fn saved(self) -> Option<Saved> {
        match self {
            Self::Hit | Self::Stale => Some(Saved::Hit),
            Self::Collapsed => Some(Saved::Collapsed),
            Self::Shared => Some(Saved::Shared),
            Self::None | Self::Miss | Self::Stored | Self::Bypass | Self::Request | Self::Replayed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_found_at_its_place() {
        for (place, outcome) in CacheOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
        }
    }
}
