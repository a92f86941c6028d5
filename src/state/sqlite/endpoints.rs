//! Endpoints: their pauses and probes, and the deliveries that expire during a pause.

use super::super::attempts::EndpointNews;
use super::super::envelopes::DeliveryId;
use super::super::error::StateError;
use super::super::pauses::{Endpoint, FAILING, PROBE_INTERVAL, Pause, PauseReason, Resume};
use super::super::times::{length, time};
use super::delivery_row::{DeliveryRow, StoredStatus, end};
use super::engine::{Sqlite, limit};
use crate::base::name::TenantName;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

/// The largest number of deliveries that one transaction turns into dead letters. Other writes wait meanwhile.
const MOST_EXPIRED: usize = 500;

/// The paused types of callbacks, by team.
pub(super) type Paused = BTreeMap<String, BTreeSet<String>>;

impl Sqlite {
    pub(in super::super) async fn pause(&self, endpoints: &[Endpoint], reason: PauseReason) -> Result<(), StateError> {
        let (endpoints, now) = (endpoints.to_vec(), self.now());
        let pause = move |db: &Connection| {
            let mut pause = db.prepare_cached(
                "INSERT INTO endpoints (tenant, kind, pause, since) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET pause = excluded.pause, since = excluded.since, probe = NULL",
            )?;
            for Endpoint { tenant, kind } in &endpoints {
                pause.execute(params![tenant.as_str(), kind.as_str(), reason.as_str(), now])?;
            }
            Ok(())
        };
        Ok(self.database.write(pause).await?)
    }

    pub(in super::super) async fn resume(&self, endpoints: &[Endpoint], which: Resume) -> Result<u64, StateError> {
        let endpoints = endpoints.to_vec();
        let resume = move |db: &Connection| {
            let mut resumed = 0;
            for Endpoint { tenant, kind } in &endpoints {
                let ended = match which {
                    Resume::Any => "pause IS NOT NULL",
                    Resume::Automatic => "pause IN ('gone', 'failing')",
                };
                let paused = format!("SELECT count(*) FROM endpoints WHERE tenant = ?1 AND kind = ?2 AND {ended}");
                let names = params![tenant.as_str(), kind.as_str()];
                resumed += db.prepare_cached(&paused)?.query_row(names, |row| row.get::<_, i64>(0))?.unsigned_abs();
                let resume = format!(
                    "UPDATE endpoints SET failing = NULL, pause = iif({ended}, NULL, pause) WHERE tenant = ?1 AND kind = ?2"
                );
                db.prepare_cached(&resume)?.execute(names)?;
            }
            Ok(resumed)
        };
        let resumed = self.database.write(resume).await?;
        self.due.notify_one();
        Ok(resumed)
    }

    pub(in super::super) async fn pauses(&self) -> Result<Vec<Pause>, StateError> {
        let look = self.database.read(|db| {
            let mut find = db.prepare_cached(
                "SELECT tenant, kind, pause, since, probe FROM endpoints WHERE pause IS NOT NULL ORDER BY tenant, kind",
            )?;
            let rows = find.query_map([], |row| {
                let names = (row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?);
                Ok((names, row.get::<_, i64>(3)?, row.get::<_, Option<i64>>(4)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        let shown = |((tenant, kind, reason), since, probe): ((String, String, String), i64, Option<i64>)| {
            let endpoint = Endpoint { tenant: tenant.parse().ok()?, kind: kind.parse().ok()? };
            Some(Pause { endpoint, reason: reason.parse().ok()?, since: time(since), probe: probe.map(time) })
        };
        Ok(look.await?.into_iter().filter_map(shown).collect())
    }

    pub(in super::super) async fn expire_paused(&self, age: Duration) -> Result<Vec<TenantName>, StateError> {
        let (now, held) = (self.now(), self.deliveries.held());
        let before = now.saturating_sub(length(age));
        let look = self.database.read(move |db| {
            let mut find = db.prepare_cached(
                // The endpoints come first: most of the time none is paused, and then no delivery is read.
                "SELECT deliveries.id, deliveries.tenant FROM endpoints
                 CROSS JOIN deliveries INDEXED BY deliveries_age USING (tenant, kind) WHERE endpoints.pause IS NOT NULL AND deliveries.standing = 0 AND deliveries.queued < ?1
                 AND deliveries.due <= ?2 LIMIT ?3",
            )?;
            let rows = find.query_map(params![before, now, limit(MOST_EXPIRED)], |row| {
                Ok((DeliveryId(row.get(0)?), row.get::<_, String>(1)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        let mut old = look.await?;
        old.retain(|(id, _)| !held.contains(id));
        if old.is_empty() {
            return Ok(Vec::new());
        }
        let expire = move |db: &Connection| {
            let mut dead = Vec::new();
            for (id, tenant) in &old {
                if end(db, *id, StoredStatus::Dead, now)? > 0 {
                    dead.extend(tenant.parse::<TenantName>());
                }
            }
            Ok(dead)
        };
        Ok(self.database.write(expire).await?)
    }

    /// Hands out probes: for each endpoint its oldest queued delivery that is not leased. Also sets the time of the
    /// endpoint's next probe. `endpoints` has the team and the type of each endpoint whose probe is due; `held` has the
    /// leased deliveries.
    pub(super) async fn probes(
        &self,
        endpoints: Vec<(String, String)>,
        held: HashSet<DeliveryId>,
    ) -> Result<Vec<DeliveryRow>, StateError> {
        if endpoints.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.now();
        let probe = move |db: &Connection| {
            let mut found = Vec::new();
            for (tenant, kind) in &endpoints {
                let mut find = db.prepare_cached(&format!(
                    "SELECT {} FROM deliveries WHERE standing = 0 AND tenant = ?1 AND kind = ?2
                     ORDER BY queued, id LIMIT ?3",
                    DeliveryRow::COLUMNS
                ))?;
                let rows =
                    find.query_map(params![tenant, kind, limit(held.len().saturating_add(1))], DeliveryRow::read)?;
                let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
                let Some(mut row) = rows.into_iter().find(|row| !held.contains(&row.id)) else { continue };
                let next = now + length(PROBE_INTERVAL);
                let taken = db
                    .prepare_cached(
                        "UPDATE endpoints SET probe = ?4
                         WHERE tenant = ?1 AND kind = ?2 AND pause = 'failing' AND probe <= ?3",
                    )?
                    .execute(params![tenant, kind, now, next])?;
                if taken > 0 {
                    row.is_probe = true;
                    found.push(row);
                }
            }
            Ok(found)
        };
        Ok(self.database.write(probe).await?)
    }
}

/// Returns the paused types of each team, and the team and type of each endpoint whose probe is due. `now` is in
/// milliseconds since 1970.
pub(super) fn paused(db: &Connection, now: i64) -> rusqlite::Result<(Paused, Vec<(String, String)>)> {
    let mut find = db.prepare_cached("SELECT tenant, kind, probe FROM endpoints WHERE pause IS NOT NULL")?;
    let (mut paused, mut due) = (Paused::new(), Vec::new());
    let rows = find
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, Option<i64>>(2)?)))?;
    for row in rows {
        let (tenant, kind, probe) = row?;
        if probe.is_some_and(|probe| probe <= now) {
            due.push((tenant.clone(), kind.clone()));
        }
        paused.entry(tenant).or_default().insert(kind);
    }
    Ok((paused, due))
}

/// Updates an endpoint by the result of an attempt, which may pause or resume it. `now` is in milliseconds since 1970.
pub(super) fn note(db: &Connection, endpoint: &Endpoint, news: EndpointNews, now: i64) -> rusqlite::Result<()> {
    let (tenant, kind) = (endpoint.tenant.as_str(), endpoint.kind.as_str());
    if news == EndpointNews::None {
        return Ok(());
    }
    let mut find = db.prepare_cached("SELECT failing, pause FROM endpoints WHERE tenant = ?1 AND kind = ?2")?;
    let known = find.query_row([tenant, kind], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get(1)?)));
    let (failing, pause): (_, Option<String>) = known.optional()?.unwrap_or_default();
    let pause = pause.and_then(|pause| pause.parse().ok());
    if news == EndpointNews::Success {
        if failing.is_some() || pause == Some(PauseReason::Failing) {
            db.prepare_cached(
                "UPDATE endpoints SET failing = NULL, probe = NULL, pause = iif(pause = 'failing', NULL, pause)
                 WHERE tenant = ?1 AND kind = ?2",
            )?
            .execute([tenant, kind])?;
        }
        return Ok(());
    }
    let failing = failing.unwrap_or(now);
    let next = match (news, pause) {
        (EndpointNews::Gone, None | Some(PauseReason::Failing)) => Some((PauseReason::Gone, None)),
        (_, None) if now - failing >= length(FAILING) => {
            Some((PauseReason::Failing, Some(now + length(PROBE_INTERVAL))))
        }
        _ => None,
    };
    db.prepare_cached(
        "INSERT INTO endpoints (tenant, kind, failing) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET failing = coalesce(failing, excluded.failing)",
    )?
    .execute(params![tenant, kind, failing])?;
    if let Some((reason, probe)) = next {
        db.prepare_cached("UPDATE endpoints SET pause = ?3, since = ?4, probe = ?5 WHERE tenant = ?1 AND kind = ?2")?
            .execute(params![tenant, kind, reason.as_str(), now, probe])?;
    }
    Ok(())
}
