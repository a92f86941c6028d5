//! Sealed references: toward Iluma a reference is `<tenant>:<reference>`, so that no two teams share one.
//!
//! Invariants: sealing puts in the seal and changes no other byte; a reference that can't be read exactly is not sealed
//! but refused; a seal is made of characters that stand for themselves in JSON, forms and queries, but for its colon in
//! the latter two.

use super::{BodyError, form};
use crate::base::json_template::{Absent, join};
use crate::base::name::TenantName;
use bytes::Bytes;
use http::uri::PathAndQuery;
use std::ops::Range;
use std::sync::Arc;

/// A team's name and a colon, in front of its references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferencePrefix(TenantName);

impl ReferencePrefix {
    /// The seal of a team.
    #[must_use]
    pub fn of(tenant: &TenantName) -> Self {
        Self(tenant.clone())
    }

    /// Whose it is.
    #[must_use]
    pub const fn tenant(&self) -> &TenantName {
        &self.0
    }

    pub(super) fn name(&self) -> &str {
        self.0.as_str()
    }

    /// Prefixes the query of a target. Gives the caller's own reference as well: JSON text with its quotes, none if there
    /// is no such parameter. Lists are asked for with it, and upstream refuses those without, so `absent` is mostly
    /// [`Absent::Leave`].
    ///
    /// # Errors
    /// `reference_id` stands twice, or can't be read exactly.
    pub fn target(&self, target: &PathAndQuery, absent: Absent) -> Result<(PathAndQuery, Option<Bytes>), BodyError> {
        let query = Bytes::copy_from_slice(target.query().unwrap_or_default().as_bytes());
        let (place, reference) = form::query(&query)?;
        let sealed = place.seal(self, absent);
        if sealed == query {
            return Ok((target.clone(), reference));
        }
        let whole = join(&[target.path().as_bytes(), b"?", &sealed]);
        // It was a target before, and a seal has no character that may not stand in one.
        let target = PathAndQuery::from_maybe_shared(whole).map_err(|_| BodyError::Malformed)?;
        Ok((target, reference))
    }
}

/// The seals of all teams.
#[derive(Debug, Clone)]
pub struct ReferencePrefixes(Arc<[TenantName]>);

impl ReferencePrefixes {
    /// The seals of these teams. A reference sealed by a team that is not among them counts as unsealed.
    #[must_use]
    pub fn of(tenants: impl IntoIterator<Item = TenantName>) -> Self {
        let mut names: Vec<_> = tenants.into_iter().collect();
        names.sort_unstable();
        Self(names.into())
    }

    /// The team of this name.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Option<&TenantName> {
        let at = self.0.binary_search_by(|known| known.as_str().cmp(name)).ok()?;
        self.0.get(at)
    }

    /// Whether a reference as a server may come to read it begins with the seal of another team than `own`. The
    /// reference may be cut off: then as far as it goes.
    pub(super) fn is_foreign(&self, own: &ReferencePrefix, reference: &str) -> bool {
        // Some servers trim what they take.
        let reference = reference.trim_start_matches(|c: char| c.is_whitespace() || c.is_control());
        let name = reference.split_once(':').map(|(name, _)| name);
        name.and_then(|name| self.tenant(name)).is_some_and(|tenant| tenant != own.tenant())
    }
}

/// Where in a body or a query the seal goes.
#[derive(Debug, Clone)]
pub(super) struct InsertPoint {
    whole: Bytes,
    /// What makes way for the seal: nothing, but where a `null` stands.
    cut: Range<usize>,
    /// What stands before and behind the team's name.
    open: &'static str,
    close: &'static str,
    /// Whether the caller gave a reference.
    given: bool,
}

impl InsertPoint {
    /// In front of the reference at `at`.
    pub(super) fn given(whole: &Bytes, at: usize, open: &'static str, close: &'static str) -> Self {
        Self { whole: whole.clone(), cut: at..at, open, close, given: true }
    }

    /// Instead of what stands at `cut`, which is no reference.
    pub(super) fn absent(whole: &Bytes, cut: Range<usize>, open: &'static str, close: &'static str) -> Self {
        Self { whole: whole.clone(), cut, open, close, given: false }
    }

    /// The sealed body. Without a reference it has the bare seal for one, or as `absent` says.
    pub(super) fn seal(&self, seal: &ReferencePrefix, absent: Absent) -> Bytes {
        if !self.given && absent == Absent::Leave {
            return self.whole.clone();
        }
        let (before, behind) = (&self.whole[..self.cut.start], &self.whole[self.cut.end..]);
        join(&[before, self.open.as_bytes(), seal.name().as_bytes(), self.close.as_bytes(), behind])
    }
}

/// The parameter that is sealed.
pub(super) const REFERENCE: &str = "reference_id";

/// What a parameter is by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// The reference.
    Reference,
    /// The reference to some servers.
    Ambiguous,
    /// Something else.
    Other,
}

/// What the name of a parameter of a form, a query or a multipart body means to servers of any make: `reference_id[0]` and
/// `[reference_id]` are the same to some (qs, PHP, Rack), others ignore case, trim, end at NUL, or take dots and
/// spaces for underscores (PHP).
pub(super) fn named(name: &str) -> Named {
    if name == REFERENCE {
        return Named::Reference;
    }
    let skipped = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '[' | '"' | '\'' | '\u{feff}');
    let name = name.trim_start_matches(skipped).as_bytes();
    let Some((head, tail)) = name.split_at_checked(REFERENCE.len()) else { return Named::Other };
    let same = |(byte, wanted): (&u8, u8)| {
        byte.eq_ignore_ascii_case(&wanted) || (wanted == b'_' && matches!(byte, b'.' | b' ' | b'+'))
    };
    let ends = tail.first().is_none_or(|b| b.is_ascii() && !b.is_ascii_alphanumeric() && !matches!(b, b'_' | b'-'));
    if head.iter().zip(REFERENCE.bytes()).all(same) && ends { Named::Ambiguous } else { Named::Other }
}

/// The text of a reference that is given as JSON text with its quotes; none if it is no JSON string.
#[must_use]
pub fn reference_text(json: &[u8]) -> Option<String> {
    serde_json::from_slice(json).ok()
}

/// A reference as JSON text with its quotes.
#[must_use]
pub fn reference_json(text: &str) -> Bytes {
    // A string is always JSON.
    serde_json::to_vec(text).unwrap_or_default().into()
}

/// The name that the inside of a JSON string begins with, and where behind its colon the rest begins; none if it does not
/// begin with a name and a colon, however these are spelled. Whether some team has that name is not asked.
pub(super) fn json_seal(inner: &[u8]) -> Option<(String, usize)> {
    let (mut name, mut at) = (String::new(), 0);
    loop {
        let (letter, end) = match inner.get(at)? {
            b'\\' => {
                let hex = inner.get(at + 1..at + 6)?.strip_prefix(b"u")?;
                let code = u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
                (u8::try_from(code).ok()?, at + 6)
            }
            plain => (*plain, at + 1),
        };
        at = end;
        match letter {
            b':' => return Some((name, at)),
            b'a'..=b'z' | b'0'..=b'9' | b'-' if name.len() < 32 => name.push(char::from(letter)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::Question;
    use http::HeaderMap;
    use http::header::CONTENT_TYPE;
    use proptest::prelude::*;

    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded";

    fn seal() -> ReferencePrefix {
        ReferencePrefix::of(&"lending".parse().unwrap())
    }

    fn sealed(content_type: &str, body: &str, absent: Absent) -> Result<String, BodyError> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]);
        let question = Question::parse(&headers, &Bytes::copy_from_slice(body.as_bytes()))?;
        Ok(String::from_utf8(question.seal(&seal(), absent).unwrap().to_vec()).unwrap())
    }

    fn target(target: &str, absent: Absent) -> Result<(String, Option<String>), BodyError> {
        let (target, reference) = seal().target(&target.parse().unwrap(), absent)?;
        Ok((target.to_string(), reference.map(|json| reference_text(&json).unwrap())))
    }

    #[test]
    fn only_the_reference_of_a_body_changes() {
        for (kind, body, expected) in [
            (JSON, r#"{"reference_id":"foo"}"#, r#"{"reference_id":"lending:foo"}"#),
            (
                JSON,
                r#" { "a" : 1.50 , "reference_id" : "f\u00f6\/" } "#,
                r#" { "a" : 1.50 , "reference_id" : "lending:f\u00f6\/" } "#,
            ),
            (JSON, r#"{"reference\u005fid":"","b":[]}"#, r#"{"reference\u005fid":"lending:","b":[]}"#),
            (JSON, r#"{"reference_id":"lending:foo"}"#, r#"{"reference_id":"lending:lending:foo"}"#),
            (
                JSON,
                r#"{"a":{"reference_id":"in"},"reference_id":"é"}"#,
                r#"{"a":{"reference_id":"in"},"reference_id":"lending:é"}"#,
            ),
            (FORM, "a=1&reference_id=foo&b=+", "a=1&reference_id=lending%3Afoo&b=+"),
            (FORM, "reference%5Fid=%66", "reference%5Fid=lending%3A%66"),
            (FORM, "reference_id=", "reference_id=lending%3A"),
            (FORM, "a&reference_id", "a&reference_id=lending%3A"),
        ] {
            for absent in [Absent::Insert, Absent::Leave] {
                assert_eq!(sealed(kind, body, absent).as_deref(), Ok(expected), "{body}");
            }
        }
        for (kind, body, expected) in [
            (JSON, r"{}", r#"{"reference_id":"lending:"}"#),
            (JSON, "{ }\n", "{\"reference_id\":\"lending:\" }\n"),
            (JSON, "{\"a\" : 1 }\n", "{\"a\" : 1,\"reference_id\":\"lending:\" }\n"),
            (JSON, r#"{"a":{"reference_id":"in"}}"#, r#"{"a":{"reference_id":"in"},"reference_id":"lending:"}"#),
            (JSON, r#"{"reference_id": null ,"a":1}"#, r#"{"reference_id": "lending:" ,"a":1}"#),
            (FORM, "", "reference_id=lending%3A"),
            (FORM, "a=1", "a=1&reference_id=lending%3A"),
            (FORM, "a=1&", "a=1&reference_id=lending%3A"),
        ] {
            assert_eq!(sealed(kind, body, Absent::Insert).as_deref(), Ok(expected), "{body}");
            assert_eq!(sealed(kind, body, Absent::Leave).as_deref(), Ok(body), "{body}");
        }
    }

    #[test]
    fn a_reference_that_servers_read_in_two_ways_is_refused() {
        for name in [
            "reference_id[]",
            "reference_id[0]",
            "[reference_id]",
            "Reference_Id",
            " reference_id",
            "reference_id ",
            "reference.id",
            "reference id",
            "reference_id\0x",
            "reference_id.x",
            "\"reference_id\"",
            "\u{feff}reference_id",
        ] {
            assert_eq!(named(name), Named::Ambiguous, "{name}");
            let encoded: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
            for form in [format!("{encoded}=x"), format!("reference_id=a&{encoded}=x")] {
                assert_eq!(sealed(FORM, &form, Absent::Insert), Err(BodyError::Reference), "{form}");
                assert_eq!(target(&format!("/x?{form}"), Absent::Leave), Err(BodyError::Reference), "{form}");
            }
        }
        for name in ["reference", "reference_ids", "reference_id_2", "my_reference_id", "reference-id", "", "é"] {
            assert_eq!(named(name), Named::Other, "{name}");
        }
        for form in ["a=1;reference_id=x", "reference_id=a;reference_id=b", "a;reference_id"] {
            assert_eq!(sealed(FORM, form, Absent::Insert), Err(BodyError::Reference), "{form}");
            assert_eq!(target(&format!("/x?{form}"), Absent::Leave), Err(BodyError::Reference), "{form}");
        }
        let twice = r#"{"reference_id":"a","REFERENCE_ID":"b"}"#;
        assert_eq!(sealed(JSON, twice, Absent::Insert), Err(BodyError::Reference));
    }

    #[test]
    fn only_the_reference_of_a_query_changes() {
        for (given, expected, reference) in [
            ("/v1/x?reference_id=foo&limit=1", "/v1/x?reference_id=lending%3Afoo&limit=1", Some("foo")),
            ("/v1/x?limit=%zz&reference_id=a%2Bb+c", "/v1/x?limit=%zz&reference_id=lending%3Aa%2Bb+c", Some("a+b c")),
            ("/v1/x?reference_id=a:b%3Ac", "/v1/x?reference_id=lending%3Aa:b%3Ac", Some("a:b:c")),
            ("/v1/x?reference_id=", "/v1/x?reference_id=lending%3A", Some("")),
            ("/v1/x?reference_id", "/v1/x?reference_id=lending%3A", Some("")),
            ("/v1/x?limit=1", "/v1/x?limit=1", None),
            ("/v1/x?", "/v1/x?", None),
            ("/v1/x", "/v1/x", None),
        ] {
            let expected = (expected.to_owned(), reference.map(str::to_owned));
            assert_eq!(target(given, Absent::Leave), Ok(expected), "{given}");
        }
        let inserted = Ok(("/v1/x?limit=1&reference_id=lending%3A".to_owned(), None));
        assert_eq!(target("/v1/x?limit=1", Absent::Insert), inserted);
        assert_eq!(target("/x", Absent::Insert), Ok(("/x?reference_id=lending%3A".to_owned(), None)));
        for bad in ["/x?reference_id=a&reference_id=a", "/x?reference_id=%", "/x?reference_id=%ff", "/x?%zz=1"] {
            assert_eq!(target(bad, Absent::Leave), Err(BodyError::Reference), "{bad}");
        }
    }

    #[test]
    fn a_seal_is_read_however_it_is_spelled() {
        for (inner, name, rest) in [
            ("lending:foo", "lending", "foo"),
            (r"lending\u003Afoo", "lending", "foo"),
            (r"\u006c\u0065nding\u003a\u003a", "lending", r"\u003a"),
            ("a:b:c", "a", "b:c"),
            (":x", "", "x"),
        ] {
            let (found, at) = json_seal(inner.as_bytes()).unwrap();
            assert_eq!((found.as_str(), &inner[at..]), (name, rest), "{inner}");
        }
        for none in ["", "lending", "Lending:x", "lending :x", "é:x", r"a\n:x", r"\u00", r"\u12e9:", &"x".repeat(99)] {
            assert_eq!(json_seal(none.as_bytes()), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn what_was_sealed_reads_as_the_seal_and_the_reference(
            reference in any::<String>(),
            before in "[a-z]{0,3}",
            ascii in any::<bool>(),
        ) {
            let expected = format!("lending:{reference}");
            let mut text = serde_json::to_string(&reference).unwrap();
            if ascii {
                text = text.chars().map(|c| if c.is_ascii() { c.to_string() } else {
                    c.encode_utf16(&mut [0; 2]).iter().map(|u| format!("\\u{u:04x}")).collect()
                }).collect();
            }
            let body = format!(r#"{{"x{before}":1, "reference_id":{text}}}"#);
            let value: serde_json::Value = serde_json::from_str(&sealed(JSON, &body, Absent::Insert).unwrap()).unwrap();
            prop_assert_eq!(value["reference_id"].as_str(), Some(expected.as_str()));
            prop_assert_eq!(value.as_object().unwrap().len(), 2);

            let form = form_urlencoded::Serializer::new(String::new())
                .append_pair(&format!("x{before}"), "1").append_pair("reference_id", &reference).finish();
            let pairs: Vec<_> = form_urlencoded::parse(sealed(FORM, &form, Absent::Insert).unwrap().as_bytes())
                .into_owned().collect();
            prop_assert_eq!(&pairs[1], &("reference_id".to_owned(), expected.clone()));
            let (target, own) = target(&format!("/v1/list?{form}"), Absent::Leave).unwrap();
            let query = target.strip_prefix("/v1/list?").unwrap();
            prop_assert_eq!(form_urlencoded::parse(query.as_bytes()).into_owned().collect::<Vec<_>>(), pairs);
            prop_assert_eq!(own, Some(reference));
        }
    }
}
