//! Sends deliveries when they become due.
//!
//! Invariants: a failed delivery is repeated by the schedule, and then becomes a dead letter; a delivery whose URL
//! can't be read waits, and the wait counts as no attempt.

use super::events::{Attempt, Note};
use super::retry;
use super::service::{Callbacks, REST};
use super::webhook_client::Sent;
use crate::base::tasks::Tasks;
use crate::state::{AttemptError, Conclusion, Delivery, DeliveryOutcome, StateError};
use std::sync::Arc;
use std::time::Duration;

/// The lease of a delivery: no other node sends it during the lookup of the URL, an attempt of at most 32 s, and the
/// storing of its outcome.
const LEASE: Duration = Duration::from_secs(60);

/// The longest time for the lookup of a team's URL.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest delay until a due delivery is noticed.
const TICK: Duration = Duration::from_millis(250);

/// The largest number of attempts to store an outcome. If all fail, the lease ends, and the delivery is sent again.
const NOTE_ATTEMPTS: u32 = 5;

impl Callbacks {
    /// Sends deliveries when they become due, each in a task of its own. Never returns.
    pub(super) async fn dispatch(self: &Arc<Self>, tasks: &Tasks) {
        let mut only_full = false;
        loop {
            let config = self.config.load_full();
            let teams = config.teams.keys().filter(|team| !(self.hooks.is_suspended)(team));
            let wanted = self.concurrency.free(teams, only_full);
            let claimed = if wanted.is_empty() { Ok(Vec::new()) } else { self.state.claim(&wanted, LEASE).await };
            match claimed {
                Ok(claimed) => {
                    self.concurrency.take(&wanted, &claimed);
                    for delivery in claimed {
                        let callbacks = Arc::clone(self);
                        tasks.spawn(async move { callbacks.deliver(delivery).await });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot look up deliveries that are due; will retry");
                    tokio::time::sleep(REST).await;
                }
            }
            only_full = tokio::select! {
                () = self.concurrency.freed.notified() => true,
                () = self.state.work() => false,
                () = tokio::time::sleep(TICK) => false,
            };
        }
    }

    async fn deliver(&self, delivery: Delivery) {
        let tenant = &delivery.tenant;
        let sent = self.send(&delivery).await;
        let (attempt, conclusion) = match &sent {
            Ok(sent) => {
                (self.hooks.note)(Note::Sent(tenant, delivery.kind, &sent.attempt));
                let (attempt, outcome) = self.after(&delivery, sent);
                (Some(attempt), Conclusion { outcome, attempt: Some(sent.attempt) })
            }
            Err(error) => {
                tracing::warn!(%tenant, %error, "cannot read a callback URL from state; its deliveries wait");
                tokio::time::sleep(REST).await;
                (None, DeliveryOutcome::Untried.into())
            }
        };
        self.note_end(&delivery, conclusion).await;
        // The metric is counted after the outcome was stored, so that a reader of the metric also finds the outcome.
        if let Some(attempt) = attempt {
            (self.hooks.note)(Note::Attempted(tenant, attempt));
        }
        self.concurrency.give_back(tenant, attempt.map(|attempt| attempt == Attempt::Delivered));
    }

    fn after(&self, delivery: &Delivery, sent: &Sent) -> (Attempt, DeliveryOutcome) {
        let (tenant, id, result) = (&delivery.tenant, delivery.id, sent.attempt.result);
        if result.is_success() {
            return (Attempt::Delivered, DeliveryOutcome::Delivered);
        }
        tracing::debug!(%tenant, %id, attempts = delivery.attempts, %result, "a delivery failed");
        if delivery.is_probe {
            return (Attempt::Failed, DeliveryOutcome::Probed);
        }
        let scheduled = delivery.attempts.saturating_sub(delivery.probes);
        match retry::wait(&self.config.load().retry, scheduled, sent.retry_after) {
            Some(wait) => (Attempt::Failed, DeliveryOutcome::Retry(self.clock.wall() + wait)),
            None => {
                tracing::warn!(%tenant, %id, %result, "the last attempt at a callback failed: it is a dead letter; replay it once the endpoint works");
                (Attempt::Dead, DeliveryOutcome::Dead)
            }
        }
    }

    async fn note_end(&self, delivery: &Delivery, conclusion: Conclusion) {
        let tenant = &delivery.tenant;
        for left in (0..NOTE_ATTEMPTS).rev() {
            match self.state.conclude(delivery, conclusion).await {
                Ok(()) => return,
                Err(_) if left > 0 => tokio::time::sleep(REST).await,
                Err(error) => {
                    tracing::error!(%tenant, id = %delivery.id, %error, "cannot store the outcome of a delivery: it will be sent again");
                }
            }
        }
    }

    /// Makes one attempt at a delivery.
    ///
    /// # Errors
    /// Returns an error if the URL could not be read from state. Then no attempt was made.
    async fn send(&self, delivery: &Delivery) -> Result<Sent, StateError> {
        let (config, client) = (self.config.load_full(), self.client.load_full());
        // The team was removed from the configuration after the delivery was claimed.
        let Some(team) = config.teams.get(&delivery.tenant) else { return Ok(client.unsent(AttemptError::NoUrl)) };
        let url = tokio::time::timeout(LOOK_UP_TIMEOUT, self.url(&delivery.tenant, team, delivery.kind)).await;
        let Some(url) = url.unwrap_or(Err(StateError::Unavailable))? else {
            return Ok(client.unsent(AttemptError::NoUrl));
        };
        let message = (&*delivery.id.to_string(), delivery.body.clone());
        Ok(client.send(team, config.timeout, &url, message).await)
    }

    /// Turns queued deliveries to paused endpoints into dead letters once they are older than all waits of the retry
    /// schedule together. Deliveries age during a pause.
    pub(super) async fn expire_paused(&self) {
        let age = self.config.load().retry.iter().sum();
        match self.state.expire_paused(age).await {
            Ok(dead) => {
                for tenant in dead {
                    tracing::warn!(%tenant, "a callback waited too long for its paused endpoint and is now a dead letter: replay it when the endpoint works");
                    (self.hooks.note)(Note::Attempted(&tenant, Attempt::Dead));
                }
            }
            Err(error) => tracing::warn!(%error, "cannot look up old deliveries to paused endpoints; will retry"),
        }
    }
}
