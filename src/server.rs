//! Sockets: accept, TLS, HTTP/1.1 and HTTP/2, drain.
//!
//! The server knows a service only as a function from request to answer.
//!
//! Invariants: the number of connections is bounded; a peer that sends nothing, or reads nothing of its answer, is
//! disconnected; a drain accepts nothing new, lets requests in flight finish, and waits no longer than its deadline.

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
