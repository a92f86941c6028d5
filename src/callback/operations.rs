//! Execution of orders about callbacks: replays, pauses, tests, and the deletion of a dead letter.

use super::listing::shown_result;
use super::orders::{Endpoints, OrderError};
use super::service::Callbacks;
use crate::iluma::callback_type::CallbackType;
use crate::state::{AttemptRecord, Deleted, DeliveryId, Endpoint, PauseReason, Replay, Resume};
use futures_util::future::join_all;
use serde_json::{Value, json};

impl Callbacks {
    /// Queues the selected deliveries again, and returns their number.
    ///
    /// # Errors
    /// Returns an error if state can't be written. In Redis some of the deliveries may be queued then.
    pub async fn replay(&self, what: Replay) -> Result<u64, OrderError> {
        Ok(self.state.replay(what).await?)
    }

    /// Stops attempts at endpoints until they are resumed; returns the number of paused endpoints.
    ///
    /// # Errors
    /// Returns an error if the tenant is unknown, or if state can't be written.
    pub async fn pause(&self, endpoints: &Endpoints, reason: PauseReason) -> Result<u64, OrderError> {
        let endpoints = self.named(endpoints)?;
        self.state.pause(&endpoints, reason).await?;
        Ok(endpoints.len() as u64)
    }

    /// Ends the pauses of endpoints; returns the number of endpoints that were paused.
    ///
    /// # Errors
    /// Returns an error if the tenant is unknown, or if state can't be written.
    pub async fn resume(&self, endpoints: &Endpoints) -> Result<u64, OrderError> {
        Ok(self.state.resume(&self.named(endpoints)?, Resume::Any).await?)
    }

    /// Sends a signed test delivery to the URL of a type, or to all of the tenant's URLs if no type is named. Returns
    /// the result of the test, or a list of results if no type is named.
    ///
    /// # Errors
    /// Returns an error if too many tests run, if the tenant is unknown, if no URL is set, or if state can't be read.
    pub async fn test(&self, endpoints: &Endpoints) -> Result<Value, OrderError> {
        let _place = self.testing.try_acquire().map_err(|_| OrderError::Busy)?;
        let config = self.config.load_full();
        let team = config.teams.get(&endpoints.tenant).ok_or(OrderError::UnknownTenant)?;
        let mut tests = Vec::new();
        for Endpoint { kind, .. } in self.named(endpoints)? {
            if let Some(url) = self.url(&endpoints.tenant, team, kind).await? {
                tests.push(async move { tested(kind, &self.send_test(team, kind, &url).await) });
            }
        }
        let mut tests = join_all(tests).await;
        match endpoints.kind {
            _ if tests.is_empty() => Err(OrderError::NoUrl),
            Some(_) => Ok(tests.remove(0)),
            None => Ok(json!({ "tests": tests })),
        }
    }

    /// Deletes a dead letter.
    ///
    /// # Errors
    /// Returns an error if no entry has this id, if the entry is not a dead letter, or if state can't be written.
    pub async fn delete(&self, id: &str) -> Result<(), OrderError> {
        let id: DeliveryId = id.parse().map_err(|_| OrderError::NotFound)?;
        match self.state.delete(id).await? {
            Deleted::Done => Ok(()),
            Deleted::NotDead => Err(OrderError::NotDead),
            Deleted::Unknown => Err(OrderError::NotFound),
        }
    }

    fn named(&self, endpoints: &Endpoints) -> Result<Vec<Endpoint>, OrderError> {
        let Endpoints { tenant, kind } = endpoints;
        if !self.config.load().teams.contains_key(tenant) {
            return Err(OrderError::UnknownTenant);
        }
        let kinds = kind.map_or_else(|| CallbackType::ALL.to_vec(), |kind| vec![kind]);
        Ok(kinds.into_iter().map(|kind| Endpoint { tenant: tenant.clone(), kind }).collect())
    }
}

fn tested(kind: CallbackType, attempt: &AttemptRecord) -> Value {
    let mut shown = shown_result(attempt);
    shown["type"] = kind.as_str().into();
    shown["delivered"] = attempt.result.is_success().into();
    shown
}
