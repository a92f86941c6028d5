//! The team portal: pages over the team's own API, for people who do not write HTTP requests.
//!
//! Invariants: a page has nothing personal in it, runs nothing but the gateway's own modules, and asks no other host; a session
//! is a team's key that was shown once, and ends with it.

mod assets;
mod examples;
mod page;
mod visit;

pub(super) use visit::{Place, serve};
