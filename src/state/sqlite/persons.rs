//! The persons that entries name, and their erasure.

use super::super::envelopes::Record;
use super::super::error::StateError;
use super::super::model::Erased;
use super::engine::Sqlite;
use crate::iluma::person::Tag;
use rusqlite::{Connection, params};
use std::collections::HashSet;

/// The days of `persons_by_day`, found with one step in its key for each day.
const DAYS: &str = "WITH RECURSIVE days (day) AS (SELECT min(day) FROM persons_by_day
    UNION ALL SELECT (SELECT min(day) FROM persons_by_day WHERE day > days.day) FROM days WHERE day IS NOT NULL)";
/// The rows of one person on all days.
const OF_PERSON: &str = "day IN (SELECT day FROM days) AND person = ?1";

impl Sqlite {
    pub(in super::super) async fn erase(&self, tags: &[Tag]) -> Result<Erased, StateError> {
        let (persons, now) = (self.persons(tags), self.now());
        let erased = self.database.write(move |db| {
            let mut erased = Erased::default();
            for person in &persons {
                db.execute("INSERT OR REPLACE INTO erased (person, at) VALUES (?1, ?2)", params![person, now])?;
                let mut find =
                    db.prepare_cached(&format!("{DAYS} SELECT DISTINCT record FROM persons_by_day WHERE {OF_PERSON}"))?;
                let records = find.query_map([stored(person)], |row| row.get::<_, Record>(0))?;
                for record in records.collect::<rusqlite::Result<Vec<_>>>()? {
                    erase_record(db, &record, &mut erased)?;
                }
                db.execute(&format!("{DAYS} DELETE FROM persons_by_day WHERE {OF_PERSON}"), [stored(person)])?;
            }
            Ok(erased)
        });
        let erased = erased.await?;
        self.database.scrub().await?;
        Ok(erased)
    }
}

/// Returns true if the record's person was erased.
pub(super) fn is_erased(db: &Connection, record: &Record) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT EXISTS (SELECT 1 FROM owners WHERE record = ?1 AND erased)")?
        .query_row([record], |row| row.get(0))
}

pub(super) fn has_owner(db: &Connection, record: &Record) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT EXISTS (SELECT 1 FROM owners WHERE record = ?1)")?.query_row([record], |row| row.get(0))
}

/// Returns true if one of these persons was erased at `time` or later. `time` is in milliseconds since 1970.
pub(super) fn erased_since(db: &Connection, persons: &[[u8; 32]], time: i64) -> rusqlite::Result<bool> {
    let mut find = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM erased WHERE person = ?1 AND at >= ?2)")?;
    let found: HashSet<bool> = persons
        .iter()
        .map(|person| find.query_row(params![person, time], |row| row.get(0)))
        .collect::<Result<_, _>>()?;
    Ok(found.contains(&true))
}

/// Notes that a record names these persons. `now` is in milliseconds since 1970.
pub(super) fn note_persons(db: &Connection, persons: &[[u8; 32]], record: &Record, now: i64) -> rusqlite::Result<()> {
    let mut note =
        db.prepare_cached("INSERT OR IGNORE INTO persons_by_day (day, person, record) VALUES (?1, ?2, ?3)")?;
    let day = day(now);
    persons.iter().try_for_each(|person| note.execute(params![day, stored(person), record]).map(|_| ()))
}

/// Returns the day of a time in milliseconds since 1970, in days since 1970.
pub(super) const fn day(time: i64) -> i64 {
    time.div_euclid(86_400_000)
}

/// Returns the part of a person's hash that `persons_by_day` has. Two persons have the same part with a probability of
/// 2^-128.
fn stored(person: &[u8; 32]) -> &[u8] {
    &person[..16]
}

fn erase_record(db: &Connection, record: &Record, erased: &mut Erased) -> rusqlite::Result<()> {
    let of = |statement: &str| db.execute(statement, [record]).map(|count| count as u64);
    // An owner of an erased record may have a reference again, from a request for a new customer.
    erased.owners += of(
        "UPDATE owners SET reference = NULL, erased = 1 WHERE record = ?1 AND (NOT erased OR reference IS NOT NULL)",
    )?;
    // One reference of each team continues to wait, without its text. More references without a text would make
    // deliveries that the team can't distinguish.
    of("DELETE FROM awaiting WHERE record = ?1 AND name > (SELECT min(name) FROM awaiting AS other
        WHERE other.record = awaiting.record AND other.tenant = awaiting.tenant)")?;
    of("UPDATE awaiting SET reference = NULL WHERE record = ?1")?;
    let waited = "SELECT count(*) FROM callbacks WHERE record = ?1 AND standing IN (0, 2) AND content IS NOT NULL";
    erased.callbacks += db.query_row(waited, [record], |row| row.get::<_, i64>(0))?.unsigned_abs();
    // The names of callbacks stay, so that a repeat is recognised.
    of("UPDATE callbacks SET standing = 3, content = NULL WHERE record = ?1 AND content IS NOT NULL")?;
    erased.deliveries +=
        of("UPDATE deliveries SET standing = 3, content = NULL WHERE record = ?1 AND content IS NOT NULL")?;
    // A record may be the name of an idempotency key.
    erased.answers +=
        of("UPDATE claims SET standing = 'erased', content = NULL WHERE name = ?1 AND content IS NOT NULL")?;
    Ok(())
}
