//! The metrics: one declaration each.

/// The prefix of every name.
pub(super) const NAMESPACE: &str = "iluma_gateway";

/// A metric: a family of series that differ in their labels.
#[derive(Debug)]
pub struct Family {
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
}

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A number that only grows.
    Counter,
    /// A number that grows and shrinks.
    Gauge,
    /// A distribution by size.
    Histogram,
}

pub(super) const REQUESTS: Family = Family {
    kind: Kind::Counter,
    name: "requests_total",
    help: "Requests answered, by tenant (none: no known key), route, status and the cache's part.",
    labels: &["tenant", "route", "status", "cache"],
};

pub(super) const DURATION: Family = Family {
    kind: Kind::Histogram,
    name: "request_duration_seconds",
    help: "From a request's head to the last byte of its answer.",
    labels: &["route", "cache"],
};

pub(super) const UPSTREAM_REQUESTS: Family = Family {
    kind: Kind::Counter,
    name: "upstream_requests_total",
    help: "Requests sent to Iluma, by account, route and status (error: no answer).",
    labels: &["account", "route", "status"],
};

pub(super) const UPSTREAM_DURATION: Family = Family {
    kind: Kind::Histogram,
    name: "upstream_duration_seconds",
    help: "From sending a request to Iluma to its answer: its head if it streams, its last byte if it is read whole.",
    labels: &["route"],
};

pub(super) const SAVED: Family = Family {
    kind: Kind::Counter,
    name: "upstream_calls_saved_total",
    help: "Requests that needed no call to Iluma, by the reason.",
    labels: &["tenant", "route", "how"],
};

pub(super) const LIMITED: Family = Family {
    kind: Kind::Counter,
    name: "rate_limited_total",
    help: "Requests refused because of a limit.",
    labels: &["tenant", "limit"],
};

pub(super) const GATEWAY_ERRORS: Family = Family {
    kind: Kind::Counter,
    name: "gateway_errors_total",
    help: "Errors that the gateway made, by their reason, as in x-gateway-error.",
    labels: &["reason"],
};

/// Entries of state that could not be decrypted.
pub const STATE_UNREADABLE: Family = Family {
    kind: Kind::Counter,
    name: "state_unreadable_total",
    help: "Entries of state that could not be decrypted, because their key is missing.",
    labels: &[],
};

/// Free space of the disk with the database.
pub const DISK_FREE: Family = Family {
    kind: Kind::Gauge,
    name: "disk_free_bytes",
    help: "Free bytes of the disk with the database.",
    labels: &[],
};

pub(super) const QUOTA_USED: Family = Family {
    kind: Kind::Gauge,
    name: "quota_used",
    help: "Upstream calls of this day or month.",
    labels: &["tenant", "period"],
};

pub(super) const QUOTA_LIMIT: Family = Family {
    kind: Kind::Gauge,
    name: "quota_limit",
    help: "Upstream calls that a day or month may have.",
    labels: &["tenant", "period"],
};

pub(super) const QUOTA_WARNING: Family = Family {
    kind: Kind::Gauge,
    name: "quota_warning",
    help: "1 once this percentage of a quota is used.",
    labels: &["tenant", "period", "percent"],
};

pub(super) const BEYOND_QUOTA: Family = Family {
    kind: Kind::Counter,
    name: "quota_beyond_total",
    help: "Calls beyond a quota in shadow mode (quota_mode = \"shadow\").",
    labels: &["tenant", "period"],
};

pub(super) const CIRCUIT_OPEN: Family = Family {
    kind: Kind::Gauge,
    name: "circuit_open",
    help: "1 while the circuit is open: nothing is sent, because Iluma fails.",
    labels: &["account"],
};

pub(super) const ANSWERS_WITHHELD: Family = Family {
    kind: Kind::Counter,
    name: "answers_withheld_total",
    help: "Answers on undocumented routes that showed another team's record and were withheld.",
    labels: &["account"],
};

pub(super) const RELOADS: Family = Family {
    kind: Kind::Counter,
    name: "config_reloads_total",
    help: "Reloads of the configuration, by outcome.",
    labels: &["outcome"],
};

pub(super) const CONNECTIONS: Family =
    Family { kind: Kind::Gauge, name: "connections", help: "Open connections.", labels: &["listener"] };

pub(super) const TLS_HANDSHAKE_FAILURES: Family = Family {
    kind: Kind::Counter,
    name: "tls_handshake_failures_total",
    help: "TLS handshakes with clients that failed.",
    labels: &["listener"],
};

pub(super) const IN_FLIGHT: Family =
    Family { kind: Kind::Gauge, name: "in_flight", help: "Requests being served.", labels: &[] };

pub(super) const CALLBACKS_RECEIVED: Family = Family {
    kind: Kind::Counter,
    name: "callbacks_received_total",
    help: "Callbacks of Iluma's, by account and type (none: not known) and the inbox's answer.",
    labels: &["account", "type", "outcome"],
};

pub(super) const CALLBACK_DELIVERIES: Family = Family {
    kind: Kind::Counter,
    name: "callback_deliveries_total",
    help: "Attempts to deliver a callback to a tenant, and deliveries that were skipped.",
    labels: &["tenant", "outcome"],
};

pub(super) const CALLBACK_QUEUE: Family = Family {
    kind: Kind::Gauge,
    name: "callback_queue",
    help: "Stored callbacks: queued and dead by tenant; waiting for an owner and unowned without a tenant.",
    labels: &["tenant", "state"],
};

pub(super) const OUTBOX_BYTES: Family = Family {
    kind: Kind::Gauge,
    name: "outbox_bytes",
    help: "Bytes of queued deliveries, as stored.",
    labels: &["tenant"],
};

pub(super) const CALLBACK_OLDEST: Family = Family {
    kind: Kind::Gauge,
    name: "callback_oldest_seconds",
    help: "Age of the oldest callback that is still to be delivered.",
    labels: &[],
};

pub(super) const BUILD_INFO: Family =
    Family { kind: Kind::Gauge, name: "build_info", help: "The version that runs; always 1.", labels: &["version"] };

// The following are read from the parts that count them: see `Metrics::read`.

/// Answers in memory.
pub const CACHE_ENTRIES: Family =
    Family { kind: Kind::Gauge, name: "cache_entries", help: "Answers in memory.", labels: &[] };

/// The bytes of the answers in memory.
pub const CACHE_BYTES: Family =
    Family { kind: Kind::Gauge, name: "cache_bytes", help: "Bytes of the answers in memory.", labels: &[] };

/// Texts that the scrubber removed from log lines.
pub const REDACTIONS: Family = Family {
    kind: Kind::Counter,
    name: "redactions_total",
    help: "Texts that the scrubber removed from log lines.",
    labels: &[],
};

/// Lines of the access log and of diagnostics that were lost.
pub const LOG_LINES_DROPPED: Family = Family {
    kind: Kind::Counter,
    name: "log_lines_dropped_total",
    help: "Lines of the access log and of diagnostics that were lost.",
    labels: &[],
};

/// 1 while Redis answers, and if none is configured.
pub const REDIS_UP: Family = Family {
    kind: Kind::Gauge,
    name: "redis_up",
    help: "1 while Redis answers, and if none is configured.",
    labels: &[],
};

/// The cache's queries to Redis, by result.
pub const REDIS_CACHE: Family = Family {
    kind: Kind::Counter,
    name: "redis_cache_total",
    help: "The cache's queries to Redis, by result.",
    labels: &["outcome"],
};
