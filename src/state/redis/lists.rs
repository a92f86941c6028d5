//! Lists for operators, replays, and the sizes of the queues.

use super::super::envelopes::DeliveryId;
use super::super::error::StateError;
use super::super::model::{Cursor, DeliveryStatus, Listed, MOST_LISTED, Outbox, Page, Queues, Replay};
use super::super::times::{millis, time};
use super::engine::{MOST_TOUCHED, Redis};
use super::fields::{Fields, parsed};
use crate::base::name::TenantName;
use crate::redis::scripts::state::{LIST, QUEUES, REPLAY};
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
        let rows: Vec<Fields> = self
            .run(&LIST, |call| {
                call.arg(list).arg(page.tenant.as_ref().map_or("", TenantName::as_str));
                match page.after {
                    Some(Cursor { at, id }) => call.arg(at).arg(&id.0),
                    None => call.arg("").arg(""),
                };
                call.arg(most);
            })
            .await?;
        Ok(rows.iter().filter_map(|row| self.listed(row)).collect())
    }

    pub(in super::super) async fn replay(&self, what: Replay) -> Result<u64, StateError> {
        let mut replayed = 0;
        // Entries that are concluded later are not included, however many steps it takes.
        let mut until = String::new();
        loop {
            let replay = |call: &mut ScriptInvocation<'_>| {
                match &what {
                    Replay::One(id) => call.arg("one").arg(&id.0).arg(MOST_TOUCHED).arg(0),
                    Replay::Since(tenant, since) => {
                        call.arg("since").arg(tenant.as_str()).arg(MOST_TOUCHED).arg(millis(*since))
                    }
                    Replay::AllDead => call.arg("dead").arg("").arg(MOST_TOUCHED).arg(0),
                };
                call.arg(&until);
            };
            let (now, count): (String, usize) = self.run(&REPLAY, replay).await?;
            replayed += count as u64;
            self.arrived.notify_one();
            self.due.notify_one();
            if count < MOST_TOUCHED {
                return Ok(replayed);
            }
            if until.is_empty() {
                until = now;
            }
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
        let [due, name, tenant, account, kind, upstream_id, attempts, received]: &[_; 8] = row.try_into().ok()?;
        Some(Listed {
            cursor: Cursor { at: parsed(due)?, id: DeliveryId(*name.first_chunk()?) },
            tenant: parsed(tenant),
            account: parsed(account)?,
            kind: parsed(kind),
            upstream_id: self.secrecy.show_id(name, upstream_id).ok(),
            attempts: parsed(attempts).unwrap_or(0),
            received: time(parsed(received)?),
        })
    }
}
