//! Idempotency keys, stored in SQLite.

use super::super::error::StateError;
use super::super::idempotency::{ClaimEnd, ClaimId, Claimed, Claiming, KEPT, KeyRow, KeyStatus};
use super::super::times::{length, millis};
use super::engine::Sqlite;
use super::persons::{erased_since, note_persons};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::time::Duration;

impl Sqlite {
    pub(in super::super) async fn claim_key(&self, claiming: &Claiming, id: ClaimId) -> Result<Claimed, StateError> {
        let request = self.secrecy.claimed_request(&id.name, &claiming.request);
        let (now, spare) = (self.now(), self.spare());
        let found = match spare {
            Ok(()) => {
                let holder = claiming.holder.text();
                self.database.write(move |db| claimed(db, &id, (&request, &holder), now)).await?
            }
            // Existing keys are still read while the disk is nearly full.
            Err(error) => Some(self.database.read(move |db| found(db, &id, now)).await?.ok_or(error)?),
        };
        let claimed = found.map_or(Claimed::New, |row| row.met_by(claiming, &request));
        let Claimed::Answered(hidden) = claimed else { return Ok(claimed) };
        self.secrecy.show_kept_answer(&id.name, &hidden).map(Claimed::Answered)
    }

    pub(in super::super) async fn end_claim(&self, id: &ClaimId, end: ClaimEnd) -> Result<bool, StateError> {
        let (id, standing, now) = (*id, end.standing(), self.now());
        let Some(standing) = standing else {
            let free = move |db: &Connection| {
                db.prepare_cached("DELETE FROM claims WHERE name = ?1 AND token = ?2")?
                    .execute(params![id.name, id.token])
            };
            return Ok(self.database.write(free).await? > 0);
        };
        let (content, persons, asked) = match end {
            ClaimEnd::Answered { content, tags, asked } => {
                (Some(self.secrecy.hide_kept_answer(&id.name, &content)), self.persons(&tags), millis(asked))
            }
            ClaimEnd::Free | ClaimEnd::NotKept | ClaimEnd::Unknown => (None, Vec::new(), 0),
        };
        let end = move |db: &Connection| {
            let is_erased = erased_since(db, &persons, asked)?;
            let content = content.as_ref().filter(|_| !is_erased);
            let standing: &str = if is_erased { KeyStatus::Erased.into() } else { standing.into() };
            let ended = db
                .prepare_cached(
                    "UPDATE claims SET standing = ?3, content = ?4
                     WHERE name = ?1 AND token = ?2 AND standing IN ('in_flight', 'unknown')",
                )?
                .execute(params![id.name, id.token, standing, content])?;
            if ended > 0 && content.is_some() {
                note_persons(db, &persons, &id.name, now)?;
            }
            Ok(ended > 0)
        };
        Ok(self.database.write(end).await?)
    }
}

/// Returns the key's row if the key is claimed already. Otherwise claims the key, and returns `None`. `request` is the
/// keyed hash of the request.
fn claimed(
    db: &Connection,
    id: &ClaimId,
    (request, holder): (&[u8; 32], &str),
    now: i64,
) -> rusqlite::Result<Option<KeyRow>> {
    if let Some(row) = found(db, id, now)? {
        return Ok(Some(row));
    }
    db.prepare_cached(
        "INSERT OR REPLACE INTO claims (name, token, request, holder, standing, content, at)
         VALUES (?1, ?2, ?3, ?4, ?5, NULL, ?6)",
    )?
    .execute(params![id.name, id.token, request, holder, <&str>::from(KeyStatus::InFlight), now])?;
    Ok(None)
}

/// Returns the row of a key; `None` if the key has no row, or if its retention has ended.
fn found(db: &Connection, id: &ClaimId, now: i64) -> rusqlite::Result<Option<KeyRow>> {
    let mut find = db.prepare_cached(
        "SELECT token, request, holder, standing, content, at FROM claims WHERE name = ?1 AND at > ?2",
    )?;
    let row = find.query_row(params![id.name, now - length(KEPT)], |row| {
        Ok(KeyRow {
            token: row.get(0)?,
            request: row.get(1)?,
            holder: row.get(2)?,
            standing: row.get::<_, String>(3)?.parse().ok(),
            content: row.get(4)?,
            age: Duration::from_millis(u64::try_from(now - row.get::<_, i64>(5)?).unwrap_or(0)),
        })
    });
    row.optional()
}
