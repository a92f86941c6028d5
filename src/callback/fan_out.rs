//! The fan-out: one callback becomes a delivery for each of its recipients.
//!
//! Invariants: a callback is settled with all of its deliveries or not at all; while state can't name its owners, or
//! the ledger can't be written, the callback waits.

use super::config::CallbackConfig;
use super::events::{Arrived, Attempt, Note, Skipped};
use super::recipients::{Finding, find};
use super::service::{Callbacks, REST};
use crate::base::name::TenantName;
use crate::iluma::callback_body::CallbackBody;
use crate::iluma::callback_type::CallbackType;
use crate::state::{Copy, FanOutDecision, StateError, Waiting};
use futures_util::future::join_all;
use std::time::Duration;

/// The largest number of callbacks that are fanned out together: their deliveries share a write to disk.
const MOST_TOGETHER: usize = 64;

/// The lease of a callback: no other node fans it out during this time.
const LEASE: Duration = Duration::from_secs(30);

/// The longest delay between the time at which a waiting callback is due and its next examination.
const TICK: Duration = Duration::from_millis(250);

impl Callbacks {
    /// Fans out waiting callbacks. Never returns.
    pub(super) async fn fan_out_all(&self) {
        loop {
            let waiting = match self.state.waiting(MOST_TOGETHER, LEASE).await {
                Ok(waiting) => waiting,
                Err(error) => {
                    tracing::warn!(%error, "cannot read the waiting callbacks; will retry");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            };
            if waiting.is_empty() {
                let _ = tokio::time::timeout(TICK, self.state.arrival()).await;
                continue;
            }
            let settled = join_all(waiting.iter().map(|waiting| self.fan_out(waiting))).await;
            if let Some(error) = settled.into_iter().find_map(Result::err) {
                tracing::warn!(%error, "cannot fan out a callback; will retry");
                tokio::time::sleep(REST).await;
            }
        }
    }

    async fn fan_out(&self, waiting: &Waiting) -> Result<(), StateError> {
        let config = self.config.load_full();
        // The inbox stores only bodies that it could parse, so this does not happen.
        let Ok(body) = CallbackBody::parse(&waiting.body) else {
            return self.state.settle(waiting, FanOutDecision::Unowned, &config.outbox).await.map(|_| ());
        };
        let decision = match find(&config, waiting, &body, self.clock.wall()) {
            Finding::Overtaking(until) => FanOutDecision::Wait(until),
            Finding::Unowned => FanOutDecision::Unowned,
            Finding::Recipients(kind, recipients) => {
                let mut copies = Vec::with_capacity(recipients.len());
                for (tenant, reference) in recipients {
                    // A team without a URL gets no callbacks of this type.
                    if self.has_url(&config, &tenant, kind).await? {
                        let body = body.with(reference.as_deref());
                        copies.push(Copy { tenant, reference, body });
                    } else {
                        (self.hooks.note)(Note::Skipped(&tenant, Skipped::NoUrl));
                    }
                }
                FanOutDecision::Deliver(kind, copies)
            }
        };
        let is_due = !matches!(decision, FanOutDecision::Wait(_));
        if is_due && let Err(error) = self.tell_ledger(waiting, &body).await {
            // Without this, the callback would wait until its lease ends.
            let decision = FanOutDecision::Wait(self.clock.wall() + REST);
            let _ = self.state.settle(waiting, decision, &config.outbox).await;
            return Err(error);
        }
        for tenant in self.state.settle(waiting, decision, &config.outbox).await? {
            tracing::warn!(%tenant, "the team's outbox is full: a new callback is a dead letter; replay it once the endpoint works");
            (self.hooks.note)(Note::Attempted(&tenant, Attempt::Dead));
        }
        Ok(())
    }

    /// Passes a callback to the ledger, because the outcome of its call may be unknown. The flag that it passes is true
    /// if no answer has named the callback's record: then the answer to the call may be lost.
    async fn tell_ledger(&self, waiting: &Waiting, body: &CallbackBody) -> Result<(), StateError> {
        let (account, Some(id)) = (&waiting.account, &body.id) else { return Ok(()) };
        let is_unanswered = waiting.awaiting.is_empty() && self.state.owners(account, id).await?.is_empty();
        let (account, id, body) = (account.clone(), id.clone(), waiting.body.clone());
        (self.hooks.called_back)(Arrived { account, kind: waiting.kind, id, body }, is_unanswered).await
    }

    pub(super) async fn has_url(
        &self,
        config: &CallbackConfig,
        tenant: &TenantName,
        kind: CallbackType,
    ) -> Result<bool, StateError> {
        let Some(team) = config.teams.get(tenant) else { return Ok(false) };
        Ok(self.url(tenant, team, kind).await?.is_some())
    }
}
