//! Bodies on rows where references are not sealed: none may carry another team's seal.
//!
//! Invariants: the top-level reference of an object or a form is looked at however it is spelled, repeated or split into
//! pieces; nothing is held but its beginning ([`LONGEST`]); what is malformed is upstream's to judge.

use super::form::loosely;
use super::multipart::{Boundary, is_like_ascii};
use super::prefix::{Named, REFERENCE, ReferencePrefix, ReferencePrefixes, named};
use super::{BodyError, charset, essence, is_encoded};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;

/// What is held of a name or of a reference: every letter of the longest seal escaped has room in it.
const LONGEST: usize = 1 << 10;

/// What a body is looked through as.
pub(super) enum Kind {
    Json,
    Form,
    Multipart(Boundary),
}

/// The kind that a head declares. Anything may be JSON to a server that does not care for types.
pub(super) fn kind(headers: &HeaderMap) -> Result<Kind, BodyError> {
    if is_encoded(headers) {
        return Err(BodyError::Encoded);
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = types.next() else { return Ok(Kind::Json) };
    if types.next().is_some() || charset(value).is_some_and(|charset| !is_like_ascii(charset)) {
        return Err(BodyError::UnknownType);
    }
    let essence = essence(value);
    if essence.eq_ignore_ascii_case(b"multipart/form-data") {
        return Boundary::of(value.as_bytes()).map(Kind::Multipart).ok_or(BodyError::Malformed);
    }
    let form = essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded");
    Ok(if form { Kind::Form } else { Kind::Json })
}

/// Looks through the query of a target on a row where references are not sealed. Who reads parameters from both query and
/// body could find a reference there that sealing the body did not touch: on such rows [`ReferencePrefix::target`] is for it.
///
/// # Errors
/// A reference has the seal of another team than `own`, or a name in it is longer than is looked at.
pub fn screen_target(target: &PathAndQuery, own: &ReferencePrefix, seals: &ReferencePrefixes) -> Result<(), BodyError> {
    ForeignPrefixScanner::form(own.clone(), seals.clone()).feed(target.query().unwrap_or_default().as_bytes())
}

/// Looks through a body as it passes.
pub(super) struct ForeignPrefixScanner {
    own: ReferencePrefix,
    seals: ReferencePrefixes,
    /// The beginning of a name or of a reference.
    text: Vec<u8>,
    reader: Reader,
}

enum Reader {
    Json(Json),
    Form(Form),
}

#[derive(Default)]
struct Json {
    depth: usize,
    /// Whether a value comes next in the object itself, rather than a name.
    value: bool,
    /// Whether that value is the reference.
    reference: bool,
    lex: Lex,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Lex {
    /// Before the object.
    #[default]
    Before,
    Between,
    Name {
        escaped: bool,
    },
    Reference {
        escaped: bool,
    },
    Skipped {
        escaped: bool,
    },
    /// Not an object: nothing to look for.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Name,
    Reference,
    Skipped,
}

impl ForeignPrefixScanner {
    pub(super) fn json(own: ReferencePrefix, seals: ReferencePrefixes) -> Self {
        Self { own, seals, text: Vec::new(), reader: Reader::Json(Json::default()) }
    }

    pub(super) fn form(own: ReferencePrefix, seals: ReferencePrefixes) -> Self {
        Self { own, seals, text: Vec::new(), reader: Reader::Form(Form::Name) }
    }

    /// Looks at what came next. On an error none of it may pass.
    pub(super) fn feed(&mut self, data: &[u8]) -> Result<(), BodyError> {
        let mut at = 0;
        while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
            at += match &self.reader {
                Reader::Json(json) if json.lex == Lex::Done => return Ok(()),
                Reader::Json(Json { lex: Lex::Skipped { escaped: false }, .. }) => {
                    // Files in base64 are long.
                    let next = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                    if let Some(byte) = rest.get(next) {
                        self.json_byte(*byte)?;
                    }
                    next + 1
                }
                Reader::Json(_) => self.json_byte(rest[0]).map(|()| 1)?,
                Reader::Form(Form::Skipped) => {
                    let next = memchr::memchr2(b'&', b';', rest).unwrap_or(rest.len());
                    if let Some(byte) = rest.get(next) {
                        self.form_byte(*byte)?;
                    }
                    next + 1
                }
                Reader::Form(_) => self.form_byte(rest[0]).map(|()| 1)?,
            };
        }
        // The end of the body may be the end of the reference: what is there must be judged before it passes.
        match &self.reader {
            Reader::Json(Json { lex: Lex::Reference { .. }, .. }) => self.judge(&unescaped(&self.text)),
            Reader::Form(Form::Reference) => self.judge(&loosely(&self.text)),
            _ => Ok(()),
        }
    }

    fn judge(&self, reference: &str) -> Result<(), BodyError> {
        if self.seals.is_foreign(&self.own, reference) { Err(BodyError::Foreign) } else { Ok(()) }
    }

    fn json_byte(&mut self, byte: u8) -> Result<(), BodyError> {
        let Reader::Json(json) = &mut self.reader else { return Ok(()) };
        let next = match json.lex {
            Lex::Before => match byte {
                // With a byte order mark, too.
                b' ' | b'\t' | b'\r' | b'\n' | 0xef | 0xbb | 0xbf => Lex::Before,
                b'{' => {
                    *json = Json { depth: 1, ..Json::default() };
                    Lex::Between
                }
                _ => Lex::Done,
            },
            Lex::Between => match byte {
                b'"' if json.depth > 1 => Lex::Skipped { escaped: false },
                b'"' if !json.value => Lex::Name { escaped: false },
                b'"' if json.reference => Lex::Reference { escaped: false },
                b'"' => Lex::Skipped { escaped: false },
                b'{' | b'[' => {
                    // A list of one text is that text to some.
                    if json.depth == 1 && json.reference {
                        return Err(BodyError::Reference);
                    }
                    json.depth += 1;
                    Lex::Between
                }
                b'}' | b']' => {
                    json.depth -= 1;
                    // More may follow, for those who read line by line.
                    if json.depth == 0 { Lex::Before } else { Lex::Between }
                }
                b':' if json.depth == 1 => {
                    json.value = true;
                    Lex::Between
                }
                b',' if json.depth == 1 => {
                    (json.value, json.reference) = (false, false);
                    Lex::Between
                }
                _ => Lex::Between,
            },
            Lex::Name { escaped: false } if byte == b'"' => {
                json.reference = unescaped(&self.text).eq_ignore_ascii_case(REFERENCE);
                self.text.clear();
                Lex::Between
            }
            Lex::Name { escaped } => {
                // A longer one is no name that matters.
                if self.text.len() < LONGEST {
                    self.text.push(byte);
                }
                Lex::Name { escaped: byte == b'\\' && !escaped }
            }
            Lex::Reference { escaped: false } if byte == b'"' => {
                let reference = unescaped(&self.text);
                self.text.clear();
                json.lex = Lex::Between;
                return self.judge(&reference);
            }
            Lex::Reference { escaped } => {
                self.text.push(byte);
                if self.text.len() > LONGEST {
                    let reference = unescaped(&self.text);
                    self.text.clear();
                    json.lex = Lex::Skipped { escaped: byte == b'\\' && !escaped };
                    return self.judge_long(&reference);
                }
                Lex::Reference { escaped: byte == b'\\' && !escaped }
            }
            Lex::Skipped { escaped: false } if byte == b'"' => Lex::Between,
            Lex::Skipped { escaped } => Lex::Skipped { escaped: byte == b'\\' && !escaped },
            Lex::Done => Lex::Done,
        };
        json.lex = next;
        Ok(())
    }

    fn form_byte(&mut self, byte: u8) -> Result<(), BodyError> {
        let Reader::Form(form) = &mut self.reader else { return Ok(()) };
        match (*form, byte) {
            // Some servers take a semicolon for a separator, too.
            (Form::Name, b'&' | b';') => self.text.clear(),
            (Form::Name, b'=') => {
                *form = if named(&loosely(&self.text)) == Named::Other { Form::Skipped } else { Form::Reference };
                self.text.clear();
            }
            (Form::Reference, b'&' | b';') => {
                *form = Form::Name;
                let reference = loosely(&std::mem::take(&mut self.text));
                return self.judge(&reference);
            }
            (Form::Skipped, b'&' | b';') => *form = Form::Name,
            (Form::Skipped, _) => {}
            (Form::Name | Form::Reference, _) if self.text.len() < LONGEST => self.text.push(byte),
            (Form::Name, _) => return Err(BodyError::Malformed),
            (Form::Reference, _) => {
                *form = Form::Skipped;
                let reference = loosely(&std::mem::take(&mut self.text));
                return self.judge_long(&reference);
            }
        }
        Ok(())
    }

    /// Judges a reference that is too long to be held: a seal must have come by now, if one comes at all.
    fn judge_long(&self, reference: &str) -> Result<(), BodyError> {
        let trimmed = reference.trim_start_matches(|c: char| c.is_whitespace() || c.is_control());
        // A kilobyte of spaces, and then what may become a name.
        if trimmed.len() <= 32 && !trimmed.contains(':') {
            return Err(BodyError::Reference);
        }
        self.judge(reference)
    }
}

/// The inside of a JSON string as far as it can be read; it may be cut off, or malformed.
fn unescaped(inner: &[u8]) -> String {
    let (mut text, mut rest) = (Vec::with_capacity(inner.len()), inner);
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'\\' {
            text.push(*byte);
            continue;
        }
        let Some((escape, behind)) = rest.split_first() else { break };
        rest = behind;
        let letter = match escape {
            b'u' => {
                let Some((hex, behind)) = rest.split_at_checked(4) else { break };
                rest = behind;
                let code = std::str::from_utf8(hex).ok().and_then(|hex| u32::from_str_radix(hex, 16).ok());
                // Half a pair stands for a letter that no name and no space is.
                code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            other => char::from(*other),
        };
        text.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn own() -> ReferencePrefix {
        ReferencePrefix::of(&"lending".parse().unwrap())
    }

    fn seals() -> ReferencePrefixes {
        ReferencePrefixes::of(["lending", "payments", "x"].map(|name| name.parse().unwrap()))
    }

    fn screened<'a>(
        mut screen: ForeignPrefixScanner,
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), BodyError> {
        chunks.into_iter().try_for_each(|chunk| screen.feed(chunk))
    }

    /// In one piece, and byte by byte.
    fn judged(
        screen: fn(ReferencePrefix, ReferencePrefixes) -> ForeignPrefixScanner,
        body: &str,
    ) -> Result<(), BodyError> {
        let whole = screened(screen(own(), seals()), [body.as_bytes()]);
        assert_eq!(whole, screened(screen(own(), seals()), body.as_bytes().chunks(1)), "{body}");
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
            // Cut off: it must not pass all the same.
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
            assert_eq!(screen_target(&target.parse().unwrap(), &own(), &seals()), expected, "{target}");
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
        assert_eq!(judged(ForeignPrefixScanner::form, &format!("{long}=1")), Err(BodyError::Malformed));
        for spaces in [LONGEST - 8, LONGEST - 4, LONGEST, 2 * LONGEST] {
            let spaces = " ".repeat(spaces);
            assert!(
                judged(ForeignPrefixScanner::json, &format!(r#"{{"reference_id":"{spaces}payments:x"}}"#)).is_err()
            );
            assert!(judged(ForeignPrefixScanner::form, &format!("reference_id={spaces}payments:x")).is_err());
        }
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
        assert!(matches!(kind(&["application/json; charset=utf-16"]), Err(BodyError::UnknownType)));
        assert!(matches!(kind(&["application/json", "text/plain"]), Err(BodyError::UnknownType)));
        let encoded = HeaderMap::from_iter([(http::header::CONTENT_ENCODING, "gzip".parse().unwrap())]);
        assert!(matches!(super::kind(&encoded), Err(BodyError::Encoded)));
    }

    proptest! {
        /// A foreign seal is found in every spelling of JSON, wherever its pieces are cut.
        #[test]
        fn a_seal_is_found_wherever_the_body_is_cut(
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
            prop_assert_eq!(screened(ForeignPrefixScanner::json(own(), seals()), chunks), expected, "{}", body);
        }

        #[test]
        fn any_bytes_are_looked_through(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            for screen in [ForeignPrefixScanner::json, ForeignPrefixScanner::form] {
                let whole = screened(screen(own(), seals()), [&body[..]]);
                prop_assert_eq!(whole, screened(screen(own(), seals()), body.chunks(1)));
            }
        }
    }
}
