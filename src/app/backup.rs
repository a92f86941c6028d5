//! Backups of a node's state: a backup is made while the node serves, and a restore repeats all later erasures.
//!
//! Invariants: a copy is consistent, and holds personal data in envelopes only; a restore sets the replaced state
//! aside, and changes nothing if it fails before it renames the files; after a restore, the gateway uses no cached
//! answer that was stored before the restore.

use super::error::StartError;
use super::storage;
use crate::base::clock::Clock;
use crate::base::database::{self, Database, DatabaseError, OpenError};
use crate::base::steady_clock;
use crate::cache;
use crate::config::Settings;
use crate::iluma::person::Tag;
use crate::state::{self, Erased, KeyError, Sqlite, State, StateError, StoredReceipt};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The first bytes of an SQLite database.
const DATABASE: &[u8] = b"SQLite format 3\0";

/// The reason why a copy was not made or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is no state at the configured path. Holds the path.
    #[error("state.path: there is no state at {}: no gateway with this configuration has run here", .0.display())]
    NoState(PathBuf),
    /// A running gateway uses the state. Holds the path of the state.
    #[error("state.path: a running gateway uses {}: stop it, restore, and start it again", .0.display())]
    Running(PathBuf),
    /// The file is not a copy of state, or is damaged. Holds the path of the file.
    #[error("{} is no backup of iluma-gateway, or is damaged: give a file that `iluma-gateway backup` has written", .0.display())]
    NotABackup(PathBuf),
    /// A line of the file is not the receipt of an erasure. Holds the file and the line's number.
    #[error(
        "{}: line {} is no receipt of an erasure: give a file that `iluma-gateway erasures` has written, or a backup",
        .0.display(), .1
    )]
    NotReceipts(PathBuf, usize),
    /// A configured key is not the key of the state.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// A file can't be read or written.
    #[error("{}: {}", .0.display(), .1)]
    File(PathBuf, io::Error),
    /// The database can't be read or written.
    #[error("{}: {}", .0.display(), .1)]
    Sqlite(PathBuf, rusqlite::Error),
    /// The restored state can't be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The restored state can't be changed.
    #[error("the restored state can't be written: {0}")]
    State(#[from] StateError),
    /// The restored database can't be changed.
    #[error("the restored state can't be written: {0}")]
    Database(#[from] DatabaseError),
}

/// An order to restore a copy.
#[derive(Debug)]
pub struct RestoreOrder<'a> {
    /// The file with the copy.
    pub from: &'a Path,
    /// A file whose erasures the restore repeats as well: exported receipts, another copy, or a database. `None` if
    /// there is no such file.
    pub erasures: Option<&'a Path>,
    /// True to keep the keys that were made by the API; false to drop them.
    pub keep_keys: bool,
}

/// The result of a restore.
#[derive(Debug)]
pub struct Restored {
    /// The number of person tags with a known erasure. The restore has erased the entries with these tags in the copy.
    pub persons: usize,
    /// The numbers of entries that the restore erased in the copy.
    pub erased: Erased,
    /// The number of keys made by the API that the restore dropped.
    pub keys: u64,
    /// The path of the replaced state; `None` if there was none.
    pub aside: Option<PathBuf>,
    /// True if the erasures in the replaced state could not be read, and so were not repeated.
    pub is_former_unreadable: bool,
}

/// Copies the state to a new file. The gateway may serve meanwhile. The copy does not contain the cache.
///
/// # Errors
/// Returns an error if there is no state, if its keys are not the configured keys, or if a file can't be read or
/// written. After an error no new file is left.
pub fn back_up(settings: &Settings, to: &Path) -> Result<(), BackupError> {
    let path = &settings.state.path;
    if !path.exists() {
        return Err(BackupError::NoState(path.clone()));
    }
    state::verify_file(&settings.state)?;
    let file = |error| BackupError::File(to.to_owned(), error);
    let name = to.to_str().ok_or_else(|| file(io::Error::new(io::ErrorKind::InvalidInput, "its path is not UTF-8")))?;
    // The file is created here, because SQLite would let other users read it.
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(file)?;
    let copied = copy_into(path, name).map_err(|error| BackupError::Sqlite(path.clone(), error));
    let copied = copied.and_then(|()| created.sync_all().map_err(file));
    if copied.is_err() {
        let _ = fs::remove_file(to);
    }
    copied
}

fn copy_into(path: &Path, to: &str) -> rusqlite::Result<()> {
    // The database is not opened read-only: if no gateway has it open, SQLite must recover its write-ahead log.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute("VACUUM INTO ?1", [to])?;
    Ok(())
}

/// Replaces the state by a copy. In the copy, repeats all erasures that the replaced state or the order's file lists.
///
/// # Errors
/// Returns an error if the gateway runs, if the file is not a backup, if a configured key is not a key of the copy, or
/// if a file can't be read or written. The state is unchanged then, unless an error occurs while the files are renamed.
pub async fn restore(settings: &Settings, order: RestoreOrder<'_>) -> Result<Restored, BackupError> {
    let path = &settings.state.path;
    verify(order.from)?;
    let former = former_erasures(path).await?;
    let is_former_unreadable = former.is_none();
    let mut known = former.unwrap_or_default();
    if let Some(file) = order.erasures {
        known.extend(erasures_in(file)?);
    }
    let new = with_suffix(path, ".restoring");
    discard_all(&new)?;
    let prepared = prepare(settings, &order, &new, known).await;
    let replaced = match prepared {
        Ok(done) => replace(path, &new).map(|aside| (done, aside)),
        Err(error) => Err(error),
    };
    discard_all(&new)?;
    let ((persons, erased, keys), aside) = replaced?;
    Ok(Restored { persons, erased, keys, aside, is_former_unreadable })
}

/// Makes the new state from a copy, in a file beside the current state. Returns the number of person tags with a known
/// erasure, the numbers of erased entries, and the number of dropped keys.
async fn prepare(
    settings: &Settings,
    order: &RestoreOrder<'_>,
    new: &Path,
    known: KnownErasures,
) -> Result<(usize, Erased, u64), BackupError> {
    let file = |error| BackupError::File(new.to_owned(), error);
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new).map_err(file)?;
    let mut source = fs::File::open(order.from).map_err(|error| BackupError::File(order.from.to_owned(), error))?;
    io::copy(&mut source, &mut target).map_err(file)?;
    target.sync_all().map_err(file)?;
    let database = storage::open(new)?;
    let prepared = renew(settings, order, &database, known).await;
    database.close().await;
    prepared
}

async fn renew(
    settings: &Settings,
    order: &RestoreOrder<'_>,
    database: &Database,
    known: KnownErasures,
) -> Result<(usize, Erased, u64), BackupError> {
    state::verify_database(database, &settings.state).await?;
    cache::forget_epochs(database).await?;
    let clock = Clock::system();
    let state = State::Sqlite(Arc::new(Sqlite::new(database.clone(), &settings.state, clock.clone())));
    let KnownErasures { mut tags, receipts } = known;
    tags.extend(state::persons_of(&receipts));
    let persons: Vec<Tag> = tags.iter().copied().collect();
    let erased = state.erase(&persons).await?;
    cache::note_erased(database, tags, steady_clock::wall(&clock)).await?;
    state::keep_receipts(database, receipts, settings.state.redis.is_none()).await?;
    database.write(end_sessions).await?;
    let keys = if order.keep_keys { 0 } else { database.write(drop_keys).await? };
    database.scrub().await?;
    Ok((persons.len(), erased, keys))
}

/// Deletes all browser sessions, because some may have ended after the copy was made.
fn end_sessions(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute("DELETE FROM sessions", [])
}

/// Deletes the keys that were made by the API, because some may have been revoked after the copy was made. Returns the
/// number of deleted keys.
fn drop_keys(connection: &Connection) -> rusqlite::Result<u64> {
    let table = "SELECT 1 FROM sqlite_master WHERE name = 'registry'";
    if connection.query_row(table, [], |_| Ok(())).optional()?.is_none() {
        return Ok(0);
    }
    connection.execute("DELETE FROM registry WHERE field = 'key'", []).map(|count| count as u64)
}

/// Renames the current state, and puts the new file in its place. Also deletes the cache on disk. Returns the new path
/// of the replaced state; `None` if there was no state.
fn replace(path: &Path, new: &Path) -> Result<Option<PathBuf>, BackupError> {
    let file = |error| BackupError::File(path.to_owned(), error);
    let _reserved = database::reserve(path).map_err(|error| refused(path, error))?;
    let aside = with_suffix(path, ".before-restore");
    let is_there = path.exists();
    cache::delete_disk_cache(&cache::disk_cache_of(path)).map_err(file)?;
    if !is_there {
        // A log without its database would be applied to the new one. A state that was set aside earlier stays.
        ["-wal", "-shm"].into_iter().try_for_each(|suffix| discard(&with_suffix(path, suffix)))?;
        fs::rename(new, path).map_err(file)?;
        return Ok(None);
    }
    discard_all(&aside)?;
    let replaced = move_database(path, &aside).and_then(|()| fs::rename(new, path));
    if let Err(error) = replaced {
        let _ = move_database(&aside, path);
        return Err(file(error));
    }
    Ok(Some(aside))
}

/// Renames a database, and the write-ahead log beside it if there is one. A log is left only if the database was too
/// damaged to be opened.
fn move_database(from: &Path, to: &Path) -> io::Result<()> {
    ["", "-wal", "-shm"].into_iter().try_for_each(|suffix| {
        match fs::rename(with_suffix(from, suffix), with_suffix(to, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    })
}

/// The erasures that a restore repeats, and their receipts, which are added to the new state.
#[derive(Debug, Default)]
struct KnownErasures {
    tags: BTreeSet<Tag>,
    receipts: Vec<StoredReceipt>,
}

impl KnownErasures {
    /// Reads the erasures of a database.
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Self { tags: cache::erased(connection)?, receipts: state::stored_receipts(connection)? })
    }

    fn extend(&mut self, other: Self) {
        self.tags.extend(other.tags);
        self.receipts.extend(other.receipts);
    }
}

/// Returns the erasures in a file: a database, or exported receipts.
fn erasures_in(file: &Path) -> Result<KnownErasures, BackupError> {
    let io = |error| BackupError::File(file.to_owned(), error);
    let mut begin = Vec::new();
    fs::File::open(file).map_err(io)?.take(DATABASE.len() as u64).read_to_end(&mut begin).map_err(io)?;
    if begin == DATABASE {
        verify(file)?;
        return read(file).and_then(|connection| KnownErasures::read(&connection)).map_err(|_| no_backup(file));
    }
    let mut receipts = Vec::new();
    for (at, line) in io::BufReader::new(fs::File::open(file).map_err(io)?).lines().enumerate() {
        let line = line.map_err(|_| BackupError::NotReceipts(file.to_owned(), at + 1))?;
        receipts.push(StoredReceipt::read(&line).ok_or_else(|| BackupError::NotReceipts(file.to_owned(), at + 1))?);
    }
    Ok(KnownErasures { receipts, ..KnownErasures::default() })
}

/// Returns the erasures in the state that will be replaced; `None` if that state can't be read.
async fn former_erasures(path: &Path) -> Result<Option<KnownErasures>, BackupError> {
    if !path.exists() {
        return Ok(Some(KnownErasures::default()));
    }
    let database = match storage::open(path) {
        Ok(database) => database,
        Err(StartError::State { source: OpenError::InUse, .. }) => return Err(BackupError::Running(path.to_owned())),
        Err(_) => return Ok(None),
    };
    let erased = database.read(KnownErasures::read).await.ok();
    // The write-ahead log is moved into the file, because only the file is set aside.
    let _: Result<(), DatabaseError> = database.scrub().await;
    database.close().await;
    Ok(erased)
}

/// Returns an error for a file that is not a copy of state, or is damaged.
fn verify(file: &Path) -> Result<(), BackupError> {
    let look = || -> rusqlite::Result<bool> {
        let connection = read(file)?;
        let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        let part = "SELECT 1 FROM schema WHERE part = 'ledger'";
        Ok(check == "ok" && connection.query_row(part, [], |_| Ok(())).optional()?.is_some())
    };
    if look().unwrap_or(false) { Ok(()) } else { Err(no_backup(file)) }
}

fn read(file: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

fn no_backup(file: &Path) -> BackupError {
    BackupError::NotABackup(file.to_owned())
}

fn refused(path: &Path, error: OpenError) -> BackupError {
    match error {
        OpenError::InUse => BackupError::Running(path.to_owned()),
        source @ (OpenError::Later | OpenError::Io(_) | OpenError::Sqlite(_)) => {
            StartError::State { path: path.to_owned(), source }.into()
        }
    }
}

fn discard_all(file: &Path) -> Result<(), BackupError> {
    ["", "-wal", "-shm", ".lock"].into_iter().try_for_each(|suffix| discard(&with_suffix(file, suffix)))
}

fn discard(file: &Path) -> Result<(), BackupError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BackupError::File(file.to_owned(), error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_state_is_set_aside_with_its_log_and_an_earlier_one_stays_if_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let read = |name: &str| fs::read_to_string(at(name)).ok();
        let put = |files: &[&str]| files.iter().for_each(|name| fs::write(at(name), name).unwrap());
        put(&["new", "x.db-wal", "x.db.before-restore"]);
        assert!(replace(&at("x.db"), &at("new")).is_ok_and(|aside| aside.is_none()));
        assert_eq!((read("x.db").as_deref(), read("x.db-wal")), (Some("new"), None));
        assert_eq!(read("x.db.before-restore").as_deref(), Some("x.db.before-restore"));
        put(&["newer", "x.db-wal"]);
        assert!(replace(&at("x.db"), &at("newer")).is_ok_and(|aside| aside.is_some()));
        assert_eq!((read("x.db").as_deref(), read("x.db-wal")), (Some("newer"), None));
        assert_eq!(read("x.db.before-restore").as_deref(), Some("new"));
        assert_eq!(read("x.db.before-restore-wal").as_deref(), Some("x.db-wal"));
        // If the new file can't take its place, the former state is there again.
        assert!(replace(&at("x.db"), &at("none")).is_err());
        assert_eq!(read("x.db").as_deref(), Some("newer"));
    }
}
