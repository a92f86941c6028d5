//! Limits that one process keeps by itself.

use crate::clock::Clock;
use governor::clock::Clock as _;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A rate with a burst, by GCRA: a bucket of `burst` tokens that fills at `per_second`.
#[derive(Debug)]
pub(super) struct Rate {
    limiter: RateLimiter<NotKeyed, InMemoryState, Ticks>,
    clock: Ticks,
    per_second: NonZeroU32,
    burst: NonZeroU32,
}

impl Rate {
    /// None where either number is 0, which the configuration does not let through.
    pub(super) fn new(per_second: u32, burst: u32, clock: &Clock) -> Option<Self> {
        let (per_second, burst) = (NonZeroU32::new(per_second)?, NonZeroU32::new(burst)?);
        let clock = Ticks(clock.clone());
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Some(Self { limiter: RateLimiter::direct_with_clock(quota, clock.clone()), clock, per_second, burst })
    }

    /// Takes a token, or says how long until there is one.
    pub(super) fn take(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|until| until.wait_time_from(self.clock.now()))
    }

    pub(super) fn burst(&self) -> u64 {
        self.burst.get().into()
    }

    /// How long an empty bucket takes to fill.
    pub(super) fn window(&self) -> Duration {
        Duration::from_secs(1) * self.burst.get() / self.per_second.get()
    }

    pub(super) fn shape(&self) -> (u32, u32) {
        (self.per_second.get(), self.burst.get())
    }
}

/// Our clock as governor's.
#[derive(Clone, Debug)]
struct Ticks(Clock);

impl governor::clock::Clock for Ticks {
    type Instant = Instant;

    fn now(&self) -> Instant {
        self.0.now()
    }
}

/// A bound on how many are inside at once; none still counts them.
#[derive(Debug)]
pub(super) struct InFlight {
    inside: Arc<AtomicUsize>,
    most: Option<usize>,
}

/// One who is inside, until dropped.
#[derive(Debug)]
pub(super) struct Place(Option<Arc<AtomicUsize>>);

impl InFlight {
    pub(super) fn new(most: Option<usize>) -> Self {
        Self { inside: Arc::default(), most }
    }

    pub(super) fn enter(&self) -> Option<Place> {
        let before = self.inside.fetch_add(1, Ordering::Relaxed);
        let place = Place(Some(Arc::clone(&self.inside)));
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

impl Place {
    /// A place where nobody counts.
    pub(super) const fn free() -> Self {
        Self(None)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(inside) = &self.0 {
            inside.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_at_once_and_then_the_rate() {
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
