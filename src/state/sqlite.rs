//! State in the embedded database, for one gateway.
//!
//! Invariants beside those of [`State`](super::State): leases live in memory, since nobody else can have the file: a
//! crash gives everything back at once; every statement finds its rows by an index.

use super::envelopes::{CallbackName, DeliveryId, Record, Secrecy};
use super::leases::Leases;
use super::{
    Awaiting, Callback, Copy, Cursor, Delivery, DeliveryOutcome, EARLY, Erased, LATE, Listed, MOST_AWAITING,
    MOST_LISTED, Made, Owner, Owning, Page, Queues, Receipt, Replay, Standing, StateError, Verdict, Waiting,
};
use crate::base::clock::Clock;
use crate::base::database::Database;
use crate::base::name::{AccountName, TenantName};
use crate::config::{self, Retention};
use crate::iluma::callback_type::CallbackType;
use crate::iluma::person::Tag;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// What [`Database::open`] is given for this part.
///
/// - `callbacks.standing`: 0 to be fanned out, 1 fanned out and kept for late owners, 2 unowned, 3 known but not kept. `due`
///   is when the next thing is to be done: look again, forget the content, remove.
/// - `deliveries.standing`: 0 queued, 1 dead, 2 delivered, 3 known but not kept. `due` is when to send, or when it ended.
/// - Times are milliseconds since 1970.
pub const MIGRATIONS: (&str, &[&str]) = (
    "state",
    &["
    CREATE TABLE owners (record BLOB NOT NULL, tenant TEXT NOT NULL, kind TEXT, reference BLOB, since INTEGER NOT NULL,
        erased INTEGER NOT NULL, PRIMARY KEY (record, tenant)) WITHOUT ROWID;
    CREATE INDEX owners_since ON owners (since);
    CREATE TABLE awaiting (record BLOB NOT NULL, tenant TEXT NOT NULL, name BLOB NOT NULL, reference BLOB,
        PRIMARY KEY (record, tenant, name)) WITHOUT ROWID;
    CREATE TABLE callbacks (name BLOB NOT NULL PRIMARY KEY, record BLOB NOT NULL, account TEXT NOT NULL, kind TEXT,
        content BLOB, standing INTEGER NOT NULL, due INTEGER NOT NULL, received INTEGER NOT NULL,
        touched INTEGER NOT NULL DEFAULT 0, fleeting INTEGER NOT NULL);
    CREATE INDEX callbacks_record ON callbacks (record);
    CREATE INDEX callbacks_due ON callbacks (standing, due);
    CREATE TABLE deliveries (id BLOB NOT NULL PRIMARY KEY, record BLOB NOT NULL, tenant TEXT NOT NULL,
        account TEXT NOT NULL, kind TEXT NOT NULL, content BLOB, standing INTEGER NOT NULL, due INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0, received INTEGER NOT NULL, fleeting INTEGER NOT NULL);
    CREATE INDEX deliveries_record ON deliveries (record);
    CREATE INDEX deliveries_due ON deliveries (standing, due, id);
    CREATE INDEX deliveries_tenant ON deliveries (standing, tenant, due, id);
    CREATE INDEX deliveries_oldest ON deliveries (received) WHERE standing = 0;
    CREATE TABLE persons (person BLOB NOT NULL, record BLOB NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (person, record)) WITHOUT ROWID;
    CREATE INDEX persons_at ON persons (at);
    CREATE TABLE erased (person BLOB NOT NULL PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE urls (tenant TEXT NOT NULL, kind TEXT NOT NULL, url BLOB NOT NULL,
        PRIMARY KEY (tenant, kind)) WITHOUT ROWID;
    "],
);

/// Rows that one sweep takes at most, of each kind: others wait for the writer meanwhile.
const MOST_SWEPT: i64 = 500;

/// The embedded engine.
#[derive(Debug)]
pub struct Sqlite {
    database: Database,
    secrecy: Secrecy,
    retention: Retention,
    clock: Clock,
    callbacks: Leases<CallbackName>,
    deliveries: Leases<DeliveryId>,
    arrived: Notify,
    due: Notify,
}

impl Sqlite {
    /// State in a database that was opened with [`MIGRATIONS`].
    #[must_use]
    pub fn new(database: Database, settings: &config::State, clock: Clock) -> Self {
        Self {
            database,
            secrecy: Secrecy::new(settings),
            retention: settings.retention,
            callbacks: Leases::new(clock.clone()),
            deliveries: Leases::new(clock.clone()),
            clock,
            arrived: Notify::new(),
            due: Notify::new(),
        }
    }

    pub(super) async fn own(&self, owning: Owning) -> Result<(), StateError> {
        let Owning { account, id, tenant, reference, kind, awaits, tags, asked } = owning;
        let record = self.secrecy.record(&account, &id);
        let name = self.secrecy.reference(&record, &tenant, reference.as_ref());
        let hidden = reference.as_ref().map(|text| self.secrecy.hide_reference(&record, &tenant, text));
        let (persons, now, asked) = (self.persons(&tags), self.now(), millis(asked));
        let released =
            self.database.write(move |db| {
                let erased = erased_since(db, &persons, asked)?;
                let hidden = hidden.filter(|_| !erased);
                db.prepare_cached(
                "INSERT INTO owners (record, tenant, kind, reference, since, erased) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO UPDATE SET kind = coalesce(excluded.kind, kind), reference = excluded.reference,
                 since = excluded.since, erased = max(erased, excluded.erased)",
            )?
            .execute(params![record, tenant.as_str(), kind.map(CallbackType::as_str), hidden, now, erased])?;
                if !erased {
                    note_persons(db, &persons, &record, now)?;
                }
                if !awaits {
                    return Ok(false);
                }
                let added = db
                    .prepare_cached(
                        "INSERT OR IGNORE INTO awaiting (record, tenant, name, reference) SELECT ?1, ?2, ?3, ?4
                     WHERE (SELECT count(*) FROM awaiting WHERE record = ?1 AND tenant = ?2) < ?5",
                    )?
                    .execute(params![record, tenant.as_str(), name, hidden, limit(MOST_AWAITING)])?;
                if added == 0 {
                    return Ok(false);
                }
                // Whoever is fanning one of them out right now will find that it was touched, and do it once more.
                let released = db
                    .prepare_cached(
                        "UPDATE callbacks SET standing = 0, due = ?2, touched = touched + 1
                     WHERE record = ?1 AND content IS NOT NULL",
                    )?
                    .execute(params![record, now])?;
                Ok(released > 0)
            });
        if released.await? {
            self.arrived.notify_one();
        }
        Ok(())
    }

    pub(super) async fn owners(&self, account: &AccountName, id: &str) -> Result<Vec<Owner>, StateError> {
        let record = self.secrecy.record(account, id);
        let rows = self.database.read(move |db| {
            let mut find = db.prepare_cached("SELECT tenant, reference, since FROM owners WHERE record = ?1")?;
            let rows = find.query_map([record], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, Option<Vec<u8>>>(1)?, row.get::<_, i64>(2)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        let owner = |(tenant, hidden, since): (String, Option<Vec<u8>>, i64)| {
            let tenant = tenant.parse().ok()?;
            let reference = hidden.and_then(|hidden| self.secrecy.show_reference(&record, &tenant, &hidden));
            Some(Owner { tenant, reference, since: time(since) })
        };
        Ok(rows.await?.into_iter().filter_map(owner).collect())
    }

    pub(super) async fn receive(&self, callback: Callback) -> Result<Receipt, StateError> {
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
            return Ok(Receipt::Repeat);
        }
        self.arrived.notify_one();
        Ok(Receipt::New)
    }

    pub(super) async fn waiting(&self, most: usize, lease: Duration) -> Result<Vec<Waiting>, StateError> {
        let (held, now) = (self.callbacks.held(), self.now());
        let look = self.database.read(move |db| {
            let mut find = db.prepare_cached(
                "SELECT name, record, account, kind, content, received, touched FROM callbacks
                 WHERE standing = 0 AND due <= ?1 ORDER BY due LIMIT ?2",
            )?;
            let rows = find.query_map(params![now, limit(most.saturating_add(held.len()))], CallbackRow::read)?;
            let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter();
            let rows = rows.filter(|row| !held.contains(&row.name)).take(most);
            rows.map(|row| Ok((awaiting(db, &row.record)?, row))).collect::<rusqlite::Result<Vec<_>>>()
        });
        let mut found = Vec::new();
        for (owners, row) in look.await? {
            self.callbacks.take(row.name, lease);
            match self.shown(owners, &row) {
                Some(waiting) => found.push(waiting),
                // Kept for an operator who may find the key again; it does not hold up the others.
                None => self.set_aside(row.name, row.touched).await?,
            }
        }
        Ok(found)
    }

    fn shown(&self, owners: Vec<AwaitingRow>, row: &CallbackRow) -> Option<Waiting> {
        let (id, body) = self.secrecy.show_callback(&row.name, row.content.as_deref()?)?;
        let mut kind = row.kind.as_deref().and_then(|kind| kind.parse().ok());
        let mut references = Vec::with_capacity(owners.len());
        for owner in owners {
            let Ok(tenant) = owner.tenant.parse() else { continue };
            kind = kind.or_else(|| owner.kind.and_then(|kind| kind.parse().ok()));
            let reference =
                owner.reference.and_then(|hidden| self.secrecy.show_reference(&row.record, &tenant, &hidden));
            references.push(Awaiting { tenant, reference, erased: owner.erased });
        }
        Some(Waiting {
            name: row.name,
            account: row.account.parse().ok()?,
            kind,
            id,
            body,
            received: time(row.received),
            awaiting: references,
            turn: row.touched,
        })
    }

    pub(super) async fn settle(&self, waiting: &Waiting, verdict: Verdict) -> Result<(), StateError> {
        let (name, touched, now) = (waiting.name, waiting.turn, self.now());
        let settled = match verdict {
            Verdict::Wait(until) => {
                let until = millis(until);
                let wait = move |db: &Connection| {
                    db.prepare_cached(
                        "UPDATE callbacks SET due = ?3 WHERE name = ?1 AND touched = ?2 AND standing = 0",
                    )?
                    .execute(params![name.0, touched, until])
                };
                self.database.write(wait).await.map(|_| false)?
            }
            Verdict::Unowned => {
                self.set_aside(name, touched).await?;
                false
            }
            Verdict::Deliver(kind, copies) => {
                let record = self.secrecy.record(&waiting.account, &waiting.id);
                let prepared = |copy: Copy| {
                    let reference = self.secrecy.reference(&record, &copy.tenant, copy.reference.as_ref());
                    self.prepared(
                        self.secrecy.delivery(&name, &reference),
                        record,
                        &waiting.account,
                        &waiting.id,
                        kind,
                        copy,
                    )
                };
                let rows: Vec<_> = copies.into_iter().map(prepared).collect();
                let forget = now + length(LATE);
                let received = millis(waiting.received);
                let deliver = move |db: &Connection| {
                    let mut find =
                        db.prepare_cached("SELECT touched, fleeting FROM callbacks WHERE name = ?1 AND standing = 0")?;
                    let found = find.query_row([name.0], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)));
                    // Erased meanwhile: then there is nothing to deliver.
                    let Some((touches, fleeting)) = found.optional()? else { return Ok(false) };
                    let fleeting = fleeting || is_erased(db, &record)?;
                    let mut made = 0;
                    for row in &rows {
                        made += row.insert(db, now, received, fleeting)?;
                    }
                    if touches == touched {
                        db.prepare_cached("UPDATE callbacks SET standing = 1, due = ?2 WHERE name = ?1")?
                            .execute(params![name.0, forget])?;
                    }
                    Ok(made > 0)
                };
                self.database.write(deliver).await?
            }
        };
        self.callbacks.give_back(&name);
        // An owner may have come meanwhile.
        self.arrived.notify_one();
        if settled {
            self.due.notify_one();
        }
        Ok(())
    }

    /// Nobody owns it, or nobody can read it.
    async fn set_aside(&self, name: CallbackName, touched: i64) -> Result<(), StateError> {
        let now = self.now();
        let remove = now + length(self.retention.dead_letters);
        let unowned = move |db: &Connection| {
            // What must not be kept is not kept for operators either.
            db.prepare_cached(
                "UPDATE callbacks SET standing = iif(fleeting, 3, 2), content = iif(fleeting, NULL, content), due = ?3
                 WHERE name = ?1 AND touched = ?2 AND standing = 0",
            )?
            .execute(params![name.0, touched, remove])
        };
        self.database.write(unowned).await?;
        self.callbacks.give_back(&name);
        Ok(())
    }

    pub(super) async fn enqueue(&self, made: Vec<Made>) -> Result<(), StateError> {
        let now = self.now();
        let prepared = |made: Made| {
            let Made { account, id, kind, copy, tags } = made;
            let record = self.secrecy.record(&account, &id);
            (self.prepared(DeliveryId::fresh(), record, &account, &id, kind, copy), self.persons(&tags))
        };
        let rows: Vec<_> = made.into_iter().map(prepared).collect();
        let insert = move |db: &Connection| {
            for (row, persons) in &rows {
                let fleeting = is_erased(db, &row.record)?;
                row.insert(db, now, now, fleeting)?;
                if !fleeting {
                    note_persons(db, persons, &row.record, now)?;
                }
            }
            Ok(())
        };
        self.database.write(insert).await?;
        self.due.notify_one();
        Ok(())
    }

    fn prepared(
        &self,
        id: DeliveryId,
        record: Record,
        account: &AccountName,
        upstream_id: &str,
        kind: CallbackType,
        copy: Copy,
    ) -> NewDelivery {
        let content = self.secrecy.hide_delivery(&id, upstream_id, &copy.body);
        NewDelivery { id, record, tenant: copy.tenant, account: account.clone(), kind, content }
    }

    pub(super) async fn claim(
        &self,
        wanted: &[(TenantName, usize)],
        lease: Duration,
    ) -> Result<Vec<Delivery>, StateError> {
        // What is concluded after this was read is no longer queued when the rows are.
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
        let mut claimed = Vec::new();
        for row in rows.await? {
            match row.shown(&self.secrecy) {
                Some(delivery) => {
                    self.deliveries.take(delivery.id, lease);
                    claimed.push(delivery);
                }
                None => self.ended(row.id, 1, row.attempts).await?,
            }
        }
        Ok(claimed)
    }

    pub(super) async fn conclude(&self, delivery: &Delivery, fate: DeliveryOutcome) -> Result<(), StateError> {
        let (id, attempts) = (delivery.id, delivery.attempts);
        match fate {
            DeliveryOutcome::Untried => {}
            DeliveryOutcome::Delivered => self.ended(id, 2, attempts).await?,
            DeliveryOutcome::Dead => self.ended(id, 1, attempts.saturating_add(1)).await?,
            DeliveryOutcome::Retry(at) => {
                let at = millis(at);
                let retry = move |db: &Connection| {
                    db.prepare_cached("UPDATE deliveries SET attempts = ?2, due = ?3 WHERE id = ?1 AND standing = 0")?
                        .execute(params![id.0, attempts.saturating_add(1), at])
                };
                self.database.write(retry).await?;
            }
        }
        self.deliveries.give_back(&id);
        Ok(())
    }

    async fn ended(&self, id: DeliveryId, standing: i64, attempts: u32) -> Result<(), StateError> {
        let now = self.now();
        let end = move |db: &Connection| {
            db.prepare_cached(
                "UPDATE deliveries SET standing = iif(fleeting, 3, ?2), content = iif(fleeting, NULL, content),
                 attempts = ?3, due = ?4 WHERE id = ?1 AND standing = 0",
            )?
            .execute(params![id.0, standing, attempts, now])
        };
        self.database.write(end).await?;
        Ok(())
    }

    pub(super) async fn list(&self, standing: Standing, page: &Page) -> Result<Vec<Listed>, StateError> {
        let after = page.after.unwrap_or(Cursor { at: i64::MIN, id: DeliveryId([0; 16]) });
        let (most, tenant) = (page.most.min(MOST_LISTED), page.tenant.clone());
        let standing = match standing {
            Standing::Unowned => {
                return if tenant.is_some() { Ok(Vec::new()) } else { self.unowned(after, most).await };
            }
            Standing::Queued => 0,
            Standing::Dead => 1,
            Standing::Delivered => 2,
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
            let shown = row.content.as_deref().and_then(|hidden| self.secrecy.show_delivery(&row.id, hidden));
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
            let shown = row.content.as_deref().and_then(|hidden| self.secrecy.show_callback(&row.name, hidden));
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

    pub(super) async fn replay(&self, what: Replay) -> Result<u64, StateError> {
        const AGAIN: &str = "UPDATE deliveries SET standing = 0, attempts = 0, due = ?1 WHERE content IS NOT NULL AND ";
        let now = self.now();
        let replayed = self.database.write(move |db| {
            Ok(match what {
                Replay::One(id) => {
                    let again = db.execute(&format!("{AGAIN} id = ?2"), params![now, id.0])?;
                    let (mut first, mut last) = ([0; 32], [0xff; 32]);
                    first[..16].copy_from_slice(&id.0);
                    last[..16].copy_from_slice(&id.0);
                    // It is given the time of an early one once more; then it is unowned again.
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

    pub(super) async fn queues(&self) -> Result<Queues, StateError> {
        let look = self.database.read(|db| {
            let mut find = db.prepare_cached(
                "SELECT tenant, standing, count(*) FROM deliveries WHERE standing IN (0, 1) GROUP BY standing, tenant",
            )?;
            let rows =
                find.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))?;
            let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            let count = |standing: i64| {
                let mut count = db.prepare_cached("SELECT count(*) FROM callbacks WHERE standing = ?1")?;
                count.query_row([standing], |row| row.get::<_, i64>(0))
            };
            let oldest = "SELECT min(received) FROM deliveries WHERE standing = 0";
            let oldest = db.prepare_cached(oldest)?.query_row([], |row| row.get::<_, Option<i64>>(0))?;
            Ok((rows, count(0)?, count(2)?, oldest))
        });
        let (rows, waiting, unowned, oldest) = look.await?;
        let mut tenants = std::collections::BTreeMap::<TenantName, (u64, u64)>::new();
        for (tenant, standing, count) in rows {
            let Ok(tenant) = tenant.parse() else { continue };
            let counts = tenants.entry(tenant).or_default();
            *(if standing == 0 { &mut counts.0 } else { &mut counts.1 }) = count.unsigned_abs();
        }
        let tenants = tenants.into_iter().map(|(tenant, (queued, dead))| (tenant, queued, dead)).collect();
        Ok(Queues {
            tenants,
            waiting: waiting.unsigned_abs(),
            unowned: unowned.unsigned_abs(),
            oldest: oldest.map(time),
        })
    }

    pub(super) async fn set_url(&self, tenant: &TenantName, kind: CallbackType, url: &str) -> Result<(), StateError> {
        let (hidden, tenant) = (self.secrecy.hide_url(tenant, kind, url), tenant.clone());
        let set = move |db: &Connection| {
            db.execute(
                "INSERT INTO urls (tenant, kind, url) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET url = excluded.url",
                params![tenant.as_str(), kind.as_str(), hidden],
            )
        };
        self.database.write(set).await?;
        Ok(())
    }

    pub(super) async fn urls(&self, tenant: &TenantName) -> Result<Vec<(CallbackType, String)>, StateError> {
        let name = tenant.clone();
        let rows = self.database.read(move |db| {
            let mut find = db.prepare_cached("SELECT kind, url FROM urls WHERE tenant = ?1")?;
            let rows =
                find.query_map([name.as_str()], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        let mut urls = Vec::new();
        for (kind, hidden) in rows.await? {
            let Ok(kind) = kind.parse() else { continue };
            let Some(url) = self.secrecy.show_url(tenant, kind, &hidden) else { continue };
            urls.push((kind, url));
            if let Some(renewed) = self.secrecy.renewed_url(tenant, kind, &hidden) {
                let tenant = tenant.clone();
                let renew = move |db: &Connection| {
                    db.execute(
                        "UPDATE urls SET url = ?4 WHERE tenant = ?1 AND kind = ?2 AND url = ?3",
                        params![tenant.as_str(), kind.as_str(), hidden, renewed],
                    )
                };
                self.database.write(renew).await?;
            }
        }
        urls.sort();
        Ok(urls)
    }

    pub(super) async fn erase(&self, tags: &[Tag]) -> Result<Erased, StateError> {
        let (persons, now) = (self.persons(tags), self.now());
        let erased = self.database.write(move |db| {
            let mut erased = Erased::default();
            for person in &persons {
                db.execute("INSERT OR REPLACE INTO erased (person, at) VALUES (?1, ?2)", params![person, now])?;
                let mut find = db.prepare_cached("SELECT record FROM persons WHERE person = ?1")?;
                let records = find.query_map([person], |row| row.get::<_, Record>(0))?;
                for record in records.collect::<rusqlite::Result<Vec<_>>>()? {
                    erase_record(db, &record, &mut erased)?;
                }
                db.execute("DELETE FROM persons WHERE person = ?1", [person])?;
            }
            Ok(erased)
        });
        let erased = erased.await?;
        self.database.scrub().await?;
        Ok(erased)
    }

    pub(super) async fn sweep(&self) -> Result<u64, StateError> {
        let (now, retention) = (self.now(), self.retention);
        let before = |age: Duration| now - length(age);
        let (owners, delivered, dead) =
            (before(retention.owners), before(retention.delivered_callbacks), before(retention.dead_letters));
        // As long as anything that they lead to.
        let persons = owners.min(delivered).min(dead) - length(EARLY + LATE);
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
            // Of a team that is in no configuration any more.
            run(&delete("deliveries", "id", "standing = 0 AND due < ?1"), dead)?;
            // Fanned out: late owners have come by now, repeats have not.
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
                "DELETE FROM persons WHERE (person, record) IN (SELECT person, record FROM persons WHERE at < ?1 LIMIT ?2)",
                persons,
            )?;
            run(&delete("erased", "person", "at < ?1"), persons)?;
            Ok(swept as u64)
        });
        Ok(swept.await?)
    }

    pub(super) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    pub(super) async fn work(&self) {
        self.due.notified().await;
    }

    pub(super) async fn close(&self) {
        self.database.close().await;
    }

    fn persons(&self, tags: &[Tag]) -> Vec<[u8; 32]> {
        tags.iter().map(|tag| self.secrecy.person(tag)).collect()
    }

    fn now(&self) -> i64 {
        millis(self.clock.wall())
    }
}

/// A delivery that is to be stored.
struct NewDelivery {
    id: DeliveryId,
    record: Record,
    tenant: TenantName,
    account: AccountName,
    kind: CallbackType,
    content: Vec<u8>,
}

impl NewDelivery {
    /// Nothing if it is there already, in whatever state.
    fn insert(&self, db: &Connection, due: i64, received: i64, fleeting: bool) -> rusqlite::Result<usize> {
        db.prepare_cached(
            "INSERT OR IGNORE INTO deliveries (id, record, tenant, account, kind, content, standing, due, received, fleeting)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8, ?9)",
        )?
        .execute(params![
            self.id.0,
            self.record,
            self.tenant.as_str(),
            self.account.as_str(),
            self.kind.as_str(),
            self.content,
            due,
            received,
            fleeting
        ])
    }
}

struct CallbackRow {
    name: CallbackName,
    record: Record,
    account: String,
    kind: Option<String>,
    content: Option<Vec<u8>>,
    received: i64,
    touched: i64,
}

impl CallbackRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            name: CallbackName(row.get(0)?),
            record: row.get(1)?,
            account: row.get(2)?,
            kind: row.get(3)?,
            content: row.get(4)?,
            received: row.get(5)?,
            touched: row.get(6)?,
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

struct DeliveryRow {
    id: DeliveryId,
    tenant: String,
    account: String,
    kind: String,
    content: Option<Vec<u8>>,
    attempts: u32,
    received: i64,
}

impl DeliveryRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
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

    fn shown(&self, secrecy: &Secrecy) -> Option<Delivery> {
        let (_, body) = secrecy.show_delivery(&self.id, self.content.as_deref()?)?;
        Some(Delivery {
            id: self.id,
            tenant: self.tenant.parse().ok()?,
            account: self.account.parse().ok()?,
            kind: self.kind.parse().ok()?,
            body,
            attempts: self.attempts,
            received: time(self.received),
            turn: 0,
        })
    }
}

/// Whether the record's person was erased.
fn is_erased(db: &Connection, record: &Record) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT EXISTS (SELECT 1 FROM owners WHERE record = ?1 AND erased)")?
        .query_row([record], |row| row.get(0))
}

fn has_owner(db: &Connection, record: &Record) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT EXISTS (SELECT 1 FROM owners WHERE record = ?1)")?.query_row([record], |row| row.get(0))
}

/// Whether one of these persons was erased at `time` or later.
fn erased_since(db: &Connection, persons: &[[u8; 32]], time: i64) -> rusqlite::Result<bool> {
    let mut find = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM erased WHERE person = ?1 AND at >= ?2)")?;
    let found: HashSet<bool> = persons
        .iter()
        .map(|person| find.query_row(params![person, time], |row| row.get(0)))
        .collect::<Result<_, _>>()?;
    Ok(found.contains(&true))
}

fn note_persons(db: &Connection, persons: &[[u8; 32]], record: &Record, now: i64) -> rusqlite::Result<()> {
    let mut note = db.prepare_cached(
        "INSERT INTO persons (person, record, at) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET at = excluded.at",
    )?;
    persons.iter().try_for_each(|person| note.execute(params![person, record, now]).map(|_| ()))
}

fn erase_record(db: &Connection, record: &Record, erased: &mut Erased) -> rusqlite::Result<()> {
    let of = |statement: &str| db.execute(statement, [record]).map(|count| count as u64);
    // One that was erased before may have got a reference since, of whoever asked as a new customer.
    erased.owners += of(
        "UPDATE owners SET reference = NULL, erased = 1 WHERE record = ?1 AND (NOT erased OR reference IS NOT NULL)",
    )?;
    // One of each team goes on waiting, without its reference; the others would be deliveries that nobody can tell apart.
    of("DELETE FROM awaiting WHERE record = ?1 AND name > (SELECT min(name) FROM awaiting AS other
        WHERE other.record = awaiting.record AND other.tenant = awaiting.tenant)")?;
    of("UPDATE awaiting SET reference = NULL WHERE record = ?1")?;
    let waited = "SELECT count(*) FROM callbacks WHERE record = ?1 AND standing IN (0, 2) AND content IS NOT NULL";
    erased.callbacks += db.query_row(waited, [record], |row| row.get::<_, i64>(0))?.unsigned_abs();
    // Their names stay, so that a repeat is known for one.
    of("UPDATE callbacks SET standing = 3, content = NULL WHERE record = ?1 AND content IS NOT NULL")?;
    erased.deliveries +=
        of("UPDATE deliveries SET standing = 3, content = NULL WHERE record = ?1 AND content IS NOT NULL")?;
    Ok(())
}

/// A statement that removes some rows.
fn delete(table: &str, key: &str, condition: &str) -> String {
    format!("DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE {condition} LIMIT ?2)")
}

fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    length(since)
}

fn length(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
