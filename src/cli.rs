//! The command line: arguments, commands with one file each, an exit code.

mod backup;
mod callbacks;
mod check;
mod command;
mod demo;
mod erase;
mod erasures;
mod generated;
mod healthcheck;
pub mod keygen;
mod keys;
mod operator;
mod output;
mod proxy_header;
mod purge;
mod reconcile;
mod register;
mod run;
mod simulate;
mod usage;

pub use command::main;
