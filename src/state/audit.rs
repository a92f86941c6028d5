//! The audit log: every order of an operator, durable, and listed over all nodes.
//!
//! An entry is written to the node's own database before its order begins, and again when it has ended. With Redis each node
//! gives its entries to a shared list, at once or as soon as Redis is back; so a list of all nodes' entries needs one
//! question.
//!
//! Invariants: an order whose entry could not be written is not begun; an entry holds no personal data; it stays for the
//! retention, also if Redis loses what it holds.

use super::error::StateError;
use super::times::{length, millis};
use crate::base::clock::Clock;
use crate::base::database::{Database, DatabaseError};
use crate::base::keyring;
use crate::redis::scripts::audit as scripts;
use crate::redis::{Budget, RedisClient, RedisFailure};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

/// The tables of the audit log in a node's own database.
pub const AUDIT_MIGRATIONS: (&str, &[&str]) = (
    "audit",
    &["CREATE TABLE audit (id TEXT NOT NULL PRIMARY KEY, entry TEXT NOT NULL, shared INTEGER NOT NULL) WITHOUT ROWID;
       CREATE INDEX audit_unshared ON audit (id) WHERE shared = 0;"],
);

/// The retention of an entry: more than a year, as auditors ask for.
const RETENTION: Duration = Duration::from_secs(400 * 86400);
/// Time that one question to Redis may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The largest number of entries that one step shares.
const MOST_SHARED: usize = 200;
/// Time between two looks for entries that are not shared yet.
const LOOK: Duration = Duration::from_secs(1);
/// Looks between two removals of what is older than the retention.
const LOOKS_PER_SWEEP: u32 = 3600;

/// The audit log of a node. Clones share it.
#[derive(Clone, Debug)]
pub struct AuditLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    database: Database,
    link: Option<RedisClient>,
    node: String,
    clock: Clock,
    /// The number of entries since the start.
    written: AtomicU32,
    /// One at a time shares, so that no older text of an entry comes after a newer one.
    sharing: tokio::sync::Mutex<()>,
}

/// An order as the audit log has it before the order begins.
#[derive(Debug, Clone)]
pub struct Ordered {
    /// The name of the token.
    pub token: String,
    /// The token's role.
    pub role: &'static str,
    /// The client's address.
    pub peer: Option<String>,
    /// The kind of order.
    pub order: &'static str,
    /// The subject of the order, without personal data.
    pub subject: Option<String>,
    /// The outcome, as far as it is known.
    pub outcome: &'static str,
}

/// An entry that was written, by which its end is noted.
#[derive(Debug, Clone)]
pub struct Entry {
    id: String,
    text: Value,
}

/// A part of the log.
#[derive(Debug, Clone, Default)]
pub struct AuditPage {
    /// The id of the entry before the first.
    pub after: Option<String>,
    /// The first moment.
    pub from: Option<SystemTime>,
    /// The moment before which the last entry was written.
    pub to: Option<SystemTime>,
    /// The largest number of entries.
    pub most: usize,
}

/// Entries, oldest first.
#[derive(Debug, Clone)]
pub struct Audited {
    /// The entries.
    pub entries: Vec<Value>,
    /// The id of the last one, if there may be more.
    pub next: Option<String>,
    /// False if only this node's entries could be read.
    pub is_complete: bool,
}

impl AuditLog {
    /// Returns the audit log of the node with this name.
    #[must_use]
    pub fn new(database: Database, link: Option<RedisClient>, node: &str, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            database,
            link,
            node: node.to_owned(),
            clock,
            written: AtomicU32::new(0),
            sharing: tokio::sync::Mutex::default(),
        }))
    }

    /// Writes an entry, durably.
    ///
    /// # Errors
    /// It was not written: the order must not begin.
    pub async fn begin(&self, order: Ordered) -> Result<Entry, StateError> {
        let now = self.0.clock.wall();
        // Ids are in the order of their entries, also within a millisecond.
        let place = self.0.written.fetch_add(1, Ordering::Relaxed) & 0x00ff_ffff;
        let id = format!("{:013}-{place:06x}{:08x}", millis(now), u32::from_be_bytes(keyring::random()));
        let text = serde_json::json!({
            "id": id,
            "time": humantime::format_rfc3339_millis(now).to_string(),
            "node": self.0.node,
            "token": order.token,
            "role": order.role,
            "peer": order.peer,
            "order": order.order,
            "subject": order.subject,
            "outcome": order.outcome,
            "counts": {},
        });
        let entry = Entry { id, text };
        self.write(&entry).await?;
        self.share().await;
        Ok(entry)
    }

    /// Notes the end of an order.
    ///
    /// # Errors
    /// It was not noted: the entry still says that the order began.
    pub async fn end(&self, mut entry: Entry, outcome: &'static str, counts: Value) -> Result<(), StateError> {
        entry.text["outcome"] = outcome.into();
        entry.text["counts"] = counts;
        self.write(&entry).await?;
        self.share().await;
        Ok(())
    }

    /// Returns a part of the log: all nodes' entries, or this node's if Redis can't be asked.
    ///
    /// # Errors
    /// The log can't be read.
    pub async fn list(&self, page: &AuditPage) -> Result<Audited, StateError> {
        let is_shared = self.share().await;
        let (rows, is_complete) = match &self.0.link {
            Some(link) if is_shared => match listed(link, page).await {
                Ok(rows) => (rows, true),
                Err(_) => (self.own(page).await?, false),
            },
            Some(_) => (self.own(page).await?, false),
            None => (self.own(page).await?, true),
        };
        let next = rows.last().filter(|_| rows.len() == page.most).map(|(id, _)| id.clone());
        let entries = rows.iter().filter_map(|(_, text)| serde_json::from_str(text).ok()).collect();
        Ok(Audited { entries, next, is_complete })
    }

    /// Shares entries that are not shared yet, and removes old ones, until it is dropped.
    pub async fn keep(&self) {
        let mut looks: u32 = 0;
        loop {
            self.notice_loss().await;
            self.share().await;
            if looks.is_multiple_of(LOOKS_PER_SWEEP) {
                let oldest = self.oldest();
                let sweep = self.0.database.write(move |connection| {
                    connection.execute("DELETE FROM audit WHERE id < ?1 AND shared = 1", [oldest])
                });
                // The next sweep removes what this one could not.
                let _ = sweep.await;
            }
            looks = looks.wrapping_add(1);
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn write(&self, entry: &Entry) -> Result<(), DatabaseError> {
        let (id, text, is_alone) = (entry.id.clone(), entry.text.to_string(), self.0.link.is_none());
        let write = self.0.database.write(move |connection| {
            connection.execute("INSERT OR REPLACE INTO audit VALUES (?1, ?2, ?3)", (id, text, is_alone))
        });
        write.await.map(|_| ())
    }

    /// Has every entry shared again if Redis has lost the last one that this node shared.
    async fn notice_loss(&self) {
        let Some(link) = self.0.link.as_ref().filter(|link| link.is_up()) else { return };
        let last = self.0.database.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT id FROM audit WHERE shared = 1 ORDER BY id DESC LIMIT 1")?;
            let mut rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            rows.next().transpose()
        });
        let Ok(Some(last)) = last.await else { return };
        if last < self.oldest() {
            return;
        }
        let mut command = redis::cmd("HEXISTS");
        let command = command.arg(link.keys().audit_entries()).arg(&last);
        if link.command(&Budget::of(PATIENCE), command).await == Ok(false) {
            let again = self.0.database.write(|connection| connection.execute("UPDATE audit SET shared = 0", []));
            // The next look finds the loss again.
            let _ = again.await;
        }
    }

    /// Gives Redis the entries that it has not. Returns true if it has all of them then.
    async fn share(&self) -> bool {
        let Some(link) = self.0.link.as_ref().filter(|link| link.is_up()) else { return false };
        let _sharing = self.0.sharing.lock().await;
        loop {
            let unshared = self.0.database.read(|connection| {
                let mut statement =
                    connection.prepare_cached("SELECT id, entry FROM audit WHERE shared = 0 ORDER BY id LIMIT ?1")?;
                let rows = statement.query_map([MOST_SHARED as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
                rows.collect::<rusqlite::Result<Vec<(String, String)>>>()
            });
            let Ok(unshared) = unshared.await else { return false };
            if unshared.is_empty() {
                return true;
            }
            if self.put(link, &unshared).await.is_err() {
                return false;
            }
            let noted = self.0.database.write(move |connection| {
                // An entry that has ended meanwhile is to be shared again.
                let mut statement =
                    connection.prepare_cached("UPDATE audit SET shared = 1 WHERE id = ?1 AND entry = ?2")?;
                for (id, entry) in &unshared {
                    statement.execute((id, entry))?;
                }
                Ok(())
            });
            if noted.await.is_err() {
                return false;
            }
        }
    }

    async fn put(&self, link: &RedisClient, entries: &[(String, String)]) -> Result<(), RedisFailure> {
        let mut call = scripts::PUT.key(link.keys().audit_ids());
        call.key(link.keys().audit_entries()).arg(self.oldest());
        for (id, text) in entries {
            call.arg(id.as_str()).arg(text.as_str());
        }
        let _: u64 = link.script(&Budget::of(PATIENCE), &call).await?;
        Ok(())
    }

    async fn own(&self, page: &AuditPage) -> Result<Vec<(String, String)>, StateError> {
        let (first, after, end) = (bound(page.from), page.after.clone().unwrap_or_default(), bound(page.to));
        let most = i64::try_from(page.most).unwrap_or(i64::MAX);
        let rows = self.0.database.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, entry FROM audit WHERE id >= ?1 AND id > ?2 AND (?3 = '' OR id < ?3) ORDER BY id LIMIT ?4",
            )?;
            let rows = statement.query_map((first, after, end, most), |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        Ok(rows.await?)
    }

    /// The smallest id of an entry that is kept.
    fn oldest(&self) -> String {
        format!("{:013}", (millis(self.0.clock.wall()) - length(RETENTION)).max(0))
    }
}

async fn listed(link: &RedisClient, page: &AuditPage) -> Result<Vec<(String, String)>, RedisFailure> {
    let from = bound(page.from);
    let lower = match &page.after {
        Some(after) if *after >= from => format!("({after}"),
        Some(_) | None if from.is_empty() => "-".to_owned(),
        Some(_) | None => format!("[{from}"),
    };
    let upper = page.to.map_or("+".to_owned(), |to| format!("({}", bound(Some(to))));
    let mut call = scripts::LIST.key(link.keys().audit_ids());
    call.key(link.keys().audit_entries()).arg(lower).arg(upper).arg(page.most);
    link.script(&Budget::of(PATIENCE), &call).await
}

/// Returns the beginning of the ids of a moment; empty for none.
fn bound(time: Option<SystemTime>) -> String {
    time.map_or(String::new(), |time| format!("{:013}", millis(time)))
}
