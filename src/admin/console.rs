//! The console of operators: pages over the admin API, for people who do not write PromQL.
//!
//! Invariants: a page has nothing personal in it, runs nothing but the console's own modules, and asks no other host; an order
//! needs the session's role and a value that only the session's own pages have.

mod assets;
mod pages;
mod reader;
pub(super) mod routes;
mod session;
mod views;

pub(super) use session::by_session;
