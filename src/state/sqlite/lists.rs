//! Lists for operators, replays, and the sizes of the queues.

use super::super::envelopes::DeliveryId;
use super::super::error::StateError;
use super::super::model::{Cursor, DeliveryStatus, Listed, MOST_LISTED, Outbox, Page, Queues, Replay};
use super::super::times::{millis, time};
use super::engine::{Sqlite, limit};
use super::inbox::CallbackRow;
use super::outbox::DeliveryRow;
use crate::base::name::TenantName;
use rusqlite::params;

impl Sqlite {
    pub(in super::super) async fn list(&self, status: DeliveryStatus, page: &Page) -> Result<Vec<Listed>, StateError> {
        let after = page.after.unwrap_or(Cursor { at: i64::MIN, id: DeliveryId([0; 16]) });
        let (most, tenant) = (page.most.min(MOST_LISTED), page.tenant.clone());
        let standing = match status {
            DeliveryStatus::Unowned => {
                return if tenant.is_some() { Ok(Vec::new()) } else { self.unowned(after, most).await };
            }
            DeliveryStatus::Queued => 0,
            DeliveryStatus::Dead => 1,
            DeliveryStatus::Delivered => 2,
        };
        let look = self.database.read(move |db| {
            let of = if tenant.is_some() { "AND tenant = ?5" } else { "AND ?5 IS NULL" };
            let mut find = db.prepare_cached(&format!(
                "SELECT id, tenant, account, kind, content, attempts, received, due FROM deliveries
                 WHERE standing = ?1 AND (due, id) > (?2, ?3) {of} ORDER BY due, id LIMIT ?4"
            ))?;
            let tenant = tenant.as_ref().map(TenantName::as_str);
            let rows = find.query_map(params![standing, after.at, after.id.0, limit(most), tenant], |row| {
                Ok((DeliveryRow::read(row)?, row.get::<_, i64>(7)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        let listed = |(row, due): (DeliveryRow, i64)| {
            let shown = row.content.as_deref().and_then(|hidden| self.secrecy.show_delivery(&row.id, hidden).ok());
            Some(Listed {
                cursor: Cursor { at: due, id: row.id },
                tenant: Some(row.tenant.parse().ok()?),
                account: row.account.parse().ok()?,
                kind: row.kind.parse().ok(),
                upstream_id: shown.map(|(id, _)| id),
                attempts: row.attempts,
                received: time(row.received),
            })
        };
        Ok(look.await?.into_iter().filter_map(listed).collect())
    }

    pub(in super::super) async fn replay(&self, what: Replay) -> Result<u64, StateError> {
        const AGAIN: &str = "UPDATE deliveries SET standing = 0, attempts = 0, due = ?1 WHERE content IS NOT NULL AND ";
        let now = self.now();
        let replayed = self.database.write(move |db| {
            Ok(match what {
                Replay::One(id) => {
                    let again = db.execute(&format!("{AGAIN} id = ?2"), params![now, id.0])?;
                    let (mut first, mut last) = ([0; 32], [0xff; 32]);
                    first[..16].copy_from_slice(&id.0);
                    last[..16].copy_from_slice(&id.0);
                    // The callback waits as long as a new one again; then it is unowned again.
                    let unowned = "UPDATE callbacks SET standing = 0, due = ?1, received = ?1, touched = touched + 1
                                   WHERE name BETWEEN ?2 AND ?3 AND standing = 2 AND content IS NOT NULL";
                    again + db.execute(unowned, params![now, first, last])?
                }
                Replay::Since(tenant, since) => db.execute(
                    &format!("{AGAIN} standing IN (1, 2) AND tenant = ?2 AND due >= ?3"),
                    params![now, tenant.as_str(), millis(since)],
                )?,
                Replay::AllDead => db.execute(&format!("{AGAIN} standing = 1"), [now])?,
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

    async fn unowned(&self, after: Cursor, most: usize) -> Result<Vec<Listed>, StateError> {
        let look = self.database.read(move |db| {
            let mut find = db.prepare_cached(
                "SELECT name, record, account, kind, content, received, touched, due FROM callbacks
                 WHERE standing = 2 AND (due, substr(name, 1, 16)) > (?1, ?2) ORDER BY due, name LIMIT ?3",
            )?;
            let rows = find.query_map(params![after.at, after.id.0, limit(most)], |row| {
                Ok((CallbackRow::read(row)?, row.get::<_, i64>(7)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        let listed = |(row, due): (CallbackRow, i64)| {
            let shown = row.content.as_deref().and_then(|hidden| self.secrecy.show_callback(&row.name, hidden).ok());
            Some(Listed {
                cursor: Cursor { at: due, id: row.name.short() },
                tenant: None,
                account: row.account.parse().ok()?,
                kind: row.kind.and_then(|kind| kind.parse().ok()),
                upstream_id: shown.map(|(id, _)| id),
                attempts: 0,
                received: time(row.received),
            })
        };
        Ok(look.await?.into_iter().filter_map(listed).collect())
    }
}
