//! All limits of this process, and the checks of requests and calls.

use super::fair_queue::FairQueue;
use super::in_flight::{ByteBudget, HeldBytes, InFlight, InFlightSlot};
use super::permit::{CallPermit, Permit};
use super::queue::Pace;
use super::quota::{Counter, Moment, Quota, Spent, Together};
use super::rate::{Rate, RateState, part};
use super::refusal::Refusal;
use super::shared::Nodes;
use crate::base::calendar::Calendar;
use crate::base::clock::Clock;
use crate::base::name::{AccountName, TenantName};
use crate::base::tasks::Tasks;
use crate::config::{self, Limit, Settings};
use crate::redis::Budget;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The largest number of concurrent requests without a key. They have slots of their own, so that they take none of a
/// team's.
const MOST_ANONYMOUS: usize = 64;

/// All limits of this process.
#[derive(Debug)]
pub struct Limits {
    gateway: Arc<InFlight>,
    anonymous: Arc<InFlight>,
    buffered: Arc<ByteBudget>,
    /// The tenants' states, by index.
    tenants: Vec<TenantState>,
    accounts: Vec<(AccountName, FairQueue)>,
    /// The quota counters, also of removed teams, which may return within the month.
    counters: BTreeMap<TenantName, Arc<Counter>>,
    calendar: Calendar,
    clock: Clock,
    /// The nodes that enforce the limits together, if there are several.
    nodes: Option<Nodes>,
}

/// The used part of one tenant's limits.
#[derive(Debug)]
struct TenantState {
    name: TenantName,
    rate: Option<Arc<Rate>>,
    in_flight: Arc<InFlight>,
    buffered: Arc<ByteBudget>,
    weight: u32,
    quota: Quota,
    counter: Arc<Counter>,
    /// The index of its account.
    account: usize,
}

/// The state of one of a tenant's quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaState {
    /// The quota.
    pub limit: Limit,
    /// The number of used calls.
    pub used: u64,
    /// The number of allowed calls; `None` is no limit.
    pub quota: Option<u64>,
    /// The time until the quota is reset.
    pub resets_in: Duration,
}

impl Limits {
    /// Makes the limits of `settings`. The counts of `previous` continue.
    #[must_use]
    pub fn new(
        settings: &Settings,
        previous: Option<&Self>,
        clock: &Clock,
        tasks: &Tasks,
        nodes: Option<&Nodes>,
    ) -> Self {
        let server = &settings.server;
        let gateway = previous.map_or_else(|| InFlight::new(0), |limits| Arc::clone(&limits.gateway));
        gateway.set(server.max_in_flight);
        let buffered = previous.map(|limits| Arc::clone(&limits.buffered)).unwrap_or_default();
        buffered.set(server.max_buffered.to_usize());
        let anonymous = previous.map_or_else(|| InFlight::new(MOST_ANONYMOUS), |limits| Arc::clone(&limits.anonymous));
        let accounts = settings.accounts.iter().map(|(name, account)| {
            let pace = Pace { per_second: account.requests_per_second, max_wait: account.max_wait };
            let known = previous.and_then(|limits| limits.accounts.iter().find(|(known, _)| known == name));
            let queue =
                known.map_or_else(|| FairQueue::new(name, pace, nodes, clock, tasks), |(_, queue)| queue.clone());
            queue.reshape(pace);
            (name.clone(), queue)
        });
        let mut limits = Self {
            gateway,
            anonymous,
            buffered,
            tenants: Vec::with_capacity(settings.tenants.len()),
            accounts: accounts.collect(),
            counters: previous.map(|limits| limits.counters.clone()).unwrap_or_default(),
            calendar: settings.quotas.calendar.clone(),
            clock: clock.clone(),
            nodes: nodes.cloned(),
        };
        for (name, tenant) in &settings.tenants {
            let known = previous.and_then(|limits| limits.tenants.iter().find(|known| known.name == *name));
            let state = limits.tenant(name, tenant, known);
            state.buffered.set(server.max_buffered.to_usize() / 2);
            limits.tenants.push(state);
        }
        limits
    }

    /// Makes the state of a tenant; the parts of `known` whose limit did not change are kept.
    fn tenant(&mut self, name: &TenantName, tenant: &config::Tenant, known: Option<&TenantState>) -> TenantState {
        let limits = &tenant.limits;
        let rate = known.and_then(|known| known.rate.as_ref());
        let rate = match rate.filter(|rate| Some(rate.shape()) == limits.rate()) {
            Some(rate) => Some(Arc::clone(rate)),
            None => limits.rate().and_then(|(rate, burst)| Rate::new(rate, burst, &self.clock)).map(Arc::new),
        };
        let in_flight = known.map_or_else(|| InFlight::new(0), |known| Arc::clone(&known.in_flight));
        in_flight.set(limits.max_in_flight);
        let nothing = || Counter::new(Spent::nothing(self.calendar.day(self.clock.wall())), version(&self.clock));
        TenantState {
            name: name.clone(),
            rate,
            in_flight,
            buffered: known.map(|known| Arc::clone(&known.buffered)).unwrap_or_default(),
            weight: limits.weight,
            quota: Quota::new(limits),
            counter: Arc::clone(self.counters.entry(name.clone()).or_insert_with(nothing)),
            // Settings have no tenant without an account.
            account: self.accounts.iter().position(|(account, _)| *account == tenant.account).unwrap_or_default(),
        }
    }

    /// Adds the calls that were spent before this process began.
    pub fn remember(&mut self, spent: impl IntoIterator<Item = (TenantName, Spent)>) {
        for (name, spent) in spent {
            let counter = Counter::new(spent, version(&self.clock));
            if let Some(tenant) = self.tenants.iter_mut().find(|tenant| tenant.name == name) {
                tenant.counter = Arc::clone(&counter);
            }
            self.counters.insert(name, counter);
        }
    }

    /// Admits one request of the tenant at `index`: it takes all that the request needs, or nothing.
    ///
    /// # Errors
    /// Returns the limit that is reached.
    pub fn admit(&self, index: usize) -> Result<Permit, Refusal> {
        let gateway = self.gateway.enter().ok_or(Refusal::Overloaded)?;
        let tenant = self.tenants.get(index).ok_or(Refusal::Overloaded)?;
        // Slots are returned, but a request of the rate is not: it is taken last.
        let slot = tenant.in_flight.enter().ok_or_else(|| Refusal::Exceeded {
            limit: Limit::InFlight,
            quota: tenant.in_flight.most(),
            window: None,
            // The time until a slot is free is unknown; a second is the smallest value of the header.
            retry_after: Duration::from_secs(1),
        })?;
        if let Some(rate) = &tenant.rate {
            rate.take().map_err(|retry_after| Refusal::Exceeded {
                limit: Limit::Requests,
                quota: rate.burst(),
                window: Some(rate.window()),
                retry_after,
            })?;
        }
        Ok(Permit::new(slot, gateway, Some(HeldBytes::none(&self.buffered, &tenant.buffered))))
    }

    /// Admits a request without a tenant, such as one for upstream's health.
    ///
    /// # Errors
    /// Returns an error if too many of them are in flight.
    pub fn admit_anonymous(&self) -> Result<Permit, Refusal> {
        let anonymous = self.anonymous.enter().ok_or(Refusal::Overloaded)?;
        Ok(Permit::new(InFlightSlot::free(), anonymous, None))
    }

    /// Admits one upstream call of the tenant at `index`: counts it toward the quotas if upstream may charge for it,
    /// and waits for its slot. `redis` is its time for the other nodes' count.
    ///
    /// # Errors
    /// Returns an error if a quota is used up, or if the slot would not come in time. Nothing was taken then.
    pub async fn admit_call(&self, index: usize, charged: bool, redis: &Budget) -> Result<CallPermit, Refusal> {
        let tenant = self.tenants.get(index).ok_or(Refusal::Overloaded)?;
        let (_, queue) = self.accounts.get(tenant.account).ok_or(Refusal::Overloaded)?;
        // The permit owns everything from here on, so that a call that is cancelled while it waits gives it back.
        let mut permit = CallPermit::default();
        // The quotas come first, because they need no wait: a tenant without calls left would only delay others in the
        // queue.
        if charged {
            permit.reservation = Some(self.reserve(tenant, redis).await?);
        }
        let slot = queue.slot(&tenant.name, tenant.weight).await.map_err(|retry_after| Refusal::Exceeded {
            limit: Limit::Account,
            quota: queue.shape().map_or(0, |(rate, _)| rate.into()),
            window: queue.shape().map(|_| Duration::from_secs(1)),
            retry_after,
        })?;
        permit.slot = Some(slot);
        Ok(permit)
    }

    async fn reserve(&self, tenant: &TenantState, redis: &Budget) -> Result<super::quota::Reservation, Refusal> {
        let moment = Moment { calendar: &self.calendar, now: self.clock.wall() };
        let reserved = match &self.nodes {
            Some(nodes) if tenant.quota.is_any() => {
                let together = Together { tenant: &tenant.name, nodes, redis };
                tenant.quota.reserve_together(&tenant.counter, moment, together).await
            }
            _ => tenant.quota.reserve(&tenant.counter, moment),
        };
        reserved.map_err(|exceeded| Refusal::Exceeded {
            limit: exceeded.limit,
            quota: exceeded.quota,
            window: None,
            retry_after: exceeded.retry_after,
        })
    }

    /// Sends nothing for the account at `index` for this time, a minute at most, because upstream reported too many
    /// requests.
    pub fn pause(&self, index: usize, time: Duration) {
        if let Some((_, queue)) = self.accounts.get(index) {
            queue.pause(time);
        }
    }

    /// Exchanges the demand with the other nodes, and takes this node's part of the tenants' rates. It is called once a
    /// second if there are other nodes.
    pub async fn beat(&self) {
        let Some(nodes) = &self.nodes else { return };
        let rated = || self.tenants.iter().filter_map(|tenant| Some((&tenant.name, tenant.rate.as_ref()?)));
        let asked: Vec<_> = rated().map(|(name, rate)| (name.clone(), rate.asked())).collect();
        match nodes.beat(&asked).await {
            Some(totals) => {
                for (((_, rate), (_, mine)), all) in rated().zip(&asked).zip(totals) {
                    rate.take_part(part(rate.per_second(), *mine, all, nodes.alive()));
                }
            }
            None => rated().for_each(|(_, rate)| rate.take_part(1.0 / f64::from(nodes.alive()))),
        }
        let day = self.calendar.day(self.clock.wall());
        for tenant in &self.tenants {
            if tenant.quota.is_any() && nodes.is_up() {
                tenant.counter.tell(&tenant.name, day, nodes).await;
            }
        }
    }

    /// Leaves the group of nodes.
    pub async fn leave(&self) {
        if let Some(nodes) = &self.nodes {
            nodes.leave().await;
        }
    }

    /// Returns the quotas of the tenant at `index`, of the day and of the month.
    #[must_use]
    pub fn quotas(&self, index: usize) -> Option<[QuotaState; 2]> {
        let tenant = self.tenants.get(index)?;
        let now = self.clock.wall();
        let spent = tenant.counter.on(self.calendar.day(now));
        let (per_day, per_month) = tenant.quota.bounds();
        Some([
            QuotaState {
                limit: Limit::QuotaDay,
                used: spent.today,
                quota: per_day,
                resets_in: self.calendar.until_next_day(now),
            },
            QuotaState {
                limit: Limit::QuotaMonth,
                used: spent.this_month,
                quota: per_month,
                resets_in: self.calendar.until_next_month(now),
            },
        ])
    }

    /// Returns the current rate of the tenant at `index`, if it has one. Reading it takes nothing.
    #[must_use]
    pub fn rate(&self, index: usize) -> Option<RateState> {
        self.tenants.get(index)?.rate.as_ref().map(|rate| rate.state())
    }
}

/// Returns microseconds since 1970: a larger version than any of an earlier process.
fn version(clock: &Clock) -> u64 {
    let since = clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn settings(account: &str, tenant: &str) -> Settings {
        let text = format!(
            "[server]\nmax_in_flight = 4\nmax_buffered = \"4MiB\"\n\
             [state]\nroot_key = {{ env = \"ROOT\" }}\nencryption_keys = [{{ id = \"a\", key = {{ env = \"K\" }} }}]\n\
             [accounts.live]\napi_key = {{ env = \"K\" }}\n{account}\n\
             [tenants.lending]\naccount = \"live\"\nkey_sha256 = [\"{:064x}\"]\n{tenant}\n\
             [tenants.payments]\naccount = \"live\"\nkey_sha256 = [\"{:064x}\"]\n",
            1, 2
        );
        Settings::parse(&text, Path::new("."), &|name| Some(if name == "ROOT" { "cd" } else { "ab" }.repeat(32)))
            .expect("settings")
    }

    fn limits(settings: &Settings) -> Limits {
        Limits::new(settings, None, &Clock::adjustable(), &Tasks::new(), None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_dropped_at_any_await_point_leaves_quota_and_queue_as_they_were() {
        let settings = settings("requests_per_second = 10\nmax_wait = \"1s\"", "upstream_calls_per_day = 2");
        for (polls, steps) in (0..4).flat_map(|polls| (0..15).map(move |steps| (polls, steps))) {
            let limits = limits(&settings);
            let budget = Budget::of(Duration::ZERO);
            limits.admit_call(0, true, &budget).await.unwrap().sent();
            let started = limits.clock.now();
            let mut gone = Box::pin(limits.admit_call(0, true, &budget));
            let mut is_over = false;
            for _ in 0..polls {
                is_over = is_over || futures_util::poll!(&mut gone).is_ready();
                tokio::time::sleep(Duration::from_millis(10) * steps).await;
            }
            drop(gone);
            let case = format!("{polls} polls, {steps} steps apart");
            assert_eq!(limits.quotas(0).unwrap()[0].used, 1, "{case}");
            assert_eq!(limits.accounts[0].1.waiting(), 0, "{case}");
            let at = limits.clock.now() - started;
            limits.admit_call(0, true, &budget).await.unwrap().sent();
            let took = limits.clock.now() - started;
            assert!(took <= at.max(Duration::from_millis(100)) + Duration::from_millis(2), "{case}: {took:?}");
            assert_eq!(limits.quotas(0).unwrap()[0].used, 2, "{case}");
        }
    }

    #[test]
    fn one_tenant_holds_at_most_half_of_the_memory_for_bodies_and_all_of_them_no_more_than_that() {
        let limits = limits(&settings("", "max_in_flight = 4"));
        let [first, second] = [0, 0].map(|index| limits.admit(index).unwrap());
        assert!(first.hold(1 << 20) && second.hold(1 << 20));
        assert!(!second.hold(1), "half of it is held");
        let third = limits.admit(1).unwrap();
        assert!(third.hold(2 << 20));
        assert!(!third.hold(1));
        drop(first);
        assert!(second.hold(1 << 20));
        drop((second, third));
        assert_eq!(limits.buffered.held(), 0);
    }

    #[tokio::test]
    async fn a_reload_keeps_what_is_in_flight_and_held_under_other_bounds() {
        let before = limits(&settings("", "max_in_flight = 2\nrequests_per_second = 5"));
        let first = before.admit(0).unwrap();
        assert!(first.hold(1 << 20));
        let settings = settings("", "max_in_flight = 1\nrequests_per_second = 5");
        let after = Limits::new(&settings, Some(&before), &before.clock, &Tasks::new(), None);
        let refused = after.admit(0).map(drop).unwrap_err();
        assert!(matches!(refused, Refusal::Exceeded { limit: Limit::InFlight, quota: 1, .. }), "{refused:?}");
        assert_eq!(after.rate(0).unwrap().remaining, 4, "one of five was taken before the reload");
        assert_eq!(after.buffered.held(), 1 << 20);
        drop(first);
        assert!(after.admit(0).is_ok());
    }
}
