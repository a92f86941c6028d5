//! The registry of teams' keys and suspensions. Every node keeps its own copy.
//!
//! A row of the registry changes in one direction only: a key is written once, its end only becomes earlier, its last
//! use only becomes later, and the version of a suspension only grows. So two copies can be merged row by row, in any
//! order and repeatedly, and an old copy never makes a revoked key valid again. With Redis the nodes merge through a
//! shared copy: an order is written to the node's own database, then to Redis, and then announced to the other nodes,
//! which apply it before they confirm it. A node that starts while Redis is out uses its own copy.
//!
//! Invariants: only hashes of keys are stored; a key is ignored if its row was not written with the root key; the
//! changes of an order are on this node's disk before they take effect; a request looks up a key only in memory.

mod key;
mod orders;
mod rows;
mod storage;
mod store;
mod table;

pub use key::{KeyInfo, Source};
pub use orders::{KeyOrderError, NewKey, Taken, grace};
pub use storage::REGISTRY_MIGRATIONS;
pub use store::{Announce, Registry};
pub use table::{ActiveKey, KeyTable};
