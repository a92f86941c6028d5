//! Tenants in the form that operators see.

use super::orders::BudgetUse;
use crate::base::name::TenantName;
use crate::config::{Tenant, TenantLimits};
use crate::iluma::route_name::RouteName;
use crate::state::KeyTable;

/// A tenant without its secrets.
#[derive(Debug, Clone, serde::Serialize)]
pub(super) struct ShownTenant {
    #[serde(serialize_with = "as_text")]
    pub(super) name: TenantName,
    account: String,
    keys: usize,
    suspended: bool,
    #[serde(flatten)]
    limits: TenantLimits,
    /// The cost of this month's calls that were billable or may be billable, in rupiah.
    budget_used: u64,
    routes: Vec<&'static str>,
    share_cache: bool,
}

impl ShownTenant {
    pub(super) fn new(name: &TenantName, tenant: &Tenant) -> Self {
        Self {
            name: name.clone(),
            account: tenant.account.to_string(),
            keys: 0,
            suspended: false,
            limits: tenant.limits.clone(),
            budget_used: 0,
            routes: tenant.routes.iter().copied().map(RouteName::as_str).collect(),
            share_cache: tenant.share_cache,
        }
    }

    /// Returns the tenant with its current number of keys, suspension and budget use.
    pub(super) fn with(&self, table: &KeyTable, budgets: &BudgetUse) -> Self {
        let (keys, suspended) = (table.count(&self.name), table.is_suspended(&self.name));
        Self { keys, suspended, budget_used: budgets.of(&self.name), ..self.clone() }
    }
}

fn as_text<S: serde::Serializer>(name: &TenantName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}
