//! How two clocks differ: ours, and that of the Redis that all nodes share.
//!
//! Invariants: what is read off is never more than the truth, and less by the time that an answer took at the most. So a
//! time of ours is never taken for a later one than it is: what was asked before an erasure is not taken for asked after it.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// How long a reading counts: clocks are set now and then.
const FRESH: Duration = Duration::from_secs(10);

/// The best of the last readings.
#[derive(Debug, Default)]
pub(super) struct Skew(Mutex<Option<Reading>>);

#[derive(Debug, Clone, Copy)]
struct Reading {
    /// Milliseconds that their clock is ahead of ours, at least.
    ahead: i64,
    taken: Instant,
}

impl Skew {
    /// Their clock showed `theirs` before ours shows `ours`, in milliseconds.
    pub(super) fn note(&self, theirs: i64, ours: i64, now: Instant) {
        let mut best = self.0.lock();
        let ahead = theirs.saturating_sub(ours);
        // The one that was under way for the shortest time says most.
        if best.is_none_or(|best| ahead > best.ahead || now.saturating_duration_since(best.taken) > FRESH) {
            *best = Some(Reading { ahead, taken: now });
        }
    }

    /// Milliseconds that their clock is ahead of ours, at least; none before the first reading.
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
        // They are 100 ahead of us; the answers take 30, 2 and 50.
        for (theirs, ours, ahead) in [(1100, 1030, 70), (1200, 1102, 98), (1300, 1250, 98)] {
            skew.note(theirs, ours, start);
            assert_eq!(skew.ahead(), Some(ahead));
        }
        // Our clock was set meanwhile.
        skew.note(9000, 99_000, start + FRESH);
        assert_eq!(skew.ahead(), Some(98));
        skew.note(9000, 99_000, start + FRESH + Duration::from_millis(1));
        assert_eq!(skew.ahead(), Some(-90_000));
    }
}
