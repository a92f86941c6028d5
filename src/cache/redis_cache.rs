//! Level 2: entries in Redis, shared by nodes.
//!
//! Invariants: a key shows nothing of a request, a value is encrypted and opens under its own key alone; no entry outlives
//! its lifetime, which stands in the value as well as in Redis; whatever Redis does, a caller gets an answer within its
//! budget, if only "out".

use super::entry::{Entry, SharedResult};
use super::epoch::Epochs;
use super::key::Key;
use super::slot::CacheSlot;
use super::waiters::Waiters;
use super::wire::{self, millis};
use crate::base::clock::Clock;
use crate::base::keyring::Keyring;
use crate::redis::keys::EntryScope;
use crate::redis::{Budget, RedisClient, RedisFailure, RedisKey, scripts::cache as scripts};
use redis::ScriptInvocation;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Time that a message to other nodes may take, for which no request waits.
const TELLING: Duration = Duration::from_secs(1);
/// Messages under way at a time, more than a Redis that is well lets wait. What finds no place is not sent: other nodes make
/// their own calls.
const MOST_TOLD: usize = 1024;

/// Counts of what Redis did for the cache since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Entries that were there.
    pub hits: AtomicU64,
    /// Entries that were not.
    pub misses: AtomicU64,
    /// Values that did not open: damaged, moved to another key, or of a key that is gone.
    pub damaged: AtomicU64,
    /// Questions that Redis did not answer.
    pub out: AtomicU64,
}

/// Entries in Redis.
#[derive(Debug)]
pub(super) struct RedisCache {
    pub(super) link: RedisClient,
    keyring: Keyring,
    epochs: Arc<Epochs>,
    clock: Clock,
    pub(super) counts: Arc<Counts>,
    pub(super) waiters: Waiters,
    telling: Semaphore,
}

impl RedisCache {
    /// Returns the entries of the Redis that `link` leads to.
    pub(super) fn new(link: RedisClient, keyring: Keyring, epochs: Arc<Epochs>, clock: Clock) -> Self {
        Self {
            link,
            keyring,
            epochs,
            clock,
            counts: Arc::default(),
            waiters: Waiters::default(),
            telling: Semaphore::new(MOST_TOLD),
        }
    }

    /// Wakes the waiter for the key that a message names, and returns the key.
    pub(super) fn landed(&self, message: &[u8]) -> Option<Key> {
        let key = Key::from_bytes(message)?;
        self.waiters.wake(&key);
        Some(key)
    }

    /// Returns the entry of a slot that is past its lifetime, but not its grace.
    pub(super) async fn look_up_stale(&self, slot: &CacheSlot, budget: &Budget) -> Option<Entry> {
        let name = self.copy_key(slot);
        let mut pipeline = redis::pipe();
        pipeline.get(&name).pttl(&name);
        let (value, left): (Option<Vec<u8>>, i64) = self.link.pipeline(budget, &pipeline).await.ok()?;
        self.entry(slot, &name, &value?, left).filter(|entry| !self.is_erased(entry))
    }

    /// Returns the entry that `value` is, if it may be served; removes the value otherwise: it would be in everybody's way,
    /// since no node leads while an answer seems to be there.
    pub(super) async fn usable(&self, slot: &CacheSlot, value: &[u8], left: i64, budget: &Budget) -> Option<Entry> {
        let over = |entry: &Entry| {
            self.clock.now().saturating_duration_since(entry.stored_at) >= entry.lifetime || self.is_erased(entry)
        };
        let count = match self.entry(slot, &self.entry_key(slot), value, left) {
            Some(entry) if !over(&entry) => {
                self.counts.hits.fetch_add(1, Ordering::Relaxed);
                return Some(entry);
            }
            // Redis' clock is behind ours, or an erasure did not find it.
            Some(_) => &self.counts.misses,
            None => &self.counts.damaged,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let mut script = scripts::DISCARD.key(self.entry_key(slot));
        let _: Result<i64, RedisFailure> = self.link.script(budget, script.arg(value)).await;
        None
    }

    /// Returns the result of another node's call.
    pub(super) fn shared_result(&self, slot: &CacheSlot, value: &[u8]) -> Option<SharedResult> {
        let name = self.link.keys().cache_result(slot.key.bytes());
        wire::read_result(&self.keyring.decrypt(name.as_bytes(), value).ok()?)
    }

    /// Stores an entry for all nodes, and ends the lease with this token. Returns true if the entry is stored: it is not if
    /// Redis is out, or if a person in it was erased.
    ///
    /// # Errors
    /// Redis is out.
    pub(super) async fn store(&self, slot: &CacheSlot, entry: &Entry, token: &[u8]) -> Result<bool, RedisFailure> {
        let stored = self.clock.wall() - self.clock.now().saturating_duration_since(entry.stored_at);
        let plain = wire::write_entry(entry, stored);
        let (name, copy, keys) = (self.entry_key(slot), self.copy_key(slot), self.link.keys());
        let value = self.encrypted(&name, &plain);
        // A copy under a name of its own: whether the entry is still good, Redis tells by its being there.
        let spare = if entry.grace.is_zero() { Vec::new() } else { self.encrypted(&copy, &plain) };
        let mut script = scripts::STORE.key(name);
        script.key(keys.cache_lease(slot.key.bytes())).key(keys.cache_wanted(slot.key.bytes())).key(copy);
        for tag in &entry.tags {
            script.key(keys.cache_tag(tag)).key(keys.cache_tombstone(tag));
        }
        script.arg(token).arg(value).arg(millis(entry.lifetime).max(1)).arg(slot.began);
        script.arg(keys.results_channel()).arg(slot.key.bytes());
        script.arg(spare).arg(millis(entry.grace));
        self.tell(&script).await.map(|stored| stored == 1)
    }

    /// Runs a script for which no request waits.
    pub(super) async fn tell(&self, script: &ScriptInvocation<'_>) -> Result<i64, RedisFailure> {
        let _permit = self.telling.try_acquire().map_err(|_| RedisFailure::Out)?;
        self.link.script(&Budget::of(TELLING), script).await
    }

    /// Notes where the answer to a pending request will belong, by the keyed hash of its id.
    pub(super) async fn note(&self, id: &Key, value: &[u8], lifetime: Duration) {
        let name = self.link.keys().cache_pending(id.bytes());
        let value = self.encrypted(&name, value);
        let mut command = redis::cmd("SET");
        let command = command.arg(name).arg(value).arg("PX").arg(millis(lifetime).max(1));
        let _: Result<(), RedisFailure> = self.link.command(&Budget::of(TELLING), command).await;
    }

    /// Returns what was noted by that id.
    pub(super) async fn noted(&self, id: &Key, budget: &Budget) -> Option<Vec<u8>> {
        let name = self.link.keys().cache_pending(id.bytes());
        let mut command = redis::cmd("GET");
        let value: Option<Vec<u8>> = self.link.command(budget, command.arg(&name)).await.ok()?;
        self.keyring.decrypt(name.as_bytes(), &value?).ok()
    }

    /// Encrypts a value for the key that it will be stored at.
    pub(super) fn encrypted(&self, name: &RedisKey, plain: &[u8]) -> Vec<u8> {
        self.keyring.encrypt(name.as_bytes(), plain)
    }

    /// Returns the key of a slot's entry.
    pub(super) fn entry_key(&self, slot: &CacheSlot) -> RedisKey {
        self.link.keys().cache_entry(scope(slot), slot.key.bytes())
    }

    fn copy_key(&self, slot: &CacheSlot) -> RedisKey {
        self.link.keys().cache_copy(scope(slot), slot.key.bytes())
    }

    /// Returns true if an erasure concerns the entry. Redis may have evicted the sets by which erasures find entries, and
    /// the entries not.
    fn is_erased(&self, entry: &Entry) -> bool {
        self.epochs.erased_since(entry.began, &entry.tags)
    }

    /// Reads a value as an entry; `left` is what Redis says of its time, -1 if it says nothing.
    fn entry(&self, slot: &CacheSlot, name: &RedisKey, value: &[u8], left: i64) -> Option<Entry> {
        let plain = self.keyring.decrypt(name.as_bytes(), value).ok()?;
        let (mut entry, stored) = wire::read_entry(&plain, slot, self.clock.now())?;
        // Two clocks that may differ, and a lifetime that has to hold by both.
        let whole = if *name == self.entry_key(slot) { entry.lifetime } else { entry.lifetime + entry.grace };
        let by_clock = self.clock.wall().duration_since(stored).unwrap_or_default();
        let by_redis =
            u64::try_from(left).map_or(Duration::ZERO, |left| whole.saturating_sub(Duration::from_millis(left)));
        entry.stored_at = self.clock.now().checked_sub(by_clock.max(by_redis))?;
        Some(entry)
    }
}

fn scope(slot: &CacheSlot) -> EntryScope<'_> {
    EntryScope { subject: slot.subject.as_str(), private: slot.private.as_ref() }
}
