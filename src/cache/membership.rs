//! The nodes that share the cache, and the changes that each of them has applied.
//!
//! A change gets a number and an entry in a list in Redis. Nodes receive it at once by a message, and read the list
//! every second, so a lost message costs only that second. With each heartbeat a node records the changes that it has
//! applied, and gets a lease of 5 s. The lease ends by the node's own clock before it ends by Redis' clock. From then
//! on the node serves no watchlist answer from memory until it has caught up.
//!
//! Numbers only grow, even if Redis loses all or some of its data, because the first number is the time of Redis'
//! clock. So a node that gets fewer changes than there are new numbers knows that it has missed some.
//!
//! The Redis keys of this file are used every second and do not expire, so a Redis that evicts keys evicts them last.
//! An exception are the counts of removed entries, which expire soon after an order.
//!
//! Invariants: a node's lease ends by the node's own clock before it ends in the membership; a node that missed changes
//! that are not in the list empties its memory.

use super::change_log::{self, Logged};
use super::epoch::{Change, Epochs};
use super::memory::Memory;
use super::redis_cache::RedisCache;
use super::wire;
use crate::base::clock::Clock;
use crate::base::keyring;
use crate::base::tasks::Tasks;
use crate::iluma::subject::Subject;
use crate::redis::{Budget, KeySpace, RedisClient, RedisFailure, scripts::cache as scripts};
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

/// The time after a heartbeat for which a node may serve watchlist answers from memory.
const LEASE: Duration = Duration::from_secs(5);
/// The interval of heartbeats: several may fail within a lease.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The time without a heartbeat after which a node is removed from the membership.
const GONE: Duration = Duration::from_secs(600);

/// This node as one of the nodes that share the cache.
#[derive(Debug)]
pub(super) struct CacheMembership {
    l2: Arc<RedisCache>,
    pub(super) memory: Arc<Memory>,
    epochs: Arc<Epochs>,
    clock: Clock,
    /// The node's name, a colon, and its identity. The text stays the same after a restart. Otherwise other nodes would
    /// wait for the earlier process of this node.
    id: String,
    /// The nanoseconds from `origin` to the beginning of the last successful heartbeat; 0 if there was none.
    confirmed: AtomicU64,
    origin: Instant,
    catching_up: tokio::sync::Mutex<()>,
    /// Updates this node's copy of the registry of the teams' keys.
    pub(super) follow: OnceLock<Follow>,
}

/// The function that updates this node's copy of the registry of the teams' keys, before the node confirms a change of
/// the registry. Its result is true if the copy is up to date.
pub struct Follow(pub Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>);

impl std::fmt::Debug for Follow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Follow(…)")
    }
}

/// The identity by which the other nodes know this node.
#[derive(Debug, Clone, Copy)]
pub struct NodeIdentity<'a> {
    /// The name that operators read.
    pub name: &'a str,
    /// The identity, which is stored in the node's own database. It has no colon.
    pub id: &'a str,
}

impl NodeIdentity<'_> {
    /// Returns the text by which the membership lists the node: its name, a colon, and its identity.
    pub(super) fn member(&self) -> String {
        format!("{}:{}", self.name, self.id)
    }
}

/// A node's report on an order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeTaken {
    /// The node's name.
    pub name: String,
    /// True if the node has applied the order. After a purge it is also true if the node has lost its lease.
    pub is_done: bool,
}

/// Returns the node's name from `member`, which is the name, a colon, and the node's identity. Operators read this
/// name.
fn name_of(member: &str) -> &str {
    member.rsplit_once(':').map_or(member, |(name, _)| name)
}

/// The news that a node reads from Redis: the number of the newest entry in the list of changes, all epochs, and the
/// entries that are new to this node, each with its number.
type News = (u64, BTreeMap<String, Vec<u8>>, Vec<(Vec<u8>, u64)>);

impl CacheMembership {
    /// Makes the membership of the node `id`, which has applied nothing yet.
    pub(super) fn new(l2: Arc<RedisCache>, memory: Arc<Memory>, epochs: Arc<Epochs>, id: String, clock: Clock) -> Self {
        let (origin, catching_up) = (clock.now(), tokio::sync::Mutex::default());
        let (confirmed, follow) = (AtomicU64::new(0), OnceLock::new());
        Self { l2, memory, epochs, clock, id, confirmed, origin, catching_up, follow }
    }

    /// Returns true if the last successful heartbeat began less than 5 s ago. With that heartbeat this node had applied
    /// all changes.
    pub(super) fn is_current(&self) -> bool {
        let confirmed = self.confirmed.load(Ordering::Acquire);
        let now = self.clock.now().saturating_duration_since(self.origin);
        confirmed != 0 && now.saturating_sub(Duration::from_nanos(confirmed)) < LEASE
    }

    /// Sends a heartbeat every second, after every message about a change, and as soon as Redis is back. Also wakes the
    /// waiters for other nodes' calls. At `stop` this node leaves the membership.
    pub(super) fn keep(self: &Arc<Self>, tasks: &Tasks, stop: CancellationToken) {
        let (node, ending) = (Arc::clone(self), stop.clone());
        let mut changed = self.redis().listen(&self.keys().changes_channel());
        let results = self.redis().listen(&self.keys().results_channel());
        let mut up = self.redis().watch();
        tasks.spawn(async move {
            let work = async {
                loop {
                    // Without Redis there is no news, and its return is notified.
                    if node.redis().is_up() {
                        let _: Result<(), RedisFailure> = node.heartbeat(&Budget::of(HEARTBEAT)).await;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(HEARTBEAT) => {}
                        _ = changed.recv() => {}
                        _ = up.changed() => node.l2.waiters.wake_all(),
                    }
                }
            };
            let _: Option<()> = ending.run_until_cancelled(work).await;
            node.leave().await;
        });
        let node = Arc::clone(self);
        tasks.spawn_until(&stop, async move { node.hear_results(results).await });
    }

    /// Applies the changes of other nodes if this node's lease has ended. A request waits for this before it reads
    /// memory.
    pub(super) async fn confirm(&self, budget: &Budget) {
        if !self.is_current() {
            let _: Result<(), RedisFailure> = self.heartbeat(budget).await;
        }
    }

    /// Applies every change that this node does not know yet, and records in Redis that this node has applied them.
    ///
    /// # Errors
    /// Returns an error if Redis is out, if it answers with an unexpected value, or if this node's copy of the registry
    /// can't be updated.
    pub(super) async fn heartbeat(&self, budget: &Budget) -> Result<(), RedisFailure> {
        // Another heartbeat may be running, and may take longer than this one's budget.
        let Some(_turn) = budget.wait(self.catching_up.lock()).await else { return Err(RedisFailure::Out) };
        let began = self.clock.now().saturating_duration_since(self.origin);
        let known = self.epochs.last();
        let mut script = scripts::CATCH_UP.key(self.keys().cache_epochs());
        script.key(self.keys().cache_number()).key(self.keys().cache_changes());
        script.arg(known);
        for name in Subject::ALL.map(Subject::as_str).into_iter().chain([change_log::ERA]) {
            script.arg(name).arg(&keyring::random::<16>());
        }
        let news: News = self.redis().script(budget, &script).await?;
        let number = news.0;
        if self.concerns_registry(known, &news)
            && let Some(follow) = self.follow.get()
            && budget.wait((follow.0)()).await != Some(true)
        {
            return Err(RedisFailure::Out);
        }
        let removed = self.apply(known, news)?;
        let mut script = scripts::HEARTBEAT.key(self.keys().cache_membership());
        script.arg(&self.id).arg(number);
        for (number, count) in removed {
            script.key(self.keys().cache_removed(number)).arg(count);
        }
        let _: i64 = self.redis().script(budget, &script).await?;
        // The time was taken before the query, so this node's lease ends before the one in Redis.
        self.confirmed.store(u64::try_from(began.as_nanos()).unwrap_or(u64::MAX).max(1), Ordering::Release);
        Ok(())
    }

    /// Returns true if the registry of the teams' keys has changed since the change `known`. Also returns true if this
    /// node missed some changes, because the registry may be among them.
    fn concerns_registry(&self, known: u64, (number, _, changes): &News) -> bool {
        number.checked_sub(known) != Some(changes.len() as u64)
            || changes.iter().any(|(entry, _)| change_log::read(entry) == Some(Logged::Change(Change::Registry)))
    }

    /// Applies the news from Redis. `known` is the number of the last change that this node knew. Returns pairs of a
    /// list entry's number and a number of cache entries in memory: those that a change removed, or that a count
    /// counted. Pairs with zero are left out. Returns an error if an epoch is missing or damaged.
    fn apply(&self, known: u64, (number, fields, changes): News) -> Result<Vec<(u64, u64)>, RedisFailure> {
        let Some(table) = change_log::read_epochs(&fields) else { return Err(RedisFailure::Unexpected) };
        let mut removed = Vec::new();
        let era = self.epochs.table().era;
        if table.era != era || number.checked_sub(known) != Some(changes.len() as u64) {
            // These are the first news; or Redis has lost some data; or this node missed more than the list contains.
            self.memory.clear();
            self.epochs.forget(change_log::unknown_to(number, &changes));
        }
        for (entry, number) in &changes {
            let count = match change_log::read(entry) {
                Some(Logged::Change(change)) => {
                    if let Change::Erased(tags) = &change {
                        self.epochs.erase(*number, tags);
                    }
                    self.memory.remove(&change)
                }
                Some(Logged::Count(change)) => self.memory.count(&change),
                None => continue,
            };
            if count > 0 {
                removed.push((*number, count));
            }
        }
        self.epochs.set(table);
        self.epochs.know(number);
        Ok(removed)
    }

    /// Waits until every node has applied the change with this number or has lost its lease, 5 s at most. Returns the
    /// report of each node. If `strictly`, a node that has only lost its lease counts as not done, because its memory
    /// may still have the entries.
    ///
    /// # Errors
    /// Returns an error if Redis is out.
    pub(super) async fn applied_by_all(&self, change: u64, strictly: bool) -> Result<Vec<NodeTaken>, RedisFailure> {
        // A node without the change sent its last heartbeat before the change began, so its lease has ended by then.
        let end = tokio::time::Instant::now() + LEASE;
        loop {
            let mut script = scripts::MEMBERSHIP.key(self.keys().cache_membership());
            let nodes: Vec<(String, u64, u64)> =
                self.redis().script(&Budget::of(2 * HEARTBEAT), script.arg(wire::millis(GONE))).await?;
            let is_behind = |(_, applied, _): &(String, u64, u64)| *applied < change;
            let is_leased = |(_, _, ago): &(String, u64, u64)| *ago < wire::millis(LEASE);
            let is_awaited = nodes.iter().any(|node| is_behind(node) && is_leased(node));
            if !is_awaited || tokio::time::Instant::now() >= end {
                // A node whose lease has ended serves no watchlist answers, but a node that is only cut off from Redis
                // still has the other entries in its memory.
                let is_done = |node: &_| !is_behind(node) || !(strictly || is_leased(node));
                let taken =
                    |node: &(String, u64, u64)| NodeTaken { name: name_of(&node.0).to_owned(), is_done: is_done(node) };
                return Ok(nodes.iter().map(taken).collect());
            }
            // Operators' orders are rare, a few times a year, so polling is good enough.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) fn redis(&self) -> &RedisClient {
        &self.l2.redis
    }

    pub(super) fn keys(&self) -> &KeySpace {
        self.l2.redis.keys()
    }

    /// Wakes the waiters for calls that have ended on other nodes, and removes the "pending" entries of these calls
    /// from memory. Runs until the process ends.
    async fn hear_results(&self, mut results: broadcast::Receiver<Vec<u8>>) {
        loop {
            match results.recv().await {
                Ok(message) => {
                    if let Some(key) = self.l2.landed(&message) {
                        self.memory.end_pending(&key);
                    }
                }
                Err(RecvError::Lagged(_)) => self.l2.waiters.wake_all(),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Removes this node from the membership, so that no other node waits for it any more.
    async fn leave(&self) {
        let mut command = redis::cmd("HDEL");
        let command = command.arg(self.keys().cache_membership()).arg(&self.id);
        let _: Result<u64, RedisFailure> = self.redis().command(&Budget::of(HEARTBEAT), command).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::byte_size::ByteSize;
    use crate::base::keyring::Keyring;
    use crate::config::RedisTarget;

    /// Tests that a request which needs a heartbeat waits only for its own budget, even if another heartbeat is slow.
    #[tokio::test]
    async fn a_request_waits_for_another_heartbeat_within_its_budget() {
        let target = RedisTarget::of_url("state.redis.url", "redis://127.0.0.1:1/".into(), None);
        let redis = RedisClient::new(&target, KeySpace::new(&[1; 32]), &[]).unwrap();
        let (epochs, memory) = (Arc::new(Epochs::new()), Arc::new(Memory::new(ByteSize::mib(1))));
        let l2 = RedisCache::new(redis, Keyring::of_bytes(&[]), Arc::clone(&epochs), Clock::system());
        let node = CacheMembership::new(Arc::new(l2), memory, epochs, "a".into(), Clock::system());
        let _other = node.catching_up.lock().await;
        tokio::time::pause();
        let (budget, began) = (Budget::of(Duration::from_millis(50)), tokio::time::Instant::now());
        node.confirm(&budget).await;
        node.confirm(&budget).await;
        assert!(began.elapsed() <= Duration::from_millis(52), "{:?}", began.elapsed());
        assert_eq!(budget.left(), Duration::ZERO);
    }
}
