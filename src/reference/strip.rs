//! Answers and callbacks with the caller's own reference again, or none.
//!
//! Invariants: nothing but the seal, or the member that had nothing but one, is taken out; order, spaces and the spelling
//! of everything else stay; another team's seal is shown to nobody; a `reference_id` further in is somebody else's and
//! stays.

use super::prefix::{REFERENCE, ReferencePrefix, ReferencePrefixes, json_seal};
use crate::base::json::{Items, Members, span};
use crate::base::json_template::{Absent, JsonTemplate, join};
use crate::base::name::TenantName;
use crate::iluma;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use std::fmt;
use std::ops::Range;

/// An answer, by what it holds.
#[derive(Debug)]
pub enum Answer {
    /// One record.
    Record(Record),
    /// A page of records.
    List(List),
    /// Something else, or what names the id or the reference of a record twice.
    Other,
}

impl Answer {
    /// Reads an answer: an array, or an object with an array `data`, is a list; another object is a record.
    #[must_use]
    pub fn read(body: &Bytes, seals: &ReferencePrefixes) -> Self {
        let Ok(text) = std::str::from_utf8(body) else { return Self::Other };
        if text.trim_ascii_start().starts_with('[') {
            return List::of(body, text, text.trim_ascii(), seals).map_or(Self::Other, Self::List);
        }
        let Ok(members) = serde_json::from_str::<Members<'_>>(text) else { return Self::Other };
        let mut lists = members.0.iter().filter(|(name, value)| name == "data" && value.get().starts_with('['));
        match (lists.next(), lists.next()) {
            (None, _) => Record::of(body, text, &members, seals).map_or(Self::Other, Self::Record),
            (Some((_, items)), None) => List::of(body, text, items.get(), seals).map_or(Self::Other, Self::List),
            (Some(_), Some(_)) => Self::Other,
        }
    }
}

/// A record of upstream's: what an answer, a list's item or a callback holds.
pub struct Record {
    /// Upstream's id, as text.
    pub id: Option<String>,
    /// The team whose seal the reference has; none if it has no seal of a known team.
    pub sealed_by: Option<TenantName>,
    /// The reference behind the seal, or as it stands if there is none: JSON text, of a string with its quotes. None if there
    /// is no reference, or nothing but a seal.
    pub reference: Option<Bytes>,
    body: Bytes,
    spliced: JsonTemplate,
}

/// Whose a record is by its reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// It has this team's seal.
    Own,
    /// It has the seal of another team that is known.
    Foreign,
    /// It has no seal of a team: state must tell.
    Unsealed,
}

impl Record {
    /// Reads one JSON object. None if it is something else, or has `id` or `reference_id` twice.
    #[must_use]
    pub fn read(body: &Bytes, seals: &ReferencePrefixes) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        Self::of(body, text, &serde_json::from_str(text).ok()?, seals)
    }

    /// The same where `text`, which is `body`'s, was read to its members.
    fn of(body: &Bytes, text: &str, members: &Members<'_>, seals: &ReferencePrefixes) -> Option<Self> {
        // Checks that the reference does not stand twice.
        let spliced = JsonTemplate::around(text, members, Absent::Insert)?;
        let mut ids = members.0.iter().filter(|(name, _)| name == "id").map(|(_, value)| value.get());
        let id = match (ids.next(), ids.next()) {
            (Some(id), None) if id.starts_with('"') => Some(serde_json::from_str(id).ok()?),
            (Some("null"), None) | (None, _) => None,
            (Some(id), None) => Some(id.to_owned()),
            (Some(_), Some(_)) => return None,
        };
        let reference = members.0.iter().find(|(name, _)| name == REFERENCE).map(|(_, value)| value.get());
        let reference = reference.map(|reference| body.slice_ref(reference.as_bytes()));
        Some(Self::assemble(body.slice_ref(text.as_bytes()), id, reference, spliced, seals))
    }

    /// Returns the record that an answer is, which was read before. None if it is no object, or has a member twice by which
    /// records are told.
    #[must_use]
    pub fn of_answer(answer: &iluma::answer::Answer, seals: &ReferencePrefixes) -> Option<Self> {
        if !answer.is_record() {
            return None;
        }
        let spliced = answer.template(Absent::Insert)?;
        let id = answer.id().map(str::to_owned);
        Some(Self::assemble(answer.body().clone(), id, answer.reference().cloned(), spliced, seals))
    }

    fn assemble(
        body: Bytes,
        id: Option<String>,
        reference: Option<Bytes>,
        spliced: JsonTemplate,
        seals: &ReferencePrefixes,
    ) -> Self {
        let text = reference.as_ref().and_then(|json| std::str::from_utf8(json).ok());
        let inner = text.and_then(|json| json.strip_prefix('"')?.strip_suffix('"'));
        let sealed = inner.and_then(|inner| {
            let (name, at) = json_seal(inner.as_bytes())?;
            Some((seals.tenant(&name)?.clone(), &inner[at..]))
        });
        let (sealed_by, reference) = match sealed {
            Some((tenant, "")) => (Some(tenant), None),
            Some((tenant, own)) => (Some(tenant), Some(join(&[b"\"", own.as_bytes(), b"\""]))),
            None => (None, reference.filter(|json| *json != b"null"[..])),
        };
        Self { id, sealed_by, reference, body, spliced }
    }

    /// Whose the record is, as this team sees it.
    #[must_use]
    pub fn ownership(&self, seal: &ReferencePrefix) -> Ownership {
        match &self.sealed_by {
            Some(tenant) if tenant == seal.tenant() => Ownership::Own,
            Some(_) => Ownership::Foreign,
            None => Ownership::Unsealed,
        }
    }

    /// The record as who made it with this reference sees it: as upstream spells it, but for the seal. Of an empty
    /// reference the bare seal comes back, as of none.
    #[must_use]
    pub fn made_with(&self, reference: Option<&[u8]>) -> Bytes {
        match reference {
            Some(br#""""#) => self.with(reference),
            _ => self.own(),
        }
    }

    /// The body as the owner by seal has it: with the reference behind the seal, or without one. An unsealed record is
    /// as it came.
    #[must_use]
    pub fn own(&self) -> Bytes {
        match &self.sealed_by {
            Some(_) => self.spliced.with(self.reference.as_deref()),
            None => self.body.clone(),
        }
    }

    /// The body for this team: its [own](Self::own), or, if another one sealed it, without a reference. Who shares it has
    /// a reference of its own, for [`Record::with`].
    #[must_use]
    pub fn seen_by(&self, seal: &ReferencePrefix) -> Bytes {
        if self.ownership(seal) == Ownership::Foreign { self.with(None) } else { self.own() }
    }

    /// The body for an owner with this reference (JSON text with its quotes), or with none.
    #[must_use]
    pub fn with(&self, reference: Option<&[u8]>) -> Bytes {
        self.spliced.with(reference)
    }

    /// The body with a place for any owner's reference, to be kept.
    #[must_use]
    pub fn into_spliced(self) -> JsonTemplate {
        self.spliced
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest is a person's data.
        f.debug_struct("Record").field("sealed_by", &self.sealed_by).finish_non_exhaustive()
    }
}

/// A page of records.
#[derive(Debug)]
pub struct List {
    body: Bytes,
    /// Where each item stands, and what it is; none if that can't be told.
    items: Vec<(Range<usize>, Option<Record>)>,
}

impl List {
    /// The list whose array is `array`, a part of `text`, which is `body`'s.
    fn of(body: &Bytes, text: &str, array: &str, seals: &ReferencePrefixes) -> Option<Self> {
        let Items(items) = serde_json::from_str(array).ok()?;
        let item = |item: &str| {
            let members = serde_json::from_str::<Members<'_>>(item).ok();
            let record = members.and_then(|members| Record::of(body, item, &members, seals));
            (span(text, item), record)
        };
        Some(Self { body: body.clone(), items: items.iter().map(|raw| item(raw.get())).collect() })
    }

    /// The records, in their order. What is none is not among them, and is never passed on.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.items.iter().filter_map(|(_, record)| record.as_ref())
    }

    /// The page with the records that are kept, each as [the team sees it](Record::seen_by), and around them what upstream
    /// put there (`has_more`, links) with the caller's own reference. `keep` is asked for each record in order.
    ///
    /// Cursors stay upstream's: a page may have fewer records than were asked for, or none, and still lead on.
    #[must_use]
    pub fn kept(&self, echo: &PrefixStripper, mut keep: impl FnMut(&Record) -> bool) -> Bytes {
        let (Some((first, _)), Some((last, _))) = (self.items.first(), self.items.last()) else {
            return echo.unseal(&self.body);
        };
        let mut parts = vec![echo.unseal(&self.body.slice(..first.start))];
        // Ahead of an item stand the comma and spaces behind the one before it; ahead of the first, nothing.
        let mut before = first.start..first.start;
        let mut any = false;
        for (at, record) in &self.items {
            before.end = at.start;
            if let Some(record) = record.as_ref().filter(|record| keep(record)) {
                if any {
                    parts.push(self.body.slice(before));
                }
                parts.push(record.seen_by(&echo.seal));
                any = true;
            }
            before = at.end..at.end;
        }
        parts.push(echo.unseal(&self.body.slice(last.end..)));
        join(&parts.iter().map(|part| &part[..]).collect::<Vec<_>>())
    }
}

/// What upstream was given for a reference, where it comes back in a text: an error that quotes it, a link.
pub struct PrefixStripper {
    seal: ReferencePrefix,
    /// The caller's own; empty if there is none.
    reference: String,
}

impl PrefixStripper {
    /// The echo of a caller's reference, or of none.
    #[must_use]
    pub fn new(seal: ReferencePrefix, reference: Option<&str>) -> Self {
        Self { seal, reference: reference.unwrap_or_default().to_owned() }
    }

    /// An error, or another text: JSON or not. The seal is cut out where it stands before the caller's reference
    /// (in clear, escaped as in JSON, percent-encoded), in a parameter `reference_id`, or alone between quotes or the
    /// like. If the text is a record, the member that had nothing but the seal goes, too.
    #[must_use]
    pub fn error(&self, body: &Bytes) -> Bytes {
        let own = ReferencePrefixes::of([self.seal.tenant().clone()]);
        let record = Record::read(body, &own);
        self.unseal(&record.map_or_else(|| body.clone(), |record| record.own()))
    }

    /// The same for the fields of a head.
    pub fn head(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            let cuts = self.cuts(value.as_bytes());
            if !cuts.is_empty()
                && let Ok(unsealed) = HeaderValue::from_bytes(&without(value.as_bytes(), &cuts))
            {
                *value = unsealed;
            }
        }
    }

    fn unseal(&self, text: &Bytes) -> Bytes {
        let cuts = self.cuts(text);
        if cuts.is_empty() { text.clone() } else { without(text, &cuts) }
    }

    /// Where seals stand.
    fn cuts(&self, text: &[u8]) -> Vec<Range<usize>> {
        let (mut cuts, mut from) = (Vec::new(), 0);
        let name = memchr::memmem::Finder::new(self.seal.name());
        while let Some(at) = name.find(&text[from..]).map(|at| from + at) {
            from = at + 1;
            if let Some(end) = eat(text, at + self.seal.name().len(), ':')
                && begins_word(text, at)
                && (self.is_before_reference(text, end) || is_parameter(text, at) || is_alone(text, at, end))
            {
                cuts.push(at..end);
                from = end;
            }
        }
        cuts
    }

    fn is_before_reference(&self, text: &[u8], at: usize) -> bool {
        let encoded = || self.reference.chars().try_fold(at, |at, letter| eat(text, at, letter)).is_some();
        !self.reference.is_empty() && (text[at..].starts_with(self.reference.as_bytes()) || encoded())
    }
}

impl fmt::Debug for PrefixStripper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrefixStripper").field("seal", &self.seal).finish_non_exhaustive()
    }
}

fn without(text: &[u8], cuts: &[Range<usize>]) -> Bytes {
    let mut parts = Vec::with_capacity(cuts.len() + 1);
    let mut from = 0;
    for cut in cuts {
        parts.push(&text[from..cut.start]);
        from = cut.end;
    }
    parts.push(&text[from..]);
    join(&parts)
}

/// Where behind `letter` the text goes on, if that stands here in some encoding.
fn eat(text: &[u8], at: usize, letter: char) -> Option<usize> {
    let (mut utf8, mut utf16) = ([0; 4], [0; 2]);
    let utf8 = letter.encode_utf8(&mut utf8).as_bytes();
    let rest = text.get(at..)?;
    // Escapes first: what is escaped may be the escape's own sign.
    let escaped = match rest {
        [b'\\', b'u', ..] => hex(rest, letter.encode_utf16(&mut utf16), b"\\u"),
        [b'\\', sign, ..] => {
            let meant = match sign {
                b'n' => '\n',
                b't' => '\t',
                b'r' => '\r',
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                other => char::from(*other),
            };
            (meant == letter).then_some(2)
        }
        [b'%', ..] => hex(rest, &utf8.iter().map(|b| u16::from(*b)).collect::<Vec<_>>(), b"%"),
        [b'+', ..] if letter == ' ' => Some(1),
        _ => None,
    };
    escaped.or_else(|| rest.starts_with(utf8).then_some(utf8.len())).map(|length| at + length)
}

/// The length of these units in hexadecimal, each behind `sign`, if the text begins with them.
fn hex(text: &[u8], units: &[u16], sign: &[u8]) -> Option<usize> {
    let digits = if sign == b"%" { 2 } else { 4 };
    let mut at = 0;
    for unit in units {
        let code = text.get(at..)?.strip_prefix(sign)?.get(..digits)?;
        let code = code.iter().all(u8::is_ascii_hexdigit).then(|| std::str::from_utf8(code).ok())??;
        if u16::from_str_radix(code, 16) != Ok(*unit) {
            return None;
        }
        at += sign.len() + digits;
    }
    Some(at)
}

/// Whether a name that stands here is whole: no end of a longer one, and no part of an escape.
fn begins_word(text: &[u8], at: usize) -> bool {
    let before = &text[..at];
    let escape = |length: usize| {
        // An escape sign that is not escaped itself.
        let signs = before[..at - length].iter().rev().take_while(|b| **b == b'\\').count();
        signs % 2 == 1
    };
    let hexadecimal = |text: &[u8]| text.iter().all(u8::is_ascii_hexdigit);
    match before {
        [.., b'\\'] => !escape(0),
        [.., b'%'] => !text.get(at..at + 2).is_some_and(hexadecimal),
        [.., b'%', a, b] if hexadecimal(&[*a, *b]) => true,
        [.., b'u', a, b, c, d] if hexadecimal(&[*a, *b, *c, *d]) && escape(5) => true,
        [.., b'b' | b'f' | b'n' | b'r' | b't'] if escape(1) => true,
        [.., last] => !(last.is_ascii_alphanumeric() || matches!(last, b'-' | b'_')),
        [] => true,
    }
}

/// Whether what stands here is the value of a parameter `reference_id`.
fn is_parameter(text: &[u8], at: usize) -> bool {
    let before = &text[..at];
    before.ends_with(b"reference_id=") || before.ends_with(b"reference_id%3D")
}

/// Whether nothing else stands between two signs.
fn is_alone(text: &[u8], at: usize, end: usize) -> bool {
    let opens = text[..at].last().is_some_and(|b| b"\"'`=([<".contains(b));
    let closes = text.get(end).is_some_and(|b| b"\"'`\\&)]>".contains(b));
    opens && closes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{reference_json, reference_text};
    use proptest::prelude::*;

    fn seal() -> ReferencePrefix {
        ReferencePrefix::of(&"lending".parse().unwrap())
    }

    fn seals() -> ReferencePrefixes {
        ReferencePrefixes::of(["payments", "lending", "a"].map(|name| name.parse().unwrap()))
    }

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn record(body: &str) -> Option<Record> {
        Record::read(&bytes(body), &seals())
    }

    fn list(body: &str) -> List {
        match Answer::read(&bytes(body), &seals()) {
            Answer::List(list) => list,
            other => panic!("{other:?}"),
        }
    }

    /// What is kept, asking as a team that owns what it sealed and the unsealed `mine`.
    fn kept(body: &str, reference: Option<&str>) -> String {
        let keep = |record: &Record| match record.ownership(&seal()) {
            Ownership::Own => true,
            Ownership::Foreign => record.id.as_deref() == Some("shared"),
            Ownership::Unsealed => record.id.as_deref() == Some("mine"),
        };
        let kept = list(body).kept(&PrefixStripper::new(seal(), reference), keep);
        String::from_utf8(kept.to_vec()).unwrap()
    }

    #[test]
    fn an_owner_has_its_own_reference_or_none() {
        for (body, own) in [
            (r#"{"id":"1","reference_id":"lending:foo"}"#, r#"{"id":"1","reference_id":"foo"}"#),
            (r#"{ "reference_id" : "lending:" , "n" : 1.50 }"#, r#"{ "n" : 1.50 }"#),
            (r#"{"a":1,"reference_id":"lending:"}"#, r#"{"a":1}"#),
            (r#"{"reference_id":"lending\u003af\u00f6\/\""}"#, r#"{"reference_id":"f\u00f6\/\""}"#),
            (r#"{"reference_id":"lending:lending:x"}"#, r#"{"reference_id":"lending:x"}"#),
            (
                r#"{"reference_id":"lending:","b":{"reference_id":"lending:in"}}"#,
                r#"{"b":{"reference_id":"lending:in"}}"#,
            ),
            ("{\r\n\t\"reference_id\": \"lending:é\"\r\n}\r\n", "{\r\n\t\"reference_id\": \"é\"\r\n}\r\n"),
        ] {
            let record = record(body).unwrap();
            assert_eq!(record.ownership(&seal()), Ownership::Own, "{body}");
            assert_eq!((record.own(), record.seen_by(&seal())), (bytes(own), bytes(own)));
        }
    }

    #[test]
    fn what_no_team_sealed_is_as_it_came() {
        for (body, reference) in [
            (r#"{"id":"1","reference_id":"foo"}"#, Some(r#""foo""#)),
            (r#"{"reference_id":"former-team:foo"}"#, Some(r#""former-team:foo""#)),
            (r#"{"reference_id":"Lending:foo"}"#, Some(r#""Lending:foo""#)),
            (r#"{"reference_id":"lending"}"#, Some(r#""lending""#)),
            (r#"{"reference_id":12.50}"#, Some("12.50")),
            (r#"{"reference_id":null ,"a":1}"#, None),
            (r#"{"a":{"reference_id":"lending:foo"}}"#, None),
            (" { } ", None),
        ] {
            let record = record(body).unwrap();
            assert_eq!(record.ownership(&seal()), Ownership::Unsealed, "{body}");
            assert_eq!(record.reference.as_deref(), reference.map(str::as_bytes), "{body}");
            assert_eq!((record.own(), record.seen_by(&seal())), (bytes(body), bytes(body)));
        }
    }

    #[test]
    fn another_teams_reference_is_shown_to_nobody() {
        let record = record(r#"{"id":"1","reference_id":"payments:foo","b":2}"#).unwrap();
        assert_eq!(record.ownership(&seal()), Ownership::Foreign);
        assert_eq!(record.seen_by(&seal()), r#"{"id":"1","b":2}"#);
        // Who shares it has it with a reference of its own.
        assert_eq!(record.with(Some(b"\"bar\"")), r#"{"id":"1","reference_id":"bar","b":2}"#);
        assert!(!format!("{record:?}").contains("foo"));
    }

    #[test]
    fn a_callback_tells_its_id_its_team_and_its_reference() {
        for (body, id, team, reference) in [
            (r#"{"id":"x-1","reference_id":"payments:foo"}"#, Some("x-1"), Some("payments"), Some("foo")),
            (r#"{"id":"\u0078","reference_id":"a:"}"#, Some("x"), Some("a"), None),
            (r#"{"id":17,"reference_id":"foo"}"#, Some("17"), None, Some("foo")),
            (r#"{"id":null}"#, None, None, None),
            (r#"{"test":{"id":"y"}}"#, None, None, None),
        ] {
            let record = record(body).unwrap();
            let own = record.reference.as_deref().map(|json| reference_text(json).unwrap());
            assert_eq!(record.id.as_deref(), id, "{body}");
            assert_eq!(record.sealed_by.as_ref().map(TenantName::as_str), team, "{body}");
            assert_eq!(own.as_deref(), reference, "{body}");
            let spliced = record.into_spliced();
            assert!(!String::from_utf8_lossy(&spliced.with(None)).contains("reference_id"));
            let other: serde_json::Value = serde_json::from_slice(&spliced.with(Some(b"\"o\""))).unwrap();
            assert_eq!(other["reference_id"], "o");
        }
        for bad in ["", "[]", "1", "{", r#"{"id":"1","id":"2"}"#, r#"{"reference_id":"a","reference\u005fid":"b"}"#] {
            assert!(record(bad).is_none(), "{bad}");
            let other = matches!(Answer::read(&bytes(bad), &seals()), Answer::Other);
            assert_eq!(other, bad != "[]", "{bad}");
        }
    }

    #[test]
    fn a_list_holds_the_teams_own_records_alone() {
        let given = r#"{
  "data":[{
    "id": "1", "data": {"name": "x"}, "reference_id":"lending:foo"
  } , {"id":"2","reference_id":"payments:foo"},
  {"id":"mine","reference_id":"foo"}, {"id":"theirs","reference_id":"foo"},
  {"id":"shared","reference_id":"payments:bar"}, 7, {"id":"5","id":"6","reference_id":"lending:foo"}
  ],
  "has_more": true,
  "links": [
    {"href": "/v1/identity/id_card_images?reference_id=lending%3Afoo", "rel": "first", "method": "GET"},
    {"href": "\/v1\/x?limit=1\u0026reference_id=lending:foo&after_id=a-lending:foo", "rel": "next"}
  ]
}"#;
        let expected = r#"{
  "data":[{
    "id": "1", "data": {"name": "x"}, "reference_id":"foo"
  },
  {"id":"mine","reference_id":"foo"},
  {"id":"shared"}
  ],
  "has_more": true,
  "links": [
    {"href": "/v1/identity/id_card_images?reference_id=foo", "rel": "first", "method": "GET"},
    {"href": "\/v1\/x?limit=1\u0026reference_id=foo&after_id=a-lending:foo", "rel": "next"}
  ]
}"#;
        assert_eq!(kept(given, Some("foo")), expected);
        let ids: Vec<_> = list(given).records().map(|record| record.id.clone().unwrap()).collect();
        assert_eq!(ids, ["1", "2", "mine", "theirs", "shared"]);
    }

    #[test]
    fn lists_of_any_shape_are_read() {
        for (given, reference, expected) in [
            ("[]", Some("x"), "[]"),
            (r#" [ {"id":"2"} ] "#, Some("x"), " [  ] "),
            (r#"[{"id":"2"},{"reference_id":"lending:x"}]"#, Some("x"), r#"[{"reference_id":"x"}]"#),
            (r#"[{"reference_id":"lending:x"},{"id":"2"}]"#, Some("x"), r#"[{"reference_id":"x"}]"#),
            (r#"{"links":["?reference_id=lending%3a"],"data":[]}"#, None, r#"{"links":["?reference_id="],"data":[]}"#),
            (
                // Upstream may write it in its own way.
                r#"{"data":[],"links":["/x?reference_id=lending%3Ag%c3%b6+%26&limit=1"]}"#,
                Some("gö &"),
                r#"{"data":[],"links":["/x?reference_id=g%c3%b6+%26&limit=1"]}"#,
            ),
            (
                r#"{"data":[{"id":"mine","reference_id":null}],"reference_id":"lending:x"}"#,
                Some("x"),
                r#"{"data":[{"id":"mine","reference_id":null}],"reference_id":"x"}"#,
            ),
        ] {
            assert_eq!(kept(given, reference), expected, "{given}");
        }
        // A record may have an object of that name, and no list has two.
        let one = Answer::read(&bytes(r#"{"id":"1","data":{},"reference_id":"lending:x"}"#), &seals());
        assert!(matches!(one, Answer::Record(record) if record.ownership(&seal()) == Ownership::Own));
        for other in [r#"{"data":[],"data":[]}"#, "[1,", "x", "\u{feff}[]"] {
            assert!(matches!(Answer::read(&bytes(other), &seals()), Answer::Other), "{other}");
        }
    }

    #[test]
    fn an_error_quotes_the_callers_own_reference() {
        for (reference, given, expected) in [
            (Some("foo123"), r#"{"message":"lending:foo123 exists"}"#, r#"{"message":"foo123 exists"}"#),
            (Some("foo"), r#"{"message":"\"lending:foo\" is taken"}"#, r#"{"message":"\"foo\" is taken"}"#),
            (Some("foo"), r#"{"message":"line\nlending\u003Afoo"}"#, r#"{"message":"line\nfoo"}"#),
            (Some("foo"), "?q=%22lending%3Afoo%22", "?q=%22foo%22"),
            (
                Some("a\"é b"),
                r#"{"m":"lending:a\"\u00e9 b, lending:a%22%C3%A9+b"}"#,
                r#"{"m":"a\"\u00e9 b, a%22%C3%A9+b"}"#,
            ),
            (Some("😀"), r#"{"m":"lending:\ud83d\ude00"}"#, r#"{"m":"\ud83d\ude00"}"#),
            (Some("a\\b"), "lending:a\\b lending:a\\\\b", "a\\b a\\\\b"),
            (Some("foo"), "<b>lending:foo</b>", "<b>foo</b>"),
            (
                None,
                r#"{"message":"reference_id \"lending:\" is empty"}"#,
                r#"{"message":"reference_id \"\" is empty"}"#,
            ),
            (None, r#"{"reference_id":"lending:","message":"'lending:'"}"#, r#"{"message":"''"}"#),
            (
                Some("foo"),
                r#"{"reference_id":"lending:foo","error_code":"X"}"#,
                r#"{"reference_id":"foo","error_code":"X"}"#,
            ),
        ] {
            assert_eq!(PrefixStripper::new(seal(), reference).error(&bytes(given)), expected, "{given}");
        }
        for (reference, same) in [
            (Some("foo"), "my-lending:foo xlending:foo LENDING:foo lending:bar lending foo \\lending:foo"),
            (Some("foo"), "payments:foo \"payments:\" u0041lending:foo \\\\u0041lending:foo nlending:foo"),
            (None, "lending: is a team, lending:x another's reference"),
            (Some(""), "lending:x"),
        ] {
            assert_eq!(PrefixStripper::new(seal(), reference).error(&bytes(same)), same);
        }
        // Names that look like parts of escapes.
        for (name, reference, given, expected) in [
            ("n", "x", r#""a\n:x""#, r#""a\n:x""#),
            ("n", "x", r#""a\\n:x""#, r#""a\\x""#),
            ("3a", "x", "%3a:x", "%3a:x"),
            ("0041", "x", r#""\u0041:x""#, r#""\u0041:x""#),
            ("2a2", "x", "%2a2a2:x", "%2ax"),
            ("a", "x", r#""data:x a:x""#, r#""data:x x""#),
        ] {
            let echo = PrefixStripper::new(ReferencePrefix::of(&name.parse().unwrap()), Some(reference));
            assert_eq!(echo.error(&bytes(given)), expected, "{name}");
        }
    }

    #[test]
    fn a_head_has_no_seal_either() {
        let mut headers = HeaderMap::new();
        headers.insert("location", HeaderValue::from_static("/v1/x?reference_id=lending%3Afoo"));
        headers.insert("x-other", HeaderValue::from_static("lending:bar"));
        PrefixStripper::new(seal(), Some("foo")).head(&mut headers);
        assert_eq!(headers["location"], "/v1/x?reference_id=foo");
        assert_eq!(headers["x-other"], "lending:bar");
    }

    fn ascii(json: &str) -> String {
        let escaped = |c: char| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04X}")).collect();
        json.chars().map(|c| if c.is_ascii() { c.to_string() } else { escaped(c) }).collect()
    }

    proptest! {
        /// What upstream echoes of a sealed body is, unsealed, the caller's to the byte.
        #[test]
        fn unsealing_takes_out_what_sealing_put_in(
            reference in any::<String>().prop_filter("a reference", |text| !text.is_empty()),
            values in proptest::collection::vec("\"[a-z,{}:\\[\\]]{0,6}\"|0|-1\\.50e3|\\{\"reference_id\": ?\"lending:y\"\\}|null", 0..5),
            gap in "[ \n\t]{0,2}",
            place in any::<prop::sample::Index>(),
            escaped in any::<bool>(),
        ) {
            let json = reference_json(&reference);
            let json = std::str::from_utf8(&json).unwrap();
            let json = if escaped { ascii(json) } else { json.to_owned() };
            let colon = if escaped { "\\u003a" } else { ":" };
            let sealed_json = format!("\"lending{colon}{}", &json[1..]);
            let write = |own: &str| {
                let mut members: Vec<_> =
                    values.iter().enumerate().map(|(i, value)| format!("{gap}\"m{i}\":{gap}{value}{gap}")).collect();
                members.insert(place.index(members.len() + 1), format!("{gap}\"reference_id\"{gap}:{own}"));
                format!("{gap}{{{}}}{gap}", members.join(","))
            };
            let record = record(&write(&sealed_json)).unwrap();
            prop_assert_eq!(record.ownership(&seal()), Ownership::Own);
            prop_assert_eq!(record.own(), write(&json));
            prop_assert_eq!(reference_text(record.reference.as_deref().unwrap()), Some(reference));
            prop_assert_eq!(record.with(Some(b"\"o\"")), write("\"o\""));
        }

        /// Items go or stay whole, and what is between them with them.
        #[test]
        fn a_list_changes_by_whole_items(
            items in proptest::collection::vec((0..4_u8, "[ \n]{0,2}", "[ \n]{0,2}"), 0..6),
            outer in any::<bool>(),
        ) {
            let write = |keep: &dyn Fn(u8) -> bool, sealed: bool| {
                let mut text = String::new();
                for (kind, before, behind) in items.iter().filter(|(kind, ..)| keep(*kind)) {
                    let (before, behind) = if sealed { (before.as_str(), behind.as_str()) } else { ("", "") };
                    let comma = if text.is_empty() { "" } else { "," };
                    let seal = if sealed { ["lending:", "payments:", "", "lending:"][usize::from(*kind)] } else { "" };
                    text += &format!(r#"{before}{comma}{behind}{{"k":{kind},"reference_id":"{seal}r"}}"#);
                }
                if outer { format!(r#"{{"data":[{text}],"has_more":false}}"#) } else { format!("[{text}]") }
            };
            let kept = list(&write(&|_| true, true))
                .kept(&PrefixStripper::new(seal(), Some("r")), |record| record.ownership(&seal()) == Ownership::Own);
            let found: serde_json::Value = serde_json::from_slice(&kept).unwrap();
            let expected: serde_json::Value = serde_json::from_str(&write(&|kind| kind % 3 == 0, false)).unwrap();
            prop_assert_eq!(found, expected);
        }

        /// The seal goes and the reference stays as upstream wrote it, in whatever encoding.
        #[test]
        fn an_echo_is_cut_in_every_encoding(
            reference in any::<String>().prop_filter("a reference", |text| !text.is_empty()),
            around in "[ .,=(]{1,3}",
        ) {
            let json = reference_json(&reference);
            let json = std::str::from_utf8(&json).unwrap();
            let json = &json[1..json.len() - 1];
            let form: String = form_urlencoded::byte_serialize(reference.as_bytes()).collect();
            let percent = percent_encoding::utf8_percent_encode(&reference, percent_encoding::NON_ALPHANUMERIC).to_string();
            for (colon, written) in
                [(":", reference.as_str()), (":", json), (r"\u003a", &ascii(json)), ("%3A", &form), ("%3a", &percent)]
            {
                let text = |seal: &str| bytes(&format!("{around}{seal}{written}{around}"));
                let sealed = text(&format!("lending{colon}"));
                prop_assert_eq!(PrefixStripper::new(seal(), Some(&reference)).error(&sealed), text(""), "{:?}", sealed);
            }
        }

        /// JSON stays JSON, whatever the team is called and whatever upstream says.
        #[test]
        fn an_echo_breaks_no_json(
            name in "[u0-9a-fn-]{1,4}",
            reference in "[a-c:\\\\\"\n]{0,2}",
            pieces in proptest::collection::vec("[\\\\\"nu:%a-c0-3é\n=]{0,4}", 0..6),
            escaped in any::<bool>(),
        ) {
            let text = pieces.iter().flat_map(|piece| [piece.as_str(), name.as_str(), ":"]).collect::<String>();
            let json = serde_json::json!({"message": text, "reference_id": text, "x": [text]}).to_string();
            let json = if escaped { ascii(&json) } else { json };
            let echo = PrefixStripper::new(ReferencePrefix::of(&name.parse().unwrap()), Some(&reference));
            let unsealed = echo.error(&bytes(&json));
            let value: Result<serde_json::Value, _> = serde_json::from_slice(&unsealed);
            prop_assert!(value.is_ok(), "{} -> {:?}", json, unsealed);
        }

        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let body = Bytes::from(body);
            let _ = (Answer::read(&body, &seals()), PrefixStripper::new(seal(), Some("x")).error(&body));
        }
    }
}
