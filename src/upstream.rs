//! The client of Iluma: connections, requests and answers, credentials, circuit breaker.
//!
//! Invariants:
//! - A request that may change or cost something is sent again only if Iluma processed nothing of it. Either no byte of
//!   the request left this process, or the protocol proves it.
//! - Every request to Iluma carries the account's credential, except health requests.
//! - No answer shows the credential. The exception is a success in a content encoding, which passes without a search.
//! - Every wait has a deadline.
//! - A connection returns to the pool only between two whole messages.

mod answer;
mod breaker;
mod client;
mod connect;
mod connection;
mod credential;
mod deadline;
mod error;
mod exchange;
mod origin;
mod outgoing;
mod pieces;
mod pool;
mod reachability;
mod replay;
mod retry;
mod secrets;
mod settings_watch;

pub use answer::{AnswerBody, AnswerError, Collected, collect, decoded};
pub use breaker::{BreakerPermit, CircuitBreaker};
pub use client::Upstream;
pub use credential::Credential;
pub use deadline::Timeouts;
pub use error::CallError;
pub use outgoing::{Outgoing, OutgoingBody, Progress};
pub use retry::{RetryBudget, may_succeed_next};
pub use secrets::Secrets;
