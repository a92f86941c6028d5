//! The journal: the ledger's tables and statements.

use super::charge::Outcome;
use super::counts::{Counts, Row};
use super::selection::{LineName, Selection};
use super::settlement::{ByHand, CallName, ClaimLink, OpenCall, Refund, Rules, Spent, Why};
use super::totals::EndedCall;
use crate::base::calendar::Day;
use crate::base::name::TenantName;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The SQL that makes the ledger's tables. The column `unknown` includes calls in flight, so that the numbers are true
/// at any moment, also after a crash.
pub const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE ledger_node (id TEXT NOT NULL);
    CREATE TABLE ledger_days (
        day TEXT NOT NULL,
        tenant TEXT NOT NULL,
        route TEXT NOT NULL,
        requests INTEGER NOT NULL DEFAULT 0,
        upstream_calls INTEGER NOT NULL DEFAULT 0,
        -- Of those, what upstream may charge for: what quotas count.
        charged_calls INTEGER NOT NULL DEFAULT 0,
        billable INTEGER NOT NULL DEFAULT 0,
        unknown INTEGER NOT NULL DEFAULT 0,
        hits INTEGER NOT NULL DEFAULT 0,
        collapsed INTEGER NOT NULL DEFAULT 0,
        shared INTEGER NOT NULL DEFAULT 0,
        cost INTEGER NOT NULL DEFAULT 0,
        saved INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (day, tenant, route)
    ) WITHOUT ROWID;
    -- Calls whose outcome is not known, or not yet; a row goes when it is.
    CREATE TABLE ledger_calls (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        day TEXT NOT NULL,
        tenant TEXT NOT NULL,
        route TEXT NOT NULL,
        price INTEGER NOT NULL,
        -- Names account and upstream's id without telling them.
        name BLOB
    );
    CREATE INDEX ledger_calls_by_name ON ledger_calls (name) WHERE name IS NOT NULL;
",
    "
    -- Milliseconds since 1970.
    ALTER TABLE ledger_calls ADD COLUMN booked INTEGER NOT NULL DEFAULT 0;
    -- Whether its outcome was told, and is that nobody knows.
    ALTER TABLE ledger_calls ADD COLUMN ended INTEGER NOT NULL DEFAULT 0;
",
    "
    -- Number of the last publication; Redis has the same, unless this file is an older copy.
    ALTER TABLE ledger_node ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
    -- Days whose lines were raised to what was published, since the file was an older copy.
    CREATE TABLE ledger_restored (day TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID;
",
    "
    -- The claim of an idempotency key that the call was made under.
    ALTER TABLE ledger_calls ADD COLUMN claim BLOB;
",
    "
    -- Names account, route and prefixed reference without telling them.
    ALTER TABLE ledger_calls ADD COLUMN reference BLOB;
    CREATE TABLE ledger_references (
        -- Names account and upstream's id without telling them.
        name BLOB NOT NULL PRIMARY KEY,
        reference BLOB,
        -- 1: billable, 0: not billable, 2: pending. Nothing once a call was settled by it.
        outcome INTEGER,
        -- Milliseconds since 1970 when it was said.
        said INTEGER NOT NULL,
        -- Whether the other nodes, if there are any, heard of it.
        announced INTEGER NOT NULL DEFAULT 0,
        day TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX ledger_references_waiting ON ledger_references (reference) WHERE outcome IS NOT NULL;
",
    "
    -- Both in milliseconds since 1970, 0 before: when Redis took the word for the node of its call (`announced`), and for a lost
    -- call. A word stays for a while after that, in case Redis loses its newest writes.
    ALTER TABLE ledger_references ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX ledger_references_said ON ledger_references (said) WHERE outcome IS NOT NULL;
    CREATE INDEX ledger_references_new ON ledger_references (said) WHERE announced = 0 AND outcome IS NOT NULL;
    -- Words that have settled a call of this journal, and that Redis still has to forget.
    CREATE TABLE ledger_withdrawn (
        -- Names account and upstream's id without telling them.
        name BLOB NOT NULL PRIMARY KEY,
        reference BLOB,
        -- Milliseconds since 1970 when Redis took it, 0 before.
        told INTEGER NOT NULL DEFAULT 0,
        day TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX ledger_withdrawn_told ON ledger_withdrawn (told);
",
];

pub(super) fn book(
    connection: &Connection,
    (day, tenant, route): (&str, &str, &str),
    price: u64,
    now: SystemTime,
    (claim, reference): (Option<ClaimLink>, Option<CallName>),
) -> rusqlite::Result<i64> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO ledger_calls (day, tenant, route, price, booked, claim, reference)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let id = insert.insert(params![day, tenant, route, number(price), millis(now), claim, reference])?;
    let mut count = connection.prepare_cached(
        "INSERT INTO ledger_days (day, tenant, route, upstream_calls, charged_calls, unknown) VALUES (?1, ?2, ?3, 1, 1, 1)
         ON CONFLICT DO UPDATE SET upstream_calls = upstream_calls + 1, charged_calls = charged_calls + 1,
             unknown = unknown + 1",
    )?;
    count.execute(params![day, tenant, route])?;
    Ok(id)
}

/// Writes the reference of a call that is in flight.
pub(super) fn refer(connection: &Connection, id: i64, reference: CallName) -> rusqlite::Result<()> {
    let mut refer = connection.prepare_cached("UPDATE ledger_calls SET reference = ?2 WHERE id = ?1")?;
    refer.execute(params![id, reference]).map(|_| ())
}

/// The effects of the calls that one transaction has ended.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Days whose lines changed.
    pub(super) days: BTreeSet<String>,
    /// Prices of calls that were sent and are not billable.
    pub(super) refunds: Vec<Refund>,
    /// Calls that ended, for metrics.
    pub(super) ended: Vec<EndedCall>,
    /// The claims of calls that a later settlement found not billable.
    pub(super) freed: Vec<ClaimLink>,
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
    /// The claim of the idempotency key under which the call was made.
    claim: Option<ClaimLink>,
    /// True if the call has ended with an unknown outcome.
    pub(super) ended: bool,
}

impl OpenRow {
    /// The columns of a row, in the order in which [`open_row`] reads them.
    pub(super) const COLUMNS: &str = "id, day, tenant, route, price, reference, claim, ended";
}

/// Reads the [columns](OpenRow::COLUMNS) of a row.
pub(super) fn open_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<OpenRow> {
    let (id, day, tenant, route) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    let (price, reference, claim, ended) = (row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?);
    Ok(OpenRow { id, day, tenant, route, price, reference, claim, ended })
}

/// Records that a call has ended with an unknown outcome. The name of its record or its reference may settle it later.
pub(super) fn leave_open(
    connection: &Connection,
    number: i64,
    (name, reference): (Option<CallName>, Option<CallName>),
) -> rusqlite::Result<()> {
    let mut keep =
        connection.prepare_cached("UPDATE ledger_calls SET name = ?2, reference = ?3, ended = 1 WHERE id = ?1")?;
    keep.execute(params![number, name, reference]).map(|_| ())
}

/// The way in which a call's outcome was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The call's own answer, which also decides the claim of the call.
    Answer(Outcome),
    /// A later settlement: by a callback, a GET or an operator.
    Report(Outcome),
    /// The call was never sent.
    Withdrawal,
}

impl By {
    const fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Answer(outcome) | Self::Report(outcome) => Some(outcome),
            Self::Withdrawal => None,
        }
    }
}

/// Ends a call whose outcome is decided.
pub(super) fn finish(connection: &Connection, row: &OpenRow, by: By, changes: &mut Changes) -> rusqlite::Result<()> {
    let OpenRow { id, day, tenant, route, price, claim, .. } = row;
    let outcome = by.outcome();
    let (calls, billable, cost) = match outcome {
        None => (1, 0, 0),
        Some(Outcome::Billable) => (0, 1, *price),
        Some(Outcome::NotBillable | Outcome::Unknown) => (0, 0, 0),
    };
    if outcome == Some(Outcome::NotBillable) {
        changes.refunds.extend(refund(tenant, day, *price));
    }
    if by == By::Report(Outcome::NotBillable) {
        changes.freed.extend(claim);
    }
    let mut count = connection.prepare_cached(
        "UPDATE ledger_days SET unknown = unknown - 1, upstream_calls = upstream_calls - ?4,
             charged_calls = charged_calls - ?4, billable = billable + ?5, cost = cost + ?6
         WHERE day = ?1 AND tenant = ?2 AND route = ?3",
    )?;
    count.execute(params![day, tenant, route, calls, billable, cost])?;
    connection.prepare_cached("DELETE FROM ledger_calls WHERE id = ?1")?.execute([id])?;
    changes.days.insert(day.clone());
    changes.end(row, outcome);
    Ok(())
}

/// Removes a record's name from the calls that have it, because the record's outcome has settled another call.
pub(super) fn forget_name(connection: &Connection, name: CallName) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE ledger_calls SET name = NULL WHERE name = ?1")?.execute([name]).map(|_| ())
}

/// Returns the lost call with this number that was booked at this time, in milliseconds since 1970. Returns `None` if
/// there is no such call.
pub(super) fn lost_call(
    connection: &Connection,
    (number, booked): (i64, i64),
    rules: Rules,
) -> rusqlite::Result<Option<OpenRow>> {
    let columns = OpenRow::COLUMNS;
    let mut find = connection.prepare_cached(&format!(
        "SELECT {columns} FROM ledger_calls
         WHERE id = ?1 AND booked = ?2 AND name IS NULL AND (ended = 1 OR id < ?3)"
    ))?;
    find.query_row(params![number, booked, rules.first_new], open_row).optional()
}

fn refund(tenant: &str, day: &str, price: i64) -> Option<Refund> {
    let rupiah = u64::try_from(price).ok().filter(|price| *price > 0)?;
    Some(Refund { tenant: tenant.parse().ok()?, day: day.parse().ok()?, rupiah })
}

/// Returns the number of calls of each team whose outcome is not known.
pub(super) fn unknown(connection: &Connection) -> rusqlite::Result<BTreeMap<String, u64>> {
    let mut count = connection.prepare("SELECT tenant, count(*) FROM ledger_calls GROUP BY tenant")?;
    let counts = count.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    counts.collect()
}

/// Adds counts from memory to the line of a day, a team and a route.
pub(super) fn add(
    connection: &Connection,
    day: &str,
    tenant: &str,
    route: &str,
    counts: &Counts,
) -> rusqlite::Result<()> {
    let mut add = connection.prepare_cached(
        "INSERT INTO ledger_days (day, tenant, route, requests, upstream_calls, hits, collapsed, shared, saved)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
             upstream_calls = upstream_calls + excluded.upstream_calls, hits = hits + excluded.hits,
             collapsed = collapsed + excluded.collapsed, shared = shared + excluded.shared,
             saved = saved + excluded.saved",
    )?;
    let [requests, calls, _, _, hits, collapsed, shared, _, saved] = counts.numbers().map(number);
    add.execute(params![day, tenant, route, requests, calls, hits, collapsed, shared, saved])?;
    Ok(())
}

/// Returns the lines of a selection, and one more line if there are more than `selection.most`.
pub(super) fn rows(connection: &Connection, selection: &Selection) -> rusqlite::Result<Vec<Row>> {
    let Selection { to, tenant, columns, after, most, .. } = selection;
    let (shown, named) = (columns.expressions().join(", "), columns.names().collect::<Vec<_>>().join(", "));
    let sums = Counts::NAMES.map(|name| format!("SUM({name})")).join(", ");
    let mut select = connection.prepare_cached(&format!(
        "SELECT {shown}, {sums} FROM ledger_days
         WHERE day BETWEEN ?1 AND ?2 AND (?3 IS NULL OR tenant = ?3) AND ({shown}) > (?4, ?5, ?6)
         GROUP BY {named} ORDER BY {named} LIMIT ?7"
    ))?;
    let (from, to) = (selection.first().to_string(), to.to_string());
    let LineName([day, team, route]) = after.clone().unwrap_or_default();
    let (tenant, most) = (tenant.as_ref().map(TenantName::as_str), i64::try_from(*most).unwrap_or(i64::MAX));
    let rows = select.query_map(params![from, to, tenant, day, team, route, most.saturating_add(1)], |row| {
        let mut numbers = [0; 9];
        for (at, number) in numbers.iter_mut().enumerate() {
            *number = u64::try_from(row.get::<_, i64>(at + 3)?).unwrap_or_default();
        }
        Ok(Row { day: row.get(0)?, tenant: row.get(1)?, route: row.get(2)?, counts: Counts::of(numbers) })
    })?;
    rows.collect()
}

/// Returns at most `most` calls with an unknown outcome and a number above `after`, the oldest first. Calls in flight
/// are included. `tenant` is their team, or `None` for all teams.
pub(super) fn open_calls(
    connection: &Connection,
    tenant: Option<&str>,
    after: i64,
    most: usize,
) -> rusqlite::Result<Vec<OpenCall>> {
    let mut select = connection.prepare_cached(
        "SELECT id, booked, day, tenant, route, name IS NOT NULL, ended FROM ledger_calls
         WHERE id > ?1 AND (?2 IS NULL OR tenant = ?2) ORDER BY id LIMIT ?3",
    )?;
    let calls = select.query_map(params![after, tenant, i64::try_from(most).unwrap_or(i64::MAX)], open_call)?;
    calls.collect()
}

/// Returns at most `most` calls with an unknown outcome that are not in flight, the oldest first. Calls of an earlier
/// run have numbers below `first_new`, and can't be in flight.
pub(super) fn unknown_calls(connection: &Connection, first_new: i64, most: usize) -> rusqlite::Result<Vec<OpenCall>> {
    let mut select = connection.prepare_cached(
        "SELECT id, booked, day, tenant, route, name IS NOT NULL, ended FROM ledger_calls
         WHERE ended = 1 OR id < ?1 ORDER BY id LIMIT ?2",
    )?;
    let calls = select.query_map(params![first_new, i64::try_from(most).unwrap_or(i64::MAX)], open_call)?;
    calls.collect()
}

fn open_call(row: &rusqlite::Row<'_>) -> rusqlite::Result<OpenCall> {
    let booked = Duration::from_millis(u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default());
    let why = match (row.get(5)?, row.get(6)?) {
        (true, _) => Why::Pending,
        (false, true) => Why::Lost,
        (false, false) => Why::Open,
    };
    let (id, day, tenant, route) = (row.get(0)?, row.get(2)?, row.get(3)?, row.get(4)?);
    Ok(OpenCall { id, booked: UNIX_EPOCH + booked, day, tenant, route, why })
}

pub(super) fn millis(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// Returns the effect that a settlement by hand has on a call. Only a call with an unknown outcome that is not in
/// flight can be settled: the call has ended, or it is of an earlier run (its number is below `first_new`). `booked` is
/// the expected time of the call's booking; `None` accepts any time.
pub(super) fn standing(
    connection: &Connection,
    number: i64,
    booked: Option<SystemTime>,
    first_new: i64,
) -> rusqlite::Result<ByHand> {
    let mut find = connection.prepare_cached(
        "SELECT count(*) FROM ledger_calls WHERE id = ?1 AND (ended = 1 OR id < ?2) AND (?3 IS NULL OR booked = ?3)",
    )?;
    let open: i64 = find.query_row(params![number, first_new, booked.map(millis)], |row| row.get(0))?;
    Ok(if open > 0 { ByHand::Settled } else { ByHand::NotOpen })
}

pub(super) fn spent(connection: &Connection, today: Day) -> rusqlite::Result<Vec<Spent>> {
    let mut select = connection.prepare_cached(
        "SELECT tenant, sum(charged_calls), sum(CASE day WHEN ?2 THEN charged_calls ELSE 0 END),
             sum(cost) + max(ifnull(price, 0))
         FROM ledger_days LEFT JOIN
             (SELECT tenant, sum(price) AS price FROM ledger_calls WHERE day BETWEEN ?1 AND ?2 GROUP BY tenant) USING (tenant)
         WHERE day BETWEEN ?1 AND ?2 GROUP BY tenant",
    )?;
    let found = select.query_map(params![today.month().first().to_string(), today.to_string()], |row| {
        Ok((row.get::<_, String>(0)?, [row.get::<_, i64>(1)?, row.get(2)?, row.get(3)?]))
    })?;
    let mut spent = Vec::new();
    for row in found {
        let (tenant, counts) = row?;
        let Ok(tenant) = tenant.parse() else { continue };
        let [this_month, count, rupiah] = counts.map(|number| u64::try_from(number).unwrap_or_default());
        spent.push(Spent { tenant, day: today, today: count, this_month, rupiah });
    }
    Ok(spent)
}

pub(super) fn node(connection: &Connection) -> rusqlite::Result<String> {
    match connection.query_row("SELECT id FROM ledger_node", [], |row| row.get(0)) {
        Err(rusqlite::Error::QueryReturnedNoRows) => {
            let node = uuid::Uuid::new_v4().simple().to_string();
            connection.execute("INSERT INTO ledger_node (id) VALUES (?1)", [&node])?;
            Ok(node)
        }
        known => known,
    }
}

/// Returns every day that has a line.
pub(super) fn days(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut select = connection.prepare_cached("SELECT DISTINCT day FROM ledger_days")?;
    let days = select.query_map([], |row| row.get(0))?;
    days.collect()
}

/// Returns the smallest number that the next call can get.
pub(super) fn first_new(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT ifnull(max(id), 0) + 1 FROM ledger_calls", [], |row| row.get(0))
}

/// Returns the number of this node's last publication to the other nodes.
pub(super) fn generation(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT generation FROM ledger_node", [], |row| row.get(0))
}

pub(super) fn set_generation(connection: &Connection, generation: i64) -> rusqlite::Result<()> {
    connection.execute("UPDATE ledger_node SET generation = ?1", [generation]).map(|_| ())
}

/// Begins a publication to the other nodes, and returns its number.
pub(super) fn next_generation(connection: &Connection) -> rusqlite::Result<i64> {
    connection.execute("UPDATE ledger_node SET generation = generation + 1", [])?;
    generation(connection)
}

pub(super) fn note_restored(connection: &Connection, day: &str) -> rusqlite::Result<()> {
    connection.execute("INSERT OR IGNORE INTO ledger_restored VALUES (?1)", [day]).map(|_| ())
}

/// Returns the days whose lines were raised to the published lines, because the journal was a restored copy.
pub(super) fn restored(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    let mut select = connection.prepare("SELECT day FROM ledger_restored")?;
    let days = select.query_map([], |row| row.get(0))?;
    days.collect()
}

/// Raises the numbers of a line to the published ones; returns false if nothing changed. The published line has only
/// the number of open calls. So the journal's open calls of earlier runs (below `first_new`) are replaced by that
/// number of calls, which no callback and no GET can settle. Otherwise a call that was settled before the restore could
/// be settled, and counted as billable, a second time.
pub(super) fn raise(connection: &Connection, row: &Row, first_new: i64) -> rusqlite::Result<bool> {
    let Row { day, tenant, route, counts } = row;
    let (Ok(of), Ok(team)) = (day.parse(), tenant.parse()) else { return Ok(false) };
    let at = params![day, tenant, route];
    connection.execute("INSERT OR IGNORE INTO ledger_days (day, tenant, route) VALUES (?1, ?2, ?3)", at)?;
    let selection = Selection { tenant: Some(team), ..Selection::days(of, of) };
    let one = rows(connection, &selection)?.into_iter().find(|row| row.route == *route);
    let before = one.map(|row| row.counts).unwrap_or_default();
    if before == *counts {
        return Ok(false);
    }
    let new = "SELECT count(*) FROM ledger_calls WHERE day = ?1 AND tenant = ?2 AND route = ?3 AND id >= ?4";
    let new = connection.query_row(new, params![day, tenant, route, first_new], |row| row.get::<_, i64>(0))?;
    connection.execute(
        "DELETE FROM ledger_calls WHERE day = ?1 AND tenant = ?2 AND route = ?3 AND id < ?4",
        params![day, tenant, route, first_new],
    )?;
    for _ in 0..counts.unknown {
        connection
            .execute("INSERT INTO ledger_calls (day, tenant, route, price, ended) VALUES (?1, ?2, ?3, 0, 1)", at)?;
    }
    let mut raised = before.numbers();
    for (number, published) in raised.iter_mut().zip(counts.numbers()) {
        *number = published.max(*number);
    }
    let unknown = counts.unknown.saturating_add(new.unsigned_abs());
    let Counts { requests, upstream_calls, billable, hits, collapsed, shared, cost, saved, .. } = Counts::of(raised);
    let numbers = [requests, upstream_calls, billable, unknown, hits, collapsed, shared, cost, saved].map(number);
    let [requests, calls, billable, unknown, hits, collapsed, shared, cost, saved] = numbers;
    connection.execute(
        "UPDATE ledger_days SET requests = ?4, upstream_calls = ?5, charged_calls = max(charged_calls, ?6 + ?7),
             billable = ?6, unknown = ?7, hits = ?8, collapsed = ?9, shared = ?10, cost = ?11, saved = ?12
         WHERE day = ?1 AND tenant = ?2 AND route = ?3",
        params![day, tenant, route, requests, calls, billable, unknown, hits, collapsed, shared, cost, saved],
    )?;
    Ok(true)
}

pub(super) fn open(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT count(*) FROM ledger_calls", [], |row| row.get(0))
}

pub(super) fn prune(connection: &Connection, oldest: &str) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM ledger_days WHERE day < ?1", [oldest])?;
    connection.execute("DELETE FROM ledger_calls WHERE day < ?1", [oldest])?;
    connection.execute("DELETE FROM ledger_withdrawn WHERE day < ?1", [oldest])?;
    connection.execute("DELETE FROM ledger_references WHERE day < ?1", [oldest]).map(|_| ())
}

/// Converts a count to SQLite's signed integers.
pub(super) fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
