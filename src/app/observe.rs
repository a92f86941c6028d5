//! Connects metrics to the numbers of other parts, and lists the secrets that no line of a log may show.

use super::node_facts::NodeEvents;
use super::redis_clients::RedisClients;
use crate::base::auth_failures::AuthFailures;
use crate::base::disk::Disk;
use crate::base::name::TenantName;
use crate::base::trace_context::TraceContext;
use crate::cache::Counts;
use crate::callback::{self, Arrived, Attempt, Hooks, Note, Skipped};
use crate::config::{self, Settings};
use crate::gateway::Gateway;
use crate::iluma::answer::Answer;
use crate::iluma::callback_type::CallbackType;
use crate::iluma::person::Persons;
use crate::iluma::route_name::RouteName;
use crate::ledger::{self, Ledger, Outcome, RouteTotals};
use crate::redis::RedisClient;
use crate::reference::reference_text;
use crate::server::ListenerHandle;
use crate::state::{AttemptRecord, AttemptResult, Outbox, Registry, State, StateError};
use crate::telemetry::logs::LogWriter;
use crate::telemetry::metrics::{Metrics, OutboxSize, Sample, families};
use crate::telemetry::redact::Redactor;
use crate::telemetry::traces::{Ended, SpanKind, Tracer};
use secrecy::{ExposeSecret as _, SecretString};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// The outcomes of deliveries. Metrics show each outcome from the start, even while its number is 0.
pub(super) const DELIVERIES: [&str; 6] = [
    Attempt::Delivered.as_str(),
    Attempt::Failed.as_str(),
    Attempt::Dead.as_str(),
    Skipped::NoUrl.as_str(),
    Skipped::Overflow.as_str(),
    Skipped::Dropped.as_str(),
];

/// Returns the hooks through which callbacks use other parts: metrics, traces, tags of persons, wrong tokens,
/// suspensions and the ledger.
pub(super) fn hooks(
    (metrics, tracer): (&Metrics, &Tracer),
    persons: &Persons,
    (registry, failures): (&Registry, &AuthFailures),
    (events, ledger): (&NodeEvents, &Ledger),
) -> Hooks {
    let (metrics, tracer, registry) = (metrics.clone(), tracer.clone(), registry.clone());
    let (events, ledger) = (events.clone(), ledger.clone());
    let note = move |note: Note<'_>| match note {
        Note::Received(account, kind, admission) => metrics.callback_received(account, kind, admission.as_str()),
        Note::Sent(tenant, kind, attempt) => trace_delivery(&tracer, tenant, kind, attempt),
        Note::Attempted(tenant, attempt) => metrics.callback_delivery(tenant, attempt.as_str()),
        Note::Skipped(tenant, skipped) => metrics.callback_delivery(tenant, skipped.as_str()),
        Note::Queues(queues, now) => {
            events.queues(queues);
            let oldest = queues.oldest.and_then(|oldest| now.duration_since(oldest).ok()).unwrap_or_default();
            let tenants = queues.tenants.iter().map(|outbox| {
                let Outbox { tenant, queued, queued_bytes, dead } = outbox;
                (tenant, OutboxSize { queued: *queued, queued_bytes: *queued_bytes, dead: *dead })
            });
            metrics.callback_queues(tenants, [queues.waiting, queues.unowned], oldest);
        }
    };
    let is_suspended = move |tenant: &TenantName| registry.table().is_suspended(tenant);
    Hooks {
        persons: persons.clone(),
        failures: failures.clone(),
        is_suspended: Box::new(is_suspended),
        note: Box::new(note),
        called_back: Box::new(move |arrived, is_unanswered| Box::pin(settle(ledger.clone(), arrived, is_unanswered))),
    }
}

/// Records the span of an attempt at a delivery, if its trace is sampled. A delivery may be made days after its
/// callback arrived, so each attempt is a trace of its own.
fn trace_delivery(tracer: &Tracer, tenant: &TenantName, kind: CallbackType, attempt: &AttemptRecord) {
    let Some(span) = tracer.begin(TraceContext::new()) else { return };
    let mut attributes = vec![
        ("http.request.method", "POST".into()),
        ("iluma_gateway.tenant", tenant.as_str().to_owned().into()),
        ("iluma_gateway.callback_type", kind.as_str().into()),
    ];
    attributes.push(match attempt.result {
        AttemptResult::Status(status) => ("http.response.status_code", i64::from(status).into()),
        AttemptResult::Error(error) => ("error.type", <&str>::from(error).into()),
    });
    span.end(Ended {
        kind: SpanKind::Client,
        name: "POST delivery".into(),
        began: attempt.time,
        took: attempt.duration,
        attributes,
        is_error: !attempt.result.is_success(),
    });
}

/// Settles the call that created the record of a callback. The call is found by the record's id. If `is_unanswered` is
/// true, no answer to a call has had this id, so the call may also be found by its reference. Returns an error if the
/// ledger has no room, or if the settlement could not be written; then the inbox keeps the callback.
async fn settle(ledger: Ledger, arrived: Arrived, is_unanswered: bool) -> Result<(), StateError> {
    let Arrived { account, kind, id, body } = arrived;
    let answer = Answer::parse(&body, None);
    let Some((_, outcome)) = ledger::seen(&answer).filter(|(named, _)| *named == id) else { return Ok(()) };
    if !ledger.has_room() {
        return Err(StateError::Unavailable);
    }
    let reference = answer.reference().filter(|_| is_unanswered).and_then(|json| reference_text(json));
    match kind.and_then(RouteName::called_back).zip(reference.as_deref()) {
        Some(about) => ledger.settle_by_reference(&account, &id, about, outcome),
        None if outcome == Outcome::Unknown => return Ok(()),
        None => ledger.settle(&account, &id, outcome),
    }
    // The inbox deletes the callback only after its settlement is on disk.
    ledger.settled().await.map_err(|_| StateError::Unavailable)
}

/// Connects metrics to the numbers that other parts keep.
pub(super) fn observe(
    metrics: &Metrics,
    gateway: &Arc<Gateway>,
    logs: &[LogWriter],
    redactor: &Redactor,
    redis_clients: &RedisClients,
) {
    // Metrics are part of the gateway: strong references to each other would keep both in memory until the process
    // ends.
    let cache = Arc::downgrade(gateway.cache());
    metrics.read_one(&families::CACHE_ENTRIES, move || cache.upgrade().map_or(0, |cache| cache.size().0));
    let cache = Arc::downgrade(gateway.cache());
    metrics.read_one(&families::CACHE_BYTES, move || cache.upgrade().map_or(0, |cache| cache.size().1));
    let cache = Arc::downgrade(gateway.cache());
    metrics.read_one(&families::PENDING_SLOTS, move || cache.upgrade().map_or(0, |cache| cache.pending()));
    let owners = Arc::downgrade(gateway);
    metrics.read_one(&families::KNOWN_OWNERS, move || owners.upgrade().map_or(0, |gateway| gateway.known_owners()));
    let all: Vec<RedisClient> = redis_clients.all().cloned().collect();
    metrics.read_one(&families::REDIS_UP, move || all.iter().all(RedisClient::is_up).into());
    let (redis, disk) = (gateway.cache().redis_counts(), gateway.cache().disk_counts());
    metrics.read(&families::REDIS_CACHE, move || outcomes(redis.as_deref()));
    metrics.read(&families::CACHE_DISK, move || outcomes(disk.as_deref()));
    let cache = Arc::downgrade(gateway.cache());
    metrics.read_one(&families::CACHE_DISK_UP, move || cache.upgrade().is_some_and(|cache| cache.is_disk_up()).into());
    let dropped: Vec<_> = logs.iter().map(LogWriter::dropped).collect();
    metrics.read_one(&families::LOG_LINES_DROPPED, move || dropped.iter().map(|dropped| dropped()).sum());
    let redactor = redactor.clone();
    metrics.read_one(&families::REDACTIONS, move || redactor.total());
}

/// Returns the number of look-ups of a cache level for each outcome; all are 0 if there is no such level.
fn outcomes(counts: Option<&Counts>) -> Vec<(&'static str, u64)> {
    let read = |count: fn(&Counts) -> &AtomicU64| counts.map_or(0, |counts| count(counts).load(Ordering::Relaxed));
    vec![
        ("hit", read(|counts| &counts.hits)),
        ("miss", read(|counts| &counts.misses)),
        ("damaged", read(|counts| &counts.damaged)),
        ("out", read(|counts| &counts.out)),
    ]
}

/// Connects metrics to the numbers of durable state and of its disk.
pub(super) fn observe_state(metrics: &Metrics, state: &State, settings: &config::State) {
    let state = state.clone();
    metrics.read_one(&families::STATE_UNREADABLE, move || state.unreadable());
    let disk = Disk::of(&settings.path, 0);
    metrics.read_one(&families::DISK_FREE, move || disk.free().unwrap_or(0));
}

/// Connects metrics to the ledger's totals.
pub(super) fn observe_ledger(metrics: &Metrics, ledger: &Ledger) {
    let totals = |ledger: &Ledger, number: fn(&RouteTotals) -> u64| -> Vec<Sample> {
        ledger.totals().into_iter().map(|((tenant, route), totals)| (vec![tenant, route], number(&totals))).collect()
    };
    let of = ledger.clone();
    metrics.read_series(&families::LEDGER_COST, move || totals(&of, |totals| totals.cost));
    let of = ledger.clone();
    metrics.read_series(&families::LEDGER_SAVED, move || totals(&of, |totals| totals.saved));
    let of = ledger.clone();
    metrics.read_series(&families::LEDGER_CALLS, move || {
        let outcomes = |((tenant, route), totals): ((String, String), RouteTotals)| {
            let RouteTotals { billable, not_billable, unknown, .. } = totals;
            [("billable", billable), ("not_billable", not_billable), ("unknown", unknown)]
                .map(|(outcome, number)| (vec![tenant.clone(), route.clone(), outcome.to_owned()], number))
        };
        of.totals().into_iter().flat_map(outcomes).collect()
    });
    let of = ledger.clone();
    metrics.read_series(&families::UNKNOWN_CALLS, move || {
        of.unknown_calls().into_iter().map(|(tenant, number)| (vec![tenant], number)).collect()
    });
}

/// Connects metrics to the expiry times of the listeners' certificates.
pub(super) fn observe_certificates(metrics: &Metrics, listeners: Vec<(&'static str, ListenerHandle)>) {
    metrics.read(&families::TLS_CERTIFICATE_EXPIRY, move || {
        let expiry = |(name, handle): &(&'static str, ListenerHandle)| {
            let expires = handle.settings().tls.as_ref()?.expires?;
            Some((*name, expires.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs()))
        };
        listeners.iter().filter_map(expiry).collect()
    });
}

/// Returns every secret of the settings. No line of a log may contain one.
pub(super) fn secrets(settings: &Settings) -> Vec<SecretString> {
    let accounts = settings.accounts.values();
    let mut secrets: Vec<_> = accounts.clone().map(|account| account.api_key.clone()).collect();
    secrets.extend(accounts.flat_map(|account| account.callback_tokens.iter().cloned()));
    secrets.extend(settings.admin.tokens.values().map(|(token, _)| token.clone()));
    secrets.extend(callback::secrets(settings));
    let text = |key: &[u8; 32]| SecretString::from(hex::encode(key));
    secrets.push(text(settings.state.root_key.expose_secret()));
    secrets.extend(settings.state.encryption_keys.iter().map(|key| text(key.key.expose_secret())));
    secrets
}
