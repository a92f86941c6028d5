//! How much a team, and all of them together, may ask for: of the gateway, and of Iluma.
//!
//! Invariants: a [`Permit`] stands for one request in flight and gives its places back when it is dropped, however
//! the request ends; a [`CallPermit`] stands for one upstream call, and one that was not sent gives back what it took;
//! what is refused later is not charged earlier.

mod fair_queue;
mod gcra;
mod local;
mod quota;
mod shared;

pub use quota::Spent;
pub use shared::Nodes;

use crate::base::calendar::Calendar;
use crate::base::clock::Clock;
use crate::base::name::{AccountName, TenantName};
use crate::base::tasks::Tasks;
use crate::config::{self, Limit, Settings};
use crate::redis::client::Budget;
use fair_queue::{FairQueue, Turn};
use local::{InFlight, InFlightSlot, Rate};
use quota::{Counter, Quota, Reservation};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Requests without a key at once. They have places of their own, so that nobody without a key can take a team's.
const MOST_ANONYMOUS: usize = 64;

const fn what_is_exceeded(limit: Limit) -> &'static str {
    match limit {
        Limit::Requests | Limit::InFlight => "the rate limit of this API key is exceeded, try again later",
        Limit::Account => "too many calls to Iluma are waiting for their turn, try again later: nothing was sent",
        Limit::QuotaDay => "this team's upstream calls of the day are used up: nothing was sent",
        Limit::QuotaMonth => "this team's upstream calls of the month are used up: nothing was sent",
    }
}

/// Why a request is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A limit of the tenant, or of the account that it shares. A 429.
    #[error("{}", what_is_exceeded(*limit))]
    Exceeded {
        /// Which one.
        limit: Limit,
        /// How much it allows.
        quota: u64,
        /// Over how long, where it is a rate.
        window: Option<Duration>,
        /// When to come back.
        retry_after: Duration,
    },
    /// The gateway has as many requests in hand as it may. A 503: nothing was sent.
    #[error("the gateway is at its limit of requests in flight, try again later")]
    Overloaded,
}

/// A request in flight.
#[derive(Debug)]
pub struct Permit {
    _tenant: InFlightSlot,
    _gateway: InFlightSlot,
}

/// One upstream call. Dropped before it was [`sent`](Self::sent) it gives back what it took.
#[derive(Debug)]
pub struct CallPermit {
    turn: Option<Turn>,
    reservation: Option<Reservation>,
    beyond: Option<Limit>,
}

impl CallPermit {
    /// From here on the call counts.
    pub fn sent(&mut self) {
        self.turn = None;
        if let Some(reservation) = self.reservation.take() {
            reservation.keep();
        }
    }

    /// The quota that would have refused it, were it in force.
    #[must_use]
    pub const fn beyond(&self) -> Option<Limit> {
        self.beyond
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            turn.give_back();
        }
    }
}

/// How far a tenant is with one of its quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Which one.
    pub limit: Limit,
    /// What was used.
    pub used: u64,
    /// What there is; none is no limit.
    pub quota: Option<u64>,
    /// Until it begins anew.
    pub resets_in: Duration,
}

/// The limits of one tenant.
#[derive(Debug)]
struct TenantLimits {
    rate: Option<Rate>,
    in_flight: InFlight,
}

/// What a tenant needs for an upstream call.
#[derive(Debug)]
struct Spender {
    weight: u32,
    quota: Quota,
    counter: Arc<Counter>,
    account: usize,
}

/// Every limit of this process.
#[derive(Debug)]
pub struct Limits {
    gateway: Arc<InFlight>,
    anonymous: Arc<InFlight>,
    tenants: Vec<Arc<TenantLimits>>,
    names: Vec<TenantName>,
    spenders: Vec<Spender>,
    accounts: Vec<(AccountName, Arc<FairQueue>)>,
    /// Those of teams that are gone, too: they may come back within the month.
    counters: BTreeMap<TenantName, Arc<Counter>>,
    calendar: Calendar,
    clock: Clock,
    /// Where several nodes hold the limits together.
    nodes: Option<Nodes>,
}

impl Limits {
    /// The limits that `settings` asks for. A tenant of `previous` whose limits did not change keeps what it used.
    #[must_use]
    pub fn new(
        settings: &Settings,
        previous: Option<&Self>,
        clock: &Clock,
        tasks: &Tasks,
        nodes: Option<&Nodes>,
    ) -> Self {
        let before = |name| {
            let previous = previous?;
            let at = previous.names.iter().position(|known| known == name)?;
            previous.tenants.get(at)
        };
        let tenants = settings.tenants.iter().map(|(name, tenant)| match before(name) {
            Some(limits) if limits.fit(tenant) => Arc::clone(limits),
            _ => Arc::new(TenantLimits::new(tenant, clock)),
        });
        let fits = |limits: &&Self| limits.gateway.most() == u64::try_from(settings.server.max_in_flight).ok();
        let gateway = match previous.filter(fits) {
            Some(limits) => Arc::clone(&limits.gateway),
            None => Arc::new(InFlight::new(Some(settings.server.max_in_flight))),
        };
        let anonymous = match previous {
            Some(limits) => Arc::clone(&limits.anonymous),
            None => Arc::new(InFlight::new(Some(MOST_ANONYMOUS))),
        };
        let tenants = tenants.collect();
        let calendar = settings.quotas.calendar.clone();
        let today = calendar.day(clock.wall());
        let mut counters = previous.map(|limits| limits.counters.clone()).unwrap_or_default();
        let spenders = settings.tenants.iter().map(|(name, tenant)| Spender {
            weight: tenant.limits.weight,
            quota: Quota::new(&tenant.limits),
            counter: Arc::clone(
                counters.entry(name.clone()).or_insert_with(|| Counter::new(Spent::nothing(today), version(clock))),
            ),
            // Settings hold no tenant without its account.
            account: settings.accounts.keys().position(|account| *account == tenant.account).unwrap_or_default(),
        });
        let spenders = spenders.collect();
        let accounts = settings.accounts.iter().map(|(name, account)| {
            let known = previous.and_then(|limits| limits.accounts.iter().find(|(known, _)| known == name));
            let turns = match known {
                Some((_, turns)) => Arc::clone(turns),
                None => Arc::new(match nodes {
                    Some(nodes) => {
                        FairQueue::shared(nodes, name, account.requests_per_second, account.max_wait, clock, tasks)
                    }
                    None => FairQueue::new(account.requests_per_second, account.max_wait, clock, tasks),
                }),
            };
            turns.reshape(account.requests_per_second, account.max_wait);
            (name.clone(), turns)
        });
        let accounts = accounts.collect();
        let names = settings.tenants.keys().cloned().collect();
        let (clock, nodes) = (clock.clone(), nodes.cloned());
        Self { gateway, anonymous, tenants, names, spenders, accounts, counters, calendar, clock, nodes }
    }

    /// Takes over what was spent before this process began.
    pub fn remember(&mut self, spent: impl IntoIterator<Item = (TenantName, Spent)>) {
        for (name, spent) in spent {
            let counter = Counter::new(spent, version(&self.clock));
            if let Some(at) = self.names.iter().position(|known| *known == name) {
                self.spenders[at].counter = Arc::clone(&counter);
            }
            self.counters.insert(name, counter);
        }
    }

    /// Admits one upstream call of the tenant at `index`: waits for its turn, and counts it toward the quotas if upstream
    /// may charge for it. `redis` is what it may wait for the other nodes' count.
    ///
    /// # Errors
    /// A quota has nothing left, or the turn would not come in time. Nothing was taken.
    pub async fn admit_call(&self, index: usize, charged: bool, redis: &Budget) -> Result<CallPermit, Refusal> {
        let (Some(spender), Some(name)) = (self.spenders.get(index), self.names.get(index)) else {
            return Err(Refusal::Overloaded);
        };
        // First what needs no waiting: who has nothing left would only take others' places in the queue.
        let reservation = if charged {
            let (quota, counter, now) = (&spender.quota, &spender.counter, self.clock.wall());
            let reserved = match &self.nodes {
                Some(nodes) if quota.is_any() => {
                    quota.reserve_together(name, counter, &self.calendar, now, nodes, redis).await
                }
                _ => quota.reserve(counter, &self.calendar, now),
            };
            Some(reserved.map_err(|exceeded| Refusal::Exceeded {
                limit: exceeded.limit,
                quota: exceeded.quota,
                window: None,
                retry_after: exceeded.retry_after,
            })?)
        } else {
            None
        };
        let beyond = reservation.as_ref().and_then(|reservation| reservation.beyond);
        // Gives the reservation back if the turn does not come, or is not waited for.
        let mut permit = CallPermit { turn: None, reservation, beyond };
        let Some((_, turns)) = self.accounts.get(spender.account) else { return Err(Refusal::Overloaded) };
        let turn = turns.turn(name, spender.weight).await.map_err(|retry_after| Refusal::Exceeded {
            limit: Limit::Account,
            quota: turns.shape().map_or(0, |(rate, _)| rate.into()),
            window: turns.shape().map(|_| Duration::from_secs(1)),
            retry_after,
        })?;
        permit.turn = Some(turn);
        Ok(permit)
    }

    /// Upstream said that the account at `index` asks too much: nothing is sent for it for so long, a minute at most.
    pub fn pause(&self, index: usize, time: Duration) {
        if let Some((_, turns)) = self.accounts.get(index) {
            turns.pause(time);
        }
    }

    /// Tells the other nodes what this one sees, hears what they see, and takes its part of the tenants' rates. Called
    /// once a second where there are others.
    pub async fn beat(&self) {
        let Some(nodes) = &self.nodes else { return };
        let rated = || self.names.iter().zip(&self.tenants).filter_map(|(name, t)| Some((name, t.rate.as_ref()?)));
        let asked: Vec<_> = rated().map(|(name, rate)| (name.clone(), rate.asked())).collect();
        match nodes.beat(&asked).await {
            Some(totals) => {
                for (((_, rate), (_, mine)), all) in rated().zip(&asked).zip(totals) {
                    rate.take_part(local::part(rate.per_second(), *mine, all, nodes.alive()));
                }
            }
            None => rated().for_each(|(_, rate)| rate.take_part(1.0 / f64::from(nodes.alive()))),
        }
        let day = self.calendar.day(self.clock.wall());
        for (name, spender) in self.names.iter().zip(&self.spenders) {
            if spender.quota.is_any() && nodes.is_up() {
                spender.counter.tell(name, day, nodes).await;
            }
        }
    }

    /// This node leaves the others.
    pub async fn leave(&self) {
        if let Some(nodes) = &self.nodes {
            nodes.leave().await;
        }
    }

    /// How far the tenant at `index` is with its quotas, of the day and of the month.
    #[must_use]
    pub fn standing(&self, index: usize) -> Option<[Standing; 2]> {
        let spender = self.spenders.get(index)?;
        let now = self.clock.wall();
        let spent = spender.counter.on(self.calendar.day(now));
        Some(spender.quota.bounds().map(|(limit, quota)| match limit {
            Limit::QuotaMonth => {
                Standing { limit, used: spent.this_month, quota, resets_in: self.calendar.until_next_month(now) }
            }
            _ => Standing { limit, used: spent.today, quota, resets_in: self.calendar.until_next_day(now) },
        }))
    }

    /// Takes what one request of the tenant at `index` costs, or nothing.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit(&self, index: usize) -> Result<Permit, Refusal> {
        let gateway = self.gateway.enter().ok_or(Refusal::Overloaded)?;
        let Some(limits) = self.tenants.get(index) else { return Err(Refusal::Overloaded) };
        // Places come back by themselves, a token of the rate does not: it is taken last.
        let tenant = limits.in_flight.enter().ok_or_else(|| Refusal::Exceeded {
            limit: Limit::InFlight,
            quota: limits.in_flight.most().unwrap_or_default(),
            window: None,
            // Nobody knows when a place comes free; a second is the least that the header can say.
            retry_after: Duration::from_secs(1),
        })?;
        if let Some(rate) = &limits.rate {
            rate.take().map_err(|retry_after| Refusal::Exceeded {
                limit: Limit::Requests,
                quota: rate.burst(),
                window: Some(rate.window()),
                retry_after,
            })?;
        }
        Ok(Permit { _tenant: tenant, _gateway: gateway })
    }

    /// A place for a request that no tenant asks, such as upstream's health.
    ///
    /// # Errors
    /// There are as many of them as there may be.
    pub fn admit_anonymous(&self) -> Result<Permit, Refusal> {
        let anonymous = self.anonymous.enter().ok_or(Refusal::Overloaded)?;
        Ok(Permit { _tenant: InFlightSlot::free(), _gateway: anonymous })
    }
}

/// Microseconds since 1970: beyond what a process before this one has counted to.
fn version(clock: &Clock) -> u64 {
    let since = clock.wall().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(0)
}

impl TenantLimits {
    fn new(tenant: &config::Tenant, clock: &Clock) -> Self {
        let rate = tenant.limits.rate().and_then(|(rate, burst)| Rate::new(rate, burst, clock));
        Self { rate, in_flight: InFlight::new(Some(tenant.limits.max_in_flight)) }
    }

    /// Whether these are the limits that the configuration asks for.
    fn fit(&self, tenant: &config::Tenant) -> bool {
        self.rate.as_ref().map(Rate::shape) == tenant.limits.rate()
            && self.in_flight.most() == u64::try_from(tenant.limits.max_in_flight).ok()
    }
}
