//! A circuit breaker: while upstream only fails for an account, it is left alone, and looked at from time to time.
//!
//! Invariants: upstream's faults alone open it (no answer, a broken one, a 5xx), never what we refuse ourselves and never
//! a 4xx, 429 included; while it is open nothing is sent but one probe after each cool-off; one probe that succeeds
//! closes it.

use super::CallError;
use crate::base::clock::Clock;
use http::StatusCode;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is looked at: the half that runs and the one before, so 5 to 10 seconds.
const HALF_WINDOW: Duration = Duration::from_secs(5);
/// Fewer calls than this say nothing: a quiet night's two timeouts are no outage.
const LEAST_CALLS: u32 = 10;
/// As many as succeed must fail.
const FAULTS_OF_CALLS: (u32, u32) = (1, 2);
/// The first cool-off: long enough to take the load off, short enough to be back soon. It doubles with each probe that
/// fails.
const COOL_OFF: Duration = Duration::from_secs(5);
const LONGEST_COOL_OFF: Duration = Duration::from_secs(30);

/// The breaker of one account.
#[derive(Debug)]
pub struct Breaker {
    state: Mutex<State>,
    clock: Clock,
}

#[derive(Debug)]
struct State {
    /// Calls and faults of the half window that runs, and of the one before.
    halves: [(u32, u32); 2],
    since: Instant,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    cool_off: Duration,
    probing: bool,
}

/// Leave to make one call. Dropped without a word it says nothing of upstream.
#[derive(Debug)]
pub struct BreakerPermit {
    breaker: Arc<Breaker>,
    probe: bool,
}

impl Breaker {
    /// Closed.
    #[must_use]
    pub fn new(clock: &Clock) -> Self {
        let state = State { halves: [(0, 0); 2], since: clock.now(), open: None };
        Self { state: Mutex::new(state), clock: clock.clone() }
    }

    /// Leave to make a call.
    ///
    /// # Errors
    /// It is open: when to come back.
    pub fn enter(self: &Arc<Self>) -> Result<BreakerPermit, Duration> {
        let mut state = self.state.lock();
        let mut probe = false;
        if let Some(open) = &mut state.open {
            let wait = open.until.saturating_duration_since(self.clock.now());
            if !wait.is_zero() {
                return Err(wait);
            }
            if open.probing {
                return Err(Duration::from_secs(1));
            }
            open.probing = true;
            probe = true;
        }
        drop(state);
        Ok(BreakerPermit { breaker: Arc::clone(self), probe })
    }

    /// Whether upstream is left alone.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.lock().open.is_some()
    }

    fn note(&self, fault: bool, probe: bool) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if let Some(open) = &mut state.open {
            // What was sent before it opened says nothing new.
            if probe && fault {
                open.cool_off = (open.cool_off * 2).min(LONGEST_COOL_OFF);
                open.until = now + open.cool_off;
            } else if probe {
                *state = State { halves: [(0, 0); 2], since: now, open: None };
                tracing::info!("the circuit is closed: Iluma answers again");
            }
            return;
        }
        state.turn_over(now);
        state.halves[0].0 += 1;
        state.halves[0].1 += u32::from(fault);
        let (calls, faults) = (state.halves[0].0 + state.halves[1].0, state.halves[0].1 + state.halves[1].1);
        let (part, whole) = FAULTS_OF_CALLS;
        if fault && calls >= LEAST_CALLS && faults * whole >= calls * part {
            state.open = Some(Open { until: now + COOL_OFF, cool_off: COOL_OFF, probing: false });
            tracing::warn!(calls, faults, "the circuit is open: Iluma fails, nothing is sent");
        }
    }

    fn leave(&self, probe: bool) {
        if probe && let Some(open) = &mut self.state.lock().open {
            open.probing = false;
        }
    }
}

impl State {
    fn turn_over(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed >= HALF_WINDOW {
            self.halves = if passed < 2 * HALF_WINDOW { [(0, 0), self.halves[0]] } else { [(0, 0); 2] };
            self.since = now;
        }
    }
}

impl BreakerPermit {
    /// Upstream answered.
    pub fn answered(&self, status: StatusCode) {
        self.breaker.note(status.is_server_error(), self.probe);
    }

    /// There is no answer, or no whole one.
    pub fn failed(&self, error: CallError) {
        match error {
            // The client's fault.
            CallError::ClientTooSlow | CallError::ClientCutOff => {}
            CallError::Unreachable
            | CallError::TimedOut
            | CallError::Broken
            | CallError::Garbled
            | CallError::Truncated
            | CallError::TooLarge => self.breaker.note(true, self.probe),
        }
    }
}

impl Drop for BreakerPermit {
    fn drop(&mut self) {
        self.breaker.leave(self.probe);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> (Arc<Breaker>, Clock) {
        let clock = Clock::adjustable();
        (Arc::new(Breaker::new(&clock)), clock)
    }

    fn call(breaker: &Arc<Breaker>, status: u16) -> bool {
        let passage = breaker.enter();
        let passed = passage.is_ok();
        if let Ok(passage) = passage {
            passage.answered(StatusCode::from_u16(status).unwrap());
        }
        passed
    }

    #[test]
    fn what_only_fails_is_left_alone_probed_and_taken_up_again() {
        let (breaker, clock) = breaker();
        assert_eq!((0..50).filter(|_| call(&breaker, 503)).count(), LEAST_CALLS as usize);
        assert!(breaker.is_open());
        clock.advance(COOL_OFF);
        let probe = breaker.enter().unwrap();
        assert_eq!(breaker.enter().unwrap_err(), Duration::from_secs(1), "one probe at a time");
        probe.failed(CallError::TimedOut);
        drop(probe);
        assert!(breaker.enter().unwrap_err() > COOL_OFF, "the next look comes later");
        clock.advance(2 * COOL_OFF);
        drop(breaker.enter().unwrap());
        assert!(breaker.is_open(), "a probe that was not made says nothing");
        assert!(call(&breaker, 200));
        assert!(!breaker.is_open());
        assert_eq!((0..50).filter(|_| call(&breaker, 200)).count(), 50);
    }

    #[test]
    fn refusals_of_any_kind_never_open_it() {
        let (breaker, _clock) = breaker();
        for status in [429, 400, 404, 401, 200] {
            assert!((0..100).all(|_| call(&breaker, status)), "{status}");
        }
        for error in [CallError::ClientCutOff, CallError::ClientTooSlow] {
            (0..100).for_each(|_| breaker.enter().unwrap().failed(error));
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_few_faults_among_many_calls_and_old_ones_do_not_open_it() {
        let (breaker, clock) = breaker();
        for n in 0..100 {
            assert!(call(&breaker, if n % 3 == 0 { 500 } else { 200 }));
        }
        clock.advance(4 * HALF_WINDOW);
        assert!((0..LEAST_CALLS - 1).all(|_| call(&breaker, 500)));
        assert!(!breaker.is_open());
        clock.advance(4 * HALF_WINDOW);
        assert!(call(&breaker, 500));
        assert!(!breaker.is_open());
    }
}
