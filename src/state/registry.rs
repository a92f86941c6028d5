//! Teams' keys and suspensions, of which every node keeps a copy of its own.
//!
//! A row of the registry changes in one direction only: a key is written once, its end only becomes earlier, and its
//! last use and the version of a suspension only grow. So two copies can be merged row by row, in any order and
//! repeatedly, and an old copy revives nothing. With Redis the nodes merge through a shared copy: an order is written
//! to the node's own database, then to Redis, and then announced to the other nodes, which apply it before they confirm
//! it. A node that starts while Redis is out uses its own copy.
//!
//! Invariants: only hashes of keys are stored; a key whose row was not written with the root key is ignored; the
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
