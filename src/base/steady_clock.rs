//! Wall-clock time that never goes back, so that stored data ages even if the machine's clock is set back.
//!
//! Invariants: a reading is never smaller than an earlier reading, or than the time that was given to
//! [`SteadyClock::new`]; two readings differ by at least the time that really passed between them.

use super::clock::Clock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Milliseconds since 1970.
pub type Millis = u64;

/// A wall clock that never goes back.
#[derive(Debug)]
pub struct SteadyClock {
    clock: Clock,
    origin: Instant,
    /// The wall-clock time at `origin`, in milliseconds since 1970. It grows when the machine's clock is set forward,
    /// and never shrinks.
    base: AtomicU64,
}

impl SteadyClock {
    /// Returns a clock that begins with the machine's time, or with `seen` if `seen` is later. `seen` is the latest
    /// time that an earlier process has read.
    #[must_use]
    pub fn new(clock: Clock, seen: Millis) -> Self {
        let origin = clock.now();
        let base = AtomicU64::new(wall(&clock).max(seen));
        Self { clock, origin, base }
    }

    /// Returns the time, which is never earlier than a time returned before.
    #[must_use]
    pub fn now(&self) -> Millis {
        let passed = millis(self.clock.now().saturating_duration_since(self.origin));
        let base = wall(&self.clock).saturating_sub(passed);
        self.base.fetch_max(base, Ordering::Relaxed).max(base).saturating_add(passed)
    }
}

/// Returns the wall-clock time of `clock`. Unlike a [`SteadyClock`], it may go back.
#[must_use]
pub fn wall(clock: &Clock) -> Millis {
    millis(clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Converts a duration to whole milliseconds.
#[must_use]
pub fn millis(time: Duration) -> Millis {
    Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_never_goes_back_and_always_goes_on() {
        let clock = Clock::adjustable();
        let seen = wall(&clock) + 3_600_000;
        let steady = SteadyClock::new(clock.clone(), seen);
        let first = steady.now();
        assert!(first >= seen, "an earlier process has seen a later time");
        clock.advance(Duration::from_secs(60));
        let second = steady.now();
        assert!(second >= first + 60_000 && second < first + 70_000, "it goes on from there: {}", second - first);
        clock.advance(Duration::from_secs(7200));
        assert!(steady.now() >= wall(&clock), "the machine's clock has caught up");
    }
}
