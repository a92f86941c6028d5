//! The persons that a request names.

use crate::iluma::person::{Persons, Tag};
use http::HeaderValue;
use std::collections::BTreeSet;

/// Returns the persons that a JSON or form body names.
pub(super) fn persons_in(persons: &Persons, content_type: Option<&HeaderValue>, body: &[u8]) -> BTreeSet<Tag> {
    let is_form = |kind: &HeaderValue| kind.as_bytes().to_ascii_lowercase().starts_with(b"application/x-www-form");
    if content_type.is_some_and(is_form) {
        let fields: Vec<_> = form_urlencoded::parse(body).collect();
        return persons.in_fields(fields.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
    }
    persons.in_json(body)
}

/// Returns the persons that a path names: a phone number is a segment of digits.
pub(super) fn persons_in_path(persons: &Persons, path: &str) -> BTreeSet<Tag> {
    let decoded = path.split('/').map(|segment| percent_encoding::percent_decode_str(segment).decode_utf8_lossy());
    let numbers: Vec<_> = decoded.filter(|segment| is_phone_number(segment)).collect();
    numbers.iter().flat_map(|number| persons.in_fields([("phone_number", number.as_ref())].into_iter())).collect()
}

/// Returns true for at least six digits, which may have separators.
fn is_phone_number(text: &str) -> bool {
    let is_separator = |c: char| matches!(c, '+' | '-' | ' ' | '(' | ')' | '.');
    text.chars().all(|c| c.is_ascii_digit() || is_separator(c))
        && text.chars().filter(char::is_ascii_digit).count() >= 6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_the_person_with_its_phone_number() {
        let persons = Persons::new(&[1; 32]);
        for path in ["/v1/fraud/phone_numbers/6281234567890/age", "/v1/fraud/phone_numbers/%2B62-812-3456-7890/age"] {
            let named = persons.named(br#"{"phone_number":"+6281234567890"}"#).unwrap();
            assert_eq!(persons_in_path(&persons, path), named, "{path}");
        }
        for path in ["/", "/v1/identity/document_ocr_captures/ocr-98cdecb2-84b0/recapture", "/v1.1/x/12345"] {
            assert_eq!(persons_in_path(&persons, path), BTreeSet::new(), "{path}");
        }
    }
}
