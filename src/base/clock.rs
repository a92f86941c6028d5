//! The gateway's only clock, which tests can move.
//!
//! Invariant: a test moves both readings of a clock together, and only forward.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// A clock. Clones share the time that was added to it.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Nanoseconds that a test has added; `None` in production.
    ahead: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// Returns the machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// Returns a clock that shows the machine's time plus the time that [`Clock::advance`] has added.
    #[must_use]
    pub fn adjustable() -> Self {
        Self { ahead: Some(Arc::default()) }
    }

    /// Moves an adjustable clock forward; does nothing to a system clock.
    pub fn advance(&self, by: Duration) {
        if let Some(ahead) = &self.ahead {
            let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            ahead.fetch_add(nanos, Ordering::SeqCst);
        }
    }

    /// Returns the time for measuring durations.
    #[must_use]
    pub fn now(&self) -> Instant {
        // This is the machine's time. If a test has paused the runtime, it stands still like the runtime's clock.
        tokio::time::Instant::now().into_std() + self.added()
    }

    /// Returns the time that people and other programs read.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the one place that asks the machine")]
    pub fn wall(&self) -> SystemTime {
        SystemTime::now() + self.added()
    }

    /// Returns the time that was added, which other machines' clocks do not have. It is zero in production.
    #[must_use]
    pub fn added(&self) -> Duration {
        self.ahead.as_ref().map_or(Duration::ZERO, |ahead| Duration::from_nanos(ahead.load(Ordering::SeqCst)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_of_an_adjustable_clock_move_together() {
        let clock = Clock::adjustable();
        let (before, wall) = (clock.now(), clock.wall());
        clock.clone().advance(Duration::from_secs(3600));
        assert!(clock.now() - before >= Duration::from_secs(3600));
        assert!(clock.wall().duration_since(wall).unwrap() >= Duration::from_secs(3600));
    }
}
