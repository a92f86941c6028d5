//! Purges and erasures on every node and in Redis.
//!
//! Invariant: once a change is reported as done, every node has applied it, or has lost its lease. A node without its
//! lease serves no watchlist answer from memory.

use super::change_log::{self, Logged, TENANT};
use super::epoch::{Change, Epoch};
use super::membership::{CacheMembership, NodeTaken};
use super::wire;
use crate::base::keyring;
use crate::iluma::person::Tag;
use crate::iluma::subject::Subject;
use crate::redis::{Budget, KeySpace, RedisFailure, scripts::cache as scripts};
use std::collections::BTreeSet;
use std::time::Duration;

/// The largest number of entries in the list of changes. Purges and erasures are rare. If a node has missed more
/// changes than the list contains, it empties its memory.
const MOST_CHANGES: usize = 10_000;
/// The lifetime of a tombstone, the mark of an erased person. While it exists, an answer that names the person is not
/// stored if its call began before the erasure. Every call ends long before the tombstone.
const TOMBSTONE: Duration = Duration::from_secs(3600);

/// Returns the names of the stores that an order can't reach while Redis is out.
pub(super) fn without_redis() -> Vec<String> {
    vec!["redis".to_owned(), "the memory of the other nodes".to_owned()]
}

/// The outcome of a purge, an erasure or a count. For a count, the numbers are those of the entries that would be
/// removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// The number of entries that nodes removed from memory.
    pub memory: u64,
    /// The number of entries that were removed from disk.
    pub disk: u64,
    /// The number of entries that were removed from Redis.
    pub redis: u64,
    /// The nodes' reports on the order; empty for a gateway without Redis, and while Redis is out.
    pub nodes: Vec<NodeTaken>,
    /// The names of the nodes or stores that could not be reached; empty if the order is done.
    pub left: Vec<String>,
}

impl Removed {
    /// Returns the sum of the outcomes of two orders. Each node and each store that is left appears once.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.memory += other.memory;
        self.disk += other.disk;
        self.redis += other.redis;
        self.nodes.extend(other.nodes);
        // If two reports name the same node, the report that is not done sorts first and is kept.
        self.nodes.sort_unstable();
        self.nodes.dedup_by(|later, first| later.name == first.name);
        self.left.extend(other.left);
        self.left.sort_unstable();
        self.left.dedup();
        self
    }
}

/// Applies a change on every node and in Redis.
///
/// # Errors
/// Returns an error if Redis is out. The change may be done in part, and has to be ordered again.
pub(super) async fn carry_out(node: &CacheMembership, change: &Change) -> Result<Removed, RedisFailure> {
    let number = begin(node, change).await?;
    node.heartbeat(&Budget::background()).await?;
    let redis = match change {
        Change::Erased(tags) => erase(node, tags).await?,
        Change::Subject(_) | Change::Tenant(_) | Change::All => sweep(node, scope(change), Sweep::Unlink).await?,
        Change::Registry => 0,
    };
    // A node that is cut off still has its entries in memory and its copy of the keys. After an erasure or a change of
    // keys it counts as not done.
    let strictly = matches!(change, Change::Erased(_) | Change::Registry);
    taken(node, number, strictly, redis).await
}

/// Counts the entries that a purge would remove, on every node and in Redis. Nothing is removed, and no epoch changes.
///
/// # Errors
/// Returns an error if Redis is out.
pub(super) async fn count(node: &CacheMembership, change: &Change) -> Result<Removed, RedisFailure> {
    let number = append(node, &Logged::Count(change.clone()), &[]).await?;
    node.heartbeat(&Budget::background()).await?;
    let redis = sweep(node, scope(change), Sweep::Count).await?;
    taken(node, number, true, redis).await
}

/// Waits until the nodes have applied the change or the count with this number. Returns their reports and the numbers
/// of entries; `redis` is the number in Redis. If `strictly`, a node that has only lost its lease is not done.
async fn taken(node: &CacheMembership, number: u64, strictly: bool, redis: u64) -> Result<Removed, RedisFailure> {
    let nodes = node.applied_by_all(number, strictly).await?;
    let left = nodes.iter().filter(|node| !node.is_done).map(|node| format!("node {}", node.name)).collect();
    let mut command = redis::cmd("GET");
    let command = command.arg(node.keys().cache_removed(number));
    let memory: Option<u64> = node.redis().command(&Budget::background(), command).await?;
    Ok(Removed { memory: memory.unwrap_or(0), redis, nodes, left, ..Removed::default() })
}

async fn begin(node: &CacheMembership, change: &Change) -> Result<u64, RedisFailure> {
    let field = |name: String| (name, keyring::random::<16>());
    let fields: Vec<(String, Epoch)> = match change {
        Change::Subject(subject) => vec![field(subject.as_str().to_owned())],
        Change::Tenant(tenant) => vec![field(format!("{TENANT}{tenant}"))],
        Change::All => Subject::ALL.map(|subject| field(subject.as_str().to_owned())).to_vec(),
        Change::Erased(_) | Change::Registry => Vec::new(),
    };
    append(node, &Logged::Change(change.clone()), &fields).await
}

/// Appends an entry to the list of changes, and sets `epochs`, pairs of a field's name and its new epoch. For an
/// erasure it also sets a tombstone for each person. Returns the number of the entry.
async fn append(node: &CacheMembership, entry: &Logged, epochs: &[(String, Epoch)]) -> Result<u64, RedisFailure> {
    let keys = node.keys();
    let mut script = scripts::BEGIN_CHANGE.key(keys.cache_epochs());
    script.key(keys.cache_number()).key(keys.cache_changes());
    if let Logged::Change(Change::Erased(tags)) = entry {
        for tag in tags {
            script.key(keys.cache_tombstone(tag));
        }
    }
    script.arg(change_log::write(entry)).arg(MOST_CHANGES).arg(wire::millis(TOMBSTONE));
    script.arg(keys.changes_channel());
    for (name, epoch) in epochs {
        script.arg(name).arg(epoch);
    }
    node.redis().script(&Budget::background(), &script).await
}

/// Removes the entries in Redis that name one of these persons. For each tag an index in Redis lists the entries that
/// name the person. Returns the number of removed entries.
async fn erase(node: &CacheMembership, tags: &BTreeSet<Tag>) -> Result<u64, RedisFailure> {
    let mut removed = 0;
    let mut script = scripts::ERASE_TAGGED.prepare_invoke();
    for tag in tags {
        script.key(node.keys().cache_tag(tag));
    }
    loop {
        let (filed, unlinked): (i64, u64) = node.redis().script(&Budget::background(), &script).await?;
        removed += unlinked;
        match filed {
            0 => return Ok(removed),
            // Another program's value replaced the index. The indexed entries are unknown then, and may name a person
            // who is to be erased: all entries are removed.
            ..0 => removed += sweep(node, ("*", "*"), Sweep::Unlink).await?,
            _ => {}
        }
    }
}

/// Returns the subject and the tenant of the entries that a purge removes, as patterns; `*` means any.
fn scope(change: &Change) -> (&str, &str) {
    match change {
        Change::Subject(subject) => (subject.as_str(), "*"),
        Change::Tenant(tenant) => ("*", tenant.as_str()),
        Change::All | Change::Erased(_) | Change::Registry => ("*", "*"),
    }
}

/// The treatment of the entries that a sweep finds in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sweep {
    /// The entries are removed. After a purge this only frees memory: the epoch of the entries has ended, so no look-up
    /// finds them.
    Unlink,
    /// The entries are counted.
    Count,
}

/// Removes or counts the entries in Redis whose subject and tenant match these patterns. Returns the number of entries.
/// An entry and its copy count once.
async fn sweep(node: &CacheMembership, (subject, private): (&str, &str), sweep: Sweep) -> Result<u64, RedisFailure> {
    let pattern = node.keys().cache_entries(subject, private);
    let (mut cursor, mut number) = (0_u64, 0_u64);
    loop {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1000);
        let (next, found): (u64, Vec<Vec<u8>>) = node.redis().command(&Budget::background(), &command).await?;
        number += found.iter().filter(|key| !KeySpace::is_cache_copy(key)).count() as u64;
        if sweep == Sweep::Unlink && !found.is_empty() {
            let mut command = redis::cmd("UNLINK");
            let _: u64 = node.redis().command(&Budget::background(), command.arg(found)).await?;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(number);
        }
    }
}
