//! The client of Iluma: connections, requests and answers, credentials, circuit breaker.
//!
//! Invariants: a request that may change or cost something is sent again only if Iluma processed nothing of it: none of
//! it left this process, or the protocol proves it; the account's credential is on every request to Iluma (except
//! health), and in no answer that can be examined (a success in a content encoding passes untouched); every wait has a
//! deadline; a connection returns to the pool only between two whole messages.

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
