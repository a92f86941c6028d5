//! Recovery of a journal that is older than this node's published lines: a restored copy.
//!
//! Invariants:
//! - Published numbers never fall.
//! - `billable <= Iluma's count <= billable + unknown` also holds for raised lines.
//!
//! Every publication has a generation, which the journal records before Redis does. So a journal is an older copy
//! exactly if its generation is below the published generation. A single node without Redis can't recognise an older
//! copy.

use super::counts::Row;
use super::inner::Inner;
use super::journal;
use super::published::PublishedLedgers;
use super::selection::Selection;
use crate::base::calendar::Day;
use rusqlite::Connection;
use std::collections::BTreeSet;

/// Compares the journal with the lines that this node published. If the journal is an older copy, raises its lines to
/// the published lines. Returns true once the journal may be published.
pub(super) async fn recover(ledger: &Inner, published: &PublishedLedgers) -> bool {
    let Ok(own) = ledger.database.read(journal::generation).await else { return false };
    let Ok(there) = published.generation().await else { return false };
    if there <= own {
        return true;
    }
    let today = ledger.today();
    let oldest = today.before(ledger.live.load().retention);
    let Ok(rows) = published.own(&Selection::days(oldest, today.next())).await else { return false };
    let first_new = ledger.first_new;
    let raise = move |connection: &Connection| raise(connection, &rows, first_new, there);
    let Ok(days) = ledger.database.write(raise).await else { return false };
    tracing::error!(
        node = ledger.node,
        published = there,
        journal = own,
        days = days.len(),
        "the journal of this node is older than its published ledger, so it was restored from a copy: its lines were raised to \
         the published ones, and calls without an outcome stay unknown"
    );
    ledger.restored.lock().extend(days.iter().cloned());
    ledger.changed(days);
    true
}

/// Raises the lines of the journal to the published lines `rows`; returns the changed days.
fn raise(connection: &Connection, rows: &[Row], first_new: i64, generation: i64) -> rusqlite::Result<BTreeSet<String>> {
    let mut days = BTreeSet::new();
    for row in rows {
        if journal::raise(connection, row, first_new)? {
            journal::note_restored(connection, &row.day)?;
            days.insert(row.day.clone());
        }
    }
    journal::set_generation(connection, generation)?;
    Ok(days)
}

/// Returns the days from `from` to `to`, both included, whose lines were raised to the published lines.
pub(super) fn restored(ledger: &Inner, from: Day, to: Day) -> Vec<String> {
    let (from, to) = (from.to_string(), to.to_string());
    ledger.restored.lock().range(from..=to).cloned().collect()
}
