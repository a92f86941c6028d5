//! Carries out operators' orders: purges stored answers, erases persons, and replays, pauses and tests callbacks.

use super::answer::Refusal;
use super::outcome::Outcome;
use crate::base::auth_failures::AuthFailures;
use crate::base::name::TenantName;
use crate::cache::{Cache, Change, NodeTaken, Removed};
use crate::callback::{Callbacks, Endpoints};
use crate::iluma::person::{Persons, Tag};
use crate::state::{
    AuditLog, Erased, ErasedCounts, Erasures, NodeOutcome, NodeState, PauseReason, Registry, Replay, State,
};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A function that returns the rupiah that a team has spent of its budget this month.
pub struct BudgetUse(Box<dyn Fn(&TenantName) -> u64 + Send + Sync>);

impl BudgetUse {
    /// Wraps a function that returns the cost of a team's calls this month, in rupiah.
    pub fn new(used: impl Fn(&TenantName) -> u64 + Send + Sync + 'static) -> Self {
        Self(Box::new(used))
    }

    pub(super) fn of(&self, tenant: &TenantName) -> u64 {
        (self.0)(tenant)
    }
}

impl std::fmt::Debug for BudgetUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BudgetUse(…)")
    }
}

/// The parts that orders change or read, and the use of budgets, which the list of teams shows.
#[derive(Debug)]
pub struct Orders {
    /// The stored answers.
    pub cache: Arc<Cache>,
    /// Durable state: owners, callbacks and deliveries.
    pub state: State,
    /// Deliveries and endpoints.
    pub callbacks: Arc<Callbacks>,
    /// The counters and limits of wrong credentials, by the client's address.
    pub failures: AuthFailures,
    /// The audit log, which has every order.
    pub audit: AuditLog,
    /// The receipts of erasures.
    pub erasures: Erasures,
    /// This node's name.
    pub node: String,
    /// Teams' keys and suspensions.
    pub registry: Registry,
    /// The part that makes the person tags of the person whom an order to erase names.
    pub persons: Persons,
    /// The use of each team's budget.
    pub budgets: BudgetUse,
}

impl Orders {
    pub(super) async fn purge(&self, changes: &[Change]) -> Outcome {
        let mut removed = Removed::default();
        for change in changes {
            removed = removed.and(self.cache.change(change).await);
        }
        purged(removed, false)
    }

    /// Counts the entries that a purge would remove.
    pub(super) async fn count_purge(&self, changes: &[Change]) -> Outcome {
        let mut counted = Removed::default();
        for change in changes {
            counted = counted.and(self.cache.count(change).await);
        }
        purged(counted, true)
    }

    pub(super) async fn erase(&self, tags: BTreeSet<Tag>) -> Outcome {
        let persons: Vec<_> = tags.iter().copied().collect();
        let Removed { memory, disk, redis, nodes, mut left } = self.cache.change(&Change::Erased(tags)).await;
        let erased = self.state.erase(&persons).await.unwrap_or_else(|_| {
            left.push("state".to_owned());
            Erased::default()
        });
        let Erased { owners, callbacks, deliveries, answers } = erased;
        let removed = ErasedCounts { answers, callbacks, deliveries, disk, memory, owners, redis };
        let nodes = node_outcomes(nodes, &self.node, left.is_empty());
        let (mut receipt, written) = self.erasures.note(removed, nodes, left.clone(), &persons).await;
        if written.is_err() {
            tracing::error!("the receipt of an erasure can't be written: give the order again");
            left.push("receipt".to_owned());
            receipt.left.clone_from(&left);
        }
        Outcome::removed(json!(removed), &receipt, left)
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

/// The answer to a purge.
#[derive(Debug, Serialize)]
struct Purged {
    /// True if the entries were counted and not removed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    removed: PurgedCounts,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left: Vec<String>,
}

/// The numbers of stored answers that were removed, or counted, on each level of the cache.
#[derive(Debug, Clone, Copy, Serialize)]
struct PurgedCounts {
    disk: u64,
    memory: u64,
    redis: u64,
}

fn purged(removed: Removed, dry_run: bool) -> Outcome {
    let Removed { memory, disk, redis, left, nodes: _ } = removed;
    let counts = PurgedCounts { disk, memory, redis };
    Outcome::removed(json!(counts), &Purged { dry_run, removed: counts, left: left.clone() }, left)
}

/// Returns for each node if it has applied an erasure. If `nodes` is empty, this node, `own`, is the only node; it has
/// applied the erasure if `is_whole` is true.
fn node_outcomes(nodes: Vec<NodeTaken>, own: &str, is_whole: bool) -> Vec<NodeOutcome> {
    let state = |is_done: bool| if is_done { NodeState::Done } else { NodeState::Left };
    if nodes.is_empty() {
        return vec![NodeOutcome { name: own.to_owned(), state: state(is_whole) }];
    }
    nodes.into_iter().map(|NodeTaken { name, is_done }| NodeOutcome { name, state: state(is_done) }).collect()
}
