//! Statistics: requests, their cost, and the concurrency.
//!
//! Invariants: only routes of the table are counted; a key is shown by its class and a short hash, never in clear; at
//! most [`MAX_KEYS`] keys are counted separately.

use parking_lot::Mutex;
use std::collections::BTreeMap;

use serde::Serialize;

use super::route::Route;

/// The largest number of keys that are counted separately. All further keys are counted together.
const MAX_KEYS: usize = 1000;

/// Counts since the start or the last reset, as `GET /_sim/stats` shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Requests received, including refused requests, except requests to `/_sim`.
    pub requests: u64,
    /// Calls that Iluma would charge for.
    pub charged: u64,
    /// The cost of the charged calls at the simulator's invented prices.
    pub rupiah: u64,
    /// Requests received and not answered yet.
    pub in_flight: u64,
    /// The highest value of `in_flight`.
    pub max_in_flight: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Results that are stored now.
    pub records: u64,
    /// Callbacks, by outcome.
    pub callbacks: CallbackStats,
    /// Counts by route: `bank`, `bank_get`, `cft`, …
    pub routes: BTreeMap<String, RouteStats>,
    /// Counts by key, such as `development-1a2b3c4d`. `none` has the requests without a valid key, and `further` the
    /// keys beyond the bound.
    pub keys: BTreeMap<String, KeyStats>,
}

/// Counts of one route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RouteStats {
    /// Requests received.
    pub requests: u64,
    /// Calls that Iluma would charge for.
    pub charged: u64,
    /// The cost of the charged calls.
    pub rupiah: u64,
    /// Requests received and not answered yet.
    pub in_flight: u64,
    /// The highest value of `in_flight`.
    pub max_in_flight: u64,
    /// Answers by HTTP status. An answer that a fault broke counts with the status that it had before the fault.
    pub statuses: BTreeMap<u16, u64>,
}

/// Counts of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeyStats {
    /// Requests received.
    pub requests: u64,
    /// Calls that Iluma would charge for.
    pub charged: u64,
    /// The cost of the charged calls.
    pub rupiah: u64,
}

/// Callbacks, by outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallbackStats {
    /// Callbacks that were answered 2xx.
    pub delivered: u64,
    /// Attempts to send a callback, including repeated attempts.
    pub attempts: u64,
    /// Callbacks that were never answered 2xx.
    pub failed: u64,
    /// Callbacks that were not sent because no URL was set for their type.
    pub no_url: u64,
    /// Callbacks that were not sent because too many waited.
    pub dropped: u64,
}

/// The counters of the statistics.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Stats>);

impl Tally {
    /// Counts a request. It counts as in flight until the guard is dropped. `key` is `None` if the request has no valid
    /// key.
    pub(super) fn enter(&self, route: Route, key: Option<&str>) -> InFlight<'_> {
        let mut stats = self.0.lock();
        stats.requests += 1;
        stats.in_flight += 1;
        stats.max_in_flight = stats.max_in_flight.max(stats.in_flight);
        let row = stats.routes.entry(route.label().0.into()).or_default();
        row.requests += 1;
        row.in_flight += 1;
        row.max_in_flight = row.max_in_flight.max(row.in_flight);
        key_row(&mut stats, key).requests += 1;
        InFlight { tally: self, route }
    }

    pub(super) fn charge(&self, route: Route, key: &str) {
        let (label, price) = route.label();
        let mut stats = self.0.lock();
        stats.charged += 1;
        stats.rupiah += price;
        let row = stats.routes.entry(label.into()).or_default();
        row.charged += 1;
        row.rupiah += price;
        let row = key_row(&mut stats, Some(key));
        row.charged += 1;
        row.rupiah += price;
    }

    pub(super) fn answered(&self, route: Route, status: u16) {
        *self.0.lock().routes.entry(route.label().0.into()).or_default().statuses.entry(status).or_default() += 1;
    }

    pub(super) fn connected(&self) {
        self.0.lock().connections += 1;
    }

    pub(super) fn callbacks(&self, count: impl FnOnce(&mut CallbackStats)) {
        count(&mut self.0.lock().callbacks);
    }

    pub(super) fn snapshot(&self, records: usize) -> Stats {
        Stats { records: records as u64, ..self.0.lock().clone() }
    }

    /// Sets everything to zero except the requests in flight.
    pub(super) fn reset(&self) {
        let mut stats = self.0.lock();
        let routes = stats.routes.iter().filter(|(_, row)| row.in_flight > 0).map(|(label, row)| {
            let row = RouteStats { in_flight: row.in_flight, max_in_flight: row.in_flight, ..RouteStats::default() };
            (label.clone(), row)
        });
        let (routes, in_flight) = (routes.collect(), stats.in_flight);
        *stats = Stats { in_flight, max_in_flight: in_flight, routes, ..Stats::default() };
    }
}

fn key_row<'a>(stats: &'a mut Stats, key: Option<&str>) -> &'a mut KeyStats {
    let key = key.unwrap_or("none");
    let known = stats.keys.contains_key(key) || stats.keys.len() < MAX_KEYS;
    stats.keys.entry(if known { key } else { "further" }.into()).or_default()
}

/// A request that is being answered.
pub(super) struct InFlight<'a> {
    tally: &'a Tally,
    route: Route,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut stats = self.tally.0.lock();
        stats.in_flight = stats.in_flight.saturating_sub(1);
        let row = stats.routes.entry(self.route.label().0.into()).or_default();
        row.in_flight = row.in_flight.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_keeps_what_is_in_flight() {
        let tally = Tally::default();
        let first = tally.enter(Route::Bank, Some("development-1"));
        drop(tally.enter(Route::Cft, None));
        tally.charge(Route::Bank, "development-1");
        assert_eq!(tally.snapshot(0).rupiah, 500);
        assert_eq!(tally.snapshot(0).max_in_flight, 2);
        tally.reset();
        let stats = tally.snapshot(0);
        assert_eq!((stats.requests, stats.charged, stats.in_flight, stats.max_in_flight), (0, 0, 1, 1));
        drop(first);
        assert_eq!(tally.snapshot(0).routes["bank"].in_flight, 0);
    }

    #[test]
    fn keys_have_a_bound() {
        let tally = Tally::default();
        for key in 0..MAX_KEYS + 10 {
            drop(tally.enter(Route::Bank, Some(&key.to_string())));
        }
        let stats = tally.snapshot(0);
        assert_eq!(stats.keys.len(), MAX_KEYS + 1);
        assert_eq!(stats.keys["further"].requests, 10);
    }
}
