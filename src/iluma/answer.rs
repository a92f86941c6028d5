//! Answers of Iluma, each of which is parsed once, when it arrives.
//!
//! The cache, the ledger, owners, erasure and the reference prefix all use the same [`Answer`]; no other code parses
//! the body again. Status words, ids and the position of the reference are defined only here. A member that an object
//! repeats has no clear value, because parsers differ about which of its values counts.

use super::person::{Persons, Tag};
use super::record_id;
use crate::base::json::{Items, Members};
use crate::base::json_template::{Absent, JsonTemplate};
use bytes::Bytes;
use serde_json::value::RawValue;
use std::collections::BTreeSet;

/// The status of a record, from the member `status` of an answer. The letter case of the word makes no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Iluma has not begun to process the request.
    Pending,
    /// Iluma processes the request.
    InProgress,
    /// The bank has not answered.
    WaitingOnBank,
    /// A capture is being repeated.
    RecapturePending,
    /// The request ended with a result; version 1 of the API uses this word.
    Success,
    /// The request ended with a result.
    Completed,
    /// The request ended with a result that a person has to review.
    CompletedReviewRequired,
    /// The request ended without a result.
    Failed,
    /// The word is unknown to the gateway.
    Other,
    /// The value of `status` is not a JSON string.
    NotText,
}

/// Every status word, as Iluma spells it.
const WORDS: [(&str, Status); 8] = [
    ("PENDING", Status::Pending),
    ("IN_PROGRESS", Status::InProgress),
    ("WAITING_ON_BANK", Status::WaitingOnBank),
    ("RECAPTURE_PENDING", Status::RecapturePending),
    ("SUCCESS", Status::Success),
    ("COMPLETED", Status::Completed),
    ("COMPLETED_REVIEW_REQUIRED", Status::CompletedReviewRequired),
    ("FAILED", Status::Failed),
];

impl Status {
    fn of(value: &RawValue) -> Self {
        let Ok(text) = serde_json::from_str::<String>(value.get()) else { return Self::NotText };
        let known = WORDS.iter().find(|(word, _)| text.eq_ignore_ascii_case(word));
        known.map_or(Self::Other, |(_, status)| *status)
    }

    /// Returns true while the record has no result yet.
    #[must_use]
    pub const fn is_pending(self) -> bool {
        match self {
            Self::Pending | Self::InProgress | Self::WaitingOnBank | Self::RecapturePending => true,
            Self::Success
            | Self::Completed
            | Self::CompletedReviewRequired
            | Self::Failed
            | Self::Other
            | Self::NotText => false,
        }
    }

    /// Returns true once Iluma has ended the processing of the record, with or without a result.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Success | Self::Completed | Self::CompletedReviewRequired | Self::Failed => true,
            Self::Pending
            | Self::InProgress
            | Self::WaitingOnBank
            | Self::RecapturePending
            | Self::Other
            | Self::NotText => false,
        }
    }
}

/// The reason of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Iluma could not reach its data source, and does not charge for the request.
    TemporaryNetworkError,
    /// The bank has no such account. This counts as a result, so Iluma charges for it.
    BankAccountNotFound,
    /// Another reason.
    Other,
}

/// The result of a search: the member `result.is_found` of an answer, as a boolean or as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The answer has no member `result`.
    NoResult,
    /// `result.is_found` is true.
    Yes,
    /// `result.is_found` is false.
    No,
    /// The answer has a result without a clear `is_found`.
    Unclear,
}

/// One answer of Iluma's, which is parsed once.
#[derive(Debug, Clone)]
pub struct Answer {
    body: Bytes,
    shape: Shape,
    persons: BTreeSet<Tag>,
}

#[derive(Debug, Clone)]
enum Shape {
    /// The body is JSON, and is not an object. The value is true if the body is a list.
    NotJson,
    /// The body is JSON, and is not an object. The value is true for a list.
    Json(bool),
    Object(Box<Object>),
}

/// The members of an object that the gateway uses.
#[derive(Debug, Clone)]
struct Object {
    id: Option<String>,
    status: Option<Status>,
    failure: Option<Failure>,
    found: Found,
    /// True if `result` or the answer itself has a member `need_review`.
    needs_review: bool,
    /// True if the list `results` is empty, false if it has only objects. `None` if there is no such list, or if one of
    /// its items is not an object.
    results: Option<bool>,
    /// True if the object has no members.
    is_empty: bool,
    /// True if the object has an `error_code`.
    is_error: bool,
    /// True if `error_code` means that the rate limit is exceeded.
    is_rate_limited: bool,
    /// The value of `reference_id`, as JSON text.
    reference: Option<Bytes>,
    /// The object as a template into which any reference can be inserted; `None` if `reference_id` is repeated.
    template: Option<JsonTemplate>,
    has_reference: bool,
    /// True if any member is repeated.
    is_ambiguous: bool,
    /// True if `id`, `status` or `failure_reason` is repeated.
    is_unclear: bool,
}

impl Answer {
    /// Parses a body. If `persons` is given, also makes a tag for every person that the body names.
    #[must_use]
    pub fn parse(body: &Bytes, persons: Option<&Persons>) -> Self {
        #[cfg(test)]
        PARSED.with(|count| count.set(count.get() + 1));
        let Ok(text) = std::str::from_utf8(body) else { return Self::opaque(body) };
        let shape = match text.trim_ascii_start().as_bytes().first() {
            Some(b'{') => match serde_json::from_str::<Members<'_>>(text) {
                Ok(members) => Shape::Object(Box::new(Object::of(body, text, &members))),
                Err(_) => Shape::NotJson,
            },
            first => match serde_json::from_str::<&RawValue>(text) {
                Ok(_) => Shape::Json(first == Some(&b'[')),
                Err(_) => Shape::NotJson,
            },
        };
        let persons = match &shape {
            Shape::NotJson => BTreeSet::new(),
            Shape::Json(_) | Shape::Object(_) => persons.map_or_else(BTreeSet::new, |persons| persons.in_json(body)),
        };
        Self { body: body.clone(), shape, persons }
    }

    fn opaque(body: &Bytes) -> Self {
        Self { body: body.clone(), shape: Shape::NotJson, persons: BTreeSet::new() }
    }

    fn object(&self) -> Option<&Object> {
        match &self.shape {
            Shape::Object(object) => Some(object),
            Shape::NotJson | Shape::Json(_) => None,
        }
    }

    /// Returns the object if none of `id`, `status` and `failure_reason` is repeated.
    fn clear(&self) -> Option<&Object> {
        self.object().filter(|object| !object.is_unclear)
    }

    /// Returns the object if it repeats no member.
    fn unambiguous(&self) -> Option<&Object> {
        self.object().filter(|object| !object.is_ambiguous)
    }

    /// Returns the body as Iluma sent it.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// Returns the tags of the persons that the answer names.
    #[must_use]
    pub const fn persons(&self) -> &BTreeSet<Tag> {
        &self.persons
    }

    /// Returns true for a JSON object in which none of `id`, `status` and `failure_reason` is repeated. Each may be
    /// absent.
    #[must_use]
    pub fn is_record(&self) -> bool {
        self.clear().is_some()
    }

    /// Returns true for a JSON object in which no member is repeated.
    #[must_use]
    pub fn is_unambiguous(&self) -> bool {
        self.unambiguous().is_some()
    }

    /// Returns true for an object that has members, or a list that has items and no `null` among them.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        match &self.shape {
            Shape::Object(object) => !object.is_empty,
            Shape::Json(true) => serde_json::from_slice::<Items<'_>>(&self.body)
                .is_ok_and(|Items(items)| !items.is_empty() && items.iter().all(|item| item.get() != "null")),
            Shape::NotJson | Shape::Json(false) => false,
        }
    }

    /// Returns true for an object with an `error_code`, with any HTTP status.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.object().is_some_and(|object| object.is_error)
    }

    /// Returns Iluma's id of the record; `None` if the answer has no clear id.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.clear()?.id.as_deref()
    }

    /// Returns the status; `None` if the answer has no status, or no clear one.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.clear()?.status
    }

    /// Returns the reason of a failure; `None` if the answer has no reason, or no clear one.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.clear()?.failure
    }

    /// Returns the result of the search; `None` if the body is not an object, or if it repeats a member.
    #[must_use]
    pub fn found(&self) -> Option<Found> {
        Some(self.unambiguous()?.found)
    }

    /// Returns true if the answer or its `result` has the member `need_review`, with any value. Iluma sends the member
    /// if the bank account is on a blacklist, and also if it is known not to be on one.
    #[must_use]
    pub fn needs_review(&self) -> bool {
        self.object().is_some_and(|object| object.needs_review)
    }

    /// Returns true if the list `results` is empty, false if it has only objects. Returns `None` if there is no such
    /// list, if one of its items is not an object, or if the body repeats a member.
    #[must_use]
    pub fn has_no_results(&self) -> Option<bool> {
        self.unambiguous()?.results
    }

    /// Returns true for an error that reports an exceeded rate limit. The HTTP status does not suffice: the route `ktp`
    /// reports the limit with the status 400.
    #[must_use]
    pub fn is_rate_limited(&self) -> bool {
        self.object().is_some_and(|object| object.is_rate_limited)
    }

    /// Returns true for a JSON object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.object().is_some()
    }

    /// Returns the answer's reference as JSON text; `None` if the answer has no reference.
    #[must_use]
    pub fn reference(&self) -> Option<&Bytes> {
        self.object()?.reference.as_ref()
    }

    /// Returns the body as a template into which any caller's reference can be inserted. `absent` is the treatment of
    /// an object that has no reference. JSON that is not an object stays unchanged for every caller. Returns `None` if
    /// the body is not JSON, or repeats `reference_id`.
    #[must_use]
    pub fn template(&self, absent: Absent) -> Option<JsonTemplate> {
        match &self.shape {
            Shape::NotJson => None,
            Shape::Json(_) => Some(JsonTemplate::whole(&self.body)),
            Shape::Object(object) => match (object.has_reference, absent) {
                (true, _) | (false, Absent::Insert) => object.template.clone(),
                (false, Absent::Leave) => Some(JsonTemplate::whole(&self.body)),
            },
        }
    }
}

impl Object {
    fn of(body: &Bytes, text: &str, members: &Members<'_>) -> Self {
        let value = |wanted: &str| members.0.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
        let is_twice = |wanted: &str| members.0.iter().filter(|(name, _)| name == wanted).nth(1).is_some();
        let reference = value("reference_id").map(|value| body.slice_ref(value.get().as_bytes()));
        Self {
            id: value("id").and_then(id),
            status: value("status").map(Status::of),
            failure: value("failure_reason").filter(|value| !matches!(value.get(), "null" | "\"\"")).map(failure),
            found: value("result").map_or(Found::NoResult, found),
            needs_review: value("need_review").is_some() || value("result").is_some_and(needs_review),
            results: value("results")
                .and_then(|value| serde_json::from_str::<Items<'_>>(value.get()).ok())
                .filter(|Items(items)| items.iter().all(|item| item.get().starts_with('{')))
                .map(|Items(items)| items.is_empty()),
            is_empty: members.0.is_empty(),
            is_error: value("error_code").is_some_and(|value| value.get() != "null"),
            is_rate_limited: value("error_code").is_some_and(|value| value.get() == r#""RATE_LIMIT_EXCEEDED""#),
            has_reference: reference.is_some(),
            reference,
            template: JsonTemplate::around(text, members, Absent::Insert),
            is_ambiguous: has_duplicates(members),
            is_unclear: ["id", "status", "failure_reason"].into_iter().any(is_twice),
        }
    }
}

fn has_duplicates(members: &Members<'_>) -> bool {
    let mut names: Vec<&str> = members.0.iter().map(|(name, _)| name.as_ref()).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

/// Returns an id as text: the content of a JSON string, or the digits of a JSON number. Returns `None` for any other
/// value, and for an id that is empty or too long.
fn id(value: &RawValue) -> Option<String> {
    let text = match value.get().as_bytes().first() {
        Some(b'"') => serde_json::from_str(value.get()).ok()?,
        Some(b'-' | b'0'..=b'9') => value.get().to_owned(),
        _ => return None,
    };
    record_id::within_bound(&text)?;
    Some(text)
}

fn failure(value: &RawValue) -> Failure {
    let text: String = serde_json::from_str(value.get()).unwrap_or_default();
    match text {
        text if text.eq_ignore_ascii_case("TEMPORARY_NETWORK_ERROR") => Failure::TemporaryNetworkError,
        text if text.eq_ignore_ascii_case("BANK_ACCOUNT_NOT_FOUND_ERROR") => Failure::BankAccountNotFound,
        _ => Failure::Other,
    }
}

fn found(result: &RawValue) -> Found {
    let Ok(members) = serde_json::from_str::<Members<'_>>(result.get()) else { return Found::Unclear };
    if has_duplicates(&members) {
        return Found::Unclear;
    }
    let mut words =
        members.0.iter().filter(|(name, _)| name == "is_found").map(|(_, value)| value.get().trim_matches('"'));
    match words.next() {
        Some(word) if word.eq_ignore_ascii_case("true") => Found::Yes,
        Some(word) if word.eq_ignore_ascii_case("false") => Found::No,
        Some(_) | None => Found::Unclear,
    }
}

/// Returns true if a result has the member `need_review`, with any value.
fn needs_review(result: &RawValue) -> bool {
    let members = serde_json::from_str::<Members<'_>>(result.get());
    members.is_ok_and(|members| members.0.iter().any(|(name, _)| name == "need_review"))
}

#[cfg(test)]
thread_local! {
    /// The number of answers that were parsed on this thread.
    pub static PARSED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Answer {
        Answer::parse(&Bytes::copy_from_slice(text.as_bytes()), None)
    }

    #[test]
    fn status_words_are_known_in_any_case() {
        for (word, status) in WORDS {
            for text in [word.to_owned(), word.to_lowercase()] {
                assert_eq!(parse(&format!(r#"{{"status":"{text}"}}"#)).status(), Some(status), "{text}");
            }
            assert!(!(status.is_pending() && status.is_final()), "{word}");
            assert!(status.is_pending() || status.is_final(), "{word}");
        }
        for (text, status) in [
            (r#"{"status":"ARCHIVED"}"#, Some(Status::Other)),
            (r#"{"status":1}"#, Some(Status::NotText)),
            ("{}", None),
            (r#"["status"]"#, None),
            (r#"{"status":"PENDING","status":"COMPLETED"}"#, None),
        ] {
            assert_eq!(parse(text).status(), status, "{text}");
        }
    }

    #[test]
    fn an_id_has_one_normal_form() {
        let long = "x".repeat(record_id::LONGEST_ID + 1);
        for (text, id) in [
            (r#"{"id":"a\u0062"}"#.to_owned(), Some("ab")),
            (r#"{"id":12}"#.to_owned(), Some("12")),
            (r#"{"id":""}"#.to_owned(), None),
            (r#"{"id":null}"#.to_owned(), None),
            (r#"{"id":{"id":"a"}}"#.to_owned(), None),
            (r#"{"id":"a","id":"b"}"#.to_owned(), None),
            (format!(r#"{{"id":"{long}"}}"#), None),
        ] {
            assert_eq!(parse(&text).id(), id, "{text}");
        }
    }

    #[test]
    fn found_is_a_boolean_or_a_text() {
        for (text, expected) in [
            ("{}", Some(Found::NoResult)),
            (r#"{"result":{"is_found":true}}"#, Some(Found::Yes)),
            (r#"{"result":{"is_found":"False"}}"#, Some(Found::No)),
            (r#"{"result":{"is_found":true,"is_found":false}}"#, Some(Found::Unclear)),
            (r#"{"result":[]}"#, Some(Found::Unclear)),
            ("[]", None),
        ] {
            assert_eq!(parse(text).found(), expected, "{text}");
        }
    }

    #[test]
    fn a_mark_for_review_is_seen_whatever_its_value() {
        for (text, expected) in [
            (r#"{"result":{"is_found":true,"need_review":true}}"#, true),
            (r#"{"result":{"need_review":"false"}}"#, true),
            (r#"{"result":{"need_review":null}}"#, true),
            (r#"{"need_review":true}"#, true),
            (r#"{"result":{"is_found":true}}"#, false),
            (r#"{"result":{"more":{"need_review":true}}}"#, false),
            (r#"[{"need_review":true}]"#, false),
            ("need_review", false),
        ] {
            assert_eq!(parse(text).needs_review(), expected, "{text}");
        }
    }

    #[test]
    fn a_template_is_as_one_that_was_split() {
        for body in [
            r#"{"a":1,"reference_id":"x","b":2}"#,
            r#"{"a":1}"#,
            "{}",
            "[1]",
            "",
            "{",
            r#"{"reference_id":"a","reference_id":"b"}"#,
        ] {
            for absent in [Absent::Insert, Absent::Leave] {
                let split = JsonTemplate::split(&Bytes::from(body), absent);
                assert_eq!(parse(body).template(absent), split, "{body} {absent:?}");
            }
        }
        assert_eq!(parse(r#"{"reference_id": "x" }"#).reference().map(|text| &text[..]), Some(&br#""x""#[..]));
    }

    #[test]
    fn persons_are_those_of_the_body() {
        let persons = Persons::new(&[4; 32]);
        let body = Bytes::from_static(br#"{"result":{"account_holder_name":"CONTOH DEMO"}}"#);
        assert_eq!(*Answer::parse(&body, Some(&persons)).persons(), persons.in_json(&body));
        assert!(Answer::parse(&Bytes::from_static(b"<html>"), Some(&persons)).persons().is_empty());
    }
}
