//! Totals since the start of the process, for metrics: outcomes of calls, their cost, and the cost that was saved.
//!
//! Invariant: only data that is on disk is counted, and only once.

use super::charge::Outcome;
use crate::base::name::TenantName;
use crate::iluma::route_name::RouteName;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// The totals of one team on one route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteTotals {
    /// Calls that were found billable, at once or by a settlement.
    pub billable: u64,
    /// Calls that were found not billable, at once or by a settlement.
    pub not_billable: u64,
    /// Calls that ended without a known outcome.
    pub unknown: u64,
    /// Cost of the billable calls, in rupiah.
    pub cost: u64,
    /// Cost that cached and shared answers would have had, in rupiah.
    pub saved: u64,
}

/// The end of a call, which is on disk already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndedCall {
    pub(super) tenant: String,
    pub(super) route: String,
    /// The outcome; `None` for a call that was never sent.
    pub(super) outcome: Option<Outcome>,
    pub(super) price: u64,
}

/// The totals of all teams and routes.
#[derive(Debug, Default)]
pub(super) struct Totals(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    routes: BTreeMap<(String, String), RouteTotals>,
    /// The number of calls whose outcome is not known now, for each team.
    unknown: BTreeMap<String, u64>,
}

impl Totals {
    /// Replaces the numbers of unknown calls by the numbers in the journal.
    pub(super) fn recount(&self, unknown: BTreeMap<String, u64>) {
        self.0.lock().unknown = unknown;
    }

    /// Counts a call whose intent is on disk.
    pub(super) fn booked(&self, tenant: &TenantName) {
        let mut inside = self.0.lock();
        match inside.unknown.get_mut(tenant.as_str()) {
            Some(unknown) => *unknown += 1,
            None => drop(inside.unknown.insert(tenant.as_str().to_owned(), 1)),
        }
    }

    /// Counts the ends of calls.
    pub(super) fn ended(&self, calls: Vec<EndedCall>) {
        let mut inside = self.0.lock();
        for EndedCall { tenant, route, outcome, price } in calls {
            if outcome != Some(Outcome::Unknown)
                && let Some(unknown) = inside.unknown.get_mut(&tenant)
            {
                *unknown = unknown.saturating_sub(1);
            }
            let Some(outcome) = outcome else { continue };
            let totals = inside.routes.entry((tenant, route)).or_default();
            match outcome {
                Outcome::Billable => {
                    totals.billable += 1;
                    totals.cost += price;
                }
                Outcome::NotBillable => totals.not_billable += 1,
                Outcome::Unknown => totals.unknown += 1,
            }
        }
    }

    /// Counts the cost that cached and shared answers saved, in rupiah.
    pub(super) fn saved(&self, tenant: &TenantName, route: RouteName, saved: u64) {
        if saved > 0 {
            let at = (tenant.as_str().to_owned(), route.as_str().to_owned());
            self.0.lock().routes.entry(at).or_default().saved += saved;
        }
    }

    /// Returns the totals of every team and charged route, with zeros for routes without calls.
    pub(super) fn routes(&self, tenants: impl Iterator<Item = TenantName>) -> BTreeMap<(String, String), RouteTotals> {
        let mut routes = self.0.lock().routes.clone();
        for tenant in tenants {
            for route in RouteName::charged() {
                routes.entry((tenant.as_str().to_owned(), route.as_str().to_owned())).or_default();
            }
        }
        routes
    }

    /// Returns the number of calls whose outcome is not known now, for each team.
    pub(super) fn unknown(&self, tenants: impl Iterator<Item = TenantName>) -> BTreeMap<String, u64> {
        let mut unknown = self.0.lock().unknown.clone();
        for tenant in tenants {
            unknown.entry(tenant.as_str().to_owned()).or_default();
        }
        unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settlement_adds_to_the_outcome_that_it_decides() {
        let (totals, tenant) = (Totals::default(), "lending".parse::<TenantName>().unwrap());
        let ended = |outcome| {
            let (tenant, route) = ("lending".to_owned(), "bank".to_owned());
            totals.ended(vec![EndedCall { tenant, route, outcome, price: 500 }]);
        };
        let now = || {
            let routes = totals.routes(std::iter::once(tenant.clone()));
            let unknown = totals.unknown(std::iter::once(tenant.clone()))["lending"];
            (routes[&("lending".to_owned(), "bank".to_owned())], unknown)
        };
        assert_eq!(now(), (RouteTotals::default(), 0));
        (0..3).for_each(|_| totals.booked(&tenant));
        assert_eq!(now(), (RouteTotals::default(), 3));
        ended(None);
        ended(Some(Outcome::Unknown));
        assert_eq!(now(), (RouteTotals { unknown: 1, ..RouteTotals::default() }, 2));
        ended(Some(Outcome::Billable));
        ended(Some(Outcome::NotBillable));
        totals.saved(&tenant, RouteName::Bank, 700);
        let expected = RouteTotals { billable: 1, not_billable: 1, unknown: 1, cost: 500, saved: 700 };
        assert_eq!(now(), (expected, 0));
        totals.recount(BTreeMap::from([("lending".to_owned(), 4)]));
        assert_eq!(now(), (expected, 4));
    }
}
