//! Moments as people write and read them: RFC 3339.

use jiff::Timestamp;
use std::time::{Duration, SystemTime};

/// Parses an RFC 3339 time with any offset. Returns `None` for other texts and for times before 1970.
#[must_use]
pub fn parse(text: &str) -> Option<SystemTime> {
    // jiff also takes time zones in brackets, which RFC 3339 does not have.
    let stamp = (!text.contains('[')).then(|| text.parse::<Timestamp>().ok())??;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(u64::try_from(stamp.as_nanosecond()).ok()?))
}

/// Parses an RFC 3339 time, or a date such as `2026-11-25`, which means midnight UTC at its beginning. Returns `None`
/// for other texts.
#[must_use]
pub fn parse_or_date(text: &str) -> Option<SystemTime> {
    parse(text).or_else(|| if text.len() == 10 { parse(&format!("{text}T00:00:00Z")) } else { None })
}

/// Formats a time as RFC 3339 in UTC, to the second.
#[must_use]
pub fn seconds(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_its_beginning_in_utc_and_a_time_has_an_offset() {
        for (text, expected) in [
            ("2026-12-31", Some("2026-12-31T00:00:00Z")),
            ("2026-12-31T07:00:00+07:00", Some("2026-12-31T00:00:00Z")),
            ("2026-12-31T23:59:59.5Z", Some("2026-12-31T23:59:59Z")),
            ("2026-12-31T23:59:59", None),
            ("2026-12-31T23:59:59Z[Asia/Jakarta]", None),
            ("20261231", None),
            ("2026-02-30", None),
            ("tomorrow", None),
        ] {
            assert_eq!(parse_or_date(text).map(seconds).as_deref(), expected, "{text}");
        }
    }
}
