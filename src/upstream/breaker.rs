//! The circuit breaker of an account: while Iluma is failing, only one probe is sent from time to time.
//!
//! Invariants:
//! - Only Iluma's faults open the circuit: no answer, a broken answer, or a 5xx. Refusals by the gateway and 4xx
//!   answers, 429 included, never open it.
//! - While the circuit is open, only one probe is sent after each cool-off.
//! - One successful probe closes the circuit.
//! - Each opening and each closing writes one log line.

use super::error::CallError;
use crate::base::clock::Clock;
use crate::base::name::AccountName;
use http::StatusCode;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Half of the window in which calls are counted. The current half and the half before it cover 5 to 10 seconds.
const HALF_WINDOW: Duration = Duration::from_secs(5);
/// The smallest number of calls in the window that can open the circuit. Two timeouts in a quiet night are no outage.
const LEAST_CALLS: u32 = 10;
/// The share of failed calls that opens the circuit: one half, as (part, whole).
const FAULTS_OF_CALLS: (u32, u32) = (1, 2);
/// The time from the opening of the circuit to the first probe. It takes the load off Iluma, and still allows a quick
/// return. It doubles with each probe that fails.
const COOL_OFF: Duration = Duration::from_secs(5);
const LONGEST_COOL_OFF: Duration = Duration::from_secs(30);

/// The circuit breaker of one account.
#[derive(Debug)]
pub struct CircuitBreaker {
    account: AccountName,
    state: Mutex<State>,
    clock: Clock,
}

#[derive(Debug)]
struct State {
    /// The counted calls of the current half of the window, then of the half before: (all calls, failed calls).
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

/// The result of a call, as the circuit counts it: no fault, a 5xx status, or an error that is Iluma's fault.
#[derive(Debug, Clone, Copy)]
enum Finding {
    Well,
    Status(StatusCode),
    Error(CallError),
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Well => f.write_str("none"),
            Self::Status(status) => write!(f, "status {}", status.as_u16()),
            Self::Error(error) => error.fmt(f),
        }
    }
}

/// A permit to make one call. If it is dropped before a result is counted, the call does not count.
#[derive(Debug)]
pub struct BreakerPermit {
    breaker: Arc<CircuitBreaker>,
    /// Iluma's host, for log lines.
    host: Arc<str>,
    probe: bool,
}

impl CircuitBreaker {
    /// Makes a circuit breaker whose circuit is closed.
    #[must_use]
    pub fn new(account: &AccountName, clock: &Clock) -> Self {
        let state = State { halves: [(0, 0); 2], since: clock.now(), open: None };
        Self { account: account.clone(), state: Mutex::new(state), clock: clock.clone() }
    }

    /// Gives a permit to make a call to `host`.
    ///
    /// # Errors
    /// Returns a time to wait if the circuit is open: the time until the next probe, or one second while a probe is in
    /// flight.
    pub fn enter(self: &Arc<Self>, host: &Arc<str>) -> Result<BreakerPermit, Duration> {
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
        Ok(BreakerPermit { breaker: Arc::clone(self), host: Arc::clone(host), probe })
    }

    /// Returns true if the circuit is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.lock().open.is_some()
    }

    fn note(&self, finding: Finding, host: &str, probe: bool) {
        let (now, account) = (self.clock.now(), &self.account);
        let fault = !matches!(finding, Finding::Well);
        let mut state = self.state.lock();
        if let Some(open) = &mut state.open {
            // A call that was sent before the circuit opened does not change it.
            if probe && fault {
                open.cool_off = (open.cool_off * 2).min(LONGEST_COOL_OFF);
                open.until = now + open.cool_off;
            } else if probe {
                *state = State { halves: [(0, 0); 2], since: now, open: None };
                drop(state);
                tracing::info!(%account, host, "circuit closed: Iluma answers again");
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
            drop(state);
            let retry_in = COOL_OFF.as_secs();
            tracing::warn!(
                %account, host, cause = %finding, calls, faults, retry_in,
                "circuit open: Iluma is failing; the account's requests are answered 503 until a probe succeeds"
            );
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
    /// Counts the status of an answer.
    pub fn answered(&self, status: StatusCode) {
        let finding = if status.is_server_error() { Finding::Status(status) } else { Finding::Well };
        self.breaker.note(finding, &self.host, self.probe);
    }

    /// Counts a call without a whole answer, if the error is Iluma's fault.
    pub fn failed(&self, error: CallError) {
        if error.is_upstreams_fault() {
            self.breaker.note(Finding::Error(error), &self.host, self.probe);
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

    fn breaker() -> (Arc<CircuitBreaker>, Clock) {
        let clock = Clock::adjustable();
        (Arc::new(CircuitBreaker::new(&"live".parse().unwrap(), &clock)), clock)
    }

    fn enter(breaker: &Arc<CircuitBreaker>) -> Result<BreakerPermit, Duration> {
        breaker.enter(&"iluma.test".into())
    }

    fn call(breaker: &Arc<CircuitBreaker>, status: u16) -> bool {
        let permit = enter(breaker);
        let passed = permit.is_ok();
        if let Ok(permit) = permit {
            permit.answered(StatusCode::from_u16(status).unwrap());
        }
        passed
    }

    #[test]
    fn what_only_fails_is_left_alone_probed_and_taken_up_again() {
        let (breaker, clock) = breaker();
        assert_eq!((0..50).filter(|_| call(&breaker, 503)).count(), LEAST_CALLS as usize);
        assert!(breaker.is_open());
        clock.advance(COOL_OFF);
        let probe = enter(&breaker).unwrap();
        assert_eq!(enter(&breaker).unwrap_err(), Duration::from_secs(1), "one probe at a time");
        probe.failed(CallError::TimedOut);
        drop(probe);
        assert!(enter(&breaker).unwrap_err() > COOL_OFF, "the next look comes later");
        clock.advance(2 * COOL_OFF);
        drop(enter(&breaker).unwrap());
        assert!(breaker.is_open(), "a probe that was not made does not count");
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
        for error in [CallError::ClientCutOff, CallError::ClientTooSlow, CallError::NotProcessed] {
            (0..100).for_each(|_| enter(&breaker).unwrap().failed(error));
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
