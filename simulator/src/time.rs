//! The simulator's time, from one place.

use std::time::{Instant, SystemTime};

/// For measuring and for what becomes ready later.
#[allow(clippy::disallowed_methods, reason = "the simulator shares no code with the gateway; this is its one clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// For what people read.
#[allow(clippy::disallowed_methods, reason = "the simulator shares no code with the gateway; this is its one clock")]
pub(super) fn wall() -> SystemTime {
    SystemTime::now()
}

/// `2017-07-03T10:51:44.484Z`, as every timestamp of Iluma is written.
pub(super) fn iso8601(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}
