//! Deliveries: queued, handed out, and concluded.

use super::super::attempts::{EndpointNews, extended};
use super::super::envelopes::{DeliveryId, Record, Secrecy};
use super::super::error::StateError;
use super::super::model::{Conclusion, Copy, Delivery, DeliveryOutcome, Made, UNREADABLE_WAIT};
use super::super::pauses::Endpoint;
use super::super::times::{length, millis};
use super::delivery_row::{DeliveryRow, StoredStatus, again, end};
use super::endpoints;
use super::engine::{Sqlite, limit};
use super::persons::{is_erased, note_persons};
use crate::base::name::{AccountName, TenantName};
use crate::config::OutboxBounds;
use crate::iluma::callback_type::CallbackType;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::BTreeSet;
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
            for (row, persons) in &rows {
                if !row.fits(db, &bounds)? {
                    dropped.push(row.tenant.clone());
                    continue;
                }
                let fleeting = is_erased(db, &row.record)?;
                row.insert(db, StoredStatus::Queued, (now, now), fleeting)?;
                if !fleeting {
                    note_persons(db, persons, &row.record, now)?;
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
        // The leases are read before the rows: a delivery that is concluded in between is not queued any more when its
        // row is read.
        let (held, wanted, now) = (self.deliveries.held(), wanted.to_vec(), self.now());
        let leased = held.clone();
        let look = self.database.read(move |db| {
            let (paused, mut probes) = endpoints::paused(db, now)?;
            probes.retain(|(tenant, _)| wanted.iter().any(|(wants, _)| wants.as_str() == tenant));
            let mut found = Vec::new();
            for (tenant, most) in wanted {
                let enough = most.saturating_add(leased.len());
                let rows = match paused.get(tenant.as_str()) {
                    None => due(db, &tenant, now, enough)?,
                    Some(kinds) => due_but(db, (&tenant, kinds), now, enough)?,
                };
                found.extend(rows.into_iter().filter(|row| !leased.contains(&row.id)).take(most));
            }
            Ok((found, probes))
        });
        let (mut rows, probes) = look.await?;
        rows.extend(self.probes(probes, held).await?);
        let (mut claimed, mut hand_out) = (Vec::new(), self.deliveries.hand_out());
        for row in rows {
            match row.shown(&self.secrecy) {
                Ok(mut delivery) => {
                    delivery.fencing_token = hand_out.take(delivery.id, lease);
                    claimed.push(delivery);
                }
                // The delivery waits for its key, without an attempt.
                Err(_) if now - row.received < length(self.retention.dead_letters) => {
                    let (id, until) = (row.id, now + length(UNREADABLE_WAIT));
                    self.database.write(move |db| again(db, id, until)).await?;
                }
                Err(_) => {
                    let id = row.id;
                    self.database.write(move |db| end(db, id, StoredStatus::Dead, now)).await?;
                }
            }
        }
        hand_out.keep();
        Ok(claimed)
    }

    pub(in super::super) async fn conclude(
        &self,
        delivery: &Delivery,
        conclusion: Conclusion,
    ) -> Result<(), StateError> {
        let (id, now, Conclusion { outcome, attempt }) = (delivery.id, self.now(), conclusion);
        // The lease ended, and another claimant has the delivery. The outcome of that claimant counts, unless the team
        // has received the delivery already.
        if self.deliveries.is_taken_over(&id, delivery.fencing_token) && outcome != DeliveryOutcome::Delivered {
            return Ok(());
        }
        if outcome != DeliveryOutcome::Untried {
            let (attempts, probes) = outcome.counts(delivery);
            let history = extended(&delivery.history, attempt.as_ref());
            let news = attempt.map_or(EndpointNews::None, |attempt| attempt.news());
            let endpoint = Endpoint { tenant: delivery.tenant.clone(), kind: delivery.kind };
            let note = move |db: &Connection| {
                endpoints::note(db, &endpoint, news, now)?;
                db.prepare_cached(
                    "UPDATE deliveries SET attempts = ?2, probes = ?3, history = ?4 WHERE id = ?1 AND standing = 0",
                )?
                .execute(params![id.0, attempts, probes, history])?;
                match outcome {
                    DeliveryOutcome::Untried | DeliveryOutcome::Probed => Ok(0),
                    DeliveryOutcome::Delivered => end(db, id, StoredStatus::Delivered, now),
                    DeliveryOutcome::Dead => end(db, id, StoredStatus::Dead, now),
                    DeliveryOutcome::Retry(at) => again(db, id, millis(at)),
                }
            };
            self.database.write(note).await?;
        }
        self.deliveries.give_back(&id, delivery.fencing_token);
        Ok(())
    }
}

/// Returns a team's deliveries that are due, at most `most`. The delivery that has been due for the longest time comes
/// first. `now` is in milliseconds since 1970.
fn due(db: &Connection, tenant: &TenantName, now: i64, most: usize) -> rusqlite::Result<Vec<DeliveryRow>> {
    let mut find = db.prepare_cached(&format!(
        "SELECT {} FROM deliveries WHERE standing = 0 AND tenant = ?1 AND due <= ?2 ORDER BY due, id LIMIT ?3",
        DeliveryRow::COLUMNS
    ))?;
    find.query_map(params![tenant.as_str(), now, limit(most)], DeliveryRow::read)?.collect()
}

/// Returns a team's deliveries that are due, except deliveries of the `paused` types, at most `most` of each other
/// type. Deliveries of paused types are not read, because there may be many of them. `now` is in milliseconds since
/// 1970.
fn due_but(
    db: &Connection,
    (tenant, paused): (&TenantName, &BTreeSet<String>),
    now: i64,
    most: usize,
) -> rusqlite::Result<Vec<DeliveryRow>> {
    let mut find = db.prepare_cached(&format!(
        "SELECT {} FROM deliveries WHERE standing = 0 AND tenant = ?1 AND kind = ?2 AND due <= ?3
         ORDER BY due, id LIMIT ?4",
        DeliveryRow::COLUMNS
    ))?;
    let mut found = Vec::new();
    for kind in CallbackType::ALL.map(CallbackType::as_str).into_iter().filter(|kind| !paused.contains(*kind)) {
        let rows = find.query_map(params![tenant.as_str(), kind, now, limit(most)], DeliveryRow::read)?;
        found.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
    }
    found.sort_by_key(|row| (row.due, row.id));
    Ok(found)
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

    /// Stores the delivery in the status `standing`, unless its id exists already. Returns the number of new rows, 1 or
    /// 0. If `fleeting` is true, the delivery is about an erased person, and its content is stored only while the
    /// delivery is queued. `due` and `received` are in milliseconds since 1970.
    pub(super) fn insert(
        &self,
        db: &Connection,
        standing: StoredStatus,
        (due, received): (i64, i64),
        fleeting: bool,
    ) -> rusqlite::Result<usize> {
        let is_kept = !fleeting || standing == StoredStatus::Queued;
        let (standing, content) = if is_kept { (standing as i64, Some(&self.content)) } else { (3, None) };
        db.prepare_cached(
            "INSERT OR IGNORE INTO deliveries (id, record, tenant, account, kind, content, standing, due, received, fleeting,
             queued) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?8)",
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
