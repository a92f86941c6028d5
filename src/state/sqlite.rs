//! State in the embedded database, for one gateway.
//!
//! Invariants in addition to those of all engines: leases are in memory only, so a crash ends them at once (only one
//! gateway process can use the file); every statement finds its rows by an index, except in the small tables of
//! endpoints and outboxes.

mod delivery_row;
mod endpoints;
mod engine;
mod idempotency;
mod inbox;
mod lists;
mod outbox;
mod owners;
mod persons;
mod retention;
mod schema;
mod sessions;

pub use engine::Sqlite;
pub use schema::MIGRATIONS;
