//! Receipts of erasures. They are durable, and each node can list the receipts of all nodes.
//!
//! Invariant: a receipt has the numbers of removed entries and the names of the nodes, and contains no personal data.
//! The person tags that are stored with a receipt are keyed hashes. Only a restore uses these tags: it erases the same
//! persons from the restored data.

use super::error::StateError;
use super::shared_log::{LogEntries, LogPage, SharedList, SharedLog};
use crate::base::clock::Clock;
use crate::base::database::{Database, DatabaseError};
use crate::iluma::person::Tag;
use crate::redis::RedisClient;
use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The migrations of the receipts' table in a node's own database, for `Database::open`.
pub const ERASURES_MIGRATIONS: (&str, &[&str]) = (
    "erasures",
    &["CREATE TABLE erasures (id TEXT NOT NULL PRIMARY KEY, entry TEXT NOT NULL, shared INTEGER NOT NULL) WITHOUT ROWID;
       CREATE INDEX erasures_unshared ON erasures (id) WHERE shared = 0;"],
);

/// The log of the receipts of erasures. Clones share it.
#[derive(Clone, Debug)]
pub struct Erasures(Arc<SharedLog>);

/// The receipt of an erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureReceipt {
    /// The receipt's id.
    pub id: String,
    /// The time at which the erasure ended, as RFC 3339 text.
    pub time: String,
    /// The numbers of entries that were removed.
    pub removed: ErasedCounts,
    /// The nodes, each with the state of the order on that node.
    pub nodes: Vec<NodeOutcome>,
    /// The names of the nodes and stores that did not carry out the whole order, for example because they could not be
    /// reached. If there are any, an operator must give the order again.
    pub left: Vec<String>,
}

/// The numbers of entries that an erasure removed, by kind and by store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasedCounts {
    /// Answers that were kept for requests with an idempotency key.
    #[serde(default)]
    pub answers: u64,
    /// Callbacks that waited for their fan-out, or had no owner.
    pub callbacks: u64,
    /// Deliveries in any status.
    pub deliveries: u64,
    /// Stored answers on disk.
    pub disk: u64,
    /// Stored answers in the memory of nodes.
    pub memory: u64,
    /// Owners of the erased records. Only their references were removed: the teams stay owners.
    pub owners: u64,
    /// Stored answers in Redis.
    pub redis: u64,
}

/// A node, and the state of an order on this node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeOutcome {
    /// The node's name.
    pub name: String,
    /// The state of the order on the node.
    pub state: NodeState,
}

/// The state of an order on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// The node has carried out the order.
    Done,
    /// The node could not be reached, or could not carry out the whole order.
    Left,
}

/// A receipt with the tags of the erased persons, as it is stored and exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredReceipt {
    /// The receipt.
    #[serde(flatten)]
    pub receipt: ErasureReceipt,
    /// The person tags in hexadecimal.
    persons: Vec<String>,
}

impl StoredReceipt {
    /// Returns the person tags. Damaged tags are left out.
    pub fn tags(&self) -> impl Iterator<Item = Tag> {
        self.persons.iter().filter_map(|text| tag(text))
    }

    /// Returns the receipt in a line of an export; `None` if the line is damaged.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok().filter(|stored: &Self| stored.persons.iter().all(|text| tag(text).is_some()))
    }
}

impl Erasures {
    /// Opens the log of receipts in a node's own database. With `redis` the nodes share their receipts.
    #[must_use]
    pub fn new(database: Database, redis: Option<RedisClient>, clock: Clock) -> Self {
        let shared = redis.map(|redis| {
            let (ids, entries) = (redis.keys().erasure_ids(), redis.keys().erasure_entries());
            SharedList { redis, ids, entries }
        });
        Self(Arc::new(SharedLog::new("erasures", database, shared, clock)))
    }

    /// Writes the receipt of an ended erasure durably. Returns the receipt, and the result of writing it: an error if
    /// the receipt was not stored.
    pub async fn note(
        &self,
        removed: ErasedCounts,
        nodes: Vec<NodeOutcome>,
        left: Vec<String>,
        persons: &[Tag],
    ) -> (ErasureReceipt, Result<(), StateError>) {
        let (id, now) = self.0.next_id();
        let time = humantime::format_rfc3339_millis(now).to_string();
        let receipt = ErasureReceipt { id: id.clone(), time, removed, nodes, left };
        let persons = persons.iter().map(|tag| hex::encode(tag.bytes())).collect();
        let stored = StoredReceipt { receipt: receipt.clone(), persons };
        let written = match serde_json::to_string(&stored) {
            Ok(text) => self.0.write(&id, text).await,
            Err(_) => Err(StateError::Refused),
        };
        (receipt, written)
    }

    /// Returns a page of the receipts of all nodes. Without Redis, or while it can't be reached, the page has only this
    /// node's receipts.
    ///
    /// # Errors
    /// Returns an error if the receipts can't be read.
    pub async fn list(&self, page: &LogPage) -> Result<LogEntries<StoredReceipt>, StateError> {
        self.0.list(page, |text| serde_json::from_str(text).ok()).await
    }

    /// Copies new receipts to Redis and removes expired receipts, until the future is dropped.
    pub async fn keep(&self) {
        self.0.keep().await;
    }
}

/// Returns the receipts in a database. Damaged receipts are left out. The list is empty if the database has no table of
/// receipts, because an older version wrote it.
///
/// # Errors
/// Returns an error if the database can't be read.
pub fn stored_receipts(connection: &Connection) -> rusqlite::Result<Vec<StoredReceipt>> {
    let table = "SELECT 1 FROM sqlite_master WHERE name = 'erasures'";
    if connection.query_row(table, [], |_| Ok(())).optional()?.is_none() {
        return Ok(Vec::new());
    }
    let mut select = connection.prepare("SELECT entry FROM erasures ORDER BY id")?;
    let rows = select.query_map([], |row| row.get::<_, String>(0))?;
    rows.filter_map(|text| text.map(|text| serde_json::from_str(&text).ok()).transpose()).collect()
}

/// Writes receipts to a restored database. Receipts that the database already has are not changed. `is_alone` is true
/// for a gateway without Redis; otherwise the gateway copies the receipts to Redis later.
///
/// # Errors
/// Returns an error if the database can't be written.
pub async fn keep_receipts(
    database: &Database,
    receipts: Vec<StoredReceipt>,
    is_alone: bool,
) -> Result<(), DatabaseError> {
    database
        .write(move |connection| {
            let mut insert = connection.prepare_cached("INSERT OR IGNORE INTO erasures VALUES (?1, ?2, ?3)")?;
            for stored in &receipts {
                let text = serde_json::to_string(stored).unwrap_or_default();
                insert.execute((&stored.receipt.id, text, is_alone))?;
            }
            Ok(())
        })
        .await
}

/// Returns the tags of all persons in these receipts, each tag once.
pub fn persons_of(receipts: &[StoredReceipt]) -> BTreeSet<Tag> {
    receipts.iter().flat_map(StoredReceipt::tags).collect()
}

fn tag(text: &str) -> Option<Tag> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    Tag::from_bytes(&bytes).filter(|_| digits.len() == 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_an_export_is_read_back_and_a_damaged_one_is_refused() {
        let receipt = ErasureReceipt {
            id: "0001795416716007-00000001".into(),
            time: "2026-11-23T06:51:56.007Z".into(),
            removed: ErasedCounts { memory: 1, ..ErasedCounts::default() },
            nodes: vec![NodeOutcome { name: "a".into(), state: NodeState::Done }],
            left: Vec::new(),
        };
        let stored = StoredReceipt { receipt, persons: vec!["0f".repeat(16)] };
        let line = serde_json::to_string(&stored).unwrap();
        assert!(line.contains(r#""nodes":[{"name":"a","state":"done"}]"#), "{line}");
        assert_eq!(StoredReceipt::read(&line), Some(stored.clone()));
        assert_eq!(stored.tags().collect::<Vec<_>>(), [Tag::from_bytes(&[15; 16]).unwrap()]);
        for damaged in [line.replace("0f0f", "0f0"), line.replace("0f0f", "0fzz"), line.replace("\"id\"", "\"x\"")] {
            assert_eq!(StoredReceipt::read(&damaged), None, "{damaged}");
        }
    }
}
