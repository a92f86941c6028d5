//! Bounds on what a team, and all teams together, may ask for: of the gateway, and of Iluma.
//!
//! [`Limits`] is the way in. A request passes `admit` (places, rate of requests) and holds a [`Permit`]; a call passes
//! `admit_call` (quotas, the account's fair queue) and holds a [`CallPermit`].
//!
//! Invariants: a guard owns what was taken from before the first wait, and gives it back however the request ends; a
//! call that was not sent leaves no trace; what is refused later is not charged earlier.

mod fair_queue;
mod gcra;
mod in_flight;
mod limits;
mod permit;
mod queue;
mod quota;
mod rate;
mod refusal;
mod shared;

pub use limits::{Limits, QuotaState};
pub use permit::{CallPermit, Permit};
pub use quota::Spent;
pub use rate::RateState;
pub use refusal::Refusal;
pub use shared::Nodes;
