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

use crate::iluma::answer::{Answer, Failure, Status};
use crate::iluma::route_name::RouteName;
use crate::iluma::routes::Charge;

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

/// Returns Iluma's charge for a call on a row that was answered so; `answer` is none if its body could not be read.
#[must_use]
pub fn verdict(route: RouteName, status: u16, answer: Option<&Answer>) -> Verdict {
    match status {
        200..=299 => match answer.and_then(State::of) {
            Some(State::Pending) => {
                Verdict { outcome: Outcome::Unknown, id: answer.and_then(Answer::id).map(str::to_owned) }
            }
            Some(State::Free) => Verdict { outcome: Outcome::NotBillable, id: None },
            // Nobody documented the charge of a row that nobody documented.
            Some(State::Done | State::None) if route.spec().charge == Charge::Unknown => Verdict::UNKNOWN,
            Some(State::Done | State::None) => Verdict { outcome: Outcome::Billable, id: None },
            None => Verdict::UNKNOWN,
        },
        // "All upstream data suppliers are unavailable": there was nobody to ask.
        300..=499 | 503 => Verdict { outcome: Outcome::NotBillable, id: None },
        _ => Verdict::UNKNOWN,
    }
}

/// Returns what a callback, or the answer to a GET, says of the charge of the call that made its record: the record's id and the
/// outcome. None if it does not say.
#[must_use]
pub fn told(answer: &Answer) -> Option<(&str, Outcome)> {
    let id = answer.id()?;
    match State::of(answer)? {
        State::Free => Some((id, Outcome::NotBillable)),
        State::Done => Some((id, Outcome::Billable)),
        State::Pending | State::None => None,
    }
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

impl State {
    /// Returns the state of a record; none if the answer is no record.
    fn of(answer: &Answer) -> Option<Self> {
        if !answer.is_record() {
            return None;
        }
        let is_free = answer.failure() == Some(Failure::TemporaryNetworkError);
        Some(match answer.status() {
            Some(status) if status.is_pending() => Self::Pending,
            Some(Status::Failed) if is_free => Self::Free,
            Some(status) if status.is_final() => Self::Done,
            Some(_) | None => Self::None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{Billable, NotBillable, Unknown};
    use bytes::Bytes;

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
            let answer = body.map(|body| Answer::parse(&Bytes::copy_from_slice(body), None));
            assert_eq!(verdict(route, status, answer.as_ref()), expected, "{route} {status} {body:?}");
        }
    }

    #[test]
    fn a_later_word_settles_what_is_done() {
        let told = |body: &str| {
            let answer = Answer::parse(&Bytes::copy_from_slice(body.as_bytes()), None);
            super::told(&answer).map(|(id, outcome)| (id.to_owned(), outcome))
        };
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
