//! The composition root: the only part that wires other parts together.
//!
//! [`run`] runs a process that serves. [`App::start`] starts a gateway stage by stage, and [`App::shutdown`] drains the
//! gateway in the order of its stages.

pub mod backup;
mod environment;
mod error;
mod listeners;
mod node;
mod node_facts;
mod notify;
mod observe;
pub mod preflight;
mod process;
mod redis_clients;
mod reload;
mod shutdown;
mod stage;
mod start;
mod storage;

pub use environment::Environment;
pub use error::StartError;
pub use node::App;
pub use process::run;
pub use redis_clients::durability_warnings;
pub use reload::fixed;
