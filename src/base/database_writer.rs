//! The database's writer: one thread, whose transactions serve all jobs that wait.
//!
//! Invariants: a job is answered after its commit; work that fails undoes no other work of its transaction.

use super::write_queue::WriteQueue;
use parking_lot::Mutex;
use rusqlite::{Connection, Statement};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// The largest number of jobs in one transaction, so that the first one does not wait for all the rest.
const MOST_TOGETHER: usize = 256;

/// The reason why work was not done. Nothing of it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseError {
    /// The disk is full or fails, or another program holds the file.
    #[error("the database can't be written")]
    Unwritable,
    /// The work can't be done: a constraint, or a programming error.
    #[error("the database reported an error")]
    Refused,
    /// The file is damaged, or no database.
    #[error("the database file is damaged")]
    Damaged,
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
}

/// Reason why the last write to the disk failed, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteFault {
    /// No space is left.
    #[error("disk full")]
    DiskFull,
    /// The file, its folder or the whole disk can't be written.
    #[error("the file is read-only, or its permissions forbid writing")]
    ReadOnly,
    /// Another program holds the file.
    #[error("another program holds the file")]
    Locked,
    /// The disk reports an error.
    #[error("the disk fails: I/O error")]
    Io,
}

/// Outcome of the last write, shared with the writer's thread.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) path: PathBuf,
    /// False if the file may be lost.
    pub(super) is_vital: bool,
    pub(super) fault: Mutex<Option<WriteFault>>,
}

impl Health {
    /// Records the outcome of a commit. It logs one line for each change of state, not for each commit.
    fn note(&self, fault: Option<WriteFault>) {
        let before = std::mem::replace(&mut *self.fault.lock(), fault);
        let path = self.path.display();
        match (fault, self.is_vital) {
            (Some(fault), true) if before != Some(fault) => {
                tracing::error!(%path, %fault, "the database can't be written: free space or repair the disk; will retry");
            }
            (Some(fault), false) if before != Some(fault) => {
                tracing::warn!(%path, %fault, "this file can't be written: free space or repair the disk; will retry");
            }
            (None, _) if before.is_some() => tracing::info!(%path, "the file can be written again"),
            (Some(_) | None, true | false) => {}
        }
    }
}

pub(super) enum Job {
    /// Work with its room in the queue; posted work needs none.
    Work(Work, Option<OwnedSemaphorePermit>),
    Close(oneshot::Sender<()>),
}

/// A job: it does its work if there is a transaction, and returns the closure that answers the caller after the commit.
pub(super) type Work = Box<dyn FnOnce(Result<&mut Writer<'_>, DatabaseError>) -> Done + Send>;
pub(super) type Tell = Box<dyn FnOnce(Result<(), DatabaseError>) + Send>;

/// A job that is done and waits for the commit.
pub(super) struct Done {
    pub(super) tell: Tell,
    /// The job's own failure, if the disk caused it.
    pub(super) fault: Option<WriteFault>,
}

/// Runs the writer until the database is closed or every clone is dropped.
pub(super) fn serve(connection: &Connection, jobs: &WriteQueue<Job>, health: &Health) -> Option<oneshot::Sender<()>> {
    let mut writer = match Writer::new(connection) {
        Ok(writer) => writer,
        Err(error) => {
            tracing::error!(error = %told(&error), "the database can't be written: its statements can't be prepared");
            return None;
        }
    };
    let mut next = jobs.next();
    loop {
        let (first, room) = match next.take()? {
            Job::Work(first, room) => (first, room),
            Job::Close(closed) => return Some(closed),
        };
        drop(room);
        // Callers that are about to write join the transaction: a commit costs more than a turn of the scheduler.
        std::thread::yield_now();
        let mut done = Vec::new();
        let written = match writer.begin.execute([]) {
            Ok(_) => {
                done.push(first(Ok(&mut writer)));
                while done.len() < MOST_TOGETHER {
                    match jobs.try_next() {
                        Some(Job::Work(work, _)) => done.push(work(Ok(&mut writer))),
                        Some(close @ Job::Close(_)) => {
                            next = Some(close);
                            break;
                        }
                        None => break,
                    }
                }
                writer.commit()
            }
            Err(error) => {
                done.push(first(Err(told(&error))));
                Err(error)
            }
        };
        let own = done.iter().find_map(|done| done.fault);
        health.note(written.as_ref().err().and_then(write_fault).or(own));
        let written = written.map_err(|error| told(&error));
        done.into_iter().for_each(|done| (done.tell)(written));
        next = next.or_else(|| jobs.next());
    }
}

/// The writer's connection with the statements of its transactions, which are compiled once.
pub(super) struct Writer<'c> {
    connection: &'c Connection,
    begin: Statement<'c>,
    commit: Statement<'c>,
    rollback: Statement<'c>,
    savepoint: Statement<'c>,
    undo: Statement<'c>,
    release: Statement<'c>,
}

impl<'c> Writer<'c> {
    fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            commit: connection.prepare("COMMIT")?,
            rollback: connection.prepare("ROLLBACK")?,
            savepoint: connection.prepare("SAVEPOINT work")?,
            undo: connection.prepare("ROLLBACK TO work")?,
            release: connection.prepare("RELEASE work")?,
        })
    }

    /// Commits the open transaction. Nothing of a transaction that can't be committed is kept.
    fn commit(&mut self) -> rusqlite::Result<()> {
        let committed = self.commit.execute([]);
        // Some errors end the transaction, others leave it open.
        if committed.is_err() && !self.connection.is_autocommit() {
            let _ = self.rollback.execute([]);
        }
        committed.map(drop)
    }

    /// Runs a job in a savepoint: its changes alone are undone if it fails or panics.
    pub(super) fn apart<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
        fault: &mut Option<WriteFault>,
    ) -> Result<T, DatabaseError> {
        let mut noted = |error: rusqlite::Error| {
            *fault = fault.or_else(|| write_fault(&error));
            told(&error)
        };
        self.savepoint.execute([]).map_err(&mut noted)?;
        let outcome = catch_unwind(AssertUnwindSafe(|| work(self.connection)));
        let outcome = outcome.unwrap_or(Err(rusqlite::Error::InvalidQuery)).map_err(&mut noted);
        if outcome.is_err() {
            self.undo.execute([]).map_err(&mut noted)?;
        }
        self.release.execute([]).map_err(&mut noted)?;
        outcome
    }
}

/// Returns the public error; SQLite's own text may quote the data that was to be stored.
pub(super) fn told(error: &rusqlite::Error) -> DatabaseError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => DatabaseError::Damaged,
        Some(_) | None if write_fault(error).is_some() => DatabaseError::Unwritable,
        Some(_) | None => DatabaseError::Refused,
    }
}

/// Returns the disk's part in an error, if it has one.
pub(super) fn write_fault(error: &rusqlite::Error) -> Option<WriteFault> {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DiskFull, FileLockingProtocolFailed, PermissionDenied, ReadOnly, SystemIoFailure,
    };
    match error.sqlite_error_code()? {
        DiskFull => Some(WriteFault::DiskFull),
        SystemIoFailure => Some(WriteFault::Io),
        ReadOnly | CannotOpen | PermissionDenied => Some(WriteFault::ReadOnly),
        DatabaseBusy | FileLockingProtocolFailed => Some(WriteFault::Locked),
        // The codes are SQLite's, whose newer versions add some.
        _ => None,
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job(…)")
    }
}
