//! The access log and the diagnostics.
//!
//! Invariants: no serving task ever waits for a log (a line without room is dropped and counted); every line has passed
//! the scrubber before it is written; lines that were logged before a [`LogWriter`] is dropped are written, if the sink
//! accepts them.

mod access;
mod diagnostic;
mod diagnostics;
mod lines;
mod live;
mod repeats;
mod stamp;

pub use access::{AccessLog, Record};
pub use diagnostics::diagnostics;
pub use lines::LogWriter;
pub use live::{LineFilter, LiveLines, MOST_SUBSCRIBERS, Statuses, Subscription};
