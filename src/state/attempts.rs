//! The stored attempts at a delivery: the time, the result, and the duration of each.
//!
//! Invariants: an attempt contains no personal data, no URL and no body; a delivery remembers its newest [`MOST_KEPT`]
//! attempts.

use super::times::{length, millis, time};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};
use strum::{EnumString, IntoStaticStr, VariantArray};

/// The largest number of attempts that a delivery remembers: enough for the longest retry schedule, which has 21
/// attempts, or for a day of hourly probes.
pub const MOST_KEPT: usize = 32;

/// One attempt at a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptRecord {
    /// The time when the attempt began.
    pub time: SystemTime,
    /// The result.
    pub result: AttemptResult,
    /// The time from the beginning until the head of the answer, or until the failure.
    pub duration: Duration,
}

/// The result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptResult {
    /// The endpoint answered with this status, which is not a redirect.
    Status(u16),
    /// The attempt got no usable status, for this reason. For example, the connection failed, or the answer was a
    /// redirect.
    Error(AttemptError),
}

/// The reason why an attempt got no usable status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum AttemptError {
    /// The connection was not made in time, or the head of the answer did not arrive in time.
    Timeout,
    /// The connection was refused: no process listens at the address.
    Refused,
    /// The host's name could not be resolved to an address.
    Dns,
    /// The TLS handshake failed, for example because a certificate is not trusted.
    Tls,
    /// The connection broke before the head of an answer arrived.
    Reset,
    /// The endpoint answered with a redirect, which is not followed.
    Redirect,
    /// The endpoint's answer is not valid HTTP.
    Protocol,
    /// The connection could not be made, for example because there is no route to the address.
    Unreachable,
    /// The gateway may not send callbacks to this host, or to its address.
    Forbidden,
    /// The team has no URL for this type of callback, or the team is not configured any more.
    NoUrl,
}

/// The conclusion about an endpoint from one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndpointNews {
    /// The attempt allows no conclusion: the team had no URL, so no request was sent.
    None,
    /// The endpoint works.
    Success,
    /// The endpoint fails.
    Failure,
    /// The endpoint wants no more deliveries: it answered 410.
    Gone,
}

impl AttemptResult {
    /// Returns true if the team received the delivery: the status is from 200 to 299.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Status(200..300))
    }
}

impl AttemptError {
    /// Returns the error's name, as state stores it and APIs show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl AttemptRecord {
    pub(super) const fn news(&self) -> EndpointNews {
        match self.result {
            AttemptResult::Error(AttemptError::NoUrl) => EndpointNews::None,
            AttemptResult::Status(200..300) => EndpointNews::Success,
            AttemptResult::Status(410) => EndpointNews::Gone,
            AttemptResult::Status(_) | AttemptResult::Error(_) => EndpointNews::Failure,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (at, result, duration) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            time: time(at.parse().ok()?),
            result: result.parse().ok()?,
            duration: Duration::from_millis(duration.parse().ok()?),
        })
    }
}

/// Writes the attempt as state stores it: `time:result:duration`. The time is in milliseconds since 1970, the duration
/// in milliseconds.
impl fmt::Display for AttemptRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", millis(self.time), self.result, length(self.duration))
    }
}

impl fmt::Display for AttemptResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Error(error) => f.write_str(error.as_str()),
        }
    }
}

impl FromStr for AttemptResult {
    type Err = strum::ParseError;

    fn from_str(text: &str) -> Result<Self, strum::ParseError> {
        text.parse().map_or_else(|_| text.parse().map(Self::Error), |status| Ok(Self::Status(status)))
    }
}

/// Returns the attempts in a stored history, oldest first. Attempts that can't be parsed, such as those of another
/// version, are left out.
pub(super) fn parsed(history: &str) -> Vec<AttemptRecord> {
    history.split_ascii_whitespace().filter_map(AttemptRecord::parse).collect()
}

/// Returns the newest attempt in a stored history; `None` if the history is empty, or if that attempt can't be parsed.
pub(super) fn last(history: &str) -> Option<AttemptRecord> {
    history.split_ascii_whitespace().next_back().and_then(AttemptRecord::parse)
}

/// Returns the history with `attempt` added as the newest; `None` adds nothing. The oldest attempts beyond
/// [`MOST_KEPT`] are dropped.
pub(super) fn extended(history: &str, attempt: Option<&AttemptRecord>) -> String {
    let Some(attempt) = attempt else { return history.to_owned() };
    let attempt = attempt.to_string();
    let mut all: Vec<_> = history.split_ascii_whitespace().chain([&*attempt]).collect();
    all.drain(..all.len().saturating_sub(MOST_KEPT));
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(second: u64, result: AttemptResult) -> AttemptRecord {
        AttemptRecord { time: time(second as i64 * 1000), result, duration: Duration::from_millis(second) }
    }

    #[test]
    fn a_history_keeps_its_newest_attempts() {
        let mut history = String::new();
        for second in 0..40 {
            history = extended(&history, Some(&attempt(second, AttemptResult::Status(503))));
        }
        let kept = parsed(&history);
        let expected: Vec<_> = (8..40).map(|second| attempt(second, AttemptResult::Status(503))).collect();
        assert_eq!(kept, expected);
        assert_eq!(last(&history), expected.last().copied());
        assert_eq!(extended(&history, None), history);
        assert_eq!((parsed(""), last("")), (Vec::new(), None));
    }

    #[test]
    fn every_result_is_read_as_it_was_written() {
        let errors = AttemptError::VARIANTS.iter().copied().map(AttemptResult::Error);
        for result in errors.chain([AttemptResult::Status(200), AttemptResult::Status(599)]) {
            assert_eq!(parsed(&extended("", Some(&attempt(7, result)))), [attempt(7, result)]);
        }
        assert_eq!(parsed("1:unheard_of:2 x 1:200"), []);
    }

    #[test]
    fn an_attempt_says_how_its_endpoint_is() {
        for (result, news) in [
            (AttemptResult::Status(200), EndpointNews::Success),
            (AttemptResult::Status(204), EndpointNews::Success),
            (AttemptResult::Status(199), EndpointNews::Failure),
            (AttemptResult::Status(410), EndpointNews::Gone),
            (AttemptResult::Status(404), EndpointNews::Failure),
            (AttemptResult::Error(AttemptError::Redirect), EndpointNews::Failure),
            (AttemptResult::Error(AttemptError::NoUrl), EndpointNews::None),
        ] {
            assert_eq!(attempt(0, result).news(), news, "{result}");
            assert_eq!(result.is_success(), news == EndpointNews::Success, "{result}");
        }
    }
}
