//! What the configuration makes of the request path: replaced whole when the configuration changes.

use super::usage::Allowance;
use crate::base::clock::Clock;
use crate::base::name::AccountName;
use crate::base::tasks::Tasks;
use crate::config::{self, Settings, UnknownRoutes};
use crate::iluma::routes::{Kind, Route, Table};
use crate::ledger::{Ledger, Spent, Tally};
use crate::limit::{self, Limit, Limits, Nodes};
use crate::reference::{ReferencePrefix, ReferencePrefixes};
use crate::reply::Rejection;
use crate::telemetry::metrics::{AccountMetrics, Metrics, Period, TenantMetrics};
use crate::tenant::{Tenant, Tenants};
use crate::upstream::{Breaker, Credential, RetryBudget, Upstream};
use http::Method;
use secrecy::ExposeSecret as _;
use std::sync::Arc;
use std::time::Duration;

/// How the keys begin that hit dummy data.
const DEVELOPMENT_KEY: &str = "iluma_development_";

#[derive(Debug)]
pub(super) struct RuntimeConfig {
    pub(super) table: Table,
    pub(super) tenants: Tenants,
    pub(super) limits: Limits,
    pub(super) accounts: Vec<Account>,
    pub(super) upstream: Arc<Upstream>,
    /// By the index of a tenant.
    pub(super) metrics: Vec<Arc<TenantMetrics>>,
    /// Likewise.
    pub(super) tallies: Vec<Arc<Tally>>,
    /// Likewise.
    pub(super) allowances: Vec<Allowance>,
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
    /// Those of its teams, where references are sealed.
    pub(super) seals: Option<ReferencePrefixes>,
    pub(super) metrics: Arc<AccountMetrics>,
    pub(super) breaker: Arc<Breaker>,
    pub(super) retries: Arc<RetryBudget>,
    /// Whether its calls cost anything: with a development key they don't (section "Authentication" of the API document).
    pub(super) charges: bool,
}

impl RuntimeConfig {
    /// What `settings` ask for. Counters, limits and connections of `previous` go on where nothing changed.
    pub(super) fn new(
        settings: &Settings,
        previous: Option<&Self>,
        metrics: &Metrics,
        clock: &Clock,
        tasks: &Tasks,
        ledger: &Ledger,
        nodes: Option<&Nodes>,
    ) -> Result<Self, rustls::Error> {
        let known =
            |name: &AccountName| previous.and_then(|live| live.accounts.iter().find(|account| account.name == *name));
        let account = |(name, account): (&AccountName, &config::Account)| Account {
            name: name.clone(),
            credential: Arc::new(Credential::new(&account.api_key)),
            seals: account.seal_references.then(|| {
                let teams = settings.tenants.iter().filter(|(_, tenant)| tenant.account == *name);
                ReferencePrefixes::of(teams.map(|(name, _)| name.clone()))
            }),
            metrics: metrics.account(name),
            breaker: known(name).map_or_else(|| Arc::new(Breaker::new(clock)), |known| Arc::clone(&known.breaker)),
            retries: known(name).map_or_else(Arc::default, |known| Arc::clone(&known.retries)),
            charges: !account.api_key.expose_secret().starts_with(DEVELOPMENT_KEY),
        };
        let mut limits = Limits::new(settings, previous.map(|live| &live.limits), clock, tasks, nodes);
        if previous.is_none() {
            let spent = ledger.spent().iter().cloned();
            limits.remember(
                spent.map(|Spent { tenant, day, today, this_month }| (tenant, limit::Spent { day, today, this_month })),
            );
        }
        let upstream = match previous {
            Some(live) if live.upstream_settings == settings.upstream => Arc::clone(&live.upstream),
            _ => Arc::new(Upstream::new(&settings.upstream, clock, tasks.clone())?),
        };
        Ok(Self {
            table: Table::new(&settings.routes),
            tenants: Tenants::new(settings),
            limits,
            tallies: settings.tenants.keys().map(|name| ledger.tally(name)).collect(),
            allowances: settings.tenants.values().map(|tenant| Allowance::new(tenant, settings)).collect(),
            accounts: settings.accounts.iter().map(account).collect(),
            upstream,
            metrics: settings.tenants.keys().map(|name| metrics.tenant(Some(name))).collect(),
            nobody: metrics.tenant(None),
            redis_timeout: settings.state.redis_timeout,
            unknown_routes: settings.upstream.unknown_routes,
            upstream_settings: settings.upstream.clone(),
        })
    }

    /// Tells metrics how far the tenant at `index` is with its quotas; `beyond` is one that would have refused a call,
    /// were it in force.
    pub(super) fn tell_standing(&self, index: usize, beyond: Option<Limit>) {
        let metrics = &self.metrics[index];
        for standing in self.limits.standing(index).into_iter().flatten() {
            if let Some(quota) = standing.quota {
                metrics.quota(period(standing.limit), standing.used, quota);
            }
        }
        if let Some(limit) = beyond {
            metrics.beyond_quota(period(limit));
        }
    }

    /// Tells metrics what changes with the time alone.
    pub(super) fn tell(&self) {
        (0..self.metrics.len()).for_each(|index| self.tell_standing(index, None));
        self.accounts.iter().for_each(|account| account.metrics.circuit(account.breaker.is_open()));
    }

    /// A tenant's seal and those of all teams of its account, where references are sealed.
    pub(super) fn seal(&self, tenant: &Tenant) -> Option<(ReferencePrefix, &ReferencePrefixes)> {
        let seals = self.accounts[tenant.account_index].seals.as_ref()?;
        Some((ReferencePrefix::of(&tenant.name), seals))
    }

    /// Whether the tenant may go where the route leads.
    pub(super) fn permit(&self, tenant: &Tenant, method: &Method, route: &Route) -> Result<(), Rejection> {
        match route.kind {
            Kind::Forbidden => Err(Rejection::Forbidden),
            _ if !tenant.may_use(route.name) => Err(Rejection::RouteNotAllowed),
            // TRACE would bring the account's credential back, CONNECT is for proxies.
            _ if matches!(*method, Method::TRACE | Method::CONNECT) => Err(Rejection::UnknownRoute),
            Kind::Unknown => match self.unknown_routes {
                UnknownRoutes::Forward => Ok(()),
                UnknownRoutes::Post if method == Method::POST => Ok(()),
                UnknownRoutes::Post | UnknownRoutes::Deny => Err(Rejection::UnknownRoute),
            },
            Kind::CachedQuestion(_)
            | Kind::CachedRecord(_)
            | Kind::PublicList(_)
            | Kind::Health(_)
            | Kind::Submission
            | Kind::Records
            | Kind::File
            | Kind::Streamed
            | Kind::OwnApi
            | Kind::Options
            | Kind::CallbackSetting => Ok(()),
        }
    }
}

const fn period(limit: Limit) -> Period {
    match limit {
        Limit::QuotaMonth => Period::Month,
        Limit::QuotaDay | Limit::Requests | Limit::InFlight | Limit::Account => Period::Day,
    }
}
