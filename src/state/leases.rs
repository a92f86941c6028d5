//! Leases in memory, for the embedded engine: only one gateway process can use its database.

use crate::base::clock::Clock;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// The leased entries. Their number is bounded, because each caller asks for a bounded number of entries.
#[derive(Debug)]
pub(super) struct Leases<K> {
    held: Mutex<HashMap<K, Lease>>,
    /// The number of leases so far: the fencing token of the newest one.
    given: AtomicI64,
    clock: Clock,
}

#[derive(Debug)]
struct Lease {
    /// The time at which the lease ends.
    until: Instant,
    fencing_token: i64,
}

impl<K: Copy + Eq + Hash> Leases<K> {
    pub(super) fn new(clock: Clock) -> Self {
        Self { held: Mutex::default(), given: AtomicI64::new(0), clock }
    }

    /// Returns the entries that are leased now.
    pub(super) fn held(&self) -> HashSet<K> {
        let (mut held, now) = (self.held.lock(), self.clock.now());
        held.retain(|_, lease| lease.until > now);
        held.keys().copied().collect()
    }

    /// Leases an entry. Returns the fencing token of the lease.
    fn take(&self, key: K, lease: Duration) -> i64 {
        let fencing_token = self.given.fetch_add(1, Ordering::Relaxed) + 1;
        self.held.lock().insert(key, Lease { until: self.clock.now() + lease, fencing_token });
        fencing_token
    }

    /// Returns true if the entry was leased again after the lease with this fencing token ended.
    pub(super) fn is_taken_over(&self, key: &K, fencing_token: i64) -> bool {
        self.held.lock().get(key).is_some_and(|lease| lease.fencing_token != fencing_token)
    }

    /// Ends the lease of an entry, unless it is another lease than the one with this fencing token.
    pub(super) fn give_back(&self, key: &K, fencing_token: i64) {
        let mut held = self.held.lock();
        if held.get(key).is_some_and(|lease| lease.fencing_token == fencing_token) {
            held.remove(key);
        }
    }

    /// Begins a hand-out of entries. If the caller is cancelled, the hand-out is dropped before [`HandOut::keep`], and
    /// its leases end.
    pub(super) fn hand_out(&self) -> HandOut<'_, K> {
        HandOut { leases: self, taken: Vec::new() }
    }
}

/// The leases of an unfinished hand-out. If this value is dropped before [`HandOut::keep`], the leases end.
#[derive(Debug)]
pub(super) struct HandOut<'a, K: Copy + Eq + Hash> {
    leases: &'a Leases<K>,
    /// The leased entries, each with the fencing token of its lease.
    taken: Vec<(K, i64)>,
}

impl<K: Copy + Eq + Hash> HandOut<'_, K> {
    /// Leases an entry. Returns the fencing token of the lease.
    pub(super) fn take(&mut self, key: K, lease: Duration) -> i64 {
        let fencing_token = self.leases.take(key, lease);
        self.taken.push((key, fencing_token));
        fencing_token
    }

    /// Finishes the hand-out: the caller holds the leases now.
    pub(super) fn keep(mut self) {
        self.taken.clear();
    }
}

impl<K: Copy + Eq + Hash> Drop for HandOut<'_, K> {
    fn drop(&mut self) {
        self.taken.iter().for_each(|(key, fencing_token)| self.leases.give_back(key, *fencing_token));
    }
}
