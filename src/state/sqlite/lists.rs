//! Lists for operators, replays, and the sizes of the queues.

use super::super::attempts::{last, parsed};
use super::super::envelopes::DeliveryId;
use super::super::error::StateError;
use super::super::model::{Cursor, Deleted, DeliveryStatus, Found, Listed, MOST_LISTED, Outbox, Page, Queues, Replay};
use super::super::times::{millis, time};
use super::delivery_row::{DeliveryRow, StoredStatus};
use super::engine::Sqlite;
use super::inbox::CallbackRow;
use crate::base::name::TenantName;
use rusqlite::{Connection, OptionalExtension as _, params};

impl Sqlite {
    pub(in super::super) async fn list(&self, status: DeliveryStatus, page: &Page) -> Result<Vec<Listed>, StateError> {
        let after = page.after.unwrap_or(Cursor { at: i64::MIN, id: DeliveryId([0; 16]) });
        let standing = match status {
            DeliveryStatus::Unowned => {
                return if page.tenant.is_some() { Ok(Vec::new()) } else { self.unowned(after, page).await };
            }
            DeliveryStatus::Queued => StoredStatus::Queued,
            DeliveryStatus::Dead => StoredStatus::Dead,
            DeliveryStatus::Delivered => StoredStatus::Delivered,
        };
        let page = page.clone();
        let look = self.database.read(move |db| {
            let of = if page.tenant.is_some() { "AND tenant = ?4" } else { "AND ?4 IS NULL" };
            let mut find = db.prepare_cached(&format!(
                "SELECT {} FROM deliveries WHERE standing = ?1 AND (due, id) > (?2, ?3) {of} ORDER BY due, id",
                DeliveryRow::COLUMNS
            ))?;
            let tenant = page.tenant.as_ref().map(TenantName::as_str);
            let rows = find.query_map(params![standing as i64, after.at, after.id.0, tenant], DeliveryRow::read)?;
            let takes = |row: &rusqlite::Result<DeliveryRow>| {
                row.as_ref().map_or(true, |row| page.takes(status, row.kind.parse().ok(), row.due, row.received))
            };
            rows.filter(takes).take(page.most.min(MOST_LISTED)).collect::<rusqlite::Result<Vec<_>>>()
        });
        Ok(look.await?.iter().filter_map(|row| self.listed(row)).collect())
    }

    pub(in super::super) async fn find(&self, id: DeliveryId) -> Result<Option<Found>, StateError> {
        let look = self.database.read(move |db| {
            let mut find =
                db.prepare_cached(&format!("SELECT {} FROM deliveries WHERE id = ?1", DeliveryRow::COLUMNS))?;
            let row = find.query_row([id.0], |row| Ok((row.get::<_, i64>("standing")?, DeliveryRow::read(row)?)));
            let (first, last) = CallbackRow::names(id);
            let mut find = db.prepare_cached(&format!(
                "SELECT {} FROM callbacks WHERE name BETWEEN ?1 AND ?2 AND standing = 2",
                CallbackRow::COLUMNS
            ))?;
            let unowned = find.query_row([first, last], CallbackRow::read);
            Ok((row.optional()?, unowned.optional()?))
        });
        let (row, unowned) = look.await?;
        let of_delivery = row.and_then(|(standing, row)| {
            let status = match standing {
                0 => DeliveryStatus::Queued,
                1 => DeliveryStatus::Dead,
                2 => DeliveryStatus::Delivered,
                // The delivery's name is known, but its content is not kept.
                _ => return None,
            };
            Some(Found { status, entry: self.listed(&row)?, history: parsed(&row.history) })
        });
        Ok(of_delivery.or_else(|| {
            let entry = self.listed_unowned(unowned?)?;
            Some(Found { status: DeliveryStatus::Unowned, entry, history: Vec::new() })
        }))
    }

    pub(in super::super) async fn delete(&self, id: DeliveryId) -> Result<Deleted, StateError> {
        let (found, now) = (self.find(id).await?, self.now());
        let delete = move |db: &Connection| {
            // The delivery's name stays, so that a repeat is recognised.
            db.execute(
                "UPDATE deliveries SET standing = 3, content = NULL, due = ?2 WHERE id = ?1 AND standing = 1",
                params![id.0, now],
            )
        };
        match found.map(|found| found.status) {
            None => Ok(Deleted::Unknown),
            Some(DeliveryStatus::Dead) if self.database.write(delete).await? > 0 => Ok(Deleted::Done),
            Some(_) => Ok(Deleted::NotDead),
        }
    }

    pub(in super::super) async fn replay(&self, what: Replay) -> Result<u64, StateError> {
        const AGAIN: &str = "UPDATE deliveries SET standing = 0, attempts = 0, probes = 0, due = ?1, queued = ?1
                             WHERE content IS NOT NULL AND ";
        let now = self.now();
        let replayed = self.database.write(move |db| {
            Ok(match &what {
                Replay::One(id) => {
                    let again = db.execute(&format!("{AGAIN} id = ?2"), params![now, id.0])?;
                    let (first, last) = CallbackRow::names(*id);
                    // The callback waits as long as a new one; then it is unowned again.
                    let unowned = "UPDATE callbacks SET standing = 0, due = ?1, received = ?1, touched = touched + 1
                                   WHERE name BETWEEN ?2 AND ?3 AND standing = 2 AND content IS NOT NULL";
                    again + db.execute(unowned, params![now, first, last])?
                }
                Replay::Own(tenant, id) => {
                    db.execute(&format!("{AGAIN} id = ?2 AND tenant = ?3"), params![now, id.0, tenant.as_str()])?
                }
                Replay::Since(tenant, since, until) => db.execute(
                    &format!("{AGAIN} standing IN (1, 2) AND tenant = ?2 AND due BETWEEN ?3 AND ?4"),
                    params![now, tenant.as_str(), millis(*since), until.map_or(i64::MAX, millis)],
                )?,
                Replay::AllDead(None) => db.execute(&format!("{AGAIN} standing = 1"), [now])?,
                Replay::AllDead(Some(tenant)) => {
                    db.execute(&format!("{AGAIN} standing = 1 AND tenant = ?2"), params![now, tenant.as_str()])?
                }
            })
        });
        let replayed = replayed.await?;
        self.arrived.notify_one();
        self.due.notify_one();
        Ok(replayed as u64)
    }

    pub(in super::super) async fn queues(&self) -> Result<Queues, StateError> {
        let look = self.database.read(|db| {
            let mut find = db.prepare_cached("SELECT tenant, deliveries, bytes FROM outboxes WHERE deliveries > 0")?;
            let queued = find.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))?;
            let queued = queued.collect::<rusqlite::Result<Vec<(_, i64, i64)>>>()?;
            let mut find =
                db.prepare_cached("SELECT tenant, count(*) FROM deliveries WHERE standing = 1 GROUP BY tenant")?;
            let dead = find.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
            let dead = dead.collect::<rusqlite::Result<Vec<(_, i64)>>>()?;
            let count = |standing: i64| {
                let mut count = db.prepare_cached("SELECT count(*) FROM callbacks WHERE standing = ?1")?;
                count.query_row([standing], |row| row.get::<_, i64>(0))
            };
            let oldest = "SELECT min(received) FROM deliveries WHERE standing = 0";
            let oldest = db.prepare_cached(oldest)?.query_row([], |row| row.get::<_, Option<i64>>(0))?;
            Ok((queued, dead, count(0)?, count(2)?, oldest))
        });
        let (queued, dead, waiting, unowned, oldest) = look.await?;
        let mut tenants = std::collections::BTreeMap::<TenantName, Outbox>::new();
        let mut of = |tenant: String, change: &dyn Fn(&mut Outbox)| {
            let Ok(tenant) = tenant.parse::<TenantName>() else { return };
            let none = Outbox { tenant: tenant.clone(), queued: 0, queued_bytes: 0, dead: 0 };
            change(tenants.entry(tenant).or_insert(none));
        };
        for (tenant, deliveries, bytes) in queued {
            of(tenant, &|outbox| {
                (outbox.queued, outbox.queued_bytes) = (deliveries.unsigned_abs(), bytes.unsigned_abs());
            });
        }
        for (tenant, count) in dead {
            of(tenant, &|outbox| outbox.dead = count.unsigned_abs());
        }
        Ok(Queues {
            tenants: tenants.into_values().collect(),
            waiting: waiting.unsigned_abs(),
            unowned: unowned.unsigned_abs(),
            oldest: oldest.map(time),
        })
    }

    async fn unowned(&self, after: Cursor, page: &Page) -> Result<Vec<Listed>, StateError> {
        let page = page.clone();
        let look = self.database.read(move |db| {
            let mut find = db.prepare_cached(&format!(
                "SELECT {} FROM callbacks WHERE standing = 2 AND (due, substr(name, 1, 16)) > (?1, ?2) ORDER BY due, name",
                CallbackRow::COLUMNS
            ))?;
            let rows = find.query_map(params![after.at, after.id.0], CallbackRow::read)?;
            let takes = |row: &rusqlite::Result<CallbackRow>| {
                row.as_ref().map_or(true, |row| {
                    let kind = row.kind.as_deref().and_then(|kind| kind.parse().ok());
                    page.takes(DeliveryStatus::Unowned, kind, row.due, row.received)
                })
            };
            rows.filter(takes).take(page.most.min(MOST_LISTED)).collect::<rusqlite::Result<Vec<_>>>()
        });
        Ok(look.await?.into_iter().filter_map(|row| self.listed_unowned(row)).collect())
    }

    fn listed(&self, row: &DeliveryRow) -> Option<Listed> {
        let shown = row.content.as_deref().and_then(|hidden| self.secrecy.show_delivery(&row.id, hidden).ok());
        Some(Listed {
            cursor: Cursor { at: row.due, id: row.id },
            tenant: Some(row.tenant.parse().ok()?),
            account: row.account.parse().ok()?,
            kind: row.kind.parse().ok(),
            upstream_id: shown.map(|(id, _)| id),
            attempts: row.attempts,
            last: last(&row.history),
            received: time(row.received),
        })
    }

    fn listed_unowned(&self, row: CallbackRow) -> Option<Listed> {
        let shown = row.content.as_deref().and_then(|hidden| self.secrecy.show_callback(&row.name, hidden).ok());
        Some(Listed {
            cursor: Cursor { at: row.due, id: row.name.short() },
            tenant: None,
            account: row.account.parse().ok()?,
            kind: row.kind.and_then(|kind| kind.parse().ok()),
            upstream_id: shown.map(|(id, _)| id),
            attempts: 0,
            last: None,
            received: time(row.received),
        })
    }
}
