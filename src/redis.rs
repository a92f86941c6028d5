//! The way to Redis.

pub mod client;
pub mod probe;
