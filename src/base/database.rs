//! The embedded database: one SQLite file, one process, one writer.
//!
//! Invariants: what [`Database::write`] returned is on disk; a file serves one process at a time; work that fails takes
//! nothing of its neighbours' with it; what is deleted is overwritten.

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Work that may wait for the writer; who comes then waits in turn.
const MOST_WAITING: usize = 1024;
/// Work that shares one transaction, so that the first of it is not kept waiting by all the rest.
const MOST_TOGETHER: usize = 256;
/// Readers at once; more wait.
const READERS: usize = 2;
/// Statements that stay compiled, a connection: more than the gateway has, so that none is ever compiled twice.
const MOST_COMPILED: usize = 128;

/// Why a database can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another process uses this file already: one file serves one gateway")]
    InUse,
    /// A later version of the gateway has written it.
    #[error("the file was written by a later version of the gateway")]
    Later,
    /// The file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The database in it.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// Why work was not done. Nothing of it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseError {
    /// The disk is full or fails, or somebody else holds the file.
    #[error("the database can't be written")]
    Unwritable,
    /// What was to be done can't be done: a constraint, a damaged row, a mistake of ours.
    #[error("the database refused the work")]
    Refused,
    /// It was closed.
    #[error("the database is closed")]
    Closed,
}

/// A database that is open. Clones share it.
#[derive(Clone, Debug)]
pub struct Database(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    work: mpsc::Sender<Job>,
    readers: Mutex<Vec<Connection>>,
    places: tokio::sync::Semaphore,
}

enum Job {
    Work(Work),
    Close(oneshot::Sender<()>),
}

/// Does its work, if there is a transaction for it, and gives back what is to be told once it is on disk, or could not be.
type Work = Box<dyn FnOnce(Result<&Connection, DatabaseError>) -> Tell + Send>;
type Tell = Box<dyn FnOnce(Result<(), DatabaseError>) + Send>;

impl Database {
    /// Opens the file at `path`, makes it where there is none, and brings it up to the last of the `migrations`, which
    /// are lists of statements by the part that they belong to. A part's list only ever grows.
    ///
    /// # Errors
    /// Another process has the file, or it can't be opened or brought up to date.
    pub fn open(path: &Path, migrations: &[(&str, &[&str])]) -> Result<Self, OpenError> {
        let lock = lock(path)?;
        // Made by us, so that nobody else may read it.
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::start(|| Connection::open_with_flags(path, flags), Some(lock), migrations)
    }

    /// A database in memory, gone with the process.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn in_memory(migrations: &[(&str, &[&str])]) -> Result<Self, OpenError> {
        let name = uuid::Uuid::new_v4();
        let uri = format!("file:{name}?mode=memory&cache=shared");
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::start(|| Connection::open_with_flags(&uri, flags), None, migrations)
    }

    fn start(
        open: impl Fn() -> rusqlite::Result<Connection>,
        lock: Option<File>,
        migrations: &[(&str, &[&str])],
    ) -> Result<Self, OpenError> {
        let open = || {
            let connection = open()?;
            connection.set_prepared_statement_cache_capacity(MOST_COMPILED);
            Ok(connection)
        };
        let mut writer = open()?;
        // Deleted rows are overwritten, since they may be about persons; a checkpoint then does the same to the log. Names
        // are random, so every row is on a page of its own: 16 MiB of pages are remembered, and as many go back at once.
        writer.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA foreign_keys = ON;
             PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 4096;",
        )?;
        migrate(&mut writer, migrations)?;
        let readers = (0..READERS).map(|_| open()).collect::<rusqlite::Result<Vec<_>>>()?;
        let (work, jobs) = mpsc::channel(MOST_WAITING);
        std::thread::Builder::new().name("database".into()).spawn(move || {
            let closed = serve(&mut writer, jobs);
            drop(writer);
            drop(lock);
            if let Some(closed) = closed {
                let _ = closed.send(());
            }
        })?;
        let places = tokio::sync::Semaphore::new(readers.len());
        Ok(Self(Arc::new(Shared { work, readers: Mutex::new(readers), places })))
    }

    /// Does `work` in a transaction that it shares with what else waits, and returns once that is on disk. Other
    /// callers' work is done before and after it, never meanwhile.
    ///
    /// # Errors
    /// Nothing was done.
    pub async fn write<T, F>(&self, work: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (done, told) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            let outcome = connection.and_then(|connection| apart(connection, work));
            Box::new(move |written| {
                // Whoever asked may have gone away.
                let _ = done.send(written.and(outcome));
            })
        });
        self.0.work.send(Job::Work(work)).await.map_err(|_| DatabaseError::Closed)?;
        told.await.unwrap_or(Err(DatabaseError::Closed))
    }

    /// Looks something up, beside the writer.
    ///
    /// # Errors
    /// It can't be read.
    pub async fn read<T, F>(&self, look: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let _place = self.0.places.acquire().await.map_err(|_| DatabaseError::Closed)?;
        let shared = Arc::clone(&self.0);
        let look = move || {
            let reader = shared.readers.lock().pop();
            let reader = reader.ok_or(DatabaseError::Closed)?;
            let found = catch_unwind(AssertUnwindSafe(|| look(&reader)));
            shared.readers.lock().push(reader);
            found.unwrap_or(Err(rusqlite::Error::InvalidQuery)).map_err(|error| told(&error))
        };
        tokio::task::spawn_blocking(look).await.unwrap_or(Err(DatabaseError::Refused))
    }

    /// Writes the log back into the file and empties it, so that nothing that was deleted is left in it.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn scrub(&self) -> Result<(), DatabaseError> {
        self.read(|connection| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))).await
    }

    /// Does what waits, and closes the file; from then on another process may have it.
    pub async fn close(&self) {
        let (closed, end) = oneshot::channel();
        if self.0.work.send(Job::Close(closed)).await.is_ok() {
            let _ = end.await;
        }
        self.0.places.close();
        self.0.readers.lock().clear();
    }
}

/// The writer: until it is closed, or nobody has the database any more.
fn serve(writer: &mut Connection, mut jobs: mpsc::Receiver<Job>) -> Option<oneshot::Sender<()>> {
    let mut next = jobs.blocking_recv();
    loop {
        let first = match next.take()? {
            Job::Work(first) => first,
            Job::Close(closed) => return Some(closed),
        };
        // Whoever else is about to write comes along: a commit costs more than a turn of the scheduler.
        std::thread::yield_now();
        let mut tell = Vec::new();
        let written = match writer.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate) {
            Ok(transaction) => {
                tell.push(first(Ok(&transaction)));
                while tell.len() < MOST_TOGETHER {
                    match jobs.try_recv() {
                        Ok(Job::Work(work)) => tell.push(work(Ok(&transaction))),
                        Ok(close) => {
                            next = Some(close);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                transaction.commit().map_err(|error| (told(&error), cause(&error)))
            }
            Err(error) => {
                tell.push(first(Err(told(&error))));
                Err((told(&error), cause(&error)))
            }
        };
        if let Err((_, cause)) = written {
            tracing::error!(path = writer.path().unwrap_or("memory"), cause, "the database can't be written");
        }
        let written = written.map_err(|(error, _)| error);
        for tell in tell {
            tell(written);
        }
        next = next.or_else(|| jobs.blocking_recv());
    }
}

/// Work by itself: what it did is undone if it fails or panics, and nothing else is.
fn apart<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, DatabaseError> {
    connection.execute_batch("SAVEPOINT work").map_err(|error| told(&error))?;
    let outcome = catch_unwind(AssertUnwindSafe(|| work(connection))).unwrap_or(Err(rusqlite::Error::InvalidQuery));
    let end = if outcome.is_ok() { "RELEASE work" } else { "ROLLBACK TO work; RELEASE work" };
    connection.execute_batch(end).map_err(|error| told(&error))?;
    outcome.map_err(|error| told(&error))
}

/// What callers need to know of an error; its text may quote what was to be stored.
fn told(error: &rusqlite::Error) -> DatabaseError {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DiskFull, FileLockingProtocolFailed, PermissionDenied, ReadOnly, SystemIoFailure,
    };
    match error.sqlite_error_code() {
        Some(DiskFull | SystemIoFailure | ReadOnly | CannotOpen | PermissionDenied) => DatabaseError::Unwritable,
        // Somebody's tool holds the file.
        Some(DatabaseBusy | FileLockingProtocolFailed) => DatabaseError::Unwritable,
        _ => DatabaseError::Refused,
    }
}

/// Returns the cause of an error in words; its own text may quote what was to be stored.
fn cause(error: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DiskFull, FileLockingProtocolFailed, PermissionDenied, ReadOnly, SystemIoFailure,
    };
    match error.sqlite_error_code() {
        Some(DiskFull) => "disk full",
        Some(SystemIoFailure) => "the disk fails",
        Some(ReadOnly | PermissionDenied) => "read-only: the file or its folder can't be written",
        Some(CannotOpen) => "a file beside it can't be opened",
        Some(DatabaseBusy | FileLockingProtocolFailed) => "another program holds the file",
        _ => "refused by SQLite",
    }
}

/// Keeps other processes away for as long as the file that it gives is open, whichever links they come by. A file of its
/// own: SQLite's locks are gone as soon as anybody in this process closes the database file.
fn lock(path: &Path) -> Result<File, OpenError> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(lock_of(path)?)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Beside the database file itself, or where it will be.
fn lock_of(path: &Path) -> io::Result<PathBuf> {
    let found = path.canonicalize().or_else(|_| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok::<_, io::Error>(folder.canonicalize()?.join(path.file_name().unwrap_or_default()))
    });
    let mut name = found?.into_os_string();
    name.push(".lock");
    Ok(name.into())
}

/// Runs of each part's list what was not run yet.
fn migrate(connection: &mut Connection, migrations: &[(&str, &[&str])]) -> Result<(), OpenError> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction.execute_batch("CREATE TABLE IF NOT EXISTS schema (part TEXT PRIMARY KEY, version INTEGER NOT NULL)")?;
    for (part, list) in migrations {
        let known = transaction.query_row("SELECT version FROM schema WHERE part = ?1", [part], |row| row.get(0));
        let version: u32 = match known {
            Err(rusqlite::Error::QueryReturnedNoRows) => 0,
            known => known?,
        };
        for statements in list.get(version as usize..).ok_or(OpenError::Later)? {
            transaction.execute_batch(statements)?;
        }
        transaction.execute(
            "INSERT INTO schema VALUES (?1, ?2) ON CONFLICT (part) DO UPDATE SET version = excluded.version",
            (part, u32::try_from(list.len()).unwrap_or(u32::MAX)),
        )?;
    }
    transaction.commit()?;
    Ok(())
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: &[(&str, &[&str])] = &[("numbers", &["CREATE TABLE numbers (n INTEGER NOT NULL CHECK (n < 1000))"])];

    fn insert(n: i64) -> impl FnOnce(&Connection) -> rusqlite::Result<usize> + Send + 'static {
        move |connection| connection.execute("INSERT INTO numbers VALUES (?1)", [n])
    }

    async fn sum(database: &Database) -> i64 {
        let sum = |connection: &Connection| connection.query_row("SELECT total(n) FROM numbers", [], |row| row.get(0));
        database.read(sum).await.map(|sum: f64| sum as i64).unwrap()
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_the_file_was_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let database = Database::open(&path, NUMBERS).unwrap();
        let all = (0..100).map(|n| database.write(insert(n)));
        assert!(futures_util::future::join_all(all).await.into_iter().all(|written| written == Ok(1)));
        assert!(matches!(Database::open(&path, NUMBERS), Err(OpenError::InUse)));
        let link = folder.path().join("link.db");
        std::os::unix::fs::symlink("x.db", &link).unwrap();
        assert!(matches!(Database::open(&link, NUMBERS), Err(OpenError::InUse)));
        database.close().await;
        assert_eq!(database.write(insert(1)).await, Err(DatabaseError::Closed));
        let more: &[(&str, &[&str])] = &[("numbers", &[NUMBERS[0].1[0], "ALTER TABLE numbers ADD COLUMN more"])];
        let again = Database::open(&path, more).unwrap();
        assert_eq!(sum(&again).await, 4950);
        again.close().await;
        assert!(matches!(Database::open(&path, NUMBERS), Err(OpenError::Later)));
    }

    #[tokio::test]
    async fn work_that_fails_or_panics_leaves_its_neighbours_alone() {
        let database = Database::in_memory(NUMBERS).unwrap();
        let bad = database.write(|connection| {
            connection.execute("INSERT INTO numbers VALUES (5)", [])?;
            connection.execute("INSERT INTO numbers VALUES (5000)", [])
        });
        let worse = database.write(|connection| -> rusqlite::Result<()> {
            connection.execute("INSERT INTO numbers VALUES (6)", [])?;
            panic!("a mistake")
        });
        let outcomes = tokio::join!(database.write(insert(1)), bad, worse, database.write(insert(2)));
        assert_eq!(outcomes, (Ok(1), Err(DatabaseError::Refused), Err(DatabaseError::Refused), Ok(1)));
        assert_eq!(sum(&database).await, 3);
    }

    #[tokio::test]
    async fn a_full_disk_is_told_and_overcome() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("x.db"), NUMBERS).unwrap();
        let pages = |most: i64| {
            move |connection: &Connection| {
                connection.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(()))
            }
        };
        database.write(pages(1)).await.unwrap();
        let fill =
            |connection: &Connection| connection.execute_batch("CREATE TABLE large AS SELECT randomblob(1000000) AS x");
        assert_eq!(database.write(fill).await, Err(DatabaseError::Unwritable));
        database.write(pages(1_000_000)).await.unwrap();
        assert_eq!(database.write(fill).await, Ok(()));
    }

    #[tokio::test]
    async fn a_file_that_somebody_holds_is_told_and_overcome() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let database = Database::open(&path, NUMBERS).unwrap();
        database.write(|connection| connection.busy_timeout(std::time::Duration::ZERO)).await.unwrap();
        let tool = Connection::open(&path).unwrap();
        tool.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert_eq!(database.write(insert(1)).await, Err(DatabaseError::Unwritable));
        tool.execute_batch("ROLLBACK").unwrap();
        assert_eq!(database.write(insert(1)).await, Ok(1));
    }

    #[tokio::test]
    async fn what_was_deleted_is_in_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("x.db"), &[("t", &["CREATE TABLE t (x TEXT)"])]).unwrap();
        let mark = "needle-in-a-haystack";
        let found = || {
            std::fs::read_dir(folder.path()).unwrap().any(|entry| {
                let bytes = std::fs::read(entry.unwrap().path()).unwrap();
                bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
            })
        };
        database.write(move |connection| connection.execute("INSERT INTO t VALUES (?1)", [mark])).await.unwrap();
        assert!(found());
        database.write(|connection| connection.execute("DELETE FROM t", [])).await.unwrap();
        database.scrub().await.unwrap();
        assert!(!found());
    }
}
