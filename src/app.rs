//! The composition root: the only place that wires parts together.
//!
//! [`run`] is a process that serves; [`App::start`] puts a gateway together stage by stage, and [`App::shutdown`] drains it
//! in the order of its stages.

mod environment;
mod error;
mod links;
mod listeners;
mod node;
mod observe;
pub mod preflight;
mod process;
mod reload;
mod shutdown;
mod stage;
mod start;
mod storage;

pub use environment::Environment;
pub use error::StartError;
pub use links::concerns;
pub use node::App;
pub use process::run;
pub use reload::fixed;
