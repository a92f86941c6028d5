//! The counters of one account.

use prometheus::{IntCounter, IntGauge};
use std::sync::Arc;
use std::time::Duration;

use super::shared::{Cells, ROUTES, Shared, cells};
use super::status::{LABELS, NO_ANSWER, label, place};
use crate::iluma::route_name::RouteName;

/// The counters of one account.
pub struct AccountMetrics {
    shared: Arc<Shared>,
    account: String,
    /// Requests, by route and status.
    requests: Cells<IntCounter>,
    circuit: IntGauge,
    backing_off: IntGauge,
    withheld: IntCounter,
}

impl AccountMetrics {
    pub(super) fn new(shared: &Arc<Shared>, account: String) -> Self {
        Self {
            requests: cells(ROUTES * LABELS),
            circuit: shared.circuit_open.with_label_values(&[account.as_str()]),
            backing_off: shared.endpoints_backing_off.with_label_values(&[account.as_str()]),
            withheld: shared.answers_withheld.with_label_values(&[account.as_str()]),
            shared: Arc::clone(shared),
            account,
        }
    }

    /// Sets the gauge that shows if the account's circuit is open.
    pub fn set_circuit(&self, open: bool) {
        self.circuit.set(i64::from(open));
    }

    /// Sets the number of Iluma's endpoints from which the account backs off, because Iluma refused calls to them for
    /// exceeding a rate limit.
    pub fn set_backing_off(&self, endpoints: usize) {
        self.backing_off.set(i64::try_from(endpoints).unwrap_or(i64::MAX));
    }

    /// Counts an answer of an undocumented route that showed another team's record and was withheld.
    pub fn withheld(&self) {
        self.withheld.inc();
    }

    /// Counts a request to Iluma by its status, and records its duration. `None` is the status of a request without an
    /// answer.
    pub fn request(&self, route: RouteName, status: Option<u16>, duration: Duration) {
        let place = status.map_or(NO_ANSWER, place);
        let shared = &*self.shared;
        self.requests[route as usize * LABELS + place]
            .get_or_init(|| {
                shared.upstream_requests.with_label_values(&[self.account.as_str(), route.as_str(), label(place)])
            })
            .inc();
        shared.upstream_duration[route as usize]
            .get_or_init(|| shared.upstream_durations.with_label_values(&[route.as_str()]))
            .observe(duration.as_secs_f64());
    }
}

impl std::fmt::Debug for AccountMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccountMetrics").field("account", &self.account).finish_non_exhaustive()
    }
}
