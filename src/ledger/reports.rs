//! Settlements by id over nodes: a reported outcome waits in Redis for the node of its call.
//!
//! Invariants:
//! - A reported outcome leaves the journal of the node that got it only after Redis has had it for a while.
//! - A reported outcome leaves Redis only after the settlement is in the journal of the call's node.
//!
//! So an outcome is not lost if a process ends, if Redis loses its newest writes, or if the call's node is down for a
//! time. The node of a call asks for the outcomes, because only this node knows which of its calls are open.

use super::batch;
use super::closing;
use super::inner::Inner;
use super::journal::Changes;
use super::published::PublishedLedgers;
use super::references::{self, Report};
use super::rendezvous;
use super::settlement::{Call, CallName, Closing, End};
use rusqlite::{Connection, params};
use std::sync::Arc;
use std::time::Duration;

/// The time that a reported outcome stays in the journal after Redis has it. In a crash or a failover, Redis loses only
/// writes that are younger.
const SECURED: Duration = Duration::from_secs(60);
/// The largest number of reported outcomes that one round sends, or withdraws.
const TOGETHER: usize = 500;
/// The largest number of rounds in one step of the ledger's background task. The next step makes more.
const ROUNDS: usize = 20;
/// The largest number of open calls in one question to Redis. Each step of the background task asks about the newest
/// calls, and then about the next group of older calls.
const ASKED: usize = 1000;

/// The number of the last older open call whose outcome this node has asked for. The next question is about calls with
/// smaller numbers.
#[derive(Debug)]
pub(super) struct Place(i64);

impl Default for Place {
    fn default() -> Self {
        Self(i64::MAX)
    }
}

/// Sends to Redis the outcomes that were reported here for records whose calls are not in this journal.
pub(super) async fn send(ledger: &Arc<Inner>, published: &PublishedLedgers) {
    for _ in 0..ROUNDS {
        let new = |connection: &Connection| unannounced(connection, TOGETHER);
        let Ok(reports) = ledger.database.read(new).await else { return };
        if reports.is_empty() || published.send_reports(&reports).await.is_err() {
            return;
        }
        let (rules, is_last) = (ledger.rules(), reports.len() < TOGETHER);
        // If this can't be written, the outcomes are sent again, which changes nothing.
        let noted = ledger.database.write(move |connection| announced(connection, &reports, rules.now)).await;
        if noted.is_err() || is_last {
            return;
        }
    }
}

/// Takes the outcomes that other nodes sent for the records of this journal's open calls.
pub(super) async fn take(ledger: &Arc<Inner>, published: &PublishedLedgers, place: &mut Place) {
    let Some(last) = take_below(ledger, published, i64::MAX).await else { return };
    // There are older calls only if the newest ones were as many as a node asks for at once.
    let from = if last == i64::MIN { i64::MAX } else { place.0.min(last) };
    *place = Place(match from {
        i64::MAX => i64::MAX,
        from => take_below(ledger, published, from).await.filter(|last| *last != i64::MIN).unwrap_or(i64::MAX),
    });
}

/// Takes the outcomes that were reported for the newest open calls whose numbers are less than `below`, for at most
/// `ASKED` calls. Returns the smallest number of these calls, or `i64::MIN` if no older open call is left. Returns
/// `None` if Redis or the journal failed.
async fn take_below(ledger: &Arc<Inner>, published: &PublishedLedgers, below: i64) -> Option<i64> {
    let open = ledger.database.read(move |connection| open_names(connection, below)).await.ok()?;
    let names: Vec<_> = open.iter().map(|(_, name)| *name).collect();
    let reports = published.reports(&names).await.ok()?;
    settle(ledger, reports).await?;
    Some(if open.len() < ASKED { i64::MIN } else { open.last().map_or(i64::MIN, |(number, _)| *number) })
}

/// Settles calls of this journal by reported outcomes from Redis. Returns `None` if the settlements can't be written
/// now; the outcomes stay in Redis then.
async fn settle(ledger: &Arc<Inner>, reports: Vec<Report>) -> Option<()> {
    if reports.is_empty() {
        return Some(());
    }
    let rules = ledger.rules();
    let work = move |connection: &Connection, changes: &mut Changes| {
        for &Report { name, reference, outcome } in &reports {
            let (call, end) = (Call::NamedElsewhere(name), End::Outcome(outcome, Some(name)));
            closing::close(connection, &Closing { call, end, reference, is_early: false }, rules, changes)?;
        }
        Ok(())
    };
    batch::flush_with(ledger, work).await.ok()
}

/// Makes Redis forget outcomes that have settled calls of this journal, so that they settle no second call.
pub(super) async fn withdraw(ledger: &Arc<Inner>, published: &PublishedLedgers) {
    for _ in 0..ROUNDS {
        let Ok(used) = ledger.database.read(unwithdrawn).await else { return };
        if used.is_empty() {
            return;
        }
        let is_last = used.len() < TOGETHER;
        for (name, reference) in &used {
            let forgotten = match reference {
                Some(reference) => rendezvous::named(ledger, published, *reference, *name).await,
                None => published.forget_report(*name).await,
            };
            if forgotten.is_err() {
                return;
            }
        }
        let rules = ledger.rules();
        // If this can't be written, the outcomes are withdrawn again, which changes nothing.
        let noted = ledger.database.write(move |connection| withdrawn(connection, &used, rules.now)).await;
        if noted.is_err() || is_last {
            return;
        }
    }
}

/// Marks all outcomes and withdrawals in the journal as not sent, so that the next step sends them again. Redis was
/// out, and may have lost its newest writes.
pub(super) async fn send_again(ledger: &Inner) {
    let again = |connection: &Connection| {
        connection.execute(
            "UPDATE ledger_references SET announced = 0, told = 0
             WHERE outcome IS NOT NULL AND (announced > 0 OR told > 0)",
            [],
        )?;
        connection.execute("UPDATE ledger_withdrawn SET told = 0 WHERE told > 0", []).map(|_| ())
    };
    // If this can't be written, the outcomes can't be written either.
    let _ = ledger.database.write(again).await;
}

/// Deletes reported outcomes and withdrawals that Redis has had for a minute ([`SECURED`]).
pub(super) async fn forget_secured(ledger: &Inner) {
    let before = ledger.rules().now - i64::try_from(SECURED.as_millis()).unwrap_or_default();
    // A failed deletion is tried again with the next step.
    let _ = ledger.database.write(move |connection| forget_before(connection, before)).await;
}

fn forget_before(connection: &Connection, before: i64) -> rusqlite::Result<()> {
    let mut old = connection.prepare_cached(
        "DELETE FROM ledger_references
         WHERE outcome IS NOT NULL AND said < ?1
             AND (told > 0 AND told < ?1 OR reference IS NULL AND announced > 0 AND announced < ?1)",
    )?;
    old.execute([before])?;
    connection
        .prepare_cached("DELETE FROM ledger_withdrawn WHERE told > 0 AND told < ?1")?
        .execute([before])
        .map(|_| ())
}

/// Returns the reported outcomes that were not sent to Redis yet. Outcomes of pending records are not among them.
fn unannounced(connection: &Connection, most: usize) -> rusqlite::Result<Vec<Report>> {
    let mut find = connection.prepare_cached(
        "SELECT name, reference, outcome FROM ledger_references
         WHERE announced = 0 AND outcome IN (0, 1) ORDER BY said LIMIT ?1",
    )?;
    let reports = find.query_map([i64::try_from(most).unwrap_or(i64::MAX)], |row| {
        Ok(Report { name: row.get(0)?, reference: row.get(1)?, outcome: references::outcome(row.get(2)?) })
    })?;
    reports.collect()
}

fn announced(connection: &Connection, reports: &[Report], now: i64) -> rusqlite::Result<()> {
    let mut note = connection.prepare_cached("UPDATE ledger_references SET announced = ?2 WHERE name = ?1")?;
    reports.iter().try_for_each(|Report { name, .. }| note.execute(params![name, now]).map(|_| ()))
}

type Used = (CallName, Option<CallName>);

fn unwithdrawn(connection: &Connection) -> rusqlite::Result<Vec<Used>> {
    let mut find = connection.prepare_cached("SELECT name, reference FROM ledger_withdrawn WHERE told = 0 LIMIT ?1")?;
    let used = find.query_map([i64::try_from(TOGETHER).unwrap_or(i64::MAX)], |row| Ok((row.get(0)?, row.get(1)?)))?;
    used.collect()
}

fn withdrawn(connection: &Connection, used: &[Used], now: i64) -> rusqlite::Result<()> {
    let mut note = connection.prepare_cached("UPDATE ledger_withdrawn SET told = ?2 WHERE name = ?1")?;
    used.iter().try_for_each(|(name, _)| note.execute(params![name, now]).map(|_| ()))
}

/// Returns the open calls whose answers have named a record: each call's number and its record's name. Their numbers
/// are below `below`. The newest call comes first, and there are at most [`ASKED`] calls.
fn open_names(connection: &Connection, below: i64) -> rusqlite::Result<Vec<(i64, CallName)>> {
    let mut find = connection.prepare_cached(
        "SELECT id, name FROM ledger_calls WHERE name IS NOT NULL AND id < ?1 ORDER BY id DESC LIMIT ?2",
    )?;
    let most = i64::try_from(ASKED).unwrap_or(i64::MAX);
    let open = find.query_map(params![below, most], |row| Ok((row.get(0)?, row.get(1)?)))?;
    open.collect()
}
