//! Collects the facts about a node from its parts, for its report and its alarms.

use super::redis_clients::RedisClients;
use super::storage::Storage;
use crate::admin::{BackoffFact, CertificateFact, Facts, KeyFact, PauseFact, QuotaFact, RedisFact, ReloadFact, SOON};
use crate::base::clock::Clock;
use crate::base::disk::Disk;
use crate::config::Settings;
use crate::gateway::{Condition, Gateway};
use crate::ledger::Ledger;
use crate::redis::RedisClient;
use crate::server::ListenerHandle;
use crate::state::{Queues, Registry, State};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time for which a failed decryption keeps an alarm raised.
const LATELY: Duration = Duration::from_secs(15 * 60);

/// Records of events, from which facts are collected later. Clones share the records.
#[derive(Debug, Clone)]
pub(super) struct NodeEvents {
    /// The hash of the configuration in effect.
    configuration: Arc<Mutex<String>>,
    reload: Arc<Mutex<ReloadFact>>,
    queues: Arc<Mutex<Queues>>,
}

impl NodeEvents {
    pub(super) fn new(settings: &Settings, clock: &Clock) -> Self {
        Self {
            configuration: Arc::new(Mutex::new(settings.hash.clone())),
            reload: Arc::new(Mutex::new(ReloadFact { time: clock.wall(), fault: None })),
            queues: Arc::default(),
        }
    }

    /// Records the hash of the configuration in effect.
    pub(super) fn configured(&self, settings: &Settings) {
        self.configuration.lock().clone_from(&settings.hash);
    }

    /// Records the outcome of a reload.
    pub(super) fn reloaded(&self, reload: ReloadFact) {
        *self.reload.lock() = reload;
    }

    /// Records the sizes of the queues of callbacks.
    pub(super) fn queues(&self, queues: &Queues) {
        self.queues.lock().clone_from(queues);
    }
}

/// The parts of a node from which the facts are collected.
#[derive(Debug)]
pub(super) struct FactCollector {
    clock: Clock,
    gateway: Arc<Gateway>,
    redis_clients: Vec<RedisClient>,
    state: State,
    ledger: Ledger,
    registry: Registry,
    listeners: Vec<(&'static str, ListenerHandle)>,
    disk: Disk,
    reserve: u64,
    events: NodeEvents,
    unreadable: Mutex<Recent>,
}

/// The readings of a counter in the last 15 minutes, each with its time, and the last reading before them.
#[derive(Debug, Default)]
struct Recent(VecDeque<(Instant, u64)>);

impl Recent {
    /// Adds a reading, and returns the growth of the counter in the last 15 minutes. If the first reading is younger
    /// than that, returns the growth since the first reading.
    fn growth(&mut self, now: Instant, reading: u64) -> u64 {
        // Of equal readings only the first is kept.
        if self.0.back().is_none_or(|(_, last)| *last != reading) {
            self.0.push_back((now, reading));
        }
        while self.0.len() > 1 && self.0.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= LATELY) {
            self.0.pop_front();
        }
        reading.saturating_sub(self.0.front().map_or(reading, |(_, first)| *first))
    }
}

impl FactCollector {
    pub(super) fn new(
        settings: &Settings,
        (gateway, clock): (&Arc<Gateway>, &Clock),
        (redis_clients, storage): (&RedisClients, &Storage),
        listeners: Vec<(&'static str, ListenerHandle)>,
        events: NodeEvents,
    ) -> Self {
        let reserve = settings.state.disk_reserve.bytes();
        Self {
            clock: clock.clone(),
            gateway: Arc::clone(gateway),
            redis_clients: redis_clients.all().cloned().collect(),
            state: storage.state.clone(),
            ledger: storage.ledger.clone(),
            registry: storage.registry.clone(),
            listeners,
            disk: Disk::of(&settings.state.path, reserve),
            reserve,
            events,
            // The first reading is 0, because nothing of state has been read yet.
            unreadable: Mutex::new(Recent(VecDeque::from([(clock.now(), 0)]))),
        }
    }

    /// Returns the current facts, without the silent nodes: the caller adds them. A part that does not answer adds no
    /// facts.
    pub(super) async fn collect(&self) -> Facts {
        let now = self.clock.wall();
        let Condition { backing_off, open_circuits, quotas } = self.gateway.condition();
        let (paused, unknown_calls) = (self.paused().await, self.unknown_calls().await);
        let queues = self.events.queues.lock().clone();
        let dead = queues.tenants.iter().filter(|outbox| outbox.dead > 0);
        Facts {
            now,
            configuration: self.events.configuration.lock().clone(),
            redis: self.redis_clients.iter().map(redis).collect(),
            certificates: self.listeners.iter().filter_map(certificate).collect(),
            last_reload: self.events.reload.lock().clone(),
            backing_off: backing_off
                .into_iter()
                .map(|(account, endpoint, left)| BackoffFact {
                    account: account.to_string(),
                    endpoint: endpoint.to_string(),
                    left,
                })
                .collect(),
            unready: self.ledger.unready(),
            low_disk: self.disk.free().filter(|free| *free < self.reserve).map(|free| (free, self.reserve)),
            is_cache_disk_up: self.gateway.cache().is_disk_up(),
            unreadable: self.unreadable.lock().growth(self.clock.now(), self.state.unreadable()),
            open_circuits: open_circuits.iter().map(ToString::to_string).collect(),
            dead_letters: dead.map(|outbox| (outbox.tenant.to_string(), outbox.dead)).collect(),
            unowned: queues.unowned,
            paused,
            quotas: quotas
                .into_iter()
                .filter_map(|(tenant, state)| {
                    let (name, used, quota) = (state.limit.as_str(), state.used, state.quota?);
                    Some(QuotaFact { tenant: tenant.to_string(), name, used, quota })
                })
                .collect(),
            unknown_calls,
            ending_keys: self.ending_keys(),
            silent_nodes: Vec::new(),
        }
    }

    async fn paused(&self) -> Vec<PauseFact> {
        let pauses = self.state.pauses().await.unwrap_or_default();
        let fact = |pause: crate::state::Pause| PauseFact {
            tenant: pause.endpoint.tenant.to_string(),
            kind: pause.endpoint.kind.as_str(),
            reason: pause.reason.as_str(),
            since: pause.since,
        };
        pauses.into_iter().map(fact).collect()
    }

    async fn unknown_calls(&self) -> Option<(u64, std::time::SystemTime)> {
        let number = self.ledger.unknown_calls().values().sum();
        if number == 0 {
            return None;
        }
        let oldest = self.ledger.open_calls(None, 0, 1).await.ok()?;
        Some((number, oldest.first()?.booked))
    }

    fn ending_keys(&self) -> Vec<KeyFact> {
        let ending = self.registry.expiring(self.clock.wall() + SOON).into_iter();
        let fact = |key: crate::state::KeyInfo| {
            let (tenant, id) = (key.tenant.to_string(), key.id);
            key.expires.map(|expires| KeyFact { tenant, id, expires })
        };
        ending.filter_map(fact).collect()
    }
}

fn redis(client: &RedisClient) -> RedisFact {
    RedisFact {
        name: client.name(),
        topology: client.topology(),
        is_up: client.is_up(),
        since: client.since(),
        cause: client.cause().map(|cause| cause.to_string()),
    }
}

fn certificate((listener, handle): &(&'static str, ListenerHandle)) -> Option<CertificateFact> {
    Some(CertificateFact { listener, expires: handle.settings().tls.as_ref()?.expires? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_growth_of_a_counter_is_that_of_the_last_minutes() {
        let (mut recent, start, minute) = (Recent::default(), Clock::system().now(), Duration::from_secs(60));
        for (at, reading, expected) in [(0, 0, 0), (1, 0, 0), (2, 3, 3), (10, 4, 4), (16, 4, 4), (18, 4, 1), (30, 4, 0)]
        {
            assert_eq!(recent.growth(start + at * minute, reading), expected, "after {at} minutes");
        }
    }
}
