//! Owners of records, and the URLs that teams set.

use super::super::error::StateError;
use super::super::model::{MOST_AWAITING, Owner, Owning};
use super::super::pauses::{Endpoint, Resume};
use super::super::times::{millis, time};
use super::engine::{Sqlite, limit};
use super::persons::{erased_since, note_persons};
use crate::base::name::{AccountName, TenantName};
use crate::iluma::callback_type::CallbackType;
use rusqlite::{Connection, params};

impl Sqlite {
    pub(in super::super) async fn own(&self, owning: Owning) -> Result<(), StateError> {
        let Owning { account, id, tenant, reference, kind, awaits, tags, asked } = owning;
        let record = self.secrecy.record(&account, &id);
        let name = self.secrecy.reference(&record, &tenant, reference.as_ref());
        let hidden = reference.as_ref().map(|text| self.secrecy.hide_reference(&record, &tenant, text));
        let (persons, now, asked) = (self.persons(&tags), self.now(), millis(asked));
        let released =
            self.database.write(move |db| {
                let erased = erased_since(db, &persons, asked)?;
                let hidden = hidden.as_deref().filter(|_| !erased);
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
                // A fan-out in progress will find that the callback was touched; the callback is then handed out again.
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

    pub(in super::super) async fn owners(&self, account: &AccountName, id: &str) -> Result<Vec<Owner>, StateError> {
        let record = self.secrecy.record(account, id);
        let rows = self.database.read(move |db| {
            let mut find = db.prepare_cached("SELECT tenant, reference, since FROM owners WHERE record = ?1")?;
            let rows = find.query_map([record], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, Option<Vec<u8>>>(1)?, row.get::<_, i64>(2)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        let mut owners = Vec::new();
        for (tenant, hidden, since) in rows.await? {
            let Ok(tenant) = tenant.parse() else { continue };
            let reference = hidden.map(|hidden| self.secrecy.show_reference(&record, &tenant, &hidden)).transpose()?;
            owners.push(Owner { tenant, reference, since: time(since) });
        }
        Ok(owners)
    }

    pub(in super::super) async fn set_url(
        &self,
        tenant: &TenantName,
        kind: CallbackType,
        url: &str,
    ) -> Result<(), StateError> {
        self.spare()?;
        let endpoint = Endpoint { tenant: tenant.clone(), kind };
        let (hidden, tenant) = (self.secrecy.hide_url(tenant, kind, url), tenant.clone());
        let set = move |db: &Connection| {
            db.execute(
                "INSERT INTO urls (tenant, kind, url) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET url = excluded.url",
                params![tenant.as_str(), kind.as_str(), hidden],
            )
        };
        self.database.write(set).await?;
        self.resume(&[endpoint], Resume::Automatic).await?;
        Ok(())
    }

    pub(in super::super) async fn delete_urls(&self, endpoints: &[Endpoint]) -> Result<(), StateError> {
        let names: Vec<_> =
            endpoints.iter().map(|Endpoint { tenant, kind }| (tenant.to_string(), kind.as_str())).collect();
        let delete = move |db: &Connection| {
            let mut delete = db.prepare_cached("DELETE FROM urls WHERE tenant = ?1 AND kind = ?2")?;
            names.iter().try_for_each(|(tenant, kind)| delete.execute(params![tenant, kind]).map(drop))
        };
        self.database.write(delete).await?;
        self.resume(endpoints, Resume::Automatic).await?;
        Ok(())
    }

    pub(in super::super) async fn urls(&self, tenant: &TenantName) -> Result<Vec<(CallbackType, String)>, StateError> {
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
            let url = self.secrecy.show_url(tenant, kind, &hidden)?;
            let renewed = self.secrecy.renewed_url(tenant, kind, &url, &hidden);
            urls.push((kind, url));
            if let Some(renewed) = renewed {
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
}
