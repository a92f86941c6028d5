//! Sockets: accept, TLS, HTTP/1.1 and HTTP/2, drain. Knows only "a service".
//!
//! Invariants: no more connections than the bound; a peer that sends nothing, or takes nothing of what it is sent, is
//! cut off; a drain accepts nothing new, lets requests in flight finish, and waits no longer than it was told to.

mod connection;
mod drain;
pub mod file_descriptors;
mod head_timeout;
mod listener;
mod signs;
mod socket;
mod stall;
mod streams;

pub use listener::{Bounds, Events, Server, TlsHandle};
