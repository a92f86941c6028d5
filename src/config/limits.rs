//! The types of a tenant's limits, and their names; `teams` reads and bounds them.
//!
//! Invariants: only [`Limit`] names a limit in refusals, headers and metrics; `GET /v1/tenants`, `GET /_gateway/usage`
//! and `check` show [`TenantLimits`], so a new limit is one more field here.

use serde::Serialize;

/// A kind of limit. Its name is the same in refusals, `RateLimit` fields and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Limit {
    /// Requests a second, with a burst.
    Requests,
    /// The number of requests that are handled at once.
    InFlight,
    /// Calls a second that the account may send to upstream.
    Account,
    /// Upstream calls a day.
    QuotaDay,
    /// Upstream calls a month.
    QuotaMonth,
    /// Rupiah a month.
    BudgetMonth,
}

impl Limit {
    /// Every limit; `ALL[limit as usize] == limit`.
    pub const ALL: [Self; 6] =
        [Self::Requests, Self::InFlight, Self::Account, Self::QuotaDay, Self::QuotaMonth, Self::BudgetMonth];

    /// Returns the name in metrics and headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::InFlight => "in_flight",
            Self::Account => "account",
            Self::QuotaDay => "quota_day",
            Self::QuotaMonth => "quota_month",
            Self::BudgetMonth => "budget_month",
        }
    }

    /// Returns the unit in which the limit counts: a value of the parameter `qu` in `RateLimit-Policy`.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Requests | Self::Account | Self::QuotaDay | Self::QuotaMonth => "requests",
            Self::InFlight => "concurrent-requests",
            Self::BudgetMonth => "rupiah",
        }
    }
}

/// The treatment of a call beyond a tenant's quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QuotaMode {
    /// The gateway refuses the call.
    Enforce,
    /// The gateway makes the call, and counts it as one that would have been refused.
    Shadow,
}

impl QuotaMode {
    /// Every mode.
    pub const ALL: [Self; 2] = [Self::Enforce, Self::Shadow];

    /// Returns the name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
        }
    }
}

/// The limits of one tenant, under the names of their configuration keys. `None` means no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantLimits {
    /// The sustained rate of requests.
    pub requests_per_second: Option<u32>,
    /// The number of requests that may arrive at once; at least one if a rate is set.
    pub burst: Option<u32>,
    /// The largest number of requests that are handled at once. If the key is not set, a tenant has half of
    /// `server.max_in_flight`, so that one tenant can't use up the whole gateway.
    pub max_in_flight: usize,
    /// The share of the account's rate, relative to the other tenants' weights.
    pub weight: u32,
    /// Upstream calls a day.
    pub upstream_calls_per_day: Option<u64>,
    /// Upstream calls a month.
    pub upstream_calls_per_month: Option<u64>,
    /// Rupiah a month. The prices of calls are in `prices`.
    pub budget_per_month: Option<u64>,
    /// The treatment of a call beyond a quota.
    pub quota_mode: QuotaMode,
}

impl TenantLimits {
    /// Returns the `max_in_flight` of a tenant that does not set this key: half of `all`, and at least 1. `all` is the
    /// `max_in_flight` of the whole gateway.
    #[must_use]
    pub const fn default_in_flight(all: usize) -> usize {
        if all < 2 { 1 } else { all / 2 }
    }

    /// Returns the rate in requests a second, and the burst. Returns `None` if the tenant has no rate.
    #[must_use]
    pub fn rate(&self) -> Option<(u32, u32)> {
        self.requests_per_second.map(|rate| (rate, self.burst.unwrap_or(rate)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_found_at_its_place() {
        for (place, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, place, "{}", limit.as_str());
        }
    }

    #[test]
    fn a_mode_is_shown_as_the_configuration_names_it() {
        for mode in QuotaMode::ALL {
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
        }
    }

    #[test]
    fn one_tenant_has_half_of_all_places_and_at_least_one() {
        for (all, most) in [(4096, 2048), (5, 2), (2, 1), (1, 1)] {
            assert_eq!(TenantLimits::default_in_flight(all), most, "of {all}");
        }
    }
}
