//! Restores the caller's own reference in answers and callbacks, or removes the reference if the caller gave none.
//!
//! Invariants: only the prefix is removed, or the member that contains only the prefix; the order, spaces and spelling
//! of everything else stay; no team sees another team's prefix; a nested `reference_id` belongs to other data and
//! stays.

use super::name::REFERENCE;
use super::prefix::{ReferencePrefix, ReferencePrefixes, json_prefix};
use super::quote::{Needle, Quote, begins_word, colon, is_alone, is_parameter};
use crate::base::json::{Items, Members, span};
use crate::base::json_template::{Absent, JsonTemplate, join};
use crate::base::name::TenantName;
use crate::iluma;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use memchr::memmem::Finder;
use std::cmp::Reverse;
use std::fmt;
use std::ops::Range;

/// The content of an answer.
#[derive(Debug)]
pub enum Answer {
    /// One record.
    Record(Record),
    /// A page of records.
    List(List),
    /// Any other content, such as text that is not JSON, or a record that repeats its id or its reference.
    Other,
}

impl Answer {
    /// Reads an answer: an array, or an object with an array `data`, is a list; any other object is a record.
    #[must_use]
    pub fn read(body: &Bytes, prefixes: &ReferencePrefixes) -> Self {
        let Ok(text) = std::str::from_utf8(body) else { return Self::Other };
        if text.trim_ascii_start().starts_with('[') {
            return List::of(body, text, text.trim_ascii(), prefixes).map_or(Self::Other, Self::List);
        }
        let Ok(members) = serde_json::from_str::<Members<'_>>(text) else { return Self::Other };
        let mut lists = members.0.iter().filter(|(name, value)| name == "data" && value.get().starts_with('['));
        match (lists.next(), lists.next()) {
            (None, _) => Record::of(body, text, &members, prefixes).map_or(Self::Other, Self::Record),
            (Some((_, items)), None) => List::of(body, text, items.get(), prefixes).map_or(Self::Other, Self::List),
            (Some(_), Some(_)) => Self::Other,
        }
    }
}

/// A record of Iluma, in an answer, a list or a callback.
pub struct Record {
    /// Iluma's id, as text; `None` if it is missing or null.
    pub id: Option<String>,
    /// The team whose prefix the reference has; `None` if it has no known team's prefix.
    pub prefixed_by: Option<TenantName>,
    /// The reference without its prefix, as JSON text; a string has its quotes. `None` if there is no reference, or
    /// only a prefix.
    pub reference: Option<Bytes>,
    body: Bytes,
    spliced: JsonTemplate,
}

/// The owner of a record according to its reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// The reference has this team's prefix.
    Own,
    /// The reference has the prefix of another team of the account.
    Foreign,
    /// The reference has no known team's prefix, so it does not show the owner.
    Unprefixed,
}

impl Record {
    /// Reads one JSON object. Returns `None` if it is something else, or repeats `id` or `reference_id`.
    #[must_use]
    pub fn read(body: &Bytes, prefixes: &ReferencePrefixes) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        Self::of(body, text, &serde_json::from_str(text).ok()?, prefixes)
    }

    /// Reads a record from its `members`, which were parsed from `text`, a part of `body`. Returns `None` if the record
    /// repeats `id` or `reference_id`.
    fn of(body: &Bytes, text: &str, members: &Members<'_>, prefixes: &ReferencePrefixes) -> Option<Self> {
        // The result is `None` if the reference is given twice.
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
        Some(Self::assemble(body.slice_ref(text.as_bytes()), id, reference, spliced, prefixes))
    }

    /// Makes a record from a parsed answer. Returns `None` if the answer is not an object, or repeats its id, its state
    /// or its reference.
    #[must_use]
    pub fn of_answer(answer: &iluma::answer::Answer, prefixes: &ReferencePrefixes) -> Option<Self> {
        if !answer.is_record() {
            return None;
        }
        let spliced = answer.template(Absent::Insert)?;
        let id = answer.id().map(str::to_owned);
        Some(Self::assemble(answer.body().clone(), id, answer.reference().cloned(), spliced, prefixes))
    }

    fn assemble(
        body: Bytes,
        id: Option<String>,
        reference: Option<Bytes>,
        spliced: JsonTemplate,
        prefixes: &ReferencePrefixes,
    ) -> Self {
        let text = reference.as_ref().and_then(|json| std::str::from_utf8(json).ok());
        let inner = text.and_then(|json| json.strip_prefix('"')?.strip_suffix('"'));
        let prefixed = inner.and_then(|inner| {
            let (name, at) = json_prefix(inner.as_bytes())?;
            Some((prefixes.tenant(&name)?.clone(), &inner[at..]))
        });
        let (prefixed_by, reference) = match prefixed {
            Some((tenant, "")) => (Some(tenant), None),
            Some((tenant, own)) => (Some(tenant), Some(join(&[b"\"", own.as_bytes(), b"\""]))),
            None => (None, reference.filter(|json| *json != b"null"[..])),
        };
        Self { id, prefixed_by, reference, body, spliced }
    }

    /// Returns the ownership of the record for the team of `prefix`.
    #[must_use]
    pub fn ownership(&self, prefix: &ReferencePrefix) -> Ownership {
        match &self.prefixed_by {
            Some(tenant) if tenant == prefix.tenant() => Ownership::Own,
            Some(_) => Ownership::Foreign,
            None => Ownership::Unprefixed,
        }
    }

    /// Returns the body without the prefix, for the team that made the record. `reference` is the reference that the
    /// team gave, as JSON text with its quotes; `None` if it gave none. The body keeps Iluma's spelling of the
    /// reference. An empty reference is inserted again, because Iluma echoes the same bare prefix for an empty
    /// reference and for none.
    #[must_use]
    pub fn made_with(&self, reference: Option<&[u8]>) -> Bytes {
        match reference {
            Some(br#""""#) => self.with(reference),
            _ => self.own(),
        }
    }

    /// Returns the record as Iluma sent it.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// Returns the body without the prefix in the record's reference, as the team of that prefix sees it. If the
    /// reference is only the prefix, the whole reference is removed. If the reference has no known team's prefix,
    /// returns the body unchanged.
    #[must_use]
    pub fn own(&self) -> Bytes {
        match &self.prefixed_by {
            Some(_) => self.spliced.with(self.reference.as_deref()),
            None => self.body.clone(),
        }
    }

    /// Returns the body for the team of `prefix`. If the reference has another team's prefix, the body has no
    /// reference. Otherwise it is the [own](Self::own) body. For a team that shares the record under its own reference,
    /// use [`Record::with`].
    #[must_use]
    pub fn seen_by(&self, prefix: &ReferencePrefix) -> Bytes {
        if self.ownership(prefix) == Ownership::Foreign { self.with(None) } else { self.own() }
    }

    /// Returns the body with this reference (JSON text with its quotes), or without a reference for `None`.
    #[must_use]
    pub fn with(&self, reference: Option<&[u8]>) -> Bytes {
        self.spliced.with(reference)
    }

    /// Returns the body as a template, into which any owner's reference can be inserted.
    #[must_use]
    pub fn into_spliced(self) -> JsonTemplate {
        self.spliced
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All other content is a person's data.
        f.debug_struct("Record").field("prefixed_by", &self.prefixed_by).finish_non_exhaustive()
    }
}

/// A page of records.
#[derive(Debug)]
pub struct List {
    body: Bytes,
    /// The position and the record of each item; `None` for an item that is not a record.
    items: Vec<(Range<usize>, Option<Record>)>,
}

impl List {
    /// Reads the items of `array`. `text` is `body` as text, and `array` is a part of it. Returns `None` if `array` is
    /// malformed.
    fn of(body: &Bytes, text: &str, array: &str, prefixes: &ReferencePrefixes) -> Option<Self> {
        let Items(items) = serde_json::from_str(array).ok()?;
        let item = |item: &str| {
            let members = serde_json::from_str::<Members<'_>>(item).ok();
            let record = members.and_then(|members| Record::of(body, item, &members, prefixes));
            (span(text, item), record)
        };
        Some(Self { body: body.clone(), items: items.iter().map(|raw| item(raw.get())).collect() })
    }

    /// Returns the records in their order. Items that are not records are omitted; no team gets them.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.items.iter().filter_map(|(_, record)| record.as_ref())
    }

    /// Returns the page with the records for which `keep` is true, each as [the team sees it](Record::seen_by). The
    /// page's other members (`has_more`, links) stay, and the prefix is removed from references in them. `keep` is
    /// called for each record in order.
    ///
    /// Iluma's cursors are unchanged: a page may have fewer records than its limit, or none, and still have a next
    /// page.
    #[must_use]
    pub fn kept(&self, stripper: &PrefixStripper, mut keep: impl FnMut(&Record) -> bool) -> Bytes {
        let (Some((first, _)), Some((last, _))) = (self.items.first(), self.items.last()) else {
            return stripper.strip(&self.body);
        };
        let mut parts = vec![stripper.strip(&self.body.slice(..first.start))];
        // Each gap (comma and spaces) is removed together with the item that follows it.
        let mut before = first.start..first.start;
        let mut any = false;
        for (at, record) in &self.items {
            before.end = at.start;
            if let Some(record) = record.as_ref().filter(|record| keep(record)) {
                if any {
                    parts.push(self.body.slice(before));
                }
                parts.push(record.seen_by(&stripper.prefix));
                any = true;
            }
            before = at.end..at.end;
        }
        parts.push(stripper.strip(&self.body.slice(last.end..)));
        join(&parts.iter().map(|part| &part[..]).collect::<Vec<_>>())
    }
}

/// Removes the prefix from texts in which Iluma quotes a reference: errors, links, and nested members of answers.
pub struct PrefixStripper {
    prefix: ReferencePrefix,
    /// The prefix and the caller's own reference; `None` if the caller gave no reference, or an empty one.
    needle: Option<Needle>,
    /// True if the caller's own reference begins with the prefix. In this case a prefix in an answer may be the
    /// caller's own text.
    is_prefix_like: bool,
}

impl PrefixStripper {
    /// Makes a stripper for a team's prefix. `reference` is the caller's own reference, decoded; `None` if the caller
    /// gave none.
    #[must_use]
    pub fn new(prefix: ReferencePrefix, reference: Option<&str>) -> Self {
        let needle = reference.filter(|own| !own.is_empty()).map(|own| Needle::new(prefix.name(), own));
        let is_prefix_like = reference
            .and_then(|own| own.trim_start().strip_prefix(prefix.name()))
            .is_some_and(|behind| behind.starts_with(':'));
        Self { prefix, needle, is_prefix_like }
    }

    /// Returns an error, or another text, without the prefix. The prefix is removed in three places: directly in front
    /// of the caller's reference, at the beginning of a parameter `reference_id`, and alone between quotes or brackets.
    /// The reference may be in clear, escaped as in JSON, or percent-encoded. If the text is a record, a `reference_id`
    /// with only the prefix is removed as a whole.
    #[must_use]
    pub fn error(&self, body: &Bytes) -> Bytes {
        let own = ReferencePrefixes::of([self.prefix.tenant().clone()]);
        let record = Record::read(body, &own);
        self.strip(&record.map_or_else(|| body.clone(), |record| record.own()))
    }

    /// Returns the body of a success without the prefix in other places than the record's `reference_id`, such as
    /// links. The prefix of that `reference_id` was removed before. If the caller's reference itself begins with the
    /// prefix, the body is unchanged, because a prefix may be the caller's own text.
    #[must_use]
    pub fn success(&self, body: Bytes) -> Bytes {
        if self.is_prefix_like { body } else { self.strip(&body) }
    }

    /// Removes the prefix from the values of header fields.
    pub fn head(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            let cuts = self.cuts(value.as_bytes());
            if !cuts.is_empty()
                && let Ok(stripped) = HeaderValue::from_bytes(&without(value.as_bytes(), &cuts))
            {
                *value = stripped;
            }
        }
    }

    fn strip(&self, text: &Bytes) -> Bytes {
        let cuts = self.cuts(text);
        if cuts.is_empty() { text.clone() } else { without(text, &cuts) }
    }

    /// Returns the ranges of bytes that are prefixes and have to be removed, in ascending order.
    fn cuts(&self, text: &[u8]) -> Vec<Range<usize>> {
        let name = Finder::new(self.prefix.name());
        if name.find(text).is_none() {
            return Vec::new();
        }
        let mut quotes = self.needle.as_ref().map_or_else(Vec::new, |needle| needle.quotes(text));
        let mut from = 0;
        while let Some(at) = name.find(&text[from..]).map(|at| from + at) {
            from = at + 1;
            if let Some(end) = colon(text, at + self.prefix.name().len())
                && (is_parameter(text, at) || is_alone(text, at, end))
            {
                quotes.push(Quote { prefix: at..end, end });
            }
        }
        // A reference that is quoted with its prefix may itself begin with a prefix. That second prefix is the caller's
        // text, and stays.
        quotes.sort_unstable_by_key(|quote| (quote.prefix.start, Reverse(quote.end)));
        let mut covered = 0;
        let mut cuts = Vec::new();
        for Quote { prefix, end } in quotes {
            if prefix.start >= covered && begins_word(text, prefix.start) {
                covered = end;
                cuts.push(prefix);
            }
        }
        cuts
    }
}

impl fmt::Debug for PrefixStripper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrefixStripper").field("prefix", &self.prefix).finish_non_exhaustive()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{reference_json, reference_text};
    use proptest::prelude::*;

    fn prefix() -> ReferencePrefix {
        ReferencePrefix::of(&"lending".parse().unwrap())
    }

    fn prefixes() -> ReferencePrefixes {
        ReferencePrefixes::of(["payments", "lending", "a"].map(|name| name.parse().unwrap()))
    }

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn record(body: &str) -> Option<Record> {
        Record::read(&bytes(body), &prefixes())
    }

    fn list(body: &str) -> List {
        match Answer::read(&bytes(body), &prefixes()) {
            Answer::List(list) => list,
            other => panic!("{other:?}"),
        }
    }

    /// Returns a page with the records of the team `lending`: those with its prefix, and the records `shared` and
    /// `mine`.
    fn kept(body: &str, reference: Option<&str>) -> String {
        let keep = |record: &Record| match record.ownership(&prefix()) {
            Ownership::Own => true,
            Ownership::Foreign => record.id.as_deref() == Some("shared"),
            Ownership::Unprefixed => record.id.as_deref() == Some("mine"),
        };
        let kept = list(body).kept(&PrefixStripper::new(prefix(), reference), keep);
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
            assert_eq!(record.ownership(&prefix()), Ownership::Own, "{body}");
            assert_eq!((record.own(), record.seen_by(&prefix())), (bytes(own), bytes(own)));
        }
    }

    #[test]
    fn what_no_team_prefixed_is_as_it_came() {
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
            assert_eq!(record.ownership(&prefix()), Ownership::Unprefixed, "{body}");
            assert_eq!(record.reference.as_deref(), reference.map(str::as_bytes), "{body}");
            assert_eq!((record.own(), record.seen_by(&prefix())), (bytes(body), bytes(body)));
        }
    }

    #[test]
    fn another_teams_reference_is_shown_to_nobody() {
        let record = record(r#"{"id":"1","reference_id":"payments:foo","b":2}"#).unwrap();
        assert_eq!(record.ownership(&prefix()), Ownership::Foreign);
        assert_eq!(record.seen_by(&prefix()), r#"{"id":"1","b":2}"#);
        // A team that shares the record has a reference of its own.
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
            assert_eq!(record.prefixed_by.as_ref().map(TenantName::as_str), team, "{body}");
            assert_eq!(own.as_deref(), reference, "{body}");
            let spliced = record.into_spliced();
            assert!(!String::from_utf8_lossy(&spliced.with(None)).contains("reference_id"));
            let other: serde_json::Value = serde_json::from_slice(&spliced.with(Some(b"\"o\""))).unwrap();
            assert_eq!(other["reference_id"], "o");
        }
        for bad in ["", "[]", "1", "{", r#"{"id":"1","id":"2"}"#, r#"{"reference_id":"a","reference\u005fid":"b"}"#] {
            assert!(record(bad).is_none(), "{bad}");
            let other = matches!(Answer::read(&bytes(bad), &prefixes()), Answer::Other);
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
                // Iluma may use another spelling.
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
        // A record may have an object `data`, and no list has two arrays.
        let one = Answer::read(&bytes(r#"{"id":"1","data":{},"reference_id":"lending:x"}"#), &prefixes());
        assert!(matches!(one, Answer::Record(record) if record.ownership(&prefix()) == Ownership::Own));
        for other in [r#"{"data":[],"data":[]}"#, "[1,", "x", "\u{feff}[]"] {
            assert!(matches!(Answer::read(&bytes(other), &prefixes()), Answer::Other), "{other}");
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
            assert_eq!(PrefixStripper::new(prefix(), reference).error(&bytes(given)), expected, "{given}");
        }
        for (reference, same) in [
            (Some("foo"), "my-lending:foo xlending:foo LENDING:foo lending:bar lending foo \\lending:foo"),
            (Some("foo"), "payments:foo \"payments:\" u0041lending:foo \\\\u0041lending:foo nlending:foo"),
            (None, "lending: is a team, lending:x another's reference"),
            (Some(""), "lending:x"),
        ] {
            assert_eq!(PrefixStripper::new(prefix(), reference).error(&bytes(same)), same);
        }
        // These names look like parts of escapes.
        for (name, reference, given, expected) in [
            ("n", "x", r#""a\n:x""#, r#""a\n:x""#),
            ("n", "x", r#""a\\n:x""#, r#""a\\x""#),
            ("3a", "x", "%3a:x", "%3a:x"),
            ("0041", "x", r#""\u0041:x""#, r#""\u0041:x""#),
            ("2a2", "x", "%2a2a2:x", "%2ax"),
            ("a", "x", r#""data:x a:x""#, r#""data:x x""#),
        ] {
            let stripper = PrefixStripper::new(ReferencePrefix::of(&name.parse().unwrap()), Some(reference));
            assert_eq!(stripper.error(&bytes(given)), expected, "{name}");
        }
    }

    #[test]
    fn a_success_names_the_callers_own_reference_in_every_member() {
        for (reference, given, expected) in [
            (
                Some("foo"),
                r#"{"reference_id":"foo","links":["/v1/x?reference_id=lending%3Afoo"],"a":{"reference_id":"lending:foo"}}"#,
                r#"{"reference_id":"foo","links":["/v1/x?reference_id=foo"],"a":{"reference_id":"foo"}}"#,
            ),
            (None, r#"{"a":{"reference_id":"lending:"}}"#, r#"{"a":{"reference_id":""}}"#),
            // The caller's own text begins like a prefix.
            (Some("lending:"), r#"{"reference_id":"lending:"}"#, r#"{"reference_id":"lending:"}"#),
            (Some("foo"), r#"{"name":"lending:bar"}"#, r#"{"name":"lending:bar"}"#),
        ] {
            assert_eq!(PrefixStripper::new(prefix(), reference).success(bytes(given)), expected, "{given}");
        }
    }

    #[test]
    fn a_head_has_no_prefix_either() {
        let mut headers = HeaderMap::new();
        headers.insert("location", HeaderValue::from_static("/v1/x?reference_id=lending%3Afoo"));
        headers.insert("x-other", HeaderValue::from_static("lending:bar"));
        PrefixStripper::new(prefix(), Some("foo")).head(&mut headers);
        assert_eq!(headers["location"], "/v1/x?reference_id=foo");
        assert_eq!(headers["x-other"], "lending:bar");
    }

    fn ascii(json: &str) -> String {
        let escaped = |c: char| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04X}")).collect();
        json.chars().map(|c| if c.is_ascii() { c.to_string() } else { escaped(c) }).collect()
    }

    proptest! {
        /// Tests that stripping Iluma's echo of a prefixed body gives the caller's body, byte for byte.
        #[test]
        fn stripping_takes_out_what_prefixing_put_in(
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
            let prefixed_json = format!("\"lending{colon}{}", &json[1..]);
            let write = |own: &str| {
                let mut members: Vec<_> =
                    values.iter().enumerate().map(|(i, value)| format!("{gap}\"m{i}\":{gap}{value}{gap}")).collect();
                members.insert(place.index(members.len() + 1), format!("{gap}\"reference_id\"{gap}:{own}"));
                format!("{gap}{{{}}}{gap}", members.join(","))
            };
            let record = record(&write(&prefixed_json)).unwrap();
            prop_assert_eq!(record.ownership(&prefix()), Ownership::Own);
            prop_assert_eq!(record.own(), write(&json));
            prop_assert_eq!(reference_text(record.reference.as_deref().unwrap()), Some(reference));
            prop_assert_eq!(record.with(Some(b"\"o\"")), write("\"o\""));
        }

        /// Tests that items are kept or removed whole, with the text between them.
        #[test]
        fn a_list_changes_by_whole_items(
            items in proptest::collection::vec((0..4_u8, "[ \n]{0,2}", "[ \n]{0,2}"), 0..6),
            outer in any::<bool>(),
        ) {
            let write = |keep: &dyn Fn(u8) -> bool, prefixed: bool| {
                let mut text = String::new();
                for (kind, before, behind) in items.iter().filter(|(kind, ..)| keep(*kind)) {
                    let (before, behind) = if prefixed { (before.as_str(), behind.as_str()) } else { ("", "") };
                    let comma = if text.is_empty() { "" } else { "," };
                    let prefix = if prefixed { ["lending:", "payments:", "", "lending:"][usize::from(*kind)] } else { "" };
                    text += &format!(r#"{before}{comma}{behind}{{"k":{kind},"reference_id":"{prefix}r"}}"#);
                }
                if outer { format!(r#"{{"data":[{text}],"has_more":false}}"#) } else { format!("[{text}]") }
            };
            let kept = list(&write(&|_| true, true))
                .kept(&PrefixStripper::new(prefix(), Some("r")), |record| record.ownership(&prefix()) == Ownership::Own);
            let found: serde_json::Value = serde_json::from_slice(&kept).unwrap();
            let expected: serde_json::Value = serde_json::from_str(&write(&|kind| kind % 3 == 0, false)).unwrap();
            prop_assert_eq!(found, expected);
        }

        /// Tests that the prefix is removed and the reference keeps Iluma's spelling, in any encoding.
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
                let text = |prefix: &str| bytes(&format!("{around}{prefix}{written}{around}"));
                let prefixed = text(&format!("lending{colon}"));
                prop_assert_eq!(PrefixStripper::new(prefix(), Some(&reference)).error(&prefixed), text(""), "{:?}", prefixed);
            }
        }

        /// Tests that JSON stays valid JSON, for any team's name and any text of Iluma.
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
            let stripper = PrefixStripper::new(ReferencePrefix::of(&name.parse().unwrap()), Some(&reference));
            let stripped = stripper.error(&bytes(&json));
            let value: Result<serde_json::Value, _> = serde_json::from_slice(&stripped);
            prop_assert!(value.is_ok(), "{} -> {:?}", json, stripped);
        }

        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let body = Bytes::from(body);
            let _ = (Answer::read(&body, &prefixes()), PrefixStripper::new(prefix(), Some("x")).error(&body));
        }
    }
}
