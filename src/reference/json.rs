//! Parses JSON requests. No digit of a number and no duplicate of a member is lost.

use super::body::BodyError;
use super::canonical::{Canonical, Tag, Value};
use super::content::{Ambiguity, RequestContent};
use super::insert_point::InsertPoint;
use super::name::{Named, named};
use super::prefix::{LARGEST_REFERENCE, reference_json};
use crate::base::json::{self, Items, Members, span};
use bytes::Bytes;
use std::borrow::Cow;

/// The deepest nesting of values that is read. A deeper request bypasses the cache: real requests are flat.
const DEEPEST: usize = 16;

/// A byte order mark, which parsers may skip (RFC 8259, section 8.1).
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Parses a body that is one JSON object. A byte order mark before the object is ignored, and not forwarded.
pub(super) fn content(body: &Bytes) -> Result<RequestContent, BodyError> {
    let body = &if body.starts_with(MARK) { body.slice(MARK.len()..) } else { body.clone() };
    let text = std::str::from_utf8(body).map_err(|_| BodyError::Malformed)?;
    let Members(members) = serde_json::from_str(text).map_err(|_| BodyError::Malformed)?;
    let (mut canonical, mut own, mut ambiguity) = (Canonical::new(), None, None);
    // The position at which a member can be added, and the text before its value.
    let mut end = (text.find('{').map_or(0, |at| at + 1), r#""reference_id":""#);
    for (name, value) in members {
        end = (span(text, value.get()).end, r#","reference_id":""#);
        match named(&name) {
            Named::Reference => {
                let given = (reference(value.get(), body)?, span(text, value.get()));
                if own.replace(given).is_some() {
                    return Err(BodyError::Reference);
                }
            }
            Named::Ambiguous => return Err(BodyError::Reference),
            Named::Other => {
                if may_have_lost(&name) {
                    ambiguity = Some(Ambiguity::Unreadable);
                }
                canonical.push(name, value_of(value.get(), DEEPEST, &mut ambiguity)?);
            }
        }
    }
    let (parameters, duplicate) = canonical.finish();
    let ambiguity = if duplicate { Some(Ambiguity::DuplicateMember) } else { ambiguity };
    let (reference, place) = match own {
        Some((Some(reference), at)) => (Some(reference), InsertPoint::given(body, at.start + 1, "", ":")),
        Some((None, null)) => (None, InsertPoint::absent(body, null, "\"", ":\"")),
        None => (None, InsertPoint::absent(body, end.0..end.0, end.1, ":\"")),
    };
    Ok(RequestContent { parameters, reference, ambiguity, place: Some(place) })
}

/// Returns true if a lone surrogate in a member's name may have been replaced, so that different names may have become
/// equal.
fn may_have_lost(name: &str) -> bool {
    // The first test is fast, and decides for most names.
    !name.is_ascii() && name.contains(char::REPLACEMENT_CHARACTER)
}

/// Returns the caller's reference as JSON text with its quotes. A reference without escapes is a slice of `body`. A
/// reference with escapes is decoded and written again. Returns `None` for `null`, and an error for another value or a
/// reference that is too long.
fn reference(value: &str, body: &Bytes) -> Result<Option<Bytes>, BodyError> {
    match value.as_bytes() {
        b"null" => return Ok(None),
        [b'"', ..] => {}
        _ => return Err(BodyError::Reference),
    }
    let (text, json) = if value.contains('\\') {
        // The reference is read strictly: a reference with a lone surrogate could not be given back.
        let text: String = serde_json::from_str(value).map_err(|_| BodyError::Reference)?;
        let json = reference_json(&text);
        (text.len(), json)
    } else {
        (value.len() - 2, body.slice_ref(value.as_bytes()))
    };
    if text > LARGEST_REFERENCE { Err(BodyError::Reference) } else { Ok(Some(json)) }
}

/// Returns the canonical form of a value. Numbers keep their spelling: `1.0` differs from `1`, and no digit is lost. At
/// most `depth` levels are read. A value with more than one meaning, or with more levels, sets `ambiguity`.
fn value_of<'a>(text: &'a str, depth: usize, ambiguity: &mut Option<Ambiguity>) -> Result<Value<'a>, BodyError> {
    let bytes = text.as_bytes();
    let value = match bytes.first() {
        Some(b'"') => Value(Tag::String, json::content(text).ok_or(BodyError::Malformed)?),
        Some(b'{' | b'[') if depth == 0 => {
            *ambiguity = Some(Ambiguity::Nesting);
            Value(Tag::Object, Cow::Borrowed(&[]))
        }
        Some(b'{') => {
            let Members(members) = serde_json::from_str(text).map_err(|_| BodyError::Malformed)?;
            let mut canonical = Canonical::new();
            for (name, value) in members {
                if may_have_lost(&name) {
                    *ambiguity = Some(Ambiguity::Unreadable);
                }
                canonical.push(name, value_of(value.get(), depth - 1, ambiguity)?);
            }
            let (members, duplicate) = canonical.finish();
            if duplicate {
                *ambiguity = Some(Ambiguity::DuplicateMember);
            }
            Value(Tag::Object, Cow::Owned(members))
        }
        Some(b'[') => {
            let Items(items) = serde_json::from_str(text).map_err(|_| BodyError::Malformed)?;
            let mut encoded = Vec::new();
            for item in items {
                value_of(item.get(), depth - 1, ambiguity)?.put(&mut encoded);
            }
            Value(Tag::Array, Cow::Owned(encoded))
        }
        Some(b'-' | b'0'..=b'9') => Value(Tag::Number, Cow::Borrowed(bytes)),
        _ => Value(Tag::Literal, Cow::Borrowed(bytes)),
    };
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(body: &str) -> Result<RequestContent, BodyError> {
        content(&Bytes::copy_from_slice(body.as_bytes()))
    }

    fn parameters(body: &str) -> Vec<u8> {
        parse(body).unwrap().parameters
    }

    #[test]
    fn bodies_are_equal_exactly_if_they_mean_the_same() {
        let base = parameters(r#"{"bank_code":"BCA","bank_account_number":"123"}"#);
        for same in [
            r#" { "bank_account_number" : "123" , "bank_code" : "BCA" } "#,
            r#"{"bank_code":"\u0042CA","bank_account_number":"123"}"#,
            r#"{"bank\u005fcode":"BCA","bank_account_number":"123","reference_id":"x"}"#,
            r#"{"reference_id":null,"bank_code":"BCA","bank_account_number":"123"}"#,
        ] {
            assert_eq!(parameters(same), base, "{same}");
        }
        for other in [
            r#"{"bank_code":"BCA","bank_account_number":123}"#,
            r#"{"bank_code":"BCA","bank_account_number":"0123"}"#,
            r#"{"bank_code":"BCA","bank_account_number":"123","x":1}"#,
            r#"{"bank_code":"BCA","bank_account_number":"123","x":null}"#,
            r#"{"bank_code":"BC","Abank_account_number":"123"}"#,
            r#"{"bank_code":"BCA","bank_account_number":["123"]}"#,
            r#"{"bank_code":"bca","bank_account_number":"123"}"#,
        ] {
            assert_ne!(parameters(other), base, "{other}");
        }
        // The numbers have more digits than a double.
        assert_ne!(parameters(r#"{"n":12345678901234567890}"#), parameters(r#"{"n":12345678901234567891}"#));
        assert_ne!(parameters(r#"{"n":true}"#), parameters(r#"{"n":"true"}"#));
        assert_eq!(parameters(r#"{"n":{"a":1,"b":[2]}}"#), parameters(r#"{"n":{ "b":[ 2 ],"a":1}}"#));
        assert_ne!(parameters(r#"{"n":[1,23]}"#), parameters(r#"{"n":[12,3]}"#));
    }

    #[test]
    fn the_reference_is_taken_out_as_upstream_would_write_it() {
        for (body, reference) in [
            (r#"{"reference_id":"foo123"}"#, Some(r#""foo123""#)),
            (r#"{"reference_id":"a\u0041\"\n"}"#, Some(r#""aA\"\n""#)),
            (r#"{"reference_id":""}"#, Some(r#""""#)),
            (r#"{"reference_id":null}"#, None),
            (r"{}", None),
        ] {
            assert_eq!(parse(body).unwrap().reference.as_deref(), reference.map(str::as_bytes), "{body}");
        }
        for bad in [
            r#"{"reference_id":1}"#,
            r#"{"reference_id":["a"]}"#,
            r#"{"reference_id":"a","reference_id":"a"}"#,
            r#"{"reference_id":null,"reference_id":"a"}"#,
            r#"{"reference_id":"a","reference\u005fid":"b"}"#,
        ] {
            assert_eq!(parse(bad), Err(BodyError::Reference), "{bad}");
        }
    }

    #[test]
    fn what_has_two_meanings_is_marked() {
        for body in [r#"{"a":1,"a":1}"#, r#"{"a":{"b":1,"b":2}}"#, r#"{"a":[{"b":1,"\u0062":2}]}"#] {
            assert_eq!(parse(body).unwrap().ambiguity, Some(Ambiguity::DuplicateMember), "{body}");
        }
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(parse(&deep).unwrap().ambiguity, Some(Ambiguity::Nesting));
        assert_eq!(parse(r#"{"a":[[[1]]]}"#).unwrap().ambiguity, None);
    }

    #[test]
    fn what_is_understood_in_one_way_is_taken() {
        let base = parameters(r#"{"a":"x"}"#);
        assert_eq!(parameters("\u{feff}{\"a\":\"x\"}"), base);
        let whole = Bytes::from_static("\u{feff}{\"reference_id\":\"r\"}".as_bytes());
        let prefix = crate::reference::ReferencePrefix::of(&"lending".parse().unwrap());
        let prefixed = content(&whole).unwrap().prefixed(&prefix, crate::base::json_template::Absent::Insert).unwrap();
        assert_eq!(prefixed, r#"{"reference_id":"lending:r"}"#);
        let half = parse(r#"{"a":"\ud800"}"#).unwrap();
        assert_eq!(half.ambiguity, None);
        for other in [r#"{"a":"\ud801"}"#, "{\"a\":\"\u{fffd}\"}", r#"{"a":"\ufffd"}"#, r#"{"a":"\\ud800"}"#] {
            assert_ne!(half.parameters, parameters(other), "{other}");
        }
        assert_eq!(parse(r#"{"a\ud800":1}"#).unwrap().ambiguity, Some(Ambiguity::Unreadable));
        for bad in [r#"{"reference_id":"\ud800"}"#, r#"{"a":"\ud800","reference_id":"x\udc00y"}"#] {
            assert_eq!(parse(bad), Err(BodyError::Reference), "{bad}");
        }
    }

    #[test]
    fn what_is_not_one_object_is_malformed() {
        for bad in [
            "",
            "[]",
            "1",
            "\"x\"",
            "{",
            "{}x",
            "{a:1}",
            "{\"a\":1,}",
            "{\"a\":01}",
            "\u{feff}\u{feff}{}",
            "{\"\\x\":1}",
        ] {
            assert_eq!(parse(bad), Err(BodyError::Malformed), "{bad}");
        }
        assert_eq!(content(&Bytes::from_static(b"{\"a\":\"\xff\"}")), Err(BodyError::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = content(&body.into());
        }

        #[test]
        fn order_and_spaces_do_not_matter(
            mut members in proptest::collection::btree_map("[a-z]{1,6}", "[ -~]{0,12}", 0..6),
            swap in any::<bool>(),
        ) {
            members.remove("reference_id");
            let mut pairs: Vec<_> = members.iter().collect();
            let write = |pairs: &[(&String, &String)], gap: &str| {
                let member = |(n, v): &(&String, &String)| format!("{gap}{}:{gap}{}", serde_json::json!(n), serde_json::json!(v));
                format!("{{{}}}", pairs.iter().map(member).collect::<Vec<_>>().join(","))
            };
            let first = parameters(&write(&pairs, ""));
            let by = pairs.len().min(1);
            if swap { pairs.reverse() } else { pairs.rotate_left(by) }
            prop_assert_eq!(first, parameters(&write(&pairs, " ")));
        }

        /// Tests that different flat requests have different encodings, because a length precedes each name and each
        /// value.
        #[test]
        fn different_questions_have_different_encodings(
            a in proptest::collection::btree_map("[ab]{1,3}", "[ab]{0,3}", 0..4),
            b in proptest::collection::btree_map("[ab]{1,3}", "[ab]{0,3}", 0..4),
        ) {
            let encode = |m: &std::collections::BTreeMap<String, String>| parameters(&serde_json::to_string(m).unwrap());
            prop_assert_eq!(a == b, encode(&a) == encode(&b));
        }
    }
}
