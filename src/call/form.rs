//! Form questions (`application/x-www-form-urlencoded`).

use super::{Ambiguity, BodyError, Canonical, Question, Tag, Value};
use bytes::Bytes;
use percent_encoding::percent_decode;
use std::borrow::Cow;

/// Parses a form. Its values count as strings, so it asks the same question as the JSON object with these strings.
pub(super) fn question(body: &Bytes) -> Result<Question, BodyError> {
    let (mut canonical, mut reference) = (Canonical::new(), None);
    for piece in body.split(|b| *b == b'&').filter(|piece| !piece.is_empty()) {
        let at = piece.iter().position(|b| *b == b'=').unwrap_or(piece.len());
        let (name, value) = (decode(&piece[..at])?, decode(piece.get(at + 1..).unwrap_or_default())?);
        if name == "reference_id" {
            let json = serde_json::to_vec(&value).map_err(|_| BodyError::Malformed)?;
            if reference.replace(Bytes::from(json)).is_some() {
                return Err(BodyError::Reference);
            }
        } else if name.starts_with("reference_id[") {
            // What some servers read as an array or an object named reference_id.
            return Err(BodyError::Reference);
        } else {
            let value = match value {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            };
            canonical.push(name, Value(Tag::String, value));
        }
    }
    let (parameters, duplicate) = canonical.finish();
    Ok(Question { parameters, reference, ambiguity: duplicate.then_some(Ambiguity::DuplicateMember) })
}

/// Decodes strictly: replacing what is no UTF-8 would give two questions one meaning.
fn decode(piece: &[u8]) -> Result<Cow<'_, str>, BodyError> {
    let broken = |at: usize| !piece.get(at + 1..at + 3).is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit));
    if memchr::memchr_iter(b'%', piece).any(broken) {
        return Err(BodyError::Malformed);
    }
    if !piece.contains(&b'+') {
        return percent_decode(piece).decode_utf8().map_err(|_| BodyError::Malformed);
    }
    let spaced: Vec<u8> = piece.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    let text = percent_decode(&spaced).decode_utf8().map_err(|_| BodyError::Malformed)?;
    Ok(Cow::Owned(text.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(body: &[u8]) -> Result<Question, BodyError> {
        question(&Bytes::copy_from_slice(body))
    }

    #[test]
    fn members_are_decoded_and_sorted() {
        let question = parse(b"b=2&a=1+%2B&&reference_id=x%22y").unwrap();
        assert_eq!(question.parameters, parse(b"a=1%20%2b&b=%32").unwrap().parameters);
        assert_eq!(question.reference.as_deref(), Some(&br#""x\"y""#[..]));
        assert_eq!(question.ambiguity, None);
        assert_eq!(parse(b"a=1&a=1").unwrap().ambiguity, Some(Ambiguity::DuplicateMember));
        assert_eq!(parse(b"a").unwrap().parameters, parse(b"a=").unwrap().parameters);
    }

    #[test]
    fn what_cannot_be_read_exactly_is_refused() {
        for bad in [&b"a=%"[..], b"a=%4", b"a=%zz", b"a=\xff", b"a=%ff", b"%c3=1"] {
            assert_eq!(parse(bad), Err(BodyError::Malformed), "{bad:?}");
        }
        for bad in [&b"reference_id=a&reference_id=b"[..], b"reference_id[]=a", b"reference_id%5B0%5D=a"] {
            assert_eq!(parse(bad), Err(BodyError::Reference), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = question(&body.into());
        }
    }
}
