//! All metrics: their handles, and the output.

use prometheus::TextEncoder;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::account::AccountMetrics;
use super::families::Family;
use super::labels::{Listener, OutboxSize, Reload};
use super::read::{Read, Sample};
use super::shared::{Counted, OUTCOMES, Shared};
use super::tenant::TenantMetrics;
use crate::base::name::{AccountName, TenantName};
use crate::iluma::callback_type::CallbackType;
use crate::iluma::route_name::RouteName;
use crate::telemetry::CacheOutcome;

/// All metrics. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

impl Metrics {
    /// Makes a registry with all metrics at zero. `version` and `revision` are the labels of `build_info`.
    #[must_use]
    pub fn new(version: &str, revision: &str) -> Self {
        Self { shared: Arc::new(Shared::new(version, revision)) }
    }

    /// Returns a tenant's counters. For `None` it returns the counters of requests without a known key, whose label is
    /// `none`. The caller makes counters again after a reload of the configuration; they continue the same series.
    #[must_use]
    pub fn tenant(&self, name: Option<&TenantName>) -> Arc<TenantMetrics> {
        let tenant = name.map_or("none", TenantName::as_str).to_owned();
        Arc::new(TenantMetrics::new(&self.shared, tenant))
    }

    /// Returns an account's counters. Counters that are made later continue the same series.
    #[must_use]
    pub fn account(&self, name: &AccountName) -> Arc<AccountMetrics> {
        Arc::new(AccountMetrics::new(&self.shared, name.as_str().to_owned()))
    }

    /// Records the duration of a request.
    pub fn request_took(&self, route: RouteName, cache: CacheOutcome, duration: Duration) {
        let cell = &self.shared.duration[route as usize * OUTCOMES + cache as usize];
        cell.get_or_init(|| self.shared.durations.with_label_values(&[route.as_str(), cache.as_str()]))
            .observe(duration.as_secs_f64());
    }

    /// Counts a reload of the configuration, and sets the gauge that shows if the last reload succeeded.
    pub fn config_reload(&self, outcome: Reload) {
        self.shared.reloads[outcome as usize].inc();
        self.shared.last_reload_successful.set(i64::from(outcome == Reload::Applied));
    }

    /// Records that a configuration took effect at the time `now`, at the start or by a reload.
    pub fn config_applied(&self, now: SystemTime) {
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.shared.last_reload_successful.set(1);
        self.shared.last_reload.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Counts a callback by its outcome. If the account or the type is not known, its label is `none`.
    pub fn callback_received(&self, account: Option<&AccountName>, kind: Option<CallbackType>, outcome: &'static str) {
        let labels = [account.map_or("none", AccountName::as_str), kind.map_or("none", CallbackType::as_str), outcome];
        self.shared.callbacks_received.with_label_values(&labels).inc();
    }

    /// Counts a delivery to a tenant by its outcome.
    pub fn callback_delivery(&self, tenant: &TenantName, outcome: &'static str) {
        self.shared.callback_deliveries.with_label_values(&[tenant.as_str(), outcome]).inc();
    }

    /// Sets the sizes of the queues: the outbox of each tenant, the callbacks that wait for their fan-out, and the
    /// callbacks without an owner. `oldest` is the age of the oldest queued delivery.
    pub fn callback_queues<'a>(
        &self,
        tenants: impl Iterator<Item = (&'a TenantName, OutboxSize)>,
        [waiting, unowned]: [u64; 2],
        oldest: Duration,
    ) {
        let set = |tenant: &str, state: &str, count: u64| {
            let gauge = self.shared.callback_queue.with_label_values(&[tenant, state]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        // A scrape during this update may miss a tenant once. A tenant with an empty queue has no series.
        self.shared.callback_queue.reset();
        self.shared.outbox_bytes.reset();
        set("none", "waiting", waiting);
        set("none", "unowned", unowned);
        for (tenant, size) in tenants {
            set(tenant.as_str(), "queued", size.queued);
            set(tenant.as_str(), "dead", size.dead);
            let bytes = self.shared.outbox_bytes.with_label_values(&[tenant.as_str()]);
            bytes.set(i64::try_from(size.queued_bytes).unwrap_or(i64::MAX));
        }
        self.shared.callback_oldest.set(i64::try_from(oldest.as_secs()).unwrap_or(i64::MAX));
    }

    /// Makes the error counter of each of these reasons appear in the output, at 0 until its first error.
    pub fn gateway_error_reasons(&self, reasons: impl Iterator<Item = &'static str>) {
        for reason in reasons {
            self.shared.gateway_errors.with_label_values(&[reason]).inc_by(0);
        }
    }

    /// Counts an open connection until the returned guard is dropped.
    #[must_use]
    pub fn connection(&self, listener: Listener) -> Counted {
        Counted::new(&self.shared.connections[listener as usize])
    }

    /// Counts a TLS handshake that failed.
    pub fn handshake_failed(&self, listener: Listener) {
        self.shared.failed_handshakes[listener as usize].inc();
    }

    /// Counts a request in flight until the returned guard is dropped.
    #[must_use]
    pub fn in_flight(&self) -> Counted {
        Counted::new(&self.shared.in_flight)
    }

    /// Counts an error answer of the gateway itself, by its reason.
    pub fn gateway_error(&self, reason: &'static str) {
        self.shared.gateway_errors.with_label_values(&[reason]).inc();
    }

    /// Makes the delivery counter of each of these tenants and outcomes appear in the output, at 0 until its first
    /// delivery.
    pub fn callback_outcomes<'a>(&self, tenants: impl Iterator<Item = &'a TenantName>, outcomes: &[&'static str]) {
        for tenant in tenants {
            for outcome in outcomes {
                let _shown = self.shared.callback_deliveries.with_label_values(&[tenant.as_str(), outcome]);
            }
        }
    }

    /// Registers a family whose numbers another part keeps. [`Metrics::render`] calls `source` for them.
    #[allow(clippy::expect_used, reason = "names and labels are constants, and every test makes them")]
    pub fn read_series(&self, family: &'static Family, source: impl Fn() -> Vec<Sample> + Send + Sync + 'static) {
        let read = Read::new(family, Box::new(source)).expect("names are well-formed");
        self.shared.registry.register(Box::new(read)).expect("a family is read from one source");
    }

    /// Registers a family with one label, whose numbers another part keeps. `source` returns pairs of a label value and
    /// its number.
    pub fn read(&self, family: &'static Family, source: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static) {
        self.read_series(family, move || {
            source().into_iter().map(|(label, number)| (vec![label.to_owned()], number)).collect()
        });
    }

    /// Registers a family that has no labels. [`Metrics::render`] calls `source` for its number.
    pub fn read_one(&self, family: &'static Family, source: impl Fn() -> u64 + Send + Sync + 'static) {
        self.read_series(family, move || vec![(Vec::new(), source())]);
    }

    /// Returns all metrics in the text format of Prometheus, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail, and every family has a name and samples.
        let _ = TextEncoder::new().encode_utf8(&self.shared.registry.gather(), &mut text);
        text
    }

    /// Returns all metrics as OpenMetrics 1.0.
    #[must_use]
    pub fn render_open(&self) -> String {
        openmetrics(&self.render())
    }
}

/// Turns Prometheus' text format into OpenMetrics. In OpenMetrics, the lines that describe a counter give its name
/// without `_total`, and the text ends with `# EOF`.
fn openmetrics(text: &str) -> String {
    let mut open = String::with_capacity(text.len() + 16);
    let counters: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    for line in text.lines() {
        let described = ["# HELP ", "# TYPE "].iter().find_map(|kind| Some((kind, line.strip_prefix(kind)?)));
        match described.and_then(|(kind, rest)| Some((kind, rest.split_once(' ')?))) {
            Some((kind, (name, rest))) if counters.contains(name) => {
                open.extend([*kind, name.strip_suffix("_total").unwrap_or(name), " ", rest]);
            }
            _ => open.push_str(line),
        }
        open.push('\n');
    }
    open.push_str("# EOF\n");
    open
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::families;
    use super::*;
    use crate::base::saved::Saved;
    use crate::config::Limit;

    fn value(text: &str, series: &str) -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    const fn size(queued: u64, queued_bytes: u64, dead: u64) -> OutboxSize {
        OutboxSize { queued, queued_bytes, dead }
    }

    #[test]
    fn every_metric_has_its_name_and_labels() {
        let metrics = Metrics::new("1.2.3", "abc");
        let lending = "lending".parse().unwrap();
        let tenant = metrics.tenant(Some(&lending));
        tenant.request(RouteName::Bank, 200, CacheOutcome::Hit);
        tenant.request(RouteName::Bank, 200, CacheOutcome::Hit);
        metrics.tenant(None).request(RouteName::Other, 401, CacheOutcome::None);
        tenant.saved(RouteName::Cft, Saved::Collapsed);
        tenant.limited(Limit::InFlight);
        metrics.request_took(RouteName::Bank, CacheOutcome::Hit, Duration::from_micros(15));
        let account = metrics.account(&"live".parse().unwrap());
        account.request(RouteName::Ktp, Some(503), Duration::from_secs(2));
        account.request(RouteName::Ktp, None, Duration::from_secs(2));
        metrics.config_reload(Reload::Refused);
        let (live, lending) = ("live".parse().unwrap(), "lending".parse().unwrap());
        metrics.callback_received(Some(&live), Some(CallbackType::NameValidatorRequest), "stored");
        metrics.callback_received(None, None, "unknown_path");
        metrics.callback_delivery(&lending, "delivered");
        metrics.callback_queues([(&"gone".parse().unwrap(), size(9, 9, 9))].into_iter(), [9, 9], Duration::ZERO);
        metrics.callback_queues([(&lending, size(3, 300, 2))].into_iter(), [1, 4], Duration::from_millis(7900));
        let counted = (metrics.connection(Listener::Admin), metrics.in_flight());
        metrics.gateway_error("overloaded");
        metrics.callback_outcomes([&lending].into_iter(), &["delivered", "dead"]);
        metrics.read_one(&families::CACHE_ENTRIES, || 11);
        metrics.read_one(&families::REDACTIONS, || 13);
        metrics.read(&families::REDIS_CACHE, || vec![("hit", 15), ("miss", 0)]);
        let text = metrics.render();
        for (series, expected) in [
            (r#"requests_total{cache="hit",route="bank",status="200",tenant="lending"}"#, 2.0),
            (r#"requests_total{cache="-",route="other",status="401",tenant="none"}"#, 1.0),
            (r#"upstream_calls_saved_total{how="collapsed",route="cft",tenant="lending"}"#, 1.0),
            (r#"rate_limited_total{limit="in_flight",tenant="lending"}"#, 1.0),
            (r#"rate_limited_total{limit="requests",tenant="lending"}"#, 0.0),
            (r#"request_duration_seconds_bucket{cache="hit",route="bank",le="0.0005"}"#, 1.0),
            (r#"request_duration_seconds_count{cache="hit",route="bank"}"#, 1.0),
            (r#"upstream_requests_total{account="live",route="ktp",status="503"}"#, 1.0),
            (r#"upstream_requests_total{account="live",route="ktp",status="error"}"#, 1.0),
            (r#"upstream_duration_seconds_sum{route="ktp"}"#, 4.0),
            (r#"config_reloads_total{outcome="refused"}"#, 1.0),
            (r#"config_reloads_total{outcome="applied"}"#, 0.0),
            (r#"connections{listener="admin"}"#, 1.0),
            (r#"connections{listener="server"}"#, 0.0),
            (r#"tls_handshake_failures_total{listener="server"}"#, 0.0),
            (r#"callbacks_received_total{account="live",outcome="stored",type="NAME_VALIDATOR_REQUEST"}"#, 1.0),
            (r#"callbacks_received_total{account="none",outcome="unknown_path",type="none"}"#, 1.0),
            (r#"callback_deliveries_total{outcome="delivered",tenant="lending"}"#, 1.0),
            (r#"callback_queue{state="queued",tenant="lending"}"#, 3.0),
            (r#"callback_queue{state="dead",tenant="lending"}"#, 2.0),
            (r#"outbox_bytes{tenant="lending"}"#, 300.0),
            (r#"callback_queue{state="waiting",tenant="none"}"#, 1.0),
            (r#"callback_queue{state="unowned",tenant="none"}"#, 4.0),
            (r#"callback_deliveries_total{outcome="dead",tenant="lending"}"#, 0.0),
            (r#"gateway_errors_total{reason="overloaded"}"#, 1.0),
            ("callback_oldest_seconds", 7.0),
            ("in_flight", 1.0),
            ("cache_entries", 11.0),
            ("redactions_total", 13.0),
            (r#"redis_cache_total{outcome="hit"}"#, 15.0),
            (r#"redis_cache_total{outcome="miss"}"#, 0.0),
            (r#"build_info{revision="abc",version="1.2.3"}"#, 1.0),
            ("config_last_reload_successful", 0.0),
        ] {
            assert_eq!(value(&text, &format!("iluma_gateway_{series} ")), Some(expected), "{series}\n{text}");
        }
        drop(counted);
        let text = metrics.render();
        assert_eq!(value(&text, "iluma_gateway_in_flight "), Some(0.0));
        assert_eq!(value(&text, "iluma_gateway_redactions_total "), Some(13.0), "a second scrape adds nothing");
    }

    #[test]
    fn openmetrics_names_counters_without_total_and_ends() {
        let metrics = Metrics::new("1", "a");
        metrics.gateway_error("overloaded");
        let (text, open) = (metrics.render(), metrics.render_open());
        assert!(text.contains("# TYPE iluma_gateway_gateway_errors_total counter\n"), "{text}");
        for line in [
            "# TYPE iluma_gateway_gateway_errors counter\n",
            "# HELP iluma_gateway_gateway_errors ",
            "iluma_gateway_gateway_errors_total{reason=\"overloaded\"} 1\n",
            "# TYPE process_cpu_seconds counter\n",
            "# TYPE iluma_gateway_in_flight gauge\n",
        ] {
            assert!(open.contains(line), "{line}\n{open}");
        }
        assert!(open.ends_with("\n# EOF\n"), "{open}");
        assert_eq!(open.lines().count(), text.lines().count() + 1);
    }

    #[test]
    fn a_tenant_that_is_resolved_again_goes_on_counting() {
        let metrics = Metrics::new("1", "a");
        let name = "lending".parse().unwrap();
        let before = metrics.tenant(Some(&name));
        before.request(RouteName::Cft, 200, CacheOutcome::Stored);
        let after = metrics.tenant(Some(&name));
        after.request(RouteName::Cft, 200, CacheOutcome::Stored);
        // A request that began before the reload ends with the old handle.
        before.request(RouteName::Cft, 200, CacheOutcome::Stored);
        let series = r#"iluma_gateway_requests_total{cache="stored",route="cft",status="200",tenant="lending"} "#;
        assert_eq!(value(&metrics.render(), series), Some(3.0));
    }

    #[test]
    fn what_never_happened_is_no_series() {
        let metrics = Metrics::new("1", "a");
        let _tenant = metrics.tenant(None);
        let text = metrics.render();
        assert!(!text.contains("iluma_gateway_requests_total{"), "{text}");
        assert!(text.lines().count() < 90, "{text}");
    }
}
