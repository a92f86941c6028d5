//! Entries as bytes, before they are encrypted.
//!
//! Invariants: a written entry is read back equal; every entry that is read is complete and consistent, whatever the
//! bytes were.

use super::entry::{Entry, SharedResult, content_type};
use super::key::Key;
use super::slot::{Awaited, CacheSlot};
use crate::base::json_template::JsonTemplate;
use crate::base::name::TenantName;
use crate::iluma::person::Tag;
use crate::iluma::subject::Subject;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The first byte of a value: the version of its layout. A node that does not know the version can't read the value,
/// and calls Iluma.
const VERSION: u8 = 2;

pub(super) fn write_entry(entry: &Entry, stored: SystemTime) -> Vec<u8> {
    let mut out = Writer::new();
    let since = stored.duration_since(UNIX_EPOCH).unwrap_or_default();
    out.number(millis(since)).number(millis(entry.lifetime)).number(millis(entry.grace));
    out.number(entry.status.as_u16().into());
    out.optional(entry.content_type.as_ref().map(HeaderValue::as_bytes));
    out.optional(entry.id.as_ref().map(|id| id.as_bytes())).number(entry.pending.into());
    out.number(entry.began).number(entry.tags.len() as u64);
    for tag in &entry.tags {
        out.bytes(tag.bytes());
    }
    out.spliced(&entry.body);
    out.0
}

/// Reads an entry of `place`, and the time at which it was stored. The entry's `stored_at` is set to `now`; the caller
/// corrects it. Returns `None` if the bytes are not a complete entry.
pub(super) fn read_entry(bytes: &[u8], place: &CacheSlot, now: std::time::Instant) -> Option<(Entry, SystemTime)> {
    let mut from = Reader::new(bytes)?;
    let stored = UNIX_EPOCH.checked_add(Duration::from_millis(from.number()?))?;
    let (lifetime, grace) = (Duration::from_millis(from.number()?), Duration::from_millis(from.number()?));
    let status = StatusCode::from_u16(u16::try_from(from.number()?).ok()?).ok()?;
    let content_type = match from.optional()? {
        Some(value) => Some(content_type(value)?),
        None => None,
    };
    let id = match from.optional()? {
        Some(id) => Some(std::str::from_utf8(id).ok()?.into()),
        None => None,
    };
    let pending = from.number()? != 0;
    let (began, tags) = (from.number()?, from.tags()?);
    let body = from.spliced()?;
    let entry = Entry {
        status,
        content_type,
        body,
        stored_at: now,
        lifetime,
        grace,
        id,
        pending,
        subject: place.subject,
        private: place.private.clone(),
        tags,
        began,
    };
    from.is_done().then_some((entry, stored))
}

pub(super) fn write_result(told: &SharedResult) -> Vec<u8> {
    let mut out = Writer::new();
    match told {
        SharedResult::Failed(reason) => out.number(0).number((*reason).into()),
        SharedResult::Answer(status, content_type, body) => {
            out.number((*status).into()).optional(content_type.as_deref());
            match body {
                Some(body) => out.number(1).spliced(body),
                None => out.number(0),
            }
        }
    };
    out.0
}

pub(super) fn read_result(bytes: &[u8]) -> Option<SharedResult> {
    let mut from = Reader::new(bytes)?;
    let told = match u16::try_from(from.number()?).ok()? {
        0 => SharedResult::Failed(u8::try_from(from.number()?).ok()?),
        status => {
            let content_type = from.optional()?.map(<[u8]>::to_vec);
            let body = match from.number()? {
                0 => None,
                _ => Some(from.spliced()?),
            };
            SharedResult::Answer(status, content_type, body)
        }
    };
    from.is_done().then_some(told)
}

pub(super) fn write_awaited(awaited: &Awaited) -> Vec<u8> {
    let (mut out, place) = (Writer::new(), &awaited.place);
    out.bytes(place.key.bytes()).number(place.subject as u64);
    out.optional(place.private.as_ref().map(|tenant| tenant.as_str().as_bytes()));
    out.number(place.began).bytes(awaited.path.as_bytes()).number(awaited.tags.len() as u64);
    for tag in &awaited.tags {
        out.bytes(tag.bytes());
    }
    out.0
}

pub(super) fn read_awaited(bytes: &[u8]) -> Option<Awaited> {
    let mut from = Reader::new(bytes)?;
    let key = Key::from_bytes(from.bytes()?)?;
    let subject = *Subject::ALL.get(usize::try_from(from.number()?).ok()?)?;
    let private = match from.optional()? {
        Some(name) => Some(std::str::from_utf8(name).ok()?.parse::<TenantName>().ok()?),
        None => None,
    };
    let began = from.number()?;
    let path = std::str::from_utf8(from.bytes()?).ok()?.to_owned();
    let tags = from.tags()?.iter().copied().collect();
    from.is_done().then_some(Awaited { place: CacheSlot { key, subject, private, began }, path, tags })
}

struct Writer(Vec<u8>);

impl Writer {
    fn new() -> Self {
        Self(vec![VERSION])
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// Writes optional bytes. The length `u64::MAX` means that there are none.
    fn optional(&mut self, bytes: Option<&[u8]>) -> &mut Self {
        match bytes {
            Some(bytes) => self.bytes(bytes),
            None => self.number(u64::MAX),
        }
    }

    fn spliced(&mut self, body: &JsonTemplate) -> &mut Self {
        let (raw, places, open) = body.layout();
        self.number(open.into());
        for place in places {
            self.number(place as u64);
        }
        self.bytes(raw)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        (version == VERSION).then_some(Self(rest))
    }

    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*number))
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length)
    }

    fn optional(&mut self) -> Option<Option<&'a [u8]>> {
        match self.number()? {
            u64::MAX => Some(None),
            length => self.take(length).map(Some),
        }
    }

    fn tags(&mut self) -> Option<Box<[Tag]>> {
        let count = self.number()?;
        (0..count).map(|_| Tag::from_bytes(self.bytes()?)).collect()
    }

    fn spliced(&mut self) -> Option<JsonTemplate> {
        let open = self.number()? != 0;
        let mut places = [0; 3];
        for place in &mut places {
            *place = usize::try_from(self.number()?).ok()?;
        }
        JsonTemplate::from_layout(Bytes::copy_from_slice(self.bytes()?), places, open)
    }

    const fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

/// Converts a duration to whole milliseconds, Redis' unit of time.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use proptest::prelude::*;

    fn place() -> CacheSlot {
        let private = Some("lending".parse().unwrap());
        CacheSlot { key: Key::from_bytes(&[7; 32]).unwrap(), subject: Subject::Cft, private, began: 9 }
    }

    fn tags(seeds: &[u8]) -> Box<[Tag]> {
        seeds.iter().map(|seed| Tag::from_bytes(&[*seed; 16]).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(
            text in proptest::option::of("[ -~]{0,20}"),
            id in proptest::option::of("[a-z]{0,9}"),
            seeds in proptest::collection::vec(any::<u8>(), 0..4),
            times in any::<[u32; 3]>(),
        ) {
            let now = Clock::system().now();
            let body = text.map_or_else(
                || JsonTemplate::whole(&Bytes::from_static(b"x")),
                |text| JsonTemplate::split(&serde_json::json!({"a": text}).to_string().into(), crate::base::json_template::Absent::Insert).unwrap(),
            );
            let entry = Entry {
                status: StatusCode::CREATED,
                content_type: id.as_ref().map(|_| HeaderValue::from_static("application/json")),
                body,
                stored_at: now,
                lifetime: Duration::from_millis(times[1].into()),
                grace: Duration::from_millis(times[2].into()),
                pending: id.is_some(),
                id: id.map(Into::into),
                subject: Subject::Cft,
                private: place().private,
                tags: tags(&seeds),
                began: times[0].into(),
            };
            let stored = UNIX_EPOCH + Duration::from_millis(times[0].into());
            let bytes = write_entry(&entry, stored);
            let (read, at) = read_entry(&bytes, &place(), now).unwrap();
            prop_assert_eq!(at, stored);
            prop_assert_eq!(write_entry(&read, at), bytes.clone());
            prop_assert_eq!(&read.body, &entry.body);
            prop_assert_eq!((&read.id, read.pending, &read.tags, read.began, read.lifetime, read.grace), (&entry.id, entry.pending, &entry.tags, entry.began, entry.lifetime, entry.grace));
            for end in 0..bytes.len() {
                prop_assert!(read_entry(&bytes[..end], &place(), now).is_none());
            }
            let told = SharedResult::Answer(418, None, Some(entry.body));
            prop_assert_eq!(read_result(&write_result(&told)), Some(told));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_entry(&bytes, &place(), Clock::system().now());
            let _ = (read_result(&bytes), read_awaited(&bytes));
        }
    }

    #[test]
    fn failures_and_places_are_read_again() {
        for told in [SharedResult::Failed(3), SharedResult::Answer(200, Some(b"text/plain".to_vec()), None)] {
            assert_eq!(read_result(&write_result(&told)), Some(told));
        }
        let tags = tags(&[1, 2]).iter().copied().collect();
        let awaited = Awaited { place: place(), path: "/v1/x".to_owned(), tags };
        assert_eq!(read_awaited(&write_awaited(&awaited)), Some(awaited));
    }
}
