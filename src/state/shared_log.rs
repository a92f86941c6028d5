//! A log: each node writes its entries to its own database, and can list the entries of all nodes.
//!
//! With Redis each node copies its entries to a shared list, at once or as soon as Redis is back. So one request to
//! Redis reads the entries of all nodes. Without Redis the list consists of the node's own entries.
//!
//! Invariants: an entry that was written survives any crash of its node; an entry stays for the retention, even if
//! Redis loses its data.

use super::error::StateError;
use super::times::{length, millis};
use crate::base::clock::Clock;
use crate::base::database::{Database, DatabaseError};
use crate::base::keyring;
use crate::config;
use crate::redis::scripts::log as scripts;
use crate::redis::{Budget, RedisClient, RedisFailure, RedisKey};
use rusqlite::{Connection, OpenFlags};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

/// The retention of an entry: more than a year, as auditors ask for.
const RETENTION: Duration = Duration::from_secs(400 * 86400);
/// The longest time for which a command waits for the database's lock while the gateway writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest number of entries that one request copies to Redis.
const MOST_SHARED: usize = 200;
/// The interval at which a node copies new entries to Redis.
const INTERVAL: Duration = Duration::from_secs(1);
/// The number of [`INTERVAL`]s between two removals of expired entries.
const INTERVALS_PER_SWEEP: u32 = 3600;

/// A log. Its table in the node's own database has the log's name, and the columns `id`, `entry` and `shared`.
#[derive(Debug)]
pub(super) struct SharedLog {
    table: &'static str,
    database: Database,
    shared: Option<SharedList>,
    clock: Clock,
    /// The number of ids that were given out since the start.
    written: AtomicU32,
    /// The lock that a task holds while it copies entries to Redis. Only one task copies at a time, so an older version
    /// of an entry never replaces a newer one.
    sharing: tokio::sync::Mutex<()>,
}

/// The list of all nodes' entries in Redis.
#[derive(Debug)]
pub(super) struct SharedList {
    pub(super) redis: RedisClient,
    /// The Redis key of the sorted set that has all ids.
    pub(super) ids: RedisKey,
    /// The Redis key of the hash that has each entry by its id.
    pub(super) entries: RedisKey,
}

/// The part of a log that a caller asks for.
#[derive(Debug, Clone, Default)]
pub struct LogPage {
    /// The id of the last entry of the previous page; `None` for the first page.
    pub after: Option<String>,
    /// Only entries that were written at this time or later; `None` for no lower bound.
    pub from: Option<SystemTime>,
    /// Only entries that were written before this time; `None` for no upper bound.
    pub to: Option<SystemTime>,
    /// The largest number of entries.
    pub most: usize,
    /// True if the newest entry comes first, false if the oldest entry comes first.
    pub newest_first: bool,
}

/// One page of a log.
#[derive(Debug, Clone)]
pub struct LogEntries<T> {
    /// The entries, in the order that the page asks for.
    pub entries: Vec<T>,
    /// The id of the last entry if more entries may follow; `None` on the last page.
    pub next: Option<String>,
    /// False if Redis is configured, but only this node's entries could be read.
    pub is_complete: bool,
}

impl SharedLog {
    pub(super) fn new(table: &'static str, database: Database, shared: Option<SharedList>, clock: Clock) -> Self {
        Self { table, database, shared, clock, written: AtomicU32::new(0), sharing: tokio::sync::Mutex::default() }
    }

    /// Returns the id for an entry that is written now, and the current time. Unless the clock is set back, ids sort in
    /// the order in which they were returned, also within a millisecond.
    pub(super) fn next_id(&self) -> (String, SystemTime) {
        let now = self.clock.wall();
        let place = self.written.fetch_add(1, Ordering::Relaxed) & 0x00ff_ffff;
        (entry_id(now, place), now)
    }

    /// Writes an entry durably; an earlier version with the same id is replaced. Then copies the entry to Redis, if
    /// Redis answers.
    ///
    /// # Errors
    /// Returns an error if the entry was not written.
    pub(super) async fn write(&self, id: &str, text: String) -> Result<(), StateError> {
        let (id, is_alone, table) = (id.to_owned(), self.shared.is_none(), self.table);
        let write = self.database.write(move |connection| {
            let insert = format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2, ?3)");
            connection.execute(&insert, (&id, &text, is_alone))
        });
        write.await?;
        self.share().await;
        Ok(())
    }

    /// Returns a page of the log with the entries of all nodes. Without Redis, or while it can't be reached, the page
    /// has only this node's entries. `read` parses an entry; entries that can't be parsed are left out.
    ///
    /// # Errors
    /// Returns an error if the log can't be read.
    pub(super) async fn list<T>(
        &self,
        page: &LogPage,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<LogEntries<T>, StateError> {
        let is_shared = self.share().await;
        let (rows, is_complete) = match &self.shared {
            Some(shared) if is_shared => match listed(shared, page).await {
                Ok(rows) => (rows, true),
                Err(_) => (self.own(page).await?, false),
            },
            Some(_) => (self.own(page).await?, false),
            None => (self.own(page).await?, true),
        };
        let next = rows.last().filter(|_| rows.len() == page.most).map(|(id, _)| id.clone());
        let entries = rows.iter().filter_map(|(_, text)| read(text)).collect();
        Ok(LogEntries { entries, next, is_complete })
    }

    /// Returns the ids and texts of this node's `most` newest entries, newest first.
    ///
    /// # Errors
    /// Returns an error if the log can't be read.
    pub(super) async fn newest(&self, most: usize) -> Result<Vec<(String, String)>, StateError> {
        let select = format!("SELECT id, entry FROM {} ORDER BY id DESC LIMIT ?1", self.table);
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = self.database.read(move |connection| {
            let mut statement = connection.prepare_cached(&select)?;
            let rows = statement.query_map([most], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        Ok(rows.await?)
    }

    /// Copies new entries to Redis, and deletes expired entries from the node's database. An expired entry that is not
    /// in Redis yet is kept. Runs until the future is dropped.
    pub(super) async fn keep(&self) {
        let mut looks: u32 = 0;
        loop {
            self.notice_loss().await;
            self.share().await;
            if looks.is_multiple_of(INTERVALS_PER_SWEEP) {
                let (oldest, delete) =
                    (self.oldest(), format!("DELETE FROM {} WHERE id < ?1 AND shared = 1", self.table));
                // If this fails, the next sweep removes the entries.
                let _ = self.database.write(move |connection| connection.execute(&delete, [&oldest])).await;
            }
            looks = looks.wrapping_add(1);
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Checks that Redis still has the newest entry that this node shared. If that entry is missing, Redis has lost its
    /// data. Then all entries are marked as not shared, so that they are copied again.
    async fn notice_loss(&self) {
        let Some(shared) = self.shared.as_ref().filter(|shared| shared.redis.is_up()) else { return };
        let select = format!("SELECT id FROM {} WHERE shared = 1 ORDER BY id DESC LIMIT 1", self.table);
        let last = self.database.read(move |connection| {
            let mut statement = connection.prepare_cached(&select)?;
            let mut rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            rows.next().transpose()
        });
        let Ok(Some(last)) = last.await else { return };
        if last < self.oldest() {
            return;
        }
        let mut command = redis::cmd("HEXISTS");
        let command = command.arg(&shared.entries).arg(&last);
        if shared.redis.command(&Budget::background(), command).await == Ok(false) {
            let update = format!("UPDATE {} SET shared = 0", self.table);
            // The next interval notices the loss again.
            let _ = self.database.write(move |connection| connection.execute(&update, [])).await;
        }
    }

    /// Copies new entries to Redis. Returns true if Redis then has all entries of this node. Returns false without
    /// Redis, or while it can't be reached.
    async fn share(&self) -> bool {
        let Some(shared) = self.shared.as_ref().filter(|shared| shared.redis.is_up()) else { return false };
        let _sharing = self.sharing.lock().await;
        loop {
            let select = format!("SELECT id, entry FROM {} WHERE shared = 0 ORDER BY id LIMIT ?1", self.table);
            let unshared = self.database.read(move |connection| {
                let mut statement = connection.prepare_cached(&select)?;
                let rows = statement.query_map([MOST_SHARED as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
                rows.collect::<rusqlite::Result<Vec<(String, String)>>>()
            });
            let Ok(unshared) = unshared.await else { return false };
            if unshared.is_empty() {
                return true;
            }
            if self.put(shared, &unshared).await.is_err() || self.note_shared(unshared).await.is_err() {
                return false;
            }
        }
    }

    async fn note_shared(&self, entries: Vec<(String, String)>) -> Result<(), DatabaseError> {
        // An entry that was replaced meanwhile is not marked: its new text must be copied too.
        let update = format!("UPDATE {} SET shared = 1 WHERE id = ?1 AND entry = ?2", self.table);
        let note = self.database.write(move |connection| {
            let mut statement = connection.prepare_cached(&update)?;
            for (id, entry) in &entries {
                statement.execute((id, entry))?;
            }
            Ok(())
        });
        note.await
    }

    async fn put(&self, shared: &SharedList, entries: &[(String, String)]) -> Result<(), RedisFailure> {
        let mut call = scripts::PUT.key(&shared.ids);
        call.key(&shared.entries).arg(self.oldest());
        for (id, text) in entries {
            call.arg(id.as_str()).arg(text.as_str());
        }
        let _: u64 = shared.redis.script(&Budget::background(), &call).await?;
        Ok(())
    }

    async fn own(&self, page: &LogPage) -> Result<Vec<(String, String)>, StateError> {
        let (first, after, end) = (bound(page.from), page.after.clone().unwrap_or_default(), bound(page.to));
        let most = i64::try_from(page.most).unwrap_or(i64::MAX);
        let (behind, order) = if page.newest_first { ("<", "DESC") } else { (">", "ASC") };
        let select = format!(
            "SELECT id, entry FROM {} WHERE id >= ?1 AND (?2 = '' OR id {behind} ?2) AND (?3 = '' OR id < ?3) \
             ORDER BY id {order} LIMIT ?4",
            self.table
        );
        let rows = self.database.read(move |connection| {
            let mut statement = connection.prepare_cached(&select)?;
            let rows = statement.query_map((first, after, end, most), |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        Ok(rows.await?)
    }

    /// Returns the lower bound of the ids of entries that have not expired.
    fn oldest(&self) -> String {
        format!("{:013}", (millis(self.clock.wall()) - length(RETENTION)).max(0))
    }
}

async fn listed(shared: &SharedList, page: &LogPage) -> Result<Vec<(String, String)>, RedisFailure> {
    let (lower, upper) = bounds(page);
    let mut call = scripts::LIST.key(&shared.ids);
    call.key(&shared.entries).arg(lower).arg(upper).arg(page.most).arg(u8::from(page.newest_first));
    shared.redis.script(&Budget::background(), &call).await
}

/// Returns the lower and the upper bound of a page's ids, as ZRANGEBYLEX takes them.
fn bounds(page: &LogPage) -> (String, String) {
    let (from, to) = (bound(page.from), page.to.map(|to| bound(Some(to))));
    let (older, newer) = if page.newest_first { (page.after.as_ref(), None) } else { (None, page.after.as_ref()) };
    let lower = match newer {
        Some(after) if *after >= from => format!("({after}"),
        Some(_) | None if from.is_empty() => "-".to_owned(),
        Some(_) | None => format!("[{from}"),
    };
    let end = match (older, &to) {
        (Some(after), Some(to)) => Some(after.min(to)),
        (after, to) => after.or(to.as_ref()),
    };
    (lower, end.map_or("+".to_owned(), |end| format!("({end}")))
}

/// Returns the text with which the ids of this time begin; an empty text for `None`.
fn bound(time: Option<SystemTime>) -> String {
    time.map_or(String::new(), |time| format!("{:013}", millis(time)))
}

/// Returns the id of an entry that is written at `now`. `place` orders the entries of one millisecond.
pub(super) fn entry_id(now: SystemTime, place: u32) -> String {
    format!("{:013}-{place:06x}{:08x}", millis(now), u32::from_be_bytes(keyring::random()))
}

/// Writes an entry into a gateway's database, for a command that runs as another process. The gateway shares the entry
/// with the other nodes while it runs.
pub(super) fn write_beside(state: &config::State, table: &str, id: &str, text: &str) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(&state.path, flags)?;
    database.busy_timeout(BUSY_TIMEOUT)?;
    let insert = format!("INSERT INTO {table} VALUES (?1, ?2, ?3)");
    database.execute(&insert, (id, text, state.redis.is_none())).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_goes_on_behind_the_one_before_in_its_order() {
        let at = |millis| Some(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        for (newest_first, after, from, to, expected) in [
            (false, None, None, None, ("-", "+")),
            (false, Some("0000000000005-a"), None, None, ("(0000000000005-a", "+")),
            (false, Some("0000000000005-a"), at(3), at(9), ("(0000000000005-a", "(0000000000009")),
            (false, Some("0000000000005-a"), at(7), None, ("[0000000000007", "+")),
            (true, None, at(3), None, ("[0000000000003", "+")),
            (true, Some("0000000000005-a"), at(3), at(9), ("[0000000000003", "(0000000000005-a")),
            (true, Some("0000000000005-a"), None, at(4), ("-", "(0000000000004")),
        ] {
            let page = LogPage { after: after.map(str::to_owned), from, to, most: 1, newest_first };
            let (lower, upper) = bounds(&page);
            assert_eq!((lower.as_str(), upper.as_str()), expected, "{page:?}");
        }
    }
}
