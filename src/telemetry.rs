//! What the gateway tells about itself: the access log, diagnostics and metrics.
//!
//! Invariants: two walls keep personal data in. What is logged is listed field by field ([`logs::Record`]), and every
//! line passes the scrubber ([`redact::Redactor`]) before it leaves the process; neither has a switch. Labels of
//! metrics come from the configuration and from enums, never from input.

pub mod logs;
pub mod metrics;
pub mod redact;

use crate::base::saved::Saved;

/// What the cache did for a request, as logs and metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CacheOutcome {
    /// The cache had no part in it: the route is not cached, or the request was refused before.
    None,
    /// Answered from a stored answer.
    Hit,
    /// Asked upstream; the answer was not one to store.
    Miss,
    /// Asked upstream; the answer was stored.
    Stored,
    /// Waited for an identical request that was already in flight.
    Collapsed,
    /// Told that an identical request is pending upstream.
    Shared,
    /// Answered from a stored answer past its lifetime, because upstream failed.
    Stale,
    /// The request is of a kind that bypasses the cache.
    Bypass,
    /// The caller's `cache-control` kept the stored answer from being used.
    Request,
}

impl CacheOutcome {
    /// Every outcome; `ALL[outcome as usize] == outcome`.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::Hit,
        Self::Miss,
        Self::Stored,
        Self::Collapsed,
        Self::Shared,
        Self::Stale,
        Self::Bypass,
        Self::Request,
    ];

    /// The name in logs and metrics.
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
        }
    }

    /// Returns what spared the request an upstream call, if anything did.
    #[must_use]
    pub const fn saved(self) -> Option<Saved> {
        match self {
            Self::Hit | Self::Stale => Some(Saved::Hit),
            Self::Collapsed => Some(Saved::Collapsed),
            Self::Shared => Some(Saved::Shared),
            Self::None | Self::Miss | Self::Stored | Self::Bypass | Self::Request => None,
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
