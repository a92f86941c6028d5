//! Level 1: entries in this process, bounded by bytes.

use super::entry::Entry;
use super::epoch::Change;
use super::key::Key;
use crate::base::byte_size::ByteSize;
use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The bytes of an entry in addition to its body: key, content type, and moka's own records of it.
const OVERHEAD: usize = 320;

#[derive(Debug)]
pub(super) struct Memory {
    entries: Cache<Key, Arc<Entry>, BuildHasherDefault<Uniform>>,
}

impl Memory {
    pub(super) fn new(most: ByteSize) -> Self {
        let weight = |_: &Key, entry: &Arc<Entry>| {
            let content_type = entry.content_type.as_ref().map_or(0, |value| value.len());
            u32::try_from(entry.body.len() + content_type + entry.tags.len() * 16 + OVERHEAD).unwrap_or(u32::MAX)
        };
        let entries = Cache::builder()
            .max_capacity(most.bytes())
            .weigher(weight)
            // Each answer was paid for and is requested a few times at most, soon afterwards: the newest entry is
            // always worth its space, which a policy by frequency would refuse once memory is full.
            .eviction_policy(EvictionPolicy::lru())
            // This frees memory; the cache itself checks lifetimes, on its own clock.
            .expire_after(Lifetime)
            .build_with_hasher(BuildHasherDefault::default());
        Self { entries }
    }

    pub(super) fn look_up(&self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    pub(super) fn insert(&self, key: Key, entry: Arc<Entry>) {
        self.entries.insert(key, entry);
    }

    /// Removes the entries that a change ends; returns their number.
    pub(super) fn remove(&self, change: &Change) -> u64 {
        let keys: Vec<Arc<Key>> = self.ended_by(change).collect();
        keys.iter().for_each(|key| self.entries.invalidate(&**key));
        keys.len() as u64
    }

    /// Returns the number of the entries that a change would end.
    pub(super) fn count(&self, change: &Change) -> u64 {
        self.ended_by(change).count() as u64
    }

    fn ended_by(&self, change: &Change) -> impl Iterator<Item = Arc<Key>> {
        let ends = |entry: &Entry| change.hits(entry.subject, entry.private.as_ref(), &entry.tags);
        self.entries.iter().filter_map(move |(key, entry)| ends(&entry).then_some(key))
    }

    pub(super) fn forget(&self, key: &Key) {
        self.entries.invalidate(key);
    }

    pub(super) fn clear(&self) {
        self.entries.invalidate_all();
    }

    /// Removes a "pending" entry: its call has ended, on this node or another.
    pub(super) fn end_pending(&self, key: &Key) {
        if self.entries.get(key).is_some_and(|entry| entry.pending) {
            self.entries.invalidate(key);
        }
    }

    /// Returns the numbers of entries and of bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (self.entries.entry_count(), self.entries.weighted_size())
    }
}

struct Lifetime;

impl Expiry<Key, Arc<Entry>> for Lifetime {
    fn expire_after_create(&self, _: &Key, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(entry.lifetime + entry.grace)
    }

    fn expire_after_update(&self, _: &Key, entry: &Arc<Entry>, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(entry.lifetime + entry.grace)
    }
}

/// Passes the hash of a [`Key`] through, because it is uniformly distributed already.
#[derive(Default)]
struct Uniform(u64);

impl Hasher for Uniform {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Keys write one u64; other input is hashed too, only worse.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::json_template::JsonTemplate;
    use crate::iluma::subject::Subject;
    use bytes::Bytes;
    use http::StatusCode;

    fn entry(subject: Subject, private: Option<&str>, pending: bool) -> Arc<Entry> {
        Arc::new(Entry {
            status: StatusCode::OK,
            content_type: None,
            body: JsonTemplate::whole(&Bytes::from(vec![b'x'; 1024])),
            stored_at: crate::base::clock::Clock::system().now(),
            lifetime: Duration::from_secs(60),
            grace: Duration::ZERO,
            id: None,
            pending,
            subject,
            private: private.map(|name| name.parse().unwrap()),
            tags: Box::default(),
            began: 0,
        })
    }

    fn key(n: u32) -> Key {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes());
        Key::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn memory_stays_within_its_bound() {
        let memory = Memory::new(ByteSize::kib(64));
        for n in 0..1000 {
            memory.insert(key(n), entry(Subject::Bank, None, false));
        }
        let (entries, bytes) = memory.size();
        assert!(memory.look_up(&key(999)).is_some(), "the newest answer is kept");
        assert!(entries > 10 && bytes <= 64 << 10, "{entries} entries, {bytes} bytes");
    }

    #[test]
    fn a_change_takes_out_what_it_names() {
        let memory = Memory::new(ByteSize::mib(1));
        memory.insert(key(1), entry(Subject::Bank, None, true));
        memory.insert(key(2), entry(Subject::Cft, None, false));
        memory.insert(key(3), entry(Subject::Bank, Some("lending"), false));
        assert_eq!(memory.remove(&Change::Subject(Subject::Cft)), 1);
        assert_eq!(memory.remove(&Change::Tenant("lending".parse().unwrap())), 1);
        assert_eq!((memory.look_up(&key(2)).is_none(), memory.look_up(&key(3)).is_none()), (true, true));
        memory.end_pending(&key(1));
        assert!(memory.look_up(&key(1)).is_none());
    }
}
