//! Suppresses equal diagnostics within a second: one is written, the others are counted.
//!
//! Invariants: the first of equal diagnostics is always written; the number of the suppressed ones is written later, at
//! the latest when the log ends; the table is bounded, and beyond its bound everything is written.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::time::{Duration, Instant};

use super::diagnostic::Diagnostic;

/// The time in which equal diagnostics count as repeated.
const SPAN: Duration = Duration::from_secs(1);

/// The largest number of different diagnostics that are tracked: far more than a second of trouble produces.
const MOST: usize = 256;

/// The diagnostics that were written within the last second or are still repeated, by the hash of their content.
#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<HashMap<u64, Repeat>>);

#[derive(Debug)]
struct Repeat {
    since: Instant,
    left_out: u64,
    first: Diagnostic,
}

impl Repeats {
    /// Returns true if the diagnostic is to be written. Otherwise an equal diagnostic was written within the last
    /// second, and this diagnostic is counted as left out.
    pub(super) fn admit(&self, diagnostic: &Diagnostic, now: Instant) -> bool {
        let mut hasher = DefaultHasher::new();
        diagnostic.hash_content(&mut hasher);
        let mut repeats = self.0.lock();
        let key = hasher.finish();
        if let Some(repeat) = repeats.get_mut(&key) {
            repeat.left_out += 1;
            return false;
        }
        if repeats.len() < MOST {
            repeats.insert(key, Repeat { since: now, left_out: 0, first: diagnostic.clone() });
        }
        true
    }

    /// Returns each diagnostic that had suppressed repeats and whose second is over, with the number of these repeats.
    /// If `last` is true, the log ends: diagnostics whose second is not over are returned too.
    pub(super) fn take(&self, now: Instant, last: bool) -> Vec<(Diagnostic, u64)> {
        let mut over = Vec::new();
        self.0.lock().retain(|_, repeat| {
            if !last && now.saturating_duration_since(repeat.since) < SPAN {
                return true;
            }
            if repeat.left_out == 0 {
                return false;
            }
            over.push((repeat.first.clone(), std::mem::take(&mut repeat.left_out)));
            repeat.since = now;
            true
        });
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    fn of(account: &str, request: u64) -> Diagnostic {
        Diagnostic::made("circuit open", &[("account", account.into()), ("request_id", request.to_string().into())])
    }

    #[test]
    fn equal_ones_are_written_once_a_second_and_the_others_counted() {
        let (repeats, start) = (Repeats::default(), Clock::system().now());
        let admitted = (0..100).filter(|&n| repeats.admit(&of("live", n), start)).count();
        assert_eq!(admitted, 1, "a request id makes no difference");
        assert!(repeats.admit(&of("dev", 0), start), "another account is another matter");
        assert!(repeats.take(start + SPAN / 2, false).is_empty(), "the second is not over");
        let counted: Vec<u64> = repeats.take(start + SPAN, false).into_iter().map(|(_, left_out)| left_out).collect();
        assert_eq!(counted, [99]);
        // The series continues, and is counted second by second.
        assert!(!repeats.admit(&of("live", 0), start + SPAN));
        let counted: Vec<u64> = repeats.take(start + SPAN * 2, false).iter().map(|(_, left_out)| *left_out).collect();
        assert_eq!(counted, [1]);
        // The series has ended: the next diagnostic is a first one again.
        assert!(repeats.take(start + SPAN * 3, false).is_empty());
        assert!(repeats.admit(&of("live", 0), start + SPAN * 3));
    }

    #[test]
    fn the_end_tells_what_was_left_out_at_once() {
        let (repeats, start) = (Repeats::default(), Clock::system().now());
        assert!(repeats.admit(&of("live", 0), start) && !repeats.admit(&of("live", 0), start));
        assert_eq!(repeats.take(start, true).len(), 1);
    }

    #[test]
    fn more_than_can_be_watched_is_written() {
        let (repeats, start) = (Repeats::default(), Clock::system().now());
        for n in 0..2 * MOST {
            assert!(repeats.admit(&of(&n.to_string(), 0), start));
        }
        assert_eq!(repeats.0.lock().len(), MOST);
    }
}
