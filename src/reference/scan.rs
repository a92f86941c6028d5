//! Scans bodies and queries to which no prefix is added. Their references must not have another team's prefix.
//!
//! Invariants: the top-level reference of an object or a form is checked in any spelling, also if it is repeated or cut
//! into pieces; a body in which a reference could hide is refused; Iluma judges other malformed bodies.

use super::body::BodyError;
use super::boundary::Boundary;
use super::content_type::{Encoding, charsets, essence};
use super::foreign_prefix::ForeignPrefixScanner;
use super::form::loosely;
use super::judge::Judge;
use super::multipart::Rewriter;
use super::parameters::{is_token, starts_with_ignoring_case};
use super::part_head::is_like_ascii;
use super::pieces::Pieces;
use super::prefix::{ReferencePrefix, ReferencePrefixes};
use super::scan_encoded::EncodedScanner;
use super::scan_form::FormReader;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;

/// The kinds of body that are scanned.
pub(super) enum Kind {
    Json,
    Form,
    Multipart(Boundary),
}

/// The treatment of a body with a content encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodedBody {
    /// The body is refused.
    Refused,
    /// The body is scanned twice, as it arrives and decoded, and forwarded as it arrives.
    Decoded,
}

/// Returns the kind of scan for a body. Every type except forms and multipart is scanned as JSON, because a server that
/// ignores content types may read any body as JSON.
///
/// # Errors
/// Returns an error if the body can't be scanned: it has more than one content type, a type that servers read
/// differently, a malformed boundary, or a charset unlike ASCII.
pub(super) fn kind(headers: &HeaderMap) -> Result<Kind, BodyError> {
    let kind = kind_in_any_charset(headers)?;
    let is_odd = headers.get(CONTENT_TYPE).is_some_and(|value| charsets(value).any(|charset| !is_like_ascii(charset)));
    if is_odd { Err(BodyError::UnknownType) } else { Ok(kind) }
}

fn kind_in_any_charset(headers: &HeaderMap) -> Result<Kind, BodyError> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = types.next() else { return Ok(Kind::Json) };
    if types.next().is_some() {
        return Err(BodyError::UnknownType);
    }
    let essence = essence(value);
    if essence.eq_ignore_ascii_case(b"multipart/form-data") {
        return Boundary::of(value.as_bytes()).map(Kind::Multipart).ok_or(BodyError::Malformed);
    }
    // Some servers read every multipart body as a form. Some read the beginning of a malformed type as a type.
    if starts_with_ignoring_case(essence, b"multipart/") || essence.iter().any(|b| !is_token(*b) && *b != b'/') {
        return Err(BodyError::UnknownType);
    }
    let form = essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded");
    Ok(if form { Kind::Form } else { Kind::Json })
}

/// Scans the query of a target for another team's prefix, on a route where references are not prefixed. On other routes
/// [`ReferencePrefix::target`] prefixes the query.
///
/// # Errors
/// Returns an error if a reference begins with the prefix of a team other than `own`, or if a reference or a
/// parameter's name is too long to be checked.
pub fn scan_query(target: &PathAndQuery, own: &ReferencePrefix, prefixes: &ReferencePrefixes) -> Result<(), BodyError> {
    let mut judge = Judge::new(own.clone(), prefixes.clone(), loosely);
    FormReader::query().feed(target.query().unwrap_or_default().as_bytes(), &mut judge)
}

/// Scans a body that was read whole, on a route where references are not prefixed, for another team's prefix. The
/// charset is not checked, because the body is forwarded under a content type without a charset.
///
/// # Errors
/// Returns an error if a reference begins with the prefix of a team other than `own`, or if the body can't be scanned.
pub fn scan_body(
    headers: &HeaderMap,
    body: &Bytes,
    own: &ReferencePrefix,
    prefixes: &ReferencePrefixes,
) -> Result<(), BodyError> {
    let encoding = Encoding::of(headers)?;
    match (kind_in_any_charset(headers)?, encoding) {
        (Kind::Json, _) => BodyScanner::new(encoding, || ForeignPrefixScanner::json(own, prefixes)).feed(body),
        (Kind::Form, _) => BodyScanner::new(encoding, || ForeignPrefixScanner::form(own, prefixes)).feed(body),
        (Kind::Multipart(_), Some(_)) => Err(BodyError::Encoded),
        (Kind::Multipart(boundary), None) => {
            let mut parts = Rewriter::scan(&boundary, own.clone(), prefixes.clone());
            parts.feed(body.clone(), &mut Pieces::default())?;
            parts.finish()
        }
    }
}

/// Scans a JSON or form body while it passes. An encoded body is scanned twice: decoded, and as it arrives. The second
/// scan is for servers that ignore the encoding.
pub(super) struct BodyScanner {
    plain: ForeignPrefixScanner,
    encoded: Option<EncodedScanner>,
}

impl BodyScanner {
    pub(super) fn new(encoding: Option<Encoding>, scanner: impl Fn() -> ForeignPrefixScanner) -> Self {
        Self { plain: scanner(), encoded: encoding.map(|encoding| EncodedScanner::new(encoding, scanner)) }
    }

    /// Scans the next piece. After an error no byte of the piece may pass.
    pub(super) fn feed(&mut self, data: &[u8]) -> Result<(), BodyError> {
        self.plain.feed(data)?;
        self.encoded.as_mut().map_or(Ok(()), |encoded| encoded.feed(data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::judge::BEGINNING as LONGEST;
    use proptest::prelude::*;

    fn own() -> ReferencePrefix {
        ReferencePrefix::of(&"lending".parse().unwrap())
    }

    fn prefixes() -> ReferencePrefixes {
        ReferencePrefixes::of(["lending", "payments", "x"].map(|name| name.parse().unwrap()))
    }

    fn screened<'a>(
        mut screen: ForeignPrefixScanner,
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), BodyError> {
        chunks.into_iter().try_for_each(|chunk| screen.feed(chunk))
    }

    /// Scans the body whole, and again byte by byte. Asserts that both results are the same, and returns the result.
    fn judged(
        screen: fn(&ReferencePrefix, &ReferencePrefixes) -> ForeignPrefixScanner,
        body: &str,
    ) -> Result<(), BodyError> {
        let whole = screened(screen(&own(), &prefixes()), [body.as_bytes()]);
        assert_eq!(whole, screened(screen(&own(), &prefixes()), body.as_bytes().chunks(1)), "{body}");
        whole
    }

    #[test]
    fn json_is_looked_through_at_its_top_alone() {
        for good in [
            "",
            "{}",
            r#"{"reference_id":"foo"}"#,
            r#"{"reference_id":"lending:foo"}"#,
            r#"{"reference_id":"unknown:foo","a":"payments:foo"}"#,
            r#"{"a":{"reference_id":"payments:foo"},"b":[{"reference_id":"payments:x"}],"reference_id":1}"#,
            r#"{"a":"reference_id","b":"payments:foo"}"#,
            r#"{"reference_id":null,"a":["payments:x"]}"#,
            r#"{"reference_id":"a:payments:foo"}"#,
            r#"{"a":"\"reference_id\":\"payments:x\""}"#,
            r#""reference_id""#,
            r#"[{"reference_id":"payments:x"}]"#,
            "%PDF-1.7 {\"reference_id\":\"payments:x\"}",
            "}}}]]]",
            "{]]]{",
        ] {
            assert_eq!(judged(ForeignPrefixScanner::json, good), Ok(()), "{good}");
        }
        for bad in [
            r#"{"reference_id":"payments:foo"}"#,
            r#" { "a":[1,"}",{"b":"\\"}], "reference_id" : "x:" } "#,
            r#"{"reference\u005fid":"\u0070ayments\u003afoo"}"#,
            r#"{"REFERENCE_ID":"payments:foo"}"#,
            r#"{"reference_id":"foo","reference_id":"payments:foo"}"#,
            r#"{"reference_id":" \n\u00a0payments:foo"}"#,
            "\u{feff}{\"reference_id\":\"payments:foo\"}",
            "{}\n{\"reference_id\":\"payments:foo\"}",
            // The body is incomplete, and must not pass either.
            r#"{"reference_id":"payments:"#,
        ] {
            assert_eq!(judged(ForeignPrefixScanner::json, bad), Err(BodyError::Foreign), "{bad}");
        }
        for bad in [r#"{"reference_id":["payments:foo"]}"#, r#"{"reference_id":{"a":1}}"#] {
            assert_eq!(judged(ForeignPrefixScanner::json, bad), Err(BodyError::Reference), "{bad}");
        }
    }

    #[test]
    fn a_form_is_looked_through_as_any_server_may_read_it() {
        for good in
            ["", "a=payments:x", "reference_id=foo&b=payments%3Ax", "reference_id", "reference_id=lending:x", "&&=;"]
        {
            assert_eq!(judged(ForeignPrefixScanner::form, good), Ok(()), "{good}");
        }
        for bad in [
            "reference_id=payments:foo",
            "a=1&reference_id=payments%3A",
            "a=1&reference%5Fid=%70ayments%3afoo&b",
            "reference_id=foo&reference_id=payments:foo",
            "reference_id[]=payments:foo",
            "a=1;Reference_Id=payments:foo",
            "reference_id=+%09payments:foo",
            "reference_id=payments:foo;x",
        ] {
            assert_eq!(judged(ForeignPrefixScanner::form, bad), Err(BodyError::Foreign), "{bad}");
        }
        for (target, expected) in [
            ("/v9/new?reference_id=payments%3Ax", Err(BodyError::Foreign)),
            ("/v9/new?reference_id=lending%3Ax", Ok(())),
            ("/v9/payments:x", Ok(())),
        ] {
            assert_eq!(scan_query(&target.parse().unwrap(), &own(), &prefixes()), expected, "{target}");
        }
    }

    #[test]
    fn what_is_longer_than_is_held_hides_nothing() {
        let long = "y".repeat(3 * LONGEST);
        assert_eq!(
            judged(ForeignPrefixScanner::json, &format!(r#"{{"{long}":"{long}","reference_id":"{long}:"}}"#)),
            Ok(())
        );
        assert_eq!(judged(ForeignPrefixScanner::form, &format!("reference_id={long}:&a={long}")), Ok(()));
        assert_eq!(judged(ForeignPrefixScanner::form, &long), Ok(()));
        assert_eq!(judged(ForeignPrefixScanner::form, &format!("{long}=1&a")), Ok(()));
        let after = format!("{long}=1&reference_id=payments:x");
        assert_eq!(judged(ForeignPrefixScanner::form, &after), Err(BodyError::Foreign));
        for begun in ["", "reference", "r%65f"] {
            let padded = format!("{}{begun}%65=1", "-".repeat(LONGEST - begun.len() - 1));
            assert_eq!(judged(ForeignPrefixScanner::form, &padded), Err(BodyError::Malformed), "{begun}");
        }
        for spaces in [LONGEST - 8, LONGEST - 4, LONGEST, 2 * LONGEST] {
            let spaces = " ".repeat(spaces);
            assert!(
                judged(ForeignPrefixScanner::json, &format!(r#"{{"reference_id":"{spaces}payments:x"}}"#)).is_err()
            );
            assert!(judged(ForeignPrefixScanner::form, &format!("reference_id={spaces}payments:x")).is_err());
        }
        // A name that may still become the reference is not skipped.
        let padded = format!(r#"{{"{}reference_id":"payments:x"}}"#, "-".repeat(2 * LONGEST));
        assert_eq!(judged(ForeignPrefixScanner::json, &padded), Err(BodyError::Reference));
        for (count, expected) in [(4096, Ok(())), (4097, Err(BodyError::Reference))] {
            let text = "y".repeat(count);
            let escaped = r"\u0079".repeat(count);
            let encoded = "%79".repeat(count);
            for body in [format!(r#"{{"reference_id":"{text}"}}"#), format!(r#"{{"reference_id":"{escaped}"}}"#)] {
                assert_eq!(judged(ForeignPrefixScanner::json, &body), expected, "{count}");
            }
            for body in [format!("reference_id={text}"), format!("reference_id={encoded}&a")] {
                assert_eq!(judged(ForeignPrefixScanner::form, &body), expected, "{count}");
            }
        }
        assert_eq!(judged(ForeignPrefixScanner::form, " {}"), Err(BodyError::Mistyped));
        let after = format!(r#"{{"{long}":"{long}\"","reference_id":"payments:x"}}"#);
        assert_eq!(judged(ForeignPrefixScanner::json, &after), Err(BodyError::Foreign));
    }

    #[test]
    fn the_kind_is_told_from_the_head() {
        let kind = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|value| _ = headers.append(CONTENT_TYPE, value.parse().unwrap()));
            super::kind(&headers)
        };
        for json in [&[][..], &["application/json"], &["text/plain"], &["application/pdf; charset=ISO-8859-1"]] {
            assert!(matches!(kind(json), Ok(Kind::Json)), "{json:?}");
        }
        assert!(matches!(kind(&["Application/X-WWW-Form-Urlencoded"]), Ok(Kind::Form)));
        assert!(matches!(kind(&["multipart/form-data; boundary=x"]), Ok(Kind::Multipart(_))));
        assert!(matches!(kind(&["multipart/form-data"]), Err(BodyError::Malformed)));
        for odd in ["multipart/mixed; boundary=x", "Multipart/Related", "application/x-www-form-urlencoded, x"] {
            assert!(matches!(kind(&[odd]), Err(BodyError::UnknownType)), "{odd}");
        }
        assert!(matches!(kind(&["application/json; charset=utf-16"]), Err(BodyError::UnknownType)));
        assert!(matches!(kind(&["application/json", "text/plain"]), Err(BodyError::UnknownType)));
        assert!(matches!(kind(&["application/x-www-form-urlencoded; charset=koi8-r"]), Err(BodyError::UnknownType)));
    }

    /// Tests that JSON in UTF-16 or UTF-32 is refused, because some servers recognise these charsets by themselves.
    #[test]
    fn json_in_wide_characters_is_refused() {
        let text = r#" {"reference_id":"payments:x"}"#;
        let wide = |mark: bool, encode: fn(char) -> Vec<u8>| -> Vec<u8> {
            let mark = mark.then_some('\u{feff}');
            mark.into_iter().chain(text.chars()).flat_map(encode).collect()
        };
        let encodings: [fn(char) -> Vec<u8>; 4] = [
            |letter| (letter as u16).to_le_bytes().into(),
            |letter| (letter as u16).to_be_bytes().into(),
            |letter| u32::from(letter).to_le_bytes().into(),
            |letter| u32::from(letter).to_be_bytes().into(),
        ];
        for (at, encode) in encodings.into_iter().enumerate() {
            for mark in [false, true] {
                let body = wide(mark, encode);
                for size in [1, body.len()] {
                    let judged = screened(ForeignPrefixScanner::json(&own(), &prefixes()), body.chunks(size));
                    assert_eq!(judged, Err(BodyError::UnknownType), "encoding {at}, mark: {mark}");
                }
            }
        }
        for binary in [&b"\0\0\0\x18ftypmp42"[..], b"\xff\xd8\xff\xe0 {\0", b"{\"a\":\"\0\"}"] {
            assert_eq!(screened(ForeignPrefixScanner::json(&own(), &prefixes()), [binary]), Ok(()));
        }
    }

    #[test]
    fn a_whole_body_is_scanned_as_its_head_says() {
        let judged = |kind: &str, body: &'static str| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]);
            scan_body(&headers, &Bytes::from_static(body.as_bytes()), &own(), &prefixes())
        };
        const PART: &str =
            "--b\r\nContent-Disposition: form-data; name=\"reference_id\"\r\n\r\npayments:x\r\n--b--\r\n";
        for (kind, body, expected) in [
            ("application/json; charset=utf-7", r#"{"reference_id":"payments:x"}"#, Err(BodyError::Foreign)),
            ("text/plain", r#"{"reference_id":"lending:x"}"#, Ok(())),
            ("application/x-www-form-urlencoded", "reference_id=payments:x", Err(BodyError::Foreign)),
            ("multipart/form-data; boundary=b", PART, Err(BodyError::Foreign)),
            ("multipart/form-data; boundary=c", PART, Err(BodyError::Malformed)),
        ] {
            assert_eq!(judged(kind, body), expected, "{kind}");
        }
    }

    proptest! {
        /// Tests that a foreign prefix is found in every spelling of JSON, for any cut into pieces.
        #[test]
        fn a_prefix_is_found_wherever_the_body_is_cut(
            names in proptest::collection::vec("[a-z\\\\\"{}:,]{0,5}", 0..4),
            place in any::<prop::sample::Index>(),
            reference in prop_oneof!["payments:[a-z]{0,3}", "lending:[a-z]{0,3}", "[a-z]{0,3}"],
            escape in any::<bool>(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let written = |text: &str| {
                let all = text.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect::<String>();
                if escape { format!("\"{all}\"") } else { serde_json::json!(text).to_string() }
            };
            let mut members: Vec<_> = names
                .iter()
                .map(|name| format!("{}: [{}, {{\"reference_id\":\"payments:x\"}}]", written(&format!("_{name}")), written(name)))
                .collect();
            let member = format!("{} : {}", written("reference_id"), written(&reference));
            members.insert(place.index(members.len() + 1), member);
            let body = format!("{{{}}}", members.join(","));
            let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).chain([0, body.len()]).collect();
            at.sort_unstable();
            let chunks = at.windows(2).map(|pair| &body.as_bytes()[pair[0]..pair[1]]);
            let expected = if reference.starts_with("payments:") { Err(BodyError::Foreign) } else { Ok(()) };
            prop_assert_eq!(screened(ForeignPrefixScanner::json(&own(), &prefixes()), chunks), expected, "{}", body);
        }

        #[test]
        fn any_bytes_are_looked_through(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            for screen in [ForeignPrefixScanner::json, ForeignPrefixScanner::form] {
                let whole = screened(screen(&own(), &prefixes()), [&body[..]]);
                prop_assert_eq!(whole, screened(screen(&own(), &prefixes()), body.chunks(1)));
            }
        }
    }
}
