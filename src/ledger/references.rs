//! Settlements by reference in the journal.
//!
//! A call whose answer is lost has no answer that names its record. A callback or a GET about this record settles the
//! oldest lost call with the same account, route and prefixed reference.
//!
//! | table | content |
//! |---|---|
//! | `ledger_calls`, with `reference` | calls; a call is lost if it or its process ended without id and outcome |
//! | `ledger_references` | reported outcomes of such records, by the keyed hash of the id; each waits or was used |
//! | `ledger_withdrawn` | the reported outcomes that have settled a call here, and that Redis must forget |
//!
//! Invariants:
//! - The reported outcome of a record settles one call at most.
//! - A call whose own answer named its record is settled only by the id of this record.
//! - A reported outcome settles no call that was booked later.
//! - While a call with the reference is in flight, the reference settles nothing, because the call's own answer may
//!   name the record.

use super::charge::Outcome;
use super::journal::{self, By, Changes, OpenRow};
use super::settlement::{CallName, Rules};
use rusqlite::{Connection, OptionalExtension as _, params};

/// An outcome that a callback or a GET showed for a record, and that has settled no call yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report {
    /// The keyed hash of the record's id.
    pub(super) name: CallName,
    /// The keyed hash of the record's account, route and reference; `None` if an answer has named the record.
    pub(super) reference: Option<CallName>,
    /// The outcome. It is unknown while Iluma still processes the record; a lost call is bound to the record then.
    pub(super) outcome: Outcome,
}

/// The state of the reported outcome of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Nothing,
    /// This outcome was reported, and waited for the record's call.
    Waiting(Outcome),
    /// The reported outcome has settled a call.
    Used,
}

pub(super) const fn code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::NotBillable => 0,
        Outcome::Billable => 1,
        Outcome::Unknown => 2,
    }
}

pub(super) const fn outcome(code: i64) -> Outcome {
    match code {
        0 => Outcome::NotBillable,
        1 => Outcome::Billable,
        _ => Outcome::Unknown,
    }
}

/// Returns the state of a record's reported outcome, when the answer to the record's own call has come. If the outcome
/// is waiting, removes it, because this call takes it.
pub(super) fn own_answer(connection: &Connection, name: CallName) -> rusqlite::Result<Known> {
    let mut find = connection.prepare_cached("SELECT outcome, told FROM ledger_references WHERE name = ?1")?;
    let found: Option<(Option<i64>, i64)> = find.query_row([name], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(match found {
        None => Known::Nothing,
        Some((None, _)) => Known::Used,
        // Redis has the outcome. It may have given it to a lost call, and announces that. Otherwise this call gets it
        // from Redis.
        Some((Some(_), 1..)) => Known::Nothing,
        Some((Some(code), _)) => {
            forget(connection, name)?;
            Known::Waiting(outcome(code))
        }
    })
}

/// Stores the outcome of a record. A stored outcome is replaced only if it was unknown.
pub(super) fn note(connection: &Connection, report: Report, rules: Rules) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO ledger_references (name, reference, outcome, said, day) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET outcome = excluded.outcome, announced = 0, told = 0 WHERE outcome = 2",
    )?;
    insert
        .execute(params![report.name, report.reference, code(report.outcome), rules.now, rules.day.to_string()])
        .map(|_| ())
}

/// Records that the reported outcome of a record has settled a call, perhaps a call of another node.
pub(super) fn use_up(connection: &Connection, name: CallName, rules: Rules) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO ledger_references (name, outcome, said, day) VALUES (?1, NULL, ?2, ?3)
         ON CONFLICT DO UPDATE SET outcome = NULL",
    )?;
    insert.execute(params![name, rules.now, rules.day.to_string()]).map(|_| ())
}

/// Records that a reported outcome has settled a call of this journal, so that Redis forgets it. An unknown outcome is
/// not recorded, because the final outcome is still to come.
pub(super) fn note_used(
    connection: &Connection,
    name: CallName,
    reference: Option<CallName>,
    outcome: Outcome,
    rules: Rules,
) -> rusqlite::Result<()> {
    if rules.is_alone || outcome == Outcome::Unknown {
        return Ok(());
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO ledger_withdrawn (name, reference, day) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET reference = ifnull(excluded.reference, reference), told = 0",
    )?;
    insert.execute(params![name, reference, rules.day.to_string()]).map(|_| ())
}

/// Deletes the reported outcome of a record.
pub(super) fn forget(connection: &Connection, name: CallName) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM ledger_references WHERE name = ?1")?.execute([name]).map(|_| ())
}

/// Settles the lost calls with a reference by the outcomes that were reported for this reference, the oldest first.
/// Stops if a call with the reference that was booked before the report is in flight.
pub(super) fn pair(
    connection: &Connection,
    reference: CallName,
    rules: Rules,
    changes: &mut Changes,
) -> rusqlite::Result<()> {
    while let Some((name, reported, at)) = waiting(connection, reference)? {
        if is_in_flight(connection, reference, at, rules)? {
            return Ok(());
        }
        let Some(call) = oldest_lost(connection, reference, at, rules)? else {
            // No call here made this record, and no later call can have made it.
            forget(connection, name)?;
            continue;
        };
        settle(connection, &call, (name, reported), changes)?;
        connection.prepare_cached("UPDATE ledger_references SET outcome = NULL WHERE name = ?1")?.execute([name])?;
    }
    Ok(())
}

/// Pairs lost calls with the outcomes that were reported for their references. It runs at the start, because calls that
/// were in flight when the process ended are lost.
pub(super) fn pair_all(connection: &Connection, rules: Rules, changes: &mut Changes) -> rusqlite::Result<()> {
    // An outcome that is meant for other nodes may have no reference.
    let mut find = connection.prepare(
        "SELECT DISTINCT reference FROM ledger_references WHERE outcome IS NOT NULL AND reference IS NOT NULL",
    )?;
    let references: Vec<CallName> = find.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    references.into_iter().try_for_each(|reference| pair(connection, reference, rules, changes))
}

/// Settles a lost call by the reported outcome of a record. If the record is pending, binds the call to the record.
pub(super) fn settle(
    connection: &Connection,
    call: &OpenRow,
    (name, reported): (CallName, Outcome),
    changes: &mut Changes,
) -> rusqlite::Result<()> {
    match reported {
        Outcome::Unknown => journal::leave_open(connection, call.id, (Some(name), call.reference)),
        Outcome::Billable | Outcome::NotBillable => journal::finish(connection, call, By::Report(reported), changes),
    }
}

/// Returns the oldest reported outcome that waits for a lost call with this reference: the record's name, the outcome,
/// and the time of the report in milliseconds since 1970. `None` if no outcome waits.
fn waiting(connection: &Connection, reference: CallName) -> rusqlite::Result<Option<(CallName, Outcome, i64)>> {
    let mut find = connection.prepare_cached(
        "SELECT name, outcome, said FROM ledger_references WHERE reference = ?1 AND outcome IS NOT NULL
         ORDER BY said, name LIMIT 1",
    )?;
    find.query_row([reference], |row| Ok((row.get(0)?, outcome(row.get(1)?), row.get(2)?))).optional()
}

fn is_in_flight(connection: &Connection, reference: CallName, before: i64, rules: Rules) -> rusqlite::Result<bool> {
    let mut find = connection.prepare_cached(
        "SELECT count(*) FROM ledger_calls WHERE reference = ?1 AND ended = 0 AND id >= ?2 AND booked <= ?3",
    )?;
    find.query_row(params![reference, rules.first_new, before], |row| Ok(row.get::<_, i64>(0)? > 0))
}

fn oldest_lost(
    connection: &Connection,
    reference: CallName,
    before: i64,
    rules: Rules,
) -> rusqlite::Result<Option<OpenRow>> {
    let columns = OpenRow::COLUMNS;
    let mut find = connection.prepare_cached(&format!(
        "SELECT {columns} FROM ledger_calls
         WHERE reference = ?1 AND name IS NULL AND (ended = 1 OR id < ?2) AND booked <= ?3 ORDER BY booked, id LIMIT 1"
    ))?;
    find.query_row(params![reference, rules.first_new, before], journal::open_row).optional()
}

/// A lost call of this node, which an outcome reported at any node may settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) number: i64,
    /// The time of the booking, in milliseconds since 1970.
    pub(super) booked: i64,
    pub(super) reference: CallName,
}

/// Returns at most `most` lost calls that have a reference, the oldest first.
pub(super) fn lost(connection: &Connection, rules: Rules, most: usize) -> rusqlite::Result<Vec<Lost>> {
    let mut find = connection.prepare_cached(
        "SELECT id, booked, reference FROM ledger_calls
         WHERE reference IS NOT NULL AND name IS NULL AND (ended = 1 OR id < ?1) ORDER BY id LIMIT ?2",
    )?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let lost = find.query_map(params![rules.first_new, most], |row| {
        Ok(Lost { number: row.get(0)?, booked: row.get(1)?, reference: row.get(2)? })
    })?;
    lost.collect()
}

/// Returns at most `most` reported outcomes that Redis must still get, to match each with a lost call of any node. Each
/// has the time of its report, which is `until` or earlier. Times are milliseconds since 1970.
pub(super) fn unsent(connection: &Connection, until: i64, most: usize) -> rusqlite::Result<Vec<(Report, i64)>> {
    let mut find = connection.prepare_cached(
        "SELECT name, reference, outcome, said FROM ledger_references
         WHERE reference IS NOT NULL AND outcome IS NOT NULL AND told = 0 AND (announced > 0 OR outcome = 2) AND said <= ?1
         ORDER BY said LIMIT ?2",
    )?;
    let found = find.query_map(params![until, i64::try_from(most).unwrap_or(i64::MAX)], |row| {
        let report = Report { name: row.get(0)?, reference: row.get(1)?, outcome: outcome(row.get(2)?) };
        Ok((report, row.get(3)?))
    })?;
    found.collect()
}

/// Records that Redis has got the reported outcome of a record, to match it with a lost call. `now` is in milliseconds
/// since 1970.
pub(super) fn mark_sent(connection: &Connection, name: CallName, now: i64) -> rusqlite::Result<()> {
    let mut note = connection.prepare_cached("UPDATE ledger_references SET told = ?2 WHERE name = ?1")?;
    note.execute(params![name, now]).map(|_| ())
}
