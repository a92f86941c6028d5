//! The writer: it writes outcomes and counts to the disk.
//!
//! A batch is taken on the database's thread when its job begins, so one job serves all closings that came until then.

use super::closing;
use super::ends::{self, Changes};
use super::inner::Inner;
use super::journal;
use super::settlement::{Call, Caller, Closing, Rules};
use super::tally::Counted;
use crate::base::database::DatabaseError;
use rusqlite::Connection;
use std::sync::Arc;

/// Closings and counts that were taken from memory. If they are dropped before they are committed, they are put back,
/// whether the caller, the database's queue or a failed transaction drops them.
#[derive(Debug)]
struct Batch {
    ledger: Arc<Inner>,
    closings: Vec<(u64, Closing)>,
    counted: Vec<Counted>,
    /// The number of the newest closing.
    came: u64,
}

/// Returns once every outcome so far is on disk. Of several waiting callers one queues the job for all.
pub(super) async fn settled(ledger: &Arc<Inner>) -> Result<(), DatabaseError> {
    let (answer, needs_job) = {
        let mut closings = ledger.closings.lock();
        let Some(answer) = closings.wait() else { return Ok(()) };
        (answer, closings.needs_job())
    };
    if needs_job {
        queue(ledger);
    }
    answer.await.unwrap_or(Err(DatabaseError::Closed))
}

/// Queues a job that writes every outcome that has come when it begins.
fn queue(ledger: &Arc<Inner>) {
    let queued = Queued { ledger: Arc::clone(ledger), has_begun: false };
    let work = move |connection: &Connection| {
        let ledger = queued.begin();
        let batch = Batch::take(&ledger, Vec::new());
        let (early, changes) = batch.apply(connection, ledger.rules())?;
        Ok((batch, early, changes))
    };
    ledger.database.post(work, |(batch, early, changes)| batch.committed(&early, changes));
}

/// Writes all counts and outcomes so far; returns once they are on disk.
pub(super) async fn flush(ledger: &Arc<Inner>) -> Result<(), DatabaseError> {
    let counted = ledger.take_tallies();
    if counted.is_empty() { settled(ledger).await } else { write_with(ledger, counted, |_, _| Ok(())).await }
}

/// Writes all counts and outcomes so far, and does `work` after them in the same transaction.
pub(super) async fn flush_with<T: Send + 'static>(
    ledger: &Arc<Inner>,
    work: impl FnOnce(&Connection, &mut Changes) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, DatabaseError> {
    write_with(ledger, ledger.take_tallies(), work).await
}

async fn write_with<T: Send + 'static>(
    ledger: &Arc<Inner>,
    counted: Vec<Counted>,
    more: impl FnOnce(&Connection, &mut Changes) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, DatabaseError> {
    // The counts are put back if the job is dropped in the queue.
    let counted = Batch { ledger: Arc::clone(ledger), closings: Vec::new(), counted, came: 0 };
    let work = move |connection: &Connection| {
        let rules = counted.ledger.rules();
        let batch = counted.with_closings();
        let (early, mut changes) = batch.apply(connection, rules)?;
        let done = more(connection, &mut changes)?;
        ends::count(connection, &mut changes)?;
        Ok((batch, early, changes, done))
    };
    let own = |(batch, early, changes, done): (Batch, Vec<Closing>, Changes, T)| {
        batch.committed(&early, changes);
        done
    };
    ledger.database.write_owned(work, own).await
}

/// Gives callers their result; some have gone.
fn tell(callers: Vec<Caller>, result: Result<(), DatabaseError>) {
    for caller in callers {
        let _ = caller.send(result);
    }
}

/// A job in the database's queue that will take a batch. If it is dropped there, its callers are told.
struct Queued {
    ledger: Arc<Inner>,
    has_begun: bool,
}

impl Queued {
    fn begin(mut self) -> Arc<Inner> {
        self.has_begun = true;
        self.ledger.closings.lock().begun();
        Arc::clone(&self.ledger)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if !self.has_begun {
            let callers = {
                let mut closings = self.ledger.closings.lock();
                closings.begun();
                closings.put_back(Vec::new())
            };
            tell(callers, Err(DatabaseError::Unwritable));
        }
    }
}

impl Batch {
    fn take(ledger: &Arc<Inner>, counted: Vec<Counted>) -> Self {
        let (mut closings, came) = ledger.closings.lock().take();
        // A settlement may have arrived before the answer to its call, in this round or in an earlier one.
        closings.sort_by_key(|(_, closing)| !matches!(closing.call, Call::Booked(_)));
        closings.iter_mut().for_each(|(_, closing)| ledger.apply_early(closing));
        Self { ledger: Arc::clone(ledger), closings, counted, came }
    }

    /// Returns the batch with the closings that wait.
    fn with_closings(mut self) -> Self {
        let counted = std::mem::take(&mut self.counted);
        Self::take(&self.ledger, counted)
    }

    /// Applies the batch; returns the closings that matched no call, and the changes.
    fn apply(&self, connection: &Connection, rules: Rules) -> rusqlite::Result<(Vec<Closing>, Changes)> {
        let (mut early, mut changes, day) = (Vec::new(), Changes::default(), rules.day.to_string());
        for (_, closing) in &self.closings {
            if !closing::close(connection, closing, rules, &mut changes)? {
                early.push(*closing);
            }
        }
        ends::count(connection, &mut changes)?;
        if !self.counted.is_empty() {
            changes.days.insert(day.clone());
        }
        for (tenant, route, counts) in &self.counted {
            journal::add(connection, &day, tenant.as_str(), route.as_str(), counts)?;
        }
        Ok((early, changes))
    }

    fn committed(mut self, early: &[Closing], changes: Changes) {
        self.closings.clear();
        for (tenant, route, counts) in self.counted.drain(..) {
            self.ledger.totals.saved(&tenant, route, counts.saved);
        }
        self.ledger.totals.ended(changes.ended);
        self.ledger.changed(changes.days);
        self.ledger.refunds.lock().extend(changes.refunds);
        self.ledger.free(changes.freed);
        self.ledger.note_named(changes.named);
        self.ledger.keep_early(early);
        let callers = self.ledger.closings.lock().wrote(self.came);
        tell(callers, Ok(()));
        self.came = 0;
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if self.came > 0 {
            let callers = self.ledger.closings.lock().put_back(std::mem::take(&mut self.closings));
            tell(callers, Err(DatabaseError::Unwritable));
        }
        self.ledger.put_back(std::mem::take(&mut self.counted));
    }
}
