//! Teams' keys and suspensions, of which every node keeps a copy of its own.
//!
//! A row of the registry only ever moves one way: a key is written once, its end only comes nearer, its last use and the
//! version of a suspension only grow. So two copies are merged row by row, in any order, as often as wanted, and a copy that
//! is old revives nothing. With Redis the nodes merge through a shared copy: an order is written to the node's own database,
//! then to Redis, and then announced to the other nodes, which apply it before they confirm it. A node that starts while Redis
//! is out uses its own copy.
//!
//! Invariants: only hashes of keys are stored; a row that was not written with the root key is no key; what an order changed
//! is on this node's disk before it is in effect; a request looks up a key in memory alone.

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
