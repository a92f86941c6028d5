//! A guided tour: a simulated Iluma, a gateway and two teams on loopback, with real sockets and nothing to set up.
//!
//! The tour prints only real events: answers, cache statuses, callbacks and log lines come from the running gateway.
//! The gateway's ledger is compared with the simulator's own count.

mod endpoint;
mod error;
mod log;
mod start;
mod team;
mod tour;

pub(super) use start::{Args, run};
