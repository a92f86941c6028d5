//! A guided tour: a simulated Iluma, a gateway and two teams on loopback, with real sockets and nothing to set up.
//!
//! Everything that it prints really happened: answers, cache statuses, callbacks and log lines are those of the running
//! gateway, and its ledger is compared with the simulator's own count.

mod endpoint;
mod error;
mod log;
mod start;
mod team;
mod tour;

pub(super) use start::{Args, run};
