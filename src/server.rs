//! Sockets: accept, TLS, HTTP/1.1 and HTTP/2, drain.
//!
//! The server knows a service only as a function from request to answer.
//!
//! Invariants:
//! - The number of connections is bounded.
//! - A peer that sends nothing, or reads nothing of its answer, is disconnected.
//! - A drain accepts no new connection, lets requests in flight finish, and waits no longer than its deadline.

mod connection;
mod drain;
pub mod file_descriptors;
mod head_timeout;
mod listener;
mod proxy_header;
mod signs;
mod socket;
mod stall;
mod streams;

pub use listener::{Bounds, Events, ListenerHandle, Server};
