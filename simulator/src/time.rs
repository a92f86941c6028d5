//! The simulator's only clock.

use std::time::{Instant, SystemTime};

/// Returns the monotonic time, for measurements and for results that become ready later.
#[allow(clippy::disallowed_methods, reason = "the simulator shares no code with the gateway; this is its one clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Returns the wall-clock time, which answers show.
#[allow(clippy::disallowed_methods, reason = "the simulator shares no code with the gateway; this is its one clock")]
pub(super) fn wall() -> SystemTime {
    SystemTime::now()
}

/// Returns a time in the form of all of Iluma's timestamps: `2017-07-03T10:51:44.484Z`.
pub(super) fn iso8601(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}
