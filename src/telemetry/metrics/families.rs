//! The metrics of the gateway, with one declaration for each.

/// The prefix of the name of every metric.
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
    /// A distribution: the number of values up to each bound.
    Histogram,
}

pub(super) const REQUESTS: Family = Family {
    kind: Kind::Counter,
    name: "requests_total",
    help: "Requests answered, by tenant (none: no known key), route, status and the cache's part: hit, stored, miss, collapsed, shared (a pending request), stale, bypass, request (by cache-control), replayed (the answer of an idempotency key), - (no part in it).",
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
    help: "Requests sent to Iluma, by account, route and status (error: no answer); health, which has no account, is not among them.",
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
    help: "Requests that needed no call to Iluma, by the reason: hit (stale ones too), collapsed, shared (a pending request).",
    labels: &["tenant", "route", "how"],
};

pub(super) const LIMITED: Family = Family {
    kind: Kind::Counter,
    name: "rate_limited_total",
    help: "Requests refused because of a limit: requests, in_flight, account, quota_day, quota_month, budget_month.",
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
    help: "Entries of state that could not be decrypted, because their key is missing from state.encryption_keys.",
    labels: &[],
};

/// Free bytes of the disk with the database.
pub const DISK_FREE: Family = Family {
    kind: Kind::Gauge,
    name: "disk_free_bytes",
    help: "Free bytes of the disk with the database; below state.disk_reserve only what must not be lost is written.",
    labels: &[],
};

pub(super) const QUOTA_USED: Family = Family {
    kind: Kind::Gauge,
    name: "quota_used",
    help: "Calls of this day or month that a quota counts, or their rupiah (period budget_month), of teams with a quota.",
    labels: &["tenant", "period"],
};

pub(super) const QUOTA_LIMIT: Family = Family {
    kind: Kind::Gauge,
    name: "quota_limit",
    help: "Calls, or rupiah (period budget_month), that a day or month may have, of teams with a quota.",
    labels: &["tenant", "period"],
};

pub(super) const QUOTA_WARNING: Family = Family {
    kind: Kind::Gauge,
    name: "quota_warning",
    help: "1 once this percentage (80, 100) of a quota is used.",
    labels: &["tenant", "period", "percent"],
};

pub(super) const BEYOND_QUOTA: Family = Family {
    kind: Kind::Counter,
    name: "quota_beyond_total",
    help: "Calls beyond a quota in shadow mode, which the quota would have refused.",
    labels: &["tenant", "period"],
};

pub(super) const CIRCUIT_OPEN: Family = Family {
    kind: Kind::Gauge,
    name: "circuit_open",
    help: "1 while the account's circuit is open: Iluma fails, and nothing but a probe is sent.",
    labels: &["account"],
};

pub(super) const ENDPOINTS_BACKING_OFF: Family = Family {
    kind: Kind::Gauge,
    name: "endpoints_backing_off",
    help: "Iluma's endpoints that refuse calls for their rate, and from which the account backs off.",
    labels: &["account"],
};

pub(super) const ANSWERS_WITHHELD: Family = Family {
    kind: Kind::Counter,
    name: "answers_withheld_total",
    help: "Answers on the route other that showed another team's record: the team got 404.",
    labels: &["account"],
};

pub(super) const RELOADS: Family = Family {
    kind: Kind::Counter,
    name: "config_reloads_total",
    help: "Reloads of the configuration: applied, or refused (the old one stays in effect).",
    labels: &["outcome"],
};

pub(super) const CONNECTIONS: Family = Family {
    kind: Kind::Gauge,
    name: "connections",
    help: "Open connections of a listener: server, callbacks, admin, status.",
    labels: &["listener"],
};

pub(super) const TLS_HANDSHAKE_FAILURES: Family = Family {
    kind: Kind::Counter,
    name: "tls_handshake_failures_total",
    help: "TLS handshakes with clients that failed.",
    labels: &["listener"],
};

/// Requests with a wrong credential, by listener.
pub const AUTH_FAILURES: Family = Family {
    kind: Kind::Counter,
    name: "auth_failures_total",
    help: "Requests with a wrong credential. A request without one does not count.",
    labels: &["listener"],
};

pub(super) const IN_FLIGHT: Family =
    Family { kind: Kind::Gauge, name: "in_flight", help: "Requests being served.", labels: &[] };

pub(super) const CALLBACKS_RECEIVED: Family = Family {
    kind: Kind::Counter,
    name: "callbacks_received_total",
    help: "Callbacks from Iluma, by account and type (none: not known) and the inbox's answer: stored, repeat, test, or the reason of the refusal.",
    labels: &["account", "type", "outcome"],
};

pub(super) const CALLBACK_DELIVERIES: Family = Family {
    kind: Kind::Counter,
    name: "callback_deliveries_total",
    help: "Attempts to deliver: delivered, failed (to be tried again), dead; and deliveries that were skipped: no_url, lost (after a hit: too many at once, or not stored), dropped (after a hit: the outbox is full).",
    labels: &["tenant", "outcome"],
};

pub(super) const CALLBACK_QUEUE: Family = Family {
    kind: Kind::Gauge,
    name: "callback_queue",
    help: "Stored callbacks: queued and dead by tenant; waiting for an owner, and unowned, with tenant none.",
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

pub(super) const BUILD_INFO: Family = Family {
    kind: Kind::Gauge,
    name: "build_info",
    help: "The version and the revision of the sources that run; always 1.",
    labels: &["version", "revision"],
};

pub(super) const CONFIG_LAST_RELOAD_SUCCESSFUL: Family = Family {
    kind: Kind::Gauge,
    name: "config_last_reload_successful",
    help: "1 if the configuration that was read last is in effect, 0 if it was refused.",
    labels: &[],
};

pub(super) const CONFIG_LAST_RELOAD_TIMESTAMP: Family = Family {
    kind: Kind::Gauge,
    name: "config_last_reload_timestamp_seconds",
    help: "Time at which a configuration took effect last, in seconds since 1970.",
    labels: &[],
};

// The families below are read from the parts that count them: see `Metrics::read`.

/// Expiry of each listener's certificate.
pub const TLS_CERTIFICATE_EXPIRY: Family = Family {
    kind: Kind::Gauge,
    name: "tls_certificate_expiry_timestamp_seconds",
    help: "Time at which the certificate of a listener expires, in seconds since 1970.",
    labels: &["listener"],
};

/// Ended calls that Iluma may charge for, by outcome.
pub const LEDGER_CALLS: Family = Family {
    kind: Kind::Counter,
    name: "ledger_calls_total",
    help: "Calls that Iluma may charge for, by outcome; a settlement adds to the outcome that it decides.",
    labels: &["tenant", "route", "outcome"],
};

/// Calls whose outcome is not known now, including calls in flight.
pub const UNKNOWN_CALLS: Family = Family {
    kind: Kind::Gauge,
    name: "unknown_calls",
    help: "Calls in this node's journal whose outcome is not known now, calls in flight included.",
    labels: &["tenant"],
};

/// Cost of billable calls.
pub const LEDGER_COST: Family = Family {
    kind: Kind::Counter,
    name: "ledger_cost_rupiah_total",
    help: "Cost of billable calls in rupiah, at the price of their time.",
    labels: &["tenant", "route"],
};

/// Cost that cached, collapsed and shared answers saved.
pub const LEDGER_SAVED: Family = Family {
    kind: Kind::Counter,
    name: "ledger_saved_rupiah_total",
    help: "Cost that cached, collapsed and shared answers would have had, in rupiah.",
    labels: &["tenant", "route"],
};

/// Answers in memory.
pub const CACHE_ENTRIES: Family =
    Family { kind: Kind::Gauge, name: "cache_entries", help: "Answers in memory.", labels: &[] };

/// The bytes of the answers in memory.
pub const CACHE_BYTES: Family = Family {
    kind: Kind::Gauge,
    name: "cache_bytes",
    help: "Bytes of the answers in memory; the bound is cache.memory.",
    labels: &[],
};

/// Owners of records that this process has written and remembers, so that it need not write them again.
pub const KNOWN_OWNERS: Family = Family {
    kind: Kind::Gauge,
    name: "known_owners",
    help: "Owners of records that this process has written and remembers, 458,752 at most.",
    labels: &[],
};

/// Requests that are pending at Iluma, for which the cache remembers the key of the final answer.
pub const PENDING_SLOTS: Family = Family {
    kind: Kind::Gauge,
    name: "pending_slots",
    help: "Pending requests whose final answer has a place in the cache, 30,000 at most.",
    labels: &[],
};

/// Texts that the scrubber removed from log lines.
pub const REDACTIONS: Family = Family {
    kind: Kind::Counter,
    name: "redactions_total",
    help: "Texts that the scrubber removed from log lines: something personal or secret nearly reached a log.",
    labels: &[],
};

/// Lines of the access log and of diagnostics that were lost.
pub const LOG_LINES_DROPPED: Family = Family {
    kind: Kind::Counter,
    name: "log_lines_dropped_total",
    help: "Lines of the access log and of diagnostics that were lost.",
    labels: &[],
};

/// Spans by outcome: exported or dropped.
pub const SPANS: Family = Family {
    kind: Kind::Counter,
    name: "spans_total",
    help: "Spans of sampled traces, by their end: exported (the collector took them), or dropped (it did not, or too many waited).",
    labels: &["outcome"],
};

/// A gauge that is 1 while every Redis answers, and also if none is configured.
pub const REDIS_UP: Family = Family {
    kind: Kind::Gauge,
    name: "redis_up",
    help: "1 while every Redis answers, and if none is configured.",
    labels: &[],
};

/// The cache's queries to Redis, by result.
pub const REDIS_CACHE: Family = Family {
    kind: Kind::Counter,
    name: "redis_cache_total",
    help: "The cache's queries to Redis: hit, miss, damaged (decryption failed: key removed, or value tampered with), out (no answer).",
    labels: &["outcome"],
};

/// A gauge that is 1 while the disk cache can be read and written, and also if none is configured.
pub const CACHE_DISK_UP: Family = Family {
    kind: Kind::Gauge,
    name: "cache_disk_up",
    help: "1 while the disk cache can be read and written, and if none is configured.",
    labels: &[],
};

/// Look-ups in the disk cache, by result.
pub const CACHE_DISK: Family = Family {
    kind: Kind::Counter,
    name: "cache_disk_total",
    help: "The cache's queries to its file on disk: hit, miss, damaged (decryption failed: key removed, or value tampered \
           with), out (no answer).",
    labels: &["outcome"],
};
