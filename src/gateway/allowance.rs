//! The limits of a team, in the form that the team sees.

use crate::config::{self, Settings};
use serde::Serialize;

/// The limits of a team, as JSON. If a member is missing, the team has no such limit.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Allowance(serde_json::Value);

impl Allowance {
    pub(super) fn new(tenant: &config::Tenant, settings: &Settings) -> Self {
        let mut limits = serde_json::json!(tenant.limits);
        // The account's rate is shared by all of its teams, by weight.
        let account = settings.accounts.get(&tenant.account).and_then(|account| account.requests_per_second);
        limits["account_requests_per_second"] = account.into();
        if let Some(members) = limits.as_object_mut() {
            members.retain(|_, limit| !limit.is_null());
        }
        Self(limits)
    }
}
