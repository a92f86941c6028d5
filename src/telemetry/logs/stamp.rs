//! Moments as RFC 3339 text in UTC.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The length of `2026-11-23T09:15:00`.
pub(super) const STAMP: usize = 19;

/// The first second of 1970.
const EPOCH: [u8; STAMP] = *b"1970-01-01T00:00:00";

/// Returns a time in seconds since 1970 as the beginning of an RFC 3339 timestamp, such as `2026-11-23T09:15:00`. A
/// time after the end of the calendar becomes the calendar's last second.
pub(super) fn stamp(second: u64) -> [u8; STAMP] {
    let time = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
    let last = Timestamp::from_second(Timestamp::MAX.as_second()).unwrap_or(Timestamp::UNIX_EPOCH);
    let civil = TimeZone::UTC.to_datetime(time.unwrap_or(last));
    civil.to_string().as_bytes().try_into().unwrap_or(EPOCH)
}

/// Returns the time since 1970; zero for an earlier time.
pub(super) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Returns a moment as RFC 3339 text with milliseconds, such as `2026-11-23T06:51:56.007Z`.
pub(super) fn moment(time: SystemTime) -> String {
    let since = since_epoch(time);
    format!("{}.{:03}Z", String::from_utf8_lossy(&stamp(since.as_secs())), since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_follow_the_calendar() {
        for (second, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (4_107_542_399, "2100-02-28T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (1_798_761_599, "2026-12-31T23:59:59"),
            (u64::MAX, "9999-12-30T22:00:00"),
        ] {
            assert_eq!(std::str::from_utf8(&stamp(second)).unwrap(), text);
        }
    }
}
