//! Level 1 of the cache: entries in memory, whose total size is bounded.

use super::entry::Entry;
use super::epoch::Change;
use super::key::Key;
use crate::base::byte_size::ByteSize;
use crate::base::uniform_hash::BuildUniform;
use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The bytes that moka keeps for an entry: 48 for the key, 40 for its place in the hash table, 32 for the record of the
/// value, 80 for its times, and 128 for its places in the orders of use and of expiry.
const RECORDS: usize = 328;
/// The size, in bytes, of the reference count that `Bytes` allocates once a second owner shares a body.
const SHARED: usize = 32;
/// The step between the allocator's sizes up to 128 bytes. Above 128 bytes the allocator has four sizes between each
/// power of two and the next.
const STEP: usize = 16;

#[derive(Debug)]
pub(super) struct Memory {
    entries: Cache<Key, Arc<Entry>, BuildUniform>,
}

impl Memory {
    pub(super) fn new(most: ByteSize) -> Self {
        let entries = Cache::builder()
            .max_capacity(most.bytes())
            .weigher(|_: &Key, entry: &Arc<Entry>| u32::try_from(weight(entry)).unwrap_or(u32::MAX))
            // Each answer was paid for and is requested a few times at most, soon afterwards: the newest entry is
            // always worth its space. A policy by frequency would refuse it once memory is full.
            .eviction_policy(EvictionPolicy::lru())
            // This frees memory; the cache itself checks lifetimes, on its own clock.
            .expire_after(Lifetime)
            .build_with_hasher(BuildUniform::default());
        Self { entries }
    }

    pub(super) fn look_up(&self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    pub(super) fn insert(&self, key: Key, entry: Arc<Entry>) {
        self.entries.insert(key, entry);
    }

    /// Removes the entries that a change names; returns their number.
    pub(super) fn remove(&self, change: &Change) -> u64 {
        let keys: Vec<Arc<Key>> = self.ended_by(change).collect();
        keys.iter().for_each(|key| self.entries.invalidate(&**key));
        keys.len() as u64
    }

    /// Returns the number of entries that a change would remove.
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

    /// Removes the entry with this key if it is "pending", because its request has ended on this node or another.
    pub(super) fn end_pending(&self, key: &Key) {
        if self.entries.get(key).is_some_and(|entry| entry.pending) {
            self.entries.invalidate(key);
        }
    }

    /// Returns the number of entries and their total size in bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (self.entries.entry_count(), self.entries.weighted_size())
    }
}

/// Returns the memory, in bytes, that an entry takes in the process.
fn weight(entry: &Entry) -> usize {
    let own = size_of::<Entry>() + 2 * size_of::<usize>();
    let id = entry.id.as_ref().map_or(0, |id| id.len());
    let content_type = entry.content_type.as_ref().map_or(0, |value| value.len());
    let texts = [entry.body.len(), content_type, id, size_of_val(&*entry.tags), own];
    RECORDS + SHARED + texts.into_iter().map(allocated).sum::<usize>()
}

/// Returns the memory, in bytes, that an allocation takes: mimalloc rounds each size up to one of its own sizes.
fn allocated(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 8).max(STEP);
    bytes.next_multiple_of(step)
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
    fn an_entry_weighs_what_the_process_spends_on_it() {
        for (bytes, taken) in
            [(0, 0), (1, 16), (64, 64), (65, 80), (129, 160), (1024, 1024), (1025, 1280), (1281, 1536)]
        {
            assert_eq!(allocated(bytes), taken, "{bytes}");
        }
        let plain = entry(Subject::Bank, None, false);
        let own = allocated(size_of::<Entry>() + 16);
        assert_eq!(weight(&plain), RECORDS + SHARED + own + 1024);
        let named = Entry { id: Some("x".repeat(33).into()), body: JsonTemplate::whole(b""), ..(*plain).clone() };
        assert_eq!(weight(&named), RECORDS + SHARED + own + 48);
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
