//! The way to Redis.

pub mod client;
