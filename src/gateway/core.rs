//! The gateway: the shared parts of all requests, and their lifetime.

use super::claim;
use super::fetch_result::{self, Fetched, OvertakingCallbacks};
use super::owners::Owners;
use super::request_log::Telemetry;
use super::runtime::{Environment, RuntimeConfig};
use crate::base::auth_failures::AuthFailures;
use crate::base::clock::Clock;
use crate::base::keyring::Keyring;
use crate::base::name::TenantName;
use crate::base::tasks::Tasks;
use crate::cache::{Cache, DiskLevel, L2Choice, NodeIdentity, SingleFlight};
use crate::callback::Callbacks;
use crate::config::Settings;
use crate::iluma::person::Persons;
use crate::ledger::Ledger;
use crate::limit::Nodes;
use crate::pages::Sessions;
use crate::redis::RedisClient;
use crate::state::{AuditLog, ClaimEnd, ClaimId, Holder, Registry, SessionKind, State};
use arc_swap::ArcSwap;
use secrecy::ExposeSecret as _;
use std::sync::Arc;

/// The parts of the process that serve requests.
#[derive(Debug)]
pub struct Gateway {
    pub(super) config: ArcSwap<RuntimeConfig>,
    pub(super) cache: Arc<Cache>,
    pub(super) callbacks: Arc<Callbacks>,
    pub(super) owners: Owners,
    pub(super) state: State,
    /// This process, as the holder of claims of idempotency keys.
    pub(super) holder: Holder,
    pub(super) flights: SingleFlight<Fetched>,
    pub(super) overtaking: OvertakingCallbacks,
    pub(super) persons: Persons,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) ledger: Ledger,
    pub(super) registry: Registry,
    pub(super) audit: AuditLog,
    pub(super) failures: AuthFailures,
    /// The team portal's sessions.
    pub(super) sessions: Sessions,
    nodes: Option<Nodes>,
    pub(super) clock: Clock,
    /// The tasks of calls that may outlive their requests.
    pub(super) tasks: Tasks,
    /// The tasks of upstream connections that serve several requests.
    connections: Tasks,
}

/// The parts that a gateway shares with the other listeners.
#[derive(Debug)]
pub struct Parts {
    /// The Redis in which nodes share the cache; `None` if the cache is not in Redis.
    pub redis: Option<RedisClient>,
    /// The cache's level on disk, if the cache has one.
    pub disk: Option<DiskLevel>,
    /// The part that makes person tags.
    pub persons: Persons,
    /// The service for callbacks: inbox, deliveries and the teams' URLs.
    pub callbacks: Arc<Callbacks>,
    /// Durable state.
    pub state: State,
    /// Teams' keys.
    pub registry: Registry,
    /// The audit log.
    pub audit: AuditLog,
    /// The numbers of wrong keys, counted by client address.
    pub failures: AuthFailures,
    /// The ledger.
    pub ledger: Ledger,
    /// The connection to the other nodes for shared limits; `None` if there is only this node.
    pub nodes: Option<Nodes>,
}

impl Gateway {
    /// Builds a gateway from settings. `tasks` runs the calls that outlive their requests.
    ///
    /// # Errors
    /// Returns an error if the machine has no usable trust store for upstream's certificate.
    pub fn new(settings: &Settings, telemetry: Telemetry, tasks: Tasks, parts: Parts) -> Result<Self, rustls::Error> {
        let root = settings.state.root_key.expose_secret();
        let identity = NodeIdentity { name: &settings.node, id: parts.ledger.node() };
        let keyring = Keyring::new(&settings.state.encryption_keys);
        let l2 = match (parts.redis, parts.disk) {
            (Some(redis), _) => L2Choice::Redis(redis, keyring, identity),
            (None, Some(disk)) => L2Choice::Disk(disk),
            (None, None) => L2Choice::None,
        };
        let clock = telemetry.clock.clone();
        let connections = Tasks::new();
        let environment = Environment {
            metrics: &telemetry.metrics,
            clock: &clock,
            tasks: &connections,
            ledger: &parts.ledger,
            nodes: parts.nodes.as_ref(),
        };
        let config = RuntimeConfig::new(settings, None, environment)?;
        let sessions = Sessions::new(SessionKind::Portal, parts.state.clone(), clock.clone());
        Ok(Self {
            config: ArcSwap::from_pointee(config),
            cache: Arc::new(Cache::new(&settings.cache, &settings.upstream.base_url, root, l2, clock.clone())),
            callbacks: parts.callbacks,
            owners: Owners::new(parts.state.clone(), settings.state.retention.owners),
            state: parts.state,
            holder: Holder::new(parts.ledger.node()),
            flights: SingleFlight::new(),
            overtaking: fetch_result::no_overtaking_callbacks(),
            persons: parts.persons,
            telemetry: Arc::new(telemetry),
            ledger: parts.ledger,
            registry: parts.registry,
            audit: parts.audit,
            failures: parts.failures,
            sessions,
            nodes: parts.nodes,
            clock,
            tasks,
            connections,
        })
    }

    /// Applies new settings. Requests in flight finish under the old settings. The cache keeps its entries, and
    /// counters and limits continue.
    ///
    /// # Errors
    /// Returns the errors of [`Gateway::new`]. After an error everything is unchanged.
    pub fn reload(&self, settings: &Settings) -> Result<(), rustls::Error> {
        let previous = self.config.load_full();
        let environment = Environment {
            metrics: &self.telemetry.metrics,
            clock: &self.clock,
            tasks: &self.connections,
            ledger: &self.ledger,
            nodes: self.nodes.as_ref(),
        };
        let config = RuntimeConfig::new(settings, Some(&previous), environment)?;
        self.ledger.reload(settings);
        self.cache.reload(&settings.cache, &settings.upstream.base_url);
        self.config.store(Arc::new(config));
        Ok(())
    }

    /// Closes the connections to Iluma that carry no request, before the process ends.
    pub fn close(&self) {
        self.config.load().upstream.close();
    }

    /// Closes idle connections to Iluma, and reports numbers that change with time to metrics. The caller does this at
    /// intervals.
    pub fn sweep(&self) {
        let config = self.config.load();
        config.upstream.sweep();
        config.refund(&self.ledger);
        config.report();
    }

    /// Exchanges the use of limits with other nodes, if there are any. The caller does this once a second.
    pub async fn heartbeat(&self) {
        let config = self.config.load_full();
        config.limits.heartbeat().await;
    }

    /// Waits for changes of the endpoints from which other nodes are backing off, and applies each change here. Goes on
    /// until the future is dropped. Returns at once if there are no other nodes.
    pub async fn follow_backoff(&self) {
        let Some(nodes) = &self.nodes else { return };
        let mut news = nodes.news();
        loop {
            let config = self.config.load_full();
            if !config.limits.hear(&mut news).await {
                return;
            }
            config.report();
        }
    }

    /// Returns the cost in rupiah of a team's calls this month. Calls that may still be billable count too.
    #[must_use]
    pub fn budget_used(&self, tenant: &TenantName) -> u64 {
        let config = self.config.load();
        config.refund(&self.ledger);
        config.budget_used(tenant)
    }

    /// Leaves the group of nodes, so that the other nodes take over this node's part of the limits at once.
    pub async fn leave(&self) {
        let config = self.config.load_full();
        config.limits.leave().await;
    }

    /// Writes the record owners that wait to be written, until the future is dropped.
    pub async fn keep_owners(&self) {
        self.owners.keep().await;
    }

    /// Frees the idempotency keys of calls that were settled as not billable, until the future is dropped.
    pub async fn free_claims(&self) {
        loop {
            for claim in self.ledger.freed().await {
                claim::write_end(&self.state, &ClaimId::of_bytes(&claim), &ClaimEnd::Free).await;
            }
        }
    }

    /// Returns the number of record owners that this process remembers as written.
    #[must_use]
    pub fn known_owners(&self) -> u64 {
        self.owners.known()
    }

    /// Returns the cache.
    #[must_use]
    pub const fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }
}
