//! A JSON body into which a reference is inserted, without parsing or writing the rest again.
//!
//! Invariant: only the object's own member `reference_id` changes; a nested `reference_id` belongs to other data.

use crate::base::json::{self, Members};
use bytes::{Bytes, BytesMut};

/// A body into which a caller's reference can be inserted.
///
/// Without a reference the body is `raw[..before] + raw[after..]`. With a reference the body is
/// `raw[..at] + reference + raw[at..]`. Invariant: `before <= at <= after <= raw.len()`, all on character boundaries of
/// JSON's own punctuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonTemplate {
    raw: Bytes,
    before: usize,
    at: usize,
    after: usize,
    /// True if a reference can be inserted.
    open: bool,
}

/// The treatment of a body or a query that has no `reference_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// A `reference_id` may be inserted. In an answer it is the reference of another caller: the caller that caused the
    /// answer gave none, so Iluma echoed none. In a request it is the bare prefix.
    Insert,
    /// Nothing is inserted. For an answer this means that Iluma received a reference and did not echo it.
    Leave,
}

impl JsonTemplate {
    /// Makes a template from `body`. The `reference_id` of a JSON object is cut out. Any other JSON stays unchanged for
    /// every caller. Returns `None` if the body is not JSON, or has `reference_id` twice.
    #[must_use]
    pub fn split(body: &Bytes, absent: Absent) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        if !text.trim_ascii_start().starts_with('{') {
            let _: &serde_json::value::RawValue = serde_json::from_str(text).ok()?;
            return Some(Self::whole(body));
        }
        Self::around(text, &serde_json::from_str(text).ok()?, absent)
    }

    /// Makes a template from an object whose `members` were read from `text`. Returns `None` if the object has
    /// `reference_id` twice.
    #[must_use]
    pub fn around(text: &str, Members(members): &Members<'_>, absent: Absent) -> Option<Self> {
        let body = text.as_bytes();
        let start = text.len() - text.trim_ascii_start().len();
        let span = |value: &str| {
            let span = json::span(text, value);
            (span.start, span.end)
        };
        let mut own = members.iter().enumerate().filter(|(_, (name, _))| name == "reference_id");
        let Some((index, (_, value))) = own.next() else {
            if absent == Absent::Leave {
                return Some(Self::whole(body));
            }
            // The member is inserted at the end: the order of Iluma's members has no meaning.
            let end = members.last().map_or(start + 1, |(_, value)| span(value.get()).1);
            let lead: &[u8] = if members.is_empty() { br#""reference_id":"# } else { br#","reference_id":"# };
            let raw = [&body[..end], lead, &body[end..]].concat().into();
            let at = end + lead.len();
            return Some(Self { raw, before: end, at, after: at, open: true });
        };
        if own.next().is_some() {
            return None;
        }
        let (from, to) = span(value.get());
        // One comma is cut out with the member: the comma before it, or the comma after it if it is the first member.
        let before = match index.checked_sub(1) {
            Some(previous) => span(members[previous].1.get()).1,
            None => start + 1,
        };
        let comma = if index == 0 && members.len() > 1 { text[to..].find(',')? + 1 } else { 0 };
        let raw = [&body[..from], &body[to..]].concat().into();
        Some(Self { raw, before, at: from, after: from + comma, open: true })
    }

    /// Makes a template into which no reference is inserted. The bytes are copied, because they are a slice of a read
    /// buffer of many kilobytes. A cache entry would otherwise keep that buffer in memory for days.
    #[must_use]
    pub fn whole(body: &[u8]) -> Self {
        let end = body.len();
        Self { raw: Bytes::copy_from_slice(body), before: end, at: end, after: end, open: false }
    }

    /// Returns the body with `reference`, a JSON text that includes its quotes, or without a reference for `None`.
    #[must_use]
    pub fn with(&self, reference: Option<&[u8]>) -> Bytes {
        match reference {
            _ if !self.open => self.raw.clone(),
            None if self.before == self.after => self.raw.clone(),
            None => join(&[&self.raw[..self.before], &self.raw[self.after..]]),
            Some(reference) => join(&[&self.raw[..self.at], reference, &self.raw[self.at..]]),
        }
    }

    /// Returns the fields for storage: `raw`, the positions `before`, `at` and `after`, and true if a reference can be
    /// inserted.
    #[must_use]
    pub fn layout(&self) -> (&[u8], [usize; 3], bool) {
        (&self.raw, [self.before, self.at, self.after], self.open)
    }

    /// Makes a template from the fields that [`JsonTemplate::layout`] returned. Returns `None` if the positions are
    /// invalid.
    #[must_use]
    pub fn from_layout(raw: Bytes, [before, at, after]: [usize; 3], open: bool) -> Option<Self> {
        (before <= at && at <= after && after <= raw.len()).then_some(Self { raw, before, at, after, open })
    }

    /// Returns the length of the stored bytes, without the inserted reference.
    #[must_use]
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Returns true if there are no stored bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }
}

/// Joins parts into one piece.
#[must_use]
pub fn join(parts: &[&[u8]]) -> Bytes {
    let mut whole = BytesMut::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        whole.extend_from_slice(part);
    }
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(body: &str) -> Option<JsonTemplate> {
        JsonTemplate::split(&Bytes::copy_from_slice(body.as_bytes()), Absent::Insert)
    }

    #[test]
    fn the_callers_reference_stands_where_upstreams_stood() {
        for (body, with, without) in [
            (r#"{"a":1,"reference_id":"x","b":2}"#, r#"{"a":1,"reference_id":"NEW","b":2}"#, r#"{"a":1,"b":2}"#),
            (r#"{"reference_id":"x","b":2}"#, r#"{"reference_id":"NEW","b":2}"#, r#"{"b":2}"#),
            (r#"{"a":1,"reference_id":"x"}"#, r#"{"a":1,"reference_id":"NEW"}"#, r#"{"a":1}"#),
            (r#"{"reference_id":"x"}"#, r#"{"reference_id":"NEW"}"#, r"{}"),
            (r#"{"reference_id":null,"b":2}"#, r#"{"reference_id":"NEW","b":2}"#, r#"{"b":2}"#),
            (r#"{"a":1}"#, r#"{"a":1,"reference_id":"NEW"}"#, r#"{"a":1}"#),
            (r"{}", r#"{"reference_id":"NEW"}"#, r"{}"),
            (
                "{\n  \"reference_id\" : \"x\" ,\n  \"b\": 2\n}\n",
                "{\n  \"reference_id\" : \"NEW\" ,\n  \"b\": 2\n}\n",
                "{\n  \"b\": 2\n}\n",
            ),
            (
                "{\n  \"a\": 1,\n  \"reference_id\": \"x,}\"\n}",
                "{\n  \"a\": 1,\n  \"reference_id\": \"NEW\"\n}",
                "{\n  \"a\": 1\n}",
            ),
            (r#"{"reference\u005fid":"x","b":2}"#, r#"{"reference\u005fid":"NEW","b":2}"#, r#"{"b":2}"#),
            // A nested member is not the object's own.
            (
                r#"{"a":{"reference_id":"in"}}"#,
                r#"{"a":{"reference_id":"in"},"reference_id":"NEW"}"#,
                r#"{"a":{"reference_id":"in"}}"#,
            ),
            (r#"["reference_id"]"#, r#"["reference_id"]"#, r#"["reference_id"]"#),
        ] {
            let spliced = split(body).unwrap();
            assert_eq!(spliced.with(Some(b"\"NEW\"")), with, "{body}");
            assert_eq!(spliced.with(None), without, "{body}");
        }
    }

    #[test]
    fn an_answer_that_echoes_nothing_stays_as_it_is() {
        let body = Bytes::from_static(br#"{"error_code":"X"}"#);
        let spliced = JsonTemplate::split(&body, Absent::Leave).unwrap();
        assert_eq!(spliced.with(Some(b"\"NEW\"")), body);
        let own = Bytes::from_static(br#"{"reference_id":"x"}"#);
        assert_eq!(JsonTemplate::split(&own, Absent::Leave), JsonTemplate::split(&own, Absent::Insert));
    }

    #[test]
    fn what_is_no_json_or_names_it_twice_is_not_split() {
        for bad in ["", " ", "{", "x", "{}x", r#"{"reference_id":"a","reference_id":"b"}"#, "{\"a\":\"\u{1}\"}"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_split_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(spliced) = JsonTemplate::split(&body.into(), Absent::Insert) {
                let _ = (spliced.with(None), spliced.with(Some(b"\"x\"")));
            }
        }

        /// Tests that a template changes nothing except the reference, in any answer.
        #[test]
        fn putting_the_same_reference_back_gives_the_same_bytes(
            names in proptest::collection::vec("[a-z]{1,5}", 0..5),
            values in proptest::collection::vec("\"[a-z,{}:]{0,6}\"|0|[1-9][0-9]{0,2}|\\{\"a\" ?: ?\\[1, ?2\\]\\}|null", 5),
            gap in "[ \n]{0,2}",
            place in 0_usize..6,
        ) {
            let mut members: Vec<String> = names
                .iter()
                .zip(&values)
                .enumerate()
                .map(|(i, (name, value))| format!("{gap}\"{name}{i}\"{gap}:{gap}{value}{gap}"))
                .collect();
            let place = place.min(members.len());
            let without_members = members.clone();
            members.insert(place, format!("{gap}\"reference_id\"{gap}:{gap}\"mine\"{gap}"));
            let body = format!("{gap}{{{}}}{gap}", members.join(","));
            let spliced = split(&body).unwrap();
            prop_assert_eq!(spliced.with(Some(b"\"mine\"")), body.as_bytes());
            let parsed: serde_json::Value = serde_json::from_slice(&spliced.with(None)).unwrap();
            let expected: serde_json::Value = serde_json::from_str(&format!("{{{}}}", without_members.join(","))).unwrap();
            prop_assert_eq!(parsed, expected);
        }
    }
}
