//! The rows of calls that end, and the changes that a batch of ends makes.

use super::charge::Outcome;
use super::settlement::{CallName, ClaimLink, Refund};
use super::totals::EndedCall;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::{BTreeMap, BTreeSet};

/// The changes of a batch of closings.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Days whose lines changed.
    pub(super) days: BTreeSet<String>,
    /// Prices of calls that were sent and are not billable.
    pub(super) refunds: Vec<Refund>,
    /// Calls that ended, for metrics.
    pub(super) ended: Vec<EndedCall>,
    /// The claims of calls that a later word settled as not billable.
    pub(super) freed: Vec<ClaimLink>,
    /// References with the names of calls that another node's word has settled.
    pub(super) named: Vec<(CallName, CallName)>,
    /// The calls that ended, by the day, the team and the row that count them, until [`count`] writes them.
    counts: BTreeMap<(String, String, String), EndedCalls>,
}

/// The calls of a line that ended.
#[derive(Debug, Default)]
struct EndedCalls {
    /// All of them.
    all: i64,
    /// Calls that were never sent.
    withdrawn: i64,
    billable: i64,
    cost: i64,
}

impl Changes {
    pub(super) fn end(&mut self, row: &OpenRow, outcome: Option<Outcome>) {
        let OpenRow { tenant, route, price, .. } = row;
        let (tenant, route, price) = (tenant.clone(), route.clone(), price.unsigned_abs());
        self.ended.push(EndedCall { tenant, route, outcome, price });
    }
}

/// A row of a call whose outcome is not known.
#[derive(Debug)]
pub(super) struct OpenRow {
    pub(super) id: i64,
    day: String,
    tenant: String,
    route: String,
    price: i64,
    pub(super) reference: Option<CallName>,
    /// The claim that the call was made under.
    claim: Option<ClaimLink>,
    /// True if the call has ended with an unknown outcome.
    pub(super) ended: bool,
}

impl OpenRow {
    /// The columns of a row, for [`open_row`].
    pub(super) const COLUMNS: &str = "id, day, tenant, route, price, reference, claim, ended";
}

/// Reads the [columns](OpenRow::COLUMNS) of a row.
pub(super) fn open_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<OpenRow> {
    let (id, day, tenant, route) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    let (price, reference, claim, ended) = (row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?);
    Ok(OpenRow { id, day, tenant, route, price, reference, claim, ended })
}

/// Leaves a call open: it has ended without an outcome. The name or the reference may settle it later.
pub(super) fn leave_open(
    connection: &Connection,
    number: i64,
    (name, reference): (Option<CallName>, Option<CallName>),
) -> rusqlite::Result<()> {
    let mut keep =
        connection.prepare_cached("UPDATE ledger_calls SET name = ?2, reference = ?3, ended = 1 WHERE id = ?1")?;
    keep.execute(params![number, name, reference]).map(|_| ())
}

/// The decision about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The call's own answer, which decides its claim itself.
    Answer(Outcome),
    /// A later word: of a callback, a GET or an operator.
    Word(Outcome),
    /// The call was never sent.
    Withdrawal,
}

impl By {
    const fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Answer(outcome) | Self::Word(outcome) => Some(outcome),
            Self::Withdrawal => None,
        }
    }
}

/// Ends a call whose outcome is decided.
pub(super) fn finish(connection: &Connection, row: &OpenRow, by: By, changes: &mut Changes) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM ledger_calls WHERE id = ?1")?.execute([row.id])?;
    finished(row, by, changes);
    Ok(())
}

/// Takes the row of a call out of the journal.
pub(super) fn take(connection: &Connection, number: i64) -> rusqlite::Result<Option<OpenRow>> {
    let columns = OpenRow::COLUMNS;
    let mut take = connection.prepare_cached(&format!("DELETE FROM ledger_calls WHERE id = ?1 RETURNING {columns}"))?;
    take.query_row([number], open_row).optional()
}

/// Returns the row of a call.
pub(super) fn row(connection: &Connection, number: i64) -> rusqlite::Result<Option<OpenRow>> {
    let columns = OpenRow::COLUMNS;
    let mut find = connection.prepare_cached(&format!("SELECT {columns} FROM ledger_calls WHERE id = ?1"))?;
    find.query_row([number], open_row).optional()
}

/// Notes the end of a call whose row was taken out of the journal.
pub(super) fn finished(row: &OpenRow, by: By, changes: &mut Changes) {
    let OpenRow { day, tenant, route, price, claim, .. } = row;
    let outcome = by.outcome();
    let line = changes.counts.entry((day.clone(), tenant.clone(), route.clone())).or_default();
    line.all += 1;
    match outcome {
        None => line.withdrawn += 1,
        Some(Outcome::Billable) => {
            line.billable += 1;
            line.cost += *price;
        }
        Some(Outcome::NotBillable | Outcome::Unknown) => {}
    }
    if outcome == Some(Outcome::NotBillable) {
        changes.refunds.extend(refund(tenant, day, *price));
    }
    if by == By::Word(Outcome::NotBillable) {
        changes.freed.extend(claim);
    }
    changes.end(row, outcome);
}

/// Writes the counts of the calls that ended: each line once, however many of its calls did.
pub(super) fn count(connection: &Connection, changes: &mut Changes) -> rusqlite::Result<()> {
    if changes.counts.is_empty() {
        return Ok(());
    }
    let mut count = connection.prepare_cached(
        "UPDATE ledger_days SET unknown = unknown - ?4, upstream_calls = upstream_calls - ?5,
             charged_calls = charged_calls - ?5, billable = billable + ?6, cost = cost + ?7
         WHERE day = ?1 AND tenant = ?2 AND route = ?3",
    )?;
    for ((day, tenant, route), ended) in std::mem::take(&mut changes.counts) {
        let EndedCalls { all, withdrawn, billable, cost } = ended;
        count.execute(params![day, tenant, route, all, withdrawn, billable, cost])?;
        changes.days.insert(day);
    }
    Ok(())
}

fn refund(tenant: &str, day: &str, price: i64) -> Option<Refund> {
    let rupiah = u64::try_from(price).ok().filter(|price| *price > 0)?;
    Some(Refund { tenant: tenant.parse().ok()?, day: day.parse().ok()?, rupiah })
}
