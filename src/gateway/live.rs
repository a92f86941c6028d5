//! What the configuration makes of the request path: replaced whole when the configuration changes.

use crate::clock::Clock;
use crate::config::{self, Settings, UnknownRoutes};
use crate::limit::Limits;
use crate::name::AccountName;
use crate::reply::Rejection;
use crate::route::{Route, Table, Treatment};
use crate::tasks::Tasks;
use crate::telemetry::metrics::{AccountMetrics, Metrics, TenantMetrics};
use crate::tenant::{Tenant, Tenants};
use crate::upstream::{Credential, Upstream};
use http::Method;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Live {
    pub(super) table: Table,
    pub(super) tenants: Tenants,
    pub(super) limits: Limits,
    pub(super) accounts: Vec<Account>,
    pub(super) upstream: Arc<Upstream>,
    /// By the index of a tenant.
    pub(super) metrics: Vec<Arc<TenantMetrics>>,
    /// Of requests that no tenant asks.
    pub(super) nobody: Arc<TenantMetrics>,
    /// What a request may wait for Redis.
    pub(super) redis_timeout: Duration,
    unknown_routes: UnknownRoutes,
    upstream_settings: config::Upstream,
}

/// An Iluma account, as requests need it.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: AccountName,
    pub(super) credential: Arc<Credential>,
    pub(super) metrics: Arc<AccountMetrics>,
}

impl Live {
    /// What `settings` ask for. Counters, limits and connections of `previous` go on where nothing changed.
    pub(super) fn new(
        settings: &Settings,
        previous: Option<&Self>,
        metrics: &Metrics,
        clock: &Clock,
        tasks: &Tasks,
    ) -> Result<Self, rustls::Error> {
        let account = |(name, account): (&AccountName, &config::Account)| Account {
            name: name.clone(),
            credential: Arc::new(Credential::new(&account.api_key)),
            metrics: metrics.account(name),
        };
        let upstream = match previous {
            Some(live) if live.upstream_settings == settings.upstream => Arc::clone(&live.upstream),
            _ => Arc::new(Upstream::new(&settings.upstream, clock, tasks.clone())?),
        };
        Ok(Self {
            table: Table::new(&settings.routes),
            tenants: Tenants::new(settings),
            limits: Limits::new(settings, previous.map(|live| &live.limits), clock),
            accounts: settings.accounts.iter().map(account).collect(),
            upstream,
            metrics: settings.tenants.keys().map(|name| metrics.tenant(Some(name))).collect(),
            nobody: metrics.tenant(None),
            redis_timeout: settings.state.redis_timeout,
            unknown_routes: settings.upstream.unknown_routes,
            upstream_settings: settings.upstream.clone(),
        })
    }

    /// Whether the tenant may go where the route leads.
    pub(super) fn permit(&self, tenant: &Tenant, method: &Method, route: &Route) -> Result<(), Rejection> {
        match route.treatment {
            Treatment::Forbidden => Err(Rejection::Forbidden),
            _ if !tenant.may_use(route.name) => Err(Rejection::RouteNotAllowed),
            // TRACE would bring the account's credential back, CONNECT is for proxies.
            _ if matches!(*method, Method::TRACE | Method::CONNECT) => Err(Rejection::UnknownRoute),
            Treatment::Unknown => match self.unknown_routes {
                UnknownRoutes::Forward => Ok(()),
                UnknownRoutes::Post if method == Method::POST => Ok(()),
                UnknownRoutes::Post | UnknownRoutes::Deny => Err(Rejection::UnknownRoute),
            },
            Treatment::Cached
            | Treatment::Looked
            | Treatment::Listed
            | Treatment::Health
            | Treatment::Streamed
            | Treatment::Described
            | Treatment::Callback => Ok(()),
        }
    }
}
