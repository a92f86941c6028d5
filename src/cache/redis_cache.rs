//! L2 of nodes with Redis: entries that all nodes share.
//!
//! Invariants: a key reveals nothing of a request; a value is encrypted and can be decrypted only under its own key; no
//! entry outlives its lifetime, which the value states and Redis enforces too; a caller gets an answer within its
//! budget even if Redis hangs or fails.

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

/// The longest time for sending a message to other nodes; no request waits for it.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(1);
/// The largest number of messages to other nodes that are in flight at once. With a healthy Redis there are fewer.
/// Further messages are dropped, so the other nodes make calls of their own.
const MOST_TOLD: usize = 1024;

/// Counts of the look-ups on the second level, in Redis or on disk, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Look-ups that found an entry.
    pub hits: AtomicU64,
    /// Look-ups that found no entry, or an entry that may not be served any more.
    pub misses: AtomicU64,
    /// Values that could not be decrypted: damaged, moved to another key, or encrypted with an unknown key.
    pub damaged: AtomicU64,
    /// Look-ups that Redis or the disk did not answer.
    pub out: AtomicU64,
}

/// The second level of the cache in Redis: entries that all nodes share.
#[derive(Debug)]
pub(super) struct RedisCache {
    pub(super) redis: RedisClient,
    keyring: Keyring,
    epochs: Arc<Epochs>,
    clock: Clock,
    pub(super) counts: Arc<Counts>,
    pub(super) waiters: Waiters,
    telling: Semaphore,
}

impl RedisCache {
    /// Makes the second level of the cache in this Redis.
    pub(super) fn new(redis: RedisClient, keyring: Keyring, epochs: Arc<Epochs>, clock: Clock) -> Self {
        Self {
            redis,
            keyring,
            epochs,
            clock,
            counts: Arc::default(),
            waiters: Waiters::default(),
            telling: Semaphore::new(MOST_TOLD),
        }
    }

    /// Wakes the waiter for the key in `message`: another node's call for this key has ended. Returns the key, or
    /// `None` if the message is not a key.
    pub(super) fn landed(&self, message: &[u8]) -> Option<Key> {
        let key = Key::from_bytes(message)?;
        self.waiters.wake(&key);
        Some(key)
    }

    /// Returns the copy of a slot's entry, which Redis keeps until the entry's grace ends. Returns `None` if there is
    /// no copy, if it can't be read, or if it names an erased person.
    pub(super) async fn look_up_stale(&self, slot: &CacheSlot, budget: &Budget) -> Option<Entry> {
        let name = self.copy_key(slot);
        let mut pipeline = redis::pipe();
        pipeline.get(&name).pttl(&name);
        let (value, left): (Option<Vec<u8>>, i64) = self.redis.pipeline(budget, &pipeline).await.ok()?;
        self.entry(slot, &name, &value?, left).filter(|entry| !self.is_erased(entry))
    }

    /// Returns the entry in `value` if it may be served. Otherwise removes the value from Redis. While Redis has a
    /// value, it gives no node the lease for the call, so an unusable value would block all nodes. `left` is the number
    /// of milliseconds until Redis removes the value; it is negative if the value has no expiry.
    pub(super) async fn usable(&self, slot: &CacheSlot, value: &[u8], left: i64, budget: &Budget) -> Option<Entry> {
        let over = |entry: &Entry| {
            self.clock.now().saturating_duration_since(entry.stored_at) >= entry.lifetime || self.is_erased(entry)
        };
        let count = match self.entry(slot, &self.entry_key(slot), value, left) {
            Some(entry) if !over(&entry) => {
                self.counts.hits.fetch_add(1, Ordering::Relaxed);
                return Some(entry);
            }
            // Redis' clock is behind ours, or an erasure did not find the entry.
            Some(_) => &self.counts.misses,
            None => &self.counts.damaged,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let mut script = scripts::DISCARD.key(self.entry_key(slot));
        let _: Result<i64, RedisFailure> = self.redis.script(budget, script.arg(value)).await;
        None
    }

    /// Reads the shared result of another node's call. Returns `None` if `value` can't be decrypted or read.
    pub(super) fn shared_result(&self, slot: &CacheSlot, value: &[u8]) -> Option<SharedResult> {
        let name = self.redis.keys().cache_result(slot.key.bytes());
        wire::read_result(&self.keyring.decrypt(name.as_bytes(), value).ok()?)
    }

    /// Stores an entry for all nodes, and ends the lease with this token (empty if there is no lease). Returns true if
    /// the entry is stored. It returns false in two cases: a person in the entry was erased since its call began, or
    /// another program has overwritten the index of such a person.
    ///
    /// # Errors
    /// Returns an error if Redis is out, or if too many messages to other nodes are in flight.
    pub(super) async fn store(&self, slot: &CacheSlot, entry: &Entry, token: &[u8]) -> Result<bool, RedisFailure> {
        let stored = self.clock.wall() - self.clock.now().saturating_duration_since(entry.stored_at);
        let plain = wire::write_entry(entry, stored);
        let (name, copy, keys) = (self.entry_key(slot), self.copy_key(slot), self.redis.keys());
        let value = self.encrypted(&name, &plain);
        // The copy has a name of its own, so Redis has a value under the entry's name only while the entry is fresh.
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

    /// Runs a script for which no request waits, such as a message to the other nodes. Returns [`RedisFailure::Out`] if
    /// [`MOST_TOLD`] such scripts are in flight already.
    pub(super) async fn tell(&self, script: &ScriptInvocation<'_>) -> Result<i64, RedisFailure> {
        let _permit = self.telling.try_acquire().map_err(|_| RedisFailure::Out)?;
        self.redis.script(&Budget::of(MESSAGE_TIMEOUT), script).await
    }

    /// Encrypts and stores `value`, the encoded slot for the final answer to a pending request. `id` is the keyed hash
    /// of Iluma's id of that request.
    pub(super) async fn note(&self, id: &Key, value: &[u8], lifetime: Duration) {
        let name = self.redis.keys().cache_pending(id.bytes());
        let value = self.encrypted(&name, value);
        let mut command = redis::cmd("SET");
        let command = command.arg(name).arg(value).arg("PX").arg(millis(lifetime).max(1));
        let _: Result<(), RedisFailure> = self.redis.command(&Budget::of(MESSAGE_TIMEOUT), command).await;
    }

    /// Returns the encoded slot that [`note`](Self::note) stored for an id. Returns `None` if there is none, or if
    /// Redis does not answer.
    pub(super) async fn noted(&self, id: &Key, budget: &Budget) -> Option<Vec<u8>> {
        let name = self.redis.keys().cache_pending(id.bytes());
        let mut command = redis::cmd("GET");
        let value: Option<Vec<u8>> = self.redis.command(budget, command.arg(&name)).await.ok()?;
        self.keyring.decrypt(name.as_bytes(), &value?).ok()
    }

    /// Encrypts a value for the key under which it will be stored.
    pub(super) fn encrypted(&self, name: &RedisKey, plain: &[u8]) -> Vec<u8> {
        self.keyring.encrypt(name.as_bytes(), plain)
    }

    /// Returns the key of a slot's entry in Redis.
    pub(super) fn entry_key(&self, slot: &CacheSlot) -> RedisKey {
        self.redis.keys().cache_entry(scope(slot), slot.key.bytes())
    }

    fn copy_key(&self, slot: &CacheSlot) -> RedisKey {
        self.redis.keys().cache_copy(scope(slot), slot.key.bytes())
    }

    /// Returns true if the entry names a person who was erased since its call began. An erasure finds entries by sets
    /// in Redis. Redis may have evicted a set and kept its entries, so each entry is checked when it is read.
    fn is_erased(&self, entry: &Entry) -> bool {
        self.epochs.erased_since(entry.began, &entry.tags)
    }

    /// Reads a value as an entry. Returns `None` if the value is damaged. `left` is the number of milliseconds until
    /// Redis removes the value; it is negative if the value has no expiry.
    fn entry(&self, slot: &CacheSlot, name: &RedisKey, value: &[u8], left: i64) -> Option<Entry> {
        let plain = self.keyring.decrypt(name.as_bytes(), value).ok()?;
        let (mut entry, stored) = wire::read_entry(&plain, slot, self.clock.now())?;
        // Two clocks may differ, and the lifetime must hold by both.
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
