//! The teams' counters in memory, which the writer moves to the database.

use super::counts::Counts;
use crate::base::name::TenantName;
use crate::base::saved::Saved;
use crate::iluma::route_name::RouteName;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const ROUTES: usize = RouteName::COUNT;

/// The counts of a team on a route since the last write.
pub(super) type Counted = (TenantName, RouteName, Counts);

/// Counters of one team, by route.
#[derive(Debug)]
pub struct Tally {
    requests: [AtomicU64; ROUTES],
    calls: [AtomicU64; ROUTES],
    saved: [[AtomicU64; ROUTES]; Saved::ALL.len()],
}

impl Tally {
    pub(super) fn new() -> Self {
        let zeros = || [const { AtomicU64::new(0) }; ROUTES];
        Self { requests: zeros(), calls: zeros(), saved: [zeros(), zeros(), zeros()] }
    }

    /// Counts a request that has ended. `saved` is the reason why the request needed no call; `None` for any other
    /// request.
    pub fn request(&self, route: RouteName, saved: Option<Saved>) {
        self.requests[route as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(how) = saved {
            self.saved[how as usize][route as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a call that Iluma never charges for.
    pub fn call(&self, route: RouteName) {
        self.calls[route as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the counts of a route, and sets them to zero; `price` is the cost of a call that was saved.
    pub(super) fn take(&self, route: RouteName, price: u64) -> Counts {
        let take = |counts: &[AtomicU64; ROUTES]| counts[route as usize].swap(0, Ordering::Relaxed);
        let [hits, collapsed, shared] = [take(&self.saved[0]), take(&self.saved[1]), take(&self.saved[2])];
        Counts {
            requests: take(&self.requests),
            upstream_calls: take(&self.calls),
            hits,
            collapsed,
            shared,
            saved: (hits + collapsed + shared).saturating_mul(price),
            ..Counts::default()
        }
    }

    /// Puts back counts that could not be written.
    pub(super) fn put_back(&self, route: RouteName, counts: &Counts) {
        let add = |to: &[AtomicU64; ROUTES], count| to[route as usize].fetch_add(count, Ordering::Relaxed);
        add(&self.requests, counts.requests);
        add(&self.calls, counts.upstream_calls);
        for (to, count) in self.saved.iter().zip([counts.hits, counts.collapsed, counts.shared]) {
            add(to, count);
        }
    }
}
