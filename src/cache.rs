//! Stored answers of Iluma: in this process, on disk, and in Redis.
//!
//! [`Cache`] is the entry point. It combines memory (L1), a file or Redis (L2), the leases that let one node make a
//! call, and purges. [`SingleFlight`] collapses identical requests in this process.

mod change_log;
mod disk_cache;
mod disk_file;
mod disk_level;
mod durable_epochs;
mod entry;
mod epoch;
mod key;
mod key_filter;
mod lease;
mod levels;
mod membership;
mod memory;
mod policy;
mod purge;
mod redis_cache;
mod report;
mod single_flight;
mod slot;
mod waiters;
mod wire;

pub use crate::iluma::subject::Subject;
pub use disk_cache::delete as delete_disk_cache;
pub use disk_file::beside as disk_cache_of;
pub use disk_level::DiskLevel;
pub use durable_epochs::{MIGRATIONS, erased, forget as forget_epochs, note_erased};
pub use entry::{Entry, SharedResult};
pub use epoch::Change;
pub use key::{Key, Keys, Scope};
pub use lease::{LEASE_RENEWAL, Lease};
pub use levels::{Cache, L2Choice, LeaseDecision};
pub use membership::{Follow, NodeIdentity, NodeTaken};
pub use purge::Removed;
pub use redis_cache::Counts;
pub use report::Report;
pub use single_flight::{FlightRole, Follower, Leader, SingleFlight};
pub use slot::{Awaited, CacheCandidate, CacheSlot, Hit};
