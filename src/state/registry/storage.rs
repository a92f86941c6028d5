//! The two stores of the registry's rows: the node's own database, and Redis.

use super::rows::{Field, Rows, field_of, name_of};
use crate::base::database::{Database, DatabaseError};
use crate::redis::scripts::registry as scripts;
use crate::redis::{Budget, RedisClient, RedisFailure};

/// The migrations of the registry's table in a node's own database, for `Database::open`.
pub const REGISTRY_MIGRATIONS: (&str, &[&str]) = (
    "registry",
    &[
        "CREATE TABLE registry (field TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (field, name)) \
       WITHOUT ROWID;",
    ],
);

/// The largest number of rows that one run of a script writes to Redis. Other clients wait meanwhile.
const MOST_ROWS: usize = 200;

/// Reads the node's own copy of the registry. Rows whose field is unknown are left out.
pub(super) async fn load(database: &Database) -> Result<Rows, DatabaseError> {
    let all = database.read(|connection| {
        let mut statement = connection.prepare_cached("SELECT field, name, value FROM registry")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.collect::<rusqlite::Result<Vec<(String, String, String)>>>()
    });
    let field = |text: String| Field::ALL.into_iter().find(|known| known.as_str() == text);
    Ok(all.await?.into_iter().filter_map(|(kind, name, value)| Some(((field(kind)?, name), value))).collect())
}

/// Writes rows to the node's own copy of the registry, durably.
pub(super) async fn save(database: &Database, rows: Rows) -> Result<(), DatabaseError> {
    if rows.is_empty() {
        return Ok(());
    }
    let write = database.write(move |connection| {
        let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO registry VALUES (?1, ?2, ?3)")?;
        for ((field, name), value) in &rows {
            statement.execute((field.as_str(), name, value))?;
        }
        Ok(())
    });
    write.await
}

/// Reads the shared copy: the number of its last change, and its rows. Returns `None` if that number is still `known`,
/// because then nothing has changed.
pub(super) async fn read(redis: &RedisClient, known: &str) -> Result<Option<(String, Rows)>, RedisFailure> {
    let mut call = scripts::READ.key(redis.keys().registry_number());
    call.key(redis.keys().registry_rows()).arg(known);
    let (number, is_new, fields): (String, bool, Vec<(String, String)>) =
        redis.script(&Budget::background(), &call).await?;
    let rows = fields.into_iter().filter_map(|(field, value)| Some((name_of(&field)?, value)));
    Ok(is_new.then(|| (number, rows.collect())))
}

/// Merges rows into the shared copy. If `is_change` is true and a row was changed, the number of the last change grows,
/// so that other nodes read the copy again.
pub(super) async fn publish(redis: &RedisClient, rows: &Rows, is_change: bool) -> Result<(), RedisFailure> {
    let all: Vec<_> = rows.iter().collect();
    for some in all.chunks(MOST_ROWS) {
        let mut call = scripts::MERGE.key(redis.keys().registry_number());
        call.key(redis.keys().registry_rows()).arg(u8::from(is_change));
        for (name, value) in some {
            call.arg(field_of(name)).arg(name.0.rule().as_str()).arg(value.as_str());
        }
        let _: u64 = redis.script(&Budget::background(), &call).await?;
    }
    Ok(())
}
