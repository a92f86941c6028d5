//! The type of a refusal for a limit, and its message.

use crate::config::Limit;
use std::time::Duration;

/// The reason why a request or a call is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A limit of the tenant or of its account is exceeded. The answer is a 429.
    #[error("{}", what_is_exceeded(*limit))]
    Exceeded {
        /// The limit.
        limit: Limit,
        /// The number that the limit allows.
        quota: u64,
        /// The period for which the number is allowed, if the limit is a rate.
        window: Option<Duration>,
        /// The time after which to try again.
        retry_after: Duration,
    },
    /// The account backs off from the call's endpoint for longer than a request waits. The answer is a 429.
    #[error("Iluma refuses calls to this endpoint because of their rate, so nothing was sent; wait for retry-after")]
    BackingOff {
        /// The time after which to try again.
        retry_after: Duration,
    },
    /// The gateway has as many requests in flight as allowed. The answer is a 503: nothing was sent.
    #[error("the gateway is at its limit of requests in flight, so nothing was sent; try again later")]
    Overloaded,
}

impl Refusal {
    /// Returns true if the refusal concerns a call, whose request was admitted before. Returns false if it concerns the
    /// request itself.
    #[must_use]
    pub const fn is_of_a_call(&self) -> bool {
        match self {
            Self::Exceeded { limit: Limit::Requests | Limit::InFlight, .. } | Self::Overloaded => false,
            Self::Exceeded {
                limit: Limit::Account | Limit::QuotaDay | Limit::QuotaMonth | Limit::BudgetMonth, ..
            }
            | Self::BackingOff { .. } => true,
        }
    }
}

const fn what_is_exceeded(limit: Limit) -> &'static str {
    match limit {
        Limit::Requests | Limit::InFlight => {
            "the rate limit of this team is exceeded, so nothing was sent; wait for retry-after"
        }
        Limit::Account => "too many calls to Iluma wait in the queue, so nothing was sent; wait for retry-after",
        Limit::QuotaDay => "this team's calls to Iluma of the day are used up, so nothing was sent",
        Limit::QuotaMonth => "this team's calls to Iluma of the month are used up, so nothing was sent",
        Limit::BudgetMonth => {
            "the rest of this team's budget of the month is less than the price of this call, so nothing was sent"
        }
    }
}
