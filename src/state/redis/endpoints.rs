//! Endpoints: their pauses, and the deliveries that expire during a pause.

use super::super::error::StateError;
use super::super::pauses::{Endpoint, Pause, PauseReason, Resume};
use super::super::times::length;
use super::engine::{MOST_TOUCHED, Redis};
use super::fields::{Fields, parsed};
use crate::base::name::TenantName;
use crate::redis::scripts::state::{EXPIRE_PAUSED, PAUSE, PAUSES, RESUME};
use std::time::Duration;

impl Redis {
    pub(in super::super) async fn pause(&self, endpoints: &[Endpoint], reason: PauseReason) -> Result<(), StateError> {
        let _: i64 = self
            .run(&PAUSE, |call| {
                call.arg(reason.as_str());
                for endpoint in endpoints {
                    call.arg(name(endpoint));
                }
            })
            .await?;
        Ok(())
    }

    pub(in super::super) async fn resume(&self, endpoints: &[Endpoint], which: Resume) -> Result<u64, StateError> {
        let which = match which {
            Resume::Any => "any",
            Resume::Automatic => "automatic",
        };
        let resumed = self
            .run(&RESUME, |call| {
                call.arg(which);
                for endpoint in endpoints {
                    call.arg(name(endpoint));
                }
            })
            .await?;
        self.due.notify_one();
        Ok(resumed)
    }

    pub(in super::super) async fn pauses(&self) -> Result<Vec<Pause>, StateError> {
        let rows: Vec<Fields> = self.run(&PAUSES, |_| {}).await?;
        let shown = |row: Fields| {
            let [endpoint, reason, since, probe]: [_; 4] = row.try_into().ok()?;
            let probe = parsed(&probe).map(|probe| self.ours(probe));
            let endpoint = endpoint_of(std::str::from_utf8(&endpoint).ok()?)?;
            Some(Pause { endpoint, reason: parsed(&reason)?, since: self.ours(parsed(&since)?), probe })
        };
        let mut pauses: Vec<_> = rows.into_iter().filter_map(shown).collect();
        pauses.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        Ok(pauses)
    }

    pub(in super::super) async fn expire_paused(&self, age: Duration) -> Result<Vec<TenantName>, StateError> {
        let dead: Vec<Vec<u8>> = self
            .run(&EXPIRE_PAUSED, |call| {
                call.arg(length(age)).arg(MOST_TOUCHED);
            })
            .await?;
        Ok(dead.iter().filter_map(|tenant| parsed(tenant)).collect())
    }
}

/// Returns the name that scripts use for an endpoint: the team, a colon, and the type.
fn name(endpoint: &Endpoint) -> String {
    format!("{}:{}", endpoint.tenant, endpoint.kind)
}

fn endpoint_of(name: &str) -> Option<Endpoint> {
    let (tenant, kind) = name.split_once(':')?;
    Some(Endpoint { tenant: tenant.parse().ok()?, kind: kind.parse().ok()? })
}
