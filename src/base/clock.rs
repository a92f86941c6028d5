//! The gateway's only clock, which tests can move.
//!
//! Invariant: a test moves both readings of a clock together, and only forward.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

/// A clock. Its clones share the time that a test adds, and stop together.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// The changes that a test has made; `None` in production.
    adjustment: Option<Arc<Adjustment>>,
}

#[derive(Debug, Default)]
struct Adjustment {
    /// The time that a test has added, in nanoseconds.
    ahead: AtomicU64,
    /// Both readings of the machine's clock at the moment when a test stopped this clock. They do not include `ahead`.
    stopped: OnceLock<(Instant, SystemTime)>,
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
        Self { adjustment: Some(Arc::default()) }
    }

    /// Moves an adjustable clock forward; does nothing to a system clock.
    pub fn advance(&self, by: Duration) {
        if let Some(adjustment) = &self.adjustment {
            let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            adjustment.ahead.fetch_add(nanos, Ordering::SeqCst);
        }
    }

    /// Stops an adjustable clock: from now on only [`Clock::advance`] moves it. Does nothing to a system clock.
    pub fn stop(&self) {
        if let Some(adjustment) = &self.adjustment {
            adjustment.stopped.get_or_init(machine);
        }
    }

    /// Returns the monotonic time, for measuring durations.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.stopped().map_or_else(instant, |(now, _)| now) + self.added()
    }

    /// Returns the wall-clock time, which people and other programs read.
    #[must_use]
    pub fn wall(&self) -> SystemTime {
        self.stopped().map_or_else(system_time, |(_, wall)| wall) + self.added()
    }

    /// Returns the time that a test has added to this clock; zero in production. The clocks of other processes, such as
    /// Redis, do not have this time.
    #[must_use]
    pub fn added(&self) -> Duration {
        let ahead = |adjustment: &Arc<Adjustment>| Duration::from_nanos(adjustment.ahead.load(Ordering::SeqCst));
        self.adjustment.as_ref().map_or(Duration::ZERO, ahead)
    }

    fn stopped(&self) -> Option<(Instant, SystemTime)> {
        self.adjustment.as_ref()?.stopped.get().copied()
    }
}

fn machine() -> (Instant, SystemTime) {
    (instant(), system_time())
}

/// Returns tokio's monotonic time, which is the machine's time. If a test has paused tokio's time, this reading stops
/// together with tokio's timers.
fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[allow(clippy::disallowed_methods, reason = "this is the one place that asks the machine")]
fn system_time() -> SystemTime {
    SystemTime::now()
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
    #[test]
    fn a_stopped_clock_moves_only_by_what_is_added() {
        let clock = Clock::adjustable();
        clock.stop();
        let (before, wall) = (clock.now(), clock.wall());
        clock.clone().advance(Duration::from_secs(60));
        clock.stop();
        assert_eq!((clock.now() - before, clock.wall()), (Duration::from_secs(60), wall + Duration::from_secs(60)));
    }
}
