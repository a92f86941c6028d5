//! The membership of a node among the nodes that share a Redis.
//!
//! Invariants: a node's identity is in its own database, and one incarnation (one start of a process) at a time holds
//! it, under a lease in Redis; a process publishes nothing while another process holds its identity; a new encryption
//! key is used for encryption only when every live node knows it.

use super::error::StateError;
use super::times::length;
use crate::base::clock::Clock;
use crate::base::keyring::Keyring;
use crate::redis::scripts::node as scripts;
use crate::redis::{Budget, RedisClient};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// The lease of an identity. An incarnation that stops its heartbeats loses the identity after this time.
pub const IDENTITY_LEASE: Duration = Duration::from_secs(5);
/// The pause between heartbeats. The lease outlasts three lost heartbeats in a row, if each fails at once.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The interval of attempts to take an identity that another incarnation still holds.
const RETRY: Duration = Duration::from_millis(200);

/// The longest report in bytes: some hundred lines. The report of a healthy node has a few lines.
const LONGEST_REPORT: usize = 64 << 10;
/// The time for which a node is shown after its last heartbeat, unless it has left with [`leave`](Membership::leave).
const LONGEST_SILENCE: Duration = Duration::from_secs(600);

/// The membership of this node among the nodes that share a Redis. Clones share it.
#[derive(Debug, Clone)]
pub struct Membership(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    redis: RedisClient,
    id: String,
    name: String,
    incarnation: String,
    keyring: Keyring,
    clock: Clock,
    claim: Mutex<IdentityClaim>,
    members: Mutex<Vec<String>>,
    /// The report that heartbeats publish.
    report: Mutex<String>,
}

/// A node, as its last heartbeat has reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedNode {
    /// The node's identity.
    pub id: String,
    /// The node's name.
    pub name: String,
    /// The time since its last heartbeat.
    pub silent_for: Duration,
    /// The text of its report. It is empty if the report was too long, or if the node's version makes no reports.
    pub report: String,
}

impl ReportedNode {
    /// Returns true if the node's lease has not ended.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.silent_for < IDENTITY_LEASE
    }
}

/// The claim of a process on its node's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityClaim {
    /// No heartbeat has reached Redis yet.
    Unverified,
    /// This incarnation holds the identity.
    Held,
    /// Another incarnation holds the identity. Either the other process has ended before its lease, or one of the two
    /// processes runs on a copy of the other's database.
    Cloned {
        /// The name of the other node.
        other: String,
    },
}

/// The error for an identity that another process holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "node {own:?} runs on a copy of the state of node {other:?}, which is running: give every node a state.path of its \
     own, and delete the copied file (or stop the other node)"
)]
pub struct IdentityTaken {
    /// The name of this node.
    pub own: String,
    /// The name of the other node.
    pub other: String,
}

/// The answer to a heartbeat. Its members are: true if this incarnation holds the identity; the holder's name; the rest
/// of the holder's lease in milliseconds; and a flat list that has the name and then the keys of each live node.
type Answer = (bool, String, u64, Vec<String>);

impl Membership {
    /// Makes the membership of the node with this identity and this name. Each heartbeat informs `keyring` of the keys
    /// that the other nodes know.
    #[must_use]
    pub fn new(redis: RedisClient, (id, name): (&str, &str), keyring: Keyring, clock: Clock) -> Self {
        keyring.write_with_known(&[]);
        Self(Arc::new(Inner {
            redis,
            id: id.to_owned(),
            name: name.to_owned(),
            incarnation: uuid::Uuid::new_v4().simple().to_string(),
            keyring,
            clock,
            claim: Mutex::new(IdentityClaim::Unverified),
            members: Mutex::default(),
            report: Mutex::default(),
        }))
    }

    /// Takes the identity. If an earlier incarnation ended without giving the identity back, the call waits until the
    /// lease ends. While Redis is out, the call returns at once, and a later heartbeat verifies the identity.
    ///
    /// # Errors
    /// Returns an error if another incarnation keeps renewing its lease.
    pub async fn join(&self) -> Result<(), IdentityTaken> {
        let end = tokio::time::Instant::now() + IDENTITY_LEASE + HEARTBEAT;
        loop {
            match self.heartbeat().await {
                Ok(IdentityClaim::Held | IdentityClaim::Unverified) | Err(_) => return Ok(()),
                Ok(IdentityClaim::Cloned { other }) if tokio::time::Instant::now() >= end => {
                    return Err(IdentityTaken { own: self.0.name.clone(), other });
                }
                Ok(IdentityClaim::Cloned { .. }) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// Renews the lease until the future is dropped.
    pub async fn keep(&self) {
        let mut up = self.0.redis.watch();
        loop {
            // A heartbeat follows at once when Redis returns: nothing may be written with a key that other nodes do not
            // know.
            let _ = tokio::time::timeout(HEARTBEAT, up.changed()).await;
            // The client has logged the reason; the next heartbeat tries again.
            let _ = self.heartbeat().await;
        }
    }

    /// Renews the lease, and reads the names of the live nodes and the keys that they know.
    async fn heartbeat(&self) -> Result<IdentityClaim, StateError> {
        let (held, holder, _, there) = self.tell(IDENTITY_LEASE).await?;
        let claim = if held { IdentityClaim::Held } else { IdentityClaim::Cloned { other: holder } };
        let before = std::mem::replace(&mut *self.0.claim.lock(), claim.clone());
        if before != claim {
            self.log(&claim);
        }
        if held {
            let (names, keys): (Vec<_>, Vec<_>) =
                there.as_chunks().0.iter().map(|[name, keys]| (name.clone(), keys.clone())).unzip();
            self.0.keyring.write_with_known(&keys);
            *self.0.members.lock() = names;
        }
        Ok(claim)
    }

    fn log(&self, claim: &IdentityClaim) {
        let node = &self.0.name;
        match claim {
            IdentityClaim::Unverified => {}
            IdentityClaim::Held => tracing::info!(node, id = self.0.id, "this node holds the lease on its identity"),
            IdentityClaim::Cloned { other } => tracing::error!(
                node,
                other,
                id = self.0.id,
                "another process holds this node's identity: nothing is published until it ends; give every node a \
                 state.path of its own"
            ),
        }
    }

    /// Gives the identity back, so that a successor need not wait for the end of the lease.
    pub async fn leave(&self) {
        // If this fails, the lease ends by itself.
        let _ = self.tell(Duration::ZERO).await;
    }

    /// Returns this process' claim on the identity, as the last heartbeat found it.
    #[must_use]
    pub fn identity_claim(&self) -> IdentityClaim {
        self.0.claim.lock().clone()
    }

    /// Returns the names of the nodes that were live at the last heartbeat with which this process held its identity.
    #[must_use]
    pub fn members(&self) -> Vec<String> {
        self.0.members.lock().clone()
    }

    /// Returns this node's identity.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Sets the report that the next heartbeats publish. A report of more than 64 KiB is replaced by an empty text.
    pub fn report(&self, report: String) {
        *self.0.report.lock() = if report.len() <= LONGEST_REPORT { report } else { String::new() };
    }

    /// Returns the nodes whose last heartbeat is at most ten minutes old, sorted by name, with their reports.
    ///
    /// # Errors
    /// Returns an error if Redis is out.
    pub async fn reports(&self) -> Result<Vec<ReportedNode>, StateError> {
        let inner = &self.0;
        let mut call = scripts::REPORTS.key(inner.redis.keys().nodes());
        call.key(inner.redis.keys().node_reports());
        call.arg(length(IDENTITY_LEASE)).arg(length(LONGEST_SILENCE)).arg(length(inner.clock.added()));
        let found: Vec<(String, String, u64, String)> = inner.redis.script(&Budget::background(), &call).await?;
        let node =
            |(id, name, silent, report)| ReportedNode { id, name, silent_for: Duration::from_millis(silent), report };
        let mut nodes: Vec<_> = found.into_iter().map(node).collect();
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(nodes)
    }

    async fn tell(&self, lease: Duration) -> Result<Answer, StateError> {
        let inner = &self.0;
        let mut call = scripts::HEARTBEAT.key(inner.redis.keys().nodes());
        call.key(inner.redis.keys().node_reports());
        call.arg(&inner.id).arg(&inner.incarnation).arg(&inner.name);
        call.arg(inner.keyring.known()).arg(length(lease)).arg(length(inner.clock.added()));
        call.arg(&*inner.report.lock());
        Ok(inner.redis.script(&Budget::background(), &call).await?)
    }
}
