//! The shared parts of the API's handlers.

use super::answer::Refusal;
use super::node_watch::NodeWatch;
use super::orders::Orders;
use super::tenants::ShownTenant;
use super::tokens::Tokens;
use crate::base::clock::Clock;
use crate::base::name::TenantName;
use crate::base::tasks::Tasks;
use crate::config::Settings;
use crate::ledger::Ledger;
use crate::pages::Sessions;
use crate::state::SessionKind;
use crate::telemetry::logs::LiveLines;
use crate::telemetry::metrics::Metrics;
use arc_swap::ArcSwap;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The parts that handlers use, and the active configuration.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) metrics: Metrics,
    pub(super) orders: Arc<Orders>,
    pub(super) ledger: Ledger,
    /// This node's name.
    pub(super) node: String,
    /// The tasks of running orders, including orders that continue after their client has disconnected.
    pub(super) running: Tasks,
    config: ArcSwap<AdminConfig>,
    /// The console's sessions.
    pub(super) sessions: Sessions,
    /// The live access log: subscribers get each line when it is written.
    pub(super) live: LiveLines,
    /// The reports of all nodes.
    pub(super) watch: NodeWatch,
    /// The number of reloads of the configuration. Each reload notifies the receivers.
    reloads: watch::Sender<u64>,
    /// The token that is cancelled when the drain begins.
    draining: CancellationToken,
}

/// The API's part of the configuration.
#[derive(Debug)]
pub(super) struct AdminConfig {
    pub(super) tokens: Tokens,
    /// The tenants, sorted by name, in the form that operators see.
    pub(super) tenants: Vec<ShownTenant>,
}

impl AdminConfig {
    fn new(settings: &Settings) -> Self {
        let tenants = settings.tenants.iter().map(|(name, tenant)| ShownTenant::new(name, tenant)).collect();
        Self { tokens: Tokens::new(&settings.admin.tokens), tenants }
    }
}

impl Context {
    pub(super) fn new(
        settings: &Settings,
        (metrics, live): (Metrics, LiveLines),
        orders: Orders,
        ledger: Ledger,
        clock: Clock,
    ) -> Self {
        Self {
            metrics,
            sessions: Sessions::new(SessionKind::Console, orders.state.clone(), clock.clone()),
            orders: Arc::new(orders),
            ledger,
            node: settings.node.clone(),
            running: Tasks::new(),
            config: ArcSwap::from_pointee(AdminConfig::new(settings)),
            live,
            watch: NodeWatch::new(&settings.node, clock),
            reloads: watch::Sender::new(0),
            draining: CancellationToken::new(),
        }
    }

    pub(super) fn reload(&self, settings: &Settings) {
        self.config.store(Arc::new(AdminConfig::new(settings)));
        self.reloads.send_modify(|count| *count += 1);
    }

    pub(super) fn drain(&self) {
        self.draining.cancel();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Returns a token that is cancelled when the drain begins.
    pub(super) fn until_drain(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Returns a receiver that is notified of each change of the configuration.
    pub(super) fn reloads(&self) -> watch::Receiver<u64> {
        self.reloads.subscribe()
    }

    pub(super) fn config(&self) -> Arc<AdminConfig> {
        self.config.load_full()
    }

    /// Returns the name of a tenant of the configuration, or a refusal if there is no such tenant.
    pub(super) fn tenant(&self, name: &str) -> Result<TenantName, Refusal> {
        let config = self.config.load();
        let known = config.tenants.iter().find(|tenant| tenant.name.as_str() == name);
        known.map(|tenant| tenant.name.clone()).ok_or(Refusal::UnknownTenant)
    }

    /// Refuses the name of a team that is not in the configuration and has no lines in the ledger. The lines of a
    /// removed team are kept longer than its callbacks, so a team without lines has no callbacks either.
    pub(super) async fn ever_known(&self, name: &TenantName) -> Result<(), Refusal> {
        if self.tenant(name.as_str()).is_ok() || self.ledger.has_lines(name).await.map_err(|_| Refusal::books())? {
            return Ok(());
        }
        Err(Refusal::UnknownTenant)
    }
}
