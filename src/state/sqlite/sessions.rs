//! Sessions of people, stored in SQLite.

use super::super::error::StateError;
use super::super::sessions::{ABSOLUTE, IDLE, MOST_SESSIONS, SessionKind, SessionName, StoredSession};
use super::super::times::length;
use super::engine::{Sqlite, limit};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::time::Duration;

/// The smallest time by which the stored end of a session is moved. So a page that sends many requests does not cause a
/// write for each request.
const STEP: Duration = Duration::from_secs(10);

/// A session's row.
struct Row {
    holder: String,
    secret: [u8; 32],
    /// The time at which the session ends without a further request, in milliseconds since 1970. `last` is the latest
    /// possible end, in the same unit.
    ends: i64,
    last: i64,
}

impl Sqlite {
    pub(in super::super) async fn open_session(
        &self,
        name: SessionName,
        holder: String,
        secret: [u8; 32],
    ) -> Result<(), StateError> {
        self.spare()?;
        let now = self.now();
        let open = move |db: &Connection| {
            db.prepare_cached("INSERT INTO sessions (name, holder, secret, ends, last) VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![name, holder, secret, now + length(IDLE), now + length(ABSOLUTE)])?;
            db.prepare_cached(
                "DELETE FROM sessions WHERE name IN
                 (SELECT name FROM sessions WHERE holder = ?1 ORDER BY ends DESC, rowid DESC LIMIT -1 OFFSET ?2)",
            )?
            .execute(params![holder, limit(MOST_SESSIONS)])
        };
        self.database.write(open).await?;
        Ok(())
    }

    pub(in super::super) async fn session(
        &self,
        kind: SessionKind,
        name: SessionName,
    ) -> Result<Option<StoredSession>, StateError> {
        let now = self.now();
        let Some(row) = self.database.read(move |db| found(db, &name, now)).await? else { return Ok(None) };
        let ends = row.last.min(now + length(IDLE));
        if ends - row.ends >= length(STEP) && self.spare().is_ok() {
            let renew = move |db: &Connection| {
                let mut update = db.prepare_cached("UPDATE sessions SET ends = ?2 WHERE name = ?1 AND ends < ?2")?;
                update.execute(params![name, ends])
            };
            // The session's next request tries again.
            let _ = self.database.write(renew).await;
        }
        let left = Duration::from_millis(u64::try_from(ends - now).unwrap_or(0));
        Ok(kind.holder_in(&row.holder).map(|holder| StoredSession { holder, secret: row.secret, left }))
    }

    pub(in super::super) async fn close_session(&self, name: SessionName) -> Result<(), StateError> {
        let close = move |db: &Connection| db.prepare_cached("DELETE FROM sessions WHERE name = ?1")?.execute([name]);
        self.database.write(close).await?;
        Ok(())
    }
}

/// Returns the row of the session with this name; `None` if there is no such session, or if it has ended.
fn found(db: &Connection, name: &SessionName, now: i64) -> rusqlite::Result<Option<Row>> {
    let mut find =
        db.prepare_cached("SELECT holder, secret, ends, last FROM sessions WHERE name = ?1 AND ends > ?2")?;
    let row = find.query_row(params![name, now], |row| {
        Ok(Row { holder: row.get(0)?, secret: row.get(1)?, ends: row.get(2)?, last: row.get(3)? })
    });
    row.optional()
}
