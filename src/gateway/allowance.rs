//! The limits of a team, as it sees them itself.

use crate::config::{self, Settings};
use serde::Serialize;

/// The limits of a team; a member that is left out has no limit.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Allowance {
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_second: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    burst: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_in_flight: Option<usize>,
    weight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_calls_per_day: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_calls_per_month: Option<u64>,
    quota_mode: &'static str,
    /// The account's, which all of its teams share by weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    account_requests_per_second: Option<u32>,
}

impl Allowance {
    pub(super) fn new(tenant: &config::Tenant, settings: &Settings) -> Self {
        Self {
            requests_per_second: tenant.requests_per_second,
            burst: tenant.burst,
            max_in_flight: tenant.max_in_flight,
            weight: tenant.weight,
            upstream_calls_per_day: tenant.upstream_calls_per_day,
            upstream_calls_per_month: tenant.upstream_calls_per_month,
            quota_mode: tenant.quota_mode.as_str(),
            account_requests_per_second: settings.accounts.get(&tenant.account).and_then(|a| a.requests_per_second),
        }
    }
}
