//! Parses one level of JSON: members stay in order, values stay unparsed text, and duplicates are kept.
//!
//! `serde_json::Value` would lose duplicates of a member, the digits of a large number, and the position of a value in
//! the text.

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// The members of an object, as pairs of name and value, in the order of the text. Duplicates are included.
pub struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

/// The items of an array.
pub struct Items<'a>(pub Vec<&'a RawValue>);

/// Returns the byte range of `part` in `text`. `part` must be borrowed from `text`.
///
/// For a `part` from elsewhere, the range is meaningless and may lie outside of `text`.
#[must_use]
pub fn span(text: &str, part: &str) -> Range<usize> {
    let from = (part.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
    from..from.wrapping_add(part.len())
}

impl<'de> de::Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

impl<'de> de::Deserialize<'de> for Items<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Items<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(Collect)
    }
}

/// A member's decoded name. It is borrowed from the text if it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> de::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The raw text is read because a name may have a lone surrogate, which no `str` can hold.
        let raw: &RawValue = de::Deserialize::deserialize(deserializer)?;
        text(raw.get()).map(Name).ok_or_else(|| de::Error::custom("a name that is not a string"))
    }
}

/// Returns the decoded content of the JSON string `json`, which includes its quotes; `None` if `json` is not a string.
/// Each lone surrogate (RFC 8259, section 8.2) is replaced, because it is not a character.
#[must_use]
pub fn text(json: &str) -> Option<Cow<'_, str>> {
    if !json.contains('\\') {
        return json.strip_prefix('"')?.strip_suffix('"').map(Cow::Borrowed);
    }
    match content(json)? {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => Some(Cow::Owned(
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        )),
    }
}

/// Returns the decoded content of the JSON string `json` as bytes; `None` if `json` is not a string. Characters are
/// encoded as UTF-8. Lone surrogates are encoded in the same way (WTF-8), so that different strings have different
/// bytes.
#[must_use]
pub fn content(json: &str) -> Option<Cow<'_, [u8]>> {
    if !json.contains('\\') {
        return json.strip_prefix('"')?.strip_suffix('"').map(|inner| Cow::Borrowed(inner.as_bytes()));
    }
    struct Content;
    impl Visitor<'_> for Content {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
            Ok(bytes.to_vec())
        }
    }
    if !json.starts_with('"') {
        return None;
    }
    serde_json::Deserializer::from_str(json).deserialize_bytes(Content).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_read_with_and_without_escapes_and_with_half_a_pair() {
        for (json, expected) in [(r#""""#, ""), (r#""a""#, "a"), (r#""\u0061\n""#, "a\n"), (r#""\ud83d\ude00""#, "😀")]
        {
            assert_eq!(text(json).as_deref(), Some(expected), "{json}");
            assert_eq!(content(json).as_deref(), Some(expected.as_bytes()), "{json}");
        }
        assert!(text(r#""x\ud800""#).unwrap().starts_with("x\u{fffd}"));
        assert_ne!(content(r#""\ud800""#), content(r#""\ud801""#));
        assert_ne!(content(r#""\ud800""#), content("\"\u{fffd}\""));
        for none in ["1", "null", "", "\"", r#"[\"a"]"#] {
            assert_eq!(text(none), None, "{none}");
        }
    }

    #[test]
    fn a_name_with_half_a_pair_is_a_name() {
        let Members(members) = serde_json::from_str(r#"{"a\ud800":1,"\u0062":2}"#).unwrap();
        assert!(members[0].0.starts_with("a\u{fffd}"));
        assert_eq!(members[1].0, "b");
        for bad in ["{1:2}", "{\"a\u{1}\":1}", r#"{"\x":1}"#] {
            assert!(serde_json::from_str::<Members<'_>>(bad).is_err(), "{bad}");
        }
    }
}
