//! Lists for operators, replays, and the sizes of the queues.

use super::super::attempts;
use super::super::envelopes::DeliveryId;
use super::super::error::StateError;
use super::super::model::{Cursor, Deleted, DeliveryStatus, Found, Listed, MOST_LISTED, Outbox, Page, Queues, Replay};
use super::super::times::{millis, time};
use super::engine::{MOST_TOUCHED, Redis};
use super::fields::{Fields, parsed};
use crate::base::name::TenantName;
use crate::redis::scripts::state::{DELETE, FIND, LIST, QUEUES, REPLAY};
use redis::ScriptInvocation;

impl Redis {
    pub(in super::super) async fn list(&self, status: DeliveryStatus, page: &Page) -> Result<Vec<Listed>, StateError> {
        let list = match status {
            DeliveryStatus::Queued => "deliveries:queued",
            DeliveryStatus::Dead => "deliveries:dead",
            DeliveryStatus::Delivered => "deliveries:delivered",
            DeliveryStatus::Unowned => "callbacks:unowned",
        };
        let most = page.most.min(MOST_LISTED);
        if most == 0 || status == DeliveryStatus::Unowned && page.tenant.is_some() {
            return Ok(Vec::new());
        }
        let (mut after, mut found) = (page.after, Vec::new());
        loop {
            // A filter drops rows after they were read, so further steps may be needed. Without a filter one step is
            // enough.
            let step = if page.is_filtered() { MOST_LISTED } else { most };
            let rows: Vec<Fields> = self
                .run(&LIST, |call| {
                    call.arg(list).arg(page.tenant.as_ref().map_or("", TenantName::as_str));
                    match after {
                        Some(Cursor { at, id }) => call.arg(at).arg(&id.0),
                        None => call.arg("").arg(""),
                    };
                    call.arg(step);
                })
                .await?;
            let is_last = rows.len() < step;
            let listed: Vec<_> = rows.iter().filter_map(|row| self.listed(row)).collect();
            after = listed.last().map(|entry| entry.cursor).or(after);
            let nothing_read = listed.is_empty();
            let takes = |entry: &Listed| page.takes(status, entry.kind, entry.cursor.at, millis(entry.received));
            found.extend(listed.into_iter().filter(takes).take(most - found.len()));
            if is_last || nothing_read || found.len() == most {
                return Ok(found);
            }
        }
    }

    pub(in super::super) async fn find(&self, id: DeliveryId) -> Result<Option<Found>, StateError> {
        let (standing, row): (String, Fields) = self
            .run(&FIND, |call| {
                call.arg(&id.0);
            })
            .await?;
        let status = match &*standing {
            "queued" => DeliveryStatus::Queued,
            "dead" => DeliveryStatus::Dead,
            "delivered" => DeliveryStatus::Delivered,
            "unowned" => DeliveryStatus::Unowned,
            _ => return Ok(None),
        };
        let history = row.last().and_then(|history| std::str::from_utf8(history).ok());
        let history = history.map(attempts::parsed).unwrap_or_default();
        Ok(self.listed(&row).map(|entry| Found { status, entry, history }))
    }

    pub(in super::super) async fn delete(&self, id: DeliveryId) -> Result<Deleted, StateError> {
        let deleted: String = self
            .run(&DELETE, |call| {
                call.arg(&id.0);
            })
            .await?;
        match &*deleted {
            "done" => Ok(Deleted::Done),
            "not_dead" => Ok(Deleted::NotDead),
            "unknown" => Ok(Deleted::Unknown),
            _ => Err(StateError::Refused),
        }
    }

    pub(in super::super) async fn replay(&self, what: Replay) -> Result<u64, StateError> {
        let (what, tenant, id, since, ends) = match &what {
            Replay::One(id) => ("one", None, &id.0[..], 0, None),
            Replay::Own(tenant, id) => ("one", Some(tenant), &id.0[..], 0, None),
            Replay::Since(tenant, since, until) => ("since", Some(tenant), &[][..], millis(*since), *until),
            Replay::AllDead(tenant) => ("dead", tenant.as_ref(), &[][..], 0, None),
        };
        let mut replayed = 0;
        // Entries that are concluded after the first step are not included, however many steps follow.
        let mut until = ends.map_or_else(String::new, |ends| millis(ends).to_string());
        loop {
            let replay = |call: &mut ScriptInvocation<'_>| {
                call.arg(what).arg(tenant.map_or("", TenantName::as_str)).arg(MOST_TOUCHED).arg(since);
                call.arg(&until).arg(id);
            };
            let (ended, count): (String, usize) = self.run(&REPLAY, replay).await?;
            replayed += count as u64;
            self.arrived.notify_one();
            self.due.notify_one();
            if count < MOST_TOUCHED {
                return Ok(replayed);
            }
            until = ended;
        }
    }

    pub(in super::super) async fn queues(&self) -> Result<Queues, StateError> {
        let (waiting, unowned, oldest, rows): (u64, u64, String, Vec<Fields>) = self.run(&QUEUES, |_| {}).await?;
        let counts = |row: Fields| {
            let [tenant, queued, queued_bytes, dead] = row.try_into().ok()?;
            let [queued, queued_bytes, dead] = [parsed(&queued)?, parsed(&queued_bytes)?, parsed(&dead)?];
            Some(Outbox { tenant: parsed(&tenant)?, queued, queued_bytes, dead })
        };
        let mut tenants: Vec<_> = rows.into_iter().filter_map(counts).collect();
        tenants.sort();
        Ok(Queues { tenants, waiting, unowned, oldest: oldest.parse().ok().map(|oldest| self.ours(oldest)) })
    }

    fn listed(&self, row: &[Vec<u8>]) -> Option<Listed> {
        let [due, name, tenant, account, kind, upstream_id, failed, received, history]: &[_; 9] =
            row.try_into().ok()?;
        Some(Listed {
            cursor: Cursor { at: parsed(due)?, id: DeliveryId(*name.first_chunk()?) },
            tenant: parsed(tenant),
            account: parsed(account)?,
            kind: parsed(kind),
            upstream_id: self.secrecy.show_id(name, upstream_id).ok(),
            attempts: parsed(failed).unwrap_or(0),
            last: std::str::from_utf8(history).ok().and_then(attempts::last),
            received: time(parsed(received)?),
        })
    }
}
