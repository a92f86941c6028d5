//! The membership of a node among the nodes that share a Redis.
//!
//! Invariants: one incarnation (one start of a process) at a time holds an identity, which is in a node's own database,
//! under a lease in Redis; a process whose identity another one holds publishes nothing; a new encryption key encrypts
//! only once every live node knows it.

use super::error::StateError;
use super::times::length;
use crate::base::clock::Clock;
use crate::base::keyring::Keyring;
use crate::redis::scripts::node as scripts;
use crate::redis::{Budget, RedisClient};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// The time that an identity stays with an incarnation that stopped its heartbeats.
pub const IDENTITY_LEASE: Duration = Duration::from_secs(5);
/// The interval of heartbeats: four may be lost.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The interval of attempts to get an identity whose lease has not ended.
const RETRY: Duration = Duration::from_millis(200);
/// The longest time of a heartbeat.
const PATIENCE: Duration = Duration::from_secs(2);

/// The node's membership. Clones share it.
#[derive(Debug, Clone)]
pub struct Membership(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    link: RedisClient,
    id: String,
    name: String,
    incarnation: String,
    keyring: Keyring,
    clock: Clock,
    standing: Mutex<Standing>,
    members: Mutex<Vec<String>>,
}

/// The claim of a process on its node's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Redis was not asked yet, because it is out.
    Unverified,
    /// This incarnation holds the identity.
    Held,
    /// Another incarnation holds the identity: this process, or the other one, runs on a copy of the database.
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

/// The answer to a heartbeat: true if this incarnation holds the identity, the holder's name, the rest of its lease,
/// and the names and keys of the live nodes.
type Answer = (bool, String, u64, Vec<String>);

impl Membership {
    /// Makes the membership of the node with this identity and name. `keyring` receives the keys that the other nodes
    /// know.
    #[must_use]
    pub fn new(link: RedisClient, (id, name): (&str, &str), keyring: Keyring, clock: Clock) -> Self {
        keyring.write_with_known(&[]);
        Self(Arc::new(Inner {
            link,
            id: id.to_owned(),
            name: name.to_owned(),
            incarnation: uuid::Uuid::new_v4().simple().to_string(),
            keyring,
            clock,
            standing: Mutex::new(Standing::Unverified),
            members: Mutex::default(),
        }))
    }

    /// Takes the identity, and waits for the lease of a predecessor that ended without giving it back. With Redis out
    /// it returns at once, and a later heartbeat verifies it.
    ///
    /// # Errors
    /// Returns an error if another incarnation goes on renewing its lease.
    pub async fn join(&self) -> Result<(), IdentityTaken> {
        let end = tokio::time::Instant::now() + IDENTITY_LEASE + HEARTBEAT;
        loop {
            match self.heartbeat().await {
                Ok(Standing::Held | Standing::Unverified) | Err(_) => return Ok(()),
                Ok(Standing::Cloned { other }) if tokio::time::Instant::now() >= end => {
                    return Err(IdentityTaken { own: self.0.name.clone(), other });
                }
                Ok(Standing::Cloned { .. }) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// Renews the lease until the future is dropped.
    pub async fn keep(&self) {
        let mut up = self.0.link.watch();
        loop {
            // A heartbeat follows at once when Redis returns: nothing may be written with a key that other nodes do not
            // know.
            let _ = tokio::time::timeout(HEARTBEAT, up.changed()).await;
            // The client has logged the reason; the next heartbeat tries again.
            let _ = self.heartbeat().await;
        }
    }

    /// Renews the lease, and reads which nodes are live and which keys they know.
    async fn heartbeat(&self) -> Result<Standing, StateError> {
        let (held, holder, _, there) = self.tell(IDENTITY_LEASE).await?;
        let standing = if held { Standing::Held } else { Standing::Cloned { other: holder } };
        let before = std::mem::replace(&mut *self.0.standing.lock(), standing.clone());
        if before != standing {
            self.log(&standing);
        }
        if held {
            let (names, keys): (Vec<_>, Vec<_>) =
                there.as_chunks().0.iter().map(|[name, keys]| (name.clone(), keys.clone())).unzip();
            self.0.keyring.write_with_known(&keys);
            *self.0.members.lock() = names;
        }
        Ok(standing)
    }

    fn log(&self, standing: &Standing) {
        let node = &self.0.name;
        match standing {
            Standing::Unverified => {}
            Standing::Held => tracing::info!(node, id = self.0.id, "this node holds the lease on its identity"),
            Standing::Cloned { other } => tracing::error!(
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

    /// Returns the process' claim on its identity according to the last heartbeat.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.0.standing.lock().clone()
    }

    /// Returns the names of the live nodes at the last heartbeat.
    #[must_use]
    pub fn members(&self) -> Vec<String> {
        self.0.members.lock().clone()
    }

    async fn tell(&self, lease: Duration) -> Result<Answer, StateError> {
        let inner = &self.0;
        let mut call = scripts::HEARTBEAT.key(inner.link.keys().nodes());
        call.arg(&inner.id).arg(&inner.incarnation).arg(&inner.name);
        call.arg(inner.keyring.known()).arg(length(lease)).arg(length(inner.clock.added()));
        Ok(inner.link.script(&Budget::of(PATIENCE), &call).await?)
    }
}
