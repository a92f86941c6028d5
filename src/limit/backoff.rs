//! The back-off of one endpoint as plain data: every method takes the time as an argument.
//!
//! Invariants:
//! - The refusal of a probe begins the next step, which has a longer wait.
//! - Other refusals begin no step, so calls that were refused together count as one step.
//! - One call probes at a time.
//! - A success of the probe ends the back-off.

use std::time::{Duration, Instant};

/// The first wait of a back-off, from Iluma's document.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait without a `Retry-After`, before the random addition; from Iluma's document.
const LONGEST: Duration = Duration::from_secs(60);
/// The longest accepted `Retry-After`. A longer value is most likely upstream's mistake, and is cut to this.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);
/// The largest random addition to a wait, as a fraction of the wait. It keeps clients that were refused together from
/// returning together.
pub(super) const JITTER: f64 = 0.3;

/// The back-off of an endpoint that refuses calls. Each step doubles the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backoff {
    step: u32,
    until: Instant,
    /// The number of the probe in flight, if there is one.
    probe: Option<u64>,
}

/// The decision about a call to an endpoint that refuses calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BackoffDecision {
    /// The call may be sent: it finds out if the endpoint accepts calls again.
    Probe,
    /// No call may be sent for this time.
    Wait(Duration),
    /// Another call is probing, and its result is not known yet.
    Probing,
}

/// Upstream's refusal of a call, because the rate of calls was too high.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused {
    /// The number of the refused probe; `None` if the refused call was no probe.
    pub(super) probe: Option<u64>,
    retry_after: Option<Duration>,
    /// A random number from 0 to 1, for the addition to the wait.
    pub(super) random: f64,
}

impl Refused {
    /// Makes a refusal. `retry_after` is the wait that upstream asks for. A wait of more than an hour is cut to an
    /// hour.
    pub(super) fn new(probe: Option<u64>, retry_after: Option<Duration>, random: f64) -> Self {
        Self { probe, retry_after: retry_after.map(|asked| asked.min(LONGEST_ASKED)), random }
    }

    /// Returns the wait that upstream asks for, at most an hour.
    pub(super) const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl Backoff {
    /// Makes the back-off that begins with this first refusal.
    pub(super) fn begin(now: Instant, refused: Refused) -> Self {
        Self { step: 1, until: now + wait(1, refused), probe: None }
    }

    /// Makes the back-off that another node reported: it is at `step`, and its wait ends after `left`.
    pub(super) fn elsewhere(now: Instant, step: u32, left: Duration) -> Self {
        Self { step, until: now + left, probe: None }
    }

    /// Sets the step and the rest of the wait to the values that all nodes share. A probe of this node stays in flight.
    pub(super) fn follow(&mut self, now: Instant, step: u32, left: Duration) {
        (self.step, self.until) = (step, now + left);
    }

    /// Records a further refusal. A refused probe begins the next step. Any other refused call can only prolong the
    /// wait, by its `retry_after`.
    pub(super) fn refuse(&mut self, now: Instant, refused: Refused) {
        if refused.probe.is_some() && refused.probe == self.probe {
            *self = Self { step: self.step.saturating_add(1), until: now, probe: None };
            self.until = now + wait(self.step, refused);
        } else if refused.retry_after.is_some() {
            self.until = self.until.max(now + wait(self.step, refused));
        }
    }

    /// Decides if a call may be sent. A call that may probe becomes the probe `number`.
    pub(super) fn decide(&mut self, now: Instant, number: u64) -> BackoffDecision {
        match self.until.saturating_duration_since(now) {
            Duration::ZERO if self.probe.is_some() => BackoffDecision::Probing,
            Duration::ZERO => {
                self.probe = Some(number);
                BackoffDecision::Probe
            }
            left => BackoffDecision::Wait(left),
        }
    }

    /// Returns true if the probe in flight has this number.
    pub(super) fn is_probe(&self, number: u64) -> bool {
        self.probe == Some(number)
    }

    /// Returns the rest of the wait; zero if it is over.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }

    /// Returns true if the wait is over and no call probes.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until <= now && self.probe.is_none()
    }

    /// Ends the probe `number` without a result, so that the next call may probe.
    pub(super) fn release(&mut self, number: u64) {
        self.probe.take_if(|probe| *probe == number);
    }
}

fn wait(step: u32, Refused { retry_after, random, .. }: Refused) -> Duration {
    let doubled = FIRST.saturating_mul(1_u32.checked_shl(step.saturating_sub(1)).unwrap_or(u32::MAX)).min(LONGEST);
    retry_after.unwrap_or_else(|| doubled.mul_f64(1.0 + JITTER * random.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    const PLAIN: Refused = Refused { probe: None, retry_after: None, random: 0.0 };

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn each_refused_probe_doubles_the_wait_up_to_a_minute() {
        let mut now = Clock::system().now();
        let mut backoff = Backoff::begin(now, PLAIN);
        for (number, expected) in (1..).zip([1, 2, 4, 8, 16, 32, 60, 60]) {
            assert_eq!(backoff.decide(now, number), BackoffDecision::Wait(seconds(expected)));
            now += seconds(expected);
            assert_eq!(backoff.decide(now, number), BackoffDecision::Probe);
            assert_eq!(backoff.decide(now, 100 + number), BackoffDecision::Probing, "one call probes");
            backoff.refuse(now, Refused { probe: Some(number), ..PLAIN });
        }
    }

    #[test]
    fn refusals_of_calls_in_flight_together_are_one_step() {
        let now = Clock::system().now();
        let mut backoff = Backoff::begin(now, PLAIN);
        for _ in 0..10 {
            backoff.refuse(now + Duration::from_millis(500), PLAIN);
        }
        assert_eq!(backoff.decide(now, 1), BackoffDecision::Wait(seconds(1)));
        assert_eq!(backoff.decide(now + seconds(1), 1), BackoffDecision::Probe);
        backoff.refuse(now + seconds(1), PLAIN);
        assert!(backoff.is_probe(1), "an old call's refusal does not end the probe");
    }

    #[test]
    fn a_wait_is_the_one_that_was_asked_for_or_has_at_most_thirty_percent_more() {
        // The wait that other nodes get is the same.
        assert_eq!(Refused::new(None, Some(seconds(86400)), 0.0).retry_after(), Some(seconds(3600)));
        let asked = |retry_after| Refused::new(None, Some(retry_after), 0.0);
        for (step, refused, expected) in [
            (1, Refused { random: 1.0, ..PLAIN }, Duration::from_millis(1300)),
            (7, Refused { random: 0.5, ..PLAIN }, seconds(69)),
            (40, PLAIN, seconds(60)),
            (1, asked(seconds(7)), seconds(7)),
            (5, asked(seconds(7)), seconds(7)),
            (1, asked(seconds(86400)), seconds(3600)),
        ] {
            assert_eq!(wait(step, refused), expected, "step {step}: {refused:?}");
        }
    }

    #[test]
    fn a_probe_without_a_result_leaves_its_place_to_the_next() {
        let now = Clock::system().now();
        let mut backoff = Backoff::begin(now, Refused { retry_after: Some(Duration::ZERO), ..PLAIN });
        assert_eq!(backoff.decide(now, 1), BackoffDecision::Probe);
        backoff.release(2);
        assert_eq!(backoff.decide(now, 2), BackoffDecision::Probing);
        backoff.release(1);
        assert_eq!(backoff.decide(now, 2), BackoffDecision::Probe);
    }
}
