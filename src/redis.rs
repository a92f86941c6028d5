//! The access to Redis: one client, the names of all keys, all scripts.
//!
//! No code outside this part contains the name of a key or a line of Lua.

mod breaker;
mod budget;
mod client;
mod connection;
pub mod diagnosis;
pub mod keys;
mod layout;
mod replicated;
pub mod scripts;
mod topology;

pub use budget::{BACKGROUND_TIMEOUT, Budget};
pub use client::{RedisClient, RedisFailure, examine};
pub use keys::{Channel, KeySpace, RedisKey};
pub use replicated::ReplicatedWriter;
