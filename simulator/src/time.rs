//! The simulator's only clock.

use std::time::{Instant, SystemTime};

/// Returns the time for measurements and for results that become ready later.
#[allow(clippy::disallowed_methods, reason = "the simulator shares no code with the gateway; this is its one clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Returns the time that people read.
#[allow(clippy::disallowed_methods, reason = "the simulator shares no code with the gateway; this is its one clock")]
pub(super) fn wall() -> SystemTime {
    SystemTime::now()
}

/// Writes a time as every timestamp of Iluma is written: `2017-07-03T10:51:44.484Z`.
pub(super) fn iso8601(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}
