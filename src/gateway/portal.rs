//! The team portal: pages over the team's own API, for people who do not write HTTP requests.
//!
//! Invariants: a page contains no personal data, runs only the gateway's own modules, and sends requests to no other
//! host; a session begins when a team's key is entered, and ends with that key.

mod assets;
mod examples;
mod page;
mod visit;

pub(super) use visit::{Place, serve};
