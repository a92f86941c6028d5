//! The writer of a database: one thread, which commits the work of many callers as one transaction.
//!
//! Invariants: work that fails or panics changes nothing, and does not undo other work; a caller is answered after the
//! commit.
//!
//! There are no savepoints: SQLite would copy each page that work changes, and work rarely fails. If work fails, the
//! whole transaction is undone, and its other work runs again.

use super::error::{DatabaseError, WriteFault, write_fault};
use super::health::Health;
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::sync::{mpsc, oneshot};

/// The largest number of jobs in one transaction. It bounds the time for which the first job waits for the others.
const MOST_TOGETHER: usize = 256;

/// A message to the writer.
pub(super) enum Job {
    /// Work for a transaction.
    Work(Box<dyn Work>),
    /// The request to end the writer. The writer sends `()` once the file is closed.
    Close(oneshot::Sender<()>),
}

/// The work of a caller. It may run several times, until a transaction is committed.
pub(super) trait Work: Send {
    /// Runs the work in the open transaction. Returns an error if the work failed and the transaction must be undone.
    fn run(&mut self, connection: &Connection) -> Result<(), Undo>;
    /// Answers the caller with the work's result, or with the error of the commit.
    fn answer(self: Box<Self>, committed: Result<(), DatabaseError>);
}

/// The sign that a caller's work failed and the transaction must be undone. The value is the fault of the disk or the
/// file; `None` if the failure has another cause.
#[derive(Debug, Clone, Copy)]
pub(super) struct Undo(Option<WriteFault>);

/// Work whose caller waits for an answer.
pub(super) struct Call<S, T, U, F, W, O> {
    state: S,
    work: F,
    /// Returns true if the work need not be done, because the caller was cancelled.
    is_cancelled: W,
    /// Makes the answer from the state and the work's result.
    finish: O,
    answer: oneshot::Sender<Result<U, DatabaseError>>,
    /// The result of the last run of the work.
    outcome: Result<T, DatabaseError>,
}

impl<S, T, U, F, W, O> Call<S, T, U, F, W, O>
where
    S: Send,
    T: Send,
    U: Send,
    F: Fn(&S, &Connection) -> rusqlite::Result<T> + Send,
    W: Fn(&oneshot::Sender<Result<U, DatabaseError>>) -> bool + Send,
    O: FnOnce(S, T) -> U + Send,
{
    /// Makes a call that runs `work` on `state`. If `is_cancelled` returns true, the work does not run. `finish` makes
    /// a value from the state and the work's result, and the caller gets this value through `answer`.
    pub(super) fn new(
        state: S,
        work: F,
        is_cancelled: W,
        finish: O,
        answer: oneshot::Sender<Result<U, DatabaseError>>,
    ) -> Self {
        Self { state, work, is_cancelled, finish, answer, outcome: Err(DatabaseError::Closed) }
    }
}

impl<S, T, U, F, W, O> Work for Call<S, T, U, F, W, O>
where
    S: Send,
    T: Send,
    U: Send,
    F: Fn(&S, &Connection) -> rusqlite::Result<T> + Send,
    W: Fn(&oneshot::Sender<Result<U, DatabaseError>>) -> bool + Send,
    O: FnOnce(S, T) -> U + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), Undo> {
        if (self.is_cancelled)(&self.answer) {
            self.outcome = Err(DatabaseError::Closed);
            return Ok(());
        }
        let done = catch_unwind(AssertUnwindSafe(|| (self.work)(&self.state, connection)));
        match done.unwrap_or(Err(rusqlite::Error::InvalidQuery)) {
            Ok(result) => {
                self.outcome = Ok(result);
                Ok(())
            }
            Err(error) => {
                self.outcome = Err(DatabaseError::from(&error));
                Err(Undo(write_fault(&error)))
            }
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), DatabaseError>) {
        let Self { state, finish, answer, outcome, .. } = *self;
        // The result of a cancelled caller is dropped here.
        let _ = answer.send(committed.and(outcome).map(|result| finish(state, result)));
    }
}

/// The work of one caller, as a part of a transaction.
struct Member {
    work: Box<dyn Work>,
    /// The failure of the work; `None` if it has not failed. Failed work does not run again.
    failed: Option<Undo>,
}

impl From<Box<dyn Work>> for Member {
    fn from(work: Box<dyn Work>) -> Self {
        Self { work, failed: None }
    }
}

/// Runs the writer until the database is closed, or until every clone of the database is dropped. In the first case,
/// returns the sender by which the caller reports that the file is closed; in the second, `None`.
pub(super) fn serve(
    writer: &Connection,
    mut jobs: mpsc::Receiver<Job>,
    health: &Health,
) -> Option<oneshot::Sender<()>> {
    let mut next = jobs.blocking_recv();
    loop {
        let first = match next.take()? {
            Job::Work(first) => first,
            Job::Close(closed) => return Some(closed),
        };
        // Callers that are about to write join the transaction: a commit costs more than a turn of the scheduler.
        std::thread::yield_now();
        let mut members = vec![Member::from(first)];
        let more = || match jobs.try_recv() {
            Ok(Job::Work(work)) => Some(work),
            Ok(close) => {
                next = Some(close);
                None
            }
            Err(_) => None,
        };
        let committed = transact(writer, &mut members, more);
        let own = members.iter().find_map(|member| member.failed.and_then(|Undo(fault)| fault));
        health.note(committed.as_ref().err().and_then(write_fault).or(own));
        let committed = committed.map_err(|error| DatabaseError::from(&error));
        members.into_iter().for_each(|member| member.work.answer(committed));
        next = next.or_else(|| jobs.blocking_recv());
    }
}

/// Runs the members, and the work that `more` returns, in one transaction. If a member fails, the transaction is
/// undone, and the other members run again. If no transaction can begin, up to `MOST_TOGETHER` waiting jobs become
/// members too, and all members fail together. Otherwise each job would wait for an attempt of its own, which takes
/// seconds while another program has locked the file.
fn transact(
    connection: &Connection,
    members: &mut Vec<Member>,
    mut more: impl FnMut() -> Option<Box<dyn Work>>,
) -> rusqlite::Result<()> {
    if let Err(error) = control(connection, "BEGIN IMMEDIATE") {
        members.extend(std::iter::from_fn(more).take(MOST_TOGETHER).map(Member::from));
        return Err(error);
    }
    let mut at = 0;
    loop {
        if at == members.len() {
            let joined = if at < MOST_TOGETHER { more() } else { None };
            let Some(work) = joined else { break };
            members.push(work.into());
        }
        let member = &mut members[at];
        match member.failed.map_or_else(|| member.work.run(connection), |_| Ok(())) {
            Ok(()) => at += 1,
            Err(undo) => {
                member.failed = Some(undo);
                roll_back(connection);
                control(connection, "BEGIN IMMEDIATE")?;
                at = 0;
            }
        }
    }
    commit(connection)
}

/// Commits the open transaction. If the commit fails, the transaction is undone.
fn commit(connection: &Connection) -> rusqlite::Result<()> {
    let committed = control(connection, "COMMIT");
    if committed.is_err() {
        roll_back(connection);
    }
    committed
}

/// Undoes the transaction, unless the error has ended it already.
fn roll_back(connection: &Connection) {
    if !connection.is_autocommit() {
        let _ = control(connection, "ROLLBACK");
    }
}

/// Begins or ends a transaction. The statement is compiled once for each connection.
fn control(connection: &Connection, statement: &'static str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute([]).map(drop)
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job(…)")
    }
}
