//! Epochs and erasures of a gateway without Redis, in the state database. They are as durable as the disk cache.
//!
//! Invariants: a purged or erased entry never returns, even if an older copy of the disk cache is restored; the numbers
//! of changes only grow, even if a change could not be written; a clock that was set back ends every stored answer,
//! because the ages are unknown then.

use super::change_log::{self, ERA, TENANT};
use super::epoch::{Change, Epochs, Table};
use crate::base::clock::Clock;
use crate::base::database::{Database, DatabaseError, integer, number};
use crate::base::keyring;
use crate::base::steady_clock::{self, Millis, SteadyClock};
use crate::iluma::person::Tag;
use crate::iluma::subject::Subject;
use rusqlite::{Connection, params};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The tables of epochs and erasures, for [`Database::open`]. Times are milliseconds since 1970; `seen` is the latest
/// time that the gateway has seen.
pub const MIGRATIONS: &[&str] = &["
    CREATE TABLE cache_epochs (name TEXT NOT NULL PRIMARY KEY, epoch BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE cache_erased (person BLOB NOT NULL PRIMARY KEY, number INTEGER NOT NULL, at INTEGER NOT NULL)
        WITHOUT ROWID;
    CREATE TABLE cache_changes (last INTEGER NOT NULL, seen INTEGER NOT NULL);
    INSERT INTO cache_changes VALUES (0, 0);
    "];

/// The step by which each start raises the last change's number in the database. The step is greater than the number of
/// changes in one run. So a number is not used again, even if its change could not be written.
const START: u64 = 1 << 20;
/// The time for which an erasure is remembered, 400 days in milliseconds. Every entry has a shorter lifetime. A backup
/// that is older should not be restored.
const REMEMBERED: Millis = 400 * 86_400_000;
/// The difference, in milliseconds, that rounding may cause between two readings of one clock.
const TOLERANCE: Millis = 1_000;

/// Epochs and erasures in the state database.
#[derive(Debug)]
pub(super) struct DurableEpochs {
    database: Database,
    time: Arc<SteadyClock>,
    /// The lock that a change holds until it is written, so that a later change is never written before an earlier one.
    changing: tokio::sync::Mutex<()>,
}

/// The contents of the database at the start.
struct Known {
    table: Table,
    last: u64,
    /// The erased persons, each with the number of its erasure; the oldest erasure is first.
    erased: Vec<(u64, Tag)>,
    seen: Millis,
    was_set_back: bool,
}

impl DurableEpochs {
    /// Reads the epochs and erasures. Returns the durable store, the epochs in memory, and the clock by which stored
    /// entries age.
    ///
    /// # Errors
    /// Returns an error if the database can't be used.
    pub(super) async fn load(
        database: Database,
        clock: &Clock,
    ) -> Result<(Self, Epochs, Arc<SteadyClock>), DatabaseError> {
        let wall = steady_clock::wall(clock);
        let known = database.write(move |connection| load(connection, wall)).await?;
        if known.was_set_back {
            tracing::warn!(
                "the machine's clock was set back since the gateway last ran: the age of stored answers is unknown, so \
                 none of them is used"
            );
        }
        let epochs = Epochs::restored(known.table, known.last);
        for (number, tag) in known.erased {
            epochs.erase(number, &BTreeSet::from([tag]));
        }
        let time = Arc::new(SteadyClock::new(clock.clone(), known.seen));
        Ok((Self { database, time: Arc::clone(&time), changing: tokio::sync::Mutex::default() }, epochs, time))
    }

    /// Applies a change in memory and writes it to the database.
    ///
    /// # Errors
    /// Returns an error if the change could not be written. The change then still applies until this process ends.
    pub(super) async fn change(&self, epochs: &Epochs, change: &Change) -> Result<(), DatabaseError> {
        let _turn = self.changing.lock().await;
        epochs.change(change);
        let (table, last) = ((**epochs.table()).clone(), integer(epochs.last()));
        let (now, forgotten) = (self.time.now(), self.time.now().saturating_sub(REMEMBERED));
        let erased: Vec<Tag> = match change {
            Change::Erased(tags) => tags.iter().copied().collect(),
            Change::Subject(_) | Change::Tenant(_) | Change::All | Change::Registry => Vec::new(),
        };
        self.database
            .write(move |connection| {
                write_table(connection, &table)?;
                let mut insert =
                    connection.prepare_cached("INSERT OR REPLACE INTO cache_erased VALUES (?1, ?2, ?3)")?;
                for tag in &erased {
                    insert.execute(params![tag.bytes(), last, integer(now)])?;
                }
                connection.execute("DELETE FROM cache_erased WHERE at < ?1", [integer(forgotten)])?;
                let update = "UPDATE cache_changes SET last = max(last, ?1), seen = max(seen, ?2)";
                connection.execute(update, [last, integer(now)]).map(drop)
            })
            .await
    }

    /// Stores the current time, so that a later start notices if the clock was set back.
    pub(super) async fn note_time(&self) {
        let now = integer(self.time.now());
        let note =
            move |connection: &Connection| connection.execute("UPDATE cache_changes SET seen = max(seen, ?1)", [now]);
        // If the write fails, the next one follows soon.
        let _: Result<usize, DatabaseError> = self.database.write(note).await;
    }
}

/// Deletes every epoch from the database, so that no look-up finds an earlier entry. The erasures stay. The caller does
/// this if the gateway does not use the disk cache, and after state was restored.
///
/// # Errors
/// Returns an error if the database can't be used.
pub async fn forget(database: &Database) -> Result<(), DatabaseError> {
    database.write(|connection| connection.execute("DELETE FROM cache_epochs", []).map(drop)).await
}

fn load(connection: &Connection, wall: Millis) -> rusqlite::Result<Known> {
    let (last, seen) = connection
        .query_row("SELECT last, seen FROM cache_changes", [], |row| Ok((number(row.get(0)?), number(row.get(1)?))))?;
    let was_set_back = wall.saturating_add(TOLERANCE) < seen;
    let mut select = connection.prepare("SELECT name, epoch FROM cache_epochs")?;
    let mut fields: BTreeMap<String, Vec<u8>> =
        select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    if was_set_back {
        fields.clear();
    }
    for name in Subject::ALL.map(Subject::as_str).into_iter().chain([ERA]) {
        fields.entry(name.to_owned()).or_insert_with(|| keyring::random::<16>().to_vec());
    }
    // Epochs that can't be read are lost: new ones end every stored entry.
    let table = change_log::read_epochs(&fields).unwrap_or_else(Table::random);
    let (last, seen) = (last + START, if was_set_back { wall } else { seen.max(wall) });
    connection.execute("DELETE FROM cache_epochs", [])?;
    write_table(connection, &table)?;
    connection.execute("UPDATE cache_changes SET last = ?1, seen = ?2", [integer(last), integer(seen)])?;
    let mut select = connection.prepare("SELECT number, person FROM cache_erased ORDER BY number")?;
    let erased = select.query_map([], |row| Ok((number(row.get(0)?), row.get::<_, Vec<u8>>(1)?)))?;
    let erased = erased.map(|row| row.map(|(at, tag)| Some((at, Tag::from_bytes(&tag)?))));
    let erased = erased.filter_map(Result::transpose).collect::<rusqlite::Result<_>>()?;
    Ok(Known { table, last, erased, seen, was_set_back })
}

/// Returns the tags of the persons that a database marks as erased.
///
/// # Errors
/// Returns an error if the database can't be read, or if it is of a version without this table.
pub fn erased(connection: &Connection) -> rusqlite::Result<BTreeSet<Tag>> {
    let mut select = connection.prepare("SELECT person FROM cache_erased")?;
    let tags = select.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
    tags.filter_map(|tag| tag.map(|tag| Tag::from_bytes(&tag)).transpose()).collect()
}

/// Marks persons as erased, at the time `now`, in a database that was restored.
///
/// # Errors
/// Returns an error if the database can't be written.
pub async fn note_erased(database: &Database, tags: BTreeSet<Tag>, now: Millis) -> Result<(), DatabaseError> {
    database
        .write(move |connection| {
            // Calls from before the restore began at a lower number than this, so their answers count as erased. Calls
            // after the next start begin at a higher number.
            let last: i64 = connection.query_row("SELECT last FROM cache_changes", [], |row| row.get(0))?;
            let mut insert = connection.prepare_cached("INSERT OR REPLACE INTO cache_erased VALUES (?1, ?2, ?3)")?;
            for tag in &tags {
                insert.execute(params![tag.bytes(), last.saturating_add(1), integer(now)])?;
            }
            Ok(())
        })
        .await
}

fn write_table(connection: &Connection, table: &Table) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached("INSERT OR REPLACE INTO cache_epochs VALUES (?1, ?2)")?;
    insert.execute(params![ERA, table.era])?;
    for subject in Subject::ALL {
        insert.execute(params![subject.as_str(), table.subjects[subject as usize]])?;
    }
    for (tenant, epoch) in &table.tenants {
        insert.execute(params![format!("{TENANT}{tenant}"), epoch])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn tags(seed: u8) -> BTreeSet<Tag> {
        BTreeSet::from([Tag::from_bytes(&[seed; 16]).unwrap()])
    }

    fn database() -> Database {
        Database::in_memory(&[("cache", MIGRATIONS)]).unwrap()
    }

    #[tokio::test]
    async fn epochs_and_erasures_are_the_same_at_the_next_start() {
        let (database, clock) = (database(), Clock::adjustable());
        let (durable, epochs, _) = DurableEpochs::load(database.clone(), &clock).await.unwrap();
        let began = epochs.last();
        durable.change(&epochs, &Change::Subject(Subject::Cft)).await.unwrap();
        durable.change(&epochs, &Change::Tenant("lending".parse().unwrap())).await.unwrap();
        durable.change(&epochs, &Change::Erased(tags(1))).await.unwrap();
        let (_, again, _) = DurableEpochs::load(database.clone(), &clock).await.unwrap();
        assert_eq!(**again.table(), **epochs.table());
        let (one, two): (Vec<_>, Vec<_>) = (tags(1).into_iter().collect(), tags(2).into_iter().collect());
        assert!(again.erased_since(began, &one) && !again.erased_since(began, &two));
        assert!(again.last() > epochs.last() && !again.erased_since(again.last(), &one));
        forget(&database).await.unwrap();
        let (_, other, _) = DurableEpochs::load(database, &clock).await.unwrap();
        assert!(
            Subject::ALL.iter().all(|s| other.table().subjects[*s as usize] != again.table().subjects[*s as usize])
        );
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_ends_what_was_stored() {
        let (database, clock) = (database(), Clock::adjustable());
        let (durable, epochs, _) = DurableEpochs::load(database.clone(), &clock).await.unwrap();
        clock.advance(Duration::from_secs(60));
        durable.note_time().await;
        let (_, same, _) = DurableEpochs::load(database.clone(), &clock).await.unwrap();
        assert_eq!(**same.table(), **epochs.table());
        let (_, other, time) = DurableEpochs::load(database.clone(), &Clock::adjustable()).await.unwrap();
        assert_ne!(other.table().subjects, epochs.table().subjects);
        let lag = steady_clock::wall(&clock) - time.now();
        assert!(lag > 50_000, "what is stored from now on ages by the clock as it is: {lag}");
        let (_, again, _) = DurableEpochs::load(database, &Clock::adjustable()).await.unwrap();
        assert_eq!(**again.table(), **other.table(), "once is enough");
    }
}
