//! Upstream calls a day and a month.
//!
//! Invariants: a call is reserved before it is made, and one that was never sent is given back; of any number of calls
//! at once no more are admitted than the quota has left; a new day and a new month begin at zero.

use super::Limit;
use crate::calendar::{Calendar, Day, Month};
use crate::config::{self, QuotaMode};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// What a team may spend, as the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quota {
    per_day: Option<u64>,
    per_month: Option<u64>,
    mode: QuotaMode,
}

/// What a team has spent, whatever the configuration says and however often it changes.
#[derive(Debug)]
pub(super) struct Counter(Mutex<Spent>);

/// Calls that were made or are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// The day that is counted.
    pub day: Day,
    /// Calls on it.
    pub today: u64,
    /// Calls in the month that it is in, itself included.
    pub this_month: u64,
}

/// A quota that has nothing left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exceeded {
    pub(super) limit: Limit,
    pub(super) quota: u64,
    /// Until it begins anew.
    pub(super) retry_after: Duration,
}

/// A call that is counted.
#[derive(Debug)]
pub(super) struct Reservation {
    counter: Arc<Counter>,
    day: Day,
    /// The quota that would have refused it, were it in force.
    pub(super) beyond: Option<Limit>,
}

impl Quota {
    pub(super) fn new(tenant: &config::Tenant) -> Self {
        Self {
            per_day: tenant.upstream_calls_per_day,
            per_month: tenant.upstream_calls_per_month,
            mode: tenant.quota_mode,
        }
    }

    /// The bounds, by their names.
    pub(super) fn bounds(&self) -> [(Limit, Option<u64>); 2] {
        [(Limit::QuotaDay, self.per_day), (Limit::QuotaMonth, self.per_month)]
    }

    /// Counts one call.
    pub(super) fn reserve(
        &self,
        counter: &Arc<Counter>,
        calendar: &Calendar,
        now: SystemTime,
    ) -> Result<Reservation, Exceeded> {
        let mut spent = counter.spent(calendar.day(now));
        let beyond = self.beyond(&spent);
        if let Some((limit, quota)) = beyond
            && self.mode == QuotaMode::Enforce
        {
            let retry_after = match limit {
                Limit::QuotaMonth => calendar.until_next_month(now),
                _ => calendar.until_next_day(now),
            };
            return Err(Exceeded { limit, quota, retry_after });
        }
        spent.today += 1;
        spent.this_month += 1;
        let (day, beyond) = (spent.day, beyond.map(|(limit, _)| limit));
        drop(spent);
        Ok(Reservation { counter: Arc::clone(counter), day, beyond })
    }

    /// The quota that has nothing left; of two the one that lasts longer.
    fn beyond(&self, spent: &Spent) -> Option<(Limit, u64)> {
        let reached = |quota: Option<u64>, count: u64| quota.filter(|quota| count >= *quota);
        let month = reached(self.per_month, spent.this_month).map(|quota| (Limit::QuotaMonth, quota));
        month.or_else(|| reached(self.per_day, spent.today).map(|quota| (Limit::QuotaDay, quota)))
    }
}

impl Counter {
    pub(super) fn new(spent: Spent) -> Arc<Self> {
        Arc::new(Self(Mutex::new(spent)))
    }

    /// What was spent on that day and in its month.
    pub(super) fn on(&self, day: Day) -> Spent {
        *self.spent(day)
    }

    /// The numbers, turned over to that day. A clock that went back a little changes nothing.
    fn spent(&self, day: Day) -> MutexGuard<'_, Spent> {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if day > spent.day {
            let this_month = if spent.day.month() == day.month() { spent.this_month } else { 0 };
            *spent = Spent { day, today: 0, this_month };
        }
        spent
    }
}

impl Spent {
    /// Nothing yet.
    #[must_use]
    pub const fn nothing(day: Day) -> Self {
        Self { day, today: 0, this_month: 0 }
    }

    /// The month that is counted.
    #[must_use]
    pub fn month(&self) -> Month {
        self.day.month()
    }
}

impl Reservation {
    /// The call was never sent.
    pub(super) fn give_back(self) {
        let mut spent = self.counter.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.day == self.day {
            spent.today = spent.today.saturating_sub(1);
        }
        if spent.month() == self.day.month() {
            spent.this_month = spent.this_month.saturating_sub(1);
        }
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
        let counter = Counter::new(Spent::nothing(calendar.day(noon)));
        let reserve = |time| quota.reserve(&counter, &calendar, time);
        assert!(reserve(noon).is_ok() && reserve(noon).is_ok());
        let half = Duration::from_secs(12 * 3600);
        assert_eq!(reserve(noon).unwrap_err(), Exceeded { limit: Limit::QuotaDay, quota: 2, retry_after: half });
        let next = noon + Duration::from_secs(86400);
        let third = reserve(next).unwrap();
        assert_eq!(reserve(next).unwrap_err(), Exceeded { limit: Limit::QuotaMonth, quota: 3, retry_after: half });
        third.give_back();
        let kept = reserve(next).unwrap();
        let december = next + Duration::from_secs(86400);
        assert!(reserve(december).is_ok());
        kept.give_back();
        let spent = counter.on(calendar.day(december));
        assert_eq!((spent.today, spent.this_month), (1, 1), "what is given back late is of another month");
    }

    #[test]
    fn a_shadow_counts_and_refuses_nothing() {
        let calendar: Calendar = "UTC".parse().unwrap();
        let now = at(&calendar, "2026-11-29");
        let counter = Counter::new(Spent::nothing(calendar.day(now)));
        let quota = quota(Some(1), None, QuotaMode::Shadow);
        assert_eq!(quota.reserve(&counter, &calendar, now).unwrap().beyond, None);
        assert_eq!(quota.reserve(&counter, &calendar, now).unwrap().beyond, Some(Limit::QuotaDay));
        assert_eq!(counter.on(calendar.day(now)).today, 2);
    }

    #[test]
    fn exactly_as_many_as_are_left_pass_at_once() {
        let calendar: Calendar = "UTC".parse().unwrap();
        let now = at(&calendar, "2026-11-29");
        let counter = Counter::new(Spent { day: calendar.day(now), today: 70, this_month: 700 });
        let quota = quota(Some(100), None, QuotaMode::Enforce);
        let passed = std::thread::scope(|scope| {
            let ask = || quota.reserve(&counter, &calendar, now).is_ok();
            let all: Vec<_> = (0..200).map(|_| scope.spawn(ask)).collect();
            all.into_iter().map(|one| one.join().unwrap()).filter(|passed| *passed).count()
        });
        assert_eq!(passed, 30);
    }
}
