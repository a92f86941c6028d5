//! The condition of the request path, for operators: endpoints and accounts that fail, and the use of quotas.

use super::core::Gateway;
use crate::base::name::{AccountName, TenantName};
use crate::limit::{Endpoint, QuotaState};
use std::time::Duration;

/// The condition of the request path at one moment.
#[derive(Debug, Default)]
pub struct Condition {
    /// The endpoints from which accounts are backing off: account, endpoint, and time until the next probe.
    pub backing_off: Vec<(AccountName, Endpoint, Duration)>,
    /// The accounts whose circuit is open: only probes are sent for them.
    pub open_circuits: Vec<AccountName>,
    /// The quotas and budgets of teams.
    pub quotas: Vec<(TenantName, QuotaState)>,
}

impl Gateway {
    /// Returns the condition of the request path.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let config = self.config.load();
        let accounts = || config.accounts.iter().enumerate();
        let backing_off = accounts().flat_map(|(index, account)| {
            let endpoints = config.limits.backing_off(index).into_iter();
            endpoints.map(move |(endpoint, left)| (account.name.clone(), endpoint, left))
        });
        let open = accounts().filter(|(_, account)| account.breaker.is_open());
        let teams = (0..).map_while(|index| config.tenants.at(index));
        let quotas = teams.flat_map(|tenant| {
            let states = config.limits.quotas(tenant.index).into_iter().flatten();
            states.filter(|state| state.quota.is_some()).map(|state| (tenant.name.clone(), state))
        });
        Condition {
            backing_off: backing_off.collect(),
            open_circuits: open.map(|(_, account)| account.name.clone()).collect(),
            quotas: quotas.collect(),
        }
    }
}
