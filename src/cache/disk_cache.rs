//! L2 of a gateway without Redis: entries in a file beside the database.
//!
//! Invariants: the gateway starts and requests are answered even if the file or its disk fails; a restart does not
//! reset the age of an entry; a stored entry is in the file within a second; an entry that names an erased person is
//! never served or written again.

use super::disk_file::{self, DiskFile, Fact, ReadError, Row};
use super::entry::Entry;
use super::epoch::{Change, Epochs};
use super::key::Key;
use super::redis_cache::Counts;
use super::slot::CacheSlot;
use super::wire;
use crate::base::byte_size::ByteSize;
use crate::base::clock::Clock;
use crate::base::database::DatabaseError;
use crate::base::disk::Disk;
use crate::base::keyring::Keyring;
use crate::base::steady_clock::{SteadyClock, millis};
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tokio::sync::Notify;

/// The longest time for which a request waits for a read of the file. A healthy disk needs less. A call to Iluma takes
/// much longer, so the wait costs little.
const READING: Duration = Duration::from_millis(250);
/// The pause after a read that took longer than [`READING`]. Meanwhile requests do not use the file, and waiting
/// entries are not written.
const REST: Duration = Duration::from_secs(1);
/// The largest total size, in bytes, of the entries that wait to be written. Further entries are kept in memory only.
const MOST_WAITING: usize = 32 << 20;
/// The approximate size, in bytes, of the entries that one transaction writes.
const TOGETHER: usize = 1 << 20;
/// The assumed size, in bytes, of an entry without its body. The key, the tags and the other fields together are
/// smaller.
const OVERHEAD: usize = 512;

/// The disk cache: entries in a file.
#[derive(Debug)]
pub(super) struct DiskCache {
    path: PathBuf,
    bound: ByteSize,
    disk: Disk,
    /// The open file; `None` while no file can be used.
    file: ArcSwapOption<DiskFile>,
    keyring: Keyring,
    epochs: Arc<Epochs>,
    clock: Clock,
    time: Arc<SteadyClock>,
    waiting: Mutex<Waiting>,
    /// The lock that a flush holds, so that only one runs at a time. A purge begins with a flush of its own. So it
    /// waits for a running flush, which could otherwise write its entries after the purge.
    flushing: tokio::sync::Mutex<()>,
    pub(super) arrived: Notify,
    /// True once a read or a write has found the file damaged, until the file is set aside.
    is_damaged: AtomicBool,
    /// True while entries can't be written: the last batch failed, or the disk is nearly full.
    is_stuck: AtomicBool,
    slow_until: Mutex<Option<Instant>>,
    pub(super) counts: Arc<Counts>,
}

/// Entries that wait to be written.
#[derive(Debug, Default)]
struct Waiting {
    rows: HashMap<Key, Row>,
    bytes: usize,
}

/// Settings of the disk cache.
#[derive(Debug)]
pub(super) struct DiskCacheSettings {
    /// The path of the file.
    pub(super) path: PathBuf,
    /// The largest size of the file.
    pub(super) bound: ByteSize,
    /// The free space of the disk that is reserved for state. The cache stores nothing while less than twice this size
    /// is free.
    pub(super) reserve: ByteSize,
    /// The keys that encrypt stored values.
    pub(super) keyring: Keyring,
}

impl DiskCache {
    /// Makes the cache and opens its file. If the file can't be opened, the cache stores nothing until
    /// [`tidy`](Self::tidy) opens one.
    pub(super) fn open(settings: DiskCacheSettings, epochs: Arc<Epochs>, time: Arc<SteadyClock>, clock: Clock) -> Self {
        let DiskCacheSettings { path, bound, reserve, keyring } = settings;
        let cache = Self {
            // Twice the reserve: the cache stops early, so it never takes the space that is reserved for state.
            disk: Disk::of(&path, reserve.bytes().saturating_mul(2)),
            path,
            bound,
            file: ArcSwapOption::empty(),
            keyring,
            epochs,
            clock,
            time,
            waiting: Mutex::default(),
            flushing: tokio::sync::Mutex::default(),
            arrived: Notify::new(),
            is_damaged: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
            slow_until: Mutex::new(None),
            counts: Arc::default(),
        };
        cache.reopen(true);
        cache
    }

    /// Returns true while the file can be read and written.
    pub(super) fn is_up(&self) -> bool {
        !self.is_stuck.load(Ordering::Relaxed) && self.file.load().as_ref().is_some_and(|file| file.is_writable())
    }

    /// Returns the entry of a slot, which may be past its lifetime. Returns `None` if there is none, if it can't be
    /// read, or if it names a person who was erased since its call began.
    pub(super) async fn look_up(&self, slot: &CacheSlot) -> Option<Entry> {
        let waiting = self.waiting.lock().rows.get(&slot.key).map(|row| Arc::clone(&row.entry));
        let (count, entry) = match waiting {
            Some(entry) => (&self.counts.hits, Some((*entry).clone())),
            None => match self.read(slot).await {
                Ok(Some(entry)) if self.is_over(&entry) => (&self.counts.misses, Some(entry)),
                Ok(Some(entry)) => (&self.counts.hits, Some(entry)),
                Ok(None) => (&self.counts.misses, None),
                Err(ReadError::Unopened(_)) => (&self.counts.damaged, None),
                Err(ReadError::Database(_)) => (&self.counts.out, None),
            },
        };
        count.fetch_add(1, Ordering::Relaxed);
        entry.filter(|entry| !self.epochs.erased_since(entry.began, &entry.tags))
    }

    async fn read(&self, slot: &CacheSlot) -> Result<Option<Entry>, ReadError> {
        let file = self.usable()?;
        let value = self.in_time(file.entry(&slot.key, self.keyring.clone())).await?;
        Ok(value.and_then(|plain| {
            let now = self.clock.now();
            let (mut entry, stored) = wire::read_entry(&plain, slot, now)?;
            // The age of an entry from the future is unknown, so such an entry is not used.
            let age = self.time.now().checked_sub(millis(stored.duration_since(UNIX_EPOCH).ok()?))?;
            entry.stored_at = now.checked_sub(Duration::from_millis(age))?;
            Some(entry)
        }))
    }

    fn is_over(&self, entry: &Entry) -> bool {
        self.clock.now().saturating_duration_since(entry.stored_at) >= entry.lifetime
    }

    /// Queues an entry to be written soon. It is not queued while no file is open or too many bytes wait.
    pub(super) fn store(&self, slot: &CacheSlot, entry: &Arc<Entry>) {
        if self.file.load().is_none() {
            return;
        }
        let age = self.clock.now().saturating_duration_since(entry.stored_at);
        let stored = self.time.now().saturating_sub(millis(age));
        let row = Row { slot: slot.clone(), entry: Arc::clone(entry), stored };
        let mut waiting = self.waiting.lock();
        let bytes = waiting.bytes + bytes_of(&row);
        if bytes <= MOST_WAITING {
            waiting.bytes = bytes;
            if let Some(former) = waiting.rows.insert(slot.key.clone(), row) {
                waiting.bytes -= bytes_of(&former);
            }
            self.arrived.notify_one();
        }
    }

    /// Stores `value`, the encoded slot for the final answer to a pending request. `id` is the keyed hash of Iluma's id
    /// of that request. Nothing is stored while the file can't be used or the disk is nearly full.
    pub(super) async fn note(&self, id: &Key, value: Vec<u8>, lifetime: Duration) {
        let expires = self.time.now().saturating_add(millis(lifetime));
        if let Ok(file) = self.usable()
            && !self.disk.is_low()
        {
            let noted = file.note(id.clone(), value, self.keyring.clone(), expires).await;
            self.judge(&noted);
        }
    }

    /// Returns the value that [`note`](Self::note) stored for an id. Returns `None` if there is none, or if it can't be
    /// read.
    pub(super) async fn noted(&self, id: &Key) -> Option<Vec<u8>> {
        self.in_time(self.usable().ok()?.noted(id, self.keyring.clone())).await.ok()?
    }

    /// Deletes the entries that a change names. Returns their number.
    ///
    /// # Errors
    /// Returns an error if the file can't be used, or if not everything could be deleted.
    pub(super) async fn remove(&self, change: &Change) -> Result<u64, DatabaseError> {
        let is_over = ended_by(change);
        // Waiting entries are written first, so that they are counted in the file. An entry that could not be written
        // and that the change removes is dropped.
        self.flush().await;
        {
            let mut waiting = self.waiting.lock();
            waiting
                .rows
                .retain(|_, Row { slot, entry, .. }| !change.hits(slot.subject, slot.private.as_ref(), &entry.tags));
            waiting.bytes = waiting.rows.values().map(bytes_of).sum();
        }
        let removed = match self.file.load_full() {
            Some(file) => {
                let removed = file.remove(is_over).await;
                self.judge(&removed);
                let removed = removed?;
                match change {
                    Change::Erased(_) => file.scrub().await?,
                    Change::Subject(_) | Change::Tenant(_) | Change::All | Change::Registry => {}
                }
                removed
            }
            None if self.path.exists() => return Err(DatabaseError::Unwritable),
            None => 0,
        };
        if let Change::Erased(_) = change {
            // The contents of a file that was set aside are unknown, so it is deleted.
            self.discard_aside().map_err(|_| DatabaseError::Unwritable)?;
        }
        Ok(removed)
    }

    /// Returns the number of entries that a change would delete.
    ///
    /// # Errors
    /// Returns an error if the file can't be used.
    pub(super) async fn count(&self, change: &Change) -> Result<u64, DatabaseError> {
        self.flush().await;
        match self.file.load_full() {
            Some(file) => {
                let counted = file.count(ended_by(change)).await;
                self.judge(&counted);
                counted
            }
            None if self.path.exists() => Err(DatabaseError::Unwritable),
            None => Ok(0),
        }
    }

    /// Writes the waiting entries. Returns true if all are written.
    pub(super) async fn flush(&self) -> bool {
        let _turn = self.flushing.lock().await;
        let Ok(file) = self.usable() else { return self.waiting.lock().rows.is_empty() };
        if self.waiting.lock().rows.is_empty() {
            return true;
        }
        if self.disk.is_low() {
            if !self.is_stuck.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    path = %self.path.display(),
                    "less than twice state.disk_reserve of the disk is free: answers are not stored on disk; free some space"
                );
            }
            return false;
        }
        loop {
            let rows = self.waiting.lock().batch();
            if rows.is_empty() {
                self.is_stuck.store(false, Ordering::Relaxed);
                return true;
            }
            let written = file.put(rows.clone(), self.keyring.clone(), Arc::clone(&self.epochs)).await;
            self.judge(&written);
            self.is_stuck.store(written.is_err(), Ordering::Relaxed);
            if written.is_err() {
                return false;
            }
            self.waiting.lock().written(&rows);
        }
    }

    /// Does some of the periodic maintenance: sets a damaged file aside, opens a file if none is open, deletes some
    /// expired entries, and counts some of the file's keys in the key filter. Returns true if there is more to do.
    pub(super) async fn tidy(&self) -> bool {
        if self.is_damaged.load(Ordering::Relaxed) {
            self.set_aside().await;
        }
        if self.file.load().is_none() {
            self.reopen(false);
        }
        let Some(file) = self.file.load_full() else { return false };
        let tidied = file.tidy(self.time.now()).await;
        self.judge(&tidied);
        let learned = file.learn_keys().await;
        self.judge(&learned);
        tidied == Ok(true) || learned == Ok(true)
    }

    /// Deletes entries that name an erased person, because an older copy of the file may have been restored.
    pub(super) async fn forget_erased(&self) {
        if let Some(file) = self.file.load_full() {
            let epochs = Arc::clone(&self.epochs);
            let removed = file.remove(move |fact| epochs.erased_since(fact.began, &fact.tags)).await;
            self.judge(&removed);
        }
    }

    /// Closes the file.
    pub(super) async fn close(&self) {
        if let Some(file) = self.file.swap(None) {
            file.close().await;
        }
    }

    /// Returns the open file. Returns an error if no file is open, if the file is damaged, or during the pause after a
    /// slow read.
    fn usable(&self) -> Result<Arc<DiskFile>, DatabaseError> {
        let is_slow = self.slow_until.lock().is_some_and(|until| self.clock.now() < until);
        let file = self.file.load_full().filter(|_| !is_slow && !self.is_damaged.load(Ordering::Relaxed));
        file.ok_or(DatabaseError::Closed)
    }

    async fn in_time<T>(&self, reading: impl Future<Output = Result<T, ReadError>>) -> Result<T, ReadError> {
        let Ok(read) = tokio::time::timeout(READING, reading).await else {
            *self.slow_until.lock() = Some(self.clock.now() + REST);
            return Err(DatabaseError::Closed.into());
        };
        if let Err(ReadError::Database(error)) = &read {
            self.judge::<()>(&Err(*error));
        }
        read
    }

    fn judge<T>(&self, outcome: &Result<T, DatabaseError>) {
        if matches!(outcome, Err(DatabaseError::Damaged)) && !self.is_damaged.swap(true, Ordering::Relaxed) {
            self.arrived.notify_one();
        }
    }

    /// Opens the file. If the file itself prevents this, for example because it is damaged, moves it aside and makes a
    /// new file. If no file can be opened, the fault is logged only if `is_start`.
    fn reopen(&self, is_start: bool) {
        let mut opened = DiskFile::open(&self.path, self.bound);
        if let Err(error) = &opened
            && error.is_about_the_file()
            && self.path.exists()
            && self.move_aside().is_ok()
        {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the disk cache can't be opened: its file is set aside, and a new one is made");
            opened = DiskFile::open(&self.path, self.bound);
        }
        match opened {
            Ok(file) => self.file.store(Some(Arc::new(file))),
            // The fault is logged once; the metric `cache_disk_up` shows it while it lasts.
            Err(error) if is_start => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "the disk cache can't be opened: answers are kept in memory only; repair the disk or its permissions");
            }
            Err(_) => {}
        }
    }

    async fn set_aside(&self) {
        let path = self.path.display();
        tracing::warn!(%path, "the disk cache is damaged: it is set aside, and a new one is made");
        self.close().await;
        if self.move_aside().is_ok() {
            self.is_damaged.store(false, Ordering::Relaxed);
        }
    }

    fn move_aside(&self) -> io::Result<()> {
        std::fs::rename(&self.path, self.aside())?;
        remove_side_files(&self.path)
    }

    fn discard_aside(&self) -> io::Result<()> {
        discard(&self.aside())
    }

    fn aside(&self) -> PathBuf {
        disk_file::with_suffix(&self.path, ".damaged")
    }
}

/// Returns a predicate that is true for the entries that a change names, and for entries with an unknown subject.
fn ended_by(change: &Change) -> impl Fn(&Fact) -> bool + Send + Sync + 'static {
    let change = change.clone();
    move |fact| match fact.subject {
        Some(subject) => change.hits(subject, fact.private.as_ref(), &fact.tags),
        // A later version wrote the entry; this version can't read its subject, so the entry is deleted.
        None => true,
    }
}

/// Deletes the file of a disk cache that is no longer used, with its side files.
///
/// # Errors
/// Returns an error if a file could not be deleted.
pub fn delete(path: &std::path::Path) -> io::Result<()> {
    for suffix in ["", ".damaged", ".lock"] {
        discard(&disk_file::with_suffix(path, suffix))?;
    }
    remove_side_files(path)
}

fn remove_side_files(path: &std::path::Path) -> io::Result<()> {
    for suffix in ["-wal", "-shm", "-journal"] {
        discard(&disk_file::with_suffix(path, suffix))?;
    }
    Ok(())
}

fn discard(path: &std::path::Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Waiting {
    /// Returns waiting entries of about [`TOGETHER`] bytes in total, or all if there are fewer. They keep waiting until
    /// they are written.
    fn batch(&self) -> Vec<Row> {
        let mut bytes = 0;
        let within = |row: &&Row| {
            let before = bytes;
            bytes += bytes_of(row);
            before < TOGETHER
        };
        self.rows.values().take_while(within).cloned().collect()
    }

    fn written(&mut self, rows: &[Row]) {
        for row in rows {
            let is_same = |waiting: &Row| Arc::ptr_eq(&waiting.entry, &row.entry);
            if self.rows.get(&row.slot.key).is_some_and(is_same) {
                self.rows.remove(&row.slot.key);
                self.bytes = self.bytes.saturating_sub(bytes_of(row));
            }
        }
    }
}

fn bytes_of(row: &Row) -> usize {
    row.entry.body.len() + OVERHEAD
}
