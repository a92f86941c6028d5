//! The rate of a fair queue as a pure function of time: the generic cell rate algorithm (GCRA).
//!
//! Tenants' rates use governor. A fair queue needs operations that governor lacks: returning a slot, the wait for the
//! next slot without taking it, a pause, another rate at run time.
//!
//! Invariant: in any span of time, the tokens that are taken are at most the burst plus the tokens that the rate adds
//! in that span.

use std::time::{Duration, Instant};

/// A bucket of `burst` tokens that fills at a rate.
#[derive(Debug)]
pub(super) struct Gcra {
    per_second: u32,
    burst: u32,
    /// The time at which the bucket is full again. It is never further ahead than the time in which an empty bucket
    /// fills, except after [`Gcra::empty_until`].
    full_at: Instant,
}

impl Gcra {
    /// Makes a full bucket. A `per_second` or `burst` of 0 counts as 1.
    pub(super) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        Self { per_second: per_second.max(1), burst: burst.max(1), full_at: now }
    }

    /// Takes a token, or returns the time until there is a token.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        match self.wait(now) {
            Duration::ZERO => {
                self.full_at = self.full_at.max(now) + self.interval();
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// Gives back a token that was not used.
    pub(super) fn give_back(&mut self) {
        self.full_at = self.full_at.checked_sub(self.interval()).unwrap_or(self.full_at);
    }

    /// Returns the time until there is a token.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let spare = self.interval() * (self.burst - 1);
        self.full_at.saturating_duration_since(now).saturating_sub(spare)
    }

    /// Empties the bucket: the next token is there at `until`, and no token is there earlier.
    pub(super) fn empty_until(&mut self, until: Instant) {
        self.full_at = self.full_at.max(until + self.interval() * (self.burst - 1));
    }

    /// Applies another rate and burst; taken tokens stay taken.
    pub(super) fn reshape(&mut self, per_second: u32, burst: u32, now: Instant) {
        let taken = self.full_at.saturating_duration_since(now).as_secs_f64() * f64::from(self.per_second);
        (self.per_second, self.burst) = (per_second.max(1), burst.max(1));
        let taken = taken.min(f64::from(self.burst));
        self.full_at = now + Duration::from_secs_f64(taken / f64::from(self.per_second));
    }

    /// Returns the time from one token to the next.
    pub(super) fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.per_second
    }

    pub(super) fn per_second(&self) -> u32 {
        self.per_second
    }

    pub(super) fn shape(&self) -> (u32, u32) {
        (self.per_second, self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use proptest::prelude::*;

    #[test]
    fn a_burst_then_the_rate_and_never_more_saved_up() {
        let start = Clock::system().now();
        let mut gcra = Gcra::new(50, 5, start);
        for _ in 0..5 {
            assert_eq!(gcra.take(start), Ok(()));
        }
        assert_eq!(gcra.take(start), Err(Duration::from_millis(20)));
        gcra.give_back();
        assert_eq!(gcra.take(start), Ok(()));
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..20).filter(|_| gcra.take(later).is_ok()).count(), 5);
        gcra.empty_until(later + Duration::from_secs(1));
        assert_eq!(gcra.take(later), Err(Duration::from_secs(1)));
        let then = later + Duration::from_secs(1);
        assert_eq!((0..20).filter(|_| gcra.take(then).is_ok()).count(), 1, "no burst after a pause");
    }

    proptest! {
        /// No window contains more taken tokens than the burst and the rate's part of the window. A request that comes
        /// back after the returned time is served.
        #[test]
        fn no_window_holds_more_than_burst_and_rate(
            per_second in 1_u32..200,
            burst in 1_u32..20,
            gaps in prop::collection::vec(0_u64..50_000, 1..300),
        ) {
            let start = Clock::system().now();
            let (mut gcra, mut now, mut taken) = (Gcra::new(per_second, burst, start), start, Vec::new());
            for gap in gaps {
                now += Duration::from_micros(gap);
                match gcra.take(now) {
                    Ok(()) => taken.push(now),
                    Err(wait) => {
                        let mut copy = Gcra { per_second, burst, full_at: gcra.full_at };
                        prop_assert!(copy.take(now + wait).is_ok());
                        prop_assert!(copy.wait(now) >= wait);
                    }
                }
            }
            for (from, first) in taken.iter().enumerate() {
                for (to, last) in taken.iter().enumerate().skip(from) {
                    // Intervals are whole nanoseconds: a thousandth covers their rounding.
                    let most = f64::from(burst) + (*last - *first).as_secs_f64() * f64::from(per_second) + 0.001;
                    prop_assert!((to - from + 1) as f64 <= most);
                }
            }
        }
    }
}
