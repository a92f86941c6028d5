//! Removal of old rows.

use super::super::error::StateError;
use super::super::idempotency::KEPT;
use super::super::model::{EARLY, LATE};
use super::super::times::length;
use super::engine::Sqlite;
use super::persons::day;
use rusqlite::params;
use std::time::Duration;

/// The largest number of rows of each kind that one sweep removes. Other writes wait meanwhile.
const MOST_SWEPT: i64 = 500;

impl Sqlite {
    pub(in super::super) async fn sweep(&self) -> Result<u64, StateError> {
        let (now, retention) = (self.now(), self.retention);
        let before = |age: Duration| now - length(age);
        let (owners, delivered, dead) =
            (before(retention.owners), before(retention.delivered_callbacks), before(retention.dead_letters));
        // A person is kept as long as any entry that the person leads to.
        let claims = before(KEPT);
        let persons = owners.min(delivered).min(dead).min(claims) - length(EARLY + LATE);
        let swept = self.database.write(move |db| {
            let mut swept = 0;
            let mut run = |statement: &str, time: i64| -> rusqlite::Result<()> {
                swept += db.prepare_cached(statement)?.execute(params![time, MOST_SWEPT])?;
                Ok(())
            };
            for standing in [2, 3] {
                run(&delete("deliveries", "id", &format!("standing = {standing} AND due < ?1")), delivered)?;
            }
            run(&delete("deliveries", "id", "standing = 1 AND due < ?1"), dead)?;
            // Such a delivery belongs to a team that is not configured any more.
            run(&delete("deliveries", "id", "standing = 0 AND due < ?1"), dead)?;
            // The callback was fanned out, and no late owner may follow any more. Its name stays, because a repeat may
            // still come.
            run(
                "UPDATE callbacks SET standing = 3, content = NULL WHERE name IN
                 (SELECT name FROM callbacks WHERE standing = 1 AND due < ?1 LIMIT ?2)",
                now,
            )?;
            run(&delete("callbacks", "name", "standing = 3 AND due < ?1"), delivered)?;
            run(&delete("callbacks", "name", "standing = 2 AND due < ?1"), now)?;
            run(
                "DELETE FROM awaiting WHERE (record, tenant) IN (SELECT record, tenant FROM owners WHERE since < ?1 LIMIT ?2)",
                owners,
            )?;
            run(
                "DELETE FROM owners WHERE (record, tenant) IN (SELECT record, tenant FROM owners WHERE since < ?1 LIMIT ?2)",
                owners,
            )?;
            run(
                "DELETE FROM persons_by_day WHERE (day, person, record) IN
                 (SELECT day, person, record FROM persons_by_day WHERE day < ?1 LIMIT ?2)",
                day(persons),
            )?;
            run(&delete("claims", "name", "at < ?1"), claims)?;
            run(&delete("sessions", "name", "ends < ?1"), now)?;
            run(&delete("erased", "person", "at < ?1"), persons)?;
            Ok(swept as u64)
        });
        Ok(swept.await?)
    }
}

/// Returns a statement that removes the rows that meet `condition`, at most `?2` of them. `key` is the table's primary
/// key.
fn delete(table: &str, key: &str, condition: &str) -> String {
    format!("DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE {condition} LIMIT ?2)")
}
