//! Quotas of upstream calls a day, upstream calls a month, and rupiah a month.
//!
//! Invariants:
//! - A call is reserved before it is made.
//! - The reservation of a call that was never sent is given back.
//! - Concurrent calls never take more than the quotas have left.
//! - A call is counted by all quotas, or by none if one quota refuses the call.
//! - Each day and each month begins at zero.

use super::meter::{Amounts, Bounds, Meter};
use super::shared::{self, Ask, Mine, Nodes};
use crate::base::calendar::{Calendar, Day, Month};
use crate::base::name::TenantName;
use crate::config::{Limit, QuotaMode, TenantLimits};
use crate::redis::Budget;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The configured quotas of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quota {
    bounds: Bounds,
    mode: QuotaMode,
}

/// The counter of a tenant's calls and rupiah. It survives changes of the configuration.
#[derive(Debug)]
pub(super) struct Counter(Mutex<Inner>);

/// The moment of a reservation, and the calendar that determines its day.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment<'a> {
    pub(super) calendar: &'a Calendar,
    pub(super) now: SystemTime,
}

/// The nodes that count a tenant's calls together. `redis` is the time for which a call may wait for Redis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Together<'a> {
    pub(super) tenant: &'a TenantName,
    pub(super) nodes: &'a Nodes,
    pub(super) redis: &'a Budget,
}

#[derive(Debug, Clone, Copy)]
struct Inner {
    /// The day that is counted.
    day: Day,
    /// The spending of this node.
    own: Amounts,
    /// The spending of the other nodes, as far as it is known.
    others: Amounts,
    /// The spending of this node at the last exchange with the other nodes. While Redis is out, only later spending is
    /// measured against this node's part.
    known: Amounts,
    /// A number that grows with every change.
    version: u64,
    /// The last version that reached the other nodes.
    told: u64,
}

/// The calls that were made or are in flight, and the sum of their prices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// The day that is counted.
    pub day: Day,
    /// The number of calls on that day.
    pub today: u64,
    /// The number of calls in the month of that day, including the day.
    pub this_month: u64,
    /// The price of that month's calls in rupiah. The prices of calls that were not billable are subtracted.
    pub rupiah: u64,
}

/// A quota that has too little left for a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exceeded {
    pub(super) limit: Limit,
    pub(super) quota: u64,
    /// The time until the quota starts again at zero.
    pub(super) retry_after: Duration,
}

/// A counted call. Dropping it before it is [kept](Self::keep) subtracts the call again.
#[derive(Debug)]
pub(super) struct Reservation {
    counter: Option<Arc<Counter>>,
    day: Day,
    charge: Amounts,
    beyond: Option<Limit>,
}

impl Quota {
    pub(super) fn new(limits: &TenantLimits) -> Self {
        let bounds = [limits.upstream_calls_per_day, limits.upstream_calls_per_month, limits.budget_per_month];
        Self { bounds, mode: limits.quota_mode }
    }

    /// Returns the bound of each meter.
    pub(super) const fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Returns true if the tenant has any quota.
    pub(super) fn is_any(&self) -> bool {
        self.bounds.iter().any(Option::is_some)
    }

    /// Counts one call of `price` rupiah, unless an enforced quota refuses it.
    pub(super) fn reserve(
        &self,
        counter: &Arc<Counter>,
        price: u64,
        moment: Moment<'_>,
    ) -> Result<Reservation, Exceeded> {
        let charge = [1, 1, price];
        let mut inner = counter.on_day(moment.day());
        let beyond = self.beyond(&sum(inner.total(), charge), charge);
        if let Some(meter) = beyond
            && self.mode == QuotaMode::Enforce
        {
            return Err(self.exceeded(meter, moment));
        }
        let day = inner.add(charge);
        drop(inner);
        Ok(Reservation { counter: Some(Arc::clone(counter)), day, charge, beyond: beyond.map(Meter::limit) })
    }

    /// Counts one call of `price` rupiah together with the other nodes, unless an enforced quota refuses it.
    pub(super) async fn reserve_together(
        &self,
        counter: &Arc<Counter>,
        price: u64,
        moment: Moment<'_>,
        together: Together<'_>,
    ) -> Result<Reservation, Exceeded> {
        let charge = [1, 1, price];
        let (day, mine) = {
            let mut inner = counter.on_day(moment.day());
            (inner.add(charge), inner.mine())
        };
        // The reservation owns the count before the wait begins: dropping it gives back a refused or cancelled call.
        let mut reservation = Reservation { counter: Some(Arc::clone(counter)), day, charge, beyond: None };
        let enforced = self.mode == QuotaMode::Enforce;
        // A call without a price needs no budget.
        let mut bounds = if enforced { self.bounds } else { [None; 3] };
        bounds[Meter::RupiahOfMonth as usize].take_if(|_| price == 0);
        let Together { tenant, nodes, redis } = together;
        let (beyond, refuses) = match nodes.reserve(tenant, Ask { day, mine, bounds }, redis).await {
            Some(Ok(others)) => {
                counter.hear(day, others, mine);
                (self.beyond(&sum(mine.amounts, others), charge), false)
            }
            Some(Err(meter)) => (Some(meter), true),
            None => {
                let inner = *counter.on_day(day);
                let beyond = self.part_of(&inner, nodes.alive()).beyond(&mine.amounts, charge);
                (beyond, enforced)
            }
        };
        match beyond {
            Some(meter) if refuses => Err(self.exceeded(meter, moment)),
            beyond => {
                reservation.beyond = beyond.map(Meter::limit);
                Ok(reservation)
            }
        }
    }

    /// Returns the quotas of this node while Redis is out. Each quota is this node's spending at the last exchange with
    /// the other nodes, plus an equal part of the amount that was left then.
    fn part_of(&self, inner: &Inner, nodes: u32) -> Self {
        let part = |meter: Meter| {
            let (known, others) = (inner.known[meter as usize], inner.others[meter as usize]);
            self.bounds[meter as usize]
                .map(|quota| known + quota.saturating_sub(known + others) / u64::from(nodes.max(1)))
        };
        Self { bounds: Meter::ALL.map(part), mode: self.mode }
    }

    /// Returns the last meter, in the order of [`Meter::ALL`], whose quota `total` exceeds; `None` if there is none.
    /// `total` includes `charge`. A meter that `charge` does not raise is skipped.
    fn beyond(&self, total: &Amounts, charge: Amounts) -> Option<Meter> {
        let exceeds = |meter: &&Meter| {
            let at = **meter as usize;
            charge[at] > 0 && self.bounds[at].is_some_and(|quota| total[at] > quota)
        };
        Meter::ALL.iter().rev().find(exceeds).copied()
    }

    fn exceeded(&self, meter: Meter, moment: Moment<'_>) -> Exceeded {
        let quota = self.bounds[meter as usize].unwrap_or_default();
        Exceeded { limit: meter.limit(), quota, retry_after: moment.until_reset(meter) }
    }
}

fn sum(mut amounts: Amounts, others: Amounts) -> Amounts {
    for (amount, other) in amounts.iter_mut().zip(others) {
        *amount = amount.saturating_add(other);
    }
    amounts
}

impl Moment<'_> {
    fn day(&self) -> Day {
        self.calendar.day(self.now)
    }

    /// Returns the time until a meter starts again at zero.
    pub(super) fn until_reset(&self, meter: Meter) -> Duration {
        if meter.is_daily() { self.calendar.until_next_day(self.now) } else { self.calendar.until_next_month(self.now) }
    }
}

impl Counter {
    /// Makes a counter. `version` is larger than any version that an earlier process sent to other nodes.
    pub(super) fn new(spent: Spent, version: u64) -> Arc<Self> {
        let Spent { day, today, this_month, rupiah } = spent;
        let (own, nothing) = ([today, this_month, rupiah], Amounts::default());
        Arc::new(Self(Mutex::new(Inner { day, own, others: nothing, known: nothing, version, told: 0 })))
    }

    /// Returns the spending on that day and in its month by all nodes, as far as this node knows it.
    pub(super) fn on(&self, day: Day) -> Amounts {
        self.on_day(day).total()
    }

    /// Subtracts the price of a call of that day, because the call turned out not to be billable.
    pub(super) fn refund(&self, day: Day, rupiah: u64) {
        self.0.lock().give_back(day, [0, 0, rupiah]);
    }

    /// Sends this node's amounts to the other nodes, and stores the amounts that they sent.
    pub(super) async fn tell(&self, tenant: &TenantName, day: Day, nodes: &Nodes) {
        let mine = self.on_day(day).mine();
        let ask = Ask { day, mine, bounds: [None; 3] };
        if let Some(Ok(others)) = nodes.reserve(tenant, ask, &Budget::of(shared::MESSAGE_TIMEOUT)).await {
            self.hear(day, others, mine);
        }
    }

    fn hear(&self, day: Day, others: Amounts, mine: Mine) {
        let mut inner = self.on_day(day);
        // An answer that arrives after a newer one, or after midnight, is ignored.
        if inner.day == day && inner.told <= mine.version {
            inner.told = mine.version;
            inner.others = others;
            inner.known = mine.amounts;
        }
    }

    /// Locks the numbers, and resets them first if a new day has begun. An earlier day resets nothing, because a clock
    /// may go back a little.
    fn on_day(&self, day: Day) -> MutexGuard<'_, Inner> {
        let mut inner = self.0.lock();
        if day > inner.day {
            let same_month = inner.day.month() == day.month();
            for meter in Meter::ALL.into_iter().filter(|meter| meter.is_daily() || !same_month) {
                let at = meter as usize;
                (inner.own[at], inner.known[at], inner.others[at]) = (0, 0, 0);
            }
            inner.day = day;
            inner.version += 1;
        }
        inner
    }
}

impl Inner {
    /// Counts one call with its price, and returns the day on which it counts.
    fn add(&mut self, charge: Amounts) -> Day {
        self.own = sum(self.own, charge);
        self.version += 1;
        self.day
    }

    /// Subtracts `charge`, which was spent on that day, unless its day or month is over.
    fn give_back(&mut self, day: Day, charge: Amounts) {
        for meter in Meter::ALL {
            let is_counted = if meter.is_daily() { self.day == day } else { self.day.month() == day.month() };
            if is_counted {
                self.own[meter as usize] = self.own[meter as usize].saturating_sub(charge[meter as usize]);
            }
        }
        self.version += 1;
    }

    const fn mine(&self) -> Mine {
        Mine { version: self.version, amounts: self.own }
    }

    fn total(&self) -> Amounts {
        sum(self.own, self.others)
    }
}

impl Spent {
    /// Returns zero spending on a day and in its month.
    #[must_use]
    pub const fn nothing(day: Day) -> Self {
        Self { day, today: 0, this_month: 0, rupiah: 0 }
    }

    /// Returns the month that is counted.
    #[must_use]
    pub fn month(&self) -> Month {
        self.day.month()
    }
}

impl Reservation {
    /// Keeps the call in the count, because it was sent.
    pub(super) fn keep(&mut self) {
        self.counter = None;
    }

    /// Returns the quota that the call exceeds in shadow mode, in which no call is refused. Returns `None` if it
    /// exceeds none.
    pub(super) const fn beyond(&self) -> Option<Limit> {
        self.beyond
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(counter) = self.counter.take() {
            counter.0.lock().give_back(self.day, self.charge);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(per_day: Option<u64>, per_month: Option<u64>, mode: QuotaMode) -> Quota {
        Quota { bounds: [per_day, per_month, None], mode }
    }

    fn budget(rupiah: u64, mode: QuotaMode) -> Quota {
        Quota { bounds: [None, None, Some(rupiah)], mode }
    }

    fn at(calendar: &Calendar, day: &str) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(calendar.begin(day.parse().unwrap())).unwrap())
    }

    #[test]
    fn what_is_left_is_admitted_and_begins_anew_each_day_and_month() {
        let calendar: Calendar = "Asia/Jakarta".parse().unwrap();
        let quota = quota(Some(2), Some(3), QuotaMode::Enforce);
        let noon = at(&calendar, "2026-11-29") + Duration::from_secs(12 * 3600);
        let counter = Counter::new(Spent::nothing(calendar.day(noon)), 0);
        let reserve = |now| quota.reserve(&counter, 500, Moment { calendar: &calendar, now });
        let keep = |time| reserve(time).map(|mut reserved| reserved.keep()).is_ok();
        assert!(keep(noon) && keep(noon));
        let half = Duration::from_secs(12 * 3600);
        assert_eq!(reserve(noon).unwrap_err(), Exceeded { limit: Limit::QuotaDay, quota: 2, retry_after: half });
        let next = noon + Duration::from_secs(86400);
        let third = reserve(next).unwrap();
        assert_eq!(reserve(next).unwrap_err(), Exceeded { limit: Limit::QuotaMonth, quota: 3, retry_after: half });
        drop(third);
        let kept = reserve(next).unwrap();
        let december = next + Duration::from_secs(86400);
        assert!(keep(december));
        drop(kept);
        let spent = counter.on(calendar.day(december));
        assert_eq!(spent, [1, 1, 500], "what is given back late is of another month");
    }

    #[test]
    fn a_shadow_counts_and_refuses_nothing() {
        let calendar: Calendar = "UTC".parse().unwrap();
        let now = at(&calendar, "2026-11-29");
        let counter = Counter::new(Spent::nothing(calendar.day(now)), 0);
        let quota = quota(Some(1), None, QuotaMode::Shadow);
        for beyond in [None, Some(Limit::QuotaDay)] {
            let mut reservation = quota.reserve(&counter, 500, Moment { calendar: &calendar, now }).unwrap();
            assert_eq!(reservation.beyond, beyond);
            reservation.keep();
        }
        assert_eq!(counter.on(calendar.day(now))[0], 2);
    }

    #[test]
    fn exactly_as_many_as_are_left_pass_at_once() {
        let calendar: Calendar = "UTC".parse().unwrap();
        let now = at(&calendar, "2026-11-29");
        let counter = Counter::new(Spent { day: calendar.day(now), today: 70, this_month: 700, rupiah: 0 }, 0);
        let quota = quota(Some(100), None, QuotaMode::Enforce);
        let moment = Moment { calendar: &calendar, now };
        let passed = std::thread::scope(|scope| {
            let ask = || quota.reserve(&counter, 500, moment).map(|mut reserved| reserved.keep()).is_ok();
            let all: Vec<_> = (0..200).map(|_| scope.spawn(ask)).collect();
            all.into_iter().map(|one| one.join().unwrap()).filter(|passed| *passed).count()
        });
        assert_eq!(passed, 30);
    }

    #[test]
    fn a_budget_admits_what_it_can_pay_and_has_back_what_was_not_billable() {
        let calendar: Calendar = "UTC".parse().unwrap();
        let now = at(&calendar, "2026-11-29");
        let (day, moment) = (calendar.day(now), Moment { calendar: &calendar, now });
        let counter = Counter::new(Spent { day, today: 0, this_month: 0, rupiah: 9_000 }, 0);
        let budget = budget(10_000, QuotaMode::Enforce);
        let keep = |price| budget.reserve(&counter, price, moment).map(|mut reserved| reserved.keep()).is_ok();
        assert!(!keep(1_001), "dearer than what is left");
        assert!(keep(600) && keep(400), "every rupiah is usable");
        assert!(keep(0), "a call without a price needs no budget");
        let refused = budget.reserve(&counter, 1, moment).unwrap_err();
        let month = calendar.until_next_month(now);
        assert_eq!(refused, Exceeded { limit: Limit::BudgetMonth, quota: 10_000, retry_after: month });
        counter.refund(day, 600);
        assert!(keep(600) && !keep(1));
        let december = at(&calendar, "2026-12-01");
        assert_eq!(counter.on(calendar.day(december)), [0, 0, 0]);
        counter.refund(day, 600);
        assert_eq!(counter.on(calendar.day(december)), [0, 0, 0], "it was another month's");
    }

    #[test]
    fn a_call_that_one_quota_refuses_is_counted_by_none() {
        let calendar: Calendar = "UTC".parse().unwrap();
        let now = at(&calendar, "2026-11-29");
        let counter = Counter::new(Spent::nothing(calendar.day(now)), 0);
        let quota = Quota { bounds: [Some(1), Some(9), Some(9_000)], mode: QuotaMode::Enforce };
        let moment = Moment { calendar: &calendar, now };
        quota.reserve(&counter, 500, moment).unwrap().keep();
        assert_eq!(quota.reserve(&counter, 500, moment).unwrap_err().limit, Limit::QuotaDay);
        assert_eq!(counter.on(calendar.day(now)), [1, 1, 500]);
    }
}
