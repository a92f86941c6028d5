//! The rate of one tenant's requests with a burst, using governor.
//!
//! Invariants: a node admits no more than its part of burst and rate; when the part changes, the node keeps the
//! requests in its bucket as far as there is room, so no node gets a burst twice; reading the rate takes nothing.

use crate::base::clock::Clock;
use arc_swap::ArcSwap;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, RateLimiter, StateStore};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SECOND: f64 = 1e9;
/// The part of the rate that all nodes share equally while demand exceeds the rate. With it, a node that had no
/// requests can admit its next request. It is far below the tolerance of the limit.
const LEAST_PART: f64 = 0.03;
/// The smallest part of a rate. For a rate of one request per second, it is one request in eleven days.
const SMALLEST_PART: f64 = 1e-6;

/// A rate of requests with a burst, of which this node has a part.
#[derive(Debug)]
pub(super) struct Rate {
    clock: RateClock,
    per_second: NonZeroU32,
    burst: NonZeroU32,
    arrival: Arc<AtomicU64>,
    part: ArcSwap<Part>,
    /// The number of requests since it was last read, admitted or not.
    asked: AtomicU64,
}

/// The state of a tenant's rate at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateState {
    /// The number of requests that would be admitted now.
    pub remaining: u32,
    /// The time until the whole burst is available again.
    pub full_in: Duration,
}

impl Rate {
    /// Makes a rate with a full burst. Returns `None` if either number is 0, which the configuration excludes.
    pub(super) fn new(per_second: u32, burst: u32, clock: &Clock) -> Option<Self> {
        let (per_second, burst) = (NonZeroU32::new(per_second)?, NonZeroU32::new(burst)?);
        let clock = RateClock { clock: clock.clone(), origin: clock.now() };
        let arrival = Arc::default();
        let part = ArcSwap::from_pointee(Part::new(per_second, burst, 1.0, &arrival, &clock));
        Some(Self { clock, per_second, burst, arrival, part, asked: AtomicU64::new(0) })
    }

    /// Takes one request from the rate, or returns the time until a request would be admitted.
    pub(super) fn take(&self) -> Result<(), Duration> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.part.load().limiter.check().map_err(|not_until| not_until.wait_time_from(self.clock.nanos()))
    }

    /// Gives back one request that was [taken](Rate::take).
    pub(super) fn give_back(&self) {
        let interval = self.part.load().interval;
        // A moment in the past means a full bucket, which holds no more.
        let _ = self.arrival.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| Some(at.saturating_sub(interval)));
    }

    /// Reads the rate without taking a request.
    pub(super) fn state(&self) -> RateState {
        let part = self.part.load();
        let missing = self.arrival.load(Ordering::Relaxed).saturating_sub(self.clock.now_nanos());
        let remaining = part.window().saturating_sub(missing) / part.interval;
        RateState { remaining: u32::try_from(remaining).unwrap_or(u32::MAX), full_in: Duration::from_nanos(missing) }
    }

    /// Gives this node another part of the rate, from 0 to 1.
    pub(super) fn take_part(&self, part: f64) {
        let before = self.part.load_full();
        let next = Part::new(self.per_second, self.burst, part, &self.arrival, &self.clock);
        if (before.interval, before.burst) == (next.interval, next.burst) {
            return;
        }
        let now = self.clock.now_nanos();
        let rescaled = |arrival| Some(rescaled(arrival, now, &before, &next));
        let _ = self.arrival.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rescaled);
        self.part.store(Arc::new(next));
    }

    /// Returns the number of requests since the last call of this method.
    pub(super) fn asked(&self) -> u64 {
        self.asked.swap(0, Ordering::Relaxed)
    }

    pub(super) fn per_second(&self) -> u32 {
        self.per_second.get()
    }

    pub(super) fn burst(&self) -> u64 {
        self.burst.get().into()
    }

    /// Returns the time in which an empty bucket fills.
    pub(super) fn window(&self) -> Duration {
        Duration::from_secs(1) * self.burst.get() / self.per_second.get()
    }

    pub(super) fn shape(&self) -> (u32, u32) {
        (self.per_second.get(), self.burst.get())
    }
}

/// This node's part of a rate. A governor limiter can't change its quota, so another part needs another limiter with
/// the same arrival time.
#[derive(Debug)]
struct Part {
    limiter: RateLimiter<NotKeyed, ArrivalTime, RateClock, NoOpMiddleware<Nanos>>,
    /// The nanoseconds between two requests.
    interval: u64,
    burst: u32,
}

impl Part {
    fn new(per_second: NonZeroU32, burst: NonZeroU32, part: f64, arrival: &Arc<AtomicU64>, clock: &RateClock) -> Self {
        let (interval, burst) = shape(per_second.get(), burst, part);
        let quota = governor::Quota::with_period(Duration::from_nanos(interval))
            // An interval is at least a nanosecond: no rate exceeds a million a second.
            .unwrap_or(governor::Quota::per_second(per_second))
            .allow_burst(burst);
        // The limiter counts its own time from here on.
        let state = ArrivalTime { at: Arc::clone(arrival), start: clock.now_nanos() };
        Self { limiter: RateLimiter::new(quota, state, clock.clone()), interval, burst: burst.get() }
    }

    /// Returns the nanoseconds in which an empty bucket fills.
    fn window(&self) -> u64 {
        self.interval.saturating_mul(self.burst.into())
    }
}

/// The arrival time of GCRA: the moment at which the bucket will be full again, in nanoseconds since the rate was made.
/// The limiters of all parts use the same `at`; each limiter counts its own time from `start`.
#[derive(Debug)]
struct ArrivalTime {
    at: Arc<AtomicU64>,
    start: u64,
}

impl StateStore for ArrivalTime {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut at = self.at.load(Ordering::Relaxed);
        loop {
            // A time before the start means a full bucket, as `None` does.
            let (outcome, next) = decide(at.checked_sub(self.start).map(Nanos::from))?;
            let next = self.start.saturating_add(next.into());
            match self.at.compare_exchange_weak(at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(outcome),
                Err(changed) => at = changed,
            }
        }
    }
}

/// The gateway's clock for governor.
#[derive(Debug, Clone)]
struct RateClock {
    clock: Clock,
    origin: Instant,
}

impl RateClock {
    fn now_nanos(&self) -> u64 {
        u64::try_from(self.clock.now().saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }

    fn nanos(&self) -> Nanos {
        self.now_nanos().into()
    }
}

impl governor::clock::Clock for RateClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.nanos()
    }
}

/// Returns, for a part of a rate, the nanoseconds between two requests, and the burst. Both are rounded so that all
/// parts together do not exceed the whole. There is one exception: each node's burst is at least one request.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from a nanosecond to eleven days; a burst is a u32"
)]
fn shape(per_second: u32, burst: NonZeroU32, part: f64) -> (u64, NonZeroU32) {
    let part = part.clamp(SMALLEST_PART, 1.0);
    let interval = (SECOND / (f64::from(per_second) * part)).ceil() as u64;
    // A third of nine must be three, despite floating point.
    let burst = (f64::from(burst.get()) * part + 1e-6).floor() as u32;
    (interval.max(1), NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN))
}

/// Converts the arrival time for another part of the rate. The requests in the bucket stay there, if they fit.
fn rescaled(arrival: u64, now: u64, before: &Part, next: &Part) -> u64 {
    let held = before.window().saturating_sub(arrival.saturating_sub(now));
    let held = u128::from(held) * u128::from(next.interval) / u128::from(before.interval.max(1));
    now + next.window().saturating_sub(u64::try_from(held).unwrap_or(u64::MAX))
}

/// Returns a node's part of a rate, from 0 to 1. While the demand of all nodes is below the rate, a node gets its own
/// demand and an equal share of the rest. Otherwise it gets its share of the demand, and a small equal part for its
/// next request. `mine` and `all` are the requests per second at this node and at all nodes.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        rate.give_back();
        assert_eq!(rate.take(), Ok(()));
        assert!(rate.take().is_err(), "one was given back, and no more");
        (0..9).for_each(|_| rate.give_back());
        assert_eq!((0..9).filter(|_| rate.take().is_ok()).count(), 3, "a full bucket holds no more than the burst");
    }

    #[tokio::test(start_paused = true)]
    async fn reading_a_rate_consumes_nothing_and_says_what_would_be_admitted() {
        let clock = Clock::adjustable();
        let rate = Rate::new(10, 3, &clock).unwrap();
        let state = |remaining, full_in| RateState { remaining, full_in: Duration::from_millis(full_in) };
        for _ in 0..100 {
            assert_eq!(rate.state(), state(3, 0));
        }
        rate.take().unwrap();
        assert_eq!(rate.state(), state(2, 100));
        clock.advance(Duration::from_millis(50));
        assert_eq!(rate.state(), state(2, 50));
        rate.take_part(1.0 / 3.0);
        assert_eq!(rate.state(), state(1, 0), "two do not fit into a third of the burst");
        rate.take().unwrap();
        assert_eq!(rate.state(), state(0, 300));
        assert_eq!(rate.take(), Err(Duration::from_millis(300)));
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

    /// Nodes that share one rate. Each second they exchange their numbers of requests, and take their parts.
    struct Nodes {
        clock: Clock,
        rates: [Rate; 3],
    }

    impl Nodes {
        fn new(per_second: u32, burst: u32) -> Self {
            let clock = Clock::adjustable();
            let rates = [(); 3].map(|()| Rate::new(per_second, burst, &clock).unwrap());
            rates.iter().for_each(|rate| rate.take_part(1.0 / 3.0));
            Self { clock, rates }
        }

        fn heartbeat(&self) {
            let asked = self.rates.each_ref().map(Rate::asked);
            for (rate, mine) in self.rates.iter().zip(asked) {
                rate.take_part(part(rate.per_second(), mine, asked.iter().sum(), 3));
            }
        }

        /// Simulates a second in which node `n` gets `demand[n]` requests; returns the number of admitted ones.
        fn second(&self, demand: [u32; 3]) -> usize {
            let mut admitted = 0;
            for step in 0..100 {
                for (rate, demand) in self.rates.iter().zip(demand) {
                    let asks = (step + 1) * demand / 100 - step * demand / 100;
                    admitted += (0..asks).filter(|_| rate.take().is_ok()).count();
                }
                self.clock.advance(Duration::from_millis(10));
            }
            self.heartbeat();
            admitted
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Three nodes that share a rate admit as many requests as one node would, in whatever proportion the requests
        /// arrive.
        #[test]
        fn one_a_second_shared_by_three_nodes_admits_sixty_a_minute(
            demand in prop::collection::vec(prop::array::uniform3(20_u32..100), 60),
        ) {
            let nodes = Nodes::new(1, 1);
            let admitted: usize = demand.into_iter().map(|demand| nodes.second(demand)).sum();
            prop_assert!((57..=63).contains(&admitted), "{admitted} in a minute");
        }

        /// All nodes together admit the burst once, one more request for each node, and then the rate. This holds for
        /// any sequence of demands and of parts.
        #[test]
        fn a_burst_is_never_had_twice(
            burst in 1_u32..40,
            demand in prop::collection::vec(prop::array::uniform3(prop_oneof![Just(0_u32), 1_u32..50]), 30),
        ) {
            let nodes = Nodes::new(1, burst);
            let mut admitted = 0;
            for (seconds, demand) in (1_usize..).zip(demand) {
                admitted += nodes.second(demand);
                prop_assert!(admitted <= burst as usize + 3 + seconds, "{admitted} after {seconds} s");
            }
        }
    }
}
