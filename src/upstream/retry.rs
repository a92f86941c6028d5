//! The budget for repeated GETs.
//!
//! Invariant: over time at most one GET in ten is repeated, so that clients do not double the load on a failing Iluma.

use super::answer::AnswerBody;
use super::error::CallError;
use http::header::RETRY_AFTER;
use http::{Response, StatusCode};
use std::sync::atomic::{AtomicU32, Ordering};

/// The units that each GET adds to the budget.
const DEPOSIT: u32 = 1;
/// The units that each repetition takes from the budget. With a deposit of 1, one GET in ten can be repeated.
const COST: u32 = 10;
/// The largest budget in units: enough for ten repetitions. So GETs survive the restart of a host, and do not flood it.
const MOST: u32 = 10 * COST;

/// The budget for repeated GETs of one account.
#[derive(Debug)]
pub struct RetryBudget(AtomicU32);

impl RetryBudget {
    /// Makes a full budget.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicU32::new(MOST))
    }

    /// Adds the deposit of one GET to the budget.
    pub fn note(&self) {
        let add = |budget: u32| Some((budget + DEPOSIT).min(MOST));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Takes the cost of one repetition from the budget. Returns false if the budget is too small.
    #[must_use]
    pub fn spend(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |budget| budget.checked_sub(COST)).is_ok()
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns true if an immediate repetition may succeed: Iluma was unreachable, the connection broke, or a proxy could
/// not reach a server (502, 503 or 504). Returns false for an answer with `retry-after`, because its server demands a
/// wait.
#[must_use]
pub fn may_succeed_next(sent: &Result<Response<AnswerBody>, CallError>) -> bool {
    match sent {
        Ok(response) => {
            let status = response.status();
            let absent = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
            absent.contains(&status) && !response.headers().contains_key(RETRY_AFTER)
        }
        Err(error) => match error {
            CallError::Unreachable | CallError::Broken => true,
            CallError::NotProcessed
            | CallError::TimedOut
            | CallError::Garbled
            | CallError::Truncated
            | CallError::TooLarge
            | CallError::ClientTooSlow
            | CallError::ClientCutOff => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_ten_beyond_what_was_saved_up() {
        let budget = RetryBudget::new();
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
        let again = (0..1000).filter(|_| {
            budget.note();
            budget.spend()
        });
        assert_eq!(again.count(), 100);
    }
}
