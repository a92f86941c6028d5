//! The shared parts of the API's handlers.

use super::answer::Refusal;
use super::console::sessions::Sessions;
use super::orders::Orders;
use super::tenants::ShownTenant;
use super::tokens::Tokens;
use crate::base::clock::Clock;
use crate::base::name::TenantName;
use crate::base::tasks::Tasks;
use crate::config::Settings;
use crate::ledger::Ledger;
use crate::telemetry::metrics::Metrics;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The parts that handlers use, and the active configuration.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) metrics: Metrics,
    pub(super) orders: Arc<Orders>,
    pub(super) ledger: Ledger,
    /// This node's name.
    pub(super) node: String,
    /// The running orders, including those that continue after their client left.
    pub(super) running: Tasks,
    config: ArcSwap<AdminConfig>,
    /// The console's sessions.
    pub(super) sessions: Sessions,
    draining: AtomicBool,
}

/// The API's part of the configuration.
#[derive(Debug)]
pub(super) struct AdminConfig {
    pub(super) tokens: Tokens,
    /// The tenants by name, in the form that is shown.
    pub(super) tenants: Vec<ShownTenant>,
}

impl AdminConfig {
    fn new(settings: &Settings) -> Self {
        let tenants = settings.tenants.iter().map(|(name, tenant)| ShownTenant::new(name, tenant)).collect();
        Self { tokens: Tokens::new(&settings.admin.tokens), tenants }
    }
}

impl Context {
    pub(super) fn new(settings: &Settings, metrics: Metrics, orders: Orders, ledger: Ledger, clock: Clock) -> Self {
        Self {
            metrics,
            orders: Arc::new(orders),
            ledger,
            node: settings.node.clone(),
            running: Tasks::new(),
            config: ArcSwap::from_pointee(AdminConfig::new(settings)),
            sessions: Sessions::new(clock),
            draining: AtomicBool::new(false),
        }
    }

    pub(super) fn reload(&self, settings: &Settings) {
        self.config.store(Arc::new(AdminConfig::new(settings)));
    }

    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(super) fn config(&self) -> Arc<AdminConfig> {
        self.config.load_full()
    }

    /// Returns a tenant of the configuration by its name.
    pub(super) fn tenant(&self, name: &str) -> Result<TenantName, Refusal> {
        let config = self.config.load();
        let known = config.tenants.iter().find(|tenant| tenant.name.as_str() == name);
        known.map(|tenant| tenant.name.clone()).ok_or(Refusal::UnknownTenant)
    }
}
