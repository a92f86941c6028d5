//! Sends deliveries when they become due.
//!
//! Invariants: a failed delivery is repeated by the schedule, and then becomes a dead letter; a delivery whose URL
//! can't be read waits, which counts as no attempt.

use super::events::{Attempt, Note};
use super::retry;
use super::service::{Callbacks, REST};
use super::webhook_client::Failure;
use crate::base::tasks::Tasks;
use crate::state::{Delivery, DeliveryOutcome, StateError};
use std::sync::Arc;
use std::time::Duration;

/// The lease of a delivery: no other node sends it during the lookup of the URL, an attempt of at most 32 s, and the
/// storing of its outcome.
const LEASE: Duration = Duration::from_secs(60);

/// The longest lookup of a URL.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest delay until a due delivery is noticed.
const TICK: Duration = Duration::from_millis(250);

/// The attempts to store an outcome; after them the lease ends, and the delivery is made again.
const NOTE_ATTEMPTS: u32 = 5;

/// The reason why a delivery was not sent.
enum Unsent {
    /// State did not return the URL: nothing was attempted.
    NotAttempted(StateError),
    /// The attempt failed.
    Failed(Failure),
}

impl Callbacks {
    /// Sends deliveries when they become due, for ever; each in a task of its own.
    pub(super) async fn dispatch(self: &Arc<Self>, tasks: &Tasks) {
        let mut only_full = false;
        loop {
            let config = self.config.load_full();
            let wanted = self.concurrency.free(config.teams.keys(), only_full);
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
        let (attempt, outcome) = match &sent {
            Ok(()) => (Some(Attempt::Delivered), DeliveryOutcome::Delivered),
            Err(Unsent::NotAttempted(error)) => {
                tracing::warn!(%tenant, %error, "cannot read a callback URL from state; its deliveries wait");
                tokio::time::sleep(REST).await;
                (None, DeliveryOutcome::Untried)
            }
            Err(Unsent::Failed(failure)) => {
                tracing::debug!(%tenant, id = %delivery.id, attempts = delivery.attempts, %failure, "a delivery failed");
                self.after_failure(&delivery, *failure)
            }
        };
        self.note_end(&delivery, outcome).await;
        // The metric is counted after the outcome was stored, so that a reader of the metric also finds the outcome.
        if let Some(attempt) = attempt {
            (self.hooks.note)(Note::Attempted(tenant, attempt));
        }
        self.concurrency.give_back(tenant, sent.is_ok());
    }

    fn after_failure(&self, delivery: &Delivery, failure: Failure) -> (Option<Attempt>, DeliveryOutcome) {
        let schedule = &self.config.load().retry;
        match retry::wait(schedule, delivery.attempts, failure.retry_after()) {
            Some(wait) => (Some(Attempt::Failed), DeliveryOutcome::Retry(self.clock.wall() + wait)),
            None => {
                tracing::warn!(tenant = %delivery.tenant, id = %delivery.id, "a callback is a dead letter now");
                (Some(Attempt::Dead), DeliveryOutcome::Dead)
            }
        }
    }

    async fn note_end(&self, delivery: &Delivery, outcome: DeliveryOutcome) {
        let tenant = &delivery.tenant;
        for left in (0..NOTE_ATTEMPTS).rev() {
            match self.state.conclude(delivery, outcome).await {
                Ok(()) => return,
                Err(_) if left > 0 => tokio::time::sleep(REST).await,
                Err(error) => {
                    tracing::error!(%tenant, id = %delivery.id, %error, "cannot store the outcome of a delivery: it will be sent again");
                }
            }
        }
    }

    async fn send(&self, delivery: &Delivery) -> Result<(), Unsent> {
        let config = self.config.load_full();
        // The team was configured when the delivery was claimed.
        let team = config.teams.get(&delivery.tenant).ok_or(Unsent::Failed(Failure::NoUrl))?;
        let url = tokio::time::timeout(LOOK_UP_TIMEOUT, self.url(&delivery.tenant, team, delivery.kind)).await;
        let url = url.unwrap_or(Err(StateError::Unavailable)).map_err(Unsent::NotAttempted)?;
        let url = url.ok_or(Unsent::Failed(Failure::NoUrl))?;
        let client = self.client.load_full();
        let message = (&*delivery.id.to_string(), delivery.body.clone());
        client.send(team, config.timeout, &url, message).await.map_err(Unsent::Failed)
    }
}
