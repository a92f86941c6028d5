//! Deliveries in time: each team's queue has its own lane.
//!
//! Invariants: a team has [`WIDEST`] deliveries under way at most, all teams together [`MOST_AT_ONCE`]; a team whose
//! endpoint fails soon has one, so that it takes next to nothing from the others; a failed one is tried again as the
//! configuration says, and then is a dead letter.

use super::webhook_client::{Failure, TIMEOUT};
use super::{Callbacks, Note, REST};
use crate::base::keyring::random;
use crate::base::name::TenantName;
use crate::base::tasks::Tasks;
use crate::state::{Delivery, DeliveryOutcome};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Deliveries to one team at once: an endpoint that takes 100 ms gets 160 a second.
const WIDEST: usize = 16;
/// What a team begins with.
const WIDTH: usize = 4;
/// Deliveries at once, of all teams: 32 of them at their widest, or 512 with dead endpoints.
const MOST_AT_ONCE: usize = 512;

/// How long nobody else makes a delivery that is in hand here: an attempt, and noting what became of it.
const LEASE: Duration = Duration::from_secs(60);

/// How late a delivery that becomes due may be noticed.
const TICK: Duration = Duration::from_millis(250);

/// How often it is tried to note what became of a delivery; then its lease ends, and it is made again.
const NOTE_ATTEMPTS: u32 = 5;

/// How an attempt ended, as metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// 2xx.
    Delivered,
    /// It will be tried again.
    Failed,
    /// It was the last one.
    Dead,
}

/// Why there is no delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// The team has no URL for this type.
    NoUrl,
    /// Too many callbacks of hits at once.
    Overflow,
    /// A callback of a hit could not be stored.
    NotStored,
}

impl Attempt {
    /// As metrics name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Dead => "dead",
        }
    }
}

impl Skipped {
    /// As metrics name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoUrl => "no_url",
            Self::Overflow | Self::NotStored => "lost",
        }
    }
}

/// What is under way, by team.
#[derive(Debug, Default)]
pub(super) struct AdaptiveConcurrency {
    lanes: Mutex<BTreeMap<TenantName, Lane>>,
    /// A place is free for a team that may have more.
    freed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Lane {
    width: usize,
    under_way: usize,
    /// It got as many as it wanted: there may be more.
    full: bool,
}

impl Default for Lane {
    fn default() -> Self {
        Self { width: WIDTH, under_way: 0, full: false }
    }
}

impl AdaptiveConcurrency {
    /// How many more each of these teams may have; of `full` ones alone, if there are others who asked lately.
    fn free<'a>(&self, teams: impl Iterator<Item = &'a TenantName>, only_full: bool) -> Vec<(TenantName, usize)> {
        let mut lanes = self.lanes.lock();
        let mut left = MOST_AT_ONCE.saturating_sub(lanes.values().map(|lane| lane.under_way).sum());
        let mut wanted = Vec::new();
        for team in teams {
            let lane = lanes.entry(team.clone()).or_default();
            let places = lane.width.saturating_sub(lane.under_way).min(left);
            if places > 0 && (lane.full || !only_full) {
                left -= places;
                wanted.push((team.clone(), places));
            }
        }
        wanted
    }

    /// These were taken by those who wanted so many.
    fn take(&self, wanted: &[(TenantName, usize)], taken: &[Delivery]) {
        let mut lanes = self.lanes.lock();
        for (team, places) in wanted {
            let lane = lanes.entry(team.clone()).or_default();
            let count = taken.iter().filter(|delivery| delivery.tenant == *team).count();
            lane.under_way += count;
            lane.full = count == *places;
        }
    }

    /// One ended. A lane widens with what succeeds, and narrows twice as fast.
    fn give_back(&self, team: &TenantName, succeeded: bool) {
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(team.clone()).or_default();
        lane.under_way = lane.under_way.saturating_sub(1);
        lane.width = if succeeded { (lane.width + 1).min(WIDEST) } else { (lane.width / 2).max(1) };
        if lane.full {
            self.freed.notify_one();
        }
    }
}

impl Callbacks {
    /// Makes deliveries as they become due, for ever; each is a task of its own.
    pub(super) async fn dispatch(self: &Arc<Self>, tasks: &Tasks) {
        let mut only_full = false;
        loop {
            let live = self.live.load_full();
            let wanted = self.lanes.free(live.teams.keys(), only_full);
            let claimed = if wanted.is_empty() { Ok(Vec::new()) } else { self.state.claim(&wanted, LEASE).await };
            match claimed {
                Ok(claimed) => {
                    self.lanes.take(&wanted, &claimed);
                    for delivery in claimed {
                        let callbacks = Arc::clone(self);
                        tasks.spawn(async move { callbacks.deliver(delivery).await });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "deliveries can't be looked up");
                    tokio::time::sleep(REST).await;
                }
            }
            only_full = tokio::select! {
                () = self.lanes.freed.notified() => true,
                () = self.state.work() => false,
                () = tokio::time::sleep(TICK) => false,
            };
        }
    }

    async fn deliver(&self, delivery: Delivery) {
        let sent = self.send(&delivery).await;
        let (attempt, fate) = match &sent {
            Ok(()) => (Attempt::Delivered, DeliveryOutcome::Delivered),
            Err(_) => match self.live.load().retry.get(delivery.attempts as usize) {
                Some(wait) => (Attempt::Failed, DeliveryOutcome::Retry(self.clock.wall() + jittered(*wait))),
                None => (Attempt::Dead, DeliveryOutcome::Dead),
            },
        };
        let tenant = &delivery.tenant;
        if let Err(failure) = &sent {
            tracing::debug!(%tenant, id = %delivery.id, attempts = delivery.attempts, %failure, "a delivery failed");
        }
        if attempt == Attempt::Dead {
            tracing::warn!(%tenant, id = %delivery.id, "a callback is a dead letter now");
        }
        for rest in (0..NOTE_ATTEMPTS).rev() {
            match self.state.conclude(&delivery, fate).await {
                Ok(()) => break,
                Err(_) if rest > 0 => tokio::time::sleep(REST).await,
                Err(error) => tracing::error!(%tenant, id = %delivery.id, %error, "a delivery will be made again"),
            }
        }
        // Counted when it is noted, so that who reads the one finds the other.
        (self.hooks.note)(Note::Attempted(tenant, attempt));
        self.lanes.give_back(tenant, sent.is_ok());
    }

    async fn send(&self, delivery: &Delivery) -> Result<(), Failure> {
        let live = self.live.load_full();
        // It was the team's when it was claimed.
        let team = live.teams.get(&delivery.tenant).ok_or(Failure::NoUrl)?;
        let url = tokio::time::timeout(TIMEOUT, self.url(&delivery.tenant, team, delivery.kind)).await;
        let url = url.map_err(|_| Failure::State)?.map_err(|_| Failure::State)?.ok_or(Failure::NoUrl)?;
        let courier = self.courier.load_full();
        courier.send(team, &url, &delivery.id.to_string(), delivery.body.clone()).await
    }
}

/// A fifth more or less, so that what failed together does not come back together.
fn jittered(wait: Duration) -> Duration {
    let [byte] = random::<1>();
    wait.mul_f64(0.8 + 0.4 * f64::from(byte) / 255.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_differ_by_a_fifth() {
        for _ in 0..100 {
            let wait = jittered(Duration::from_secs(10));
            assert!((Duration::from_secs(8)..=Duration::from_millis(12_001)).contains(&wait), "{wait:?}");
        }
    }

    #[test]
    fn a_lane_narrows_to_one_and_widens_again() {
        let (lanes, team): (_, TenantName) = (AdaptiveConcurrency::default(), "lending".parse().unwrap());
        let places = || lanes.free([&team].into_iter(), false).first().map_or(0, |(_, places)| *places);
        assert_eq!(places(), WIDTH);
        (0..3).for_each(|_| lanes.give_back(&team, false));
        assert_eq!(places(), 1);
        (0..50).for_each(|_| lanes.give_back(&team, true));
        assert_eq!(places(), WIDEST);
        assert!(lanes.free([&team].into_iter(), true).is_empty(), "it wanted no more than it got");
    }
}
