//! The audit log: it keeps every order of an operator durably, and each node can list the orders of all nodes.
//!
//! Invariants: an entry is written before its order begins, and again when it has ended; an order whose entry could not
//! be written is not begun; an entry holds no personal data.

use super::error::StateError;
use super::shared_log::{self, LogEntries, LogPage, SharedList, SharedLog};
use crate::base::clock::Clock;
use crate::base::database::Database;
use crate::config::Settings;
use crate::redis::RedisClient;
use serde_json::Value;
use std::sync::Arc;
use std::time::SystemTime;

/// The migrations of the audit log's table in a node's own database, for `Database::open`.
pub const AUDIT_MIGRATIONS: (&str, &[&str]) = (
    "audit",
    &["CREATE TABLE audit (id TEXT NOT NULL PRIMARY KEY, entry TEXT NOT NULL, shared INTEGER NOT NULL) WITHOUT ROWID;
       CREATE INDEX audit_unshared ON audit (id) WHERE shared = 0;"],
);

/// The outcome that an entry has until its order ends.
pub const BEGUN: &str = "begun";
/// The outcome of an order whose process ended before the order did.
const INTERRUPTED: &str = "interrupted";
/// The number of newest entries that the start searches for interrupted orders. A process carries out fewer orders at
/// once.
const MOST_INTERRUPTED: usize = 1000;

/// The audit log of a node. Clones share it.
#[derive(Clone, Debug)]
pub struct AuditLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    log: SharedLog,
    node: String,
}

/// The data that the audit log stores about an order.
#[derive(Debug, Clone)]
pub struct Ordered {
    /// The name of the operator's token.
    pub token: String,
    /// The token's role.
    pub role: &'static str,
    /// The client's address; `None` if it is not known.
    pub peer: Option<String>,
    /// The kind of order.
    pub order: &'static str,
    /// The subject of the order, without personal data; `None` if the order has no subject.
    pub subject: Option<String>,
    /// The outcome: [`BEGUN`] until the order has ended.
    pub outcome: &'static str,
}

/// An entry that was written when its order began. [`AuditLog::end`] adds the outcome of the order.
#[derive(Debug, Clone)]
pub struct Entry {
    id: String,
    text: Value,
}

impl Entry {
    fn new(order: Ordered, node: &str, (id, now): (String, SystemTime)) -> Self {
        let text = serde_json::json!({
            "id": id,
            "time": humantime::format_rfc3339_millis(now).to_string(),
            "node": node,
            "token": order.token,
            "role": order.role,
            "peer": order.peer,
            "order": order.order,
            "subject": order.subject,
            "outcome": order.outcome,
            "counts": {},
        });
        Self { id, text }
    }
}

impl AuditLog {
    /// Makes the audit log of the node with the name `node`. With `redis` the nodes share their entries.
    #[must_use]
    pub fn new(database: Database, redis: Option<RedisClient>, node: &str, clock: Clock) -> Self {
        let shared = redis.map(|redis| {
            let (ids, entries) = (redis.keys().audit_ids(), redis.keys().audit_entries());
            SharedList { redis, ids, entries }
        });
        Self(Arc::new(Inner { log: SharedLog::new("audit", database, shared, clock), node: node.to_owned() }))
    }

    /// Writes the entry of an order that is about to begin, durably.
    ///
    /// # Errors
    /// Returns an error if the entry was not written: the order must not begin then.
    pub async fn begin(&self, order: Ordered) -> Result<Entry, StateError> {
        let entry = Entry::new(order, &self.0.node, self.0.log.next_id());
        self.0.log.write(&entry.id, entry.text.to_string()).await?;
        Ok(entry)
    }

    /// Writes the outcome and the counts of an ended order into its entry.
    ///
    /// # Errors
    /// Returns an error if the end was not written. The entry then still has the outcome [`BEGUN`].
    pub async fn end(&self, mut entry: Entry, outcome: &'static str, counts: Value) -> Result<(), StateError> {
        entry.text["outcome"] = outcome.into();
        entry.text["counts"] = counts;
        self.0.log.write(&entry.id, entry.text.to_string()).await
    }

    /// Sets the outcome `interrupted` for the orders that an earlier process of this node began and did not end.
    /// Returns their number. The caller calls this at the start, before any order.
    ///
    /// # Errors
    /// Returns an error if the log can't be read or written.
    pub async fn end_interrupted(&self) -> Result<u64, StateError> {
        let mut number = 0;
        for (id, text) in self.0.log.newest(MOST_INTERRUPTED).await? {
            let Ok(mut entry) = serde_json::from_str::<Value>(&text) else { continue };
            if entry["outcome"] == BEGUN {
                entry["outcome"] = INTERRUPTED.into();
                self.0.log.write(&id, entry.to_string()).await?;
                number += 1;
            }
        }
        Ok(number)
    }

    /// Returns a page of the log with the entries of all nodes. Without Redis, or while it can't be reached, the page
    /// has only this node's entries.
    ///
    /// # Errors
    /// Returns an error if the log can't be read.
    pub async fn list(&self, page: &LogPage) -> Result<LogEntries<Value>, StateError> {
        self.0.log.list(page, |text| serde_json::from_str(text).ok()).await
    }

    /// Copies new entries to Redis and removes expired entries, until the future is dropped.
    pub async fn keep(&self) {
        self.0.log.keep().await;
    }
}

/// Writes an entry into a gateway's database, for an order that a command of the program has carried out. The gateway
/// shares the entry with the other nodes while it runs.
///
/// # Errors
/// Returns an error if the entry was not written.
pub fn audit_beside(settings: &Settings, clock: &Clock, order: Ordered, counts: Value) -> rusqlite::Result<()> {
    let now = clock.wall();
    let mut entry = Entry::new(order, &settings.node, (shared_log::entry_id(now, 0), now));
    entry.text["counts"] = counts;
    shared_log::write_beside(&settings.state, "audit", &entry.id, &entry.text.to_string())
}
