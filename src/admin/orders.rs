//! The data that operators' orders change: stored answers are purged, persons are erased, callbacks are replayed.

use super::answer::{Refusal, json};
use super::audit::Outcome;
use crate::cache::{Cache, Change, Removed};
use crate::iluma::person::{Persons, Tag};
use crate::state::{Erased, Replay, State};
use http::StatusCode;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The parts that orders change.
#[derive(Debug)]
pub struct Orders {
    /// The stored answers.
    pub cache: Arc<Cache>,
    /// Durable state: owners, callbacks and deliveries.
    pub state: State,
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
        Outcome::removed(serde_json::json!({ "memory": memory, "disk": disk, "redis": redis }), left)
    }

    pub(super) async fn erase(&self, tags: BTreeSet<Tag>) -> Outcome {
        let all: Vec<_> = tags.iter().copied().collect();
        let Removed { memory, disk, redis, mut left } = self.cache.change(&Change::Erased(tags)).await;
        let erased = self.state.erase(&all).await.unwrap_or_else(|_| {
            left.push("state".to_owned());
            Erased::default()
        });
        let Erased { owners, callbacks, deliveries } = erased;
        let counts = serde_json::json!({
            "memory": memory, "disk": disk, "redis": redis, "owners": owners, "callbacks": callbacks, "deliveries": deliveries,
        });
        Outcome::removed(counts, left)
    }

    pub(super) async fn replay(&self, what: Replay) -> Outcome {
        let (replayed, answer) = match self.state.replay(what).await {
            Ok(count) => {
                let counts = serde_json::json!({ "replayed": count });
                (counts.clone(), Ok(json(StatusCode::OK, &counts)))
            }
            Err(failed) => (serde_json::json!({}), Err(Refusal::Unavailable(failed.to_string()))),
        };
        Outcome { counts: replayed, left: Vec::new(), answer }
    }
}
