//! The limits of a team, and of all teams together, for requests to the gateway and for calls to Iluma.
//!
//! [`Limits`] is the entry point. A request passes `admit` (concurrency, rate of requests) and holds a [`Permit`]; a
//! call passes `admit_call` (quotas, the account's fair queue) and holds a [`CallPermit`].
//!
//! Invariants:
//! - A request's guard owns everything that was taken, from before the first wait. It gives everything back, in
//!   whatever way the request ends.
//! - A call that was not sent leaves no trace.
//! - A request that a later limit refuses is not counted by an earlier limit.

mod backoff;
mod endpoints;
mod fair_queue;
mod fields;
mod gcra;
mod in_flight;
mod limits;
mod meter;
mod permit;
mod queue;
mod quota;
mod rate;
mod refusal;
mod shared;

pub use endpoints::Endpoint;
pub use fields::RateLimitFields;
pub use limits::{Call, Limits, QuotaState};
pub use permit::{CallPermit, Permit};
pub use quota::Spent;
pub use rate::RateState;
pub use refusal::Refusal;
pub use shared::{BackoffNews, Nodes};
