//! The access log and the diagnostics.
//!
//! Invariants: nothing that serves ever waits for a log (a line that finds no room is dropped and counted); every line
//! has passed the scrubber before it is written; what was logged before a [`LogWriter`] is dropped is written, if the
//! sink takes it.

mod access;
mod diagnostic;
mod diagnostics;
mod lines;
mod repeats;
mod stamp;

pub use access::{AccessLog, Record};
pub use diagnostics::diagnostics;
pub use lines::LogWriter;
