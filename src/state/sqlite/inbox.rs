//! Received callbacks: stored, handed out for their fan-out, and settled.

use super::super::envelopes::{CallbackName, DeliveryId, Record};
use super::super::error::StateError;
use super::super::model::{Awaiting, Callback, Copy, FanOutDecision, LATE, ReceiveOutcome, UNREADABLE_WAIT, Waiting};
use super::super::times::{length, millis, time};
use super::delivery_row::StoredStatus;
use super::engine::{Sqlite, limit};
use super::outbox::NewDelivery;
use super::persons::{erased_since, has_owner, is_erased, note_persons};
use crate::base::name::TenantName;
use crate::config::OutboxBounds;
use crate::iluma::callback_type::CallbackType;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::time::Duration;

impl Sqlite {
    pub(in super::super) async fn receive(&self, callback: Callback) -> Result<ReceiveOutcome, StateError> {
        let Callback { account, kind, id, body, tags } = callback;
        let record = self.secrecy.record(&account, &id);
        let name = self.secrecy.callback(&record, &body);
        let hidden = self.secrecy.hide_callback(&name, &id, &body);
        let (persons, now) = (self.persons(&tags), self.now());
        let stored = self.database.write(move |db| {
            let fleeting = is_erased(db, &record)? || !has_owner(db, &record)? && erased_since(db, &persons, i64::MIN)?;
            let stored = db
                .prepare_cached(
                    "INSERT OR IGNORE INTO callbacks (name, record, account, kind, content, standing, due, received,
                     fleeting) VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?6, ?7)",
                )?
                .execute(params![
                    name.0,
                    record,
                    account.as_str(),
                    kind.map(CallbackType::as_str),
                    hidden,
                    now,
                    fleeting
                ])?;
            if stored > 0 && !fleeting {
                note_persons(db, &persons, &record, now)?;
            }
            Ok(stored > 0)
        });
        if !stored.await? {
            return Ok(ReceiveOutcome::Repeat);
        }
        self.arrived.notify_one();
        Ok(ReceiveOutcome::New)
    }

    pub(in super::super) async fn waiting(&self, most: usize, lease: Duration) -> Result<Vec<Waiting>, StateError> {
        let (held, now) = (self.callbacks.held(), self.now());
        let look = self.database.read(move |db| {
            let mut find = db.prepare_cached(&format!(
                "SELECT {} FROM callbacks WHERE standing = 0 AND due <= ?1 ORDER BY due LIMIT ?2",
                CallbackRow::COLUMNS
            ))?;
            let rows = find.query_map(params![now, limit(most.saturating_add(held.len()))], CallbackRow::read)?;
            let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter();
            let rows = rows.filter(|row| !held.contains(&row.name)).take(most);
            rows.map(|row| Ok((awaiting(db, &row.record)?, row))).collect::<rusqlite::Result<Vec<_>>>()
        });
        let look = look.await?;
        let (mut found, mut hand_out) = (Vec::new(), self.callbacks.hand_out());
        for (owners, row) in look {
            match self.shown(owners, &row) {
                Ok(mut waiting) => {
                    waiting.lease = hand_out.take(row.name, lease);
                    found.push(waiting);
                }
                // The callback waits for its key, without delaying the others.
                Err(_) if now - row.received < length(self.retention.dead_letters) => {
                    self.wait(row.name, row.touched, now + length(UNREADABLE_WAIT)).await?;
                }
                Err(_) => self.set_aside(row.name, row.touched).await?,
            }
        }
        hand_out.keep();
        Ok(found)
    }

    pub(in super::super) async fn settle(
        &self,
        waiting: &Waiting,
        decision: FanOutDecision,
        bounds: &OutboxBounds,
    ) -> Result<Vec<TenantName>, StateError> {
        let (name, touched) = (waiting.name, waiting.fencing_token);
        let (made, dead) = match decision {
            FanOutDecision::Wait(until) => {
                self.wait(name, touched, millis(until)).await?;
                (0, Vec::new())
            }
            FanOutDecision::Unowned => {
                self.set_aside(name, touched).await?;
                (0, Vec::new())
            }
            FanOutDecision::Deliver(kind, copies) => self.fan_out(waiting, kind, copies, *bounds).await?,
        };
        self.callbacks.give_back(&name, waiting.lease);
        // An owner may have been added meanwhile, so the callback may be due again.
        self.arrived.notify_one();
        if made > 0 {
            self.due.notify_one();
        }
        Ok(dead)
    }

    /// Stores the deliveries of a callback. Returns the number of queued deliveries, and the team of each delivery that
    /// became a dead letter because the team's outbox was full.
    async fn fan_out(
        &self,
        waiting: &Waiting,
        kind: CallbackType,
        copies: Vec<Copy>,
        bounds: OutboxBounds,
    ) -> Result<(usize, Vec<TenantName>), StateError> {
        self.spare()?;
        let (name, touched, now) = (waiting.name, waiting.fencing_token, self.now());
        let record = self.secrecy.record(&waiting.account, &waiting.id);
        let prepared = |copy: Copy| {
            let reference = self.secrecy.reference(&record, &copy.tenant, copy.reference.as_ref());
            let id = self.secrecy.delivery(&name, &reference);
            NewDelivery::prepare(&self.secrecy, id, (&waiting.account, &waiting.id), kind, copy)
        };
        let rows: Vec<_> = copies.into_iter().map(prepared).collect();
        let forget = now + length(LATE);
        let received = millis(waiting.received);
        let deliver = move |db: &Connection| {
            let mut find =
                db.prepare_cached("SELECT touched, fleeting FROM callbacks WHERE name = ?1 AND standing = 0")?;
            let found = find.query_row([name.0], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)));
            let (mut made, mut dead) = (0, Vec::new());
            // The callback was erased meanwhile: there is nothing to deliver.
            let Some((touches, fleeting)) = found.optional()? else { return Ok((made, dead)) };
            let fleeting = fleeting || is_erased(db, &record)?;
            for row in &rows {
                if row.fits(db, &bounds)? {
                    made += row.insert(db, StoredStatus::Queued, (now, received), fleeting)?;
                } else if row.insert(db, StoredStatus::Dead, (now, received), fleeting)? > 0 {
                    dead.push(row.tenant.clone());
                }
            }
            if touches == touched {
                db.prepare_cached("UPDATE callbacks SET standing = 1, due = ?2 WHERE name = ?1")?
                    .execute(params![name.0, forget])?;
            }
            Ok((made, dead))
        };
        Ok(self.database.write(deliver).await?)
    }

    fn shown(&self, owners: Vec<AwaitingRow>, row: &CallbackRow) -> Result<Waiting, StateError> {
        let content = row.content.as_deref().ok_or(StateError::Refused)?;
        let (id, body) = self.secrecy.show_callback(&row.name, content)?;
        let mut kind = row.kind.as_deref().and_then(|kind| kind.parse().ok());
        let mut awaiting = Vec::with_capacity(owners.len());
        for AwaitingRow { tenant, reference, kind: owners_kind, erased } in owners {
            let Ok(tenant) = tenant.parse() else { continue };
            kind = kind.or_else(|| owners_kind.and_then(|kind| kind.parse().ok()));
            let shown = reference.map(|hidden| self.secrecy.show_reference(&row.record, &tenant, &hidden));
            let reference = shown.transpose()?;
            awaiting.push(Awaiting { tenant, reference, erased });
        }
        Ok(Waiting {
            name: row.name,
            account: row.account.parse().map_err(|_| StateError::Refused)?,
            kind,
            id,
            body,
            received: time(row.received),
            awaiting,
            fencing_token: row.touched,
            lease: 0,
        })
    }

    /// Schedules a callback to be handed out again at the time `until`, in milliseconds since 1970. Does nothing if the
    /// callback has changed since its hand-out.
    async fn wait(&self, name: CallbackName, touched: i64, until: i64) -> Result<(), StateError> {
        let wait = move |db: &Connection| {
            db.prepare_cached("UPDATE callbacks SET due = ?3 WHERE name = ?1 AND touched = ?2 AND standing = 0")?
                .execute(params![name.0, touched, until])
        };
        self.database.write(wait).await?;
        Ok(())
    }

    /// Sets a callback aside for operators: it has no owner, or it could not be decrypted within the retention of dead
    /// letters.
    async fn set_aside(&self, name: CallbackName, touched: i64) -> Result<(), StateError> {
        let now = self.now();
        let remove = now + length(self.retention.dead_letters);
        let unowned = move |db: &Connection| {
            // The content of an erased person is not kept for operators either.
            db.prepare_cached(
                "UPDATE callbacks SET standing = iif(fleeting, 3, 2), content = iif(fleeting, NULL, content), due = ?3
                 WHERE name = ?1 AND touched = ?2 AND standing = 0",
            )?
            .execute(params![name.0, touched, remove])
        };
        self.database.write(unowned).await?;
        Ok(())
    }
}

pub(super) struct CallbackRow {
    pub(super) name: CallbackName,
    pub(super) record: Record,
    pub(super) account: String,
    pub(super) kind: Option<String>,
    pub(super) content: Option<Vec<u8>>,
    pub(super) received: i64,
    pub(super) touched: i64,
    pub(super) due: i64,
}

impl CallbackRow {
    /// The columns that [`CallbackRow::read`] reads, in its order.
    pub(super) const COLUMNS: &str = "name, record, account, kind, content, received, touched, due";

    /// Returns the smallest and the largest name that begin with this id. The id of a callback is the first half of its
    /// name.
    pub(super) fn names(id: DeliveryId) -> ([u8; 32], [u8; 32]) {
        let (mut first, mut last) = ([0; 32], [0xff; 32]);
        first[..16].copy_from_slice(&id.0);
        last[..16].copy_from_slice(&id.0);
        (first, last)
    }

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            name: CallbackName(row.get(0)?),
            record: row.get(1)?,
            account: row.get(2)?,
            kind: row.get(3)?,
            content: row.get(4)?,
            received: row.get(5)?,
            touched: row.get(6)?,
            due: row.get(7)?,
        })
    }
}

struct AwaitingRow {
    tenant: String,
    reference: Option<Vec<u8>>,
    kind: Option<String>,
    erased: bool,
}

fn awaiting(db: &Connection, record: &Record) -> rusqlite::Result<Vec<AwaitingRow>> {
    let mut find = db.prepare_cached(
        "SELECT awaiting.tenant, awaiting.reference, owners.kind, owners.erased FROM awaiting
         JOIN owners USING (record, tenant) WHERE awaiting.record = ?1",
    )?;
    let rows = find.query_map([record], |row| {
        Ok(AwaitingRow { tenant: row.get(0)?, reference: row.get(1)?, kind: row.get(2)?, erased: row.get(3)? })
    })?;
    rows.collect()
}
