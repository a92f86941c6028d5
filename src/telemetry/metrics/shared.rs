//! The shared state of all handles: the registry, and its families.

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use std::sync::OnceLock;

use super::families::{self, Family, NAMESPACE};
use super::labels::{LISTENERS, RELOADS};
use crate::iluma::route_name::RouteName;
use crate::telemetry::CacheOutcome;

/// The bounds of the histograms in seconds. A hit takes microseconds, so the first bound, half a millisecond, means
/// "did not leave the process". Up to 50 ms is the cost of Redis and of the gateway itself. Iluma's own checks take
/// from a tenth of a second to many seconds. 30 s is the default deadline of upstream, and 60 s is more than any
/// request should last. Three bounds a decade are enough for alerts. Each further bound would add a series for each
/// route and outcome.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

pub(super) const ROUTES: usize = RouteName::COUNT;
pub(super) const OUTCOMES: usize = CacheOutcome::ALL.len();

/// The metric families that telemetry counts itself. The values of all other families are read from other parts.
pub(super) struct Shared {
    pub(super) registry: Registry,
    pub(super) requests: IntCounterVec,
    pub(super) durations: HistogramVec,
    /// Durations, by route and outcome.
    pub(super) duration: Cells<Histogram>,
    pub(super) upstream_requests: IntCounterVec,
    pub(super) upstream_durations: HistogramVec,
    /// Durations of upstream calls, by route.
    pub(super) upstream_duration: Cells<Histogram>,
    pub(super) saved: IntCounterVec,
    pub(super) limited: IntCounterVec,
    pub(super) gateway_errors: IntCounterVec,
    pub(super) quota_used: IntGaugeVec,
    pub(super) quota_limit: IntGaugeVec,
    pub(super) quota_warning: IntGaugeVec,
    pub(super) beyond_quota: IntCounterVec,
    pub(super) circuit_open: IntGaugeVec,
    pub(super) endpoints_backing_off: IntGaugeVec,
    pub(super) answers_withheld: IntCounterVec,
    pub(super) reloads: [IntCounter; 2],
    pub(super) last_reload_successful: IntGauge,
    pub(super) last_reload: IntGauge,
    pub(super) connections: [IntGauge; 4],
    pub(super) failed_handshakes: [IntCounter; 4],
    pub(super) in_flight: IntGauge,
    pub(super) callbacks_received: IntCounterVec,
    pub(super) callback_deliveries: IntCounterVec,
    pub(super) callback_queue: IntGaugeVec,
    pub(super) outbox_bytes: IntGaugeVec,
    pub(super) callback_oldest: IntGauge,
}

impl Shared {
    /// Makes a registry with all families at zero. `version` and `revision` are the labels of `build_info`.
    pub(super) fn new(version: &str, revision: &str) -> Self {
        let registry = Registry::new();
        let counters = |family| register(&registry, IntCounterVec::new(options(family), family.labels));
        let gauges = |family| register(&registry, IntGaugeVec::new(options(family), family.labels));
        let gauge = |family| register(&registry, IntGauge::with_opts(options(family)));
        let histograms = |family: &Family| {
            let options = HistogramOpts::from(options(family)).buckets(SECONDS.to_vec());
            register(&registry, HistogramVec::new(options, family.labels))
        };
        let reloads = counters(&families::RELOADS);
        let connections = gauges(&families::CONNECTIONS);
        let handshakes = counters(&families::TLS_HANDSHAKE_FAILURES);
        gauges(&families::BUILD_INFO).with_label_values(&[version, revision]).set(1);
        // A machine without /proc has no metrics of the process. No other part registers their names.
        let _ = registry.register(Box::new(ProcessCollector::for_self()));
        Self {
            requests: counters(&families::REQUESTS),
            durations: histograms(&families::DURATION),
            duration: cells(ROUTES * OUTCOMES),
            upstream_requests: counters(&families::UPSTREAM_REQUESTS),
            upstream_durations: histograms(&families::UPSTREAM_DURATION),
            upstream_duration: cells(ROUTES),
            saved: counters(&families::SAVED),
            limited: counters(&families::LIMITED),
            gateway_errors: counters(&families::GATEWAY_ERRORS),
            quota_used: gauges(&families::QUOTA_USED),
            quota_limit: gauges(&families::QUOTA_LIMIT),
            quota_warning: gauges(&families::QUOTA_WARNING),
            beyond_quota: counters(&families::BEYOND_QUOTA),
            circuit_open: gauges(&families::CIRCUIT_OPEN),
            endpoints_backing_off: gauges(&families::ENDPOINTS_BACKING_OFF),
            answers_withheld: counters(&families::ANSWERS_WITHHELD),
            last_reload_successful: gauge(&families::CONFIG_LAST_RELOAD_SUCCESSFUL),
            last_reload: gauge(&families::CONFIG_LAST_RELOAD_TIMESTAMP),
            reloads: RELOADS.map(|outcome| reloads.with_label_values(&[outcome])),
            connections: LISTENERS.map(|listener| connections.with_label_values(&[listener])),
            failed_handshakes: LISTENERS.map(|listener| handshakes.with_label_values(&[listener])),
            in_flight: gauge(&families::IN_FLIGHT),
            callbacks_received: counters(&families::CALLBACKS_RECEIVED),
            callback_deliveries: counters(&families::CALLBACK_DELIVERIES),
            callback_queue: gauges(&families::CALLBACK_QUEUE),
            outbox_bytes: gauges(&families::OUTBOX_BYTES),
            callback_oldest: gauge(&families::CALLBACK_OLDEST),
            registry,
        }
    }
}

fn options(family: &Family) -> Opts {
    Opts::new(family.name, family.help).namespace(NAMESPACE)
}

#[allow(clippy::expect_used, reason = "names and labels are constants, and every test makes them")]
fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("names are well-formed");
    registry.register(Box::new(metric.clone())).expect("names are distinct");
    metric
}

/// An array of metric handles, each at the index that its labels give. Each handle is made on its first use, so that an
/// event that never happened has no series.
pub(super) type Cells<T> = Box<[OnceLock<T>]>;

pub(super) fn cells<T>(count: usize) -> Cells<T> {
    std::iter::repeat_with(OnceLock::new).take(count).collect()
}

/// A guard that adds one to a gauge until it is dropped.
#[derive(Debug)]
pub struct Counted(IntGauge);

impl Counted {
    pub(super) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
