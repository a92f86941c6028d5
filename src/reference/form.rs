//! Requests as forms (`application/x-www-form-urlencoded`), and queries, which have the same syntax.

use super::body::BodyError;
use super::canonical::{Canonical, Tag, Value};
use super::content::{Ambiguity, RequestContent};
use super::insert_point::InsertPoint;
use super::name::{Named, named};
use super::prefix::{LARGEST_REFERENCE, reference_json};
use bytes::Bytes;
use percent_encoding::percent_decode;
use std::borrow::Cow;
use std::ops::Range;

/// Parses a form. All values are strings, so a form has the same encoding as a JSON object with the same strings.
pub(super) fn content(body: &Bytes) -> Result<RequestContent, BodyError> {
    let text = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body).trim_ascii_start();
    // Servers that ignore content types read such a body as JSON, in which they would find another reference.
    if text.starts_with(b"{") {
        return Err(BodyError::Mistyped);
    }
    let (mut canonical, mut own) = (Canonical::new(), None);
    for pair in pairs(body) {
        let (name, value) = (decode(&body[pair.name.clone()])?, decode(&body[pair.value.clone()])?);
        if pair.is_reference(body, &name)? {
            if value.len() > LARGEST_REFERENCE || own.replace((pair, reference_json(&value))).is_some() {
                return Err(BodyError::Reference);
            }
        } else {
            let value = match value {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            };
            canonical.push(name, Value(Tag::String, value));
        }
    }
    let (parameters, duplicate) = canonical.finish();
    let (place, reference) = placed(body, own);
    Ok(RequestContent {
        parameters,
        reference,
        ambiguity: duplicate.then_some(Ambiguity::DuplicateMember),
        place: Some(place),
    })
}

/// Returns the insert point of the prefix in a query, and the caller's reference as JSON text. The reference is `None`
/// if the query has none. The values of other parameters are not checked: Iluma judges them.
pub(super) fn query(query: &Bytes) -> Result<(InsertPoint, Option<Bytes>), BodyError> {
    let mut own = None;
    for pair in pairs(query) {
        let name = decode(&query[pair.name.clone()]).map_err(|_| BodyError::Reference)?;
        if pair.is_reference(query, &name)? {
            let value = decode(&query[pair.value.clone()]).map_err(|_| BodyError::Reference)?;
            if value.len() > LARGEST_REFERENCE || own.replace((pair, reference_json(&value))).is_some() {
                return Err(BodyError::Reference);
            }
        }
    }
    Ok(placed(query, own))
}

fn placed(whole: &Bytes, own: Option<(Pair, Bytes)>) -> (InsertPoint, Option<Bytes>) {
    let Some((pair, reference)) = own else {
        let lead = if matches!(whole[..], [] | [.., b'&']) { "reference_id=" } else { "&reference_id=" };
        return (InsertPoint::absent(whole, whole.len()..whole.len(), lead, "%3A"), None);
    };
    // A name without `=` has an empty value at its end.
    let open = if pair.name.end == pair.value.start { "=" } else { "" };
    (InsertPoint::given(whole, pair.value.start, open, "%3A"), Some(reference))
}

/// The positions of a pair's name and value in the encoded text.
struct Pair {
    name: Range<usize>,
    value: Range<usize>,
}

fn pairs(whole: &[u8]) -> impl Iterator<Item = Pair> {
    let mut next = 0;
    let pieces = whole.split(|b| *b == b'&').map(move |piece| {
        let (from, end) = (next, next + piece.len());
        next = end + 1;
        let equals = memchr::memchr(b'=', piece).map_or(end, |at| from + at);
        Pair { name: from..equals, value: (equals + 1).min(end)..end }
    });
    pieces.filter(|pair| pair.name.start < pair.value.end)
}

impl Pair {
    /// Returns true if this pair is the reference; `name` is the pair's decoded name. Returns an error if only some
    /// servers read the pair as the reference.
    fn is_reference(&self, whole: &[u8], name: &str) -> Result<bool, BodyError> {
        // Some servers read a semicolon as a separator too.
        let mut others = whole[self.name.start..self.value.end].split(|b| *b == b';').skip(1);
        let hidden = others.any(|piece| {
            let name = piece.split(|b| *b == b'=').next().unwrap_or_default();
            named(&loosely(name)) != Named::Other
        });
        match named(name) {
            _ if hidden => Err(BodyError::Reference),
            Named::Ambiguous => Err(BodyError::Reference),
            Named::Reference => Ok(true),
            Named::Other => Ok(false),
        }
    }
}

/// Decodes a name or a value as the most tolerant servers do: malformed escapes stay, and invalid UTF-8 is replaced.
pub(super) fn loosely(piece: &[u8]) -> String {
    let spaced: Vec<u8> = piece.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    percent_decode(&spaced).decode_utf8_lossy().into_owned()
}

/// Decodes a name or a value strictly. Invalid UTF-8 is an error: replacing it would give two different requests the
/// same meaning.
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

    fn parse(body: &[u8]) -> Result<RequestContent, BodyError> {
        content(&Bytes::copy_from_slice(body))
    }

    #[test]
    fn members_are_decoded_and_sorted() {
        let content = parse(b"b=2&a=1+%2B&&reference_id=x%22y").unwrap();
        assert_eq!(content.parameters, parse(b"a=1%20%2b&b=%32").unwrap().parameters);
        assert_eq!(content.reference.as_deref(), Some(&br#""x\"y""#[..]));
        assert_eq!(content.ambiguity, None);
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
            let _ = content(&body.into());
        }
    }
}
