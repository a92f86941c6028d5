//! Deliveries: queued, handed out, and concluded.

use super::super::envelopes::{DeliveryId, Record, Secrecy};
use super::super::error::StateError;
use super::super::model::{Copy, Delivery, DeliveryOutcome, Made, UNREADABLE_WAIT};
use super::super::times::{length, millis, time};
use super::engine::{Sqlite, limit};
use super::persons::{is_erased, note_persons};
use crate::base::name::{AccountName, TenantName};
use crate::config::OutboxBounds;
use crate::iluma::callback_type::CallbackType;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::time::Duration;

impl Sqlite {
    pub(in super::super) async fn enqueue(
        &self,
        made: Vec<Made>,
        bounds: &OutboxBounds,
    ) -> Result<Vec<TenantName>, StateError> {
        self.spare()?;
        let (now, bounds) = (self.now(), *bounds);
        let prepared = |made: Made| {
            let Made { account, id, kind, copy, tags } = made;
            let row = NewDelivery::prepare(&self.secrecy, DeliveryId::fresh(), (&account, &id), kind, copy);
            (row, self.persons(&tags))
        };
        let rows: Vec<_> = made.into_iter().map(prepared).collect();
        let insert = move |db: &Connection| {
            let mut dropped = Vec::new();
            for (row, persons) in rows {
                if !row.fits(db, &bounds)? {
                    dropped.push(row.tenant);
                    continue;
                }
                let fleeting = is_erased(db, &row.record)?;
                row.insert(db, Standing::Queued, (now, now), fleeting)?;
                if !fleeting {
                    note_persons(db, &persons, &row.record, now)?;
                }
            }
            Ok(dropped)
        };
        let dropped = self.database.write(insert).await?;
        self.due.notify_one();
        Ok(dropped)
    }

    pub(in super::super) async fn claim(
        &self,
        wanted: &[(TenantName, usize)],
        lease: Duration,
    ) -> Result<Vec<Delivery>, StateError> {
        // A delivery that is concluded after this line is not queued any more when its row is read.
        let (held, wanted, now) = (self.deliveries.held(), wanted.to_vec(), self.now());
        let rows = self.database.read(move |db| {
            let mut find = db.prepare_cached(
                "SELECT id, tenant, account, kind, content, attempts, received FROM deliveries
                 WHERE standing = 0 AND tenant = ?1 AND due <= ?2 ORDER BY due, id LIMIT ?3",
            )?;
            let mut found = Vec::new();
            for (tenant, most) in wanted {
                let rows = find.query_map(
                    params![tenant.as_str(), now, limit(most.saturating_add(held.len()))],
                    DeliveryRow::read,
                )?;
                let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
                found.extend(rows.into_iter().filter(|row| !held.contains(&row.id)).take(most));
            }
            Ok(found)
        });
        let rows = rows.await?;
        let (mut claimed, mut hand_out) = (Vec::new(), self.deliveries.hand_out());
        for row in rows {
            match row.shown(&self.secrecy) {
                Ok(delivery) => {
                    hand_out.take(delivery.id, lease);
                    claimed.push(delivery);
                }
                // The delivery waits for its key, without an attempt.
                Err(_) if now - row.received < length(self.retention.dead_letters) => {
                    self.retry(row.id, row.attempts, now + length(UNREADABLE_WAIT)).await?;
                }
                Err(_) => self.ended(row.id, Standing::Dead, row.attempts).await?,
            }
        }
        hand_out.keep();
        Ok(claimed)
    }

    pub(in super::super) async fn conclude(
        &self,
        delivery: &Delivery,
        outcome: DeliveryOutcome,
    ) -> Result<(), StateError> {
        let (id, attempts) = (delivery.id, delivery.attempts);
        match outcome {
            DeliveryOutcome::Untried => {}
            DeliveryOutcome::Delivered => self.ended(id, Standing::Delivered, attempts).await?,
            DeliveryOutcome::Dead => self.ended(id, Standing::Dead, attempts.saturating_add(1)).await?,
            DeliveryOutcome::Retry(at) => self.retry(id, attempts.saturating_add(1), millis(at)).await?,
        }
        self.deliveries.give_back(&id);
        Ok(())
    }

    async fn retry(&self, id: DeliveryId, attempts: u32, at: i64) -> Result<(), StateError> {
        let retry = move |db: &Connection| {
            db.prepare_cached("UPDATE deliveries SET attempts = ?2, due = ?3 WHERE id = ?1 AND standing = 0")?
                .execute(params![id.0, attempts, at])
        };
        self.database.write(retry).await?;
        Ok(())
    }

    async fn ended(&self, id: DeliveryId, standing: Standing, attempts: u32) -> Result<(), StateError> {
        let now = self.now();
        let end = move |db: &Connection| {
            db.prepare_cached(
                "UPDATE deliveries SET standing = iif(fleeting, 3, ?2), content = iif(fleeting, NULL, content),
                 attempts = ?3, due = ?4 WHERE id = ?1 AND standing = 0",
            )?
            .execute(params![id.0, standing as i64, attempts, now])
        };
        self.database.write(end).await?;
        Ok(())
    }
}

/// The stored status of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
pub(super) enum Standing {
    Queued = 0,
    Dead = 1,
    Delivered = 2,
}

/// A delivery that is to be stored.
pub(super) struct NewDelivery {
    id: DeliveryId,
    pub(super) record: Record,
    pub(super) tenant: TenantName,
    account: AccountName,
    kind: CallbackType,
    content: Vec<u8>,
}

impl NewDelivery {
    pub(super) fn prepare(
        secrecy: &Secrecy,
        id: DeliveryId,
        (account, upstream_id): (&AccountName, &str),
        kind: CallbackType,
        copy: Copy,
    ) -> Self {
        let content = secrecy.hide_delivery(&id, upstream_id, &copy.body);
        let record = secrecy.record(account, upstream_id);
        Self { id, record, tenant: copy.tenant, account: account.clone(), kind, content }
    }

    /// Returns true if the team's outbox has room for the delivery.
    pub(super) fn fits(&self, db: &Connection, bounds: &OutboxBounds) -> rusqlite::Result<bool> {
        let mut find = db.prepare_cached("SELECT deliveries, bytes FROM outboxes WHERE tenant = ?1")?;
        let size = find.query_row([self.tenant.as_str()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
        let (deliveries, bytes) = size.optional()?.unwrap_or_default();
        let bytes = bytes.unsigned_abs().saturating_add(self.content.len() as u64);
        Ok(deliveries.unsigned_abs() < bounds.deliveries && bytes <= bounds.bytes.bytes())
    }

    /// Stores the delivery, unless it exists in any status; returns the number of new rows. The content of an erased
    /// person is stored only until it is delivered.
    pub(super) fn insert(
        &self,
        db: &Connection,
        standing: Standing,
        (due, received): (i64, i64),
        fleeting: bool,
    ) -> rusqlite::Result<usize> {
        let is_kept = !fleeting || standing == Standing::Queued;
        let (standing, content) = if is_kept { (standing as i64, Some(&self.content)) } else { (3, None) };
        db.prepare_cached(
            "INSERT OR IGNORE INTO deliveries (id, record, tenant, account, kind, content, standing, due, received, fleeting)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            self.id.0,
            self.record,
            self.tenant.as_str(),
            self.account.as_str(),
            self.kind.as_str(),
            content,
            standing,
            due,
            received,
            fleeting
        ])
    }
}

pub(super) struct DeliveryRow {
    pub(super) id: DeliveryId,
    pub(super) tenant: String,
    pub(super) account: String,
    pub(super) kind: String,
    pub(super) content: Option<Vec<u8>>,
    pub(super) attempts: u32,
    pub(super) received: i64,
}

impl DeliveryRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: DeliveryId(row.get(0)?),
            tenant: row.get(1)?,
            account: row.get(2)?,
            kind: row.get(3)?,
            content: row.get(4)?,
            attempts: row.get(5)?,
            received: row.get(6)?,
        })
    }

    fn shown(&self, secrecy: &Secrecy) -> Result<Delivery, StateError> {
        let content = self.content.as_deref().ok_or(StateError::Refused)?;
        let (_, body) = secrecy.show_delivery(&self.id, content)?;
        Ok(Delivery {
            id: self.id,
            tenant: self.tenant.parse().map_err(|_| StateError::Refused)?,
            account: self.account.parse().map_err(|_| StateError::Refused)?,
            kind: self.kind.parse().map_err(|_| StateError::Refused)?,
            body,
            attempts: self.attempts,
            received: time(self.received),
            fencing_token: 0,
        })
    }
}
