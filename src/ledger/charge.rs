//! What Iluma charges for: pure functions of a row, an answer's status and its body.
//!
//! From the API document and the field notes: an error is not charged; `FAILED` with `TEMPORARY_NETWORK_ERROR` is not
//! charged; what is still being processed is charged or not once it is done; everything else that was answered is.
//!
//! | answer | outcome |
//! |---|---|
//! | 2xx, `FAILED` with `TEMPORARY_NETWORK_ERROR` | not billable |
//! | 2xx, `PENDING` and the like | unknown, until a callback or a GET tells |
//! | 2xx, any other JSON object | billable |
//! | 2xx, anything else, or on a row that we don't know | unknown |
//! | 3xx, 4xx, 503 | not billable |
//! | other 5xx: it failed, and nobody says how far it came | unknown |
//! | none: timed out, broken, cut off | unknown |
//!
//! Invariant: when in doubt, unknown: what is billable was charged, and what is not billable was not.

use crate::iluma::route_name::RouteName;
use crate::iluma::routes::Charge;
use serde_json::Value;

/// Whether Iluma charges for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It does.
    Billable,
    /// It does not.
    NotBillable,
    /// It may have.
    Unknown,
}

/// What an answer says of its charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// As far as it is known.
    pub outcome: Outcome,
    /// Upstream's id of what was made, by which a later callback or GET can tell.
    pub id: Option<String>,
}

impl Verdict {
    /// Nobody knows, and nothing will tell.
    pub const UNKNOWN: Self = Self { outcome: Outcome::Unknown, id: None };
}

/// What Iluma charges for a call on a row that was answered so. `body` is the whole body without a content encoding;
/// none if it could not be read.
#[must_use]
pub fn verdict(route: RouteName, status: u16, body: Option<&[u8]>) -> Verdict {
    match status {
        200..=299 => match body.and_then(object) {
            Some(Told { state: State::Pending, id }) => Verdict { outcome: Outcome::Unknown, id },
            Some(Told { state: State::Free, .. }) => Verdict { outcome: Outcome::NotBillable, id: None },
            // Nobody told us what a row costs that nobody told us of.
            Some(_) if route.spec().charge == Charge::Unknown => Verdict::UNKNOWN,
            Some(_) => Verdict { outcome: Outcome::Billable, id: None },
            None => Verdict::UNKNOWN,
        },
        // "All upstream data suppliers are unavailable": there was nobody to ask.
        300..=499 | 503 => Verdict { outcome: Outcome::NotBillable, id: None },
        _ => Verdict::UNKNOWN,
    }
}

/// What a callback, or the answer to a GET, says of the charge of the call that made what it is about: its id and the
/// outcome. None if it does not say.
#[must_use]
pub fn told(body: &[u8]) -> Option<(String, Outcome)> {
    match object(body)? {
        Told { state: State::Free, id: Some(id) } => Some((id, Outcome::NotBillable)),
        Told { state: State::Done, id: Some(id) } => Some((id, Outcome::Billable)),
        _ => None,
    }
}

struct Told {
    state: State,
    id: Option<String>,
}

enum State {
    /// Iluma is at it.
    Pending,
    /// It failed in a way that is not charged.
    Free,
    /// It ended otherwise.
    Done,
    /// It has no state: it is the answer itself.
    None,
}

fn object(body: &[u8]) -> Option<Told> {
    #[derive(serde::Deserialize)]
    struct Object {
        #[serde(default)]
        id: Value,
        #[serde(default)]
        status: Value,
        #[serde(default)]
        failure_reason: Value,
    }
    // Lists pass for objects with serde.
    let object: Object = serde_json::from_slice(body.trim_ascii_start().strip_prefix(b"{").map(|_| body)?).ok()?;
    let is = |value: &Value, words: &[&str]| {
        value.as_str().is_some_and(|text| words.iter().any(|word| text.eq_ignore_ascii_case(word)))
    };
    let state = if is(&object.status, &["PENDING", "IN_PROGRESS", "WAITING_ON_BANK", "RECAPTURE_PENDING"]) {
        State::Pending
    } else if is(&object.status, &["FAILED"]) && is(&object.failure_reason, &["TEMPORARY_NETWORK_ERROR"]) {
        State::Free
    } else if is(&object.status, &["SUCCESS", "COMPLETED", "FAILED", "COMPLETED_REVIEW_REQUIRED"]) {
        State::Done
    } else {
        State::None
    };
    let id = object.id.as_str().filter(|id| !id.is_empty() && id.len() <= LONGEST_ID).map(str::to_owned);
    Some(Told { state, id })
}

/// Iluma's have 41 characters.
const LONGEST_ID: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{Billable, NotBillable, Unknown};

    #[test]
    fn the_table_of_what_is_charged() {
        let network = br#"{"id":"a","status":"FAILED","failure_reason":"TEMPORARY_NETWORK_ERROR"}"#.as_slice();
        type Case<'a> = (RouteName, u16, Option<&'a [u8]>, Outcome, Option<&'a str>);
        let cases: [Case<'_>; 24] = [
            (RouteName::Bank, 200, Some(br#"{"id":"a","status":"PENDING"}"#), Unknown, Some("a")),
            (RouteName::Bank, 200, Some(br#"{"id":"a","status":"pending"}"#), Unknown, Some("a")),
            (RouteName::Bank, 200, Some(br#"{"id":"a","status":"WAITING_ON_BANK"}"#), Unknown, Some("a")),
            (RouteName::Capture, 200, Some(br#"{"id":"a","status":"RECAPTURE_PENDING"}"#), Unknown, Some("a")),
            (RouteName::Bank, 200, Some(br#"{"id":"a","status":"COMPLETED"}"#), Billable, None),
            (RouteName::Bank, 200, Some(br#"{"status":"SUCCESS"}"#), Billable, None),
            (
                RouteName::Bank,
                200,
                Some(br#"{"status":"FAILED","failure_reason":"BANK_ACCOUNT_NOT_FOUND_ERROR"}"#),
                Billable,
                None,
            ),
            (RouteName::Bank, 200, Some(network), NotBillable, None),
            (RouteName::Ocr, 201, Some(network), NotBillable, None),
            (RouteName::Ktp, 200, Some(br#"{"status":"FOUND","name_match":"true"}"#), Billable, None),
            (RouteName::Cft, 200, Some(br#"{"matches":[]}"#), Billable, None),
            (RouteName::Face, 200, Some(br#"{"similarity":0.9}"#), Billable, None),
            (RouteName::Bank, 200, Some(br#"{"status":7,"id":9}"#), Billable, None),
            (RouteName::Bank, 200, Some(b"garbage"), Unknown, None),
            (RouteName::Bank, 200, Some(b""), Unknown, None),
            (RouteName::Bank, 200, None, Unknown, None),
            (RouteName::Other, 200, Some(br#"{"status":"COMPLETED"}"#), Unknown, None),
            (RouteName::Other, 404, None, NotBillable, None),
            (RouteName::Bank, 400, None, NotBillable, None),
            (RouteName::Bank, 429, None, NotBillable, None),
            (RouteName::Bank, 302, None, NotBillable, None),
            (RouteName::Bank, 503, None, NotBillable, None),
            (RouteName::Bank, 500, None, Unknown, None),
            (RouteName::Bank, 504, None, Unknown, None),
        ];
        for (route, status, body, outcome, id) in cases {
            let expected = Verdict { outcome, id: id.map(str::to_owned) };
            assert_eq!(verdict(route, status, body), expected, "{route} {status} {body:?}");
        }
    }

    #[test]
    fn a_later_word_settles_what_is_done() {
        let told = |body: &str| super::told(body.as_bytes());
        let id = || "a".to_owned();
        assert_eq!(told(r#"{"id":"a","status":"COMPLETED","result":{}}"#), Some((id(), Billable)));
        assert_eq!(told(r#"{"id":"a","status":"FAILED","failure_reason":"X"}"#), Some((id(), Billable)));
        let network = r#"{"id":"a","status":"FAILED","failure_reason":"TEMPORARY_NETWORK_ERROR"}"#;
        assert_eq!(told(network), Some((id(), NotBillable)));
        for silent in [r#"{"id":"a","status":"PENDING"}"#, r#"{"status":"COMPLETED"}"#, r#"{"id":"a"}"#, "x", "[]"] {
            assert_eq!(told(silent), None, "{silent}");
        }
    }
}
