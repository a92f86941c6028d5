//! Quotas of upstream calls for a day and a month.
//!
//! Invariants: a call is reserved before it is made, and returned if it was never sent; no number of concurrent calls
//! exceeds the rest of a quota; a new day and a new month begin at zero.

use super::shared::{self, Ask, Mine, Nodes, Others};
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
    per_day: Option<u64>,
    per_month: Option<u64>,
    mode: QuotaMode,
}

/// The calls that a tenant has spent, over all changes of the configuration.
#[derive(Debug)]
pub(super) struct Counter(Mutex<Inner>);

/// The time of a reservation, and the calendar that assigns its day.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment<'a> {
    pub(super) calendar: &'a Calendar,
    pub(super) now: SystemTime,
}

/// The nodes that count a tenant's calls together; `redis` is a call's time for that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Together<'a> {
    pub(super) tenant: &'a TenantName,
    pub(super) nodes: &'a Nodes,
    pub(super) redis: &'a Budget,
}

#[derive(Debug, Clone, Copy)]
struct Inner {
    /// The calls of this node.
    spent: Spent,
    /// The calls of the other nodes, as far as they are known.
    others: Others,
    /// The calls of this node at the last exchange: its spending without the others is counted from there.
    known: Spent,
    /// A number that grows with every change.
    version: u64,
    /// The version that the other nodes know.
    told: u64,
}

/// The calls that were made or are in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// The day that is counted.
    pub day: Day,
    /// The calls on this day.
    pub today: u64,
    /// The calls in the month of the day, including that day's.
    pub this_month: u64,
}

/// A quota that is used up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exceeded {
    pub(super) limit: Limit,
    pub(super) quota: u64,
    /// The time until the quota is reset.
    pub(super) retry_after: Duration,
}

/// A counted call. If it is dropped before it is [kept](Self::keep), it is not counted any more.
#[derive(Debug)]
pub(super) struct Reservation {
    counter: Option<Arc<Counter>>,
    day: Day,
    beyond: Option<Limit>,
}

impl Quota {
    pub(super) fn new(limits: &TenantLimits) -> Self {
        Self {
            per_day: limits.upstream_calls_per_day,
            per_month: limits.upstream_calls_per_month,
            mode: limits.quota_mode,
        }
    }

    /// Returns the quotas of a day and a month.
    pub(super) const fn bounds(&self) -> (Option<u64>, Option<u64>) {
        (self.per_day, self.per_month)
    }

    /// Returns true if there is any quota.
    pub(super) fn is_any(&self) -> bool {
        self.per_day.is_some() || self.per_month.is_some()
    }

    /// Counts one call.
    pub(super) fn reserve(&self, counter: &Arc<Counter>, moment: Moment<'_>) -> Result<Reservation, Exceeded> {
        let mut inner = counter.on_day(moment.day());
        let beyond = self.beyond(&inner.total());
        if let Some((period, quota)) = beyond
            && self.mode == QuotaMode::Enforce
        {
            return Err(moment.exceeded(period, quota));
        }
        let day = inner.add();
        drop(inner);
        Ok(Reservation { counter: Some(Arc::clone(counter)), day, beyond: beyond.map(|(period, _)| period.limit()) })
    }

    /// Counts one call, if several nodes count together.
    pub(super) async fn reserve_together(
        &self,
        counter: &Arc<Counter>,
        moment: Moment<'_>,
        together: Together<'_>,
    ) -> Result<Reservation, Exceeded> {
        let (day, mine) = {
            let mut inner = counter.on_day(moment.day());
            (inner.add(), inner.mine())
        };
        // The reservation owns the count from before the wait: it is returned if the call is refused or cancelled.
        let mut reservation = Reservation { counter: Some(Arc::clone(counter)), day, beyond: None };
        let enforced = self.mode == QuotaMode::Enforce;
        let bounds = if enforced { (self.per_day, self.per_month) } else { (None, None) };
        let before = |count: u64| count.saturating_sub(1);
        let Together { tenant, nodes, redis } = together;
        match nodes.reserve(tenant, Ask { day, mine, bounds }, redis).await {
            Some(Ok(others)) => {
                counter.hear(day, others, mine);
                let (today, this_month) = (mine.today + others.today, mine.this_month + others.this_month);
                let total = Spent { day, today: before(today), this_month: before(this_month) };
                reservation.beyond = self.beyond(&total).map(|(period, _)| period.limit());
                Ok(reservation)
            }
            Some(Err(of_month)) => {
                let period = if of_month { Period::Month } else { Period::Day };
                Err(moment.exceeded(period, self.of(period).unwrap_or_default()))
            }
            None => {
                let inner = *counter.on_day(day);
                let spent = Spent { day, today: before(mine.today), this_month: before(mine.this_month) };
                let part = self.part_of(&inner, nodes.alive());
                match part.beyond(&spent).map(|(period, _)| period) {
                    Some(period) if enforced => Err(moment.exceeded(period, self.of(period).unwrap_or_default())),
                    beyond => {
                        reservation.beyond = beyond.map(Period::limit);
                        Ok(reservation)
                    }
                }
            }
        }
    }

    const fn of(&self, period: Period) -> Option<u64> {
        match period {
            Period::Day => self.per_day,
            Period::Month => self.per_month,
        }
    }

    /// Returns the number that this node may spend if each node takes its part of the rest at their last exchange.
    fn part_of(&self, inner: &Inner, nodes: u32) -> Self {
        let part = |quota: Option<u64>, known: u64, others: u64| {
            quota.map(|quota| known + quota.saturating_sub(known + others) / u64::from(nodes.max(1)))
        };
        Self {
            per_day: part(self.per_day, inner.known.today, inner.others.today),
            per_month: part(self.per_month, inner.known.this_month, inner.others.this_month),
            mode: self.mode,
        }
    }

    /// Returns the quota that is used up; of two the one with the longer period.
    fn beyond(&self, spent: &Spent) -> Option<(Period, u64)> {
        let reached = |quota: Option<u64>, count: u64| quota.filter(|quota| count >= *quota);
        let month = reached(self.per_month, spent.this_month).map(|quota| (Period::Month, quota));
        month.or_else(|| reached(self.per_day, spent.today).map(|quota| (Period::Day, quota)))
    }
}

/// The period of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Period {
    Day,
    Month,
}

impl Period {
    const fn limit(self) -> Limit {
        match self {
            Self::Day => Limit::QuotaDay,
            Self::Month => Limit::QuotaMonth,
        }
    }
}

impl Moment<'_> {
    fn day(&self) -> Day {
        self.calendar.day(self.now)
    }

    fn exceeded(&self, period: Period, quota: u64) -> Exceeded {
        let retry_after = match period {
            Period::Day => self.calendar.until_next_day(self.now),
            Period::Month => self.calendar.until_next_month(self.now),
        };
        Exceeded { limit: period.limit(), quota, retry_after }
    }
}

impl Counter {
    /// Makes a counter. `version` is larger than any that an earlier process sent to other nodes.
    pub(super) fn new(spent: Spent, version: u64) -> Arc<Self> {
        let known = Spent { today: 0, this_month: 0, ..spent };
        Arc::new(Self(Mutex::new(Inner { spent, others: Others::default(), known, version, told: 0 })))
    }

    /// Returns the calls on that day and in its month, by all nodes as far as they are known.
    pub(super) fn on(&self, day: Day) -> Spent {
        self.on_day(day).total()
    }

    /// Sends the changes that the other nodes do not know yet.
    pub(super) async fn tell(&self, tenant: &TenantName, day: Day, nodes: &Nodes) {
        let mine = self.on_day(day).mine();
        let ask = Ask { day, mine, bounds: (None, None) };
        if let Some(Ok(others)) = nodes.reserve(tenant, ask, &Budget::of(shared::TELLING)).await {
            self.hear(day, others, mine);
        }
    }

    fn hear(&self, day: Day, others: Others, mine: Mine) {
        let mut inner = self.on_day(day);
        // An answer that was overtaken by a later one, or by midnight, is ignored.
        if inner.spent.day == day && inner.told <= mine.version {
            inner.told = mine.version;
            inner.others = others;
            inner.known = Spent { day, today: mine.today, this_month: mine.this_month };
        }
    }

    /// Locks the numbers, and changes them to that day. A clock that went back a little changes nothing.
    fn on_day(&self, day: Day) -> MutexGuard<'_, Inner> {
        let mut inner = self.0.lock();
        if day > inner.spent.day {
            let same_month = inner.spent.month() == day.month();
            let this_month = |count: u64| if same_month { count } else { 0 };
            let over = |spent: Spent| Spent { day, today: 0, this_month: this_month(spent.this_month) };
            (inner.spent, inner.known) = (over(inner.spent), over(inner.known));
            inner.others = Others { today: 0, this_month: this_month(inner.others.this_month) };
            inner.version += 1;
        }
        inner
    }
}

impl Inner {
    /// Counts one call; returns its day.
    fn add(&mut self) -> Day {
        self.spent.today += 1;
        self.spent.this_month += 1;
        self.version += 1;
        self.spent.day
    }

    fn mine(&self) -> Mine {
        Mine { version: self.version, today: self.spent.today, this_month: self.spent.this_month }
    }

    fn total(&self) -> Spent {
        let Spent { day, today, this_month } = self.spent;
        Spent { day, today: today + self.others.today, this_month: this_month + self.others.this_month }
    }
}

impl Spent {
    /// Returns the counts of a day that begins at zero.
    #[must_use]
    pub const fn nothing(day: Day) -> Self {
        Self { day, today: 0, this_month: 0 }
    }

    /// Returns the counted month.
    #[must_use]
    pub fn month(&self) -> Month {
        self.day.month()
    }
}

impl Reservation {
    /// Counts the call for good: it was sent.
    pub(super) fn keep(&mut self) {
        self.counter = None;
    }

    /// Returns the exceeded quota in shadow mode, which would have refused the call.
    pub(super) const fn beyond(&self) -> Option<Limit> {
        self.beyond
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(counter) = self.counter.take() else { return };
        let mut inner = counter.0.lock();
        if inner.spent.day == self.day {
            inner.spent.today = inner.spent.today.saturating_sub(1);
        }
        if inner.spent.month() == self.day.month() {
            inner.spent.this_month = inner.spent.this_month.saturating_sub(1);
        }
        inner.version += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(per_day: Option<u64>, per_month: Option<u64>, mode: QuotaMode) -> Quota {
        Quota { per_day, per_month, mode }
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
        let reserve = |now| quota.reserve(&counter, Moment { calendar: &calendar, now });
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
        assert_eq!((spent.today, spent.this_month), (1, 1), "what is given back late is of another month");
    }

    #[test]
    fn a_shadow_counts_and_refuses_nothing() {
        let calendar: Calendar = "UTC".parse().unwrap();
        let now = at(&calendar, "2026-11-29");
        let counter = Counter::new(Spent::nothing(calendar.day(now)), 0);
        let quota = quota(Some(1), None, QuotaMode::Shadow);
        for beyond in [None, Some(Limit::QuotaDay)] {
            let mut reservation = quota.reserve(&counter, Moment { calendar: &calendar, now }).unwrap();
            assert_eq!(reservation.beyond, beyond);
            reservation.keep();
        }
        assert_eq!(counter.on(calendar.day(now)).today, 2);
    }

    #[test]
    fn exactly_as_many_as_are_left_pass_at_once() {
        let calendar: Calendar = "UTC".parse().unwrap();
        let now = at(&calendar, "2026-11-29");
        let counter = Counter::new(Spent { day: calendar.day(now), today: 70, this_month: 700 }, 0);
        let quota = quota(Some(100), None, QuotaMode::Enforce);
        let moment = Moment { calendar: &calendar, now };
        let passed = std::thread::scope(|scope| {
            let ask = || quota.reserve(&counter, moment).map(|mut reserved| reserved.keep()).is_ok();
            let all: Vec<_> = (0..200).map(|_| scope.spawn(ask)).collect();
            all.into_iter().map(|one| one.join().unwrap()).filter(|passed| *passed).count()
        });
        assert_eq!(passed, 30);
    }
}
