//! What is remembered of upstream's answers.
//!
//! Two levels: entries in this process, and in Redis where nodes share. Invariants: a [`CacheSlot`] can't be had without the
//! tenant's [`Scope`]; an entry is never served past its lifetime (a bank answer while upstream fails aside, and then it says
//! so); at most one call per key is under way in this process ([`SingleFlight`]), and over all nodes while Redis is there
//! ([`Lease`]); stored bytes are never written anew, only the caller's reference is put in its place.

mod entry;
mod epoch;
mod key;
mod memory;
mod nodes;
mod policy;
mod redis;
mod single_flight;
mod wire;

pub use crate::iluma::subject::Subject;
pub use entry::Entry;
pub use epoch::Change;
pub use key::{Key, Keys, Scope};
pub use nodes::Removed;
pub use redis::{Counts, Lease, SharedResult};
pub use single_flight::{Follower, Leader, Role, SingleFlight};

use crate::base::clock::Clock;
use crate::base::json_template::JsonTemplate;
use crate::base::keyring::Keyring;
use crate::base::name::{AccountName, TenantName};
use crate::base::tasks::Tasks;
use crate::config;
use crate::iluma::answer::Answer;
use crate::iluma::person::Tag;
use crate::redis::client::{Budget, RedisClient};
use arc_swap::ArcSwap;
use bytes::Bytes;
use epoch::Epochs;
use http::{HeaderValue, StatusCode};
use memory::Memory;
use nodes::Nodes;
use redis::{Claimed, Names, RedisCache};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a lease is renewed while its call is under way.
pub const LEASE_RENEWAL: Duration = redis::RENEWAL;

/// How long memory may say that a request is pending without asking Redis, where the word that it ended may be lost.
const PENDING_IN_MEMORY: Duration = Duration::from_secs(5);

/// Pending requests whose place is known here. At 50 calls a second, all of which are pending for their 10 minutes.
const MOST_PENDING: u64 = 30_000;

/// Remembered answers.
#[derive(Debug)]
pub struct Cache {
    keys: Keys,
    epochs: Arc<Epochs>,
    memory: Arc<Memory>,
    /// Where the answer to a pending request will belong, by upstream's id.
    pending: moka::sync::Cache<Key, Arc<Awaited>>,
    shared: Option<Shared>,
    lifetimes: ArcSwap<config::Cache>,
    clock: Clock,
}

/// What there is beside memory where nodes share.
#[derive(Debug)]
struct Shared {
    level2: Arc<RedisCache>,
    nodes: Arc<Nodes>,
}

/// Where the answer to a question belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSlot {
    /// Names the entry, and the call under way for it.
    pub key: Key,
    /// What it is about.
    pub subject: Subject,
    /// The team that it serves alone, if it does.
    private: Option<TenantName>,
    /// The last change that was known when the question was asked: a later one may forbid to keep the answer.
    began: u64,
}

/// Where the answer to a pending request belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// The place of the question.
    pub place: CacheSlot,
    /// The path at which it was asked; its answer stands below, by the id.
    pub path: String,
    /// Whom the question and its first answer named.
    pub tags: BTreeSet<Tag>,
}

/// An answer of upstream's that may be worth keeping.
#[derive(Debug)]
pub struct CacheCandidate<'a> {
    /// Upstream's status.
    pub status: StatusCode,
    /// Upstream's content type.
    pub content_type: Option<&'a HeaderValue>,
    /// Upstream's answer, read.
    pub answer: &'a Answer,
    /// The same, ready for other callers.
    pub spliced: &'a JsonTemplate,
    /// Whom question and answer name.
    pub tags: BTreeSet<Tag>,
}

/// An entry that may be served.
#[derive(Debug)]
pub struct Hit {
    /// The entry.
    pub entry: Arc<Entry>,
    /// How long ago it was stored.
    pub age: Duration,
    /// How long it may still be served.
    pub ttl: Duration,
}

/// Who is to ask upstream.
#[derive(Debug)]
pub enum LeaseDecision {
    /// Nobody: the answer is there.
    Hit(Hit),
    /// Nobody: another node has asked, and its answer is not one to keep.
    FetchResult(SharedResult),
    /// This node, and the others wait for it.
    Lead(Lease),
    /// This node, without regard to others: Redis is out, or none is there. What Redis may have given all the same has to
    /// be [disowned](Lease::disown).
    Alone(Option<Lease>),
}

impl Cache {
    /// An empty cache whose keys derive from `root`, for answers of the upstream at `origin`. With a `link` it shares what
    /// it has with other nodes.
    #[must_use]
    pub fn new(
        settings: &config::Cache,
        origin: &http::Uri,
        root: &[u8; 32],
        shared: Option<(RedisClient, Keyring, String)>,
        clock: Clock,
    ) -> Self {
        let (epochs, memory) = (Arc::new(Epochs::new()), Arc::new(Memory::new(settings.memory)));
        let shared = shared.map(|(link, vault, node)| {
            let level2 = Arc::new(RedisCache::new(link, root, vault, Arc::clone(&epochs), clock.clone()));
            let nodes = Nodes::new(Arc::clone(&level2), Arc::clone(&memory), Arc::clone(&epochs), node, clock.clone());
            Shared { level2, nodes: Arc::new(nodes) }
        });
        Self {
            keys: Keys::new(root, origin),
            epochs,
            memory,
            pending: moka::sync::Cache::builder()
                .max_capacity(MOST_PENDING)
                .time_to_live(policy::PENDING_LIFETIME)
                .build(),
            shared,
            lifetimes: ArcSwap::from_pointee(settings.clone()),
            clock,
        }
    }

    /// The channels of Redis that the cache listens to.
    #[must_use]
    pub fn channels(root: &[u8; 32]) -> Vec<String> {
        let names = Names::of(root);
        vec![names.landed_channel(), names.changed_channel()]
    }

    /// Keeps up with the other nodes until `stop`.
    pub fn keep(&self, tasks: &Tasks, stop: CancellationToken) {
        if let Some(shared) = &self.shared {
            shared.nodes.keep(tasks, stop);
        }
    }

    /// Takes over other lifetimes, for what is stored from now on, and another upstream, of whom nothing is stored yet. The
    /// bound of memory stays as it was at the start.
    pub fn reload(&self, settings: &config::Cache, origin: &http::Uri) {
        self.lifetimes.store(Arc::new(settings.clone()));
        if self.keys.answer_for(origin) {
            self.memory.clear();
        }
    }

    /// Where the answer to a question belongs.
    #[must_use]
    pub fn place(&self, scope: &Scope<'_>, subject: Subject, target: &str, parameters: &[u8]) -> CacheSlot {
        // The number first: a change in between makes the key one that is never found, and not an answer one that is kept.
        let began = self.epochs.last();
        let key = self.keys.key(&self.epochs.table(), scope, subject, target, parameters);
        CacheSlot { key, subject, private: scope.private_to(), began }
    }

    /// Whether [`Cache::confirm`] is due before memory is asked: this node may have missed a change, and can find out.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| !shared.nodes.is_current() && shared.level2.link.is_up())
    }

    /// Catches up with changes that were made on other nodes.
    pub async fn confirm(&self, budget: &Budget) {
        if let Some(shared) = &self.shared {
            shared.nodes.confirm(budget).await;
        }
    }

    /// The entry in memory, if it may still be served and is no older than `max_age`.
    #[must_use]
    pub fn look_up(&self, place: &CacheSlot, max_age: Option<Duration>) -> Option<Hit> {
        // A purge may have passed a node by that has not looked for so long, and watchlists are what purges are for.
        let blind = || self.shared.as_ref().is_some_and(|shared| !shared.nodes.is_current());
        if place.subject == Subject::Cft && blind() {
            return None;
        }
        self.fresh(self.memory.look_up(&place.key)?, max_age)
    }

    /// The entry in Redis, likewise; it is in memory from then on.
    pub async fn look_further(&self, place: &CacheSlot, max_age: Option<Duration>, budget: &Budget) -> Option<Hit> {
        let shared = self.shares(place)?;
        let entry = shared.level2.look_up(place, budget).await?;
        let hit = self.fresh(Arc::new(entry), max_age)?;
        self.remember(place, &hit.entry).then_some(hit)
    }

    /// A bank answer that is past its lifetime, for when upstream fails.
    pub async fn look_up_stale(&self, place: &CacheSlot, budget: &Budget) -> Option<Hit> {
        let served = |entry: Arc<Entry>| {
            let age = self.clock.now().saturating_duration_since(entry.stored_at);
            let spare = (entry.lifetime + entry.grace).checked_sub(age).filter(|spare| !spare.is_zero())?;
            (!entry.grace.is_zero()).then_some(Hit { entry, age, ttl: spare })
        };
        if let Some(hit) = self.memory.look_up(&place.key).and_then(served) {
            return Some(hit);
        }
        if self.lifetimes.load().bank_stale_if_error.is_zero() {
            return None;
        }
        served(Arc::new(self.shares(place)?.level2.look_up_stale(place, budget).await?))
    }

    fn fresh(&self, entry: Arc<Entry>, max_age: Option<Duration>) -> Option<Hit> {
        let age = self.clock.now().saturating_duration_since(entry.stored_at);
        let ttl = entry.lifetime.checked_sub(age).filter(|ttl| !ttl.is_zero())?;
        max_age.is_none_or(|most| age <= most).then_some(Hit { entry, age, ttl })
    }

    /// Settles with the other nodes who asks upstream, or waits for the answer of who does, `patience` at most. Redis itself
    /// is waited for within `budget`.
    pub async fn claim(&self, place: &CacheSlot, budget: &Budget, patience: Duration) -> LeaseDecision {
        let Some(shared) = self.shares(place) else { return LeaseDecision::Alone(None) };
        let (mut waited, mut cleared) = (false, false);
        let end = tokio::time::Instant::now() + patience;
        loop {
            let waits = shared.level2.wait_for(&place.key);
            let left = match shared.level2.claim(place, waited, budget).await {
                Claimed::Entry(entry) => {
                    let hit = self.fresh(Arc::new(entry), None).filter(|hit| self.remember(place, &hit.entry));
                    return hit.map_or(LeaseDecision::Alone(None), LeaseDecision::Hit);
                }
                Claimed::FetchResult(told) => return LeaseDecision::FetchResult(told),
                Claimed::Lead(lease) => return LeaseDecision::Lead(lease),
                // What was of no use, damaged or past its lifetime, is out of the way now.
                Claimed::Nothing if !cleared => {
                    cleared = true;
                    continue;
                }
                Claimed::Nothing => return LeaseDecision::Alone(None),
                Claimed::Out(doubtful) => return LeaseDecision::Alone(Some(doubtful)),
                Claimed::Wait(left) => left,
            };
            if tokio::time::Instant::now() >= end {
                return LeaseDecision::Alone(None);
            }
            waited = true;
            let lapsed = (tokio::time::Instant::now() + left).min(end);
            tokio::select! {
                () = waits.woken() => {}
                () = tokio::time::sleep_until(lapsed) => {}
                () = shared.level2.link.out(budget) => return LeaseDecision::Alone(None),
            }
        }
    }

    /// Keeps an answer in memory if it is worth keeping, and gives back what is kept.
    #[must_use]
    pub fn offer(&self, place: &CacheSlot, offer: CacheCandidate<'_>) -> Option<Arc<Entry>> {
        let kept = policy::kept(place.subject, offer.status, offer.answer, &self.lifetimes.load())?;
        let tags: Box<[Tag]> = offer.tags.into_iter().collect();
        if self.epochs.erased_since(place.began, &tags) {
            return None;
        }
        // Copied, as the body was: see `JsonTemplate::whole`.
        let content_type = offer.content_type.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
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

    /// Shares with other nodes what is kept, and ends the lease.
    pub async fn publish(&self, place: &CacheSlot, entry: &Entry, account: Option<&AccountName>, lease: Option<Lease>) {
        let Some(shared) = self.shares(place) else {
            if let Some(lease) = lease {
                lease.release().await;
            }
            return;
        };
        if !shared.level2.store(place, entry, lease.as_ref()).await
            && self.epochs.erased_since(entry.began, &entry.tags)
        {
            self.memory.forget(&place.key);
        }
        if let (true, Some(id), Some(account)) = (entry.pending, &entry.id, account) {
            let name = self.keys.pending(account, id);
            if let Some(awaited) = self.pending.get(&name) {
                shared.level2.note(&name, &wire::write_awaited(&awaited), entry.lifetime).await;
            }
        }
    }

    /// Keeps where the answer to a pending request will belong: what is asked there is known to be on its way.
    pub fn await_result(&self, account: &AccountName, id: &str, place: &CacheSlot, path: &str, entry: &Entry) {
        let tags = entry.tags.iter().copied().collect();
        let awaited = Awaited { place: place.clone(), path: path.to_owned(), tags };
        self.pending.insert(self.keys.pending(account, id), Arc::new(awaited));
    }

    /// Where the answer to a pending request belongs; none if nobody waits for it.
    pub async fn awaited(&self, account: &AccountName, id: &str, budget: &Budget) -> Option<Awaited> {
        let name = self.keys.pending(account, id);
        if let Some(known) = self.pending.get(&name) {
            return Some((*known).clone());
        }
        wire::read_awaited(&self.shared.as_ref()?.level2.noted(&name, budget).await?)
    }

    /// Ends entries before their time, on every node and in Redis. An answer that is under way is not kept by those whom the
    /// change concerns.
    pub async fn change(&self, change: &Change) -> Removed {
        let Some(shared) = &self.shared else {
            self.epochs.change(change);
            return Removed { memory: self.memory.remove(change), redis: 0, left: Vec::new() };
        };
        match shared.nodes.change(change).await {
            Ok(removed) => removed,
            // What can be done is done; the rest has to be ordered again.
            Err(_) => {
                let left = vec!["redis".to_owned(), "the memory of the other nodes".to_owned()];
                Removed { memory: self.memory.remove(change), redis: 0, left }
            }
        }
    }

    /// Entries and bytes held in memory, for metrics.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        self.memory.size()
    }

    /// How Redis served the cache.
    #[must_use]
    pub fn counts(&self) -> Option<Arc<Counts>> {
        self.shared.as_ref().map(|shared| Arc::clone(&shared.level2.counts))
    }

    /// Upstream's health is each node's own, and gone in seconds.
    fn shares(&self, place: &CacheSlot) -> Option<&Shared> {
        self.shared.as_ref().filter(|_| place.subject != Subject::Health)
    }

    /// Says whether it is kept: it is not if somebody in it was erased since the call began that brought it.
    fn remember(&self, place: &CacheSlot, entry: &Arc<Entry>) -> bool {
        let mut entry = Arc::clone(entry);
        if self.shared.is_some() && entry.pending {
            let age = self.clock.now().saturating_duration_since(entry.stored_at);
            let lifetime = entry.lifetime.min(age + PENDING_IN_MEMORY);
            entry = Arc::new(Entry { lifetime, ..(*entry).clone() });
        }
        self.memory.insert(place.key.clone(), Arc::clone(&entry));
        // An erasure that begins from here on finds the entry, and one that came before is found here.
        let kept = !self.epochs.erased_since(entry.began, &entry.tags);
        if !kept {
            self.memory.forget(&place.key);
        }
        kept
    }
}

/// What the cache did for a request, as `cache-status` tells it (RFC 9211).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Served from the cache.
    Hit {
        /// How long the entry may still be served.
        ttl: Duration,
    },
    /// Asked upstream, because nothing was there.
    Miss {
        /// Whether the answer was kept.
        stored: bool,
    },
    /// Served from the cache past its lifetime, because upstream failed.
    Stale {
        /// How long ago its lifetime ended.
        by: Duration,
    },
    /// Waited for a call that another request had begun.
    Collapsed,
    /// SharedResult that an identical request is still pending upstream.
    Pending,
    /// Asked upstream, because the request's directives wanted it.
    Directed {
        /// Whether the answer was kept.
        stored: bool,
    },
    /// The cache was left out of it.
    Bypass {
        /// Why.
        detail: &'static str,
    },
}

impl Report {
    /// The value of `cache-status`.
    #[must_use]
    pub fn header(self) -> HeaderValue {
        match self {
            Self::Hit { ttl } => {
                let mut value = Vec::with_capacity(40);
                value.extend_from_slice(b"iluma-gateway; hit; ttl=");
                value.extend_from_slice(itoa::Buffer::new().format(begun(ttl)).as_bytes());
                HeaderValue::from_maybe_shared(Bytes::from(value))
                    .unwrap_or(HeaderValue::from_static("iluma-gateway; hit"))
            }
            // RFC 9211, section 2.4: what is stale has a ttl below nothing.
            Self::Stale { by } => HeaderValue::try_from(format!("iluma-gateway; hit; ttl=-{}", by.as_secs().max(1)))
                .unwrap_or(HeaderValue::from_static("iluma-gateway; hit")),
            Self::Pending => HeaderValue::from_static("iluma-gateway; fwd=uri-miss; collapsed; detail=pending"),
            Self::Miss { stored: true } => HeaderValue::from_static("iluma-gateway; fwd=uri-miss; stored"),
            Self::Miss { stored: false } => HeaderValue::from_static("iluma-gateway; fwd=uri-miss"),
            Self::Collapsed => HeaderValue::from_static("iluma-gateway; fwd=uri-miss; collapsed"),
            Self::Directed { stored: true } => HeaderValue::from_static("iluma-gateway; fwd=request; stored"),
            Self::Directed { stored: false } => HeaderValue::from_static("iluma-gateway; fwd=request"),
            Self::Bypass { detail } => HeaderValue::try_from(format!("iluma-gateway; fwd=bypass; detail={detail}"))
                .unwrap_or(HeaderValue::from_static("iluma-gateway; fwd=bypass")),
        }
    }
}

/// Seconds, one that has begun among them: with `age`, which counts those that are over, they make the lifetime.
fn begun(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::json_template::Absent;

    const FOUND: &[u8] = br#"{"status":"COMPLETED","id":"1","result":{"is_found":true}}"#;

    fn cache(clock: &Clock) -> (Cache, CacheSlot) {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let settings = config::Cache {
            memory: crate::base::byte_size::ByteSize::mib(1),
            bank_found: minutes(10),
            bank_not_found: minutes(5),
            bank_stale_if_error: minutes(1),
            cft_clear: minutes(1),
            cft_match: Duration::ZERO,
            bank_codes: minutes(1),
        };
        let origin = http::Uri::from_static("https://api.iluma.ai");
        let cache = Cache::new(&settings, &origin, &[7; 32], None, clock.clone());
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
        assert!(cache.look_up_stale(&place, &Budget::of(Duration::ZERO)).await.is_some());
        clock.advance(Duration::from_secs(1));
        assert!(cache.look_up_stale(&place, &Budget::of(Duration::ZERO)).await.is_none());
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
        assert!(offer(&cache, &after, FOUND).is_some(), "somebody else was erased");
    }

    /// As an entry that was read from Redis before its person was erased, and comes to memory after.
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

    #[test]
    fn the_report_reads_as_rfc_9211_has_it() {
        let week = Report::Hit { ttl: Duration::from_secs(604_800) };
        assert_eq!(week.header(), "iluma-gateway; hit; ttl=604800");
        assert_eq!(Report::Miss { stored: true }.header(), "iluma-gateway; fwd=uri-miss; stored");
        assert_eq!(Report::Stale { by: Duration::from_secs(9) }.header(), "iluma-gateway; hit; ttl=-9");
        assert_eq!(Report::Collapsed.header(), "iluma-gateway; fwd=uri-miss; collapsed");
        assert_eq!(Report::Bypass { detail: "magic-reply" }.header(), "iluma-gateway; fwd=bypass; detail=magic-reply");
    }
}
