//! The shared state of the ledger's parts.

use super::charge::Outcome;
use super::journal;
use super::published::PublishedLedgers;
use super::settlement::{Call, CallName, ClaimLink, Closing, Closings, End, Refund, Rules, Settlement, Spent};
use super::tally::{Counted, ROUTES, Tally};
use super::totals::Totals;
use crate::base::calendar::{Calendar, Day};
use crate::base::clock::Clock;
use crate::base::database::Database;
use crate::base::keyring::Pseudonymizer;
use crate::base::name::{AccountName, TenantName};
use crate::config::Settings;
use crate::iluma::route_name::RouteName;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::Notify;

/// The largest number of settlements that wait in memory because no call in this journal matches them yet. A settlement
/// may arrive before the answer to its POST; this is enough for all POSTs in flight.
pub(super) const MOST_EARLY: usize = 4096;

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) database: Database,
    pub(super) clock: Clock,
    pub(super) namer: Pseudonymizer,
    pub(super) live: ArcSwap<LedgerConfig>,
    pub(super) tallies: Mutex<BTreeMap<TenantName, Arc<Tally>>>,
    pub(super) closings: Mutex<Closings>,
    /// The number of closings since the start of the process that are on disk.
    pub(super) written: AtomicU64,
    /// Settlements that arrived before the answer to their call.
    pub(super) early: Mutex<VecDeque<Settlement>>,
    /// The prices of calls that are not billable; budgets still have to get them back.
    pub(super) refunds: Mutex<Vec<Refund>>,
    /// The claims of calls that were settled as not billable: their keys may be used again.
    pub(super) freed: Mutex<Vec<ClaimLink>>,
    /// Notifies the task that frees claims.
    pub(super) freeing: Notify,
    /// The days with ledger lines that changed and are not yet published to other nodes.
    pub(super) unpublished: Mutex<BTreeSet<String>>,
    pub(super) published: Option<PublishedLedgers>,
    /// The lock of the batch that is being written: only one batch is written at a time.
    pub(super) writer: Arc<tokio::sync::Mutex<()>>,
    /// Notifies the keeper of a new closing.
    pub(super) closed: Notify,
    /// The reason why the node can't do its work, if any; the keeper sets it.
    pub(super) unready: Mutex<Option<String>>,
    pub(super) spent: Vec<Spent>,
    /// The number of the first call that this process may book.
    pub(super) first_new: i64,
    /// Days whose lines were raised to the published lines, because the journal is a restored copy.
    pub(super) restored: Mutex<BTreeSet<String>>,
    pub(super) node: String,
    /// Totals for metrics.
    pub(super) totals: Totals,
    /// The node's name in the configuration, which operators see.
    pub(super) name: String,
}

/// The ledger's part of the configuration.
#[derive(Debug)]
pub(super) struct LedgerConfig {
    pub(super) calendar: Calendar,
    pub(super) prices: [u64; ROUTES],
    pub(super) retention: Duration,
}

impl LedgerConfig {
    pub(super) fn new(settings: &Settings) -> Self {
        let price = |route: RouteName| settings.prices.get(&route).copied().unwrap_or_default();
        Self {
            calendar: settings.quotas.calendar.clone(),
            prices: RouteName::ALL.map(price),
            retention: settings.state.retention.ledger,
        }
    }
}

impl Inner {
    pub(super) fn time_zone(&self) -> String {
        self.live.load().calendar.to_string()
    }

    pub(super) fn today(&self) -> Day {
        self.live.load().calendar.day(self.clock.wall())
    }

    pub(super) fn name(&self, account: &AccountName, id: &str) -> CallName {
        self.namer.name([account.as_str().as_bytes(), id.as_bytes()])
    }

    /// Returns the keyed hash of an account, a route and a reference. The reference is in the form that Iluma receives.
    pub(super) fn reference(&self, account: &AccountName, route: RouteName, reference: &str) -> CallName {
        self.namer.name([account.as_str().as_bytes(), route.as_str().as_bytes(), reference.as_bytes()])
    }

    /// Queues the end of a call.
    pub(super) fn close(&self, call: Call, end: End) {
        self.push(Closing { call, end, reference: None, is_early: false });
    }

    /// Queues a closing to be written, and wakes the keeper.
    pub(super) fn push(&self, closing: Closing) {
        self.closings.lock().push(closing);
        self.closed.notify_one();
    }

    /// Queues claims for the task that frees them: their idempotency keys may be used again.
    pub(super) fn free(&self, claims: Vec<ClaimLink>) {
        if !claims.is_empty() {
            self.freed.lock().extend(claims);
            self.freeing.notify_one();
        }
    }

    /// Returns the conditions under which calls end now.
    pub(super) fn rules(&self) -> Rules {
        let now = journal::millis(self.clock.wall());
        Rules { first_new: self.first_new, is_alone: self.published.is_none(), now, day: self.today() }
    }

    /// Records days that have to be published again.
    pub(super) fn changed(&self, days: impl IntoIterator<Item = String>) {
        if self.published.is_some() {
            self.unpublished.lock().extend(days);
        }
    }

    /// Keeps settlements that match no call in the journal: the call may not be answered yet.
    pub(super) fn keep_early(&self, closings: &[Closing]) {
        let settlement = |closing: &Closing| {
            let name = match closing.call {
                Call::Named(name) | Call::Referenced(name, _) => name,
                Call::Booked(_) | Call::NamedElsewhere(_) | Call::Paired(..) => return None,
            };
            match closing.end {
                End::Outcome(outcome, _) => Some(Settlement { name, outcome }),
                End::Withdrawn => None,
            }
        };
        let mut early = self.early.lock();
        early.extend(closings.iter().filter_map(settlement));
        let surplus = early.len().saturating_sub(MOST_EARLY);
        early.drain(..surplus);
    }

    /// Replaces the unknown outcome of an answered call if a settlement of its record arrived earlier.
    pub(super) fn apply_early(&self, closing: &mut Closing) {
        let End::Outcome(outcome @ Outcome::Unknown, Some(name)) = &mut closing.end else { return };
        let mut early = self.early.lock();
        let at = early.iter().position(|known| known.name == *name);
        if let Some(settled) = at.and_then(|at| early.remove(at)) {
            *outcome = settled.outcome;
            closing.is_early = true;
        }
    }

    pub(super) fn take_tallies(&self) -> Vec<Counted> {
        let live = self.live.load();
        let tallies = self.tallies.lock();
        let all = tallies.iter().flat_map(|(tenant, tally)| RouteName::ALL.map(|route| (tenant, tally, route)));
        let counts = all.map(|(tenant, tally, route)| (tenant, route, tally.take(route, live.prices[route as usize])));
        let counted = counts.filter(|(_, _, counts)| *counts != super::counts::Counts::default());
        counted.map(|(tenant, route, counts)| (tenant.clone(), route, counts)).collect()
    }

    pub(super) fn put_back(&self, counted: Vec<Counted>) {
        let tallies = self.tallies.lock();
        for (tenant, route, counts) in counted {
            let Some(tally) = tallies.get(&tenant) else { continue };
            tally.put_back(route, &counts);
        }
    }
}
