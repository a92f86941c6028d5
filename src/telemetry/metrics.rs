//! The gateway's metrics, in Prometheus' text format.
//!
//! Invariants: labels come from the configuration and from enums, so the number of series has a bound; on the path of
//! a request a metric is an array look-up and an atomic addition, and no label is formatted.

use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::base::name::{AccountName, TenantName};
use crate::base::saved::Saved;
use crate::config::Limit;
use crate::iluma::callback_type::CallbackType;
use crate::iluma::route_name::RouteName;
use crate::telemetry::CacheOutcome;

/// Seconds. A hit takes microseconds, so the first bound, half a millisecond, says "did not leave the process"; up to
/// 50 ms is what Redis and the gateway itself may cost; Iluma's own checks take from a tenth of a second to many;
/// 30 s is upstream's deadline by default and 60 s more than any request should last. Three bounds a decade tell apart
/// what an alert needs to; more would be more series for each route and outcome.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The statuses that have a label of their own; the others are told by their class.
const STATUSES: [(u16, &str); 25] = [
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (204, "204"),
    (206, "206"),
    (301, "301"),
    (302, "302"),
    (304, "304"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (413, "413"),
    (415, "415"),
    (422, "422"),
    (429, "429"),
    (431, "431"),
    (499, "499"),
    (500, "500"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
];

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Labels of a status: the exact ones, the classes, and the absence of an answer.
const LABELS: usize = STATUSES.len() + CLASSES.len() + 1;
const NO_ANSWER: usize = LABELS - 1;

const ROUTES: usize = RouteName::ALL.len();
const OUTCOMES: usize = CacheOutcome::ALL.len();

/// Where each status from 0 to 599 has its label.
static PLACES: [u8; 600] = {
    let mut places = [0; 600];
    let mut status = 0;
    while status < 600 {
        let class = if status < 100 { 5 } else { status / 100 };
        places[status] = (STATUSES.len() + class - 1) as u8;
        status += 1;
    }
    let mut place = 0;
    while place < STATUSES.len() {
        places[STATUSES[place].0 as usize] = place as u8;
        place += 1;
    }
    places
};

/// The place of a status's label. What is no status counts as 5xx: whoever sent it is broken.
fn place(status: u16) -> usize {
    PLACES.get(usize::from(status)).map_or(NO_ANSWER - 1, |place| usize::from(*place))
}

fn label(place: usize) -> &'static str {
    match STATUSES.get(place) {
        Some((_, label)) => label,
        None => CLASSES.get(place - STATUSES.len()).copied().unwrap_or("error"),
    }
}

/// What a quota is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Period {
    /// A day.
    Day,
    /// A month.
    Month,
}

const PERIODS: [&str; 2] = ["day", "month"];
/// Of a quota, in percent: time to talk about it, and the end.
const WARNINGS: [(u64, &str); 2] = [(80, "80"), (100, "100")];

/// What became of a new configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reload {
    /// It is in use.
    Applied,
    /// It has faults; the old one is in use.
    Refused,
}

const RELOADS: [&str; 2] = ["applied", "refused"];

/// A listener whose connections are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Listener {
    /// `server`, for tenants.
    Tenants,
    /// `admin`, for ops.
    Admin,
    /// `callbacks`, for Iluma.
    Callbacks,
}

const LISTENERS: [&str; 3] = ["tenants", "admin", "callbacks"];

/// A number that another part keeps, read when metrics are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mirrored {
    /// Answers in memory.
    CacheEntries,
    /// Bytes of the answers in memory.
    CacheBytes,
    /// What the scrubber has taken out, from the start.
    Redactions,
    /// Lines of the access log that were lost, from the start.
    LogLinesDropped,
    /// Whether Redis answers; 1 too where there is none to answer.
    RedisUp,
    /// Answers that Redis had, from the start.
    RedisHits,
    /// Answers that Redis did not have, from the start.
    RedisMisses,
    /// Answers in Redis that did not open, from the start.
    RedisDamaged,
    /// Questions of the cache that Redis did not answer, from the start.
    RedisOut,
}

/// What becomes of a number: it goes up and down, or up alone, with the value of the family's one label.
enum Kind {
    Gauge,
    Counter,
    Labelled(&'static str, &'static str),
}

/// By `Mirrored`: kind, name, help.
const MIRRORED: [(Kind, &str, &str); 9] = [
    (Kind::Gauge, "cache_entries", "Answers in memory."),
    (Kind::Gauge, "cache_bytes", "Bytes that the answers in memory take."),
    (Kind::Counter, "redactions_total", "What the scrubber took out of log lines."),
    (Kind::Counter, "log_lines_dropped_total", "Lines of the access log that were lost."),
    (Kind::Gauge, "redis_up", "Whether Redis answers; 1 too where none is configured."),
    (Kind::Labelled("outcome", "hit"), "redis_cache_total", "What the cache asked Redis for, by what it had."),
    (Kind::Labelled("outcome", "miss"), "redis_cache_total", ""),
    (Kind::Labelled("outcome", "damaged"), "redis_cache_total", ""),
    (Kind::Labelled("outcome", "out"), "redis_cache_total", ""),
];

/// Where a mirrored number is told.
enum Mirror {
    Gauge(IntGauge),
    Counter(IntCounter),
}

impl Mirror {
    fn show(&self, number: u64) {
        match self {
            Self::Gauge(gauge) => gauge.set(i64::try_from(number).unwrap_or(i64::MAX)),
            Self::Counter(counter) => counter.inc_by(number.saturating_sub(counter.get())),
        }
    }
}

/// All metrics. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    /// By route and outcome.
    duration: Cells<Histogram>,
    upstream_requests: IntCounterVec,
    upstream_durations: HistogramVec,
    /// By route.
    upstream_duration: Cells<Histogram>,
    saved: IntCounterVec,
    limited: IntCounterVec,
    quota_used: IntGaugeVec,
    quota_limit: IntGaugeVec,
    quota_warning: IntGaugeVec,
    beyond_quota: IntCounterVec,
    circuit_open: IntGaugeVec,
    answers_withheld: IntCounterVec,
    reloads: [IntCounter; 2],
    connections: [IntGauge; 3],
    in_flight: IntGauge,
    callbacks_received: IntCounterVec,
    callback_deliveries: IntCounterVec,
    callback_queue: IntGaugeVec,
    callback_oldest: IntGauge,
    /// By `Mirrored`.
    mirrors: [Mirror; MIRRORED.len()],
    /// Likewise. The lock is also what keeps two scrapes from counting the same difference twice.
    sources: Mutex<[Option<Source>; MIRRORED.len()]>,
}

type Source = Box<dyn Fn() -> u64 + Send>;

impl Metrics {
    /// A registry of its own with all metrics at zero; `version` is what `build_info` tells.
    #[must_use]
    pub fn new(version: &str) -> Self {
        let registry = Registry::new();
        let counters =
            |name, help, labels: &[&str]| register(&registry, IntCounterVec::new(options(name, help), labels));
        let gauges = |name, help, labels: &[&str]| register(&registry, IntGaugeVec::new(options(name, help), labels));
        let gauge = |name, help| register(&registry, IntGauge::with_opts(options(name, help)));
        let counter = |name, help| register(&registry, IntCounter::with_opts(options(name, help)));
        let histograms = |name, help, labels: &[&str]| {
            let options = HistogramOpts::from(options(name, help)).buckets(SECONDS.to_vec());
            register(&registry, HistogramVec::new(options, labels))
        };

        // A family is registered once, by the first of its labels, which has its help.
        let mut family = None;
        let mirrors = MIRRORED.map(|(kind, name, help)| match kind {
            Kind::Gauge => Mirror::Gauge(gauge(name, help)),
            Kind::Counter => Mirror::Counter(counter(name, help)),
            Kind::Labelled(label, value) => {
                if !help.is_empty() {
                    family = Some(counters(name, help, &[label]));
                }
                let counter = family.as_ref().map(|family| family.with_label_values(&[value]));
                Mirror::Counter(counter.unwrap_or_else(|| unreachable!("the first of a family has its help")))
            }
        });
        let reloads =
            counters("config_reloads_total", "Configurations read again, by what became of them.", &["outcome"]);
        let connections = gauges("connections", "Open connections.", &["listener"]);
        gauges("build_info", "The version that runs; always 1.", &["version"]).with_label_values(&[version]).set(1);
        let shared = Shared {
            requests: counters(
                "requests_total",
                "Requests answered, by tenant (none: no known key), route, status and what the cache did.",
                &["tenant", "route", "status", "cache"],
            ),
            durations: histograms(
                "request_duration_seconds",
                "From a request's head to the last byte of its answer.",
                &["route", "cache"],
            ),
            duration: cells(ROUTES * OUTCOMES),
            upstream_requests: counters(
                "upstream_requests_total",
                "Requests sent to Iluma, by account, route and status (error: no answer).",
                &["account", "route", "status"],
            ),
            upstream_durations: histograms(
                "upstream_duration_seconds",
                "From sending a request to Iluma to its answer: its head where it streams, its last byte where it is read.",
                &["route"],
            ),
            upstream_duration: cells(ROUTES),
            saved: counters(
                "upstream_calls_saved_total",
                "Requests that needed no call to Iluma, by what spared it.",
                &["tenant", "route", "how"],
            ),
            limited: counters("rate_limited_total", "Requests refused for a limit.", &["tenant", "limit"]),
            quota_used: gauges("quota_used", "Upstream calls of this day or month.", &["tenant", "period"]),
            quota_limit: gauges("quota_limit", "Upstream calls that a day or month may have.", &["tenant", "period"]),
            quota_warning: gauges(
                "quota_warning",
                "1 where so many percent of a quota are used.",
                &["tenant", "period", "percent"],
            ),
            beyond_quota: counters(
                "quota_beyond_total",
                "Calls beyond a quota that is not in force (quota_mode = \"shadow\").",
                &["tenant", "period"],
            ),
            circuit_open: gauges("circuit_open", "1 while nothing is sent to Iluma because it fails.", &["account"]),
            answers_withheld: counters(
                "answers_withheld_total",
                "Answers on undocumented routes that showed another team's record and were withheld.",
                &["account"],
            ),
            reloads: RELOADS.map(|outcome| reloads.with_label_values(&[outcome])),
            connections: LISTENERS.map(|listener| connections.with_label_values(&[listener])),
            in_flight: gauge("in_flight", "Requests being served."),
            mirrors,
            callbacks_received: counters(
                "callbacks_received_total",
                "Callbacks of Iluma's, by account and type (none: not known) and what became of them at the door.",
                &["account", "type", "outcome"],
            ),
            callback_deliveries: counters(
                "callback_deliveries_total",
                "Attempts to deliver a callback to a tenant, and deliveries that were not to be made.",
                &["tenant", "outcome"],
            ),
            callback_queue: gauges(
                "callback_queue",
                "Callbacks that are kept: queued and dead by tenant; waiting for an owner, and unowned, by none.",
                &["tenant", "state"],
            ),
            callback_oldest: gauge(
                "callback_oldest_seconds",
                "Since the oldest callback came that is still to be delivered.",
            ),
            sources: Mutex::default(),
            registry,
        };
        Self { shared: Arc::new(shared) }
    }

    /// A tenant's counters, for as long as its configuration lasts; asked again they go on from where they are.
    /// None, labelled `none`: requests without a known key.
    #[must_use]
    pub fn tenant(&self, name: Option<&TenantName>) -> Arc<TenantMetrics> {
        let tenant = name.map_or("none", TenantName::as_str).to_owned();
        Arc::new(TenantMetrics {
            requests: cells(ROUTES),
            saved: cells(ROUTES * Saved::ALL.len()),
            limited: Limit::ALL.map(|limit| self.shared.limited.with_label_values(&[tenant.as_str(), limit.as_str()])),
            quotas: Default::default(),
            metrics: self.clone(),
            tenant,
        })
    }

    /// An account's counters, likewise.
    #[must_use]
    pub fn account(&self, name: &AccountName) -> Arc<AccountMetrics> {
        Arc::new(AccountMetrics {
            account: name.as_str().to_owned(),
            requests: cells(ROUTES * LABELS),
            circuit: self.shared.circuit_open.with_label_values(&[name.as_str()]),
            withheld: self.shared.answers_withheld.with_label_values(&[name.as_str()]),
            metrics: self.clone(),
        })
    }

    /// A request took this long.
    pub fn request_took(&self, route: RouteName, cache: CacheOutcome, duration: Duration) {
        let cell = &self.shared.duration[route as usize * OUTCOMES + cache as usize];
        cell.get_or_init(|| self.shared.durations.with_label_values(&[route.as_str(), cache.as_str()]))
            .observe(duration.as_secs_f64());
    }

    /// A new configuration was read.
    pub fn config_reload(&self, outcome: Reload) {
        self.shared.reloads[outcome as usize].inc();
    }

    /// A callback came. Both labels are of the configuration, or none.
    pub fn callback_received(&self, account: Option<&AccountName>, kind: Option<CallbackType>, outcome: &'static str) {
        let labels = [account.map_or("none", AccountName::as_str), kind.map_or("none", CallbackType::as_str), outcome];
        self.shared.callbacks_received.with_label_values(&labels).inc();
    }

    /// A callback was delivered to a tenant, or not.
    pub fn callback_delivery(&self, tenant: &TenantName, outcome: &'static str) {
        self.shared.callback_deliveries.with_label_values(&[tenant.as_str(), outcome]).inc();
    }

    /// How many callbacks are kept: by tenant those queued and dead, then those that wait for an owner and those without.
    pub fn callback_queues<'a>(
        &self,
        tenants: impl Iterator<Item = (&'a TenantName, u64, u64)>,
        [waiting, unowned]: [u64; 2],
        oldest: Duration,
    ) {
        let set = |tenant: &str, state: &str, count: u64| {
            let gauge = self.shared.callback_queue.with_label_values(&[tenant, state]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        // A scrape between the two lines finds a tenant missing once; one whose queue is empty is missing for good.
        self.shared.callback_queue.reset();
        set("none", "waiting", waiting);
        set("none", "unowned", unowned);
        for (tenant, queued, dead) in tenants {
            set(tenant.as_str(), "queued", queued);
            set(tenant.as_str(), "dead", dead);
        }
        self.shared.callback_oldest.set(i64::try_from(oldest.as_secs()).unwrap_or(i64::MAX));
    }

    /// Counts a connection for as long as what it returns lives.
    #[must_use]
    pub fn connection(&self, listener: Listener) -> Counted {
        Counted::new(&self.shared.connections[listener as usize])
    }

    /// Counts a request as in flight for as long as what it returns lives.
    #[must_use]
    pub fn in_flight(&self) -> Counted {
        Counted::new(&self.shared.in_flight)
    }

    /// Where to read a number that another part keeps. The source is called by [`Metrics::render`] and must not
    /// block or call metrics itself.
    pub fn mirror(&self, what: Mirrored, source: impl Fn() -> u64 + Send + 'static) {
        self.sources()[what as usize] = Some(Box::new(source));
    }

    /// All metrics in the text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let sources = self.sources();
        let shared = &*self.shared;
        for (mirror, source) in shared.mirrors.iter().zip(sources.iter()) {
            mirror.show(source.as_ref().map_or(0, |source| source()));
        }
        drop(sources);
        let mut text = String::new();
        // Writing to a string does not fail, and every family has a name and samples.
        let _ = TextEncoder::new().encode_utf8(&shared.registry.gather(), &mut text);
        text
    }

    fn sources(&self) -> parking_lot::MutexGuard<'_, [Option<Source>; MIRRORED.len()]> {
        self.shared.sources.lock()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("iluma_gateway")
}

#[allow(clippy::expect_used, reason = "names and labels are constants above, and every test makes them")]
fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("names are well-formed");
    registry.register(Box::new(metric.clone())).expect("names are distinct");
    metric
}

/// Handles by the numbers of their labels, each made when it is first needed, so that what never happened is no series.
type Cells<T> = Box<[OnceLock<T>]>;

fn cells<T>(count: usize) -> Cells<T> {
    std::iter::repeat_with(OnceLock::new).take(count).collect()
}

/// What is counted for one tenant.
pub struct TenantMetrics {
    metrics: Metrics,
    tenant: String,
    /// By route, then by status and outcome: a tenant uses few routes, and a route's cells are three kilobytes.
    requests: Cells<Cells<IntCounter>>,
    /// By route and what saved it.
    saved: Cells<IntCounter>,
    limited: [IntCounter; Limit::ALL.len()],
    /// By period.
    quotas: [OnceLock<QuotaGauges>; 2],
}

struct QuotaGauges {
    used: IntGauge,
    limit: IntGauge,
    warnings: [IntGauge; 2],
}

impl TenantMetrics {
    /// A request was answered.
    pub fn request(&self, route: RouteName, status: u16, cache: CacheOutcome) {
        let place = place(status);
        let cells = self.requests[route as usize].get_or_init(|| cells(NO_ANSWER * OUTCOMES));
        cells[place * OUTCOMES + cache as usize]
            .get_or_init(|| {
                let labels = [self.tenant.as_str(), route.as_str(), label(place), cache.as_str()];
                self.metrics.shared.requests.with_label_values(&labels)
            })
            .inc();
    }

    /// A request needed no call to Iluma.
    pub fn saved(&self, route: RouteName, how: Saved) {
        self.saved[route as usize * Saved::ALL.len() + how as usize]
            .get_or_init(|| {
                let labels = [self.tenant.as_str(), route.as_str(), how.as_str()];
                self.metrics.shared.saved.with_label_values(&labels)
            })
            .inc();
    }

    /// A request was refused for a limit.
    pub fn limited(&self, limit: Limit) {
        self.limited[limit as usize].inc();
    }

    /// So much of a quota is used.
    pub fn quota(&self, period: Period, used: u64, quota: u64) {
        let gauges = self.quotas[period as usize].get_or_init(|| {
            let (shared, labels) = (&self.metrics.shared, [self.tenant.as_str(), PERIODS[period as usize]]);
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

    /// A call was made beyond a quota that is not in force.
    pub fn beyond_quota(&self, period: Period) {
        self.metrics.shared.beyond_quota.with_label_values(&[self.tenant.as_str(), PERIODS[period as usize]]).inc();
    }
}

/// What is counted for one account.
pub struct AccountMetrics {
    metrics: Metrics,
    account: String,
    /// By route and status.
    requests: Cells<IntCounter>,
    circuit: IntGauge,
    withheld: IntCounter,
}

impl AccountMetrics {
    /// Whether nothing is sent because upstream fails.
    pub fn circuit(&self, open: bool) {
        self.circuit.set(i64::from(open));
    }

    /// An answer on a row that nobody documented showed another team's record, and was withheld.
    pub fn withheld(&self) {
        self.withheld.inc();
    }

    /// A request was sent to Iluma, answered with this status (None: not answered), and took this long.
    pub fn request(&self, route: RouteName, status: Option<u16>, duration: Duration) {
        let place = status.map_or(NO_ANSWER, place);
        let shared = &*self.metrics.shared;
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

impl std::fmt::Debug for TenantMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantMetrics").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AccountMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccountMetrics").field("account", &self.account).finish_non_exhaustive()
    }
}

/// Counts in a gauge until it is dropped.
#[derive(Debug)]
pub struct Counted(IntGauge);

impl Counted {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, series: &str) -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    #[test]
    fn every_metric_has_its_name_and_labels() {
        let metrics = Metrics::new("1.2.3");
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
        metrics.callback_queues([(&"gone".parse().unwrap(), 9, 9)].into_iter(), [9, 9], Duration::ZERO);
        metrics.callback_queues([(&lending, 3, 2)].into_iter(), [1, 4], Duration::from_millis(7900));
        let counted = (metrics.connection(Listener::Admin), metrics.in_flight());
        for (mirrored, number) in [
            (Mirrored::CacheEntries, 11),
            (Mirrored::CacheBytes, 12),
            (Mirrored::Redactions, 13),
            (Mirrored::LogLinesDropped, 14),
            (Mirrored::RedisUp, 1),
            (Mirrored::RedisHits, 15),
            (Mirrored::RedisOut, 16),
        ] {
            metrics.mirror(mirrored, move || number);
        }
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
            (r#"connections{listener="tenants"}"#, 0.0),
            (r#"callbacks_received_total{account="live",outcome="stored",type="NAME_VALIDATOR_REQUEST"}"#, 1.0),
            (r#"callbacks_received_total{account="none",outcome="unknown_path",type="none"}"#, 1.0),
            (r#"callback_deliveries_total{outcome="delivered",tenant="lending"}"#, 1.0),
            (r#"callback_queue{state="queued",tenant="lending"}"#, 3.0),
            (r#"callback_queue{state="dead",tenant="lending"}"#, 2.0),
            (r#"callback_queue{state="waiting",tenant="none"}"#, 1.0),
            (r#"callback_queue{state="unowned",tenant="none"}"#, 4.0),
            ("callback_oldest_seconds", 7.0),
            ("in_flight", 1.0),
            ("cache_entries", 11.0),
            ("cache_bytes", 12.0),
            ("redactions_total", 13.0),
            ("log_lines_dropped_total", 14.0),
            ("redis_up", 1.0),
            (r#"redis_cache_total{outcome="hit"}"#, 15.0),
            (r#"redis_cache_total{outcome="miss"}"#, 0.0),
            (r#"redis_cache_total{outcome="out"}"#, 16.0),
            (r#"build_info{version="1.2.3"}"#, 1.0),
        ] {
            assert_eq!(value(&text, &format!("iluma_gateway_{series} ")), Some(expected), "{series}\n{text}");
        }
        drop(counted);
        let text = metrics.render();
        assert_eq!(value(&text, "iluma_gateway_in_flight "), Some(0.0));
        assert_eq!(value(&text, "iluma_gateway_redactions_total "), Some(13.0), "a second scrape adds nothing");
    }

    #[test]
    fn statuses_have_a_bounded_set_of_labels() {
        let labels: std::collections::BTreeSet<_> = (0..=u16::MAX).map(|status| label(place(status))).collect();
        assert_eq!(labels.len(), STATUSES.len() + CLASSES.len());
        for (status, expected) in [
            (100, "1xx"),
            (200, "200"),
            (299, "2xx"),
            (307, "3xx"),
            (418, "4xx"),
            (501, "5xx"),
            (0, "5xx"),
            (999, "5xx"),
        ] {
            assert_eq!(label(place(status)), expected);
        }
        for (status, expected) in STATUSES {
            assert_eq!((label(place(status)), expected), (expected, status.to_string().as_str()));
        }
        assert_eq!(label(NO_ANSWER), "error");
    }

    #[test]
    fn a_tenant_that_is_resolved_again_goes_on_counting() {
        let metrics = Metrics::new("1");
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
        let metrics = Metrics::new("1");
        let _tenant = metrics.tenant(None);
        let text = metrics.render();
        assert!(!text.contains("iluma_gateway_requests_total{"), "{text}");
        assert!(text.lines().count() < 60, "{text}");
    }
}
