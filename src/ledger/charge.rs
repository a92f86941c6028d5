//! The rules of Iluma's charges: pure functions of a row, an answer's status and its body.
//!
//! Iluma's API document and its answers say: an error is not charged; `FAILED` with `TEMPORARY_NETWORK_ERROR` is not
//! charged; a request that is still being processed is charged or not once it is done; every other answer is charged.
//!
//! | answer | outcome |
//! |---|---|
//! | 2xx, `FAILED` with `TEMPORARY_NETWORK_ERROR` | not billable |
//! | 2xx, `PENDING` and the like | unknown, until a callback or a GET settles it |
//! | 2xx, any other JSON object | billable |
//! | 2xx, anything else, or on an unknown row | unknown |
//! | 3xx, 4xx, 503 | not billable |
//! | other 5xx: it failed at an unknown point | unknown |
//!
//! Without an answer, `gateway/call_guard.rs` decides by how much of the request was sent.
//!
//! Invariant: a doubtful call is unknown: every billable call was charged, and no call that is not billable was
//! charged.

use crate::iluma::answer::{Answer, Failure, Status};
use crate::iluma::route_name::RouteName;
use crate::iluma::routes::Charge;

/// Iluma's charge for a call, as far as the gateway knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Iluma charges for the call.
    Billable,
    /// Iluma does not charge for the call.
    NotBillable,
    /// Iluma may have charged for the call.
    Unknown,
}

/// The outcome of a call as its answer shows it, and the id of the record in the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeOutcome {
    /// The outcome, as far as it is known.
    pub outcome: Outcome,
    /// Upstream's id of the record in the answer, by which a later callback or GET can settle the call.
    pub id: Option<String>,
}

impl ChargeOutcome {
    /// The outcome is unknown, and no id can settle the call later.
    pub const UNKNOWN: Self = Self { outcome: Outcome::Unknown, id: None };
}

/// Returns the outcome of a call on `route` whose answer had this status. `answer` is the parsed body, or `None` if the
/// body could not be read.
#[must_use]
pub fn charge_outcome(route: RouteName, status: u16, answer: Option<&Answer>) -> ChargeOutcome {
    match status {
        200..=299 => {
            let outcome = match answer.and_then(State::of) {
                Some(State::Pending) => Outcome::Unknown,
                Some(State::Free) => Outcome::NotBillable,
                // The charge on an undocumented row is not documented either.
                Some(State::Done | State::None) if route.spec().charge == Charge::Unknown => {
                    return ChargeOutcome::UNKNOWN;
                }
                Some(State::Done | State::None) => Outcome::Billable,
                None => return ChargeOutcome::UNKNOWN,
            };
            ChargeOutcome { outcome, id: answer.and_then(Answer::id).map(str::to_owned) }
        }
        // 503 means "All upstream data suppliers are unavailable": no source was asked.
        300..=499 | 503 => ChargeOutcome { outcome: Outcome::NotBillable, id: None },
        _ => ChargeOutcome::UNKNOWN,
    }
}

/// Returns the id of the record in a callback or in the answer to a GET, and the outcome of the call that made the
/// record. Returns `None` if the answer has no id or shows no outcome.
#[must_use]
pub fn settlement_in(answer: &Answer) -> Option<(&str, Outcome)> {
    let id = answer.id()?;
    match State::of(answer)? {
        State::Free => Some((id, Outcome::NotBillable)),
        State::Done => Some((id, Outcome::Billable)),
        State::Pending | State::None => None,
    }
}

/// Returns the id of the record in a callback or in the answer to a GET, and the outcome of the call that made the
/// record. The outcome is unknown while Iluma still processes the record. Returns `None` if the answer has no id or no
/// state.
#[must_use]
pub fn seen(answer: &Answer) -> Option<(&str, Outcome)> {
    let pending = || match State::of(answer)? {
        State::Pending => Some((answer.id()?, Outcome::Unknown)),
        State::Free | State::Done | State::None => None,
    };
    settlement_in(answer).or_else(pending)
}

enum State {
    /// Iluma still processes the request.
    Pending,
    /// The request failed in a way that is not charged.
    Free,
    /// The request ended in any other way.
    Done,
    /// The answer has no known state of processing: it is the result itself.
    None,
}

impl State {
    /// Returns the state that an answer shows; `None` if the answer can't be read as one JSON object.
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
            (RouteName::Bank, 200, Some(br#"{"id":"a","status":"COMPLETED"}"#), Billable, Some("a")),
            (RouteName::Bank, 200, Some(br#"{"status":"SUCCESS"}"#), Billable, None),
            (
                RouteName::Bank,
                200,
                Some(br#"{"status":"FAILED","failure_reason":"BANK_ACCOUNT_NOT_FOUND_ERROR"}"#),
                Billable,
                None,
            ),
            (RouteName::Bank, 200, Some(network), NotBillable, Some("a")),
            (RouteName::Ocr, 201, Some(network), NotBillable, Some("a")),
            (RouteName::Ktp, 200, Some(br#"{"status":"FOUND","name_match":"true"}"#), Billable, None),
            (RouteName::Cft, 200, Some(br#"{"matches":[]}"#), Billable, None),
            (RouteName::Face, 200, Some(br#"{"similarity":0.9}"#), Billable, None),
            (RouteName::Bank, 200, Some(br#"{"status":7,"id":9}"#), Billable, Some("9")),
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
            let expected = ChargeOutcome { outcome, id: id.map(str::to_owned) };
            let answer = body.map(|body| Answer::parse(&Bytes::copy_from_slice(body), None));
            assert_eq!(charge_outcome(route, status, answer.as_ref()), expected, "{route} {status} {body:?}");
        }
    }

    #[test]
    fn a_later_report_settles_what_is_done() {
        let settlement_in = |body: &str| {
            let answer = Answer::parse(&Bytes::copy_from_slice(body.as_bytes()), None);
            super::settlement_in(&answer).map(|(id, outcome)| (id.to_owned(), outcome))
        };
        let id = || "a".to_owned();
        assert_eq!(settlement_in(r#"{"id":"a","status":"COMPLETED","result":{}}"#), Some((id(), Billable)));
        assert_eq!(settlement_in(r#"{"id":"a","status":"FAILED","failure_reason":"X"}"#), Some((id(), Billable)));
        let network = r#"{"id":"a","status":"FAILED","failure_reason":"TEMPORARY_NETWORK_ERROR"}"#;
        assert_eq!(settlement_in(network), Some((id(), NotBillable)));
        for silent in [r#"{"id":"a","status":"PENDING"}"#, r#"{"status":"COMPLETED"}"#, r#"{"id":"a"}"#, "x", "[]"] {
            assert_eq!(settlement_in(silent), None, "{silent}");
        }
    }
}
