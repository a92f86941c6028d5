//! The cache: entries in memory, and on a second level on disk, or in Redis if nodes share them.
//!
//! Invariants: a [`CacheSlot`] can't be made without the tenant's [`Scope`]; an entry is never served past its lifetime
//! (except a bank answer while Iluma fails, which says so); over all nodes at most one call per key is in flight while
//! Redis answers ([`Lease`]); stored bytes are never rewritten, only the caller's reference is inserted.

use super::disk_level::{DISK_CACHE, DiskLevel};
use super::entry::{Entry, SharedResult, content_type};
use super::epoch::{Change, Epochs};
use super::key::{Key, KeyInput, Keys, Scope};
use super::lease::{self, ClaimAnswer, Lease, Returned, Returns};
use super::membership::{CacheMembership, Follow, NodeIdentity};
use super::memory::Memory;
use super::policy;
use super::purge::{self, Removed, without_redis};
use super::redis_cache::{Counts, RedisCache};
use super::slot::{Awaited, CacheCandidate, CacheSlot, Hit};
use super::wire;
use crate::base::clock::Clock;
use crate::base::keyring::Keyring;
use crate::base::name::AccountName;
use crate::base::tasks::Tasks;
use crate::config;
use crate::iluma::person::Tag;
use crate::iluma::subject::Subject;
use crate::redis::{Budget, Channel, KeySpace, RedisClient};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The longest time for which a node answers "pending" from memory without asking Redis. It is short, because the
/// message that a pending request has ended may be lost.
const PENDING_IN_MEMORY: Duration = Duration::from_secs(5);

/// The largest number of pending requests whose slots are remembered: 50 calls a second that all stay pending for 10
/// minutes.
const MOST_PENDING: u64 = 30_000;

/// The cache: stored answers in memory (L1), and on a second level (L2) on disk or in Redis.
#[derive(Debug)]
pub struct Cache {
    keys: Keys,
    epochs: Arc<Epochs>,
    memory: Arc<Memory>,
    /// The slots of pending requests, by the keyed hash of Iluma's id.
    pending: moka::sync::Cache<Key, Arc<Awaited>>,
    l2: L2,
    lifetimes: ArcSwap<config::Cache>,
    clock: Clock,
}

/// The second level of the cache, which outlives the process.
#[derive(Debug)]
enum L2 {
    None,
    Disk(DiskLevel),
    Redis(Shared),
}

/// The choice of the cache's second level.
#[derive(Debug)]
pub enum L2Choice<'a> {
    /// No second level: memory only.
    None,
    /// A file, for a gateway without Redis.
    Disk(DiskLevel),
    /// Redis, for nodes that share entries. The values are the client, the keys that encrypt entries, and the identity
    /// of this node.
    Redis(RedisClient, Keyring, NodeIdentity<'a>),
}

/// The parts that only a cache with Redis has.
#[derive(Debug)]
struct Shared {
    l2: Arc<RedisCache>,
    membership: Arc<CacheMembership>,
    returns: Returns,
    /// The receiver of the leases that this node gives back; `None` once [`Cache::keep`] has taken it.
    returned: Mutex<Option<mpsc::Receiver<Returned>>>,
}

/// The result of [`Cache::claim`]: the stored answer, or the decision if this node makes the call.
#[derive(Debug)]
pub enum LeaseDecision {
    /// No call is needed, because the answer is stored already.
    Hit(Hit),
    /// No further call is needed. Another node has made the call, and shares its result, which is not cached.
    Shared(SharedResult),
    /// This node makes the call, and the other nodes wait for it.
    Lead(Lease),
    /// This node makes the call without a lease, so other nodes may make the same call. Redis is out or not configured,
    /// the wait was too long, or the stored entry can't be served.
    Alone,
}

impl Cache {
    /// Makes a cache for answers of the upstream at `origin`. Its memory is empty, and its keys derive from `root`.
    #[must_use]
    pub fn new(settings: &config::Cache, origin: &http::Uri, root: &[u8; 32], l2: L2Choice<'_>, clock: Clock) -> Self {
        let memory = Arc::new(Memory::new(settings.memory));
        let (epochs, l2) = match l2 {
            L2Choice::None => (Arc::new(Epochs::new()), L2::None),
            L2Choice::Disk(disk) => (Arc::clone(&disk.epochs), L2::Disk(disk)),
            L2Choice::Redis(redis, keyring, node) => {
                let epochs = Arc::new(Epochs::new());
                let l2 = Arc::new(RedisCache::new(redis, keyring, Arc::clone(&epochs), clock.clone()));
                let (first, second) = (Arc::clone(&memory), Arc::clone(&epochs));
                let membership =
                    Arc::new(CacheMembership::new(Arc::clone(&l2), first, second, node.member(), clock.clone()));
                let (returns, returned) = Returns::new();
                (epochs, L2::Redis(Shared { l2, membership, returns, returned: Mutex::new(Some(returned)) }))
            }
        };
        Self {
            keys: Keys::new(root, origin),
            epochs,
            memory,
            pending: moka::sync::Cache::builder()
                .max_capacity(MOST_PENDING)
                .time_to_live(policy::PENDING_LIFETIME)
                .build(),
            l2,
            lifetimes: ArcSwap::from_pointee(settings.clone()),
            clock,
        }
    }

    /// Returns the Redis channels to which the cache listens.
    #[must_use]
    pub fn channels(keys: &KeySpace) -> Vec<Channel> {
        vec![keys.results_channel(), keys.changes_channel()]
    }

    /// Sets the function that updates this node's copy of the registry of the teams' keys. The node calls it before it
    /// confirms a change of the registry to the other nodes. Without Redis, this does nothing.
    pub fn follow_registry_by(&self, follow: Follow) {
        if let Some(shared) = self.nodes() {
            // The start sets this once; a second `set` would change nothing.
            let _ = shared.membership.follow.set(follow);
        }
    }

    /// Runs the background work of the second level until `stop`. With Redis, the node also follows the changes of the
    /// other nodes.
    pub fn keep(&self, tasks: &Tasks, stop: CancellationToken) {
        let shared = match &self.l2 {
            L2::None => return,
            L2::Disk(disk) => return disk.keep(tasks, stop),
            L2::Redis(shared) => shared,
        };
        let returned = shared.returned.lock().take();
        if let Some(returned) = returned {
            let l2 = Arc::clone(&shared.l2);
            tasks.spawn_until(&stop, lease::give_back(l2, returned));
        }
        shared.membership.keep(tasks, stop);
    }

    /// Applies the lifetimes of `settings` to answers that are stored from now on, and makes keys for the upstream at
    /// `origin`. Keys contain the origin, so entries of another upstream are not served. The bound of memory does not
    /// change.
    pub fn reload(&self, settings: &config::Cache, origin: &http::Uri) {
        self.lifetimes.store(Arc::new(settings.clone()));
        if self.keys.set_origin(origin) {
            self.memory.clear();
        }
    }

    /// Returns the slot of a request's answer.
    #[must_use]
    pub fn place(&self, scope: &Scope<'_>, subject: Subject, target: &str, parameters: &[u8]) -> CacheSlot {
        // The number is read first, so a change between the two lines counts as later than `began`. At worst the answer
        // is not stored; it is never stored wrongly.
        let began = self.epochs.last();
        let key = self.keys.key(&self.epochs.table(), scope, &KeyInput { subject, target, parameters });
        CacheSlot { key, subject, private: scope.private_to(), began }
    }

    /// Returns true if [`Cache::confirm`] has to run before memory is read: this node may have missed a change, and
    /// Redis is up.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.nodes().is_some_and(|shared| !shared.membership.is_current() && shared.l2.redis.is_up())
    }

    /// Applies the changes of other nodes, if this node may have missed some.
    pub async fn confirm(&self, budget: &Budget) {
        if let Some(shared) = self.nodes() {
            shared.membership.confirm(budget).await;
        }
    }

    /// Returns the entry in memory if it may still be served and is not older than `max_age` (`None` for any age).
    /// While this node may have missed a purge, no watchlist entry is returned.
    #[must_use]
    pub fn look_up(&self, place: &CacheSlot, max_age: Option<Duration>) -> Option<Hit> {
        // A node without a recent heartbeat may have missed a purge, and purges mostly concern watchlists.
        let is_blind = || self.nodes().is_some_and(|shared| !shared.membership.is_current());
        if place.subject == Subject::Cft && is_blind() {
            return None;
        }
        self.fresh(self.memory.look_up(&place.key)?, max_age)
    }

    /// Returns the entry of the second level if it may still be served and is not older than `max_age` (`None` for any
    /// age). Copies the entry to memory.
    pub async fn look_further(&self, place: &CacheSlot, max_age: Option<Duration>, budget: &Budget) -> Option<Hit> {
        let entry = match self.below(place) {
            L2::None => return None,
            L2::Disk(level) => level.disk.look_up(place).await?,
            L2::Redis(shared) => lease::look_up(&shared.l2, place, budget).await?,
        };
        self.taken(place, entry, max_age)
    }

    /// Returns a bank answer that may be served while Iluma fails. The answer may be past its lifetime, but not past
    /// its grace, and is not older than `max_age` (`None` for any age).
    pub async fn look_up_stale(&self, place: &CacheSlot, max_age: Option<Duration>, budget: &Budget) -> Option<Hit> {
        let served = |entry: Arc<Entry>| {
            let age = self.clock.now().saturating_duration_since(entry.stored_at);
            let spare = (entry.lifetime + entry.grace).checked_sub(age).filter(|spare| !spare.is_zero())?;
            let may_be = !entry.grace.is_zero() && max_age.is_none_or(|most| age <= most);
            may_be.then_some(Hit { entry, age, ttl: spare })
        };
        if let Some(hit) = self.memory.look_up(&place.key).and_then(served) {
            return Some(hit);
        }
        if self.lifetimes.load().bank_stale_if_error.is_zero() {
            return None;
        }
        let entry = match self.below(place) {
            L2::None => return None,
            L2::Disk(level) => level.disk.look_up(place).await?,
            L2::Redis(shared) => shared.l2.look_up_stale(place, budget).await?,
        };
        served(Arc::new(entry))
    }

    /// Copies an entry of the second level to memory and returns it. Returns `None` if it may not be served.
    fn taken(&self, place: &CacheSlot, entry: Entry, max_age: Option<Duration>) -> Option<Hit> {
        let hit = self.fresh(Arc::new(entry), max_age)?;
        self.remember(place, &hit.entry).then_some(hit)
    }

    fn fresh(&self, entry: Arc<Entry>, max_age: Option<Duration>) -> Option<Hit> {
        let age = self.clock.now().saturating_duration_since(entry.stored_at);
        let ttl = entry.lifetime.checked_sub(age).filter(|ttl| !ttl.is_zero())?;
        max_age.is_none_or(|most| age <= most).then_some(Hit { entry, age, ttl })
    }

    /// Returns the entry of the second level if it may be served and is not older than `max_age` (`None` for any age).
    /// Otherwise asks Redis for the lease of the call, so that only one node makes the call. If another node has the
    /// lease, waits for its result, at most for `timeout`. Redis itself must answer within `budget`.
    pub async fn claim(
        &self,
        place: &CacheSlot,
        max_age: Option<Duration>,
        budget: &Budget,
        timeout: Duration,
    ) -> LeaseDecision {
        let shared = match self.below(place) {
            L2::None => return LeaseDecision::Alone,
            L2::Disk(level) => {
                let found = level.disk.look_up(place).await;
                let hit = found.and_then(|entry| self.taken(place, entry, max_age));
                return hit.map_or(LeaseDecision::Alone, LeaseDecision::Hit);
            }
            L2::Redis(shared) => shared,
        };
        let (mut waited, mut cleared) = (false, false);
        let end = tokio::time::Instant::now() + timeout;
        loop {
            let waiter = shared.l2.waiters.register(&place.key);
            let left = match lease::claim(&shared.l2, &shared.returns, place, waited, budget).await {
                ClaimAnswer::Entry(entry) => {
                    let hit = self.taken(place, entry, max_age);
                    return hit.map_or(LeaseDecision::Alone, LeaseDecision::Hit);
                }
                ClaimAnswer::Shared(result) => return LeaseDecision::Shared(result),
                ClaimAnswer::Lead(lease) => return LeaseDecision::Lead(lease),
                // The unusable value, damaged or past its lifetime, has been removed.
                ClaimAnswer::Nothing if !cleared => {
                    cleared = true;
                    continue;
                }
                ClaimAnswer::Nothing | ClaimAnswer::Out => return LeaseDecision::Alone,
                ClaimAnswer::Wait(left) => left,
            };
            if tokio::time::Instant::now() >= end {
                return LeaseDecision::Alone;
            }
            waited = true;
            let lapsed = (tokio::time::Instant::now() + left).min(end);
            tokio::select! {
                () = waiter.woken() => {}
                () = tokio::time::sleep_until(lapsed) => {}
                () = shared.l2.redis.out(budget) => return LeaseDecision::Alone,
            }
        }
    }

    /// Stores an answer in memory and returns the entry. Returns `None` if the answer is not stored, because the policy
    /// excludes it, or because a person in it was erased since the request arrived.
    #[must_use]
    pub fn offer(&self, place: &CacheSlot, offer: CacheCandidate<'_>) -> Option<Arc<Entry>> {
        let kept = policy::kept(place.subject, offer.status, offer.answer, &self.lifetimes.load())?;
        let tags: Box<[Tag]> = offer.tags.into_iter().collect();
        if self.epochs.erased_since(place.began, &tags) {
            return None;
        }
        let content_type = offer.content_type.and_then(|value| content_type(value.as_bytes()));
        let entry = Arc::new(Entry {
            status: offer.status,
            content_type,
            body: offer.spliced.clone(),
            stored_at: self.clock.now(),
            lifetime: kept.lifetime,
            grace: kept.grace,
            id: kept.id,
            pending: kept.pending,
            subject: place.subject,
            private: place.private.clone(),
            tags,
            began: place.began,
        });
        self.remember(place, &entry).then_some(entry)
    }

    /// Stores an entry on the second level, for other nodes or later starts, and ends the lease. If the entry is
    /// "pending" and `account` is given, it also stores the slot for the final answer.
    pub async fn publish(
        &self,
        place: &CacheSlot,
        entry: &Arc<Entry>,
        account: Option<&AccountName>,
        lease: Option<Lease>,
    ) {
        let note = match (entry.pending, &entry.id, account) {
            (true, Some(id), Some(account)) => {
                let name = self.keys.pending(account, id);
                self.pending.get(&name).map(|awaited| (name, wire::write_awaited(&awaited)))
            }
            (true, _, _) | (false, _, _) => None,
        };
        let shared = match self.below(place) {
            // Dropping a lease gives it back.
            L2::None => return,
            L2::Disk(level) => {
                level.disk.store(place, entry);
                if let Some((name, value)) = note {
                    level.disk.note(&name, value, entry.lifetime).await;
                }
                return;
            }
            L2::Redis(shared) => shared,
        };
        let stored = shared.l2.store(place, entry, lease.as_ref().map_or(&[], Lease::token)).await;
        if let (Ok(_), Some(lease)) = (stored, lease) {
            lease.ended();
        }
        if stored != Ok(true) && self.epochs.erased_since(entry.began, &entry.tags) {
            self.memory.forget(&place.key);
        }
        if let Some((name, value)) = note {
            shared.l2.note(&name, &value, entry.lifetime).await;
        }
    }

    /// Remembers the slot and the path of a pending request, for its final answer. `entry` is the "pending" answer; if
    /// it has no id, nothing is remembered.
    pub fn await_result(&self, account: &AccountName, place: &CacheSlot, path: &str, entry: &Entry) {
        let Some(id) = &entry.id else { return };
        let tags = entry.tags.iter().copied().collect();
        let awaited = Awaited { place: place.clone(), path: path.to_owned(), tags };
        self.pending.insert(self.keys.pending(account, id), Arc::new(awaited));
    }

    /// Returns the slot for the final answer to a pending request. Returns `None` if no slot is known for this id.
    pub async fn awaited(&self, account: &AccountName, id: &str, budget: &Budget) -> Option<Awaited> {
        let name = self.keys.pending(account, id);
        if let Some(known) = self.pending.get(&name) {
            return Some((*known).clone());
        }
        let noted = match &self.l2 {
            L2::None => None,
            L2::Disk(level) => level.disk.noted(&name).await,
            L2::Redis(shared) => shared.l2.noted(&name, budget).await,
        };
        wire::read_awaited(&noted?)
    }

    /// Applies a change on every node, on disk and in Redis: removes the entries that the change names. If the change
    /// names an answer that is still in flight, later look-ups do not find that answer either.
    pub async fn change(&self, change: &Change) -> Removed {
        let shared = match &self.l2 {
            // A gateway without Redis has no other node to tell, and a change of the registry concerns no entry.
            L2::None | L2::Disk(_) if *change == Change::Registry => return Removed::default(),
            L2::None => {
                self.epochs.change(change);
                return Removed { memory: self.memory.remove(change), ..Removed::default() };
            }
            L2::Disk(level) => return level.change(change, &self.memory).await,
            L2::Redis(shared) => shared,
        };
        match purge::carry_out(&shared.membership, change).await {
            Ok(removed) => removed,
            // Only this node's memory is done; the operator has to order the rest again.
            Err(_) => Removed { memory: self.memory.remove(change), left: without_redis(), ..Removed::default() },
        }
    }

    /// Counts the entries that a change would remove on every node, on disk and in Redis. Nothing is removed.
    pub async fn count(&self, change: &Change) -> Removed {
        let here = || Removed { memory: self.memory.count(change), ..Removed::default() };
        match &self.l2 {
            L2::None => here(),
            L2::Disk(level) => match level.disk.count(change).await {
                Ok(disk) => Removed { disk, ..here() },
                Err(_) => Removed { left: vec![DISK_CACHE.to_owned()], ..here() },
            },
            L2::Redis(shared) => match purge::count(&shared.membership, change).await {
                Ok(counted) => counted,
                Err(_) => Removed { left: without_redis(), ..here() },
            },
        }
    }

    /// Returns the number of entries in memory and their total size in bytes, for metrics.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        self.memory.size()
    }

    /// Returns the number of pending requests whose slots are remembered, for metrics.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.pending.entry_count()
    }

    /// Returns the counts of the look-ups in Redis; `None` without Redis.
    #[must_use]
    pub fn redis_counts(&self) -> Option<Arc<Counts>> {
        self.nodes().map(|shared| Arc::clone(&shared.l2.counts))
    }

    /// Returns the counts of the look-ups on disk; `None` without a disk cache.
    #[must_use]
    pub fn disk_counts(&self) -> Option<Arc<Counts>> {
        match &self.l2 {
            L2::Disk(level) => Some(Arc::clone(&level.disk.counts)),
            L2::None | L2::Redis(_) => None,
        }
    }

    /// Returns false while a disk cache is configured and can't be used.
    #[must_use]
    pub fn is_disk_up(&self) -> bool {
        match &self.l2 {
            L2::Disk(level) => level.disk.is_up(),
            L2::None | L2::Redis(_) => true,
        }
    }

    /// Returns the parts that only a cache with Redis has; `None` without Redis.
    const fn nodes(&self) -> Option<&Shared> {
        match &self.l2 {
            L2::Redis(shared) => Some(shared),
            L2::None | L2::Disk(_) => None,
        }
    }

    /// Returns the second level for a slot. It is `L2::None` for Iluma's health, which each node keeps in its own
    /// memory for seconds.
    fn below(&self, place: &CacheSlot) -> &L2 {
        if place.subject == Subject::Health { &L2::None } else { &self.l2 }
    }

    /// Stores an entry in memory; with Redis, a "pending" entry only for [`PENDING_IN_MEMORY`]. If a person in the
    /// entry was erased since its call began, removes the entry again and returns false.
    fn remember(&self, place: &CacheSlot, entry: &Arc<Entry>) -> bool {
        let mut entry = Arc::clone(entry);
        if self.nodes().is_some() && entry.pending {
            let age = self.clock.now().saturating_duration_since(entry.stored_at);
            let lifetime = entry.lifetime.min(age + PENDING_IN_MEMORY);
            entry = Arc::new(Entry { lifetime, ..(*entry).clone() });
        }
        self.memory.insert(place.key.clone(), Arc::clone(&entry));
        // An erasure after the insertion removes the entry itself; an earlier one is noticed here.
        let kept = !self.epochs.erased_since(entry.began, &entry.tags);
        if !kept {
            self.memory.forget(&place.key);
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::json_template::Absent;
    use crate::base::json_template::JsonTemplate;
    use crate::iluma::answer::Answer;
    use bytes::Bytes;
    use http::StatusCode;
    use std::collections::BTreeSet;

    const FOUND: &[u8] = br#"{"status":"COMPLETED","id":"1","result":{"is_found":true}}"#;

    fn cache(clock: &Clock) -> (Cache, CacheSlot) {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let settings = config::Cache {
            memory: crate::base::byte_size::ByteSize::mib(1),
            bank_found: minutes(10),
            disk: crate::base::byte_size::ByteSize::kib(0),
            bank_need_review: minutes(10),
            bank_not_found: minutes(5),
            bank_stale_if_error: minutes(1),
            cft_clear: minutes(1),
            cft_match: Duration::ZERO,
            bank_codes: minutes(1),
        };
        let origin = http::Uri::from_static("https://api.iluma.ai");
        let cache = Cache::new(&settings, &origin, &[7; 32], L2Choice::None, clock.clone());
        let place = place(&cache);
        (cache, place)
    }

    fn place(cache: &Cache) -> CacheSlot {
        cache.place(&Scope::shared(&"live".parse().unwrap()), Subject::Bank, "/v1.1/x", b"q")
    }

    fn tags(seed: u8) -> BTreeSet<Tag> {
        BTreeSet::from([Tag::from_bytes(&[seed; 16]).unwrap()])
    }

    fn offer(cache: &Cache, place: &CacheSlot, body: &'static [u8]) -> Option<Arc<Entry>> {
        let body = Bytes::from_static(body);
        let spliced = JsonTemplate::split(&body, Absent::Insert).unwrap_or(JsonTemplate::whole(&body));
        let (status, content_type) = (StatusCode::OK, None);
        let answer = Answer::parse(&body, None);
        cache.offer(place, CacheCandidate { status, content_type, answer: &answer, spliced: &spliced, tags: tags(1) })
    }

    #[test]
    fn an_entry_is_served_until_its_lifetime_ends_and_no_longer() {
        let clock = Clock::adjustable();
        let (cache, place) = cache(&clock);
        assert!(cache.look_up(&place, None).is_none());
        assert!(offer(&cache, &place, FOUND).is_some());
        clock.advance(Duration::from_secs(599));
        let hit = cache.look_up(&place, None).unwrap();
        assert_eq!((hit.age.as_secs(), hit.ttl.as_secs()), (599, 0));
        assert!(cache.look_up(&place, Some(Duration::from_secs(600))).is_some());
        assert!(cache.look_up(&place, Some(Duration::from_secs(598))).is_none());
        clock.advance(Duration::from_secs(1));
        assert!(cache.look_up(&place, None).is_none());
    }

    #[tokio::test]
    async fn a_bank_answer_has_a_time_of_grace() {
        let clock = Clock::adjustable();
        let (cache, place) = cache(&clock);
        let _ = offer(&cache, &place, FOUND);
        clock.advance(Duration::from_secs(600 + 59));
        assert!(cache.look_up(&place, None).is_none());
        assert!(cache.look_up_stale(&place, None, &Budget::of(Duration::ZERO)).await.is_some());
        clock.advance(Duration::from_secs(1));
        assert!(cache.look_up_stale(&place, None, &Budget::of(Duration::ZERO)).await.is_none());
    }

    #[test]
    fn what_is_not_worth_keeping_is_not_kept() {
        let (cache, place) = cache(&Clock::adjustable());
        assert!(offer(&cache, &place, br#"{"status":"FAILED","id":"1"}"#).is_none());
        assert!(offer(&cache, &place, b"not JSON").is_none());
        assert!(cache.look_up(&place, None).is_none());
    }

    #[tokio::test]
    async fn an_answer_that_was_under_way_when_a_person_was_erased_is_not_kept() {
        let (cache, before) = cache(&Clock::adjustable());
        assert!(offer(&cache, &before, FOUND).is_some());
        let removed = cache.change(&Change::Erased(tags(1))).await;
        assert_eq!((removed.memory, removed.left.len()), (1, 0));
        assert!(cache.look_up(&before, None).is_none());
        assert!(offer(&cache, &before, FOUND).is_none());
        let after = place(&cache);
        assert_eq!(cache.change(&Change::Erased(tags(2))).await.memory, 0);
        assert!(offer(&cache, &after, FOUND).is_some(), "another person was erased");
    }

    /// Tests an entry that is read from Redis before its person is erased, and reaches memory afterwards.
    #[tokio::test]
    async fn what_is_remembered_after_its_person_was_erased_is_forgotten_at_once() {
        let (cache, before) = cache(&Clock::adjustable());
        let entry = offer(&cache, &before, FOUND).unwrap();
        cache.change(&Change::Erased(tags(1))).await;
        assert!(!cache.remember(&before, &entry));
        assert!(cache.look_up(&before, None).is_none());
        let later = Arc::new(Entry { began: place(&cache).began, ..(*entry).clone() });
        assert!(cache.remember(&before, &later));
        assert!(cache.look_up(&before, None).is_some());
    }

    #[tokio::test]
    async fn a_purge_leaves_nothing_to_be_found_not_even_what_comes_late() {
        let (cache, before) = cache(&Clock::adjustable());
        let _ = offer(&cache, &before, FOUND);
        assert_eq!(cache.change(&Change::Subject(Subject::Bank)).await.memory, 1);
        let _ = offer(&cache, &before, FOUND);
        assert!(cache.look_up(&place(&cache), None).is_none());
    }

    #[test]
    fn another_upstream_is_not_believed_to_have_said_the_same() {
        let (cache, before) = cache(&Clock::adjustable());
        let _ = offer(&cache, &before, FOUND);
        cache.reload(&cache.lifetimes.load_full(), &http::Uri::from_static("https://api.iluma.ai"));
        assert!(cache.look_up(&place(&cache), None).is_some());
        cache.reload(&cache.lifetimes.load_full(), &http::Uri::from_static("https://other.example"));
        assert!(cache.look_up(&place(&cache), None).is_none());
    }
}
