//! How often a GET that only looks may be sent once more.
//!
//! Invariant: over time no more than one in ten is, so that a failing upstream is not asked twice by everyone.

use super::{AnswerBody, CallError};
use http::header::RETRY_AFTER;
use http::{Response, StatusCode};
use std::sync::atomic::{AtomicU32, Ordering};

/// What a look adds, and what sending it once more costs.
const LOOK: u32 = 1;
const AGAIN: u32 = 10;
/// What can be saved up: ten, so that a restarting host is met with patience and no flood.
const MOST: u32 = 10 * AGAIN;

/// The budget of one account.
#[derive(Debug)]
pub struct RetryBudget(AtomicU32);

impl RetryBudget {
    /// All that can be saved up.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicU32::new(MOST))
    }

    /// A look is made.
    pub fn note(&self) {
        let add = |budget: u32| Some((budget + LOOK).min(MOST));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Whether another try is to be had; it is spent.
    #[must_use]
    pub fn spend(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |budget| budget.checked_sub(AGAIN)).is_ok()
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether the same may go better at once: no answer, though time is left, or one of a proxy that found nobody. Who says
/// when to come back is not asked before.
#[must_use]
pub fn may_go_better(sent: &Result<Response<AnswerBody>, CallError>) -> bool {
    match sent {
        Ok(response) => {
            let status = response.status();
            let absent = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
            absent.contains(&status) && !response.headers().contains_key(RETRY_AFTER)
        }
        Err(error) => matches!(error, CallError::Unreachable | CallError::Broken),
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
