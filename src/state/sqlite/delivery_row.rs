//! Rows of deliveries, and the statements that read and end them.

use super::super::envelopes::{DeliveryId, Secrecy};
use super::super::error::StateError;
use super::super::model::Delivery;
use super::super::times::time;
use rusqlite::{Connection, Row, params};

/// The stored status of a delivery whose content is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
pub(super) enum StoredStatus {
    Queued = 0,
    Dead = 1,
    Delivered = 2,
}

pub(super) struct DeliveryRow {
    pub(super) id: DeliveryId,
    pub(super) tenant: String,
    pub(super) account: String,
    pub(super) kind: String,
    pub(super) content: Option<Vec<u8>>,
    pub(super) attempts: u32,
    pub(super) probes: u32,
    pub(super) received: i64,
    pub(super) due: i64,
    pub(super) history: String,
    /// True if the delivery is handed out as a probe.
    pub(super) is_probe: bool,
}

impl DeliveryRow {
    /// The columns of a row: first those that [`DeliveryRow::read`] reads, in its order, then the status.
    pub(super) const COLUMNS: &str =
        "id, tenant, account, kind, content, attempts, probes, received, due, history, standing";

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: DeliveryId(row.get(0)?),
            tenant: row.get(1)?,
            account: row.get(2)?,
            kind: row.get(3)?,
            content: row.get(4)?,
            attempts: row.get(5)?,
            probes: row.get(6)?,
            received: row.get(7)?,
            due: row.get(8)?,
            history: row.get(9)?,
            is_probe: false,
        })
    }

    pub(super) fn shown(&self, secrecy: &Secrecy) -> Result<Delivery, StateError> {
        let content = self.content.as_deref().ok_or(StateError::Refused)?;
        let (_, body) = secrecy.show_delivery(&self.id, content)?;
        Ok(Delivery {
            id: self.id,
            tenant: self.tenant.parse().map_err(|_| StateError::Refused)?,
            account: self.account.parse().map_err(|_| StateError::Refused)?,
            kind: self.kind.parse().map_err(|_| StateError::Refused)?,
            body,
            attempts: self.attempts,
            probes: self.probes,
            is_probe: self.is_probe,
            received: time(self.received),
            history: self.history.clone(),
            fencing_token: 0,
        })
    }
}

/// Sets the time at which a queued delivery is sent next, in milliseconds since 1970.
pub(super) fn again(db: &Connection, id: DeliveryId, at: i64) -> rusqlite::Result<usize> {
    db.prepare_cached("UPDATE deliveries SET due = ?2 WHERE id = ?1 AND standing = 0")?.execute(params![id.0, at])
}

/// Ends a queued delivery: gives it the new status `standing`, and the time `now`, in milliseconds since 1970, as its
/// end. A delivery about an erased person loses its content, and gets status 3 in place of `standing`. Returns the
/// number of changed rows: 0 if the delivery is not queued.
pub(super) fn end(db: &Connection, id: DeliveryId, standing: StoredStatus, now: i64) -> rusqlite::Result<usize> {
    db.prepare_cached(
        "UPDATE deliveries SET standing = iif(fleeting, 3, ?2), content = iif(fleeting, NULL, content), due = ?3
         WHERE id = ?1 AND standing = 0",
    )?
    .execute(params![id.0, standing as i64, now])
}
