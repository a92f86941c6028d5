//! The file of the disk cache: its tables, its bound, and its deletions.
//!
//! Invariants: a value is an envelope that can be decrypted only for its own key; rows are in the order in which they
//! were stored, and the oldest are deleted first; the file and its write-ahead log together stay within the bound.

use super::epoch::Epochs;
use super::key::Key;
use super::key_filter::{KeyFilter, Progress};
use super::slot::CacheSlot;
use super::{entry::Entry, wire};
use crate::base::byte_size::ByteSize;
use crate::base::database::{Database, DatabaseError, Durability, OpenError, integer, number};
use crate::base::keyring::{Keyring, Unopened};
use crate::base::name::TenantName;
use crate::base::steady_clock::{Millis, millis};
use crate::iluma::person::Tag;
use crate::iluma::subject::Subject;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// The tables of the file. `facts` has a row for each row of `entries`, with the same number. It does not have the
/// value, so a deletion finds its rows without reading values.
const MIGRATIONS: &[(&str, &[&str])] = &[(
    "disk cache",
    &["
    CREATE TABLE entries (number INTEGER PRIMARY KEY, key BLOB NOT NULL, value BLOB NOT NULL);
    CREATE UNIQUE INDEX entries_key ON entries (key);
    CREATE TABLE facts (number INTEGER PRIMARY KEY, subject TEXT NOT NULL, tenant TEXT, began INTEGER NOT NULL,
        expires INTEGER NOT NULL, tags BLOB NOT NULL);
    CREATE INDEX facts_expires ON facts (expires);
    CREATE TABLE notes (name BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID;
    "],
)];

/// The size of an SQLite page, in bytes.
const PAGE: u64 = 4096;
/// The largest number of rows that one transaction reads or deletes. It is small, so that other transactions wait only
/// a few milliseconds.
const STEP: u32 = 2_000;
/// The size of a tag, in bytes.
const TAG: usize = 16;

/// The open file.
#[derive(Debug, Clone)]
pub(super) struct DiskFile {
    database: Database,
    /// The largest number of pages of the file.
    pages: u64,
    keys: Arc<KeyFilter>,
}

/// Facts about an entry that are known without decryption.
#[derive(Debug)]
pub(super) struct Fact {
    pub(super) subject: Option<Subject>,
    pub(super) private: Option<TenantName>,
    pub(super) tags: Vec<Tag>,
    /// The number of the newest change, such as a purge or an erasure, at the time when the entry's call began.
    pub(super) began: u64,
}

/// An entry that is to be written to the file.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) slot: CacheSlot,
    pub(super) entry: Arc<Entry>,
    pub(super) stored: Millis,
}

impl DiskFile {
    /// Opens the file, or makes it. `bound` is the largest size of the file and its write-ahead log together.
    ///
    /// # Errors
    /// Returns the errors of [`Database::open`].
    pub(super) fn open(path: &Path, bound: ByteSize) -> Result<Self, OpenError> {
        let log = (bound.bytes() / 16).clamp(64 << 10, 4 << 20);
        let durability = Durability::Process { log: u32::try_from(log).unwrap_or(u32::MAX) };
        let database = Database::open_with(path, MIGRATIONS, durability)?;
        let pages = bound.bytes().saturating_sub(2 * log).max(bound.bytes() / 2) / PAGE;
        Ok(Self { database, pages, keys: Arc::new(KeyFilter::new(bound)) })
    }

    /// Returns true while the file can be written.
    pub(super) fn is_writable(&self) -> bool {
        self.database.write_fault().is_none()
    }

    /// Closes the file.
    pub(super) async fn close(&self) {
        self.database.close().await;
    }

    /// Returns the decrypted bytes of a key's entry; `None` if the file has no such entry.
    pub(super) async fn entry(&self, key: &Key, keyring: Keyring) -> Result<Option<Vec<u8>>, ReadError> {
        if !self.keys.may_have(key) {
            return Ok(None);
        }
        self.value("SELECT value FROM entries WHERE key = ?1", place("entry", key), (key.clone(), keyring)).await
    }

    /// Returns the decrypted bytes of the note with this name; `None` if the file has no such note.
    pub(super) async fn noted(&self, name: &Key, keyring: Keyring) -> Result<Option<Vec<u8>>, ReadError> {
        self.value("SELECT value FROM notes WHERE name = ?1", place("note", name), (name.clone(), keyring)).await
    }

    async fn value(
        &self,
        select: &'static str,
        place: Vec<u8>,
        (key, keyring): (Key, Keyring),
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let look = move |connection: &Connection| {
            let mut select = connection.prepare_cached(select)?;
            let value = select.query_row([&key.bytes()[..]], |row| row.get::<_, Vec<u8>>(0)).optional()?;
            Ok(value.map(|value| keyring.decrypt(&place, &value)).transpose())
        };
        Ok(self.database.read(look).await??)
    }

    /// Writes `rows`, and deletes the oldest entries of the file to make room. A row is left out if a person in its
    /// entry was erased since the entry's call began.
    pub(super) async fn put(&self, rows: Vec<Row>, keyring: Keyring, epochs: Arc<Epochs>) -> Result<(), DatabaseError> {
        let (pages, keys) = (self.pages, Arc::clone(&self.keys));
        let put = move |connection: &Connection| {
            let values = rows.iter().filter(|row| !epochs.erased_since(row.entry.began, &row.entry.tags));
            let values: Vec<_> = values.map(|row| (row, row.value(&keyring))).collect();
            let bytes: usize = values.iter().map(|(_, value)| value.len() + 256).sum();
            make_room(connection, pages.saturating_sub(bytes as u64 / PAGE * 5 / 4 + 8), usize::MAX, &keys)?;
            for (row, value) in values {
                row.write(connection, &value, &keys)?;
            }
            Ok(())
        };
        self.change(put).await
    }

    /// Runs `work` in a transaction. `work` must update the key filter for the keys that it changes. If the transaction
    /// is rolled back, the filter is reset, and all keys are counted again.
    async fn change<T, F>(&self, work: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let counted = move |counting: &Counting, connection: &Connection| {
            counting.begin();
            let run = Counting::new(&counting.keys);
            run.begin();
            let done = work(connection)?;
            run.stand();
            Ok(done)
        };
        let own = |counting: Counting, done| {
            counting.stand();
            done
        };
        self.database.write_owned(Counting::new(&self.keys), counted, own).await
    }

    /// Counts the file's next keys in the key filter, [`STEP`] at most. Returns false once all keys are counted.
    pub(super) async fn learn_keys(&self) -> Result<bool, DatabaseError> {
        let (keys, progress) = (Arc::clone(&self.keys), self.keys.progress());
        let after = match &progress {
            Progress::Nothing => Vec::new(),
            Progress::Until(key) => key.bytes().to_vec(),
            Progress::All => return Ok(false),
        };
        // The query runs on the writer, so that no key changes between the query and the count. The index covers the
        // query.
        let learn = move |connection: &Connection| {
            let mut select =
                connection.prepare_cached("SELECT key FROM entries WHERE key > ?1 ORDER BY key LIMIT ?2")?;
            let next = select.query_map(params![after, STEP], |row| row.get::<_, Vec<u8>>(0))?;
            let next = next.collect::<rusqlite::Result<Vec<_>>>()?;
            let next: Vec<_> = next.iter().filter_map(|key| Key::from_bytes(key)).collect();
            keys.learn(&progress, &next);
            Ok(!next.is_empty())
        };
        self.database.write(learn).await
    }

    /// Writes a note: `value` is the encoded slot for the final answer to a pending request. `name` is the keyed hash
    /// of Iluma's id of that request.
    pub(super) async fn note(
        &self,
        name: Key,
        value: Vec<u8>,
        keyring: Keyring,
        expires: Millis,
    ) -> Result<(), DatabaseError> {
        let put = move |connection: &Connection| {
            let value = keyring.encrypt(&place("note", &name), &value);
            let mut insert = connection.prepare_cached("INSERT OR REPLACE INTO notes VALUES (?1, ?2, ?3)")?;
            insert.execute(params![name.bytes(), value, integer(expires)]).map(drop)
        };
        self.database.write(put).await
    }

    /// Deletes expired notes and some expired entries. If the file exceeds its bound, deletes some of the oldest
    /// entries and gives some free pages back to the disk. Returns true if there is more to do.
    pub(super) async fn tidy(&self, now: Millis) -> Result<bool, DatabaseError> {
        let (pages, now, keys) = (self.pages, integer(now), Arc::clone(&self.keys));
        let tidy = move |connection: &Connection| {
            connection.execute("DELETE FROM notes WHERE expires <= ?1", [now])?;
            let mut select = connection.prepare_cached("SELECT number FROM facts WHERE expires <= ?1 LIMIT ?2")?;
            let over: Vec<i64> =
                select.query_map(params![now, STEP], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            for row in &over {
                remove(connection, *row, &keys)?;
            }
            let is_full = make_room(connection, pages, STEP as usize, &keys)?;
            let spare = count(connection, "page_count")?.saturating_sub(pages).min(STEP.into());
            if spare > 0 {
                let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({spare})"))?;
                let mut rows = vacuum.query([])?;
                while rows.next()?.is_some() {}
            }
            Ok(over.len() == STEP as usize || is_full || spare == u64::from(STEP))
        };
        self.change(tidy).await
    }

    /// Deletes the entries for which `is_over` is true; returns their number.
    pub(super) async fn remove(
        &self,
        is_over: impl Fn(&Fact) -> bool + Send + Sync + 'static,
    ) -> Result<u64, DatabaseError> {
        let keys = Arc::clone(&self.keys);
        self.each_step(is_over, move |connection, row| remove(connection, row, &keys)).await
    }

    /// Counts the entries for which `is_meant` is true.
    pub(super) async fn count(
        &self,
        is_meant: impl Fn(&Fact) -> bool + Send + Sync + 'static,
    ) -> Result<u64, DatabaseError> {
        self.each_step(is_meant, |_, _| Ok(())).await
    }

    /// Runs `work` with the row number of each entry for which `is_meant` is true, with at most [`STEP`] rows in a
    /// transaction. Returns the number of these entries.
    async fn each_step(
        &self,
        is_meant: impl Fn(&Fact) -> bool + Send + Sync + 'static,
        work: impl Fn(&Connection, i64) -> rusqlite::Result<()> + Send + Sync + 'static,
    ) -> Result<u64, DatabaseError> {
        let (is_meant, work) = (Arc::new(is_meant), Arc::new(work));
        let (mut after, mut number) = (i64::MIN, 0);
        loop {
            let (is_meant, work) = (Arc::clone(&is_meant), Arc::clone(&work));
            let step = move |connection: &Connection| {
                let mut select = connection.prepare_cached(
                    "SELECT number, subject, tenant, began, tags FROM facts WHERE number > ?1 ORDER BY number LIMIT ?2",
                )?;
                let mut rows = select.query(params![after, STEP])?;
                let (mut meant, mut last, mut seen) = (Vec::new(), after, 0);
                while let Some(row) = rows.next()? {
                    (last, seen) = (row.get(0)?, seen + 1);
                    if is_meant(&Fact::read(row)?) {
                        meant.push(last);
                    }
                }
                for row in &meant {
                    work(connection, *row)?;
                }
                Ok((meant.len() as u64, last, seen == STEP))
            };
            let (found, last, is_more) = self.change(step).await?;
            number += found;
            after = last;
            if !is_more {
                return Ok(number);
            }
        }
    }

    /// Empties the write-ahead log, so that it contains no deleted data.
    pub(super) async fn scrub(&self) -> Result<(), DatabaseError> {
        self.database.scrub().await
    }
}

/// A guard for work that updates the key filter. If the guard is dropped between [`begin`](Self::begin) and
/// [`stand`](Self::stand), the work's changes may be undone. So it resets the filter, and all keys are counted again.
struct Counting {
    keys: Arc<KeyFilter>,
    is_open: Cell<bool>,
}

impl Counting {
    fn new(keys: &Arc<KeyFilter>) -> Self {
        Self { keys: Arc::clone(keys), is_open: Cell::new(false) }
    }

    /// Begins a run of the work. If this is not the first run, the changes of the earlier run were rolled back, so it
    /// resets the filter.
    fn begin(&self) {
        if self.is_open.replace(true) {
            self.keys.reset();
        }
    }

    /// Ends the guard without a reset, because the work has succeeded.
    fn stand(self) {
        self.is_open.set(false);
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if self.is_open.get() {
            self.keys.reset();
        }
    }
}

/// The reason why a value can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadError {
    /// The file can't be read.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The value can't be decrypted.
    #[error(transparent)]
    Unopened(#[from] Unopened),
}

impl Row {
    fn value(&self, keyring: &Keyring) -> Vec<u8> {
        let stored = UNIX_EPOCH + Duration::from_millis(self.stored);
        keyring.encrypt(&place("entry", &self.slot.key), &wire::write_entry(&self.entry, stored))
    }

    fn write(&self, connection: &Connection, value: &[u8], keys: &KeyFilter) -> rusqlite::Result<()> {
        let (slot, entry) = (&self.slot, &self.entry);
        if keys.may_have(&slot.key) {
            let mut former = connection.prepare_cached("SELECT number FROM entries WHERE key = ?1")?;
            if let Some(former) = former.query_row([&slot.key.bytes()[..]], |row| row.get(0)).optional()? {
                remove(connection, former, keys)?;
            }
        }
        keys.insert(&slot.key);
        let mut insert = connection.prepare_cached("INSERT INTO entries (key, value) VALUES (?1, ?2)")?;
        insert.execute(params![slot.key.bytes(), value])?;
        let tags: Vec<u8> = entry.tags.iter().flat_map(|tag| *tag.bytes()).collect();
        let expires = self.stored.saturating_add(millis(entry.lifetime)).saturating_add(millis(entry.grace));
        let mut insert = connection.prepare_cached("INSERT INTO facts VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        let tenant = slot.private.as_ref().map(TenantName::as_str);
        let (row, began, expires) = (connection.last_insert_rowid(), integer(entry.began), integer(expires));
        insert.execute(params![row, slot.subject.as_str(), tenant, began, expires, tags]).map(drop)
    }
}

impl Fact {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let (subject, tenant): (String, Option<String>) = (row.get(1)?, row.get(2)?);
        let tags: Vec<u8> = row.get(4)?;
        Ok(Self {
            subject: Subject::ALL.into_iter().find(|known| known.as_str() == subject),
            private: tenant.and_then(|name| name.parse().ok()),
            began: number(row.get(3)?),
            tags: tags.chunks(TAG).filter_map(Tag::from_bytes).collect(),
        })
    }
}

/// Deletes the oldest entries, 64 at a time, until the file uses at most `pages` pages or at least `most` entries are
/// deleted. Returns true if the file still uses more pages.
fn make_room(connection: &Connection, pages: u64, most: usize, keys: &KeyFilter) -> rusqlite::Result<bool> {
    let mut removed = 0;
    while used(connection)? > pages {
        if removed >= most {
            return Ok(true);
        }
        let mut select = connection.prepare_cached("SELECT number FROM entries ORDER BY number LIMIT 64")?;
        let oldest: Vec<i64> = select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        if oldest.is_empty() {
            return Ok(false);
        }
        for row in &oldest {
            remove(connection, *row, keys)?;
        }
        removed += oldest.len();
    }
    Ok(false)
}

fn remove(connection: &Connection, row: i64, keys: &KeyFilter) -> rusqlite::Result<()> {
    let mut delete = connection.prepare_cached("DELETE FROM entries WHERE number = ?1 RETURNING key")?;
    let key: Option<Vec<u8>> = delete.query_row([row], |row| row.get(0)).optional()?;
    if let Some(key) = key.and_then(|key| Key::from_bytes(&key)) {
        keys.remove(&key);
    }
    connection.prepare_cached("DELETE FROM facts WHERE number = ?1")?.execute([row])?;
    Ok(())
}

/// Returns the number of the file's pages that are in use.
fn used(connection: &Connection) -> rusqlite::Result<u64> {
    Ok(count(connection, "page_count")?.saturating_sub(count(connection, "freelist_count")?))
}

fn count(connection: &Connection, pragma: &str) -> rusqlite::Result<u64> {
    connection.prepare_cached(&format!("PRAGMA {pragma}"))?.query_row([], |row| row.get(0)).map(number)
}

/// Returns the name that is authenticated with an envelope. The envelope can be decrypted only for the same kind
/// (`entry` or `note`) and key.
fn place(kind: &str, key: &Key) -> Vec<u8> {
    [b"disk cache ", kind.as_bytes(), b" ", key.bytes()].concat()
}

/// Returns the path of the disk cache's file, which is beside the state database.
#[must_use]
pub fn beside(database: &Path) -> PathBuf {
    with_suffix(database, ".cache")
}

/// Returns `path` with `suffix` appended to its file name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use crate::base::json_template::JsonTemplate;
    use http::StatusCode;

    fn row(n: u64, tenant: Option<&str>, tag: u8, stored: Millis) -> Row {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        let private: Option<TenantName> = tenant.map(|name| name.parse().unwrap());
        let slot = CacheSlot { key: Key::from_bytes(&key).unwrap(), subject: Subject::Bank, private, began: 1 };
        let entry = Entry {
            status: StatusCode::OK,
            content_type: None,
            body: JsonTemplate::whole(&[b'x'; 700]),
            stored_at: Clock::system().now(),
            lifetime: Duration::from_secs(60),
            grace: Duration::ZERO,
            id: None,
            pending: false,
            subject: slot.subject,
            private: slot.private.clone(),
            tags: [Tag::from_bytes(&[tag; 16]).unwrap()].into(),
            began: slot.began,
        };
        Row { slot, entry: Arc::new(entry), stored }
    }

    fn keyring() -> Keyring {
        Keyring::of_bytes(&[("a", 1)])
    }

    async fn put(file: &DiskFile, rows: Vec<Row>) {
        file.put(rows, keyring(), Arc::new(Epochs::new())).await.unwrap();
    }

    async fn is_there(file: &DiskFile, row: &Row) -> bool {
        file.entry(&row.slot.key, keyring()).await.unwrap().is_some()
    }

    fn bytes(path: &Path) -> u64 {
        let of = |suffix| std::fs::metadata(with_suffix(path, suffix)).map_or(0, |file| file.len());
        of("") + of("-wal")
    }

    #[tokio::test]
    async fn the_file_stays_within_its_bound_and_the_oldest_entries_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let (path, bound) = (folder.path().join("x"), ByteSize::mib(2));
        let file = DiskFile::open(&path, bound).unwrap();
        for batch in 0..60 {
            put(&file, (0..100).map(|n| row(batch * 100 + n, None, 1, 0)).collect()).await;
            assert!(bytes(&path) <= bound.bytes(), "{batch}: {}", bytes(&path));
        }
        let mut kept = 0;
        for n in 0..6000 {
            let is_kept = is_there(&file, &row(n, None, 1, 0)).await;
            assert!(is_kept || kept == 0, "{n} is newer than one that is there");
            kept += u64::from(is_kept);
        }
        assert!(kept > 1000, "{kept}");
        file.close().await;

        let bound = ByteSize::kib(1024);
        let file = DiskFile::open(&path, bound).unwrap();
        while file.tidy(0).await.unwrap() {}
        file.scrub().await.unwrap();
        assert!(bytes(&path) <= bound.bytes() && is_there(&file, &row(5999, None, 1, 0)).await, "{}", bytes(&path));
    }

    /// Tests work that runs a second time, because other work in the same transaction fails.
    #[tokio::test]
    async fn keys_are_counted_once_although_their_work_ran_twice() {
        let folder = tempfile::tempdir().unwrap();
        let file = DiskFile::open(&folder.path().join("x"), ByteSize::mib(1)).unwrap();
        while file.learn_keys().await.unwrap() {}
        let (go, wait) = std::sync::mpsc::sync_channel::<()>(0);
        let gate = file.database.write(move |_| {
            let _ = wait.recv();
            Ok(())
        });
        let one = row(1, None, 1, 0);
        let put = file.put(vec![one.clone()], keyring(), Arc::new(Epochs::new()));
        let bad = file.database.write(|connection| connection.execute("DELETE FROM nowhere", []));
        let (mut gate, mut put, mut bad) = (Box::pin(gate), Box::pin(put), Box::pin(bad));
        let all_wait = futures_util::poll!(&mut gate).is_pending()
            && futures_util::poll!(&mut put).is_pending()
            && futures_util::poll!(&mut bad).is_pending();
        assert!(all_wait, "they share a transaction");
        drop(go);
        assert_eq!(tokio::join!(gate, put, bad), (Ok(()), Ok(()), Err(DatabaseError::Refused)));
        while file.learn_keys().await.unwrap() {}
        assert!(file.keys.may_have(&one.slot.key) && is_there(&file, &one).await);
        assert_eq!(file.remove(|_| true).await, Ok(1));
        assert!(!file.keys.may_have(&one.slot.key));
    }

    #[tokio::test]
    async fn what_is_over_is_deleted_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = DiskFile::open(&folder.path().join("x"), ByteSize::mib(1)).unwrap();
        let (old, new, own) = (row(1, None, 1, 0), row(2, None, 2, 5_000), row(3, Some("lending"), 3, 5_000));
        put(&file, vec![old.clone(), new.clone(), own.clone()]).await;
        file.note(new.slot.key.clone(), b"note".to_vec(), keyring(), 60_000).await.unwrap();
        assert_eq!(file.noted(&new.slot.key, keyring()).await.unwrap().as_deref(), Some(&b"note"[..]));
        assert!(!file.tidy(60_000).await.unwrap());
        assert_eq!(file.noted(&new.slot.key, keyring()).await.unwrap(), None);
        assert_eq!((is_there(&file, &old).await, is_there(&file, &new).await), (false, true));
        let tag = new.entry.tags[0];
        assert_eq!(file.remove(move |fact| fact.tags.contains(&tag)).await.unwrap(), 1);
        assert_eq!((is_there(&file, &new).await, is_there(&file, &own).await), (false, true));
        assert_eq!(file.remove(|fact| fact.private.is_some()).await.unwrap(), 1);
        assert!(!is_there(&file, &own).await);
    }

    #[tokio::test]
    async fn an_entry_of_another_key_does_not_open_and_one_of_an_erased_person_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = DiskFile::open(&folder.path().join("x"), ByteSize::mib(1)).unwrap();
        let (row, epochs) = (row(1, None, 1, 0), Arc::new(Epochs::new()));
        put(&file, vec![row.clone()]).await;
        let other = file.entry(&row.slot.key, Keyring::of_bytes(&[("b", 2)])).await;
        assert_eq!(other, Err(ReadError::Unopened(Unopened::UnknownKey)));
        file.remove(|_| true).await.unwrap();
        epochs.erase(2, &row.entry.tags.iter().copied().collect());
        file.put(vec![row.clone()], keyring(), epochs).await.unwrap();
        assert!(!is_there(&file, &row).await);
    }
}
