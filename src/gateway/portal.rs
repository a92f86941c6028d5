//! The team portal: pages over the team's own API, for people who do not write HTTP requests.
//!
//! Invariants:
//! - A page contains no personal data, runs only the gateway's own modules, and sends requests to no other host.
//! - A session begins when a person enters a team's key. It ends at the latest when that key ends.

mod assets;
mod examples;
mod page;
mod visit;

pub(super) use visit::{Place, serve};
