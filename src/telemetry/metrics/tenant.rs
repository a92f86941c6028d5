//! The counters of one tenant.

use prometheus::{IntCounter, IntGauge};
use std::sync::{Arc, OnceLock};

use super::labels::{PERIODS, Period, WARNINGS};
use super::shared::{Cells, OUTCOMES, ROUTES, Shared, cells};
use super::status::{NO_ANSWER, label, place};
use crate::base::saved::Saved;
use crate::config::Limit;
use crate::iluma::route_name::RouteName;
use crate::telemetry::CacheOutcome;

/// The counters of one tenant.
pub struct TenantMetrics {
    shared: Arc<Shared>,
    tenant: String,
    /// Requests by route, then by status and outcome. Each route's cells are made when the tenant first uses the route:
    /// a tenant uses few routes, and the cells of one route have about five kilobytes.
    requests: Cells<Cells<IntCounter>>,
    /// Saved calls, by route and reason.
    saved: Cells<IntCounter>,
    limited: [IntCounter; Limit::ALL.len()],
    /// Quotas, by period.
    quotas: [OnceLock<QuotaGauges>; PERIODS.len()],
}

struct QuotaGauges {
    used: IntGauge,
    limit: IntGauge,
    warnings: [IntGauge; 2],
}

impl TenantMetrics {
    pub(super) fn new(shared: &Arc<Shared>, tenant: String) -> Self {
        Self {
            requests: cells(ROUTES),
            saved: cells(ROUTES * Saved::ALL.len()),
            limited: Limit::ALL.map(|limit| shared.limited.with_label_values(&[tenant.as_str(), limit.as_str()])),
            quotas: Default::default(),
            shared: Arc::clone(shared),
            tenant,
        }
    }

    /// Counts an answered request.
    pub fn request(&self, route: RouteName, status: u16, cache: CacheOutcome) {
        let place = place(status);
        let cells = self.requests[route as usize].get_or_init(|| cells(NO_ANSWER * OUTCOMES));
        cells[place * OUTCOMES + cache as usize]
            .get_or_init(|| {
                let labels = [self.tenant.as_str(), route.as_str(), label(place), cache.as_str()];
                self.shared.requests.with_label_values(&labels)
            })
            .inc();
    }

    /// Counts a request that needed no call to Iluma. `how` is the reason.
    pub fn saved(&self, route: RouteName, how: Saved) {
        self.saved[route as usize * Saved::ALL.len() + how as usize]
            .get_or_init(|| {
                let labels = [self.tenant.as_str(), route.as_str(), how.as_str()];
                self.shared.saved.with_label_values(&labels)
            })
            .inc();
    }

    /// Counts a request that was refused because of a limit.
    pub fn limited(&self, limit: Limit) {
        self.limited[limit as usize].inc();
    }

    /// Sets the gauges of a quota: the used number, the quota itself, and the warnings at 80 and 100 percent.
    pub fn quota(&self, period: Period, used: u64, quota: u64) {
        let gauges = self.quotas[period as usize].get_or_init(|| {
            let (shared, labels) = (&*self.shared, [self.tenant.as_str(), PERIODS[period as usize]]);
            let warning = |(_, percent): (u64, &str)| {
                shared.quota_warning.with_label_values(&[self.tenant.as_str(), PERIODS[period as usize], percent])
            };
            QuotaGauges {
                used: shared.quota_used.with_label_values(&labels),
                limit: shared.quota_limit.with_label_values(&labels),
                warnings: WARNINGS.map(warning),
            }
        });
        gauges.used.set(i64::try_from(used).unwrap_or(i64::MAX));
        gauges.limit.set(i64::try_from(quota).unwrap_or(i64::MAX));
        for (gauge, (percent, _)) in gauges.warnings.iter().zip(WARNINGS) {
            gauge.set(i64::from(u128::from(used) * 100 >= u128::from(quota) * u128::from(percent)));
        }
    }

    /// Counts a call beyond a quota in shadow mode.
    pub fn beyond_quota(&self, period: Period) {
        self.shared.beyond_quota.with_label_values(&[self.tenant.as_str(), PERIODS[period as usize]]).inc();
    }
}

impl std::fmt::Debug for TenantMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantMetrics").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}
