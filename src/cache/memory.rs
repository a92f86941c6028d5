//! Level 1: entries in this process, bounded by bytes.

use super::{Entry, Key};
use crate::byte_size::ByteSize;
use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What an entry costs beside its body: key, content type, and moka's own records of it.
const OVERHEAD: usize = 320;

#[derive(Debug)]
pub(super) struct Memory {
    entries: Cache<Key, Arc<Entry>, BuildHasherDefault<Uniform>>,
}

impl Memory {
    pub(super) fn new(most: ByteSize) -> Self {
        let weight = |_: &Key, entry: &Arc<Entry>| {
            let content_type = entry.content_type.as_ref().map_or(0, |value| value.len());
            u32::try_from(entry.body.len() + content_type + OVERHEAD).unwrap_or(u32::MAX)
        };
        let entries = Cache::builder()
            .max_capacity(most.bytes())
            .weigher(weight)
            // Each answer was paid for and is asked for a few times at most, soon after: the newest is always worth its
            // place, which a policy by frequency would deny it once memory is full.
            .eviction_policy(EvictionPolicy::lru())
            // Gives memory back; that nothing is served too late is the cache's own check, on its own clock.
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

    /// Entries and bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (self.entries.entry_count(), self.entries.weighted_size())
    }
}

struct Lifetime;

impl Expiry<Key, Arc<Entry>> for Lifetime {
    fn expire_after_create(&self, _: &Key, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(entry.lifetime)
    }

    fn expire_after_update(&self, _: &Key, entry: &Arc<Entry>, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(entry.lifetime)
    }
}

/// Passes on what a [`Key`] hashes to, which is uniform already.
#[derive(Default)]
struct Uniform(u64);

impl Hasher for Uniform {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Keys write one u64; anything else still hashes, only worse.
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
    use super::super::{Scope, Subject, key::Keys};
    use super::*;
    use crate::splice::Spliced;
    use bytes::Bytes;
    use http::StatusCode;

    #[test]
    fn memory_stays_within_its_bound() {
        let memory = Memory::new(ByteSize::kib(64));
        let keys = Keys::new(&[0; 32]);
        let account = "live".parse().unwrap();
        let mut newest = None;
        for n in 0..1000_u32 {
            let body = Spliced::whole(&Bytes::from(vec![b'x'; 1024]));
            let lifetime = Duration::from_secs(60);
            let stored_at = crate::clock::Clock::system().now();
            let entry = Entry { status: StatusCode::OK, content_type: None, body, stored_at, lifetime };
            let key = keys.key(&Scope::shared(&account), Subject::Bank, "/", &n.to_be_bytes());
            memory.insert(key.clone(), Arc::new(entry));
            newest = Some(key);
        }
        let (entries, bytes) = memory.size();
        assert!(memory.look_up(&newest.unwrap()).is_some(), "the newest answer is kept");
        assert!(entries > 10 && bytes <= 64 << 10, "{entries} entries, {bytes} bytes");
    }
}
