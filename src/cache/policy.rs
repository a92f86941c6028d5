//! Decides which answers are stored, and for how long: pure functions of upstream's answer.

use crate::config;
use crate::iluma::answer::{Answer, Failure, Found, Status};
use crate::iluma::subject::Subject;
use http::StatusCode;
use std::time::Duration;

/// The lifetime of upstream's health. It is long enough to protect upstream from every team's probes, and short enough
/// that it delays no alarm.
const HEALTH_LIFETIME: Duration = Duration::from_secs(5);

/// The lifetime of "pending" as the answer to a bank request: identical requests share the pending request for this
/// time.
pub(super) const PENDING_LIFETIME: Duration = Duration::from_secs(600);
/// The lifetime of "pending" as the answer to a GET by id: GETs of the same id within this time share one call.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The terms on which an answer is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    /// The time for which the answer is served.
    pub(super) lifetime: Duration,
    /// The time after the lifetime for which the answer is still served while upstream fails.
    pub(super) grace: Duration,
    /// Upstream's id of a bank request, if the answer has one.
    pub(super) id: Option<Box<str>>,
    /// True if upstream has no result yet.
    pub(super) pending: bool,
}

/// Returns the terms on which an answer is stored; `None` if it is not stored.
///
/// Final answers about an account or a person are stored, and so are lists of bank codes that are not empty. The
/// response schemas of the bank and CFT routes define which answers are final. Never stored are an error status (except
/// for health), an answer that reports a failure of upstream, and an unknown answer. A "pending" bank answer is stored
/// only so that identical requests share the pending request.
pub(super) fn kept(subject: Subject, status: StatusCode, answer: &Answer, lifetimes: &config::Cache) -> Option<Kept> {
    let result = |lifetime: Duration| Kept { lifetime, grace: Duration::ZERO, id: None, pending: false };
    if subject == Subject::Health {
        return Some(result(HEALTH_LIFETIME));
    }
    if !matches!(status, StatusCode::OK | StatusCode::CREATED) {
        return None;
    }
    // An error is no answer, whatever its status is.
    if answer.is_error() {
        return None;
    }
    let kept = match subject {
        Subject::Bank | Subject::BankGet => {
            let id: Option<Box<str>> = answer.id().map(Into::into);
            let grace = lifetimes.bank_stale_if_error;
            let kept = match bank(answer)? {
                Bank::Found => Kept { grace, ..result(review(answer, lifetimes.bank_found, lifetimes)) },
                Bank::NotFound => Kept { grace, ..result(review(answer, lifetimes.bank_not_found, lifetimes)) },
                // Without an id the result could not be fetched.
                Bank::Pending => {
                    id.as_ref()?;
                    let lifetime = if subject == Subject::Bank { PENDING_LIFETIME } else { POLL_INTERVAL };
                    Kept { pending: true, ..result(lifetime) }
                }
            };
            Kept { id, ..kept }
        }
        Subject::Cft => match cft(answer)? {
            Cft::Clear => result(lifetimes.cft_clear),
            Cft::Match => result(lifetimes.cft_match),
        },
        Subject::BankCodes => answer.is_filled().then_some(result(lifetimes.bank_codes))?,
        Subject::Health => result(HEALTH_LIFETIME),
    };
    (!kept.lifetime.is_zero()).then_some(kept)
}

/// Returns the lifetime of a bank answer. If Iluma marked the answer for review, this is `bank_need_review` at most,
/// because such a mark is outdated sooner.
fn review(answer: &Answer, lifetime: Duration, lifetimes: &config::Cache) -> Duration {
    if answer.needs_review() { lifetime.min(lifetimes.bank_need_review) } else { lifetime }
}

enum Bank {
    Found,
    NotFound,
    Pending,
}

fn bank(answer: &Answer) -> Option<Bank> {
    if !answer.is_unambiguous() {
        return None;
    }
    let status = answer.status()?;
    match status {
        Status::Pending | Status::InProgress | Status::WaitingOnBank => Some(Bank::Pending),
        Status::Failed => (answer.failure()? == Failure::BankAccountNotFound).then_some(Bank::NotFound),
        // v1.1 and later have `is_found` in the result; an answer without it is unknown. In v1 SUCCESS itself means
        // that the account exists. Success with the reason of a failure contradicts itself.
        Status::Success | Status::Completed if answer.failure().is_some() => None,
        Status::Success | Status::Completed => match answer.found()? {
            Found::Yes => Some(Bank::Found),
            Found::No => Some(Bank::NotFound),
            Found::NoResult => (status == Status::Success).then_some(Bank::Found),
            Found::Unclear => None,
        },
        Status::RecapturePending | Status::CompletedReviewRequired | Status::Other | Status::NotText => None,
    }
}

enum Cft {
    Clear,
    Match,
}

fn cft(answer: &Answer) -> Option<Cft> {
    // This route has no documented status, but if there is one it must be final.
    match answer.status() {
        None | Some(Status::Success | Status::Completed) => {}
        Some(
            Status::Pending
            | Status::InProgress
            | Status::WaitingOnBank
            | Status::RecapturePending
            | Status::CompletedReviewRequired
            | Status::Failed
            | Status::Other
            | Status::NotText,
        ) => return None,
    }
    Some(if answer.has_no_results()? { Cft::Clear } else { Cft::Match })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::byte_size::ByteSize;
    use bytes::Bytes;

    const LIFETIMES: config::Cache = config::Cache {
        memory: ByteSize::mib(1),
        disk: ByteSize::kib(0),
        bank_found: Duration::from_secs(700),
        bank_need_review: Duration::from_secs(240),
        bank_not_found: Duration::from_secs(60),
        bank_stale_if_error: Duration::from_secs(9),
        cft_clear: Duration::from_secs(61),
        cft_match: Duration::from_secs(62),
        bank_codes: Duration::from_secs(63),
    };

    /// Returns the seconds for which a result is stored; `None` if it is not stored, or is "pending".
    fn kept(subject: Subject, status: u16, body: &str) -> Option<u64> {
        let kept = verdict(subject, status, body).filter(|kept| !kept.pending);
        kept.map(|kept| kept.lifetime.as_secs())
    }

    fn verdict(subject: Subject, status: u16, body: &str) -> Option<Kept> {
        let status = StatusCode::from_u16(status).unwrap();
        super::kept(subject, status, &Answer::parse(&Bytes::copy_from_slice(body.as_bytes()), None), &LIFETIMES)
    }

    #[test]
    fn a_pending_request_is_remembered_by_its_id_and_no_result() {
        for status in ["PENDING", "pending", "IN_PROGRESS", "WAITING_ON_BANK"] {
            let body = format!(r#"{{"status":"{status}","id":"bknv_1"}}"#);
            let pending = verdict(Subject::Bank, 200, &body).unwrap();
            assert_eq!(
                (pending.id.as_deref(), pending.pending, pending.lifetime),
                (Some("bknv_1"), true, PENDING_LIFETIME)
            );
            assert_eq!(verdict(Subject::BankGet, 200, &body).unwrap().lifetime, POLL_INTERVAL);
            assert_eq!(verdict(Subject::Cft, 200, &body), None);
        }
        for body in
            [r#"{"status":"PENDING"}"#, r#"{"status":"PENDING","id":""}"#, r#"{"status":"RECAPTURE_PENDING","id":"1"}"#]
        {
            assert_eq!(verdict(Subject::Bank, 200, body), None, "{body}");
        }
        assert_eq!(verdict(Subject::Bank, 202, r#"{"status":"PENDING","id":"1"}"#), None);
    }

    #[test]
    fn bank_answers_that_are_final_are_kept_by_what_they_say() {
        let (found, marked, not_found) = (Some(700), Some(240), Some(60));
        for (expected, body) in [
            // v1
            (found, r#"{"status":"SUCCESS","bank_account_holder_name":"X","is_normal_account":true,"id":"1"}"#),
            (found, r#"{"status":"success","id":"1"}"#),
            (not_found, r#"{"status":"FAILED","failure_reason":"BANK_ACCOUNT_NOT_FOUND_ERROR","id":"1"}"#),
            // v1.1 and later
            (found, r#"{"status":"COMPLETED","result":{"is_found":true,"account_holder_name":"X"}}"#),
            (marked, r#"{"status":"COMPLETED","result":{"is_found":"true","need_review":true}}"#),
            (marked, r#"{"status":"COMPLETED","result":{"is_found":true,"need_review":"false"}}"#),
            (not_found, r#"{"status":"COMPLETED","result":{"is_found":false,"need_review":true}}"#),
            (found, r#"{"status":"SUCCESS","result":{"is_found":true}}"#),
            (not_found, r#"{"status":"COMPLETED","result":{"is_found":false}}"#),
            (not_found, r#"{"status":"Completed","result":{"is_found":"False"}}"#),
            // These answers are not final.
            (None, r#"{"status":"PENDING","id":"1"}"#),
            (None, r#"{"status":"pending"}"#),
            (None, r#"{"status":"IN_PROGRESS"}"#),
            (None, r#"{"status":"WAITING_ON_BANK"}"#),
            (None, r#"{"status":"RECAPTURE_PENDING"}"#),
            // These answers say nothing about the account.
            (None, r#"{"status":"FAILED","failure_reason":"TEMPORARY_NETWORK_ERROR"}"#),
            (None, r#"{"status":"FAILED","failure_reason":"SOMETHING_NEW"}"#),
            (None, r#"{"status":"FAILED"}"#),
            // These answers contradict themselves.
            (None, r#"{"status":"SUCCESS","error_code":"SERVER_ERROR","id":"1"}"#),
            (None, r#"{"status":"COMPLETED","failure_reason":"TEMPORARY_NETWORK_ERROR","result":{"is_found":true}}"#),
            (found, r#"{"status":"SUCCESS","failure_reason":null,"error_code":null,"id":"1"}"#),
            // These answers are unknown.
            (None, r#"{"status":"ARCHIVED"}"#),
            (None, r#"{"status":"COMPLETED_REVIEW_REQUIRED","result":{"is_found":true}}"#),
            (None, r#"{"status":"COMPLETED"}"#),
            (None, r#"{"status":"COMPLETED","result":{}}"#),
            (None, r#"{"status":"COMPLETED","result":{"is_found":"maybe"}}"#),
            (None, r#"{"status":"COMPLETED","result":{"is_found":null}}"#),
            (None, r#"{"status":"COMPLETED","result":{"is_found":true,"is_found":false}}"#),
            (None, r#"{"status":"COMPLETED","status":"PENDING","result":{"is_found":true}}"#),
            (None, r#"{"status":1}"#),
            (None, r#"{"id":"1"}"#),
            (None, r#"["status"]"#),
            (None, r#"{"status":"COMPLETED","result":{"is_found":true}"#),
            (None, ""),
        ] {
            assert_eq!(kept(Subject::Bank, 200, body), expected, "{body}");
        }
    }

    #[test]
    fn watchlist_answers_are_kept_by_whether_they_match() {
        for (expected, body) in [
            (Some(61), r#"{"request_name":"A B","results":[],"id":"1"}"#),
            (Some(61), r#"{"results":[ ]}"#),
            (Some(62), r#"{"request_name":"A B","results":[{"pid":"x_1","name":"N"}],"id":"1"}"#),
            (Some(62), r#"{"status":"COMPLETED","results":[{}]}"#),
            (None, r#"{"status":"PENDING","results":[]}"#),
            (None, r#"{"request_name":"A B","id":"1"}"#),
            (None, r#"{"results":null}"#),
            (None, r#"{"results":{}}"#),
            (None, r#"{"results":[null]}"#),
            (None, r#"{"results":[{},"x"]}"#),
            (None, r#"{"error_code":"SERVER_ERROR","results":[]}"#),
            (None, r#"{"results":[],"results":[{}]}"#),
        ] {
            assert_eq!(kept(Subject::Cft, 200, body), expected, "{body}");
        }
    }

    #[test]
    fn an_error_status_is_never_kept_but_for_health() {
        let found = r#"{"status":"COMPLETED","result":{"is_found":true}}"#;
        for status in [202, 204, 206, 301, 400, 401, 403, 404, 429, 500, 503] {
            assert_eq!(kept(Subject::Bank, status, found), None, "{status}");
            assert_eq!(kept(Subject::Cft, status, r#"{"results":[]}"#), None, "{status}");
            assert_eq!(kept(Subject::BankCodes, status, "[]"), None, "{status}");
        }
        assert_eq!(kept(Subject::Bank, 201, found), Some(700));
        assert_eq!(kept(Subject::Health, 503, "down"), Some(5));
    }

    #[test]
    fn the_list_of_bank_codes_is_kept_if_it_has_some() {
        for good in [r#"[{"code":"BCA"}]"#, r#"["BCA"]"#, r#"{"data":[]}"#, r#"{"BCA":"Bank Central Asia"}"#] {
            assert_eq!(kept(Subject::BankCodes, 200, good), Some(63), "{good}");
        }
        for bad in
            ["", "[", "null", "<html>", "[1,]", "[]", "{}", "[null]", r#"{"error_code":"X","message":"Y","data":[1]}"#]
        {
            assert_eq!(kept(Subject::BankCodes, 200, bad), None, "{bad}");
        }
    }

    #[test]
    fn a_lifetime_of_zero_keeps_nothing() {
        let off = config::Cache { cft_match: Duration::ZERO, ..LIFETIMES };
        let answer = Answer::parse(&Bytes::from_static(br#"{"results":[{}]}"#), None);
        assert_eq!(super::kept(Subject::Cft, StatusCode::OK, &answer, &off), None);
    }
}
