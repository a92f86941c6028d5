//! The difference between this node's clock and that of the Redis that all nodes share.
//!
//! Invariants: a measured difference is never larger than the real one, and is smaller by at most the time that an
//! answer takes. So no time of this node is converted to a later time than the right one: a request before an erasure
//! does not count as a request after it.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// The time after which a measurement is replaced even by a worse measurement, because clocks are set from time to
/// time.
const FRESH: Duration = Duration::from_secs(10);

/// The best measurement of the last seconds; `None` before the first measurement.
#[derive(Debug, Default)]
pub(super) struct Skew(Mutex<Option<Reading>>);

#[derive(Debug, Clone, Copy)]
struct Reading {
    /// Redis' clock minus this node's clock in milliseconds, or a little less. It is positive if Redis' clock is ahead.
    ahead: i64,
    taken: Instant,
}

impl Skew {
    /// Records a measurement at the time `now`: Redis' clock showed `theirs`, and then this node's clock showed `ours`,
    /// in milliseconds.
    pub(super) fn note(&self, theirs: i64, ours: i64, now: Instant) {
        let mut best = self.0.lock();
        let ahead = theirs.saturating_sub(ours);
        // The fastest answer gives the best measurement.
        if best.is_none_or(|best| ahead > best.ahead || now.saturating_duration_since(best.taken) > FRESH) {
            *best = Some(Reading { ahead, taken: now });
        }
    }

    /// Returns Redis' clock minus this node's clock in milliseconds, or a little less; `None` before the first
    /// measurement.
    pub(super) fn ahead(&self) -> Option<i64> {
        self.0.lock().map(|best| best.ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    #[test]
    fn the_quickest_answer_counts_until_it_is_old() {
        let (skew, start) = (Skew::default(), Clock::system().now());
        assert_eq!(skew.ahead(), None);
        // Redis' clock is 100 ms ahead of this node's; the answers take 30, 2 and 50 ms.
        for (theirs, ours, ahead) in [(1100, 1030, 70), (1200, 1102, 98), (1300, 1250, 98)] {
            skew.note(theirs, ours, start);
            assert_eq!(skew.ahead(), Some(ahead));
        }
        // This node's clock was set meanwhile.
        skew.note(9000, 99_000, start + FRESH);
        assert_eq!(skew.ahead(), Some(98));
        skew.note(9000, 99_000, start + FRESH + Duration::from_millis(1));
        assert_eq!(skew.ahead(), Some(-90_000));
    }
}
