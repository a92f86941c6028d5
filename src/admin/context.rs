//! What the handlers of the API share.

use super::orders::Orders;
use super::tenants::ShownTenant;
use crate::base::tasks::Tasks;
use crate::config::Settings;
use crate::ledger::Ledger;
use crate::telemetry::metrics::Metrics;
use arc_swap::ArcSwap;
use secrecy::SecretString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The parts that answer operators, and the configuration in effect.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) metrics: Metrics,
    pub(super) orders: Arc<Orders>,
    pub(super) ledger: Ledger,
    /// This node's name.
    pub(super) node: String,
    /// The orders that run now, whatever became of their clients.
    pub(super) running: Tasks,
    config: ArcSwap<AdminConfig>,
    draining: AtomicBool,
}

/// What the configuration says to the API.
#[derive(Debug)]
pub(super) struct AdminConfig {
    token: Option<SecretString>,
    /// The tenants by name, as they are shown.
    pub(super) tenants: Vec<ShownTenant>,
}

impl AdminConfig {
    fn new(settings: &Settings) -> Self {
        let tenants = settings.tenants.iter().map(|(name, tenant)| ShownTenant::new(name, tenant)).collect();
        Self { token: settings.admin.token.clone(), tenants }
    }
}

impl Context {
    pub(super) fn new(settings: &Settings, metrics: Metrics, orders: Orders, ledger: Ledger) -> Self {
        Self {
            metrics,
            orders: Arc::new(orders),
            ledger,
            node: settings.node.clone(),
            running: Tasks::new(),
            config: ArcSwap::from_pointee(AdminConfig::new(settings)),
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

    pub(super) fn token(&self) -> Option<SecretString> {
        self.config.load().token.clone()
    }
}
