//! The data that operators' orders change: stored answers are purged, persons are erased, callbacks are replayed.

use super::answer::Refusal;
use super::outcome::Outcome;
use crate::base::auth_failures::AuthFailures;
use crate::cache::{Cache, Change, Removed};
use crate::callback::{Callbacks, Endpoints};
use crate::iluma::person::{Persons, Tag};
use crate::state::{AuditLog, Erased, PauseReason, Registry, Replay, State};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The parts that orders change.
#[derive(Debug)]
pub struct Orders {
    /// The stored answers.
    pub cache: Arc<Cache>,
    /// Durable state: owners, callbacks and deliveries.
    pub state: State,
    /// Deliveries and endpoints.
    pub callbacks: Arc<Callbacks>,
    /// The clients that came with wrong tokens.
    pub failures: AuthFailures,
    /// The audit log, which has every order.
    pub audit: AuditLog,
    /// Teams' keys and suspensions.
    pub registry: Registry,
    /// Finds the person that an order names.
    pub persons: Persons,
}

impl Orders {
    pub(super) async fn purge(&self, changes: &[Change]) -> Outcome {
        let mut removed = Removed::default();
        for change in changes {
            removed = removed.and(self.cache.change(change).await);
        }
        let Removed { memory, disk, redis, left } = removed;
        Outcome::removed(json!({ "memory": memory, "disk": disk, "redis": redis }), left)
    }

    pub(super) async fn erase(&self, tags: BTreeSet<Tag>) -> Outcome {
        let all: Vec<_> = tags.iter().copied().collect();
        let Removed { memory, disk, redis, mut left } = self.cache.change(&Change::Erased(tags)).await;
        let erased = self.state.erase(&all).await.unwrap_or_else(|_| {
            left.push("state".to_owned());
            Erased::default()
        });
        let Erased { owners, callbacks, deliveries } = erased;
        let counts = json!({
            "memory": memory, "disk": disk, "redis": redis, "owners": owners, "callbacks": callbacks, "deliveries": deliveries,
        });
        Outcome::removed(counts, left)
    }

    pub(super) async fn replay(&self, what: Replay) -> Outcome {
        let replayed = self.callbacks.replay(what).await;
        Outcome::counted(replayed.map(|count| json!({ "replayed": count })).map_err(Refusal::from))
    }

    pub(super) async fn pause(&self, endpoints: &Endpoints) -> Outcome {
        let paused = self.callbacks.pause(endpoints, PauseReason::Operator).await;
        Outcome::counted(paused.map(|count| json!({ "paused": count })).map_err(Refusal::from))
    }

    pub(super) async fn resume(&self, endpoints: &Endpoints) -> Outcome {
        let resumed = self.callbacks.resume(endpoints).await;
        Outcome::counted(resumed.map(|count| json!({ "resumed": count })).map_err(Refusal::from))
    }

    pub(super) async fn test(&self, endpoints: &Endpoints) -> Outcome {
        Outcome::counted(self.callbacks.test(endpoints).await.map_err(Refusal::from))
    }

    pub(super) async fn delete_dead_letter(&self, id: &str) -> Outcome {
        let deleted = self.callbacks.delete(id).await;
        Outcome::counted(deleted.map(|()| json!({ "deleted": 1 })).map_err(Refusal::from))
    }
}
