//! Tools that know nothing about Iluma: time, tasks, names, JSON, bodies, key material, one database file.

pub mod auth_failures;
pub mod bounded_body;
pub mod byte_size;
pub mod calendar;
pub mod client_tls;
pub mod clock;
pub mod database;
pub mod disk;
pub mod drained_io;
pub mod host;
pub mod host_name;
pub mod json;
pub mod json_template;
pub mod keyring;
pub mod lazy_sleep;
pub mod log_throttle;
pub mod moment;
pub mod name;
pub mod openapi;
pub mod peer;
pub mod request_id;
pub mod retry_after;
pub mod saved;
pub mod steady_clock;
pub mod tasks;
pub mod team_key;
pub mod trace_context;
pub mod unescape;
pub mod uniform_hash;
pub mod web;

#[cfg(test)]
pub(crate) mod linear;
