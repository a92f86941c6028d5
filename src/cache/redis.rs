//! Level 2: entries in Redis, shared by nodes; and whose turn it is to ask upstream.
//!
//! Invariants: a key tells nothing of what was asked, a value is encrypted and opens under its own key alone; no entry
//! outlives its lifetime, which stands in the value as well as in Redis; a lease is released by its owner or expires;
//! whatever Redis does, a caller gets an answer within its budget, if only "out".

use super::CacheSlot;
use super::entry::Entry;
use super::epoch::Epochs;
use super::key::Key;
use super::wire::{self, millis};
use crate::base::clock::Clock;
use crate::base::json_template::JsonTemplate;
use crate::base::keyring::{self, Keyring};
use crate::iluma::person::Tag;
use crate::redis::client::{Budget, LinkError, RedisClient};
use parking_lot::Mutex;
use redis::{Script, ScriptInvocation};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};

/// How long a node leads without a word. It renews while its call is under way, so this is what a node's death costs the
/// others, and three times what a busy node may be late.
const LEASE: Duration = Duration::from_secs(3);
/// How often a lease is renewed.
pub(super) const RENEWAL: Duration = Duration::from_secs(1);
/// How long an answer that is not kept lies there for the nodes that wait for it; they are told at once.
const LANDED: Duration = Duration::from_secs(5);
/// What telling other nodes may take, for which nobody waits.
const TELLING: Duration = Duration::from_secs(1);
/// What is being told at a time, more than a Redis that is well lets wait. What finds no place is not told: others ask for
/// themselves.
const MOST_TOLD: usize = 1024;

/// A script that reads by `text`: another program's value is taken away, it would be in the way of ours.
macro_rules! reading {
    ($script:literal) => {
        concat!(
            r"
            local function text(key)
              local value = redis.pcall('GET', key)
              if type(value) == 'table' and value.err then redis.call('DEL', key) return false end
              return value
            end
            ",
            $script
        )
    };
}

/// The entry, or whose turn it is.
static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(reading!(
        r"
        local entry = text(KEYS[1])
        if entry then return {'entry', entry, redis.call('PTTL', KEYS[1])} end
        if ARGV[1] == '' then return {'nothing', '', 0} end
        if ARGV[3] == '1' then
          local landed = text(KEYS[3])
          if landed then return {'landed', landed, 0} end
        end
        if text(KEYS[2]) then
          local left = redis.call('PTTL', KEYS[2])
          -- One that does not end by itself, or not in time, is no lease of ours.
          if left >= 0 and left <= tonumber(ARGV[2]) then
            redis.call('SET', KEYS[4], '1', 'PX', ARGV[2])
            return {'wait', '', left}
          end
        end
        redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
        return {'lead', '', 0}"
    ))
});

/// Renews a lease that is still ours.
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(reading!(
        "if text(KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
    ))
});

/// Ends a lease that is still ours, and wakes who waits: they look whose turn it is.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(reading!(
        r"
        if text(KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
        if redis.call('DEL', KEYS[2]) == 1 then redis.call('PUBLISH', ARGV[2], ARGV[3]) end
        return 1"
    ))
});

/// Stores an entry, unless somebody in it was erased since its call began; files it under its tags; ends the lease.
/// Where it can't be filed it is not stored: an erasure would not find it. What stands there is left for an erasure to see.
/// KEYS: entry, lease, wanted, the copy that outlives the entry, then a tag's set and its tombstone in turn.
static STORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(reading!(
        r"
        local stored = 1
        for at = 5, #KEYS, 2 do
          local filed = redis.call('TYPE', KEYS[at]).ok
          if filed ~= 'set' and filed ~= 'none' then stored = 0 end
          if redis.call('EXISTS', KEYS[at + 1]) == 1 then
            local erased = tonumber(text(KEYS[at + 1]) or '')
            if not erased or erased > tonumber(ARGV[4]) then stored = 0 end
          end
        end
        if stored == 1 then
          local keep = tonumber(ARGV[3])
          redis.call('SET', KEYS[1], ARGV[2], 'PX', keep)
          if ARGV[7] ~= '' then
            keep = keep + tonumber(ARGV[8])
            redis.call('SET', KEYS[4], ARGV[7], 'PX', keep)
          end
          for at = 5, #KEYS, 2 do
            redis.call('SADD', KEYS[at], KEYS[1], KEYS[4])
            if redis.call('PTTL', KEYS[at]) < keep then redis.call('PEXPIRE', KEYS[at], keep) end
          end
        end
        if ARGV[1] ~= '' and text(KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
        redis.call('DEL', KEYS[3])
        redis.call('PUBLISH', ARGV[5], ARGV[6])
        return stored"
    ))
});

/// Leaves an answer that is not kept to those who wait for it, if anybody does, and ends the lease.
static LAND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(reading!(
        r"
        if text(KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
        if redis.call('DEL', KEYS[2]) == 1 then
          redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
          redis.call('PUBLISH', ARGV[4], ARGV[5])
        end
        return 1"
    ))
});

/// How Redis served the cache, from the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Entries that were there.
    pub hits: AtomicU64,
    /// Entries that were not.
    pub misses: AtomicU64,
    /// Values that did not open: damaged, moved to another key, of a key that is gone.
    pub damaged: AtomicU64,
    /// Questions that Redis did not answer.
    pub out: AtomicU64,
}

/// Entries in Redis.
#[derive(Debug)]
pub(super) struct RedisCache {
    pub(super) link: RedisClient,
    pub(super) names: Names,
    vault: Keyring,
    epochs: Arc<Epochs>,
    clock: Clock,
    pub(super) counts: Arc<Counts>,
    waiting: Waiting,
    telling: Semaphore,
}

/// What a claim comes to.
pub(super) enum Claimed {
    Entry(Entry),
    /// An answer that another node's call brought, and that is not kept.
    FetchResult(SharedResult),
    Lead(Lease),
    /// Another node asks; its lease lasts so long if it says nothing more.
    Wait(Duration),
    Nothing,
    /// Redis did not answer. It may have given the lead all the same.
    Out(Lease),
}

/// What an answer that is not kept was, for those who wait on other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SharedResult {
    /// An answer; the body is none if it is for the eyes of the first one alone.
    Answer(u16, Option<Vec<u8>>, Option<JsonTemplate>),
    /// No answer, for a reason whose number the caller knows.
    Failed(u8),
}

/// The right and the duty to ask upstream, for all nodes.
#[derive(Debug)]
pub struct Lease {
    level2: Arc<RedisCache>,
    key: Key,
    token: [u8; 16],
}

impl RedisCache {
    pub(super) fn new(link: RedisClient, root: &[u8; 32], vault: Keyring, epochs: Arc<Epochs>, clock: Clock) -> Self {
        let names = Names(keyring::namespace(root));
        Self {
            link,
            names,
            vault,
            epochs,
            clock,
            counts: Arc::default(),
            waiting: Waiting::default(),
            telling: Semaphore::new(MOST_TOLD),
        }
    }

    /// Registers as one who waits for a key, before it is claimed: nothing is said in between.
    pub(super) fn wait_for(&self, key: &Key) -> Waits<'_> {
        self.waiting.register(key)
    }

    /// Wakes who waits for the key that a message names.
    pub(super) fn landed(&self, message: &[u8]) -> Option<Key> {
        let key = Key::from_bytes(message)?;
        self.waiting.wake(&key);
        Some(key)
    }

    /// Wakes everybody: messages were lost.
    pub(super) fn wake_all(&self) {
        self.waiting.wake_all();
    }

    /// The entry of a place that is past its lifetime, but not its grace.
    pub(super) async fn look_up_stale(&self, place: &CacheSlot, budget: &Budget) -> Option<Entry> {
        let name = self.names.copy(place);
        let mut pipeline = redis::pipe();
        pipeline.get(&name).pttl(&name);
        let (value, left): (Option<Vec<u8>>, i64) = self.link.pipeline(budget, &pipeline).await.ok()?;
        self.entry(place, &name, &value?, left).filter(|entry| !self.is_erased(entry))
    }

    /// The entry of a place alone.
    pub(super) async fn look_up(self: &Arc<Self>, place: &CacheSlot, budget: &Budget) -> Option<Entry> {
        match self.claim_as(place, &[], false, budget).await {
            Claimed::Entry(entry) => Some(entry),
            _ => None,
        }
    }

    /// The entry of a place, or whose turn it is to ask. `waited`: whether what has landed meanwhile will do.
    pub(super) async fn claim(self: &Arc<Self>, place: &CacheSlot, waited: bool, budget: &Budget) -> Claimed {
        self.claim_as(place, &keyring::random::<16>(), waited, budget).await
    }

    async fn claim_as(self: &Arc<Self>, place: &CacheSlot, token: &[u8], waited: bool, budget: &Budget) -> Claimed {
        let key = &place.key;
        let mut script = CLAIM.key(self.names.entry(place));
        script.key(self.names.lease(key)).key(self.names.transient(key)).key(self.names.wanted(key));
        script.arg(token).arg(millis(LEASE)).arg(u8::from(waited));
        let answer: Result<(String, Vec<u8>, i64), LinkError> = self.link.script(budget, &script).await;
        let (what, value, left) = match answer {
            Ok(answer) => answer,
            Err(_) => {
                self.counts.out.fetch_add(1, Ordering::Relaxed);
                return Claimed::Out(self.lease(key, token));
            }
        };
        let over = |entry: &Entry| {
            self.clock.now().saturating_duration_since(entry.stored_at) >= entry.lifetime || self.is_erased(entry)
        };
        match what.as_str() {
            "entry" => {
                let count = match self.entry(place, &self.names.entry(place), &value, left) {
                    Some(entry) if !over(&entry) => {
                        self.counts.hits.fetch_add(1, Ordering::Relaxed);
                        return Claimed::Entry(entry);
                    }
                    // Redis' clock is behind ours, or an erasure did not find it.
                    Some(_) => &self.counts.misses,
                    None => &self.counts.damaged,
                };
                count.fetch_add(1, Ordering::Relaxed);
                // It would be in everybody's way: nobody leads while an answer seems to be there.
                self.discard(place, &value, budget).await;
                Claimed::Nothing
            }
            "landed" => match self
                .vault
                .decrypt(&self.names.transient(key), &value)
                .ok()
                .and_then(|told| wire::read_told(&told))
            {
                Some(told) => Claimed::FetchResult(told),
                None => Claimed::Nothing,
            },
            "lead" => {
                self.counts.misses.fetch_add(1, Ordering::Relaxed);
                Claimed::Lead(self.lease(key, token))
            }
            "wait" => Claimed::Wait(Duration::from_millis(u64::try_from(left).unwrap_or(0))),
            _ => {
                self.counts.misses.fetch_add(1, Ordering::Relaxed);
                Claimed::Nothing
            }
        }
    }

    /// Whether an erasure concerns it. Redis may have evicted the sets by which erasures find entries, and the entries not.
    fn is_erased(&self, entry: &Entry) -> bool {
        self.epochs.erased_since(entry.began, &entry.tags)
    }

    fn lease(self: &Arc<Self>, key: &Key, token: &[u8]) -> Lease {
        Lease { level2: Arc::clone(self), key: key.clone(), token: token.try_into().unwrap_or_default() }
    }

    /// A value as an entry; `left` is what Redis says of its time, -1 if it says nothing.
    fn entry(&self, place: &CacheSlot, name: &[u8], value: &[u8], left: i64) -> Option<Entry> {
        let plain = self.vault.decrypt(name, value).ok()?;
        let (mut entry, stored) = wire::read_entry(&plain, place, self.clock.now())?;
        // Two clocks that may differ, and a shelf life that has to hold by both.
        let whole = if name == self.names.entry(place) { entry.lifetime } else { entry.lifetime + entry.grace };
        let by_clock = self.clock.wall().duration_since(stored).unwrap_or_default();
        let by_redis =
            u64::try_from(left).map_or(Duration::ZERO, |left| whole.saturating_sub(Duration::from_millis(left)));
        entry.stored_at = self.clock.now().checked_sub(by_clock.max(by_redis))?;
        Some(entry)
    }

    /// Takes a value away that does not open, unless somebody has put another in its place.
    async fn discard(&self, place: &CacheSlot, value: &[u8], budget: &Budget) {
        static DISCARD: LazyLock<Script> = LazyLock::new(|| {
            Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0")
        });
        let mut script = DISCARD.key(self.names.entry(place));
        let _: Result<i64, LinkError> = self.link.script(budget, script.arg(value)).await;
    }

    /// Stores an entry for all nodes. Says whether it is there: it is not if Redis is out, or somebody was erased.
    pub(super) async fn store(&self, place: &CacheSlot, entry: &Entry, lease: Option<&Lease>) -> bool {
        let stored = self.clock.wall() - self.clock.now().saturating_duration_since(entry.stored_at);
        let plain = wire::write_entry(entry, stored);
        let (name, copy) = (self.names.entry(place), self.names.copy(place));
        let value = self.vault.encrypt(&name, &plain);
        // A copy under a name of its own: whether the entry is still good, Redis tells by its being there.
        let spare = if entry.grace.is_zero() { Vec::new() } else { self.vault.encrypt(&copy, &plain) };
        let mut script = STORE.key(name);
        script.key(self.names.lease(&place.key)).key(self.names.wanted(&place.key)).key(copy);
        for tag in &entry.tags {
            script.key(self.names.tag(tag)).key(self.names.tombstone(tag));
        }
        let token: &[u8] = lease.map_or(&[], |lease| &lease.token);
        script.arg(token).arg(value).arg(millis(entry.lifetime).max(1)).arg(place.began);
        script.arg(self.names.landed_channel()).arg(place.key.bytes());
        script.arg(spare).arg(millis(entry.grace));
        self.tell(&script).await == Ok(1)
    }

    async fn tell(&self, script: &ScriptInvocation<'_>) -> Result<i64, LinkError> {
        let _place = self.telling.try_acquire().map_err(|_| LinkError::Out)?;
        self.link.script(&Budget::of(TELLING), script).await
    }

    /// Keeps where the answer to a pending request will belong, by upstream's id.
    pub(super) async fn note(&self, id: &Key, value: &[u8], lifetime: Duration) {
        let name = self.names.pending(id);
        let value = self.vault.encrypt(&name, value);
        let mut command = redis::cmd("SET");
        let command = command.arg(name).arg(value).arg("PX").arg(millis(lifetime).max(1));
        let _: Result<(), LinkError> = self.link.command(&Budget::of(TELLING), command).await;
    }

    /// What was noted by that id.
    pub(super) async fn noted(&self, id: &Key, budget: &Budget) -> Option<Vec<u8>> {
        let name = self.names.pending(id);
        let mut command = redis::cmd("GET");
        let value: Option<Vec<u8>> = self.link.command(budget, command.arg(&name)).await.ok()?;
        self.vault.decrypt(&name, &value?).ok()
    }
}

impl Lease {
    /// Goes on leading, while the call lasts. That Redis is out changes nothing for the call.
    pub async fn renew(&self) {
        let level2 = &self.level2;
        let mut script = RENEW.key(level2.names.lease(&self.key));
        script.arg(&self.token).arg(millis(LEASE));
        let _: Result<i64, LinkError> = level2.tell(&script).await;
    }

    /// Gives back what Redis may have given without our hearing of it, as soon as it answers again: nobody is to wait for
    /// one who does not know that he leads. Later than it lasts there is nothing to be given back.
    pub async fn disown(self) {
        let mut up = self.level2.link.watch();
        if tokio::time::timeout(LEASE, up.wait_for(|up| *up)).await.is_ok() {
            self.release().await;
        }
    }

    /// Gives up without an answer: the next who waits leads.
    pub async fn release(self) {
        let level2 = &self.level2;
        let mut script = RELEASE.key(level2.names.lease(&self.key));
        script.key(level2.names.wanted(&self.key));
        script.arg(&self.token).arg(level2.names.landed_channel()).arg(self.key.bytes());
        let _: Result<i64, LinkError> = level2.tell(&script).await;
    }

    /// Leaves an answer that is not kept to those who wait on other nodes.
    pub async fn land(self, told: &SharedResult) {
        let level2 = &self.level2;
        let name = level2.names.transient(&self.key);
        let value = level2.vault.encrypt(&name, &wire::write_told(told));
        let mut script = LAND.key(level2.names.lease(&self.key));
        script.key(level2.names.wanted(&self.key)).key(name);
        script.arg(&self.token).arg(value).arg(millis(LANDED));
        script.arg(level2.names.landed_channel()).arg(self.key.bytes());
        let _: Result<i64, LinkError> = level2.tell(&script).await;
    }
}

/// The names of everything the cache has in Redis. What stands in them in clear are rows and teams of the configuration.
#[derive(Debug, Clone)]
pub(super) struct Names(String);

impl Names {
    pub(super) fn of(root: &[u8; 32]) -> Self {
        Self(keyring::namespace(root))
    }

    pub(super) fn entry(&self, place: &CacheSlot) -> Vec<u8> {
        let private = place.private.as_ref().map_or("-", |tenant| tenant.as_str());
        self.keyed(&format!("entry:{}:{private}", place.subject.as_str()), place.key.bytes())
    }

    /// The copy of an entry that is served while upstream fails.
    fn copy(&self, place: &CacheSlot) -> Vec<u8> {
        [&self.entry(place)[..], b":copy"].concat()
    }

    /// A pattern for the entries of a subject (or `*`) and a team alone (or `*`).
    pub(super) fn entries(&self, subject: &str, private: &str) -> String {
        format!("{}entry:{subject}:{private}:*", self.0)
    }

    fn lease(&self, key: &Key) -> Vec<u8> {
        self.keyed("lease", key.bytes())
    }

    fn transient(&self, key: &Key) -> Vec<u8> {
        self.keyed("landed", key.bytes())
    }

    fn wanted(&self, key: &Key) -> Vec<u8> {
        self.keyed("wanted", key.bytes())
    }

    fn pending(&self, id: &Key) -> Vec<u8> {
        self.keyed("pending", id.bytes())
    }

    pub(super) fn tag(&self, tag: &Tag) -> Vec<u8> {
        self.keyed("tag", tag.bytes())
    }

    pub(super) fn tombstone(&self, tag: &Tag) -> Vec<u8> {
        self.keyed("erased", tag.bytes())
    }

    pub(super) fn one(&self, name: &str) -> String {
        format!("{}{name}", self.0)
    }

    pub(super) fn landed_channel(&self) -> String {
        self.one("landed")
    }

    pub(super) fn changed_channel(&self) -> String {
        self.one("changed")
    }

    fn keyed(&self, kind: &str, key: &[u8]) -> Vec<u8> {
        let mut name = Vec::with_capacity(self.0.len() + kind.len() + 1 + key.len());
        name.extend_from_slice(self.0.as_bytes());
        name.extend_from_slice(kind.as_bytes());
        name.push(b':');
        name.extend_from_slice(key);
        name
    }
}

/// Who waits for which key in this process: at most one each, the leader of its flight.
#[derive(Debug, Default)]
struct Waiting(Mutex<HashMap<Key, Arc<Notify>>>);

/// One who waits, until dropped.
pub(super) struct Waits<'a> {
    waiting: &'a Waiting,
    key: Key,
    notify: Arc<Notify>,
}

impl Waiting {
    fn register(&self, key: &Key) -> Waits<'_> {
        let notify = Arc::clone(self.0.lock().entry(key.clone()).or_default());
        Waits { waiting: self, key: key.clone(), notify }
    }

    fn wake(&self, key: &Key) {
        if let Some(notify) = self.0.lock().get(key) {
            // A permit stays for who is about to wait.
            notify.notify_one();
        }
    }

    fn wake_all(&self) {
        self.0.lock().values().for_each(|notify| notify.notify_one());
    }
}

impl Waits<'_> {
    pub(super) async fn woken(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.waiting.0.lock().remove(&self.key);
    }
}
