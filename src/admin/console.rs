//! The console of operators: pages over the admin API, for people who do not write PromQL.
//!
//! Invariants: a page contains no personal data, runs only the gateway's own modules, and sends requests to no other
//! host; an order needs a session whose role may give it, and a proof that the request came from the console. The proof
//! is a value that only the pages of this session have, or this host as the request's origin.

mod assets;
mod pages;
mod reader;
pub(super) mod routes;
mod session;
mod views;

pub(super) use session::by_session;
