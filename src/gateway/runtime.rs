//! The request path's part of the configuration, ready for use.
//!
//! It is replaced as a whole when the configuration changes.

use super::allowance::Allowance;
use crate::base::clock::Clock;
use crate::base::name::{AccountName, TenantName};
use crate::base::tasks::Tasks;
use crate::config::{self, Limit, Settings, UnknownRoutes};
use crate::iluma::routes::{Kind, Route, Table};
use crate::ledger::{Ledger, Spent, Tally};
use crate::limit::{self, Limits, Nodes};
use crate::reference::{ReferencePrefix, ReferencePrefixes};
use crate::reply::Rejection;
use crate::telemetry::metrics::{AccountMetrics, Metrics, Period, TenantMetrics};
use crate::tenant::{Tenant, Tenants};
use crate::upstream::{CircuitBreaker, Credential, RetryBudget, Secrets, Upstream};
use http::{HeaderName, Method};
use secrecy::ExposeSecret as _;
use std::sync::Arc;
use std::time::Duration;

/// The prefix of development keys: their calls use dummy data, and cost nothing.
const DEVELOPMENT_KEY: &str = "iluma_development_";

#[derive(Debug)]
pub(super) struct RuntimeConfig {
    pub(super) table: Table,
    pub(super) tenants: Tenants,
    pub(super) limits: Limits,
    pub(super) accounts: Vec<Account>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) clock: Clock,
    /// The metrics of each tenant, at the tenant's index. `tallies` and `allowances` have the same order.
    pub(super) metrics: Vec<Arc<TenantMetrics>>,
    pub(super) tallies: Vec<Arc<Tally>>,
    pub(super) allowances: Vec<Allowance>,
    /// The metrics of requests without a tenant.
    pub(super) nobody: Arc<TenantMetrics>,
    /// The time for which a request may wait for Redis.
    pub(super) redis_timeout: Duration,
    /// The contact that refusals name.
    pub(super) contact: Option<String>,
    /// The clients' headers that operators allow on rows whose answers may be shared. They are sent to Iluma in
    /// addition to the gateway's own headers.
    pub(super) forward_headers: Vec<HeaderName>,
    unknown_routes: UnknownRoutes,
    upstream_settings: config::Upstream,
}

/// An Iluma account, for the request path.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: AccountName,
    pub(super) credential: Arc<Credential>,
    /// The reference prefixes of the account's teams.
    pub(super) prefixes: ReferencePrefixes,
    /// True if the account prefixes references.
    pub(super) prefixes_references: bool,
    pub(super) metrics: Arc<AccountMetrics>,
    pub(super) breaker: Arc<CircuitBreaker>,
    pub(super) retries: Arc<RetryBudget>,
    /// False for a development key, whose calls cost nothing.
    pub(super) charges: bool,
}

/// The parts of the process that all runtime configurations share.
#[derive(Clone, Copy)]
pub(super) struct Environment<'a> {
    pub(super) metrics: &'a Metrics,
    pub(super) clock: &'a Clock,
    pub(super) tasks: &'a Tasks,
    pub(super) ledger: &'a Ledger,
    pub(super) nodes: Option<&'a Nodes>,
}

impl RuntimeConfig {
    /// Builds the runtime configuration from settings. It takes over the counters, limits and connections of `previous`
    /// if their settings did not change.
    pub(super) fn new(
        settings: &Settings,
        previous: Option<&Self>,
        environment: Environment<'_>,
    ) -> Result<Self, rustls::Error> {
        let Environment { metrics, clock, tasks, ledger, nodes } = environment;
        let known = |name: &AccountName| {
            previous.and_then(|config| config.accounts.iter().find(|account| account.name == *name))
        };
        // An answer must show no account's secrets, whichever account received it.
        let secrets = Arc::new(Secrets::new(
            settings.accounts.values().map(|account| &account.api_key),
            settings.accounts.values().flat_map(|account| &account.callback_tokens),
        ));
        let account = |(name, account): (&AccountName, &config::Account)| Account {
            name: name.clone(),
            credential: Arc::new(Credential::with_secrets(&account.api_key, Arc::clone(&secrets))),
            prefixes: {
                let teams = settings.tenants.iter().filter(|(_, tenant)| tenant.account == *name);
                ReferencePrefixes::of(teams.map(|(name, _)| name.clone()))
            },
            prefixes_references: account.prefix_references,
            metrics: metrics.account(name),
            breaker: known(name)
                .map_or_else(|| Arc::new(CircuitBreaker::new(name, clock)), |known| Arc::clone(&known.breaker)),
            retries: known(name).map_or_else(Arc::default, |known| Arc::clone(&known.retries)),
            charges: !account.api_key.expose_secret().starts_with(DEVELOPMENT_KEY),
        };
        let mut limits = Limits::new(settings, previous.map(|live| &live.limits), clock, tasks, nodes);
        if previous.is_none() {
            let spent = ledger.spent().iter().cloned();
            limits.remember(spent.map(|Spent { tenant, day, today, this_month, rupiah }| {
                (tenant, limit::Spent { day, today, this_month, rupiah })
            }));
        }
        let upstream = match previous {
            Some(before) if before.upstream_settings == settings.upstream => Arc::clone(&before.upstream),
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
            clock: clock.clone(),
            metrics: settings.tenants.keys().map(|name| metrics.tenant(Some(name))).collect(),
            nobody: metrics.tenant(None),
            redis_timeout: settings.state.redis_timeout,
            contact: settings.contact.clone(),
            forward_headers: settings.upstream.forward_headers.clone(),
            unknown_routes: settings.upstream.unknown_routes,
            upstream_settings: settings.upstream.clone(),
        })
    }

    /// Returns reserved money to the teams' budgets, for the calls that turned out not to be billable.
    pub(super) fn refund(&self, ledger: &Ledger) {
        for refund in ledger.take_refunds() {
            self.limits.refund(&refund.tenant, refund.day, refund.rupiah);
        }
    }

    /// Reports the use of the quotas of the tenant at `index` to metrics; `beyond` is a quota that was exceeded in
    /// shadow mode.
    pub(super) fn report_quotas(&self, index: usize, beyond: Option<Limit>) {
        let metrics = &self.metrics[index];
        for standing in self.limits.quotas(index).into_iter().flatten() {
            if let Some(quota) = standing.quota {
                metrics.quota(period(standing.limit), standing.used, quota);
            }
        }
        if let Some(limit) = beyond {
            metrics.beyond_quota(period(limit));
        }
    }

    /// Returns the cost in rupiah of a team's calls this month; 0 for a team that is not configured.
    pub(super) fn budget_used(&self, tenant: &TenantName) -> u64 {
        let index =
            (0..self.metrics.len()).find(|index| self.tenants.at(*index).is_some_and(|team| team.name == *tenant));
        let quotas = index.and_then(|index| self.limits.quotas(index)).into_iter().flatten();
        quotas.filter(|state| state.limit == Limit::BudgetMonth).map(|state| state.used).sum()
    }

    /// Reports numbers that change with time to metrics: quotas, circuits and back-offs.
    pub(super) fn report(&self) {
        (0..self.metrics.len()).for_each(|index| self.report_quotas(index, None));
        for (index, account) in self.accounts.iter().enumerate() {
            account.metrics.set_circuit(account.breaker.is_open());
            account.metrics.set_backing_off(self.limits.backing_off(index).len());
        }
    }

    /// Returns the tenant's reference prefix, and the prefixes of all teams of its account; `None` if the account adds
    /// no prefixes.
    pub(super) fn prefix(&self, tenant: &Tenant) -> Option<(ReferencePrefix, &ReferencePrefixes)> {
        self.accounts[tenant.account_index].prefixes_references.then(|| self.prefixes(tenant))
    }

    /// Returns the tenant's reference prefix, and the prefixes of all teams of its account. Both are needed even if the
    /// account adds no prefixes, because no reference may begin with another team's prefix.
    pub(super) fn prefixes(&self, tenant: &Tenant) -> (ReferencePrefix, &ReferencePrefixes) {
        (ReferencePrefix::of(&tenant.name), &self.accounts[tenant.account_index].prefixes)
    }

    /// Checks that the tenant may use the route.
    pub(super) fn permit(&self, tenant: &Tenant, method: &Method, route: &Route) -> Result<(), Rejection> {
        match route.kind {
            Kind::Forbidden => Err(Rejection::Forbidden),
            _ if !tenant.may_use(route.name) => Err(Rejection::RouteNotAllowed),
            // TRACE would return the account's credential, and CONNECT is for proxies.
            _ if matches!(*method, Method::TRACE | Method::CONNECT) => Err(Rejection::UnknownRoute),
            Kind::Absent => Err(Rejection::UnknownOwnPath),
            Kind::Closed => Err(Rejection::UnknownRoute),
            Kind::Unknown => match self.unknown_routes {
                UnknownRoutes::Forward => Ok(()),
                UnknownRoutes::Post if method == Method::POST => Ok(()),
                UnknownRoutes::Post | UnknownRoutes::Deny => Err(Rejection::UnknownRoute),
            },
            Kind::CachedRequest(_)
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
        Limit::BudgetMonth => Period::BudgetMonth,
        Limit::QuotaDay | Limit::Requests | Limit::InFlight | Limit::Account => Period::Day,
    }
}
