//! Limits that one process keeps by itself.

use crate::base::clock::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SECOND: f64 = 1e9;

/// A rate with a burst, by GCRA: a bucket of `burst` tokens that fills at `per_second`. Of both this process may have a
/// part only, which changes while it runs: the other nodes have the rest. Every request passes here, so it is a few
/// atomics.
#[derive(Debug)]
pub(super) struct Rate {
    clock: Clock,
    start: Instant,
    per_second: u32,
    burst: u32,
    /// In nanoseconds since the start: when the bucket will be full again.
    full_at: AtomicU64,
    /// Nanoseconds from one token to the next.
    interval: AtomicU64,
    /// Nanoseconds that the bucket holds beyond one token.
    spare: AtomicU64,
    /// Requests that came, admitted or not.
    asked: AtomicU64,
}

impl Rate {
    /// None where either number is 0, which the configuration does not let through.
    pub(super) fn new(per_second: u32, burst: u32, clock: &Clock) -> Option<Self> {
        if per_second == 0 || burst == 0 {
            return None;
        }
        let (interval, spare) = shape(per_second, burst, 1.0);
        Some(Self {
            clock: clock.clone(),
            start: clock.now(),
            per_second,
            burst,
            full_at: AtomicU64::new(0),
            interval: AtomicU64::new(interval),
            spare: AtomicU64::new(spare),
            asked: AtomicU64::new(0),
        })
    }

    /// Takes a token, or says how long until there is one.
    pub(super) fn take(&self) -> Result<(), Duration> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let now = self.now();
        let (interval, spare) = (self.interval.load(Ordering::Relaxed), self.spare.load(Ordering::Relaxed));
        let take = |full: u64| {
            let full = full.max(now);
            (full - now <= spare).then(|| full.saturating_add(interval))
        };
        match self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(full) => Err(Duration::from_nanos((full - now).saturating_sub(spare))),
        }
    }

    /// From now on this process has such a part of the rate. What is in the bucket stays in it, if it has room: so none
    /// of it is had twice when parts go from one node to another.
    pub(super) fn take_part(&self, part: f64) {
        let (interval, spare) = shape(self.per_second, self.burst, part);
        let before = (self.interval.swap(interval, Ordering::Relaxed), self.spare.swap(spare, Ordering::Relaxed));
        let now = self.now();
        let restate = |full: u64| {
            let missing = full.saturating_sub(now);
            let held = u128::from((before.0 + before.1).saturating_sub(missing));
            // In the new measure of a token.
            let held = u64::try_from(held * u128::from(interval) / u128::from(before.0.max(1))).unwrap_or(u64::MAX);
            Some(now + (interval + spare).saturating_sub(held))
        };
        let _ = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, restate);
    }

    /// Requests that came since this was asked last.
    pub(super) fn asked(&self) -> u64 {
        self.asked.swap(0, Ordering::Relaxed)
    }

    pub(super) fn per_second(&self) -> u32 {
        self.per_second
    }

    pub(super) fn burst(&self) -> u64 {
        self.burst.into()
    }

    /// How long an empty bucket takes to fill.
    pub(super) fn window(&self) -> Duration {
        Duration::from_secs(1) * self.burst / self.per_second
    }

    pub(super) fn shape(&self) -> (u32, u32) {
        (self.per_second, self.burst)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.now().saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The nanoseconds from one token to the next, and those that the bucket holds beyond one, of a part of a rate.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between a nanosecond and eleven days")]
fn shape(per_second: u32, burst: u32, part: f64) -> (u64, u64) {
    let part = part.clamp(1e-6, 1.0);
    let interval = SECOND / (f64::from(per_second) * part);
    let burst = (f64::from(burst) * part).max(1.0);
    (interval as u64, (interval * (burst - 1.0)) as u64)
}

/// What part of a rate is a node's: by what it was asked for of what all were, and of what nobody wants as much as any
/// other. Even who was asked for nothing has a little, for the request that comes next.
#[allow(clippy::cast_precision_loss, reason = "requests in a second are far below 2^52")]
pub(super) fn part(per_second: u32, mine: u64, all: u64, nodes: u32) -> f64 {
    let (rate, nodes) = (f64::from(per_second), f64::from(nodes.max(1)));
    let (mine, all) = (mine as f64, all.max(mine) as f64);
    if all < rate {
        return (mine + (rate - all) / nodes) / rate;
    }
    let least = LEAST_PART / nodes;
    least + (1.0 - LEAST_PART) * mine / all
}

/// What is kept for those who are asked for nothing: far below what the limit may be off by.
const LEAST_PART: f64 = 0.03;

/// A bound on how many are inside at once; none still counts them.
#[derive(Debug)]
pub(super) struct InFlight {
    inside: Arc<AtomicUsize>,
    most: Option<usize>,
}

/// One who is inside, until dropped.
#[derive(Debug)]
pub(super) struct InFlightSlot(Option<Arc<AtomicUsize>>);

impl InFlight {
    pub(super) fn new(most: Option<usize>) -> Self {
        Self { inside: Arc::default(), most }
    }

    pub(super) fn enter(&self) -> Option<InFlightSlot> {
        let before = self.inside.fetch_add(1, Ordering::Relaxed);
        let place = InFlightSlot(Some(Arc::clone(&self.inside)));
        // Dropping the place takes back what was added.
        if self.most.is_some_and(|most| before >= most) { None } else { Some(place) }
    }

    pub(super) fn most(&self) -> Option<u64> {
        self.most.and_then(|most| u64::try_from(most).ok())
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.inside.load(Ordering::Relaxed)
    }
}

impl InFlightSlot {
    /// A place where nobody counts.
    pub(super) const fn free() -> Self {
        Self(None)
    }
}

impl Drop for InFlightSlot {
    fn drop(&mut self) {
        if let Some(inside) = &self.0 {
            inside.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_let_through_at_once_and_then_the_rate() {
        let clock = Clock::adjustable();
        let rate = Rate::new(10, 3, &clock).unwrap();
        for _ in 0..3 {
            assert_eq!(rate.take(), Ok(()));
        }
        let wait = rate.take().unwrap_err();
        assert!(wait <= Duration::from_millis(100) && wait > Duration::from_millis(50), "{wait:?}");
        clock.advance(Duration::from_millis(100));
        assert_eq!(rate.take(), Ok(()));
        assert!(rate.take().is_err());
        assert_eq!(rate.window(), Duration::from_millis(300));
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_of_a_rate_is_that_part_and_changes_without_a_jump() {
        let clock = Clock::adjustable();
        let rate = Rate::new(90, 9, &clock).unwrap();
        rate.take_part(1.0 / 3.0);
        assert_eq!((0..100).filter(|_| rate.take().is_ok()).count(), 3);
        let passed = |seconds: u32| {
            let step = || {
                clock.advance(Duration::from_millis(1));
                (0..2).filter(|_| rate.take().is_ok()).count()
            };
            (0..seconds * 1000).map(|_| step()).sum::<usize>()
        };
        assert!((299..=301).contains(&passed(10)));
        rate.take_part(1.0);
        assert!(rate.take().is_err(), "an empty bucket stays empty");
        assert!((895..=901).contains(&passed(10)));
        assert!(rate.asked() > 40_000);
    }

    #[test]
    fn parts_add_up_to_the_rate_whoever_asks() {
        for asked in [[0, 0, 0], [100, 0, 0], [400, 10, 10], [500, 500, 500], [1, 2, 60], [1000, 1, 0]] {
            let all = asked.iter().sum();
            let parts = asked.map(|mine| part(50, mine, all, 3));
            assert!((parts.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{asked:?}: {parts:?}");
            assert!(parts.iter().all(|part| *part >= 0.009), "{asked:?}: {parts:?}");
        }
        assert!(part(50, 1000, 1000, 3) >= 0.97);
    }

    #[test]
    fn a_place_is_given_back_when_dropped_and_a_refused_one_leaves_no_trace() {
        let limit = InFlight::new(Some(2));
        let (first, _second) = (limit.enter().unwrap(), limit.enter().unwrap());
        assert!(limit.enter().is_none());
        assert!(limit.enter().is_none());
        assert_eq!(limit.count(), 2);
        drop(first);
        assert!(limit.enter().is_some());
    }
}
