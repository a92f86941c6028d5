//! The gateway's telemetry: the access log, diagnostics, metrics and traces.
//!
//! Invariants: two barriers keep personal data out of the logs; labels of metrics come from the configuration and from
//! enums, never from input. The first barrier is that log lines consist of listed fields ([`logs::Record`]). The second
//! barrier is the scrubber ([`redact::Redactor`]), which every line passes before it leaves the process. Neither can be
//! switched off.

pub mod logs;
pub mod metrics;
pub mod redact;
pub mod traces;

use crate::base::saved::Saved;

/// The result of the cache for a request, as logs and metrics show it.
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
    /// The request got the pending record of an identical earlier request that Iluma has not finished.
    Shared,
    /// A stored answer was sent after its lifetime, because upstream failed.
    Stale,
    /// The request did not use the cache, for a reason in the request itself: for example its headers or its body.
    Bypass,
    /// The caller's `cache-control` excluded the stored answer, so upstream was called.
    Request,
    /// The request repeats an earlier one, and got the answer that is stored under its idempotency key.
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
