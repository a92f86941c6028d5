//! The `Retry-After` field (RFC 9110, section 10.2.3): a number of seconds, or a date.

use http::HeaderMap;
use http::header::RETRY_AFTER;
use std::time::{Duration, SystemTime};

/// Returns the duration, from `now` on, for which the sender of `headers` asks the client to wait. For a date that has
/// passed it is zero. Returns `None` if the field is absent, is repeated with different values, or is neither a number
/// nor a date.
///
/// The duration may be of any length: callers must limit it.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let mut fields = headers.get_all(RETRY_AFTER).iter();
    let first = fields.next()?;
    if fields.any(|other| other != first) {
        return None;
    }
    parse(first.to_str().ok()?, now)
}

/// Rounds a wait up to whole seconds. A client that waits for fewer seconds comes too early.
#[must_use]
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

fn parse(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number with too many digits still asks for a long wait.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    /// 1994-11-06 08:49:37 UTC, the example of RFC 9110.
    const NOW: Duration = Duration::from_secs(784_111_777);

    #[test]
    fn seconds_and_every_form_of_a_date_are_understood_and_nothing_else() {
        let now = SystemTime::UNIX_EPOCH + NOW;
        for (value, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sunday, 06-Nov-94 08:50:07 GMT", Some(30)),
            ("Sun Nov  6 08:50:07 1994", Some(30)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sat, 05 Nov 1994 08:49:37 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("1 s", None),
            ("soon", None),
            ("Sun, 06 Nov 1994", None),
        ] {
            assert_eq!(parse(value, now), expected.map(Duration::from_secs), "{value:?}");
        }
    }

    #[test]
    fn two_fields_must_agree() {
        let fields = |values: &[&'static str]| {
            values.iter().map(|value| (RETRY_AFTER, HeaderValue::from_static(value))).collect::<HeaderMap>()
        };
        let asked = |values| retry_after(&fields(values), SystemTime::UNIX_EPOCH);
        assert_eq!(asked(&[]), None);
        assert_eq!(asked(&["5"]), Some(Duration::from_secs(5)));
        assert_eq!(asked(&["5", "5"]), Some(Duration::from_secs(5)));
        assert_eq!(asked(&["5", "6"]), None);
    }
}
