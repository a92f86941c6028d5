//! Collects the reports of all nodes: this node's current report, and the published reports of the other nodes.

use super::alarms::Raised;
use super::answer::Refusal;
use super::facts::Facts;
use super::node_report::{Build, NodeReport, Published};
use crate::base::clock::Clock;
use crate::base::moment;
use crate::state::Membership;
use futures_util::future::BoxFuture;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

/// The parts from which this node's report is made.
pub struct Collect {
    /// The function that returns the current facts about this node.
    pub facts: Box<dyn Fn() -> BoxFuture<'static, Facts> + Send + Sync>,
    /// This node's membership among the nodes that share a Redis; it publishes this node's report. `None` without
    /// Redis.
    pub membership: Option<Membership>,
    /// The version and the revision of the program.
    pub build: Build,
}

impl std::fmt::Debug for Collect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collect").field("build", &self.build).finish_non_exhaustive()
    }
}

/// This node, or another node that is registered in Redis.
#[derive(Debug)]
pub(super) struct KnownNode {
    pub(super) name: String,
    pub(super) is_live: bool,
    /// The time of the node's last heartbeat; for this node, the current time.
    pub(super) seen: String,
    pub(super) report: Option<Published>,
}

/// The source of the reports of all nodes.
#[derive(Debug)]
pub(super) struct NodeWatch {
    /// This node's name.
    node: String,
    clock: Clock,
    started: (SystemTime, Instant),
    collect: OnceLock<Collect>,
    raised: Raised,
}

impl NodeWatch {
    pub(super) fn new(node: &str, clock: Clock) -> Self {
        let started = (clock.wall(), clock.now());
        Self { node: node.to_owned(), clock, started, collect: OnceLock::new(), raised: Raised::default() }
    }

    /// Sets the parts from which this node's report is made.
    pub(super) fn collect_by(&self, collect: Collect) {
        // The start sets this once; a second `set` would change nothing.
        let _ = self.collect.set(collect);
    }

    /// Publishes this node's report to the other nodes with the next heartbeats. Does nothing without Redis.
    pub(super) async fn publish(&self) {
        let Some(collect) = self.collect.get() else { return };
        let Some(membership) = &collect.membership else { return };
        let published = self.own((collect.facts)().await, collect.build);
        membership.report(serde_json::to_string(&published).unwrap_or_default());
    }

    /// Returns this node and the other nodes in Redis, sorted by name. The flag is false if other nodes may be missing.
    /// Returns a refusal while this node is still starting.
    pub(super) async fn known(&self) -> Result<(Vec<KnownNode>, bool), Refusal> {
        let not_yet = || Refusal::Unavailable("the node has just started; try again".to_owned());
        let collect = self.collect.get().ok_or_else(not_yet)?;
        let mut facts = (collect.facts)().await;
        let now = facts.now;
        let (others, is_complete) = match &collect.membership {
            None => (Vec::new(), true),
            Some(membership) => match membership.reports().await {
                Ok(nodes) => (nodes.into_iter().filter(|node| node.id != membership.id()).collect(), true),
                Err(_) => (Vec::new(), false),
            },
        };
        let seen = |node: &crate::state::ReportedNode| now - node.silent_for;
        let silent = others.iter().filter(|node| !node.is_live());
        facts.silent_nodes = silent.map(|node| (node.name.clone(), seen(node))).collect();
        let own = KnownNode {
            name: self.node.clone(),
            is_live: true,
            seen: moment::seconds(now),
            report: Some(self.own(facts, collect.build)),
        };
        let known = others.iter().map(|node| KnownNode {
            name: node.name.clone(),
            is_live: node.is_live(),
            seen: moment::seconds(seen(node)),
            report: serde_json::from_str(&node.report).ok(),
        });
        let mut all: Vec<_> = std::iter::once(own).chain(known).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok((all, is_complete))
    }

    fn own(&self, facts: Facts, build: Build) -> Published {
        let (started, at) = self.started;
        let uptime = self.clock.now().saturating_duration_since(at);
        let alarms = self.raised.of(&facts, &self.node);
        Published { report: NodeReport::of(&facts, build, (started, uptime)), alarms }
    }
}
