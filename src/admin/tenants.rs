//! Tenants for operators.

use crate::base::name::TenantName;
use crate::config::{Tenant, TenantLimits};
use crate::iluma::route_name::RouteName;

/// A tenant without its secrets.
#[derive(Debug, serde::Serialize)]
pub(super) struct ShownTenant {
    pub(super) name: String,
    account: String,
    keys: usize,
    #[serde(flatten)]
    limits: TenantLimits,
    routes: Vec<&'static str>,
    share_cache: bool,
}

impl ShownTenant {
    pub(super) fn new(name: &TenantName, tenant: &Tenant) -> Self {
        Self {
            name: name.to_string(),
            account: tenant.account.to_string(),
            keys: tenant.key_sha256.len(),
            limits: tenant.limits.clone(),
            routes: tenant.routes.iter().copied().map(RouteName::as_str).collect(),
            share_cache: tenant.share_cache,
        }
    }
}
