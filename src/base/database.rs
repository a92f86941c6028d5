//! The embedded database: one SQLite file, one process, one writer.
//!
//! Invariants: [`Database::write`] returns after the commit, which is as safe as its [`Durability`] says; a file serves
//! one process at a time; work that fails does not undo other work; deleted content is overwritten; only the gateway's
//! user may read the files; if a caller is cancelled, its reader becomes free, and the result of its
//! [`Database::write_owned`] is dropped.

mod error;
mod health;
mod writer;

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use writer::{Call, Job, Work};

use error::write_fault;
pub use error::{DatabaseError, WriteFault};
use health::Health;
pub use health::{Durability, RefusedWrites};

/// The largest number of jobs that wait for the writer; further callers wait until there is room.
const MOST_WAITING: usize = 1024;
/// The number of connections for reading. Further callers wait until a connection is free.
const READERS: usize = 2;
/// The number of compiled statements that each connection keeps. The gateway has fewer statements, so each is compiled
/// only once.
const MOST_COMPILED: usize = 128;

/// The reason why a database can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the file.
    #[error("another process uses this file already: one file serves one gateway")]
    InUse,
    /// A later version of the gateway has written the file.
    #[error(
        "the file was written by a later version of the gateway: run that version, or restore the backup from before the upgrade"
    )]
    Later,
    /// The file can't be opened or locked.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// SQLite reported an error.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

impl OpenError {
    /// Returns true if the reason is the file itself, so that a new file at the same path could be opened. Returns
    /// false if the reason is the disk or another process.
    #[must_use]
    pub fn is_about_the_file(&self) -> bool {
        match self {
            Self::InUse => false,
            Self::Later => true,
            Self::Io(error) => !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::ReadOnlyFilesystem),
            Self::Sqlite(error) => match write_fault(error) {
                Some(WriteFault::DiskFull | WriteFault::Locked | WriteFault::Io) => false,
                Some(WriteFault::ReadOnly) | None => true,
            },
        }
    }
}

/// An open database. Clones share it.
#[derive(Clone, Debug)]
pub struct Database(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    work: mpsc::Sender<Job>,
    readers: Mutex<Vec<Connection>>,
    places: Arc<tokio::sync::Semaphore>,
    health: Arc<Health>,
}

impl Database {
    /// Opens the file at `path`, creates it if it is missing, and runs the `migrations` that have not run on it. Each
    /// migration is the name of a part of the program, and this part's list of SQL statements. A new version of the
    /// gateway may only append statements to a list.
    ///
    /// # Errors
    /// Returns an error if another process uses the file, or if it can't be opened or migrated.
    pub fn open(path: &Path, migrations: &[(&str, &[&str])]) -> Result<Self, OpenError> {
        Self::open_with(path, migrations, Durability::Power)
    }

    /// Opens the file at `path` as [`Database::open`] does, with the given durability.
    ///
    /// # Errors
    /// Returns the errors of [`Database::open`].
    pub fn open_with(path: &Path, migrations: &[(&str, &[&str])], durability: Durability) -> Result<Self, OpenError> {
        let lock = lock(path)?;
        // The file is created here, because SQLite would let other users read it. Its side files get the file's mode.
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        make_private(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::start(|| Connection::open_with_flags(path, flags), Some(lock), (path, durability), migrations)
    }

    /// Opens a database in memory. Its content is lost when it is closed.
    ///
    /// # Errors
    /// Returns the errors of [`Database::open`].
    pub fn in_memory(migrations: &[(&str, &[&str])]) -> Result<Self, OpenError> {
        let name = uuid::Uuid::new_v4();
        let uri = format!("file:{name}?mode=memory&cache=shared");
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let place = (Path::new("memory"), Durability::Power);
        Self::start(|| Connection::open_with_flags(&uri, flags), None, place, migrations)
    }

    fn start(
        open: impl Fn() -> rusqlite::Result<Connection>,
        lock: Option<File>,
        (path, durability): (&Path, Durability),
        migrations: &[(&str, &[&str])],
    ) -> Result<Self, OpenError> {
        let open = || {
            let connection = open()?;
            connection.set_prepared_statement_cache_capacity(MOST_COMPILED);
            // Otherwise SQLite compiles some statements again whenever they get other parameters.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
            Ok(connection)
        };
        let mut writer = open()?;
        // Deleted rows are overwritten, since they may be about persons. A later checkpoint also removes them from the
        // log.
        writer.execute_batch(&durability.pragmas())?;
        writer.execute_batch("PRAGMA secure_delete = ON; PRAGMA foreign_keys = ON; PRAGMA cache_size = -16384;")?;
        migrate(&mut writer, migrations)?;
        let readers = (0..READERS).map(|_| open()).collect::<rusqlite::Result<Vec<_>>>()?;
        let (work, jobs) = mpsc::channel(MOST_WAITING);
        let health = Arc::new(Health::new(path, durability));
        let noted = Arc::clone(&health);
        std::thread::Builder::new().name("database".into()).spawn(move || {
            let closed = writer::serve(&writer, jobs, &noted);
            drop(writer);
            drop(lock);
            if let Some(closed) = closed {
                let _ = closed.send(());
            }
        })?;
        let places = Arc::new(tokio::sync::Semaphore::new(readers.len()));
        Ok(Self(Arc::new(Shared { work, readers: Mutex::new(readers), places, health })))
    }

    /// Returns the path of the file; `memory` for a database in memory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.health.path
    }

    /// Returns the reason why the last write failed, or `None` while writes succeed.
    #[must_use]
    pub fn write_fault(&self) -> Option<WriteFault> {
        self.0.health.fault()
    }

    /// Returns the number of transactions that failed with a write fault since the start, and the last fault.
    #[must_use]
    pub fn refused_writes(&self) -> RefusedWrites {
        self.0.health.refused()
    }

    /// Runs `work` in a transaction together with other waiting jobs, and returns its result once the transaction is
    /// committed. The jobs run one after another. The work also runs if the caller is cancelled. If another job fails,
    /// the transaction is undone and `work` runs again. So `work` must change nothing except the database.
    ///
    /// # Errors
    /// Returns an error if the work was not done.
    pub async fn write<T, F>(&self, work: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let work = move |(): &(), connection: &Connection| work(connection);
        self.queue(Call::new((), work, |_| false, |(), done| done, answer)).await?;
        answered.await.unwrap_or(Err(DatabaseError::Closed))
    }

    /// Runs `work` on `state` as [`Database::write`] does. Once the transaction is committed, `own` makes a guard from
    /// the state and the result, and this function returns the guard. If the caller is cancelled before the work
    /// begins, the work is not done, and the state is dropped. If the caller is cancelled later, the guard is dropped.
    ///
    /// # Errors
    /// Returns an error if the work was not done.
    pub async fn write_owned<S, T, U, F, O>(&self, state: S, work: F, own: O) -> Result<U, DatabaseError>
    where
        S: Send + 'static,
        T: Send + 'static,
        U: Send + 'static,
        F: Fn(&S, &Connection) -> rusqlite::Result<T> + Send + 'static,
        O: FnOnce(S, T) -> U + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.queue(Call::new(state, work, oneshot::Sender::is_closed, own, answer)).await?;
        answered.await.unwrap_or(Err(DatabaseError::Closed))
    }

    async fn queue(&self, work: impl Work + 'static) -> Result<(), DatabaseError> {
        self.0.work.send(Job::Work(Box::new(work))).await.map_err(|_| DatabaseError::Closed)
    }

    /// Runs the query `look` on a reading connection, concurrently with the writer. Waits until such a connection is
    /// free.
    ///
    /// # Errors
    /// Returns an error if the query fails.
    pub async fn read<T, F>(&self, look: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let place = Arc::clone(&self.0.places).acquire_owned().await.map_err(|_| DatabaseError::Closed)?;
        let shared = Arc::clone(&self.0);
        let look = move || {
            // The permit is held until the reader is returned, even if the caller is cancelled meanwhile.
            let _place = place;
            let reader = shared.readers.lock().pop();
            let reader = reader.ok_or(DatabaseError::Closed)?;
            let found = catch_unwind(AssertUnwindSafe(|| look(&reader)));
            shared.readers.lock().push(reader);
            found.unwrap_or(Err(rusqlite::Error::InvalidQuery)).map_err(|error| DatabaseError::from(&error))
        };
        tokio::task::spawn_blocking(look).await.unwrap_or(Err(DatabaseError::Refused))
    }

    /// Checkpoints the write-ahead log into the file and empties the log, so that the log has no deleted content.
    ///
    /// # Errors
    /// Returns an error if the disk fails. Also returns an error if the log can't be emptied, because another program
    /// still reads an older state of the database.
    pub async fn scrub(&self) -> Result<(), DatabaseError> {
        let checkpoint = |connection: &Connection| {
            // The first column is 1 if a reader or a writer was in the way.
            let is_busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))?;
            Ok(is_busy)
        };
        if self.read(checkpoint).await? { Err(DatabaseError::Unwritable) } else { Ok(()) }
    }

    /// Finishes the waiting jobs and closes the file; afterwards another process may open it.
    pub async fn close(&self) {
        let (closed, end) = oneshot::channel();
        if self.0.work.send(Job::Close(closed)).await.is_ok() {
            let _ = end.await;
        }
        self.0.places.close();
        self.0.readers.lock().clear();
    }
}

/// Converts a number to SQLite's signed integer. A number that is too large becomes the largest integer.
#[must_use]
pub fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Converts a stored integer back to a number, the reverse of [`integer`]. A negative integer becomes 0.
#[must_use]
pub fn number(integer: i64) -> u64 {
    u64::try_from(integer).unwrap_or(0)
}

/// Removes other users' access to the file and its side files. Files of earlier versions of the gateway and restored
/// copies may allow such access.
fn make_private(path: &Path) -> io::Result<()> {
    let real = path.canonicalize()?;
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let mut name = real.clone().into_os_string();
        name.push(suffix);
        let file = PathBuf::from(name);
        let mode = match std::fs::metadata(&file) {
            Ok(metadata) => metadata.permissions().mode() & 0o777,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if mode == 0o600 {
            continue;
        }
        let path = file.display();
        match std::fs::set_permissions(&file, Permissions::from_mode(0o600)) {
            Ok(()) => {
                tracing::warn!(%path, mode = format!("{mode:o}"), "other users could read this file; its mode was changed to 600")
            }
            Err(error) => tracing::error!(%path, %error, "other users can read this file: set its mode to 600"),
        }
    }
    Ok(())
}

/// Locks a database file that no process uses, so that the file can be replaced. The lock ends when the returned lock
/// file is dropped.
///
/// # Errors
/// Returns an error if another process uses the file, or if its folder can't be written.
pub fn reserve(path: &Path) -> Result<File, OpenError> {
    lock(path)
}

/// Locks a database file against other processes until the returned lock file is closed. Links are resolved first, so
/// every link to the database has the same lock. The lock is a separate file: closing a second handle of the database
/// file would end SQLite's own locks.
fn lock(path: &Path) -> Result<File, OpenError> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(lock_of(path)?)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Returns the path of the lock file. Links in `path` are resolved, so the lock file is beside the real database file.
fn lock_of(path: &Path) -> io::Result<PathBuf> {
    let found = path.canonicalize().or_else(|_| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok::<_, io::Error>(folder.canonicalize()?.join(path.file_name().unwrap_or_default()))
    });
    let mut name = found?.into_os_string();
    name.push(".lock");
    Ok(name.into())
}

/// Runs those statements of each part's list that have not run on the file. Returns [`OpenError::Later`] if more
/// statements have run than a list has.
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

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: &[(&str, &[&str])] = &[("numbers", &["CREATE TABLE numbers (n INTEGER NOT NULL CHECK (n < 1000))"])];

    fn insert(n: i64) -> impl Fn(&Connection) -> rusqlite::Result<usize> + Send + 'static {
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

    /// Keeps the writer busy until the returned sender sends or is dropped.
    fn busy(database: &Database) -> (std::sync::mpsc::SyncSender<()>, impl Future<Output = Result<(), DatabaseError>>) {
        let (go, wait) = std::sync::mpsc::sync_channel(1);
        let database = database.clone();
        let work = async move {
            let work = move |_: &Connection| {
                let _ = wait.recv();
                Ok(())
            };
            database.write(work).await
        };
        (go, work)
    }

    #[tokio::test]
    async fn owned_work_is_dropped_with_its_caller_before_and_after_it_is_done() {
        struct Owned(Arc<std::sync::atomic::AtomicUsize>);
        impl Drop for Owned {
            fn drop(&mut self) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let (database, dropped) = (Database::in_memory(NUMBERS).unwrap(), Arc::default());
        let owned = |n| {
            let dropped = Arc::clone(&dropped);
            Box::pin(database.write_owned((), move |(), connection| insert(n)(connection), move |(), _| Owned(dropped)))
        };
        let (go, gate) = busy(&database);
        let (mut gate, mut early) = (Box::pin(gate), owned(1));
        assert!(futures_util::poll!(&mut gate).is_pending() && futures_util::poll!(&mut early).is_pending());
        drop(early);
        go.send(()).unwrap();
        gate.await.unwrap();
        database.write(insert(10)).await.unwrap();
        assert_eq!(sum(&database).await, 10, "its work was not begun");
        let mut late = owned(2);
        assert!(futures_util::poll!(&mut late).is_pending());
        database.write(insert(20)).await.unwrap();
        drop(late);
        assert_eq!(sum(&database).await, 32);
        assert_eq!(dropped.load(std::sync::atomic::Ordering::SeqCst), 1);
        assert!(owned(3).await.is_ok());
    }

    #[tokio::test]
    async fn a_reader_whose_caller_went_away_is_not_missing() {
        let database = Database::in_memory(NUMBERS).unwrap();
        let mut slow = Vec::new();
        for _ in 0..READERS {
            let (go, wait) = std::sync::mpsc::sync_channel::<()>(1);
            let (began, begun) = std::sync::mpsc::sync_channel(1);
            let look = database.read(move |_| {
                let _ = (began.send(()), wait.recv());
                Ok(())
            });
            let mut look = Box::pin(look);
            assert!(futures_util::poll!(&mut look).is_pending());
            begun.recv().unwrap();
            slow.push(go);
        }
        let mut next = Box::pin(sum(&database));
        assert!(futures_util::poll!(&mut next).is_pending(), "it waits until one is back");
        drop(slow);
        assert_eq!(next.await, 0);
    }

    #[tokio::test]
    async fn other_users_can_read_no_file_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let modes = || {
            let entries = std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
            let mode = |entry: std::fs::DirEntry| {
                (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().permissions().mode() & 0o777)
            };
            let mut modes: Vec<_> = entries.map(mode).collect();
            modes.sort();
            modes
        };
        let private: Vec<_> = ["x.db", "x.db-shm", "x.db-wal", "x.db.lock"].map(|name| (name.to_owned(), 0o600)).into();
        let database = Database::open(&path, NUMBERS).unwrap();
        database.write(insert(1)).await.unwrap();
        assert_eq!(modes(), private);
        // A restored copy may have these modes.
        let copies = private.iter().map(|(name, _)| (name, std::fs::read(folder.path().join(name)).unwrap()));
        let copies: Vec<_> = copies.collect();
        database.close().await;
        for (name, bytes) in copies {
            std::fs::write(folder.path().join(name), bytes).unwrap();
            std::fs::set_permissions(folder.path().join(name), Permissions::from_mode(0o644)).unwrap();
        }
        let again = Database::open(&path, NUMBERS).unwrap();
        again.write(insert(1)).await.unwrap();
        assert_eq!(modes(), private);
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
    async fn work_beside_a_failure_runs_again_and_the_failure_does_not() {
        let database = Database::in_memory(NUMBERS).unwrap();
        let (go, gate) = busy(&database);
        let runs: Arc<[std::sync::atomic::AtomicUsize; 3]> = Arc::default();
        let counted = |at: usize, n: i64| {
            let runs = Arc::clone(&runs);
            database.write(move |connection| {
                runs[at].fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                insert(n)(connection)
            })
        };
        let (mut gate, mut one) = (Box::pin(gate), Box::pin(counted(0, 1)));
        let (mut bad, mut two) = (Box::pin(counted(1, 5000)), Box::pin(counted(2, 2)));
        assert!(futures_util::poll!(&mut gate).is_pending() && futures_util::poll!(&mut one).is_pending());
        assert!(futures_util::poll!(&mut bad).is_pending() && futures_util::poll!(&mut two).is_pending());
        drop(go);
        let outcomes = tokio::join!(gate, one, bad, two);
        assert_eq!(outcomes, (Ok(()), Ok(1), Err(DatabaseError::Refused), Ok(1)));
        assert_eq!(runs.each_ref().map(|runs| runs.load(std::sync::atomic::Ordering::SeqCst)), [2, 1, 1]);
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
        assert_eq!(database.write_fault(), Some(WriteFault::DiskFull));
        database.write(pages(1_000_000)).await.unwrap();
        assert_eq!(database.write(fill).await, Ok(()));
        assert_eq!(database.write_fault(), None);
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
        assert_eq!(database.write_fault(), Some(WriteFault::Locked));
        tool.execute_batch("ROLLBACK").unwrap();
        assert_eq!(database.write(insert(1)).await, Ok(1));
    }

    #[tokio::test]
    async fn work_that_waits_for_a_held_file_fails_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let database = Database::open(&path, NUMBERS).unwrap();
        let wait = std::time::Duration::from_millis(200);
        database.write(move |connection| connection.busy_timeout(wait)).await.unwrap();
        let tool = Connection::open(&path).unwrap();
        tool.execute_batch("BEGIN IMMEDIATE").unwrap();
        let began = tokio::time::Instant::now();
        let outcomes = futures_util::future::join_all((0..20).map(|number| database.write(insert(number)))).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Err(DatabaseError::Unwritable)), "{outcomes:?}");
        let attempts = began.elapsed().as_millis() / wait.as_millis();
        assert!(attempts < 10, "one after the other they take 20 attempts: {attempts}");
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
        // Another program still reads what was deleted.
        let tool = Connection::open(folder.path().join("x.db")).unwrap();
        tool.execute_batch("BEGIN").unwrap();
        let _: i64 = tool.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        database.write(|connection| connection.execute("INSERT INTO t VALUES ('x')", [])).await.unwrap();
        database.read(|connection| connection.busy_timeout(std::time::Duration::ZERO)).await.unwrap();
        assert_eq!(database.scrub().await, Err(DatabaseError::Unwritable));
        drop(tool);
        database.scrub().await.unwrap();
        assert!(!found());
    }
}
