//! All limits of this process, and the checks of requests and calls.

use super::endpoints::{Endpoint, Endpoints};
use super::fair_queue::FairQueue;
use super::fields::{self, Item, RateLimitFields, RecentFields};
use super::in_flight::{ByteBudget, HeldBytes, InFlight, InFlightSlot};
use super::meter::Meter;
use super::permit::{CallPermit, Permit};
use super::queue::Pace;
use super::quota::{Counter, Moment, Quota, Spent, Together};
use super::rate::{Rate, RateState, part};
use super::refusal::Refusal;
use super::shared::{BackoffNews, Changed, Nodes};
use crate::base::calendar::{Calendar, Day};
use crate::base::clock::Clock;
use crate::base::name::{AccountName, TenantName};
use crate::base::tasks::Tasks;
use crate::config::{self, Limit, Settings};
use crate::redis::Budget;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The largest number of concurrent requests without a key. Such requests have slots of their own, and take none from a
/// team.
const MOST_ANONYMOUS: usize = 64;

/// All limits of this process.
#[derive(Debug)]
pub struct Limits {
    gateway: Arc<InFlight>,
    anonymous: Arc<InFlight>,
    buffered: Arc<ByteBudget>,
    /// The tenants' states, by index.
    tenants: Vec<TenantState>,
    accounts: Vec<AccountState>,
    /// The quota counters, also of removed teams, which may return within the month.
    counters: BTreeMap<TenantName, Arc<Counter>>,
    calendar: Calendar,
    clock: Clock,
    /// The nodes that enforce the limits together, if there are several.
    nodes: Option<Nodes>,
}

/// The limits of one account.
#[derive(Debug)]
struct AccountState {
    name: AccountName,
    queue: FairQueue,
    endpoints: Endpoints,
    max_wait: Duration,
}

/// An upstream call that asks for admission.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The endpoint of the call.
    pub endpoint: &'a Endpoint,
    /// The price in rupiah. It is `None` if upstream does not charge for the call; then no quota counts it.
    pub price: Option<u64>,
}

/// The limits of one tenant, and the used part of each limit.
#[derive(Debug)]
struct TenantState {
    name: TenantName,
    rate: Option<Arc<Rate>>,
    in_flight: Arc<InFlight>,
    buffered: Arc<ByteBudget>,
    weight: u32,
    quota: Quota,
    counter: Arc<Counter>,
    fields: RecentFields,
    /// The index of the tenant's account.
    account: usize,
}

/// The state of one quota of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaState {
    /// The quota.
    pub limit: Limit,
    /// The number of used calls or rupiah.
    pub used: u64,
    /// The number of allowed calls or rupiah; `None` means no limit.
    pub quota: Option<u64>,
    /// The time until the quota is reset.
    pub resets_in: Duration,
}

impl Limits {
    /// Makes the limits of `settings`. The counts of `previous`, the limits before a reload, continue.
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
            let known = previous.and_then(|limits| limits.accounts.iter().find(|known| known.name == *name));
            let (queue, endpoints) = match known {
                Some(known) => (known.queue.clone(), known.endpoints.clone()),
                None => (FairQueue::new(name, pace, nodes, clock, tasks), Endpoints::new(name, nodes, clock, tasks)),
            };
            queue.reshape(pace);
            AccountState { name: name.clone(), queue, endpoints, max_wait: account.max_wait }
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

    /// Makes the state of a tenant. `known` is its state before a reload: its counts of requests and bytes continue,
    /// and its rate continues if it did not change.
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
            fields: RecentFields::default(),
            // Settings have no tenant without an account.
            account: self.accounts.iter().position(|account| account.name == tenant.account).unwrap_or_default(),
        }
    }

    /// Gives each of these teams a counter that begins with the calls from before this process started.
    pub fn remember(&mut self, spent: impl IntoIterator<Item = (TenantName, Spent)>) {
        for (name, spent) in spent {
            let counter = Counter::new(spent, version(&self.clock));
            if let Some(tenant) = self.tenants.iter_mut().find(|tenant| tenant.name == name) {
                tenant.counter = Arc::clone(&counter);
            }
            self.counters.insert(name, counter);
        }
    }

    /// Admits one request of the tenant at `index`. The request counts toward the limits of requests in flight and
    /// toward the rate. A refused request counts toward none of these limits.
    ///
    /// # Errors
    /// Returns the limit that is reached.
    pub fn admit(&self, index: usize) -> Result<Permit, Refusal> {
        let (tenant, permit) = self.enter(index)?;
        if let Some(rate) = &tenant.rate {
            rate.take().map_err(|retry_after| Refusal::Exceeded {
                limit: Limit::Requests,
                quota: rate.burst(),
                window: Some(rate.window()),
                retry_after,
            })?;
        }
        Ok(permit)
    }

    /// Gives a request back to the rate of the tenant at `index`, because a limit refused the request's call.
    pub fn give_back(&self, index: usize) {
        if let Some(rate) = self.tenants.get(index).and_then(|tenant| tenant.rate.as_ref()) {
            rate.give_back();
        }
    }

    /// Admits a request to the team's own API, which does not count toward the team's rate.
    ///
    /// # Errors
    /// Returns the limit that is reached: too many requests are in flight.
    pub fn admit_unrated(&self, index: usize) -> Result<Permit, Refusal> {
        self.enter(index).map(|(_, permit)| permit)
    }

    fn enter(&self, index: usize) -> Result<(&TenantState, Permit), Refusal> {
        let gateway = self.gateway.enter().ok_or(Refusal::Overloaded)?;
        let tenant = self.tenants.get(index).ok_or(Refusal::Overloaded)?;
        // A dropped slot is free again, but a request that the rate counted stays counted. So callers take the rate
        // last.
        let slot = tenant.in_flight.enter().ok_or_else(|| Refusal::Exceeded {
            limit: Limit::InFlight,
            quota: tenant.in_flight.most(),
            window: None,
            // The time until a slot is free is unknown; a second is the smallest value of the header.
            retry_after: Duration::from_secs(1),
        })?;
        Ok((tenant, Permit::new(slot, gateway, Some(HeldBytes::none(&self.buffered, &tenant.buffered)))))
    }

    /// Admits a request without a tenant, such as one for upstream's health.
    ///
    /// # Errors
    /// Returns an error if too many such requests are in flight.
    pub fn admit_anonymous(&self) -> Result<Permit, Refusal> {
        let anonymous = self.anonymous.enter().ok_or(Refusal::Overloaded)?;
        Ok(Permit::new(InFlightSlot::free(), anonymous, None))
    }

    /// Admits one upstream call of the tenant at `index`. Waits while the call's endpoint backs off. Counts the call
    /// toward the quotas if it has a price. Then waits for a slot in the fair queue. `redis` bounds the waits for
    /// Redis.
    ///
    /// # Errors
    /// Returns an error if the endpoint backs off for longer, if a quota is used up, or if the slot would not come in
    /// time. In each case nothing is taken.
    pub async fn admit_call(&self, index: usize, call: Call<'_>, redis: &Budget) -> Result<CallPermit, Refusal> {
        let tenant = self.tenants.get(index).ok_or(Refusal::Overloaded)?;
        let account = self.accounts.get(tenant.account).ok_or(Refusal::Overloaded)?;
        let deadline = self.clock.now() + account.max_wait;
        // The permit owns everything from here on, so that a call that is cancelled while it waits gives it back.
        let mut permit = CallPermit::default();
        loop {
            let pass = account.endpoints.pass(call.endpoint, deadline, redis).await;
            permit.pass = Some(pass.map_err(|retry_after| Refusal::BackingOff { retry_after })?);
            // The quotas come before the queue: a tenant without calls left must not delay other tenants there.
            if let Some(price) = call.price.filter(|_| permit.reservation.is_none()) {
                permit.reservation = Some(self.reserve(tenant, price, redis).await?);
            }
            let queue = &account.queue;
            let slot = queue.slot(&tenant.name, tenant.weight).await.map_err(|retry_after| Refusal::Exceeded {
                limit: Limit::Account,
                quota: queue.shape().map_or(0, |(rate, _)| rate.into()),
                window: queue.shape().map(|_| Duration::from_secs(1)),
                retry_after,
            })?;
            // The endpoint may have begun to refuse calls meanwhile. Then the dropped slot goes to another call.
            if permit.pass.as_ref().is_some_and(super::endpoints::Pass::is_valid) {
                permit.slot = Some(slot);
                return Ok(permit);
            }
        }
    }

    async fn reserve(
        &self,
        tenant: &TenantState,
        price: u64,
        redis: &Budget,
    ) -> Result<super::quota::Reservation, Refusal> {
        let moment = Moment { calendar: &self.calendar, now: self.clock.wall() };
        let reserved = match &self.nodes {
            Some(nodes) if tenant.quota.is_any() => {
                let together = Together { tenant: &tenant.name, nodes, redis };
                // The future is on the heap, so that it costs nothing on a single node.
                Box::pin(tenant.quota.reserve_together(&tenant.counter, price, moment, together)).await
            }
            _ => tenant.quota.reserve(&tenant.counter, price, moment),
        };
        reserved.map_err(|exceeded| Refusal::Exceeded {
            limit: exceeded.limit,
            quota: exceeded.quota,
            window: None,
            retry_after: exceeded.retry_after,
        })
    }

    /// Returns the endpoints from which the account at `index` backs off, each with the time until the next probe.
    #[must_use]
    pub fn backing_off(&self, index: usize) -> Vec<(Endpoint, Duration)> {
        self.accounts.get(index).map(|account| account.endpoints.refusing()).unwrap_or_default()
    }

    /// Exchanges demand, refusing endpoints and quota counts with the other nodes, and takes this node's part of the
    /// tenants' rates. The caller does this once a second if there are other nodes.
    pub async fn heartbeat(&self) {
        let Some(nodes) = &self.nodes else { return };
        let rated = || self.tenants.iter().filter_map(|tenant| Some((&tenant.name, tenant.rate.as_ref()?)));
        let asked: Vec<_> = rated().map(|(name, rate)| (name.clone(), rate.asked())).collect();
        match nodes.heartbeat(&asked).await {
            Some(totals) => {
                for (((_, rate), (_, mine)), all) in rated().zip(&asked).zip(totals) {
                    rate.take_part(part(rate.per_second(), *mine, all, nodes.alive()));
                }
            }
            None => rated().for_each(|(_, rate)| rate.take_part(1.0 / f64::from(nodes.alive()))),
        }
        if nodes.is_up() {
            for account in &self.accounts {
                account.endpoints.hear(nodes).await;
            }
        }
        let day = self.calendar.day(self.clock.wall());
        for tenant in &self.tenants {
            if tenant.quota.is_any() && nodes.is_up() {
                tenant.counter.tell(&tenant.name, day, nodes).await;
            }
        }
    }

    /// Waits for news from the other nodes about endpoints, and takes over the state of the accounts that the news
    /// concerns. Returns false once there is no more news.
    pub async fn hear(&self, news: &mut BackoffNews) -> bool {
        let Some(changed) = news.next().await else { return false };
        let Some(nodes) = &self.nodes else { return false };
        for account in &self.accounts {
            let is_meant = match &changed {
                Changed::One(name) => account.name.as_str().as_bytes() == name.as_slice(),
                Changed::Any => true,
            };
            if is_meant {
                account.endpoints.hear(nodes).await;
            }
        }
        true
    }

    /// Removes this node from the group of nodes that enforce the limits together.
    pub async fn leave(&self) {
        if let Some(nodes) = &self.nodes {
            nodes.leave().await;
        }
    }

    /// Gives the price of a call on that day back to a tenant, because the call turned out not to be billable.
    pub fn refund(&self, tenant: &TenantName, day: Day, rupiah: u64) {
        if let Some(counter) = self.counters.get(tenant) {
            counter.refund(day, rupiah);
        }
    }

    /// Returns the quotas of the tenant at `index`: calls of the day, calls of the month, and rupiah of the month.
    /// Returns `None` if there is no such tenant.
    #[must_use]
    pub fn quotas(&self, index: usize) -> Option<[QuotaState; 3]> {
        Some(self.quotas_of(self.tenants.get(index)?))
    }

    fn quotas_of(&self, tenant: &TenantState) -> [QuotaState; 3] {
        let moment = Moment { calendar: &self.calendar, now: self.clock.wall() };
        let (spent, bounds) = (tenant.counter.on(self.calendar.day(moment.now)), tenant.quota.bounds());
        Meter::ALL.map(|meter| QuotaState {
            limit: meter.limit(),
            used: spent[meter as usize],
            quota: bounds[meter as usize],
            resets_in: moment.until_reset(meter),
        })
    }

    /// Returns the `RateLimit` fields of an answer to the tenant at `index`. If the answer is a `refusal`, the limit
    /// that refused comes first. Returns `None` if there is no limit to show.
    #[must_use]
    pub fn fields(&self, index: usize, refusal: Option<&Refusal>) -> Option<RateLimitFields> {
        let tenant = self.tenants.get(index)?;
        match refusal {
            None => tenant.fields.get(self.clock.now(), || self.items(tenant)),
            Some(refusal) => fields::fields(&fields::refused(self.items(tenant), refusal)),
        }
    }

    fn items(&self, tenant: &TenantState) -> Vec<Item> {
        let rate = tenant.rate.as_ref().map(|rate| {
            let RateState { remaining, full_in } = rate.state();
            let (limit, quota) = (Limit::Requests, rate.burst());
            Item { limit, quota, window: Some(rate.window()), remaining: remaining.into(), resets_in: Some(full_in) }
        });
        let (quota, remaining) = (tenant.in_flight.most(), tenant.in_flight.left());
        let in_flight = Item { limit: Limit::InFlight, quota, window: None, remaining, resets_in: None };
        let quotas = self.quotas_of(tenant).into_iter().filter_map(|QuotaState { limit, used, quota, resets_in }| {
            let quota = quota?;
            let remaining = quota.saturating_sub(used);
            Some(Item { limit, quota, window: None, remaining, resets_in: Some(resets_in) })
        });
        rate.into_iter().chain([in_flight]).chain(quotas).collect()
    }

    /// Returns the current state of the rate of the tenant at `index`; `None` if the tenant has no rate. Reading the
    /// state takes no request from the rate.
    #[must_use]
    pub fn rate(&self, index: usize) -> Option<RateState> {
        self.tenants.get(index)?.rate.as_ref().map(|rate| rate.state())
    }
}

/// Returns the microseconds since 1970, as a version that is larger than any version of an earlier process.
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
        let endpoint = Endpoint::from("GET /x");
        let call = || Call { endpoint: &endpoint, price: Some(500) };
        for (polls, steps) in (0..4).flat_map(|polls| (0..15).map(move |steps| (polls, steps))) {
            let limits = limits(&settings);
            let budget = Budget::of(Duration::ZERO);
            limits.admit_call(0, call(), &budget).await.unwrap().sent();
            let started = limits.clock.now();
            let mut gone = Box::pin(limits.admit_call(0, call(), &budget));
            let mut is_over = false;
            for _ in 0..polls {
                is_over = is_over || futures_util::poll!(&mut gone).is_ready();
                tokio::time::sleep(Duration::from_millis(10) * steps).await;
            }
            drop(gone);
            let case = format!("{polls} polls, {steps} steps apart");
            assert_eq!(limits.quotas(0).unwrap()[0].used, 1, "{case}");
            assert_eq!(limits.accounts[0].queue.waiting(), 0, "{case}");
            let at = limits.clock.now() - started;
            limits.admit_call(0, call(), &budget).await.unwrap().sent();
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
