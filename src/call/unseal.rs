//! Answers and callbacks with the caller's own reference again, or none.
//!
//! Invariants: nothing but the seal, or the member that had nothing but one, is taken out; order, spaces and the spelling
//! of everything else stay; another team's seal is shown to nobody; a `reference_id` further in is somebody else's and
//! stays.

use super::seal::{REFERENCE, Seal, Seals, json_seal};
use crate::json::{Items, Members, span};
use crate::name::TenantName;
use crate::splice::{Absent, Spliced, join};
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
    pub fn read(body: &Bytes, seals: &Seals) -> Self {
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
    spliced: Spliced,
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
    pub fn read(body: &Bytes, seals: &Seals) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        Self::of(body, text, &serde_json::from_str(text).ok()?, seals)
    }

    /// The same where `text`, which is `body`'s, was read to its members.
    fn of(body: &Bytes, text: &str, members: &Members<'_>, seals: &Seals) -> Option<Self> {
        // Checks that the reference does not stand twice.
        let spliced = Spliced::around(text, members, Absent::Insert)?;
        let mut ids = members.0.iter().filter(|(name, _)| name == "id").map(|(_, value)| value.get());
        let id = match (ids.next(), ids.next()) {
            (Some(id), None) if id.starts_with('"') => Some(serde_json::from_str(id).ok()?),
            (Some("null"), None) | (None, _) => None,
            (Some(id), None) => Some(id.to_owned()),
            (Some(_), Some(_)) => return None,
        };
        let reference = members.0.iter().find(|(name, _)| name == REFERENCE).map(|(_, value)| value.get());
        let inner = reference.and_then(|json| json.strip_prefix('"')?.strip_suffix('"'));
        let sealed = inner.and_then(|inner| {
            let (name, at) = json_seal(inner.as_bytes())?;
            Some((seals.tenant(&name)?.clone(), &inner[at..]))
        });
        let (sealed_by, reference) = match sealed {
            Some((tenant, "")) => (Some(tenant), None),
            Some((tenant, own)) => (Some(tenant), Some(join(&[b"\"", own.as_bytes(), b"\""]))),
            None => (None, reference.filter(|json| *json != "null").map(|json| body.slice_ref(json.as_bytes()))),
        };
        let body = body.slice_ref(text.as_bytes());
        Some(Self { id, sealed_by, reference, body, spliced })
    }

    /// Whose the record is, as this team sees it.
    #[must_use]
    pub fn ownership(&self, seal: &Seal) -> Ownership {
        match &self.sealed_by {
            Some(tenant) if tenant == seal.tenant() => Ownership::Own,
            Some(_) => Ownership::Foreign,
            None => Ownership::Unsealed,
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
    pub fn seen_by(&self, seal: &Seal) -> Bytes {
        if self.ownership(seal) == Ownership::Foreign { self.with(None) } else { self.own() }
    }

    /// The body for an owner with this reference (JSON text with its quotes), or with none.
    #[must_use]
    pub fn with(&self, reference: Option<&[u8]>) -> Bytes {
        self.spliced.with(reference)
    }

    /// The body with a place for any owner's reference, to be kept.
    #[must_use]
    pub fn into_spliced(self) -> Spliced {
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
    fn of(body: &Bytes, text: &str, array: &str, seals: &Seals) -> Option<Self> {
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
    pub fn kept(&self, echo: &Echo, mut keep: impl FnMut(&Record) -> bool) -> Bytes {
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
pub struct Echo {
    seal: Seal,
    /// The caller's own; empty if there is none.
    reference: String,
}

impl Echo {
    /// The echo of a caller's reference, or of none.
    #[must_use]
    pub fn new(seal: Seal, reference: Option<&str>) -> Self {
        Self { seal, reference: reference.unwrap_or_default().to_owned() }
    }

    /// An error, or another text: JSON or not. The seal is cut out where it stands before the caller's reference
    /// (in clear, escaped as in JSON, percent-encoded), in a parameter `reference_id`, or alone between quotes or the
    /// like. If the text is a record, the member that had nothing but the seal goes, too.
    #[must_use]
    pub fn error(&self, body: &Bytes) -> Bytes {
        let own = Seals::of([self.seal.tenant().clone()]);
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

impl fmt::Debug for Echo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Echo").field("seal", &self.seal).finish_non_exhaustive()
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
