//! The writer of the ledger: it writes outcomes and counts to the disk.

use super::closing;
use super::inner::Inner;
use super::journal::{self, Changes};
use super::settlement::{Call, Closing, Rules};
use super::tally::Counted;
use crate::base::database::DatabaseError;
use rusqlite::Connection;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::OwnedMutexGuard;

/// The ends of calls and the counts that one transaction writes. A batch that is dropped before the commit returns them
/// to memory: the caller, the database's queue or a failed transaction may drop it.
#[derive(Debug)]
struct Batch {
    ledger: Arc<Inner>,
    closings: Vec<Closing>,
    counted: Vec<Counted>,
    /// The number of closings from the start of the process to the moment at which the batch was taken.
    came: u64,
    /// The lock that makes later batches wait until this one is committed or put back.
    _turn: OwnedMutexGuard<()>,
}

/// Writes the recorded outcomes, and returns once they are on disk. If several callers wait, one of them writes for
/// all.
pub(super) async fn settled(ledger: &Arc<Inner>) -> Result<(), DatabaseError> {
    let came = ledger.closings.lock().came;
    let turn = Arc::clone(&ledger.writer).lock_owned().await;
    if ledger.written.load(Ordering::Relaxed) >= came {
        return Ok(());
    }
    write(Batch::take(ledger, Vec::new(), turn)).await
}

/// Writes all counts and outcomes so far; returns once they are on disk.
pub(super) async fn flush(ledger: &Arc<Inner>) -> Result<(), DatabaseError> {
    let turn = Arc::clone(&ledger.writer).lock_owned().await;
    write(Batch::take(ledger, ledger.take_tallies(), turn)).await
}

/// Writes all counts and outcomes so far, and runs `work` after them in the same transaction. Returns the result of
/// `work` once all is on disk.
pub(super) async fn flush_with<T: Send + 'static>(
    ledger: &Arc<Inner>,
    work: impl Fn(&Connection, &mut Changes) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, DatabaseError> {
    let turn = Arc::clone(&ledger.writer).lock_owned().await;
    write_with(Batch::take(ledger, ledger.take_tallies(), turn), work).await
}

async fn write(batch: Batch) -> Result<(), DatabaseError> {
    if batch.closings.is_empty() && batch.counted.is_empty() {
        return Ok(());
    }
    write_with(batch, |_, _| Ok(())).await
}

async fn write_with<T: Send + 'static>(
    batch: Batch,
    more: impl Fn(&Connection, &mut Changes) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, DatabaseError> {
    let (ledger, rules) = (Arc::clone(&batch.ledger), batch.ledger.rules());
    let work = move |batch: &Batch, connection: &Connection| {
        let (early, mut changes) = batch.apply(connection, rules)?;
        let done = more(connection, &mut changes)?;
        Ok((early, changes, done))
    };
    let own = |batch: Batch, (early, changes, done): (Vec<Closing>, Changes, T)| {
        batch.committed(&early, changes);
        done
    };
    ledger.database.write_owned(batch, work, own).await
}

impl Batch {
    fn take(ledger: &Arc<Inner>, counted: Vec<Counted>, turn: OwnedMutexGuard<()>) -> Self {
        let (mut closings, came) = {
            let mut closings = ledger.closings.lock();
            (std::mem::take(&mut closings.waiting), closings.came)
        };
        // A settlement may have arrived before the answer to its call, in this round or in an earlier one.
        closings.sort_by_key(|closing| !matches!(closing.call, Call::Booked(_)));
        closings.iter_mut().for_each(|closing| ledger.apply_early(closing));
        Self { ledger: Arc::clone(ledger), closings, counted, came, _turn: turn }
    }

    /// Writes the batch in the transaction of `connection`. Returns the closings that matched no call, and the changes.
    fn apply(&self, connection: &Connection, rules: Rules) -> rusqlite::Result<(Vec<Closing>, Changes)> {
        let (mut early, mut changes, day) = (Vec::new(), Changes::default(), rules.day.to_string());
        for closing in &self.closings {
            if !closing::close(connection, closing, rules, &mut changes)? {
                early.push(*closing);
            }
        }
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
        self.ledger.written.store(self.came, Ordering::Relaxed);
        self.ledger.changed(changes.days);
        self.ledger.refunds.lock().extend(changes.refunds);
        self.ledger.free(changes.freed);
        self.ledger.keep_early(early);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let closings = std::mem::take(&mut self.closings);
        self.ledger.closings.lock().waiting.splice(0..0, closings);
        self.ledger.put_back(std::mem::take(&mut self.counted));
    }
}
