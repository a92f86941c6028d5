//! Purges and erasures on every node and in Redis.
//!
//! Invariant: every node has applied a change that was answered as done, at the latest by the end of its lease.

use super::change_log::{self, TENANT};
use super::epoch::{Change, Epoch};
use super::membership::Membership;
use super::wire;
use crate::base::keyring;
use crate::iluma::person::Tag;
use crate::iluma::subject::Subject;
use crate::redis::{Budget, RedisFailure, scripts::cache as scripts};
use std::collections::BTreeSet;
use std::time::Duration;

/// The largest number of changes in the list. Purges and erasures are rare; a node that missed more of them starts with
/// an empty memory.
const MOST_CHANGES: usize = 10_000;
/// The time for which a tombstone keeps the answers of earlier calls from being stored: no call lasts as long.
const TOMBSTONE: Duration = Duration::from_secs(3600);
/// The longest time of one command of an operator's order.
const ORDER: Duration = Duration::from_secs(2);

/// The outcome of a purge or an erasure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// The number of entries that nodes removed from memory.
    pub memory: u64,
    /// The number of entries that were removed from disk.
    pub disk: u64,
    /// The number of entries that were removed from Redis.
    pub redis: u64,
    /// The names of the nodes or stores that could not be reached; empty if the order is done.
    pub left: Vec<String>,
}

impl Removed {
    /// Returns the outcome of two orders together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.memory += other.memory;
        self.disk += other.disk;
        self.redis += other.redis;
        self.left.extend(other.left);
        self.left.sort_unstable();
        self.left.dedup();
        self
    }
}

/// Applies a change on every node and in Redis.
///
/// # Errors
/// Returns an error if Redis is out: the change was not begun, or its beginning is uncertain.
pub(super) async fn carry_out(node: &Membership, change: &Change) -> Result<Removed, RedisFailure> {
    let number = begin(node, change).await?;
    node.heartbeat(&Budget::of(ORDER)).await?;
    let redis = match change {
        Change::Erased(tags) => erase(node, tags).await?,
        Change::Subject(subject) => sweep(node, subject.as_str(), "*").await?,
        Change::Tenant(tenant) => sweep(node, "*", tenant.as_str()).await?,
        Change::All => sweep(node, "*", "*").await?,
        Change::Registry => 0,
    };
    // A node that is cut off still has what it remembers, and the keys that it knows.
    let strictly = matches!(change, Change::Erased(_) | Change::Registry);
    let left = node.applied_by_all(number, strictly).await?;
    let mut command = redis::cmd("GET");
    let command = command.arg(node.keys().cache_removed(number));
    let memory: Option<u64> = node.link().command(&Budget::of(ORDER), command).await?;
    Ok(Removed { memory: memory.unwrap_or(0), redis, left, ..Removed::default() })
}

async fn begin(node: &Membership, change: &Change) -> Result<u64, RedisFailure> {
    let keys = node.keys();
    let mut script = scripts::BEGIN_CHANGE.key(keys.cache_epochs());
    script.key(keys.cache_number()).key(keys.cache_changes());
    if let Change::Erased(tags) = change {
        for tag in tags {
            script.key(keys.cache_tombstone(tag));
        }
    }
    script.arg(change_log::write(change)).arg(MOST_CHANGES).arg(wire::millis(TOMBSTONE));
    script.arg(keys.changes_channel());
    let field = |name: String| (name, keyring::random::<16>());
    let fields: Vec<(String, Epoch)> = match change {
        Change::Subject(subject) => vec![field(subject.as_str().to_owned())],
        Change::Tenant(tenant) => vec![field(format!("{TENANT}{tenant}"))],
        Change::All => Subject::ALL.map(|subject| field(subject.as_str().to_owned())).to_vec(),
        Change::Erased(_) | Change::Registry => Vec::new(),
    };
    for (name, epoch) in &fields {
        script.arg(name).arg(epoch);
    }
    node.link().script(&Budget::of(ORDER), &script).await
}

/// Removes the entries that are indexed by a tag.
async fn erase(node: &Membership, tags: &BTreeSet<Tag>) -> Result<u64, RedisFailure> {
    let mut removed = 0;
    let mut script = scripts::ERASE_TAGGED.prepare_invoke();
    for tag in tags {
        script.key(node.keys().cache_tag(tag));
    }
    loop {
        let (filed, unlinked): (i64, u64) = node.link().script(&Budget::of(ORDER), &script).await?;
        removed += unlinked;
        match filed {
            0 => return Ok(removed),
            // Another program's value replaced the index. The indexed entries are unknown then, and may name a person
            // who is to be erased: all entries are removed.
            ..0 => removed += sweep(node, "*", "*").await?,
            _ => {}
        }
    }
}

/// Removes the entries whose names match. They are unfindable already, because their epoch has ended.
async fn sweep(node: &Membership, subject: &str, private: &str) -> Result<u64, RedisFailure> {
    let pattern = node.keys().cache_entries(subject, private);
    let (mut cursor, mut removed) = (0_u64, 0_u64);
    loop {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1000);
        let (next, found): (u64, Vec<Vec<u8>>) = node.link().command(&Budget::of(ORDER), &command).await?;
        if !found.is_empty() {
            let mut command = redis::cmd("UNLINK");
            let unlinked: u64 = node.link().command(&Budget::of(ORDER), command.arg(found)).await?;
            removed += unlinked;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(removed);
        }
    }
}
